"""The extended dialect: & and ~ in terminals, special tokens, several starts; against lark and `re`."""

from __future__ import annotations

import copy
import itertools
import pickle
import random
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import lark
import numpy as np
import pytest
from lark.exceptions import LarkError

import outlines_core as oc
from outlines_core.control import PRIVATE
from outlines_core.grammar.dialect import pointer_offset, read_extended
from outlines_core.grammar_core import GrammarCore

BYTES = {bytes([b]): [b] for b in range(256)}
LEXERS = ("contextual", "basic", "dynamic", "dynamic_complete", "scannerless")
VOCABULARY = oc.Vocabulary(
    256,
    BYTES | {b"ab": [257], b"ba": [258], b"aab": [259], b"\xff\xfe": [260]},
    special_tokens={"<|eos|>": 256, "<|x|>": 261, "<|y|>": 262, "<think>": 263},
)


def extended(grammar: str, vocabulary: oc.Vocabulary = VOCABULARY, **options: Any) -> Any:
    return oc.compile_grammar(grammar, vocabulary, dialect="extended", **options)


def accepts(automaton: Any, tokens: Iterable[int]) -> bool:
    ids = list(tokens)
    n, state = automaton.accept_tokens(automaton.initial_state, ids)
    return n == len(ids) and automaton.is_accepting(state)


def texts(alphabet: str, most: int) -> list[str]:
    return ["".join(t) for n in range(most + 1) for t in itertools.product(alphabet, repeat=n)]


def parses(parser: lark.Lark, text: str, start: str | None = None) -> bool:
    try:
        parser.parse(text, start=start)
    except LarkError:
        return False
    return True


# -- & and ~ ----------------------------------------------------------------------------------------------------------


class Operand:
    """A random expression, as the dialect writes it and as a set of texts (by `re`)."""

    REGEXES = ("a", "a+", "[ab]+", "b*", ".", "..", "a?b", ".*b", "c[abc]*", "(?:ab)+", "a.*|b", "[^a]+", "a*?")

    def __init__(self, rng: random.Random, depth: int) -> None:
        kind = rng.choice("rs" if depth == 0 else "rs&&~~|.*")
        self.level = 4  # 4 atom, 3 with an operator behind or ~, 2 sequence, 1 &, 0 |
        if kind == "r":
            pattern = rng.choice(self.REGEXES)
            self.text, self.of = f"/{pattern}/", lambda t: re.fullmatch(pattern, t) is not None
        elif kind == "s":
            string = rng.choice(("a", "ab", "c"))
            self.text, self.of = f'"{string}"', lambda t: t == string
        else:
            x, y = Operand(rng, depth - 1), Operand(rng, depth - 1)
            if kind == "&":
                self.level, self.text = 1, f"{x.at(1)} & {y.at(2)}"
                self.of = lambda t: x.of(t) and y.of(t)
            elif kind == "~":
                self.level, self.text, self.of = 3, f"~{x.at(4)}", lambda t: not x.of(t)
            elif kind == "|":
                self.level, self.text, self.of = 0, f"{x.at(0)} | {y.at(1)}", lambda t: x.of(t) or y.of(t)
            elif kind == ".":
                self.level, self.text = 2, f"{x.at(2)} {y.at(3)}"
                self.of = lambda t: any(x.of(t[:k]) and y.of(t[k:]) for k in range(len(t) + 1))
            else:
                self.level, self.text = 3, f"{x.at(4)}~1..2"
                self.of = lambda t: x.of(t) or any(x.of(t[:k]) and x.of(t[k:]) for k in range(len(t) + 1))
        self.of = cache(self.of)

    def at(self, level: int) -> str:
        return self.text if self.level >= level else f"({self.text})"


SKELETONS = (
    "start: A",
    'start: A "a" | "ab"',
    "start: (A | C)*\nC: /c/",
    'start: "ab" A | A "b"\n%ignore "c"',
    'start: A A | "a" "b"\n%ignore " "',
)


