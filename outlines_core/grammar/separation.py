"""Is the lexer no obstacle, so that a text can be finished wherever the parser can be satisfied?

In most grammars something is ignored, and one short text of it, the *separator*, ends whatever was read before: behind
it each terminal that a lexer knows can be read, and behind each of these the separator again. Where that is so, a stack
that is live for the parser is live, and nobody has to look at obligations any more. Some terminals *absorb* the
separator, as newlines do with the spaces of the next line: behind these, all others must be readable at once.

All this is found out by reading: one or two shortest texts of each terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from outlines_core.grammar.loading import END
from outlines_core.grammar.nesting import is_regular
from outlines_core.grammar.ordered import NOTHING, check_search
from outlines_core.grammar.worlds import IGNORED, Boundary, LexedMachine, Lexeme

__all__ = ["Separation"]

_MOST_BOUNDARIES: Final = 40
_SAMPLES: Final = 3
_MOST_STATES: Final = 400
_MOST_LEXEMES: Final = 20_000
_LONGEST_CHARACTER: Final = 4


class Separation:
    """The separator of a grammar.

    Attributes:
        separator: its text.
        lets_through: is there one, and are blocks and brackets, if there is an indenter, a matter of the rules?
        newline: the indenter's terminal, or -1; it counts as one that absorbs.
    """

    def __init__(self, machine: LexedMachine) -> None:
        self.machine, self.grammar = machine, machine.grammar
        indentation = machine.indentation
        self.newline = indentation.newline if indentation is not None else -1
        self._free_lines: dict[Lexeme, None] = {}
        self._unfree_lines: set[Lexeme] = set()
        self._good_lines: dict[Boundary, bool] = {}
        self._assumed: list[Boundary] = []
        self._samples: dict[int, list[bytes]] = {}
        self._good: dict[tuple[int, Boundary, bool], bool] = {}
        self._absorbing: set[int] = set()
        self._never: dict[int, set[int]] = {}  # by lexer: terminals to which others are always preferred
        self._behind: dict[int, set[int]] = self._lexers_behind()
        self.separator = b""
        self._free: set[tuple[int, Boundary]] = set()  # lexers and boundaries behind the separator
        self._unfree: set[tuple[int, Boundary]] = set()
        self._behind_lines = set(self._behind.get(self.newline, ()))
        if (
            indentation is not None and indentation.opening
        ):  # within brackets a newline is dropped, and its lexer goes on
            reads = [lexer.readable(self.grammar.ignored) for lexer in self.grammar.lexers]
            self._behind_lines.update(k for k, terminals in enumerate(reads) if self.newline in terminals)
        regular = indentation is None or is_regular(self.grammar, indentation)
        texts = sorted((text for k in sorted(self.grammar.ignored) for text in self.samples(k)), key=len)
        self.lets_through = regular and any(
            self._try(text) and (self.newline < 0 or (self._lines_are_free() and not self._unread)) for text in texts
        )

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
        """By state of the parser: terminals, as bits, that are not readable there, or may not be (what absorbs, behind
        such a one).
        """
        indentation, tables = self.machine.indentation, self.grammar.tables
        assert tables is not None
        lines = set(self._absorbing)
        if indentation is not None:
            lines |= {indentation.indent, indentation.dedent}
        behind = {a for actions in tables.actions for t, a in actions.items() if t in lines and a >= 0}
        found = dict.fromkeys(sorted(behind), sum(1 << t for t in self._absorbing))
        for state, terminals in self._unread.items():
            found[state] = found.get(state, 0) | sum(1 << t for t in terminals)
        return found

    @property
    def _unread(self) -> dict[int, set[int]]:
        """By state: terminals that it has actions on, but that its own lexer never gives to the parser."""
        indentation, tables, grammar = self.machine.indentation, self.grammar.tables, self.grammar
        assert tables is not None
        zero_width = {END} if indentation is None else {END, indentation.indent, indentation.dedent}
        read = [
            table.readable(grammar.ignored) - self._never.get(lexer, set()) | zero_width
            for lexer, table in enumerate(grammar.lexers)
        ]
        found = {state: actions.keys() - read[tables.lexer[state]] for state, actions in enumerate(tables.actions)}
        return {state: terminals for state, terminals in found.items() if terminals}

    def lexers_behind(self, terminal: int) -> set[int]:
        """The lexers that may read what comes behind a terminal."""
        return self._behind.get(terminal, set())

    def absorbs(self, terminal: int) -> bool:
        """May the separator belong to the terminal that was read before it?"""
        return terminal in self._absorbing

    def samples(self, terminal: int) -> list[bytes]:
        """Some shortest texts of a terminal."""
        known = self._samples.get(terminal)
        if known is not None:
            return known
        known = self._samples[terminal] = [b"\n"] if terminal == self.newline else []  # not a comment, if that counts
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
        self.separator, self._free = separator, set()
        self._absorbing = {self.newline} if self.newline >= 0 else set()
        self._never.clear()
        for known in (self._unfree, self._good, self._free_lines, self._unfree_lines, self._good_lines):
            known.clear()
        machine = self.machine
        todo: list[tuple[int, Boundary, bool]] = []
        unseparated: set[tuple[int, Boundary]] = set()

        def separated(lexer: int, boundary: Boundary) -> bool:
            for terminal, behind in self.read(lexer, boundary, separator):
                if terminal == IGNORED and machine.dfa.hold_at_end(behind.obligations):
                    if (lexer, behind) not in self._free:
                        self._free.add((lexer, behind))
                        todo.append((lexer, behind, True))
                    return True
            return False

        tables = self.grammar.tables
        assert tables is not None
        first = Boundary(machine.dfa.beginning, frozenset())
        if not separated(tables.lexer[tables.start], first):
            return False
        while todo:
            if len(self._free) + len(unseparated) > _MOST_BOUNDARIES * len(self.grammar.lexers):
                return False
            lexer, boundary, is_free = todo.pop()
            for terminal in self.expected(lexer):
                if is_free:
                    behind = self._readable(lexer, boundary, terminal)
                else:  # of these, `is_good` says below whether enough can be read
                    behind = next(self._sampled(lexer, boundary, terminal), None)
                    if behind is None:
                        continue
                if behind is None:
                    anywhere = boundary._replace(obligations=NOTHING)
                    if not machine.dfa.has_one_past or self._readable(lexer, anywhere, terminal) is not None:
                        return False
                    self._never.setdefault(lexer, set()).add(terminal)
                    continue
                for following in self._behind[terminal]:
                    if not separated(following, behind):
                        self._absorbing.add(terminal)
                        if (following, behind) not in unseparated:
                            unseparated.add((following, behind))
                            todo.append((following, behind, False))
        return all(
            self.is_good(following, behind, terminal)
            for lexer, boundary in sorted(self._free, key=repr)
            for terminal in self.expected(lexer)
            if terminal in self._absorbing and terminal != self.newline
            if (behind := self._readable(lexer, boundary, terminal)) is not None
            for following in self._behind[terminal]
        )

    def expected(self, lexer: int) -> list[int]:
        """The terminals of a lexer that the parser asks for."""
        readable = self.grammar.lexers[lexer].readable(self.grammar.ignored) - self._never.get(lexer, set())
        return [t for t in sorted(readable) if t in self._behind]

    def _readable(self, lexer: int, boundary: Boundary, terminal: int) -> Boundary | None:
        """The boundary behind some text of the terminal, if it can be read at a boundary."""
        return next(self.ways(lexer, boundary, terminal), None)

    def ways(self, lexer: int, boundary: Boundary, terminal: int) -> Iterator[Boundary]:
        """The boundaries behind samples of the terminal that can be read; if none can, behind another text of it."""
        found = False
        for behind in self._sampled(lexer, boundary, terminal):
            found = True
            yield behind
        if not found:  # another terminal is preferred for the samples
            searched = self._searched(lexer, boundary, terminal)
            if searched is not None:
                yield searched

    def _sampled(self, lexer: int, boundary: Boundary, terminal: int) -> Iterator[Boundary]:
        for sample in self.samples(terminal):
            for found, behind in self.read(lexer, boundary, sample):
                if found == terminal:
                    yield behind

    def _searched(self, lexer: int, boundary: Boundary, terminal: int) -> Boundary | None:
        start = self.machine.start(lexer, boundary)
        seen, todo = {start}, deque([start])
        while todo:
            check_search(len(seen), self.machine.dfa.n_classes)
            lexeme = todo.popleft()
            for byte in self._letters(lexeme):
                longer, ends = self.machine.step(lexeme, byte)
                for found, behind in ends:
                    if self.machine.resolve(lexer, found) == terminal:
                        return behind
                for one in longer:
                    may_be = terminal in self.machine.dfa.terminals_of(one.state) or terminal in dict(one.keywords)
                    if may_be and one not in seen:
                        seen.add(one)
                        todo.append(one)
        return None

    def is_good(self, lexer: int, boundary: Boundary, terminal: int) -> bool:
        """Can the parser be satisfied from this boundary behind a terminal, if it can be at all?

        That is if the separator can be read, or else each terminal can (but for those that absorb, behind such a one).
        """
        key = lexer, boundary, terminal in self._absorbing
        known = self._good.get(key)
        if known is None:
            known = self._good[key] = self._is_good(*key)
        return known

    def is_blocked(self, lexer: int, boundary: Boundary) -> bool:
        """Can nothing at all be read from this boundary?

        What must hold there, and what must not, may have to be read to the end of a character to be seen to contradict
        each other: after `where`, a name that is no keyword must go on with a letter, and it would have taken that.
        """
        lexemes = {self.machine.start(lexer, boundary): None}
        for _ in range(_LONGEST_CHARACTER):
            following: dict[Lexeme, None] = {}
            for lexeme in lexemes:
                for byte in self._letters(lexeme):
                    longer, ends = self.machine.step(lexeme, byte)
                    if ends:
                        return False
                    following.update(dict.fromkeys(longer))
            lexemes = following
        return not lexemes

    def _is_good(self, lexer: int, boundary: Boundary, is_absorbed: bool) -> bool:
        if (lexer, boundary) in self._free or self._is_separable(lexer, boundary):
            return True
        if not self.machine.dfa.hold_at_end(boundary.obligations):
            return False
        for terminal in self.expected(lexer):
            if is_absorbed and terminal in self._absorbing:
                continue
            if terminal == self.newline:
                is_good = self.is_free_line(self.machine.start(lexer, boundary))
            else:
                is_good = any(self._goes_on(terminal, b) for b in self.ways(lexer, boundary, terminal))
            if not is_good:
                return False
        return True

    def _goes_on(self, terminal: int, behind: Boundary) -> bool:
        """Can the parser be satisfied behind a terminal that was read where there was no separator?"""
        if terminal in self._absorbing:
            return all(self.is_good(k, behind, terminal) for k in self._behind[terminal])
        return all(self._is_separable(k, behind) for k in self._behind[terminal])

    def _is_separable(self, lexer: int, boundary: Boundary) -> bool:
        """Can the separator be read from this boundary, and then all that it separates?"""
        return any(
            (lexer, behind) in self._free or self._extends(lexer, behind) for behind in self.gap(lexer, boundary)
        )

    def gap(self, lexer: int, boundary: Boundary) -> list[Boundary]:
        """The boundaries behind the separator."""
        read = self.read(lexer, boundary, self.separator)
        return [b for t, b in read if t == IGNORED and self.machine.dfa.hold_at_end(b.obligations)]

    def _extends(self, lexer: int, boundary: Boundary) -> bool:
        """May a boundary behind the separator, where other things must hold than at those known, be one of them?"""
        if (lexer, boundary) in self._unfree:
            return False
        found = {(lexer, boundary)}
        todo = [(lexer, boundary)]
        while todo:
            if len(found) > _MOST_BOUNDARIES or not self._all_separated(*todo.pop(), found, todo):
                self._unfree.add((lexer, boundary))
                return False
        self._free |= found
        return True

    def _all_separated(
        self, lexer: int, boundary: Boundary, found: set[tuple[int, Boundary]], todo: list[tuple[int, Boundary]]
    ) -> bool:
        """Can each terminal be read from a boundary, and the separator behind it?  What lies behind that is added."""
        for terminal in self.expected(lexer):
            if terminal == self.newline:
                if not self.is_free_line(self.machine.start(lexer, boundary)):
                    return False
                continue
            behind = self._readable(lexer, boundary, terminal)
            if behind is None:
                return False
            for following in self._behind[terminal]:
                gap = [(following, b) for b in self.gap(following, behind)]
                if any(one in self._free or one in found for one in gap):
                    continue
                if gap:
                    found.add(gap[0])
                    todo.append(gap[0])
                elif not self._good.get((following, behind, terminal in self._absorbing)):
                    return False
        return True

    # -- lines ------------------------------------------------------------------------------------------------------

    def _lines_are_free(self) -> bool:
        """Can a newline of the indenter end in whatever column is wanted, whatever was read of it?"""
        return all(
            self.is_free_line(self.machine.start(lexer, boundary))
            for lexer, boundary in sorted(self._free, key=repr)
            if self.newline in self.expected(lexer)
        )

    def is_free_line(self, lexeme: Lexeme) -> bool:
        """The same for one lexeme: each beginning must lead to a line break with free columns behind it."""
        known = lexeme in self._free_lines
        if not known and lexeme not in self._unfree_lines:
            known = self._is_free_line(lexeme)
            if not known:
                self._unfree_lines.add(lexeme)
        return known

    def _is_free_line(self, start: Lexeme) -> bool:
        before: dict[Lexeme, list[Lexeme]] = {start: []}
        free: dict[Lexeme, None] = {}
        todo = [start]
        while todo:
            lexeme = todo.pop()
            if lexeme in self._free_lines or self._breaks_freely(lexeme):
                free[lexeme] = None
            if lexeme in self._free_lines:
                continue
            for byte in self._letters(lexeme):
                longer, ends = self.machine.step(lexeme, byte)
                lines = [one for one in longer if self.newline in self.machine.dfa.terminals_of(one.state)]
                if not lines and any(terminal == self.newline for terminal, _ in ends):
                    return False  # here it ends for good, in whatever column
                for one in lines:
                    if one not in before:
                        todo.append(one)
                    before.setdefault(one, []).append(lexeme)
            if len(before) > _MOST_LEXEMES:
                return False
        todo = list(free)
        while todo:
            for lexeme in before[todo.pop()]:
                if lexeme not in free:
                    free[lexeme] = None
                    todo.append(lexeme)
        if len(free) < len(before):
            return False
        self._free_lines.update(free)
        return True

    def _letters(self, lexeme: Lexeme) -> list[int]:
        """A byte of each kind that a lexeme tells apart, and those that make lines."""
        dfa = self.machine.dfa
        states = [lexeme.state, *lexeme.obligations, *(state for _, state in lexeme.keywords)]
        *alike, _ = dfa.alike(states)
        return [*(dfa.byte_of[classes[0]] for classes in alike), 0x0A, 0x20, 0x09]

    def _breaks_freely(self, lexeme: Lexeme) -> bool:
        """Can a line break follow, and any number of spaces behind it (or of tabs, if no space can)?"""
        lines = self._lines(lexeme, 0x0A)
        spaces = [after for line in lines for after in self._lines(line, 0x20)]
        tabs = [after for line in lines for after in self._lines(line, 0x09)]
        if spaces or any(self.machine.step(after, 0x20)[0] for after in (*lines, *tabs)):
            return any(one in self._lines(one, 0x20) for one in spaces)
        return any(one in self._lines(one, 0x09) for one in tabs)

    def _lines(self, lexeme: Lexeme, byte: int) -> tuple[Lexeme, ...]:
        """The longer lexemes after a byte, if the newline may also end there."""
        longer, ends = self.machine.step(lexeme, byte)
        return longer if any(t == self.newline and self.is_good_line(b) for t, b in ends) else ()

    def is_good_line(self, boundary: Boundary) -> bool:
        """Can the parser be satisfied behind a newline of the indenter, whether it counts or not?

        Other boundaries may be asked of, and these again of this one. It is taken to be good until it is refuted;
        then what was found out meanwhile is forgotten, but for what was refuted as well.
        """
        known = self._good_lines.get(boundary)
        if known is None:
            free = set(self._free)
            self._good_lines[boundary] = True
            self._assumed.append(boundary)
            known = all(self.is_good(k, boundary, self.newline) for k in sorted(self._behind_lines))
            self._assumed.pop()
            if not known:
                self._free = free
                self._free_lines.clear()
                self._good = {key: good for key, good in self._good.items() if not good}
                self._good_lines = {b: good for b, good in self._good_lines.items() if not good or b in self._assumed}
                self._good_lines[boundary] = False
        return known
