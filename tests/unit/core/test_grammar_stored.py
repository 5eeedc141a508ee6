"""Loaded grammars on disk: what comes back is what was loaded."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lark
import numpy as np
import pytest
from lark.indenter import PythonIndenter

import outlines_core as oc
from outlines_core import grammar_compile
from outlines_core.cache import encode_arrays
from outlines_core.compile import clear_cache
from outlines_core.grammar import stored
from outlines_core.grammar.loading import load_grammars

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


def test_an_indenter_and_the_proof(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = oc.Vocabulary(0, {bytes([k]): [k + 1] for k in range(256)})
    text = b"def f(x):\n    return [x,\n1]\n"

    def masks() -> list[bytes]:
        automaton = oc.compile_grammar(PYTHON, vocabulary, start="file_input", postlex=PythonIndenter())
        state, found = automaton.initial_state, []
        for byte in text:
            mask = oc.allocate_bitmask(1, vocabulary)[0]
            automaton.fill_mask(state, mask)
            found.append(mask.tobytes())
            state = automaton.next_state(state, byte + 1)
        assert automaton.is_accepting(state)
        return found

    first = masks()
    assert len(list(cache.glob("*/*.bin"))) >= 2  # tables; lexers and proofs
    monkeypatch.setattr(stored, "load_grammars", None)
    monkeypatch.setattr(grammar_compile, "all_stacks_live", None)
    clear_cache()
    assert masks() == first


def test_entries_hold_no_code(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("harm",)

    loaded = stored.load_stored(SMALL, **options())
    for value in (Harm(), stored.load_stored, Path("/")):
        (path,) = cache.glob("*/*.bin")
        path.write_bytes(encode_arrays({"pickle": np.frombuffer(pickle.dumps(value), dtype=np.uint8)}))
        assert stored.load_stored(SMALL, **options())[0][:5] == loaded[0][:5]
        assert "is not part of a grammar" in caplog.text
        caplog.clear()


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
