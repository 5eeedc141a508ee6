"""Arrays and objects as patterns, for `regex_text`: one conjunction of tests at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.json_schema.formula import Cube
from outlines_core.json_schema.lower import FALSE_SUB, TRUE_SUB, Sub
from outlines_core.json_schema.splits import Props
from outlines_core.regex.ast import Alternation, Literal, Node

if TYPE_CHECKING:
    from outlines_core.json_schema.regex_text import Writer

__all__ = ["array_text", "escaped", "object_text"]

_MOST_PATTERNS: Final = 4
_SPECIAL: Final = frozenset("\\.+*?()|[]{}^$#&-~")


def escaped(text: str) -> str:
    """A pattern of exactly this text, escaped as Rust's regex crate escapes it."""
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def _refused(writer: Writer, feature: str, why: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"{feature} at {writer.path or '#'} cannot be said by a regex: {why}; compile_json_schema enforces it",
        feature=feature,
        path=writer.path,
    )


def _intervals(tests: Sequence[tuple[Any, bool]]) -> list[tuple[int, int | None]]:
    """The disjoint intervals of counts that pass (or fail) all ("C", low, high) tests."""
    choices: list[list[tuple[int, int | None]]] = []
    for (_, low, high), holds in tests:
        if holds:
            choices.append([(low, high)])
        else:
            below: list[tuple[int, int | None]] = [(0, low - 1)] if low else []
            choices.append([*below, *([(high + 1, None)] if high is not None else [])])
    found = []
    for chosen in itertools.product(*choices):
        least = max((low for low, _ in chosen), default=0)
        most = min((high for _, high in chosen if high is not None), default=None)
        if most is None or least <= most:
            found.append((least, most))
    return found


def _sorted_tests(writer: Writer, cube: Cube) -> dict[str, list[tuple[Any, bool]]]:
    tests: dict[str, list[tuple[Any, bool]]] = {}
    for atom in sorted(cube):
        payload = writer.formulas.payload(atom)
        tests.setdefault(payload[0], []).append((payload, cube[atom]))
    return tests


def _refuse_negatives(writer: Writer, tests: dict[str, list[tuple[Any, bool]]], kinds: str) -> None:
    for kind in kinds:
        if not all(holds for _, holds in tests.get(kind, ())):
            raise _refused(writer, "not", "of some items or properties it asks that one of them is wrong")


def _counted(low: int, high: int | None) -> str:
    """The quantifier of what follows the first of `low` to `high` entries."""
    return f"{{{max(low - 1, 0)},{'' if high is None else high - 1}}}"


# -- arrays -----------------------------------------------------------------------------------------------------------


def array_text(writer: Writer, cube: Cube) -> list[str]:
    """Patterns of the arrays that pass the tests of a cube."""
    tests = _sorted_tests(writer, cube)
    _refuse_negatives(writer, tests, "I")
    intervals = _intervals(tests.get("C", []))
    if "K" in tests:
        raise _refused(writer, "contains", "it counts items among others")
    if "U" in tests and any(high is None or high > 1 for _, high in intervals):
        raise _refused(writer, "uniqueItems", "it compares items")
    firsts = [payload[1] for payload, _ in tests.get("I", ())]
    both = writer.lowering.both
    rest = both(payload[2] for payload, _ in tests.get("I", ()))
    n_first = max(map(len, firsts), default=0)
    subs = [
        both(payload[1][i] if i < len(payload[1]) else payload[2] for payload, _ in tests["I"]) for i in range(n_first)
    ]
    if subs and "C" not in tests and rest == TRUE_SUB:
        intervals = [(n_first, n_first)]
    found = (_array(writer, subs, rest, low, high) for low, high in intervals)
    return [text for text in found if text is not None]


