"""Compile every kernel that a request can reach, once per machine.

Numba keeps compiled kernels on disk next to the package (or in its own cache directory); this runs each of them on toy
constraints so that they are there before the first request. Kernels are reached the way requests reach them, so that
they are compiled for the very arrays that requests bring; a test compares what other constraints use of them with what
was compiled here.

The families of kernels do not call each other. So on a machine that has none yet, one process can compile each of them
at the same time, and this one loads the results afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Final

import numpy as np

from outlines_core.bitmask import allocate_bitmask
from outlines_core.vocabulary import Vocabulary

__all__ = ["warmup"]

_TOKENS: Final[dict[str, list[int]]] = {"a": [0], "b": [1], "ab": [2], "c": [3, 4]}
_SCHEMA: Final = {
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+-\\d{1,3}$", "maxLength": 9},
        "text": {"type": "string", "minLength": 2, "maxLength": 40},
        "kind": {"enum": ["one", "two", "twenty", 3, None]},
        "price": {"type": "number", "minimum": 0.5, "exclusiveMaximum": 1e6, "multipleOf": 0.25},
        "tags": {"type": "array", "items": {"type": ["string", "number"]}, "uniqueItems": True, "maxItems": 3},
        "more": {"$ref": "#"},
    },
    "patternProperties": {"^x_": {"type": "integer"}},
    "additionalProperties": {"type": "boolean"},
    "required": ["name"],
}
_TEXT: Final = (
    '{"name": "ab-12", "text": "a \\u00e9\\n\\ud83d\\ude00 \U0001f600", "kind": "twenty", "price": 10.25, '
    '"tags": ["a", 1.50, "b"], "more": {"name": "c-3"}, "x_1": 7, "other": true}'
)


def warmup(progress: Callable[[int, int, str], None] | None = None, *, processes: int = 1) -> None:
    """Compile (or load) all kernels.

    Args:
        progress: called with (steps done, steps in all, what comes next).
        processes: compile in up to so many processes, if this machine has no compiled kernels yet.

    Cost: about a minute of a core on a machine that never ran it, seconds afterwards.
    """
    names = list(_PARTS)
    steps = 1 + len(names)

    def report(done: int, what: str) -> None:
        if progress is not None:
            progress(done, steps, what)

    report(0, "vocabulary trie")
    done = 1
    if _compile_trie() and processes > 1 and sys.executable:
        steps += len(names)
        with ThreadPoolExecutor(processes) as pool:
            running = [pool.submit(_in_a_process, name) for name in names]
            report(done, "all families")
            for _ in as_completed(running):
                done += 1
                report(done, "all families")
    for name, part in _PARTS.items():
        report(done, name)
        part()
        done += 1
    report(done, "done")


def _in_a_process(name: str) -> None:
    """Compile one family elsewhere.  If that fails, so will the part in this process, and show why."""
    code = f"from outlines_core.warmup import _PARTS; _PARTS[{name!r}]()"
    paths = os.pathsep.join(filter(None, sys.path))
    subprocess.run(  # noqa: S603 -- our own code
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, check=False
    )


def _compile_trie() -> bool:
    """Was the kernel that every vocabulary needs compiled just now, rather than found on disk?"""
    from outlines_core.kernels.trie import build_trie
    from outlines_core.trie import TokenTrie

    table = Vocabulary(5, _TOKENS).table
    assert len(TokenTrie.build(table).info) == len(table.trie.info)
    stats = getattr(build_trie, "stats", None)
    return stats is not None and bool(stats.cache_misses)


def _json_texts() -> None:
    from outlines_core.compile import compile_json_schema

    tokens = {bytes([b]): [b] for b in range(256)} | {b'", "': [257], b"12": [258], b"ab": [259], b"a" * 20: [260]}
    vocabulary = Vocabulary(256, tokens)
    mask = allocate_bitmask(1, vocabulary)[0]
    known_keys = {"properties": {"ab": {"type": "integer"}, "abc": {}}}
    bounded = {"type": "string", "pattern": "^[a-z]+$", "maxLength": 18}
    texts = ((True, "[" * 80), (_SCHEMA, _TEXT), (known_keys, '{"ab": 1, "abx": 2}'), (bounded, '"abc"'))
    for schema, text in texts:
        automaton = compile_json_schema(schema, vocabulary)
        state = automaton.initial_state
        for byte in text.encode():
            automaton.fill_mask(state, mask)
            automaton.forced_bytes(state)
            state = automaton.next_state(state, byte)
        automaton.fill_closing_mask(state, 200, mask)


def _json_numbers() -> None:
    from fractions import Fraction

    from outlines_core.json_schema.numbers import Integer, MultipleOf, NumberRecognizer, OneOf, Range

    for tests in (
        (MultipleOf(Fraction(7, 1000)), MultipleOf(Fraction(3, 1000)), Range(Fraction(-(10**30)), False, None, True)),
        (Integer(), OneOf(frozenset({Fraction(1), Fraction(5, 2)}))),
    ):
        _visit(NumberRecognizer(tests, ((0b11, 0b01),)))


def _json_strings() -> None:
    from outlines_core.json_schema.strings import Length, Matches, OneOf, StringRecognizer
    from outlines_core.regex.parser import parse, search

    def pattern(text: str) -> Matches:
        return Matches(search(parse(text, dialect="ecma")))

    for tests in (
        (pattern("^[a-z]+-\\d{1,3}$"), Length(0, 9)),
        (pattern("(ab|c)*d"), pattern("cd")),
        (pattern("^\\w{2,300}(?!x)"), OneOf(frozenset({"one", "two", "twenty"}))),
    ):
        _visit(StringRecognizer(tests, ((0b11, 0b01),)))


def _visit(recognizer: Any) -> None:
    """Rows of a few hundred states: tables grow on the way."""
    states = [recognizer.start]
    known = set(states)
    for state in states:
        recognizer.outcome(state)
        for target in recognizer.row(state).tolist():
            if target and target not in known and len(known) < 300:
                known.add(target)
                states.append(target)
    recognizer.distinct(3)


def _grammars() -> None:
    from lark.indenter import PythonIndenter

    from outlines_core.grammar_compile import compile_grammar
    from outlines_core.grammar_core import GrammarCore
    from outlines_core.kernels import grammar as kernel

    blocks = """
        start: (_NEWLINE | line)*
        line: NAME ("(" NAME ")")? (":" _NEWLINE _INDENT line+ _DEDENT | _NEWLINE)
        NAME: /[a-z]+/
        LPAR: "("
        RPAR: ")"
        _NEWLINE: /(\\n[ \\t]*)+/
        %ignore " "
        %declare _INDENT _DEDENT
    """
    choice = 'start: A | "z" C\nA.1: /ab/\nC: /b*a/\n%ignore " "'
    more = [f"{a}{b}{c}" for a in "ab\n ():z" for b in "ab\n ():z" for c in "ab \n"]
    tokens = {bytes([b]): [b] for b in range(256)} | {text.encode(): [257 + k] for k, text in enumerate(more)}
    vocabulary = Vocabulary(256, tokens)
    mask = allocate_bitmask(1, vocabulary)[0]
    for grammar, text, options in (
        (blocks, "ab (b):\n  a\n  b\nz\n", {"postlex": PythonIndenter()}),
        (choice, "z ba", {"lexer": "basic"}),
        (choice, "z ba", {"lexer": "dynamic"}),
    ):
        automaton = compile_grammar(grammar, vocabulary, **options)
        state = automaton.initial_state
        for byte in text.encode():
            automaton.fill_mask(state, mask)
            automaton.is_accepting(state)
            state = automaton.next_state(state, byte)
        automaton.fill_closing_mask(state, 20, mask)
        if isinstance(automaton._core, GrammarCore):  # what only large tables and ambiguous texts need
            recogniser = automaton._core.recogniser
            automaton._core.forest.make_room(kernel.H_MEMOS)
            recogniser.fill_hole(kernel.TABLE_FULL)
            recogniser.step(recogniser.initial, np.frombuffer(b"z", dtype=np.uint8))
            recogniser.accepts(2 * recogniser.initial)
            kernel.is_entangled(recogniser.handles.address, *recogniser.initial[0][:3])


def _regexes() -> None:
    from outlines_core.batch import next_states
    from outlines_core.compile import compile_regex

    vocabulary = Vocabulary(5, _TOKENS)
    signed, unsigned = allocate_bitmask(1, vocabulary)[0], np.zeros(1, dtype=np.uint32)
    for pattern in ("(a|b){1,3}c?", "(?!aa)[abc]{1,4}", r"a(\Z|b)", "(?:c|cc)*b", "(a|^b)+"):
        automaton = compile_regex(pattern, vocabulary)
        automaton.materialize()
        for out in (signed, unsigned):
            for state in range(2, automaton.n_states):
                automaton.fill_mask(state, out)
        state = automaton.initial_state
        automaton.next_state(state, 0)
        automaton.fill_closing_mask(state, 1, signed)
        automaton.allowed_tokens(state)
        next_states([automaton] * 2, [state] * 2, [0, 1])

    many = Vocabulary(0, {f"t{k}": [k + 1] for k in range(300)})  # masks of a few ids among many words are kept as ids
    automaton = compile_regex("t1|t2", many)
    for out in (np.zeros(10, dtype=np.int32), np.zeros(10, dtype=np.uint32)):
        for _ in range(2):
            automaton.fill_mask(automaton.initial_state, out)

    automaton = compile_regex("[ab]{1,400}", vocabulary)
    state = automaton.initial_state
    for _ in range(300):  # tables grow on the way
        state = automaton.next_state(state, 0)


def _logits() -> None:
    from outlines_core.kernels.masking import apply_masks, apply_masks_at, match_rows, rows_continue

    masks, is_open = np.ones((1, 1), dtype=np.uint32), np.zeros(1, dtype=np.uint8)
    for dtype in (np.int16, np.int32, np.int64):
        scores = np.zeros((1, 6), dtype=dtype)
        apply_masks(scores, masks, dtype(-1), 0, 1, np.empty_like(scores), is_open)
        apply_masks_at(scores.ctypes.data, scores.ctypes.data, 6, masks, dtype(-1), 0, 1, is_open)
    rows = np.zeros((1, 2), dtype=np.int64)
    match_rows(rows, 1, rows, 1, np.full(1, -1, dtype=np.int64))
    rows_continue(rows, 1, rows)


def _byte_masses() -> None:
    from outlines_core.kernels.masses import child_masses, find_child, node_maxima, node_sums, step_down

    trie = Vocabulary(5, _TOKENS).table.trie
    info, end, n = trie.info, trie.end, len(trie.info)
    order, first = np.arange(n, dtype=np.int32), np.arange(n + 1, dtype=np.int32)
    row = np.zeros(n, dtype=np.float32)
    for array in (order, first, row):  # as they come
        array.setflags(write=False)
    find_child(info, end, 0, n, 97)
    step_down(row, info, end, first, order, 0, n, 97)
    out = np.empty(256, dtype=np.int32), np.empty(256)
    child_masses(row, np.exp(row), info, end, first, order, 0, n, *out)
    for dtype in (np.float32, np.float64):
        padded, sums = np.zeros((1, n + 1), dtype=dtype), np.empty((1, n + 2), dtype=dtype)
        for kernel in (node_sums, node_maxima):
            kernel(padded, info, order, np.empty(trie.max_depth + 2), sums)


_PARTS: Final[dict[str, Callable[[], None]]] = {  # the longest first
    "JSON texts": _json_texts,
    "grammars": _grammars,
    "JSON numbers": _json_numbers,
    "JSON strings": _json_strings,
    "regular expressions": _regexes,
    "masks on logits": _logits,
    "masses of bytes": _byte_masses,
}
