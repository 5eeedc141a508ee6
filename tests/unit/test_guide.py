"""Guides: instructions, state in and state out, the final state -1."""

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
