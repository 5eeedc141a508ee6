r"""Strings under tests as patterns, for `regex_text`: from the characters of a value to those of its JSON text.

A character is written as itself, or as one of the short escapes of STRING_INNER (``\"``, ``\\``, ``\/``, ``\b``,
``\f``, ``\n``, ``\r``, ``\t``); characters that have neither spelling are left out.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from outlines_core.limits import Limits
from outlines_core.regex.ast import (
    Alternation,
    CharSet,
    Complement,
    Concat,
    Empty,
    Intersection,
    Literal,
    Node,
    Ranges,
    Repeat,
)
from outlines_core.regex.build import alternation, concat, one_of, repeat
from outlines_core.regex.charset import ALL, complement, contains, intersection
from outlines_core.regex.parse_python import parse_python
from outlines_core.regex.simplify import simplify, width
from outlines_core.regex.text import is_plain, plain, to_text

__all__ = ["body_text", "spelled"]

_SPAN: Final = (0, 0)
_RAW: Final[Ranges] = complement(((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x9F)))
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


@cache
def _of_set(ranges: Ranges) -> Node | None:
    if ranges == ALL:  # as in STRING_INNER
        return parse_python(r'[^"\\\x00-\x1F\x7F-\x9F]|\\["\\/bfnrt]')
    raw = intersection(ranges, _RAW)
    letters = "".join(letter for char, letter in _ESCAPES.items() if contains(ranges, ord(char)))
    parts: list[Node] = [one_of(raw, _SPAN)] if raw else []
    if letters:
        sets = tuple((ord(c), ord(c)) for c in sorted(letters))
        parts.append(concat([Literal("\\"), one_of(sets, _SPAN)], _SPAN))
    return alternation(parts, _SPAN) if parts else None


def spelled(node: Node) -> Node | None:
    """The JSON spellings (without the quotes) of the texts of a plain AST; None: none of them has one."""
    match node:
        case Empty():
            return node
        case Literal(text):
            return _joined([_of_set(((ord(char), ord(char)),)) for char in text])
        case CharSet(ranges):
            return _of_set(ranges)
        case Concat(items):
            return _joined(list(map(spelled, items)))
        case Alternation(items):
            parts = [part for part in map(spelled, items) if part is not None]
            return alternation(parts, _SPAN) if parts else None
        case Repeat(item, low, high):
            part = spelled(item)
            if part is None:
                return None if low else Empty()
            return repeat(part, low, high, "greedy", _SPAN)
    raise ValueError(f"{type(node).__name__} is not plain")


def _joined(parts: list[Node | None]) -> Node | None:
    found = [part for part in parts if part is not None]
    return concat(found, _SPAN) if len(found) == len(parts) else None


def _sized(node: Node, low: int, high: int | None) -> Node | None:
    """A plain AST cut to a number of characters, where one repeat alone decides about it; else None."""
    items = node.items if isinstance(node, Concat) else (node,)
    free = [k for k, item in enumerate(items) if width(item)[0] != width(item)[1]]
    if len(free) != 1 or not isinstance(repeated := items[free[0]], Repeat) or width(repeated.item) != (1, 1):
        return None
    fixed = sum(width(item)[0] for item in items) - repeated.min
    least = max(repeated.min, low - fixed)
    bounds = [bound for bound in (repeated.max, None if high is None else high - fixed) if bound is not None]
    most = min(bounds, default=None)
    if most is not None and most < least:
        return CharSet(())
    cut = repeat(repeated.item, least, most, "greedy", _SPAN)
    return concat([*items[: free[0]], cut, *items[free[0] + 1 :]], _SPAN)


def body_text(positive: list[Node], negative: list[Node], low: int, high: int | None, limits: Limits) -> str | None:
    """The pattern of the JSON texts, without the quotes, of some strings; None: there are none.

    Args:
        positive, negative: languages that they are in, and are not in.
        low, high: their lengths.

    Raises:
        LimitExceededError: the pattern would be too long.
    """
    nodes = [simplify(node) for node in positive]
    found: Node | None = None
    if len(nodes) == 1 and not negative and is_plain(nodes[0]):
        found = nodes[0] if not low and high is None else _sized(nodes[0], low, high)
    if found is None:
        if low or high is not None:
            nodes.append(Repeat(CharSet(ALL), low, high))
        nodes += map(Complement, negative)
        found = plain(nodes[0] if len(nodes) == 1 else Intersection(tuple(nodes)), limits)
    if found is None or found == CharSet(()):
        return None
    body = spelled(found)
    if body is None:
        return None
    return f"(?:{to_text(body)})" if isinstance(body, Alternation) else to_text(body)
