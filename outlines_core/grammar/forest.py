"""What of masks does not depend on the parser: places, as `kernels.grammar_masks` has them.

A large place is made of smaller ones: below a node with many others below it, what follows depends on the row there
alone, and rows differ for a few bytes and then no longer (a keyword's letters, then any identifier). So a new state of
the parser, which has a lexer of its own, costs the merging of some hundred children, not a walk of the vocabulary.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.lexical import Lexical
from outlines_core.kernels import grammar as kernel
from outlines_core.kernels import grammar_masks as masks
from outlines_core.kernels.borrow import Handles
from outlines_core.limits import Limits

__all__ = ["Forest"]

_CUT: Final = 1000
"""Nodes: what has more of them below is a place of its own."""
_DENSE: Final = 2048
_ARRAYS: Final = {
    "places": (kernel.H_PLACES, (256, 4), np.int32),
    "groups": (kernel.H_GROUPS, (1024, 4), np.int32),
    "exits": (kernel.H_EXITS, (1024, 7), np.int32),
    "links": (kernel.H_LINKS, (1024, 2), np.int64),
    "ids": (kernel.H_IDS, (1 << 16,), np.int32),
    "nodes": (kernel.H_NODES, (1 << 14,), np.int32),
    "dense": (kernel.H_DENSE, (64,), np.uint32),
    "memos": (kernel.H_MEMOS, (1 << 12, 4), np.int64),
    "notes": (kernel.H_NOTES, (1 << 14,), np.int32),
    "whole": (kernel.H_WHOLE, (16,), np.uint32),
    "roots": (kernel.H_ROOTS, (256, 2), np.int32),
    "gathered": (kernel.H_GATHERED, (1 << 12,), np.int32),
    "results": (kernel.H_RESULTS, (1 << 10, 5), np.int64),
    "tasks": (kernel.H_TASKS, (1 << 10, 5), np.int64),
    "wanted": (kernel.H_WANTED, (32, 2), np.int64),
}
_PATIENCE: Final = 2000, 5000
_NOTED: Final = ("memos", "notes", "whole")
_MOST_SCRATCH: Final = 1 << 26  # bytes
_NO_IDS: Final = np.zeros(0, dtype=np.int32)


class Forest:
    """The places of a grammar's lexemes in a vocabulary.

    Args:
        lexical: the lexemes.
        handles: where kernels find all arrays.
        trie: (info, end, token) of the vocabulary, as `walk_inside` likes them.
        max_depth, size: of the vocabulary.

    Attributes:
        counts: as the kernel has them.
    """

    def __init__(
        self, lexical: Lexical, handles: Handles, trie: tuple[Any, Any, Any], max_depth: int, size: int, limits: Limits
    ) -> None:
        self.lexical, self.handles, self.limits = lexical, handles, limits
        self._n_words = (size + 31) // 32
        info, end, token = self._packed = trie
        self._letters = info & 255
        self._n_lexers = lexical.starts.shape[0]
        self._meta = np.zeros(kernel.META_SIZE, dtype=np.int64)
        self._meta[[kernel.M_INDENTED, kernel.M_TAB]] = lexical.tab is not None, lexical.tab or 0
        self._path = np.zeros((max_depth + 2, 2), dtype=np.int64)
        self._items = np.zeros((1024, 4), dtype=np.int64)
        self._pairs = np.zeros((4096, 2), dtype=np.int32)
        self._exits = np.zeros((4096, 4), dtype=np.int32)
        self._children = np.zeros((1024, 2), dtype=np.int32)
        self.counts = np.zeros(6, dtype=np.int64)
        self.counts[[masks.PATIENCE_ONCE, masks.PATIENCE]] = _PATIENCE
        for k, array in (
            (kernel.H_INFO, info), (kernel.H_END, end), (kernel.H_TOKEN, token), (kernel.H_COUNTS, self.counts),
            (kernel.H_PATH, np.zeros_like(self._path)), (kernel.H_FOUND, np.zeros((64, 4), dtype=np.int64)),
        ):  # fmt: skip
            handles[k] = array
        self._clear()

    def _clear(self) -> None:
        self._of: dict[tuple[int, int], int] = {}
        self._top = dict.fromkeys(_ARRAYS, 0) | {"places": 1}
        for name in _ARRAYS:
            self._replace(name, self._empty(name))
        self.counts[[0, 1, 4, 5]] = 0, 1, 0, 0

    def _empty(self, name: str) -> NDArray[Any]:
        _, shape, dtype = _ARRAYS[name]
        return np.zeros((*shape, self._n_words) if dtype == np.uint32 else shape, dtype=dtype)

    def array(self, name: str) -> NDArray[Any]:
        """One of the arrays that `kernels.grammar_masks` describes; it is replaced when it grows."""
        return self.handles[_ARRAYS[name][0]]

    def _replace(self, name: str, array: NDArray[Any]) -> None:
        self.handles[_ARRAYS[name][0]] = array
        self._has_grown = True

    @property
    def nbytes(self) -> int:
        return sum(int(self.array(name).nbytes) for name in _ARRAYS) + 200 * len(self._of)

    def evict(self) -> None:
        """Forget notes, or everything, if they take too much memory."""
        if not self._has_grown:
            return
        self._has_grown = False
        if sum(int(self.array(name).nbytes) for name in _NOTED) > self.limits.max_mask_bytes:
            for name in _NOTED:
                self._replace(name, self._empty(name))
            self.counts[[0, 1, 4, 5]] = 0, 1, 0, 0
        if self.nbytes > 2 * self.limits.max_mask_bytes:
            self._clear()

    # -- arenas -----------------------------------------------------------------------------------------------------

    def _add(self, name: str, values: NDArray[Any] | list[Any]) -> tuple[int, int]:
        """Append to an array: from, to."""
        array = self.array(name)
        begin = self._top[name]
        stop = begin + len(values)
        if stop > len(array):
            larger = np.zeros((max(2 * len(array), stop), *array.shape[1:]), dtype=array.dtype)
            larger[:begin] = array[:begin]
            self._replace(name, larger)
            array = larger
        if len(values):
            array[begin:stop] = values
        self._top[name] = stop
        return begin, stop

    # -- places -----------------------------------------------------------------------------------------------------

    def make_root(self, row: int, *, begins: bool) -> None:
        """The place of all tokens, in a row before them."""
        counts = not begins and self.lexical.rows[row, kernel.NEWLINE]
        place = self._make([(-1, row, masks.RELATIVE if counts else -1, 0)])
        roots = self.array("roots")
        if row >= len(roots):
            larger = np.zeros((2 * row, 2), dtype=np.int32)
            larger[: len(roots)] = roots
            self._replace("roots", larger)
            roots = larger
        roots[row, int(begins)] = place

    def make_room(self, k: int) -> None:
        """Make room in the array of a handle."""
        name = next(name for name, (handle, _, _) in _ARRAYS.items() if handle == k)
        array = self.array(name)
        if name == "memos":
            self._replace(name, self._larger(array))
            return
        if name not in _NOTED and 2 * array.nbytes > _MOST_SCRATCH:
            raise LimitExceededError(
                f"what tokens lead to here would take {2 * array.nbytes:,} bytes to look at", given=2 * array.nbytes,
                limit=_MOST_SCRATCH,
            )  # fmt: skip
        self._replace(name, np.concatenate([array, np.zeros_like(array)]))

    @staticmethod
    def _larger(table: NDArray[np.int64]) -> NDArray[np.int64]:
        larger = np.zeros((2 * len(table), table.shape[1]), dtype=np.int64)
        masks.rehash(table, larger)
        return larger

    def make_link(self, exit_: int, lexer: int) -> None:
        """The place behind an exit, for a lexer."""
        links, nodes = self.array("links"), self.array("nodes")
        _, boundary, _, first, last, _, _ = self.array("exits")[exit_].tolist()
        lexical = self.lexical
        start = lexical.start(lexer, boundary)
        if (lexical.rows[start, :256] == kernel.UNKNOWN).any():
            lexical.fill(start)
        items = []
        roots = nodes[first:last]
        letters = self._letters[roots]
        for node, byte, target in zip(
            roots.tolist(), letters.tolist(), lexical.rows[start, letters].tolist(), strict=True
        ):
            rows = [target] if target > 0 else []
            if target < 0:
                rows = lexical.pool[1 - target : 1 - target + lexical.pool[-target]].tolist()
            for row in rows:
                column = 0 if byte == 0x0A and lexical.rows[row, kernel.NEWLINE] else -1
                items.append((node, row, column, 1))
        place = self._make(items)
        if 2 * (self._top["links"] + 1) > len(links):
            links = self._larger(links)
            self._replace("links", links)
        key = exit_ * self._n_lexers + lexer + 1
        cell = masks.find_key(links, key)
        self._top["links"] += int(links[cell, 0] == 0)
        links[cell] = key, place

    def _below(self, node: int, row: int) -> int:
        """The place of what lies below a node, and the token there, with the row behind its byte."""
        known = self._of.get((node, row))
        if known is None:
            known = self._of[node, row] = self._make([(node, row, -1, 0)])
        return known

    def _walk(self, items: list[tuple[int, int, int, int]]) -> tuple[NDArray[np.int32], ...]:
        """Tokens and their rows, exits and children below some nodes."""
        meta, lexical = self._meta, self.lexical
        while len(items) + 16 > len(self._items):
            self._items = np.zeros((2 * len(self._items), 4), dtype=np.int64)
        if items:
            self._items[: len(items)] = items
        meta[[kernel.M_ITEM, kernel.M_PAIRS, kernel.M_EXITS, kernel.M_CHILDREN]] = 0
        meta[kernel.M_ITEMS], meta[kernel.M_NODE] = len(items), -2
        while True:
            status = masks.walk_inside(
                lexical.rows, lexical.pool, self._packed, self._n_words << 5, meta, self._path, _CUT, self._items,
                self._pairs, self._exits, self._children,
            )  # fmt: skip
            if status == kernel.LIVE:
                break
            if status != kernel.FULL:
                lexical.fill_hole(int(status), int(meta[kernel.M_A]), int(meta[kernel.M_B]))
                continue
            for name, top in (
                ("_items", kernel.M_ITEMS), ("_pairs", kernel.M_PAIRS), ("_exits", kernel.M_EXITS),
                ("_children", kernel.M_CHILDREN),
            ):  # fmt: skip
                array = getattr(self, name)
                if meta[top] + 32 > len(array):
                    setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
        return (
            self._pairs[: meta[kernel.M_PAIRS]].copy(),
            self._exits[: meta[kernel.M_EXITS]].copy(),
            self._children[: meta[kernel.M_CHILDREN]].copy(),
        )

    def _make(self, items: list[tuple[int, int, int, int]]) -> int:
        pairs, exits, children = self._walk(items)
        below = [self._below(*child) for child in children.tolist()]
        places, groups, outs = self.array("places"), self.array("groups"), self.array("exits")
        ids, nodes, dense = self.array("ids"), self.array("nodes"), self.array("dense")
        found: dict[int, tuple[list[Any], list[Any]]] = {}
        for endings, tokens in self._by_endings(pairs):
            found[endings] = ([tokens], [])
        leaving: dict[tuple[int, int, int], list[Any]] = {}
        for key, some in self._by_terminal(exits):
            leaving[key] = [some]
        for place in below:
            first, last, first_exit, last_exit = places[place].tolist()
            for endings, row, a, b in groups[first:last].tolist():
                mine = found.setdefault(endings, ([], []))
                if row >= 0:
                    mine[1].append(row)
                elif b > a:
                    mine[0].append(ids[a:b])
            for terminal, boundary, column, a, b, _, _ in outs[first_exit:last_exit].tolist():
                leaving.setdefault((terminal, boundary, column), []).append(nodes[a:b])
        group_rows = [self._group(endings, *parts, dense) for endings, parts in sorted(found.items())]
        end = self._packed[1]
        exit_rows = []
        for (terminal, boundary, column), parts in leaving.items():
            roots = np.unique(np.concatenate(parts)) if len(parts) > 1 else parts[0]
            size = int((end[roots] - roots).sum())
            exit_rows.append((terminal, boundary, column, *self._add("nodes", roots), size, 0))
        row = (*self._add("groups", group_rows), *self._add("exits", exit_rows))
        place, _ = self._add("places", [row])
        return place

    def _group(
        self, endings: int, tokens: list[Any], rows: list[int], dense: NDArray[np.uint32]
    ) -> tuple[int, int, int, int]:
        own = tokens[0] if len(tokens) == 1 else np.concatenate(tokens) if tokens else _NO_IDS
        number = -1
        if rows or len(own) > _DENSE:
            words = np.bitwise_or.reduce(dense[rows], axis=0) if rows else np.zeros(self._n_words, dtype=np.uint32)
            np.bitwise_or.at(words, own >> 5, np.uint32(1) << (own & 31).astype(np.uint32))
            number, _ = self._add("dense", words[None])
            own = _NO_IDS
        return (endings, number, *self._add("ids", own))

    def _by_endings(self, pairs: NDArray[np.int32]) -> list[tuple[int, NDArray[np.int32]]]:
        """Tokens by what the lexeme can become."""
        if not len(pairs):
            return []
        lexical = self.lexical
        rows = pairs[:, 1]
        for row in np.unique(rows[lexical.rows[rows, kernel.ENDINGS] == 0]).tolist():
            if not lexical.rows[row, kernel.ENDINGS]:
                lexical.find_endings(row)
        endings = lexical.rows[rows, kernel.ENDINGS]
        order = np.argsort(endings, kind="stable")
        endings = endings[order]
        cuts = [0, *(np.flatnonzero(np.diff(endings)) + 1).tolist(), len(order)]
        return [
            (int(endings[first]), pairs[order[first:last], 0])
            for first, last in itertools.pairwise(cuts)
            if lexical.pool[endings[first]]
        ]

    def _by_terminal(self, exits: NDArray[np.int32]) -> list[tuple[tuple[int, int, int], NDArray[np.int32]]]:
        """The nodes of exits by terminal, boundary and column; less those at which certainly nothing begins."""
        if not len(exits):
            return []
        found = []
        order = np.lexsort((exits[:, 0], exits[:, 3], exits[:, 2], exits[:, 1]))
        exits = exits[order]
        cuts = np.flatnonzero((np.diff(exits[:, 1:], axis=0) != 0).any(axis=1)) + 1
        letters = self._letters
        for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(exits)], strict=True):
            _, terminal, boundary, column = exits[first].tolist()
            nodes = exits[first:last, 0]
            nodes = nodes[self.lexical.may_begin(terminal)[letters[nodes]]]
            if len(nodes):
                found.append(((terminal, boundary, column), nodes))
        return found
