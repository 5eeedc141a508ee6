"""The rules of a generation config as logits processors, and the pipeline that runs them and the user's.

A logits processor is

- a function ``(logits, ctx) -> logits``, or
- an object with ``init(ctx) -> state`` and ``process(state, logits, ctx) -> (state, logits)``, whose state the loop
  carries from step to step, or
- a `transformers.LogitsProcessor`.

All see the whole batch: logits are (n_rows, n_columns) float32, `Context` says what the rows have said so far. Rows
move in a beam search, and a state moves with them: in a state, every tensor (that is no scalar) and every *list* has
one entry a row; tuples, named tuples and dicts hold such things; anything else belongs to all rows.

The order is that of Bumblebee, with ours between: repetition_penalty, no_repeat_ngram, min_length, suppressed,
begin_suppressed, forced_bos, forced_eos, forced_tokens, *guide*, temperature, top_k, top_p, min_p, then the user's. The
guide stands before the temperature so that truncation chooses among what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import LogitsProcessor

from processors._logits_base import OutlinesLogitsProcessor
from processors.generation.config import GenerationConfig, MultinomialSampling, token_ids

__all__ = ["Context", "Pipeline", "StatefulProcessor", "config_rules", "select_rows"]

Rule = Callable[[torch.Tensor, "Context"], torch.Tensor]


@dataclass
class Context:
    """What a processor may know of the rows.

    Attributes:
        sequences: (n_rows, max_length) int64: prompt (padded on the left), generated tokens, and pad tokens where
            nothing has been generated yet.
        length: columns filled so far, the same for all rows.
        input_length: columns of the prompt.
        max_length: columns at most.
        finished: (n_rows,) bool: rows that have ended; what a processor makes of them has no effect.
        prompt_mask: (n_rows, input_length) bool: which columns of the prompt are no padding.
    """

    sequences: torch.Tensor
    length: int
    input_length: int
    max_length: int
    finished: torch.Tensor
    prompt_mask: torch.Tensor

    @property
    def ids(self) -> torch.Tensor:
        """(n_rows, length): what has been said so far."""
        return self.sequences[:, : self.length]


@runtime_checkable
class StatefulProcessor(Protocol):
    """A logits processor with a state that the loop keeps."""

    def init(self, ctx: Context) -> Any:
        """The state before the first token; `ctx` shows the prompts."""

    def process(self, state: Any, logits: torch.Tensor, ctx: Context) -> tuple[Any, torch.Tensor]:
        """The next state and the processed logits; neither argument is changed in place."""


class Pipeline:
    """Processors in their order, with the states of one call."""

    def __init__(self, processors: Sequence[Any], ctx: Context) -> None:
        """Begin a call.

        Raises:
            TypeError: something that is no logits processor.
        """
        self._steps: list[StatefulProcessor] = [_stateful(one) for one in processors]
        self._states = [step.init(ctx) for step in self._steps]

    def __call__(self, logits: torch.Tensor, ctx: Context) -> torch.Tensor:
        """The logits after all processors.

        Raises:
            ValueError: a processor has changed their shape.
        """
        shape = logits.shape
        for k, step in enumerate(self._steps):
            self._states[k], logits = step.process(self._states[k], logits, ctx)
            if logits.shape != shape:
                raise ValueError(
                    f"logits processor {step!r} has made logits of shape {tuple(logits.shape)} from {tuple(shape)}"
                )
        return logits

    def select(self, rows: torch.Tensor) -> None:
        """Keep `rows`, in that order; a row may be taken more than once."""
        on_host = rows.tolist()
        self._states = [select_rows(state, rows, on_host) for state in self._states]


def select_rows(state: Any, rows: torch.Tensor, on_host: Sequence[int]) -> Any:
    """A state for other rows: see the module.

    Args:
        rows, on_host: the same indices, as (n,) int64 and as ints.

    >>> state = {"seen": torch.tensor([[1], [2]]), "texts": ["a", "b"], "limit": 3}
    >>> select_rows(state, torch.tensor([1, 1]), [1, 1])
    {'seen': tensor([[2],
            [2]]), 'texts': ['b', 'b'], 'limit': 3}
    """
    if isinstance(state, torch.Tensor) and state.ndim:
        return state.index_select(0, rows.to(state.device))
    if isinstance(state, list):
        return [state[row] for row in on_host]
    if isinstance(state, tuple):
        parts = [select_rows(part, rows, on_host) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    if isinstance(state, Mapping):
        return {name: select_rows(part, rows, on_host) for name, part in state.items()}
    return state


class _Stateless:
    """A function as a processor whose state is None."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def init(self, ctx: Context) -> None:
        """Nothing to keep."""

    def process(self, state: None, logits: torch.Tensor, ctx: Context) -> tuple[None, torch.Tensor]:
        """Call the function."""
        return state, self._rule(logits, ctx)

    def __repr__(self) -> str:
        return repr(self._rule)


