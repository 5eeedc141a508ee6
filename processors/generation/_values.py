"""Python types -> a JSON Schema whose texts the type accepts, and texts -> values.  Needs pydantic.

Pydantic says what a type's schema is and reads the text. Its schemas are a little too wide for that: a text may satisfy
one and yet be no value. So they are narrowed here, each where pydantic makes it:

- objects made from classes are closed (unless the class takes others), since what is not a field would be thrown away;
- dates begin with year 1, seconds end with 59, durations fit into a timedelta, floats into 64 bits;
- strings have no lone surrogates; keys of dicts are strings;
- a Decimal is written as a number.

JSON numbers have no type: 2, 2.0 and 0.2e1 are one value. Integral numbers are handed to pydantic as integers, so that
any field that can hold the value gets it. What only a validator of the user's own knows stays out of the schema; if it
refuses a value, its ValidationError says so.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pydantic
import typing_extensions
from pydantic.json_schema import GenerateJsonSchema

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.json_schema.annotations import is_annotation

__all__ = ["Values"]

_LARGEST: Final = sys.float_info.max
_TEXT: Final = "^[^\\ud800-\\udfff]*$"
_FLOAT: Final = {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST}
_ANY_MARK: Final = "any value, in a schema that is being made"
_ANY_NAME: Final = "any value"
_ANY_REF: Final = {"$ref": f"#/$defs/{_ANY_NAME}"}
_ANY: Final = {
    "anyOf": [
        {"type": ["null", "boolean"]},
        _FLOAT,
        {"type": "string", "pattern": _TEXT},
        {"type": "array", "items": _ANY_REF},
        {"type": "object", "propertyNames": {"pattern": _TEXT}, "additionalProperties": _ANY_REF},
    ]
}
"""What `typing.Any` takes: the narrowing of floats and strings holds inside it as well."""
_NUMBER: Final = re.compile(r'("(?:[^"\\]|\\.)*")|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?')

_Schema = dict[str, Any]


class Values:
    """The texts and values of one type.

    Attributes:
        schema: the JSON Schema of the texts.

    >>> values = Values(list[int])
    >>> values.schema
    {'items': {'type': 'integer'}, 'type': 'array'}
    >>> values.parse("[1, 2.0, 3e2]")
    [1, 2, 300]
    """

    def __init__(self, output_type: Any) -> None:
        """Ask pydantic.

        Args:
            output_type: a type; or a function (or a class that is no type to pydantic), whose values are dicts of
                arguments to call it with.

        Raises:
            UnsupportedFeatureError: a type that has no schema, or none that can be narrowed to its values.
        """
        if not isinstance(output_type, type) and not is_annotation(output_type) and callable(output_type):
            output_type = _arguments(output_type)
        try:
            self._adapter = _adapter(output_type)
            self.schema = self._adapter.json_schema(schema_generator=_Narrowed)
        except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
            raise UnsupportedFeatureError(
                f"{output_type!r} has no JSON Schema: {str(error).partition(chr(10))[0]}", feature="annotation"
            ) from error

    def parse(self, text: str) -> Any:
        """The value of a text.

        Raises:
            pydantic.ValidationError: a validator that the schema does not show has refused it.
        """
        return self._adapter.validate_json(_NUMBER.sub(_integral, text))


def _adapter(output_type: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return pydantic.TypeAdapter(_with_typed_dicts(output_type, ()))
    except pydantic.errors.PydanticSchemaGenerationError:
        if not isinstance(output_type, type):
            raise
        return pydantic.TypeAdapter(_arguments(output_type))


def _integral(match: re.Match[str]) -> str:
    """A number as an integer if it is one."""
    text = match[0]
    if match[1] is not None or not any(mark in text for mark in ".eE"):
        return text
    number = Decimal(text)
    return str(int(number)) if number == number.to_integral_value() else text


class _Narrowed(GenerateJsonSchema):
    """Schemas of texts that can be read."""

    def generate(self, schema: Any, mode: Any = "validation") -> _Schema:
        made: _Schema = _with_any(super().generate(schema, mode))
        if json.dumps(_ANY_REF) in json.dumps(made):
            made["$defs"] = {**made.get("$defs", {}), _ANY_NAME: _ANY}
        return made

    def any_schema(self, schema: Any) -> _Schema:  # noqa: ARG002
        return {"$comment": _ANY_MARK}

    def str_schema(self, schema: Any) -> _Schema:
        return _and_pattern(super().str_schema(schema), _TEXT)

    def float_schema(self, schema: Any) -> _Schema:
        made = super().float_schema(schema)
        return made if set(made) & {"exclusiveMinimum", "exclusiveMaximum"} else {**_FLOAT, **made}

    def decimal_schema(self, schema: Any) -> _Schema:
        made = super().decimal_schema(schema)
        for one in made.get("anyOf", ()):
            if one.get("type") == "number":
                return dict(one)
        return made

    def complex_schema(self, schema: Any) -> _Schema:  # noqa: ARG002
        raise UnsupportedFeatureError("complex numbers have no JSON Schema", feature="annotation")

    def date_schema(self, schema: Any) -> _Schema:
        return _and_pattern(super().date_schema(schema), "^(?!0000)")

    def datetime_schema(self, schema: Any) -> _Schema:
        return _and_pattern(super().datetime_schema(schema), "^(?!0000)(?!.{16}:60)")

    def time_schema(self, schema: Any) -> _Schema:
        return _and_pattern(super().time_schema(schema), "^(?!.{5}:60)")

    def timedelta_schema(self, schema: Any) -> _Schema:
        made = super().timedelta_schema(schema)
        return made if made.get("type") == "number" else _and_pattern(made, "^(?!.*[0-9]{7})")

    def dict_schema(self, schema: Any) -> _Schema:
        keys = schema.get("keys_schema", {"type": "any"})
        if keys["type"] not in ("any", "str", "literal", "enum"):
            raise UnsupportedFeatureError(
                f"keys of type {keys['type']}: the keys of JSON objects are strings", feature="annotation"
            )
        made = super().dict_schema(schema)
        if keys["type"] in ("any", "str"):
            made.setdefault("propertyNames", {"pattern": _TEXT})
        return made

    def model_schema(self, schema: Any) -> _Schema:
        return _closed(super().model_schema(schema))

    def dataclass_schema(self, schema: Any) -> _Schema:
        return _closed(super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: Any) -> _Schema:
        return _closed(super().typed_dict_schema(schema))


def _with_any(made: Any) -> Any:
    """A schema with the schema of any value wherever it says, in pydantic's ways, that there is one."""
    if isinstance(made, list):
        return [_with_any(one) for one in made]
    if not isinstance(made, dict):
        return made
    made = {name: _with_any(one) for name, one in made.items()}
    if made.get("$comment") == _ANY_MARK:
        del made["$comment"]
        made |= _ANY_REF
    if made.get("type") == "array" and made.get("items") == {}:
        made["items"] = _ANY_REF
    if made.get("type") == "object" and made.get("additionalProperties") is True:
        made["additionalProperties"] = _ANY_REF
        made.setdefault("propertyNames", {"pattern": _TEXT})
    return made


