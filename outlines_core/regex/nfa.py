"""AST -> byte NFA in flat arrays.

Thompson's construction in continuation style: ``emit(node, next)`` appends the states of `node`, wired to the state
`next`, and returns the entry. Building from the end means that no state is patched later. A character is *one* state
whatever its set: how its UTF-8 bytes go is a DAG shared by all states with that set (`utf8`).

Counted repeats are unrolled, but by copying arrays: the body is emitted once and its block repeated with shifted
indices, so that ``.{0,100000}`` costs milliseconds and 9 bytes a state. Alternations of many words are laid out by
numpy.

Atomic groups and algebra inside a pattern become states too: see `Builder.atomic` and `Builder.embedded`.

Source: K. Thompson, *Regular expression search algorithm*, 1968; the arrays are read by `kernels.dfa`.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
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
    Ranges,
    Repeat,
)
from outlines_core.regex.atomic import first_path, nullable, one_way, only_text, possessive
from outlines_core.regex.charset import intersection
from outlines_core.regex.charset_classes import classes_of, letters_of
from outlines_core.regex.utf8 import DONE, Dag, byte_dag, dag_of

__all__ = [
    "ANY",
    "Builder",
    "ByteNfa",
    "CharacterGraph",
    "Graph",
    "LookAround",
    "any_text",
    "build_nfa",
    "nfa_of_graph",
]

CHAR, SPLIT, ACCEPT, BEGIN, END, LOOK = range(6)  # as in kernels.dfa, which must not be imported here (numba)
_PLACE: Final = -7
_MAX_DAG: Final = 65_000
_MAX_DEPTH: Final = 180
_MAX_BLOCKS: Final = 1000
ANY: Final[Ranges] = ((0, 0x10FFFF),)
_SURROGATES: Final[Ranges] = ((0xD800, 0xDFFF),)
StateIndex: TypeAlias = int


def any_text() -> Node:
    """Every text."""
    return Repeat(CharSet(ANY), 0, None)


class LookAround(NamedTuple):
    """Where the automaton of a look-around begins, and what it asserts."""

    start: StateIndex
    ahead: bool
    negative: bool


class Graph(NamedTuple):
    """A byte DFA: per state its edges (lowest byte, highest byte, state), and whether it accepts.  It begins in 0."""

    rows: list[list[tuple[int, int, int]]]
    accepting: list[bool]


CharacterGraph: TypeAlias = tuple[tuple[tuple[tuple[Ranges, int], ...], ...], tuple[bool, ...], int]
"""An automaton over characters: per state its edges (characters, state), per state whether it accepts, the start."""


@dataclass(frozen=True, slots=True)
class ByteNfa:
    """Flat arrays; `kernels.dfa` says what they mean.  `looks` is empty for all but look-around patterns."""

    kind: NDArray[np.uint8]
    a: NDArray[np.int32]
    b: NDArray[np.int32]
    targets: NDArray[np.int32]
    useful: NDArray[np.uint8]
    dag: NDArray[np.uint16]
    byte_class: NDArray[np.uint8]
    start: StateIndex
    everything: StateIndex
    looks: tuple[LookAround, ...] = field(default=())
    letters: tuple[Ranges, ...] = field(default=())
    """The classes of characters that the pattern does not tell apart; empty if some of its states read single bytes."""
    blocks: tuple[tuple[int, int, int], ...] = field(default=())
    """Counted repeats of something not empty: (first state, states a copy, copies); the last copy comes first."""
    surrogates: bool = field(default=False)
    """Are lone surrogates characters?"""
    any_root: int = field(default=0)
    """The DAG node of the set of all characters; 0: the pattern has no such set."""

    @property
    def n_states(self) -> int:
        return int(self.kind.shape[0])

    def alike_for(self, n_bytes: int) -> NDArray[np.int64] | None:
        """For each state one that behaves alike on all texts of up to `n_bytes` bytes; None if that is each itself.

        In a counted repeat with more copies to go than bytes are read, it does not matter how many more.
        """
        long_ones = [block for block in self.blocks if block[2] > n_bytes + 2]
        if not long_ones:
            return None
        alike = np.arange(self.n_states, dtype=np.int64)
        for first, size, count in long_ones:  # inner ones come before those around them
            same = np.arange(self.n_states, dtype=np.int64)
            inside = same[first : first + size * count]
            spare = np.maximum((inside - first) // size - (n_bytes + 1), 0)
            inside -= spare * size
            alike = alike[same]
        return alike

    @property
    def n_classes(self) -> int:
        return int(self.dag.shape[1])

    @property
    def nbytes(self) -> int:
        arrays = (self.kind, self.a, self.b, self.targets, self.useful, self.dag)
        return sum(int(x.nbytes) for x in arrays)


class Builder:
    def __init__(self, limits: Limits, surrogates: bool = False) -> None:
        self.limits, self.surrogates = limits, surrogates
        self.errors = "surrogatepass" if surrogates else "strict"
        self.kind = array("B")
        self.a = array("i")
        self.b = array("i")
        self.targets = array("i")
        self.looks: dict[LookAround, int] = {}
        self.look_starts: dict[tuple[Node, bool], StateIndex] = {}
        self.dag_nodes: dict[tuple[tuple[int, int, int], ...], int] = {}
        self.roots: dict[Dag, int] = {}
        self.byte_roots = [0] * 256
        self.set_roots: dict[Ranges, int] = {}
        self.anchored = False  # some thread may be stuck: BEGIN, END or an empty set
        self.behind = False
        self.bytewise = False  # some states come from a DFA over bytes
        self.blocks: list[tuple[int, int, int]] = []
        self.charwise = False  # literals too become states that read whole characters
        self.characters: set[str] = set()
        self.everything = self.add(SPLIT, 0, 0)
        loop = self.char(byte_dag(0, 255), self.everything)
        self.accept = self.add(ACCEPT, 0, 0)
        self.targets.extend((loop, self.accept))
        self.a[self.everything], self.b[self.everything] = 0, 2

    # -- states -----------------------------------------------------------------------------------------------------

    def add(self, kind: int, a: int, b: int) -> StateIndex:
        at = len(self.kind)
        if at >= self.limits.max_nfa_states:
            self.too_big(at + 1)
        self.kind.append(kind)
        self.a.append(a)
        self.b.append(b)
        return at

    def too_big(self, given: int) -> None:
        limit = self.limits.max_nfa_states
        raise LimitExceededError(
            f"the pattern needs {given:,} automaton states or more; Limits.max_nfa_states is {limit:,}",
            given=given,
            limit=limit,
        )

    def root(self, dag: Dag) -> int:
        known = self.roots.get(dag)
        if known is None:
            local: list[int] = []
            for edges in dag:
                shifted = tuple((lo, hi, 1 if child == DONE else local[child]) for lo, hi, child in edges)
                local.append(self.dag_nodes.setdefault(shifted, len(self.dag_nodes) + 2))
            if len(self.dag_nodes) > _MAX_DAG:
                raise LimitExceededError(
                    "the pattern's character sets are too many and too different",
                    given=len(self.dag_nodes),
                    limit=_MAX_DAG,
                )
            known = self.roots[dag] = local[-1] if local else 0
        return known

    def char(self, dag: Dag, next_: StateIndex) -> StateIndex:
        return self.add(CHAR, self.root(dag), next_)

    def split(self, choices: list[StateIndex]) -> StateIndex:
        if len(choices) == 1:
            return choices[0]
        if not choices:
            self.anchored = True
        at = len(self.targets)
        self.targets.extend(choices)
        return self.add(SPLIT, at, at + len(choices))

    # -- nodes ------------------------------------------------------------------------------------------------------

    def emit(self, node: Node, next_: StateIndex, *, tail: bool = False) -> StateIndex:
        """States of `node` followed by `next_`; `tail`: nothing but the end of the text comes behind."""
        match node:
            case Empty():
                return next_
            case Literal(text):
                return self.literal(text, next_)
            case CharSet(ranges):
                root = self.set_roots.get(ranges)
                if root is None:
                    dag = dag_of(ranges, self.surrogates)
                    root = self.set_roots[ranges] = self.root(dag) if dag else 0
                return self.add(CHAR, root, next_) if root else self.split([])
            case Concat(items):
                for k in range(len(items) - 1, -1, -1):
                    next_ = self.emit(items[k], next_, tail=tail and k == len(items) - 1)
                return next_
            case Alternation(items):
                return self.alternation(items, next_, tail)
            case Repeat():
                return self.repeat(node, next_)
            case Atomic():
                return self.atomic(node, next_)
            case Begin():
                self.anchored = True
                return self.add(BEGIN, 0, next_)
            case End():
                self.anchored = True
                if self.behind:  # the text ends here: a condition on what follows
                    return self._look(self.add(END, 0, self.everything), next_, ahead=True, negative=False)
                return self.add(END, 0, next_)
            case Look():
                return self.look(node, next_)
            case Intersection(items):
                if not tail:
                    return self.embedded(node, next_)
                entry = self.emit(items[0], next_, tail=True)
                for item in items[1:]:
                    entry = self.whole(item, entry, negative=False)
                return entry
            case Complement(item):
                if not tail:
                    return self.embedded(node, next_)
                return self.whole(item, self.emit(any_text(), next_), negative=True)

    def literal(self, text: str, next_: StateIndex) -> StateIndex:
        try:
            raw = text.encode(errors=self.errors)
        except UnicodeEncodeError:
            return self.split([])  # a lone surrogate has no UTF-8
        if self.charwise:
            for char in reversed(text):
                next_ = self.emit(CharSet(((ord(char), ord(char)),)), next_)
            return next_
        self.characters.update(text)
        if len(raw) > 64:
            return self.words([raw], next_)
        if len(self.kind) + len(raw) > self.limits.max_nfa_states:
            self.too_big(len(self.kind) + len(raw))
        for byte in reversed(raw):
            root = self.byte_roots[byte]
            if root == 0:
                root = self.byte_roots[byte] = self.root(byte_dag(byte, byte))
            self.kind.append(CHAR)
            self.a.append(root)
            self.b.append(next_)
            next_ = len(self.kind) - 1
        return next_

    def alternation(self, items: tuple[Node, ...], next_: StateIndex, tail: bool) -> StateIndex:
        if len(items) >= 16 and not self.charwise and all(type(item) is Literal for item in items):
            words = []
            for item in items:
                self.characters.update(item.text)  # type: ignore[union-attr]
                with contextlib.suppress(UnicodeEncodeError):
                    words.append(item.text.encode(errors=self.errors))  # type: ignore[union-attr]
            return self.words(words, next_)
        return self.split([self.emit(item, next_, tail=tail) for item in items])

    def words(self, words: list[bytes], next_: StateIndex) -> StateIndex:
        """An alternation of byte strings, laid out by numpy: one state a byte."""
        data = np.frombuffer(b"".join(words), dtype=np.uint8)
        base = len(self.kind)
        if base + len(data) > self.limits.max_nfa_states:
            self.too_big(base + len(data))
        roots = np.zeros(256, dtype=np.int32)
        for byte in np.unique(data).tolist():
            roots[byte] = self.root(byte_dag(byte, byte))
        ends = np.cumsum([len(word) for word in words])
        following = np.arange(base + 1, base + 1 + len(data), dtype=np.int32)
        following[ends - 1] = next_
        self.kind.frombytes(np.zeros(len(data), dtype=np.uint8).tobytes())
        self.a.frombytes(roots[data].tobytes())
        self.b.frombytes(following.tobytes())
        return self.split([base, *(base + ends[:-1]).tolist()])

    # -- repeats ----------------------------------------------------------------------------------------------------

    def repeat(self, node: Repeat, next_: StateIndex) -> StateIndex:
        least, most, item = node.min, node.max, node.item
        if most == 0:
            return next_
        lazy = node.mode == "lazy"
        if most is None:
            loop = self.add(SPLIT, 0, 0)
            body = self.emit(item, loop)
            choices = [next_, body] if lazy else [body, next_]
            if not lazy and nullable(item):
                choices.append(next_)  # see `exit_of_loop`
            self.a[loop], self.b[loop] = len(self.targets), len(self.targets) + len(choices)
            self.targets.extend(choices)
            if least == 0:
                return loop
            return self.copies(item, least - 1, body, optional=False, lazy=lazy, exit_=next_)
        entry = self.copies(item, most - least, next_, optional=True, lazy=lazy, exit_=next_)
        return self.copies(item, least, entry, optional=False, lazy=lazy, exit_=next_)

    def copies(
        self, item: Node, count: int, next_: StateIndex, *, optional: bool, lazy: bool, exit_: StateIndex
    ) -> StateIndex:
        """`count` times `item` in front of `next_`, each one skippable to `exit_` if `optional`."""

        def one(following: StateIndex) -> StateIndex:
            body = self.emit(item, following)
            if not optional:
                return body
            return self.split([exit_, body] if lazy else [body, exit_])

        if count == 0:
            return next_
        first, first_target, first_block = len(self.kind), len(self.targets), len(self.blocks)
        entry = one(_PLACE)
        size, n_targets = len(self.kind) - first, len(self.targets) - first_target
        if first + size * count > self.limits.max_nfa_states:
            self.too_big(first + size * count)
        if entry == _PLACE:  # nothing was added
            return next_
        block = slice(first, first + size)
        kind = np.frombuffer(self.kind, dtype=np.uint8)[block].copy()
        a = np.frombuffer(self.a, dtype=np.int32)[block].copy()
        b = np.frombuffer(self.b, dtype=np.int32)[block].copy()
        targets = np.frombuffer(self.targets, dtype=np.int32)[first_target : first_target + n_targets].copy()
        self._rewire(first, first_target, _PLACE, next_)
        if count == 1:
            return entry
        inner = self.blocks[first_block:]
        if len(inner) * count <= _MAX_BLOCKS:
            self.blocks += [(at + k * size, width, n) for k in range(1, count) for at, width, n in inner]
        if not nullable(item):
            self.blocks.append((first, size, count))
        shifts = np.arange(1, count, dtype=np.int64)[:, None]

        def relocated(values: NDArray[np.int32]) -> NDArray[np.int64]:
            wide = values.astype(np.int64)[None, :]
            moved = np.where((wide >= first) & (wide < first + size), wide + shifts * size, wide)
            return np.where(wide == _PLACE, entry + (shifts - 1) * size, moved)

        is_split = (kind == SPLIT)[None, :]
        self.kind.frombytes(np.tile(kind, count - 1).tobytes())
        wide_a = a.astype(np.int64)[None, :] + np.where(is_split, shifts * n_targets, 0)
        self.a.frombytes(wide_a.astype(np.int32).tobytes())
        wide_b = np.where(is_split, b.astype(np.int64)[None, :] + shifts * n_targets, relocated(b))
        self.b.frombytes(wide_b.astype(np.int32).tobytes())
        self.targets.frombytes(relocated(targets).astype(np.int32).tobytes())
        return entry + (count - 1) * size

    def _rewire(self, first: int, first_target: int, old: int, new: int) -> None:
        """Point every reference to `old` among the states and targets from here on to `new`."""
        kinds = np.frombuffer(self.kind, dtype=np.uint8)[first:]
        b = np.frombuffer(self.b, dtype=np.int32)[first:]
        b[(b == old) & (kinds != SPLIT)] = new
        targets = np.frombuffer(self.targets, dtype=np.int32)[first_target:]
        targets[targets == old] = new

    # -- look-arounds -----------------------------------------------------------------------------------------------

    def look(self, node: Look, next_: StateIndex) -> StateIndex:
        start = self.look_starts.get((node.item, node.ahead), -1)
        if start >= 0:  # the same assertion elsewhere, or another round of a repeat
            pass
        elif node.ahead:
            behind, self.behind = self.behind, False
            start = self.emit(node.item, self.everything)
            self.behind = behind
        else:  # the automaton of "anything, then the item" runs along from the start of the text
            behind, self.behind = self.behind, True
            body = self.emit(node.item, self.accept)
            self.behind = behind
            start = self.add(SPLIT, 0, 0)
            loop = self.char(byte_dag(0, 255), start)
            self.a[start], self.b[start] = len(self.targets), len(self.targets) + 2
            self.targets.extend((body, loop))
        self.look_starts[node.item, node.ahead] = start
        return self._look(start, next_, ahead=node.ahead, negative=node.negative)

    def _look(self, start: StateIndex, next_: StateIndex, *, ahead: bool, negative: bool) -> StateIndex:
        number = self.looks.setdefault(LookAround(start, ahead, negative), len(self.looks))
        return self.add(LOOK, number, next_)

    def whole(self, item: Node, next_: StateIndex, *, negative: bool) -> StateIndex:
        """Assert that the whole rest of the text is (or is not) in `item`."""
        self.anchored = True
        start = self.emit(item, self.add(END, 0, self.everything), tail=True)
        return self._look(start, next_, ahead=True, negative=negative)

    # -- atomic groups ----------------------------------------------------------------------------------------------

    def atomic(self, node: Atomic, next_: StateIndex) -> StateIndex:
        item = node.item
        if one_way(item):
            return self.emit(item, next_)
        if isinstance(item, Repeat) and one_way(item.item) and not nullable(item.item):
            return self.emit(possessive(item), next_)
        if not only_text(item):
            return self.emit(first_path(item, node.span[0]), next_)
        return self.ordered(item, next_)

    def ordered(self, item: Node, next_: StateIndex) -> StateIndex:
        """The priority-first match of `item` only.

        Threads are kept in priority order and cut behind the first that matches, as a leftmost-first regex engine
        does. Where one matches but better ones are still alive, this is the match only if none of those matches
        later: the exit is guarded by a negative look-ahead on them.
        """
        charwise, self.charwise = self.charwise, True
        inner = self.emit(item, self.everything)
        self.charwise = charwise
        ranges_of = {root: ranges for ranges, root in self.set_roots.items()}
        lists: dict[tuple[int, ...], int] = {}
        edges: list[list[tuple[Ranges, int]]] = []
        exits: list[list[int] | None] = []
        states: list[StateIndex] = []

        def closure(seeds: list[int]) -> tuple[int, ...]:
            """The character states behind the seeds in order of priority; ends with -1 where one matches."""
            out: list[int] = []
            seen: set[int] = set()
            stack = seeds[::-1]
            while stack:
                at = stack.pop()
                if at in seen:
                    if self.kind[at] == SPLIT:
                        stack.extend(exit_of_loop(self.targets, self.a[at], self.b[at]))
                    continue
                seen.add(at)
                if at == self.everything:
                    return (*out, -1)
                if self.kind[at] == CHAR:
                    out.append(at)
                else:
                    stack.extend(reversed(self.targets[self.a[at] : self.b[at]]))
            return tuple(out)

        def state_of(threads: tuple[int, ...]) -> int:
            known = lists.get(threads)
            if known is None:
                known = lists[threads] = len(lists)
                if len(lists) > 20_000:
                    raise LimitExceededError("an atomic group is too complex", given=len(lists), limit=20_000)
                edges.append([])
                exits.append(list(threads[:-1]) if threads[-1:] == (-1,) else None)
                states.append(self.add(SPLIT, 0, 0))
            return known

        entry = state_of(closure([inner]))
        done = 0
        while done < len(lists):
            threads = [t for t in list(lists)[done] if t >= 0]
            for alive, ranges in classes_of([ranges_of[self.a[t]] for t in threads]):
                following = closure([self.b[threads[k]] for k in alive])
                if following:
                    edges[done].append((ranges, state_of(following)))
            done += 1
        for k, state in enumerate(states):
            choices = [self.emit(CharSet(ranges), states[to]) for ranges, to in edges[k]]
            better = exits[k]
            if better is not None:
                guard = self._look(self.split(better), next_, ahead=True, negative=True) if better else next_
                choices.append(guard)
            self.anchored |= not choices
            self.a[state], self.b[state] = len(self.targets), len(self.targets) + len(choices)
            self.targets.extend(choices)
        return states[entry]

    # -- algebra inside a pattern -----------------------------------------------------------------------------------

    def embedded(self, node: Intersection | Complement, next_: StateIndex) -> StateIndex:
        """An intersection or complement with something behind it: its whole DFA becomes states."""
        from outlines_core.regex.look_dfa import determinised

        return self.graph(Graph(*determinised(node, self.limits, self.surrogates)), next_)

    def graph(self, graph: Graph, next_: StateIndex) -> StateIndex:
        """An automaton over bytes with something behind it; to go on is preferred."""
        self.bytewise = True
        rows, accepting = graph
        states = [self.add(SPLIT, 0, 0) for _ in rows]
        for k, row in enumerate(rows):
            choices = [self.char(byte_dag(lo, hi), states[to]) for lo, hi, to in row]
            if accepting[k]:
                choices.append(next_)
            self.anchored |= not choices
            self.a[states[k]], self.b[states[k]] = len(self.targets), len(self.targets) + len(choices)
            self.targets.extend(choices)
        return states[0] if states else self.split([])

    # -- the result -------------------------------------------------------------------------------------------------

    def finish(self, start: StateIndex) -> ByteNfa:
        kind = np.frombuffer(self.kind, dtype=np.uint8).copy()
        a = np.frombuffer(self.a, dtype=np.int32).copy()
        b = np.frombuffer(self.b, dtype=np.int32).copy()
        targets = np.frombuffer(self.targets, dtype=np.int32).copy()
        useful = np.ones(len(kind), dtype=np.uint8)
        if self.anchored:
            from outlines_core.kernels.nfa import usefulness

            useful = usefulness(kind, a, b, targets)
        byte_class, dag = self._classes()
        letters = self._letters() if self.looks and not self.bytewise else ()
        blocks = () if self.anchored or self.looks else tuple(self.blocks)
        return ByteNfa(
            kind,
            a,
            b,
            targets,
            useful,
            dag,
            byte_class,
            start,
            self.everything,
            tuple(self.looks),
            letters,
            blocks,
            self.surrogates,
            self.set_roots.get(ANY, 0),
        )

    def _letters(self) -> tuple[Ranges, ...]:
        """The classes of characters that the pattern does not tell apart."""
        sets = [*self.set_roots]
        letters = letters_of(sets, self.characters)
        if not self.surrogates:
            return letters
        first, last = _SURROGATES[0]
        sets += [((ord(c), ord(c)),) for c in sorted(self.characters)]
        moved = [tuple((lo - first, hi - first) for lo, hi in intersection(s, _SURROGATES)) for s in sets]
        lone = [intersection(ranges, ((0, last - first),)) for _, ranges in classes_of(moved)]
        return (*letters, *(tuple((lo + first, hi + first) for lo, hi in ranges) for ranges in lone if ranges))

    def _classes(self) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Bytes that no edge tells apart are one class."""
        n = len(self.dag_nodes) + 2
        cuts = {0}
        for edges in self.dag_nodes:
            for lo, hi, _ in edges:
                cuts.add(lo)
                cuts.add(hi + 1)
        cuts.discard(256)
        starts = sorted(cuts)
        column = {start: k for k, start in enumerate(starts)}
        column[256] = len(starts)
        table = np.zeros((n, len(starts)), dtype=np.uint16)
        for k, edges in enumerate(self.dag_nodes, start=2):
            row = table[k]
            for lo, hi, child in edges:
                row[column[lo] : column[hi + 1]] = child
        known: dict[bytes, int] = {}
        classes = [known.setdefault(c.tobytes(), len(known)) for c in np.ascontiguousarray(table.T)]
        first: dict[int, int] = {}
        for k, c in enumerate(classes):
            first.setdefault(c, k)
        dag = np.ascontiguousarray(table[:, [first[c] for c in range(len(known))]])
        widths = np.diff([*starts, 256])
        byte_class = np.repeat(np.array(classes, dtype=np.uint8), widths)
        return byte_class, dag


