"""What a generation loop is asked to do: lengths, special tokens, rules about tokens, and the strategy.

The attributes are those of ``Bumblebee.Text.GenerationConfig`` and a few that transformers has beside them. A config is
frozen and says everything that a text depends on; nothing is read from the model behind its back. A
generation_config.json means here what it means to transformers, and what it asks for that is not built here is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from outlines_core.errors import UnsupportedFeatureError

__all__ = [
    "BeamSearch",
    "ContrastiveSearch",
    "GenerationConfig",
    "GreedySearch",
    "MultinomialSampling",
    "Strategy",
]

_UNSET: Any = object()
_DEFAULT_NEW_TOKENS: Final = 20


@dataclass(frozen=True, kw_only=True)
class GreedySearch:
    """The most likely token at each step, the first of equals."""

    type: ClassVar[str] = "greedy_search"


@dataclass(frozen=True, kw_only=True)
class MultinomialSampling:
    """A random token at each step, drawn with the row's own seed.

    Attributes:
        top_k: only the k most likely tokens, and those that equal the last of them.
        top_p: then only the fewest that are likely enough together, the one that crosses the line included.
    """

    type: ClassVar[str] = "multinomial_sampling"
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be positive, not {self.top_k}")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p must lie between 0 and 1, not {self.top_p}")


@dataclass(frozen=True, kw_only=True)
class ContrastiveSearch:
    """Of the likeliest tokens the one that is likely and says something new (Su et al. 2022).

    Attributes:
        top_k: candidates at each step.
        alpha: the weight of the similarity with what was said; 0 is greedy search.
    """

    type: ClassVar[str] = "contrastive_search"
    top_k: int
    alpha: float

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be positive, not {self.top_k}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie between 0 and 1, not {self.alpha}")


@dataclass(frozen=True, kw_only=True)
class BeamSearch:
    """The best of several texts that are followed side by side, as transformers searches for it.

    Attributes:
        num_beams: texts followed for each row.
        length_penalty: a text's score is its log probability divided by its length to this power.
        early_stopping: True stops at `num_beams` finished texts; False when a better one is unlikely; "never" when
            there can be none.
    """

    type: ClassVar[str] = "beam_search"
    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise ValueError(f"num_beams must be positive, not {self.num_beams}")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f'early_stopping must be True, False or "never", not {self.early_stopping!r}')


Strategy = GreedySearch | MultinomialSampling | ContrastiveSearch | BeamSearch
_STRATEGIES: Final = {cls.type: cls for cls in (GreedySearch, MultinomialSampling, ContrastiveSearch, BeamSearch)}


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """What to generate; see `configure` for changes, `from_pretrained` for files.

    Attributes:
        max_new_tokens, max_length: one of them: the limit without the prompt, or with it and its padding. 20 new tokens
            if neither is given.
        min_new_tokens, min_length: at most one of them: no end before this length, counted likewise.
        strategy: `GreedySearch()` and its like, or a mapping such as ``{"type": "contrastive_search", "top_k": 4,
            "alpha": 0.6}``.
        decoder_start_token_id: what the decoder of an encoder-decoder model begins with; else `bos_token_id`.
        forced_bos_token_id: the token behind a decoder start of one token.
        forced_eos_token_id: the token (or one of the tokens) at the last place there is.
        forced_token_ids: pairs of a place in the sequence, prompt included, and the token there.
        suppressed_token_ids: tokens that are never generated.
        begin_suppressed_token_ids: tokens that are not generated first.
        no_repeat_ngram_length: no sequence of so many tokens twice, the prompt (and its padding) included.
        repetition_penalty: logits of tokens that were there before are divided by it, or multiplied if negative.
        temperature: logits are divided by it; 0 leaves the likeliest token alone.
        min_p: in sampling, tokens less likely than this share of the likeliest are dropped.
        bos_token_id, eos_token_id, pad_token_id: eos_token_id may be several. Without pad_token_id the first end token
            is what rows are filled up with.
        stop_strings: a row ends with the token that completes one of these.
        extra_config: a model's own part, see `behaviour.extra_config_module`.

    >>> GenerationConfig(max_length=30).max_new_tokens is None
    True
    >>> GenerationConfig().configure(strategy={"type": "multinomial_sampling", "top_k": 5}).strategy
    MultinomialSampling(top_k=5, top_p=None)
    """

    max_new_tokens: int | None = _UNSET
    min_new_tokens: int | None = None
    max_length: int | None = None
    min_length: int | None = None
    strategy: Strategy = GreedySearch()
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | tuple[int, ...] | None = None
    forced_token_ids: tuple[tuple[int, int], ...] = ()
    suppressed_token_ids: tuple[int, ...] = ()
    begin_suppressed_token_ids: tuple[int, ...] = ()
    no_repeat_ngram_length: int | None = None
    repetition_penalty: float | None = None
    temperature: float | None = None
    min_p: float | None = None
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    stop_strings: tuple[str, ...] = ()
    extra_config: Any = None

    def __post_init__(self) -> None:
        def set_(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)  # the object is frozen

        if self.max_new_tokens is _UNSET:
            set_("max_new_tokens", _DEFAULT_NEW_TOKENS if self.max_length is None else None)
        for first, second in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            if getattr(self, first) is not None and getattr(self, second) is not None:
                raise ValueError(f"only one of {first} or {second} must be given, but got both")
        for name in ("max_new_tokens", "max_length", "no_repeat_ngram_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, not {value}")
        if self.temperature is not None and not self.temperature >= 0:
            raise ValueError(f"temperature must not be negative: {self.temperature}")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty must be positive, not {self.repetition_penalty}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie between 0 and 1, not {self.min_p}")
        set_("strategy", _strategy(self.strategy))
        for name in ("eos_token_id", "forced_eos_token_id"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int):
                set_(name, tuple(int(i) for i in value))
        for name in ("suppressed_token_ids", "begin_suppressed_token_ids"):
            set_(name, tuple(int(i) for i in getattr(self, name)))
        set_("forced_token_ids", tuple((int(place), int(token)) for place, token in self.forced_token_ids))
        stops: Any = self.stop_strings
        set_("stop_strings", (stops,) if isinstance(stops, str) else tuple(stops))

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end tokens, none, one or several."""
        given = self.eos_token_id
        return () if given is None else (given,) if isinstance(given, int) else given

    def configure(self, **options: Any) -> GenerationConfig:
        """A config with other values; a limit in one unit takes the place of the limit in the other.

        Raises:
            TypeError: no such attribute.
            ValueError: values that do not go together, such as both max_length and max_new_tokens.
        """
        for first, second in (
            ("max_new_tokens", "max_length"),
            ("max_length", "max_new_tokens"),
            ("min_new_tokens", "min_length"),
            ("min_length", "min_new_tokens"),
        ):
            if options.get(first) is not None:
                options.setdefault(second, None)
        return dataclasses.replace(self, **options)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, spec: Any = None, **options: Any) -> GenerationConfig:
        """Read generation_config.json, or config.json where there is none.

        Args:
            path: a file, or a directory with one of them.
            spec: the model's spec: where it has an `extra_config_module`, that part is read too.
            options: attributes that are to be other than in the file.

        Raises:
            FileNotFoundError: neither file is there.
            UnsupportedFeatureError: the file asks for what is not built here.
        """
        path = Path(path)
        if path.is_dir():
            file = next(
                (path / name for name in ("generation_config.json", "config.json") if (path / name).is_file()), None
            )
            if file is None:
                raise FileNotFoundError(f"{path} has neither generation_config.json nor config.json")
            path = file
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")), spec=spec, **options)

    @classmethod
    def from_model(cls, model: Any, **options: Any) -> GenerationConfig:
        """What a transformers model's own `generation_config` says."""
        return cls.from_dict(model.generation_config.to_dict(), spec=model.config, **options)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, spec: Any = None, **options: Any) -> GenerationConfig:
        """Translate the contents of a generation_config.json (or config.json), as transformers understands them.

        Nulls count as absent. `temperature` is read in sampling only, where transformers looks at it; without `top_k`
        sampling is among the 50 likeliest tokens, transformers' default. Contrastive search, which transformers 5 has
        dropped, is ``penalty_alpha`` with ``top_k`` above 1.

        Raises:
            UnsupportedFeatureError: a value that would change the text and is not built here; `.feature` names it.
        """
        values = {name: value for name, value in values.items() if value is not None}
        nested = values.get("text_config")
        if isinstance(nested, Mapping) and "sep_token_id" in nested and "blip" in str(values.get("model_type", "")):
            values["eos_token_id"] = nested["sep_token_id"]  # the decoder of BLIP ends its texts with SEP
            for name in ("bos_token_id", "pad_token_id"):
                if nested.get(name) is not None:
                    values.setdefault(name, nested[name])
        given: dict[str, Any] = {ours: values[theirs] for theirs, ours in _NAMES.items() if theirs in values}
        if "forced_token_ids" in given:
            given["forced_token_ids"] = [
                (place, token) for place, token in given["forced_token_ids"] if token is not None
            ]
        if "max_new_tokens" in given:
            given.pop("max_length", None)
        if "min_new_tokens" in given or not given.get("min_length"):
            given.pop("min_length", None)
        if not given.get("no_repeat_ngram_length"):
            given.pop("no_repeat_ngram_length", None)
        do_sample = bool(values.get("do_sample"))
        if not do_sample:
            given.pop("temperature", None)
            given.pop("min_p", None)
        given["strategy"] = _strategy_of(values, do_sample)
        _refuse_others(values, do_sample)
        if spec is not None:
            from processors.generation.behaviour import extra_config_module

            module = extra_config_module(spec)
            if module is not None:
                given["extra_config"] = module.from_dict(values)
        for first, second in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            if options.get(first) is not None or options.get(second) is not None:
                given.pop(first, None)
                given.pop(second, None)
        return cls(**{**given, **options})


