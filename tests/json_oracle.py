"""The referee of the JSON Schema tests: `jsonschema`, with its departures from the specification corrected.

Values are exact: integral numbers are ints, all others `Fraction`s, so that 1.0 is 1 and no arithmetic rounds. What is
corrected, each because the library is known to answer otherwise than the specification asks:

* `pattern`, `patternProperties` and what depends on them: ECMA-262, by tests/pattern_oracle.py;
* `format`: the grammars of tests/format_oracle.py;
* `const`, `enum`, `uniqueItems`: True is not 1, at any depth;
* `unevaluatedItems`, `unevaluatedProperties`: dynamic references, embedded resources, `items` lists;
* subschemas with a `$schema` or an `$id` behind `not`, `if`, `contains`, `oneOf`;
* a schema without `$schema` may use the spellings of all drafts, `dependencies` is understood in all.

`Oracle.verdict` is None where nobody here knows (a format's grey zone, a pattern without a referee).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import attrs
import jsonschema
import referencing
import referencing.jsonschema
from jsonschema import validators
from jsonschema.exceptions import ValidationError

from tests.format_oracle import judge
from tests.pattern_oracle import found

__all__ = [
    "DuplicateKeyError",
    "Oracle",
    "OutsideBoxError",
    "exact",
    "frozen",
    "loads",
    "matching",
    "subschema",
    "target",
    "undecided_as",
    "valid",
]


# -- values ------------------------------------------------------------------------------------------------------------


class DuplicateKeyError(ValueError):
    """An object lists a key twice."""


class OutsideBoxError(ValueError):
    """A number has more digits, or an exponent farther from 0, than the engine writes."""


def _boxed(text: str) -> int | Fraction:
    mantissa, _, exponent = text.lower().partition("e")
    size = exponent.lstrip("+-0")  # zeros before it are no matter
    if sum(c.isdigit() for c in mantissa) > 64 or len(size) > 3 or int(size or 0) > 308:
        raise OutsideBoxError(f"{text[:40]} is outside the number box")
    return _number(text)


def _number(text: str) -> int | Fraction:
    mantissa, _, exponent = text.lower().partition("e")
    size = int(exponent.lstrip("+-0") or 0)  # Python refuses to read thousands of digits
    value = Fraction(mantissa) * Fraction(10) ** (-size if exponent.startswith("-") else size)
    return value.numerator if value.denominator == 1 else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise DuplicateKeyError("duplicate key")
    return value


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def loads(text: str | bytes) -> Any:
    """The exact value of a JSON text.

    Raises:
        ValueError: malformed, not UTF-8, NaN; `DuplicateKeyError`, `OutsideBoxError`: JSON that is never generated.
    """
    if isinstance(text, bytes):
        text = text.decode()  # json.loads would guess UTF-16 too
    return json.loads(text, parse_float=_boxed, parse_int=_boxed, parse_constant=_constant, object_pairs_hook=_object)


def exact(value: Any) -> Any:
    """`value` with every float as the number that its shortest spelling names."""
    match value:
        case float():
            return _number(repr(value))
        case dict():
            return {key: exact(item) for key, item in value.items()}
        case list():
            return [exact(item) for item in value]
        case _:
            return value


def frozen(value: Any) -> Any:
    """A hashable that is equal for equal JSON values only."""
    match value:
        case bool() | None:
            return ("constant", value)
        case dict():
            return ("object", frozenset((key, frozen(item)) for key, item in value.items()))
        case list():
            return ("array", tuple(map(frozen, value)))
        case _:
            return value


# -- the library, corrected --------------------------------------------------------------------------------------------

_LEGACY = "urn:tests:all-drafts"
_unsure: list[bool] = []  # what undecidable questions count as, while a verdict is sought; see Oracle.verdict
_asked: list[object] = []


@contextlib.contextmanager
def undecided_as(answer: bool) -> Iterator[None]:
    """Take `answer` for every question that has no referee."""
    _unsure.append(answer)
    try:
        yield
    finally:
        _unsure.pop()


def _decided(answer: bool | None, question: object) -> bool:
    if answer is None:
        _asked.append(question)
        return _unsure[-1]
    return answer


def subschema(validator: Any, schema: Any) -> Any:
    """The validator of a subschema, in the scope of an `$id` that it may have."""
    if isinstance(schema, bool):
        return validator.evolve(schema=schema)
    resource = validator.specification.create_resource(schema)
    return validator.evolve(schema=schema, _resolver=validator._resolver.in_subresource(resource))


def target(validator: Any, keyword: str) -> Any:
    """The validator of what a reference points to."""
    if keyword == "$recursiveRef":
        resolved = referencing.jsonschema.lookup_recursive_ref(validator._resolver)
    else:
        resolved = validator._resolver.lookup(validator.schema[keyword])
    return validator.evolve(schema=resolved.contents, _resolver=resolved.resolver)


def matching(schema: Any, key: str) -> list[Any]:
    """The subschemas of `patternProperties` that apply to a key."""
    return [sub for p, sub in schema.get("patternProperties", {}).items() if _decided(found(p, key), (p, key))]


def _pattern(validator: Any, pattern: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _decided(found(pattern, value), (pattern, value)):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _format(validator: Any, name: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _decided(judge(name, value), (name, value)):
        yield ValidationError(f"{value!r} is no {name}")


def _pattern_properties(validator: Any, _: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for key, item in value.items():
            for sub in matching(schema, key):
                yield from validator.descend(item, sub, path=key)


def _additional_properties(validator: Any, sub: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in schema.get("properties", {}) and not matching(schema, key):
                yield from validator.descend(item, sub, path=key)


def _enum(validator: Any, values: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if frozen(value) not in map(frozen, values):
        yield ValidationError(f"{value!r} is not one of {values!r}")


def _const(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    yield from _enum(validator, [wanted], value, schema)


def _unique(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(value, list) and len(set(map(frozen, value))) < len(value):
        yield ValidationError(f"{value!r} has equal items")


def _not(validator: Any, sub: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if subschema(validator, sub).is_valid(value):
        yield ValidationError(f"{value!r} should not be valid under {sub!r}")


def _if(validator: Any, sub: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    branch = "then" if subschema(validator, sub).is_valid(value) else "else"
    if branch in schema:
        yield from validator.descend(value, schema[branch], schema_path=branch)


def _one_of(validator: Any, subs: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    n = sum(subschema(validator, sub).is_valid(value) for sub in subs)
    if n != 1:
        yield ValidationError(f"{value!r} is valid under {n} of {subs!r}")


def _contains(validator: Any, sub: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, list):
        counted = "minContains" if validator.counts_contains else ""
        n, inner = 0, subschema(validator, sub)
        for item in value:
            n += inner.is_valid(item)
        least = schema.get(counted, 1)
        if n < least or n > (schema.get("maxContains", n) if counted else n):
            yield ValidationError(f"{value!r}: {n} items are {sub!r}")


def _items(validator: Any, items: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, list):
        if isinstance(items, list):
            for index, (item, sub) in enumerate(zip(value, items, strict=False)):
                yield from validator.descend(item, sub, path=index)
        else:
            for index, item in enumerate(value[len(schema.get("prefixItems", ())) :]):
                yield from validator.descend(item, items, path=index)


def _additional_items(validator: Any, sub: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, list) and isinstance(schema.get("items"), list):
        for index, item in enumerate(value[len(schema["items"]) :]):
            yield from validator.descend(item, sub, path=index)


def _bound(below: bool, keyword: str) -> Any:
    def check(validator: Any, bound: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        """The bound, or a boolean that draft 4 puts beside `minimum` and `maximum`."""
        if isinstance(bound, bool) or isinstance(value, bool) or not isinstance(value, int | Fraction):
            return
        exclusive = keyword.startswith("exclusive") or schema.get(f"exclusiveM{keyword[1:]}") is True
        if (value < bound if below else value > bound) or (exclusive and value == bound):
            yield ValidationError(f"{value} breaks {keyword} {bound}")

    return check


def _unevaluated_items(validator: Any, sub: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, list):
        done = _evaluated(validator, value, own=False)
        for index, item in enumerate(value):
            if index not in done:
                yield from validator.descend(item, sub, path=index)


def _unevaluated_properties(validator: Any, sub: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        done = _evaluated(validator, value, own=False)
        for key, item in value.items():
            if key not in done:
                yield from validator.descend(item, sub, path=key)


def _evaluated(validator: Any, value: Any, *, own: bool = True) -> set[Any]:
    """The keys or indices of a value that a schema (which it satisfies) evaluates.

    Args:
        own: do the schema's own `unevaluated...` keywords count?
    """
    schema = validator.schema
    if isinstance(schema, bool):
        return set()
    done: set[Any] = set()
    for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
        if keyword in schema and keyword in validator.VALIDATORS:
            done |= _evaluated(target(validator, keyword), value)
    parts = [*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if "if" in schema:
        holds = subschema(validator, schema["if"]).is_valid(value)
        parts += [schema["if"]] if holds else []
        parts += [schema[k] for k in ("then" if holds else "else",) if k in schema]
    if isinstance(value, dict):
        for keyword in ("dependentSchemas", "dependencies"):
            dependent = schema.get(keyword, {})
            parts += [sub for key, sub in dependent.items() if key in value and not isinstance(sub, list)]
    for part in parts:
        inner = subschema(validator, part)
        if inner.is_valid(value):
            done |= _evaluated(inner, value)
    if isinstance(value, dict):
        done |= schema.get("properties", {}).keys() & value.keys()
        done |= {key for key in value if matching(schema, key)}
        if "additionalProperties" in schema or (own and "unevaluatedProperties" in schema):
            done |= set(value)
    if isinstance(value, list):
        items = schema.get("items")
        listed = len(items) if isinstance(items, list) else len(schema.get("prefixItems", ()))
        open_end = items is not None and (not isinstance(items, list) or "additionalItems" in schema)
        done |= set(range(len(value) if open_end or (own and "unevaluatedItems" in schema) else listed))
        if "contains" in schema and validator.contains_evaluates:
            inner = subschema(validator, schema["contains"])
            done |= {index for index, item in enumerate(value) if inner.is_valid(item)}
    return done


_CORRECTED = {
    "additionalProperties": _additional_properties,
    "const": _const,
    "contains": _contains,
    "dependencies": validators.Draft7Validator.VALIDATORS["dependencies"],
    "enum": _enum,
    "format": _format,
    "if": _if,
    "maximum": _bound(False, "maximum"),
    "minimum": _bound(True, "minimum"),
    "not": _not,
    "oneOf": _one_of,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "unevaluatedItems": _unevaluated_items,
    "unevaluatedProperties": _unevaluated_properties,
    "uniqueItems": _unique,
}
_EVERY_DRAFT = {
    "additionalItems": _additional_items,
    "exclusiveMaximum": _bound(False, "exclusiveMaximum"),
    "exclusiveMinimum": _bound(True, "exclusiveMinimum"),
    "items": _items,
}


def _evolve(self: Any, **changes: Any) -> Any:
    """The library's, but for the class: a `$schema` inside a schema must not lead out of the corrected ones."""
    schema = changes.setdefault("schema", self.schema)
    dialect = schema.get("$schema") if isinstance(schema, dict) else None
    kind = _CLASSES.get(dialect.rstrip("#"), type(self)) if isinstance(dialect, str) else type(self)
    for field in attrs.fields(type(self)):
        if field.init:
            changes.setdefault(field.alias, getattr(self, field.name))
    return kind(**changes)


