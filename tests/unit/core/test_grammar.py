"""Lark grammars: languages, lexers, indentation, errors, and the kernel against its readable twin."""

from __future__ import annotations

import itertools
import random
from typing import Any

import lark
import numpy as np
import pytest
from lark.indenter import Indenter, PythonIndenter

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from outlines_core.grammar.indentation import Indentation
from outlines_core.grammar.lexed import LexedRecogniser
from outlines_core.grammar.loading import load_grammar
from outlines_core.grammar.ordered import OrderedDfa
from outlines_core.grammar_compile import terminal_nodes
from outlines_core.grammar_core import GrammarCore
from outlines_core.limits import DEFAULT_LIMITS

BYTES = {bytes([b]): [b] for b in range(256)}


class TreeIndenter(Indenter):
    NL_type = "_NL"
    OPEN_PAREN_types: list[str] = []
    CLOSE_PAREN_types: list[str] = []
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 8


TREE = r"""
    start: _NL* tree
    tree: NAME _NL [_INDENT tree+ _DEDENT]
    NAME: /[a-z]+/
    _NL: /(\r?\n[\t ]*)+/
    %ignore " "
    %declare _INDENT _DEDENT
"""
BLOCKS = r"""
    start: (_NEWLINE | stmt)*
    ?stmt: "if" expr ":" suite ["else" ":" suite] | simple _NEWLINE
    suite: simple _NEWLINE | _NEWLINE _INDENT stmt+ _DEDENT
    ?simple: "pass" | NAME "=" expr | expr
    ?expr: atom | expr "+" atom | expr "if" expr "else" atom
    ?atom: NAME | NUMBER | STRING | "(" [expr ("," expr)*] ")" | "not" atom
    NAME: /[^\W\d]\w*/
    NUMBER: /\d+(\.\d+)?/
    STRING: /"[^"\n]*"/
    LPAR: "("
    RPAR: ")"
    COMMENT: /#[^\n]*/
    _NEWLINE: ( /\r?\n[\t ]*/ | COMMENT )+
    %ignore /[\t \f]+/
    %ignore /\\[\t \f]*\r?\n/
    %ignore COMMENT
    %declare _INDENT _DEDENT
"""
JSON = r"""
    ?start: value
    ?value: object | array | STRING | NUMBER | "true" | "false" | "null"
    array: "[" [value ("," value)*] "]"
    object: "{" [pair ("," pair)*] "}"
    pair: STRING ":" value
    STRING: /"([^"\\\x00-\x1f]|\\(["\\\/bfnrt]|u[0-9a-fA-F]{4}))*"/
    NUMBER: /-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/
    %ignore /[ \t\r\n]+/
"""
QUERY = r"""
    start: "select"i columns "from"i NAME ["where"i test]
    columns: "*" | NAME ("," NAME)*
    test: NAME ("=" | "<" | "<=") (NUMBER | STRING) | test "and"i test2
    test2: "not"i NAME | "(" test ")"
    NAME: /[a-z_][a-z0-9_]*/i
    NUMBER: /\d+/
    STRING: /'([^']|'')*'/
    %ignore /--[^\n]*/
    %ignore /\s+/
"""
CASES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "json": (JSON, {}, ['{"a": [1, 2.5e3, true], "b": {}}', "[]", ' "x" ']),
    "query": (QUERY, {}, ["select a, b from t where x <= 3 and not y", "SELECT * FROM t -- all\n", "select a from b"]),
    "query, basic": (QUERY, {"lexer": "basic"}, ["select a, b from t where x = 'it''s'"]),
    "tree": (TREE, {"postlex": TreeIndenter()}, ["a\n  b\n    c\n  d\n", "a\n"]),
    "blocks": (
        BLOCKS,
        {"postlex": PythonIndenter()},
        ["if a: b\nelse:\n  c = (1,\n 2)\n  # note\n\n  pass\nx\n", "x = not y if z else 1.5 # end\n", "\n\n"],
    ),
}


def accepts(automaton: oc.GrammarAutomaton, text: str) -> bool:
    data = list(text.encode())
    n, state = automaton.accept_tokens(automaton.initial_state, data)
    return n == len(data) and automaton.is_accepting(state)


def parses(parser: lark.Lark, text: str) -> bool:
    try:
        parser.parse(text)
    except (lark.exceptions.UnexpectedInput, lark.indenter.DedentError, AssertionError, IndexError):
        return False
    return True


@pytest.fixture(scope="module")
def vocabulary() -> oc.Vocabulary:
    return oc.Vocabulary(256, BYTES)


