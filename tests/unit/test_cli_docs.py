"""docs/cli.md shows what its commands print.

A `console` block holds commands behind `$`, each with its output, both streams. `cat` of a file that is not there yet
shows what the file holds, and so makes it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("transformers")

from typer.testing import CliRunner

from processors.cli import app

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def sessions(text: str) -> list[tuple[str, str]]:
    """The commands and what they print."""
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


def printed(command: str) -> str:
    """What a command prints; `printf TEXT |` is its input."""
    given, _, command = command.rpartition(" | python -m processors ") if " | python" in command else ("", "", command)
    words = shlex.split(command.removeprefix("python -m processors "))
    text = shlex.split(given)[1].encode().decode("unicode_escape") if given else None
    done = CliRunner().invoke(app, words, input=text)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.output


def test_commands_print_what_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = sessions(DOCUMENT.read_text(encoding="utf-8"))
    assert len(shown) > 10
    for command, output in shown:
        if command.startswith("cat "):
            path = tmp_path / command.removeprefix("cat ")
            if not path.exists():
                path.write_text(output, encoding="utf-8")
            assert path.read_text(encoding="utf-8") == output
        else:
            assert printed(command) == output, command
