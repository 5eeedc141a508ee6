"""The Python in README.md and docs/ runs, and README.md holds the commands that `.ci/run` takes from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_CODE = ("cli.md", "compatibility.md", "performance.md")  # commands: test_cli_docs; rows: test_compatibility
DOCUMENTS = [
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in WITHOUT_CODE),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_blocks_run(document):
    pytest.importorskip("transformers")
    blocks = re.findall(r"^```python\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("which", ["run", "test"])
def test_readme_commands(which):
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "readme.py", which], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt ")
    assert "\n" not in done.stdout.strip()


def test_readme_shows_what_its_command_gives(tmp_path):
    output = tmp_path / "output"
    command = [sys.executable, str(ROOT / ".ci" / "readme.py"), "check", str(output)]
    output.write_text('noise of pip\n{"name": "Abc", "age": 5, "city": "D"}\n')
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    output.write_text('{"name": "Abc", "age": five, "city": "D"}\n')
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
