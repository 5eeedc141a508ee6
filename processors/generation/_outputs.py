"""From rows of tokens to what a user gets: whole, or pass by pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

from processors.generation._loop import Row
from processors.generation.state import SamplerOutput, SamplingState, padded
from processors.generation.streaming import text_of

__all__ = ["Running", "streamed", "whole"]


class Running(Protocol):
    """A call under way, on one device or on several."""

    @property
    def rows(self) -> Sequence[Row]: ...
    def steps(self) -> Iterator[None]: ...
    def new_tokens(self) -> list[list[int]]: ...
    def pieces(self, new: Sequence[Sequence[int]]) -> list[str]: ...
    def state(self) -> SamplingState: ...


def whole(call: Running, token_bytes: Callable[[int], bytes], pad_id: int, *, is_single: bool) -> SamplerOutput:
    """Run a call to its end."""
    for _ in call.steps():
        pass
    texts = [text_of(row.tokens, token_bytes, row.cut) for row in call.rows]
    tokens, logprobs = [row.tokens for row in call.rows], [row.logprobs for row in call.rows]
    return _output(texts, tokens, logprobs, call.state(), pad_id, is_single=is_single)


def streamed(call: Running, pad_id: int, *, is_single: bool) -> Iterator[SamplerOutput]:
    """Run a call, and give after each pass what is new."""
    n_logprobs = [0] * len(call.rows)
    for _ in call.steps():
        new = call.new_tokens()
        logprobs = [row.logprobs[n:] for row, n in zip(call.rows, n_logprobs, strict=True)]
        n_logprobs = [len(row.logprobs) for row in call.rows]
        state = call.state() if all(row.is_done for row in call.rows) else None
        yield _output(call.pieces(new), new, logprobs, state, pad_id, is_single=is_single)


def _output(
    texts: list[str],
    tokens: Sequence[Sequence[int]],
    logprobs: Sequence[Sequence[float]],
    state: SamplingState | None,
    pad_id: int,
    *,
    is_single: bool,
) -> SamplerOutput:
    ids, lps = padded(tokens, pad_id, torch.int64), padded(logprobs, 0.0, torch.float32)
    lengths = tuple(map(len, tokens))
    if is_single:
        return SamplerOutput(texts[0], state, ids[0], lps[0], lengths)
    return SamplerOutput(texts, state, ids, lps, lengths)
