"""Guides: instructions, state in and state out, the final state -1."""

import enum
import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError

import interegular
import numpy as np
import pytest
import torch

import outlines_core as oc
from processors.guide import (
    AutomatonGuide,
    Generate,
    Guide,
    JSONGuide,
    RegexGuide,
    StopAtEOSGuide,
    Write,
    cached_create_states_mapping,
)
from tests.toy_automaton import ToyAutomaton


class ProtocolTokenizer:
    """What outlines calls a tokenizer."""

    eos_token = "<eos>"
    eos_token_id = 3
    pad_token_id = 3
    vocabulary = {"1": 1, "a": 2, "<eos>": 3, "b": 4}
    special_tokens = {"<eos>"}

    def encode(self, text):
        raise NotImplementedError

    def decode(self, ids):
        names = {i: t for t, i in self.vocabulary.items()}
        return [names[i] for i in ids]

    def convert_token_to_string(self, token):
        return token


def generated(instruction) -> list[int]:
    assert isinstance(instruction, Generate)
    return instruction.tokens.tolist()


class TestInstructions:
    @pytest.mark.parametrize("tokens", [[3, 1], (3, 1), np.array([3, 1]), torch.tensor([3, 1])])
    def test_tokens_are_int64_tensors(self, tokens):
        for kind in (Write, Generate):
            got = kind(tokens).tokens
            assert got.dtype == torch.int64
            assert got.tolist() == [3, 1]
            assert kind(tokens).ids.tolist() == [3, 1]

    def test_everything(self):
        assert Generate(None).tokens is None
        with pytest.raises(TypeError):
            Write(None)

    def test_frozen(self):
        instruction = Write([1])
        for change in (lambda: setattr(instruction, "tokens", 1), lambda: delattr(instruction, "_ids")):
            with pytest.raises(FrozenInstanceError):
                change()
        with pytest.raises(ValueError, match="read-only"):
            instruction.ids[0] = 2

    def test_equality_hash_pickle_repr_match(self):
        assert Write([1, 2]) == Write((1, 2)) != Write([2, 1])
        assert Write([1]) != Generate([1])
        assert Generate(None) == Generate(None) != Generate([])
        assert len({Generate([1]), Generate(torch.tensor([1])), Write([1])}) == 2
        assert pickle.loads(pickle.dumps(Write([4]))) == Write([4])
        assert repr(Generate([5])) == "Generate(tokens=[5])"
        match Write([7]):
            case Write(tokens):
                assert tokens.tolist() == [7]

    def test_nested_tokens_are_refused(self):
        with pytest.raises(ValueError, match="flat"):
            Write([[1]])

    def test_no_torch_and_no_transformers_before_tokens_are_asked_for(self):
        code = (
            "import sys, outlines_core as oc, processors.guide as g\n"
            "guide = g.RegexGuide.from_regex('ab', oc.Vocabulary(2, {'a': [0], 'b': [1]}))\n"
            "instruction = guide.get_next_instruction(guide.initial_state)\n"
            "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
            "assert instruction.tokens.tolist() == [0, 1] and 'torch' in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestStopAtEOS:
    def test_states(self, toy):
        guide = StopAtEOSGuide(toy)
        assert isinstance(guide, Guide)
        assert (guide.initial_state, guide.start_state, guide.final_state) == (0, 0, 1)
        assert guide.get_next_instruction(0) == Generate(None)
        assert guide.get_next_instruction(1) == Write([7])
        assert guide.get_next_state(0, 2) == 0
        assert guide.get_next_state(0, 7) == 1
        assert guide.get_next_state(1, 2) == 1
        assert (guide.is_final_state(0), guide.is_final_state(1)) == (False, True)
        assert guide.copy() is guide

    def test_several_eos_ids_and_tokenizers(self):
        guide = StopAtEOSGuide(oc.Vocabulary([5, 4], {"a": [0]}))
        assert guide.get_next_state(0, 4) == guide.get_next_state(0, 5) == 1
        assert guide.get_next_instruction(1) == Write([5])
        assert StopAtEOSGuide(ProtocolTokenizer()).eos_token_ids == (3,)


class TestRegexGuide:
    def test_upstream_example(self):
        guide = RegexGuide.from_regex("[1-9]", ProtocolTokenizer())
        assert isinstance(guide, Guide)
        assert guide.initial_state == 0
        assert generated(guide.get_next_instruction(0)) == [1]
        assert guide.get_next_state(0, 1) == 1
        assert guide.get_index_dict() == guide.states_to_token_maps.get_transitions() == {0: {1: 1}}
        assert guide.get_next_instruction(1) == Write([3])
        assert guide.get_next_state(1, 3) == -1
        assert guide.get_next_state(0, 3) == -1
        assert [guide.is_final_state(s) for s in (0, 1, -1)] == [False, True, True]

    def test_final_state_absorbs(self, toy):
        guide = RegexGuide.from_regex("ab*", toy)
        for token in (0, 1, 7, 4, 99, -1):
            assert guide.get_next_state(-1, token) == -1
        assert guide.get_next_instruction(-1) == Write([7])
        assert guide.is_final_state(-1)

    def test_accepting_states_offer_eos_among_the_rest(self, toy):
        guide = RegexGuide.from_regex("ab*", toy)
        state = guide.get_next_state(guide.initial_state, 0)
        assert generated(guide.get_next_instruction(state)) == [1, 7]
        assert guide.is_final_state(state)
        assert guide.get_index_dict()[state] == {1: state, 7: state}

    def test_forced_tokens_are_written_together(self):
        vocabulary = oc.Vocabulary(4, {"a": [0], "b": [1], "c": [2], "d": [3]})
        guide = RegexGuide.from_regex("a?bcd(a|b)", vocabulary)
        assert generated(guide.get_next_instruction(guide.initial_state)) == [0, 1]
        state = guide.get_next_state(guide.initial_state, 0)
        instruction = guide.get_next_instruction(state)
        assert instruction == Write([1, 2, 3])
        for token in instruction.tokens.tolist():
            state = guide.get_next_state(state, token)
        assert generated(guide.get_next_instruction(state)) == [0, 1]

    def test_several_tokenizations_are_not_forced(self, toy):
        guide = RegexGuide.from_regex("abc", toy)
        assert generated(guide.get_next_instruction(guide.initial_state)) == [0, 2, 5]

    def test_no_dead_ends(self):
        """(ab|c) over {a, c}: the older package offers `a`, then ends with "a"."""
        guide = RegexGuide.from_regex("(ab|c)", oc.Vocabulary(9, {"a": [0], "c": [1]}))
        assert generated(guide.get_next_instruction(guide.initial_state)) == [1]
        with pytest.raises(ValueError, match="The vocabulary"):
            RegexGuide.from_regex("ab", oc.Vocabulary(9, {"a": [0], "c": [1]}))

    def test_compatibility_arguments_are_tolerated(self, toy):
        guide = RegexGuide.from_regex(
            "a",
            toy,
            _create_states_mapping=None,
            device="cpu",
            regex_parser=interegular.parse_pattern,
            frozen_tokens=[],
        )
        assert generated(guide.get_next_instruction(guide.initial_state)) == [0]
        assert guide.copy().get_next_state(guide.initial_state, 0) == guide.get_next_state(guide.initial_state, 0)

    def test_from_interegular_fsm(self, toy):
        fsm = interegular.parse_pattern("a(b|c)").to_fsm()
        one = RegexGuide.from_interegular_fsm(fsm, toy, device="cpu", frozen_tokens=[])
        two = RegexGuide.from_regex("a(b|c)", toy)
        words = [[0, 1], [0, 3], [2], [0], [1], [5], [0, 1, 1]]
        for guide in (one, two):
            ends = []
            for word in words:
                state = guide.initial_state
                for token in word:
                    state = guide.get_next_state(state, token)
                ends.append(state >= 0 and guide.is_final_state(state))
            assert ends == [True, True, True, False, False, False, False]

    def test_pickle(self, toy):
        guide = RegexGuide.from_regex("(ab)+", toy)
        again = pickle.loads(pickle.dumps(guide))
        assert again.get_index_dict() == guide.get_index_dict()

    def test_cached_create_states_mapping(self, toy):
        index, empty, finals = cached_create_states_mapping("a|ab", toy, frozen_tokens=[])
        assert empty == set()
        assert finals == index.get_final_states()
        assert cached_create_states_mapping("a|ab", oc.Vocabulary.from_binary(toy.to_binary()))[0] is index

    def test_state_maps(self, toy):
        maps = RegexGuide.from_regex("ab*", toy).states_to_token_maps
        state = maps.get_next_state(maps.get_initial_state(), 0)
        assert maps.get_allowed_tokens(state) == [1, 7]
        assert maps.is_final_state(state)
        assert maps.get_next_state(state, 3) is None
        assert maps.get_allowed_tokens(-1) == [7]
        assert list(maps) == list(maps.get_transitions())


BYTES = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)})


