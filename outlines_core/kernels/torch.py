"""Masks for torch logits, under the names of the PyPI package `outlines_core` 0.2.

On the CPU one numba kernel reads the packed words and writes the logits in place; on other devices the words are
unpacked there. Nothing is traced or compiled by torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from outlines_core.guide import Guide

try:
    import torch
except ImportError as error:
    raise ImportError(
        "`torch` is required to use the kernels from `outlines_core.kernels.torch`. You can install `torch` using the "
        "official guide at https://pytorch.org/get-started/locally/"
    ) from error

from outlines_core.kernels.masking import apply_masks

__all__ = ["allocate_token_bitmask", "apply_token_bitmask_inplace", "fill_next_token_bitmask"]

_PATTERNS = {
    torch.float16: (torch.int16, np.int16(-1024)),  # 0xFC00
    torch.bfloat16: (torch.int16, np.int16(-128)),  # 0xFF80
    torch.float32: (torch.int32, np.int32(-8388608)),  # 0xFF800000
    torch.float64: (torch.int64, np.int64(-4503599627370496)),  # 0xFFF0000000000000
}
"""Float dtype -> the integer dtype of its bit patterns, and the pattern of -inf."""


def allocate_token_bitmask(vocab_size: int) -> torch.Tensor:
    """A (1, n_words) mask on the CPU that allows everything, pinned where there is CUDA.

    Args:
        vocab_size: number of ids: 1 + the largest, or the width of the logits.
    """
    return torch.full((1, (vocab_size + 31) // 32), -1, dtype=torch.int32, pin_memory=torch.cuda.is_available())


def _apply_token_bitmask_inplace_kernel(logits: torch.Tensor, mask: torch.Tensor) -> None:
    """-inf in (n_rows, n_columns) `logits` wherever `mask` has no bit; nothing is checked."""
    logits = logits.detach()
    if logits.device.type == "cpu" and logits.dtype in _PATTERNS and logits.is_contiguous():
        integer, minus_infinity = _PATTERNS[logits.dtype]
        patterns = logits.view(integer).numpy()
        words = mask.cpu().contiguous().numpy().view(np.uint32)
        is_open = np.empty(logits.shape[0], dtype=np.uint8)
        apply_masks(patterns, words, minus_infinity, 0, logits.shape[0], patterns, is_open)
        return
    shifts = torch.arange(32, dtype=torch.int32, device=mask.device)
    bits = ((mask.unsqueeze(-1) >> shifts) & 1).flatten(1)[:, : logits.shape[1]].bool().to(logits.device)
    logits[:, : bits.shape[1]].masked_fill_(~bits, float("-inf"))
    logits[:, bits.shape[1] :] = float("-inf")


def apply_token_bitmask_inplace(logits: torch.Tensor, mask: torch.Tensor) -> None:
    """Write -inf over the logits that a mask leaves out, and over those beyond it.

    Args:
        logits: (n_rows, n_columns) floats on any device, changed.
        mask: (n_rows, n_words) int32.

    Raises:
        ValueError: shapes or dtypes that do not fit; `logits` are unchanged.
    """
    if mask.dtype != torch.int32:
        raise ValueError(f"Invalid mask dtype: Expected `torch.int32`, but got `{mask.dtype}`.")
    if mask.dim() != 2:
        raise ValueError(f"Invalid mask dimensions: Expected a 2D array, but got {mask.dim()}D.")
    if logits.dim() != 2:
        raise ValueError(f"Invalid logits dimensions: Expected a 2D array, but got {logits.dim()}D.")
    if mask.shape[0] != logits.shape[0]:
        raise ValueError(
            f"Invalid batch size: Expected `mask.shape[0]` ({mask.shape[0]}) to match `logits.shape[0]` "
            f"({logits.shape[0]})."
        )
    _apply_token_bitmask_inplace_kernel(logits, mask)


def fill_next_token_bitmask(guide: Guide, mask: torch.Tensor) -> None:
    """Write the mask of a guide's present state.

    Args:
        guide: where it is.
        mask: (1, n_words) int32, contiguous, on the CPU, overwritten.

    Raises:
        ValueError: a mask of another form; it is unchanged.
    """
    if mask.dtype != torch.int32:
        raise ValueError(f"Invalid mask dtype: Expected `torch.int32`, but got `{mask.dtype}`.")
    if mask.dim() != 2:
        raise ValueError(f"Invalid mask dimensions: Expected a 2D array, but got {mask.dim()}D.")
    if mask.shape[0] != 1:
        raise ValueError(
            "Invalid batch size: Batch mask writes are not supported. Expected shape[0] == 1, but got shape "
            f"{mask.shape}."
        )
    if not mask.is_contiguous():
        raise ValueError("Mask array must be contiguous in memory. Use `mask.contiguous()` to fix it.")
    if mask.device != torch.device("cpu"):
        raise ValueError(
            f"Invalid device: Expected `mask` tensor to be on device `cpu`, but found it on `{mask.device}`."
        )
    guide.write_mask_into(mask.data_ptr(), mask.numel(), mask.element_size())
