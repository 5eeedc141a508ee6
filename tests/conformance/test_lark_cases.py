"""Grammars and texts of Lark's, llguidance's and xgrammar's own test suites; indentation; grammars that Lark refuses.

The labels of the texts are Lark's with Earley and ``dynamic_complete``; where another lexer decides otherwise a case
says so (``lexer_dependent``), but for "basic", where lark is asked. Every grammar is tried with every lexer with which
Lark takes it. Grammars in the dialect
of llguidance are refused as Lark's, and tried as ``dialect="extended"`` where all their features are `CLAIMED`.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import outlines_core as oc
from outlines_core.errors import line_and_column
from outlines_core.warmup import warmup
from tests.grammar_fuzz import alarm
from tests.grammar_oracle import LarkOracle, indenter, loads
from tests.grammar_strategies import LALR, Case, Indentation
from tests.json_texts import json_vocabulary, tokens_of

CASES = Path(__file__).resolve().parents[3] / "shared" / "data" / "cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the shared case files are not here")
VANILLA = ("contextual", "basic", "dynamic", "dynamic_complete")

EXPLAINED = {
    ("lark/tests/test_parser.py:1061", "contextual"): "lark's LALR parser reduces in circles, and never ends",
    ("lark/tests/test_parser.py:1061", "basic"): "lark's LALR parser reduces in circles, and never ends",
    ("lark/tests/test_parser.py:2619", "*"): r"written for the `regex` module, whose \w takes combining marks",
}
"""Cases whose labels do not hold with a lexer (the texts of the case are not tried with it)."""

LIMITS = {
    "/(ab){2,50000}c/": "100,000 states in one terminal",
}
"""Texts of grammars that are refused in time (LimitExceededError), and why."""

CLAIMED = {"%json", "and", "not"}
"""What of llguidance's dialect the extended one has, besides everything of Lark's."""
UNCLAIMED = {
    "%regex": "automata of substrings",
    "%lark": "a grammar within a grammar",
    "%llguidance": "options of that engine",
    "%grammar_options": "options of that engine",
    "capture": "captures",
    "lazy": "lexemes that end as soon as they can",
    "stop": "texts that end a lexeme",
    "suffix": "texts that end a lexeme",
    "parametric": "rules with numbers",
    "{m,n}": "counts in braces; Lark writes ~m..n",
}
"""Features of llguidance's dialect that are not claimed."""
OTHERWISE = {
    "Empty terminals are not allowed": "empty strings",
    "No such file or directory": "imports a grammar that is not among the case files",
    "zero-width": "terminals that may be empty",
    "Unexpected input": "names with hyphens",
    "bad escape": "escapes that `re` does not have",
    "unknown extension": "groups that `re` does not have",
}
"""Why lark refuses the other ones, by its message, and what that is."""
LARK_FEATURES = {"%import", "%ignore", "alias", "template", "range", "priority", "lookaround", "~n", "%extend"}
LARK_FEATURES |= {"%override", "regex_flags"}


@dataclass
class Result:
    """What became of one file.  `faults` is what is wrong, `misplaced` errors that do not point where lark does."""

    counts: Counter[str] = field(default_factory=Counter)
    unclaimed: Counter[str] = field(default_factory=Counter)
    explained: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)


