"""Lark grammars that ship with the package.

    >>> from processors import grammars
    >>> grammars.list()
    ['arithmetic', 'c_expressions', 'csv', 'json', 'python', 'sqlite', 'words', 'xml']
    >>> import lark
    >>> parser = lark.Lark(grammars.load("arithmetic"), **grammars.options("arithmetic"))
    >>> print(parser.parse("2 + 3 * x").pretty())
    start
      add
        2
        multiply
          3
          x

Each file opens with what it describes, by which standard, and what it leaves out. All are LALR(1) without conflicts,
for the contextual lexer. What they accept, an independent judge accepts: Python's own parser, `json`, `csv`, SQLite.
"""

from __future__ import annotations

import builtins
import difflib
from importlib import resources
from typing import Any

__all__ = ["list", "load", "options"]

_FOLDER = resources.files(__name__)


def list() -> builtins.list[str]:  # noqa: A001 -- read as `grammars.list()`
    """The names of the grammars, sorted."""
    return sorted(entry.name[: -len(".lark")] for entry in _FOLDER.iterdir() if entry.name.endswith(".lark"))


def load(name: str) -> str:
    """The text of the grammar `name`, as `lark.Lark` and `outlines_core.grammar_compile` take it.

    Raises:
        ValueError: there is no such grammar; the message lists those that there are.
    """
    return (_FOLDER / f"{_checked(name)}.lark").read_text(encoding="utf-8")


def options(name: str) -> dict[str, Any]:
    """The arguments with which the grammar `name` is to be loaded, by `lark.Lark` or `outlines_core.grammar_compile`.

    `start`, `parser` and `lexer`; for Python also `postlex`, which makes blocks of indented lines (an indenter keeps
    its place while it runs, so each call makes another).

    >>> options("json")
    {'start': 'start', 'parser': 'lalr', 'lexer': 'contextual'}

    Raises:
        ValueError: there is no such grammar; the message lists those that there are.
    """
    found: dict[str, Any] = {"start": "start", "parser": "lalr", "lexer": "contextual"}
    if _checked(name) == "python":
        from lark.indenter import PythonIndenter

        found.update(start="file_input", postlex=PythonIndenter())
    return found


def _checked(name: str) -> str:
    known = list()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"no grammar is named {name!r}: {hint}there are {', '.join(known)}")
    return name
