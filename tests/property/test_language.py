"""Set algebra against sets, and against interegular's automata."""

from __future__ import annotations

import itertools
import re

import interegular
import pytest
from hypothesis import given, reject, settings
from interegular.patterns import InvalidSyntax, Unsupported

import outlines_core as oc
from outlines_core.regex.ast import CharSet, Complement, Concat, Intersection, Literal, Node, Repeat
from outlines_core.regex.nfa import ANY
from tests.strategies import patterns, scaled

TEXTS = ["".join(w) for n in range(5) for w in itertools.product("ab\n", repeat=n)]


def members(pattern: str) -> set[str]:
    return {text for text in TEXTS if re.fullmatch(pattern, text)}


def parsed(pattern: str) -> oc.Language:
    try:
        language = oc.Language.parse(pattern)
        language.is_empty()
    except oc.UnsupportedFeatureError:
        reject()
    return language


@settings(max_examples=scaled(200))
@given(patterns(), patterns())
def test_operations_are_those_of_sets(first: str, second: str) -> None:
    a, b = parsed(first), parsed(second)
    set_a, set_b = members(first), members(second)
    for language, expected in (
        (a & b, set_a & set_b),
        (a | b, set_a | set_b),
        (a - b, set_a - set_b),
        (~a, set(TEXTS) - set_a),
        (~(a | b) & ~(a - b), set(TEXTS) - (set_a | set_b)),
    ):
        assert {text for text in TEXTS if language.matches(text)} == expected
        witness = language.witness()
        assert (witness is None) == language.is_empty()
        if expected:
            assert witness is not None
            assert len(witness.encode()) <= min(len(text) for text in expected)
        if witness is not None:
            assert language.matches(witness)
    if set_a - set_b or set_b - set_a:
        assert not a.is_equivalent(b)
    assert a.is_equivalent(a & (a | b))


@settings(max_examples=scaled(150))
@given(patterns(looks=False))
def test_reversal_reads_members_backwards(pattern: str) -> None:
    language = parsed(pattern)
    backwards = language.reverse()
    expected = members(pattern)
    assert {text[::-1] for text in TEXTS if backwards.matches(text)} == expected
    assert backwards.reverse().is_equivalent(language)


@settings(max_examples=scaled(150))
@given(patterns(looks=False))
def test_interegular_agrees(pattern: str) -> None:
    if re.search(r"[\^$]|\\[bBAZWwd]|\(\?[mis=!]", pattern):
        reject()  # anchors, flags: its language differs or it refuses
    try:
        fsm = interegular.parse_pattern(pattern).to_fsm().reduce()
    except (Unsupported, InvalidSyntax):
        reject()
    for text in TEXTS:
        assert oc.Language.parse(pattern).matches(text) == fsm.accepts(text)
    vocabulary = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)} | {b"ab": [300], b"a\n": [301]})
    try:
        ours: oc.Index | None = oc.Index(pattern, vocabulary)
    except oc.UnsatisfiableError:
        ours = None
    try:
        theirs: oc.Index | None = oc.Index.from_fsm(fsm, vocabulary)
    except oc.UnsatisfiableError:
        theirs = None
    assert (ours is None) == (theirs is None)
    if ours is None or theirs is None:
        return
    pairs = {(ours.initial_state, theirs.initial_state)}
    queue = list(pairs)
    while queue and len(pairs) < 60:
        a, b = queue.pop()
        allowed = ours.get_allowed_tokens(a)
        assert allowed == theirs.get_allowed_tokens(b)
        for token in allowed or ():
            pair = ours.next_state(a, token), theirs.next_state(b, token)
            if pair[0] != oc.FINISHED and pair not in pairs:
                pairs.add(pair)
                queue.append(pair)


def test_algebra_inside_a_pattern() -> None:
    """An intersection or complement that something follows."""
    any_ = Repeat(CharSet(ANY), 0, None)
    no_ab: Node = Complement(Concat((any_, Literal("ab"), any_)))
    node = Concat((no_ab, Literal("ab"), Intersection((Repeat(CharSet(((97, 98),)), 1, 3), Complement(Literal("b"))))))
    language = oc.Language(node)
    assert language.matches("baaabaa")
    assert not language.matches("éababab")
    assert language.matches("éaba")
    assert not language.matches("abb")
    assert language.witness() == "aba"


@pytest.mark.parametrize("counts", [(0, 3), (2, None), (1, 1)])
def test_repeats_and_concatenation(counts: tuple[int, int | None]) -> None:
    a = oc.Language.parse("ab?").repeat(*counts) + oc.Language.literal("c")
    most = "" if counts[1] is None else counts[1]
    regex = re.compile(f"(?:ab?){{{counts[0]},{most}}}c")
    for n in range(6):
        for text in map("".join, itertools.product("abc", repeat=n)):
            assert a.matches(text) == bool(regex.fullmatch(text))
    with pytest.raises(ValueError, match="cannot repeat"):
        a.repeat(3, 2)


def test_lone_surrogates_are_no_text() -> None:
    assert not oc.Language.parse(".").matches("\ud800")
    assert oc.Language.parse("\ud800").is_empty()
    assert oc.Language.parse("[\ud7ff-\ue000]").matches("\ud7ff")
