r"""Characters, their escapes and their properties, as far as they have been read (for `regex_grammar`)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TypeAlias

from outlines_core.regex.ast import Ranges
from outlines_core.regex.charset import union
from outlines_core.regex.unicode import ecma_properties, ecma_property

__all__ = [
    "HEX_DIGITS",
    "Spelling",
    "bytes_behind",
    "code_of",
    "edges",
    "endings",
    "first_in",
    "following",
    "high_surrogate",
    "id_chars",
    "longer",
    "loose_endings",
    "n_chars",
    "name_bytes",
    "properties",
    "property_ending",
    "spellings",
    "to_go",
    "units",
    "utf8",
]

HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
Spelling: TypeAlias = tuple[int, int, Callable[[int], bytes]]
"""A range of characters, and what completes the spelling of one."""


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def n_chars(text: bytes) -> int:
    return sum(byte & 0xC0 != 0x80 for byte in text)


def units(code: int) -> tuple[int, int]:
    """The two code units of a character above U+FFFF."""
    return 0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF)


def to_go(begun: bytes) -> int:
    """What is to go of a character (as in `_CONTINUATIONS`)."""
    lead, n = begun[0], len(begun)
    length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    return lead if n == 1 and lead in (0xE0, 0xF0, 0xF4) else length - n


@cache
def edges(begun: bytes) -> tuple[int, int] | None:
    """The first and last character whose UTF-8 begins so (surrogates too); None: there is none."""
    lead, n = begun[0], len(begun)
    length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    code = lead & (0xFF >> length + 1)
    for byte in begun[1:]:
        code = code << 6 | byte & 0x3F
    shift = 6 * (length - n)
    first = max(code << shift, {2: 0x80, 3: 0x800, 4: 0x10000}[length])
    last = min((code + 1 << shift) - 1, 0x10FFFF)
    return (first, last) if first <= last else None


def bytes_behind(begun: bytes) -> Callable[[int], bytes]:
    return lambda code: chr(code).encode()[len(begun) :]


@cache
def name_bytes(*, continued: bool) -> tuple[list[int], list[int]]:
    """The ASCII characters that a name begins or goes on with; the first bytes of others."""
    chars = id_chars(continued=continued)
    leads = ((byte, edges(bytes((byte,)))) for byte in range(0xC2, 0xF5))
    return (
        [code for code in range(128) if first_in(chars, code, code) is not None],
        [byte for byte, edges in leads if edges is not None and first_in(chars, *edges) is not None],
    )


@cache
def id_chars(*, continued: bool) -> Ranges:
    """The characters that begin or continue the name of a group."""
    listed = ecma_property("ID_Continue" if continued else "ID_Start")
    assert listed is not None
    extra = ((36, 36), (95, 95), (0x200C, 0x200D)) if continued else ((36, 36), (95, 95))
    return union(listed, extra)


def first_in(ranges: Ranges, first: int, last: int) -> int | None:
    """The first element from `first` to `last`."""
    at = bisect_left(ranges, (first, 0x110000))
    if first > last:
        return None
    if at and ranges[at - 1][1] >= first:
        return first
    if at < len(ranges) and ranges[at][0] <= last:
        return ranges[at][0]
    return None


# -- escapes of characters ---------------------------------------------------------------------------------------------


def longer(text: str, char: str) -> str | None:
    r"""An escape (without its backslash) after one more character; None: it is none.

    Its forms: ``x61``, ``u0061``, ``u{61}``, ``ud835\udc9c``; "u{" holds no leading zeros.
    """
    if text == "":
        return "u" if char == "u" else None
    if text == "u" and char == "{":
        return "u{"
    if text.startswith("u{"):
        if char == "}":
            return text + char if len(text) > 2 else None
        if char not in HEX_DIGITS:
            return None
        digits = (text[2:] + char).lstrip("0") or "0"
        return "u{" + digits if int(digits, 16) <= 0x10FFFF else None
    if len(text) == 5:
        return text + char if char == "\\" else None
    if len(text) == 6:
        return text + char if char == "u" else None
    return text + char if char in HEX_DIGITS else None


def code_of(text: str) -> int | None:
    """What a complete escape stands for; a high surrogate may still become half of a character."""
    if text[0] == "x":
        return int(text[1:], 16) if len(text) == 3 else None
    if text.endswith("}"):
        return int(text[2:-1], 16)
    if "{" not in text and len(text) == 5:
        return int(text[1:], 16)
    if len(text) < 11:
        return None
    high, low = int(text[1:5], 16), int(text[7:], 16)
    return 0x10000 + (high - 0xD800 << 10) + low - 0xDC00 if 0xDC00 <= low < 0xE000 else low


def high_surrogate(text: str) -> int | None:
    """The first half of a character that an escape like ``ud835`` begins."""
    if len(text) < 5 or text[0] != "u" or text[1] == "{":
        return None
    code = int(text[1:5], 16)
    return code if 0xD800 <= code < 0xDC00 else None


@lru_cache(maxsize=4096)
def endings(text: str) -> tuple[str, ...]:
    """What can complete an escape in a set under the ``u`` flag, shortest first: the greatest values of each length."""
    if text == "":
        return ("d", "}", "xff", "uffff", "u{fffff}", "u{10ffff}")
    if text in ("0", "c"):
        return ("" if text == "0" else "z",)
    if text[0] == "x":
        return ("f" * (3 - len(text)),)
    if text.startswith("u{"):
        digits = text[2:].lower()
        begun = digits.lstrip("0")
        found = ["f" * n + "}" for n in range(0 if digits else 1, 6) if int(begun + "f" * n or "0", 16) <= 0x10FFFF]
        if "10ffff".startswith(begun):
            found.append("10ffff"[len(begun) :] + "}")
        return tuple(sorted(dict.fromkeys(found), key=len))
    if len(text) >= 5:
        behind = text[5:]
        return {"": ("", "\\udfff"), "\\": ("d", "udfff"), "\\u": ("{f}", "dfff")}.get(behind) or (
            "f" * (11 - len(text)),
        )
    found = ["f" * (5 - len(text))]
    if text == "u":
        found += ["{f}", "{fffff}", "{10ffff}"]
    digits = text[1:].lower()
    for pair in ("d8ff", "d9ff", "daff", "dbff"):
        if pair.startswith(digits) or (len(digits) == 3 and pair.startswith(digits[:2])):
            found.append((pair + "\\udfff")[len(digits) :])
    return tuple(sorted(found, key=len))


def loose_endings(text: str) -> tuple[str, ...]:
    """The same for annex B, where most escapes need not be completed."""
    if text == "":
        return ("d",)
    if text == "c":
        return ("",)
    if text[0] in "xu":
        return "", "f" * ((3 if text[0] == "x" else 5) - len(text))
    return ("", "7", "77")[: 4 - len(text)]


@lru_cache(maxsize=4096)
def spellings(text: str) -> list[Spelling]:
    r"""The characters that an escape in a name can become, by how it is completed."""
    if text in ("", "u"):
        before = "u"[len(text) :]
        wide = [(0, 0xFFFF, lambda code: f"{before}{code:04x}".encode())]
        return [(0, 0x10FFFF, lambda code: f"{before}{{{code:x}}}".encode()), *wide, *_pairs("", before)]
    if text.startswith("u{"):
        digits = text[2:].lstrip("0")
        if not digits:
            return [(0, 0x10FFFF, lambda code: f"{code:x}}}".encode())]
        return [
            (int(digits, 16) << 4 * n, min((int(digits, 16) + 1 << 4 * n) - 1, 0x10FFFF), _braced_behind(len(digits)))
            for n in range(6)
            if int(digits, 16) << 4 * n <= 0x10FFFF
        ]
    if len(text) < 5:
        left = 5 - len(text)
        low = int(text[1:], 16) << 4 * left
        return [
            (low, low + (1 << 4 * left) - 1, lambda code: f"{code:04x}"[4 - left :].encode()),
            *_pairs(text[1:], ""),
        ]
    return _pairs(text[1:5], "", text[5:])


def _braced_behind(n: int) -> Callable[[int], bytes]:
    return lambda code: f"{code:x}}}"[n:].encode()


def _pairs(high: str, before: str, behind: str = "") -> list[Spelling]:
    """The characters that two escaped surrogates spell: of the first one the digits `high`, of the second `behind`."""
    left = 4 - len(high)
    first = int(high or "0", 16) << 4 * left
    low, most = max(first, 0xD800), min(first + (1 << 4 * left) - 1, 0xDBFF)
    if low > most:
        return []
    digits = behind[2:]
    rest = 4 - len(digits)
    least = int(digits or "0", 16) << 4 * rest
    trail, last = max(least, 0xDC00), min(least + (1 << 4 * rest) - 1, 0xDFFF)
    if trail > last:
        return []

    def spell(code: int) -> bytes:
        one, two = units(code)
        return (before + (f"{one:04x}"[len(high) :] + f"\\u{two:04x}"[len(behind) :])).encode()

    code = 0x10000 + (low - 0xD800 << 10)
    return [(code + trail - 0xDC00, 0x10000 + (most - 0xD800 << 10) + last - 0xDC00, spell)]


# -- properties --------------------------------------------------------------------------------------------------------


@cache
def properties() -> frozenset[str]:
    r"""What may follow ``\p``."""
    return frozenset(f"{{{name}}}" for name in ecma_properties())


@cache
def following(text: str) -> str:
    r"""The characters that continue what follows ``\p``."""
    return "".join(sorted({name[len(text)] for name in properties() if name.startswith(text) and name != text}))


@cache
def property_ending(text: str) -> str:
    """What completes it, as short as can be."""
    names = (name[len(text) :] for name in properties() if name.startswith(text))
    return min(names, key=lambda name: (len(name), name))
