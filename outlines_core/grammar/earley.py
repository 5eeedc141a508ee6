"""Earley with the lexers that the parser drives: Lark's dynamic ones, and none at all.

At each place every terminal that some item waits for is looked for by itself. "dynamic": a terminal ends where `re`
finds its end, which may depend on what follows (an obligation). "dynamic_complete": and, within what `re` finds, where
it finds an end in a shorter text. "scannerless": wherever it can end.

A configuration is a set of worlds: a place between terminals, or a terminal that is being read since some row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.grammar.loading import Grammar
from outlines_core.grammar.ordered import NOTHING, Obligations, OrderedDfa, check_search, is_consistent
from outlines_core.grammar.row_liveness import RowLiveness
from outlines_core.grammar.rows import Item, Rows
from outlines_core.grammar.spelling import BETWEEN, Spelling

__all__ = ["EarleyRecogniser"]

_IGNORED: Final = -2
Open = tuple[tuple[Obligations, int], ...]


class Boundary(NamedTuple):
    """Between two terminals.

    Attributes:
        past: what the look-behinds have seen.
        obligations: what must hold from here on.
        open: matches in a shorter text, which has not ended yet: (what must hold when it ends, the state of the
            terminal in the whole text, which must match behind that end).
        node: of a `Spelling`, where it matters what tokens there are.
    """

    past: int
    obligations: Obligations
    open: Open
    node: int = BETWEEN


class Reading(NamedTuple):
    """A terminal that is being read.

    Attributes:
        terminal: its number.
        state: of the ordered DFA; 0: it cannot be longer.
        alone: the state in a text that begins with the terminal; 0 if that is of no interest.
        obligations, open, node: as in `Boundary`.
    """

    terminal: int
    state: int
    alone: int
    obligations: Obligations
    open: Open
    node: int = BETWEEN


class EarleyRecogniser:
    """A `Recogniser` over Earley rows.

    Args:
        grammar: its rules and ignored terminals are used.
        dfa: of all terminals; for "scannerless" one that does not cut.
        lexer: "dynamic", "dynamic_complete" or "scannerless".
        spelling: of the texts that count; None: all of them.
        rows: those of another recogniser of the grammar.
    """

    weight = 10

    def __init__(
        self,
        grammar: Grammar,
        dfa: OrderedDfa,
        lexer: str,
        *,
        spelling: Spelling | None = None,
        rows: Rows | None = None,
    ) -> None:
        self.grammar, self.dfa, self._lexer, self._spelling = grammar, dfa, lexer, spelling
        self._is_complete = lexer == "dynamic_complete"
        self.rows = rows or Rows(grammar.rules, len(grammar.nonterminals), grammar.start)
        self._ignored = sorted(grammar.ignored)
        self._steps: dict[tuple[Reading, int], Any] = {}
        self._reads: dict[tuple[int, Boundary, bool], frozenset[Boundary]] = {}
        self._liveness = RowLiveness(
            self.rows,
            self._read,
            lambda b: {behind for terminal in self._ignored for behind in self._read(terminal, b, ignored=True)},
            lambda b: not b.open and b.node == BETWEEN and dfa.hold_at_end(b.obligations),
        )
        self._live: dict[Any, bool] = {}
        first = (self.rows.root, Boundary(dfa.beginning, NOTHING, ()))
        self.initial = frozenset((first,)) if self._liveness.row_live(*first) else None

    # -- terminals --------------------------------------------------------------------------------------------------

    def _begin(self, terminal: int, boundary: Boundary, *, ignored: bool = False) -> Reading:
        state = self.dfa.start((terminal,), boundary.past)
        alone = self.dfa.start((terminal,), self.dfa.beginning) if self._is_complete and not ignored else 0
        number = _IGNORED if ignored else terminal
        return Reading(number, state, alone, boundary.obligations, boundary.open, boundary.node)

    def _step(self, reading: Reading, byte: int) -> tuple[tuple[Reading, ...], tuple[Boundary, ...]]:
        """How a terminal goes on after a byte, and the boundaries if it ends there."""
        key = reading, self.dfa.class_of[byte]
        known = self._steps.get(key)
        if known is None:
            known = self._stepped(reading, byte)
            if self._spelling is not None:
                nodes = self._spelling.after(reading.node, key[1])
                known = tuple(tuple(one._replace(node=node) for one in some for node in nodes) for some in known)
            self._steps[key] = known
        found: tuple[tuple[Reading, ...], tuple[Boundary, ...]] = known
        return found

    def _stepped(self, reading: Reading, byte: int) -> tuple[tuple[Reading, ...], tuple[Boundary, ...]]:
        dfa = self.dfa
        state, matches = dfa.step(reading.state, byte) if reading.state else (0, ())
        if not state and not matches:
            return (), ()
        alone, shorter = dfa.step(reading.alone, byte) if reading.alone else (0, ())
        past = dfa.past_after(dfa.past_of(reading.state), byte)
        longer: dict[Reading, None] = {}
        ends: dict[Boundary, None] = {}
        for held, unsettled in self._after_byte(reading.obligations, reading.open, byte):
            if state:
                longer[Reading(reading.terminal, state, alone, held, unsettled)] = None
            for match in matches:
                both = held | match.obligations
                if is_consistent(both):
                    ends[Boundary(past, both, unsettled)] = None
            for match in shorter if state else ():
                if dfa.hold_at_end(match.obligations):
                    if is_consistent(held | {state}):
                        ends[Boundary(past, held | {state}, unsettled)] = None
                elif any(x > 0 for x in match.obligations):
                    ends[Boundary(past, held, tuple(sorted({*unsettled, (match.obligations, state)}, key=repr)))] = None
        return tuple(longer), tuple(ends)

    def _after_byte(self, obligations: Obligations, unsettled: Open, byte: int) -> list[tuple[Obligations, Open]]:
        """Alternatives of what is left to hold after a byte."""
        found: list[tuple[Obligations, Open]] = [(held, ()) for held in self.dfa.after_byte(obligations, byte)]
        for inner, state in unsettled:
            found = [
                one
                for held, others in found
                for one in self._one_settled(held, others, self.dfa.after_byte(inner, byte), state, byte)
            ]
        return list(dict.fromkeys(found))

    def _one_settled(
        self, held: Obligations, others: Open, inner: list[Obligations], state: int, byte: int
    ) -> list[tuple[Obligations, Open]]:
        """The shorter text may end here, if the whole terminal goes on, or later."""
        following, _ = self.dfa.step(state, byte)
        if not following:
            return []
        found: list[tuple[Obligations, Open]] = []
        for way in inner:
            if self.dfa.hold_at_end(way) and is_consistent(held | {following}):
                found.append((held | {following}, others))
            if any(x > 0 for x in way) or not self.dfa.hold_at_end(way):
                found.append((held, tuple(sorted({*others, (way, following)}, key=repr))))
        return found

    def _read(self, terminal: int, boundary: Boundary, *, ignored: bool = False) -> frozenset[Boundary]:
        """The boundaries to which a terminal reads."""
        key = terminal, boundary, ignored
        known = self._reads.get(key)
        if known is None:
            known = self._reads[key] = self._ends_of(self._begin(terminal, boundary, ignored=ignored))
        return known

    def _ends_of(self, reading: Reading) -> frozenset[Boundary]:
        found: set[Boundary] = set()
        seen = {reading}
        todo = [reading]
        while todo:
            at = todo.pop()
            check_search(len(seen), self.dfa.n_classes)
            for byte in self.dfa.byte_of:
                longer, ends = self._step(at, byte)
                found.update(ends)
                for one in longer:
                    if one not in seen:
                        seen.add(one)
                        todo.append(one)
        return frozenset(found)

    # -- configurations ---------------------------------------------------------------------------------------------

    def after(self, configuration: frozenset[Any], byte: int) -> frozenset[Any] | None:
        out: set[Any] = set()
        kernels: dict[Boundary, set[Item]] = {}
        kept: dict[Boundary, set[int]] = {}
        for row, what in configuration:
            if isinstance(what, Boundary):
                readings = [self._begin(terminal, what) for terminal in self.rows.terminals(row)]
                readings += [self._begin(terminal, what, ignored=True) for terminal in self._ignored]
            else:
                readings = [what]
            for reading in readings:
                longer, ends = self._step(reading, byte)
                out.update((row, one) for one in longer)
                for boundary in ends:
                    if reading.terminal == _IGNORED:
                        kept.setdefault(boundary, set()).add(row)
                    else:
                        kernels.setdefault(boundary, set()).update(self.rows.over(row, reading.terminal))
        for boundary in {**kernels, **kept}:
            kernel, rows = kernels.get(boundary, set()), kept.get(boundary, set())
            if not kernel and len(rows) == 1:
                out.add((next(iter(rows)), boundary))
                continue
            for row in rows:
                kernel.update(self.rows.carried(row))
            out.add((self.rows.row(frozenset(kernel)), boundary))
        live = frozenset(world for world in out if self._is_live(world))
        return live or None

    def _is_live(self, world: Any) -> bool:
        known = self._live.get(world)
        if known is None:
            row, what = world
            if isinstance(what, Boundary):
                known = self._liveness.row_live(row, what)
            elif what.terminal == _IGNORED:
                known = any(self._liveness.row_live(row, end) for end in self._ends_of(what))
            else:
                known = any(self._liveness.terminal_live(row, what.terminal, end) for end in self._ends_of(what))
            self._live[world] = known
        return known

    def accepts(self, configuration: frozenset[Any]) -> bool:
        return any(
            isinstance(what, Boundary)
            and not what.open
            and self.rows.accepting[row]
            and self.dfa.hold_at_end(what.obligations)
            for row, what in configuration
        )

    def spelled(self, trie: Any) -> Callable[[frozenset[Any]], bool]:
        """See `configurations.Recogniser`."""
        spelling = Spelling(trie, self.dfa.class_of)
        alike = EarleyRecogniser(self.grammar, self.dfa, self._lexer, spelling=spelling, rows=self.rows)
        return lambda configuration: any(map(alike._is_live, configuration))

    def byte_class(self) -> NDArray[np.uint8]:
        return np.array(self.dfa.class_of, dtype=np.uint8)
