from __future__ import annotations

import random

import numpy as np
import pytest

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.arena import Arena
from outlines_core.json_schema.strings import Length, Matches, OneOf, StringRecognizer
from outlines_core.limits import Limits
from outlines_core.regex.ast import CharSet, Complement, Repeat
from outlines_core.regex.nfa import ANY
from outlines_core.regex.parser import parse, search

ALL = ((0, 0),)
NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def pattern(text: str) -> Matches:
    return Matches(search(parse(text, dialect="ecma")))


def accepts(recognizer: StringRecognizer, text: str | bytes) -> bool:
    raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    return recognizer.outcome(recognizer.run(raw)) >= 0


def visit(recognizer: StringRecognizer, at_most: int) -> list[int]:
    """The states that breadth-first search finds first."""
    states = [recognizer.start]
    for state in states:
        for target in dict.fromkeys(recognizer.row(state).tolist()):
            if target and target not in states:
                states.append(target)
        if len(states) >= at_most:
            break
    return states


class TestContent:
    def test_without_tests_every_string_is_good(self):
        recognizer = StringRecognizer((), ALL)
        assert recognizer.outcome(recognizer.start) == 0
        assert accepts(recognizer, "añ€😀\x00")
        assert recognizer.witness(recognizer.start) == b""

    @pytest.mark.parametrize(
        "raw", [b"\x80", b"\xc0", b"\xc1\x80", b"\xe0\x80", b"\xf0\x8f", b"\xf4\x90", b"\xf5", b"\xff"]
    )
    def test_bytes_that_are_not_utf8_are_dead(self, raw):
        for recognizer in (StringRecognizer((), ALL), StringRecognizer((pattern("a"),), ALL)):
            assert recognizer.run(raw) == 0

    def test_a_lone_surrogate_is_one_character(self):
        recognizer = StringRecognizer(
            (Length(1, 1), pattern("^[^a]$"), pattern("^.$"), pattern(r"^\P{L}$")), ((15, 15),)
        )
        for text in ("\ud800", "\udfff", "\udc00"):
            assert accepts(recognizer, text)

    def test_a_high_surrogate_before_a_low_one_would_be_another_character(self):
        recognizer = StringRecognizer((), ALL)
        assert recognizer.run(b"\xed\xa0\x80\xed\xb0") == 0
        assert accepts(recognizer, "\ud800\ud800")
        assert accepts(recognizer, "\ud800x\udc00")
        assert accepts(recognizer, "\ud800\ud7ff")
        assert StringRecognizer((pattern(r"^[\ud800-\udbff][\udc00-\udfff]$"),), ((1, 1),)).start == 0

    def test_surrogates_of_listed_values(self):
        recognizer = StringRecognizer((OneOf(frozenset({"\ud83d\ude00", "x\ud800", "\udc00"})),), ((1, 1),))
        assert sorted(recognizer.distinct(9)) == sorted(["😀".encode(), b"x\xed\xa0\x80", b"\xed\xb0\x80"])

    def test_surrogates_in_look_arounds_and_complements(self):
        looking = StringRecognizer((pattern("^(?=.\udc00)[^]*$"), pattern("(?<!\ud800)b")), ((3, 3),))
        assert accepts(looking, "a\udc00b")
        assert not accepts(looking, "a\udc00")
        assert not accepts(looking, "\ud800\udc00b")
        other = StringRecognizer((Matches(Complement(parse("[a\ud800]*", dialect="ecma"))),), ((1, 1),))
        assert not accepts(other, "a\ud800a")
        assert accepts(other, "a\ud801a")

    def test_only_bytes_of_the_alphabet_are_live(self):
        alphabet = np.zeros(256, dtype=np.bool_)
        alphabet[list(b"ab\xc3\xa9")] = True
        recognizer = StringRecognizer((Length(1, 2), OneOf(frozenset({"ab", "c"}))), ((3, 1),), alphabet=alphabet)
        assert sorted(recognizer.distinct(99)) == sorted(
            map(str.encode, ["a", "b", "é", "aa", "aé", "ba", "bb", "bé", "éa", "éb", "éé"])
        )
        assert not recognizer.row(recognizer.start)[ord("c")]
        assert StringRecognizer((OneOf(frozenset({"c", "€"})),), ((1, 1),), alphabet=alphabet).start == 0


