"""JSON texts of a value, in many spellings, cut into tokens; and the vocabulary that the schema tests use.

`spelled` writes exact values (ints, Fractions) as JSON; `respelled` writes the same value in a legal but unusual way.
`Tokens` cuts bytes into the tokens of a vocabulary, longest first or at random.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import outlines_core as oc

__all__ = ["LAYOUTS", "Tokens", "edited", "json_vocabulary", "number_text", "respelled", "spelled", "tokens_of"]

LAYOUTS: dict[str, dict[str, Any]] = {
    "compact": {"comma": ",", "colon": ":"},
    "default": {},
    "indented": {"comma": ",", "indent": "  "},
}


def number_text(value: int | Fraction) -> str:
    """The plain spelling of a number, with an exponent only where the digits would be many."""
    if isinstance(value, int) and abs(value) < 10**20:
        return str(value)
    exact = Decimal(value) if isinstance(value, int) else _decimal(value)
    text = str(exact.normalize(_WIDE)).replace("E+", "e").replace("E", "e")
    return text if isinstance(value, int) or "e" in text else format(exact, "f")


def _decimal(value: Fraction) -> Decimal:
    n, digits = value.denominator, 0
    while 10**digits % n:
        digits += 1
        if digits > 2000:
            raise ValueError(f"{value} is no decimal number")
    return Decimal(value.numerator * (10**digits // n)).scaleb(-digits, _WIDE)


_WIDE = Context(prec=4000, Emax=10**6, Emin=-(10**6))


def spelled(
    value: Any,
    *,
    comma: str = ", ",
    colon: str = ": ",
    indent: str | None = None,
    string: Callable[[str], str] = lambda text: json.dumps(text, ensure_ascii=False),
    number: Callable[[int | Fraction], str] = number_text,
) -> str:
    """The JSON text of an exact value."""

    def write(node: Any, depth: int) -> str:
        inner, outer = ("", "") if indent is None else ("\n" + indent * (depth + 1), "\n" + indent * depth)
        match node:
            case None:
                return "null"
            case bool():
                return "true" if node else "false"
            case str():
                return string(node)
            case dict():
                parts = [f"{string(key)}{colon}{write(item, depth + 1)}" for key, item in node.items()]
                return "{" + inner + (comma + inner).join(parts) + outer + "}" if parts else "{}"
            case list():
                parts = [write(item, depth + 1) for item in node]
                return "[" + inner + (comma + inner).join(parts) + outer + "]" if parts else "[]"
            case _:
                return number(node)

    return write(value, 0)


# -- unusual spellings -------------------------------------------------------------------------------------------------

_SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def respelled(value: Any, rng: random.Random, *, chance: float = 0.4) -> str:
    """A text of the same value with escapes, exponents and whitespace that nobody would write."""

    def character(c: str) -> str:
        code = ord(c)
        must = c in '"\\' or code < 0x20 or 0xD800 <= code <= 0xDFFF
        if not must and rng.random() >= chance:
            return c
        if c in _SHORT and rng.random() < 0.5:
            return _SHORT[c]
        units = [code] if code < 0x10000 else [0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF)]
        text = "".join(f"\\u{unit:04x}" for unit in units)
        return text if rng.random() < 0.5 else text.upper().replace("\\U", "\\u")

    def number(n: int | Fraction) -> str:
        return _unusual_number(n, rng) if rng.random() < 0.7 else number_text(n)

    space = rng.choice(["", " ", "\t", "\r\n", "  \n "])
    comma, colon = rng.choice([",", " ,", ", "]) + space, rng.choice([":", " :", ": "]) + space
    text = spelled(value, comma=comma, colon=colon, string=lambda s: f'"{"".join(map(character, s))}"', number=number)
    return space + text + rng.choice(["", " ", "\n"])


def _unusual_number(value: int | Fraction, rng: random.Random) -> str:
    plain = _decimal(Fraction(value))
    sign, digits, exponent = plain.as_tuple()
    assert isinstance(exponent, int)
    mantissa = "".join(map(str, digits))
    if len(mantissa) + abs(exponent) > 40 or abs(exponent) > 200:
        return number_text(value)
    minus = "-" if sign or (value == 0 and rng.random() < 0.3) else ""
    zeros = rng.randint(0, 3)
    mantissa, exponent = mantissa + "0" * zeros, exponent - zeros
    point = rng.randint(0, len(mantissa))
    whole, fraction = mantissa[:point].lstrip("0") or "0", mantissa[point:]
    exponent += len(fraction)
    text = f"{minus}{whole}.{fraction}" if fraction else f"{minus}{whole}"
    if exponent == 0 and rng.random() < 0.6:
        return text
    plus = rng.choice(["", "+"]) if exponent >= 0 else "-"
    return f"{text}{rng.choice('eE')}{plus}{rng.choice(['', '0', '00'])}{abs(exponent)}"


def edited(text: bytes, rng: random.Random) -> bytes:
    """`text` with one byte more, less or other."""
    at = rng.randint(0, len(text))
    new = bytes([rng.choice(b'",:{}[]0123459-+.eE tfn\\u/ab\n \x00\x80\xc3')])
    pick = rng.random()
    return text[:at] + (b"" if pick < 0.4 else new) + text[at + (pick < 0.7) :]


# -- tokens ------------------------------------------------------------------------------------------------------------


class Tokens:
    """Token bytes -> ids of a vocabulary that has every byte."""

    def __init__(self, vocabulary: oc.Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.ids = {bytes(token): ids[0] for token, ids in vocabulary.items() if token and len(ids)}
        self.longest = max(map(len, self.ids))

    def of(self, text: bytes, rng: random.Random | None = None) -> list[int]:
        """The ids of `text`: always the longest token that fits, or (with `rng`) any that fits."""
        out, at = [], 0
        while at < len(text):
            ends = range(min(len(text), at + self.longest), at, -1)
            fitting = (end for end in ends if text[at:end] in self.ids)
            end = next(fitting) if rng is None else rng.choice(list(fitting))
            out.append(self.ids[text[at:end]])
            at = end
        return out


_KNOWN: list[Tokens] = []


def tokens_of(vocabulary: oc.Vocabulary, text: bytes, rng: random.Random | None = None) -> list[int]:
    """`Tokens(vocabulary).of(text, rng)`, with the tables of the last few vocabularies kept."""
    table = next((one for one in _KNOWN if one.vocabulary is vocabulary), None)
    if table is None:
        table = Tokens(vocabulary)
        _KNOWN[4:] = []
        _KNOWN.insert(0, table)
    return table.of(text, rng)


@functools.cache
def json_vocabulary() -> oc.Vocabulary:
    """Every byte, and a few hundred tokens such as tokenizers have for JSON.  EOS is the last id."""
    words = [
        "name",
        "foo",
        "aa",
        "ab",
        "abc",
        "b1",
        "aaa",
        "bb",
        "title",
        "type",
        "value",
        " the",
        "x y",
        "é",
        "😀",
        "中",
    ]
    signs = ['":', '",', '{"', '"}', ' "', '": "', '", "', '":"', '","', '"]', '["', "[[", "]]", "}}", "{}", "[]", '""']
    signs += [
        "},",
        "],",
        '"},{"',
        "}]",
        "}\n",
        "\n  ",
        "\n    ",
        "\n",
        "  ",
        "    ",
        "\t\t",
        ": ",
        ", ",
        ",\n",
        " {",
        " [",
    ]
    signs += ["true", "false", "null", " true", "tr", "ue", "fal", "nul", "\\u", "\\n", '\\"', "\\\\", "\\u00", "\\ud8"]
    signs += [
        "-1",
        "0.",
        ".5",
        "e-",
        "E+",
        "e1",
        "1e",
        "10e-1",
        "1.0",
        "000",
        "999",
        "-0",
        "2024-",
        "T00:00",
        "://",
        "@",
    ]
    texts = [
        *words,
        *signs,
        *(f"{n:02d}" for n in range(100)),
        *("".join(p) for p in itertools.product("ab1", repeat=2)),
    ]
    tokens = [bytes([b]) for b in range(256)] + [b"\xf0\x9f", b"\xc3\xa9a", b"a\xc3", b'\xa9"', b"\x98\x80"]
    tokens += [text.encode() for text in texts]
    known = {token: [i] for i, token in enumerate(dict.fromkeys(tokens))}
    return oc.Vocabulary(len(known), known)
