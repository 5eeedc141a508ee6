"""Running a model over prompts, some at a time, and showing how it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import outlines_core as oc
from processors.cli._constraints import check_room

__all__ = ["Method", "Output", "Progress", "Runner"]


@dataclass(frozen=True)
class Output:
    """One generated text."""

    text: str
    n_tokens: int
    finished: bool
    """Whether the text satisfies the constraint, rather than being cut at the token limit."""


@dataclass(frozen=True)
class Method:
    """How tokens are chosen: the likeliest without `temperature`, else drawn; along `beams` texts at a time."""

    beams: int
    temperature: float | None


class Progress:
    """A bar of prompts with the speed in tokens, on a terminal; nothing elsewhere."""

    def __init__(self, total: int, done: int = 0) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, initial=done, desc="generating", unit="prompt", leave=False, disable=None)
        self._n_tokens, self._started, self._drawn = 0, time.monotonic(), 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def tokens(self, n: int) -> None:
        self._n_tokens += n
        now = time.monotonic()
        if not self._bar.disable and now > self._drawn + 0.1:
            self._drawn = now
            self._bar.set_postfix_str(f"{self._n_tokens / max(now - self._started, 1e-9):,.0f} tokens/s")

    def prompts(self, n: int) -> None:
        self._bar.update(n)


class Runner:
    """A model under a constraint.

    Args:
        model, tokenizer: of `transformers`.
        automaton: the constraint.
        method: how tokens are chosen.
        max_new_tokens: at most this many tokens a text; texts are completed within them.
        seed: prompt number i is drawn with a seed made of this and i, whatever runs beside it.
    """

    def __init__(
        self, model: Any, tokenizer: Any, automaton: oc.TokenAutomaton, method: Method, max_new_tokens: int, seed: int
    ) -> None:
        self._model, self._tokenizer, self._automaton = model, tokenizer, automaton
        self._method, self._max_new_tokens, self._seed = method, max_new_tokens, seed
        check_room(automaton, max_new_tokens)

    def run(self, prompts: Sequence[str], first: int, progress: Progress) -> list[Output]:
        """Continue prompts that run together; the first of them is number `first` of all."""
        if self._method.beams > 1:
            return self._beams(prompts, first, progress)
        rows: list[list[int]] = [[] for _ in prompts]
        for step in self._sampled(self._ids(prompts), first):
            for row, new, n in zip(rows, step.tokens.tolist(), step.lengths, strict=True):
                row += new[:n]
            progress.tokens(sum(step.lengths))
        progress.prompts(len(prompts))
        return [self._output(row) for row in rows]

    def stream(self, prompt: str) -> Iterator[str]:
        """The pieces of one text."""
        for step in self._sampled(self._ids([prompt]), 0):
            yield step.text[0]

    def _sampled(self, rows: list[list[int]], first: int) -> Iterator[Any]:
        from processors.generation import Greedy, RandomSampling, Sampler
        from processors.generation._random import row_seeds

        temperature = self._method.temperature
        sampler = Sampler(
            self._model,
            tokenizer=self._automaton.vocabulary,
            sampling=Greedy() if temperature is None else RandomSampling(temperature=temperature),
            cache_length=max(map(len, rows)) + self._max_new_tokens,
            max_out_length=self._max_new_tokens,
        )
        steps: Iterator[Any] = sampler.sample(
            rows,
            guide=self._automaton,
            close=True,
            max_new_tokens=self._max_new_tokens,
            rng=row_seeds(self._seed, first + len(rows))[first:],
            stream=True,
            return_state=True,
        )
        return steps

    def _beams(self, prompts: Sequence[str], first: int, progress: Progress) -> list[Output]:
        import torch
        from transformers import set_seed

        from processors.logits import GuideLogitsProcessor

        rows = self._ids(prompts)
        vocabulary, device = self._automaton.vocabulary, self._model.device
        eos_ids, pad, width = list(vocabulary.eos_token_ids), self._pad(), max(map(len, rows))
        temperature = self._method.temperature
        method = {"do_sample": False} if temperature is None else {"do_sample": True, "temperature": temperature}
        if temperature is not None:
            from processors.generation._random import row_seeds

            set_seed(row_seeds(self._seed, first + 1)[first] % 2**32)
        generated = self._model.generate(
            torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device),
            attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device),
            logits_processor=[GuideLogitsProcessor(vocabulary, self._automaton, max_new_tokens=self._max_new_tokens)],
            max_new_tokens=self._max_new_tokens,
            num_beams=self._method.beams,
            eos_token_id=eos_ids,
            pad_token_id=pad,
            **method,
        )
        outputs = [self._output(row) for row in generated[:, width:].tolist()]
        progress.tokens(sum(output.n_tokens for output in outputs))
        progress.prompts(len(prompts))
        return outputs

    def _output(self, row: Sequence[int]) -> Output:
        vocabulary = self._automaton.vocabulary
        eos_ids = vocabulary.eos_token_ids
        ids = row[: next((i for i, token in enumerate(row) if token in eos_ids), len(row))]
        state = self._automaton.accept_tokens(self._automaton.initial_state, ids)[1]
        raw = b"".join(map(vocabulary.token_bytes, ids))
        return Output(raw.decode("utf-8", "replace"), len(ids), self._automaton.is_accepting(state))

    def _ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of prompts; an empty one starts from the BOS token."""
        bos = self._tokenizer.bos_token_id
        start = bos if bos is not None else self._automaton.vocabulary.eos_token_ids[0]
        return [self._tokenizer(text)["input_ids"] or [start] for text in prompts]

    def _pad(self) -> int:
        pad: int | None = self._tokenizer.pad_token_id
        return self._automaton.vocabulary.eos_token_ids[0] if pad is None else pad
