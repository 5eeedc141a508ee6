"""What an ordered DFA finds first is what `re` finds: random patterns of loops in loops, against `re.match`."""

from __future__ import annotations

import itertools
import random
import re
import warnings

from outlines_core.errors import ConstraintError
from outlines_core.grammar.ordered import OrderedDfa
from outlines_core.regex.parser import parse
from tests.strategies import scaled

TEXTS = ["".join(t) for n in range(6) for t in itertools.product("ab", repeat=n)]
REPEATS = ["*", "*?", "+", "+?", "?", "??", "{2}", "{1,2}", "{0,2}?", "{2,}", "{0,3}"]


def pattern(rng: random.Random, depth: int = 4) -> str:
    pick = rng.random()
    if depth == 0 or pick < 0.25:
        return rng.choice(["a", "b", "[ab]", ""])
    if pick < 0.5:
        return pattern(rng, depth - 1) + pattern(rng, depth - 1)
    if pick < 0.7:
        return f"(?:{pattern(rng, depth - 1)}|{pattern(rng, depth - 1)})"
    return f"(?:{pattern(rng, depth - 1)}){rng.choice(REPEATS)}"


def ends(dfa: OrderedDfa, text: str) -> set[int]:
    """Where the terminal ends; empty matches left out, as lexers have none."""
    state = dfa.start((0,), dfa.beginning)
    found: list[tuple[int, frozenset[int]]] = []
    for k, byte in enumerate(text.encode()):
        found = [(end, held) for end, before in found for held in dfa.after_byte(before, byte)]
        if state:
            state, matches = dfa.step(state, byte)
            found += [(k + 1, match.obligations) for match in matches]
    return {end for end, held in found if dfa.hold_at_end(held)}


def test_loops_end_where_those_of_re_do() -> None:
    rng = random.Random(1)
    patterns = ["(?:a*?)*", "(?:b|(?:a??)+)*", "(?:a{0,2}?(?:b)*|[ab]b)+", "(?:(?:b*|(?:a|b))+)*"]
    patterns += [pattern(rng) for _ in range(scaled(400))]
    n_matches = 0
    for one in patterns:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compiled, dfa = re.compile(one), OrderedDfa([parse(one)])
        except (re.error, ConstraintError):
            continue
        for text in TEXTS:
            match = compiled.match(text)
            end = match.end() if match else 0
            n_matches += end > 0
            assert ends(dfa, text) == ({end} if end else set()), (one, text)
    assert n_matches > 1000
