"""Tokenizers of other libraries -> `outlines_core.Vocabulary`.  The only module that knows any of them.

The bytes of a token are what it adds to a text *after other tokens*. Where decoding a whole text changes its two ends
(SentencePiece tokenizers drop the space that the first token begins with), that is no property of a token: after a
prompt, the token ``▁yes`` spells ``" yes"``, and so it does here. Likewise WordPiece tokens that begin a word begin
with a space, and the clean-up of spaces that `decode` can do on a finished text is left out.

No library is imported here: a tokenizer is recognized by what it has.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from outlines_core.errors import VocabularyError
from outlines_core.vocabulary import Vocabulary
from processors._tokenizer_kinds import (
    Content,
    pipeline_key,
    read_backend,
    read_protocol,
    read_sentencepiece,
    read_slow,
    read_tekken,
    read_tekkenizer,
    read_tiktoken,
)

__all__ = ["as_vocabulary", "vocabulary_from"]

_cache: dict[int, tuple[weakref.ref[Any], tuple[Any, ...], dict[Any, Vocabulary]]] = {}
_cache_lock = threading.Lock()


def vocabulary_from(
    tokenizer: Any, *, eos_token_ids: int | Sequence[int] | None = None, size: int | None = None
) -> Vocabulary:
    """The vocabulary of a tokenizer: which bytes each token id stands for, and which ids end a text.

    Args:
        tokenizer: a Hugging Face tokenizer (fast or slow) or processor, a `tokenizers.Tokenizer`, a
            `tiktoken.Encoding`, a SentencePiece processor, mistral's tekken (the path of a ``tekken.json``, its parsed
            content, or a mistral_common tokenizer), an object with outlines' tokenizer protocol, or a `Vocabulary`.
        eos_token_ids: the ids that end a text. Default: the tokenizer's own, together with those of the
            ``generation_config.json`` (else ``config.json``) in the local directory it was loaded from, as chat
            models often end on a second id.
        size: number of ids a mask covers, to match logits wider than the tokenizer; default 1 + the largest id.

    Raises:
        VocabularyError: an unknown kind of tokenizer; no EOS id; a `size` that is too small.

    Cost: 0.3 s for 128k tokens, once per tokenizer object: the result is remembered while the object lives.
    """
    if isinstance(tokenizer, Vocabulary):
        return _adjusted(tokenizer, eos_token_ids, size)
    given = tokenizer
    if not isinstance(given, (str, os.PathLike, Mapping)) and (found := _inner(given)) is not None:
        tokenizer = found
    explicit = _explicit_ids(eos_token_ids)
    named = explicit or (*_own_eos(given), *_own_eos(tokenizer))
    state = _state_of(tokenizer)
    key = (named, bool(explicit), size)
    if state is not None and (known := _recall(tokenizer, state, key)) is not None:
        return known
    content = _read(tokenizer)
    eos = explicit or tuple(dict.fromkeys((*named, *content.eos)))
    if not eos:
        raise VocabularyError(
            f"{type(given).__name__} names no token that ends a text (it has no EOS token, and there is no "
            "generation_config.json beside it that names one): say which ids do, with "
            "vocabulary_from(tokenizer, eos_token_ids=...)"
        )
    hidden = {*eos, *content.special.values()}
    tokens: dict[bytes, tuple[int, ...]] = {}
    for i, token in content.tokens.items():
        if i not in hidden:
            tokens[token] = (*tokens[token], i) if token in tokens else (i,)
    vocabulary = Vocabulary(eos, tokens, special_tokens=content.special, size=size)
    if state is not None:
        _remember(tokenizer, state, key, vocabulary)
    return vocabulary.snapshot()


def as_vocabulary(vocabulary_or_tokenizer: Any) -> Vocabulary:
    """A `Vocabulary` as it is, anything else through `vocabulary_from`."""
    if isinstance(vocabulary_or_tokenizer, Vocabulary):
        return vocabulary_or_tokenizer
    return vocabulary_from(vocabulary_or_tokenizer)


# -- which kind --------------------------------------------------------------------------------------------------------


def _is_backend(x: Any) -> bool:
    return all(hasattr(x, name) for name in ("get_added_tokens_decoder", "pre_tokenizer", "decoder", "model"))


def _is_tiktoken(x: Any) -> bool:
    return hasattr(x, "_mergeable_ranks") and hasattr(x, "_special_tokens")


def _is_tekkenizer(x: Any) -> bool:
    return hasattr(x, "_tekken_token2id_nospecial") and hasattr(x, "_special_tokens_reverse_vocab")


def _is_sentencepiece(x: Any) -> bool:
    return hasattr(x, "get_piece_size") and hasattr(x, "id_to_piece")


def _is_hugging_face(x: Any) -> bool:
    return hasattr(x, "convert_ids_to_tokens") and hasattr(x, "get_vocab") and hasattr(x, "all_special_ids")


def _is_protocol(x: Any) -> bool:
    return hasattr(x, "convert_token_to_string") and hasattr(x, "vocabulary") and hasattr(x, "special_tokens")


def _is_slow(x: Any) -> bool:
    kinds = ("_utf_vocab_size", "sp_model", "byte_decoder", "wordpiece_tokenizer")
    return _is_hugging_face(x) and any(hasattr(x, name) for name in kinds)


def _inner(x: Any, depth: int = 4) -> Any:
    """The object that holds the tokens: multimodal processors and tokenizer wrappers keep it in an attribute."""
    if (
        _is_backend(x)
        or (_is_hugging_face(x) and hasattr(x, "backend_tokenizer"))
        or _is_tiktoken(x)
        or _is_tekkenizer(x)
        or _is_sentencepiece(x)
        or _is_slow(x)
    ):
        return x
    if depth:
        for name in ("tokenizer", "instruct_tokenizer", "model", "_model"):
            inner = getattr(x, name, None)
            if inner is not None and (found := _inner(inner, depth - 1)) is not None:
                return found
    return None


def _read(tokenizer: Any) -> Content:
    if isinstance(tokenizer, Mapping):
        return read_tekken(tokenizer)
    if isinstance(tokenizer, (str, os.PathLike)):
        return read_tekken(_tekken_file(Path(tokenizer)))
    if _is_backend(tokenizer):
        return read_backend(tokenizer)
    if hasattr(tokenizer, "backend_tokenizer"):
        return read_backend(tokenizer.backend_tokenizer, map(str, tokenizer.all_special_tokens))
    if _is_tiktoken(tokenizer):
        return read_tiktoken(tokenizer)
    if _is_tekkenizer(tokenizer):
        return read_tekkenizer(tokenizer)
    if _is_sentencepiece(tokenizer):
        return read_sentencepiece(tokenizer)
    if _is_hugging_face(tokenizer) and (content := read_slow(tokenizer)) is not None:
        return content
    if _is_protocol(tokenizer):
        return read_protocol(tokenizer)
    raise VocabularyError(
        f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__} is no kind of tokenizer known here: it has "
        "neither backend_tokenizer (Hugging Face, fast), sp_model, byte_decoder, wordpiece_tokenizer or "
        "_utf_vocab_size (Hugging Face, slow), nor _mergeable_ranks (tiktoken), _tekken_token2id_nospecial (tekken), "
        "get_piece_size (SentencePiece), nor vocabulary, special_tokens and convert_token_to_string (outlines). "
        "Build an outlines_core.Vocabulary from the token bytes instead."
    )


def _tekken_file(path: Path) -> Any:
    if path.is_dir():
        path = path / "tekken.json"
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise VocabularyError(
            f"cannot read {str(path)!r} as a tekken.json ({error.strerror}); any other tokenizer is passed as an object"
        ) from error
    except ValueError as error:
        raise VocabularyError(f"{str(path)!r} is not JSON: {error}") from error


# -- EOS ids -----------------------------------------------------------------------------------------------------------


def _explicit_ids(eos_token_ids: int | Sequence[int] | None) -> tuple[int, ...]:
    if eos_token_ids is None:
        return ()
    ids = (int(eos_token_ids),) if isinstance(eos_token_ids, Integral) else tuple(int(i) for i in eos_token_ids)  # type: ignore[union-attr]
    if not ids:
        raise VocabularyError("eos_token_ids is empty: a text must be able to end")
    return ids


def _own_eos(tokenizer: Any) -> tuple[int, ...]:
    """The EOS ids that a tokenizer, or the model it was saved with, names."""
    ids = _ids_in(getattr(tokenizer, "eos_token_id", None))
    directory = getattr(tokenizer, "name_or_path", None)
    if isinstance(directory, (str, os.PathLike)) and directory and Path(directory).is_dir():
        for name in ("generation_config.json", "config.json"):
            try:
                config = json.loads(Path(directory, name).read_bytes())
            except (OSError, ValueError):
                continue
            found = _ids_in(config.get("eos_token_id")) if isinstance(config, dict) else ()
            if found:
                return tuple(dict.fromkeys((*ids, *found)))
    return ids


def _ids_in(value: Any) -> tuple[int, ...]:
    """The ids in a configuration's value: an int, a list of them, or nothing (None, -1)."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(i for i in values if isinstance(i, int) and not isinstance(i, bool) and i >= 0)


