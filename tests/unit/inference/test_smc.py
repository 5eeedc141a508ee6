"""Inference against exhaustive enumeration; resampling; histories; failures."""

from __future__ import annotations

import asyncio
import copy
import html.parser
import itertools
import json
import math
import re

import numpy as np
import pytest

from processors.inference import Bernoulli, Model, Particles, importance_sampling, smc_standard, smc_steer
from processors.inference.resampling import RESAMPLING
from processors.inference.smc import _thinned, effective_sample_size
from tests.inference_toys import SMALL, Constrained, exact, ids_of, problem, total_variation


def run(coroutine):
    return asyncio.run(coroutine)


METHODS = {
    "importance": lambda model, n, seed: importance_sampling(model, n, seed=seed),
    "steer": lambda model, n, seed: smc_steer(model, n, 3, seed=seed),
    **{
        name: lambda model, n, seed, name=name: smc_standard(model, n, 0.7, resampling_method=name, seed=seed)
        for name in RESAMPLING
    },
}


# -- exactness ---------------------------------------------------------------------------------------------------------


async def estimates(method, model, n, runs):
    return [math.exp((await method(model, n, seed)).log_ml) for seed in range(runs)]


def unbiased(values, z):
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert 0 < error < 0.2 * z
    assert abs(np.mean(values) - z) < 3 * error, (np.mean(values), z, error)


async def measures(method, model, n, runs):
    """Of each run, the weight that each text got."""
    found = []
    for seed in range(runs):
        particles = await method(model, n, seed)
        found.append({ids: p * math.exp(particles.log_ml) for ids, p in particles.posterior(ids_of).items()})
    return found


def properly_weighted(found, probabilities, n_texts):
    """On average a run gives each text the weight that is its probability under the model."""
    assert {ids for measure in found for ids in measure} <= set(probabilities)
    for ids in sorted(probabilities, key=probabilities.get)[-n_texts:]:
        values = [measure.get(ids, 0.0) for measure in found]
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        assert 0 < error < 0.5 * probabilities[ids]
        assert abs(np.mean(values) - probabilities[ids]) < 4 * error, ids


