"""`ByteLM` as a potential, strings of any kind, characters and words."""

from __future__ import annotations

import asyncio
import itertools
import math
from functools import partial

import numpy as np
import pytest

import outlines_core as oc
from processors.bytes import (
    BeamParams,
    ByteLM,
    byte_conditional,
    is_word_byte,
    top_characters,
    word_end_logp,
    word_logp,
)
from processors.inference import DirectSampler, TokenModel, assert_laws, byte_vocabulary, smc_standard
from tests.byte_toys import EXACT, BruteForce, after, byte_lm, log, start

run = asyncio.run
TOKENS = [b"a", b"b", b"ab", b"ba", b"aab", b" ", b"a b", b"</s>"]
toy = partial(byte_lm, TOKENS, eos=[7], special={"</s>": 7})
SOME = [*b"ab </sz"]


@pytest.mark.parametrize("K", [1, 2, None])
def test_the_laws_of_potentials_hold_for_every_beam(K):
    potential = ByteLM(toy(), BeamParams(K), b"ab", initial_context=[])
    contexts = [(), (97,), (97, 98), tuple(b"ab a"), (122,), (97, 122, 97)]
    run(assert_laws(potential, contexts, tokens=SOME))


def test_without_bounds_it_is_the_models_distribution():
    lm, given = toy(), b"ab"
    exact = BruteForce(lm)
    potential = ByteLM(lm, EXACT, given, initial_context=[])
    for text in (b"", b"a", b"ab a", b"baab"):
        whole = exact.prefix(given)
        assert run(potential.prefix(tuple(text))) == pytest.approx(log(exact.prefix(given + text) / whole), abs=1e-6)
        assert run(potential.complete(tuple(text))) == pytest.approx(
            log(exact.complete(given + text) / whole), abs=1e-6
        )


def test_few_beams_are_remembered_and_nothing_depends_on_it():
    texts = [tuple(text) for n in range(4) for text in itertools.product(b"ab", repeat=n)]

    async def weights(potential):
        return await asyncio.gather(*(potential.complete(text) for text in texts))

    one, many = (ByteLM(toy(), BeamParams(2), initial_context=[], n_beams=n) for n in (1, 64))
    assert run(weights(one)) == pytest.approx(run(weights(many)))
    assert len(one._known) == 1
    with pytest.raises(ValueError, match="n_beams"):
        ByteLM(toy(), EXACT, n_beams=0)


def test_it_multiplies_with_automata_and_smc_runs_on_bytes():
    lm = toy()
    pattern = oc.compile_regex("(ab|b)a?", byte_vocabulary())
    target = ByteLM(lm, EXACT, initial_context=[]) * pattern
    run(assert_laws(target, [(), (97,), (98, 97)], tokens=SOME))
    exact = BruteForce(lm)
    texts = {text: exact.complete(text) for text in (b"ab", b"b", b"aba", b"ba")}
    particles = run(smc_standard(TokenModel(DirectSampler(target), max_tokens=6), n_particles=2000, seed=0))
    assert particles.log_ml == pytest.approx(log(sum(texts.values())), abs=0.15)


def test_any_string_is_scored_after_any_other():
    lm = toy()
    exact = BruteForce(lm)
    scores = run(byte_conditional(lm, "aba", "b a", EXACT, initial_context=[]))
    assert scores.logprob == pytest.approx(log(exact.prefix(b"b aaba") / exact.prefix(b"b a")), abs=1e-6)
    assert scores.logprob + scores.log_end == pytest.approx(
        log(exact.complete(b"b aaba") / exact.prefix(b"b a")), abs=1e-6
    )
    assert scores.per_byte.sum() == pytest.approx(scores.logprob)
    assert scores.bits_per_byte == pytest.approx(-scores.logprob / math.log(2) / 3)
    nothing = run(byte_conditional(lm, "az", params=EXACT, initial_context=[]))
    assert (nothing.logprob, nothing.per_byte[1], nothing.log_end) == (-math.inf, -math.inf, -math.inf)
    assert run(byte_conditional(lm, b"", initial_context=[])).bits_per_byte == 0.0
    strings = [run(byte_conditional(lm, bytes(s), b"a", EXACT, initial_context=[])).logprob for s in ([97], [98], [32])]
    end = run(byte_conditional(lm, b"", b"a", EXACT, initial_context=[])).log_end
    assert np.exp([*strings, end]).sum() == pytest.approx(1, abs=1e-6)


class TestCharacters:
    tokens = [b"a", "é".encode(), b"\xc3", b"\xa9", "☃".encode(), b"\xe2\x98", b"\x83", b"\xff", b"\xf0\x9f", b""]
    lm = byte_lm(tokens, eos=[9])

    def test_the_likeliest_come_first(self):
        exact = BruteForce(self.lm)
        spelled = [bytes(s) for n in (1, 2, 3) for s in itertools.product(b"a\xc3\xa9\xe2\x98\x83\xff", repeat=n)]
        candidates = {s.decode(): exact.prefix(s) for s in spelled if _decodes(s)}
        expected = sorted(((c, log(p)) for c, p in candidates.items() if p), key=lambda pair: -pair[1])
        expected.append((None, log(exact.complete(b""))))
        expected.sort(key=lambda pair: -pair[1])
        found = run(top_characters(start(self.lm), len(expected)))
        assert [c for c, _ in found] == [c for c, _ in expected]
        assert [p for _, p in found] == pytest.approx([p for _, p in expected])
        assert run(top_characters(start(self.lm), 2)) == found[:2]
        assert run(top_characters(start(self.lm), 0)) == []

    def test_only_well_formed_utf_8_begins_a_character(self):
        from processors.bytes.characters import _length

        def begins(text):
            return any(_decodes(text + rest) for rest in (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80"))

        seconds = [bytes(pair) for pair in itertools.product(range(256), (0, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF))]
        for text in [bytes([b]) for b in range(256)] + seconds:
            if len(text) == 1 or _length(text[:1]) > 1:
                longer = [text, *(text + s for s in (b"\x90", b"\xa0"))]
                assert bool(_length(text)) == any(map(begins, longer)), text


def _decodes(text):
    try:
        return len(text.decode()) == 1
    except UnicodeDecodeError:
        return False


def test_words_end_where_they_end():
    lm = toy()
    exact = BruteForce(lm)
    beam = run(after(start(lm), b"a "))
    whole = exact.prefix(b"a ")
    end = exact.prefix(b"a ab ") + exact.complete(b"a ab") + exact.prefix(b"a ab<")
    assert run(word_logp(beam, "ab")) == pytest.approx(log(end / whole), abs=1e-6)
    assert run(word_logp(beam, "z")) == -math.inf
    no_letters = exact.prefix(b"a  ") + exact.complete(b"a ") + exact.prefix(b"a <")
    assert run(word_end_logp(beam)) == pytest.approx(log(no_letters / whole), abs=1e-6)
    assert run(word_end_logp(beam, lambda byte: True)) == pytest.approx(log(exact.complete(b"a ") / whole), abs=1e-6)
    assert [is_word_byte(b) for b in b"aZ9_' .\xc3"] == [True] * 5 + [False, False, True]
