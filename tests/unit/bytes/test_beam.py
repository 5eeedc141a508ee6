"""Beams: exact against the sum over all tokenizations, and what they do when K is small."""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outlines_core as oc
from processors.bytes import EOS, BeamParams, ByteBeamState, DeadBeamError
from processors.bytes.healing import heal
from processors.inference import byte_vocabulary
from tests.byte_toys import EXACT, BruteForce, BytesTokenizer, after, byte_lm, log, start

run = asyncio.run
TOKENS = [b"a", b"b", b"ab", b"ba", b"aab", b"a", b"", b"</s>", b"bb", b"<s>"]
toy = partial(byte_lm, TOKENS, eos=[7], special={"</s>": 7, "<s>": 9}, n_logits=12)

strings = st.text("ab<", max_size=5).map(str.encode)
vocabularies = st.lists(st.text("ab<", min_size=1, max_size=3).map(str.encode), min_size=1, max_size=7).map(
    lambda tokens: [*tokens, b"a", b"b", b"<", b"", b"<b"]
)


@settings(deadline=None, max_examples=40)
@given(tokens=vocabularies, text=strings, seed=st.integers(0, 9), ends=st.booleans())
def test_without_bounds_it_is_the_sum_over_all_tokenizations(tokens, text, seed, ends):
    """With duplicates, a special token "<b" that ends the text, another end that is text, and padded logits."""
    eos_byte_strings = [b"<b", b"b"] if ends else None
    lm = byte_lm(tokens, eos=[len(tokens) - 1], special={"<b": len(tokens) - 1}, n_logits=len(tokens) + 2, seed=seed)
    exact = BruteForce(lm, eos_byte_strings)
    params = BeamParams(K=None, eos_byte_strings=eos_byte_strings)
    if exact.prefix(text) > 0:
        beam = run(after(start(lm, params), text))
        whole = exact.prefix(text)
        assert beam.logZ == pytest.approx(log(whole), abs=1e-6)
        ps = run(beam.logp_next())
        for byte in b"ab<x":
            assert ps[byte] == pytest.approx(log(exact.prefix(text + bytes([byte])) / whole), abs=1e-6)
        assert ps[EOS] == pytest.approx(log(exact.complete(text) / whole), abs=1e-6)
        assert np.exp(ps.ps).sum() == pytest.approx(1)
        ended = run(beam << EOS)
        assert ended.logZ == pytest.approx(log(exact.complete(text)), abs=1e-6)
    filled = run(start(lm, params).prefill(text))
    expected = exact.prefix(text, eos_is_text=True)
    if filled.states and text[-1:] not in (b"<", b"b"):  # no end of the text may be on the way
        assert filled.logZ == pytest.approx(log(expected), abs=1e-6)


@pytest.mark.parametrize("text", [b"", b"a", b"abba", b"aabab"])
def test_mass_is_conserved(text):
    """What may come after a beam weighs what the beam weighs, byte by byte, if nothing is dropped."""
    beam = run(after(start(toy()), text))
    ps = run(beam.logp_next())
    for byte in b"ab":
        assert run(beam << byte).logZ == pytest.approx(beam.logZ + ps[byte], abs=1e-9)
    parts = [run(beam << symbol).logZ for symbol in (*b"ab<", EOS)]
    assert np.logaddexp.reduce(parts) == pytest.approx(beam.logZ, abs=1e-9)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_each_candidate_weighs_its_tokens_and_its_partial_token(threshold):
    lm = toy()
    beam = start(lm, BeamParams(K=4, prune_threshold=threshold))
    for byte in b"abbaab":
        beam = run(beam.prune() << byte)
        for state in beam:
            tokens = state.lm_state.context
            rows = [lm.next_token_logprobs_unbatched(tokens[:k]).astype(np.float64) for k in range(len(tokens))]
            known = [i for i, token in enumerate(TOKENS) if token]
            weight = sum(row[t] - np.logaddexp.reduce(row[known]) for row, t in zip(rows, tokens, strict=True))
            assert weight + state.mass[state.node] == pytest.approx(state.weight, abs=1e-6)
            assert b"".join(TOKENS[t] for t in tokens) + state.partial == b"abbaab"[: beam.n_bytes]


