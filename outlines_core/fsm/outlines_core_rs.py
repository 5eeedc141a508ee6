"""The compiled submodule of `outlines_core` 0.1 under its name: some code imports from it."""

from __future__ import annotations

from outlines_core.fsm.json_schema import build_regex_from_schema, to_regex
from outlines_core.fsm.regex import (
    FSMInfo,
    Index,
    Vocabulary,
    _walk_fsm,
    create_fsm_index_end_to_end,
    get_token_transition_keys,
    get_vocabulary_transition_keys,
    state_scan_tokens,
)

__all__ = [
    "FSMInfo",
    "Index",
    "Vocabulary",
    "_walk_fsm",
    "build_regex_from_schema",
    "create_fsm_index_end_to_end",
    "get_token_transition_keys",
    "get_vocabulary_transition_keys",
    "state_scan_tokens",
    "to_regex",
]