class TestOutcome:
    def test_every_bit_is_told(self):
        tests = (pattern("^x-"), pattern("[0-9]"), Length(3, 5), OneOf(frozenset({"x-1", "id"})), pattern("a(?!b)"))
        recognizer = StringRecognizer(tests, ALL)
        for text, expected in (
            ("", 0),
            ("id", 8),
            ("x-1", 15),
            ("x-12345", 3),
            ("abab", 4),
            ("xa", 16),
            ("x-ab1a", 19),
        ):
            assert recognizer.outcome(recognizer.run(text.encode())) == expected

    def test_more_tests_than_a_word_has_bits(self):
        tests = tuple(OneOf(frozenset({f"v{j}", "all"})) for j in range(150))
        recognizer = StringRecognizer(tests, tuple((1 << j, 1 << j) for j in range(150)))
        assert recognizer.outcome(recognizer.run(b"v149")) == 1 << 149
        assert recognizer.outcome(recognizer.run(b"all")) == (1 << 150) - 1
        assert len(recognizer.distinct(1000)) == 151

    def test_a_cube_that_wants_what_it_does_not_look_at_is_never_met(self):
        assert StringRecognizer((Length(0, 1),), ((0, 1),)).start == 0
        assert StringRecognizer((Length(0, 1),), ((2, 2),)).start == 0
        assert StringRecognizer((), ()).start == 0

    def test_the_dead_state(self):
        recognizer = StringRecognizer((), ())
        assert recognizer.outcome(0) == -1
        assert not recognizer.row(0).any()
        assert recognizer.distinct(3) == []

    def test_equal_futures_are_one_state(self):
        recognizer = StringRecognizer((Length(2, None), pattern("a"), OneOf(frozenset({"yes"}))), ALL)
        assert recognizer.run(b"xxa") == recognizer.run(b"yellow a") == recognizer.run("€€a€".encode())
        assert recognizer.run(b"xx") != recognizer.run(b"ye")

    def test_a_repeated_any_character_is_a_length(self):
        recognizer = StringRecognizer((Matches(Repeat(CharSet(ANY), 1, 100_000)), Length(1, 100_000)), ((3, 3),))
        assert recognizer.nbytes < 100_000
        assert accepts(recognizer, "a" * 1000)
        assert not accepts(recognizer, "")


class TestLife:
    @pytest.mark.parametrize(
        ("tests", "cubes"),
        [
            ((pattern("^a"), pattern("^b")), ((3, 3),)),
            ((pattern("^a+$"), pattern("^a")), ((3, 1),)),
            ((pattern("^(aa)*$"), Length(9, 9)), ((3, 3),)),
            ((pattern("^(aa)*$"), Length(99_999, 99_999)), ((3, 3),)),
            ((pattern("^(aa)*$"), pattern("^a(aa)*$"), Length(0, 100_000)), ((7, 7),)),
            ((pattern("^[a-z]{2,5}$"), Length(6, None)), ((3, 3),)),
            ((pattern(""),), ((1, 0),)),
            ((Length(0, None),), ((1, 0),)),
            ((Length(3, 2),), ((1, 1),)),
            ((OneOf(frozenset({"a", "b"})), pattern("c")), ((3, 3),)),
            ((OneOf(frozenset({"a", "b"})), pattern("^[ab]$")), ((3, 2),)),
            ((OneOf(frozenset()),), ((1, 1),)),
            ((pattern(r"^(?=.*\d)[a-z]*$"),), ((1, 1),)),
        ],
    )
    def test_what_nothing_can_meet_is_dead_at_once(self, tests, cubes):
        assert StringRecognizer(tests, cubes).start == 0

    def test_names_with_a_maximal_length(self):
        recognizer = StringRecognizer((pattern(NAME), Length(0, 63)), ((3, 3),))
        full = recognizer.run(b"a" * 62)
        row = recognizer.row(full)
        assert row[ord("a")]
        assert not row[ord("-")]
        assert not recognizer.row(int(row[ord("a")])).any()
        assert recognizer.witness(recognizer.run(b"a-")) != b""
        assert len(visit(recognizer, 1000)) == 125

    def test_a_minimal_length_is_reached_by_going_round_a_loop(self):
        recognizer = StringRecognizer((pattern("^([a-z]{3};)+$"), pattern("b"), Length(4000, 4003)), ((7, 7),))
        witness = recognizer.witness(recognizer.start)
        assert len(witness) == 4000
        assert b"b" in witness
        assert accepts(recognizer, witness)

    def test_a_large_maximal_length_costs_nothing(self):
        recognizer = StringRecognizer((pattern("^a"), pattern("b$"), pattern("^a+b$"), Length(0, 100_000)), ((15, 11),))
        assert recognizer.start
        visit(recognizer, 100)
        assert recognizer.nbytes < 300_000

    def test_values_that_fail_another_test_are_not_offered(self):
        colours = OneOf(frozenset({"red", "green", "blue", "grey"}))
        recognizer = StringRecognizer((colours, pattern("e"), Length(4, None)), ((7, 7),))
        assert recognizer.distinct(9) == [b"blue", b"grey", b"green"]
        other = StringRecognizer((colours, pattern("^[a-z]{3}$")), ((3, 2),))
        assert accepts(other, "rex")
        assert not accepts(other, "red")

    def test_witnesses_are_shortest(self):
        recognizer = StringRecognizer(
            (OneOf(frozenset({"abcdef", "abc", "€uro", "€"})), pattern("b")), ((3, 1), (3, 3))
        )
        assert recognizer.witness(recognizer.run(b"a")) == b"bc"
        assert recognizer.witness(recognizer.run(b"abcd")) == b"ef"
        assert recognizer.witness(recognizer.run(b"\xe2")) == b"\x82\xac"
        assert recognizer.witness(recognizer.start) == "€".encode()

    def test_distinct_lists_all_there_are(self):
        recognizer = StringRecognizer((pattern("^[ab]{1,2}c?$"), OneOf(frozenset({"ab", "zz"}))), ((3, 1),))
        expected = {x + y + z for x in "ab" for y in ("", "a", "b") for z in ("", "c")} - {"ab"}
        assert {raw.decode() for raw in recognizer.distinct(100)} == expected
        assert len(set(recognizer.distinct(7))) == 7


