"""The token automaton of a LALR grammar whose lexer can be trusted to let the parser through (`grammar.separation`).

A mask has two parts, as in the JSON engine: the tokens that stay within the lexeme, found once for a row and grouped by
the terminal that the lexeme can become, of which the parser is asked one by one; and the tokens that leave it at some
node of the trie, below which they are walked with the parser's stack. Large subtrees behind such nodes are looked up as
further lexemes. What a mask depends on of the stack is its upper part, as far as the parser has looked: masks are kept
by that, so that the same place in other surroundings has the same mask.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.configurations import ConfigurationDfa
from outlines_core.grammar.lexical import Lexical, tables_of
from outlines_core.grammar.ordered import NOTHING
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.worlds import Boundary, LexedMachine
from outlines_core.kernels import grammar as kernel
from outlines_core.limits import Limits
from outlines_core.regex_core import RegexCore
from outlines_core.types import DEAD, FINISHED, FIRST_STATE
from outlines_core.vocabulary import Vocabulary

__all__ = ["GrammarCore", "StackedRecogniser"]

_MOST_WORLDS: Final = 64
_DENSE: Final = 2048
_MANY: Final = 600
"""Nodes below the exits that have one parent: with more of them the parent stands for them."""
_BYTES: Final = np.arange(256, dtype=np.uint8)
_BYTES.setflags(write=False)  # as the bytes of tokens are
Worlds = tuple[tuple[int, int, int, int], ...]


class StackedRecogniser:
    """A `Recogniser` that runs in the kernel.  Configurations are tuples of (row, stack, indents, column).

    Args:
        machine: what texts mean.
        separation: of the machine; it must hold.
    """

    weight = 1

    def __init__(self, machine: LexedMachine, separation: Separation, limits: Limits) -> None:
        self.machine, self.limits = machine, limits
        self.lexical = Lexical(machine, separation, limits)
        self.lr = tables_of(machine)
        tables, indentation = machine.grammar.tables, machine.indentation
        assert tables is not None
        self.stacks = np.zeros((8192, 3), dtype=np.int32)
        self.indents = np.zeros((8192, 3), dtype=np.int32)
        self._stack_numbers: dict[tuple[int, int], int] = {}
        self._indent_numbers: dict[tuple[int, int, int], int] = {}
        self.meta = np.zeros(kernel.META_SIZE, dtype=np.int64)
        self.meta[kernel.M_END] = tables.end
        self.stacks[1] = tables.start, 0, 1
        self.indents[0] = 0, -1, 0
        self.meta[kernel.M_STACKS], self.meta[kernel.M_INDENTS] = 2, 1
        if indentation is not None:
            self.meta[kernel.M_INDENTED], self.meta[kernel.M_TAB] = 1, indentation.tab
            self.meta[kernel.M_OPEN], self.meta[kernel.M_CLOSE] = indentation.indent, indentation.dedent
        self.known = np.zeros((1 << 14, 4), dtype=np.int64)
        self.meta[kernel.M_STAMP] = 1
        self._worlds = np.zeros((_MOST_WORLDS, 4), dtype=np.int64)
        self._out = np.zeros((_MOST_WORLDS, 4), dtype=np.int64)
        first = self.lexical.boundary_number(Boundary(machine.dfa.beginning, NOTHING))
        start = self.lexical.start(tables.lexer[tables.start], first)
        self.start_row = start
        self.initial: Worlds = ((start, 1, 0, -1),)

    @property
    def nbytes(self) -> int:
        return self.lexical.nbytes + self.stacks.nbytes + self.indents.nbytes + 200 * len(self._stack_numbers)

    # -- stacks -----------------------------------------------------------------------------------------------------

    def begin(self) -> tuple[int, int]:
        """Where what is pushed from now on begins; nothing is known of any stack."""
        self.meta[kernel.M_STAMP] += 1
        return int(self.meta[kernel.M_STACKS]), int(self.meta[kernel.M_INDENTS])

    def forget(self, mark: tuple[int, int]) -> None:
        """Take back what was pushed since."""
        self.meta[kernel.M_STACKS], self.meta[kernel.M_INDENTS] = mark

    def grow(self) -> None:
        """Make room in whatever is full."""
        for name, top in (("stacks", kernel.M_STACKS), ("indents", kernel.M_INDENTS)):
            array = getattr(self, name)
            if self.meta[top] + 2 * kernel.SPARE > array.shape[0]:
                if 2 * array.nbytes > self.limits.max_state_bytes:
                    raise LimitExceededError(
                        f"the parser's stacks would take {2 * array.nbytes:,} bytes (Limits.max_state_bytes)",
                        given=2 * array.nbytes,
                        limit=self.limits.max_state_bytes,
                    )
                larger = np.zeros((2 * array.shape[0], 3), dtype=np.int32)
                larger[: array.shape[0]] = array
                setattr(self, name, larger)

    def keep(self, worlds: list[list[int]], mark: tuple[int, int]) -> Worlds:
        """The worlds with stacks and indents that stay; what else was pushed since `mark` is forgotten."""
        kept = []
        chains = [
            (self._chain(self.stacks, p, mark[0]), self._chain(self.indents, x, mark[1])) for _, p, x, _ in worlds
        ]
        self.forget(mark)
        for (q, _, _, column), ((p, states), (x, blocks)) in zip(worlds, chains, strict=True):
            for state, _ in reversed(states):
                p = self._kept(self._stack_numbers, "stacks", kernel.M_STACKS, (state, p), None)
            for value, brackets in reversed(blocks):
                x = self._kept(self._indent_numbers, "indents", kernel.M_INDENTS, (value, x), brackets)
            kept.append((q, p, x, column))
        return tuple(sorted(set(kept)))

    @staticmethod
    def _chain(nodes: NDArray[np.int32], number: int, mark: int) -> tuple[int, list[tuple[int, int]]]:
        """What was pushed since `mark`, the last one first, and what that stands on."""
        pushed = []
        while number >= mark:
            value, below, other = nodes[number].tolist()
            pushed.append((value, other))
            number = below
        return number, pushed

    def _kept(self, numbers: dict[Any, int], name: str, top: int, key: tuple[int, int], brackets: int | None) -> int:
        value, below = key
        full = key if brackets is None else (value, below, brackets)
        known = numbers.get(full)
        if known is None:
            self.grow()
            nodes = getattr(self, name)
            known = numbers[full] = int(self.meta[top])
            nodes[known] = value, below, nodes[below, 2] + 1 if brackets is None else brackets
            self.meta[top] = known + 1
        return known

    # -- steps ------------------------------------------------------------------------------------------------------

    def step(self, worlds: Worlds, data: NDArray[np.uint8]) -> Worlds:
        """The live worlds after some bytes."""
        mark = self.begin()
        n = len(worlds)
        try:
            while True:
                self._worlds[:n] = worlds
                lexical = self.lexical
                status = kernel.step(
                    lexical.rows, lexical.pool, lexical.starts, self.lr, self.stacks, self.indents, self.meta,
                    self.known, data, self._worlds, self._out, n,
                )  # fmt: skip
                if status >= 0:
                    return self.keep(self._worlds[:status].tolist(), mark)
                self.forget(mark)
                self.begin()
                self.fill_hole(int(status))
        except BaseException:
            self.forget(mark)
            raise

    def fill_hole(self, status: int) -> None:
        """Fill what the kernel has asked for."""
        if status == kernel.FULL:
            self.grow()
            if self._worlds.shape[0] < 4096:
                self._worlds = np.zeros((2 * self._worlds.shape[0], 4), dtype=np.int64)
                self._out = np.zeros_like(self._worlds)
        else:
            self.lexical.fill_hole(status, int(self.meta[kernel.M_A]), int(self.meta[kernel.M_B]))

    def after(self, configuration: Worlds, byte: int) -> Worlds | None:
        return self.step(configuration, _BYTES[byte : byte + 1]) or None

    def accepts(self, configuration: Worlds) -> bool:
        mark = self.begin()
        try:
            return any(self._ends(*world) for world in configuration)
        finally:
            self.forget(mark)

    def behind(self, p: int, x: int, terminal: int, column: int) -> tuple[int, int]:
        """Stack and indents after a terminal; stack 0 if it is refused."""
        while True:
            if self.meta[kernel.M_STACKS] + kernel.SPARE <= self.stacks.shape[0]:
                found = kernel.after(self.lr, self.stacks, self.indents, self.meta, p, x, terminal, column)
                return int(found[0]), int(found[1])
            self.grow()

    def lexer(self, p: int) -> int:
        """The lexer that reads what comes behind a stack."""
        return int(self.lr[3][self.stacks[p, 0]])

    def _ends(self, q: int, p: int, x: int, column: int) -> bool:
        dfa = self.machine.dfa
        if q == self.start_row:
            return self._may_end(p, x)
        for terminal, boundary in self.lexical.ends(q):
            if not dfa.hold_at_end(boundary.obligations):
                continue
            if terminal < 0:  # ignored
                if self._may_end(p, x):
                    return True
                continue
            p2, x2 = self.behind(p, x, terminal, column)
            if p2 and self._may_end(p2, x2):
                return True
        return False

    def _may_end(self, p: int, x: int) -> bool:
        return bool(kernel.ends(self.lr, self.stacks, self.indents, self.meta, p, x))


class _Place(NamedTuple):
    """A node of the trie (-1: the root) and the row behind its byte; `begins`: the row begins a lexeme there."""

    node: int
    row: int
    begins: bool


_Point = tuple[int, list[tuple[int, int]], int]
"""A node, what the lexeme may be that ends there, as `Lexical.parts` has it, and the column."""


class _Inside(NamedTuple):
    """The tokens that stay within a lexeme, as `kernels.grammar.fill_groups` has them, and where others leave it."""

    groups: NDArray[np.int64]
    members: NDArray[np.int32]
    ids: NDArray[np.int32]
    dense: NDArray[np.uint32]
    exits: NDArray[np.int32]
    points: list[_Point]

    @property
    def nbytes(self) -> int:
        return 400 + 200 * len(self.points) + sum(int(array.nbytes) for array in self[:-1])


class GrammarCore(RegexCore):
    """Everything that automata of one grammar and one vocabulary share."""

    def __init__(self, dfa: ConfigurationDfa, vocabulary: Vocabulary, label: str, key: tuple[Any, ...]) -> None:
        assert isinstance(dfa.recogniser, StackedRecogniser)
        self.recogniser = dfa.recogniser
        self._insides: dict[_Place, _Inside] = {}
        self._inside_bytes = 0
        self._tops: dict[tuple[int, ...], NDArray[np.uint32] | None] = {}
        self._top_bytes = 0
        super().__init__(dfa, vocabulary, label, key)
        depth = self._path.shape[0]
        self._walk_path = np.zeros((depth, 2), dtype=np.int64)
        self._tasks = np.zeros((4096, 5), dtype=np.int64)
        self._big = np.zeros((512, 5), dtype=np.int64)
        self._inside_path = np.zeros((depth, 3), dtype=np.int64)
        self._token_rows = np.zeros(self.size + 1, dtype=np.int32)

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.recogniser.nbytes + self._inside_bytes + self._top_bytes

    # -- steps ------------------------------------------------------------------------------------------------------

    def next_state(self, state: int, token_id: int) -> int:
        if self.filtered or state < FIRST_STATE or token_id in self.eos or not 0 <= token_id < self.size:
            return super().next_state(state, token_id)
        with self.lock:
            if state >= self.dfa.n_states:
                raise ValueError(f"{state} is not a state of this automaton")
            data = self.data[self.indptr[token_id] : self.indptr[token_id + 1]]
            target = DEAD
            if len(data):
                dfa: Any = self.dfa
                worlds = self.recogniser.step(dfa.configuration(state), data)
                if worlds:
                    target = dfa.number(worlds)
            if len(self.edges) >= 1 << 16:
                self.edges.clear()
            self.edges[state, token_id] = target
            return target

    def next_states(self, states: Any, token_ids: Any) -> list[int]:
        return [self.next_state(s, t) for s, t in zip(states, token_ids, strict=True)]

    # -- masks ------------------------------------------------------------------------------------------------------

    def mask(self, state: int) -> NDArray[np.int32]:
        if self.filtered or state in (DEAD, FINISHED):
            return super().mask(state)
        with self.lock:
            known = self.masks.get(state)
            if known is not None:
                return known
            if not FIRST_STATE <= state < self.dfa.n_states:
                raise ValueError(f"{state} is not a state of this automaton")
            dfa: Any = self.dfa
            words = np.zeros(self.n_words + 1, dtype=np.uint32)
            for world in dfa.configuration(state):
                words[:-1] |= self._world_mask(world)
            return self._finish_mask(state, words[: self.n_words])

    def _world_mask(self, world: tuple[int, int, int, int]) -> NDArray[np.uint32]:
        """The tokens that a world allows, kept by what they depend on."""
        q, p, x, column = world
        recogniser = self.recogniser
        stacks = recogniser.stacks
        key: tuple[int, ...] = (q, x, column, int(stacks[p, 0]))
        below = int(stacks[p, 1])
        while key in self._tops:
            known = self._tops[key]
            if known is not None:
                return known
            key = (*key, int(stacks[below, 0]))
            below = int(stacks[below, 1])
        words = np.zeros(self.n_words + 1, dtype=np.uint32)
        mark = recogniser.begin()
        meta = recogniser.meta
        meta[kernel.M_LOWEST] = stacks[p, 2]
        try:
            self._fill(world, words)
        finally:
            recogniser.forget(mark)
        n = int(stacks[p, 2] - meta[kernel.M_LOWEST]) + 1
        if self._top_bytes > self.dfa.limits.max_mask_bytes:
            self._tops.clear()
            self._top_bytes = 0
        key, at = (q, x, column), p
        for k in range(n):
            key = (*key, int(recogniser.stacks[at, 0]))
            at = int(recogniser.stacks[at, 1])
            if k + 1 < n:
                self._tops[key] = None
        self._tops[key] = words[:-1]
        self._top_bytes += words.nbytes + 300
        return words[:-1]

    def _fill(self, world: tuple[int, int, int, int], words: NDArray[np.uint32]) -> None:
        """Set the bits of the tokens that a world allows."""
        q, p, x, column = world
        recogniser = self.recogniser
        lexical, meta = recogniser.lexical, recogniser.meta
        meta[kernel.M_TASKS] = meta[kernel.M_BIG] = 0
        longer, ends = lexical.parts(q)
        if longer:
            self._enter(_Place(-1, longer, begins=False), (p, x, column), words)
        self._enter_behind(-1, ends, (p, x, column), words)
        while meta[kernel.M_BIG]:
            meta[kernel.M_BIG] -= 1
            node, q, p, x, column = self._big[meta[kernel.M_BIG]].tolist()
            self._enter(_Place(node, q, begins=False), (p, x, column), words)

    def _enter_behind(
        self, node: int, ends: list[tuple[int, int]], world: tuple[int, int, int], words: NDArray[np.uint32]
    ) -> None:
        """The tokens below a node at which a lexeme has ended."""
        recogniser = self.recogniser
        p, x, column = world
        for terminal, boundary in ends:
            lexer = -1 - terminal
            if terminal >= 0:
                p, x = recogniser.behind(*world[:2], terminal, column)
                lexer = recogniser.lexer(p) if p else 0
            else:
                p, x = world[:2]
            if p:
                start = recogniser.lexical.start(lexer, boundary)
                self._enter(_Place(node, start, begins=True), (p, x, -1), words)

    def _enter(self, place: _Place, world: tuple[int, int, int], words: NDArray[np.uint32]) -> None:
        """The tokens below a place, in a world that is there."""
        inside = self._inside(place)
        recogniser = self.recogniser
        some = np.zeros(len(inside.groups) + 1, dtype=np.int64)
        p, x, column = world
        while len(inside.groups):
            lexical = recogniser.lexical
            status = kernel.fill_groups(
                lexical.rows, lexical.pool, recogniser.lr, recogniser.stacks, recogniser.indents, recogniser.meta,
                recogniser.known, inside.groups, inside.members, inside.ids, inside.dense, p, x, words, some,
            )  # fmt: skip
            if status == kernel.LIVE:
                break
            recogniser.fill_hole(int(status))
        if some[0]:
            self._fill_some(place, p, x, inside, some[1 : some[0] + 1].tolist(), words)
        if len(inside.exits):
            self._walk(inside.exits, world, words)
        for node, ends, at in inside.points:
            before = at if at < kernel.RELATIVE else at - kernel.RELATIVE + column
            self._enter_behind(node, ends, (p, x, before), words)

    def _fill_some(
        self, place: _Place, p: int, x: int, inside: _Inside, groups: list[int], words: NDArray[np.uint32]
    ) -> None:
        """The tokens of groups of which only some rows are live."""
        self._walk_inside(place)
        members = np.unique(np.concatenate([inside.members[slice(*inside.groups[g, 4:6])] for g in groups]))
        recogniser = self.recogniser
        while True:
            lexical = recogniser.lexical
            status = kernel.fill_some(
                lexical.rows, lexical.pool, recogniser.lr, recogniser.stacks, recogniser.indents, recogniser.meta,
                recogniser.known, self._token_rows, members, p, x, words,
            )  # fmt: skip
            if status == kernel.LIVE:
                return
            recogniser.fill_hole(int(status))

    def _walk(self, exits: NDArray[np.int32], world: tuple[int, int, int], words: NDArray[np.uint32]) -> None:
        """The tokens that leave a lexeme at one of the exits."""
        recogniser = self.recogniser
        meta = recogniser.meta
        meta[kernel.M_NODE], meta[kernel.M_EXIT] = -1, 0
        before = np.array(world, dtype=np.int64)
        while True:
            lexical = recogniser.lexical
            status = kernel.walk(
                lexical.rows, lexical.pool, lexical.starts, recogniser.lr, recogniser.stacks, recogniser.indents,
                self.packed, meta, recogniser.known, self._walk_path, exits, before, self._tasks, self._big, words,
            )  # fmt: skip
            if status == kernel.LIVE:
                return
            if status == kernel.FULL and meta[kernel.M_TASKS] + 16 > self._tasks.shape[0]:
                self._tasks = np.concatenate([self._tasks, np.zeros_like(self._tasks)])
            else:
                recogniser.fill_hole(int(status))

    # -- within lexemes ---------------------------------------------------------------------------------------------

    def _walk_inside(self, place: _Place) -> NDArray[np.int32]:
        """Where tokens end goes to `_token_rows`; the exits."""
        info, end, token = self.packed
        recogniser = self.recogniser
        meta, rows_of, path = recogniser.meta, self._token_rows, self._inside_path
        node, q, begins = place
        rows_of[:] = 0
        depth = int(info[node]) >> 8 if node >= 0 else 0
        counts = not begins and recogniser.lexical.rows[q, kernel.NEWLINE]
        path[depth] = q, kernel.RELATIVE if counts else -1, node
        if node >= 0 and not begins and token[node] < self.size:
            rows_of[token[node]] = q
        meta[kernel.M_NODE], meta[kernel.M_EXIT] = node + 1, 0
        stop = int(end[node]) if node >= 0 else len(end)
        exits = np.zeros((1024, 5), dtype=np.int32)
        while True:
            lexical = recogniser.lexical
            status = kernel.walk_inside(lexical.rows, lexical.pool, self.packed, meta, path, stop, rows_of, exits)
            if status == kernel.LIVE:
                return exits[: meta[kernel.M_EXIT]].copy()
            if status == kernel.FULL:
                exits = np.concatenate([exits, np.zeros_like(exits)])
            else:
                recogniser.fill_hole(int(status))

    def _inside(self, place: _Place) -> _Inside:
        known = self._insides.get(place)
        if known is None:
            if self._inside_bytes > self.dfa.limits.max_mask_bytes:
                self._insides.clear()
                self._inside_bytes = 0
            known = self._insides[place] = self._made(place)
            self._inside_bytes += known.nbytes
        return known

    def _points(self, exits: NDArray[np.int32]) -> tuple[NDArray[np.int32], list[_Point]]:
        """The exits, and in place of many that are children of one node, that node."""
        info, end, _ = self.packed
        lexical = self.recogniser.lexical
        points: list[_Point] = []
        if not len(exits):
            return exits, points
        rows, which = np.unique(exits[:, 1], return_inverse=True)
        begins = np.array([lexical.may_begin(row) for row in rows.tolist()]).reshape(-1, 256)
        exits = exits[begins[which, info[exits[:, 0]] & 255]]
        kept = np.ones(len(exits), dtype=np.bool_)
        sizes = end[exits[:, 0]] - exits[:, 0]
        parents, group = np.unique(exits[:, 3], return_inverse=True)
        below = np.bincount(group, weights=sizes, minlength=len(parents))
        for k in np.flatnonzero(below > _MANY).tolist():
            mine = np.flatnonzero(group == k)
            _, q, column, parent, _ = exits[mine[0]].tolist()
            _, ends = lexical.parts(q)
            events = -lexical.rows[q, info[exits[mine, 0]] & 255]
            if parent < 0 or (lexical.pool[events] > 1).any() or any(terminal < 0 for terminal, _ in ends):
                continue  # the lexeme may go on below in other ways, too
            kept[mine] = False
            points.append((parent, ends, column))
        return exits[kept], points

    def _made(self, place: _Place) -> _Inside:
        exits, points = self._points(self._walk_inside(place))
        rows_of = self._token_rows[: self.size]
        lexical = self.recogniser.lexical
        tokens = np.flatnonzero(rows_of).astype(np.int32)
        members, which = np.unique(rows_of[tokens], return_inverse=True)
        witness = []
        for row in members.tolist():
            known = int(lexical.rows[row, kernel.WITNESS])
            witness.append(lexical.find_witness(row) if known == kernel.UNKNOWN_WITNESS else known)
        witnesses = np.array(witness, dtype=np.int64)
        groups: list[tuple[int, ...]] = []
        ids: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
        rows: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
        dense: list[NDArray[np.uint32]] = []
        n_ids = n_rows = 0
        of_token = witnesses[which] if len(members) else np.zeros(0, dtype=np.int64)
        for terminal in sorted(set(witness) - {kernel.NONE}):
            mine = tokens[of_token == terminal]
            own = members[witnesses == terminal].astype(np.int32)
            number = -1
            if len(mine) > _DENSE:
                number = len(dense)
                words = np.zeros(self.n_words, dtype=np.uint32)
                np.bitwise_or.at(words, mine >> 5, np.uint32(1) << (mine & 31).astype(np.uint32))
                dense.append(words)
                mine = mine[:0]
            groups.append((terminal, number, n_ids, n_ids + len(mine), n_rows, n_rows + len(own)))
            ids.append(mine)
            rows.append(own)
            n_ids, n_rows = n_ids + len(mine), n_rows + len(own)
        return _Inside(
            np.array(groups, dtype=np.int64).reshape(-1, 6),
            np.concatenate(rows),
            np.concatenate(ids),
            np.array(dense, dtype=np.uint32).reshape(-1, self.n_words),
            exits,
            points,
        )
