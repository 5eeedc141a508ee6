"""A parser with a lexer before it, byte by byte: which texts are read how, and where they may end.

A configuration is a set of *worlds*: the lexeme that is being read, the parser's stack before it, obligations on what
follows. Where a lexeme may end, one world goes on behind it and another one within it; obligations see to it that at
most one of them comes to the end of the text. What is read is thus decided exactly as Lark's lexers do, although they
may look arbitrarily far ahead.

Indentation is part of a world: the columns of the open blocks, the open brackets, and in a lexeme the column so far.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.grammar.indentation import FLAT, Indentation, Indents
from outlines_core.grammar.loading import END, Grammar
from outlines_core.grammar.ordered import NOTHING, Obligations, OrderedDfa, check_search, is_consistent
from outlines_core.grammar.pruning import pruned
from outlines_core.grammar.rows import Rows
from outlines_core.grammar.stacks import Stacks

__all__ = ["IGNORED", "Boundary", "Keywords", "LexedMachine", "Lexeme", "World"]

IGNORED: Final = -2
"""Stands for an ignored terminal where terminals are numbered."""
Keywords = tuple[tuple[int, int], ...]
"""(terminal, its state): texts that what is read may be equal to."""
NO_COLUMN: Final = -1


class Boundary(NamedTuple):
    """Between two lexemes: what the look-behinds have seen, and what must hold from here on."""

    past: int
    obligations: Obligations


class Lexeme(NamedTuple):
    """A lexeme that is being read.

    Attributes:
        lexer: the lexer that reads it.
        state: of the ordered DFA; 0: it cannot be longer.
        obligations: what must hold from here on.
        keywords: the texts that it may be retyped to.
    """

    lexer: int
    state: int
    obligations: Obligations
    keywords: Keywords


class World(NamedTuple):
    """One way to read the text so far.  `boundary` is set where no byte of the next lexeme was read."""

    lexeme: Lexeme
    stack: int
    indents: Indents
    column: int
    boundary: Boundary | None


class LexedMachine:
    """What configurations become byte by byte.

    Attributes:
        grammar: one whose LALR table has only actions on what lexers read.

    Args:
        grammar: one with lexers.
        dfa: of all its terminals.
        stacks: the parser: of a LALR table, or Earley's, which has rows in place of stacks.
        indentation: None if there is no indenter.
    """

    def __init__(
        self, grammar: Grammar, dfa: OrderedDfa, stacks: Stacks | Rows, indentation: Indentation | None = None
    ) -> None:
        self.grammar = pruned(grammar, dfa, indentation)
        self.dfa, self.stacks, self.indentation = dfa, stacks, indentation
        self._retyping = [sorted({k for texts in lexer.retyped.values() for k in texts}) for lexer in grammar.lexers]
        self._starts: dict[tuple[int, Boundary], Lexeme] = {}
        self._steps: dict[tuple[Lexeme, int], Any] = {}
        self._endings: dict[Lexeme, frozenset[tuple[int, Boundary]]] = {}
        first = self.world(self.stacks.root, FLAT, Boundary(dfa.beginning, NOTHING))
        self.first = frozenset((first,))

    def byte_class(self) -> NDArray[np.uint8]:
        """Bytes of a class are never told apart."""
        classes = [(klass, -1) for klass in self.dfa.class_of]
        if self.indentation is not None:
            for byte in (0x09, 0x0A, 0x20):
                classes[byte] = (classes[byte][0], byte)
        numbers: dict[tuple[int, int], int] = {}
        return np.array([numbers.setdefault(key, len(numbers)) for key in classes], dtype=np.uint8)

    # -- lexemes ----------------------------------------------------------------------------------------------------

    def start(self, lexer: int, boundary: Boundary) -> Lexeme:
        """Before the first byte of a lexeme."""
        key = lexer, boundary
        known = self._starts.get(key)
        if known is None:
            past, obligations = boundary
            state = self.dfa.start(self.grammar.lexers[lexer].order, past)
            keywords = tuple((k, self.dfa.start((k,), past)) for k in self._retyping[lexer])
            known = self._starts[key] = Lexeme(lexer, state, obligations, keywords)
        return known

    def step(self, lexeme: Lexeme, byte: int) -> tuple[tuple[Lexeme, ...], tuple[tuple[int, Boundary], ...]]:
        """How a lexeme goes on after a byte, and what it may be if it ends there: (terminal or IGNORED, boundary)."""
        key = lexeme, self.dfa.class_of[byte]
        known = self._steps.get(key)
        if known is None:
            known = self._steps[key] = self._step(lexeme, byte)
        found: tuple[tuple[Lexeme, ...], tuple[tuple[int, Boundary], ...]] = known
        return found

    def _step(self, lexeme: Lexeme, byte: int) -> tuple[tuple[Lexeme, ...], tuple[tuple[int, Boundary], ...]]:
        dfa = self.dfa
        retyped = self.grammar.lexers[lexeme.lexer].retyped if lexeme.keywords else {}
        if not lexeme.state:
            return (), ()
        state, matches = dfa.step(lexeme.state, byte)
        if not state and not matches:
            return (), ()
        equal = set()
        keywords = []
        for k, at in lexeme.keywords:
            following, found = dfa.step(at, byte)
            if found:
                equal.add(k)
            if following:
                keywords.append((k, following))
        past = dfa.past_after(dfa.past_of(lexeme.state), byte)
        longer, ends = [], []
        for held in dfa.after_byte(lexeme.obligations, byte):
            if state:
                longer.append(Lexeme(lexeme.lexer, state, held, tuple(keywords)))
            for match in matches:
                both = held | match.obligations
                if not is_consistent(both):
                    continue
                terminal = match.terminal
                if terminal in self.grammar.ignored:  # decided before its type may change
                    terminal = IGNORED
                else:
                    terminal = next((k for k in retyped.get(terminal, ()) if k in equal), terminal)
                ends.append((terminal, Boundary(past, both)))
        return tuple(longer), tuple(ends)

    def endings(self, lexeme: Lexeme) -> frozenset[tuple[int, Boundary]]:
        """The terminals (or IGNORED) that a lexeme can become, each with the boundary behind it."""
        known = self._endings.get(lexeme)
        if known is not None:
            return known
        found: set[tuple[int, Boundary]] = set()
        seen = {lexeme}
        todo = [lexeme]
        while todo:
            at = todo.pop()
            check_search(len(seen), self.dfa.n_classes)
            for byte in self.dfa.byte_of:
                longer, ends = self.step(at, byte)
                found.update(ends)
                for one in longer:
                    if one not in seen:
                        seen.add(one)
                        todo.append(one)
        known = self._endings[lexeme] = frozenset(found)
        return known

    # -- worlds -----------------------------------------------------------------------------------------------------

    def world(self, stack: int, indents: Indents, boundary: Boundary) -> World:
        return World(self.start(self.stacks.lexer(stack), boundary), stack, indents, NO_COLUMN, boundary)

    def after(self, world: World, terminal: int, column: int) -> tuple[int, Indents] | None:
        """Stack and indents after a terminal; `column`: that in which its text ends, if it has a newline."""
        if terminal == IGNORED:
            return world.stack, world.indents
        if self.indentation is None:
            stack = self.stacks.after(world.stack, terminal)
            return None if stack is None else (stack, FLAT)
        return self.indentation.after(self.stacks, world.stack, world.indents, terminal, column)

    def step_worlds(self, worlds: frozenset[World], byte: int) -> frozenset[World]:
        """The worlds after one more byte, dead ones included."""
        out: set[World] = set()
        for world in worlds:
            longer, ends = self.step(world.lexeme, byte)
            if not longer and not ends:
                continue
            column = world.column if self.indentation is None else self.indentation.column(world.column, byte)
            for lexeme in longer:
                out.add(World(lexeme, world.stack, world.indents, column, None))
            for terminal, boundary in ends:
                after = self.after(world, terminal, column)
                if after is not None:
                    out.add(self.world(*after, boundary))
        return frozenset(out)

    def accepts(self, worlds: frozenset[World]) -> bool:
        """May the text end here?"""
        return any(self._ends(world) for world in worlds)

    def _ends(self, world: World) -> bool:
        if world.boundary is None or not self.dfa.hold_at_end(world.boundary.obligations):
            return False
        if self.indentation is None:
            return self.stacks.after(world.stack, END) is not None
        return self.indentation.ends(self.stacks, world.stack, world.indents)
