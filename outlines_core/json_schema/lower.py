"""Schema nodes -> splits.

Keywords that apply to the value itself (`allOf`, `$ref`, `if`, ...) are carried out here, as boolean operations; what
they say about children stays behind a *sub* until a child begins. So lowering a node costs what is written in it, and
recursion through children is no recursion here.

`unevaluatedProperties` and `unevaluatedItems` look at which subschemas hold. Which keys count as evaluated only grows
with the subschemas that hold, so "there is a set of subschemas that all hold, and with what they evaluate the keyword
is fulfilled" says the same and is a formula (`_evaluations`). Being an equivalence it may also stand under a `not`.

`$dynamicRef` depends on the path of references that led to a schema. A sub is therefore a node plus the dynamic anchors
bound so far; most schemas have none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeAlias

from outlines_core.errors import LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.formats import LAZY_FORMATS, format_parts
from outlines_core.json_schema.formula import FALSE, TRUE, Formula, Formulas
from outlines_core.json_schema.lexemes import Lexemes
from outlines_core.json_schema.nodes import (
    ALL_TYPES,
    ARRAY,
    BOOLEAN,
    INTEGER,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    Json,
    Pattern,
    SchemaNode,
)
from outlines_core.json_schema.splits import FALSE_SPLIT, NOTHING, TRUE_SPLIT, Props, Split, Splits, canonical

__all__ = ["FALSE_SUB", "TRUE_SUB", "Lowering", "Scope", "Sub"]

Sub: TypeAlias = int
Scope: TypeAlias = tuple[tuple[str, SchemaNode], ...]
"""Dynamic anchors bound so far, outermost resource first."""

FALSE_SUB: Final = 0
TRUE_SUB: Final = 1
_MAX_EVALUATIONS: Final = 512


class _Evaluated(NamedTuple):
    """If `condition` holds, these keys (or items) are evaluated."""

    condition: Formula
    everything: bool
    keys: frozenset[str]
    patterns: tuple[Pattern, ...]
    n_items: int
    matching: tuple[Sub, ...]


_NONE = _Evaluated(TRUE, False, frozenset(), (), 0, ())


class Lowering:
    """Turns nodes into splits, and keeps the table of subs."""

    def __init__(self, lexemes: Lexemes) -> None:
        self.lexemes = lexemes
        self.formulas = Formulas()
        self.splits = Splits(self.formulas)
        self.subs: list[Any] = [False, True]
        self._sub_ids: dict[Any, Sub] = {}
        self._split_of: list[Split | None] = [FALSE_SPLIT, TRUE_SPLIT]
        self._nodes: dict[tuple[int, Scope], Split | None] = {}
        self._keep: list[SchemaNode] = []

    # -- subs -------------------------------------------------------------------------------------------------------

    def _sub(self, key: Any, what: Any) -> Sub:
        found = self._sub_ids.get(key)
        if found is None:
            found = self._sub_ids[key] = len(self.subs)
            self.subs.append(what)
            self._split_of.append(None)
        return found

    def sub(self, node: SchemaNode | None, scope: Scope) -> Sub:
        """The sub of a node; no node: anything goes."""
        if node is None or node.always is True:
            return TRUE_SUB
        if node.always is False:
            return FALSE_SUB
        return self._sub((id(node), scope), (node, scope))

    def sub_of_split(self, split: Split) -> Sub:
        if split == TRUE_SPLIT:
            return TRUE_SUB
        if split == FALSE_SPLIT:
            return FALSE_SUB
        sub = self._sub(split, None)
        self._split_of[sub] = split
        return sub

    def both(self, subs: Iterable[Sub]) -> Sub:
        """The sub of values that satisfy all of `subs`."""
        distinct = sorted(set(subs) - {TRUE_SUB})
        if FALSE_SUB in distinct:
            return FALSE_SUB
        if len(distinct) < 2:
            return distinct[0] if distinct else TRUE_SUB
        return self._sub(tuple(distinct), tuple(distinct))

    def either(self, subs: Iterable[Sub]) -> Sub:
        return self.sub_of_split(self.splits.any([self.split(s) for s in subs]))

    def split(self, sub: Sub) -> Split:
        """What a sub says (lowered on first use)."""
        known = self._split_of[sub]
        if known is None:
            what = self.subs[sub]
            if isinstance(what[0], int):
                known = self.splits.all([self.split(s) for s in what])
            else:
                known = self.node(*what)
            self._split_of[sub] = known
        return known

    def place(self, sub: Sub) -> str:
        """The JSON pointer of a sub, "" where it is made up."""
        node = self._origin(sub)
        return node.pointer if node is not None else ""

    def below(self, subs: Iterable[Sub], sub: Sub) -> Sub:
        """The first of `subs` that has a place; else `sub`."""
        return next((one for one in subs if self._origin(one) is not None), sub)

    def _origin(self, sub: Sub) -> SchemaNode | None:
        """The node of a sub, None where it is made up, and of the whole schema."""
        what = self.subs[sub]
        if not isinstance(what, tuple):
            return None
        if isinstance(what[0], SchemaNode):
            return what[0] if what[0].place != "" else None
        return next(filter(None, map(self._origin, what)), None)

    # -- nodes ------------------------------------------------------------------------------------------------------

    def node(self, node: SchemaNode, scope: Scope) -> Split:
        """The split of a node under a dynamic scope."""
        if node.always is not None:
            return TRUE_SPLIT if node.always else FALSE_SPLIT
        scope = _entered(node, scope)
        key = (id(node), scope)
        if key in self._nodes:
            known = self._nodes[key]
            if known is None:
                raise UnsupportedFeatureError(
                    f"the schema at {node.pointer or '#'} refers to itself without a value in between",
                    feature="$ref to itself",
                    path=node.pointer,
                )
            return known
        self._nodes[key] = None
        self._keep.append(node)
        try:
            split = self._lower(node, scope)
        except BaseException:
            del self._nodes[key]
            raise
        self._nodes[key] = split
        return split

    def _lower(self, node: SchemaNode, scope: Scope) -> Split:
        types = node.types
        bits = (1 if types & NULL else 0) | (6 if types & BOOLEAN else 0)
        split: Split = (
            bits,
            self._numbers(node, types) if types & (NUMBER | INTEGER) else FALSE,
            self._strings(node) if types & STRING else FALSE,
            self._arrays(node, scope) if types & ARRAY else FALSE,
            self._objects(node, scope) if types & OBJECT else FALSE,
        )
        parts = [] if types == ALL_TYPES and split == TRUE_SPLIT else [split]
        parts.extend(self._values(v) for v in (node.enum, node.const) if v is not None)
        parts.extend(self._in_place(node, scope))
        split = self.splits.all(parts) if parts else TRUE_SPLIT
        if node.unevaluated_properties is not None and split[4] != FALSE:
            split = (*split[:4], self.formulas.all([split[4], self._unevaluated_properties(node, scope)]))
        if node.unevaluated_items is not None and split[3] != FALSE:
            split = (*split[:3], self.formulas.all([split[3], self._unevaluated_items(node, scope)]), split[4])
        return split

    def _in_place(self, node: SchemaNode, scope: Scope) -> list[Split]:
        """The splits of all subschemas that speak about the same value."""
        parts = [self.node(s, scope) for s in node.all_of]
        if node.ref is not None:
            parts.append(self.node(node.ref, scope))
        if node.dynamic_ref is not None:
            parts.append(self.node(_dynamic_target(node, scope), scope))
        if node.any_of:
            parts.append(self.splits.any([self.node(s, scope) for s in node.any_of]))
        if node.one_of:
            parts.append(self._exactly_one([self.node(s, scope) for s in node.one_of]))
        if node.not_ is not None:
            parts.append(self.splits.complement(self.node(node.not_, scope)))
        if node.if_ is not None and (node.then is not None or node.else_ is not None):
            condition = self.node(node.if_, scope)
            otherwise = self.splits.complement(condition)
            if node.then is not None:
                parts.append(self.splits.any([otherwise, self.node(node.then, scope)]))
            if node.else_ is not None:
                parts.append(self.splits.any([condition, self.node(node.else_, scope)]))
        for key, schema in node.dependent_schemas.items():
            f = self.formulas.any([-self._required([key]), self.node(schema, scope)[4]])
            parts.append((7, TRUE, TRUE, TRUE, f))
        return parts

    def _exactly_one(self, options: list[Split]) -> Split:
        """One of `options`: where a listed value of a required key tells objects apart, this is the same as any."""
        split = self.splits.one(options)
        objects = [s[4] for s in options if s[4] != FALSE]
        if len(objects) < 2:
            return split
        one = self.formulas.one
        return (*split[:4], self.formulas.any([one(group) for group in self._told_apart(objects)]))

    def _told_apart(self, objects: list[Formula]) -> list[list[Formula]]:
        """Groups of formulas such that no object satisfies two of different groups."""
        together = {(i, j) for j in range(len(objects)) for i in range(j)}
        by_key: dict[str, list[tuple[int, frozenset[Any]]]] = {}
        for i, f in enumerate(objects):
            for key, values in self._tags(f):
                by_key.setdefault(key, []).append((i, values))
        for tagged in by_key.values():
            holders: dict[Any, list[int]] = {}
            for i, values in tagged:
                for value in values:
                    holders.setdefault(value, []).append(i)
            meet = {(i, j) for group in holders.values() for i in group for j in group if i < j}
            numbers = [i for i, _ in tagged]
            together -= {(i, j) for i in numbers for j in numbers if i < j} - meet
        group_of = list(range(len(objects)))
        for i, j in together:
            a, b = group_of[i], group_of[j]
            if a != b:
                group_of = [a if g == b else g for g in group_of]
        groups: dict[int, list[Formula]] = {}
        for f, g in zip(objects, group_of, strict=True):
            groups.setdefault(g, []).append(f)
        return list(groups.values())

    def _tags(self, f: Formula) -> Iterator[tuple[str, frozenset[Any]]]:
        """Required keys of which every object that satisfies `f` has a listed value, and these values."""
        payloads = [self.formulas.payload(a) for a in self.formulas.conjuncts(f) if self.formulas.is_atom(a)]
        required = {key for p in payloads if p[0] == "R" for key in p[1]}
        for p in payloads:
            if p[0] != "P":
                continue
            for key in p[1].listed.keys() & required:
                values = self._listed_values(p[1].listed[key])
                if values is not None:
                    yield key, values

    def _listed_values(self, sub: Sub) -> frozenset[Any] | None:
        """The values of a sub that lists them, or a superset; None if it does not."""
        what = self.subs[sub]
        if not isinstance(what, tuple) or not isinstance(what[0], SchemaNode):
            return None
        node: SchemaNode | None = what[0]
        while node is not None:
            if node.const is not None or node.enum is not None:
                return frozenset(map(canonical, node.const if node.const is not None else node.enum or ()))
            node = node.ref
        return None

    def _required(self, keys: Iterable[str]) -> Formula:
        keys = frozenset(keys)
        return self.formulas.atom(("R", keys)) if keys else TRUE

    def _numbers(self, node: SchemaNode, types: int) -> Formula:
        atom, parts = self.formulas.atom, []
        if not types & NUMBER:
            parts.append(atom(("int",)))
        if node.minimum is not None or node.maximum is not None:
            low, low_open = node.minimum or (None, False)
            high, high_open = node.maximum or (None, False)
            if low is not None and high is not None and (low > high or (low == high and (low_open or high_open))):
                return FALSE
            parts.append(atom(("range", low, low_open, high, high_open)))
        if node.multiple_of is not None:
            parts.append(atom(("int",) if node.multiple_of == 1 else ("mul", node.multiple_of)))
        return self.formulas.all(parts)

    def _strings(self, node: SchemaNode) -> Formula:
        atom, parts = self.formulas.atom, []
        if node.min_length or node.max_length is not None:
            if node.max_length is not None and node.min_length > node.max_length:
                return FALSE
            parts.append(atom(("len", node.min_length, node.max_length)))
        if node.pattern is not None:
            self.lexemes.add_patterns((node.pattern,))
            parts.append(atom(("re", node.pattern.source)))
        if node.format is not None:
            if node.format in LAZY_FORMATS:
                parts.append(atom(("lazy", node.format)))
            else:
                parts.extend(atom(("fmt", node.format, i)) for i in range(len(format_parts(node.format) or ())))
        return self.formulas.all(parts)

    def _count(self, low: int, high: int | None) -> Formula:
        if high is not None and low > high:
            return FALSE
        return self.formulas.atom(("C", low, high)) if low or high is not None else TRUE

    def _arrays(self, node: SchemaNode, scope: Scope) -> Formula:
        atom, parts = self.formulas.atom, [self._count(node.min_items, node.max_items)]
        if node.prefix_items or node.items is not None:
            parts.append(self.items_atom([self.sub(s, scope) for s in node.prefix_items], self.sub(node.items, scope)))
        if node.contains is not None:
            low, high = node.min_contains, node.max_contains
            if high is not None and low > high:
                return FALSE
            if low or high is not None:
                parts.append(atom(("K", self.sub(node.contains, scope), low, high)))
        if node.unique_items:
            parts.append(atom(("U", NOTHING)))
        return self.formulas.all(parts)

    def items_atom(self, first: list[Sub], rest: Sub) -> Formula:
        while first and first[-1] == rest:
            first.pop()
        return self.formulas.atom(("I", tuple(first), rest)) if first or rest != TRUE_SUB else TRUE

    def _objects(self, node: SchemaNode, scope: Scope) -> Formula:
        atom, parts = self.formulas.atom, [self._count(node.min_properties, node.max_properties)]
        if node.properties or node.pattern_properties or node.additional is not None:
            props = Props(
                {key: self.sub(s, scope) for key, s in node.properties.items()},
                tuple((pattern, self.sub(s, scope)) for pattern, s in node.pattern_properties),
                self.sub(node.additional, scope),
                True,
            )
            parts.append(atom(("P", props)))
        if node.property_names is not None:
            parts.append(atom(("N", self.sub(node.property_names, scope))))
        if node.required:
            parts.append(self._required(node.required))
        for key, others in node.dependent_required.items():
            parts.append(self.formulas.any([-self._required([key]), self._required(others)]))
        return self.formulas.all(parts)

    # -- values -----------------------------------------------------------------------------------------------------

    def _values(self, values: tuple[Json, ...]) -> Split:
        """Exactly these values."""
        bits = 0
        numbers: set[Fraction] = set()
        strings: set[str] = set()
        arrays: list[Formula] = []
        objects: list[Formula] = []
        for value in values:
            match value:
                case None:
                    bits |= 1
                case bool():
                    bits |= 4 if value else 2
                case int() | Fraction():
                    numbers.add(Fraction(value))
                case str():
                    strings.add(value)
                case list():
                    subs = [self.value(v) for v in value]
                    length = self.formulas.atom(("C", len(value), len(value)))
                    arrays.append(self.formulas.all([length, self.items_atom(subs, FALSE_SUB)]))
                case dict():
                    props = Props({key: self.value(v) for key, v in value.items()}, (), FALSE_SUB, False)
                    parts = [self.formulas.atom(("P", props)), self._required(value)]
                    objects.append(self.formulas.all(parts))
        atom = self.formulas.atom
        return (
            bits,
            atom(("num", frozenset(numbers))) if numbers else FALSE,
            atom(("str", frozenset(strings))) if strings else FALSE,
            self.formulas.any(arrays),
            self.formulas.any(objects),
        )

    def value(self, value: Json) -> Sub:
        """The sub of one value."""
        return self.sub_of_split(self._values((value,)))

    # -- unevaluated ------------------------------------------------------------------------------------------------

    def _evaluations(self, node: SchemaNode, scope: Scope, *, items: bool) -> list[_Evaluated]:
        """What may be evaluated by the keywords of `node`, given that it holds; more than one: alternatives."""
        if node.always is not None:
            return [_NONE]
        scope = _entered(node, scope)
        factors: list[list[_Evaluated]] = [[self._own(node, scope, items=items)]]
        certain = [*node.all_of]
        if node.ref is not None:
            certain.append(node.ref)
        if node.dynamic_ref is not None:
            certain.append(_dynamic_target(node, scope))
        which = 3 if items else 4

        def conditional(other: SchemaNode) -> list[_Evaluated]:
            condition = self.node(other, scope)[which]
            return [
                e._replace(condition=self.formulas.all([condition, e.condition]))
                for e in self._evaluations(other, scope, items=items)
                if e._replace(condition=TRUE) != _NONE
            ]

        factors.extend(self._evaluations(other, scope, items=items) for other in certain)
        factors.extend([_NONE, *conditional(other)] for other in (*node.any_of, *node.one_of))
        if node.if_ is not None:
            factors.append([_NONE, *conditional(node.if_)])
            condition = self.node(node.if_, scope)[which]
            for branch, premise in ((node.then, condition), (node.else_, -condition)):
                if branch is not None:
                    factors.append(
                        [_NONE]
                        + [e._replace(condition=self.formulas.all([premise, e.condition])) for e in conditional(branch)]
                    )
        if not items:
            for key, other in node.dependent_schemas.items():
                there = self._required([key])
                factors.append(
                    [_NONE]
                    + [e._replace(condition=self.formulas.all([there, e.condition])) for e in conditional(other)]
                )
        results = [_NONE]
        for factor in factors:
            merged: dict[_Evaluated, None] = {}
            for a, b in itertools.product(results, factor):
                e = _merged(a, b, self.formulas.all([a.condition, b.condition]))
                if e.condition != FALSE:
                    merged[e] = None
            results = list(merged)
            if len(results) > _MAX_EVALUATIONS:
                raise LimitExceededError(
                    f"too many combinations of subschemas decide what is unevaluated at {node.pointer or '#'}",
                    given=len(results),
                    limit=_MAX_EVALUATIONS,
                )
        return results

    def _own(self, node: SchemaNode, scope: Scope, *, items: bool) -> _Evaluated:
        if items:
            everything = node.items is not None or node.unevaluated_items is not None
            matching: tuple[Sub, ...] = ()
            if node.contains is not None and node.contains_evaluates:
                matching = (self.sub(node.contains, scope),)
            return _Evaluated(TRUE, everything, frozenset(), (), len(node.prefix_items), matching)
        everything = node.additional is not None or node.unevaluated_properties is not None
        patterns = tuple(pattern for pattern, _ in node.pattern_properties)
        return _Evaluated(TRUE, everything, frozenset(node.properties), patterns, 0, ())

    def _without_unevaluated(self, node: SchemaNode, scope: Scope, *, items: bool) -> list[_Evaluated]:
        kept = node.unevaluated_items, node.unevaluated_properties
        node.unevaluated_items = node.unevaluated_properties = None  # they see what all others evaluate
        try:
            return self._evaluations(node, scope, items=items)
        finally:
            node.unevaluated_items, node.unevaluated_properties = kept

    def _unevaluated_properties(self, node: SchemaNode, scope: Scope) -> Formula:
        rest = self.sub(node.unevaluated_properties, scope)
        options = []
        for e in self._without_unevaluated(node, scope, items=False):
            if e.everything:
                options.append(e.condition)
                continue
            props = Props(
                dict.fromkeys(sorted(e.keys), TRUE_SUB), tuple((p, TRUE_SUB) for p in e.patterns), rest, False
            )
            options.append(self.formulas.all([e.condition, self.formulas.atom(("P", props))]))
        return self.formulas.any(options)

    def _unevaluated_items(self, node: SchemaNode, scope: Scope) -> Formula:
        rest = self.sub(node.unevaluated_items, scope)
        options = []
        for e in self._without_unevaluated(node, scope, items=True):
            if e.everything:
                options.append(e.condition)
                continue
            sub = self.either([rest, *e.matching]) if e.matching else rest
            options.append(self.formulas.all([e.condition, self.items_atom([TRUE_SUB] * e.n_items, sub)]))
        return self.formulas.any(options)


def _merged(a: _Evaluated, b: _Evaluated, condition: Formula) -> _Evaluated:
    return _Evaluated(
        condition,
        a.everything or b.everything,
        a.keys | b.keys,
        tuple(dict.fromkeys(a.patterns + b.patterns)),
        max(a.n_items, b.n_items),
        tuple(dict.fromkeys(a.matching + b.matching)),
    )


def _entered(node: SchemaNode, scope: Scope) -> Scope:
    """The dynamic scope inside `node`."""
    if node.resource is None or not node.resource.dynamic:
        return scope
    bound = {name for name, _ in scope}
    return scope + tuple((name, n) for name, n in node.resource.dynamic.items() if name not in bound)


def _dynamic_target(node: SchemaNode, scope: Scope) -> SchemaNode:
    assert node.dynamic_ref is not None
    for name, target in scope:
        if name == node.dynamic_ref.name:
            return target
    return node.dynamic_ref.target