def _adjusted(vocabulary: Vocabulary, eos_token_ids: int | Sequence[int] | None, size: int | None) -> Vocabulary:
    if eos_token_ids is None and size is None:
        return vocabulary
    eos = _explicit_ids(eos_token_ids) or vocabulary.eos_token_ids
    tokens = {token: [i for i in ids if i not in eos] for token, ids in vocabulary.items()}
    return Vocabulary(
        eos,
        {token: ids for token, ids in tokens.items() if ids},
        special_tokens=vocabulary.special_tokens,
        size=vocabulary.size if size is None else size,
    )


# -- one vocabulary per tokenizer object -------------------------------------------------------------------------------


def _state_of(tokenizer: Any) -> tuple[Any, ...] | None:
    """Everything that can change about a tokenizer object; None if it cannot be told."""
    if _is_backend(tokenizer):
        return pipeline_key(tokenizer)
    if hasattr(tokenizer, "backend_tokenizer"):
        backend = tokenizer.backend_tokenizer
        return id(backend), pipeline_key(backend), tuple(map(str, tokenizer.all_special_tokens))
    if _is_tiktoken(tokenizer) or _is_tekkenizer(tokenizer) or _is_sentencepiece(tokenizer):
        return ()
    if _is_hugging_face(tokenizer):
        added = getattr(tokenizer, "added_tokens_decoder", None)
        tokens = added.items() if isinstance(added, Mapping) else ()
        flags = tuple((i, str(token), getattr(token, "special", None)) for i, token in tokens)
        return len(tokenizer), flags, tuple(tokenizer.all_special_ids)
    if _is_protocol(tokenizer):
        return dict(tokenizer.vocabulary), frozenset(tokenizer.special_tokens)
    return None


def _recall(tokenizer: Any, state: tuple[Any, ...], key: Any) -> Vocabulary | None:
    with _cache_lock:
        known = _cache.get(id(tokenizer))
        if known is None or known[0]() is not tokenizer or known[1] != state or key not in known[2]:
            return None
        return known[2][key].snapshot()


def _remember(tokenizer: Any, state: tuple[Any, ...], key: Any, vocabulary: Vocabulary) -> None:
    number = id(tokenizer)

    def forget(reference: weakref.ref[Any]) -> None:
        known = _cache.get(number)  # no lock: this may run inside any allocation of the thread that holds it
        if known is not None and known[0] is reference:
            _cache.pop(number, None)

    try:
        reference = weakref.ref(tokenizer, forget)
    except TypeError:  # not weakly referable: read again each time
        return
    with _cache_lock:
        known = _cache.get(number)
        if known is None or known[0]() is not tokenizer or known[1] != state:
            known = _cache[number] = reference, state, {}
        known[2][key] = vocabulary