def _array(writer: Writer, subs: list[Sub], rest: Sub, low: int, high: int | None) -> str | None:
    space = writer.whitespace
    texts: list[str] = []
    for sub in subs[: len(subs) if high is None else high]:
        text = writer.sub(sub)
        if text is None:
            high = len(texts)
            break
        texts.append(text)
    rest_text: str | None = None
    if high is None or high > len(texts):
        rest_text = writer.items_of_anything() if rest == TRUE_SUB and not subs else writer.sub(rest)
        if rest_text is None:
            high = len(texts)
    if high is not None and low > high:
        return None
    if high == 0:
        return rf"\[{space}\]"
    if not texts:
        empty = "" if low else "?"
        return rf"\[{space}(({rest_text})(,{space}({rest_text})){_counted(low, high)}){empty}{space}\]"
    comma = f"{space},{space}"
    tail = ""
    if rest_text is not None:
        tail = f"(?:{comma}(?:{rest_text})){{{max(low - len(texts), 0)},{'' if high is None else high - len(texts)}}}"
    for i in reversed(range(len(texts))):
        entry = f"{comma if i else ''}{texts[i]}{tail}"
        tail = entry if i < low else f"(?:{entry})?"
    return rf"\[{space}{tail}{space}\]"


# -- objects ----------------------------------------------------------------------------------------------------------


def object_text(writer: Writer, cube: Cube) -> list[str]:
    """Patterns of the objects that pass the tests of a cube."""
    tests = _sorted_tests(writer, cube)
    _refuse_negatives(writer, tests, "PN")
    required: dict[str, None] = {}
    absent: set[str] = set()
    for (_, keys), holds in tests.get("R", ()):
        if holds:
            required.update(dict.fromkeys(sorted(keys)))
        elif len(keys) == 1:
            absent |= keys
        else:
            raise _refused(writer, "not", "it asks that one of several keys is missing")
    if absent & required.keys():
        return []
    shape = _Members(writer, [p[1] for p, _ in tests.get("P", ())], [p[1] for p, _ in tests.get("N", ())], absent)
    found = (shape.text(list(required), low, high) for low, high in _intervals(tests.get("C", [])))
    return [text for text in found if text is not None]


