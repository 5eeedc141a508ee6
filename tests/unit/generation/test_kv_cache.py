"""The columns of a cache, against lists: what is appended, struck out, taken back and compacted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.generation.kv_cache import CacheKind, KeyValues
from tests.sampler_models import gpt2, lfm2, llama, mistral

KIND = CacheKind(llama())


def write(past, ids):
    """What a model does: keys and values that tell their token."""
    for layer in past.cache.layers:
        states = ids[:, None, :, None].expand(-1, 2, -1, 3).float()
        layer.update(states, -states)


@settings(max_examples=60)
@given(st.integers(1, 3), st.booleans(), st.data())
def test_columns_are_lists(n_rows, fixed, data):
    past = KeyValues(KIND, n_rows, 24, torch.device("cpu"), fixed=fixed)
    rows = [[] for _ in range(n_rows)]  # of (token, is valid), a column each
    token = 0
    for _ in range(data.draw(st.integers(1, 6))):
        what = data.draw(st.sampled_from(["append", "append", "strike", "truncate", "copy"]))
        if what == "append" and past.length < 20:
            n = data.draw(st.integers(1, 4))
            ids = torch.arange(token, token + n_rows * n).reshape(n_rows, n) + 1
            token += n_rows * n
            valid = None
            if data.draw(st.booleans()):
                valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n_rows * n, max_size=n_rows * n)))
                valid = valid.reshape(n_rows, n)
            before = [sum(ok for _, ok in row) for row in rows]
            positions = past.append(ids, valid)
            write(past, ids)
            for r in range(n_rows):
                flags = [True] * n if valid is None else valid[r].tolist()
                rows[r] += zip(ids[r].tolist(), flags, strict=True)
                at = [int(p) for p, ok in zip(positions[r], flags, strict=True) if ok]
                assert at == list(range(before[r], before[r] + sum(flags)))
        elif what == "strike" and past.length:
            n = data.draw(st.integers(1, past.length))
            out = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n_rows * n, max_size=n_rows * n)))
            out = out.reshape(n_rows, n)
            past.strike(out)
            for r in range(n_rows):
                tail = zip(rows[r][-n:], out[r].tolist(), strict=True)
                rows[r][-n:] = [(t, ok and not gone) for (t, ok), gone in tail]
        elif what == "truncate":
            n = data.draw(st.integers(0, past.length))
            past.truncate(n)
            rows = [row[:n] for row in rows]
        elif what == "copy":
            old, order = past, None
            if data.draw(st.booleans()):
                order = data.draw(st.lists(st.integers(0, n_rows - 1), min_size=n_rows, max_size=n_rows))
                rows = [list(rows[r]) for r in order]
            past = old.copy(24, order)
            assert past.length == max(sum(ok for _, ok in row) for row in rows)
            rows = [[c for c in row if c[1]] for row in rows]
            rows = [[(0, False)] * (past.length - len(row)) + row for row in rows]
        texts = [[t for t, ok in row if ok] for row in rows]
        assert past.tokens() == texts
        assert past.lengths.tolist() == [len(text) for text in texts]
        assert past.valid.tolist() == [[ok for _, ok in row] for row in rows]
        for layer in past.cache.layers if past.length else ():
            for r, text in enumerate(texts):
                columns = past.valid[r].nonzero()[:, 0]
                assert layer.keys[r, 1, columns, 2].tolist() == text
                assert layer.values[r, 0, columns, 0].tolist() == [-t for t in text]


def test_kinds():
    kinds = {model: CacheKind(model()) for model in (llama, gpt2, mistral, lfm2)}
    assert [kinds[m].is_columnar for m in (llama, gpt2, mistral, lfm2)] == [True, True, True, False]
    assert [kinds[m].allows_holes for m in (llama, gpt2, mistral, lfm2)] == [True, True, False, False]
    assert [kinds[m].max_positions for m in (llama, gpt2, mistral, lfm2)] == [None, 64, None, None]


def test_too_little_room():
    past = KeyValues(KIND, 1, 8, torch.device("cpu"))
    past.append(torch.tensor([[1, 2, 3]]), None)
    with pytest.raises(ValueError, match="3 tokens do not fit into 2 columns"):
        past.copy(2)
