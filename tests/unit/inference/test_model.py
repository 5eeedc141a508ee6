"""`Model`: weights, twists, sample, observe, intervene, submodels, copies; distributions without state."""

from __future__ import annotations

import asyncio
import copy
import math

import numpy as np
import pytest

from processors.inference import (
    Bernoulli,
    Geometric,
    LogCategorical,
    Model,
    TokenCategorical,
    Transformer,
    sample_word,
    sample_word_2,
    submodel,
)
from processors.lm import LMContext, Token
from tests.lm_toys import toy_lm


def run(coroutine):
    return asyncio.run(coroutine)


@pytest.fixture
def lm():
    return toy_lm({"a": 0, "b": 1, " c": 2, "c": 3, ",": 5, ".": 6, " cab": 7, "'": 8}, 4)


@pytest.fixture
def model():
    model = Model()
    model.rng = np.random.default_rng(0)
    return model


# -- weights -----------------------------------------------------------------------------------------------------------


def test_scores_add_up(model):
    model.score(-1.0)
    model.score(0.25)
    assert model.weight == -0.75
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="NaN"):
            model.score(wrong)
        with pytest.raises(ValueError, match="NaN"):
            model.twist(wrong)
    model.weight = 3.0
    assert model.weight == 3.0
    model.finish()
    model.reset()
    assert (model.weight, model.finished) == (0.0, False)


def test_conditions(model):
    model.condition(True)
    assert (model.weight, model.finished) == (0.0, False)
    model.condition(False)
    assert (model.weight, model.finished, model.is_dead) == (-math.inf, True, True)


def test_twists_are_taken_back(model):
    model.score(-1.0)
    model.twist(-2.0)
    model.twist(0.5)
    assert (model.weight, model.twist_amount) == (-2.5, -1.5)
    model.weight = -4.0  # as resampling sets it
    model.untwist()
    assert model.weight == -2.5
    model.twist(-math.inf)
    assert (model.weight, model.is_dead) == (-math.inf, False)
    model.finish()
    assert (model.weight, model.done_stepping()) == (-2.5, True)


# -- sample, observe, intervene ----------------------------------------------------------------------------------------


def test_sample_has_no_weight_and_a_proposal_has(model):
    run(model.sample(Bernoulli(0.3)))
    assert model.weight == 0.0
    value = run(model.sample(Bernoulli(0.3), proposal=Bernoulli(0.9)))
    p, q = (0.3, 0.9) if value else (0.7, 0.1)
    assert model.weight == pytest.approx(math.log(p) - math.log(q))


def test_a_proposal_moves_the_context_it_is_for(model, lm):
    ctx = LMContext(lm, "a")
    expected = ctx.next_token_logprobs
    token = run(model.sample(ctx.next_token(), proposal=LogCategorical(np.zeros(9))))
    assert ctx.tokens == [0, token]
    assert model.weight == pytest.approx(expected[token] + math.log(9), abs=1e-5)


def test_observe(model, lm):
    ctx = LMContext(lm, "a")
    expected = ctx.next_token_logprobs[1]
    assert run(model.observe(ctx.next_token(), Token(lm, 1))) == 1
    assert model.weight == pytest.approx(expected, abs=1e-6)
    assert ctx.tokens == [0, 1]


def test_observing_the_impossible_finishes_this_particle_alone(model, lm):
    ctx = LMContext(lm, "a")
    before = ctx.model_mask
    assert run(model.observe(ctx.mask_dist(set()), True)) is True
    assert (model.weight, model.finished, ctx.model_mask) == (-math.inf, True, before)


def test_intervene(model, lm):
    ctx = LMContext(lm, "a")
    assert run(model.intervene(ctx.mask_dist({1, 2}), True)) is True
    assert (model.weight, ctx.model_mask) == (0.0, {1, 2})
    assert run(model.intervene(Bernoulli(0.0), True)) is True
    assert not model.finished
    assert run(model.intervene(ctx.mask_dist({3}), True)) is True
    assert (model.weight, model.finished, ctx.model_mask) == (-math.inf, True, {1, 2})


