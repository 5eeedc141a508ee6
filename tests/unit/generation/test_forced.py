"""Forced tokens in one pass: the same tokens from fewer passes."""

from functools import partial

import pytest
import torch

import outlines_core as oc
from processors import load_embedded, vocabulary_from
from processors.generation import RandomSampling, Sampler
from processors.generation.forced import canonical_tokens, pass_width
from tests.sampler_models import BOS, EOS, VOCABULARY, gpt2, llama, mistral, passes, rows_of

PROMPTS = [[BOS, 5, 9, 3, 3, 7], [BOS, 4], [BOS, 8, 6, 10, 11, 12, 13, 14, 3]]
PATTERNS = ["(x x x x|d)é0é0é[ab]", "é é é é x[01]{2}x x x", "[01]x x x x x x( x)?"]  # few spellings, many forced


@pytest.mark.parametrize("model", [llama(), gpt2(), mistral()], ids=["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("rows", [[0], [1], [2], [0, 1, 2], [1, 1]], ids=str)
@pytest.mark.parametrize("state", [False, True])
def test_the_same_tokens_from_fewer_passes(model, rows, state):
    guides = [oc.compile_regex(PATTERNS[k], VOCABULARY) for k in rows]
    prompts = [PROMPTS[k] for k in rows]

    def run(mode, seed):
        sampler = Sampler(model, tokenizer=VOCABULARY, fast_forward=mode, sampling=RandomSampling(temperature=2))
        call = {"guide": guides, "max_new_tokens": 16, "rng": seed}
        if not state:
            return sampler.sample(prompts, **call)
        output = sampler.sample(prompts, return_state=True, **call)
        assert sampler.sample([[3]] * len(rows), last_state=output.state, max_new_tokens=5)
        return output

    fewer = 0
    for seed in range(3):
        (slow, one_by_one), (fast, together) = (passes(model, partial(run, m, seed)) for m in (None, "tokens"))
        assert len(together) <= len(one_by_one)
        fewer += len(one_by_one) - len(together)
        if not state:
            assert fast == slow
            continue
        assert rows_of(fast) == rows_of(slow)
        assert fast.state.tokens() == slow.state.tokens()
        torch.testing.assert_close(fast.logprobs, slow.logprobs, atol=1e-4, rtol=0)
    if len(rows) == 1 or (model is not mistral() and rows == [0, 1, 2]):  # others go in step: no holes are made
        assert fewer > 0


def test_forced_tokens_stop_where_a_row_ends():
    """By a stop token, a stop string, a forbidden token, the number of tokens."""
    guide = oc.compile_regex("x x x x x x", VOCABULARY)
    run = Sampler(llama(), tokenizer=VOCABULARY).sample
    assert run(PROMPTS, guide=guide, max_new_tokens=5) == ["x x x"] * 3
    stopping = Sampler(llama(), tokenizer=VOCABULARY, stop_tokens=["x x "])
    assert stopping.sample(PROMPTS, guide=guide) == ["x x "] * 3
    on_space = Sampler(llama(), tokenizer=VOCABULARY, stop_tokens=[" "])
    assert on_space.sample(PROMPTS, guide=guide) == ["x "] * 3
    with pytest.raises(oc.GuideError, match="no token is left"):
        Sampler(llama(), tokenizer=VOCABULARY, forbidden_tokens=[" "]).sample(PROMPTS, guide=guide)


def test_users_processors_see_every_token():
    guide = oc.compile_regex("x x x x x x", VOCABULARY)
    lengths = []

    def watch(ids, logits):
        lengths.append(ids.shape[1])
        return logits

    Sampler(llama(), tokenizer=VOCABULARY).sample(PROMPTS[0], guide=guide, logits_processors=[watch])
    assert lengths == list(range(6, 6 + 12))  # eleven tokens and the EOS


@pytest.mark.parametrize(
    ("chains", "equal", "width"),
    [
        ([], False, 1),
        ([0], False, 1),
        ([5], False, 6),
        ([5, 0], False, 2),
        ([5, 5, 5, 0], False, 6),
        ([5, 0, 0, 0, 0], False, 1),
        ([5, 2], True, 3),
    ],
)
def test_pass_width(chains, equal, width):
    assert pass_width(chains, equal=equal) == width


def test_forced_text_as_the_tokenizer_spells_it():
    model, tokenizer = load_embedded()
    vocabulary = vocabulary_from(tokenizer)
    guide = oc.compile_regex(r'\{"name of the person": "[A-Z][a-z]{2,5}", "city of birth": "[A-Z]"\}', vocabulary)
    run = {mode: Sampler(model, tokenizer=tokenizer, fast_forward=mode).sample for mode in ("text", None)}
    (output, few), (free, many) = (
        passes(model, lambda m=m: run[m]("Who? ", guide=guide, max_new_tokens=60, return_state=True))
        for m in ("text", None)
    )
    for result in (output, free):
        n, state = guide.accept_tokens(guide.initial_state, rows_of(result)[0])
        assert (n, state) == (len(rows_of(result)[0]), oc.FINISHED)
    assert len(few) < len(many)
    spelled = canonical_tokens(
        guide,
        guide.initial_state,
        lambda text: tokenizer.encode(text, add_special_tokens=False),
        vocabulary.token_bytes,
    )
    assert len(spelled) > 1
    assert b"".join(map(vocabulary.token_bytes, spelled)) in b'{"name of the person": "'
    assert rows_of(output)[0][: len(spelled)] == spelled


def test_a_tokenizer_that_spells_otherwise_is_not_followed():
    guide = oc.compile_regex("x x x", VOCABULARY)
    wrong = canonical_tokens(guide, guide.initial_state, lambda _: [3, 4, 5], VOCABULARY.token_bytes)
    assert wrong == []
    finished = canonical_tokens(guide, oc.FINISHED, lambda _: [EOS], VOCABULARY.token_bytes)
    assert finished == []
