"""Typed results with the embedded model: a value comes back, whatever the strategy and however small the limit."""

import dataclasses
import datetime as dt
import enum
import re
import sys
from typing import Literal, TypedDict

import lark
import pydantic
import pytest
import torch

from outlines_core.errors import GuideError
from processors.embedded import load_embedded
from processors.generation import GenerationConfig, Grammar, Regex, generate
from tests.generation_models import model_of


class Letters:
    """A tokenizer by outlines' protocol: a letter is a token."""

    vocabulary = {letter: 4 + k for k, letter in enumerate("abcdefghij")} | {"<end>": 1}
    special_tokens = frozenset({"<end>"})
    eos_token_id = 1

    def __call__(self, text):
        return {"input_ids": [self.vocabulary[letter] for letter in text]}

    def convert_token_to_string(self, token):
        return token

    def decode(self, ids):
        raise NotImplementedError


@pytest.fixture(scope="module")
def embedded():
    return load_embedded()


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    age: int = pydantic.Field(ge=0, le=120)
    born: dt.date | None


@dataclasses.dataclass
class Point:
    x: float
    tags: list[Literal["a", "b"]]


class Item(TypedDict):
    number: int


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def weather(city: str, days: int = 3) -> None: ...


def is_weather(value) -> bool:
    return type(value["city"]) is str and type(value.get("days", 0)) is int and set(value) <= {"city", "days"}


TYPES = [
    (Person, lambda value: isinstance(value, Person)),
    (Point, lambda value: isinstance(value, Point)),
    (Item, lambda value: type(value["number"]) is int),
    (Colour, lambda value: value in Colour),
    (Literal["x y", 3], lambda value: value in ("x y", 3)),
    (int, lambda value: type(value) is int),
    (float, lambda value: type(value) is float),
    (bool, lambda value: type(value) is bool),
    (dt.date, lambda value: type(value) is dt.date),
    (list[int], lambda value: all(type(one) is int for one in value)),
    (int | Colour, lambda value: type(value) is int or value in Colour),
    (weather, is_weather),
    (re.compile("[a-c]{3}-x", re.IGNORECASE), lambda text: re.fullmatch("[a-c]{3}-x", text, re.IGNORECASE)),
    (Regex("[0-9]{2}"), lambda text: re.fullmatch("[0-9]{2}", text)),
    (
        Grammar('begin: A ("," A)* "."\nA: "yes" | "no"', {"start": "begin"}),
        lambda text: re.fullmatch(r"(yes|no)(,(yes|no))*\.", text),
    ),
    (lark.Lark('start: ("a"|"b")+ "."', parser="lalr"), lambda text: re.fullmatch(r"[ab]+\.", text)),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, lambda value: {*value} <= {True, False}),
]
STRATEGIES = [
    {"type": "greedy_search"},
    {"type": "multinomial_sampling"},
    {"type": "beam_search", "num_beams": 3},
    {"type": "contrastive_search", "top_k": 4, "alpha": 0.5},
]


CASES = [(*case, STRATEGIES[1]) for case in TYPES]
CASES += [
    (*case, strategy)
    for case in (TYPES[0], TYPES[1], TYPES[12])
    for strategy in STRATEGIES
    if strategy != STRATEGIES[1]
]


@pytest.mark.parametrize(("output_type", "is_value", "strategy"), CASES)
def test_values(embedded, output_type, is_value, strategy):
    model, tokenizer = embedded
    config = GenerationConfig.from_model(model, max_new_tokens=40).configure(strategy=strategy)
    values = generate(model, tokenizer, ["Hello: ", "And now? "], output_type, config=config, seed=5)
    assert len(values) == 2
    assert all(map(is_value, values))


@pytest.mark.parametrize("limit", [21, 24, 30])
def test_texts_are_never_cut(embedded, limit):
    model, tokenizer = embedded
    config = GenerationConfig.from_model(model).configure(strategy=STRATEGIES[1], temperature=3.0)
    values = generate(model, tokenizer, ["A person: "] * 6, Person, config=config, max_new_tokens=limit, seed=limit)
    assert all(isinstance(value, Person) for value in values)
    with pytest.raises(GuideError, match="shortest text"):
        generate(model, tokenizer, "A person: ", Person, config=config, max_new_tokens=4)