class TestJSONGuide:
    SCHEMA = {
        "type": "object",
        "properties": {"name": {"enum": ["Ada", "Alan"]}, "age": {"type": "integer", "minimum": 0, "maximum": 130}},
        "required": ["name"],
        "additionalProperties": False,
    }

    def state_after(self, guide, text):
        state = guide.initial_state
        for byte in text.encode():
            state = guide.get_next_state(state, byte)
        return state

    def test_state_in_state_out(self):
        guide = JSONGuide(self.SCHEMA, BYTES, whitespace="compact")
        assert isinstance(guide, Guide)
        assert guide.initial_state == 0
        assert guide.get_next_instruction(0) == Write(list(b'{"'))  # then n, or an escape
        assert generated(guide.get_next_instruction(self.state_after(guide, '{"name":"A'))) == sorted(b"\\dl")
        ada = self.state_after(guide, '{"name":"Ada"')
        assert generated(guide.get_next_instruction(ada)) == sorted(b",}")
        assert not guide.is_final_state(ada)
        end = self.state_after(guide, '{"name":"Ada","age":130}')
        assert guide.is_final_state(end)
        assert guide.get_next_instruction(end) == Write([256])
        assert guide.get_next_state(end, 256) == -1
        assert self.state_after(guide, '{"name":"Ada","age":131}') == -1
        assert guide.get_next_state(-1, 97) == -1
        assert guide.copy() is guide

    def test_forced_tokens_are_written_together(self):
        guide = JSONGuide({"type": "null"}, BYTES, whitespace="compact")
        assert guide.get_next_instruction(guide.initial_state) == Write(list(b"null"))

    def test_masks_are_those_of_the_automaton(self):
        guide = JSONGuide(self.SCHEMA, BYTES, property_order="any")
        automaton = oc.compile_json_schema(self.SCHEMA, BYTES, property_order="any")
        ours, theirs = guide.initial_state, automaton.initial_state
        for byte in b' {"age" : 1e2 ,\n"name": "Al\\u0061n"}':
            assert guide._allowed(guide._inside(ours)).tolist() == automaton.allowed_tokens(theirs).tolist()
            ours, theirs = guide.get_next_state(ours, byte), automaton.next_state(theirs, byte)
        assert guide.is_final_state(ours)
        assert automaton.is_accepting(theirs)

    @pytest.mark.parametrize(
        "schema",
        [json.dumps(SCHEMA), json.dumps(SCHEMA).encode(), oc.compile_json_schema(SCHEMA, BYTES, whitespace="compact")],
        ids=["text", "bytes", "automaton"],
    )
    def test_schemas_in_other_clothes(self, schema):
        guide = JSONGuide(schema, BYTES, whitespace="compact")
        assert guide.is_final_state(self.state_after(guide, '{"name":"Alan","age":7}'))
        assert JSONGuide(guide.automaton).automaton is guide.automaton

    def test_classes_and_functions(self):
        class Answer(enum.Enum):
            YES = "yes"
            NO = "no"

        def call(answer: Answer, times: int = 1): ...

        guide = JSONGuide.from_schema(call, BYTES, whitespace="compact")
        assert guide.is_final_state(self.state_after(guide, '{"answer":"no","times":3}'))
        assert self.state_after(guide, '{"answer":"maybe"') == -1
        assert JSONGuide(Answer, BYTES).is_final_state(self.state_after(JSONGuide(Answer, BYTES), '"yes"'))

    def test_options_reach_the_compiler(self):
        texts = {
            '{"age":1,"name":"Ada"}': {"property_order": "any"},
            '{"name":"Ada"}': {"whitespace": "compact"},
            '{ "name": "Ada"}': {"whitespace": " ?"},
            '{"name":  "Ada"}': {"max_whitespace": 2},
        }
        for text, options in texts.items():
            guide = JSONGuide(self.SCHEMA, BYTES, **options)
            assert guide.is_final_state(self.state_after(guide, text)), text
        assert self.state_after(JSONGuide(self.SCHEMA, BYTES), '{"age"') == -1
        assert self.state_after(JSONGuide(self.SCHEMA, BYTES, " ?"), '{  "name"') == -1
        assert self.state_after(JSONGuide(self.SCHEMA, BYTES, max_whitespace=2), "{   ") == -1
        assert self.state_after(JSONGuide(True, BYTES, ensure_ascii=True), '"é') == -1
        registry = {"https://example.org/name": {"type": "boolean"}}
        guide = JSONGuide({"$ref": "https://example.org/name"}, BYTES, registry=registry)
        assert guide.is_final_state(self.state_after(guide, "true"))
        with pytest.raises(oc.LimitExceededError):
            JSONGuide({"type": "string", "pattern": "(a{9}){9}"}, BYTES, limits=oc.Limits(max_nfa_states=20)).copy()

    def test_what_is_refused(self):
        with pytest.raises(TypeError, match="tokenizer"):
            JSONGuide(self.SCHEMA)
        with pytest.raises(ValueError, match="two names of one thing"):
            JSONGuide(self.SCHEMA, BYTES, "[ ]?", whitespace="compact")
        with pytest.raises(oc.UnsupportedFeatureError) as unsupported:
            JSONGuide({"properties": {"x": {"pattern": r"(a)\1"}}}, BYTES)
        assert unsupported.value.path == "/properties/x/pattern"
        with pytest.warns(UserWarning, match="not enforced: .*/properties/x/pattern"):
            JSONGuide({"properties": {"x": {"pattern": r"(a)\1"}}}, BYTES, lenient=True)
        with pytest.raises(oc.ConstraintSyntaxError, match="/properties/x/minLength"):
            JSONGuide({"properties": {"x": {"minLength": "3"}}}, BYTES)
        with pytest.raises(oc.UnsatisfiableError):
            JSONGuide({"type": "integer", "minimum": 5, "maximum": 4}, BYTES)

    def test_pickle(self):
        guide = JSONGuide(self.SCHEMA, BYTES, whitespace="compact")
        again = pickle.loads(pickle.dumps(guide))
        assert again.is_final_state(self.state_after(again, '{"name":"Ada"}'))


def test_any_automaton_is_a_guide(toy):
    automaton = ToyAutomaton([b"ab", b"abc", b"c"], toy)
    guide = AutomatonGuide(automaton)
    regex = AutomatonGuide(oc.compile_regex("abc?|c", toy))
    todo = [((), guide.initial_state, regex.initial_state)]
    for path, one, two in todo:
        assert guide.get_next_instruction(one) == regex.get_next_instruction(two), path
        assert guide.is_final_state(one) == regex.is_final_state(two)
        if len(path) < 4:
            todo += [
                ((*path, t), guide.get_next_state(one, t), regex.get_next_state(two, t)) for t in (0, 1, 2, 3, 5, 7)
            ]
    assert guide.copy() is guide
    assert "ToyAutomaton" in repr(guide)
