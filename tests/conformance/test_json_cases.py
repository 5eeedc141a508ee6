"""Schemas and texts of eight engines' own test suites: accepted, refused, unsatisfiable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import outlines_core as oc
from tests.json_oracle import loads
from tests.json_order import ordered
from tests.json_texts import json_vocabulary, tokens_of

CASES = Path(__file__).resolve().parents[3] / "shared" / "data" / "cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the shared case files are not here")

ARGUED = {
    '"2024-12-31T23:45:60.123456Z"': "RFC 3339, 5.7: second 60 only where a leap second can be, at 23:59 UTC",
    '{"value": 1e-323}': "outside the number box: exponents within 308",
    '{"value": 5e-324}': "outside the number box: exponents within 308",
}
"""Texts that their authors accept and this project does not, with the reason."""
UNDECIDED = {'"w--ww.git---hub.co----m"': "RFC 1123 allows what RFC 5890 reserves"}


def records(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


def accepts(automaton: Any, text: str) -> bool:
    ids = tokens_of(json_vocabulary(), text.encode("utf-8", "surrogatepass"))
    accepted, state = automaton.accept_tokens(automaton.initial_state, ids)
    return accepted == len(ids) and automaton.is_accepting(state)


def test_texts_of_other_engines() -> None:
    faults: list[tuple[Any, ...]] = []
    n_texts = n_refused = 0
    for case in records("json_schema.jsonl"):
        schema = case["grammar"]
        try:
            automata = {
                order: oc.compile_json_schema(schema, json_vocabulary(), property_order=order)
                for order in ("any", "schema")
            }
        except oc.UnsupportedFeatureError:
            n_refused += 1
            continue
        except oc.UnsatisfiableError:
            faults += [(case["source"], schema, text, "said to be unsatisfiable") for text in case["accept"]]
            continue
        for text in case["accept"] + case["reject"]:
            if text in UNDECIDED:
                continue
            n_texts += 1
            expected = text in case["accept"] and text not in ARGUED
            if accepts(automata["any"], text) != expected:
                faults.append((case["source"], schema, text, "refused" if expected else "accepted"))
            if expected:
                value = loads(text)
                in_order, certain = ordered(schema, value)
                if certain and str(in_order) == str(value) and not accepts(automata["schema"], text):
                    faults.append((case["source"], schema, text, "refused in schema order"))
    assert not faults, "\n".join(map(str, faults[:20]))
    assert n_texts > 6000
    assert n_refused <= 5


def test_unsatisfiable_schemas_of_other_engines() -> None:
    for case in records("json_schema_unsat.jsonl"):
        with pytest.raises(oc.UnsatisfiableError):
            oc.compile_json_schema(case["grammar"], json_vocabulary())
