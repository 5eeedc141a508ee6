"""Potentials: log-weights of texts and of their beginnings, in one interface whatever they come from.

A text is a tuple of token ids, `EOS` stands behind a complete one. A potential says

    complete(x)    the log-weight of the text x; -inf: impossible
    prefix(x)      a log-weight of x as a beginning; -inf only if no text that begins with x is possible
    logw_next(x)   for each token t, and for EOS in the last place: score(x t) - prefix(x)

so the weights of the tokens of a text add up to ``complete(x) - prefix(())``. `processors.inference.laws` checks that.
Potentials multiply: ``lm * automaton`` weighs by both.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from outlines_core.errors import LimitExceededError
from processors.lm.backend import Row
from processors.lm.causal import CachedCausalLM
from processors.lm.distribution import log_sum_exp

__all__ = [
    "EOS",
    "AutomatonPotential",
    "Context",
    "FunctionPotential",
    "LMPotential",
    "Potential",
    "Product",
    "as_potential",
    "byte_vocabulary",
]

Context = tuple[int, ...]
EOS = -1
"""Stands behind a complete text, and for the last place of what `logw_next` returns."""


class Potential(ABC):
    """Log-weights over texts of ids 0 .. size - 1.  Subclasses define `prefix` and `complete`.

    Attributes:
        size: number of ids there are.
    """

    size: int

    @abstractmethod
    async def prefix(self, context: Context) -> float:
        """The log-weight of a beginning; -inf if nothing can come of it."""

    @abstractmethod
    async def complete(self, context: Context) -> float:
        """The log-weight of a complete text."""

    async def score(self, context: Context) -> float:
        """`complete` of what stands before `EOS`, or `prefix`."""
        return await (self.complete(context[:-1]) if context and context[-1] == EOS else self.prefix(context))

    async def logw_next(self, context: Context) -> NDArray[np.float64]:
        """(size + 1,) log-weights of what may come next; EOS is last.

        Raises:
            ValueError: ``prefix(context)`` is -inf.
        """
        whole = self._possible(await self.prefix(context), context)
        scores = await asyncio.gather(*(self.score((*context, t)) for t in [*range(self.size), EOS]))
        return np.array(scores, dtype=np.float64) - whole

    async def logw_eos(self, context: Context) -> float:
        """``logw_next(context)[EOS]`` alone."""
        whole = self._possible(await self.prefix(context), context)
        return await self.complete(context) - whole

    def min_tokens(self, context: Context) -> int:
        """At least so many tokens are needed to complete a possible beginning; 0 where nothing is known."""
        del context
        return 0

    def _possible(self, prefix: float, context: Context) -> float:
        if prefix == -math.inf:
            raise ValueError(f"nothing can come of {context}: its weight as a beginning is 0")
        return prefix

    def __mul__(self, other: Any) -> Product:
        return Product(self, as_potential(other, self.size))


class LMPotential(Potential):
    """A language model after a prompt: ``complete`` is the log-probability of the text and of its end.

    Args:
        prompt: a text or ids; it is not weighed.   temp: temperature.

    All EOS tokens of the model are one `EOS`, with the sum of their probabilities. Ids that no token has weigh nothing.
    """

    def __init__(self, lm: CachedCausalLM, prompt: str | Iterable[int] = "", temp: float = 1.0) -> None:
        if not 0 < temp < math.inf:
            raise ValueError(f"temp must be positive and finite, not {temp}")
        self.lm, self.temp, self.size = lm, temp, lm.n_logits
        self.prompt = lm.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]
        self._no_tokens = np.flatnonzero(~lm.masks.ALL_TOKENS.bits)
        self._ends = np.array(sorted(lm.masks.EOS), dtype=np.int64)

    async def logw_next(self, context: Context) -> NDArray[np.float64]:
        row = await self.lm.next_token_logprobs([*self.prompt, *context])
        weights = np.empty(self.size + 1)
        np.divide(row, self.temp, out=weights[:-1])
        weights[self._no_tokens] = weights[EOS] = -np.inf
        weights -= self._log_total(row, weights)
        end = log_sum_exp(weights[self._ends])
        weights[self._ends] = -np.inf
        weights[EOS] = end
        return weights

    def _log_total(self, row: Row, weights: NDArray[np.float64]) -> float:
        """log(sum(exp(weights))); a row is normalised, so at temperature 1 only what is no token is missing."""
        if self.temp == 1:
            missing = float(np.exp(row[self._no_tokens], dtype=np.float64).sum())
            if missing < 0.5:  # else the difference would be rounded away
                return math.log1p(-missing)
        return log_sum_exp(weights)

    async def logw_eos(self, context: Context) -> float:
        return float((await self.logw_next(context))[EOS])

    async def prefix(self, context: Context) -> float:
        rows = await asyncio.gather(*(self.logw_next(context[:k]) for k in range(len(context))))
        return float(sum(row[t] for row, t in zip(rows, context, strict=True)))

    async def complete(self, context: Context) -> float:
        return await self.prefix(context) + await self.logw_eos(context)


class AutomatonPotential(Potential):
    """A constraint: 0 for texts that a token automaton accepts and for their beginnings, -inf for all others.

    Args:
        automaton: of `outlines_core`.   size: number of ids; default those of its vocabulary.
    """

    def __init__(self, automaton: Any, size: int | None = None) -> None:
        self.automaton = automaton
        self._n_ids = automaton.vocabulary.size
        self.size = self._n_ids if size is None else size
        self._words = oc.allocate_bitmask(1, self._n_ids).shape[1]
        self._ends = np.array(sorted(automaton.vocabulary.eos_token_ids), dtype=np.int64)

    def _state(self, context: Context) -> int:
        state: int = self.automaton.initial_state
        for token in context:
            state = oc.DEAD if token in self._ends else self.automaton.next_state(state, token)
            if state == oc.DEAD:
                break
        return state

    def min_tokens(self, context: Context) -> int:
        try:
            n: int = self.automaton.min_tokens_to_accept(self._state(context))
        except LimitExceededError:
            return 0  # too long a search
        return n

    async def prefix(self, context: Context) -> float:
        return 0.0 if self._state(context) != oc.DEAD else -math.inf

    async def complete(self, context: Context) -> float:
        state = self._state(context)
        return 0.0 if state != oc.DEAD and self.automaton.is_accepting(state) else -math.inf

    async def logw_next(self, context: Context) -> NDArray[np.float64]:
        state = self._state(context)
        self._possible(0.0 if state != oc.DEAD else -math.inf, context)
        words = np.zeros(self._words, dtype=np.int32)
        self.automaton.fill_mask(state, words)
        weights = np.full(self.size + 1, -np.inf)
        ids = unpack_ids(words)
        weights[ids[ids < self.size]] = 0.0
        weights[self._ends[self._ends < self.size]] = -np.inf
        weights[EOS] = 0.0 if self.automaton.is_accepting(state) else -np.inf
        return weights


class FunctionPotential(Potential):
    """Log-weights from functions, plain or async.

    Args:
        size: number of ids.
        complete: a complete text -> its log-weight; or a bool, True standing for 0 and False for -inf.
        prefix: the same for beginnings; by default nothing is said of them (0).
        decode: ids -> what the functions are given; by default the tuple of ids. Often ``lm.decode``.
    """

    def __init__(
        self,
        size: int,
        complete: Callable[[Any], Any],
        prefix: Callable[[Any], Any] | None = None,
        *,
        decode: Callable[[Context], Any] | None = None,
    ) -> None:
        self.size = size
        self._complete, self._prefix, self._decode = complete, prefix, decode

    async def _weight(self, function: Callable[[Any], Any], context: Context) -> float:
        value = function(context if self._decode is None else self._decode(context))
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, (bool, np.bool_)):
            return 0.0 if value else -math.inf
        weight = float(value)
        if not weight < math.inf:
            raise ValueError(f"a log-weight must be below +inf and not NaN, got {weight}")
        return weight

    async def prefix(self, context: Context) -> float:
        return 0.0 if self._prefix is None else await self._weight(self._prefix, context)

    async def complete(self, context: Context) -> float:
        return await self._weight(self._complete, context)


class Product(Potential):
    """Two potentials at once: log-weights add up.

    Raises:
        ValueError: they are over different numbers of ids.
    """

    def __init__(self, left: Potential, right: Potential) -> None:
        if left.size != right.size:
            raise ValueError(
                f"potentials over {left.size} and {right.size} ids do not multiply; an automaton can be widened to a "
                "model's padded ids: AutomatonPotential(automaton, size=lm.n_logits)"
            )
        self.left, self.right, self.size = left, right, left.size

    async def prefix(self, context: Context) -> float:
        first = await self.left.prefix(context)
        return first if first == -math.inf else first + await self.right.prefix(context)

    async def complete(self, context: Context) -> float:
        first = await self.left.complete(context)
        return first if first == -math.inf else first + await self.right.complete(context)

    async def logw_next(self, context: Context) -> NDArray[np.float64]:
        left, right = await asyncio.gather(self.left.logw_next(context), self.right.logw_next(context))
        weights: NDArray[np.float64] = left + right
        return weights

    async def logw_eos(self, context: Context) -> float:
        return await self.left.logw_eos(context) + await self.right.logw_eos(context)

    def min_tokens(self, context: Context) -> int:
        return max(self.left.min_tokens(context), self.right.min_tokens(context))


def as_potential(given: Any, size: int) -> Potential:
    """A potential as it is, a token automaton as one over `size` ids.  Raises TypeError for anything else."""
    if isinstance(given, Potential):
        return given
    if hasattr(given, "fill_mask") and hasattr(given, "is_accepting"):
        return AutomatonPotential(given, size)
    raise TypeError(f"neither a Potential nor a token automaton: {type(given).__name__}")


def byte_vocabulary() -> oc.Vocabulary:
    """Each byte a token of its own, EOS 256: automata over it are constraints on bytes (`SetSampler`)."""
    return oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)})
