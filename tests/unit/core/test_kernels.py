"""Kernels against readable twins, and one compiled specialisation for each way they are called."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from outlines_core.bitmask import pack_ids, unpack_ids
from outlines_core.kernels.dfa import LANES, fill_sparse, lanes_to_ids, mask_to_ids, rehash
from outlines_core.kernels.nfa import usefulness
from outlines_core.regex.nfa import build_nfa
from outlines_core.regex.parser import parse
from tests.strategies import patterns

IDS = st.sets(st.integers(0, 199))


@given(IDS, st.integers(0, 220))
def test_masks_become_ids_if_they_fit(ids: set[int], room: int) -> None:
    out = np.full(room, -1, dtype=np.int32)
    n = mask_to_ids(pack_ids(sorted(ids), 200), out)
    assert n == len(ids) or room < n <= len(ids)
    expected = sorted(ids) + [-1] * (room - n) if n <= room else [-1] * room
    assert out.tolist() == expected


@given(IDS)
def test_ids_become_masks(ids: set[int]) -> None:
    for dtype in (np.int32, np.uint32):
        out = np.full(9, -1, dtype=np.int64).astype(dtype)
        fill_sparse(np.array(sorted(ids), dtype=np.int32), out)
        assert unpack_ids(out).tolist() == sorted(ids)


@given(st.lists(IDS, min_size=LANES, max_size=LANES))
def test_lanes_are_masks_side_by_side(columns: list[set[int]]) -> None:
    lanes = np.stack([pack_ids(sorted(ids), 200) for ids in columns], axis=1)
    counts, out = np.empty(LANES, dtype=np.int64), np.zeros((LANES, 50), dtype=np.int32)
    lanes_to_ids(np.ascontiguousarray(np.vstack([lanes, lanes[:1]])), 7, counts, out)
    assert counts.tolist() == list(map(len, columns))
    for ids, row in zip(columns, out, strict=True):
        if len(ids) <= 50:
            assert row[: len(ids)].tolist() == sorted(ids)


@given(st.lists(st.integers(0, 2**62), min_size=2, max_size=40))
def test_a_rehashed_table_finds_every_state(hashes: list[int]) -> None:
    table = np.full(128, -1, dtype=np.int32)
    rehash(np.array(hashes, dtype=np.int64), len(hashes), table)
    assert sorted(table[table >= 0].tolist()) == list(range(2, len(hashes)))
    for s in range(2, len(hashes)):
        cell = hashes[s] & 127
        while table[cell] != s:
            assert table[cell] >= 0
            cell = (cell + 1) & 127


@given(patterns(looks=False))
def test_usefulness_is_what_python_says(pattern: str) -> None:
    nfa = build_nfa(parse(pattern))
    arrays = nfa.kind, nfa.a, nfa.b, nfa.targets
    assert usefulness(*arrays).tolist() == usefulness.py_func(*arrays).tolist()


def test_kernels_were_compiled_once_for_each_kind_of_mask() -> None:
    fill_sparse(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32))
    fill_sparse(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.uint32))
    assert len(fill_sparse.signatures) == 2
