"""`CFGGuide` and `CFGLogitsProcessor`, with the answers that an older implementation had wrong."""

from __future__ import annotations

import pytest
import torch
from lark.indenter import PythonIndenter

import outlines_core as oc
from processors.guide import CFGGuide, CFGState, Generate, Write
from processors.logits import CFGLogitsProcessor

WORDS = ["a", "aa", "b", "bb", "bc", "c", "x", "y", "yz", "z", "+", "5", "1", "+1", "\n", "  ", ":", ":\n"]


@pytest.fixture(scope="module")
def vocabulary() -> oc.Vocabulary:
    tokens: dict[bytes, list[int]] = {bytes([b]): [b] for b in range(256)}
    for word in WORDS:
        tokens.setdefault(word.encode(), [len(tokens) + 1])
    return oc.Vocabulary(256, tokens)


def after(guide: CFGGuide, text: str) -> CFGState:
    state = guide.initial_state
    for byte in text.encode():
        state = guide.get_next_state(state, byte)
    return state


def allowed(guide: CFGGuide, vocabulary: oc.Vocabulary, text: str) -> set[bytes]:
    tokens = {i: t for t, ids in vocabulary.items() for i in ids} | {256: b"EOS"}
    ids = guide.iter_valid_token_ids(after(guide, text), range(vocabulary.size))
    return {bytes(tokens[i]) for i in ids}


def test_the_last_terminal_may_be_extended_or_end_the_text(vocabulary: oc.Vocabulary) -> None:
    guide = CFGGuide("start: A\nA: /a+/", vocabulary)
    assert allowed(guide, vocabulary, "a") == {b"a", b"aa", b"EOS"}
    guide = CFGGuide('start: NUMBER ("+" NUMBER)*\nNUMBER: /\\d+/', vocabulary)
    assert guide.can_terminate_state(after(guide, "5+1+1"))
    assert not guide.can_terminate_state(after(guide, "5+1+"))


def test_a_text_whose_last_terminal_stands_elsewhere_does_not_end(vocabulary: oc.Vocabulary) -> None:
    guide = CFGGuide('start: "x" [Y "z"]\nY: /y+/', vocabulary)
    assert guide.can_terminate_state(after(guide, "x"))
    assert allowed(guide, vocabulary, "xy") == {b"y", b"yz", b"z"}


def test_what_follows_a_terminal_is_asked_of_the_lexer(vocabulary: oc.Vocabulary) -> None:
    guide = CFGGuide("start: AB [BC]\nAB: /ab*/\nBC: /bc?/", vocabulary, lexer="dynamic_complete")
    assert allowed(guide, vocabulary, "abb") >= {b"b", b"bc", b"c", b"EOS"}
    guide = CFGGuide("start: AB [BC]\nAB: /ab*(?!c)/\nBC: /bc?/", vocabulary)
    assert allowed(guide, vocabulary, "abb") == {b"b", b"bb", b"bc", b"c", b"EOS"}


def test_states_and_instructions(vocabulary: oc.Vocabulary) -> None:
    guide = CFGGuide('start: "ab"', vocabulary)
    assert isinstance(guide.get_next_instruction(guide.initial_state), Write)
    state = after(guide, "ab")
    assert state.prev_token == ord("b")
    assert guide.must_terminate_state(state)
    assert guide.is_final_state(state)
    assert guide.get_next_instruction(state).tokens.tolist() == [256]
    done = guide.get_next_state(state, 256)
    assert done == CFGState(None, 256)
    assert guide.get_next_state(done, 7).parser_state is None
    assert guide.must_terminate_state(done)
    assert list(guide.iter_valid_token_ids(done, [1, 256])) == [256]
    with pytest.raises(oc.TokenRejectedError):
        guide.get_next_state(guide.initial_state, ord("b"))
    with pytest.raises(oc.TokenRejectedError):
        guide.get_next_state(guide.initial_state, 256)
    assert guide.copy().get_next_instruction(guide.initial_state) == guide.get_next_instruction(guide.initial_state)


def test_indentation(vocabulary: oc.Vocabulary) -> None:
    grammar = r"""
        file: (_NEWLINE | line)*
        line: "x" [":" _NEWLINE _INDENT line+ _DEDENT | _NEWLINE]
        _NEWLINE: /(\n[ ]*)+/
        %declare _INDENT _DEDENT
    """
    guide = CFGGuide(grammar, vocabulary, start="file", postlex=PythonIndenter(), lexer="contextual")
    instruction = guide.get_next_instruction(after(guide, "x:\n"))
    assert isinstance(instruction, Generate)
    assert b"x" not in allowed(guide, vocabulary, "x:\n")
    assert b"x" in allowed(guide, vocabulary, "x:\n ")


def test_every_row_keeps_all_that_its_grammar_allows(vocabulary: oc.Vocabulary) -> None:
    processor = CFGLogitsProcessor(["start: /a+/", 'start: "b" | "c" start'], vocabulary)
    prompt = torch.tensor([[1], [1]])
    first = processor(prompt, torch.zeros(2, vocabulary.size))
    assert [row.isfinite().nonzero().flatten().tolist() for row in first] == [
        [ord("a"), vocabulary.get(b"aa")[0]],
        [ord("b"), ord("c")],
    ]
    second = processor(torch.tensor([[1, ord("a")], [1, ord("c")]]), torch.zeros(2, vocabulary.size))
    assert second[0, 256].isfinite()
    assert not second[1, 256].isfinite()


def test_options_of_the_grammar_are_passed_on() -> None:
    vocabulary = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)}, special_tokens={"<|x|>": 257})
    grammar = 'one: <|x|> %json {"const": true}\ntwo: A\nA: /[ab]/ & ~"a"'
    guide = CFGGuide(grammar, vocabulary, dialect="extended", start=["one", "two"])
    assert guide.get_next_instruction(guide.initial_state).tokens.tolist() == [ord("b"), 257]
    processor = CFGLogitsProcessor(grammar, vocabulary, dialect="extended", start=("two", "one"))
    allowed = processor(torch.tensor([[1]]), torch.zeros(1, 258))[0].isfinite().nonzero().flatten()
    assert allowed.tolist() == [ord("b"), 257]
    assert guide.get_next_instruction(guide.get_next_state(guide.initial_state, 257)).tokens.tolist() == [ord("t")]
