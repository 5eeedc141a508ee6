"""The number recognizer against brute force: every number text of a small box, evaluated with Fraction."""

from __future__ import annotations

import itertools
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlines_core import Limits
from outlines_core.json_schema import numbers
from outlines_core.json_schema.numbers import Integer, MultipleOf, NumberRecognizer, NumberTest, OneOf, Range
from tests.strategies import scaled

FAR = 10**6


def passes(test: NumberTest, value: Fraction) -> bool:
    match test:
        case Integer():
            return value.denominator == 1
        case MultipleOf(divisor):
            return (value / divisor).denominator == 1
        case OneOf(values):
            return value in values
        case Range(low, low_open, high, high_open):
            if low is not None and (value < low or (low_open and value == low)):
                return False
            return high is None or value < high or (value == high and not high_open)


def outcome_of(tests, cubes, value: Fraction) -> int:
    outcome = sum(passes(test, value) << j for j, test in enumerate(tests))
    return outcome if any(outcome & care == wanted for care, wanted in cubes) else -1


class Box:
    """All number texts with few digits and small exponents (one zero in front of them), as a trie."""

    def __init__(self, digits: int, extent: int) -> None:
        mantissas = [""]
        for n in range(1, digits + 1):
            for letters in itertools.product("0123456789", repeat=n):
                text = "".join(letters)
                mantissas += [
                    text[:point] + ("." if point < n else "") + text[point:]
                    for point in range(1, n + 1 if text[0] != "0" else 2)
                ]
        longest = len(str(extent))
        powers = [""]
        for n in range(1, longest + 2):
            for letters in itertools.product("0123456789", repeat=n):
                power = "".join(letters)
                if int(power) <= extent:
                    powers += ["e" + power, "e+" + power, "e-" + power]
        index: dict[str, int] = {"": 0}
        parents, symbols, self.values = [0], [0], {}
        for sign, mantissa, power in itertools.product(("", "-"), mantissas[1:], powers):
            text = sign + mantissa + power
            for n in range(1, len(text) + 1):
                if text[:n] not in index:
                    index[text[:n]] = len(parents)
                    parents.append(index[text[: n - 1]])
                    symbols.append(ord(text[n - 1]))
            self.values[index[text]] = Fraction(text)
        self.texts = list(index)
        self.parents, self.symbols = np.array(parents), np.array(symbols)
        self.children: list[list[int]] = [[] for _ in parents]
        for node, parent in enumerate(parents[1:], 1):
            self.children[parent].append(node)
        depth = np.array([len(text) for text in self.texts])
        self.levels = [np.flatnonzero(depth == n) for n in range(depth.max(), 0, -1)]
        self.distinct = set(self.values.values())
        # exponents may have more zeros in front than the trie has
        self.cut = set()
        for node, text in enumerate(self.texts):
            power = text.partition("e")[2].lstrip("+-")
            if len(power) > longest or power.startswith("00"):
                self.cut.add(node)
        self.zeros = np.array([n for n in self.cut if self.texts[n].endswith(("e00", "+00", "-00"))])

    def distances(self, good: dict[Fraction, int]) -> np.ndarray:
        """Length of the shortest completion of each node."""
        found = np.full(len(self.texts), FAR)
        for node, value in self.values.items():
            if good[value] >= 0:
                found[node] = 0
        for level in self.levels:
            np.minimum.at(found, self.parents[level], found[level] + 1)
        found[self.zeros] = found[self.parents[self.zeros]]  # one more zero changes nothing
        return found


box = cache(Box)


