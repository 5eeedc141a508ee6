"""Atomic groups as ordinary nodes, where that is possible, and what can be said of a node beforehand.

``(?>...)`` keeps the first way to match, in order of priority, whatever follows. Where there is one way only, it is the
item itself; a possessive repeat of such an item is "as many as there are", a repeat and a negative look-ahead. Other
groups of plain text go to `nfa` (an ordered subset construction); those with assertions inside are written out here,
way by way, each guarded by "and none of the better ones".
"""

from __future__ import annotations

import itertools
import math
from typing import Final

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.regex.ast import (
    Alternation,
    Atomic,
    Begin,
    CharSet,
    Concat,
    Empty,
    End,
    Literal,
    Look,
    Node,
    Repeat,
)

__all__ = ["first_path", "nullable", "one_way", "only_text", "possessive"]

_MAX_PATHS: Final = 64


def nullable(node: Node) -> bool:
    """Can `node` match without reading a character (zero-width assertions count as yes)?"""
    match node:
        case Empty() | Look() | Begin() | End():
            return True
        case Literal() | CharSet():
            return False
        case Concat(items):
            return all(map(nullable, items))
        case Alternation(items):
            return any(map(nullable, items))
        case Repeat(item, least, _):
            return least == 0 or nullable(item)
        case Atomic(item):
            return nullable(item)
        case _:
            return True


def one_way(node: Node) -> bool:
    """Is there at most one way to match `node` at a place?"""
    match node:
        case Empty() | Literal() | CharSet() | Look() | Begin() | End() | Atomic():
            return True
        case Concat(items):
            return all(map(one_way, items))
        case Alternation(items):
            return len(items) == 1 and one_way(items[0])
        case Repeat(item, least, most):
            return least == most and one_way(item)
        case _:
            return False


def possessive(node: Repeat) -> Node:
    """A possessive repeat of what matches in one way only: as many as there are, so another one must not follow."""
    if node.mode == "lazy":
        return Repeat(node.item, node.min, node.min)
    stop = Look(node.item, ahead=True, negative=True)
    if node.max is None:
        return Concat((Repeat(node.item, node.min, None), stop))
    all_of_them = Repeat(node.item, node.max, node.max)
    if node.max == node.min:
        return all_of_them
    return Alternation((all_of_them, Concat((Repeat(node.item, node.min, node.max - 1), stop))))


def only_text(node: Node) -> bool:
    """Is `node` made of characters, choices and repeats of what is never empty?  Then `Builder.ordered` is exact."""
    match node:
        case Empty() | Literal() | CharSet():
            return True
        case Concat(items) | Alternation(items):
            return all(map(only_text, items))
        case Repeat(item, _, most):
            return (most == 1 or not nullable(item)) and only_text(item)
        case _:
            return False


def first_path(node: Node, offset: int) -> Node:
    """An atomic group with assertions inside, written out: each way to match it, provided that no better one does."""
    paths = _paths(node, offset)
    choices: list[Node] = []
    for k, path in enumerate(paths):
        worse_only = [Look(better, ahead=True, negative=True) for better in paths[:k]]
        choices.append(Concat((*worse_only, path)))
    return Alternation(tuple(choices))


def _paths(node: Node, offset: int) -> list[Node]:
    """The ways to match `node`, best first, each without a choice."""
    if one_way(node):
        return [node]
    paths: list[Node] = []
    match node:
        case Alternation(items):
            paths = [path for item in items for path in _paths(item, offset)]
        case Concat(items):
            rows = [_paths(item, offset) for item in items]
            if math.prod(map(len, rows)) <= _MAX_PATHS:
                paths = [Concat(row) for row in itertools.product(*rows)]
        case Repeat(item, least, most) if one_way(item) and not nullable(item) and most is not None:
            counts = range(least, most + 1) if node.mode == "lazy" else range(most, least - 1, -1)
            paths = [Repeat(item, n, n) for n in counts] if len(counts) <= _MAX_PATHS else []
        case _:
            pass
    if not paths or len(paths) > _MAX_PATHS:
        raise UnsupportedFeatureError(
            f"an atomic group (at {offset}) with an assertion or a repeat of the empty text in one of too many ways",
            feature="assertion in an atomic group",
            path=str(offset),
        )
    return paths