class _OfTransformers:
    """A `transformers.LogitsProcessor`; ours begin anew with each call, as they do in `generate`."""

    def __init__(self, processor: LogitsProcessor) -> None:
        self._processor = processor

    def init(self, ctx: Context) -> None:  # noqa: ARG002
        if isinstance(self._processor, OutlinesLogitsProcessor):
            self._processor.reset()

    def process(self, state: None, logits: torch.Tensor, ctx: Context) -> tuple[None, torch.Tensor]:
        return state, self._processor(ctx.ids, logits)

    def __repr__(self) -> str:
        return repr(self._processor)


def _stateful(processor: Any) -> StatefulProcessor:
    if isinstance(processor, LogitsProcessor):
        return _OfTransformers(processor)
    if isinstance(processor, StatefulProcessor):
        return processor
    if callable(processor):
        return _Stateless(processor)
    raise TypeError(
        "a logits processor is a function (logits, ctx) -> logits, an object with init(ctx) and process(state, logits, "
        f"ctx), or a transformers.LogitsProcessor, not {type(processor).__name__}"
    )


# -- the rules ---------------------------------------------------------------------------------------------------------


def config_rules(
    config: GenerationConfig, end_ids: Sequence[int], ctx: Context, guide: StatefulProcessor | None = None
) -> list[Any]:
    """The processors that a config asks for, in their order.

    Args:
        end_ids: the tokens that end a row.   ctx: the rows before the first token.   guide: stands before temperature.
    """
    rules: list[Any] = []
    if config.repetition_penalty is not None and config.repetition_penalty != 1:
        rules.append(_repetition_penalty(config.repetition_penalty))
    if config.no_repeat_ngram_length is not None:
        rules.append(_no_repeat_ngram(config.no_repeat_ngram_length))
    least = (config.min_length or 0) + (ctx.input_length + config.min_new_tokens if config.min_new_tokens else 0)
    if least and end_ids:
        rules.append(_only_when(lambda ctx: ctx.length < least, _suppressed(end_ids)))
    if config.suppressed_token_ids:
        rules.append(_suppressed(config.suppressed_token_ids))
    if config.begin_suppressed_token_ids:
        begin = ctx.input_length + (ctx.input_length == 1 and config.forced_bos_token_id is not None)
        rules.append(_only_when(lambda ctx: ctx.length == begin, _suppressed(config.begin_suppressed_token_ids)))
    if config.forced_bos_token_id is not None:
        rules.append(_only_when(lambda ctx: ctx.length == 1, _forced((config.forced_bos_token_id,))))
    forced_eos = token_ids(config.forced_eos_token_id)
    if forced_eos:
        rules.append(_only_when(lambda ctx: ctx.length == ctx.max_length - 1, _forced(forced_eos)))
    if config.forced_token_ids:
        rules.append(_forced_tokens(dict(config.forced_token_ids)))
    if guide is not None:
        rules.append(guide)
    if config.temperature is not None and config.temperature != 1:
        rules.append(_temperature(config.temperature))
    if isinstance(config.strategy, MultinomialSampling):
        if config.strategy.top_k is not None:
            rules.append(_top_k(config.strategy.top_k))
        if config.strategy.top_p is not None and config.strategy.top_p < 1:
            rules.append(_top_p(config.strategy.top_p))
        if config.min_p is not None:
            rules.append(_min_p(config.min_p))
    return rules


