"""A token's bytes are what it spells: joined over `encode(text)`, and added by `decode` after another token."""

from __future__ import annotations

import functools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outlines_core import Vocabulary
from processors.tokenizers import vocabulary_from
from tests import tokenizer_zoo as zoo

SAMPLES = [
    *"aeinort TZ09.,:;'\"(){}[]<>|/\\_-\n\t",
    *"éüßñøŁ¡¿²",
    *"中文分词日本語のテキスト한국어龘",
    *"😀👍🏽❤️🇫🇷",
    "👩‍👩‍👧",
    "e\u0301",
    "a\u0300\u0323",
    "\u200d",
    "\u00a0",
    "\u3000",
    "\x00",
    "\x1b",
    "\x7f",
    "\u2028",
    "\ufeff",
    " the",
    "  ",
    "    ",
    "don't",
    "中文",
    "<td>",
    "<tool_call>",
    "naïveté",
    "<0x41>",
    "##",
]
texts = st.one_of(
    st.lists(st.sampled_from(SAMPLES), max_size=16).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)


@functools.cache
def vocabulary(kind: str) -> Vocabulary:
    return vocabulary_from(zoo.make(kind))


def spelled(vocabulary: Vocabulary, ids: list[int]) -> bytes:
    return b"".join(map(vocabulary.token_bytes, ids))


@pytest.mark.parametrize("kind", zoo.LOSSLESS)
@settings(max_examples=150, deadline=None)
@given(text=texts)
@example(text="")
@example(text=" ")
@example(text=" leading")
@example(text="👩‍👩‍👧 e\u0301 中文\x00\x1f")
def test_encoding_spells_the_text(kind: str, text: str) -> None:
    if kind != "byte_level":
        text = text.replace(zoo.SPACE, "")  # such tokenizers cannot tell ▁ from a space
    if kind == "unigram_bytes":
        text = text.replace("<0x", "")  # the library's Unigram takes the text of a byte piece for the piece
    ids = zoo.make(kind).encode(text, add_special_tokens=False)
    assert spelled(vocabulary(kind), ids) == zoo.own_prefix(kind, text).encode()


@pytest.mark.parametrize("kind", [*zoo.LOSSY, *zoo.LOSSLESS])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_decoding_adds_the_bytes_of_a_token_after_another(kind: str, data: st.DataObject) -> None:
    table = vocabulary(kind)
    text_ids = [i for i in range(table.size) if table.token_bytes(i)]
    if kind == "byte_level":  # `decode` itself garbles added tokens that look as if written in the alphabet
        text_ids.remove(*table.get("naïveté") or [])
    first, *rest = data.draw(st.lists(st.sampled_from(text_ids), min_size=2, max_size=6))
    if kind in zoo.LOSSLESS:  # a token may be part of a character
        try:
            spelled(table, [first]).decode(), spelled(table, rest).decode()
        except UnicodeDecodeError:
            return
    decode = functools.partial(zoo.make(kind).decode, clean_up_tokenization_spaces=False, skip_special_tokens=False)
    assert decode([first, *rest]) == decode([first]) + spelled(table, rest).decode()


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_tiktoken(text: str) -> None:
    encoding = _encoding()
    ids = encoding.encode_ordinary(text)
    assert spelled(_encoding_vocabulary(), ids) == text.encode()


@settings(deadline=None)
@given(data=st.data())
def test_tiktoken_tokens(data: st.DataObject) -> None:
    encoding, table = _encoding(), _encoding_vocabulary()
    i = data.draw(st.integers(0, table.size - 1))
    if table.token_bytes(i):
        assert encoding.decode_single_token_bytes(i) == table.token_bytes(i)
    else:
        assert i in encoding._special_tokens.values() or i not in encoding._mergeable_ranks.values()


@functools.cache
def _encoding():
    return zoo.tiktoken_encoding()


@functools.cache
def _encoding_vocabulary() -> Vocabulary:
    return vocabulary_from(_encoding())


@functools.cache
def _processor():
    sentencepiece = pytest.importorskip("sentencepiece")
    return sentencepiece.SentencePieceProcessor(model_proto=zoo.sentencepiece_model())


@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_sentencepiece_model(text: str) -> None:
    text = text.replace(zoo.SPACE, "").replace("\x00", "")
    table = _processor_vocabulary()
    assert spelled(table, _processor().encode(text)) == (" " + text if text else "").encode()


@functools.cache
def _processor_vocabulary() -> Vocabulary:
    return vocabulary_from(_processor())


@pytest.fixture(scope="module", params=zoo.REAL)
def real_name(request: pytest.FixtureRequest) -> str:
    zoo.real(request.param)  # skips where there is none
    return request.param


@functools.cache
def real_vocabulary(name: str) -> Vocabulary:
    return vocabulary_from(zoo.real(name))


@settings(max_examples=150, deadline=None)
@given(text=texts)
@example(text="👩‍👩‍👧 e\u0301 龘 \x00\x1f\t\n  中文")
def test_real_encoding_spells_the_text(real_name: str, text: str) -> None:
    tokenizer = zoo.real(real_name)
    expected = text
    if real_name.startswith("mistral"):
        text = text.replace(zoo.SPACE, "")
        expected = zoo.own_prefix("mistral", text)
    elif tokenizer.backend_tokenizer.normalizer is not None:
        expected = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert spelled(real_vocabulary(real_name), ids) == expected.encode()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_real_decoding_adds_the_bytes_of_a_token(real_name: str, data: st.DataObject) -> None:
    tokenizer, table = zoo.real(real_name), real_vocabulary(real_name)
    ids = data.draw(st.lists(st.integers(0, table.size - 1).filter(table.token_bytes), min_size=2, max_size=6))
    first, *rest = ids
    text = spelled(table, ids)
    try:
        text.decode(), spelled(table, [first]).decode()
    except UnicodeDecodeError:
        return
    assert tokenizer.decode(ids) == tokenizer.decode([first]) + spelled(table, rest).decode()
