"""Sequential Monte Carlo: many particles go on in step, and the weights decide which go on as many.

After each step, if the weights have become too uneven, particles are drawn anew in proportion to their weights, and all
weights become the mean. ``log(mean(exp(weights)))`` at the end is then the logarithm of an unbiased estimate of the
program's normalising constant (for a constrained language model: of the probability that the constraint holds).
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processors.inference.history import History
from processors.inference.model import Model
from processors.inference.resampling import RESAMPLING
from processors.lm.distribution import log_sum_exp

__all__ = ["Particles", "effective_sample_size", "importance_sampling", "smc_standard", "smc_steer"]

Seed = int | Sequence[int] | np.random.SeedSequence | None


class Particles(list[Model]):
    """The particles of a run, with what their weights say.

    Attributes:
        n_particles: how many the run was asked for; the estimate of the normalising constant divides by it.
    """

    def __init__(self, particles: Iterable[Model] = (), n_particles: int | None = None) -> None:
        super().__init__(particles)
        self.n_particles = len(self) if n_particles is None else n_particles

    @property
    def log_weights(self) -> NDArray[np.float64]:
        return np.array([particle.weight for particle in self], dtype=np.float64)

    @property
    def log_ml(self) -> float:
        """The logarithm of an unbiased estimate of the normalising constant; -inf if every particle died."""
        return log_sum_exp(self.log_weights) - math.log(self.n_particles)

    @property
    def ess(self) -> float:
        """Effective sample size: how many equally weighted particles say as much; 0 if every particle died."""
        return effective_sample_size(self.log_weights)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Normalised weights; all 0 if every particle died."""
        logw = self.log_weights
        total = log_sum_exp(logw)
        return np.exp(logw - total) if total > -math.inf else np.zeros(len(logw))

    def posterior(self, key: Callable[[Any], Any] = str) -> dict[Any, float]:
        """The estimated distribution of ``key(particle)``, most probable first; empty if every particle died."""
        found: dict[Any, float] = {}
        for particle, p in zip(self, self.probabilities.tolist(), strict=True):
            if p > 0:
                value = key(particle)
                found[value] = found.get(value, 0.0) + p
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def effective_sample_size(log_weights: NDArray[Any]) -> float:
    """(sum w)^2 / sum w^2; 0 if there is no weight."""
    total = log_sum_exp(log_weights)
    return math.exp(2 * total - log_sum_exp(2 * log_weights)) if total > -math.inf else 0.0


async def smc_standard(
    model: Model,
    n_particles: int,
    ess_threshold: float = 0.5,
    visualization_dir: str | Path | None = None,
    json_file: str | Path | None = None,
    resampling_method: str = "stratified",
    *,
    seed: Seed = None,
) -> Particles:
    """Run copies of a model in step, resampling when their weights become uneven.

    Args:
        model: copied for each particle; itself left alone.
        ess_threshold: resample when the effective sample size is below this share of the particles; 0: never.
        visualization_dir: a directory for the history, as ``smc.json`` (or `json_file`) and as a page, ``smc.html``.
        json_file: where the history goes.
        resampling_method: multinomial, residual, stratified or systematic.
        seed: equal seeds give equal runs (of one model, batch by batch the same); default: entropy of the system.

    Raises:
        ValueError: no particles, or an unknown resampling method.
        Exception: what a particle raises; the steps of the others are cancelled first.
    """
    if resampling_method not in RESAMPLING:
        raise ValueError(f"unknown resampling method {resampling_method!r}; there are {', '.join(RESAMPLING)}")
    resample = RESAMPLING[resampling_method]
    particles, rng = _prepared(model, n_particles, seed)
    history = _history(visualization_dir, json_file)
    await _together(particle.start() for particle in particles)
    if history:
        history.add("init", particles)
    while await _step(particles):
        if history:
            history.add("smc_step", particles)
        logw = particles.log_weights
        total = log_sum_exp(logw)
        if total == -math.inf or effective_sample_size(logw) >= ess_threshold * n_particles:
            continue
        ancestors = np.sort(resample(np.exp(logw - total), rng)).tolist()
        particles[:] = _descendants(particles, ancestors)
        for particle in particles:
            particle.weight = total - math.log(n_particles)
        if history:
            history.add("resample", particles, ancestors)
    if history:
        _write(history, visualization_dir, json_file)
    return particles


async def importance_sampling(model: Model, n_particles: int, *, seed: Seed = None) -> Particles:
    """Run copies of a model side by side, without resampling."""
    return await smc_standard(model, n_particles, ess_threshold=0.0, seed=seed)


