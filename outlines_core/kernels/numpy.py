"""Masks for numpy logits, under the names of the PyPI package `outlines_core` 0.2.

`fill_next_token_bitmask` writes one guide's mask into a (1, n_words) array, `apply_token_bitmask_inplace` writes -inf
over what the masks of a batch leave out. The functions that other modules here use are `allocate_bitmask` and
`fill_masks` of `outlines_core`, which take batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.kernels.masking import apply_masks

if TYPE_CHECKING:
    from outlines_core.guide import Guide

__all__ = ["allocate_token_bitmask", "apply_token_bitmask_inplace", "fill_next_token_bitmask"]

_PATTERNS: dict[Any, tuple[Any, np.signedinteger[Any]]] = {
    np.dtype(np.float16): (np.int16, np.int16(-1024)),  # 0xFC00
    np.dtype(np.float32): (np.int32, np.int32(-8388608)),  # 0xFF800000
    np.dtype(np.float64): (np.int64, np.int64(-4503599627370496)),  # 0xFFF0000000000000
}
"""Float dtype -> the integer dtype of its bit patterns, and the pattern of -inf."""


def allocate_token_bitmask(vocab_size: int) -> NDArray[np.int32]:
    """A (1, n_words) mask that allows everything.

    Args:
        vocab_size: number of ids: 1 + the largest, or the width of the logits.
    """
    return np.full((1, (vocab_size + 31) // 32), -1, dtype=np.int32)


def _apply_token_bitmask_inplace_kernel(logits: NDArray[Any], mask: NDArray[np.int32]) -> None:
    """-inf in (n_rows, n_columns) `logits` wherever `mask` has no bit; nothing is checked."""
    if logits.dtype not in _PATTERNS:
        raise TypeError(f"logits must be float16, float32 or float64, not {logits.dtype}")
    integer, minus_infinity = _PATTERNS[logits.dtype]
    if not logits.flags.c_contiguous:
        whole = np.ascontiguousarray(logits)
        _apply_token_bitmask_inplace_kernel(whole, mask)
        logits[...] = whole
        return
    patterns = logits.view(integer)
    is_open = np.empty(logits.shape[0], dtype=np.uint8)
    words = np.ascontiguousarray(mask).view(np.uint32)
    apply_masks(patterns, words, minus_infinity, 0, logits.shape[0], patterns, is_open)


def apply_token_bitmask_inplace(logits: NDArray[Any], mask: NDArray[np.int32]) -> None:
    """Write -inf over the logits that a mask leaves out, and over those beyond it.

    Args:
        logits: (n_rows, n_columns) or (n_columns,) of float16, float32 or float64, changed.
        mask: (n_rows, n_words) or (n_words,) int32.

    Raises:
        ValueError: shapes or dtypes that do not fit; `logits` are unchanged.
        TypeError: logits of another dtype.
    """
    logits = logits if logits.ndim != 1 else np.expand_dims(logits, axis=0)
    mask = mask if mask.ndim != 1 else np.expand_dims(mask, axis=0)
    if mask.dtype != np.int32:
        raise ValueError(f"Invalid mask dtype: Expected `np.int32`, but got `{mask.dtype}`.")
    if mask.ndim != 2:
        raise ValueError(f"Invalid mask dimensions: Expected a 2D array, but got {mask.ndim}D.")
    if logits.ndim != 2:
        raise ValueError(f"Invalid logits dimensions: Expected a 2D array, but got {logits.ndim}D.")
    if mask.shape[0] != logits.shape[0]:
        raise ValueError(
            f"Invalid batch size: Expected `mask.shape[0]` ({mask.shape[0]}) to match `logits.shape[0]` "
            f"({logits.shape[0]})."
        )
    _apply_token_bitmask_inplace_kernel(logits, mask)


def fill_next_token_bitmask(guide: Guide, mask: NDArray[np.int32]) -> None:
    """Write the mask of a guide's present state.

    Args:
        guide: where it is.
        mask: (1, n_words) int32, C-contiguous, overwritten.

    Raises:
        ValueError: a mask of another form; it is unchanged.
    """
    if mask.dtype != np.int32:
        raise ValueError(f"Invalid mask dtype: Expected `np.int32`, but got `{mask.dtype}`.")
    if mask.ndim != 2:
        raise ValueError(f"Invalid mask dimensions: Expected a 2D array, but got {mask.ndim}D.")
    if mask.shape[0] != 1:
        raise ValueError(
            "Invalid batch size: Batch mask writes are not supported. Expected shape[0] == 1, but got shape "
            f"{mask.shape}."
        )
    if not mask.flags.c_contiguous:
        raise ValueError("Mask array must be contiguous in memory. Use `np.ascontiguousarray(mask)`.")
    guide.write_mask_into(mask.ctypes.data, mask.size, mask.itemsize)
