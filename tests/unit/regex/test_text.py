"""Patterns written from ASTs mean the same again, in all three dialects and in `re`."""

from __future__ import annotations

import re

import pytest

import outlines_core as oc
from outlines_core.regex.ast import CharSet, Complement, Intersection, Look
from outlines_core.regex.language import Language
from outlines_core.regex.parse_python import parse_python
from outlines_core.regex.text import eliminate, is_plain, plain, to_text

PATTERNS = [
    "a|ab|",
    "(?:a|b)+c?",
    r"[^a-c\]\\^-]{2,3}",
    r"\.\*\[x\]",
    "(?s:.)x",
    "é{0,2}[à-ü]",
    r"[\n\t\x00\x7f]",
    "(?:ab){3}",
    "-#&~/",
]
RESTRICTED = ["(?=a)[ab]{2}", "(?!ab)[ab]{1,3}", r"\bfoo\b", "a(?<!a)|b", "[ab]{1,4}(?<=ba)"]


def pairs():
    for pattern in PATTERNS + RESTRICTED:
        yield pattern, parse_python(pattern)
    three, even = parse_python("(?:[01]{3})*"), parse_python("(?:[01]{2})*1")
    yield "both", Intersection((three, even))
    yield "not", Intersection((parse_python("[a-z]{1,4}"), Complement(parse_python("if|else|[a-c]+"))))


@pytest.mark.parametrize(("name", "node"), list(pairs()))
def test_a_written_pattern_means_the_same(name, node):
    found = plain(node)
    if found is None:
        assert Language(node).is_empty()
        return
    assert is_plain(found)
    text = to_text(found)
    for dialect in ("python", "ecma", "rust"):
        if dialect != "ecma" or not set("#&~-") & set(text):  # no escapes of these under the u flag
            assert Language(node).is_equivalent(Language.parse(text, dialect=dialect)), (text, dialect)
    assert re.fullmatch(text, Language(node).witness()), text


def test_limits():
    with pytest.raises(ValueError, match="no notation"):
        to_text(Look(CharSet(((97, 97),)), True, False))
    with pytest.raises(oc.LimitExceededError):
        plain(Intersection((parse_python(".{0,500}a"), parse_python("(?:ab|c){0,300}"))))
    assert eliminate([{0: ((97, 97),)}], [False]) is None
    node = eliminate([{1: ((97, 97),)}, {0: ((98, 98),)}], [True, False])
    assert Language(node).is_equivalent(Language.parse("(ab)*"))
