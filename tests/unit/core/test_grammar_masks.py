"""Masks of LALR grammars: from places and notes, from walks, and token by token."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from lark.indenter import Indenter

import outlines_core as oc
from outlines_core.grammar import forest
from outlines_core.grammar_core import GrammarCore
from outlines_core.kernels.grammar_masks import PATIENCE as PATIENCE_IN_ALL
from outlines_core.kernels.grammar_masks import PATIENCE_ONCE
from outlines_core.types import DEAD


class Blocks(Indenter):
    NL_type = "_NL"
    OPEN_PAREN_types = ["LPAR"]
    CLOSE_PAREN_types = ["RPAR"]
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 2


EXPRESSIONS = """
    start: (statement ";")*
    statement: "if" expr "then" NAME | NAME "=" expr | "return" expr
    ?expr: expr ("+" | "-") term | term
    ?term: term "*" atom | atom
    atom: NAME | NUMBER | "(" expr ")" | "-" atom | NAME "(" [expr ("," expr)*] ")" | STRING
    NAME: /[a-z]\\w*/
    NUMBER: /[0-9]+/
    STRING: /"[^"]*"/ | /'''.*?'''/s
    %ignore /[ \\n]+/
    %ignore /#[^\\n]*/
"""
BLOCKS = """
    start: (stmt | _NL)*
    stmt: expr _NL | "if" expr ":" _NL _INDENT stmt+ _DEDENT
    expr: NAME | LPAR expr ("+" expr)* RPAR
    LPAR: "("
    RPAR: ")"
    NAME: /[a-zé]+/
    _NL: /(\\r?\\n[ \\t]*(#[^\\n]*)?)+/
    %declare _INDENT _DEDENT
    %ignore " "
"""
CASES = [
    (EXPRESSIONS, {}, ["if", "then", "x", "1", "(", ")", ";", "=", '"', "'", " ", "#", "\n", "-", "*", "é", ","]),
    (EXPRESSIONS, {"lexer": "basic"}, ["i", "f", "return", "x", "1", "(", ")", ";", "=", " ", "+", ","]),
    (BLOCKS, {"postlex": Blocks()}, ["if", "a", "é", "(", ")", "+", ":", "\n", "  ", "\t", "#", " "]),
]
PATIENCE = {"places": (0, 0), "some places": (4, 30), "walks": (1 << 40, 1 << 40)}


def vocabulary(letters: list[str], rng: random.Random) -> oc.Vocabulary:
    """Every byte, and many tokens of up to four letters."""
    texts = {text.encode() for n in (1, 2) for text in map("".join, itertools.product(letters, repeat=n))}
    texts |= {"".join(rng.choices(letters, k=rng.randint(3, 4))).encode() for _ in range(400)}
    texts |= {bytes([b]) for b in range(256)}
    return oc.Vocabulary(0, {text: [k] for k, text in enumerate(sorted(texts), 1)})


@pytest.mark.parametrize("how", PATIENCE)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_masks_are_what_steps_allow(case: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest, "_CUT", 5 if how == "places" else 40)
    monkeypatch.setattr(forest, "_DENSE", 6 if how == "places" else 60)
    grammar, options, letters = CASES[case]
    rng = random.Random(case)
    tokens = vocabulary(letters, rng)
    # a label of its own keeps the automaton out of the cache that other tests use
    automaton: Any = oc.compile_grammar(f"{grammar}\n// {how}", tokens, **options)
    core = automaton._core
    assert isinstance(core, GrammarCore)
    core.forest.counts[[PATIENCE_ONCE, PATIENCE_IN_ALL]] = PATIENCE[how]
    for walk in range(25):
        state = automaton.initial_state
        for _ in range(14):
            allowed = automaton.allowed_tokens(state)
            expected = [t for t in range(1, tokens.size) if automaton.next_state(state, t) != DEAD]
            assert [t for t in allowed.tolist() if t] == expected, (walk, automaton.explain(state))
            if not expected:
                break
            state = automaton.next_state(state, rng.choice(expected))


def test_masks_survive_eviction(monkeypatch: pytest.MonkeyPatch) -> None:
    grammar, options, letters = CASES[0]
    rng = random.Random(5)
    tokens = vocabulary(letters, rng)
    automaton: Any = oc.compile_grammar(f"{grammar}\n// evicted", tokens, **options)
    other: Any = oc.compile_grammar(f"{grammar}\n// kept", tokens, **options)
    evicting = automaton._core.forest
    state, same = automaton.initial_state, other.initial_state
    for k in range(200):
        if k % 3 == 0:
            evicting._clear()
            automaton._core.masks.clear()
        allowed = automaton.allowed_tokens(state)
        assert np.array_equal(allowed, other.allowed_tokens(same))
        token = rng.choice([t for t in allowed.tolist() if t])
        state, same = automaton.next_state(state, token), other.next_state(same, token)
