"""Python annotations -> JSON Schema, without pydantic where the annotations are plain.

Classes with named parts (dataclasses, TypedDicts) become definitions, so they may be recursive; the class that was
asked for is the root. What is not understood here is left to pydantic if the program has imported it, and refused
otherwise: a constraint (``Annotated[int, Gt(0)]``) is never dropped silently.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import enum
import importlib
import inspect
import math
import sys
import types
import typing
import uuid
from typing import Any, Final

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.json_schema.places import escaped, shown

__all__ = ["is_annotation", "is_pydantic", "schema_of_annotation", "schema_of_signature"]

_Schema = dict[str, Any]

_LEAVES: Final[dict[Any, _Schema]] = {
    Any: {},
    object: {},
    None: {"type": "null"},
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    dt.datetime: {"type": "string", "format": "date-time"},
    dt.date: {"type": "string", "format": "date"},
    dt.time: {"type": "string", "format": "time"},
    dt.timedelta: {"type": "string", "format": "duration"},
    uuid.UUID: {"type": "string", "format": "uuid"},
}
_LISTS: Final = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)
_SETS: Final = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WRAPPERS: Final = frozenset({"Required", "NotRequired", "ReadOnly", "Final"})
_CONSTRAINTS: Final = frozenset({"annotated_types", "pydantic", "pydantic_core"})


def is_annotation(source: Any) -> bool:
    """Is it a type to translate, not a function whose signature counts?"""
    if source is None:
        return False
    if typing.get_origin(source) is not None or isinstance(source, typing.NewType) or _alias_value(source) is not None:
        return True
    if source is Any:
        return True
    if not isinstance(source, type):
        return False
    return (
        source in _LEAVES
        or source in (*_LISTS, *_SETS, *_MAPPINGS, tuple)
        or dataclasses.is_dataclass(source)
        or _is_typed_dict(source)
        or issubclass(source, enum.Enum)
        or is_pydantic(source)
    )


def is_pydantic(source: Any) -> bool:
    """Is it a model class or a dataclass of pydantic's?"""
    return isinstance(source, type) and hasattr(source, "__pydantic_validator__")


def schema_of_annotation(annotation: Any) -> _Schema:
    """The schema of the JSON values that `annotation` describes.

    Raises:
        UnsupportedFeatureError: it has none; `.path` is the pointer in the schema where it would stand.
    """
    builder = _Builder()
    if isinstance(annotation, type) and (dataclasses.is_dataclass(annotation) or _is_typed_dict(annotation)):
        builder.names[annotation] = "#"
        return builder.finished(builder.named(annotation, ""))
    return builder.finished(builder.schema(annotation, ""))


def schema_of_signature(function: Any) -> _Schema:
    """The schema of the keyword arguments that `function` can be called with (``*args`` stay empty)."""
    builder = _Builder()
    return builder.finished(builder.parameters(function, ""))


