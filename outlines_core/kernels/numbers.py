"""The automaton of a JSON number under tests, one row at a time.

A number other than zero is ``±0.N × 10^E``: N its significant digits from the first to the last nonzero one, E an
exponent. While digits are read, P is what has been read of N (perhaps with zeros at its end). What a prefix of a text
can still become is always a *box*: every N that starts with P and has at most `cap` digits, times every E of one
interval (`_reaches`). So "can this prefix be completed?" is a question, `exists`, about a box, and that question is
arithmetic, not search:

* Range and OneOf only compare. Their constants cut each half of the number line into points and open intervals; all
  numbers of such a piece pass the same of these tests, and what is then still asked of a number is its *class*: a few
  alternatives (cubes) of "multiple of these, not of those" (Integer is "multiple of 1").
* For an exponent at which no constant lies, the box is inside one piece; neighbouring exponents of that kind are
  treated at once: multiples stay multiples if E grows, others stay others if it shrinks, so cubes without negation
  need the last exponent only, cubes of negations only the first, and beyond ``cap + SATURATION`` nothing changes.
* For an exponent with constants, those that start with P cut the box into points and open intervals.
* An interval at one exponent holds consecutive integers times ``10^(E - digits)``; every q-th of them is a multiple
  of all that is asked, the first is found from a residue. Each negated divisor then strikes out either all of these
  or at most every second, ... one, in a regular manner: by Jacobsthal's function (h(n) <= n² + 1 for n < 50) one of
  SCAN consecutive ones survives, or none does anywhere.

The same functions, run by Python on arrays of Python ints, serve moduli that do not fit (`interpreted`).

    problem   (info, consts, strings, region, goals, cubes, lattices), all int64
    info      (INFO_SIZE,): the constants below
    consts    (n, 2): E, row of `strings`; by side (0: positive, 1: negative), then by magnitude
    strings   (m, 2 + width): number of digits, residue, digits (zeros behind them); per side in ascending order
    region    class of gap, point, gap, ..., gap along side 0, then along side 1; -1: nothing there is good
    goals     (n_classes + 1,): class k has cubes goals[k]:goals[k + 1]
    cubes     (n, 4): p, r (the divisor p × 10^r, NO_SHIFT: none), bits of the lattices it must and must not be in
    lattices  (n, 2): p, r of the multiples p × 10^r; 10 does not divide p, p divides info[MODULUS]
    states    (capacity, WIDTH): row 0 holds the number of states, row 1 the last dead candidate
    table     open addressing, a power of two, 0 = free
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np
from numba import njit

from outlines_core.kernels.borrow import constants

__all__ = [
    "ANYHOW",
    "BITS",
    "CONSTS",
    "DIGITS",
    "EXTENT",
    "FLAT",
    "INFO_SIZE",
    "KLASS",
    "LONGER",
    "MODULUS",
    "NO_SHIFT",
    "SAME_SIDES",
    "SATURATION",
    "SCAN",
    "SPAN",
    "STRINGS",
    "SYMBOLS",
    "WIDTH",
    "ZERO_CLASS",
    "closable",
    "exists",
    "fill_row",
    "interpreted",
    "judge",
    "rehash",
    "step",
    "value_class",
]

# info
DIGITS, EXTENT, MODULUS, ZERO_CLASS, SATURATION, SCAN, SPAN, SAME_SIDES = range(8)
CONSTS, STRINGS, FLAT = 8, 11, 14  # three, three and two entries
INFO_SIZE = 16
NO_SHIFT = -(10**6)
ANYHOW, ONLY_LOWEST = -1, -2
# phases and columns of a state: the key, then what the value is if it ends here
START, MINUS, ZERO, INT, DOT, FRAC, EXP, SIGN, POWER, FINAL = range(10)
LONGER = 10  # of a scratch row: ask `exists` for numbers that are P and more, not for P itself
PHASE, SIDE, USED, LENGTH, POINT, LOW, HIGH, ZEROS, RESIDUE, X, KLASS, BITS = range(12)
KEY, WIDTH = 10, 12
SYMBOLS = 14
_MINUS, _PLUS, _DOT, _E = 10, 11, 12, 13
_BYTES = np.array([*b"0123456789-+.e"], dtype=np.int64)
_UPPER_E = ord("E")
_HASH_MASK = (1 << 40) - 1

# -- multiples --------------------------------------------------------------------------------------------------------

_ZERO, _ONE = constants(2)


@njit(cache=True, nogil=True)
def _reduced(p, shift):  # type: ignore[no-untyped-def]
    """``p / gcd(p, 10^shift)`` for a p that 10 does not divide: each 10 takes out one factor."""
    while shift > 0:
        if p % 2 == 0:
            p //= 2
        elif p % 5 == 0:
            p //= 5
        else:
            break
        shift -= 1
    return p


@njit(cache=True, nogil=True)
def _shifted(residue, n, modulus):  # type: ignore[no-untyped-def]
    """``residue × 10^n`` modulo `modulus`."""
    residue %= modulus
    while n > 0 and residue != 0:
        residue = residue * 10 % modulus
        n -= 1
    return residue


@njit(cache=True, nogil=True)
def _is_multiple(p, r, e, n, residue):  # type: ignore[no-untyped-def]
    """Is the N of n digits, of this residue, at exponent e a multiple of p × 10^r?"""
    shift = e - n - r
    return shift >= 0 and residue % _reduced(p, shift) == 0


@njit(cache=True, nogil=True)
def _lattice_bits(lattices, e, n, residue):  # type: ignore[no-untyped-def]
    bits = 0
    for i in range(lattices.shape[0]):
        if _is_multiple(lattices[i, 0], lattices[i, 1], e, n, residue):
            bits |= 1 << i
    return bits


@njit(cache=True, nogil=True)
def _is_good(problem, klass, bits):  # type: ignore[no-untyped-def]
    _, _, _, _, goals, cubes, _ = problem
    if klass < 0:
        return False
    for k in range(goals[klass], goals[klass + 1]):
        if bits & cubes[k, 2] == cubes[k, 2] and bits & cubes[k, 3] == 0:
            return True
    return False


@njit(cache=True, nogil=True)
def _in_none(lattices, refused, e, n, residue):  # type: ignore[no-untyped-def]
    for i in range(lattices.shape[0]):
        if (refused >> i) & 1 != 0 and _is_multiple(lattices[i, 0], lattices[i, 1], e, n, residue):
            return False
    return True


@njit(cache=True, nogil=True)
def _holds(problem, k, e, n, residue):  # type: ignore[no-untyped-def]
    """Does this N of n digits satisfy cube k at exponent e?"""
    _, _, _, _, _, cubes, lattices = problem
    if cubes[k, 1] != NO_SHIFT and not _is_multiple(cubes[k, 0], cubes[k, 1], e, n, residue):
        return False
    return cubes[k, 3] == 0 or _in_none(lattices, cubes[k, 3], e, n, residue)


@njit(cache=True, nogil=True)
def _some_longer(problem, k, e, cap, length, zeros, residue):  # type: ignore[no-untyped-def]
    """Does some N that is P and more, of at most `cap` digits, satisfy cube k at exponent e?  (No constant is near.)

    P has `length` digits, the last `zeros` of them 0, and `residue` is that of P without them. With `free` more
    digits the candidates are ``P × 10^free + s``, ``0 < s < 10^free``.
    """
    info, _, _, _, _, cubes, lattices = problem
    p, r, refused = cubes[k, 0], cubes[k, 1], cubes[k, 3]
    total, q = cap, p
    if r != NO_SHIFT:
        total = min(cap, e - r)  # further digits could only be zeros
        q = _reduced(p, e - r - total)
    free = total - length
    if free <= 0:
        return False
    limit, power = info[SPAN], 1
    for _ in range(free):
        power *= 10
        if power > limit:
            break
    if refused == 0 and power > q:
        return True  # q consecutive integers
    s = q - _shifted(residue, zeros + free, q)
    if refused == 0:
        return s < power
    modulus = info[MODULUS]
    for _ in range(info[SCAN]):
        if s >= power:
            return False
        digits, tail = total, s
        while tail % 10 == 0:
            tail //= 10
            digits -= 1
        if _in_none(
            lattices, refused, e, digits, (_shifted(residue, zeros + digits - length, modulus) + tail) % modulus
        ):
            return True
        s += q
    return False


@njit(cache=True, nogil=True)
def _some_between(problem, k, e, cap, length, a, n_a, b):  # type: ignore[no-untyped-def]
    """Does some N between U and V, both excluded, of at most `cap` digits, satisfy cube k at exponent e?

    U is the first `n_a` digits of string a (zeros behind its end), V is string b, or for b < 0 what follows the last
    N that starts with P, the first `length` digits of string a. The candidates are U cut or filled to `total` digits,
    plus s > 0.
    """
    info, _, strings, _, _, cubes, lattices = problem
    p, r, refused = cubes[k, 0], cubes[k, 1], cubes[k, 3]
    total, q = cap, p
    if r != NO_SHIFT:
        total = min(cap, e - r)
        q = _reduced(p, e - r - total)
    if total <= length:
        return False
    width, limit, modulus = strings.shape[1] - 2, info[SPAN], info[MODULUS]
    n_b = length if b < 0 else strings[b, 0]
    diff, low = 0, 0
    for i in range(total):
        d = strings[a, 2 + i] if i < n_a and i < width else 0
        diff = diff * 10 - d
        if b >= 0:
            if i < width:
                diff += strings[b, 2 + i]
        elif i < length:
            diff += strings[a, 2 + i] if i < width else 0
            if i == length - 1:
                diff += 1
        if diff > q and refused == 0 and diff > 1:
            return True  # q integers strictly between, here and at all later digits
        if diff > limit:
            diff = limit
        low = (low * 10 + d) % modulus
    if n_b > total:
        diff += 1  # V itself is a little larger
    s = q - low % q
    if refused == 0:
        return s < diff
    for _ in range(info[SCAN]):
        if s >= diff:
            return False
        digits, tail = total, s
        while True:  # strip the zeros of U + s
            i = digits - 1
            tail += strings[a, 2 + i] if i < n_a and i < width else 0
            if tail % 10 != 0:
                break
            tail //= 10
            digits -= 1
        low = 0
        for i in range(digits - 1):
            low = (low * 10 + (strings[a, 2 + i] if i < n_a and i < width else 0)) % modulus
        if _in_none(lattices, refused, e, digits, (low * 10 + tail) % modulus):
            return True
        s += q
    return False


# -- boxes ------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _first_at(consts, low, high, column, value):  # type: ignore[no-untyped-def]
    """The first row of `consts` in low:high whose `column` is >= value."""
    while low < high:
        middle = (low + high) // 2
        if consts[middle, column] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _some_in_piece(problem, klass, first, last, cap, states, s):  # type: ignore[no-untyped-def]
    """`exists` for exponents at which the whole box is in one piece of the line, of class `klass`."""
    info, _, _, _, goals, cubes, _ = problem
    length, zeros, residue = states[s, LENGTH], states[s, ZEROS], states[s, RESIDUE]
    has_p = states[s, PHASE] != LONGER
    for k in range(goals[klass], goals[klass + 1]):
        r, refused = cubes[k, 1], cubes[k, 3]
        low, high = first, last
        if refused == 0:
            if r == NO_SHIFT and (has_p or cap > length):
                return True
            low = last
        elif r == NO_SHIFT:
            high = first
        else:
            low, high = max(first, r + 1), min(last, max(first, cap + info[SATURATION]))
        for e in range(low, high + 1):
            if has_p and _holds(problem, k, e, length - zeros, residue):
                return True
            if _some_longer(problem, k, e, cap, length, zeros, residue):
                return True
    return False


@njit(cache=True, nogil=True)
def _some_among(problem, e, a, b, cap, states, s):  # type: ignore[no-untyped-def]
    """`exists` for the exponent e of the constants a:b, those of this exponent that start with P."""
    _, consts, strings, region, goals, cubes, _ = problem
    side, length, residue = states[s, SIDE], states[s, LENGTH], states[s, RESIDUE]
    row, n_row, has_p = states[s, LOW], length, states[s, PHASE] != LONGER
    if row == consts[a, 1] and strings[row, 0] <= length:  # P is the first constant itself
        n_row = -1
    for c in range(a, b + 1):
        klass = region[2 * c + side]  # what is between the constants c - 1, or P, and c
        if klass >= 0 and n_row >= 0:
            following = consts[c, 1] if c < b else -1
            for k in range(goals[klass], goals[klass + 1]):
                if c == a and has_p and _holds(problem, k, e, length - states[s, ZEROS], residue):
                    return True
                if _some_between(problem, k, e, cap, length, row, n_row, following):
                    return True
        if c < b:
            row = consts[c, 1]
            n_row = strings[row, 0]
            klass = region[2 * c + 1 + side]
            if klass >= 0 and n_row <= cap and (has_p or n_row > length):
                for k in range(goals[klass], goals[klass + 1]):
                    if _holds(problem, k, e, n_row, strings[row, 1]):
                        return True
    return False


@njit(cache=True, nogil=True)
def exists(problem, states, s, cap, first, last):  # type: ignore[no-untyped-def]
    """Is some number of a box good: N starts with the P of state s and has at most `cap` digits, first <= E <= last?

    P has at least one digit, the last ZEROS of these LENGTH digits are 0, RESIDUE is that of P without them, and
    LOW:HIGH are the strings of its side that start with P; if there are none both say where P would stand.
    """
    info, consts, _, region, _, _, _ = problem
    side = states[s, SIDE]
    end = info[CONSTS + side + 1]
    c = _first_at(consts, info[CONSTS + side], end, _ZERO, first)
    e = first
    while e <= last:
        a, b, stop, after = c, c, last, c
        if c < end:
            if consts[c, 0] > e:
                stop = min(last, consts[c, 0] - 1)
            else:
                stop = e
                after = _first_at(consts, c, end, _ZERO, e + 1)
                a = _first_at(consts, c, after, _ONE, states[s, LOW])
                b = _first_at(consts, a, after, _ONE, states[s, HIGH])
        if a < b:
            if _some_among(problem, e, a, b, cap, states, s):
                return True
        else:
            klass = region[2 * a + side]
            if klass >= 0 and _some_in_piece(problem, klass, e, stop, cap, states, s):
                return True
        c = after
        e = stop + 1
    return False


@njit(cache=True, nogil=True)
def value_class(problem, side, low, high, length, e):  # type: ignore[no-untyped-def]
    """The class of the number N = P at exponent e."""
    info, consts, strings, region, _, _, _ = problem
    c = _first_at(consts, info[CONSTS + side], info[CONSTS + side + 1], _ZERO, e)
    after = _first_at(consts, c, info[CONSTS + side + 1], _ZERO, e + 1)
    a = _first_at(consts, c, after, _ONE, low)
    if a < after and low < high and consts[a, 1] == low and strings[low, 0] <= length:
        return region[2 * a + 1 + side]
    return region[2 * a + side]


# -- states -----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _digit_bound(strings, low, high, i, d):  # type: ignore[no-untyped-def]
    """The first string in low:high whose digit i is >= d; these strings agree before digit i."""
    if i >= strings.shape[1] - 2:
        return low if d <= 0 else high
    return _first_at(strings, low, high, 2 + i, d)


@njit(cache=True, nogil=True)
def _append(problem, states, c, d):  # type: ignore[no-untyped-def]
    """Append digit d to P; the first one is not 0."""
    info, _, strings, _, _, _, lattices = problem
    row = states[c]
    if row[LENGTH] == 0:
        row[LOW], row[HIGH] = info[STRINGS + row[SIDE]], info[STRINGS + row[SIDE] + 1]
    if row[LOW] < row[HIGH]:
        low = _digit_bound(strings, row[LOW], row[HIGH], row[LENGTH], d)
        row[HIGH] = _digit_bound(strings, low, row[HIGH], row[LENGTH], d + 1)
        row[LOW] = low
    row[LENGTH] += 1
    if lattices.shape[0] > 0:
        if d == 0:
            row[ZEROS] += 1
        else:
            modulus = info[MODULUS]
            if modulus > 1:
                row[RESIDUE] = (_shifted(row[RESIDUE], row[ZEROS] + 1, modulus) + d) % modulus
            row[ZEROS] = 0


@njit(cache=True, nogil=True)
def _enter_exponent(problem, states, c):  # type: ignore[no-untyped-def]
    """P is complete: keep of it what its value at each exponent depends on."""
    info, _, strings, _, _, _, lattices = problem
    row = states[c]
    length, zeros, low, side = row[LENGTH], row[ZEROS], row[LOW], row[SIDE]
    point = length if row[PHASE] == INT else row[POINT]
    row[PHASE], row[USED], row[ZEROS] = EXP, 1, 0
    if length == 0:
        row[SIDE] = row[POINT] = row[LOW] = row[HIGH] = 0
        return
    if low < row[HIGH] and strings[low, 0] <= length:
        row[LENGTH], row[HIGH] = strings[low, 0], low + 1
    else:
        row[HIGH] = low
        row[LENGTH] = length - zeros if lattices.shape[0] > 0 else 1
        if info[STRINGS + side] == info[STRINGS + side + 1]:  # only E - LENGTH matters
            point -= row[LENGTH] - 1
            row[LENGTH] = 1
    row[POINT] = point


@njit(cache=True, nogil=True)
def step(problem, states, s, symbol, c):  # type: ignore[no-untyped-def]
    """Write at row c the state behind state s and a symbol; False if no number goes on so."""
    info = problem[0]
    row = states[c]
    for k in range(KEY):
        row[k] = states[s, k]
    row[KLASS] = -1
    row[BITS] = 0
    phase = row[PHASE]
    if symbol < 10:
        if phase == START or phase == MINUS:
            row[PHASE] = ZERO if symbol == 0 else INT
            row[USED] = 1
            if symbol > 0:
                _append(problem, states, c, symbol)
        elif phase == INT or phase == DOT or phase == FRAC:
            if row[USED] >= info[DIGITS]:
                return False
            row[USED] += 1
            if phase == DOT:
                row[PHASE] = FRAC
            if row[LENGTH] == 0 and symbol == 0:
                row[POINT] -= 1
            else:
                _append(problem, states, c, symbol)
        elif phase == EXP or phase == SIGN or phase == POWER:
            row[X] = row[X] * 10 + symbol
            row[PHASE] = POWER
            if row[X] > info[EXTENT]:
                return False
        else:
            return False
    elif symbol == _DOT:
        if (phase != ZERO and phase != INT) or row[USED] >= info[DIGITS]:
            return False
        row[PHASE] = DOT
        row[POINT] = row[LENGTH]
    elif symbol == _E:
        if phase != ZERO and phase != INT and phase != FRAC:
            return False
        _enter_exponent(problem, states, c)
    elif phase == EXP:
        row[PHASE] = SIGN
        row[USED] = 1 if symbol == _PLUS else -1
    elif phase == START and symbol == _MINUS:
        row[PHASE] = MINUS
        row[SIDE] = 1
    else:
        return False
    _merge(problem, states, c)
    return True


@njit(cache=True, nogil=True)
def _merge(problem, states, c):  # type: ignore[no-untyped-def]
    """Forget what makes no difference."""
    info, _, _, region, _, _, _ = problem
    row = states[c]
    if info[SAME_SIDES] != 0:
        row[SIDE] = 0
    side, phase = row[SIDE], row[PHASE]
    if info[FLAT + side] != 0 and phase >= DOT:  # all numbers of this side are alike, perhaps zero, too
        row[POINT] = 0
        if row[LENGTH] > 0 or region[2 * info[CONSTS + side] + side] == info[ZERO_CLASS]:
            row[LENGTH] = 1
            row[LOW] = row[HIGH] = info[STRINGS + side]
    if phase >= SIGN and (row[LENGTH] == 0 or info[FLAT + side] != 0):
        row[USED] = 1
    if phase == POWER and row[X] > 0 and row[X] * 10 > info[EXTENT]:  # nothing can follow
        judge(problem, states, c)
        row[PHASE], row[LOW], row[RESIDUE] = FINAL, row[KLASS], row[BITS]
        row[SIDE] = row[USED] = row[LENGTH] = row[POINT] = row[HIGH] = row[ZEROS] = row[X] = 0


@njit(cache=True, nogil=True)
def judge(problem, states, c):  # type: ignore[no-untyped-def]
    """Write class and lattice bits of the number that ends here; class -1 if none does or it is not good."""
    info, _, _, _, _, _, lattices = problem
    row = states[c]
    phase = row[PHASE]
    if phase == FINAL:
        return
    row[KLASS] = -1
    row[BITS] = 0
    if phase != ZERO and phase != INT and phase != FRAC and phase != POWER:
        return
    if row[LENGTH] == 0:
        klass, bits = info[ZERO_CLASS], (1 << lattices.shape[0]) - 1
    else:
        e = row[LENGTH] if phase == INT else row[POINT]
        if phase == POWER:
            e += row[X] * row[USED]
        klass = value_class(problem, row[SIDE], row[LOW], row[HIGH], row[LENGTH], e)
        bits = _lattice_bits(lattices, e, row[LENGTH] - row[ZEROS], row[RESIDUE])
    if _is_good(problem, klass, bits):
        row[KLASS] = klass
        row[BITS] = bits


# -- liveness and shortest completions ---------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _power_of_ten(n, limit):  # type: ignore[no-untyped-def]
    """``min(10^n, limit + 1)``."""
    power = 1
    while n > 0 and power <= limit:
        power *= 10
        n -= 1
    return min(power, limit + 1)


@njit(cache=True, nogil=True)
def _reaches(problem, states, s, n):  # type: ignore[no-untyped-def]
    """`closable` for a state whose P has a digit: its boxes, one after the other."""
    info = problem[0]
    phase, length, point, sign = states[s, PHASE], states[s, LENGTH], states[s, POINT], states[s, USED]
    extent, left = info[EXTENT], info[DIGITS] - states[s, USED]
    low, high = states[s, X], states[s, X]
    step = 0
    while True:
        is_box, is_last, cap, first, last = True, True, length, point - extent, point + extent
        if phase == SIGN or phase == POWER:  # exponents that start with X and have `step` more digits
            is_last = step == n or low == 0
            if low == 0:  # zeros in front do not count
                high = extent if n < 0 else _power_of_ten(n, extent) - 1
            first, last = low, min(high, extent)
            if sign < 0:
                first, last = -last, -first
            first += point
            last += point
            low *= 10
            high = high * 10 + 9
            if low > extent:
                is_last = True
        elif n < 0:
            if phase != EXP:
                cap = length + left
            if phase == INT:
                first, last = length - extent, length + left + extent
            if n == ONLY_LOWEST:
                last = first
        else:  # m digits, perhaps a point among them, and an exponent of k bytes with its e
            k, dotted = step // 2, step % 2
            if phase == EXP:
                k = n + 1
            up, down = _power_of_ten(k - 1, extent) - 1, _power_of_ten(k - 2, extent) - 1
            m = n - k - dotted
            if phase == EXP:
                m = 0
            else:
                is_last = step > 2 * n or (dotted == 1 and down == extent)
                is_box = k != 1 and 0 <= m <= left and (m > 0 or (phase != DOT and dotted == 0))
                is_box = is_box and (phase == INT or dotted == 0)
            cap = length + m
            first, last = point - down, point + up
            if phase == INT:
                first, last = cap - down, cap + up
                if dotted == 1:
                    first, last = length - down, last - 1
        if is_box and exists(problem, states, s, cap, first, last):
            return True
        if is_last:
            return False
        step += 1


@njit(cache=True, nogil=True)
def closable(problem, states, s, n):  # type: ignore[no-untyped-def]
    """Can state s be completed to a good number: by anything (n = ANYHOW), or by n bytes, where fewer cannot do it?

    Before P has a digit all possible first ones are tried, in the row behind the candidate of `_intern`; behind
    ``0.`` also after more zeros: one zero more makes one smaller E possible (ONLY_LOWEST) and costs a digit.
    """
    info, _, strings, _, _, _, lattices = problem
    phase = states[s, PHASE]
    if n == 0 or phase == FINAL:
        return n <= 0 and states[s, KLASS] >= 0
    if states[s, LENGTH] > 0:
        return _reaches(problem, states, s, n)
    if _is_good(problem, info[ZERO_CLASS], (1 << lattices.shape[0]) - 1):
        return True
    if phase > FRAC:
        return False
    t = states[0, 0] + 1
    for attempt in range(4):  # integer part 1-9 or 0, on either side
        side, in_fraction = attempt % 2, attempt >= 2
        used, point, spent = 0, 0, 0
        if phase == START:
            spent = side
            if side == 1 and info[SAME_SIDES] != 0:
                continue
        elif side != states[s, SIDE] or (phase != MINUS and not in_fraction):
            continue
        if phase == DOT or phase == FRAC:
            used, point = states[s, USED], states[s, POINT]
        elif in_fraction:
            used = 1
            spent += 1 if phase == ZERO else 2
        budget = ANYHOW
        while used < info[DIGITS]:
            if n >= 0:
                budget = n - spent - 1
                if budget < 0:
                    break
            for d in range(1, 10):
                bound = info[STRINGS + side + 1]
                low = _digit_bound(strings, info[STRINGS + side], bound, _ZERO, d)
                states[t, PHASE] = FRAC if in_fraction else INT
                states[t, SIDE] = side
                states[t, USED] = used + 1
                states[t, LENGTH] = 1
                states[t, POINT] = point
                states[t, LOW] = low
                states[t, HIGH] = _digit_bound(strings, low, bound, _ZERO, d + 1)
                states[t, ZEROS] = 0
                states[t, RESIDUE] = d % info[MODULUS]
                states[t, X] = 0
                if _reaches(problem, states, t, budget):
                    return True
            if not in_fraction:
                break
            budget = ONLY_LOWEST
            used += 1
            point -= 1
            spent += 1
    return False


# -- tables -----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _hash(states, s):  # type: ignore[no-untyped-def]
    h = 0
    for k in range(KEY):  # stays within 61 bits, so that Python and numba agree
        h = (h * 1000003 + states[s, k]) & _HASH_MASK
    return h ^ (h >> 17)


@njit(cache=True, nogil=True)
def _equal(states, s, t):  # type: ignore[no-untyped-def]
    for k in range(KEY):
        if states[s, k] != states[t, k]:
            return False
    return True


@njit(cache=True, nogil=True)
def _intern(problem, states, table):  # type: ignore[no-untyped-def]
    """The id of the candidate behind the last state: an old one, the next free one, or 0 if it is dead."""
    c = states[0, 0]
    mask = table.shape[0] - 1
    cell = _hash(states, c) & mask
    while table[cell] != 0:
        if _equal(states, table[cell], c):
            return table[cell]
        cell = (cell + 1) & mask
    if _equal(states, _ONE, c):
        return 0
    judge(problem, states, c)
    if states[c, KLASS] < 0 and not closable(problem, states, c, np.int64(ANYHOW)):
        for k in range(KEY):
            states[1, k] = states[c, k]
        return 0
    table[cell] = c
    states[0, 0] = c + 1
    return c


@njit(cache=True, nogil=True)
def fill_row(problem, states, table, s, out_row):  # type: ignore[no-untyped-def]
    """Write the targets of state s by byte; `states` and `table` have room for SYMBOLS + 2 more."""
    out_row[:] = 0
    for symbol in range(SYMBOLS):
        if step(problem, states, s, symbol, states[0, 0]):
            target = _intern(problem, states, table)
            out_row[_BYTES[symbol]] = target
            if symbol == _E:
                out_row[_UPPER_E] = target


@njit(cache=True, nogil=True)
def rehash(states, table):  # type: ignore[no-untyped-def]
    """Enter all states into an empty table."""
    mask = table.shape[0] - 1
    for s in range(2, states[0, 0]):
        cell = _hash(states, s) & mask
        while table[cell] != 0:
            cell = (cell + 1) & mask
        table[cell] = s


def interpreted() -> dict[str, Any]:
    """The kernels as plain Python functions, for arrays of Python ints (and as the kernels' readable twins)."""
    scope = dict(globals())
    for name, value in globals().items():
        function = getattr(value, "py_func", value)
        if isinstance(function, FunctionType) and function.__module__ == __name__:
            scope[name] = FunctionType(function.__code__, scope, name)
    return scope
