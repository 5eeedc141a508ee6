"""The JSON automaton's tables: the machine of frames and the kernel, brought together.

The kernel runs bytes through the tables and stops at holes; this module fills them from the machine. What depends on a
schema (structural states, returns) is filled per schema; what does not (content rows, the tokens that stay inside a
lexeme and the places where it ends) is kept in a `LexemeMasks` that all schemas of a vocabulary share.

A state is a configuration of the kernel, plus, where that matters, texts that only this module knows: the name of an
additional key that is being written, and the items of arrays whose items must differ.
"""

from __future__ import annotations

import json
import threading
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError, UnsatisfiableError
from outlines_core.json_schema.arena import FREE, Arena
from outlines_core.json_schema.formula import TRUE, Formula
from outlines_core.json_schema.lexemes import Lexemes
from outlines_core.json_schema.machine import (
    NUMBERS,
    STRINGS,
    ArrayFrame,
    Frame,
    Goal,
    Machine,
    ObjectFrame,
    Outcome,
    Return,
)
from outlines_core.json_schema.nodes import SchemaNode
from outlines_core.json_schema.splits import canonical
from outlines_core.kernels import json as kernel
from outlines_core.kernels.dfa import fill_sparse, mask_hash, mask_to_ids
from outlines_core.limits import Limits
from outlines_core.regex.ast import CharSet, Repeat
from outlines_core.regex.language import Language
from outlines_core.types import DEAD, FINISHED, FIRST_STATE
from outlines_core.vocabulary import Vocabulary

__all__ = ["JsonCore", "LexemeMasks", "Whitespace"]

OPEN, AFTER, NEXT = 0, 1, 2
QUOTE, LBRACE, RBRACE, LBRACK, RBRACK, COLON, COMMA, LETTER_T, LETTER_F, LETTER_N, DIGIT, OTHER = range(4, 16)
_CLASS_OF: Final = {
    '"': QUOTE,
    "{": LBRACE,
    "}": RBRACE,
    "[": LBRACK,
    "]": RBRACK,
    ":": COLON,
    ",": COMMA,
    "t": LETTER_T,
    "f": LETTER_F,
    "n": LETTER_N,
    **dict.fromkeys("-0123456789", DIGIT),
}
_KEYWORDS: Final = {LETTER_N: (b"null", 1), LETTER_F: (b"false", 2), LETTER_T: (b"true", 4)}
_REGION_AT: Final = {
    "inst": kernel.R_INST,
    "nodes": kernel.R_NODES,
    "bits": kernel.R_BITS,
    "hash": kernel.R_HASH,
    "stack": kernel.R_STACK,
    "consts": kernel.R_CONSTS,
}
_EMPTY: Final = np.zeros(0, dtype=np.int32)
_EDGES_KEPT: Final = 1 << 16
Records: TypeAlias = tuple[tuple[bytes, ...], bytes | None]
"""Texts so far of the items that are being recorded, outermost first, and of an additional key."""
_NO_RECORDS: Final[Records] = ((), None)


class Whitespace(NamedTuple):
    """The whitespace between JSON tokens as a DFA.

    Attributes:
        table: (n, 5) int32: the state after space, tab, newline, return, 0 = none; may it end here?  State 1 begins.
    """

    table: NDArray[np.int32]

    @classmethod
    def of(cls, whitespace: str, most: int, limits: Limits) -> Whitespace:
        """The whitespace of `compile_json_schema`'s argument."""
        if not isinstance(whitespace, str):
            raise TypeError(f"whitespace must be a str, not {type(whitespace).__name__}")
        if whitespace == "flexible":
            return cls.flexible(most)
        if whitespace == "compact":
            return cls.flexible(0)
        return cls._of_pattern(whitespace, limits)

    @classmethod
    def _of_pattern(cls, pattern: str, limits: Limits) -> Whitespace:
        allowed = CharSet(((0x09, 0x0A), (0x0D, 0x0D), (0x20, 0x20)))
        own = Language.parse(pattern, limits=limits)
        if not own.is_subset_of(Language(Repeat(allowed, 0, None))):
            raise ValueError(f"the whitespace pattern {pattern!r} matches more than spaces, tabs and line ends")
        dfa = own.dfa
        if dfa.start == DEAD:
            raise UnsatisfiableError(f"the whitespace pattern {pattern!r} matches nothing")
        number = {dfa.start: 1}
        order = [dfa.start]
        rows = [[0] * 5]
        for state in order:
            row = []
            for byte in b" \t\n\r":
                target = dfa.step(state, byte)
                if target != DEAD and target not in number:
                    number[target] = len(number) + 1
                    order.append(target)
                row.append(number.get(target, 0))
            rows.append([*row, int(dfa.accept[state])])
        return cls(np.array(rows, dtype=np.int32))

    @classmethod
    def flexible(cls, most: int) -> Whitespace:
        table = np.zeros((most + 2, 5), dtype=np.int32)
        table[1:, 4] = 1
        table[1:-1, :4] = np.arange(2, most + 2)[:, None]
        return cls(table)


