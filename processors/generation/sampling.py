"""Sampling methods: what distribution the next token is drawn from, given the logits.

The order is fixed: the guide's mask first (-inf in the logits), then temperature, then truncation. So a truncation
chooses among the tokens that may come, and what is drawn follows exactly the distribution that `probs` returns.

Ties are resolved by id, lower ids first, as `argmax` does: `TopkSampling(k=1)` is `Greedy` on every input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from processors.generation._random import RowRandom, Seeds, pick, row_seeds

__all__ = [
    "Greedy",
    "MinPSampling",
    "RandomSampling",
    "SamplingMethod",
    "TopPSampling",
    "TopkSampling",
]

_FIRST = 512
"""How many of the likeliest tokens a nucleus is looked for in, before all are sorted."""


class SamplingMethod(ABC):
    """Logits -> the distribution of the next token."""

    @property
    @abstractmethod
    def is_greedy(self) -> bool:
        """Is the whole distribution always on the likeliest token?"""

    @abstractmethod
    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """The distribution that tokens are drawn from.

        Args:
            logits: (n_rows, n_columns) of floats, -inf where a token may not come; each row has a finite one.

        Returns:
            (n_rows, n_columns), float32 (float64 for float64), rows with a sum of 1.
        """

    def get_next_tokens(self, logits: torch.Tensor, rng: Seeds | RowRandom = None) -> torch.Tensor:
        """Draw one token for each row.

        Args:
            logits: (..., n_columns), as for `probs`.
            rng: see `row_seeds`; each row uses number 0 of its stream.

        Returns:
            (...) int64.

        >>> Greedy().get_next_tokens(torch.tensor([0.0, 2.0, 2.0]))
        tensor(1)
        """
        rows = logits.reshape(-1, logits.shape[-1])
        if self.is_greedy:
            return rows.argmax(-1).reshape(logits.shape[:-1])
        n_rows = rows.shape[0]
        random = rng if isinstance(rng, RowRandom) else RowRandom(row_seeds(rng, n_rows))
        return pick(self.probs(rows), random.uniforms([0] * n_rows)).reshape(logits.shape[:-1])


@dataclass(frozen=True, kw_only=True)
class Greedy(SamplingMethod):
    """Always the likeliest token; the first of several."""

    @property
    def is_greedy(self) -> bool:
        return True

    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """See `SamplingMethod.probs`: 1 at the likeliest token."""
        return _likeliest(logits)


@dataclass(frozen=True, kw_only=True)
class RandomSampling(SamplingMethod):
    """The model's own distribution.

    Attributes:
        temperature: the logits are divided by it; 0 is greedy.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 (greedy) or positive and finite, not {self.temperature}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """See `SamplingMethod.probs`."""
        return _likeliest(logits) if self.is_greedy else self._truncated(_softmax(logits, self.temperature))

    def _truncated(self, probs: torch.Tensor) -> torch.Tensor:
        return probs


@dataclass(frozen=True, kw_only=True)
class TopkSampling(RandomSampling):
    """The k likeliest tokens, exactly k if so many may come.

    Attributes:
        k: how many.
    """

    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")

    @property
    def is_greedy(self) -> bool:
        return self.k == 1 or super().is_greedy

    def _truncated(self, probs: torch.Tensor) -> torch.Tensor:
        if self.k >= probs.shape[-1]:
            return probs
        likeliest = probs.topk(self.k, dim=-1).values
        return _keep(probs, likeliest[:, -1:], torch.full_like(likeliest[:, :1], self.k, dtype=torch.int64), likeliest)


@dataclass(frozen=True, kw_only=True)
class TopPSampling(RandomSampling):
    """The smallest set of likeliest tokens whose probability reaches p (nucleus sampling, Holtzman et al. 2020).

    Attributes:
        p: 1 keeps every token.
    """

    p: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.p <= 1:
            raise ValueError(f"p must lie in (0, 1], not {self.p}")

    def _truncated(self, probs: torch.Tensor) -> torch.Tensor:
        if self.p == 1:
            return probs
        likeliest = probs.topk(min(_FIRST, probs.shape[-1]), dim=-1).values
        if likeliest.shape[-1] < probs.shape[-1] and bool((likeliest.double().sum(-1) < self.p).any()):
            likeliest = probs.sort(dim=-1, descending=True).values
        before = likeliest.double().cumsum(-1) - likeliest
        n_kept = (before < self.p).sum(-1, keepdim=True)
        return _keep(probs, likeliest.gather(-1, n_kept - 1), n_kept, likeliest)


@dataclass(frozen=True, kw_only=True)
class MinPSampling(RandomSampling):
    """The tokens whose probability is at least p times that of the likeliest (Nguyen et al. 2024).

    Attributes:
        p: 0 keeps every token, 1 the likeliest and its equals.
    """

    p: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must lie in [0, 1], not {self.p}")

    def _truncated(self, probs: torch.Tensor) -> torch.Tensor:
        return _normalised(probs * (probs >= self.p * probs.amax(-1, keepdim=True)))


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    ones = torch.zeros_like(logits, dtype=torch.promote_types(logits.dtype, torch.float32))
    return ones.scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)


def _softmax(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1:  # the largest becomes 0 first: small temperatures must not overflow
        wide = (wide - wide.amax(-1, keepdim=True)) / temperature
    return wide.softmax(-1)


def _keep(probs: torch.Tensor, least: torch.Tensor, n_kept: torch.Tensor, likeliest: torch.Tensor) -> torch.Tensor:
    """The `n_kept` likeliest tokens of each row.

    Args:
        probs: (n_rows, n_columns).   least: (n_rows, 1), the probability of the last one kept.   n_kept: (n_rows, 1).
        likeliest: (n_rows, m), the largest probabilities, at least those kept.
    """
    tied = probs == least
    n_tied = n_kept - (likeliest > least).sum(-1, keepdim=True)  # how many of those with the least probability
    return _normalised(probs * ((probs > least) | (tied & (tied.cumsum(-1) <= n_tied))))


def _normalised(probs: torch.Tensor) -> torch.Tensor:
    return probs / probs.sum(-1, keepdim=True)
