"""The analysis on numbers against Lark's own: the same automaton up to the numbers of its states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark.common import ParserConf
from lark.exceptions import GrammarError
from lark.grammar import NonTerminal, Rule, RuleOptions, Terminal
from lark.parsers.lalr_analysis import LALR_Analyzer, Shift

from outlines_core.grammar.lalr import Analyzer

PYTHON = (Path(lark.__file__).parent / "grammars" / "python.lark").read_text(encoding="utf-8")


def outcome(kind: type[LALR_Analyzer], rules: list[Rule], starts: list[str]) -> Any:
    """The table with its states numbered as they are met; or the message, whose rules Lark lists in any order."""
    try:
        analyzer = kind(ParserConf(rules, {}, starts))
        analyzer.compute_lalr()  # type: ignore[no-untyped-call]
    except GrammarError as error:
        return sorted(str(error).splitlines())
    table: Any = analyzer.parse_table
    number = {table.start_states[start]: k for k, start in enumerate(starts)}
    rows = []
    todo = list(number)
    for state in todo:
        row = {}
        for name, (action, argument) in sorted(table.states[state].items()):
            if action is Shift and argument not in number:
                number[argument] = len(number)
                todo.append(argument)
            row[name] = number[argument] if action is Shift else str(argument)
        rows.append(row)
    conflicts = [
        (str(terminal), sorted(map(str, reduced)))
        for items in analyzer.lr0_itemsets
        for terminal, reduced in items.lookaheads.items()
        if len(reduced) > 1 or terminal in set(items.transitions)
    ]
    assert not isinstance(analyzer, Analyzer) or analyzer.has_conflicts == bool(conflicts)
    return (
        rows,
        sorted(conflicts),
        {start: number[state] for start, state in table.end_states.items()},
        len(table.states),
    )


def test_python() -> None:
    starts = ["file_input", "single_input", "eval_input"]
    rules = lark.Lark(PYTHON, start=starts, parser="earley", lexer="basic").rules
    assert outcome(Analyzer, rules, starts) == outcome(LALR_Analyzer, rules, starts)


@st.composite
def grammars(draw: st.DrawFn) -> list[Rule]:
    """Rules of up to four nonterminals, empty ones and priorities among them."""
    names = "abcd"[: draw(st.integers(1, 4))]
    symbols = [NonTerminal(name) for name in names] + [Terminal(name) for name in "XYZ"]
    rules = {}
    for name in names:
        for k in range(draw(st.integers(1, 3))):
            expansion = draw(st.lists(st.sampled_from(symbols), max_size=4))
            priority = draw(st.sampled_from([None, None, 1, 2]))
            rule = Rule(NonTerminal(name), expansion, k, None, RuleOptions(priority=priority))
            rules.setdefault((name, *expansion), rule)
    return list(rules.values())


@settings(max_examples=400)
@given(grammars())
def test_random_rules(rules: list[Rule]) -> None:
    assert outcome(Analyzer, rules, ["a"]) == outcome(LALR_Analyzer, rules, ["a"])


def test_what_cannot_go_on_reads_itself() -> None:
    """`a: a a |`: Lark's sets are one object there."""
    a = NonTerminal("a")
    rules = [Rule(a, [a, a, Terminal("X")], 0), Rule(a, [], 1), Rule(a, [a, Terminal("Y")], 2)]
    assert outcome(Analyzer, rules, ["a"]) == outcome(LALR_Analyzer, rules, ["a"])


@pytest.mark.parametrize("starts", [["start"], ["start", "other"]])
def test_several_starts(starts: list[str]) -> None:
    text = 'start: other "x" start | \nother: "y" other | "z"\n'
    rules = lark.Lark(text, start=starts, parser="earley", lexer="basic").rules
    assert outcome(Analyzer, rules, starts) == outcome(LALR_Analyzer, rules, starts)
