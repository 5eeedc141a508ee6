"""Drafts of a small model under a guide: the large model's distribution, exactly, from fewer of its passes."""

import copy
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import outlines_core as oc
from outlines_core.errors import UnsupportedFeatureError
from processors.generation import RandomSampling, Sampler, TopkSampling
from processors.generation.speculative import residual
from tests.sampler_models import BOS, EOS, VOCABULARY, chi_square, gpt2, llama, mistral, passes, reference, rows_of

PROMPTS = [[BOS, 5, 9, 3, 3, 7], [BOS, 4], [BOS, 8, 6, 10, 11, 12, 13, 14, 3]]


def sampler(model, draft=None, **options):
    return Sampler(model, tokenizer=VOCABULARY, draft_model=draft, fast_forward=None, **options)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6))
def test_accepted_and_replaced_together_are_the_target(pairs):
    """Sum over drafts: q min(1, p/q), and where that falls short, the residual."""
    weights = torch.tensor(pairs, dtype=torch.float64).T
    if not weights.sum(1).all():
        return
    p, q = weights / weights.sum(1, keepdim=True)
    kept = torch.minimum(p, q)
    together = kept + (1 - kept.sum()) * residual(p[None], q[None])[0]
    torch.testing.assert_close(together, p)


@pytest.mark.parametrize("n_draft", [1, 3, 5])
@pytest.mark.parametrize("draft", [copy.deepcopy(llama(0)), llama(7), gpt2(1)], ids=["twin", "llama", "gpt2"])
@pytest.mark.parametrize("rows", [[0], [2], [0, 1, 2]], ids=str)
def test_greedy_is_greedy(n_draft, draft, rows):
    model, prompts = llama(0), [PROMPTS[k] for k in rows]
    expected = reference(model, prompts, 16)
    drafting = sampler(model, draft, n_draft=n_draft)
    output, widths = passes(model, lambda: drafting.sample(prompts, max_new_tokens=16, return_state=True))
    assert rows_of(output) == expected
    if draft.config == model.config and torch.equal(draft.lm_head.weight, model.lm_head.weight):  # all are accepted
        assert len(widths) <= 2 + 15 / (n_draft + 1)
    plain = sampler(model).sample(prompts, max_new_tokens=16, return_state=True)
    torch.testing.assert_close(output.logprobs, plain.logprobs, atol=1e-4, rtol=0)
    assert output.state.tokens() == plain.state.tokens()
    again = [
        one.sample([[5]] * len(rows), last_state=output.state, max_new_tokens=8) for one in (drafting, sampler(model))
    ]
    assert again[0] == again[1]


def test_stops_inside_of_a_draft():
    free = rows_of(sampler(llama()).sample(PROMPTS, max_new_tokens=16, return_state=True))
    for stop in (free[0][2], free[1][5], "ab", "1c"):
        options = {"stop_tokens": [stop]}
        call = {"max_new_tokens": 16}
        expected = sampler(llama(), **options).sample(PROMPTS, **call)
        assert sampler(llama(), llama(), n_draft=5, **options).sample(PROMPTS, **call) == expected
        pieces = list(sampler(llama(), llama(), n_draft=5, **options).sample(PROMPTS, stream=True, **call))
        assert ["".join(row) for row in zip(*pieces, strict=True)] == expected


@pytest.mark.parametrize("close", [False, True])
def test_guided_texts_match(close):
    guide = oc.compile_regex("(ab|c){1,4}d?[01]{2}", VOCABULARY)
    for seed in range(5):
        texts = sampler(llama(seed), llama(seed + 1)).sample(
            PROMPTS, guide=guide, close=close, max_new_tokens=9, sampling=RandomSampling(temperature=2), rng=seed
        )
        for text in texts:
            assert re.fullmatch("(ab|c){1,4}d?[01]{2}", text) or not close


def test_a_window_takes_one_row():
    model = mistral(0)
    drafting = sampler(model, mistral(1))
    for prompt in PROMPTS:
        assert rows_of(drafting.sample(prompt, max_new_tokens=16, return_state=True)) == reference(model, [prompt], 16)
    with pytest.raises(UnsupportedFeatureError, match="batches of one"):
        drafting.sample(PROMPTS)


def test_refused():
    with pytest.raises(ValueError, match="33 token ids, the model 32"):
        sampler(llama(), llama(0, 2, vocab_size=33)).sample(PROMPTS)
    with pytest.raises(ValueError, match="cannot be used with a draft_model"):
        sampler(llama(), llama()).sample(PROMPTS, logits_processors=[lambda ids, logits: logits])


@pytest.mark.parametrize("method", [RandomSampling(temperature=1.5), TopkSampling(k=3, temperature=2.0)], ids=repr)
@pytest.mark.parametrize("guided", [True, False])
def test_the_distribution_is_that_without_a_draft(method, guided):
    """Frequencies of whole outputs, against probabilities computed from the model alone."""
    guide = oc.compile_regex("(a|b|c|ab|x)(0|1|01)?(c|d)", VOCABULARY) if guided else None
    n, n_tokens, prompt = 4000, 4 if guided else 2, [BOS, 5, 9]
    exact = _exact(llama(), prompt, method, guide, n_tokens)
    drafting = sampler(llama(), llama(7), n_draft=2, sampling=method)
    output = drafting.sample([prompt] * n, guide=guide, rng=23, max_new_tokens=n_tokens, return_state=True)
    assert chi_square(exact, [tuple(row) for row in rows_of(output)]) < 0


@torch.no_grad()
def _exact(model, prompt, method, guide, n_tokens):
    """The probability of each output of up to so many tokens."""
    done, going = {}, {(): 1.0}
    for _ in range(n_tokens):
        rows = list(going)
        logits = model(torch.tensor([[*prompt, *row] for row in rows])).logits[:, -1].double()
        if guide is not None:
            for k, row in enumerate(rows):
                state = guide.accept_tokens(guide.initial_state, row)[1]
                allowed = torch.zeros(logits.shape[1], dtype=torch.bool)
                allowed[torch.from_numpy(guide.allowed_tokens(state)).long()] = True
                logits[k, ~allowed] = -torch.inf
        longer = {}
        for row, probs in zip(rows, method.probs(logits), strict=True):
            for token in probs.nonzero()[:, 0].tolist():
                (done if token == EOS else longer)[(*row, token)] = going[row] * float(probs[token])
        going = longer
        if not going:
            break
    return {**done, **going}
