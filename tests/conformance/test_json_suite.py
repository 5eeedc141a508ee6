"""The official JSON Schema test suite, draft 2020-12 with its optional part, byte by byte; a ratchet by keyword.

`json_suite_ratchet.json` holds, for each file of the suite, how many tests come out right, how many are of schemas (or
numbers) that are refused by name, and how many come out wrong. Worse fails. Better fails too, and asks for an update:

    scripts/json_report suite --update        (or this test, with OUTLINES_UPDATE_RATCHET=1 in the environment)

Two departures are decided, not found. `format` is asserted, so the tests that call it "only an annotation by default"
count as right when the value is refused. A value that the number box does not hold counts as refused.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import outlines_core as oc
from tests.json_oracle import Oracle, OutsideBoxError, exact, loads
from tests.json_texts import json_vocabulary, spelled

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SUITE = DATA / "json-schema-suite-draft2020-12.jsonl.gz"
REMOTES = DATA / "json-schema-suite-remotes.jsonl.gz"
RATCHET = Path(__file__).with_name("json_suite_ratchet.json")
OUTCOMES = ("right", "refused", "wrong")

Counts = dict[str, dict[str, int]]


def records(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def accepts(automaton: Any, text: bytes) -> bool:
    """Byte by byte through `next_state`."""
    state = automaton.initial_state
    ids = json_vocabulary()
    for byte in text:
        state = automaton.next_state(state, ids.get(bytes([byte]))[0])
        if state == oc.DEAD:
            return False
    return bool(automaton.is_accepting(state))


def _expected(group: dict[str, Any], test: dict[str, Any]) -> bool:
    only_noted = group["file"] == "format.json" and test["description"].endswith("is only an annotation by default")
    return test["valid"] and not only_noted


def outcome(group: dict[str, Any], registry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What becomes of each test of a group: ("right" | "refused" | "wrong", why)."""
    automaton, refusal = None, ""
    try:
        automaton = oc.compile_json_schema(group["schema"], json_vocabulary(), property_order="any", registry=registry)
    except oc.UnsatisfiableError:
        pass
    except (oc.UnsupportedFeatureError, oc.LimitExceededError) as error:
        refusal = f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001  # a crash is a wrong answer; the other groups go on
        for _ in group["tests"]:
            yield "wrong", f"{type(error).__name__}: {error}"
        return
    for test in group["tests"]:
        if refusal:
            yield "refused", refusal
            continue
        expected = _expected(group, test)
        text = spelled(exact(test["data"]))
        try:
            loads(text)
        except OutsideBoxError as error:
            yield "refused", str(error)
            continue
        try:
            accepted = automaton is not None and accepts(automaton, text.encode())
        except oc.LimitExceededError as error:
            yield "refused", f"LimitExceededError: {error}"
        except Exception as error:  # noqa: BLE001
            yield "wrong", f"{text[:80]}: {type(error).__name__}: {error}"
        else:
            yield (
                "right" if accepted == expected else "wrong",
                f"{text[:80]}: {'accepted' if accepted else 'not accepted'}",
            )


def results() -> tuple[Counts, list[str]]:
    """Counts by file of the suite, and a line for each test that is not right."""
    registry = {record["uri"]: record["schema"] for record in records(REMOTES)}
    counts: Counts = {}
    lines = []
    for group in records(SUITE):
        of_file = counts.setdefault(group["file"], dict.fromkeys(OUTCOMES, 0))
        for test, (verdict, why) in zip(group["tests"], outcome(group, registry), strict=True):
            of_file[verdict] += 1
            if verdict != "right":
                place = f"{group['file']} · {group['description']} · {test['description']}"
                lines.append(f"{verdict}: {place}: {why.splitlines()[0][:200]}")
    return dict(sorted(counts.items())), lines


def write_ratchet(counts: Counts) -> None:
    rows = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in counts.items()]
    RATCHET.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


@pytest.mark.skipif(not SUITE.exists(), reason="the shared copy of the suite is not here")
def test_the_official_suite_is_no_worse_than_before() -> None:
    counts, lines = results()
    if os.environ.get("OUTLINES_UPDATE_RATCHET"):
        write_ratchet(counts)
    before: Counts = json.loads(RATCHET.read_text(encoding="utf-8"))
    changed = {name: (before.get(name), row) for name, row in counts.items() if before.get(name) != row}
    zero = dict.fromkeys(OUTCOMES, 0)
    worse = [
        name
        for name, (old, new) in changed.items()
        if new["wrong"] > (old or zero)["wrong"] or new["right"] < (old or zero)["right"]
    ]
    shown = "\n".join(line for line in lines if line.split(": ")[1].split(" · ")[0] in worse)
    assert not worse, f"worse than the ratchet: { {name: changed[name] for name in worse} }\n{shown}"
    assert not changed, f"better than the ratchet, update it (see the top of this file): {changed}"


@pytest.mark.skipif(not SUITE.exists(), reason="the shared copy of the suite is not here")
def test_the_referee_agrees_with_the_suite() -> None:
    """Whatever else is tested by tests/json_oracle.py stands on this."""
    pytest.importorskip("rfc3987", reason='pip install "jsonschema[format]"')
    registry = {record["uri"]: record["schema"] for record in records(REMOTES)}
    undecided = 0
    for group in records(SUITE):
        if group["file"] == "vocabulary.json":
            continue  # custom meta-schemas; the library knows none
        oracle = Oracle(group["schema"], registry)
        for test in group["tests"]:
            verdict = oracle.verdict(exact(test["data"]))
            undecided += verdict is None
            assert verdict in (_expected(group, test), None), (group["description"], test["description"])
    assert undecided < 50
