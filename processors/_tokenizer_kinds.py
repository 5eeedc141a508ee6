"""How each kind of tokenizer spells its tokens in bytes.

A fast tokenizer is read by interpreting its own `decoder` pipeline on one token that stands *after other tokens*: what
the decoder does at the start of a text (dropping the first space, say) belongs to decoding a whole text and is left
out. Steps that cannot be applied to one token at a time (``BPEDecoder``, ``CTC``) are refused by name.

    ByteLevel                              256 printable characters stand for the 256 bytes (GPT-2, Llama-3, Qwen)
    Replace ▁→" " · ByteFallback · Fuse    SentencePiece with byte fallback (Llama-2, Mistral, Gemma)
    Metaspace                              SentencePiece without byte fallback (T5, XLM-R)
    WordPiece                              "##ing" continues a word, "play" begins one and spells " play" (BERT)

Source: the `decode_chain` functions of https://github.com/huggingface/tokenizers.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from outlines_core.errors import VocabularyError

__all__ = [
    "Content",
    "pipeline_key",
    "read_backend",
    "read_protocol",
    "read_sentencepiece",
    "read_slow",
    "read_tekken",
    "read_tekkenizer",
    "read_tiktoken",
]

_SPACE = "\u2581"  # ▁


class Content(NamedTuple):
    """What a tokenizer says: `tokens` id -> bytes of the text tokens, `special` name -> id, `eos` its EOS ids."""

    tokens: dict[int, bytes]
    special: dict[str, int]
    eos: tuple[int, ...] = ()


# -- byte-level alphabet -----------------------------------------------------------------------------------------------


def _byte_level_table() -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Code point -> byte of GPT-2's alphabet; 256 for code points outside it."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = np.full(0x145, 256, dtype=np.uint16)
    table[shown] = shown
    table[0x100:0x144] = sorted(set(range(256)) - set(shown))
    return table


_BYTE_LEVEL = _byte_level_table()


def _from_byte_level(tokens: Sequence[str]) -> list[bytes]:
    """The bytes of tokens written in GPT-2's alphabet; a token with a character outside it is literal text."""
    codes = np.frombuffer("".join(tokens).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    mapped = _BYTE_LEVEL[np.minimum(codes, len(_BYTE_LEVEL) - 1)]
    data = mapped.astype(np.uint8).tobytes()
    ends = np.cumsum(np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens)))
    out: list[bytes] = []
    start = 0
    for end in ends.tolist():
        out.append(data[start:end])
        start = end
    for k in np.unique(np.searchsorted(ends, np.flatnonzero(mapped == 256), side="right")).tolist():
        out[k] = tokens[k].encode("utf-8", "surrogatepass")
    return out


# -- decoder pipelines -------------------------------------------------------------------------------------------------

_Step = Callable[[str], "str | bytes"]


def _byte_fallback(token: str) -> str | bytes:
    """``<0x0A>`` -> the byte 0A."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes.fromhex(token[3:5])
        except ValueError:
            return token
    return token


_CLEANUP = (  # what WordPiece(cleanup=True) does to each token, in this order
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def _word_piece(prefix: str, cleanup: bool) -> _Step:
    """What ``WordPiece.decode_chain`` makes of a token that is not the first."""

    def step(token: str) -> str:
        token = token[len(prefix) :] if token.startswith(prefix) else f" {token}"
        if cleanup:
            for old, new in _CLEANUP:
                token = token.replace(old, new)
        return token

    return step


def _strip(content: str, start: int, stop: int) -> _Step:
    def step(token: str) -> str:
        left = 0
        while left < start and token[left : left + 1] == content:
            left += 1
        right = len(token)
        while len(token) - right < stop and right > left and token[right - 1] == content:
            right -= 1
        return token[left:right]

    return step


def _flatten(part: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """The steps of a pipeline component, nested ``Sequence`` components opened."""
    if part is None:
        return []
    if part.get("type") == "Sequence":
        return [step for inner in part.get(key, []) for step in _flatten(inner, key)]
    return [part]


def _compile_decoder(
    steps: Sequence[Mapping[str, Any]], byte_fallback: bool, refuse: Callable[[str], VocabularyError]
) -> tuple[list[_Step], bool]:
    """The functions to apply to each token, in order, and whether GPT-2's alphabet is undone after them."""
    byte_level = any(step.get("type") == "ByteLevel" for step in steps)
    out: list[_Step] = [_byte_fallback] if byte_fallback and not byte_level else []
    fused = False  # from here on the pipeline sees the whole text, not tokens
    for step in steps:
        kind = step.get("type")
        if kind == "Fuse":
            fused = True
        elif kind == "Strip" and fused:
            continue  # the two ends of the whole text
        elif kind == "Strip":
            out.append(_strip(step["content"], step["start"], step["stop"]))
        elif kind == "Replace" and "String" in step["pattern"]:
            old, new = step["pattern"]["String"], step["content"]
            if fused and len(old) != 1:
                raise refuse(f"replaces {old!r} across tokens")
            out.append(lambda token, old=old, new=new: token.replace(old, new))  # type: ignore[misc]
        elif kind == "ByteFallback" and not fused:
            out.append(_byte_fallback)
        elif kind == "Metaspace" and not fused:
            out.append(lambda token, old=step["replacement"]: token.replace(old, " "))  # type: ignore[misc]
        elif kind == "WordPiece" and not fused:
            out.append(_word_piece(step["prefix"], step["cleanup"]))
        elif kind == "ByteLevel" and not fused and _byte_fallback not in out:
            if any(later.get("type") not in ("Fuse", "Strip") for later in steps[steps.index(step) + 1 :]):
                raise refuse("has steps after ByteLevel")
            return out, True
        else:
            raise refuse(f"has the step {json.dumps(step, ensure_ascii=False)}, which does not work token by token")
    return out, False


