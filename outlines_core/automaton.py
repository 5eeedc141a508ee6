"""What token automata have in common, whatever constraint they come from.

An automaton is a light, immutable face of a *core*, which holds the growing tables and is shared by all automata of one
constraint and vocabulary. The core answers for a state: its mask, the state after a token, whether the text may end.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from outlines_core.bitmask import checked_words
from outlines_core.kernels.dfa import fill_sparse, mask_to_ids
from outlines_core.types import DEAD, FINISHED, FIRST_STATE, StateId, TokenId
from outlines_core.vocabulary import Vocabulary

__all__ = ["Core", "CoreAutomaton", "MaskedCore"]

_INT32: Final = np.dtype(np.int32)


class Core(Protocol):
    """What `CoreAutomaton` asks of the tables behind it."""

    vocabulary: Vocabulary
    label: str
    shape: tuple[int]
    n_words: int
    masks: dict[int, NDArray[np.int32]]
    edges: dict[tuple[int, int], int]

    def fill(self, state: int, words: NDArray[Any]) -> None: ...
    def ids(self, state: int) -> NDArray[np.int32]: ...
    def next_state(self, state: int, token_id: int) -> int: ...
    def accepts(self, state: int) -> bool: ...
    @property
    def initial_state(self) -> int: ...
    @property
    def n_states(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


class MaskedCore(ABC):
    """What cores share: ready masks, each (n_words,) words, or fewer entries and then the allowed ids."""

    size: int
    n_words: int
    masks: dict[int, NDArray[np.int32]]

    @abstractmethod
    def mask(self, state: int) -> NDArray[np.int32]:
        """The mask of a state, made if need be."""

    def fill(self, state: int, words: NDArray[Any]) -> None:
        """Write the mask of `state` into `words` (checked)."""
        mask = self.masks.get(state)
        if mask is None:
            mask = self.mask(state)
        n = self.n_words
        if mask.shape[0] == n:
            words[:n] = mask.view(np.uint32)
            if words.shape[0] > n:
                words[n:] = 0
        else:
            fill_sparse(mask, words)

    def ids(self, state: int) -> NDArray[np.int32]:
        """The allowed ids, ascending."""
        mask = self.masks.get(state)
        if mask is None:
            mask = self.mask(state)
        if mask.shape[0] != self.n_words:
            return mask
        ids = np.empty(self.size, dtype=np.int32)
        return ids[: mask_to_ids(mask.view(np.uint32), ids)]


class CoreAutomaton:
    """A `TokenAutomaton` over a core.

    Every method may be called from any number of threads. States are ints: `oc.DEAD`, `oc.FINISHED`, and ids of this
    object's table, equal only for equal futures.
    """

    def __init__(self, core: Any, source: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
        self._core, self._source = core, source
        self._edges: dict[tuple[int, int], int] = core.edges

    def __reduce__(self) -> tuple[Any, ...]:
        return self._source

    def __copy__(self) -> CoreAutomaton:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> CoreAutomaton:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._core.label}, n_states={self.n_states})"

    @property
    def initial_state(self) -> StateId:
        state: int = self._core.initial_state
        return state

    @property
    def vocabulary(self) -> Vocabulary:
        """The snapshot that the constraint was compiled against."""
        vocabulary: Vocabulary = self._core.vocabulary
        return vocabulary

    @property
    def n_states(self) -> int:
        """States in the table so far, DEAD and FINISHED included."""
        n: int = self._core.n_states
        return n

    @property
    def nbytes(self) -> int:
        """Bytes of the tables and masks behind this automaton (shared with others of the same constraint)."""
        n: int = self._core.nbytes
        return n

    def fill_mask(self, state: StateId, out: NDArray[Any]) -> None:
        """Write the allowed-token mask of `state`.

        Args:
            out: C-contiguous (>= n_words,) int32 or uint32, overwritten; words past the vocabulary become 0.

        Raises:
            ValueError: `out` cannot take the mask, or `state` is not a state; `out` is untouched.
            LimitExceededError: the mask needs more than `Limits` allow; `out` is untouched.

        Cost: a copy (about 1 us for 128k ids) once the state was visited; else a walk of what is live of the trie.
        """
        core = self._core
        mask = core.masks.get(state)
        if mask is None:
            mask = core.mask(state)
        if (
            type(out) is np.ndarray and out.dtype is _INT32 and out.shape == core.shape and out.flags.carray
        ):  # the hot path: nothing to convert
            if mask.shape == core.shape:
                out[:] = mask
            else:
                fill_sparse(mask, out)
            return
        core.fill(state, checked_words(out, core.n_words))

    def next_state(self, state: StateId, token_id: TokenId) -> StateId:
        """The state after one token: DEAD if it is not allowed, FINISHED after an EOS id in an accepting state."""
        known = self._edges.get((state, token_id))
        if known is not None:
            return known
        following: int = self._core.next_state(state, operator.index(token_id))
        return following

    def is_accepting(self, state: StateId) -> bool:
        """May generation end here?"""
        return state == FINISHED or (state >= FIRST_STATE and bool(self._core.accepts(state)))

    def accept_tokens(self, state: StateId, token_ids: Sequence[TokenId]) -> tuple[int, StateId]:
        """How many of `token_ids` are allowed one after the other, and the state after those."""
        for n, token_id in enumerate(token_ids):
            following = self.next_state(state, operator.index(token_id))
            if following == DEAD:
                return n, state
            state = following
        return len(token_ids), state

    def fill_draft_masks(self, state: StateId, token_ids: Sequence[TokenId], out: NDArray[Any]) -> int:
        """Masks along a draft: row 0 of `out` is that of `state`, row i that after ``token_ids[:i]``.

        Args:
            out: (len(token_ids) + 1, >= n_words) int32 or uint32; rows behind a rejected token become 0.

        Returns:
            How many of the draft's tokens are allowed.
        """
        if getattr(out, "ndim", 0) != 2 or out.shape[0] < len(token_ids) + 1:
            raise ValueError(f"draft masks of {len(token_ids)} tokens need {len(token_ids) + 1} rows")
        rows = [checked_words(out[i], self._core.n_words) for i in range(len(token_ids) + 1)]
        accepted = 0
        for i, row in enumerate(rows):
            self._core.fill(state, row)
            if i < len(token_ids):
                state = self.next_state(state, operator.index(token_ids[i]))
                accepted += state != DEAD
        return accepted

    def allowed_tokens(self, state: StateId) -> NDArray[np.int32]:
        """The ids that are set in the mask of `state`, ascending."""
        ids: NDArray[np.int32] = self._core.ids(state).copy()
        return ids

    def forced_tokens(self, state: StateId) -> list[TokenId]:
        """The longest chain of tokens none of which has an alternative; it ends before a state that may end."""
        chain: list[int] = []
        while state >= FIRST_STATE and not self._core.accepts(state):
            ids = self._core.ids(state)
            if len(ids) != 1:
                break
            chain.append(int(ids[0]))
            state = self.next_state(state, chain[-1])
        return chain
