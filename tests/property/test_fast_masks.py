"""Masks that are made in one call, or from those of any string, against walks of the whole vocabulary."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from outlines_core.json_schema.machine import STRINGS
from outlines_core.json_states import NO_RECORDS
from outlines_core.kernels import json as kernel
from outlines_core.kernels.json_memory import FREE

WORDS = [
    *(
        '":',
        '": ',
        '","',
        '", "',
        '{"',
        '"}',
        '."',
        '!"',
        ' a"',
        '\\"',
        "\\n",
        "\\u00",
        "\\u00e9",
        "\\ud83d",
        'é"',
        "ab",
        "abc",
        " the",
        "12",
    ),
    *("true", "null", "[[", '"]', "a b c d e f g h i j k l m n", " " * 30, "-" * 60, "1234567890" * 3, "ab-" * 12),
    *('nothing but words, and then it ends."', "é" * 20, "\\n" * 15, "a" * 25 + "\\", "😀 " * 12),
]
PATTERNS = [
    "[0-9]{3}-[a-f]",
    r"^(\S+\s+){0,9}\S+$",
    r"^$|^(\S+\s+){0,30}\S+$",
    "^[a-z ]+$",
    "b$",
    r"\d{4}-\d{2}",
    "^.*x.*y",
    "^.{2,}é",
    "[^a]*b$",
    r"^\w*\s?[\w\s]*$",
    "^[^ ]+$",
    "^[a-f0-9]{2,40}$",
    "^[\u0080-\u07ff]*$",
    "^[^\u2028é]*$",
]
BYTES = [
    *(b"\xc3", b"\xa9x", b"\xe6\x97", b"\xa5 a", b"\xed\x95\x9c", b"\xed\xa0", b"\xf0\x9f\x98", b"\x80\x80a", b"a\xff"),
    *(
        text.encode()
        for text in ("日本", "日本語です", "\u2028x", "a\u00a0b", "x\u3000", "한국", "naïve", "\U0010ffff1", "ключ")
    ),
    *(b"ab\xc3", b"z\xe2\x80", b"\xe2\x80\xa8", b"AB", b"beef", b"cafe12", b"x_y-z", b"\\u", b"\\t\\t", b"a\\nb"),
]


@pytest.fixture(scope="module")
def vocabulary() -> oc.Vocabulary:
    tokens = {bytes([b]): [b] for b in range(256)}
    for k, word in enumerate(WORDS):
        tokens.setdefault(word.encode(), [300 + k])
    for k, text in enumerate(BYTES):
        tokens.setdefault(text, [400 + k])
    tokens[b"ab"] = [*tokens[b"ab"], 299]  # two ids of one text
    return oc.Vocabulary(298, tokens)


def values() -> st.SearchStrategy[Any]:
    lengths = st.sampled_from(
        [{}, {"maxLength": 12}, {"maxLength": 200}, {"minLength": 2}, {"minLength": 2, "maxLength": 90}]
    )
    strings = st.builds(
        lambda pattern, more: {"type": "string", "pattern": pattern, **more}, st.sampled_from(PATTERNS), lengths
    )
    listed = st.lists(
        st.sampled_from(["a", "ab", "abc", "é", "", "\n", 'a"b', "\\", "x/y", "\ud800", 1, True]), min_size=1
    )
    plain = st.sampled_from([{"type": "string"}, {"type": "integer", "minimum": 3}, {"type": "number"}, {}])
    return st.one_of(
        strings, strings, lengths.map(lambda more: {"type": "string", **more}), listed.map(lambda v: {"enum": v}), plain
    )


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(["a", "ab", "é", "", "x\n", 'q"', "\\"]), unique=True, min_size=1, max_size=4))
    made: dict[str, Any] = {"type": "object", "properties": {key: draw(values()) for key in keys}, "required": keys[:2]}
    others = draw(st.sampled_from([None, False, "pattern"]))
    if others is False:
        made["additionalProperties"] = False
    elif others:
        made["patternProperties"] = {draw(st.sampled_from(PATTERNS)): draw(values())}
    return draw(st.sampled_from([made, {"type": "array", "items": made}, {"anyOf": [made, draw(values())]}]))


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(schema=schemas(), seed=st.integers(0, 1 << 20), whitespace=st.sampled_from(["flexible", "compact"]))
def test_masks_are_those_of_walks(vocabulary: oc.Vocabulary, schema: Any, seed: int, whitespace: str) -> None:
    try:
        automaton = oc.compile_json_schema(schema, vocabulary, whitespace=whitespace)
    except oc.UnsatisfiableError:
        return
    rng = random.Random(seed)
    row = oc.allocate_bitmask(1, vocabulary)[0]
    for _ in range(3):
        state = automaton.initial_state
        for _ in range(60):
            automaton.fill_mask(state, row)
            ids = [i for i in unpack_ids(row).tolist() if i != 298]
            if not ids:
                break
            compare(automaton._core, state, ids)
            long = [i for i in ids if i >= 299]
            state = automaton.next_state(state, rng.choice(long if long and rng.random() < 0.4 else ids))


def compare(core: Any, state: int, ids: list[int]) -> None:
    """The mask of a state, and what stays inside the string there, by walks."""
    number = core.state_config[state]
    i, c, _, x, _ = config = core.config[number].tolist()
    if core.state_records[state] is NO_RECORDS:
        core._fill_whole(state, config, -1)
        assert [k for k in unpack_ids(core._words[: core.n_words]).tolist() if k != 298] == ids
    if c > FREE and core.fields(i)[0] == kernel.STRING and x & 0xFFFFFFFF == 0:
        shared = core.shared
        lengths = [np.full(shared.table.size, -1, dtype=np.int32) for _ in range(2)]
        words, exits = every_step(shared, core, c, lengths[0])
        none = np.zeros(0, dtype=np.int32)
        walks = [shared._walk(core, c, kernel.STRING, none), shared._walk(core, c, kernel.STRING, lengths[1])]
        if shared.arena.rows[c, 0x20:0x7F].any():  # a character begins there
            any_string = shared.limited(core, FREE).words
            walks.append(shared._walk(core, c, kernel.STRING, none, less_than=any_string))
        for found in walks:
            assert np.array_equal(found[0], words)
            assert np.array_equal(found[1], exits)
        assert np.array_equal(*lengths)
        for made in (shared._enduring(core, c), shared._like_any_string(core, c)):
            if made is not None:
                assert np.array_equal(made.words, words)
                assert np.array_equal(made.exits, exits)


def every_step(shared: Any, core: Any, c: int, lengths: Any) -> tuple[Any, Any]:
    """A walk that sums up nothing: no node says what comes below it."""
    known = shared._categories
    shared._categories = np.full_like(known, 1 << 61)
    try:
        found: tuple[Any, Any] = shared._walk(core, c, kernel.STRING, lengths)
        return found
    finally:
        shared._categories = known


def test_strings_like_any_string_are_found(vocabulary: oc.Vocabulary) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^.*$"}}, "required": ["a"]}
    core = oc.compile_json_schema(schema, vocabulary)._core
    state = core.start
    for byte in b'{"a":"x':
        core.mask(state)
        state = core.next_state(state, byte)
    core.mask(state)
    c = int(core.config[core.state_config[state], 1])
    assert c > FREE
    assert core.shared._like_any_string(core, c) is not None


@given(
    pattern=st.sampled_from(["^[ab]*$", "^a{0,3}$", "^(a|b|ab)$", ".", "^ab?c?$", "^[a-c]{2}$"]),
    texts=st.lists(st.text("abc", max_size=4), unique=True, max_size=12),
)
def test_leads_elsewhere_as_its_readable_twin(vocabulary: oc.Vocabulary, pattern: str, texts: list[str]) -> None:
    core = oc.compile_json_schema({"type": "string", "pattern": pattern}, vocabulary)._core
    recognizer = core.shared.lexemes.strings(*core.machine.tests(core.machine.root, STRINGS))
    texts.sort(key=str.encode)
    assert core._leads_elsewhere(recognizer, texts) == leads_elsewhere(recognizer, [text.encode() for text in texts])


def leads_elsewhere(recognizer: Any, texts: list[bytes]) -> bool:
    places = [(recognizer.start, b"")]
    for state, text in places:
        row = recognizer.row(state)
        ways = set(np.flatnonzero(row).tolist())
        for byte in {other[len(text)] for other in texts if other.startswith(text) and len(other) > len(text)}:
            if byte in ways:
                ways.discard(byte)
                places.append((int(row[byte]), text + bytes([byte])))
        if not state or not ways:
            return False
    return True


def test_some_strings_endure(vocabulary: oc.Vocabulary) -> None:
    """The fast way is not just never taken."""
    schema = {"type": "string", "pattern": "[0-9]{3}-[a-f]"}
    core = oc.compile_json_schema(schema, vocabulary)._core
    state = core.start
    for byte in b'"12':
        core.mask(state)
        state = core.next_state(state, byte)
    core.mask(state)
    c = int(core.config[core.state_config[state], 1])
    made = core.shared._enduring(core, c)
    assert made is not None
    assert made.words is not None
    assert int(core.shared.arena.inside[c]) == made.table.address
