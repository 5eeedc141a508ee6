"""Which NFA states can still lead to a whole match."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["usefulness"]

_CHAR, _SPLIT, _ACCEPT, _BEGIN, _END, _LOOK = 0, 1, 2, 3, 4, 5


@njit(cache=True, nogil=True)
def usefulness(kind, a, b, targets):  # type: ignore[no-untyped-def]
    """Flags per state: can ACCEPT be reached from here, when the text has begun already?

    For END states: bit 0, the text may end right here; bit 1, it may if it is empty too (BEGIN can be passed).
    Look-arounds are taken to hold; a state flagged useful may still be stuck, one flagged useless is.
    Sweeps until nothing changes: continuations have smaller indices than what they continue, so two are the rule.
    """
    n = kind.shape[0]
    at_end = np.zeros(n, dtype=np.uint8)  # ACCEPT is reached without reading: bit 0, bit 1 as above
    out = np.zeros(n, dtype=np.uint8)
    changed = True
    while changed:
        changed = False
        for s in range(n):
            what = kind[s]
            new_end = np.uint8(0)
            new_out = np.uint8(0)
            if what == _CHAR:
                new_out = out[b[s]]
            elif what == _SPLIT:
                for k in range(a[s], b[s]):
                    new_end |= at_end[targets[k]]
                    new_out |= out[targets[k]]
            elif what == _ACCEPT:
                new_end = np.uint8(3)
                new_out = np.uint8(1)
            elif what == _BEGIN:
                new_end = at_end[b[s]] & np.uint8(2)
            elif what == _END:
                new_end = at_end[b[s]]
                new_out = at_end[b[s]] & np.uint8(1)
            else:
                new_end = at_end[b[s]]
                new_out = out[b[s]]
            if new_end != at_end[s] or new_out != out[s]:
                at_end[s] = new_end
                out[s] = new_out
                changed = True
    for s in range(n):
        if kind[s] == _END:
            out[s] = at_end[b[s]]
    return out
