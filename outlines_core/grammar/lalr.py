"""Lark's LALR analysis on numbers: the same look-aheads, some ten times faster.

Lark compares rules and symbols by their texts, millions of times for a long grammar. Here items are unique objects,
and sets of terminals are bits. What Lark makes of the look-aheads (conflicts, priorities, the table) is its own code.

Source: F. DeRemer, T. Pennello, *Efficient computation of LALR(1) look-ahead sets*, 1982.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import Any, Final

from lark.grammar import Terminal
from lark.parsers.grammar_analysis import LR0ItemSet, RulePtr
from lark.parsers.lalr_analysis import LALR_Analyzer

__all__ = ["Analyzer"]

_END: Final = 0  # the bit of the end of the text


class _Item(RulePtr):
    """Made once for each place in a rule, so that it is equal to itself only.

    Attributes:
        symbol: behind the place, by number; None at the end.
        following: the item behind that symbol, if there is one.
    """

    __slots__ = ("following", "symbol")
    symbol: int | None
    following: _Item
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Analyzer(LALR_Analyzer):
    """Lark's; `has_conflicts` tells whether it preferred one action to another."""

    def compute_lr0_states(self) -> None:
        self._number_items()
        self.lr0_itemsets = set()
        closures: dict[int, list[_Item]] = {}
        kernels: dict[frozenset[_Item], LR0ItemSet] = {}
        todo = []
        for start, states in self.lr0_start_states.items():
            (root,) = (self._beginnings[id(rp.rule)] for rp in states.kernel)
            todo.append(LR0ItemSet([root], self._closure([root], closures)))  # type: ignore[no-untyped-call]
            self.lr0_start_states[start] = todo[-1]
        for state in todo:
            self.lr0_itemsets.add(state)
            moves: dict[int, list[_Item]] = {}
            closure: Any = state.closure
            for item in closure:
                if item.symbol is not None:
                    moves.setdefault(item.symbol, []).append(item.following)
            for symbol, items in moves.items():
                kernel = frozenset(items)
                target = kernels.get(kernel)
                if target is None:
                    target = LR0ItemSet(kernel, self._closure(items, closures))  # type: ignore[no-untyped-call]
                    kernels[kernel] = target
                    todo.append(target)
                state.transitions[self._symbols[symbol]] = target

    def _number_items(self) -> None:
        """Symbols by number, terminals first, and the items of all rules."""
        self._symbols: list[Any] = [Terminal("$END")]
        every = [s for rules in self.lr0_rules_by_origin.values() for rule in rules for s in rule.expansion]
        self._symbols += dict.fromkeys(s for s in every if s.is_term and s.name != "$END")
        self._n_terminals = len(self._symbols)
        self._symbols += self.lr0_rules_by_origin
        number = {symbol: k for k, symbol in enumerate(self._symbols)}
        self._nullable = {number[s] for s in self.NULLABLE if s in number}
        self._beginnings: dict[int, _Item] = {}  # by the id of a rule
        self._rules: dict[int, list[_Item]] = {}  # by nonterminal
        self._parts: dict[int, tuple[int, ...]] = {}
        self._origins: dict[int, int] = {}
        for origin, rules in self.lr0_rules_by_origin.items():
            for rule in rules:
                symbols = tuple(number[s] for s in rule.expansion)
                item = _Item(rule, len(symbols))
                item.symbol = None
                for k in range(len(symbols) - 1, -1, -1):
                    following, item = item, _Item(rule, k)
                    item.symbol, item.following = symbols[k], following
                self._beginnings[id(rule)] = item
                self._rules.setdefault(number[origin], []).append(item)
                self._parts[id(rule)] = symbols
                self._origins[id(rule)] = number[origin]

    def _closure(self, kernel: list[_Item], known: dict[int, list[_Item]]) -> set[_Item]:
        found = set(kernel)
        for item in kernel:
            if item.symbol is not None and item.symbol >= self._n_terminals:
                found.update(known.get(item.symbol) or known.setdefault(item.symbol, self._derived(item.symbol)))
        return found

    def _derived(self, nonterminal: int) -> list[_Item]:
        """The items with which a nonterminal, and what it may begin with, begins."""
        todo, found = [nonterminal], dict.fromkeys([nonterminal])
        items = []
        for one in todo:
            for item in self._rules[one]:
                items.append(item)
                if item.symbol is not None and item.symbol >= self._n_terminals and item.symbol not in found:
                    found[item.symbol] = None
                    todo.append(item.symbol)
        return items

    # -- look-aheads ------------------------------------------------------------------------------------------------

    def compute_reads_relations(self) -> None:
        """All is done by `compute_lookaheads`."""

    def compute_includes_lookback(self) -> None:
        """All is done by `compute_lookaheads`."""

    def compute_lookaheads(self) -> None:
        first, symbols = self._n_terminals, self._symbols
        states = list(self.lr0_itemsets)
        number = {id(state): k for k, state in enumerate(states)}
        of_symbol = {symbol: k for k, symbol in enumerate(symbols)}
        moves = [{of_symbol[s]: number[id(target)] for s, target in state.transitions.items()} for state in states]
        pairs = [(k, s) for k, row in enumerate(moves) for s in row if s >= first]
        transitions = {pair: n for n, pair in enumerate(pairs)}
        reads = [0] * len(transitions)
        read: list[list[int]] = [[] for _ in transitions]
        for (k, s), n in transitions.items():
            target = moves[k][s]
            for symbol in moves[target]:
                if symbol < first:
                    reads[n] |= 1 << symbol
                if symbol in self._nullable:
                    read[n].append(transitions[target, symbol])
        for state in self.lr0_start_states.values():
            (root,) = state.kernel
            reads[transitions[number[id(state)], of_symbol[root.next]]] |= 1 << _END
        includes: list[list[int]] = [[] for _ in transitions]
        lookback: list[list[tuple[int, Any]]] = [[] for _ in transitions]
        for k, state in enumerate(states):
            for item in state.closure:
                begun = transitions.get((k, self._origins[id(item.rule)]))
                if begun is None:
                    continue
                parts = self._parts[id(item.rule)]
                at = k
                passed = []
                for part in parts[item.index :]:
                    passed.append((at, part))
                    at = moves[at][part]
                for from_, symbol in reversed(passed):
                    if symbol >= first:
                        includes[transitions[from_, symbol]].append(begun)
                    if symbol not in self._nullable:
                        break
                if item.index == 0:
                    lookback[begun].append((at, item.rule))
        components, is_cyclic = _closed(reads, read)
        if is_cyclic:  # there Lark's sets are one object, and hold more than they should
            self._look_ahead_as_lark()
            return
        follow, _ = _closed(components, includes)
        waiting: list[dict[int, int]] = [{} for _ in states]  # by state: bits of the terminals by rule
        rules = {}
        for n, places in enumerate(lookback):
            for at, rule in places:
                rules[id(rule)] = rule
                waiting[at][id(rule)] = waiting[at].get(id(rule), 0) | follow[n]
        for state, mine in zip(states, waiting, strict=True):
            sets: dict[tuple[int, ...], set[Any]] = {}
            for symbol in _members(functools.reduce(operator.or_, mine.values(), 0)):
                reduced = tuple(rule for rule, bits in mine.items() if bits >> symbol & 1)
                if reduced not in sets:
                    sets[reduced] = {rules[rule] for rule in reduced}
                state.lookaheads[symbols[symbol]] = sets[reduced]

    def _look_ahead_as_lark(self) -> None:
        super().compute_reads_relations()  # type: ignore[no-untyped-call]
        super().compute_includes_lookback()  # type: ignore[no-untyped-call]
        super().compute_lookaheads()  # type: ignore[no-untyped-call]

    @property
    def has_conflicts(self) -> bool:
        for items in self.lr0_itemsets:
            shifts = set(items.transitions)
            for terminal, rules in items.lookaheads.items():
                if len(rules) > 1 or terminal in shifts:
                    return True
        return False


