"""Apply packed masks to logits in one pass over memory: copy what is allowed, write -inf elsewhere.

The kernels work on the *bit patterns* of floats (int16 for float16 and bfloat16, int32 for float32, int64 for
float64): they only copy values and compare them with one constant, so one source serves every format.

The 32 columns of a word are done as vectors: the word in every lane, each lane's bit cut out, and a choice between
score and -inf. Written as a loop, LLVM unrolls it before it vectorises, and takes two to fifteen times as long.
Most words of most masks have no bit or all of them: what they say is written or copied without looking at bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["apply_masks", "match_rows"]

_EVERY_BIT = np.uint32(0xFFFFFFFF)
_VECTOR_BITS = 256


def _everywhere(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of one value."""
    vector, index = ir.VectorType(value.type, lanes), ir.IntType(32)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(index, 0))
    places = ir.Constant(ir.VectorType(index, lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), places)


def _blend(_context: Any, source: Any, target: Any, word: Any, minus_infinity: Any) -> Any:
    """Write 32 scores from one address to another (or the same), -inf where a word has no bit; is one not -inf?"""
    width = minus_infinity.bitwidth
    lanes = _VECTOR_BITS // width

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, target, word, minus_infinity = arguments
        number, index, truth = ir.IntType(width), ir.IntType(32), ir.IntType(1)
        vector = ir.VectorType(number, lanes)
        sources, targets = (builder.inttoptr(at, vector.as_pointer()) for at in (source, target))
        closed, none = _everywhere(builder, minus_infinity, lanes), ir.Constant(vector, [0] * lanes)
        some = ir.Constant(ir.VectorType(truth, lanes), [0] * lanes)
        for k in range(32 // lanes):
            if width < 32:
                bits, first = builder.trunc(builder.lshr(word, ir.Constant(word.type, k * lanes)), number), 0
            else:
                bits, first = builder.zext(word, number) if width > 32 else word, k * lanes
            own = ir.Constant(vector, [1 << (first + b) for b in range(lanes)])
            allowed = builder.icmp_unsigned("!=", builder.and_(_everywhere(builder, bits, lanes), own), none)
            at = ir.Constant(index, k)
            scores = builder.load(builder.gep(sources, [at]), align=width // 8)
            chosen = builder.select(allowed, scores, closed)
            some = builder.or_(some, builder.icmp_unsigned("!=", chosen, closed))
            builder.store(chosen, builder.gep(targets, [at]), align=width // 8)
        each = ir.IntType(lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(some, each), ir.Constant(each, 0))

    return types.boolean(source, target, word, minus_infinity), generate


def _close(_context: Any, target: Any, minus_infinity: Any) -> Any:
    """Write -inf to 32 scores at an address."""
    width = minus_infinity.bitwidth
    lanes = _VECTOR_BITS // width

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        target, minus_infinity = arguments
        targets = builder.inttoptr(target, ir.VectorType(ir.IntType(width), lanes).as_pointer())
        closed = _everywhere(builder, minus_infinity, lanes)
        for k in range(32 // lanes):
            builder.store(closed, builder.gep(targets, [ir.Constant(ir.IntType(32), k)]), align=width // 8)
        return ir.Constant(ir.IntType(1), 0)

    return types.boolean(target, minus_infinity), generate


blend: Any = intrinsic(_blend)
close: Any = intrinsic(_close)


@njit(cache=True, nogil=True)
def apply_masks(scores, masks, minus_infinity, begin, end, out_scores, out_open):  # type: ignore[no-untyped-def]
    """Write rows begin..end of `scores` to `out_scores`, with -inf wherever the mask has no bit.

    scores     (n_rows, n_columns) int16 | int32 | int64, C-contiguous, bit patterns of floats
    masks      (n_rows, n_words) uint32; columns past the mask become -inf, bits past the columns are ignored
    minus_infinity   the pattern of -inf, of the dtype of `scores`
    out_scores like `scores`, rows begin..end overwritten; or `scores` itself: what is allowed is then not written
    out_open   (n_rows,) uint8; 1 if some allowed column is not -inf, else 0
    """
    n_columns = scores.shape[1]
    n_words = min(masks.shape[1], (n_columns + 31) >> 5)
    n_whole = min(n_words, n_columns >> 5)  # words all of whose columns exist
    size = scores.itemsize
    first_source, first_target = np.int64(scores.ctypes.data), np.int64(out_scores.ctypes.data)
    in_place = first_source == first_target
    for r in range(begin, end):
        source, target = first_source + r * n_columns * size, first_target + r * n_columns * size
        is_open = False
        for w in range(n_whole):
            word, at = masks[r, w], (w << 5) * size
            if word == 0:
                close(target + at, minus_infinity)
            elif word != _EVERY_BIT or not in_place or not is_open:
                is_open |= blend(source + at, target + at, word, minus_infinity)
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
