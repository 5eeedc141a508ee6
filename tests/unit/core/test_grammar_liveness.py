"""Lark grammars: which way the question of liveness is answered, and that it always is, or refused in time."""

from __future__ import annotations

import itertools
import time
from typing import Any

import lark
import numpy as np
import pytest
from lark.indenter import Indenter

import outlines_core as oc
from outlines_core.grammar.endings import Endings
from outlines_core.grammar.indentation import Indentation
from outlines_core.grammar.lexical import Lexical
from outlines_core.grammar.loading import load_grammar
from outlines_core.grammar.nesting import is_regular
from outlines_core.grammar_core import GrammarCore
from outlines_core.kernels import grammar as kernel
from outlines_core.kernels.borrow import Handles
from processors import grammars


class Blocks(Indenter):
    NL_type = "_NL"
    OPEN_PAREN_types = ["LPAR"]
    CLOSE_PAREN_types = ["RPAR"]
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 2


LINES = '\nLPAR: "("\nRPAR: ")"\n_NL: /(\\n[ ]*)+/\n%declare _INDENT _DEDENT\n'


@pytest.fixture(scope="module")
def vocabulary() -> oc.Vocabulary:
    return oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)})


def parses(parser: lark.Lark, text: str) -> bool:
    try:
        parser.parse(text)
    except (lark.exceptions.UnexpectedInput, lark.indenter.DedentError, AssertionError, IndexError):
        return False
    return True


def live(automaton: oc.GrammarAutomaton, text: str) -> bool:
    return automaton.accept_tokens(automaton.initial_state, list(text.encode()))[0] == len(text.encode())


def prefixes(automaton: oc.GrammarAutomaton, letters: str, longest: int) -> set[str]:
    """The live ones, with `$` behind those where the text may end."""
    found: set[str] = set()
    todo = [("", automaton.initial_state)]
    for text, state in todo:
        found.add(text)
        if automaton.is_accepting(state):
            found.add(f"{text}$")
        if len(text) < longest:
            after = [(text + c, automaton.next_state(state, ord(c))) for c in letters]
            todo += [(one, at) for one, at in after if at != oc.DEAD]
    return found


@pytest.mark.parametrize(
    ("rules", "nests"),
    [
        ('start: stmt+\nstmt: "a" _NL | "a" _NL _INDENT stmt+ _DEDENT', True),
        ('start: stmt+\nstmt: "a" _NL | head stmt+ _DEDENT\nhead: "a" _NL _INDENT', True),
        ('start: stmt*  last\nstmt: "a" _NL\nlast: "a" | "a" _NL _INDENT stmt* last _DEDENT', True),
        ('start: stmt+\nstmt: "a" _NL | "a" _NL _INDENT "a" _DEDENT', False),  # more may follow what ends in no line
        ('start: stmt+\nstmt: "a" _NL | stmt _INDENT stmt _DEDENT', False),  # an INDENT behind a DEDENT
        ('start: stmt+\nstmt: "a" _NL | "a" _NL _INDENT stmt', False),
        ('start: stmt+\nstmt: "a" [LPAR "a" RPAR] _NL', True),
        ('start: stmt+\nstmt: "a" open "a" RPAR _NL\nopen: LPAR', True),
        ('start: stmt+\nstmt: "a" [LPAR "a" _NL RPAR] _NL', False),
        ('start: stmt+\nstmt: ("a" | LPAR | RPAR)+ _NL', False),
    ],
)
def test_which_rules_nest(vocabulary: oc.Vocabulary, rules: str, nests: bool) -> None:
    postlex = Blocks()
    grammar = load_grammar(rules + LINES, postlex=postlex)
    assert is_regular(grammar, Indentation(postlex, grammar.terminals)) == nests


