"""A token automaton that is obviously right: a finite set of texts over a toy vocabulary, everything by brute force."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

import outlines_core as oc
from outlines_core.bitmask import pack_ids
from outlines_core.types import DEAD, FINISHED


class ToyAutomaton:
    """The constraint "one of these texts".  A state is the text so far: ids 2, 3, ... in order of first use.

    `texts` may not contain what the vocabulary cannot spell: the automaton leaves such texts out.
    """

    def __init__(self, texts: Iterable[bytes], vocabulary: oc.Vocabulary) -> None:
        self.vocabulary = vocabulary
        tokens = [(token, t) for token, ids in vocabulary.items() for t in ids]
        special = set(vocabulary.special_tokens.values())
        self._tokens = [(token, t) for token, t in tokens if token and t not in special]
        texts = set(texts)
        longest = max(map(len, texts))
        live = set(texts)  # prefixes from which tokens reach a text, found backwards by length
        prefixes = {text[:k] for text in texts for k in range(len(text) + 1)}
        for length in range(longest, -1, -1):
            for prefix in prefixes:
                if len(prefix) == length and any(prefix + token in live for token, _ in self._tokens):
                    live.add(prefix)
        self._texts, self._live = texts, live
        self._states: list[bytes] = [b"DEAD", b"FINISHED", b""]
        if b"" not in live:
            raise oc.UnsatisfiableError("no text can be spelled")

    initial_state = 2

    @property
    def n_states(self) -> int:
        return len(self._states)

    nbytes = 0

    def _state(self, text: bytes) -> int:
        if text not in self._live:
            return DEAD
        if text not in self._states[2:]:
            self._states.append(text)
        return self._states.index(text, 2)

    def allowed(self, state: int) -> list[int]:
        eos = list(self.vocabulary.eos_token_ids)
        if state in (DEAD, FINISHED):
            return eos if state == FINISHED else []
        text = self._states[state]
        found = [t for token, t in self._tokens if text + token in self._live]
        return sorted(found + (eos if text in self._texts else []))

    def fill_mask(self, state: int, out: np.ndarray) -> None:
        words = pack_ids(self.allowed(state), self.vocabulary.size)
        out.view(np.uint32)[: len(words)] = words
        out[len(words) :] = 0

    def next_state(self, state: int, token_id: int) -> int:
        if token_id not in self.allowed(state):
            return DEAD
        if token_id in self.vocabulary.eos_token_ids:
            return FINISHED
        return self._state(self._states[state] + self.vocabulary.token_bytes(token_id))

    def is_accepting(self, state: int) -> bool:
        return state == FINISHED or (state != DEAD and self._states[state] in self._texts)

    def accept_tokens(self, state, token_ids):
        for n, t in enumerate(token_ids):
            following = self.next_state(state, t)
            if following == DEAD:
                return n, state
            state = following
        return len(token_ids), state

    def fill_draft_masks(self, state, token_ids, out) -> int:
        n, _ = self.accept_tokens(state, token_ids)
        out[:] = 0
        for i in range(n + 1):
            self.fill_mask(self.accept_tokens(state, token_ids[:i])[1], out[i])
        return n

    def forced_tokens(self, state: int) -> list[int]:
        chain: list[int] = []
        while state > FINISHED and not self.is_accepting(state) and len(self.allowed(state)) == 1:
            chain += self.allowed(state)
            state = self.next_state(state, chain[-1])
        return chain

    def forced_bytes(self, state: int) -> bytes:
        return b""

    def min_tokens_to_accept(self, state: int) -> int:
        layer, distance = {state}, 0
        while not any(self.is_accepting(s) for s in layer):
            layer = {self.next_state(s, t) for s in layer for t in self.allowed(s)} - {DEAD}
            distance += 1
        return distance

    def explain(self, state: int) -> str:
        return repr(self._states[state])
