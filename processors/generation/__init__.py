"""Generation with `transformers` models under constraints.

Names are loaded on first use: importing the package imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.generation.chat import ChatSampler
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

__all__ = [
    "ChatSampler",
    "Greedy",
    "MinPSampling",
    "RandomSampling",
    "Sampler",
    "SamplerOutput",
    "SamplingMethod",
    "SamplingState",
    "ToolFormat",
    "TopPSampling",
    "TopkSampling",
]

_LAZY = {
    "ChatSampler": "chat",
    "Greedy": "sampling",
    "MinPSampling": "sampling",
    "RandomSampling": "sampling",
    "Sampler": "sampler",
    "SamplerOutput": "state",
    "SamplingMethod": "sampling",
    "SamplingState": "state",
    "ToolFormat": "tools",
    "TopPSampling": "sampling",
    "TopkSampling": "sampling",
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
