r"""The format ``regex``: a table, a corpus with V8's verdicts, and its combinations with other tests on strings."""

import itertools
import json
import re
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import outlines_core as oc
from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.formats import format_automaton
from outlines_core.json_schema.lexemes import Lexemes
from outlines_core.json_schema.nodes import Pattern
from outlines_core.json_schema.products import FormatRecognizer, ProductRecognizer
from outlines_core.json_schema.regex_grammar import Grammar
from outlines_core.json_schema.regex_syntax import RegexSyntax, n_chars
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.parser import parse, search
from tests.json_texts import json_vocabulary

CORPUS = Path(__file__).with_name("regex_syntax_corpus.json")  # written by tests/property/test_regex_syntax.py
REGEX = ("lazy", "regex")


@cache
def syntax():
    return RegexSyntax()


def run(automaton, text, state=None):
    state = automaton.start if state is None else state
    for byte in text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text:
        state = int(automaton.row(state)[byte])
        if state == 0:
            return 0
    return state


def matches(text):
    return syntax().matches(text.encode("utf-8", "surrogatepass"))


REGEXES = re.findall(
    r"\S+",
    r"""
a ^a|b$ (a(?:b)(?=c)(?!d)(?<=e)(?<!f)) | () (|)*? .+?x?? a{2}b{2,}?c{2,3} a{007,7} / ^$
a{99999999999999999998,99999999999999999999} ] } { a{ a{1 a{,3} x{1,2 x{2,1 {2,1 (?=a)* (?!a){2}
\1 \8 \1(a) \18 \x \x4 \u \u{110000} \c \- \_ \é \k \k< \k<a>(?<a>.) (?<a>.)\k<a> (?<\u0061>)\k<a>
(?<\u{61}>) (?<\ud835\udc9c>)\k<𝒜> (?<é$_1>) (?<𝒜>)
[] [^] [a-z-9] [\d-x] [a-\d] [\x61-\x62] [\7-\377] [--a] [\cA-\cZ] [\c1-a] [\c] [\b-\-] [\8] [\k]
[😀-😁] [\ud83d\ude00-\u{1f601}] [\u{61}-\u{62}] \u{61}{2} [\ud83d-\ude00] [\ud83d\-a]
\p{L}\P{Script=Greek}[\p{Lu}] \p{X} \p [😀-😁]\2()(a)
    """,
)
NEAR_MISSES = re.findall(
    r"\S+",
    r"""
( ) (a a) (? (?a) (?i:a) (?P<a>x) (?<>a) (?<1>) (?<a (?<a>)(?<a>) (?<a>)|(?<a>) (?<a>)(?<\u0061>) (?#a)
* +a ? a** a*?? ^* \b+ (?<=a)* (*) |* {1} a{2,1} a{10,9} a{010,9} a{2}{3}
a{99999999999999999999,99999999999999999998}
[ [a [b-a] [\x62-a] [\377-\376] [\cZ-\cA] [z-\c] [😁-😀] [\u{62}-\u{61}] [😀-😁][\d-x]
\ \a \Z [\e] \k<a>(?<b>) (?<a>)\k (?<a>)\k<a (?<a>)[\k] (?<a\u{110000}>) (?<\ud835>)
[😀-😁]\1 [😀-😁]\u [😀-😁]\p{X} [😀-😁]{ [😀-😁]\99999999999 [😀-😁]\2()
    """,
)


