"""Arrays that kernels find by their addresses.

numba unpacks an array for each argument of each call from Python (some 100 ns), and counts references of arrays, with
atomic instructions, where one kernel calls another. A machine of many arrays is handed over as one number instead: the
address of a table of addresses and lengths, which `Handles` keeps. What a kernel takes from it has no count, must not
outlive the call, and is C-contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["Handles", "as_pointer", "constants", "pointer_to", "trailing_zeros"]


def constants(n: int) -> Iterator[int]:
    """0, 1, 2 ...: numba compiles a function for each *plain* int that another kernel calls it with; not for these."""
    every: Any = np.arange(n, dtype=np.int64)
    yield from every


class Handles:
    """The table of addresses and lengths of some arrays.

    Args:
        size: how many arrays there are.

    Attributes:
        address: of the table; kernels take it. It stays the same.
    """

    def __init__(self, size: int) -> None:
        self._table = np.zeros((size, 2), dtype=np.int64)
        self._arrays: list[NDArray[Any] | None] = [None] * size
        self.address = int(self._table.ctypes.data)

    def __setitem__(self, k: int, array: NDArray[Any]) -> None:
        if not array.flags.c_contiguous:
            raise ValueError("only C-contiguous arrays can be handed to a kernel by their address")
        self._table[k] = array.ctypes.data, array.shape[0]
        self._arrays[k] = array  # keeps it alive

    def hold(self, arrays: tuple[NDArray[Any], ...]) -> NDArray[np.int64]:
        """Keep C-contiguous arrays as the first ones.  A kernel must enter their addresses into what this returns."""
        self._arrays[: len(arrays)] = arrays
        return self._table

    def __getitem__(self, k: int) -> NDArray[Any]:
        array = self._arrays[k]
        assert array is not None
        return array

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays if array is not None)


def _as_pointer(_context: Any, address: Any) -> Any:
    """A number as a pointer."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


as_pointer: Any = intrinsic(_as_pointer)


def _trailing_zeros(_context: Any, _word: Any) -> Any:
    """How many of the lowest bits of a number that is not 0 are 0."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


trailing_zeros: Any = intrinsic(_trailing_zeros)


@njit(cache=True, nogil=True)
def pointer_to(handles, k):  # type: ignore[no-untyped-def]
    """The address and the length of an array of a table; for `numba.carray`."""
    entry = carray(as_pointer(handles + 16 * k), (2,), np.int64)
    return as_pointer(entry[0]), entry[1]
