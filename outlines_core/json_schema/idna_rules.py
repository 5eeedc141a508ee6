"""Which labels IDNA2008 allows.

`u_label` judges a label of Unicode characters (RFC 5891, 4.2; the code points and contextual rules of RFC 5892; the
Bidi rule of RFC 5893), `a_label` one that begins with "xn--" by decoding it. Both answer with the label's `Traits`,
which RFC 5893 needs to judge a whole name: if one label has right-to-left characters, all must obey the Bidi rule.

The allowed code points, scripts and joining types are a table (`data/idna.json`); what the running Python knows of
Unicode (normalisation, directions, marks) is asked there, so code points that it does not know are not allowed.
"""

from __future__ import annotations

import json
import unicodedata
from functools import cache, lru_cache
from importlib import resources
from typing import Final, TypeAlias

import numpy as np

__all__ = [
    "BREAKS_BIDI",
    "RTL",
    "Traits",
    "a_label",
    "ascii_label",
    "compatible",
    "ending",
    "is_allowed",
    "may_follow",
    "u_label",
]

Traits: TypeAlias = int
RTL: Final[Traits] = 1
"""The label has right-to-left characters, and obeys the Bidi rule."""
BREAKS_BIDI: Final[Traits] = 2
"""The label has none and does not obey the Bidi rule: it begins with a digit, say."""

_PVALID, _GREEK, _HEBREW, _KANA_OR_HAN, _DUAL, _LEFT, _RIGHT, _TRANSPARENT = (1 << k for k in range(8))
_TABLES: Final = {
    "pvalid": _PVALID,
    "greek": _GREEK,
    "hebrew": _HEBREW,
    "hiragana": _KANA_OR_HAN,
    "katakana": _KANA_OR_HAN,
    "han": _KANA_OR_HAN,
    "joining_D": _DUAL,
    "joining_L": _LEFT,
    "joining_R": _RIGHT,
    "joining_T": _TRANSPARENT,
}
_CONTEXTUAL: Final = frozenset("\u00b7\u0375\u05f3\u05f4\u200c\u200d\u30fb") | {
    chr(start + k) for start in (0x660, 0x6F0) for k in range(10)
}
_VIRAMA: Final = 9  # canonical combining class
_IN_RTL: Final = frozenset(("R", "AL", "AN", "EN", "ES", "CS", "ET", "ON", "BN", "NSM"))
_IN_LTR: Final = frozenset(("L", "EN", "ES", "CS", "ET", "ON", "BN", "NSM"))


@cache
def _properties() -> bytes:
    """A byte of flags for each code point."""
    text = resources.files("outlines_core.json_schema").joinpath("data/idna.json").read_text(encoding="ascii")
    data = json.loads(text)
    flags = np.zeros(0x110000, dtype=np.uint8)
    for name, flag in _TABLES.items():
        at = 0
        for gap, length in zip(data[name][::2], data[name][1::2], strict=True):
            at += gap
            flags[at : at + length] |= flag
            at += length
    return flags.tobytes()


def compatible(seen: Traits, traits: Traits) -> bool:
    """May a label of `traits` stand in one name with those `seen`?"""
    return seen | traits != RTL | BREAKS_BIDI


def ascii_label(text: str) -> Traits | None:
    """The traits of letters, digits and hyphens without "xn--"; None: not a label of RFC 1123."""
    if not text or len(text) > 63 or text[0] == "-" or text[-1] == "-":
        return None
    return BREAKS_BIDI if text[0].isdigit() else 0


@lru_cache(maxsize=4096)
def a_label(text: str) -> Traits | None:
    """The traits of a label that begins with "xn--"; None: not a valid one."""
    body = text[4:].lower()
    if len(text) > 63 or not body or body[-1] == "-":
        return None
    try:
        label = body.encode("ascii").decode("punycode")
    except UnicodeError:
        return None
    if label.isascii() or label.encode("punycode").decode("ascii") != body:
        return None
    return u_label(label)


def is_allowed(char: str) -> bool:
    """May the character occur in U-labels, in a suitable context?"""
    return bool(_properties()[ord(char)] & _PVALID or char in _CONTEXTUAL) and bool(unicodedata.bidirectional(char))


def u_label(text: str) -> Traits | None:
    """The traits of a U-label, its length aside; None: not a valid one."""
    if not text or text[0] == "-" or text[-1] == "-" or text[2:4] == "--":
        return None
    if unicodedata.category(text[0])[0] == "M" or unicodedata.normalize("NFC", text) != text:
        return None
    for at, char in enumerate(text):
        if not is_allowed(char) or (char in _CONTEXTUAL and not _in_context(text, at)):
            return None
    return _direction(text)


