"""Terminals that are made with ``&`` and ``~``: sets of texts, whose longest one is preferred.

Such a terminal is the regular language that its operands' languages make. Which of its alternatives comes first, what
is lazy and what a look-around sees beyond the operand plays no part: the automaton of the language stands for the
terminal, and where it may end or go on, going on is preferred. Among other terminals it takes its turn as Lark has it:
by priority, the length of its longest text, that of its pattern, and its name; and a string that is in the language is
the string's terminal, as with any other pattern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from lark.lexer import PatternRE, PatternStr

from outlines_core.grammar.dialect import AND, CLOSE, NOT, OPEN
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import (
    Alternation,
    Atomic,
    Complement,
    Concat,
    Intersection,
    Literal,
    Look,
    Node,
    Repeat,
)
from outlines_core.regex.build import concat
from outlines_core.regex.look_dfa import determinised
from outlines_core.regex.nfa import Graph
from outlines_core.regex.parser import parse
from outlines_core.regex.simplify import simplify, width

__all__ = ["Boolean", "boolean", "in_order", "is_boolean"]

_MOST_STATES: Final = 20_000
_UNBOUNDED: Final = PatternRE(".*").max_width
_MARKS: Final = OPEN + AND + NOT + CLOSE


class Boolean(NamedTuple):
    """`width`: characters of the longest text; `length`: of the pattern."""

    graph: Graph
    width: int
    length: int

    def matches(self, text: str) -> bool:
        """Is it in the language?"""
        rows, accepting = self.graph
        state = 0
        for byte in text.encode("utf-8", "surrogatepass"):
            target = next((to for low, high, to in rows[state] if low <= byte <= high), None) if rows else None
            if target is None:
                return False
            state = target
        return bool(rows) and accepting[state]


def is_boolean(regexp: str) -> bool:
    """Are there marks in a pattern as Lark joins it?"""
    return OPEN in regexp


def boolean(regexp: str, flags: int, limits: Limits = DEFAULT_LIMITS) -> Boolean:
    """The terminal of a pattern with marks.

    Raises:
        LimitExceededError: its automaton is too large.
    """
    node = simplify(_unmarked(parse(regexp, flags=flags, limits=limits)))
    most = width(node)[1]
    small = replace(limits, max_states=min(limits.max_states, _MOST_STATES))
    graph = Graph(*determinised(node, small))
    return Boolean(graph, _UNBOUNDED if most is None else most, sum(c not in (OPEN, CLOSE) for c in regexp))


def _unmarked(node: Node) -> Node:
    """The AST with operators in place of the marks."""
    match node:
        case Literal() | Concat():
            return _joined(node.items if isinstance(node, Concat) else (node,))
        case Alternation(items=items):
            return replace(node, items=tuple(map(_unmarked, items)))
        case Repeat(item=item) | Look(item=item) | Atomic(item=item):
            return replace(node, item=_unmarked(item))
        case _:
            return node


def _joined(items: Sequence[Node]) -> Node:
    """A sequence; each OPEN and its CLOSE are in the same one."""
    open_: list[tuple[list[list[Node]], bool]] = [([[]], False)]
    for item in items:
        if not isinstance(item, Literal):
            open_[-1][0][-1].append(_unmarked(item))
            continue
        plain = ""
        for char in item.text:
            if char not in _MARKS:
                plain += char
                continue
            if plain:
                open_[-1][0][-1].append(Literal(plain))
                plain = ""
            if char == OPEN:
                open_.append(([[]], False))
            elif char == AND:
                open_[-1][0].append([])
            elif char == NOT:
                open_[-1] = open_[-1][0], True
            else:
                parts, negative = open_.pop()
                nodes = tuple(concat(part, (0, 0)) for part in parts)
                open_[-1][0][-1].append(Complement(nodes[0]) if negative else Intersection(nodes))
        if plain:
            open_[-1][0][-1].append(Literal(plain))
    return concat(open_[0][0][0], (0, 0))


def in_order(
    terminals: Sequence[Any], scanned: Sequence[str], retyped: Mapping[str, Sequence[str]], own: Mapping[str, Boolean]
) -> tuple[list[str], dict[str, list[str]]]:
    """What one of Lark's lexers would look for, and what it would retype, if it knew what its patterns mean.

    Args:
        terminals: all that the lexer knows, as Lark defines them, the preferred ones first.
        scanned, retyped: the names of those that it looks for itself, and of those that texts of others become.
        own: the Boolean ones.

    Returns:
        New `scanned` and `retyped`.
    """
    becomes = {name: list(texts) for name, texts in retyped.items() if name not in own}
    dropped = set()
    for t in terminals:
        if t.name not in own:
            continue
        for text in terminals:
            is_text = isinstance(text.pattern, PatternStr) and text.priority == t.priority
            if is_text and own[t.name].matches(text.pattern.value):
                becomes.setdefault(t.name, []).append(text.name)
                if not text.pattern.flags:
                    dropped.add(text.name)

    def preference(t: Any) -> tuple[Any, ...]:
        if t.name in own:
            return -t.priority, -own[t.name].width, -own[t.name].length, t.name
        return -t.priority, -t.pattern.max_width, -len(t.pattern.value), t.name

    kept = {name for name in scanned if name not in dropped}
    return [t.name for t in sorted(terminals, key=preference) if t.name in kept], becomes
