r"""Character classes and case tables, computed or loaded when first asked for.

Python's classes and case mappings are those of the *running* interpreter, so they are computed from `re` and `str`:
one scan of a string of all code points (about 10 ms, then kept on disk for this interpreter).  ECMAScript's come from a
table that ``scripts/make_ecma_tables.mjs`` wrote down from a JavaScript engine's own answers (`data/ecma.json`).

``sre`` (Python's matcher) ignores case by lowering one character of text and comparing with a lowered pattern, plus a
short table of lower-case letters that share their upper case (``s`` and U+017F).  `fold_char` and `fold_set` give the
set of characters that this accepts; `fold_set` also repeats its treatment of characters above U+FFFF in sets, where
only ranges and lower-case letters find their other case.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib import resources
from re._casefix import _EXTRA_CASES  # type: ignore[import-not-found]  # the running sre's own table
from typing import Any, NamedTuple
from typing import Literal as OneOf

import numpy as np

from outlines_core.cache import content_key, default_store
from outlines_core.regex.ast import Ranges
from outlines_core.regex.charset import complement, contains, difference, normalise, union

__all__ = [
    "CaseTable",
    "case_table",
    "ecma_fold",
    "ecma_properties",
    "ecma_property",
    "fold_char",
    "fold_set",
    "python_class",
]

_SCANNED = 0x40000  # no letter, digit, space or cased character lies above (a test looks)
_LAST_BMP = 0xFFFF
_ASCII: dict[str, Ranges] = {
    "d": ((48, 57),),
    "s": ((9, 13), (32, 32)),
    "w": ((48, 57), (65, 90), (95, 95), (97, 122)),
}


@lru_cache(maxsize=1)
def _scanned_text() -> str:
    return array("I", range(_SCANNED)).tobytes().decode("utf-32", "surrogatepass")


@cache
def python_class(name: OneOf["d", "s", "w"], *, ascii_only: bool = False) -> Ranges:
    r"""The characters of ``\d``, ``\s`` or ``\w``."""
    if ascii_only:
        return _ASCII[name]
    store = default_store()
    key = content_key("python-class", 1, name, sys.version, unicodedata.unidata_version)
    known = store.get(key)
    if known is None or known.keys() != {"ranges"}:
        spans = [match.span() for match in re.finditer(rf"\{name}+", _scanned_text())]
        known = {"ranges": np.array(spans, dtype=np.int32).reshape(-1, 2)}
        store.put(key, known)
    return tuple((start, end - 1) for start, end in known["ranges"].tolist())


class CaseTable(NamedTuple):
    """Case of single characters as ``sre`` sees it.

    Attributes:
        lower: characters that lowering changes.
        upper: characters that raising changes.
        raised_by_lower: the inverse of `lower`.
        extra: lower-case letter -> the others with the same upper case.
        cased: all characters with a case, sorted.
        lowered: the keys of `lower` as a set.
    """

    lower: dict[int, int]
    upper: dict[int, int]
    raised_by_lower: dict[int, tuple[int, ...]]
    extra: dict[int, tuple[int, ...]]
    cased: list[int]
    lowered: Ranges


@lru_cache(maxsize=2)
def case_table(*, ascii_only: bool = False) -> CaseTable:
    """The case table of the running Python, or of ASCII letters alone (which still *raises* all: see `fold_set`)."""
    if ascii_only:
        letters = range(ord("a"), ord("z") + 1)
        return CaseTable(
            lower={code - 32: code for code in letters},
            upper=case_table().upper,
            raised_by_lower={code: (code - 32,) for code in letters},
            extra={},
            cased=[*range(ord("A"), ord("Z") + 1), *letters],
            lowered=((ord("A"), ord("Z")),),
        )
    text = _scanned_text()
    lower: dict[int, int] = {}
    upper: dict[int, int] = {}
    for start in range(0, _SCANNED, 128):
        block = text[start : start + 128]
        if block.lower() == block == block.upper():
            continue
        for code, char in enumerate(block, start):
            # the C tables hold the first character of a longer mapping: U+0130 lowers to "i"
            if (low := char.lower()[0]) != char:
                lower[code] = ord(low)
            if (up := char.upper()[0]) != char:
                upper[code] = ord(up)
    raised: dict[int, tuple[int, ...]] = {}
    for code, low_code in lower.items():
        raised[low_code] = (*raised.get(low_code, ()), code)
    return CaseTable(
        lower,
        upper,
        raised,
        dict(_EXTRA_CASES),
        sorted({*lower, *upper}),
        normalise((code, code) for code in lower),
    )


@lru_cache(maxsize=4096)
def fold_char(code: int, *, ascii_only: bool = False) -> Ranges | None:
    """What a literal character matches under IGNORECASE; None: only itself, it has no case.

    >>> fold_char(ord("k"))
    ((75, 75), (107, 107), (8490, 8490))
    """
    if code < 128 and not chr(code).isalpha():
        return None
    table = case_table(ascii_only=ascii_only)
    i = bisect_left(table.cased, code)
    if i == len(table.cased) or table.cased[i] != code:
        return None
    low = table.lower.get(code, code)
    return _texts_lowered_into(normalise((c, c) for c in (low, *table.extra.get(low, ()))), table)


def _texts_lowered_into(targets: Ranges, table: CaseTable) -> Ranges:
    """The characters whose lower case is in `targets`."""
    out = list(difference(targets, table.lowered))
    n_targets = sum(high - low + 1 for low, high in targets)
    if n_targets < len(table.raised_by_lower):
        for low, high in targets:
            for code in range(low, high + 1):
                out += ((c, c) for c in table.raised_by_lower.get(code, ()))
    else:
        for low, codes in table.raised_by_lower.items():
            if contains(targets, low):
                out += ((c, c) for c in codes)
    return normalise(out)


def fold_set(
    chars: Iterable[int],
    ranges: Iterable[tuple[int, int]],
    classes: Iterable[Ranges],
    *,
    negated: bool,
    ascii_only: bool = False,
) -> Ranges:
    r"""What a set matches under IGNORECASE, as ``sre`` compiles it.

    Args:
        chars: its single characters.
        ranges: its ranges.
        classes: what ``\d`` and the like stand for in it.
        negated: ``[^...]``.
        ascii_only: the ASCII flag.
    """
    table = case_table(ascii_only=ascii_only)
    singles, spans = [(code, code) for code in chars], list(ranges)
    lowered = [*singles, *spans]
    has_cased = False
    for low, high in (*singles, *spans):
        first, last = bisect_left(table.cased, low), bisect_left(table.cased, min(high, _LAST_BMP) + 1)
        has_cased = has_cased or first < last or high > _LAST_BMP
        for code in table.cased[first:last]:
            small = table.lower.get(code, code)
            lowered += ((c, c) for c in (small, *table.extra.get(small, ())))
    for low, high in spans:
        if high > _LAST_BMP:  # such a range also takes what raises into it; a single character has no such luck
            lowered += ((code, code) for code, up in table.upper.items() if low <= up <= high)
    if has_cased:
        matched = _texts_lowered_into(union(normalise(lowered), *classes), table)
    else:
        matched = union(normalise(lowered), *classes)
    return complement(matched) if negated else matched


@cache
def _ecma_tables() -> dict[str, Any]:
    text = resources.files("outlines_core.regex").joinpath("data/ecma.json").read_text(encoding="ascii")
    tables: dict[str, Any] = json.loads(text)
    return tables


def _unpacked(text: str) -> Ranges:
    """Ranges from their gaps and lengths in base 36 (see ``scripts/make_ecma_tables.mjs``)."""
    out: list[tuple[int, int]] = []
    following = 0
    for item in text.split():
        gap, _, more = item.partition(",")
        first = following + int(gap, 36)
        last = first + (int(more, 36) if more else 0)
        out.append((first, last))
        following = last + 1
    return tuple(out)


@cache
def _ecma_set(table: str, name: str) -> Ranges | None:
    entries = _ecma_tables()[table]
    packed = entries["sets"].get(entries["aliases"].get(name, name))
    if packed is None:
        return None
    if isinstance(packed, list):
        return union(*(_ecma_set(table, member) or () for member in packed))
    return _unpacked(packed)


def ecma_property(name: str, value: str | None = None) -> Ranges | None:
    r"""The characters of ``\p{name}`` or ``\p{name=value}``; None: ECMAScript has no such property.

    >>> ecma_property("ASCII_Hex_Digit")
    ((48, 57), (65, 70), (97, 102))
    """
    if value is None:
        found = _ecma_set("general", name)
        return _ecma_set("binary", name) if found is None else found
    if name in ("General_Category", "gc"):
        return _ecma_set("general", value)
    if name in ("Script", "sc"):
        return _ecma_set("scripts", value)
    if name in ("Script_Extensions", "scx"):
        canonical = _ecma_tables()["scripts"]["aliases"].get(value, value)
        found = _ecma_set("extensions", canonical)
        return _ecma_set("scripts", canonical) if found is None else found
    return None


@cache
def ecma_properties() -> frozenset[str]:
    r"""All that may stand between the braces of ``\p{...}``.

    >>> {"L", "gc=Letter", "Script=Greek", "Alphabetic"} <= ecma_properties(), "Script=L" in ecma_properties()
    (True, False)
    """
    tables = _ecma_tables()
    general, binary, scripts = ({*tables[k]["sets"], *tables[k]["aliases"]} for k in ("general", "binary", "scripts"))
    of_category = (f"{name}={value}" for name in ("General_Category", "gc") for value in general)
    of_script = (f"{name}={value}" for name in ("Script", "sc", "Script_Extensions", "scx") for value in scripts)
    return frozenset((*general, *binary, *of_category, *of_script))


@cache
def _ecma_folds() -> dict[int, tuple[int, ...]]:
    classes = [tuple(int(code, 36) for code in item.split(",")) for item in _ecma_tables()["folds"].split()]
    return {code: members for members in classes for code in members}


def ecma_fold(ranges: Ranges) -> Ranges:
    """All characters that ECMAScript's u and i flags together make equal to one of `ranges`.

    >>> ecma_fold(((ord("k"), ord("k")),))
    ((75, 75), (107, 107), (8490, 8490))
    """
    folds = _ecma_folds()
    if sum(high - low + 1 for low, high in ranges) < len(folds):
        touched = [folds[code] for low, high in ranges for code in range(low, high + 1) if code in folds]
    else:
        touched = [members for code, members in folds.items() if contains(ranges, code)]
    return normalise([*ranges, *((code, code) for members in touched for code in members)])
