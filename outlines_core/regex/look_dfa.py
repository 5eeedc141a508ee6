"""Lazy DFAs of patterns with look-around, and set algebra by the same machine.

A state is a set of *threads* (position, obligations) and what the look-behinds have seen so far. A look-ahead that a
thread has passed becomes an obligation on the rest of the text: a DFA state of the look-ahead's own automaton that runs
along and must, or must not, accept. An obligation that can no longer fail is dropped, a thread whose obligation has
failed dies. Intersection and complement are look-aheads up to the end of the text. A look-behind is an automaton for
"anything, then the item" that runs along from the start; whether it accepts *here* decides which threads may pass. If
it has look-aheads inside, it accepts under conditions, which the threads that pass take over as obligations.

Whether a state is live takes a search, done once per state and remembered. It steps by whole characters, one of each
class that the pattern tells apart (`ByteNfa.letters`), not by bytes.

The idea of look-aheads as states that run along is that of alternating automata (Chandra, Kozen, Stockmeyer,
*Alternation*, 1981).
"""

from __future__ import annotations

import itertools
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.kernels import dfa as kernel
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Node, Ranges
from outlines_core.regex.dfa import DEAD, FIRST, MOST_EFFORT, LazyDfa
from outlines_core.regex.nfa import ByteNfa, build_nfa
from outlines_core.regex.utf8 import DONE, Dag, dag_of

__all__ = ["LookDfa", "determinised", "make_dfa"]

_FAR: Final = 1 << 30
Obligations: TypeAlias = frozenset[int]
"""State ids of look-ahead automata; +s must accept the rest of the text, -s must not."""
Thread: TypeAlias = tuple[int, int, Obligations]


