"""Byte DFAs that are built as they are visited.

`LazyDfa` holds the tables and grows them; the kernel computes what one transition is: a state is a set of NFA
positions (`kernels.dfa`). Patterns with look-around have a subclass of it, `look_dfa.LookDfa`.

State 0 is DEAD, 1 is unused (automata built on top call it FINISHED). Every other state that `delta` leads to is live:
some text leads from it to acceptance. For sets of NFA positions that is so by construction (`nfa.useful`).

Threads: filled entries never change and tables are replaced, not resized, so readers need no lock; whoever fills an
entry holds `lock`.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.kernels import dfa as kernel
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.nfa import ByteNfa

__all__ = ["DEAD", "FIRST", "LazyDfa"]

DEAD: Final = 0
FIRST: Final = 2
MOST_EFFORT: Final = 100_000  # some seconds
_NO_FLAGS = np.zeros(0, dtype=np.uint8)
_NO_MARKS = np.zeros(0, dtype=np.int32)


class LazyDfa:
    """The DFA of an NFA without look-arounds.

    Attributes:
        delta: (capacity, n_classes) int32; UNKNOWN (-1) where nobody has looked yet.
        accept: (capacity,) uint8.
        allowed: (capacity,) uint8; for the automaton on top: may a token lead here? 0 no, 1 yes, 2 not known yet.
        start: the initial state; DEAD if nothing matches.
        effort: the cost of transitions that were found one by one; 0 where that is not slow.
        is_finite: may there be an end of states?
    """

    effort = 0
    is_finite = True

    def __init__(self, nfa: ByteNfa, limits: Limits = DEFAULT_LIMITS) -> None:
        self.nfa, self.limits = nfa, limits
        self.lock = threading.RLock()
        self.byte_class, self.n_classes = nfa.byte_class, nfa.n_classes
        capacity, pool = min(64, limits.max_states), max(1024, 2 * nfa.n_states if nfa.n_states < 4096 else 4096)
        self.delta = np.zeros((capacity, self.n_classes), dtype=np.int32)
        self.accept = np.zeros(capacity, dtype=np.uint8)
        self.allowed = np.full(capacity, 2, dtype=np.uint8)
        self._seen = np.zeros(capacity, dtype=np.int32)
        self._indptr = np.zeros(capacity + 1, dtype=np.int64)
        self._pool = np.zeros(pool, dtype=np.int64)
        self._hashes = np.zeros(capacity, dtype=np.int64)
        self._table = np.full(256, -1, dtype=np.int32)
        self.meta = np.zeros(kernel.META_SIZE, dtype=np.int64)
        self.meta[kernel.M_N_STATES] = FIRST
        self._allocate_scratch()
        self._pack()
        self.start = self._start()

    def _allocate_scratch(self) -> None:
        n = self.nfa.n_states
        self._scratch = (
            np.zeros(n, dtype=np.int32),
            np.zeros(n + len(self.nfa.targets) + 1, dtype=np.int32),
            np.zeros(2 * n + 16, dtype=np.int64),
        )
        self.meta[kernel.M_LAZY] = 1

    def _pack(self) -> None:
        nfa = self.nfa
        self.nfa_arrays = (nfa.kind, nfa.a, nfa.b, nfa.targets, nfa.useful)
        self.arrays = (self.delta, self.accept, self._indptr, self._pool, self._table, self._hashes)

    def _start(self) -> int:
        while True:
            start = kernel.initial(self.nfa_arrays, self.arrays, self._scratch, self.meta, self.nfa.start)
            if start >= 0:
                return int(start)
            self.grow()

    # -- size -------------------------------------------------------------------------------------------------------

    @property
    def n_states(self) -> int:
        return int(self.meta[kernel.M_N_STATES])

    @property
    def nbytes(self) -> int:
        return sum(int(x.nbytes) for x in (*self.arrays, *self._scratch))

    def grow(self) -> None:
        """Double whatever is full.  Raises LimitExceededError; the tables stay as they are then."""
        n, limits = self.n_states, self.limits
        if n >= limits.max_states:
            raise LimitExceededError(
                f"the constraint needs more than {limits.max_states:,} automaton states (Limits.max_states)",
                given=n + 1,
                limit=limits.max_states,
            )
        capacity, pool = self.delta.shape[0], self._pool.shape[0]
        if n >= capacity:
            capacity = min(2 * capacity, limits.max_states)
        else:  # a state may need room for every NFA position
            pool = max(2 * pool, int(self._indptr[n]) + 2 * self.nfa.n_states + 16)
        nbytes = capacity * (4 * self.n_classes + 32) + 8 * pool
        if nbytes > limits.max_state_bytes:
            raise LimitExceededError(
                f"the constraint's state tables would take {nbytes:,} bytes (Limits.max_state_bytes)",
                given=nbytes,
                limit=limits.max_state_bytes,
            )
        if pool != self._pool.shape[0]:
            self._pool = _enlarged(self._pool, pool)
        else:
            self.delta = _enlarged(self.delta, capacity)
            self.accept = _enlarged(self.accept, capacity)
            allowed = np.full(capacity, 2, dtype=np.uint8)
            allowed[: self.allowed.shape[0]] = self.allowed
            self.allowed = allowed
            self._seen = _enlarged(self._seen, capacity)
            self._indptr = _enlarged(self._indptr, capacity + 1)
            self._hashes = _enlarged(self._hashes, capacity)
            self._rehash(1 << (4 * capacity - 1).bit_length())  # a power of two
        self._pack()

    def _rehash(self, cells: int) -> None:
        table = np.full(cells, -1, dtype=np.int32)
        kernel.rehash(self._hashes, self.n_states, table)
        self._table = table

    def adopt(self, delta: NDArray[np.int32], accept: NDArray[np.uint8]) -> None:
        """Take over complete tables that an equal DFA has computed; nothing was visited here yet."""
        n = delta.shape[0]
        self.delta, self.accept = delta.copy(), accept.copy()  # writable, as the kernels know them
        self.allowed = np.full(n, 2, dtype=np.uint8)
        self._seen = np.zeros(n, dtype=np.int32)
        self._indptr = np.zeros(n + 1, dtype=np.int64)
        self._hashes = np.zeros(n, dtype=np.int64)
        self.meta[kernel.M_N_STATES] = n
        self._pack()

    # -- transitions ------------------------------------------------------------------------------------------------

    def begin_call(self) -> None:
        """Called where a request begins: what is counted per call starts anew."""

    def fill(self, state: int, klass: int) -> int:
        """Compute ``delta[state, klass]`` (the lock must be held)."""
        while True:
            target = kernel.expand(self.nfa_arrays, self.nfa.dag, self.arrays, self._scratch, self.meta, state, klass)
            if target >= 0:
                return int(target)
            self.grow()

    def step(self, state: int, byte: int) -> int:
        """The state after one byte, DEAD if no text continues so."""
        klass = self.byte_class[byte]
        target = int(self.delta[state, klass])
        if target == kernel.UNKNOWN:
            with self.lock:
                self.begin_call()
                target = int(self.delta[state, klass])
                if target == kernel.UNKNOWN:
                    target = self.fill(state, int(klass))
        return target

    def row(self, state: int) -> NDArray[np.int32]:
        """All transitions of a state, by byte class."""
        with self.lock:
            self.begin_call()
            for klass in np.flatnonzero(self.delta[state] == kernel.UNKNOWN).tolist():
                self.fill(state, klass)
            row: NDArray[np.int32] = self.delta[state]
            return row

    def items(self, state: int) -> NDArray[np.int64]:
        """The items of a state's set: ``node << 16 | DAG node``."""
        return self._pool[self._indptr[state] : self._indptr[state + 1]]

    def run_token(self, data: NDArray[np.uint8], indptr: NDArray[np.int64], token_id: int, state: int) -> int:
        """`kernels.dfa.advance`, with unknown transitions computed on the way."""
        with self.lock:
            self.begin_call()
            for byte in data[indptr[token_id] : indptr[token_id + 1]].tolist():
                klass = self.byte_class[byte]
                target = int(self.delta[state, klass])
                state = self.fill(state, int(klass)) if target == kernel.UNKNOWN else target
                if state == DEAD:
                    break
        return state

    def run(self, state: int, text: bytes) -> int:
        """The state after `text`."""
        for byte in text:
            state = self.step(state, byte)
            if state == DEAD:
                break
        return state

    def matches(self, text: bytes) -> bool:
        end = self.run(self.start, text)  # may replace the tables
        return bool(self.accept[end])

    def expand_everything(self) -> list[int]:
        """All states that bytes can reach from the start; their rows are filled then (the lock must be held)."""
        state = FIRST
        while True:
            state = int(
                kernel.expand_closure(self.nfa_arrays, self.nfa.dag, self.arrays, self._scratch, self.meta, state)
            )
            if state >= self.n_states:
                return list(range(FIRST, state))
            self.grow()

    def walk(
        self,
        trie: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
        path: NDArray[np.int32],
        out_mask: NDArray[np.uint32],
        *,
        collect: bool = False,
        filtered: bool = False,
        allowed: NDArray[np.uint8] | None = None,
        begin: int = 0,
    ) -> NDArray[np.int32]:
        """`kernels.dfa.walk` from ``path[0]``, tables grown and holes filled as it goes (the lock must be held).

        Args:
            out_mask: (n_words + 1,), zeroed.
            collect: return the distinct states that tokens lead to.
            filtered: only tokens that lead to a state s with ``self.allowed[s] == 1`` get their bit.
            allowed: the same with these flags instead; every transition must have been visited before.
            begin: the node to begin with, if `path` is set up to the depth of its parent.
        """
        self.begin_call()
        meta = self.meta
        meta[kernel.M_NODE] = begin
        meta[kernel.M_WALK] += 1
        while True:
            flags = allowed if allowed is not None else self.allowed if filtered else _NO_FLAGS
            status = kernel.walk(
                trie,
                self.nfa_arrays,
                self.nfa.dag,
                self.byte_class,
                self.arrays,
                self._scratch,
                meta,
                path,
                flags,
                self._seen if collect else _NO_MARKS,
                out_mask,
            )
            if status == kernel.DONE:
                if not collect:
                    return _NO_MARKS
                marked = np.flatnonzero(self._seen[FIRST : self.n_states] == meta[kernel.M_WALK])
                return (marked + FIRST).astype(np.int32)
            if status == kernel.FULL:
                self.grow()
            else:
                self.fill(int(meta[kernel.M_HOLE_STATE]), int(meta[kernel.M_HOLE_CLASS]))

    def class_bytes(self) -> list[int]:
        """One byte of each class, printable ASCII where there is one."""
        chosen = [-1] * self.n_classes
        for byte in (*range(0x61, 0x7B), *range(0x30, 0x3A), *range(0x20, 0x7F), *range(256)):
            klass = int(self.byte_class[byte])
            if chosen[klass] < 0:
                chosen[klass] = byte
        return chosen

    def bound_effort(self) -> int:
        """What `effort` may come to within one search."""
        return self.effort + MOST_EFFORT

    def is_spelled(self, state: int, trie: Any, usable: NDArray[np.bool_]) -> bool | None:  # noqa: ARG002  # for subclasses
        """Can whole tokens complete a text in this state?  None: that must be searched for.

        Args:
            trie: (info, end, token) of the tokens.
            usable: by byte: is it a token?
        """
        return None

    def shortest(
        self, state: int, *, usable: NDArray[np.bool_] | None = None, effort: int = MOST_EFFORT
    ) -> bytes | None:
        """A shortest text that leads from `state` to acceptance, out of the `usable` bytes; None if there is none.

        Raises:
            LimitExceededError: more than some `effort` would be needed.
        """
        if state == DEAD:
            return None
        if self.accept[state]:
            return b""
        letters = self.class_bytes()
        if usable is not None:
            letters = [-1] * self.n_classes
            for byte in np.flatnonzero(usable).tolist():
                letters[self.byte_class[byte]] = byte
        came_from: dict[int, tuple[int, int]] = {state: (-1, -1)}
        queue = deque([state])
        bound = self.effort + effort
        while queue:
            if self.effort > bound:
                raise LimitExceededError(
                    "the shortest text to the end is too long to be searched for", given=self.effort, limit=bound
                )
            at = queue.popleft()
            for klass, target in enumerate(self.row(at).tolist()):
                if target == DEAD or target in came_from or letters[klass] < 0:
                    continue
                came_from[target] = (at, letters[klass])
                if self.accept[target]:
                    text = bytearray()
                    while target != state:
                        target, byte = came_from[target]
                        text.append(byte)
                    return bytes(reversed(text))
                queue.append(target)
        return None


def _enlarged(array: NDArray[Any], n: int) -> NDArray[Any]:
    larger = np.zeros((n, *array.shape[1:]), dtype=array.dtype)
    larger[: array.shape[0]] = array
    return larger
