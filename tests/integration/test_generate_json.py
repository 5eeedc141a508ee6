"""`generate()` under JSON Schemas, on the embedded model: eight rows, eight schemas, one call.

The oracles are the `jsonschema` library with its format checks and, where the schema is a pydantic model, pydantic.
Numbers are read exactly: Python would round those of 64 digits, and call the greatest infinite.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, TypedDict

import jsonschema
import pydantic
import pytest
import torch

import outlines_core as oc
from outlines_core.json_schema.sources import to_schema
from processors.embedded import load_embedded
from processors.logits import JSONLogitsProcessor
from tests.json_oracle import loads

LIMIT = 64


class Address(pydantic.BaseModel):
    street: str = pydantic.Field(max_length=12)
    number: int = pydantic.Field(ge=1, le=999)


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(pattern="^[A-Z][a-z]{1,8}$")
    age: int = pydantic.Field(ge=0, lt=130)
    address: Address | None = None
    tags: list[Literal["a", "b", "c"]] = pydantic.Field(max_length=3)


class Tree(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    value: bool
    children: list[Tree] = pydantic.Field(max_length=2)


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = pydantic.Field(ge=1, le=9)


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str


class Owner(pydantic.BaseModel):
    pet: Cat | Dog = pydantic.Field(discriminator="kind")


@dataclass
class Point:
    x: float
    y: float
    label: str | None = None


class Film(TypedDict):
    title: str
    year: int


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"
    NONE = None


def look_up(query: str, limit: int = 10, *, exact: bool = False): ...


EIGHT = [
    Person,
    Tree,
    Point,
    Film,
    Color,
    look_up,
    {
        "type": "object",
        "properties": {"on": {"format": "date"}, "ids": {"type": "array", "items": {"format": "uuid"}}},
        "patternProperties": {"^on$": {"type": "string"}},
        "additionalProperties": {"type": "number"},
        "minProperties": 1,
        "maxProperties": 3,
    },
    '{"type": "array", "items": {"enum": ["x", "y", 1.5]}, "minItems": 2, "uniqueItems": true}',
]

MODES = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True},
    "hot": {"do_sample": True, "temperature": 3.0},
    "beams": {"do_sample": False, "num_beams": 3},
    "beam sampling": {"do_sample": True, "num_beams": 2, "temperature": 1.5},
}


@pytest.fixture(scope="module")
def embedded():
    return load_embedded()


def generated(embedded, processor, prompts, **options) -> list[list[int]]:
    """The ids of each row, up to EOS."""
    model, tokenizer = embedded
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    rows = model.generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_processor=[processor],
        **{"max_new_tokens": LIMIT, "do_sample": True} | options,
    )
    eos = processor.guides[0].automaton.vocabulary.eos_token_ids
    ids = rows[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: next((k for k, t in enumerate(row) if t in eos), len(row))] for row in ids]


def bytes_of(processor, ids) -> bytes:
    return b"".join(map(processor.guides[0].automaton.vocabulary.token_bytes, ids))


def check(schema, text: bytes) -> None:
    """The text is JSON without duplicate keys, and valid."""
    validator = jsonschema.Draft202012Validator(
        to_schema(schema), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(loads(text))
    if isinstance(schema, type) and issubclass(schema, pydantic.BaseModel):
        schema.model_validate_json(text)


PROMPTS = [f"Number {'one ' * k}: " for k in range(8)]  # of eight lengths, so padded on the left


@pytest.mark.parametrize("mode", MODES)
def test_eight_rows_with_eight_schemas(embedded, mode):
    torch.manual_seed(7)
    processor = JSONLogitsProcessor(EIGHT, embedded[1], max_new_tokens=LIMIT, whitespace="[ ]?")
    rows = generated(embedded, processor, PROMPTS, **MODES[mode])
    assert len(rows) == 8
    for schema, ids in zip(EIGHT, rows, strict=True):
        check(schema, bytes_of(processor, ids))


def test_several_returns_stay_with_their_schema(embedded):
    torch.manual_seed(1)
    schemas = [Person, Film, {"type": "integer", "multipleOf": 7}]
    processor = JSONLogitsProcessor(schemas, embedded[1], max_new_tokens=60, property_order="any")
    rows = generated(embedded, processor, PROMPTS[:3], max_new_tokens=60, num_return_sequences=4)
    for k, ids in enumerate(rows):
        check(schemas[k // 4], bytes_of(processor, ids))
    assert processor.violations == 0


@pytest.mark.parametrize("schema", [Person, Tree, Owner, Point, Film, look_up], ids=lambda s: s.__name__)
def test_one_schema_many_samples(embedded, schema):
    torch.manual_seed(3)
    processor = JSONLogitsProcessor(schema, embedded[1], max_new_tokens=50, whitespace="compact")
    for ids in generated(embedded, processor, ["A person: "], max_new_tokens=50, num_return_sequences=6):
        check(schema, bytes_of(processor, ids))


def test_without_a_limit_texts_are_valid_or_prefixes(embedded):
    torch.manual_seed(5)
    processor = JSONLogitsProcessor(EIGHT, embedded[1])
    n_complete = 0
    for schema, guide, ids in zip(
        EIGHT, processor.guides, generated(embedded, processor, PROMPTS, max_new_tokens=40), strict=True
    ):
        automaton = guide.automaton
        n, state = automaton.accept_tokens(automaton.initial_state, ids)
        assert n == len(ids)
        if len(ids) < 40:
            assert automaton.is_accepting(state)
            check(schema, bytes_of(processor, ids))
            n_complete += 1
    assert n_complete


def test_a_draft_by_prompt_lookup(embedded):
    """Assisted generation gives what greedy search gives."""
    schema = {"type": "array", "items": {"enum": ["left", "right"]}, "minItems": 3, "maxItems": 6}
    texts = []
    for options in ({}, {"prompt_lookup_num_tokens": 4}):
        processor = JSONLogitsProcessor(schema, embedded[1], max_new_tokens=LIMIT, whitespace="compact")
        (ids,) = generated(embedded, processor, ['["left","right","left"] '], do_sample=False, **options)
        texts.append(bytes_of(processor, ids))
        check(schema, texts[-1])
    assert texts[0] == texts[1]


def test_a_processor_may_be_used_again(embedded):
    processor = JSONLogitsProcessor(Film, embedded[1], max_new_tokens=LIMIT)
    first, second = (
        [bytes_of(processor, ids) for ids in generated(embedded, processor, PROMPTS[:2], do_sample=False)]
        for _ in range(2)
    )
    assert first == second
    for text in first:
        check(Film, text)


def test_after_a_marker(embedded):
    processor = JSONLogitsProcessor(Color, embedded[1], start_after="e", max_new_tokens=LIMIT)
    for ids in generated(embedded, processor, ["Think: "], num_return_sequences=4):
        _, marker, text = bytes_of(processor, ids).partition(b"e")
        if marker:
            check(Color, text)


def test_a_limit_that_no_text_fits(embedded):
    processor = JSONLogitsProcessor(Person, embedded[1], max_new_tokens=4)
    with pytest.raises(oc.GuideError, match="max_new_tokens=4 is too small"):
        generated(embedded, processor, ["x"], max_new_tokens=4)
