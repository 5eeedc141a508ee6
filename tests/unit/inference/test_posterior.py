"""`generate_posterior` against enumeration: what masking distorts comes out right."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

import outlines_core as oc
from processors.inference import (
    AWRS,
    AutomatonPotential,
    DirectSampler,
    FunctionPotential,
    LMPotential,
    SetSampler,
    TokenModel,
    byte_vocabulary,
    generate_posterior,
    smc_standard,
)
from processors.lm import CachedCausalLM, MockBackend
from tests.inference_toys import PATTERN, exact, problem, total_variation


def run(coroutine):
    return asyncio.run(coroutine)


def texts(lm, probabilities):
    found = {}
    for ids, p in probabilities.items():
        text = lm.decode(ids)
        found[text] = found.get(text, 0.0) + p
    return found


def tail_heavy():
    """The module's example: "a" 0.9, then "x" 0.01; "b" 0.1, then "x" 0.9."""
    vocabulary = oc.Vocabulary(4, {"a": [0], "b": [1], "x": [2], "y": [3]})
    rows = {
        (): [0.9, 0.1, 0, 0, 0],
        (0,): [0, 0, 0.01, 0.99, 0],
        (1,): [0, 0, 0.9, 0.1, 0],
    }

    def logits(prefix):
        with np.errstate(divide="ignore"):
            return np.log(rows.get(prefix, [0, 0, 0, 0, 1]))

    lm = CachedCausalLM(MockBackend(5, logits), None, vocabulary)
    lm.encode = lambda text: []
    return lm, oc.compile_regex("ax|bx", vocabulary)


def masked_only(lm, automaton, n, seed):
    """What masking samples: a token at a time, renormalised, no weights."""
    rng = np.random.default_rng(seed)
    sampler = DirectSampler(LMPotential(lm, []) * automaton)
    counts = {}
    for _ in range(n):
        ids = ()
        while (token := run(sampler.sample(ids, rng))[0]) >= 0:
            ids = (*ids, token)
        text = lm.decode(ids)
        counts[text] = counts.get(text, 0) + 1 / n
    return counts


@pytest.mark.parametrize("method", ["mask", "awrs"])
def test_the_bias_of_masking_and_its_removal(method):
    lm, automaton = tail_heavy()
    truth = {"ax": 0.009 / 0.099, "bx": 0.09 / 0.099}
    assert masked_only(lm, automaton, 500, 0)["ax"] == pytest.approx(0.9, abs=0.05)
    posterior = run(generate_posterior(lm, "", automaton, 1000, method=method, seed=0))
    assert total_variation(posterior.probabilities, truth, 1.0) < 0.05
    assert math.exp(posterior.log_evidence) == pytest.approx(0.099, rel=0.15)
    assert [t.text for t in posterior.texts] == ["bx", "ax"]
    assert posterior.texts[0].token_ids == (1, 2)
    assert {posterior.sample(np.random.default_rng(k)) for k in range(30)} == {"ax", "bx"}


SAMPLERS = {
    "mask": lambda model, automaton, lm: DirectSampler(model * automaton),
    "awrs": lambda model, automaton, lm: AWRS(model, AutomatonPotential(automaton)),
    "awrs-4": lambda model, automaton, lm: AWRS(model, AutomatonPotential(automaton), 4),
    "set": lambda model, automaton, lm: SetSampler(model, oc.compile_regex(PATTERN, byte_vocabulary()), lm.vocabulary),
}


def particle(name, lm, automaton, max_tokens=9):
    return TokenModel(SAMPLERS[name](LMPotential(lm, []), automaton, lm), max_tokens=max_tokens, lm=lm)


def unbiased_evidence(name, n, runs):
    lm, automaton = problem()
    z = exact(lm)[1]
    model = particle(name, lm, automaton)

    async def values():
        return [math.exp((await smc_standard(model, n, seed=k)).log_ml) for k in range(runs)]

    found = run(values())
    error = np.std(found, ddof=1) / math.sqrt(runs)
    assert 0 < error < 0.2 * z
    assert abs(np.mean(found) - z) < 3 * error, (np.mean(found), z, error)


@pytest.mark.parametrize("name", SAMPLERS)
def test_evidence_is_unbiased(name):
    unbiased_evidence(name, 4, 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_evidence_is_unbiased_over_2000_runs(name):
    unbiased_evidence(name, 5, 2000)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("mask", 12_000), ("awrs", 20_000), ("awrs-4", 16_000), ("set", 20_000)])
def test_posterior(name, n):
    lm, automaton = problem()
    probabilities, z = exact(lm)
    particles = run(smc_standard(particle(name, lm, automaton), n, seed=0))
    truth = texts(lm, probabilities)
    assert total_variation(particles.posterior(), truth, z) < 0.02
    assert particles.log_ml == pytest.approx(math.log(z), abs=0.05)


