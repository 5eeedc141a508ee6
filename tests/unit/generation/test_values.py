"""Every text that the schema of a type allows is a value of the type: random walks through the token automata."""

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import random
import sys
import typing
import uuid
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict, Union

import pydantic
import pytest
import typing_extensions

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from outlines_core.errors import UnsupportedFeatureError
from processors.generation._values import Values

END = 256
WHITE_SPACE = frozenset(b" \t\r\n")
BYTES = oc.Vocabulary(END, {bytes([b]): [b] for b in range(256)})


class Model(pydantic.BaseModel):
    number: int = pydantic.Field(alias="the number", ge=3)
    maybe: int | None = None
    free: dict[str, Any] = {}


class Open(pydantic.BaseModel, extra="allow"):
    flag: bool


class Strict(pydantic.BaseModel, strict=True):
    a: int
    b: float
    c: dt.date
    d: str


class Frozen(TypedDict, total=False):
    a: Required[int]
    b: "list[str]"


class Nested(TypedDict):
    inner: Frozen
    more: NotRequired[list[Frozen]]


class Extended(typing_extensions.TypedDict):
    a: int


@dataclasses.dataclass
class Tree:
    value: int
    children: "list[Tree]" = dataclasses.field(default_factory=list)


class Mixed(enum.Enum):
    ONE = 1.0
    TEXT = "x"
    NOTHING = None


class Number(enum.IntEnum):
    TWO = 2
    THREE = 3


def function(a: int, *args: str, b: "str | None" = None, c: float = pydantic.Field(gt=0), **more: int) -> None: ...


class Plain:
    def __init__(self, x: int, y: str = "") -> None: ...

    def method(self, day: dt.date) -> None: ...

    def __call__(self, z: Literal["on", "off"]) -> None: ...


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and abs(value) < float("inf")


def _of(*types: type):
    return lambda value: type(value) in types


TYPES: list[tuple[Any, Any]] = [
    (int, _of(int)),
    (float, _is_finite),
    (bool, _of(bool)),
    (str, _of(str)),
    (None, lambda value: value is None),
    (dt.date, _of(dt.date)),
    (dt.datetime, _of(dt.datetime)),
    (dt.time, _of(dt.time)),
    (dt.timedelta, _of(dt.timedelta)),
    (uuid.UUID, _of(uuid.UUID)),
    (decimal.Decimal, lambda value: isinstance(value, decimal.Decimal) and value.is_finite()),
    (Any, lambda value: True),
    (list, _of(list)),
    (dict, _of(dict)),
    (list[int], lambda value: all(type(one) is int for one in value)),
    (list[Frozen], lambda value: all(type(one["a"]) is int for one in value)),
    (tuple[int, str], lambda value: [type(one) for one in value] == [int, str]),
    (set[int], _of(set)),
    (dict[str, float], lambda value: all(map(_is_finite, value.values()))),
    (Frozen, lambda value: type(value["a"]) is int and set(value) <= {"a", "b"}),
    (Nested, lambda value: type(value["inner"]["a"]) is int and set(value) <= {"inner", "more"}),
    (Extended, lambda value: list(value) == ["a"]),
    (Tree, lambda value: isinstance(value, Tree) and type(value.value) is int),
    (Model, lambda value: isinstance(value, Model) and value.number >= 3),
    (Open, lambda value: isinstance(value, Open)),
    (Strict, lambda value: isinstance(value, Strict) and type(value.b) is float),
    (Mixed, _of(Mixed)),
    (Number, _of(Number)),
    (Literal[1, True, None, "a"], lambda value: any(value is one or value == one for one in (1, None, "a"))),
    (Union[int, str], _of(int, str)),  # noqa: UP007 -- both spellings
    (Frozen | None, lambda value: value is None or "a" in value),
    (Annotated[int, pydantic.Field(multiple_of=7, lt=100)], lambda value: value % 7 == 0 and value < 100),
    (Annotated[str, pydantic.Field(pattern="^a+b$")], lambda value: value.strip("a") == "b"),
    (Annotated[float, pydantic.Field(gt=1)], lambda value: value > 1),
    (function, lambda value: value["c"] > 0 and set(value) <= {"a", "b", "c"}),
    (functools.partial(function, 3), lambda value: value["c"] > 0 and set(value) <= {"b", "c"}),
    (Plain, lambda value: type(value["x"]) is int),
    (Plain(1).method, lambda value: type(value["day"]) is dt.date),
    (Plain(1), lambda value: value["z"] in ("on", "off")),
]


def texts_of(schema: Any, n: int, budget: int = 40):
    """Random texts of a schema: uniform over the next bytes, white space left out where it can be, closed in time."""
    automaton, words = oc.compile_json_schema(schema, BYTES), oc.allocate_bitmask(1, BYTES)[0]
    generator = random.Random(1)
    for _ in range(n):
        state, text = automaton.initial_state, bytearray()
        left = max(budget, automaton.min_tokens_to_accept(state))
        while left or not automaton.is_accepting(state):
            automaton.fill_closing_mask(state, left, words)
            ids = unpack_ids(words).tolist()
            token = generator.choice([token for token in ids if token not in WHITE_SPACE] or ids)
            if token == END:
                break
            text.append(token)
            state, left = automaton.next_state(state, token), left - 1
        yield text.decode()


