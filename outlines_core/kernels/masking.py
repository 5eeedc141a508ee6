"""Apply packed masks to logits in one pass over memory: copy what is allowed, write -inf elsewhere.

The kernels work on the *bit patterns* of floats (int16 for float16 and bfloat16, int32 for float32, int64 for
float64): they only copy values and compare them with one constant, so one source serves every format.

The 32 columns of a word are done as vectors: the word in every lane, each lane's bit cut out, and a choice between
score and -inf. Written as a loop, LLVM unrolls it before it vectorises, and takes two to fifteen times as long.
Most words of most masks have no bit, or nearly all: the former are filled, and of the latter, in place, only the few
columns that are not allowed are written.

New memory that is larger than a core's cache is written past the cache: else all of it would be read first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from outlines_core.kernels.borrow import trailing_zeros

__all__ = ["apply_masks", "apply_masks_at", "match_rows", "rows_continue"]

_EVERY_BIT = np.uint32(0xFFFFFFFF)
_VECTOR_BITS = 256
_PAST_CACHE = 16 * 2**20


def _everywhere(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of one value."""
    vector, index = ir.VectorType(value.type, lanes), ir.IntType(32)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(index, 0))
    places = ir.Constant(ir.VectorType(index, lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), places)


def _store(builder: Any, value: Any, address: Any, width: int, *, past_cache: bool) -> None:
    if not past_cache:
        builder.store(value, address, align=width // 8)
        return
    store = builder.store(value, address, align=_VECTOR_BITS // 8)
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


def _blending(source: Any, target: Any, word: Any, minus_infinity: Any, *, past_cache: bool) -> Any:
    width = minus_infinity.bitwidth
    lanes = _VECTOR_BITS // width

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, target, word, minus_infinity = arguments
        number, index, truth = ir.IntType(width), ir.IntType(32), ir.IntType(1)
        vector = ir.VectorType(number, lanes)
        sources, targets = (builder.inttoptr(at, vector.as_pointer()) for at in (source, target))
        closed, none = _everywhere(builder, minus_infinity, lanes), ir.Constant(vector, [0] * lanes)
        some = ir.Constant(ir.VectorType(truth, lanes), [0] * lanes)
        places = [ir.Constant(index, k) for k in range(32 // lanes)]
        every = [builder.load(builder.gep(sources, [at]), align=width // 8) for at in places]
        for k, (at, scores) in enumerate(zip(places, every, strict=True)):
            if width < 32:
                bits, first = builder.trunc(builder.lshr(word, ir.Constant(word.type, k * lanes)), number), 0
            else:
                bits, first = builder.zext(word, number) if width > 32 else word, k * lanes
            own = ir.Constant(vector, [1 << (first + b) for b in range(lanes)])
            allowed = builder.icmp_unsigned("!=", builder.and_(_everywhere(builder, bits, lanes), own), none)
            chosen = builder.select(allowed, scores, closed)
            some = builder.or_(some, builder.and_(allowed, builder.icmp_unsigned("!=", scores, closed)))
            _store(builder, chosen, builder.gep(targets, [at]), width, past_cache=past_cache)
        each = ir.IntType(lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(some, each), ir.Constant(each, 0))

    return types.boolean(source, target, word, minus_infinity), generate


def _blend(_context: Any, source: Any, target: Any, word: Any, minus_infinity: Any) -> Any:
    """Write 32 scores from one address to another (or the same), -inf where a word has no bit; is one not -inf?"""
    return _blending(source, target, word, minus_infinity, past_cache=False)


def _blend_past_cache(_context: Any, source: Any, target: Any, word: Any, minus_infinity: Any) -> Any:
    """The same for a target that is aligned to vectors."""
    return _blending(source, target, word, minus_infinity, past_cache=True)


def _closing(target: Any, minus_infinity: Any, *, past_cache: bool) -> Any:
    width = minus_infinity.bitwidth
    lanes = _VECTOR_BITS // width

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        target, minus_infinity = arguments
        targets = builder.inttoptr(target, ir.VectorType(ir.IntType(width), lanes).as_pointer())
        closed = _everywhere(builder, minus_infinity, lanes)
        for k in range(32 // lanes):
            place = builder.gep(targets, [ir.Constant(ir.IntType(32), k)])
            _store(builder, closed, place, width, past_cache=past_cache)
        return ir.Constant(ir.IntType(1), 0)

    return types.boolean(target, minus_infinity), generate


def _close(_context: Any, target: Any, minus_infinity: Any) -> Any:
    """Write -inf to 32 scores at an address."""
    return _closing(target, minus_infinity, past_cache=False)


def _close_past_cache(_context: Any, target: Any, minus_infinity: Any) -> Any:
    """The same for a target that is aligned to vectors."""
    return _closing(target, minus_infinity, past_cache=True)


def _settle(_context: Any) -> Any:
    """Let other threads see what was written past the cache."""

    def generate(_target: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return ir.Constant(ir.IntType(1), 0)

    return types.boolean(), generate


def _size_of(_context: Any, number: Any) -> Any:
    """Bytes of a number."""

    def generate(_target: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(ir.IntType(64), number.bitwidth // 8)

    return types.int64(number), generate


def _read(_context: Any, address: Any, like: Any) -> Any:
    """The number at an address, of the type of another one."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(like.bitwidth).as_pointer()
        return builder.load(builder.inttoptr(arguments[0], pointer), align=like.bitwidth // 8)

    return like(address, like), generate


def _write(_context: Any, address: Any, number: Any) -> Any:
    """Write a number to an address."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(number.bitwidth).as_pointer()
        builder.store(arguments[1], builder.inttoptr(arguments[0], pointer), align=number.bitwidth // 8)
        return ir.Constant(ir.IntType(1), 0)

    return types.boolean(address, number), generate


size_of: Any = intrinsic(_size_of)
read: Any = intrinsic(_read)
write: Any = intrinsic(_write)
blend: Any = intrinsic(_blend)
close: Any = intrinsic(_close)
blend_past_cache: Any = intrinsic(_blend_past_cache)
close_past_cache: Any = intrinsic(_close_past_cache)
settle: Any = intrinsic(_settle)


@njit(cache=True, nogil=True)
def apply_masks(scores, masks, minus_infinity, begin, end, out_scores, out_open):  # type: ignore[no-untyped-def]
    """Write rows begin..end of `scores` to `out_scores`, with -inf wherever the mask has no bit.

    scores     (n_rows, n_columns) int16 | int32 | int64, C-contiguous, bit patterns of floats
    masks      (n_rows, n_words) uint32; columns past the mask become -inf, bits past the columns are ignored
    minus_infinity   the pattern of -inf, of the dtype of `scores`
    out_scores like `scores`, rows begin..end overwritten; or `scores` itself: what is allowed is then not written
    out_open   (n_rows,) uint8; 1 if some allowed column is not -inf, else 0
    """
    n_columns = np.int64(scores.shape[1])
    source, target = np.int64(scores.ctypes.data), np.int64(out_scores.ctypes.data)
    apply_masks_at(source, target, n_columns, masks, minus_infinity, np.int64(begin), np.int64(end), out_open)


@njit(cache=True, nogil=True)
def apply_masks_at(source, target, n_columns, masks, minus_infinity, begin, end, out_open):  # type: ignore[no-untyped-def]
    """`apply_masks` of scores at an address, which are written to an address."""
    size = size_of(minus_infinity)
    n_words = min(masks.shape[1], (n_columns + 31) >> 5)
    n_whole = min(n_words, n_columns >> 5)  # words all of whose columns exist
    in_place = source == target
    stride = n_columns * size
    past_cache = not in_place and (end - begin) * stride >= _PAST_CACHE and (target | stride) % (_VECTOR_BITS // 8) == 0
    for r in range(begin, end):
        first, last = source + r * stride, target + r * stride
        is_open = False
        if past_cache:
            for w in range(n_whole):
                word, at = masks[r, w], (w << 5) * size
                if word == 0:
                    close_past_cache(last + at, minus_infinity)
                else:
                    is_open |= blend_past_cache(first + at, last + at, word, minus_infinity)
        else:
            for w in range(n_whole):
                word, at = masks[r, w], (w << 5) * size
                if word == 0:
                    close(last + at, minus_infinity)
                elif not in_place or not is_open:
                    is_open |= blend(first + at, last + at, word, minus_infinity)
                elif word != _EVERY_BIT:
                    barred = np.uint64(~word & _EVERY_BIT)
                    few = barred & (barred - np.uint64(1))
                    few &= few - np.uint64(1) if few != 0 else np.uint64(0)
                    if few != 0:
                        blend(first + at, last + at, word, minus_infinity)
                        continue
                    while barred != 0:
                        write(last + at + np.int64(trailing_zeros(barred)) * size, minus_infinity)
                        barred &= barred - np.uint64(1)
        for w in range(n_whole, n_words):
            word = masks[r, w]
            for at in range(w << 5, n_columns):
                x = minus_infinity
                if (word >> np.uint32(at & 31)) & np.uint32(1):
                    x = read(first + at * size, minus_infinity)
                is_open |= x != minus_infinity
                write(last + at * size, x)
        for at in range(min(n_words << 5, n_columns), n_columns):
            write(last + at * size, minus_infinity)
        out_open[r] = is_open
    if past_cache:
        settle()


@njit(cache=True, nogil=True)
def rows_continue(ids, length, known):  # type: ignore[no-untyped-def]
    """Is ``ids[r, :length]`` equal to ``known[r, :length]`` in all rows?  int64 arrays of as many rows."""
    for r in range(ids.shape[0]):
        different = np.int64(0)
        for i in range(length):
            different |= ids[r, i] ^ known[r, i]
        if different != 0:
            return False
    return True


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
