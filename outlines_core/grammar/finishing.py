"""A short text that brings a LALR parser to its end, from where it stands; not always a shortest one.

A search byte by byte has no end where much has to be closed. Here the parser is followed instead: of the rules that its
state is in the midst of, that is finished which needs least, until the whole text is. What comes out is tried, and only
given if the parser takes it; so the text is an upper bound for the bytes that are needed, and never a wrong one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from outlines_core.grammar.loading import Grammar, Tables
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.worlds import LexedMachine

__all__ = ["Finisher"]

_MOST_RULES: Final = 10_000
_MOST_LOOKED_AT: Final = 300
_NEVER: Final = 1 << 40
_DETOUR: Final = 1 << 20


class Finisher:
    """Texts to the end of a grammar without an indenter.

    Args:
        machine, separation: of the grammar; the separation must hold.
        step: the configuration after a byte, or None.
        stacks_behind: of a configuration in which something ignored was just read: the parser's stacks, the state
            on top last.
        accepts: may the text end in a configuration?
    """

    def __init__(
        self,
        machine: LexedMachine,
        separation: Separation,
        step: Callable[[Any, int], Any],
        stacks_behind: Callable[[Any], list[list[int]]],
        accepts: Callable[[Any], bool],
    ) -> None:
        tables = machine.grammar.tables
        assert tables is not None
        self._grammar: Grammar = machine.grammar
        self._tables: Tables = tables
        self._separation, self._bytes = separation, machine.dfa.byte_of
        self._step, self._stacks_behind, self._accepts = step, stacks_behind, accepts

    def text(self, configuration: Any) -> bytes | None:
        """A text from a live configuration to acceptance; None: none was found."""
        if self._accepts(configuration):
            return b""
        separator = self._separation.separator
        seen = {configuration}
        queue = deque([(configuration, b"")])
        while queue and len(seen) < _MOST_LOOKED_AT:
            at, text = queue.popleft()
            behind = self._run(at, separator)
            for stack in [] if behind is None else self._stacks_behind(behind):
                pieces = self._rest(stack)
                for rest in [] if pieces is None else [b"".join(pieces), separator + separator.join(pieces)]:
                    if (end := self._run(at, rest)) is not None and self._accepts(end):
                        return text + rest
            for byte in self._bytes:
                following = self._step(at, byte)
                if following is not None and following not in seen:
                    if self._accepts(following):
                        return text + bytes((byte,))
                    seen.add(following)
                    queue.append((following, text + bytes((byte,))))
        return None

    def _run(self, configuration: Any, text: bytes) -> Any:
        for byte in text:
            configuration = self._step(configuration, byte)
            if configuration is None:
                break
        return configuration

    # -- the parser -------------------------------------------------------------------------------------------------

    def _rest(self, stack: list[int]) -> list[bytes] | None:
        """Texts of the terminals that a parser with this stack can be given to its end."""
        tables, rules = self._tables, self._grammar.rules
        stack = list(stack)
        terminals: list[int] = []
        for _ in range(_MOST_RULES):
            if stack == [tables.start, tables.end]:
                return [self._separation.samples(t)[0] for t in terminals]
            if len(stack) == 1:
                symbols: tuple[int, ...] = (-1 - self._grammar.start,)
                size, origin = -1, -1
            else:
                cost, number, done = self._nearest[stack[-1]]
                if cost >= _NEVER:
                    return None
                symbols, origin = rules[number].symbols[done:], rules[number].origin
                size = len(rules[number].symbols)
            for symbol in symbols:
                if not self._derive(symbol, terminals):
                    return None
                stack.append(self._after(stack[-1], symbol))
                if stack[-1] < 0:
                    return None
            if size >= 0:
                del stack[len(stack) - size :]
                stack.append(tables.gotos[stack[-1]][origin])
        return None

    def _after(self, state: int, symbol: int) -> int:
        if symbol < 0:
            return self._tables.gotos[state].get(-1 - symbol, -1)
        return self._tables.actions[state].get(symbol, -1)

    def _derive(self, symbol: int, terminals: list[int]) -> bool:
        """Add the terminals of a cheapest sentence of a symbol."""
        todo = [symbol]
        while todo:
            symbol = todo.pop()
            if symbol >= 0:
                terminals.append(symbol)
                continue
            cost, number = self._yields[-1 - symbol]
            if cost >= _NEVER or len(terminals) > _MOST_RULES:
                return False
            todo.extend(reversed(self._grammar.rules[number].symbols))
        return True

    @cached_property
    def _yields(self) -> list[tuple[int, int]]:
        """By nonterminal: the cost of its cheapest sentence, and the rule with which that begins."""
        found = [(_NEVER, -1)] * len(self._grammar.nonterminals)
        changed = True
        while changed:
            changed = False
            for number, rule in enumerate(self._grammar.rules):
                cost = sum(self._cost(symbol, found) for symbol in rule.symbols)
                if cost < found[rule.origin][0]:
                    found[rule.origin] = cost, number
                    changed = True
        return found

    def _cost(self, symbol: int, found: list[tuple[int, int]]) -> int:
        if symbol < 0:
            return found[-1 - symbol][0]
        samples = self._separation.samples(symbol)
        return len(samples[0]) + len(self._separation.separator) if samples else _NEVER

    @cached_property
    def _nearest(self) -> list[tuple[int, int, int]]:
        """By state: what the cheapest end of a rule that it is in the midst of costs; the rule, and how far it is."""
        tables, rules = self._tables, self._grammar.rules
        found = [(_NEVER, -1, 0)] * len(tables.actions)
        of: dict[int, list[int]] = {}
        for number, rule in enumerate(rules):
            of.setdefault(rule.origin, []).append(number)
        for begin, gotos in enumerate(tables.gotos):
            for number in (number for origin in gotos for number in of.get(origin, ())):
                symbols, state = rules[number].symbols, begin
                left = sum(self._cost(symbol, self._yields) for symbol in symbols)
                for done, symbol in enumerate(symbols, start=1):
                    state = self._after(state, symbol)
                    if state < 0:
                        break
                    left -= self._cost(symbol, self._yields)
                    goes_round = done == 1 and left > 0 and self._is_left_recursive(number)
                    found[state] = min(found[state], (left + (_DETOUR if goes_round else 0), number, done))
        return found

    def _is_left_recursive(self, number: int) -> bool:
        """May what a rule begins with begin with what it makes?  Then there is no need to go on with it."""
        rule = self._grammar.rules[number]
        return rule.symbols[0] < 0 and rule.origin in self._left_corners[-1 - rule.symbols[0]]

    @cached_property
    def _left_corners(self) -> list[set[int]]:
        """By nonterminal: those that its sentences may begin with."""
        found = [{k} for k in range(len(self._grammar.nonterminals))]
        n = -1
        while n != (n := sum(map(len, found))):
            for rule in self._grammar.rules:
                if rule.symbols and rule.symbols[0] < 0:
                    found[rule.origin] |= found[-1 - rule.symbols[0]]
        return found