def _only_when(condition: Callable[[Context], bool], rule: Rule) -> Rule:
    return lambda logits, ctx: rule(logits, ctx) if condition(ctx) else logits


def _suppressed(ids: Sequence[int]) -> Rule:
    index = torch.tensor(ids)

    def rule(logits: torch.Tensor, ctx: Context) -> torch.Tensor:  # noqa: ARG001
        return logits.index_fill(1, index.to(logits.device), -math.inf)

    return rule


def _forced(ids: Sequence[int]) -> Rule:
    index = torch.tensor(ids)

    def rule(logits: torch.Tensor, ctx: Context) -> torch.Tensor:  # noqa: ARG001
        return torch.full_like(logits, -math.inf).index_fill(1, index.to(logits.device), 0.0)

    return rule


def _forced_tokens(places: Mapping[int, int]) -> Rule:
    def rule(logits: torch.Tensor, ctx: Context) -> torch.Tensor:
        token = places.get(ctx.length)
        return logits if token is None else _forced((token,))(logits, ctx)

    return rule


def _repetition_penalty(penalty: float) -> Rule:
    """Keskar et al. 2019, *CTRL*: what a row has said (padding left out) becomes less likely."""

    def rule(logits: torch.Tensor, ctx: Context) -> torch.Tensor:
        is_text = torch.nn.functional.pad(ctx.prompt_mask, (0, ctx.length - ctx.input_length), value=True)
        said = _within(torch.where(is_text, ctx.ids, logits.shape[1]), logits)
        wider = torch.nn.functional.pad(logits, (0, 1))
        values = wider.gather(1, said)
        return wider.scatter(1, said, torch.where(values < 0, values * penalty, values / penalty))[:, :-1]

    return rule


def _within(places: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Places in rows of logits that have one column more, which takes what the logits have no column for."""
    return places.clamp(max=logits.shape[1])


def _no_repeat_ngram(n: int) -> Rule:
    def rule(logits: torch.Tensor, ctx: Context) -> torch.Tensor:
        ids = ctx.ids
        if ctx.length < n:
            return logits
        windows = ids.unfold(1, n, 1)
        repeats = (windows[:, :, :-1] == ids[:, None, ctx.length - (n - 1) :]).all(-1)
        place = _within(torch.where(repeats, windows[:, :, -1], logits.shape[1]), logits)
        return torch.nn.functional.pad(logits, (0, 1)).scatter(1, place, -math.inf)[:, :-1]

    return rule


def _temperature(temperature: float) -> Rule:
    def rule(logits: torch.Tensor, ctx: Context) -> torch.Tensor:  # noqa: ARG001
        if temperature > 0:
            return logits / temperature
        best = logits.argmax(1, keepdim=True)
        return torch.full_like(logits, -math.inf).scatter(1, best, 0.0)

    return rule


def _top_k(k: int) -> Rule:
    def rule(logits: torch.Tensor, ctx: Context) -> torch.Tensor:  # noqa: ARG001
        least = logits.topk(min(k, logits.shape[1])).values[:, -1:]
        return logits.masked_fill(logits < least, -math.inf)

    return rule


def _top_p(p: float) -> Rule:
    def rule(logits: torch.Tensor, ctx: Context) -> torch.Tensor:  # noqa: ARG001
        ascending, order = logits.sort(dim=1)
        below = ascending.softmax(1).cumsum(1) <= 1 - p
        below[:, -1] = False
        return logits.masked_fill(below.scatter(1, order, below), -math.inf)

    return rule


def _min_p(p: float) -> Rule:
    def rule(logits: torch.Tensor, ctx: Context) -> torch.Tensor:  # noqa: ARG001
        probs = logits.softmax(1)
        return logits.masked_fill(probs < p * probs.amax(1, keepdim=True), -math.inf)

    return rule
