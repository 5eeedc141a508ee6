"""Random JSON Schemas.

Schemas are drawn from small pools, so that keywords meet: the same few keys, strings, bounds and patterns occur in
siblings, branches and definitions. `SchemaMaker` keeps to one dialect a schema, and to what that dialect can say.

Everything depends on the `random.Random` alone: ``schema_of(seed, index)`` is the same schema everywhere.
"""

from __future__ import annotations

import random
from typing import Any

from tests.format_oracle import FORMATS
from tests.json_oracle import exact, frozen

__all__ = ["ATOMS", "KEYS", "STRINGS", "TYPES", "SchemaMaker", "keywords", "schema_of"]

KEYS = ["a", "b", "c", "aa", "ab", "b1", "", "é", "x y", 'q"', "name"]
STRINGS = ["", "a", "b", "ab", "aa", "abc", "é", "😀", "a\nb", "1", "foo", "\\", 'a"', "/", "aé😀", "bbbb"]
BOUNDS = [-10, -2.5, -1, 0, 0.1, 0.5, 1, 1.0, 1.5, 2, 3, 5, 7.25, 10, 12, 99, 100, 1000, 1e20, -1e-5, 123456789, 0.3]
DIVISORS = [1, 2, 3, 5, 7, 10, 0.1, 0.25, 0.5, 1.5, 0.01, 1e-3, 2.0, 12]
PATTERNS = ["^a", "a", "b$", "^[ab]*$", "^.{2}$", "[0-9]", "^a.*b$", "^(a|bb)+$", r"\d", r"^\S+$", "^[^a]", "^$", "é"]
PATTERNS += [
    r"^\p{L}+$",
    "(?=.*a)b",
    "^(?!a)",
    "^[a-z]{1,3}$",
    r"^a|b$",
    r"\u{1F600}|c",
    r"^\w+\s?\w*$",
    "",
    r"\bfoo\b",
]
ATOMS: list[Any] = [None, True, False, 0, 1, 1.0, -1, 2.5, 1e2, 0.1, 10, "a", "", "ab", "é", 'a"\\', "\n"]
COMPOUND: list[Any] = [
    [],
    [1],
    ["a"],
    [1, 1.0],
    [True, 1],
    {},
    {"a": 1},
    {"b": 1, "a": []},
    {"a": {"b": None}},
    [{}, []],
]
TYPES = ["object", "array", "string", "number", "integer", "boolean", "null"]
DIALECTS = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}
SUBSCHEMAS = {"additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames"}
SUBSCHEMAS |= {"then", "unevaluatedItems", "unevaluatedProperties"}
LISTS = {"allOf", "anyOf", "oneOf", "prefixItems", "items"}
MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}


def keywords(schema: Any) -> frozenset[str]:
    """The keywords that occur anywhere in a schema."""
    found: set[str] = set()
    todo = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            found |= node.keys()
            for key, value in node.items():
                if key in LISTS and isinstance(value, list):
                    todo += value
                elif key in SUBSCHEMAS:
                    todo.append(value)
                elif key in MAPS:
                    todo += value.values()
    return frozenset(found)


