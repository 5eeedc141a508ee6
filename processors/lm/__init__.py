"""Language models as things to compute with: rows of log-probabilities for many coroutines, contexts, tokens, masks.

Names are loaded on first use; only `processors.lm.hf` needs torch and transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.lm.backend import Backend, MockBackend
    from processors.lm.causal import CachedCausalLM
    from processors.lm.context import GuidedContext, LMContext, LMNextToken, LMTokenMask
    from processors.lm.distribution import Distribution
    from processors.lm.hf import TransformersBackend
    from processors.lm.masks import Masks, TokenMask
    from processors.lm.tokens import Token, TokenSequence

__all__ = [
    "Backend",
    "CachedCausalLM",
    "Distribution",
    "GuidedContext",
    "LMContext",
    "LMNextToken",
    "LMTokenMask",
    "Masks",
    "MockBackend",
    "Token",
    "TokenMask",
    "TokenSequence",
    "TransformersBackend",
]

_LAZY = {
    "Backend": "backend",
    "CachedCausalLM": "causal",
    "Distribution": "distribution",
    "GuidedContext": "context",
    "LMContext": "context",
    "LMNextToken": "context",
    "LMTokenMask": "context",
    "Masks": "masks",
    "MockBackend": "backend",
    "Token": "tokens",
    "TokenMask": "masks",
    "TokenSequence": "tokens",
    "TransformersBackend": "hf",
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
