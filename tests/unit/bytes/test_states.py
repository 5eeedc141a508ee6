"""Token states, byte distributions, and single hypotheses."""

from __future__ import annotations

import asyncio
import math
from functools import partial

import numpy as np
import pytest

from processors.bytes import EOS, EOT, LazyByteProbs, LazyTrieState, StatefulTokenizedLM, TrieMode, sample_dict
from tests.byte_toys import BytesTokenizer, byte_lm

TOKENS = [b"a", b"b", b"ab", b"ba", b"ab", b"</s>", b"<s>"]
toy = partial(byte_lm, TOKENS, eos=[5], special={"</s>": 5, "<s>": 6})


def with_bos(**options):
    lm = toy(**options)
    lm.tokenizer = BytesTokenizer(TOKENS, bos=6)
    return lm


def test_token_states_are_values():
    lm = with_bos()
    start = StatefulTokenizedLM.initial(lm, max_context_length=3)
    assert start.context == [6]
    longer = start << 0 << np.int64(1) << 2
    assert longer.context == [6, 1, 2]  # BOS stays, the oldest goes, the limit persists
    assert (longer << 3 << 0).context == [6, 3, 0]
    assert start.context == [6]
    row = asyncio.run(longer.logp_next())
    assert np.array_equal(row, lm.next_token_logprobs_unbatched([6, 1, 2]))
    assert (longer.n_calls, start.n_calls, (longer << 1).n_calls) == (1, 0, 1)
    assert (StatefulTokenizedLM(lm, [0, 1], max_context_length=1) << 2).context == [2]
    assert repr(start << 2) == "<s>|ab"


def test_no_bos_needs_a_context():
    with pytest.raises(ValueError, match="initial_context"):
        StatefulTokenizedLM.initial(toy())
    assert StatefulTokenizedLM.initial(toy(), [3]).context == [3]
    with pytest.raises(ValueError, match="at least 1"):
        StatefulTokenizedLM.initial(toy(), [3], 0)
    with pytest.raises(TypeError):
        StatefulTokenizedLM.initial(toy(), [3]) << "a"


def test_distributions_by_key():
    ps = LazyByteProbs(np.log(np.arange(1, 259) / np.arange(1, 259).sum()))
    assert ps[0] == pytest.approx(math.log(1 / 33411))
    assert ps[None] == ps.ps[EOT]
    assert ps[EOS] == ps.ps[257]
    for key in (-1, 256, 258, 1000):
        with pytest.raises(ValueError, match="neither"):
            ps[key]
    chart = ps.materialize()
    assert list(chart)[-2:] == [None, EOS]
    assert chart[97] == ps[97]
    assert ps.pretty()["b'a'"] == ps[97]
    assert ps.pretty()["EOT"] == ps[None]
    assert [key for key, _ in ps.top(3)] == [EOS, None, 255]
    with pytest.raises(ValueError, match="258"):
        LazyByteProbs(np.zeros(257))
    assert LazyByteProbs(np.eye(258)[3], log_space=False).top(5) == [(3, 1.0)]


def test_draws_are_in_proportion_and_repeatable():
    weights = {"a": 1.0, "b": 0.0, "c": 3.0}
    rng = np.random.default_rng(0)
    drawn = [sample_dict(weights, rng) for _ in range(2000)]
    assert drawn.count("b") == 0
    assert drawn.count("c") / 2000 == pytest.approx(0.75, abs=0.04)
    assert drawn[:50] == [sample_dict(weights, r) for r in [np.random.default_rng(0)] for _ in range(50)]
    for bad in ({}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": math.nan}, {"a": math.inf}):
        with pytest.raises(ValueError, match="draw"):
            sample_dict(bad, rng)


def test_one_hypothesis_asks_once_per_token():
    lm = toy()
    state = LazyTrieState.initial(StatefulTokenizedLM(lm, []))
    with pytest.raises(ValueError, match="materialize"):
        state << 97
    asyncio.run(state.materialize())
    n_rows = lm.backend.n_rows
    a = state << ord("a")
    ab = a << ord("b")
    row = lm.next_token_logprobs_unbatched([]).astype(np.float64)
    assert a.weight == pytest.approx(np.logaddexp.reduce(row[[0, 2, 4]]))
    assert ab.weight == pytest.approx(np.logaddexp(row[2], row[4]))
    assert ab.partial == b"ab"
    assert (ab << ord("a"), ab << EOS, a << ord("x")) == (None, None, None)
    assert lm.backend.n_rows == n_rows
    extended = ab.extend_all()  # both tokens that are spelled so
    assert [new.weight for new in extended] == pytest.approx([row[2], row[4]])
    assert [new.lm_state.context for new in extended] == [[2], [4]]
    assert ab.extend_all() is extended
    assert ab.get_all_EOT() == [(ab.node, 2), (ab.node, 4)]
    assert set(a.actions()) == {ord("b")}
    assert set(state.actions()) == {ord("a"), ord("b"), ord("<"), EOS}
    ended = state << EOS
    assert ended.weight == pytest.approx(row[5])
    assert ended.terminated
    assert ended << 97 is None
    assert ended.extend_all() == []


def test_what_one_hypothesis_says_adds_up():
    lm = toy()
    state = asyncio.run(LazyTrieState.initial(StatefulTokenizedLM(lm, [])).materialize())
    for here in (state, state << ord("a"), state << ord("b"), state << ord("a") << ord("b")):
        ps = here.logp_next.ps
        assert np.exp(ps).sum() == pytest.approx(1)
        for byte in range(256):
            below = here << byte
            assert ps[byte] == pytest.approx(below.weight - here.weight if below else -math.inf)
        assert here.logp_next is here.logp_next
        assert math.exp(here.mass[here.node]) == pytest.approx(math.exp(here.weight - here.base))


def test_modes():
    state = asyncio.run(LazyTrieState.initial(StatefulTokenizedLM(toy(), [])).materialize())
    assert state << ord("<") << ord("/") is None  # the end of the text is no text
    text = state.with_mode(TrieMode.WITHOUT_EOS) << ord("<") << ord("/")
    assert text.weight == pytest.approx(float(toy().next_token_logprobs_unbatched([])[5]))
    assert text.with_mode(TrieMode.WITH_EOS) is None
    assert text.with_mode(TrieMode.WITHOUT_EOS) is text
