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
    [b'a', b'aa', b'ab', b'aaa', b'aab']
    >>> state = recognizer.run(b"aaa")
    >>> recognizer.outcome(state), bool(recognizer.row(state).any())
    (3, False)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.string_patterns import Layout, Program, pattern_program
from outlines_core.kernels import string_tables
from outlines_core.kernels import strings as kernel
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Node
from outlines_core.regex.look_dfa import LookDfa

__all__ = ["Length", "Matches", "OneOf", "StringRecognizer", "StringTest"]

_MAX_SEARCH: Final = 200_000
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
        self._cubes = cubes
        self._programs: list[Program] = []
        rows: list[tuple[int, int, int]] = []
        listed: list[int] = []
        for number, test in enumerate(tests):
            if isinstance(test, OneOf):
                listed.append(number)
                rows.append((kernel.ONE_OF, number, 0))
            elif isinstance(test, Length):
                rows.append(_length_row(test.low, test.high))
            else:
                rows.append(self._pattern_row(pattern_program(test.node, limits)))
        self._rows = rows
        self._witness: dict[int, bytes] = {}
        self._endurance: NDArray[np.int32] | None = None
        self._bounds = sorted({n for kind, low, high in rows if kind == kernel.LENGTH for n in (low, high + 1)})
        self._allocate(Layout(self._programs, alphabet), _goal(cubes, rows))
        self._list_values(listed)
        start = np.array([1, 0, 1 if listed else 0, *self._parts_at_start()], dtype=np.int64)
        if listed:
            self._grade(start)
        near = self._fixed[0][:, kernel.N_NEAR]
        self._farthest = int(near[near < kernel.INF].max(initial=0))
        # everything is wanted: then life is a matter of the characters to go
        all_wanted = len(cubes) == 1 and cubes[0][0] == cubes[0][1]
        self._is_one_pattern = self._layout.is_exact and all_wanted and not self._looks
        self.start = self._ask(kernel.enter, start)

    def _pattern_row(self, program: Program) -> tuple[int, int, int]:
        if program.length is not None:
            return _length_row(*program.length)
        if program not in self._programs:
            self._programs.append(program)
        return kernel.MATCHES, self._programs.index(program), 0

    # -- tables -----------------------------------------------------------------------------------------------------

    def _allocate(self, layout: Layout, cubes: list[int]) -> None:
        self._layout = layout
        self._looks: list[tuple[LookDfa, dict[int, int]]] = []
        self._owed: dict[int, tuple[int, int]] = {}
        goal = np.array([*layout.class_of.tolist(), kernel.GOAL_END + 1 + len(cubes), *cubes], dtype=np.int32)
        no_trie = np.zeros((2, kernel.T_SIZE), dtype=np.int32)
        self._fixed = (layout.prog, layout.targets, layout.dag, goal, layout.steps, no_trie)

        n_slots, n_nodes, n_classes = len(self._programs), len(layout.prog), len(layout.first)
        capacity = 32 if n_slots else 2
        info = np.zeros((capacity, kernel.D_SIZE + n_classes), dtype=np.int64)
        info[1, kernel.D_SIZE :] = info[1, kernel.D_ACCEPT] = info[1, kernel.D_SURE] = 1
        info[:2, kernel.D_FILLED] = 1
        pool = np.zeros(256 if n_slots else 0, dtype=np.int64)
        self._parts = (info, pool, np.full(64, -1, dtype=np.int32))
        states = np.zeros((64, kernel.P_SIZE + 3 + n_slots), dtype=np.int64)
        self._product = (states, np.full(128, -1, dtype=np.int32), np.zeros((600, 4), dtype=np.int64))
        self._scratch = (
            np.zeros((2, n_nodes + len(layout.targets) + 1), dtype=np.int32),
            np.zeros(2 * n_nodes + 16, dtype=np.int64),
            np.zeros((4, n_classes + 256 + n_slots), dtype=np.int64),
        )
        self._meta = meta = np.zeros(kernel.META_SIZE, dtype=np.int64)
        meta[kernel.M_N_PARTS] = meta[kernel.M_N_STATES] = 2
        meta[kernel.M_BUDGET] = min(_MAX_SEARCH, self.limits.max_states)
        meta[kernel.M_EXACT] = layout.is_exact
        meta[kernel.M_TOP] = max((bound for bound in self._bounds if bound <= kernel.INF), default=0)

    def _parts_at_start(self) -> list[int]:
        """The states of all patterns before the first byte."""
        starts: list[int] = []
        entries = iter(self._layout.entries)
        for program in self._programs:
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

    def _list_values(self, numbers: list[int]) -> None:
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
        trie = trie[: string_tables.build_trie(data, ends, trie) + 1]
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
        targets = dfa.row(state)[dfa.byte_class[self._layout.first]].tolist()
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
        self.write_row(state, row)
        return row

    def write_row(self, state: int, out_row: NDArray[np.int32]) -> None:
        """Write `row` into (256,) `out_row`."""
        if state:
            self._ask(kernel.fill_row, state, out_row)
        else:
            out_row[:] = 0

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

    def needed(self, states: list[int]) -> NDArray[np.int64]:
        """How many more characters each state needs at least; exact if `counts_apart`."""
        return self._product[0][states, kernel.P_NEED]

    @property
    def counts_apart(self) -> bool:
        """Is this one pattern, so that a bound on the length can be watched by counting beside it?"""
        return self._is_one_pattern and len(self._programs) == len(self._rows) == 1

    @property
    def has_any_length(self) -> bool:
        """Do texts of all lengths, from the least on, lead from each state to the end?  A sufficient test."""
        prog = self._fixed[0]
        chars = prog[(prog[:, kernel.N_KIND] == 0) & (prog[:, kernel.N_NEAR] < kernel.INF)]
        endless = (chars[:, kernel.N_NEAR] <= 1).all() and (chars[:, kernel.N_FAR] == kernel.INF).all()
        return bool(endless and self.start and self.row(self.start).any())  # what can go on at all can go on for ever

    def endurance(self, state: int, most: int) -> int:
        """How many characters can follow, whatever they are, without leaving all good strings: a bound from below.

        At most `most`, which must be the same in all calls; 0 where nothing is known.
        """
        position, count, _, *parts = self._product[0][state, kernel.P_SIZE :].tolist()
        if not state or position != 1:
            return 0
        wanted = (care for care, value in self._cubes if care == value)
        return max((self._endures(care, count, parts, most) for care in wanted), default=0)

    def _endures(self, wanted: int, count: int, parts: list[int], most: int) -> int:
        """`endurance` of what passes the `wanted` tests."""
        least, room, slots = 0, most, set()
        for kind, first, second in (row for number, row in enumerate(self._rows) if wanted >> number & 1):
            if kind == kernel.ONE_OF:
                return 0
            if kind == kernel.MATCHES:
                slots.add(first)
            else:
                least, room = max(least, first), min(room, second - count)
        if least > count + room:
            return 0
        slots = {slot for slot in slots if parts[slot] != 1}
        if slots:
            if len(slots) > 1 or self._looks or least > count or not self._layout.is_exact:
                return 0
            if room < most:  # wherever it goes, it must still come to an end
                room -= self._farthest
            room = min(room, self._part_endures(parts[slots.pop()], most))
        return max(room, 0)

    def _part_endures(self, part: int, most: int) -> int:
        if self._endurance is None:
            self._endurance = self._layout.endurance(most)
        info, pool, _ = self._parts
        items = pool[info[part, kernel.D_BEGIN] : info[part, kernel.D_END]]
        nodes = items >> 16
        fresh = nodes[(items & 0xFFFF) == self._fixed[0][nodes, kernel.N_A]]
        sure = self._endurance[:, fresh]
        return int(sure.max(axis=1).min()) if sure.size else 0

    @property
    def farthest(self) -> int:
        """The most characters that any state of a pattern needs at least."""
        return self._farthest

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

    def alike(self, state: int, n_bytes: int) -> int:
        """A state that behaves like `state` for all texts of up to `n_bytes` bytes; `state` itself if none is known.

        "Behaves" is: the same transitions are dead, and the same outcomes come. Far from all bounds on the length it
        does not matter how many characters there were, so what is made for one state serves thousands.
        """
        if state == 0:
            return 0
        entry = self._product[0][state, kernel.P_SIZE :].copy()
        count, open_parts = int(entry[1]), [part for part in entry[3:].tolist() if part > 1]
        slack = n_bytes
        if entry[2] or not self._bounds or count >= self._bounds[-1]:
            return state
        if open_parts:
            if len(open_parts) > 1 or not self._is_one_pattern:
                return state
            slack += self._farthest
        passed = [bound for bound in self._bounds if bound <= count]
        if self._bounds[len(passed)] <= count + slack:
            return state
        if open_parts and any(kind == kernel.LENGTH and low > count for kind, low, _ in self._rows):
            return state
        entry[1] = passed[-1] if passed else 0
        return self._ask(kernel.enter, entry)

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


def _length_row(low: int, high: int | None) -> tuple[int, int, int]:
    if low >= kernel.INF:
        raise LimitExceededError(
            f"a string of at least {low:,} characters is too long", given=low, limit=kernel.INF - 1
        )
    return kernel.LENGTH, low, kernel.INF if high is None else min(high, kernel.INF)


def _goal(cubes: tuple[tuple[int, int], ...], tests: list[tuple[int, int, int]]) -> list[int]:
    """The cubes as the kernels read them; without those that want a bit they do not look at, or one of no test."""
    out: list[int] = []
    for care, value in cubes:
        if value & ~care == 0 and value >> len(tests) == 0:
            care &= (1 << len(tests)) - 1
            out.append(care.bit_count())
            while care:  # bit by bit: there may be thousands of tests, with a cube for each
                lowest = care & -care
                kind, p, q = tests[lowest.bit_length() - 1]
                out += (kind, value & lowest != 0, p, q)
                care ^= lowest
    return out


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