def _corrected(base: Any, extra: dict[str, Any], *, draft: int) -> Any:
    known = base.VALIDATORS.keys() | extra.keys() | {"dependencies"}
    changed = {k: v for k, v in _CORRECTED.items() if k in known} | extra
    if "if" not in base.VALIDATORS:
        changed.pop("if", None)
    kind = validators.extend(base, changed)
    kind.evolve = _evolve
    kind.specification = referencing.jsonschema.specification_with(
        base.META_SCHEMA.get("$id", base.META_SCHEMA.get("id"))
    )
    kind.counts_contains, kind.contains_evaluates = draft >= 2019, draft >= 2020
    return kind


_CLASSES: dict[str, Any] = {
    "http://json-schema.org/draft-04/schema": _corrected(jsonschema.Draft4Validator, {}, draft=4),
    "http://json-schema.org/draft-06/schema": _corrected(jsonschema.Draft6Validator, {}, draft=6),
    "http://json-schema.org/draft-07/schema": _corrected(jsonschema.Draft7Validator, {}, draft=7),
    "https://json-schema.org/draft/2019-09/schema": _corrected(jsonschema.Draft201909Validator, {}, draft=2019),
    "https://json-schema.org/draft/2020-12/schema": _corrected(jsonschema.Draft202012Validator, {}, draft=2020),
}
_DEFAULT = _corrected(jsonschema.Draft202012Validator, _EVERY_DRAFT, draft=2020)


