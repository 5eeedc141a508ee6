"""Which worlds can still become a text of the language: lexer, obligations and parser together.

A world and what may follow it are a pushdown system: the stack is the parser's, the finite control is what waits to
be read, between two lexemes a boundary, behind a lexeme its terminal. A *summary* of (state on top, control) says how
that state may come to be popped: by a reduction to some nonterminal that pops so many more states below, with a
control behind it. Summaries are a least fixpoint, found on demand; from them, a stack is followed down to its root.

Behind a newline that counts, an indenter may put an INDENT or some DEDENTs; here any of these may come, as if the
columns of lines to come could be chosen freely, and within brackets newlines may be dropped anywhere: what is dead is
dead, what is live `grammar.completions` confirms. The column of the line that is being read is followed exactly.

Source: T. Reps, S. Schwoon, S. Jha, D. Melski, *Weighted pushdown systems*, 2005, section 2 (saturation).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.loading import END
from outlines_core.grammar.stacks import Stacks
from outlines_core.grammar.worlds import IGNORED, Boundary, LexedMachine, World

__all__ = ["Liveness"]

_ACCEPT: Final = -1
_MOST_SUMMARIES: Final = 250_000  # about 2 KB each
_MOST_STEPS: Final = 1_000_000  # for one question
# what a control waits for: a lexeme, one behind a newline, one behind a DEDENT, the end, a terminal
_LEXEME, _BEHIND_NEWLINE, _BEHIND_DEDENT, _END, _TERMINAL = range(5)


class _Control(NamedTuple):
    """`kind` and `terminal` say what comes next, `then` what comes behind that terminal and the `rest`.

    `state` is that of a postlex, behind all this.
    """

    kind: int
    boundary: Boundary
    terminal: int = 0
    then: int = _LEXEME
    rest: tuple[int, ...] = ()
    state: int = 0

    def behind(self) -> _Control:
        """What comes next when the terminal was taken."""
        if self.rest:
            return self._replace(terminal=self.rest[0], rest=self.rest[1:])
        return _Control(self.then, self.boundary, state=self.state)


class _Summary(NamedTuple):
    """A reduction to `nonterminal` pops the state, and `more` states below it; _ACCEPT: the text ends."""

    nonterminal: int
    more: int
    control: _Control


_Place = tuple[int, _Control]


class Liveness:
    """Answers `is_live` for worlds of a machine."""

    def __init__(self, machine: LexedMachine, stacks: Stacks) -> None:
        self.machine, self.stacks, self.tables = machine, stacks, stacks.tables
        self._summaries: dict[_Place, set[_Summary]] = {}
        self._users: dict[_Place, dict[tuple[int, _Place], None]] = {}
        self._todo: list[Any] = []
        self._n = 0
        self._live: dict[World, bool] = {}

    def is_live(self, world: World) -> bool:
        """Does some text complete it?"""
        known = self._live.get(world)
        if known is None:
            known = self._live[world] = self._is_live(world)
        return known

    def _is_live(self, world: World) -> bool:
        state = world.indents if isinstance(world.indents, int) else 0
        if world.boundary is not None:
            return self._stack_live(world.stack, _Control(_LEXEME, world.boundary, state=state))
        if self.machine.indentation is not None:
            return self._is_live_in_column(world)
        for terminal, boundary in self.machine.endings(self.stacks.lexer(world.stack), world.lexeme):
            control = self._read(terminal, boundary, state)
            if control is not None and self._stack_live(world.stack, control):
                return True
        return False

    def _is_live_in_column(self, world: World) -> bool:
        """The same where the column counts: all of a lexeme's endings, columns past the open block being alike."""
        machine = self.machine
        indentation, lexer = machine.indentation, self.stacks.lexer(world.stack)
        assert indentation is not None
        assert not isinstance(world.indents, int)
        far = world.indents.columns[-1] + 1
        first = (world.lexeme, min(world.column, far))
        seen = {first}
        queue = deque([first])
        while queue:
            lexeme, column = queue.popleft()
            for byte in (*machine.dfa.byte_of, 0x0A, 0x20, 0x09):
                longer, ends = machine.step(lexeme, byte)
                if not longer and not ends:
                    continue
                after = min(indentation.column(column, byte), far)
                for terminal, boundary in ends:
                    following = machine.after(world, machine.resolve(lexer, terminal), after)
                    if following is not None and self._stack_live(following[0], _Control(_LEXEME, boundary)):
                        return True
                for one in longer:
                    if (one, after) not in seen:
                        seen.add((one, after))
                        queue.append((one, after))
        return False

    # -- summaries --------------------------------------------------------------------------------------------------

    def _summary(self, place: _Place) -> set[_Summary]:
        known = self._summaries.get(place)
        if known is None:
            known = self._summaries[place] = set()
            self._users[place] = {}
            self._todo.append((place,))
        return known

    def _solve(self) -> None:
        steps = 0
        while self._todo:
            job = self._todo.pop()
            steps += 1
            if steps > _MOST_STEPS:
                raise LimitExceededError("the grammar's liveness needs too many steps", given=steps, limit=_MOST_STEPS)
            if len(job) == 1:
                self._expand(job[0])
            else:
                self._flow(*job)

    def _add(self, place: _Place, summary: _Summary) -> None:
        mine = self._summaries[place]
        if summary not in mine:
            self._n += 1
            if self._n > _MOST_SUMMARIES:
                raise LimitExceededError(
                    "the grammar's liveness needs too many summaries", given=self._n, limit=_MOST_SUMMARIES
                )
            mine.add(summary)
            self._todo.extend((user, summary) for user in self._users[place])

    def _use(self, place: _Place, above: int, owner: _Place) -> None:
        """What is found for `place` counts for `owner`: itself, or (`above` a state of it) what is above that state."""
        self._summary(place)
        user = (above, owner)
        if user not in self._users[place]:
            self._users[place][user] = None
            self._todo.extend((user, summary) for summary in list(self._summaries[place]))

    def _flow(self, user: tuple[int, _Place], summary: _Summary) -> None:
        above, owner = user
        if above < 0 or summary.nonterminal == _ACCEPT:
            self._add(owner, summary)
        elif summary.more > 0:
            self._add(owner, summary._replace(more=summary.more - 1))
        else:
            self._reduce(above, summary.nonterminal, summary.control, owner)

    def _reduce(self, state: int, nonterminal: int, control: _Control, owner: _Place) -> None:
        """Something above `state` was reduced to a nonterminal."""
        tables = self.tables
        target = tables.gotos[state].get(nonterminal)
        if target is None:
            return
        if control.terminal == END and target == tables.end:
            self._add(owner, _Summary(_ACCEPT, 0, control))
            return
        self._use((target, control), state, owner)

    def _read(self, terminal: int, behind: Boundary, state: int) -> _Control | None:
        """What a lexeme that was read is to the parser; None: a postlex refuses it."""
        postlex = self.machine.postlex
        if terminal == IGNORED:
            return _Control(_LEXEME, behind, state=state)
        if postlex is None:
            return _Control(_TERMINAL, behind, terminal)
        found = postlex.step(state, terminal)
        if found is None:
            return None
        following, given = found
        if not given:
            return _Control(_LEXEME, behind, state=following)
        return _Control(_TERMINAL, behind, given[0], rest=given[1:], state=following)

    def _options(self, state: int, control: _Control) -> list[_Control]:
        """What may come next, for controls that do not wait for a terminal."""
        machine, boundary = self.machine, control.boundary
        indentation = machine.indentation
        options: list[_Control] = []
        if control.kind == _END and machine.postlex is not None:
            last = machine.postlex.at_end(control.state)
            return [] if last is None else [_Control(_TERMINAL, boundary, last[0], rest=last[1:])]
        if control.kind == _END:
            options.append(_Control(_TERMINAL, boundary, END))
            if indentation is not None:
                options.append(_Control(_TERMINAL, boundary, indentation.dedent, _END))
            return options
        if control.kind != _LEXEME:
            assert indentation is not None
            options.append(_Control(_LEXEME, boundary))
            options.append(_Control(_TERMINAL, boundary, indentation.dedent, _BEHIND_DEDENT))
            if control.kind == _BEHIND_NEWLINE:
                options.append(_Control(_TERMINAL, boundary, indentation.indent))
            return options
        lexer = self.tables.lexer[state]
        for terminal, behind in machine.endings(lexer, machine.start(lexer, boundary)):
            if indentation is not None and terminal == indentation.newline:
                options.append(_Control(_TERMINAL, behind, terminal, _BEHIND_NEWLINE))
                options.append(_Control(_LEXEME, behind))  # within brackets it does not count
            else:
                option = self._read(terminal, behind, control.state)
                options += [] if option is None else [option]
        if machine.may_end(boundary):
            options.append(_Control(_END, boundary, state=control.state))
        return options

    def _expand(self, place: _Place) -> None:
        state, control = place
        machine = self.machine
        if control.kind != _TERMINAL:
            for option in self._options(state, control):
                self._use((state, option), -1, place)
            return
        action = self.tables.actions[state].get(control.terminal)
        if action is None:
            return
        if action >= 0:
            self._use((action, control.behind()), state, place)
            return
        rule = machine.grammar.rules[-1 - action]
        if rule.symbols:
            self._add(place, _Summary(rule.origin, len(rule.symbols) - 1, control))
        else:
            self._reduce(state, rule.origin, control, place)

    # -- stacks -----------------------------------------------------------------------------------------------------

    def _stack_live(self, stack: int, control: _Control) -> bool:
        """Does some text follow, from this stack and control?"""
        items = self.stacks.items
        seen = set()
        todo = [(stack, control)]
        while todo:
            at = todo.pop()
            if at in seen:
                continue
            seen.add(at)
            state, below = items[at[0]]
            found = self._summary((state, at[1]))
            self._solve()
            for nonterminal, more, behind in found:
                if nonterminal == _ACCEPT:
                    return True
                under = below
                for _ in range(more):
                    under = items[under][1]
                target = self.tables.gotos[items[under][0]].get(nonterminal)
                if target is None:
                    continue
                if behind.terminal == END and behind.kind == _TERMINAL and target == self.tables.end:
                    return True
                todo.append((self.stacks.push(under, target), behind))
        return False
