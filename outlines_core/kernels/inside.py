"""Tokens that end a JSON string: where, and which of them are allowed."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["NO_QUOTE", "OPEN_ESCAPE", "clear_longer", "closing_quotes", "set_tokens", "tokens_below"]

NO_QUOTE, OPEN_ESCAPE = -1, -2


@njit(cache=True, nogil=True)
def closing_quotes(data, indptr, out_at):  # type: ignore[no-untyped-def]
    """Where each token, read from within a string, ends it.

    data, indptr  the tokens' bytes, uint8 and int64 offsets
    out_at        (size,) int32: place of the first quote that no backslash precedes; NO_QUOTE: none;
                  OPEN_ESCAPE: none, and the token ends within an escape or with that of a high surrogate
    """
    for t in range(out_at.shape[0]):
        out_at[t] = NO_QUOTE
        open_ = 0  # bytes of an escape to come
        high = False  # was the last character an escaped high surrogate?
        for k in range(indptr[t], indptr[t + 1]):
            b = data[k]
            if open_ > 0:
                if open_ == 5 and b != 0x75:
                    open_ = 0
                else:
                    open_ -= 1
                    high = open_ == 0 and data[k - 3] | 32 == 0x64 and (data[k - 2] | 32 in (0x38, 0x39, 0x61, 0x62))
                continue
            high = False
            if b == 0x5C:
                open_ = 5
            elif b == 0x22:
                out_at[t] = k - indptr[t]
                break
        if (open_ > 0 or high) and out_at[t] == NO_QUOTE:
            out_at[t] = OPEN_ESCAPE


@njit(cache=True, nogil=True)
def tokens_below(vocabulary, size, exits):  # type: ignore[no-untyped-def]
    """The tokens below exits, and the characters that they add before the exit: two int32 arrays.

    exits  as `kernels.json.walk_inside` leaves them
    """
    _, end, token = vocabulary
    n = 0
    for k in range(exits.shape[0]):
        n += end[exits[k, 0]] - exits[k, 0]
    tokens, chars = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    n = 0
    for k in range(exits.shape[0]):
        for node in range(exits[k, 0], end[exits[k, 0]]):
            if token[node] < size:
                tokens[n] = token[node]
                chars[n] = exits[k, 2]
                n += 1
    return tokens[:n].copy(), chars[:n].copy()


@njit(cache=True, nogil=True)
def clear_longer(tokens, needs, room, out_mask):  # type: ignore[no-untyped-def]
    """Clear the bits of the tokens that need more than `room`."""
    for k in range(tokens.shape[0]):
        if needs[k] > room:
            t = tokens[k]
            out_mask[t >> 5] &= ~(np.uint32(1) << np.uint32(t & 31))


@njit(cache=True, nogil=True)
def set_tokens(tokens, out_mask):  # type: ignore[no-untyped-def]
    """Set the bits of tokens."""
    for k in range(tokens.shape[0]):
        t = tokens[k]
        out_mask[t >> 5] |= np.uint32(1) << np.uint32(t & 31)
