"""One call of a generation loop: its rows, what has been said, and when a row ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch

from processors.generation._decoder import Decoder
from processors.generation._random import RowRandom
from processors.generation._stops import StopStrings
from processors.generation.config import GenerationConfig
from processors.generation.rules import Context, Pipeline

__all__ = ["Ends", "Output", "Run", "TokenEvent"]


class TokenEvent(TypedDict):
    """What a hook is told at each step, of all rows.

    Attributes:
        token_id: (n_rows,) int64: the new token; the pad token in rows that have ended before.
        finished: (n_rows,) bool: has the row ended, with this token or before?
        length: (n_rows,) int64: tokens generated, the end token included; it stays in rows that have ended.
    """

    token_id: torch.Tensor
    finished: torch.Tensor
    length: torch.Tensor


class Output(TypedDict):
    """What was generated.

    Attributes:
        token_ids: (n_rows, max_length - input_length) int64: new tokens, filled up with the pad token.
        length: (n_rows,) int64: new tokens, the end token included.
    """

    token_ids: torch.Tensor
    length: torch.Tensor


class Ends:
    """Which tokens end a row: end tokens, and those that complete a stop string."""

    def __init__(self, ids: Sequence[int], stops: StopStrings | None, device: torch.device) -> None:
        self.ids = tuple(ids)
        self._tensor = torch.tensor(self.ids, dtype=torch.int64, device=device)
        self._stops = stops

    def start(self, n_rows: int) -> list[int]:
        """How far rows have come in stop strings before the first token."""
        return [0] * n_rows

    def after(self, states: Sequence[int], tokens: torch.Tensor) -> tuple[Sequence[int], torch.Tensor]:
        """Follow a token a row.

        Args:
            states: one a row.   tokens: (n_rows,).

        Returns:
            The states behind the tokens, and (n_rows,) bool: does the row end?
        """
        ended = tokens == self.ids[0] if len(self.ids) == 1 else torch.isin(tokens, self._tensor)
        if self._stops is None:
            return states, ended
        steps = [self._stops.step(state, token) for state, token in zip(states, tokens.tolist(), strict=True)]
        complete = torch.tensor([length is not None for _, length in steps], device=tokens.device)
        return [state for state, _ in steps], ended | complete


@dataclass
class Run:
    """The rows of a call while it is under way.

    Attributes:
        make_pipeline: the logits processors for rows, which are as many as the strategy says.
    """

    config: GenerationConfig
    decoder: Decoder
    ctx: Context
    ends: Ends
    pad: int
    make_pipeline: Callable[[Context], Pipeline]
    random: RowRandom | None
    on_token: Callable[[TokenEvent], None] | None
    _length: torch.Tensor = field(init=False)  # of rows that have ended
    _n_finished: int = field(init=False)
    _stop_states: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        self._length = torch.zeros_like(self.ctx.sequences[:, 0])
        self._n_finished = int(self.ctx.finished.sum())
        self._stop_states = self.ends.start(self.ctx.sequences.shape[0])

    @property
    def length(self) -> torch.Tensor:
        """(n_rows,) int64: new tokens."""
        return torch.where(self.ctx.finished, self._length, self.ctx.length - self.ctx.input_length)

    def is_done(self) -> bool:
        """Have all rows ended?"""
        return self._n_finished == self.ctx.sequences.shape[0]

    def check(self, best: torch.Tensor) -> None:
        """Raise ValueError if a row that goes on has no token left: `best` (n_rows,) is the largest of its logits."""
        is_open = best > -math.inf  # NaN is not larger
        if is_open.all() or (is_open := is_open | self.ctx.finished).all():
            return
        row = int((~is_open).nonzero()[0])
        raise ValueError(
            f"row {row}: no token is left at position {self.ctx.length - self.ctx.input_length} of the text: the "
            "rules and logits processors contradict each other, or the model's logits are not numbers"
        )

    def append(self, tokens: torch.Tensor) -> None:
        """Write a token (n_rows,) to each row that has not ended, see which end, and call the hook."""
        ctx = self.ctx
        was = ctx.finished
        if self._n_finished:
            tokens = tokens.masked_fill(was, self.pad)
        ctx.sequences[:, ctx.length] = tokens
        ctx.length += 1
        self._stop_states, ended = self.ends.after(self._stop_states, tokens)
        ctx.finished = was | ended if ctx.length < ctx.max_length else torch.ones_like(was)
        n_finished = int(ctx.finished.sum())
        if n_finished != self._n_finished:
            self._length = torch.where(was, self._length, ctx.length - ctx.input_length)
            self._n_finished = n_finished
        if self.on_token is not None:
            self.on_token({"token_id": tokens.clone(), "finished": ctx.finished.clone(), "length": self.length})

    def output(self) -> Output:
        """What was said."""
        return {"token_ids": self.ctx.sequences[:, self.ctx.input_length :].clone(), "length": self.length}
