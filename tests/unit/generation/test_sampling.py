"""Sampling methods: the exact distribution of each, on four logits and against a literal reading of its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from processors.generation import Greedy, MinPSampling, RandomSampling, TopkSampling, TopPSampling
from processors.generation._random import RowRandom

PROBS = [0.1, 0.2, 0.3, 0.4]
LOGITS = torch.tensor([PROBS]).log()
INF = float("inf")


def near(x, y) -> bool:
    return torch.allclose(x, torch.tensor(y, dtype=x.dtype), atol=1e-6)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Greedy(), [0, 0, 0, 1]),
        (RandomSampling(), PROBS),
        (RandomSampling(temperature=0.5), np.square(PROBS) / np.square(PROBS).sum()),
        (RandomSampling(temperature=0), [0, 0, 0, 1]),
        (TopkSampling(k=1), [0, 0, 0, 1]),
        (TopkSampling(k=2), [0, 0, 3 / 7, 4 / 7]),
        (TopkSampling(k=9), PROBS),
        (TopkSampling(k=2, temperature=0.5), [0, 0, 9 / 25, 16 / 25]),
        (TopPSampling(p=0.65), [0, 0, 3 / 7, 4 / 7]),
        (TopPSampling(p=0.39), [0, 0, 0, 1]),
        (TopPSampling(p=1), PROBS),
        (TopPSampling(p=0.6, temperature=0.5), [0, 0, 9 / 25, 16 / 25]),  # 16/30 alone does not reach 0.6
        (MinPSampling(p=0.6), [0, 0, 3 / 7, 4 / 7]),
        (MinPSampling(p=0), PROBS),
        (MinPSampling(p=1), [0, 0, 0, 1]),
    ],
)
def test_four_logits(method, expected):
    assert near(method.probs(LOGITS), [list(expected)])


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        (TopkSampling(k=2), [0, 2]),  # lower ids first
        (TopPSampling(p=0.5), [0, 2]),
        (TopPSampling(p=0.51), [0, 2, 3]),
        (MinPSampling(p=1), [0, 2, 3, 5]),
    ],
)
def test_ties(method, kept):
    probs = method.probs(torch.tensor([[1.0, -INF, 1.0, 1.0, -INF, 1.0]]))
    assert near(probs[0, kept], [1 / len(kept)] * len(kept))
    assert probs.sum() == pytest.approx(1)


@given(
    st.lists(st.sampled_from([-INF, -2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=9).filter(
        lambda x: max(x) > -INF
    ),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.2, 0.5, 0.77, 1.0]),
)
def test_against_the_definitions(logits, temperature, k, p):
    """One by one, in Python: masked tokens have probability zero already, and stay there."""
    x = np.exp(np.array(logits) / temperature)
    x /= x.sum()
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))
    first_k = order[:k]
    nucleus = order[: 1 + next((n for n, i in enumerate(order) if x[order[: n + 1]].sum() >= p - 1e-9), len(x) - 1)]
    likely = [i for i in order if x[i] >= p * x.max()]
    cases = [
        (TopkSampling(k=k, temperature=temperature), first_k),
        (MinPSampling(p=p, temperature=temperature), likely),
    ]
    borders = np.cumsum(x[order])
    if p and not np.isclose(borders, p, atol=1e-6).any():
        cases.append((TopPSampling(p=p, temperature=temperature), nucleus))
    for method, kept in cases:
        expected = np.where(np.isin(np.arange(len(x)), kept), x, 0)
        got = method.probs(torch.tensor([logits, logits], dtype=torch.float64))
        np.testing.assert_allclose(got[0], expected / expected.sum(), atol=1e-9)
        assert torch.equal(got[0], got[1])


def test_a_nucleus_wider_than_the_first_look():
    logits = torch.zeros(2, 4096)
    logits[1, 7] = 20
    probs = TopPSampling(p=0.5).probs(logits)
    assert (probs > 0).sum(-1).tolist() == [2048, 1]
    assert near(probs[0, :2048], [1 / 2048] * 2048)


def test_small_temperatures_do_not_overflow():
    logits = torch.tensor([[3e4, 2e4, -INF], [-3e4, -2e4, -INF]], dtype=torch.float16)
    assert near(RandomSampling(temperature=1e-6).probs(logits), [[1.0, 0, 0], [0, 1.0, 0]])


def test_drawing():
    logits = torch.tensor(PROBS).log().expand(2, 3, 4)
    assert Greedy().get_next_tokens(logits).tolist() == [[3] * 3] * 2
    drawn = RandomSampling().get_next_tokens(logits, 5)
    assert drawn.shape == (2, 3)
    assert torch.equal(drawn, RandomSampling().get_next_tokens(logits, 5))
    assert int(RandomSampling().get_next_tokens(logits[0, 0], 5)) == int(drawn[0, 0])
    many = RandomSampling().get_next_tokens(logits[0, :1].expand(4000, 4), RowRandom(range(4000)))
    counts = np.bincount(many.numpy(), minlength=4)
    assert ((counts - 4000 * np.array(PROBS)) ** 2 / (4000 * np.array(PROBS))).sum() < 18  # 3 d.o.f., p = 0.0004


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomSampling(temperature=-1),
        lambda: RandomSampling(temperature=INF),
        lambda: RandomSampling(temperature=float("nan")),
        lambda: TopkSampling(k=0),
        lambda: TopPSampling(p=0),
        lambda: TopPSampling(p=1.5),
        lambda: MinPSampling(p=-0.1),
        lambda: MinPSampling(temperature=-1),
    ],
)
def test_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()