@pytest.mark.parametrize("seed", range(40))
def test_boolean_terminals_are_their_language_longest_first(seed: int) -> None:
    rng = random.Random(seed)
    while True:
        operand = Operand(rng, 3)
        if ("&" in operand.text or "~(" in operand.text or "~/" in operand.text) and not operand.of(""):
            break
    skeleton, lexer = rng.choice(SKELETONS), rng.choice(LEXERS[:4])
    candidates = texts("abc ", 4) if '" "' in skeleton else texts("abc", 5)
    members = [t for t in candidates if operand.of(t)]
    # the same for lark: all its texts, the longest first, and before other terminals as there is no longest one
    spelled = "|".join(sorted(members, key=len, reverse=True)) or "(?!)x"
    plain = f"{skeleton}\nA: /{spelled}|z{{9,}}/"
    parser = lark.Lark(plain, parser="lalr" if lexer in LEXERS[:2] else "earley", lexer=lexer)
    grammar = f"{skeleton}\nA: {operand.text} | /z{{9,}}/" + ('\nA_: "z"' if seed % 2 else "")
    try:
        automaton = extended(grammar, lexer=lexer)
    except oc.UnsatisfiableError:
        assert not any(parses(parser, text) for text in candidates), grammar
        return
    for text in candidates:
        assert accepts(automaton, text.encode()) == parses(parser, text), (grammar, lexer, text)
    for text in texts("abc", 3):
        n, state = automaton.accept_tokens(automaton.initial_state, text.encode())
        if n == len(text):
            ending = automaton._core.dfa.shortest(state).decode()
            assert text + ending not in candidates or parses(parser, text + ending)


def test_a_terminal_of_boolean_terminals_is_one_too() -> None:
    automaton = extended(
        """
        start: LINE+
        LINE: WORD ("," WORD)* "\\n"   // not a Boolean by itself
        WORD: NAME & ~KEYWORD          # nor are these
        NAME: /[a-z]+/
        KEYWORD: "if" | "else"
        """
    )
    assert accepts(automaton, b"iff,a\nelse_"[:6])
    assert not accepts(automaton, b"a,if\n")
    assert not accepts(automaton, b"else\n")


def test_strings_in_its_language_are_their_own_terminals() -> None:
    grammar = 'start: "if" ID | ID "=" ID\nID: /[a-z]+/ & ~/x.*/\n%ignore " "'
    for lexer in ("contextual", "basic"):
        automaton = extended(grammar, lexer=lexer)
        plain = lark.Lark(grammar.replace("/[a-z]+/ & ~/x.*/", "/(?!x)[a-z]+/"), parser="lalr", lexer=lexer)
        for text in ("if", "if a", "iff = a", "a = if", "if = a", "ifa=b", "xa=b", "if if"):
            assert accepts(automaton, text.encode()) == parses(plain, text), (lexer, text)


def test_operators_bind_as_documented() -> None:
    def members(definition: str) -> set[str]:
        automaton = extended(f'start: T | "zz"\nT: {definition}')
        return {text for text in texts("abc", 3) if accepts(automaton, text.encode())}

    assert members("/[ab]+/ | /[cd]+/ & /[def]+/") == members("/[ab]+/")
    assert members("/a/ /b/ & /b/") == set()
    assert members('~"a" "b" & /../') == {"bb", "cb"}
    assert members('~("a"~2) & /a+/') == {"a", "aaa"}
    assert members('~"a"+ & /a+/') == set()
    assert members("~~/a/") == {"a"}
    assert members('"a".."b" & ~"a"') == {"b"}
    assert members("[/a/ & /./] /b/") == {"b", "ab"}


def test_boolean_terminals_on_several_lines_and_extended_ones() -> None:
    automaton = extended(
        """
        start: A
        A: /a+/ & ~/aa/   // not two
         | "b"
        %extend A: /c+/ & /../
        """
    )
    assert [t for t in texts("abc", 3) if accepts(automaton, t.encode())] == ["a", "b", "cc", "aaa"]


def test_terminals_that_are_too_large_are_refused() -> None:
    with pytest.raises(oc.LimitExceededError):
        extended("start: A\nA: ~/(.|\\n)*a.{30}/ & /[ab]+/")


