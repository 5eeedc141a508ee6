"""``python -m processors``; see `processors.cli`."""

from __future__ import annotations

import sys


def run() -> None:
    try:
        from processors.cli import main
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("outlines_core", "processors"):
            raise
        sys.exit(f"error: the command line needs {error.name}: pip install 'outlines-processors[hf]'")
    main()


if __name__ == "__main__":
    run()
