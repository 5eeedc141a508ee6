"""Lark grammars with comments that begin like operators: `//` is two of them where no line ends behind it."""

from __future__ import annotations

import random
from typing import Any

import lark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outlines_core as oc
from outlines_core.grammar_core import GrammarCore, StackedRecogniser
from tests.grammar_fuzz import Trial
from tests.grammar_strategies import Case

ENDS = {"semicolon": 'eos: ";"', "line": "eos: NL", "either": 'eos: ";" NL? | NL'}
BODIES = {
    "closed": "start: (stmt eos)+\nstmt: expr",
    "open": "start: NL? stmt (eos stmt)* eos?\nstmt: expr",
    "blocks": 'start: (stmt eos)+\nstmt: expr | "{" NL? (stmt eos)* stmt? "}"',
    "lines in blocks": 'start: NL? stmt (eos stmt)* eos?\nstmt: expr | "{" (stmt NL)+ "}"',
}
COMMENTS = {
    "as line ends": 'COMMENT: /\\/\\/[^\\n]*\\n/\nNL: COMMENT | /(\\n *)+/\n%ignore " "',
    "ignored": 'COMMENT: /\\/\\/[^\\n]*\\n/\nNL: /(\\n *)+/\n%ignore COMMENT\n%ignore " "',
    "ignored, to the line's end": 'COMMENT: /\\/\\/[^\\n]*/\nNL: /\\n+/\n%ignore COMMENT\n%ignore " "',
    "as in Go": r"""
        NL: /\/\/[^\n]*\n/ | /\n+/ | /\/\*[^*\n]*\n[^*]*\*\//
        SPACE: " " | /\/\*[^*\n]*\*\//
        %ignore SPACE
    """,
}


@pytest.fixture(scope="module")
def vocabulary() -> oc.Vocabulary:
    return oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)})


@st.composite
def grammars(draw: st.DrawFn) -> Case:
    """Statements of expressions with `/` and `*`, in different surroundings."""
    body = draw(st.sampled_from(sorted(BODIES)))
    unary = draw(st.sampled_from(["", '| "*" expr', '| "/" expr', '| "/" expr | "*" expr']))
    rules = [BODIES[body], ENDS[draw(st.sampled_from(sorted(ENDS)))]]
    rules += [f'expr: A | expr ("/" | "*") expr {unary}', 'A: "a"', COMMENTS[draw(st.sampled_from(sorted(COMMENTS)))]]
    return Case("\n".join(rules), "a/\n{}" if "block" in body else "a/*;\n", "contextual")


@settings(max_examples=8, deadline=None, derandomize=True)
@given(grammars(), st.integers(0, 1 << 30))
def test_comments_and_operators(case: Case, seed: int) -> None:
    """All texts of a few letters are live, accepted, masked as lark has it, and longer ones of a sample."""
    trial = Trial(case, random.Random(seed), length=4, n_long=4, n_masks=4)
    outcome = trial.run()
    assert isinstance(trial.automaton._core, GrammarCore)
    assert not outcome.findings
    assert not outcome.limits


@pytest.fixture
def no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """No world is asked about: what behind a boundary is read is known."""

    def asked(*_: Any) -> bool:
        raise AssertionError("a world is asked about")

    monkeypatch.setattr(StackedRecogniser, "_is_live", asked)