class TestLanguage:
    @pytest.mark.parametrize("text", ["", "\n", "\\\n", " ", "[\ud800-\udbff]", "\ud83d", "\0", *REGEXES])
    def test_regexes(self, text):
        assert matches(text)

    @pytest.mark.parametrize("text", ["[\udbff-\ud800]", "(?<\ud83d>)", *NEAR_MISSES])
    def test_near_misses(self, text):
        assert not matches(text)

    def test_corpus(self):
        wrong = [(text, bits) for text, bits in json.loads(CORPUS.read_text()) if matches(text) != bool(bits)]
        assert wrong == []

    def test_bytes_that_are_no_characters_are_dead(self):
        for raw in (b"\xff", b"\xc0\xaf", b"\xe0\x80\x80", b"\xf4\x90\x80\x80", b"\x80", b"a\xed\xa0\xbd\xed\xb8\x80"):
            for before in (b"", b"[", b"[a-", "[😀".encode(), b"[\\"):
                assert run(syntax(), before + raw) == 0
        assert run(syntax(), b"\xed\xa0\xbd\xed\xa0\xbd") != 0
        assert run(syntax(), b"\xed\xb8\x80\xed\xa0\xbd") != 0


class TestLife:
    @pytest.mark.parametrize(
        ("text", "rest"),
        [
            *[("", ""), ("(", ")"), ("((?:", "))"), ("[a-", "]"), ("(?", ":)"), ("(?<", "!)"), ("(?<a", ">)")],
            *[("\\", "d"), (r"\k<a", ""), (r"[😀-😁]\2", "()()"), (r"[😀-😁]\2(", ")()")],
            *[(r"(?<a>)\k<b", ">(?<b>)"), (r"(?<a>)\k<", "a>"), (r"(?<a>)\k<bc>(", "?<bc>)")],
            *[
                (r"[😀-😁]a{12,1", "2}"),
                (r"[😀-😁]a{12,2", "0}"),
                (r"[😀-😁]a{12,0", "12}"),
                (r"[😀-😁]\p{Scri", "pt=Yi}"),
            ],
            *[("[\U0010ffff-\\", "d]"), (r"[\u{10ffff}-", "]"), ("[\uffff-\\", "d]"), (r"[\377-\x", "ff]")],
            *[(r"(?<\u", "{24}>)"), ("(?<a>)(?<", "!)"), ("(?<a>)(?<a", "a>)")],
        ],
    )
    def test_shortest_completions(self, text, rest):
        state = run(syntax(), text)
        found = syntax().witness(state)
        assert matches(text + found.decode())
        assert syntax().need(state) == n_chars(found) == len(rest)
        assert matches(text + rest)

    @pytest.mark.parametrize(
        "text",
        [
            *["[b-a", "(?<a>)(?<a>", "a{2,1}", "*", ")", r"\a", r"(?<a>)\kx", "(?i", "(?<-"],
            *[r"[\u{1f600}-\ud83c", r"[\u{10ffff}-\x", r"[\u{1f601}-\ud83d\ude00"],  # no character behind it fits
            *[r"(?<\u{d80", r"(?<\u{10fff", r"(?<\ud835\u0", r"\p{Gre", r"\u{110000", r"\32768"],
        ],
    )
    def test_what_cannot_be_completed_is_dead(self, text):
        strict = Grammar("u")
        assert run(strict, text[:-1]) != 0
        assert run(strict, text) == 0

    def test_unfinished_escapes_that_fit(self):
        for text in (
            r"[\u{1f600}-\u{1f",
            r"[\u{1f600}-\ud83d",
            "[\U0010fffe-\\u{10fffe",
            r"(?<\u{d8",
            r"(?<\ud835\udc",
        ):
            assert run(syntax(), text) != 0

    def test_states_are_shared(self):
        def same(*texts):
            return len({run(syntax(), text) for text in texts}) == 1

        assert same("a", "ab", r"\d", "x*y", "[a-z]", "é", r"\.")
        assert same("(a", "(?=c)(d")
        assert not same("(a", "(?:b")  # the one may go on with \1, the other may not
        assert same("(?:a", "(?:bc", "(?:a(?:b)c")
        assert same("[a-", "[x-za-")
        assert same(r"[\x61", "[a")
        assert same(r"(?<b>)a\k<b>x", r"(?<\u0062>)x")

    def test_limits(self):
        small = RegexSyntax(Limits(max_states=400))
        with pytest.raises(LimitExceededError, match="max_states"):
            run(small, "(?<abc>(((((")
        assert small.matches(b"a*")
        assert Grammar("u").nbytes > 0

    def test_deep_nesting(self):
        n = 300
        state = run(syntax(), "(?:" * n)
        assert syntax().witness(state) == b")" * n

    def test_it_is_built_at_once(self):
        began = time.perf_counter()
        for _ in range(10):
            format_automaton("regex")
        assert time.perf_counter() - began < 0.1


