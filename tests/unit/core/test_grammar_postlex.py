"""`PostLex` machines against lark with postlex objects that do the same."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lark
import pytest
from lark.exceptions import LarkError
from lark.lark import PostLex as LarkPostLex

import outlines_core as oc
from outlines_core.grammar.postlex import PostLex

VOCABULARY = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)} | {b"a\n": [257], b"\n\n": [258], b"ab": [259]})


@dataclass(frozen=True)
class Semicolons(PostLex):
    """Newlines are semicolons behind what can end a statement, and nothing elsewhere, as in Go."""

    ends: tuple[str, ...] = ("NAME", "RPAR")
    initial = False
    always_accept = ("NL",)

    def after(self, state: bool, terminal: str) -> tuple[bool, Sequence[str]]:
        if terminal == "NL":
            return False, ("SEMICOLON",) if state else ()
        return terminal in self.ends, (terminal,)

    def at_end(self, state: bool) -> Sequence[str]:
        return ("SEMICOLON",) if state else ()


@dataclass(frozen=True)
class Dropping(PostLex):
    """Takes every second A for nothing, which has to be an even number of them."""

    initial = 0
    always_accept = ("A",)

    def after(self, state: int, terminal: str) -> tuple[int, Sequence[str]]:
        if terminal != "A":
            return state, (terminal,)
        return 1 - state, () if state else ("A",)

    def at_end(self, state: int) -> Sequence[str] | None:
        return None if state else ()


@dataclass(frozen=True)
class Inserting(PostLex):
    """Brackets around B, a mark before the end, and no B behind a C."""

    initial = "start"

    def after(self, state: str, terminal: str) -> tuple[str, Sequence[str]] | None:
        if terminal == "B":
            return None if state == "C" else ("B", ("OPEN", "B", "CLOSE"))
        return terminal, (terminal,)

    def at_end(self, state: str) -> Sequence[str]:
        return ("LAST",)


@dataclass(frozen=True)
class Modal(PostLex):
    """Between Qs all terminals are other ones."""

    initial = False

    def after(self, state: bool, terminal: str) -> tuple[bool, Sequence[str]]:
        if terminal == "Q":
            return not state, ("BEGIN" if not state else "END",)
        return state, ("INNER" if state else terminal,)


class Equivalent(LarkPostLex):
    """The same for lark."""

    def __init__(self, machine: PostLex) -> None:
        self._machine = machine
        self.always_accept = tuple(machine.always_accept)

    def process(self, stream: Iterator[lark.Token]) -> Iterator[lark.Token]:
        state = self._machine.initial
        for token in stream:
            found = self._machine.after(state, token.type)
            if found is None:
                raise LarkError("refused")
            state, names = found
            for name in names:
                yield lark.Token.new_borrow_pos(name, token.value, token)
        last = self._machine.at_end(state)
        if last is None:
            raise LarkError("refused")
        for name in last:
            yield lark.Token(name, "")


CASES: list[tuple[PostLex, str, str]] = [
    (
        Semicolons(),
        """
        start: (stmt ";" | ";")*
        ?stmt: NAME | NAME "(" [NAME] ")"
        NAME: /a+/
        NL: /\\n/
        """,
        "a(;)\n",
    ),
    (
        Semicolons(),
        'start: (NAME+ ";" | block)*\nblock: "(" start ")"\nNAME: "a" | "b"\nNL: /\\n+/\nRPAR: ")"\n%ignore " "',
        "a() \n",
    ),
    (Semicolons(ends=("NAME",)), 'start: NAME ";" start | NAME ";"\nNAME: /a/ | /aa\\n/\nNL: "\\n"', "a\n;"),
    (Dropping(), 'start: (A B)* C?\nA: "a"\nB: /b/\nC: /c+/', "abc"),
    (Dropping(), 'start: A start B | B\nA: "a"\nB: /b|ab?b/', "ab"),
    (
        Inserting(),
        """
        start: item* LAST
        item: OPEN item* B item* CLOSE | C | A
        A: /a/
        B: /b|ba/
        C: "c"
        %declare OPEN CLOSE LAST
        """,
        "abc",
    ),
    (
        Modal(),
        """
        start: (A | B | quoted)*
        quoted: BEGIN INNER INNER* END
        A: /a+/
        B: /b(?!a)/
        Q: "q"
        _C: /c/
        %ignore _C
        %declare BEGIN INNER END
        """,
        "abcq",
    ),
]


@pytest.mark.parametrize("lexer", ["contextual", "basic"])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_language_is_larks(case: int, lexer: str) -> None:
    machine, grammar, alphabet = CASES[case]
    try:
        parser = lark.Lark(grammar, parser="lalr", lexer=lexer, postlex=Equivalent(machine))
    except LarkError:
        with pytest.raises(oc.ConstraintSyntaxError):
            oc.compile_grammar(grammar, VOCABULARY, lexer=lexer, postlex=machine)
        return

    def parses(text: str) -> bool:
        try:
            parser.parse(text)
        except LarkError:
            return False
        return True

    most = 7 if len(alphabet) < 5 else 6
    texts = ["".join(t) for n in range(most + 1) for t in itertools.product(alphabet, repeat=n)]
    language = {text for text in texts if parses(text)}
    try:
        automaton = oc.compile_grammar(grammar, VOCABULARY, lexer=lexer, postlex=machine)
    except oc.UnsatisfiableError:
        assert not language
        return
    live: dict[str, int] = {"": automaton.initial_state}
    for text in texts:
        state = live.get(text[:-1], oc.DEAD)
        if text:
            state = automaton.next_state(state, ord(text[-1]))
        if state != oc.DEAD:
            live[text] = state
        assert automaton.is_accepting(state) == (text in language), text
    assert len(language) > 5
    assert {text[:k] for text in language for k in range(len(text))} <= live.keys()
    for text, state in live.items():
        if len(text) < 5:
            ending = automaton._core.completion(state).decode()
            assert parses(text + ending), (text, ending)
            allowed = set(automaton.allowed_tokens(state).tolist())
            for token_id, piece in {257: "a\n", 258: "\n\n", 259: "ab"}.items():
                if set(piece) <= set(alphabet):
                    assert (token_id in allowed) == (text + piece in live)


def test_equal_machines_are_one_constraint() -> None:
    grammar = 'start: (NAME ";")*\nNAME: /a+/\nNL: /\\n/'
    automaton = oc.compile_grammar(grammar, VOCABULARY, postlex=Semicolons())
    assert oc.compile_grammar(grammar, VOCABULARY, postlex=Semicolons())._core is automaton._core
    other = oc.compile_grammar(grammar, VOCABULARY, postlex=Semicolons(ends=()))
    assert other._core is not automaton._core
    twin = pickle.loads(pickle.dumps(automaton))
    for text in (b"a", b"a\n", b"a;a", b"\n\na;\n"):
        assert twin.accept_tokens(twin.initial_state, text)[0] == len(text)
    assert not other.is_accepting(other.accept_tokens(other.initial_state, b"a")[1])


class Counting(PostLex):
    initial = 0

    def after(self, state: int, terminal: str) -> tuple[int, Sequence[str]]:
        return state + 1, (terminal,)


class Naming(PostLex):
    def after(self, state: None, terminal: str) -> tuple[None, Sequence[str]]:
        return None, ("NOBODY",)


def test_what_is_refused() -> None:
    grammar = "start: A*\nA: /a/"
    with pytest.raises(oc.LimitExceededError, match="Counting"):
        oc.compile_grammar(grammar, VOCABULARY, postlex=Counting())
    with pytest.raises(oc.ConstraintSyntaxError, match="NOBODY"):
        oc.compile_grammar(grammar, VOCABULARY, postlex=Naming())
    with pytest.raises(oc.UnsupportedFeatureError) as caught:
        oc.compile_grammar(grammar, VOCABULARY, postlex=Equivalent(Dropping()))
    assert caught.value.feature == "postlex"
    for options in ({"parser": "earley", "lexer": "basic"}, {"lexer": "dynamic"}, {"lexer": "scannerless"}):
        given: Any = options
        with pytest.raises((oc.UnsupportedFeatureError, oc.ConstraintSyntaxError)):
            oc.compile_grammar(grammar, VOCABULARY, postlex=Dropping(), **given)


def test_it_goes_with_the_extended_dialect_and_several_starts() -> None:
    vocabulary = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)}, special_tokens={"<|x|>": 257})
    grammar = 'start: (NAME ";" | <|x|>)*\nother: "(" NAME ")" ";"\nNAME: /[a-z]+/ & ~"if"\nNL: /\\n/'
    automaton = oc.compile_grammar(
        grammar, vocabulary, dialect="extended", postlex=Semicolons(), start=("start", "other")
    )

    def accepts(*ids: int) -> bool:
        n, state = automaton.accept_tokens(automaton.initial_state, ids)
        return n == len(ids) and automaton.is_accepting(state)

    assert accepts(*b"iff\n", 257, *b"a;\n")
    assert accepts(*b"(a)\n")
    assert not accepts(*b"if\n")
    assert not accepts(*b"a;(a)\n")
