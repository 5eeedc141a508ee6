"""Masks for MLX logits, under the names of the PyPI package `outlines_core` 0.2.

MLX arrays cannot be written to: `apply_token_bitmask` returns masked logits. The masks are numpy arrays, as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.kernels.numpy import allocate_token_bitmask, fill_next_token_bitmask

if TYPE_CHECKING:
    from outlines_core.guide import Guide  # noqa: F401  # of `fill_next_token_bitmask`

try:
    import mlx.core as mx
except ImportError as error:
    raise ImportError(
        "To use the kernels in `outlines_core.kernels.mlx`, mlx must be installed. You can install it with "
        "`pip install mlx`"
    ) from error

__all__ = ["allocate_token_bitmask", "apply_token_bitmask", "fill_next_token_bitmask"]


def _apply_token_bitmask_kernel(data: Any, mask: Any) -> Any:
    """(n_rows, n_columns) `data` with -inf wherever `mask` (int32) has no bit; nothing is checked."""
    n_columns = data.shape[1]
    n_inside = min(n_columns, 32 * mask.shape[1])
    bits = mx.right_shift(mx.expand_dims(mask, -1), mx.arange(32, dtype=mx.int32)) & 1
    allowed = bits.reshape(mask.shape[0], -1)[:, :n_inside].astype(mx.bool_)
    if n_inside < n_columns:
        allowed = mx.concatenate([allowed, mx.zeros((mask.shape[0], n_columns - n_inside), dtype=mx.bool_)], axis=1)
    return mx.where(allowed, data, mx.array(float("-inf"), dtype=data.dtype))


def apply_token_bitmask(logits: Any, mask_np: NDArray[np.int32]) -> Any:
    """Logits with -inf where a mask leaves them out, and beyond it.

    Args:
        logits: (n_rows, n_columns) or (n_columns,) `mx.array` of floats.
        mask_np: (n_rows, n_words) or (n_words,) int32.

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    mask = mx.array(mask_np)
    logits = logits if logits.ndim != 1 else mx.expand_dims(logits, axis=0)
    mask = mask if mask.ndim != 1 else mx.expand_dims(mask, axis=0)
    if mask.dtype != mx.int32:
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
    return _apply_token_bitmask_kernel(logits, mask)