@pytest.mark.parametrize(
    ("rules", "letters"),
    [
        ('start: stmt*  last\nstmt: "a" _NL\nlast: "a" | "a" _NL _INDENT stmt* last _DEDENT\n%ignore "#"', "a\n #"),
        ('start: stmt+\nstmt: "a" _NL | "a" _NL _INDENT "a" _DEDENT', "a\n "),
        ('start: stmt+\nstmt: "a" _NL | stmt _INDENT stmt _DEDENT', "a\n "),
        ('start: stmt+\nstmt: ("a" | LPAR | RPAR)+ _NL', "a\n()"),
        ('start: "a" LPAR _NL "a" RPAR | "a" _NL _INDENT "a" LPAR "a" RPAR _DEDENT', "a\n ()"),
        ('start: stmt+\nstmt: "a" _NL | LPAR "a" _NL | RPAR "a" _NL', "a\n()"),  # no newline comes behind a bracket
    ],
)
def test_blocks_and_brackets_are_those_of_lark(vocabulary: oc.Vocabulary, rules: str, letters: str) -> None:
    """By all texts of a few letters: what begins one that lark parses is live, and what is live begins such a one."""
    parser = lark.Lark(rules + LINES, parser="lalr", postlex=Blocks())
    texts = ["".join(t) for n in range(8) for t in itertools.product(letters, repeat=n)]
    parsed = {text for text in texts if parses(parser, text)}
    try:
        found = prefixes(oc.compile_grammar(rules + LINES, vocabulary, postlex=Blocks()), letters, 2)
    except oc.UnsatisfiableError:
        found = set()
    begun = {text[:n] for text in parsed for n in range(min(2, len(text)) + 1)}
    assert found == begun | {f"{text}$" for text in parsed if len(text) <= 2}


def test_a_terminal_may_absorb_the_separator(vocabulary: oc.Vocabulary) -> None:
    grammar = 'start: (NAME NL)+\nNAME: /[a-z]+/\nNL: /(\\n[ ]*)+/\n%ignore " "'
    automaton = oc.compile_grammar(grammar, vocabulary)
    assert isinstance(automaton._core, GrammarCore)
    assert live(automaton, " a \n  b")
    assert not live(automaton, "a\n  \n%")


def test_a_terminal_to_which_another_one_is_always_preferred(vocabulary: oc.Vocabulary) -> None:
    grammar = 'start: (A "x" | B "y")\nA.2: /ab?/\nB: "ab"\n%ignore " "'
    parser = lark.Lark(grammar, parser="lalr")
    automaton = oc.compile_grammar(grammar, vocabulary)
    assert isinstance(automaton._core, GrammarCore)
    for text in ("abx", "aby", "ab y", "a x"):
        n, state = automaton.accept_tokens(automaton.initial_state, list(text.encode()))
        assert (n == len(text) and automaton.is_accepting(state)) == parses(parser, text)
    assert not live(automaton, "aby")


def test_spaces_within_a_terminal(vocabulary: oc.Vocabulary) -> None:
    """Whether `full` is a name depends on what follows; a space separates all the same."""
    grammar = """
    start: item (JOIN item)*
    item: NAME ["as" NAME]
    JOIN.5: (/full|left/ / +/)? "join"
    NAME: /[a-z]+/
    %ignore " "
    """
    parser = lark.Lark(grammar, parser="lalr")
    automaton = oc.compile_grammar(grammar, vocabulary)
    assert isinstance(automaton._core, GrammarCore)
    for text in (
        "a full join b",
        "full join a",
        "a as full join b",
        "a as full left join b",
        "f",
        "a full",
        "a join join",
    ):
        n, state = automaton.accept_tokens(automaton.initial_state, list(text.encode()))
        assert (n == len(text) and automaton.is_accepting(state)) == parses(parser, text), text


def test_a_list_whose_end_is_never_read(vocabulary: oc.Vocabulary) -> None:
    """Z is preferred to END, so that only more of the list could follow."""
    automaton = oc.compile_grammar('start: "c" | Z+ END\nZ: /b|aa+b/\nEND: "bba"\n%ignore "a"', vocabulary)
    assert live(automaton, "ac")
    assert not live(automaton, "b")


