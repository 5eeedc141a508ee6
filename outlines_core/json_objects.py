"""Plain objects: their forms are laid out for the kernel, and turned back into frames where somebody asks.

Of an object that says of its members one by one what they must be, the kernel finds every state by itself
(`kernels.json_objects`). `Machine` has the same states as frames: whoever explains a state, ends a text, or writes a
key that is no known one, works with the frame, and an object is plain again behind such a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from outlines_core.json_schema.formula import Formula
from outlines_core.json_schema.lexemes import ONLY
from outlines_core.json_schema.machine import ObjectFrame, PlainObject, Return
from outlines_core.json_schema.shapes import Key, Seen, bits_of, encoded, named
from outlines_core.kernels import json_memory as memory
from outlines_core.kernels import json_objects as kernel
from outlines_core.kernels.json_memory import FREE

if TYPE_CHECKING:
    from outlines_core.json_tables import JsonTables

__all__ = ["ObjectForms"]


_K_COLON, _K_SETS, _O_SETS, _F_SIZE = map(int, (kernel.K_COLON, kernel.K_SETS, kernel.O_SETS, kernel.F_SIZE))


def _packed(n_words: int, before: list[int], sets: tuple[int, ...], n_behind: int = 0) -> NDArray[np.int64]:
    """Numbers, then sets of leaves, then zeros."""
    if n_words > 1:
        sets = tuple(bits >> 64 * w & (1 << 64) - 1 for bits in sets for w in range(n_words))
    return np.array([*before, *sets, *[0] * n_behind], dtype=np.uint64).view(np.int64)


class _Keys:
    """What the states of an object have in common, whatever other keys it has by now.

    Attributes:
        offset: in the pool.
        plain: a conjunction that its states are left of.
        leaves: for each known key its leaf.   texts: by leaf.
    """

    def __init__(self, tables: JsonTables, frame: ObjectFrame, plain: PlainObject) -> None:
        machine, shape = tables.machine, frame.shape
        self.shape, self.plain, self.place = shape, plain, frame.place
        self.leaves, self.texts = shape.leaves, (*shape.sorted_keys, "")
        self.n_words = n = (len(shape.keys) >> 6) + 1
        self.n_leaves = n_leaves = len(shape.keys) + 1
        possible = machine.possible(shape, plain) & ~plain.absent
        if not tables.all_spellable:
            possible = sum(1 << k for k in bits_of(possible) if tables.spellable(shape.keys[k]))
        row = FREE if machine.takes_others(shape, plain) else 0
        sets = (self.bits(shape.ordered_mask), self.bits(possible), *shape.blocked_leaves, 0)
        self.offset = tables.put_in_pool(_packed(n, [n, n_leaves, row, 0], sets, n_leaves))

    def bits(self, keys: int) -> int:
        """A set of keys as a set of leaves."""
        if keys == (1 << len(self.leaves)) - 1:
            return keys
        leaves = self.leaves
        return sum(1 << leaves[k] for k in bits_of(keys))

    def key_set(self, words: NDArray[np.int64]) -> int:
        """A set of leaves as a set of keys."""
        bits = int.from_bytes(words.astype("<i8").tobytes(), "little")
        return sum(1 << self.key(leaf) for leaf in bits_of(bits))

    def key(self, leaf: int) -> int:
        return self.shape.number[self.texts[leaf]]

    def colon_at(self, leaf: int) -> int:
        """Where in the pool the colon of a key is; below 0: of other keys."""
        if leaf < 0:
            return self.offset + _K_COLON
        return self.offset + _K_SETS + self.n_words * (2 + self.n_leaves) + leaf


class _Form(NamedTuple):
    """States of an object that has certain other keys by now: those of `before`, and `name`."""

    offset: int
    number: int
    keys: _Keys
    trie: int
    before: _Form | None
    name: str

    def names(self) -> list[str]:
        """The names of the other keys."""
        found, form = [], self
        while form.before is not None:
            found.append(form.name)
            form = form.before
        return found


class ObjectForms:
    """The plain objects of some tables, to which it belongs."""

    def __init__(self, tables: JsonTables) -> None:
        self._owner = ref(tables)
        self._keys: dict[tuple[int, Formula], _Keys] = {}
        self._forms: list[_Form] = []
        self._first: dict[int, _Form] = {}
        self._following: dict[tuple[int, str], _Form] = {}
        self._entered: dict[int, int] = {}
        self._named: dict[tuple[int, str], int] = {}
        self.widest = 64

    @property
    def _tables(self) -> JsonTables:
        tables = self._owner()
        assert tables is not None
        return tables

    def enter(self, frame: ObjectFrame) -> int:
        """The first instance of the state that a frame stands for; 0 if the object is not a plain one."""
        known = self._entered.get(frame.id)
        if known is None:
            plain = frame.plain
            known = 0
            if plain is not None and plain.count is None and not plain.names and not frame.shape.key_tests:
                keys = self._keys_of(frame, plain)
                sets = _packed(keys.n_words, [], (keys.bits(frame.blocked), keys.bits(plain.required)))
                form = self._form(keys, named(frame.seen))
                offset = form.offset if () not in frame.seen else form.offset + _F_SIZE
                known = self._enter(offset, sets)
            self._entered[frame.id] = known
        return known

    def _keys_of(self, frame: ObjectFrame, plain: PlainObject) -> _Keys:
        what = id(frame.shape), self._tables.machine.formulas.all(plain.rest)
        found = self._keys.get(what)
        if found is None:
            found = self._keys[what] = _Keys(self._tables, frame, plain)
            self.widest = max(self.widest, 3 * found.n_words + 8)
        return found

    def _form(self, keys: _Keys, names: list[str]) -> _Form:
        form = self._first.get(keys.offset)
        if form is None:
            trie = self._tables.trie_of(keys.shape.sorted_keys)
            form = self._first[keys.offset] = self._add(keys, trie, None, "")
        for name in sorted(names, key=encoded):
            form = self._with(form, name)
        return form

    def _with(self, form: _Form, name: str) -> _Form:
        """The form of an object that has one more other key."""
        found = self._following.get((form.number, name))
        if found is None:
            trie = self._tables.trie_with(form.trie, name, form.keys.n_leaves - 1, len(self._forms))
            found = self._following[form.number, name] = self._add(form.keys, trie, form, name)
        return found

    def _add(self, keys: _Keys, trie: int, before: _Form | None, name: str) -> _Form:
        """A form, and behind it in the pool the one with a further key whose name is not known here."""
        number = len(self._forms)
        own = [keys.offset, memory.OTHERS, trie, number, 0]
        unnamed = [keys.offset, memory.OTHERS | memory.UNNAMED, trie, number, 0]
        offset = self._tables.put_in_pool(np.array(own + unnamed, dtype=np.int64))
        self._tables.pool[offset + kernel.F_UNNAMED] = offset + _F_SIZE
        form = _Form(offset, number, keys, trie, before, name)
        self._forms.append(form)
        return form

    def _enter(self, form: int, sets: NDArray[np.int64]) -> int:
        """The first instance of a state, by its form's offset; sets: blocked and required leaves."""
        tables = self._tables
        while True:
            tables.reserve(self.widest)
            at = int(tables.mem[memory.M_N_POOL]) + _O_SETS
            tables.pool[at : at + sets.size] = sets
            first = int(kernel.enter_object(tables.mem, form))
            if first >= 0:
                return first
            tables.grow()

    def key_start(self, first: int) -> int:
        """What a quote leads to in a state; 0 if no key may come."""
        behind_value = self._tables.inst[first, memory.I_CLASS + memory.COMMA]
        return first + kernel.WITHIN_KEY if behind_value else 0

    # -- the kernel asks --------------------------------------------------------------------------------------------

    def fill_colon(self, i: int, leaf: int) -> None:
        """Make the colon of a key (below 0: of other keys), and what is behind it."""
        tables, keys = self._tables, self._form_of(i).keys
        key: Key = keys.key(leaf) if leaf >= 0 else ()
        goal = tables.machine.member_goal(keys.shape, keys.plain, key, keys.place)
        colon = tables.member_colon(goal, is_known=leaf >= 0)
        tables.pool[keys.colon_at(leaf)] = colon

    def behind_name(self, i: int, name: str) -> tuple[int, int]:
        """The colon behind another key, of instance `i`, and the entry for the stack."""
        tables = self._tables
        colon = int(tables.pool[self._form_of(i).keys.colon_at(-1)])
        made = self._named.get((i, name))
        if made is None:
            made = self._named[i, name] = self._name(i, name)
        return colon, kernel.MEMBER | made << 1

    def _name(self, i: int, name: str) -> int:
        """The offset of a member with a new name."""
        tables, form = self._tables, self._form_of(i)
        following = self._with(form, name)
        blocked, required = self._sets(i)
        ordered = form.keys.offset + _K_SETS
        sets = np.concatenate([blocked | tables.pool[ordered : ordered + form.keys.n_words], required])
        first = self._enter(following.offset, sets)
        return tables.put_in_pool(np.array([first, i, -2 - following.number], dtype=np.int64))

    # -- frames -----------------------------------------------------------------------------------------------------

    def _state(self, i: int) -> int:
        return int(self._tables.inst[i, memory.I_OBJECT])

    def _form_of(self, i: int) -> _Form:
        pool = self._tables.pool
        return self._forms[int(pool[pool[self._state(i) + kernel.O_FORM] + kernel.F_NUMBER])]

    def is_other(self, i: int, colon: int) -> bool:
        """Is a colon the one behind another key, of instance `i`, than the known ones?"""
        return colon == int(self._tables.pool[self._form_of(i).keys.colon_at(-1)])

    def _sets(self, i: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Blocked and required leaves of a state."""
        at, n = self._state(i) + _O_SETS, self._form_of(i).keys.n_words
        pool = self._tables.pool
        return pool[at : at + n], pool[at + n : at + 2 * n]

    def _frame(self, i: int) -> ObjectFrame:
        keys, machine = self._form_of(i).keys, self._tables.machine
        blocked, required = map(keys.key_set, self._sets(i))
        left = machine.left_of(keys.plain, required)
        seen: Seen = frozenset(self._form_of(i).names())
        if self._tables.pool[self._state(i) + kernel.O_FORM] != self._form_of(i).offset:
            seen |= {()}
        frame = machine.object_at(keys.shape, (left,), ONLY, blocked, seen, keys.place, sound=True)
        assert frame is not None
        return frame

    def name(self, number: int) -> str:
        """The name that the nodes of a trie stand for, by what they note in the place of leaves."""
        return self._forms[number].name

    def info(self, i: int) -> Any:
        """What an instance of a plain object stands for, as `JsonTables` has it."""
        point = i - int(self._tables.pool[self._state(i) + kernel.O_INSTANCE])
        frame = self._frame(i)
        if point == kernel.WITHIN_KEY:
            return ("key", frame, None, self._form_of(i).keys.texts)
        return ("object", frame, point - kernel.BEHIND_VALUE + 1)

    def return_of(self, number: int) -> Return:
        """A member that waits for its value."""
        at = number & (kernel.MEMBER >> 1) - 1
        _, i, leaf = self._tables.pool[at : at + 3].tolist()
        frame, machine = self._tables.info(i)[1], self._tables.machine
        if leaf >= 0:
            made = machine.member(frame, self._form_of(i).keys.key(leaf))
        else:
            made = machine.member(frame, (), self._forms[-2 - leaf].name if leaf < -1 else None)
        assert made is not None
        return made
