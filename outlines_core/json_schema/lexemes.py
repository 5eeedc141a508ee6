"""Recognizers for what strings and numbers have to fulfil, kept and shared by content.

A formula over string (or number) atoms becomes a list of tests, which a recognizer watches all at once, and cubes that
say which outcomes are good. Equal tests and cubes are one recognizer, for all schemas of the process.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from outlines_core.cache import LruCache
from outlines_core.json_schema.formats import format_parts
from outlines_core.json_schema.formula import FALSE, TRUE, Formula, Formulas
from outlines_core.json_schema.nodes import Pattern
from outlines_core.json_schema.numbers import Integer, MultipleOf, NumberRecognizer, NumberTest, Range
from outlines_core.json_schema.numbers import OneOf as NumberOneOf
from outlines_core.json_schema.products import FormatRecognizer, ProductRecognizer
from outlines_core.json_schema.strings import Length, Matches, StringRecognizer, StringTest
from outlines_core.json_schema.strings import OneOf as StringOneOf
from outlines_core.limits import Limits
from outlines_core.regex.ast import CharSet, Node, Repeat
from outlines_core.regex.nfa import ANY
from outlines_core.regex.simplify import simplify

__all__ = ["ONLY", "Counted", "Cubes", "Lexemes", "TestKey", "load_kernels"]

TestKey: TypeAlias = tuple[Any, ...]
"""The payload of a string or number atom."""
Cubes: TypeAlias = tuple[tuple[int, int], ...]

ONLY: Final[Cubes] = ((1, 1),)
_CACHE_BYTES: Final = 64 * 2**20
_MAX_ANSWERS: Final = 50_000


class Counted(NamedTuple):
    """Texts of `least` to `most` (None: any) characters that `recognizer` accepts; None: all texts."""

    recognizer: StringRecognizer | None
    least: int
    most: int | None


class Lexemes:
    """All recognizers under one set of limits and one alphabet."""

    def __init__(self, limits: Limits, alphabet: Any = None) -> None:
        self.limits, self.alphabet = limits, alphabet
        self.lock = threading.RLock()
        self._recognizers: LruCache[Any] = LruCache(_CACHE_BYTES, lambda r: r.nbytes)
        self._alive: WeakValueDictionary[Any, Any] = WeakValueDictionary()  # an arena keeps those that have rows there
        self._nodes: dict[TestKey, Node] = {}
        self._simple: dict[TestKey, Node] = {}
        self._passes: dict[tuple[TestKey, str], bool] = {}

    # -- tests ------------------------------------------------------------------------------------------------------

    def add_patterns(self, patterns: Iterable[Pattern]) -> None:
        """Make patterns known by their source."""
        for pattern in patterns:
            self._nodes.setdefault(("re", pattern.source), pattern.node)

    def node(self, test: TestKey) -> Node:
        """The language of a ("re", ...), ("fmt", ...) or ("all", ...) test."""
        node = self._nodes.get(test)
        if node is None:
            if test[0] == "all":
                node = Repeat(CharSet(test[1]), 0, None)
            else:
                assert test[0] == "fmt"
                node = (format_parts(test[1]) or ())[test[2]]
            self._nodes[test] = node
        return node

    def string_test(self, test: TestKey) -> StringTest:
        match test[0]:
            case "len":
                return Length(test[1], test[2])
            case "str":
                return StringOneOf(test[1])
        return Matches(self.node(test))

    def number_test(self, test: TestKey) -> NumberTest:
        match test[0]:
            case "int":
                return Integer()
            case "range":
                return Range(*test[1:])
            case "mul":
                return MultipleOf(test[1])
        return NumberOneOf(test[1])

    def string_passes(self, test: TestKey, text: str) -> bool:
        """Does a given string pass a test?"""
        match test[0]:
            case "len":
                return bool(test[1] <= len(text) and (test[2] is None or len(text) <= test[2]))
            case "str":
                return text in test[1]
        key = (test, text)
        known = self._passes.get(key)
        if known is None:
            recognizer = self.strings((test,), ((1, 1),))
            state = recognizer.start
            for byte in text.encode("utf-8", "surrogatepass"):
                if not state:
                    break
                state = int(recognizer.row(state)[byte])
            known = bool(state) and recognizer.outcome(state) >= 0
            if len(self._passes) > _MAX_ANSWERS:
                self._passes.clear()
            self._passes[key] = known
        return known

    # -- recognizers ------------------------------------------------------------------------------------------------

    def _product(self, tests: tuple[TestKey, ...], cubes: Cubes) -> ProductRecognizer:
        formats = [(bit, test[1]) for bit, test in enumerate(tests) if test[0] == "lazy"]
        lengths = [(bit, test[1], test[2]) for bit, test in enumerate(tests) if test[0] == "len"]
        bits = [bit for bit, test in enumerate(tests) if test[0] not in ("lazy", "len")]

        def own(word: int) -> int:
            return sum((word >> bit & 1) << k for k, bit in enumerate(bits))

        inner = tuple(dict.fromkeys((own(care), own(value)) for care, value in cubes))
        others = self.strings(tuple(tests[bit] for bit in bits), inner)  # without tests: all texts
        can_spell = self.alphabet is None or bool(self.alphabet[0x20:0x7F].all())
        return ProductRecognizer(formats, lengths, others, bits, cubes, self.limits, can_spell=can_spell)

    def strings(
        self, tests: tuple[TestKey, ...], cubes: Cubes
    ) -> StringRecognizer | ProductRecognizer | FormatRecognizer:
        key = ("s", tests, cubes)
        found: StringRecognizer | ProductRecognizer | FormatRecognizer | None = self._known(key)
        if found is None:
            if len(tests) == 1 and tests[0][0] == "lazy" and cubes == ((1, 1),) and self.alphabet is None:
                found = FormatRecognizer(tests[0][1], self.limits)
            elif any(test[0] == "lazy" for test in tests):
                found = self._product(tests, cubes)
            else:
                found = StringRecognizer(
                    tuple(map(self.string_test, tests)), cubes, self.limits, alphabet=self.alphabet
                )
        self._keep(key, found)
        return found

    def counted(self, formulas: Formulas, f: Formula) -> Counted | None:
        """One pattern with bounds on the length, taken apart; None if that is not what `f` is, or not so easily.

        Easy is: from each state of the pattern, texts of all lengths that are wanted lead to the end, if any do.
        """
        tests, cubes = self.tests_and_cubes(formulas, f)
        patterns = [test for test in tests if test[0] in ("re", "fmt")]
        bounds = [test[1:] for test in tests if test[0] == "len"]
        everything = (1 << len(tests)) - 1
        if len(patterns) != 1 or len(patterns) + len(bounds) < len(tests) or cubes != ((everything, everything),):
            return None
        node = self._simple.get(patterns[0])
        if node is None:
            node = self._simple[patterns[0]] = simplify(self.node(patterns[0]))
        test = patterns[0]
        if isinstance(node, Repeat) and isinstance(node.item, CharSet):
            bounds.append((node.min, node.max))
            test = ("all", node.item.ranges)
        least = max((low for low, _ in bounds), default=0)
        most = min((high for _, high in bounds if high is not None), default=None)
        if (most is None and least <= 1) or (most is not None and least > most):
            return None
        if test == ("all", ANY):
            return Counted(None, least, most)
        recognizer = self.strings((test,), ONLY)
        if not isinstance(recognizer, StringRecognizer) or not recognizer.counts_apart or not recognizer.start:
            return None
        need = int(recognizer.needed([recognizer.start])[0])
        if (most is not None and need > most) or (least > need and not recognizer.has_any_length):
            return None
        return Counted(recognizer, least if least > need else 0, most)

    def numbers(self, tests: tuple[TestKey, ...], cubes: Cubes) -> NumberRecognizer:
        key = ("n", tests, cubes)
        found: NumberRecognizer | None = self._known(key)
        if found is None:
            found = NumberRecognizer(tuple(map(self.number_test, tests)), cubes, self.limits)
        self._keep(key, found)
        return found

    def _known(self, key: Any) -> Any:
        """A recognizer that somebody still has."""
        found = self._recognizers.get(key)
        return found if found is not None else self._alive.get(key)

    def _keep(self, key: Any, recognizer: Any) -> None:
        self._recognizers.put(key, recognizer)
        self._alive[key] = recognizer

    def tests_and_cubes(self, formulas: Formulas, f: Formula) -> tuple[tuple[TestKey, ...], Cubes]:
        """A formula over tests as a recognizer wants it."""
        if f == TRUE:
            return (), ((0, 0),)
        if f == FALSE:
            return (), ()
        atoms = formulas.atoms(f)
        number = {atom: i for i, atom in enumerate(atoms)}
        cubes: dict[tuple[int, int], None] = {}
        for cube in formulas.cubes(f):
            care = sum(1 << number[a] for a in cube)
            cubes[care, sum(1 << number[a] for a, v in cube.items() if v)] = None
        return tuple(formulas.payload(a) for a in atoms), tuple(cubes)

    # -- questions --------------------------------------------------------------------------------------------------

    def has_strings_of(self, formulas: Formulas, f: Formula, n: int) -> bool:
        """Do `n` different strings satisfy `f`?"""
        if n == 1 and self.alphabet is None:
            quick = _quick_strings(formulas, f)
            if quick is not None:
                return quick
            texts = self.listed(formulas, f)
            if texts is not None:
                return bool(texts)
        tests, cubes = self.tests_and_cubes(formulas, f)
        return self.has_strings(tests, cubes, frozenset(), n)

    def has_strings(self, tests: tuple[TestKey, ...], cubes: Cubes, without: frozenset[str], n: int) -> bool:
        """Are there `n` strings with a good outcome besides those in `without`?"""
        if without:
            bit = 1 << len(tests)
            tests = (*tests, ("str", without))
            cubes = tuple((care | bit, value) for care, value in cubes)
        if not cubes:
            return False
        recognizer = self.strings(tests, cubes)
        return bool(recognizer.start) and (n == 1 or len(recognizer.distinct(n)) >= n)

    def listed(self, formulas: Formulas, f: Formula) -> list[str] | None:
        """The strings that satisfy `f`, if it lists all that could; else None."""
        found: dict[str, None] = {}
        for cube in formulas.cubes(f):
            lists: list[frozenset[str]] = []
            lists += [p[1] for a, v in cube.items() if v and (p := formulas.payload(a))[0] == "str"]
            if not lists:
                return None
            shortest = min(lists, key=len)
            found.update(dict.fromkeys(shortest))
        return [
            text
            for text in found
            if formulas.holds(f, lambda a: self.string_passes(formulas.payload(a), text))  # noqa: B023
        ]

    def some_strings(self, formulas: Formulas, f: Formula, n: int) -> list[str]:
        """Up to `n` different strings that satisfy `f`."""
        tests, cubes = self.tests_and_cubes(formulas, f)
        found = self.strings(tests, cubes).distinct(n) if cubes else []
        return [text.decode("utf-8", "surrogatepass") for text in found]

    def has_numbers(self, formulas: Formulas, f: Formula, n: int) -> bool:
        """Do `n` different numbers satisfy `f`?"""
        if n == 1 and f > 0 and formulas.is_atom(f) and formulas.payload(f)[0] in ("int", "mul"):
            return True
        tests, cubes = self.tests_and_cubes(formulas, f)
        if not cubes:
            return False
        recognizer = self.numbers(tests, cubes)
        return bool(recognizer.start) and (n == 1 or len(recognizer.distinct(n)) >= n)

    def some_numbers(self, formulas: Formulas, f: Formula, n: int) -> list[Fraction]:
        """Up to `n` different numbers that satisfy `f`."""
        tests, cubes = self.tests_and_cubes(formulas, f)
        found = self.numbers(tests, cubes).distinct(n) if cubes else []
        return [Fraction(text.decode()) for text in found]


@functools.cache
def load_kernels() -> None:
    """Have the recognizers' kernels loaded from disk now (0.2 s), and not when a text first comes to a pattern."""
    limits = Limits()
    strings: tuple[StringTest, ...] = (Matches(Repeat(CharSet(((0x61, 0x7A),)), 1, 300)), Length(0, 9))
    for recognizer in (
        StringRecognizer((*strings, StringOneOf(frozenset({"one", "two"}))), ((0b111, 0b011),), limits),
        NumberRecognizer((MultipleOf(Fraction(1, 4)), Range(Fraction(1), False, None, False)), ((0b11, 0b11),), limits),
    ):
        recognizer.row(recognizer.start)
        recognizer.distinct(2)


def _quick_strings(formulas: Formulas, f: Formula) -> bool | None:
    """An answer without building anything, if there is one."""
    if f < 0 and formulas.is_atom(-f) and formulas.payload(-f)[0] in ("str", "lazy"):
        return True
    if f > 1 and formulas.is_atom(f):
        test = formulas.payload(f)
        if test[0] == "len":
            return test[2] is None or test[1] <= test[2]
        return True if test[0] in ("str", "lazy") or (test[0] == "fmt" and test[2] == 0) else None
    return None
