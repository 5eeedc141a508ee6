r"""Classes of characters by the names that Rust's regex crate gives them.

``\d``, ``\s`` and ``\w`` are Unicode's (UTS #18, annex C), ``[[:alpha:]]`` and the like are ASCII. Names of properties
are compared loosely (UAX #44-LM3): case, spaces, hyphens, underscores and a leading "is" do not matter. The characters
themselves come from the table that the ECMAScript dialect uses.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from outlines_core.regex.ast import Ranges
from outlines_core.regex.charset import ALL, complement, union
from outlines_core.regex.unicode import ecma_properties, ecma_property

__all__ = ["ASCII_PERL", "POSIX", "perl_class", "unicode_property"]

ASCII_PERL: Final[dict[str, Ranges]] = {
    "d": ((48, 57),),
    "s": ((9, 13), (32, 32)),
    "w": ((48, 57), (65, 90), (95, 95), (97, 122)),
}
POSIX: Final[dict[str, Ranges]] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": ((48, 57),),
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": ((48, 57), (65, 90), (95, 95), (97, 122)),
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
_WORD: Final = ("Alphabetic", "M", "Nd", "Pc", "Join_Control")
_KINDS: Final = {
    "generalcategory": "General_Category",
    "gc": "General_Category",
    "script": "Script",
    "sc": "Script",
    "scriptextensions": "Script_Extensions",
    "scx": "Script_Extensions",
}


@cache
def perl_class(letter: str) -> Ranges:
    r"""The characters of ``\d``, ``\s`` or ``\w`` in Unicode mode."""
    if letter == "d":
        return _known("Nd")
    if letter == "s":
        return _known("White_Space")
    return union(*map(_known, _WORD))


def _known(name: str) -> Ranges:
    found = ecma_property(name)
    assert found is not None
    return found


def _loose(name: str) -> str:
    name = "".join(char for char in name.lower() if char not in " -_\t")
    return name[2:] if name.startswith("is") and name != "isc" else name


@cache
def _by_loose_name() -> dict[str, tuple[str, str | None]]:
    """Loose name -> arguments of `ecma_property`; a script only where no property or category has its name."""
    found: dict[str, tuple[str, str | None]] = {}
    for written in sorted(ecma_properties()):
        kind, equals, value = written.partition("=")
        if not equals:
            found[_loose(written)] = (written, None)
        else:
            found[f"{_loose(kind)}={_loose(value)}"] = (kind, value)
    for written in sorted(ecma_properties()):
        kind, equals, value = written.partition("=")
        if kind == "Script" and equals:
            found.setdefault(_loose(value), (kind, value))
    return found


def unicode_property(name: str, value: str | None = None) -> Ranges | None:
    r"""The characters of ``\p{name}`` or ``\p{name=value}``; None: no such property is known here.

    >>> unicode_property("greek") == unicode_property("SC", "Is Grek") == unicode_property("Script", "Greek")
    True
    """
    loose = _loose(name)
    if value is not None:
        kind = _KINDS.get(loose)
        key = None if kind is None else f"{_loose(kind)}={_loose(value)}"
    else:
        special = {"any": ALL, "ascii": ((0, 127),), "assigned": None}
        if loose in special:
            return special[loose] or complement(_known("Cn"))
        key = loose
    where = _by_loose_name().get(key) if key else None
    return None if where is None else ecma_property(*where)
