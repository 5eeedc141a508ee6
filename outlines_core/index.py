"""A byte DFA on a vocabulary: the token automaton of a regex, and batches of automata.

A state of the automaton *is* a state of the lazy DFA. A mask is one walk of the vocabulary trie over the DFA, which
computes the transitions that nobody has needed yet as it goes; it is made on the first visit and kept (sparse masks as
ids, within ``Limits.max_mask_bytes``).

Where each byte that the pattern can use is a token by itself, every live DFA state can be spelled out and the walk's
answer is exact. Otherwise a token is allowed only if its target is *token-live*: some sequence of tokens leads from it
to acceptance. That is decided by a search over token steps, each result remembered (`_Core.token_live`).

The core (tables, masks) is shared by all automata of one constraint and vocabulary; the automaton itself is a light
object, one per request if a server likes.
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.bitmask import checked_words
from outlines_core.errors import IncompatibleVocabularyError, LimitExceededError, UnsatisfiableError
from outlines_core.kernels.dfa import LANES, advance, fill_sparse, lanes_to_ids, mask_to_ids, walk_lanes
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.dfa import LazyDfa
from outlines_core.types import DEAD, FINISHED, FIRST_STATE, StateId, TokenAutomaton, TokenId
from outlines_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from interegular import FSM

__all__ = ["Index", "RegexAutomaton", "fill_masks"]

_INT32 = np.dtype(np.int32)
_EDGES_KEPT = 1 << 16
_SEARCH_LIMIT = 20_000
"""Token steps looked at for one question about distances before giving up."""


class _Core:
    """Everything that automata of one constraint and one vocabulary share."""

    def __init__(self, dfa: LazyDfa, vocabulary: Vocabulary, label: str) -> None:
        table = vocabulary.table
        self.dfa, self.vocabulary, self.label = dfa, vocabulary, label
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
        self._dense: dict[bytes, NDArray[np.int32]] = {}
        end_only = np.zeros(self.n_words, dtype=np.uint32)
        fill_ids(end_only, self.eos_ids)
        self.masks: dict[int, NDArray[np.int32]] = {
            FINISHED: self._compressed(end_only),
            DEAD: self._compressed(np.zeros(self.n_words, dtype=np.uint32)),
        }
        self._targets: dict[int, NDArray[np.int32]] = {}
        self._token_distance: dict[int, int] = {}
        self._byte_distance: dict[int, int] = {}
        self.complete = False
        if dfa.start == DEAD:
            raise UnsatisfiableError(f"no text at all satisfies {label}")
        if self.filtered and not self.token_live(dfa.start):
            self._raise_incompatible()

    def _raise_incompatible(self) -> None:
        witness = self.dfa.shortest(self.dfa.start) or b""
        seen = np.zeros(256, dtype=np.bool_)
        seen[self.data] = True
        missing = bytes(byte for byte in dict.fromkeys(witness) if not seen[byte])
        hint = f"no token contains the bytes {missing!r}, which" if missing else "its tokens do not combine to what"
        raise IncompatibleVocabularyError(
            f"The vocabulary does not allow us to build a sequence that matches {self.label}: {hint} for instance "
            f"{witness[:60]!r} needs",
            missing_bytes=missing,
        )

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
        parents: dict[int, list[int]] = {state: []}
        queue = deque([state])
        alive: list[int] = []
        while queue:
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
            words = np.zeros(self.n_words + 1, dtype=np.uint32)
            if self.filtered:  # two walks: where do tokens lead, and which of that is live
                for target in self.targets(state, live_only=False).tolist():
                    self.token_live(target)
            self._path[0] = state
            self.dfa.walk(self.packed, self._path, words, filtered=self.filtered)
            return self._finish_mask(state, words[: self.n_words])

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
        if self.filtered:
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
        return self._dense.setdefault(words.tobytes(), words.view(np.int32))

    def _keep(self, state: int, mask: NDArray[np.int32]) -> None:
        self.masks[state] = mask
        self._mask_bytes += mask.nbytes + 200
        if self._mask_bytes > self.dfa.limits.max_mask_bytes:
            for old in [s for s in self.masks if s >= FIRST_STATE][: max(1, len(self.masks) // 2)]:
                self._mask_bytes -= self.masks.pop(old).nbytes + 200
            self._dense.clear()

    def fill(self, state: int, words: NDArray[Any]) -> None:
        """Write the mask of `state` into `words` (checked)."""
        mask = self.masks.get(state)
        if mask is None:
            mask = self.mask(state)
        n = self.n_words
        if mask.shape[0] == n:
            words[:n] = mask.view(np.uint32)
            if words.shape[0] > n:
                words[n:] = 0
        else:
            fill_sparse(mask, words)

    def ids(self, state: int) -> NDArray[np.int32]:
        """The allowed ids, ascending."""
        mask = self.masks.get(state)
        if mask is None:
            mask = self.mask(state)
        if mask.shape[0] != self.n_words:
            return mask
        ids = np.empty(self.size, dtype=np.int32)
        return ids[: mask_to_ids(mask.view(np.uint32), ids)]

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
            target = dfa.run(state, self.data[self.indptr[token_id] : self.indptr[token_id + 1]].tobytes())
        if self.filtered and target and not self.token_live(target):
            target = DEAD
        if len(self.edges) >= _EDGES_KEPT:
            self.edges.clear()
        self.edges[state, token_id] = target
        return target

    # -- distances --------------------------------------------------------------------------------------------------

    def min_tokens(self, state: int) -> int:
        """Fewest tokens from `state` to acceptance: a breadth-first search over token steps."""
        known = self._token_distance.get(state)
        if known is not None:
            return known
        with self.lock:
            layer, seen, distance, looked_at = [state], {state}, 0, 0
            while layer:
                if any(self.dfa.accept[s] for s in layer):
                    self._token_distance[state] = distance
                    return distance
                following: list[int] = []
                for s in layer:
                    looked_at += 1
                    if looked_at > _SEARCH_LIMIT:
                        raise LimitExceededError(
                            "the fewest tokens to the end are too many to be searched for",
                            given=looked_at,
                            limit=_SEARCH_LIMIT,
                        )
                    for t in self.targets(s).tolist():
                        if t not in seen:
                            seen.add(t)
                            following.append(t)
                layer, distance = following, distance + 1
        raise AssertionError("a live state from which nothing accepts")

    def byte_distance(self, state: int) -> int:
        """Fewest bytes from `state` to acceptance; if single bytes are tokens, as many tokens do."""
        known = self._byte_distance.get(state)
        if known is None:
            text = self.dfa.shortest(state) or b""
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
        if state in self._token_distance:
            return
        order, numbers = [state], {state: 0}
        sources: list[NDArray[np.int64]] = []
        goals: list[NDArray[np.int64]] = []
        for k, s in enumerate(order):
            if k > _SEARCH_LIMIT // 4:
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


class RegexAutomaton:
    """The `TokenAutomaton` of a regular constraint.  Made by `compile_regex` and `compile_choice`.

    Every method may be called from any number of threads. States are ints: `oc.DEAD`, `oc.FINISHED`, and ids of this
    object's table, equal only for equal futures.
    """

    def __init__(self, core: _Core, source: tuple[Callable[..., RegexAutomaton], tuple[Any, ...]]) -> None:
        self._core, self._source = core, source
        self._edges = core.edges

    def __reduce__(self) -> tuple[Any, ...]:
        return self._source

    def __copy__(self) -> RegexAutomaton:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> RegexAutomaton:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._core.label}, n_states={self.n_states})"

    @property
    def initial_state(self) -> StateId:
        return self._core.dfa.start

    @property
    def vocabulary(self) -> Vocabulary:
        """The snapshot that the constraint was compiled against."""
        return self._core.vocabulary

    @property
    def n_states(self) -> int:
        """States in the table so far, DEAD and FINISHED included."""
        return self._core.dfa.n_states

    @property
    def nbytes(self) -> int:
        """Bytes of the tables and masks behind this automaton (shared with others of the same constraint)."""
        return self._core.nbytes

    def fill_mask(self, state: StateId, out: NDArray[Any]) -> None:
        """Write the allowed-token mask of `state`.

        Args:
            out: C-contiguous (>= n_words,) int32 or uint32, overwritten; words past the vocabulary become 0.

        Raises:
            ValueError: `out` cannot take the mask, or `state` is not a state; `out` is untouched.
            LimitExceededError: the walk needs more states than `Limits` allow; `out` is untouched.

        Cost: a copy (about 1 us for 128k ids) once the state was visited; else one walk of the live part of the trie.
        """
        core = self._core
        mask = core.masks.get(state)
        if mask is not None and type(out) is np.ndarray and out.dtype is _INT32 and out.shape == core.shape:
            if out.flags.carray:  # the hot path: nothing to make, nothing to convert
                if mask.shape == core.shape:
                    out[:] = mask
                else:
                    fill_sparse(mask, out)
                return
        core.fill(state, checked_words(out, core.n_words))

    def next_state(self, state: StateId, token_id: TokenId) -> StateId:
        """The state after one token: DEAD if it is not allowed, FINISHED after an EOS id in an accepting state."""
        try:
            return self._edges[state, token_id]
        except KeyError:
            return self._core.next_state(state, operator.index(token_id))

    def is_accepting(self, state: StateId) -> bool:
        """May generation end here?"""
        return state == FINISHED or (state >= FIRST_STATE and bool(self._core.dfa.accept[state]))

    def accept_tokens(self, state: StateId, token_ids: Sequence[TokenId]) -> tuple[int, StateId]:
        """How many of `token_ids` are allowed one after the other, and the state after those."""
        for n, token_id in enumerate(token_ids):
            following = self._core.next_state(state, operator.index(token_id))
            if following == DEAD:
                return n, state
            state = following
        return len(token_ids), state

    def fill_draft_masks(self, state: StateId, token_ids: Sequence[TokenId], out: NDArray[Any]) -> int:
        """Masks along a draft: row 0 of `out` is that of `state`, row i that after ``token_ids[:i]``.

        Args:
            out: (len(token_ids) + 1, >= n_words) int32 or uint32; rows behind a rejected token become 0.

        Returns:
            How many of the draft's tokens are allowed.
        """
        if getattr(out, "ndim", 0) != 2 or out.shape[0] < len(token_ids) + 1:
            raise ValueError(f"draft masks of {len(token_ids)} tokens need {len(token_ids) + 1} rows")
        rows = [checked_words(out[i], self._core.n_words) for i in range(len(token_ids) + 1)]
        accepted = 0
        for i, row in enumerate(rows):
            self._core.fill(state, row)
            if i < len(token_ids):
                state = self._core.next_state(state, operator.index(token_ids[i]))
                accepted += state != DEAD
        return accepted

    def allowed_tokens(self, state: StateId) -> NDArray[np.int32]:
        """The ids that are set in the mask of `state`, ascending."""
        return self._core.ids(state).copy()

    def forced_tokens(self, state: StateId) -> list[TokenId]:
        """The longest chain of tokens none of which has an alternative; it ends before a state that may end."""
        chain: list[int] = []
        while state >= FIRST_STATE and not self._core.dfa.accept[state]:
            ids = self._core.ids(state)
            if len(ids) != 1:
                break
            chain.append(int(ids[0]))
            state = self._core.next_state(state, chain[-1])
        return chain

    def forced_bytes(self, state: StateId) -> bytes:
        """The longest common prefix of all completions (b"" if the text may end here)."""
        if state < FIRST_STATE:
            return b""
        return _forced_bytes_in_tokens(self._core, state) if self._core.filtered else _forced(self._core.dfa, state)

    def min_tokens_to_accept(self, state: StateId) -> int:
        """Fewest tokens (EOS not counted) after which generation may end.

        Raises:
            ValueError: `state` is DEAD.
            LimitExceededError: the search would take too long.
        """
        if state == DEAD:
            raise ValueError("nothing can be accepted any more after a rejected token")
        return 0 if self.is_accepting(state) else self._core.min_tokens(state)

    def fill_closing_mask(self, state: StateId, budget: int, out: NDArray[Any]) -> None:
        """`fill_mask`, less the tokens after which the text cannot be ended within the budget.

        Args:
            budget: tokens left, the next one included, EOS not counted. A token stays allowed if at most
                ``budget - 1`` more are needed after it. If that takes too long to know exactly, a number of bytes
                stands for the number of tokens: never too many tokens are allowed then, but perhaps fewer.
        """
        core = self._core
        core.closing_mask(state, budget, checked_words(out, core.n_words))

    def explain(self, state: StateId) -> str:
        """In words: what is expected next."""
        if state == DEAD:
            return "nothing: the last token was not allowed"
        if state == FINISHED:
            return "the text has ended"
        core = self._core
        expected = []
        with core.lock:
            row = core.dfa.row(state)[core.dfa.byte_class]
        live = np.flatnonzero(row).tolist()
        start = 0
        while start < len(live):
            end = start
            while end + 1 < len(live) and live[end + 1] == live[end] + 1:
                end += 1
            low, high = _shown(live[start]), _shown(live[end])
            expected.append(low if start == end else f"{low}-{high}")
            start = end + 1
        may_end = "the text may end here" if self.is_accepting(state) else "the text may not end here"
        shortest = core.dfa.shortest(state) or b""
        return (
            f"{core.label}: {may_end}; next byte: {', '.join(expected) or 'none'}; "
            f"shortest completion: {shortest[:80].decode('utf-8', 'backslashreplace')!r}"
        )

    def materialize(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Build every state and mask that tokens can reach, instead of waiting for the first visits.

        Args:
            progress: called now and then with (states done, states known).
        """
        core = self._core
        states = [s for s in core.all_states() if s not in core.masks]
        alike = {s: (core.dfa.delta[s] != DEAD).tobytes() for s in states}  # lanes that live and die together
        states.sort(key=lambda s: alike[s])
        chunks = [states[k : k + LANES] for k in range(0, len(states), LANES)]
        done = 0
        with ThreadPoolExecutor(os.cpu_count() or 1) if len(chunks) > 8 else contextlib.nullcontext() as pool:
            built = pool.map(core.build_masks, chunks) if pool else map(core.build_masks, chunks)
            for chunk, _ in zip(chunks, built, strict=True):
                done += len(chunk)
                if progress is not None:
                    progress(done, len(states))


