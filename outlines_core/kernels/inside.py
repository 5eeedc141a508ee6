"""Tokens that end a JSON string: where, and which of them are allowed."""

from __future__ import annotations

import numpy as np
from numba import njit

from outlines_core.kernels.json_memory import OUTCOME

__all__ = ["NO_QUOTE", "OPEN_ESCAPE", "behind_quotes", "clear_longer", "closing_quotes", "put_addresses", "set_tokens"]

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
def behind_quotes(vocabulary, rows, exits, text):  # type: ignore[no-untyped-def]
    """What ends a string, by its exits.

    rows   the arena
    exits  as `kernels.json_content.walk_inside` leaves them
    text   (size,) int32: the number of the text that a token says behind its first quote
    Returns the content row of an exit that is nothing but a quote (0: there is none; -1: their outcomes differ), the
    tokens below such exits, their texts, and the characters before the exit (int32); the other exits; and (257,) int32:
    where exits behind each first byte begin.
    """
    info, end, token = vocabulary
    starts = np.zeros(257, dtype=np.int32)
    top, k = np.int64(0), 0
    for b in range(256):  # both are ascending
        starts[b] = k
        if top < info.shape[0] and info[top] & 255 == b:
            top = np.int64(end[top])
            while k < exits.shape[0] and exits[k, 0] < top:
                k += 1
    starts[256] = k
    n, n_others, first = 0, 0, np.int64(0)
    for k in range(exits.shape[0]):
        if exits[k, 3] != 0:
            n_others += 1
            continue
        n += end[exits[k, 0]] - exits[k, 0]
        if first == 0:
            first = exits[k, 1]
        elif first > 0 and rows[exits[k, 1], OUTCOME] != rows[first, OUTCOME]:
            first = np.int64(-1)
    n = n if first > 0 else 0
    tokens, texts, chars = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    others = np.empty((n_others, 5), dtype=np.int64)
    n = n_others = 0
    for k in range(exits.shape[0]):
        if exits[k, 3] != 0:
            for j in range(5):
                others[n_others, j] = exits[k, j]
            n_others += 1
        elif first > 0:
            for node in range(exits[k, 0], end[exits[k, 0]]):
                if token[node] < text.shape[0]:
                    tokens[n] = token[node]
                    texts[n] = text[token[node]]
                    chars[n] = exits[k, 2]
                    n += 1
    return first, tokens[:n], texts[:n], chars[:n], others, starts


@njit(cache=True, nogil=True)
def put_addresses(words, ids, exits, tokens, texts, chars, others, starts, head, out_table):  # type: ignore[no-untyped-def]
    """Enter arrays into (n, 2) `out_table`, the table of a `Handles`: from row 0 on, in this order."""
    out_table[0, 0], out_table[0, 1] = words.ctypes.data, words.shape[0]
    out_table[1, 0], out_table[1, 1] = ids.ctypes.data, ids.shape[0]
    out_table[2, 0], out_table[2, 1] = exits.ctypes.data, exits.shape[0]
    out_table[3, 0], out_table[3, 1] = tokens.ctypes.data, tokens.shape[0]
    out_table[4, 0], out_table[4, 1] = texts.ctypes.data, texts.shape[0]
    out_table[5, 0], out_table[5, 1] = chars.ctypes.data, chars.shape[0]
    out_table[6, 0], out_table[6, 1] = others.ctypes.data, others.shape[0]
    out_table[7, 0], out_table[7, 1] = starts.ctypes.data, starts.shape[0]
    out_table[8, 0], out_table[8, 1] = head.ctypes.data, head.shape[0]


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
