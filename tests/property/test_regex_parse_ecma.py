"""The ecma dialect against V8: same refusals, same matches, whole-text and searching."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outlines_core.errors import ConstraintSyntaxError, UnsupportedFeatureError
from outlines_core.regex.parse_ecma import parse_ecma
from outlines_core.regex.parser import search, simplify
from tests.property.test_regex_parse import budget
from tests.regex_oracle import matches

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is the referee")


class Referee:
    """A node process that answers line by line."""

    def __init__(self) -> None:
        script = Path(__file__).parents[1] / "node_regex.js"
        self.process = subprocess.Popen(
            ["node", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def ask(self, pattern: str, flags: str, texts: list[str]) -> list[tuple[bool, bool]] | None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"pattern": pattern, "flags": flags, "texts": texts}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return None if answer is None else [(found, whole) for found, whole in answer]


@pytest.fixture(scope="module")
def node() -> Iterator[Referee]:
    referee = Referee()
    yield referee
    assert referee.process.stdin is not None
    assert referee.process.stdout is not None
    referee.process.stdin.close()
    referee.process.wait(timeout=10)
    referee.process.stdout.close()


BMP = "abkKsS1_- \n\r\u2028\xa0\ufeff\u017f\u212aıßẞµμéпДα٣{},u"
ASTRAL = "\U00010400\U00010428😀"
bmp_texts = st.lists(st.text(BMP, max_size=5), min_size=1, max_size=6)
texts = st.lists(st.text(BMP + ASTRAL, max_size=5), min_size=1, max_size=6)

plain = st.sampled_from([*"abksS1_- é\u017f\u212a\n,"])
escapes = st.sampled_from(
    [r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\x61", r"\u017f", r"\cJ", r"\n", r"\/", r"\.", r"\0", r"\t"]
)
STRICT = [r"\u{1F600}", r"\ud83d\ude00", r"\p{Lu}", r"\P{L}", r"\p{Script=Greek}", r"\p{scx=Cyrl}", r"\p{Alphabetic}"]
STRICT += [r"\p{gc=Nd}", r"\P{White_Space}", "😀", "\U00010400"]
strict_escapes = st.sampled_from(STRICT)
LEGACY = [r"\_", r"\-", r"\a", r"\1", r"\12", r"\8", r"\08", r"\377", r"\400", r"\c", r"\c1", r"\x6", r"\u00", r"\u{3}"]
LEGACY += [r"\p{Lu}", r"\k", "{", "}", "]", "{,2}", "{a"]
legacy_escapes = st.sampled_from(LEGACY)
anchors = st.sampled_from([r"\b", r"\B", "^", "$"])
quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0}", "{2,}", "*?", "+?", "??", "{1,2}?"])


def sets(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    ranges = st.sampled_from(["a-c", "A-z", "\\x41-\\x5a", "-", "^", r"\b", "[", "{", "é-ſ"])
    listed = st.lists(st.one_of(items, ranges), max_size=4).map("".join)
    return st.builds(lambda negated, body: f"[{negated}{body}]", st.sampled_from(["", "^"]), listed)


def composed(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    opening = st.sampled_from(["(", "(?:", "(?<{}>", "(?=", "(?!", "(?<=", "(?<!"])

    def extend(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        group = st.builds(lambda start, body: f"{start}{body})", opening, children)
        return st.one_of(
            st.lists(children, min_size=1, max_size=3).map("".join),
            st.lists(children, min_size=2, max_size=3).map("|".join),
            st.builds(str.__add__, st.one_of(group, items), quantifiers),
            group,
        )

    atoms = st.one_of(items, items, anchors, sets(items), st.just("."))
    return st.recursive(atoms, extend, max_leaves=7).map(_with_names)


def _with_names(pattern: str) -> str:
    for name in ("x", "y", "z", "w", "v", "u", "t"):
        pattern = pattern.replace("(?<{}>", f"(?<{name}>", 1)
    return pattern


strict_patterns = composed(st.one_of(plain, escapes, strict_escapes))
legacy_patterns = composed(st.one_of(plain, escapes, legacy_escapes))
FRAGMENTS = [
    *"ab1()[]{}?*+|^$-,:=!<>u/",
    "(?:",
    "(?=",
    "(?<=",
    "(?<n>",
    "(?<m>",
    "(?",
    "{1}",
    "{2,1}",
    "{1,",
    "a-z",
    "z-a",
]
FRAGMENTS += [
    "\\",
    "\\1",
    "\\2",
    "\\k<n>",
    "\\k",
    "\\0",
    "\\01",
    "\\c",
    "\\cA",
    "\\x6",
    "\\x61",
    "\\u",
    "\\u{61}",
    "\\q",
]
FRAGMENTS += [
    "\\u{110000}",
    "\\p{L}",
    "\\p{Nope}",
    "\\p",
    "\\p{Script=Latn}",
    "\\p{gc=Lu}",
    "\\-",
    "\\_",
    "\\d",
    "\\b",
    "\\B",
]
fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=7).map("".join)


def _check(node: Referee, pattern: str, sample: list[str], *, flags: str, annex_b: bool) -> None:
    answers = node.ask(pattern, flags, sample)
    ours = f"(?i:{pattern})" if "i" in flags else pattern
    if answers is None:
        with pytest.raises(ConstraintSyntaxError):
            parse_ecma(pattern, annex_b=annex_b)
        return
    if re.search(r"\\[1-9]|\\k", pattern):
        try:
            tree = parse_ecma(ours, annex_b=annex_b)
        except UnsupportedFeatureError:
            return
    else:
        tree = parse_ecma(ours, annex_b=annex_b)
    simpler, searching = simplify(tree), search(tree)
    for text, (found, whole) in zip(sample, answers, strict=True):
        assert matches(tree, text) == whole, (pattern, text, whole)
        assert matches(simpler, text) == whole, (pattern, text, whole)
        assert matches(searching, text) == found, (pattern, text, found)


@budget
@given(pattern=strict_patterns, sample=texts)
@example(pattern=r"\B", sample=["", "a", "-"])
@example(pattern=r"(?<=a|bb)c", sample=["ac", "bbc", "bc"])
def test_strict(node: Referee, pattern: str, sample: list[str]) -> None:
    """Patterns under the u flag."""
    _check(node, pattern, ["", *sample], flags="u", annex_b=False)


@budget
@given(pattern=strict_patterns, sample=texts)
def test_ignoring_case(node: Referee, pattern: str, sample: list[str]) -> None:
    """Our ``(?i:...)`` is V8's iu."""
    _check(node, pattern, ["", *sample], flags="iu", annex_b=False)


@budget
@given(pattern=legacy_patterns, sample=bmp_texts)
@example(pattern=r"\u{3}", sample=["uuu", "u{3}"])
@example(pattern=r"(?=a)*a", sample=["a"])
def test_annex_b(node: Referee, pattern: str, sample: list[str]) -> None:
    """Patterns without the u flag."""
    _check(node, pattern, ["", *sample], flags="", annex_b=True)


@budget
@given(pattern=fragments, sample=bmp_texts, annex_b=st.booleans())
def test_refuses_like_v8(node: Referee, pattern: str, sample: list[str], annex_b: bool) -> None:
    """Thrown-together syntax, with and without the u flag."""
    _check(node, pattern, ["", *sample], flags="" if annex_b else "u", annex_b=annex_b)
