"""The python dialect, construct by construct, and on the pattern collections of others."""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from pathlib import Path

import pytest

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError, UnsupportedFeatureError
from outlines_core.limits import Limits
from outlines_core.regex.ast import (
    Alternation,
    Atomic,
    Begin,
    CharSet,
    Concat,
    Empty,
    End,
    Literal,
    Look,
    Node,
    Repeat,
)
from outlines_core.regex.charset import ALL, complement, from_chars
from outlines_core.regex.parser import parse, simplify
from outlines_core.regex.simplify import width
from tests.regex_oracle import matches

CASES = Path(__file__).parents[4] / "shared" / "data" / "cases" / "regex.jsonl"

a, b = Literal("a"), Literal("b")
newline = Literal("\n")
dollar = Alternation((End(), Look(Concat((newline, End())), True, False)))
word = CharSet(from_chars("0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
before, not_before = Look(word, False, False), Look(word, False, True)
after, not_after = Look(word, True, False), Look(word, True, True)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", Empty()),
        ("abc", Literal("abc")),
        ("(a)(?:b)(?P<n>c)", Literal("abc")),
        ("a|b", Alternation((a, b))),
        ("a||b", Alternation((a, Empty(), b))),
        ("ab*", Concat((a, Repeat(b, 0, None)))),
        ("a+?", Repeat(a, 1, None, "lazy")),
        ("a{2,3}", Repeat(a, 2, 3)),
        ("a{,3}", Repeat(a, 0, 3)),
        ("a{2,}", Repeat(a, 2, None)),
        ("a{,}", Repeat(a, 0, None)),
        ("a{1}", a),
        ("a{}", Literal("a{}")),
        ("a{x", Literal("a{x")),
        ("a{1,x}", Literal("a{1,x}")),
        ("a*+", Atomic(Repeat(a, 0, None))),
        ("(?:a|bb)*+", Atomic(Repeat(Atomic(Alternation((a, Literal("bb")))), 0, None))),
        ("(?>a*)", Atomic(Repeat(a, 0, None))),
        ("(?>a)", a),
        (".", CharSet(complement(((10, 10),)))),
        ("(?s).", CharSet(ALL)),
        ("(?s:.)", CharSet(ALL)),
        ("^", Begin()),
        (r"\A\Z", Concat((Begin(), End()))),
        ("$", dollar),
        ("(?m)^", Alternation((Begin(), Look(newline, False, False)))),
        ("(?m)$", Alternation((End(), Look(newline, True, False)))),
        (r"(?a)\b", Alternation((Concat((before, not_after)), Concat((not_before, after))))),
        ("(?=a)", Look(a, True, False)),
        ("(?!a)", Look(a, True, True)),
        ("(?<=a)", Look(a, False, False)),
        ("(?<!a)", Look(a, False, True)),
        ("[ab]", CharSet(((97, 98),))),
        ("[a]", a),
        ("[]a]", CharSet(((93, 93), (97, 97)))),
        ("[^]]", CharSet(complement(((93, 93),)))),
        ("[a-]", CharSet(((45, 45), (97, 97)))),
        (r"[\]-a]", CharSet(((93, 97),))),
        (r"[\d-]", CharSet(((45, 45), (48, 57)))),
        ("[[a]", CharSet(((91, 91), (97, 97)))),
        (r"[^\s\S]", CharSet(())),
        (r"[\b]", Literal("\b")),
        (r"\x61\u0062\U00000063\N{LATIN SMALL LETTER D}", Literal("abcd")),
        (r"\0\07\101\377\08", Literal("\0\x07A\xff\x008")),
        (r"\.\-\ \é", Literal(".- é")),
        ("(?x) a b # c\n d", Literal("abd")),
        (r"(?x)[ #]\ ", Concat((CharSet(((32, 32), (35, 35))), Literal(" ")))),
        ("(?#note)a", a),
        ("(?i)a1", Concat((CharSet(((65, 65), (97, 97))), Literal("1")))),
        ("(?i:k)k", Concat((CharSet(from_chars("kK\u212a")), Literal("k")))),
        ("(?ia)k", CharSet(from_chars("kK"))),
        ("(?i)[^s]", CharSet(complement(from_chars("sS\u017f")))),
        ("(?i)(?-i:a)1", Literal("a1")),
        ("(?i)12", Literal("12")),
    ],
)
def test_ast(pattern: str, expected: Node) -> None:
    """One construct, one tree (spans take no part)."""
    flags = re.ASCII if r"[\d-]" in pattern else 0
    assert parse(pattern, flags=flags) == expected


def test_non_boundary_of_the_empty_text() -> None:
    r"""``\B`` does not match the empty text before Python 3.14."""
    assert matches(parse(r"\B"), "") == (sys.version_info >= (3, 14))


def test_spans() -> None:
    """Nodes know where they come from."""
    node = parse("ab(c|[de])+")
    assert isinstance(node, Concat)
    literal, loop = node.items
    assert literal.span == (0, 2)
    assert loop.span == (2, 11)
    assert isinstance(loop, Repeat)
    assert isinstance(loop.item, Alternation)
    assert [item.span for item in loop.item.items] == [(3, 4), (5, 9)]


