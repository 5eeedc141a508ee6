"""Schemas are read into nodes: exactly what each draft says, each fault with its place."""

from __future__ import annotations

import gzip
import json
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.dialects import FORMATS
from outlines_core.json_schema.nodes import ALL_TYPES, ARRAY, INTEGER, NULL, NUMBER, SchemaNode
from outlines_core.json_schema.reader import explain_malformed, read_schema
from outlines_core.limits import Limits
from tests.unit.json_schema.node_validator import is_valid

D4 = "http://json-schema.org/draft-04/schema#"
D6 = "http://json-schema.org/draft-06/schema#"
D7 = "http://json-schema.org/draft-07/schema#"
D2019 = "https://json-schema.org/draft/2019-09/schema"
D2020 = "https://json-schema.org/draft/2020-12/schema"
DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def read(dialect=None, **keywords) -> SchemaNode:
    return read_schema(({"$schema": dialect} if dialect else {}) | keywords)


class TestValues:
    def test_defaults(self):
        node = read()
        assert (node.types, node.always, node.enum, node.min_contains) == (ALL_TYPES, None, None, 1)
        assert read_schema(True).always is True
        assert read_schema({"not": False}).not_.always is False

    @pytest.mark.parametrize(
        ("given", "types"),
        [("null", NULL), ("integer", INTEGER), ("number", INTEGER | NUMBER), (["array", "null"], ARRAY | NULL)],
    )
    def test_types(self, given, types):
        assert read(type=given).types == types

    @pytest.mark.parametrize(
        ("given", "exact"),
        [
            (0.1, Fraction(1, 10)),
            (Decimal("0.1"), Fraction(1, 10)),
            (3, 3),
            (-0.0, 0),
            (1e300, 10**300),
            (1.5e-300, Fraction(15, 10**301)),
            (10**300, 10**300),
            (Decimal("-0e999"), 0),
        ],
    )
    def test_numbers_are_exact(self, given, exact):
        assert read(minimum=given).minimum == (exact, False)
        assert isinstance(read(minimum=given).minimum[0], Fraction)

    @pytest.mark.parametrize(
        "given",
        [
            10**309,
            1e-320,
            Decimal("1e309"),
            Decimal("1e-309"),
            Decimal("1e999999999"),
            int("1" * 65),
            Decimal("0." + "1" * 65),
        ],
    )
    @pytest.mark.parametrize("keyword", ["minimum", "multipleOf", "exclusiveMaximum", "const"])
    def test_numbers_are_bounded(self, keyword, given):
        with pytest.raises(LimitExceededError, match=f"#/{keyword}"):
            read(**{keyword: given})

    def test_the_bound_is_a_limit(self):
        assert read(maximum=int("1" * 64)).maximum
        read_schema({"maximum": int("1" * 65)}, limits=Limits(number_digits=65))
        assert read_schema({"maximum": 123 * 10**20}, limits=Limits(number_digits=3)).maximum
        with pytest.raises(LimitExceededError) as caught:
            read_schema({"maximum": 1234 * 10**20}, limits=Limits(number_digits=3))
        assert (caught.value.given, caught.value.limit) == (4, 3)

    def test_constants_are_normalised(self):
        node = read(enum=[1.0, 0.5, True, None, "a", {"x": [Decimal("2.50"), {}]}], const=[1e2])
        assert node.enum == (1, Fraction(1, 2), True, None, "a", {"x": [Fraction(5, 2), {}]})
        assert [type(value) for value in node.enum[:3]] == [int, Fraction, bool]
        assert node.const == ([100],)
        assert type(node.const[0][0]) is int
        assert list(read(const={"b": 1, "a": 2.5}).const[0]) == ["b", "a"]

    def test_constants_that_contain_themselves(self):
        value: list = []
        value.append(value)
        with pytest.raises(LimitExceededError, match="nested"):
            read(const=value)

    def test_counts(self):
        node = read(minLength=2.0, maxLength=Decimal(3), minItems=0, maxProperties=10**12)
        assert (node.min_length, node.max_length, node.min_items, node.max_properties) == (2, 3, 0, 10**12)
        assert type(node.min_length) is int

    def test_patterns_are_searched(self):
        node = read(pattern="^a", patternProperties={"b$": True})
        assert node.pattern.source == "^a"
        assert node.pattern_properties[0][0].source == "b$"
        assert read(pattern="^a").pattern is node.pattern  # parsed once

    def test_formats(self):
        assert {read(format=name).format for name in FORMATS} == FORMATS
        assert read(format="int32").format is None


