"""A short text that brings a LALR parser to its end, from where it stands; not always a shortest one.

A search byte by byte has no end where much has to be closed. Here the parser is followed instead: of the rules that its
state is in the midst of, that is finished which needs least, until the whole text is. What comes out is tried, and only
given if the parser takes it; so the text is an upper bound for the bytes that are needed, and never a wrong one.
Blocks by indentation are opened one column deeper, and lines end where the open block asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from heapq import heappop, heappush
from typing import Any, Final

from outlines_core.grammar.loading import Grammar, Tables
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.worlds import LexedMachine

__all__ = ["Finisher"]

_MOST_RULES: Final = 10_000
_MOST_LOOKED_AT: Final = 300
_MOST_STACKS: Final = 2000
_CLOSING: Final = b"\"'`)]}>/*\n"  # what often ends something is tried first
_NEVER: Final = 1 << 40
_DETOUR: Final = 1 << 20


class Finisher:
    """Texts to the end of a grammar.

    Args:
        machine, separation: of the grammar; the separation must hold.
        step: the configuration after a byte, or None.
        stacks_behind: of a configuration in which something ignored or a newline was just read: the parser's stacks,
            the state on top last, each with the columns of the open blocks.
        accepts: may the text end in a configuration?
    """

    def __init__(
        self,
        machine: LexedMachine,
        separation: Separation,
        step: Callable[[Any, int], Any],
        stacks_behind: Callable[[Any], list[tuple[list[int], list[int]]]],
        accepts: Callable[[Any], bool],
    ) -> None:
        tables = machine.grammar.tables
        assert tables is not None
        self._grammar: Grammar = machine.grammar
        self._indentation = machine.indentation
        self._tables: Tables = tables
        self._separation, self._bytes = separation, machine.dfa.byte_of
        self._step, self._stacks_behind, self._accepts = step, stacks_behind, accepts

    def text(self, configuration: Any) -> bytes | None:
        """A text from a live configuration to acceptance; None: none was found."""
        if self._accepts(configuration):
            return b""
        separator = self._separation.separator
        seen = {configuration}
        tried: set[tuple[bytes, tuple[int, ...], tuple[int, ...]]] = set()
        queue: list[tuple[int, int, Any, bytes]] = [(0, 0, configuration, b"")]
        while queue and len(seen) < _MOST_LOOKED_AT:
            cost, _, at, text = heappop(queue)
            for before in dict.fromkeys((b"", separator)):
                behind = self._run(at, before)
                for stack, columns in [] if behind is None else self._stacks_behind(behind):
                    place = before, tuple(stack), tuple(columns)
                    if place in tried:
                        continue
                    tried.add(place)
                    for rest in self._ends(before, stack, columns):
                        if (end := self._run(at, rest)) is not None and self._accepts(end):
                            return text + rest
            for byte in self._bytes:
                following = self._step(at, byte)
                if following is not None and following not in seen:
                    if self._accepts(following):
                        return text + bytes((byte,))
                    seen.add(following)
                    more = cost + (1 if byte in _CLOSING else 3)
                    heappush(queue, (more, len(seen), following, text + bytes((byte,))))
        return None

    def _ends(self, before: bytes, stack: list[int], columns: list[int]) -> Iterator[bytes]:
        """Texts that may bring the parser to its end, those that are found soonest first.

        `before`: the separator, if that was read to come to the stack.
        """
        for find in (self._rest, self._shortest):
            terminals = find(stack)
            if terminals is not None:
                yield self._spelled(terminals, columns, b"")
                yield before + self._spelled(terminals, columns, self._separation.separator)

    def _spelled(self, terminals: list[int], columns: list[int], separator: bytes) -> bytes:
        """A text of some terminals; at the beginning of a line stand as many spaces as its block asks for."""
        indentation, columns = self._indentation, list(columns)
        text, is_line = b"", False
        for terminal in terminals:
            if indentation is not None and terminal == indentation.indent:
                columns.append(columns[-1] + 1)
            elif indentation is not None and terminal == indentation.dedent:
                columns = columns[:-1] or columns
            else:
                between = b" " * columns[-1] if is_line else separator
                text += (between if text else b"") + self._separation.samples(terminal)[0]
                is_line = indentation is not None and terminal == indentation.newline
        return text

    def _run(self, configuration: Any, text: bytes) -> Any:
        for byte in text:
            configuration = self._step(configuration, byte)
            if configuration is None:
                break
        return configuration

    # -- the parser -------------------------------------------------------------------------------------------------

    def _rest(self, stack: list[int]) -> list[int] | None:
        """The terminals that a parser with this stack can be given to its end."""
        tables, rules = self._tables, self._grammar.rules
        stack = list(stack)
        terminals: list[int] = []
        for _ in range(_MOST_RULES):
            if stack == [tables.start, tables.end]:
                return terminals
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

    def _shortest(self, stack: list[int]) -> list[int] | None:
        """The same by Dijkstra's algorithm over stacks, for where the nearest rule leads in circles."""
        tables, rules = self._tables, self._grammar.rules
        queue: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]] = [(0, 0, tuple(stack), ())]
        seen: set[tuple[int, ...]] = set()
        n = 0
        while queue and len(seen) < _MOST_STACKS:
            cost, _, at, terminals = heappop(queue)
            if at in seen:
                continue
            seen.add(at)
            if at == (tables.start, tables.end):
                return list(terminals)
            steps = self._ways[at[-1]] if len(at) > 1 else [(0, -1, 0)]
            for left, number, done in steps:
                symbols = (-1 - self._grammar.start,) if number < 0 else rules[number].symbols[done:]
                following, more = list(at), list(terminals)
                for symbol in symbols:
                    if not self._derive(symbol, more) or (state := self._after(following[-1], symbol)) < 0:
                        break
                    following.append(state)
                else:
                    if number >= 0:
                        del following[len(following) - len(rules[number].symbols) :]
                        following.append(tables.gotos[following[-1]][rules[number].origin])
                    n += 1
                    heappush(queue, (cost + left, n, tuple(following), tuple(more)))
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
        if self._indentation is not None and symbol in (self._indentation.indent, self._indentation.dedent):
            return 1
        samples = self._separation.samples(symbol)
        return len(samples[0]) + len(self._separation.separator) if samples else _NEVER

    @cached_property
    def _ways(self) -> list[list[tuple[int, int, int]]]:
        """By state: the rules that it is in the midst of: what the cheapest end costs; the rule, and how far it is."""
        tables, rules = self._tables, self._grammar.rules
        found: list[dict[tuple[int, int, int], None]] = [{} for _ in tables.actions]
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
                    if left < _NEVER:
                        found[state][left, number, done] = None
        return [list(ways) for ways in found]

    @cached_property
    def _nearest(self) -> list[tuple[int, int, int]]:
        """By state: the way that costs least, but for one that leads back."""

        def cost(way: tuple[int, int, int]) -> tuple[int, int, int]:
            left, number, done = way
            goes_round = done == 1 and left > 0 and self._is_left_recursive(number)
            return left + (_DETOUR if goes_round else 0), number, done

        return [min(map(cost, ways), default=(_NEVER, -1, 0)) for ways in self._ways]

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
