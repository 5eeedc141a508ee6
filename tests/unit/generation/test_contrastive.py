"""Contrastive search against the paper, word for word: one row, no cache, each candidate run by itself."""

import functools

import pytest
import torch
import transformers

import outlines_core as oc
from processors.generation.behaviour import TransformersSpec
from processors.generation.builder import build_generate
from processors.generation.config import GenerationConfig
from tests.generation_models import ENDS, PAD, PROMPTS, SIZE, batch, model_of

N_NEW = 8


def run(model, encoder_ids, ids):
    """Logits of the last column and the last layer's states of all columns."""
    with torch.no_grad():
        if encoder_ids is None:
            output = model(torch.tensor([ids]), output_hidden_states=True)
            return output.logits[0, -1], output.hidden_states[-1][0]
        output = model(
            input_ids=torch.tensor([encoder_ids]), decoder_input_ids=torch.tensor([ids]), output_hidden_states=True
        )
        return output.logits[0, -1], output.decoder_hidden_states[-1][0]


def twin(model, prompt, top_k, alpha, n_new=N_NEW, process=lambda ids, logits: logits):
    """Equation (5) of Su et al. 2022 at each step."""
    is_encoder_decoder = model.config.is_encoder_decoder
    encoder_ids = list(prompt) if is_encoder_decoder else None
    ids = [model.config.decoder_start_token_id] if is_encoder_decoder else list(prompt)
    n_prompt = len(ids)
    while len(ids) < n_prompt + n_new:
        logits, states = run(model, encoder_ids, ids)
        probs = process(ids, logits).softmax(0)
        scores = {}
        for v in probs.topk(top_k).indices.tolist():
            if probs[v] == 0:
                continue
            h_v = run(model, encoder_ids, [*ids, v])[1][-1]
            degeneration = max(torch.cosine_similarity(h_v, h_j, dim=0).item() for h_j in states)
            scores[v] = (1 - alpha) * probs[v].item() - alpha * degeneration
        ids.append(max(scores, key=scores.get))
        if ids[-1] in ENDS:
            break
    new = ids[n_prompt:]
    return new + [PAD] * (n_new - len(new))


@functools.cache
def twins(name, top_k, alpha):
    return [twin(model_of(name), row, top_k, alpha) for row in PROMPTS]


@pytest.mark.parametrize("cache", ["dynamic", "static", None])
@pytest.mark.parametrize(("top_k", "alpha"), [(4, 0.6), (3, 0.9), (2, 0.3)])
@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bart"])
def test_equal_to_the_paper(name, top_k, alpha, cache):
    model = model_of(name)
    strategy = {"type": "contrastive_search", "top_k": top_k, "alpha": alpha}
    config = GenerationConfig.from_model(model, max_new_tokens=N_NEW).configure(strategy=strategy)
    inputs = batch(side="right")  # the positions of BART's encoder count padding on the left
    output = build_generate(model, TransformersSpec(model.config, cache), config)(None, inputs)
    assert output["token_ids"].tolist() == twins(name, top_k, alpha)


@pytest.mark.parametrize(("top_k", "alpha"), [(1, 0.7), (5, 0.0)])
def test_with_one_candidate_or_no_penalty_it_is_greedy(top_k, alpha):
    model = model_of("llama")
    config = GenerationConfig.from_model(model, max_new_tokens=N_NEW)
    contrastive = config.configure(strategy={"type": "contrastive_search", "top_k": top_k, "alpha": alpha})
    one, other = (
        build_generate(model, model.config, c)(None, batch())["token_ids"].tolist() for c in (config, contrastive)
    )
    assert one == other


def test_the_penalty_matters():
    model = model_of("llama")
    texts = {tuple(twin(model, PROMPTS[0], 4, alpha)) for alpha in (0.0, 0.3, 0.6, 0.9)}
    assert len(texts) >= 3


def test_a_guide_leaves_fewer_candidates_than_top_k():
    """Tokens of probability zero are no candidates, however new what they say would be."""
    model = model_of("llama")
    vocabulary = oc.Vocabulary(1, {chr(97 + k): [44 + k] for k in range(10)}, size=SIZE)
    guide = oc.compile_regex("(ab|cd|e){3}", vocabulary)
    config = GenerationConfig(
        eos_token_id=1,
        pad_token_id=PAD,
        max_new_tokens=N_NEW,
        strategy={"type": "contrastive_search", "top_k": 6, "alpha": 0.95},
    )
    output = build_generate(model, model.config, config, guide=guide, close_guides=False)(None, batch())

    def masked(ids, logits):
        from processors.logits import GuideLogitsProcessor

        processor, length = GuideLogitsProcessor(None, guide), len(masked.prompt)
        for n in range(length, len(ids) + 1):
            got = processor(torch.tensor([ids[:n]]), logits[None])
        return got[0]

    for row, prompt in zip(output["token_ids"].tolist(), PROMPTS, strict=True):
        masked.prompt = prompt
        assert row == twin(model, prompt, 6, 0.95, process=masked)


def test_transformers_has_dropped_it():
    """If it comes back, its own `generate` is the better oracle."""
    assert not hasattr(transformers.GenerationMixin, "_contrastive_search")
