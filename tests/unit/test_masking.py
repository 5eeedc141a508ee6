"""One pass over the logits: against masked_fill on a boolean mask, in every format."""

import numpy as np
import pytest
import torch

from outlines_core.bitmask import pack_ids
from outlines_core.kernels.masking import match_rows, rows_continue
from processors.masking import MaskBuffer, apply_mask, apply_on_device

FORMATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def case(seed: int, n_rows: int, n_columns: int, size: int, dtype: torch.dtype, density: float = 0.3):
    """Random logits (some of them -inf already, some NaN), a packed mask over `size` ids, the same mask as booleans."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n_rows, n_columns, generator=generator).to(dtype)
    scores[torch.rand(scores.shape, generator=generator) < 0.1] = -float("inf")
    allowed = torch.rand(n_rows, size, generator=generator) < density
    words = np.stack([pack_ids(np.flatnonzero(row), size) for row in allowed.numpy()]).view(np.int32)
    wide = torch.zeros(n_rows, max(size, n_columns), dtype=torch.bool)
    wide[:, :size] = allowed
    return scores, words, wide[:, :n_columns]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(("n_columns", "size"), [(64, 64), (70, 70), (100, 40), (31, 31), (40, 100), (1, 1), (33, 32)])
def test_equals_masked_fill(dtype, n_columns, size):
    scores, words, allowed = case(n_columns + size, 3, n_columns, size, dtype)
    before = scores.clone()
    is_open = np.empty(3, dtype=np.uint8)
    masked = apply_mask(scores, words, is_open)
    assert torch.equal(masked, scores.masked_fill(~allowed, -float("inf")))
    assert is_open.tolist() == (~torch.isneginf(masked)).any(1).int().tolist()
    assert torch.equal(scores, before)
    assert masked.data_ptr() != scores.data_ptr()
    assert torch.equal(apply_on_device(scores, torch.from_numpy(words)), masked)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("device", ["host", "any"])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 0.95, 1.0])
def test_in_place_and_into_another_tensor(dtype, device, density):
    """Words with no bit, with some and with all, in one row and in rows that are closed from the start."""
    scores, words, allowed = case(6, 4, 230, 200, dtype, density)
    scores[1] = -float("inf")
    words[2, :3] = -1  # whole words before the others
    allowed = allowed.clone()
    allowed[2, :96] = True
    expected = scores.masked_fill(~allowed, -float("inf"))
    other, is_open = torch.full_like(scores, 7.0), np.full(4, 9, dtype=np.uint8)
    if device == "any":
        bits = torch.from_numpy(words)
        assert apply_on_device(scores, bits, out=other) is other
        assert torch.equal(other, expected)
        assert apply_on_device(scores, bits, out=scores) is scores
        assert torch.equal(scores, expected)
        return
    before = scores.clone()
    assert apply_mask(scores, words, is_open, out=other).data_ptr() == other.data_ptr()
    assert torch.equal(other, expected)
    assert torch.equal(scores, before)
    assert is_open.tolist() == (~torch.isneginf(expected)).any(1).int().tolist()
    is_open[:] = 9
    assert apply_mask(scores, words, is_open, out=scores).data_ptr() == scores.data_ptr()
    assert torch.equal(scores, expected)
    assert is_open.tolist() == (~torch.isneginf(expected)).any(1).int().tolist()


def test_out_is_checked_before_anything_is_written():
    scores, words, _ = case(8, 2, 64, 64, torch.float32)
    before = scores.clone()
    wide = torch.zeros(2, 128)
    for out in (torch.zeros(2, 63), torch.zeros(2, 64, dtype=torch.float64), wide[:, ::2]):
        with pytest.raises(ValueError, match="contiguous"):
            apply_mask(scores, words, out=out)
        assert torch.equal(out, torch.zeros_like(out))
    assert torch.equal(scores, before)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_nothing_and_everything(density):
    scores, words, allowed = case(1, 2, 96, 96, torch.float32, density)
    assert torch.equal(apply_mask(scores, words), scores.masked_fill(~allowed, -float("inf")))


def test_nan_is_copied_and_counts_as_open():
    scores = torch.tensor([[float("nan"), 1.0], [-float("inf"), 1.0]])
    is_open = np.zeros(2, dtype=np.uint8)
    masked = apply_mask(scores, np.array([[1], [1]], dtype=np.int32), is_open)
    assert torch.isnan(masked[0, 0])
    assert is_open.tolist() == [1, 0]


def test_rows_that_are_not_contiguous():
    scores, words, allowed = case(2, 2, 64, 64, torch.float32)
    spread = torch.zeros(2, 128)
    spread[:, ::2] = scores
    assert torch.equal(apply_mask(spread[:, ::2], words), scores.masked_fill(~allowed, -float("inf")))


def test_threads_share_large_logits():
    scores, words, allowed = case(3, 7, 400_000, 400_000, torch.float32, 0.5)
    assert torch.equal(apply_mask(scores, words), scores.masked_fill(~allowed, -float("inf")))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("n_columns", [9_000_000, 9_000_007])
def test_new_memory_larger_than_any_cache(dtype, n_columns):
    """It is written past the cache where it is aligned."""
    scores, words, allowed = case(9, 1, n_columns, n_columns, dtype, 0.5)
    words[0, ::3], words[0, 1::3] = 0, -1
    allowed = torch.from_numpy(np.unpackbits(words.view(np.uint8), bitorder="little")[:n_columns].astype(bool))[None]
    is_open = np.empty(1, dtype=np.uint8)
    assert torch.equal(apply_mask(scores, words, is_open), scores.masked_fill(~allowed, -float("inf")))
    assert is_open.tolist() == [1]


def test_scores_that_require_grad():
    scores, words, allowed = case(4, 1, 40, 40, torch.float32)
    masked = apply_mask(scores.requires_grad_(), words)
    assert torch.equal(masked, scores.detach().masked_fill(~allowed, -float("inf")))


def test_shapes_and_types_are_checked():
    words = np.zeros((2, 1), dtype=np.int32)
    with pytest.raises(ValueError, match="row by row"):
        apply_mask(torch.zeros(3, 5), words)
    with pytest.raises(ValueError, match="row by row"):
        apply_mask(torch.zeros(5), words)
    with pytest.raises(TypeError, match="float16"):
        apply_mask(torch.zeros(2, 5, dtype=torch.int32), words)


def test_buffer():
    buffer = MaskBuffer(2, 40, torch.device("cpu"))
    assert buffer.words.shape == (2, 2)
    buffer.words[1, 0] = 3
    assert buffer.on(torch.device("cpu"))[1].tolist() == [3, 0]
    assert apply_mask(torch.zeros(2, 3), buffer)[1].tolist() == [0, 0, -float("inf")]


@pytest.mark.parametrize("length", [0, 1, 5, 80])
def test_rows_continue_if_all_do(length):
    known = np.random.default_rng(length).integers(0, 1 << 40, (3, 90))
    ids = known[:, : length + 1].copy()
    ids[:, length] += 1
    assert rows_continue(ids, length, known)
    for r in range(3):
        for at in range(length):
            ids[r, at] ^= 1 << 35
            assert not rows_continue(ids, length, known)
            ids[r, at] ^= 1 << 35


@pytest.mark.parametrize("seed", range(30))
def test_match_rows_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    n_blocks, length = int(rng.integers(1, 4)), int(rng.integers(0, 130))
    n_rows, n_known = n_blocks * int(rng.integers(1, 4)), n_blocks * int(rng.integers(1, 4))
    known = rng.integers(0, 2, size=(n_known, length + 3))
    ids = rng.integers(0, 2, size=(n_rows, length + 1))
    for r in range(n_rows):
        if rng.random() < 0.7:
            ids[r, :length] = known[rng.integers(n_known), :length]
    expected = []
    for r in range(n_rows):
        block = r // (n_rows // n_blocks)
        mine = [
            q
            for q in range(n_known)
            if q // (n_known // n_blocks) == block and (known[q, :length] == ids[r, :length]).all()
        ]
        expected.append(mine)
    for kernel in (match_rows, getattr(match_rows, "py_func", match_rows)):
        out = np.full(n_rows, -1, dtype=np.int64)
        left = kernel(ids, length, known, n_blocks, out)
        assert left == sum(not mine for mine in expected)
        assert all(q in mine if mine else q == -1 for q, mine in zip(out.tolist(), expected, strict=True))
