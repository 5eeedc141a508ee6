"""The classes of characters that a number of sets do not tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from outlines_core.regex.ast import Ranges

__all__ = ["classes_of", "letters_of"]


def _pieces(sets: list[Ranges]) -> Iterator[tuple[int, int, int]]:
    """Cut all code points where some set begins or ends: (first, last, bit set of the sets that hold them)."""
    toggles: dict[int, int] = {0: 0, 0xD800: 0, 0xE000: 0, 0x110000: 0}
    for number, ranges in enumerate(sets):
        for low, high in ranges:
            toggles[low] = toggles.get(low, 0) ^ (1 << number)
            toggles[high + 1] = toggles.get(high + 1, 0) ^ (1 << number)
    inside = 0
    for point, following in itertools.pairwise(sorted(toggles)):
        inside ^= toggles[point]
        if not 0xD800 <= point < 0xE000:
            yield point, following - 1, inside


def classes_of(sets: list[Ranges]) -> list[tuple[list[int], Ranges]]:
    """The classes of characters that no set tells apart: (numbers of the sets that hold them, the characters)."""
    classes: dict[int, list[tuple[int, int]]] = {}
    for low, high, inside in _pieces(sets):
        row = classes.setdefault(inside, [])
        if row and row[-1][1] + 1 == low:
            row[-1] = (row[-1][0], high)
        else:
            row.append((low, high))
    return [([k for k in range(len(sets)) if inside >> k & 1], tuple(row)) for inside, row in classes.items()]


def letters_of(sets: list[Ranges], characters: set[str]) -> tuple[Ranges, ...]:
    """The classes of characters that no set and no single character tells apart."""
    singles: list[Ranges] = [((ord(c), ord(c)),) for c in sorted(characters)]
    return tuple(ranges for _, ranges in classes_of([*sets, *singles]))