@pytest.mark.parametrize("max_tokens", [2, 3])
def test_the_limit_of_tokens_is_part_of_the_target(max_tokens):
    lm, automaton = problem()
    probabilities, z = exact(lm, max_tokens=max_tokens)
    assert all(len(ids) <= max_tokens for ids in probabilities)
    posterior = run(generate_posterior(lm, "", automaton, 800, max_tokens=max_tokens, seed=0))
    assert total_variation(posterior.probabilities, texts(lm, probabilities), z) < 0.08
    assert posterior.log_evidence == pytest.approx(math.log(z), abs=0.15)


def test_a_critic_weighs_texts():
    lm, automaton = problem()

    def cs(text):
        return -1.5 * text.count("c")

    critic = FunctionPotential(5, cs, cs, decode=lm.decode)
    truth = {text: p * math.exp(cs(text)) for text, p in texts(lm, exact(lm)[0]).items()}
    z = sum(truth.values())
    posterior = run(generate_posterior(lm, "", automaton, 800, max_tokens=9, critic=critic, seed=0))
    assert total_variation(posterior.probabilities, truth, z) < 0.1
    assert posterior.log_evidence == pytest.approx(math.log(z), abs=0.15)
    none = FunctionPotential(5, lambda ids: False, lambda ids: len(ids) < 2)
    assert run(generate_posterior(lm, "", automaton, 10, critic=none, seed=0)).texts == ()


def test_no_text_at_all():
    lm, automaton = problem()
    posterior = run(generate_posterior(lm, "", automaton, 5, max_tokens=0, seed=0))
    assert (posterior.texts, posterior.log_evidence, posterior.ess) == ((), -math.inf, 0.0)
    with pytest.raises(ValueError, match="more particles"):
        posterior.sample(np.random.default_rng(0))


def test_what_is_refused():
    lm, automaton = problem()
    with pytest.raises(ValueError, match="'best'"):
        run(generate_posterior(lm, "", automaton, method="best"))
    with pytest.raises(TypeError, match="str"):
        run(generate_posterior(lm, "", "a+"))
    with pytest.raises(ValueError, match="max_tokens"):
        run(generate_posterior(lm, "", automaton, max_tokens=-1))


def test_a_function_as_a_guide():
    lm, _ = problem()
    guide = FunctionPotential(5, lambda t: t == "ab", "ab".startswith, decode=lm.decode)
    posterior = run(generate_posterior(lm, "c", guide, 400, method="awrs", seed=0))
    probabilities, z = exact(lm, "ab".__eq__, prompt=(3,))
    assert posterior.probabilities == {"ab": pytest.approx(1.0)}
    assert posterior.log_evidence == pytest.approx(math.log(z), abs=0.3)
    assert posterior.texts[0].token_ids == max(probabilities, key=probabilities.get)


# -- with a real model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    pytest.importorskip("torch")
    from processors import load_embedded

    model, tokenizer = load_embedded()
    return CachedCausalLM.from_pretrained(model, tokenizer)


def enumerated(lm, prompt, automaton):
    """The posterior of an automaton with few texts, each spelling summed up."""
    model = LMPotential(lm, prompt) * automaton
    truth = {}

    async def walk(ids, logp):
        weights = await model.logw_next(ids)
        if weights[-1] > -math.inf:
            text = lm.decode(ids)
            truth[text] = truth.get(text, 0.0) + math.exp(logp + weights[-1])
        allowed = np.flatnonzero(weights[:-1] > -math.inf).tolist()
        await asyncio.gather(*(walk((*ids, t), logp + weights[t]) for t in allowed))

    run(walk((), 0.0))
    return truth


def test_the_embedded_model_given_a_choice(embedded):
    """Masking and the posterior, on the same model and constraint."""
    prompt, choices = "A story: Anna was born in ", ["Paris.", "Rome.", "1987.", "2003."]
    automaton = oc.compile_choice(choices, embedded.vocabulary)
    truth = enumerated(embedded, prompt, automaton)
    z = sum(truth.values())
    assert set(truth) == set(choices)
    posterior = run(generate_posterior(embedded, prompt, automaton, 600, seed=0))
    assert total_variation(posterior.probabilities, truth, z) < 0.12
    assert posterior.log_evidence == pytest.approx(math.log(z), abs=0.3)


def test_awrs_on_the_embedded_model(embedded):
    model = LMPotential(embedded, "Who? Anna was born in ")
    sampler = AWRS(model, AutomatonPotential(oc.compile_regex("[^0-9]*", embedded.vocabulary)))
    z = np.exp(run(sampler.target.logw_next(()))).sum()
    assert 0.1 < z < 0.9
    rng = np.random.default_rng(0)
    weights = [math.exp(run(sampler.sample((), rng))[1]) for _ in range(200)]
    assert abs(np.mean(weights) - z) < 4 * np.std(weights, ddof=1) / math.sqrt(200)
