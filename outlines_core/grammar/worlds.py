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
from outlines_core.grammar.postlex import PostLexing
from outlines_core.grammar.pruning import pruned
from outlines_core.grammar.rows import Rows
from outlines_core.grammar.spelling import BETWEEN, Spelling
from outlines_core.grammar.stacks import Stacks

__all__ = ["IGNORED", "VARIANT", "Boundary", "Keywords", "LexedMachine", "Lexeme", "World"]

IGNORED: Final = -2
"""Stands for an ignored terminal where terminals are numbered."""
Keywords = tuple[tuple[int, int], ...]
"""(terminal, its state): texts that what is read may be equal to."""
VARIANT: Final = 1 << 16
"""From here on: a terminal that is equal to some keywords; the lexer says which of them it becomes."""
NO_COLUMN: Final = -1


class Boundary(NamedTuple):
    """Between two lexemes: what the look-behinds have seen, and what must hold from here on.

    `node`: of a `Spelling`, where it matters what tokens there are.
    """

    past: int
    obligations: Obligations
    node: int = BETWEEN


class Lexeme(NamedTuple):
    """A lexeme that is being read.

    Attributes:
        state: of the ordered DFA; 0: it cannot be longer.
        obligations: what must hold from here on.
        keywords: the texts that it may be retyped to by one lexer or another.
        node: as in `Boundary`.
    """

    state: int
    obligations: Obligations
    keywords: Keywords
    node: int = BETWEEN


