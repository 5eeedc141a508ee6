"""What a call of a sampler returns: the text with its tokens, and the state that another call continues.

A state is a value: continuing it copies its cache, so the same state may be continued many times, by different prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from processors.generation.kv_cache import KeyValues

__all__ = ["SamplerOutput", "SamplingState"]


@dataclass(frozen=True, eq=False)
class SamplingState:
    """Where a batch of texts stands, to be continued by `last_state=`.

    Attributes:
        past: the cache, with the tokens it was fed. Not to be written to.
        pending: for each row the last tokens, which the model was not fed yet.
        seeds: of the rows' random numbers.
        n_drawn: for each row how many of these its earlier turns have used up.
        parts: of a batch split over a device list, the state of each part instead (`past` is None then).
    """

    past: KeyValues | None
    pending: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]
    n_drawn: tuple[int, ...]
    parts: tuple[SamplingState, ...] = ()

    @property
    def n_rows(self) -> int:
        """Rows of the batch (of this process, if a `DeviceMesh` splits it)."""
        return len(self.seeds)

    @property
    def used_cache_length(self) -> int:
        """Columns of the cache in use."""
        return (
            max((part.used_cache_length for part in self.parts), default=0) if self.past is None else self.past.length
        )

    def tokens(self) -> list[list[int]]:
        """The whole context of each row: prompts and answers of all turns."""
        if self.past is None:
            return [row for part in self.parts for row in part.tokens()]
        return [row + list(pending) for row, pending in zip(self.past.tokens(), self.pending, strict=True)]

    def keep(self, n_tokens: int) -> SamplingState:
        """The state of a single row after the first tokens of its context.

        Args:
            n_tokens: at least 1; the last of them becomes pending.

        Raises:
            ValueError: not one row, or a number out of range.
        """
        if self.past is None or self.n_rows != 1 or not 0 < n_tokens <= len(self.tokens()[0]):
            raise ValueError(f"{n_tokens} tokens cannot be kept of {self.n_rows} rows")
        tokens = self.tokens()[0]
        past = self.past.copy(max(1, self.past.length))
        n_fed = min(past.length, n_tokens - 1)
        past.truncate(n_fed)
        return SamplingState(past, (tuple(tokens[n_fed:n_tokens]),), self.seeds, self.n_drawn)


@dataclass(frozen=True, eq=False)
class SamplerOutput:
    """What was generated.

    Attributes:
        text: of one prompt, or one a prompt.
        state: to continue from. In a stream, None but in the last item.
        tokens: (n,) int64 for one prompt, else (n_rows, n), filled up with the padding id; the token that ended a row
            included.
        logprobs: of the same shape, float32: the log-probability that the model itself gives each token, before masks,
            temperature and truncation; 0 at the padding.
        lengths: for each row the number of its tokens.
    """

    text: str | list[str]
    state: SamplingState | None
    tokens: torch.Tensor
    logprobs: torch.Tensor
    lengths: tuple[int, ...]


def padded(rows: Sequence[Sequence[float]], fill: float, dtype: torch.dtype) -> torch.Tensor:
    """Rows of different lengths as one tensor, filled up at the right."""
    width = max(map(len, rows), default=0)
    return torch.tensor([[*row, *([fill] * (width - len(row)))] for row in rows], dtype=dtype).reshape(len(rows), width)
