"""Compile every kernel that a request can reach, once per machine.

Numba keeps compiled kernels on disk next to the package (or in its own cache directory); this runs each of them on a
toy vocabulary so that they are there before the first request.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from outlines_core.bitmask import allocate_bitmask
from outlines_core.vocabulary import Vocabulary

__all__ = ["warmup"]

_STEPS = 4


def warmup(progress: Callable[[int, int, str], None] | None = None) -> None:
    """Compile (or load) all kernels.

    Args:
        progress: called with (steps done, steps in all, what comes next).

    Cost: tens of seconds on a machine that never ran it, a fraction of a second afterwards.
    """

    def report(done: int, what: str) -> None:
        if progress is not None:
            progress(done, _STEPS, what)

    report(0, "vocabulary trie")
    tokens: dict[str, list[int]] = {"a": [0], "b": [1], "ab": [2], "c": [3, 4]}
    vocabulary = Vocabulary(5, tokens)
    trie = vocabulary.table.trie
    from outlines_core.trie import TokenTrie

    assert len(TokenTrie.build(vocabulary.table).info) == len(trie.info)

    report(1, "regular expressions")
    from outlines_core.batch import next_states
    from outlines_core.compile import compile_regex

    signed, unsigned = allocate_bitmask(1, vocabulary)[0], np.zeros(1, dtype=np.uint32)
    for pattern in ("(a|b){1,3}c?", "(?!aa)[abc]{1,4}", r"a(\Z|b)", "(?:c|cc)*b"):
        automaton = compile_regex(pattern, vocabulary)
        automaton.materialize()
        for out in (signed, unsigned):
            for state in range(2, automaton.n_states):
                automaton.fill_mask(state, out)
        state = automaton.initial_state
        automaton.next_state(state, 0)
        automaton.fill_closing_mask(state, 1, signed)
        automaton.allowed_tokens(state)
        next_states([automaton] * 2, [state] * 2, [0, 1])

    many = Vocabulary(0, {f"t{k}": [k + 1] for k in range(300)})  # masks of a few ids among many words are kept as ids
    automaton = compile_regex("t1|t2", many)
    for out in (np.zeros(10, dtype=np.int32), np.zeros(10, dtype=np.uint32)):
        for _ in range(2):
            automaton.fill_mask(automaton.initial_state, out)
    report(2, "masks on logits")
    from outlines_core.kernels.masking import apply_masks, match_rows

    masks, is_open = np.ones((1, 1), dtype=np.uint32), np.zeros(1, dtype=np.uint8)
    for dtype in (np.int16, np.int32, np.int64):
        scores = np.zeros((1, 6), dtype=dtype)
        apply_masks(scores, masks, dtype(-1), 0, 1, np.empty_like(scores), is_open)
    rows = np.zeros((1, 2), dtype=np.int64)
    match_rows(rows, 1, rows, 1, np.full(1, -1, dtype=np.int64))
    report(3, "larger tables")
    automaton = compile_regex("[ab]{1,400}", Vocabulary(5, tokens))
    state = automaton.initial_state
    for _ in range(300):  # tables grow on the way
        state = automaton.next_state(state, 0)
    report(_STEPS, "done")