class LookDfa(LazyDfa):
    """The DFA of an NFA with look-arounds."""

    def _allocate_scratch(self) -> None:
        self._scratch = (np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int64))
        self.meta[kernel.M_LAZY] = 0
        nfa = self.nfa
        self._kind, self._a, self._b = nfa.kind.tolist(), nfa.a.tolist(), nfa.b.tolist()
        self._targets, self._useful = nfa.targets.tolist(), nfa.useful.tolist()
        self._dag = nfa.dag.tolist()
        self._letters = [(raw, nfa.byte_class[list(raw)].tolist()) for raw in map(_shortest_letter, nfa.letters)]
        self._letter_dags = [dag_of(letter, nfa.surrogates) for letter in nfa.letters]
        self._live_letters: dict[int, list[Dag]] = {}
        self._origin: dict[int, tuple[int, bytes]] = {}  # states within a character: from where, by which bytes
        self._bytes = [(bytes([byte]), [klass]) for klass, byte in enumerate(self.class_bytes())]
        self._more = [_continuation_bytes(raw[0]) for raw, _ in self._bytes]
        self._phase: list[int] = [0] * FIRST
        self._trackers = sorted({look.start for look in nfa.looks if not look.ahead})
        self._slot = {start: slot for slot, start in enumerate(self._trackers)}
        self._states: dict[Any, int] = {}
        self._threads: list[tuple[tuple[int, ...], frozenset[Thread]]] = [((), frozenset())] * FIRST
        self._raw: dict[tuple[int, int], int] = {}
        self._rows_read: list[frozenset[int]] = [frozenset()] * FIRST
        self._groups: dict[frozenset[int], list[int]] = {}
        self._to_go: list[int] = [_FAR] * FIRST
        self._node_to_go = _distances(nfa)
        self._obligation_steps: dict[tuple[Obligations, int], Obligations | None] = {}
        self._look_starts: dict[tuple[int, tuple[int, ...], bool], int] = {}
        self._conditions: dict[int, frozenset[Obligations]] = {DEAD: frozenset()}
        self._holds: dict[int, bool] = {DEAD: False}
        self._live: dict[int, bool] = {DEAD: False}
        self._universe = -1
        self._steps_left = self.limits.max_steps_per_call

    def _start(self) -> int:
        self._universe = self._new_state(("universe",), (), frozenset(), accepting=True)
        self._live[self._universe] = True
        trackers: tuple[int, ...] = ()
        for begin in self._trackers:  # one inside another comes before it
            trackers += (self._closure([(begin, frozenset())], trackers, True, behind=True),)
        start = self._closure([(self.nfa.start, frozenset())], trackers, True)
        return start if self._is_live(start) else DEAD

    # -- states -----------------------------------------------------------------------------------------------------

    @property
    def universe(self) -> int:
        """The state from which every text is accepted."""
        return self._universe

    def _new_state(self, key: Any, trackers: tuple[int, ...], threads: frozenset[Thread], *, accepting: bool) -> int:
        state = self.n_states
        held = (len(self._raw) + len(self._obligation_steps)) * 120 + state * 400
        if held > self.limits.max_state_bytes:
            raise LimitExceededError(
                f"the constraint's look-around states would take {held:,} bytes (Limits.max_state_bytes)",
                given=held,
                limit=self.limits.max_state_bytes,
            )
        while state >= self.delta.shape[0] or state >= self.limits.max_states:
            self.grow()
        self._states[key] = state
        self._phase.append(0)
        self._threads.append((trackers, threads))
        rows = {d for _, d, _ in threads}
        for other in (*trackers, *(abs(s) for _, _, held in threads for s in held)):
            rows |= self._rows_read[other]
        self._rows_read.append(frozenset(rows))
        self._to_go.append(0 if accepting else min(map(self._thread_to_go, threads), default=_FAR))
        self.delta[state] = kernel.UNKNOWN
        self.accept[state] = accepting
        self.meta[kernel.M_N_STATES] = state + 1
        return state

    def begin_call(self) -> None:
        self._steps_left = self.limits.max_steps_per_call

    def _closure(
        self,
        seeds: list[tuple[int, Obligations]],
        trackers: tuple[int, ...],
        at_begin: bool,
        threads: set[Thread] | None = None,
        *,
        behind: bool = False,
    ) -> int:
        """The state of `threads` plus all that `seeds` stand for without reading a byte."""
        nfa = self.nfa
        chars: set[Thread] = threads if threads is not None else set()
        accepting = False
        conditions: set[Obligations] = set()  # under which a look-behind holds here
        stack = [(node, held, False) for node, held in seeds]
        seen = set(stack)
        while stack:
            node, held, at_end = stack.pop()
            if node == nfa.everything and not held and not at_end:
                return self._universe
            what = self._kind[node]
            following: list[tuple[int, Obligations, bool]] = []
            if what == kernel.CHAR:
                if not at_end and self._useful[self._b[node]]:
                    chars.add((node, self._a[node], held))
            elif what == kernel.SPLIT:
                following = [(t, held, at_end) for t in self._targets[self._a[node] : self._b[node]]]
            elif what == kernel.ACCEPT:
                accepting = accepting or all(bool(self.accept[abs(s)]) == (s > 0) for s in held)
                conditions.add(held)
            elif what == kernel.BEGIN:
                if at_begin:
                    following = [(self._b[node], held, at_end)]
            elif what == kernel.END:
                following = [(self._b[node], held, True)]
            else:
                passed = self._pass(self._a[node], held, trackers, at_begin)
                following = [(self._b[node], still, at_end) for still in passed]
            for entry in following:
                if entry not in seen:
                    seen.add(entry)
                    stack.append(entry)
        if not chars and not accepting:
            return DEAD
        kept = _without_subsumed(chars)
        key = (trackers, kept, accepting, frozenset(conditions) if behind else None)
        known = self._states.get(key)
        if known is None:
            known = self._new_state(key, trackers, kept, accepting=accepting)
            if behind:
                self._conditions[known] = frozenset() if frozenset() in conditions else frozenset(conditions)
                self._holds[known] = frozenset() in conditions
        return known

    def _pass(self, look: int, held: Obligations, trackers: tuple[int, ...], at_begin: bool) -> list[Obligations]:
        """What a thread has to hold to after a look-around, in each way to pass it."""
        start, ahead, negative = self.nfa.looks[look]
        if ahead:
            key = (look, trackers, at_begin)
            state = self._look_starts.get(key)
            if state is None:
                state = self._look_starts[key] = self._closure([(start, frozenset())], trackers, at_begin)
            passed = _joined(held, state, negative, self._universe)
            return [] if passed is None else [passed]
        tracker = trackers[self._slot[start]]
        if self._holds[tracker]:
            return [] if negative else [held]
        # it holds if what follows meets one of these; it does not if each is broken somewhere
        conditions = self._conditions[tracker]
        choices = itertools.product(*conditions) if negative else conditions
        ways = []
        for choice in choices:
            way: Obligations | None = held
            for signed in choice:
                if way is not None:
                    way = _joined(way, abs(signed), (signed < 0) != negative, self._universe)
            if way is not None:
                ways.append(way)
        return ways

    def _thread_to_go(self, thread: Thread) -> int:
        """Characters that a thread still needs, at least: a guide for searches, not a bound on anything."""
        node, _, held = thread
        return max(self._node_to_go[node], max((self._to_go[s] for s in held if s > 0), default=0))

    def _representatives(self, state: int) -> list[int]:
        """For each byte class the first class that `state` cannot tell from it."""
        rows = self._rows_read[state]
        known = self._groups.get(rows)
        if known is None:
            first: dict[tuple[int, ...], int] = {}
            columns = zip(*(self._dag[d] for d in sorted(rows)), strict=True) if rows else [()] * self.n_classes
            known = self._groups[rows] = [first.setdefault(column, k) for k, column in enumerate(columns)]
        return known

    # -- transitions ------------------------------------------------------------------------------------------------

    def _step(self, state: int, klass: int) -> int:
        """The successor set, live or not."""
        if state in (DEAD, self._universe):
            return state
        klass = self._representatives(state)[klass]
        known = self._raw.get((state, klass))
        if known is not None:
            return known
        self._steps_left -= 1
        if self._steps_left < 0:
            limit = self.limits.max_steps_per_call
            self._steps_left = limit
            raise LimitExceededError(
                f"the look-arounds of the constraint need more than {limit:,} steps at once "
                "(Limits.max_steps_per_call)",
                given=limit + 1,
                limit=limit,
            )
        trackers, threads = self._threads[state]
        moved = tuple(self._step(t, klass) for t in trackers)
        seeds: list[tuple[int, Obligations]] = []
        chars: set[Thread] = set()
        for node, d, held in threads:
            child = self._dag[d][klass]
            if child == 0:
                continue
            still = self._step_obligations(held, klass) if held else held
            if still is None:
                continue
            if child == 1:
                seeds.append((self._b[node], still))
            else:
                chars.add((node, child, still))
        n_states = self.n_states
        target = self._closure(seeds, moved, False, chars, behind=state in self._conditions)
        if target >= n_states:
            more = self._more[klass]
            self._phase[target] = self._phase[state] - 1 if more < 0 else more
            if self._phase[target] > 0:
                begin, read = (state, b"") if more > 0 else self._origin[state]
                self._origin[target] = begin, read + self._bytes[klass][0]
        self._raw[state, klass] = target
        return target

    def _moves(self, state: int) -> list[tuple[bytes, list[int]]]:
        """Enough to reach from `state` whatever can be reached: a letter of each kind, or bytes within a character."""
        if self._letters and self._phase[state] == 0:
            return self._letters
        return [self._bytes[k] for k in sorted(set(self._representatives(state)))]

    def shortest(
        self, state: int, *, usable: NDArray[np.bool_] | None = None, effort: int = MOST_EFFORT
    ) -> bytes | None:
        if usable is not None or not self._letters:
            return super().shortest(state, usable=usable, effort=effort)
        if state == DEAD:
            return None
        with self.lock:
            self.begin_call()
            came_from: dict[int, tuple[int, bytes]] = {}
            queue = [(0, 0, state, state, b"")]
            n_pushed = 0
            while queue:
                length, _, at, previous, raw = heappop(queue)
                if at in came_from:
                    continue
                came_from[at] = previous, raw
                if self.accept[at]:
                    parts = []
                    while at != state:
                        at, raw = came_from[at]
                        parts.append(raw)
                    return b"".join(reversed(parts))
                for raw, classes in self._moves(at):
                    target = at
                    for klass in classes:
                        target = self._step(target, klass)
                    if target not in came_from and self._live.get(target) is not False:
                        n_pushed += 1
                        heappush(queue, (length + len(raw), n_pushed, target, at, raw))
        return None

    def _step_obligations(self, held: Obligations, klass: int) -> Obligations | None:
        key = (held, klass)
        if key in self._obligation_steps:
            return self._obligation_steps[key]
        result: Obligations | None = frozenset()
        for signed in held:
            assert result is not None
            result = _joined(result, self._step(abs(signed), klass), signed < 0, self._universe)
            if result is None:
                break
        self._obligation_steps[key] = result
        return result

    def expand_everything(self) -> list[int]:
        known = {self.start}
        order = [self.start]
        for state in order:
            for target in self.row(state).tolist():
                if target != DEAD and target not in known:
                    known.add(target)
                    order.append(target)
        return order

    def fill(self, state: int, klass: int) -> int:
        target = self._step(state, klass)
        if not self._is_live(target):
            target = DEAD
        self.delta[state, klass] = target
        return target

    def _is_live(self, state: int) -> bool:
        """Does some text lead from `state` to acceptance?  A best-first search whose every result is remembered."""
        known = self._live.get(state)
        if known is not None:
            return known
        if self._letters and self._phase[state] > 0:
            begin, read = self._origin[state]
            live = any(_has_prefix(dag, read) for dag in self._letters_to_life(begin))
            self._live[state] = live
            return live
        parents: dict[int, list[int]] = {state: []}
        queue = [(self._to_go[state], 0, state)]  # negative depth: deeper ones first
        alive: list[int] = []
        while queue and not alive:
            _, depth, at = heappop(queue)
            if self.accept[at] or self._live.get(at):
                alive.append(at)
                break
            for _, classes in self._moves(at):
                target = at
                for klass in classes:
                    target = self._step(target, klass)
                if self._live.get(target) is False:
                    continue
                if target in parents:
                    parents[target].append(at)
                    continue
                parents[target] = [at]
                if self.accept[target] or self._live.get(target):
                    alive.append(target)
                    break
                heappush(queue, (self._to_go[target], depth - 1, target))
        if not alive:  # everything reachable was seen
            self._live.update(dict.fromkeys(parents, False))
            return False
        while alive:
            at = alive.pop()
            self._live[at] = True
            alive.extend(p for p in parents.pop(at, ()) if not self._live.get(p))
        return True

    def _letters_to_life(self, state: int) -> list[Dag]:
        """The classes of characters that lead from `state`, where a character begins, to something live."""
        known = self._live_letters.get(state)
        if known is None:
            known = []
            for dag, (_, classes) in zip(self._letter_dags, self._letters, strict=True):
                target = state
                for klass in classes:
                    target = self._step(target, klass)
                if self._is_live(target):
                    known.append(dag)
            self._live_letters[state] = known
        return known


