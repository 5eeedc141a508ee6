"""Is every stack that a LALR parser can come to also one from which a text can be finished, as far as terminals go?

It is if the table has no conflicts and every nonterminal derives something: a stack is then a viable prefix. Where an
action was preferred to another one, or left out as its terminal never comes, a proof is tried. From a state on top of
the stack, texts lead to reductions that pop it: to which nonterminal, how many states below, and which terminals may
wait then. These *pops* are a least fixpoint. All stacks are live if from each state that a terminal leads to there is a
pop such that, whatever state comes up below, the same holds again for the state that the nonterminal leads to and the
terminals that wait. For pops that shorten the stack this is a greatest fixpoint, for those that leave it as high, as of
lists, a least one within.

Sets of terminals are ints, bit t for terminal t.
"""

from __future__ import annotations

from outlines_core.grammar.loading import END, Grammar

__all__ = ["all_stacks_live"]

_MOST_STEPS = 3_000_000
Pops = dict[tuple[int, int], int]
"""(nonterminal, states to pop below the one on top) -> terminals that may wait behind that reduction."""
_Place = tuple[int, int]
"""A state on top, and the terminals one of which waits."""


def all_stacks_live(grammar: Grammar, unreadable: dict[int, int]) -> bool:
    """True if it is proved, False if not.

    Args:
        unreadable: by state: terminals that cannot come next, whatever the table says.
    """
    assert grammar.tables is not None
    matters = any(bits >> t & 1 for k, bits in unreadable.items() for t in grammar.tables.actions[k] if t != END)
    is_plain = not (grammar.tables.has_conflicts or grammar.tables.is_pruned or matters)
    return (is_plain and _all_productive(grammar)) or _Proof(grammar, unreadable).holds()


def _all_productive(grammar: Grammar) -> bool:
    """Does every nonterminal derive some sequence of terminals?"""
    productive: set[int] = set()
    n = -1
    while n != len(productive):
        n = len(productive)
        productive |= {r.origin for r in grammar.rules if all(s >= 0 or -1 - s in productive for s in r.symbols)}
    return all(rule.origin in productive for rule in grammar.rules)


