"""Does a value satisfy a schema node?  The text of the specification, a keyword at a time: the tests' oracle.

`format` is not looked at. A pattern is searched with `re`: enough for patterns that both dialects read alike.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from outlines_core.json_schema.nodes import ARRAY, BOOLEAN, INTEGER, NULL, NUMBER, OBJECT, STRING, Resource, SchemaNode


def is_valid(node: SchemaNode, value: Any) -> bool:
    """`value`: as `json.loads` returns it."""
    return _evaluate(node, _exact(value), ()) is not None


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        value = Fraction(repr(value))
        return int(value) if value.denominator == 1 else value
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    return value


def _type(value: Any) -> int:
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return INTEGER | NUMBER
    return {Fraction: NUMBER, str: STRING, list: ARRAY, dict: OBJECT}[type(value)]


def _same(a: Any, b: Any) -> bool:
    if _type(a) != _type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a == b


def _evaluate(node: SchemaNode, value: Any, scope: tuple[Resource, ...]) -> set[Any] | None:
    """The keys or indices that were evaluated; None: invalid."""
    if node.always is not None:
        return set() if node.always else None
    if node.resource is not None and (not scope or scope[-1] is not node.resource):
        scope = (*scope, node.resource)
    kind = _type(value)
    evaluated: set[Any] = set()

    def holds(sub: SchemaNode, item: Any = value) -> set[Any] | None:
        return _evaluate(sub, item, scope)

    if not node.types & kind:
        return None
    for allowed in (node.enum, node.const):
        if allowed is not None and not any(_same(value, other) for other in allowed):
            return None
    if kind & NUMBER and not _number(node, value):
        return None
    if kind == STRING and not (
        node.min_length <= len(value) <= (len(value) if node.max_length is None else node.max_length)
        and (node.pattern is None or re.search(node.pattern.source, value))
    ):
        return None
    required = list(node.all_of)
    if node.ref is not None:
        required.append(node.ref)
    if node.dynamic_ref is not None:
        name = node.dynamic_ref.name
        bound = [resource.dynamic[name] for resource in scope if name in resource.dynamic]
        required.append(bound[0] if bound else node.dynamic_ref.target)
    if kind == OBJECT:
        required += [sub for key, sub in node.dependent_schemas.items() if key in value]
    if node.if_ is not None:
        condition = holds(node.if_)
        evaluated |= condition or set()
        branch = node.else_ if condition is None else node.then
        required += [branch] if branch is not None else []
    for sub in required:
        found = holds(sub)
        if found is None:
            return None
        evaluated |= found
    if node.any_of:
        branches = [found for found in map(holds, node.any_of) if found is not None]
        if not branches:
            return None
        evaluated.update(*branches)
    if node.one_of:
        branches = [found for found in map(holds, node.one_of) if found is not None]
        if len(branches) != 1:
            return None
        evaluated |= branches[0]
    if node.not_ is not None and holds(node.not_) is not None:
        return None
    if kind == ARRAY:
        return _array(node, value, evaluated, holds)
    if kind == OBJECT:
        return _object(node, value, evaluated, holds)
    return evaluated


def _number(node: SchemaNode, value: Any) -> bool:
    if node.minimum is not None and (value < node.minimum[0] or (node.minimum[1] and value == node.minimum[0])):
        return False
    if node.maximum is not None and (value > node.maximum[0] or (node.maximum[1] and value == node.maximum[0])):
        return False
    return node.multiple_of is None or (value / node.multiple_of).denominator == 1


def _array(node: SchemaNode, value: list[Any], evaluated: set[Any], holds: Any) -> set[Any] | None:
    if not node.min_items <= len(value) <= (len(value) if node.max_items is None else node.max_items):
        return None
    if node.unique_items and any(_same(a, b) for i, a in enumerate(value) for b in value[:i]):
        return None
    for i, item in enumerate(value):
        sub = node.prefix_items[i] if i < len(node.prefix_items) else node.items
        if sub is not None:
            if holds(sub, item) is None:
                return None
            evaluated.add(i)
    if node.contains is not None:
        matching = {i for i, item in enumerate(value) if holds(node.contains, item) is not None}
        if not node.min_contains <= len(matching) <= (len(value) if node.max_contains is None else node.max_contains):
            return None
        if node.contains_evaluates:
            evaluated |= matching
    if node.unevaluated_items is not None:
        for i, item in enumerate(value):
            if i not in evaluated and holds(node.unevaluated_items, item) is None:
                return None
            evaluated.add(i)
    return evaluated


def _object(node: SchemaNode, value: dict[str, Any], evaluated: set[Any], holds: Any) -> set[Any] | None:
    if not node.min_properties <= len(value) <= (len(value) if node.max_properties is None else node.max_properties):
        return None
    needed = [*node.required, *(x for key, names in node.dependent_required.items() if key in value for x in names)]
    if any(name not in value for name in needed):
        return None
    for key, item in value.items():
        if node.property_names is not None and holds(node.property_names, key) is None:
            return None
        subs = [node.properties[key]] if key in node.properties else []
        subs += [sub for pattern, sub in node.pattern_properties if re.search(pattern.source, key)]
        if not subs and node.additional is not None:
            subs = [node.additional]
        if any(holds(sub, item) is None for sub in subs):
            return None
        if subs:
            evaluated.add(key)
    if node.unevaluated_properties is not None:
        for key, item in value.items():
            if key not in evaluated and holds(node.unevaluated_properties, item) is None:
                return None
            evaluated.add(key)
    return evaluated
