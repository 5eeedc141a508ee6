"""`LMContext`: the table of sample, observe and intervene, staged masks, laziness, copies, guides."""

from __future__ import annotations

import asyncio
import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outlines_core as oc
from processors.lm import LMContext, Token, TokenMask, TokenSequence
from tests.lm_toys import toy_lm

TOKENS = {"a": 0, "b": 1, "ab": 2, " c": 3, "d": 5}
EOS = 4
SIZE = 8  # ids 6 and 7 are padding


def make(**options):
    return toy_lm(TOKENS, EOS, n_logits=SIZE, **options)


def run(coroutine):
    return asyncio.run(coroutine)


def expected(lm, ids, temp=1.0, mask=frozenset(range(6))):
    """The table's row, written out."""
    row = lm.next_token_logprobs_unbatched(ids).astype(np.float64) / temp
    weights = [math.exp(row[i]) if i in mask else 0.0 for i in range(SIZE)]
    return np.array([math.log(w / sum(weights)) if w else -math.inf for w in weights])


@pytest.fixture
def lm():
    return make()


@pytest.fixture(params=[1.0, 0.5, 3.0])
def ctx(request, lm):
    return LMContext(lm, "ab", request.param)


def close(a, b):
    np.testing.assert_allclose(a, b, atol=1e-5)


# -- what a context knows ----------------------------------------------------------------------------------------------


def test_fresh(ctx, lm):
    assert (ctx.tokens, ctx.token_count, ctx.prompt_token_count, ctx.prompt_string_length) == ([2], 0, 1, 2)
    assert ctx.model_mask is lm.masks.ALL_TOKENS
    assert ctx.next_token_logprobs.dtype == np.float32
    close(ctx.next_token_logprobs, expected(lm, [2], ctx.temp))
    with pytest.raises(ValueError, match="read-only"):
        ctx.next_token_logprobs[0] = 0


def test_both_constructors_agree_inside_a_loop_and_out(lm):
    async def both():
        return LMContext(lm, "ab", 0.7).next_token_logprobs, (await LMContext.create(lm, "ab", 0.7)).next_token_logprobs

    first, second = run(both())
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, LMContext(lm, "ab", 0.7).next_token_logprobs)


def test_text(lm):
    ctx = LMContext(lm, "ab", show_prompt=True)
    for token in (3, 0, EOS):
        run(ctx.next_token().intervene(token))
    assert str(ctx) == "ab ca</s>"
    ctx.show_prompt = False
    assert str(ctx) == " ca</s>"
    ctx.show_eos = False
    assert str(ctx) == " ca"
    assert ctx.token_count == 3


def test_what_is_refused(lm):
    for temp in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="temp"):
            LMContext(lm, "a", temp)
    lm.backend.takes_empty = False
    with pytest.raises(ValueError, match="no tokens"):
        LMContext(lm, "")
    with pytest.raises(ValueError, match="no token 8"):
        run(LMContext(lm, "a").next_token().observe(8))


# -- the table ---------------------------------------------------------------------------------------------------------


def test_sample_next_token(ctx, lm):
    before = expected(lm, [2], ctx.temp)
    token, logprob = run(ctx.next_token().sample(np.random.default_rng(1)))
    assert isinstance(token, Token)
    close(logprob, before[token.token_id])
    assert ctx.tokens == [2, token.token_id]
    close(ctx.next_token_logprobs, expected(lm, ctx.tokens, ctx.temp))


@pytest.mark.parametrize("kind", [int, np.int64, "token"])
def test_observe_next_token(ctx, lm, kind):
    before = expected(lm, [2], ctx.temp)
    logprob = run(ctx.next_token().observe(Token(lm, 3) if kind == "token" else kind(3)))
    close(logprob, before[3])
    assert ctx.tokens == [2, 3]
    close(ctx.next_token_logprobs, expected(lm, [2, 3], ctx.temp))


