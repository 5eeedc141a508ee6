"""A grammar as a lazy DFA over bytes: its states are configurations, made as they are visited.

There is no end of them, but a long list or deep nesting does not make more of them than short and shallow ones do where
the text goes on in the same way, as equal stacks and rows are one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.kernels import dfa as kernel
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.dfa import DEAD, LazyDfa

__all__ = ["ConfigurationDfa", "Recogniser"]

_BYTES_A_STATE: Final = 1500
_QUICK: Final = 3000  # of effort: 100 ms


class Recogniser(Protocol):
    """What configurations become byte by byte.  `weight`: what a step may cost, in some 30 us."""

    initial: Any
    weight: int

    def after(self, configuration: Any, byte: int) -> Hashable | None:
        """The configuration after a byte, without what cannot be completed; None if nothing is left."""

    def accepts(self, configuration: Any) -> bool:
        """May the text end here?"""

    def spelled(self, trie: Any) -> Callable[[Any], bool] | None:
        """Says of configurations whether whole tokens complete them; None: that must be searched for.

        Args:
            trie: (info, end, token) of the tokens.
        """


class _Alphabet:
    """What `LazyDfa` wants to know of an NFA: here there is none, only classes of bytes."""

    n_states = 0
    targets: tuple[int, ...] = ()

    def __init__(self, byte_class: NDArray[np.uint8], used: NDArray[np.bool_]) -> None:
        self.byte_class, self.n_classes = byte_class, int(byte_class.max()) + 1
        self.kind = np.zeros(0, dtype=np.uint8)
        self.useful = self.kind
        self.a = self.b = self.targets = np.zeros(0, dtype=np.int32)  # type: ignore[assignment]
        self.dag = np.zeros((1, self.n_classes), dtype=np.uint16)
        self.dag[0, byte_class[used]] = 2

    def alike_for(self, n_bytes: int) -> None:  # noqa: ARG002  # as `ByteNfa` has it
        return None


class ConfigurationDfa(LazyDfa):
    """The DFA of a recogniser's configurations.

    Args:
        byte_class: (256,) uint8; bytes of a class are never told apart.
        used: (256,) bool; the bytes that some text contains.
    """

    is_finite = False

    def __init__(
        self,
        recogniser: Recogniser,
        byte_class: NDArray[np.uint8],
        used: NDArray[np.bool_],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.recogniser, self.used = recogniser, used
        alphabet: Any = _Alphabet(byte_class, used)
        super().__init__(alphabet, limits)

    def _allocate_scratch(self) -> None:
        self._scratch = (np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int64))
        self.meta[kernel.M_LAZY] = 0
        self._numbers: dict[Any, int] = {}
        self._has_decided = False
        self._is_spelled: tuple[Callable[[Any], bool] | None] | None = None
        self._configurations: list[Any] = [None, None]
        self._byte_of = self.class_bytes()

    def _rehash(self, cells: int) -> None:
        """Configurations are found in a dict."""

    def _start(self) -> int:
        return self.number(self.recogniser.initial) if self.recogniser.initial else DEAD

    def configuration(self, state: int) -> Any:
        return self._configurations[state]

    def is_spelled(self, state: int, trie: Any, usable: NDArray[np.bool_]) -> bool | None:
        if self._is_spelled is None:
            self._is_spelled = (self.recogniser.spelled(trie),)
        (decides,) = self._is_spelled
        if decides is None:
            return None
        if not self._has_decided:
            with contextlib.suppress(LimitExceededError):  # of a quick test, that mostly does
                if self.shortest(state, usable=usable, effort=_QUICK) is not None:
                    return True
        try:
            spelled = decides(self._configurations[state])
        except LimitExceededError:  # of a thorough one: a search for tokens may still find some
            return None
        self._has_decided = True  # what was found out for it serves all states
        return spelled

    def number(self, configuration: Any) -> int:
        """The state of a configuration."""
        known = self._numbers.get(configuration)
        if known is None:
            known = self.n_states
            if known * _BYTES_A_STATE > self.limits.max_state_bytes:
                raise LimitExceededError(
                    f"the grammar's states would take {known * _BYTES_A_STATE:,} bytes (Limits.max_state_bytes)",
                    given=known * _BYTES_A_STATE,
                    limit=self.limits.max_state_bytes,
                )
            while known >= self.delta.shape[0] or known >= self.limits.max_states:
                self.grow()
            self._numbers[configuration] = known
            self._configurations.append(configuration)
            self.delta[known] = kernel.UNKNOWN
            self.accept[known] = self.recogniser.accepts(configuration)
            self.meta[kernel.M_N_STATES] = known + 1
        return known

    def fill(self, state: int, klass: int) -> int:
        self.effort += self.recogniser.weight
        following = self.recogniser.after(self._configurations[state], self._byte_of[klass])
        target = DEAD if following is None else self.number(following)
        self.delta[state, klass] = target
        return target

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.n_states * _BYTES_A_STATE
