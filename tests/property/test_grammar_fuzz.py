"""Random grammars against lark (see tests/grammar_fuzz.py), and proof that the harness finds what is wrong.

The long run is ``scripts/grammar_report fuzz``; `FUZZ_SCALE` stretches this one.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import outlines_core as oc
from tests.grammar_fuzz import Trial, alarm, reproducer, toy_vocabulary
from tests.grammar_oracle import CfgOracle, DynamicModel, LarkOracle, TextMaker, loads, oracle_of, texts_over
from tests.grammar_strategies import LEXERS, Case, case_of
from tests.strategies import scaled

GRAMMARS = {"contextual": 10, "basic": 5, "basic_earley": 3, "dynamic": 5, "dynamic_complete": 4, "scannerless": 4}
SEEDS = (22, 25)


@pytest.mark.parametrize("lexer", LEXERS)
@pytest.mark.filterwarnings("ignore")  # of `re`, about patterns that may mean something else one day
def test_random_grammars(lexer: str) -> None:
    decisions: Counter[str] = Counter()
    lines = []
    for seed, index in itertools.product(SEEDS, range(scaled(GRAMMARS[lexer]))):
        case = case_of(seed, index, lexer, loads)
        rng = random.Random(f"trial {seed} {index}")
        with alarm(60):
            outcome = Trial(case, rng, n_texts=400, n_long=3, n_masks=3).run()
        decisions += outcome.decisions
        options = [f"--seed {seed}", f"--lexer {lexer}", "--texts 400"]
        lines += [reproducer(options, index, case, finding) for finding in outcome.findings]
    assert not lines, f"{len(lines)} findings; " + "\n".join(lines[:10])
    assert decisions["text accepted"] + decisions["prefix live"] > 0.4 * decisions.total()


def test_grammars_vary() -> None:
    cases = [case_of(1, index) for index in range(400)]
    assert len({case.grammar for case in cases}) > 395
    assert {case.lexer for case in cases} == set(LEXERS)
    features = set().union(*(case.features for case in cases))
    assert {"look-around", "lazy quantifier", "template", "%ignore", "keywords", "cyclic", "alias"} <= features
    assert case_of(1, 7) == case_of(1, 7)


def test_most_grammars_load() -> None:
    for lexer in LEXERS:
        assert sum(loads(case_of(2, index, lexer, loads)) for index in range(10)) >= 7


def test_most_derived_texts_parse() -> None:
    verdicts: Counter[bool | None] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in range(40):
            oracle = oracle_of(case_of(3, index, "dynamic", loads))
            if oracle.lark is not None:
                maker = TextMaker(oracle, random.Random(index))
                verdicts.update(oracle.parses(text) for _ in range(5) if (text := maker.text()) is not None)
    assert verdicts[True] > 100
    assert verdicts[True] > 4 * verdicts[False]


# -- the oracles -------------------------------------------------------------------------------------------------------


def language(oracle: LarkOracle, letters: str, longest: int) -> list[str]:
    return [text for text in texts_over(letters, longest) if oracle.parses(text)]


def test_the_context_free_oracle_agrees_with_lark_where_terminals_are_letters() -> None:
    for grammar in (
        'start: "a" start "b" |',
        'start: start start | "a" | "b" start',
        "start: x start? x\nx: y | \ny: x | A\nA: /a/",
        'start: ("a" "b"? | x)~2..3\nx: "b" "b"\n%ignore "c"',
        'start: "a" | "a" "b"\n%ignore "b"',
    ):
        ours = language(CfgOracle(Case(grammar, "abc", "scannerless")), "abc", 5)
        assert ours == language(LarkOracle(Case(grammar, "abc", "dynamic_complete")), "abc", 5)


def test_the_context_free_oracle_knows_no_lexer() -> None:
    both = ('start: A "b"\nA: /a+?|ab/', "ab", 3, ["ab", "aab", "abb"]), ("start: A A\nA: /a+/", "a", 3, ["aa", "aaa"])
    for grammar, letters, longest, texts in both:
        assert language(CfgOracle(Case(grammar, letters, "scannerless")), letters, longest) == texts
    looks = "start: A B?\nA: /a(?=b|$)/\nB: /(?<=a)b+/"
    assert language(CfgOracle(Case(looks, "ab", "scannerless")), "ab", 3) == ["a", "ab", "abb"]


@pytest.mark.parametrize("lexer", ["dynamic", "dynamic_complete"])
@pytest.mark.filterwarnings("ignore")
def test_the_dynamic_lexers_are_what_the_model_says(lexer: str) -> None:
    n_texts = 0
    for index in range(scaled(20)):
        case = case_of(4, index, lexer, loads)
        lark, model = LarkOracle(case), DynamicModel(case)
        for text in texts_over(case.letters, 3) if lark.lark is not None else ():
            verdict = lark.parses(text)
            n_texts += 1
            assert verdict is None or verdict == model.parses(text), (case.grammar, text)
    assert n_texts > 500


def test_what_the_shorter_ends_of_dynamic_complete_see() -> None:
    """Look-behinds see nothing before the match, look-aheads nothing behind the cut."""
    for grammar, letters, text in (
        ('start: "b" A "c"\nA: /a(?!c)c?|ac/', "abc", "bac"),
        ('start: "b" A "c"\nA: /ac?$/', "abc", "bac"),
        ('start: "b" A "c"\nA: /(?<!^)ac|(?<=^)a/', "abc", "bac"),
        ('start: "b" A "c"\nA: /\\Bac|\\ba/', "abc", "bac"),
    ):
        verdicts = [LarkOracle(Case(grammar, letters, lexer)).parses(text) for lexer in ("dynamic", "dynamic_complete")]
        assert verdicts == [False, True], grammar


# -- faults that the harness must find ---------------------------------------------------------------------------------


class Faulty:
    """An automaton with one fault."""

    def __init__(self, automaton: Any, **faults: Callable[..., Any]) -> None:
        self.automaton = automaton
        self.faults = faults

    def __getattr__(self, name: str) -> Any:
        fault = self.faults.get(name)
        return getattr(self.automaton, name) if fault is None else lambda *args: fault(self.automaton, *args)


def _without_bit(automaton: Any, state: int, out: Any) -> None:
    """A mask that lacks tokens of several bytes which begin with a."""
    automaton.fill_mask(state, out)
    for token_id in [i for t, ids in automaton.vocabulary.items() if len(t) > 2 and t[:1] == b"a" for i in ids]:
        out.view(np.uint32)[token_id >> 5] &= np.uint32(~(1 << (token_id & 31)) & 0xFFFFFFFF)


def _with_eos(automaton: Any, state: int, out: Any) -> None:
    automaton.fill_mask(state, out)
    eos = automaton.vocabulary.eos_token_ids[0]
    out.view(np.uint32)[eos >> 5] |= np.uint32(1 << (eos & 31))


def _dead(automaton: Any, state: int, token_id: int) -> int:
    """b leads nowhere."""
    return oc.DEAD if token_id == ord("b") else int(automaton.next_state(state, token_id))


def _live(automaton: Any, state: int, token_id: int) -> int:
    """Nothing is ever refused: the state stays."""
    return int(automaton.next_state(state, token_id)) or state


def _in_one(automaton: Any, state: int, token_id: int) -> int:
    """Tokens of several bytes lead back to the beginning."""
    after = int(automaton.next_state(state, token_id))
    return after if token_id < 256 or after < 2 else int(automaton.initial_state)


LETTERS = Case('start: ("a" "b" | "b")+ "a"\n', "ab", "contextual")


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ({"is_accepting": lambda a, s: not a.is_accepting(s)}, "accepted"),
        ({"is_accepting": lambda a, s: s > 1}, "accepted"),
        ({"next_state": _dead}, "dead, but a prefix"),
        ({"next_state": _live}, "lark refuses its completion"),
        ({"next_state": _in_one}, "the state after a token"),
        ({"fill_mask": _without_bit}, "the mask is not that of its bytes"),
        ({"fill_mask": _with_eos}, "EOS"),
    ],
)
def test_a_faulty_automaton_is_found(fault: dict[str, Callable[..., Any]], kinds: str) -> None:
    def compile_faulty(*args: Any, **options: Any) -> Faulty:
        return Faulty(oc.compile_grammar(*args, **options), **fault)

    outcome = Trial(LETTERS, random.Random(1), compile_grammar=compile_faulty, length=5).run()
    assert any(kinds in finding.kind for finding in outcome.findings), outcome.findings
    assert not Trial(LETTERS, random.Random(1), length=5).run().findings


MISREADINGS = {
    "greedy for lazy": (Case('start: A "b" | A "ab"\nA: /a+?/', "ab", "contextual"), {"+?": "+"}),
    "order of alternatives": (Case('start: A "c"\nA: /a|ab/', "abc", "contextual"), {"a|ab": "ab|a"}),
    "maximal munch": (Case('start: (A | B)+ "c"\nA: /a/\nB.-1: /ab/', "abc", "basic"), {"B.-1": "B"}),
    "look-ahead": (Case("start: A+\nA: /a(?!b)|b/", "ab", "contextual"), {"(?!b)": ""}),
    "look-behind": (Case("start: A+\nA: /(?<!b)a|b/", "ab", "dynamic"), {"(?<!b)": ""}),
    "context": (Case('start: "a" A "a" | B\nA: /b+/\nB: /b+a/', "ab", "contextual"), {"lexer": "basic"}),
    "keywords": (Case('start: ("ab" | N "b")+\nN: /[ab]+/', "ab", "basic"), {'"ab"': '"ab"i'}),
    "ignored text first": (
        Case('start: "a" "b"\n%ignore C\nC: "c"', "abc", "contextual"),
        {'"a" "b"': '"a" C* "b" C*', "%ignore C": ""},
    ),
    "shorter ends": (Case("start: A B\nA: /a+/\nB: /ab/", "ab", "dynamic_complete"), {"lexer": "dynamic"}),
    "only shorter ends": (Case('start: A "b"\nA: /a|ab/', "ab", "dynamic_complete"), {"lexer": "scannerless"}),
    "longer ends": (Case('start: A "b"\nA: /a|ab/', "ab", "scannerless"), {"lexer": "dynamic_complete"}),
    "shift over reduce": (Case('start: a "a" | "a" "a" "b"\na: "a"', "ab", "contextual"), {'"a" "a" "b"': '"b"'}),
    "nesting": (Case('start: "a" start "b" | "ab"', "ab", "contextual"), {'start "b"': 'start "b"+'}),
    "flags": (Case('start: "a"+ /B/', "aAbB", "contextual"), {"/B/": "/B/i"}),
}
"""Grammars with what an engine may take them for: other text, or another lexer."""


@pytest.mark.parametrize("name", MISREADINGS)
def test_a_misread_grammar_is_found(name: str) -> None:
    case, changes = MISREADINGS[name]

    def misread(grammar: str, vocabulary: oc.Vocabulary, **options: Any) -> Any:
        for old, new in changes.items():
            if old == "lexer":
                return oc.compile_grammar(grammar, vocabulary, **options | dataclasses.replace(case, lexer=new).options)
            assert old in grammar
            grammar = grammar.replace(old, new)
        return oc.compile_grammar(grammar, vocabulary, **options)

    assert Trial(case, random.Random(1), compile_grammar=misread, length=5).run().findings
    assert not Trial(case, random.Random(1), length=5).run().findings


def test_a_grammar_that_is_said_to_be_empty() -> None:
    def empty(*_: Any, **__: Any) -> Any:
        raise oc.UnsatisfiableError("nothing")

    kinds = [finding.kind for finding in Trial(LETTERS, random.Random(1), compile_grammar=empty).run().findings]
    assert kinds == ["said to be unsatisfiable"]


def test_the_vocabulary_has_every_byte_and_pieces_of_characters() -> None:
    vocabulary = toy_vocabulary("aé")
    tokens = {bytes(token): ids for token, ids in vocabulary.items()}
    assert all(tokens[bytes([byte])][0] == byte for byte in range(256))
    assert any(len(ids) > 1 for ids in tokens.values())
    assert any(len(token) > 1 and token[0] & 0xC0 == 0x80 for token in tokens)
