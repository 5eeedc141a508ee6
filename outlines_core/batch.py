"""One decoding step of a whole batch: where the tokens lead, and the masks there.

Threads pay where masks are made by long kernels, which run without the GIL: the walks of regexes, a millisecond each.
Masks of JSON Schemas and grammars take tens of microseconds, most of them Python's; threads that take the GIL from each
other made these slower (64 rows of JSON: 15 ms in one thread, 20 to 40 ms in two). They are made by the calling thread,
while others walk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from outlines_core.index import RegexAutomaton
from outlines_core.types import StateId, TokenAutomaton, TokenId

__all__ = ["fill_masks", "next_states"]

_N_CPUS = os.cpu_count() or 1


def fill_masks(
    automata: Sequence[TokenAutomaton],
    states: Sequence[StateId],
    out: NDArray[Any],
    rows: Sequence[int] | None = None,
    threads: int | None = None,
) -> None:
    """The masks of one step of a batch.

    Args:
        automata, states: one automaton and its state a sequence; automata may repeat or all differ.
        out: (n_rows, >= n_words) int32 or uint32.
        rows: which row of `out` each sequence writes; default: 0, 1, 2 ...; other rows are untouched.
        threads: how many threads may walk for masks of regexes that no one has visited before, each for other
            constraints; default: the number of CPUs. All else is done by the calling thread, while they run.

    Raises:
        ValueError: the arguments do not fit together.
    """
    if rows is None:
        rows = range(len(automata))
    if not len(automata) == len(states) == len(rows):
        raise ValueError(f"{len(automata)} automata, {len(states)} states and {len(rows)} rows: they must be as many")
    if getattr(out, "ndim", 0) != 2:
        raise ValueError("the masks of a batch need a two-dimensional array")
    if any(not 0 <= r < out.shape[0] for r in rows):
        raise ValueError(f"rows must lie between 0 and {out.shape[0] - 1}")
    walks: dict[int, list[int]] = {}  # by what is shared behind the automata: one lock, one thread
    others: list[int] = []
    for i, (automaton, state) in enumerate(zip(automata, states, strict=True)):
        if isinstance(automaton, RegexAutomaton) and state not in automaton._core.masks:
            walks.setdefault(id(automaton._core), []).append(i)
        else:
            others.append(i)

    def fill(group: list[int]) -> None:
        for i in group:
            automata[i].fill_mask(states[i], out[rows[i]])

    if len(walks) + bool(others) < 2 or threads == 1:
        fill(others)
        for group in walks.values():
            fill(group)
        return
    waiting = deque(walks.values())

    def walk() -> None:
        while True:
            try:
                group = waiting.popleft()
            except IndexError:  # all are taken
                return
            fill(group)

    n_helpers = min(len(walks) - (not others), (threads if threads is not None else _N_CPUS) - 1)
    helpers = [_pool(n_helpers).submit(walk) for _ in range(n_helpers)]
    try:
        fill(others)
        walk()
    finally:  # nobody writes to `out` behind the caller's back
        waiting.clear()
        begun = [helper for helper in helpers if not helper.cancel()]
        wait(begun)
    for helper in begun:
        helper.result()


@lru_cache(maxsize=8)
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads are kept: starting them takes longer than a mask."""
    return ThreadPoolExecutor(workers, thread_name_prefix="fill-masks")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def next_states(
    automata: Sequence[TokenAutomaton], states: Sequence[StateId], token_ids: Sequence[TokenId]
) -> list[StateId]:
    """``automata[i].next_state(states[i], token_ids[i])`` for all i.

    Raises:
        ValueError: the arguments do not fit together.
    """
    if not len(automata) == len(states) == len(token_ids):
        raise ValueError(f"{len(automata)} automata, {len(states)} states, {len(token_ids)} tokens: as many are needed")
    first = automata[0] if automata else None
    if isinstance(first, RegexAutomaton) and len(automata) > 1:
        core = first._core
        if all(isinstance(a, RegexAutomaton) and a._core is core for a in automata):
            return core.next_states(states, token_ids)
    return [a.next_state(s, t) for a, s, t in zip(automata, states, token_ids, strict=True)]
