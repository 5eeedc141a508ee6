"""Regular languages as values: parse, combine, ask.

A `Language` is an AST plus, once a question is asked, its lazy DFA. The operations only build AST nodes, so combining
costs nothing; intersection and complement are carried out by the look-around machine of `regex.dfa`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal as OneOf

from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import (
    Alternation,
    Atomic,
    Begin,
    CharSet,
    Complement,
    Concat,
    Empty,
    End,
    Intersection,
    Literal,
    Look,
    Node,
    Repeat,
)
from outlines_core.regex.dfa import DEAD, LazyDfa
from outlines_core.regex.look_dfa import make_dfa
from outlines_core.regex.nfa import build_nfa
from outlines_core.regex.parser import parse
from outlines_core.regex.simplify import simplify

__all__ = ["Language", "reversed_node"]


class Language:
    """A set of texts given by an AST.

    >>> words = Language.parse("[a-z]+")
    >>> keywords = Language.parse("if|else")
    >>> identifiers = words - keywords
    >>> identifiers.matches("iff"), identifiers.matches("if")
    (True, False)
    >>> (words & Language.parse(".{4}") - Language.parse(".*[a-y].*")).witness()
    'zzzz'
    >>> (keywords | words).is_equivalent(words)
    True
    """

    def __init__(self, node: Node, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.node, self.limits = node, limits

    @classmethod
    def parse(
        cls,
        pattern: str,
        *,
        dialect: OneOf["python", "ecma", "rust"] = "python",
        flags: int = 0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Language:
        """The texts that a pattern matches from start to end (see `compile_regex` for the dialects and errors)."""
        return cls(parse(pattern, dialect=dialect, flags=flags, limits=limits), limits=limits)

    @classmethod
    def literal(cls, text: str) -> Language:
        return cls(Literal(text) if text else Empty())

    @cached_property
    def dfa(self) -> LazyDfa:
        """The lazy byte DFA."""
        return make_dfa(build_nfa(simplify(self.node), self.limits), self.limits)

    # -- algebra ----------------------------------------------------------------------------------------------------

    def _with(self, node: Node) -> Language:
        return Language(node, limits=self.limits)

    def __or__(self, other: Language) -> Language:
        """Union."""
        return self._with(Alternation((self.node, other.node)))

    def __add__(self, other: Language) -> Language:
        """Concatenation."""
        return self._with(Concat((self.node, other.node)))

    def __and__(self, other: Language) -> Language:
        """Intersection."""
        return self._with(Intersection((self.node, other.node)))

    def __sub__(self, other: Language) -> Language:
        """Difference."""
        return self._with(Intersection((self.node, Complement(other.node))))

    def __invert__(self) -> Language:
        """Complement: all other texts."""
        return self._with(Complement(self.node))

    def repeat(self, least: int = 0, most: int | None = None) -> Language:
        """`least` to `most` members one after the other."""
        if least < 0 or (most is not None and most < least):
            raise ValueError(f"cannot repeat between {least} and {most} times")
        return self._with(Repeat(self.node, least, most))

    def reverse(self) -> Language:
        """The members read backwards (by characters).  Raises ValueError for atomic groups, which have a direction."""
        return self._with(reversed_node(self.node))

    # -- questions --------------------------------------------------------------------------------------------------

    def matches(self, text: str | bytes) -> bool:
        """Is `text` a member?"""
        try:
            return self.dfa.matches(text.encode() if isinstance(text, str) else text)
        except UnicodeEncodeError:  # a lone surrogate: no UTF-8 text
            return False

    def is_empty(self) -> bool:
        """Has it no members?"""
        return self.dfa.start == DEAD

    def witness(self) -> str | None:
        """A shortest member (in UTF-8 bytes), or None."""
        text = self.dfa.shortest(self.dfa.start)
        return None if text is None else text.decode()

    def is_subset_of(self, other: Language) -> bool:
        return (self - other).is_empty()

    def is_equivalent(self, other: Language) -> bool:
        """Have both the same members?"""
        return self.is_subset_of(other) and other.is_subset_of(self)

    def __repr__(self) -> str:
        return f"Language({self.node!r})"


def reversed_node(node: Node) -> Node:
    """The AST of the reversed texts."""
    match node:
        case Literal(text, span):
            return Literal(text[::-1], span)
        case Empty() | CharSet():
            return node
        case Concat(items, span):
            return Concat(tuple(map(reversed_node, reversed(items))), span)
        case Alternation(items, span):
            return Alternation(tuple(map(reversed_node, items)), span)
        case Intersection(items, span):
            return Intersection(tuple(map(reversed_node, items)), span)
        case Complement(item, span):
            return Complement(reversed_node(item), span)
        case Repeat(item, least, most, mode, span):
            return Repeat(reversed_node(item), least, most, mode, span)
        case Look(item, ahead, negative, span):
            return Look(reversed_node(item), not ahead, negative, span)
        case Begin(span):
            return End(span)
        case End(span):
            return Begin(span)
        case Atomic():
            raise ValueError("an atomic group cannot be reversed")