def _apply(steps: Sequence[_Step], tokens: Sequence[str]) -> list[bytes]:
    out = []
    for token in tokens:
        value: str | bytes = token
        for step in steps:
            if isinstance(value, bytes):
                break
            value = step(value)
        out.append(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
    return out


# -- tokenizers.Tokenizer ----------------------------------------------------------------------------------------------


def _component(part: Any) -> bytes:
    """One component of a `tokenizers.Tokenizer` as JSON; ``{"type": "Custom"}`` if it is written in Python."""
    if part is None:
        return b"null"
    try:
        return bytes(part.__getstate__())
    except Exception:  # noqa: BLE001  tokenizers raises bare Exception here
        return b'{"type": "Custom"}'


def pipeline_key(backend: Any) -> tuple[Any, ...]:
    """What decides the bytes of the tokens, as far as it can change, as a cache key."""
    added = tuple((i, token.content, token.special) for i, token in backend.get_added_tokens_decoder().items())
    return _component(backend.pre_tokenizer), _component(backend.decoder), added, backend.get_vocab_size()


def _model_vocabulary(backend: Any) -> tuple[dict[int, str], str | None]:
    """Id -> token of the model proper, without added tokens, and its unknown token."""
    model = backend.model
    if type(model).__name__ == "Unigram":  # its list may hold a piece twice
        state = json.loads(model.__getstate__())
        spelled = {i: str(piece) for i, (piece, _) in enumerate(state["vocab"])}
        return spelled, None if state.get("unk_id") is None else spelled[state["unk_id"]]
    vocabulary = backend.get_vocab(with_added_tokens=False)
    spelled = {i: token for token, i in vocabulary.items()}
    if len(spelled) != len(vocabulary):  # several tokens with one id: which one does decoding take?
        spelled = {i: model.id_to_token(i) for i in spelled}
    return spelled, getattr(model, "unk_token", None)


def read_backend(backend: Any, special_names: Iterable[str] = ()) -> Content:
    """Read a `tokenizers.Tokenizer`, which is also what every fast Hugging Face tokenizer holds.

    Args:
        backend: the tokenizer; it is not changed.
        special_names: tokens that are special though not flagged so (the tokenizer's unk, pad, ... attributes).
    """
    model = backend.model
    model_kind = type(model).__name__
    names = "normalizer", "pre_tokenizer", "decoder"
    parts = {name: json.loads(_component(getattr(backend, name))) for name in names}

    def refuse(reason: str) -> VocabularyError:
        seen = ", ".join(f"{name} {json.dumps(part, ensure_ascii=False)[:300]}" for name, part in parts.items())
        return VocabularyError(
            f"cannot tell which bytes the tokens stand for: the decoder {reason}. Looked at: model {model_kind}, "
            f"{seen}. Build an outlines_core.Vocabulary from the token bytes instead."
        )

    decoder = _flatten(parts["decoder"], "decoders")
    byte_fallback = bool(getattr(model, "byte_fallback", False))
    if getattr(model, "end_of_word_suffix", None):
        raise refuse(f"must turn the suffix {model.end_of_word_suffix!r} into spaces, except at the end of the text")
    if not decoder:
        before = _flatten(parts["pre_tokenizer"], "pretokenizers")
        decoder = [step for step in before if step.get("type") in ("ByteLevel", "Metaspace")]
        if not decoder and model_kind != "WordLevel":
            raise refuse("is missing, and the pre-tokenizer is neither ByteLevel nor Metaspace")
    if decoder:
        steps, byte_level = _compile_decoder(decoder, byte_fallback, refuse)
    else:  # tokenizers joins the tokens with spaces
        steps, byte_level = [lambda token: f" {token}"], False

    added = backend.get_added_tokens_decoder()
    spelled, unknown = _model_vocabulary(backend)
    special = {token.content: i for i, token in added.items() if token.special}
    for name in (*special_names, *([unknown] if unknown else [])):
        i = backend.token_to_id(name)
        if i is not None:
            special.setdefault(name, i)

    literal = {}
    for i, token in added.items():
        if byte_level and spelled.get(i) != token.content:
            literal[i] = token.content.encode("utf-8", "surrogatepass")
        spelled[i] = token.content
    hidden = set(special.values())
    ids = [i for i in spelled if i not in hidden and i not in literal]
    texts: list[str] = [spelled[i] for i in ids]
    if byte_level:
        for step in steps:
            texts = [str(step(text)) for text in texts]
        tokens = dict(zip(ids, _from_byte_level(texts), strict=True))
        tokens.update((i, token) for i, token in literal.items() if i not in hidden)
    else:
        tokens = dict(zip(ids, _apply(steps, texts), strict=True))
    return Content(tokens, special)


# -- tiktoken and tekken -----------------------------------------------------------------------------------------------


def read_tiktoken(encoding: Any) -> Content:
    """Read a `tiktoken.Encoding`; its EOS is ``<|endoftext|>`` if it has one."""
    special = {str(name): int(i) for name, i in encoding._special_tokens.items()}
    hidden = set(special.values())
    tokens = {i: token for token, i in encoding._mergeable_ranks.items() if i not in hidden}
    eos = special.get("<|endoftext|>")
    return Content(tokens, special, () if eos is None else (eos,))


_TEKKEN_SPECIAL = (  # noqa: SIM905  a list would take 20 lines
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] "
    "[IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
).split()


