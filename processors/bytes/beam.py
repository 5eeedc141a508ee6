"""`ByteBeamState`: a language model over bytes, made of one over tokens.

The probability that a text of bytes begins with some bytes is a sum over all ways to cut it into tokens, the last token
perhaps unfinished. A beam holds the K heaviest of these ways (`LazyTrieState`); without a bound on K the sum is exact.
One byte further,

    every candidate steps down its trie;
    a candidate whose token may end here also ends it, and takes the byte as the first of a new token,

which gives up to 2 K candidates; `prune` keeps K. What comes next is the mixture of what the candidates say.

The model is asked once for each token that is ended, for all candidates together. In a prompt the next byte is known
and only the candidates that survive matter, so most of that is not asked at all: see `processors.bytes.prefill`.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import GuideError
from processors.bytes.byte_lm import EOS, EOT, LazyByteProbs, StatefulByteLM
from processors.bytes.guides import ByteGuide
from processors.bytes.healing import heal
from processors.bytes.tokenized import StatefulTokenizedLM
from processors.bytes.trie import TokenByteTrie, TrieMode
from processors.bytes.trie_state import LazyTrieState, by_weight, log_weight, materialize, step
from processors.lm.causal import CachedCausalLM
from processors.lm.distribution import log_sum_exp

__all__ = ["BeamParams", "ByteBeamState", "DeadBeamError"]

_log = logging.getLogger(__name__)


class DeadBeamError(GuideError):
    """A beam without candidates was asked what comes next.

    Attributes:
        position: bytes that it had taken before the one that it died of.
        byte: that byte, or 257 for the end of the text; None if it did not die of one.
    """

    def __init__(self, message: str, *, position: int, byte: int | None) -> None:
        super().__init__(message)
        self.position, self.byte = position, byte


@dataclass(frozen=True, init=False)
class BeamParams:
    """How a beam is kept.

    Attributes:
        K: candidates that `prune` keeps; None: all, which is exact, and exponential in the number of bytes.
        prune_threshold: candidates that have no more than this share of the beam's weight are dropped, and tokens that
            would have none are not ended; 0 drops nothing.
        eos_byte_strings: the tokens that end a text; default the vocabulary's EOS tokens.
        heal: when no candidate is left, cut the unfinished token of one elsewhere (`processors.bytes.healing`).
        heal_max_backoff: how many bytes back that cut may lie; default the whole token.
        heal_max_splits: how many further tokens may be ended on the way to the byte; default any number.
        verbose: log every step at the level INFO.
        special_tokens: whether special tokens are text, spelled by their names.
    """

    K: int | None
    prune_threshold: float
    eos_byte_strings: frozenset[bytes] | None
    heal: bool
    heal_max_backoff: int | None
    heal_max_splits: int | None
    verbose: bool
    special_tokens: bool

    def __init__(
        self,
        K: int | None,  # noqa: N803 -- the name of genlm-bytes, and of everybody's formulas
        prune_threshold: float = 0.0,
        verbose: bool = False,
        eos_byte_strings: Iterable[bytes] | None = None,
        heal: bool = True,
        heal_max_backoff: int | None = None,
        heal_max_splits: int | None = None,
        *,
        special_tokens: bool = True,
        eos_tokens: Iterable[bytes] | None = None,
    ) -> None:
        if eos_tokens is not None:
            if eos_byte_strings is not None:
                raise TypeError("eos_tokens is the old name of eos_byte_strings: give one")
            warnings.warn("eos_tokens is now called eos_byte_strings", DeprecationWarning, stacklevel=2)
            eos_byte_strings = eos_tokens
        if K is not None and K < 1:
            raise ValueError(f"K must be at least 1, or None for no bound, not {K}")
        if not 0 <= prune_threshold < 1:
            raise ValueError(f"prune_threshold is a share of the beam, from 0 to below 1, not {prune_threshold}")
        for name, value in (("heal_max_backoff", heal_max_backoff), ("heal_max_splits", heal_max_splits)):
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative: {value}")
        values: dict[str, Any] = {
            "K": K,
            "prune_threshold": float(prune_threshold),
            "eos_byte_strings": None if eos_byte_strings is None else frozenset(map(bytes, eos_byte_strings)),
            "heal": heal,
            "heal_max_backoff": heal_max_backoff,
            "heal_max_splits": heal_max_splits,
            "verbose": verbose,
            "special_tokens": special_tokens,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def log_prune_threshold(self) -> float:
        return math.log(self.prune_threshold) if self.prune_threshold > 0 else -math.inf


class ByteBeamState(StatefulByteLM):
    """Candidates, best first.

    Attributes:
        states: the candidates.   params: how they are kept.
        guide: what the text must satisfy, and how far it is; or None.
        n_bytes: bytes taken so far.
        death: why there are no candidates, or "".
    """

    def __init__(
        self,
        states: Iterable[LazyTrieState],
        params: BeamParams,
        *,
        guide: ByteGuide | None = None,
        n_bytes: int = 0,
        death: str = "",
        died_of: int | None = None,
    ) -> None:
        self.states = by_weight(list(states))
        self.params, self.guide, self.n_bytes = params, guide, n_bytes
        self.death, self._died_of = death, died_of

    @classmethod
    async def initial(
        cls,
        lm: CachedCausalLM,
        params: BeamParams,
        *,
        guide: Any = None,
        initial_context: Iterable[int] | None = None,
        max_context_length: int | None = None,
    ) -> ByteBeamState:
        """No bytes yet.

        Args:
            guide: an automaton of `outlines_core`: the bytes that come after, but for those of `prefill`, are a text
                that it accepts. See `processors.bytes.guides` for which vocabularies it may be compiled for.
            initial_context: token ids before the text, which are not scored; default BOS.
            max_context_length: see `StatefulTokenizedLM`.
        """
        lm_state = StatefulTokenizedLM.initial(lm, initial_context, max_context_length)
        trie = TokenByteTrie.of(lm, params.eos_byte_strings, special_tokens=params.special_tokens)
        state = await LazyTrieState.initial(lm_state, trie).materialize()
        return cls([state], params, guide=None if guide is None else ByteGuide.of(guide, trie))

    def __iter__(self) -> Iterator[LazyTrieState]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)

    def _with(self, states: Iterable[LazyTrieState], **changes: Any) -> Self:
        kept: dict[str, Any] = {"guide": self.guide, "n_bytes": self.n_bytes}
        kept |= {"death": self.death, "died_of": self._died_of}
        return type(self)(states, self.params, **kept | changes)

    def with_guide(self, guide: Any) -> Self:
        """The same candidates; what comes now satisfies `guide`, or anything at all if that is None."""
        if not self.states:
            return self
        return self._with(self.states, guide=None if guide is None else ByteGuide.of(guide, self.states[0].trie))

    @cached_property
    def logZ(self) -> float:  # noqa: N802 -- the name of genlm-bytes
        """Log of the probability that a text begins with the bytes so far; -inf if there are no candidates.

        Exact if nothing was dropped, else a bound from below.
        """
        return log_weight(self.states)

    # -- a byte --------------------------------------------------------------------------------------------------------

    def prune(self) -> Self:
        """The K best candidates, without those below the threshold."""
        floor = self.logZ + self.params.log_prune_threshold
        kept = [state for state in self.states if state.weight > floor][: self.params.K]
        return self._with(kept)

    async def extend(self, log_z: float | None = None) -> list[LazyTrieState]:
        """The candidates with the token ended where it may end, the model asked for all of them.

        Args:
            log_z: what the threshold is a share of; default `logZ`.
        """
        floor = (self.logZ if log_z is None else log_z) + self.params.log_prune_threshold
        found = [new for state in self.states for new in state.extend_all() if new.weight > floor]
        await materialize(state.boundary for state in found)
        return found

    def extensions(self, advanced: list[LazyTrieState]) -> list[LazyTrieState]:
        """The candidates with the token ended, the model not yet asked.

        Args:
            advanced: those that take the next byte in their tokens; the threshold is a share of both together.
        """
        found = [new for state in self.states for new in state.extend_all()]
        floor = log_weight([*advanced, *found]) + self.params.log_prune_threshold
        return [new for new in found if new.weight > floor]

    async def __lshift__(self, a: int) -> Self:
        if a != EOS and not 0 <= a < 256:
            raise ValueError(f"neither a byte nor 257 (end of text): {a}")
        if not self.states:
            return self
        guide = None if self.guide is None else self.guide.advance(a)
        if guide is not None and guide.is_dead:
            return self._dead(a, f"the guide does not allow {_shown(a)} here; it allows {self.guide}")
        advanced = step(self.states, a)
        extended = self.extensions(advanced)
        await materialize(state.boundary for state in extended)
        return await self.arrive(a, [*advanced, *step(extended, a)], guide)

    async def arrive(self, a: int, states: list[LazyTrieState], guide: ByteGuide | None) -> Self:
        """The beam after byte `a` with these candidates; healed if there are none."""
        if not states:
            if all(state.terminated for state in self.states):
                return self._dead(a, "the text has ended: nothing can follow")
            healed, why = await heal(self.states, None if a == EOS else a, self.params)
            if healed is not None and a == EOS:
                healed = healed << EOS
            if healed is None or healed.weight == -math.inf:
                return self._dead(a, why or "the model gives it probability 0")
            states = [healed]
        beam = self._with(states, guide=guide, n_bytes=self.n_bytes + (a != EOS))
        if self.params.verbose:
            _log.info("%s: %d candidates, logZ %.4f\n%r", _shown(a), len(beam), beam.logZ, beam)
        return beam

    def _dead(self, a: int, why: str) -> Self:
        return self._with([], death=f"{_shown(a)} after {self.n_bytes} bytes: {why}", died_of=a)

    async def logp_next(self) -> LazyByteProbs:
        """What comes next, given the bytes so far; of a beam with a guide, given also that the guide allows it.

        Raises:
            DeadBeamError: there are no candidates, or the guide allows nothing that they could go on with.
        """
        states = self.states
        if not states or all(state.terminated for state in states):
            raise DeadBeamError(
                self.death or "the text has ended: nothing can follow", position=self.n_bytes, byte=self._died_of
            )
        ps = self._permitted([*states, *await self.extend()])
        if ps.max() == -math.inf:  # the guide, or the threshold, leaves nothing
            healed, why = await heal(states, None, self.params)
            ps = ps if healed is None else self._permitted([healed])
            if ps.max() == -math.inf:
                asked = "nothing can follow" if self.guide is None else f"the guide allows {self.guide}"
                why = why or "the model gives all of it probability 0"
                raise DeadBeamError(f"after {self.n_bytes} bytes {asked}: {why}", position=self.n_bytes, byte=None)
        return LazyByteProbs(ps - log_sum_exp(ps))

    def _permitted(self, states: Iterable[LazyTrieState]) -> NDArray[np.float64]:
        """(258,) log-probabilities of the bytes so far and then each symbol, as far as no token has to end for it."""
        ps = np.full(258, -np.inf)
        for state in states:
            np.logaddexp(ps, state.logp_next.ps + state.weight, out=ps)
        ps[EOT] = -np.inf  # that a token ends is said by the states in which it has ended
        if self.guide is not None:
            ps[~self.guide.allowed] = -np.inf
        return ps

    # -- many bytes ----------------------------------------------------------------------------------------------------

    def with_mode(self, mode: TrieMode) -> Self:
        """The same candidates, as far as they are any in the other mode."""
        return self._with(new for state in self.states if (new := state.with_mode(mode)) is not None)

    async def prefill(self, bs: bytes) -> Self:
        """The beam after `bs`, the bytes of a prompt: no guide follows them, and tokens that end a text are text.

        The candidates and weights are those of `beam = await (beam.prune() << b)` for each byte.
        """
        from processors.bytes.prefill import prefilled

        if not bs:
            return self
        beam = await prefilled(self.with_mode(TrieMode.WITHOUT_EOS), bytes(bs))
        after = beam.with_mode(TrieMode.WITH_EOS)
        if beam.states and not after.states:  # in the middle of what only a token that ends a text begins with
            healed, why = await heal(beam.states, None, self.params)
            after = self._dead(bs[-1], why) if healed is None else beam._with([healed]).with_mode(TrieMode.WITH_EOS)
        return after

    def __repr__(self) -> str:
        if not self.states:
            return f"{type(self).__name__}(dead: {self.death})" if self.death else f"{type(self).__name__}(empty)"
        lines = [f"{math.exp(state.weight - self.logZ):8.4f}  {state!r}" for state in self.states]
        return "\n".join([f"{type(self).__name__}(logZ={self.logZ:.4f})", *lines])


def _shown(a: int) -> str:
    return "the end of the text" if a == EOS else f"byte {bytes([a])!r}"
