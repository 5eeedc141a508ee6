"""Token automata of grammars that are composed of others: several starts, and JSON values within a grammar.

Both are correct as what they inherit from `RegexCore`, a walk of the vocabulary over the DFA of a composed recogniser.
That is slow, as it visits every byte's configuration, so masks and steps are put together here from those of the parts.
For values that takes, for each world (`grammar.composed`), the tokens that stay with the part that is being read, and
those that leave it: a token leaves at a node of the trie where a value begins or ends, its *crossing*. Crossings are
found with further tokens (`beginnings`): for the grammar, the beginnings of tokens behind which a value can begin, each
followed by the value's code; for a value, the beginnings that end with a closing bracket or quote, or are a number.
Below a crossing the DFA is walked as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.beginnings import texts_before, texts_of, texts_with
from outlines_core.grammar.composed import ComposedRecogniser, UnionRecogniser, World, Worlds
from outlines_core.grammar.configurations import ConfigurationDfa
from outlines_core.grammar_closing import Closing
from outlines_core.grammar_core import GrammarCore, StackedRecogniser
from outlines_core.json_value import JsonValue
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


def _ids_from(mask: NDArray[np.int32], begin: int, n_words: int) -> list[int]:
    """The ids from `begin` on in a mask as cores keep them."""
    if mask.shape[0] != n_words:
        found: list[int] = mask[mask >= begin].tolist()
        return found
    word = begin >> 5
    bits = np.unpackbits(mask[word:].view(np.uint8), bitorder="little")
    return [begin + k for k in np.flatnonzero(bits[begin & 31 :]).tolist()]


class UnionCore(RegexCore):
    """Several starts."""

    def __init__(self, dfa: ConfigurationDfa, vocabulary: Vocabulary, label: str, key: Any) -> None:
        self._parts: list[RegexCore] = []
        super().__init__(dfa, vocabulary, label, key)
        assert isinstance(dfa.recogniser, UnionRecogniser)
        if not self.filtered:
            self._parts = [core_over(part, vocabulary, label, key) for part in dfa.recogniser.parts]

    @property
    def state_bytes(self) -> int:
        return max(super().state_bytes, *(part.state_bytes for part in self._parts), 0)

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
    """Where tokens leave a world: nodes of the trie, and the states there.

    Attributes:
        begin, end: bound what is below.
        is_cut: does the value surely end there?  A number may be longer.
    """

    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    states: list[int]
    is_cut: NDArray[np.bool_]


class ComposedCore(RegexCore):
    """A grammar with JSON values in it."""

    def __init__(self, dfa: ConfigurationDfa, vocabulary: Vocabulary, label: str, key: Any) -> None:
        assert isinstance(dfa.recogniser, ComposedRecogniser)
        self.recogniser = dfa.recogniser
        self._table = vocabulary.table
        self.values: list[JsonValue] = [*self.recogniser.values]  # type: ignore[list-item]
        self._crossings: dict[World, _Crossings] = {}
        self._below: dict[tuple[int, int], NDArray[np.int32]] = {}
        self.closing = Closing(self)
        super().__init__(dfa, vocabulary, label, key)
        if self.filtered:
            return
        first = tuple(value.first for value in self.values)
        longer, self._entries = texts_before(vocabulary, first, tuple(self.recogniser.codes))
        self.outer = core_over(self.recogniser.outer, longer, label, key)

    @property
    def state_bytes(self) -> int:
        tables = [self.recogniser.outer.nbytes, *(value.core.nbytes for value in self.values)]
        return max(super().state_bytes, *tables)

    @property
    def nbytes(self) -> int:
        parts = 0 if self.filtered else self.outer.nbytes
        return super().nbytes + parts + sum(ids.nbytes + 200 for ids in self._below.values())

    @cached_property
    def _last_bits(self) -> np.uint32:
        """The bits of the last word of a mask that are ids."""
        return np.uint32((1 << ((self.size - 1) % 32 + 1)) - 1)

    @cached_property
    def node_of(self) -> NDArray[np.int64]:
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
            return self.closing.completion(state)

    def min_tokens(self, state: int) -> int:
        """So many tokens suffice."""
        if self.filtered:
            return super().min_tokens(state)
        with self.lock:
            return self.closing.distance(state)

    def closing_mask(self, state: int, budget: int, words: NDArray[np.uint32]) -> None:
        """The tokens of the mask after which `min_tokens` is at most ``budget - 1``."""
        if self.filtered or state < FIRST_STATE:
            super().closing_mask(state, budget, words)
            return
        with self.lock:
            near = self.closing.near(state, budget)
            self._add_duplicates(near)
            if self.dfa.accept[state]:
                fill_ids(near, self.eos_ids)
            words[: self.n_words] = near
            words[self.n_words :] = 0

    def _byte_live(self, state: int) -> bool:
        text = self.completion(state)
        return bool(self.single[[*text]].all())

    # -- crossings --------------------------------------------------------------------------------------------------

    def crossings_of(self, world: World) -> _Crossings:
        if world not in self._crossings:
            if len(self._crossings) >= _KEPT:
                self._crossings.clear()
            self._crossings[world] = self._made(world)
        return self._crossings[world]

    def _made(self, world: World) -> _Crossings:
        outer, which, state = world
        dfa: Any = self.dfa
        found: dict[int, list[World]] = {}
        plain: set[int] = set()
        if which >= 0:
            value = self.values[which]
            if value.is_plain(state):
                texts, nodes = texts_of(self._table, value.plain)
                plain = set(nodes[value.ends(state, texts.table)].tolist())
            ends = plain
            if value.last:
                texts, nodes = texts_with(self._table, value.last)
                ends = ends.union(nodes[value.ends(state, texts.table)].tolist())
            found = {node: [(outer, -1, DEAD)] for node in ends}
        else:
            parser = self.outer
            for k in _ids_from(parser.mask(outer), self.size, parser.n_words):
                text = parser.data[parser.indptr[k] : parser.indptr[k + 1]].tobytes()
                node, number = self._entries[k - self.size].tolist()
                behind = self.recogniser.outer.run(outer, text)
                found.setdefault(node, []).append((behind, number, self.values[number].initial))
        begin = np.array(sorted(found), dtype=np.int64)
        states = [dfa.number(self.recogniser.closed(found[node])) for node in begin.tolist()]
        is_cut = np.array([node not in plain for node in begin.tolist()], dtype=np.bool_)
        return _Crossings(begin, self.trie[1][begin].astype(np.int64), states, is_cut)

    def ids_below(self, node: int, state: int) -> NDArray[np.int32]:
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
        crossings = self.crossings_of(world)
        if which < 0:
            longer = np.zeros(self.outer.n_words, dtype=np.uint32)
            _add(self.outer.mask(outer), longer)
            words[:-1] |= longer[: self.n_words]
            words[-2] &= self._last_bits
        else:
            own = np.zeros(self.n_words, dtype=np.uint32)
            self.values[which].fill(state, own)
            self.take_out(crossings, own)
            words[:-1] |= own
        below = [self.ids_below(*one) for one in zip(crossings.begin.tolist(), crossings.states, strict=True)]
        if below:
            fill_ids(words, np.concatenate(below))

    def take_out(self, crossings: _Crossings, words: NDArray[np.uint32]) -> None:
        """Clear the bits of all tokens that go beyond a crossing where a value ends."""
        if not crossings.is_cut.any():
            return
        token = self.trie[2]
        bounds = zip(crossings.begin[crossings.is_cut], crossings.end[crossings.is_cut], strict=True)
        below = [token[begin + 1 : end] for begin, end in bounds]
        ids = np.concatenate(below)
        ids = ids[ids >= 0]
        if len(self.duplicates):
            ids = np.concatenate([ids, self.duplicates[np.isin(self.duplicates[:, 0], ids), 1]])
        gone = np.zeros(self.n_words, dtype=np.uint32)
        fill_ids(gone, ids)
        words &= ~gone

    # -- steps ------------------------------------------------------------------------------------------------------

    def next_state(self, state: int, token_id: int) -> int:
        if self.filtered or state < FIRST_STATE or token_id in self.eos or not 0 <= token_id < self.size:
            return super().next_state(state, token_id)
        with self.lock:
            if state >= self.dfa.n_states:
                raise ValueError(f"{state} is not a state of this automaton")
            node = int(self.node_of[token_id])
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
        crossings = self.crossings_of(world)
        if bool(((crossings.begin < node) & (node < crossings.end)).any()):
            dfa: Any = self.dfa
            worlds: Worlds = (world,)
            target = dfa.run_token(self.data, self.indptr, token_id, dfa.number(worlds))
            return dfa.configuration(target) if target != DEAD else ()
        if which < 0:
            following = self.outer.next_state(outer, token_id)
            return [(following, -1, DEAD)] if following != DEAD else ()
        following = self.values[which].after_token(state, token_id)
        return [(outer, which, following)] if following != DEAD else ()
