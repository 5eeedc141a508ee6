"""Which particles go on: n ancestors drawn from n weights, each in proportion to its weight on average.

All schemes are unbiased: ancestor i is chosen n w_i times on average. They differ in variance (Douc, Cappé & Moulines
2005, *Comparison of resampling schemes for particle filtering*): residual and stratified never have more than
multinomial resampling; systematic uses one random number and has no such guarantee, but is often the best.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["RESAMPLING", "multinomial", "residual", "stratified", "systematic"]

Weights = NDArray[np.float64]
Ancestors = NDArray[np.int64]


def _at(weights: Weights, positions: NDArray[np.float64]) -> Ancestors:
    """Where positions in [0, 1) fall among the weights; never on a weight of 0."""
    sums = np.cumsum(weights)
    found = np.searchsorted(sums, positions * sums[-1], side="right")
    last = np.searchsorted(sums, sums[-1], side="left")  # rounding up to the total
    ancestors: Ancestors = np.minimum(found, last).astype(np.int64)
    return ancestors


def multinomial(weights: Weights, rng: np.random.Generator) -> Ancestors:
    """Independent draws."""
    return _at(weights, rng.random(len(weights)))


def stratified(weights: Weights, rng: np.random.Generator) -> Ancestors:
    """One draw in each n-th of the interval."""
    n = len(weights)
    return _at(weights, (np.arange(n) + rng.random(n)) / n)


def systematic(weights: Weights, rng: np.random.Generator) -> Ancestors:
    """A grid with one random offset."""
    n = len(weights)
    return _at(weights, (np.arange(n) + rng.random()) / n)


def residual(weights: Weights, rng: np.random.Generator) -> Ancestors:
    """floor(n w) copies of each, the rest by independent draws from what is left over."""
    n = len(weights)
    share = n * weights / weights.sum()
    copies = np.floor(share).astype(np.int64)
    kept = np.repeat(np.arange(n, dtype=np.int64), copies)
    rest = n - len(kept)
    if rest <= 0:  # rounding up may give one too many
        return kept[:n]
    return np.concatenate([kept, _at(share - copies, rng.random(rest))])


RESAMPLING: dict[str, Callable[[Weights, np.random.Generator], Ancestors]] = {
    "multinomial": multinomial,
    "residual": residual,
    "stratified": stratified,
    "systematic": systematic,
}
"""Schemes by name: (n,) weights, normalised or not, not all 0 -> (n,) indices."""
