"""Rewrites that keep the language of the whole text and leave less for the engines: `simplify` and `search`.

Fast engines want patterns without look-arounds, and most anchors are redundant in a whole-text match: nothing precedes
the first ``^``, nothing follows the last ``$``.  The walk carries two facts down.

* `head`: True, the position is surely the start of the text; False, surely not; None, unknown.  These are facts about
  the position itself, so they hold inside atomic groups and look-arounds as well.
* `tail`: True, a match of the whole text can only succeed here if the text ends here; False, only if it does not.
  These are facts about *successful* matches: ``End`` may become ``Empty`` because any path on which it was false fails
  anyway.  That is untrue where a path's failure is observed: ``(?>a$|ab)`` is not ``(?>a|ab)``, so `tail` is unknown
  inside atomic groups and look-arounds.

The walk is a trampoline (generators on an explicit stack): nesting is bounded by memory, not by Python's stack.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal as OneOf
from typing import cast

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
    Ranges,
    Repeat,
    Span,
)
from outlines_core.regex.build import alternation, concat, one_of, repeat
from outlines_core.regex.charset import ALL, complement, difference, intersection, union

__all__ = ["search", "simplify", "width"]

_Fact = bool | None
_Width = tuple[int, int | None]
_Walk = Generator["tuple[Node, _Fact, _Fact]", Node, Node]
_LEAVES = (Empty, Literal, Begin, End, CharSet)


def simplify(node: Node) -> Node:
    """An AST of the same texts with fewer anchors, look-arounds and dead parts.

    >>> from outlines_core.regex.parser import parse
    >>> simplify(parse("^(?:a$|b$)"))
    Alternation(items=(Literal(text='a', span=(4, 5)), Literal(text='b', span=(7, 8))), span=(4, 9))
    """
    return _Simplifier().run(node)


def search(node: Node) -> Node:
    """The texts that contain a match of `node`, simplified: what an unanchored search accepts.

    Alternatives that start with ``Begin`` or end with ``End`` are taken apart first, so that ``^abc$`` is a literal
    and ``^a|b$`` needs no anchor.
    """
    anything = Repeat(CharSet(ALL, node.span), 0, None, "greedy", node.span)
    variants: list[Node] = []
    for at_start, rest in zip((True, False), _split(node, Begin, 0), strict=True):
        if rest is None:
            continue
        for at_end, part in zip((True, False), _split(rest, End, -1), strict=True):
            if part is not None:
                before, after = ([] if at_start else [anything]), ([] if at_end else [anything])
                variants.append(concat([*before, part, *after], node.span))
    return simplify(alternation(variants, node.span))


def width(node: Node) -> tuple[int, int | None]:
    """The least and the greatest number of characters that `node` matches (None: no bound)."""
    return _Widths().of(node)


_DEPTH = 40  # local helpers give up (soundly) on deeper trees


def _split(
    node: Node, anchor: type[Begin] | type[End], edge: int, depth: int = _DEPTH
) -> tuple[Node | None, Node | None]:
    """Divide the alternatives of `node`: those with `anchor` at its first or last place (taken off), and the others.

    Args:
        node: what is searched for, or a part at this edge of it.
        anchor: Begin or End.
        edge: 0 for the first item of a concatenation, -1 for the last.
        depth: how far down to look.
    """
    match node:
        case Begin() | End() if isinstance(node, anchor):
            return Empty(node.span), None
        case Concat(items=items, span=span) if depth:
            anchored, free = _split(items[edge], anchor, edge, depth - 1)
            if anchored is None and free is items[edge]:
                return None, node
            rest = list(items[1:] if edge == 0 else items[:-1])

            def joined(part: Node | None) -> Node | None:
                if part is None:
                    return None
                return concat([part, *rest] if edge == 0 else [*rest, part], span)

            return joined(anchored), joined(free)
        case Look(item=item, ahead=ahead, negative=False) if depth and ahead == (anchor is End):
            return _split(item, anchor, edge, depth - 1)  # then anything: what is looked at may as well be matched
        case Alternation(items=items, span=span) if depth:
            split = [_split(item, anchor, edge, depth - 1) for item in items]
            with_anchor = [part for part, _ in split if part is not None]
            without = [part for _, part in split if part is not None]
            return (
                alternation(with_anchor, span) if with_anchor else None,
                alternation(without, span) if without else None,
            )
        case _:
            return None, node


class _Widths:
    """Width ranges of nodes, each computed once (nodes are kept, so that their ids stay theirs)."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Node, _Width]] = {}

    def of(self, node: Node) -> _Width:
        stack: list[tuple[Node, bool]] = [(node, False)]
        while stack:
            here, ready = stack.pop()
            if id(here) in self._known:
                continue
            children = _children(here)
            if children and not ready:
                stack.append((here, True))
                stack += ((child, False) for child in children)
            else:
                self._known[id(here)] = here, _width_of(here, [self._known[id(child)][1] for child in children])
        return self._known[id(node)][1]