@functools.cache
def records(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


def compiled(record: dict[str, Any], lexer: str, **options: Any) -> Any:
    """The automaton, or None if the language is empty."""
    flags = record.get("options", {}).get("g_regex_flags", 0)
    start = record.get("start", "start")
    try:
        return oc.compile_grammar(
            record["grammar"], json_vocabulary(), lexer=lexer, start=start, g_regex_flags=flags, **options
        )
    except oc.UnsatisfiableError:
        return None


def walked(automaton: Any, text: str, *, masks: bool = False) -> tuple[bool, bool]:
    """Is the text viable, and may it end?  `masks`: each on the way must say of the next token what the step does."""
    if automaton is None:
        return False, False
    vocabulary = json_vocabulary()
    row = oc.allocate_bitmask(1, vocabulary)[0].view(np.uint32)
    eos, state = vocabulary.eos_token_ids[0], automaton.initial_state
    for token in [*tokens_of(vocabulary, text.encode("utf-8", "surrogatepass")), eos]:
        following = automaton.next_state(state, token)
        if masks:
            automaton.fill_mask(state, row)
            assert int(row[token >> 5]) >> (token & 31) & 1 == (following != oc.DEAD), (text, token)
        if following in (oc.DEAD, oc.FINISHED):
            break
        state = following
    return token == eos, following == oc.FINISHED


def check(
    record: dict[str, Any],
    lexer: str,
    automaton: Any,
    result: Result,
    name: str,
    oracle: LarkOracle | None = None,
    masks: bool = False,
) -> None:
    """All texts of a case against one automaton."""
    depends = {text: outcomes for text, outcomes in record.get("lexer_dependent", ()) if outcomes}
    expected = dict.fromkeys(record["accept"], True) | dict.fromkeys(record["reject"], False)
    expected |= {text: outcomes[lexer] for text, outcomes in depends.items() if lexer in outcomes}
    if oracle is not None:
        expected = {text: bool(oracle.parses(text)) for text in expected}

    def fault(text: str, what: str) -> None:
        result.faults.append(f"{record['source']} {lexer}: {text!r} {what} by {name}")

    for text, accepted in expected.items():
        result.counts["texts"] += 1
        if walked(automaton, text, masks=masks)[1] != accepted:
            fault(text, "refused" if accepted else "accepted")
    for text in record.get("prefix", ()):
        result.counts["prefixes"] += 1
        if not walked(automaton, text, masks=masks)[0]:
            fault(text, "is viable, but refused")
    for text in record.get("dead_prefix", ()):
        result.counts["prefixes"] += 1
        if walked(automaton, text, masks=masks)[0]:
            fault(text, "is not viable, but allowed")


def attempt(
    result: Result,
    where: str,
    make: Callable[[], Any],
    check_it: Callable[[Any], None],
    seconds: float = 30,
    grammar: str = "",
) -> None:
    """Compile and check; refusals by name are counted, other errors and endless calls are faults."""
    try:
        with alarm(seconds):
            automaton = make()
            result.counts["automata"] += 1
            check_it(automaton)
    except oc.UnsupportedFeatureError as error:
        result.unclaimed[f"refused: {error.feature}"] += 1
    except Exception as error:  # noqa: BLE001  # any other one is a fault
        reasons = [why for part, why in LIMITS.items() if part in grammar]
        if isinstance(error, oc.LimitExceededError) and reasons:
            result.explained.append(f"{where}: LimitExceededError: {reasons[0]}")
        else:
            result.faults.append(f"{where}: {error!r}")


def vanilla() -> Result:
    result = Result()
    for record in records("lark.jsonl"):
        if record["dialect"] != "lark":
            continue
        result.counts["grammars"] += 1
        flags = record.get("options", {}).get("g_regex_flags", 0)
        for lexer in VANILLA:
            reason = EXPLAINED.get((record["source"], lexer)) or EXPLAINED.get((record["source"], "*"))
            if reason is not None:
                result.explained.append(f"{record['source']} {lexer}: {reason}")
                continue
            case = Case(record["grammar"], "", lexer, record["start"], flags)
            if not loads(case):
                continue  # conflicts of LALR
            oracle = LarkOracle(case) if lexer == "basic" else None
            attempt(
                result,
                f"{record['source']} {lexer}",
                lambda r=record, lx=lexer: compiled(r, lx),
                lambda a, r=record, lx=lexer, o=oracle: check(r, lx, a, result, lx, o, lx in LALR),
                grammar=record["grammar"],
            )
    return result


def indentation() -> Result:
    result = Result()
    for record in records("lark_indent.jsonl"):
        of = record["postlex"]
        spec = Indentation(
            of["NL_type"],
            of["INDENT_type"],
            of["DEDENT_type"],
            tuple(of["OPEN_PAREN_types"]),
            tuple(of["CLOSE_PAREN_types"]),
            of["tab_len"],
        )
        for lexer in ("contextual", "basic"):
            attempt(
                result,
                f"{record['source']} {lexer}",
                lambda r=record, lx=lexer, s=spec: compiled(r, lx, postlex=indenter(s)),
                lambda a, r=record, lx=lexer: check(r, lx, a, result, f"{lx} with an indenter", masks=True),
            )
    return result


def prefixes() -> Result:
    """Large grammars of programming languages, with LALR."""
    result = Result()
    for record in records("lark_prefix.jsonl"):
        attempt(
            result,
            record["source"],
            lambda r=record: compiled(r, "contextual"),
            lambda a, r=record: check(r, "contextual", a, result, "contextual"),
            seconds=120,
            grammar=record["grammar"],
        )
    return result


@functools.cache
def invalid() -> Result:
    """Grammars that someone refuses: Lark's refusals are ours."""
    result = Result()
    for record in records("lark_invalid.jsonl"):
        options = record.get("options", {})
        lexers = [options["lexer"]] if "lexer" in options else ["contextual", "dynamic"]
        for lexer in lexers:
            said = LarkOracle(Case(record["grammar"], "", lexer))
            refuses = said.lark is None
            if refuses != record["vanilla_lark_refuses"]:
                result.explained.append(f"{record['source']} {lexer}: lark {'refuses' if refuses else 'takes'} it here")
            result.counts["grammars"] += 1
            try:
                compiled(record, lexer)
                error: Exception | None = None
            except Exception as raised:  # noqa: BLE001  # any other one is a fault
                error = raised
            where = f"{record['source']} {lexer}"
            if refuses and not isinstance(error, oc.ConstraintSyntaxError):
                result.faults.append(f"{where}: lark refuses it: {error!r}")
            elif isinstance(error, oc.ConstraintSyntaxError) and refuses:
                place = re.search(r"line (\d+),? column (\d+)", said.refused)
                if place and line_and_column(error.source, error.offset) != (int(place[1]), int(place[2])):
                    result.misplaced.append(
                        f"{where}: {place[0]}, not offset {error.offset}: {str(error).splitlines()[0]}"
                    )
            elif isinstance(error, oc.UnsupportedFeatureError):
                result.unclaimed[f"refused: {error.feature}"] += 1
            elif error is not None and not refuses and not (said.unusable and isinstance(error, oc.ConstraintError)):
                result.faults.append(f"{where}: lark takes it: {error!r}")
    return result


def unclaimed_reason(record: dict[str, Any]) -> str | None:
    """Why a case of llguidance's dialect is not claimed; None if it is."""
    for feature in record["features"]:
        if feature == "{m,n}" and re.fullmatch(r"[^{]*(%json\s*\{[^%]*)+", record["grammar"]):
            continue  # the label is wrong: these are the braces of a schema
        if feature in UNCLAIMED:
            return f"{feature}: {UNCLAIMED[feature]}"
        if feature not in CLAIMED | LARK_FEATURES:
            return f"{feature}: unknown"
    if not CLAIMED & set(record["features"]):
        for message, reason in OTHERWISE.items():
            if re.search(message, record["notes"]):
                return reason
        return "unknown"
    return None


def extended() -> Result:
    """llguidance's dialect."""
    result = Result()
    warmup()  # kernels are not compiled on the clock of a case
    for record in records("lark.jsonl"):
        if record["dialect"] == "lark":
            continue
        result.counts["grammars"] += 1
        for dialect in ("lark", "extended"):
            reason = unclaimed_reason(record) if dialect == "extended" else "not Lark's"
            where = f"{record['source']} {dialect}"
            if reason is None:
                attempt(
                    result,
                    where,
                    lambda r=record: compiled(r, "contextual", dialect="extended"),
                    lambda a, r=record: check(r, "contextual", a, result, "the extended dialect", masks=True),
                )
                continue
            if dialect == "extended":
                result.unclaimed[reason] += 1
            try:
                compiled(record, "contextual", dialect=dialect)
            except (oc.ConstraintSyntaxError, oc.UnsupportedFeatureError):
                result.counts["refused"] += 1
            except Exception as error:  # noqa: BLE001
                result.faults.append(f"{where}: {error!r}")
            else:
                result.faults.append(f"{where}: taken, though {reason}")
    return result


PARTS = (vanilla, indentation, prefixes, invalid, extended)
"""All files, for the report."""


def test_grammars_of_lark() -> None:
    result = vanilla()
    assert not result.faults, "\n".join(result.faults[:20])
    assert result.counts["automata"] > 500
    assert result.counts["texts"] > 1000
    assert not result.unclaimed


def test_indentation() -> None:
    result = indentation()
    assert not result.faults, "\n".join(result.faults[:20])
    assert result.counts["texts"] == 28


@pytest.mark.slow
def test_prefixes_in_programming_languages() -> None:
    result = prefixes()
    assert not result.faults, "\n".join(result.faults[:20])
    assert result.counts["prefixes"] == 48


def test_grammars_that_lark_refuses() -> None:
    result = invalid()
    assert not result.faults, "\n".join(result.faults[:20])
    assert result.counts["grammars"] > 200


def test_errors_point_where_lark_does() -> None:
    result = invalid()
    assert not result.misplaced, "\n".join(result.misplaced[:5])


def test_the_dialect_of_llguidance() -> None:
    result = extended()
    assert not result.faults, "\n".join(result.faults[:20])
    assert "unknown" not in " ".join(result.unclaimed)
