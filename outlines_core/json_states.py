"""The states of a JSON Schema's token automaton: configurations of the kernel, interned.

A state is a configuration of the kernel, plus, where that matters, texts that only this module knows: the name of an
additional key that is being written, and the items of arrays whose items must differ. Where such a text decides, the
kernel stops with EXACT and the bytes are run one by one here (`JsonStates.exactly`).
"""

from __future__ import annotations

import ctypes
import json
from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_masks import LexemeMasks, Whitespace
from outlines_core.json_schema.depth import deeply
from outlines_core.json_schema.machine import Machine
from outlines_core.json_schema.splits import canonical
from outlines_core.json_tables import JsonTables, enlarged
from outlines_core.kernels import json as kernel
from outlines_core.kernels import json_masks as masks
from outlines_core.limits import Limits
from outlines_core.types import DEAD
from outlines_core.vocabulary import Vocabulary

__all__ = ["NO_RECORDS", "JsonStates", "Records"]

Records: TypeAlias = tuple[tuple[bytes, ...], bytes | None]
"""Texts so far of the items that are being recorded, outermost first, and of an additional key."""
NO_RECORDS: Final[Records] = ((), None)


class JsonStates(JsonTables):
    """Configurations and the steps between them.

    Attributes:
        config: (n, 5) int64, the configurations.
        state_config, state_records: what each state is: the number of a configuration, and texts.
        accepting: may the text end in a state?
    """

    def __init__(
        self, vocabulary: Vocabulary, machine: Machine, shared: LexemeMasks, whitespace: Whitespace, limits: Limits
    ) -> None:
        super().__init__(machine, shared, whitespace, limits)
        table = vocabulary.table
        self.vocabulary, self.lock = vocabulary, shared.lock
        self.size, self.n_words = table.size, table.n_words
        self.data, self.indptr = table.data, table.indptr
        self.eos_ids = table.eos_ids
        self.eos = frozenset(table.eos_ids.tolist())
        self.trie = table.trie
        self.handles[masks.H_CONFIGS] = np.zeros((64, 5), dtype=np.int64)
        self.handles[masks.H_CELLS] = np.full(256, -1, dtype=np.int32)
        self._run = self.handles[masks.H_RUN] = np.zeros((3, 5), dtype=np.int64)
        self._tables = self.handles.address, shared.arena.handles.address
        self._bounds = shared.bounds
        self._data_at = shared.data_at
        self._plain: list[int] = []  # by configuration: the state without records
        self._states: dict[tuple[int, Records], int] = {}
        self.state_config: list[int] = [-1, -1]
        self.state_records: list[Records] = [NO_RECORDS, NO_RECORDS]
        self.accepting: list[bool] = [False, True]

    @property
    def config(self) -> NDArray[np.int64]:
        return self.handles[masks.H_CONFIGS]

    def _intern(self, config: NDArray[np.int64], records: Records) -> int:
        values = config.tolist()
        while (entered := masks.intern(*self._tables, *values)) == masks.NO_ROOM:
            self._more_configs()
        return self._state(entered, records)

    def _more_configs(self) -> None:
        self.handles[masks.H_CONFIGS] = enlarged(self.config, 2 * self.config.shape[0])
        self.handles[masks.H_CELLS] = np.full(4 * self.config.shape[0], -1, dtype=np.int32)
        masks.enter_all(self._tables[0])

    def _state(self, entered: int, records: Records) -> int:
        """The state of a configuration, as the kernel gives its number, with records."""
        number = (entered & masks.ENDS - 1) - 1
        plain = self._plain
        if number >= len(plain):
            plain.extend([0] * (number + 1 - len(plain)))
        state = plain[number] if records is NO_RECORDS else self._states.get((number, records), 0)
        if not state:
            state = len(self.state_config)
            if state >= self.limits.max_states:
                raise LimitExceededError(
                    f"the constraint needs more than {self.limits.max_states:,} automaton states (Limits.max_states)",
                    given=state + 1,
                    limit=self.limits.max_states,
                )
            if records is NO_RECORDS:
                plain[number] = state
            else:
                self._states[number, records] = state
            self.state_config.append(number)
            self.state_records.append(records)
            self.accepting.append(entered >= masks.ENDS)
        return state

    def is_end(self, config: NDArray[np.int64]) -> bool:
        """May the text end at this configuration?"""
        i, c, _, x, sid = config.tolist()
        if i == kernel.END_INSTANCE:
            return bool(self.consts[x, 4])
        return bool(self.inst[i, kernel.I_KIND] == kernel.PLAIN and sid == 0 and self.rows[c, kernel.OUTCOME] >= 0)

    def accepts(self, state: int) -> bool:
        """May the text end in this (live) state?"""
        return self.accepting[state]

    def _advance(self, state: int, token_id: int) -> int:
        begin, end = self._bounds[token_id], self._bounds[token_id + 1]
        return self.run(state, self._data_at + begin, end - begin)

    def run(self, state: int, text: int, size: int) -> int:
        """The state after some bytes, at an address (the lock must be held)."""
        records = self.state_records[state]
        if records is NO_RECORDS:
            tables, number = self._tables, self.state_config[state]
            while True:
                status = masks.advance(*tables, number, text, size)
                if status > 0:
                    return self._state(status, NO_RECORDS)
                if status == kernel.DEAD:
                    return DEAD
                if status == kernel.HOLE:
                    self.fill_hole()
                elif status == kernel.FULL:
                    self.grow()
                elif status == masks.NO_ROOM:
                    self._more_configs()
                else:
                    break
        if not size:
            return DEAD
        result = self.exactly(self.config[self.state_config[state]].copy(), records, ctypes.string_at(text, size))
        return DEAD if result is None else self._intern(*result)

    def live_bytes(self, config: NDArray[np.int64], records: Records) -> list[int]:
        """Which bytes may follow."""
        found = []
        self.mem[kernel.M_GENERIC] = 0
        for byte in range(256):
            status = self.step(config, byte)
            if status == kernel.EXACT:
                status = kernel.LIVE if self.exactly(config, records, bytes([byte])) is not None else kernel.DEAD
            if status == kernel.LIVE:
                found.append(byte)
        return found

    def step(self, config: NDArray[np.int64], byte: int) -> int:
        """`kernels.json.step` from a configuration to ``_run[1]``, holes filled."""
        while True:
            self._run[0] = config
            status = int(masks.step_one(*self._tables, byte))
            if status == kernel.HOLE:
                self.fill_hole()
            elif status == kernel.FULL:
                self.grow()
            else:
                return status

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
            status = self.step(config, byte)
            out = self._run[1].copy()
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
                leaves = key is not None and out[0] != i
                if status == kernel.EXACT or (leaves and self._is_other(i, int(out[0]))):
                    assert key is not None
                    struct, inner = self._behind_name(i, bytes(key), sid)
                    if not struct:
                        return None
                    out = np.array([struct, 0, 0, kernel.WS + 1, inner], dtype=np.int64)
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
            return config, NO_RECORDS
        return config, (tuple(map(bytes, items)), held)

    def _after_item(self, text: bytes) -> int:
        """The structural state behind a unique item, of which the kernel has left the return and the outcome."""
        made = self.return_of(int(self.mem[kernel.M_A]))
        outcome = self.outcomes[int(self.mem[kernel.M_B])]
        value = deeply(lambda: canonical(_value_of(text)))
        return self.after_struct(deeply(lambda: self.machine.after(made, outcome, value)))

    def _names_keys(self, i: int) -> bool:
        """Is this the lexeme of a key that may be a new one?"""
        return bool(self.inst[i, kernel.I_KIND] == kernel.STRING and self.inst[i, kernel.I_FLAGS] & kernel.OTHERS)

    def _is_other(self, i: int, colon: int) -> bool:
        """Is it another key than the known ones whose lexeme `i` has led to a colon?"""
        if self.inst[i, kernel.I_OBJECT] > 0:
            return self.forms.is_other(i, colon)
        return self.info(colon)[1].seen is not self.info(i)[1].seen

    def _behind_name(self, i: int, raw: bytes, sid: int) -> tuple[int, int]:
        """The structural state behind an additional key (0: it must not come), and the stack node there."""
        name = json.loads(b'"' + raw + b'"')
        if self.inst[i, kernel.I_OBJECT] > 0:
            colon, entry = self.forms.behind_name(i, name)
            while (inner := int(kernel.push(self.mem, sid, entry))) < 0:
                self.grow()
            return colon, inner
        frame = self.info(i)[1]
        kind = tuple(int(self.shared.lexemes.string_passes(test, name)) for test in frame.shape.key_tests)
        made = self.machine.member(frame, kind, name)
        return (self.colon_struct(made) if made is not None else 0), sid

    def _spelled(self, i: int, t: int, x: int) -> bytes:
        """A spelling of what has been written of a key that is a known one so far."""
        raw = b""
        if t > 0 and t != self.inst[i, kernel.I_TRIE]:
            raw = _escaped(self.way_to(i, t))
        return raw + _partial_escape(x & 0xFFFFFFFF)


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