class TestSize:
    def test_ten_thousand_values(self):
        rng = random.Random(1)
        values = {"".join(rng.choices("abcdefgh é€", k=rng.randint(1, 20))) for _ in range(10_000)}
        recognizer = StringRecognizer((OneOf(frozenset(values)),), ((1, 1),))
        for value in sorted(values)[::500]:
            assert accepts(recognizer, value)
            assert accepts(recognizer, value + "a") == (value + "a" in values)
        few = frozenset(sorted(values)[:500])
        assert len(StringRecognizer((OneOf(few),), ((1, 1),)).distinct(20_000)) == len(few)

    def test_too_many_states_are_an_error_and_the_rest_stays_valid(self):
        recognizer = StringRecognizer((pattern(NAME), Length(0, 1000)), ((3, 3),), Limits(max_states=200))
        with pytest.raises(LimitExceededError, match="max_states"):
            recognizer.run(b"a" * 300)
        assert accepts(recognizer, "a-b")

    def test_a_search_is_bounded(self):
        tests = (pattern("^(aa)*$"), Length(999_999, 999_999))
        with pytest.raises(LimitExceededError, match="200,000"):
            StringRecognizer(tests, ((3, 3),))

    def test_memory_is_bounded(self):
        recognizer = StringRecognizer((Length(0, 100_000),), ((1, 1),), Limits(max_state_bytes=150_000))
        with pytest.raises(LimitExceededError, match="max_state_bytes"):
            recognizer.run(b"a" * 20_000)

    def test_a_minimal_length_beyond_reason_is_refused(self):
        with pytest.raises(LimitExceededError, match="too long"):
            StringRecognizer((Length(2**40, None),), ((1, 1),))
        assert accepts(StringRecognizer((Length(0, 2**31 - 1),), ((1, 1),)), "x")

    def test_far_from_the_bounds_the_number_of_characters_does_not_matter(self):
        recognizer = StringRecognizer((pattern("^[a-z]+(,[a-z]+)*$"), Length(2, 10_000)), ((3, 3),))
        near, far = recognizer.run(b"abc,de"), recognizer.run(b"abcdefghijkl" * 9 + b",f")
        assert near != far
        assert recognizer.alike(near, 20) == recognizer.alike(far, 20)
        assert recognizer.alike(recognizer.run(b"a"), 20) == recognizer.run(b"a")
        assert recognizer.alike(far, 9_990) == far


class Unwell:
    """A recognizer of `ab` that at first cannot say what its states come to."""

    start, nbytes, is_well = 1, 0, False

    def write_row(self, state: int, out_row: np.ndarray) -> None:
        out_row[:] = 0
        out_row[0x60 + state] = state + 1

    def outcome(self, state: int) -> int:
        if state > 1 and not self.is_well:
            raise LimitExceededError("too much", given=1, limit=0)
        return 0 if state == 3 else -1


def test_an_arena_is_as_before_where_a_row_was_too_much() -> None:
    arena, unwell, other = Arena(), Unwell(), Unwell()
    other.is_well = True
    first = arena.number_of(unwell, 1)
    with pytest.raises(LimitExceededError):
        arena.fill(first)
    c = arena.number_of(other, 1)
    for recognizer, row in ((other, c), (unwell, first)):
        unwell.is_well = True
        for byte, state in ((0x61, 2), (0x62, 3)):
            arena.fill(row)
            assert np.flatnonzero(arena.rows[row, :256]).tolist() == [byte]
            row = int(arena.rows[row, byte])
            assert arena.owner(row) == (recognizer, state)
        assert arena.rows[row, 256] == 0