class _Simplifier:
    def __init__(self) -> None:
        self.width = _Widths().of

    def run(self, root: Node) -> Node:
        stack: list[_Walk] = []
        node: Node = root
        head: _Fact = True
        tail: _Fact = True
        while True:
            if isinstance(node, _LEAVES):
                answer = _leaf(node, head, tail)
                if not stack:
                    return answer
            else:
                stack.append(self._walk(node, head, tail))
                node, head, tail = next(stack[-1])
                continue
            while True:
                try:
                    node, head, tail = stack[-1].send(answer)
                    break
                except StopIteration as done:
                    stack.pop()
                    answer = cast(Node, done.value)
                    if not stack:
                        return answer

    def _walk(self, node: Node, head: _Fact, tail: _Fact) -> _Walk:
        """Simplify one inner node; yields (child, head, tail) and is sent the simplified child."""
        match node:
            case Concat(items=items, span=span):
                parts: list[Node] = []
                for item, (item_head, item_tail) in zip(items, self._facts(items, head, tail), strict=True):
                    part = yield item, item_head, item_tail
                    if _is_dead(part):
                        return _dead(span)
                    parts.append(part)
                return self._settle(concat(parts, span))
            case Alternation(items=items, span=span):
                choices: list[Node] = []
                for item in items:
                    choice = yield item, head, tail
                    if not _is_dead(choice):
                        choices.append(choice)
                return alternation(choices, span)
            case Repeat(item=item, min=low, max=high, mode=mode, span=span):
                if high != 1:  # further rounds start later and end earlier
                    head, tail = (head and None), (tail and None)
                body = yield item, head, tail
                return self._repeat(body, low, high, mode, span)
            case Atomic(item=item, span=span):
                low, high = self.width(item)
                if low == high:
                    return (yield item, head, tail)
                body = yield item, head, None
                return body if self._has_one_end(body) or (tail and _is_run(body)) else Atomic(body, span)
            case Look(item=item, ahead=ahead, negative=negative, span=span):
                body = yield (item, head, None) if ahead else (item, head or None, tail)
                return _look(body, ahead, negative, head, tail, span)
            case Intersection(items=items, span=span):
                kept: list[Node] = []
                for item in items:
                    part = yield item, head, tail
                    kept.append(part)
                return _dead(span) if any(map(_is_dead, kept)) else Intersection(tuple(kept), span)
            case Complement(item=item, span=span):
                return Complement((yield item, head, None), span)
            case _:
                return _leaf(node, head, tail)

    def _facts(self, items: Sequence[Node], head: _Fact, tail: _Fact) -> list[tuple[_Fact, _Fact]]:
        """What is known at each item of a concatenation, from the widths of those before and after it."""
        widths = [self.width(item) for item in items]
        heads: list[_Fact] = []
        for low, high in widths:
            heads.append(head)
            head = _after(head, low, high)
        tails: list[_Fact] = []
        for low, high in reversed(widths):
            tails.append(tail)
            tail = _after(tail, low, high)
        return list(zip(heads, reversed(tails), strict=True))

    def _repeat(self, body: Node, low: int, high: int | None, mode: OneOf["greedy", "lazy"], span: Span) -> Node:
        if _is_dead(body):
            return _dead(span) if low else Empty(span)
        if self.width(body)[1] == 0:  # once is as good as often; perhaps is as good as never
            return body if low else Empty(span)
        return repeat(body, low, high, mode, span)

    def _has_one_end(self, node: Node) -> bool:
        low, high = self.width(node)
        return low == high

    def _settle(self, node: Node) -> Node:
        """Use the neighbours of each zero-width item: ``a\\b `` is ``a ``, ``(?=[a-f])\\w`` is ``[a-f]``."""
        if not isinstance(node, Concat) or not any(
            isinstance(item, Look | Alternation | Atomic) for item in node.items
        ):
            return node
        items = list(node.items)
        left, right = self._beside(items)
        for i, item in enumerate(items):
            if isinstance(item, Atomic):
                follows = self._surely(items, right[i], last=False) if _is_run(item.item) else None
                run = self._edge(item.item, True)
                if follows is not None and run is not None and not intersection(follows, run):
                    items[i] = item.item
            elif isinstance(item, Look | Alternation) and self.width(item)[1] == 0:
                before, after = self._surely(items, left[i], last=True), self._surely(items, right[i], last=False)
                items[i] = self._resolve(item, before, after)
                if _is_dead(items[i]):
                    return _dead(node.span)
        for i, item in enumerate(items):
            j = right[i] if isinstance(item, Look) and item.ahead else left[i]
            if isinstance(item, Look) and j is not None and (allowed := _char_set(item.item)) is not None:
                taken = complement(allowed) if item.negative else allowed
                if (restricted := _restricted(items[j], taken, last=not item.ahead)) is not None:
                    items[i], items[j] = Empty(item.span), restricted
        if any(map(_is_dead, items)):
            return _dead(node.span)
        return concat(items, node.span)

    def _beside(self, items: Sequence[Node]) -> tuple[list[int | None], list[int | None]]:
        """For each item, where the nearest one stands that can consume something, on its left and on its right."""
        consuming = [self.width(item)[1] != 0 for item in items]
        left: list[int | None] = []
        right: list[int | None] = []
        nearest: int | None = None
        for i, consumes in enumerate(consuming):
            left.append(nearest)
            nearest = i if consumes else nearest
        nearest = None
        for i in range(len(items) - 1, -1, -1):
            right.append(nearest)
            nearest = i if consuming[i] else nearest
        return left, right[::-1]

    def _surely(self, items: Sequence[Node], i: int | None, *, last: bool) -> Ranges | None:
        """The first (or last) characters of item `i`, if it always has one."""
        return None if i is None or not self.width(items[i])[0] else self._edge(items[i], last)

    def _edge(self, node: Node, last: bool, depth: int = _DEPTH) -> Ranges | None:
        """At least the first (or last) characters of the non-empty texts of `node`; None: unknown."""
        if depth == 0:
            return None
        match node:
            case Literal(text=text):
                code = ord(text[-1 if last else 0])
                return ((code, code),)
            case CharSet(ranges=ranges):
                return ranges
            case Concat(items=items):
                found: list[Ranges] = []
                for item in reversed(items) if last else items:
                    edge = self._edge(item, last, depth - 1)
                    if edge is None:
                        return None
                    found.append(edge)
                    if self.width(item)[0]:
                        break
                return union(*found)
            case Alternation(items=items):
                edges = [self._edge(item, last, depth - 1) for item in items]
                known = [edge for edge in edges if edge is not None]
                return union(*known) if len(known) == len(edges) else None
            case Repeat(item=item) | Atomic(item=item):
                return self._edge(item, last, depth - 1)
            case Empty() | Begin() | End() | Look():
                return ()
            case _:
                return None

    def _resolve(self, node: Node, before: Ranges | None, after: Ranges | None, depth: int = _DEPTH) -> Node:
        """A zero-width node where these characters surely stand on its sides (None: unknown)."""
        if depth == 0:
            return node
        match node:
            case Look(item=item, ahead=ahead, negative=negative, span=span):
                beside, wanted = (after if ahead else before), self._edge(item, not ahead)
                if beside is None or wanted is None or not self.width(item)[0]:
                    return node
                if not intersection(beside, wanted):
                    return Empty(span) if negative else _dead(span)
                if _char_set(item) is not None and not difference(beside, wanted):
                    return _dead(span) if negative else Empty(span)
                return node
            case Concat(items=items, span=span):
                parts = [self._resolve(item, before, after, depth - 1) for item in items]
                return _dead(span) if any(map(_is_dead, parts)) else concat(parts, span)
            case Alternation(items=items, span=span):
                choices = [self._resolve(item, before, after, depth - 1) for item in items]
                if any(isinstance(choice, Empty) for choice in choices):
                    return Empty(span)  # all are zero-width, and one of them is always true
                return alternation([choice for choice in choices if not _is_dead(choice)], span)
            case _:
                return node


