"""``tokenizer.json`` -> token bytes, for `Vocabulary.from_pretrained`.

Two kinds of tokenizer write each token's bytes down without loss, and only these are read: byte-level BPE (GPT-2's
alphabet stands for bytes), and pieces with a byte fallback (``<0x0A>`` is a byte, a replacement turns ``▁`` into a
space). The many others are the business of `processors.tokenizers`, which asks the libraries themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from outlines_core.errors import VocabularyError

__all__ = ["Pretrained", "read_pretrained"]

_BYTE: Final = re.compile("<0x([0-9A-Fa-f]{2})>")
_CONFIGS: Final = ("generation_config.json", "tokenizer_config.json")


class Pretrained(NamedTuple):
    """What `Vocabulary` is made of.  `tokens`: bytes -> ids, EOS and special ids left out.  `eos`: at least one id."""

    tokens: dict[bytes, list[int]]
    eos: list[int]
    special: dict[str, int]


def read_pretrained(model: str, revision: str | None = None, token: str | None = None) -> Pretrained:
    """Read the files of a model.  See `Vocabulary.from_pretrained` for the arguments and errors."""
    load = _folder(Path(model)) if Path(model).is_dir() else _hub(str(model), revision, token)
    tokenizer = load("tokenizer.json")
    if tokenizer is None:
        raise VocabularyError(f"{model} has no tokenizer.json")
    spell = _speller(model, tokenizer)
    spelled = {int(i): spell(piece) for piece, i in _pieces(tokenizer["model"]["vocab"])}
    added = {int(entry["id"]): entry for entry in tokenizer.get("added_tokens", ())}
    special = {str(entry["content"]): i for i, entry in added.items() if entry.get("special")}
    for i, entry in added.items():
        spelled[i] = str(entry["content"]).encode()
    named = {str(entry["content"]): i for i, entry in added.items()} | dict(_pieces(tokenizer["model"]["vocab"]))
    eos = _eos(model, load, named)
    hidden = {*eos, *special.values()}
    tokens: dict[bytes, list[int]] = {}
    for i, text in spelled.items():
        if i not in hidden:
            tokens.setdefault(text, []).append(i)
    return Pretrained(tokens, eos, special)


def _pieces(vocab: Any) -> Iterator[tuple[str, int]]:
    """The pieces of a model: BPE writes a mapping, Unigram a list of (piece, score)."""
    if isinstance(vocab, Mapping):
        yield from vocab.items()
    else:
        yield from ((piece, i) for i, (piece, _) in enumerate(vocab))


def _eos(model: str, load: Callable[[str], Any], named: Mapping[str, int]) -> list[int]:
    generation, configuration = (load(name) or {} for name in _CONFIGS)
    given = generation.get("eos_token_id")
    ids = [given] if isinstance(given, int) else list(given or ())
    if ids:
        return ids
    token = configuration.get("eos_token")
    name = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(name, str) or name not in named:
        raise VocabularyError(f"unable to locate the EOS token of {model}: neither {' nor '.join(_CONFIGS)} names one")
    return [named[name]]


def _steps(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for inner in part["decoders"] for step in _steps(inner)]
    return [part]


def _speller(model: str, tokenizer: Mapping[str, Any]) -> Callable[[str], bytes]:
    """How a piece is spelled, by the tokenizer's decoder."""
    steps = _steps(tokenizer.get("decoder"))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _byte_level
    replaced: list[tuple[str, str]] = []
    for step in steps:
        if step["type"] == "Replace" and "String" in step["pattern"]:
            replaced.append((step["pattern"]["String"], step["content"]))
        elif step["type"] not in ("ByteFallback", "Fuse", "Strip"):  # Fuse and Strip concern whole texts
            kinds = []
    if "ByteFallback" not in kinds:
        written = json.dumps(tokenizer.get("decoder"), ensure_ascii=False)[:200]
        raise VocabularyError(
            f"Unsupported tokenizer for {model}: Token processor, the decoder is {written}, neither ByteLevel nor a "
            "Sequence with ByteFallback; processors.tokenizers.vocabulary_from knows more kinds"
        )

    def with_fallback(piece: str) -> bytes:
        byte = _BYTE.fullmatch(piece)
        if byte is not None:
            return bytes.fromhex(byte[1])
        for old, new in replaced:
            piece = piece.replace(old, new)
        return piece.encode()

    return with_fallback


@cache
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + k): b for k, b in enumerate(others)}


def _byte_level(piece: str) -> bytes:
    alphabet = _byte_alphabet()
    if all(char in alphabet for char in piece):
        return bytes(alphabet[char] for char in piece)
    return piece.encode()


def _folder(folder: Path) -> Callable[[str], Any]:
    def load(name: str) -> Any:
        path = folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    return load


def _hub(model: str, revision: str | None, token: str | None) -> Callable[[str], Any]:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise ImportError(
            f"{model} is no folder, and a name on the Hugging Face hub needs `pip install huggingface_hub`"
        ) from error

    def load(name: str) -> Any:
        try:
            path = hf_hub_download(model, name, revision=revision, token=token)
        except LocalEntryNotFoundError as error:
            if name in _CONFIGS:
                return None  # offline: nobody knows whether the model has one
            raise VocabularyError(f"{model} is no folder and cannot be fetched from the hub: {error}") from error
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, HFValidationError) as error:
            raise VocabularyError(f"{model} is no folder and cannot be fetched from the hub: {error}") from error
        return json.loads(Path(path).read_text(encoding="utf-8"))

    return load
