"""Do blocks and brackets nest in the rules, so that what they need is always possible?

What a rule opens without closing it, and the other way round, is its *effect*; each nonterminal must have one, and that
of the start none. Between brackets nothing of an indenter may come. An INDENT comes right behind a newline. A DEDENT
comes behind a newline or another DEDENT, as then the column of the next line can be chosen so. If it may come behind
something else it is *final*: the indenter closes blocks there only at the end of the text, and so nothing but further
DEDENTs and that end may follow it.

Where all this holds, a sentence of the rules is one of the language as far as an indenter is concerned.
"""

from __future__ import annotations

from typing import Final

from outlines_core.grammar.indentation import Indentation
from outlines_core.grammar.loading import END, Grammar, Rule

__all__ = ["is_regular"]

_FINAL: Final = -2
"""Stands for a DEDENT that may be final, where terminals are numbered."""
_BLOCK, _BRACKET = "block", "bracket"
_DEEPEST: Final = 8  # that a rule may open or close
Effect = tuple[tuple[str, ...], tuple[str, ...]]
"""What is closed, and what is opened behind that."""


def is_regular(grammar: Grammar, indentation: Indentation) -> bool:
    """True if they nest; False if not, or if a terminal of the indenter is also found in the text or has two tasks."""
    newline, indent, dedent = indentation.newline, indentation.indent, indentation.dedent
    roles = [newline, indent, dedent, *indentation.opening, *indentation.closing]
    if len(set(roles)) < len(roles) or any(grammar.terminals[t].regexp is not None for t in (indent, dedent)):
        return False
    return _Rules(grammar, indentation).nest()


