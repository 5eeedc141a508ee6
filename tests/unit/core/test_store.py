"""Indexes on disk: what a second process finds is what the first one built."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import outlines_core as oc
from outlines_core.compile import clear_cache

VOCABULARY = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)} | {b"ab": [300], b"the": [301, 302]})
PATTERN = r"([a-z]{1,9} ){2,6}the\d*|é+"


def stored(directory: Path) -> list[Path]:
    for thread in threading.enumerate():
        if thread.name == "store-index":
            thread.join()
    return sorted(directory.glob("??/*.bin"))


def all_masks(automaton: oc.RegexAutomaton) -> list[list[int]]:
    row = np.zeros(10, dtype=np.int32)
    masks = []
    for state in range(2, automaton.n_states):
        automaton.fill_mask(state, row)
        masks.append(row.tolist())
    return masks


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OUTLINES_CACHE_DIR", str(tmp_path))
    clear_cache()
    return tmp_path


def test_a_stored_index_is_the_built_one(directory: Path) -> None:
    built = oc.compile_regex(PATTERN, VOCABULARY)
    built.materialize()
    masks = all_masks(built)
    files = stored(directory)
    assert files
    clear_cache()
    loaded = oc.compile_regex(PATTERN, VOCABULARY)
    calls: list[object] = []
    loaded.materialize(lambda done, total: calls.append(done))
    assert len(calls) == 1  # nothing was built
    assert loaded.n_states == built.n_states
    assert all_masks(loaded) == masks
    for state in range(2, built.n_states):
        assert loaded.is_accepting(state) == built.is_accepting(state)
        for token in (97, 32, 300, 302, 0xC3, 256, 5):
            assert loaded.next_state(state, token) == built.next_state(state, token)


def test_a_damaged_file_is_built_again(directory: Path) -> None:
    oc.compile_regex(PATTERN, VOCABULARY).materialize()
    masks = all_masks(oc.compile_regex(PATTERN, VOCABULARY))
    for path in stored(directory):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    clear_cache()
    again = oc.compile_regex(PATTERN, VOCABULARY)
    again.materialize()
    assert all_masks(again) == masks


def test_what_was_visited_before_keeps_its_ids(directory: Path) -> None:
    oc.compile_regex(PATTERN, VOCABULARY).materialize()
    assert stored(directory)
    clear_cache()
    used = oc.compile_regex(PATTERN, VOCABULARY)
    state = used.next_state(used.next_state(used.initial_state, ord("z")), ord(" "))
    before = used.allowed_tokens(state).tolist()
    used.materialize()
    assert used.allowed_tokens(state).tolist() == before
