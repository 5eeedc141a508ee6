"""The decoding loop: choose a token for each live row, feed the model, until all rows have ended.

The device keeps ids and cache, the host keeps for each row what it has generated and whether it goes on. A row that has
ended is fed holes: they count for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from outlines_core.types import FINISHED
from processors.generation._forward import Forward
from processors.generation._guide_rows import GuideRows
from processors.generation._random import RowRandom, pick
from processors.generation._stops import StopStrings
from processors.generation.forced import pass_width
from processors.generation.kv_cache import KeyValues
from processors.generation.sampling import SamplingMethod

__all__ = ["Batch", "Row", "decode", "feed_rows", "logprobs_of"]


class Row:
    """What one row has generated.

    Attributes:
        tokens: all of them.
        logprobs: of the first so many of them, if they are wanted.
        n_fed: tokens of `tokens` that the model was fed.
        is_done: has it ended?
        cut: how many bytes of the last token belong to the text, None for all.
        stop: the state of the stop strings.
    """

    __slots__ = ("cut", "is_done", "logprobs", "n_fed", "stop", "tokens")

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.n_fed, self.stop, self.is_done = 0, 0, False
        self.cut: int | None = None


class Batch:
    """The rows of a call and all that decides about their tokens.

    Attributes:
        rows: one a prompt.
        past: the model's cache; another object after it was compacted.
    """

    def __init__(
        self,
        forward: Forward,
        past: KeyValues,
        guides: GuideRows,
        sampling: SamplingMethod,
        random: RowRandom,
        n_drawn: Sequence[int],
        *,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        stops: StopStrings | None,
        pad_id: int,
        processors: Sequence[Callable[..., Any]] = (),
        wants_logprobs: bool = False,
    ) -> None:
        """Begin with nothing generated; the prompts are in `past`."""
        self.forward, self.past, self.guides, self.sampling = forward, past, guides, sampling
        self.random, self.n_drawn = random, tuple(n_drawn)
        self.max_new_tokens, self.stop_ids, self.stops, self.pad_id = max_new_tokens, stop_ids, stops, pad_id
        self.processors, self.wants_logprobs = tuple(processors), wants_logprobs
        self.rows = [Row() for _ in n_drawn]

    def live(self) -> list[int]:
        """The rows that go on."""
        return [r for r, row in enumerate(self.rows) if not row.is_done]

    def left(self, row: int) -> int:
        """How many tokens a row may still generate."""
        return self.max_new_tokens - len(self.rows[row].tokens)

    def position(self, row: int) -> int:
        """The position of a row's next token in its random numbers."""
        return self.n_drawn[row] + len(self.rows[row].tokens)

    @torch.no_grad()
    def masked(self, logits: torch.Tensor, live: Sequence[int]) -> torch.Tensor:
        """The logits that the sampling method gets: masks, then the user's processors, which lift no mask.

        Args:
            logits: (len(live), n_columns) float32 of the model.
        """
        left = [self.left(r) for r in live]
        masked = self.guides.mask(logits, live, left)
        if self.processors:
            ids = self.past.ids[torch.tensor(live, device=logits.device), : self.past.length]
            for processor in self.processors:
                masked = processor(ids, masked)
            masked = self.guides.mask(masked, live, left)
        return masked

    @torch.no_grad()
    def choose(self, logits: torch.Tensor, live: Sequence[int]) -> torch.Tensor:
        """The next token of each live row.

        Args:
            logits: (len(live), n_columns) float32.

        Returns:
            (len(live),) int64.

        Raises:
            GuideError: a row in which nothing is left.
        """
        masked = self.masked(logits, live)
        if self.sampling.is_greedy:
            chosen = masked.argmax(-1)
        else:
            positions = [self.position(r) for r in live]
            chosen = pick(self.sampling.probs(masked), self.random.uniforms(positions, live))
        if self.wants_logprobs:
            for r, logprob in zip(live, logprobs_of(logits, chosen), strict=True):
                self.rows[r].logprobs.append(logprob)
        return chosen

    def take(self, r: int, token: int) -> None:
        """Append a token to a row, and see whether it ends there."""
        row = self.rows[r]
        row.tokens.append(token)
        self.guides.advance(r, token)
        if token in self.stop_ids or self.guides.states[r] == FINISHED:
            row.is_done = True
        elif self.stops is not None:
            row.stop, row.cut = self.stops.step(row.stop, token)
            row.is_done = row.cut is not None
        if len(row.tokens) == self.max_new_tokens:
            row.is_done = True

    def feed(self, rows: Sequence[Sequence[int]], columns: torch.Tensor | None = None) -> torch.Tensor:
        """Feed some tokens to each row; see `feed_rows`."""
        self.past, logits = feed_rows(self.forward, self.past, rows, self.pad_id, columns)
        return logits


