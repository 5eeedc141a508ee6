"""How a text of a grammar with values in it can be brought to an end, and in how many tokens.

A completion is put together from those of the parts: the rest of the value, and the grammar's shortest text behind it,
in which a shortest value stands for each code. Its tokens are an upper bound for the fewest, and a promise: what
`near` allows leads to states whose own completion takes no more tokens than are left, and the first token of the
completion is always among it. For that, what is left of a completion is remembered for the state that it leads to.
"""

from __future__ import annotations

from functools import cached_property
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.composed import VALUE_BYTE, World
from outlines_core.grammar.configurations import ConfigurationDfa
from outlines_core.json_states import NO_RECORDS
from outlines_core.kernels.json import fewest_tokens
from outlines_core.regex_core import fill_ids
from outlines_core.types import DEAD

if TYPE_CHECKING:
    from outlines_core.grammar_composed import ComposedCore

__all__ = ["Closing"]

_KEPT: Final = 1 << 16
_MOST_SEARCHED: Final = 20_000
_MARGIN: Final = 4  # tokens; so much longer a text may be that must not repeat others


class Closing:
    """Completions of a core's states (whose lock must be held)."""

    def __init__(self, core: ComposedCore) -> None:
        self._core = core
        self._plans: dict[int, tuple[bytes, int]] = {}

    @cached_property
    def _ways(self) -> _Ways:
        values = [value.completion(value.initial) for value in self._core.values]
        recogniser = self._core.recogniser
        return _Ways(recogniser.outer, dict(zip(recogniser.codes, values, strict=True)))

    def completion(self, state: int) -> bytes:
        """A short text from a live state to acceptance."""
        return self._plan(state)[0]

    def distance(self, state: int) -> int:
        """The tokens of the completion."""
        return self._plan(state)[1]

    def _plan(self, state: int) -> tuple[bytes, int]:
        known = self._plans.get(state)
        if known is None:
            dfa: Any = self._core.dfa
            text = min(map(self._completion, dfa.configuration(state)), key=len)
            if len(self._plans) >= _KEPT:
                self._plans.clear()
            known = self._plans[state] = text, self._fewest(text)
        return known

    def _completion(self, world: World) -> bytes:
        outer, which, state = world
        text = self._core.values[which].completion(state) if which >= 0 else b""
        return text + self._ways.text(outer)

    def _fewest(self, text: bytes) -> int:
        if not text:
            return 0
        return int(fewest_tokens(self._core.packed, np.frombuffer(text, dtype=np.uint8), self._core.size))

    # -- masks ------------------------------------------------------------------------------------------------------

    def near(self, state: int, budget: int) -> NDArray[np.uint32]:
        """The tokens after which at most ``budget - 1`` more suffice (one of those with equal bytes)."""
        core = self._core
        words = np.zeros(core.n_words + 1, dtype=np.uint32)
        dfa: Any = core.dfa
        for world in dfa.configuration(state):
            if world[1] < 0:
                self._near_in_grammar(world, budget, words)
            else:
                self._near_in_value(world, budget, words[:-1])
            crossings = core.crossings_of(world)
            for node, at in zip(crossings.begin.tolist(), crossings.states, strict=True):
                self._add_near(state, core.ids_below(node, at), budget, words)
        if 0 < self.distance(state) <= budget:
            fill_ids(words, np.array([self._first_token(state)], dtype=np.int32))
        return words[:-1]

    def _add_near(self, state: int, ids: NDArray[Any], budget: int, words: NDArray[np.uint32]) -> None:
        fill_ids(words, np.array([i for i in ids.tolist() if self._is_near(state, i, budget)], dtype=np.int32))

    def _is_near(self, state: int, token_id: int, budget: int, margin: int = 0) -> bool:
        target = self._core.next_state(state, token_id)
        return target != DEAD and self.distance(target) + margin < budget

    def _near_in_grammar(self, world: World, budget: int, words: NDArray[np.uint32]) -> None:
        """Those that stay in the grammar: by the states that they lead to there."""
        core = self._core
        dfa: Any = core.dfa
        targets = core.outer.targets(world[0]).tolist()
        reached = [dfa.number(core.recogniser.closed([(target, -1, DEAD)])) for target in targets]
        near = [target for target, at in zip(targets, reached, strict=True) if self.distance(at) < budget]
        flags = np.zeros(core.outer.dfa.allowed.shape[0], dtype=np.uint8)
        flags[near] = 1
        path = np.zeros_like(core._path)
        path[0] = world[0]
        core.outer.dfa.walk(core.packed, path, words, allowed=flags)

    def _near_in_value(self, world: World, budget: int, words: NDArray[np.uint32]) -> None:
        """Those that stay in the value: by its states, one by one where something else might be read, too."""
        core = self._core
        value, state = core.values[world[1]], world[2]
        dfa: Any = core.dfa
        alone = dfa.number((world,))
        crossings = core.crossings_of(world)
        own = np.zeros(core.n_words, dtype=np.uint32)
        value.fill(state, own)
        core.take_out(crossings, own)
        ids = np.flatnonzero(np.unpackbits(own.view(np.uint8), bitorder="little"))
        nodes = core.node_of[ids]
        at = np.searchsorted(crossings.begin, nodes) - 1  # the last crossing before each; inner ones end earlier
        crossed = np.zeros(len(ids), dtype=np.bool_)
        if len(crossings.begin):
            last = np.maximum.accumulate(crossings.end)
            crossed = (at >= 0) & (nodes < last[at])
        self._add_near(alone, ids[crossed], budget, words)
        ids = ids[~crossed]
        margin = 0 if value.core.state_records[state] is NO_RECORDS else _MARGIN
        with value.core.lock:
            group, _ = value.core.groups_of(state, value.core.vocabulary.table)
        numbers, first, which = np.unique(group[ids], return_index=True, return_inverse=True)
        near = [self._is_near(alone, int(ids[k]), budget, margin) for k in first.tolist()]
        if len(numbers):
            fill_ids(words, ids[np.array(near, dtype=np.bool_)[which]].astype(np.int32))

    def _first_token(self, state: int) -> int:
        """The first of the fewest tokens of the completion; the others are remembered for the state behind it."""
        core = self._core
        text, n = self._plan(state)
        for length, token_id in self._beginnings(text):
            if self._fewest(text[length:]) == n - 1:
                target = core.next_state(state, token_id)
                if self.distance(target) > n - 1:
                    self._plans[target] = text[length:], n - 1
                return token_id
        raise AssertionError("a text without a first token")

    def _beginnings(self, text: bytes) -> list[tuple[int, int]]:
        """The tokens that a text begins with, and how long they are."""
        info, end, token = self._core.trie
        found = []
        node, stop = 0, len(info)
        for length, byte in enumerate(text, start=1):
            while node < stop and int(info[node]) & 255 != byte:
                node = int(end[node])
            if node >= stop:
                break
            if token[node] >= 0:
                found.append((length, int(token[node])))
            node, stop = node + 1, int(end[node])
        return found


