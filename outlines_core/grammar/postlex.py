"""Machines between the lexer and the parser: `PostLex`, and what the recognisers make of one.

Lark's postlex objects are generators over tokens, about which nothing can be said in advance. Ours are finite machines
over the names of terminals: for each state and terminal a fixed sequence of terminals that the parser is given instead,
and the next state. That is all that exactness needs: which texts can still be completed is found for the machine's
states as for the parser's (`grammar.liveness`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Sequence
from typing import Any, Final, NamedTuple

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError
from outlines_core.grammar.loading import END, Terminal
from outlines_core.grammar.rows import Rows
from outlines_core.grammar.stacks import Stacks

__all__ = ["ForLark", "PostLex", "PostLexing"]

_MOST_STATES: Final = 2000


class PostLex(ABC):
    """A finite machine that changes what a lexer reads before a parser gets it.

    Subclasses are immutable and hashable (a frozen dataclass, say): equal objects mean the same. States are any
    hashable values; only finitely many can be reached.

    Attributes:
        initial: the state at the beginning of a text.
        always_accept: names of terminals that a contextual lexer looks for even where the parser does not take them.
    """

    initial: Hashable = None
    always_accept: Collection[str] = ()

    @abstractmethod
    def after(self, state: Any, terminal: str) -> tuple[Hashable, Sequence[str]] | None:
        """The state after a terminal, and what the parser is given for it; None: the text is refused.

        Asked of every terminal in every state, once; what is ignored in a text does not come here.
        """

    def at_end(self, state: Any) -> Sequence[str] | None:  # noqa: ARG002  # for subclasses
        """What the parser is given at the end of the text; None: it cannot end here."""
        return ()


class _Step(NamedTuple):
    """The next state and what the parser is given."""

    state: int
    terminals: tuple[int, ...]


class PostLexing:
    """A `PostLex` by numbers of states and terminals.

    Raises:
        ConstraintSyntaxError: it gives the parser a terminal that the grammar does not have.
        LimitExceededError: too many states.
    """

    initial = 0

    def __init__(self, postlex: PostLex, terminals: tuple[Terminal, ...]) -> None:
        number = {t.name: k for k, t in enumerate(terminals)}
        read = [k for k, t in enumerate(terminals) if t.regexp is not None or t.graph is not None]
        numbers: dict[Hashable, int] = {postlex.initial: 0}
        states: list[Hashable] = [postlex.initial]
        self._steps: list[dict[int, _Step]] = []
        self._ends: list[tuple[int, ...] | None] = []

        def of_names(names: Sequence[str]) -> tuple[int, ...]:
            for name in names:
                if name not in number:
                    kind = type(postlex).__name__
                    raise ConstraintSyntaxError(f"the grammar has no terminal {name}, which postlex {kind} names")
            return tuple(number[name] for name in names)

        for state in states:
            steps: dict[int, _Step] = {}
            for k in read:
                found = postlex.after(state, str(terminals[k].name))
                if found is None:
                    continue
                following, names = found
                if following not in numbers:
                    numbers[following] = len(states)
                    states.append(following)
                    if len(states) > _MOST_STATES:
                        raise LimitExceededError(
                            f"postlex {type(postlex).__name__} has too many states",
                            given=len(states),
                            limit=_MOST_STATES,
                        )
                steps[k] = _Step(numbers[following], of_names(names))
            self._steps.append(steps)
            last = postlex.at_end(state)
            self._ends.append(None if last is None else of_names(last))

    def step(self, state: int, terminal: int) -> tuple[int, tuple[int, ...]] | None:
        """The state after a terminal, and what the parser is given."""
        return self._steps[state].get(terminal)

    def at_end(self, state: int) -> tuple[int, ...] | None:
        """What the parser is given where the text ends, the end included."""
        last = self._ends[state]
        return None if last is None else (*last, END)

    def given(self) -> set[int]:
        """All that the parser is ever given."""
        found = {t for steps in self._steps for step in steps.values() for t in step.terminals}
        return found | {t for last in self._ends for t in last or ()}

    def after(self, stacks: Stacks | Rows, stack: int, state: int, terminal: int) -> tuple[int, int] | None:
        """Stack and state after a terminal; None if the parser or the machine refuses."""
        step = self._steps[state].get(terminal)
        if step is None:
            return None
        for one in step.terminals:
            following = stacks.after(stack, one)
            if following is None:
                return None
            stack = following
        return stack, step.state

    def ends(self, stacks: Stacks | Rows, stack: int, state: int) -> bool:
        """May the text end here?"""
        last = self.at_end(state)
        for one in last or ():
            following = stacks.after(stack, one)
            if following is None:
                return False
            stack = following
        return last is not None


class ForLark:
    """What Lark wants to see of a postlex while it loads a grammar."""

    def __init__(self, postlex: PostLex) -> None:
        self.always_accept = tuple(postlex.always_accept)

    def process(self, stream: Any) -> Any:
        """Lark asks for it; nothing is parsed."""
        return stream
