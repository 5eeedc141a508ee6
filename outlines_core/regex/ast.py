"""The small core language that both regex dialects are parsed into.

A parser does everything that is about *syntax and characters*: flags, classes, case folding, escapes, ``$`` or ``\\b``
written out as look-arounds. What is left are ten kinds of node over sets of code points, each a regular operation.
Groups leave no trace: which group captured what cannot change which texts match (back-references are refused).

Every node carries the `span` (start, end) of the pattern's characters it came from, for error messages; it takes no
part in equality. Ordered alternation and lazy quantifiers keep their order and mode: they do not matter for a whole
match, but they do inside atomic groups and for a lexer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal as OneOf
from typing import TypeAlias

__all__ = [
    "Alternation",
    "Atomic",
    "Begin",
    "CharSet",
    "Complement",
    "Concat",
    "Empty",
    "End",
    "Intersection",
    "Literal",
    "Look",
    "Node",
    "Ranges",
    "Repeat",
    "Span",
]

Span: TypeAlias = tuple[int, int]
Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Inclusive code point ranges, sorted, disjoint, not adjacent."""
_NO_SPAN: Span = (0, 0)


@dataclass(frozen=True, slots=True)
class Empty:
    """The empty text."""

    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Literal:
    """These code points, one after the other (at least one; case folding has turned letters into `CharSet`)."""

    text: str
    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class CharSet:
    """One code point out of `ranges`; no range at all: nothing matches."""

    ranges: Ranges
    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Concat:
    items: tuple[Node, ...]
    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Alternation:
    """Any of `items`, earlier ones preferred."""

    items: tuple[Node, ...]
    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Repeat:
    """`item` at least `min` and at most `max` times (None: no bound).  Possessive: parsers write `Atomic(Repeat)`."""

    item: Node
    min: int
    max: int | None
    mode: OneOf["greedy", "lazy"] = "greedy"
    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Atomic:
    """The first match of `item` in priority order, never reconsidered: ``(?>...)``."""

    item: Node
    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Look:
    """Zero-width: what follows (`ahead`) has a prefix in `item`, or what precedes has a suffix in it; or not."""

    item: Node
    ahead: bool
    negative: bool
    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Begin:
    """Zero-width: the very start of the text (``\\A``)."""

    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class End:
    """Zero-width: the very end of the text (``\\Z`` of Python)."""

    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Intersection:
    """Texts in all of `items`.  No dialect writes it; set algebra and the engines do."""

    items: tuple[Node, ...]
    span: Span = field(default=_NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Complement:
    """Texts that are not in `item`."""

    item: Node
    span: Span = field(default=_NO_SPAN, compare=False)


Node: TypeAlias = (
    Empty | Literal | CharSet | Concat | Alternation | Repeat | Atomic | Look | Begin | End | Intersection | Complement
)