async def smc_steer(model: Model, n_particles: int, n_beam: int, *, seed: Seed = None) -> Particles:
    """Steering: each particle is tried `n_beam` ways a step, and the best are kept without duplicates.

    After a step, the tries are thinned out by Fearnhead and Clifford's optimal resampling (2003, *On-line inference for
    hidden Markov models via particle filters*): those of large weight are kept as they are, the others are drawn in
    proportion to their weights and get all the same one. Tries of weight 0 are never kept.
    Source: Lew et al. 2023, *Sequential Monte Carlo steering of large language models using probabilistic programs*.

    Args:
        n_particles: how many are kept after each step; there may be fewer, where fewer are alive.
        n_beam: tries for each particle; 1 is importance sampling.
    """
    if n_beam < 1:
        raise ValueError(f"n_beam must be at least 1, not {n_beam}")
    particles, rng = _prepared(model, n_particles, seed)
    await _together(particle.start() for particle in particles)
    while any(_goes_on(particle) for particle in particles):
        tries = Particles(n_particles=n_particles)
        for particle in particles:
            tries.append(particle)
            if _goes_on(particle):
                particle.untwist()
                particle.score(-math.log(n_beam))
                tries.extend(copy.deepcopy(particle) for _ in range(n_beam - 1))
        await _step(tries)
        kept, weights = _thinned(tries.log_weights, n_particles, rng)
        particles = Particles((tries[i] for i in kept), n_particles)
        for particle, weight in zip(particles, weights, strict=True):
            particle.weight = weight
    return particles


def _thinned(log_weights: NDArray[np.float64], n: int, rng: np.random.Generator) -> tuple[list[int], list[float]]:
    """At most `n` of the weights, with new ones whose expectation is the old ones.

    With c such that sum(min(1, c w)) = n, weights of 1 / c and more stay; of the others about n - kept are chosen by a
    walk in steps of 1 / c, each with the weight 1 / c.
    """
    alive = np.flatnonzero(log_weights > -np.inf)
    if len(alive) <= n:
        few = alive if len(alive) else np.arange(min(n, len(log_weights)))  # all dead: some, to show that
        return few.tolist(), log_weights[few].tolist()
    top = float(log_weights[alive].max())
    weights = np.exp(log_weights[alive] - top)
    ordered = np.sort(weights)[::-1]
    rest = np.append(np.cumsum(ordered[::-1])[::-1], 0.0)  # rest[k]: what is left without the k largest
    k, step = 0, 0.0
    for k in range(n):
        step = rest[k] / (n - k)
        if ordered[k] < step:  # the k largest stay
            break
    order = np.argsort(-weights, kind="stable")
    stay, others = alive[order[:k]], alive[np.sort(order[k:])]
    new = dict(zip(stay.tolist(), log_weights[stay].tolist(), strict=True))
    bounds = np.cumsum(np.exp(log_weights[others] - top))
    marks = (np.arange(n - k) + rng.random()) * step
    picked = np.minimum(np.searchsorted(bounds, marks, side="right"), len(others) - 1)
    new.update(dict.fromkeys(others[picked].tolist(), top + math.log(step)))
    return sorted(new), [new[i] for i in sorted(new)]


# -- running -----------------------------------------------------------------------------------------------------------


def _prepared(model: Model, n_particles: int, seed: Seed) -> tuple[Particles, np.random.Generator]:
    """Copies of the model, each with its generator, and one more for resampling."""
    if n_particles < 1:
        raise ValueError(f"n_particles must be at least 1, not {n_particles}")
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    own, *each = root.spawn(1 + n_particles)
    particles = Particles(copy.deepcopy(model) for _ in range(n_particles))
    for particle, sequence in zip(particles, each, strict=True):
        particle.rng = np.random.default_rng(sequence)
    return particles, np.random.default_rng(own)


def _goes_on(particle: Model) -> bool:
    return not (particle.done_stepping() or particle.is_dead)


async def _step(particles: Particles) -> bool:
    """One step of every particle that goes on; False if none does."""
    going = [particle for particle in particles if _goes_on(particle)]
    for particle in particles:
        particle.untwist()
    await _together(particle.step() for particle in going)
    return bool(going)


async def _together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines side by side.  Where one raises, the others are cancelled and ended before it comes out."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _descendants(particles: Sequence[Model], ancestors: Sequence[int]) -> list[Model]:
    """The ancestors in order; the first of each is the particle itself, further ones are copies."""
    used: set[int] = set()
    found = []
    for k in ancestors:
        found.append(copy.deepcopy(particles[k]) if k in used else particles[k])
        used.add(k)
    return found


def _history(directory: str | Path | None, json_file: str | Path | None) -> History | None:
    """A history, if one is wanted; a directory that cannot be made is found out before the run, not after it."""
    if directory is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
    return None if directory is None and json_file is None else History()


def _write(history: History, directory: str | Path | None, json_file: str | Path | None) -> None:
    if directory is None:
        if json_file is not None:
            history.write(json_file)
        return
    folder = Path(directory)
    history.write(folder / (json_file or "smc.json"))
    history.write_html(folder / "smc.html")
