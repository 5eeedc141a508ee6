"""The kernel's tables of one JSON Schema, filled from the machine of frames hole by hole.

An *instance* is a place in a JSON text as the kernel knows it: a structural state (between tokens, at one point of one
frame) or a lexeme (a string, number or keyword that must fulfil one goal). Instances are interned by what they depend
on. Structural rows are filled class of character by class of character, since what an object or array would lead to is
costly and mostly not asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError, UnsupportedFeatureError
from outlines_core.json_masks import LexemeMasks, Whitespace
from outlines_core.json_objects import ObjectForms
from outlines_core.json_schema.depth import deeply
from outlines_core.json_schema.formula import FALSE, TRUE, Formula
from outlines_core.json_schema.lower import TRUE_SUB
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
from outlines_core.json_schema.sat import placed
from outlines_core.json_schema.shapes import bits_of, encoded, named
from outlines_core.kernels import json as kernel
from outlines_core.kernels import json_masks as masks
from outlines_core.kernels import json_objects as objects
from outlines_core.kernels.arena import leads_elsewhere
from outlines_core.kernels.borrow import Handles
from outlines_core.kernels.json_memory import (
    COLON,
    COMMA,
    DIGIT,
    FREE,
    LBRACE,
    LBRACK,
    LETTER_F,
    LETTER_N,
    LETTER_T,
    OTHER,
    QUOTE,
    RBRACE,
    RBRACK,
)
from outlines_core.limits import Limits

__all__ = ["JsonTables", "encoded", "enlarged"]

OPEN, AFTER, NEXT = 0, 1, 2
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
_MAX_PLACES: Final = 400
_GENERIC: Final = 1 << 29
"""Marks an outcome: of an item whose value is not known."""
_MANY: Final = 1000
_ROOM: Final = 8
_ALL_BITS: Final = (1 << 64) - 1
_UNFILLED: Final = -1
_KEYWORDS: Final = {LETTER_N: (b"null", 1), LETTER_F: (b"false", 2), LETTER_T: (b"true", 4)}
_SHAPES: Final = {"inst": (192, kernel.INST), "nodes": (512, 6), "pool": (1024,), "hash": (1024, 2), "stack": (128, 2)}
_REGION_AT: Final = {
    "inst": kernel.R_INST,
    "nodes": kernel.R_NODES,
    "pool": kernel.R_POOL,
    "hash": kernel.R_HASH,
    "stack": kernel.R_STACK,
    "consts": kernel.R_CONSTS,
}


class JsonTables:
    """Instances, edges and tries of one schema, in the kernel's memory."""

    def __init__(self, machine: Machine, shared: LexemeMasks, whitespace: Whitespace, limits: Limits) -> None:
        self.machine, self.shared, self.limits = machine, shared, limits
        self.whitespace = whitespace.table.tobytes()
        self.handles = Handles(masks.H_SIZE)
        self._fields: list[tuple[int, ...]] = [(0, 0, 0, 0, -1, kernel.COUNTED, 0), (0,) * 7]
        self._allocate(whitespace)
        self._info: list[Any] = [None, ("end",)]
        self._instances: dict[Any, int] = {}
        self._outcomes: dict[Outcome, int] = {(True,): 1}
        self.outcomes: list[Outcome] = [(), (True,)]
        self._asking_returns: dict[int, int] = {}
        self._tries: dict[tuple[bytes, ...], int] = {}
        self._tries_of: dict[int, tuple[int, Sequence[str]]] = {}
        self.all_spellable = shared.lexemes.alphabet is None
        self._n_trie = 1
        self.forms = ObjectForms(self)

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
        self.mem: NDArray[np.int64] = np.zeros(kernel.HEADER, dtype=np.int64)
        self.inst: NDArray[np.int64]
        self.nodes: NDArray[np.int64]
        self.stack: NDArray[np.int64]
        self.pool: NDArray[np.int64]
        self.consts: NDArray[np.int64]
        self._regions: dict[str, NDArray[np.int64]] = {}
        self._lay_out(_SHAPES | {"consts": consts.shape})
        self.consts[:] = consts
        self.mem[kernel.M_N_STACK] = self.mem[kernel.M_N_POOL] = 1
        self.mem[kernel.M_N_INST] = 2
        self.inst[:2] = 0
        self.inst[0, kernel.I_FLAGS] = kernel.COUNTED
        self.inst[0, kernel.I_MOST] = -1

    def _lay_out(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Put the regions into one array, one behind the other, and make views of them; what they hold is kept."""
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        mem = np.zeros(kernel.HEADER + sum(sizes.values()), dtype=np.int64)
        mem[: kernel.HEADER] = self.mem[: kernel.HEADER]
        at = kernel.HEADER
        old, views = self._regions, {}
        for name, shape in shapes.items():
            views[name] = view = mem[at : at + sizes[name]].reshape(shape)
            mem[_REGION_AT[name]] = at
            at += sizes[name]
            known = old.get(name, view[:0])
            view[: len(known)] = known
            if name in ("inst", "hash"):
                view[len(known) :] = -1
        mem[kernel.R_CELLS] = shapes["hash"][0]
        mem[kernel.R_STACK_SIZE] = shapes["stack"][0]
        mem[kernel.R_INST_SIZE] = shapes["inst"][0]
        mem[kernel.R_POOL_SIZE] = shapes["pool"][0]
        self.mem, self._regions = mem, views
        self.handles[masks.H_MEM] = mem
        self.inst, self.nodes, self.stack, self.consts = views["inst"], views["nodes"], views["stack"], views["consts"]
        self.pool = views["pool"]

    def _enlarge(self, name: str, n: int) -> None:
        """Make a region `n` pieces long."""
        shapes = {other: view.shape for other, view in self._regions.items()}
        self._lay_out({**shapes, name: (n, *shapes[name][1:])})

    @property
    def rows(self) -> NDArray[np.int32]:
        return self.shared.arena.rows

    @property
    def nbytes(self) -> int:
        """Rough memory of this schema's own tables."""
        machine = self.machine
        objects = 800 * (machine.n_frames + len(machine.returns) + len(self._info)) + 200 * len(machine.formulas)
        objects += 2000 * len(machine.lowering.subs)
        return int(self.mem.nbytes) + objects

    def fill_hole(self) -> None:
        """Fill what the kernel has asked for in meta."""
        mem = self.mem
        kind, a, b = int(mem[kernel.M_KIND]), int(mem[kernel.M_A]), int(mem[kernel.M_B])
        try:
            try:
                self._fill(kind, a, b)
            except RecursionError:
                deeply(lambda: self._fill(kind, a, b))
        except UnsupportedFeatureError as error:
            raise placed(error, self._place_of(kind, a)) from None
        self.machine.check_size(self.limits.max_states)

    def _fill(self, kind: int, a: int, b: int) -> None:
        if kind == kernel.HOLE_ROW:
            self.shared.arena.fill(a)
        elif kind == kernel.HOLE_STRUCT:
            self._fill_struct(a)
        elif kind == kernel.HOLE_END:
            self._put(kernel.EDGE_END, a, b, self._end_of_lexeme(a, b))
        elif kind == kernel.HOLE_RETURN:
            value = self._after_generic(a, b & ~_GENERIC) if b & _GENERIC else self._after(a, b)
            self._put(kernel.EDGE_RETURN, a, b, value)
        elif kind == kernel.HOLE_MEMBER:
            self.forms.fill_colon(a, b)
        else:
            self._build_trie(a)

    def _place_of(self, kind: int, a: int) -> str:
        """The schema that a hole belongs to."""
        if kind == kernel.HOLE_ROW:
            return ""
        parts = (self.return_of(a),) if kind == kernel.HOLE_RETURN else self.info(a)
        places = (part.place for part in parts if isinstance(part, (Return, Goal, ObjectFrame, ArrayFrame)))
        return self.machine.lowering.place(next(places, TRUE_SUB))

    def grow(self) -> None:
        """Make room in the stack, the hash, and for states of plain objects."""
        if 2 * int(self.mem[kernel.M_N_EDGES]) + _ROOM >= int(self.mem[kernel.R_CELLS]):
            self._rehash()
        n = self.inst.shape[0]
        if int(self.mem[kernel.M_N_INST]) + _ROOM > n:
            if n // objects.INSTANCES > self.limits.max_states:
                raise LimitExceededError(
                    f"the constraint needs more than {self.limits.max_states:,} automaton states (Limits.max_states)",
                    given=n // objects.INSTANCES,
                    limit=self.limits.max_states,
                )
            self._more_instances()
        self.reserve(self.forms.widest)
        n = self.stack.shape[0]
        if int(self.mem[kernel.M_N_STACK]) >= n:
            if n > self.limits.max_states:
                raise LimitExceededError(
                    f"more than {n:,} nested contexts (Limits.max_states)", given=n, limit=self.limits.max_states
                )
            self._enlarge("stack", 2 * n)

    def _rehash(self) -> None:
        old = self._regions["hash"]
        entries = old[old[:, 0] != -1].tolist()
        n = old.shape[0]
        old[:] = -1
        self._enlarge("hash", 4 * n)
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
        n = int(self.mem[kernel.M_N_INST])
        if n >= self.inst.shape[0]:
            self._more_instances()
        if n > len(self._info):
            self._note_instances()
        self.inst[n, : len(fields)] = fields
        self._fields.append(fields)
        self._info.append(info)
        self.mem[kernel.M_N_INST] = n + 1
        if key is not None:
            self._instances[key] = n
        return n

    def _more_instances(self) -> None:
        self._enlarge("inst", 2 * self.inst.shape[0])

    def _note_instances(self) -> None:
        """Take note of the instances that the kernel has made: of plain objects."""
        known, n = len(self._info), int(self.mem[kernel.M_N_INST])
        self._info += [None] * (n - known)
        self._fields += map(tuple, self.inst[known:n, : kernel.I_OBJECT].tolist())

    def fields(self, i: int) -> tuple[int, ...]:
        """Kind, row, trie, least, most, flags, offset of the allowed leaves of an instance."""
        if i >= len(self._fields):
            self._note_instances()
        return self._fields[i]

    def info(self, i: int) -> Any:
        """What an instance stands for."""
        if i >= len(self._info):
            self._note_instances()
        found = self._info[i]
        if found is None:
            found = self._info[i] = self.forms.info(i)
        return found

    def return_of(self, number: int) -> Return:
        """What waits for a value, by the number on the stack."""
        made = self.forms.return_of(number) if number & objects.MEMBER >> 1 else self.machine.returns[number]
        assert made is not None
        return made

    def _struct(self, key: Any, info: Any) -> int:
        found = self._instances.get(key)
        return found if found is not None else self._instance(key, info, (kernel.STRUCT, 0, 0, 0, 0, 0, 0))

    # -- structural states ------------------------------------------------------------------------------------------

    def value_struct(self, goal: Goal) -> int:
        return self._struct(("value", goal.id), ("value", goal))

    def _object_struct(self, frame: ObjectFrame, point: int) -> int:
        if point != OPEN:
            first = self.forms.enter(frame)
            if first:
                return first + (objects.BEHIND_VALUE if point == AFTER else objects.BEHIND_COMMA)
        return self._struct(("object", frame.id, point), ("object", frame, point))

    def _array_struct(self, frame: ArrayFrame, point: int) -> int:
        return self._struct(("array", frame.id, point), ("array", frame, point))

    def colon_struct(self, made: Return) -> int:
        return self._struct(("colon", made.id), ("colon", made))

    def member_colon(self, goal: Goal, *, is_known: bool) -> int:
        """The colon in front of the value of a plain object's member, and that value's structural state."""
        key = ("member", goal.id, is_known)
        found = self._instances.get(key)
        if found is None:
            found = self._struct(key, ("member", goal))
            self._fill_struct(found)
        return found

    def _fill_struct(self, i: int) -> None:
        """Fill the row of a structural state: any vocabulary has tokens that look at all of it.

        And at what is behind a comma, a colon or an object's brace: their rows come with it, as a hole takes its time.
        """
        info = self.info(i)
        row = [0] * 16
        behind = 0
        match info:
            case ("value", goal):
                self._value_row(row, goal, 0, record=False)
                behind = row[LBRACE] & kernel.GOTO_MASK
            case ("colon", made):
                behind = self.value_struct(made.goal)
                row[COLON] = kernel.pack(behind, push=made.id, record=made.record)
            case ("member", goal):
                behind = self.value_struct(goal)
                row[COLON] = kernel.pack(behind)
            case ("object", frame, point):
                if point == AFTER:
                    known, others = self.machine.keys(frame)
                    if known or others:
                        behind = self._object_struct(frame, NEXT)
                        row[COMMA] = kernel.pack(behind)
                else:
                    first = self.forms.enter(frame)
                    row[QUOTE] = self.forms.key_start(first) if first else self._key_start(frame)
                if point != NEXT and frame.closing is not None:
                    row[RBRACE] = kernel.pack(self.outcome_number(frame.closing), close=True)
            case ("generic", frame, point):
                self._generic_row(row, frame, point)
            case ("array", frame, point):
                made = self.machine.item(frame)
                if point == AFTER:
                    if made is not None:
                        row[COMMA] = kernel.pack(self._array_struct(frame, NEXT))
                elif made is not None:
                    self._value_row(row, made.goal, made.id, record=made.record)
                if point != NEXT and frame.closing is not None:
                    row[RBRACK] = kernel.pack(self.outcome_number(frame.closing), close=True)
        self.inst[i, kernel.I_CLASS :] = row
        if behind and self.inst[behind, kernel.I_CLASS] == _UNFILLED:
            self._fill_struct(behind)

    def _generic_row(self, row: list[int], frame: ArrayFrame, point: int) -> None:
        """An array behind an item whose value is not known, and no later item can be known to differ from."""
        made = self.machine.item(frame)
        if point == AFTER:
            if made is not None:
                row[COMMA] = kernel.pack(self._struct(("generic", frame.id, NEXT), ("generic", frame, NEXT)))
            if frame.closing is not None:
                row[RBRACK] = kernel.pack(self.outcome_number(frame.closing), close=True)
        elif made is not None:
            row[:] = [kernel.ASK if klass >= QUOTE else 0 for klass in range(16)]
            if self.machine.takes_any_string(made.goal):
                whole = [0] * 16
                self._value_row(whole, made.goal, self._asking(made), record=True)
                row[QUOTE] = whole[QUOTE]

    def _asking(self, made: Return) -> int:
        """A twin of a return: the value is the second one that is not known, and so it must be asked for."""
        number = self._asking_returns.get(made.id)
        if number is None:
            number = self._asking_returns[made.id] = self.machine.twin(made)
        return number

    def _after_generic(self, number: int, outcome: int) -> int:
        """What is behind an item that must differ from others, whatever its value; ASK where that depends on it."""
        made = self.machine.returns[number]
        assert made is not None
        if number in self._asking_returns.values():
            return kernel.ASK
        frame = self.machine.after_some_value(made, self.outcomes[outcome], _MANY)
        if frame is None:
            return kernel.ASK
        return kernel.pack(self._struct(("generic", frame.id, AFTER), ("generic", frame, AFTER)))

    def _value_row(self, row: list[int], goal: Goal, push: int, *, record: bool) -> None:
        machine = self.machine
        before = kernel.pack(0, push=push, record=record)
        literals, numbers, strings, arrays, objects = machine.parts(goal)
        if literals:
            for klass, (word, bit) in _KEYWORDS.items():
                outcome = machine.constant(goal, bit)
                if outcome is not None:
                    row[klass] = before | self._keyword(word, outcome)
        if strings != FALSE:
            target = self.string_instance(goal, strings)
            row[QUOTE] = before | target if target else 0
        if numbers != FALSE:
            target = self.number_instance(goal)
            row[DIGIT] = before | target if target else 0
        if objects != FALSE:
            frame = machine.open_object(goal)
            if frame is not None:
                row[LBRACE] = before | self._object_struct(frame, OPEN)
        if arrays != FALSE:
            array = machine.open_array(goal)
            if array is not None:
                row[LBRACK] = before | self._array_struct(array, OPEN)

    def outcome_number(self, outcome: Outcome) -> int:
        found = self._outcomes.get(outcome)
        if found is None:
            found = self._outcomes[outcome] = len(self.outcomes)
            self.outcomes.append(outcome)
        return found

    def after_struct(self, frame: Frame | None) -> int:
        if frame is None:
            return 0
        return self._object_struct(frame, AFTER) if isinstance(frame, ObjectFrame) else self._array_struct(frame, AFTER)

    def _after(self, number: int, outcome: int) -> int:
        return self.after_struct(self.machine.after(self.return_of(number), self.outcomes[outcome]))

    # -- lexemes ----------------------------------------------------------------------------------------------------

    def _keyword(self, word: bytes, outcome: Outcome) -> int:
        key = (word, outcome)
        found = self._instances.get(key)
        if found is None:
            fields = (kernel.PLAIN, self.shared.arena.keywords[word], 0, 0, -1, 0, 0)
            found = self._instance(key, ("ends", self.outcome_number(outcome)), fields)
        return found

    def number_instance(self, goal: Goal) -> int:
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

    def string_instance(self, goal: Goal, f: Formula) -> int:
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
            found = self._instance(key, ("ends", 1, goal), fields)
        elif single and f < 0 and formulas.is_atom(-f) and formulas.payload(-f)[0] == "str":
            texts = sorted(formulas.payload(-f)[1], key=encoded)
            found = self._text_instance(key, texts, FREE, ("ends", 1), allowed=False)
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
                if goal.is_good(outcome) and self.spellable(text):
                    outcomes[text] = self.outcome_number(outcome)
            if not outcomes:
                return 0
            good = sorted(outcomes, key=encoded)
            values = [kernel.pack(outcomes[text], close=True) for text in good]
            return self._text_instance(key, good, 0, ("texts", values), allowed=True)
        counted = self.shared.lexemes.counted(formulas, f) if goal.is_single else None
        if counted is not None:
            row = FREE if counted.recognizer is None else self._row(counted.recognizer)
            most = -1 if counted.most is None else counted.most
            fields = (kernel.STRING, row, 0, counted.least, most, kernel.COUNTED, 0)
            return self._instance(key, ("ends", 1, goal), fields)
        tests, cubes = machine.tests(goal, STRINGS)
        recognizer = self.shared.lexemes.strings(tests, cubes) if cubes else None
        if recognizer is None or not recognizer.start:
            return 0
        fields = (kernel.STRING, self._row(recognizer), 0, 0, -1, 0, 0)
        return self._instance(key, ("recognized", goal, recognizer, tests), fields)

    def _passes(self, atom: int, text: str) -> bool:
        return self.shared.lexemes.string_passes(self.machine.formulas.payload(atom), text)

    def spellable(self, text: str) -> bool:
        alphabet = self.shared.lexemes.alphabet
        return alphabet is None or bool(alphabet[list(encoded(text))].all())

    def _text_instance(self, key: Any, texts: list[str], row: int, info: Any, *, allowed: bool) -> int:
        """A lexeme with a trie of listed texts (sorted by their bytes), all of which are allowed, or none."""
        n_words = (len(texts) >> 6) + 1
        offset = self._allowed([_ALL_BITS if allowed else 0] * n_words)
        return self._instance(key, (*info, texts), (kernel.STRING, row, -1, 0, -1, 0, offset))

    def _allowed(self, words: list[int]) -> int:
        return self.put_in_pool(np.array(words, dtype=np.uint64).view(np.int64))

    def reserve(self, n: int) -> None:
        """Make room for `n` more numbers in the pool."""
        needed = int(self.mem[kernel.M_N_POOL]) + n
        if needed > self.pool.shape[0]:
            self._enlarge("pool", 2 * needed)

    def put_in_pool(self, numbers: NDArray[np.int64]) -> int:
        """Where in the pool the numbers are now."""
        self.reserve(len(numbers))
        offset = int(self.mem[kernel.M_N_POOL])
        self.pool[offset : offset + len(numbers)] = numbers
        self.mem[kernel.M_N_POOL] = offset + len(numbers)
        return offset

    def is_allowed(self, i: int, leaf: int) -> bool:
        """May the known text at this leaf be written?"""
        word = int(self.pool[int(self.inst[i, kernel.I_ALLOWED]) + (leaf >> 6)])
        return bool(word >> (leaf & 63) & 1)

    def outcome_of_leaf(self, i: int, leaf: int) -> int:
        """The number of the outcome with which a listed value ends."""
        info = self.info(i)
        return int(info[1][leaf]) & (1 << 30) - 1 if info[0] == "texts" else int(info[1])

    def root(self, i: int) -> int:
        """The root of the trie of known texts of a lexeme."""
        if self.inst[i, kernel.I_TRIE] == -1:
            self._build_trie(i)
        return int(self.inst[i, kernel.I_TRIE])

    def way_to(self, i: int, t: int) -> bytes:
        """The bytes that lead to a trie node."""
        low, high = self.nodes[t, 4:6].tolist()
        text = encoded(self.info(i)[-1][low] if low < high else self.forms.name(low))
        return text[: self.depth_of(i, t, text)]

    def depth_of(self, i: int, t: int, text: bytes) -> int:
        """How many bytes of a known text (which passes trie node `t`) lead to `t`."""
        node, depth = self.root(i), 0
        while node != t:
            first, n = self.nodes[node, :2].tolist()
            node = next(k for k in range(first, first + n) if self.nodes[k, 2] == text[depth])
            depth += 1
        return depth

    def _build_trie(self, i: int) -> None:
        self.inst[i, kernel.I_TRIE] = self.trie_of(self.info(i)[-1])

    def trie_of(self, listed: Sequence[str]) -> int:
        """The root of the trie of some texts, which are sorted by their bytes."""
        kept = self._tries_of.get(id(listed))
        if kept is not None:
            return kept[0]
        texts = [encoded(text) for text in listed]
        key = tuple(texts)
        root = self._tries.get(key)
        if root is None:
            root = self._tries[key] = self._put_nodes(_trie(texts))
        self._tries_of[id(listed)] = root, listed
        return root

    def trie_with(self, root: int, name: str, leaf: int, number: int) -> int:
        """The root of the trie of the texts below `root` and a name, whose new nodes stand above no leaves.

        leaf: where the name ends.   number: what these nodes note in the place of leaves.
        """
        text = np.frombuffer(encoded(name), dtype=np.uint8)
        while (n := int(kernel.extend_trie(self.nodes, self._n_trie, root, text, leaf, number))) < 0:
            self._enlarge("nodes", 2 * self.nodes.shape[0])
        root, self._n_trie = self._n_trie, n
        return root

    def _put_nodes(self, nodes: NDArray[np.int64]) -> int:
        root, n = self._n_trie, len(nodes)
        nodes[:, 0] += root
        if root + n > self.nodes.shape[0]:
            self._enlarge("nodes", 2 * (root + n))
        self.nodes[root : root + n] = nodes
        self._n_trie = root + n
        return root

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
        names = named(frame.seen)
        texts = sorted([*shape.keys, *names], key=encoded) if names else shape.sorted_keys
        row, recognizer, flags = 0, None, 0
        if others:
            flags = kernel.OTHERS | (kernel.UNNAMED if len(names) < len(frame.seen) else 0)
            if not shape.key_tests:
                row = FREE
            else:
                values = [sum(bit << k for k, bit in enumerate(c)) for c in others]
                care = (1 << len(shape.key_tests)) - 1
                recognizer = self.shared.lexemes.strings(shape.key_tests, tuple((care, v) for v in values))
                if not self._leads_elsewhere(recognizer, texts):
                    care = 2 * care + 1
                    tests = (*shape.key_tests, ("str", frozenset(texts)))
                    recognizer = self.shared.lexemes.strings(tests, tuple((care, v) for v in values))
                row = self._row(recognizer) if recognizer.start else 0
        place = {text: leaf for leaf, text in enumerate(texts)}
        words = [0] * ((len(texts) >> 6) + 1)
        for k in bits_of(known):
            if self.all_spellable or self.spellable(shape.keys[k]):
                leaf = place[shape.keys[k]]
                words[leaf >> 6] |= 1 << (leaf & 63)
        fields = (kernel.STRING, row, -1, 0, -1, flags, self._allowed(words))
        return kernel.pack(self._instance(key, ("key", frame, recognizer, texts), fields))

    def _leads_elsewhere(self, recognizer: Any, listed: Sequence[str]) -> bool:
        """Can what begins like one of the (sorted) texts always go on to become another text?  A sufficient test."""
        arena, flat = self.shared.arena, _flat([encoded(text) for text in listed])
        start, places, hole = self._row(recognizer), np.empty((_MAX_PLACES, 4), np.int64), np.zeros(1, np.int64)
        while (answer := leads_elsewhere(arena.rows, start, *flat, places, hole)) < 0:
            arena.fill(int(hole[0]))
        return bool(answer)

    def _end_of_lexeme(self, i: int, code: int) -> int:
        """What follows a lexeme that ends with a code (leaf << 1 | 1, or outcome << 1)."""
        info = self.info(i)
        match info[0]:
            case "ends":
                return kernel.pack(info[1], close=True)
            case "texts":
                return int(info[1][code >> 1])
            case "number" | "recognized":
                _, goal, recognizer, tests = info[:4]
                bits = self.shared.arena.outcome(recognizer, code >> 1)
                which = NUMBERS if info[0] == "number" else STRINGS
                return kernel.pack(self.outcome_number(self.machine.outcome(goal, which, tests, bits)), close=True)
        _, frame, recognizer, texts = info
        if code & 1:
            made = self.machine.member(frame, frame.shape.number[texts[code >> 1]])
        else:
            made = self.machine.member(frame, self._class_of(frame, recognizer, code >> 1))
        return kernel.pack(self.colon_struct(made)) if made is not None else 0

    def _class_of(self, frame: ObjectFrame, recognizer: Any, outcome: int) -> tuple[int, ...]:
        if recognizer is None:
            return ()
        bits = self.shared.arena.outcome(recognizer, outcome)
        return tuple(bits >> k & 1 for k in range(len(frame.shape.key_tests)))


def _flat(texts: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Texts one behind the other, and where each begins."""
    indptr = np.array([0, *accumulate(map(len, texts))], dtype=np.int64)
    return np.frombuffer(b"".join(texts), dtype=np.uint8), indptr


def _trie(texts: list[bytes]) -> NDArray[np.int64]:
    """The nodes of the trie of some sorted texts."""
    flat, indptr = _flat(texts)
    nodes = np.zeros((1 + len(flat), 6), dtype=np.int64)
    return nodes[: kernel.build_trie(flat, indptr, 0, nodes)]


def enlarged(array: NDArray[Any], n: int) -> NDArray[Any]:
    """A copy with `n` rows."""
    larger = np.zeros((n, *array.shape[1:]), dtype=array.dtype)
    larger[: array.shape[0]] = array
    return larger
