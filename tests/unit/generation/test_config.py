"""`GenerationConfig`: what goes together, and what a generation_config.json means."""

import dataclasses
import json

import pytest
import transformers
from transformers import LlamaConfig, WhisperConfig

from outlines_core.errors import UnsupportedFeatureError
from processors.generation.behaviour import WhisperExtraConfig
from processors.generation.config import (
    BeamSearch,
    ContrastiveSearch,
    GenerationConfig,
    GreedySearch,
    MultinomialSampling,
)


class TestLengths:
    def test_defaults(self):
        config = GenerationConfig()
        assert (config.max_new_tokens, config.max_length, config.min_new_tokens, config.min_length) == (
            20,
            None,
            None,
            None,
        )
        assert config.strategy == GreedySearch()
        assert GenerationConfig(max_length=30).max_new_tokens is None

    @pytest.mark.parametrize("pair", [("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")])
    def test_one_of_two(self, pair):
        first, second = pair
        with pytest.raises(ValueError, match=f"only one of {first} or {second} must be given, but got both"):
            GenerationConfig(**{first: 3, second: 4})
        with pytest.raises(ValueError, match="got both"):
            GenerationConfig().configure(**{first: 3, second: 4})
        config = GenerationConfig().configure(**{second: 9})
        assert (getattr(config, first), getattr(config, second)) == (None, 9)
        config = config.configure(**{first: 7})
        assert (getattr(config, first), getattr(config, second)) == (7, None)
        assert getattr(config.configure(temperature=2.0), first) == 7

    def test_unknown_attributes(self):
        with pytest.raises(TypeError, match="max_tokens"):
            GenerationConfig().configure(max_tokens=3)

    def test_frozen_and_hashable(self):
        config = GenerationConfig(eos_token_id=[1, 2], suppressed_token_ids=[3], forced_token_ids=[[1, 5]])
        assert hash(config) == hash(dataclasses.replace(config))
        assert config.eos_token_ids == (1, 2)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.temperature = 3.0

    @pytest.mark.parametrize(
        "options",
        [
            {"max_new_tokens": 0},
            {"max_length": -1},
            {"temperature": -0.5},
            {"temperature": float("nan")},
            {"repetition_penalty": 0},
            {"min_p": 1.5},
            {"no_repeat_ngram_length": 0},
            {"strategy": {"type": "multinomial_sampling", "top_k": 0}},
            {"strategy": {"type": "multinomial_sampling", "top_p": 1.1}},
            {"strategy": {"type": "contrastive_search", "top_k": 0, "alpha": 0.5}},
            {"strategy": {"type": "contrastive_search", "top_k": 3, "alpha": -0.1}},
            {"strategy": {"type": "beam_search", "num_beams": 0}},
            {"strategy": {"type": "beam_search", "num_beams": 2, "early_stopping": "soon"}},
        ],
        ids=str,
    )
    def test_values_out_of_range(self, options):
        with pytest.raises(ValueError, match=r"must|negative"):
            GenerationConfig(**options)


class TestStrategies:
    @pytest.mark.parametrize(
        ("given", "made"),
        [
            ({"type": "greedy_search"}, GreedySearch()),
            ({"type": "multinomial_sampling"}, MultinomialSampling()),
            ({"type": "multinomial_sampling", "top_k": 3, "top_p": 0.5}, MultinomialSampling(top_k=3, top_p=0.5)),
            ({"type": "contrastive_search", "top_k": 4, "alpha": 0.6}, ContrastiveSearch(top_k=4, alpha=0.6)),
            ({"type": "beam_search", "num_beams": 4}, BeamSearch(num_beams=4)),
        ],
    )
    def test_from_mappings(self, given, made):
        assert GenerationConfig(strategy=given).strategy == GenerationConfig(strategy=made).strategy == made

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("greedy_search", "mapping"),
            ({"top_k": 3}, '"type"'),
            ({"type": "magic"}, "no strategy 'magic': there are beam_search, contrastive_search, greedy"),
            ({"type": "contrastive_search"}, "lacks alpha, top_k"),
            ({"type": "greedy_search", "top_p": 0.5, "alpha": 1}, "has no alpha, top_p"),
        ],
    )
    def test_wrong_ones(self, given, message):
        with pytest.raises(ValueError, match=message):
            GenerationConfig(strategy=given)


