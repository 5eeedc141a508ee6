"""What one guide of a logits processor says: its states, steps and masks, whatever kind of guide it is.

A row state is DEAD or FINISHED (absorbing: what other processors and padding append changes nothing), a state of the
guide, or, while a row is still free (`start_after`), a negative int: -1 - the progress within the marker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.bitmask import unpack_ids
from outlines_core.errors import GuideError, VocabularyError
from outlines_core.types import DEAD, FINISHED, TokenAutomaton
from outlines_core.vocabulary import Vocabulary
from processors.guide import AutomatonGuide, Guide, Instruction

__all__ = ["AutomatonSource", "GuideSource", "Marker", "Source", "source_of"]

_FREE: Final = -1
"""The state of a free row with no progress within the marker."""


class Source(ABC):
    """One guide, its EOS ids, and the marker after which it begins.

    Attributes:
        automaton: the automaton, if every mask of it can be taken as it is (no marker, no budget, its own EOS ids).
        eos_ids: the ids that end a text.
        size: ids that a mask must have room for.
    """

    automaton: TokenAutomaton | None = None
    size = 0

    def __init__(self, eos_ids: Sequence[int], marker: Marker | None) -> None:
        self.eos_ids = tuple(dict.fromkeys(int(i) for i in eos_ids))
        self.marker = marker

    @property
    def start(self) -> Any:
        """The state of a row before its first generated token."""
        return self.first if self.marker is None else _FREE

    @property
    @abstractmethod
    def first(self) -> Any:
        """The state before the first token of the constrained text."""

    @abstractmethod
    def step_inside(self, state: Any, token: int) -> Any:
        """The state after a token of the constrained text."""

    @abstractmethod
    def fill_inside(self, state: Any, left: int | None, out: NDArray[np.int32]) -> bool:
        """Write the mask of a state; False if the budget leaves nothing."""

    @abstractmethod
    def explain(self, state: Any) -> str:
        """In words: what is expected in a state."""

    def step(self, state: Any, token: int) -> Any:
        """The row state after a token: DEAD if the mask had not allowed it."""
        if type(state) is int and state < 0 and self.marker is not None:
            if token in self.eos_ids:
                return FINISHED
            progress = self.marker.step(-1 - state, token)
            return self.first if progress == DONE else DEAD if progress == OVERRUN else -1 - progress
        return self.step_inside(state, token)

    def fill(self, state: Any, left: int | None, out: NDArray[np.int32]) -> bool:
        """Write the mask of a row state that is neither DEAD nor FINISHED.

        Args:
            left: tokens that may still be generated, this one included, EOS not counted; None if there is no limit.
            out: (n_words,), overwritten.

        Returns:
            False if the text cannot be ended within `left` tokens any more; `out` is of no use then.
        """
        if type(state) is int and state < 0 and self.marker is not None:
            return self.marker.fill(-1 - state, None if left is None else left - self.least_inside(), out)
        return self.fill_inside(state, left, out)

    def fill_end(self, out: NDArray[np.int32]) -> None:
        """The mask of a row that has ended: the EOS ids."""
        out[:] = 0
        set_bits(out, np.array(self.eos_ids, dtype=np.int64))

    def least_inside(self) -> int:
        """Fewest tokens of a constrained text."""
        raise GuideError("max_new_tokens needs token automata: other guides do not say how long their texts are")

    def least(self) -> int:
        """Fewest tokens of a whole generated text, the marker included."""
        return self.least_inside() + (self.marker.least(0) if self.marker is not None else 0)


class AutomatonSource(Source):
    """A `TokenAutomaton`."""

    def __init__(
        self, automaton: TokenAutomaton, eos_ids: Sequence[int] | None, marker: Marker | None, limited: bool
    ) -> None:
        own = automaton.vocabulary.eos_token_ids
        super().__init__(own if eos_ids is None else eos_ids, marker)
        self._automaton = automaton
        self.size = automaton.vocabulary.size
        self._other_eos = set(self.eos_ids) != set(own)
        self._dropped = np.array(sorted(set(own) - set(self.eos_ids)), dtype=np.int64)
        self._least: int | None = None
        if marker is None and not limited and not self._other_eos:
            self.automaton = automaton

    @property
    def first(self) -> int:
        return self._automaton.initial_state

    def step_inside(self, state: int, token: int) -> int:
        if self._other_eos:
            if token in self.eos_ids:
                return FINISHED if self._automaton.is_accepting(state) else DEAD
            if token in self._dropped:
                return DEAD
        return self._automaton.next_state(state, token)

    def fill_inside(self, state: int, left: int | None, out: NDArray[np.int32]) -> bool:
        automaton = self._automaton
        if left is None:
            automaton.fill_mask(state, out)
        elif not self._fill_closing(state, left, out):
            return False
        if self._other_eos:
            clear_bits(out, self._dropped)
            if automaton.is_accepting(state):
                set_bits(out, np.array(self.eos_ids, dtype=np.int64))
        return True

    def _fill_closing(self, state: int, left: int, out: NDArray[np.int32]) -> bool:
        fill_closing_mask = getattr(self._automaton, "fill_closing_mask", None)
        if fill_closing_mask is not None:
            fill_closing_mask(state, left, out)
            if out.any():
                return True
        # No such method, or one that counts too carefully to leave anything: token by token.
        automaton = self._automaton
        eos = set(automaton.vocabulary.eos_token_ids)
        automaton.fill_mask(state, out)
        allowed = unpack_ids(out).tolist()
        near = [
            t
            for t in allowed
            if t in eos or (left > 0 and automaton.min_tokens_to_accept(automaton.next_state(state, t)) <= left - 1)
        ]
        out[:] = 0
        set_bits(out, np.array(near, dtype=np.int64))
        return bool(near)

    def least_inside(self) -> int:
        if self._least is None:
            self._least = self._automaton.min_tokens_to_accept(self.first)
        return self._least

    def explain(self, state: int) -> str:
        return self._automaton.explain(state)


class _GuideState:
    """A state of a guide, what the guide says there (asked once), and what is left of a `Write`."""

    __slots__ = ("_allowed", "_asked", "_pending", "value")

    def __init__(self, value: Any, pending: tuple[int, ...]) -> None:
        self.value, self._pending = value, pending
        self._asked = False
        self._allowed: NDArray[np.int64] | None = None

    def allowed(self, guide: Guide) -> NDArray[np.int64] | None:
        """The ids that may follow, None for all."""
        if not self._asked:
            if not self._pending:
                instruction = guide.get_next_instruction(self.value)
                ids = _ids_of(instruction)
                if type(instruction).__name__ != "Write" or ids is None or len(ids) < 2:
                    self._allowed, self._asked = ids, True
                    return ids
                self._pending = tuple(ids.tolist())
            self._allowed, self._asked = np.array(self._pending[:1], dtype=np.int64), True
        return self._allowed

    def pending(self) -> tuple[int, ...]:
        """What a `Write` leaves to be written after the next token."""
        return self._pending[1:]


class GuideSource(Source):
    """Any object with the `Guide` protocol."""

    def __init__(self, guide: Guide, eos_ids: Sequence[int], marker: Marker | None) -> None:
        super().__init__(eos_ids, marker)
        self._guide = guide

    @property
    def first(self) -> _GuideState:
        return _GuideState(self._guide.initial_state, ())

    def step_inside(self, state: _GuideState, token: int) -> Any:
        allowed = state.allowed(self._guide)
        if allowed is not None and token not in (allowed if len(allowed) else self.eos_ids):
            return DEAD
        if token in self.eos_ids:
            return FINISHED
        return _GuideState(self._guide.get_next_state(state.value, token), state.pending())

    def fill_inside(self, state: _GuideState, left: int | None, out: NDArray[np.int32]) -> bool:  # noqa: ARG002
        allowed = state.allowed(self._guide)
        if allowed is None:
            out[:] = -1
        elif len(allowed):
            out[:] = 0
            set_bits(out, allowed)
        else:
            self.fill_end(out)
        return True

    def explain(self, state: _GuideState) -> str:
        return repr(self._guide.get_next_instruction(state.value))


def _ids_of(instruction: Instruction | Any) -> NDArray[np.int64] | None:
    """The token ids of an instruction of ours, or of anyone's with `tokens`."""
    tokens = instruction.ids if hasattr(instruction, "ids") else instruction.tokens
    if tokens is None or isinstance(tokens, np.ndarray):
        return tokens
    if hasattr(tokens, "detach"):
        tokens = tokens.detach().cpu().numpy()
    return np.asarray(tokens, dtype=np.int64).reshape(-1)


