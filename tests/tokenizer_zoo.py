"""Small tokenizers of every kind, trained on the spot: nothing is downloaded, each takes milliseconds.

`OUTLINES_TEST_TOKENIZERS` may name a directory of real ones (Hugging Face directories, and ``tekken/tekken.json``).
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

SPACE = "\u2581"
CORPUS = [
    "the quick brown fox jumps over the lazy dog, and the other dogs don't mind it at all .",
    'The tokens of a text: {"name": "value", \'number\': 12345.678}  \n\treturn None',
    "déjà vu, naïve café, Größe, mañana; e\u0301 a\u0300 o\u0302",
    "中文分词 日本語のテキスト 한국어 문장 中文 中文 日本語 日本語",
    "👩‍👩‍👧 👍🏽 😀 😀 🇫🇷 ❤️ 👩‍👩‍👧",
] * 3
WORDS = ["<unk>", "<s>", "</s>", "<pad>"]


def hugging_face(core: Any, **names: str) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **names)


# -- lossless kinds ----------------------------------------------------------------------------------------------------


def _byte_level_core(vocab_size: int = 520) -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    return core


def byte_level() -> Any:
    """GPT-2, Llama-3, Qwen: with added tokens that are text, one of them outside ASCII."""
    tokenizer = hugging_face(_byte_level_core(), eos_token="<|endoftext|>")
    tokenizer.add_tokens(["<tool_call>", "日本語文", "naïveté", "  two  spaces  "])
    return tokenizer


def _sentencepiece_bpe(normalizer: Any, pre_tokenizer: Any, decoder: Any) -> Any:
    """A SentencePiece style BPE with all 256 byte tokens."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=WORDS, show_progress=False, limit_alphabet=60)
    trained.train_from_iterator(CORPUS, trainer)
    model = json.loads(trained.to_str())["model"]
    pieces = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    if SPACE * 2 not in pieces:
        pieces += [SPACE * 2, SPACE * 4]
        model["merges"] += [[SPACE, SPACE], [SPACE * 2, SPACE * 2]]
    pieces[4:4] = [f"<0x{byte:02X}>" for byte in range(256)]
    core = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(pieces)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    core.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in WORDS])
    if normalizer is not None:
        core.normalizer = normalizer
    if pre_tokenizer is not None:
        core.pre_tokenizer = pre_tokenizer
    core.decoder = decoder
    return core


def _llama_decoder() -> Any:
    return decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )


def llama2() -> Any:
    """The space before the text is put there by the normalizer."""
    core = _sentencepiece_bpe(
        normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]), None, _llama_decoder()
    )
    return hugging_face(core, eos_token="</s>", bos_token="<s>", unk_token="<unk>")


def mistral() -> Any:
    """The space before the text is put there by the pre-tokenizer."""
    core = _sentencepiece_bpe(
        None, pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False), _llama_decoder()
    )
    return hugging_face(core, eos_token="</s>", bos_token="<s>", unk_token="<unk>")


def gemma() -> Any:
    """No space before the text; runs of ▁ that belong to the model are also listed as added tokens."""
    core = _sentencepiece_bpe(
        normalizers.Replace(" ", SPACE),
        pre_tokenizers.Split(" ", "merged_with_previous"),
        decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]),
    )
    core.add_tokens([AddedToken(SPACE * 2, normalized=False), AddedToken("<td>", normalized=False)])
    return hugging_face(core, eos_token="</s>", bos_token="<s>", unk_token="<unk>", pad_token="<pad>")


def _unigram(byte_fallback: bool) -> Any:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=250, special_tokens=WORDS, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    trained.train_from_iterator(CORPUS, trainer)
    pieces = [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]
    if byte_fallback:
        pieces[4:4] = [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]
    core = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=byte_fallback))
    core.add_special_tokens(WORDS[1:])
    return core


def unigram_bytes() -> Any:
    core = _unigram(byte_fallback=True)
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(SPACE), decoders.Fuse()])
    return hugging_face(core, eos_token="</s>", unk_token="<unk>")


def byt5() -> Any:
    return transformers.ByT5Tokenizer()


def own_prefix(kind: str, text: str) -> str:
    """The text that `encode` of this kind spells: its own rule for a space at the front."""
    if kind == "llama2" and text:
        return " " + text
    if kind in ("mistral", "unigram_bytes") and text and not text.startswith(" "):
        return " " + text
    return text


