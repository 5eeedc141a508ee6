"""`build_regex_from_schema`: the texts of PyPI's outlines_core 0.2.14 where those are right."""

from __future__ import annotations

import json
import random
import re
from fractions import Fraction

import pytest

import outlines_core as oc
from outlines_core.json_schema import (
    BOOLEAN,
    DATE,
    DATE_TIME,
    EMAIL,
    INTEGER,
    NULL,
    NUMBER,
    STRING,
    STRING_INNER,
    TIME,
    URI,
    UUID,
    WHITESPACE,
    build_regex_from_schema,
)
from outlines_core.regex.language import Language
from tests.json_oracle import Oracle
from tests.schema_fuzz import schema_of

NULLS = {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}
A, B, C = (f'[ ]?"{key}"[ ]?:[ ]?null' for key in "abc")
SAME = [
    # schema, the pattern that outlines_core 0.2.14 builds
    ({"type": "integer"}, INTEGER),
    ({"type": "number"}, NUMBER),
    ({"type": "string"}, STRING),
    ({"type": "boolean"}, BOOLEAN),
    ({"type": "null"}, NULL),
    ({"type": ["string", "null"]}, f"((?:{STRING})|(?:null))"),
    ({"type": "string", "minLength": 3}, f'"{STRING_INNER}{{3,}}"'),
    ({"type": "string", "minLength": 3, "maxLength": 5}, f'"{STRING_INNER}{{3,5}}"'),
    ({"type": "string", "pattern": "^[a-z]$"}, '("[a-z]")'),
    ({"type": "string", "format": "uuid"}, UUID),
    ({"type": "string", "format": "date-time"}, DATE_TIME),
    ({"const": ".*"}, r'"\.\*"'),
    ({"const": 0.2}, r"0\.2"),
    ({"enum": [".*", "\\s*"]}, r'("\.\*"|"\\\\s\*")'),
    ({"enum": [[1, "a"], {"a": 1}]}, r'(\[[ ]?1[ ]?,[ ]?"a"[ ]?\]|\{[ ]?"a"[ ]?:[ ]?1[ ]?\})'),
    ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, f"({STRING}|{INTEGER})"),
    ({"oneOf": [{"type": "string"}, {"type": "boolean"}]}, f"((?:{STRING})|(?:{BOOLEAN}))"),
    ({"allOf": [{"type": "null"}]}, "(null)"),
    ({"type": "array", "items": {"type": "number"}}, rf"\[[ ]?(({NUMBER})(,[ ]?({NUMBER})){{0,}})?[ ]?\]"),
    ({"type": "array", "items": {"type": "null"}, "minItems": 3}, r"\[[ ]?((null)(,[ ]?(null)){2,})[ ]?\]"),
    ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, r"\[[ ]?\]"),
    ({"prefixItems": [{"type": "null"}, {"type": "boolean"}]}, rf"\[[ ]?null[ ]?,[ ]?{BOOLEAN}[ ]?\]"),
    ({"properties": NULLS}, rf"\{{({A}|({A}[ ]?,)?{B}|({A}[ ]?,)?({B}[ ]?,)?{C})?[ ]?\}}"),
    ({"properties": NULLS, "required": ["b"]}, rf"\{{({A}[ ]?,)?{B}([ ]?,{C})?[ ]?\}}"),
    ({"properties": NULLS, "required": ["a", "c"]}, rf"\{{{A}[ ]?,({B}[ ]?,)?{C}[ ]?\}}"),
    (
        {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1},
        rf"\{{[ ]?({STRING}[ ]?:[ ]?null([ ]?,[ ]?{STRING}[ ]?:[ ]?null){{0,}})[ ]?\}}",
    ),
    ({"type": "integer", "minDigits": 3, "maxDigits": 5}, "(-)?(0|[1-9][0-9]{2,4})"),
    (
        {"properties": {"n": {"$ref": "#"}}},
        r'\{([ ]?"n"[ ]?:[ ]?' * 4 + r"\{[ ]?\}" + r")?[ ]?\}" * 4,
    ),
]
RIGHT = [
    # schema, texts that match, texts that do not: what outlines_core 0.2.14 gets wrong or refuses
    ({"properties": {"a": {}}, "required": ["a"]}, ['{"a":1}', '{"a":null}'], ["null", '"a"']),
    ({"type": "string", "pattern": "^(?:a|b)$"}, ['"a"', '"b"'], ['"a', 'b"']),
    ({"type": "string", "pattern": "b"}, ['"b"', '"abc"'], ['"a"']),
    ({"type": "string", "pattern": "^.$"}, ['"a"', r'"\""', r'"\\"'], ['"""', r'"\n"', '"\n"']),
    ({"type": "string", "pattern": "^[a-z]*$", "minLength": 2, "maxLength": 3}, ['"ab"', '"abc"'], ['"a"', '"abcd"']),
    ({"type": "string", "pattern": "^(ab)*$", "maxLength": 5}, ['""', '"abab"'], ['"aba"', '"ababab"']),
    ({"type": "string", "format": "ipv4"}, ['"127.0.0.1"'], ['"1.2.3"', '"256.0.0.1"']),
    ({"type": "string", "format": "time"}, ['"12:00:00.5Z"'], [r'"12:00:00\x5"']),
    ({"type": "integer", "minimum": 5, "maximum": 12}, ["5", "12"], ["4", "13", "-5", "05"]),
    ({"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 0}, ["-2", "-1"], ["-3", "0", "-0"]),
    ({"type": "number", "minimum": 0.5}, ["0.5", "0.50", "10", "1.25"], ["0.49", "0", "-1", ".5"]),
    ({"type": "number", "maximum": -1.5}, ["-1.5", "-2"], ["-1.49", "0"]),
    ({"type": "integer", "multipleOf": 5}, ["0", "5", "-10"], ["1", "52"]),
    ({"type": "integer", "multipleOf": 3}, ["0", "3", "-12"], ["1", "10"]),
    ({"type": "number", "multipleOf": 0.01}, ["0.25", "1", "1.500"], ["0.001"]),
    ({"type": "object", "additionalProperties": False}, ["{}", "{ }"], ['{"a":1}']),
    (
        {"properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "integer"}},
        ['{"a":null,"b":1}', '{"b":1, "c":2}', "{}"],
        ['{"a":1}', '{"b":null}', '{"b":1,"a":null}'],
    ),
    (
        {"type": "object", "patternProperties": {"^x": {"type": "null"}}},
        ['{"x":null,"xy":null}', "{}"],
        ['{"x":1}', '{"y":null}'],
    ),
    ({"type": "object", "propertyNames": {"maxLength": 1}}, ['{"a":1}'], ['{"ab":1}']),
    (
        {"properties": {"a b": {"const": 1}, 'q"': {"const": 2}}, "required": ['q"']},
        [r'{"a b":1,"q\"":2}'],
        ['{"q"":2}'],
    ),
    ({"properties": {"a": {"type": "null"}}, "required": ["b"]}, ['{"a":null,"b":1}'], ['{"a":null}', "{}"]),
    ({"properties": NULLS, "minProperties": 1}, ['{"b":null}'], ["{}"]),
    ({"properties": NULLS, "maxProperties": 1}, ["{}", '{"b":null}'], ['{"a":null,"b":null}']),
    ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, ["3"], ["2"]),
    (
        {
            "allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": {"const": 2}}}],
            "type": "object",
        },
        ['{"a":1}', '{"a":1,"b":2}'],
        ['{"b":2}', '{"a":1}{"b":2}'],
    ),
    ({"enum": ["a", 1, None], "type": "string"}, ['"a"'], ["1", "null"]),
    ({"enum": ["a", "bb"], "minLength": 2}, ['"bb"'], ['"a"']),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ["1.5"], ["1"]),
    ({"not": {"type": ["object", "array"]}, "type": ["array", "null"]}, ["null"], ["[]"]),
    ({"if": {"type": "integer"}, "then": {"minimum": 3}, "type": ["integer", "null"]}, ["3", "null"], ["2"]),
    ({"minimum": 3}, ["3", '"a"', "null"], ["2"]),
    (True, ["1", "{}"], [""]),
    ({"prefixItems": [{"type": "null"}], "items": {"type": "integer"}}, ["[]", "[null]", "[null, 1, 2]"], ["[1]"]),
    (
        {"prefixItems": [{"type": "null"}, {}], "items": False, "minItems": 1},
        ["[null]", "[null, 1]"],
        ["[]", "[null,1,2]"],
    ),
    (
        {"items": [{"type": "null"}], "additionalItems": False, "maxItems": 1, "type": "array"},
        ["[]", "[null]"],
        ["[1]"],
    ),
    ({"type": "array", "items": {}}, ["[]", "[1, {}]"], ["[1 2]"]),
    ({"type": "array", "uniqueItems": True, "maxItems": 1}, ["[1]"], ["[1,1]"]),
    ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "null"}}}, ["null"], ["1"]),
    ({"$ref": "#/$defs/a", "maximum": 3, "$defs": {"a": {"type": "integer"}}}, ["3"], ["4", "null"]),
    ({"type": "number", "maxDigitsInteger": 3, "maxDigitsFraction": 2}, ["1", "1.25"], ["1.", "1.125", "1000"]),
    ({"type": "number", "maxDigitsFraction": 0}, ["1"], ["1.", "1.5"]),
    ({"type": "integer", "maxDigits": 1}, ["1"], ["10"]),
]
REFUSED = [
    ({"type": "array", "uniqueItems": True}, "uniqueItems", ""),
    ({"properties": {"a": {"type": "array", "contains": {"type": "null"}}}}, "contains", "/properties/a"),
    ({"type": "object", "minProperties": 2}, "minProperties", ""),
    ({"properties": NULLS, "maxProperties": 2}, "maxProperties", ""),
    ({"type": "integer", "multipleOf": 7}, "multipleOf", ""),
    ({"type": "string", "format": "hostname"}, "format: hostname", ""),
    ({"not": {"items": {"type": "null"}, "type": "array"}}, "not", ""),
    ({"oneOf": [{"properties": {"a": {"type": "null"}}}, {"properties": {"b": {"type": "null"}}}]}, "not", ""),
    ({"type": "integer", "minDigits": 2, "minimum": 3}, "minDigits", ""),
]