def _leaf(node: Node, head: _Fact, tail: _Fact) -> Node:
    if isinstance(node, Begin):
        fact = head
    elif isinstance(node, End):
        fact = tail
    else:
        return node
    if fact is None:
        return node
    return Empty(node.span) if fact else _dead(node.span)


def _after(edge: _Fact, low: int, high: int | None) -> _Fact:
    """Is a position at the text's edge, if one at distance `low` to `high` from it is (`edge`)?"""
    if high == 0:
        return edge
    return False if low or edge is False else None


def _dead(span: Span) -> Node:
    return CharSet((), span)


def _is_dead(node: Node) -> bool:
    return isinstance(node, CharSet) and not node.ranges


def _look(body: Node, ahead: bool, negative: bool, head: _Fact, tail: _Fact, span: Span) -> Node:
    """A look-around whose body is done.  At the edge that it looks over, it sees the empty text."""
    if _is_dead(body):
        found: _Fact = False
    elif ahead and tail:
        found = _matches_empty(body, head, True)
    elif not ahead and head:
        found = _matches_empty(body, True, tail)
    else:
        found = _matches_empty(body, None, None) or None  # the empty text is a prefix, and a suffix, of all
    if found is None:
        return Look(body, ahead, negative, span)
    return Empty(span) if found != negative else _dead(span)


