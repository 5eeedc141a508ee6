"""Beam search as transformers does it: the same candidates, scores and rules for stopping, hence the same texts.

`num_beams` texts of each row are followed. At each step all their continuations compete; of the best (enough of them
that `num_beams` go on even if the others end), those that end are kept apart with their score, the log probability
divided by the length to the power of `length_penalty`, and the others are the beams of the next step.

What follows a text is the pad token, always: transformers takes a pad token 0 for none and fills up with end tokens.

The prompt is run once a row, and its cache repeated. -1e9 stands for "not to be chosen" as in transformers: duplicates
of the first beam at the start, rows that have stopped. A score below it belongs to no text.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from outlines_core.errors import GuideError
from processors.generation._run import Output, Run
from processors.generation.config import BeamSearch
from processors.generation.rules import Context

__all__ = ["beam_search"]

_NEVER = -1.0e9


class _Texts(NamedTuple):
    """Finished texts, the best first.

    Attributes:
        sequences: (n_rows, num_beams, max_length).   scores: (n_rows, num_beams).
        lengths: (n_rows, num_beams) new tokens.   finished: (n_rows, num_beams): is there one in this place?
    """

    sequences: torch.Tensor
    scores: torch.Tensor
    lengths: torch.Tensor
    finished: torch.Tensor


def beam_search(run: Run, strategy: BeamSearch) -> Output:
    """The best text of each row.

    Raises:
        GuideError: a row in which every beam has run into a dead end.
    """
    prompt = run.ctx
    n_rows, max_length = prompt.sequences.shape
    n_beams, n_prompt = strategy.num_beams, prompt.input_length
    device = prompt.sequences.device
    filler = prompt.finished
    logits = run.decoder(prompt.ids).logits.repeat_interleave(n_beams, 0)
    rows = torch.arange(n_rows, device=device).repeat_interleave(n_beams)
    run.decoder.select(rows)
    ctx = Context(prompt.sequences[rows], n_prompt, n_prompt, max_length, filler[rows], prompt.prompt_mask[rows])
    pipeline = run.make_pipeline(ctx)
    stop_states = run.ends.start(n_rows * n_beams)
    n_candidates = max(2, 1 + len(run.ends.ids)) * n_beams
    first_row = torch.arange(n_rows, device=device)[:, None] * n_beams
    scores = torch.zeros((n_rows, n_beams), device=device)
    scores[:, 1:] = _NEVER
    best = _Texts(
        ctx.sequences.view(n_rows, n_beams, max_length).clone(),
        torch.full((n_rows, n_beams), _NEVER, device=device),
        torch.zeros((n_rows, n_beams), dtype=torch.int64, device=device),
        torch.zeros((n_rows, n_beams), dtype=torch.bool, device=device),
    )
    improvable = torch.ones((n_rows, 1), dtype=torch.bool, device=device)
    goes_on = not bool(filler.all())
    while goes_on:
        log_probs = pipeline(logits.log_softmax(1), ctx)
        n_columns = log_probs.shape[1]
        total = log_probs.view(n_rows, n_beams, n_columns) + scores[:, :, None]
        top, places = total.view(n_rows, -1).topk(min(n_candidates, n_beams * n_columns))
        beams, tokens = places // n_columns + first_row, places % n_columns
        sequences = ctx.sequences[beams]
        sequences[:, :, ctx.length] = tokens
        n_new = ctx.length + 1 - n_prompt
        states, ends = run.ends.after([stop_states[beam] for beam in beams.flatten().tolist()], tokens.flatten())
        ends = ends.view(top.shape) | (ctx.length + 1 == max_length)

        going = top + ends.float() * _NEVER
        scores, chosen = going.topk(n_beams)
        best = _merged(best, sequences, top, n_new, ends, ~improvable, strategy)

        rows = beams.gather(1, chosen).flatten()
        flat = (chosen + torch.arange(n_rows, device=device)[:, None] * top.shape[1]).flatten()
        stop_states = [states[candidate] for candidate in flat.tolist()]
        ctx.sequences = sequences.flatten(0, 1)[flat]
        ctx.length += 1
        improvable = improvable & _may_improve(scores, best, n_new, max_length - n_prompt, strategy)
        is_full = strategy.early_stopping is True and bool((best.finished.all(1) | filler).all())
        goes_on = bool((improvable[:, 0] & ~filler).any()) and not is_full and not bool(ends.all())
        if goes_on:
            run.decoder.select(rows)
            pipeline.select(rows)
            logits = run.decoder(ctx.ids).logits
    lost = (~best.finished[:, 0] & ~filler).nonzero()
    if len(lost):
        raise GuideError(
            f"row {int(lost[0])}: every beam has run into a dead end: the guide, the rules of the config and the "
            "logits processors leave nothing to generate"
        )
    length = best.lengths[:, 0].masked_fill(filler, 0)
    text = best.sequences[:, 0, n_prompt:]
    is_text = torch.arange(text.shape[1], device=device)[None] < length[:, None]
    return {"token_ids": text.masked_fill(~is_text, run.pad), "length": length}


def _merged(
    best: _Texts,
    sequences: torch.Tensor,
    top: torch.Tensor,
    n_new: int,
    ends: torch.Tensor,
    stopped: torch.Tensor,
    strategy: BeamSearch,
) -> _Texts:
    """The best finished texts of the old ones and of the candidates that end.

    A candidate counts only if it is among the `num_beams` best: the others are there as a reserve.
    """
    n_beams = best.scores.shape[1]
    ended = ends.clone()
    ended[:, n_beams:] = False
    final = top / (n_new**strategy.length_penalty)
    if strategy.early_stopping is True:
        final = final + best.finished.all(1, keepdim=True).float() * _NEVER
    final = final + stopped.float() * _NEVER
    final = final + (~ended).float() * _NEVER
    scores, places = torch.cat([best.scores, final], 1).topk(n_beams)
    lengths = torch.cat([best.lengths, torch.full_like(places, n_new)[:, :1].expand(-1, top.shape[1])], 1)
    all_sequences = torch.cat([best.sequences, sequences], 1)
    return _Texts(
        all_sequences.gather(1, places[:, :, None].expand(-1, -1, all_sequences.shape[2])),
        scores,
        lengths.gather(1, places),
        torch.cat([best.finished, ended], 1).gather(1, places),
    )


def _may_improve(scores: torch.Tensor, best: _Texts, n_new: int, most_new: int, strategy: BeamSearch) -> torch.Tensor:
    """(n_rows, 1): can the best beam still become better than the worst finished text?  Exact for "never" only."""
    length = most_new if strategy.early_stopping == "never" and strategy.length_penalty > 0 else n_new
    possible = scores[:, :1] / length**strategy.length_penalty
    worst = torch.where(best.finished, best.scores.min(1, keepdim=True).values, _NEVER)
    may: torch.Tensor = (possible > worst).any(1, keepdim=True)
    return may