LOSSLESS = {f.__name__: f for f in (byte_level, llama2, mistral, gemma, unigram_bytes, byt5)}


# -- lossy kinds -------------------------------------------------------------------------------------------------------


def t5() -> Any:
    core = _unigram(byte_fallback=False)
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=SPACE)]
    )
    core.decoder = decoders.Metaspace(SPACE)
    tokenizer = hugging_face(core, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<extra_id_0>", "<extra_id_1>"]})
    tokenizer.add_tokens(["plain added"])
    return tokenizer


def _word_piece_core(cleanup: bool) -> Any:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##", cleanup=cleanup)
    trainer = trainers.WordPieceTrainer(
        vocab_size=240, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    return core


def word_piece() -> Any:
    return hugging_face(_word_piece_core(cleanup=False), eos_token="[SEP]", unk_token="[UNK]")


def word_piece_clean() -> Any:
    """As BERT has it: the decoder itself drops the space before a full stop."""
    tokenizer = hugging_face(_word_piece_core(cleanup=True), eos_token="[SEP]", unk_token="[UNK]")
    tokenizer.add_tokens(["n't", "do not", "'s"])
    return tokenizer


def word_level() -> Any:
    """No decoder at all: tokens are joined with spaces."""
    core = Tokenizer(models.WordLevel({"yes": 0, "no": 1, "[UNK]": 2, "[END]": 3}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return hugging_face(core, eos_token="[END]", unk_token="[UNK]")


LOSSY = {f.__name__: f for f in (t5, word_piece, word_piece_clean, word_level)}


@functools.cache
def make(kind: str) -> Any:
    """The tokenizer of that name; one object per process, so do not change it."""
    return (LOSSLESS | LOSSY)[kind]()


# -- other libraries ---------------------------------------------------------------------------------------------------


@functools.cache
def byte_ranks() -> dict[bytes, int]:
    """Mergeable ranks, in merge order: what tiktoken wants."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    model = json.loads(_byte_level_core().to_str())["model"]
    shown = sorted(c for c in alphabet if ord(c) < 256)
    hidden = sorted(c for c in alphabet if ord(c) >= 256)
    table = {c: ord(c) for c in shown}
    table |= dict(zip(hidden, sorted(set(range(256)) - set(table.values())), strict=True))
    ranks = {bytes([byte]): byte for byte in range(256)}
    for left, right in model["merges"]:
        ranks.setdefault(bytes(table[c] for c in left + right), len(ranks))
    return ranks


def tiktoken_encoding(special: dict[str, int] | None = None) -> Any:
    """A `tiktoken.Encoding` whose ids have holes between the text and the special tokens."""
    tiktoken = pytest.importorskip("tiktoken")
    ranks = byte_ranks()
    if special is None:
        special = {"<|endoftext|>": len(ranks) + 7, "<|fim_prefix|>": len(ranks) + 9}
    return tiktoken.Encoding(
        "small",
        pat_str=r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+",
        mergeable_ranks=ranks,
        special_tokens=special,
    )


def tekken_data(**extra: Any) -> dict[str, Any]:
    """The content of a ``tekken.json``: more ranked tokens than the vocabulary takes."""
    ranks = byte_ranks()
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for token, rank in ranks.items()
    ]
    config = {
        "pattern": ".",
        "num_vocab_tokens": len(ranks),
        "default_vocab_size": 30 + len(ranks) - 10,
        "default_num_special_tokens": 30,
        "version": "v3",
    }
    return {"config": config, "vocab": vocab, **extra}


@functools.cache
def sentencepiece_model(byte_fallback: bool = True) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=420 if byte_fallback else 150,
        model_type="bpe",
        byte_fallback=byte_fallback,
        character_coverage=0.98,
        user_defined_symbols=["<tool>"],
        control_symbols=["<ctrl>"],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return model.getvalue()


REAL = ("llama3", "qwen", "deepseek", "mistral_v1", "mistral_v3", "anthropic")


def real_directory() -> Path:
    directory = os.environ.get("OUTLINES_TEST_TOKENIZERS")
    if not directory:
        pytest.skip("OUTLINES_TEST_TOKENIZERS names no directory with real tokenizers")
    return Path(directory)


@functools.cache
def real(name: str) -> Any:
    path = real_directory() / name
    if not path.is_dir():
        pytest.skip(f"there is no {name} among the tokenizers of OUTLINES_TEST_TOKENIZERS")
    return transformers.AutoTokenizer.from_pretrained(path)
