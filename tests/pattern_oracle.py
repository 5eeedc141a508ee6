"""ECMA-262 patterns, judged by V8 (node, where it is on the PATH) and by our own `Language`, which must agree."""

from __future__ import annotations

import atexit
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

from outlines_core import ConstraintSyntaxError, Language, UnsupportedFeatureError
from outlines_core.regex.parse_ecma import parse_ecma
from outlines_core.regex.parser import parse, search

__all__ = ["compiles", "found", "sample"]


class _Node:
    """A node process that answers line by line; see node_regex.js."""

    def __init__(self) -> None:
        script = Path(__file__).parent / "node_regex.js"
        self._process = subprocess.Popen(
            ["node", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        atexit.register(self._close)

    def _close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    def ask(self, pattern: str, flags: str, texts: list[str]) -> list[bool] | None:
        try:
            self._process.stdin.write(json.dumps({"pattern": pattern, "flags": flags, "texts": texts}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except BaseException:  # stopped from outside: an answer that comes later must not be taken for another one's
            _node.cache_clear()
            raise
        return None if answer is None else [found for found, _ in answer]


@functools.cache
def _node() -> _Node | None:
    return _Node() if shutil.which("node") else None


@functools.lru_cache(maxsize=4096)
def _language(pattern: str) -> Language | None:
    try:
        return Language(search(parse(pattern, dialect="ecma")))
    except UnsupportedFeatureError:
        return None


@functools.lru_cache(maxsize=4096)
def _strict(pattern: str) -> bool:
    """Is it a pattern with the u flag (else: by annex B)?"""
    try:
        parse_ecma(pattern)
    except ConstraintSyntaxError:
        return False
    except UnsupportedFeatureError:
        pass
    return True


@functools.lru_cache(maxsize=200_000)
def found(pattern: str, text: str) -> bool | None:
    """Does an ECMA-262 search find `pattern` in `text`?  None: no referee can tell.

    Raises:
        AssertionError: V8 and our own engine differ.
    """
    language = _language(pattern)
    lone = re.search("[\ud800-\udfff]", text) is not None
    ours = None if language is None or lone else language.matches(text)
    strict = _strict(pattern)
    node = _node()
    if node is None or (not strict and re.search("[^\x00-\uffff]", text)):
        return ours  # without the u flag V8 counts UTF-16 units; JSON Schema counts characters
    theirs = node.ask(pattern, "u" if strict else "", [text])
    assert theirs is not None, f"V8 refuses {pattern!r}"
    assert ours is None or ours == theirs[0], f"{pattern!r} in {text!r}: V8 says {theirs[0]}"
    return theirs[0]


def compiles(pattern: str) -> bool | None:
    """Is `pattern` an ECMA-262 regex?  None where the u flag matters, or without node."""
    node = _node()
    if node is None:
        return None
    with_u, without = (node.ask(pattern, flags, []) is not None for flags in ("u", ""))
    return with_u if with_u == without else None


def sample(pattern: str) -> str | None:
    """A shortest text in which `pattern` is found, if there is one that our engine knows."""
    language = _language(pattern)
    return None if language is None else language.witness()
