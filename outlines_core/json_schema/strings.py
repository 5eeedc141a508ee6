"""Strings that are judged while they are read.

A `StringRecognizer` reads the *content* of a JSON string (escapes decoded, as UTF-8) and watches several tests at once:
patterns, bounds on the length, lists of values. Its state is the tuple of what each test has to know, so it is
deterministic and a negated test costs what the test costs: acceptance is one bit per test, and which combinations of
bits are wanted is a separate question.

- A pattern is a lazy DFA over the pattern's NFA (`kernels.strings`); if it has look-arounds, intersections or
  complements, over `LookDfa`, whose rows are copied in.
- All bounds on the length share one counter, which stops at the greatest of them.
- All listed values share one trie. Which of them are good is found out at once, by running them.
- A test that is decided takes no part in the state any more than by its bit.

**Life.** A transition leads to a state only if some text from there ends with a good outcome. Most often that can be
seen: a pattern alone is live where its set of NFA positions is not empty; with bounds on the length, if one of its
lengths fits, and an interval of lengths that it surely has is known for every NFA position. The rest (several
patterns, negated ones) takes a search through the states, bounded, every result of which is remembered.

**Surrogates.** JSON can spell a lone surrogate. It comes as its three bytes of generalised UTF-8 and is one character,
as in ECMAScript with the u flag. A high one directly before a low one is one character and comes as that; the content
is WTF-8 (S. Sapin, *The WTF-8 encoding*).

    >>> from outlines_core.regex.parser import parse, search
    >>> tests = (Matches(search(parse("^a+b?$", dialect="ecma"))), Length(0, 3))
    >>> recognizer = StringRecognizer(tests, ((0b11, 0b11),))
    >>> recognizer.distinct(9)
    [b'a', b'ab', b'aa', b'aab', b'aaa']
    >>> state = recognizer.run(b"aaa")
    >>> recognizer.outcome(state), recognizer.row(state).any()
    (3, False)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.kernels import strings as kernel
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import CharSet, Literal, Node, Repeat
from outlines_core.regex.look_dfa import LookDfa
from outlines_core.regex.nfa import ANY, ByteNfa, build_nfa
from outlines_core.regex.simplify import simplify

__all__ = ["Length", "Matches", "OneOf", "StringRecognizer", "StringTest"]

_MAX_SEARCH: Final = 200_000
_CACHED: Final = 512
_CACHED_STATES: Final = 4096
_LOW: Final = (0xDC00, 0xDFFF)
_BYTES: Final = (*range(0x61, 0x7B), *range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x20, 0x7F), *range(256))
_PREFERRED: Final = tuple(dict.fromkeys(_BYTES))  # printable ones first


@dataclass(frozen=True, slots=True)
class Matches:
    """The whole string is in the node's language."""

    node: Node


@dataclass(frozen=True, slots=True)
class Length:
    """The string has at least `low` and at most `high` code points (None, or 2**30 and more: no bound)."""

    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class OneOf:
    """The string is one of these."""

    values: frozenset[str]


StringTest: TypeAlias = Matches | Length | OneOf


def _positions() -> NDArray[np.int32]:
    """The automaton of WTF-8: `kernels.strings` says what its states are."""
    table = np.zeros((kernel.POSITIONS, 256), dtype=np.int32)
    for begin, surrogate in ((1, 9), (2, 11)):
        leads = ((0x00, 0x7F, 1), (0xC2, 0xDF, 3), (0xE0, 0xE0, 6), (0xE1, 0xEC, 4), (0xED, 0xED, surrogate))
        for low, high, target in (*leads, (0xEE, 0xEF, 4), (0xF0, 0xF0, 7), (0xF1, 0xF3, 5), (0xF4, 0xF4, 8)):
            table[begin, low : high + 1] = target
    within = ((3, 0x80, 0xBF, 1), (4, 0x80, 0xBF, 3), (5, 0x80, 0xBF, 4), (6, 0xA0, 0xBF, 3), (7, 0x90, 0xBF, 4))
    surrogates = ((9, 0x80, 0x9F, 3), (9, 0xA0, 0xAF, 10), (9, 0xB0, 0xBF, 3), (10, 0x80, 0xBF, 2))
    after_high = ((11, 0x80, 0x9F, 3), (11, 0xA0, 0xAF, 10))
    for state, low, high, target in (*within, (8, 0x80, 0x8F, 4), *surrogates, *after_high):
        table[state, low : high + 1] = target
    return table


