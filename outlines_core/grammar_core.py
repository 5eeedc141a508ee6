"""The token automaton of a LALR grammar whose lexer can be trusted to let the parser through (`grammar.separation`).

What of a mask does not depend on the parser is kept in a `Forest`; what is left is to ask the parser of the terminals
that tokens are made of. What they depend on of the stack is its upper part, as far as the parser has looked: answers
are noted by that, so that the same place in other surroundings needs no new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.completions import Completions
from outlines_core.grammar.configurations import ConfigurationDfa
from outlines_core.grammar.finishing import Finisher
from outlines_core.grammar.forest import Forest
from outlines_core.grammar.indentation import Indents
from outlines_core.grammar.lexical import EntangledError, Lexical, tables_of
from outlines_core.grammar.liveness import Liveness
from outlines_core.grammar.ordered import NOTHING
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.spelling import Spelling
from outlines_core.grammar.stacks import EMPTY, Stacks
from outlines_core.grammar.worlds import IGNORED, LexedMachine, Lexeme, World
from outlines_core.kernels import grammar as kernel
from outlines_core.kernels import grammar_masks as masks
from outlines_core.kernels.borrow import Handles
from outlines_core.limits import Limits
from outlines_core.regex_core import RegexCore
from outlines_core.types import DEAD, FINISHED, FIRST_STATE
from outlines_core.vocabulary import Vocabulary

__all__ = ["GrammarCore", "StackedRecogniser"]

_MOST_WORLDS: Final = 64
_ARRAYS: Final[tuple[tuple[int, tuple[int, ...], Any], ...]] = (
    (kernel.H_UNITS, (1 << 12, 2), np.int64),
    (kernel.H_STACKS, (8192, 3), np.int32),
    (kernel.H_INDENTS, (8192, 3), np.int32),
    (kernel.H_STACK_TABLE, (1 << 15,), np.int32),
    (kernel.H_INDENT_TABLE, (1 << 15,), np.int32),
    (kernel.H_KNOWN, (1 << 10, 6), np.int64),
    (kernel.H_WORLDS, (_MOST_WORLDS, 4), np.int64),
    (kernel.H_OUT, (_MOST_WORLDS, 4), np.int64),
    (kernel.H_SCRATCH, (1 << 12, 3), np.int64),
)
_BYTES: Final = np.arange(256, dtype=np.uint8)
_BYTES.setflags(write=False)  # as the bytes of tokens are
_NO_LEXEME: Final = Lexeme(0, NOTHING, ())
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
        self.handles = Handles(kernel.H_SIZE)
        self.meta = np.zeros(kernel.META_SIZE, dtype=np.int64)
        self.handles[kernel.H_META] = self.meta
        self.lexical = Lexical(machine, separation, self.handles, limits)
        tables, indentation = machine.grammar.tables, machine.indentation
        assert tables is not None
        for k, shape, dtype in _ARRAYS:
            self.handles[k] = np.zeros(shape, dtype=dtype)
        self.handles[kernel.H_LR] = tables_of(machine)
        self.meta[kernel.M_END] = tables.end
        self.handles[kernel.H_STACKS][1] = tables.start, 0, 1
        self.handles[kernel.H_INDENTS][1] = 0, -1, 0
        self.meta[kernel.M_STACKS] = self.meta[kernel.M_INDENTS] = 2
        self._enter_all()
        if indentation is not None:
            self.meta[kernel.M_INDENTED], self.meta[kernel.M_TAB] = 1, indentation.tab
            self.meta[kernel.M_OPEN], self.meta[kernel.M_CLOSE] = indentation.indent, indentation.dedent
        self.meta[kernel.M_STAMP] = 1
        self.initial: Worlds = ((self.lexical.first, 1, 1, -1),)

    @property
    def nbytes(self) -> int:
        return self.lexical.nbytes + sum(int(self.handles[k].nbytes) for k, _, _ in (*_ARRAYS, (kernel.H_LR, 0, 0)))

    @property
    def stacks(self) -> NDArray[np.int32]:
        return self.handles[kernel.H_STACKS]

    @property
    def indents(self) -> NDArray[np.int32]:
        return self.handles[kernel.H_INDENTS]

    # -- stacks -----------------------------------------------------------------------------------------------------

    def begin(self) -> tuple[int, int]:
        """Where what is pushed from now on begins; nothing is known of any stack."""
        self.meta[kernel.M_STAMP] += 1
        return int(self.meta[kernel.M_STACKS]), int(self.meta[kernel.M_INDENTS])

    def forget(self, mark: tuple[int, int]) -> None:
        """Take back what was pushed since."""
        self.meta[kernel.M_STACKS], self.meta[kernel.M_INDENTS] = mark

    def _double(self, k: int) -> None:
        array = self.handles[k]
        if 2 * array.nbytes > self.limits.max_state_bytes:
            raise LimitExceededError(
                f"the parser's stacks would take {2 * array.nbytes:,} bytes (Limits.max_state_bytes)",
                given=2 * array.nbytes,
                limit=self.limits.max_state_bytes,
            )
        self.handles[k] = np.concatenate([array, np.zeros_like(array)])

    def _enter_all(self) -> None:
        for nodes, table, top, columns in (
            (kernel.H_STACKS, kernel.H_STACK_TABLE, kernel.M_STACKS, 2),
            (kernel.H_INDENTS, kernel.H_INDENT_TABLE, kernel.M_INDENTS, 3),
        ):
            n = int(self.meta[top])
            while 4 * n > len(self.handles[table]):
                self._double(table)
            self.handles[table] = np.zeros_like(self.handles[table])
            kernel.enter_all(self.handles[table], self.handles[nodes], columns, n)

    # -- steps ------------------------------------------------------------------------------------------------------

    def step(self, worlds: Worlds, data: NDArray[np.uint8]) -> Worlds:
        """The live worlds after some bytes."""
        meta, handles = self.meta, self.handles
        mark = int(meta[kernel.M_STACKS]), int(meta[kernel.M_INDENTS])
        n = len(worlds)
        try:
            while True:
                handles[kernel.H_WORLDS][:n] = worlds
                status = kernel.step(handles.address, data.ctypes.data, len(data), n)
                if status > 0 and meta[kernel.M_KEEP_ENTANGLED]:
                    kept = handles[kernel.H_WORLDS][:status].tolist()
                    found = [world for world in kept if self._is_live(world)]
                    return tuple(sorted(map(tuple, found)))
                if status == 1:
                    return (tuple(handles[kernel.H_WORLDS][0].tolist()),)
                if status >= 0:
                    return tuple(sorted(map(tuple, handles[kernel.H_WORLDS][:status].tolist())))
                self.forget(mark)
                if status == kernel.IS_ENTANGLED:
                    meta[kernel.M_KEEP_ENTANGLED] = 1
                else:
                    self.fill_hole(status)
        except BaseException:
            self.forget(mark)
            raise
        finally:
            meta[kernel.M_KEEP_ENTANGLED] = 0

    def step_one(self, worlds: Worlds, address: int, size: int) -> Worlds | None:
        """`step` from a single world by bytes at an address; None: `step` is needed."""
        handles = self.handles
        status = kernel.step_one(handles.address, address, size, *worlds[0])
        if status == 1:
            return (tuple(handles[kernel.H_WORLDS][0].tolist()),)
        if status < 0:
            return None
        return tuple(sorted(map(tuple, handles[kernel.H_WORLDS][:status].tolist())))

    @cached_property
    def finisher(self) -> Finisher:
        """Short texts to the end."""
        return Finisher(self.machine, self.lexical.separation, self.after, self._stacks_behind, self.accepts)

    def _stacks_behind(self, configuration: Worlds) -> list[tuple[list[int], list[int]]]:
        """Stacks and columns, those on top last, where something ignored or a newline was just read."""
        found = []
        for world in configuration:
            q, p, x, _ = world
            _, lexeme, ends = self.lexical.content(q)
            terminals = {terminal for terminal, _ in ends}
            if IGNORED in terminals:
                states = []
                while p:
                    state, p = self.stacks[p, :2].tolist()
                    states.append(state)
                found.append((states[::-1], self._columns(x)[::-1]))
            elif self.lexical.newline in terminals:
                for line in self._worlds_of(world)[lexeme is not None :]:  # the first may be in the midst of it
                    assert isinstance(line.indents, Indents)
                    found.append((self._states(line.stack), list(line.indents.columns)))
        return found

    def _states(self, stack: int) -> list[int]:
        """The states of one of the machine's stacks, that on top last."""
        stacks, states = self.machine.stacks, []
        assert isinstance(stacks, Stacks)
        while stack != EMPTY:
            state, stack = stacks.items[stack]
            states.append(state)
        return states[::-1]

    def _columns(self, x: int) -> list[int]:
        """The columns of the open blocks, that of the innermost first."""
        columns = []
        while x >= 0:
            column, x = self.indents[x, :2].tolist()
            columns.append(column)
        return columns

    def _is_live(self, world: Sequence[int]) -> bool:
        """The same as the kernel says, also where it does not know."""
        q, p, x, _ = world
        if not kernel.is_entangled(self.handles.address, q, p, x):
            return True
        return any(map(self._worlds_live.is_live, self._worlds_of(world)))

    def _worlds_of(self, world: Sequence[int]) -> list[World]:
        """What a world is to the machine: the lexeme goes on or has ended."""
        q, p, x, column = world
        machine, stacks = self.machine, self.machine.stacks
        assert isinstance(stacks, Stacks)
        states = []
        while p:
            states.append(int(self.stacks[p, 0]))
            p = int(self.stacks[p, 1])
        stack = EMPTY
        for state in reversed(states):
            stack = stacks.push(stack, state)
        brackets, columns = int(self.indents[x, 2]), self._columns(x)
        if q == self.lexical.first:
            return list(machine.first)
        _, lexeme, ends = self.lexical.content(q)
        before = World(lexeme or _NO_LEXEME, stack, Indents(tuple(reversed(columns)), brackets), column, None)
        worlds = [] if lexeme is None else [before]
        for terminal, boundary in ends:
            after = machine.after(before, machine.resolve(stacks.lexer(stack), terminal), column)
            worlds += [] if after is None else [machine.world(*after, boundary)]
        return worlds

    @cached_property
    def _worlds_live(self) -> Liveness | Completions:
        machine = self.machine
        assert isinstance(machine.stacks, Stacks)
        liveness = Liveness(machine, machine.stacks)
        return liveness if machine.indentation is None else Completions(machine, machine.stacks, liveness.is_live)

    def fill_hole(self, status: int) -> None:
        """Fill what the kernel has asked for."""
        if status == kernel.TABLE_FULL:
            for k in (kernel.H_SCRATCH, kernel.H_STACK_TABLE, kernel.H_INDENT_TABLE):
                self._double(k)
            self._enter_all()
        elif status == kernel.FULL:
            k = int(self.meta[kernel.M_A])
            if k == kernel.H_STACKS:  # or the other
                for nodes, top in ((k, kernel.M_STACKS), (kernel.H_INDENTS, kernel.M_INDENTS)):
                    if self.meta[top] + 2 * kernel.SPARE > len(self.handles[nodes]):
                        self._double(nodes)
            else:
                self._double(k)
                self.handles[kernel.H_OUT] = np.zeros_like(self.handles[k])
        else:
            self.lexical.fill_hole(status, int(self.meta[kernel.M_A]), int(self.meta[kernel.M_B]))
            if len(self.machine.variants) > self.handles[kernel.H_LR][kernel.L_VARIANTS]:
                self.handles[kernel.H_LR] = tables_of(self.machine)

    def spelled(self, trie: Any) -> Callable[[Worlds], bool] | None:
        """See `configurations.Recogniser`."""
        machine = self.machine
        if machine.indentation is not None:
            return None
        assert isinstance(machine.stacks, Stacks)
        liveness = Liveness(machine.spelled_by(Spelling(trie, machine.dfa.class_of)), machine.stacks)
        return lambda worlds: any(liveness.is_live(one) for world in worlds for one in self._worlds_of(world))

    def after(self, configuration: Worlds, byte: int) -> Worlds | None:
        return self.step(configuration, _BYTES[byte : byte + 1]) or None

    def accepts(self, configuration: Worlds) -> bool:
        n = len(configuration)
        if n == 1:
            status = kernel.accepts_one(self.handles.address, *configuration[0])
            if status >= 0:
                return bool(status)
        mark = self.begin()
        try:
            while True:
                self.handles[kernel.H_WORLDS][:n] = configuration
                status = kernel.accepts(self.handles.address, n)
                if status >= 0:
                    return bool(status)
                self.fill_hole(status)
        finally:
            self.forget(mark)