@pytest.mark.parametrize("K", [1, 2, 3])
def test_pruning(K):
    beam = run(after(start(toy()), b"abbaab"))
    assert len(beam) > 5
    kept = ByteBeamState(beam.states, BeamParams(K=K)).prune()
    assert kept.states == beam.states[:K]
    shares = [math.exp(state.weight - beam.logZ) for state in beam]
    assert shares == sorted(shares, reverse=True)
    threshold = (shares[1] + shares[2]) / 2
    assert len(ByteBeamState(beam.states, BeamParams(None, threshold)).prune()) == 2
    assert kept.logZ <= beam.logZ


def test_more_candidates_lose_less():
    text = b"aabbabab"
    found = [run(after(start(toy(), BeamParams(K)), text, prune=True)).logZ for K in (1, 2, 4, 8, None)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(log(BruteForce(toy()).prefix(text)), abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    text=st.text("ab", max_size=9).map(str.encode),
    K=st.sampled_from([1, 2, 3, 5, None]),
    threshold=st.sampled_from([0.0, 0.02, 0.2]),
    seed=st.integers(0, 5),
    tokenizer=st.booleans(),
)
def test_prefill_is_the_beam_byte_by_byte(text, K, threshold, seed, tokenizer):
    lm = toy(seed=seed)
    if not tokenizer:
        lm.tokenizer = None
    beam = start(lm, BeamParams(K, threshold))
    slow, fast = run(after(beam, text, prune=True)), run(beam.prefill(text))
    assert fast.n_bytes == slow.n_bytes == len(text)
    assert [s.weight for s in fast] == pytest.approx([s.weight for s in slow], abs=1e-12)
    assert [s.lm_state.context for s in fast] == [s.lm_state.context for s in slow]


def test_prefill_asks_in_few_batches():
    text = b"aabbababaabbabab" * 4
    batches = []
    for fill in (lambda beam: after(beam, text, prune=True), lambda beam: beam.prefill(text)):
        lm = toy()
        beam, asked = start(lm, BeamParams(2)), []
        answer = lm._batcher.run
        lm._batcher.run = lambda queries, answer=answer, asked=asked: asked.append(len(queries)) or answer(queries)
        run(fill(beam))
        batches.append(len(asked))
    assert batches[1] < batches[0] * 2 / 3


def test_prompts_may_hold_tokens_that_end_a_text():
    lm = toy()
    beam = start(lm, BeamParams(K=3))
    filled = run(beam.prefill(b"</s>ab"))
    assert filled.logZ > -math.inf
    assert [7] in [state.lm_state.context[:1] for state in filled]
    assert run(after(beam, b"</s>")).states == []  # as text that is written, it would have ended
    assert len(run(filled.greedy(b"", 3))) <= 3
    ended = run(filled << EOS)
    assert all(state.terminated for state in ended)


def test_the_end_of_the_text():
    lm = toy()
    beam = start(lm)
    row = lm.next_token_logprobs_unbatched([]).astype(np.float64)
    known = np.logaddexp.reduce([row[i] for i, token in enumerate(TOKENS) if token])
    assert run(beam.logp_next())[EOS] == pytest.approx(row[7] - known)
    ended = run(beam << EOS)
    assert [state.terminated for state in ended] == [True]
    with pytest.raises(DeadBeamError, match="ended"):
        run(ended.logp_next())
    dead = run(ended << 97)
    assert len(dead) == 0
    assert "ended" in dead.death
    without = byte_lm([b"a", b"b", b""], eos=[2], logits=lambda prefix: np.array([0.0, 0.0, -np.inf]))
    assert run(start(without).logp_next())[EOS] == -math.inf
    assert "the end of the text after 0 bytes: no candidate can take it" in run(start(without) << EOS).death


def test_a_dead_beam_says_why():
    beam = run(after(start(toy(), BeamParams(K=2)), b"abz"))
    assert (len(beam), beam.logZ) == (0, -math.inf)
    assert len(run(beam << 97)) == len(beam.prune()) == 0
    with pytest.raises(DeadBeamError, match=r"byte b'z' after 2 bytes: .* larger K") as caught:
        run(beam.logp_next())
    assert (caught.value.position, caught.value.byte) == (2, ord("z"))
    assert "dead" in repr(beam)


class TestHealing:
    """Beams of one candidate that is in the middle of a token when the text goes another way."""

    short = byte_lm([b"a", b"ab", b"x", b""], eos=[3], logits=lambda prefix: np.array([0.0, 0.0, 0.0, -np.inf]))

    def test_the_token_is_cut_elsewhere(self):
        (state,) = run(start(self.short) << ord("a")).states
        healed, why = run(heal([state], ord("x"), BeamParams(K=1)))
        assert healed.weight == pytest.approx(2 * math.log(1 / 3))
        assert (healed.partial, healed.lm_state.context, why) == (b"x", [0], "")

    long = byte_lm(
        [b"a", b"b", b"c", b"abcd", b"x", b""], eos=[5], logits=lambda prefix: np.log([0.1, 0.1, 0.1, 0.6, 0.1, 1e-9])
    )

    @pytest.mark.parametrize(
        ("options", "survives"),
        [
            ({}, True),
            ({"heal_max_splits": 2}, True),
            ({"heal_max_splits": 1}, False),
            ({"heal_max_splits": 0}, False),
            ({"heal_max_backoff": 2}, True),
            ({"heal_max_backoff": 1}, False),
            ({"heal": False}, False),
        ],
    )
    def test_limits(self, options, survives):
        """ "abc" inside "abcd", then "x": only "a|b|c|x" will do; the cut after "a" lies two bytes back."""
        beam = run(after(start(self.long, BeamParams(K=1, **options)), b"abc", prune=True))
        assert [state.partial for state in beam.prune()] == [b"abc"]
        healed = run(beam.prune() << ord("x"))
        assert bool(healed.states) == survives
        if survives:
            assert healed.states[0].lm_state.context == [0, 1, 2]
            assert healed.logZ == pytest.approx(4 * math.log(0.1), abs=1e-4)
        else:
            (name,) = options
            assert f"{name}={options[name]}" in healed.death

    def test_the_end_is_reached_too(self):
        beam = run(after(start(self.long, BeamParams(K=1)), b"abc", prune=True)).prune()
        ended = run(beam << EOS)
        assert [state.lm_state.context for state in ended] == [[0, 1, 2]]


class TestGuides:
    lm = toy()

    def guide(self, pattern, vocabulary=None):
        return oc.compile_regex(pattern, vocabulary or byte_vocabulary())

    @pytest.mark.parametrize("pattern", ["a(b|ab)*", "(ab){1,2}|b"])
    def test_conditionals_are_the_models_among_what_is_allowed(self, pattern):
        beam = start(self.lm, guide=self.guide(pattern))
        free = start(self.lm)
        text = b""
        for _ in range(4):
            ps, unguided = run(beam.logp_next()), run(free.logp_next())
            state = run(after_automaton(pattern, text))
            allowed = [b for b in range(256) if state.allowed[b]] + ([EOS] if state.allowed[EOS] else [])
            total = np.logaddexp.reduce([unguided[s] for s in allowed])
            for symbol in (*b"abx", EOS):
                expected = unguided[symbol] - total if symbol in allowed else -math.inf
                assert ps[symbol] == pytest.approx(expected)
            byte = next(b for b in b"ab" if b in allowed and ps[b] > -math.inf) if set(allowed) & set(b"ab") else None
            if byte is None:
                break
            text += bytes([byte])
            beam, free = run(beam << byte), run(free << byte)
            assert beam.logZ == pytest.approx(free.logZ)

    def test_what_is_not_allowed_is_a_dead_beam(self):
        dead = run(start(self.lm, guide=self.guide("ab")) << ord("b"))
        assert "the guide does not allow byte b'b'" in dead.death
        assert "b'a'" in dead.death
        assert "end" in run(start(self.lm, guide=self.guide("ab")) << EOS).death

    @pytest.mark.parametrize("K", [1, 3])
    @pytest.mark.parametrize("seed", range(5))
    def test_samples_satisfy_the_guide(self, K, seed):
        beam = start(self.lm, BeamParams(K), guide=self.guide("(ab|ba){2,4}"))
        text = run(beam.sample(b"bb", 20, seed=seed))
        assert text.startswith(b"bb")  # the prompt is not the guide's matter
        assert run(beam.sample(b"bb", 20, seed=seed)) == text
        import re

        assert re.fullmatch(rb"(ab|ba){2,4}", text[2:])

    def test_the_models_own_vocabulary_serves_if_it_has_all_bytes(self):
        tokens = [bytes([b]) for b in range(256)] + [b"ab", b""]
        lm = byte_lm(tokens, eos=[257])
        texts = [
            run(start(lm, BeamParams(2), guide=oc.compile_regex("[ab]{6}", v)).greedy(b"", 9))
            for v in (lm.vocabulary, byte_vocabulary())
        ]
        assert texts[0] == texts[1]
        assert len(texts[0]) == 6

    def test_bytes_that_are_missing_are_refused(self):
        with pytest.raises(oc.IncompatibleVocabularyError, match="byte_vocabulary"):
            start(self.lm, guide=oc.compile_regex("ab", self.lm.vocabulary))
        with pytest.raises(oc.IncompatibleVocabularyError) as caught:
            start(self.lm, guide=self.guide("ab|x"))
        assert caught.value.missing_bytes == b"x"

    def test_a_dead_end_of_one_candidate_is_healed(self):
        """K=1 sits inside "abcd", and the guide wants "abx"."""
        tokens = [bytes([b]) for b in range(256)] + [b"abcd", b""]
        lm = byte_lm(tokens, eos=[257], logits=lambda prefix: np.where(np.arange(258) == 256, 9.0, 0.0))
        beam = start(lm, BeamParams(1), guide=self.guide("abx"))
        assert run(beam.greedy(b"", 9)) == b"abx"


async def after_automaton(pattern, text):
    from processors.bytes.guides import ByteGuide
    from processors.bytes.trie import TokenByteTrie

    guide = ByteGuide.of(oc.compile_regex(pattern, byte_vocabulary()), TokenByteTrie.of(TestGuides.lm))
    for byte in text:
        guide = guide.advance(byte)
    return guide


def test_greedy_takes_the_best_byte_each_time():
    lm = toy()
    exact = BruteForce(lm)
    text = b""
    while len(text) < 6:
        best = max(((exact.prefix(text + bytes([b])), b) for b in b"ab<s>"), key=lambda pair: pair[0])
        if exact.complete(text) > best[0]:
            break
        text += bytes([best[1]])
    assert run(start(lm).greedy(b"", 6)) == text
    assert run(start(lm).greedy(b"", 6, seed=3)) == text


def test_samples_follow_the_distribution_and_end():
    lm = toy(seed=2)
    beam, exact = start(lm), BruteForce(lm)
    drawn = [run(beam.sample(b"", 2, seed=seed)) for seed in range(800)]
    for text in (b"", b"a", b"b", b"ab", b"ba", b"bb"):
        p = exact.complete(text) if len(text) < 2 else exact.prefix(text)
        assert drawn.count(text) / 800 == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 800) + 1e-3)
    assert run(beam.sample(b"ab", 3, draw=lambda chart: max(chart, key=chart.get))) == run(beam.greedy(b"ab", 3))
    with pytest.raises(ValueError, match="draw chose"):
        run(beam.sample(b"", 1, draw=lambda chart: 7))
    with pytest.raises(ValueError, match="seed"):
        run(beam.sample(b"", 1, draw=lambda chart: 97, seed=1))


