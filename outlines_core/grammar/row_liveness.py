"""Which items of Earley rows can still come to an end: the context-free rules and what lies between terminals together.

From a boundary a symbol reads to certain boundaries; these sets are a least fixpoint, found on demand. An item is live
if its tail reads to a boundary from which what waits for it is live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.rows import ACCEPT, Item, Rows

__all__ = ["RowLiveness"]

B = TypeVar("B")
_MOST_STEPS = 500_000


class RowLiveness(Generic[B]):
    """Answers for rows whether text can follow.

    Args:
        read: the boundaries to which a terminal reads from one.
        ignore: those to which one ignored terminal does.
        may_end: may the text end at a boundary, as far as that is concerned?
    """

    def __init__(
        self,
        rows: Rows,
        read: Callable[[int, B], Iterable[B]],
        ignore: Callable[[B], Iterable[B]],
        may_end: Callable[[B], bool],
    ) -> None:
        self.rows, self._read, self._ignore, self._may_end = rows, read, ignore, may_end
        self._rules_of: dict[int, list[int]] = {}
        for k, rule in enumerate(rows.rules):
            self._rules_of.setdefault(rule.origin, []).append(k)
        self._ignored: dict[B, tuple[B, ...]] = {}
        self._outs: dict[tuple[object, B], dict[B, None]] = {}
        self._users: dict[tuple[object, B], dict[tuple[int, int, tuple[object, B]], None]] = {}
        self._todo: list[tuple[int, int, tuple[object, B], B]] = []
        self._seen: set[tuple[int, int, tuple[object, B], B]] = set()
        self._live: dict[tuple[Item, B], bool] = {}

    def behind_ignored(self, boundary: B) -> tuple[B, ...]:
        """The boundary, and those behind ignored text."""
        known = self._ignored.get(boundary)
        if known is None:
            found = {boundary: None}
            todo = [boundary]
            while todo:
                for following in self._ignore(todo.pop()):
                    if following not in found:
                        found[following] = None
                        todo.append(following)
            known = self._ignored[boundary] = tuple(found)
        return known

    def may_end(self, boundary: B) -> bool:
        """May the text end here or behind ignored text?"""
        return any(map(self._may_end, self.behind_ignored(boundary)))

    # -- what symbols read ------------------------------------------------------------------------------------------

    def _out(self, key: tuple[object, B]) -> dict[B, None]:
        """The boundaries behind a nonterminal, or behind the tail (rule, dot), from a boundary; perhaps not all yet."""
        known = self._outs.get(key)
        if known is None:
            known = self._outs[key] = {}
            self._users[key] = {}
            what, boundary = key
            if isinstance(what, tuple):
                self._push(what[0], what[1], key, boundary)
            else:
                for rule in self._rules_of.get(what, ()):  # type: ignore[call-overload]
                    self._push(rule, 0, key, boundary)
        return known

    def _push(self, rule: int, dot: int, key: tuple[object, B], boundary: B) -> None:
        step = (rule, dot, key, boundary)
        if step not in self._seen:
            self._seen.add(step)
            self._todo.append(step)
            if len(self._seen) > _MOST_STEPS:
                raise LimitExceededError(
                    "the grammar's liveness needs too many steps", given=len(self._seen), limit=_MOST_STEPS
                )

    def _solve(self) -> None:
        while self._todo:
            rule, dot, key, boundary = self._todo.pop()
            symbols = self.rows.rules[rule].symbols
            if dot == len(symbols):
                if boundary not in self._outs[key]:
                    self._outs[key][boundary] = None
                    for user_rule, user_dot, owner in list(self._users[key]):
                        self._push(user_rule, user_dot, owner, boundary)
                continue
            symbol = symbols[dot]
            if symbol >= 0:
                for begin in self.behind_ignored(boundary):
                    for behind in self._read(symbol, begin):
                        self._push(rule, dot + 1, key, behind)
                continue
            inner = (-1 - symbol, boundary)
            found = self._out(inner)
            self._users[inner][rule, dot + 1, key] = None
            for behind in list(found):
                self._push(rule, dot + 1, key, behind)

    # -- rows -------------------------------------------------------------------------------------------------------

    def row_live(self, row: int, boundary: B) -> bool:
        """Can text follow a row at a boundary (or may it end there)?"""
        rows = self.rows
        if rows.accepting[row] and self.may_end(boundary):
            return True
        return any(
            self.terminal_live(row, terminal, behind)
            for terminal in rows.terminals(row)
            for begin in self.behind_ignored(boundary)
            for behind in self._read(terminal, begin)
        )

    def terminal_live(self, row: int, terminal: int, behind: B) -> bool:
        """The same for a row and a terminal that has been read behind it, up to a boundary."""
        return any(self._item_live(item, behind) for item in self.rows.over(row, terminal))

    def _item_live(self, item: Item, boundary: B) -> bool:
        first = item, boundary
        known = self._live.get(first)
        if known is not None:
            return known
        rows = self.rows
        seen = {first}
        todo = [first]
        while todo:
            at, begin = todo.pop()
            if self._live.get((at, begin)):
                self._live[first] = True
                return True
            if at == ACCEPT:
                if self.may_end(begin):
                    self._live[first] = True
                    return True
                continue
            ends = self._out(((at.rule, at.dot), begin))
            self._solve()
            is_whole = (at.nonterminal, at.origin) == (rows.start, rows.root)
            for end in list(ends):
                if is_whole and self.may_end(end):
                    self._live[first] = True
                    return True
                for waiting in rows.over(at.origin, -1 - at.nonterminal):
                    if (waiting, end) not in seen:
                        seen.add((waiting, end))
                        todo.append((waiting, end))
        for key in seen:  # all that can be reached was seen
            self._live[key] = False
        return False
