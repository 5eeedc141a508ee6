"""Loaded grammars on disk: what Lark makes of a long grammar, and the proof about its stacks, take seconds.

An entry is what `loading` returns, as JSON. Its key is everything that it depends on: the text, the options, the
versions of Lark and of the modules that it compiles patterns with. Grammars that read other files are not kept, as
their content is not known before; nor are short ones, which are loaded faster than a file is written.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import lark
import numpy as np

from outlines_core.cache import content_key, default_store
from outlines_core.grammar.dialect import Extended
from outlines_core.grammar.loading import Grammar, LexerTable, Rule, Tables, Terminal, load_grammars

__all__ = ["load_stored", "stored_proof"]

_VERSION: Final = 1
_WORTH: Final = 0.1  # seconds
_LINE_TYPES: Final = ("NL_type", "INDENT_type", "DEDENT_type")


def load_stored(
    text: str,
    *,
    start: str | Sequence[str],
    postlex: Any,
    import_paths: Sequence[Any],
    extended: Extended | None = None,
    **options: Any,
) -> tuple[Grammar, ...]:
    """`load_grammars`, or what it returned before."""

    def load() -> tuple[Grammar, ...]:
        return load_grammars(
            text, start=start, postlex=postlex, import_paths=import_paths, extended=extended, **options
        )

    if import_paths or extended is not None or "%import." in "".join(text.split()):
        return load()
    accepted = sorted(getattr(postlex, "always_accept", ()))
    lines = [getattr(postlex, name, None) for name in _LINE_TYPES]
    asked = [text, start, postlex is not None, accepted, lines, sorted((k, repr(v)) for k, v in options.items())]
    key = content_key("grammar", _VERSION, lark.__version__, sys.version, _version("regex"), json.dumps(asked))
    found = _kept(key, lambda: [_encoded(grammar) for grammar in load()])
    return tuple(map(_decoded, found))


def stored_proof(
    grammar: Grammar, unreadable: dict[int, int], prove: Callable[[Grammar, dict[int, int]], bool]
) -> bool:
    """`viability.all_stacks_live`, or what it returned before."""
    asked = json.dumps([_encoded(grammar), sorted((k, hex(bits)) for k, bits in unreadable.items())])
    answer: bool = _kept(content_key("live stacks", _VERSION, asked), lambda: prove(grammar, unreadable))
    return answer


def _kept(key: str, make: Callable[[], Any]) -> Any:
    store = default_store()
    arrays = store.get(key)
    if arrays is not None and set(arrays) == {"json"}:
        return json.loads(arrays["json"].tobytes())
    begin = time.thread_time()
    made = make()
    if time.thread_time() - begin > _WORTH:
        store.put(key, {"json": np.frombuffer(json.dumps(made).encode(), dtype=np.uint8)})
    return made


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _encoded(grammar: Grammar) -> list[Any]:
    tables = grammar.tables
    return [
        [[t.name, t.regexp, t.flags, t.is_text] for t in grammar.terminals],
        sorted(grammar.ignored),
        [[rule.origin, rule.symbols] for rule in grammar.rules],
        grammar.nonterminals,
        grammar.start,
        [[table.order, list(table.retyped.items())] for table in grammar.lexers],
        None
        if tables is None
        else [
            [list(row.items()) for row in tables.actions],
            [list(row.items()) for row in tables.gotos],
            *tables[2:],
        ],
    ]


def _decoded(kept: list[Any]) -> Grammar:
    terminals, ignored, rules, nonterminals, start, lexers, tables = kept
    return Grammar(
        tuple(Terminal(*fields) for fields in terminals),
        frozenset(ignored),
        tuple(Rule(origin, tuple(symbols)) for origin, symbols in rules),
        tuple(nonterminals),
        start,
        tuple(LexerTable(tuple(order), {k: tuple(texts) for k, texts in retyped}) for order, retyped in lexers),
        None
        if tables is None
        else Tables([dict(row) for row in tables[0]], [dict(row) for row in tables[1]], *tables[2:]),
    )
