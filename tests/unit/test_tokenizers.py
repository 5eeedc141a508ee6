"""`vocabulary_from`: each kind of tokenizer on tokens that can be checked by eye, EOS ids, refusals, the cache."""

from __future__ import annotations

import copy
import gc
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import outlines_core as oc
from processors import tokenizers as module
from processors.tokenizers import as_vocabulary, vocabulary_from
from tests import tokenizer_zoo as zoo


def ids_of(vocabulary: oc.Vocabulary, token: str | bytes) -> list[int]:
    return vocabulary.get(token) or []


def text_of(vocabulary: oc.Vocabulary, tokenizer, name: str) -> bytes:
    return vocabulary.token_bytes(tokenizer.convert_tokens_to_ids(name))


# -- kinds -------------------------------------------------------------------------------------------------------------


def test_byte_level():
    tokenizer = zoo.make("byte_level")
    vocabulary = vocabulary_from(tokenizer)
    assert text_of(vocabulary, tokenizer, "Ġthe") == b" the"
    assert text_of(vocabulary, tokenizer, "Ċ") == b"\n"
    assert text_of(vocabulary, tokenizer, "é") == b"\xe9"  # half of a character
    assert text_of(vocabulary, tokenizer, "<tool_call>") == b"<tool_call>"
    assert text_of(vocabulary, tokenizer, "naïveté") == "naïveté".encode()  # added tokens are literal
    assert text_of(vocabulary, tokenizer, "日本語文") == "日本語文".encode()
    assert vocabulary.special_tokens == {"<|endoftext|>": 0, "<|im_end|>": 1}
    assert vocabulary.eos_token_ids == (0,)
    assert vocabulary.size == len(tokenizer)
    assert {vocabulary.token_bytes(i) for i in range(vocabulary.size)} >= {bytes([byte]) for byte in range(256)}


def test_an_added_token_that_the_model_has_spells_what_it_spells_there():
    tokenizer = zoo.byte_level()
    before = tokenizer.convert_tokens_to_ids("Ġthe")
    tokenizer.add_tokens(["Ġthe"])
    assert tokenizer.convert_tokens_to_ids("Ġthe") == before
    assert vocabulary_from(tokenizer).token_bytes(before) == b" the" == tokenizer.decode([before]).encode()


@pytest.mark.parametrize("kind", ["llama2", "mistral", "gemma", "unigram_bytes"])
def test_sentencepiece(kind):
    tokenizer = zoo.make(kind)
    vocabulary = vocabulary_from(tokenizer)
    for byte in (0x00, 0x0A, 0x41, 0xFF):
        assert text_of(vocabulary, tokenizer, f"<0x{byte:02X}>") == bytes([byte])
    assert text_of(vocabulary, tokenizer, zoo.SPACE) == b" "
    assert any(len(ids) == 2 for _, ids in vocabulary.items())  # a byte and the letter it is
    assert not vocabulary.token_bytes(tokenizer.convert_tokens_to_ids("<unk>"))
    assert {"<unk>", "</s>"} <= set(vocabulary.special_tokens)
    assert vocabulary.eos_token_ids == (tokenizer.convert_tokens_to_ids("</s>"),)


def test_gemma_runs_of_spaces_are_spaces_though_listed_as_added_tokens():
    tokenizer = zoo.make("gemma")
    vocabulary = vocabulary_from(tokenizer)
    assert text_of(vocabulary, tokenizer, zoo.SPACE * 2) == b"  "
    assert text_of(vocabulary, tokenizer, "<td>") == b"<td>"


def test_t5():
    tokenizer = zoo.make("t5")
    vocabulary = vocabulary_from(tokenizer)
    starts = [name for name in tokenizer.get_vocab() if name.startswith(zoo.SPACE)]
    assert starts
    assert all(text_of(vocabulary, tokenizer, name) == f" {name[1:]}".encode() for name in starts)
    assert {"<unk>", "<pad>", "</s>", "<extra_id_0>"} <= set(vocabulary.special_tokens)
    assert text_of(vocabulary, tokenizer, "plain added") == b"plain added"