_NAMES: Final = {
    "max_new_tokens": "max_new_tokens",
    "min_new_tokens": "min_new_tokens",
    "max_length": "max_length",
    "min_length": "min_length",
    "decoder_start_token_id": "decoder_start_token_id",
    "forced_bos_token_id": "forced_bos_token_id",
    "forced_eos_token_id": "forced_eos_token_id",
    "forced_decoder_ids": "forced_token_ids",
    "suppress_tokens": "suppressed_token_ids",
    "begin_suppress_tokens": "begin_suppressed_token_ids",
    "no_repeat_ngram_size": "no_repeat_ngram_length",
    "repetition_penalty": "repetition_penalty",
    "temperature": "temperature",
    "min_p": "min_p",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "pad_token_id",
    "stop_strings": "stop_strings",
}
"""transformers' names -> ours."""

_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "bad_words_ids": ([],),
    "constraints": ([],),
    "diversity_penalty": (0, 0.0),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1, 1.0),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "guidance_scale": (1, 1.0),
    "max_time": (),
    "num_beam_groups": (0, 1),
    "num_return_sequences": (1,),
    "prompt_lookup_num_tokens": (),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "sequence_bias": ({}, []),
    "token_healing": (False,),
    "use_mtp": (False,),
    "watermarking_config": (),
}
"""What else changes a text, and the values with which it does not."""
_NEUTRAL_SAMPLING: Final[dict[str, tuple[Any, ...]]] = {
    "epsilon_cutoff": (0, 0.0),
    "eta_cutoff": (0, 0.0),
    "top_h": (),
    "typical_p": (1, 1.0),
}
"""The same for what transformers looks at in sampling only."""


