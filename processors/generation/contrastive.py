"""Contrastive search (Su et al. 2022, *A contrastive framework for neural text generation*).

Of the k likeliest tokens v the one is chosen that maximises ::

    (1 - alpha) * p(v | text) - alpha * max over j of cos(h_v, h_j)

where h_j is the last layer's state at column j of the text (padding left out) and h_v that at v if v is appended. To
know the h_v, the k candidates are run side by side: each row stands k times in the decoder. The run also gives the
logits behind each candidate, so that a token costs one forward pass of k rows.

p is what the logits processors leave of the distribution: tokens of probability zero are no candidates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from processors.generation._run import Output, Run
from processors.generation.config import ContrastiveSearch

__all__ = ["contrastive_search"]


def contrastive_search(run: Run, strategy: ContrastiveSearch) -> Output:
    """One text a row."""
    ctx = run.ctx
    n_rows, max_length = ctx.sequences.shape
    rows = torch.arange(n_rows, device=ctx.sequences.device)
    pipeline = run.make_pipeline(ctx)
    if run.is_done():
        return run.output()
    step = run.decoder(ctx.ids)
    assert step.hidden is not None
    logits = step.logits
    k = min(strategy.top_k, logits.shape[1])
    states = step.hidden.new_zeros((n_rows, max_length, step.hidden.shape[2]))  # unit vectors
    states[:, : ctx.length] = F.normalize(step.hidden, dim=-1)
    counts = F.pad(ctx.prompt_mask, (0, max_length - ctx.input_length), value=True)
    while True:
        logits = pipeline(logits, ctx)
        run.check(logits.amax(1))
        probs, candidates = logits.softmax(1).topk(k)
        if ctx.length == ctx.input_length:
            run.decoder.select(rows.repeat_interleave(k))
        said = torch.cat([ctx.ids.repeat_interleave(k, 0), candidates.view(-1, 1)], 1)
        step = run.decoder(said)
        assert step.hidden is not None
        new = F.normalize(step.hidden[:, -1].view(n_rows, k, -1), dim=-1)
        alike = new @ states[:, : ctx.length].transpose(1, 2)  # (n_rows, k, length)
        alike = alike.masked_fill(~counts[:, None, : ctx.length], -1.0).amax(2)
        score = (1 - strategy.alpha) * probs - strategy.alpha * alike
        best = score.masked_fill(probs == 0, -torch.inf).argmax(1)
        states[:, ctx.length] = new[rows, best]
        run.append(candidates[rows, best])
        if run.is_done():
            return run.output()
        chosen = rows * k + best
        logits = step.logits[chosen]
        run.decoder.select(chosen.repeat_interleave(k))