def _members(bits: int) -> Iterator[int]:
    while bits:
        yield (bits & -bits).bit_length() - 1
        bits &= bits - 1


def _closed(values: list[int], following: list[list[int]]) -> tuple[list[int], bool]:
    """For each node, the union of the values of all nodes that can be reached from it; are there any cycles?

    By strongly connected components (R. Tarjan, *Depth-first search and linear graph algorithms*, 1972).
    """
    found = list(values)
    number = [0] * len(values)  # 0: not seen yet
    low = [0] * len(values)
    done = [False] * len(values)
    waiting: list[int] = []
    count = 0
    is_cyclic = False
    for root in range(len(values)):
        calls = [] if number[root] else [(root, iter(following[root]))]
        while calls:
            at, rest = calls[-1]
            if not number[at]:
                count += 1
                number[at] = low[at] = count
                waiting.append(at)
            for target in rest:
                if not number[target]:
                    calls.append((target, iter(following[target])))
                    break
                if not done[target]:
                    is_cyclic = True
                    low[at] = min(low[at], number[target])
                found[at] |= found[target]
            else:
                calls.pop()
                member = at if low[at] == number[at] else -1
                while member >= 0:
                    member = waiting.pop()
                    done[member] = True
                    found[member] = found[at]
                    member = -1 if member == at else member
                if calls:
                    above = calls[-1][0]
                    low[above] = min(low[above], low[at])
                    found[above] |= found[at]
    return found, is_cyclic
