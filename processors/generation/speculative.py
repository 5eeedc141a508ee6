"""Speculative decoding under a guide, exact (Leviathan et al. 2023, *Fast inference from transformers via speculative
decoding*; Chen et al. 2023).

A small model drafts k tokens of each row, one after the other, from its own masked distribution q. The large model is
fed all of them in one pass and gives its masked distribution p at each place. A draft x is accepted with probability
min(1, p(x)/q(x)); the first that is not is replaced by a draw from max(p - q, 0), normalised; if all are accepted, one
more token is drawn from p. Then each token is distributed as p says, whatever q is: p and q are both masked by the
guide, so p is the distribution that sampling without a draft has.

Rows accept different numbers of drafts: what was rejected becomes holes. Random numbers are indexed by position, with
streams of their own for drafts, acceptance and replacement: what a rejected draft used at later positions has no effect
on what was kept, so it may be used again there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from outlines_core.errors import UnsupportedFeatureError
from processors.generation._forward import Forward
from processors.generation._loop import Batch, feed_rows, logprobs_of
from processors.generation._random import pick
from processors.generation.kv_cache import KeyValues

__all__ = ["Draft", "residual", "speculate"]

_DRAFT, _ACCEPT, _REPLACE = 1, 2, 3
"""Streams of random numbers; stream 0 draws without a draft."""


class Draft:
    """A draft model with its own cache.

    Attributes:
        n: how many tokens it drafts at a time.
    """

    def __init__(self, model: Any, n: int, target: Forward, n_rows: int) -> None:
        """Check that the two models go together.

        Raises:
            ValueError: they have different vocabularies.
            UnsupportedFeatureError: their caches cannot take tokens back, or cannot do so row by row.
        """
        self.n, self.forward = n, Forward(model)
        sizes = [f.kind.config.get_text_config(decoder=True).vocab_size for f in (target, self.forward)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"the draft model has {sizes[1]} token ids, the model {sizes[0]}: they must be the same")
        for forward in (target, self.forward):
            kind = forward.kind
            if not kind.is_columnar or (n_rows > 1 and not kind.allows_holes):
                raise UnsupportedFeatureError(
                    f"the cache of {type(forward.plain).__name__} cannot take drafts back"
                    + (" row by row: use batches of one" if kind.is_columnar else ""),
                    feature="draft_model",
                )


def residual(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """What a rejected draft is replaced from: max(p - q, 0), normalised; p itself where that is zero by rounding.

    Args:
        p, q: (n_rows, n_columns) distributions, float64.

    >>> residual(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.75, 0.0]]))
    tensor([[0.5000, 0.0000, 0.5000]])
    """
    rest = (p - q).clamp_(min=0)
    total = rest.sum(-1, keepdim=True)
    return torch.where(total > 0, rest / total.clamp(min=torch.finfo(rest.dtype).tiny), p)


class _Drafter:
    """The draft model beside the batch: it is fed what the rows have become, and drafts on."""

    def __init__(self, batch: Batch, draft: Draft, prompts: Sequence[Sequence[int]]) -> None:
        self._batch, self._draft = batch, draft
        self._past: KeyValues = draft.forward.new(len(prompts), 1)
        self._prompts = [list(prompt) for prompt in prompts]
        self._n_fed = [0] * len(prompts)  # of prompt and generated tokens

    def propose(self, live: Sequence[int], n: int) -> tuple[list[list[int]], list[torch.Tensor]]:
        """Draft `n` tokens of each live row.

        Returns:
            The drafts, and for each place the distributions they were drawn from, (len(live), n_columns) float64.
        """
        batch = self._batch
        states = list(batch.guides.states)
        n_tokens = [len(row.tokens) for row in batch.rows]
        drafts: list[list[int]] = [[] for _ in live]
        distributions: list[torch.Tensor] = []
        for place in range(n):
            due = {r: self._due(r) if place == 0 else [drafts[k][-1]] for k, r in enumerate(live)}
            logits = self._feed(due)[list(live)].float().to(batch.past.ids.device)
            q = batch.sampling.probs(batch.masked(logits, live)).double()
            positions = [batch.position(r) for r in live]
            tokens = pick(q, batch.random.uniforms(positions, live, stream=_DRAFT)).tolist()
            distributions.append(q)
            for k, (r, token) in enumerate(zip(live, tokens, strict=True)):
                drafts[k].append(token)
                batch.rows[r].tokens.append(token)
                batch.guides.advance(r, token)
        batch.guides.states = states
        for row, length in zip(batch.rows, n_tokens, strict=True):
            del row.tokens[length:]
        return drafts, distributions

    def keep(self, live: Sequence[int], counts: Sequence[int], n: int) -> None:
        """Take back all but the first drafts of each live row; the last of the n was never fed."""
        kept = [0] * len(self._prompts)
        for r, count in zip(live, counts, strict=True):
            kept[r] = min(count, n - 1)
            self._n_fed[r] += kept[r]
        _take_back(self._past, kept, n - 1)

    def _due(self, r: int) -> list[int]:
        due = [*self._prompts[r], *self._batch.rows[r].tokens][self._n_fed[r] :]
        self._n_fed[r] += len(due)
        return due

    def _feed(self, due: dict[int, list[int]]) -> torch.Tensor:
        rows = [due.get(r, []) for r in range(len(self._prompts))]
        self._past, logits = feed_rows(self._draft.forward, self._past, rows, self._batch.pad_id)
        return logits[:, -1]


def _take_back(past: KeyValues, counts: Sequence[int], width: int) -> None:
    """Of the last `width` columns, keep the first ``counts[r]`` of row r."""
    most = max(counts)
    past.truncate(past.length - width + most)
    if min(counts) < most:
        n = torch.tensor(counts, device=past.ids.device)[:, None]
        past.strike(torch.arange(most, device=past.ids.device) >= n)


def speculate(batch: Batch, draft: Draft, contexts: Sequence[Sequence[int]], logits: torch.Tensor) -> Iterator[None]:
    """Generate until all rows have ended; yields after each pass of the large model.

    Args:
        contexts: all tokens before the first generated one, of each row.
        logits: (n_rows, n_columns) that follow them.
    """
    live = batch.live()
    for r, token in zip(live, batch.choose(logits.float(), live).tolist(), strict=True):
        batch.take(r, token)
    yield
    drafter = _Drafter(batch, draft, contexts)
    while live := batch.live():
        n = min(draft.n, min(batch.left(r) for r in live) - 1)
        drafts, q = drafter.propose(live, n) if n else ([[] for _ in live], [])
        due = [[] if row.is_done else row.tokens[row.n_fed :] for row in batch.rows]
        for r, drafted in zip(live, drafts, strict=True):
            due[r] = [*due[r], *drafted]
        every = torch.arange(n + 1, device=batch.past.ids.device)
        raw = batch.feed(due, every)[live].float()
        _verify(batch, live, drafts, q, raw)
        kept = [0] * len(batch.rows)
        for r in live:
            row = batch.rows[r]
            kept[r] = min(n + 1, len(row.tokens) - 1 - row.n_fed)
            row.n_fed += kept[r]
        _take_back(batch.past, kept, n + 1)
        if n:
            drafter.keep(live, [kept[r] - 1 for r in live], n)
        yield


def _verify(
    batch: Batch, live: Sequence[int], drafts: Sequence[Sequence[int]], q: Sequence[torch.Tensor], raw: torch.Tensor
) -> None:
    """Append to each row the drafts that it accepts, and one token more.

    Args:
        drafts: n of each live row.   q: for each place the distributions they were drawn from.
        raw: (len(live), n + 1, n_columns) logits of the large model.
    """
    n = len(q)
    before = [len(batch.rows[r].tokens) for r in live]
    going = list(range(len(live)))  # rows all of whose drafts were accepted so far
    for place in range(n + 1):
        going = [k for k in going if not batch.rows[live[k]].is_done]
        if not going:
            break
        rows = [live[k] for k in going]
        p = batch.sampling.probs(batch.masked(raw[going, place], rows)).double()
        positions = [batch.position(r) for r in rows]
        accepts = [False] * len(rows)
        if place < n:
            drafted = torch.tensor([[drafts[k][place]] for k in going], device=p.device)
            mine = q[place][going]
            ratio = (p.gather(1, drafted) / mine.gather(1, drafted))[:, 0].tolist()
            accepts = [
                u < x for u, x in zip(batch.random.uniforms(positions, rows, stream=_ACCEPT), ratio, strict=True)
            ]
            p = residual(p, mine)
        others = pick(p, batch.random.uniforms(positions, rows, stream=_REPLACE)).tolist()
        for k, accept, other in zip(going, accepts, others, strict=True):
            batch.take(live[k], drafts[k][place] if accept else other)
        going = [k for k, accept in zip(going, accepts, strict=True) if accept]
    if batch.wants_logprobs:
        for k, r in enumerate(live):
            tokens = torch.tensor(batch.rows[r].tokens[before[k] :], device=raw.device)
            batch.rows[r].logprobs += logprobs_of(raw[k, : len(tokens)], tokens)
