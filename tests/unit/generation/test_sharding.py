"""A batch that is split gives what it gives whole."""

import socket

import pytest
import torch
from torch import multiprocessing

from processors.generation import Sampler
from tests.sampler_mesh import CALL, GUIDES, PROMPTS, run_rank, sampler
from tests.sampler_models import VOCABULARY, llama, rows_of


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_list_of_devices(n, guided):
    call = {**CALL, "guide": GUIDES if guided else None}
    whole = sampler().sample(PROMPTS, return_state=True, **call)
    split = sampler().sample(PROMPTS, return_state=True, sharding=["cpu"] * n, **call)
    assert split.text == whole.text
    assert rows_of(split) == rows_of(whole)
    torch.testing.assert_close(split.logprobs, whole.logprobs, atol=1e-4, rtol=0)
    assert split.state.tokens() == whole.state.tokens()
    assert split.state.n_rows == 4
    assert split.state.used_cache_length <= whole.state.used_cache_length
    pieces = list(sampler().sample(PROMPTS, stream=True, sharding=["cpu"] * n, **call))
    assert ["".join(row) for row in zip(*pieces, strict=True)] == whole.text
    more = [[3], [4, 5], [6], [7]]
    second = sampler().sample(more, max_new_tokens=6, last_state=split.state, sharding=[torch.device("cpu")] * n)
    assert second == sampler().sample(more, max_new_tokens=6, last_state=whole.state)
    with pytest.raises(ValueError, match="was split into|on several devices"):
        sampler().sample(more, last_state=split.state, sharding=["cpu"] * 3 if n == 4 else None)


def test_copies_of_the_model_follow_its_weights(monkeypatch):
    """The meta device stands for another one: nothing is run on it."""
    from processors.generation import _sharding

    model = llama(5)
    one = Sampler(model, tokenizer=VOCABULARY)
    meta = torch.device("meta")
    first, _ = _sharding._on_device(one, meta)
    assert first is not model
    assert first.device == meta
    assert _sharding._on_device(one, meta)[0] is first
    with torch.no_grad():
        model.lm_head.weight.mul_(1.0)
    assert _sharding._on_device(one, meta)[0] is not first
    assert _sharding._on_device(one, torch.device("cpu"))[0] is model


@pytest.mark.slow
def test_a_mesh_of_two_processes():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(run_rank, (port, results), nprocs=2)
        found = [results[0], results[1]]
    whole = sampler().sample(PROMPTS, return_state=True, guide=GUIDES, **CALL)
    second = sampler().sample([[3], [4, 5], [6], [7]], max_new_tokens=6, last_state=whole.state)
    for text, rows, n_rows, later, errors in found:
        assert text == whole.text
        assert rows == rows_of(whole)
        assert n_rows == 2
        assert later == second
        assert "3 prompts cannot be split" in errors[0]
        assert "a stream cannot be split" in errors[1]
        assert "no token is left" in errors[2]  # in the second process, and raised in both
