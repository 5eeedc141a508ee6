"""`Sampler`: prompts in, texts out, with a state that a later call goes on from.

    sampler = Sampler(model, tokenizer=tokenizer, sampling=TopPSampling(p=0.9))
    text = sampler.sample("A person: ", guide=automaton, max_new_tokens=64, rng=7)

A sampler is frozen and holds no state of its own. All that a call can refuse it refuses before the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from outlines_core.vocabulary import Vocabulary
from processors.generation._call import Call, Request, plan
from processors.generation._forward import Forward
from processors.generation._guide_rows import GuideRows, guide_sources
from processors.generation._loop import Batch
from processors.generation._outputs import streamed, whole
from processors.generation._prompts import as_rows, encoder_of, read_prompts, text_tokenizer
from processors.generation._random import RowRandom, Seeds, row_seeds
from processors.generation._sharding import split
from processors.generation._stops import StopStrings
from processors.generation.forced import canonical_tokens
from processors.generation.kv_cache import KeyValues
from processors.generation.sampling import Greedy, SamplingMethod
from processors.generation.speculative import Draft
from processors.generation.state import SamplingState
from processors.tokenizers import as_vocabulary

__all__ = ["Sampler"]


@dataclass(frozen=True, eq=False)
class Sampler:
    """A model with all that turns its logits into text.

    Attributes:
        model: a decoder of `transformers`, in eval mode; also one that `torch.compile` made.
        params: weights to use in place of the module's own, by name (`torch.func.functional_call`).
        tokenizer: a Hugging Face tokenizer, the processor of a multimodal model, or a `Vocabulary` (for token ids).
        sampling: how tokens are drawn.
        forbidden_tokens: token ids, or texts that are one token each: never generated.
        stop_tokens: token ids, or texts. A text is one after this token, or, if it is not one token, where this text
            is complete. What completes it belongs to the text, what is behind it does not. The EOS ids of tokenizer,
            model and guides always stop.
        cache_length: how many tokens a context can have, prompts and answers together.
        max_out_length: how many tokens a call can generate.
        pad_length: compiled models get prompts of these lengths (or any longer), None for any.
        fast_forward: forced tokens are fed in one pass ("tokens"); also forced text, as the tokenizer spells it, which
            changes the distribution ("text", see `forced`); or neither (None). Off with logits processors, which are
            to see every token, and with compiled models.
        draft_model: proposes `n_draft` tokens a step, which the model checks in one pass; changes no distribution.
        n_draft: how many.
    """

    model: Any
    params: Mapping[str, torch.Tensor] | None = None
    tokenizer: Any = None
    sampling: SamplingMethod = Greedy()  # noqa: RUF009  # frozen
    forbidden_tokens: Sequence[int | str] | None = None
    stop_tokens: Sequence[int | str] | None = None
    cache_length: int = 4096
    max_out_length: int = 2048
    pad_length: int | Sequence[int] | None = (256, 512, 1024)
    fast_forward: Literal["tokens", "text"] | None = "tokens"
    draft_model: Any = None
    n_draft: int = 4

    if TYPE_CHECKING:
        _copies: ClassVar[dict[Any, Any]]
        _vocabulary: ClassVar[Vocabulary]

    def __post_init__(self) -> None:
        """Check the tokens.

        Raises:
            ValueError: no tokenizer; a forbidden text that is not one token; a number that is not positive.
            UnsupportedFeatureError: a model that cannot be sampled from.
        """
        if self.tokenizer is None:
            raise ValueError("a Sampler needs a tokenizer, or a Vocabulary")
        object.__setattr__(self, "_vocabulary", as_vocabulary(self.tokenizer))
        for name in ("cache_length", "max_out_length", "n_draft"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.fast_forward not in ("tokens", "text", None):
            raise ValueError(f'fast_forward must be "tokens", "text" or None, not {self.fast_forward!r}')
        if self.fast_forward == "text":
            encoder_of(self.tokenizer)
        object.__setattr__(self, "_copies", {})  # the model on other devices
        Forward(self.model, self.params)
        for token in self.forbidden_tokens or ():
            if not self._ids_of(token):
                raise ValueError(
                    f"the forbidden text {token!r} is not one token of {type(self.tokenizer).__name__}: only single "
                    "tokens can be forbidden; a guide can exclude texts"
                )
        self._stops()

    # -- what tokens mean ----------------------------------------------------------------------------------------------

    @property
    def vocabulary(self) -> Vocabulary:
        """The bytes and EOS ids of the tokenizer, as it was when the sampler was made."""
        return self._vocabulary

    def _ids_of(self, token: int | str) -> list[int]:
        """The ids that a token or one-token text stands for; [] for other texts."""
        if not isinstance(token, str):
            return [int(token)]
        special = self.vocabulary.special_tokens
        if token in special:
            return [special[token]]
        if isinstance(self.tokenizer, Vocabulary):
            return next((list(ids) for known, ids in self.vocabulary.items() if known == token.encode()), [])
        ids = encoder_of(self.tokenizer)(token)
        return ids if len(ids) == 1 else []

    def _stops(self) -> tuple[set[int], StopStrings | None]:
        """The stop ids, and the stop strings."""
        given = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ids = {*self.vocabulary.eos_token_ids, *([given] if isinstance(given, int) else given or ())}
        texts = []
        for token in self.stop_tokens or ():
            found = self._ids_of(token)
            ids.update(found)
            if not found:
                texts.append(str(token))
        return ids, StopStrings(texts, self.vocabulary.token_bytes) if texts else None

    def _pad_id(self) -> int:
        pad = getattr(text_tokenizer(self.tokenizer), "pad_token_id", None)
        return int(pad) if isinstance(pad, int) else self.vocabulary.eos_token_ids[0]

    # -- a call --------------------------------------------------------------------------------------------------------

    def sample(
        self,
        prompt: Any,
        *,
        images: Any = None,
        max_new_tokens: int | None = None,
        stream: bool = False,
        sampling: SamplingMethod | None = None,
        rng: Seeds = None,
        return_state: bool = False,
        last_state: SamplingState | None = None,
        sharding: Any = None,
        guide: Any = None,
        close: bool = False,
        start_after: int | str | None = None,
        logits_processors: Sequence[Callable[..., Any]] = (),
    ) -> Any:
        """Generate.

        Args:
            prompt: a text, a conversation (messages with role and content, put through the chat template), or token
                ids; or a list of one of these. A text gets the tokenizer's BOS unless `last_state` is given; turn
                markup is the caller's job. After `last_state`, messages are the new ones.
            images: for models whose processor takes them.
            max_new_tokens: at most `max_out_length`; None: that, or less where the cache has no room for it.
            stream: return an iterator of pieces: each is what one pass adds to the text, or a list of that; joined they
                are the text. Passes that complete no character of a single text give no piece.
            sampling: in place of the sampler's own.
            rng: see `row_seeds`. None after `last_state`: its rows' random numbers go on.
            return_state: return a `SamplerOutput`; in a stream, one a pass, with text and tokens of this pass, and the
                state in the last.
            last_state: go on from there: the same as one call on all turns' tokens.
            sharding: a `DeviceMesh` of one dimension (each process calls with all prompts and gets all results), or a
                list of devices, to split the batch.
            guide: a `TokenAutomaton` or other guide (see `GuideLogitsProcessor`), or one a prompt.
            close: end guided texts within `max_new_tokens`: tokens after which they could not be are masked.
            start_after: a token id, special token or text that a row must have generated before its guide begins; until
                then it is free, and an EOS ends it.
            logits_processors: called one after the other with (ids, logits) of the live rows, after the masks; they
                cannot allow what is masked.

        Returns:
            str, or list[str], or `SamplerOutput`, or an iterator.

        Raises:
            ValueError: `max_new_tokens` above `max_out_length`; contexts that do not fit into the cache; a batch that
                cannot be split equally, or is not that of `last_state`. No model has run then.
            GuideError: while generating: a row in which no token is left.
        """
        prompts, is_single = as_rows(prompt)
        if max_new_tokens is not None and not 0 < max_new_tokens <= self.max_out_length:
            raise ValueError(
                f"max_new_tokens={max_new_tokens} must lie between 1 and max_out_length={self.max_out_length}"
            )
        n_rows = len(prompts)
        guides = list(guide) if isinstance(guide, (list, tuple)) else [guide] * n_rows
        if len(guides) != n_rows:
            raise ValueError(f"{len(guides)} guides for {n_rows} prompts: give one, or one a prompt")
        request = Request(
            prompts,
            images if images is None or not is_single else [images],
            guides,
            None if rng is None and last_state is not None else row_seeds(rng, n_rows),
            last_state,
            max_new_tokens=max_new_tokens,
            sampling=self.sampling if sampling is None else sampling,
            close=close,
            start_after=start_after,
            processors=tuple(logits_processors),
            wants_logprobs=return_state,
        )
        call = split(self, request, sharding, stream=stream)
        pad_id = self._pad_id()
        if stream:
            outputs = streamed(call, pad_id, is_single=is_single)
            return outputs if return_state else (step.text for step in outputs if not is_single or step.text)
        output = whole(call, self.vocabulary.token_bytes, pad_id, is_single=is_single)
        return output if return_state else output.text

    def prepare(self, request: Request, model: Any = None, params: Any = None) -> Call:
        """A call that is checked and laid out, with this sampler's model or another copy of it."""
        forward = Forward(self.model if model is None else model, self.params if params is None else params)
        state, n_rows = request.state, len(request.prompts)
        seeds, n_drawn = request.seeds or (), (0,) * n_rows
        if request.seeds is None and state is not None:
            seeds, n_drawn = state.seeds, state.n_drawn
        stop_ids, stops = self._stops()
        vocabulary = self.vocabulary
        sources = guide_sources(request.guides, vocabulary, close=request.close, start_after=request.start_after)
        draft = None
        if self.draft_model is not None:
            if request.processors:
                raise ValueError("logits_processors see tokens one by one: they cannot be used with a draft_model")
            draft = Draft(self.draft_model, self.n_draft, forward, n_rows)
        prompts = read_prompts(
            request.prompts,
            self.tokenizer,
            request.images,
            continues=state is not None,
            eos_ids=vocabulary.eos_token_ids,
        )
        layout = plan(
            forward,
            prompts.rows,
            state,
            cache_length=self.cache_length,
            max_new_tokens=request.max_new_tokens,
            max_out_length=self.max_out_length,
            buckets=_buckets(self.pad_length),
        )
        forbidden = [i for token in self.forbidden_tokens or () for i in self._ids_of(token)]
        ends = {i for source in sources or () for i in source.eos_ids}

        def make_batch(past: KeyValues) -> Batch:
            return Batch(
                forward,
                past,
                GuideRows(sources, n_rows, forbidden, close=request.close, reuse=not request.processors),
                request.sampling,
                RowRandom(seeds),
                n_drawn,
                max_new_tokens=layout.max_new_tokens,
                stop_ids=frozenset(stop_ids | ends),
                stops=stops,
                pad_id=self._pad_id(),
                processors=request.processors,
                wants_logprobs=request.wants_logprobs,
            )

        forced = None if request.processors or forward.is_compiled else self._forced
        return Call(forward, layout, prompts, state, make_batch, forced, draft, vocabulary.token_bytes)

    def _forced(self, batch: Batch, r: int) -> Sequence[int]:
        chain = batch.guides.forced(r) if self.fast_forward else ()
        automaton = batch.guides.automaton(r) if self.fast_forward == "text" else None
        if automaton is None:
            return chain
        spelled = canonical_tokens(
            automaton, batch.guides.states[r], encoder_of(self.tokenizer), self.vocabulary.token_bytes
        )
        return max(chain, spelled, key=len)


def _buckets(pad_length: int | Sequence[int] | None) -> Sequence[int]:
    if pad_length is None:
        return ()
    return (pad_length,) if isinstance(pad_length, int) else tuple(pad_length)
