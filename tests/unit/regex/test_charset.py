"""Set algebra and class tables against the slow definition, character by character."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from outlines_core.regex import charset, unicode
from outlines_core.regex.ast import Ranges

codes = st.integers(0, 40) | st.integers(0x10FFE0, 0x10FFFF)
pairs = st.lists(st.tuples(codes, codes).map(lambda ends: (min(ends), max(ends))).filter(lambda p: p[1] - p[0] < 100))


def members(ranges: Ranges) -> set[int]:
    return {code for low, high in ranges for code in range(low, high + 1)}


@given(pairs, pairs)
def test_algebra(left_pairs: list[tuple[int, int]], right_pairs: list[tuple[int, int]]) -> None:
    """Every operation is the set operation, and its result is canonical."""
    left, right = charset.normalise(left_pairs), charset.normalise(right_pairs)
    a, b = members(left), members(right)
    assert a == {code for low, high in left_pairs for code in range(low, high + 1)}
    for result, expected in [
        (charset.union(left, right), a | b),
        (charset.intersection(left, right), a & b),
        (charset.difference(left, right), a - b),
    ]:
        assert members(result) == expected
        assert result == charset.normalise((code, code) for code in expected)
        assert charset.size(result) == len(expected)
    assert charset.complement(charset.complement(left)) == left
    assert not charset.intersection(left, charset.complement(left))
    assert charset.union(left, charset.complement(left)) == charset.ALL
    assert all(charset.contains(left, code) == (code in a) for code in [*range(45), 0x10FFFF])


def test_classes_are_those_of_re() -> None:
    """All code points, those above the scanned part too."""
    everything = "".join(map(chr, range(charset.MAX_CODE_POINT + 1)))
    for name in ("d", "s", "w"):
        for flags in (0, re.ASCII):
            spans = (m.span() for m in re.finditer(rf"\{name}+", everything, flags))
            expected = tuple((start, end - 1) for start, end in spans)
            assert unicode.python_class(name, ascii_only=bool(flags)) == expected


def test_case_table_is_that_of_sre() -> None:
    """The matcher's own functions agree for all code points, and lowering twice changes nothing more."""
    import _sre  # type: ignore[import-not-found]

    table = unicode.case_table()
    cased = set(table.cased)
    for code in range(charset.MAX_CODE_POINT + 1):
        assert _sre.unicode_tolower(code) == table.lower.get(code, code)
        assert _sre.unicode_iscased(code) == (code in cased)
    assert not any(low in table.lower for low in table.lower.values())
    # sets test the lowered character against their classes
    for name in ("d", "s", "w"):
        listed = unicode.python_class(name)
        assert all(charset.contains(listed, c) == charset.contains(listed, low) for c, low in table.lower.items())


def test_every_cased_character_folds_as_in_sre() -> None:
    """As a literal, in a set, and as a range, with and without the ASCII flag."""
    table = unicode.case_table()
    text = "".join(map(chr, table.cased)) + "1_-"
    for code in [*table.cased[::7], 0x130, 0x131, 0x17F, 0x212A, 0x1E9E, 0xDF, 0x345, 0x10400, 0x10428]:
        for ascii_only in (False, True):
            flags = re.I | (re.A if ascii_only else 0)
            folded = unicode.fold_char(code, ascii_only=ascii_only) or ((code, code),)
            assert members(folded) == {ord(c) for c in re.findall(re.escape(chr(code)), text, flags)}
            listed = unicode.fold_set([code, 0x31], [], [], negated=False, ascii_only=ascii_only)
            assert members(listed) == {ord(c) for c in re.findall(f"[{re.escape(chr(code))}1]", text, flags)}
            span = (max(code - 3, 0x40), code + 2)
            ranged = members(unicode.fold_set([], [span], [], negated=False, ascii_only=ascii_only))
            expected = re.findall(f"[\\U{span[0]:08x}-\\U{span[1]:08x}]", text, flags)
            assert {c for c in ranged if chr(c) in text} == {ord(c) for c in expected}


def test_ecma_tables() -> None:
    """Aliases, groups and forms of the same property agree; unknown names are None."""
    letter = unicode.ecma_property("L")
    assert letter
    assert letter == unicode.ecma_property("Letter") == unicode.ecma_property("gc", "L")
    assert letter == unicode.ecma_property("General_Category", "Letter")
    assert unicode.ecma_property("sc", "Grek") == unicode.ecma_property("Script", "Greek")
    assert unicode.ecma_property("scx", "Grek") != unicode.ecma_property("sc", "Grek")
    assert unicode.ecma_property("scx", "Thai") == unicode.ecma_property("Script_Extensions", "Thai")
    assert unicode.ecma_property("Any") == charset.ALL
    assert unicode.ecma_property("ASCII") == ((0, 127),)
    assert unicode.ecma_property("Cs") == ((0xD800, 0xDFFF),)
    for unknown in [("l", None), ("Greek", None), ("Script", "greek"), ("Nope", "L"), ("Alphabetic", "Y"), ("L", "L")]:
        assert unicode.ecma_property(*unknown) is None
    categories = [unicode.ecma_property(name) or () for name in ("C", "L", "M", "N", "P", "S", "Z")]
    assert charset.union(*categories) == charset.ALL
    assert sum(map(charset.size, categories)) == charset.MAX_CODE_POINT + 1
