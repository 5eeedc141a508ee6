"""`Vocabulary.from_pretrained`: which bytes a tokenizer.json spells, which ids end a text."""

from __future__ import annotations

import json
import sys

import pytest

import outlines_core as oc

BYTE_LEVEL = {"type": "ByteLevel"}
FALLBACK = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}
ADDED = [
    {"id": 5, "content": "</s>", "special": True},
    {"id": 6, "content": "<think>", "special": False},
    {"id": 7, "content": "<pad>", "special": True},
]


@pytest.fixture
def folder(tmp_path):
    def write(vocab, decoder, **files):
        content = {"model": {"vocab": vocab}, "decoder": decoder, "added_tokens": ADDED}
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        for name, config in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(config))
        return str(tmp_path)

    return write


def test_byte_level(folder):
    place = folder({"a": 0, "Ġa": 1, "Ã": 2, "Ċ": 3}, BYTE_LEVEL, generation_config={"eos_token_id": 5})
    vocabulary = oc.Vocabulary.from_pretrained(place)
    assert dict(vocabulary.items()) == {b"a": (0,), b" a": (1,), b"\xc3": (2,), b"\n": (3,), b"<think>": (6,)}
    assert vocabulary.get_eos_token_id() == 5
    assert vocabulary.special_tokens == {"</s>": 5, "<pad>": 7}


def test_byte_fallback_and_lists_of_pieces(folder):
    pieces = [["<unk>", 0.0], ["▁a", -1.0], ["<0xC3>", -2.0], ["é", -3.0]]
    place = folder(pieces, FALLBACK, tokenizer_config={"eos_token": {"content": "</s>"}})
    vocabulary = oc.Vocabulary.from_pretrained(model=place, revision=None, token=None)
    assert vocabulary.get(b" a") == [1]
    assert vocabulary.get(b"\xc3") == [2]
    assert vocabulary.get("é") == [3]
    assert vocabulary.eos_token_ids == (5,)


def test_which_eos(folder):
    name = {"eos_token": "</s>"}
    place = folder({"a": 0}, BYTE_LEVEL, generation_config={"eos_token_id": [0, 7]}, tokenizer_config=name)
    assert oc.Vocabulary.from_pretrained(place).eos_token_ids == (0, 7)
    place = folder({"a": 0}, BYTE_LEVEL, generation_config={}, tokenizer_config=name)
    assert oc.Vocabulary.from_pretrained(place).eos_token_ids == (5,)
    place = folder({"a": 0}, BYTE_LEVEL, generation_config={}, tokenizer_config={})
    with pytest.raises(ValueError, match="unable to locate the EOS token"):
        oc.Vocabulary.from_pretrained(place)


def test_what_is_refused(folder, tmp_path, monkeypatch):
    for decoder in (None, {"type": "WordPiece"}, {"type": "Sequence", "decoders": [{"type": "Metaspace"}]}):
        place = folder({"a": 0}, decoder, generation_config={"eos_token_id": 5})
        with pytest.raises(ValueError, match="Unsupported tokenizer for .*: Token processor"):
            oc.Vocabulary.from_pretrained(place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        oc.Vocabulary.from_pretrained(str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface_hub"):
        oc.Vocabulary.from_pretrained("nobody/nothing")


def test_a_name_on_the_hub_that_cannot_be_fetched(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*arguments, **options):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(ValueError, match="no folder and cannot be fetched"):
        oc.Vocabulary.from_pretrained("nobody/nothing")


def test_files_of_the_hub_are_read(folder, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    place = folder({"a": 0}, BYTE_LEVEL, generation_config={"eos_token_id": 5}, tokenizer_config={})
    asked = []

    def local(model, name, revision, token):
        asked.append((model, name, revision, token))
        return f"{place}/{name}"

    monkeypatch.setattr(hub, "hf_hub_download", local)
    assert oc.Vocabulary.from_pretrained("some/model", "main", "key").get("a") == [0]
    assert {question[0::2][:2] for question in asked} == {("some/model", "main")}
    assert all(question[3] == "key" for question in asked)