_POSITIONS = _positions()
_IS_HEAD = (np.arange(256) & 0xC0) != 0x80
_VALID = _POSITIONS.any(axis=0)
_BYTE_CLASS: NDArray[np.int32] = np.unique(_POSITIONS, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int32)


class _Program:
    """What recognizers need of a pattern, made once."""

    def __init__(self, node: Node, limits: Limits) -> None:
        self.source = node  # keeps the identity that `_programs` knows it by
        node = simplify(node)
        self.length: Length | None = None
        if isinstance(node, Repeat) and isinstance(node.item, CharSet) and node.item.ranges == ANY:
            self.length = Length(node.min, node.max)
            return
        self.nfa = nfa = build_nfa(node, limits, surrogates=True)
        if nfa.looks:
            self.only_low = any(_only_low(letter) for letter in nfa.letters)
            return
        self.only_low = _needs_low(node)
        self.arrays = prog = np.zeros((nfa.n_states, kernel.N_SIZE), dtype=np.int32)
        for column, values in enumerate((nfa.kind, nfa.a, nfa.b, nfa.useful)):
            prog[:, column] = values
        heads = np.zeros(nfa.n_classes, dtype=np.bool_)
        heads[nfa.byte_class[_IS_HEAD]] = True
        is_char = nfa.kind == 0
        prog[is_char, 7] = (nfa.dag[:, heads] != 0).any(axis=1)[nfa.a[is_char]]
        if nfa.any_root:
            self._mark_everything(nfa, prog)
        kernel.spans(prog, nfa.targets)

    @staticmethod
    def _mark_everything(nfa: ByteNfa, prog: NDArray[np.int32]) -> None:
        """Where any character leads back to a choice between itself and the end, everything that follows matches."""
        for node in np.flatnonzero((nfa.kind == 0) & (nfa.a == nfa.any_root)).tolist():
            after = int(nfa.b[node])
            if nfa.kind[after] == 1:
                choices = nfa.targets[nfa.a[after] : nfa.b[after]]
                prog[node, 4] = node in choices and bool((nfa.kind[choices] == 2).any())


def _only_low(ranges: Sequence[tuple[int, int]]) -> bool:
    return bool(ranges) and ranges[0][0] >= _LOW[0] and ranges[-1][1] <= _LOW[1]


def _needs_low(node: Node) -> bool:
    """Is there a place for low surrogates only?  Behind a high one no text comes through there."""
    stack = [node]
    while stack:
        at = stack.pop()
        match at:
            case CharSet(ranges):
                if _only_low(ranges):
                    return True
            case Literal(text):
                if not text.isascii() and any(_LOW[0] <= ord(char) <= _LOW[1] for char in text):
                    return True
            case _:
                stack.extend(getattr(at, "items", ()))
                if (item := getattr(at, "item", None)) is not None:
                    stack.append(item)
    return False


_programs: dict[tuple[int, Limits], _Program] = {}


def _program(node: Node, limits: Limits) -> _Program:
    """The program of a pattern, remembered by the identity of the AST: readers keep those of equal patterns."""
    key = (id(node), limits)
    known = _programs.get(key)
    if known is None:
        known = _Program(node, limits)
        if known.length is not None or known.nfa.n_states <= _CACHED_STATES:
            if len(_programs) >= _CACHED:
                _programs.clear()
            _programs[key] = known
    return known


