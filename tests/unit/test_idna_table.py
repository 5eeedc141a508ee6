"""The table of IDNA code points is what its script makes of the version of `idna` that it names."""

from __future__ import annotations

import pytest

idna = pytest.importorskip("idna")

from scripts import make_idna  # noqa: E402  # needs idna


def test_the_script_makes_the_committed_table():
    committed = make_idna.TABLE.read_text(encoding="ascii")
    if f"the Python package idna {idna.__version__}" not in committed:
        pytest.skip(f"idna {idna.__version__} is not the version of the table")
    assert make_idna.table() == committed


def test_runs():
    assert make_idna.runs([97 << 32 | 100, 100, 103]) == [97, 4, 2, 1]