class TestKeywords:
    def test_arrays(self):
        node = read(D2020, prefixItems=[{}, False], items={"type": "null"}, contains={}, minContains=0, maxContains=2)
        assert len(node.prefix_items) == 2
        assert node.items.types == NULL
        assert (node.min_contains, node.max_contains, node.contains_evaluates) == (0, 2, True)
        assert read(minContains=3).min_contains == 1  # void without `contains`

    def test_objects(self):
        node = read(
            properties={"a": {}, "b/c": {"type": "null"}},
            required=["a", "b", "a"],
            dependencies={"a": ["x"], "b": {"type": "object"}},
            dependentRequired={"a": ["y", "x"]},
            dependentSchemas={"b": {"minProperties": 2}},
        )
        assert node.properties["b/c"].pointer == "/properties/b~1c"
        assert node.required == ("a", "b")
        assert node.dependent_required == {"a": ("x", "y")}
        assert [sub.pointer for sub in node.dependent_schemas["b"].all_of] == ["/dependencies/b", "/dependentSchemas/b"]

    def test_conditions_need_their_if(self):
        assert read(then={}, **{"else": {}}).then is None
        node = read(**{"if": {}, "then": {}, "else": {}})
        assert None not in (node.if_, node.then, node.else_)

    def test_unreferenced_definitions_are_not_read(self):
        assert read(**{"$defs": {"a": {"type": "?"}}}, definitions={"a": 3}).types == ALL_TYPES

    def test_pointers(self):
        node = read(items={"allOf": [{}, {"properties": {"~/": {}}}]})
        assert node.items.all_of[1].properties["~/"].pointer == "/items/allOf/1/properties/~0~1"


class TestDrafts:
    @pytest.mark.parametrize("dialect", [D4, None])
    def test_boolean_exclusive_bounds(self, dialect):
        node = read(dialect, minimum=1, exclusiveMinimum=True, maximum=5, exclusiveMaximum=False)
        assert (node.minimum, node.maximum) == ((1, True), (5, False))
        assert read(dialect, exclusiveMinimum=True).minimum is None

    @pytest.mark.parametrize("dialect", [D6, D7, D2019, D2020, None])
    def test_numeric_exclusive_bounds(self, dialect):
        node = read(dialect, minimum=1, exclusiveMinimum=1, maximum=4, exclusiveMaximum=5)
        assert (node.minimum, node.maximum) == ((1, True), (4, False))
        node = read(dialect, exclusiveMinimum=0, minimum=1, exclusiveMaximum=5, maximum=5)
        assert (node.minimum, node.maximum) == ((1, False), (5, True))

    def test_each_refuses_the_other_form(self):
        for dialect, value in ((D4, 1), (D6, True), (D2020, True)):
            with pytest.raises(ConstraintSyntaxError, match="exclusiveMinimum"):
                read(dialect, minimum=1, exclusiveMinimum=value)

    @pytest.mark.parametrize("dialect", [D4, D7, D2019, None])
    def test_lists_of_items(self, dialect):
        node = read(dialect, items=[{}, {}], additionalItems=False)
        assert len(node.prefix_items) == 2
        assert node.items.always is False
        assert node.items.pointer == "/additionalItems"
        assert read(dialect, items={}, additionalItems=False).items.always is None

    def test_no_lists_of_items_in_2020(self):
        with pytest.raises(ConstraintSyntaxError, match="prefixItems"):
            read(D2020, items=[{}])
        with pytest.raises(ConstraintSyntaxError):
            read(prefixItems=[{}], items=[{}])

    @pytest.mark.parametrize(
        ("dialect", "hidden"), [(D4, True), (D6, True), (D7, True), (D2019, False), (D2020, False), (None, False)]
    )
    def test_siblings_of_ref(self, dialect, hidden):
        node = read(dialect, **{"$ref": "#/definitions/a"}, definitions={"a": {}}, minLength=3)
        assert node.min_length == (0 if hidden else 3)

    @pytest.mark.parametrize(
        ("keyword", "value", "attribute", "known"),
        [
            ("const", 1, "const", [D6, D7, D2019, D2020]),
            ("contains", {}, "contains", [D6, D7, D2019, D2020]),
            ("propertyNames", {}, "property_names", [D6, D7, D2019, D2020]),
            ("if", {}, "if_", [D7, D2019, D2020]),
            ("dependentRequired", {"a": ["b"]}, "dependent_required", [D2019, D2020]),
            ("unevaluatedItems", False, "unevaluated_items", [D2019, D2020]),
            ("unevaluatedProperties", False, "unevaluated_properties", [D2019, D2020]),
            ("prefixItems", [{}], "prefix_items", [D2020]),
            ("dependencies", {"a": ["b"]}, "dependent_required", [D4, D6, D7, D2019, D2020]),
        ],
    )
    def test_keywords_begin_with_a_draft(self, keyword, value, attribute, known):
        for dialect in (D4, D6, D7, D2019, D2020, None):
            assert bool(getattr(read(dialect, **{keyword: value}), attribute)) == (dialect in known or dialect is None)

    def test_contains(self):
        assert [read(d, contains={}).contains_evaluates for d in (D6, D2019, D2020, None)] == [False, False, True, True]
        assert read(D7, contains={}, minContains=2).min_contains == 1

    def test_spellings_of_the_same_draft(self):
        for uri in ("http://json-schema.org/draft-07/schema", "https://json-schema.org/draft-07/schema#"):
            assert read(uri, items=[{}]).prefix_items