class LexemeMasks:
    """What tokens of a vocabulary do inside lexemes, whatever the schema."""

    def __init__(self, vocabulary: Vocabulary, limits: Limits, *, ensure_ascii: bool) -> None:
        table = vocabulary.table
        self.table, self.trie = table, table.trie
        self.limits = limits
        self.n_words = table.n_words
        self.single = np.zeros(256, dtype=np.bool_)
        self.single[table.data[table.indptr[:-1][np.diff(table.indptr) == 1]]] = True
        self.in_string = self.single.copy()
        self.in_string[:0x20] = False
        self.in_string[0x22] = False
        self.in_string[0x5C] = bool(self.single[[*b"\\u0123456789"]].all() and self.single[[*b"abcdef"]].all())
        if ensure_ascii:
            self.in_string[0x80:] = False
        alphabet = None if self.in_string[0x5C] else self.in_string
        self.lexemes = Lexemes(limits, alphabet)
        self.arena = Arena()
        self.lock = threading.RLock()
        self._ids = np.empty((self.n_words - 1) // 4, dtype=np.int32)
        self._inside: dict[int, tuple[NDArray[np.uint32], NDArray[np.int64]]] = {}
        self._lengths: NDArray[np.int32] | None = None
        self._limited: dict[int, NDArray[np.uint32]] = {}
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        return self._nbytes + self.arena.nbytes

    @property
    def is_full(self) -> bool:
        """Should new automata begin with an empty one?"""
        return self.arena.nbytes > self.limits.max_state_bytes

    def inside(self, core: JsonCore, c: int, kind: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The tokens that stay inside a lexeme from content row `c` (words, or fewer entries: ids), and its exits."""
        known = self._inside.get(c)
        if known is None:
            words, exits = self._walk(core, c, kind, _EMPTY)
            known = self._keep(c, words, exits)
        return known

    def _keep(
        self, c: int, words: NDArray[np.uint32], exits: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        if self._nbytes > self.limits.max_mask_bytes:
            self._inside.clear()
            self._limited.clear()
            self._nbytes = 0
        n = mask_to_ids(words, self._ids)
        known = (self._ids[:n].copy().view(np.uint32) if n <= len(self._ids) else words, exits)
        self._inside[c] = known
        self._nbytes += known[0].nbytes + exits.nbytes + 300
        return known

    def _walk(
        self, core: JsonCore, c: int, kind: int, lengths: NDArray[np.int32]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        words = np.zeros(self.n_words + 1, dtype=np.uint32)
        exits = np.zeros((256, 4), dtype=np.int64)
        path = np.zeros((self.trie.max_depth + 2, 4), dtype=np.int64)
        path[0, 1] = c
        core.mem[kernel.M_N_EXITS] = 0
        node = 0
        while True:
            status = kernel.walk_inside(core.mem, core.rows, self.trie.packed, kind, path, node, words, lengths, exits)
            if status == kernel.LIVE:
                break
            node = int(core.mem[kernel.M_NODE])
            if status == kernel.FULL:
                exits = np.concatenate([exits, np.zeros_like(exits)])
            else:
                core.fill_hole()
        return words[: self.n_words], exits[: core.mem[kernel.M_N_EXITS]].copy()

    def limited(self, core: JsonCore, room: int) -> NDArray[np.uint32]:
        """The tokens that stay inside an unconstrained string and add at most `room` characters, as words."""
        room = min(room, self.trie.max_depth)
        known = self._limited.get(room)
        if known is None:
            if self._lengths is None:
                self._lengths = np.full(self.table.size, 1 << 30, dtype=np.int32)
                self._keep(FREE, *self._walk(core, FREE, kernel.STRING, self._lengths))
            bits = np.zeros(32 * self.n_words, dtype=np.uint8)
            bits[: self.table.size] = self._lengths <= room
            known = np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)
            self._limited[room] = known
            self._nbytes += known.nbytes
        return known


class JsonCore:
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
        label: str,
    ) -> None:
        self.vocabulary, self.shared, self.limits, self.label = vocabulary, shared, limits, label
        self.lock = shared.lock
        table = vocabulary.table
        self.size, self.n_words = table.size, table.n_words
        self.shape = (self.n_words,)
        self.data, self.indptr = table.data, table.indptr
        self.eos_ids = table.eos_ids
        self.eos = frozenset(table.eos_ids.tolist())
        self.trie = table.trie
        self.room = (self.n_words - 1) // 4
        single = shared.single
        usable = (
            bool(single[[*b"nulltruefalse"]].any()),
            bool(single[[*b"0123456789"]].any()),
            bool(single[0x22]),
            bool(single[[*b"[]"]].all()),
            bool(single[[*b'{}"']].all()),
        )
        self.machine = Machine(root, shared.lexemes, in_order=in_order, usable=usable)
        self._allocate(whitespace)
        self.info: list[Any] = [None, ("end",)]
        self._instances: dict[Any, int] = {}
        self._outcomes: dict[Outcome, int] = {(True,): 1}
        self._outcome_list: list[Outcome] = [(), (True,)]
        self._tries: dict[tuple[bytes, ...], int] = {}
        self._leaves: list[list[Any]] = []
        self._n_trie = 1
        self._n_bits = 1
        self.n_inst = 2
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
        self._dense: dict[int, NDArray[np.int32]] = {}
        self._ids = np.empty(self.room, dtype=np.int32)
        self._mask_bytes = 0
        self._path = np.zeros((self.trie.max_depth + 2, 5), dtype=np.int64)
        self._run = np.zeros((3, 5), dtype=np.int64)
        self._fixed_masks()
        with self.lock:
            goal = self.machine.root
            if not self.machine.is_alive(goal):
                raise UnsatisfiableError(f"no JSON value satisfies {label}", path=goal.place)
            start = np.array([self.value_struct(goal), 0, 0, kernel.WS + 1, 0], dtype=np.int64)
            self.start = self._intern(start, _NO_RECORDS)

    # -- tables -----------------------------------------------------------------------------------------------------

    def _allocate(self, whitespace: Whitespace) -> None:
        n_ws = whitespace.table.shape[0]
        consts = np.zeros((kernel.WS + n_ws, 8), dtype=np.int64)
        consts[:256, 0] = OTHER
        for char, klass in _CLASS_OF.items():
            consts[ord(char), 0] = klass
        for klass, byte in enumerate(b" \t\n\r"):
            consts[byte, 0] = klass
        consts[:256, 0][~self.shared.single] = OTHER
        consts[:256, 1] = self.shared.in_string
        table = whitespace.table
        consts[kernel.WS :, :4] = np.where(table[:, :4] != 0, table[:, :4] + kernel.WS, 0)
        consts[kernel.WS :, 4] = table[:, 4]
        regions = {
            "inst": np.full((16, kernel.INST), -1, dtype=np.int64),
            "nodes": np.zeros((32, 6), dtype=np.int64),
            "bits": np.zeros((16, 1), dtype=np.int64),
            "hash": np.full((64, 2), -1, dtype=np.int64),
            "stack": np.zeros((16, 2), dtype=np.int64),
            "consts": consts,
        }
        self.mem = np.zeros(kernel.HEADER, dtype=np.int64)
        self._lay_out(regions)
        self.mem[kernel.M_N_STACK] = 1
        self.inst[:2] = 0
        self.inst[0, kernel.I_FLAGS] = kernel.COUNTED
        self.inst[0, kernel.I_MOST] = -1

    def _lay_out(self, regions: dict[str, NDArray[np.int64]]) -> None:
        """Put the regions into one array, one behind the other, and make views of them."""
        mem = np.empty(kernel.HEADER + sum(r.size for r in regions.values()), dtype=np.int64)
        mem[: kernel.HEADER] = self.mem[: kernel.HEADER]
        at = kernel.HEADER
        views = {}
        for name, region in regions.items():
            views[name] = mem[at : at + region.size].reshape(region.shape)
            views[name][:] = region
            mem[_REGION_AT[name]] = at
            at += region.size
        mem[kernel.R_CELLS] = regions["hash"].shape[0]
        mem[kernel.R_STACK_SIZE] = regions["stack"].shape[0]
        self.mem, self._regions = mem, views
        self.inst, self.nodes, self.stack = views["inst"], views["nodes"], views["stack"]
        self.consts = views["consts"]

    def _replace(self, name: str, region: NDArray[np.int64]) -> None:
        self._lay_out({**self._regions, name: region})

    @property
    def rows(self) -> NDArray[np.int32]:
        return self.shared.arena.rows

    @property
    def nbytes(self) -> int:
        """Rough memory of this schema's own tables."""
        objects = 600 * (self.machine.n_frames + len(self.machine.returns)) + 150 * len(self.machine.formulas)
        return self.mem.nbytes + self.config.nbytes + self._mask_bytes + objects + 250 * len(self._states)

    def fill_hole(self) -> None:
        """Fill what the kernel has asked for in meta."""
        mem = self.mem
        kind, a, b = int(mem[kernel.M_KIND]), int(mem[kernel.M_A]), int(mem[kernel.M_B])
        if kind == kernel.HOLE_ROW:
            self.shared.arena.fill(a)
        elif kind == kernel.HOLE_STRUCT:
            self._fill_struct(a, b)
        elif kind == kernel.HOLE_END:
            self._put(kernel.EDGE_END, a, b, self._end_of_lexeme(a, b))
        elif kind == kernel.HOLE_RETURN:
            self._put(kernel.EDGE_RETURN, a, b, self._after(a, b))
        else:
            self._build_trie(a)
        self.machine.check_size(self.limits.max_states)

    def grow(self) -> None:
        """Make room in the stack and the hash."""
        if 2 * int(self.mem[kernel.M_N_EDGES]) >= int(self.mem[kernel.R_CELLS]):
            self._rehash()
        n = self.stack.shape[0]
        if int(self.mem[kernel.M_N_STACK]) >= n:
            if n > self.limits.max_states:
                raise LimitExceededError(
                    f"more than {n:,} nested contexts (Limits.max_states)", given=n, limit=self.limits.max_states
                )
            self._replace("stack", _enlarged(self.stack, 2 * n))

    def _rehash(self) -> None:
        old = self._regions["hash"]
        entries = old[old[:, 0] != -1].tolist()
        self._replace("hash", np.full((4 * old.shape[0], 2), -1, dtype=np.int64))
        self.mem[kernel.M_N_EDGES] = 0
        low = (1 << 30) - 1
        for key, value in entries:
            kernel.put_edge(self.mem, key >> 60, key >> 30 & low, key & low, value)

    def _put(self, kind: int, a: int, b: int, value: int) -> None:
        if 2 * int(self.mem[kernel.M_N_EDGES]) >= int(self.mem[kernel.R_CELLS]):
            self._rehash()
        kernel.put_edge(self.mem, kind, a, b, value)

    def _instance(self, key: Any, info: Any, fields: tuple[int, ...]) -> int:
        """The number of an instance; fields: kind, row, trie, least, most, flags, offset of the allowed leaves."""
        n = self.n_inst
        if n >= self.inst.shape[0]:
            larger = np.full((2 * n, kernel.INST), -1, dtype=np.int64)
            larger[:n] = self.inst
            self._replace("inst", larger)
        self.inst[n, : len(fields)] = fields
        self.info.append(info)
        self.n_inst = n + 1
        if key is not None:
            self._instances[key] = n
        return n

    def _struct(self, key: Any, info: Any) -> int:
        found = self._instances.get(key)
        return found if found is not None else self._instance(key, info, (kernel.STRUCT, 0, 0, 0, 0, 0, 0))

    # -- structural states ------------------------------------------------------------------------------------------

    def value_struct(self, goal: Goal) -> int:
        return self._struct(("value", goal.id), ("value", goal))

    def _object_struct(self, frame: ObjectFrame, point: int) -> int:
        return self._struct(("object", frame.id, point), ("object", frame, point))

    def _array_struct(self, frame: ArrayFrame, point: int) -> int:
        return self._struct(("array", frame.id, point), ("array", frame, point))

    def _colon_struct(self, made: Return) -> int:
        return self._struct(("colon", made.id), ("colon", made))

    def _fill_struct(self, i: int, klass: int) -> None:
        """Fill the row of a structural state; what is costly only if it is `klass`."""
        info = self.info[i]
        row = [0] * 16
        match info:
            case ("value", goal):
                self._value_row(row, goal, 0, record=False, wanted=klass)
            case ("colon", made):
                row[COLON] = kernel.pack(self.value_struct(made.goal), push=made.id, record=made.record)
            case ("object", frame, point):
                if point == AFTER:
                    known, others = self.machine.keys(frame)
                    if known or others:
                        row[COMMA] = kernel.pack(self._object_struct(frame, NEXT))
                else:
                    row[QUOTE] = self._key_start(frame)
                if point != NEXT and frame.closing is not None:
                    row[RBRACE] = kernel.pack(self._outcome(frame.closing), close=True)
            case ("array", frame, point):
                made = self.machine.item(frame)
                if point == AFTER:
                    if made is not None:
                        row[COMMA] = kernel.pack(self._array_struct(frame, NEXT))
                elif made is not None:
                    self._value_row(row, made.goal, made.id, record=made.record, wanted=klass)
                if point != NEXT and frame.closing is not None:
                    row[RBRACK] = kernel.pack(self._outcome(frame.closing), close=True)
        inst = self.inst[i]
        known_row = inst[kernel.I_CLASS :].tolist()
        inst[kernel.I_CLASS :] = [old if old > 0 else new for old, new in zip(known_row, row, strict=True)]

    def _value_row(self, row: list[int], goal: Goal, push: int, *, record: bool, wanted: int) -> None:
        machine = self.machine
        for klass, (word, bit) in _KEYWORDS.items():
            outcome = machine.constant(goal, bit)
            if outcome is not None:
                row[klass] = kernel.pack(self._keyword(word, outcome), push=push, record=record)
        strings, numbers = machine.part(goal, STRINGS), machine.part(goal, NUMBERS)
        if strings > 0 or strings < -1:
            if strings == TRUE or wanted == QUOTE:
                target = self._string_instance(goal, strings)
                row[QUOTE] = kernel.pack(target, push=push, record=record) if target else 0
            else:
                row[QUOTE] = -1
        if numbers != -TRUE:
            if wanted == DIGIT:
                target = self._number_instance(goal)
                row[DIGIT] = kernel.pack(target, push=push, record=record) if target else 0
            else:
                row[DIGIT] = -1
        for klass, which in ((LBRACE, 4), (LBRACK, 3)):
            if machine.part(goal, which) == -TRUE:
                continue
            if wanted != klass:
                row[klass] = -1
                continue
            if klass == LBRACE:
                frame = machine.open_object(goal)
                if frame is not None:
                    row[klass] = kernel.pack(self._object_struct(frame, OPEN), push=push, record=record)
            else:
                array = machine.open_array(goal)
                if array is not None:
                    row[klass] = kernel.pack(self._array_struct(array, OPEN), push=push, record=record)

    def _outcome(self, outcome: Outcome) -> int:
        found = self._outcomes.get(outcome)
        if found is None:
            found = self._outcomes[outcome] = len(self._outcome_list)
            self._outcome_list.append(outcome)
        return found

    def _after_struct(self, frame: Frame | None) -> int:
        if frame is None:
            return 0
        return self._object_struct(frame, AFTER) if isinstance(frame, ObjectFrame) else self._array_struct(frame, AFTER)

    def _after(self, number: int, outcome: int) -> int:
        made = self.machine.returns[number]
        assert made is not None
        return self._after_struct(self.machine.after(made, self._outcome_list[outcome]))

    # -- lexemes ----------------------------------------------------------------------------------------------------

    def _keyword(self, word: bytes, outcome: Outcome) -> int:
        key = (word, outcome)
        found = self._instances.get(key)
        if found is None:
            fields = (kernel.PLAIN, self.shared.arena.keywords[word], 0, 0, -1, 0, 0)
            found = self._instance(key, ("ends", self._outcome(outcome)), fields)
        return found

    def _number_instance(self, goal: Goal) -> int:
        machine = self.machine
        tests, cubes = machine.tests(goal, NUMBERS)
        key = ("number", tests, cubes, None if goal.is_single else goal.watched)
        found = self._instances.get(key)
        if found is None:
            recognizer = self.shared.lexemes.numbers(tests, cubes) if cubes else None
            if recognizer is None or not recognizer.start:
                found = self._instances[key] = 0
            else:
                c = self._row(recognizer)
                info = ("number", goal, recognizer, tests)
                found = self._instance(key, info, (kernel.PLAIN, c, 0, 0, -1, 0, 0))
        return found

    def _row(self, recognizer: Any) -> int:
        return self.shared.arena.number_of(recognizer, recognizer.start)

    def _string_instance(self, goal: Goal, f: Formula) -> int:
        """The lexeme of a string value; 0 if no string will do."""
        formulas = self.machine.formulas
        watched = tuple(split[STRINGS] for split in goal.watched)
        key = ("string", watched, goal.cubes)
        found = self._instances.get(key)
        if found is not None:
            return found
        single = goal.is_single
        if f == TRUE and single:
            found = self._instance(key, ("ends", 1), (kernel.STRING, FREE, 0, 0, -1, 0, 0))
        elif single and f > 0 and formulas.is_atom(f) and formulas.payload(f)[0] == "len":
            _, least, most = formulas.payload(f)
            fields = (kernel.STRING, FREE, 0, least, -1 if most is None else most, kernel.COUNTED, 0)
            found = self._instance(key, ("ends", 1), fields)
        elif single and f < 0 and formulas.is_atom(-f) and formulas.payload(-f)[0] == "str":
            texts = sorted(formulas.payload(-f)[1], key=_encoded)
            found = self._text_instance(key, texts, FREE, _never, ("ends", 1), 0)
        else:
            found = self._other_string(key, goal, f)
        if found == 0:
            self._instances[key] = 0
        return found

    def _other_string(self, key: Any, goal: Goal, f: Formula) -> int:
        machine, formulas = self.machine, self.machine.formulas
        texts = self.shared.lexemes.listed(formulas, f)
        if texts is not None:
            outcomes: dict[str, int] = {}
            for text in texts:
                outcome = tuple(
                    formulas.holds(split[STRINGS], lambda a: self._passes(a, text))  # noqa: B023
                    for split in goal.watched
                )
                if goal.is_good(outcome) and self._spellable(text):
                    outcomes[text] = self._outcome(outcome)
            if not outcomes:
                return 0
            good = sorted(outcomes, key=_encoded)
            values = [kernel.pack(outcomes[text], close=True) for text in good]
            return self._text_instance(key, good, 0, _always, ("texts", values), 0)
        tests, cubes = machine.tests(goal, STRINGS)
        recognizer = self.shared.lexemes.strings(tests, cubes) if cubes else None
        if recognizer is None or not recognizer.start:
            return 0
        fields = (kernel.STRING, self._row(recognizer), 0, 0, -1, 0, 0)
        return self._instance(key, ("recognized", goal, recognizer, tests), fields)

    def _passes(self, atom: int, text: str) -> bool:
        return self.shared.lexemes.string_passes(self.machine.formulas.payload(atom), text)

    def _spellable(self, text: str) -> bool:
        alphabet = self.shared.lexemes.alphabet
        return alphabet is None or bool(alphabet[list(_encoded(text))].all())

    def _text_instance(self, key: Any, texts: list[str], row: int, allowed: Any, info: Any, flags: int) -> int:
        """A lexeme with a trie of known texts (sorted by their bytes); ``allowed(text)`` says which may be written."""
        words = [0] * ((len(texts) >> 6) + 1)
        for leaf, text in enumerate(texts):
            if allowed(text):
                words[leaf >> 6] |= 1 << (leaf & 63)
        offset = self._allowed(words)
        return self._instance(key, (*info, texts), (kernel.STRING, row, -1, 0, -1, flags, offset))

    def _allowed(self, words: list[int]) -> int:
        offset = self._n_bits
        if offset + len(words) > self._regions["bits"].shape[0]:
            self._replace("bits", _enlarged(self._regions["bits"], 2 * (offset + len(words))))
        self._regions["bits"][offset : offset + len(words), 0] = np.array(words, dtype=np.uint64).view(np.int64)
        self._n_bits = offset + len(words)
        return offset

    def _build_trie(self, i: int) -> None:
        texts = [_encoded(text) for text in self.info[i][-1]]
        key = tuple(texts)
        root = self._tries.get(key)
        if root is None:
            flat = np.frombuffer(b"".join(texts), dtype=np.uint8)
            indptr = np.zeros(len(texts) + 1, dtype=np.int64)
            np.cumsum([len(text) for text in texts], out=indptr[1:])
            nodes = np.zeros((1 + len(flat), 6), dtype=np.int64)
            root = self._n_trie
            n = kernel.build_trie(flat, indptr, root, nodes)
            if root + n > self.nodes.shape[0]:
                self._replace("nodes", _enlarged(self.nodes, 2 * (root + n)))
            self.nodes[root : root + n] = nodes[:n]
            self._n_trie = root + n
            self._tries[key] = root
        self.inst[i, kernel.I_TRIE] = root

    def _key_start(self, frame: ObjectFrame) -> int:
        """The lexeme of the next key of an object."""
        known, others = self.machine.keys(frame)
        if not known and not others:
            return 0
        shape = frame.shape
        key = ("key", frame.id)
        found = self._instances.get(key)
        if found is not None:
            return kernel.pack(found)
        named = [name for name in frame.seen if name is not None]
        texts = sorted([*shape.keys, *named], key=_encoded)
        row, recognizer, flags = 0, None, 0
        if others:
            flags = kernel.OTHERS | (kernel.UNNAMED if None in frame.seen else 0)
            if not shape.key_tests:
                row = FREE
            else:
                care = (2 << len(shape.key_tests)) - 1
                cubes = tuple((care, sum(bit << k for k, bit in enumerate(c))) for c in others)
                tests = (*shape.key_tests, ("str", frozenset(texts)))
                recognizer = self.shared.lexemes.strings(tests, cubes)
                row = self._row(recognizer) if recognizer.start else 0
        numbers = shape.number

        def allowed(text: str) -> bool:
            k = numbers.get(text)
            return k is not None and bool(known >> k & 1) and self._spellable(text)

        info = ("key", frame, recognizer)
        return kernel.pack(self._text_instance(key, texts, row, allowed, info, flags))

    def _end_of_lexeme(self, i: int, code: int) -> int:
        """What follows a lexeme that ends with a code (leaf << 1 | 1, or outcome << 1)."""
        info = self.info[i]
        match info[0]:
            case "ends":
                return kernel.pack(info[1], close=True)
            case "texts":
                return int(info[1][code >> 1])
            case "number" | "recognized":
                _, goal, recognizer, tests = info[:4]
                bits = self.shared.arena.outcome(recognizer, code >> 1)
                which = NUMBERS if info[0] == "number" else STRINGS
                return kernel.pack(self._outcome(self.machine.outcome(goal, which, tests, bits)), close=True)
        _, frame, recognizer, texts = info
        if code & 1:
            made = self.machine.member(frame, frame.shape.number[texts[code >> 1]])
        else:
            made = self.machine.member(frame, self._class_of(frame, recognizer, code >> 1))
        return kernel.pack(self._colon_struct(made)) if made is not None else 0

    def _class_of(self, frame: ObjectFrame, recognizer: Any, outcome: int) -> tuple[int, ...]:
        if recognizer is None:
            return ()
        bits = self.shared.arena.outcome(recognizer, outcome)
        return tuple(bits >> k & 1 for k in range(len(frame.shape.key_tests)))

    # -- states -----------------------------------------------------------------------------------------------------

    def _intern(self, config: NDArray[np.int64], records: Records) -> int:
        raw = config.tobytes()
        number = self._configs.get(raw)
        if number is None:
            number = self.n_configs
            if number >= self.config.shape[0]:
                self.config = _enlarged(self.config, 2 * number)
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
            self.accepting.append(self._accepts(config))
        return state

    def _accepts(self, config: NDArray[np.int64]) -> bool:
        i, c, _, x, sid = config.tolist()
        if i == kernel.END_INSTANCE:
            return bool(self.consts[x, 4])
        return bool(self.inst[i, kernel.I_KIND] == kernel.PLAIN and sid == 0 and self.rows[c, kernel.OUTCOME] >= 0)

    @property
    def initial_state(self) -> int:
        return self.start

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
            while not self._accepts(config):
                live = self.live_bytes(config, records)
                if len(live) != 1:
                    break
                result = self.exactly(config, records, bytes(live))
                assert result is not None
                config, records = result
                text += bytes(live)
        return bytes(text)

    def live_bytes(self, config: NDArray[np.int64], records: Records) -> list[int]:
        """Which bytes may follow."""
        found = []
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
                made = self.machine.returns[int(self.mem[kernel.M_A])]
                assert made is not None
                outcome = self._outcome_list[int(self.mem[kernel.M_B])]
                struct = self._after_struct(self.machine.after(made, outcome, canonical(_value_of(bytes(item)))))
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

    def _names_keys(self, i: int) -> bool:
        """Is this the lexeme of a key that may be a new one?"""
        return bool(self.inst[i, kernel.I_KIND] == kernel.STRING and self.inst[i, kernel.I_FLAGS] & kernel.OTHERS)

    def _named_key(self, frame: ObjectFrame, raw: bytes) -> int:
        """The structural state behind an additional key."""
        name = json.loads(b'"' + raw + b'"')
        kind = tuple(int(self.shared.lexemes.string_passes(test, name)) for test in frame.shape.key_tests)
        made = self.machine.member(frame, kind, name)
        return self._colon_struct(made) if made is not None else 0

    def _spelled(self, i: int, t: int, x: int) -> bytes:
        """A spelling of what has been written of a key that is a known one so far."""
        raw = b""
        if t > 0 and t != self.inst[i, kernel.I_TRIE]:
            whole = _encoded(self.info[i][-1][int(self.nodes[t, 4])])
            node, depth = int(self.inst[i, kernel.I_TRIE]), 0
            while node != t:
                first, n = self.nodes[node, :2].tolist()
                node = next(k for k in range(first, first + n) if self.nodes[k, 2] == whole[depth])
                depth += 1
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
            far = self.trie.max_depth + 1
            room = far if most < 0 else min(most - n, far)
            return (i, int(config[1]), int(config[3]) & 0xFFFFFFFF, int(config[4]), min(max(least - n, 0), far), room)
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
        if kind == kernel.STRING and flags & kernel.COUNTED:
            if c != FREE:  # within a character
                self._walk(state, config, words)
                return words[: self.n_words]
            n, least, most = x >> 32, int(self.inst[i, kernel.I_LEAST]), int(self.inst[i, kernel.I_MOST])
            words[: self.n_words] = shared.limited(self, most - n if most >= 0 else 1 << 30)
            exits = shared.inside(self, FREE, kind)[1]
            self._walk_exits(state, config, exits, (least - n, most - n if most >= 0 else 1 << 30), words)
            return words[: self.n_words]
        inside, exits = shared.inside(self, c, kind)
        if inside.shape[0] == self.n_words:
            words[: self.n_words] = inside
        else:
            fill_sparse(inside.view(np.int32), words)
        if kind == kernel.STRING and t != 0 and c != FREE:  # known texts that the content row does not cover
            known_only = config.copy()
            known_only[1] = 0
            self._walk(state, known_only, words)
        self._walk_exits(state, config, exits, (0, 1 << 30), words)
        return words[: self.n_words]

    def _walk(self, state: int, config: NDArray[np.int64], words: NDArray[np.uint32]) -> None:
        path = self._path
        path[0] = config
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

    def _compressed(self, words: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Ids if they are few, else the words."""
        n = mask_to_ids(words, self._ids)
        if n <= self.room:
            return self._ids[:n].copy()
        key = int(mask_hash(words))
        known = self._dense.get(key)
        mine = words.view(np.int32)
        if known is None or not np.array_equal(known, mine):
            known = self._dense[key] = mine
            self._mask_bytes += mine.nbytes
        return known

    def fill(self, state: int, words: NDArray[Any]) -> None:
        """Write the mask of `state` into `words` (checked)."""
        mask = self.masks.get(state)
        if mask is None:
            mask = self.mask(state)
        n = self.n_words
        if mask.shape[0] == n:
            words[:n] = mask.view(np.uint32)
            if words.shape[0] > n:
                words[n:] = 0
        else:
            fill_sparse(mask, words)

    def ids(self, state: int) -> NDArray[np.int32]:
        """The allowed ids, ascending."""
        mask = self.masks.get(state)
        if mask is None:
            mask = self.mask(state)
        if mask.shape[0] != self.n_words:
            return mask
        ids = np.empty(self.size, dtype=np.int32)
        return ids[: mask_to_ids(mask.view(np.uint32), ids)]


def _always(text: str) -> bool:
    return True


def _never(text: str) -> bool:
    return False


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _enlarged(array: NDArray[Any], n: int) -> NDArray[Any]:
    larger = np.zeros((n, *array.shape[1:]), dtype=array.dtype)
    larger[: array.shape[0]] = array
    return larger


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