def test_step_must_be_defined(model):
    with pytest.raises(NotImplementedError, match="step"):
        run(model.step())


# -- submodels ---------------------------------------------------------------------------------------------------------


def test_submodels_act_on_the_model_that_calls(model):
    @submodel
    async def inner(self, p):
        self.score(-1.0)
        self.twist(-0.5)
        self.condition(True)
        assert self.rng is model.rng
        await self.intervene(Bernoulli(p), True)
        return await self.sample(Bernoulli(1.0))

    @submodel
    async def outer(self, *, p):
        """What it is for."""
        await self.observe(Bernoulli(p), True)
        return [await self.call(inner(p)), await self.call(inner(p))]

    assert outer.__doc__ == "What it is for."
    assert run(model.call(outer(p=0.5))) == [True, True]
    assert model.weight == pytest.approx(math.log(0.5) - 3.0)
    with pytest.raises(RuntimeError, match=r"model\.call"):
        inner(1).score(0)


@pytest.mark.parametrize("seed", range(5))
def test_words(model, lm, seed):
    model.rng = np.random.default_rng(seed)
    ctx = LMContext(lm, "a")
    for _ in range(4):
        before = str(ctx)
        word, mark = run(model.call(sample_word(ctx, max_tokens=3)))
        assert len(word) <= 3
        assert str(word)[0] == " "
        assert set(str(word)[1:]) <= set("abc'")
        assert mark is None or str(mark) in {",", "."}
        assert str(ctx) == before + str(word) + (str(mark) if mark else "")
        assert model.weight > -math.inf
    ctx = LMContext(lm, "a'")
    for _ in range(4):
        word, mid, end = run(model.call(sample_word_2(ctx, max_chars=4)))
        assert 1 <= len(word.strip()) <= 4
        assert mid in {"", ","}
        assert end in {"", "."}
        assert not (mid and end)


def test_words_need_tokens_that_begin_with_a_space(model):
    ctx = LMContext(toy_lm({"a": 0, "b": 1, " ": 2}, 3), "a")
    for words in (sample_word, sample_word_2):
        with pytest.raises(ValueError, match="no token begins with a space"):
            run(model.call(words(ctx)))


# -- copies ------------------------------------------------------------------------------------------------------------


def test_copies_share_what_is_said_to_be_immutable_and_draw_differently(lm):
    class Mine(Model):
        def __init__(self):
            super().__init__()
            self.ctx = LMContext(lm, "a")
            self.big, self.own = [1], [2]

        def immutable_properties(self):
            return {"big"}

    model = Mine()
    model.rng = np.random.default_rng(5)
    model.twist(1.0)
    twins = [copy.deepcopy(model) for _ in range(2)]
    for twin in twins:
        assert twin.big is model.big
        assert twin.own == [2]
        assert twin.own is not model.own
        assert twin.ctx is not model.ctx
        assert twin.ctx.lm is lm
        assert (twin.weight, twin.twist_amount) == (1.0, 1.0)
    assert len({m.rng.random() for m in (model, *twins)}) == 3


# -- distributions -----------------------------------------------------------------------------------------------------


def test_bernoulli_and_geometric():
    rng = np.random.default_rng(0)
    draws = [run(Bernoulli(0.3).sample(rng)) for _ in range(20)]
    assert {(value, round(math.exp(lp), 6)) for value, lp in draws} == {(True, 0.3), (False, 0.7)}
    assert run(Bernoulli(1.0).log_prob(False)) == -math.inf
    assert run(Geometric(0.25).log_prob(3)) == pytest.approx(math.log(0.75**2 * 0.25))
    assert run(Geometric(0.25).log_prob(0)) == -math.inf
    assert run(Geometric(1.0).log_prob(1)) == 0.0
    assert run(Geometric(1.0).log_prob(2)) == -math.inf
    value, logprob = run(Geometric(0.5).sample(rng))
    assert logprob == pytest.approx(value * math.log(0.5))
    with pytest.raises(ValueError, match="probability"):
        Bernoulli(1.5)
    with pytest.raises(ValueError, match="p must"):
        Geometric(0)


