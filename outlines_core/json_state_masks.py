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
from outlines_core.json_schema.arena import FREE
from outlines_core.json_schema.machine import Machine
from outlines_core.json_states import NO_RECORDS, JsonStates
from outlines_core.kernels import json as kernel
from outlines_core.kernels.dfa import mask_hash, mask_to_ids
from outlines_core.kernels.inside import fill_endings, set_tokens
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
        self._key_masks: dict[tuple[int, int], NDArray[np.uint32] | None] = {}
        self._endings: dict[Any, NDArray[np.uint32] | None] = {}
        self._n_exact = 0
        self._dense: dict[int, NDArray[np.int32]] = {}
        self._ids = np.empty(self.room, dtype=np.int32)
        self._mask_bytes = 0
        self._path = np.zeros((self.trie.max_depth + 2, 5), dtype=np.int64)
        self._fixed_masks()

    def _fixed_masks(self) -> None:
        words = np.zeros(self.n_words, dtype=np.uint32)
        self.masks[DEAD] = self._compressed(words)
        words = np.zeros(self.n_words, dtype=np.uint32)
        self._add_eos(words)
        self.masks[FINISHED] = self._compressed(words)

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
            key, own = self._mask_key(state), (self.state_config[state], self.state_records[state])
            known = self._by_config.get(key)
            if known is None and own[1] is not NO_RECORDS:
                known = self._by_config.get(own)
            if known is None:
                self._n_exact = 0
                words = self._words(state)
                if self._n_exact and own[1] is not NO_RECORDS:
                    key = own  # the texts so far have been looked at
                self._add_duplicates(words)
                if self.accepting[state]:
                    self._add_eos(words)
                known = self._by_config[key] = self._compressed(words)
                self._mask_bytes += 300 + (known.nbytes if known.shape != self.shape else 0)
                if self._mask_bytes > self.limits.max_mask_bytes:
                    self._by_config.clear()
                    self._dense.clear()
                    self._key_masks.clear()
                    self._endings.clear()
                    self.masks = {DEAD: self.masks[DEAD], FINISHED: self.masks[FINISHED]}
                    self._mask_bytes = 0
            self.masks[state] = known
            return known

    def _mask_key(self, state: int) -> Any:
        """What the mask of a state depends on."""
        number, records = self.state_config[state], self.state_records[state]
        config = self.config[number]
        i = int(config[0])
        if records[0]:
            return (number, records)
        if self.inst[i, kernel.I_FLAGS] & kernel.COUNTED:
            least, most, n = int(self.inst[i, kernel.I_LEAST]), int(self.inst[i, kernel.I_MOST]), int(config[3]) >> 32
            c = int(config[1])
            far = self.trie.max_depth + 1
            room = -1 if most < 0 else min(most - n, far + self.shared.farthest(c))
            return (i, c, int(config[3]) & 0xFFFFFFFF, int(config[4]), min(max(least - n, 0), far), room)
        return number

    def _words(self, state: int) -> NDArray[np.uint32]:
        words = np.zeros(self.n_words + 1, dtype=np.uint32)
        config = self.config[self.state_config[state]].copy()
        i, c, t, x, _ = config.tolist()
        kind, flags = int(self.inst[i, kernel.I_KIND]), int(self.inst[i, kernel.I_FLAGS])
        shared = self.shared
        if kind == kernel.STRUCT:
            ids, tops = shared.whitespace(self, x)
            set_tokens(ids, words)
            self._walk_tops(kernel.walk_struct, state, (config, tops), words)
            return words[: self.n_words]
        if c == 0 or x & 0xFFFFFFFF:
            self._walk(state, config, words)
            return words[: self.n_words]
        if kind == kernel.STRING and flags & kernel.COUNTED and self.inst[i, kernel.I_MOST] >= 0:
            n, least, most = x >> 32, int(self.inst[i, kernel.I_LEAST]), int(self.inst[i, kernel.I_MOST])
            inside = shared.limited(self, c)
            inside.fill_limited(most - n, words)
            self._open_escapes(config, inside, most - n, words)
            self._leave(state, config, inside, (least - n, most - n), words)
            return words[: self.n_words]
        inside = shared.inside(self, c, kind)
        inside.fill(words)
        if kind == kernel.STRING and t != 0 and c == FREE and flags == kernel.OTHERS:
            base = self._unknown_key(state, config, inside, words)
            if base is not None:
                words[: self.n_words] = base
                self._patch(state, config, inside.exits, words)
                return words[: self.n_words]
        if kind == kernel.STRING and t != 0 and c != FREE:  # known texts that the content row does not cover
            known_only = config.copy()
            known_only[1] = 0
            self._walk(state, known_only, words)
        least = int(self.inst[i, kernel.I_LEAST]) - (x >> 32) if flags & kernel.COUNTED else 0
        self._leave(state, config, inside, (least, 1 << 30), words)
        return words[: self.n_words]

    def _open_escapes(self, config: NDArray[np.int64], inside: Inside, room: int, words: NDArray[np.uint32]) -> None:
        """Allow tokens that end within an escape of which only some characters leave room for the end."""
        for token_id in inside.open_escapes(room, self.shared.farthest(int(config[1]))):
            while True:
                self._run[0] = config
                status = kernel.advance(self.mem, self.rows, self.data, self.indptr, token_id, self._run)
                if status != kernel.HOLE:
                    break
                self.fill_hole()
            if status == kernel.LIVE:
                words[token_id >> 5] |= np.uint32(1 << (token_id & 31))

    def _leave(
        self,
        state: int,
        config: NDArray[np.int64],
        inside: Inside,
        bounds: tuple[int, int],
        words: NDArray[np.uint32],
    ) -> None:
        """Add the tokens that leave a lexeme and add bounds[0]..bounds[1] characters before."""
        if config[2] == 0 and inside.leaving:
            texts = self.shared.endings.text
            for leaving in inside.leaving:
                live = self._live_endings(config, leaving.row)
                if live is None:
                    break
                fill_endings(leaving.tokens, leaving.chars, *bounds, texts, live, words)
            else:
                self._walk_exits(state, config, inside.others, bounds, words)
                return
        self._walk_exits(state, config, inside.exits, bounds, words)

    def _live_endings(self, config: NDArray[np.int64], row: int) -> NDArray[np.uint32] | None:
        """Which texts may stand behind the quote that ends a string at a content row; None: that depends on more."""
        place = (int(config[0]), row, int(config[4]))
        if place not in self._endings:
            at = config.copy()
            at[1], at[3] = row, max(int(self.inst[place[0], kernel.I_LEAST]), 0) << 32
            out = np.zeros(5, dtype=np.int64)
            self.mem[kernel.M_GENERIC] = 1
            status = self.step(at, 0x22, out)
            key = out.tobytes() if status == kernel.LIVE else status
            if key not in self._endings:
                self._endings[key] = self._walk_endings(status, out)
                self._mask_bytes += 4 * self.shared.endings.n_words + 200
            self._endings[place] = self._endings[key]
            self._mask_bytes += 200
        return self._endings[place]

    def _walk_endings(self, status: int, after: NDArray[np.int64]) -> NDArray[np.uint32] | None:
        """The texts that may stand behind a quote which has led to `after`, if `status` is LIVE."""
        if status == kernel.EXACT:
            return None
        endings = self.shared.endings
        live = np.zeros(endings.n_words + 1, dtype=np.uint32)
        if status == kernel.DEAD:
            return live
        live[0] = 1
        self._path[0] = after
        node, stop = 0, len(endings.trie[0])
        while True:
            status = kernel.walk(self.mem, self.rows, endings.trie, self._path, node, stop, 0, live)
            if status == kernel.LIVE:
                return live
            if status == kernel.EXACT:
                return None
            node = int(self.mem[kernel.M_NODE])
            if status == kernel.HOLE:
                self.fill_hole()
            else:
                self.grow()

    def _unknown_key(
        self, state: int, config: NDArray[np.int64], inside: Inside, stay: NDArray[np.uint32]
    ) -> NDArray[np.uint32] | None:
        """The mask within a key that is no known one any more; None if it depends on more than that."""
        key = (int(config[0]), int(config[4]))
        if key not in self._key_masks:
            words = stay.copy()
            unknown = config.copy()
            unknown[2] = 0
            self._n_exact = 0
            self._leave(state, unknown, inside, (0, 1 << 30), words)
            self._key_masks[key] = words[: self.n_words] if self._n_exact == 0 else None
            self._mask_bytes += words.nbytes
        return self._key_masks[key]

    def _patch(
        self, state: int, config: NDArray[np.int64], exits: NDArray[np.int64], words: NDArray[np.uint32]
    ) -> None:
        """Put right what tokens do that complete a known key."""
        t = self.root(int(config[0])) if config[2] == -1 else int(config[2])
        numbers = np.empty(len(exits), dtype=np.int64)
        packed = self.trie.packed
        n = kernel.exits_at_texts(self.mem, packed, exits, t, self._path, numbers)
        if n:
            mine = exits[numbers[:n]]
            kernel.clear_tokens(packed, mine[:, 0].copy(), words)
            self._walk_exits(state, config, mine, (0, 1 << 30), words)

    def _walk(self, state: int, config: NDArray[np.int64], words: NDArray[np.uint32]) -> None:
        path = self._path
        path[0] = config
        self.mem[kernel.M_GENERIC] = 1
        node, given, stop = 0, 0, int(self.trie.info.shape[0])
        while True:
            status = kernel.walk(self.mem, self.rows, self.trie.packed, path, node, stop, given, words)
            if status == kernel.LIVE:
                return
            node = int(self.mem[kernel.M_NODE])
            given = self._resolve(int(status), state, node)

    def _walk_exits(
        self,
        state: int,
        config: NDArray[np.int64],
        exits: NDArray[np.int64],
        bounds: tuple[int, int],
        words: NDArray[np.uint32],
    ) -> None:
        if not len(exits):
            return
        limits = np.array(bounds, dtype=np.int64)
        self._walk_tops(kernel.walk_exits, state, (config, exits, limits), words)

    def _walk_tops(
        self, walk: Any, state: int, places: tuple[NDArray[np.int64], ...], words: NDArray[np.uint32]
    ) -> None:
        """Walk the subtrees of many nodes."""
        self.mem[kernel.M_EXIT] = 0
        self.mem[kernel.M_NODE] = -1
        self.mem[kernel.M_GENERIC] = 1
        given = 0
        while True:
            status = walk(self.mem, self.rows, self.trie.packed, *places, self._path, given, words)
            if status == kernel.LIVE:
                return
            at = self.mem[[kernel.M_EXIT, kernel.M_NODE]]
            given = self._resolve(int(status), state, int(at[1]))
            self.mem[[kernel.M_EXIT, kernel.M_NODE]] = at

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
        self.mem[kernel.M_GENERIC] = 1
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

    def _compressed(self, words: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Ids if they are few, else the words."""
        n = mask_to_ids(words, self._ids)
        if n <= self.room:
            return self._ids[:n].copy()
        key = int(mask_hash(words))
        known = self._dense.get(key)
        mine = words.view(np.int32)
        if known is None or known.tobytes() != mine.tobytes():
            known = self._dense[key] = mine
            self._mask_bytes += mine.nbytes
        return known
