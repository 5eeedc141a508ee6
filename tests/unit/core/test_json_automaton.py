"""The automaton of a JSON Schema against itself, byte by byte: masks, closings, explanations, refusals with places."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import outlines_core as oc
from outlines_core import compile as compile_module
from outlines_core import json_masks, json_stored
from outlines_core.bitmask import unpack_ids
from outlines_core.json_masks import LexemeMasks

WORDS = ['"', '":', ",", "{", "}", "[", "]", '{"', '"}', '",', '", "', '":"', '"a', '":{', "},", "}]", "},{", '"],']
WORDS += ['["', "]]", "true", "false", "null", "12", "10", "1,", "2]", "3,4", "  ", '","a', '"a","b"', '"a","a"', "1,1"]
WORDS += ["1,2", "\\u00", "ab"]


@pytest.fixture(scope="module")
def vocabulary() -> oc.Vocabulary:
    tokens = {bytes([b]): [b] for b in range(256)}
    for k, word in enumerate(WORDS):
        tokens.setdefault(word.encode(), [300 + k])
    return oc.Vocabulary(299, tokens)


STRINGS = [
    '"',
    '"",',
    "abc",
    "a b",
    "b a ",
    "cccc",
    "c c c",
    'cc"',
    'c c"',
    "\\n",
    "\\u",
    "\\u0",
    "\\u006",
    "\\u0061",
    "\\u00",
]
STRINGS += [
    "\\ud83d",
    "\\ud83d\\",
    "\\ud83d\\ude00",
    "\\ude00",
    "a\\",
    'ab\\"',
    "\\\\",
    "😀",
    "😀a",
    'a"}',
    '\\ud83d"',
    'é"',
]
STRINGS += ['":1,', '":1,"', '":1,"a', '":1,"a"', '":1,"b', '":1,"b":1', '{"a":1,"a', '{"b":1,"a":1', '{"b":1,"b']


@pytest.fixture(scope="module")
def characters() -> oc.Vocabulary:
    """Tokens that begin and end within characters and escapes."""
    tokens = {bytes([b]): [b] for b in range(256)}
    pieces = [word.encode() for word in STRINGS] + [
        b"\xf0\x9f",
        b'\x9f\x98\x80"',
        b'\xa9"',
        b"a\xc3",
        b"\xed\x9f",
        b'\xbf"',
    ]
    for k, piece in enumerate(pieces):
        tokens.setdefault(piece, [300 + k])
    return oc.Vocabulary(299, tokens)


def accepts(automaton: Any, text: str) -> bool:
    n, state = automaton.accept_tokens(automaton.initial_state, list(text.encode()))
    return n == len(text.encode()) and automaton.is_accepting(state)


def walked(automaton: Any, vocabulary: oc.Vocabulary, seed: int) -> None:
    """A random walk; at each state every token of the mask leads somewhere, and byte by byte to the same state."""
    rng = random.Random(seed)
    state, text = automaton.initial_state, b""
    row = oc.allocate_bitmask(1, vocabulary)[0]
    for _ in range(25):
        automaton.fill_mask(state, row)
        ids = set(unpack_ids(row).tolist())
        for token, (token_id, *_) in vocabulary.items():
            n, target = automaton.accept_tokens(state, list(token))
            assert (token_id in ids) == (n == len(token)), (text, token)
            if n == len(token):
                assert automaton.next_state(state, token_id) == target
        likely = [i for i in ids if i >= 300 or chr(i) in '[]{},":ab12']
        if not likely:
            break
        token_id = rng.choice(likely)
        if token_id == 299:
            break
        state = automaton.next_state(state, token_id)
        text += vocabulary.token_bytes(token_id)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
        {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b", "ab"]}},
        {"type": "array", "uniqueItems": True, "items": {"type": "integer"}, "minItems": 2},
        {
            "type": "array",
            "uniqueItems": True,
            "items": {"properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False},
        },
        {"type": "array", "uniqueItems": True, "items": {"uniqueItems": True, "items": {"type": "string"}}},
        {"type": "array", "uniqueItems": True, "contains": {"const": 1}, "items": {"type": "integer"}},
        {"patternProperties": {"^a": {"type": "integer"}}, "properties": {"ab": True}, "additionalProperties": False},
        {"patternProperties": {"^a$": {"type": "integer"}}, "properties": {"ab": True, "a": False}},
        {"properties": {"ab": {"type": "integer"}, "b": {"type": "string"}, "a": False, 'b"': {}, "true": {}}},
        {
            "oneOf": [
                {"properties": {"a": {"const": 1}, "b": {"type": "string"}}, "required": ["a"]},
                {"properties": {"a": {"enum": [2, 12]}, "b": {"type": "integer"}}, "required": ["a", "b"]},
                {"properties": {"a": {"const": 2}, "b": {"minimum": 10}}, "required": ["a"]},
            ]
        },
    ],
)
@pytest.mark.parametrize("order", ["schema", "any"])
def test_masks_say_what_bytes_say(vocabulary: oc.Vocabulary, schema: Any, order: str) -> None:
    automaton = oc.compile_json_schema(schema, vocabulary, whitespace="compact", property_order=order)
    for seed in range(6):
        walked(automaton, vocabulary, seed)


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "age": {"type": "integer", "minimum": 5},
        "tags": {"type": "array", "items": {"enum": ["a", "bcd"]}, "minItems": 2, "uniqueItems": True},
        "k": {"anyOf": [{"required": ["u"]}, {"required": ["vv", "ww"]}], "type": "object"},
    },
    "required": ["name", "age", "tags", "k"],
}
TEXT = '{"name": "x\\u00e9", "age": 12, "tags": ["a","bcd"], "k": {"q": 1, "u": [{}]}, "zz": 5}'


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": r"^[a-c]{2,4}$"},
        {"pattern": r"^[a-c]{2,4}$", "maxLength": 3},
        {"pattern": r"^(\S+\s+){0,2}\S+$", "maxLength": 7, "minLength": 1},
        {"pattern": "abc", "maxLength": 5, "minLength": 3},
        {"pattern": "abc", "maxLength": 6, "minLength": 5},
        {"pattern": r"^\S+$", "maxLength": 4, "minLength": 2},
        {"pattern": r"^.{2,4}$"},
        {"pattern": r"^a(bc)*$", "maxLength": 6},
        {"pattern": r"^[^a]{1,3}$"},
        {"minLength": 2, "maxLength": 2},
        {"pattern": r"^[\ud83d]{1,3}$"},
        {"pattern": r"^[\udc00-\udfff]{1,3}$"},
        {"pattern": r"^[a-c\u{1f600}\n]{2,3}$"},
        {"format": "date", "maxLength": 10},
    ],
)
@pytest.mark.parametrize("inside", [lambda s: s, lambda s: {"type": "array", "items": s, "uniqueItems": True}])
def test_masks_within_bounded_strings(characters: oc.Vocabulary, schema: Any, inside: Any) -> None:
    automaton = oc.compile_json_schema(inside({"type": "string", **schema}), characters, whitespace="compact")
    for seed in range(4):
        walked(automaton, characters, seed)


@pytest.mark.parametrize(
    "schema",
    [
        {"propertyNames": {"enum": ["\n"]}},
        {"propertyNames": {"pattern": "^[ab]$"}},
        {"propertyNames": {"pattern": "^(a|b.*)$"}},
        {"propertyNames": {"pattern": "^(a|b.*)$"}, "properties": {"bb": {}}, "maxProperties": 2},
        {"patternProperties": {"^a$": {"type": "integer"}, "^b": {}}, "additionalProperties": False},
        {"patternProperties": {"^[ab]$": {}}, "additionalProperties": False, "minProperties": 2},
        {"additionalProperties": {"type": "integer"}},
    ],
)
@pytest.mark.parametrize("order", ["schema", "any"])
def test_masks_over_several_keys(characters: oc.Vocabulary, schema: Any, order: str) -> None:
    automaton = oc.compile_json_schema(
        {"type": "object", **schema}, characters, whitespace="compact", property_order=order
    )
    for seed in range(6):
        walked(automaton, characters, seed)


def test_completions_complete_every_prefix(vocabulary: oc.Vocabulary) -> None:
    automaton = oc.compile_json_schema(PERSON, vocabulary)
    state = automaton.initial_state
    assert automaton.completion(state) == b'{"name":"00","age":5,"tags":["a","bcd"],"k":{"u":0}}'
    for byte in TEXT.encode():
        rest = automaton.completion(state)
        n, end = automaton.accept_tokens(state, list(rest))
        assert n == len(rest)
        assert automaton.is_accepting(end)
        assert automaton.min_tokens_to_accept(state) <= len(rest)
        state = automaton.next_state(state, byte)
    assert automaton.is_accepting(state)
    assert automaton.min_tokens_to_accept(state) == 0
    assert automaton.min_tokens_to_accept(oc.FINISHED) == 0
    with pytest.raises(ValueError, match="rejected token"):
        automaton.min_tokens_to_accept(oc.DEAD)


@pytest.mark.parametrize(
    "schema",
    [
        PERSON,
        {"type": "array", "items": [{"type": "integer"}], "contains": {"type": "object"}, "minItems": 3},
        {"minProperties": 3, "required": ["b"], "properties": {"a": {"type": "null"}}, "type": "object"},
        {"type": "object", "not": {"patternProperties": {"^a": {"type": "string"}}}, "minProperties": 2},
        {"$defs": {"n": {"properties": {"n": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}, "required": ["n"],
         "type": "object"}}, "$ref": "#/$defs/n"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("spare", [0, 1, 5, 40])
def test_closing_masks_leave_room_to_end(vocabulary: oc.Vocabulary, schema: Any, spare: int) -> None:
    automaton = oc.compile_json_schema(schema, vocabulary)
    rng = random.Random(spare)
    row = oc.allocate_bitmask(1, vocabulary)[0]
    state, left = automaton.initial_state, automaton.min_tokens_to_accept(automaton.initial_state) + spare
    while True:
        automaton.fill_closing_mask(state, left, row)
        ids = unpack_ids(row).tolist()
        assert ids
        token_id = rng.choice(ids)
        state = automaton.next_state(state, token_id)
        if token_id == 299:
            break
        left -= 1
        assert automaton.min_tokens_to_accept(state) <= left


def test_explanations_name_the_place_and_what_is_expected(vocabulary: oc.Vocabulary) -> None:
    automaton = oc.compile_json_schema(PERSON, vocabulary)

    def after(text: str) -> str:
        return automaton.explain(automaton.accept_tokens(automaton.initial_state, list(text.encode()))[1])

    assert "an object" in after("")
    assert 'the key "name"' in after("{")
    assert "$.name" in after('{"name":')
    assert "at least 2 characters (schema #/properties/name)" in after('{"name":')
    assert 'still required: "age" and "tags" and "k"' in after('{"name":"ab"')
    assert 'rest of the key "age"' in after('{"name":"ab","a')
    assert "an integer, >= 5 (schema #/properties/age)" in after('{"name":"ab","age":')
    assert '$.tags[]: the rest of "bcd"' in after('{"name":"ab","age":5,"tags":["a","b')
    assert "may end here" in after(TEXT)
    assert "not allowed" in automaton.explain(oc.DEAD)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}, "/properties/a"),
        ({"type": "array", "minItems": 1, "items": {"minLength": 3, "maxLength": 2, "type": "string"}}, "/items"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, ""),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}}, "/$defs/a"),
    ],
)
def test_unsatisfiable_schemas_are_refused_with_the_place(vocabulary: oc.Vocabulary, schema: Any, path: str) -> None:
    with pytest.raises(oc.UnsatisfiableError) as caught:
        oc.compile_json_schema(schema, vocabulary)
    assert caught.value.path == path


FEW = {
    "type": "array",
    "uniqueItems": True,
    "minItems": 2,
    "items": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "not": {"required": ["z"]}, "maxProperties": 1},
}


def test_what_cannot_be_enforced_is_listed_refused_or_left_out(vocabulary: oc.Vocabulary) -> None:
    hard = {"properties": {"u": {**FEW, "contains": {"const": {"a": 1}}, "maxItems": 2}, "p": {"pattern": r"(a)\1"}}}
    listed = {error.path: error.feature for error in oc.validate_schema_support(hard)}
    assert listed["/properties/p/pattern"] == "back-reference"
    assert oc.validate_schema_support(PERSON) == []
    with pytest.raises(oc.UnsupportedFeatureError, match="back-reference"):
        oc.compile_json_schema(hard, vocabulary)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        automaton = oc.compile_json_schema(hard, vocabulary, lenient=True)
    assert len(caught) == len(listed)
    assert accepts(automaton, '{"p":"x"}')
    with pytest.raises(oc.UnsupportedFeatureError, match="refers to itself"):
        oc.compile_json_schema({"$ref": "#"}, vocabulary)


def test_few_unique_items_are_counted(vocabulary: oc.Vocabulary) -> None:
    boolean = {"type": "array", "items": {"type": "boolean"}, "maxItems": 1}
    few = {"uniqueItems": True, "minItems": 3, "items": boolean, "type": "array"}
    automaton = oc.compile_json_schema(few, vocabulary)
    assert accepts(automaton, "[[],[true],[false]]")
    assert not accepts(automaton, "[[],[true],[true]]")
    with pytest.raises(oc.UnsatisfiableError):
        oc.compile_json_schema({**few, "minItems": 4}, vocabulary)


@pytest.mark.parametrize("depth", [50, 600])
@pytest.mark.parametrize("as_text", [False, True])
def test_deep_schemas(vocabulary: oc.Vocabulary, depth: int, as_text: bool) -> None:
    schema: Any = {"type": "integer"}
    text = '{"type": "integer"}'
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"], "minProperties": 1}
        text = f'{{"type": "object", "properties": {{"a": {text}}}, "required": ["a"], "minProperties": 1}}'
    automaton = oc.compile_json_schema(text if as_text else schema, vocabulary)
    text = '{"a":' * depth + "0" + "}" * depth
    assert accepts(automaton, text)
    assert automaton.completion(automaton.initial_state) == text.encode()


def test_deep_items_that_must_differ(vocabulary: oc.Vocabulary) -> None:
    automaton = oc.compile_json_schema({"type": "array", "uniqueItems": True}, vocabulary)
    deep = "[" * 1200 + "]" * 1200
    assert accepts(automaton, f"[{deep},[{deep}]]")
    assert not accepts(automaton, f"[{deep},{deep}]")


def test_vocabularies_that_lack_bytes() -> None:
    letters = {bytes([b]): [k] for k, b in enumerate(b'"abc[],')}
    vocabulary = oc.Vocabulary(99, letters)
    automaton = oc.compile_json_schema(
        {"type": ["array", "integer", "object"], "items": {"type": "string"}}, vocabulary
    )
    assert automaton.completion(automaton.initial_state) == b"[]"
    assert sorted(automaton.allowed_tokens(automaton.initial_state)) == [letters[b"["][0]]
    with pytest.raises(oc.IncompatibleVocabularyError) as caught:
        oc.compile_json_schema({"type": "object"}, vocabulary)
    assert caught.value.missing_bytes == b":{}"


def test_automata_are_shared_copied_and_pickled(vocabulary: oc.Vocabulary) -> None:
    automaton = oc.compile_json_schema(PERSON, vocabulary)
    twin = pickle.loads(pickle.dumps(automaton))
    row, other = oc.allocate_bitmask(2, vocabulary)
    automaton.fill_mask(automaton.initial_state, row)
    twin.fill_mask(twin.initial_state, other)
    assert np.array_equal(row, other)
    assert "n_states" in repr(automaton)
    assert automaton.nbytes > 0


def test_threads_see_the_same_masks(vocabulary: oc.Vocabulary) -> None:
    def masks() -> list[bytes]:
        automaton = oc.compile_json_schema({**PERSON, "title": "threads"}, vocabulary)
        row = oc.allocate_bitmask(1, vocabulary)[0]
        state, found = automaton.initial_state, []
        for byte in TEXT.encode():
            automaton.fill_mask(state, row)
            found.append(row.tobytes())
            state = automaton.next_state(state, byte)
        return found

    results: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: results.append(masks())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)


def test_large_schemas_are_quick_to_compile(vocabulary: oc.Vocabulary) -> None:
    many = {"properties": {f"key{k}": {"type": "integer"} for k in range(3000)}, "required": ["key2999"]}
    words = [f"word {k}" for k in range(10_000)]
    for schema, text in (
        (many, '{"key7": 1, "key2999": 2}'),
        ({"enum": words}, json.dumps(words[-1])),
        ({"type": "string", "maxLength": 100_000}, '"' + "x" * 1000 + '"'),
        ({"type": "array", "maxItems": 10_000, "items": {"type": "integer"}}, "[1,2,3]"),
    ):
        assert accepts(oc.compile_json_schema(schema, vocabulary), text)


def test_alternatives_that_cannot_be_fulfilled_allow_nothing(vocabulary: oc.Vocabulary) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {}, "x": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
        "dependentRequired": {"a": ["c"]},
    }
    for order in ("schema", "any"):
        automaton = oc.compile_json_schema(schema, vocabulary, property_order=order)
        assert accepts(automaton, '{"x":1}')
        n, _ = automaton.accept_tokens(automaton.initial_state, list(b'{"a'))
        assert n == 2


def test_lists_of_one_key_order_nothing(vocabulary: oc.Vocabulary) -> None:
    schema = {"allOf": [{"properties": {"n": {}}}, {"properties": {"a": {}, "b": {}, "c": {}}}], "type": "object"}
    automaton = oc.compile_json_schema(schema, vocabulary)
    for text in ('{"a":1,"c":1,"n":1}', '{"n":1,"a":1,"b":1,"c":1}', '{"b":1,"n":1,"c":1}'):
        assert accepts(automaton, text)
    assert not accepts(automaton, '{"c":1,"n":1,"a":1}')


@pytest.mark.parametrize(("pattern", "least", "some"), [("^$", 2, False), ("^a$", 2, False), ("^(a+)?$", 2, True)])
def test_patterns_whose_texts_are_too_short_leave_no_string(
    vocabulary: oc.Vocabulary, pattern: str, least: int, some: bool
) -> None:
    schema = {"type": ["string", "null"], "pattern": pattern, "minLength": least}
    automaton = oc.compile_json_schema(schema, vocabulary)
    assert (automaton.accept_tokens(automaton.initial_state, list(b'"'))[0] == 1) == some
    assert accepts(automaton, "null")
    assert accepts(automaton, '"aa"') == some


def test_common_masks_are_found_by_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLINES_CACHE_DIR", str(tmp_path))
    tokens = {bytes([b]): [b] for b in range(256)}
    for first, second in itertools.product('abcdefgh"\\u,}] é', repeat=2):
        for third in "xyz0123456789 ,:":
            tokens.setdefault(f"{first}{second}{third}".encode(), [len(tokens)])
    vocabulary = oc.Vocabulary(len(tokens), tokens)
    assert vocabulary.size >= 4096  # the vocabularies for which anything is stored

    def masks() -> list[bytes]:
        compile_module.clear_cache()
        found = []
        texts = {
            "string": (b'"a', b"\n "),
            "number": (b"-", b"12", b"-0", b"-12.5"),
            "integer": (b" -1", b"123", b"1.0", b"\t"),
        }
        for kind, begun in texts.items():
            for schema in ({"type": kind}, {"type": kind, "maxLength": 2}):
                automaton = oc.compile_json_schema(schema, vocabulary)
                for text in begun:
                    accepted, state = automaton.accept_tokens(automaton.initial_state, list(text))
                    assert accepted == len(text)
                    row = oc.allocate_bitmask(1, vocabulary)[0]
                    automaton.fill_mask(state, row)
                    found.append(row.tobytes())
        return found

    made = masks()
    stored = list(tmp_path.rglob("*.bin"))
    assert stored
    with monkeypatch.context() as patched:
        for name in ("_walk", "_walk_whitespace"):
            patched.setattr(LexemeMasks, name, None)  # from now on they must come from disk
        assert masks() == made
    with monkeypatch.context() as patched:
        patched.setattr(json_stored, "LEAST_STORED", vocabulary.size + 1)
        patched.setattr(json_masks, "LEAST_STORED", vocabulary.size + 1)
        assert masks() == made
    for path in stored:
        path.write_bytes(b"damaged")
    assert masks() == made


def test_special_tokens_are_not_allowed_within_a_key() -> None:
    vocabulary = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)}, special_tokens={"<|x|>": 258})
    automaton = oc.compile_json_schema({"type": "object"}, vocabulary)
    _, state = automaton.accept_tokens(automaton.initial_state, b'{"a')
    assert automaton.next_state(state, 258) == oc.DEAD
    assert automaton.next_state(state, 257) == oc.DEAD
