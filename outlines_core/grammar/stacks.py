"""The LALR parser over shared stacks.

Stacks are linked lists of states, and equal ones are one number, so that the stack behind a long list is the stack
behind a short one. What a terminal does to a stack is remembered.
"""

from __future__ import annotations

from typing import Final

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.loading import END, Rule, Tables

__all__ = ["EMPTY", "Stacks"]

EMPTY: Final = -1
_MOST_REDUCTIONS: Final = 100_000  # on one terminal


class Stacks:
    """All stacks of a LALR automaton that have been seen.

    Attributes:
        root: the stack before the first terminal.
        items: by stack: (state on top, stack below).
    """

    def __init__(self, tables: Tables, rules: tuple[Rule, ...]) -> None:
        self.tables, self.rules = tables, rules
        self.items: list[tuple[int, int]] = []
        self._numbers: dict[tuple[int, int], int] = {}
        self._after: dict[tuple[int, int], int | None] = {}
        self.root = self.push(EMPTY, tables.start)

    def push(self, below: int, state: int) -> int:
        key = state, below
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self.items)
            self.items.append(key)
        return known

    def after(self, stack: int, terminal: int) -> int | None:
        """The stack after a terminal; None: the parser refuses it.  After END: some stack if the text may end."""
        key = stack, terminal
        if key not in self._after:
            self._after[key] = self._advance(stack, terminal)
        return self._after[key]

    def _advance(self, stack: int, terminal: int) -> int | None:
        actions, gotos, items = self.tables.actions, self.tables.gotos, self.items
        for _ in range(_MOST_REDUCTIONS):
            action = actions[items[stack][0]].get(terminal)
            if action is None:
                return None
            if action >= 0:
                return self.push(stack, action)
            rule = self.rules[-1 - action]
            for _symbol in rule.symbols:
                stack = items[stack][1]
            state = gotos[items[stack][0]][rule.origin]
            stack = self.push(stack, state)
            if terminal == END and state == self.tables.end:
                return stack
        raise LimitExceededError(
            "the parser reduces without end: a rule derives itself, and priorities prefer that",
            given=_MOST_REDUCTIONS,
            limit=_MOST_REDUCTIONS,
        )

    def lexer(self, stack: int) -> int:
        """The lexer that reads what comes next."""
        return self.tables.lexer[self.items[stack][0]]
