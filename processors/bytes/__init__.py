"""Byte-level language models: what a model of tokens says of bytes, however its tokens cut them.

Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.bytes.beam import BeamParams, ByteBeamState, DeadBeamError
    from processors.bytes.byte_lm import EOS, EOT, LazyByteProbs, StatefulByteLM, sample_dict
    from processors.bytes.tokenized import StatefulTokenizedLM
    from processors.bytes.trie import TokenByteTrie, TrieMode
    from processors.bytes.trie_state import LazyTrieState

__all__ = [
    "EOS",
    "EOT",
    "BeamParams",
    "ByteBeamState",
    "DeadBeamError",
    "LazyByteProbs",
    "LazyTrieState",
    "StatefulByteLM",
    "StatefulTokenizedLM",
    "TokenByteTrie",
    "TrieMode",
    "sample_dict",
]

_LAZY = {
    "EOS": "byte_lm",
    "EOT": "byte_lm",
    "BeamParams": "beam",
    "ByteBeamState": "beam",
    "DeadBeamError": "beam",
    "LazyByteProbs": "byte_lm",
    "LazyTrieState": "trie_state",
    "StatefulByteLM": "byte_lm",
    "StatefulTokenizedLM": "tokenized",
    "TokenByteTrie": "trie",
    "TrieMode": "trie",
    "sample_dict": "byte_lm",
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
