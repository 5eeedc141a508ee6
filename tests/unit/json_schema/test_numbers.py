"""The number recognizer on numbers of real size."""

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest

from outlines_core import Limits
from outlines_core.errors import LimitExceededError
from outlines_core.json_schema import numbers
from outlines_core.json_schema.numbers import Integer, MultipleOf, NumberRecognizer, OneOf, Range

ANY = ((), ((0, 0),))


def between(low, high, *, low_open=False, high_open=False) -> Range:
    return Range(*(None if x is None else Fraction(x) for x in (low,)), low_open, high and Fraction(high), high_open)


def all_of(*tests) -> NumberRecognizer:
    return NumberRecognizer(tests, ((2 ** len(tests) - 1,) * 2,))


def state_of(recognizer: NumberRecognizer, text: str) -> int:
    state = recognizer.start
    for byte in text.encode():
        if not state:
            break
        state = int(recognizer.row(state)[byte])
    return state


def accepts(recognizer: NumberRecognizer, text: str) -> bool:
    state = state_of(recognizer, text)
    return state != 0 and recognizer.outcome(state) >= 0


def is_live(recognizer: NumberRecognizer, text: str) -> bool:
    return state_of(recognizer, text) != 0


class TestSyntax:
    def test_json_numbers(self):
        recognizer = NumberRecognizer(*ANY)
        for text in ("0", "-0", "0.0", "1", "-12.50", "1e5", "1E+5", "0e-0", "1e0005", "1e308", "1e-308", "9" * 64):
            assert accepts(recognizer, text), text
        for text in ("", "-", "1.", "1e", "1e+", "0."):
            assert (is_live(recognizer, text), accepts(recognizer, text)) == (True, False), text
        for text in ("00", "01", "-01", "+1", ".5", "1..", "1.e", "1ee", "1e309", "1e-309", "--", "e", "9" * 65, "a"):
            assert not is_live(recognizer, text), text

    def test_all_mantissa_digits_count(self):
        recognizer = NumberRecognizer(*ANY, Limits(number_digits=4))
        for text in ("1234", "0.001", "12.34e1"):
            assert accepts(recognizer, text)
        for text in ("12345", "1234.", "0.0010"):
            assert not is_live(recognizer, text)


class TestValues:
    def test_a_prefix_is_live_if_an_exponent_can_still_repair_it(self):
        recognizer = all_of(between(5, 10))
        for text in ("5", "10", "70e-1", "0.05e2", "7.3", "500e-2", "0.00000000000000000001e21"):
            assert accepts(recognizer, text), text
        assert is_live(recognizer, "70")
        assert not is_live(recognizer, "3")
        integers = all_of(Integer(), between(5, 10))
        assert is_live(integers, "70")
        assert is_live(integers, "0.")
        assert not is_live(integers, "73")
        assert not is_live(integers, "-")
        assert not is_live(integers, "3")

    def test_integers_have_many_spellings(self):
        recognizer = all_of(Integer())
        for text in ("1", "1.0", "1.50e1", "100e-2", "-0", "0.0", "0e-300", "1e308"):
            assert accepts(recognizer, text), text
        for text in ("1.5", "1e-1", "15e-1"):
            assert (is_live(recognizer, text[:-1]), accepts(recognizer, text)) == (True, False), text

    def test_multiples(self):
        assert accepts(all_of(MultipleOf(Fraction(15))), "1500e-2")
        hundredths = all_of(MultipleOf(Fraction("0.01")))
        assert accepts(hundredths, "19.99")
        assert accepts(hundredths, "1.990")
        assert not accepts(hundredths, "1.999")
        assert accepts(all_of(MultipleOf(Fraction("1e-8"))), "12391239123.00000001")
        both = all_of(MultipleOf(Fraction(4)), MultipleOf(Fraction("2.5")))
        assert accepts(both, "20")
        assert not accepts(both, "10")
        assert both.distinct(3) == [b"0", b"20", b"40"]

    def test_negated_tests(self):
        odd = NumberRecognizer((Integer(), MultipleOf(Fraction(2))), ((3, 1),))
        assert accepts(odd, "3")
        assert accepts(odd, "30e-1")
        assert not accepts(odd, "30")
        assert not accepts(odd, "1.5")
        assert not is_live(odd, "0e")
        nothing = NumberRecognizer((Integer(), MultipleOf(Fraction("0.5"))), ((3, 1),))
        assert nothing.start == 0
        assert nothing.distinct(3) == []

    def test_values_of_an_enum(self):
        recognizer = all_of(OneOf(frozenset(map(Fraction, ("1", "1.5", "-20", "0", "1e-400")))))
        assert sorted(recognizer.distinct(10), key=float) == [b"-20", b"0", b"1", b"1.5"]
        assert accepts(recognizer, "-2e1")
        assert accepts(recognizer, "0.15e1")
        assert not is_live(recognizer, "2")

    def test_unwritable_values_are_unreachable(self):
        assert all_of(OneOf(frozenset([Fraction(1, 3), Fraction(10) ** 400, Fraction(10**64 + 1)]))).start == 0

    def test_bounds_beyond_the_box(self):
        for value in (
            Fraction(10**64 + 1),
            Fraction(10) ** 373,
            Fraction(1, 10**400),
            Fraction(1, 3),
            Fraction(7**9999),
        ):
            for test in (between(value, None), MultipleOf(value)):
                with pytest.raises(LimitExceededError, match="number_digits"):
                    all_of(test)

    def test_outcome_tells_all_tests(self):
        recognizer = NumberRecognizer((Integer(), between(0, 5), MultipleOf(Fraction(3))), ((0, 0),))
        for text, outcome in (("3", 0b111), ("6", 0b101), ("2.5", 0b010), ("0", 0b111), ("-1.5", 0), ("60e-1", 0b101)):
            assert recognizer.outcome(state_of(recognizer, text)) == outcome


