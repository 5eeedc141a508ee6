"""Parsed patterns against `re` itself: same refusals on any text, same matches on generated patterns.

Two generators: one composes patterns that mostly compile, one throws syntax fragments together so that most do not.
"""

from __future__ import annotations

import os
import re
import warnings

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outlines_core.errors import ConstraintSyntaxError, UnsupportedFeatureError
from outlines_core.regex.parser import parse
from tests.regex_oracle import matches

EXAMPLES = int(os.environ.get("REGEX_EXAMPLES", "400"))
budget = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

ALPHABET = "abAkKs1_ \n\u017f\u212aİiıßẞµμΜé\U00010400\U00010428"
FLAGS = [re.I, re.M, re.S, re.X, re.A]
flag_sets = st.lists(st.sampled_from(FLAGS), max_size=2).map(lambda chosen: int(sum(set(chosen))))

plain = st.sampled_from([c for c in ALPHABET if c != "\n"] + ["\\n", "\n", "#", "-", "]", "}", ",", "&", "~"])
ESCAPES = [r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\x61", r"\u017f", r"\U00010400", r"\N{KELVIN SIGN}"]
ESCAPES += [r"\101", r"\0", r"\07", r"\a", r"\\", r"\.", r"\-", r"\ "]
escapes = st.sampled_from(ESCAPES)
set_items = st.one_of(
    plain.filter(lambda c: c != "]"),
    escapes,
    st.sampled_from(["a-c", "A-z", "\u017e-\u0180", "\x00-\x7f", "\xb0-\U00010410", "é-ſ", "\\b", "[", "^", "1-9"]),
)
sets = st.builds(
    lambda negated, first, items: f"[{negated}{first}{''.join(items)}]",
    st.sampled_from(["", "^"]),
    st.sampled_from(["", "]", "-", "a"]),
    st.lists(set_items, min_size=1, max_size=4),
)
anchors = st.sampled_from([r"\A", r"\Z", r"\b", r"\B", "^", "$"])
atoms = st.one_of(plain, plain, escapes, sets, anchors, st.just("."), st.just("(?#note)"))
quantifiers = st.builds(
    str.__add__,
    st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{0}", "{2,}", "{0,1}"]),
    st.sampled_from(["", "", "?", "+"]),
)
groups = st.sampled_from(
    [
        "(",
        "(?:",
        "(?P<{}>",
        "(?>",
        "(?=",
        "(?!",
        "(?<=",
        "(?<!",
        "(?i:",
        "(?-i:",
        "(?a:",
        "(?u:",
        "(?s-i:",
        "(?m:",
        "(?x:",
    ]
)


def _compose(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.builds(lambda opening, body: f"{opening}{body})", groups, children)
    return st.one_of(
        st.lists(children, min_size=1, max_size=3).map("".join),
        st.lists(children, min_size=2, max_size=3).map("|".join),
        st.builds(str.__add__, st.one_of(group, atoms), quantifiers),
        group,
    )


composed = st.recursive(atoms, _compose, max_leaves=7)
global_flags = st.sampled_from(["", "", "", "(?i)", "(?s)", "(?m)", "(?x)", "(?a)", "(?ia)", "(?i)(?m)"])


@st.composite
def patterns(draw: st.DrawFn) -> str:
    pattern = draw(global_flags) + draw(composed)
    for name in ("x", "y", "z", "w", "v", "u"):
        pattern = pattern.replace("(?P<{}>", f"(?P<{name}>", 1)
    return pattern


texts = st.lists(st.text(ALPHABET, max_size=5), min_size=1, max_size=8)
FRAGMENTS = [*"ab01()|^$.*+?{[]-\\#:=!<>P,é \n"]
FRAGMENTS += ["(?:", "(?=", "(?<=", "(?<!", "(?!", "(?>", "(?P<n>", "(?P=n)", "(?(1)", "(?(n)", "(?#", "(?i)", "(?i-s:"]
FRAGMENTS += [
    "(?-i:",
    "(?x)",
    "(?u)",
    "(?L)",
    "(?t)",
    "{1}",
    "{1,2}",
    "{,2}",
    "{2,1}",
    "{,",
    "{}",
    "{a}",
    "[^",
    "a-z",
    "z-a",
]
FRAGMENTS += [
    r"\1",
    r"\2",
    r"\08",
    r"\8",
    r"\400",
    r"\x",
    r"\x6",
    r"\x61",
    r"\u",
    r"\u00e9",
    r"\N{DIGIT ONE}",
    r"\N{NOPE}",
]
FRAGMENTS += [r"\U0011ffff", r"\A", r"\Z", r"\z", r"\b", r"\B", r"\d", r"\q", r"\_", r"\é"]
fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)


def _compile(pattern: str, flags: int) -> re.Pattern[str] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "possible nested set", flag deprecations
        try:
            return re.compile(pattern, flags)
        except (re.error, ValueError, OverflowError):
            return None


def _check(pattern: str, flags: int, sample: list[str]) -> None:
    """Same refusal, and the same verdict on each text."""
    compiled = _compile(pattern, flags)
    if compiled is None:
        with pytest.raises(ConstraintSyntaxError):
            parse(pattern, flags=flags)
        return
    if re.search(r"\\[1-9]|\(\?P=|\(\?\(", pattern):
        try:
            node = parse(pattern, flags=flags)
        except UnsupportedFeatureError:
            return
    else:
        node = parse(pattern, flags=flags)
    for text in sample:
        expected = compiled.fullmatch(text) is not None
        assert matches(node, text) == expected, (pattern, flags, text, expected)


@budget
@given(patterns(), flag_sets, texts)
@example("(?:a|ab){2}+", 0, ["aba", "aa"])
@example("[\U00010400a]", int(re.I), ["\U00010400", "\U00010428", "A"])
@example("\U00010400|a", int(re.I), ["\U00010400", "\U00010428", "A"])
@example("[\u0100-\U00010000]", int(re.I | re.A), ["ÿ"])
@example(r"\B", 0, ["", " ", "a", "  "])
@example("a$\n?", 0, ["a", "a\n", "a\n\n"])
def test_matches_like_re(pattern: str, flags: int, sample: list[str]) -> None:
    """A composed pattern accepts exactly the texts that re.fullmatch accepts."""
    _check(pattern, flags, ["", *sample])


@budget
@given(fragments, flag_sets, texts)
def test_refuses_like_re(pattern: str, flags: int, sample: list[str]) -> None:
    """Thrown-together syntax is refused exactly where re.compile refuses it."""
    _check(pattern, flags, sample)