def check(shape: tuple[int, int], tests, cubes) -> NumberRecognizer:
    digits, extent = shape
    known = box(digits, extent)
    good = {value: outcome_of(tests, cubes, value) for value in known.distinct}
    distance = known.distances(good)
    recognizer = NumberRecognizer(tests, cubes, Limits(number_digits=digits), _extent=extent)
    assert (recognizer.start != 0) == (distance[0] < FAR)
    rows: dict[int, list[int]] = {}
    witnesses: dict[int, bytes] = {}
    todo = [(0, recognizer.start)] if recognizer.start else []
    while todo:
        node, state = todo.pop()
        text = known.texts[node]
        assert recognizer.outcome(state) == (good[known.values[node]] if node in known.values else -1), text
        if state not in witnesses:
            if len(witnesses) < 60:
                witnesses[state] = recognizer.witness(state)
                assert outcome_of(tests, cubes, Fraction(text + witnesses[state].decode())) >= 0, text
        elif node not in known.cut:
            assert len(witnesses[state]) == distance[node], text
        if node in known.cut:
            continue
        if state not in rows:
            rows[state] = recognizer.row(state).tolist()
            assert rows[state][ord("e")] == rows[state][ord("E")]
            assert not any(rows[state][b] for b in range(256) if b not in b"0123456789+-.eE")
        row = rows[state]
        live = {chr(byte) for byte in b"0123456789+-.e" if row[byte]}
        expected = {chr(known.symbols[child]) for child in known.children[node] if distance[child] < FAR}
        assert live == expected, (text, live ^ expected)
        todo += [(child, row[known.symbols[child]]) for child in known.children[node] if distance[child] < FAR]
    n_good = sum(outcome >= 0 for outcome in good.values())
    sample = recognizer.distinct(25)
    found = {Fraction(text.decode()) for text in sample}
    assert len(sample) == len(found) == min(25, n_good)
    for text in sample:
        state = recognizer.start
        for byte in text:
            state = int(recognizer.row(state)[byte])
        assert recognizer.outcome(state) == good[Fraction(text.decode())]
    return recognizer


SHAPES = [(1, 1), (2, 0), (2, 1), (1, 12)]
LARGER = [(2, 2), (2, 12), (3, 0), (3, 1), (3, 3)]
_decimals = st.builds(lambda n, e: Fraction(n) * Fraction(10) ** e, st.integers(-120, 120), st.integers(-2, 2))
_bounds = st.one_of(st.none(), st.just(Fraction(0)), _decimals)
_divisors = st.builds(
    lambda p, e: Fraction(p) * Fraction(10) ** e,
    st.sampled_from([1, 1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 16, 25, 35, 64, 99]),
    st.integers(-2, 2),
)
_tests = st.one_of(
    st.just(Integer()),
    st.builds(Range, _bounds, st.booleans(), _bounds, st.booleans()),
    st.builds(MultipleOf, _divisors),
    st.builds(OneOf, st.frozensets(_decimals, max_size=4)),
)


@st.composite
def problems(draw):
    tests = tuple(draw(st.lists(_tests, max_size=4)))
    cubes = []
    for _ in range(draw(st.integers(1, 3))):
        care = draw(st.integers(0, 2 ** len(tests) - 1))
        cubes.append((care, care & draw(st.integers(0, 2 ** len(tests) - 1))))
    return tests, tuple(cubes)


def fits(shape, tests) -> bool:
    """Can every bound and divisor be written in the box?"""
    constants = [t.divisor for t in tests if isinstance(t, MultipleOf)]
    constants += [bound for t in tests if isinstance(t, Range) for bound in (t.low, t.high) if bound is not None]
    return all(abs(c) in box(*shape).distinct for c in constants)


@settings(max_examples=scaled(50), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SHAPES), problems())
def test_recognizer_is_exact(shape, problem):
    tests, cubes = problem
    if fits(shape, tests):
        check(shape, tests, cubes)
    else:
        with pytest.raises(numbers.LimitExceededError):
            NumberRecognizer(tests, cubes, Limits(number_digits=shape[0]), _extent=shape[1])


@pytest.mark.slow
@settings(max_examples=scaled(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(LARGER), problems())
def test_recognizer_is_exact_in_larger_boxes(shape, problem):
    if fits(shape, problem[0]):
        check(shape, *problem)


@settings(max_examples=scaled(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(problems(), st.lists(st.integers(0, 13), max_size=12))
def test_kernel_equals_its_twin(problem, walk):
    tests, cubes = problem
    compiled = NumberRecognizer(tests, cubes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "_SPAN", 1)
        plain = NumberRecognizer(tests, cubes)
    assert compiled.start == plain.start
    state = compiled.start
    for choice in walk:
        if not state:
            break
        row = compiled.row(state)
        assert row.tolist() == plain.row(state).tolist()
        assert compiled.outcome(state) == plain.outcome(state)
        assert compiled.witness(state) == plain.witness(state)
        targets = [int(row[byte]) for byte in b"0123456789-+.e" if row[byte]]
        state = targets[choice % len(targets)] if targets else 0
    assert compiled.n_states == plain.n_states
