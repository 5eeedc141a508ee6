"""Potentials obey the laws; samplers weigh properly; broken ones are found out."""

from __future__ import annotations

import asyncio
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outlines_core as oc
from outlines_core.errors import LimitExceededError
from processors.inference import (
    AWRS,
    EOS,
    AutomatonPotential,
    DirectSampler,
    FunctionPotential,
    LMPotential,
    Potential,
    SetSampler,
    assert_laws,
    byte_vocabulary,
    samplers,
)
from processors.inference.laws import assert_autoregressive, assert_logw_next, assert_prefix
from processors.lm import CachedCausalLM, MockBackend
from tests.inference_toys import EOS as EOS_ID
from tests.inference_toys import PATTERN, problem


def run(coroutine):
    return asyncio.run(coroutine)


CONTEXTS = [context for n in range(4) for context in itertools.product(range(4), repeat=n)]


@pytest.fixture(scope="module")
def parts():
    lm, automaton = problem()
    return LMPotential(lm, "ab", 0.7), AutomatonPotential(automaton)


# -- laws --------------------------------------------------------------------------------------------------------------


def test_laws_of_a_language_model(parts):
    run(assert_laws(parts[0], CONTEXTS))


def test_laws_of_an_automaton(parts):
    run(assert_laws(parts[1], [*CONTEXTS, (EOS_ID,), (2, EOS_ID, 0)]))


def test_laws_of_a_product(parts):
    run(assert_laws(parts[0] * parts[1], CONTEXTS))


def test_laws_of_functions(parts):
    lm = parts[0].lm
    even = FunctionPotential(5, lambda ids: len(ids) % 2 == 0)

    async def few(text):
        return -0.5 * text.count("a")

    fewer = FunctionPotential(5, few, few, decode=lm.decode)
    contexts = CONTEXTS[:30]
    for potential in (even, fewer, parts[0] * fewer, fewer * even * parts[1]):
        run(assert_laws(potential, contexts))


def test_laws_with_several_ends_and_padded_ids():
    vocabulary = oc.Vocabulary([3, 4], {"a": [0], "b": [1]}, special_tokens={"<pad>": 2})
    lm = CachedCausalLM(MockBackend(7), None, vocabulary)
    model = LMPotential(lm, [])
    constraint = AutomatonPotential(oc.compile_regex("a*b", vocabulary), size=7)
    for potential in (model, constraint, model * constraint):
        run(assert_laws(potential, [(), (0,), (0, 1), (1, 1)]))
    row = run(model.logw_next(()))
    assert np.isneginf(row[3:7]).all()
    assert math.exp(run(model.complete(()))) == pytest.approx(math.exp(row[EOS]))
    assert np.exp(row).sum() == pytest.approx(1.0)