class TestFaults:
    @pytest.mark.parametrize(
        ("schema", "path"),
        [
            ({"minLength": "3"}, "/minLength"),
            ({"properties": {"a": {"minLength": -1}}}, "/properties/a/minLength"),
            ({"maxItems": 2.5}, "/maxItems"),
            ({"maxItems": True}, "/maxItems"),
            ({"type": "any"}, "/type"),
            ({"type": ["string", 3]}, "/type/1"),
            ({"type": []}, "/type"),
            ({"type": {}}, "/type"),
            ({"enum": "a"}, "/enum"),
            ({"enum": [1, {"a/": (1,)}]}, "/enum/1/a~1"),
            ({"const": {1: 2}}, "/const"),
            ({"const": {"a": [float("nan")]}}, "/const/a/0"),
            ({"minimum": "3"}, "/minimum"),
            ({"minimum": float("inf")}, "/minimum"),
            ({"multipleOf": 0}, "/multipleOf"),
            ({"multipleOf": -2}, "/multipleOf"),
            ({"pattern": 3}, "/pattern"),
            ({"pattern": "(a"}, "/pattern"),
            ({"patternProperties": {"a/(": {}}}, "/patternProperties/a~1("),
            ({"format": 3}, "/format"),
            ({"uniqueItems": 1}, "/uniqueItems"),
            ({"required": True}, "/required"),
            ({"required": ["a", 1]}, "/required/1"),
            ({"properties": []}, "/properties"),
            ({"properties": {"a": None}}, "/properties/a"),
            ({"properties": {1: {}}}, "/properties"),
            ({"additionalProperties": "no"}, "/additionalProperties"),
            ({"additionalItems": 3}, "/additionalItems"),
            ({"allOf": []}, "/allOf"),
            ({"anyOf": {}}, "/anyOf"),
            ({"oneOf": [{}, 3]}, "/oneOf/1"),
            ({"not": [{}]}, "/not"),
            ({"dependencies": {"a": 3}}, "/dependencies/a"),
            ({"dependencies": {"a": [3]}}, "/dependencies/a/0"),
            ({"dependentRequired": {"a": {}}}, "/dependentRequired/a"),
            ({"$ref": 3}, "/$ref"),
            ({"$ref": "#/nope"}, "/$ref"),
            ({"$id": 3}, "/$id"),
            ({"$schema": D2020, "$id": "#a"}, "/$id"),
            ({"$anchor": 3}, "/$anchor"),
            ({"$defs": []}, "/$defs"),
            ({1: {}}, ""),
            (
                {"properties": {"a/b": {"items": {"~": 1, "not": {"maximum": "x"}}}}},
                "/properties/a~1b/items/not/maximum",
            ),
        ],
    )
    def test_each_has_its_place(self, schema, path):
        with pytest.raises(ConstraintSyntaxError) as caught:
            read_schema(schema)
        assert caught.value.path == path
        assert f"(at #{path})" in str(caught.value)

    def test_messages_say_what_was_found(self):
        with pytest.raises(ConstraintSyntaxError) as caught:
            read_schema({"properties": {"a": {"minLength": "3"}}})
        line = str(caught.value).splitlines()[0]
        assert line == '"minLength" must be a non-negative integer, not "3" (at #/properties/a/minLength)'

    def test_regexes_keep_their_message(self):
        with pytest.raises(ConstraintSyntaxError, match="unterminated group"):
            read(pattern="(a")
        with pytest.raises(UnsupportedFeatureError) as caught:
            read(items={"pattern": r"(a)\1"})
        assert caught.value.path == "/items/pattern"
        with pytest.raises(LimitExceededError, match="#/pattern"):
            read_schema({"pattern": "a" * 50}, limits=Limits(max_pattern_length=10))

    def test_unsupported_patterns_may_be_collected(self):
        found = []
        schema = {"pattern": r"(a)\1", "patternProperties": {r"(b)\1": {}, "c": {}}, "minLength": 1}
        node = read_schema(schema, on_unsupported=found.append)
        assert [error.path for error in found] == ["/pattern", "/patternProperties/(b)\\1"]
        assert (node.pattern, node.min_length, len(node.pattern_properties)) == (None, 1, 1)

    @pytest.mark.parametrize("schema", [[], None, 3, "{}"])
    def test_a_schema_is_an_object_or_a_boolean(self, schema):
        with pytest.raises(ConstraintSyntaxError, match="must be an object, true or false"):
            read_schema(schema)

    def test_the_library_adds_the_rest(self):
        pytest.importorskip("jsonschema")
        schema = {
            "minLength": "3",
            **{f"max{what}": -1 for what in ("Length", "Items", "Properties")},
            "required": [1, 2, 3],
        }
        report = explain_malformed(schema)
        assert len(report) == 7
        with pytest.raises(ConstraintSyntaxError) as caught:
            read_schema(schema)
        first, *rest = str(caught.value).splitlines()
        assert first.endswith("(at #/minLength)")
        assert len(rest) == 1 + 5 + 1
        assert rest[-1].strip() == "... and 1 more"
        assert explain_malformed({"items": [{}]}) == []
        assert explain_malformed({"$schema": D2020, "items": [{}]}) != []

    @pytest.mark.parametrize("odd", [{1: 2}, {"a": {1, 2}}, {"a": object()}])
    def test_the_library_is_not_asked_about_what_is_no_json(self, odd):
        explain_malformed(odd)
        with pytest.raises(ConstraintSyntaxError, match="#/minLength"):
            read_schema({"minLength": -1, "default": odd})

    def test_it_is_not_needed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "jsonschema", None)
        assert explain_malformed({"minLength": -1, "maxLength": -1}) == []
        with pytest.raises(ConstraintSyntaxError, match=r"^[^\n]*\(at #/minLength\)$"):
            read_schema({"minLength": -1, "maxLength": -1})