def ending(text: str, seen: Traits) -> str | None:
    """What makes the beginning `text` of a U-label a U-label that may stand with labels of the traits `seen`.

    Only three things can still come right: what the last character asks for (a MIDDLE DOT an "l", a KERAIA a Greek
    letter, a ZERO WIDTH NON-JOINER one that joins), a KATAKANA MIDDLE DOT without a kana, and a bad last character.
    Everything else depends on characters that are there already.

    Returns:
        Up to three characters, "" if `text` is such a label; None: no longer label is one, whatever its length.
    """
    if text[0] == "-" or text[2:4] == "--" or unicodedata.category(text[0])[0] == "M":
        return None
    if not all(map(is_allowed, text)) or unicodedata.normalize("NFC", text) != text:
        return None
    present = {unicodedata.bidirectional(char) for char in text}
    first = unicodedata.bidirectional(text[0])
    rtl = first in ("R", "AL")
    if rtl and (not present <= _IN_RTL or {"EN", "AN"} <= present or seen & BREAKS_BIDI):
        return None
    if not rtl and (present & {"R", "AL", "AN"} or (seen & RTL and first != "L")):
        return None
    joiner, more = "\u0628" if rtl else "\u1820", ""
    for at, char in enumerate(text):
        if char in _CONTEXTUAL and not _in_context(text, at):
            for wish in ("\u30a1" if char == "\u30fb" else "l" if char == "\u00b7" else "\u03b1", joiner):
                if _in_context(text + wish, at):
                    break
            else:
                return None
            if wish not in more:  # what comes next comes first
                more = more + wish if wish == "\u30a1" else wish + more
    if rtl and any(unicodedata.bidirectional(char) == "L" for char in more):
        return None
    strict = rtl or seen & RTL
    last = next((found for char in (text + more)[::-1] if (found := unicodedata.bidirectional(char)) != "NSM"), "NSM")
    if (text + more)[-1] == "-" or (strict and last not in (("R", "AL", "EN", "AN") if rtl else ("L", "EN"))):
        more += "\u05d0" if rtl else "a"
    return more


def may_follow(text: str, char: str) -> bool:
    """A quick look at the last and the first character of `text`: False only if no U-label begins ``text + char``."""
    direction = unicodedata.bidirectional(char)
    if not text:
        return unicodedata.category(char)[0] != "M"
    if (direction == "L") if unicodedata.bidirectional(text[0]) in ("R", "AL") else direction in ("R", "AL", "AN"):
        return False
    match text[-1]:
        case "\u00b7":
            return char == "l"
        case "\u0375":
            return bool(_properties()[ord(char)] & _GREEK)
        case "\u200c" if not _after_virama(text[-2:-1]):
            return bool(_properties()[ord(char)] & (_RIGHT | _DUAL | _TRANSPARENT))
        case _:
            return True


def _in_context(text: str, at: int) -> bool:
    """The rules of RFC 5892, appendix A, for the character at `at`."""
    flags = _properties()
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    match text[at]:
        case "\u200c":
            return _after_virama(before) or (
                _joins(text[:at][::-1], _LEFT | _DUAL) and _joins(text[at + 1 :], _RIGHT | _DUAL)
            )
        case "\u200d":
            return _after_virama(before)
        case "\u00b7":
            return before == after == "l"
        case "\u0375":
            return bool(after) and bool(flags[ord(after)] & _GREEK)
        case "\u05f3" | "\u05f4":
            return bool(before) and bool(flags[ord(before)] & _HEBREW)
        case "\u30fb":
            return any(flags[ord(char)] & _KANA_OR_HAN for char in text if char != "\u30fb")
        case digit:
            others = "۰۱۲۳۴۵۶۷۸۹" if digit <= "\u0669" else "٠١٢٣٤٥٦٧٨٩"
            return not any(char in others for char in text)


def _after_virama(before: str) -> bool:
    return bool(before) and unicodedata.combining(before) == _VIRAMA


def _joins(neighbours: str, wanted: int) -> bool:
    """Is the first of these that is not transparent of a wanted joining type?"""
    flags = _properties()
    for char in neighbours:
        found = flags[ord(char)]
        if not found & _TRANSPARENT:
            return bool(found & wanted)
    return False


def _direction(text: str) -> Traits | None:
    """The Bidi rule (RFC 5893, 2)."""
    classes = [unicodedata.bidirectional(char) for char in text]
    present = set(classes)
    last = next((found for found in reversed(classes) if found != "NSM"), "NSM")
    if present & {"R", "AL", "AN"}:
        obeyed = (
            classes[0] in ("R", "AL")
            and present <= _IN_RTL
            and last in ("R", "AL", "EN", "AN")
            and not {"EN", "AN"} <= present
        )
        return RTL if obeyed else None
    return 0 if classes[0] == "L" and present <= _IN_LTR and last in ("L", "EN") else BREAKS_BIDI