def test_ties_are_broken_by_the_seed():
    lm = byte_lm([b"a", b"b", b""], eos=[2], logits=lambda prefix: np.array([0.0, 0.0, -np.inf]))
    beam = start(lm)
    assert run(beam.greedy(b"", 8)) == b"aaaaaaaa"
    assert run(beam.greedy(b"", 8, seed=1)) == run(beam.greedy(b"", 8, seed=1))
    assert len({run(beam.greedy(b"", 8, seed=seed)) for seed in range(5)}) > 1


def test_a_byte_costs_nothing_after_its_distribution():
    lm = toy()
    beam = run(after(start(lm, BeamParams(4)), b"abb"))
    run(beam.logp_next())
    n_rows = lm.backend.n_rows
    run(beam.prune() << ord("a"))
    assert lm.backend.n_rows == n_rows


def test_a_threshold_that_would_leave_nothing():
    """Two candidates of equal weight whose tokens can only end: neither has more than 0.6 of the beam."""
    lm = byte_lm([b"a", b"b", b"bb", b""], eos=[3], logits=lambda prefix: np.log([0.2, 0.25, 0.5, 0.05]))
    bb = run(after(start(lm), b"bb")).states[0]
    assert bb.lm_state.context == []
    beam = ByteBeamState([bb, bb], BeamParams(2, 0.6), n_bytes=2)
    ps = run(beam.logp_next())
    assert np.exp(ps.ps).sum() == pytest.approx(1)
    assert ps[ord("a")] == pytest.approx(math.log(0.2))
    unhealed = ByteBeamState([bb, bb], BeamParams(2, 0.6, heal=False), n_bytes=2)
    with pytest.raises(DeadBeamError, match="after 2 bytes nothing can follow"):
        run(unhealed.logp_next())


