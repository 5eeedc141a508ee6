"""Punycode (RFC 3492) as far as it takes to tell whether a label in "xn--" can be completed.

`Deltas` is the decoder as a value, one digit at a time: what Python's codec decodes as a whole must be looked at in the
middle here. `letters_needed` and `fillings` take what was read as the ASCII part of a label and insert letters.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from outlines_core.json_schema.idna_rules import RTL, Traits, is_allowed

__all__ = ["DIGITS", "Deltas", "deltas_of", "fillings", "letters_needed"]

DIGITS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_LAST: Final = 0x3FFFF  # no allowed character is beyond


class Deltas(NamedTuple):
    """The decoder of Punycode between two digits (RFC 3492, 6.2, whose names these are)."""

    text: str
    n: int = 0x80
    i: int = 0
    bias: int = 72
    old: int = 0
    weight: int = 1
    k: int = 36

    @property
    def is_complete(self) -> bool:
        """Does a character end here?"""
        return self.weight == 1

    @property
    def least_digits(self) -> int:
        """How many digits it takes at least to finish this character and put others around a hyphen at an end."""
        if not self.is_complete:
            return 1
        return (self.text[0] == "-") + (self.text[-1] == "-")

    def read(self, digit: int) -> Deltas | None:
        """The decoder behind one more digit; None: the character is not allowed, whatever follows."""
        i, size = self.i + digit * self.weight, len(self.text) + 1
        n = self.n + i // size
        if n > _LAST:
            return None
        threshold = max(1, min(26, self.k - self.bias))
        if digit >= threshold:
            return self._replace(i=i, weight=self.weight * (36 - threshold), k=self.k + 36)
        if not is_allowed(chr(n)):
            return None
        delta = (i - self.old) // (2 if self.old else 700)
        delta += delta // size
        steps = 0
        while delta > 455:
            delta //= 35
            steps += 36
        at = i % size
        text = self.text[:at] + chr(n) + self.text[at:]
        return Deltas(text, n, at + 1, steps + 36 * delta // (delta + 38), at + 1)


def deltas_of(body: str) -> Deltas | None:
    """The decoder behind `body`, if its last hyphen ends the ASCII part; None: it stands for no allowed characters."""
    end = body.rfind("-")
    if end == 0:
        return None
    deltas: Deltas | None = Deltas(body[: max(end, 0)])
    for char in body[end + 1 :]:
        deltas = deltas.read(DIGITS.index(char)) if deltas else None
    return deltas


def _spots(basic: str, n_letters: int) -> Iterator[tuple[int, ...]]:
    """Where letters may be inserted so that it matters."""
    return itertools.combinations(dict.fromkeys((0, 1, 2, 3, len(basic))), n_letters)


def _filled(basic: str, spots: tuple[int, ...]) -> str:
    """`basic` with a letter at each of these places."""
    chars = list(basic)
    for place, spot in enumerate(reversed(spots)):
        chars.insert(spot, "\u00e0" if place else "\u00df")
    return "".join(chars)


def letters_needed(basic: str, seen: Traits) -> int | None:
    """The least number of letters that make a U-label of `basic`; None: nothing does."""
    for n_letters in (1, 2, 3):
        for spots in _spots(basic, n_letters):
            label = _filled(basic, spots)
            if label[0] == "-" or label[-1] == "-" or label[2:4] == "--" or (seen & RTL and label[0].isdigit()):
                continue
            return n_letters
    return None


def fillings(basic: str, n_letters: int) -> Iterator[str]:
    """Endings of a label in "xn--" that take `basic` as its ASCII part and insert letters where it needs them."""
    for spots in _spots(basic, n_letters):
        encoded = _filled(basic, spots).encode("punycode").decode()
        if encoded.startswith(basic):
            yield encoded[len(basic) :]
