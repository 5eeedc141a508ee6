"""Smart constructors: what the parsers and rewrites use instead of bare node classes.

They keep the AST in its short form: concatenations are flat and hold no `Empty`, neighbouring literals are one
`Literal`, a set of one character is a `Literal`, an alternation of one is that one.  None of them changes a language.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal as OneOf

from outlines_core.regex.ast import (
    Alternation,
    Begin,
    CharSet,
    Concat,
    Empty,
    End,
    Literal,
    Look,
    Node,
    Ranges,
    Repeat,
    Span,
)
from outlines_core.regex.charset import complement

__all__ = ["alternation", "boundary", "concat", "line_begin", "line_end", "one_of", "repeat"]


def one_of(ranges: Ranges, span: Span) -> Node:
    """One character of `ranges`; a `Literal` if there is just one."""
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return Literal(chr(ranges[0][0]), span)
    return CharSet(ranges, span)


def concat(items: Iterable[Node], span: Span) -> Node:
    """`items` one after the other, flat, neighbouring literals merged."""
    flat: list[Node] = []
    run: list[Literal] = []

    def close_run() -> None:
        if len(run) == 1:
            flat.append(run[0])
        elif run:
            flat.append(Literal("".join(item.text for item in run), (run[0].span[0], run[-1].span[1])))
        run.clear()

    def add(part: Node) -> None:
        if isinstance(part, Literal):
            run.append(part)
        elif not isinstance(part, Empty):
            if run:
                close_run()
            flat.append(part)

    for item in items:
        if isinstance(item, Concat) and len(item.items) > 2:
            add(item.items[0])
            add(item.items[1])
            close_run()
            flat.extend(item.items[2:-1])  # flat and merged already: a long one nested deep must not cost much
            add(item.items[-1])
        elif isinstance(item, Concat):
            for part in item.items:
                add(part)
        else:
            add(item)
    close_run()
    if not flat:
        return Empty(span)
    return flat[0] if len(flat) == 1 else Concat(tuple(flat), span)


def alternation(items: Iterable[Node], span: Span) -> Node:
    """Any of `items`, in order; no item at all: nothing matches."""
    choices = tuple(items)
    if not choices:
        return CharSet((), span)
    return choices[0] if len(choices) == 1 else Alternation(choices, span)


def repeat(item: Node, low: int, high: int | None, mode: OneOf["greedy", "lazy"], span: Span) -> Node:
    """`item` `low` to `high` times; ``{1}`` and ``{0}`` dissolve."""
    if low == high == 1:
        return item
    return Empty(span) if high == 0 else Repeat(item, low, high, mode, span)


def line_begin(span: Span) -> Node:
    """``^`` under MULTILINE."""
    return Alternation((Begin(span), Look(Literal("\n", span), False, False, span)), span)


def line_end(span: Span) -> Node:
    """``$`` under MULTILINE."""
    return Alternation((End(span), Look(Literal("\n", span), True, False, span)), span)


def boundary(word: Ranges, span: Span, *, negated: bool, empty_text: bool) -> Node:
    r"""``\b`` or (negated) ``\B`` over the characters of `word`.

    Args:
        word: the word characters.
        span: where it stands.
        negated: ``\B``.
        empty_text: may ``\B`` match in a text of no characters (Python before 3.14: no)?
    """
    inside = CharSet(word, span)
    before, not_before = Look(inside, False, False, span), Look(inside, False, True, span)
    after, not_after = Look(inside, True, False, span), Look(inside, True, True, span)
    if not negated:
        return Alternation((Concat((before, not_after), span), Concat((not_before, after), span)), span)
    within = Concat((before, after), span)
    if empty_text:
        return Alternation((within, Concat((not_before, not_after), span)), span)
    # both edges at once only in the empty text, so one side must have a character
    outside = CharSet(complement(word), span)
    return Alternation(
        (
            within,
            Concat((Look(outside, False, False, span), not_after), span),
            Concat((not_before, Look(outside, True, False, span)), span),
        ),
        span,
    )
