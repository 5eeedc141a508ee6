"""Adaptive token healing: what a beam does when no candidate can take the next byte.

With few candidates, all of them may be in the middle of a token that the text does not go on with. Then the unfinished
token of the best candidate was a wrong guess: its bytes are cut into other tokens. The last cut is tried as far to the
right as possible; after it, whenever a byte does not fit, the token is ended where that can be done.

    ...|abc        next byte x, no token begins with abcx
    ...|ab|c       no token begins with cx: "c" is ended as well (a further split)
    ...|ab|c|x

The whole plan is made on the trie, and the model is asked only for the plan that works out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from processors.bytes.trie_state import LazyTrieState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from processors.bytes.beam import BeamParams

__all__ = ["heal"]


async def heal(
    states: Sequence[LazyTrieState], byte: int | None, params: BeamParams
) -> tuple[LazyTrieState | None, str]:
    """A candidate that has taken `byte`, and ""; or None, and why there is none.

    Args:
        states: the beam before the byte, best first. The first that can be healed is.
        byte: None: end all tokens exactly here, so that any byte may come.
    """
    if not params.heal:
        return None, "no candidate can take it, and heal=False: heal, or try a larger K"
    for state in states:
        if state.terminated:
            continue
        partial = state.partial
        furthest = 0 if params.heal_max_backoff is None else max(0, len(partial) - params.heal_max_backoff)
        rest = b"" if byte is None else bytes([byte])
        for k in range(len(partial), max(furthest, 1) - 1, -1):
            plan = _plan(state, k, partial + rest, params.heal_max_splits, at_end=byte is None)
            healed = None if plan is None else await _carried_out(state, plan, partial + rest)
            if healed is not None:
                return healed, ""
    limits = [
        f"{name}={value}"
        for name, value in (("heal_max_backoff", params.heal_max_backoff), ("heal_max_splits", params.heal_max_splits))
        if value is not None
    ]
    within = f" within {' and '.join(limits)}" if limits else ""
    return None, f"no candidate can take it, and no token can be cut elsewhere{within}: try a larger K"


def _plan(state: LazyTrieState, k: int, text: bytes, max_splits: int | None, *, at_end: bool) -> list[int] | None:
    """Where the tokens of `text` end, the first after k bytes; None if that way does not lead to its end.

    What stands behind the last of these ends is the token that is unfinished now.
    """
    trie, mode = state.trie, state.mode
    node = trie.root
    for byte in text[:k]:
        node = trie.child(node, byte)
    if not trie.ending(node, mode):
        return None
    ends, node = [k], trie.root
    splits = math.inf if max_splits is None else max_splits
    for at in range(k, len(text)):
        below = trie.child(node, text[at])
        if below < 0 or not trie.is_live(below, mode):
            if node == trie.root or not trie.ending(node, mode) or splits < 1:
                return None
            ends.append(at)
            splits -= 1
            below = trie.child(trie.root, text[at])
            if below < 0 or not trie.is_live(below, mode):
                return None
        node = below
    if at_end and node != trie.root:
        if not trie.ending(node, mode) or splits < 1:
            return None
        ends.append(len(text))
    return ends


async def _carried_out(state: LazyTrieState, ends: list[int], text: bytes) -> LazyTrieState | None:
    """The candidate with the tokens of the plan; of several tokens with the same bytes, the likeliest."""
    current = LazyTrieState.at(state.boundary, state.base, state.mode)
    start = 0
    for end in [*ends, None]:
        await current.materialize()
        for byte in text[start:end]:
            below = current << byte
            if below is None:
                return None
            current = below
        if end is None:
            return current
        extended = current.extend_all()
        if not extended:
            return None
        current, start = max(extended, key=lambda new: new.weight), end
    return None