@settings(max_examples=60)
@given(
    logits=st.lists(st.one_of(st.just(-math.inf), st.floats(-40, 40)), min_size=7, max_size=7),
    temp=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_a_language_model_written_out(logits, temp):
    """Ids 0 to 2 are tokens, 3 and 4 ends, 5 and 6 padding, which may have nearly all of the mass."""
    logits[0] = 0.0  # one token must be possible
    vocabulary = oc.Vocabulary([3, 4], {"a": [0], "b": [1]}, special_tokens={"<pad>": 2})
    lm = CachedCausalLM(MockBackend(7, lambda prefix: logits), None, vocabulary)
    weights = [math.exp(x / temp) for x in logits[:5]]
    expected = [*weights[:3], 0, 0, 0, 0, weights[3] + weights[4]]
    found = np.exp(run(LMPotential(lm, [], temp).logw_next(())))
    np.testing.assert_allclose(found, np.array(expected) / sum(weights), atol=1e-5)
    token, weight = run(DirectSampler(LMPotential(lm, [], temp)).sample((), np.random.default_rng(0)))
    assert expected[token] > 0
    assert weight == pytest.approx(0.0, abs=1e-5)


def test_broken_potentials_are_found_out(parts):
    class Broken(Potential):
        size = 2

        def __init__(self, **answers):
            self.answers = answers

        async def prefix(self, context):
            return self.answers.get("prefix", lambda c: 0.0)(context)

        async def complete(self, context):
            return 0.0

        async def logw_next(self, context):
            return self.answers["next"](await super().logw_next(context))

    def off(weights):
        weights[1] += 0.1
        return weights

    dead = {"prefix": lambda c: -math.inf if c == (0,) else 0.0}
    for broken, law, context, message in (
        (Broken(next=off), assert_logw_next, (), r"logw_next\(\)\[1\] is 0.1"),
        (Broken(next=lambda w: w[:2]), assert_logw_next, (), "shape"),
        (Broken(next=lambda w: w * np.nan), assert_logw_next, (), "nan"),
        (Broken(next=off), assert_autoregressive, (1,), r"complete\(1,\) is 0"),
        (Broken(next=lambda w: w, **dead), assert_prefix, (0,), r"prefix\(0,\) is -inf"),
    ):
        with pytest.raises(AssertionError, match=message):
            run(law(broken, context))
        with pytest.raises(AssertionError):
            run(assert_laws(broken, [context]))

    class Silent(AutomatonPotential):
        async def logw_next(self, context):
            return np.zeros(6)

    with pytest.raises(AssertionError, match="must raise ValueError"):
        run(assert_logw_next(Silent(parts[1].automaton), (1,)))


def test_what_is_refused(parts):
    model, constraint = parts
    with pytest.raises(ValueError, match="size=lm.n_logits"):
        model * FunctionPotential(6, len)
    with pytest.raises(TypeError, match="str"):
        model * "a"
    with pytest.raises(ValueError, match="nothing can come"):
        run(constraint.logw_next((1,)))
    with pytest.raises(ValueError, match="NaN"):
        run(FunctionPotential(2, lambda _: math.nan).complete(()))
    with pytest.raises(ValueError, match="temp"):
        LMPotential(model.lm, "", 0)
    assert run((model * constraint.automaton).prefix((2,))) == run((model * constraint).prefix((2,)))


def test_fewest_tokens(parts, monkeypatch):
    model, constraint = parts
    product = model * constraint
    assert [product.min_tokens(c) for c in ((), (0,), (2,))] == [1, 1, 0]
    assert model.min_tokens(()) == 0

    def too_long(state):
        raise LimitExceededError("", given=2, limit=1)

    monkeypatch.setattr(constraint.automaton, "min_tokens_to_accept", too_long)
    assert product.min_tokens(()) == 0


# -- samplers ----------------------------------------------------------------------------------------------------------


class OneWay:
    """Random choices that fall out as `given` says, and then the first way; the other ways are noted in `ways`."""

    def __init__(self, given, ways):
        self.given, self.ways, self.n, self.p = list(given), ways, 0, 1.0

    def pick(self, log_weights, rng=None):
        chances = np.exp(log_weights - np.logaddexp.reduce(log_weights))
        possible = np.flatnonzero(chances).tolist()
        if self.n == len(self.given):
            self.ways.extend([*self.given, k] for k in possible[1:])
            self.given.append(possible[0])
        k = self.given[self.n]
        self.n += 1
        self.p *= chances[k]
        return k

    def draw(self, pool, rng):
        return self.pick(pool._left) if np.isfinite(pool._left).any() else None


def expectation(monkeypatch, sampler, context):
    """The mean weight of the draws of each token, over all ways the draws can fall out."""
    found = np.zeros(sampler.target.size + 1)
    ways = [[]]
    while ways:
        way = OneWay(ways.pop(), ways)
        monkeypatch.setattr(samplers, "choose", way.pick)
        monkeypatch.setattr(samplers._Pool, "draw", lambda pool, rng, way=way: way.draw(pool, rng))
        token, weight = run(sampler.sample(context, np.random.default_rng(0)))
        found[token] += way.p * math.exp(weight)
    return found


def properly_weighted(monkeypatch, sampler, context):
    exact = np.exp(run(sampler.target.logw_next(context)))
    np.testing.assert_allclose(expectation(monkeypatch, sampler, context), exact, rtol=1e-6, atol=1e-15)


def properly_weighted_on_average(sampler, context, n=1000, seed=0):
    """The same by drawing, for samplers whose draws have no end of ways, and for the draws themselves."""
    exact = np.exp(run(sampler.target.logw_next(context)))
    rng = np.random.default_rng(seed)

    async def draw():
        found = np.zeros((n, len(exact)))
        for k in range(n):
            token, weight = await sampler.sample(context, rng)
            found[k, token] = math.exp(weight)
        return found

    found = run(draw())
    error = found.std(axis=0, ddof=1) / math.sqrt(n)
    common = exact > 0.1 * exact.sum()
    assert np.all(np.abs(found.mean(axis=0) - exact)[common] <= 4.5 * error[common] + 1e-9), (found.mean(axis=0), exact)
    assert found[:, exact == 0].sum() == 0
    total = found.sum(axis=1)
    assert abs(total.mean() - exact.sum()) <= 4 * total.std(ddof=1) / math.sqrt(n) + 1e-9
    return total


def rows(weights):
    """A potential with these probabilities of the next token, whatever came before."""
    logs = [math.log(w) if w else -math.inf for w in weights]

    class Rows(Potential):
        size = len(weights) - 1

        async def prefix(self, context):
            return float(sum(logs[t] for t in context))

        async def complete(self, context):
            return await self.prefix(context) + logs[EOS]

    return Rows()


def only(size, allowed):
    """A condition on the next token alone."""
    return FunctionPotential(size, lambda c: EOS in allowed, lambda c: not c or c[-1] in allowed)


CASES = [
    ([0.4, 0.3, 0.2, 0.05, 0.05], {0, 2, EOS}),
    ([0.4, 0.3, 0.2, 0.05, 0.05], {3}),
    ([0.4, 0.3, 0.2, 0.05, 0.05], {0, 1, 2, 3, EOS}),
    ([0.9, 0.05, 0.0, 0.03, 0.02], {0, 3}),
    ([0.9, 0.05, 0.0, 0.03, 0.02], {1, EOS}),
    ([0.997, 0.001, 0.001, 0.0005, 0.0005], {2, 3}),
    ([0.0, 1.5, 0.5, 0.25, 2.0], {1, 2}),
]


@pytest.mark.parametrize(("weights", "allowed"), CASES)
def test_awrs_weighs_properly(monkeypatch, weights, allowed):
    properly_weighted(monkeypatch, AWRS(rows(weights), only(4, allowed)), ())


@settings(max_examples=40)
@given(st.data())
def test_awrs_weighs_properly_whatever_is_allowed(data):
    weights = data.draw(st.lists(st.sampled_from([0.0, 1e-12, 0.1, 0.5, 2.0]), min_size=2, max_size=5))
    allowed = data.draw(st.sets(st.sampled_from([*range(len(weights) - 1), EOS])))
    with pytest.MonkeyPatch.context() as monkeypatch:
        properly_weighted(monkeypatch, AWRS(rows(weights), only(len(weights) - 1, allowed)), ())


@pytest.mark.parametrize(("weights", "allowed"), CASES)
@pytest.mark.parametrize("max_accepts", [2, 3, 6])
def test_awrs_weighs_properly_on_average(weights, allowed, max_accepts):
    properly_weighted_on_average(AWRS(rows(weights), only(4, allowed), max_accepts), ())


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "allowed"), CASES)
@pytest.mark.parametrize("max_accepts", [2, 3, 6])
def test_awrs_weighs_properly_over_many_draws(weights, allowed, max_accepts):
    properly_weighted_on_average(AWRS(rows(weights), only(4, allowed), max_accepts), (), 20_000)


