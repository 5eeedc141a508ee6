"""Is the lexer no obstacle, so that a text can be finished wherever the parser can be satisfied?

In most grammars something is ignored, and one short text of it, the *separator*, ends whatever was read before: behind
it each terminal that a lexer knows can be read, and behind each of these the separator again. Where that is so, a stack
that is live for the parser is live, and nobody has to look at obligations any more. Only behind a newline of an
indenter, which the separator would make longer, the terminals must be readable at once.

All this is found out by reading: one or two shortest texts of each terminal.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from outlines_core.grammar.indentation import Indentation
from outlines_core.grammar.loading import Grammar
from outlines_core.grammar.worlds import IGNORED, Boundary, LexedMachine, Lexeme

__all__ = ["Separation"]

_MOST_BOUNDARIES: Final = 40
_SAMPLES: Final = 3
_MOST_STATES: Final = 400


class Separation:
    """The separator of a grammar.

    Attributes:
        lets_through: is there one, and are blocks and brackets, if there is an indenter, a matter of the rules?
        newline: the indenter's terminal, or -1.
    """

    def __init__(self, machine: LexedMachine) -> None:
        self.machine, self.grammar = machine, machine.grammar
        indentation = machine.indentation
        self.newline = indentation.newline if indentation is not None else -1
        self._samples: dict[int, list[bytes]] = {}
        self._good: dict[tuple[int, Boundary], bool] = {}
        self._behind: dict[int, set[int]] = self._lexers_behind()
        self._separator = b""
        self._free: set[Boundary] = set()
        regular = indentation is None or is_regular(self.grammar, indentation)
        texts = [text for k in sorted(self.grammar.ignored) for text in self.samples(k)]
        self.lets_through = regular and any(map(self._try, texts))

    def _lexers_behind(self) -> dict[int, set[int]]:
        """By terminal: the lexers that read what comes behind it."""
        tables = self.grammar.tables
        assert tables is not None
        found: dict[int, set[int]] = {}
        for actions in tables.actions:
            for terminal, action in actions.items():
                if action >= 0:
                    found.setdefault(terminal, set()).add(tables.lexer[action])
        if self.newline >= 0:
            indentation = self.machine.indentation
            assert indentation is not None
            for terminal in (indentation.indent, indentation.dedent):
                found.setdefault(self.newline, set()).update(found.get(terminal, ()))
        return found

    def unreadable(self) -> dict[int, int]:
        """By state of the parser: a terminal that cannot be read there: a newline behind another one."""
        indentation, tables = self.machine.indentation, self.grammar.tables
        assert tables is not None
        if indentation is None:
            return {}
        lines = (indentation.newline, indentation.indent, indentation.dedent)
        behind = {a for actions in tables.actions for t, a in actions.items() if t in lines and a >= 0}
        return dict.fromkeys(sorted(behind), indentation.newline)

    def lexers_behind(self, terminal: int) -> set[int]:
        """The lexers that may read what comes behind a terminal."""
        return self._behind.get(terminal, set())

    def samples(self, terminal: int) -> list[bytes]:
        """Some shortest texts of a terminal."""
        known = self._samples.get(terminal)
        if known is not None:
            return known
        known = self._samples[terminal] = []
        dfa = self.machine.dfa
        letters = sorted(dfa.byte_of, key=lambda b: (not chr(b).isalpha() or b > 127, not 0x20 <= b < 0x7F, b))
        start = dfa.start((terminal,), dfa.past_after(dfa.beginning, 0x20))
        queue = deque([(start, b"")])
        seen = {start}
        while queue and len(known) < _SAMPLES and len(seen) < _MOST_STATES:
            state, text = queue.popleft()
            for byte in letters:
                following, matches = dfa.step(state, byte)
                if matches and len(known) < _SAMPLES:
                    known.append(text + bytes([byte]))
                if following and following not in seen:
                    seen.add(following)
                    queue.append((following, text + bytes([byte])))
        return known

    def read(self, lexer: int, boundary: Boundary, text: bytes) -> list[tuple[int, Boundary]]:
        """What a text may be as one lexeme, each with the boundary behind it."""
        lexemes = [self.machine.start(lexer, boundary)]
        found: list[tuple[int, Boundary]] = []
        for byte in text:
            following: list[Lexeme] = []
            found = []
            for lexeme in lexemes:
                longer, ends = self.machine.step(lexeme, byte)
                following += longer
                found += ends
            lexemes = following
        return [(self.machine.resolve(lexer, terminal), behind) for terminal, behind in found]

    def _try(self, separator: bytes) -> bool:
        """Is this text a separator?"""
        self._separator, self._free = separator, set()
        self._good.clear()
        machine = self.machine
        todo: list[Boundary] = []

        def separated(lexer: int, boundary: Boundary) -> bool:
            for terminal, behind in self.read(lexer, boundary, separator):
                if terminal == IGNORED and machine.dfa.hold_at_end(behind.obligations):
                    if behind not in self._free:
                        self._free.add(behind)
                        todo.append(behind)
                    return True
            return False

        tables = self.grammar.tables
        assert tables is not None
        first = Boundary(machine.dfa.beginning, frozenset())
        if not separated(tables.lexer[tables.start], first):
            return False
        while todo:
            if len(self._free) > _MOST_BOUNDARIES:
                return False
            boundary = todo.pop()
            for lexer, table in enumerate(self.grammar.lexers):
                for terminal in self._expected(table.order, table.retyped):
                    behind = self._readable(lexer, boundary, terminal)
                    if behind is None:
                        return False
                    if terminal == self.newline:
                        continue
                    if not all(separated(following, behind) for following in self._behind.get(terminal, ())):
                        return False
        return True

    def _expected(self, order: tuple[int, ...], retyped: dict[int, tuple[int, ...]]) -> list[int]:
        """The terminals of a lexer that the parser asks for."""
        every = dict.fromkeys((*order, *(k for texts in retyped.values() for k in texts)))
        return [t for t in every if t not in self.grammar.ignored and t in self._behind]

    def _readable(self, lexer: int, boundary: Boundary, terminal: int) -> Boundary | None:
        """The boundary behind a sample of the terminal, if it can be read at a boundary."""
        for sample in self.samples(terminal):
            for found, behind in self.read(lexer, boundary, sample):
                if found == terminal:
                    return behind
        return None

    def is_good(self, lexer: int, boundary: Boundary) -> bool:
        """Can the parser be satisfied from this boundary, if it can be at all (by other things than a newline)?"""
        key = lexer, boundary
        known = self._good.get(key)
        if known is None:
            known = self._good[key] = self._is_good(lexer, boundary)
        return known

    def is_blocked(self, lexer: int, boundary: Boundary) -> bool:
        """Can nothing at all be read from this boundary?"""
        start = self.machine.start(lexer, boundary)
        return not any(any(self.machine.step(start, byte)) for byte in self.machine.dfa.byte_of)

    def _is_good(self, lexer: int, boundary: Boundary) -> bool:
        if boundary in self._free:
            return True
        if any(t == IGNORED and behind in self._free for t, behind in self.read(lexer, boundary, self._separator)):
            return True
        if not self.machine.dfa.hold_at_end(boundary.obligations):
            return False
        table = self.grammar.lexers[lexer]
        return all(
            self._readable(lexer, boundary, terminal) is not None
            for terminal in self._expected(table.order, table.retyped)
            if terminal != self.newline
        )


def is_regular(grammar: Grammar, indentation: Indentation) -> bool:
    """Do blocks and brackets nest in the rules, so that what they need is always possible?

    In each rule an INDENT comes behind something that ends with a newline and is closed by a DEDENT, which comes behind
    something that ends so as well; brackets are closed in the rule that opens them, with nothing of that kind between.
    """
    lines = {indentation.newline, indentation.indent, indentation.dedent}
    marks = lines | indentation.opening | indentation.closing
    holds: dict[int, set[int]] = {}  # by nonterminal: the marks that it may contain
    lasts: dict[int, set[int]] = {}  # and the terminals that it may end with
    nullable: set[int] = set()
    changed = True
    while changed:
        changed = False
        for rule in grammar.rules:
            inside = holds.setdefault(rule.origin, set())
            last = lasts.setdefault(rule.origin, set())
            before = len(inside), len(last), len(nullable)
            for symbol in rule.symbols:
                inside |= {symbol} & marks if symbol >= 0 else holds.get(-1 - symbol, set())
            for symbol in reversed(rule.symbols):
                last |= {symbol} if symbol >= 0 else lasts.get(-1 - symbol, set())
                if symbol >= 0 or -1 - symbol not in nullable:
                    break
            else:
                nullable.add(rule.origin)
            changed |= before != (len(inside), len(last), len(nullable))

    def ends_lines(symbols: tuple[int, ...]) -> bool:
        for symbol in reversed(symbols):
            last = {symbol} if symbol >= 0 else lasts[-1 - symbol]
            if not last <= {indentation.newline, indentation.dedent}:
                return False
            if symbol >= 0 or -1 - symbol not in nullable:
                return True
        return False

    for rule in grammar.rules:
        blocks = brackets = 0
        for k, symbol in enumerate(rule.symbols):
            inner = {symbol} & marks if symbol >= 0 else holds[-1 - symbol]
            if brackets and inner & lines:
                return False
            if symbol in (indentation.indent, indentation.dedent):
                blocks += 1 if symbol == indentation.indent else -1
                earlier = rule.symbols[:k]
                if blocks not in (0, 1) or brackets or not ends_lines(earlier):
                    return False
                if symbol == indentation.indent and earlier[-1] != indentation.newline:
                    return False
            elif symbol in indentation.opening:
                brackets += 1
            elif symbol in indentation.closing:
                brackets -= 1
                if brackets < 0:
                    return False
        if blocks or brackets:
            return False
    return True
