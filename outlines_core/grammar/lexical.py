"""Lexemes as rows of one table, for the kernel.

A row is a lexeme that is being read and what it may be if it ends here. Rows, and their entries byte class by byte
class, are made as they are visited. `kernels.grammar` says what the arrays mean.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.endings import Endings, Ends
from outlines_core.grammar.ordered import NOTHING
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.worlds import IGNORED, VARIANT, Boundary, LexedMachine, Lexeme
from outlines_core.kernels import grammar as kernel
from outlines_core.kernels.borrow import Handles
from outlines_core.limits import Limits

__all__ = ["EntangledError", "Lexical"]


class EntangledError(Exception):
    """Whether the text can go on depends on what lexemes exclude behind them: `grammar.liveness` must be asked."""


class Lexical:
    """The rows of a machine's lexemes.

    Args:
        handles: where kernels find `rows`, `pool` and `starts`.

    Attributes:
        rows, pool, starts: as the kernel has them; replaced when they grow.
        first: the row before any text.
        tab: how far a tab goes; None without an indenter.
    """

    def __init__(self, machine: LexedMachine, separation: Separation, handles: Handles, limits: Limits) -> None:
        self.machine, self.separation, self.limits = machine, separation, limits
        self._handles = handles
        self._endings = Endings(self)
        self.rows = np.zeros((256, kernel.WIDTH), dtype=np.int32)
        self.pool = np.zeros(4096, dtype=np.int32)
        self._n_pool = 1
        self.starts = np.full((len(machine.grammar.lexers), 64), kernel.UNKNOWN, dtype=np.int32)
        self._boundaries: dict[Boundary, int] = {}
        self._boundary: list[Boundary] = []
        self._numbers: dict[Any, int] = {}
        self._content: list[tuple[int, Lexeme | None, Ends]] = [(0, None, ())]
        self._events: dict[tuple[int, ...], int] = {}
        self._begins: dict[int, NDArray[np.bool_]] = {}
        self._firsts: dict[int, NDArray[np.bool_]] = {}
        classes = np.array(machine.dfa.class_of)
        self._bytes = [np.flatnonzero(classes == k) for k in range(machine.dfa.n_classes)]
        self._class_of = classes
        self.newline = separation.newline
        self.tab = None if machine.indentation is None else machine.indentation.tab
        tables = machine.grammar.tables
        assert tables is not None
        first = self.boundary_number(Boundary(machine.dfa.beginning, NOTHING))
        self.first = self.start(tables.lexer[tables.start], first)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "rows":
            self._handles[kernel.H_ROWS] = value
        elif name == "pool":
            self._handles[kernel.H_POOL] = value
        elif name == "starts":
            self._handles[kernel.H_STARTS] = value.reshape(-1)
            self._handles[kernel.H_META][kernel.M_BOUNDARIES] = value.shape[1]

    @property
    def nbytes(self) -> int:
        return int(self.rows.nbytes + self.pool.nbytes + self.starts.nbytes) + 600 * len(self._content)

    def content(self, row: int) -> tuple[int, Lexeme | None, Ends]:
        """The lexer that goes on behind something ignored, or -1; the lexeme that is being read; what it is if it
        ends here.
        """
        return self._content[row]

    # -- rows -------------------------------------------------------------------------------------------------------

    def boundary_number(self, boundary: Boundary) -> int:
        known = self._boundaries.get(boundary)
        if known is None:
            known = self._boundaries[boundary] = len(self._boundary)
            self._boundary.append(boundary)
            if known >= self.starts.shape[1]:
                larger = np.full((self.starts.shape[0], 2 * self.starts.shape[1]), kernel.UNKNOWN, dtype=np.int32)
                larger[:, : self.starts.shape[1]] = self.starts
                self.starts = larger
        return known

    def start(self, lexer: int, boundary: int) -> int:
        """The row before a lexeme."""
        known = int(self.starts[lexer, boundary])
        if known == kernel.UNKNOWN:
            behind = self._boundary[boundary]
            known = self._row(lexer, self.machine.start(lexer, behind), ())
            self.starts[lexer, boundary] = known
        return known

    def _row(self, lexer: int, lexeme: Lexeme | None, ends: Ends) -> int:
        ignored = self.machine.grammar.ignored
        may_vanish = lexeme is not None and self.machine.dfa.terminals_of(lexeme.state) & ignored
        if not may_vanish and all(terminal != IGNORED for terminal, _ in ends):
            lexer = -1  # behind something ignored the same lexer goes on; else it makes no difference
        key = lexer, lexeme, ends
        known = self._numbers.get(key)
        if known is None:
            known = len(self._content)
            if known >= self.rows.shape[0]:
                if 2 * self.rows.nbytes > self.limits.max_state_bytes:
                    raise LimitExceededError(
                        f"the grammar's lexemes would take {2 * self.rows.nbytes:,} bytes (Limits.max_state_bytes)",
                        given=2 * self.rows.nbytes,
                        limit=self.limits.max_state_bytes,
                    )
                larger = np.zeros((2 * self.rows.shape[0], kernel.WIDTH), dtype=np.int32)
                larger[: self.rows.shape[0]] = self.rows
                self.rows = larger
            self._numbers[key] = known
            self._content.append(key)
            self.rows[known, :256] = kernel.UNKNOWN
            newline = any(terminal == self.newline for terminal, _ in ends)
            newline |= lexeme is not None and self.newline in self.machine.dfa.terminals_of(lexeme.state)
            self.rows[known, 256:] = 0
            self.rows[known, kernel.NEWLINE] = newline and self.newline >= 0
        return known

    def find_parts(self, row: int) -> None:
        """Enter what the lexeme of a row is if it ends here, and if it does not."""
        lexer, lexeme, ends = self._content[row]
        longer = 0 if lexeme is None else self._row(lexer, lexeme, ()) if ends else row
        values = [longer, len(ends)]
        if row == self.first:  # nothing was read: the text may end, but no lexeme does
            values = [row, 1, -1 - lexer, -1, 1]
        for terminal, behind in ends:
            last = self.machine.dfa.hold_at_end(behind.obligations)
            values += (-1 - lexer if terminal == IGNORED else terminal, self.boundary_number(behind), last)
        self.rows[row, kernel.PARTS] = self._add(tuple(values))

    def may_begin(self, terminal: int) -> NDArray[np.bool_]:
        """(256,) bool: False: certainly no byte like this begins something behind a terminal, or a variant."""
        known = self._begins.get(terminal)
        if known is None:
            grammar = self.machine.grammar
            lexers = {lexer for lexer, _ in self.behind(terminal)}
            if terminal == self.newline:
                lexers = set(range(len(grammar.lexers)))
            known = self._begins[terminal] = np.zeros(256, dtype=np.bool_)
            for k in {k for lexer in lexers for k in grammar.lexers[lexer].order}:
                known |= self._first_bytes(k)
        return known

    def behind(self, terminal: int) -> set[tuple[int, int]]:
        """What a terminal, or a variant, may be, each with a lexer that may read what comes behind it."""
        every: tuple[int, ...] = (terminal,)
        if terminal >= VARIANT:
            base, equal = self.machine.variants[terminal - VARIANT]
            every = (base, *equal)
        return {(lexer, t) for t in every for lexer in self.separation.lexers_behind(t)}

    def _first_bytes(self, terminal: int) -> NDArray[np.bool_]:
        known = self._firsts.get(terminal)
        if known is None:
            known = np.zeros(256, dtype=np.bool_)
            for klass in self.machine.dfa.first_classes(terminal):
                known[self._bytes[klass]] = True
            self._firsts[terminal] = known
        return known

    def fill(self, row: int) -> None:
        """Enter what bytes lead to."""
        lexer, lexeme, ends = self._content[row]
        dfa = self.machine.dfa
        states: list[int] = []
        lexemes = [] if lexeme is None else [lexeme]
        for terminal, behind in ends:
            states += behind.obligations
            if terminal == IGNORED:
                lexemes.append(self.machine.start(lexer, behind))
        for one in lexemes:
            states += (one.state, *one.obligations, *(state for _, state in one.keywords))
        *alike, nothing = dfa.alike(states)
        targets = np.full(dfa.n_classes, kernel.DEAD, dtype=np.int32)
        for classes in [*alike, nothing] if ends else alike:
            if classes:
                targets[classes] = self._target(row, dfa.byte_of[classes[0]])
        self.rows[row, :256] = targets[self._class_of]

    def _target(self, row: int, byte: int) -> int:
        """The row, or minus the place of the event, that a byte leads to."""
        lexer, lexeme, ends = self._content[row]
        machine = self.machine
        rows: dict[int, None] = {}
        commits: list[int] = []

        def enter(lexer: int, lexeme: Lexeme) -> None:
            longer, behind = machine.step(lexeme, byte)
            if behind and not longer:
                rows[self._row(lexer, None, behind)] = None
            for k, one in enumerate(longer):
                rows[self._row(lexer, one, () if k else behind)] = None

        if lexeme is not None:
            enter(lexer, lexeme)
        for terminal, boundary in ends:
            if not machine.dfa.after_byte(boundary.obligations, byte):
                continue
            if terminal == IGNORED:
                enter(lexer, machine.start(lexer, boundary))
            else:
                commits += (terminal, self.boundary_number(boundary))
        if not commits and len(rows) < 2:
            return next(iter(rows), kernel.DEAD)
        return -self._event((len(rows), *rows, len(commits) // 2, *commits))

    def _event(self, event: tuple[int, ...]) -> int:
        known = self._events.get(event)
        if known is None:
            known = self._events[event] = self._add(event)
        return known

    def _add(self, values: tuple[int, ...]) -> int:
        at = self._n_pool
        self._n_pool += len(values)
        if self._n_pool > self.pool.shape[0]:
            larger = np.zeros(2 * self._n_pool, dtype=np.int32)
            larger[:at] = self.pool[:at]
            self.pool = larger
        self.pool[at : self._n_pool] = values
        return at

    # -- what a lexeme can become -----------------------------------------------------------------------------------

    def find_endings(self, row: int) -> None:
        """Enter all terminals that the row's lexeme can become."""
        self._endings.find(row)

    def following(self, row: int) -> list[int]:
        """The rows that bytes lead to."""
        if (self.rows[row, :256] == kernel.UNKNOWN).any():
            self.fill(row)
        following: dict[int, None] = {}
        for target in dict.fromkeys(self.rows[row, :256].tolist()):
            if target > 0:
                following[target] = None
            elif target < 0:
                n = int(self.pool[-target])
                following.update(dict.fromkeys(self.pool[1 - target : 1 - target + n].tolist()))
        return list(following)

    def set_endings(self, terminals: Set[int], rows: Sequence[int]) -> int:
        """Enter what the lexemes of some rows can become; returns where that is."""
        every = {kernel.ANY} if kernel.ANY in terminals else terminals
        endings = self._event((len(every), *sorted(every, key=lambda t: (t == kernel.ENTANGLED, t))))
        self.rows[rows, kernel.ENDINGS] = endings
        return endings

    def endings(self, row: int) -> list[int]:
        """What is entered; nothing if that is unknown."""
        at = int(self.rows[row, kernel.ENDINGS])
        found: list[int] = self.pool[at + 1 : at + 1 + self.pool[at]].tolist() if at else []
        return found

    def fill_hole(self, status: int, a: int, b: int) -> None:
        """Fill what the kernel has asked for."""
        if status == kernel.HOLE_ROW:
            self.fill(a)
        elif status == kernel.HOLE_START:
            self.start(a, b)
        elif status == kernel.IS_ENTANGLED:
            raise EntangledError
        elif status == kernel.HOLE_PARTS:
            self.find_parts(a)
        else:
            self.find_endings(a)