class TestScale:
    @pytest.mark.parametrize(
        "tests",
        [
            (between("1e-300", "1e308"),),
            (Integer(), between("1e308", None)),
            (MultipleOf(Fraction("1e300")), between(1, None)),
            (MultipleOf(Fraction("1e-300")), between(None, "1e-299", high_open=True), between(0, None, low_open=True)),
            (between("0." + "3" * 63, "0." + "3" * 62 + "4", low_open=True, high_open=True),),
            (MultipleOf(Fraction("1.2345678901234567890123")), between("1e20", "1e21")),
            (MultipleOf(Fraction(999999937)), MultipleOf(Fraction(999999929)), between(1, None)),
        ],
    )
    def test_extreme_constants(self, tests):
        recognizer = all_of(*tests)
        assert recognizer.start
        text = recognizer.witness(recognizer.start).decode()
        assert accepts(recognizer, text)
        for test in tests:
            assert _passes(test, Fraction(text))
        assert len(set(map(Fraction, (t.decode() for t in recognizer.distinct(3))))) > 0

    def test_random_walks_never_get_stuck(self):
        rng = random.Random(7)
        for trial in range(60):
            tests = [
                Integer(),
                between(rng.randint(-99, 99), rng.randint(100, 10**9)),
                MultipleOf(Fraction(rng.choice(["3", "0.25", "7e3", "1e-5", "48"]))),
            ]
            rng.shuffle(tests)
            tests = tests[: rng.randint(1, 3)]
            care = rng.randrange(2 ** len(tests))
            wanted = care & rng.randrange(2 ** len(tests))
            recognizer = NumberRecognizer(tuple(tests), ((care, wanted),))
            state, text = recognizer.start, b""
            while state and len(text) < 80:
                outcome = recognizer.outcome(state)
                if outcome >= 0:
                    value = Fraction(text.decode())
                    assert outcome == sum(_passes(test, value) << j for j, test in enumerate(tests))
                    assert outcome & care == wanted
                ending = text + recognizer.witness(state)
                assert accepts(recognizer, ending.decode()), (trial, text)
                row = recognizer.row(state)
                moves = [byte for byte in b"0123456789-+.e" if row[byte]]
                if not moves:
                    assert outcome >= 0
                    break
                byte = rng.choice(moves)
                text, state = text + bytes([byte]), int(row[byte])

    def test_many_values(self):
        values = frozenset(Fraction(n * 37, 100) for n in range(5000))
        recognizer = all_of(OneOf(values))
        assert accepts(recognizer, "37")
        assert accepts(recognizer, "0.37e0")
        assert not accepts(recognizer, "0.36")
        assert len(set(recognizer.distinct(50))) == 50

    def test_states_stay_few(self):
        start = time.perf_counter()
        recognizer = all_of(Integer(), between(1, 65535))
        seen, todo = {recognizer.start}, [(recognizer.start, 0)]
        for state, depth in todo:
            new = set(recognizer.row(state).tolist()) - seen - {0} if depth < 3 else set()
            seen |= new
            todo += [(target, depth + 1) for target in new]
        assert len(seen) < 200
        assert time.perf_counter() - start < 1  # about 0.3 ms


class TestLimits:
    def test_states(self):
        recognizer = NumberRecognizer((MultipleOf(Fraction(99991)),), ((1, 1),), Limits(max_states=200))

        def visit_all() -> None:
            todo = [recognizer.start]
            for state in todo:
                todo += [target for target in recognizer.row(state)[48:58].tolist() if target]

        with pytest.raises(LimitExceededError, match="max_states"):
            visit_all()
        assert recognizer.witness(recognizer.start)

    def test_divisors(self):
        with pytest.raises(LimitExceededError, match="divisors"):
            all_of(*(MultipleOf(Fraction(n)) for n in range(1, 50)))
        with pytest.raises(ValueError, match="positive"):
            all_of(MultipleOf(Fraction(0)))


def _passes(test, value: Fraction) -> bool:
    match test:
        case Integer():
            return value.denominator == 1
        case MultipleOf(divisor):
            return (value / divisor).denominator == 1
        case Range(low, low_open, high, high_open):
            above = low is None or low < value or (low == value and not low_open)
            return above and (high is None or value < high or (value == high and not high_open))
    raise TypeError(numbers.__name__)
