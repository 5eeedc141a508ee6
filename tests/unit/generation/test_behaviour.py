"""Rows of transformers' caches: what `traverse_cache` makes of them goes on like rows that were run from the start."""

import copy

import pytest
import torch
from transformers import (
    DynamicCache,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    QuantizedCache,
    WhisperConfig,
)
from transformers.models.mistral import MistralConfig, MistralForCausalLM

from outlines_core.errors import UnsupportedFeatureError
from processors.generation import behaviour as module
from processors.generation.behaviour import (
    Behaviour,
    TransformersSpec,
    WhisperExtraConfig,
    extra_config_module,
    init_cache,
    traverse_cache,
)
from tests.generation_models import model_of

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def mistral():
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=3))


def gemma():
    """Sliding and full attention by turns."""
    return Gemma3ForCausalLM(
        Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=3, layer_types=["sliding_attention", "full_attention"])
    )


def lfm():
    """Convolutions and attention by turns."""
    return Lfm2ForCausalLM(Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]))


def causal(name: str):
    torch.manual_seed(5)
    return {"mistral": mistral, "gemma": gemma, "lfm": lfm}[name]().eval() if name != "llama" else model_of(name)


def logits_after(model, ids, cache):
    with torch.no_grad():
        return model(ids, past_key_values=cache, use_cache=True).logits[:, -1]


@pytest.mark.parametrize("rows", [[0, 0, 1, 1, 2, 2], [2, 1, 1], [1], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma", "lfm"])
def test_rows_of_a_cache(name, kind, rows):
    """Repeated, moved and dropped rows go on like those that had been there from the start."""
    model, index = causal(name), torch.tensor(rows)
    spec = TransformersSpec(model.config, kind)

    def filled(ids):
        cache = init_cache(spec, len(ids), 8, {})
        logits_after(model, ids, cache)
        return cache

    cache = filled(IDS)
    moved = traverse_cache(spec, cache, lambda tensor: tensor.index_select(0, index))
    new = torch.arange(20, 20 + len(rows))[:, None]
    torch.testing.assert_close(logits_after(model, new, moved), logits_after(model, new, filled(IDS[index])))
    # The cache that it was made of has not moved.
    new = torch.tensor([[30], [31], [32]])
    torch.testing.assert_close(logits_after(model, new, cache), logits_after(model, new, filled(IDS)))


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_rows_of_an_encoder_decoder(kind):
    model, index = model_of("t5"), torch.tensor([2, 0, 0, 1])
    spec = TransformersSpec(model.config, kind)
    start = torch.full((3, 1), 2)

    def filled(ids):
        with torch.no_grad():
            encoded = model.get_encoder()(ids)
            cache = init_cache(spec, len(ids), 6, {"encoder_outputs": encoded})
            model(encoder_outputs=encoded, decoder_input_ids=start[:1].expand(len(ids), 1), past_key_values=cache)
        return encoded, cache

    def after(filled, new):
        encoded, cache = filled
        with torch.no_grad():
            return model(encoder_outputs=encoded, decoder_input_ids=new, past_key_values=cache).logits[:, -1]

    _, cache = filled(IDS)
    moved = traverse_cache(spec, cache, lambda tensor: tensor.index_select(0, index))
    want = filled(IDS[index])
    new = torch.tensor([[4], [5], [6], [7]])
    # Other sums in the attention: rounding, where other rows would be ones apart.
    torch.testing.assert_close(after((want[0], moved), new), after(want, new), rtol=1e-3, atol=1e-3)


def test_only_tensors_of_rows_are_traversed():
    model = model_of("llama")
    cache = init_cache(model.config, 3, 8, {})
    logits_after(model, IDS, cache)
    seen = []
    traverse_cache(model.config, cache, lambda tensor: seen.append(tensor.shape[0]) or tensor)
    assert seen == [3] * 4  # keys and values of two layers


def test_an_empty_cache_and_none():
    spec = TransformersSpec(LlamaConfig(**SMALL))
    assert isinstance(traverse_cache(spec, init_cache(spec, 2, 8, {}), lambda tensor: 1 / 0), DynamicCache)
    uncached = TransformersSpec(LlamaConfig(**SMALL), cache=None)
    assert init_cache(uncached, 2, 8, {}) is None
    assert traverse_cache(uncached, None, lambda tensor: 1 / 0) is None


def test_unknown_caches_are_refused():
    spec = TransformersSpec(LlamaConfig(**SMALL))
    quantized = QuantizedCache("fp8", LlamaConfig(**SMALL))
    for cache, feature in ((quantized, "cache layer"), (((1, 2),), "cache class")):
        with pytest.raises(UnsupportedFeatureError) as caught:
            traverse_cache(spec, cache, copy.copy)
        assert caught.value.feature == feature
    with pytest.raises(ValueError, match="cache must be"):
        TransformersSpec(LlamaConfig(**SMALL), cache="quantized")


class TestSpecs:
    def test_extra_config(self):
        assert extra_config_module(WhisperConfig()) is WhisperExtraConfig
        assert extra_config_module(LlamaConfig()) is None
        assert WhisperExtraConfig.from_dict({}) == WhisperExtraConfig(None, None, None)

    def test_a_spec_of_ones_own(self):
        class Own:
            """Counts; without the optional method."""

            def __init__(self, config):
                self.inner, self.made, self.traversed = TransformersSpec(config), [], 0

            def init_cache(self, batch_size, max_length, inputs):
                self.made.append((batch_size, max_length))
                return self.inner.init_cache(batch_size, max_length, inputs)

            def traverse_cache(self, cache, fn):
                self.traversed += 1
                return self.inner.traverse_cache(cache, fn)

        from processors.generation.builder import build_generate
        from processors.generation.config import GenerationConfig

        model = model_of("llama")
        spec = Own(model.config)
        assert isinstance(spec, Behaviour)
        assert extra_config_module(spec) is None
        config = GenerationConfig(max_length=9, eos_token_id=1, strategy={"type": "beam_search", "num_beams": 2})
        output = build_generate(model, spec, config)(None, {"input_ids": IDS})
        assert spec.made == [(3, 9)]
        assert spec.traversed >= 2
        plain = build_generate(model, model, config)(None, {"input_ids": IDS})
        assert output["token_ids"].tolist() == plain["token_ids"].tolist()

    def test_what_is_no_spec(self):
        with pytest.raises(TypeError, match="spec"):
            init_cache({}, 1, 2, {})

    def test_the_functions_have_the_names_of_the_methods(self):
        assert {"init_cache", "traverse_cache", "extra_config_module"} <= set(module.__all__)
