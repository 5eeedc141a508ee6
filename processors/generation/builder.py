"""`build_generate`: a model, its spec and a config -> a function that generates text.

The function does nothing but what the config says: the rows of a call depend on the weights, the inputs and, in
sampling, on their own seeds. Each strategy is a loop over the same parts: a `Decoder` (the model's side), a `Pipeline`
of logits processors and `Ends` (when a row is done).

    generate = build_generate(model, model.config, GenerationConfig(eos_token_id=2, max_new_tokens=40))
    output = generate(None, tokenizer(["Once", "Twice upon"], return_tensors="pt", padding=True))
    tokenizer.batch_decode(output["token_ids"], skip_special_tokens=True)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from processors.generation._decoder import Decoder, with_params
from processors.generation._guides import GuideRule
from processors.generation._inputs import Prompts, prepare
from processors.generation._random import RowRandom, pick
from processors.generation._run import Ends, Output, Run, TokenEvent
from processors.generation._stops import StopStrings
from processors.generation.behaviour import Behaviour, behaviour_of
from processors.generation.config import BeamSearch, ContrastiveSearch, GenerationConfig, MultinomialSampling
from processors.generation.contrastive import contrastive_search
from processors.generation.rules import Context, Pipeline, config_rules
from processors.generation.search import beam_search

__all__ = ["Generate", "build_generate"]

Hook = Callable[[TokenEvent], None]


def build_generate(
    model: Any,
    spec: Any,
    config: GenerationConfig,
    *,
    logits_processors: Sequence[Any] = (),
    ignore_output: bool = False,
    guide: Any = None,
    close_guides: bool = True,
    tokenizer: Any = None,
) -> Generate:
    """Make the function that generates.

    Args:
        model: a transformers model that can generate.
        spec: how its cache is made and traversed: `model.config`, a `TransformersSpec`, or another object with the
            methods of `Behaviour`.
        config: lengths, tokens, rules and strategy.
        logits_processors: further processors, run after all of the config: see `rules`.
        ignore_output: give back (n_rows,) zeros instead of the text; what counts is then what the hook is told.
        guide: what each text must obey: a token automaton or an object with the protocol of `processors.guide.Guide`,
            or a sequence with one a prompt. A call may name another.
        close_guides: texts of token automata are ended within the limit: no token is allowed after which that would be
            impossible. Else a text at the limit may be the beginning of one that the guide allows.
        tokenizer: the tokenizer or `Vocabulary`, needed for stop strings.

    Raises:
        TypeError: a model, spec or processor of no known kind.
        ValueError: no limit; no token to fill up rows with; stop strings without a tokenizer.
    """
    for method in ("prepare_inputs_for_generation", "_update_model_kwargs_for_generation"):
        if not hasattr(model, method):
            raise TypeError(f"{type(model).__name__} is no transformers model that can generate: it has no {method}")
    if config.max_new_tokens is None and config.max_length is None:
        raise ValueError("one of max_new_tokens or max_length must be given, but got neither")
    if config.pad_token_id is None and not config.eos_token_ids:
        raise ValueError("pad_token_id or eos_token_id must be given: rows that have ended are filled up with it")
    stops = None
    if config.stop_strings:
        if tokenizer is None:
            raise ValueError("stop_strings need tokenizer=, to know what tokens say")
        from processors.tokenizers import vocabulary_from

        stops = StopStrings(config.stop_strings, vocabulary_from(tokenizer).token_bytes)
    return Generate(
        model, behaviour_of(spec), config, tuple(logits_processors), ignore_output, guide, close_guides, stops
    )


class Generate:
    """The function that `build_generate` makes."""

    def __init__(
        self,
        model: Any,
        behaviour: Behaviour,
        config: GenerationConfig,
        logits_processors: tuple[Any, ...],
        ignore_output: bool,
        guide: Any,
        close_guides: bool,
        stops: StopStrings | None,
    ) -> None:
        self._model, self._behaviour, self._config = model, behaviour, config
        self._processors, self._ignore_output = logits_processors, ignore_output
        self._guide, self._close_guides, self._stops = guide, close_guides, stops

    def __call__(
        self, params: Any, inputs: Mapping[str, Any], on_token: Hook | None = None, *, guide: Any = None
    ) -> Output | torch.Tensor:
        """Generate.

        Args:
            params: weights by name, in place of the model's own; None for its own.
            inputs: "input_ids" (n_rows, n), "attention_mask" (default: ones; padding on either side; a row of zeros
                fills up the batch and gets no text), whatever else the model takes, and in sampling "seed": one int a
                row. Encoder-decoder models: the encoder's inputs, and "decoder_input_ids" if the decoder does not begin
                with the config's start token.
            on_token: called at each step with a `TokenEvent`.
            guide: in place of the one that was built in.

        Returns:
            An `Output`, or zeros (n_rows,) if its contents are to be ignored.

        Raises:
            ValueError: inputs that are missing or too long for the limit, before the model is run.
            GuideError: the limit leaves no room for a text of the guide, or other rules contradict it.
        """
        beside = dict(inputs)
        seed = beside.pop("seed", None)
        guide = self._guide if guide is None else guide
        with torch.no_grad():
            output: Output | torch.Tensor = with_params(
                self._model, params, lambda: self._generate(beside, seed, on_token, guide)
            )
        return output

    def _generate(self, inputs: dict[str, Any], seed: Any, on_token: Hook | None, guide: Any) -> Output | torch.Tensor:
        config = self._config
        if on_token is not None and isinstance(config.strategy, BeamSearch):
            raise ValueError("a beam search knows its tokens at its end only: on_token= cannot be served")
        n, max_length = self._lengths(inputs)
        rule = self._guide_rule(guide, max_length - n)
        prompts = prepare(self._model, config, inputs)
        n_rows = prompts.ids.shape[0]
        run = self._run(prompts, max_length, self._random(seed, n_rows), on_token, rule)
        if isinstance(config.strategy, BeamSearch):
            output = beam_search(run, config.strategy)
        elif isinstance(config.strategy, ContrastiveSearch):
            output = contrastive_search(run, config.strategy)
        else:
            output = _step_by_step(run)
        return torch.zeros(n_rows, dtype=torch.int64, device=prompts.ids.device) if self._ignore_output else output

    def _lengths(self, inputs: Mapping[str, Any]) -> tuple[int, int]:
        """The columns of the prompt and those at most.  Is there room behind it?  Asked before an encoder is run."""
        name = "decoder_input_ids" if self._model.config.is_encoder_decoder else "input_ids"
        ids = inputs.get(name)
        n = 1 if ids is None else torch.as_tensor(ids).shape[-1]
        limit = self._config.max_length
        if limit is None:
            assert self._config.max_new_tokens is not None
            return n, n + self._config.max_new_tokens
        if n >= limit:
            raise ValueError(
                f"the input sequence has {n} tokens, but max_length is set to {limit}: nothing can be generated"
            )
        return n, limit

    def _guide_rule(self, guide: Any, n_new: int) -> GuideRule | None:
        if guide is None:
            return None
        is_search = isinstance(self._config.strategy, BeamSearch)
        rule = GuideRule(
            guide,
            self._config.eos_token_ids,
            close=self._close_guides,
            may_run_dry=is_search,
            reuse=not self._processors,
        )
        rule.check_room(n_new)
        return rule

    def _random(self, seed: Any, n_rows: int) -> RowRandom | None:
        if not isinstance(self._config.strategy, MultinomialSampling):
            return None
        if seed is None:
            raise ValueError('sampling needs inputs["seed"]: one int a row')
        seeds = seed.tolist() if hasattr(seed, "tolist") else seed
        is_list = isinstance(seeds, (list, tuple)) and len(seeds) == n_rows
        if not is_list or not all(isinstance(one, int) for one in seeds):
            raise ValueError(f'inputs["seed"] must be one int for each of {n_rows} rows, not {seed!r}')
        return RowRandom(seeds)

    def _run(
        self,
        prompts: Prompts,
        max_length: int,
        random: RowRandom | None,
        on_token: Hook | None,
        rule: GuideRule | None,
    ) -> Run:
        config = self._config
        n_rows, n = prompts.ids.shape
        device = prompts.ids.device
        end_ids = config.eos_token_ids
        if rule is not None:
            rule.check_rows(n_rows)
            end_ids = tuple(dict.fromkeys((*end_ids, *rule.eos_ids)))
        pad = config.pad_token_id if config.pad_token_id is not None else config.eos_token_ids[0]
        sequences = torch.full((n_rows, max_length), pad, dtype=torch.int64, device=device)
        sequences[:, :n] = prompts.ids
        ctx = Context(sequences, n, n, max_length, prompts.filler, prompts.mask)
        return Run(
            config=config,
            decoder=Decoder(
                self._model,
                self._behaviour,
                prompts,
                max_length=max_length,
                hidden=isinstance(config.strategy, ContrastiveSearch),
            ),
            ctx=ctx,
            ends=Ends(end_ids, self._stops, device),
            pad=pad,
            make_pipeline=lambda ctx: Pipeline([*config_rules(config, end_ids, ctx, rule), *self._processors], ctx),
            random=random,
            on_token=on_token,
        )


def _step_by_step(run: Run) -> Output:
    """Greedy search and sampling."""
    ctx = run.ctx
    pipeline = run.make_pipeline(ctx)
    while not run.is_done():
        logits = pipeline(run.decoder(ctx.ids).logits, ctx)
        best, tokens = logits.max(1)
        run.check(best)
        if run.random is not None:
            positions = [ctx.length - ctx.input_length] * logits.shape[0]
            tokens = pick(logits.softmax(1), run.random.uniforms(positions))
        run.append(tokens)
    return run.output()