def test_observe_a_token_that_was_ruled_out(ctx, lm):
    run(ctx.mask_dist({0, 1}).observe(True))
    assert run(ctx.next_token().observe(3)) == -math.inf
    assert ctx.tokens == [2, 3]
    assert ctx.model_mask is lm.masks.ALL_TOKENS
    close(ctx.next_token_logprobs, expected(lm, [2, 3], ctx.temp))


def test_intervene_on_the_next_token(ctx, lm):
    run(ctx.mask_dist({0, 1}).observe(True))
    assert run(ctx.next_token().intervene(3)) is True
    assert ctx.tokens == [2, 3]
    assert ctx.model_mask is lm.masks.ALL_TOKENS


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("verb", ["observe", "intervene"])
def test_observe_and_intervene_on_a_mask(ctx, lm, verb, value):
    mask = {0, 3, 5}
    left = mask if value else {1, 2, 4}
    before = expected(lm, [2], ctx.temp)
    answer = run(getattr(ctx.mask_dist(mask), verb)(value))
    if verb == "observe":
        close(answer, math.log(sum(math.exp(before[i]) for i in left)))
    else:
        assert answer is True
    assert ctx.model_mask == left
    assert ctx.tokens == [2]
    close(ctx.next_token_logprobs, expected(lm, [2], ctx.temp, left))


def test_sample_a_mask(ctx, lm):
    mask = {0, 3, 5}
    p_true = sum(math.exp(expected(lm, [2], ctx.temp)[i]) for i in mask)
    rng = np.random.default_rng(3)
    values = []
    for _ in range(2000):
        twin = copy.deepcopy(ctx)
        value, logprob = without_waiting(twin.mask_dist(mask).sample(rng))
        assert type(value) is bool
        close(logprob, math.log(p_true if value else 1 - p_true))
        assert twin.model_mask == (mask if value else {1, 2, 4})
        values.append(value)
    assert abs(np.mean(values) - p_true) < 4 * math.sqrt(p_true * (1 - p_true) / 2000)


