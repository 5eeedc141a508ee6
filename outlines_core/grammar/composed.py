"""Recognisers made of others: several starts side by side, and values of another kind within a grammar.

A value (`Value`: JSON of some schema) stands in a grammar as a terminal whose text is a *code*, bytes that no text has.
A configuration is a set of worlds: the grammar's state alone, or its state behind the code and that of the value that
is being read in the code's place. Where the grammar can read the code a value may begin; where the value is whole the
grammar goes on, and so does the value if it can be longer (a number).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from outlines_core.grammar.configurations import ConfigurationDfa
from outlines_core.regex.dfa import DEAD

__all__ = ["VALUE_BYTE", "ComposedRecogniser", "UnionRecogniser", "Value", "World", "Worlds"]

VALUE_BYTE: Final = 0xC1
"""The codes of values begin with it; those of special tokens do not."""
World = tuple[int, int, int]
"""State of the grammar, number of the value or -1, state of the value."""
Worlds = tuple[World, ...]


class UnionRecogniser:
    """The texts of any of some DFAs.  A configuration is their states."""

    weight: int = 2

    def __init__(self, parts: Sequence[ConfigurationDfa]) -> None:
        self.parts = parts
        states = tuple(part.start for part in parts)
        self.initial = states if any(states) else None

    def after(self, configuration: tuple[int, ...], byte: int) -> tuple[int, ...] | None:
        states = tuple(
            part.step(state, byte) if state else DEAD for part, state in zip(self.parts, configuration, strict=True)
        )
        return states if any(states) else None

    def spelled(self, trie: Any) -> Callable[[tuple[int, ...]], bool] | None:
        """See `configurations.Recogniser`."""
        pairs = []
        for part in self.parts:
            spelled = part.recogniser.spelled(trie)
            if spelled is None:
                return None
            pairs.append((part, spelled))
        return lambda configuration: any(
            state != DEAD and is_live(part.configuration(state))
            for (part, is_live), state in zip(pairs, configuration, strict=True)
        )

    def accepts(self, configuration: tuple[int, ...]) -> bool:
        return any(bool(part.accept[state]) for part, state in zip(self.parts, configuration, strict=True))

    def byte_class(self) -> NDArray[np.uint8]:
        """Bytes that no part tells apart are one class."""
        numbers: dict[tuple[int, ...], int] = {}
        classes = zip(*(part.byte_class.tolist() for part in self.parts), strict=True)
        return np.array([numbers.setdefault(one, len(numbers)) for one in classes], dtype=np.uint8)


class Value(Protocol):
    """Texts that a grammar contains, byte by byte; states are ints, DEAD is 0."""

    initial: int

    def step(self, state: int, byte: int) -> int: ...
    def is_whole(self, state: int) -> bool: ...
    def goes_on(self, state: int) -> bool: ...


class ComposedRecogniser:
    """A grammar with values in it.

    Args:
        outer: the grammar's DFA.
        values: the values, none of which may be empty texts.
        codes: by value: what stands for it in the grammar's texts.
    """

    weight: int = 10

    def __init__(self, outer: ConfigurationDfa, values: Sequence[Value], codes: Sequence[bytes]) -> None:
        self.outer, self.values, self.codes = outer, values, codes
        self._behind: dict[int, tuple[World, ...]] = {}
        self.initial = self.closed([(outer.start, -1, DEAD)]) if outer.start != DEAD else None

    def closed(self, worlds: Iterable[World]) -> Worlds:
        """These worlds, and those that no byte leads to: values begin and end."""
        found: dict[World, None] = {}
        todo = list(worlds)
        while todo:
            world = todo.pop()
            if world in found:
                continue
            outer, which, state = world
            if which < 0:
                found[world] = None
                todo += self._values_at(outer)
                continue
            if self.values[which].is_whole(state):
                todo.append((outer, -1, DEAD))
            if self.values[which].goes_on(state):
                found[world] = None
        return tuple(sorted(found))

    def _values_at(self, outer: int) -> tuple[World, ...]:
        """The values that may begin in a state of the grammar."""
        known = self._behind.get(outer)
        if known is None:
            behind = [(self.outer.run(outer, code), k) for k, code in enumerate(self.codes)]
            known = tuple((state, k, self.values[k].initial) for state, k in behind if state != DEAD)
            self._behind[outer] = known
        return known

    def after(self, configuration: Worlds, byte: int) -> Worlds | None:
        if byte == VALUE_BYTE:
            return None
        worlds = []
        for outer, which, state in configuration:
            if which < 0:
                following = self.outer.step(outer, byte)
                if following != DEAD:
                    worlds.append((following, -1, DEAD))
            else:
                following = self.values[which].step(state, byte)
                if following != DEAD:
                    worlds.append((outer, which, following))
        return self.closed(worlds) or None

    def spelled(self, trie: Any) -> None:  # values have states of their own: it must be searched for
        """See `configurations.Recogniser`."""

    def accepts(self, configuration: Worlds) -> bool:
        return any(which < 0 and bool(self.outer.accept[outer]) for outer, which, _ in configuration)

    @staticmethod
    def byte_class() -> NDArray[np.uint8]:
        """Bytes of a class are never told apart."""
        return np.arange(256, dtype=np.uint8)