def test_what_must_hold_behind_ignored_text_may_hold_in_several_ways(vocabulary: oc.Vocabulary) -> None:
    """The mask and the steps agree where the first of these ways leads nowhere."""
    grammar = """
    x: T
    T: /a{2,}[ ]b[b] /
    A: /(?:a|$.(?![ ]\\w[ ]))/
    %ignore A
    %ignore /(?=b)(?:b(?= .)(?= ++)| )/
    %extend A: "   "
    """
    automaton = oc.compile_grammar(grammar, vocabulary, start="x", lexer="basic")
    mask = oc.allocate_bitmask(1, vocabulary)[0]
    for text in ("", "b", "ab", "ab ", "aa b"):
        _, state = automaton.accept_tokens(automaton.initial_state, list(text.encode()))
        automaton.fill_mask(state, mask)
        allowed = {k for k in range(256) if automaton.next_state(state, k) != oc.DEAD}
        assert {k for k in range(256) if mask[k >> 5] >> (k & 31) & 1} == allowed != set()


def confirmed(automaton: oc.GrammarAutomaton, parser: lark.Lark, letters: str, longest: int) -> int:
    """How many live prefixes there are: each has a completion that lark parses, which the mask and the state allow."""
    mask = oc.allocate_bitmask(1, automaton.vocabulary)[0]
    todo = [("", automaton.initial_state)]
    for text, state in todo:
        assert parses(parser, text + automaton._core.completion(state).decode())
        if len(text) < longest:
            automaton.fill_mask(state, mask)
            after = [(text + c, automaton.next_state(state, ord(c))) for c in letters]
            allowed = [one[-1] for one, at in after if at != oc.DEAD]
            assert allowed == [c for c in letters if mask[ord(c) >> 5] >> (ord(c) & 31) & 1]
            todo += [(one, at) for one, at in after if at != oc.DEAD]
    return len(todo)


@pytest.mark.parametrize(
    ("grammar", "letters"),
    [
        ('start: (A NL X)+\nA: /b(?! |\\n*x)|a/\nNL: /\\n(?! )/\nX: "x"', "abx\n "),
        ('start: (A NL X)+\nA: /b(?! |\\n*x)|a/\nNL: /\\n+(?! )/\nX: "x" | "y"', "abxy\n"),
    ],
)
def test_what_must_hold_may_reach_beyond_a_terminal_that_absorbs(
    vocabulary: oc.Vocabulary, grammar: str, letters: str
) -> None:
    grammar += '\n%ignore " "'
    automaton = oc.compile_grammar(grammar, vocabulary)
    assert isinstance(automaton._core, GrammarCore)
    assert confirmed(automaton, lark.Lark(grammar, parser="lalr"), letters, 5) > 20


@pytest.mark.parametrize(
    ("rules", "newline", "stacked"),
    [
        ('a _NL | B _NL _INDENT stmt _DEDENT\na: "a"\nB: /bb(?! |\\n+ )|c/', r"(\n *)+", True),
        ('a _NL | B _NL _INDENT stmt _DEDENT\na: "a"\nB: /bb(?! *\\n+ )|c/', r"(\n *)+", True),
        ('a _NL | B _NL _INDENT stmt _DEDENT\na: "a"\nB: /b(?!\\n+ )/', r"(\n *)+", True),
        ('a _NL | "b" _NL _INDENT stmt _DEDENT\na: "a"', r"(\n *)+#?", False),
        ('a _NL | "(" "b" ")" _NL | a _NL _INDENT stmt _DEDENT\na: "a"', r"(\n *)+(?! *b)", False),
    ],
)
def test_columns_that_cannot_be_chosen(vocabulary: oc.Vocabulary, rules: str, newline: str, stacked: bool) -> None:
    """What is read of a line, or what must hold there, may leave no choice, and so may brackets behind a newline."""
    grammar = f'start: stmt+\nstmt: {rules}{LINES}%ignore " "\n'.replace(r"(\n[ ]*)+", newline)
    automaton = oc.compile_grammar(grammar, vocabulary, postlex=Blocks())
    assert isinstance(automaton._core, GrammarCore) == stacked
    parser = lark.Lark(grammar, parser="lalr", postlex=Blocks())
    assert confirmed(automaton, parser, "abc\n #()", 5) > 100


