"""`python -m processors` and `python -m outlines_core`, through their own front doors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("transformers")

import lark
from typer.testing import CliRunner

from processors import grammars
from processors.cli import app
from processors.cli.generate import read_prompts

ROOT = Path(__file__).resolve().parents[2]
DATE = r"(19|20)\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"


def run(*arguments: str, input: str | None = None):
    return CliRunner().invoke(app, ["generate", *arguments], input=input)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | environment,
        check=False,
    )


class TestOutput:
    def test_one_prompt(self):
        done = run("--regex", DATE, "--prompt", "Today is ", "--seed", "7")
        assert done.exit_code == 0, done.output
        assert re.fullmatch(DATE, done.stdout.removesuffix("\n"))
        assert done.stderr == ""

    @pytest.mark.parametrize(
        "method",
        [
            ["--greedy"],
            ["--temperature", "0.5"],
            ["--beams", "3"],
            ["--beams", "3", "--temperature", "1.5"],
            ["--max-new-tokens", "10"],
        ],
        ids=" ".join,
    )
    def test_methods(self, method):
        pattern = r"[a-c]{2,}( [0-9]+)*\."
        done = run("--regex", pattern, "--prompt", "x", "--seed", "1", *method)
        assert done.exit_code == 0, done.output
        assert re.fullmatch(pattern, done.stdout.removesuffix("\n"))

    def test_seed_decides(self):
        arguments = ["--regex", "[a-z]{20}", "--prompt", "x", "--seed"]
        first, again, other = (run(*arguments, seed).stdout for seed in ("5", "5", "6"))
        assert first == again != other

    def test_choice(self):
        done = run("--choice", "yes", "--choice", "no (really)", "--prompt", "Well?", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["text"] in ("yes", "no (really)")

    def test_long_text_is_closed_in_time(self):
        pattern = r'"[a-z ]*"'
        done = run("--regex", pattern, "--prompt", "x", "--max-new-tokens", "6", "--json", "--seed", "3")
        assert done.exit_code == 0, done.output
        record = json.loads(done.stdout)
        assert re.fullmatch(pattern, record["text"])
        assert record["finished"] is True
        assert record["tokens"] <= 6

    def test_text_that_is_not_ascii(self):
        done = run("--regex", "(?:é|你好|😀){4}", "--prompt", "ü", "--seed", "1")
        assert done.exit_code == 0, done.output
        assert re.fullmatch("(?:é|你好|😀){4}", done.stdout.removesuffix("\n"))

    def test_empty_prompt(self):
        done = run("--regex", "[ab]", "--prompt", "")
        assert done.exit_code == 0, done.output
        assert done.stdout in ("a\n", "b\n")


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z][a-z]+$"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def judged(text: str, schema=PERSON):
    jsonschema = pytest.importorskip("jsonschema")
    value = json.loads(text)
    jsonschema.validate(value, schema)
    return value


class TestGrammar:
    ARGUMENTS = ("--prompt", "x", "--seed", "5", "--max-new-tokens", "24")

    @staticmethod
    def parses(name: str, text: str) -> bool:
        lark.Lark(grammars.load(name), **grammars.options(name)).parse(text)
        return True

    def test_a_shipped_one(self):
        done = run("--grammar", "words", *self.ARGUMENTS, "--json")
        assert done.exit_code == 0, done.output
        record = json.loads(done.stdout)
        assert record["finished"]
        assert self.parses("words", record["text"])

    def test_a_file(self, tmp_path):
        path = tmp_path / "words.lark"
        path.write_text(grammars.load("words"), encoding="utf-8")
        done = run("--grammar", str(path), *self.ARGUMENTS)
        assert done.exit_code == 0, done.output
        assert self.parses("words", done.stdout.removesuffix("\n"))

    def test_a_text(self):
        done = run("--grammar", 'start: ("ab" | "c" start "c")', *self.ARGUMENTS)
        assert done.exit_code == 0, done.output
        assert re.fullmatch(r"(c*)ab\1", done.stdout.strip())

    @pytest.mark.parametrize(
        ("grammar", "message"),
        [
            ("pyton", "pyton is no grammar that ships (arithmetic, c_expressions, "),
            ("start: b", "Lark refuses the grammar"),
            ("start: A A\nA: /a+/", "no text at all"),
        ],
    )
    def test_what_is_refused(self, grammar, message):
        done = run("--grammar", grammar, *self.ARGUMENTS)
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())


class TestSchema:
    ARGUMENTS = ("--prompt", "x", "--seed", "5", "--max-new-tokens", "40")

    def test_a_text(self):
        done = run("--schema", json.dumps(PERSON), *self.ARGUMENTS)
        assert done.exit_code == 0, done.output
        assert done.stdout.count("\n") == 1
        assert list(judged(done.stdout)) == ["name", "age"]
        assert done.stderr == ""

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
    def test_a_file(self, tmp_path, encoding):
        path = tmp_path / "person.json"
        path.write_text(json.dumps(PERSON, indent=2), encoding=encoding)
        done = run("--schema", str(path), *self.ARGUMENTS, "--json")
        assert done.exit_code == 0, done.output
        record = json.loads(done.stdout)
        judged(record["text"])
        assert record["finished"] is True

    def test_a_name_in_a_module(self):
        done = run("--schema", f"{__name__}:Model.inner", *self.ARGUMENTS)
        assert done.exit_code == 0, done.output
        assert set(judged(done.stdout, {"type": "object", "required": ["flag"]})) <= {"flag", "times"}

    def test_options(self):
        done = run(
            "--schema", json.dumps(PERSON), "--whitespace", "compact", "--property-order", "any", *self.ARGUMENTS
        )
        assert done.exit_code == 0, done.output
        judged(done.stdout)
        assert " " not in done.stdout

    def test_batch(self):
        done = run("--schema", '{"enum": [1, "two", null]}', "--batch", "-", "--seed", "1", input="a\nb\nc\n")
        assert done.exit_code == 0, done.output
        assert all(json.loads(line) in (1, "two", None) for line in done.stdout.splitlines())

    @pytest.mark.parametrize(
        ("schema", "message"),
        [
            (
                '{"properties": {"a": {"minLength": "3"}}}',
                '"minLength" must be a non-negative integer, not "3" (at #/properties/a/minLength)',
            ),
            ('{"properties": {"a/b": {"pattern": "(a)\\\\1"}}}', "(at #/properties/a~1b/pattern): back-references"),
            ('{"$ref": "#/$defs/x"}', "(at #/$ref)"),
            ('{"type": "object", }', "malformed JSON"),
            ('{"type": "integer", "minimum": 5, "maximum": 4}', "no JSON value satisfies"),
            ('{"$ref": "#"}', "refers to itself"),
            ('{"type": "string", "minLength": 5000}', "--max-new-tokens 40 is too few"),
            ("no/such/file.json", "No such file"),
            ("no_such_module:Name", "there is no module no_such_module"),
            ("json:Nothing", "the module json has no Nothing"),
            ("json:__name__", "malformed JSON"),
        ],
    )
    def test_what_is_refused(self, schema, message):
        done = run("--schema", schema, *self.ARGUMENTS)
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr

    def test_whitespace_that_is_none(self):
        done = run("--schema", "true", "--whitespace", "x", *self.ARGUMENTS)
        assert done.exit_code == 2
        assert "the whitespace pattern 'x'" in done.stderr


class Model:
    """A namespace, as modules have them."""

    @staticmethod
    def inner(flag: bool, times: int = 1): ...


class TestBatch:
    def test_lines_to_a_file(self, tmp_path):
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a\n\na much longer prompt than the first\nthird\n", encoding="utf-8")
        out = tmp_path / "out.jsonl"
        done = run(
            "--regex", DATE, "--batch", str(prompts), "--batch-size", "2", "--out", str(out), "--json", "--seed", "11"
        )
        assert done.exit_code == 0, done.output
        assert done.stdout == ""
        records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [r["prompt"] for r in records] == ["a", "a much longer prompt than the first", "third"]
        assert all(re.fullmatch(DATE, r["text"]) and r["finished"] and r["seed"] == 11 for r in records)

    def test_standard_input(self):
        done = run("--regex", "[0-9]{3}", "--batch", "-", input="one\ntwo\n")
        assert done.exit_code == 0, done.output
        assert re.fullmatch(r"([0-9]{3}\n){2}", done.stdout)

    def test_jsonl_may_hold_line_breaks(self, tmp_path):
        path = tmp_path / "prompts.jsonl"
        path.write_text('{"prompt": "two\\nlines", "id": 1}\n{"prompt": ""}\n', encoding="utf-8")
        assert read_prompts(str(path)) == ["two\nlines", ""]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', "line 2"),
            ("p.jsonl", '{"prompt": 5}\n', '"prompt"'),
            ("p.jsonl", "not json\n", "not JSON"),
            ("p.txt", "\n \n", "holds no prompt"),
        ],
    )
    def test_bad_files(self, tmp_path, name, content, message):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        done = run("--regex", "a", "--batch", str(path))
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())

    def test_missing_file(self, tmp_path):
        done = run("--regex", "a", "--batch", str(tmp_path / "none.txt"))
        assert done.exit_code == 2
        assert "cannot read" in done.stderr


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--prompt", "x"], "give one constraint"),
            (["--prompt", "x", "--regex", "a", "--choice", "b"], "give one constraint"),
            (["--prompt", "x", "--regex", "a", "--schema", "true"], "give one constraint"),
            (["--prompt", "x", "--schema", "true", "--property-order", "random"], "--property-order"),
            (["--regex", "a"], "either --prompt or --batch"),
            (["--regex", "a", "--prompt", "x", "--batch", "f"], "either --prompt or --batch"),
            (["--regex", "a", "--prompt", "x", "--temperature", "0"], "above 0"),
            (["--regex", "a", "--prompt", "x", "--temperature", "nan"], "above 0"),
            (["--regex", "a", "--prompt", "x", "--temperature", "1", "--greedy"], "excludes --greedy"),
            (["--regex", "a", "--prompt", "x", "--max-new-tokens", "0"], "--max-new-tokens"),
            (["--regex", "a", "--prompt", "x", "--model", "./no/such/model"], "no such directory"),
            (["--regex", "a", "--prompt", "x", "--device", "toaster"], "--device toaster"),
            (["--regex", "[a-z]{500}", "--prompt", "x", "--max-new-tokens", "9"], "--max-new-tokens 9 is too few"),
        ],
    )
    def test_wrong_commands(self, arguments, message):
        done = run(*arguments)
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.stderr.split())
        assert done.stdout == ""

    def test_bad_pattern_is_shown_with_its_place(self):
        done = run("--regex", "a+(b|c", "--prompt", "x")
        assert done.exit_code == 2
        assert "  a+(b|c\n    ^" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_pattern_that_is_not_regular(self):
        done = run("--regex", r"(a|b)\1", "--prompt", "x")
        assert done.exit_code == 2
        assert "^" in done.stderr

    def test_a_pattern_that_nothing_matches(self):
        done = run("--regex", r"a\bb", "--prompt", "x")
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")

    def test_output_that_cannot_be_written(self, tmp_path):
        done = run("--regex", "a", "--prompt", "x", "--out", str(tmp_path / "no" / "file"))
        assert done.exit_code == 1
        assert "cannot write" in done.stderr

    def test_directory_without_a_model(self, tmp_path):
        done = run("--regex", "a", "--prompt", "x", "--model", str(tmp_path))
        assert done.exit_code == 1
        assert "cannot load the model" in done.stderr


class TestFrontDoors:
    def test_help_names_every_option(self):
        done = run("--help")
        assert done.exit_code == 0
        for option in (
            "--regex",
            "--choice",
            "--schema",
            "--property-order",
            "--whitespace",
            "--prompt",
            "--batch",
            "--model",
            "--seed",
            "--greedy",
            "--out",
            "--json",
        ):
            assert option in done.stdout
        assert "Examples:" in done.stdout

    def test_module_runs_quietly(self):
        done = python("-m", "processors", "generate", "--regex", "(é|ß)[a-d]{5}", "--prompt", "x", PYTHONUTF8="1")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch("(é|ß)[a-d]{5}\n", done.stdout)
        assert done.stderr == ""

    def test_versions(self):
        for module in ("processors", "outlines_core"):
            done = python("-m", module, "--version")
            assert done.returncode == 0, done.stderr
            assert re.fullmatch(r"\S+ \d+\.\d+\.\d+\n", done.stdout)

    def test_missing_extra_is_named(self):
        code = (
            "import runpy, sys\nsys.modules['typer'] = None\nsys.argv = ['processors', 'generate']\n"
            "runpy.run_module('processors', run_name='__main__')"
        )
        done = python("-c", code)
        assert done.returncode == 1
        assert "outlines-processors[hf]" in done.stderr
        assert "Traceback" not in done.stderr

    def test_warmup_says_what_it_did(self):
        pytest.importorskip("outlines_core.warmup")
        done = python("-m", "outlines_core", "warmup")
        assert done.returncode == 0, done.stderr
        assert re.match(r"kernels ready in \d+\.\d s\n", done.stdout)
        assert "compiled code: " in done.stdout
        assert done.stderr == ""

    def test_core_without_a_command(self):
        done = python("-m", "outlines_core")
        assert done.returncode == 2
        assert "warmup" in done.stderr or "COMMAND" in done.stderr