def exit_of_loop(targets: Sequence[int], first: int, stop: int) -> Sequence[int]:
    """Where threads go that come to a split a second time, without a character in between: out of a greedy loop.

    So `re` does it behind an empty iteration: ``(a*?)*`` matches "" before it tries "a". The exit of such a loop stands
    twice among its targets. Only where order counts this makes a difference.
    """
    return targets[stop - 1 : stop] if stop - first == 3 and targets[stop - 1] == targets[stop - 2] else ()


def _check_depth(node: Node) -> None:
    """Refuse what the recursion of `Builder.emit` could not go down."""
    stack = [(node, 1)]
    while stack:
        at, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise LimitExceededError("the pattern is nested too deeply", given=depth, limit=_MAX_DEPTH)
        match at:
            case Concat(items) | Alternation(items) | Intersection(items):
                stack.extend((item, depth + 1) for item in items if not isinstance(item, Literal | CharSet))
            case Repeat(item) | Atomic(item) | Complement(item) | Look(item):
                stack.append((item, depth + 1))
            case _:
                pass


def build_nfa(node: Node, limits: Limits = DEFAULT_LIMITS, *, surrogates: bool = False) -> ByteNfa:
    """The byte NFA of all texts that `node` matches from their start to their end.

    Args:
        node: the pattern.
        limits: bounds on the automaton.
        surrogates: take lone surrogates for characters of three bytes (not inside atomic groups).

    Raises:
        LimitExceededError: more than ``limits.max_nfa_states`` states.
        UnsupportedFeatureError: an atomic group that is not built (see `atomic`).
    """
    _check_depth(node)
    builder = Builder(limits, surrogates)
    start = builder.emit(node, builder.accept, tail=True)
    return builder.finish(start)


def nfa_of_graph(
    graph: CharacterGraph, limits: Limits = DEFAULT_LIMITS, byte_edges: Sequence[Sequence[tuple[int, int, int]]] = ()
) -> ByteNfa:
    """The byte NFA of an automaton over characters.

    Args:
        graph: the automaton.
        limits: what it may cost.
        byte_edges: per state further edges, over single bytes: (lowest, highest, state).
    """
    edges, accepting, start = graph
    builder = Builder(limits)
    states = [builder.add(SPLIT, 0, 0) for _ in edges]
    builder.anchored = True  # some states may be dead
    for k, row in enumerate(edges):
        choices = [builder.char(dag, states[to]) for ranges, to in row if (dag := dag_of(ranges))]
        if byte_edges:
            choices += [builder.char(byte_dag(low, high), states[to]) for low, high, to in byte_edges[k]]
        if accepting[k]:
            choices.append(builder.accept)
        builder.a[states[k]], builder.b[states[k]] = len(builder.targets), len(builder.targets) + len(choices)
        builder.targets.extend(choices)
    return builder.finish(states[start])
