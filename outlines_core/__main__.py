"""``python -m outlines_core``: compile every kernel now, so that no request pays for it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import outlines_core
from outlines_core.cache import default_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _reporter() -> tuple[Callable[[int, int, str], None], Callable[[], None]]:
    """A progress callback (done, total, name) and what closes it: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda _done, _total, _name: None, lambda: None
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:

        def line(done: int, total: int, name: str) -> None:
            print(f"\r\033[K[{done}/{total}] {name}", end="", file=sys.stderr, flush=True)

        return line, lambda: print("\r\033[K", end="", file=sys.stderr, flush=True)

    bar: Any = tqdm(desc="compiling", unit="step", leave=False)

    def advance(done: int, total: int, name: str) -> None:
        bar.total = total
        bar.set_postfix_str(name, refresh=False)
        bar.update(done - bar.n)

    return advance, bar.close


def _kernel_directory() -> Path | None:
    """Where numba keeps compiled kernels; None if it compiles nothing (NUMBA_DISABLE_JIT)."""
    from outlines_core.kernels.trie import build_trie

    stats = getattr(build_trie, "stats", None)
    return None if stats is None or stats.cache_path is None else Path(stats.cache_path)


def _warmup(processes: int) -> int:
    from outlines_core.warmup import warmup

    progress, close = _reporter()
    start = time.perf_counter()
    try:
        warmup(progress, processes=processes)
    finally:
        close()
    print(f"kernels ready in {time.perf_counter() - start:.1f} s")
    print(f"  compiled code: {_kernel_directory() or 'none (numba does not compile here)'}")
    print(f"  vocabulary data: {default_directory()}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m outlines_core", description="Constraints compiled against a vocabulary."
    )
    parser.add_argument("--version", action="version", version=f"outlines_core {outlines_core.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    warmup = commands.add_parser(
        "warmup",
        help="compile all kernels now (once a machine), so that no later process does",
        description="Compile all kernels and keep them on disk. Afterwards no process on this machine has to.",
    )
    warmup.add_argument(
        "--processes",
        type=int,
        default=min(4, os.cpu_count() or 1),
        metavar="N",
        help="compile in so many processes, about 300 MB each (default: %(default)s)",
    )
    return _warmup(parser.parse_args(arguments).processes)


if __name__ == "__main__":
    sys.exit(main())
