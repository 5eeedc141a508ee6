"""Texts from a language model *given* a constraint, with their probabilities.

Masking alone samples something else. It renormalises at every step, so it prefers beginnings that the model likes and
that the constraint then leads where the model would never have gone:

    the model    "a" 0.9, then "x" 0.01     "b" 0.1, then "x" 0.9       the constraint    ax | bx
    masking      ax 0.9, bx 0.1             given the constraint        ax 0.009 / 0.099 = 0.09, bx 0.91

`generate_posterior` corrects this: each particle carries the probability that masking skipped, and resampling moves the
effort to where it is high.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from processors.inference.model import Model
from processors.inference.potentials import EOS, Context, LMPotential, Potential, as_potential
from processors.inference.samplers import AWRS, DirectSampler, TokenSampler
from processors.inference.smc import Particles, Seed, smc_standard
from processors.lm.causal import CachedCausalLM

__all__ = ["Posterior", "TokenModel", "WeightedText", "generate_posterior"]

_NEAR_THE_END = 32
"""So many tokens before the limit, particles are asked whether they can still end in time."""


class TokenModel(Model):
    """A text grown token by token with a sampler, as a particle.

    Args:
        sampler: draws tokens with proper weights for its target.
        critic: a further potential to weigh by; asked once a step, its weight of the beginning is a twist.
        max_tokens: tokens of the text, EOS not counted: the target is restricted to texts of at most so many.
        lm: to show the text; else its ids are shown.

    Attributes:
        token_ids: what was drawn so far, without EOS.
    """

    def __init__(
        self,
        sampler: TokenSampler,
        critic: Potential | None = None,
        *,
        max_tokens: int,
        lm: CachedCausalLM | None = None,
    ) -> None:
        super().__init__()
        if max_tokens < 0:
            raise ValueError(f"max_tokens must not be negative: {max_tokens}")
        self.sampler, self.critic, self.max_tokens, self.lm = sampler, critic, max_tokens, lm
        self.token_ids: Context = ()

    def immutable_properties(self) -> set[str]:
        return {"sampler", "critic", "lm", "token_ids"}

    async def start(self) -> None:
        self._scored(await self.sampler.target.prefix(()))

    async def step(self) -> None:
        if len(self.token_ids) >= self.max_tokens:
            token, weight = EOS, await self.sampler.target.logw_eos(self.token_ids)
        else:
            token, weight = await self.sampler.sample(self.token_ids, self.rng or np.random.default_rng())
        self._scored(weight)
        if self.finished:
            return
        if token == EOS:
            self.finish()
            if self.critic is not None:
                self._scored(await self.critic.complete(self.token_ids))
            return
        self.token_ids = (*self.token_ids, token)
        if not self._can_end_in_time():
            self.condition(False)
        elif self.critic is not None:
            weight = await self.critic.prefix(self.token_ids)
            if weight == -math.inf:
                self.condition(False)
            else:
                self.twist(weight)

    def _can_end_in_time(self) -> bool:
        """False only if no text of `max_tokens` begins like this: what would die later may die now."""
        left = self.max_tokens - len(self.token_ids)
        return left > _NEAR_THE_END or self.sampler.target.min_tokens(self.token_ids) <= left

    def __str__(self) -> str:
        return str(list(self.token_ids)) if self.lm is None else self.lm.decode(self.token_ids)


@dataclass(frozen=True)
class WeightedText:
    """A text, its probability given the constraint, and the ids of its most probable spelling among the particles."""

    text: str
    probability: float
    token_ids: Context


@dataclass(frozen=True)
class Posterior:
    """Weighted texts.

    Attributes:
        texts: distinct, most probable first; empty if no particle survived.
        log_evidence: the logarithm of an unbiased estimate of the probability that the model's text satisfies the
            constraint (and the critic's mean weight, where there is one) within the limit of tokens.
        ess: effective sample size of the particles.
        particles: the particles themselves.
    """

    texts: tuple[WeightedText, ...]
    log_evidence: float
    ess: float
    particles: Particles

    @property
    def probabilities(self) -> dict[str, float]:
        return {t.text: t.probability for t in self.texts}

    def sample(self, rng: np.random.Generator) -> str:
        """One of the texts, drawn by its probability.  Raises ValueError if there are none."""
        if not self.texts:
            raise ValueError("no particle satisfied the constraint: use more particles or more tokens")
        p = np.array([t.probability for t in self.texts])
        return self.texts[int(rng.choice(len(p), p=p / p.sum()))].text


async def generate_posterior(
    lm: CachedCausalLM,
    prompt: str | Iterable[int],
    guide: Any,
    n_particles: int = 20,
    *,
    max_tokens: int = 100,
    temp: float = 1.0,
    method: str = "mask",
    critic: Potential | None = None,
    ess_threshold: float = 0.5,
    resampling_method: str = "stratified",
    seed: Seed = None,
    visualization_dir: str | None = None,
) -> Posterior:
    """Texts from p(x | x satisfies the guide, and has at most `max_tokens` tokens), with weights.

    Args:
        prompt: a text, or token ids; given, so not weighed.
        guide: a token automaton, or a potential over the model's ids that says 0 or -inf (any potential with "mask").
        n_particles: more particles, closer to the posterior; each costs the model's forwards for its text.
        method: ``"mask"`` weighs all tokens at each step; ``"awrs"`` tests only the tokens it tries, which pays where
            the guide is a function that takes its time.
        critic: a further potential that texts are weighed by, asked once a step and particle.
        ess_threshold, resampling_method, seed, visualization_dir: as for `smc_standard`.

    Raises:
        ValueError: an unknown method.
    """
    model = LMPotential(lm, prompt, temp)
    condition = as_potential(guide, model.size)
    sampler: TokenSampler
    if method == "mask":
        sampler = DirectSampler(model * condition)
    elif method == "awrs":
        sampler = AWRS(model, condition)
    else:
        raise ValueError(f"method must be 'mask' or 'awrs', not {method!r}")
    particles = await smc_standard(
        TokenModel(sampler, critic, max_tokens=max_tokens, lm=lm),
        n_particles,
        ess_threshold,
        visualization_dir,
        resampling_method=resampling_method,
        seed=seed,
    )
    ids: dict[str, Context] = {}
    for context in particles.posterior(lambda particle: particle.token_ids):
        ids.setdefault(lm.decode(context), context)
    texts = tuple(WeightedText(text, p, ids[text]) for text, p in particles.posterior().items())
    return Posterior(texts, particles.log_ml, particles.ess, particles)
