"""Earley's parser with shared rows.

A row is the set of items that a prefix has led to; an item knows in which row its rule began. Equal rows are one
number. An item whose completion does nothing but complete another one is taken for that one from the beginning (as a
tail call), so that right-recursive lists come to a fixed row as left-recursive ones do.

Source: J. Aycock, R. N. Horspool, *Practical Earley parsing*, 2002 (nullable rules); J. Leo, *A general context-free
parsing algorithm running in linear time on every LR(k) grammar*, 1991 (right recursion).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from outlines_core.grammar.loading import END, Rule

__all__ = ["ACCEPT", "Item", "Rows"]

_SELF: Final = -1


class Item(NamedTuple):
    """A rule up to a dot; when it is complete, `nonterminal` has been read since row `origin`."""

    rule: int
    dot: int
    nonterminal: int
    origin: int


ACCEPT: Final = Item(-1, 0, 0, 0)
"""In a row: the text may end."""


class Rows:
    """All rows of a grammar that have been seen.

    Attributes:
        root: the row before the first terminal.
    """

    def __init__(self, rules: tuple[Rule, ...], n_nonterminals: int, start: int) -> None:
        self.rules, self.start = rules, start
        self._rules_of: list[list[int]] = [[] for _ in range(n_nonterminals)]
        for k, rule in enumerate(rules):
            self._rules_of[rule.origin].append(k)
        self._nullable = self._find_nullable(n_nonterminals)
        self._numbers: dict[frozenset[Item], int] = {}
        self._waiting: list[dict[int, tuple[Item, ...]]] = []
        self._after: list[dict[int, frozenset[Item]]] = []
        self._targets: dict[tuple[int, int], tuple[int, int]] = {}
        self.accepting: list[bool] = []
        self.root = self._add(frozenset(), is_root=True)

    def _find_nullable(self, n: int) -> list[bool]:
        nullable = [False] * n
        changed = True
        while changed:
            changed = False
            for rule in self.rules:
                if not nullable[rule.origin] and all(s < 0 and nullable[-1 - s] for s in rule.symbols):
                    nullable[rule.origin] = changed = True
        return nullable

    # -- rows -------------------------------------------------------------------------------------------------------

    def row(self, kernel: frozenset[Item]) -> int:
        """The row of what was read over, closed."""
        known = self._numbers.get(kernel)
        return self._add(kernel) if known is None else known

    def _add(self, kernel: frozenset[Item], *, is_root: bool = False) -> int:
        number = len(self._waiting)
        if not is_root:
            self._numbers[kernel] = number
        waiting: dict[int, dict[Item, None]] = {}
        seen: set[Item] = set()
        completed: set[tuple[int, int]] = set()
        predicted: set[int] = set()
        stack = sorted(kernel)
        accepts = False

        def predict(nonterminal: int) -> None:
            if nonterminal not in predicted:
                predicted.add(nonterminal)
                stack.extend(Item(rule, 0, nonterminal, _SELF) for rule in self._rules_of[nonterminal])

        if is_root:
            predict(self.start)
            accepts = self._nullable[self.start]
        while stack:
            item = stack.pop()
            if item in seen:
                continue
            seen.add(item)
            if item == ACCEPT:
                accepts = True
                continue
            symbols = self.rules[item.rule].symbols
            if item.dot < len(symbols):
                symbol = symbols[item.dot]
                waiting.setdefault(symbol, {})[item] = None
                if symbol < 0:
                    predict(-1 - symbol)
                    if self._nullable[-1 - symbol]:
                        stack.append(item._replace(dot=item.dot + 1))
                continue
            done = item.nonterminal, item.origin
            if item.origin == _SELF or done in completed:  # what reads nothing was stepped over already
                continue
            completed.add(done)
            accepts |= done == (self.start, self.root)
            stack.extend(self.over(item.origin, -1 - item.nonterminal))
        self._waiting.append({symbol: tuple(items) for symbol, items in waiting.items()})
        self._after.append({})
        self.accepting.append(accepts)
        return number

    def over(self, row: int, symbol: int) -> frozenset[Item]:
        """The items of a row that wait for a symbol, with the dot behind it."""
        known = self._after[row].get(symbol)
        if known is None:
            items = []
            for rule, dot, nonterminal, origin in self._waiting[row].get(symbol, ()):
                target = self._target(nonterminal, row) if origin == _SELF else (nonterminal, origin)
                items.append(Item(rule, dot + 1, *target))
            known = self._after[row][symbol] = frozenset(items)
        return known

    def _target(self, nonterminal: int, row: int) -> tuple[int, int]:
        """What is completed if `nonterminal` is, begun in `row`: itself, or what does nothing but wait for it."""
        key = first = nonterminal, row
        known = self._targets.get(first)
        if known is not None:
            return known
        seen = {key}
        while key != (self.start, self.root):
            items = self._waiting[key[1]].get(-1 - key[0], ())
            if len(items) != 1:
                break
            rule, dot, above, origin = items[0]
            if dot + 1 < len(self.rules[rule].symbols):
                break
            following = above, key[1] if origin == _SELF else origin
            if following in seen:
                break
            seen.add(following)
            key = following
        self._targets[first] = key
        return key

    # -- questions --------------------------------------------------------------------------------------------------

    def terminals(self, row: int) -> list[int]:
        """The terminals that items of a row wait for."""
        return [symbol for symbol in self._waiting[row] if symbol >= 0]

    def carried(self, row: int) -> Iterable[Item]:
        """What stays of a row behind ignored text, if other items are read up to the same place."""
        for symbol in self.terminals(row):
            for item in self.over(row, symbol):
                yield item._replace(dot=item.dot - 1)
        if self.accepting[row]:
            yield ACCEPT

    def after(self, row: int, terminal: int) -> int | None:
        """The row after a terminal, None if none waits for it.  After END: some row if the text may end."""
        if terminal == END:
            return row if self.accepting[row] else None
        kernel = self.over(row, terminal)
        return self.row(kernel) if kernel else None

    def lexer(self, row: int) -> int:  # noqa: ARG002  # as `Stacks` has it
        """The lexer that reads what comes next: there is only one."""
        return 0
