"""Token automata of grammars that are composed of others: several starts, and JSON values within a grammar.

Both are correct as what they inherit from `RegexCore`, a walk of the vocabulary over the DFA of a composed recogniser.
That is slow, as it visits every byte's configuration, so masks and steps are put together here from those of the parts.
For values that takes, for each world (`grammar.composed`), the tokens that stay with the part that is being read, and
those that leave it: a token leaves at a node of the trie where a value begins or ends, its *crossing*. Crossings are
found with vocabularies of their own: that of the beginnings of tokens behind which a value can begin, each followed by
the value's code, and that of the beginnings that end with a closing bracket or quote. Below a crossing the DFA is
walked as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.beginnings import texts_before, texts_with
from outlines_core.grammar.composed import VALUE_BYTE, ComposedRecogniser, UnionRecogniser, World, Worlds
from outlines_core.grammar.configurations import ConfigurationDfa
from outlines_core.grammar_core import GrammarCore, StackedRecogniser
from outlines_core.json_value import JsonValue
from outlines_core.kernels.json import fewest_tokens
from outlines_core.regex_core import RegexCore, fill_ids
from outlines_core.types import DEAD, FINISHED, FIRST_STATE
from outlines_core.vocabulary import Vocabulary

__all__ = ["ComposedCore", "UnionCore", "core_over"]

_KEPT: Final = 1 << 14


def core_over(dfa: ConfigurationDfa, vocabulary: Vocabulary, label: str, key: Any) -> RegexCore:
    """The core of a recogniser's DFA: the fastest that there is for it."""
    if isinstance(dfa.recogniser, StackedRecogniser):
        return GrammarCore(dfa, vocabulary, label, key)
    if isinstance(dfa.recogniser, UnionRecogniser):
        return UnionCore(dfa, vocabulary, label, key)
    if isinstance(dfa.recogniser, ComposedRecogniser):
        return ComposedCore(dfa, vocabulary, label, key)
    return RegexCore(dfa, vocabulary, label, key)


def _add(mask: NDArray[np.int32], words: NDArray[np.uint32]) -> None:
    """Set the bits of a mask as cores keep them."""
    if mask.shape == words.shape:
        words |= mask.view(np.uint32)
    else:
        fill_ids(words, mask)


class UnionCore(RegexCore):
    """Several starts."""

    def __init__(self, dfa: ConfigurationDfa, vocabulary: Vocabulary, label: str, key: Any) -> None:
        self._parts: list[RegexCore] = []
        super().__init__(dfa, vocabulary, label, key)
        assert isinstance(dfa.recogniser, UnionRecogniser)
        if not self.filtered:
            self._parts = [core_over(part, vocabulary, label, key) for part in dfa.recogniser.parts]

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(part.nbytes for part in self._parts)

    def mask(self, state: int) -> NDArray[np.int32]:
        if self.filtered or state in (DEAD, FINISHED):
            return super().mask(state)
        with self.lock:
            known = self.masks.get(state)
            if known is not None:
                return known
            if not FIRST_STATE <= state < self.dfa.n_states:
                raise ValueError(f"{state} is not a state of this automaton")
            words = np.zeros(self.n_words, dtype=np.uint32)
            dfa: Any = self.dfa
            for part, at in zip(self._parts, dfa.configuration(state), strict=True):
                if at != DEAD:
                    _add(part.mask(at), words)
            return self._finish_mask(state, words)

    def next_state(self, state: int, token_id: int) -> int:
        if self.filtered or state < FIRST_STATE or token_id in self.eos:
            return super().next_state(state, token_id)
        with self.lock:
            if state >= self.dfa.n_states:
                raise ValueError(f"{state} is not a state of this automaton")
            dfa: Any = self.dfa
            pairs = zip(self._parts, dfa.configuration(state), strict=True)
            states = tuple(part.next_state(at, token_id) for part, at in pairs)
            target = dfa.number(states) if any(states) else DEAD
            if len(self.edges) >= _KEPT:
                self.edges.clear()
            self.edges[state, token_id] = target
            return int(target)


class _Crossings(NamedTuple):
    """Where tokens leave a world: nodes of the trie, and the states there; `begin` and `end` bound what is below."""

    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    states: list[int]


