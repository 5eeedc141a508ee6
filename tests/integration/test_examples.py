"""The programs in docs/examples do what they say, on the embedded model."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import pytest

from tests.lm_toys import toy_lm

pytest.importorskip("transformers")

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


def test_hard_constraints():
    particles = example("hard_constraints").main(n_particles=6, max_tokens=12, seed=1)
    assert len(particles) == 6
    assert particles.log_ml > -math.inf
    for text in particles.posterior():
        words = re.findall(r"[A-Za-z]+", text.removesuffix("<eos>"))
        assert words
        assert max(map(len, words)) <= 5


def test_no_letter_e():
    particles = example("no_letter_e").main(n_particles=3, n_beam=2, max_tokens=10, seed=1)
    assert 0 < len(particles.posterior()) <= 3
    for text in particles.posterior():
        assert "e" not in text.removesuffix("<eos>").lower()


def test_haiku():
    module = example("haiku")
    assert [module.syllables(w) for w in (" the", "time", " yellow", "a", "rhythm")] == [1, 1, 2, 1, 1]
    particles = module.main(n_particles=12, seed=0)
    assert particles.posterior()
    for text in particles.posterior():
        lines = text.removesuffix("<eos>").split("\n")
        assert len(lines) == 3


@pytest.mark.parametrize(("tokens", "missing"), [(["a", "\n"], "a space"), (["a", " ", " a"], "a line break")])
def test_haiku_refuses_tokenizers_that_cannot_write_it(tokens, missing):
    lm = toy_lm({token: k for k, token in enumerate(tokens, 1)}, 0)
    with pytest.raises(ValueError, match=f"just {missing}"):
        example("haiku").Haiku(lm, "a")


def test_grammar():
    particles = example("grammar").main(n_particles=12, seed=0)
    assert particles.posterior()
    for text in particles.posterior():
        assert re.fullmatch(r"[0-9a-z+\-*/()]+", text)
        compile(text, "expression", "eval")


def test_posterior():
    import asyncio

    module = example("posterior")
    truth, masked, posterior, log_evidence = asyncio.run(module.compare(n=300, seed=0))
    assert sum(truth.values()) == pytest.approx(1.0)
    assert module.distance(truth, masked) > 0.3
    assert module.distance(truth, posterior.probabilities) < 0.15
    assert posterior.log_evidence == pytest.approx(log_evidence, abs=0.5)