# -- special tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lexer", LEXERS)
@pytest.mark.parametrize(
    "grammar",
    [
        'start: <|x|> A <|y|> "b"',
        'start: (<|x|> | "a" <|y|>)* A',
        "start: <|x|> start <|y|> | A?",
        "start: turn{<|x|>}+\nturn{t}: t A | <think> (A | B)*",
        "start: A <[261-262]> [B]",
        'start: A <|x|> (A <|y|>)?\n%ignore "b"',
    ],
)
def test_special_tokens_are_like_characters_of_their_own(lexer: str, grammar: str) -> None:
    grammar += "\nA: /a+/\nB: /b/"
    plain = grammar.replace("<[261-262]>", '("X"|"Y")')
    plain = re.sub(r"<\|?(x|y|think)\|?>", lambda m: f'"{m[1][0].upper()}"', plain)
    lalr = lexer in LEXERS[:2]
    parser = lark.Lark(
        plain, parser="lalr" if lalr else "earley", lexer="dynamic_complete" if lexer == "scannerless" else lexer
    )
    automaton = extended(grammar, lexer=lexer)
    ids = {"a": 97, "b": 98, "X": 261, "Y": 262, "T": 263}
    language = {text for text in texts("abXYT", 5) if parses(parser, text)}
    for text in texts("abXYT", 5):
        assert accepts(automaton, [ids[c] for c in text]) == (text in language), text
    known: dict[str, int] = {"": automaton.initial_state}
    tokens = {i: c for c, i in ids.items()} | {257: "ab", 258: "ba", 259: "aab"}
    for text in sorted({t[:k] for t in language for k in range(3)}, key=len):
        state = known[text] = automaton.accept_tokens(automaton.initial_state, [ids[c] for c in text])[1]
        allowed = set(automaton.allowed_tokens(state).tolist())
        certain = {i for i, piece in tokens.items() if any(t.startswith(text + piece) for t in language)}
        assert certain <= allowed, text
        assert allowed - {256} <= set(tokens) | {ord(" ")}
        assert (256 in allowed) == (text in language)
        assert (automaton.min_tokens_to_accept(state) == 0) == (text in language)


def test_special_tokens_say_their_names() -> None:
    automaton = extended('start: <|x|> "hi" <|y|> "a"')
    assert isinstance(automaton._core, GrammarCore) or automaton._core.codes
    start = automaton.initial_state
    assert automaton.forced_bytes(start) == b""
    assert automaton.forced_tokens(start) == [261, ord("h"), ord("i"), 262, ord("a")]
    assert automaton.min_tokens_to_accept(start) == 5
    assert "<|x|>hi<|y|>a" in automaton.explain(start)
    assert "next special token: <|x|>" in automaton.explain(start)
    state = automaton.next_state(start, 261)
    assert automaton.forced_bytes(state) == b"hi"
    assert not any(byte in PRIVATE for byte in automaton.explain(state).encode())
    assert automaton.vocabulary == VOCABULARY
    assert automaton.vocabulary.token_bytes(261) == b""


def test_tokens_of_bytes_that_no_text_has_stay_forbidden() -> None:
    automaton = extended('start: <|x|> /(.|\\n)+/s "a"', lexer="scannerless")
    state = automaton.next_state(automaton.initial_state, 261)
    allowed = set(automaton.allowed_tokens(state).tolist())
    assert not allowed & {*PRIVATE, 260, 261, 262, 263, 256}
    assert {0, 97, 0xC3, 257} <= allowed


def test_more_special_tokens_than_private_bytes() -> None:
    names = {f"<|{k}|>": 300 + k for k in range(40)}
    vocabulary = oc.Vocabulary(256, BYTES, special_tokens=names)
    alternatives = " | ".join(f'{name} "{k}"' for k, name in enumerate(names))
    grammar = f"start: ({alternatives})+"
    automaton = extended(grammar, vocabulary)
    assert automaton.allowed_tokens(automaton.initial_state).tolist() == [*names.values()]
    state = automaton.next_state(automaton.initial_state, 317)
    assert automaton.forced_tokens(state) == [ord("1"), ord("7")]
    assert "<|17|>" in automaton.explain(automaton.initial_state)
    assert automaton.min_tokens_to_accept(automaton.initial_state) == 2


