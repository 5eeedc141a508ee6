"""The states of a JSON Schema's token automaton: configurations of the kernel, interned, with their masks and edges.

A state is a configuration of the kernel, plus, where that matters, texts that only this module knows: the name of an
additional key that is being written, and the items of arrays whose items must differ. Where such a text decides, the
kernel stops with EXACT and the bytes are run one by one here (`JsonCore.exactly`).
"""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outlines_core.automaton import MaskedCore
from outlines_core.errors import IncompatibleVocabularyError, LimitExceededError, UnsatisfiableError
from outlines_core.json_closing import Closing
from outlines_core.json_inside import Inside
from outlines_core.json_masks import SPELLED_WITH, LexemeMasks, Whitespace
from outlines_core.json_schema.arena import FREE
from outlines_core.json_schema.depth import deeply
from outlines_core.json_schema.machine import Machine, ObjectFrame
from outlines_core.json_schema.nodes import SchemaNode
from outlines_core.json_schema.refusals import refuse_unique_items, unsatisfiable_place
from outlines_core.json_schema.sat import Usable
from outlines_core.json_schema.splits import canonical
from outlines_core.json_tables import JsonTables, encoded, enlarged
from outlines_core.kernels import json as kernel
from outlines_core.kernels.dfa import mask_hash, mask_to_ids
from outlines_core.kernels.inside import fill_endings
from outlines_core.limits import Limits
from outlines_core.types import DEAD, FINISHED, FIRST_STATE
from outlines_core.vocabulary import Vocabulary

__all__ = ["JsonCore"]

_EDGES_KEPT: Final = 1 << 16
Records: TypeAlias = tuple[tuple[bytes, ...], bytes | None]
"""Texts so far of the items that are being recorded, outermost first, and of an additional key."""
_NO_RECORDS: Final[Records] = ((), None)


