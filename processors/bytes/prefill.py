"""The beam after a prompt: what ``beam = await (beam.prune() << b)`` gives for each byte, with fewer questions.

Two things make a prompt cheaper than text that is being written.

*Bounds.* Only the K best candidates live to see the next byte. A token that ends here gives a candidate whose weight is
known before the model is asked for its row, and cannot grow: taking the byte only multiplies it by a probability. If it
is not above the K-th of those that are known, it is not asked for.

*The text is known.* When the model is asked, it is asked for more than is needed now: for the boundaries that the
candidates will come to, and for those along the tokenizer's own way to cut what follows. A batch of thirty rows costs
little more than one of two. What was guessed wrong is never looked at, so guesses change no result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from processors.bytes.trie_state import Boundary, LazyTrieState, by_weight, log_weight, materialize, step

if TYPE_CHECKING:
    from processors.bytes.beam import ByteBeamState

__all__ = ["prefilled"]


async def prefilled(beam: ByteBeamState, bs: bytes) -> ByteBeamState:
    """See `ByteBeamState.prefill`.  The guide stays where it is."""
    for at, byte in enumerate(bs):
        beam = beam.prune()
        if not beam.states:
            break
        advanced = step(beam.states, byte)
        extended = beam.extensions(advanced)
        if at + 1 < len(bs):
            found = await _survivors(beam, byte, advanced, extended)
        else:
            await materialize(state.boundary for state in extended)
            found = [*advanced, *step(extended, byte)]
        beam = await beam.arrive(byte, found, beam.guide)
    return beam


async def _survivors(
    beam: ByteBeamState, byte: int, advanced: list[LazyTrieState], extended: list[LazyTrieState]
) -> list[LazyTrieState]:
    """What `prune` will keep of the candidates after `byte`."""
    k, log_threshold = beam.params.K, beam.params.log_prune_threshold
    known, waiting = by_weight(advanced), list(extended)
    while True:
        least = known[k - 1].weight if k is not None and len(known) >= k else -math.inf
        # The threshold is a share of everything; what waits weighs something between nothing and what it does now.
        low, high = (log_weight(all_) + log_threshold for all_ in (known, [*known, *waiting]))
        needed = [state for state in waiting if state.weight > max(least, low)]
        if not needed:
            if not any(low < state.weight <= high for state in known[:k]):
                return [state for state in known[:k] if state.weight > high]
            needed = waiting
        await materialize(state.boundary for state in needed)
        known = by_weight([*known, *step(needed, byte)])
        asked = set(map(id, needed))
        waiting = [state for state in waiting if id(state) not in asked]