def source_of(
    guide: Any, eos_ids: Sequence[int] | None, default_eos: Sequence[int] | None, marker: Marker | None, limited: bool
) -> Source:
    """The source for a guide given by a user.

    Args:
        eos_ids: the EOS ids asked for.   default_eos: those of the tokenizer.   limited: is there a `max_new_tokens`?

    Raises:
        TypeError: neither a token automaton nor a guide.
        ValueError: no EOS ids are known; or a limit is asked of a guide that is no automaton.
    """
    if isinstance(guide, AutomatonGuide):
        guide = guide.automaton
    if isinstance(guide, TokenAutomaton):
        return AutomatonSource(guide, eos_ids, marker, limited)
    if not all(hasattr(guide, name) for name in ("initial_state", "get_next_instruction", "get_next_state")):
        raise TypeError(
            f"a guide must be a token automaton (oc.compile_regex ...) or an object with the methods of "
            f"processors.guide.Guide, not {type(guide).__name__}"
        )
    if limited:
        raise ValueError(
            f"max_new_tokens needs token automata: nothing is known of the lengths of the texts of "
            f"{type(guide).__name__}"
        )
    eos = eos_ids or default_eos or getattr(guide, "eos_token_ids", None)
    if not eos:
        raise ValueError("the EOS ids are not known: give a tokenizer or eos_token_ids=")
    return GuideSource(guide, eos, marker)