class _Proof:
    def __init__(self, grammar: Grammar, unreadable: dict[int, int]) -> None:
        assert grammar.tables is not None
        tables = grammar.tables
        self._gotos, self._end = tables.gotos, tables.end
        self._end_bit = 1 << len(grammar.terminals)
        self._shifts: list[dict[int, int]] = []  # by state: state -> terminals that lead there
        self._reductions: list[dict[tuple[int, int], int]] = []  # by state: (nonterminal, size) -> terminals
        self._reads: list[int] = []  # by state: all terminals that it takes
        for state, actions in enumerate(tables.actions):
            shifts: dict[int, int] = {}
            reductions: dict[tuple[int, int], int] = {}
            for terminal, action in actions.items():
                bit = self._end_bit if terminal == END else 1 << terminal
                if action >= 0:
                    shifts[action] = shifts.get(action, 0) | bit
                else:
                    rule = grammar.rules[-1 - action]
                    key = rule.origin, len(rule.symbols)
                    reductions[key] = reductions.get(key, 0) | bit
            self._shifts.append(shifts)
            self._reductions.append(reductions)
            reads = sum(shifts.values()) | sum(reductions.values())
            self._reads.append(reads & ~unreadable.get(state, 0))
        self._before: list[set[int]] = [set() for _ in tables.actions]
        for state, shifts in enumerate(self._shifts):
            for target in (*shifts, *tables.gotos[state].values()):
                self._before[target].add(state)
        self._behind: dict[tuple[int, int], Pops] = {}
        self._users: dict[tuple[int, int], set[tuple[int, int]]] = {}
        self._doubtful: dict[tuple[int, int], None] = {}
        self._steps = 0
        self._targets: dict[tuple[int, int, int], frozenset[int]] = {}
        self._first = sorted({target for shifts in self._shifts for target in shifts} | {tables.start})

    def holds(self) -> bool:
        for state, shifts in enumerate(self._shifts):
            for target in shifts:
                self._pops_behind((state, target), None)
        while self._doubtful:
            edge = next(iter(self._doubtful))
            del self._doubtful[edge]
            state, target = edge
            found = self._pops(state, target, self._reads[target], edge)
            known = self._behind[edge]
            if any(known.get(key, 0) | mask != known.get(key, 0) for key, mask in found.items()):
                for key, mask in found.items():
                    known[key] = known.get(key, 0) | mask
                self._doubtful.update(dict.fromkeys(self._users[edge]))
            if self._steps > _MOST_STEPS:
                return False
        return self._all_live()

    def _pops_behind(self, edge: tuple[int, int], user: tuple[int, int] | None) -> Pops:
        """The pops of a state after a terminal has led from it to another one, as far as they are known."""
        known = self._behind.get(edge)
        if known is None:
            known = self._behind[edge] = {}
            self._users[edge] = set()
            self._doubtful[edge] = None
        if user is not None:
            self._users[edge].add(user)
        return known

    def _pops(self, state: int, above: int, waiting: int, user: tuple[int, int] | None) -> Pops:
        """The pops of `state`, with `above` on top of it and one of some terminals waiting."""
        found: Pops = {}
        todo = [(above, waiting)]
        seen: dict[int, int] = {}
        while todo:
            above, waiting = todo.pop()
            new = waiting & ~seen.get(above, 0)
            if not new:
                continue
            seen[above] = seen.get(above, 0) | new
            self._steps += 1
            for (nonterminal, more), mask in self._own_pops(above, new, user).items():
                if more:
                    key = nonterminal, more - 1
                    found[key] = found.get(key, 0) | mask
                elif nonterminal in self._gotos[state]:
                    target = self._gotos[state][nonterminal]
                    if target == self._end and mask & self._end_bit:
                        found[-1, 0] = 1
                        mask &= ~self._end_bit
                    todo.append((target, mask))
        return found

    def _own_pops(self, state: int, waiting: int, user: tuple[int, int] | None) -> Pops:
        """The pops of a state on top of the stack, with one of some terminals waiting."""
        found: Pops = {}
        for (nonterminal, size), terminals in self._reductions[state].items():
            mask = terminals & waiting
            if not mask:
                continue
            if size:
                key = nonterminal, size - 1
                found[key] = found.get(key, 0) | mask
            elif nonterminal in self._gotos[state]:
                for key, other in self._pops(state, self._gotos[state][nonterminal], mask, user).items():
                    found[key] = found.get(key, 0) | other
        for target, terminals in self._shifts[state].items():
            if terminals & waiting:
                for key, other in self._pops_behind((state, target), user).items():
                    found[key] = found.get(key, 0) | other
        return found

    # -- the proof --------------------------------------------------------------------------------------------------

    def _reached(self, state: int, nonterminal: int, more: int) -> frozenset[int]:
        """The states that a pop may lead to, whatever lies below."""
        key = state, nonterminal, more
        known = self._targets.get(key)
        if known is None:
            layer = {state}
            for _ in range(more + 1):
                layer = {b for s in layer for b in self._before[s]}
            gotos = self._gotos
            known = frozenset(gotos[b][nonterminal] for b in layer if nonterminal in gotos[b])
            self._targets[key] = known
        return known

    def _all_live(self) -> bool:
        ways: dict[
            _Place, list[tuple[bool, list[_Place]]]
        ] = {}  # by place: does the stack stay as high; what is needed
        users: dict[_Place, list[_Place]] = {}
        todo = [(state, self._reads[state]) for state in self._first]
        while todo:
            place = todo.pop()
            if place in ways:
                continue
            self._steps += 1
            if self._steps > _MOST_STEPS:
                return False
            mine: list[tuple[bool, list[_Place]]] = []
            for (nonterminal, more), mask in self._own_pops(*place, None).items():
                reached = self._reached(place[0], nonterminal, more) if nonterminal >= 0 else frozenset()
                accepts = self._end if mask & self._end_bit else -1
                needed = [(target, mask) for target in sorted(reached) if target != accepts]
                mine.append((not more, needed))
                for one in needed:
                    users.setdefault(one, []).append(place)
                    todo.append(one)
            ways[place] = mine
        live = set(ways)
        while True:
            found: set[_Place] = set()
            doubtful = list(ways)
            while doubtful:
                place = doubtful.pop()
                if place not in found and any(
                    all(one in (found if is_level else live) for one in needed) for is_level, needed in ways[place]
                ):
                    found.add(place)
                    doubtful.extend(users.get(place, ()))
            if found == live:
                return all((state, self._reads[state]) in live for state in self._first)
            live = found
