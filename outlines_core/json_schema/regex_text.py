r"""JSON Schema -> the text of one regex: `build_regex_from_schema`, as in the PyPI package `outlines_core`.

A regex is less than `compile_json_schema`, and comes from a time before it: values nest to a fixed depth, and what it
cannot say (`uniqueItems`, `contains`, keys in any order, ...) is refused by name. What it does say is right: every
text that it matches is a JSON text of a valid value. Not every valid value is matched; by convention, which is that
package's,

* whitespace is what `whitespace_pattern` says, in the places where that package has it;
* strings have the short escapes and no ``\uXXXX``, exponents have a sign, bounded numbers have no exponent;
* objects have their keys in the order of `properties`, then others; with `properties` or `patternProperties`
  there are no others unless `additionalProperties` is given;
* `prefixItems` without `items`, `minItems` or `maxItems` means exactly these items;
* `properties` without `type` means objects, `prefixItems` without `type` arrays;
* anything at all is a value nested at most three deep; references go through one schema at most
  ``max_recursion_depth + 1`` times, and what would need more is left out;
* the formats date, date-time, time, uuid, uri and email are the constants below.

Where only such things are asked, the text is that package's to the character. The schema is read and lowered by the
same code that `compile_json_schema` runs on: `allOf`, references with siblings, conditions come here as formulas over
the types, and each of their cubes becomes an alternative.

>>> build_regex_from_schema('{"type": "array", "items": {"type": "integer"}, "maxItems": 2}')
'\\[[ ]?(((-)?(0|[1-9][0-9]*))(,[ ]?((-)?(0|[1-9][0-9]*))){0,1})?[ ]?\\]'
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Final

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError, UnsatisfiableError, UnsupportedFeatureError
from outlines_core.json_schema import regex_constants as constants
from outlines_core.json_schema.depth import deeply
from outlines_core.json_schema.formats import format_parts
from outlines_core.json_schema.formula import FALSE, Cube, Formula
from outlines_core.json_schema.lexemes import Lexemes
from outlines_core.json_schema.lower import FALSE_SUB, TRUE_SUB, Lowering, Scope, Sub
from outlines_core.json_schema.nodes import (
    ALL_TYPES,
    ARRAY,
    INTEGER,
    NUMBER,
    OBJECT,
    STRING,
    Json,
    SchemaNode,
)
from outlines_core.json_schema.nodes import BOOLEAN as BOOLEAN_TYPE
from outlines_core.json_schema.nodes import NULL as NULL_TYPE
from outlines_core.json_schema.reader import read_schema
from outlines_core.json_schema.regex_containers import array_text, escaped, object_text
from outlines_core.json_schema.regex_numbers import decimal_text, numbers_text
from outlines_core.json_schema.regex_strings import body_text
from outlines_core.json_schema.sat import Satisfiability, Usable
from outlines_core.json_schema.splits import Props, Split
from outlines_core.limits import DEFAULT_LIMITS
from outlines_core.regex.ast import Alternation, CharSet, Empty, Literal, Node, Repeat
from outlines_core.regex.charset import ALL

__all__ = ["Writer", "build_regex_from_schema", "to_regex"]

_DEPTH: Final = 2  # of arrays and objects of which nothing is known
_NAMES: Final = {
    "null": NULL_TYPE,
    "boolean": BOOLEAN_TYPE,
    "integer": INTEGER,
    "number": NUMBER,
    "string": STRING,
    "array": ARRAY,
    "object": OBJECT,
}
_OF_TYPE: Final = {
    STRING: {"min_length", "max_length", "pattern", "format"},
    NUMBER: {"minimum", "maximum", "multiple_of"},
    ARRAY: {
        "prefix_items",
        "items",
        "contains",
        "contains_evaluates",
        "min_contains",
        "max_contains",
        "min_items",
        "max_items",
        "unique_items",
    },
    OBJECT: {
        "properties",
        "pattern_properties",
        "additional",
        "property_names",
        "required",
        "min_properties",
        "max_properties",
        "dependent_required",
    },
}
_INTEGER_DIGITS: Final = ("minDigits", "maxDigits")
_NUMBER_DIGITS: Final = ("DigitsInteger", "DigitsFraction", "DigitsExponent")


def build_regex_from_schema(
    json_schema: str, whitespace_pattern: str | None = None, max_recursion_depth: int = 3
) -> str:
    """The pattern of JSON texts whose values satisfy a schema; the module says which of them.

    Args:
        json_schema: the schema as JSON text.
        whitespace_pattern: what stands between JSON tokens; default `WHITESPACE`.
        max_recursion_depth: how often a reference may lead back into the schema that it stands in.

    Raises:
        TypeError: `json_schema` is no JSON text.
        ConstraintSyntaxError: a malformed schema.
        UnsupportedFeatureError: what a regex cannot say, with `.feature` and `.path`.
        UnsatisfiableError: no value satisfies the schema.
        LimitExceededError: the recursion has no end within its depth, or the pattern would be too long.
    """
    if not isinstance(json_schema, str):
        raise TypeError(f"argument 'json_schema': '{type(json_schema).__name__}' object cannot be cast as 'str'")
    try:
        document = json.loads(json_schema)
    except ValueError as error:
        raise TypeError("Expected a valid JSON string.") from error
    return to_regex(document, whitespace_pattern, max_recursion_depth)


def to_regex(document: Any, whitespace_pattern: str | None = None, max_recursion_depth: int = 3) -> str:
    """`build_regex_from_schema` of a schema as Python data."""
    space = constants.WHITESPACE if whitespace_pattern is None else whitespace_pattern
    if not isinstance(document, (dict, bool)):
        raise ConstraintSyntaxError(f"Unsupported JSON Schema structure {json.dumps(document)[:200]}")
    root = read_schema(document)

    def write() -> str:
        writer = Writer(document, f"(?:{space})" if "|" in space else space, max_recursion_depth)
        if not _attributes(root):
            return "|".join(f"({text})" for text in writer.kinds_of_anything(_DEPTH))
        text = writer.node(root)
        if text is not None:
            return text
        if writer.was_cut:  # the misspelt message is that of the older package
            raise LimitExceededError(
                f"Ref recusion limit reached: {max_recursion_depth}",
                given=max_recursion_depth + 1,
                limit=max_recursion_depth,
            )
        raise UnsatisfiableError("no value satisfies the schema")

    return deeply(write)


def _attributes(node: SchemaNode) -> set[str]:
    """What a node says, apart from what it says about types that it excludes."""
    said = set(vars(node)) - {"place", "keyword", "name", "read", "resource"}
    for kind, names in _OF_TYPE.items():
        wanted = NUMBER | INTEGER if kind == NUMBER else kind
        if not node.types & wanted:
            said -= names
    return said


class _Lowering(Lowering):
    """An explicit ``true`` is not the same as nothing: see the conventions in `regex_text`."""

    def sub(self, node: SchemaNode | None, scope: Scope) -> Sub:
        if node is not None and node.always is True:
            return self._sub((id(node), scope), (node, scope))
        return super().sub(node, scope)


class Writer:
    """One schema being written.

    A text is None where there is no value, and can be followed by other text as it is.

    Attributes:
        path: the JSON pointer of the schema being written.
        was_cut: was something left out because of the recursion depth?
    """

    def __init__(self, document: Any, whitespace: str, max_recursion_depth: int) -> None:
        self.document, self.whitespace, self.max_depth = document, whitespace, max_recursion_depth
        self.limits = DEFAULT_LIMITS
        self.lexemes = Lexemes(self.limits)
        self.lowering = _Lowering(self.lexemes)
        self.formulas = self.lowering.formulas
        self.sat = Satisfiability(self.lowering, self.lexemes, in_order=False, usable=Usable())
        self.path = ""
        self.was_cut = False
        self._active: dict[Any, int] = {}

    # -- schemas ----------------------------------------------------------------------------------------------------

    def sub(self, sub: Sub) -> str | None:
        """The pattern of a sub."""
        if sub == FALSE_SUB:
            return None
        if sub == TRUE_SUB:
            return self._one_of([f"({text})" for text in self.kinds_of_anything(_DEPTH)])
        what = self.lowering.subs[sub]
        if what is not None and isinstance(what[0], SchemaNode):
            return self.node(what[0])
        return self._within(("sub", sub), lambda: self.split(self.lowering.split(sub)))

    def node(self, node: SchemaNode) -> str | None:
        """The pattern of a schema."""
        before, self.path = self.path, node.pointer
        try:
            text = self._node(node)
        finally:
            self.path = before
        if text is not None and len(text) > self.limits.max_pattern_length:
            raise LimitExceededError(
                f"the pattern is longer than {self.limits.max_pattern_length:,} characters "
                "(a recursive schema? max_recursion_depth)",
                given=len(text),
                limit=self.limits.max_pattern_length,
            )
        return text

    def _node(self, node: SchemaNode) -> str | None:
        if node.always is not None:
            return self.sub(TRUE_SUB) if node.always else None
        said = _attributes(node)
        if "dynamic_ref" in said:
            raise UnsupportedFeatureError(
                f"$dynamicRef at {self.path or '#'} is not supported here; compile_json_schema enforces it",
                feature="$dynamicRef",
                path=self.path,
            )
        if not said:
            return self.sub(TRUE_SUB)
        if said == {"ref"}:
            target = node.ref
            assert target is not None
            return self._within(("ref", id(target)), lambda: self.node(target))
        if said <= {"types", "enum"}:
            values = self._values(node, node.enum) if node.enum is not None else None
            if values is not None:
                return f"({'|'.join(values)})" if values else None
        if said <= {"types", "const"} and node.const is not None:
            return next(iter(self._values(node, node.const)), None)
        if said == {"any_of"}:
            return self._grouped(map(self.node, node.any_of))
        if said == {"one_of"} and self._are_disjoint(node.one_of):
            return self._grouped(self._marked(map(self.node, node.one_of)))
        if said == {"all_of"} and len(node.all_of) == 1:
            return self._grouped([self.node(node.all_of[0])])
        types = self._types(node, said)
        if types:
            texts = [self._type(node, kind) for kind in types]
            return texts[0] if len(texts) == 1 else self._grouped(self._marked(texts))
        return self._within(("node", id(node)), lambda: self.split(self.lowering.node(node, ())))

    def _within(self, key: Any, write: Any) -> str | None:
        """What `write` gives, unless that would be the same thing inside itself too often."""
        depth = self._active.get(key, 0)
        if depth > self.max_depth:
            self.was_cut = True
            return None
        self._active[key] = depth + 1
        try:
            text: str | None = write()
        finally:
            self._active[key] = depth
        return text

    def _types(self, node: SchemaNode, said: set[str]) -> list[int]:
        """The types of a node that says nothing but what each type's own keywords say, in the order as written."""
        if not said - _OF_TYPE[OBJECT] and "properties" in said:
            return [OBJECT]
        if not said - _OF_TYPE[ARRAY] and "prefix_items" in said:
            return [ARRAY]
        if "types" not in said or said - {"types"}.union(*_OF_TYPE.values()):
            return []
        written = self._raw(node).get("type")
        names = [written] if isinstance(written, str) else written if isinstance(written, list) else []
        found = list(dict.fromkeys(_NAMES[name] for name in names))
        if sum(found) != node.types:
            found = [kind for kind in _NAMES.values() if node.types & kind]
        if NUMBER in found and INTEGER in found:
            found.remove(INTEGER)
        return found

    def _raw(self, node: SchemaNode) -> dict[str, Any]:
        """The schema as written, {} if it stands in another document."""
        at: Any = self.document
        steps = node.pointer.split("/")
        if steps[0]:
            return {}
        for step in steps[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            at = at[int(name)] if isinstance(at, list) else at[name]
        return at if isinstance(at, dict) else {}

    def _type(self, node: SchemaNode, kind: int) -> str | None:
        lowering = self.lowering
        match kind:
            case 1:
                return constants.NULL
            case 2:
                return constants.BOOLEAN
            case 4 | 8:
                digits = self._digits(node, kind)
                return digits or self.numbers(lowering._numbers(node, kind))
            case 16:
                return self.strings(lowering._strings(node))
            case 32:
                return self.arrays(lowering._arrays(node, ()))
        f = lowering._objects(node, ())
        if vars(node).get("properties") == {} and node.additional is None and not node.pattern_properties:
            f = self.formulas.all([f, self.formulas.atom(("P", Props({}, (), FALSE_SUB, False)))])
        return self.objects(f)

    def _digits(self, node: SchemaNode, kind: int) -> str | None:
        """Numbers with so many digits: keywords that only this package and the older one know."""
        raw = self._raw(node)
        if kind == INTEGER:
            if not any(name in raw for name in _INTEGER_DIGITS):
                return None
            text = f"(-)?(0|[1-9][0-9]{_digit_count(raw, '', '*')})"
        else:
            if not any(end + name in raw for name in _NUMBER_DIGITS for end in ("min", "max")):
                return None
            whole, fraction, exponent = (
                _digit_count(raw, name, otherwise)
                for name, otherwise in (("Integer", "*"), ("Fraction", "+"), ("Exponent", "+"))
            )
            text = f"((-)?(0|[1-9][0-9]{whole}))"
            text += rf"(\.[0-9]{fraction})?" if fraction else ""
            text += f"([eE][+-][0-9]{exponent})?" if exponent else ""
        if self.lowering._numbers(node, NUMBER) != 1:
            raise UnsupportedFeatureError(
                f"numbers of digits next to bounds at {self.path or '#'}", feature="minDigits", path=self.path
            )
        return text

    # -- alternatives -----------------------------------------------------------------------------------------------

    def _one_of(self, texts: Iterable[str | None]) -> str | None:
        found = list(dict.fromkeys(text for text in texts if text is not None))
        if len(found) > 1:
            return f"(?:{'|'.join(found)})"
        return found[0] if found else None

    def _grouped(self, texts: Iterable[str | None]) -> str | None:
        found = [text for text in texts if text is not None]
        return f"({'|'.join(found)})" if found else None

    def _marked(self, texts: Iterable[str | None]) -> Iterable[str | None]:
        return (None if text is None else f"(?:{text})" for text in texts)

    def _are_disjoint(self, options: tuple[SchemaNode, ...]) -> bool:
        """Is no value that is written for one of them valid for another?"""
        splits = [self.lowering.node(option, ()) for option in options]
        written = [
            self.lowering.splits.all([split, self._written(option)])
            for option, split in zip(options, splits, strict=True)
        ]
        both = self.lowering.splits.all
        return not any(
            self.sat.split(both([own, other]))
            for i, own in enumerate(written)
            for k, other in enumerate(splits)
            if i != k
        )

    def _written(self, node: SchemaNode) -> Split:
        """By convention: objects with no other keys than those that `properties` lists."""
        while node.ref is not None and _attributes(node) == {"ref"}:
            node = node.ref
        f = 1
        if node.properties and node.additional is None and not node.pattern_properties:
            keys = dict.fromkeys((*node.properties, *node.required), TRUE_SUB)
            f = self.formulas.atom(("P", Props(keys, (), FALSE_SUB, False)))
        return (7, 1, 1, 1, f)

    # -- formulas ---------------------------------------------------------------------------------------------------

    def split(self, split: Split) -> str | None:
        """The pattern of a split."""
        bits, numbers, strings, arrays, objects = split
        words = [word for bit, word in ((1, "null"), (4, "true"), (2, "false")) if bits & bit]
        return self._one_of(
            [*words, self.numbers(numbers), self.strings(strings), self.arrays(arrays), self.objects(objects)]
        )

    def _cubes(self, f: Formula) -> list[Cube]:
        return [] if f == FALSE else list(self.formulas.cubes(f))

    def _tests(self, cube: Cube) -> tuple[list[Any], list[Any]]:
        payload = self.formulas.payload
        return [payload(a) for a in sorted(cube) if cube[a]], [payload(a) for a in sorted(cube) if not cube[a]]

    def arrays(self, f: Formula) -> str | None:
        """The pattern of arrays."""
        return self._one_of(text for cube in self._cubes(f) for text in array_text(self, cube))

    def objects(self, f: Formula) -> str | None:
        """The pattern of objects."""
        return self._one_of(text for cube in self._cubes(f) for text in object_text(self, cube))

    def numbers(self, f: Formula) -> str | None:
        """The pattern of numbers."""
        texts: list[str | None] = []
        for cube in self._cubes(f):
            positive, negative = self._tests(cube)
            listed = [test[1] for test in positive if test[0] == "num"]
            if listed:
                values = sorted(set.intersection(*map(set, listed)))
                good = [v for v in values if self.formulas.holds(f, lambda a: self._number_passes(a, v))]  # noqa: B023
                texts.append(self._one_of(escaped(decimal_text(value)) for value in good))
            elif negative or [test for test in positive if test[0] != "int"]:
                texts.append(numbers_text(positive, negative, self.path, self.limits))
            else:
                texts.append(constants.INTEGER if positive else constants.NUMBER)
        return self._one_of(texts)

    def _number_passes(self, atom: int, value: Fraction) -> bool:
        test = self.formulas.payload(atom)
        match test[0]:
            case "int":
                return value.denominator == 1
            case "mul":
                return Fraction(value / test[1]).denominator == 1
            case "num":
                return bool(value in test[1])
        _, low, low_open, high, high_open = test
        above = low is None or value > low or (value == low and not low_open)
        return bool(above and (high is None or value < high or (value == high and not high_open)))

    def strings(self, f: Formula) -> str | None:
        """The pattern of strings, quotes included."""
        texts: list[str | None] = []
        for cube in self._cubes(f):
            positive, negative = self._tests(cube)
            listed = [test[1] for test in positive if test[0] == "str"]
            if listed:
                good = [v for v in sorted(set.intersection(*map(set, listed))) if self._is_member(cube, v)]
                texts.append(self._one_of(escaped(json.dumps(value, ensure_ascii=False)) for value in good))
            elif not positive and not negative:
                texts.append(constants.STRING)
            elif len(positive) == 1 and positive[0][0] == "len" and not negative:
                _, low, high = positive[0]
                texts.append(f'"{constants.STRING_INNER}{{{low},{"" if high is None else high}}}"')
            elif (constant := self._format(positive, negative)) is not None:
                texts.append(constant)
            else:
                texts.extend(f"({text})" for text in self._bodies(positive, negative))
        return self._one_of(texts)

    def _is_member(self, cube: Cube, text: str) -> bool:
        passes = self.lexemes.string_passes
        return all(passes(self.formulas.payload(atom), text) == holds for atom, holds in cube.items())

    def _format(self, positive: list[Any], negative: list[Any]) -> str | None:
        """The constant of a format that is all that is asked."""
        names = {test[1] for test in positive if test[0] == "fmt"}
        name = next(iter(names), "")
        if len(names) != 1 or negative or name not in constants.FORMATS:
            return None
        return constants.FORMATS[name] if len(positive) == len(format_parts(name) or ()) else None

    def _bodies(self, positive: list[Any], negative: list[Any]) -> list[str]:
        """The strings that pass and fail some tests, in quotes."""
        low, high = 0, None
        nodes: list[Node] = []
        refused = list(map(self._language, negative))
        for test in positive:
            if test[0] == "len":
                low = max(low, test[1])
                high = test[2] if high is None else high if test[2] is None else min(high, test[2])
            else:
                nodes.append(self._language(test))
        if high is not None and high < low:
            return []
        text = body_text(nodes, refused, low, high, self.limits)
        return [] if text is None else [f'"{text}"']

    def _language(self, test: Any) -> Node:
        if test[0] == "len":
            return Repeat(CharSet(ALL), test[1], test[2])
        if test[0] == "lazy":
            raise UnsupportedFeatureError(
                f"Format {test[1]} is not supported by a regex, at {self.path or '#'}; compile_json_schema has it",
                feature=f"format: {test[1]}",
                path=self.path,
            )
        if test[0] == "str":
            return Alternation(tuple(Literal(text) if text else Empty() for text in sorted(test[1])))
        return self.lexemes.node(test)

    def keys(self, positive: list[Node], negative: list[Node], names: list[Sub], *, without_empty: bool) -> list[str]:
        """Patterns of keys, quotes included, that are in and not in some languages and that `names` accept."""
        f = self.formulas.all([self.lowering.split(name)[2] for name in names])
        texts = []
        for cube in self._cubes(f):
            ours, theirs = self._tests(cube)
            lengths = [test for test in ours if test[0] == "len"]
            low = max((test[1] for test in lengths), default=0)
            high = min((test[2] for test in lengths if test[2] is not None), default=None)
            inside = [*positive, *(self._language(test) for test in ours if test[0] != "len")]
            outside = [*negative, *map(self._language, theirs), *([Empty()] if without_empty else [])]
            if not inside and not outside and not low and high is None:
                texts.append(constants.STRING)
                continue
            if high is not None and high < low:
                continue
            text = body_text(inside, outside, low, high, self.limits)
            if text is not None:
                texts.append(f'"{text}"')
        return texts

    # -- values -----------------------------------------------------------------------------------------------------

    def _values(self, node: SchemaNode, values: tuple[Json, ...]) -> list[str]:
        return [self._value(value) for value in values if node.types == ALL_TYPES or node.types & _type_of(value)]

    def _value(self, value: Json) -> str:
        space = self.whitespace
        comma = f"{space},{space}"
        match value:
            case None | bool() | str():
                return escaped(json.dumps(value, ensure_ascii=False))
            case list():
                return rf"\[{space}{comma.join(map(self._value, value))}{space}\]"
            case dict():
                pairs = (
                    f"{escaped(json.dumps(key, ensure_ascii=False))}{space}:{space}{self._value(v)}"
                    for key, v in value.items()
                )
                return rf"\{{{space}{comma.join(pairs)}{space}\}}"
        return escaped(decimal_text(value))

    # -- anything ---------------------------------------------------------------------------------------------------

    def kinds_of_anything(self, depth: int) -> list[str]:
        """Patterns of any value, by type."""
        arrays, objects = self._any_array(depth), self._any_object(depth)
        return [
            constants.BOOLEAN,
            constants.NULL,
            constants.NUMBER,
            constants.INTEGER,
            constants.STRING,
            arrays,
            objects,
        ]

    def items_of_anything(self, depth: int = _DEPTH) -> str:
        """Any item, as alternatives without a group."""
        kinds = [constants.BOOLEAN, constants.NULL, constants.NUMBER, constants.INTEGER, constants.STRING]
        if depth:
            kinds += [self._any_object(depth - 1), self._any_array(depth - 1)]
        return "|".join(kinds)

    def member_of_anything(self, depth: int = _DEPTH) -> str:
        """Any member's value."""
        kinds = [constants.STRING, constants.NUMBER, constants.BOOLEAN, constants.NULL]
        if depth:
            kinds += [self._any_object(depth - 1), self._any_array(depth - 1)]
        return f"({'|'.join(kinds)})"

    def _any_array(self, depth: int) -> str:
        space, item = self.whitespace, self.items_of_anything(depth)
        return rf"\[{space}(({item})(,{space}({item})){{0,}})?{space}\]"

    def _any_object(self, depth: int) -> str:
        space = self.whitespace
        pair = f"{constants.STRING}{space}:{space}{self.member_of_anything(depth)}"
        return rf"\{{{space}({pair}({space},{space}{pair}){{0,}})?{space}\}}"


def _type_of(value: Json) -> int:
    match value:
        case None:
            return NULL_TYPE
        case bool():
            return BOOLEAN_TYPE
        case str():
            return STRING
        case list():
            return ARRAY
        case dict():
            return OBJECT
    return NUMBER | INTEGER if Fraction(value).denominator == 1 else NUMBER


def _digit_count(raw: dict[str, Any], name: str, otherwise: str) -> str:
    """The quantifier of the digits that ``minDigits...`` and ``maxDigits...`` ask for; "" for none at all.

    Of the digits before the point the first one is written already.
    """
    written = 1 if otherwise == "*" else 0
    low, high = (raw.get(f"{end}Digits{name}") for end in ("min", "max"))
    for value in (low, high):
        if value is not None and (type(value) is not int or value < 0):
            raise ConstraintSyntaxError(f"a number of digits must be a non-negative integer, not {value!r}")
    if low is not None and high is not None and high < low:
        raise ConstraintSyntaxError("maxDigits must be greater than or equal to minDigits")
    least = max((low or 0) - written, 1 - written)
    if high is None:
        return otherwise if least == 1 - written else f"{{{least},}}"
    most = high - written
    return f"{{{least},{most}}}" if most >= least else "" if not written else "{0}"
