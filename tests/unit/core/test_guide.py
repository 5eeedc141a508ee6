"""The cursor: moves, undo, forks, and the older package's methods."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlines_core as oc

VOCABULARY = oc.Vocabulary(3, {"a": [0], "b": [1], "ab": [2]})


def test_a_rejected_token_changes_nothing() -> None:
    guide = oc.Guide(oc.Index("(ab)+", VOCABULARY))
    state = guide.get_state()
    with pytest.raises(oc.TokenRejectedError, match="No next state found for the current state") as caught:
        guide.advance(1)
    assert (caught.value.token_id, caught.value.position) == (1, 0)
    assert guide.get_state() == state
    assert guide.get_allowed_rollback() == 0
    assert guide.advance(0) == [1]
    assert guide.advance(1, return_tokens=False) is None
    assert guide.is_finished()
    assert guide.advance(3) == [3]
    assert guide.get_state() == oc.FINISHED


def test_rollback_is_bounded_and_atomic() -> None:
    guide = oc.Guide(oc.Index("a*", VOCABULARY), 2)
    for _ in range(3):
        guide.advance(0)
    assert guide.get_allowed_rollback() == 2
    with pytest.raises(oc.RollbackError, match=r"Cannot roll back 3 step\(s\)") as caught:
        guide.rollback_state(3)
    assert (caught.value.requested, caught.value.available) == (3, 2)
    assert guide.n_tokens == 3
    guide.rollback_state(2)
    assert guide.n_tokens == 1
    guide.rollback_state(0)
    guide.reset()
    assert guide.get_allowed_rollback() == 0
    with pytest.raises(ValueError, match="negative"):
        oc.Guide(oc.Index("a*", VOCABULARY), -1)


def test_looking_ahead_does_not_move() -> None:
    guide = oc.Guide(oc.Index("(ab)+", VOCABULARY))
    assert guide.accepts_tokens([2, 0, 1])
    assert not guide.accepts_tokens([2, 1])
    assert not guide.accepts_tokens([2, 3])
    assert guide.accepts_tokens([])
    assert guide.n_tokens == 0


@given(st.lists(st.sampled_from(["forward", "back", "fork"]), max_size=30), st.randoms(use_true_random=False))
def test_rollback_undoes_advance_and_forks_are_independent(moves: list[str], rng: object) -> None:
    guide = oc.Guide(oc.Index("(a|ab|b{2})*", VOCABULARY), 8)
    trail = [guide.get_state()]
    forks: list[tuple[oc.Guide, int]] = []
    for move in moves:
        if move == "forward":
            guide.advance(rng.choice([t for t in guide.get_tokens() if t != 3]))  # type: ignore[attr-defined]
            trail.append(guide.get_state())
        elif move == "back" and guide.get_allowed_rollback():
            guide.rollback_state(1)
            trail.pop()
        elif move == "fork":
            forks.append((guide.fork(), guide.get_state()))
        assert guide.get_state() == trail[-1]
        assert guide.n_tokens == len(trail) - 1
    assert all(fork.get_state() == state for fork, state in forks)
    assert copy.deepcopy(guide) == guide


def test_masks_go_to_memory_of_others() -> None:
    guide = oc.Guide(oc.Index("(ab)+", VOCABULARY))
    row = np.full(4, -1, dtype=np.int32)
    guide.write_mask_into(row.ctypes.data, row.size, row.itemsize)
    assert row.tolist() == [0b101, 0, 0, 0]
    for arguments, message in (
        ((row.ctypes.data, 4, 8), "Invalid element size"),
        ((0, 4, 4), "null"),
        ((row.ctypes.data + 1, 3, 4), "alignment"),
        ((row.ctypes.data, 0, 4), "Invalid buffer size"),
    ):
        with pytest.raises(ValueError, match=message):
            guide.write_mask_into(*arguments)


def test_a_pickled_guide_is_at_the_same_place_with_the_same_past() -> None:
    schema = oc.compile_json_schema({"type": "array"}, oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)}))
    for automaton, tokens in ((oc.Index("(ab)+", VOCABULARY), [2, 0, 1, 2, 2]), (schema, list(b"[[1,"))):
        guide = oc.Guide(automaton, 3)
        for token in tokens:
            guide.advance(token)
        twin = pickle.loads(pickle.dumps(guide))
        assert twin.get_tokens() == guide.get_tokens()
        assert (twin.n_tokens, twin.get_allowed_rollback()) == (len(tokens), 3)
        twin.rollback_state(3)
        guide.rollback_state(3)
        assert twin.get_tokens() == guide.get_tokens()
    assert oc.Guide.from_binary(oc.Guide(oc.Index("a", VOCABULARY)).to_binary()) == oc.Guide(oc.Index("a", VOCABULARY))
    with pytest.raises(ValueError, match="Deserialization of Guide failed"):
        oc.Guide.from_binary(b"x")
    with pytest.raises(TypeError, match="only a guide of an Index"):
        oc.Guide(schema).to_binary()


def test_a_guide_needs_an_automaton() -> None:
    with pytest.raises(TypeError, match="not int"):
        oc.Guide(5)  # type: ignore[arg-type]
