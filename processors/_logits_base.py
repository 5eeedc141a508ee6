"""What all logits processors share: the arrays of any library, in one or two dimensions, come in and go out."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NoReturn

import torch
from transformers import LogitsProcessor

from processors._arrays import LIBRARIES, like, to_torch
from processors._continuous import install_guard, refuse_continuous_batching

__all__ = ["OutlinesLogitsProcessor"]


class OutlinesLogitsProcessor(LogitsProcessor):
    """The shared base: takes the arrays of any library in one or two dimensions, and gives back what it was given.

    A subclass implements `process_logits` for torch tensors in two dimensions.
    """

    def __init__(self, tensor_library_name: str = "torch") -> None:
        """Check the name of the library whose arrays will come; which ones do come is seen from the arrays.

        Raises:
            NotImplementedError: an unknown library.
        """
        if tensor_library_name not in LIBRARIES:
            raise NotImplementedError(
                f"Library {tensor_library_name!r} is not supported: it must be one of {', '.join(LIBRARIES)}"
            )
        self.tensor_library_name = tensor_library_name

    @abstractmethod
    def process_logits(self, input_ids: torch.LongTensor, logits: torch.Tensor) -> torch.Tensor:
        """The processed logits, as a new tensor.

        Args:
            input_ids: (n_rows, n) int64, prompt and generated ids.   logits: (n_rows, n_columns), not written to.
        """

    def reset(self) -> None:
        """Forget what was seen: the next call begins a new text."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The processed scores, of the type and shape of `scores`.

        Args:
            input_ids: (n_rows, n) or (n,), ids of prompt and generated text: torch, numpy, mlx, jax, tensorflow or
                nested lists.
            scores: (n_rows, n_columns) or (n_columns,), likewise.

        Raises:
            TypeError: arrays of an unknown library.
            ValueError: the shapes do not fit together.
        """
        ids, logits = to_torch(input_ids), to_torch(scores)
        if ids.dtype != torch.int64:
            if ids.dtype.is_floating_point and ids.numel():
                raise TypeError(f"input_ids must be integers, not {ids.dtype}")
            ids = ids.to(torch.int64)
        if ids.ndim == 1 and logits.ndim == 2 and logits.shape[0] == 1:  # what mlx passes
            ids = ids[None]
        if ids.ndim != logits.ndim or logits.ndim not in (1, 2) or ids.shape[:-1] != logits.shape[:-1]:
            raise ValueError(
                f"input_ids {tuple(ids.shape)} and logits {tuple(logits.shape)} must both have one dimension, or two "
                "with as many rows"
            )
        with torch.no_grad():  # not a decorator: `generate` looks at the signature each step
            if logits.ndim == 1:
                return like(scores, self.process_logits(ids[None], logits[None])[0])  # type: ignore[arg-type]
            return like(scores, self.process_logits(ids, logits))  # type: ignore[arg-type]

    @property
    def supports_continuous_batching(self) -> NoReturn:  # type: ignore[override]
        """Raises: continuous batching shows a processor the last id of each row alone, and in no fixed order."""
        refuse_continuous_batching()


install_guard(OutlinesLogitsProcessor)
