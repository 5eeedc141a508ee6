"""String recognizers against brute force: every text up to some length, judged by the readable regex oracle.

What a state says is compared byte by byte: a live prefix must have a good completion (its witness is checked, and is
no longer than the shortest one that brute force finds), a dead one must have none.
"""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from outlines_core.errors import LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.strings import Length, Matches, OneOf, StringRecognizer, StringTest
from outlines_core.regex.ast import Complement, Intersection, Repeat
from outlines_core.regex.parser import parse, search
from tests.regex_oracle import matches
from tests.strategies import patterns, scaled

HIGH, LOW = "\ud800", "\udc00"
LETTERS = st.sampled_from(["abé", "ab€", f"a{HIGH}b", f"a{HIGH}{LOW}", f"é{LOW}a", "a\U0001f600\n", f"ab{LOW}"])
LONGEST = 4


def texts_over(letters: str) -> list[str]:
    """All texts of up to LONGEST letters; a high surrogate before a low one would be one character."""
    words = ("".join(word) for n in range(LONGEST + 1) for word in itertools.product(letters, repeat=n))
    return [word for word in words if HIGH + LOW not in word]


def encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def passes(test: StringTest, text: str) -> bool:
    match test:
        case Matches(node):
            return matches(node, text)
        case Length(low, high):
            return low <= len(text) and (high is None or len(text) <= high)
        case OneOf(values):
            return text in values


def outcome_of(tests: tuple[StringTest, ...], text: str) -> int:
    return sum(passes(test, text) << j for j, test in enumerate(tests))


def is_good(outcome: int, cubes: tuple[tuple[int, int], ...]) -> bool:
    return any(outcome & care == value for care, value in cubes)


def _node(pattern: str, unanchored: bool) -> object:
    try:
        node = parse(pattern)
        return search(node) if unanchored else node
    except UnsupportedFeatureError:
        reject()


def string_tests(letters: str, *, looks: bool) -> st.SearchStrategy[StringTest]:
    special = st.sampled_from(["[^a]", ".*", f"[{HIGH}-{LOW}]*", "[^b]{2,3}", r"\W+", "(?s:.)*a", f"a{LOW}|b", LOW])
    pattern = st.one_of(patterns(looks=looks), special)
    matching = st.builds(_node, pattern, st.booleans())
    lengths = st.builds(Length, st.integers(0, 4), st.one_of(st.none(), st.integers(0, 5)))
    word = st.text(alphabet=letters, max_size=3).filter(lambda text: HIGH + LOW not in text)
    listed = st.frozensets(word, max_size=6).map(OneOf)
    simple = st.one_of(matching.map(Matches), matching.map(Matches), lengths, listed)
    if not looks:
        return simple
    combined = st.one_of(
        matching.map(Complement),
        st.tuples(matching, matching).map(Intersection),
        matching.map(lambda n: Repeat(n, 0, 2)),
    )
    return st.one_of(simple, combined.map(Matches))


@st.composite
def goals(draw: st.DrawFn, *, looks: bool) -> tuple[str, tuple[StringTest, ...], tuple[tuple[int, int], ...]]:
    letters = draw(LETTERS)
    tests = tuple(draw(st.lists(string_tests(letters, looks=looks), max_size=3)))
    bits = (1 << len(tests)) - 1
    cube = st.integers(0, bits).flatmap(lambda care: st.integers(0, bits).map(lambda value: (care, value & care)))
    return letters, tests, tuple(draw(st.lists(cube, min_size=1, max_size=3)))


def check(
    recognizer: StringRecognizer, letters: str, tests: tuple[StringTest, ...], cubes: tuple[tuple[int, int], ...]
):
    shortest: dict[bytes, int] = {}  # by live prefix: characters of the shortest good completion
    good: dict[bytes, int] = {}
    for text in texts_over(letters):
        outcome = outcome_of(tests, text)
        if not is_good(outcome, cubes):
            continue
        raw = encoded(text)
        good[raw] = outcome
        left = len(text)
        shortest[b""] = min(left, shortest.get(b"", left))
        for end, byte in enumerate(raw, start=1):
            left -= (byte & 0xC0) != 0x80
            shortest[raw[:end]] = min(left, shortest.get(raw[:end], left))
    rows: dict[int, np.ndarray] = {}
    visited: set[bytes] = set()
    for text in texts_over(letters):
        raw, state = encoded(text), recognizer.start
        for end in range(len(raw) + 1):
            prefix = raw[:end]
            if prefix not in visited:
                visited.add(prefix)
                assert state != 1
                assert recognizer.outcome(state) == good.get(prefix, -1), prefix
                if state == 0:
                    assert prefix not in shortest, prefix
                elif len(text) <= 2:
                    rest = recognizer.witness(state)
                    whole = (prefix + rest).decode(errors="surrogatepass")
                    assert whole.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") == whole
                    assert is_good(outcome_of(tests, whole), cubes), (prefix, rest)
                    assert sum((byte & 0xC0) != 0x80 for byte in rest) <= shortest.get(prefix, 99)
            if end < len(raw) and state:
                if state not in rows:
                    rows[state] = recognizer.row(state)
                state = int(rows[state][raw[end]])
    found = recognizer.distinct(20)
    assert len(set(found)) == len(found)
    for raw in found:
        assert is_good(outcome_of(tests, raw.decode(errors="surrogatepass")), cubes)
    assert len(found) >= min(20, len(good))


