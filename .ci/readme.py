"""What continuous integration takes from README.md, so that the two cannot drift apart.

python .ci/readme.py run           print the command that installs and runs
python .ci/readme.py test          print the command that installs and tests
python .ci/readme.py check OUTPUT  check that the last line of the file OUTPUT, what the first command printed, and
                                   the result that README.md shows match the pattern that the command gives
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def commands(text: str) -> tuple[str, str]:
    """The content of the two `sh` blocks, each one command line."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [" ".join(block.replace("\\\n", " ").split("\n")).strip() for block in blocks]
    if len(lines) != 2 or "processors generate" not in lines[0] or "pytest" not in lines[1]:
        raise SystemExit(f"README.md should hold two sh blocks, one that runs and one that tests, not {lines}")
    return lines[0], lines[1]


def shown(text: str) -> str:
    """The result that README.md shows: the first `text` block."""
    found = re.search(r"^```text\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit("README.md shows no output: no text block")
    return found[1]


def pattern(command: str) -> str:
    words = shlex.split(command)
    return words[words.index("--regex") + 1]


def check(output: Path) -> None:
    text = README.read_text(encoding="utf-8")
    regex = pattern(commands(text)[0])
    made = output.read_text(encoding="utf-8").rstrip("\n").rpartition("\n")[2]
    for what, line in (("the command printed", made), ("README.md shows", shown(text))):
        if not re.fullmatch(regex, line):
            raise SystemExit(f"{what} {line!r}, which does not match {regex}")
        print(f"{what} {line!r}, which matches {regex}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run"]:
            print(commands(README.read_text(encoding="utf-8"))[0])
        case ["test"]:
            print(commands(README.read_text(encoding="utf-8"))[1])
        case ["check", output]:
            check(Path(output))
        case _:
            raise SystemExit(__doc__)
