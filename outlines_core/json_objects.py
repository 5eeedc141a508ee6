"""Plain objects: their forms are laid out for the kernel, and turned back into frames where somebody asks.

Of an object that says of its members one by one what they must be, the kernel finds every state by itself
(`kernels.json_objects`). `Machine` has the same states as frames: whoever explains a state, ends a text, or writes a
key that is no known one, works with the frame, and an object is plain again behind such a key.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.json_schema.arena import FREE
from outlines_core.json_schema.formula import Formula
from outlines_core.json_schema.lexemes import ONLY
from outlines_core.json_schema.machine import ObjectFrame, PlainObject, Return
from outlines_core.json_schema.shapes import Key, ObjectShape, Seen, bits_of, encoded, named
from outlines_core.kernels import json_memory as memory
from outlines_core.kernels import json_objects as kernel

if TYPE_CHECKING:
    from outlines_core.json_tables import JsonTables

__all__ = ["ObjectForms"]


class _Form(NamedTuple):
    """What the states of an object have in common; texts: known keys and names, sorted by their bytes."""

    offset: int
    shape: ObjectShape
    plain: PlainObject
    seen: Seen
    place: str
    texts: list[str]
    leaves: NDArray[np.int64]
    keys: NDArray[np.int64]

    @property
    def n_words(self) -> int:
        return (len(self.texts) >> 6) + 1

    def words(self, *sets: int) -> NDArray[np.int64]:
        """(len(sets), n_words): sets of keys as sets of leaves."""
        n_bytes = 8 * self.n_words
        raw = np.frombuffer(b"".join(bits.to_bytes(n_bytes, "little") for bits in sets), dtype=np.uint8)
        by_key = np.unpackbits(raw.reshape(-1, n_bytes), axis=1, bitorder="little")
        by_leaf = np.zeros_like(by_key)
        by_leaf[:, self.leaves] = by_key[:, : len(self.leaves)]
        return np.packbits(by_leaf, axis=1, bitorder="little").view("<i8")

    def key_set(self, words: NDArray[np.int64]) -> int:
        """A set of leaves as a set of keys."""
        bits = int.from_bytes(words.astype("<i8").tobytes(), "little")
        return sum(1 << int(self.keys[leaf]) for leaf in bits_of(bits))


class ObjectForms:
    """The plain objects of one core's tables."""

    def __init__(self, tables: JsonTables) -> None:
        self._tables = tables
        self._forms: list[_Form] = []
        self._numbers: dict[tuple[int, Formula, Seen], int] = {}
        self._entered: dict[int, int] = {}
        self.widest = 0

    def enter(self, frame: ObjectFrame) -> int:
        """The first instance of the state that a frame stands for; 0 if the object is not a plain one."""
        known = self._entered.get(frame.id)
        if known is None:
            known = self._entered[frame.id] = self._enter(frame) if _is_plain(frame) else 0
        return known

    def _enter(self, frame: ObjectFrame) -> int:
        tables, plain = self._tables, frame.plain
        assert plain is not None
        key = id(frame.shape), tables.machine.formulas.all(plain.rest), frame.seen
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._lay_out(frame, plain)
        form = self._forms[number]
        n = form.n_words
        while True:
            tables.reserve(self.widest)
            at = int(tables.mem[memory.M_N_POOL]) + kernel.O_SETS
            tables.pool[at : at + 2 * n] = form.words(frame.blocked, plain.required).ravel()
            first = int(kernel.enter_object(tables.mem, form.offset))
            if first >= 0:
                return first
            tables.grow()

    def _lay_out(self, frame: ObjectFrame, plain: PlainObject) -> int:
        tables, machine, shape = self._tables, self._tables.machine, frame.shape
        names = named(frame.seen)
        texts, leaves = shape.sorted_keys, shape.leaves
        if names:
            texts, leaves = texts.copy(), leaves.copy()
        for name in names:
            place = bisect_left(texts, encoded(name), key=encoded)
            texts.insert(place, name)
            leaves[leaves >= place] += 1
        keys = np.full(len(texts), -1)
        keys[leaves] = np.arange(len(leaves))
        form = _Form(0, shape, plain, frame.seen, frame.place, texts, leaves, keys)
        possible = machine.possible(shape, plain) & ~plain.absent
        if not tables.all_spellable:
            possible &= sum(1 << k for k in bits_of(possible) if tables.spellable(shape.keys[k]))
        n, n_texts = form.n_words, len(texts)
        numbers = np.zeros(kernel.F_SETS + n * (2 + n_texts) + n_texts, dtype=np.int64)
        others = machine.takes_others(shape, plain)
        row = FREE if others else 0
        numbers[: kernel.F_OTHER_COLON] = n, n_texts, others, row, tables.trie_of(texts), len(self._forms)
        sets = numbers[kernel.F_SETS : kernel.F_SETS + n * (2 + n_texts)].reshape(2 + n_texts, n)
        behind = form.words(shape.ordered_mask, possible, *shape.blocked)
        sets[:2] = behind[:2]
        sets[2 + leaves] = behind[2:]
        self.widest = max(self.widest, 3 * n + 8)
        self._forms.append(form._replace(offset=tables.put_in_pool(numbers)))
        return len(self._forms) - 1

    def key_start(self, first: int) -> int:
        """What a quote leads to in a state; 0 if no key may come."""
        behind_value = self._tables.inst[first, memory.I_CLASS + memory.COMMA]
        return first + kernel.WITHIN_KEY if behind_value else 0

    # -- the kernel asks --------------------------------------------------------------------------------------------

    def fill_colon(self, i: int, leaf: int) -> None:
        """Make the colon of a key (-1: another one), and what is behind it."""
        tables, form = self._tables, self._form_of(i)
        key: Key = int(form.keys[leaf]) if leaf >= 0 else ()
        goal = tables.machine.member_goal(form.shape, form.plain, key, form.place)
        colon = tables.member_colon(goal, is_known=leaf >= 0)
        at = kernel.F_OTHER_COLON if leaf < 0 else kernel.F_SETS + form.n_words * (2 + len(form.texts)) + leaf
        tables.pool[form.offset + at] = colon

    # -- frames -----------------------------------------------------------------------------------------------------

    def _state(self, i: int) -> int:
        return int(self._tables.inst[i, memory.I_OBJECT])

    def _form_of(self, i: int) -> _Form:
        pool = self._tables.pool
        return self._forms[int(pool[pool[self._state(i) + kernel.O_FORM] + kernel.F_NUMBER])]

    def is_other(self, i: int, colon: int) -> bool:
        """Is a colon the one behind another key, of instance `i`, than the known ones?"""
        return colon == int(self._tables.pool[self._form_of(i).offset + kernel.F_OTHER_COLON])

    def _frame(self, i: int) -> ObjectFrame:
        tables, form = self._tables, self._form_of(i)
        at, n = self._state(i) + kernel.O_SETS, form.n_words
        blocked, required = (form.key_set(tables.pool[at + k * n : at + k * n + n]) for k in (0, 1))
        machine = tables.machine
        left = machine.left_of(form.plain, required)
        frame = machine.object_at(form.shape, (left,), ONLY, blocked, form.seen, form.place, sound=True)
        assert frame is not None
        return frame

    def info(self, i: int) -> Any:
        """What an instance of a plain object stands for, as `JsonTables` has it."""
        point = i - int(self._tables.pool[self._state(i) + kernel.O_INSTANCE])
        frame = self._frame(i)
        if point == kernel.WITHIN_KEY:
            return ("key", frame, None, self._form_of(i).texts)
        return ("object", frame, point - kernel.BEHIND_VALUE + 1)

    def return_of(self, number: int) -> Return:
        """A member that waits for its value."""
        pool = self._tables.pool
        at = number & (kernel.MEMBER >> 1) - 1
        _, i, leaf = pool[at : at + 3].tolist()
        frame = self._tables.info(i)[1]
        made = self._tables.machine.member(frame, int(self._form_of(i).keys[leaf]) if leaf >= 0 else ())
        assert made is not None
        return made


def _is_plain(frame: ObjectFrame) -> bool:
    """Are all states of the object known to the kernel's arithmetic of keys?"""
    plain = frame.plain
    return (
        plain is not None
        and plain.count is None
        and not plain.names
        and not frame.shape.key_tests
        and len(named(frame.seen)) == len(frame.seen)
    )