def _strategy(given: Any) -> Strategy:
    """A strategy as such, or from a mapping with its type and its attributes."""
    if isinstance(given, Strategy):
        return given
    if not isinstance(given, Mapping) or "type" not in given:
        raise ValueError(f'a strategy is a mapping with "type", or GreedySearch() and its like, not {given!r}')
    options = {name: value for name, value in given.items() if name != "type"}
    cls = _STRATEGIES.get(given["type"])
    if cls is None:
        raise ValueError(f"no strategy {given['type']!r}: there are {', '.join(sorted(_STRATEGIES))}")
    known = {field.name: field for field in dataclasses.fields(cls)}
    missing = sorted(name for name, field in known.items() if field.default is MISSING and name not in options)
    if missing:
        raise ValueError(f"the strategy {given['type']!r} lacks {', '.join(missing)}")
    unexpected = sorted(set(options) - set(known))
    if unexpected:
        raise ValueError(f"the strategy {given['type']!r} has no {', '.join(unexpected)}")
    return cls(**options)


def _strategy_of(values: Mapping[str, Any], do_sample: bool) -> Strategy:
    top_k, top_p, beams = values.get("top_k"), values.get("top_p"), values.get("num_beams", 1)
    if beams > 1:
        if do_sample:
            raise UnsupportedFeatureError(
                "beam search that samples is not built here", feature="do_sample with num_beams"
            )
        return BeamSearch(
            num_beams=beams,
            length_penalty=values.get("length_penalty", 1.0),
            early_stopping=values.get("early_stopping", False),
        )
    if do_sample:
        top_k = 50 if top_k is None else top_k
        return MultinomialSampling(
            top_k=top_k if top_k > 0 else None, top_p=top_p if top_p is not None and top_p < 1 else None
        )
    if values.get("penalty_alpha", 0) > 0 and top_k is not None and top_k > 1:
        return ContrastiveSearch(top_k=top_k, alpha=values["penalty_alpha"])
    return GreedySearch()


def _refuse_others(values: Mapping[str, Any], do_sample: bool) -> None:
    for name, neutral in {**_NEUTRAL, **(_NEUTRAL_SAMPLING if do_sample else {})}.items():
        if name in values and values[name] not in neutral:
            raise UnsupportedFeatureError(
                f"{name}={values[name]!r} in the generation config is not built here; transformers' logits processor "
                "for it can be passed in logits_processors=",
                feature=name,
            )


def token_ids(given: int | Sequence[int] | None) -> tuple[int, ...]:
    """None, one id or several -> a tuple."""
    return () if given is None else (given,) if isinstance(given, int) else tuple(given)
