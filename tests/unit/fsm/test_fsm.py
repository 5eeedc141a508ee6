"""`outlines_core.fsm` against what outlines_core 0.1.26 does (facts) and against its own one-token-at-a-time twin."""

from __future__ import annotations

import pickle

import interegular
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interegular.fsm import FSM, Alphabet, anything_else

from outlines_core.fsm import json_schema, outlines_core_rs
from outlines_core.fsm.guide import (
    Generate,
    RegexGuide,
    StopAtEOSGuide,
    Write,
    create_states_mapping,
    create_states_mapping_from_fsm,
)
from outlines_core.fsm.regex import (
    Index,
    Vocabulary,
    _walk_fsm,
    byte_symbol,
    create_fsm_index_end_to_end,
    create_fsm_index_tokenizer,
    get_token_transition_keys,
    get_vocabulary_transition_keys,
    gpt2_bytes_to_unicode,
    make_byte_level_fsm,
    make_deterministic_fsm,
    reduced_vocabulary,
    state_scan_tokens,
)


class Tokenizer:
    """Outlines' tokenizer protocol."""

    eos_token_id = 0

    def __init__(self, *tokens: str | bytes) -> None:
        self.vocabulary = {"</s>": 0} | {token: i for i, token in enumerate(tokens, 1)}
        self.special_tokens = {"</s>"}

    def convert_token_to_string(self, token):
        return token


def machine(pattern: str, **options):
    return make_deterministic_fsm(make_byte_level_fsm(interegular.parse_pattern(pattern).to_fsm().reduce(), **options))[
        0
    ]


@pytest.mark.parametrize(
    ("pattern", "tokens", "edges"),
    [  # by outlines_core 0.1.26
        ("[1-9]", ["1", "a", "12"], {0: {1: 1}}),
        ("[ab]+", ["1", "a", "b", "ab"], {0: {2: 1, 3: 1, 4: 1}, 1: {0: 1, 2: 1, 3: 1, 4: 1}}),
        ("(ab|b1)*", ["1", "a", "b", "ab"], {0: {0: 0, 2: 1, 3: 2, 4: 0}, 1: {3: 0}, 2: {1: 0}}),
        ("é+a", ["é", "a", "éa"], {0: {1: 2, 3: 3}, 2: {1: 2, 2: 3, 3: 3}}),
    ],
)
def test_the_states_are_those_of_the_machine(pattern, tokens, edges):
    guide = RegexGuide.from_regex(pattern, Tokenizer(*tokens))
    assert guide.initial_state == 0
    assert guide.get_index_dict() == edges
    for state, row in edges.items():
        assert guide.get_next_instruction(state) == Generate(sorted(row))
        assert guide.is_final_state(state) == (0 in row)
        for token_id, to in row.items():
            assert guide.get_next_state(state, token_id) == (to if token_id else -1)


def test_a_guide_ends_in_minus_one():
    guide = RegexGuide.from_regex("[1-9]", Tokenizer("1", "a"))
    after = guide.get_next_state(0, 1)
    assert guide.get_next_instruction(after) == guide.get_next_instruction(-1) == Write([0])
    assert guide.is_final_state(after)
    assert guide.is_final_state(-1)
    assert guide.get_next_state(0, 2) == guide.get_next_state(-1, 1) == guide.get_next_state(after, 0) == -1
    assert guide.copy() is guide
    twin = pickle.loads(pickle.dumps(guide))
    assert twin.get_index_dict() == guide.get_index_dict()
    assert twin.states_to_token_maps == guide.states_to_token_maps
    assert guide.states_to_token_maps.get_allowed_tokens(99) is None


def test_dead_ends_are_pruned_and_nothing_at_all_is_an_error():
    guide = RegexGuide.from_regex("(ab|c)", Tokenizer("a", "c"))
    assert guide.get_next_instruction(0) == Generate([2])
    with pytest.raises(ValueError, match="The vocabulary does not allow us to build a sequence that matches"):
        create_states_mapping("ab", Tokenizer("a"))


def test_other_parsers_and_machines():
    class Parsed:
        def to_fsm(self):
            return interegular.parse_pattern("b").to_fsm()

    index, empty, finals = create_states_mapping("whatever", Tokenizer("a", "b"), regex_parser=lambda _: Parsed())
    assert (index.get_transitions(), empty, finals) == ({0: {2: 1}}, set(), {1})
    fsm = interegular.parse_pattern("b").to_fsm()
    assert create_states_mapping_from_fsm(fsm, Tokenizer("a", "b"))[0].get_transitions() == {0: {2: 1}}
    guide = RegexGuide.from_interegular_fsm(fsm, Tokenizer("a", "b"))
    assert guide.get_index_dict() == {0: {2: 1}}
    with pytest.raises(interegular.patterns.Unsupported):
        create_states_mapping("^a", Tokenizer("a"))


def test_a_frozen_token_is_one_symbol():
    fsm = FSM(Alphabet({"a": 0, "<go>": 1, anything_else: 2}), {0, 1, 2}, 0, {2}, {0: {0: 1}, 1: {1: 2}, 2: {}})
    index, _, _ = create_states_mapping_from_fsm(fsm, Tokenizer("a", "<go>", "<"), ["<go>"])
    assert index.get_transitions() == {0: {1: 1}, 1: {2: 2}}
    assert index.is_final_state(2)


def test_no_text_but_utf8():
    bytes_of = [bytes([b]) for b in range(0x80, 0x100)]
    index, _, _ = create_states_mapping(".", Tokenizer("a", *bytes_of))
    ids = index.get_allowed_tokens(0)
    assert [bytes_of[i - 2][0] for i in ids if i > 1] == list(range(0xC2, 0xF5))
    first = index.get_next_state(0, 2 + 0xE0 - 0x80)
    assert [bytes_of[i - 2][0] for i in index.get_allowed_tokens(first)] == list(range(0xA0, 0xC0))


