"""One table for the content states of all lexemes.

The kernel reads every string, number and keyword by rows of one array, so it can pass from one lexeme into the next
without changing tables. A recognizer's states get arena rows as they are visited. Recognizers are shared by content,
so schemas with the same constraint share its rows, and whatever is known about a row holds for all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.json_schema.strings import StringRecognizer
from outlines_core.kernels.arena import map_row
from outlines_core.kernels.borrow import Handles
from outlines_core.kernels.json_content import loops_of
from outlines_core.kernels.json_masks import A_INSIDE, A_ROWS, A_SIZE
from outlines_core.kernels.json_memory import FREE

__all__ = ["Arena"]

OUTCOME, FILLED, NEEDED = 256, 257, 258
"""The row at which any string may go on or end."""


class Arena:
    """Rows of content states.

    Attributes:
        rows: (capacity, 259) int32: the row after each byte, 0 = dead · number of the outcome if the content may end
            here, else -1 · is the row filled? · strings: the least number of characters that lead to an end
        n: rows in use.
        inside: (capacity,) int64: for each row the address of the table of what tokens do there, 0 if it is not known.
        loops: (capacity,) int64: by what a filled row leads back to itself (`kernels.json_content`).
        handles: where kernels find rows and inside.
        nbytes: memory of the rows, and of the recognizers as they were when they got the first one.
    """

    def __init__(self) -> None:
        self.handles = Handles(A_SIZE)
        self.rows = np.zeros((64, 259), dtype=np.int32)
        self.inside = self.handles[A_INSIDE] = np.zeros(64, dtype=np.int64)
        self.loops = np.zeros(64, dtype=np.int64)
        self.n = 1
        self._recognizers: list[Any] = [None]  # by row, and their states
        self._states = [0]
        self._numbers: dict[int, NDArray[np.int32]] = {}
        self._outcomes: dict[int, dict[int, int]] = {}
        self._keep: list[Any] = []
        self._kept = 0
        self._row = np.zeros(256, dtype=np.int32)
        self._new_states = np.zeros(256, dtype=np.int32)
        self.outcomes: dict[int, list[int]] = {}
        self._add_free()
        self.keywords = {word: self._add_keyword(word) for word in (b"null", b"false", b"true")}

    @property
    def rows(self) -> NDArray[np.int32]:
        return self._rows

    @rows.setter
    def rows(self, rows: NDArray[np.int32]) -> None:
        self._rows = self.handles[A_ROWS] = rows

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self._kept

    def _reserve(self, n: int) -> None:
        if n > self.rows.shape[0]:
            rows = np.zeros((max(2 * self.rows.shape[0], n), 259), dtype=np.int32)
            rows[: self.n] = self.rows[: self.n]
            self.rows = rows
            inside = np.zeros(rows.shape[0], dtype=np.int64)
            inside[: self.n] = self.inside[: self.n]
            self.inside = self.handles[A_INSIDE] = inside
            loops = np.zeros(rows.shape[0], dtype=np.int64)
            loops[: self.n] = self.loops[: self.n]
            self.loops = loops

    def _new(self) -> int:
        c = self.n
        self._reserve(c + 1)
        self.n = c + 1
        self._recognizers.append(None)
        self._states.append(0)
        self.rows[c, OUTCOME:] = (-1, 0, 0)
        return c

    def _fixed(self, outcome: int) -> int:
        c = self._new()
        self.rows[c, OUTCOME:] = (outcome, 1, 0)
        return c

    def _add_free(self) -> None:
        """All of UTF-8, and surrogates, which only escapes can spell (the kernel sees to that)."""
        free = self._fixed(0)
        assert free == FREE
        one, two, three = (self._fixed(-1) for _ in range(3))  # so many bytes to go
        e0, f0, f4 = (self._fixed(-1) for _ in range(3))  # no overlong forms, nothing past U+10FFFF
        rows = self.rows
        rows[free, :0x80] = free
        rows[free, 0xC2:0xE0] = one
        rows[free, 0xE0] = e0
        rows[free, 0xE1:0xF0] = two
        rows[free, 0xF0] = f0
        rows[free, 0xF1:0xF4] = three
        rows[free, 0xF4] = f4
        rows[one, 0x80:0xC0] = free
        rows[two, 0x80:0xC0] = one
        rows[three, 0x80:0xC0] = two
        rows[e0, 0xA0:0xC0] = one
        rows[f0, 0x90:0xC0] = two
        rows[f4, 0x80:0x90] = two
        self.loops[free] = loops_of(rows[free], free)

    def _add_keyword(self, word: bytes) -> int:
        at = start = self._fixed(-1)
        for k, byte in enumerate(word):
            following = self._fixed(0 if k + 1 == len(word) else -1)
            self.rows[at, byte] = following
            at = following
        return start

    def number_of(self, recognizer: Any, state: int) -> int:
        """The row of a recognizer's state; 0 for its dead state."""
        if state == 0:
            return 0
        key = id(recognizer)
        numbers = self._numbers.get(key)
        if numbers is None:
            self._keep.append(recognizer)
            self._kept += recognizer.nbytes
            numbers = self._numbers[key] = np.zeros(64, dtype=np.int32)
            self._outcomes[key] = {}
            self.outcomes[key] = []
        if state >= numbers.shape[0]:
            numbers = self._renumber(key, state + 1)
        if not numbers[state]:
            self._reserve(self.n + 1)
            self._add_states(recognizer, [state])
            numbers[state] = self.n - 1
        return int(numbers[state])

    def owner(self, c: int) -> tuple[Any, int] | None:
        """The recognizer and its state behind a row, None for the rows that are always there."""
        recognizer = self._recognizers[c]
        return (recognizer, self._states[c]) if recognizer is not None else None

    def fill(self, c: int) -> None:
        """Fill a row."""
        recognizer, state = self._recognizers[c], self._states[c]
        row, key = self._row, id(recognizer)
        recognizer.write_row(state, row)
        self._reserve(self.n + 256)
        while (n := map_row(row, self._numbers[key], self._rows, self.loops, c, self.n, self._new_states)) < 0:
            self._renumber(key, int(row.max()) + 1)
        if n:
            states = self._new_states[:n].tolist()
            try:
                self._add_states(recognizer, states)
            except BaseException:  # what they come to was too much to find out: as if nothing had been asked
                self._numbers[key][states] = 0
                self.rows[c, FILLED] = 0
                raise

    def _renumber(self, key: int, n: int) -> NDArray[np.int32]:
        """Make room for the numbers of `n` states."""
        numbers = self._numbers[key]
        larger = np.zeros(max(2 * numbers.shape[0], n), dtype=np.int32)
        larger[: numbers.shape[0]] = numbers
        self._numbers[key] = larger
        return larger

    def _add_states(self, recognizer: Any, states: list[int]) -> None:
        """Rows for states that have got the next numbers."""
        outcomes = [self._outcome_number(recognizer, recognizer.outcome(state)) for state in states]
        first, rows = self.n, self._rows
        self.n += len(states)
        self._recognizers += [recognizer] * len(states)
        self._states += states
        if isinstance(recognizer, StringRecognizer):
            rows[first : self.n, OUTCOME] = outcomes
            rows[first : self.n, FILLED] = 0
            rows[first : self.n, NEEDED] = recognizer.needed(states)
        else:
            for c, outcome in enumerate(outcomes, first):
                rows[c, OUTCOME:] = (outcome, 0, 0)

    def _outcome_number(self, recognizer: Any, outcome: int) -> int:
        if outcome < 0:
            return -1
        key = id(recognizer)
        known = self._outcomes[key]
        number = known.get(outcome)
        if number is None:
            number = known[outcome] = len(known)
            self.outcomes[key].append(outcome)
        return number

    def outcome(self, recognizer: Any, number: int) -> int:
        """The recognizer's outcome that a row's number stands for."""
        return self.outcomes[id(recognizer)][number]