def test_more_accepts_make_the_weight_vary_less():
    weights, allowed = CASES[0]
    condition = only(4, allowed)
    spread = [np.std(properly_weighted_on_average(AWRS(rows(weights), condition, k), ())) for k in (2, 4, 16)]
    assert spread[0] > spread[1] > spread[2]


def test_awrs_where_nothing_is_allowed_or_tests_are_not_tests():
    rng = np.random.default_rng(0)
    for k in (2, 3):
        sampler = AWRS(rows([0.5, 0.5, 0.0]), only(2, set()), k)
        assert run(sampler.sample((), rng))[1] == -math.inf
        assert run(AWRS(rows([0.0, 0.0, 0.0]), only(2, {0}), k).sample((), rng))[1] == -math.inf
    with pytest.raises(ValueError, match="0 or -inf"):
        run(AWRS(rows([0.5, 0.5, 0.0]), FunctionPotential(2, len, lambda c: -0.5)).sample((), rng))
    with pytest.raises(ValueError, match="at least 2"):
        AWRS(rows([1.0]), only(0, set()), 1)


def test_awrs_is_exact_where_little_is_allowed():
    """An allowed token of probability 1e-30 behind a refused one: the weight is its mass, not a rounding error."""
    sampler = AWRS(rows([1.0, 1e-30, 2e-30]), only(2, {1}))
    rng = np.random.default_rng(0)
    draws = [run(sampler.sample((), rng)) for _ in range(200)]
    assert all(token == 1 for token, _ in draws)
    assert np.mean([math.exp(w) for _, w in draws]) == pytest.approx(1e-30, rel=0.3)
    assert {round(math.exp(w) * 1e30, 6) for _, w in draws} == {1.0}