@pytest.mark.parametrize("name", CASES)
def test_texts_and_their_edits_are_judged_as_by_lark(vocabulary: oc.Vocabulary, name: str) -> None:
    grammar, options, texts = CASES[name]
    automaton = oc.compile_grammar(grammar, vocabulary, **options)
    parser = lark.Lark(grammar, parser="lalr", maybe_placeholders=False, **{"lexer": "contextual", **options})
    rng = random.Random(1)
    for text in texts:
        assert accepts(automaton, text)
        for _ in range(60):
            at = rng.randrange(len(text) + 1)
            edited = text[:at] + rng.choice(["", *set(text), "é"]) + text[at + rng.randrange(2) :]
            assert accepts(automaton, edited) == parses(parser, edited), edited


@pytest.mark.parametrize("name", [name for name in CASES if name != "blocks"])
def test_the_kernel_does_as_its_readable_twin(vocabulary: oc.Vocabulary, name: str) -> None:
    grammar, options, texts = CASES[name]
    core = oc.compile_grammar(grammar, vocabulary, **options)._core
    assert isinstance(core, GrammarCore)
    fast = core.recogniser
    loaded = load_grammar(grammar, **options)
    indentation = Indentation(options["postlex"], loaded.terminals) if "postlex" in options else None
    slow = LexedRecogniser(loaded, OrderedDfa(terminal_nodes(loaded.terminals, DEFAULT_LIMITS)), indentation)
    rng = random.Random(2)
    letters = sorted({*b"".join(t.encode() for t in texts), 0xC3, 0x41, 0x0A})
    for text in [*texts, *texts]:
        data = text.encode()[: rng.randrange(len(text) + 1)]
        one, other = fast.initial, slow.initial
        for byte in data:
            one, other = fast.after(one, byte), slow.after(other, byte)
        for _ in range(25):
            assert fast.accepts(one) == slow.accepts(other)
            both = [(fast.after(one, b), slow.after(other, b)) for b in letters]
            assert [a is None for a, _ in both] == [b is None for _, b in both]
            live = [pair for pair in both if pair[0] is not None]
            if not live:
                break
            one, other = rng.choice(live)


@pytest.mark.parametrize("name", CASES)
def test_masks_are_what_the_bytes_of_tokens_lead_to(name: str) -> None:
    grammar, options, texts = CASES[name]
    rng = random.Random(3)
    everything = "".join(texts) + " \n\"'()#-é日"
    tokens = dict(BYTES)
    for text in texts:
        for _ in range(150):
            at = rng.randrange(len(text))
            tokens.setdefault(text[at : at + rng.randint(2, 7)].encode(), [len(tokens) + 1])
    for _ in range(150):
        tokens.setdefault("".join(rng.choices(everything, k=rng.randint(2, 4))).encode(), [len(tokens) + 1])
    vocabulary = oc.Vocabulary(256, tokens)
    automaton = oc.compile_grammar(grammar, vocabulary, **options)
    mask = oc.allocate_bitmask(1, vocabulary)[0]
    for text in texts:
        state, data = automaton.initial_state, text.encode()
        for k in range(len(data) + 1):
            automaton.fill_mask(state, mask)
            allowed = set(unpack_ids(mask).tolist())
            for token, (number,) in tokens.items():
                n, after = automaton.accept_tokens(state, list(token))
                assert (number in allowed) == (n == len(token)), (data[:k], token)
                if n == len(token) and rng.random() < 0.05:
                    assert automaton.is_accepting(automaton.next_state(state, number)) == automaton.is_accepting(after)
            assert (256 in allowed) == automaton.is_accepting(state)
            if k < len(data):
                state = automaton.next_state(state, data[k])


@pytest.mark.parametrize(
    ("lexer", "yes", "no"),
    [
        ("contextual", ["a"], ["ab"]),
        ("basic", ["a"], ["ab"]),
        ("dynamic", ["a"], ["ab"]),
        ("dynamic_complete", ["a"], ["ab"]),
        ("scannerless", ["a", "ab"], ["b", "abb"]),
    ],
)
def test_what_a_terminal_is_depends_on_the_lexer(
    vocabulary: oc.Vocabulary, lexer: Any, yes: list[str], no: list[str]
) -> None:
    automaton = oc.compile_grammar("start: A\nA: /a|ab/", vocabulary, lexer=lexer)
    assert [accepts(automaton, text) for text in yes] == [True] * len(yes)
    assert [accepts(automaton, text) for text in no] == [False] * len(no)


