"""Distributions: what a probabilistic program samples from, observes and intervenes on.

A distribution over values of a process, such as a context's next token, *advances* the process when it is sampled,
observed or intervened on. Asking for a probability never does.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Distribution", "choose", "draw_at", "log_sum_exp"]

T = TypeVar("T")


class Distribution(ABC, Generic[T]):
    """A distribution.  `sample` and `log_prob` make one without state."""

    @abstractmethod
    async def sample(self, rng: np.random.Generator | None = None) -> tuple[T, float]:
        """A value and its log-probability.

        Args:
            rng: where the randomness comes from; without one the draw cannot be repeated.
        """

    @abstractmethod
    async def log_prob(self, value: T) -> float:
        """The log-probability of a value, -inf if it is impossible.  Changes nothing."""

    async def observe(self, value: T) -> float:
        """Go on as if `value` had been drawn; its log-probability."""
        return await self.log_prob(value)

    async def intervene(self, value: T) -> bool:
        """Go on with `value` whatever its probability; False if nothing can follow it."""
        del value
        return True


def log_sum_exp(values: NDArray[Any]) -> float:
    """log(sum(exp(values))) in float64; -inf for no values and for values that are all -inf.

    >>> log_sum_exp(np.array([])), round(log_sum_exp(np.log([0.25, 0.5])), 4)
    (-inf, -0.2877)
    """
    top = float(values.max(initial=-np.inf))
    if not math.isfinite(top):
        return top
    return top + math.log(np.exp(values - top, dtype=np.float64).sum())


def choose(log_weights: NDArray[Any], rng: np.random.Generator) -> int:
    """An index drawn in proportion to the weights; never one of weight 0.

    Raises:
        ValueError: no weight is positive.
    """
    top = float(log_weights.max(initial=-np.inf))
    if not math.isfinite(top):
        raise ValueError("nothing to choose from: every weight is zero, or one is not finite")
    return draw_at(np.exp(log_weights - top, dtype=np.float64).cumsum(), rng)


def draw_at(sums: NDArray[np.float64], rng: np.random.Generator) -> int:
    """An index drawn in proportion to weights that are given by their sums up to each."""
    k = int(sums.searchsorted(rng.random() * sums[-1], side="right"))
    return k if k < len(sums) else int(sums.searchsorted(sums[-1]))  # rounded up to the total
