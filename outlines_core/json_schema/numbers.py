"""JSON numbers under tests, read digit by digit, in exact decimal arithmetic.

A number of the schema language is a text ``-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?`` with at most
`Limits.number_digits` digits before the exponent and an exponent whose value is within 308; its value is exact and
its spelling free: under ``minimum: 5, maximum: 10`` the text ``70`` is a beginning of ``70e-1``, ``3`` of nothing.

`NumberRecognizer` is a lazy automaton over such texts that watches several tests at once and never leads into a dead
end. What a state is and how its liveness is decided is told in `kernels.numbers`; here the tests are brought into the
form the kernels want:

* The constants of Range and OneOf cut the line of numbers into points and open intervals. A piece passes the same of
  these tests throughout; put into the goal, this leaves a few cubes over the other tests: the piece's *class*.
  Constants between pieces of one class are forgotten, and with them the states that would tell their sides apart.
* Integer and MultipleOf are membership in a lattice ``p × 10^r``; a cube's positive ones are one lattice, their
  least common multiple.

Both zero's class and the two sides' pieces are kept apart, because zero has no first significant digit.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice
from math import lcm
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.kernels import numbers as kernel
from outlines_core.limits import DEFAULT_LIMITS, Limits

__all__ = ["Integer", "MultipleOf", "NumberRecognizer", "NumberTest", "OneOf", "Range"]

_EXTENT: Final = 308
_MAX_LATTICES: Final = 24
_SPAN: Final = 4 * 10**17
_SYMBOLS: Final = b"0123456789-+.e"
_SPARE: Final = kernel.SYMBOLS + 5  # rows that the kernels may write behind the last state
_KERNELS: Final = vars(kernel)
_interpreted = cache(kernel.interpreted)


@dataclass(frozen=True, slots=True)
class Integer:
    """The value is integral: 1.0, 1e2 and 150e-1 are."""


@dataclass(frozen=True, slots=True)
class Range:
    """The value is within bounds; None: no bound, `low_open`, `high_open`: the bound itself is excluded."""

    low: Fraction | None = None
    low_open: bool = False
    high: Fraction | None = None
    high_open: bool = False


@dataclass(frozen=True, slots=True)
class MultipleOf:
    """The value is a multiple of a positive, finite decimal."""

    divisor: Fraction


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value is one of these."""

    values: frozenset[Fraction]


NumberTest: TypeAlias = Integer | Range | MultipleOf | OneOf
_Decimal: TypeAlias = tuple[int, str]
"""(E, N): the number ``0.N × 10^E``; N starts and ends with a nonzero digit. Ordered by magnitude."""
_Point: TypeAlias = tuple[int, _Decimal]
"""(side, decimal); side 0 is positive, 1 negative."""
_ZERO: Final = 2
_ORIGIN: Final = (_ZERO, (0, ""))


def _decimal(number: int, divisor: int, max_digits: int) -> _Decimal | None:
    """A positive fraction in decimal notation; None if that has no end or is much longer than `max_digits`."""
    shift = 0
    if max(number.bit_length(), divisor.bit_length()) > 4 * max_digits:
        return None  # str() of a huge integer takes quadratic time
    if divisor != 1:
        twos = (divisor & -divisor).bit_length() - 1
        odd = divisor >> twos
        fives = round(odd.bit_length() / 2.321928094887362)
        while 5**fives > odd:
            fives -= 1
        while 5**fives < odd:
            fives += 1
        if 5**fives != odd:
            return None
        shift = max(twos, fives)
        number *= 2 ** (shift - twos) * 5 ** (shift - fives)
    digits = str(number)
    return len(digits) - shift, digits.rstrip("0")