def _shown(byte: int) -> str:
    return repr(chr(byte)) if 0x20 <= byte < 0x7F else f"0x{byte:02X}"


def _forced(dfa: LazyDfa, state: int) -> bytes:
    text = bytearray()
    counts = np.bincount(dfa.byte_class, minlength=dfa.n_classes)
    letters = dfa.class_bytes()
    while not dfa.accept[state]:
        row = dfa.row(state)
        live = np.flatnonzero(row)
        if len(live) != 1 or counts[live[0]] != 1:
            break
        text.append(letters[int(live[0])])
        state = int(row[live[0]])
    return bytes(text)


def _forced_bytes_in_tokens(core: _Core, state: int) -> bytes:
    """The same where not every byte is a token: follow all spellings at once, as (state before a token, trie node)."""
    info, end, token = core.trie
    n = info.shape[0]
    text = bytearray()
    configurations: set[tuple[int, int]] = {(state, -1)}
    while True:
        following: dict[int, set[tuple[int, int]]] = {}
        for at, node in configurations:
            if node == -1 and core.dfa.accept[at]:
                return bytes(text)
            child, stop = (0, n) if node == -1 else (node + 1, int(end[node]))
            depth_state = core.dfa.run(at, _spelling(core, node)) if node >= 0 else at
            while child < stop:
                byte = int(info[child]) & 255
                target = core.dfa.step(depth_state, byte)
                if target != DEAD and _completes(core, at, child):
                    entries = following.setdefault(byte, set())
                    if token[child] >= 0 and core.next_state(at, int(token[child])) != DEAD:
                        entries.add((target, -1))
                    entries.add((at, child))
                child = int(end[child])
        if len(following) != 1:
            return bytes(text)
        byte, configurations = next(iter(following.items()))
        text.append(byte)


