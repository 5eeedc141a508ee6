"""A constraint on bytes, followed by a beam.

All candidates of a beam spell the same bytes, so one state of the automaton serves all of them: it says which bytes may
come next, and whether the text may end. Since every live state of an automaton leads to an accepted text, no allowed
byte is a dead end.

The automaton is compiled for a vocabulary in which every byte that it asks for is a token: `byte_vocabulary()` of
`processors.inference`, or the model's own, if that is byte-level. A byte of the constraint that is no token of the
*model* could be allowed and yet not be spelled; that is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from outlines_core.errors import IncompatibleVocabularyError
from processors.bytes.byte_lm import EOS
from processors.bytes.trie import TokenByteTrie

__all__ = ["ByteGuide"]


class ByteGuide:
    """A state of an automaton, among bytes.  Never changes.

    Attributes:
        automaton, state: of `outlines_core`.
        allowed: (258,) bool: bytes that may come next; 257 if the text may end; 256 never.
    """

    __slots__ = ("_ids", "_spelled", "allowed", "automaton", "state")

    def __init__(self, automaton: Any, state: int, ids: NDArray[np.int64], spelled: NDArray[np.bool_]) -> None:
        self.automaton, self.state, self._ids, self._spelled = automaton, state, ids, spelled
        self.allowed = np.zeros(258, dtype=bool)
        if state in (oc.DEAD, oc.FINISHED):
            return
        words = oc.allocate_bitmask(1, automaton.vocabulary)[0]
        automaton.fill_mask(state, words)
        permitted = np.zeros(32 * len(words) + 1, dtype=bool)
        permitted[unpack_ids(words)] = True
        self.allowed[:256] = permitted[ids]
        self.allowed[EOS] = automaton.is_accepting(state)
        missing = self.allowed[:256] & ~spelled
        if missing.any():
            found = bytes(np.flatnonzero(missing).astype(np.uint8))
            raise IncompatibleVocabularyError(
                f"the guide allows {found!r} here, and the model's vocabulary has no token for each of these bytes "
                "alone: such a text could not be spelled everywhere",
                missing_bytes=found,
            )

    @classmethod
    def of(cls, automaton: Any, trie: TokenByteTrie) -> ByteGuide:
        """The beginning.

        Raises:
            IncompatibleVocabularyError: the automaton's vocabulary lacks bytes.
        """
        ids = [(automaton.vocabulary.get(bytes([b])) or [-1])[0] for b in range(256)]
        if -1 in ids:
            missing = bytes(b for b in range(256) if ids[b] < 0)
            raise IncompatibleVocabularyError(
                f"a guide on bytes needs every byte to be a token of its vocabulary, and {len(missing)} are not: "
                "compile it for processors.inference.byte_vocabulary()",
                missing_bytes=missing,
            )
        spelled = np.array([trie.is_token(bytes([b])) for b in range(256)], dtype=bool)
        return cls(automaton, automaton.initial_state, np.array(ids, dtype=np.int64), spelled)

    @property
    def is_dead(self) -> bool:
        return bool(self.state == oc.DEAD)

    def advance(self, symbol: int) -> ByteGuide:
        """The state after a byte, or after the end of the text (257); a dead one if it is not allowed."""
        if symbol == EOS:
            state = oc.FINISHED if self.allowed[EOS] else oc.DEAD
        else:
            state = self.automaton.next_state(self.state, int(self._ids[symbol]))
        return ByteGuide(self.automaton, state, self._ids, self._spelled)

    def __str__(self) -> str:
        some = bytes(np.flatnonzero(self.allowed[:256])[:20].astype(np.uint8))
        more = " and others" if self.allowed[:256].sum() > 20 else ""
        return f"{some!r}{more}{', or the end' if self.allowed[EOS] else ''}"