def test_word_piece():
    tokenizer = zoo.make("word_piece")
    vocabulary = vocabulary_from(tokenizer)
    assert text_of(vocabulary, tokenizer, "the") == b" the"
    assert text_of(vocabulary, tokenizer, "##e") == b"e"
    assert text_of(vocabulary, tokenizer, ".") == b" ."
    clean = zoo.make("word_piece_clean")
    assert text_of(vocabulary_from(clean), clean, ".") == b"."
    assert text_of(vocabulary_from(clean), clean, "n't") == b"n't"
    assert text_of(vocabulary_from(clean), clean, "do not") == b" don't"


def test_word_level():
    vocabulary = vocabulary_from(zoo.make("word_level"))
    assert [vocabulary.token_bytes(i) for i in range(4)] == [b" yes", b" no", b"", b""]
    assert vocabulary.special_tokens == {"[UNK]": 2, "[END]": 3}


def test_byt5():
    tokenizer = zoo.make("byt5")
    vocabulary = vocabulary_from(tokenizer)
    assert [vocabulary.token_bytes(i) for i in range(3)] == [b"", b"", b""]
    assert [vocabulary.token_bytes(3 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    assert vocabulary.size == 259 + 125
    assert len(vocabulary.special_tokens) == 3 + 125
    assert vocabulary.eos_token_ids == (1,)


def test_perceiver():
    tokenizer = zoo.transformers.PerceiverTokenizer()
    vocabulary = vocabulary_from(tokenizer, eos_token_ids=tokenizer.sep_token_id)
    assert [vocabulary.token_bytes(i) for i in tokenizer("aé", add_special_tokens=False).input_ids] == [
        b"a",
        b"\xc3",
        b"\xa9",
    ]


def test_a_byte_level_model_without_decoder_is_known_by_its_pre_tokenizer():
    core = zoo.byte_level().backend_tokenizer
    expected = vocabulary_from(core, eos_token_ids=0)
    core.decoder = None
    assert vocabulary_from(core, eos_token_ids=0) == expected


def test_a_strip_before_fuse_is_applied_to_each_token():
    core = zoo.Tokenizer(zoo.models.WordLevel({"  a ": 0, " b": 1, "[END]": 2}, unk_token="[END]"))
    core.decoder = zoo.decoders.Sequence([zoo.decoders.Strip(" ", 1, 1), zoo.decoders.Fuse()])
    vocabulary = vocabulary_from(core, eos_token_ids=2)
    assert [vocabulary.token_bytes(i) for i in range(2)] == [b" a", b"b"]
    assert core.decode([1, 0]) == "b a"


def test_tiktoken():
    encoding = zoo.tiktoken_encoding()
    vocabulary = vocabulary_from(encoding)
    n_ranks = len(zoo.byte_ranks())
    assert vocabulary.size == encoding.n_vocab == n_ranks + 10
    assert vocabulary.eos_token_ids == (n_ranks + 7,)
    assert vocabulary.special_tokens["<|fim_prefix|>"] == n_ranks + 9
    assert all(vocabulary.token_bytes(i) == token for token, i in zoo.byte_ranks().items())
    assert vocabulary.token_bytes(n_ranks + 3) == b""  # a hole
    with pytest.raises(oc.VocabularyError, match="eos_token_ids="):
        vocabulary_from(zoo.tiktoken_encoding({"<|other|>": 9000}))


def test_a_python_tokenizer_around_tiktoken():
    wrapper = SimpleNamespace(model=zoo.tiktoken_encoding(), eos_token_id=[3, 5])
    vocabulary = vocabulary_from(wrapper)
    assert vocabulary.eos_token_ids == (3, 5, len(zoo.byte_ranks()) + 7)
    assert vocabulary.token_bytes(65) == b"A"
    assert vocabulary.token_bytes(3) == b""


def test_tekken(tmp_path: Path):
    data = zoo.tekken_data()
    vocabulary = vocabulary_from(data)
    ranks = zoo.byte_ranks()
    assert vocabulary.size == 30 + len(ranks) - 10
    for token, rank in ranks.items():
        if rank < len(ranks) - 10:
            assert vocabulary.token_bytes(rank + 30) == token
    assert vocabulary.eos_token_ids == (2,)
    assert vocabulary.special_tokens["[INST]"] == 3
    assert vocabulary.special_tokens["<SPECIAL_29>"] == 29
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(data))
    assert vocabulary_from(path) == vocabulary_from(str(path)) == vocabulary_from(tmp_path) == vocabulary
    listed = [{"rank": 0, "token_str": "</s>", "is_control": True}, {"rank": 1, "token_str": "[X]", "is_control": True}]
    newer = vocabulary_from(zoo.tekken_data(special_tokens=listed))
    assert newer.eos_token_ids == (0,)
    assert newer.special_tokens["[X]"] == 1
    assert newer.special_tokens["<SPECIAL_2>"] == 2
    assert [newer.token_bytes(i) for i in range(30, newer.size)] == [
        vocabulary.token_bytes(i) for i in range(30, newer.size)
    ]


def test_a_mistral_common_tokenizer():
    ranks = dict(list(zoo.byte_ranks().items())[:300])
    tekkenizer = SimpleNamespace(
        _tekken_token2id_nospecial=ranks,
        _special_tokens_reverse_vocab={"<unk>": 0, "<s>": 1, "</s>": 2},
        num_special_tokens=3,
        eos_id=2,
    )
    outer = SimpleNamespace(tokenizer=SimpleNamespace(instruct_tokenizer=SimpleNamespace(tokenizer=tekkenizer)))
    vocabulary = vocabulary_from(outer)
    assert vocabulary == vocabulary_from(tekkenizer)
    assert vocabulary.size == 303
    assert vocabulary.token_bytes(3 + 65) == b"A"


@pytest.mark.parametrize(
    ("data", "message"), [({}, "KeyError"), ({"config": 3, "vocab": []}, "TypeError"), ({"config": {}}, "KeyError")]
)
def test_not_a_tekken_file(data, message):
    with pytest.raises(oc.VocabularyError, match=message):
        vocabulary_from(data)


def test_bad_tekken_files(tmp_path: Path):
    with pytest.raises(oc.VocabularyError, match=r"cannot read .*No such file"):
        vocabulary_from(tmp_path / "none.json")
    with pytest.raises(oc.VocabularyError, match="cannot read"):
        vocabulary_from("some/model-name")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(oc.VocabularyError, match="is not JSON"):
        vocabulary_from(tmp_path / "bad.json")
    data = zoo.tekken_data()
    data["vocab"][5]["token_bytes"] = "?"
    with pytest.raises(oc.VocabularyError, match="not a tekken file"):
        vocabulary_from(data)


def sentencepiece_processor(byte_fallback: bool = True):
    sentencepiece = pytest.importorskip("sentencepiece")
    return sentencepiece.SentencePieceProcessor(model_proto=zoo.sentencepiece_model(byte_fallback))


def test_sentencepiece_processor():
    processor = sentencepiece_processor()
    vocabulary = vocabulary_from(processor)
    assert vocabulary.eos_token_ids == (processor.eos_id(),)
    assert set(vocabulary.special_tokens) == {"<unk>", "<s>", "</s>", "<ctrl>"}
    assert vocabulary.token_bytes(processor.piece_to_id("<tool>")) == b"<tool>"
    assert vocabulary.token_bytes(processor.piece_to_id("<0x0A>")) == b"\n"
    assert vocabulary.token_bytes(processor.piece_to_id("\u2581the")) == b" the"


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_slow_sentencepiece(tmp_path: Path, byte_fallback):
    backend = pytest.importorskip("transformers.tokenization_utils_sentencepiece")
    path = tmp_path / "tokenizer.model"
    path.write_bytes(zoo.sentencepiece_model(byte_fallback))
    tokenizer = backend.SentencePieceBackend(
        vocab_file=str(path), eos_token="</s>", bos_token="<s>", unk_token="<unk>", pad_token="<new pad>"
    )
    tokenizer.add_tokens(["added text"])
    vocabulary = vocabulary_from(tokenizer)
    processor = sentencepiece_processor(byte_fallback)
    plain = vocabulary_from(processor)
    n_pieces = processor.get_piece_size()
    assert [vocabulary.token_bytes(i) for i in range(n_pieces)] == [plain.token_bytes(i) for i in range(n_pieces)]
    assert vocabulary.special_tokens["<new pad>"] == tokenizer.pad_token_id >= n_pieces
    assert text_of(vocabulary, tokenizer, "added text") == b"added text"
    assert vocabulary.size == n_pieces + 2


class Slow:
    """A tokenizer written in Python, with what `transformers` gives such a class."""

    all_special_tokens, all_special_ids, eos_token_id = ["</s>"], [0], 0
    added_tokens_decoder = {0: SimpleNamespace(special=True)}

    def __init__(self, vocabulary, **kind):
        self._vocabulary = {"</s>": 0, **vocabulary}
        self.__dict__.update(kind)

    def __len__(self):
        return len(self._vocabulary)

    def get_vocab(self):
        return dict(self._vocabulary)

    def convert_ids_to_tokens(self, ids):
        raise AssertionError("not needed")


def test_slow_byte_level_and_word_piece():
    byte_level = Slow({"Ġa": 1, "é": 2}, byte_decoder=dict.fromkeys(map(chr, range(256)), 0))
    byte_level.added_tokens_decoder = {}
    assert [vocabulary_from(byte_level).token_bytes(i) for i in range(3)] == [b"", b" a", b"\xe9"]
    word_piece = Slow({"a": 1, "##b": 2}, wordpiece_tokenizer=object())
    word_piece.added_tokens_decoder = {}
    assert [vocabulary_from(word_piece).token_bytes(i) for i in range(3)] == [b"", b" a", b"b"]


def test_a_multimodal_processor():
    tokenizer = zoo.make("byte_level")
    assert vocabulary_from(SimpleNamespace(tokenizer=tokenizer, image_processor=object())) == vocabulary_from(tokenizer)


class Protocol:
    """outlines' tokenizer protocol."""

    eos_token_id = 0
    special_tokens = frozenset({"<eos>"})

    def __init__(self, **texts):
        self.texts = {"<eos>": "<eos>", "a": "a", "Ġb": " b", "<0xE4>": "\ufffd", "Ã": "\ufffd", "\ufffd": "\ufffd"}
        self.texts |= texts
        self.vocabulary = {name: i for i, name in enumerate(self.texts)}

    def convert_token_to_string(self, token):
        return self.texts[token]

    def decode(self, ids):
        raise AssertionError("not needed")


def test_outlines_protocol():
    vocabulary = vocabulary_from(Protocol(raw=b"\xf0"))
    expected = [b"", b"a", b" b", b"\xe4", b"\xc3", "\ufffd".encode(), b"\xf0"]
    assert [vocabulary.token_bytes(i) for i in range(7)] == expected
    assert vocabulary.special_tokens == {"<eos>": 0}
    with pytest.raises(oc.VocabularyError, match=r"cannot convert the token '中' \(id 6\)"):
        vocabulary_from(Protocol(中="\ufffd"))
    with pytest.raises(oc.VocabularyError, match="returned NoneType"):
        vocabulary_from(Protocol(x=None))


def test_a_wrapper_with_a_known_tokenizer_inside_is_read_exactly():
    wrapper = Protocol()
    wrapper.tokenizer = zoo.make("byte_level")
    assert vocabulary_from(wrapper) == vocabulary_from(zoo.make("byte_level"))


def test_a_vocabulary_is_returned_as_it_is():
    vocabulary = oc.Vocabulary(3, {"a": [0], "b": [1, 2]}, special_tokens={"<x>": 4})
    assert vocabulary_from(vocabulary) is vocabulary
    assert as_vocabulary(vocabulary) is vocabulary
    other = vocabulary_from(vocabulary, eos_token_ids=[2], size=40)
    assert other.eos_token_ids == (2,)
    assert (other.get("b"), other.size, other.special_tokens) == ([1], 40, {"<x>": 4})
    assert vocabulary_from(vocabulary, eos_token_ids=0).size == vocabulary.size
    assert as_vocabulary(zoo.make("byte_level")) == vocabulary_from(zoo.make("byte_level"))


# -- EOS ids and the size ----------------------------------------------------------------------------------------------


def test_eos_ids_that_are_given():
    core = zoo.make("byte_level").backend_tokenizer
    with pytest.raises(oc.VocabularyError, match=r"Tokenizer names no token .* vocabulary_from\(tokenizer, eos_token_"):
        vocabulary_from(core)
    assert vocabulary_from(core, eos_token_ids=1).eos_token_ids == (1,)
    assert vocabulary_from(core, eos_token_ids=np.int64(1)).eos_token_ids == (1,)
    assert vocabulary_from(core, eos_token_ids=[1, 0, 1]).eos_token_ids == (1, 0)
    assert vocabulary_from(zoo.make("byte_level"), eos_token_ids=[1]).eos_token_ids == (1,)
    with pytest.raises(oc.VocabularyError, match="empty"):
        vocabulary_from(core, eos_token_ids=[])
    with pytest.raises(oc.VocabularyError, match="out of range"):
        vocabulary_from(core, eos_token_ids=-1)


def test_an_eos_id_that_is_text_is_no_longer_text():
    tokenizer = zoo.make("byte_level")
    newline = tokenizer.convert_tokens_to_ids("Ċ")
    vocabulary = vocabulary_from(tokenizer, eos_token_ids=newline)
    assert vocabulary.token_bytes(newline) == b""
    assert newline not in ids_of(vocabulary, "\n")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"generation_config.json": '{"eos_token_id": [1, 0, 300]}'}, (0, 1, 300)),
        ({"generation_config.json": '{"eos_token_id": 1}', "config.json": '{"eos_token_id": 300}'}, (0, 1)),
        ({"generation_config.json": "{}", "config.json": '{"eos_token_id": 1}'}, (0, 1)),
        ({"generation_config.json": '{"eos_token_id": null}', "config.json": '{"eos_token_id": -1}'}, (0,)),
        ({"generation_config.json": '{"eos_token_id": true}', "config.json": "[1]"}, (0,)),
        ({"generation_config.json": "{"}, (0,)),
        ({}, (0,)),
    ],
)
def test_eos_ids_of_the_model(tmp_path: Path, files, expected):
    zoo.make("byte_level").save_pretrained(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    tokenizer = zoo.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert tokenizer.name_or_path == str(tmp_path)
    vocabulary = vocabulary_from(tokenizer)
    assert vocabulary.eos_token_ids == expected
    assert not any(vocabulary.token_bytes(i) for i in expected)


def test_size():
    tokenizer = zoo.make("byte_level")
    assert vocabulary_from(tokenizer, size=1024).size == 1024
    assert vocabulary_from(tokenizer).size == len(tokenizer)
    with pytest.raises(oc.VocabularyError, match="too small"):
        vocabulary_from(tokenizer, size=100)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ("BPEDecoder", '"BPEDecoder"'),
        ("CTC", '"CTC"'),
        ("none", "is missing, and the pre-tokenizer is neither ByteLevel nor Metaspace"),
        ("custom", '"Custom"'),
        ("regex", '"Regex"'),
        ("fused", "replaces 'ab' across tokens"),
        ("after", "steps after ByteLevel"),
        ("twice", '"ByteLevel"'),
    ],
)
def test_decoders_that_do_not_work_token_by_token(decoder, message):
    from tokenizers import Regex, decoders

    core = zoo.Tokenizer(zoo.models.BPE({"a": 0, "b": 1}, []))
    core.decoder = {
        "BPEDecoder": decoders.BPEDecoder,
        "CTC": decoders.CTC,
        "none": lambda: None,
        "custom": lambda: decoders.Decoder.custom(object()),
        "regex": lambda: decoders.Replace(Regex("a+"), " "),
        "fused": lambda: decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", " ")]),
        "after": lambda: decoders.Sequence([decoders.ByteLevel(), decoders.Replace("a", " ")]),
        "twice": lambda: decoders.Sequence([decoders.ByteFallback(), decoders.ByteLevel()]),
    }[decoder]()
    with pytest.raises(oc.VocabularyError, match=message) as caught:
        vocabulary_from(core, eos_token_ids=1)
    assert "Looked at: model BPE, normalizer null, pre_tokenizer null, decoder" in str(caught.value)
    assert "Vocabulary" in str(caught.value)