class JsonCore(MaskedCore, JsonTables):
    """Everything that automata of one schema, one set of options and one vocabulary share."""

    def __init__(
        self,
        root: SchemaNode,
        vocabulary: Vocabulary,
        shared: LexemeMasks,
        whitespace: Whitespace,
        limits: Limits,
        *,
        in_order: bool,
        source: str,
    ) -> None:
        label = f"the schema {source if len(source) <= 80 else f'{source[:77]}...'}"
        self.vocabulary, self.label = vocabulary, label
        self.lock = shared.lock
        table = vocabulary.table
        self.size, self.n_words = table.size, table.n_words
        self.shape = (self.n_words,)
        self.data, self.indptr = table.data, table.indptr
        self.eos_ids = table.eos_ids
        self.eos = frozenset(table.eos_ids.tolist())
        self.trie = table.trie
        self.room = (self.n_words - 1) // 4
        machine = Machine(root, shared.lexemes, in_order=in_order, usable=shared.usable)
        super().__init__(machine, shared, whitespace, limits)
        self._configs: dict[bytes, int] = {}
        self.config = np.zeros((64, 5), dtype=np.int64)
        self.n_configs = 0
        self._states: dict[tuple[int, Records], int] = {}
        self.state_config: list[int] = [-1, -1]
        self.state_records: list[Records] = [_NO_RECORDS, _NO_RECORDS]
        self.accepting: list[bool] = [False, True]
        self.edges: dict[tuple[int, int], int] = {}
        self.masks: dict[int, NDArray[np.int32]] = {}
        self._by_config: dict[Any, NDArray[np.int32]] = {}
        self._key_masks: dict[tuple[int, int], NDArray[np.uint32] | None] = {}
        self._endings: dict[Any, NDArray[np.uint32] | None] = {}
        self._n_exact = 0
        self._dense: dict[int, NDArray[np.int32]] = {}
        self._ids = np.empty(self.room, dtype=np.int32)
        self._mask_bytes = 0
        self._path = np.zeros((self.trie.max_depth + 2, 5), dtype=np.int64)
        self._run = np.zeros((3, 5), dtype=np.int64)
        self._fixed_masks()
        self.closing = Closing(self)
        self._distances: dict[int, int] = {}
        with self.lock:
            goal = self.machine.root
            if not deeply(lambda: self.machine.is_alive(goal)):
                self._refuse_vocabulary(root, in_order)
                place = unsatisfiable_place(self.machine.lowering, self.machine.sat, root)
                where = f": nothing satisfies #{place}" if place else ""
                raise UnsatisfiableError(f"no JSON value satisfies {label}{where}", path=place)
            if "uniqueItems" in source:
                refuse_unique_items(self.machine.lowering, self.machine.sat, root)
            start = np.array([self.value_struct(goal), 0, 0, kernel.WS + 1, 0], dtype=np.int64)
            self.start = self._intern(start, _NO_RECORDS)

    def _refuse_vocabulary(self, root: SchemaNode, in_order: bool) -> None:
        """Raise IncompatibleVocabularyError if the schema has values, and only bytes are missing."""
        usable, lexemes = self.shared.usable, self.shared.lexemes

        def has_values(usable: Usable) -> bool:
            machine = Machine(root, lexemes, in_order=in_order, usable=usable)
            return deeply(lambda: machine.is_alive(machine.root))

        if usable == Usable() or not has_values(Usable()):
            return
        kinds: dict[str, bytes] = {**SPELLED_WITH, "literals": b"nulltruefalse"}
        helpful = [kind for kind in kinds if has_values(usable._replace(**{kind: getattr(Usable(), kind)}))]
        missing = self.shared.missing(b"".join(kinds[kind] for kind in helpful or kinds))
        raise IncompatibleVocabularyError(
            f"no value of {self.label} can be spelled with the vocabulary: it has no tokens for {missing!r}",
            missing_bytes=missing,
        )

    # -- states -----------------------------------------------------------------------------------------------------

    def _intern(self, config: NDArray[np.int64], records: Records) -> int:
        raw = config.tobytes()
        number = self._configs.get(raw)
        if number is None:
            number = self.n_configs
            if number >= self.config.shape[0]:
                self.config = enlarged(self.config, 2 * number)
            self.config[number] = config
            self._configs[raw] = number
            self.n_configs = number + 1
        key = (number, records)
        state = self._states.get(key)
        if state is None:
            state = len(self.state_config)
            if state >= self.limits.max_states:
                raise LimitExceededError(
                    f"the constraint needs more than {self.limits.max_states:,} automaton states (Limits.max_states)",
                    given=state + 1,
                    limit=self.limits.max_states,
                )
            self._states[key] = state
            self.state_config.append(number)
            self.state_records.append(records)
            self.accepting.append(self.is_end(config))
        return state

    def is_end(self, config: NDArray[np.int64]) -> bool:
        """May the text end at this configuration?"""
        i, c, _, x, sid = config.tolist()
        if i == kernel.END_INSTANCE:
            return bool(self.consts[x, 4])
        return bool(self.inst[i, kernel.I_KIND] == kernel.PLAIN and sid == 0 and self.rows[c, kernel.OUTCOME] >= 0)

    @property
    def initial_state(self) -> int:
        return self.start

    @property
    def nbytes(self) -> int:
        """Rough memory of this schema's own tables, states and masks."""
        return super().nbytes + self.config.nbytes + self._mask_bytes + 250 * len(self._states)

    @property
    def n_states(self) -> int:
        return len(self.state_config)

    def accepts(self, state: int) -> bool:
        """May the text end in this (live) state?"""
        return self.accepting[state]

    def next_state(self, state: int, token_id: int) -> int:
        if state < FIRST_STATE:
            return FINISHED if state == FINISHED and token_id in self.eos else DEAD
        if token_id in self.eos:
            return FINISHED if self.accepting[state] else DEAD
        if not 0 <= token_id < self.size:
            return DEAD
        with self.lock:
            if state >= len(self.state_config):
                raise ValueError(f"{state} is not a state of this automaton")
            target = self._advance(state, token_id)
            if len(self.edges) >= _EDGES_KEPT:
                self.edges.clear()
            self.edges[state, token_id] = target
            return target

    def _advance(self, state: int, token_id: int) -> int:
        records = self.state_records[state]
        run = self._run
        run[0] = self.config[self.state_config[state]]
        if records is _NO_RECORDS:
            self.mem[kernel.M_GENERIC] = 0
            while True:
                status = kernel.advance(self.mem, self.rows, self.data, self.indptr, token_id, run)
                if status == kernel.LIVE:
                    if self.mem[kernel.M_EXACT]:
                        break
                    return self._intern(run[1], _NO_RECORDS)
                if status == kernel.DEAD:
                    return DEAD
                if status == kernel.HOLE:
                    self.fill_hole()
                elif status == kernel.FULL:
                    self.grow()
                else:
                    break
        text = self.data[self.indptr[token_id] : self.indptr[token_id + 1]].tobytes()
        result = self.exactly(run[0].copy(), records, text)
        return DEAD if result is None else self._intern(*result)

    def forced(self, state: int) -> bytes:
        """The bytes that must follow one after the other."""
        text = bytearray()
        with self.lock:
            config = self.config[self.state_config[state]].copy()
            records = self.state_records[state]
            while not self.is_end(config):
                live = self.live_bytes(config, records)
                if len(live) != 1:
                    break
                result = self.exactly(config, records, bytes(live))
                assert result is not None
                config, records = result
                text += bytes(live)
        return bytes(text)

    # -- distances --------------------------------------------------------------------------------------------------

    def completion(self, state: int) -> bytes:
        """A text with which the automaton accepts, from a live state: a shortest one, as far as `Closing` finds it."""
        with self.lock:
            config, records = self.config[self.state_config[state]].copy(), self.state_records[state]
            return deeply(lambda: self.closing.completion(config, records))

    def distance(self, state: int) -> int:
        """The fewest tokens that spell `completion`."""
        known = self._distances.get(state)
        if known is None:
            text = np.frombuffer(self.completion(state), dtype=np.uint8)
            known = int(kernel.fewest_tokens(self.trie.packed, text, self.size)) if len(text) else 0
            if len(self._distances) >= _EDGES_KEPT:
                self._distances.clear()
            self._distances[state] = known
        return known

    def closing_mask(self, state: int, budget: int, words: NDArray[np.uint32]) -> None:
        """The tokens of the mask after which `distance` is at most ``budget - 1``."""
        self.fill(state, words)
        if state < FIRST_STATE:
            return
        with self.lock:
            group, first = self._groups(state)
            # Tokens of a group differ at most in texts that must not be repeated: that costs a few characters more.
            margin = 4 if self.state_records[state] is not _NO_RECORDS else 0
            near = np.zeros(len(first) + 1, dtype=np.bool_)
            for g, token_id in enumerate(first):
                near[g] = self.distance(self._advance(state, token_id)) + margin < budget
            if near[:-1].all():
                return
            allowed = near[group]
            if margin and budget > 0 and self.distance(state) <= budget:
                allowed |= self._on_the_way(state)
            bits = np.zeros(32 * self.n_words, dtype=np.uint8)
            bits[: self.size] = allowed
            words[: self.n_words] = np.packbits(bits, bitorder="little").view("<u4")
            self._add_duplicates(words[: self.n_words])
            if self.accepting[state]:
                self._add_eos(words[: self.n_words])

    def _on_the_way(self, state: int) -> NDArray[np.bool_]:
        """The token that the completion begins with, of those after which it gets nearer."""
        text, wanted = self.completion(state), self.distance(state) - 1
        found = np.zeros(self.size, dtype=np.bool_)
        for length in range(min(len(text), self.trie.max_depth), 0, -1):
            for token_id in self.vocabulary.get(text[:length]) or ():
                if self.distance(self._advance(state, token_id)) <= wanted:
                    found[token_id] = True
                    return found
        return found

    def _groups(self, state: int) -> tuple[NDArray[np.int32], list[int]]:
        """Tokens by the configuration that they lead to: (size,) group, the last one for dead tokens; first members."""
        cells = 1 << 12
        while True:
            groups = np.full((cells, 6), -1, dtype=np.int64)
            cell = np.full(self.size, -1, dtype=np.int32)
            counter = np.zeros(1, dtype=np.int64)
            self._path[0] = self.config[self.state_config[state]]
            self.mem[kernel.M_GENERIC] = 1
            node = given = 0
            while True:
                status = int(
                    kernel.walk_groups(
                        self.mem, self.rows, self.trie.packed, self._path, node, given, groups, cell, counter
                    )
                )
                node = int(self.mem[kernel.M_NODE])
                if status == kernel.LIVE or node < 0:
                    break
                given = self._resolve(status, state, node)
            if status == kernel.LIVE:
                break
            cells *= 4
        used = np.flatnonzero(groups[:, 5] >= 0)
        number = np.full(cells + 1, len(used), dtype=np.int32)
        number[used] = np.arange(len(used))
        return number[cell], groups[used, 5].tolist()

    def live_bytes(self, config: NDArray[np.int64], records: Records) -> list[int]:
        """Which bytes may follow."""
        found = []
        self.mem[kernel.M_GENERIC] = 0
        out = np.zeros(5, dtype=np.int64)
        for byte in range(256):
            status = self.step(config, byte, out)
            if status == kernel.EXACT:
                status = kernel.LIVE if self.exactly(config, records, bytes([byte])) is not None else kernel.DEAD
            if status == kernel.LIVE:
                found.append(byte)
        return found

    def step(self, config: NDArray[np.int64], byte: int, out: NDArray[np.int64]) -> int:
        """`kernels.json.step`, holes filled."""
        while True:
            status = int(kernel.step(self.mem, self.rows, config[None], 0, byte, out[None], 0))
            if status == kernel.HOLE:
                self.fill_hole()
            elif status == kernel.FULL:
                self.grow()
            else:
                return status

    # -- exact steps ------------------------------------------------------------------------------------------------

    def exactly(
        self, config: NDArray[np.int64], records: Records, text: bytes
    ) -> tuple[NDArray[np.int64], Records] | None:
        """Run bytes one by one, keeping account of keys and items; None if they lead nowhere."""
        self.mem[kernel.M_GENERIC] = 0
        items = [bytearray(r) for r in records[0]]
        key = bytearray(records[1]) if records[1] is not None else None
        at = 0
        while at < len(text):
            byte = text[at]
            i, _, t, x, sid = config.tolist()
            if self._names_keys(i) and key is None:
                key = bytearray(self._spelled(i, t, x))
            out = np.zeros(5, dtype=np.int64)
            status = self.step(config, byte, out)
            if status == kernel.DEAD:
                return None
            if status == kernel.EXACT and self.mem[kernel.M_KIND] == kernel.HOLE_RETURN:
                plain = self.inst[i, kernel.I_KIND] == kernel.PLAIN and out[4] == sid  # it is the item
                item = items.pop()
                if not plain:
                    item.append(byte)
                struct = self._after_item(bytes(item))
                if not struct:
                    return None
                config = np.array([struct, 0, 0, kernel.WS + 1, self.stack[out[4], 1]], dtype=np.int64)
                if plain:  # the byte comes after the number
                    continue
            else:
                if key is not None and (status == kernel.EXACT or out[0] != i):
                    frame = self.info[i][1]
                    if status == kernel.EXACT or self.info[int(out[0])][1].seen is not frame.seen:
                        struct = self._named_key(frame, bytes(key))
                        if not struct:
                            return None
                        out = np.array([struct, 0, 0, kernel.WS + 1, sid], dtype=np.int64)
                config = out
            for item in items:
                item.append(byte)
            pushed = int(config[4])
            if pushed != sid and int(self.stack[pushed, 1]) == sid and int(self.stack[pushed, 0]) & 1:
                items.append(bytearray([byte]))
            if not self._names_keys(int(config[0])):
                key = None
            elif key is None or config[0] != i:
                key = bytearray()
            else:
                key.append(byte)
            at += 1
        held = bytes(key) if key is not None and int(config[2]) == 0 else None
        if not items and held is None:
            return config, _NO_RECORDS
        return config, (tuple(map(bytes, items)), held)

    def _after_item(self, text: bytes) -> int:
        """The structural state behind a unique item, of which the kernel has left the return and the outcome."""
        made = self.machine.returns[int(self.mem[kernel.M_A])]
        assert made is not None
        outcome = self.outcomes[int(self.mem[kernel.M_B])]
        value = canonical(_value_of(text))
        return self.after_struct(deeply(lambda: self.machine.after(made, outcome, value)))

    def _names_keys(self, i: int) -> bool:
        """Is this the lexeme of a key that may be a new one?"""
        return bool(self.inst[i, kernel.I_KIND] == kernel.STRING and self.inst[i, kernel.I_FLAGS] & kernel.OTHERS)

    def _named_key(self, frame: ObjectFrame, raw: bytes) -> int:
        """The structural state behind an additional key."""
        name = json.loads(b'"' + raw + b'"')
        kind = tuple(int(self.shared.lexemes.string_passes(test, name)) for test in frame.shape.key_tests)
        made = self.machine.member(frame, kind, name)
        return self.colon_struct(made) if made is not None else 0

    def _spelled(self, i: int, t: int, x: int) -> bytes:
        """A spelling of what has been written of a key that is a known one so far."""
        raw = b""
        if t > 0 and t != self.inst[i, kernel.I_TRIE]:
            whole = encoded(self.info[i][-1][int(self.nodes[t, 4])])
            depth = self.depth_of(i, t, whole)
            raw = _escaped(whole[:depth])
        return raw + _partial_escape(x & 0xFFFFFFFF)

    # -- masks ------------------------------------------------------------------------------------------------------

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
            key = self._mask_key(state)
            known = self._by_config.get(key)
            if known is None:
                words = self._words(state)
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
        if kind == kernel.STRUCT or c == 0 or x & 0xFFFFFFFF:
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
        at = config.copy()
        at[1], at[3] = row, max(int(self.inst[int(at[0]), kernel.I_LEAST]), 0) << 32
        out = np.zeros(5, dtype=np.int64)
        self.mem[kernel.M_GENERIC] = 1
        status = self.step(at, 0x22, out)
        key = out.tobytes() if status == kernel.LIVE else status
        if key in self._endings:
            return self._endings[key]
        endings = self.shared.endings
        live: NDArray[np.uint32] | None = np.zeros(endings.n_words + 1, dtype=np.uint32)
        if status == kernel.EXACT:
            live = None
        elif status == kernel.LIVE:
            assert live is not None
            live[0] = 1
            self._path[0] = out
            node, stop = 0, len(endings.trie[0])
            while node < stop:
                status = kernel.walk(self.mem, self.rows, endings.trie, self._path, node, stop, 0, live)
                if status == kernel.LIVE:
                    break
                if status == kernel.EXACT:
                    live = None
                    break
                node = int(self.mem[kernel.M_NODE])
                if status == kernel.HOLE:
                    self.fill_hole()
                else:
                    self.grow()
        self._endings[key] = live
        self._mask_bytes += 4 * endings.n_words + 200
        return live

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
        self.mem[kernel.M_EXIT] = 0
        self.mem[kernel.M_NODE] = -1
        self.mem[kernel.M_GENERIC] = 1
        given = 0
        while True:
            status = kernel.walk_exits(
                self.mem, self.rows, self.trie.packed, config, exits, limits, self._path, given, words
            )
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


