"""Recursion as deep as a schema nests, whatever the stack of the caller.

Questions about schemas are answered by recursive functions. Hardly any schema nests deeper than Python's stack allows,
so a question is asked plainly first, and only if that fails asked again in a thread with a stack of its own. What was
found out until then is remembered, and nothing of it is lost.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from outlines_core.errors import LimitExceededError

__all__ = ["deeply"]

T = TypeVar("T")
_STACK_BYTES: Final = 256 * 2**20
_DEPTH: Final = 60_000
_lock = threading.Lock()
_here = threading.local()


def deeply(question: Callable[[], T]) -> T:
    """The answer to `question`, which must be one that may be asked again after a RecursionError.

    Raises:
        LimitExceededError: even a deep stack is not deep enough.
    """
    try:
        return question()
    except RecursionError:
        if getattr(_here, "deep", False):
            raise
    answer: list[T] = []
    error: list[BaseException] = []

    def ask() -> None:
        _here.deep = True
        try:
            answer.append(question())
        except BaseException as problem:  # noqa: BLE001 -- raised again below
            error.append(problem)

    with _lock:  # stack size and recursion limit belong to the whole process
        size, limit = threading.stack_size(_STACK_BYTES), sys.getrecursionlimit()
        try:
            sys.setrecursionlimit(max(limit, _DEPTH))
            thread = threading.Thread(target=ask, name="deep-schema")
            thread.start()
            interrupted = _wait(thread)
        finally:
            sys.setrecursionlimit(limit)
            threading.stack_size(size)
    if interrupted is not None:
        raise interrupted
    if error:
        problem: Any = error[0]
        if isinstance(problem, RecursionError):
            raise LimitExceededError("the schema nests values too deeply", given=_DEPTH, limit=_DEPTH) from None
        raise problem
    return answer[0]


def _wait(thread: threading.Thread) -> BaseException | None:
    """Wait to the end, whatever comes: with the limit of other threads, the deep one would bring the process down.

    An exception that comes meanwhile (Ctrl-C) is raised in the thread, and returned.
    """
    interrupted: BaseException | None = None
    while thread.is_alive():
        try:
            thread.join()
        except BaseException as signal:  # noqa: BLE001 -- the caller raises it
            interrupted = signal
            if thread.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(type(signal)))
    return interrupted
