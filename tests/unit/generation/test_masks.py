"""Masks of a step, against a loop over rows and tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import outlines_core as oc
from outlines_core.types import DEAD, FINISHED
from processors._sources import source_of
from processors.generation._masks import RowMasks
from processors.generation.kv_cache import RoomLayer
from tests.sampler_models import EOS, SIZE, VOCABULARY

AUTOMATA = [oc.compile_regex(pattern, VOCABULARY) for pattern in ("(ab|c)+d?", "[01]{2,4}", "(abc|x)*")]


def allowed(automaton, state, left) -> set[int]:
    """The tokens after which the text can still be ended in time."""
    if state in (DEAD, FINISHED):
        return {EOS}
    ids = set(automaton.allowed_tokens(state).tolist())
    if left is None:
        return ids
    return {
        i for i in ids if i == EOS or automaton.min_tokens_to_accept(automaton.next_state(state, i)) <= left - 1 >= 0
    }


@settings(max_examples=60, deadline=None)
@given(data=st.data(), reuse=st.booleans(), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_masks_are_those_of_the_rows(data, reuse, dtype):
    forbidden = data.draw(st.lists(st.integers(0, SIZE + 3), max_size=4))
    masks = RowMasks(forbidden, reuse=reuse)
    for n_rows in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)):
        sources, states, lefts, expected = [], [], [], []
        for _ in range(n_rows):
            automaton = data.draw(st.sampled_from([*AUTOMATA, None]))
            left = data.draw(st.sampled_from([None, 1, 3, 6]))
            state = None
            if automaton is not None:
                state = data.draw(st.sampled_from([automaton.initial_state, FINISHED, DEAD]))
                ids = allowed(automaton, state, left)
                if state == automaton.initial_state and ids - {EOS} and data.draw(st.booleans()):
                    state = automaton.next_state(state, min(ids - {EOS}))
            sources.append(None if automaton is None else source_of(automaton, None, None, None, left is not None))
            states.append(state)
            lefts.append(left)
            ids = set(range(SIZE)) if automaton is None else allowed(automaton, state, left)
            expected.append(ids - set(forbidden))
        logits = torch.randn(n_rows, SIZE).to(dtype)
        before = logits.clone()
        masked, closed = masks.apply(logits, sources, states, lefts)
        assert torch.equal(logits, before)
        assert closed == [row for row, ids in enumerate(expected) if not ids]
        for row, ids in enumerate(expected):
            for i in range(SIZE):
                assert masked[row, i] == (logits[row, i] if i in ids else -torch.inf)


@pytest.mark.parametrize("room", [1, 3, 64])
def test_a_layer_with_room_is_a_concatenation(room):
    """It grows where it must, and goes on with other rows that were put into it."""
    layer, rng = RoomLayer(room), np.random.default_rng(0)
    keys = values = torch.zeros(2, 3, 0, 4)
    for n in (2, 1, 1, 5, 1):
        new = [torch.from_numpy(rng.normal(size=(keys.shape[0], 3, n, 4))) for _ in range(2)]
        keys, values = torch.cat([keys, new[0]], 2), torch.cat([values, new[1]], 2)
        got = layer.update(*new)
        assert torch.equal(got[0], keys)
        assert torch.equal(got[1], values)
        if n == 5:
            rows = torch.tensor([1, 0, 1])
            keys, values = keys[rows], values[rows]
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
            layer.detach_buffers()
    assert layer.get_seq_length() == 10