# -- with other tests --------------------------------------------------------------------------------------------------


def recognizer(tests, cubes):
    lexemes = Lexemes(DEFAULT_LIMITS)
    patterns = {test[1] for test in tests if test[0] == "re"}
    lexemes.add_patterns(Pattern(source, search(parse(source, dialect="ecma"))) for source in patterns)
    return lexemes.strings(tests, cubes)


def passes(test, text):
    match test:
        case ("lazy", name):
            return matches(text) if name == "regex" else format_automaton(name).matches(text.encode())
        case ("len", low, high):
            return low <= len(text) and (high is None or len(text) <= high)
        case ("str", texts):
            return text in texts
        case ("re", "^[^*]*$"):
            return "*" not in text
    raise AssertionError(test)


@pytest.mark.parametrize(
    ("tests", "cubes"),
    [
        ((REGEX, ("len", 0, 4)), ((0b11, 0b11),)),
        ((REGEX, ("len", 3, 4)), ((0b11, 0b11),)),
        ((("len", 2, 4), REGEX), ((0b11, 0b01),)),
        ((REGEX, ("len", 0, 2), ("len", 4, 4)), ((0b011, 0b011), (0b101, 0b101))),
        ((REGEX, ("len", 2, 3), ("len", 0, 4)), ((0b111, 0b101),)),
        ((REGEX, ("len", 0, 4), ("re", "^[^*]*$")), ((0b111, 0b111),)),
        ((REGEX, ("len", 0, 3), ("re", "^[^*]*$")), ((0b111, 0b110),)),
        ((REGEX, ("str", frozenset({"(a)", "(a", "[a]*", "*", ""}))), ((0b11, 0b11),)),
        ((REGEX, ("str", frozenset({"(a)", "(a", "[a]*", "*", ""}))), ((0b11, 0b10),)),
        ((REGEX, ("str", frozenset({"a", "()", ""})), ("len", 0, 2)), ((0b111, 0b101),)),
        ((REGEX, ("lazy", "hostname"), ("len", 0, 3)), ((0b110, 0b110), (0b101, 0b101))),
    ],
)
def test_products_by_all_short_strings(tests, cubes):
    """Alive is what some string continues; and what ends is good exactly if a cube says so."""
    alphabet = "([)]*a"
    found = recognizer(tests, cubes)
    assert isinstance(found, ProductRecognizer)
    n = 4
    good, texts = {}, ["".join(chars) for k in range(n + 1) for chars in itertools.product(alphabet, repeat=k)]
    for text in texts:
        outcome = sum(1 << bit for bit, test in enumerate(tests) if passes(test, text))
        good[text] = outcome if any(outcome & care == value for care, value in cubes) else -1
    alive = {text[:k] for text in texts if good[text] >= 0 for k in range(len(text) + 1)}
    states = {"": found.start}
    for text in texts:
        if text:
            before = states[text[:-1]]
            states[text] = int(found.row(before)[ord(text[-1])]) if before else 0
        state = states[text]
        assert bool(state) == (text in alive), text
        if state:
            assert found.outcome(state) == good[text]
            rest = found.witness(state)
            shortest = min(len(other) for other in texts if other.startswith(text) and good[other] >= 0) - len(text)
            assert len(rest) == shortest
            assert found.outcome(run(found, rest, state)) >= 0


