"""Sets of code points as small automata over UTF-8 bytes.

A set becomes a DAG whose nodes are tuples of edges ``(lowest byte, highest byte, child)``; child DONE ends a character.
Below a node with k continuation bytes left only the low ``6 k`` bits of the code point matter, so equal remainders are
one node (hash-consing by content): the DAG of a set is minimal, and full blocks are shared by all sets.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, TypeAlias

from outlines_core.regex.ast import Ranges

__all__ = ["DONE", "Dag", "byte_dag", "dag_of"]

DONE: Final = -1
Dag: TypeAlias = tuple[tuple[tuple[int, int, int], ...], ...]
"""Nodes, children before parents, the root last; each is its sorted disjoint edges.  Empty: matches nothing."""

_LENGTHS = ((0x0, 0x7F, 0, 0x00), (0x80, 0x7FF, 1, 0xC0), (0x800, 0xFFFF, 2, 0xE0), (0x10000, 0x10FFFF, 3, 0xF0))


@lru_cache(maxsize=4096)
def dag_of(ranges: Ranges, surrogates: bool = False) -> Dag:
    """The DAG of a set of code points; surrogates have no UTF-8 and are left out.

    With `surrogates` they are characters like any other, of three bytes each (*generalised* UTF-8): JSON has them.

    >>> dag_of(((0x61, 0x7A), (0xE9, 0xE9)))
    (((169, 169, -1),), ((97, 122, -1), (195, 195, 0)))
    """
    pieces: list[tuple[int, int]] = []
    for low, high in ranges:
        if surrogates:
            pieces.append((low, high))
        elif low < 0xD800 and high > 0xDFFF:
            pieces += [(low, 0xD7FF), (0xE000, high)]
        elif low <= 0xDFFF and high >= 0xD800:
            if low < 0xD800:
                pieces.append((low, 0xD7FF))
            if high > 0xDFFF:
                pieces.append((0xE000, high))
        else:
            pieces.append((low, high))
    nodes: dict[tuple[tuple[int, int, int], ...], int] = {}
    memo: dict[tuple[int, Ranges], int] = {}
    root: list[tuple[int, int, int]] = []
    for first, last, more, lead in _LENGTHS:
        part = tuple((max(lo, first), min(hi, last)) for lo, hi in pieces if lo <= last and hi >= first)
        if part:
            root += _edges(part, more, lead, nodes, memo)
    if not root:
        return ()
    _intern(tuple(root), nodes)
    return tuple(nodes)


def _intern(edges: tuple[tuple[int, int, int], ...], nodes: dict[tuple[tuple[int, int, int], ...], int]) -> int:
    return nodes.setdefault(edges, len(nodes))


def _edges(
    ranges: Ranges,
    more: int,
    lead: int,
    nodes: dict[tuple[tuple[int, int, int], ...], int],
    memo: dict[tuple[int, Ranges], int],
) -> list[tuple[int, int, int]]:
    """Edges on one byte ``lead + (code point >> 6 * more)``, with the sub-DAGs of the remaining bits behind them."""
    if more == 0:
        return [(lead + lo, lead + hi, DONE) for lo, hi in ranges]
    shift = 6 * more
    full = (1 << shift) - 1
    blocks: dict[int, list[tuple[int, int]]] = {}
    edges: list[tuple[int, int, int]] = []

    def add(low: int, high: int, child: int) -> None:
        if edges and edges[-1][2] == child and edges[-1][1] + 1 == lead + low:
            edges[-1] = (edges[-1][0], lead + high, child)
        else:
            edges.append((lead + low, lead + high, child))

    def flush() -> None:
        for block, rest in blocks.items():
            add(block, block, _node(tuple(rest), more - 1, nodes, memo))
        blocks.clear()

    for lo, hi in ranges:
        while lo <= hi:
            block = lo >> shift
            if lo & full == 0 and hi - lo >= full:  # whole blocks at once
                flush()
                last = ((hi + 1) >> shift) - 1
                add(block, last, _node(((0, full),), more - 1, nodes, memo))
                lo = (last + 1) << shift
                continue
            top = min(hi, (block << shift) | full)
            if blocks and block not in blocks:
                flush()
            blocks.setdefault(block, []).append((lo & full, top & full))
            lo = top + 1
    flush()
    return edges


def _node(
    ranges: Ranges,
    more: int,
    nodes: dict[tuple[tuple[int, int, int], ...], int],
    memo: dict[tuple[int, Ranges], int],
) -> int:
    key = (more, ranges)
    if (known := memo.get(key)) is None:
        known = memo[key] = _intern(tuple(_edges(ranges, more, 0x80, nodes, memo)), nodes)
    return known


def byte_dag(low: int, high: int) -> Dag:
    """The DAG of one byte out of a range, whatever it means in UTF-8."""
    return (((low, high, DONE),),)