def test_awrs_tests_only_what_it_tries():
    asked = []
    n = 5000
    base = LMPotential(
        CachedCausalLM(
            MockBackend(n),
            None,
            oc.Vocabulary(n - 1, {"a": [0]}, special_tokens={f"<{i}>": i for i in range(1, n - 1)}),
        ),
        [],
    )
    condition = FunctionPotential(n, lambda c: True, lambda c: asked.append(c) or c[-1] % 2 == 0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        run(AWRS(base, condition).sample((), rng))
    assert len(asked) < 20 * 20


def test_direct_sampler_weighs_properly(monkeypatch, parts):
    model, constraint = parts
    for context in ((), (2,), (3, 1)):
        properly_weighted(monkeypatch, DirectSampler(model * constraint), context)
        properly_weighted(monkeypatch, DirectSampler(model * constraint, proposal=constraint), context)
        properly_weighted(monkeypatch, DirectSampler(model * constraint, proposal=model), context)
    monkeypatch.undo()
    assert np.ptp(properly_weighted_on_average(DirectSampler(model * constraint), ())) < 1e-12
    assert run(DirectSampler(rows([0.0, 0.0])).sample((), np.random.default_rng(0)))[1] == -math.inf
    with pytest.raises(ValueError, match="proposal"):
        DirectSampler(model, rows([1.0]))


def test_awrs_with_an_automaton(monkeypatch, parts):
    for context in ((), (2,), (3, 1)):
        properly_weighted(monkeypatch, AWRS(*parts), context)


def set_vocabulary():
    return oc.Vocabulary(9, {"a": [0], "b": [1, 7], "ab": [2], "abc": [3, 8], "c": [4], "bc": [5], "ca": [6]})


@pytest.mark.parametrize(
    ("pattern", "context"),
    [
        (PATTERN, ()),
        (PATTERN, (6,)),
        ("a*b*c*", ()),
        ("a*b*c*", (0,)),
        ("ca(b|a)*", (6,)),
        ("ca(b|a)*", ()),
        ("b*", ()),
    ],
)
def test_set_sampler_weighs_properly(monkeypatch, pattern, context):
    vocabulary = set_vocabulary()
    model = LMPotential(CachedCausalLM(MockBackend(11, seed=3), None, vocabulary), [])
    sampler = SetSampler(model, oc.compile_regex(pattern, byte_vocabulary()), vocabulary)
    properly_weighted(monkeypatch, sampler, context)


def test_set_sampler_with_weighted_items(monkeypatch):
    vocabulary = set_vocabulary()
    model = LMPotential(CachedCausalLM(MockBackend(10, seed=4), None, vocabulary), [])

    class Few(AutomatonPotential):
        """A constraint, and fewer b's."""

        async def prefix(self, context):
            return await super().prefix(context) - 0.7 * context.count(98)

        async def complete(self, context):
            return await super().complete(context) - 0.7 * context.count(98)

        async def logw_next(self, context):
            weights = await super().logw_next(context)
            weights[98] -= 0.7
            return weights

    items = Few(oc.compile_regex("(a|b|c)*", byte_vocabulary()), size=256)
    run(assert_laws(items, [(), (97, 98), (120,)]))
    sampler = SetSampler(model, items, vocabulary)
    for context in ((), (3,)):
        properly_weighted(monkeypatch, sampler, context)
    run(assert_laws(sampler.target, [(), (2,), (9,)]))
    with pytest.raises(ValueError, match="256"):
        SetSampler(model, model, vocabulary)
