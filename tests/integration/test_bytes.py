"""Byte-level beams over the embedded model, and the command."""

from __future__ import annotations

import asyncio
import json
import math
import re

import numpy as np
import pytest

pytest.importorskip("transformers")

import outlines_core as oc
from processors import load_embedded
from processors.bytes import EOS, BeamParams, ByteBeamState, byte_conditional
from processors.cli import app
from processors.inference import byte_vocabulary
from processors.lm import CachedCausalLM


@pytest.fixture(scope="module")
def lm():
    model, tokenizer = load_embedded()
    return CachedCausalLM.from_pretrained(model, tokenizer, eos_token_ids=model.generation_config.eos_token_id)


def beam(lm, params, **options):
    context = [lm.eos_token_ids[0]]
    return asyncio.run(ByteBeamState.initial(lm, params, initial_context=context, **options))


@pytest.mark.parametrize("K", [1, 4])
def test_a_prompt_is_the_beam_byte_by_byte(lm, K):
    prompt = "A language model says: naïve words, 12 of them.\n".encode()

    async def slowly(state):
        for byte in prompt:
            state = await (state.prune() << byte)
        return state

    slow = asyncio.run(slowly(beam(lm, BeamParams(K))))
    lm.clear_cache()
    fast = asyncio.run(beam(lm, BeamParams(K)).prefill(prompt))
    # Rows of one prefix differ by some 1e-6 with the batch that they were computed in.
    assert fast.logZ == pytest.approx(slow.logZ, abs=1e-3)
    assert [s.lm_state.context for s in fast] == [s.lm_state.context for s in slow]
    ps = asyncio.run(fast.logp_next()).ps
    assert np.exp(ps).sum() == pytest.approx(1)


def test_texts_are_written_under_a_guide(lm):
    pattern = r"[A-Z][a-z]{2,5}, (19|20)[0-9]{2}\."
    start = beam(lm, BeamParams(2), guide=oc.compile_regex(pattern, byte_vocabulary()))
    text = asyncio.run(start.sample(b"Born: ", 40, seed=5))
    assert re.fullmatch(pattern, text.decode().removeprefix("Born: "))


def test_any_string_has_a_probability(lm):
    context = [lm.eos_token_ids[0]]
    whole = asyncio.run(byte_conditional(lm, "ab\xff".encode("latin-1"), "x", BeamParams(3), initial_context=context))
    assert math.isfinite(whole.logprob)  # bytes that no text has are tokens too
    assert len(whole.per_byte) == 3


def test_healing_meets_any_text(lm):
    text = ". Boulter starred in the 2011 film Mercenaries directed by Paris Leonti .\n戦場のヴァルキュリア3\n".encode()
    state = asyncio.run(beam(lm, BeamParams(1)).prefill(text))
    assert state.logZ > -math.inf
    assert asyncio.run(state.logp_next())[EOS] < 0
    assert asyncio.run(state << EOS).states


def test_the_command_shows_bars_and_json():
    from typer.testing import CliRunner

    runner = CliRunner()
    shown = runner.invoke(app, ["bytes", "A word ", "--top", "3", "--beam", "2"])
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert re.fullmatch(r"7 bytes, log-probability -\d+\.\d\d, \d+\.\d\d bits per byte; next:", lines[0])
    assert all(re.fullmatch(r" +\S+  0\.\d{4}  █*", line) for line in lines[1:])
    assert lines[1].endswith("█" * 40)
    options = ["--json", "--regex", "[0-9]{3}", "--write", "9", "--seed", "1", "--beam", "2"]
    record = json.loads(runner.invoke(app, ["bytes", "A word ", *options]).stdout)
    assert re.fullmatch("[0-9]{3}", record["written"])
    assert set(record["next"]) <= set("0123456789")
    assert sum(record["next"].values()) == pytest.approx(1)
    wrong = runner.invoke(app, ["bytes", "A word ", "--regex", "("])
    assert wrong.exit_code == 2
    assert "unclosed" in wrong.output or "missing" in wrong.output or "(" in wrong.output
