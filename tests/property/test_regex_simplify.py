"""`simplify` and `search` keep the language, on the patterns that the parser tests generate."""

from __future__ import annotations

import re
import warnings

from hypothesis import example, given

from outlines_core.errors import ConstraintError
from outlines_core.regex.parser import parse, search, simplify
from outlines_core.regex.simplify import width
from tests.property.test_regex_parse import budget, flag_sets, patterns, texts
from tests.regex_oracle import ends, matches


@budget
@given(patterns(), flag_sets, texts)
@example("(?>a$|ab)", 0, ["ab", "a"])
@example("(?>a+$|a+b)", 0, ["aab"])
@example("(?<!a$)a", 0, ["a"])
@example("(?:a(?<!a$)|b)*", 0, ["a", "ab"])
@example(r"a(?<=^a)b", 0, ["ab"])
@example(r"(?:a*+)a", 0, ["a"])
def test_same_texts(pattern: str, flags: int, sample: list[str]) -> None:
    """A simplified pattern accepts the same texts, within the widths that were computed."""
    try:
        node = parse(pattern, flags=flags)
    except ConstraintError:
        return
    simpler = simplify(node)
    low, high = width(node)
    for text in ["", *sample]:
        expected = matches(node, text)
        assert matches(simpler, text) == expected, (pattern, flags, text, expected)
        for end in ends(node, text, 0):
            assert low <= end
            assert high is None or end <= high


@budget
@given(patterns(), flag_sets, texts)
@example("^a|b$", 0, ["ax", "xb", "xa", "bx"])
@example("(?:^|,)a(?:,|$)", 0, ["a", "b,a", "ba", "a,b", "a\n"])
def test_search(pattern: str, flags: int, sample: list[str]) -> None:
    """`search` accepts the texts in which re.search finds something."""
    try:
        node = search(parse(pattern, flags=flags))
    except ConstraintError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = re.compile(pattern, flags)
    for text in ["", *sample]:
        expected = compiled.search(text) is not None
        assert matches(node, text) == expected, (pattern, flags, text, expected)