class _Ways:
    """Shortest texts from a grammar's states to acceptance, texts in place of the codes (Dijkstra's algorithm)."""

    def __init__(self, dfa: ConfigurationDfa, texts: dict[bytes, bytes]) -> None:
        self._dfa, self._texts = dfa, texts
        self._known: dict[int, bytes] = {}

    def text(self, state: int) -> bytes:
        """A shortest text from a live state."""
        known = self._known.get(state)
        if known is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = self._known[state] = self._found(state)
        return known

    def _found(self, start: int) -> bytes:
        dfa = self._dfa
        came: dict[int, tuple[int, bytes]] = {}
        done: set[int] = set()
        queue: list[tuple[int, int, int, int, bytes]] = [(0, 0, start, -1, b"")]
        n = 0
        while queue:
            length, _, at, before, piece = heappop(queue)
            if at in done:
                continue
            done.add(at)
            if len(done) > _MOST_SEARCHED:
                raise LimitExceededError(
                    "the shortest text to the end is too long to be searched for",
                    given=len(done),
                    limit=_MOST_SEARCHED,
                )
            came[at] = before, piece
            if dfa.accept[at]:
                text = b""
                while at != start:
                    at, piece = came[at]
                    text = piece + text
                return text
            edges = [(bytes((byte,)), target) for byte, target in self._edges(at)]
            edges = [(text, dfa.run(at, code)) for code, text in self._texts.items()] + edges
            for piece, target in edges:
                if target != DEAD and target not in done:
                    n += 1
                    heappush(queue, (length + len(piece), n, target, at, piece))
        raise AssertionError("a live state from which nothing accepts")

    def _edges(self, state: int) -> list[tuple[int, int]]:
        dfa = self._dfa
        row = dfa.row(state).tolist()
        pairs = zip(dfa.class_bytes(), row, strict=True)
        return [(byte, target) for byte, target in pairs if byte != VALUE_BYTE and target != DEAD]
