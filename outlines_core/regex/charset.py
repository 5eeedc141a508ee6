"""Set algebra on code points.

A set of characters is a tuple of inclusive ranges, sorted, disjoint and not adjacent (`Ranges`): Unicode's largest
classes have some 700 of them, so every operation is one linear merge, and equal sets are equal tuples.

    >>> union(((97, 99),), ((100, 102),))
    ((97, 102),)
    >>> complement(((0, 96), (98, 0x10FFFF)))
    ((97, 97),)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from outlines_core.regex.ast import Ranges

__all__ = [
    "ALL",
    "MAX_CODE_POINT",
    "NONE",
    "complement",
    "contains",
    "difference",
    "from_chars",
    "intersection",
    "normalise",
    "size",
    "union",
]

MAX_CODE_POINT = 0x10FFFF
NONE: Ranges = ()
ALL: Ranges = ((0, MAX_CODE_POINT),)


def normalise(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """The canonical form of any inclusive pairs: overlapping, adjacent, in any order.

    >>> normalise([(5, 9), (1, 2), (3, 4), (8, 12)])
    ((1, 12),)
    """
    ordered = sorted(pairs)
    if not ordered:
        return NONE
    out: list[tuple[int, int]] = []
    low, high = ordered[0]
    for first, last in ordered:
        if first > high + 1:
            out.append((low, high))
            low, high = first, last
        elif last > high:
            high = last
    out.append((low, high))
    return tuple(out)


def from_chars(chars: Iterable[str]) -> Ranges:
    """The set of these characters."""
    return normalise((code, code) for code in map(ord, chars))


def union(*sets: Ranges) -> Ranges:
    """Characters in any of `sets`."""
    present = [ranges for ranges in sets if ranges]
    if len(present) == 1:
        return present[0]
    return normalise(pair for ranges in present for pair in ranges)


def complement(ranges: Ranges) -> Ranges:
    """Every code point (surrogates too) that is not in `ranges`."""
    out: list[tuple[int, int]] = []
    start = 0
    for low, high in ranges:
        if low > start:
            out.append((start, low - 1))
        start = high + 1
    if start <= MAX_CODE_POINT:
        out.append((start, MAX_CODE_POINT))
    return tuple(out)


def intersection(left: Ranges, right: Ranges) -> Ranges:
    """Characters in both."""
    out: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        low = max(left[i][0], right[j][0])
        high = min(left[i][1], right[j][1])
        if low <= high:
            out.append((low, high))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(out)


def difference(left: Ranges, right: Ranges) -> Ranges:
    """Characters of `left` that are not in `right`."""
    return intersection(left, complement(right))


def contains(ranges: Ranges, code: int) -> bool:
    """Is `code` in the set?  O(log n)."""
    i = bisect_right(ranges, (code, MAX_CODE_POINT + 1)) - 1
    return i >= 0 and ranges[i][1] >= code


def size(ranges: Ranges) -> int:
    """How many code points the set has."""
    return sum(high - low + 1 for low, high in ranges)