@pytest.mark.parametrize(("schema", "pattern"), SAME)
def test_the_same_text_where_it_is_right(schema, pattern):
    assert build_regex_from_schema(json.dumps(schema)) == pattern


@pytest.mark.parametrize(("schema", "members", "others"), RIGHT)
def test_right_where_the_other_package_is_wrong(schema, members, others):
    pattern = build_regex_from_schema(json.dumps(schema))
    for matches in (re.compile(pattern).fullmatch, Language.parse(pattern, dialect="rust").matches):
        assert [text for text in members if not matches(text)] == []
        assert [text for text in others if matches(text)] == []


@pytest.mark.parametrize(("schema", "feature", "path"), REFUSED)
def test_what_a_regex_cannot_say_is_refused_by_name(schema, feature, path):
    with pytest.raises(oc.UnsupportedFeatureError) as caught:
        build_regex_from_schema(json.dumps(schema))
    assert (caught.value.feature, caught.value.path) == (feature, path)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("{", TypeError, "Expected a valid JSON string."),
        ("3", ValueError, "Unsupported JSON Schema structure"),
        ('{"type": "foo"}', oc.ConstraintSyntaxError, "foo"),
        ('{"$ref": "#/nope"}', oc.ConstraintSyntaxError, "nope"),
        ('{"$ref": "#"}', oc.LimitExceededError, "reached: 3"),
        ('{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}', ValueError, "reached: 3"),
        ('{"type": "string", "minLength": 3, "maxLength": 1}', oc.UnsatisfiableError, "no value"),
        ("false", oc.UnsatisfiableError, "no value"),
        ('{"type": "integer", "minDigits": 3, "maxDigits": 1}', ValueError, "maxDigits must be"),
    ],
)
def test_errors(text, kind, message):
    with pytest.raises(kind, match=message):
        build_regex_from_schema(text)
    with pytest.raises(TypeError, match="cannot be cast"):
        build_regex_from_schema({})


