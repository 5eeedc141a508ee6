"""The layout of a mask: token t is bit ``t & 31`` of 32-bit word ``t >> 5``; bits past the vocabulary are 0."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.vocabulary import Vocabulary

__all__ = ["allocate_bitmask", "checked_words", "n_words", "pack_ids", "unpack_ids"]


def n_words(size: int) -> int:
    """Words of a mask over `size` ids."""
    return (size + 31) // 32


def allocate_bitmask(batch: int, vocab_or_size: Vocabulary | int) -> NDArray[np.int32]:
    """A zeroed (batch, n_words) int32 array for `fill_mask` and `fill_masks`.

    >>> allocate_bitmask(2, 40).shape
    (2, 2)
    """
    size = vocab_or_size if isinstance(vocab_or_size, int) else vocab_or_size.size
    if batch < 0 or size < 0:
        raise ValueError(f"batch and size must not be negative, got {batch} and {size}")
    return np.zeros((batch, n_words(size)), dtype=np.int32)


def checked_words(out: Any, words: int) -> NDArray[np.uint32]:
    """`out` as uint32, if it can take a mask of `words` words.  Raises ValueError and leaves it alone otherwise."""
    if type(out) is not np.ndarray or out.ndim != 1 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("a mask must be a writable, C-contiguous, one-dimensional numpy array")
    if out.dtype == np.int32:
        out = out.view(np.uint32)
    elif out.dtype != np.uint32:
        raise ValueError(f"a mask must be int32 or uint32, not {out.dtype}")
    if out.shape[0] < words:
        raise ValueError(f"a mask of this vocabulary needs {words} words, got {out.shape[0]}")
    words_of_out: NDArray[np.uint32] = out
    return words_of_out


def pack_ids(ids: Iterable[int] | NDArray[Any], size: int) -> NDArray[np.uint32]:
    """The mask in which exactly `ids` are set."""
    chosen = np.asarray(list(ids) if not isinstance(ids, np.ndarray) else ids, dtype=np.int64)
    bits = np.zeros(n_words(size) * 32, dtype=np.uint8)
    bits[chosen] = 1
    words: NDArray[np.uint32] = np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)
    return words


def unpack_ids(mask: NDArray[Any]) -> NDArray[np.int64]:
    """The sorted ids that are set in a mask.

    >>> unpack_ids(pack_ids([1, 33], 40)).tolist()
    [1, 33]
    """
    words = np.ascontiguousarray(mask).view(np.uint32).astype("<u4")
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
