"""Values that nearly fit a JSON Schema: led by its keywords and constants, then edited once.

Nothing here is trusted to be valid or invalid: the oracle judges every value.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from tests.format_oracle import SAMPLES
from tests.json_oracle import exact, frozen
from tests.pattern_oracle import found, sample
from tests.schema_fuzz import ATOMS, KEYS, STRINGS, TYPES

__all__ = ["ValueMaker", "mutated"]


class ValueMaker:
    """Values for one schema: drawn from its constants, led by its keywords, right more often than not."""

    def __init__(self, schema: Any, rng: random.Random) -> None:
        self.root, self.rng = exact(schema), rng

    def value(self) -> Any:
        return self.of(self.root, 0)

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    def flat(self, schema: Any, depth: int = 0) -> dict[str, Any]:
        """The schema with references and one choice of its branches merged in: a guess at what has to hold."""
        if isinstance(schema, bool) or depth > 6:
            return {} if schema is not False else {"enum": []}
        out = {k: v for k, v in schema.items() if k not in ("allOf", "anyOf", "oneOf", "if", "then", "else", "$ref")}
        parts = list(schema.get("allOf", ()))
        if "$ref" in schema:
            parts.append(self.target(schema["$ref"]))
        parts += [self.rng.choice(schema[keyword]) for keyword in ("anyOf", "oneOf") if keyword in schema]
        if "if" in schema:
            holds = self.maybe(0.5)
            parts += [schema["if"], schema.get("then", True)] if holds else [schema.get("else", True)]
        for part in parts:
            out = _merged(out, self.flat(part, depth + 1))
        return out

    def target(self, reference: str) -> Any:
        node = self.root
        for step in reference.removeprefix("#").split("/")[1:]:
            node = node[step]
        return node

    def of(self, schema: Any, depth: int) -> Any:
        rng = self.rng
        if depth > 8:  # a recursion that the schema demands
            return rng.choice(ATOMS[:3])
        flat = self.flat(schema)
        for keyword in ("const", "enum"):
            if keyword in flat and self.maybe(0.95):
                pool = [flat["const"]] if keyword == "const" else flat["enum"]
                if pool:
                    return rng.choice(pool)
        types = flat.get("type", None)
        if types is None:
            hints = [t for t, words in _HINTS.items() if words & flat.keys()]
            types = hints if hints and self.maybe(0.85) else TYPES if depth < 3 else TYPES[2:]
        kind = rng.choice(types if isinstance(types, list) and types else [types] if isinstance(types, str) else TYPES)
        match kind:
            case "object":
                return self.object(flat, depth)
            case "array":
                return self.array(flat, depth)
            case "string":
                return self.string(flat)
            case "number" | "integer":
                return self.number(flat, kind)
            case "boolean":
                return self.maybe(0.5)
            case _:
                return None

    def object(self, flat: dict[str, Any], depth: int) -> dict[str, Any]:
        rng = self.rng
        listed = flat.get("properties", {})
        keys = [*flat.get("required", ())]
        keys += [k for k in listed if self.maybe(0.5 if depth < 3 else 0.1)]
        if depth < 3 and self.maybe(0.3):
            keys += rng.sample(KEYS, rng.randint(0, 2))
        if "patternProperties" in flat and self.maybe(0.4):
            keys.append(sample(rng.choice(list(flat["patternProperties"]))) or "a")
        for _ in range(3):
            while len(set(keys)) < flat.get("minProperties", 0) and self.maybe(0.9):
                keys.append(rng.choice([*listed, *KEYS]))
            for key in list(keys):
                dependent = flat.get("dependentRequired", {}).get(key) or flat.get("dependencies", {}).get(key)
                keys += dependent if isinstance(dependent, list) else []
        keys = list(dict.fromkeys(keys))
        most = flat.get("maxProperties")
        if most is not None:
            keys = keys[: int(most)]
        if self.maybe(0.4):
            rng.shuffle(keys)
        rest = flat.get("additionalProperties", flat.get("unevaluatedProperties", True))
        return {key: self.of(listed.get(key, self.pattern_of(flat, key, rest)), depth + 1) for key in keys}

    def pattern_of(self, flat: dict[str, Any], key: str, rest: Any) -> Any:
        for pattern, sub in flat.get("patternProperties", {}).items():
            if found(pattern, key):
                return sub
        return rest if isinstance(rest, dict) else True

    def array(self, flat: dict[str, Any], depth: int) -> list[Any]:
        rng = self.rng
        items, prefix = flat.get("items", True), flat.get("prefixItems", [])
        if isinstance(items, list):
            prefix, items = items, flat.get("additionalItems", True)
        low = int(flat.get("minItems", 0))
        high = int(flat.get("maxItems", low + 3))
        n = rng.randint(low, max(low, high)) if depth < 3 else low
        out = [self.of(prefix[k] if k < len(prefix) else items, depth + 1) for k in range(min(n, 6))]
        if "contains" in flat and self.maybe(0.85):
            wanted = [self.of(flat["contains"], depth + 1) for _ in range(int(flat.get("minContains", 1)))]
            start = len(out) if "maxItems" not in flat else max(0, min(len(out), high - len(wanted)))
            out[start : start + len(wanted)] = wanted
        if flat.get("uniqueItems"):
            out = list({repr(frozen(item)): item for item in out}.values())
        return out

    def string(self, flat: dict[str, Any]) -> str:
        rng = self.rng
        if "format" in flat and self.maybe(0.9):
            return rng.choice(SAMPLES.get(flat["format"], ("a",)))
        text = rng.choice(STRINGS)
        if "pattern" in flat and self.maybe(0.8):
            text = sample(flat["pattern"]) or text
            if self.maybe(0.5):
                text = rng.choice([text + rng.choice(["a", "b", "1"]), rng.choice(["a", "b"]) + text])
        low, high = int(flat.get("minLength", 0)), flat.get("maxLength")
        text += rng.choice("ab1é😀") * max(0, low - len(text))
        return text if high is None else text[: int(high)]

    def number(self, flat: dict[str, Any], kind: str) -> Any:
        rng = self.rng
        low = flat.get("minimum", flat.get("exclusiveMinimum"))
        high = flat.get("maximum", flat.get("exclusiveMaximum"))
        anchors = [b for b in (low, high) if b is not None and not isinstance(b, bool)] or [0]
        value = Fraction(rng.choice(anchors)) + rng.choice([0, 1, -1, Fraction(1, 2), Fraction(-1, 10), 3, 40])
        if len(anchors) == 2 and self.maybe(0.6):
            value = anchors[0] + (anchors[1] - anchors[0]) * Fraction(rng.randint(0, 10), 10)
        if "multipleOf" in flat and self.maybe(0.9):
            step = Fraction(flat["multipleOf"])
            value = round(value / step) * step
        if kind == "integer" and self.maybe(0.95):
            value = Fraction(round(value))
        value = Fraction(value)
        return value.numerator if value.denominator == 1 else value


_HINTS = {
    "object": {"properties", "required", "patternProperties", "additionalProperties", "propertyNames", "minProperties"}
    | {"maxProperties", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "unevaluatedItems"},
    "string": {"pattern", "format", "minLength", "maxLength"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_TIGHTER: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("minimum", "minLength", "minItems", "minProperties", "exclusiveMinimum"), max),
    **dict.fromkeys(("maximum", "maxLength", "maxItems", "maxProperties", "exclusiveMaximum"), min),
}


def _merged(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Roughly the conjunction of two flat schemas."""
    out = dict(one)
    for key, value in two.items():
        if key not in out:
            out[key] = value
        elif key == "properties":
            both = {k: {"allOf": [out[key][k], value[k]]} for k in out[key].keys() & value.keys()}
            out[key] = {**out[key], **value, **both}
        elif key == "required":
            out[key] = list(dict.fromkeys([*out[key], *value]))
        elif key == "type":
            lists = [t if isinstance(t, list) else [t] for t in (out[key], value)]
            out[key] = [t for t in lists[0] if t in lists[1] or (t == "integer" and "number" in lists[1])] or lists[1]
        elif key == "enum":
            allowed = set(map(frozen, value))
            out[key] = [v for v in out[key] if frozen(v) in allowed]
        elif key in _TIGHTER and not isinstance(value, bool) and not isinstance(out[key], bool):
            out[key] = _TIGHTER[key](out[key], value)
    return out


