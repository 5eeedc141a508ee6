"""What keywords hold: exact numbers, constants, parsed patterns.

Numbers are never compared as floats. A Python float stands for the decimal number that `repr` prints, which is what
its author wrote. Before a number is taken apart its size is checked: ``1e999999999`` is twelve characters of JSON and
would be a gigabyte as an integer.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.nodes import Json, Pattern
from outlines_core.limits import Limits
from outlines_core.regex.parser import parse
from outlines_core.regex.simplify import search

__all__ = ["MAX_EXPONENT", "ValueFault", "describe", "normalise", "number", "parse_pattern"]

MAX_EXPONENT: Final = 308
_MAX_DEPTH: Final = 400  # of arrays and objects in a constant: comparing and hashing them recurses
_SMALL: Final = 10**15
_CACHED_PATTERN: Final = 2_000  # characters: longer ones are not kept


class ValueFault(Exception):  # noqa: N818  # never leaves the reader, which adds the place
    """Not a JSON value.  `steps` lead from the whole value to the fault."""

    def __init__(self, message: str, steps: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.steps = steps


def describe(value: Any) -> str:
    """A short text for messages: JSON where it is JSON, the Python type where it is not.

    >>> describe(["a"]), describe("3"), describe(None), describe((1,))
    ('an array', '"3"', 'null', 'a Python tuple')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{value if len(value) <= 40 else value[:37] + "..."}"'
    if isinstance(value, int) and value.bit_length() > 400:
        return "a very long integer"
    if isinstance(value, (int, float, Decimal)):
        return str(value)
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return f"a Python {type(value).__name__}"


def number(value: Any, limits: Limits) -> int | Fraction | None:
    """The exact value of a number of a schema; None: it is no finite number.

    Raises:
        LimitExceededError: more significant digits than `limits.number_digits`, or a magnitude beyond 1e308 or below
            1e-308.
    """
    if value.__class__ is int:
        if -_SMALL < value < _SMALL:
            return value
    elif isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    if isinstance(value, int):
        if value.bit_length() > 3400:  # beyond 1e1000; `str` of an integer may be refused or slow
            raise LimitExceededError(
                f"a number with about {value.bit_length() * 3 // 10} digits",
                given=value.bit_length() * 3 // 10,
                limit=308,
            )
        text = str(int(value)).lstrip("-")
        digits, exponent = len(text.rstrip("0")), len(text) - 1
    else:
        exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
        if not exact.is_finite():
            return None
        if not exact:
            return 0
        value = exact
        digits, exponent = len("".join(map(str, exact.as_tuple().digits)).strip("0")), exact.adjusted()
    if digits > limits.number_digits:
        raise LimitExceededError(
            f"a number with {digits} digits (at most {limits.number_digits} are supported)",
            given=digits,
            limit=limits.number_digits,
        )
    if abs(exponent) > MAX_EXPONENT:
        raise LimitExceededError(
            f"a number with exponent {exponent} (at most {MAX_EXPONENT} is supported)",
            given=abs(exponent),
            limit=MAX_EXPONENT,
        )
    if isinstance(value, int):
        return int(value)
    fraction = Fraction(value)
    return fraction.numerator if fraction.denominator == 1 else fraction


def normalise(value: Any, limits: Limits) -> Json:
    """A constant with its numbers exact; integral ones are ints.

    Raises:
        ValueFault: something that is not JSON.
        LimitExceededError: nested too deep, or a number that is too long.
    """
    if value is None or value.__class__ is str or value.__class__ is bool:
        return value
    holder: list[Json] = [None]
    # Each entry: where to put the value, the value, and the steps to it as a linked list (None: the whole value).
    todo: list[tuple[Any, Any, Any, Any, int]] = [(holder, 0, value, None, 0)]
    while todo:
        target, key, value, trail, depth = todo.pop()
        if value is None or isinstance(value, (str, bool)):
            target[key] = value
        elif isinstance(value, (dict, list)):
            if depth == _MAX_DEPTH:
                raise LimitExceededError(
                    f"a constant nested more than {_MAX_DEPTH} deep", given=depth + 1, limit=_MAX_DEPTH
                )
            if isinstance(value, dict):
                copy: Any = dict.fromkeys(value)
                for name in copy:
                    if not isinstance(name, str):
                        raise ValueFault(f"an object's key must be a string, not {describe(name)}", _steps(trail))
                todo.extend((copy, name, item, (trail, name), depth + 1) for name, item in value.items())
            else:
                copy = [None] * len(value)
                todo.extend((copy, i, item, (trail, i), depth + 1) for i, item in enumerate(value))
            target[key] = copy
        else:
            exact = number(value, limits)
            if exact is None:
                raise ValueFault(f"{describe(value)} is not a JSON value", _steps(trail))
            target[key] = exact
    return holder[0]


def _steps(trail: Any) -> tuple[str | int, ...]:
    steps: list[str | int] = []
    while trail is not None:
        trail, step = trail
        steps.append(step)
    return tuple(reversed(steps))


def parse_pattern(source: str, limits: Limits) -> Pattern:
    """The strings that contain a match of an ECMAScript regex."""
    return _cached(source, limits) if len(source) <= _CACHED_PATTERN else _parsed(source, limits)


def _parsed(source: str, limits: Limits) -> Pattern:
    return Pattern(source, search(parse(source, dialect="ecma", limits=limits)))


_cached = lru_cache(maxsize=2048)(_parsed)