def test_lists_nested_to_the_right_or_left_come_to_a_fixed_state(vocabulary: oc.Vocabulary) -> None:
    for rules in ('start: "a" start | "a"', 'start: start "a" | "a"', 'start: x\nx: "a" y | "a"\ny: x'):
        for lexer in ("dynamic", "scannerless"):
            automaton = oc.compile_grammar(rules, vocabulary, lexer=lexer)
            accepts(automaton, "a" * 10)
            n = automaton.n_states
            assert accepts(automaton, "a" * 2000)
            assert automaton.n_states == n


LINES = r"""
    start: stmt* _NL?
    stmt: "a"+ _NL | "a" ":" _NL _INDENT stmt+ _DEDENT
    %declare _INDENT _DEDENT
"""


def live_prefixes(automaton: oc.GrammarAutomaton, letters: str, longest: int) -> set[str]:
    found, todo = set(), [("", automaton.initial_state)]
    for text, state in todo:
        found.add(text)
        if len(text) < longest:
            after = [(text + c, automaton.next_state(state, ord(c))) for c in letters]
            todo += [(one, at) for one, at in after if at != oc.DEAD]
    return found


@pytest.mark.parametrize("lexer", ["contextual", "basic"])
@pytest.mark.parametrize(
    ("grammar", "letters"),
    [
        ('start: "a" "b" | "c"\n%ignore "b"', "abc"),
        ('start: N "b" | "c"\nN: /[a-c]/\n%ignore "b"', "abc"),
        ('start: "a" B | "c"\nB: /b[^\\s\\S]/\n%ignore " "', "ac "),
        ('_T: "bbc"\nstart: ["ac"i "ab"] "c" |\n%ignore _T\n%ignore "a"', "abc"),
    ],
)
def test_what_is_ignored_is_not_given_to_the_parser(
    vocabulary: oc.Vocabulary, lexer: Any, grammar: str, letters: str
) -> None:
    parser = lark.Lark(grammar, parser="lalr", lexer=lexer)
    texts = ["".join(t) for n in range(9) for t in itertools.product(letters, repeat=n)]
    parsed = [text for text in texts if parses(parser, text)]
    try:
        automaton = oc.compile_grammar(grammar, vocabulary, lexer=lexer)
    except oc.UnsatisfiableError:
        assert not parsed
        return
    live = live_prefixes(automaton, letters, 3)
    assert live == {text[:n] for text in parsed for n in range(min(4, len(text) + 1))}
    assert all(accepts(automaton, text) == parses(parser, text) for text in texts[:2000])


def test_a_grammar_of_what_is_ignored_has_no_texts(vocabulary: oc.Vocabulary) -> None:
    for lexer in ("contextual", "basic"):
        with pytest.raises(oc.UnsatisfiableError):
            oc.compile_grammar('start: "a"\n%ignore "a"', vocabulary, lexer=lexer)


@pytest.mark.parametrize(
    ("lines", "dead", "live"),
    [
        (LINES + r"_NL: /(\n[ \t]*)+/" + '\n%ignore "#"', ["a:\n#", "a:\n  a\n #", "a\n #"], ["a:\n #", "a:\n  a\n#"]),
        (LINES + r"_NL: /\n[\t]*/+" + '\n%ignore " "', ["a:\n "], ["a:\n\t ", " "]),
        (LINES + r"_NL: /\n+[ ]*/" + "\n%ignore /a\\n/", ["aa\n\n a"], ["aa\n\na"]),
        (LINES + r"_NL: /\n[ ]*/" + '\n%ignore "#"', ["a\n ", "a:\n#"], ["a:\n ", "a\n#"]),
    ],
)
def test_columns_that_lead_nowhere(vocabulary: oc.Vocabulary, lines: str, dead: list[str], live: list[str]) -> None:
    """Behind a newline the parser may wait for an INDENT that only the next newline could bring."""
    automaton = oc.compile_grammar(lines, vocabulary, postlex=TreeIndenter())
    for text in dead + live:
        n, _ = automaton.accept_tokens(automaton.initial_state, list(text.encode()))
        assert (n == len(text)) == (text in live), text


def test_an_indenter_may_name_terminals_that_no_rule_uses(vocabulary: oc.Vocabulary) -> None:
    for grammar, text in (('start: ("a" _NL)+\n_NL: /\\n */', "a\na\n"), ('start: "a"+', "aa")):
        assert parses(lark.Lark(grammar, parser="lalr", postlex=TreeIndenter()), text)
        automaton = oc.compile_grammar(grammar, vocabulary, postlex=TreeIndenter())
        assert accepts(automaton, text)
        assert not accepts(automaton, "a\n a\n")