class TestPrompts:
    def test_one_or_several(self, embedded):
        model, tokenizer = embedded
        one = generate(model, tokenizer, "How many? ", int, max_new_tokens=6)
        assert type(one) is int
        assert (
            generate(model, tokenizer, ["How many? ", "How many years ago was that? "], int, max_new_tokens=6)[0] == one
        )
        assert generate(model, tokenizer, [], int) == []

    def test_an_empty_one(self):
        model = model_of("llama")
        config = GenerationConfig.from_model(model, max_new_tokens=6).configure(eos_token_id=1)
        texts = generate(model, Letters(), ["", "abc"], Regex("[a-j]{3}"), config=config.configure(bos_token_id=2))
        assert all(re.fullmatch("[a-j]{3}", text) for text in texts)
        with pytest.raises(ValueError, match="without tokens"):
            generate(model, Letters(), ["", "abc"], Regex("[a-j]{3}"), config=config.configure(bos_token_id=None))

    def test_seeds(self, embedded):
        model, tokenizer = embedded
        config = GenerationConfig.from_model(model, max_new_tokens=12).configure(strategy=STRATEGIES[1])

        def run(prompts, seed):
            return generate(model, tokenizer, prompts, Regex("[a-z]{20}"), config=config, seed=seed)

        assert run(["a", "b"], [1, 2]) == [run("a", 1), run("b", 2)]
        assert run(["a", "a"], 7)[0] == run("a", 7)
        assert run("a", None) != run("a", None)


class TestOptions:
    def test_params_and_processors(self, embedded):
        model, tokenizer = embedded
        zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
        text = generate(model, tokenizer, "a", Regex("[a-z]{4}"), params=zeros, max_new_tokens=9)
        assert re.fullmatch("[a-z]{4}", text)
        vocabulary = tokenizer.get_vocab()
        ban = [vocabulary[letter] for letter in "abcdefghijklmnopqrstuvwxyz"]
        text = generate(
            model,
            tokenizer,
            "a",
            Regex("[a-z]{4}"),
            logits_processors=[lambda logits, ctx: logits.index_fill(1, torch.tensor(ban), -float("inf"))],
            max_new_tokens=9,
        )
        assert not any(letter in tokenizer.tokenize(text) for letter in "abcdefghijklmnopqrstuvwxyz")

    def test_json_options(self, embedded):
        model, tokenizer = embedded
        value = generate(model, tokenizer, "a", Item, whitespace="compact", property_order="any", max_new_tokens=20)
        assert type(value["number"]) is int

    def test_an_encoder_decoder(self):
        model = model_of("bart")
        config = GenerationConfig.from_model(model, max_new_tokens=6).configure(eos_token_id=1)
        both = generate(model, Letters(), ["abc", "j"], Regex("(ab?c)+|j*"), config=config)
        assert all(re.fullmatch("(ab?c)+|j*", text) for text in both)
        assert both == [generate(model, Letters(), one, Regex("(ab?c)+|j*"), config=config) for one in ("abc", "j")]


class TestRefusals:
    def test_stop_strings(self, embedded):
        config = GenerationConfig.from_model(embedded[0], max_new_tokens=9, stop_strings=["x"])
        with pytest.raises(ValueError, match="whole"):
            generate(*embedded, "a", int, config=config)

    def test_a_text_as_type(self, embedded):
        with pytest.raises(TypeError, match=r"Regex\(...\) or Grammar"):
            generate(*embedded, "a", "[a-z]+")
        with pytest.raises(TypeError, match="bytes"):
            generate(*embedded, "a", re.compile(b"a"))

    def test_without_pydantic(self, embedded, monkeypatch):
        monkeypatch.setitem(sys.modules, "pydantic", None)
        monkeypatch.delitem(sys.modules, "processors.generation._values", raising=False)
        assert generate(*embedded, "a", Regex("[0-9]"), max_new_tokens=3).isdigit()
        with pytest.raises(ImportError, match=r"outlines-processors\[typed\]"):
            generate(*embedded, "a", int)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(re.compile("(?i)ab"), "AB"), (re.compile("a.b", re.DOTALL), "a\nb"), (re.compile(" a b # c", re.VERBOSE), "ab")],
)
def test_flags_of_patterns(embedded, pattern, text):
    from processors.generation.typed import _inline

    assert re.fullmatch(_inline(pattern), text)
    assert re.compile(_inline(pattern)).flags == pattern.flags
