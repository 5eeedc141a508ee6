"""Apply packed masks to logits in one pass over memory: copy what is allowed, write -inf elsewhere.

The kernel works on the *bit patterns* of floats (int16 for float16 and bfloat16, int32 for float32, int64 for
float64): it only copies values and compares them with one constant, so one source serves every format.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["apply_masks", "match_rows"]


@njit(cache=True, nogil=True)
def apply_masks(scores, masks, minus_infinity, begin, end, out_scores, out_open):  # type: ignore[no-untyped-def]
    """Write rows begin..end of `scores` to `out_scores`, with -inf wherever the mask has no bit.

    scores     (n_rows, n_columns) int16 | int32 | int64, bit patterns of floats
    masks      (n_rows, n_words) uint32; columns past the mask become -inf, bits past the columns are ignored
    minus_infinity   the pattern of -inf, of the dtype of `scores`
    out_scores like `scores`, rows begin..end overwritten
    out_open   (n_rows,) uint8; 1 if some allowed column is not -inf, else 0
    """
    n_columns = scores.shape[1]
    n_words = min(masks.shape[1], (n_columns + 31) >> 5)
    n_whole = min(n_words, n_columns >> 5)  # words all of whose columns exist
    for r in range(begin, end):
        is_open = False
        for w in range(n_whole):  # no branch on the word: a mispredicted one costs more than 32 columns
            word = masks[r, w]
            at = w << 5
            some = False
            for b in range(32):
                x = scores[r, at + b] if (word >> np.uint32(b)) & np.uint32(1) else minus_infinity
                some |= x != minus_infinity
                out_scores[r, at + b] = x
            is_open |= some
        for w in range(n_whole, n_words):
            word = masks[r, w]
            for at in range(w << 5, n_columns):
                x = scores[r, at] if (word >> np.uint32(at & 31)) & np.uint32(1) else minus_infinity
                is_open |= x != minus_infinity
                out_scores[r, at] = x
        for at in range(min(n_words << 5, n_columns), n_columns):
            out_scores[r, at] = minus_infinity
        out_open[r] = is_open


@njit(cache=True, nogil=True)
def match_rows(ids, length, known, n_blocks, out_row):  # type: ignore[no-untyped-def]
    """For each row r without a match, find a row of `known` in the same block that begins with ``ids[r, :length]``.

    ids      (n_rows, >= length) int64     known (n_known, >= length) int64
    n_blocks both are cut into so many blocks of rows of equal size
    out_row  (n_rows,) int64; -1 asks for a match and stays if there is none
    Returns the number of rows left without.

    Rows are compared from their ends: different rows differ there first. The row of the same number is tried first.
    """
    n_rows = ids.shape[0]
    per_block = n_rows // n_blocks
    known_per_block = known.shape[0] // n_blocks
    left = 0
    for r in range(n_rows):
        if out_row[r] >= 0:
            continue
        block = r // per_block
        first = block * known_per_block
        guess = min(r % per_block, known_per_block - 1)
        mine = ids[r]
        for k in range(-1, known_per_block):
            q = first + (guess if k < 0 else k)
            if k == guess:
                continue
            other = known[q]
            end = length
            equal = True
            while end >= 64 and equal:  # slices of a fixed length, without negative indices, become vector code
                a, b = mine[end - 64 : end], other[end - 64 : end]
                different = np.int64(0)
                for i in range(64):
                    different |= a[i] ^ b[i]
                equal = different == 0
                end -= 64
            for i in range(end):
                equal &= mine[i] == other[i]
            if equal:
                out_row[r] = q
                break
        left += out_row[r] < 0
    return left