def test_a_grammar_without_texts_is_refused(vocabulary: oc.Vocabulary) -> None:
    for grammar, options in (
        ("start: A A\nA: /a+/", {}),
        ("start: A A\nA: /a+/", {"lexer": "dynamic"}),
        ('start: start "a"', {}),
    ):
        with pytest.raises(oc.UnsatisfiableError, match="no text at all"):
            oc.compile_grammar(grammar, vocabulary, **options)


def test_rules_that_derive_themselves_do_not_hang(vocabulary: oc.Vocabulary) -> None:
    for ignored in ("", '\n%ignore " "'):
        try:  # priorities prefer the rule without end; lark hangs
            accepted = accepts(oc.compile_grammar('start: a\na: b | "x"\nb.2: a' + ignored, vocabulary), "x")
        except (oc.LimitExceededError, oc.UnsatisfiableError):
            accepted = False
        assert not accepted


def test_errors_are_larks_with_their_place(vocabulary: oc.Vocabulary) -> None:
    with pytest.raises(oc.ConstraintSyntaxError, match="line 2, column 6") as caught:
        oc.compile_grammar('start: "a"\nrule |', vocabulary)
    assert caught.value.offset == 16
    for grammar, offset in (('start: "a" -> B', 14), ('start: "a"\n  $', 13), ('start: "a"\nB: "x" | ~', 20)):
        with pytest.raises(oc.ConstraintSyntaxError, match="Lark refuses") as caught:
            oc.compile_grammar(grammar, vocabulary)
        assert caught.value.offset == offset
    with pytest.raises(oc.ConstraintSyntaxError, match="Lark fails on the grammar: AttributeError"):
        oc.compile_grammar('start: "a"\n%declare foo', vocabulary)
    for lexer in ("contextual", "dynamic", "scannerless"):
        with pytest.raises(oc.ConstraintSyntaxError, match="Lark refuses the grammar: (Cannot compile|unterminated)"):
            oc.compile_grammar("start: A\nA: /[abc/", vocabulary, lexer=lexer)
        with pytest.raises(oc.ConstraintSyntaxError, match="Lark refuses the grammar: (Cannot compile|bad escape)"):
            oc.compile_grammar("start: A\nA: /\\p{L}/", vocabulary, lexer=lexer)
    with pytest.raises(oc.ConstraintSyntaxError, match="'missing' used but not defined"):
        oc.compile_grammar("start: missing", vocabulary)
    with pytest.raises(oc.ConstraintSyntaxError, match="zero-width"):
        oc.compile_grammar("start: A\nA: /a*/", vocabulary)
    with pytest.raises(oc.ConstraintSyntaxError, match="does not support lexer"):
        oc.compile_grammar("start: A\nA: /a/", vocabulary, parser="lalr", lexer="dynamic")
    with pytest.raises(oc.UnsupportedFeatureError, match="terminal A.*back-reference"):
        oc.compile_grammar("start: A\nA: /(?P<x>a)(?P=x)/", vocabulary)
    with pytest.raises(oc.ConstraintSyntaxError, match="cannot refer to an open group"):
        oc.compile_grammar("start: A\nA: /(a)\\1/", vocabulary)
    with pytest.raises(ValueError, match="lexer must be one of"):
        oc.compile_grammar("start: A\nA: /a/", vocabulary, lexer="fast")  # type: ignore[arg-type]


def test_other_postlexes_are_refused_by_name(vocabulary: oc.Vocabulary) -> None:
    class Other:
        always_accept = ()

        def process(self, stream: Any) -> Any:
            return stream

    class Changed(TreeIndenter):
        def handle_NL(self, token: Any) -> Any:
            yield token

    for postlex in (Other(), Changed()):
        with pytest.raises(oc.UnsupportedFeatureError) as caught:
            oc.compile_grammar(TREE, vocabulary, postlex=postlex)
        assert caught.value.feature == "postlex"


def test_what_a_guide_needs_is_there(vocabulary: oc.Vocabulary) -> None:
    automaton = oc.compile_grammar(JSON, vocabulary)
    _, state = automaton.accept_tokens(automaton.initial_state, list(b'{"a": tr'))
    assert automaton.forced_bytes(state) == b"ue"
    assert automaton.min_tokens_to_accept(state) == 3
    mask = oc.allocate_bitmask(1, vocabulary)[0]
    automaton.fill_closing_mask(state, 3, mask)
    assert np.array_equal(unpack_ids(mask), [ord("u")])
    automaton.fill_closing_mask(automaton.initial_state, 1, mask)
    assert set(unpack_ids(mask).tolist()) == {*b"0123456789"}
    assert "'u'" in automaton.explain(state)
