"""All terminals that a lexeme can become, behind which the parser can be satisfied.

What follows a row is searched. There are short cuts for most: one good text of each terminal is enough where there are
only terminals to be told apart, and what a comment may be does not depend on the lexer that goes on behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlines_core.grammar.sparing import Sparing
from outlines_core.grammar.worlds import IGNORED, VARIANT, Boundary, Lexeme
from outlines_core.kernels import grammar as kernel

if TYPE_CHECKING:
    from outlines_core.grammar.lexical import Lexical

__all__ = ["Endings", "Ends"]

_MOST_SEARCHED: Final = 20_000
Ends = tuple[tuple[int, Boundary], ...]


class Endings:
    """Finds what rows can become, and enters it.

    Args:
        lexical: the rows.
    """

    def __init__(self, lexical: Lexical) -> None:
        self._lexical, self._machine, self._separation = lexical, lexical.machine, lexical.separation
        self._newline = lexical.separation.newline
        self._sparing = Sparing(lexical.separation)
        self._possibles: dict[int, frozenset[int]] = {}
        self._reached_from: dict[Lexeme, tuple[tuple[Lexeme | None, Ends], ...] | None] = {}

    def _is_known(self, row: int) -> bool:
        return bool(self._lexical.rows[row, kernel.ENDINGS])

    def _terminals(self, row: int) -> list[int]:
        """What the row's lexeme may be if it ends here and the parser can be satisfied then."""
        return self._terminals_of(*self._lexical.content(row))

    def _terminals_of(self, lexer: int, lexeme: Lexeme | None, ends: Ends) -> list[int]:
        separation = self._separation
        found = []
        for terminal, boundary in ends:
            behind = {(lexer, terminal)} if terminal == IGNORED else self._lexical.behind(terminal)
            may_be_line = self._newline >= 0 and any(t == self._newline for _, t in behind)
            if may_be_line and not (lexeme is not None and separation.is_free_line(lexeme)):
                found.append(kernel.ENTANGLED)  # the kernel takes it that columns can be chosen
            elif all(
                separation.is_good(k, boundary, t) or self._sparing.is_good(k, boundary, t) for k, t in behind
            ) and (not may_be_line or separation.is_good_line(boundary)):
                if terminal == IGNORED:
                    return [kernel.ANY]
                found.append(terminal)
            elif terminal == self._newline:
                continue  # it may become longer, and is good then
            elif (
                terminal == IGNORED
                or all(separation.is_blocked(k, boundary) for k, _ in behind)
                or self._sparing.is_over(boundary)
            ):
                if self._machine.dfa.hold_at_end(boundary.obligations):  # what else is behind it belongs to the row
                    found.append(kernel.AT_END if terminal == IGNORED else kernel.AT_END + 1 + terminal)
            else:
                found.append(kernel.ENTANGLED)
        return found

    def find(self, row: int) -> None:
        """Enter all terminals that the row's lexeme can become.

        By strongly connected components (R. Tarjan, *Depth-first search and linear graph algorithms*, 1972).
        """
        if self._find_sure(row):
            return
        lexical = self._lexical
        number: dict[int, int] = {}
        low: dict[int, int] = {}
        waiting: list[int] = []
        found: dict[int, dict[int, None]] = {}
        calls: list[tuple[int, list[int]]] = []

        def enter(at: int) -> None:
            number[at] = low[at] = len(number)
            waiting.append(at)
            found[at] = dict.fromkeys(self._terminals(at))
            calls.append((at, self._lexical.following(at)))

        enter(row)
        while calls:
            at, following = calls[-1]
            if following:
                target = following.pop()
                if target not in number and not self._is_known(target):
                    self._find_sure(target)
                if self._is_known(target):
                    found[at].update(dict.fromkeys(lexical.endings(target)))
                elif target in number:
                    low[at] = min(low[at], number[target])
                elif len(number) > _MOST_SEARCHED:
                    found[at][kernel.ENTANGLED] = None
                else:
                    enter(target)
                continue
            calls.pop()
            if low[at] == number[at]:
                members = waiting[waiting.index(at) :]
                del waiting[-len(members) :]
                lexical.set_endings({t for member in members for t in found.pop(member)}, members)
                found[at] = dict.fromkeys(lexical.endings(at))
            if calls:
                above = calls[-1][0]
                low[above] = min(low[above], low[at])
                found[above].update(found.get(at, ()))

    def _find_sure(self, row: int) -> bool:
        """The same where a good text of each terminal is looked for, not all texts; False: they were not found.

        Once a terminal has one, nothing else that it may end in makes a difference.
        """
        lexeme = self._lexical.content(row)[1]
        wanted = set(self._possible(row))
        if IGNORED in wanted:
            return self._find_of_ignored(row)
        if self._newline in wanted or max(wanted, default=0) >= VARIANT or (lexeme is not None and lexeme.keywords):
            return False
        missing = set(wanted)
        before = {row: 0}
        rows = [row]
        n_tried = n_left = 0
        while True:
            for at in rows[n_tried:]:
                missing -= set(self._lexical.endings(at) or self._terminals(at))
                if not missing:
                    way = [row]
                    while len(wanted) == 1 and at:
                        way.append(at)
                        at = before[at]
                    self._lexical.set_endings(wanted, way)
                    return True
            n_tried = len(rows)
            if n_left == n_tried or n_tried > _MOST_SEARCHED:
                return False
            at = rows[n_left]
            n_left += 1
            for following in self._lexical.following(at):
                if following not in before and not self._possible(following).isdisjoint(missing):
                    before[following] = at
                    rows.append(following)

    def _find_of_ignored(self, row: int) -> bool:
        """The same for what may vanish, all of it; False: that is too much.

        The rows of a comment are others for each lexer that goes on behind it; what the comment may be is not.
        """
        lexer, lexeme, ends = self._lexical.content(row)
        found: dict[int, None] = {}
        seen: dict[tuple[Lexeme | None, Ends], None] = {(lexeme, ends): None}
        begun: set[Lexeme] = set()
        todo = [(lexeme, ends)]
        starts = [] if lexeme is None else [lexeme]
        while todo or starts:
            if starts:
                start = starts.pop()
                if start not in begun:
                    begun.add(start)
                    reached = self._reached(start)
                    if reached is None:
                        return False
                    todo += [one for one in reached if one not in seen]
                    seen.update(dict.fromkeys(reached))
                continue
            longer, ends = todo.pop()
            terminals = self._terminals_of(lexer, longer, ends)
            found.update(dict.fromkeys(terminals))
            if kernel.ANY in found:
                break
            starts += [self._machine.start(lexer, behind) for terminal, behind in ends if terminal == IGNORED]
        self._lexical.set_endings(set(found), [row])
        return True

    def _reached(self, lexeme: Lexeme) -> tuple[tuple[Lexeme | None, Ends], ...] | None:
        """The lexemes to which bytes lead from one, where they may also end: the content of rows; None: too many."""
        known = self._reached_from.get(lexeme, ())
        if known or lexeme in self._reached_from:
            return known
        machine = self._machine
        found: dict[tuple[Lexeme | None, Ends], None] = {}
        before: dict[Lexeme, list[Lexeme]] = {lexeme: []}
        todo = [lexeme]
        while todo and len(before) < _MOST_SEARCHED:
            at = todo.pop()
            *alike, _ = machine.dfa.alike([at.state, *at.obligations, *(state for _, state in at.keywords)])
            for classes in alike:
                longer, ends = machine.step(at, machine.dfa.byte_of[classes[0]])
                if ends:
                    found[longer[0] if longer else None, ends] = None
                for one in longer:
                    known = self._reached_from.get(one, ())
                    if known:
                        found.update(dict.fromkeys(known))
                    elif one not in before:
                        before[one] = []
                        todo.append(one)
                    if one in before:
                        before[one].append(at)
        if todo:
            self._reached_from[lexeme] = None
            return None
        every = tuple(found)
        todo = [lexeme]  # all that lead back reach the same
        while todo:
            at = todo.pop()
            if at not in self._reached_from:
                self._reached_from[at] = every
                todo += before[at]
        return every

    def _possible(self, row: int) -> frozenset[int]:
        """What the row's lexeme may become, as far as its threads tell: terminals, variants, IGNORED."""
        known = self._possibles.get(row)
        if known is None:
            _, lexeme, ends = self._lexical.content(row)
            found = {terminal for terminal, _ in ends}
            if lexeme is not None:
                terminals, ignored = self._machine.dfa.terminals_of(lexeme.state), self._machine.grammar.ignored
                found |= terminals - ignored
                if terminals & ignored:
                    found.add(IGNORED)
            known = self._possibles[row] = frozenset(found)
        return known