class TestFromDict:
    def test_all_names(self):
        config = GenerationConfig.from_dict(
            {
                "max_length": 50,
                "min_length": 5,
                "decoder_start_token_id": 1,
                "forced_bos_token_id": 2,
                "forced_eos_token_id": [3],
                "forced_decoder_ids": [[1, None], [2, 50]],
                "suppress_tokens": [4, 5],
                "begin_suppress_tokens": [6],
                "no_repeat_ngram_size": 3,
                "repetition_penalty": 1.1,
                "temperature": 0.7,
                "do_sample": True,
                "min_p": 0.1,
                "bos_token_id": 7,
                "eos_token_id": [8, 9],
                "pad_token_id": 0,
                "stop_strings": "END",
                "typical_p": 1.0,
                "transformers_version": "5",
            }
        )
        assert config == GenerationConfig(
            max_length=50,
            min_length=5,
            decoder_start_token_id=1,
            forced_bos_token_id=2,
            forced_eos_token_id=(3,),
            forced_token_ids=((2, 50),),
            suppressed_token_ids=(4, 5),
            begin_suppressed_token_ids=(6,),
            no_repeat_ngram_length=3,
            repetition_penalty=1.1,
            temperature=0.7,
            min_p=0.1,
            bos_token_id=7,
            eos_token_id=(8, 9),
            pad_token_id=0,
            stop_strings=("END",),
            strategy=MultinomialSampling(top_k=50),
        )

    @pytest.mark.parametrize(
        ("values", "strategy"),
        [
            ({}, GreedySearch()),
            ({"temperature": 0.5, "top_p": 0.3, "top_k": 10}, GreedySearch()),
            ({"do_sample": True}, MultinomialSampling(top_k=50)),
            ({"do_sample": True, "top_k": 0, "top_p": 1.0}, MultinomialSampling()),
            ({"do_sample": True, "top_k": 7, "top_p": 0.9}, MultinomialSampling(top_k=7, top_p=0.9)),
            ({"do_sample": True, "penalty_alpha": 0.6, "top_k": 4}, MultinomialSampling(top_k=4)),
            ({"penalty_alpha": 0.6, "top_k": 4}, ContrastiveSearch(top_k=4, alpha=0.6)),
            ({"penalty_alpha": 0.6, "top_k": 1}, GreedySearch()),
            ({"num_beams": 1}, GreedySearch()),
            (
                {"num_beams": 5, "length_penalty": 2.0, "early_stopping": "never"},
                BeamSearch(num_beams=5, length_penalty=2.0, early_stopping="never"),
            ),
        ],
        ids=str,
    )
    def test_strategies(self, values, strategy):
        config = GenerationConfig.from_dict(values)
        assert config.strategy == strategy
        assert config.temperature is None

    def test_nulls_and_defaults_are_nothing(self):
        """All that transformers writes by itself is understood."""
        values = {
            **transformers.GenerationConfig().to_dict(),
            **transformers.GenerationConfig._get_default_generation_params(),
        }
        assert GenerationConfig.from_dict({**values, "max_length": None}) == GenerationConfig(repetition_penalty=1.0)
        nulls = dict.fromkeys(transformers.GenerationConfig().to_dict())
        assert GenerationConfig.from_dict(nulls) == GenerationConfig()

    def test_new_tokens_go_before_lengths(self):
        values = {"max_length": 50, "max_new_tokens": 10, "min_length": 5, "min_new_tokens": 2}
        config = GenerationConfig.from_dict(values)
        assert (config.max_new_tokens, config.max_length, config.min_new_tokens, config.min_length) == (
            10,
            None,
            2,
            None,
        )
        config = GenerationConfig.from_dict(values, max_length=9)
        assert (config.max_new_tokens, config.max_length) == (None, 9)

    @pytest.mark.parametrize(
        "values",
        [
            {"bad_words_ids": [[5]]},
            {"encoder_repetition_penalty": 1.5},
            {"guidance_scale": 2.0},
            {"sequence_bias": [[[1], 2.0]]},
            {"num_return_sequences": 2},
            {"do_sample": True, "typical_p": 0.9},
            {"do_sample": True, "num_beams": 2},
            {"renormalize_logits": True},
            {"exponential_decay_length_penalty": [5, 1.1]},
            {"max_time": 3.0},
        ],
        ids=str,
    )
    def test_what_is_not_built_is_refused_by_name(self, values):
        name = next(name for name in reversed(values))
        with pytest.raises(UnsupportedFeatureError) as caught:
            GenerationConfig.from_dict(values)
        assert name in caught.value.feature

    def test_what_sampling_alone_looks_at(self):
        assert GenerationConfig.from_dict({"typical_p": 0.9, "min_p": 0.5}).min_p is None

    def test_blip_ends_with_its_separator(self):
        values = {"model_type": "blip", "text_config": {"sep_token_id": 102, "bos_token_id": 30522, "pad_token_id": 0}}
        config = GenerationConfig.from_dict(values)
        assert (config.eos_token_id, config.bos_token_id, config.pad_token_id) == (102, 30522, 0)


class TestFromPretrained:
    def test_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="neither"):
            GenerationConfig.from_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 5, "hidden_size": 3}))
        assert GenerationConfig.from_pretrained(tmp_path) == GenerationConfig(eos_token_id=5)
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [6, 7], "do_sample": True}))
        config = GenerationConfig.from_pretrained(tmp_path, max_new_tokens=3)
        assert config == GenerationConfig(eos_token_id=(6, 7), max_new_tokens=3, strategy=MultinomialSampling(top_k=50))
        assert GenerationConfig.from_pretrained(tmp_path / "config.json").eos_token_id == 5

    def test_the_part_of_a_model(self, tmp_path):
        values = {"no_timestamps_token_id": 50363, "lang_to_id": {"<|en|>": 50259}, "task_to_id": {"transcribe": 50358}}
        (tmp_path / "generation_config.json").write_text(json.dumps(values))
        config = GenerationConfig.from_pretrained(tmp_path, spec=WhisperConfig())
        assert config.extra_config == WhisperExtraConfig(50363, {"<|en|>": 50259}, {"transcribe": 50358})
        assert GenerationConfig.from_pretrained(tmp_path, spec=LlamaConfig()).extra_config is None
