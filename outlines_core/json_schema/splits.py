"""What a schema says about each type: formulas, one per JSON type.

Every JSON value has one type, and every keyword speaks about the values of one type. So a schema is five answers: which
of null, false and true it accepts, and a formula for numbers, strings, arrays and objects. `allOf`, `not`, `oneOf`,
`if` are then operations on formulas, carried out type by type.

Atoms (payloads of `Formulas.atom`), the second entry being what they speak of:

    ("int",)  ("range", low, low_open, high, high_open)  ("mul", divisor)  ("num", frozenset of values)
    ("re", source)  ("fmt", name, number of the part)  ("lazy", name)
    ("len", low, high)  ("str", frozenset of values)
    ("I", subs of the first items, sub of all others)     ("K", sub, low, high): so many items satisfy it
    ("C", low, high): number of items or properties       ("U", seen values): all items differ
    ("P", props): every member's value satisfies what its key asks for
    ("N", sub): every key satisfies it                     ("R", frozenset of keys): all of them are there

A *sub* is the id of a schema that is looked at only when a value for it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

from outlines_core.json_schema.formula import FALSE, TRUE, Formula, Formulas
from outlines_core.json_schema.nodes import Json, Pattern

__all__ = ["FALSE_SPLIT", "NOTHING", "TRUE_SPLIT", "Props", "Split", "Splits", "canonical", "plain"]

Split: TypeAlias = tuple[int, Formula, Formula, Formula, Formula]
"""Bits (1 null, 2 false, 4 true), and the formulas for numbers, strings, arrays, objects."""

TRUE_SPLIT: Final[Split] = (7, TRUE, TRUE, TRUE, TRUE)
FALSE_SPLIT: Final[Split] = (0, FALSE, FALSE, FALSE, FALSE)
NOTHING: Final = frozenset[str]()


@dataclass(frozen=True, slots=True, eq=False)
class Props:
    """What keys ask of values: `listed` and all matching `patterns`; for keys that neither names, `additional`.

    Compared by identity.  `ordered`: does the order of `listed` count (`properties`, not `const`)?
    """

    listed: dict[str, int]
    patterns: tuple[tuple[Pattern, int], ...]
    additional: int
    ordered: bool


class Splits:
    """Operations on splits."""

    def __init__(self, formulas: Formulas) -> None:
        self.formulas = formulas

    def all(self, parts: list[Split]) -> Split:
        if len(parts) == 1:
            return parts[0]
        bits = 7
        for p in parts:
            bits &= p[0]
        conjunction = self.formulas.all
        return (
            bits,
            conjunction([p[1] for p in parts]),
            conjunction([p[2] for p in parts]),
            conjunction([p[3] for p in parts]),
            conjunction([p[4] for p in parts]),
        )

    def complement(self, s: Split) -> Split:
        return (s[0] ^ 7, -s[1], -s[2], -s[3], -s[4])

    def any(self, parts: list[Split]) -> Split:
        return self.complement(self.all([self.complement(p) for p in parts])) if parts else FALSE_SPLIT

    def one(self, parts: list[Split]) -> Split:
        bits = 0
        for bit in (1, 2, 4):
            if sum(bool(p[0] & bit) for p in parts) == 1:
                bits |= bit
        one = self.formulas.one
        return (
            bits,
            one([p[1] for p in parts]),
            one([p[2] for p in parts]),
            one([p[3] for p in parts]),
            one([p[4] for p in parts]),
        )


def canonical(value: Json) -> Any:
    """A hashable twin of a JSON value, equal for equal values (1 and 1.0 are, 1 and true are not)."""
    match value:
        case None | bool():
            return ("c", value)
        case int() | Fraction():
            return ("n", Fraction(value))
        case str():
            return value
        case list():
            return ("a", tuple(map(canonical, value)))
        case dict():
            return ("o", frozenset((k, canonical(v)) for k, v in value.items()))
    raise TypeError(f"not a JSON value: {value!r}")


def plain(value: Any) -> Json:
    """The JSON value of a canonical one."""
    if isinstance(value, str):
        return value
    kind, content = value
    if kind == "a":
        return [plain(v) for v in content]
    if kind == "o":
        return {k: plain(v) for k, v in sorted(content, key=lambda member: str(member[0]))}
    return content
