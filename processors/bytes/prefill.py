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
from typing import TYPE_CHECKING, TypeVar

from processors.bytes.trie import TokenByteTrie, TrieMode
from processors.bytes.trie_state import Boundary, LazyTrieState, by_weight, log_weight, materialize, step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from processors.bytes.beam import ByteBeamState
    from processors.lm.causal import CachedCausalLM

__all__ = ["prefilled"]

B = TypeVar("B", bound="ByteBeamState")

_CHAIN = 7
"""So many of the tokenizer's tokens are guessed after the heaviest boundary; eight new tokens are one forward."""
_HORIZON = 32
"""So many bytes ahead the beam is followed with the rows that are known."""
_GUESSES = 32
"""At most so many rows are asked for beyond those that are needed."""


async def prefilled(beam: B, bs: bytes) -> B:
    """See `ByteBeamState.prefill`.  The guide stays where it is."""
    ahead = _Ahead(bs, beam)
    for at, byte in enumerate(bs):
        beam = beam.prune()
        if not beam.states:
            break
        advanced = step(beam.states, byte)
        extended = beam.extensions(advanced)
        if at + 1 < len(bs):
            found = await _survivors(beam, at, byte, advanced, extended, ahead)
        else:
            await materialize(state.boundary for state in extended)
            found = [*advanced, *step(extended, byte)]
        beam = await beam.arrive(byte, found, beam.guide)
    return beam


async def _survivors(
    beam: B, at: int, byte: int, advanced: list[LazyTrieState], extended: list[LazyTrieState], ahead: _Ahead
) -> list[LazyTrieState]:
    """What `prune` will keep of the candidates after `byte`."""
    k, log_threshold = beam.params.K, beam.params.log_prune_threshold
    known, waiting = by_weight(advanced), by_weight(extended)
    while True:
        least = known[k - 1].weight if k is not None and len(known) >= k else -math.inf
        # The threshold is a share of everything; what waits weighs something between nothing and what it does now.
        low, high = (log_weight(all_) + log_threshold for all_ in (known, [*known, *waiting]))
        needed = [state for state in waiting if state.weight > max(least, low)]
        if not needed:
            if not any(low < state.weight <= high for state in known[:k]):
                return [state for state in known[:k] if state.weight > high]
            needed = waiting
        unknown = [state for state in needed if state.boundary.row is None]
        if unknown:
            guessed = ahead.guessed(at, beam.states, known, unknown)
            await materialize([*(state.boundary for state in unknown), *guessed])
        known = by_weight([*known, *step(needed, byte)])
        asked = set(map(id, needed))
        waiting = [state for state in waiting if id(state) not in asked]


class _Ahead:
    """Boundaries that will probably be asked for, given the text that comes."""

    def __init__(self, bs: bytes, beam: ByteBeamState) -> None:
        self._bs, self._k = bs, beam.params.K
        if not beam.states:
            return
        boundary = beam.states[0].boundary
        self._trie, self._longest = boundary.trie, boundary.lm_state.model.backend.max_length
        self._cuts = _tokenized(bs, boundary.lm_state.model)
        self._held: list[Boundary] = []

    def guessed(
        self, at: int, states: list[LazyTrieState], known: list[LazyTrieState], needed: list[LazyTrieState]
    ) -> list[Boundary]:
        """Boundaries behind byte `at`, to be asked for together with those that are needed before it.

        Args:
            states: the beam before the byte.   known: those that can take it, best first.
            needed: those that perhaps can, best first.
        """
        found: list[Boundary] = []
        if not known or needed[0].weight > known[0].weight:  # it will lead
            found += self._chain(needed[0].boundary, at)
        for boundary in self._ends(at, states):
            if len(found) >= _GUESSES:
                break
            found.append(boundary)
        new = [boundary for boundary in dict.fromkeys(found) if boundary.row is None and self._fits(boundary)]
        self._held = [*self._held[-3 * _GUESSES :], *new]
        return new

    def _fits(self, boundary: Boundary) -> bool:
        return self._longest is None or len(boundary.lm_state.context) <= self._longest

    def _chain(self, boundary: Boundary, at: int) -> Iterable[Boundary]:
        """The boundaries along the tokenizer's tokens, or along the longest ones until its tokens are met."""
        for _ in range(_CHAIN):
            token = self._cuts.get(at)
            if token is None:
                token = self._cuts[at] = _longest_token(self._trie, self._bs, at)
            if token < 0:
                return
            boundary = boundary.after(token)
            at += len(self._trie.vocabulary.token_bytes(token))
            yield boundary

    def _ends(self, at: int, states: list[LazyTrieState]) -> Iterator[Boundary]:
        """What the beam would ask for if the rows that are known were all, nearest first."""
        for byte in self._bs[at : at + _HORIZON]:
            ending = [new for state in states for new in state.extend_all()]
            known = [new for new in ending if new.boundary.row is not None]
            states = by_weight(step([*states, *known], byte))[: self._k]
            if not states:
                return
            least = states[-1].weight if len(states) == self._k else -math.inf
            yield from (new.boundary for new in ending if new.boundary.row is None and new.weight > least)


def _tokenized(bs: bytes, lm: CachedCausalLM) -> dict[int, int]:
    """Position -> the token that the tokenizer begins there; as far as it spells the very bytes."""
    cuts: dict[int, int] = {}
    if lm.tokenizer is None:
        return cuts
    at = 0
    for token in lm.encode(bs.decode("utf-8", "ignore"), add_special_tokens=False):
        text = lm.vocabulary.token_bytes(token)
        if not text or not bs.startswith(text, at):
            break  # a special token, or a tokenizer that changes the text
        cuts[at] = token
        at += len(text)
    return cuts


def _longest_token(trie: TokenByteTrie, bs: bytes, at: int) -> int:
    """The longest token that the text goes on with, or -1."""
    node, best = trie.root, -1
    for byte in bs[at:]:
        node = trie.child(node, byte)
        if node < 0:
            break
        ending = trie.ending(node, TrieMode.WITHOUT_EOS)
        best = ending[0] if ending else best
    return best
