"""Everything that stands for a schema becomes the schema that one would write by hand."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import subprocess
import sys
import typing
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Optional, Union

import pytest

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.reader import read_schema
from outlines_core.json_schema.sources import to_schema


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0
    tags: list[str] = dataclasses.field(default_factory=list)
    hidden: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass
class Node:
    value: int
    next: Node | None = None
    at: Point | None = None


class Movie(typing.TypedDict, total=False):
    title: typing.Required[str]
    year: int
    color: Color


POINT = {
    "type": "object",
    "properties": {
        "x": {"type": "number"},
        "y": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["x"],
    "additionalProperties": False,
}


class TestText:
    def test_floats_are_exact(self):
        assert to_schema('{"multipleOf": 0.1}') == {"multipleOf": Decimal("0.1")}
        assert to_schema(b'{"minimum": 1e400}') == {"minimum": Decimal("1e400")}

    @pytest.mark.parametrize(
        "text", ["true", b"true", bytearray(b"true"), "true".encode("utf-16"), b"\xef\xbb\xbftrue"]
    )
    def test_booleans_and_encodings(self, text):
        assert to_schema(text) is True

    @pytest.mark.parametrize(
        ("text", "offset"),
        [('{"a":}', 5), ('{"a": NaN}', 6), ('{"NaN": "NaN", "b": [-Infinity]}', 21), ("[1]", 0), ("3", 0), ("", 0)],
    )
    def test_malformed_text_says_where(self, text, offset):
        with pytest.raises(ConstraintSyntaxError) as caught:
            to_schema(text)
        assert (caught.value.source, caught.value.offset) == (text, offset)

    def test_not_text(self):
        with pytest.raises(ConstraintSyntaxError, match="not Unicode text"):
            to_schema(b"\xc3(")

    def test_nesting_is_bounded(self):
        assert to_schema('{"default": ' + "[" * 5000 + "]" * 5000 + "}")
        with pytest.raises(LimitExceededError, match="too deeply"):
            to_schema('{"default": ' + "[" * 100_000 + "]" * 100_000 + "}")

    def test_integers_of_any_length_may_stand_in_annotations(self):
        read_schema(to_schema('{"default": ' + "1" * 5000 + "}"))
        with pytest.raises(LimitExceededError):
            read_schema(to_schema('{"maximum": ' + "1" * 5000 + "}"))

    def test_data_is_returned_as_it_is(self):
        schema = {"type": "string"}
        assert to_schema(schema) is schema
        assert to_schema(False) is False

    @pytest.mark.parametrize("source", [None, 3, 1.5, ["a"], {"a"}, object()])
    def test_anything_else_is_an_error(self, source):
        with pytest.raises(ConstraintSyntaxError, match="a schema is"):
            to_schema(source)


class TestAnnotations:
    @pytest.mark.parametrize(
        ("annotation", "schema"),
        [
            (int, {"type": "integer"}),
            (str, {"type": "string"}),
            (float, {"type": "number"}),
            (bool, {"type": "boolean"}),
            (Any, {}),
            (type(None), {"type": "null"}),
            (list, {"type": "array"}),
            (list[int], {"type": "array", "items": {"type": "integer"}}),
            (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
            (typing.Sequence[int], {"type": "array", "items": {"type": "integer"}}),
            (dict, {"type": "object"}),
            (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
            (
                dict[Literal["a", "b"], int],
                {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
            ),
            (tuple, {"type": "array"}),
            (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
            (
                tuple[int, str],
                {
                    "type": "array",
                    "minItems": 2,
                    "maxItems": 2,
                    "prefixItems": [{"type": "integer"}, {"type": "string"}],
                },
            ),
            (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
            (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
            (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
            (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
            (Literal["a"], {"const": "a"}),
            (Literal["a", 1, None, Color.RED], {"enum": ["a", 1, None, "red"]}),
            (Color, {"enum": ["red", "green"]}),
            (Annotated[int, "the age"], {"type": "integer"}),
            (NewType("UserId", int), {"type": "integer"}),
            (Point, POINT),
            (list[Point], {"type": "array", "items": {"$ref": "#/$defs/Point"}, "$defs": {"Point": POINT}}),
        ],
    )
    def test_plain_annotations(self, annotation, schema):
        assert to_schema(annotation) == schema
        read_schema(to_schema(annotation))

    def test_a_recursive_dataclass_is_its_own_root(self):
        schema = to_schema(Node)
        assert schema["properties"]["next"] == {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
        assert schema["properties"]["at"]["anyOf"][0] == {"$ref": "#/$defs/Point"}
        assert schema["$defs"] == {"Point": POINT}
        node = read_schema(schema)
        assert node.properties["next"].any_of[0].ref is node

    def test_typed_dict(self):
        assert to_schema(Movie) == {
            "type": "object",
            "properties": {
                "title": {"type": "string"},
                "year": {"type": "integer"},
                "color": {"enum": ["red", "green"]},
            },
            "required": ["title"],
            "additionalProperties": False,
        }

    def test_two_classes_of_one_name(self):
        other = dataclasses.make_dataclass("Point", [("z", int)])
        schema = to_schema(tuple[Point, other])
        assert [item["$ref"] for item in schema["prefixItems"]] == ["#/$defs/Point", "#/$defs/Point_2"]

    @pytest.mark.parametrize(
        ("annotation", "path"),
        [
            (list[bytes], "/items"),
            (dict[int, str], ""),
            (dict[str, complex], "/additionalProperties"),
            (enum.Enum("E", {"A": (1, 2)}), ""),
            (Literal[b"x"], ""),
        ],
    )
    def test_what_has_no_schema_is_refused_with_its_place(self, annotation, path, monkeypatch):
        monkeypatch.delitem(sys.modules, "pydantic", raising=False)
        with pytest.raises(UnsupportedFeatureError) as caught:
            to_schema(annotation)
        assert (caught.value.feature, caught.value.path) == ("annotation", path)

    def test_constraints_are_not_dropped_silently(self, monkeypatch):
        gt = pytest.importorskip("annotated_types").Gt
        monkeypatch.setitem(sys.modules, "pydantic", None)
        with pytest.raises(UnsupportedFeatureError, match="need pydantic"):
            to_schema(Annotated[int, gt(0)])


def area(width: float, height: float = 1.0, *rest: int, unit: Literal["m", "ft"]) -> float: ...


def anything(a, b: list[Node], /, **options: int): ...


def unresolved(a: Missing): ...  # noqa: F821


class Callable:
    def __call__(self, a: int) -> None: ...

    def method(self, b: str) -> None: ...


class TestSignatures:
    def test_parameters_are_properties(self):
        assert to_schema(area) == {
            "type": "object",
            "properties": {"width": {"type": "number"}, "height": {"type": "number"}, "unit": {"enum": ["m", "ft"]}},
            "required": ["width", "unit"],
            "additionalProperties": False,
        }

    def test_keyword_arguments_are_additional_properties(self):
        schema = to_schema(anything)
        assert schema["properties"]["a"] == {}
        assert schema["additionalProperties"] == {"type": "integer"}
        # Here the dataclass is no root.
        assert schema["$defs"]["Node"]["properties"]["next"]["anyOf"][0] == {"$ref": "#/$defs/Node"}

    @pytest.mark.parametrize(
        ("function", "properties"),
        [
            (Callable(), {"a": {"type": "integer"}}),
            (Callable().method, {"b": {"type": "string"}}),
            (lambda q: q, {"q": {}}),
            (functools.partial(area, 1.0), {"height": {"type": "number"}, "unit": {"enum": ["m", "ft"]}}),
        ],
    )
    def test_all_kinds_of_callables(self, function, properties):
        assert to_schema(function)["properties"] == properties

    def test_annotations_that_cannot_be_resolved(self):
        with pytest.raises(UnsupportedFeatureError, match="Missing"):
            to_schema(unresolved)


class TestPydantic:
    def test_models_adapters_and_dataclasses(self):
        pydantic = pytest.importorskip("pydantic")
        model = pydantic.create_model("M", a=(int, ...), b=(Annotated[str, pydantic.Field(max_length=3)], "x"))
        assert to_schema(model) == model.model_json_schema()
        assert to_schema(pydantic.TypeAdapter(list[model])) == pydantic.TypeAdapter(list[model]).json_schema()
        assert to_schema(pydantic.dataclasses.dataclass(type("D", (), {"__annotations__": {"a": int}})))[
            "required"
        ] == ["a"]

    def test_models_inside_plain_annotations(self):
        pydantic = pytest.importorskip("pydantic")
        inner = pydantic.create_model("Inner", a=(int, ...))
        outer = pydantic.create_model("Outer", inner=(inner, ...))

        def call(one: outer, n: int = pydantic.Field(gt=0), many: list[Annotated[int, pydantic.Field(le=5)]] = ()): ...

        call.__annotations__.update(
            one=outer, n=int, many=list[Annotated[int, pydantic.Field(le=5)]]
        )  # local names are no globals
        schema = to_schema(call)
        node = read_schema(schema)
        assert schema["required"] == ["one", "n"]
        assert node.properties["one"].properties["inner"].ref.properties["a"].types
        assert node.properties["n"].minimum == (0, True)
        assert node.properties["many"].items.maximum == (5, False)

    def test_it_is_not_imported_without_need(self):
        code = (
            "import sys, dataclasses; from outlines_core.json_schema.sources import to_schema\n"
            "def f(a: int): ...\n"
            "@dataclasses.dataclass\nclass D: a: int\n"
            "to_schema(f); to_schema(D); to_schema('{}'); print('pydantic' in sys.modules)"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == "False"


def test_schemas_from_classes_are_json():
    for source in (Node, Movie, Point, area, anything):
        assert json.loads(json.dumps(to_schema(source))) == to_schema(source)
