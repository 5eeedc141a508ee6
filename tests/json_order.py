"""The order of properties that ``property_order="schema"`` asks for.

The keys that one `properties` lists keep the order of that list; keys that no `properties` lists come last. All lists
count that can apply to the object: its own, those behind references, those of branches. Lists that contradict each
other bind nobody: what lies on a cycle of precedences is free.

Whether the list of a *branch* counts depends on whether the branch can still apply when the object begins. That is the
engine's to find out, and nothing is claimed about it here: `out_of_order` looks at lists that apply for certain, and
`in_schema_order` says when its answer hangs on a branch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.json_oracle import Oracle, matching, subschema, target, undecided_as

__all__ = ["in_schema_order", "ordered", "out_of_order"]


class _Applied(NamedTuple):
    """A schema that applies to a value: for certain, or perhaps (it is in a branch)."""

    validator: Any
    certain: bool


def in_schema_order(schema: Any, value: Any, registry: Any = None) -> Any:
    """`value` with the keys of its objects in schema order, others after those the schema lists."""
    return ordered(schema, value, registry)[0]


def ordered(schema: Any, value: Any, registry: Any = None) -> tuple[Any, bool]:
    """`value` in schema order, and whether that order is right for certain."""
    with undecided_as(True):
        return _ordered([_Applied(Oracle(schema, registry).validator, True)], value)


def out_of_order(schema: Any, value: Any, registry: Any = None) -> bool:
    """Is some object in an order that is certainly not that of the schema?"""
    with undecided_as(True):
        return _out_of_order([_Applied(Oracle(schema, registry).validator, True)], value)


def _applied(starts: list[_Applied]) -> list[_Applied]:
    """The schemas that apply to the same value, through references and combinators: the certain ones first."""
    every: list[_Applied] = []
    seen: set[int] = set()
    perhaps: list[Any] = [one.validator for one in starts if not one.certain]
    todo = [one.validator for one in starts if one.certain][::-1]
    certain = True
    while todo or perhaps:
        if not todo:
            todo, perhaps, certain = perhaps[::-1], [], False
        validator = todo.pop()
        schema = validator.schema
        if isinstance(schema, bool) or id(schema) in seen:
            continue
        seen.add(id(schema))
        if "$ref" in schema and "/draft-0" in validator.META_SCHEMA.get("$schema", ""):
            todo.append(target(validator, "$ref"))  # up to draft 7 it hides what stands beside it
            continue
        every.append(_Applied(validator, certain))
        references = [k for k in ("$ref", "$dynamicRef", "$recursiveRef") if k in schema and k in validator.VALIDATORS]
        surely = [target(validator, k) for k in references]
        surely += [subschema(validator, sub) for sub in schema.get("allOf", ())]
        branches = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        branches += [schema[k] for k in ("if", "then", "else", "not") if k in schema]
        for keyword in ("dependentSchemas", "dependencies"):
            branches += [sub for sub in schema.get(keyword, {}).values() if not isinstance(sub, list)]
        todo += surely[::-1]
        perhaps += [subschema(validator, sub) for sub in branches]
    return every


class _Order:
    """The precedences among the keys of one object."""

    def __init__(self, every: list[_Applied]) -> None:
        lists = [(list(one.validator.schema.get("properties", {})), one.certain) for one in every]
        self.certain = dict.fromkeys(key for keys, certain in lists if certain for key in keys)
        self.listed = self.certain | dict.fromkeys(key for keys, _ in lists for key in keys)
        before: dict[str, set[str]] = {key: set() for key in self.listed}
        surely: dict[str, set[str]] = {key: set() for key in self.listed}
        for keys, certain in lists:
            for k, key in enumerate(keys):
                before[key].update(keys[:k])
                surely[key].update(keys[:k] if certain else ())
        reach = {key: set(earlier) for key, earlier in before.items()}
        for middle, through in reach.items():
            for earlier in reach.values():
                if middle in earlier:
                    earlier |= through
        self.contradictory = any(key in earlier for key, earlier in reach.items())
        self.before = {key: {k for k in before[key] if key not in reach[k]} for key in before}
        self.surely = {key: {k for k in surely[key] if key not in reach[k]} for key in surely}


def _ordered(starts: list[_Applied], value: Any) -> tuple[Any, bool]:
    if not isinstance(value, dict | list):
        return value, True
    every = _applied(starts)
    if isinstance(value, list):
        items = [_ordered(_of_item(every, index), item) for index, item in enumerate(value)]
        return [item for item, _ in items], all(certain for _, certain in items)
    order = _Order(every)
    left = [key for key in order.listed if key in value]
    keys: list[str] = []
    while left:
        keys.append(next(key for key in left if order.before[key].isdisjoint(left)))
        left.remove(keys[-1])
    branches = [key for key in keys if key not in order.certain]
    certain = not order.contradictory and (not branches or keys[-1:] == branches)
    keys += [key for key in value if key not in order.listed]
    out = {}
    for key in keys:
        out[key], sure = _ordered(_of_property(every, key), value[key])
        certain = certain and sure
    return out, certain


def _out_of_order(starts: list[_Applied], value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    every = _applied(starts)
    if isinstance(value, list):
        return any(_out_of_order(_of_item(every, index), item) for index, item in enumerate(value))
    order = _Order(every)
    done: list[str] = []
    for key in value:
        if any(key in order.surely.get(earlier, ()) for earlier in done):
            return True
        if key in order.certain and not order.listed.keys() >= set(done):
            return True
        done.append(key)
    return any(_out_of_order(_of_property(every, key), item) for key, item in value.items())


def _of_property(every: list[_Applied], key: str) -> list[_Applied]:
    found = []
    for validator, certain in every:
        schema = validator.schema
        own = [schema["properties"][key]] if key in schema.get("properties", {}) else []
        own += matching(schema, key)
        if not own and "additionalProperties" in schema:
            own = [schema["additionalProperties"]]
        found += [_Applied(subschema(validator, sub), certain) for sub in own]
        if not own and "unevaluatedProperties" in schema:
            found.append(_Applied(subschema(validator, schema["unevaluatedProperties"]), False))
    return found


def _of_item(every: list[_Applied], index: int) -> list[_Applied]:
    found = []
    for validator, certain in every:
        schema = validator.schema
        items, prefix = schema.get("items"), schema.get("prefixItems", [])
        if isinstance(items, list):
            prefix, items = items, schema.get("additionalItems")
        if index < len(prefix):
            found.append(_Applied(subschema(validator, prefix[index]), certain))
        elif items is not None:
            found.append(_Applied(subschema(validator, items), certain))
        perhaps = [schema[k] for k in ("contains", "unevaluatedItems") if k in schema]
        found += [_Applied(subschema(validator, sub), False) for sub in perhaps]
    return found
