"""Distributions without state, to sample from and to observe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from processors.lm.causal import CachedCausalLM
from processors.lm.distribution import Distribution, choose, log_sum_exp
from processors.lm.tokens import Token, TokenSequence

__all__ = ["Bernoulli", "Geometric", "LogCategorical", "TokenCategorical", "Transformer"]


def _generator(rng: np.random.Generator | None) -> np.random.Generator:
    return np.random.default_rng() if rng is None else rng


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf


class Bernoulli(Distribution[bool]):
    """True with probability `p`."""

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability, not {p}")
        self.p = p

    async def sample(self, rng: np.random.Generator | None = None) -> tuple[bool, float]:
        value = bool(_generator(rng).random() < self.p)
        return value, await self.log_prob(value)

    async def log_prob(self, value: bool) -> float:
        return _log(self.p if value else 1 - self.p)


class Geometric(Distribution[int]):
    """Number of trials up to and including the first success: 1, 2, ..."""

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise ValueError(f"p must be in (0, 1], not {p}")
        self.p = p

    async def sample(self, rng: np.random.Generator | None = None) -> tuple[int, float]:
        value = int(_generator(rng).geometric(self.p))
        return value, await self.log_prob(value)

    async def log_prob(self, value: int) -> float:
        if value < 1 or value != int(value):
            return -math.inf
        return _log(self.p) + ((value - 1) * _log(1 - self.p) if value > 1 else 0.0)


class LogCategorical(Distribution[int]):
    """An index, in proportion to exp(logits).

    Raises:
        ValueError: no logit is finite, or one is NaN or +inf.
    """

    def __init__(self, logits: ArrayLike) -> None:
        given = np.asarray(logits, dtype=np.float64)
        total = log_sum_exp(given) if given.ndim == 1 else math.nan
        if not math.isfinite(total):
            raise ValueError("logits must be one-dimensional, with a finite maximum and no NaN")
        self.logprobs: NDArray[np.float64] = given - total

    async def sample(self, rng: np.random.Generator | None = None) -> tuple[int, float]:
        i = choose(self.logprobs, _generator(rng))
        return i, float(self.logprobs[i])

    async def log_prob(self, value: int) -> float:
        return float(self.logprobs[value]) if 0 <= value < len(self.logprobs) else -math.inf


class TokenCategorical(Distribution[Token]):
    """A token of a model, in proportion to exp(logits).

    Args:
        logits: (n,), n the width of the model's rows or the number of its vocabulary's ids.
    """

    def __init__(self, lm: CachedCausalLM, logits: ArrayLike) -> None:
        self.lm, self._ids = lm, LogCategorical(logits)
        n = len(self._ids.logprobs)
        if n not in (lm.n_logits, lm.vocabulary.size):
            raise ValueError(f"{n} logits for a model with {lm.n_logits} of them and {lm.vocabulary.size} ids")

    async def sample(self, rng: np.random.Generator | None = None) -> tuple[Token, float]:
        i, logprob = await self._ids.sample(rng)
        return Token(self.lm, i), logprob

    async def log_prob(self, value: Token | int) -> float:
        return await self._ids.log_prob(int(value))


class Transformer(Distribution[Token]):
    """The token after a prompt, at a temperature.

    Args:
        prompt: a text, a `TokenSequence` or ids.
    """

    def __init__(self, lm: CachedCausalLM, prompt: str | TokenSequence | Iterable[int], temp: float = 1.0) -> None:
        if not 0 < temp < math.inf:
            raise ValueError(f"temp must be positive and finite, not {temp}")
        self.lm, self.temp = lm, temp
        self._prompt: list[int] = lm.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]

    async def _logprobs(self) -> NDArray[Any]:
        row = (await self.lm.next_token_logprobs(self._prompt)).astype(np.float64) / self.temp
        row[~self.lm.masks.ALL_TOKENS.bits] = -np.inf
        return row - log_sum_exp(row)

    async def sample(self, rng: np.random.Generator | None = None) -> tuple[Token, float]:
        logprobs = await self._logprobs()
        i = choose(logprobs, _generator(rng))
        return Token(self.lm, i), float(logprobs[i])

    async def log_prob(self, value: Token | int) -> float:
        token_id = int(value)
        return float((await self._logprobs())[token_id]) if 0 <= token_id < self.lm.n_logits else -math.inf