def _spelling(core: _Core, node: int) -> bytes:
    """The bytes from the root to a node: those of the first token at or below it, cut."""
    info, end, token = core.trie
    depth = int(info[node]) >> 8
    below = node + int(np.argmax(token[node : end[node]] >= 0))
    start = int(core.indptr[token[below]])
    return core.data[start : start + depth].tobytes()


def _completes(core: _Core, state: int, node: int) -> bool:
    """Is some token at or below `node` allowed in `state`?"""
    _, end, token = core.trie
    ids = token[node : end[node]]
    return any(core.next_state(state, t) != DEAD for t in ids[ids >= 0].tolist())


class Index(RegexAutomaton):
    """The automaton of a regex under the name and with the methods of the PyPI package `outlines_core`.

    Args:
        regex: a pattern, matched as a whole.
        vocabulary: what it is compiled against (a snapshot: later edits do not reach it).

    >>> vocabulary = Vocabulary(3, {"a": [0], "b": [1], "ab": [2]})
    >>> index = Index("(ab)+", vocabulary)
    >>> index.get_allowed_tokens(index.get_initial_state())
    [0, 2]
    """

    def __init__(self, regex: str, vocabulary: Vocabulary, *, limits: Limits | None = None) -> None:
        from outlines_core.compile import regex_core

        core = regex_core(regex, vocabulary, dialect="python", limits=limits or DEFAULT_LIMITS)
        super().__init__(core, (Index, (regex, core.vocabulary)))

    @classmethod
    def from_fsm(cls, fsm: FSM, vocabulary: Vocabulary, *, limits: Limits | None = None) -> Index:
        """The automaton of an `interegular` FSM over characters."""
        from outlines_core.compile import fsm_core

        core = fsm_core(fsm, vocabulary, limits=limits or DEFAULT_LIMITS)
        index = cls.__new__(cls)
        RegexAutomaton.__init__(index, core, (_index_from_fsm, (fsm, core.vocabulary)))
        return index

    def get_initial_state(self) -> StateId:
        return self.initial_state

    def get_allowed_tokens(self, state: StateId) -> list[TokenId] | None:
        """The allowed ids, or None if `state` is not a state of this index."""
        if not FIRST_STATE <= state < self.n_states:
            return None
        ids: list[int] = self._core.ids(state).tolist()
        return ids

    def get_next_state(self, state: StateId, token_id: TokenId) -> StateId | None:
        """The state after a token, None if it is not allowed; EOS leads nowhere, as in the older package."""
        if not FIRST_STATE <= state < self.n_states or token_id in self._core.eos:
            return None
        return self.next_state(state, token_id) or None

    def is_final_state(self, state: StateId) -> bool:
        return FIRST_STATE <= state < self.n_states and self.is_accepting(state)

    def get_final_states(self) -> set[StateId]:
        """All accepting states that tokens can reach.  Visits the whole index."""
        return {state for state in self._core.all_states() if self.is_accepting(state)}

    def get_transitions(self) -> dict[StateId, dict[TokenId, StateId]]:
        """Every edge of the index; an accepting state has EOS edges to itself, as in the older package."""
        edges: dict[int, dict[int, int]] = {}
        for state in self._core.all_states():
            eos = self._core.eos
            edges[state] = {
                t: state if t in eos else self.next_state(state, t) for t in self._core.ids(state).tolist()
            }
        return edges

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        return self._source[1][0] == other._source[1][0] and self.vocabulary == other.vocabulary

    __hash__ = None  # type: ignore[assignment]


