"""The transformers backend: cached == uncached, batched == single, and what a new token costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlines_core.errors import LimitExceededError, UnsupportedFeatureError
from tests.lm_toys import tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from processors.lm import hf, lean  # noqa: E402  # needs torch
from processors.lm.hf import TransformersBackend  # noqa: E402

KINDS = ["llama", "sliding", "gpt2", "bloom", "opt", "gemma3"]


@pytest.fixture(scope="module")
def models():
    return {kind: tiny_model(kind) for kind in [*KINDS, "mamba"]}


def plain(model, prefix):
    """The model asked without any cache: the readable twin."""
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([prefix])).logits[0, -1].float(), -1).numpy()


def close(rows, expected):
    np.testing.assert_allclose(np.stack(rows), np.stack(expected), atol=2e-4, rtol=1e-4)


PREFIXES = [
    (3, 4, 5),
    (3, 4, 6, 7, 8, 9, 10, 11, 12, 13),
    (7,),
    (3, 4),
    (3, 4, 5, 6),
    (9, 4, 5, 6),
    (3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20),
]


@pytest.mark.parametrize("kind", KINDS)
def test_batched_is_single_is_uncached(models, kind):
    model = models[kind]
    expected = [plain(model, p) for p in PREFIXES]
    together = TransformersBackend(model)
    close(together.logprobs(PREFIXES), expected)
    close(together.logprobs(PREFIXES), expected)
    one_by_one = TransformersBackend(model)
    close([one_by_one.logprobs([p])[0] for p in PREFIXES], expected)
    close(TransformersBackend(model, kv_bytes=0).logprobs(PREFIXES), expected)


@pytest.mark.parametrize("lengths", [(1, 5, 9), (4, 4, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_growing_by_one_token(models, kind, lengths):
    model = models[kind]
    backend = TransformersBackend(model)
    rng = np.random.default_rng(0)
    texts = [tuple(rng.integers(2, 61, size=n).tolist()) for n in lengths]
    for _ in range(12):
        close(backend.logprobs(texts), [plain(model, text) for text in texts])
        texts = [(*text, int(rng.integers(2, 61))) for text in texts]


def test_a_new_token_costs_one_token(models):
    backend = TransformersBackend(models["llama"])
    prompt = tuple(range(2, 42))
    backend.logprobs([prompt])
    assert (backend.n_forwards, backend.n_tokens) == (1, 40)
    backend.logprobs([(*prompt, t) for t in range(20)])
    assert (backend.n_forwards, backend.n_tokens) == (2, 60)
    backend.logprobs([(*prompt, t, 5) for t in range(20)])
    assert (backend.n_forwards, backend.n_tokens) == (3, 80)
    assert backend.n_cached_tokens == 80


def test_a_prompt_that_rows_share_is_computed_once(models):
    model = models["llama"]
    backend = TransformersBackend(model)
    prompt = tuple(range(2, 22))
    texts = [(*prompt, t) for t in range(10)]
    close(backend.logprobs(texts), [plain(model, text) for text in texts])
    assert backend.n_tokens == 30
    assert backend.n_forwards == 2


def test_prompts_that_begin_alike_keep_each_other(models):
    model = models["llama"]
    backend = TransformersBackend(model)
    backend.logprobs([(2, 3, 4, 5)])
    backend.logprobs([(2, 3, 9, 8)])
    before = backend.n_tokens
    texts = [(2, 3, 4, 5, 6), (2, 3, 9, 8, 6)]
    close(backend.logprobs(texts), [plain(model, text) for text in texts])
    assert backend.n_tokens == before + 2


def test_equal_ends_behind_different_cached_pasts(models):
    model = models["llama"]
    backend = TransformersBackend(model)
    backend.logprobs([(2, 3), (4, 5)])
    texts = [(2, 3, 7, 8), (4, 5, 7, 8)]
    close(backend.logprobs(texts), [plain(model, text) for text in texts])


@settings(max_examples=25)
@given(data=st.data())
def test_any_history_under_eviction(models, data):
    model = models["llama"]
    room = data.draw(st.integers(8, 24))
    backend = TransformersBackend(model, kv_bytes=1)
    backend._trie.capacity = room
    for _ in range(data.draw(st.integers(1, 6))):
        ids = st.lists(st.integers(2, 4), min_size=1, max_size=8).map(tuple)
        texts = data.draw(st.lists(ids, min_size=1, max_size=5, unique=True))
        close(backend.logprobs(texts), [plain(model, text) for text in texts])
        assert backend.n_cached_tokens <= room


def test_memory_is_bounded_in_bytes(models):
    backend = TransformersBackend(
        models["llama"], kv_bytes=40 * 384
    )  # 3 layers x 2 x 2 heads x 8 x 4 bytes = 384 a token
    rng = np.random.default_rng(0)
    for _ in range(30):
        backend.logprobs([tuple(rng.integers(2, 61, size=9).tolist())])
        assert backend.nbytes <= 40 * 384
    with pytest.raises(LimitExceededError, match="kv_bytes") as caught:
        backend.logprobs([tuple(range(2, 60))])
    assert caught.value.given == 58
    assert caught.value.limit == 39


def grown(backend, seed=0):
    """Rows of different lengths that grow by a token, one a forward but for the first."""
    rng = np.random.default_rng(seed)
    texts = [tuple(rng.integers(2, 61, n).tolist()) for n in (1, 4, 7)]
    rows = []
    for _ in range(4):
        rows += backend.logprobs(texts)
        texts = [(*text, int(rng.integers(2, 61))) for text in texts]
    return rows


def test_a_plain_llama_without_its_modules_is_the_model_itself(models, monkeypatch):
    decode, found = hf.decode, []
    monkeypatch.setattr(hf, "decode", lambda *args: found.append(decode(*args)) or found[-1])
    quick = grown(TransformersBackend(models["llama"]))
    assert [x is not None for x in found] == [True] * 3
    monkeypatch.setattr(hf, "decode", lambda *args: None)
    close(quick, grown(TransformersBackend(models["llama"])))


def test_large_projections_are_not_copied(models, monkeypatch):
    monkeypatch.setattr(lean, "_SMALL", 0)
    lean.forget()
    alone = grown(TransformersBackend(models["llama"]))
    assert not lean._together
    monkeypatch.setattr(hf, "decode", lambda *args: None)
    close(alone, grown(TransformersBackend(models["llama"])))


def hooked(model):
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, output: 0.5 * output)


def patched(model):
    mlp = model.model.layers[1].mlp
    plain = mlp.forward
    mlp.forward = lambda x: 0.5 * plain(x)


def replaced(model):
    model.model.layers[1].mlp.down_proj = torch.nn.Sequential(torch.nn.Linear(48, 32))


def reloaded(model):
    state = {name: 0.5 * value for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def changed_in_place(model):
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight.mul_(0.5)
        model.model.layers[1].mlp.up_proj.weight.mul_(0.5)


def changed_behind_the_back_of_torch(model):
    for name in ("gate_proj", "up_proj", "down_proj"):
        getattr(model.model.layers[1].mlp, name).weight.data.mul_(0.5)  # what adapters do when they are merged


@pytest.mark.parametrize(
    "change", [hooked, patched, replaced, reloaded, changed_in_place, changed_behind_the_back_of_torch]
)
def test_what_is_done_to_a_model_counts(monkeypatch, change):
    model = tiny_model("llama")
    backend = TransformersBackend(model)
    before = grown(backend)
    change(model)
    backend.clear()
    after = grown(backend)
    monkeypatch.setattr(hf, "decode", lambda *args: None)
    close(after, grown(TransformersBackend(model)))
    assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 0.01


def test_a_failed_forward_leaves_no_trace(models, monkeypatch):
    model = models["llama"]
    backend = TransformersBackend(model)
    backend.logprobs([(2, 3)])
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            backend.logprobs([(2, 3, 4, 5), (6, 7)])
    assert backend.n_cached_tokens == 2
    close(backend.logprobs([(2, 3, 4, 5), (6, 7)]), [plain(model, (2, 3, 4, 5)), plain(model, (6, 7))])


def test_clear(models):
    backend = TransformersBackend(models["llama"])
    backend.logprobs([(2, 3, 4)])
    backend.clear()
    assert backend.n_cached_tokens == 0
    close(backend.logprobs([(2, 3, 4)]), [plain(models["llama"], (2, 3, 4))])
    assert backend.n_tokens == 6


def test_recurrent_models_are_refused_by_name_and_run_without_a_cache(models):
    with pytest.raises(UnsupportedFeatureError, match="kv_bytes=0"):
        TransformersBackend(models["mamba"])
    texts = [(3, 4, 5), (7,), (9, 8, 7, 6, 5, 4, 3)]
    close(TransformersBackend(models["mamba"], kv_bytes=0).logprobs(texts), [plain(models["mamba"], t) for t in texts])


def test_training_mode_is_refused(models):
    model = tiny_model("llama").train()
    with pytest.raises(ValueError, match="eval"):
        TransformersBackend(model)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rows_of_half_precision_models_are_normalised_in_float32(dtype):
    backend = TransformersBackend(tiny_model("llama").to(getattr(torch, dtype)))
    rows = backend.logprobs([(2, 3, 4), (5, 6)])
    for row in rows:
        assert row.dtype == np.float32
        assert abs(np.logaddexp.reduce(row.astype(np.float64))) < 1e-5


def test_rows_have_memory_of_their_own(models):
    rows = TransformersBackend(models["llama"]).logprobs([(2, 3), (4, 5)])
    assert all(row.base is None or row.base.nbytes == row.nbytes for row in rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(models, kind):
    model = tiny_model(kind).cuda()
    backend = TransformersBackend(model)
    close(backend.logprobs(PREFIXES), [plain(models[kind], p) for p in PREFIXES])
    close(backend.logprobs(PREFIXES), [plain(models[kind], p) for p in PREFIXES])
