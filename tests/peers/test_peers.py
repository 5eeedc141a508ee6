"""The programs of this folder that need nothing but small packages, each in an environment made for it."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.network]
FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Makes an environment with some packages; returns its Python."""

    def make(*packages: str) -> str:
        place = tmp_path_factory.mktemp("environment")
        venv.create(place, with_pip=True)
        python = str(place / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        return python

    return make


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(FOLDER / program), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_outlines_core_0_2(environment):
    said = run("pypi_outlines_core.py", "--new", environment("outlines_core==0.2.14"))
    assert "400 of 400 indexes alike" in said


def test_outlines_core_0_1(environment):
    said = run("pypi_outlines_core.py", "--old", environment("outlines_core==0.1.26", "torch"))
    assert "8 of 8 machines and indexes equal" in said


def test_the_regex_engine_of_rust(environment):
    said = run("rust_regex.py", "--peer", environment("polars"))
    assert ", 0 different" in said
