"""What a model must tell the generation loops: how its cache is made, and where rows are in it.

The loops never look into a cache. They ask its *spec* to make one and to apply a function to every tensor in it that
has a row for each sequence; with that they repeat rows (beams, candidates), select them (beams that swap places) and
drop them. A spec is any object with the methods of `Behaviour`; for `transformers` it is the model's config, which
stands for `TransformersSpec`.

The module has functions of the same names, which take the spec first::

    cache = init_cache(model.config, batch_size=2, max_length=64, inputs={})
    cache = traverse_cache(model.config, cache, lambda rows: rows.repeat_interleave(4, dim=0))
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from transformers import DynamicCache, EncoderDecoderCache, PretrainedConfig, PreTrainedModel, StaticCache
from transformers.cache_utils import Cache, DynamicLayer

from outlines_core.errors import UnsupportedFeatureError
from processors.generation.kv_cache import RoomLayer

__all__ = [
    "Behaviour",
    "TransformersSpec",
    "WhisperExtraConfig",
    "behaviour_of",
    "extra_config_module",
    "init_cache",
    "traverse_cache",
]

RowFunction = Callable[[torch.Tensor], torch.Tensor]
"""Takes a tensor of rows, gives one with the same or other rows in the first dimension."""

_TENSORS = ("keys", "values", "indexer_keys")
"""Attributes of a cache layer that are tensors of rows."""
_TENSOR_MAPS = ("conv_states", "recurrent_states")
"""Attributes of a cache layer that are dicts of tensors of rows."""
_LAYERS = frozenset(
    {
        "DummyLayer",
        "DynamicIndexedLayer",
        "DynamicLayer",
        "DynamicSlidingWindowLayer",
        "LinearAttentionAndFullAttentionLayer",
        "LinearAttentionAndSlidingWindowAttentionLayer",
        "LinearAttentionAndStaticFullAttentionLayer",
        "LinearAttentionAndStaticSlidingWindowAttentionLayer",
        "LinearAttentionLayer",
        "RoomLayer",
        "StaticIndexedLayer",
        "StaticLayer",
        "StaticSlidingWindowLayer",
    }
)
"""Layers whose tensors are all named above. Others (quantized ones, a model's own) may keep rows elsewhere."""


@runtime_checkable
class Behaviour(Protocol):
    """What a spec offers. A third method, ``extra_config_module()``, is optional: see the function of that name."""

    def init_cache(self, batch_size: int, max_length: int, inputs: Mapping[str, Any]) -> Any:
        """An empty cache, or None if the model is to run without one.

        Args:
            batch_size: rows.
            max_length: columns, prompt included, that the cache must have room for.
            inputs: what the model is given beside the token ids of the decoder.
        """

    def traverse_cache(self, cache: Any, fn: RowFunction) -> Any:
        """A cache with `fn` applied to every tensor of rows; everything else, such as lengths, as it is."""


@dataclass(frozen=True)
class TransformersSpec:
    """The behaviour of transformers' models, over their cache classes.

    Attributes:
        config: the model's config.
        cache: "dynamic" grows with the text, within room for all of it where attention is full; "static" has its full
            size from the first token on, for `torch.compile`; None runs the model over the whole text at every step.
    """

    config: PretrainedConfig
    cache: Literal["dynamic", "static"] | None = "dynamic"

    def __post_init__(self) -> None:
        if self.cache not in ("dynamic", "static", None):
            raise ValueError(f'cache must be "dynamic", "static" or None, not {self.cache!r}')

    def init_cache(self, batch_size: int, max_length: int, inputs: Mapping[str, Any]) -> Cache | None:  # noqa: ARG002
        """See `Behaviour`. The layers of transformers' caches take their row count from what is first put in."""
        if self.cache is None:
            return None
        config = self.config.get_text_config(decoder=True)
        if self.cache == "dynamic":
            own: Any = DynamicCache(config=config)
            own.layers = [RoomLayer(max_length) if type(one) is DynamicLayer else one for one in own.layers]
            cross: Any = DynamicCache(config=config) if self.config.is_encoder_decoder else None
        else:
            own = StaticCache(config=config, max_cache_len=max_length)
            cross = None
            if self.config.is_encoder_decoder:
                encoded = inputs["encoder_outputs"][0]
                cross = StaticCache(config=config, max_cache_len=encoded.shape[1])
        cache: Cache = own if cross is None else EncoderDecoderCache(own, cross)
        return cache

    def traverse_cache(self, cache: Any, fn: RowFunction) -> Any:
        """See `Behaviour`. A new cache object; tensors that `fn` returns unchanged are shared with `cache`.

        Raises:
            UnsupportedFeatureError: a cache class that may keep rows in places unknown here.
        """
        if cache is None:
            return None
        twin = copy.copy(cache)
        if isinstance(cache, EncoderDecoderCache):
            twin.self_attention_cache = self.traverse_cache(cache.self_attention_cache, fn)
            twin.cross_attention_cache = self.traverse_cache(cache.cross_attention_cache, fn)
            twin.is_updated = dict(cache.is_updated)
            return twin
        if not isinstance(cache, Cache):
            raise UnsupportedFeatureError(
                f"the rows of a {type(cache).__name__} cannot be repeated or selected: only transformers' Cache "
                "classes are known here",
                feature="cache class",
            )
        twin.layers = [_traverse_layer(layer, fn) for layer in cache.layers]
        return twin

    def extra_config_module(self) -> type[WhisperExtraConfig] | None:
        """`WhisperExtraConfig` for Whisper, None for other models."""
        return WhisperExtraConfig if self.config.model_type == "whisper" else None


def _traverse_layer(layer: Any, fn: RowFunction) -> Any:
    if type(layer).__name__ not in _LAYERS:
        raise UnsupportedFeatureError(
            f"the rows of a cache layer of type {type(layer).__name__} cannot be repeated or selected",
            feature="cache layer",
        )
    twin = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            value = dict(value)
            if name in _TENSOR_MAPS:
                value = {key: fn(rows) if _has_rows(rows) else rows for key, rows in value.items()}
            setattr(twin, name, value)
        elif name in _TENSORS and _has_rows(value):
            setattr(twin, name, fn(value))
        elif isinstance(value, torch.Tensor) and value.ndim == 0:  # a length that the layer counts up in place
            setattr(twin, name, value.clone())
    if isinstance(twin, RoomLayer):
        twin.detach_buffers()
    if hasattr(layer, "batch_size") and _has_rows(twin.keys):
        twin.batch_size = twin.keys.shape[0]
    return twin


def _has_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() > 0


@dataclass(frozen=True)
class WhisperExtraConfig:
    """What Whisper's generation_config.json says beyond other models'.

    Attributes:
        no_timestamps_token_id: the token that asks for text without times.
        language_to_token_id, task_to_token_id: the tokens that choose them, such as "<|en|>" and "transcribe".
    """

    no_timestamps_token_id: int | None = None
    language_to_token_id: Mapping[str, int] | None = None
    task_to_token_id: Mapping[str, int] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WhisperExtraConfig:
        """Read the contents of a generation_config.json."""
        names = {"language_to_token_id": "lang_to_id", "task_to_token_id": "task_to_id"}
        return cls(**{field.name: values.get(names.get(field.name, field.name)) for field in fields(cls)})


# -- the module functions ----------------------------------------------------------------------------------------------


def behaviour_of(spec: Any) -> Behaviour:
    """The spec itself if it has the methods; for a transformers config or model, its `TransformersSpec`.

    Raises:
        TypeError: neither.
    """
    if isinstance(spec, PreTrainedModel):
        spec = spec.config
    if isinstance(spec, PretrainedConfig):
        return TransformersSpec(spec)
    if isinstance(spec, Behaviour):
        return spec
    raise TypeError(
        f"a spec is a transformers config or an object with the methods of processors.generation.behaviour.Behaviour, "
        f"not {type(spec).__name__}"
    )


def init_cache(spec: Any, batch_size: int, max_length: int, inputs: Mapping[str, Any]) -> Any:
    """An empty cache for a model: `Behaviour.init_cache`."""
    return behaviour_of(spec).init_cache(batch_size, max_length, inputs)


def traverse_cache(spec: Any, cache: Any, fn: RowFunction) -> Any:
    """A cache with `fn` applied to every tensor of rows: `Behaviour.traverse_cache`."""
    return behaviour_of(spec).traverse_cache(cache, fn)


def extra_config_module(spec: Any) -> Any:
    """The class whose ``from_dict`` reads a model's own part of its generation config; None if there is no such part.

    A spec need not have the method.
    """
    method = getattr(behaviour_of(spec), "extra_config_module", None)
    return None if method is None else method()