def _shortest_letter(ranges: Ranges) -> bytes:
    """A character of the class: printable ASCII if it has one, else its first."""
    for low, high in ranges:
        if high >= 0x20 and low < 0x7F:
            return bytes([max(low, 0x20)])
    return chr(ranges[0][0]).encode(errors="surrogatepass")


def _has_prefix(dag: Dag, read: bytes) -> bool:
    """Does some character of the DAG begin with these bytes?"""
    at = len(dag) - 1
    for byte in read:
        at = next((child for low, high, child in dag[at] if low <= byte <= high), DONE)
        if at == DONE:
            return False
    return True


def _distances(nfa: ByteNfa) -> list[int]:
    """Characters from each NFA state to acceptance, look-arounds taken to hold."""
    n = nfa.n_states
    before: list[list[int]] = [[] for _ in range(n)]
    kind, a, b, targets = nfa.kind.tolist(), nfa.a.tolist(), nfa.b.tolist(), nfa.targets.tolist()
    for s in range(n):
        for t in targets[a[s] : b[s]] if kind[s] == kernel.SPLIT else () if kind[s] == kernel.ACCEPT else (b[s],):
            before[t].append(s)
    distance = [_FAR] * n
    layer = [s for s in range(n) if kind[s] == kernel.ACCEPT]
    d = 0
    while layer:
        following: list[int] = []
        while layer:
            s = layer.pop()
            if distance[s] != _FAR:
                continue
            distance[s] = d
            for t in before[s]:
                (following if kind[t] == kernel.CHAR else layer).append(t)
        layer, d = following, d + 1
    return distance


