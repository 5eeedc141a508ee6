"""Arrays without a reference count, for kernels that hand them to other kernels.

numba counts a reference of each array for each call of one kernel by another, with atomic instructions; where the calls
are many and small that is most of the time. An array that is only borrowed has no count. It must not outlive the one
that it was borrowed from: take it on entry from an argument, and never return it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

__all__ = ["borrowed"]


@intrinsic
def _pointer(_context: Any, address: Any) -> Any:
    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


@njit(cache=True, nogil=True)
def borrowed(array):  # type: ignore[no-untyped-def]
    """A C-contiguous array, without its reference count."""
    return carray(_pointer(array.ctypes.data), array.shape, array.dtype)  # type: ignore[call-arg]
