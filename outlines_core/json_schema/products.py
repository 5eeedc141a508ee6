"""Strings under tests that are no regular expressions: host names beside whatever else a schema asks.

A `HostNames` automaton stands as one component beside a `StringRecognizer` for all other tests. A state is a tuple of
component states, and is live if a good outcome can be reached: a breadth-first search, each answer remembered.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.formats import format_automaton
from outlines_core.limits import Limits

__all__ = ["ProductRecognizer"]

_MAX_SEARCH: Final = 3000


class ProductRecognizer:
    """A recognizer (see `strings`) whose test number i is what ``components[i]`` accepts.

    Args:
        hosts: (bit, format name) pairs.
        others: a recognizer of all other tests, good wherever a cube is as far as they go; or None.
        bits: the bit of each test of `others`.
    """

    def __init__(
        self,
        hosts: list[tuple[int, str]],
        others: Any,
        bits: list[int],
        cubes: tuple[tuple[int, int], ...],
        limits: Limits,
    ) -> None:
        self._hosts = [(bit, format_automaton(name, limits)) for bit, name in hosts]
        self._others, self._bits, self._cubes = others, bits, cubes
        self._tuples: list[tuple[int, ...]] = [(), ()]
        self._numbers: dict[tuple[int, ...], int] = {}
        self._live: dict[int, bool] = {}
        self._rows: dict[int, NDArray[np.int32]] = {}
        own = tuple(h.start for _, h in self._hosts if h is not None)
        start = self._number((*own, others.start if others is not None else 0))
        self.start = start if self._is_live(start) else 0

    @property
    def nbytes(self) -> int:
        return 1200 * len(self._tuples)

    def _number(self, state: tuple[int, ...]) -> int:
        number = self._numbers.get(state)
        if number is None:
            number = self._numbers[state] = len(self._tuples)
            self._tuples.append(state)
        return number

    def _raw_row(self, state: int) -> NDArray[np.int32]:
        """Transitions, to dead ends as well."""
        known = self._rows.get(state)
        if known is None:
            components = self._tuples[state]
            rows = [
                h.row(s) if s and h is not None else np.zeros(256, dtype=np.int32)
                for (_, h), s in zip(self._hosts, components, strict=False)
            ]
            last = components[-1]
            rows.append(self._others.row(last) if last else np.zeros(256, dtype=np.int32))
            stacked = np.stack(rows)
            distinct, which = np.unique(stacked, axis=1, return_inverse=True)
            numbers = np.array([self._number(tuple(column)) for column in distinct.T.tolist()], dtype=np.int32)
            known = self._rows[state] = numbers[which.reshape(-1)]
        return known

    def _bits_at(self, state: int) -> int:
        components = self._tuples[state]
        outcome = sum(
            1 << bit
            for (bit, h), s in zip(self._hosts, components, strict=False)
            if s and h is not None and h.accepts(s)
        )
        last = components[-1]
        inner = self._others.outcome(last) if last else 0
        for k, bit in enumerate(self._bits):
            if inner > 0 and inner >> k & 1:
                outcome |= 1 << bit
        return outcome

    def _ends(self, state: int) -> bool:
        components = self._tuples[state]
        if self._others is not None and (components[-1] == 0 or self._others.outcome(components[-1]) < 0):
            return False
        outcome = self._bits_at(state)
        return any(outcome & care == value for care, value in self._cubes)

    def _is_possible(self, state: int) -> bool:
        """Is there a cube that does not want a test passed whose component is dead?"""
        components = self._tuples[state]
        failed = sum(1 << bit for (bit, _), s in zip(self._hosts, components, strict=False) if not s)
        if self._others is not None and components[-1] == 0:
            return False
        return any(value & failed == 0 for _, value in self._cubes)

    def _is_live(self, state: int) -> bool:
        known = self._live.get(state)
        if known is not None:
            return known
        if self._others is None and self._cubes == ((1, 1),):  # a live host name is one
            return self._live.setdefault(state, self._tuples[state][0] != 0)
        if not self._is_possible(state):
            return self._live.setdefault(state, False)
        came: dict[int, int] = {state: -1}
        queue = deque([state])
        while queue:
            at = queue.popleft()
            if self._ends(at) or self._live.get(at):
                while at != -1:
                    self._live[at] = True
                    at = came[at]
                return True
            if len(came) > _MAX_SEARCH:
                raise LimitExceededError(
                    "whether a host name satisfies the rest of its schema takes too long to find out",
                    given=len(came),
                    limit=_MAX_SEARCH,
                )
            for target in np.unique(self._raw_row(at)).tolist():
                if target not in came and self._live.get(target) is not False and self._is_possible(target):
                    came[target] = at
                    queue.append(target)
        self._live.update(dict.fromkeys(came, False))
        return False

    def row(self, state: int) -> NDArray[np.int32]:
        row = self._raw_row(state).copy()
        for target in np.unique(row).tolist():
            if not self._is_live(target):
                row[row == target] = 0
        return row

    def outcome(self, state: int) -> int:
        return self._bits_at(state) if self._ends(state) else -1

    def witness(self, state: int) -> bytes:
        return next(iter(self._texts(state, 1)), b"")

    def distinct(self, k: int) -> list[bytes]:
        return list(islice(self._texts(self.start, k), k)) if self.start else []

    def _texts(self, state: int, n: int) -> list[bytes]:
        """Up to `n` good texts, shortest first."""
        found: list[bytes] = []
        queue: deque[tuple[int, bytes]] = deque([(state, b"")])
        looked = 0
        while queue and len(found) < n:
            at, text = queue.popleft()
            looked += 1
            if looked > _MAX_SEARCH:
                raise LimitExceededError("too many strings to look through", given=looked, limit=_MAX_SEARCH)
            if self._ends(at):
                found.append(text)
            row = self.row(at)
            for byte in (*b"abcdefghijklmnopqrstuvwxyz0123456789-.", *range(0x20, 0x61), *range(0x7B, 256)):
                if row[byte]:
                    queue.append((int(row[byte]), text + bytes([byte])))
        return found
