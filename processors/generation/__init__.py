"""Generation with `transformers` models under constraints.

Names are loaded on first use: importing the package imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.generation.behaviour import TransformersSpec, extra_config_module, init_cache, traverse_cache
    from processors.generation.builder import build_generate
    from processors.generation.config import (
        BeamSearch,
        ContrastiveSearch,
        GenerationConfig,
        GreedySearch,
        MultinomialSampling,
    )
    from processors.generation.typed import Grammar, Regex, generate

__all__ = [
    "BeamSearch",
    "ContrastiveSearch",
    "GenerationConfig",
    "Grammar",
    "GreedySearch",
    "MultinomialSampling",
    "Regex",
    "TransformersSpec",
    "build_generate",
    "extra_config_module",
    "generate",
    "init_cache",
    "traverse_cache",
]

_LAZY: dict[str, str] = {
    "BeamSearch": "config",
    "ContrastiveSearch": "config",
    "GenerationConfig": "config",
    "Grammar": "typed",
    "GreedySearch": "config",
    "MultinomialSampling": "config",
    "Regex": "typed",
    "TransformersSpec": "behaviour",
    "build_generate": "builder",
    "extra_config_module": "behaviour",
    "generate": "typed",
    "init_cache": "behaviour",
    "traverse_cache": "behaviour",
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