class _Line:
    """The tests and the goal as the kernels' `problem`, and back from their classes to outcomes."""

    def __init__(
        self, tests: tuple[NumberTest, ...], cubes: tuple[tuple[int, int], ...], limits: Limits, extent: int
    ) -> None:
        self.digits, self.extent = limits.number_digits, extent
        self._split(tests)
        self._cut(tests, cubes)
        self._pack()

    def _point(self, value: Fraction, what: str = "") -> _Point | None:
        """Side and decimal notation of a constant; if it cannot be written, None or, for `what` needs it, an error."""
        number, divisor = value.as_integer_ratio()
        if number == 0:
            return _ORIGIN
        found = _decimal(abs(number), divisor, 2 * self.digits + self.extent)
        if found is not None and len(found[1]) <= self.cap(found[0]):
            return int(number < 0), found
        if not what:
            return None
        size = max(number.bit_length(), divisor.bit_length())
        raise LimitExceededError(
            f"{what} {_shown(value)} cannot be written as a number of at most {self.digits} digits "
            f"(Limits.number_digits) and an exponent within {self.extent}",
            given=size * 3 // 10 + 1 if found is None else len(found[1]),
            limit=self.digits,
        )

    def cap(self, e: int) -> int:
        """How many digits N may have for the text to fit into the limits (0: none)."""
        if e > self.digits + self.extent:
            return 0
        return self.digits if e > -self.extent else max(0, self.digits - 1 + e + self.extent)

    # -- lattices ---------------------------------------------------------------------------------------------------

    def _split(self, tests: tuple[NumberTest, ...]) -> None:
        """Number the different divisors; `self.lattice_tests` are (test, divisor) pairs."""
        self.lattice_tests: list[tuple[int, int]] = []
        self.lattices: list[tuple[int, int]] = []
        for j, test in enumerate(tests):
            if isinstance(test, Integer):
                lattice = (1, 0)
            elif isinstance(test, MultipleOf):
                if test.divisor <= 0:
                    raise ValueError(f"a divisor must be positive, got {test.divisor}")
                _, (e, number) = self._point(test.divisor, "the divisor") or _ORIGIN
                lattice = (int(number), e - len(number))
            else:
                continue
            if lattice not in self.lattices:
                self.lattices.append(lattice)
            self.lattice_tests.append((j, self.lattices.index(lattice)))
        if len(self.lattices) > _MAX_LATTICES:
            raise LimitExceededError(
                f"a number with {len(self.lattices)} different divisors: at most {_MAX_LATTICES} are supported",
                given=len(self.lattices),
                limit=_MAX_LATTICES,
            )
        self.modulus = lcm(*(p for p, _ in self.lattices))

    def _cube(self, asked: int, refused: int) -> tuple[int, int, int, int]:
        """A row of the kernels' `cubes`."""
        chosen = [lattice for i, lattice in enumerate(self.lattices) if asked >> i & 1]
        if not chosen:
            return 1, kernel.NO_SHIFT, 0, refused
        base = min(r for _, r in chosen)
        p, r = lcm(*(p * 10 ** (r - base) for p, r in chosen)), base
        while p % 10 == 0:
            p, r = p // 10, r + 1
        return p, r, asked, refused

    # -- pieces -----------------------------------------------------------------------------------------------------

    def _cut(self, tests: tuple[NumberTest, ...], cubes: tuple[tuple[int, int], ...]) -> None:
        """Find the pieces of the line, from -infinity on, and the class of each."""
        sides: list[set[_Decimal]] = [set(), set()]
        bounds: dict[int, list[_Point | None]] = {}
        members: dict[int, list[_Point]] = {}
        for j, test in enumerate(tests):
            if isinstance(test, Range):
                bounds[j] = [None if x is None else self._point(x, "the bound") for x in (test.low, test.high)]
                members[j] = [point for point in bounds[j] if point is not None]
            elif isinstance(test, OneOf):
                members[j] = [point for point in map(self._point, test.values) if point is not None]
            for side, decimal in members.get(j, ()):
                if side != _ZERO:
                    sides[side].add(decimal)
        along = [sorted(side) for side in sides]
        n_negative = len(along[1])
        place: dict[_Point, int] = {(0, decimal): n_negative + 1 + i for i, decimal in enumerate(along[0])}
        place.update(((1, decimal), n_negative - 1 - i) for i, decimal in enumerate(along[1]))
        place[_ORIGIN] = n_negative
        n_pieces = 2 * len(place) + 1  # gap, point, gap, ..., gap
        changes = [0] * (n_pieces + 1)
        for j, test in enumerate(tests):
            if isinstance(test, Range):
                low, high = bounds[j]
                first = 0 if low is None else 2 * place[low] + 1 + test.low_open
                last = n_pieces - 1 if high is None else 2 * place[high] + 1 - test.high_open
                if first <= last:
                    changes[first] ^= 1 << j
                    changes[last + 1] ^= 1 << j
            elif isinstance(test, OneOf):
                for point in members[j]:
                    changes[2 * place[point] + 1] ^= 1 << j
                    changes[2 * place[point] + 2] ^= 1 << j
        pieces, bits = [], 0
        self.goals: list[list[tuple[int, int, int, int]]] = []
        self.base_bits: list[int] = []
        self._class_of: dict[int, int] = {}
        for change in changes[:-1]:
            bits ^= change
            pieces.append(self._class(bits, cubes))
        zero = 2 * n_negative + 1
        self.zero_class = pieces[zero]
        self.consts: list[list[_Decimal]] = []
        self.region: list[list[int]] = []
        for decimals, outward in zip(along, (pieces[zero + 1 :], pieces[zero - 1 :: -1]), strict=True):
            kept, region = [], outward[:1]
            for i, decimal in enumerate(decimals):
                if not outward[2 * i] == outward[2 * i + 1] == outward[2 * i + 2]:
                    kept.append(decimal)
                    region += outward[2 * i + 1 : 2 * i + 3]
            self.consts.append(kept)
            self.region.append(region)

    def _class(self, bits: int, cubes: tuple[tuple[int, int], ...]) -> int:
        """The class of a piece that passes the Range and OneOf tests `bits`; -1 if nothing there can be good."""
        known = self._class_of.get(bits)
        if known is not None:
            return known
        lattice_mask = sum(1 << j for j, _ in self.lattice_tests)
        goal: set[tuple[int, int]] = set()
        for care, value in cubes:
            if value & ~care or (bits ^ value) & care & ~lattice_mask:
                continue
            asked = refused = 0
            for j, i in self.lattice_tests:
                if care >> j & 1:
                    if value >> j & 1:
                        asked |= 1 << i
                    else:
                        refused |= 1 << i
            if not asked & refused:
                goal.add((asked, refused))
        klass = -1
        if goal:
            if (0, 0) in goal:
                goal = {(0, 0)}
            klass = len(self.goals)
            self.goals.append([self._cube(*cube) for cube in sorted(goal)])
            self.base_bits.append(bits)
        self._class_of[bits] = klass
        return klass

    # -- arrays -----------------------------------------------------------------------------------------------------

    def _pack(self) -> None:
        self.strings: list[list[str]] = [sorted({number for _, number in side}) for side in self.consts]
        positive, negative = self.strings
        width = max((len(number) for side in self.strings for number in side), default=0)
        info = [0] * kernel.INFO_SIZE
        info[kernel.DIGITS], info[kernel.EXTENT] = self.digits, self.extent
        info[kernel.MODULUS], info[kernel.ZERO_CLASS] = self.modulus, self.zero_class
        info[kernel.SCAN] = scan = len(self.lattices) ** 2 + 2
        info[kernel.SPAN] = max(_SPAN, self.modulus * (scan + 2))
        self.is_big = info[kernel.SPAN] > _SPAN
        cubes = [cube for goal in self.goals for cube in goal]
        if self.lattices:
            info[kernel.SATURATION] = max(r + p.bit_length() for p, r in self.lattices)
        info[kernel.CONSTS + 1 : kernel.CONSTS + 3] = len(self.consts[0]), len(self.consts[0]) + len(self.consts[1])
        info[kernel.STRINGS + 1 : kernel.STRINGS + 3] = len(positive), len(positive) + len(negative)
        for side in range(2):
            info[kernel.FLAT + side] = int(not self.consts[side] and not self.lattices)
        info[kernel.SAME_SIDES] = int(len(self.region[0]) == 1 and self.region[0] == self.region[1])
        consts: list[tuple[int, int]] = []
        strings: list[list[int]] = []
        for side in range(2):
            row = {number: len(strings) + i for i, number in enumerate(self.strings[side])}
            consts += [(e, row[number]) for e, number in self.consts[side]]
            strings += [
                [len(n), int(n) % self.modulus, *map(int, n), *[0] * (width - len(n))] for n in self.strings[side]
            ]
        starts = [0]
        for goal in self.goals:
            starts.append(starts[-1] + len(goal))
        self.problem = (
            self.array(info),
            self.array(consts, 2),
            self.array(strings, 2 + width),
            self.array(self.region[0] + self.region[1]),
            self.array(starts),
            self.array(cubes, 4),
            self.array(self.lattices, 2),
        )

    def array(self, rows: Any, width: int = 0) -> NDArray[Any]:
        """An array as the kernels want it: of Python ints where 64 bits are not enough."""
        made = np.array(rows, dtype=object if self.is_big else np.int64)
        return made.reshape(-1, width) if width else made


