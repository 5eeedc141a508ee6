"""One function per keyword: check its value, set the attributes of the node.

A handler is called with the reader, the node and the keyword's value. It raises at the first fault.
What violates a draft's meta-schema without leaving a doubt about the meaning is read all the same: repeated entries of
`required`, `type` or `enum`, an empty `required` in draft 4, boolean schemas there.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.dialects import FORMATS, Dialect
from outlines_core.json_schema.nodes import (
    ARRAY,
    BOOLEAN,
    INTEGER,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    Json,
    Pattern,
    SchemaNode,
)
from outlines_core.json_schema.places import escaped, shown
from outlines_core.json_schema.values import ValueFault, describe, normalise, number, parse_pattern

if TYPE_CHECKING:
    from outlines_core.json_schema.reader import Reader

__all__ = ["handlers_of"]

_Handler: TypeAlias = "Callable[[Reader, SchemaNode, Any], None]"

_TYPES: Final = {
    "null": NULL,
    "boolean": BOOLEAN,
    "integer": INTEGER,
    "number": INTEGER | NUMBER,
    "string": STRING,
    "array": ARRAY,
    "object": OBJECT,
}
_PLAIN: Final = frozenset({str, bool, type(None)})


def _type(reader: Reader, node: SchemaNode, value: Any) -> None:
    if value.__class__ is str and value in _TYPES:
        node.types = _TYPES[value]
        return
    types = 0
    for i, name in enumerate(value if isinstance(value, list) else [value]):
        if not isinstance(name, str) or name not in _TYPES:
            known = ", ".join(f'"{kind}"' for kind in _TYPES)
            steps = f"type/{i}" if isinstance(value, list) else "type"
            raise reader.fault(node, steps, f'"type" must be one of {known} or a list of them, not {describe(name)}')
        types |= _TYPES[name]
    if not types:
        raise reader.fault(node, "type", '"type" must name at least one type, not an empty array')
    node.types = types


def _constant(reader: Reader, node: SchemaNode, keyword: str, index: int | None, value: Any) -> Json:
    try:
        return normalise(value, reader.limits)
    except ValueFault as fault:
        steps = fault.steps if index is None else (index, *fault.steps)
        raise reader.fault(node, "/".join([keyword, *(escaped(str(step)) for step in steps)]), str(fault)) from None
    except LimitExceededError as error:
        raise reader.exceeded(node, keyword, error) from None


def _enum(reader: Reader, node: SchemaNode, value: Any) -> None:
    if not isinstance(value, list):
        raise reader.fault(node, "enum", f'"enum" must be an array, not {describe(value)}')
    if _PLAIN.issuperset(map(type, value)):
        node.enum = tuple(value)
    else:
        node.enum = tuple(_constant(reader, node, "enum", i, item) for i, item in enumerate(value))


def _const(reader: Reader, node: SchemaNode, value: Any) -> None:
    node.const = (_constant(reader, node, "const", None, value),)


def _exact(reader: Reader, node: SchemaNode, keyword: str, value: Any) -> Fraction:
    try:
        exact = number(value, reader.limits)
    except LimitExceededError as error:
        raise reader.exceeded(node, keyword, error) from None
    if exact is None:
        raise reader.fault(node, keyword, f'"{keyword}" must be a number, not {describe(value)}')
    return Fraction(exact)


def _bound(keyword: str, exclusive: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    modified = reader.base.dialect.boolean_exclusive and reader.schema.get(exclusive) is True
    _tighten(node, keyword, _exact(reader, node, keyword, value), modified)


def _exclusive(keyword: str, bound: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    dialect = reader.base.dialect
    if isinstance(value, bool) and dialect.boolean_exclusive:
        return  # the bound itself has looked at it
    if not dialect.numeric_exclusive:
        raise reader.fault(node, keyword, f'"{keyword}" must be true or false in draft 4, not {describe(value)}')
    _tighten(node, bound, _exact(reader, node, keyword, value), True)


def _tighten(node: SchemaNode, bound: str, value: Fraction, excluded: bool) -> None:
    given = (value, excluded)
    if bound == "minimum":
        node.minimum = given if node.minimum is None else max(node.minimum, given)
    elif node.maximum is None or value < node.maximum[0] or (value == node.maximum[0] and excluded):
        node.maximum = given


def _multiple_of(reader: Reader, node: SchemaNode, value: Any) -> None:
    exact = _exact(reader, node, "multipleOf", value)
    if exact <= 0:
        raise reader.fault(node, "multipleOf", f'"multipleOf" must be greater than 0, not {describe(value)}')
    node.multiple_of = exact


def _count(keyword: str, attribute: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    if value.__class__ is not int or not 0 <= value < 1 << 48:
        try:
            exact = number(value, reader.limits)
        except LimitExceededError as error:
            raise reader.exceeded(node, keyword, error) from None
        if not isinstance(exact, int) or exact < 0:
            raise reader.fault(node, keyword, f'"{keyword}" must be a non-negative integer, not {describe(value)}')
        value = exact
    setattr(node, attribute, value)


def _count_contains(keyword: str, attribute: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    _count(keyword, attribute, reader, node, value)
    if "contains" not in reader.schema:  # then it says nothing
        delattr(node, attribute)


def _unique_items(reader: Reader, node: SchemaNode, value: Any) -> None:
    if not isinstance(value, bool):
        raise reader.fault(node, "uniqueItems", f'"uniqueItems" must be true or false, not {describe(value)}')
    node.unique_items = value


def _regex(reader: Reader, node: SchemaNode, steps: str, source: Any) -> Pattern | None:
    """The pattern; None if it is unsupported and the caller of the reader takes note of that."""
    if not isinstance(source, str):
        raise reader.fault(node, steps, f"a regular expression must be a string, not {describe(source)}")
    try:
        return parse_pattern(source, reader.limits)
    except ConstraintSyntaxError as error:
        place = f"{node.pointer}/{steps}"
        raise ConstraintSyntaxError(f"malformed regular expression (at {shown(place)}): {error}", path=place) from error
    except UnsupportedFeatureError as error:
        place = f"{node.pointer}/{steps}"
        reader.refuse(
            UnsupportedFeatureError(
                f"unsupported regular expression (at {shown(place)}): {error}", feature=error.feature, path=place
            )
        )
        return None
    except LimitExceededError as error:
        raise reader.exceeded(node, steps, error) from error


def _pattern(reader: Reader, node: SchemaNode, value: Any) -> None:
    node.pattern = _regex(reader, node, "pattern", value)


def _format(reader: Reader, node: SchemaNode, value: Any) -> None:
    if not isinstance(value, str):
        raise reader.fault(node, "format", f'"format" must be a string, not {describe(value)}')
    if value in FORMATS:
        node.format = value


def _child(keyword: str, attribute: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    setattr(node, attribute, reader.child(value, node, keyword))


def _branch(keyword: str, attribute: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    if "if" in reader.schema:  # else it says nothing
        setattr(node, attribute, reader.child(value, node, keyword))


def _children(reader: Reader, node: SchemaNode, keyword: str, value: Any) -> tuple[SchemaNode, ...]:
    if not isinstance(value, list):
        raise reader.fault(node, keyword, f'"{keyword}" must be an array of schemas, not {describe(value)}')
    return tuple([reader.child(item, node, keyword, i) for i, item in enumerate(value)])


def _combination(keyword: str, attribute: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    members = _children(reader, node, keyword, value)
    if not members:
        raise reader.fault(node, keyword, f'"{keyword}" must hold at least one schema, not an empty array')
    setattr(node, attribute, getattr(node, attribute) + members)


def _named(reader: Reader, node: SchemaNode, keyword: str, value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise reader.fault(node, keyword, f'"{keyword}" must be an object of {what}, not {describe(value)}')
    for name in value:
        if name.__class__ is not str and not isinstance(name, str):
            raise reader.fault(node, keyword, f"an object's key must be a string, not {describe(name)}")
    return value


def _properties(reader: Reader, node: SchemaNode, value: Any) -> None:
    child = reader.child
    named = _named(reader, node, "properties", value, "schemas")
    node.properties = {name: child(item, node, "properties", name) for name, item in named.items()}


def _pattern_properties(reader: Reader, node: SchemaNode, value: Any) -> None:
    found: list[tuple[Pattern, SchemaNode]] = []
    for source, item in _named(reader, node, "patternProperties", value, "schemas").items():
        pattern = _regex(reader, node, "patternProperties/" + escaped(source), source)
        schema_of = reader.child(item, node, "patternProperties", source)
        if pattern is not None:
            found.append((pattern, schema_of))
    node.pattern_properties = tuple(found)


def _items(reader: Reader, node: SchemaNode, value: Any) -> None:
    if not isinstance(value, list):
        node.items = reader.child(value, node, "items")
        return
    dialect = reader.base.dialect
    if not dialect.item_lists or ("prefixItems" in reader.schema and "prefixItems" in dialect.keywords):
        raise reader.fault(
            node, "items", '"items" must be a schema, not an array (lists of schemas are "prefixItems" from 2020-12)'
        )
    node.prefix_items = _children(reader, node, "items", value)
    if "additionalItems" in reader.schema and "additionalItems" in dialect.keywords:
        node.items = reader.child(reader.schema["additionalItems"], node, "additionalItems")


def _additional_items(reader: Reader, node: SchemaNode, value: Any) -> None:
    """Read by `items`, and void without an `items` list."""
    if not isinstance(value, (dict, bool)):
        raise reader.fault(node, "additionalItems", f'"additionalItems" must be a schema, not {describe(value)}')


def _prefix_items(reader: Reader, node: SchemaNode, value: Any) -> None:
    node.prefix_items = _children(reader, node, "prefixItems", value)


def _contains(reader: Reader, node: SchemaNode, value: Any) -> None:
    node.contains = reader.child(value, node, "contains")
    node.contains_evaluates = reader.base.dialect.contains_evaluates


def _names(reader: Reader, node: SchemaNode, steps: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise reader.fault(node, steps, f"an array of property names is expected, not {describe(value)}")
    for i, name in enumerate(value):
        if name.__class__ is not str and not isinstance(name, str):
            raise reader.fault(node, f"{steps}/{i}", f"a property name must be a string, not {describe(name)}")
    return tuple(dict.fromkeys(value))


def _required(reader: Reader, node: SchemaNode, value: Any) -> None:
    node.required = _names(reader, node, "required", value)


def _dependent_required(reader: Reader, node: SchemaNode, value: Any) -> None:
    for name, needed in _named(reader, node, "dependentRequired", value, "arrays of property names").items():
        _require(node, name, _names(reader, node, "dependentRequired/" + escaped(name), needed))


def _dependent_schemas(reader: Reader, node: SchemaNode, value: Any) -> None:
    for name, item in _named(reader, node, "dependentSchemas", value, "schemas").items():
        _depend(reader, node, name, reader.child(item, node, "dependentSchemas", name))


def _dependencies(reader: Reader, node: SchemaNode, value: Any) -> None:
    for name, item in _named(reader, node, "dependencies", value, "schemas or arrays of property names").items():
        if isinstance(item, list):
            _require(node, name, _names(reader, node, "dependencies/" + escaped(name), item))
        else:
            _depend(reader, node, name, reader.child(item, node, "dependencies", name))


def _require(node: SchemaNode, name: str, needed: tuple[str, ...]) -> None:
    both = node.dependent_required.get(name, ()) + needed
    node.dependent_required = {**node.dependent_required, name: tuple(dict.fromkeys(both))}


def _depend(reader: Reader, node: SchemaNode, name: str, schema: SchemaNode) -> None:
    known = node.dependent_schemas.get(name)
    if known is not None:  # from `dependencies` and `dependentSchemas`
        both = reader.made(node)
        both.all_of = (known, schema)
        schema = both
    node.dependent_schemas = {**node.dependent_schemas, name: schema}


def _ref(keyword: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    if not isinstance(value, str):
        raise reader.fault(node, keyword, f'"{keyword}" must be a URI reference, not {describe(value)}')
    reader.refer(node, keyword, value)


def _identifier(keyword: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    if not isinstance(value, str):
        raise reader.fault(node, keyword, f'"{keyword}" must be a URI reference, not {describe(value)}')
    fragment = value.partition("#")[2]
    if fragment and not reader.base.dialect.fragment_ids:
        raise reader.fault(
            node, keyword, f'"{keyword}" must have no fragment, not {describe(value)} (use "$anchor" for a name)'
        )


def _anchor(keyword: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    if not isinstance(value, str):
        raise reader.fault(node, keyword, f'"{keyword}" must be a string, not {describe(value)}')


def _recursive_anchor(reader: Reader, node: SchemaNode, value: Any) -> None:
    if not isinstance(value, bool):
        raise reader.fault(node, "$recursiveAnchor", f'"$recursiveAnchor" must be true or false, not {describe(value)}')


def _definitions(keyword: str, reader: Reader, node: SchemaNode, value: Any) -> None:
    """They are read if something refers to them."""
    if not isinstance(value, dict):
        raise reader.fault(node, keyword, f'"{keyword}" must be an object of schemas, not {describe(value)}')


_HANDLERS: Final[dict[str, _Handler]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "multipleOf": _multiple_of,
    "pattern": _pattern,
    "format": _format,
    "uniqueItems": _unique_items,
    "items": _items,
    "additionalItems": _additional_items,
    "prefixItems": _prefix_items,
    "contains": _contains,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "required": _required,
    "dependencies": _dependencies,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "$recursiveAnchor": _recursive_anchor,
    "minimum": partial(_bound, "minimum", "exclusiveMinimum"),
    "maximum": partial(_bound, "maximum", "exclusiveMaximum"),
    "exclusiveMinimum": partial(_exclusive, "exclusiveMinimum", "minimum"),
    "exclusiveMaximum": partial(_exclusive, "exclusiveMaximum", "maximum"),
    "minContains": partial(_count_contains, "minContains", "min_contains"),
    "maxContains": partial(_count_contains, "maxContains", "max_contains"),
    "then": partial(_branch, "then", "then"),
    "else": partial(_branch, "else", "else_"),
    **{key: partial(_ref, key) for key in ("$ref", "$dynamicRef", "$recursiveRef")},
    **{key: partial(_identifier, key) for key in ("$id", "id")},
    **{key: partial(_anchor, key) for key in ("$anchor", "$dynamicAnchor")},
    **{key: partial(_definitions, key) for key in ("$defs", "definitions")},
    **{
        key: partial(_count, key, attribute)
        for key, attribute in {
            "minLength": "min_length",
            "maxLength": "max_length",
            "minItems": "min_items",
            "maxItems": "max_items",
            "minProperties": "min_properties",
            "maxProperties": "max_properties",
        }.items()
    },
    **{
        key: partial(_child, key, attribute)
        for key, attribute in {
            "additionalProperties": "additional",
            "propertyNames": "property_names",
            "unevaluatedItems": "unevaluated_items",
            "unevaluatedProperties": "unevaluated_properties",
            "not": "not_",
            "if": "if_",
        }.items()
    },
    **{
        key: partial(_combination, key, attribute)
        for key, attribute in {"allOf": "all_of", "anyOf": "any_of", "oneOf": "one_of"}.items()
    },
}


def handlers_of(dialect: Dialect) -> dict[str, _Handler]:
    """The handler of each keyword that `dialect` defines."""
    if not dialect.handlers:
        # Without a declared dialect an "id" may be an annotation as well: it is no fault if it is not a string.
        void = {"id"} if len(dialect.id_keys) > 1 else set()
        dialect.handlers = {key: _HANDLERS[key] for key in sorted(dialect.keywords & _HANDLERS.keys() - void)}
    return dialect.handlers
