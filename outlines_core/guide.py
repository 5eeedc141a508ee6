"""One sequence's position in a shared automaton.

The automaton is immutable and a state is an int, so a `Guide` is a few numbers: the state, a bounded log of the
states before it, and the tokens consumed. Forks share nothing that changes; a rejected token changes nothing.

The methods of the PyPI package `outlines_core` 0.2 (`get_tokens`, `rollback_state`, `write_mask_into` ...) are here
under their names, with their messages.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.bitmask import n_words, unpack_ids
from outlines_core.cache import decode_arrays, encode_arrays
from outlines_core.errors import CacheFormatError, GuideError, RollbackError, TokenRejectedError
from outlines_core.types import DEAD, FINISHED, StateId, TokenAutomaton, TokenId

__all__ = ["Guide"]


class Guide:
    """A cursor over a `TokenAutomaton`.

    Args:
        index: what to follow: an `Index`, or any other automaton.
        max_rollback: how many tokens can be taken back.

    >>> from outlines_core import Vocabulary, compile_regex
    >>> guide = Guide(compile_regex("ab|ac", Vocabulary(3, {"a": [0], "b": [1], "c": [2]})))
    >>> guide.advance(0)
    [1, 2]
    >>> guide.rollback_state(1)
    >>> guide.get_tokens()
    [0]
    """

    __slots__ = ("_automaton", "_max_rollback", "_state", "_tokens", "_undo")

    def __init__(self, index: TokenAutomaton, max_rollback: int = 32) -> None:
        if max_rollback < 0:
            raise ValueError(f"max_rollback must not be negative, got {max_rollback}")
        try:
            self._state: StateId = index.initial_state
        except AttributeError:
            raise TypeError(f"a guide follows an Index or another automaton, not {type(index).__name__}") from None
        self._automaton = index
        self._max_rollback = max_rollback
        self._tokens: list[TokenId] = []
        self._undo: list[StateId] = []  # before each of the last tokens, at least so many

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
        return len(self._tokens)

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
                position=len(self._tokens),
                message=f"No next state found for the current state: {self._state} with token ID: {token_id}",
            )
        self._undo.append(self._state)
        if len(self._undo) > 2 * self._max_rollback:
            self._forget(self._max_rollback)
        self._state = target
        self._tokens.append(int(token_id))
        return None if return_tokens is False else self._allowed(target)

    def accepts_tokens(self, sequence: Sequence[TokenId]) -> bool:
        """Could these tokens be consumed from here?  Nothing changes.  An EOS counts as no."""
        accepted, state = self._automaton.accept_tokens(self._state, sequence)
        return accepted == len(sequence) and (not len(sequence) or state != FINISHED)

    def rollback_state(self, n: int) -> None:
        """Take back the last `n` tokens.  Raises RollbackError, leaving the guide unchanged."""
        if n < 0:
            raise ValueError(f"cannot roll back {n} tokens")
        stored = self.get_allowed_rollback()
        if n > stored:
            raise RollbackError(
                n,
                stored,
                message=(
                    f"Cannot roll back {n} step(s): only {stored} states stored "
                    f"(max_rollback = {self._max_rollback}). You must advance through at least {n} state(s) before "
                    f"rolling back {n} step(s)."
                ),
            )
        self._forget(self._max_rollback)
        for _ in range(n):
            self._state = self._undo.pop()
            self._tokens.pop()

    rollback = rollback_state

    def get_allowed_rollback(self) -> int:
        """How many tokens can be taken back now."""
        return min(len(self._undo), self._max_rollback)

    def _forget(self, n: int) -> None:
        """Keep the states before the last `n` tokens.  Not done at each token: most are never taken back."""
        del self._undo[: max(0, len(self._undo) - n)]

    def reset(self) -> None:
        """Back to the start; nothing can be rolled back then."""
        self._state = self._automaton.initial_state
        self._tokens.clear()
        self._undo.clear()

    def fork(self) -> Guide:
        """An independent guide at the same place.  Copies the tokens consumed (8 bytes each)."""
        twin = Guide(self._automaton, self._max_rollback)
        twin._state, twin._tokens = self._state, self._tokens.copy()
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
            raise ValueError(
                f"Invalid element size: got {element_size} bytes per element, expected 4 bytes (32-bit integer)."
            )
        if data_ptr == 0:
            raise ValueError("Invalid data pointer: received a null pointer.")
        if data_ptr % 4:
            raise ValueError(f"Invalid data pointer alignment: pointer address {data_ptr} is not a multiple of 4.")
        words = n_words(self._automaton.vocabulary.size)
        if numel < words:
            raise ValueError(
                f"Invalid buffer size: got {numel} elements ({4 * numel} bytes), expected {words} elements "
                f"({4 * words} bytes). Ensure that the mask tensor has shape (1, (vocab_size + 31) // 32) and uses "
                "32-bit integers."
            )
        buffer = (ctypes.c_uint32 * numel).from_address(data_ptr)
        self._automaton.fill_mask(self._state, np.ctypeslib.as_array(buffer))

    # -- identity ---------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Guide):
            return NotImplemented
        return self._state == other._state and self._automaton == other._automaton

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Guide object with the state={self._state} and {self._automaton!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        """A state is a number of this process; a pickle has the tokens that led there."""
        from outlines_core.index import Index

        if isinstance(self._automaton, Index):
            return Guide.from_binary, (self.to_binary(),)
        return _replayed, (self._automaton, self._max_rollback, tuple(self._tokens), self.get_allowed_rollback())

    def to_binary(self) -> bytes:
        """The index and the tokens consumed (no pickle inside).  Raises TypeError for other automata."""
        from outlines_core.index import Index

        if not isinstance(self._automaton, Index):
            raise TypeError(f"only a guide of an Index can be serialized, not of a {type(self._automaton).__name__}")
        return encode_arrays(
            {
                "index": np.frombuffer(self._automaton.to_binary(), dtype=np.uint8),
                "tokens": np.array(self._tokens, dtype="<i8"),
                "rollback": np.array([self._max_rollback, self.get_allowed_rollback()], dtype="<i8"),
            }
        )

    @staticmethod
    def from_binary(binary_data: bytes) -> Guide:
        """The inverse of `to_binary`.  Raises CacheFormatError, a ValueError, for anything else."""
        from outlines_core.index import Index

        arrays = decode_arrays(bytes(binary_data))
        if arrays is None or arrays.keys() != {"index", "tokens", "rollback"}:
            raise CacheFormatError("Deserialization of Guide failed: damaged, or written by another version")
        max_rollback, n_undo = arrays["rollback"].tolist()
        index = Index.from_binary(arrays["index"].tobytes())
        return _replayed(index, max_rollback, arrays["tokens"].tolist(), n_undo)


def _replayed(automaton: TokenAutomaton, max_rollback: int, tokens: Sequence[TokenId], n_undo: int) -> Guide:
    """A guide that has consumed `tokens`, of which the last `n_undo` can be taken back."""
    guide = Guide(automaton, max_rollback)
    for token in tokens:
        guide.advance(token, return_tokens=False)
    guide._forget(n_undo)
    return guide