class _Builder:
    def __init__(self) -> None:
        self.names: dict[Any, str] = {}  # references by class
        self._definitions: _Schema = {}
        self._n_foreign = 0

    def finished(self, schema: _Schema) -> _Schema:
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def schema(self, annotation: Any, place: str) -> _Schema:
        """The schema of `annotation`, which stands at `place` in the whole one."""
        try:
            leaf = _LEAVES.get(annotation)
        except TypeError:  # unhashable: metadata, or a value by mistake
            leaf = None
        if leaf is not None:
            return dict(leaf)
        if isinstance(annotation, typing.NewType):
            return self.schema(annotation.__supertype__, place)
        alias = _alias_value(annotation)
        if alias is not None:
            return self.schema(alias, place)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is not None:
            return self._generic(annotation, origin, arguments, place)
        if isinstance(annotation, type):
            if is_pydantic(annotation):
                return self._foreign(annotation, place)
            if issubclass(annotation, enum.Enum):
                return self._values(annotation, [member.value for member in annotation], place)
            if dataclasses.is_dataclass(annotation) or _is_typed_dict(annotation):
                return self._reference(annotation)
            if annotation in (*_LISTS, *_SETS, *_MAPPINGS, tuple):
                return self._generic(annotation, annotation, (), place)
        return self._foreign(annotation, place)

    def _generic(self, annotation: Any, origin: Any, arguments: tuple[Any, ...], place: str) -> _Schema:
        if origin is typing.Annotated:
            metadata = annotation.__metadata__
            if any(type(item).__module__.partition(".")[0] in _CONSTRAINTS for item in metadata):
                return self._foreign(annotation, place)
            return self.schema(annotation.__origin__, place)
        if origin is typing.Literal:
            values = [item.value if isinstance(item, enum.Enum) else item for item in arguments]
            return self._values(annotation, values, place)
        if origin is typing.Union or origin is types.UnionType:
            return {"anyOf": [self.schema(item, f"{place}/anyOf/{i}") for i, item in enumerate(arguments)]}
        if getattr(origin, "_name", None) in _WRAPPERS:
            return self.schema(arguments[0], place)
        if origin in _LISTS or origin in _SETS:
            made: _Schema = {"type": "array"}
            if arguments:
                made["items"] = self.schema(arguments[0], place + "/items")
            return {**made, "uniqueItems": True} if origin in _SETS else made
        if origin in _MAPPINGS:
            return self._mapping(arguments, place)
        if origin is tuple:
            return self._tuple(annotation, arguments, place)
        return self._foreign(annotation, place)

    def _mapping(self, arguments: tuple[Any, ...], place: str) -> _Schema:
        made: _Schema = {"type": "object"}
        if arguments:
            key, value = arguments
            if key is not str and key is not Any:
                names = self.schema(key, place + "/propertyNames")
                allowed = [names["const"]] if "const" in names else names.get("enum", [])
                textual = bool(allowed) and all(isinstance(item, str) for item in allowed)
                if names.get("type") != "string" and not textual:
                    raise _unsupported(key, place, "the keys of JSON objects are strings")
                made["propertyNames"] = names
            made["additionalProperties"] = self.schema(value, place + "/additionalProperties")
        return made

    def _tuple(self, annotation: Any, arguments: tuple[Any, ...], place: str) -> _Schema:
        if annotation in (tuple, typing.Tuple):  # noqa: UP006
            return {"type": "array"}
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": self.schema(arguments[0], place + "/items")}
        made: _Schema = {"type": "array", "minItems": len(arguments), "maxItems": len(arguments)}
        if arguments:
            made["prefixItems"] = [self.schema(a, f"{place}/prefixItems/{i}") for i, a in enumerate(arguments)]
        return made

    def _values(self, annotation: Any, values: list[Any], place: str) -> _Schema:
        for value in values:
            if not _is_json(value):
                raise _unsupported(annotation, place, f"{value!r} is not a JSON value")
        return {"const": values[0]} if len(values) == 1 else {"enum": values}

    def _reference(self, cls: type) -> _Schema:
        if cls not in self.names:
            name, n = cls.__name__, 1
            while name in self._definitions:
                n += 1
                name = f"{cls.__name__}_{n}"
            self.names[cls] = "#/$defs/" + escaped(name)
            self._definitions[name] = {}  # reserves the name, and the order of first use
            self._definitions[name] = self.named(cls, "/$defs/" + escaped(name))
        return {"$ref": self.names[cls]}

    def named(self, cls: type, place: str) -> _Schema:
        """The schema of a dataclass or a TypedDict."""
        if not _is_typed_dict(cls):
            return self.parameters(cls, place)
        required = set(getattr(cls, "__required_keys__", ()))
        properties: _Schema = {}
        for name, hint in _hints(cls, place).items():
            form = hint
            while getattr(typing.get_origin(form), "_name", None) in _WRAPPERS:
                kind = typing.get_origin(form)._name
                # String annotations hide these from the class itself.
                if kind == "Required":
                    required.add(name)
                elif kind == "NotRequired":
                    required.discard(name)
                form = typing.get_args(form)[0]
            properties[name] = self.schema(form, f"{place}/properties/{escaped(name)}")
        return _object(properties, [name for name in properties if name in required], False)

    def parameters(self, function: Any, place: str) -> _Schema:
        """The schema of the arguments of a call, by name."""
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            raise _unsupported(function, place, "its signature is not known") from None
        hints = _hints(function, place)
        properties: _Schema = {}
        required: list[str] = []
        additional: _Schema | bool = False
        for name, parameter in signature.parameters.items():
            hint = hints.get(name, Any)
            if isinstance(hint, dataclasses.InitVar):
                hint = hint.type
            if parameter.kind is parameter.VAR_KEYWORD:
                additional = self.schema(hint, place + "/additionalProperties") if hint is not Any else True
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                continue
            default = parameter.default
            below = f"{place}/properties/{escaped(name)}"
            if type(default).__module__.partition(".")[0] == "pydantic":  # x: int = Field(gt=0)
                properties[name] = self._foreign(typing.Annotated[hint, default], below)
                optional = not getattr(default, "is_required", bool)()
            else:
                properties[name] = self.schema(hint, below)
                optional = default is not parameter.empty
            if not optional:
                required.append(name)
        return _object(properties, required, additional)

    def _foreign(self, annotation: Any, place: str) -> _Schema:
        """The schema that pydantic makes of `annotation`, its definitions moved to ours."""
        pydantic = sys.modules.get("pydantic")
        if pydantic is None and typing.get_origin(annotation) is typing.Annotated:
            try:
                pydantic = importlib.import_module("pydantic")
            except ImportError:
                raise _unsupported(annotation, place, "its constraints need pydantic") from None
        if pydantic is None:
            raise _unsupported(annotation, place, "use plain types, or pydantic's")
        self._n_foreign += 1
        prefix = f"{self._n_foreign}."
        try:
            made: _Schema = pydantic.TypeAdapter(annotation).json_schema(ref_template="#/$defs/" + prefix + "{model}")
        except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
            raise _unsupported(annotation, place, str(error).partition("\n")[0]) from error
        for name, definition in made.pop("$defs", {}).items():
            self._definitions[prefix + name] = definition
        return made