def test_a_suffix_that_marks_the_end_of_a_word():
    core = zoo.Tokenizer(zoo.models.BPE({"a": 0, "a</w>": 1}, [], end_of_word_suffix="</w>"))
    core.decoder = zoo.decoders.ByteLevel()
    with pytest.raises(oc.VocabularyError, match="</w>"):
        vocabulary_from(core, eos_token_ids=1)


def test_a_pre_tokenizer_written_in_python_does_not_matter():
    core = zoo.byte_level().backend_tokenizer
    expected = vocabulary_from(core, eos_token_ids=0)
    core.pre_tokenizer = zoo.pre_tokenizers.PreTokenizer.custom(object())
    assert vocabulary_from(core, eos_token_ids=0) == expected


@pytest.mark.parametrize("thing", [object(), 3, None, [], b"tekken.json"])
def test_unknown_kinds(thing):
    with pytest.raises(oc.VocabularyError, match="no kind of tokenizer known here") as caught:
        vocabulary_from(thing)
    for looked_at in ("backend_tokenizer", "sp_model", "_mergeable_ranks", "convert_token_to_string"):
        assert looked_at in str(caught.value)


def test_canine_is_refused():
    with pytest.raises(oc.VocabularyError, match="CanineTokenizer is no kind"):
        vocabulary_from(zoo.transformers.CanineTokenizer())


