r"""The Rust dialect, on facts that Rust's regex 1 was asked for (tests/peers/rust_regex.py does it again)."""

from __future__ import annotations

import pytest

import outlines_core as oc
from outlines_core.regex.language import Language
from outlines_core.regex.rust_classes import unicode_property

MATCHES = [
    # pattern, texts it matches as a whole, texts it does not
    ("a|ab", ["a", "ab"], ["b", "abb"]),
    ("ab$", ["ab"], ["ab\n"]),
    (r"^a\z", ["a"], ["a\n"]),
    (r"\Aa$", ["a"], ["aa"]),
    (r"[[:alpha:]]+", ["aZ"], ["é", "1"]),
    (r"[[:^alpha:]]", ["1", "é"], ["a"]),
    (r"[:alpha:]", ["a", ":", "h"], ["b"]),
    (r"[a-f&&[^bd]]", ["a", "c"], ["b", "d", "g"]),
    (r"[\w--\d]", ["a", "_", "é"], ["1", "-"]),
    (r"[a-c~~b-d]", ["a", "d"], ["b", "c"]),
    (r"[a&&b]|c", ["c"], ["a", "b"]),
    (r"[&&a]|b", ["b"], ["a", "&"]),
    (r"[a&b]", ["a", "&", "b"], ["&&"]),
    (r"[]a]", ["]", "a"], ["b"]),
    (r"[^]a]", ["b"], ["]", "a"]),
    (r"[---]", ["-"], ["a"]),
    (r"[a-c-]", ["a", "-"], ["d"]),
    (r"[[a]b]", ["a", "b"], ["["]),
    (r"\p{Greek}\p{Lu}\pN", ["αA1", "ΣЖ٣"], ["aA1"]),
    (r"\p{sc=Grek}|\p{scx:Latin}", ["α", "a"], ["Ж"]),
    (r"\P{sc!=Greek}", ["α"], ["a"]),
    (r"\p{is_lu}\p{ Uppercase Letter }", ["AB"], ["aB"]),
    (r"\p{any}\p{ASCII}\p{assigned}", ["éaé"], ["aéa"]),
    (r"(?i)\p{Lu}[[:upper:]]", ["ab", "AB"], ["1b"]),
    (r"(?i)[^a]", ["b"], ["a", "A"]),
    (r"(?i)k[s]", ["ks", "Ks", "kſ"], ["k"]),
    (r"\x41\x{1F600}\u0042\u{43}\U00000044", ["A😀BCD"], ["A"]),
    (r"\a\f\t\n\r\v", ["\x07\x0c\t\n\r\x0b"], [""]),
    (r"\ \-\#\&\~\/\"\@", [' -#&~/"@'], [""]),
    (r"a**?+", ["", "aa"], ["b"]),
    (r"a{2}{1,2}", ["aa", "aaaa"], ["a", "aaa"]),
    (r"a{ 1 , 2 }", ["a", "aa"], [""]),
    (r"^*a", ["a"], [""]),
    (r"]}", ["]}"], [""]),
    (r"(?x) a b # c" + "\n" + r"[ c d ]\ ", ["abc "], ["ab c"]),
    (r"a(?i)b|c", ["ab", "aB", "C"], ["Ab"]),
    (r"(a(?i)b)c", ["aBc"], ["aBC"]),
    (r"(?U)a*(?P<x>b)(?<y>c)", ["abc"], ["a"]),
    (r"(?m)^a$\n^b$", ["a\nb"], ["ab"]),
    (r"(?mR)a$\r\n^b", ["a\r\nb"], ["a\rb"]),
    (r"(?R).", ["a"], ["\r", "\n"]),
    (r"(?s).", ["\n"], [""]),
    (r"\b{start}\w+\b{end}", ["foo"], ["-"]),
    (r"\<a\> b", ["a b"], ["a"]),
    (r"\B", [""], ["a"]),
    (r"(?-u)\w+\d\s", ["ab1 "], ["é1 "]),
    (r"(?i-u)[k]", ["k", "K"], ["\u212a"]),
    (r"\d\w\s", ["٣é\u2003", "1_ "], ["aa "]),
    (r"\w", ["\u200d", "\u0301"], ["-"]),
    (r"\s", ["\x85", "\xa0"], ["\x1c"]),
]
REFUSED = [
    # pattern, offset, a word of the message
    ("a(", 1, "unclosed group"),
    ("a)", 1, "unopened group"),
    ("*a", 0, "missing expression"),
    ("(?i)*", 4, "missing expression"),
    ("a{2,1}", 1, "range"),
    ("a{", 1, "decimal"),
    ("a{1", 1, "unclosed"),
    ("[a", 0, "unclosed"),
    ("[]", 0, "unclosed"),
    ("[z-a]", 1, "range"),
    (r"[a-\d]", 1, "boundary"),
    (r"\q", 0, "unrecognized escape"),
    (r"a\Z", 1, r"write \\z"),
    (r"\é", 0, "unrecognized escape"),
    (r"\x{D800}", 0, "scalar"),
    (r"\x4", 0, "hexadecimal"),
    (r"\p{nope}", 0, "property"),
    ("(?P<a>b)(?P<a>c)", 8, "duplicate"),
    ("(?P<1>a)", 4, "name"),
    ("(?ii)", 3, "duplicate flag"),
    ("(?>a)", 2, "flag"),
    (r"(a)\1", 3, "back-reference"),
    (r"(?P=a)", 0, "back-reference"),
    (r"(?-u).", 5, "no UTF-8"),
    (r"(?-u)\xFF", 5, "no UTF-8"),
    (r"(?-u)[^a]", 5, "no UTF-8"),
    (r"\p{age=6.0}", 0, "not in our tables"),
]


@pytest.mark.parametrize(("pattern", "members", "others"), MATCHES)
def test_what_a_pattern_means(pattern, members, others):
    language = Language.parse(pattern, dialect="rust")
    assert [text for text in members if not language.matches(text)] == []
    assert [text for text in others if language.matches(text)] == []


@pytest.mark.parametrize(("pattern", "offset", "word"), REFUSED)
def test_what_is_refused_and_where(pattern, offset, word):
    with pytest.raises((oc.ConstraintSyntaxError, oc.UnsupportedFeatureError), match=word) as caught:
        Language.parse(pattern, dialect="rust")
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("pattern", "members", "others"),
    [("(?=ab)a.", ["ab"], ["ac"]), ("(?!ab)a.", ["ac"], ["ab"]), (r"a(?<=a)b(?<!ac)", ["ab"], ["ac"])],
)
def test_look_around_is_understood_besides(pattern, members, others):
    language = Language.parse(pattern, dialect="rust")
    assert all(map(language.matches, members))
    assert not any(map(language.matches, others))


def test_properties_by_loose_names():
    assert unicode_property("Alphabetic") == unicode_property("is_alphabetic")
    assert unicode_property("gc", "lu") == unicode_property("Lu") == unicode_property("uppercase-letter")
    assert unicode_property("nope") is unicode_property("gc", "nope") is unicode_property("nope", "Lu") is None


def test_an_index_reads_rust():
    vocabulary = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)})
    index = oc.Index(r"[[:digit:]--[0]]\z", vocabulary)
    assert index.get_allowed_tokens(index.get_initial_state()) == list(b"123456789")
    with pytest.raises(ValueError, match="Failed to build DFA: unclosed group"):
        oc.Index("a(", vocabulary)
    assert oc.Index("a$", vocabulary, dialect="python") != oc.Index("a$", vocabulary)
    with pytest.raises(ValueError, match="dialect must be"):
        oc.Index("a", vocabulary, dialect="posix")