class NumberRecognizer:
    """The automaton of the number texts whose value's outcome is good.

    Bit j of an *outcome* says whether the value passes ``tests[j]``; it is good iff ``(outcome & care) == value`` for
    one of the `cubes`. States are ints from 2 on, 0 is DEAD; equal states have equal futures. The caller holds a lock.

    Args:
        limits: `number_digits`, `max_states` and `max_state_bytes` count.
        _extent: the largest exponent (tests shrink it).

    Attributes:
        start: the state before the first byte; 0 if no number is good.
        is_plain: is the number under no bounds, or none but that of being integral?
        name: the tests and cubes as text, if it is plain.

    Raises:
        LimitExceededError: a bound or divisor that cannot be written within the limits; more than 24 divisors.

    >>> port = NumberRecognizer((Integer(), Range(Fraction(5), False, Fraction(10), False)), ((3, 3),))
    >>> port.distinct(9)
    [b'5', b'6', b'7', b'8', b'9', b'10']
    >>> state = port.row(port.start)[ord("3")]
    >>> port.witness(state)
    b'...'
    """

    def __init__(
        self,
        tests: tuple[NumberTest, ...],
        cubes: tuple[tuple[int, int], ...],
        limits: Limits = DEFAULT_LIMITS,
        *,
        _extent: int = _EXTENT,
    ) -> None:
        self.limits = limits
        self.is_plain = tests in ((), (Integer(),))
        self.name = repr((tests, cubes)) if self.is_plain else ""
        self._line = line = _Line(tests, cubes, limits, _extent)
        self._kernels = _interpreted() if line.is_big else _KERNELS
        self._fill_row = self._kernels["fill_row"]
        self._problem = line.problem
        self._states = self._zeros(64)
        self._table = np.zeros(128, dtype=np.int64)
        self._room = 64 - _SPARE
        self._outcomes: dict[tuple[int, int], int] = {}
        self._states[0, 0], self._states[1, kernel.PHASE] = 2, -1
        self._states[2, kernel.KLASS] = -1
        self.start = 0
        if self._kernels["closable"](self._problem, self._states, 2, kernel.ANYHOW):
            self._states[0, 0] = 3
            self._kernels["rehash"](self._states, self._table)
            self.start = 2

    def _zeros(self, capacity: int) -> NDArray[Any]:
        return np.zeros((capacity, kernel.WIDTH), dtype=object if self._line.is_big else np.int64)

    @property
    def n_states(self) -> int:
        return int(self._states[0, 0])

    @property
    def nbytes(self) -> int:
        """Rough memory."""
        return sum(int(x.nbytes) for x in (*self._problem, self._states, self._table)) + 2048

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) the next state by byte; 0 where no good number goes on so.

        Raises:
            LimitExceededError: too many states. All states made so far stay usable.
        """
        out_row = np.empty(256, dtype=np.int32)
        self.write_row(state, out_row)
        return out_row

    def write_row(self, state: int, out_row: NDArray[np.int32]) -> None:
        """Write `row` into (256,) `out_row`."""
        if self._states[0, 0] > self._room:
            self._grow()
        self._fill_row(self._problem, self._states, self._table, state, out_row)

    def _grow(self) -> None:
        n, capacity = self.n_states, 4 * self._states.shape[0]
        nbytes = capacity * (8 * kernel.WIDTH + 16)
        if n >= self.limits.max_states:
            raise LimitExceededError(
                f"the number needs more than {self.limits.max_states:,} automaton states (Limits.max_states)",
                given=n + 1,
                limit=self.limits.max_states,
            )
        if nbytes > self.limits.max_state_bytes:
            raise LimitExceededError(
                f"the number's state tables would take {nbytes:,} bytes (Limits.max_state_bytes)",
                given=nbytes,
                limit=self.limits.max_state_bytes,
            )
        states, table = self._zeros(capacity), np.zeros(2 * capacity, dtype=np.int64)
        states[: self._states.shape[0]] = self._states
        self._kernels["rehash"](states, table)
        self._states, self._table = states, table
        self._room = min(capacity - _SPARE, max(n, self.limits.max_states))

    def content(self, state: int) -> NDArray[Any]:
        """What a state is: the same for all recognizers of the same name and limits."""
        return self._states[state, : kernel.KEY].copy()

    def outcome(self, state: int) -> int:
        """The outcome of the number that ends at `state`; -1 if none does or it is not good."""
        klass, bits = self._states[state, kernel.KLASS :].tolist()
        return -1 if klass < 0 else self._outcome(klass, bits)

    def _outcome(self, klass: int, bits: int) -> int:
        known = self._outcomes.get((klass, bits))
        if known is None:
            known = self._line.base_bits[klass]
            for j, i in self._line.lattice_tests:
                known |= (bits >> i & 1) << j
            self._outcomes[klass, bits] = known
        return known

    def witness(self, state: int) -> bytes:
        """A shortest completion of a live state; b"" if the number may end there."""
        problem, states, text = self._problem, self._states, bytearray()
        closable, step, judge = self._kernels["closable"], self._kernels["step"], self._kernels["judge"]
        n = 0
        while not closable(problem, states, state, n):
            n += 1
        here, there = self.n_states + 2, self.n_states + 3  # scratch rows: no states are made
        while n > 0:
            n -= 1
            for symbol, byte in enumerate(_SYMBOLS):
                if not step(problem, states, state, symbol, here):
                    continue
                judge(problem, states, here)
                if closable(problem, states, here, n):
                    text.append(byte)
                    state, here, there = here, there, here
                    break
        return bytes(text)

    # -- samples ----------------------------------------------------------------------------------------------------

    def distinct(self, k: int) -> list[bytes]:
        """Up to `k` good numbers of different value, fewer only if there are no more; short ones come first."""
        return list(islice(self._values(k), k)) if k > 0 else []

    def _values(self, k: int) -> Iterator[bytes]:
        """Good numbers of different value: all, or at least `k` of them."""
        line = self._line
        if self._ends_well(line.zero_class, [True] * len(line.lattices)):
            yield b"0"
        # Windows of exponents, those near 1 first; one that holds a value is halved until it is a single exponent.
        lowest, top = 1 - line.extent, line.digits + line.extent
        bounds = [(2**i, min(2 ** (i + 1) - 1, top)) for i in range(top.bit_length())]
        bounds += [(max(lowest, 1 - 2 ** (i + 1)), -(2**i)) for i in range(max(0, -lowest).bit_length())]
        bounds += [(0, 0)] if lowest <= 0 else []
        bounds += [(e, e) for e in range(lowest - line.digits, lowest) if line.cap(e) > 0]
        windows = [(min(abs(first - 1), abs(last - 1)), first, last) for first, last in bounds]
        heapq.heapify(windows)
        while windows:
            _, first, last = heapq.heappop(windows)
            starts = [(side, p) for side in range(2) for p in "123456789" if self._exists(side, p, first, last)]
            if not starts:
                continue
            if first < last:
                middle = (first + last) // 2
                for window in ((first, middle), (middle + 1, last)):
                    heapq.heappush(windows, (min(abs(window[0] - 1), abs(window[1] - 1)), *window))
                continue
            queue = deque(starts)
            while queue:
                side, p = queue.popleft()
                if p[-1] != "0" and self._is_good(side, p, first):
                    yield _spell(side, p, first, line.digits, line.extent)
                for d in "0123456789" if len(p) < line.cap(first) else "":
                    if self._exists(side, p + d, first, first, longer=d == "0"):
                        queue.append((side, p + d))
                while len(queue) > k:  # each of them leads to a value of its own: `k` are enough
                    queue.pop()

    def _exists(self, side: int, p: str, first: int, last: int, *, longer: bool = False) -> bool:
        """Is there a good N that starts with `p` (`longer`: and is not `p`), at one of these exponents?"""
        states, t, number = self._states, self.n_states + 1, p.rstrip("0")  # the kernels' scratch row
        states[t, kernel.PHASE] = kernel.LONGER if longer else 0
        states[t, kernel.SIDE], states[t, kernel.LENGTH], states[t, kernel.ZEROS] = side, len(p), len(p) - len(number)
        states[t, kernel.LOW], states[t, kernel.HIGH] = self._place(side, p)
        states[t, kernel.RESIDUE] = int(number) % self._line.modulus
        return bool(self._kernels["exists"](self._problem, states, t, self._line.cap(first), first, last))

    def _place(self, side: int, p: str) -> tuple[int, int]:
        """The strings that start with `p` (zeros behind them), as rows of the kernels' `strings`."""
        strings, offset = self._line.strings[side], len(self._line.strings[0]) * side
        low = bisect_left(strings, p.rstrip("0"))
        return offset + low, offset + bisect_left(strings, p + ":", low)

    def _is_good(self, side: int, number: str, e: int) -> bool:
        low, high = self._place(side, number)
        klass = int(self._kernels["value_class"](self._problem, side, low, high, len(number), e))
        n, shift = int(number), e - len(number)
        return self._ends_well(klass, [shift >= r and n * 10 ** (shift - r) % p == 0 for p, r in self._line.lattices])

    def _ends_well(self, klass: int, passed: list[bool]) -> bool:
        bits = sum(1 << i for i, yes in enumerate(passed) if yes)
        cubes = self._line.goals[klass] if klass >= 0 else []
        return any(bits & asked == asked and not bits & refused for _, _, asked, refused in cubes)


def _shown(value: Fraction) -> str:
    """`value` for people, shortened."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 4000:
        return "of more than 1,000 digits"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:20]}...{text[-10:]} ({len(text)} characters)"


def _spell(side: int, number: str, e: int, max_digits: int, extent: int) -> bytes:
    """The text of ``0.number × 10^e``: plain if that is short, else with an exponent."""
    n = len(number)
    if n <= e <= min(21, max_digits):
        text = number + "0" * (e - n)
    elif 0 < e < n:
        text = f"{number[:e]}.{number[e:]}"
    elif -5 <= e <= 0 and 1 - e + n <= max_digits:
        text = f"0.{'0' * -e}{number}"
    elif e - 1 > extent:  # the digits in front of the point help out
        before = e - extent
        padded = number + "0" * (before - n)
        text = f"{padded[:before]}{'.' if n > before else ''}{padded[before:]}e{extent}"
    elif e - 1 < -extent:
        text = f"0.{'0' * (-extent - e)}{number}e-{extent}"
    else:
        text = f"{number[0]}{'.' if n > 1 else ''}{number[1:]}e{e - 1}"
    return (("-" if side else "") + text).encode()
