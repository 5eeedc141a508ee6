"""Grammars on disk: what Lark makes of a long grammar, its lexers, and the proofs about both take seconds to find.

An entry is a pickle of plain tables and of this package's own classes; a reader refuses any other name, so that a file
can hold wrong values at worst, and cannot run code. Its key is everything that it depends on: the text, the options,
the sources and versions of what works on them. Grammars that read other files are not
kept, as their content is not known before; nor is what is found faster than a file is written.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import importlib.metadata
import io
import logging
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import lark
import numpy as np

from outlines_core.cache import content_key, default_store
from outlines_core.grammar.dialect import Extended
from outlines_core.grammar.indentation import Indentation
from outlines_core.grammar.loading import Grammar, load_grammars
from outlines_core.limits import Limits

__all__ = ["load_stored", "stored_machine", "stored_proof"]

_WORTH: Final = 0.1  # seconds
_LINE_TYPES: Final = ("NL_type", "INDENT_type", "DEDENT_type")
_OURS: Final = ("outlines_core.grammar.", "outlines_core.regex.", "outlines_core.limits")
_OF_NUMPY: Final = {"_reconstruct", "_frombuffer", "ndarray", "dtype"}
_UNREADABLE: Final = (pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError)
T = TypeVar("T")
_log = logging.getLogger(__name__)


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
    asked = text, start, postlex is not None, accepted, lines, sorted((k, repr(v)) for k, v in options.items())
    return _kept(content_key("grammar", _environment(), repr(asked)), load)


def stored_machine(grammar: Grammar, indentation: Indentation | None, limits: Limits, make: Callable[[], T]) -> T:
    """What `make` returns of a grammar, or what it returned before."""
    if any(terminal.graph is not None for terminal in grammar.terminals):
        return make()
    asked = grammar._replace(ignored=sorted(grammar.ignored)), limits  # type: ignore[arg-type]
    lines = None if indentation is None else sorted((k, repr(v)) for k, v in vars(indentation).items())
    return _kept(content_key("machine", _environment(), repr(asked), repr(lines)), make)


def stored_proof(grammar: Grammar, unreadable: dict[int, int], make: Callable[[], bool]) -> bool:
    """What `make` returns of a grammar and of what its states cannot read, or what it returned before."""
    asked = grammar._replace(ignored=sorted(grammar.ignored))  # type: ignore[arg-type]
    return _kept(content_key("proof", _environment(), repr(asked), repr(sorted(unreadable.items()))), make)


def _kept(key: str, make: Callable[[], T]) -> T:
    store = default_store()
    arrays = store.get(key)
    if arrays is not None and set(arrays) == {"pickle"}:
        try:
            with _no_collection():
                found: T = _Reader(io.BytesIO(arrays["pickle"].tobytes())).load()
        except _UNREADABLE as error:
            _log.warning("a stored grammar is made again: %s", error)
        else:
            return found
    begin = time.thread_time()
    made = make()
    if time.thread_time() - begin > _WORTH:
        store.put(key, {"pickle": np.frombuffer(pickle.dumps(made, 5), dtype=np.uint8)})
    return made


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Looking for garbage among what is being read takes four times as long as reading it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Reader(pickle.Unpickler):
    """Knows this package's classes and arrays only."""

    def find_class(self, module: str, name: str) -> Any:
        is_ours = module.startswith(_OURS)
        if is_ours or (module.startswith("numpy") and name in _OF_NUMPY):
            found = super().find_class(module, name)
            if not is_ours or (isinstance(found, type) and found.__module__ == module):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a grammar")


@functools.cache
def _environment() -> str:
    """What results depend on besides the question."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted([*root.glob("grammar/*.py"), *root.glob("regex/*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    versions = [lark.__version__, np.__version__, sys.version]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions.append(importlib.metadata.version("regex"))
    return repr((digest.hexdigest(), versions))