@given(
    st.sampled_from(["ab|ac", "[^a]b*", "(é|e)+x?", "[é-í]{2}", ".a", "(foo|bar)(,(foo|bar))*"]),
    st.lists(st.text("aébfoxrí,", min_size=1, max_size=3), min_size=2, max_size=12, unique=True),
)
@settings(max_examples=60, deadline=None)
def test_an_index_is_the_twin_without_its_dead_ends(pattern, tokens):
    fsm = machine(pattern, keep_utf8=True)
    vocabulary = Vocabulary.from_dict(reduced_vocabulary(Tokenizer(*tokens))[0])
    every = create_fsm_index_end_to_end(fsm.fsm_info, vocabulary)
    live = set(fsm.finals)
    for _ in every:
        live |= {state for state, row in every.items() if live & set(row.values())}
    wanted = {
        state: {i: to for i, to in row.items() if to in live} | ({0: state} if state in fsm.finals else {})
        for state, row in every.items()
        if live & set(row.values())
    }
    try:
        index = Index(fsm.fsm_info, vocabulary, 0)
    except ValueError:
        assert fsm.initial not in live
        return
    reached, open_ = {0}, [0]
    for state in open_:
        new = set(wanted.get(state, {}).values()) - reached
        reached |= new
        open_ += new
    assert index.get_transitions() == {state: row for state, row in wanted.items() if state in reached}


@pytest.mark.parametrize("text", ["a", "d", "é", "😀", "😈😈", "😎", "aa", ""])
@pytest.mark.parametrize("pattern", ["[a-c]+", "[^a-c]+", "[😀-😍]{2}", "[^😀-😍]{2}", "é?."])
def test_bytes_are_read_as_characters_are(pattern, text):
    fsm = interegular.parse_pattern(pattern).to_fsm()
    symbols = list(map(byte_symbol, text.encode()))
    both = make_byte_level_fsm(fsm, keep_utf8=True)
    assert make_byte_level_fsm(fsm).accepts(symbols) == fsm.accepts(text)
    assert both.accepts(symbols) == both.accepts(text) == fsm.accepts(text)
    better, numbers = make_deterministic_fsm(both)
    assert better.accepts(symbols) == fsm.accepts(text)
    assert numbers[both.initial] == better.initial == 0
    assert sorted(better.states) == list(range(len(better.states)))
    assert better.copy().fsm_info == better.fsm_info


def test_numbers_do_not_depend_on_those_before():
    fsm = machine("(foo|bar|baz)+")
    other = FSM(
        fsm.alphabet,
        {s + 7 for s in fsm.states},
        7,
        {s + 7 for s in fsm.finals},
        {s + 7: {key: to + 7 for key, to in row.items()} for s, row in fsm.map.items()},
    )
    assert make_deterministic_fsm(other)[0].map == fsm.map


def test_reduced_vocabularies():
    class Converts(Tokenizer):
        def convert_token_to_string(self, token):
            return {"<0xC3>": "\ufffd", "Ġ": "\ufffd", "e": ""}.get(token, token)

    tokens, empty = reduced_vocabulary(Converts("a", "<0xC3>", "Ġ", "e", b"\xe9", "\ufffd"))
    assert tokens == {"a": [1], "\x00C3": [2], " ": [3], "\x00E9": [5], "\ufffd": [6]}
    assert empty == {4}
    assert gpt2_bytes_to_unicode()[0x20] == "Ġ"

    class Fails(Tokenizer):
        def convert_token_to_string(self, token):
            return "\ufffd"

    with pytest.raises(RuntimeError, match="Cannot convert token `ж`"):
        reduced_vocabulary(Fails("ж"))


def test_one_token_at_a_time():
    fsm = machine("ab|ac")
    info = fsm.fsm_info
    keys = get_token_transition_keys(info.alphabet_symbol_mapping, info.alphabet_anything_value, "ab")
    assert _walk_fsm(info.transitions, 0, info.finals, keys, 0, True) == [1, 2]
    assert _walk_fsm(info.transitions, 0, info.finals, keys[:1], 0, True) == []
    assert _walk_fsm(info.transitions, 0, info.finals, keys[:1], 0, False) == [1]
    assert _walk_fsm(info.transitions, 0, info.finals, [*keys, 0], 0, False) == [1, 2]
    vocabulary = Vocabulary.from_dict({"a": [1], "ab": [2, 3], "z": [4]})
    mapping = get_vocabulary_transition_keys(
        info.alphabet_symbol_mapping, info.alphabet_anything_value, vocabulary, {"z"}
    )
    assert mapping["ab"] == keys
    scanned = state_scan_tokens(info.transitions, 0, info.finals, vocabulary, mapping, 0)
    assert scanned == {(1, 1), (2, 2), (3, 2)}
    index, _ = create_fsm_index_tokenizer(fsm, Tokenizer("a", "b"))
    assert list(index) == [0, 1]


def test_any_text():
    guide = StopAtEOSGuide(Tokenizer("a"))
    assert guide.get_next_instruction(guide.initial_state) == Generate(None)
    assert guide.get_next_state(0, 1) == 0
    assert guide.get_next_state(0, 0) == guide.final_state == 1
    assert guide.get_next_instruction(1) == Write([0])


def test_the_other_names():
    schema = {"type": "integer"}
    assert (
        json_schema.to_regex(schema)
        == json_schema.INTEGER
        == json_schema.build_regex_from_schema('{"type": "integer"}')
    )
    assert outlines_core_rs.Index is Index