class _Members:
    """Which keys an object may have, and what their values are."""

    def __init__(self, writer: Writer, props: list[Props], names: list[Sub], absent: set[str]) -> None:
        self.writer, self.props, self.names, self.absent = writer, props, names, absent
        self.patterns = list(dict.fromkeys(pattern.source for p in props for pattern, _ in p.patterns))
        writer.lexemes.add_patterns(pattern for p in props for pattern, _ in p.patterns)
        self.listed = list(dict.fromkeys(key for p in props for key in p.listed))
        said = bool(self.listed or self.patterns)
        self.is_open = not said or any(p.additional != TRUE_SUB for p in props)
        if len(self.patterns) > _MOST_PATTERNS:
            raise _refused(writer, "patternProperties", f"more than {_MOST_PATTERNS} of them at once")

    def _value(self, matched: Sequence[str], key: str | None) -> Sub:
        """What the value of a key has to be that these patterns match."""
        subs: list[Sub] = []
        for p in self.props:
            own = [sub for pattern, sub in p.patterns if pattern.source in matched]
            own += [p.listed[key]] if key is not None and key in p.listed else []
            subs += own or [p.additional]
        return self.writer.lowering.both(subs)

    def _passes(self, kind: Any, key: str) -> bool:
        return bool(self.writer.lexemes.string_passes(kind, key))

    def _pair(self, key: str) -> str | None:
        """A listed (or required) key and its value."""
        writer = self.writer
        formulas = writer.formulas
        for name in self.names:
            f = writer.lowering.split(name)[2]
            if not formulas.holds(f, lambda atom: self._passes(formulas.payload(atom), key)):
                return None
        matched = [source for source in self.patterns if self._passes(("re", source), key)]
        value = writer.sub(self._value(matched, key))
        if value is None or key in self.absent:
            return None
        space = writer.whitespace
        return f'{space}"{escaped(json.dumps(key, ensure_ascii=False)[1:-1])}"{space}:{space}{value}'

    def _others(self, keys: list[str]) -> str | None:
        """Keys that are not among `keys`, with their values, without space around; None: there are none."""
        writer, space = self.writer, self.writer.whitespace
        pairs = []
        for bits in itertools.product((True, False), repeat=len(self.patterns)):
            matched = [source for source, bit in zip(self.patterns, bits, strict=True) if bit]
            if not matched and not self.is_open:
                continue
            sub = self._value(matched, None)
            value = None if sub == FALSE_SUB else writer.member_of_anything() if sub == TRUE_SUB else writer.sub(sub)
            if value is None:
                continue
            node = writer.lexemes.node
            positive = [node(("re", source)) for source in matched]
            negative = [node(("re", source)) for source in self.patterns if source not in matched]
            excluded: list[Node] = [Literal(key) for key in dict.fromkeys((*keys, *sorted(self.absent))) if key]
            if excluded:
                negative.append(Alternation(tuple(excluded)))
            without_empty = "" in keys or "" in self.absent
            found = writer.keys(positive, negative, self.names, without_empty=without_empty)
            pairs += [f"{key}{space}:{space}{value}" for key in found]
        if len(pairs) > 1:
            return f"(?:{'|'.join(pairs)})"
        return pairs[0] if pairs else None

    def text(self, required: list[str], low: int, high: int | None) -> str | None:
        """The pattern of the objects with so many members; None: there are none."""
        keys = list(dict.fromkeys((*self.listed, *required)))
        pairs: dict[str, str] = {}
        for key in keys:
            pair = self._pair(key)
            if pair is not None:
                pairs[key] = pair
            elif key in required:
                return None
        others = self._others(keys) if self.is_open or self.patterns else None
        space = self.writer.whitespace
        if high is not None and len(required) > high:
            return None
        if not pairs:
            return self._only_others(others, low, high)
        if others is not None and (low > len(required) or high is not None):
            raise _refused(self.writer, "minProperties" if high is None else "maxProperties", "it cannot count members")
        if low > len(pairs) and others is None:
            return None
        if low == len(pairs) and others is None:
            required = list(pairs)
        if high is not None and high == len(required):
            pairs = {key: pair for key, pair in pairs.items() if key in required}
        elif high == 1:
            return rf"\{{({'|'.join(pairs.values())}){'' if low else '?'}{space}\}}"
        if not pairs:
            return rf"\{{{space}\}}"
        if high is not None and high < len(pairs):
            raise _refused(self.writer, "maxProperties", "it cannot count members")
        if low > max(len(required), 1):
            raise _refused(self.writer, "minProperties", "it cannot count members")
        return rf"\{{{self._listed(pairs, required, others, low)}{space}\}}"

    def _only_others(self, others: str | None, low: int, high: int | None) -> str | None:
        space = self.writer.whitespace
        if others is None or high == 0:
            return None if low else rf"\{{{space}\}}"
        if low > 1:
            raise _refused(self.writer, "minProperties", "keys could repeat, and it cannot compare them")
        comma = f"{space},{space}"
        return rf"\{{{space}({others}({comma}{others}){_counted(low, high)}){'' if low else '?'}{space}\}}"

    def _listed(self, pairs: dict[str, str], required: list[str], others: str | None, low: int) -> str:
        """Listed members in their order, others after them."""
        space = self.writer.whitespace
        more = "" if others is None else f"(?:{space},{space}{others})*"
        if any(key in required for key in pairs):
            order = list(pairs)
            last = max(i for i, key in enumerate(order) if key in required)
            text = ""
            for i, (key, pair) in enumerate(pairs.items()):
                entry = f"{pair}{space}," if i < last else f"{space},{pair}" if i > last else pair
                text += entry if key in required else f"({entry})?"
            return text + more
        options = []
        before = ""
        for pair in pairs.values():
            options.append(before + pair)
            before += f"({pair}{space},)?"
        text = f"({'|'.join(options)})"
        if others is not None:
            text = f"(?:{text}{more}|{space}{others}{more})"
        return text if low else f"{text}?"
