"""Constraints compiled against a vocabulary: what may come next, exactly, at every decoding step.

    >>> import outlines_core as oc
    >>> vocabulary = oc.Vocabulary(3, {"a": [0], "b": [1], "ab": [2]})
    >>> automaton = oc.compile_regex("(ab)+", vocabulary)
    >>> guide = oc.Guide(automaton)
    >>> guide.get_tokens()
    [0, 2]

Names are loaded on first use: importing the package imports neither numba nor any kernel.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from outlines_core.errors import (
    CacheFormatError,
    ConstraintError,
    ConstraintSyntaxError,
    GuideError,
    IncompatibleVocabularyError,
    LimitExceededError,
    OutlinesCoreError,
    RollbackError,
    TokenRejectedError,
    UnsatisfiableError,
    UnsupportedFeatureError,
    VocabularyError,
)
from outlines_core.limits import Limits
from outlines_core.types import DEAD, FINISHED, TokenAutomaton

if TYPE_CHECKING:
    from outlines_core import json_schema
    from outlines_core.batch import fill_masks, next_states
    from outlines_core.bitmask import allocate_bitmask
    from outlines_core.compile import compile_choice, compile_json_schema, compile_regex, validate_schema_support
    from outlines_core.grammar_compile import compile_grammar
    from outlines_core.guide import Guide
    from outlines_core.index import GrammarAutomaton, Index, RegexAutomaton
    from outlines_core.json_index import JsonAutomaton
    from outlines_core.regex.language import Language
    from outlines_core.vocabulary import Vocabulary

__version__ = "0.1.0"

__all__ = [
    "DEAD",
    "FINISHED",
    "CacheFormatError",
    "ConstraintError",
    "ConstraintSyntaxError",
    "GrammarAutomaton",
    "Guide",
    "GuideError",
    "IncompatibleVocabularyError",
    "Index",
    "JsonAutomaton",
    "Language",
    "LimitExceededError",
    "Limits",
    "OutlinesCoreError",
    "RegexAutomaton",
    "RollbackError",
    "TokenAutomaton",
    "TokenRejectedError",
    "UnsatisfiableError",
    "UnsupportedFeatureError",
    "Vocabulary",
    "VocabularyError",
    "allocate_bitmask",
    "compile_choice",
    "compile_grammar",
    "compile_json_schema",
    "compile_regex",
    "fill_masks",
    "json_schema",
    "next_states",
    "validate_schema_support",
]

_LAZY = {
    "GrammarAutomaton": "index",
    "Guide": "guide",
    "Index": "index",
    "JsonAutomaton": "json_index",
    "Language": "regex.language",
    "RegexAutomaton": "index",
    "Vocabulary": "vocabulary",
    "allocate_bitmask": "bitmask",
    "compile_choice": "compile",
    "compile_grammar": "grammar_compile",
    "compile_json_schema": "compile",
    "compile_regex": "compile",
    "fill_masks": "batch",
    "next_states": "batch",
    "validate_schema_support": "compile",
}


def __getattr__(name: str) -> Any:
    if name in ("json_schema", "outlines_core"):
        return importlib.import_module(f"{__name__}.{name}")
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
