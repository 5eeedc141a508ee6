"""Constraints for `transformers`: tokenizers read as bytes, guides, and logits processors for ``generate()``.

    from processors import RegexLogitsProcessor
    model.generate(**inputs, logits_processor=[RegexLogitsProcessor(r"\\d{4}-\\d{2}-\\d{2}", tokenizer)])

Names are loaded on first use: importing the package imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.embedded import load_embedded
    from processors.guide import (
        AutomatonGuide,
        CFGGuide,
        Generate,
        Guide,
        Instruction,
        JSONGuide,
        RegexGuide,
        StopAtEOSGuide,
        Write,
    )
    from processors.logits import (
        CFGLogitsProcessor,
        GuideLogitsProcessor,
        JSONLogitsProcessor,
        OutlinesLogitsProcessor,
        RegexLogitsProcessor,
    )
    from processors.masking import apply_mask
    from processors.tokenizers import vocabulary_from

__all__ = [
    "AutomatonGuide",
    "CFGGuide",
    "CFGLogitsProcessor",
    "Generate",
    "Guide",
    "GuideLogitsProcessor",
    "Instruction",
    "JSONGuide",
    "JSONLogitsProcessor",
    "OutlinesLogitsProcessor",
    "RegexGuide",
    "RegexLogitsProcessor",
    "StopAtEOSGuide",
    "Write",
    "apply_mask",
    "load_embedded",
    "vocabulary_from",
]

_LAZY = {
    "AutomatonGuide": "guide",
    "CFGGuide": "guide",
    "CFGLogitsProcessor": "logits",
    "Generate": "guide",
    "Guide": "guide",
    "GuideLogitsProcessor": "logits",
    "Instruction": "guide",
    "JSONGuide": "guide",
    "JSONLogitsProcessor": "logits",
    "OutlinesLogitsProcessor": "logits",
    "RegexGuide": "guide",
    "RegexLogitsProcessor": "logits",
    "StopAtEOSGuide": "guide",
    "Write": "guide",
    "apply_mask": "masking",
    "load_embedded": "embedded",
    "vocabulary_from": "tokenizers",
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