@pytest.mark.parametrize("symbol", [-1, 256, 258])
def test_what_is_no_byte(symbol):
    beam = start(toy())
    with pytest.raises(ValueError, match="neither a byte"):
        run(beam << symbol)
    with pytest.raises(ValueError, match="neither a byte"):
        beam.states[0] << symbol


def test_forks_are_independent():
    beam = run(after(start(toy()), b"ab"))
    before = [(state.weight, state.partial) for state in beam]
    a, b = run(beam << 97), run(beam << 98)
    assert [(state.weight, state.partial) for state in beam] == before
    assert run(beam << 97).logZ == a.logZ != b.logZ
    assert len(run(beam.extend())) > 0
    assert run(beam.cleanup()) is None


def test_params():
    with pytest.warns(DeprecationWarning, match="eos_byte_strings"):
        assert BeamParams(3, eos_tokens=[b"a"]).eos_byte_strings == {b"a"}
    with pytest.raises(TypeError, match="old name"):
        BeamParams(3, eos_tokens=[b"a"], eos_byte_strings=[b"a"])
    for bad in ({"K": 0}, {"K": 1, "prune_threshold": -0.1}, {"K": 1, "prune_threshold": 1.0}):
        with pytest.raises(ValueError, match="must be|is a share"):
            BeamParams(**bad)
    with pytest.raises(ValueError, match="heal_max_splits"):
        BeamParams(1, heal_max_splits=-1)
    assert BeamParams(2) == BeamParams(2, 0.0)
    assert hash(BeamParams(2)) == hash(BeamParams(2, 0.0))
    with pytest.raises(ValueError, match="no token"):
        start(toy(), BeamParams(2, eos_byte_strings=[b"nothing"]))


def test_verbose_logs_and_nothing_prints(caplog, capsys):
    with caplog.at_level(logging.INFO):
        run(after(start(toy(), BeamParams(2, verbose=True)), b"ab"))
    assert len(caplog.records) == 2
    assert "logZ" in caplog.text
    assert capsys.readouterr() == ("", "")


def test_the_context_may_be_bounded():
    lm = toy()
    lm.tokenizer = BytesTokenizer(TOKENS, bos=9)
    beam = run(ByteBeamState.initial(lm, EXACT, max_context_length=2))
    beam = run(after(beam, b"abbaab"))
    assert {len(state.lm_state.context) for state in beam} <= {1, 2}
    assert all(state.lm_state.context[0] == 9 for state in beam)
