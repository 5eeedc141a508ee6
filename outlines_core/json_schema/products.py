"""Strings under tests that are no regular expressions: host names and regexes beside whatever else a schema asks.

The automata of such formats stand as components beside a `StringRecognizer` for the other tests and a counter for the
bounds on the length. A state is the tuple of what they know. It is live if a good outcome can be reached:

* A regex can become one of any length from its shortest completion on, so together with bounds on the length, or with
  strings that it must not be, the question is arithmetic.
* Otherwise it takes a search, best first: each component says how many characters it needs at least. Every answer is
  remembered; a search without an end is a `LimitExceededError`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.formats import format_automaton
from outlines_core.json_schema.host_names import HostNames
from outlines_core.json_schema.regex_syntax import RegexSyntax, n_chars
from outlines_core.json_schema.strings import OneOf
from outlines_core.limits import Limits

__all__ = ["FormatRecognizer", "ProductRecognizer"]

_MAX_SEARCH: Final = 3000
_BYTES: Final = (*b"abcdefghijklmnopqrstuvwxyz0123456789-.", *range(0x20, 0x61), *range(0x7B, 256), *range(0x20))
_PREFERRED: Final = tuple(dict.fromkeys(_BYTES))
_STARTS: Final = np.array([byte & 0xC0 != 0x80 for byte in range(256)])
_NOWHERE: Final = [0] * 256


def _automaton(name: str, limits: Limits) -> HostNames | RegexSyntax:
    found = format_automaton(name, limits)
    assert found is not None
    return found


class _Searching:
    """What can be found out about a recognizer by looking around."""

    start: int

    def row(self, state: int) -> NDArray[np.int32]:
        raise NotImplementedError

    def write_row(self, state: int, out_row: NDArray[np.int32]) -> None:
        """Write `row` into (256,) `out_row`."""
        out_row[:] = self.row(state)

    def outcome(self, state: int) -> int:
        raise NotImplementedError

    def _raw_row(self, state: int) -> NDArray[np.int32]:
        """Transitions, perhaps to dead ends as well."""
        return self.row(state)

    def _need(self, state: int) -> int | None:
        """A lower bound on the characters to a good end; None: there is none."""
        return 0 if state else None

    def _path(self, state: int, is_goal: Callable[[int], bool]) -> tuple[list[int], bytes | None]:
        """A way to a goal through as few characters as possible: its states and bytes.

        None: there is no way; then the states are all that can be reached.
        """
        came: dict[int, tuple[int, int]] = {}
        costs = {state: 0}
        queue = [(self._need(state) or 0, 0, 0, state)]  # of equally promising ones, the farthest come first
        pushed, done = 0, set[int]()
        while queue:
            _, depth, _, at = heappop(queue)
            if is_goal(at):
                states, text = [at], bytearray()
                while at != state:
                    at, byte = came[at]
                    states.append(at)
                    text.append(byte)
                return states[::-1], bytes(text[::-1])
            if at in done:
                continue
            done.add(at)
            if len(done) > _MAX_SEARCH:
                raise LimitExceededError(
                    "whether a string of some format satisfies the rest of its schema takes too long to find out",
                    given=len(done),
                    limit=_MAX_SEARCH,
                )
            row = self._raw_row(at).tolist()
            for target in dict.fromkeys(row):
                need = self._need(target) if target else None
                if need is None:
                    continue
                byte = next(byte for byte in _PREFERRED if row[byte] == target)
                cost = costs[at] + bool(_STARTS[byte])
                if cost < costs.get(target, cost + 1):
                    costs[target], came[target] = cost, (at, byte)
                    pushed += 1
                    heappush(queue, (cost + need, depth - 1, pushed, target))
        return list(done), None

    def witness(self, state: int) -> bytes:
        """A shortest completion of a live state."""
        text = self._path(state, lambda at: self.outcome(at) >= 0)[1]
        if text is None:
            raise ValueError(f"state {state} is not live")
        return text

    def distinct(self, k: int) -> list[bytes]:
        """Up to `k` different good strings, fewer only if there are no more (see `StringRecognizer.distinct`)."""
        found: list[bytes] = []
        queue = deque([(b"", self.start)] if self.start else [])
        while queue and len(found) < k:
            text, state = queue.popleft()
            rest = self.witness(state)
            found.append(text + rest)
            for taken in (*rest, -1):
                row = self.row(state).tolist()
                more = [byte for byte in _PREFERRED if row[byte] and byte != taken]
                queue.extend((text + bytes([byte]), row[byte]) for byte in more[: max(0, k - len(found) - len(queue))])
                if taken >= 0:
                    text, state = text + bytes([taken]), row[taken]
        return found


class FormatRecognizer(_Searching):
    """A recognizer (see `strings`) whose one test is a format, wanted."""

    def __init__(self, name: str, limits: Limits) -> None:
        self._automaton = _automaton(name, limits)
        self.start = self._automaton.start

    @property
    def nbytes(self) -> int:
        return self._automaton.nbytes

    def row(self, state: int) -> NDArray[np.int32]:
        return self._automaton.row(state)

    def outcome(self, state: int) -> int:
        return 1 if self._automaton.accepts(state) else -1

    def _need(self, state: int) -> int | None:
        if not state:
            return None
        return self._automaton.need(state) if isinstance(self._automaton, RegexSyntax) else 0

    def witness(self, state: int) -> bytes:
        return self._automaton.witness(state) if isinstance(self._automaton, RegexSyntax) else super().witness(state)


class ProductRecognizer(_Searching):
    """A recognizer (see `strings`) of several tests.

    Args:
        formats: (bit, format name) pairs.
        lengths: (bit, low, high) of the bounds on the length.
        others: a recognizer of all other tests, good wherever a cube is as far as they go.
        bits: the bit of each test of `others`.
        can_spell: are there all the characters that a completion of a regex needs?
    """

    def __init__(
        self,
        formats: list[tuple[int, str]],
        lengths: list[tuple[int, int, int | None]],
        others: Any,
        bits: list[int],
        cubes: tuple[tuple[int, int], ...],
        limits: Limits,
        *,
        can_spell: bool = True,
    ) -> None:
        self._formats = [(1 << bit, _automaton(name, limits)) for bit, name in formats]
        self._lengths = [(1 << bit, low, high) for bit, low, high in lengths]
        self._cap = max((n for _, low, high in self._lengths for n in (low, (high or 0) + 1)), default=0)
        self._others, self._bits, self._cubes, self._limits = others, bits, cubes, limits
        self._can_spell = can_spell
        self._listed = sum(1 << bit for bit, test in zip(bits, others.tests, strict=True) if isinstance(test, OneOf))
        self._care_others = sum(1 << bit for bit in bits)
        self._tuples: list[tuple[int, ...]] = [(), ()]
        self._numbers: dict[tuple[int, ...], int] = {}
        self._live: dict[int, bool] = {}
        self._needs: dict[int, int | None] = {0: None}
        self._rows: dict[int, NDArray[np.int32]] = {}
        own = tuple(automaton.start for _, automaton in self._formats)
        start = self._number((*own, others.start, 0))
        self.start = start if self._is_live(start) else 0

    @property
    def nbytes(self) -> int:
        return 1200 * len(self._tuples) + sum(automaton.nbytes for _, automaton in self._formats)

    def _number(self, state: tuple[int, ...]) -> int:
        number = self._numbers.get(state)
        if number is None:
            number = len(self._tuples)
            if number >= self._limits.max_states:
                raise LimitExceededError(
                    f"the tests on a string need more than {number:,} automaton states (Limits.max_states)",
                    given=number + 1,
                    limit=number,
                )
            self._numbers[state] = number
            self._tuples.append(state)
        return number

    def _raw_row(self, state: int) -> NDArray[np.int32]:
        known = self._rows.get(state)
        if known is None:
            *own, other, count = self._tuples[state]
            columns = [
                automaton.row(at).tolist() if at else _NOWHERE
                for (_, automaton), at in zip(self._formats, own, strict=True)
            ]
            columns.append(self._others.row(other).tolist() if other else _NOWHERE)
            columns.append(np.minimum(count + _STARTS, self._cap).tolist())
            tuples = list(zip(*columns, strict=True))
            targets = list(map(self._numbers.get, tuples))
            if None in targets:
                targets = list(map(self._number, tuples))
            known = self._rows[state] = np.array(targets, dtype=np.int32)
        return known

    def _bits_at(self, state: int) -> int:
        *own, other, count = self._tuples[state]
        outcome = sum(
            bit for (bit, automaton), at in zip(self._formats, own, strict=True) if at and automaton.accepts(at)
        )
        outcome += sum(bit for bit, low, high in self._lengths if low <= count and (high is None or count <= high))
        inner = self._others.outcome(other) if other else 0
        for k, bit in enumerate(self._bits):
            if inner > 0 and inner >> k & 1:
                outcome |= 1 << bit
        return outcome

    def outcome(self, state: int) -> int:
        other = self._tuples[state][-2]
        if other == 0 or self._others.outcome(other) < 0:
            return -1
        outcome = self._bits_at(state)
        return outcome if any(outcome & care == value for care, value in self._cubes) else -1

    # -- life -------------------------------------------------------------------------------------------------------

    def _need(self, state: int) -> int | None:
        if self._live.get(state) is False:
            return None
        if state not in self._needs:
            needs = [need for care, value in self._cubes if (need := self._need_of(state, care, value)) is not None]
            self._needs[state] = min(needs, default=None)
        return self._needs[state]

    def _need_of(self, state: int, care: int, value: int) -> int | None:
        """A lower bound on the characters to an end in a cube."""
        *own, other, count = self._tuples[state]
        if not other:
            return None
        need = n_chars(self._others.witness(other))
        for (bit, automaton), at in zip(self._formats, own, strict=True):
            if value & bit:
                if not at:
                    return None
                if isinstance(automaton, RegexSyntax):
                    need = max(need, automaton.need(at))
        return self._length_from(count, need, care, value)

    def _length_from(self, count: int, need: int, care: int, value: int) -> int | None:
        """The least number of further characters, at least `need`, that the bounds on the length allow."""
        low, high, gaps = count + need, None, []
        for bit, least, most in self._lengths:
            if value & bit:
                low = max(low, least)
                high = most if high is None else high if most is None else min(high, most)
            elif care & bit:
                gaps.append((least, most))
        for least, most in sorted(gaps, key=lambda gap: gap[0]):
            if least <= low:
                if most is None:
                    return None
                low = max(low, most + 1)
        return low - count if high is None or low <= high else None

    def _is_sure(self, state: int, care: int, value: int) -> bool:
        """Does all that a cube asks come down to a regex of some length, which `_need_of` has found to exist?"""
        others = care & self._care_others
        if not self._can_spell:
            return False
        if others and (value & others or others & ~self._listed):
            return False
        if others and any(value & bit and high is not None for bit, _, high in self._lengths):
            return False  # all that are short enough may be listed
        wanted = 0
        for (bit, automaton), at in zip(self._formats, self._tuples[state], strict=False):
            if value & bit:
                if not isinstance(automaton, RegexSyntax):
                    return False
                wanted += 1
            elif care & bit and at:
                return False
        return wanted == 1 and self._need_of(state, care, value) is not None

    def _is_live(self, state: int) -> bool:
        known = self._live.get(state)
        if known is None:
            if self._need(state) is None:
                known = self._live[state] = False
            elif any(self._is_sure(state, care, value) for care, value in self._cubes):
                known = self._live[state] = True
            else:
                states, text = self._path(state, lambda at: self._live.get(at) or self.outcome(at) >= 0)
                known = text is not None
                self._live.update(dict.fromkeys(states, known))
        return known

    def row(self, state: int) -> NDArray[np.int32]:
        row = self._raw_row(state).copy()
        for target in dict.fromkeys(row.tolist()):
            if not self._is_live(target):
                row[row == target] = 0
        return row