def _and_pattern(made: _Schema, pattern: str) -> _Schema:
    if "pattern" in made:
        return {**made, "allOf": [*made.get("allOf", ()), {"pattern": pattern}]}
    return {**made, "pattern": pattern}


def _closed(made: _Schema) -> _Schema:
    if "properties" in made or made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


# -- types that pydantic does not take as they are -------------------------------------------------------------------


def _arguments(function: Callable[..., Any]) -> Any:
    """The keyword arguments of a call as a TypedDict; ``*args`` and ``**kwargs`` stay empty."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        parameters = inspect.signature(function).parameters
        hinted: Any = function
        while isinstance(hinted, functools.partial):
            hinted = hinted.func
        hinted = hinted.__init__ if isinstance(hinted, type) else hinted  # type: ignore[misc]
        hinted = hinted if hasattr(hinted, "__annotations__") else type(hinted).__call__
        hints = typing.get_type_hints(hinted, include_extras=True)
    except (AttributeError, NameError, SyntaxError, TypeError, ValueError) as error:
        raise UnsupportedFeatureError(f"the signature of {name} is not known: {error}", feature="annotation") from error
    fields: dict[str, Any] = {}
    for parameter in parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise UnsupportedFeatureError(
                f"{name} takes {parameter.name} by position only: arguments are generated by name", feature="annotation"
            )
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint, default = hints.get(parameter.name, Any), parameter.default
        is_optional = default is not parameter.empty
        if isinstance(default, pydantic.fields.FieldInfo):
            hint, is_optional = typing.Annotated[hint, default], not default.is_required()
        fields[parameter.name] = typing_extensions.NotRequired[hint] if is_optional else hint
    return typing_extensions.TypedDict(name, fields)  # type: ignore[operator]


def _with_typed_dicts(annotation: Any, outer: tuple[Any, ...]) -> Any:
    """`annotation` with the TypedDicts of `typing_extensions` in it, which pydantic wants below Python 3.12."""
    if sys.version_info >= (3, 12):
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, dict) and hasattr(annotation, "__total__"):
        if typing_extensions.is_typeddict(annotation) and type(annotation).__module__ == "typing_extensions":
            return annotation
        if annotation in outer:
            raise UnsupportedFeatureError(
                f"{annotation.__qualname__} contains itself: use typing_extensions.TypedDict below Python 3.12",
                feature="annotation",
            )
        required: frozenset[str] = annotation.__required_keys__  # type: ignore[attr-defined]
        fields: dict[str, Any] = {}
        for name, hint in typing.get_type_hints(annotation, include_extras=True).items():
            while typing.get_origin(hint) in (typing.Required, typing.NotRequired):
                hint = typing.get_args(hint)[0]
            hint = _with_typed_dicts(hint, (*outer, annotation))
            fields[name] = hint if name in required else typing_extensions.NotRequired[hint]
        return typing_extensions.TypedDict(annotation.__name__, fields)  # type: ignore[operator]
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if not arguments or origin is typing.Literal:
        return annotation
    if origin is typing.Annotated:
        return typing.Annotated[(_with_typed_dicts(arguments[0], outer), *annotation.__metadata__)]
    made = tuple(_with_typed_dicts(one, outer) if one is not Ellipsis else one for one in arguments)
    if made == arguments:
        return annotation
    if origin in (typing.Union, types.UnionType):
        return typing.Union[made]  # noqa: UP007 -- of a tuple
    return origin[made]