@pytest.mark.parametrize("lexer", ["contextual", "basic", "dynamic", "dynamic_complete", "scannerless"])
def test_a_terminal_of_too_many_states_is_refused_in_time(vocabulary: oc.Vocabulary, lexer: Any) -> None:
    began = time.thread_time()
    with pytest.raises(oc.LimitExceededError, match="too many states"):
        oc.compile_grammar("start: A\nA: /(ab){2,50000}c/i", vocabulary, lexer=lexer)
    assert time.thread_time() - began < 10


def test_after_a_limit_was_hit_it_is_hit_again() -> None:
    """And nothing else: no row is left without its entries."""
    vocabulary = oc.Vocabulary(257, {bytes([b]): [b] for b in range(256)} | {b"a" * 900: [256]})
    limits = oc.Limits(max_state_bytes=600_000)
    automaton = oc.compile_grammar('start: A+\nA: /[ab]{1,3000}c/\n%ignore " "', vocabulary, limits=limits)
    for _ in range(3):
        with pytest.raises(oc.LimitExceededError):
            automaton.next_state(automaton.initial_state, 256)
    assert not automaton.is_accepting(automaton.initial_state)


def test_the_fewest_tokens_are_found_or_the_search_is_given_up() -> None:
    """Along deep nesting there is no end of states."""
    tokens = ["".join(t) for n in (1, 2, 3) for t in itertools.product("ab ", repeat=n)]
    vocabulary = oc.Vocabulary(256, {t.encode(): [k if k < 256 else k + 1] for k, t in enumerate(tokens)})
    grammar = 'start: "(" start ")" | "b " start "ba" | "b" start B |\nB: " a "\n%ignore "  a"'
    automaton = oc.compile_grammar(grammar.replace('"(" start ")" | ', ""), vocabulary, lexer="dynamic_complete")
    state = automaton.initial_state
    for _ in range(12):
        state = automaton.next_state(state, tokens.index("b"))
    began = time.thread_time()
    try:
        left = automaton.min_tokens_to_accept(state)
    except oc.LimitExceededError:
        left = -1
    assert time.thread_time() - began < 30
    assert left in (-1, 12)


def test_distances_on_a_shortest_way_are_remembered(vocabulary: oc.Vocabulary) -> None:
    automaton = oc.compile_grammar('start: "abc" | "a" start "d"', vocabulary, lexer="dynamic")
    state = automaton.initial_state
    assert automaton.min_tokens_to_accept(state) == 3
    for letter in "aaabcdd":
        state = automaton.next_state(state, ord(letter))
        after = [automaton.next_state(state, c) for c in b"abcd"]
        left = min((automaton.min_tokens_to_accept(s) + 1 for s in after if s != oc.DEAD), default=0)
        assert automaton.min_tokens_to_accept(state) == left or automaton.is_accepting(state)


@pytest.mark.parametrize("name", ["c_expressions", "json", "sqlite"])
def test_what_a_lexeme_can_become_by_short_cuts_and_by_search(
    vocabulary: oc.Vocabulary, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They say the same, but that terminals with a good text hide what else these may end in."""
    automaton = oc.compile_grammar(grammars.load(name), vocabulary, **grammars.options(name))
    machine, separation = automaton._core.recogniser.machine, automaton._core.recogniser.lexical.separation
    tables = []
    for searched in (False, True):
        if searched:
            monkeypatch.setattr(Endings, "_find_sure", lambda *_: False)
        handles = Handles(kernel.H_SIZE)
        handles[kernel.H_META] = np.zeros(kernel.META_SIZE, dtype=np.int64)
        lexical = Lexical(machine, separation, handles, oc.Limits())
        rows = [lexical.first]
        for row in rows:
            rows += [one for one in lexical.following(row) if one not in rows][:400]
            if len(rows) > 400:
                break
        for row in rows:
            lexical.find_endings(row)
        tables.append({lexical.content(row): set(lexical.endings(row)) for row in rows})
    short, long = tables
    assert short.keys() == long.keys()
    for content, found in short.items():
        hidden = long[content] - found
        assert found <= long[content]
        assert {t - kernel.AT_END - 1 for t in hidden - {kernel.ENTANGLED}} <= found