@pytest.mark.parametrize(("output_type", "is_value"), TYPES, ids=lambda one: getattr(one, "__name__", str(one))[:40])
def test_texts_are_values(output_type, is_value):
    values = Values(output_type)
    texts = list(texts_of(values.schema, 6))
    for text in texts:
        assert is_value(values.parse(text)), text


def accepts(schema: Any, text: str) -> bool:
    automaton = oc.compile_json_schema(schema, BYTES)
    n, state = automaton.accept_tokens(automaton.initial_state, list(text.encode()))
    return n == len(text.encode()) and automaton.is_accepting(state)


@pytest.mark.parametrize(
    ("output_type", "bad", "good"),
    [
        (str, ['"\\ud800"', '"\\udc00\\ud800"'], ['"\\ud83d\\ude00"', '"a"']),
        (Any, ['"\\ud800"', '{"\\ud800": 1}', '["\\ud800"]', "9e308"], ['{"a": [1.5, null, "\\u00e9"]}']),
        (list, ['["\\ud800"]'], ['["x", {"y": {}}]']),
        (dict, ['{"\\ud800": 1}', '{"a": "\\ud800"}'], ['{"a": "b"}']),
        (dict[str, int], ['{"\\ud800": 1}'], ['{"a": 1}']),
        (float, ["9e308", "-9e308"], ["1.7e308", "-1.7e308", "0"]),
        (dt.date, ['"0000-01-01"', '"2023-02-29"'], ['"0001-01-01"', '"2024-02-29"']),
        (dt.datetime, ['"0000-01-01T00:00:00Z"', '"2016-12-31T23:59:60Z"'], ['"2016-12-31T23:59:59.5Z"']),
        (dt.time, ['"23:59:60Z"'], ['"23:59:59Z"']),
        (dt.timedelta, ['"P1234567D"'], ['"P123456D"', '"PT1H"']),
        (Model, ['{"the number": 3, "other": 1}', '{"number": 3}'], ['{"the number": 3}']),
        (Tree, ['{"value": 1, "other": 1}'], ['{"value": 1, "children": [{"value": 2}]}']),
        (Frozen, ['{"a": 1, "c": 1}', "{}"], ['{"a": 1, "b": ["x"]}']),
        (Open, ['{"flag": true, "other": "\\ud800"}'], ['{"flag": true, "other": 1}']),
        (Number, ["4"], ["2", "3"]),
        (function, ['{"a": 1}', '{"a": 1, "c": 0}', '{"a": 1, "c": 1, "d": 1}'], ['{"a": 1, "b": null, "c": 0.5}']),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_narrowing(output_type, bad, good):
    values = Values(output_type)
    for text in bad:
        assert not accepts(values.schema, text), text
    for text in good:
        assert accepts(values.schema, text), text
        values.parse(text)


@pytest.mark.parametrize(
    ("output_type", "text", "value"),
    [
        (int, "1.0", 1),
        (int, "1e30", 10**30),
        (int, "-0.0", 0),
        (float, "2", 2.0),
        (float, "15e-1", 1.5),
        (int | float, "2.0", 2),
        (int | float, "2.5", 2.5),
        (Literal[1, True], "1.0", 1),
        (list[str], '["1.0", "a\\"2.0\\"b", "\\\\", "3e2"]', ["1.0", 'a"2.0"b', "\\", "3e2"]),
        (Strict, '{"a": 1.0, "b": 2, "c": "2024-02-29", "d": ""}', Strict(a=1, b=2.0, c=dt.date(2024, 2, 29), d="")),
        (Mixed, "1", Mixed.ONE),
        (decimal.Decimal, "1.50", decimal.Decimal("1.5")),
    ],
)
def test_numbers_have_no_type(output_type, text, value):
    parsed = Values(output_type).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


def by_position(a: int, /, b: int) -> None: ...


class Recursive(TypedDict):
    inner: "list[Recursive]"


@pytest.mark.parametrize(
    ("output_type", "message"),
    [
        (5, "no JSON Schema"),
        (complex, "complex"),
        (dict[int, int], "keys"),
        (typing.Callable[[int], int], "no JSON Schema"),
        (by_position, "a by position only"),
        (type("Unknown", (), {"__signature__": 5}), "signature"),
    ],
)
def test_refusals(output_type, message):
    with pytest.raises(UnsupportedFeatureError, match=message):
        Values(output_type)


def test_a_typed_dict_that_contains_itself():
    if sys.version_info >= (3, 12):
        assert Values(Recursive).parse('{"inner": [{"inner": []}]}') == {"inner": [{"inner": []}]}
        return
    with pytest.raises(UnsupportedFeatureError, match="contains itself"):
        Values(Recursive)


def test_a_validator_that_no_schema_shows():
    def even(value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value

    values = Values(Annotated[int, pydantic.AfterValidator(even)])
    assert values.parse("4") == 4
    with pytest.raises(pydantic.ValidationError, match="odd"):
        values.parse("3")