def _index_from_fsm(fsm: FSM, vocabulary: Vocabulary) -> Index:
    return Index.from_fsm(fsm, vocabulary)


def fill_masks(
    automata: Sequence[TokenAutomaton],
    states: Sequence[StateId],
    out: NDArray[Any],
    rows: Sequence[int] | None = None,
    threads: int | None = None,
) -> None:
    """The masks of one step of a batch.

    Args:
        automata, states: one automaton and its state a sequence; automata may repeat or all differ.
        out: (n_rows, >= n_words) int32 or uint32.
        rows: which row of `out` each sequence writes; default: 0, 1, 2 ...; other rows are untouched.
        threads: how many threads may compute masks that no one has visited before (they run without the GIL);
            default: the number of CPUs. Ready masks are copied by the calling thread.

    Raises:
        ValueError: the arguments do not fit together.
    """
    if rows is None:
        rows = range(len(automata))
    if not len(automata) == len(states) == len(rows):
        raise ValueError(f"{len(automata)} automata, {len(states)} states and {len(rows)} rows: they must be as many")
    if getattr(out, "ndim", 0) != 2:
        raise ValueError("the masks of a batch need a two-dimensional array")
    if any(not 0 <= r < out.shape[0] for r in rows):
        raise ValueError(f"rows must lie between 0 and {out.shape[0] - 1}")
    missing: list[int] = []
    for i, (automaton, state) in enumerate(zip(automata, states, strict=True)):
        if isinstance(automaton, RegexAutomaton) and state in automaton._core.masks:
            automaton.fill_mask(state, out[rows[i]])
        else:
            missing.append(i)
    workers = min(len(missing), threads if threads is not None else os.cpu_count() or 1)

    def one(i: int) -> None:
        automata[i].fill_mask(states[i], out[rows[i]])

    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, missing))
    else:
        for i in missing:
            one(i)