# -- markers -----------------------------------------------------------------------------------------------------------

DONE: Final = -1
OVERRUN: Final = -2


class Marker:
    """What must have been generated before the constraint begins: a token id, or a text.

    A text is looked for in the bytes of the generated tokens, across tokens. It must end with a token: tokens that
    would run over its end are masked, so that the constrained text begins with a whole token. Special tokens are not
    text, the search begins anew behind them.
    """

    def __init__(self, marker: int | str | bytes, vocabulary: Vocabulary | None) -> None:
        """See `GuideLogitsProcessor`.

        Raises:
            ValueError: an empty text, an id that is not in the vocabulary, or no vocabulary to read a text with.
            VocabularyError: the text cannot be spelled with the vocabulary.
        """
        self._id: int | None = None
        self._text = b""
        if isinstance(marker, str) and vocabulary is not None and marker in vocabulary.special_tokens:
            marker = vocabulary.special_tokens[marker]
        if isinstance(marker, (int, np.integer)) and not isinstance(marker, bool):
            if marker < 0 or (vocabulary is not None and marker >= vocabulary.size):
                raise ValueError(f"start_after={marker} is not a token id")
            self._id = int(marker)
            return
        if not isinstance(marker, (str, bytes)):
            raise TypeError(f"start_after must be a token id or a text, not {type(marker).__name__}")
        self._text = marker.encode() if isinstance(marker, str) else marker
        if not self._text:
            raise ValueError("start_after is empty")
        if vocabulary is None:
            raise ValueError("start_after= as a text needs a tokenizer or a vocabulary")
        self._vocabulary = vocabulary
        self._failure = _failure_function(self._text)
        self._inner: dict[bytes, tuple[int, ...]] = {}
        self._over: list[tuple[bytes, tuple[int, ...]]] = []
        tails = tuple(self._text[k:] for k in range(len(self._text)))
        special = set(vocabulary.special_tokens.values())
        for token, ids in vocabulary.items():
            text_ids = tuple(i for i in ids if i not in special)
            if token and text_ids:
                if token in self._text:
                    self._inner[token] = text_ids
                if token.startswith(tails) or self._text in token:
                    self._over.append((token, text_ids))
        self._straddling: dict[int, NDArray[np.int64]] = {}
        self._least = self._distances()
        if self._least[0] is None:
            raise VocabularyError(f"the vocabulary cannot spell the text {marker!r} of start_after")

    def _distances(self) -> list[int | None]:
        """Fewest tokens that spell the text from each position on to its end."""
        text = self._text
        least: list[int | None] = [None] * len(text) + [0]
        for k in range(len(text) - 1, -1, -1):
            ways = [least[k + len(t)] for t in self._inner if text.startswith(t, k)]
            known = [way for way in ways if way is not None]
            least[k] = 1 + min(known) if known else None
        return least

    def least(self, progress: int) -> int:
        """Tokens that suffice to complete the marker."""
        if self._id is not None:
            return 1
        found = self._least[progress]
        if found is None:
            raise VocabularyError(f"the vocabulary cannot spell {self._text[progress:]!r}, the end of start_after")
        return found

    def step(self, progress: int, token: int) -> int:
        """The progress after a token, DONE, or OVERRUN if the token runs over the end of the text."""
        if self._id is not None:
            return DONE if token == self._id else 0
        return self._run(progress, self._vocabulary.token_bytes(token))

    def _run(self, progress: int, token: bytes) -> int:
        if not token:
            return 0
        text, failure = self._text, self._failure
        for k, byte in enumerate(token):
            while progress and text[progress] != byte:
                progress = failure[progress]
            progress += text[progress] == byte
            if progress == len(text):
                return DONE if k == len(token) - 1 else OVERRUN
        return progress

    def fill(self, progress: int, left: int | None, out: NDArray[np.int32]) -> bool:
        """The mask of a free row: every token, less those that run over the end of the text.

        Args:
            left: tokens that may be generated before the constrained text must begin; when they run short, only
                tokens that lead on to the marker are allowed.
        """
        if self._id is not None:
            out[:] = -1 if left is None or left > 1 else 0
            if left == 1:
                set_bits(out, np.array([self._id], dtype=np.int64))
            return left is None or left >= 1
        if left is None or left - 1 >= self._most():
            out[:] = -1
            clear_bits(out, self._straddlers(progress))
            return True
        out[:] = 0
        found = False
        for token, ids in self._inner.items():
            if self._text.startswith(token, progress):
                least = self._least[progress + len(token)]
                if least is not None and least <= left - 1:
                    set_bits(out, np.array(ids, dtype=np.int64))
                    found = True
        return found

    def _most(self) -> int:
        return max(self.least(k) for k in range(len(self._text)))

    def _straddlers(self, progress: int) -> NDArray[np.int64]:
        known = self._straddling.get(progress)
        if known is None:
            over = [i for token, ids in self._over if self._run(progress, token) == OVERRUN for i in ids]
            known = self._straddling[progress] = np.array(over, dtype=np.int64)
        return known