def tables_of(machine: LexedMachine) -> NDArray[np.int32]:
    """The LALR automaton as the kernel has it."""
    grammar, indentation = machine.grammar, machine.indentation
    tables = grammar.tables
    assert tables is not None
    n_states, n_terminals, n_lexers = len(tables.actions), len(grammar.terminals), len(grammar.lexers)
    n_variants = len(machine.variants)
    actions = np.zeros((n_states, n_terminals + 1), dtype=np.int32)
    gotos = np.full((n_states, len(grammar.nonterminals)), -1, dtype=np.int32)
    for state, row in enumerate(tables.actions):
        for terminal, action in row.items():
            actions[state, terminal] = action + 1 if action >= 0 else action  # END is -1: the last column
        for nonterminal, target in tables.gotos[state].items():
            gotos[state, nonterminal] = target
    rules = np.array([(rule.origin, len(rule.symbols)) for rule in grammar.rules], dtype=np.int32)
    kinds = np.zeros(n_terminals, dtype=np.int32)
    if indentation is not None:
        kinds[sorted(indentation.opening)] = kernel.OPENS
        kinds[sorted(indentation.closing)] = kernel.CLOSES
        kinds[indentation.newline] = kernel.NEWLINE_TOKEN
    resolve = [[machine.resolve(lexer, VARIANT + k) for k in range(n_variants)] for lexer in range(n_lexers)]
    parts = [actions, gotos, rules, np.array(tables.lexer), kinds, np.array(resolve)]
    header = np.zeros(kernel.L_SIZE, dtype=np.int32)
    header[:5] = n_states, n_terminals + 1, len(grammar.nonterminals), n_lexers, n_variants
    header[5:] = np.cumsum([kernel.L_SIZE, *(part.size for part in parts[:-1])])
    return np.concatenate([header, *(part.ravel() for part in parts)]).astype(np.int32)
