"""The token automaton of a JSON Schema."""

from __future__ import annotations

from typing import Any

import numpy as np

from outlines_core.automaton import CoreAutomaton
from outlines_core.json_core import JsonCore
from outlines_core.types import DEAD, FINISHED, FIRST_STATE, StateId

__all__ = ["JsonAutomaton"]


class JsonAutomaton(CoreAutomaton):
    """The `TokenAutomaton` of a JSON Schema.  Made by `compile_json_schema`."""

    _core: JsonCore

    def forced_bytes(self, state: StateId) -> bytes:
        """The longest common prefix of all completions (b"" if the text may end here)."""
        return self._core.forced(state) if state >= FIRST_STATE else b""