class ComposedCore(RegexCore):
    """A grammar with JSON values in it."""

    def __init__(self, dfa: ConfigurationDfa, vocabulary: Vocabulary, label: str, key: Any) -> None:
        assert isinstance(dfa.recogniser, ComposedRecogniser)
        self.recogniser = dfa.recogniser
        self._table = vocabulary.table
        self._values: list[JsonValue] = [*self.recogniser.values]  # type: ignore[list-item]
        self._crossings: dict[World, _Crossings | None] = {}
        self._below: dict[tuple[int, int], NDArray[np.int32]] = {}
        super().__init__(dfa, vocabulary, label, key)
        if self.filtered:
            return
        outer = self.recogniser.outer
        self._outer = core_over(outer, vocabulary, label, key)
        first = [value.first for value in self._values]
        texts, self._entry_nodes = texts_before(self._table, tuple(first), tuple(self.recogniser.codes))
        self._entries = core_over(outer, texts, label, key)

    @property
    def nbytes(self) -> int:
        parts = 0 if self.filtered else self._outer.nbytes + self._entries.nbytes
        return super().nbytes + parts + sum(ids.nbytes + 200 for ids in self._below.values())

    @cached_property
    def _node_of(self) -> NDArray[np.int64]:
        """The node of each token."""
        token = self.trie[2]
        nodes = np.full(self.size, -1, dtype=np.int64)
        at = np.flatnonzero(token >= 0)
        nodes[token[at]] = at
        if len(self.duplicates):
            nodes[self.duplicates[:, 1]] = nodes[self.duplicates[:, 0]]
        return nodes

    # -- the way to an end ------------------------------------------------------------------------------------------

    def completion(self, state: int) -> bytes:
        """A short text from a live state to acceptance: a shortest one as far as it is known of the values."""
        with self.lock:
            dfa: Any = self.dfa
            return min((self._completion(world) for world in dfa.configuration(state)), key=len)

    def _completion(self, world: World) -> bytes:
        outer, which, state = world
        text = self._values[which].completion(state) if which >= 0 else b""
        return text + self._ways.text(outer)

    @cached_property
    def _ways(self) -> _Ways:
        values = [value.completion(value.initial) for value in self._values]
        return _Ways(self.recogniser.outer, dict(zip(self.recogniser.codes, values, strict=True)))

    def byte_distance(self, state: int) -> int:
        return len(self.completion(state))

    def min_tokens(self, state: int) -> int:
        """So many tokens suffice: the fewest that spell `completion`."""
        if self.filtered:
            return super().min_tokens(state)
        text = np.frombuffer(self.completion(state), dtype=np.uint8)
        return int(fewest_tokens(self.packed, text, self.size))

    def _measure(self, state: int) -> None:
        """Not here: there are too many states, most of them of values."""

    def _byte_live(self, state: int) -> bool:
        text = self.completion(state)
        return bool(self.single[[*text]].all())

    # -- crossings --------------------------------------------------------------------------------------------------

    def _crossings_of(self, world: World) -> _Crossings | None:
        """None: there are too many places where tokens may leave the world."""
        if world not in self._crossings:
            if len(self._crossings) >= _KEPT:
                self._crossings.clear()
            self._crossings[world] = self._made(world)
        return self._crossings[world]

    def _made(self, world: World) -> _Crossings | None:
        outer, which, state = world
        dfa: Any = self.dfa
        found: dict[int, list[World]] = {}
        if which >= 0:
            value = self._values[which]
            if value.is_loose(state):
                return None
            texts, nodes = texts_with(self._table, value.last)
            for k in value.ends(state, texts.table):
                found[int(nodes[k])] = [(outer, -1, DEAD)]
        else:
            n = len(self._entry_nodes)
            for k in self._entries.ids(outer).tolist():
                if 256 <= k < 256 + n:
                    text = self._entries.data[self._entries.indptr[k] : self._entries.indptr[k + 1]].tobytes()
                    node, value_number = self._entry_nodes[k - 256].tolist()
                    behind = self.recogniser.outer.run(outer, text)
                    found.setdefault(node, []).append((behind, value_number, self._values[value_number].initial))
        begin = np.array(sorted(found), dtype=np.int64)
        states = [dfa.number(self.recogniser.closed(found[node])) for node in begin.tolist()]
        return _Crossings(begin, self.trie[1][begin].astype(np.int64), states)

    def _ids_below(self, node: int, state: int) -> NDArray[np.int32]:
        """The tokens below a node that are allowed if `state` is the state there."""
        key = node, state
        known = self._below.get(key)
        if known is None:
            info, end, token = self.packed
            stop = int(end[node])
            self._path[int(info[node]) >> 8] = state
            words = np.zeros(self.n_words + 1, dtype=np.uint32)
            self.dfa.walk((info[:stop], end[:stop], token[:stop]), self._path, words, begin=node + 1)
            if len(self._below) >= _KEPT:
                self._below.clear()
            bits = np.unpackbits(words[:-1].astype("<u4").view(np.uint8), bitorder="little")
            known = self._below[key] = np.flatnonzero(bits).astype(np.int32)
        return known

    # -- masks ------------------------------------------------------------------------------------------------------

    def mask(self, state: int) -> NDArray[np.int32]:
        if self.filtered or state in (DEAD, FINISHED):
            return super().mask(state)
        with self.lock:
            known = self.masks.get(state)
            if known is not None:
                return known
            if not FIRST_STATE <= state < self.dfa.n_states:
                raise ValueError(f"{state} is not a state of this automaton")
            words = np.zeros(self.n_words + 1, dtype=np.uint32)
            dfa: Any = self.dfa
            for world in dfa.configuration(state):
                self._fill(world, words)
            return self._finish_mask(state, words[: self.n_words])

    def _fill(self, world: World, words: NDArray[np.uint32]) -> None:
        outer, which, state = world
        crossings = self._crossings_of(world)
        if crossings is None:
            self._path[0] = self._alone(world)
            self.dfa.walk(self.packed, self._path, words)
            return
        if which < 0:
            _add(self._outer.mask(outer), words[:-1])
        else:
            own = np.zeros(self.n_words, dtype=np.uint32)
            _add(self._values[which].mask(state), own)
            self._take_out(crossings, own)
            words[:-1] |= own
        below = [self._ids_below(*one) for one in zip(crossings.begin.tolist(), crossings.states, strict=True)]
        if below:
            fill_ids(words, np.concatenate(below))

    def _take_out(self, crossings: _Crossings, words: NDArray[np.uint32]) -> None:
        """Clear the bits of all tokens that go beyond a crossing."""
        if not len(crossings.begin):
            return
        token = self.trie[2]
        below = [token[begin + 1 : end] for begin, end in zip(crossings.begin, crossings.end, strict=True)]
        ids = np.concatenate(below)
        ids = ids[ids >= 0]
        if len(self.duplicates):
            ids = np.concatenate([ids, self.duplicates[np.isin(self.duplicates[:, 0], ids), 1]])
        gone = np.zeros(self.n_words, dtype=np.uint32)
        fill_ids(gone, ids)
        words &= ~gone

    def _alone(self, world: World) -> int:
        """The state of nothing but a world."""
        dfa: Any = self.dfa
        return int(dfa.number((world,)))

    # -- steps ------------------------------------------------------------------------------------------------------

    def next_state(self, state: int, token_id: int) -> int:
        if self.filtered or state < FIRST_STATE or token_id in self.eos or not 0 <= token_id < self.size:
            return super().next_state(state, token_id)
        with self.lock:
            if state >= self.dfa.n_states:
                raise ValueError(f"{state} is not a state of this automaton")
            node = int(self._node_of[token_id])
            dfa: Any = self.dfa
            worlds: list[World] = []
            if node >= 0:
                for world in dfa.configuration(state):
                    worlds += self._after(world, token_id, node)
            target = dfa.number(self.recogniser.closed(worlds)) if worlds else DEAD
            if len(self.edges) >= _KEPT:
                self.edges.clear()
            self.edges[state, token_id] = target
            return int(target)

    def next_states(self, states: Any, token_ids: Any) -> list[int]:
        return [self.next_state(s, t) for s, t in zip(states, token_ids, strict=True)]

    def _after(self, world: World, token_id: int, node: int) -> Sequence[World]:
        outer, which, state = world
        crossings = self._crossings_of(world)
        if crossings is None or bool(((crossings.begin < node) & (node < crossings.end)).any()):
            dfa: Any = self.dfa
            worlds: Worlds = (world,)
            target = dfa.run_token(self.data, self.indptr, token_id, dfa.number(worlds))
            return dfa.configuration(target) if target != DEAD else ()
        if which < 0:
            following = self._outer.next_state(outer, token_id)
            return [(following, -1, DEAD)] if following != DEAD else ()
        following = self._values[which].after_token(state, token_id)
        return [(outer, which, following)] if following != DEAD else ()


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
