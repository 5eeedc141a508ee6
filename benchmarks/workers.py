"""Engines in processes of their own, asked one after the other."""

from __future__ import annotations

import json
import os
import pathlib
import select
import subprocess
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["Worker", "command_of", "serve"]


class Worker:
    """A process that answers one line of JSON with another.

    Args:
        command: what starts it; its first line says that it is ready (and may say more: `greeting`).
        timeout: seconds that starting may take.
    """

    def __init__(self, command: list[str], timeout: float = 600.0) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.greeting: Any = self._read(timeout)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def _read(self, timeout: float) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            self.close()
            return {"failed": f"no answer in {timeout:g} s"}
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        self.close()
        return {"failed": f"ended with status {status}"}

    def ask(self, question: Any, timeout: float = 600.0) -> Any:
        """The answer, or a dict with `failed`: why there is none."""
        if not self.is_alive:
            return {"failed": "the process has ended"}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read(timeout)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()  # waits, and closes the pipes


def serve(start: Callable[[], tuple[Any, Callable[[Any], Any]]]) -> None:
    """Be a worker: `start` gives the greeting and what answers questions.  What engines print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    greeting, answer = start()
    print(json.dumps(greeting), file=channel, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=channel, flush=True)


def command_of(python: str, script: str, engine: str, *arguments: str) -> list[str]:
    """Starts a worker of a script; peers without our packages on their path (one shares our import name)."""
    isolated = [] if engine.startswith("ours") else ["-I"]
    return [python, *isolated, str(pathlib.Path(script).resolve()), "--worker", engine, *arguments]
