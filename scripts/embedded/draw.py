"""Choices from a seed, and the made-up names that the texts are full of.

Everything is drawn with `random.Random.random` alone, the one method whose sequence Python keeps between versions.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from scripts.embedded import words

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Draw", "Names"]

T = TypeVar("T")


class Draw:
    """A stream of choices."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self._random() * (high - low + 1))

    def one(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    def weighted(self, options: Sequence[tuple[float, T]]) -> T:
        at = self._random() * sum(weight for weight, _ in options)
        for weight, option in options:
            at -= weight
            if at < 0:
                return option
        return options[-1][1]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        keyed = [(self._random(), i) for i in range(len(items))]
        return [items[i] for _, i in sorted(keyed)]

    def chance(self, probability: float) -> bool:
        return self._random() < probability


class Names:
    """Names of people, places and things: some exist, most are made of random syllables, so that only copying helps.

    Args:
        draw: where the choices come from.
        held_out: take those that exist from the lists that training never sees, and no made-up ones.
        real: the share of names that exist.
    """

    def __init__(self, draw: Draw, *, held_out: bool = False, real: float = 0.35) -> None:
        self.draw = draw
        self.real = 1.0 if held_out else real
        self.first, self.last, self.places, self.things = (
            words.split(entry)[held_out] for entry in (words.FIRST, words.LAST, words.PLACES, words.THINGS)
        )

    def word(self, syllables: int) -> str:
        """A made-up word, in lower case."""
        draw = self.draw
        parts = []
        for i in range(syllables):
            onset = draw.one(words.ONSETS) if i or draw.chance(0.85) else ""
            coda = draw.one(words.CODAS) if draw.chance(0.6 if i == syllables - 1 else 0.25) else ""
            parts.append(onset + draw.one(words.VOWELS) + coda)
        return "".join(parts)

    def _name(self, real: Sequence[str]) -> str:
        if self.draw.chance(self.real):
            return self.draw.one(real)
        return self.word(self.draw.weighted(((1, 1), (5, 2), (3, 3)))).capitalize()

    def given(self) -> str:
        name = self._name(self.first)
        return f"{name}-{self._name(self.first)}" if self.draw.chance(0.02) else name

    def family(self) -> str:
        name = self._name(self.last)
        return self.draw.weighted(
            (
                (90, name),
                (3, f"{name}-{self._name(self.last)}"),
                (2, f"O'{name}"),
                (2, f"de {name}"),
                (3, f"van {name}"),
            )
        )

    def person(self) -> str:
        shape = self.draw.number(1, 20)
        if shape == 1:
            return self.given()
        middle = f"{self.given()} " if shape == 2 else f"{self.given()[0]}. " if shape == 3 else ""
        return f"{self.given()} {middle}{self.family()}"

    def place(self) -> str:
        place = self._name(self.places)
        return self.draw.weighted(
            (
                (90, place),
                (4, f"{self.draw.one(('New', 'San', 'Port', 'Saint', 'North'))} {place}"),
                (3, f"{place}-{self._name(self.places)}"),
                (3, f"{place} {self._name(self.places)}"),
            )
        )

    def thing(self) -> str:
        """What is ordered: `blue lamps`, `tea`, `soltar brens`."""
        draw = self.draw
        noun = draw.one(self.things) if draw.chance(max(self.real, 0.6)) else self.word(draw.number(1, 3))
        return f"{draw.one(words.QUALITIES)} {noun}" if draw.chance(0.4) else noun

    def subject(self) -> str:
        """What a ticket is about: `printer on fire`."""
        draw = self.draw
        thing = draw.one(words.PARTS) if draw.chance(0.6) else self.word(draw.number(1, 3))
        return draw.one((f"{thing} {draw.one(words.TROUBLES)}", f"no {thing}", f"{draw.one(words.WISHES)} {thing}"))