def test_options():
    schema = json.dumps({"type": "object", "properties": {"n": {"$ref": "#"}}, "required": []})
    assert build_regex_from_schema(schema, "", 0) == r'\{("n":\{\})?\}'
    assert re.fullmatch(build_regex_from_schema('{"type": "array"}', r"\s|\t\t"), "[ \t\t]")
    assert WHITESPACE == "[ ]?"


def test_constants_match_json():
    for pattern, good, bad in (
        (DATE, '"2024-02-29"', '"٢٠٢٤-01-01"'),
        (TIME, '"23:59:59.25"', r'"23:59:59\.25"'),
        (URI, '"https://a.org/x?y#z"', '"https://a.org/"x"'),
        (EMAIL, '"a.b@c.de"', '"\x01@c.de"'),
    ):
        assert re.fullmatch(pattern, good)
        assert not re.fullmatch(pattern, bad)
        json.loads(good)


def sample(dfa, rng: random.Random) -> str:
    """A text of a DFA: some random steps, then the shortest way to the end."""
    state, text = dfa.start, bytearray()
    for _ in range(rng.randrange(1, 60)):
        row = dfa.row(state)[dfa.byte_class]
        live = [byte for byte in range(256) if row[byte]]
        if not live or (dfa.accept[state] and rng.random() < 0.3):
            break
        plain = [byte for byte in live if 32 <= byte < 127]
        text.append(rng.choice(plain if plain and rng.random() < 0.8 else live))
        state = int(row[text[-1]])
    return (bytes(text) + dfa.shortest(state)).decode()


def check_samples(seed: int, schemas: range) -> int:
    """How many random texts of random schemas were valid; a text that is not fails."""
    n = 0
    for index in schemas:
        schema = schema_of(seed, index)
        if '"format"' in json.dumps(schema):  # the constants are wider than the formats
            continue
        try:
            language = Language.parse(build_regex_from_schema(json.dumps(schema)), dialect="rust")
            dfa = language.dfa
        except ValueError:
            continue
        oracle, rng = Oracle(schema), random.Random(index)
        for _ in range(4):
            text = sample(dfa, rng)
            if re.search("[eE][+-][0-9]{3}", text):
                continue
            verdict = oracle.verdict(json.loads(text, parse_float=_number))
            assert verdict is not False, (index, text, schema)
            n += bool(verdict)
    return n


def _number(text: str) -> int | Fraction:
    value = Fraction(text)
    return int(value) if value.denominator == 1 else value


def test_texts_of_random_schemas_are_valid():
    assert check_samples(1, range(25)) > 20


@pytest.mark.slow
def test_texts_of_many_random_schemas_are_valid():
    assert check_samples(11, range(1500)) > 2000