def _failure_function(text: bytes) -> list[int]:
    """Knuth, Morris, Pratt: failure[k] is the longest proper border of the first k bytes."""
    failure = [0, 0]
    k = 0
    for byte in text[1:]:
        while k and text[k] != byte:
            k = failure[k]
        k += text[k] == byte
        failure.append(k)
    return failure


# -- bits --------------------------------------------------------------------------------------------------------------


def set_bits(out: NDArray[np.int32], ids: NDArray[np.int64] | Iterable[int]) -> None:
    """Set the bits of ids; those beyond `out` are left out."""
    ids, words = _within(out, ids)
    np.bitwise_or.at(words, ids >> 5, np.uint32(1) << (ids & 31).astype(np.uint32))


def clear_bits(out: NDArray[np.int32], ids: NDArray[np.int64] | Iterable[int]) -> None:
    """Clear the bits of ids."""
    ids, words = _within(out, ids)
    np.bitwise_and.at(words, ids >> 5, ~(np.uint32(1) << (ids & 31).astype(np.uint32)))


def _within(
    out: NDArray[np.int32], ids: NDArray[np.int64] | Iterable[int]
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    chosen = ids if isinstance(ids, np.ndarray) else np.fromiter(ids, dtype=np.int64)
    return chosen[(chosen >= 0) & (chosen < 32 * out.shape[0])], out.view(np.uint32)