class Oracle:
    """One schema, ready to judge values.

    Args:
        schema: a dict or a bool.
        registry: uri -> schema, or a `referencing.Registry`.
    """

    def __init__(self, schema: Any, registry: Any = None) -> None:
        self.schema = exact(schema)
        if not isinstance(registry, referencing.Registry):
            resources = [
                (uri, referencing.Resource.from_contents(exact(one), referencing.jsonschema.DRAFT202012))
                for uri, one in (registry or {}).items()
            ]
            registry = referencing.Registry().with_resources(resources)
        dialect = self.schema.get("$schema") if isinstance(self.schema, dict) else None
        kind = _CLASSES.get(dialect.rstrip("#"), _DEFAULT) if isinstance(dialect, str) else _DEFAULT
        self.validator = kind(self.schema, registry=registry)

    def verdict(self, value: Any) -> bool | None:
        """Is `value` (of `loads` or `exact`) valid?  None if that hangs on a question without a referee."""
        answers = []
        for guess in (True, False):
            _asked.clear()
            with undecided_as(guess):
                answers.append(self.validator.is_valid(value))
            if not _asked:
                break
        return answers[0] if len(set(answers)) == 1 else None

    def reason(self, value: Any) -> str:
        """The first violation, in words."""
        with undecided_as(True):
            error = next(iter(self.validator.iter_errors(value)), None)
        return "valid" if error is None else f"{error.message[:200]} (at {error.json_path})"


def valid(schema: Any, value: Any, registry: Any = None) -> bool:
    """Is `value` valid?

    Raises:
        ValueError: nobody here knows.
    """
    verdict = Oracle(schema, registry).verdict(exact(value))
    if verdict is None:
        raise ValueError(f"undecided: {value!r}")
    return verdict
