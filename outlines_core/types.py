"""Names that every layer shares: token ids, the two reserved states, the dtype of a mask, what an automaton can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from outlines_core.vocabulary import Vocabulary

__all__ = ["DEAD", "FINISHED", "FIRST_STATE", "Mask", "StateId", "TokenAutomaton", "TokenId"]

TokenId: TypeAlias = int
StateId: TypeAlias = int
Mask: TypeAlias = NDArray[np.int32] | NDArray[np.uint32]

DEAD: Final = 0
"""The state after a token that is not allowed; nothing leads out of it."""
FINISHED: Final = 1
"""The state after an EOS token in an accepting state; only EOS ids lead out of it, to itself."""
FIRST_STATE: Final = 2
"""The smallest id that an ordinary state can have."""


@runtime_checkable
class TokenAutomaton(Protocol):
    """A constraint compiled against a vocabulary: immutable, shared between sequences and threads; a state is an int.

    A token is allowed in a state if and only if some completion of the text satisfies the constraint and can be
    spelled with the vocabulary. Token t is bit ``t & 31`` of word ``t >> 5`` of a mask.
    """

    @property
    def initial_state(self) -> StateId: ...
    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def n_states(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def fill_mask(self, state: StateId, out: NDArray[Any]) -> None: ...
    def next_state(self, state: StateId, token_id: TokenId) -> StateId: ...
    def is_accepting(self, state: StateId) -> bool: ...
    def accept_tokens(self, state: StateId, token_ids: Sequence[TokenId]) -> tuple[int, StateId]: ...
    def fill_draft_masks(self, state: StateId, token_ids: Sequence[TokenId], out: NDArray[Any]) -> int: ...
    def forced_tokens(self, state: StateId) -> list[TokenId]: ...
    def forced_bytes(self, state: StateId) -> bytes: ...
    def min_tokens_to_accept(self, state: StateId) -> int: ...
    def explain(self, state: StateId) -> str: ...