def test_equal_grammars_with_other_special_ids_are_not_confused() -> None:
    for number in (300, 301):
        vocabulary = oc.Vocabulary(256, BYTES, special_tokens={"<|a|>": number}, size=400)
        automaton = extended('start: <|a|> "x"', vocabulary)
        assert automaton.allowed_tokens(automaton.initial_state).tolist() == [number]
        for twin in (pickle.loads(pickle.dumps(automaton)), copy.deepcopy(automaton)):
            assert twin.allowed_tokens(twin.initial_state).tolist() == [number]
        mask = np.zeros(13, dtype=np.int32)
        automaton.fill_mask(automaton.initial_state, mask)
        assert mask.view(np.uint32)[number >> 5] == 1 << (number & 31)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grammar", "message", "place"),
    [
        ("start: <|z|>", "no special token <|z|>", (1, 8)),
        ("start: <[97]>", "id 97 is a token of text", (1, 8)),
        ("start: <[400]>", "id 400 is no token", (1, 8)),
        ("start: A\nA: <|x|>", "can only stand in a rule", (2, 4)),
        ("start: A\nA: /a/\n%ignore <|x|>", "can only stand in a rule", (3, 9)),
        ("start: A\nA: & /x/", "nothing before &", (2, 4)),
        ("start: A\nA: /x/ & | /y/", "nothing behind &", (2, 8)),
        ("start: A\nA: /x/ ~", "nothing behind ~", (2, 8)),
        ("start: A\nA: ~/x/ & /y*/\nB: (", "Expecting a value", (3, 5)),
        ("start: A ;\nA: ~/x/ & /y*/", "line 1 column 10", (1, 10)),
        ("start: <|x|> A ;\nA: /x/", "line 1 column 16", (1, 16)),
        ("start: A & B", "line 1 column 10", (1, 10)),
        ("start: A\nA: ~/x/ & (/y/", "Unexpected token", (2, 15)),
    ],
)
def test_errors_have_the_place_in_the_users_text(grammar: str, message: str, place: tuple[int, int]) -> None:
    with pytest.raises(oc.ConstraintSyntaxError, match=re.escape(message)) as caught:
        extended(grammar)
    error = caught.value
    assert error.source == grammar
    assert oc.errors.line_and_column(error.source, error.offset) == place


@pytest.mark.parametrize(
    ("grammar", "feature"),
    [
        ("start: <|eos|>", "EOS token in a grammar"),
        ("start: <|x|> | <[261]>", "overlapping special tokens"),
        ('start: "\ufdd0"', "noncharacter"),
        ("start: A\nA: /\\ufdd2/", "noncharacter"),
        ("start: A\nA: /(a)\\1/ & /b/", "back-reference"),
    ],
)
def test_what_is_not_defined_is_refused_by_name(grammar: str, feature: str) -> None:
    with pytest.raises(oc.UnsupportedFeatureError) as caught:
        extended(grammar)
    assert caught.value.feature == feature


@pytest.mark.parametrize("grammar", ["start: <|x|>", "start: A\nA: /a/ & /b/", "start: A\nA: ~/a/", "start: %json {}"])
def test_larks_own_dialect_has_none_of_it(grammar: str) -> None:
    with pytest.raises(oc.ConstraintSyntaxError):
        oc.compile_grammar(grammar, VOCABULARY)


@pytest.mark.parametrize("lexer", LEXERS)
def test_larks_own_dialect_has_all_characters(lexer: str) -> None:
    """Also those that stand for the extras in the extended one."""
    for text in ("\ufdd0", "\ufdd0a\ufdd1b\ufdd3", "\ufdd2"):
        automaton = oc.compile_grammar(f'start: "{text}"', VOCABULARY, lexer=lexer)
        assert accepts(automaton, text.encode())
        assert not accepts(automaton, b"a")


def test_terminals_that_may_be_empty_are_refused_as_lark_does() -> None:
    with pytest.raises(oc.ConstraintSyntaxError, match="zero-width"):
        extended("start: A\nA: ~/x/")


def test_the_scan_knows_strings_regexes_and_comments() -> None:
    grammar = 'start: "<|x|> & ~" /<|x|> & %json/ A~2..3 // <|z|> & ~\nA: "a"~2 # ~ & <|q|>\n'
    read = read_extended(grammar)
    assert (read.tokens, read.schemas) == ({}, {})
    assert read.text == grammar


def test_plain_grammars_mean_the_same_in_both_dialects() -> None:
    grammar = 'start: a{"x"}~1..2 B?\na{y}: y | "d"\nB: /b+/ ("c"~2)?\n%ignore /[ ]/ // ignored\n'
    one, other = extended(grammar), oc.compile_grammar(grammar, VOCABULARY)
    for text in texts("xbcd ", 4):
        assert accepts(one, text.encode()) == accepts(other, text.encode())


def test_pointers_into_a_schema() -> None:
    source = 'x %json { "a" : [1, {"b/c": 2}], "d~": {} }'
    at = source.index("{")
    assert source[pointer_offset(source, at, "/a/1/b~1c")] == "2"
    assert source[pointer_offset(source, at, "/d~0") :] == "{} }"
    assert pointer_offset(source, at, "/zz") == at
