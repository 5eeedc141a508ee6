"""Loaded grammars on disk: what comes back is what was loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lark
import pytest
from lark.indenter import PythonIndenter

from outlines_core.grammar import stored
from outlines_core.grammar.loading import load_grammars
from outlines_core.grammar.viability import all_stacks_live

PYTHON = (Path(lark.__file__).parent / "grammars" / "python.lark").read_text(encoding="utf-8")
SMALL = 'start: a+ | "b"~2..3\na: NAME ["=" NUMBER]\n%import common.CNAME -> NAME\n%import common.NUMBER\n%ignore " "\n'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OUTLINES_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(stored, "_WORTH", 0)
    return tmp_path


def options(**given: Any) -> dict[str, Any]:
    return {"start": "start", "postlex": None, "import_paths": (), "lexer": "contextual", "parser": None, **given}


@pytest.mark.parametrize("lexer", ["contextual", "basic", "dynamic", "scannerless"])
def test_what_comes_back_is_what_was_loaded(lexer: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(lexer=lexer)
    loaded = stored.load_stored(SMALL, **given)
    (again,) = load_grammars(SMALL, **given)  # Lark numbers the states anew each time
    assert [loaded[0][k] for k in range(5)] == [again[k] for k in range(5)]
    assert len(list(cache.glob("*/*.bin"))) == 1
    monkeypatch.setattr(stored, "load_grammars", None)
    assert stored.load_stored(SMALL, **given) == loaded


def test_options_matter(cache: Path) -> None:
    given = options()
    first = stored.load_stored(SMALL, **given)
    assert stored.load_stored(SMALL, **given, g_regex_flags=2) != first
    assert len(stored.load_stored(SMALL, **options(start=["start", "a"]))) == 2
    assert len(list(cache.glob("*/*.bin"))) == 3


def test_an_indenter_and_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(start="file_input", postlex=PythonIndenter())
    (grammar,) = stored.load_stored(PYTHON, **given)
    assert stored.stored_proof(grammar, {}, all_stacks_live)
    monkeypatch.setattr(stored, "load_grammars", None)
    assert stored.load_stored(PYTHON, **given) == (grammar,)
    assert stored.stored_proof(grammar, {}, lambda *_: pytest.fail("it is known"))


def test_grammars_that_read_files_are_read_again(tmp_path: Path, cache: Path) -> None:
    other = tmp_path / "other.lark"
    text = "start: x\n%import other.x\n"
    for letter in "ab":
        other.write_text(f'x: "{letter}"\n', encoding="utf-8")
        (grammar,) = stored.load_stored(text, **options(import_paths=(str(tmp_path),)))
        assert [t.regexp for t in grammar.terminals] == [letter]
    assert not list(cache.glob("*/*.bin"))


def test_a_damaged_entry_is_made_again(cache: Path) -> None:
    loaded = stored.load_stored(SMALL, **options())
    (entry,) = cache.glob("*/*.bin")
    entry.write_bytes(entry.read_bytes()[:-7])
    (again,) = stored.load_stored(SMALL, **options())
    assert again.rules == loaded[0].rules
    assert len(list(cache.glob("*/*.bin"))) == 1