class StringRecognizer:
    """The lazy automaton of some tests on a string and a goal on their outcomes.

    Args:
        tests: bit j of an outcome says whether the string passes ``tests[j]``.
        cubes: (care, value) pairs: an outcome o is good if ``o & care == value`` for one of them.
        limits: `max_states` and `max_state_bytes` bound the automaton; a search for life visits at most 200,000 states.
        alphabet: (256,) the bytes that can be spelled; None: all.

    Attributes:
        start: the state before the first byte; 0 if no string at all is good.

    States are ints from 2 on; equal ones have equal futures. The caller serialises all calls.
    """

    def __init__(
        self,
        tests: tuple[StringTest, ...],
        cubes: tuple[tuple[int, int], ...],
        limits: Limits = DEFAULT_LIMITS,
        *,
        alphabet: NDArray[np.bool_] | None = None,
    ) -> None:
        self.tests, self.limits = tests, limits
        self._alphabet = alphabet
        programs: list[_Program] = []
        rows: list[tuple[int, int, int]] = []
        top = 0
        listed: list[int] = []
        for number, test in enumerate(tests):
            length = test if isinstance(test, Length) else None
            if isinstance(test, Matches):
                program = _program(test.node, limits)
                length = program.length
                if length is None:
                    if program not in programs:
                        programs.append(program)
                    rows.append((kernel.MATCHES, programs.index(program), 0))
            elif isinstance(test, OneOf):
                listed.append(number)
                rows.append((kernel.ONE_OF, number, 0))
            if length is not None:
                low = length.low
                high = kernel.INF if length.high is None else min(length.high, kernel.INF)
                if low >= kernel.INF:
                    raise LimitExceededError(
                        f"a string of at least {low:,} characters is too long", given=low, limit=kernel.INF - 1
                    )
                rows.append((kernel.LENGTH, low, high))
                top = max(top, low if high == kernel.INF else high + 1)
        self._rows = rows
        self._witness: dict[int, bytes] = {}
        self._allocate(programs, _goal(cubes, rows), top)
        self._listed(listed)
        start = np.array([1, 0, 1 if listed else 0, *self._parts_at_start(programs)], dtype=np.int64)
        if listed:
            self._grade(start)
        self.start = self._ask(kernel.enter, start)

    # -- tables -----------------------------------------------------------------------------------------------------

    def _allocate(self, programs: list[_Program], cubes: list[int], top: int) -> None:
        byte_class = _BYTE_CLASS
        for program in programs:
            joined = byte_class * 256 + program.nfa.byte_class
            byte_class = np.unique(joined, return_inverse=True)[1].reshape(-1).astype(np.int32)
        first = np.unique(byte_class, return_index=True)[1] if programs else _FIRST_BYTES
        n_classes = len(first)
        steps = np.zeros((kernel.SIZES + 1, n_classes), dtype=np.int32)
        steps[: kernel.POSITIONS] = _POSITIONS[:, first]
        steps[kernel.HEADS] = _IS_HEAD[first]
        class_of = byte_class
        self._exact = not any(program.only_low for program in programs)
        if self._alphabet is not None:
            class_of = np.where(self._alphabet, byte_class, -1).astype(np.int32)
            self._exact &= bool(self._alphabet[_VALID].all())
        steps[kernel.SIZES] = np.bincount(class_of[class_of >= 0], minlength=n_classes)
        steps[: kernel.POSITIONS, steps[kernel.SIZES] == 0] = 0
        self._first = first
        self._looks: list[tuple[LookDfa, dict[int, int]]] = []
        self._owed: dict[int, tuple[int, int]] = {}

        plain = [program for program in programs if not program.nfa.looks]
        self._entries, prog, targets, dag = _joined(plain, first)
        goal = np.array([*class_of.tolist(), kernel.GOAL_END + 1 + len(cubes), *cubes], dtype=np.int32)
        self._fixed = (prog, targets, dag, goal, steps, np.zeros((2, kernel.T_SIZE), dtype=np.int32))

        n_slots, n_nodes = len(programs), len(prog)
        capacity = 32 if n_slots else 2
        info = np.zeros((capacity, kernel.D_SIZE + n_classes), dtype=np.int64)
        info[1, kernel.D_SIZE :] = info[1, kernel.D_ACCEPT] = info[1, kernel.D_SURE] = 1
        info[:2, kernel.D_FILLED] = 1
        pool = np.zeros(256 if n_slots else 0, dtype=np.int64)
        self._parts = (info, pool, np.full(64, -1, dtype=np.int32))
        states = np.zeros((64, kernel.P_SIZE + 3 + n_slots), dtype=np.int64)
        self._product = (states, np.full(128, -1, dtype=np.int32), np.zeros((600, 4), dtype=np.int64))
        self._scratch = (
            np.zeros((2, n_nodes + len(targets) + 1), dtype=np.int32),
            np.zeros(2 * n_nodes + 16, dtype=np.int64),
            np.zeros((4, n_classes + 256 + n_slots), dtype=np.int64),
        )
        self._meta = meta = np.zeros(kernel.META_SIZE, dtype=np.int64)
        meta[kernel.M_N_PARTS] = meta[kernel.M_N_STATES] = 2
        meta[kernel.M_BUDGET] = min(_MAX_SEARCH, self.limits.max_states)
        meta[kernel.M_EXACT] = self._exact
        meta[kernel.M_TOP] = top

    def _parts_at_start(self, programs: list[_Program]) -> list[int]:
        """The states of all patterns before the first byte."""
        starts: list[int] = []
        entries = iter(self._entries)
        for program in programs:
            if program.nfa.looks:
                dfa = LookDfa(program.nfa, self.limits)
                self._looks.append((dfa, {0: 0, dfa.universe: 1}))
                starts.append(self._look_part(len(self._looks) - 1, dfa.start))
            else:
                node = next(entries)
                while (part := kernel.enter_part(self._fixed, self._parts, self._scratch, self._meta, node)) < 0:
                    self._provide(part)
                starts.append(part)
        return starts

    def _listed(self, numbers: list[int]) -> None:
        """Build the trie of all listed values."""
        if not numbers:
            return
        tests_of: dict[bytes, list[int]] = {}
        for number in numbers:
            test = self.tests[number]
            assert isinstance(test, OneOf)
            for value in test.values:
                tests_of.setdefault(_wtf8(value), []).append(number)
        ordered = sorted(tests_of)
        data = np.frombuffer(bytearray().join(ordered), dtype=np.uint8)  # writable, as the kernels know arrays
        ends = np.cumsum(np.fromiter(map(len, ordered), dtype=np.int64, count=len(ordered)))
        trie = np.zeros((len(data) + 3, kernel.T_SIZE), dtype=np.int32)
        trie = trie[: kernel.build_trie(data, ends, trie) + 1]
        listing = [tests_of[value] for value in ordered]
        before = np.zeros(len(ordered) + 1, dtype=np.int32)
        before[1:] = np.cumsum(np.fromiter(map(len, listing), dtype=np.int32, count=len(listing)))
        trie[:, kernel.T_LISTED] = before[trie[:, kernel.T_VALUES]]
        trie[:, kernel.T_GOOD] = trie[:, kernel.T_VALUES]  # all good, until they are graded
        prog, targets, dag, goal, steps, _ = self._fixed
        goal = np.concatenate([goal, np.fromiter(chain.from_iterable(listing), dtype=np.int32)])
        self._fixed = (prog, targets, dag, goal, steps, trie)
        self._longest = max(map(len, ordered), default=0)

    def _grade(self, start: NDArray[np.int64]) -> None:
        """Find out which of the listed values are good."""
        path, tuples = np.zeros(self._longest + 1, np.int32), np.zeros((self._longest + 1, len(start)), np.int64)
        node = 1
        while True:
            status = kernel.grade_values(self._fixed, self._parts, self._scratch, self._meta, start, node, path, tuples)
            if status >= 0:
                break
            node = int(self._meta[kernel.M_OUT])
            self._provide(status)

    # -- what the kernels ask for -----------------------------------------------------------------------------------

    def _ask(self, question: Any, *arguments: Any) -> int:
        """Call a kernel until it has all it needs."""
        while True:
            answer = int(question(self._fixed, self._parts, self._product, self._scratch, self._meta, *arguments))
            if answer >= 0:
                return answer
            self._provide(answer)

    def _provide(self, status: int) -> None:
        if status == kernel.FULL:
            self._grow(int(self._meta[kernel.M_FULL]))
        elif status == kernel.OWED:
            self._fill_look(int(self._meta[kernel.M_OWED]))
        else:
            limit = int(self._meta[kernel.M_BUDGET])
            raise LimitExceededError(
                f"whether a string can meet the constraint takes a search through more than {limit:,} states "
                "(Limits.max_states)",
                given=limit + 1,
                limit=limit,
            )

    def _grow(self, what: int) -> None:
        """Double a table.  Raises LimitExceededError; everything stays as it is then."""
        limits = self.limits
        info, pool, part_table = self._parts
        states, table, queue = self._product
        n = int(self._meta[kernel.M_N_PARTS if what == kernel.FULL_PARTS else kernel.M_N_STATES])
        if what in (kernel.FULL_PARTS, kernel.FULL_STATES) and n >= limits.max_states:
            raise LimitExceededError(
                f"the tests on a string need more than {limits.max_states:,} automaton states (Limits.max_states)",
                given=n + 1,
                limit=limits.max_states,
            )
        nbytes = self.nbytes
        if nbytes > limits.max_state_bytes:
            raise LimitExceededError(
                f"the states of the tests on a string take {nbytes:,} bytes (Limits.max_state_bytes)",
                given=nbytes,
                limit=limits.max_state_bytes,
            )
        if what == kernel.FULL_PARTS:
            info, part_table = _more(info), np.full(4 * len(info), -1, dtype=np.int32)
            kernel.rehash(info, kernel.D_HASH, n, part_table)
        elif what == kernel.FULL_POOL:
            pool = _more(pool, len(self._scratch[1]))
        elif what == kernel.FULL_STATES:
            states, table = _more(states), np.full(4 * len(states), -1, dtype=np.int32)
            kernel.rehash(states, kernel.P_HASH, n, table)
        else:
            queue = _more(queue)
        self._parts, self._product = (info, pool, part_table), (states, table, queue)

    def _look_part(self, look: int, state: int) -> int:
        """The part state of a state of a pattern with look-around."""
        dfa, numbers = self._looks[look]
        part = numbers.get(state)
        if part is None:
            part = int(self._meta[kernel.M_N_PARTS])
            if part >= len(self._parts[0]):
                self._grow(kernel.FULL_PARTS)
            info = self._parts[0]
            info[part] = 0
            info[part, kernel.D_BEGIN] = info[part, kernel.D_END] = info[part - 1, kernel.D_END]
            info[part, kernel.D_ACCEPT] = dfa.accept[state]
            info[part, kernel.D_FAR] = info[part, kernel.D_HASH] = -1
            info[part, kernel.D_FILLED] = kernel.LATER
            info[part, kernel.D_SURE] = bool(dfa.nfa.letters)  # its search for life goes by whole characters
            self._meta[kernel.M_N_PARTS] = part + 1
            numbers[state] = part
            self._owed[part] = look, state
        return part

    def _fill_look(self, part: int) -> None:
        look, state = self._owed[part]
        dfa = self._looks[look][0]
        targets = dfa.row(state)[dfa.byte_class[self._first]].tolist()
        row = [self._look_part(look, target) for target in targets]
        self._parts[0][part, kernel.D_SIZE :] = row
        self._parts[0][part, kernel.D_FILLED] = 1
        del self._owed[part]

    # -- the automaton ----------------------------------------------------------------------------------------------

    def row(self, state: int) -> NDArray[np.int32]:
        """The next state for each byte; 0 where no good string continues so.

        Raises:
            LimitExceededError: too many states; the recognizer stays valid.
        """
        row = np.zeros(256, dtype=np.int32)
        if state:
            self._ask(kernel.fill_row, state, row)
        return row

    def run(self, text: bytes) -> int:
        """The state after `text`."""
        state = self.start
        for byte in text:
            state = int(self.row(state)[byte])
        return state

    def outcome(self, state: int) -> int:
        """Which tests the string passes if it ends here (bit j: ``tests[j]``); -1 if it cannot, or that is not good."""
        entry = self._product[0][state].tolist()
        if state == 0 or not entry[kernel.P_GOOD]:
            return -1
        _, count, node, *parts = entry[kernel.P_SIZE :]
        result = 0
        if node:
            goal, trie = self._fixed[3], self._fixed[5]
            begin, end = trie[node : node + 2, kernel.T_LISTED] + goal[kernel.GOAL_END]
            result = sum(1 << number for number in goal[begin:end].tolist())
        accept = self._parts[0][:, kernel.D_ACCEPT]
        for number, (kind, first, second) in enumerate(self._rows):
            if kind == kernel.MATCHES:
                result |= int(accept[parts[first]]) << number
            elif kind == kernel.LENGTH and first <= count and (count <= second or second == kernel.INF):
                result |= 1 << number
        return result

    def witness(self, state: int) -> bytes:
        """A completion of a live state with as few characters as possible."""
        known = self._witness.get(state)
        if known is None:
            known = self._shortest(state)
        return known

    def _shortest(self, state: int) -> bytes:
        """A* search for a good end, or for a state whose shortest completion is known already."""
        came_from: dict[int, tuple[int, int]] = {}
        cost = {state: 0}
        queue = [(self._need(state), 0, 0, state)]
        pushed = 0
        while queue:
            _, _, _, at = heappop(queue)
            known = b"" if self._product[0][at, kernel.P_GOOD] else self._witness.get(at)
            if known is not None:
                self._witness[at] = known
                while at != state:
                    at, byte = came_from[at]
                    known = bytes([byte]) + known
                    self._witness[at] = known
                return known
            row = self.row(at).tolist()
            seen: set[int] = {0}
            for byte in _PREFERRED:
                target = row[byte]
                if target in seen:
                    continue
                seen.add(target)
                length = cost[at] + _starts_character(byte)
                if length < cost.get(target, kernel.INF):
                    cost[target] = length
                    came_from[target] = at, byte
                    pushed += 1
                    heappush(queue, (length + self._need(target), -length, pushed, target))
        raise ValueError(f"state {state} is not live")

    def _need(self, state: int) -> int:
        """A lower bound on the characters from `state` to a good end; the number itself where it is known."""
        known = self._witness.get(state)
        return int(self._product[0][state, kernel.P_NEED]) if known is None else sum(map(_starts_character, known))

    def distinct(self, k: int) -> list[bytes]:
        """Up to `k` different good strings (their content bytes), fewer only if there are no more.

        Each entry of the queue stands for all good strings that begin with its text; a shortest one of them is listed,
        and the others are divided up by where they leave it (after E. L. Lawler's method for the k best solutions).
        """
        found: list[bytes] = []
        queue = deque([(b"", self.start)] if self.start else [])
        while queue and len(found) < k:
            text, state = queue.popleft()
            rest = self.witness(state)
            found.append(text + rest)
            for taken in (*rest, -1):
                if len(found) + len(queue) >= k:
                    break
                row = self.row(state).tolist()
                for byte in _PREFERRED:
                    if row[byte] and byte != taken:
                        queue.append((text + bytes([byte]), row[byte]))
                        if len(found) + len(queue) >= k:
                            break
                if taken >= 0:
                    text, state = text + bytes([taken]), row[taken]
        return found

    @property
    def nbytes(self) -> int:
        """Memory of the tables, roughly."""
        arrays = (*self._fixed, *self._parts, *self._product, *self._scratch)
        return sum(int(array.nbytes) for array in arrays) + sum(dfa.nbytes for dfa, _ in self._looks)


