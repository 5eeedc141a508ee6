"""`generate()` under Lark grammars, on the embedded model.

The oracle is lark, with the options that the grammar was compiled with: what is finished parses, and what is cut can
go on to be a text.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import lark
import pytest
import torch
from lark.indenter import PythonIndenter

import outlines_core as oc
from processors import grammars
from processors.embedded import load_embedded
from processors.logits import CFGLogitsProcessor
from tests.unit.test_grammars import SQL

LIMIT = 24
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True},
    "beams": {"do_sample": False, "num_beams": 3},
    "beam sampling": {"do_sample": True, "num_beams": 2, "temperature": 1.5},
}
PYTHON_CLOSERS = ["", "\n", "'", '"', "'''", '"""', ")", "]", "}", " 0", " x", ": 0\n", "\n 0\n", " in x", " else 0"]
CLOSERS = {
    "arithmetic": ["", "0", ")", "1", "0)"],
    "sqlite": [
        "",
        "'",
        '"',
        "`",
        "]",
        "*/",
        " 1",
        ")",
        " a",
        " FROM a",
        " VALUES (1)",
        " BY 1",
        " NULL",
        " AS SELECT 1",
    ],
    "python": PYTHON_CLOSERS,
    "lark_python": PYTHON_CLOSERS,
}
PROMPTS = [f"Number {'one ' * k}: " for k in range(4)]  # of four lengths, so padded on the left


@cache
def loaded(name: str) -> tuple[str, dict[str, Any]]:
    """Grammars that ship; Python also as lark brings it."""
    if name != "lark_python":
        found = grammars.options(name)
        found.pop("postlex", None)
        return grammars.load(name), found
    text = (Path(lark.__file__).parent / "grammars" / "python.lark").read_text(encoding="utf-8")
    return text, {"start": "file_input", "parser": "lalr", "lexer": "contextual"}


def options(name: str) -> dict[str, Any]:
    return loaded(name)[1] | ({"postlex": PythonIndenter()} if "python" in name else {})


@cache
def referee(name: str) -> lark.Lark:
    return lark.Lark(loaded(name)[0], **options(name))


@cache
def embedded():
    return load_embedded()


def completion(automaton, state: int, closers: list[str]) -> bytes | None:
    """Some text that completes a state, depth first."""
    ids = {closer: [automaton.vocabulary.get(bytes([b]))[0] for b in closer.encode()] for closer in closers}
    seen = set()
    todo = [(state, b"")]
    while todo and len(seen) < 20_000:
        at, text = todo.pop()
        if automaton.is_accepting(at):
            return text
        for closer in reversed(closers):
            n, target = automaton.accept_tokens(at, ids[closer])
            if n == len(ids[closer]) and target not in seen and len(text) < 60:
                seen.add(target)
                todo.append((target, text + closer.encode()))
    return None


def generated(processor, **how: Any) -> list[list[int]]:
    """The ids of each row, up to EOS."""
    model, tokenizer = embedded()
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    rows = model.generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_processor=[processor],
        **{"max_new_tokens": LIMIT} | how,
    )
    eos = processor.guides[0].vocabulary.eos_token_ids
    ids = rows[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: next((k for k, t in enumerate(row) if t in eos), len(row))] for row in ids]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["arithmetic", "sqlite", "python", "lark_python"])
def test_texts_parse_or_can_be_completed(name, mode):
    torch.manual_seed(7)
    processor = CFGLogitsProcessor(loaded(name)[0], embedded()[1], **options(name))
    automaton = processor.guides[0]
    rows = generated(processor, **MODES[mode])
    assert processor.violations == 0
    for ids in rows:
        n, state = automaton.accept_tokens(automaton.initial_state, ids)
        assert n == len(ids)
        text = b"".join(map(automaton.vocabulary.token_bytes, ids))
        if len(ids) < LIMIT:
            assert automaton.is_accepting(state)
            referee(name).parse(text.decode())
        else:
            assert state != oc.DEAD
            end = completion(automaton, state, CLOSERS[name])
            if end is not None:
                referee(name).parse((text + end).decode())
            else:
                assert len(automaton.allowed_tokens(state))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["arithmetic", "sqlite", "python", "lark_python"])
def test_texts_end_in_time(name, mode):
    """With a limit each text parses."""
    torch.manual_seed(7)
    processor = CFGLogitsProcessor(loaded(name)[0], embedded()[1], max_new_tokens=LIMIT, **options(name))
    rows = generated(processor, **MODES[mode])
    assert processor.violations == 0
    for ids in rows:
        referee(name).parse(b"".join(map(processor.guides[0].vocabulary.token_bytes, ids)).decode())


@pytest.mark.slow
def test_sqlite_statements_are_read_token_by_token():
    """Each mask has the token that comes next, and EOS just where SQLite's statement may end."""
    processor = CFGLogitsProcessor(loaded("sqlite")[0], embedded()[1], **options("sqlite"))
    automaton = processor.guides[0]
    row = oc.allocate_bitmask(1, automaton.vocabulary)[0]
    eos = automaton.vocabulary.eos_token_ids[0]

    def allows(state: int, token: int) -> bool:
        automaton.fill_mask(state, row)
        return bool(int(row[token >> 5]) >> (token & 31) & 1)

    for text in SQL:
        state = automaton.initial_state
        for token in embedded()[1].encode(text, add_special_tokens=False):
            assert allows(state, eos) == automaton.is_accepting(state)
            assert allows(state, token), text
            state = automaton.next_state(state, token)
        assert allows(state, eos), text


@pytest.mark.parametrize("mode", MODES)
def test_small_grammars_finish_in_time(mode):
    """With a limit each text is complete: a grammar per prompt."""
    torch.manual_seed(3)
    texts = [
        'start: "(" start ")" | /[a-z]{1,3}/',
        'start: WORD ("," WORD)*\nWORD: "yes" | "no" | "perhaps"',
        'start: "<" NAME ">" start* "</" NAME ">"\nNAME: /[ab]/',
        grammars.load("words"),
    ]
    processor = CFGLogitsProcessor(texts, embedded()[1], max_new_tokens=LIMIT)
    for text, guide, ids in zip(texts, processor.guides, generated(processor, **MODES[mode]), strict=True):
        spelled = b"".join(map(guide.vocabulary.token_bytes, ids)).decode()
        lark.Lark(text, parser="lalr").parse(spelled)
