"""Completions of worlds, found by trying: where an indenter makes liveness more than a matter of the parser's stack.

`Liveness` takes it that columns can be chosen freely and brackets do not matter. What it calls dead is dead; what it
calls live is looked at here: from world to world, byte by byte, those first that are near, and near to the end as far
as open blocks, brackets and the depth of the stack tell. All worlds on the way to one that is accepted are live. If
nothing is left to be tried, all that was tried is dead.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from outlines_core.errors import LimitExceededError
from outlines_core.grammar.indentation import Indents
from outlines_core.grammar.stacks import EMPTY, Stacks
from outlines_core.grammar.worlds import LexedMachine, World

__all__ = ["Completions"]

_MOST_WORLDS: Final = 5_000


class Completions:
    """Answers for worlds of a machine whether some text completes them.

    Args:
        may_live: False for worlds that nothing completes, as far as that is easily known.
    """

    def __init__(self, machine: LexedMachine, stacks: Stacks, may_live: Callable[[World], bool]) -> None:
        self._machine, self._stacks, self._may_live = machine, stacks, may_live
        self._known: dict[World, bool] = {}
        self._depths: dict[int, int] = {EMPTY: 0}
        self._bytes = (*machine.dfa.byte_of, 0x0A, 0x20, 0x09)

    def is_live(self, world: World) -> bool:
        """Does some text complete it?

        Raises:
            LimitExceededError: too many worlds would have to be tried.
        """
        known = self._known.get(world)
        if known is not None:
            return known
        before: dict[World, World | None] = {world: None}
        if self._machine.accepts(frozenset((world,))):
            return self._found(world, before)
        heap = [(0, 0, 0, world)]
        while heap:
            _, _, n_bytes, at = heappop(heap)
            if len(before) > _MOST_WORLDS:
                raise LimitExceededError(
                    "whether blocks and brackets can be closed here takes too many tries",
                    given=len(before),
                    limit=_MOST_WORLDS,
                )
            for byte in self._bytes:
                for following in self._machine.step_worlds(frozenset((at,)), byte):
                    if following in before:
                        continue
                    known = self._known.get(following)
                    if known or (known is None and self._machine.accepts(frozenset((following,)))):
                        before[following] = at
                        return self._found(following, before)
                    if known is None and self._may_live(following):
                        before[following] = at
                        heappush(heap, (n_bytes + self._distance(following), len(before), n_bytes + 1, following))
        self._known.update(dict.fromkeys(before, False))
        return False

    def _found(self, world: World, before: dict[World, World | None]) -> bool:
        """All worlds on the way to a live one are live."""
        way: World | None = world
        while way is not None:
            self._known[way] = True
            way = before[way]
        return True

    def _distance(self, world: World) -> int:
        """A guess of how far from the end a world is."""
        assert isinstance(world.indents, Indents)
        return 4 * (self._depth(world.stack) + 2 * len(world.indents.columns) + 2 * world.indents.brackets)

    def _depth(self, stack: int) -> int:
        above = []
        while stack not in self._depths:
            above.append(stack)
            stack = self._stacks.items[stack][1]
        depth = self._depths[stack]
        for one in reversed(above):
            depth += 1
            self._depths[one] = depth
        return self._depths[above[0]] if above else depth