@settings(max_examples=scaled(80), deadline=None)
@given(goals(looks=False))
def test_recognizers_agree_with_brute_force(goal) -> None:
    letters, tests, cubes = goal
    check(StringRecognizer(tests, cubes), letters, tests, cubes)


@settings(max_examples=scaled(40), deadline=None)
@given(goals(looks=True))
def test_recognizers_of_look_arounds_and_algebra_agree_with_brute_force(goal) -> None:
    letters, tests, cubes = goal
    try:
        recognizer = StringRecognizer(tests, cubes)
    except (UnsupportedFeatureError, LimitExceededError):
        reject()
    check(recognizer, letters, tests, cubes)


@settings(max_examples=scaled(40), deadline=None)
@given(goals(looks=False), st.sampled_from([b"ab", b"a\xc3\xa9", b"ab\xed\xa0\x80", b"\xf0\x9f\x98a"]))
def test_bytes_that_cannot_be_spelled_are_dead(goal, alphabet: bytes) -> None:
    letters, tests, cubes = goal
    usable = np.zeros(256, dtype=np.bool_)
    usable[list(alphabet)] = True
    recognizer = StringRecognizer(tests, cubes, alphabet=usable)
    spelled = [text for text in texts_over(letters) if set(encoded(text)) <= set(alphabet)]
    good = {encoded(text) for text in spelled if is_good(outcome_of(tests, text), cubes)}
    live = {raw[:end] for raw in good for end in range(len(raw) + 1)}
    for raw in {encoded(text)[:end] for text in texts_over(letters) for end in range(len(encoded(text)) + 1)}:
        state = recognizer.run(raw)
        assert state != 0 or raw not in live
        assert (recognizer.outcome(state) >= 0) == (raw in good)
        if state:
            rest = recognizer.witness(state)
            assert set(raw + rest) <= set(alphabet)
            assert is_good(outcome_of(tests, (raw + rest).decode(errors="surrogatepass")), cubes)


@settings(max_examples=scaled(40), deadline=None)
@given(goals(looks=False), st.integers(0, 3), st.lists(st.integers(0, 40), max_size=2))
def test_states_said_to_be_alike_are(goal, n_bytes: int, bounds: list[int]) -> None:
    letters, tests, cubes = goal
    tests = (*tests, *(Length(0, bound) for bound in bounds))
    cubes = (
        tuple((care | 1 << len(tests) - 1, value | 1 << len(tests) - 1) for care, value in cubes) if tests else cubes
    )
    recognizer = StringRecognizer(tests, cubes)
    for prefix in ("", letters[0] * 3, letters[1] * 7, letters * 5):
        state = recognizer.run(encoded(prefix))
        pairs = {(state, recognizer.alike(state, n_bytes))}
        for _ in range(n_bytes):
            assert all(recognizer.outcome(one) == recognizer.outcome(two) for one, two in pairs)
            rows = [(recognizer.row(one), recognizer.row(two)) for one, two in pairs]
            assert all(((one != 0) == (two != 0)).all() for one, two in rows)
            pairs = {pair for one, two in rows for pair in zip(one.tolist(), two.tolist(), strict=True) if pair[0]}
        assert all(recognizer.outcome(one) == recognizer.outcome(two) for one, two in pairs)


@settings(max_examples=scaled(80), deadline=None)
@given(goals(looks=False), st.integers(0, 1), st.lists(st.integers(0, 9), max_size=2))
def test_what_is_said_to_endure_does(goal, wanted: int, bounds: list[int]) -> None:
    letters, tests, cubes = goal
    tests = (*tests, Matches(search(parse("a[^b]*"))), *(Length(0, bound) for bound in bounds))
    cubes = (((1 << len(tests)) - 1,) * 2,) if wanted else cubes
    recognizer = StringRecognizer(tests, cubes)
    some = [*letters, "a", "b", "\U0010ffff", HIGH]
    for prefix in ("", letters[0], letters[1] * 2, letters * 2):
        start = recognizer.run(encoded(prefix))
        sure = recognizer.endurance(start, 5)
        ends = {(start, "")}
        for _ in range(min(sure, 4)):
            ends = {
                (run(recognizer, state, encoded(letter)), letter)
                for state, before in ends
                for letter in some
                if before + letter != HIGH + LOW  # which is one character
            }
            assert all(state for state, _ in ends)


def run(recognizer: StringRecognizer, state: int, text: bytes) -> int:
    for byte in text:
        state = int(recognizer.row(state)[byte])
    return state


def test_endurance() -> None:
    def endurance(pattern: str, text: str, *more: StringTest) -> int:
        recognizer = StringRecognizer(
            (Matches(search(parse(pattern, dialect="ecma"))), *more), (((2 << len(more)) - 1,) * 2,)
        )
        return recognizer.endurance(recognizer.run(text.encode()), 50)

    assert endurance("[0-9a-f]{8}-[0-9a-f]{4}", "") == 50
    assert endurance("[0-9a-f]{8}-[0-9a-f]{4}", "ab1") == 50
    assert endurance(r"^(?:\S+\s+){0,9}\S+$", "ab") == 18  # a space and a letter for each word to come
    assert endurance(r"^(?:\S+\s+){0,9}\S+$", "ab cd") == 16
    assert endurance("^[a-z]+$", "") == 0
    assert endurance("x", "", Length(0, 10)) in (8, 9)  # and then an x; a bound from below
    assert endurance("x", "x", Length(0, 10)) == 9
    assert endurance("x", "", Length(3, 10)) == 0  # nothing is known of lengths