class TestSize:
    """What is big or deep is read all the same: there is no recursion, and no place is read twice."""

    def test_nesting(self):
        schema: dict = {"type": "null"}
        for _ in range(5000):
            schema = {"properties": {"a": schema}}
        root = node = read_schema(schema)
        for _ in range(5000):
            node = node.properties["a"]
        assert node is not root  # nodes know their parents weakly
        assert node.pointer == "/properties/a" * 5000

    def test_chains_of_references(self):
        defs: dict = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(5000)}
        node = read_schema({"$ref": "#/$defs/0", "$defs": defs | {"5000": {"type": "null"}}})
        for _ in range(5001):
            node = node.ref
        assert node.types == NULL

    def test_shared_objects_are_read_once(self):
        schema: dict = {}
        for _ in range(60):  # 2 ** 60 places
            schema = {"allOf": [schema, schema]}
        node = read_schema(schema)
        assert node.all_of[0] is node.all_of[1]

    def test_objects_that_contain_themselves(self):
        schema: dict = {"$defs": {"a": {"$anchor": "a"}}, "allOf": [{"$ref": "#a"}]}
        schema["items"] = schema
        node = read_schema(schema)
        assert node.items is node


def lines(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


class TestCorpora:
    """The nodes say what the documents say: checked by evaluating them."""

    # Needs \p{..}, which the oracle's `re` has not, or the formats, which the oracle leaves out.
    LEFT_OUT = ("Unicode property escape", "format")

    def test_official_suite(self):
        registry = {case["uri"]: case["schema"] for case in lines("json-schema-suite-remotes.jsonl.gz")}
        wrong = []
        for case in lines("json-schema-suite-draft2020-12.jsonl.gz"):
            node = read_schema(case["schema"], registry=registry, on_unsupported=lambda _: None)
            if any(word in case["file"] + case["description"] for word in self.LEFT_OUT) or "regex" in case["file"]:
                continue
            wrong += [
                f"{case['file']}: {case['description']}: {test['description']}"
                for test in case["tests"]
                if is_valid(node, test["data"]) != test["valid"]
            ]
        assert wrong == []

    @pytest.mark.slow
    def test_maskbench(self):
        wrong, refused = [], []
        for case in lines("maskbench-dev.jsonl.gz"):
            try:
                node = read_schema(case["schema"])
            except UnsupportedFeatureError:
                refused.append(case["id"])
                continue
            if '"format"' not in json.dumps(case["schema"]):
                wrong += [case["id"] for test in case["tests"] if is_valid(node, test["data"]) != test["valid"]]
        # A back-reference; and 12345.0 for "integer" in draft 4, which is one from draft 6 on and here.
        assert (refused, wrong) == (["Github_hard---o75605"], ["Github_easy---o24544"])
