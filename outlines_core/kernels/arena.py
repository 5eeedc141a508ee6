"""Rows of recognizers, renumbered for the arena; and what can be read off them."""

from __future__ import annotations

import numpy as np
from numba import njit

from outlines_core.kernels.json_content import loops_of
from outlines_core.kernels.json_memory import FILLED

__all__ = ["leads_elsewhere", "map_row"]


@njit(cache=True, nogil=True)
def map_row(row, numbers, rows, loops, c, n, out_new):  # type: ignore[no-untyped-def]
    """Fill row `c` of the arena, giving numbers to the states that have none: from `n` on.

    row      (256,) int32: states, 0 = dead
    numbers  int32: the number of each state, 0: it has none yet
    rows     the arena, with room for 256 more rows
    loops    int64: for each row what `json_content.loops_of` says
    out_new  (256,) int32: the states that get a number
    Returns how many those are; -1, and nothing is done, if `numbers` is too short.
    """
    for b in range(256):
        if row[b] >= numbers.shape[0]:
            return np.int64(-1)
    n_new = np.int64(0)
    for b in range(256):
        state = row[b]
        number = numbers[state] if state != 0 else np.int32(0)
        if number == 0 and state != 0:
            number = np.int32(n + n_new)
            numbers[state] = number
            out_new[n_new] = state
            n_new += 1
        rows[c, b] = number
    rows[c, FILLED] = 1
    loops[c] = loops_of(rows[c], c)
    return n_new


@njit(cache=True, nogil=True)
def leads_elsewhere(rows, c, data, indptr, places, out_hole):  # type: ignore[no-untyped-def]
    """Can what begins like one of some texts always go on from row `c` to become another text?  A sufficient test.

    data, indptr  the texts, sorted: uint8, and int64 offsets
    places        (n, 4) int64, overwritten: no more places than these are looked at
    out_hole      (1,) int64: what row to fill, before the next call, if the answer is -1
    Returns 1 (yes), 0 or -1.
    """
    places[0, 0], places[0, 1], places[0, 2], places[0, 3] = c, 0, 0, indptr.shape[0] - 1
    n, k = 1, 0
    while k < n:
        row, depth, low, high = places[k, 0], places[k, 1], places[k, 2], places[k, 3]
        k += 1
        if row == 0:
            return 0
        if rows[row, FILLED] == 0:
            out_hole[0] = row
            return -1
        ways = 0
        for b in range(256):
            ways += rows[row, b] != 0
        if low < high and indptr[low + 1] - indptr[low] == depth:
            low += 1
        while low < high:
            b = data[indptr[low] + depth]
            end = low + 1
            while end < high and data[indptr[end] + depth] == b:
                end += 1
            if rows[row, b] != 0:
                ways -= 1
                if n >= places.shape[0]:
                    return 0
                places[n, 0], places[n, 1], places[n, 2], places[n, 3] = rows[row, b], depth + 1, low, end
                n += 1
            low = end
        if ways <= 0:
            return 0
    return 1