def mutated(value: Any, rng: random.Random) -> Any:
    """`value` after one small edit somewhere."""
    places = list(_places(value))
    path = rng.choice(places)
    return _edited(value, path, rng)


def _places(value: Any) -> Iterator[tuple[Any, ...]]:
    yield ()
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            for path in _places(item):
                yield (key, *path)


def _edited(value: Any, path: tuple[Any, ...], rng: random.Random) -> Any:
    if path:
        copy = dict(value) if isinstance(value, dict) else list(value)
        copy[path[0]] = _edited(value[path[0]], path[1:], rng)
        return copy
    other = exact(rng.choice(ATOMS))
    match value:
        case dict():
            pick = rng.random()
            if value and pick < 0.4:
                gone = rng.choice(list(value))
                return {k: v for k, v in value.items() if k != gone}
            if value and pick < 0.55:
                old, new = rng.choice(list(value)), rng.choice(KEYS)
                return {new if k == old else k: v for k, v in value.items()}
            return value | {rng.choice(KEYS): other} if pick < 0.95 else other
        case list():
            pick = rng.random()
            if value and pick < 0.3:
                k = rng.randrange(len(value))
                return value[:k] + value[k + 1 :]
            if value and pick < 0.6:
                return [*value, rng.choice(value)]
            return [*value, other] if pick < 0.95 else other
        case str():
            k = rng.randint(0, len(value))
            return rng.choice(
                [value[:k] + rng.choice('ab1é"\\ ') + value[k:], value[:k] + value[k + 1 :], value * 2, other]
            )
        case bool() | None:
            return other
        case _:
            steps = [1, -1, Fraction(1, 2), Fraction(1, 1000), 10, -value, Fraction(10) ** 21]
            result = Fraction(value) + rng.choice(steps)
            return rng.choice([other, result.numerator if result.denominator == 1 else result])
