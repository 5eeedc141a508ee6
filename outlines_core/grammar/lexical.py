"""Lexemes as rows of one table, for the kernel.

A row is a lexeme that is being read and what it may be if it ends here. Rows, and their entries byte class by byte
class, are made as they are visited. `kernels.grammar` says what the arrays mean.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.worlds import IGNORED, Boundary, LexedMachine, Lexeme
from outlines_core.kernels import grammar as kernel
from outlines_core.limits import Limits

__all__ = ["Lexical"]

_MOST_SEARCHED: Final = 20_000
_TOO_ENTANGLED: Final = "whether the text can go on here depends on what lexemes exclude behind them"
Ends = tuple[tuple[int, Boundary], ...]


class Lexical:
    """The rows of a machine's lexemes.

    Attributes:
        rows, pool, starts: as the kernel has them; replaced when they grow.
    """

    def __init__(self, machine: LexedMachine, separation: Separation, limits: Limits) -> None:
        self.machine, self.separation, self.limits = machine, separation, limits
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
        self._parts: dict[int, tuple[int, list[tuple[int, int]]]] = {}
        classes = np.array(machine.dfa.class_of)
        self._bytes = [np.flatnonzero(classes == k) for k in range(machine.dfa.n_classes)]
        self.newline = separation.newline

    @property
    def nbytes(self) -> int:
        return int(self.rows.nbytes + self.pool.nbytes + self.starts.nbytes) + 600 * len(self._content)

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
        if lexeme is not None:
            matters = bool(lexeme.keywords) or bool(self.machine.dfa.terminals_of(lexeme.state) & ignored)
            lexeme = lexeme._replace(lexer=lexer if matters else -1)
            if not matters and all(terminal != IGNORED for terminal, _ in ends):
                lexer = -1
        elif all(terminal != IGNORED for terminal, _ in ends):
            lexer = -1
        key = lexer, lexeme, ends
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self._content)
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
            self._content.append(key)
            self.rows[known, :256] = kernel.UNKNOWN
            newline = any(terminal == self.newline for terminal, _ in ends)
            newline |= lexeme is not None and self.newline in self.machine.dfa.terminals_of(lexeme.state)
            self.rows[known, 256:] = (kernel.UNKNOWN_WITNESS, 0, newline and self.newline >= 0, 0)
        return known

    def ends(self, row: int) -> Ends:
        """What the lexeme of a row may be if it ends here."""
        return self._content[row][2]

    def parts(self, row: int) -> tuple[int, list[tuple[int, int]]]:
        """The row of the lexeme as if it did not end here (0: it must), and the (terminal, boundary) if it does.

        Something ignored is its negative lexer and boundary: ``-1 - lexer``.
        """
        known = self._parts.get(row)
        if known is None:
            lexer, lexeme, ends = self._content[row]
            longer = 0 if lexeme is None else self._row(lexer, lexeme, ()) if ends else row
            pairs = [(-1 - lexer if t == IGNORED else t, self.boundary_number(b)) for t, b in ends]
            known = self._parts[row] = longer, pairs
        return known

    def may_begin(self, row: int) -> NDArray[np.bool_]:
        """(256,) bool: False: certainly no byte like this begins something behind the lexeme of a row.

        Where a byte leads to several rows (what must hold behind it can hold in several ways), it may.
        """
        found = np.zeros(256, dtype=np.bool_)
        targets = self.rows[row, :256]
        events = np.flatnonzero((targets < 0) & (targets != kernel.UNKNOWN))
        found[events] = self.pool[-targets[events]] > 1
        for terminal, _ in self._content[row][2]:
            if terminal == IGNORED:
                found[:] = True
                continue
            known = self._begins.get(terminal)
            if known is None:
                lexers = self.separation.lexers_behind(terminal)
                if terminal == self.newline:
                    lexers = set(range(len(self.machine.grammar.lexers)))
                known = self._begins[terminal] = np.zeros(256, dtype=np.bool_)
                for k in {k for lexer in lexers for k in self.machine.grammar.lexers[lexer].order}:
                    known |= self._first_bytes(k)
            found |= known
        return found

    def _first_bytes(self, terminal: int) -> NDArray[np.bool_]:
        known = self._firsts.get(terminal)
        if known is None:
            known = np.zeros(256, dtype=np.bool_)
            for klass in self.machine.dfa.first_classes(terminal):
                known[self._bytes[klass]] = True
            self._firsts[terminal] = known
        return known

    def fill(self, row: int, byte: int) -> None:
        """Enter what a byte, and those of its class, lead to."""
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
            target = next(iter(rows), kernel.DEAD)
        else:
            target = -self._event((len(rows), *rows, len(commits) // 2, *commits))
        self.rows[row, self._bytes[machine.dfa.class_of[byte]]] = target

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

    def _terminals(self, row: int) -> list[int]:
        """What the row's lexeme may be if it ends here and the parser can be satisfied then."""
        lexer, _, ends = self._content[row]
        separation, n = self.separation, len(self.machine.grammar.terminals)
        found = []
        for terminal, boundary in ends:
            behind = {lexer} if terminal == IGNORED else separation.lexers_behind(terminal)
            if all(separation.is_good(k, boundary, terminal) for k in behind):
                if terminal == IGNORED:
                    return [kernel.ANY]
                found.append(terminal)
            elif terminal == self.newline:
                continue  # it may become longer, and is good then
            elif terminal == IGNORED or all(separation.is_blocked(k, boundary) for k in behind):
                if self.machine.dfa.hold_at_end(boundary.obligations):  # what else is behind it belongs to the row
                    found.append(n if terminal == IGNORED else n + 1 + terminal)
            else:
                raise LimitExceededError(_TOO_ENTANGLED, given=1, limit=0)
        return found

    def _following(self, row: int) -> list[int]:
        following: dict[int, None] = {}
        for byte in self.machine.dfa.byte_of:
            target = int(self.rows[row, byte])
            if target == kernel.UNKNOWN:
                self.fill(row, byte)
                target = int(self.rows[row, byte])
            if target > 0:
                following[target] = None
            elif target < 0:
                n = int(self.pool[-target])
                following.update(dict.fromkeys(self.pool[1 - target : 1 - target + n].tolist()))
        return list(following)

    def find_witness(self, row: int) -> int:
        """Enter a terminal that the row's lexeme can become: a nearest one."""
        before: dict[int, int] = {row: 0}
        queue = deque([row])
        witness = kernel.NONE
        while queue:
            at = queue.popleft()
            known = int(self.rows[at, kernel.WITNESS])
            if known == kernel.NONE:
                continue
            if known == kernel.UNKNOWN_WITNESS:
                known = next(iter(self._terminals(at)), kernel.UNKNOWN_WITNESS)
            if known != kernel.UNKNOWN_WITNESS:
                witness = known
                while at != 0:
                    self.rows[at, kernel.WITNESS] = known
                    at = before[at]
                break
            for following in self._following(at):
                if following not in before:
                    before[following] = at
                    queue.append(following)
            self._check_search(len(before))
        self.rows[row, kernel.WITNESS] = witness
        return witness

    def find_endings(self, row: int) -> None:
        """Enter all terminals that the row's lexeme can become."""
        seen = {row}
        todo = [row]
        found: dict[int, None] = {}
        while todo:
            at = todo.pop()
            found.update(dict.fromkeys(self._terminals(at)))
            if kernel.ANY in found:
                found = {kernel.ANY: None}
                break
            for following in self._following(at):
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
            self._check_search(len(seen))
        self.rows[row, kernel.ENDINGS] = self._add((len(found), *found))

    @staticmethod
    def _check_search(n: int) -> None:
        if n > _MOST_SEARCHED:
            raise LimitExceededError("the grammar's terminals have too many states", given=n, limit=_MOST_SEARCHED)

    def fill_hole(self, status: int, a: int, b: int) -> None:
        """Fill what the kernel has asked for."""
        if status == kernel.HOLE_ROW:
            self.fill(a, b)
        elif status == kernel.HOLE_START:
            self.start(a, b)
        elif status == kernel.HOLE_WITNESS:
            self.find_witness(a)
        else:
            self.find_endings(a)


def tables_of(machine: LexedMachine) -> tuple[NDArray[Any], ...]:
    """The LALR automaton as the kernel has it."""
    grammar, indentation = machine.grammar, machine.indentation
    tables = grammar.tables
    assert tables is not None
    n_states, n_terminals = len(tables.actions), len(grammar.terminals)
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
    units = np.zeros((1 << 16, 2), dtype=np.int64)
    return actions, gotos, rules, np.array(tables.lexer, dtype=np.int32), kinds, units
