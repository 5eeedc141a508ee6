"""`python -m processors check`: whether a text satisfies a constraint, and where it does not."""

from __future__ import annotations

import json
import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

pytest.importorskip("typer")

from typer.testing import CliRunner

import outlines_core as oc
from processors.cli import app
from processors.cli.check import find

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "maximum": 120}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)
BYTES = oc.Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)})


def run(*arguments: str, input: str | bytes | None = None):
    return CliRunner().invoke(app, ["check", *arguments], input=input)


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (["--regex", "[0-9]{4}-[0-9]{2}"], "2026-11"),
        (["--choice", "yes", "--choice", "nö"], "nö"),
        (["--schema", PERSON], '{"name": "Ünal",\n\t"age": 120}'),
        (["--schema", PERSON, "--property-order", "any"], '{"age": 1e1, "name": ""}'),
        (["--grammar", "arithmetic"], "1 + 2 * (3 - x)"),
        (["--grammar", "words"], "Some words, and more."),
        (["--regex", ""], ""),
    ],
)
def test_what_satisfies(constraint, text):
    done = run(*constraint, "--", text)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "satisfied\n", "")


@pytest.mark.parametrize(
    ("constraint", "text", "place", "expected"),
    [
        (["--regex", "[0-9]{4}-[0-9]{2}"], "2026-1x", (6, 6, 1, 7, "x"), "next byte: '0'-'9'"),
        (["--regex", "[0-9]{4}-[0-9]{2}"], "2026-1", (6, 6, 1, 7, None), "next byte: '0'-'9'"),
        (["--regex", "a"], "ab", (1, 1, 1, 2, "b"), "the text may end here"),
        (["--regex", "n[öü]"], "nä", (2, 1, 1, 2, "ä"), "0xB6"),
        (["--choice", "yes", "--choice", "no"], "maybe", (0, 0, 1, 1, "m"), "'n'"),
        (["--schema", PERSON], '{"name": "Ünal",\n "age": "x"}', (26, 25, 2, 9, '"'), "at $.age: a value is expected"),
        (["--schema", PERSON], '{"name": "A", "age": 121}', (23, 23, 1, 24, "1"), "<= 120"),
        (["--schema", PERSON, "--whitespace", "compact"], '{"name": "A"}', (8, 8, 1, 9, " "), "$.name"),
        (["--grammar", "arithmetic"], "1 + * 2", (4, 4, 1, 5, "*"), "'('"),
        (["--grammar", "json"], "[1,\n2,\n]", (7, 7, 3, 1, "]"), "'0'-'9'"),
    ],
)
def test_where_it_fails(constraint, text, place, expected):
    done = run(*constraint, "--json", "--", text)
    assert done.exit_code == 1, done.output
    answer = json.loads(done.stdout)
    assert answer["satisfied"] is False
    assert tuple(answer[name] for name in ("byte", "offset", "line", "column", "found")) == place
    assert expected in answer["expected"]


def test_the_place_is_drawn():
    done = run("--regex", "[a-z ]+\n[0-9]+", "some words\n12x4")
    assert done.exit_code == 1
    assert done.stdout.startswith(
        "not satisfied: 'x' cannot stand here (line 2, column 3, byte 13)\n  12x4\n    ^\nexpected"
    )


def test_a_long_line_is_shown_around_the_place():
    done = run("--regex", "a*", "a" * 500 + "b" + "c" * 500)
    _, shown, caret, _ = done.stdout.split("\n", 3)
    assert len(shown) < 100
    assert shown[caret.index("^")] == "b"


def test_a_text_that_ends_too_early():
    done = run("--choice", "yes", "ye")
    assert done.exit_code == 1
    assert done.stdout.startswith("not satisfied: the text ends too early (line 1, column 3, byte 2)\n  ye\n    ^\n")


def test_a_file_and_standard_input(tmp_path):
    path = tmp_path / "answer.json"
    path.write_text('{"name": "é", "age": 3}\n', encoding="utf-8")
    assert run("--schema", PERSON, "--file", str(path)).exit_code == 0
    assert run("--regex", "é+", "--file", "-", input="éé\r\n").exit_code == 0
    assert run("--regex", "é+", "--file", "-", input=b"\xc3\xa9\xff").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x"], "give one constraint"),
        (["x", "--regex", "a", "--choice", "b"], "give one constraint"),
        (["--regex", "a"], "either a TEXT or --file"),
        (["--regex", "a", "x", "--file", "y"], "either a TEXT or --file"),
        (["--regex", "a", "--file", "no/such/file"], "cannot read no/such/file"),
        (["--regex", "a(", "x"], "unterminated subpattern"),
        (["--schema", "{", "x"], "malformed JSON"),
        (["--grammar", "pyton", "x"], "no grammar that ships"),
    ],
)
def test_wrong_commands(arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""


@given(st.text(alphabet="ab\né", max_size=6))
def test_the_place_is_the_first_from_which_nothing_leads_on(text):
    pattern = "(ab|a\n|é{2})*"
    finding = find(oc.compile_regex(pattern, BYTES), text.encode())
    if re.fullmatch(pattern, text):
        assert finding is None
        return
    words = ["ab", "a\n", "éé"]

    def is_beginning(prefix: str) -> bool:
        return not prefix or any(
            word.startswith(prefix) or (prefix.startswith(word) and is_beginning(prefix[len(word) :])) for word in words
        )

    right = next((n for n in range(len(text)) if not is_beginning(text[: n + 1])), len(text))
    assert finding is not None
    assert (finding.offset, finding.found) == (right, text[right : right + 1] or None)
    assert finding.line == text[:right].count("\n") + 1
