"""The model that ships with the package: what its script makes, loadable offline."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from processors.embedded import EMBEDDED_PATH, load_embedded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("build_embedded_model", ROOT / "scripts" / "build_embedded_model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def loaded():
    pytest.importorskip("transformers")
    return load_embedded()


def test_is_small():
    assert sum(file.stat().st_size for file in EMBEDDED_PATH.iterdir()) < 3_000_000


def test_script_rebuilds_the_weights_bit_for_bit(script):
    rebuilt = script.safetensors_bytes(script.build_weights())
    assert digest(rebuilt) == digest((EMBEDDED_PATH / "model.safetensors").read_bytes())


def test_script_rebuilds_the_tokenizer_bit_for_bit(script):
    pytest.importorskip("tokenizers")
    rebuilt = script.build_tokenizer().to_str().encode()
    assert digest(rebuilt) == digest((EMBEDDED_PATH / "tokenizer.json").read_bytes())


def test_script_rebuilds_the_settings(script):
    for name, value in (("config.json", script.model_config()), ("tokenizer_config.json", script.tokenizer_config())):
        assert json.loads((EMBEDDED_PATH / name).read_text(encoding="utf-8")) == value


def test_special_tokens(loaded):
    model, tokenizer = loaded
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) == model.config.vocab_size


def test_every_byte_is_a_token(loaded):
    _, tokenizer = loaded
    alphabet = set(tokenizer.backend_tokenizer.pre_tokenizer[1].alphabet())
    assert len(alphabet) == 256
    assert alphabet <= set(tokenizer.get_vocab())


@pytest.mark.parametrize(
    "text",
    [
        "plain text",
        "  two  spaces\n\tand a tab",
        "Größe 你好 👩‍👩‍👧 e\u0301",
        '{"a": [1, 2.5e-3]}',
        "\x00\x7f\u2028",
        "",
    ],
)
def test_tokenizer_loses_nothing(loaded, text):
    _, tokenizer = loaded
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_chat_template(loaded):
    _, tokenizer = loaded
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<bos>user: hello\nassistant: "


def test_generates(loaded):
    import torch

    model, tokenizer = loaded
    batch = tokenizer(["The answer", "A"], padding=True, return_tensors="pt")
    assert batch["input_ids"][1, 0] == tokenizer.pad_token_id  # padded on the left
    out = model.generate(
        batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=5, min_new_tokens=5, do_sample=False
    )
    assert out.shape == (2, batch["input_ids"].shape[1] + 5)
    assert torch.equal(out[:, : batch["input_ids"].shape[1]], batch["input_ids"])


def test_dtype_is_float32_unless_asked_for(loaded):
    import torch

    assert loaded[0].dtype == torch.float32
    assert load_embedded(dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_weights_match_the_file(loaded, script):
    import torch

    weights = script.build_weights()
    state = loaded[0].state_dict()
    state.pop("lm_head.weight")  # tied to the embeddings
    assert set(state) == set(weights)
    for name, array in weights.items():
        assert torch.equal(state[name], torch.from_numpy(array).float()), name


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_loads_without_a_network_and_silently():
    pytest.importorskip("transformers")
    done = run(
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from processors.embedded import load_embedded\n"
        "print(load_embedded()[0].num_parameters())"
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 1_131_648
    assert "Loading weights" not in done.stderr


def test_says_which_extra_is_missing():
    done = run(
        "import sys\nsys.modules['transformers'] = None\n"
        "from processors.embedded import load_embedded\n"
        "try: load_embedded()\n"
        "except ImportError as error: print(error, error.name)"
    )
    assert done.returncode == 0, done.stderr
    assert "outlines-processors[hf]" in done.stdout
    assert "transformers" in done.stdout
