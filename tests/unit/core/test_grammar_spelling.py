"""Vocabularies that lack bytes: a text is live if tokens complete it, however deep it is, and that is always found out.

Brute force: all sequences of so many tokens, in the automaton of single bytes.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

import outlines_core as oc
from outlines_core.grammar.postlex import PostLex
from outlines_core.grammar.spelling import BETWEEN, Spelling
from outlines_core.trie import TokenTrie


def vocabulary_of(*tokens: str) -> oc.Vocabulary:
    return oc.Vocabulary(len(tokens), {token.encode(): [k] for k, token in enumerate(tokens)})


class Dropping(PostLex):
    """`C` is not given to the parser."""

    always_accept = ("C",)

    def after(self, state: Any, terminal: str) -> Any:
        return state, [] if terminal == "C" else [terminal]


NESTED = 'start: "(" start ")" | "[" start "]" | "x"\n'
LISTS = 'start: "[" [start ("," start)*] "]" | A\nA: /a+b?/\n'
WAYS: list[dict[str, Any]] = [
    {"lexer": "contextual"},
    {"lexer": "basic"},
    {"lexer": "basic", "parser": "earley"},
    {"lexer": "dynamic"},
    {"lexer": "dynamic_complete"},
    {"lexer": "scannerless"},
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("grammar", "tokens"),
    [
        (NESTED, ["(", ")", "[", "x"]),  # what is opened with [ cannot be closed
        (NESTED, ["(", ")", "[", "x]", "x"]),  # but right behind x
        (NESTED, ["((", "))", "x", "(x"]),  # even depths, or one more
        (NESTED, ["(", "))", "x", "x)"]),
        (LISTS, ["[", "a", ",", "b]", "a]"]),
        (LISTS, ["[", "[[", "]]", "ab,", "a"]),
        (LISTS + '%ignore " "\n', ["[", "a", "a ", " ]", ",a"]),
        ('start: A "x"\nA: /a(?!b)|ab(?=bx)/\n', ["a", "b", "bbx"]),
    ],
)
def test_masks_are_those_of_brute_force(grammar: str, tokens: list[str], way: dict[str, Any]) -> None:
    vocabulary = vocabulary_of(*tokens)
    bytewise = oc.compile_grammar(grammar, oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)}), **way)
    known: dict[tuple[int, int], bool] = {}

    def after(state: int, token: str) -> int:
        n, target = bytewise.accept_tokens(state, list(token.encode()))
        return target if n == len(token) else oc.DEAD

    def ends(state: int, most: int) -> bool:
        """Do at most so many tokens complete the text?"""
        if (state, most) not in known:
            targets = {after(state, token) for token in tokens} - {oc.DEAD} if most else set()
            known[state, most] = bytewise.is_accepting(state) or any(ends(target, most - 1) for target in targets)
        return known[state, most]

    try:
        automaton = oc.compile_grammar(grammar, vocabulary, **way)
    except oc.UnsatisfiableError:
        assert not ends(bytewise.initial_state, 8)
        return
    mask = oc.allocate_bitmask(1, vocabulary)[0]
    todo = [((), automaton.initial_state, bytewise.initial_state)]
    for ids, state, truth in todo:
        assert ends(truth, 8)
        assert automaton.is_accepting(state) == bytewise.is_accepting(truth)
        automaton.fill_mask(state, mask)
        for k, token in enumerate(tokens):
            target, behind = automaton.next_state(state, k), after(truth, token)
            assert (target != oc.DEAD) == bool(mask[0] >> k & 1) == (behind != oc.DEAD and ends(behind, 8))
            if target != oc.DEAD and len(ids) < 2:
                todo.append(((*ids, k), target, behind))


@pytest.mark.parametrize("way", WAYS)
def test_no_end_of_nesting(way: dict[str, Any]) -> None:
    """Nothing closes what [ opens: a search would open ever more brackets."""
    vocabulary = vocabulary_of("(", ")", "[", "x", "[x")
    automaton = oc.compile_grammar(NESTED, vocabulary, **way)
    state = automaton.initial_state
    for _ in range(30):
        assert automaton.next_state(state, 2) == automaton.next_state(state, 4) == oc.DEAD
        state = automaton.next_state(state, 0)
    assert automaton.min_tokens_to_accept(state) == 31
    hopeless = 'start: "(" start ")" | "[" start "]" | "xx"\n'
    with pytest.raises(oc.IncompatibleVocabularyError):
        oc.compile_grammar(hopeless, vocabulary_of("(", ")", "[", "]", "x]", "(x"), **way)


def test_several_starts_and_a_postlex() -> None:
    vocabulary = vocabulary_of("(", ")", "[", "x", "c")
    both = oc.compile_grammar(NESTED + 'other: "c" other | "cx"\n', vocabulary, start=["start", "other"])
    n, state = both.accept_tokens(both.initial_state, [4, 4])
    assert n == 2
    assert both.next_state(state, 2) == both.next_state(both.initial_state, 2) == oc.DEAD
    grammar = NESTED + 'C: "c"\n'
    dropping = oc.compile_grammar(grammar, vocabulary, postlex=Dropping())
    n, state = dropping.accept_tokens(dropping.initial_state, [0, 4, 0, 4, 4, 3, 1])
    assert n == 7
    assert dropping.next_state(state, 2) == dropping.next_state(dropping.initial_state, 2) == oc.DEAD
    assert dropping.min_tokens_to_accept(state) == 1


def test_the_automaton_of_a_vocabulary() -> None:
    """Against all sequences of tokens, spelled out; letters of a class are not told apart."""
    rng = random.Random(4)
    for _ in range(30):
        tokens = {"".join(rng.choices("abc", k=rng.choice([1, 2, 2, 3]))) for _ in range(rng.randint(1, 5))}
        class_of = [0] * 256
        class_of[ord("c")] = 1
        trie = TokenTrie.build(vocabulary_of(*sorted(tokens)).table)
        spelling = Spelling((trie.info, trie.end, trie.token), class_of)
        kinds = {token.translate({97: "0", 98: "0", 99: "1"}) for token in tokens}
        spelled = {""}
        for _ in range(6):
            spelled |= {text + kind for text in spelled for kind in kinds if len(text + kind) < 7}
        for n in range(7):
            for text in itertools.product((0, 1), repeat=n):
                nodes = {BETWEEN}
                for klass in text:
                    nodes = {behind for node in nodes for behind in spelling.after(node, klass)}
                assert (BETWEEN in nodes) == ("".join(map(str, text)) in spelled)
