"""What all automata of one regular constraint and one vocabulary share: lazy DFA, masks, distances.

A mask is one walk of the vocabulary trie over the DFA, which computes the transitions that nobody has needed yet as it
goes. It is made on the first visit and kept: as ids where they are few, within ``Limits.max_mask_bytes``.

Where each byte that the pattern can use is a token by itself, every live DFA state can be spelled out and the walk's
answer is exact. Otherwise a token is allowed only if its target is *token-live*: some sequence of tokens leads from it
to acceptance. That is decided by a search over token steps, each result remembered (`RegexCore.token_live`).
"""

from __future__ import annotations

import sys
import threading
import unicodedata
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.automaton import MaskedCore
from outlines_core.cache import content_key, default_store
from outlines_core.errors import IncompatibleVocabularyError, LimitExceededError, UnsatisfiableError
from outlines_core.kernels.dfa import LANES, advance, advance_rows, lanes_to_ids, mask_to_ids, walk_lanes
from outlines_core.regex.dfa import LazyDfa
from outlines_core.types import DEAD, FINISHED, FIRST_STATE
from outlines_core.vocabulary import Vocabulary

__all__ = ["RegexCore"]

_FORMAT = 1
_EDGES_KEPT = 1 << 16
_STORED = {"delta", "accept", "start", "states", "which", "dense", "ids", "indptr"}
_STORED_STATES = (32, 50_000)
_STORED_BYTES = 64 * 2**20
_SEARCH_LIMIT = 20_000
"""Token steps looked at for one question about distances before giving up."""