def _object(properties: _Schema, required: list[str], additional: _Schema | bool) -> _Schema:
    made: _Schema = {"type": "object", "properties": properties}
    if required:
        made["required"] = required
    if additional is not True:
        made["additionalProperties"] = additional
    return made


def _hints(source: Any, place: str) -> dict[str, Any]:
    """The annotations of a class or function, forward references resolved."""
    while hasattr(source, "func") and hasattr(source, "keywords"):  # functools.partial
        source = source.func
    if isinstance(source, type) and not _is_typed_dict(source):
        parameters = getattr(source, "__dataclass_params__", None)
        if parameters is None or not parameters.init:
            source = source.__init__  # type: ignore[misc]
    elif not isinstance(source, type) and not hasattr(source, "__annotations__"):
        source = type(source).__call__
    try:
        return typing.get_type_hints(source, include_extras=True)
    except (AttributeError, NameError, SyntaxError, TypeError) as error:
        raise _unsupported(source, place, f"its annotations cannot be resolved: {error}") from error


def _alias_value(annotation: Any) -> Any:
    """What a ``type X = ...`` statement (or `TypeAliasType`) stands for."""
    return annotation.__value__ if type(annotation).__name__ == "TypeAliasType" else None


def _is_typed_dict(source: Any) -> bool:
    return isinstance(source, type) and issubclass(source, dict) and hasattr(source, "__total__")


def _is_json(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, str)):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, dict) and all(isinstance(key, str) and _is_json(item) for key, item in value.items())


def _unsupported(annotation: Any, place: str, reason: str) -> UnsupportedFeatureError:
    name = annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
    return UnsupportedFeatureError(
        f"{name} has no JSON Schema: {reason} (at {shown(place)})", feature="annotation", path=place
    )
