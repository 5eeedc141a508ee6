"""Recognisers of grammars whose texts a lexer cuts into terminals: LALR, and Earley over the basic lexer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.grammar.completions import Completions
from outlines_core.grammar.indentation import Indentation
from outlines_core.grammar.liveness import Liveness
from outlines_core.grammar.loading import Grammar
from outlines_core.grammar.ordered import OrderedDfa
from outlines_core.grammar.postlex import PostLexing
from outlines_core.grammar.row_liveness import RowLiveness
from outlines_core.grammar.rows import Rows
from outlines_core.grammar.spelling import Spelling
from outlines_core.grammar.stacks import Stacks
from outlines_core.grammar.worlds import IGNORED, Boundary, LexedMachine, World

__all__ = ["LexedRecogniser"]


class LexedRecogniser:
    """A `Recogniser` whose configurations are sets of live worlds.

    Raises:
        UnsupportedFeatureError: a postlex without LALR.
    """

    weight = 10

    def __init__(self, grammar: Grammar, dfa: OrderedDfa, postlex: Indentation | PostLexing | None = None) -> None:
        self._worlds_live: Liveness | Completions | _RowsLive
        if grammar.tables is not None:
            stacks = Stacks(grammar.tables, grammar.rules)
            self.machine = LexedMachine(grammar, dfa, stacks, postlex)
            self._worlds_live = Liveness(self.machine, stacks)
            if isinstance(postlex, Indentation):
                self._worlds_live = Completions(self.machine, stacks, self._worlds_live.is_live)
        else:
            if postlex is not None:
                raise UnsupportedFeatureError("postlex with Earley: use parser='lalr'", feature="postlex with earley")
            rows = Rows(grammar.rules, len(grammar.nonterminals), grammar.start)
            self.machine = LexedMachine(grammar, dfa, rows)
            self._worlds_live = _RowsLive(self.machine, rows)
        self.initial = self._live(self.machine.first)

    def _live(self, worlds: frozenset[World]) -> frozenset[World] | None:
        live = frozenset(world for world in worlds if self._worlds_live.is_live(world))
        return live or None

    def after(self, configuration: frozenset[World], byte: int) -> frozenset[World] | None:
        return self._live(self.machine.step_worlds(configuration, byte))

    def accepts(self, configuration: frozenset[World]) -> bool:
        return self.machine.accepts(configuration)

    def spelled(self, trie: Any) -> Callable[[frozenset[World]], bool] | None:
        """See `configurations.Recogniser`."""
        machine = self.machine
        if machine.indentation is not None:
            return None
        alike = machine.spelled_by(Spelling(trie, machine.dfa.class_of))
        stacks = machine.stacks
        liveness = Liveness(alike, stacks) if isinstance(stacks, Stacks) else _RowsLive(alike, stacks)
        return lambda configuration: any(map(liveness.is_live, configuration))

    def byte_class(self) -> NDArray[np.uint8]:
        """Bytes of a class are never told apart."""
        return self.machine.byte_class()


class _RowsLive:
    """`Liveness` where the parser is Earley's."""

    def __init__(self, machine: LexedMachine, rows: Rows) -> None:
        self._machine = machine
        self._ends: dict[Boundary, dict[int, list[Boundary]]] = {}
        self._rows = RowLiveness(
            rows,
            lambda terminal, boundary: self._from(boundary).get(terminal, []),
            lambda boundary: self._from(boundary).get(IGNORED, []),
            machine.may_end,
        )
        self._live: dict[World, bool] = {}

    def _from(self, boundary: Boundary) -> dict[int, list[Boundary]]:
        """The boundaries behind each terminal that can come next."""
        known = self._ends.get(boundary)
        if known is None:
            known = self._ends[boundary] = {}
            for terminal, behind in self._machine.endings(0, self._machine.start(0, boundary)):
                known.setdefault(terminal, []).append(behind)
        return known

    def is_live(self, world: World) -> bool:
        """Does some text complete it?"""
        known = self._live.get(world)
        if known is None:
            known = self._live[world] = self._is_live(world)
        return known

    def _is_live(self, world: World) -> bool:
        rows = self._rows
        if world.boundary is not None:
            return rows.row_live(world.stack, world.boundary)
        return any(
            rows.row_live(world.stack, behind)
            if terminal == IGNORED
            else rows.terminal_live(world.stack, terminal, behind)
            for terminal, behind in self._machine.endings(0, world.lexeme)
        )