def _goal(cubes: tuple[tuple[int, int], ...], tests: list[tuple[int, int, int]]) -> list[int]:
    """The cubes as the kernels read them; without those that want a bit they do not look at, or one of no test."""
    out: list[int] = []
    for care, value in cubes:
        if value & ~care == 0 and value >> len(tests) == 0:
            literals = [(kind, value >> j & 1, p, q) for j, (kind, p, q) in enumerate(tests) if care >> j & 1]
            out += [len(literals), *chain.from_iterable(literals)]
    return out


def _joined(
    programs: list[_Program], first: NDArray[np.intp]
) -> tuple[list[int], NDArray[np.int32], NDArray[np.int32], NDArray[np.uint16]]:
    """The NFAs side by side: their entries, nodes, targets, and DAG over the byte classes that begin at `first`."""
    if not programs:
        return [], _NO_NODES, np.zeros(0, dtype=np.int32), np.zeros((2, len(first)), dtype=np.uint16)
    entries: list[int] = []
    progs: list[NDArray[np.int32]] = []
    targets: list[NDArray[np.int32]] = []
    dags: list[NDArray[np.uint16]] = []
    n_nodes = n_targets = n_dag = 0
    for program in programs:
        nfa = program.nfa
        prog, dag = program.arrays, nfa.dag[:, nfa.byte_class[first]]
        if entries:
            prog = prog.copy()
            is_char, is_split = prog[:, 0] == 0, prog[:, 0] == 1
            prog[is_char, 1] += n_dag
            prog[is_split, 1:3] += n_targets
            prog[~is_split, 2] += n_nodes
            dag = np.where(dag >= 2, dag + np.uint16(n_dag), dag)
        entries.append(nfa.start + n_nodes)
        progs.append(prog)
        targets.append(nfa.targets + np.int32(n_nodes))
        dags.append(np.ascontiguousarray(dag))
        n_nodes, n_targets, n_dag = n_nodes + len(prog), n_targets + len(nfa.targets), n_dag + len(dag)
        if n_dag > 65_000:
            raise LimitExceededError("the patterns' character sets are too many", given=n_dag, limit=65_000)
    return entries, np.concatenate(progs), np.concatenate(targets), np.concatenate(dags)


def _starts_character(byte: int) -> bool:
    return byte & 0xC0 != 0x80


def _wtf8(text: str) -> bytes:
    """The bytes of a string as JSON means it: two surrogates that make a character are that character."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass").encode(errors="surrogatepass")


def _more(array: NDArray[Any], extra: int = 0) -> NDArray[Any]:
    larger = np.zeros((2 * len(array) + extra, *array.shape[1:]), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


_FIRST_BYTES = np.unique(_BYTE_CLASS, return_index=True)[1]
_NO_NODES = np.zeros((0, kernel.N_SIZE), dtype=np.int32)
