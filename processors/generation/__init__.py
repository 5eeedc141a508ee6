"""Generation with `transformers` models under constraints.

Names are loaded on first use: importing the package imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.generation.behaviour import TransformersSpec, extra_config_module, init_cache, traverse_cache
    from processors.generation.builder import build_generate
    from processors.generation.chat import ChatSampler
    from processors.generation.config import (
        BeamSearch,
        ContrastiveSearch,
        GenerationConfig,
        GreedySearch,
        MultinomialSampling,
    )
    from processors.generation.sampler import Sampler
    from processors.generation.sampling import (
        Greedy,
        MinPSampling,
        RandomSampling,
        SamplingMethod,
        TopkSampling,
        TopPSampling,
    )
    from processors.generation.state import SamplerOutput, SamplingState
    from processors.generation.tools import ToolFormat
    from processors.generation.typed import Grammar, Regex, generate

__all__ = [
    "BeamSearch",
    "ChatSampler",
    "ContrastiveSearch",
    "GenerationConfig",
    "Grammar",
    "Greedy",
    "GreedySearch",
    "MinPSampling",
    "MultinomialSampling",
    "RandomSampling",
    "Regex",
    "Sampler",
    "SamplerOutput",
    "SamplingMethod",
    "SamplingState",
    "ToolFormat",
    "TopPSampling",
    "TopkSampling",
    "TransformersSpec",
    "build_generate",
    "extra_config_module",
    "generate",
    "init_cache",
    "traverse_cache",
]

_LAZY: dict[str, str] = {
    "BeamSearch": "config",
    "ChatSampler": "chat",
    "ContrastiveSearch": "config",
    "GenerationConfig": "config",
    "Grammar": "typed",
    "Greedy": "sampling",
    "GreedySearch": "config",
    "MinPSampling": "sampling",
    "MultinomialSampling": "config",
    "RandomSampling": "sampling",
    "Regex": "typed",
    "Sampler": "sampler",
    "SamplerOutput": "state",
    "SamplingMethod": "sampling",
    "SamplingState": "state",
    "ToolFormat": "tools",
    "TopPSampling": "sampling",
    "TopkSampling": "sampling",
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
