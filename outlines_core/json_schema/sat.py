"""Is there a value? The emptiness test that keeps dead ends out.

A value satisfies a goal if a cube of it (`Formulas.cubes`) can be fulfilled. For strings and numbers a recognizer
answers. An array is a sequence of items whose positions say what they ask; an object a set of members:

- all required keys, each with a value that all positive atoms allow;
- a member for each negated atom ("not every member ..."), which may be one member for several of them;
- as many more as the counts want, from the keys that are left.

Schemas may be recursive: a value that can only be built from itself does not exist, so a question that comes up again
while it is being answered counts as "no" (least fixed point). Answers that relied on this are kept only by the question
that stood first.

Source of the approach: L. Attouche et al., *Witness generation for JSON Schema*, VLDB 2022.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from outlines_core.errors import LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.formula import FALSE, TRUE, Cube, Formula
from outlines_core.json_schema.lower import FALSE_SUB, TRUE_SUB, Lowering, Sub
from outlines_core.json_schema.nodes import ARRAY, INTEGER, NUMBER, OBJECT, STRING, SchemaNode
from outlines_core.json_schema.shapes import NOBODY, Key, ObjectShape, Seen, bits_of
from outlines_core.json_schema.splits import TRUE_SPLIT, Props, Split, canonical, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlines_core.json_schema.lexemes import Lexemes

__all__ = ["Satisfiability", "Usable", "placed"]

_MAX_STEPS: Final = 4000
_MAX_MATCHING: Final = 2000
_MANY_VALUES: Final = 64
_FEW: Final = 8
_MAX_LISTED: Final = 2000


class Usable(NamedTuple):
    """Which kinds of values a vocabulary can spell.

    Attributes:
        literals: 1 null + 2 false + 4 true.
    """

    literals: int = 7
    numbers: bool = True
    strings: bool = True
    arrays: bool = True
    objects: bool = True


class Satisfiability:
    """Answers questions of satisfiability for one schema, remembering the answers."""

    def __init__(self, lowering: Lowering, lexemes: Lexemes, *, in_order: bool, usable: Usable) -> None:
        self.lowering, self.lexemes, self.in_order, self.usable = lowering, lexemes, in_order, usable
        self.formulas = lowering.formulas
        self._known: dict[Hashable, bool] = {(TRUE_SUB,): True, (FALSE_SUB,): False}
        self._asking: set[Hashable] = set()
        self.assumed = False
        self._bad_values: dict[frozenset[tuple[int, bool]], frozenset[Any]] = {}
        self._shapes: dict[tuple[int, ...], ObjectShape] = {}
        self._settled_formulas: dict[Formula, Formula] = {}
        self._listing: set[tuple[Formula, Formula, int]] = set()
        self._local: dict[tuple[int, Formula], Formula] = {}
        self._all_usable = usable == Usable()

    # -- fixed point ------------------------------------------------------------------------------------------------

    def _ask(self, question: Hashable, answer: Callable[[], bool]) -> bool:
        known = self._known.get(question)
        if known is not None:
            return known
        if question in self._asking:
            self.assumed = True
            return False
        outermost = not self._asking
        before, self.assumed = self.assumed, False
        self._asking.add(question)
        try:
            result = answer()
        finally:
            self._asking.discard(question)
            relied, self.assumed = self.assumed, before
        if result or outermost or not relied:
            self._known[question] = result
        else:
            self.assumed = True
        return result

    # -- values -----------------------------------------------------------------------------------------------------

    def sub(self, sub: Sub) -> bool:
        """Has the sub any value?"""
        known = self._known.get((sub,))
        if known is not None:
            return known
        what = self.lowering.subs[sub]
        if self._all_usable and type(what) is tuple and type(what[0]) is SchemaNode and _plainly_satisfiable(what[0]):
            self._known[(sub,)] = True
            return True
        try:
            return self._ask((sub,), lambda: self.split(self.lowering.split(sub)))
        except UnsupportedFeatureError as error:
            raise placed(error, self.lowering.place(sub)) from None

    def split(self, split: Split) -> bool:
        bits, numbers, strings, arrays, objects = split
        if bits & self.usable.literals:
            return True
        return self.strings(strings) or self.numbers(numbers) or self.arrays(arrays) or self.objects(objects)

    def both(self, subs: list[Sub]) -> bool:
        return self.sub(self.lowering.both(subs))

    def numbers(self, f: Formula) -> bool:
        if f in (TRUE, FALSE) or not self.usable.numbers:
            return f == TRUE and self.usable.numbers
        return self._ask(("n", f), lambda: self.lexemes.has_numbers(self.formulas, f, 1))

    def strings(self, f: Formula) -> bool:
        if f in (TRUE, FALSE) or not self.usable.strings:
            return f == TRUE and self.usable.strings
        return self._ask(("s", f), lambda: self.lexemes.has_strings_of(self.formulas, f, 1))

    # -- arrays -----------------------------------------------------------------------------------------------------

    def arrays(self, f: Formula) -> bool:
        """Is there a continuation of an array of which `f` is left to fulfil?"""
        if f in (TRUE, FALSE) or not self.usable.arrays:
            return f == TRUE and self.usable.arrays
        return self._ask(("a", f), lambda: any(self._array(cube) for cube in self.formulas.cubes(f)))

    def rest_of_array(self, cube: Cube) -> bool:
        return self._ask(("ac", frozenset(cube.items())), lambda: self._array(cube))

    def _array(self, cube: Cube) -> bool:
        payload = self.formulas.payload
        items: list[tuple[tuple[Sub, ...], Sub]] = []
        low, high = 0, None
        others: list[tuple[Any, bool]] = []
        for atom, positive in cube.items():
            p = payload(atom)
            if p[0] == "I" and positive:
                items.append((p[1], p[2]))
            elif p[0] == "C" and positive:
                low, high = max(low, p[1]), _least(high, p[2])
            else:
                others.append((p, positive))
        if high is not None and low > high:
            return False
        if high is not None and high < 2:  # one item is unique
            others = [(p, positive) for p, positive in others if not (positive and p == ("U", frozenset()))]
            cube = {a: v for a, v in cube.items() if not (v and payload(a) == ("U", frozenset()))}
        if not others:
            return self._enough_items(items, low)
        if len(others) == 1 and others[0][0][0] in ("U", "U?"):
            (kind, seen), positive = others[0]
            if positive:
                return self._unique(items, low, seen)
            return self._repeats(items, low, high, seen, pending=kind == "U?")
        if any(p[0] in ("U", "U?") for p, _ in others):
            return self._unique_and_more(cube, others)
        if low and all(p[0] == "K" and positive and p[2] == 0 for p, positive in others):
            n = max((len(first) for first, _ in items), default=0) + 1
            if all(self._item(items, i, [(p[1], False) for p, _ in others]) for i in range(min(n, low))):
                return True
        return self._search(cube)

    def _item(self, items: list[tuple[tuple[Sub, ...], Sub]], i: int, conditions: list[tuple[Sub, bool]]) -> bool:
        """Is there a value for item `i` that all of `items` allow and that is as `conditions` say?"""
        lowering = self.lowering
        subs = [first[i] if i < len(first) else rest for first, rest in items]
        subs += [sub for sub, positive in conditions if positive]
        negative = [sub for sub, positive in conditions if not positive]
        if not negative:
            return self.both(subs)
        splits = lowering.splits
        parts = [lowering.split(s) for s in subs] + [splits.complement(lowering.split(s)) for s in negative]
        return self.sub(lowering.sub_of_split(splits.all(parts)))

    def _enough_items(self, items: list[tuple[tuple[Sub, ...], Sub]], low: int) -> bool:
        n = max((len(first) for first, _ in items), default=0)
        return all(self._item(items, i, []) for i in range(min(low, n + 1)))

    def _search(self, cube: Cube, many: int = 1) -> bool:
        """Breadth first over what is left to fulfil, item by item; every item must have at least `many` values."""
        formulas = self.formulas
        start = formulas.all([a if positive else -a for a, positive in cube.items()])
        seen, queue = {start}, [start]
        for depth in itertools.count():
            following: list[Formula] = []
            for f in queue:
                if self.array_ends(f):
                    return True
                for child, rest in self._steps(f):
                    if rest not in seen and (self.split(child) if many == 1 else self._has_many(child, many)):
                        seen.add(rest)
                        following.append(rest)
            if not following or (many > 1 and depth >= many // 2):
                return False
            if len(seen) > _MAX_STEPS:
                raise LimitExceededError(
                    "whether an array can satisfy its schema takes too long to find out",
                    given=len(seen),
                    limit=_MAX_STEPS,
                )
            queue = following
        raise AssertionError

    def _steps(self, f: Formula) -> Iterator[tuple[Split, Formula]]:
        """What one more item can be, and what is left to fulfil behind it."""
        formulas, lowering = self.formulas, self.lowering
        subs: dict[int, Sub] = {}
        after = formulas.substitute(f, lambda atom: self.item_step(atom, subs), {})
        for option in formulas.cubes(after):
            parts = [lowering.split(subs[a]) for a, v in option.items() if a in subs and v]
            parts += [
                lowering.splits.complement(lowering.split(subs[a])) for a, v in option.items() if a in subs and not v
            ]
            rest = formulas.all([a if v else -a for a, v in option.items() if a not in subs])
            if rest != FALSE:
                yield lowering.splits.all(parts) if parts else TRUE_SPLIT, rest

    def _has_many(self, split: Split, n: int) -> bool:
        """Are there surely `n` different values?"""
        if self._is_endless(split[1]) or self._is_endless(split[2]):
            return True
        try:
            return len(self.some_values(split, n)) >= n
        except UnsupportedFeatureError:
            return False

    def _is_endless(self, f: Formula) -> bool:
        """Are there surely endlessly many numbers or strings: all, or all integers, but for some that are listed?"""
        if f == FALSE:
            return False
        for part in self.formulas.conjuncts(f):
            if not self.formulas.is_atom(abs(part)):
                return False
            kind = self.formulas.payload(abs(part))[0]
            if kind not in ("str", "num") if part < 0 else kind != "int":
                return False
        return True

    def _search_distinct(self, cube: Cube) -> bool:
        """Depth first over arrays of values that differ, listed one by one."""
        formulas = self.formulas
        unique = [a for a in cube if formulas.payload(a)[0] == "U"]
        before = frozenset[Any]().union(*(formulas.payload(a)[1] for a in unique))
        start = formulas.all([a if positive else -a for a, positive in cube.items() if a not in unique])
        open_, visited, complete = [(start, before)], {(start, before)}, True
        while open_ and len(visited) <= _MAX_STEPS:
            f, seen = open_.pop()
            if self.array_ends(f):
                return True
            for child, rest in self._steps(f):
                if rest == f:  # what ends behind such an item ends without it
                    continue
                values = self.some_values(child, _FEW + len(seen))
                complete = complete and len(values) < _FEW + len(seen)
                for value in values:
                    if value[:1] == ("many",):
                        complete = False
                    elif value not in seen and (rest, seen | {value}) not in visited:
                        visited.add((rest, seen | {value}))
                        open_.append((rest, seen | {value}))
        if complete and not open_:
            return False
        raise UnsupportedFeatureError(
            "uniqueItems together with contains or not cannot be enforced here",
            feature="uniqueItems with contains or not",
        )

    def array_ends(self, f: Formula) -> bool:
        """Is `f` fulfilled if no more items come?"""

        def truth(atom: int) -> bool:
            p = self.formulas.payload(atom)
            if p[0] == "C":
                return bool(p[1] == 0)
            if p[0] == "K":
                return bool(p[2] == 0)
            return True

        return self.formulas.holds(f, truth)

    def item_step(self, atom: int, subs: dict[int, Sub]) -> Formula:
        """What an atom becomes after one more item.

        A fresh atom ("t", sub), also noted in `subs`, stands for "the item satisfies the sub".
        """
        formulas = self.formulas
        p = formulas.payload(atom)

        def passes(sub: Sub) -> Formula:
            if sub in (TRUE_SUB, FALSE_SUB):
                return TRUE if sub == TRUE_SUB else FALSE
            t = formulas.atom(("t", sub))
            subs[t] = sub
            return t

        match p[0]:
            case "I":
                first, rest = p[1], p[2]
                if not first:
                    return formulas.all([passes(rest), atom])
                return formulas.all([passes(first[0]), self.lowering.items_atom(list(first[1:]), rest)])
            case "C":
                return self.less("C", (), p[1], p[2])
            case "K":
                hit = passes(p[1])
                if hit == FALSE:
                    return atom
                counted = self.less("K", (p[1],), p[2], p[3])
                return formulas.any([formulas.all([hit, counted]), formulas.all([-hit, atom])])
            case "U":
                if not p[1]:
                    return formulas.atom(("U?", p[1]))
                return formulas.all([-passes(self.one_of(p[1])), formulas.atom(("U?", p[1]))])
        raise AssertionError(p)

    def less(self, kind: str, head: tuple[Any, ...], low: int, high: int | None) -> Formula:
        """A counting atom after one more."""
        low = max(0, low - 1)
        if high is not None:
            high -= 1
            if high < 0:
                return FALSE
        return self.formulas.atom((kind, *head, low, high)) if low or high is not None else TRUE

    # -- unique items -----------------------------------------------------------------------------------------------

    def _repeats(
        self, items: list[tuple[tuple[Sub, ...], Sub]], low: int, high: int | None, seen: Any, *, pending: bool
    ) -> bool:
        """Can some item equal another one, or one of those seen?  `pending`: so far one more was, of unknown value."""
        n = max((len(first) for first, _ in items), default=0)
        room = n + 2 if high is None else min(high, n + 2)
        for j in range(room):
            if not self._reachable(items, j, low):
                break
            if pending and self._at(items, j) == TRUE_SUB:
                return True
            if seen and self._item(items, j, [(self.one_of(seen), True)]):
                return True
            if any(self.both([self._at(items, i), self._at(items, j)]) for i in range(j)):
                return True
        if pending and room and self._reachable(items, 0, low):
            raise UnsupportedFeatureError(
                "uniqueItems under a negation, with constraints on few items, cannot be enforced",
                feature="uniqueItems under not",
            )
        return False

    def _unique(self, items: list[tuple[tuple[Sub, ...], Sub]], low: int, seen: Any) -> bool:
        """Can all items differ from each other and from those seen?"""
        excluded = [(self.one_of(seen), False)] if seen else []
        n = max((len(first) for first, _ in items), default=0)
        if low <= 1:
            return low == 0 or self._item(items, 0, excluded)
        values = [self._values_at(items, i, seen, low) for i in range(min(low, n))]
        tail = None
        if low > n:
            tail = self._values_at(items, n, seen, low)
            if tail is not None and len(tail) < low - n:
                return False
            values += [tail] * (low - n)
        return _distinct_representatives(values)

    def bad_values(self, cube: Cube) -> frozenset[Any]:
        """The values that the item before must not have so that all items can differ.

        `cube` is what is left to fulfil behind that item: items, counts, and "U?".
        """
        key = frozenset(cube.items())
        known = self._bad_values.get(key)
        if known is None:
            payloads = [(self.formulas.payload(a), v) for a, v in cube.items()]
            seen = [p[1] for p, v in payloads if p[0] == "U?" and v]
            if not seen:
                known = frozenset()
            elif all(v and p[0] in ("I", "C", "U?") for p, v in payloads):
                known = self._bad_for_items([p for p, _ in payloads], frozenset().union(*seen))
            else:
                known = self._bad_for_more(cube, frozenset().union(*seen))
            self._bad_values[key] = known
        return known

    def _bad_for_items(self, payloads: list[Any], seen: frozenset[Any]) -> frozenset[Any]:
        """`bad_values` where nothing but items and counts is left to fulfil."""
        items = [(p[1], p[2]) for p in payloads if p[0] == "I"]
        low = max((p[1] for p in payloads if p[0] == "C"), default=0)
        if low == 0:
            return frozenset()
        n = max((len(first) for first, _ in items), default=0)
        candidates: set[Any] = set()
        for i in range(min(low, n + 1)):
            candidates.update(self._values_at(items, i, seen, low + 1) or ())
        return frozenset(v for v in candidates if not self._unique(items, low, seen | {v}))

    def _bad_for_more(self, cube: Cube, seen: frozenset[Any]) -> frozenset[Any]:
        """`bad_values` beside `contains` or negations: of values in plenty none is bad, few are tried one by one."""
        formulas = self.formulas
        rest = {a: v for a, v in cube.items() if formulas.payload(a)[0] not in ("U", "U?")}
        start = formulas.all([a if v else -a for a, v in rest.items()])
        if self.array_ends(start) or self._search(rest, _MANY_VALUES + 2 * len(seen)):
            return frozenset()
        most = self._wanted_items(rest) + len(seen) + 1  # where an item has so many values, one of them is free
        open_, candidates = [start], set[Any]()
        for f in open_:
            for child, following in self._steps(f):
                values = self.some_values(child, most)
                if len(values) < most:
                    candidates.update(values)
                if values and following not in open_:
                    open_.append(following)
            if len(open_) > _MAX_STEPS:
                raise LimitExceededError(
                    "which items of an array can differ takes too long to find out",
                    given=len(open_),
                    limit=_MAX_STEPS,
                )
        settled = {a: v for a, v in cube.items() if formulas.payload(a)[0] != "U?"}
        return frozenset(
            value
            for value in candidates
            if not self._search_distinct(settled | {formulas.atom(("U", seen | {value})): True})
        )

    def _wanted_items(self, cube: Cube) -> int:
        """No shortest array of a cube of items and counts has more items than this."""
        total = 0
        for atom, positive in cube.items():
            kind, *_, low, high = self.formulas.payload(atom)
            if kind in ("C", "K"):
                total += low if positive else (high or 0) + 1
            elif kind == "I":
                total += 0 if positive else len(self.formulas.payload(atom)[1]) + 1
        return total

    def _reachable(self, items: list[tuple[tuple[Sub, ...], Sub]], j: int, low: int) -> bool:
        return self._enough_items(items, max(j + 1, low))

    def _at(self, items: list[tuple[tuple[Sub, ...], Sub]], i: int) -> Sub:
        return self.lowering.both([first[i] if i < len(first) else rest for first, rest in items])

    def one_of(self, values: frozenset[Any]) -> Sub:
        """The sub of some canonical values."""
        lowering = self.lowering
        return lowering.either([lowering.value(plain(v)) for v in sorted(values, key=repr)])

    def _values_at(
        self, items: list[tuple[tuple[Sub, ...], Sub]], i: int, seen: frozenset[Any], n: int
    ) -> list[Any] | None:
        """Up to `n` values for item `i` that were not seen; None: at least `n`."""
        found = self.some_values(self.lowering.split(self._at(items, i)), n + len(seen))
        values = [value for value in found if value not in seen]
        return None if len(values) >= n else values

    def some_values(self, split: Split, n: int) -> list[Any]:
        """Up to `n` different values of a split, canonical; fewer only if there are no more.

        Arrays and objects of which there are many are not spelled out: ("many", i) stands for each.

        Raises UnsupportedFeatureError where arrays or objects are too many to be listed and may be too few.
        """
        bits, numbers, strings, arrays, objects = split
        found: list[Any] = [canonical(v) for bit, v in ((1, None), (2, False), (4, True)) if bits & bit]
        if len(found) < n and strings != FALSE:
            found += self.lexemes.some_strings(self.formulas, strings, n)
        if len(found) < n and numbers != FALSE:
            found += [canonical(v) for v in self.lexemes.some_numbers(self.formulas, numbers, n)]
        if len(found) >= n or arrays == objects == FALSE:
            return found[:n]
        question = (arrays, objects, n)
        if question in self._listing:
            raise _uncountable("arrays" if arrays != FALSE else "objects")
        self._listing.add(question)
        try:
            found += self._containers(arrays, objects, n - len(found))
        finally:
            self._listing.discard(question)
        return found[:n]

    def _containers(self, arrays: Formula, objects: Formula, n: int) -> list[Any]:
        found: list[Any] = []
        if len(found) < n and arrays != FALSE and self.arrays(arrays):
            found += [("many", i) for i in range(n)] if self._many_arrays(arrays, n) else self._list_arrays(arrays, n)
        if len(found) < n and objects != FALSE and self.objects(objects):
            found += (
                [("many", i) for i in range(n)] if self._many_objects(objects, n) else self._list_objects(objects, n)
            )
        return found[:n]

    def _list_arrays(self, f: Formula, n: int) -> list[Any]:
        """Up to `n` different arrays, all that there are if they are fewer.

        Few values for the items make many arrays, so they are asked for in growing numbers: items may be arrays again.
        """
        formulas = self.formulas
        unique = [p for p in formulas.conjuncts(f) if formulas.is_atom(p) and formulas.payload(p)[0] == "U"]
        seen = frozenset[Any]().union(*(formulas.payload(p)[1] for p in unique)) if unique else None
        f = formulas.all([p for p in formulas.conjuncts(f) if p not in unique])
        width = 1
        while True:
            found, is_complete = self._arrays_over(f, n, width, seen)
            if len(found) >= n or is_complete:
                return found
            if width >= n - 1:
                raise _uncountable("arrays")
            width = min(2 * width, n - 1)

    def _arrays_over(self, f: Formula, n: int, width: int, seen: frozenset[Any] | None) -> tuple[list[Any], bool]:
        """Up to `n` arrays of items for which at most `width` values are tried; are they all?

        `seen`: unless it is None, items must differ from each other and from these.
        """
        formulas = self.formulas
        found: dict[Any, None] = {}
        is_complete = True
        open_: list[tuple[Formula, tuple[Any, ...]]] = [(f, ())]
        for steps, (g, items) in enumerate(open_):
            if self.array_ends(g):
                found["a", items] = None
            if len(found) >= n:
                break
            if steps > _MAX_LISTED:
                return list(found), False
            for child, rest in self._steps(g):
                values = self.some_values(child, width)
                is_complete = is_complete and len(values) < width
                for value in values:
                    if value[:1] == ("many",):
                        is_complete = False
                        continue
                    if seen is not None and (value in seen or value in items):
                        continue

                    def differ(atom: int) -> Formula:
                        payload = formulas.payload(atom)
                        return formulas.atom(("U", payload[1] | {value})) if payload[0] == "U?" else atom  # noqa: B023

                    open_.append((formulas.substitute(rest, differ, {}), (*items, value)))
        return list(found), is_complete

    def _list_objects(self, f: Formula, n: int) -> list[Any]:
        """Up to `n` different objects, all that there are if they are fewer."""
        shape = self.shape(self.formulas.atoms(f))
        found: dict[Any, None] = {}
        for cube in self.formulas.cubes(self.localise(shape, f)):
            payloads = [(self.formulas.payload(a), v) for a, v in cube.items()]
            if any(not v or p[0] not in "PrNC" for p, v in payloads):
                raise _uncountable("objects")
            props = [p[1] for p, _ in payloads if p[0] == "P"]
            names = [p[1] for p, _ in payloads if p[0] == "N"]
            required = 0
            low, high = 0, None
            for p, _ in payloads:
                if p[0] == "r":
                    required |= p[1]
                elif p[0] == "C":
                    low, high = max(low, p[1]), _least(high, p[2])

            def values(key: Key) -> list[Any]:
                if not all(shape.name_ok(name, key) for name in names):  # noqa: B023
                    return []
                split = self.lowering.split(self.lowering.both([shape.child(p, key) for p in props]))  # noqa: B023
                return self.some_values(split, n) if self.split(split) else []

            if any(values(c) for c in shape.other_classes):
                raise _uncountable("objects")
            members: list[tuple[tuple[str, Any], ...]] = [()]
            for k, key in enumerate(shape.keys):
                mine = values(k)
                if any(value[:1] == ("many",) for value in mine):
                    raise _uncountable("objects")
                longer = [(*m, (key, value)) for m in members for value in mine]
                members = longer if required >> k & 1 else members + longer
                if len(members) > _MAX_LISTED:
                    raise _uncountable("objects")
            for m in members:
                if low <= len(m) and (high is None or len(m) <= high):
                    found["o", frozenset(m)] = None
        return list(found)

    def many_containers(self, arrays: Formula, objects: Formula, n: int) -> bool:
        """Are there surely `n` different arrays or objects?"""
        return (arrays != FALSE and self._many_arrays(arrays, n)) or (
            objects != FALSE and self._many_objects(objects, n)
        )

    def _many(self, sub: Sub, n: int) -> bool:
        return len(self.some_values(self.lowering.split(sub), n)) >= n

    def _many_arrays(self, f: Formula, n: int) -> bool:
        """A sufficient test for `n` different arrays."""
        for cube in self.formulas.cubes(f):
            if not self.rest_of_array(cube):
                continue
            payloads = [(self.formulas.payload(a), v) for a, v in cube.items()]
            if any(not v or p[0] not in "IC" for p, v in payloads):
                continue
            items = [(p[1], p[2]) for p, _ in payloads if p[0] == "I"]
            low = max((p[1] for p, _ in payloads if p[0] == "C"), default=0)
            high = min((p[2] for p, _ in payloads if p[0] == "C" and p[2] is not None), default=None)
            longest = max([low, *(len(first) for first, _ in items)])
            if high is None and self._enough_items(items, longest + 1):
                return True
            for i in range(low if high is None else high):
                if self._enough_items(items, max(low, i + 1)) and self._many(self._at(items, i), n):
                    return True
                if i > longest:
                    break
        return False

    def _many_objects(self, f: Formula, n: int) -> bool:
        """A sufficient test for `n` different objects."""
        shape = self.shape(self.formulas.atoms(f))
        for cube in self.formulas.cubes(self.localise(shape, f)):
            payloads = [(self.formulas.payload(a), v) for a, v in cube.items()]
            if any(not v or p[0] not in "PrNC" for p, v in payloads) or not self._object(shape, cube, 0, NOBODY):
                continue
            needed = 0
            for p, _ in payloads:
                needed |= p[1] if p[0] == "r" else 0
            high = min((p[2] for p, _ in payloads if p[0] == "C" and p[2] is not None), default=None)
            props = [p[1] for p, _ in payloads if p[0] == "P"]
            if high is None or needed.bit_count() < high:
                if any(
                    self.both([shape.child(p, c) for p in props]) and shape.others_left(c, NOBODY, n)
                    for c in shape.other_classes
                ):
                    return True
                candidates = list(range(len(shape.keys)))
            else:
                candidates = bits_of(needed)
            if any(self._many(self.lowering.both([shape.child(p, k) for p in props]), n) for k in candidates):
                return True
        return False

    def _unique_and_more(self, cube: Cube, others: list[tuple[Any, bool]]) -> bool:
        """`uniqueItems` beside `contains` or negations: exact where items come in plenty or are few, else refused."""
        unique = [(p, v) for p, v in others if p[0] in ("U", "U?")]
        rest = {a: v for a, v in cube.items() if self.formulas.payload(a)[0] not in ("U", "U?")}
        if not self._array(rest):
            return False
        if not all(v for _, v in unique):
            raise UnsupportedFeatureError(
                "uniqueItems under a negation together with other conditions cannot be enforced here",
                feature="uniqueItems under not",
            )
        seen = sum(len(p[1]) for p, _ in unique)
        if self._search(rest, _MANY_VALUES + 2 * seen):
            return True
        return self._search_distinct({self._settled(a): v for a, v in cube.items()})

    def _settled(self, atom: int) -> int:
        """A "U?" atom as the "U" atom of the values seen so far."""
        payload = self.formulas.payload(atom)
        return self.formulas.atom(("U", payload[1])) if payload[0] == "U?" else atom

    # -- objects ----------------------------------------------------------------------------------------------------

    def shape(self, atoms: tuple[int, ...]) -> ObjectShape:
        """The shape of an object whose formula consists of `atoms`."""
        known = self._shapes.get(atoms)
        if known is None:
            known = ObjectShape(self.lowering, self.lexemes, atoms, in_order=self.in_order)
            self._shapes[atoms] = known
        return known

    def localise(self, shape: ObjectShape, f: Formula) -> Formula:
        """`f` with ("R", keys) turned into ("r", bit set of the shape's keys)."""
        memo = (id(shape), f)
        known = self._local.get(memo)
        if known is None:
            formulas = self.formulas

            def replace(atom: int) -> Formula:
                p = formulas.payload(atom)
                if p[0] != "R":
                    return atom
                return formulas.atom(("r", sum(1 << shape.number[key] for key in p[1])))

            known = self._local[memo] = formulas.substitute(f, replace, {})
        return known

    def objects(self, f: Formula) -> bool:
        """Is there an object that fulfils `f`?"""
        if f in (TRUE, FALSE) or not self.usable.objects:
            return f == TRUE and self.usable.objects

        def answer() -> bool:
            shape = self.shape(self.formulas.atoms(f))
            return self.rest_of_object(shape, self.localise(shape, f), 0, NOBODY)

        return self._ask(("o", f), answer)

    def known_required(self, f: Formula) -> Formula:
        """`f` (over localised atoms) with what its own conjunction settles: a key that must come is one that comes."""
        formulas = self.formulas
        known = self._settled_formulas.get(f)
        if known is None:
            parts = formulas.conjuncts(f)
            required = 0
            mine = set()
            for part in parts:
                if formulas.is_atom(part) and formulas.payload(part)[0] == "r":
                    required |= formulas.payload(part)[1]
                    mine.add(part)
            known = f
            if required and len(mine) < len(parts):

                def replace(atom: int) -> Formula:
                    p = formulas.payload(atom)
                    return TRUE if p[0] == "r" and not p[1] & ~required else atom

                memo: dict[int, Formula] = {}
                known = formulas.all(p if p in mine else formulas.substitute(p, replace, memo) for p in parts)
            self._settled_formulas[f] = known
        return known

    def rest_of_object(self, shape: ObjectShape, f: Formula, blocked: int, seen: Seen) -> bool:
        """Can an object be completed of which `f` is left to fulfil, without the `blocked` and the `seen` keys?"""
        if f in (TRUE, FALSE):
            return f == TRUE
        return any(self.object_cube(shape, cube, blocked, seen) for cube in self.formulas.cubes(self.known_required(f)))

    def object_cube(self, shape: ObjectShape, cube: Cube, blocked: int, seen: Seen) -> bool:
        key = ("oc", id(shape), frozenset(cube.items()), blocked, seen)
        return self._ask(key, lambda: self._object(shape, cube, blocked, seen))

    def _object(self, shape: ObjectShape, cube: Cube, blocked: int, seen: Seen) -> bool:
        props: list[Props] = []
        names: list[Sub] = []
        violated: list[tuple[str, Any]] = []
        required, missing, low, high = 0, [], 0, None
        ranges: list[tuple[int, int | None]] = []
        for atom, positive in cube.items():
            p = self.formulas.payload(atom)
            match p[0], positive:
                case "P", True:
                    props.append(p[1])
                case "N", True:
                    names.append(p[1])
                case (("P" | "N"), False):
                    violated.append((p[0], p[1]))
                case "r", True:
                    required |= p[1]
                case "r", False:
                    missing.append(p[1])
                case "C", True:
                    low, high = max(low, p[1]), _least(high, p[2])
                case "C", False:
                    ranges.append((p[1], p[2]))
        if high is not None and low > high:
            return False
        for forbidden_low, forbidden_high in ranges:  # not within: below or above
            return self._object_with(cube, shape, blocked, seen, forbidden_low, forbidden_high)
        member = _Members(self, shape, props, names, blocked | required, seen)
        if any(not member.fits(k, ()) for k in bits_of(required)):
            return False
        return any(
            self._counts(member, required, extra, missing, low, high)
            for extra in self._witnesses(member, required, violated, missing, high)
        )

    def _object_with(
        self,
        cube: Cube,
        shape: ObjectShape,
        blocked: int,
        seen: Seen,
        low: int,
        high: int | None,
    ) -> bool:
        """The first negated count of the cube, as two alternatives."""
        formulas = self.formulas
        atom = formulas.atom(("C", low, high))
        rest = {a: v for a, v in cube.items() if a != atom}
        options = []
        if low > 0:
            options.append(formulas.atom(("C", 0, low - 1)))
        if high is not None:
            options.append(formulas.atom(("C", high + 1, None)))
        return any(
            self.object_cube(shape, {**rest, option: True}, blocked, seen)
            for option in options
            if rest.get(option) is not False
        )

    def _witnesses(
        self, member: _Members, required: int, violated: list[tuple[str, Any]], missing: list[int], high: int | None
    ) -> Iterator[tuple[tuple[Key, tuple[tuple[str, Any], ...]], ...]]:
        """Ways to violate all that must be violated: members (key, what it violates), required ones included.

        At most `high` members, and not all keys of any set in `missing`.
        """
        if not violated:
            yield ()
            return
        everyone: list[Key] = [*bits_of(required), *member.optional(), *member.classes()]
        asked = [member.asked_by(*what) for what in violated]
        first = self._first_witness(member, required, list(zip(violated, asked, strict=True)), everyone, missing, high)
        hard = 0
        if isinstance(first, int):
            hard = first
        else:
            yield first
        candidates: list[list[Key]] = [[] for _ in violated]
        for i in (hard, *range(hard), *range(hard + 1, len(violated))):
            mine = asked[i]
            candidates[i] = [
                key for key in everyone if (mine is None or key in mine) and member.fits(key, (violated[i],))
            ]
            if not candidates[i]:
                return
        order = sorted(range(len(violated)), key=lambda i: len(candidates[i]))
        steps = 0

        # It is handed itself: a closure that refers to itself waits for the garbage collector, with all it knows.
        def choose(again: Any, k: int, chosen: list[tuple[Key, list[tuple[str, Any]]]]) -> Iterator[Any]:
            nonlocal steps
            steps += 1
            if steps > _MAX_STEPS:
                raise LimitExceededError(
                    "whether an object can satisfy its schema takes too long to find out",
                    given=steps,
                    limit=_MAX_STEPS,
                )
            if k == len(order):
                yield tuple((key, tuple(what)) for key, what in chosen)
                return
            what, mine = violated[order[k]], candidates[order[k]]
            for entry in chosen:
                if entry[0] in mine:
                    entry[1].append(what)
                    if member.fits(entry[0], tuple(entry[1])):
                        yield from again(again, k + 1, chosen)
                    entry[1].pop()
            known = required
            others = 0
            for entry in chosen:
                if isinstance(entry[0], int):
                    known |= 1 << entry[0]
                else:
                    others += 1
            is_full = high is not None and known.bit_count() + others >= high
            taken = {entry[0] for entry in chosen if isinstance(entry[0], int)}
            for key in mine:
                if isinstance(key, int):
                    with_it = known | 1 << key
                    if (is_full and with_it != known) or any(not keys & ~with_it for keys in missing):
                        continue
                elif is_full:
                    continue
                if key not in taken:
                    chosen.append((key, [what]))
                    yield from again(again, k + 1, chosen)
                    chosen.pop()

        yield from choose(choose, 0, [])

    def _first_witness(
        self,
        member: _Members,
        required: int,
        violated: list[tuple[tuple[str, Any], set[Key] | None]],
        everyone: list[Key],
        missing: list[int],
        high: int | None,
    ) -> tuple[tuple[Key, tuple[tuple[str, Any], ...]], ...] | int:
        """What `_witnesses` comes to if the first key that will do always does; else for which there is none then."""
        chosen: dict[Key, tuple[tuple[str, Any], ...]] = {}
        known, others = required, 0
        for i, (what, asked) in enumerate(violated):
            for key in (*chosen, *everyone):
                if asked is not None and key not in asked:
                    continue
                before = chosen.get(key, ())
                with_it = known | 1 << key if isinstance(key, int) else known
                n = with_it.bit_count() + others + (not before and not isinstance(key, int))
                if (high is not None and n > high) or any(not keys & ~with_it for keys in missing):
                    continue
                if member.fits(key, (what,)) and (not before or member.fits(key, (*before, what))):
                    chosen[key] = (*before, what)
                    known, others = with_it, n - with_it.bit_count()
                    break
            else:
                return i
        return tuple(chosen.items())

    def _counts(
        self, member: _Members, required: int, extra: Any, missing: list[int], low: int, high: int | None
    ) -> bool:
        known = required
        others: dict[Key, int] = {}
        for key, _ in extra:
            if isinstance(key, int):
                known |= 1 << key
            else:
                others[key] = others.get(key, 0) + 1
        if any(not member.others_left(key, n) for key, n in others.items()):
            return False
        if any(keys & ~known == 0 for keys in missing):
            return False
        n = known.bit_count() + sum(others.values())
        if high is not None and n > high:
            return False
        if n >= low:
            return True
        for key in member.classes():
            if member.fits(key, ()) and member.others_left(key, others.get(key, 0) + low - n):
                return True
        spare = [k for k in member.optional() if not known >> k & 1 and member.fits(k, ())]
        finite = sum(
            member.others_up_to(key, others.get(key, 0), low) for key in member.classes() if member.fits(key, ())
        )
        best = 0
        left_out = [bits_of(keys & ~known) for keys in missing]
        for n_options, choice in enumerate(itertools.product(*left_out)):
            if n_options > _MAX_STEPS:
                raise LimitExceededError(
                    "whether an object can satisfy its schema takes too long to find out",
                    given=n_options,
                    limit=_MAX_STEPS,
                )
            best = max(best, sum(k not in choice for k in spare))
        return n + best + finite >= low


class _Members:
    """The members that an object may still get."""

    def __init__(
        self,
        sat: Satisfiability,
        shape: ObjectShape,
        props: list[Props],
        names: list[Sub],
        blocked: int,
        seen: Seen,
    ) -> None:
        self.sat, self.shape, self.props, self.names = sat, shape, props, names
        self.blocked, self.seen = blocked, seen
        self._known = shape.fitting.setdefault((tuple(map(id, props)), tuple(names)), {})

    def optional(self) -> list[int]:
        """Known keys that may come and need not."""
        return bits_of(~self.blocked & ((1 << len(self.shape.keys)) - 1))

    def classes(self) -> list[tuple[int, ...]]:
        return self.shape.other_classes

    def asked_by(self, kind: str, what: Any) -> set[Key] | None:
        """The keys of which an atom asks anything at all; None: perhaps of all."""
        if kind == "N" or what.patterns or what.additional != TRUE_SUB:
            return None
        number = self.shape.number
        return {number[key] for key, sub in what.listed.items() if sub != TRUE_SUB and key in number}

    def fits(self, key: Key, violating: tuple[tuple[str, Any], ...]) -> bool:
        """Is there a value for `key` that keeps all positive atoms and violates the given ones?"""
        if not isinstance(key, int) and self.shape.key_tests and not self.shape.others_left(key, self.seen, 1):
            return False
        question = (key, violating)
        known = self._known.get(question)
        if known is None:
            before, self.sat.assumed = self.sat.assumed, False
            known = self._fits(key, violating)
            if not self.sat.assumed:
                self._known[question] = known
            self.sat.assumed |= before
        return known

    def _fits(self, key: Key, violating: tuple[tuple[str, Any], ...]) -> bool:
        shape, sat = self.shape, self.sat
        if any(not shape.name_ok(sub, key) for sub in self.names):
            return False
        wanted = [shape.child(p, key) for p in self.props]
        against: list[tuple[Sub, bool]] = []
        for kind, what in violating:
            if kind == "N":
                if shape.name_ok(what, key):
                    return False
                continue
            sub = shape.child(what, key)
            if sub == TRUE_SUB:
                return False
            if sub != FALSE_SUB:
                against.append((sub, False))
        if not against and violating:
            return self.fits(key, ())
        return sat._item([], 0, [*((sub, True) for sub in wanted), *against])

    def others_left(self, key: Key, n: int) -> bool:
        assert isinstance(key, tuple)
        return self.shape.others_left(key, self.seen, n)

    def others_up_to(self, key: Key, used: int, most: int) -> int:
        n = used
        while n - used < most and self.others_left(key, n + 1):
            n += 1
        return n - used


def placed(error: UnsupportedFeatureError, place: str) -> UnsupportedFeatureError:
    """The error with its place, unless it has one."""
    if error.path or "(at #" in str(error):
        return error
    return UnsupportedFeatureError(f"{error} (at #{place})", feature=error.feature, path=place)


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _uncountable(what: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"uniqueItems with minItems over {what} that may be few cannot be enforced", feature="uniqueItems with minItems"
    )


def _distinct_representatives(values: list[list[Any] | None]) -> bool:
    """Can each position get a value of its own?  None: a position that always finds one (Kuhn's matching)."""
    lists = [v for v in values if v is not None]
    if len(lists) > _MAX_MATCHING:
        raise LimitExceededError("too many unique items to place", given=len(lists), limit=_MAX_MATCHING)
    taken: dict[Any, int] = {}

    def place(i: int, tried: set[Any]) -> bool:
        for value in lists[i]:
            if value not in tried:
                tried.add(value)
                if value not in taken or place(taken[value], tried):
                    taken[value] = i
                    return True
        return False

    return all(place(i, set()) for i in range(len(lists)))


def _plainly_satisfiable(node: SchemaNode) -> bool:
    """A quick sufficient test: one of its types has hardly any keyword here."""
    if (
        node.enum is not None
        or node.const is not None
        or node.ref is not None
        or node.dynamic_ref is not None
        or node.all_of
        or node.any_of
        or node.one_of
        or node.not_ is not None
        or node.if_ is not None
    ):
        return False
    types = node.types
    if types & STRING and node.pattern is None and node.format is None:
        return node.max_length is None or node.min_length <= node.max_length
    if types & (NUMBER | INTEGER) and node.minimum is None and node.maximum is None and node.multiple_of is None:
        return True
    if types & ARRAY and not node.min_items and (node.contains is None or not node.min_contains):
        return node.unevaluated_items is None
    return bool(
        types & OBJECT
        and not node.required
        and not node.min_properties
        and not node.dependent_schemas
        and node.unevaluated_properties is None
    )
