"""`python -m processors chat`: a conversation, line by line."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("transformers")

from typer.testing import CliRunner

from processors import load_embedded
from processors.cli import app
from processors.generation import ChatSampler, Greedy

ROOT = Path(__file__).resolve().parents[2]
DATE = r"(19|20)\d\d-(0[1-9]|1[0-2])-[0-2]\d"


def run(*arguments: str, input: str = ""):
    return CliRunner().invoke(app, ["chat", *arguments], input=input)


def test_answers_are_those_of_a_chat_sampler():
    model, tokenizer = load_embedded()
    messages = ["Extract: Maria Lopez, 34, lives in Oslo", "As SQL"]
    talk = ChatSampler(model, tokenizer=tokenizer, sampling=Greedy(), multi_turn=True, max_out_length=40)
    expected = [talk.chat(message, max_new_tokens=40) for message in messages]
    done = run("--greedy", "--max-new-tokens", "40", input="\n".join(messages) + "\n")
    assert done.exit_code == 0, done.output
    assert done.stdout == "".join(answer + "\n" for answer in expected)
    assert done.stderr == ""


def test_new_forgets():
    done = run("--greedy", "--max-new-tokens", "30", input="Extract: Ana, 5, Rome\nAs SQL\n/new\nAs SQL\n/quit\nmore\n")
    assert done.exit_code == 0, done.output
    _, second, third = done.stdout.splitlines()
    assert second != third


def test_answers_obey_a_constraint():
    done = run("--regex", DATE, "--seed", "3", "--temperature", "2", input="When?\n\nAnd then?\n")
    assert done.exit_code == 0, done.output
    assert re.fullmatch(f"({DATE}\n){{2}}", done.stdout)
    assert done.stdout == run("--regex", DATE, "--seed", "3", "--temperature", "2", input="When?\nAnd then?\n").stdout


def test_a_constrained_answer_is_closed_in_time():
    schema = {"type": "object", "properties": {"notes": {"type": "array", "items": {"type": "string"}}}}
    done = run("--schema", json.dumps(schema), "--seed", "1", "--max-new-tokens", "12", input="Notes?\n")
    assert done.exit_code == 0, done.output
    assert isinstance(json.loads(done.stdout), dict)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "above 0"),
        (["--temperature", "1", "--greedy"], "excludes --greedy"),
        (["--regex", "a", "--choice", "b"], "give one constraint"),
        (["--regex", "a("], "unterminated subpattern"),
        (["--regex", "[a-z]{500}", "--max-new-tokens", "5"], "--max-new-tokens 5 is too few"),
        (["--model", "./no/such/model"], "no such directory"),
    ],
)
def test_wrong_commands(arguments, message):
    done = run(*arguments, input="hello\n")
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_a_model_without_a_chat_template(tmp_path):
    model, tokenizer = load_embedded()
    model.save_pretrained(tmp_path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    done = run("--model", str(tmp_path), input="hello\n")
    assert done.exit_code == 2
    assert "has no chat template" in done.stderr


def test_on_a_terminal_it_asks():
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "processors", "chat", "--choice", "yes"],
        cwd=ROOT,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    os.write(ours, b"Is it cold?\n/quit\n")
    out, err = child.communicate(timeout=240)
    os.close(ours)
    assert child.returncode == 0, err
    assert out == "yes\n"
    assert err == "/new begins anew, /quit ends.\n> > "
