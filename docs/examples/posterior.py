"""What masking distorts, and `generate_posterior` does not: where somebody was born, on the embedded model.

Three columns: the exact probability of each text given the constraint, found by going through all of them; what masked
sampling gives; and what weighted particles give.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import numpy as np

import outlines_core as oc
from processors import load_embedded
from processors.inference import DirectSampler, LMPotential, Potential, generate_posterior
from processors.lm import CachedCausalLM

PATTERN = r"Paris\.|Rome\.|Lima\.|200[0-9]\."  # the model ends such a sentence with a year
PROMPT = "A story: Anna was born in "


async def exact(target: Potential, lm: CachedCausalLM) -> dict[str, float]:
    """The probability of each text, its spellings in tokens summed up."""
    found: dict[str, float] = {}

    async def walk(ids: tuple[int, ...], logp: float) -> None:
        weights = await target.logw_next(ids)
        if weights[-1] > -math.inf:
            text = lm.decode(ids)
            found[text] = found.get(text, 0.0) + math.exp(logp + weights[-1])
        following = np.flatnonzero(weights[:-1] > -math.inf).tolist()
        await asyncio.gather(*(walk((*ids, t), logp + weights[t]) for t in following))

    await walk((), 0.0)
    return found


async def masked(target: Potential, lm: CachedCausalLM, n: int, seed: int) -> dict[str, float]:
    """What sampling under masks gives: each step renormalised, the weight thrown away."""
    rng = np.random.default_rng(seed)
    sampler = DirectSampler(target)
    counts: Counter[str] = Counter()
    for _ in range(n):
        ids: tuple[int, ...] = ()
        while (token := (await sampler.sample(ids, rng))[0]) >= 0:
            ids = (*ids, token)
        counts[lm.decode(ids)] += 1
    return {text: count / n for text, count in counts.items()}


async def compare(n: int = 1000, seed: int = 0):
    lm = CachedCausalLM.from_pretrained(*load_embedded())
    automaton = oc.compile_regex(PATTERN, lm.vocabulary)
    target = LMPotential(lm, PROMPT) * automaton
    probabilities = await exact(target, lm)
    evidence = sum(probabilities.values())
    truth = {text: p / evidence for text, p in probabilities.items()}
    posterior = await generate_posterior(lm, PROMPT, automaton, n, seed=seed)
    return truth, await masked(target, lm, n, seed), posterior, math.log(evidence)


def distance(a: dict[str, float], b: dict[str, float]) -> float:
    """Total variation."""
    return sum(abs(a.get(text, 0.0) - b.get(text, 0.0)) for text in {*a, *b}) / 2


if __name__ == "__main__":
    truth, by_masks, posterior, log_evidence = asyncio.run(compare())
    by_particles = posterior.probabilities
    print("  exact  masking  particles")
    for text in sorted(truth, key=truth.get, reverse=True):
        print(f"{truth[text]:7.3f}{by_masks.get(text, 0):9.3f}{by_particles.get(text, 0):11.3f}   {text}")
    print(f"total variation: masking {distance(truth, by_masks):.3f}, particles {distance(truth, by_particles):.3f}")
    print(f"log P(constraint): exact {log_evidence:.2f}, estimated {posterior.log_evidence:.2f}")