# -- one vocabulary per object -----------------------------------------------------------------------------------------


def test_a_tokenizer_is_read_once():
    tokenizer = zoo.byte_level()
    first = vocabulary_from(tokenizer)
    assert vocabulary_from(tokenizer).table is first.table
    assert vocabulary_from(tokenizer, size=2048).size == 2048
    assert vocabulary_from(tokenizer, eos_token_ids=1).eos_token_ids == (1,)
    assert vocabulary_from(tokenizer).table is first.table
    assert vocabulary_from(copy.deepcopy(tokenizer)) == first


def test_edits_of_a_result_stay_there():
    tokenizer = zoo.byte_level()
    edited = vocabulary_from(tokenizer)
    edited.remove(" the")
    assert vocabulary_from(tokenizer).get(" the")
    assert edited.get(" the") is None


def test_changes_of_a_tokenizer_are_noticed():
    tokenizer = zoo.byte_level()
    before = vocabulary_from(tokenizer)
    tokenizer.add_tokens(["<new>"])
    after = vocabulary_from(tokenizer)
    assert (after.size, after.get("<new>")) == (before.size + 1, [before.size])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<new>"]})
    special = vocabulary_from(tokenizer)
    assert special.get("<new>") is None
    assert special.special_tokens["<new>"] == before.size
    tokenizer.eos_token = "<|im_end|>"
    assert vocabulary_from(tokenizer).eos_token_ids == (1,)
    tokenizer.backend_tokenizer.decoder = zoo.decoders.WordPiece()
    assert vocabulary_from(tokenizer).get(" Ġthe")


