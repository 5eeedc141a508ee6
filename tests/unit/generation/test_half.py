"""Models in half precision on the CPU: the texts of transformers, and masks that let nothing through.

Logits in bfloat16 are often equal, so these tests are also about which of them is taken.
"""

import copy
import re

import pytest
import torch

import outlines_core as oc
from processors.generation import RandomSampling, Sampler
from processors.generation.builder import build_generate
from processors.generation.config import GenerationConfig
from processors.logits import GuideLogitsProcessor
from processors.masking import apply_mask
from tests.generation_models import ARCHITECTURES, batch, expected, model_of
from tests.sampler_models import BOS, EOS, MODELS, PAD, VOCABULARY, reference, rows_of

HALVES = [torch.bfloat16, torch.float16]
PROMPTS = [[BOS, 5, 9, 3, 3, 7], [BOS, 4], [BOS, 8, 6, 10, 11, 12, 13, 14, 3]]
PATTERN = "(ab|c){3,5}d?[01]{2,4}"
GUIDE = oc.compile_regex(PATTERN, VOCABULARY)


def half(model, dtype):
    return copy.deepcopy(model).to(dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", MODELS)
class TestSampler:
    def test_greedy_equals_transformers(self, name, dtype):
        model = half(MODELS[name](), dtype)
        output = Sampler(model, tokenizer=VOCABULARY).sample(PROMPTS, max_new_tokens=16, return_state=True)
        assert rows_of(output) == reference(model, PROMPTS, 16)

    def test_guided_equals_transformers_with_our_processor(self, name, dtype):
        model = half(MODELS[name](), dtype)
        processor = GuideLogitsProcessor(None, GUIDE)
        want = reference(model, PROMPTS, 16, logits_processor=[processor])
        sampler = Sampler(model, tokenizer=VOCABULARY)
        for options in ({}, {"return_state": True}):  # with log-probabilities and without
            got = sampler.sample(PROMPTS, max_new_tokens=16, guide=GUIDE, **options)
            if options:
                assert rows_of(got) == want
                got = got.text
            assert all(re.fullmatch(PATTERN, text) for text in got)

    def test_sampled_texts_match(self, name, dtype):
        model = half(MODELS[name](), dtype)
        call = {"max_new_tokens": 14, "guide": GUIDE, "close": True, "sampling": RandomSampling(temperature=3)}
        texts = [Sampler(model, tokenizer=VOCABULARY).sample(PROMPTS, rng=seed, **call) for seed in range(4)]
        assert all(re.fullmatch(PATTERN, text) for row in texts for text in row)
        assert len(set(map(str, texts))) > 1


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_build_generate_equals_transformers(name, num_beams):
    """With a growing cache on both sides: over other widths the same sums are rounded in another order."""
    model = half(model_of(name), torch.bfloat16)
    strategy = {"type": "beam_search", "num_beams": num_beams} if num_beams > 1 else {"type": "greedy_search"}
    config = GenerationConfig.from_model(model, max_new_tokens=10).configure(strategy=strategy)
    output = build_generate(model, model.config, config)(None, batch())
    assert output["token_ids"].tolist() == expected(model, 10, num_beams=num_beams).tolist()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_build_generate_obeys_a_guide(num_beams):
    model = half(MODELS["llama"](), torch.bfloat16)
    strategy = {"type": "beam_search", "num_beams": num_beams} if num_beams > 1 else {"type": "greedy_search"}
    config = GenerationConfig(max_new_tokens=16, eos_token_id=EOS, pad_token_id=PAD, strategy=strategy)
    prompts = [[PAD] * (9 - len(row)) + row for row in PROMPTS]
    inputs = {"input_ids": prompts, "attention_mask": [[int(token != PAD) for token in row] for row in prompts]}
    output = build_generate(model, model.config, config, guide=GUIDE)(None, inputs)
    rows = [row[:n] for row, n in zip(output["token_ids"].tolist(), output["length"].tolist(), strict=True)]
    if num_beams == 1:
        assert rows == reference(model, PROMPTS, 16, logits_processor=[GuideLogitsProcessor(None, GUIDE)])
    for row in rows:
        assert re.fullmatch(PATTERN, b"".join(map(VOCABULARY.token_bytes, row)).decode())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("in_place", [False, True])
def test_masks(dtype, in_place):
    """Bit for bit: what is allowed keeps its pattern (NaN and -0.0 included), all else is -inf."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    logits = patterns.view(dtype).reshape(64, 1024).clone()
    words = torch.randint(-(2**31), 2**31 - 1, (64, 32), generator=torch.Generator().manual_seed(1)).int().numpy()
    bits = ((torch.from_numpy(words)[:, :, None] >> torch.arange(32)) & 1).bool().reshape(64, 1024)
    masked = apply_mask(logits, words, out=logits if in_place else None).view(torch.int16)
    minus_infinity = torch.tensor(-torch.inf, dtype=dtype).view(torch.int16)
    assert torch.equal(masked, torch.where(bits, patterns.reshape(64, 1024), minus_infinity))
