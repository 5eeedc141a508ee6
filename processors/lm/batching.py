"""Queries of many coroutines, answered together.

When is a batch complete? A timer wastes its time whenever fewer coroutines are alive than a batch holds. Here a batch
runs as soon as the event loop has gone round a few times without a new query: then every coroutine that could ask has
asked, and the others wait for this very batch. A round takes microseconds.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

__all__ = ["AutoBatcher"]

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

_QUIET_ROUNDS = 8
"""A coroutine that comes back through nested `asyncio.gather` calls takes two rounds for each before it asks again."""


class AutoBatcher(Generic[K, R]):
    """Answers queries in batches; equal queries of one batch are asked once.

    Args:
        run: distinct queries -> answers in the same order.
        batch_size: a batch of this many distinct queries runs at once.
        timeout: seconds after which a batch runs although queries keep coming in.

    An exception of `run` is raised in every coroutine that waits for the batch. A coroutine that is cancelled leaves
    the batch; a query that nobody waits for any more is not run. Each event loop has its own queue, so one that was
    closed with queries waiting leaves nothing behind.
    """

    def __init__(self, run: Callable[[list[K]], Sequence[R]], batch_size: int, timeout: float) -> None:
        self.run, self.batch_size, self.timeout = run, batch_size, timeout
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue[K, R]] = weakref.WeakKeyDictionary()

    async def ask(self, query: K) -> R:
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue(self)
        future: asyncio.Future[R] = loop.create_future()
        queue.add(loop, query, future)
        return await future

    @property
    def n_waiting(self) -> int:
        """Distinct queries in the queues."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    def reset(self) -> None:
        """Empty the queues; whoever waits gets an `asyncio.CancelledError`."""
        for loop, queue in list(self._queues.items()):
            waiting, queue.waiting = queue.waiting, {}
            for futures in waiting.values():
                for future in futures:
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(future.cancel)


class _Queue(Generic[K, R]):
    def __init__(self, batcher: AutoBatcher[K, R]) -> None:
        self._batcher = batcher
        self.waiting: dict[K, list[asyncio.Future[R]]] = {}
        self._n_asked = self._n_seen = self._n_quiet = 0
        self._is_watching = False
        self._since = 0.0

    def add(self, loop: asyncio.AbstractEventLoop, query: K, future: asyncio.Future[R]) -> None:
        if not self.waiting:
            self._since = loop.time()
        self.waiting.setdefault(query, []).append(future)
        self._n_asked += 1
        if len(self.waiting) >= self._batcher.batch_size:
            self._flush()
        elif not self._is_watching:
            self._is_watching = True
            self._n_quiet = 0
            loop.call_soon(self._watch, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._n_quiet = self._n_quiet + 1 if self._n_asked == self._n_seen else 0
        self._n_seen = self._n_asked
        if not self.waiting:
            self._is_watching = False
        elif self._n_quiet >= _QUIET_ROUNDS or loop.time() - self._since >= self._batcher.timeout:
            self._is_watching = False
            self._flush()
        else:
            loop.call_soon(self._watch, loop)

    def _flush(self) -> None:
        waiting, self.waiting = self.waiting, {}
        asked = {query: live for query, futures in waiting.items() if (live := [f for f in futures if not f.done()])}
        if not asked:
            return
        try:
            answers = self._batcher.run(list(asked))
            if len(answers) != len(asked):
                raise RuntimeError(f"{len(asked)} queries got {len(answers)} answers")
        except BaseException as error:
            told: BaseException = error
            if isinstance(error, StopIteration):  # no future takes it
                told = RuntimeError(f"the model raised {error!r}")
                told.__cause__ = error
            for futures in asked.values():
                for future in futures:
                    future.set_exception(told)
            if isinstance(error, Exception):
                return  # every waiter raises it
            raise
        for futures, answer in zip(asked.values(), answers, strict=True):
            for future in futures:
                future.set_result(answer)