def _value_of(text: bytes) -> Any:
    """A JSON text's value with exact numbers."""
    return json.loads(text, parse_float=_exact, parse_int=_exact)


def _exact(text: str) -> Fraction:
    return Fraction(text)


def _escaped(content: bytes) -> bytes:
    """Content bytes as they may stand in a JSON string; a character that is cut off at the end stays so."""
    cut = len(content)
    while cut and len(content) - cut < 3 and content[cut - 1] >= 0x80 and not _complete(content[:cut]):
        cut -= 1
    text = content[:cut].decode("utf-8", "surrogatepass")
    spelled = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 0x20 or c in '"\\' or 0xD800 <= ord(c) < 0xE000 else c for c in text
    )
    return spelled.encode() + content[cut:]


def _complete(content: bytes) -> bool:
    try:
        content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _partial_escape(esc: int) -> bytes:
    """What has been written of an escape."""
    stage, high = esc >> 19 & 7, esc >> 22
    digits = f"{esc & 0xFFFF:04x}"[4 - (esc >> 16 & 7) :]
    before = f"\\u{0xD800 + high:04x}" if stage in (kernel.PENDING, kernel.PENDING_ESCAPED, kernel.PENDING_HEX) else ""
    after = {kernel.ESCAPED: "\\", kernel.PENDING_ESCAPED: "\\"}.get(stage, "")
    if stage in (kernel.HEX, kernel.PENDING_HEX):
        after = f"\\u{digits}"
    return (before + after).encode()
