"""Random schemas, walks and values (see tests/schema_walks.py), and the referee itself against what is known.

The long run is ``scripts/json_report fuzz``; `FUZZ_SCALE` stretches this one.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

import outlines_core as oc
from tests.format_oracle import FORMATS, SAMPLES, judge
from tests.json_oracle import Oracle, exact, frozen, loads, valid
from tests.json_order import in_schema_order, ordered, out_of_order
from tests.json_texts import LAYOUTS, json_vocabulary, number_text, respelled, spelled, tokens_of
from tests.schema_fuzz import keywords, schema_of
from tests.schema_values import ValueMaker, mutated
from tests.schema_walks import Trial, Walkers, reproducer
from tests.strategies import scaled

SEEDS = (1, 2, 3, 4)
SCHEMAS = 25


@pytest.fixture(scope="module")
def walkers() -> Walkers:
    return Walkers(json_vocabulary())


@pytest.mark.parametrize("seed", SEEDS)
def test_random_schemas(walkers: Walkers, seed: int) -> None:
    texts: Counter[str] = Counter()
    lines = []
    for index in range(scaled(SCHEMAS)):
        schema = schema_of(seed, index)
        outcome = Trial(schema, walkers, random.Random(f"trial {seed} {index}"), n_walks=2, n_values=4).run()
        texts += outcome.texts
        lines += [reproducer(seed, index, schema, finding, "--walks 2 --values 4") for finding in outcome.findings]
    assert not lines, f"{len(lines)} findings; scripts/json_report fuzz " + "\n".join(lines[:10])
    assert texts["valid"] > 0.4 * texts.total()


@pytest.mark.slow
def test_random_schemas_with_a_real_tokenizer() -> None:
    folder = Path(os.environ.get("OUTLINES_TEST_TOKENIZERS", "")) / "llama3"
    if not folder.is_dir():
        pytest.skip("OUTLINES_TEST_TOKENIZERS names no folder with llama3")
    transformers = pytest.importorskip("transformers")
    from processors.tokenizers import vocabulary_from

    walkers = Walkers(vocabulary_from(transformers.AutoTokenizer.from_pretrained(folder)))
    for index in range(scaled(30)):
        outcome = Trial(schema_of(9, index), walkers, random.Random(f"trial 9 {index}"), n_walks=2, n_values=3).run()
        assert not outcome.findings, schema_of(9, index)


def test_schemas_vary() -> None:
    sets = [keywords(schema_of(0, index)) for index in range(500)]
    assert len(set(sets)) > 300
    assert schema_of(0, 7) == schema_of(0, 7)


def test_many_values_are_valid_and_many_are_not() -> None:
    verdicts: Counter[bool | None] = Counter()
    for index in range(100):
        rng = random.Random(index)
        oracle, maker = Oracle(schema_of(5, index)), ValueMaker(schema_of(5, index), rng)
        for _ in range(3):
            value = maker.value()
            verdicts[oracle.verdict(value)] += 1
            verdicts[oracle.verdict(mutated(value, rng))] += 1
    assert verdicts[True] > 200
    assert verdicts[False] > 150


def test_spellings_keep_the_value() -> None:
    rng = random.Random(3)
    vocabulary = json_vocabulary()
    for index in range(150):
        value = mutated(ValueMaker(schema_of(6, index), rng).value(), rng)
        for text in (respelled(value, rng), *(spelled(value, **layout) for layout in LAYOUTS.values())):
            assert frozen(loads(text)) == frozen(value)
            ids = tokens_of(vocabulary, text.encode(), rng)
            assert b"".join(map(vocabulary.token_bytes, ids)) == text.encode()


@pytest.mark.parametrize(
    "value", [0, -7, 10**19, 10**20, 10**300, Fraction(1, 8), Fraction(-5, 2), Fraction(1, 10**300)]
)
def test_numbers_are_spelled_exactly(value: int | Fraction) -> None:
    assert loads(number_text(value)) == value


# -- the referee -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        ({"enum": [1]}, "1.0", True),
        ({"enum": [1]}, "true", False),
        ({"enum": [[1]]}, "[true]", False),
        ({"type": "integer"}, "10e-1", True),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer"}, "1.0", True),
        ({"multipleOf": 0.01}, "0.07", True),
        ({"multipleOf": 1e-8}, "12391239123", True),
        ({"minimum": 0.1}, "0.09999999999999999999", False),
        ({"uniqueItems": True}, "[[1],[true],[1]]", False),
        ({"uniqueItems": True}, "[[1],[true]]", True),
        ({"pattern": r"^\p{L}$"}, '"é"', True),
        ({"pattern": r"^\d$"}, '"٣"', False),
        ({"pattern": "a$"}, r'"a\n"', False),
        ({"maxLength": 1}, '"😀"', True),
        ({"minimum": 1, "exclusiveMinimum": True}, "1", False),
        ({"items": [{"type": "null"}], "additionalItems": False}, "[null, 1]", False),
        ({"dependencies": {"a": ["b"]}}, '{"a": 1}', False),
        ({"additionalProperties": {"type": "string"}, "patternProperties": {"b": {}}}, '{"ab": 1}', True),
        ({"$ref": "#/$defs/a", "unevaluatedProperties": False}
         | {"$defs": {"a": {"properties": {"x": {}}}}}, '{"x":1}', True),
        ({"contains": {"const": 1}, "unevaluatedItems": {"const": 2}}, "[1, 2, 2]", True),
        ({"contains": {"const": 1}, "unevaluatedItems": {"const": 2}}, "[1, 3]", False),
        ({"not": {"$id": "http://x.y/", "$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}}, "null", False),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a", "type": "null"}
         | {"definitions": {"a": {}}}, "1", True),
        ({"format": "date"}, '"2023-02-29"', False),
        ({"format": "unknown"}, '"a"', True),
    ],
)  # fmt: skip
def test_the_referee_knows_the_specification(schema, text, expected) -> None:
    assert valid(schema, loads(text)) == expected


def test_the_referee_says_when_it_cannot_tell() -> None:
    assert Oracle({"format": "duration"}).verdict("p1y") is None
    assert Oracle({"format": "duration", "maxLength": 2}).verdict("p1y") is False
    with pytest.raises(ValueError, match="undecided"):
        valid({"not": {"format": "duration"}}, "p1y")


@pytest.mark.parametrize(
    "text", ['{"a":1,"\\u0061":2}', "NaN", "01", "[1,]", '"\n"', "1e309", "1" * 65, "", "'a'", "[1] 2"]
)
def test_texts_that_are_never_generated(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whatever the fault, it is no text of ours
        loads(text)


def test_every_format_has_samples_of_both_kinds() -> None:
    assert FORMATS.keys() == SAMPLES.keys()
    pytest.importorskip("rfc3987", reason='pip install "jsonschema[format]"')
    for name, texts in SAMPLES.items():
        verdicts = {judge(name, text) for text in texts} - {None}
        assert verdicts == {True, False}, name


def test_schema_order_follows_references_and_branches() -> None:
    schema = {
        "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"c": {}}}],
        "properties": {"z": {"items": {"properties": {"q": {}, "p": {}}}}},
        "$defs": {"base": {"properties": {"b": {}, "a": {}}}},
    }
    value = exact({"other": 1, "a": 1, "b": 2, "c": 3, "z": [{"p": 1, "q": 2, "r": 3}]})
    text = json.dumps(in_schema_order(schema, value))
    assert text == '{"z": [{"q": 2, "p": 1, "r": 3}], "b": 2, "a": 1, "c": 3, "other": 1}'
    assert out_of_order(schema, value)
    assert not out_of_order(schema, loads(text))


def test_schema_order_of_lists_that_overlap() -> None:
    chained = {"properties": {"a": {}, "c": {}}, "allOf": [{"properties": {"b": {}, "a": {}}}]}
    assert ordered(chained, {"a": 1, "b": 1, "c": 1}) == ({"b": 1, "a": 1, "c": 1}, True)
    assert [*in_schema_order(chained, {"c": 1, "a": 1, "b": 1})] == ["b", "a", "c"]
    against = {"properties": {"a": {}, "b": {}}, "allOf": [{"properties": {"b": {}, "a": {}}}]}
    assert not ordered(against, {"b": 1, "a": 1})[1]
    assert not out_of_order(against, {"b": 1, "a": 1})
    branch = {"anyOf": [{"type": "null", "properties": {"z": {}, "a": {}}}, {}], "properties": {"a": {}}}
    assert not ordered(branch, {"a": 1, "z": 1})[1]


def test_a_wrong_engine_is_caught(walkers: Walkers, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ignores the keywords of its schema, and one that takes nothing, fail their trials."""
    for schema, instead in (({"type": "integer", "maximum": 3}, {"type": "integer"}), ({"enum": [1, 2]}, {"const": 1})):
        real = oc.compile_json_schema
        with monkeypatch.context() as patch:
            patch.setattr(oc, "compile_json_schema", lambda _, *a, use=instead, real=real, **k: real(use, *a, **k))
            outcome = Trial(schema, walkers, random.Random(0)).run()
        assert outcome.findings
