"""The token automaton of a LALR grammar whose lexer can be trusted to let the parser through (`grammar.separation`).

What of a mask does not depend on the parser is kept in a `Forest`; what is left is to ask the parser of the terminals
that tokens are made of. What a mask depends on of the stack is its upper part, as far as the parser has looked: masks
are kept by that, so that the same place in other surroundings has the same mask.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.configurations import ConfigurationDfa
from outlines_core.grammar.forest import Forest
from outlines_core.grammar.lexical import Lexical, tables_of
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.worlds import LexedMachine
from outlines_core.kernels import grammar as kernel
from outlines_core.kernels import grammar_masks as masks
from outlines_core.limits import Limits
from outlines_core.regex_core import RegexCore
from outlines_core.types import DEAD, FINISHED, FIRST_STATE
from outlines_core.vocabulary import Vocabulary

__all__ = ["GrammarCore", "StackedRecogniser"]

_MOST_WORLDS: Final = 64
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
        self.units = np.zeros((1 << 13, 2), dtype=np.int64)
        tables, indentation = machine.grammar.tables, machine.indentation
        assert tables is not None
        self.stacks = np.zeros((8192, 3), dtype=np.int32)
        self.indents = np.zeros((8192, 3), dtype=np.int32)
        self._stack_table = np.zeros(1 << 15, dtype=np.int32)
        self._indent_table = np.zeros(1 << 15, dtype=np.int32)
        self.meta = np.zeros(kernel.META_SIZE, dtype=np.int64)
        self.meta[kernel.M_END] = tables.end
        self.stacks[1] = tables.start, 0, 1
        self.indents[1] = 0, -1, 0
        self.meta[kernel.M_STACKS] = self.meta[kernel.M_INDENTS] = 2
        self._enter_all()
        if indentation is not None:
            self.meta[kernel.M_INDENTED], self.meta[kernel.M_TAB] = 1, indentation.tab
            self.meta[kernel.M_OPEN], self.meta[kernel.M_CLOSE] = indentation.indent, indentation.dedent
        self.known = np.zeros((1 << 12, 6), dtype=np.int64)
        self.meta[kernel.M_STAMP] = 1
        self._worlds = np.zeros((_MOST_WORLDS, 4), dtype=np.int64)
        self._out = np.zeros((_MOST_WORLDS, 4), dtype=np.int64)
        self._scratch = np.zeros((1 << 12, 3), dtype=np.int64)
        self.initial: Worlds = ((self.lexical.first, 1, 1, -1),)

    @property
    def nbytes(self) -> int:
        kept = (
            self.lr.nbytes
            + self.units.nbytes
            + self.stacks.nbytes
            + self.indents.nbytes
            + self._stack_table.nbytes
            + self._indent_table.nbytes
        )
        return self.lexical.nbytes + kept + self.known.nbytes

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

    def _enter_all(self) -> None:
        for name, top, columns in (("stack", kernel.M_STACKS, 2), ("indent", kernel.M_INDENTS, 3)):
            table = getattr(self, f"_{name}_table")
            n = int(self.meta[top])
            while 4 * n > len(table):
                table = np.zeros(2 * len(table), dtype=np.int32)
            table = np.zeros_like(table)
            kernel.enter_all(table, getattr(self, f"{name}s"), columns, n)
            setattr(self, f"_{name}_table", table)

    def _keep(self, n: int, mark: tuple[int, int]) -> Worlds:
        """The first worlds of `_worlds`, with stacks and indents that stay; what else was pushed is forgotten."""
        while True:
            kept = kernel.keep(
                self.stacks, self.indents, self._stack_table, self._indent_table, self.meta, self._worlds, n, *mark,
                self._scratch,
            )  # fmt: skip
            if kept >= 0:
                return tuple(sorted(map(tuple, self._worlds[:kept].tolist())))
            pushed = int(self.meta[kernel.M_STACKS]), int(self.meta[kernel.M_INDENTS])
            self._scratch = np.zeros((2 * len(self._scratch), 3), dtype=np.int64)
            self.forget(mark)
            self._stack_table = np.zeros(2 * len(self._stack_table), dtype=np.int32)
            self._indent_table = np.zeros(2 * len(self._indent_table), dtype=np.int32)
            self._enter_all()
            self.forget(pushed)

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
                    lexical.rows, lexical.pool, lexical.starts, self.lr, self.units, self.stacks, self.indents,
                    self.meta, self.known, data, self._worlds, self._out, n,
                )  # fmt: skip
                if status >= 0:
                    return self._keep(int(status), mark) if status else ()
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
            if len(self.machine.variants) > self.lr[kernel.L_VARIANTS]:
                self.lr = tables_of(self.machine)

    def after(self, configuration: Worlds, byte: int) -> Worlds | None:
        return self.step(configuration, _BYTES[byte : byte + 1]) or None

    def accepts(self, configuration: Worlds) -> bool:
        mark = self.begin()
        worlds = np.array(configuration, dtype=np.int64)
        try:
            while True:
                lexical = self.lexical
                status = kernel.accepts(
                    lexical.rows, lexical.pool, self.lr, self.units, self.stacks, self.indents, self.meta, worlds
                )
                if status >= 0:
                    return bool(status)
                self.fill_hole(int(status))
        finally:
            self.forget(mark)


class GrammarCore(RegexCore):
    """Everything that automata of one grammar and one vocabulary share."""

    def __init__(self, dfa: ConfigurationDfa, vocabulary: Vocabulary, label: str, key: tuple[Any, ...]) -> None:
        assert isinstance(dfa.recogniser, StackedRecogniser)
        self.recogniser = dfa.recogniser
        self._tops: dict[int, _Top] = {}
        self._top_bytes = 0
        super().__init__(dfa, vocabulary, label, key)
        self.forest = Forest(self.recogniser.lexical, self.packed, self._path.shape[0], self.size, dfa.limits)
        self._walk_path = np.zeros((self._path.shape[0], 2), dtype=np.int64)
        self._tasks = np.zeros((1024, 5), dtype=np.int64)
        self._found = np.zeros((64, 4), dtype=np.int64)
        self._work = np.zeros((256, 6), dtype=np.int64)
        self._left = np.zeros(1024, dtype=np.int32)
        self._wanted = np.zeros((32, 4), dtype=np.int64)
        self._world = np.zeros(4, dtype=np.int64)

    @property
    def nbytes(self) -> int:
        forest = self.forest.nbytes if hasattr(self, "forest") else 0
        return super().nbytes + self.recogniser.nbytes + forest + self._top_bytes

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
        stacks, meta = recogniser.stacks, recogniser.meta
        brackets = (-1, int(recogniser.indents[x, 2]))
        top = self._tops.get(q)
        below = p
        while top is not None:
            if top.masks:
                for key in (None, brackets, (x, column)):
                    known = top.masks.get(key)
                    if known is not None:
                        return known
            state, below = stacks[below, :2].tolist()
            top = top.below.get(state)
        words = np.zeros(self.n_words + 1, dtype=np.uint32)
        mark = recogniser.begin()
        meta[kernel.M_LOWEST], meta[kernel.M_LOOKED] = stacks[p, 2], 0
        try:
            self._fill(world, words)
        finally:
            recogniser.forget(mark)
        words = words[:-1]
        if self._top_bytes > self.dfa.limits.max_mask_bytes:
            self._tops.clear()
            self._top_bytes = 0
        top = self._tops.setdefault(q, _Top())
        stacks = recogniser.stacks
        at = p
        for _ in range(int(stacks[p, 2] - meta[kernel.M_LOWEST]) + 1):
            state, at = stacks[at, :2].tolist()
            top = top.below.setdefault(state, _Top())
            self._top_bytes += 300
        looked = int(meta[kernel.M_LOOKED])
        top.masks[(x, column) if looked & kernel.INDENTS else brackets if looked else None] = words
        self._top_bytes += words.nbytes + 300
        return words

    def _fill(self, world: tuple[int, int, int, int], words: NDArray[np.uint32]) -> None:
        """Set the bits of the tokens that a world allows."""
        recogniser, forest = self.recogniser, self.forest
        forest.evict()
        meta = recogniser.meta
        self._world[:] = world
        meta[kernel.M_PLACES] = -1
        self._run(words)
        wanted = self._wanted[: meta[kernel.M_WANTED]].tolist()
        for exit_, lexer, p, x in reversed(wanted):  # what is noted of an inner exit serves the outer one
            if not p:
                forest.make_link(exit_, lexer)
            else:
                self._note(exit_, lexer, p, x)

    def _run(self, words: NDArray[np.uint32]) -> None:
        """Run the kernel to its end."""
        recogniser, forest = self.recogniser, self.forest
        meta = recogniser.meta
        meta[kernel.M_WANTED] = 0
        while True:
            lexical = recogniser.lexical
            status = masks.fill(
                (lexical.rows, lexical.pool, lexical.starts), recogniser.lr, recogniser.units, recogniser.stacks,
                recogniser.indents, self.packed, meta, recogniser.known, self._walk_path, self._tasks, self._found,
                forest.arrays, forest.patience, self._world, self._work, self._wanted, words,
            )  # fmt: skip
            if status == kernel.LIVE:
                break
            a, b = int(meta[kernel.M_A]), int(meta[kernel.M_B])
            if status == masks.HOLE_PLACE:
                forest.make_root(a, begins=False)
            elif status == masks.HOLE_BEGINS:
                forest.make_root(a, begins=True)
            elif status == masks.HOLE_LINK:
                forest.make_link(a, b)
            elif status == kernel.FULL:
                recogniser.grow()
                forest.make_room()
                for name in ("_tasks", "_work"):
                    array = getattr(self, name)
                    if len(array) < 1 << 16:
                        setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
            else:
                recogniser.fill_hole(int(status))

    def _note(self, exit_: int, lexer: int, p: int, x: int) -> None:
        """Note what is allowed behind an exit as far as that depends on the state on top of the stack alone."""
        recogniser, forest = self.recogniser, self.forest
        while True:
            words = np.zeros(self.n_words + 1, dtype=np.uint32)
            place = forest.place_behind(exit_, lexer)
            status = masks.note(
                recogniser.lexical.pool, recogniser.lr, recogniser.units, recogniser.stacks, recogniser.indents,
                recogniser.meta, recogniser.known, forest.arrays, place, p, x, self._left, words,
            )  # fmt: skip
            if status == kernel.LIVE:
                break
            if status != kernel.FULL:
                return  # what is entangled is found when a mask needs it
            recogniser.grow()
            self._left = np.zeros(2 * len(self._left), dtype=np.int32)
        left = self._left[: recogniser.meta[kernel.M_FOUND]]
        forest.note(exit_, int(recogniser.stacks[p, 0]), int(recogniser.lr[kernel.L_STATES]), words[:-1], left)


class _Top:
    """A node of the tree of masks by what they depend on: below it by the next state on the stack."""

    __slots__ = ("below", "masks")

    def __init__(self) -> None:
        self.below: dict[int, _Top] = {}
        self.masks: dict[tuple[int, int] | None, NDArray[np.uint32]] = {}