def without_waiting(coroutine):
    """A coroutine that never has to wait (its row is remembered), without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


def test_asking_for_a_probability_changes_nothing(ctx, lm):
    before = expected(lm, [2], ctx.temp)
    close(run(ctx.next_token().log_prob(3)), before[3])
    close(run(ctx.mask_dist({3}).log_prob(True)), before[3])
    assert run(ctx.mask_dist({3}).log_prob(False)) == pytest.approx(math.log1p(-math.exp(before[3])), abs=1e-5)
    assert (ctx.tokens, ctx.model_mask) == ([2], set(range(6)))


@pytest.mark.parametrize(("mask", "value"), [(set(), True), (set(range(6)), False), ({6, 7}, True)])
def test_impossible_masks_change_nothing(ctx, mask, value):
    assert run(ctx.mask_dist(mask).observe(value)) == -math.inf
    assert run(ctx.mask_dist(mask).intervene(value)) is False
    assert ctx.model_mask == set(range(6))
    assert run(ctx.mask_dist(mask).sample(np.random.default_rng(0))) == (not value, 0.0)


def test_masks_whose_tokens_all_have_probability_zero():
    logits = np.array([0, 0, -np.inf, -np.inf, 0, 0, 0, 0])
    ctx = LMContext(make(logits=lambda _: logits), "a")
    assert run(ctx.mask_dist({2, 3}).observe(True)) == -math.inf
    assert ctx.model_mask == set(range(6))
    assert not np.isnan(ctx.next_token_logprobs).any()
    for seed in range(20):
        assert run(copy.deepcopy(ctx).mask_dist({2, 3}).sample(np.random.default_rng(seed)))[0] is False
        assert int(run(copy.deepcopy(ctx).next_token().sample(np.random.default_rng(seed)))[0]) not in {2, 3, 6, 7}


def test_padded_ids_are_never_sampled():
    ctx = LMContext(make(logits=lambda _: [0, 0, 0, 0, 0, 0, 50, 50]), "a")
    assert np.isneginf(ctx.next_token_logprobs[6:]).all()
    close(np.exp(ctx.next_token_logprobs[:6]), 1 / 6)
    assert all(int(run(copy.deepcopy(ctx).next_token().sample())[0]) < 6 for _ in range(50))


# -- staged masks ------------------------------------------------------------------------------------------------------


@given(
    masks=st.lists(st.sets(st.integers(0, 5)), max_size=4),
    token=st.integers(0, 5),
    temp=st.sampled_from([0.3, 1.0, 2.0]),
    seed=st.integers(0, 5),
)
def test_product_of_the_stages_is_the_probability_of_the_token(masks, token, temp, seed):
    lm = make(seed=seed)
    ctx = LMContext(lm, "ab", temp)
    total = sum(run(ctx.mask_dist(mask).observe(token in mask)) for mask in masks)
    assert token in ctx.model_mask
    total += run(ctx.next_token().observe(token))
    close(total, expected(lm, [2], temp)[token])


def test_another_temperature_counts_from_now_on(lm):
    ctx = LMContext(lm, "a")
    run(ctx.mask_dist({0, 1, 5}).observe(True))
    ctx.temp = 0.5
    masses = {i: run(ctx.next_token().log_prob(i)) for i in (0, 1, 5)}
    close(sum(map(math.exp, masses.values())), 1.0)
    whole = expected(lm, ctx.tokens, 0.5)
    close(masses[0] - masses[1], whole[0] - whole[1])
    np.testing.assert_allclose(ctx.next_token_logprobs[[0, 1, 5]], list(masses.values()), atol=1e-5)
    with pytest.raises(ValueError, match="temp"):
        ctx.temp = 0.0


def test_probabilities_of_all_ways_add_up_to_one(lm):
    first, second = {0, 1, 3}, {1, 3, 4, 5}
    total = 0.0
    for a, b, token in itertools.product((True, False), (True, False), range(6)):
        ctx = LMContext(lm, "ab")
        logprob = run(ctx.mask_dist(first).observe(a))
        logprob += run(ctx.mask_dist(second).observe(b))
        total += math.exp(logprob + run(ctx.next_token().observe(token)))
    close(total, 1.0)


class Grid:
    """A generator whose draws are given, so that a law of sampling can be checked by going through all of them."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