class _Rules:
    """What the nonterminals derive: sets of terminals that are found together."""

    def __init__(self, grammar: Grammar, indentation: Indentation) -> None:
        self.grammar, self.indentation = grammar, indentation
        self._lines = {indentation.newline, indentation.indent, indentation.dedent}
        n = len(grammar.nonterminals)
        self._rules = _productive(grammar)
        self._nullable = [False] * n
        self._has_lines = [False] * n
        self._firsts: list[set[int]] = [set() for _ in range(n)]
        self._lasts: list[set[int]] = [set() for _ in range(n)]
        self._follows: list[set[int]] = [set() for _ in range(n)]
        self._precedes: list[set[int]] = [set() for _ in range(n)]
        self._follows[grammar.start].add(END)
        self._precedes[grammar.start].add(END)
        before = -1
        while before != (before := self._grow()):
            pass
        self._effects: dict[int, Effect] = {}

    def _grow(self) -> int:
        """One round; how much is known then."""
        for origin, symbols in self._rules:
            self._nullable[origin] |= self._is_nullable(symbols)
            self._has_lines[origin] |= any(map(self._has_line, symbols))
            self._firsts[origin] |= self._begins(symbols)
            self._lasts[origin] |= self._ends(origin, symbols)
            for k, symbol in enumerate(symbols):
                if symbol < 0:
                    self._follows[-1 - symbol] |= self._behind(origin, symbols[k + 1 :])
                    self._precedes[-1 - symbol] |= self._before(origin, symbols[:k])
        every = (self._firsts, self._lasts, self._follows, self._precedes)
        return sum(self._nullable) + sum(self._has_lines) + sum(len(found) for sets in every for found in sets)

    def _is_nullable(self, symbols: tuple[int, ...]) -> bool:
        return all(s < 0 and self._nullable[-1 - s] for s in symbols)

    def _has_line(self, symbol: int) -> bool:
        return symbol in self._lines if symbol >= 0 else self._has_lines[-1 - symbol]

    def _begins(self, symbols: tuple[int, ...]) -> set[int]:
        """The terminals with which something may begin."""
        found: set[int] = set()
        for symbol in symbols:
            found |= {symbol} if symbol >= 0 else self._firsts[-1 - symbol]
            if symbol >= 0 or not self._nullable[-1 - symbol]:
                break
        return found

    def _ends(self, origin: int, symbols: tuple[int, ...]) -> set[int]:
        """The terminals with which the beginning of a rule may end."""
        found: set[int] = set()
        for k in range(len(symbols) - 1, -1, -1):
            symbol = symbols[k]
            if symbol == self.indentation.dedent:
                found.add(_FINAL if self._is_final(origin, symbols[:k]) else symbol)
            else:
                found |= {symbol} if symbol >= 0 else self._lasts[-1 - symbol]
            if symbol >= 0 or not self._nullable[-1 - symbol]:
                break
        return found

    def _before(self, origin: int, earlier: tuple[int, ...]) -> set[int]:
        """What may come before something in a rule that has these symbols before it."""
        return self._ends(origin, earlier) | (self._precedes[origin] if self._is_nullable(earlier) else set())

    def _behind(self, origin: int, later: tuple[int, ...]) -> set[int]:
        """What may follow something in a rule that has these symbols behind it."""
        return self._begins(later) | (self._follows[origin] if self._is_nullable(later) else set())

    def _is_final(self, origin: int, earlier: tuple[int, ...]) -> bool:
        """May a DEDENT behind this be final?"""
        return not self._before(origin, earlier) <= {self.indentation.newline, self.indentation.dedent}

    # -- nesting ----------------------------------------------------------------------------------------------------

    def nest(self) -> bool:
        rules = self._rules
        found = -1
        while found != (found := len(self._effects)):
            for origin, symbols in rules:
                if origin not in self._effects and all(s >= 0 or -1 - s in self._effects for s in symbols):
                    effect = self._effect(symbols)
                    if effect is None:
                        return False
                    self._effects[origin] = effect
        return (
            self._effects.get(self.grammar.start) == ((), ())
            and all(self._effects.get(origin) == self._effect(symbols) for origin, symbols in rules)
            and all(self._is_in_place(origin, symbols) for origin, symbols in rules)
        )

    def _effect(self, symbols: tuple[int, ...]) -> Effect | None:
        """None: something is closed that is not the last one opened, or lines come between brackets."""
        indentation = self.indentation
        closed: tuple[str, ...] = ()
        opened: tuple[str, ...] = ()
        for symbol in symbols:
            if _BRACKET in opened and self._has_line(symbol):
                return None
            mine: Effect = ((), ())
            if symbol < 0:
                if -1 - symbol not in self._effects:
                    return None
                mine = self._effects[-1 - symbol]
            elif symbol == indentation.indent or symbol in indentation.opening:
                mine = (), (_BLOCK if symbol == indentation.indent else _BRACKET,)
            elif symbol == indentation.dedent or symbol in indentation.closing:
                mine = (_BLOCK if symbol == indentation.dedent else _BRACKET,), ()
            for what in mine[0]:
                if not opened:
                    closed = (*closed, what)
                elif opened[-1] != what:
                    return None
                else:
                    opened = opened[:-1]
            opened += mine[1]
        return (closed, opened) if len(closed) + len(opened) <= _DEEPEST else None

    def _is_in_place(self, origin: int, symbols: tuple[int, ...]) -> bool:
        """Can the INDENTs and DEDENTs of a rule come where it has them?"""
        indentation = self.indentation
        for k, symbol in enumerate(symbols):
            is_in_place = True
            if symbol == indentation.indent:
                is_in_place = self._before(origin, symbols[:k]) <= {indentation.newline}
            elif symbol == indentation.dedent and self._is_final(origin, symbols[:k]):
                is_in_place = self._behind(origin, symbols[k + 1 :]) <= {END, indentation.dedent}
            if not is_in_place:
                return False
        return True


def _productive(grammar: Grammar) -> list[Rule]:
    """The rules that derive something out of terminals that come (at the end of the text an indenter's always do)."""
    assert grammar.tables is not None
    come = {terminal for actions in grammar.tables.actions for terminal in actions}
    productive: set[int] = set()
    rules: list[Rule] = []
    n = -1
    while n != (n := len(productive)):
        rules = [r for r in grammar.rules if all(s in come if s >= 0 else -1 - s in productive for s in r.symbols)]
        productive.update(rule.origin for rule in rules)
    return rules