class TestProducts:
    def test_alone_it_is_the_automaton(self):
        alone = recognizer((REGEX,), ((1, 1),))
        assert isinstance(alone, FormatRecognizer)
        assert alone.distinct(3) == [b"", b"a", b"b"]
        texts = alone.distinct(300)
        assert len(set(texts)) == 300
        assert all(matches(text.decode("utf-8", "surrogatepass")) for text in texts)
        assert alone.outcome(run(alone, "a")) == 1
        assert alone.outcome(run(alone, "(")) == -1
        assert alone.nbytes > 0

    def test_what_is_no_regex_can_always_follow(self):
        found = recognizer((REGEX,), ((1, 0),))
        assert found.outcome(run(found, "(")) == 0
        assert found.outcome(run(found, "()")) == -1
        assert found.witness(run(found, r"a\\")) in (b"(", b"[", b")", b"\\")
        assert found.outcome(run(found, "[b-a].")) == 0

    def test_a_bound_on_the_length_is_a_matter_of_counting(self):
        found = recognizer((REGEX, ("len", 0, 200)), ((0b11, 0b11),))
        assert run(found, "(" * 100) != 0
        assert run(found, "(" * 101) == 0
        assert len(found.witness(run(found, "(" * 100))) == 100
        assert found.witness(run(found, "(" * 30)) == b")" * 30

    def test_more_than_a_length(self):
        found = recognizer((REGEX, ("len", 30, None)), ((0b11, 0b11),))
        assert n_chars(found.witness(found.start)) == 30
        assert len(set(found.distinct(50))) == 50

    def test_characters_are_counted_not_bytes(self):
        found = recognizer((REGEX, ("len", 3, 3)), ((0b11, 0b11),))
        assert found.outcome(run(found, "(😀)")) == -1 or found.outcome(run(found, "(😀)")) == 3
        assert run(found, "é😀一") != 0
        assert run(found, "é😀一a") == 0
        assert run(found, b"((\xc3") == 0
        assert run(found, b"(\xf0\x9f") != 0


VALUES = [
    ({"format": "regex"}, ['"a(b)"', '"\\\\d+"', '"\\ud83d"', '""'], ['"a(b"', '"\\\\"', '"[b-a]"']),
    ({"not": {"format": "regex"}}, ['"("', '"a**"'], ['"()"', '""']),
    ({"format": "regex", "pattern": r"^\^.*\$$"}, ['"^a$"', '"^(a)$"'], ['"a$"', '"^(a$"', '"^a"']),
    ({"format": "regex", "minLength": 3, "maxLength": 4}, ['"(a)"', '"abcd"'], ['"ab"', '"(ab"', '"abcde"']),
    ({"enum": ["(", "a", "[b-a]", "x{2}"], "format": "regex"}, ['"a"', '"x{2}"'], ['"("', '"[b-a]"']),
    ({"oneOf": [{"format": "regex"}, {"format": "hostname"}]}, ['"(a)"'], ['"a.b"', '"("']),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), VALUES)
def test_values(schema, valid, invalid):
    automaton = oc.compile_json_schema({"type": "string", **schema}, json_vocabulary())

    def accepts(text):
        state = automaton.initial_state
        for byte in text.encode():
            state = automaton.next_state(state, json_vocabulary().get(bytes([byte]))[0])
            if state == oc.DEAD:
                return False
        return automaton.is_accepting(state)

    assert [text for text in valid if not accepts(text)] == []
    assert [text for text in invalid if accepts(text)] == []


def test_names_of_properties():
    schema = {"type": "object", "propertyNames": {"format": "regex"}, "properties": {"(": {}, "a": {}}}
    automaton = oc.compile_json_schema(schema, json_vocabulary())
    state = automaton.initial_state
    for byte in b'{"(':
        state = automaton.next_state(state, json_vocabulary().get(bytes([byte]))[0])
    mask = np.asarray([automaton.next_state(state, json_vocabulary().get(bytes([byte]))[0]) != 0 for byte in b'")'])
    assert mask.tolist() == [False, True]
    with pytest.raises(oc.UnsatisfiableError):
        oc.compile_json_schema({"enum": ["(", "[b-a]"], "format": "regex"}, json_vocabulary())