def _continuation_bytes(byte: int) -> int:
    """How many bytes follow this first byte of a character; -1 if it is a continuation byte itself."""
    return 0 if byte < 0x80 else -1 if byte < 0xC0 else 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3


def _joined(held: Obligations, state: int, negative: bool, universe: int) -> Obligations | None:
    """`held` and one more; None if that cannot be met."""
    if state == DEAD:
        return held if negative else None
    if state == universe:
        return None if negative else held
    signed = -state if negative else state
    return None if -signed in held else held | {signed}


def _without_subsumed(threads: set[Thread]) -> frozenset[Thread]:
    """A thread that holds to more than another at the same position adds nothing."""
    by_place: dict[tuple[int, int], list[Obligations]] = {}
    for node, d, held in threads:
        by_place.setdefault((node, d), []).append(held)
    if len(by_place) == len(threads):
        return frozenset(threads)
    return frozenset(
        (node, d, held)
        for (node, d), all_held in by_place.items()
        for held in all_held
        if not any(other < held for other in all_held)
    )


def make_dfa(nfa: ByteNfa, limits: Limits = DEFAULT_LIMITS) -> LazyDfa:
    """The right kind of lazy DFA for `nfa`."""
    return LookDfa(nfa, limits) if nfa.looks else LazyDfa(nfa, limits)


def determinised(
    node: Node, limits: Limits, surrogates: bool = False
) -> tuple[list[list[tuple[int, int, int]]], list[bool]]:
    """The whole DFA of `node`: per state its edges (lowest byte, highest byte, state), and whether it accepts.

    State 0 is the start; no states at all if nothing matches.
    """
    dfa = make_dfa(build_nfa(node, limits, surrogates=surrogates), limits)
    if dfa.start == DEAD:
        return [], []
    numbers = {dfa.start: 0}
    order = [dfa.start]
    rows: list[list[tuple[int, int, int]]] = []
    for state in order:
        targets = dfa.row(state)[dfa.byte_class].tolist()
        edges: list[tuple[int, int, int]] = []
        for byte, target in enumerate(targets):
            if target == DEAD:
                continue
            if target not in numbers:
                numbers[target] = len(order)
                order.append(target)
            number = numbers[target]
            if edges and edges[-1][1] == byte - 1 and edges[-1][2] == number:
                edges[-1] = (edges[-1][0], byte, number)
            else:
                edges.append((byte, byte, number))
        rows.append(edges)
    return rows, [bool(dfa.accept[state]) for state in order]