def read_tekken(data: Mapping[str, Any]) -> Content:
    """Read mistral's ``tekken.json``: special ids come first, then as many of the ranked tokens as the size leaves.

    Files older than version 7 do not list their special tokens; the names are then those mistral_common gives them.
    """
    try:
        n_special = int(data["config"]["default_num_special_tokens"])
        n_text = int(data["config"]["default_vocab_size"]) - n_special
        listed = data.get("special_tokens")
        if listed is None:
            listed = [{"rank": i, "token_str": name} for i, name in enumerate(_TEKKEN_SPECIAL)]
        special = {str(entry["token_str"]): int(entry["rank"]) for entry in listed if int(entry["rank"]) < n_special}
        named = set(special.values())
        special.update({f"<SPECIAL_{i}>": i for i in range(n_special) if i not in named})
        tokens = {
            int(entry["rank"]) + n_special: base64.b64decode(entry["token_bytes"], validate=True)
            for entry in data["vocab"]
            if int(entry["rank"]) < n_text
        }
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise VocabularyError(f"not a tekken file: {type(error).__name__}: {error}") from error
    eos = special.get("</s>")
    return Content(tokens, special, () if eos is None else (eos,))


def read_tekkenizer(tokenizer: Any) -> Content:
    """Read mistral_common's `Tekkenizer`."""
    special = {str(getattr(name, "value", name)): int(i) for name, i in tokenizer._special_tokens_reverse_vocab.items()}
    offset = int(tokenizer.num_special_tokens)
    tokens = {i + offset: token for token, i in tokenizer._tekken_token2id_nospecial.items()}
    return Content(tokens, special, (int(tokenizer.eos_id),))


# -- SentencePiece models and slow tokenizers --------------------------------------------------------------------------


def _piece(processor: Any, index: int) -> bytes | None:
    """The bytes of a SentencePiece piece; None if it is not text."""
    if processor.is_control(index) or processor.is_unknown(index) or processor.is_unused(index):
        return None
    piece = processor.id_to_piece(index)
    if processor.is_byte(index):
        return bytes.fromhex(piece[3:5])
    return str(piece.replace(_SPACE, " ")).encode("utf-8", "surrogatepass")