class GrammarCore(RegexCore):
    """Everything that automata of one grammar and one vocabulary share."""

    def __init__(self, dfa: ConfigurationDfa, vocabulary: Vocabulary, label: str, key: tuple[Any, ...]) -> None:
        assert isinstance(dfa.recogniser, StackedRecogniser)
        self.recogniser = dfa.recogniser
        super().__init__(dfa, vocabulary, label, key)
        trie, handles = vocabulary.table.trie, self.recogniser.handles
        nodes = trie.info, *trie.packed[1:]
        self.forest = Forest(self.recogniser.lexical, handles, nodes, trie.max_depth, self.size, dfa.limits)
        self._words = np.zeros(self.n_words + 1, dtype=np.uint32)
        self._bounds: list[int] = self.indptr.tolist()
        self._address = int(self.data.ctypes.data)
        handles[kernel.H_MASK] = self._words
        self.recogniser.meta[kernel.M_WORDS] = self.n_words

    @property
    def nbytes(self) -> int:
        forest = self.forest.nbytes if hasattr(self, "forest") else 0
        return super().nbytes + self.recogniser.nbytes + forest

    # -- steps ------------------------------------------------------------------------------------------------------

    def next_state(self, state: int, token_id: int) -> int:
        if self.filtered or state < FIRST_STATE or token_id in self.eos or not 0 <= token_id < self.size:
            return super().next_state(state, token_id)
        with self.lock:
            if state >= self.dfa.n_states:
                raise ValueError(f"{state} is not a state of this automaton")
            begin, end = self._bounds[token_id], self._bounds[token_id + 1]
            target = DEAD
            if begin < end:
                dfa: Any = self.dfa
                before = dfa.configuration(state)
                worlds = None
                if len(before) == 1:
                    worlds = self.recogniser.step_one(before, self._address + begin, end - begin)
                if worlds is None:
                    worlds = self.recogniser.step(before, self.data[begin:end])
                if worlds:
                    target = dfa.number(worlds)
            if len(self.edges) >= 1 << 16:
                self.edges.clear()
            self.edges[state, token_id] = target
            return target

    def next_states(self, states: Any, token_ids: Any) -> list[int]:
        return [self.next_state(s, t) for s, t in zip(states, token_ids, strict=True)]

    # -- distances --------------------------------------------------------------------------------------------------

    def byte_distance(self, state: int) -> int:
        """Bytes that are enough from `state` to acceptance; behind some byte one less is enough, and so on."""
        known = self._byte_distance.get(state)
        if known is not None:
            return known
        dfa: Any = self.dfa
        text = self.recogniser.finisher.text(dfa.configuration(state))
        if text is None:
            return super().byte_distance(state)
        for k, byte in enumerate((*text, None)):
            left = len(text) - k
            self._byte_distance[state] = min(left, self._byte_distance.get(state, left))
            if byte is not None:
                state = dfa.step(state, byte)
        return len(text)

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
            self._words[:] = 0
            self.forest.evict()
            try:
                for world in dfa.configuration(state):
                    self._fill(world)
            except EntangledError:
                return super().mask(state)
            return self._finish_mask(state, self._words[: self.n_words].copy())

    def _fill(self, world: tuple[int, int, int, int]) -> None:
        """Set the bits of the tokens that a world allows."""
        recogniser, forest = self.recogniser, self.forest
        handles, meta = recogniser.handles, recogniser.meta
        meta[kernel.M_WANTED] = 0
        mark = recogniser.begin()
        meta[kernel.M_KEPT] = mark[1]
        try:
            while True:
                status = masks.fill(handles.address, *world)
                if status == kernel.LIVE:
                    break
                a, b = int(meta[kernel.M_A]), int(meta[kernel.M_B])
                if status == masks.HOLE_PLACE:
                    forest.make_root(a, begins=False)
                elif status == masks.HOLE_BEGINS:
                    forest.make_root(a, begins=True)
                elif status == masks.HOLE_LINK:
                    forest.make_link(a, b)
                elif status == kernel.FULL and a != kernel.H_STACKS:
                    forest.make_room(a)
                else:
                    recogniser.fill_hole(status)
        finally:
            recogniser.forget(mark)
        if meta[kernel.M_WANTED]:
            for exit_, lexer in forest.array("wanted")[: meta[kernel.M_WANTED]].tolist():
                forest.make_link(exit_, lexer)
