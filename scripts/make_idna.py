"""Write outlines_core/json_schema/data/idna.json: which code points IDNA2008 allows, their scripts and joining types.

    python scripts/make_idna.py            write the table
    python scripts/make_idna.py --check    compare it with the committed one

The figures are those of the Python package `idna`, which derives them from Unicode's own files as RFC 5892 says: PVALID
code points, the scripts that the contextual rules of its appendix A ask for, and the joining types that its rule for
ZERO WIDTH NON-JOINER reads. The committed table was made with the version of the package in constraints.txt.
Code points with a contextual rule (CONTEXTJ and CONTEXTO) are few and stand in outlines_core/json_schema/idna_rules.py,
next to their rules.

A list holds runs of code points as gap, length, gap, length, ...: so many left out, so many in.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import idna
from idna import idnadata

TABLE = Path(__file__).resolve().parents[1] / "outlines_core" / "json_schema" / "data" / "idna.json"
SCRIPTS = ("Greek", "Hebrew", "Hiragana", "Katakana", "Han")
JOINING_TYPES = "DLRT"


def ranges(packed: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The half-open ranges of a table of `idna`: an int holds the first code point in its upper half."""
    for entry in packed:
        first, end = entry >> 32, entry & 0xFFFFFFFF
        yield (first, end) if first else (end, end + 1)


def runs(packed: Iterable[int]) -> list[int]:
    """Gaps and lengths.

    >>> runs([97 << 32 | 100, 100, 103])
    [97, 4, 2, 1]
    """
    found: list[int] = []
    at = 0
    for first, end in ranges(packed):
        if found and first == at:
            found[-1] += end - first
        else:
            found += [first - at, end - first]
        at = end
    return found


def table() -> str:
    """The content of idna.json, a list a line."""
    source = f"RFC 5892 and Unicode {idnadata.__version__} as tabulated by the Python package idna {idna.__version__}"
    data: dict[str, str | list[int]] = {
        "source": source,
        "encoding": "each list is gap, length, gap, length, ... of runs of code points",
        "pvalid": runs(idnadata.codepoint_classes["PVALID"]),
    }
    data |= {script.lower(): runs(idnadata.scripts[script]) for script in SCRIPTS}
    data |= {f"joining_{kind}": runs(idnadata.joining_types[kind]) for kind in JOINING_TYPES}
    lines = (f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in data.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the table would change")
    check = parser.parse_args().check
    text = table()
    if check:
        same = TABLE.read_bytes() == text.encode("ascii")
        print(f"{TABLE.name} is {'as' if same else 'not what'} idna {idna.__version__} makes it")
        return 0 if same else 1
    TABLE.write_bytes(text.encode("ascii"))
    print(f"wrote {TABLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