C_LIKE = r"""
start: (declaration | function)*
declaration: type NAME ["=" expr] ";"
function: type NAME "(" [type NAME ("," type NAME)*] ")" block
type: ("int" | "char") "*"*
block: "{" stmt* "}"
stmt: block | declaration | expr ";" | "if" "(" expr ")" stmt | "return" [expr] ";" | ";"
?expr: sum | lvalue "=" expr
?sum: product | sum ("+" | "-") product
?product: unary | product ("*" | "/" | "%") unary
?unary: lvalue | NUMBER | STRING | "-" unary | "&" lvalue
?lvalue: NAME | "*" unary | lvalue "[" expr "]" | NAME "(" [expr ("," expr)*] ")" | "(" expr ")"
NAME: /[a-zA-Z_]\w*/
NUMBER: /\d+/
STRING: /"([^"\\\n]|\\.)*"/
LINE: /\/\/[^\n]*\n/
COMMENT: /\/\*(?:[^*]|\*+[^*\/])*\*+\//
%ignore LINE
%ignore COMMENT
%ignore /[ \t\n]+/
"""
JS_LIKE = r"""
start: NL? (stmt eos)*
eos: ";" NL? | NL
stmt: "let" NAME "=" expr | expr | "if" "(" expr ")" block | "return" [expr]
block: "{" NL? (stmt eos)* "}"
?expr: sum | NAME "=" expr | arrow
arrow: "(" [NAME ("," NAME)*] ")" "=>" block
?sum: product | sum ("+" | "-") product
?product: call | product ("*" | "/" | "**") call
?call: atom | call "(" [expr ("," expr)*] ")" | call "." NAME
?atom: NAME | NUMBER | STRING | REGEX | "[" [expr ("," expr)*] "]"
NAME: /[a-zA-Z_$][\w$]*/
NUMBER: /\d+(\.\d+)?/
STRING: /"([^"\\\n]|\\.)*"/
REGEX: /\/(?![*\/])[^\/\n]+\/[gim]*/
NL: (/\/\/[^\n]*/? /\r?\n[\t ]*/)+
SPACE: /[ \t]/ | /\/\*(?:[^*]|\*+[^*\/])*\*+\//
%ignore SPACE
"""
RUST_LIKE = r"""
start: item*
item: "fn" NAME "(" [NAME ":" type ("," NAME ":" type)*] ")" ["->" type] block | "use" NAME ("::" NAME)* ";"
type: NAME | "&" type | "*" "const" type
block: "{" stmt* [expr] "}"
stmt: "let" NAME [":" type] "=" expr ";" | expr ";" | DOC
?expr: sum | "if" expr block ["else" block]
?sum: product | sum ("+" | "-" | "&&") product
?product: unary | product ("*" | "/") unary
?unary: atom | "*" unary | "&" unary | "-" unary
?atom: NAME | NUMBER | NAME "(" [expr ("," expr)*] ")" | "(" expr ")" | NAME "::" NAME
NAME: /[a-zA-Z_]\w*/
NUMBER: /\d+/
DOC.1: /\/\/\/[^\n]*\n/
LINE: /\/\/[^\n]*\n/
COMMENT: /\/\*(?:[^*]|\*+[^*\/])*\*+\//
%ignore LINE
%ignore COMMENT
%ignore /\s/
"""
PROGRAMS = {
    "C": (C_LIKE, "int a = b / *c; // d\nint f(int*a) {/*\n*/ return a[2] //* c */ 3; }", "int a = b //* c */ d;"),
    "JavaScript": (
        JS_LIKE,
        "// a\nlet a = b / c / d // e\nlet f = (x) => {\n  return x/*\n*/ / 2;\n}\n",
        "a / b //* c */ d;",
    ),
    "Rust": (
        RUST_LIKE,
        "use a::b;\nfn f(a: &T) -> T {\n  /// b\n  let x = *a / *b; // c\n  x //* y */ z\n}",
        "fn f() { a / *b }",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.usefixtures("no_questions")
def test_programs(vocabulary: oc.Vocabulary, name: str) -> None:
    """Each byte is allowed that a step takes; what has no byte to follow ends, or has a completion that parses."""
    grammar, *texts = PROGRAMS[name]
    parser = lark.Lark(grammar, parser="lalr")
    automaton = oc.compile_grammar(grammar, vocabulary)
    assert isinstance(automaton._core, GrammarCore)
    mask = oc.allocate_bitmask(1, vocabulary)[0]
    for text in texts:
        state = automaton.initial_state
        for k, byte in enumerate(text.encode()):
            automaton.fill_mask(state, mask)
            after = [automaton.next_state(state, b) for b in range(256)]
            assert [s != oc.DEAD for s in after] == [bool(mask[b >> 5] >> (b & 31) & 1) for b in range(256)]
            assert after[byte] != oc.DEAD, text[: k + 1]
            for b in b"/*\n;a":
                if after[b] != oc.DEAD:
                    begun = text[:k] + chr(b)
                    assert parser.parse(begun + _rest(automaton, after[b]))
            state = after[byte]
        assert automaton.is_accepting(state) == _parses(parser, text)


def _rest(automaton: oc.GrammarAutomaton, state: int) -> str:
    """A text to the end."""
    core = automaton._core
    text = core.recogniser.finisher.text(core.dfa.configuration(state))
    assert text is not None
    return str(text.decode())


def _parses(parser: lark.Lark, text: str) -> bool:
    try:
        parser.parse(text)
    except lark.exceptions.UnexpectedInput:
        return False
    return True


LINES = """
A: "a"
NL: /\\/\\/[^\\n]*\\n/ | /\\n+/
SPACE: " " | /\\/\\*[^*\\n]*\\*\\//
%ignore SPACE
"""


@pytest.mark.parametrize("rules", ['start: (expr eos)+\neos: ";" | NL', "start: (expr NL)+", "start: expr (NL expr)*"])
@pytest.mark.usefixtures("no_questions")
def test_lines_that_must_not_end(vocabulary: oc.Vocabulary, rules: str) -> None:
    """With other ends than lines, with no other ones, and without any."""
    grammar = f'{rules}\nexpr: A | expr "/" expr{LINES}'
    parser = lark.Lark(grammar, parser="lalr")
    automaton = oc.compile_grammar(grammar, vocabulary)
    for text in ("a//**/a", "a//**/a;", "a//**/a;a", "a//**/a\n", "a/a//**/a//a\n", "a\na//**/a", "a//\na", "a///**/"):
        n, state = automaton.accept_tokens(automaton.initial_state, list(text.encode()))
        assert (n == len(text) and automaton.is_accepting(state)) == _parses(parser, text)
        if n == len(text):
            assert _parses(parser, text + _rest(automaton, state))