def test_categoricals(lm):
    dist = LogCategorical([0.0, -math.inf, math.log(3)])
    assert run(dist.log_prob(2)) == pytest.approx(math.log(0.75))
    assert run(dist.log_prob(1)) == run(dist.log_prob(5)) == run(dist.log_prob(-1)) == -math.inf
    rng = np.random.default_rng(1)
    counts = np.bincount([run(dist.sample(rng))[0] for _ in range(400)], minlength=3)
    assert counts[1] == 0
    assert abs(counts[2] / 400 - 0.75) < 0.1
    for logits in ([], [-math.inf], [math.nan, 0.0], [[0.0]]):
        with pytest.raises(ValueError, match="logits"):
            LogCategorical(logits)
    tokens = TokenCategorical(lm, np.arange(9.0))
    token, logprob = run(tokens.sample(rng))
    assert isinstance(token, Token)
    assert run(tokens.log_prob(token)) == run(tokens.log_prob(int(token))) == logprob
    with pytest.raises(ValueError, match="10 logits"):
        TokenCategorical(lm, np.zeros(10))


@pytest.mark.parametrize("temp", [0.5, 1.0, 2.0])
def test_transformer_is_normalised_at_any_temperature(lm, temp):
    dist = Transformer(lm, "ab", temp)
    assert sum(math.exp(run(dist.log_prob(i))) for i in range(9)) == pytest.approx(1.0)
    np.testing.assert_allclose(
        [run(dist.log_prob(i)) for i in range(9)], LMContext(lm, "ab", temp).next_token_logprobs, atol=1e-5
    )
    token, logprob = run(dist.sample(np.random.default_rng(0)))
    assert run(dist.log_prob(token)) == logprob


SHORT = {0, 1, 5}


def narrowed(lm):
    """A next token of which some were ruled out."""
    context = LMContext(lm, "a", 1.3)
    run(context.mask_dist(SHORT).observe(False))
    return context.next_token()


DISTRIBUTIONS = {
    "bernoulli": (lambda lm: Bernoulli(0.3), [False, True]),
    "geometric": (lambda lm: Geometric(0.4), range(1, 40)),
    "log-categorical": (lambda lm: LogCategorical([0.0, -math.inf, 1.0, -0.5]), range(4)),
    "token-categorical": (lambda lm: TokenCategorical(lm, np.sin(np.arange(9.0))), range(9)),
    "transformer": (lambda lm: Transformer(lm, "ab", 1.5), range(9)),
    "next-token": (lambda lm: LMContext(lm, "a", 0.7).next_token(), range(9)),
    "narrowed": (narrowed, range(9)),
    "token-mask": (lambda lm: LMContext(lm, "a", 0.7).mask_dist(SHORT), [False, True]),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_come_as_often_as_their_probability_says(lm, name):
    make, support = DISTRIBUTIONS[name]
    n, rng, dist = 1500, np.random.default_rng(0), make(lm)

    async def draws():
        return [await copy.deepcopy(dist).sample(rng) for _ in range(n)]  # a context moves when it is sampled from

    found = run(draws())
    for value, logprob in dict(found).items():
        assert run(dist.log_prob(value)) == pytest.approx(logprob, abs=1e-6)
    chances = [math.exp(run(dist.log_prob(value))) for value in support]
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    for value, p in zip(support, chances, strict=True):
        share = sum(drawn == value for drawn, _ in found) / n
        assert abs(share - p) <= 4.5 * math.sqrt(p * (1 - p) / n), value


def test_what_lies_outside_is_impossible(lm):
    for dist in (Transformer(lm, "ab"), TokenCategorical(lm, np.zeros(9)), LMContext(lm, "ab").next_token()):
        assert run(dist.log_prob(-1)) == run(dist.log_prob(9)) == -math.inf
    assert run(Geometric(0.5).log_prob(1.5)) == -math.inf
