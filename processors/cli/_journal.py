"""The file that a batch writes: one JSON record a line, complete at every moment, so that a killed job can go on.

The records themselves say how far the job came; there is no second file that could disagree with them. Each holds the
number of its prompt and a digest of all that the texts depend on beside the prompts and the seed. A job that finds
records goes on behind them if they are its own, and refuses to touch the file if they are not. Lines are appended in
the order of the prompts; a line that a crash cut in two is dropped and written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from processors.cli._failures import fail

__all__ = ["Journal", "digest"]


def digest(settings: Any) -> str:
    """Sixteen hexadecimal digits of what a job's texts depend on."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Journal:
    """The records of a job, opened to be gone on with.

    Attributes:
        n_done: how many prompts have a record.
        n_unfinished: how many of these records hold a text that was cut.
        seed: that they were made with; None if there is none.
    """

    def __init__(self, path: Path, job: str, prompts: Sequence[str], *, overwrite: bool) -> None:
        """Open the file, lock it, and read what it holds; ends the command if that is not from this job."""
        self._path, self._job = path, job
        try:
            self._file = path.open("r+b" if path.exists() else "x+b")
        except OSError as error:
            fail(f"cannot write to {path}: {error.strerror}")
        self.n_done, self.n_unfinished = 0, 0
        self.seed: int | None = None
        with ExitStack() as on_failure:
            on_failure.callback(self._file.close)
            self._lock()
            if overwrite:
                self._file.truncate(0)
            end = 0
            for line in self._file:
                if not line.endswith(b"\n"):
                    break
                self._read(line, prompts)
                end += len(line)
            self._file.truncate(end)
            self._file.seek(end)
            on_failure.pop_all()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: two jobs on one file are the user's to avoid
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fail(f"another process is writing to {self._path}")

    def _read(self, line: bytes, prompts: Sequence[str]) -> None:
        remedy = "name another file, or pass --overwrite"
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or record.get("index") != self.n_done or "job" not in record:
            fail(f"{self._path}, line {self.n_done + 1}, was not written by a batch: {remedy}", code=2)
        if record["job"] != self._job:
            fail(
                f"{self._path} holds the records of a job with another constraint, model or options: go on with the "
                f"same command, {remedy}",
                code=2,
            )
        if self.n_done >= len(prompts) or record["prompt"] != prompts[self.n_done]:
            fail(f"{self._path}, line {self.n_done + 1}, answers another prompt than this batch's: {remedy}", code=2)
        self.n_done += 1
        self.n_unfinished += not record["finished"]
        self.seed = record["seed"]

    def write(self, record: dict[str, Any]) -> None:
        """Append the record of the next prompt."""
        line = json.dumps({"index": self.n_done, **record, "job": self._job}, ensure_ascii=False)
        self._file.write(line.encode("utf-8", "surrogatepass") + b"\n")
        self.n_done += 1
        self.n_unfinished += not record["finished"]

    def sync(self) -> None:
        """Bring what was written to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
