"""EBNF grammars and texts of xgrammar's and transformers-CFG's own test suites: accepted, refused, viable, dead.

The labels are checked twice: lark's Earley parser reads what `from_ebnf` writes, and our automata do, token by token.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import lark
import pytest

import outlines_core as oc
from outlines_core.grammar import from_ebnf
from tests.conformance.test_lark_cases import Result, attempt, check
from tests.json_texts import json_vocabulary

CASES = Path(__file__).resolve().parents[3] / "shared" / "data" / "cases" / "ebnf.jsonl"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the shared case files are not here")

REFUSED = {
    "Regex()": (31, "a regex of xgrammar's dialect; what `.` matches there depends on whether flags are given"),
    "TagDispatch()": (3, "text that does not hold certain tags, which begin a rule: about tokens and search"),
    "rule option": (2, "[lazy] changes which of the derivations count"),
}
"""Grammars that are refused: how many, by the name of what is refused, and why.  On all others there is agreement."""


@lru_cache(maxsize=1)
def _loaded(grammar: str) -> lark.Lark:
    return lark.Lark(grammar, parser="earley", lexer="dynamic_complete", ambiguity="forest", maybe_placeholders=False)


def parses(grammar: str, root: str, text: str) -> bool:
    """Does the EBNF grammar derive the text?"""
    try:
        _loaded(from_ebnf(grammar, root=root)).parse(text)
    except lark.exceptions.UnexpectedInput:
        return False
    return True


def _letter_by_letter(literal: str) -> str:
    return "(" + " ".join(f'"{c}"' for c in re.findall(r"\\(?:x..|u....|U.{8}|.)|.", literal[1:-1])) + ")"


def is_viable(grammar: str, root: str, text: str) -> bool:
    """Is the text the beginning of one that the EBNF grammar derives?

    An Earley parser knows at each character, if the terminals are characters and each rule derives something.
    """
    lines = [line for line in from_ebnf(grammar, root=root).splitlines() if not line.startswith("//")]
    literal_or_class = re.compile(r'/(?:\\.|[^/\\])*/|"(?:\\.|[^"\\])*"')
    by_letters = literal_or_class.sub(
        lambda match: match[0] if match[0][0] == "/" else _letter_by_letter(match[0]), "\n".join(lines) + "\n"
    )
    try:
        _loaded(by_letters).parse(text)
    except lark.exceptions.UnexpectedEOF:
        return True
    except lark.exceptions.UnexpectedInput:
        return False
    return True


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


def test_texts_of_other_engines() -> None:
    faults: list[tuple[Any, ...]] = []
    refused: Counter[str] = Counter()
    n_texts = 0
    for case in records():
        grammar, root = case["grammar"], case["root"]
        try:
            from_ebnf(grammar, root=root)
        except oc.UnsupportedFeatureError as error:
            refused[error.feature] += 1
            continue
        for judge, expected, key in (
            (parses, True, "accept"),
            (parses, False, "reject"),
            (is_viable, True, "prefix"),
            (is_viable, False, "dead_prefix"),
        ):
            for text in case[key]:
                n_texts += 1
                if judge(grammar, root, text) != expected:
                    faults.append((case["source"], text, f"not {key}"))
    assert not faults, "\n".join(map(str, faults[:20]))
    assert refused == {feature: count for feature, (count, _) in REFUSED.items()}
    assert n_texts > 800


def automata() -> Result:
    """The same texts, token by token."""
    result = Result()
    for case in records():
        result.counts["grammars"] += 1
        attempt(
            result,
            case["source"],
            lambda c=case: oc.compile_grammar(
                from_ebnf(c["grammar"], root=c["root"]), json_vocabulary(), lexer="scannerless"
            ),
            lambda automaton, c=case: check(c, "scannerless", automaton, result, "the automaton"),
        )
    return result


def test_texts_of_other_engines_token_by_token() -> None:
    result = automata()
    assert not result.faults, "\n".join(result.faults[:20])
    assert result.counts["automata"] == result.counts["grammars"] - result.unclaimed.total() >= 50
    assert result.counts["texts"] > 800
    assert result.counts["prefixes"] > 100
