"""The masks of a JSON Schema's states.

What stays inside a lexeme, and what follows a closing quote, is known already in most cases (`json_masks`); the rest is
a walk of the kernel over the vocabulary's trie, which stops at what is not in the tables yet, or depends on texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.automaton import MaskedCore
from outlines_core.json_inside import Inside
from outlines_core.json_masks import LexemeMasks, Whitespace
from outlines_core.json_schema.machine import Machine
from outlines_core.json_states import NO_RECORDS, JsonStates, Records
from outlines_core.kernels import json as kernel
from outlines_core.kernels import json_masks as masks
from outlines_core.kernels.dfa import mask_to_ids
from outlines_core.kernels.json_memory import FREE
from outlines_core.limits import Limits
from outlines_core.types import DEAD, FINISHED, FIRST_STATE
from outlines_core.vocabulary import Vocabulary

__all__ = ["JsonMasks"]


class JsonMasks(MaskedCore, JsonStates):
    """States with their masks."""

    def __init__(
        self, vocabulary: Vocabulary, machine: Machine, shared: LexemeMasks, whitespace: Whitespace, limits: Limits
    ) -> None:
        super().__init__(vocabulary, machine, shared, whitespace, limits)
        self.shape = (self.n_words,)
        self.room = (self.n_words - 1) // 4
        self.masks: dict[int, NDArray[np.int32]] = {}
        self._by_config: dict[Any, NDArray[np.int32]] = {}
        self._n_exact = 0
        self._dense: dict[int, tuple[NDArray[np.int32], int]] = {}
        self._mask_bytes = 0
        handles = self.handles
        self._words = handles[masks.H_WORDS] = np.zeros(self.n_words + 1, dtype=np.uint32)
        self._ids = handles[masks.H_IDS] = np.empty(self.room, dtype=np.int32)
        self._path = handles[masks.H_PATH] = np.zeros((self.trie.max_depth + 2, 5), dtype=np.int64)
        handles[masks.H_TRAIL] = np.zeros(2 * (self.trie.max_depth + 2), dtype=np.int64)
        handles[masks.H_EOS] = self.eos_ids.astype(np.int32)
        handles[masks.H_TWINS] = self.trie.duplicates
        self._texts = handles[masks.H_TEXTS] = np.zeros((256, 5), dtype=np.int64)
        self._trie_at = shared.trie_handles.address
        handles[masks.H_RUNS] = shared.runs_at(self.whitespace)
        self._fixed_masks()

    def _fixed_masks(self) -> None:
        self._words[:] = 0
        self.masks[DEAD] = self._compressed(0)
        self._add_eos(self._words)
        self.masks[FINISHED] = self._compressed(mask_to_ids(self._words, self._ids))

    def _add_eos(self, words: NDArray[np.uint32]) -> None:
        np.bitwise_or.at(words, self.eos_ids >> 5, np.uint32(1) << (self.eos_ids & 31).astype(np.uint32))

    def mask(self, state: int) -> NDArray[np.int32]:
        """The mask of a state: (n_words,) words, or fewer entries and then the allowed ids."""
        with self.lock:
            known = self.masks.get(state)
            if known is not None:
                return known
            if not FIRST_STATE <= state < len(self.state_config):
                raise ValueError(f"{state} is not a state of this automaton")
            number, records = self.state_config[state], self.state_records[state]
            if not records[0]:
                known = self._by_config.get(number) if records is not NO_RECORDS else None
                if known is None:
                    known = self._fill_state(number, self.accepting[state])
                if known is not None:
                    if records is not NO_RECORDS:
                        self._by_config[number] = known
                    self._keep(state, known)
                    return known
            config: list[int] = self.config[number].tolist()
            key = self._mask_key(number, records, config)
            known = self._by_config.get(key) if key is not None else None
            if known is None and records is not NO_RECORDS:
                known = self._by_config.get((number, records))
            if known is None:
                self._n_exact = 0
                known = self._make(state, config)
                if self._n_exact and records is not NO_RECORDS:
                    key = number, records  # the texts so far have been looked at
                if key is not None:
                    self._by_config[key] = known
                self._keep(state, known)
            self.masks[state] = known
            return known

    def _keep(self, state: int, mask: NDArray[np.int32]) -> None:
        """Take note of a new mask; of all there are, if they have become too many."""
        self._mask_bytes += 300 + (mask.nbytes if mask.shape != self.shape else 0)
        if self._mask_bytes > self.limits.max_mask_bytes:
            self._by_config.clear()
            self._dense.clear()
            self.masks = {DEAD: self.masks[DEAD], FINISHED: self.masks[FINISHED]}
            self._mask_bytes = 0
        self.masks[state] = mask

    def _fill_state(self, number: int, may_end: bool) -> NDArray[np.int32] | None:
        """The mask of a configuration in one call, if its tables are at hand."""
        tables = *self._tables, self._trie_at, self.shared.endings_at
        while True:
            n = masks.fill_state(*tables, number, may_end)
            if n >= 0:
                return self._compressed(n)
            if n <= masks.KNOWN:
                return self.shared.string_mask(masks.KNOWN - n)
            if n == kernel.HOLE:
                self.fill_hole()
            elif n == kernel.FULL:
                self.grow()
            else:
                return None

    def _mask_key(self, number: int, records: Records, config: list[int]) -> Any:
        """What the mask of a state depends on; None: on the state itself."""
        if records[0]:
            return (number, records)
        i, c, _, x, sid = config
        _, _, _, least, most, flags, _ = self.fields(i)
        if flags & kernel.COUNTED:
            n = x >> 32
            far = self.trie.max_depth + 1
            room = -1 if most < 0 else min(most - n, far + self.shared.farthest(c))
            return (i, c, x & 0xFFFFFFFF, sid, min(max(least - n, 0), far), room)
        return None if records is NO_RECORDS else number

    def _make(self, state: int, config: list[int]) -> NDArray[np.int32]:
        """The mask of a state."""
        i, c, t, x, _ = config
        kind, _, _, least, most, flags, _ = self.fields(i)
        shared, words = self.shared, self._words
        if kind == kernel.STRUCT:
            return self._fill_tops(state, config, shared.whitespace(self, x).at)
        if c == 0 or x & 0xFFFFFFFF:
            return self._compressed(self._fill_whole(state, config, -1))
        n, ample = x >> 32, self.trie.max_depth + 1 + shared.farthest(c)
        if kind == kernel.STRING and flags & kernel.COUNTED and 0 <= most < n + ample:
            low, high = least - n, most - n
            if c == FREE and t == 0:
                shared.make_room(self, high)
                known = self._fill_state(self.state_config[state], self.accepting[state])
                if known is not None:
                    return known
            inside = shared.limited(self, c)
            inside.fill_limited(high, words)
            self._open_escapes(state, inside, high)
            found = self._fill_string(state, config, inside, low, high, ready=True) if t == 0 else None
            return found if found is not None else self._fill_exits(state, config, inside.exits_at, low, high)
        inside = shared.inside(self, c, kind)
        least = least - n if flags & kernel.COUNTED else 0
        if kind == kernel.STRING and (t == 0 or (c == FREE and flags == kernel.OTHERS)):
            found = self._fill_string(state, config, inside, least, masks.NO_BOUND)
            if found is not None:
                return found
        inside.fill(words)
        if kind == kernel.STRING and t != 0 and c != FREE:  # known texts that the content row does not cover
            self._fill_whole(state, [i, 0, *config[2:]], 0)
        return self._fill_exits(state, config, inside.exits_at, least, masks.NO_BOUND)

    def _open_escapes(self, state: int, inside: Inside, room: int) -> None:
        """Allow tokens that end within an escape of which only some characters leave room for the end."""
        for token_id in inside.open_escapes(room, self.shared.farthest(int(self.config[self.state_config[state], 1]))):
            if self._advance(state, token_id) != DEAD:
                self._words[token_id >> 5] |= np.uint32(1 << (token_id & 31))

    def _fill_string(
        self, state: int, config: list[int], inside: Inside, low: int, high: int, *, ready: bool = False
    ) -> NDArray[np.int32] | None:
        """`_make` of a string; None if that depends on more than kernels know. ready: are the tokens inside written?"""
        if inside.table is None:
            return None
        i, _, t, _, sid = config
        if t and inside.exits_at[1] > len(self._texts):
            self._texts = self.handles[masks.H_TEXTS] = np.zeros((2 * inside.exits_at[1], 5), dtype=np.int64)
        tables = *self._tables, self._trie_at, self.shared.endings.trie.address, inside.table.address
        may_end = self.accepting[state]
        while (n := int(masks.fill_string(*tables, i, t, sid, low, high, ready, may_end))) < 0:
            if n <= masks.KNOWN:
                known: NDArray[np.int32] = inside.masks[masks.KNOWN - n]
                return known
            if n == kernel.HOLE:
                self.fill_hole()
            elif n == kernel.FULL:
                self.grow()
            else:
                return None
        return self._compressed(n)

    # -- walks ------------------------------------------------------------------------------------------------------

    def _fill_whole(self, state: int, config: list[int], node: int) -> int:
        """Walk all tokens; node: -1, or 0 to add to the words as they are."""
        i, c, t, x, sid = config
        given, may_end = 0, self.accepting[state]
        while True:
            n = int(masks.fill_whole(*self._tables, self._trie_at, i, c, t, x, sid, node, given, may_end))
            if n >= 0:
                return n
            node = int(self.mem[kernel.M_NODE])
            given = self._resolve(n, state, node)

    def _fill_tops(self, state: int, config: list[int], runs: tuple[int, int, int]) -> NDArray[np.int32]:
        """Walk the subtrees behind whitespace."""
        i, sid = config[0], config[4]
        exit_, node, given, may_end = 0, -1, 0, self.accepting[state]
        while True:
            n = int(masks.fill_tops(*self._tables, self._trie_at, i, sid, *runs, exit_, node, given, may_end))
            if n >= 0:
                return self._compressed(n)
            exit_, node = self.mem[[kernel.M_EXIT, kernel.M_NODE]].tolist()
            given = self._resolve(n, state, node)

    def _fill_exits(
        self, state: int, config: list[int], exits: tuple[int, int], low: int, high: int
    ) -> NDArray[np.int32]:
        """Walk the subtrees of exits, at an address."""
        i, _, t, _, sid = config
        exit_, node, given, may_end = 0, -1, 0, self.accepting[state]
        while True:
            n = int(
                masks.fill_exits(
                    *self._tables, self._trie_at, i, t, sid, *exits, low, high, exit_, node, given, may_end
                )
            )
            if n >= 0:
                return self._compressed(n)
            exit_, node = self.mem[[kernel.M_EXIT, kernel.M_NODE]].tolist()
            given = self._resolve(n, state, node)

    def _resolve(self, status: int, state: int, node: int) -> int:
        """Do what a walk from `state` has stopped for at a trie node; returns its `given`."""
        if status == kernel.HOLE:
            self.fill_hole()
            return 0
        if status == kernel.FULL:
            self.grow()
            return 0
        self._n_exact += 1
        depth = int(self.trie.info[node]) >> 8
        path = self._path[:depth].copy()
        result = self.exactly(self.config[self.state_config[state]].copy(), self.state_records[state], self._text(node))
        self._path[:depth] = path
        if result is None:
            return -4
        self._path[depth] = result[0]
        return kernel.LIVE

    def _text(self, node: int) -> bytes:
        """The bytes on the way to a node of the vocabulary's trie."""
        depth = int(self.trie.info[node]) >> 8
        below = node + int(np.argmax(self.trie.token[node : self.trie.end[node]] >= 0))
        start = int(self.indptr[self.trie.token[below]])
        return self.data[start : start + depth].tobytes()

    def _add_duplicates(self, words: NDArray[np.uint32]) -> None:
        duplicates = self.trie.duplicates
        if len(duplicates):
            first, other = duplicates[:, 0], duplicates[:, 1]
            set_ = other[(words[first >> 5] >> (first & 31).astype(np.uint32)) & np.uint32(1) == 1]
            np.bitwise_or.at(words, set_ >> 5, np.uint32(1) << (set_ & 31).astype(np.uint32))

    def _compressed(self, n: int) -> NDArray[np.int32]:
        """What `_make` has left: ids if they are few, else the words."""
        if n <= self.room:
            return self._ids[:n].copy()
        key = masks.words_hash(self.handles.address)
        known = self._dense.get(key)
        if known is None or not masks.words_are(self.handles.address, known[1]):
            words = self._words[: self.n_words].copy()
            known = self._dense[key] = words.view(np.int32), int(words.ctypes.data)
            self._mask_bytes += words.nbytes
        return known[0]