def read_sentencepiece(processor: Any) -> Content:
    """Read a `sentencepiece.SentencePieceProcessor`."""
    tokens, special = {}, {}
    for i in range(processor.get_piece_size()):
        token = _piece(processor, i)
        if token is None:
            special[processor.id_to_piece(i)] = i
        else:
            tokens[i] = token
    eos = processor.eos_id()
    return Content(tokens, special, () if eos < 0 else (eos,))


def _added_of(tokenizer: Any) -> tuple[dict[int, bytes], dict[str, int]]:
    """The added tokens of a slow tokenizer: those that are text, and those that are special."""
    named = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    special = {str(name): int(i) for name, i in named}
    text = {}
    for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items():
        if getattr(token, "special", False):
            special[str(token)] = int(i)
        else:
            text[int(i)] = str(token).encode("utf-8", "surrogatepass")
    return text, special


def read_slow(tokenizer: Any) -> Content | None:
    """Read a Hugging Face tokenizer written in Python; None if its kind is not known."""
    offset = getattr(tokenizer, "offset", getattr(tokenizer, "_num_special_tokens", None))
    if hasattr(tokenizer, "_utf_vocab_size") and isinstance(offset, int):  # ByT5, Perceiver
        tokens: dict[int, bytes] = {offset + byte: bytes([byte]) for byte in range(tokenizer._utf_vocab_size)}
    elif hasattr(tokenizer, "sp_model"):
        tokens = _sentencepiece_slow(tokenizer)
    elif isinstance(getattr(tokenizer, "byte_decoder", None), Mapping) and len(tokenizer.byte_decoder) == 256:
        spelled = list(tokenizer.get_vocab().items())
        tokens = dict(zip((i for _, i in spelled), _from_byte_level([token for token, _ in spelled]), strict=True))
    elif hasattr(tokenizer, "wordpiece_tokenizer"):
        step = _word_piece("##", cleanup=False)
        tokens = {i: str(step(token)).encode("utf-8", "surrogatepass") for token, i in tokenizer.get_vocab().items()}
    else:
        return None
    added, special = _added_of(tokenizer)
    if not hasattr(tokenizer, "wordpiece_tokenizer"):
        tokens.update(added)
    hidden = set(special.values())
    return Content({i: token for i, token in tokens.items() if i not in hidden}, special)


def _sentencepiece_slow(tokenizer: Any) -> dict[int, bytes]:
    """Ids of a slow tokenizer may be shifted against its SentencePiece model, so pieces are matched by name."""
    processor = tokenizer.sp_model
    tokens = {}
    for piece, i in tokenizer.get_vocab().items():
        index = processor.piece_to_id(piece)
        if processor.id_to_piece(index) == piece:
            token = _piece(processor, index)
            if token is not None:
                tokens[i] = token
        else:
            tokens[i] = piece.replace(_SPACE, " ").encode("utf-8", "surrogatepass")
    return tokens


# -- outlines' tokenizer protocol --------------------------------------------------------------------------------------


def read_protocol(tokenizer: Any) -> Content:
    """Read an object with `vocabulary`, `special_tokens` and `convert_token_to_string`, as the outlines library has it.

    A token whose text holds U+FFFD is part of a character: its bytes are then read off the token's own spelling, as
    ``<0xXX>`` or in GPT-2's alphabet.
    """
    vocabulary: Mapping[str, int] = tokenizer.vocabulary
    names = set(tokenizer.special_tokens)
    special = {str(name): int(i) for name, i in vocabulary.items() if name in names}
    tokens = {}
    for name, i in vocabulary.items():
        if name in names:
            continue
        text = tokenizer.convert_token_to_string(name)
        if isinstance(text, bytes):
            tokens[int(i)] = text
            continue
        if not isinstance(text, str):
            raise VocabularyError(
                f"convert_token_to_string({name!r}) returned {type(text).__name__}; expected str or bytes"
            )
        if "\ufffd" in text and "\ufffd" not in name:
            spelled = _byte_fallback(name)
            if isinstance(spelled, str):
                if any(ord(c) >= len(_BYTE_LEVEL) or _BYTE_LEVEL[ord(c)] == 256 for c in name):
                    raise VocabularyError(
                        f"cannot convert the token {name!r} (id {i}) to bytes: its text {text!r} is no whole number "
                        "of characters, and its spelling is neither <0xXX> nor in the byte-level alphabet; let "
                        "convert_token_to_string return bytes for it"
                    )
                spelled = _from_byte_level([name])[0]
            tokens[int(i)] = spelled
        else:
            tokens[int(i)] = text.encode("utf-8", "surrogatepass")
    return Content(tokens, special)