def _matches_empty(node: Node, at_begin: _Fact, at_end: _Fact, depth: int = _DEPTH) -> _Fact:
    """Does `node` match the empty text at a position of which this is known?"""
    if depth == 0:
        return None
    match node:
        case Empty():
            return True
        case Literal() | CharSet():
            return False
        case Begin():
            return at_begin
        case End():
            return at_end
        case Concat(items=items):
            found = [_matches_empty(item, at_begin, at_end, depth - 1) for item in items]
            return False if False in found else None if None in found else True
        case Alternation(items=items):
            found = [_matches_empty(item, at_begin, at_end, depth - 1) for item in items]
            return True if True in found else None if None in found else False
        case Repeat(item=item, min=low):
            return True if low == 0 else _matches_empty(item, at_begin, at_end, depth - 1)
        case _:
            return None


def _is_run(node: Node) -> bool:
    """Greedily as many characters of a set as there are: it need not be atomic if none of the set can follow."""
    return isinstance(node, Repeat) and node.mode == "greedy" and _char_set(node.item) is not None


def _char_set(node: Node) -> Ranges | None:
    """The set, if `node` is one character."""
    if isinstance(node, CharSet):
        return node.ranges
    if isinstance(node, Literal) and len(node.text) == 1:
        return ((ord(node.text), ord(node.text)),)
    return None


def _restricted(node: Node, allowed: Ranges, *, last: bool) -> Node | None:
    """`node` with its first (or last) character out of `allowed`; None: not that simple."""
    match node:
        case CharSet(ranges=ranges, span=span):
            return one_of(intersection(ranges, allowed), span)
        case Repeat(item=CharSet(ranges=ranges) as item, min=low, max=high, mode=mode, span=span) if low:
            one = one_of(intersection(ranges, allowed), item.span)
            if _is_dead(one):
                return one
            others = repeat(item, low - 1, None if high is None else high - 1, mode, span)
            return concat([others, one] if last else [one, others], span)
        case _:
            return None


def _children(node: Node) -> Sequence[Node]:
    match node:
        case Concat(items=items) | Alternation(items=items) | Intersection(items=items):
            return items
        case Repeat(item=item) | Atomic(item=item):
            return (item,)
        case _:
            return ()


def _width_of(node: Node, parts: list[tuple[int, int | None]]) -> tuple[int, int | None]:
    lows, highs = [low for low, _ in parts], [high for _, high in parts]
    bounded = [high for high in highs if high is not None]
    match node:
        case Literal(text=text):
            return len(text), len(text)
        case CharSet():
            return 1, 1
        case Concat():
            return sum(lows), sum(bounded) if len(bounded) == len(highs) else None
        case Alternation():
            return min(lows, default=0), max(bounded, default=0) if len(bounded) == len(highs) else None
        case Intersection():
            return max(lows, default=0), min(bounded, default=None)
        case Repeat(min=low, max=high):
            body_low, body_high = parts[0]
            if body_high == 0:
                return 0, 0
            return low * body_low, None if high is None or body_high is None else high * body_high
        case Atomic():
            return parts[0]
        case Complement():
            return 0, None
        case _:
            return 0, 0
