"""Byte-level language models: what a model of tokens says of bytes, however its tokens cut them.

Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.bytes.beam import BeamParams, ByteBeamState, DeadBeamError
    from processors.bytes.byte_lm import EOS, EOT, LazyByteProbs, StatefulByteLM, sample_dict
    from processors.bytes.characters import (
        is_word_byte,
        likeliest_characters,
        top_characters,
        word_end_logp,
        word_logp,
    )
    from processors.bytes.guides import ByteGuide
    from processors.bytes.potential import ByteLM, ByteScores, byte_conditional
    from processors.bytes.tokenized import StatefulTokenizedLM
    from processors.bytes.trie import TokenByteTrie, TrieMode
    from processors.bytes.trie_state import LazyTrieState

__all__ = [
    "EOS",
    "EOT",
    "BeamParams",
    "ByteBeamState",
    "ByteGuide",
    "ByteLM",
    "ByteScores",
    "DeadBeamError",
    "LazyByteProbs",
    "LazyTrieState",
    "StatefulByteLM",
    "StatefulTokenizedLM",
    "TokenByteTrie",
    "TrieMode",
    "byte_conditional",
    "is_word_byte",
    "likeliest_characters",
    "sample_dict",
    "top_characters",
    "word_end_logp",
    "word_logp",
]

_LAZY = {
    "EOS": "byte_lm",
    "EOT": "byte_lm",
    "BeamParams": "beam",
    "ByteBeamState": "beam",
    "ByteGuide": "guides",
    "ByteLM": "potential",
    "ByteScores": "potential",
    "DeadBeamError": "beam",
    "LazyByteProbs": "byte_lm",
    "LazyTrieState": "trie_state",
    "StatefulByteLM": "byte_lm",
    "StatefulTokenizedLM": "tokenized",
    "TokenByteTrie": "trie",
    "TrieMode": "trie",
    "byte_conditional": "potential",
    "is_word_byte": "characters",
    "likeliest_characters": "characters",
    "sample_dict": "byte_lm",
    "top_characters": "characters",
    "word_end_logp": "characters",
    "word_logp": "characters",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
