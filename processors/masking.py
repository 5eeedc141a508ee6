"""Packed masks applied to logits: one pass that copies what is allowed and writes -inf elsewhere.

On the CPU a numba kernel reads the packed words. On other devices the words go over asynchronously from pinned memory
and are unpacked there. The logits given are not written to unless they are `out=` as well: in transformers,
`output_logits` and prompt lookup share that tensor. In place, logits that are allowed are left alone, which saves a
pass over new memory: what a decoding loop that owns its logits wants.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from outlines_core.bitmask import n_words

__all__ = ["MaskBuffer", "apply_mask"]

_PATTERNS: dict[torch.dtype, np.signedinteger[Any]] = {
    torch.float16: np.int16(-1024),  # 0xFC00
    torch.bfloat16: np.int16(-128),  # 0xFF80
    torch.float32: np.int32(-8388608),  # 0xFF800000
    torch.float64: np.int64(-4503599627370496),  # 0xFFF0000000000000
}
"""Float dtype -> the bit pattern of -inf, an integer of as many bits."""

_PARALLEL_BYTES = 8 * 2**20
"""Logits of this size and more are shared out to threads; below, starting them costs what they save."""

_pools: dict[int, ThreadPoolExecutor] = {}


class MaskBuffer:
    """Room for the masks of one step, reused from step to step; pinned if the masks go to a CUDA device.

    Attributes:
        words: (n_rows, n_words) int32, zeroed once.
    """

    def __init__(self, n_rows: int, n_columns: int, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self._tensor = torch.zeros((n_rows, n_words(n_columns)), dtype=torch.int32, pin_memory=pinned)
        self.words: NDArray[np.int32] = self._tensor.numpy()

    def on(self, device: torch.device) -> torch.Tensor:
        """The words on a device; the copy may still be under way, in stream order."""
        return self._tensor.to(device, non_blocking=True)


def apply_mask(
    scores: torch.Tensor,
    mask: MaskBuffer | NDArray[Any],
    out_open: NDArray[np.uint8] | None = None,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`scores` with -inf wherever the mask has no bit.

    Args:
        scores: (n_rows, n_columns) float16, bfloat16, float32 or float64, on any device.
        mask: (n_rows, n_words) int32 or uint32; columns past the mask become -inf.
        out_open: (n_rows,), set to 1 where an allowed column is not -inf, else to 0. On other devices than the CPU
            this waits for the result.
        out: what to write and return: `scores` itself, or a contiguous tensor like it that shares no memory with it.
            Default: a new tensor.

    Raises:
        TypeError: `scores` are no floats of these formats.
        ValueError: the shapes do not fit together, or `out` is not like `scores`.

    >>> apply_mask(torch.tensor([[1.0, 2.0, 3.0]]), np.array([[0b101]], dtype=np.int32))
    tensor([[1., -inf, 3.]])
    """
    words = mask.words if isinstance(mask, MaskBuffer) else mask
    if scores.ndim != 2 or words.ndim != 2 or scores.shape[0] != words.shape[0]:
        raise ValueError(f"logits {tuple(scores.shape)} and masks {words.shape} must be two-dimensional, row by row")
    if scores.dtype not in _PATTERNS:
        raise TypeError(f"logits must be float16, bfloat16, float32 or float64, not {scores.dtype}")
    if out is not None and not (
        (out.shape, out.dtype, out.device) == (scores.shape, scores.dtype, scores.device) and out.is_contiguous()
    ):
        raise ValueError("`out` must be contiguous, and of the shape, dtype and device of the logits")
    scores = scores.detach()
    if scores.device.type == "cpu":
        return _apply_on_host(scores, words, out_open, out)
    there = mask.on(scores.device) if isinstance(mask, MaskBuffer) else torch.from_numpy(words).to(scores.device)
    masked = apply_on_device(scores, there, out=out)
    if out_open is not None:
        out_open[:] = torch.isneginf(masked).all(dim=1).logical_not_().cpu().numpy()
    return masked


def _apply_on_host(
    scores: torch.Tensor, words: NDArray[Any], out_open: NDArray[np.uint8] | None, out: torch.Tensor | None
) -> torch.Tensor:
    kernel = _kernel()
    minus_infinity = _PATTERNS[scores.dtype]
    if not scores.is_contiguous():
        scores = scores.contiguous()
    masked = torch.empty_like(scores) if out is None else out.detach()
    n_rows, n_columns = scores.shape
    is_open = np.empty(n_rows, dtype=np.uint8) if out_open is None else out_open
    words = np.ascontiguousarray(words).view(np.uint32)
    what = scores.data_ptr(), masked.data_ptr(), n_columns, words, minus_infinity
    if n_rows * n_columns * scores.element_size() < _PARALLEL_BYTES or torch.get_num_threads() == 1 or n_rows == 1:
        kernel(*what, 0, n_rows, is_open)
    else:
        n_threads = min(n_rows, torch.get_num_threads())
        cuts = [n_rows * k // n_threads for k in range(n_threads + 1)]
        pool = _pool(n_threads - 1)
        parts = [pool.submit(kernel, *what, begin, end, is_open) for begin, end in pairwise(cuts[1:])]
        kernel(*what, 0, cuts[1], is_open)
        for part in parts:
            part.result()
    return masked


@cache
def _kernel() -> Callable[..., None]:
    """`kernels.masking.apply_masks_at`, imported when it is needed: numba takes a while."""
    from outlines_core.kernels.masking import apply_masks_at

    return apply_masks_at


def _pool(n_threads: int) -> ThreadPoolExecutor:
    if n_threads not in _pools:
        _pools[n_threads] = ThreadPoolExecutor(n_threads, thread_name_prefix="apply-mask")
    return _pools[n_threads]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def apply_on_device(scores: torch.Tensor, words: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """`apply_mask` in torch operations, for any device.

    Args:
        scores: (n_rows, n_columns) of floats.   words: (n_rows, n_words) int32 on the same device.
    """
    n_columns = scores.shape[1]
    shifts = torch.arange(32, dtype=torch.int32, device=words.device)
    bits = ((words.unsqueeze(-1) >> shifts) & 1).flatten(1)[:, :n_columns].bool()
    if bits.shape[1] < n_columns:
        bits = torch.nn.functional.pad(bits, (0, n_columns - bits.shape[1]))
    return torch.where(bits, scores, torch.full((), -torch.inf, dtype=scores.dtype, device=scores.device), out=out)