def with_room(past: KeyValues, width: int) -> KeyValues:
    """The cache, compacted if there is no room for so many columns, and larger if need be."""
    if past.length + width <= past.room:
        return past
    needed = int(past.lengths.max()) + width
    return past.copy(past.room if needed <= past.room else needed + needed // 2)


def feed_rows(
    forward: Forward, past: KeyValues, rows: Sequence[Sequence[int]], pad_id: int, columns: torch.Tensor | None = None
) -> tuple[KeyValues, torch.Tensor]:
    """Feed some tokens to each row, padded at the left.

    Returns:
        The cache, as of `with_room`, and the logits as of `Forward.feed`.
    """
    width = max(map(len, rows))
    past = with_room(past, width)
    padded = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    ids = torch.tensor(padded, device=past.ids.device)
    valid = None
    if min(map(len, rows)) < width:
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        valid = torch.arange(width, device=ids.device) >= width - lengths[:, None]
    return past, forward.feed(past, ids, valid, columns=columns)


def decode(batch: Batch, logits: torch.Tensor, forced: Callable[[int], Sequence[int]] | None = None) -> Iterator[None]:
    """Generate until all rows have ended; yields after each pass, when `batch.rows` have grown.

    Args:
        logits: (n_rows, n_columns) that follow the prompts.
        forced: the tokens that must come next in a row; None: they are not looked for.
    """
    rows, guides = batch.rows, batch.guides
    while True:
        live = batch.live()
        some = logits if len(live) == len(rows) else logits[torch.tensor(live, device=logits.device)]
        chosen = batch.choose(some.float(), live)
        for r, token in zip(live, chosen.tolist(), strict=True):
            batch.take(r, token)
        live = batch.live()
        width = 1
        if forced is not None and guides.sources is not None and live:
            # on a CPU, the first hole costs more than it saves: attention without a mask is faster
            past = batch.past
            equal = not past.kind.allows_holes or (past.is_plain and past.ids.device.type == "cpu")
            equal = equal and len(rows) > 1
            chains: dict[int, Sequence[int]] = {}
            for r in live:
                chains[r] = forced(r)[: batch.left(r)]
                if equal and not chains[r]:
                    break  # one row without is enough
            width = pass_width([len(chain) for chain in chains.values()], equal=equal)
            for r, chain in chains.items():
                for token in chain[: width - 1]:
                    if not rows[r].is_done:
                        batch.take(r, token)
        is_over = not batch.live()
        if not is_over and not batch.wants_logprobs:
            yield  # what is known is shown before the next pass
        if width == 1 and len(live) == len(rows):
            logits = _feed_column(batch, chosen)
        else:
            due = [_due(batch, row) for row in rows]
            if any(due):
                logits = _feed(batch, due)
        if is_over or batch.wants_logprobs:
            yield
        if is_over:
            return


def _due(batch: Batch, row: Row) -> Sequence[int]:
    """What a row is fed next: all it has, or, if it has ended, what its log-probabilities still need."""
    if not row.is_done:
        return row.tokens[row.n_fed :]
    n_known = len(row.logprobs)
    return row.tokens[row.n_fed : -1] if batch.wants_logprobs and n_known < len(row.tokens) else ()


def _feed_column(batch: Batch, chosen: torch.Tensor) -> torch.Tensor:
    """`_feed` for one token of each row, which never left the device."""
    batch.past = with_room(batch.past, 1)
    logits = batch.forward.feed(batch.past, chosen[:, None])
    for row in batch.rows:
        row.n_fed += 1
    return logits[:, -1]


def _feed(batch: Batch, due: Sequence[Sequence[int]]) -> torch.Tensor:
    """Feed the rows, take note of the log-probabilities of forced tokens, and return the logits of the last column."""
    width = max(map(len, due))
    device = batch.past.ids.device
    every = torch.arange(width, device=device) if batch.wants_logprobs and width > 1 else None
    logits = batch.feed(due, every)
    for r, (row, fed) in enumerate(zip(batch.rows, due, strict=True)):
        row.n_fed += len(fed)
        known = len(row.logprobs)
        if every is not None and fed and known < len(row.tokens):
            follow = torch.tensor(row.tokens[known:], device=device)
            first = width - len(fed)
            row.logprobs += logprobs_of(logits[r, first : first + len(follow)].float(), follow)
    return logits[:, -1]


def logprobs_of(logits: torch.Tensor, tokens: torch.Tensor) -> list[float]:
    """The log-probability of one token in each row of logits."""
    chosen = logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
    values: list[float] = chosen.tolist()
    return values
