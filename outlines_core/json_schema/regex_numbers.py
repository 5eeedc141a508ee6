"""Numbers under tests as patterns, for `regex_text`.

Where nothing but the type is asked, the pattern is the INTEGER or NUMBER of that module. Bounded numbers are written
without an exponent, so that comparing them is comparing digits; every value has such a spelling. The tests become
languages over decimal texts, and `regex.text.plain` intersects them.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.limits import Limits
from outlines_core.regex.ast import Alternation, Complement, Concat, Empty, Intersection, Node, Ranges
from outlines_core.regex.parse_python import parse_python
from outlines_core.regex.text import eliminate, plain, to_text

__all__ = ["decimal_text", "numbers_text"]

_FEW_REMAINDERS: Final = (3, 6, 9)
_INTEGERS: Final = "-?(?:0|[1-9][0-9]*)"
_FRACTION: Final = r"(?:\.[0-9]+)?"
_NOTHING: Final = "(?!)"


def decimal_text(value: int | Fraction) -> str:
    """The shortest JSON spelling without an exponent of a number that has a finite one.

    >>> decimal_text(Fraction(-1, 8)), decimal_text(300)
    ('-0.125', '300')
    """
    sign = "-" if value < 0 else ""
    value = abs(Fraction(value))
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    text = str(int(value * 10**digits)).rjust(digits + 1, "0")
    return sign + (f"{text[:-digits]}.{text[-digits:]}" if digits else text)


def _less_digits(digits: str) -> list[str]:
    """Patterns of the texts of as many digits that are smaller."""
    found = []
    for k, digit in enumerate(digits):
        if digit != "0":
            rest = len(digits) - k - 1
            found.append(f"{digits[:k]}[0-{int(digit) - 1}]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return found


def _more_digits(digits: str) -> list[str]:
    found = []
    for k, digit in enumerate(digits):
        if digit != "9":
            rest = len(digits) - k - 1
            found.append(f"{digits[:k]}[{int(digit) + 1}-9]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return found


def _canonical(patterns: list[str]) -> list[str]:
    """Those of some digit patterns that may begin with no zero, but for 0 itself."""
    return [
        p.replace("[0-", "[1-", 1) if p.startswith("[0-") and len(p) > 5 else p for p in patterns if p[:3] != "[0-0"
    ]


def _at_least(bound: Fraction, *, strict: bool) -> str:
    """Unsigned decimals of at least `bound`, which is not negative."""
    whole, _, digits = decimal_text(bound).partition(".")
    above = [*(f"{p}{_FRACTION}" for p in _more_digits(whole)), rf"[1-9][0-9]{{{len(whole)},}}{_FRACTION}"]
    if not digits:
        same = rf"{whole}\.[0-9]*[1-9][0-9]*" if strict else f"{whole}{_FRACTION}"
    else:
        tail = "[0-9]*[1-9][0-9]*" if strict else "[0-9]*"
        more = [f"{p}[0-9]*" for p in (_prefixes_above(digits))]
        same = rf"{whole}\.(?:{'|'.join([*more, digits + tail])})"
    return f"(?:{'|'.join([*above, same])})"


def _prefixes_above(digits: str) -> list[str]:
    return [f"{digits[:k]}[{int(d) + 1}-9]" for k, d in enumerate(digits) if d != "9"]


def _at_most(bound: Fraction, *, strict: bool) -> str:
    """Unsigned decimals of at most `bound`, which is not negative."""
    whole, _, digits = decimal_text(bound).partition(".")
    options = []
    if whole != "0":
        options.append(f"0{_FRACTION}")
        if len(whole) > 1:
            options.append(f"[1-9][0-9]{{0,{len(whole) - 2}}}{_FRACTION}")
        options += [f"{p}{_FRACTION}" for p in _canonical(_less_digits(whole)) if not p.startswith("[1-0")]
    if digits:
        below = [f"{digits[:k]}[0-{int(d) - 1}][0-9]*" for k, d in enumerate(digits) if d != "0"]
        shorter = [digits[:k] for k in range(1, len(digits))]
        equal = [] if strict else [f"{digits}0*"]
        options.append(rf"{whole}(?:\.(?:{'|'.join([*below, *shorter, *equal])}))?")
    elif not strict:
        options.append(rf"{whole}(?:\.0+)?")
    return f"(?:{'|'.join(options) or _NOTHING})"


def _range_node(low: Fraction | None, low_open: bool, high: Fraction | None, high_open: bool) -> Node:
    """Decimals within bounds (among other texts)."""
    anything = f"(?:0|[1-9][0-9]*){_FRACTION}"
    parts: list[Node] = []
    if low is not None:
        if low > 0 or (low == 0 and low_open):
            text = _at_least(low, strict=low_open)
        else:
            text = f"{anything}|-{_at_most(-low, strict=low_open)}"
        parts.append(parse_python(text))
    if high is not None:
        if high < 0 or (high == 0 and high_open):
            text = f"-{_at_least(-high, strict=high_open)}"
        else:
            text = f"-{anything}|{_at_most(high, strict=high_open)}"
        parts.append(parse_python(text))
    return Intersection(tuple(parts)) if len(parts) > 1 else parts[0]


def _multiple_node(divisor: Fraction, path: str) -> Node:
    """Decimals that are multiples (among other texts).

    Raises:
        UnsupportedFeatureError: the pattern would be too long to be of use.
    """
    digits = 0
    while divisor * 10**digits < 1:
        digits += 1
    scaled = divisor * 10**digits
    if scaled == 1:
        end = rf"(?:\.[0-9]{{0,{digits}}}0*)?" if digits else r"(?:\.0+)?"
        return parse_python(f"{_INTEGERS}{end}")
    power = next((k for k in range(1, 4) if scaled.denominator == 1 and 10**k % scaled == 0), 0)
    if digits or (not power and scaled not in _FEW_REMAINDERS):
        raise UnsupportedFeatureError(
            f"multipleOf {decimal_text(divisor)} at {path or '#'} has no pattern of a reasonable length; "
            "compile_json_schema enforces it",
            feature="multipleOf",
            path=path,
        )
    if power:
        multiples = [str(n) for n in range(0, 10**power, int(scaled))]
        ends = "|".join(n.rjust(power, "0") for n in multiples)
        return parse_python(rf"-?(?:[1-9][0-9]*(?:{ends})|{'|'.join(multiples)})(?:\.0+)?")
    m = int(scaled)
    rows: list[dict[int, Ranges]] = []
    for remainder in range(m):
        row: dict[int, Ranges] = {}
        for digit in range(10):
            to = (10 * remainder + digit) % m
            row[to] = (*row.get(to, ()), (48 + digit, 48 + digit))
        rows.append(row)
    node = eliminate(rows, [remainder == 0 for remainder in range(m)])
    assert node is not None
    minus, zeros = parse_python("-?"), parse_python(r"(?:\.0+)?")
    return Concat((minus, node, zeros))


def numbers_text(positive: list[Any], negative: list[Any], path: str, limits: Limits) -> str | None:
    """The pattern of the numbers that pass `positive` and fail `negative` tests (payloads of number atoms), or None.

    Raises:
        UnsupportedFeatureError: a `multipleOf` without a pattern of a reasonable length.
        LimitExceededError: the pattern would be too long.
    """
    integral = ("int",) in positive
    nodes = [parse_python(_INTEGERS if integral else f"{_INTEGERS}{_FRACTION}")]
    nodes += [_node(test, path) for test in positive if test[0] != "int"]
    nodes += [Complement(_node(test, path)) for test in negative]
    found = plain(Intersection(tuple(nodes)), limits)
    return None if found is None else f"(?:{to_text(found)})" if isinstance(found, Alternation) else to_text(found)


def _node(test: Any, path: str) -> Node:
    match test[0]:
        case "int":
            return parse_python(rf"{_INTEGERS}(?:\.0+)?")
        case "range":
            return _range_node(*test[1:])
        case "mul":
            return _multiple_node(Fraction(test[1]), path)
    values = [_range_node(value, False, value, False) for value in sorted(test[1])]
    return Alternation(tuple(values)) if values else Complement(Concat((Empty(),)))
