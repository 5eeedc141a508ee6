"""Arrays of other libraries in and out of torch.  None of them is imported unless its arrays come."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

__all__ = ["LIBRARIES", "like", "to_torch"]

LIBRARIES = ("jax", "mlx", "numpy", "tensorflow", "torch")


def _library(array: Any) -> str:
    return type(array).__module__.partition(".")[0]


def to_torch(array: Any) -> torch.Tensor:
    """A tensor of the same values, sharing memory where it can.  Raises TypeError for unknown types."""
    if isinstance(array, torch.Tensor):
        return array
    if isinstance(array, np.ndarray):
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    if isinstance(array, (list, tuple)):
        if array and not all(isinstance(row, (int, float, np.number)) for row in array):
            return torch.stack([to_torch(row) for row in array])
        is_integer = not any(isinstance(x, (float, np.floating)) for x in array)
        return torch.tensor(array, dtype=torch.int64 if is_integer else torch.float32)
    if _library(array) in ("jax", "jaxlib", "mlx", "tensorflow"):
        return torch.from_numpy(np.array(array))
    raise TypeError(
        f"input_ids and logits must be arrays of {', '.join(LIBRARIES)}, or lists; not {type(array).__name__}"
    )


def like(given: Any, result: torch.Tensor) -> Any:
    """`result` as an array of the library of `given`."""
    if isinstance(given, torch.Tensor):
        return result
    if isinstance(given, np.ndarray):
        return result.numpy()
    if isinstance(given, (list, tuple)):
        rows = result.tolist()
        return _nested(given, rows)
    library = _library(given)
    if library == "mlx":
        return importlib.import_module("mlx.core").array(result.numpy())
    if library == "tensorflow":
        return importlib.import_module("tensorflow").convert_to_tensor(result.numpy())
    return importlib.import_module("jax.numpy").asarray(result.numpy())


def _nested(given: Any, values: list[Any]) -> Any:
    """Nested lists of values with the types (list, tuple, array) of `given`."""
    if given and not isinstance(given[0], (int, float, np.number)):
        values = [
            like(one, torch.tensor(row)) if not isinstance(one, (list, tuple)) else _nested(one, row)
            for one, row in zip(given, values, strict=True)
        ]
    return type(given)(values)
