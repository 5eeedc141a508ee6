"""LoRA adapters by name: rows and keys are kept apart, and the model as it is comes back exactly."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from outlines_core import Vocabulary
from tests.lm_toys import tiny_model

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from processors.lm import CachedCausalLM, TransformersBackend  # noqa: E402  # need torch


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two adapters on disk, and the rows of the tiny model with each of them merged."""
    found = {}
    for seed, name in enumerate(["one", "two"]):
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = peft.get_peft_model(tiny_model("llama"), config)
        torch.manual_seed(seed)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.normal_(std=0.5)
        path = tmp_path_factory.mktemp(name)
        model.save_pretrained(path)
        found[name] = str(path), TransformersBackend(model.merge_and_unload().eval())
    return found


@pytest.mark.filterwarnings("ignore")  # of peft and transformers about adapters
def test_adapters(adapters):
    lm = CachedCausalLM(TransformersBackend(tiny_model("llama")), None, Vocabulary(1, {"a": [2]}))
    ids = (3, 4, 5, 6)
    plain = lm.next_token_logprobs_unbatched(ids)
    for name, (path, _) in adapters.items():
        lm.add_new_lora(path, name)
    expected = {name: backend.logprobs([ids])[0] for name, (_, backend) in adapters.items()}

    async def all_at_once():
        return await asyncio.gather(*(lm.next_token_logprobs(ids, lora=name) for name in ("one", "two", None)))

    for _ in range(2):
        one, two, none = asyncio.run(all_at_once())
        np.testing.assert_allclose(one, expected["one"], atol=1e-3)
        np.testing.assert_allclose(two, expected["two"], atol=1e-3)
        np.testing.assert_allclose(none, plain, atol=1e-5)
        lm.clear_cache()
    assert np.abs(one - two).max() > 0.1
    assert np.abs(one - plain).max() > 0.1

    lm.set_lora("one")
    np.testing.assert_allclose(lm.next_token_logprobs_unbatched(ids), expected["one"], atol=1e-3)
    lm.clear_lora()
    np.testing.assert_allclose(lm.next_token_logprobs_unbatched(ids), plain, atol=1e-5)
    lm.set_lora("two")
    lm.remove_lora("two")
    np.testing.assert_allclose(lm.next_token_logprobs_unbatched(ids), plain, atol=1e-5)
    with pytest.raises(ValueError, match="'two'"):
        lm.set_lora("two")
    with pytest.raises(ValueError, match="'two'"):
        lm.next_token_logprobs_unbatched((3, 4), lora="two")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kv_bytes", [2**20, 30 * 384])
def test_no_adapter_is_served_keys_of_another(adapters, kv_bytes):
    """The same texts grow under three models in turn, one token a forward; with little room, keys are evicted."""
    backend = TransformersBackend(tiny_model("llama"), kv_bytes=kv_bytes)
    plain = TransformersBackend(tiny_model("llama"))
    for name, (path, _) in adapters.items():
        backend.add_lora(path, name)
    truth = {None: plain, **{name: merged for name, (_, merged) in adapters.items()}}
    rng = np.random.default_rng(0)
    text = tuple(rng.integers(2, 61, 3).tolist())
    for _ in range(8):
        text = (*text, int(rng.integers(2, 61)))
        for name in ("one", None, "two", "one"):  # the last is all there already
            fed = backend.n_tokens
            row = backend.logprobs([text], name)[0]
            np.testing.assert_allclose(row, truth[name].logprobs([text])[0], atol=1e-3)
            if kv_bytes == 2**20 and len(text) > 4:
                assert backend.n_tokens - fed == 1
    assert backend.n_cached_tokens <= kv_bytes // 384


@pytest.mark.filterwarnings("ignore")
def test_a_name_that_is_given_again(adapters):
    lm = CachedCausalLM(TransformersBackend(tiny_model("llama")), None, Vocabulary(1, {"a": [2]}))
    ids = (3, 4, 5, 6)
    for source in ("one", "two"):
        path, merged = adapters[source]
        lm.add_new_lora(path, "mine")
        row = lm.next_token_logprobs_unbatched(ids, lora="mine")
        np.testing.assert_allclose(row, merged.logprobs([ids])[0], atol=1e-3)
    with pytest.raises(Exception, match="nowhere"):
        lm.add_new_lora("/nowhere", "other")
    assert lm.backend.loras == {"mine"}
    plain = TransformersBackend(tiny_model("llama")).logprobs([(3, 4)])[0]
    np.testing.assert_allclose(lm.next_token_logprobs_unbatched((3, 4)), plain, atol=1e-5)
