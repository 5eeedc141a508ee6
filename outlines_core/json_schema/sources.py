"""Whatever stands for a schema -> the schema as Python data.

JSON text, pydantic models, dataclasses, TypedDicts, Enums, signatures and plain annotations. Pydantic is asked for its
own classes, and for annotations that only it understands if the program has imported it; everything else is translated
by `annotations`, so that it works, and works the same, without pydantic.

Objects made from classes and signatures are closed (``additionalProperties: false``), as the constructor or the call
would refuse other names; ``**kwargs`` opens them.
"""

from __future__ import annotations

import importlib
import json
import re
from decimal import Decimal
from typing import Any, Final, NoReturn

from outlines_core.errors import ConstraintSyntaxError
from outlines_core.json_schema.annotations import is_annotation, is_pydantic, schema_of_annotation, schema_of_signature
from outlines_core.json_schema.depth import deeply
from outlines_core.json_schema.values import describe

__all__ = ["to_schema"]

_CONSTANT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)', re.DOTALL)
_LONG: Final = 4_000  # digits: Python refuses to read integers of 4,300


def to_schema(source: Any) -> dict[str, Any] | bool:
    """The JSON Schema that `source` stands for.

    Args:
        source: a schema as dict or bool (returned as it is) or as JSON text; a pydantic model or TypeAdapter; a
            dataclass, TypedDict or Enum class; another annotation such as ``list[int]``; a function, whose parameters
            become properties.

    Raises:
        ConstraintSyntaxError: the text is not JSON (`.offset`), or not a schema.
        UnsupportedFeatureError: an annotation that has no schema; `.path` says where.
        LimitExceededError: the text is nested too deep.

    >>> to_schema(list[int])
    {'type': 'array', 'items': {'type': 'integer'}}
    >>> def area(width: float, height: float = 1.0): ...
    >>> to_schema(area)["required"]
    ['width']
    """
    if isinstance(source, (dict, bool)):
        return source
    if isinstance(source, (str, bytes, bytearray)):
        return _from_text(source)
    foreign = _pydantic_schema(source)
    if foreign is not None:
        return foreign
    if is_annotation(source):
        return schema_of_annotation(source)
    if callable(source):
        return schema_of_signature(source)
    raise ConstraintSyntaxError(
        "a schema is a dict, a bool, JSON text, a pydantic model, a dataclass, a TypedDict, an Enum or a function, not "
        + describe(source)
    )


def _pydantic_schema(source: Any) -> dict[str, Any] | None:
    """The schema of an object of pydantic's own: a model class, a pydantic dataclass, a TypeAdapter."""
    if is_pydantic(source):
        if callable(getattr(source, "model_json_schema", None)):
            schema: dict[str, Any] = source.model_json_schema()
            return schema
        # One of its classes is at hand, so it is installed.
        source = importlib.import_module("pydantic").TypeAdapter(source)
    if type(source).__module__.partition(".")[0] == "pydantic" and callable(getattr(source, "json_schema", None)):
        of_adapter: dict[str, Any] = source.json_schema()
        return of_adapter
    return None


def _from_text(source: str | bytes | bytearray) -> dict[str, Any] | bool:
    if not isinstance(source, str):
        try:
            source = source.decode(json.detect_encoding(source))
        except UnicodeDecodeError as error:
            raise ConstraintSyntaxError(f"the schema is not Unicode text: {error}") from None
    source = source.removeprefix("\ufeff")
    try:
        schema = deeply(lambda: _parse(source))
    except json.JSONDecodeError as error:
        raise ConstraintSyntaxError(f"malformed JSON: {error.msg}", source=source, offset=error.pos) from None
    if not isinstance(schema, (dict, bool)):
        raise ConstraintSyntaxError(f"a schema must be an object, true or false, not {describe(schema)}", source=source)
    return schema


def _parse(source: str) -> Any:
    def refuse_constant(name: str) -> NoReturn:
        offset = next(match.start() for match in _CONSTANT.finditer(source) if match.group(1) == name)
        raise json.JSONDecodeError(f"{name} is no JSON value", source, offset)

    try:
        return json.loads(source, parse_float=Decimal, parse_constant=refuse_constant)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer that is too long for `int`; whether it matters is seen when it is used
        return json.loads(
            source,
            parse_float=Decimal,
            parse_constant=refuse_constant,
            parse_int=lambda digits: int(digits) if len(digits) <= _LONG else Decimal(digits),
        )
