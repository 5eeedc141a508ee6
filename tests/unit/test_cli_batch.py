"""`generate --batch --out FILE.jsonl`: killed at any moment and started again, nothing is lost and nothing doubled."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("transformers")

import typer
from typer.testing import CliRunner

from processors.cli import _batch, app
from processors.cli._journal import Journal

ROOT = Path(__file__).resolve().parents[2]
PATTERN = "[a-z]{3,12}( [a-z]{3,12}){2}"


def run(*arguments: str):
    return CliRunner().invoke(app, ["generate", *arguments])


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Words {i % 7}: "}) + "\n" for i in range(60)), encoding="utf-8")
    return path


def command(prompts: Path, out: Path, *more: str) -> list[str]:
    return ["--batch", str(prompts), "--out", str(out), "--regex", PATTERN, "--seed", "5", "--batch-size", "3", *more]


class TestKilled:
    def test_and_started_again(self, prompts, tmp_path):
        """SIGKILL in the middle; the same command then gives the file that an undisturbed one gives."""
        whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
        assert run(*command(prompts, whole)).exit_code == 0
        ours, theirs = pty.openpty()  # standard error is a terminal: the bar is drawn
        termios.tcsetwinsize(theirs, (24, 100))
        child = subprocess.Popen(
            [sys.executable, "-m", "processors", "generate", *command(prompts, out)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        os.close(theirs)
        drawn = bytearray()
        reader = threading.Thread(target=lambda: _drain(ours, drawn), daemon=True)
        reader.start()
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and (not out.exists() or out.read_bytes().count(b"\n") < 6):
            assert child.poll() is None, drawn.decode()
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        n_before = out.read_bytes().count(b"\n")
        assert 6 <= n_before < 60
        reader.join(10)
        assert re.search(r"tokens/s", drawn.decode())

        done = run(*command(prompts, out))
        assert done.exit_code == 0, done.output
        assert done.stderr == f"going on behind {n_before} of 60 answers\n"
        assert out.read_bytes() == whole.read_bytes()
        records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [record["index"] for record in records] == list(range(60))
        assert [record["prompt"] for record in records] == [f"Words {i % 7}: " for i in range(60)]
        assert all(re.fullmatch(PATTERN, record["text"]) and record["finished"] for record in records)
        assert len({record["text"] for record in records}) > 50  # a seed for each, equal prompts included

        again = run(*command(prompts, out))
        assert (again.exit_code, again.stderr) == (0, "nothing to do: all 60 prompts are answered\n")
        assert out.read_bytes() == whole.read_bytes()


def _drain(terminal: int, into: bytearray) -> None:
    try:
        while data := os.read(terminal, 4096):
            into += data
    except OSError:  # the other end is closed
        os.close(terminal)


class TestJournal:
    PROMPTS = ("a", "ü\n", "a")

    def write(self, path: Path, first: int = 0) -> None:
        with Journal(path, "job", self.PROMPTS, overwrite=False) as journal:
            assert journal.n_done >= first
            for prompt in self.PROMPTS[journal.n_done :]:
                journal.write(
                    {"prompt": prompt, "text": f"{prompt}é", "tokens": 2, "finished": prompt == "a", "seed": 3}
                )
                journal.sync()
            assert (journal.n_done, journal.n_unfinished) == (3, 1)

    def test_goes_on_wherever_it_was_cut(self, tmp_path):
        path = tmp_path / "whole.jsonl"
        self.write(path)
        data = path.read_bytes()
        assert [json.loads(line)["index"] for line in data.splitlines()] == [0, 1, 2]
        for n in range(len(data) + 1):
            cut = tmp_path / "cut.jsonl"
            cut.write_bytes(data[:n])
            self.write(cut, first=data[:n].count(b"\n"))
            assert cut.read_bytes() == data

    def refused(self, path: Path, capsys, job: str = "job", prompts=PROMPTS) -> str:
        before = path.read_bytes()
        with pytest.raises(typer.Exit) as info:
            Journal(path, job, prompts, overwrite=False)
        assert info.value.exit_code in (1, 2)
        assert path.read_bytes() == before
        return capsys.readouterr().err

    def test_what_it_does_not_touch(self, tmp_path, capsys):
        path = tmp_path / "out.jsonl"
        self.write(path)
        assert "another constraint, model or options" in self.refused(path, capsys, job="other")
        assert "line 2, answers another prompt" in self.refused(path, capsys, prompts=("a", "b", "a"))
        assert "line 3, answers another prompt" in self.refused(path, capsys, prompts=self.PROMPTS[:2])
        path.write_text('{"text": "mine"}\n', encoding="utf-8")
        assert "line 1, was not written by a batch" in self.refused(path, capsys)
        path.write_text("notes\n", encoding="utf-8")
        assert "pass --overwrite" in self.refused(path, capsys)
        with Journal(path, "job", self.PROMPTS, overwrite=True) as journal:
            assert journal.n_done == 0
        assert path.read_bytes() == b""

    def test_more_prompts_may_have_come(self, tmp_path):
        path = tmp_path / "out.jsonl"
        self.write(path)
        with Journal(path, "job", (*self.PROMPTS, "new"), overwrite=False) as journal:
            assert (journal.n_done, journal.seed) == (3, 3)

    def test_one_job_at_a_time(self, tmp_path, capsys):
        pytest.importorskip("fcntl")
        path = tmp_path / "out.jsonl"
        with Journal(path, "job", self.PROMPTS, overwrite=False):
            assert "another process is writing" in self.refused(path, capsys)


class TestOptions:
    def test_another_seed_or_constraint_is_refused(self, prompts, tmp_path):
        out = tmp_path / "out.jsonl"
        base = ["--batch", str(prompts), "--out", str(out), "--batch-size", "60"]
        assert run(*base, "--choice", "yes", "--seed", "5").exit_code == 0
        before = out.read_bytes()
        for more, message in (
            (["--choice", "yes", "--seed", "6"], "begun with --seed 5"),
            (["--choice", "no"], "another constraint"),
            (["--choice", "yes", "--greedy"], "another constraint, model or options"),
        ):
            done = run(*base, *more)
            assert done.exit_code == 2
            assert message in done.stderr
            assert out.read_bytes() == before
        assert run(*base, "--choice", "no", "--overwrite").exit_code == 0
        assert {json.loads(line)["text"] for line in out.read_text(encoding="utf-8").splitlines()} == {"no"}

    def test_beams_go_on_too(self, prompts, tmp_path):
        whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
        prompts.write_text("".join(f'{{"prompt": "p{i}"}}\n' for i in range(4)), encoding="utf-8")
        more = ["--beams", "2", "--temperature", "1.5", "--max-new-tokens", "30"]
        assert run(*command(prompts, whole, *more)).exit_code == 0
        out.write_bytes(whole.read_bytes()[:150])
        assert run(*command(prompts, out, *more)).exit_code == 0
        assert out.read_bytes() == whole.read_bytes()


class TestStream:
    def test_is_the_text(self):
        arguments = ["--prompt", "x", "--regex", "(é|[a-z]){30}", "--seed", "2"]
        done = run(*arguments, "--stream")
        assert done.exit_code == 0, done.output
        assert done.stdout == run(*arguments).stdout
        assert done.stderr == ""

    @pytest.mark.parametrize("more", [["--beams", "2"], ["--json"], ["--out", "x"]], ids=" ".join)
    def test_what_it_excludes(self, more):
        done = run("--prompt", "x", "--regex", "a", "--stream", *more)
        assert done.exit_code == 2
        assert "--stream shows one --prompt's text" in " ".join(done.stderr.split())


class TestProgress:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def drawn(self, monkeypatch, stream) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        with _batch.Progress(10, 2) as progress:
            for _ in range(3):
                progress.tokens(40)
                time.sleep(0.06)
                progress.prompts(2)
        return stream.getvalue()

    def test_on_a_terminal(self, monkeypatch):
        text = self.drawn(monkeypatch, self.Terminal())
        assert re.search(r"generating:.*/10.*[0-9,]+ tokens/s", text)

    def test_elsewhere_it_is_silent(self, monkeypatch):
        assert self.drawn(monkeypatch, io.StringIO()) == ""