class RegexCore(MaskedCore):
    """Everything that automata of one constraint and one vocabulary share.

    Attributes:
        codes: bytes that stand for special tokens, and their names.
    """

    codes: Mapping[bytes, str] = MappingProxyType({})

    def __init__(self, dfa: LazyDfa, vocabulary: Vocabulary, label: str, key: tuple[Any, ...]) -> None:
        table = vocabulary.table
        self.dfa, self.vocabulary, self.label, self._key = dfa, vocabulary, label, key
        self.lock = dfa.lock
        self.size, self.n_words = table.size, table.n_words
        self.data, self.indptr = table.data, table.indptr
        self.eos_ids = table.eos_ids
        self.eos = frozenset(table.eos_ids.tolist())
        trie = table.trie
        self.trie, self.duplicates = (trie.info, trie.end, trie.token), trie.duplicates
        self.packed = trie.packed
        self._path = np.zeros(trie.max_depth + 2, dtype=np.int32)
        self.single = np.zeros(256, dtype=np.bool_)
        self.single[table.data[table.indptr[:-1][np.diff(table.indptr) == 1]]] = True
        self.filtered = bool(np.any(_bytes_used(dfa) & ~self.single))
        self.shape = (self.n_words,)
        self.room = (self.n_words - 1) // 4  # so many ids at most are kept as ids: fewer than there are words
        self.eos_words = [
            (word, np.uint32(sum(1 << (i & 31) for i in self.eos if i >> 5 == word)))
            for word in sorted({i >> 5 for i in self.eos})
        ]
        self.edges: dict[tuple[int, int], int] = {}
        self._mask_bytes = 0
        self._dense: dict[int, NDArray[np.int32]] = {}  # equal masks are one array
        self._by_key: dict[bytes, NDArray[np.int32]] = {}
        self._users: dict[int, int] = {}  # id of a mask's array -> states that have it
        self._alike = dfa.nfa.alike_for(trie.max_depth)
        end_only = np.zeros(self.n_words, dtype=np.uint32)
        fill_ids(end_only, self.eos_ids)
        self.masks: dict[int, NDArray[np.int32]] = {
            FINISHED: self._compressed(end_only),
            DEAD: self._compressed(np.zeros(self.n_words, dtype=np.uint32)),
        }
        self._targets: dict[int, NDArray[np.int32]] = {}
        self._token_distance: dict[int, int] = {}
        self._measured: set[int] = set()
        self._byte_distance: dict[int, int] = {}
        self.complete = False
        if dfa.start == DEAD:
            raise UnsatisfiableError(f"no text at all satisfies {label}")
        if self.filtered and not self.token_live(dfa.start):
            self._raise_incompatible()

    def _raise_incompatible(self) -> None:
        witness = self.completion(self.dfa.start)
        seen = np.zeros(256, dtype=np.bool_)
        seen[self.data] = True
        missing = bytes(byte for byte in dict.fromkeys(witness) if not seen[byte])
        hint = f"no token contains the bytes {missing!r}, which" if missing else "its tokens do not combine to what"
        raise IncompatibleVocabularyError(
            f"The vocabulary does not allow us to build a sequence that matches {self.label}: {hint} for instance "
            f"{witness[:60]!r} needs",
            missing_bytes=missing,
        )

    @property
    def initial_state(self) -> int:
        return self.dfa.start

    @property
    def n_states(self) -> int:
        return self.dfa.n_states

    def accepts(self, state: int) -> bool:
        """May the text end in this (live) state?"""
        return bool(self.dfa.accept[state])

    # -- liveness in tokens -----------------------------------------------------------------------------------------

    def token_live(self, state: int) -> bool:
        """Can acceptance be reached from `state` by whole tokens?"""
        known = int(self.dfa.allowed[state])
        if known < 2:
            return known == 1
        with self.lock:
            return self._search_live(state)

    def _search_live(self, state: int) -> bool:
        dfa = self.dfa
        spelled = dfa.is_spelled(state, self.trie, self.single)
        if spelled is not None:
            dfa.allowed[state] = spelled
            return spelled
        parents: dict[int, list[int]] = {state: []}
        queue = deque([state])
        alive: list[int] = []
        bound = dfa.bound_effort()
        while queue:
            if dfa.effort > bound:
                raise LimitExceededError(
                    "whether the vocabulary can spell the text to its end takes too long to find out",
                    given=dfa.effort,
                    limit=bound,
                )
            at = queue.popleft()
            if dfa.accept[at] or dfa.allowed[at] == 1 or self._byte_live(at):
                alive.append(at)
                break
            for target in self.targets(at, live_only=False).tolist():
                if dfa.allowed[target] == 0:
                    continue
                if target in parents:
                    parents[target].append(at)
                else:
                    parents[target] = [at]
                    queue.append(target)
        if not alive:
            dfa.allowed[list(parents)] = 0
            return False
        while alive:
            at = alive.pop()
            dfa.allowed[at] = 1
            alive.extend(parents.pop(at, ()))
        return bool(dfa.allowed[state] == 1)

    def _byte_live(self, state: int) -> bool:
        """A quick sufficient test: a way to acceptance in single-byte tokens."""
        text = self.dfa.shortest(state, usable=self.single)
        if text is None:
            return False
        for byte in text:
            self.dfa.allowed[state] = 1
            state = self.dfa.step(state, byte)
        self.dfa.allowed[state] = 1
        return True

    def targets(self, state: int, *, live_only: bool = True) -> NDArray[np.int32]:
        """The distinct states that single tokens lead to (the lock must be held)."""
        known = self._targets.get(state)
        if known is None:
            scratch = np.zeros(self.n_words + 1, dtype=np.uint32)
            self._path[0] = state
            known = self._targets[state] = self.dfa.walk(self.packed, self._path, scratch, collect=True)
        if live_only and self.filtered:
            return known[[self.token_live(t) for t in known.tolist()]]
        return known

    # -- masks ------------------------------------------------------------------------------------------------------

    def mask(self, state: int) -> NDArray[np.int32]:
        """The mask of a state: (n_words,) words, or fewer entries and then the allowed ids."""
        with self.lock:
            known = self.masks.get(state)
            if known is not None:
                return known
            if not FIRST_STATE <= state < self.dfa.n_states:
                raise ValueError(f"{state} is not a state of this automaton")
            key = self._mask_key(state)
            known = self._by_key.get(key) if key else None
            if known is not None:
                self._keep(state, known)
                return known
            words = np.zeros(self.n_words + 1, dtype=np.uint32)
            if self.filtered:  # two walks: where do tokens lead, and which of that is live
                for target in self.targets(state, live_only=False).tolist():
                    self.token_live(target)
            self._path[0] = state
            self.dfa.walk(self.packed, self._path, words, filtered=self.filtered)
            known = self._finish_mask(state, words[: self.n_words])
            if key:
                self._by_key[key] = known
            return known

    def _mask_key(self, state: int) -> bytes:
        """What the mask of a state depends on, counts that no token can use up left out; b"" if that is all of it."""
        if self._alike is None or self.filtered or self.complete:
            return b""
        items = self.dfa.items(state)
        seen = np.unique((self._alike[items >> 16] << 16) | (items & 0xFFFF))
        return seen.tobytes() + bytes([self.dfa.accept[state]])

    def _finish_mask(self, state: int, words: NDArray[np.uint32]) -> NDArray[np.int32]:
        self._add_duplicates(words)
        if self.dfa.accept[state]:
            for word, bits in self.eos_words:
                words[word] |= bits
        stored = self._compressed(words)
        self._keep(state, stored)
        return stored

    def all_states(self) -> list[int]:
        """Every state that tokens can reach from the start, in order of discovery; all transitions are known then."""
        with self.lock:
            everything = self.dfa.expand_everything()
            if not self.filtered:  # each byte is a token
                return everything
            order, known = [self.dfa.start], {self.dfa.start}
            for state in order:
                for target in self.targets(state).tolist():
                    if target not in known:
                        known.add(target)
                        order.append(target)
            return order

    def build_masks(self, states: list[int]) -> None:
        """Masks of at most LANES states whose transitions are all known.  Walks of several threads run side by side."""
        if self.filtered or len(states) < LANES // 2:  # lanes that stand empty cost as much as the others
            for state in states:
                self.mask(state)
            return
        path = np.zeros((self._path.shape[0], LANES), dtype=np.int32)
        path[0, : len(states)] = states
        lanes = np.zeros((self.n_words + 1, LANES), dtype=np.uint32)
        walk_lanes(self.packed, self.dfa.byte_class, self.dfa.delta, path, lanes)
        if len(self.duplicates):
            first, other = self.duplicates[:, 0], self.duplicates[:, 1]
            bits = (lanes[first >> 5] >> (first & 31).astype(np.uint32)[:, None]) & np.uint32(1)
            np.bitwise_or.at(lanes, other >> 5, bits << (other & 31).astype(np.uint32)[:, None])
        accepting = np.flatnonzero(self.dfa.accept[states])
        for word, bits in self.eos_words:
            lanes[word, accepting] |= bits
        counts = np.empty(LANES, dtype=np.int64)
        ids = np.empty((LANES, self.room), dtype=np.int32)
        lanes_to_ids(lanes, self.n_words, counts, ids)
        with self.lock:
            for lane, state in enumerate(states):
                if counts[lane] <= self.room:
                    self._keep(state, ids[lane, : counts[lane]].copy())
                else:
                    self._keep(state, self._shared(np.ascontiguousarray(lanes[: self.n_words, lane])))

    def _add_duplicates(self, words: NDArray[np.uint32]) -> None:
        if len(self.duplicates):
            first, other = self.duplicates[:, 0], self.duplicates[:, 1]
            fill_ids(words, other[(words[first >> 5] >> (first & 31).astype(np.uint32)) & np.uint32(1) == 1])

    def _compressed(self, words: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Ids if they are few, else the words."""
        ids = np.empty(self.room, dtype=np.int32)
        n = mask_to_ids(words, ids)
        return ids[:n].copy() if n <= self.room else self._shared(words)

    def _shared(self, words: NDArray[np.uint32]) -> NDArray[np.int32]:
        """One array for equal masks."""
        if len(self._dense) >= 4096:
            self._dense.clear()
        found = self._dense.setdefault(zlib.adler32(words), words.view(np.int32))  # type: ignore[arg-type]
        return found if found.tobytes() == words.tobytes() else words.view(np.int32)

    def _keep(self, state: int, mask: NDArray[np.int32]) -> None:
        users = self._users.get(id(mask), 0)
        self._users[id(mask)] = users + 1
        self.masks[state] = mask
        self._mask_bytes += 200 + (0 if users else mask.nbytes)
        if self._mask_bytes > self.dfa.limits.max_mask_bytes:
            self._dense.clear()
            self._by_key.clear()
            for old in [s for s in self.masks if s >= FIRST_STATE][: max(1, len(self.masks) // 2)]:
                dropped = self.masks.pop(old)
                users = self._users[id(dropped)] = self._users[id(dropped)] - 1
                self._mask_bytes -= 200 + (0 if users else dropped.nbytes)
                if not users:
                    del self._users[id(dropped)]

    # -- steps ------------------------------------------------------------------------------------------------------

    def next_state(self, state: int, token_id: int) -> int:
        if state < FIRST_STATE:
            return FINISHED if state == FINISHED and token_id in self.eos else DEAD
        if token_id in self.eos:
            return FINISHED if self.dfa.accept[state] else DEAD
        if not 0 <= token_id < self.size:
            return DEAD
        dfa = self.dfa
        if state >= dfa.n_states:
            raise ValueError(f"{state} is not a state of this automaton")
        target = int(advance(dfa.delta, dfa.byte_class, self.data, self.indptr, token_id, state))
        if target < 0:
            target = dfa.run_token(self.data, self.indptr, token_id, state)
        if self.filtered and target and not self.token_live(target):
            target = DEAD
        if len(self.edges) >= _EDGES_KEPT:
            self.edges.clear()
        self.edges[state, token_id] = target
        return target

    def next_states(self, states: Sequence[int], token_ids: Sequence[int]) -> list[int]:
        """`next_state` of many rows: one kernel call, and what that cannot decide one by one."""
        n_states, size = self.dfa.n_states, self.size
        plain = [
            FIRST_STATE <= s < n_states and 0 <= t < size and t not in self.eos
            for s, t in zip(states, token_ids, strict=True)
        ]
        if self.filtered or not all(plain):
            return [self.next_state(s, t) for s, t in zip(states, token_ids, strict=True)]
        dfa = self.dfa
        rows = np.array((states, token_ids), dtype=np.int64)
        advance_rows(dfa.delta, dfa.byte_class, self.data, self.indptr, rows)
        targets: list[int] = rows[0].tolist()
        for r, target in enumerate(targets):
            if target < 0:
                targets[r] = self.next_state(states[r], token_ids[r])
        return targets

    # -- distances --------------------------------------------------------------------------------------------------

    def min_tokens(self, state: int) -> int:
        """Fewest tokens from `state` to acceptance: a breadth-first search over token steps."""
        known = self._token_distance.get(state)
        if known is not None:
            return known
        with self.lock:
            layer, before, distance = [state], {state: 0}, 0
            nearest: tuple[int, int] | None = None  # (tokens from `state` to the end, the state where that was known)
            bound = self.dfa.bound_effort()
            looked_at = 0
            while layer and (nearest is None or distance < nearest[0]):
                following: list[int] = []
                for s in layer:
                    left = 0 if self.dfa.accept[s] else self._token_distance.get(s)
                    if left is not None and (nearest is None or distance + left < nearest[0]):
                        nearest = distance + left, s
                for s in layer if nearest is None or distance + 1 < nearest[0] else ():
                    looked_at += 1
                    if looked_at > _SEARCH_LIMIT or self.dfa.effort > bound:
                        raise LimitExceededError(
                            "the fewest tokens to the end are too many to be searched for",
                            given=looked_at,
                            limit=_SEARCH_LIMIT,
                        )
                    for t in self.targets(s).tolist():
                        if t not in before:
                            before[t] = s
                            following.append(t)
                layer, distance = following, distance + 1
            if nearest is None:
                raise AssertionError("a live state from which nothing accepts")
            found, s = nearest
            left = 0 if self.dfa.accept[s] else self._token_distance[s]
            while s != 0:  # all states on the way are on a shortest one of their own
                self._token_distance[s] = left
                s, left = before[s], left + 1
        return found

    def completion(self, state: int) -> bytes:
        """A shortest text from a live state to acceptance."""
        return self.dfa.shortest(state) or b""

    def byte_distance(self, state: int) -> int:
        """Fewest bytes from `state` to acceptance; if single bytes are tokens, as many tokens do."""
        known = self._byte_distance.get(state)
        if known is None:
            text = self.completion(state)
            known = len(text)
            for k, byte in enumerate(text):  # every state on a shortest way is on its own shortest way
                self._byte_distance[state] = len(text) - k
                state = self.dfa.step(state, byte)
            self._byte_distance[state] = 0
        return known

    def closing_mask(self, state: int, budget: int, words: NDArray[np.uint32]) -> None:
        """The tokens of the mask after which at most ``budget - 1`` more tokens are needed."""
        self.fill(state, words)
        if state < FIRST_STATE:
            return
        with self.lock:
            targets = self.targets(state).tolist()
            far = targets if self.filtered else [t for t in targets if self.byte_distance(t) > budget - 1]
            if not far:
                return
            self._measure(state)
            distances = {t: self._distance_or_bound(t) for t in targets}  # may make states
            near = np.zeros(self.dfa.allowed.shape[0], dtype=np.uint8)
            near[[t for t, distance in distances.items() if distance <= budget - 1]] = 1
            closing = np.zeros(self.n_words + 1, dtype=np.uint32)
            self._path[0] = state
            self.dfa.walk(self.packed, self._path, closing, allowed=near)
            closing = closing[: self.n_words]
            self._add_duplicates(closing)
            if self.dfa.accept[state]:
                fill_ids(closing, self.eos_ids)
            words[: self.n_words] = closing

    def _distance_or_bound(self, state: int) -> int:
        """Exact if it was measured, else the number of bytes, which is not too small."""
        known = self._token_distance.get(state)
        if known is not None:
            return known
        return self.min_tokens(state) if self.filtered else self.byte_distance(state)

    def _measure(self, state: int) -> None:
        """Token distances of everything reachable from `state` at once, if that is not too much."""
        if state in self._measured or not self.dfa.is_finite:
            return
        order, numbers = [state], {state: 0}
        sources: list[NDArray[np.int64]] = []
        goals: list[NDArray[np.int64]] = []
        for k, s in enumerate(order):
            if k > _SEARCH_LIMIT // 4:
                self._measured.add(state)  # not to be tried again
                return
            found = self.targets(s).tolist()
            for t in found:
                if t not in numbers:
                    numbers[t] = len(order)
                    order.append(t)
            goals.append(np.array([numbers[t] for t in found], dtype=np.int64))
            sources.append(np.full(len(found), k, dtype=np.int64))
        source, goal = np.concatenate(sources), np.concatenate(goals)
        distance = np.where(self.dfa.accept[order] != 0, 0, -1)
        d = 0
        while True:
            reached = source[(distance[goal] == d) & (distance[source] < 0)]
            if not len(reached):
                break
            d += 1
            distance[reached] = d
        self._token_distance.update(zip(order, distance.tolist(), strict=True))
        self._measured.update(order)

    # -- on disk ----------------------------------------------------------------------------------------------------

    @cached_property
    def disk_key(self) -> str:
        """A hash of all that the index depends on: constraint, limits, vocabulary, the Python that reads patterns."""
        return content_key("index", _FORMAT, sys.version, unicodedata.unidata_version, repr(self._key))

    def load(self) -> bool:
        """Take the whole index from disk, if it is there and nothing was visited yet."""
        with self.lock:
            if self.filtered or self.complete or self.dfa.n_states != self.dfa.start + 1:
                return self.complete
            stored = default_store().get(self.disk_key)
            if stored is None or stored.keys() != _STORED:
                return False
            delta, states = stored["delta"], stored["states"].tolist()
            if delta.shape[1] != self.dfa.n_classes or int(stored["start"][0]) != self.dfa.start:
                return False
            self.dfa.adopt(delta, stored["accept"])
            ids, indptr, dense = stored["ids"], stored["indptr"].tolist(), stored["dense"]
            for state, which, begin, end in zip(states, stored["which"].tolist(), indptr, indptr[1:], strict=False):
                self._keep(state, dense[which] if which >= 0 else ids[begin:end])
            self.complete = True
            return True

    def save(self) -> None:
        """Put the whole index, every state visited, on disk (unless it is small, or too large)."""
        with self.lock:
            self.complete = True
            states = [s for s in range(self.dfa.start, self.dfa.n_states) if s in self.masks]
            every = len(states) == self.dfa.n_states - self.dfa.start
            if self.filtered or not every or not _STORED_STATES[0] <= len(states) <= _STORED_STATES[1]:
                return
            masks = [self.masks[s] for s in states]
            numbers: dict[int, int] = {}
            which = [numbers.setdefault(id(m), len(numbers)) if m.shape == self.shape else -1 for m in masks]
            dense = list({id(m): m for m in masks if m.shape == self.shape}.values())
            sparse = [m if k < 0 else m[:0] for m, k in zip(masks, which, strict=True)]
            n = self.dfa.n_states
            arrays: dict[str, NDArray[Any]] = {
                "delta": self.dfa.delta[:n],
                "accept": self.dfa.accept[:n],
                "start": np.array([self.dfa.start]),
                "states": np.array(states),
                "which": np.array(which),
                "dense": np.array(dense, dtype=np.int32).reshape(-1, self.n_words),
                "ids": np.concatenate(sparse) if sparse else np.zeros(0, dtype=np.int32),
                "indptr": np.concatenate([[0], np.cumsum([len(m) for m in sparse])]),
            }
        if sum(a.nbytes for a in arrays.values()) <= _STORED_BYTES:  # written while the caller goes on
            threading.Thread(target=default_store().put, args=(self.disk_key, arrays), name="store-index").start()

    @property
    def state_bytes(self) -> int:
        """Bytes of the largest table that `Limits.max_state_bytes` bounds."""
        return self.dfa.nbytes

    @property
    def nbytes(self) -> int:
        return self.dfa.nbytes + self._mask_bytes + sum(t.nbytes for t in self._targets.values())


def fill_ids(words: NDArray[np.uint32], ids: NDArray[np.int32]) -> None:
    """Set the bits of `ids`, which may repeat words."""
    np.bitwise_or.at(words, ids >> 5, np.uint32(1) << (ids & 31).astype(np.uint32))


def _bytes_used(dfa: LazyDfa) -> NDArray[np.bool_]:
    """Bytes that some character of the constraint contains (the "any byte" of look-aheads left out)."""
    dag = dfa.nfa.dag
    own = dag[~np.all(dag == 1, axis=1)]
    used: NDArray[np.bool_] = np.any(own != 0, axis=0)[dfa.byte_class]
    return used
