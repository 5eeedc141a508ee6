"""Ordered lazy DFAs: what a backtracking matcher finds first, byte by byte.

A state is a list of threads in order of preference. Where a thread comes to the end of a terminal, the threads behind
it are cut, as in a leftmost-first regex engine. The threads before it may still match later and would then have been
preferred: such a match counts only under an *obligation*, that these threads never match. Look-aheads are obligations,
too, and so is `$`. An obligation is a state of this same automaton: +s must match some prefix of what follows, -s none.

Look-behinds are automata that run along from the beginning of the text; the set of their items is a *past*.

Source: R. Cox, *Regular expression matching: the virtual machine approach*, 2009 (threads in order of preference).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError, UnsupportedFeatureError
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Node
from outlines_core.regex.nfa import ACCEPT, BEGIN, CHAR, END, SPLIT, Builder, Graph, exit_of_loop

__all__ = ["NOTHING", "TEXT_ENDS", "Match", "Obligations", "OrderedDfa", "behind_lead", "check_search", "is_consistent"]

TEXT_ENDS: Final = 1
"""The state that matches only where the text ends."""
Obligations = frozenset[int]
NOTHING: Final[Obligations] = frozenset()
_MOST_ALTERNATIVES: Final = 64
_FIRST_LEAD: Final = 0xC2
_FEW: Final = 3  # steps, before it is worth finding out what is alike
_MOST_IDLE: Final = 4  # loops within loops
_MOST_STATES: Final = 10_000
_MOST_STEPS: Final = 400_000  # some 20 us each


class Match(NamedTuple):
    """A terminal matches here, if the obligations hold from here on."""

    terminal: int
    obligations: Obligations


class _Past(NamedTuple):
    """What the look-behinds have seen: their items, whether each matches here; is this the beginning?"""

    items: tuple[frozenset[tuple[int, int]], ...]
    matches: tuple[bool, ...]
    is_beginning: bool


class OrderedDfa:
    """The automaton of some terminals, all or some of which are looked for at a time.

    States and pasts are ints; 0 is the dead state.

    Attributes:
        has_one_past: does it not matter what comes before a terminal?

    Args:
        nodes: patterns by terminal, or automata, whose longest match is preferred; None for one that matches nothing.
        limits: `max_nfa_states` and `max_states` count.
        is_ordered: False: no match is preferred to another one, a terminal may end wherever it matches.

    Raises:
        UnsupportedFeatureError: a look-ahead or `$` within a look-behind.
    """

    def __init__(
        self, nodes: Sequence[Node | Graph | None], limits: Limits = DEFAULT_LIMITS, *, is_ordered: bool = True
    ) -> None:
        self.limits, self._is_ordered = limits, is_ordered
        builder = Builder(limits)
        self._entry: list[int] = []
        self._owner: list[tuple[int, int]] = []  # (first NFA state behind those of a terminal, the terminal)
        self._terminal: dict[int, int] = {}
        for k, node in enumerate(nodes):
            if node is None:
                self._entry.append(-1)
                continue
            accept = builder.add(ACCEPT, 0, 0)
            self._terminal[accept] = k
            emit = builder.graph if isinstance(node, Graph) else builder.emit
            self._entry.append(emit(node, accept))  # type: ignore[arg-type]
            self._owner.append((len(builder.kind), k))
        nfa = builder.finish(0)
        self._kind, self._a, self._b = nfa.kind.tolist(), nfa.a.tolist(), nfa.b.tolist()
        self._targets, self._dag, self._dag_rows = nfa.targets.tolist(), nfa.dag.tolist(), nfa.dag
        self._everything, self._looks = nfa.everything, nfa.looks
        splits = [k for k, kind in enumerate(self._kind) if kind == SPLIT]
        self._may_loop_idly = any(exit_of_loop(self._targets, self._a[k], self._b[k]) for k in splits)
        self.class_of: list[int] = nfa.byte_class.tolist()
        self.n_classes = nfa.n_classes
        self.byte_of = [self.class_of.index(k) for k in range(self.n_classes)]
        self._read = {
            self._a[k] for k, kind in enumerate(self._kind) if kind == CHAR and self._b[k] != self._everything
        }
        self._trackers = sorted({look.start for look in nfa.looks if not look.ahead})
        self._slot = {start: k for k, start in enumerate(self._trackers)}
        self._states: dict[tuple[int, tuple[Any, ...]], int] = {}
        self._content: list[Any] = [None, None]
        self._rows: list[dict[int, tuple[int, tuple[Match, ...]]]] = [{}, {}]
        self._starts: dict[tuple[tuple[int, ...], int], int] = {}
        self._terminals_of: dict[int, frozenset[int]] = {}
        self._alike: dict[frozenset[int], list[list[int]]] = {}
        self._first: dict[int, bytes] = {}
        self._left: dict[tuple[Obligations, int], list[Obligations]] = {}
        self._sure: dict[tuple[int, int, int, int], bool] = {}
        self._past_numbers: dict[_Past, int] = {}
        self._pasts: list[_Past] = []
        self._past_rows: list[dict[int, int]] = []
        self.beginning = self._past_of(None, 0)
        self._anywhere = -1 if self._trackers else self._number_of(_Past((), (), is_beginning=False))
        self.has_one_past = not self._trackers and BEGIN not in self._kind

    def first_classes(self, terminal: int) -> set[int]:
        """The classes of bytes with which texts of a terminal may begin, assertions taken to hold."""
        found: set[int] = set()
        seen: set[int] = set()
        stack = [self._entry[terminal]] if self._entry[terminal] >= 0 else []
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            kind = self._kind[node]
            if kind == CHAR:
                found.update(k for k, following in enumerate(self._dag[self._a[node]]) if following)
            elif kind == SPLIT:
                stack.extend(self._targets[self._a[node] : self._b[node]])
            elif kind != ACCEPT:
                stack.append(self._b[node])
        return found

    def may_match(self, terminal: int, classes: Collection[int] | None = None) -> bool:
        """Does some text match a terminal, assertions taken to hold?  `classes`: of its bytes; None: all."""
        seen: set[int] = set()
        stack = [self._entry[terminal]] if self._entry[terminal] >= 0 else []
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            kind = self._kind[node]
            if kind == ACCEPT:
                return True
            if kind == SPLIT:
                stack.extend(self._targets[self._a[node] : self._b[node]])
            elif kind != CHAR or self._may_be_read(self._a[node], classes):
                stack.append(self._b[node])
        return False

    def _may_be_read(self, place: int, classes: Collection[int] | None) -> bool:
        """Can a character be read from here on with bytes of some classes?"""
        if classes is None:
            return any(self._dag[place])
        todo = [place]
        for place in todo:
            for klass in classes:
                following = self._dag[place][klass]
                if following == 1:
                    return True
                if following and following not in todo:
                    todo.append(following)
        return False

    def bytes_read(self) -> NDArray[np.bool_]:
        """(256,) bool: does some terminal contain the byte?"""
        places, seen = [*self._read], set(self._read)
        for place in places:
            for following in set(self._dag[place]) - seen:
                if following > 1:
                    seen.add(following)
                    places.append(following)
        classes = (self._dag_rows[sorted(seen)] != 0).any(axis=0)
        found: NDArray[np.bool_] = classes[np.array(self.class_of)]
        return found

    # -- the past ---------------------------------------------------------------------------------------------------

    def _number_of(self, past: _Past) -> int:
        known = self._past_numbers.get(past)
        if known is None:
            known = self._past_numbers[past] = len(self._pasts)
            self._pasts.append(past)
            self._past_rows.append({})
        return known

    def _past_of(self, before: int | None, klass: int) -> int:
        """The past after one more byte; `before` None: at the beginning of the text."""
        items: list[frozenset[tuple[int, int]]] = []
        matches: list[bool] = []
        for k, start in enumerate(self._trackers):
            mine: set[tuple[int, int]] = set()
            stack = [start] if before is None else []
            if before is not None:
                for node, place in self._pasts[before].items[k]:
                    following = self._dag[place][klass]
                    if following == 1:
                        stack.append(self._b[node])
                    elif following:
                        mine.add((node, following))
            seen: set[int] = set()
            matched = False
            while stack:
                node = stack.pop()
                if node in seen:
                    continue
                seen.add(node)
                kind = self._kind[node]
                if kind == CHAR:
                    mine.add((node, self._a[node]))
                elif kind == SPLIT:
                    stack.extend(self._targets[self._a[node] : self._b[node]])
                elif kind == ACCEPT:
                    matched = True
                elif kind == BEGIN:
                    if before is None:
                        stack.append(self._b[node])
                elif kind == END or self._looks[self._a[node]].ahead:
                    raise UnsupportedFeatureError(
                        "a look-ahead or $ within a look-behind of a terminal", feature="look-ahead in look-behind"
                    )
                else:
                    look = self._looks[self._a[node]]
                    if matches[self._slot[look.start]] != look.negative:
                        stack.append(self._b[node])
            items.append(frozenset(mine))
            matches.append(matched)
        return self._number_of(_Past(tuple(items), tuple(matches), before is None))

    def past_after(self, past: int, byte: int) -> int:
        """The past after one more byte."""
        if self._anywhere >= 0:
            return self._anywhere
        row, klass = self._past_rows[past], self.class_of[byte]
        known = row.get(klass)
        if known is None:
            known = row[klass] = self._past_of(past, klass)
        return known

    def past_of(self, state: int) -> int:
        """The past where a state is."""
        past: int = self._content[state][0]
        return past

    # -- states -----------------------------------------------------------------------------------------------------

    def start(self, order: tuple[int, ...], past: int) -> int:
        """The state before a lexeme that is one of some terminals, the preferred ones first."""
        key = order, past
        known = self._starts.get(key)
        if known is None:
            seeds = [(self._entry[t], NOTHING) for t in order if self._entry[t] >= 0]
            known = self._starts[key] = self._made(self._closure(seeds, past), past)[0]
        return known

    def step(self, state: int, byte: int) -> tuple[int, tuple[Match, ...]]:
        """The state after a byte (0: nothing can match later), and what matches there, in order of preference."""
        row, klass = self._rows[state], self.class_of[byte]
        known = row.get(klass)
        if known is not None:
            return known
        if state <= TEXT_ENDS:
            known = 0, ()
        elif len(row) < _FEW:
            known = self._step(state, byte, klass)
        else:
            first = self._first_alike(state)[klass]
            known = row.get(first)
            if known is None:
                known = row[first] = self._step(state, self.byte_of[first], first)
        row[klass] = known
        return known

    def _first_alike(self, state: int) -> bytes:
        """By class of bytes, the first of those that a state does not tell apart."""
        known = self._first.get(state)
        if known is None:
            first = bytearray(self.n_classes)
            for group in self.alike((state,)):
                for klass in group:
                    first[klass] = group[0]
            known = self._first[state] = bytes(first)
        return known

    def _step(self, state: int, byte: int, klass: int) -> tuple[int, tuple[Match, ...]]:
        past, threads = self._content[state]
        after = self.past_after(past, byte)
        seeds: list[Any] = []
        for node, place, obligations in threads:
            following = self._dag[place][klass]
            if not following:
                continue
            ways = self.after_byte(obligations, byte) if obligations else (NOTHING,)
            seeds += [(self._b[node], held) if following == 1 else (node, following, held) for held in ways]
        return self._made(self._closure(seeds, after), after)

    def alike(self, states: Iterable[int]) -> list[list[int]]:
        """The classes of bytes, those together that these states do not tell apart; last those that they do not read.

        Classes differ because some terminal somewhere tells them apart; a state reads at a few places only.
        """
        todo = {abs(x) for x in states if abs(x) > TEXT_ENDS}
        seen = set(todo)
        places: set[int] = set()
        while todo:
            past, threads = self._content[todo.pop()]
            for _, place, held in threads:
                places.add(place)
                more = {abs(x) for x in held if abs(x) > TEXT_ENDS} - seen
                seen |= more
                todo |= more
            places.update(place for items in self._pasts[past].items for _, place in items)
        key = frozenset(places)
        known = self._alike.get(key)
        if known is None:
            columns = np.ascontiguousarray(self._dag_rows[sorted(places)].T)
            found: dict[bytes, list[int]] = {}
            size = columns.itemsize * columns.shape[1]
            for klass, column in enumerate(columns.view(f"V{size}").ravel().tolist() if size else ()):
                found.setdefault(column, []).append(klass)
            nothing = found.pop(bytes(size), []) if size else list(range(self.n_classes))
            known = self._alike[key] = [*found.values(), nothing]
        return known

    def terminals_of(self, state: int) -> frozenset[int]:
        """The terminals that threads of a state belong to."""
        known = self._terminals_of.get(state)
        if known is None:
            threads = self._content[state][1] if state > TEXT_ENDS else ()
            owners = (bisect_right(self._owner, (node, len(self._entry))) for node, _, _ in threads)
            known = self._terminals_of[state] = frozenset(self._owner[k][1] for k in owners)
        return known

    def _closure(self, seeds: list[Any], past: int) -> list[Any]:
        """Threads that read a character, and `Match`es, in order of preference.

        Args:
            seeds: (NFA state, obligations), or threads.
        """
        matches, is_beginning = self._pasts[past].matches, self._pasts[past].is_beginning
        kind, a, b = self._kind, self._a, self._b
        out: list[Any] = []
        seen = set()
        again: dict[Any, int] = {}  # how often iterations without a character have come to a split once more
        stack = seeds[::-1]
        while stack:
            at = stack.pop()
            if at in seen:
                if self._may_loop_idly and len(at) == 2 and kind[at[0]] == SPLIT and again.get(at, 0) < _MOST_IDLE:
                    again[at] = again.get(at, 0) + 1
                    first, stop = a[at[0]], b[at[0]]
                    following = exit_of_loop(self._targets, first, stop) or self._targets[first:stop]
                    stack.extend([(t, at[1]) for t in reversed(following)])
                continue
            seen.add(at)
            if len(at) == 3:
                out.append(at)
                continue
            node, held = at
            if held and (node, NOTHING) in seen:
                continue
            match kind[node]:
                case 0:  # CHAR
                    thread = (node, a[node], held)
                    if thread not in seen:
                        seen.add(thread)
                        out.append(thread)
                case 1 if node == self._everything:  # a look-ahead has matched
                    out.append(Match(-1, held))
                    if not held:
                        break
                case 1:  # SPLIT
                    stack.extend([(t, held) for t in reversed(self._targets[a[node] : b[node]])])
                case 2:  # ACCEPT
                    out.append(Match(self._terminal.get(node, -1), held))
                    if self._is_ordered and not held:
                        break
                case 3:  # BEGIN
                    if is_beginning:
                        stack.append((b[node], held))
                case 4:  # END
                    stack.append((b[node], held | {TEXT_ENDS}))
                case _:
                    look = self._looks[a[node]]
                    if not look.ahead:
                        if matches[self._slot[look.start]] != look.negative:
                            stack.append((b[node], held))
                        continue
                    state, found = self._made(self._closure([(look.start, NOTHING)], past), past)
                    for more in self._outcomes(state, found, must=not look.negative):
                        stack.append((b[node], held | more))
        return out

    def _made(self, entries: Iterable[Any], past: int) -> tuple[int, tuple[Match, ...]]:
        """The state of the threads, and the matches; each depends on those before it."""
        threads: list[Any] = []
        found: list[Match] = []
        unmatched: list[Obligations] = [NOTHING]  # alternatives: no match on condition came true so far
        for entry in entries:
            held: Obligations = entry[-1]
            if not self._is_ordered and len(entry) == 2:
                found.append(entry)
            elif len(entry) == 2:
                guard = self._state(past, tuple(threads))
                for more in unmatched:
                    all_held = held | more | ({-guard} if guard else NOTHING)
                    if is_consistent(all_held):
                        found.append(Match(entry[0], all_held))
                if not held:
                    break
                unmatched = [more | {-x} for more in unmatched for x in sorted(held)]
                if len(unmatched) > _MOST_ALTERNATIVES:
                    raise LimitExceededError(
                        "the look-aheads of the terminals are too many and too entangled",
                        given=len(unmatched),
                        limit=_MOST_ALTERNATIVES,
                    )
            else:
                for more in unmatched:
                    thread = (entry[0], entry[1], held | more)
                    if is_consistent(thread[2]) and (not more or thread not in threads):
                        threads.append(thread)
        return self._state(past, tuple(threads)), tuple(found)

    def _state(self, past: int, threads: tuple[Any, ...]) -> int:
        if not threads:
            return 0
        key = past, threads
        known = self._states.get(key)
        if known is None:
            known = len(self._content)
            if known > self.limits.max_states:
                raise LimitExceededError(
                    f"the terminals need more than {self.limits.max_states:,} states (Limits.max_states)",
                    given=known,
                    limit=self.limits.max_states,
                )
            self._states[key] = known
            self._content.append(key)
            self._rows.append({})
        return known

    # -- obligations ------------------------------------------------------------------------------------------------

    def _outcomes(self, state: int, found: Sequence[Match], *, must: bool) -> list[Obligations]:
        """Ways for an automaton in `state`, with matches here, to match (or never to)."""
        if must:
            ways = [match.obligations for match in found]
            if state:
                ways.append(frozenset((state,)))
            return [NOTHING] if NOTHING in ways else list(dict.fromkeys(ways))
        ways = [frozenset((-state,)) if state else NOTHING]
        for match in found:
            ways = [way | {-x} for way in ways for x in sorted(match.obligations)]
        return list(dict.fromkeys(ways))

    def after_byte(self, obligations: Obligations, byte: int) -> list[Obligations]:
        """The alternatives of what is left of obligations after a byte; none: they have failed."""
        key = obligations, self.class_of[byte]
        known = self._left.get(key)
        if known is None:
            known = self._left[key] = self._after_byte(obligations, byte) if obligations else [NOTHING]
        return known

    def _after_byte(self, obligations: Obligations, byte: int) -> list[Obligations]:
        ways = [NOTHING]
        for x in sorted(obligations):
            state, found = self.step(abs(x), byte)
            mine = self._outcomes(state, found, must=x > 0)
            if x < 0 and state and byte >= _FIRST_LEAD and self._surely_matches(state, *behind_lead(byte)):
                mine = []
            ways = [way | more for way in ways for more in mine if is_consistent(way | more)]
            if not ways:
                return []
        return list(dict.fromkeys(ways))

    def _surely_matches(self, state: int, first: int, last: int, more: int) -> bool:
        """Does a state within a character match whatever the rest of that character is?

        What must never match has failed then: no text ends within a character.

        Args:
            first, last: the range of the next byte.
            more: how many bytes of the character come behind that.
        """
        key = state, first, last, more
        known = self._sure.get(key)
        if known is None:
            known = True
            for byte in {self.class_of[b]: b for b in range(first, last + 1)}.values():
                following, found = self.step(state, byte)
                if any(not match.obligations for match in found):
                    continue
                if not (following and more and self._surely_matches(following, 0x80, 0xBF, more - 1)):
                    known = False
                    break
            self._sure[key] = known
        return known

    def hold_at_end(self, obligations: Obligations) -> bool:
        """Do they hold if the text ends here?"""
        return all((abs(x) == TEXT_ENDS) == (x > 0) for x in obligations)


def behind_lead(byte: int) -> tuple[int, int, int]:
    """The range of the byte behind the first one of a character, and how many come behind that (RFC 3629)."""
    first = {0xE0: 0xA0, 0xF0: 0x90}.get(byte, 0x80)
    last = {0xED: 0x9F, 0xF4: 0x8F}.get(byte, 0xBF)
    return first, last, (byte >= 0xE0) + (byte >= 0xF0)


def is_consistent(obligations: Obligations) -> bool:
    """Does none contradict another one outright?"""
    return len(obligations) < 2 or not any(-x in obligations for x in obligations)


def check_search(states: int, classes: int) -> None:
    """Raise LimitExceededError where it takes too many steps to find out what a terminal may end in."""
    if states > _MOST_STATES or states * classes > _MOST_STEPS:
        raise LimitExceededError(
            "a terminal has too many states for a search of all its ends", given=states, limit=_MOST_STATES
        )
