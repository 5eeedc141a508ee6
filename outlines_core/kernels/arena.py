"""Rows of recognizers, renumbered for the arena."""

from __future__ import annotations

from numba import njit

__all__ = ["map_row"]


@njit(cache=True, nogil=True)
def map_row(row, numbers, out_row, out_new):  # type: ignore[no-untyped-def]
    """Write the arena's numbers of the states in a row.

    row      (256,) int32: states, 0 = dead
    numbers  int32: the number of each state, 0: it has none yet
    out_new  (256,) int32: the states without a number, some repeatedly
    Returns how many entries those are: if there are any, number them and call again; -1 if `numbers` is too short.
    """
    n_new = 0
    last, number = 0, 0
    for b in range(256):
        state = row[b]
        if state != last:
            if state >= numbers.shape[0]:
                return -1
            last = state
            number = numbers[state]
            if number == 0 and state != 0:
                out_new[n_new] = state
                n_new += 1
        out_row[b] = number
    return n_new