class World(NamedTuple):
    """One way to read the text so far.  `boundary` is set where no byte of the next lexeme was read.

    Attributes:
        indents: with another postlex than an indenter: its state.
    """

    lexeme: Lexeme
    stack: int
    indents: Indents | int
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
        postlex: an indenter, another postlex or nothing.
        spelling: of the texts that count; None: all of them. Not with an indenter.
    """

    def __init__(
        self,
        grammar: Grammar,
        dfa: OrderedDfa,
        stacks: Stacks | Rows,
        postlex: Indentation | PostLexing | None = None,
        spelling: Spelling | None = None,
    ) -> None:
        self._spelling = spelling
        self.indentation = postlex if isinstance(postlex, Indentation) else None
        self.postlex = postlex if isinstance(postlex, PostLexing) else None
        self.grammar = grammar if self.postlex is not None else pruned(grammar, dfa, self.indentation)
        self.dfa, self.stacks = dfa, stacks
        self._retyped: dict[int, set[int]] = {}
        self._texts: dict[int, list[int]] = {}
        for lexer in grammar.lexers:
            for base, texts in lexer.retyped.items():
                self._retyped.setdefault(base, set()).update(texts)
        self.variants: list[tuple[int, frozenset[int]]] = []
        self._variant_numbers: dict[tuple[int, frozenset[int]], int] = {}
        self._starts: dict[tuple[int, Boundary], Lexeme] = {}
        self._keyword_steps: dict[tuple[Keywords, int], tuple[Keywords, frozenset[int]]] = {}
        self._steps: dict[tuple[Lexeme, int], Any] = {}
        self._endings: dict[tuple[int, Lexeme], frozenset[tuple[int, Boundary]]] = {}
        initial = FLAT if self.postlex is None else self.postlex.initial
        first = self.world(self.stacks.root, initial, Boundary(dfa.beginning, NOTHING))
        self.first = frozenset((first,))

    def spelled_by(self, spelling: Spelling) -> LexedMachine:
        """The same machine for the texts of a spelling."""
        return LexedMachine(self.grammar, self.dfa, self.stacks, self.postlex, spelling)

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
            past, obligations, node = boundary
            order = self.grammar.lexers[lexer].order
            keywords = tuple((k, self.dfa.start((k,), past)) for k in self._texts_of(lexer))
            known = self._starts[key] = Lexeme(self.dfa.start(order, past), obligations, keywords, node)
        return known

    def _texts_of(self, lexer: int) -> list[int]:
        """The keywords that some lexer retypes to from what this one reads."""
        known = self._texts.get(lexer)
        if known is None:
            found = {k for base in self.grammar.lexers[lexer].order for k in self._retyped.get(base, ())}
            known = self._texts[lexer] = sorted(found)
        return known

    def resolve(self, lexer: int, terminal: int) -> int:
        """What a lexer makes of a terminal that may be a variant."""
        if terminal < VARIANT:
            return terminal
        base, equal = self.variants[terminal - VARIANT]
        return next((k for k in self.grammar.lexers[lexer].retyped.get(base, ()) if k in equal), base)

    def _variant(self, terminal: int, equal: frozenset[int]) -> int:
        key = terminal, equal.intersection(self._retyped.get(terminal, ())) if equal else equal
        if not key[1]:
            return terminal
        known = self._variant_numbers.get(key)
        if known is None:
            known = self._variant_numbers[key] = VARIANT + len(self.variants)
            self.variants.append(key)
        return known

    def step(self, lexeme: Lexeme, byte: int) -> tuple[tuple[Lexeme, ...], tuple[tuple[int, Boundary], ...]]:
        """How a lexeme goes on after a byte, and what it may be if it ends there: (terminal or IGNORED, boundary).

        The terminals may be variants.
        """
        key = lexeme, self.dfa.class_of[byte]
        known = self._steps.get(key)
        if known is None:
            known = self._step(lexeme, byte)
            if self._spelling is not None:
                longer, ends = known
                nodes = self._spelling.after(lexeme.node, key[1])
                known = (
                    tuple(one._replace(node=node) for one in longer for node in nodes),
                    tuple((terminal, b._replace(node=node)) for terminal, b in ends for node in nodes),
                )
            self._steps[key] = known
        found: tuple[tuple[Lexeme, ...], tuple[tuple[int, Boundary], ...]] = known
        return found

    def _step(self, lexeme: Lexeme, byte: int) -> tuple[tuple[Lexeme, ...], tuple[tuple[int, Boundary], ...]]:
        dfa = self.dfa
        if not lexeme.state:
            return (), ()
        state, matches = dfa.step(lexeme.state, byte)
        if not state and not matches:
            return (), ()
        keywords, equal = self._step_keywords(lexeme.keywords, byte)
        past = dfa.past_after(dfa.past_of(lexeme.state), byte)
        longer, ends = [], []
        for held in dfa.after_byte(lexeme.obligations, byte):
            if state:
                longer.append(Lexeme(state, held, keywords))
            for match in matches:
                both = held | match.obligations
                if not is_consistent(both):
                    continue
                is_ignored = match.terminal in self.grammar.ignored  # decided before its type may change
                terminal = IGNORED if is_ignored else self._variant(match.terminal, equal)
                ends.append((terminal, Boundary(past, both)))
        return tuple(longer), tuple(ends)

    def _step_keywords(self, keywords: Keywords, byte: int) -> tuple[Keywords, frozenset[int]]:
        """The keywords that may still come after a byte, and those that end there."""
        key = keywords, self.dfa.class_of[byte]
        known = self._keyword_steps.get(key)
        if known is None:
            steps = [(k, *self.dfa.step(at, byte)) for k, at in keywords]
            longer = tuple((k, following) for k, following, _ in steps if following)
            known = self._keyword_steps[key] = longer, frozenset(k for k, _, found in steps if found)
        return known

    def endings(self, lexer: int, lexeme: Lexeme) -> frozenset[tuple[int, Boundary]]:
        """The terminals (or IGNORED) that a lexeme can become for a lexer, each with the boundary behind it."""
        key = lexer, lexeme
        known = self._endings.get(key)
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
        known = self._endings[key] = frozenset((self.resolve(lexer, terminal), behind) for terminal, behind in found)
        return known

    def may_end(self, boundary: Boundary) -> bool:
        """May the text end at a boundary, as far as the lexer is concerned?"""
        return self.dfa.hold_at_end(boundary.obligations) and boundary.node == BETWEEN

    # -- worlds -----------------------------------------------------------------------------------------------------

    def world(self, stack: int, indents: Indents | int, boundary: Boundary) -> World:
        return World(self.start(self.stacks.lexer(stack), boundary), stack, indents, NO_COLUMN, boundary)

    def after(self, world: World, terminal: int, column: int) -> tuple[int, Indents | int] | None:
        """Stack and indents after a terminal; `column`: that in which its text ends, if it has a newline."""
        if terminal == IGNORED:
            return world.stack, world.indents
        if isinstance(world.indents, int):
            assert self.postlex is not None
            return self.postlex.after(self.stacks, world.stack, world.indents, terminal)
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
            column = NO_COLUMN
            if self.indentation is not None and isinstance(world.indents, Indents) and not world.indents.brackets:
                column = self.indentation.column(world.column, byte)  # within brackets it makes no difference
            for lexeme in longer:
                out.add(World(lexeme, world.stack, world.indents, column, None))
            for terminal, boundary in ends:
                after = self.after(world, self.resolve(self.stacks.lexer(world.stack), terminal), column)
                if after is not None:
                    out.add(self.world(*after, boundary))
        return frozenset(out)

    def accepts(self, worlds: frozenset[World]) -> bool:
        """May the text end here?"""
        return any(self._ends(world) for world in worlds)

    def _ends(self, world: World) -> bool:
        if world.boundary is None or not self.may_end(world.boundary):
            return False
        if isinstance(world.indents, int):
            assert self.postlex is not None
            return self.postlex.ends(self.stacks, world.stack, world.indents)
        if self.indentation is None:
            return self.stacks.after(world.stack, END) is not None
        return self.indentation.ends(self.stacks, world.stack, world.indents)
