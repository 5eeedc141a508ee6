"""The recogniser of LALR grammars, exact for all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outlines_core.grammar.liveness import Liveness
from outlines_core.grammar.worlds import LalrMachine, World

__all__ = ["LalrRecogniser"]


class LalrRecogniser:
    """A `Recogniser` whose configurations are sets of live worlds."""

    def __init__(self, machine: LalrMachine) -> None:
        self.machine = machine
        self._liveness = Liveness(machine)
        self.initial = self._live(machine.first)

    def _live(self, worlds: frozenset[World]) -> frozenset[World] | None:
        live = frozenset(world for world in worlds if self._liveness.is_live(world))
        return live or None

    def after(self, configuration: frozenset[World], byte: int) -> frozenset[World] | None:
        return self._live(self.machine.step_worlds(configuration, byte))

    def accepts(self, configuration: frozenset[World]) -> bool:
        return self.machine.accepts(configuration)

    def byte_class(self) -> NDArray[np.uint8]:
        """Bytes of a class are never told apart."""
        classes = [(klass, -1) for klass in self.machine.dfa.class_of]
        if self.machine.indentation is not None:
            for byte in (0x09, 0x0A, 0x20):
                classes[byte] = (classes[byte][0], byte)
        numbers: dict[tuple[int, int], int] = {}
        return np.array([numbers.setdefault(key, len(numbers)) for key in classes], dtype=np.uint8)
