"""Compiled models: the same tokens, and one graph for all decoding steps."""

import copy
import itertools

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import outlines_core as oc
from processors.generation import RandomSampling, Sampler
from tests.sampler_models import BOS, VOCABULARY, gpt2, llama, mistral, rows_of

PROMPTS = [[BOS, 5, 9, 3, 3, 7], [BOS, 4], [BOS, 8, 6, 10, 11, 12, 13, 14, 3]]
GUIDE = oc.compile_regex("(ab|c){1,6}d?[01]{2,6}", VOCABULARY)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def wrapped(model, counter):
    return torch.compile(model, backend=counter)


def in_place(model, counter):
    model = copy.deepcopy(model)
    model.compile(backend=counter)
    return model


def forward_only(model, counter):
    model = copy.deepcopy(model)
    model.forward = torch.compile(model.forward, backend=counter)
    return model


CASES = [
    pytest.param(make, compiled, id=f"{make.__name__}-{compiled.__name__}", marks=[pytest.mark.slow] if n else [])
    for n, (make, compiled) in enumerate(itertools.product((llama, gpt2, mistral), (wrapped, in_place, forward_only)))
]


@pytest.mark.parametrize(("make", "compiled"), CASES)
def test_one_graph_for_all_steps(make, compiled):
    model, counter = make(), CompileCounter()
    options = {"cache_length": 48, "pad_length": (12, 16), "tokenizer": VOCABULARY, "sampling": RandomSampling()}
    plain, fast = Sampler(model, **options), Sampler(compiled(model, counter), **options)
    for n in (4, 11, 20):
        call = {"max_new_tokens": n, "return_state": True, "rng": n, "guide": GUIDE if n == 20 else None}
        slow, quick = plain.sample(PROMPTS, **call), fast.sample(PROMPTS, **call)
        assert rows_of(quick) == rows_of(slow)
        if n == 4:
            frames = counter.frame_count
    assert counter.frame_count == frames  # prompt and step were compiled once, whatever the lengths
    more = {"max_new_tokens": 5, "last_state": quick.state, "rng": 1}
    expected = plain.sample([[3], [4, 5], [6]], **{**more, "last_state": slow.state})
    assert fast.sample([[3], [4, 5], [6]], **more) == expected


@pytest.mark.slow
def test_drafts():
    counter = CompileCounter()
    options = {"cache_length": 48, "tokenizer": VOCABULARY, "draft_model": llama(1)}
    fast = Sampler(torch.compile(llama(), backend=counter), **options)
    plain = Sampler(llama(), tokenizer=VOCABULARY)
    assert fast.sample(PROMPTS, max_new_tokens=12) == plain.sample(PROMPTS, max_new_tokens=12)
    assert counter.frame_count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_the_default_compiler():
    options = {"cache_length": 48, "pad_length": 16, "tokenizer": VOCABULARY}
    fast = Sampler(torch.compile(llama()), **options)
    assert fast.sample(PROMPTS, max_new_tokens=20) == Sampler(llama(), **options).sample(PROMPTS, max_new_tokens=20)
