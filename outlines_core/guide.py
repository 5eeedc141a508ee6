"""One sequence's position in a shared automaton.

The automaton is immutable and a state is an int, so a `Guide` is a few numbers: the state and a bounded log of the
states before it. Forks share nothing that changes; a rejected token changes nothing.

The methods of the PyPI package `outlines_core` 0.2 (`get_tokens`, `rollback_state`, `write_mask_into` ...) are here
under their names, with their messages.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.bitmask import n_words, unpack_ids
from outlines_core.errors import GuideError, RollbackError, TokenRejectedError
from outlines_core.types import DEAD, FINISHED, StateId, TokenAutomaton, TokenId

__all__ = ["Guide"]


class Guide:
    """A cursor over a `TokenAutomaton`.

    Args:
        automaton: what to follow.
        max_rollback: how many tokens can be taken back.

    >>> from outlines_core import Vocabulary, compile_regex
    >>> guide = Guide(compile_regex("ab|ac", Vocabulary(3, {"a": [0], "b": [1], "c": [2]})))
    >>> guide.advance(0)
    [1, 2]
    >>> guide.rollback_state(1)
    >>> guide.get_tokens()
    [0]
    """

    __slots__ = ("_automaton", "_max_rollback", "_n_tokens", "_state", "_undo")

    def __init__(self, automaton: TokenAutomaton, max_rollback: int = 32) -> None:
        if max_rollback < 0:
            raise ValueError(f"max_rollback must not be negative, got {max_rollback}")
        self._automaton = automaton
        self._max_rollback = max_rollback
        self._state: StateId = automaton.initial_state
        self._n_tokens = 0
        self._undo: deque[StateId] = deque(maxlen=max_rollback)

    # -- where it is ------------------------------------------------------------------------------------------------

    @property
    def automaton(self) -> TokenAutomaton:
        return self._automaton

    @property
    def state(self) -> StateId:
        return self._state

    @property
    def n_tokens(self) -> int:
        """Tokens consumed (rolled back ones not counted)."""
        return self._n_tokens

    def get_state(self) -> StateId:
        return self._state

    def is_finished(self) -> bool:
        """May the text end here?  (It may go on, unless an EOS was consumed.)"""
        return self._automaton.is_accepting(self._state)

    def get_tokens(self) -> list[TokenId]:
        """The allowed ids, ascending.  Raises GuideError if there are none."""
        tokens = self._allowed(self._state)
        if not tokens:
            raise GuideError(f"No allowed tokens available for the state {self._state}")
        return tokens

    def _allowed(self, state: StateId) -> list[TokenId]:
        mask = np.zeros(n_words(self._automaton.vocabulary.size), dtype=np.uint32)
        self._automaton.fill_mask(state, mask)
        ids: list[int] = unpack_ids(mask).tolist()
        return ids

    def fill_mask(self, out: NDArray[Any]) -> None:
        """Write the mask of the present state into `out` (see `TokenAutomaton.fill_mask`)."""
        self._automaton.fill_mask(self._state, out)

    def forced_tokens(self) -> list[TokenId]:
        return self._automaton.forced_tokens(self._state)

    # -- moves ------------------------------------------------------------------------------------------------------

    def advance(self, token_id: TokenId, return_tokens: bool | None = None) -> list[TokenId] | None:
        """Consume one token.

        Args:
            token_id: the token; an EOS id ends the text if it may end.
            return_tokens: False saves making the list that is returned otherwise.

        Returns:
            The ids allowed next, or None.

        Raises:
            TokenRejectedError: the token is not allowed; the guide is unchanged.
        """
        target = self._automaton.next_state(self._state, token_id)
        if target == DEAD:
            raise TokenRejectedError(
                int(token_id),
                position=self._n_tokens,
                message=f"No next state found for the current state: {self._state} with token ID: {token_id}",
            )
        self._undo.append(self._state)
        self._state = target
        self._n_tokens += 1
        return None if return_tokens is False else self._allowed(target)

    def accepts_tokens(self, sequence: Sequence[TokenId]) -> bool:
        """Could these tokens be consumed from here?  Nothing changes.  An EOS counts as no."""
        accepted, state = self._automaton.accept_tokens(self._state, sequence)
        return accepted == len(sequence) and (not len(sequence) or state != FINISHED)

    def rollback_state(self, n: int) -> None:
        """Take back the last `n` tokens.  Raises RollbackError, leaving the guide unchanged."""
        if n < 0:
            raise ValueError(f"cannot roll back {n} tokens")
        if n > len(self._undo):
            raise RollbackError(
                n,
                len(self._undo),
                message=(
                    f"Cannot roll back {n} step(s): only {len(self._undo)} states stored "
                    f"(max_rollback = {self._max_rollback}). You must advance through at least {n} state(s) before "
                    f"rolling back {n} step(s)."
                ),
            )
        for _ in range(n):
            self._state = self._undo.pop()
        self._n_tokens -= n

    rollback = rollback_state

    def get_allowed_rollback(self) -> int:
        """How many tokens can be taken back now."""
        return len(self._undo)

    def reset(self) -> None:
        """Back to the start; nothing can be rolled back then."""
        self._state = self._automaton.initial_state
        self._n_tokens = 0
        self._undo.clear()

    def fork(self) -> Guide:
        """An independent guide at the same place.  O(max_rollback)."""
        twin = Guide(self._automaton, self._max_rollback)
        twin._state, twin._n_tokens = self._state, self._n_tokens
        twin._undo = self._undo.copy()
        return twin

    __copy__ = fork

    def __deepcopy__(self, memo: dict[int, Any]) -> Guide:
        return self.fork()

    def write_mask_into(self, data_ptr: int, numel: int, element_size: int) -> None:
        """Write the mask to memory that somebody else owns.

        Args:
            data_ptr: address of `numel` writable elements of `element_size` bytes.

        Raises:
            ValueError: an element size other than 4, a null or misaligned address, a buffer that is too small.
        """
        if element_size != 4:
            raise ValueError(f"Invalid element size: {element_size}. Expected 4 bytes per element.")
        if data_ptr == 0:
            raise ValueError("Invalid data pointer: the pointer is null.")
        if data_ptr % 4:
            raise ValueError("Invalid data pointer alignment: the address must be a multiple of 4.")
        words = n_words(self._automaton.vocabulary.size)
        if numel < words:
            raise ValueError(f"Invalid buffer size: the mask needs {words} elements, got {numel}.")
        buffer = (ctypes.c_uint32 * numel).from_address(data_ptr)
        self._automaton.fill_mask(self._state, np.ctypeslib.as_array(buffer))

    # -- identity ---------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Guide):
            return NotImplemented
        return self._state == other._state and self._automaton == other._automaton

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Guide(state={self._state}, n_tokens={self._n_tokens}, automaton={self._automaton!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a Guide's state is a number of this process: pickle the automaton and the tokens consumed, "
            "and advance a new Guide over them"
        )
