"""The JSON values of a schema as part of other texts: no whitespace before and after, and no end of the text behind.

The states are those of the schema's own automaton, which is shared with whoever uses the schema by itself.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.json_core import JsonCore
from outlines_core.json_states import NO_RECORDS
from outlines_core.kernels import json as kernel
from outlines_core.types import DEAD
from outlines_core.vocabulary import TokenTable

__all__ = ["JsonValue"]

_BYTES: Final = np.arange(256, dtype=np.uint8)
_BYTES_AT: Final = int(_BYTES.ctypes.data)
_KEPT: Final = 1 << 18
_PLAIN: Final = b"+-.0123456789eEtruefalsn"
_CLOSING: Final = {ord("{"): ord("}"), ord("["): ord("]"), ord('"'): ord('"')}


class JsonValue:
    """A `grammar.composed.Value`.

    Attributes:
        initial: the state before the first byte.
        first: the bytes that a value may begin with.
        last: those that may end one, plain values (numbers and keywords) left out.
        plain: those of plain values, if there are any.
    """

    def __init__(self, core: JsonCore) -> None:
        self.core = core
        self._steps: dict[tuple[int, int], int] = {}
        self._kinds: dict[int, tuple[bool, bool]] = {}
        with core.lock:
            config = core.config[core.state_config[core.start]].copy()
            config[3] = self._no_whitespace()
            self.initial = core._intern(config, NO_RECORDS)
            self.first = bytes(core.live_bytes(config, NO_RECORDS))
        self.last = bytes(_CLOSING[byte] for byte in self.first if byte in _CLOSING)
        self.plain = _PLAIN if len(self.last) < len(self.first) else b""

    def _no_whitespace(self) -> int:
        """The state of the whitespace's DFA behind which there is none."""
        table = self.core.consts[kernel.WS :]
        for k in range(1, len(table)):
            if table[k, 4] and not table[k, :4].any():
                return kernel.WS + k
        raise UnsupportedFeatureError("whitespace without an end around a value", feature="unbounded whitespace")

    def step(self, state: int, byte: int) -> int:
        """The state after a byte."""
        key = state, byte
        known = self._steps.get(key)
        if known is None:
            core = self.core
            with core.lock:
                known = core.run(state, _BYTES_AT + byte, 1)
            if len(self._steps) >= _KEPT:
                self._steps.clear()
            if known != DEAD and not self.goes_on(known) and self.is_whole(state):
                known = DEAD  # whitespace behind a number
            self._steps[key] = known
        return known

    def _kind(self, state: int) -> tuple[bool, bool]:
        known = self._kinds.get(state)
        if known is None:
            core = self.core
            is_end = int(core.config[core.state_config[state], 0]) == kernel.END_INSTANCE
            known = self._kinds[state] = core.accepting[state], not is_end
        return known

    def is_whole(self, state: int) -> bool:
        """Is what was read a value?"""
        return self._kind(state)[0]

    def goes_on(self, state: int) -> bool:
        """May more of it follow?"""
        return self._kind(state)[1]

    def completion(self, state: int) -> bytes:
        """A short rest of the value: b"" if it is whole."""
        core = self.core
        if state == self.initial:  # whose whitespace nobody else has
            state = core.start
        return b"" if self.is_whole(state) else core.completion(state)

    # -- whole tokens -----------------------------------------------------------------------------------------------

    def is_plain(self, state: int) -> bool:
        """May the value be a plain one, and nothing else has been read?"""
        if not self.plain or state == self.initial:
            return bool(self.plain)
        core = self.core
        config = core.config[core.state_config[state]]
        return bool(config[4] == 0 and core.inst[config[0], kernel.I_KIND] == kernel.PLAIN)

    def after_token(self, state: int, token_id: int) -> int:
        """The state after a token that does not go beyond the value."""
        core = self.core
        known = core.edges.get((state, token_id))
        if known is None:
            known = core.next_state(state, token_id)
        return DEAD if known != DEAD and self.is_whole(state) and not self.goes_on(known) else known

    def fill(self, state: int, words: NDArray[np.uint32]) -> None:
        """Write the tokens within the value and, wrongly, those that go on with whitespace behind what `ends` finds."""
        core = self.core
        core.fill(state, words)
        if core.accepting[state]:
            gone = np.zeros(core.n_words, dtype=np.uint32)
            core._add_eos(gone)
            words &= ~gone
        if self.is_plain(state):
            words &= ~self._plain_and_whitespace

    @cached_property
    def _plain_and_whitespace(self) -> NDArray[np.uint32]:
        """The tokens that begin with neither a bracket nor a quote and contain whitespace."""
        table = self.core.vocabulary.table
        places = np.flatnonzero(np.isin(table.data, np.frombuffer(b" \t\n\r", dtype=np.uint8)))
        ids = np.unique(np.searchsorted(table.indptr, places, side="right") - 1)
        ids = ids[~np.isin(table.data[table.indptr[ids]], [*_CLOSING])]
        words = np.zeros(table.n_words, dtype=np.uint32)
        np.bitwise_or.at(words, ids >> 5, np.uint32(1) << (ids & 31).astype(np.uint32))
        return words

    def ends(self, state: int, texts: TokenTable) -> list[int]:
        """Which of some texts, of `plain` bytes or with one of `last` at its end, lead to a whole value."""
        core = self.core
        with core.lock:
            group, members = core.groups_of(state, texts)
            at, bounds = int(texts.data.ctypes.data), texts.indptr.tolist()
            after = [core.run(state, at + bounds[k], bounds[k + 1] - bounds[k]) for k in members]
            ending = [self.is_whole(one) for one in after]
        return np.flatnonzero(np.array([*ending, False])[group]).tolist() if any(ending) else []
