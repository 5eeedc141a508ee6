"""One call of a sampler on one device: checked and laid out before any computation, then run step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from outlines_core.errors import UnsupportedFeatureError
from processors.generation._forward import Forward
from processors.generation._loop import Batch, Row, decode
from processors.generation._prompts import Prompts
from processors.generation.kv_cache import KeyValues
from processors.generation.sampling import SamplingMethod
from processors.generation.speculative import Draft, speculate
from processors.generation.state import SamplingState
from processors.generation.streaming import TextStream

__all__ = ["Call", "Layout", "Request", "plan"]


@dataclass(frozen=True)
class Request:
    """What a user asked for, with the defaults filled in; prompts, guides and seeds have one entry a row.

    Seeds are None if those of the state go on.
    """

    prompts: Sequence[Any]
    images: Any
    guides: Sequence[Any]
    seeds: Sequence[int] | None
    state: SamplingState | None
    max_new_tokens: int | None
    sampling: SamplingMethod
    close: bool
    start_after: int | str | None
    processors: Sequence[Callable[..., Any]]
    wants_logprobs: bool


@dataclass(frozen=True)
class Layout:
    """How the prompts of a call go into the cache.

    Attributes:
        rows: what each row is fed: what was pending, then its prompt.
        width: of the first pass; shorter rows are padded.
        pad_left: on which side.
        room: columns of the cache.
        max_new_tokens: how many tokens each row may generate.
    """

    rows: list[list[int]]
    width: int
    pad_left: bool
    room: int
    max_new_tokens: int


def plan(
    forward: Forward,
    rows: Sequence[Sequence[int]],
    state: SamplingState | None,
    *,
    cache_length: int,
    max_new_tokens: int | None,
    max_out_length: int,
    buckets: Sequence[int],
) -> Layout:
    """Lay the rows out.

    Raises:
        ValueError: they do not fit, or are not as many as those of `state`.
        UnsupportedFeatureError: a cache that cannot continue rows of different lengths.
    """
    fed = [0] * len(rows)
    chunks = [list(row) for row in rows]
    if state is not None:
        if state.past is None or state.n_rows != len(rows):
            raise ValueError(
                f"last_state is of {state.n_rows} rows{'' if state.past else ' on several devices'}, this call has "
                f"{len(rows)} on one"
            )
        fed = state.past.lengths.tolist()
        chunks = [[*pending, *row] for pending, row in zip(state.pending, chunks, strict=True)]
    longest = max(n + len(chunk) for n, chunk in zip(fed, chunks, strict=True))
    limit = min(cache_length, forward.kind.max_positions or cache_length)
    name = f"cache_length={cache_length}" if limit == cache_length else f"the model's {limit} positions"
    if longest + (max_new_tokens or 1) > limit:
        raise ValueError(
            f"the longest context has {longest} tokens: with {max_new_tokens or 'at least 1'} new ones it does not fit "
            f"into {name}"
        )
    n_new = min(max_out_length, limit - longest) if max_new_tokens is None else max_new_tokens
    width = max(map(len, chunks))
    if forward.is_compiled:
        width = min((b for b in buckets if b >= width and max(fed) + b + n_new <= cache_length), default=width)
    is_ragged = any(len(chunk) != width for chunk in chunks)
    if state is not None and not forward.kind.is_columnar and (is_ragged or not state.past.is_plain):  # type: ignore[union-attr]
        raise UnsupportedFeatureError(
            f"the cache of {type(forward.plain).__name__} can only be appended to: rows that were padded, ended at "
            "different times, or go on with prompts of different lengths, are to be sampled one by one",
            feature="cache",
        )
    room = cache_length if forward.is_compiled else (max(fed) if state is not None else 0) + width + n_new
    return Layout(chunks, width, state is None or forward.kind.allows_holes, room, n_new)


class Call:
    """A call that is ready to run.

    Attributes:
        rows: what was generated so far, a row a prompt.
    """

    def __init__(
        self,
        forward: Forward,
        layout: Layout,
        prompts: Prompts,
        state: SamplingState | None,
        make_batch: Callable[[KeyValues], Batch],
        forced: Callable[[Batch, int], Sequence[int]] | None,
        draft: Draft | None,
        token_bytes: Callable[[int], bytes],
    ) -> None:
        """Nothing is computed yet but the copy of the state's cache."""
        self._forward, self._layout, self._prompts = forward, layout, prompts
        n_rows = len(layout.rows)
        past = forward.new(n_rows, layout.room) if state is None or state.past is None else state.past.copy(layout.room)
        self._contexts = [[*old, *row] for old, row in zip(past.tokens(), layout.rows, strict=True)] if draft else []
        self.batch = make_batch(past)
        self._forced, self._draft = forced, draft
        self._streams = [TextStream(token_bytes) for _ in range(n_rows)]
        self._n_shown = [0] * n_rows

    @property
    def model(self) -> Any:
        return self._forward.model

    @property
    def rows(self) -> list[Row]:
        return self.batch.rows

    def steps(self) -> Iterator[None]:
        """Run; yields after each pass."""
        logits = self._prefill()
        if self._draft is not None:
            yield from speculate(self.batch, self._draft, self._contexts, logits)
            return
        forced = self._forced
        yield from decode(self.batch, logits, None if forced is None else lambda r: forced(self.batch, r))

    def _prefill(self) -> torch.Tensor:
        """Feed the prompts; (n_rows, n_columns) logits that follow them."""
        layout, batch, device = self._layout, self.batch, self._forward.device
        width, rows = layout.width, layout.rows
        pads = [width - len(row) for row in rows]
        pad = batch.pad_id

        def laid(row: Sequence[int], n: int) -> list[int]:
            return [pad] * n + list(row) if layout.pad_left else list(row) + [pad] * n

        ids = torch.tensor([laid(row, n) for row, n in zip(rows, pads, strict=True)], device=device)
        valid = columns = None
        if any(pads):
            at = torch.arange(width, device=device)
            n = torch.tensor(pads, device=device)[:, None]
            valid = at >= n if layout.pad_left else at < width - n
        last = [width - 1 if layout.pad_left else len(row) - 1 for row in rows]
        asked = sorted(set(last))
        if asked != [width - 1]:
            columns = torch.tensor(asked, device=device)
        extra = {name: self._on_device(value) for name, value in self._prompts.extra.items()}
        for name, values in self._prompts.per_token.items():
            extra[name] = self._per_token(values, width)
        logits = self._forward.feed(batch.past, ids, valid, columns=columns, extra=extra)
        if not layout.pad_left and any(pads):
            batch.past = batch.past.copy(layout.room)
        chosen: torch.Tensor = logits[torch.arange(len(rows), device=device), [asked.index(k) for k in last]]
        return chosen

    def _on_device(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(self._forward.device, self._forward.plain.dtype if value.is_floating_point() else None)

    def _per_token(self, values: Sequence[torch.Tensor], width: int) -> torch.Tensor:
        """Inputs with one entry a token, laid out as the ids are; 0 at the padding and at what was pending."""
        laid = values[0].new_zeros((len(values), width, *values[0].shape[1:]))
        for r, (value, row) in enumerate(zip(values, self._layout.rows, strict=True)):
            end = width if self._layout.pad_left else len(row)
            laid[r, end - value.shape[0] : end] = value
        return laid.to(self._forward.device)

    def new_tokens(self) -> list[list[int]]:
        """The tokens of each row that were generated since this was last asked."""
        new = [row.tokens[n:] for row, n in zip(self.rows, self._n_shown, strict=True)]
        self._n_shown = [len(row.tokens) for row in self.rows]
        return new

    def pieces(self, new: Sequence[Sequence[int]]) -> list[str]:
        """The text that new tokens complete in each row."""
        return [
            stream.push(tokens, is_last=row.is_done, cut=row.cut)
            for stream, tokens, row in zip(self._streams, new, self.rows, strict=True)
        ]

    def state(self) -> SamplingState:
        """Where the rows stand."""
        batch = self.batch
        return SamplingState(
            batch.past,
            tuple(tuple(row.tokens[row.n_fed :]) for row in batch.rows),
            batch.random.seeds,
            tuple(batch.position(r) for r in range(len(batch.rows))),
        )
