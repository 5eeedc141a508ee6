"""The pushdown of interned frames: what a JSON text has still to say, container by container.

A *goal* is what a value must fulfil: formulas that are watched side by side, and cubes over their truth. Nearly always
one formula must become true; where branches of `anyOf` or `oneOf` cannot be told apart yet, each is watched and the
parent learns at the value's end which of them hold (its *outcome*). So a state is deterministic however many
alternatives are open.

A *frame* is an object or array at some point: its formulas with everything used up that has been read (`Satisfiability`
says how atoms change item by item; `_ObjectFrame.member` does the same for members). A *return* is what waits for a
child's outcome. Both are interned, so they are shared by all texts that have the same future.

The kernel asks for one table entry at a time (`struct_row`, `end_of_string`, `after`); an entry that leads to nothing
that could be completed is dead.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Final, TypeAlias

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.formula import FALSE, TRUE, Cube, Formula
from outlines_core.json_schema.lexemes import ONLY, Cubes, Lexemes, TestKey
from outlines_core.json_schema.lower import FALSE_SUB, TRUE_SUB, Lowering, Sub
from outlines_core.json_schema.nodes import SchemaNode
from outlines_core.json_schema.sat import Satisfiability, Usable
from outlines_core.json_schema.shapes import NOBODY, Key, ObjectShape, Seen, bits_of
from outlines_core.json_schema.splits import TRUE_SPLIT, Props, Split

_MAX_BRANCHES: Final = 256
_NOTHING_SETTLED: Final[dict[int, bool]] = {}
_MAX_CUBES: Final = 24
_MAX_OPTIONS: Final = 4000

__all__ = ["ArrayFrame", "Frame", "Goal", "Machine", "ObjectFrame", "PlainObject", "Return"]

NULL, NUMBERS, STRINGS, ARRAYS, OBJECTS = 0, 1, 2, 3, 4
Outcome: TypeAlias = tuple[bool, ...]


class Goal:
    """What a value must fulfil.  Interned.

    Attributes:
        is_single: one formula must become true, and that is all.
        place: the sub that it comes from (`Lowering.place` says where that is).
    """

    __slots__ = ("alive", "cubes", "id", "is_single", "place", "watched")

    def __init__(self, number: int, watched: tuple[Split, ...], cubes: Cubes, place: Sub) -> None:
        self.id, self.watched, self.cubes, self.place = number, watched, cubes, place
        self.is_single = len(watched) == 1 and cubes == ONLY
        self.alive: bool | None = None

    def is_good(self, outcome: Outcome) -> bool:
        bits = sum(1 << i for i, v in enumerate(outcome) if v)
        return any(bits & care == value for care, value in self.cubes)


class Return:
    """A frame that waits for the value of a member or an item.

    Attributes:
        after: atoms of `formulas` that stand for "the value satisfies this sub" are settled by the outcome.
        record: must the value itself be known at its end?
        sound: can the container be completed after any good outcome?
    """

    __slots__ = (
        "after",
        "blocked",
        "cubes",
        "formulas",
        "goal",
        "id",
        "key",
        "place",
        "record",
        "seen",
        "settled",
        "shape",
        "sound",
        "ts",
    )

    def __init__(self, number: int, goal: Goal, formulas: tuple[Formula, ...], cubes: Cubes) -> None:
        self.id, self.goal, self.formulas, self.cubes = number, goal, formulas, cubes
        self.ts: tuple[int, ...] = ()
        self.settled: dict[int, bool] | None = _NOTHING_SETTLED
        self.shape: ObjectShape | None = None
        self.blocked = 0
        self.seen: Seen = NOBODY
        self.record = self.sound = False
        self.key = ""
        self.place = TRUE_SUB
        self.after: dict[Outcome, Frame | None] = {}


class ArrayFrame:
    """An array at some point.  Interned."""

    __slots__ = ("closing", "cubes", "formulas", "goal", "id", "item", "place")

    def __init__(self, number: int, formulas: tuple[Formula, ...], cubes: Cubes, goal: Formula, place: Sub) -> None:
        self.id, self.formulas, self.cubes, self.goal, self.place = number, formulas, cubes, goal, place
        self.closing: Outcome | None = None
        self.item: Return | bool | None = None


class ObjectFrame:
    """An object at some point.  Interned."""

    __slots__ = (
        "blocked",
        "branches",
        "closing",
        "cubes",
        "formulas",
        "goal",
        "id",
        "keys",
        "members",
        "place",
        "seen",
        "shape",
    )

    def __init__(
        self,
        number: int,
        shape: ObjectShape,
        formulas: tuple[Formula, ...],
        cubes: Cubes,
        goal: Formula,
        blocked: int,
        seen: Seen,
        place: Sub,
    ) -> None:
        self.id, self.shape, self.formulas, self.cubes, self.goal = number, shape, formulas, cubes, goal
        self.blocked, self.seen, self.place = blocked, seen, place
        self.closing: Outcome | None = None
        self.members: dict[Any, Return | None] = {}
        self.keys: tuple[int, tuple[tuple[int, ...], ...]] | None = None
        self.branches: list[PlainObject] | None = None

    @property
    def plain(self) -> PlainObject | None:
        """The conjunction that is left to fulfil, if it is one."""
        return self.branches[0] if self.branches is not None and len(self.branches) == 1 else None


Frame: TypeAlias = ArrayFrame | ObjectFrame


class PlainObject:
    """A conjunction that says of members one by one what they must be: nearly every object is one, or a choice of some.

    Attributes:
        props, names: P and N atoms and what they say.   by: these atoms.
        required, absent: known keys that must come or must not, as bit sets.
        count: least, most properties.
        formula: the conjunction.   rest: the part of it that no member changes.
    """

    __slots__ = ("absent", "by", "count", "formula", "names", "props", "required", "rest")

    def __init__(self, formula: Formula) -> None:
        self.formula = formula
        self.props: tuple[tuple[int, Props], ...] = ()
        self.names: tuple[tuple[int, Sub], ...] = ()
        self.required = self.absent = 0
        self.count: tuple[int, int | None] | None = None
        self.by: tuple[int, ...] = ()
        self.rest: tuple[Formula, ...] = ()


class Machine:
    """Goals, frames and returns of one schema."""

    def __init__(self, root: SchemaNode, lexemes: Lexemes, *, in_order: bool, usable: Usable) -> None:
        self.lowering = Lowering(lexemes)
        self.formulas = self.lowering.formulas
        self.lexemes = lexemes
        self.sat = Satisfiability(self.lowering, lexemes, in_order=in_order, usable=usable)
        self.in_order, self.usable = in_order, usable
        self._all_usable = usable == Usable()
        self._goals: dict[Any, Goal] = {}
        self.returns: list[Return | None] = [None]
        self._arrays: dict[Any, ArrayFrame | None] = {}
        self._objects: dict[Any, ObjectFrame | None] = {}
        self._combined: dict[Any, Formula] = {}
        self._plenty: dict[Sub, bool] = {}
        self._branches: dict[Formula, list[PlainObject] | None] = {}
        self.n_frames = 0
        self.root = self.goal_of_sub(self.lowering.sub(root, ()))

    # -- goals ------------------------------------------------------------------------------------------------------

    def goal(self, watched: tuple[Split, ...], cubes: Cubes, place: Sub = TRUE_SUB) -> Goal:
        key = (watched, cubes)
        found = self._goals.get(key)
        if found is None:
            found = self._goals[key] = Goal(len(self._goals), watched, cubes, place)
        return found

    def goal_of_sub(self, sub: Sub) -> Goal:
        return self.goal((self.lowering.split(sub),), ONLY, sub)

    def combined(self, formulas: tuple[Formula, ...], cubes: Cubes) -> Formula:
        """What must become true: the cubes carried out on the formulas."""
        if cubes == ONLY:
            return formulas[0]
        key = (formulas, cubes)
        found = self._combined.get(key)
        if found is None:
            options = []
            for care, value in cubes:
                parts = [f if value >> i & 1 else -f for i, f in enumerate(formulas) if care >> i & 1]
                options.append(self.formulas.all(parts))
            found = self._combined[key] = self.formulas.any(options)
        return found

    def part(self, goal: Goal, which: int) -> Formula:
        """What a goal asks of numbers, strings, arrays or objects."""
        if not self.usable[which]:
            return FALSE
        if goal.is_single:
            f: Formula = goal.watched[0][which]
            return f
        return self.combined(tuple(split[which] for split in goal.watched), goal.cubes)

    def parts(self, goal: Goal) -> tuple[bool, Formula, Formula, Formula, Formula]:
        """May it be null, false or true, perhaps?  And `part` of numbers, strings, arrays, objects."""
        if goal.is_single and self._all_usable:
            literals, numbers, strings, arrays, objects = goal.watched[0]
            return literals != 0, numbers, strings, arrays, objects
        numbers, strings, arrays, objects = (self.part(goal, which) for which in (NUMBERS, STRINGS, ARRAYS, OBJECTS))
        return True, numbers, strings, arrays, objects

    def constant(self, goal: Goal, bit: int) -> Outcome | None:
        """The outcome of null (1), false (2) or true (4), None if the goal excludes it."""
        if goal.is_single:
            return (True,) if self.usable.literals & bit & goal.watched[0][0] else None
        outcome = tuple(bool(split[0] & bit) for split in goal.watched)
        return outcome if self.usable.literals & bit and goal.is_good(outcome) else None

    def is_alive(self, goal: Goal) -> bool:
        """Is there a value that fulfils the goal?"""
        if goal.alive is None:
            sat = self.sat
            goal.alive = (
                any(self.constant(goal, bit) is not None for bit in (1, 2, 4))
                or sat.strings(self.part(goal, STRINGS))
                or sat.numbers(self.part(goal, NUMBERS))
                or sat.arrays(self.part(goal, ARRAYS))
                or sat.objects(self.part(goal, OBJECTS))
            )
        return goal.alive

    # -- events -----------------------------------------------------------------------------------------------------

    def _return(self, goal: Goal, formulas: tuple[Formula, ...], cubes: Cubes) -> Return:
        made = Return(len(self.returns), goal, formulas, cubes)
        self.returns.append(made)
        return made

    def twin(self, made: Return) -> int:
        """The number of a copy."""
        twin = copy(made)
        twin.id = len(self.returns)
        self.returns.append(twin)
        return twin.id

    def _watch(
        self,
        formulas: tuple[Formula, ...],
        cubes: Cubes,
        subs: dict[int, Sub],
        rest_fits: Callable[[Formula], bool],
        place: Sub,
    ) -> Return | None:
        """The return of a child, `formulas` being what is left behind it: over rest atoms and atoms in `subs`.

        ``rest_fits(f)`` says whether the rest of the container can fulfil a formula.
        """
        lowering = self.lowering
        options = self._options(self.sat.known_required(self.combined(formulas, cubes)), subs, rest_fits)
        if not options:
            return None
        ts = sorted(
            {a for f in formulas for a in self.formulas.atoms(f) if a in subs} | {a for o in options for a, _ in o}
        )
        if len(options) == 1 and len(options[0]) == len(ts):
            settled = dict(options[0])
            splits = [lowering.split(subs[a]) for a in ts]
            parts = [s if settled[a] else lowering.splits.complement(s) for a, s in zip(ts, splits, strict=True)]
            goal = self.goal((lowering.splits.all(parts) if parts else TRUE_SPLIT,), ONLY, place)
            made = self._return(goal, formulas, cubes)
            made.settled = settled
        else:
            number = {a: i for i, a in enumerate(ts)}
            child = tuple(
                (sum(1 << number[a] for a, _ in option), sum(1 << number[a] for a, v in option if v))
                for option in options
            )
            goal = self.goal(tuple(lowering.split(subs[a]) for a in ts), child, place)
            made = self._return(goal, formulas, cubes)
            made.settled = None
            made.ts = tuple(ts)
        if not self.is_alive(goal):
            self.returns.pop()
            return None
        return made

    def _options(
        self, f: Formula, subs: dict[int, Sub], rest_fits: Callable[[Formula], bool]
    ) -> list[frozenset[tuple[int, bool]]]:
        """What a child may be, as truths of atoms in `subs`, so that `f` can be fulfilled.

        Alternatives are mostly few. Where they are many they tend to exclude each other ("if the type is a, then"), so
        the atoms are then given truths one by one, as far as one value can have all of them.
        """
        formulas = self.formulas
        found: dict[frozenset[tuple[int, bool]], None] = {}
        for n, cube in enumerate(formulas.cubes(f)):
            if n >= _MAX_CUBES:
                return self._consistent_options(f, subs, rest_fits)
            mine = frozenset((a, v) for a, v in cube.items() if a in subs)
            rest = {a: v for a, v in cube.items() if a not in subs}
            if mine not in found and rest_fits(formulas.all([a if v else -a for a, v in rest.items()])):
                found[mine | self._not_bad(rest, subs)] = None
        return [o for o in found if not any(other < o for other in found)]

    def _not_bad(self, rest: Cube, subs: dict[int, Sub]) -> frozenset[tuple[int, bool]]:
        """That an item has none of the values with which not all items could differ; nothing for other children."""
        bad = self.sat.bad_values(rest)
        if not bad:
            return frozenset()
        sub = self.sat.one_of(bad)
        atom = self.formulas.atom(("t", sub))
        subs[atom] = sub
        return frozenset(((atom, False),))

    def _consistent_options(
        self, f: Formula, subs: dict[int, Sub], rest_fits: Callable[[Formula], bool]
    ) -> list[frozenset[tuple[int, bool]]]:
        formulas, lowering = self.formulas, self.lowering
        found: list[frozenset[tuple[int, bool]]] = []
        open_: list[tuple[Formula, Split, frozenset[tuple[int, bool]]]] = [(f, TRUE_SPLIT, frozenset())]
        for n, (g, split, chosen) in enumerate(open_):
            if n > _MAX_OPTIONS:
                raise LimitExceededError(
                    f"the schema has more than {_MAX_OPTIONS:,} alternatives at one place", given=n, limit=_MAX_OPTIONS
                )
            undecided = next((a for a in formulas.atoms(g) if a in subs), None)
            if undecided is None:
                if all(formulas.payload(a)[0] != "U?" for a in formulas.atoms(g)):
                    found += [chosen] if rest_fits(g) else []
                    continue
                found += [
                    chosen | self._not_bad(cube, subs)
                    for cube in formulas.cubes(g)
                    if rest_fits(formulas.all([a if v else -a for a, v in cube.items()]))
                ]
                continue
            own = lowering.split(subs[undecided])
            for truth in (True, False):
                fixed = TRUE if truth else FALSE
                h = formulas.substitute(g, lambda a: fixed if a == undecided else a, {})  # noqa: B023
                if h != FALSE:
                    narrowed = lowering.splits.all([split, own if truth else lowering.splits.complement(own)])
                    if self.sat.sub(lowering.sub_of_split(narrowed)):
                        open_.append((h, narrowed, chosen | {(undecided, truth)}))
        return found

    def after(self, made: Return, outcome: Outcome, value: Any = None) -> Frame | None:
        """The frame behind a child with this outcome (`value`: canonical, where it is asked for)."""
        if not made.record and outcome in made.after:
            return made.after[outcome]
        truth = made.settled if made.settled is not None else dict(zip(made.ts, outcome, strict=True))
        formulas = self.formulas

        def replace(atom: int) -> Formula:
            known = truth.get(atom)
            if known is not None:
                return TRUE if known else FALSE
            payload = formulas.payload(atom)
            if payload[0] == "U?":
                return FALSE if value in payload[1] else formulas.atom(("U", payload[1] | {value}))
            return atom

        left = made.formulas
        if truth or made.record:
            memo: dict[int, Formula] = {}
            left = tuple(formulas.substitute(f, replace, memo) for f in left)
        frame: Frame | None
        if made.shape is None:
            frame = self.array(left, made.cubes, made.place)
        else:
            frame = self.object_at(made.shape, left, made.cubes, made.blocked, made.seen, made.place, sound=made.sound)
        if not made.record:
            made.after[outcome] = frame
        return frame

    def after_some_value(self, made: Return, outcome: Outcome, many: int) -> ArrayFrame | None:
        """The array behind an item that must differ from the others, without its value.

        None where the value could matter before a further item is complete: unless there are `many` for each.
        """
        formulas = self.formulas
        truth = made.settled if made.settled is not None else dict(zip(made.ts, outcome, strict=True))
        plenty = True

        def replace(atom: int) -> Formula:
            nonlocal plenty
            if atom in truth:
                return TRUE if truth[atom] else FALSE
            payload = formulas.payload(atom)
            if payload[0] == "U?":
                return formulas.atom(("U", payload[1]))
            if payload[0] == "I":
                plenty = plenty and all(self._has_plenty(sub, many) for sub in (*payload[1], payload[2]))
            elif payload[0] == "K":
                plenty = False
            return atom

        memo: dict[int, Formula] = {}
        left = tuple(formulas.substitute(f, replace, memo) for f in made.formulas)
        return self.array(left, made.cubes, made.place) if plenty else None

    def _has_plenty(self, sub: Sub, many: int) -> bool:
        """Have values of this sub so much variety that those seen so far are no matter?"""
        known = self._plenty.get(sub)
        if known is None:
            _, numbers, strings, arrays, objects = self.lowering.split(sub)
            known = strings == TRUE or numbers == TRUE or self.formulas.atom(("int",)) == numbers
            if not known and self.sat.sub(sub):
                known = self.sat.many_containers(arrays, objects, many)
            self._plenty[sub] = known
        return known

    def takes_any_string(self, goal: Goal) -> bool:
        """Is a string good whatever it is, apart from a few that are complete?"""
        f = self.part(goal, STRINGS)
        if not goal.is_single:
            return False
        formulas = self.formulas
        return all(p < 0 and formulas.is_atom(-p) and formulas.payload(-p)[0] == "str" for p in formulas.conjuncts(f))

    # -- arrays -----------------------------------------------------------------------------------------------------

    def open_array(self, goal: Goal) -> ArrayFrame | None:
        return self.array(tuple(split[ARRAYS] for split in goal.watched), goal.cubes, goal.place)

    def array(self, formulas: tuple[Formula, ...], cubes: Cubes, place: Sub) -> ArrayFrame | None:
        """The frame of an array of which `formulas` are left to fulfil; None if that cannot be."""
        key = (formulas, cubes)
        if key in self._arrays:
            return self._arrays[key]
        goal = self.combined(formulas, cubes)
        frame = None
        if self.sat.arrays(goal):
            frame = ArrayFrame(self.n_frames, formulas, cubes, goal, place)
            self.n_frames += 1
            outcome = tuple(self.sat.array_ends(f) for f in formulas)
            if self._good(cubes, outcome):
                frame.closing = outcome
        self._arrays[key] = frame
        return frame

    def _good(self, cubes: Cubes, outcome: Outcome) -> bool:
        bits = sum(1 << i for i, v in enumerate(outcome) if v)
        return any(bits & care == value for care, value in cubes)

    def item(self, frame: ArrayFrame) -> Return | None:
        """The return of one more item, None if there can be none."""
        if frame.item is None:
            made = self._item(frame)
            if made is not None:
                made.place = frame.place
            frame.item = made or False
        return frame.item if isinstance(frame.item, Return) else None

    def _item(self, frame: ArrayFrame) -> Return | None:
        sat, formulas, lowering = self.sat, self.formulas, self.lowering
        subs: dict[int, Sub] = {}
        memo: dict[int, Formula] = {}
        unique = any(formulas.payload(a)[0] == "U" for f in frame.formulas for a in formulas.atoms(f))
        if frame.cubes == ONLY and len(frame.formulas) == 1:
            parts = formulas.conjuncts(frame.goal)
            if all(p > 0 and formulas.is_atom(p) and formulas.payload(p)[0] in ("I", "C", "U") for p in parts):
                return self._plain_item(frame, parts, unique)
        after = tuple(formulas.substitute(f, lambda a: sat.item_step(a, subs), memo) for f in frame.formulas)
        made = self._watch(after, frame.cubes, subs, sat.arrays, lowering.below(subs.values(), frame.place))
        if made is not None:
            made.record = unique
        return made

    def _plain_item(self, frame: ArrayFrame, parts: tuple[Formula, ...], unique: bool) -> Return | None:
        sat, formulas, lowering = self.sat, self.formulas, self.lowering
        wanted: list[Sub] = []
        left: list[Formula] = []
        seen: frozenset[Any] = frozenset()
        for atom in parts:
            payload = formulas.payload(atom)
            if payload[0] == "I":
                first, rest = payload[1], payload[2]
                wanted.append(first[0] if first else rest)
                left.append(lowering.items_atom(list(first[1:]), rest))
            elif payload[0] == "C":
                left.append(sat.less("C", (), payload[1], payload[2]))
            else:
                seen = payload[1]
                left.append(formulas.atom(("U?", seen)))
        after = formulas.all(left)
        if after == FALSE:
            return None
        cube = dict.fromkeys(formulas.conjuncts(after), True)
        if not sat.rest_of_array(cube):
            return None
        sub = lowering.both(wanted)
        if unique:
            bad = seen | sat.bad_values(cube)
            if bad:
                split = lowering.splits.complement(lowering.split(sat.one_of(bad)))
                sub = lowering.sub_of_split(lowering.splits.all([lowering.split(sub), split]))
        if not sat.sub(sub):
            return None
        goal = self.goal((lowering.split(sub),), ONLY, lowering.below((sub,), frame.place))
        made = self._return(goal, (after,), frame.cubes)
        made.record = unique
        return made

    # -- objects ----------------------------------------------------------------------------------------------------

    def open_object(self, goal: Goal) -> ObjectFrame | None:
        formulas = tuple(split[OBJECTS] for split in goal.watched)
        atoms = dict.fromkeys(a for f in formulas for a in self.formulas.atoms(f))
        shape = self.sat.shape(tuple(atoms))
        local = tuple(self.sat.localise(shape, f) for f in formulas)
        return self.object_at(shape, local, goal.cubes, 0, NOBODY, goal.place)

    def object_at(
        self,
        shape: ObjectShape,
        formulas: tuple[Formula, ...],
        cubes: Cubes,
        blocked: int,
        seen: Seen,
        place: Sub,
        *,
        sound: bool = False,
    ) -> ObjectFrame | None:
        """The frame of an object of which `formulas` are left to fulfil; None if that cannot be (`sound`: it can)."""
        key = (id(shape), formulas, cubes, blocked, seen)
        if key in self._objects:
            return self._objects[key]
        goal = self.combined(formulas, cubes)
        frame = None
        if sound or self.sat.rest_of_object(shape, goal, blocked, seen):
            frame = ObjectFrame(self.n_frames, shape, formulas, cubes, goal, blocked, seen, place)
            self.n_frames += 1
            if cubes == ONLY and len(formulas) == 1:
                frame.branches = self._plain_branches(goal)
                if frame.branches is not None and len(frame.branches) > 1 and not sound:
                    fits = self.sat.rest_of_object
                    frame.branches = [b for b in frame.branches if fits(shape, b.formula, blocked, seen)]
            outcome = tuple(self.formulas.holds(f, self._object_ends) for f in formulas)
            if self._good(cubes, outcome):
                frame.closing = outcome
        self._objects[key] = frame
        return frame

    def _object_ends(self, atom: int) -> bool:
        payload = self.formulas.payload(atom)
        if payload[0] == "C":
            return bool(payload[1] == 0)
        return bool(payload[0] != "r")

    def _plain_branches(self, goal: Formula) -> list[PlainObject] | None:
        """`goal` as a choice of plain conjunctions; None if it is not, or of too many."""
        if goal in self._branches:
            return self._branches[goal]
        self._branches[goal] = None
        found: list[PlainObject] = []
        settled = self.sat.known_required(goal)
        if self.formulas.most_cubes(settled) > _MAX_BRANCHES:
            return None
        for cube in self.formulas.cubes(settled):
            plain = self._plain_cube(cube)
            if plain is None or len(found) >= _MAX_BRANCHES:
                return None
            found.append(plain)
        self._branches[goal] = found
        return found

    def _plain_cube(self, cube: Cube) -> PlainObject | None:
        plain = PlainObject(self.formulas.all([atom if positive else -atom for atom, positive in cube.items()]))
        props, names, rest = [], [], []
        for atom, positive in cube.items():
            payload = self.formulas.payload(atom)
            kind = payload[0]
            if kind == "P" and positive:
                props.append((atom, payload[1]))
                rest.append(atom)
            elif kind == "N" and positive:
                names.append((atom, payload[1]))
                rest.append(atom)
            elif kind == "r" and positive:
                plain.required |= payload[1]
            elif kind == "r" and payload[1].bit_count() == 1:
                plain.absent |= payload[1]
                rest.append(-atom)
            elif kind == "C" and positive and plain.count is None:
                plain.count = payload[1:]
            else:
                return None
        plain.props, plain.names, plain.rest = tuple(props), tuple(names), tuple(rest)
        plain.by = tuple([atom for atom, _ in (*props, *names)])
        return plain

    def member(self, frame: ObjectFrame, key: Key, name: str | None = None) -> Return | None:
        """The return of a member with this key, None if there can be none.

        Args:
            key: a known key, or the class of another one, whose `name` may be known.
        """
        memo = key if isinstance(key, int) else (key, name)
        if memo in frame.members:
            return frame.members[memo]
        made = self._member(frame, key, name)
        frame.members[memo] = made
        return made

    def _member(self, frame: ObjectFrame, key: Key, name: str | None) -> Return | None:
        shape, formulas, lowering = frame.shape, self.formulas, self.lowering
        blocked = frame.blocked | shape.blocked_by(key)
        seen = frame.seen
        if isinstance(key, int):
            if frame.blocked >> key & 1:
                return None
        else:
            if name in seen:
                return None
            seen = seen | {key if name is None else name}
        place = frame.place
        if frame.branches is not None:
            made = self._branch_member(frame, frame.branches, key, blocked, seen)
        else:
            subs: dict[int, Sub] = {}

            def replace(atom: int) -> Formula:
                return self._member_step(atom, shape, key, blocked, subs)

            memo: dict[int, Formula] = {}
            after = tuple(formulas.substitute(f, replace, memo) for f in frame.formulas)

            def rest_fits(f: Formula) -> bool:
                return self.sat.rest_of_object(shape, f, blocked, seen)

            made = self._watch(after, frame.cubes, subs, rest_fits, lowering.below(subs.values(), place))
        if made is not None:
            made.shape, made.blocked, made.seen, made.place = shape, blocked, seen, place
            made.key = shape.keys[key] if isinstance(key, int) else name or ""
        return made

    def _member_step(self, atom: int, shape: ObjectShape, key: Key, blocked: int, subs: dict[int, Sub]) -> Formula:
        """What an atom becomes behind a member ("t" atoms as in `Satisfiability.item_step`)."""
        formulas = self.formulas
        payload = formulas.payload(atom)
        match payload[0]:
            case "P":
                sub = shape.child(payload[1], key)
                if sub in (TRUE_SUB, FALSE_SUB):
                    return atom if sub == TRUE_SUB else FALSE
                t = formulas.atom(("t", sub))
                subs[t] = sub
                return formulas.all([t, atom])
            case "N":
                return atom if shape.name_ok(payload[1], key) else FALSE
            case "C":
                return self.sat.less("C", (), payload[1], payload[2])
            case "r":
                left = payload[1] & ~(1 << key) if isinstance(key, int) else payload[1]
                if left & blocked:
                    return FALSE
                return formulas.atom(("r", left)) if left else TRUE
        raise AssertionError(payload)

    def _asked(self, shape: ObjectShape, plain: PlainObject, key: Key) -> Sub:
        """What a conjunction asks of the value of a key; FALSE_SUB if there is none."""
        memo = (plain.by, key)
        sub = shape.asked.get(memo)
        if sub is None:
            sub = FALSE_SUB
            if not plain.names or all(shape.name_ok(name, key) for _, name in plain.names):
                subs = [shape.child(props, key) for _, props in plain.props]
                sub = subs[0] if len(subs) == 1 else self.lowering.both(subs)
                if sub != TRUE_SUB and not self.sat.sub(sub):
                    sub = FALSE_SUB
            shape.asked[memo] = sub
        return sub

    def _left(self, plain: PlainObject, key: Key, blocked: int) -> Formula:
        """What is left of a conjunction after a member, FALSE if nothing can be."""
        required = plain.required
        if isinstance(key, int):
            if plain.absent >> key & 1:
                return FALSE
            required &= ~(1 << key)
        if required & (blocked | plain.absent):
            return FALSE
        if required == plain.required and plain.count is None:
            return plain.formula
        left = [self.left_of(plain, required)]
        if plain.count is not None:
            left.append(self.sat.less("C", (), *plain.count))
        return self.formulas.all(left)

    def left_of(self, plain: PlainObject, required: int) -> Formula:
        """A conjunction of which these known keys are still required; without its count."""
        left = [*plain.rest, self.formulas.atom(("r", required))] if required else plain.rest
        return self.formulas.all(left)

    def member_goal(self, shape: ObjectShape, plain: PlainObject, key: Key, place: Sub) -> Goal:
        """The goal of the value of a key, which must be possible."""
        sub = self._asked(shape, plain, key)
        watched = (self.lowering.split(sub),)
        found = self._goals.get((watched, ONLY))
        return found if found is not None else self.goal(watched, ONLY, self.lowering.below((sub,), place))

    def takes_others(self, shape: ObjectShape, plain: PlainObject) -> bool:
        """Does a conjunction allow keys that are not known, without any test of keys?"""
        return self._asked(shape, plain, ()) != FALSE_SUB

    def _branch_member(
        self, frame: ObjectFrame, branches: list[PlainObject], key: Key, blocked: int, seen: Seen
    ) -> Return | None:
        """`_watch` for a choice of plain conjunctions."""
        shape, formulas, lowering = frame.shape, self.formulas, self.lowering
        options: dict[Split, tuple[Sub, list[Formula]]] = {}
        for plain in branches:
            left = self._left(plain, key, blocked)
            if left == FALSE:
                continue
            sub = self._asked(shape, plain, key)
            if sub == FALSE_SUB:
                continue
            if plain.count is not None and not self.sat.rest_of_object(shape, left, blocked, seen):
                continue
            options.setdefault(lowering.split(sub), (sub, []))[1].append(left)
        if not options:
            return None
        place = lowering.below((sub for sub, _ in options.values()), frame.place)
        if len(options) == 1:
            split, (_, after) = next(iter(options.items()))
            made = self._return(self.goal((split,), ONLY, place), (formulas.any(after),), ONLY)
        else:
            parts: list[Formula] = []
            ts: list[int] = []
            watched: list[Split] = []
            cubes: list[tuple[int, int]] = []
            for split, (sub, after) in options.items():
                if split == TRUE_SPLIT:
                    parts.append(formulas.any(after))
                    cubes = [(0, 0)]
                    continue
                t = formulas.atom(("t", sub))
                if cubes != [(0, 0)]:
                    cubes.append((1 << len(ts), 1 << len(ts)))
                ts.append(t)
                watched.append(split)
                parts.append(formulas.all([t, formulas.any(after)]))
            made = self._return(self.goal(tuple(watched), tuple(cubes), place), (formulas.any(parts),), ONLY)
            made.settled = None
            made.ts = tuple(ts)
        made.sound = True
        return made

    def keys(self, frame: ObjectFrame) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """The keys that may come next: known ones (bit set), and classes of others."""
        if frame.keys is None:
            shape = frame.shape
            candidates = ~frame.blocked & ((1 << len(shape.keys)) - 1)
            branches = frame.branches
            if branches is not None and all(plain.count is None for plain in branches):
                frame.keys = self._plain_keys(frame, branches, candidates)
            else:
                allowed = 0
                for key in bits_of(candidates):
                    if self.member(frame, key) is not None:
                        allowed |= 1 << key
                others = tuple(
                    c
                    for c in shape.other_classes
                    if shape.others_left(c, frame.seen, 1) and self.member(frame, c) is not None
                )
                frame.keys = (allowed, others)
        return frame.keys

    def _plain_keys(
        self, frame: ObjectFrame, branches: list[PlainObject], candidates: int
    ) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """`keys` where no properties are counted."""
        shape = frame.shape
        order = shape.ordered_mask
        single = shape.is_single_list
        allowed = 0
        others: dict[tuple[int, ...], None] = {}
        for plain in branches:
            required = plain.required
            if required & plain.absent:
                continue
            open_ = self.possible(shape, plain) & candidates & ~plain.absent & ~allowed
            pressing = required & order  # nothing that comes later in the order may be written before these
            if pressing and single:
                open_ &= order & ((pressing & -pressing) * 2 - 1)
            elif pressing:
                open_ = sum(
                    1 << key
                    for key in bits_of(open_)
                    if not required & ~(1 << key) & (shape.before(key) if order >> key & 1 else order)
                )
            allowed |= open_
            if not pressing:
                for c in shape.other_classes:
                    if (
                        c not in others
                        and shape.others_left(c, frame.seen, 1)
                        and self._asked(shape, plain, c) != FALSE_SUB
                    ):
                        others[c] = None
        return allowed, tuple(c for c in shape.other_classes if c in others)

    def possible(self, shape: ObjectShape, plain: PlainObject) -> int:
        """The known keys for which a conjunction allows some value, as a bit set."""
        found = shape.possible.get(plain.by)
        if found is None:
            found = 0
            for key in range(len(shape.keys)):
                if self._asked(shape, plain, key) != FALSE_SUB:
                    found |= 1 << key
            shape.possible[plain.by] = found
        return found

    # -- outcomes of strings and numbers ----------------------------------------------------------------------------

    def tests(self, goal: Goal, which: int) -> tuple[tuple[TestKey, ...], Cubes]:
        """What a recognizer must watch to know the outcome of a string or number, and which outcomes are good."""
        formulas = self.formulas
        tests, cubes = self.lexemes.tests_and_cubes(formulas, self.part(goal, which))
        if goal.is_single:
            return tests, cubes
        known = dict.fromkeys(tests)
        for split in goal.watched:
            known.update(dict.fromkeys(formulas.payload(a) for a in formulas.atoms(split[which])))
        return tuple(known), cubes

    def outcome(self, goal: Goal, which: int, tests: tuple[TestKey, ...], bits: int) -> Outcome:
        """The outcome of a value about which the tests say `bits`."""
        if goal.is_single:
            return (True,)
        passed = {test: bool(bits >> i & 1) for i, test in enumerate(tests)}
        formulas = self.formulas
        return tuple(formulas.holds(split[which], lambda a: passed[formulas.payload(a)]) for split in goal.watched)

    def check_size(self, limit: int) -> None:
        """Raises LimitExceededError if the tables have grown past `limit` frames."""
        if self.n_frames + len(self.returns) > limit:
            raise LimitExceededError(
                f"the constraint needs more than {limit:,} automaton states (Limits.max_states)",
                given=self.n_frames + len(self.returns),
                limit=limit,
            )
