"""The ecma dialect, construct by construct; `tests/property` compares it with V8."""

from __future__ import annotations

import pytest

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError, UnsupportedFeatureError
from outlines_core.limits import Limits
from outlines_core.regex.ast import Alternation, Begin, CharSet, Concat, Empty, End, Literal, Look, Node, Repeat
from outlines_core.regex.charset import ALL, complement, from_chars
from outlines_core.regex.parse_ecma import parse_ecma
from outlines_core.regex.parser import parse, search
from outlines_core.regex.unicode import ecma_property

a, b = Literal("a"), Literal("b")
anything = Repeat(CharSet(ALL), 0, None)
digit = CharSet(((48, 57),))


def _property(name: str, value: str | None = None) -> Node:
    ranges = ecma_property(name, value)
    assert ranges is not None
    return CharSet(ranges)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", Empty()),
        ("a|b", Alternation((a, b))),
        ("(a)(?<n>b)(?:c)", Literal("abc")),
        ("^a$", Concat((Begin(), a, End()))),
        (".", CharSet(complement(from_chars("\n\r\u2028\u2029")))),
        (r"\d", digit),
        (r"\D", CharSet(complement(((48, 57),)))),
        ("[^]", CharSet(ALL)),
        ("[]", CharSet(())),
        ("[a-c]", CharSet(((97, 99),))),
        (r"[\-\]]", CharSet(from_chars("-]"))),
        (r"[\b]", Literal("\b")),
        (r"\x61\u0062\u{63}\cJ\0\/\.\n", Literal("abc\n\0/.\n")),
        (r"\ud83d\ude00\u{1F600}", Literal("😀😀")),
        (r"\ud83d", Literal("\ud83d")),
        ("a{2}", Repeat(a, 2, 2)),
        ("a{2,}?", Repeat(a, 2, None, "lazy")),
        (r"\p{Lu}", _property("Lu")),
        (r"\p{Script=Greek}", _property("sc", "Grek")),
        (r"[\p{L}\p{N}]", CharSet(tuple(sorted((ecma_property("L") or ()) + (ecma_property("N") or ()))))),
        ("(?<=a|bb)c", Concat((Look(Alternation((a, Literal("bb"))), False, False), Literal("c")))),
        ("(?i:k)k", Concat((CharSet(from_chars("kK\u212a")), Literal("k")))),
        ("(?s:.)", CharSet(ALL)),
        ("(?i:(?-i:a))", a),
    ],
)
def test_strict(pattern: str, expected: Node) -> None:
    """One construct under the u flag, one tree (spans take no part)."""
    if pattern.startswith(r"[\p"):
        node = parse_ecma(pattern)
        assert isinstance(node, CharSet)
        assert isinstance(expected, CharSet)
        assert {c for low, high in node.ranges for c in range(low, high + 1)} == {
            c for low, high in expected.ranges for c in range(low, high + 1)
        }
        return
    assert parse_ecma(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"\_\-\a", Literal("_-a")),
        ("a{", Literal("a{")),
        ("{a}]", Literal("{a}]")),
        ("a{,2}", Literal("a{,2}")),
        (r"\101\0\8", Literal("A\x008")),
        (r"[\1\c1\c]", CharSet(from_chars("\x01\x11\\c"))),
        (r"[\d-x]", CharSet(((45, 45), (48, 57), (120, 120)))),
        (r"\c", Literal("\\c")),
        (r"\u{3}", Repeat(Literal("u"), 3, 3)),
        (r"\p{Lu}", Literal("p{Lu}")),
        (r"\k<n>", Literal("k<n>")),
        ("(?=a)*", Repeat(Look(a, True, False), 0, None)),
    ],
)
def test_annex_b(pattern: str, expected: Node) -> None:
    """One construct of the syntax without the u flag."""
    assert parse_ecma(pattern, annex_b=True) == expected


@pytest.mark.parametrize(
    ("pattern", "offset"),
    [
        ("(a", 0),
        ("a)", 1),
        ("*", 0),
        ("a**", 2),
        ("^*", 1),
        ("a{2,1}", 1),
        ("[b-a]", 1),
        ("[a", 0),
        ("\\", 0),
        ("(?<n>a)(?<n>b)", 7),
        ("(?<1>a)", 0),
        ("(?a)", 0),
        ("(?ii:a)", 0),
        (r"a\p{Nope}[", 1),
    ],
)
def test_syntax_errors(pattern: str, offset: int) -> None:
    """Malformed with and without the u flag: the strict error, with the place."""
    with pytest.raises(ConstraintSyntaxError) as caught:
        parse(pattern, dialect="ecma")
    assert (caught.value.source, caught.value.offset) == (pattern, offset)


def test_annex_b_is_the_second_choice() -> None:
    r"""``\u{61}`` is strict syntax, ``\_`` is not."""
    assert parse(r"\u{61}", dialect="ecma") == a
    assert parse(r"\_", dialect="ecma") == Literal("_")


@pytest.mark.parametrize("pattern", [r"(a)\1", r"(?<n>a)\k<n>", r"\1(a)"])
def test_unsupported(pattern: str) -> None:
    """Back-references are not regular."""
    with pytest.raises(UnsupportedFeatureError) as caught:
        parse(pattern, dialect="ecma")
    assert caught.value.feature == "back-reference"


def test_limits_and_arguments() -> None:
    """Too deep; flags and dialects that do not exist."""
    with pytest.raises(LimitExceededError):
        parse("(" * 201 + ")" * 201, dialect="ecma")
    assert parse("(" * 3000 + ")" * 3000, dialect="ecma", limits=Limits(max_nesting=3000)) == Empty()
    with pytest.raises(ValueError, match="flags"):
        parse("a", dialect="ecma", flags=2)
    with pytest.raises(ValueError, match="dialect"):
        parse("a", dialect="perl")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", anything),
        ("^", anything),
        ("^a$", a),
        ("^(a|b)$", Alternation((a, b))),
        ("^a|b$", Alternation((Concat((a, anything)), Concat((anything, b))))),
        ("a", Concat((anything, a, anything))),
        ("^a(?=b)", Concat((Literal("ab"), anything))),
        ("(?<=a)b$", Concat((anything, Literal("ab")))),
    ],
)
def test_search(pattern: str, expected: Node) -> None:
    """Anchors at the edges dissolve."""
    found = search(parse(pattern, dialect="ecma"))
    if pattern in ("", "^"):
        assert found in (anything, Concat((anything, anything)))
    else:
        assert found == expected
