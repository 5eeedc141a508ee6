r"""AST -> pattern text, in the part of regex syntax that Python, Rust and ECMAScript read alike.

`to_text` writes the regular operations down. What has no such notation (look-arounds, intersections, complements) is
first turned into the ordinary operations by `plain`: the DFA over the classes of characters that the AST tells apart,
then elimination of its states, those with the fewest paths through them first. The text of an intersection can be
much longer than its parts; past a limit it is refused.

Source: J. Brzozowski, E. McCluskey, *Signal flow graph techniques for sequential circuit state diagrams*, 1963.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from outlines_core.errors import LimitExceededError
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Alternation, CharSet, Concat, Empty, Literal, Node, Ranges, Repeat
from outlines_core.regex.build import alternation, concat, one_of, repeat
from outlines_core.regex.charset import ALL, complement, size, union
from outlines_core.regex.charset_classes import letters_of

__all__ = ["eliminate", "is_plain", "plain", "to_text"]

_SPAN: Final = (0, 0)
_MAX_STATES: Final = 400
_MAX_NODES: Final = 20_000
_MAX_DEPTH: Final = 150  # groups: engines refuse more than 200 or 250
_SPECIAL: Final = frozenset("\\.+*?()|[]{}^$#&-~/")
_NAMED: Final = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def _shown(code: int, escaped: frozenset[str]) -> str:
    char = chr(code)
    if char in escaped:
        return f"\\{char}"
    if char in _NAMED:
        return _NAMED[char]
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"\\x{code:02X}"
    return char


_OUTSIDE: Final = _SPECIAL - {"/", "-", "&", "~", "#"}
_INSIDE: Final = frozenset("\\[]^-&~")


def _set_text(ranges: Ranges) -> str:
    if ranges == ALL:
        return r"[\s\S]"
    listed = ranges if size(ranges) <= size(complement(ranges)) or not complement(ranges) else complement(ranges)
    inside = []
    for low, high in listed:
        inside.append(_shown(low, _INSIDE))
        if high > low + 1:
            inside.append("-")
        if high > low:
            inside.append(_shown(high, _INSIDE))
    return f"[{'^' if listed is not ranges else ''}{''.join(inside)}]"


def is_plain(node: Node) -> bool:
    """Can `to_text` write it down?"""
    match node:
        case Empty() | Literal():
            return True
        case CharSet(ranges):
            return bool(ranges)
        case Concat(items) | Alternation(items):
            return all(map(is_plain, items))
        case Repeat(item):
            return is_plain(item)
    return False


def to_text(node: Node) -> str:
    """The pattern of a plain AST; an alternation is not put in a group.

    Raises:
        ValueError: it is not plain.
        LimitExceededError: groups nested too deeply for other engines.

    >>> to_text(Concat((Literal("a."), Repeat(Alternation((Literal("b"), CharSet(((48, 57),)))), 1, None))))
    'a\\\\.(?:b|[0-9])+'
    """
    return _text(node, 0)


def _text(node: Node, depth: int) -> str:
    if depth > 2 * _MAX_DEPTH:
        raise LimitExceededError(
            f"groups of the pattern would nest deeper than {_MAX_DEPTH}", given=depth, limit=_MAX_DEPTH
        )
    match node:
        case Empty():
            return ""
        case Literal(text):
            return "".join(_shown(ord(char), _OUTSIDE) for char in text)
        case CharSet(ranges) if ranges:
            return _set_text(ranges)
        case Concat(items):
            parts = (
                f"(?:{_text(item, depth + 1)})" if isinstance(item, Alternation) else _text(item, depth + 1)
                for item in items
            )
            return "".join(parts)
        case Alternation(items):
            return "|".join(_text(item, depth + 1) for item in items)
        case Repeat(item, low, high):
            inside = _text(item, depth + 1)
            if not isinstance(item, CharSet) and not (isinstance(item, Literal) and len(item.text) == 1):
                inside = f"(?:{inside})"
            return inside + _quantifier(low, high)
    raise ValueError(f"{type(node).__name__} has no notation as a pattern")


def _quantifier(low: int, high: int | None) -> str:
    known = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high))
    if known is not None:
        return known
    return f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"


def _characters(node: Node) -> Iterator[Ranges | str]:
    pending: list[Node] = [node]
    while pending:
        at = pending.pop()
        match at:
            case Literal(text):
                yield text
            case CharSet(ranges):
                yield ranges
            case _:
                pending.extend(getattr(at, "items", ()))
                if hasattr(at, "item"):
                    pending.append(at.item)


def plain(node: Node, limits: Limits = DEFAULT_LIMITS) -> Node | None:
    """A plain AST of the same texts; None: there are none.

    Raises:
        LimitExceededError: it would be too large.
    """
    from outlines_core.regex.language import Language

    if is_plain(node):
        return node
    language = Language(node, limits=limits)
    if language.is_empty():
        return None
    found = list(_characters(node))
    sets = list(dict.fromkeys(part for part in found if not isinstance(part, str)))
    letters = letters_of(sets, {char for part in found if isinstance(part, str) for char in part})
    spelled = [chr(ranges[0][0]).encode() for ranges in letters]
    dfa = language.dfa
    numbers = {dfa.start: 0}
    order = [dfa.start]
    edges: list[dict[int, Ranges]] = []
    for state in order:
        row: dict[int, Ranges] = {}
        for ranges, text in zip(letters, spelled, strict=True):
            target = dfa.run(state, text)
            if not target:
                continue
            if target not in numbers:
                if len(order) >= _MAX_STATES:
                    raise LimitExceededError(
                        f"the pattern of this intersection would have more than {_MAX_STATES} states",
                        given=len(order) + 1,
                        limit=_MAX_STATES,
                    )
                numbers[target] = len(order)
                order.append(target)
            to = numbers[target]
            row[to] = union(row.get(to, ()), ranges)
        edges.append(row)
    return eliminate(*_merged(edges, [bool(dfa.accept[state]) for state in order]))


def _merged(edges: list[dict[int, Ranges]], accepting: list[bool]) -> tuple[list[dict[int, Ranges]], list[bool]]:
    """The automaton with states that accept the same texts made one (Moore's algorithm); the first stays the first."""
    block = [int(accepts) for accepts in accepting]
    n_blocks = 0
    while n_blocks < len(set(block)):
        n_blocks = len(set(block))
        signatures: dict[object, int] = {}
        following = []
        for state, row in enumerate(edges):
            by_block: dict[int, Ranges] = {}
            for to, ranges in row.items():
                by_block[block[to]] = union(by_block.get(block[to], ()), ranges)
            following.append(signatures.setdefault((block[state], tuple(sorted(by_block.items()))), len(signatures)))
        block = following
    rows: dict[int, dict[int, Ranges]] = {}
    for state, row in enumerate(edges):
        if block[state] not in rows:
            merged = rows[block[state]] = {}
            for to, ranges in row.items():
                merged[block[to]] = union(merged.get(block[to], ()), ranges)
    return [rows[k] for k in range(len(rows))], [accepting[block.index(k)] for k in range(len(rows))]


def eliminate(edges: Sequence[dict[int, Ranges]], accepting: Sequence[bool]) -> Node | None:
    """The plain AST of an automaton over characters that begins in state 0: per state {target: characters}.

    Returns:
        None if nothing is accepted.

    Raises:
        LimitExceededError: it would be too large.
    """
    begin, end = len(edges), len(edges) + 1
    out: list[dict[int, Node]] = [{to: one_of(r, _SPAN) for to, r in row.items()} for row in edges]
    out += [{0: Empty()}, {}]
    for state, accepts in enumerate(accepting):
        if accepts:
            out[state][end] = Empty()
    into: list[set[int]] = [set() for _ in out]
    sizes = {}
    for state, row in enumerate(out):
        for to in row:
            into[to].add(state)
            sizes[state, to] = 1
    left = set(range(len(edges)))
    while left:
        state = min(left, key=lambda s: ((len(into[s]) - (s in into[s])) * (len(out[s]) - (s in out[s])), s))
        left.discard(state)
        loop = out[state].pop(state, None)
        into[state].discard(state)
        around = [] if loop is None else [repeat(loop, 0, None, "greedy", _SPAN)]
        own = sizes.get((state, state), 0)
        for source in sorted(into[state]):
            first = out[source].pop(state)
            for to, last in out[state].items():
                way = concat([first, *around, last], _SPAN)
                known = out[source].get(to)
                out[source][to] = way if known is None else _either(known, way)
                sizes[source, to] = sizes.get((source, to), 0) + sizes[source, state] + own + sizes[state, to] + 1
                if sizes[source, to] > _MAX_NODES:
                    raise LimitExceededError(
                        f"the pattern of this intersection would have more than {_MAX_NODES:,} parts",
                        given=sizes[source, to],
                        limit=_MAX_NODES,
                    )
                into[to].add(source)
        for to in out[state]:
            into[to].discard(state)
        out[state] = {}
    return out[begin].get(end)


def _either(left: Node, right: Node) -> Node:
    """Alternatives, an empty one as ``?``."""
    if isinstance(left, Empty) or isinstance(right, Empty):
        other = right if isinstance(left, Empty) else left
        return other if isinstance(other, Empty) else repeat(other, 0, 1, "greedy", _SPAN)
    if isinstance(left, Repeat) and (left.min, left.max) == (0, 1):
        return repeat(_either(left.item, right), 0, 1, "greedy", _SPAN)
    parts = [p for n in (left, right) for p in (n.items if isinstance(n, Alternation) else (n,))]
    sets = [p for p in parts if isinstance(p, CharSet) or (isinstance(p, Literal) and len(p.text) == 1)]
    if len(sets) > 1:
        merged = union(*(p.ranges if isinstance(p, CharSet) else ((ord(p.text), ord(p.text)),) for p in sets))
        parts = [one_of(merged, _SPAN), *(p for p in parts if p not in sets)]
    return alternation(parts, _SPAN)
