"""The token automaton of a JSON Schema."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from outlines_core.automaton import CoreAutomaton
from outlines_core.bitmask import checked_words
from outlines_core.json_core import JsonCore
from outlines_core.json_explain import explain
from outlines_core.types import DEAD, FINISHED, FIRST_STATE, StateId

__all__ = ["JsonAutomaton"]


class JsonAutomaton(CoreAutomaton):
    """The `TokenAutomaton` of a JSON Schema.  Made by `compile_json_schema`."""

    _core: JsonCore

    def forced_bytes(self, state: StateId) -> bytes:
        """The longest common prefix of all completions (b"" if the text may end here)."""
        return self._core.forced(state) if state >= FIRST_STATE else b""

    def completion(self, state: StateId) -> bytes:
        """A short text after which generation may end: a shortest one unless alternatives depend on each other.

        Raises:
            ValueError: `state` is DEAD.
            LimitExceededError: the text is extremely long.
        """
        if state == DEAD:
            raise ValueError("nothing can be accepted any more after a rejected token")
        return self._core.completion(state) if state >= FIRST_STATE else b""

    def min_tokens_to_accept(self, state: StateId) -> int:
        """So many tokens (EOS not counted) suffice to come to a state in which generation may end.

        The fewest tokens that spell `completion`; some longer text may be spelled with fewer. From each state that is
        not accepting, some token leads to a state from which one token less suffices.

        Raises:
            ValueError: `state` is DEAD.
            LimitExceededError: the text is extremely long.
        """
        if state == DEAD:
            raise ValueError("nothing can be accepted any more after a rejected token")
        return self._core.distance(state) if state >= FIRST_STATE else 0

    def fill_closing_mask(self, state: StateId, budget: int, out: NDArray[Any]) -> None:
        """`fill_mask`, less the tokens after which the text cannot be ended within the budget.

        Args:
            budget: tokens left, the next one included, EOS not counted. A token stays allowed if `min_tokens_to_accept`
                after it is at most ``budget - 1``.

        Cost: a walk of the whole vocabulary, and a completion for each state that a token leads to.
        """
        core = self._core
        core.closing_mask(state, budget, checked_words(out, core.n_words))

    def explain(self, state: StateId) -> str:
        """In words: what is expected next, and the places in the schema that ask for it."""
        if state == DEAD:
            return "nothing: the last token was not allowed"
        if state == FINISHED:
            return "the text has ended"
        return explain(self._core, state)