@settings(max_examples=40)
@given(
    logits=st.lists(st.one_of(st.just(-math.inf), st.floats(-30, 30)), min_size=6, max_size=6),
    mask=st.sets(st.integers(0, 5)),
    temp=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_each_draw_comes_for_its_share_of_the_unit_interval(logits, mask, temp):
    logits[3] = 0.0  # one must be finite
    lm = make(logits=lambda prefix: [*logits, 5.0, -math.inf])
    weights = [math.exp(x / temp) for x in logits]
    n = 200
    grid = [Grid((k + 0.5) / n) for k in range(n)]
    ctx = LMContext(lm, "a", temp)

    async def draws(make_dist):
        return [(await make_dist(copy.deepcopy(ctx)).sample(rng))[0] for rng in grid]

    inside = run(draws(lambda c: c.mask_dist(mask)))
    p = sum(weights[i] for i in mask) / sum(weights)
    assert abs(inside.count(True) / n - p) <= 1 / n
    if p:
        run(ctx.mask_dist(mask).observe(True))
        tokens = [int(token) for token in run(draws(LMContext.next_token))]
        for i in range(SIZE):
            share = weights[i] / sum(weights[j] for j in mask) if i in mask else 0.0
            assert abs(tokens.count(i) / n - share) <= 1 / n
            assert share or i not in tokens


# -- laziness and copies -----------------------------------------------------------------------------------------------


def test_the_model_is_asked_only_for_probabilities(lm):
    ctx = LMContext(lm, "ab")
    for token in (0, 1, EOS):
        run(ctx.next_token().intervene(token))
    copy.deepcopy(ctx)
    str(ctx)
    assert lm.backend.n_rows == 0
    run(ctx.next_token().sample(np.random.default_rng(0)))
    assert lm.backend.n_rows == 1


def test_copies_are_independent_and_share_what_is_large(lm):
    ctx = LMContext(lm, "ab")
    run(ctx.mask_dist({0, 1, 3}).observe(True))
    row = ctx.next_token_logprobs
    twin = copy.deepcopy({"a": ctx, "b": ctx})
    assert twin["a"] is twin["b"]
    twin = twin["a"]
    assert twin.lm is lm
    assert twin.model_mask is ctx.model_mask
    assert twin.next_token_logprobs is row
    assert twin.tokens is not ctx.tokens
    run(twin.next_token().observe(1))
    assert (ctx.tokens, ctx.model_mask) == ([2], {0, 1, 3})
    assert ctx.next_token_logprobs is row
    assert twin.tokens == [2, 1]


def test_copies_of_subclasses_copy_what_they_add(lm):
    class Noted(LMContext):
        pass

    ctx = Noted(lm, "ab")
    ctx.notes = [1]
    twin = copy.deepcopy(ctx)
    twin.notes.append(2)
    assert (type(twin), ctx.notes) == (Noted, [1])


# -- guides ------------------------------------------------------------------------------------------------------------


def test_a_guide_supplies_masks(lm):
    ctx = LMContext(lm, "d")
    guide = ctx.guide(oc.compile_regex("(ab)+ c", lm.vocabulary))
    assert isinstance(guide.mask, TokenMask)
    assert guide.mask == {0, 2}
    assert run(ctx.mask_dist(guide).observe(True)) == pytest.approx(np.logaddexp(*expected(lm, [5])[[0, 2]]), abs=1e-5)
    assert ctx.model_mask == {0, 2}
    for token in (0, 1):
        run(ctx.next_token().observe(token))
    twin, twin_guide = copy.deepcopy([ctx, guide])
    run(twin.next_token().observe(3))
    assert (guide.mask, guide.is_accepting) == ({0, 2, 3}, False)
    assert (twin_guide.mask, twin_guide.is_accepting) == ({EOS}, True)
    assert twin_guide.context is twin
    run(twin.next_token().observe(0))
    assert twin_guide.state == oc.DEAD
    assert not twin_guide.mask
    assert run(twin.mask_dist(twin_guide).observe(True)) == -math.inf


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_tokens(lm):
    token = Token(lm, 3)
    assert (int(token), str(token), repr(token)) == (3, " c", "< c|3>")
    assert token == Token(lm, np.int64(3)) == 3 == np.int64(3) == token
    assert token == " c"
    assert token != "c"
    assert token != 4
    assert token != Token(make(), 3)
    assert token is not None
    assert token != None  # noqa: E711  # the comparison itself
    assert {token} == {3}
    assert str(Token(lm, 7)) == ""
    assert copy.deepcopy(token) is token
    assert token in TokenMask.of([3], SIZE)


def test_token_sequences_are_not_changed_by_addition(lm):
    a, b = TokenSequence(lm, "ab"), Token(lm, 3)
    both = a + b
    assert (both.seq, a.seq) == ([2, 3], [2])
    assert ("d" + a).seq == [5, 2]
    assert (b + "d").seq == [3, 5]
    assert ("d" + b).seq == [5, 3]
    assert (b + b).seq == [3, 3]
    assert (a + 1).seq == [2, 1]
    kept = a
    a += b
    assert (a.seq, kept.seq) == ([2, 3], [2])
    assert str(a) == "ab c"
    assert a == TokenSequence(lm, [2, 3])
    with pytest.raises(ValueError, match="different models"):
        a + Token(make(), 1)
    with pytest.raises(TypeError, match="float"):
        a + 1.5