@pytest.mark.parametrize(
    ("pattern", "offset"),
    [
        ("a+(b|c", 2),
        ("a)", 1),
        ("*a", 0),
        ("a**", 2),
        ("a* *", 3),
        ("^*", 1),
        ("[a", 0),
        ("[b-a]", 1),
        (r"[\d-x]", 1),
        (r"\q", 0),
        ("\\", 0),
        (r"\x6", 0),
        (r"\400", 0),
        (r"[\8]", 1),
        (r"\N{NOPE}", 0),
        ("a{2,1}", 1),
        ("a{4294967295}", 1),
        ("(?P<1>a)", 0),
        ("(?P<n>a)(?P<n>b)", 8),
        ("(?P=n)", 0),
        (r"\1", 1),
        (r"(a\1)", 2),
        ("(?<=a*)b", 0),
        ("a(?i)b", 1),
        ("(?L)a", 3),
        ("(?au)a", 4),
        ("(?", 2),
        ("(?z)", 1),
        ("(?#a", 0),
        ("(?(1)a|b)", 3),
        ("(a)(?(1)b|c|d)", 11),
    ],
)
def test_syntax_errors(pattern: str, offset: int) -> None:
    """What re refuses is refused, with the place."""
    flags = re.VERBOSE if " " in pattern else 0
    with pytest.raises((re.error, OverflowError)):
        re.compile(pattern, flags)
    with pytest.raises(ConstraintSyntaxError) as caught:
        parse(pattern, flags=flags)
    assert caught.value.source == pattern
    assert caught.value.offset == offset


@pytest.mark.parametrize("flags", [re.LOCALE, re.ASCII | re.UNICODE])
def test_bad_flags(flags: int) -> None:
    """Flags that re.compile refuses for str."""
    with pytest.raises(ConstraintSyntaxError):
        parse("a", flags=flags)


@pytest.mark.parametrize(
    ("pattern", "feature", "offset"),
    [
        (r"(a)\1", "back-reference", 3),
        ("(?P<n>a)(?P=n)", "back-reference", 8),
        ("(a)?(?(1)b|c)", "conditional group", 4),
        ("(?P<n>a)?(?(n)b)", "conditional group", 9),
    ],
)
def test_unsupported(pattern: str, feature: str, offset: int) -> None:
    """Well-formed but not regular."""
    with pytest.raises(UnsupportedFeatureError) as caught:
        parse(pattern)
    assert (caught.value.feature, caught.value.offset, caught.value.source) == (feature, offset, pattern)


def test_syntax_errors_come_before_unsupported() -> None:
    """re.compile refuses it, so it is a syntax error."""
    with pytest.raises(ConstraintSyntaxError):
        parse(r"(a)\1(")


def test_limits() -> None:
    """Too long, too deep."""
    with pytest.raises(LimitExceededError) as caught:
        parse("a" * 11, limits=Limits(max_pattern_length=10))
    assert (caught.value.given, caught.value.limit) == (11, 10)
    with pytest.raises(LimitExceededError):
        parse("(" * 201 + ")" * 201)


def test_deep_nesting_does_not_use_python_s_stack() -> None:
    """Far deeper than the default limit, parsed and simplified."""
    deep = "(?:" * 5000 + "^a*$" + "b|(c))*" * 5000
    node = parse(deep, limits=Limits(max_nesting=5001))
    assert width(node) == (0, None)
    assert width(simplify(node)) == (0, None)


def test_a_megabyte_of_choices_is_fast() -> None:
    """Ordinary characters are taken in runs."""
    words = [f"word{i:06}" for i in range(90_000)]
    start = time.perf_counter()
    node = parse("|".join(words))
    assert time.perf_counter() - start < 2  # 0.1 s on an idle machine
    assert isinstance(node, Alternation)
    assert len(node.items) == len(words)
    assert node.items[1] == Literal("word000001")
    assert node.items[1].span == (11, 21)


def test_look_behind_of_choices() -> None:
    """Look-behinds see the widths of long lists of choices too."""
    behind = Look(Alternation((Literal("ab"), Literal("cd"))), False, False)
    assert parse("(?<=ab|cd)x") == Concat((behind, Literal("x")))
    with pytest.raises(ConstraintSyntaxError):
        parse("(?<=a|cd)x")


def _same_as_re(pattern: str, texts: list[str]) -> bool:
    """Compare refusal and matches with re; False if it was refused as unsupported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compiled = re.compile(pattern)
        except (re.error, OverflowError, ValueError):
            with pytest.raises(ConstraintSyntaxError):
                parse(pattern)
            return True
    try:
        node = parse(pattern)
    except UnsupportedFeatureError:
        return False
    for text in texts:
        expected = compiled.fullmatch(text) is not None
        assert matches(node, text) == expected, (pattern, text)
        assert matches(simplify(node), text) == expected, (pattern, text)
    return True


def test_cpython_regex_table() -> None:
    """CPython's own table of regexes, as whole-text matches."""
    re_tests = pytest.importorskip("test.re_tests")
    n_supported = 0
    for entry in re_tests.tests:
        pattern, text = entry[0], entry[1]
        if isinstance(pattern, str):
            pieces = {text[i:j] for i in range(len(text)) for j in range(i, min(len(text), i + 12) + 1)}
            n_supported += _same_as_re(pattern, [text, *sorted(pieces)][:200])
    assert n_supported > 300


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not in this checkout")
def test_shared_cases() -> None:
    """Patterns collected from other projects."""
    n_supported = 0
    for line in CASES.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        texts = [text for text in [*case.get("accept", []), *case.get("reject", [])] if len(text) < 200]
        n_supported += _same_as_re(case["grammar"], texts)
    assert n_supported > 90