class SchemaMaker:
    """One random schema: `make()`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.draft = rng.choice([4, 4, 6, 7, 7, 2019, 2019, *[2020] * 9])
        self.named = self.draft != 2020 or rng.random() < 0.2
        self.legacy = not self.named and rng.random() < 0.15  # no $schema: the spellings of all drafts
        self.left = rng.choice([2, 4, 6, 9, 14])
        self.n_defs = rng.choice([0, 0, 0, 1, 1, 2, 3])
        self.referenced: set[str] = set()
        self.kinds = {
            "object": self.object,
            "array": self.array,
            "string": self.string,
            "number": self.number,
            "integer": self.number,
        }

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    def some(self, pool: list[Any], least: int, most: int) -> list[Any]:
        return self.rng.sample(pool, min(len(pool), self.rng.randint(least, most)))

    def make(self) -> Any:
        if self.draft > 4 and self.maybe(0.004):
            return self.maybe(0.7)
        schema = self.schema(0, level=-1, guarded=False)
        if not isinstance(schema, dict):
            schema = {"allOf": [schema]}
        key = "definitions" if self.draft < 2019 or self.legacy else "$defs"
        defs: dict[str, Any] = {}
        while missing := sorted(self.referenced - defs.keys()):
            for name in missing:
                self.left = max(self.left, 2)
                defs[name] = self.schema(1, level=int(name[1:]), guarded=False)
        if defs:
            schema[key] = defs
        if self.named:
            schema = {"$schema": DIALECTS[self.draft]} | schema
        return schema

    # -- one schema object ----------------------------------------------------------------------------------------

    def schema(self, depth: int, *, level: int, guarded: bool, kinds: list[str] | None = None) -> Any:
        """A subschema.

        Args:
            level: number of the definition that this belongs to; references that consume nothing go to higher ones.
            guarded: is there a property or an item between this and that definition?
            kinds: the types that the place is about, so that siblings constrain each other.
        """
        self.left -= 1
        if self.left < 0 or depth > 4:
            return self.leaf()
        if self.n_defs and self.maybe(0.15):
            return self.reference(level, guarded) | ({} if self.maybe(0.7) else self.body(depth, level, guarded, kinds))
        return self.body(depth, level, guarded, kinds)

    def leaf(self) -> Any:
        rng = self.rng
        if self.draft > 4 and self.maybe(0.15):
            return self.maybe(0.75)
        pick = rng.random()
        if pick < 0.45:
            return {"type": rng.choice(TYPES)}
        if pick < 0.65:
            return self.values()
        if pick < 0.75:
            return {}
        return self.kinds[rng.choice(["string", "number", "integer"])](0, 0)

    def reference(self, level: int, guarded: bool) -> dict[str, Any]:
        low = 0 if guarded else level + 1
        if guarded and self.maybe(0.2):
            return {"$ref": "#"}
        if low >= self.n_defs:
            return {}
        name = f"d{self.rng.randrange(low, self.n_defs)}"
        self.referenced.add(name)
        return {"$ref": f"#/{'definitions' if self.draft < 2019 or self.legacy else '$defs'}/{name}"}

    def body(self, depth: int, level: int, guarded: bool, kinds: list[str] | None) -> dict[str, Any]:
        rng = self.rng
        schema: dict[str, Any] = {}
        about = list(kinds) if kinds and self.maybe(0.85) else [rng.choice(["object"] * 5 + ["array"] * 4 + TYPES)]
        if self.maybe(0.12):
            about = list(dict.fromkeys([*about, rng.choice(TYPES)]))
        if self.maybe(0.08):
            return self.values()
        if self.maybe(0.6 if kinds is None else 0.25):
            schema["type"] = about[0] if len(about) == 1 else about
        for kind in about:
            if kind in self.kinds:
                schema |= self.kinds[kind](depth, level)
        if self.maybe(0.05):
            schema |= self.values()
        if self.maybe(0.45 if depth < 2 else 0.2):
            schema |= self.combined(depth, level, guarded, about)
        if self.maybe(0.03):
            schema[rng.choice(["title", "description", "$comment"])] = "text"
        items = list(schema.items())
        if self.maybe(0.3):
            rng.shuffle(items)
        return dict(items)

    def values(self) -> dict[str, Any]:
        rng = self.rng
        value = rng.choice(COMPOUND) if self.maybe(0.3) else rng.choice(ATOMS)
        if self.draft > 4 and self.maybe(0.4):
            return {"const": value}
        pool = ATOMS + COMPOUND + [k for k in KEYS if len(k) < 3]
        return {"enum": list({repr(frozen(exact(v))): v for v in [value, *self.some(pool, 0, 4)]}.values())}

    def combined(self, depth: int, level: int, guarded: bool, about: list[str]) -> dict[str, Any]:
        rng = self.rng

        def sub() -> Any:
            return self.schema(depth + 1, level=level, guarded=guarded, kinds=about)

        out: dict[str, Any] = {}
        choices = ["allOf", "anyOf", "anyOf", "oneOf", "oneOf", "not"]
        if self.draft >= 7:
            choices += ["if", "if"]
        for keyword in self.some(choices, 1, 2):
            if keyword == "not":
                out["not"] = sub()
            elif keyword == "if":
                out["if"] = sub()
                for branch in ("then", "else"):
                    if self.maybe(0.7):
                        out[branch] = sub()
            else:
                out[keyword] = [sub() for _ in range(rng.choice([1, 2, 2, 2, 3]))]
        return out

    # -- keywords by type -----------------------------------------------------------------------------------------

    def inner(self, depth: int, level: int) -> Any:
        return self.schema(depth + 1, level=level, guarded=True)

    def false_or(self, depth: int, level: int, chance: float) -> Any:
        return self.maybe(0.15) if self.maybe(chance) else self.inner(depth, level)

    def object(self, depth: int, level: int) -> dict[str, Any]:
        rng = self.rng
        out: dict[str, Any] = {}
        keys = self.some(KEYS, 0, 4)
        if self.maybe(0.75):
            out["properties"] = {key: self.inner(depth, level) for key in keys}
        if self.maybe(0.45):
            wanted = self.some(keys, 0, 2) + (self.some(KEYS, 1, 1) if self.maybe(0.2) else [])
            if wanted or self.draft > 4:
                out["required"] = list(dict.fromkeys(wanted))
        if self.maybe(0.2):
            out["patternProperties"] = {p: self.inner(depth, level) for p in self.some(PATTERNS, 1, 2)}
        if self.maybe(0.35):
            out["additionalProperties"] = self.false_or(depth, level, 0.6)
        if self.draft > 4 and self.maybe(0.12):
            out["propertyNames"] = self.string(depth, level) if self.maybe(0.7) else self.values()
        low = rng.choice([0, 1, 1, 2, 3])
        if self.maybe(0.15):
            out["minProperties"] = low
        if self.maybe(0.15):
            out["maxProperties"] = low + rng.choice([0, 1, 2]) if self.maybe(0.9) else max(0, low - 1)
        if self.maybe(0.15):
            out |= self.dependent(depth, level)
        if self.draft >= 2019 and self.maybe(0.15):
            out["unevaluatedProperties"] = self.false_or(depth, level, 0.7)
        return out

    def dependent(self, depth: int, level: int) -> dict[str, Any]:
        old = self.draft < 2019 or self.legacy
        out: dict[str, Any] = {}
        for key in self.some(KEYS, 1, 2):
            if self.maybe(0.5):
                wanted = self.some(KEYS, 1, 2)
                out.setdefault("dependencies" if old else "dependentRequired", {})[key] = wanted
            else:
                sub = self.schema(depth + 1, level=99, guarded=False, kinds=["object"])
                out.setdefault("dependencies" if old else "dependentSchemas", {})[key] = sub
        return out

    def array(self, depth: int, level: int) -> dict[str, Any]:
        rng = self.rng
        out: dict[str, Any] = {}
        listed = self.draft < 2020 or self.legacy
        if self.maybe(0.35):
            prefix = [self.inner(depth, level) for _ in range(rng.choice([1, 2, 2, 3]))]
            out["items" if listed else "prefixItems"] = prefix
            if self.maybe(0.5):
                out["additionalItems" if listed else "items"] = self.false_or(depth, level, 0.5 if listed else 0.2)
        elif self.maybe(0.7):
            out["items"] = self.inner(depth, level)
        if self.draft == 4 and isinstance(out.get("items"), bool):
            out["items"] = {}
        low = rng.choice([0, 1, 1, 2, 3])
        if self.maybe(0.3):
            out["minItems"] = low if self.maybe(0.9) or self.draft == 4 else float(low)
        if self.maybe(0.3):
            out["maxItems"] = low + rng.choice([0, 1, 2]) if self.maybe(0.9) else max(0, low - 1)
        if self.maybe(0.2):
            out["uniqueItems"] = self.maybe(0.9)
        if self.draft > 4 and self.maybe(0.25):
            out["contains"] = self.inner(depth, level)
            if self.draft >= 2019 and self.maybe(0.6):
                least = rng.choice([0, 1, 2])
                out |= {"minContains": least} if self.maybe(0.6) else {}
                out |= {"maxContains": max(1, least) + rng.choice([0, 1])} if self.maybe(0.6) else {}
        if self.draft >= 2019 and self.maybe(0.12):
            out["unevaluatedItems"] = self.false_or(depth, level, 0.6)
        return out

    def string(self, depth: int, level: int) -> dict[str, Any]:
        rng = self.rng
        out: dict[str, Any] = {}
        if self.maybe(0.35):
            out["pattern"] = rng.choice(PATTERNS)
        if self.maybe(0.15):
            out["format"] = rng.choice([*sorted(FORMATS), "unknown"])
        low = rng.choice([0, 1, 1, 2, 3, 8])
        if self.maybe(0.3):
            out["minLength"] = low if self.maybe(0.9) or self.draft == 4 else float(low)
        if self.maybe(0.3):
            out["maxLength"] = low + rng.choice([0, 1, 2, 20]) if self.maybe(0.9) else max(0, low - 1)
        return out

    def number(self, depth: int, level: int) -> dict[str, Any]:
        rng = self.rng
        out: dict[str, Any] = {}
        low, high = sorted(rng.sample(BOUNDS, 2))
        if self.maybe(0.06):
            low, high = high, low
        for bound, name in ((low, "inimum"), (high, "aximum")):
            side = "m" + name, "exclusiveM" + name
            if self.maybe(0.35):
                if self.draft == 4 or (self.legacy and self.maybe(0.5)):
                    out[side[0]] = bound
                    out |= {side[1]: self.maybe(0.8)} if self.maybe(0.4) else {}
                else:
                    out[side[self.maybe(0.4)]] = bound
        if self.maybe(0.25):
            out["multipleOf"] = rng.choice(DIVISORS)
        return out


def schema_of(seed: int, index: int) -> Any:
    """Schema number `index` of a run."""
    return SchemaMaker(random.Random(f"schema {seed} {index}")).make()
