"""The model that ships with the package: what its script makes, what it can do, loadable offline."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import outlines_core as oc
from processors.embedded import EMBEDDED_PATH, load_embedded
from scripts.embedded import words
from scripts.embedded.corpus import documents
from scripts.embedded.draw import Draw, Names
from scripts.embedded.records import KINDS, SEEN, UNSEEN, draw_record, is_held_out, render

ROOT = Path(__file__).resolve().parents[2]
SCORES = json.loads((EMBEDDED_PATH / "scores.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def loaded():
    pytest.importorskip("transformers")
    return load_embedded()


def settings():
    pytest.importorskip("torch")
    from scripts.embedded.train import TrainingSettings

    return TrainingSettings()


class TestFiles:
    def test_are_small(self):
        assert sum(file.stat().st_size for file in EMBEDDED_PATH.iterdir()) < 6_000_000
        assert 1_000_000 <= SCORES["training"]["parameters"] <= 3_000_000

    def test_weights_are_those_that_were_scored(self):
        data = (EMBEDDED_PATH / "model.safetensors").read_bytes()
        assert hashlib.sha256(data).hexdigest() == SCORES["training"]["weights_sha256"]

    def test_weights_are_those_of_the_scripts_settings(self):
        assert SCORES["training"]["settings"] == dataclasses.asdict(settings())

    def test_script_rebuilds_the_tokenizer_bit_for_bit(self):
        pytest.importorskip("tokenizers")
        from scripts.embedded.tokenizer import build_tokenizer

        rebuilt = build_tokenizer(settings().seed).to_str()
        assert rebuilt == (EMBEDDED_PATH / "tokenizer.json").read_text(encoding="utf-8")

    def test_script_rebuilds_the_settings(self):
        from scripts.embedded.tokenizer import tokenizer_config
        from scripts.embedded.train import model_config

        for name, value in (("config.json", model_config(settings())), ("tokenizer_config.json", tokenizer_config())):
            assert json.loads((EMBEDDED_PATH / name).read_text(encoding="utf-8")) == value


@pytest.fixture(scope="module")
def trained() -> list[str]:
    return [
        "".join(piece.text for piece in document) for document in itertools.islice(documents(settings().seed), 4_000)
    ]


class TestTexts:
    """What the model is trained on, and what it never sees."""

    def test_a_seed_gives_the_same_texts(self):
        first, again, other = (list(itertools.islice(documents(seed), 50)) for seed in (1, 1, 2))
        assert first == again != other

    def test_held_out_names_occur_by_chance_at_most(self, trained):
        """Random syllables may spell one."""
        lists = [words.split(entry) for entry in (words.FIRST, words.LAST, words.PLACES, words.THINGS)]
        seen = {name for names, _ in lists for name in names}
        held_out = {name for _, names in lists for name in names} - seen
        assert all(len(names) >= 10 for _, names in lists)
        told = re.findall(r"[^\W\d_]+", " ".join(trained))
        assert len(seen & set(told)) > 0.8 * len(seen)
        assert sum(name in held_out for name in told) <= 1

    def test_held_out_values_never_occur(self, trained):
        asked = {int(age) for text in trained if "xtract" in text[:8] for age in re.findall(r'"age": ([0-9]+)', text)}
        assert len(asked) > 60
        assert not any(map(is_held_out, asked))

    def test_unseen_families_share_no_template_with_the_others(self):
        for kind in KINDS:
            seen = {template for family in SEEN[kind].values() for template in family}
            unseen = {template for family in UNSEEN[kind].values() for template in family}
            assert unseen
            assert not seen & unseen

    @pytest.mark.parametrize("kind", KINDS)
    def test_renderings_hold_the_record(self, kind):
        jsonschema = pytest.importorskip("jsonschema")
        draw = Draw(3)
        names = Names(draw)
        for n in range(60):
            record = draw_record(draw, names, kind, unseen_family=n % 2 == 0, values=None)
            value = json.loads(render(record, "json"))
            jsonschema.validate(value, record.schema)
            assert {name: str(v) for name, v in record.fields.items()} == {
                name: record.fields[name] if isinstance(v, (int, float)) else v for name, v in value.items()
            }
            compile(render(record, "python"), "record", "eval")

    def test_sql_is_what_sqlite_stores(self):
        import sqlite3

        draw = Draw(4)
        names = Names(draw)
        for _ in range(40):
            record = draw_record(draw, names, "person")
            store = sqlite3.connect(":memory:")
            store.execute(f"CREATE TABLE people ({', '.join(record.fields)})")
            store.execute(render(record, "sql"))
            assert list(map(str, store.execute("SELECT * FROM people").fetchone())) == list(record.fields.values())

    def test_sums_are_right(self):
        draw = Draw(5)
        for _ in range(100):
            fields = draw_record(draw, Names(draw), "sum").fields
            assert eval(fields["expression"]) == int(fields["result"])


class TestTraining:
    def test_the_same_settings_give_the_same_weights(self):
        torch = pytest.importorskip("torch")
        from scripts.embedded.tokenizer import build_tokenizer
        from scripts.embedded.train import TrainingSettings, train

        small = dataclasses.replace(
            TrainingSettings(), steps=3, tokens_per_batch=256, documents_per_pool=64, warmup=1, cooldown=2, layers=1
        )
        tokenizer = build_tokenizer(small.seed)
        threads = torch.get_num_threads()
        losses = []
        try:
            first, again = (
                train(tokenizer, small, lambda progress, _: losses.append(progress.loss), every=1) for _ in range(2)
            )
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(False)
        assert losses[:3] == losses[3:]
        assert losses[0] > losses[2]
        for name, weights in first.state_dict().items():
            assert torch.equal(weights, again.state_dict()[name]), name

    def test_orthogonalised(self):
        torch = pytest.importorskip("torch")
        from scripts.embedded.train import orthogonalised

        made = orthogonalised(torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0)))
        assert made.shape == (2, 24, 16)
        singular = torch.linalg.svdvals(made)
        assert singular.min() > 0.6
        assert singular.max() < 1.3


class TestTokenizer:
    def test_special_tokens(self, loaded):
        model, tokenizer = loaded
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert model.generation_config.pad_token_id == tokenizer.pad_token_id
        assert len(tokenizer) == model.config.vocab_size

    def test_every_byte_is_a_token(self, loaded):
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
    def test_loses_nothing(self, loaded, text):
        _, tokenizer = loaded
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text

    def test_a_name_has_the_same_tokens_wherever_it_stands(self, loaded):
        _, tokenizer = loaded
        for name in ("Oslo", "Maria", "Zimmermann"):
            own = tokenizer(name, add_special_tokens=False)["input_ids"]
            for before in (" ", '"', ": ", "(", '": "'):
                both = tokenizer(before + name, add_special_tokens=False)["input_ids"]
                assert both[-len(own) :] == own
                assert len(own) > 1

    def test_chat_template(self, loaded):
        _, tokenizer = loaded
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
        )
        assert text == "<bos>user: hello\nassistant: "


class TestModel:
    def test_the_demo(self, loaded):
        from scripts.embedded.score import DEMO, answers

        expected = {"name": "Maria Lopez", "age": 34, "city": "Oslo"}
        assert SCORES["demo"] == {"prompt": DEMO, "answer": json.dumps(expected)}
        schema = {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
            "required": ["name", "age", "city"],
            "additionalProperties": False,
        }
        guide = oc.compile_json_schema(schema, vocabulary(loaded))
        assert answers(*loaded, [DEMO]) == [json.dumps(expected)]
        assert json.loads(answers(*loaded, [DEMO], [guide])[0]) == expected

    def test_scores_cover_what_was_held_out(self):
        assert set(SCORES["sets"]) == {
            "trained kinds of text",
            "unseen names",
            "unseen values",
            "unseen template family",
            "all unseen",
        }
        for scores in SCORES["sets"].values():
            assert scores["records"] >= 200
            assert scores["constrained"]["valid_json"] == 1.0
            assert scores["constrained"]["right_fields"] > 0.6

    @pytest.mark.slow
    @pytest.mark.parametrize("name", SCORES["sets"])
    def test_scores_are_what_the_model_gets(self, loaded, name):
        """Another processor may round otherwise, so a text in a hundred may differ."""
        from scripts.embedded.score import SETS, held_out_set, score_set

        number = list(SETS).index(name) + 1
        expected = SCORES["sets"][name]
        found = score_set(*loaded, held_out_set(number, expected["records"] // len(KINDS), **SETS[name]))
        for mode in ("free", "constrained"):
            for what in ("valid_json", "right_fields", "right_records"):
                assert found[mode][what] == pytest.approx(expected[mode][what], abs=0.015)

    def test_generates(self, loaded):
        import torch

        model, tokenizer = loaded
        batch = tokenizer(["The answer", "A"], padding=True, return_tensors="pt")
        assert batch["input_ids"][1, 0] == tokenizer.pad_token_id  # padded on the left
        out = model.generate(
            batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=5,
            min_new_tokens=5,
            do_sample=False,
        )
        assert out.shape == (2, batch["input_ids"].shape[1] + 5)
        assert torch.equal(out[:, : batch["input_ids"].shape[1]], batch["input_ids"])

    def test_dtype_is_float32_unless_asked_for(self, loaded):
        import torch

        assert loaded[0].dtype == torch.float32
        assert load_embedded(dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def vocabulary(loaded):
    from processors.tokenizers import vocabulary_from

    return vocabulary_from(loaded[1])


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
    assert int(done.stdout) == SCORES["training"]["parameters"]
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
