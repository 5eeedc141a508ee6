"""Texts to the end of LALR grammars are accepted, and closing masks keep their promises."""

from __future__ import annotations

import random
from typing import Any

import pytest
from lark.indenter import Indenter, PythonIndenter

import outlines_core as oc
from outlines_core.grammar_core import GrammarCore
from outlines_core.regex_core import RegexCore
from outlines_core.types import DEAD
from processors import grammars

CALLS = """
    start: statement+
    statement: expr ";" | "{" statement* "}" | "if" "(" expr ")" statement ["else" statement]
    ?expr: or | or "?" expr ":" expr | expr "," or
    ?or: or "||" sum | sum
    ?sum: sum "+" atom | atom
    atom: NAME | STRING | "(" expr ")" | NAME "[" expr "]"
    NAME: /[a-z]+/
    STRING: /"[^"]*"/ | /'''.*?'''/s
    %ignore /\\s+/
    %ignore /\\/\\*.*?\\*\\//s
"""
INDENTED = """
    start: (_NEWLINE | statement)*
    statement: call _NEWLINE | head _NEWLINE _INDENT statement+ _DEDENT
    head: "if" call ":" | "for" NAME "in" call ":"
    call: NAME [LPAR [call ("," call)*] RPAR] | STRING
    NAME: /[a-z]+/
    STRING: /"[^"\\n]*"/
    LPAR: "("
    RPAR: ")"
    _NEWLINE: /(\\r?\\n[\\t ]*)+/
    %ignore " "
    %declare _INDENT _DEDENT
"""
CASES: dict[str, tuple[str, list[str]]] = {
    "indented": (INDENTED, ["if ", "for ", "in ", "a", "(", "((", ")", ":", ":\n", "\n", "\n ", "\n  ", '"', ","]),
    "calls": (
        CALLS,
        ["if", "else", "(", "((", "a", "+", "?", ":", "||", ",", ";", "{", "}", '"', "'", "[", "/*", "*/"],
    ),
    "arithmetic": (grammars.load("arithmetic"), ["1", "23", ".", "(", "((", ")", "+", "-", "*", "**", "sin", " "]),
    "json": (grammars.load("json"), ["{", "}", "[", "[[", '"', '"a', ":", ",", "true", "nul", "1", "e", " ", "\\u00"]),
}


def automaton_of(name: str) -> Any:
    grammar, pieces = CASES[name]
    tokens = {bytes([b]): [b + 1] for b in range(256)}
    more = sorted({text.encode() for text in pieces} | {(a + b).encode() for a in pieces for b in pieces})
    tokens |= {text: [257 + k] for k, text in enumerate(text for text in more if text not in tokens)}
    postlex = PythonIndenter() if name == "indented" else None
    return oc.compile_grammar(f"{grammar}\n// finishing", oc.Vocabulary(0, tokens), postlex=postlex)


@pytest.mark.parametrize("name", CASES)
def test_texts_to_the_end_are_accepted(name: str) -> None:
    automaton = automaton_of(name)
    core, rng = automaton._core, random.Random(7)
    assert isinstance(core, GrammarCore)
    found = shortest = 0
    for _ in range(30):
        state = automaton.initial_state
        for _ in range(rng.randint(1, 9)):
            allowed = [t for t in automaton.allowed_tokens(state).tolist() if t]
            if not allowed:
                break
            state = automaton.next_state(state, rng.choice(allowed))
        text = core.recogniser.finisher.text(core.dfa.configuration(state))
        if text is None:
            continue
        found += 1
        at = state
        for byte in text:
            at = automaton.next_state(at, byte + 1)
        assert at != DEAD
        assert automaton.is_accepting(at)
        if len(text) <= 2:
            assert len(text) == len(core.completion(state))
            shortest += 1
        is_new = state not in core._byte_distance  # else it may be on the way of another text
        bound = core.byte_distance(state)
        assert bound <= len(text) or not is_new
        assert automaton.is_accepting(state) == (bound == 0)
    assert found >= 25
    assert shortest >= 5


@pytest.mark.parametrize("name", CASES)
def test_closing_masks_end_texts_in_time(name: str) -> None:
    automaton = automaton_of(name)
    mask = oc.allocate_bitmask(1, automaton.vocabulary)[0]
    rng = random.Random(3)
    for _ in range(25):
        state, budget = automaton.initial_state, rng.randint(6, 16)
        for left in range(budget, 0, -1):
            automaton.fill_closing_mask(state, left, mask)
            allowed = [t for t in range(1, automaton.vocabulary.size) if mask[t >> 5] >> (t & 31) & 1]
            if not allowed:
                break
            state = automaton.next_state(state, rng.choice(allowed))
            assert state != DEAD
        assert automaton.is_accepting(state)


def test_blocks_are_opened_and_closed() -> None:
    grammar = """
        start: line+
        line: "a" _NL | "if" _NL _IN line+ _OUT "fi" _NL
        _NL: /(\\n *)+/
        %ignore /[.]/
        %declare _IN _OUT
    """

    class Blocks(Indenter):
        NL_type, INDENT_type, DEDENT_type = "_NL", "_IN", "_OUT"
        OPEN_PAREN_types: list[str] = []
        CLOSE_PAREN_types: list[str] = []
        tab_len = 8

    automaton = oc.compile_grammar(grammar, oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)}), postlex=Blocks())
    for text in ("", "if", "if\n", "if\n  ", "if\n  if\n   a", "if\n  if\n   a\n  ", "a\nif\n a\nf"):
        n, state = automaton.accept_tokens(automaton.initial_state, list(text.encode()))
        assert n == len(text)
        core: Any = automaton._core
        rest = core.recogniser.finisher.text(core.dfa.configuration(state))
        assert rest is not None, text
        n, state = automaton.accept_tokens(state, list(rest))
        assert n == len(rest)
        assert automaton.is_accepting(state)


def test_what_no_finisher_ends_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    automaton = automaton_of("arithmetic")
    core = automaton._core
    state = automaton.next_state(automaton.initial_state, ord("(") + 1)
    monkeypatch.setattr(core.recogniser.finisher, "text", lambda _: None)
    assert core.byte_distance(state) == RegexCore.byte_distance(core, state) == 2