@pytest.mark.parametrize("name", ["importance", "stratified", "steer"])
def test_weights_are_proper(name):
    lm, automaton = problem()
    probabilities, z = exact(lm)
    found = run(measures(METHODS[name], Constrained(lm, automaton), 3, 150))
    unbiased([sum(measure.values()) for measure in found], z)
    properly_weighted(found, probabilities, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_log_marginal_is_unbiased_over_2000_runs(name):
    lm, automaton = problem(1)
    probabilities, z = exact(lm)
    found = run(measures(METHODS[name], Constrained(lm, automaton), 5, 2000))
    unbiased([sum(measure.values()) for measure in found], z)
    properly_weighted(found, probabilities, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [(name, 24_000 if name == "steer" else 40_000) for name in METHODS])
def test_posterior(name, n):
    lm, automaton = problem(pattern=SMALL)
    probabilities, z = exact(lm, re.compile(SMALL).fullmatch)
    particles = run(METHODS[name](Constrained(lm, automaton), n, 1))
    assert total_variation(particles.posterior(ids_of), probabilities, z) < 0.02
    assert particles.log_ml == pytest.approx(math.log(z), abs=0.05)


# -- weights -----------------------------------------------------------------------------------------------------------


class Coins(Model):
    """Three fair coins, all heads wanted; `twisted` says so early."""

    def __init__(self, twisted=False):
        super().__init__()
        self.coins, self.twisted = [], twisted

    async def step(self):
        self.coins.append(await self.sample(Bernoulli(0.5)))
        if len(self.coins) == 3:
            self.score(0.0 if all(self.coins) else -5.0)
            self.finish()
        elif self.twisted:
            self.twist(0.0 if all(self.coins) else -4.0)

    def __str__(self):
        return "".join("ht"[not coin] for coin in self.coins)


@pytest.mark.parametrize("twisted", [False, True])
def test_twists_leave_the_target_alone(twisted):
    z = 1 / 8 + 7 / 8 * math.exp(-5)
    unbiased(run(estimates(METHODS["multinomial"], Coins(twisted), 5, 400)), z)
    particles = run(smc_standard(Coins(twisted), 3000, 0.9, seed=3))
    assert particles.posterior()["hhh"] == pytest.approx(1 / 8 / z, abs=0.03)


def test_resampling_keeps_the_mean_weight_and_finished_particles_take_part():
    class Early(Model):
        async def step(self):
            self.score(-1.0 if await self.sample(Bernoulli(0.5)) else -9.0)
            self.finish()

    particles = run(smc_standard(Early(), 40, 1.0, seed=0))
    assert len(particles) == 40
    assert len(set(particles.log_weights)) == 1
    alone = run(importance_sampling(Early(), 40, seed=0))
    assert particles.log_ml == pytest.approx(alone.log_ml)
    assert len(set(map(id, particles))) == 40


def test_threshold_zero_never_resamples():
    particles = run(smc_standard(Coins(), 50, 0.0, seed=0))
    assert set(particles.log_weights) == {0.0, -5.0}


def test_every_particle_dead():
    class Doomed(Model):
        async def step(self):
            self.condition(False)

    for particles in (
        run(smc_standard(Doomed(), 4)),
        run(smc_steer(Doomed(), 4, 3)),
        run(importance_sampling(Doomed(), 4)),
    ):
        assert len(particles) == 4
        assert particles.log_ml == -math.inf
        assert (particles.ess, particles.posterior()) == (0.0, {})
        assert not particles.probabilities.any()


def test_dead_particles_are_not_stepped():
    class Scored(Model):
        def __init__(self):
            super().__init__()
            self.steps = 0

        async def step(self):
            self.steps += 1
            self.score(-math.inf if self.steps == 2 else 0.0)
            assert self.steps < 3

    assert all(p.steps == 2 and not p.finished for p in run(smc_standard(Scored(), 3)))


def test_one_impossible_mask_does_not_end_the_run():
    lm, automaton = problem()

    class Risky(Constrained):
        async def step(self):
            if await self.sample(Bernoulli(0.3)):
                await self.observe(self.ctx.mask_dist(set()), True)
            await super().step()

    particles = run(smc_standard(Risky(lm, automaton), 30, seed=0))
    assert particles.log_ml > -math.inf
    assert all(ids_of(p) in exact(lm)[0] for p in particles if p.weight > -math.inf)


# -- seeds, failures, concurrency --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_equal_seeds_give_equal_runs(name):
    lm, automaton = problem()
    before = np.random.get_state()[1].copy()  # noqa: NPY002  # that it is left alone
    first, second, other = (run(METHODS[name](Constrained(lm, automaton), 20, seed)) for seed in (7, 7, 8))
    assert [str(p) for p in first] == [str(p) for p in second]
    np.testing.assert_array_equal(first.log_weights, second.log_weights)
    assert [str(p) for p in first] != [str(p) for p in other]
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_runs_side_by_side_do_not_disturb_each_other():
    lm, automaton = problem()

    async def both():
        return await asyncio.gather(
            smc_standard(Constrained(lm, automaton), 10, seed=1), smc_standard(Constrained(lm, automaton), 12, seed=2)
        )

    together = run(both())
    lm.clear_cache()
    for particles, n, seed in zip(together, (10, 12), (1, 2), strict=True):
        alone = run(smc_standard(Constrained(lm, automaton), n, seed=seed))
        assert [str(p) for p in particles] == [str(p) for p in alone]


def test_the_model_given_is_left_alone():
    model = Coins()
    run(smc_standard(model, 5, seed=0))
    assert (model.coins, model.weight, model.rng) == ([], 0.0, None)


def test_an_exception_comes_out_after_the_others_were_cancelled():
    running = []

    class Broken(Model):
        async def step(self):
            running.append(self)
            try:
                if len(running) == 3:
                    raise ZeroDivisionError
                await asyncio.sleep(60)
            finally:
                running.remove(self)

    with pytest.raises(ZeroDivisionError):
        run(smc_standard(Broken(), 5))
    assert running == []


def test_what_is_refused():
    with pytest.raises(ValueError, match="resampling method 'best'"):
        run(smc_standard(Coins(), 3, resampling_method="best"))
    with pytest.raises(ValueError, match="n_particles"):
        run(smc_standard(Coins(), 0))
    with pytest.raises(ValueError, match="n_beam"):
        run(smc_steer(Coins(), 3, 0))


# -- resampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESAMPLING)
def test_resampling_is_unbiased(name):
    rng = np.random.default_rng(0)
    weights = np.array([0.05, 0.0, 0.4, 0.15, 0.3, 0.1, 0.0])
    n, runs = len(weights), 4000
    counts = np.zeros((runs, n))
    for k in range(runs):
        ancestors = RESAMPLING[name](weights, rng)
        assert ancestors.shape == (n,)
        assert ancestors.dtype == np.int64
        counts[k] = np.bincount(ancestors, minlength=n)
    error = counts.std(axis=0, ddof=1) / math.sqrt(runs)
    assert np.all(np.abs(counts.mean(axis=0) - n * weights) <= 4 * error + 1e-12)
    assert counts[:, weights == 0].sum() == 0
    if name != "multinomial":
        assert counts.var(axis=0).sum() <= (n * weights * (1 - weights)).sum() * 1.05
    if name in ("systematic", "residual"):
        assert np.all(counts >= np.floor(n * weights - 1e-9))


@pytest.mark.parametrize("name", RESAMPLING)
def test_resampling_of_one_weight(name):
    assert RESAMPLING[name](np.array([0.0, 1.0, 0.0]), np.random.default_rng(0)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("n", [1, 3, 6])
def test_thinning_is_unbiased_and_keeps_no_dead_weight(n):
    rng = np.random.default_rng(0)
    weights = np.array([0.5, 0.01, 0.2, 0.0, 0.05, 0.09, 0.15, 0.0, 0.002])
    with np.errstate(divide="ignore"):
        logw = np.log(weights)
    runs = 3000
    total = np.zeros((runs, len(weights)))
    for k in range(runs):
        kept, new = _thinned(logw, n, rng)
        assert len(kept) == len(set(kept)) == n
        total[k, kept] = np.exp(new)
    error = total.std(axis=0, ddof=1) / math.sqrt(runs)
    assert np.all(np.abs(total.mean(axis=0) - weights) <= 4 * error + 1e-9)
    assert total[:, weights == 0].sum() == 0


def test_thinning_keeps_what_is_alive_and_no_more():
    logw = np.array([-1.0, -math.inf, -2.0, -math.inf, -math.inf])
    assert _thinned(logw, 3, np.random.default_rng(0)) == ([0, 2], [-1.0, -2.0])
    assert _thinned(np.full(4, -math.inf), 2, np.random.default_rng(0))[0] == [0, 1]


def test_effective_sample_size():
    assert effective_sample_size(np.array([-700.0, -700.0, -700.0])) == pytest.approx(3)
    assert effective_sample_size(np.array([0.0, -math.inf])) == pytest.approx(1)
    assert effective_sample_size(np.array([-math.inf])) == 0
    assert Particles().posterior() == {}


# -- history -----------------------------------------------------------------------------------------------------------


def test_history(tmp_path):
    particles = run(smc_standard(Coins(), 6, 1.0, visualization_dir=tmp_path / "run", json_file="coins.json", seed=2))
    records = json.loads((tmp_path / "run" / "coins.json").read_text())
    assert [r["mode"] for r in records][:2] == ["init", "smc_step"]
    assert {r["mode"] for r in records} == {"init", "smc_step", "resample"}
    last_step = [r for r in records if r["mode"] == "smc_step"][-1]
    assert last_step["step"] == 3
    for before, record in itertools.pairwise(records):
        sources = record.get("ancestors", range(6))
        for row, k in zip(record["particles"], sources, strict=True):
            old = before["particles"][k]
            assert row["contents"].startswith(old["contents"])
            assert float(row["weight_incr"]) == pytest.approx(float(row["logweight"]) - float(old["logweight"]))
            if record["mode"] == "resample":
                assert row["contents"] == old["contents"]
    assert [row["contents"] for row in records[-1]["particles"]] == [str(p) for p in particles]
    page = (tmp_path / "run" / "smc.html").read_text()
    assert page.count("<details") == len(records)
    assert "http" not in page
    run(smc_standard(Coins(), 2, json_file=tmp_path / "plain.json"))
    assert json.loads((tmp_path / "plain.json").read_text())[0]["mode"] == "init"


def test_history_of_the_dead_and_of_markup(tmp_path):
    class Doomed(Model):
        async def step(self):
            self.condition(False)

        def __str__(self):
            return "<b>&" if self.finished else "<b>"

    run(smc_standard(Doomed(), 2, visualization_dir=tmp_path))
    records = json.loads((tmp_path / "smc.json").read_text())
    assert records[-1]["particles"][0]["logweight"] == "-Infinity"
    page = (tmp_path / "smc.html").read_text()
    assert "&lt;b&gt;<b>&amp;</b>" in page
    assert page.count('class="dead"') == 2


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_history_of_texts_that_look_like_markup(tmp_path):
    contents = "</script><script>alert(1)</script><img src=x onerror='f()'>\"&lt; \ud800 $title"

    class Odd(Model):
        async def step(self):
            self.finish()

        def string_for_serialization(self):
            return contents

    run(smc_standard(Odd(), 2, visualization_dir=tmp_path))
    records = json.loads((tmp_path / "smc.json").read_text())
    assert {row["contents"] for record in records for row in record["particles"]} == {contents}
    page = Page()
    page.feed((tmp_path / "smc.html").read_text())
    assert not page.tags & {"script", "img"}
    assert page.text.count(contents.replace("\ud800", "\\ud800")) == 4


def test_a_directory_that_cannot_be_made_is_found_out_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    model = Coins()
    model.step = None  # never called
    with pytest.raises(FileExistsError):
        run(smc_standard(model, 2, visualization_dir=tmp_path / "file"))


def test_copies_of_a_prototype_are_cheap_in_the_vocabulary():
    lm, automaton = problem()
    model = Constrained(lm, automaton)
    twin = copy.deepcopy(model)
    assert twin.guide.context is twin.ctx
    assert twin.guide.automaton is automaton
    assert twin.ctx.model_mask is model.ctx.model_mask