def test_changes_of_a_slow_tokenizer_are_noticed():
    tokenizer = zoo.byt5()
    before = vocabulary_from(tokenizer)
    assert vocabulary_from(tokenizer).table is before.table
    tokenizer.add_tokens(["<new>"])
    assert vocabulary_from(tokenizer).get("<new>") == [before.size]
    protocol = Protocol()
    assert vocabulary_from(protocol).table is vocabulary_from(protocol).table
    protocol.texts["new"] = "new"
    protocol.vocabulary["new"] = 6
    assert vocabulary_from(protocol).get("new") == [6]


def test_nothing_is_kept_of_a_tokenizer_that_is_gone():
    tokenizer = zoo.byte_level()
    number = id(tokenizer)
    vocabulary_from(tokenizer)
    assert number in module._cache
    del tokenizer
    gc.collect()
    assert number not in module._cache


def test_importing_brings_in_no_tokenizer_library():
    code = (
        "import sys, processors.tokenizers\n"
        "heavy = {'transformers', 'torch', 'tokenizers', 'tiktoken', 'sentencepiece', 'mistral_common', 'numba'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# -- real ones ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=zoo.REAL)
def real(request):
    return zoo.real(request.param)


def test_real_tokenizers(real):
    vocabulary = vocabulary_from(real)
    assert vocabulary.size == len(real)
    assert vocabulary.eos_token_ids == (real.eos_token_id,)
    specials = {i for i, token in real.added_tokens_decoder.items() if token.special} | set(real.all_special_ids)
    assert set(vocabulary.special_tokens.values()) == specials
    assert all((vocabulary.token_bytes(i) == b"") == (i in specials) for i in range(vocabulary.size))
    assert {vocabulary.token_bytes(i) for i in range(vocabulary.size)} >= {
        bytes([byte]) for byte in range(256) if byte not in (0xC0, 0xC1) and byte < 0xF5
    }


def test_real_tekken():
    path = zoo.real_directory() / "tekken" / "tekken.json"
    if not path.exists():
        pytest.skip("there is no tekken.json among the tokenizers of OUTLINES_TEST_TOKENIZERS")
    vocabulary = vocabulary_from(path)
    assert vocabulary.size == 131072
    assert vocabulary.token_bytes(1000 + 65) == b"A"
    assert vocabulary.special_tokens["[INST]"] == 3
