"""Random numbers of rows: functions of seed and position alone; `pick` follows the distribution and its support."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from processors.generation._random import RowRandom, pick, row_seeds

SEEDS = st.integers(-(2**64), 2**64)


@given(st.lists(SEEDS, min_size=1, max_size=5), st.lists(st.integers(0, 300), min_size=1, max_size=20), st.data())
def test_a_number_depends_on_seed_position_and_stream_alone(seeds, positions, data):
    random = RowRandom(seeds)
    for position in positions:
        row, stream = data.draw(st.integers(0, len(seeds) - 1)), data.draw(st.integers(0, 1))
        expected = RowRandom([seeds[row]]).uniforms([position], stream=stream)
        assert random.uniforms([position], [row], stream=stream) == expected
        assert random.select([row, row]).uniforms([position] * 2, stream=stream).tolist() == [expected[0]] * 2


def test_numbers_are_uniform_and_streams_apart():
    seen = np.array([RowRandom([5, 6]).uniforms([n, n], stream=stream) for stream in (0, 1) for n in range(2000)])
    columns = [seen[:2000, 0], seen[:2000, 1], seen[2000:, 0]]  # a stream, another seed, another stream
    for column in columns:
        assert len(np.unique(column)) == 2000
        assert ((column >= 0) & (column < 1)).all()
        counts = np.histogram(column, bins=20, range=(0, 1))[0]
        assert ((counts - 100) ** 2 / 100).sum() < 45  # chi square, 19 degrees of freedom: p = 0.0007
    correlations = np.corrcoef(columns)[np.triu_indices(3, 1)]
    assert (abs(correlations) < 0.08).all()


def test_the_numbers_are_pinned():
    """A seed written down today gives the same text tomorrow."""
    assert RowRandom([7]).uniforms([0]).tolist() == RowRandom([7 - 2**64]).uniforms([0]).tolist()
    assert RowRandom([7, 8]).uniforms([0, 64]).tolist() == [0.8720734548204873, 0.36929298435136104]


class TestSeeds:
    def test_one_int_gives_each_row_its_own(self):
        seeds = row_seeds(3, 50)
        assert seeds[0] == 3
        assert len(set(seeds)) == 50
        assert row_seeds(3, 4) == seeds[:4]
        assert set(row_seeds(4, 50)).isdisjoint(seeds)
        assert row_seeds(3, 0) == []

    def test_a_list_is_taken_as_it_is(self):
        assert row_seeds([4, 4], 2) == [4, 4]
        assert row_seeds(np.array([4, 5]), 2) == row_seeds(torch.tensor([4, 5]), 2) == [4, 5]
        with pytest.raises(ValueError, match="3 seeds for 2 rows"):
            row_seeds([1, 2, 3], 2)
        with pytest.raises(TypeError):
            row_seeds([0.5, 1], 2)

    def test_a_generator_moves_on(self):
        generator = torch.Generator().manual_seed(1)
        first, second = row_seeds(generator, 2), row_seeds(generator, 2)
        assert first != second
        assert row_seeds(torch.Generator().manual_seed(1), 2) == first

    def test_none_is_fresh(self):
        assert row_seeds(None, 2) != row_seeds(None, 2)


class TestPick:
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(any), st.integers(0, 10**6))
    def test_inversion_by_hand(self, weights, millionths):
        probs = torch.tensor([weights], dtype=torch.float64) / sum(weights)
        u = min(millionths / 10**6, 1 - 2**-53)
        exact = np.cumsum(weights)
        near = [k for k in range(len(weights)) if weights[k] and abs(exact[k] - u * sum(weights)) < 1e-9]
        expected = int(np.searchsorted(exact, u * sum(weights), side="right"))
        assert int(pick(probs, np.array([u]))[0]) in {expected, *near, *(k + 1 for k in near)} & {
            k for k, weight in enumerate(weights) if weight
        }

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_never_outside_the_support(self, dtype):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(64, 500, generator=generator) * 8
        logits[:, 250:] = -torch.inf
        logits[:, 0] = -torch.inf
        probs = logits.softmax(-1).to(dtype)
        for u in (0.0, 0.3, 1 - 2**-53):
            assert (probs.gather(1, pick(probs, np.full(64, u))[:, None]) > 0).all()

    def test_frequencies(self):
        probs = torch.tensor([0.1, 0.0, 0.2, 0.3, 0.4])
        uniforms = RowRandom(range(4000)).uniforms([0] * 4000)
        counts = torch.bincount(pick(probs.expand(4000, 5), uniforms), minlength=5)
        expected = probs * 4000
        assert counts[1] == 0
        assert (((counts - expected) ** 2)[expected > 0] / expected[expected > 0]).sum() < 18  # 3 d.o.f., p = 0.0004
