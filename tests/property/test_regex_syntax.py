r"""The format ``regex`` against V8: random regexes, and life and shortest completions by all short strings.

V8's verdict is taken with the one departure that `regex_grammar` decides: ``\a`` and the like. Running this file as a
module writes the corpus of ``tests/unit/json_schema/test_regex_syntax.py`` anew.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Literal as OneOf

import pytest

from outlines_core.json_schema.regex_grammar import Grammar
from outlines_core.json_schema.regex_syntax import RegexSyntax, n_chars
from outlines_core.regex.unicode import ecma_properties

CORPUS = Path(__file__).parents[1] / "unit/json_schema/regex_syntax_corpus.json"
NODE = """
const ok = (p, f) => { try { new RegExp(p, f); return true }
                       catch (e) { if (!(e instanceof SyntaxError)) throw e; return false } };
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(texts.map(p => (ok(p, "u") ? 1 : 0) + (ok(p, "") ? 2 : 0))));
"""
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is the referee")

# fmt: off
PIECES = [
    *"ab1078fxuckp-^$\\*+?,()<>[]|./=!:_{}\n", "??", "{1}", "{1,}", "{1,2}", "{2,1}", "{02,10}", "{10,9}", "(?:", "(?=",
    "(?!", "(?<=", "(?<!", "(?<a>", "(?<b>", "(?<", r"(?<\u0061>", r"(?<\u{62}>", r"(?<\ud835\udc9c>", r"\k<a>",
    r"\k<b>", r"\k", r"\k<", "[^", r"\d", r"\W", r"\b", r"\B", r"\1", r"\2", r"\10", r"\0", r"\00", r"\8", r"\c",
    r"\cA", r"\x", r"\x4", r"\x41", r"\u", r"\u0041", r"\u00", r"\u{61}", r"\u{1f600}", r"\u{110000}", r"\ud83d",
    r"\ude00", r"\ud83d\ude00", r"\p{L}", r"\p{gc=Lu}", r"\P{Script=Greek}", r"\p{X}", r"\p", r"\-", r"\_", r"\a",
    r"\Z", r"\/", "é", "😀", "😁", "\ud83d", "一", "\uffff", "(?i:", "a-z", "z-a", r"\d-", r"-\w", r"\x61-\x62",
    r"\u0061-", r"\cA-", r"\07-", r"\377-", r"\u{1f600}-", "😀-",
]
NAMES = [
    "(?<", r"\k<", "a", "b", "ab", "a>", "b>", ">", ")", "(", r"\u", r"\u{", "61", "62", "0061", "{61}", r"\ud835",
    r"\udc9c", r"\ud", r"\u{1d4", "9c}", "𝒜", "𝒜>", "é", "(?", r"\1", r"\3", r"\12", "(?<a>", "(?<ab>", "(?<𝒜>",
    r"\k<ab>", r"\k<𝒜𝒜>", "\\", "[", "]", "c}", r"\p{", "L", "S", "Script", "=", "Gr", "}", "{", "1", "2,", "0", "00",
]
SETS = [
    "[", "a-", "-", r"\u", "d8", "3d", r"\u", r"\ud83d", r"\ude00", "de", "{", "1f", "600", "}", "z-", r"\u{1f600}-",
    r"\uffff-", "\ue000-", r"\udfff-", r"\ud83d-", r"\ude00-", "é-", "x", "f", "c", "1", "3", "7", r"\3", r"\377-",
    r"\xff-", "d", "^", "😀-", "\U0010ffff-", "]", r"\ud83d\ude00-", r"\ud83d\u", "\\ud83d\\", r"\c", r"\x", r"\p{L}",
    r"-\d", r"\x7", r"\xf", r"\2", r"\u00f",
]
# fmt: on
PLAIN, IN_NAMES, IN_SETS = (PIECES, ("", "", "[", "(?<a>")), (NAMES, ("", "(?<a>", "(?<", r"\k<")), (SETS, ("[",))
ENDS = ("", "", ")", ">)", ">)(?<a>)", "]", "]*")


def sample(rng: random.Random, pieces: list[str], begins: tuple[str, ...], ends: tuple[str, ...] = ENDS) -> str:
    n = rng.choice((1, 2, 3, 4, 5, 6, 8, 10))
    text = rng.choice(begins) + "".join(rng.choices(pieces, k=n)) + rng.choice(ends)
    if rng.random() < 0.3:
        text += ")" * text.count("(")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # two halves are one character


def samples(seed: int, n: int) -> list[str]:
    rng = random.Random(seed)
    return list({sample(rng, *rng.choice((PLAIN, PLAIN, IN_NAMES, IN_SETS))): None for _ in range(n)})


def verdicts(texts: list[str]) -> list[int]:
    """Bit 0: with the u flag, bit 1: without it."""
    answer = subprocess.run(["node", "-e", NODE], input=json.dumps(texts), capture_output=True, text=True, check=True)
    foreign = (set(re.findall(r"\\(.)", text, re.DOTALL)) & set("aeghijlmoqyzACEFGHIJKLMNOQRTUVXYZ") for text in texts)
    return [bits & 1 if any(found) else bits for bits, found in zip(json.loads(answer.stdout), foreign, strict=True)]


def accepts(grammar: Grammar, text: bytes) -> bool:
    state = grammar.start
    for byte in text:
        state = int(grammar.row(state)[byte])
    return grammar.accepts(state)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def check_grammars(seed: int, n: int) -> None:
    texts = samples(seed, n)
    grammars = [Grammar("u"), Grammar("plain"), Grammar("named")]
    wrong = []
    for text, expected in zip(texts, verdicts(texts), strict=True):
        if max(grammar.n_states for grammar in grammars) > 200_000:
            grammars = [Grammar("u"), Grammar("plain"), Grammar("named")]
        strict, plain, named = (accepts(grammar, encoded(text)) for grammar in grammars)
        if strict + 2 * (plain + named) != expected:  # a pattern has named groups or has none
            wrong.append((text, expected))
    assert wrong == []


@needs_node
def test_both_syntaxes_are_those_of_v8() -> None:
    check_grammars(0, 2500)


@needs_node
@pytest.mark.slow
def test_both_syntaxes_are_those_of_v8_at_length() -> None:
    for seed in range(1, 5):
        check_grammars(seed, 50_000)


@needs_node
def test_all_properties() -> None:
    names = sorted(ecma_properties())
    names += [name.lower() for name in names] + [name[:-1] for name in names] + [f"Script={name}" for name in names]
    grammar = Grammar("u")
    texts = [rf"\p{{{name}}}" for name in names]
    assert [accepts(grammar, text.encode()) for text in texts] == [bool(bits & 1) for bits in verdicts(texts)]


# -- life --------------------------------------------------------------------------------------------------------------


def check_all(alphabet: str, length: int, before: str = "") -> None:
    """All strings up to a length, V8 being the truth about which are regexes.

    No regex has a dead prefix, or one that needs more than there is; what a live state gives as completion completes.
    """
    texts = ["".join(chars) for n in range(length + 1) for chars in product(alphabet, repeat=n)]
    syntax = RegexSyntax()
    states = {"": syntax.start}
    for byte in before.encode():
        states[""] = int(syntax.row(states[""])[byte])
    for text in texts[1:]:
        at = states[text[:-1]]
        states[text] = int(syntax.row(at)[ord(text[-1])]) if at else 0
    accepted = [bool(bits) for bits in verdicts([before + text for text in texts])]
    assert [syntax.accepts(states[text]) for text in texts] == accepted
    for text in (text for text, is_regex in zip(texts, accepted, strict=True) if is_regex):
        for n in range(len(text)):
            at = states[text[:n]]
            assert at != 0
            assert syntax.need(at) <= len(text) - n
    live = {state: text for text, state in states.items() if state}
    completed = [encoded(before + text) + syntax.witness(state) for state, text in live.items()]
    assert all(verdicts([text.decode("utf-8", "surrogatepass") for text in completed]))


SMALL = [
    (r"()[]{}\^*+?|,-a1<>=!:kpu", 3, ""),
    (r"(?<a>)\k", 5, ""),
    (r"(?<a>)\1", 4, r"[😀-😁]"),
    (r"a{12,0}", 6, ""),
    (r"[-\c1]x", 5, ""),
    (r"[-\ud8f]", 4, "["),
    (r"{}1f0]", 4, r"[\u{1f600}-\u"),
    (r"\ud8cf]", 4, r"[\ud83d\ude00-\ud83d"),
    (r"{}61>a", 5, r"(?<\u"),
    (r"()\1", 6, r"\u{61}{2}"),
]


@needs_node
@pytest.mark.parametrize(("alphabet", "length", "before"), SMALL)
def test_life_by_all_short_strings(alphabet: str, length: int, before: str) -> None:
    while len(alphabet) ** length > 20_000:
        length -= 1
    check_all(alphabet, length, before)


@needs_node
@pytest.mark.slow
@pytest.mark.parametrize(("alphabet", "length", "before"), SMALL)
def test_life_by_all_strings(alphabet: str, length: int, before: str) -> None:
    check_all(alphabet, length if len(alphabet) ** length > 100_000 else length + 1, before)


def check_completions(kind: OneOf["u", "plain", "named"], n: int) -> None:
    """A completion is right, and no step of a character leads to one that is shorter by more than that character."""
    rng = random.Random(n)
    grammar, seen = Grammar(kind), set()
    for _ in range(n):
        text = sample(rng, *rng.choice((PLAIN, IN_NAMES, IN_SETS)), ends=("",))
        if grammar.n_states > 200_000:
            grammar, seen = Grammar(kind), set()
        state = grammar.start
        for byte in encoded(text):
            if state not in seen:
                seen.add(state)
                rest, at = grammar.completion(state), state
                for step in rest if len(rest) < 200 else b"":  # \1000 takes a thousand groups
                    at = int(grammar.row(at)[step])
                assert grammar.accepts(at) or len(rest) >= 200, (text, rest)
                assert grammar.accepts(state) == (not rest)
                steps = {target: step for step, target in enumerate(grammar.row(state).tolist()) if target}
                for target in rng.sample(sorted(steps), min(len(steps), 30)):
                    is_first = steps[target] & 0xC0 != 0x80
                    assert n_chars(rest) <= is_first + n_chars(grammar.completion(target)), (text, rest)
            state = int(grammar.row(state)[byte])
            if not state:
                break


@pytest.mark.parametrize("kind", ["u", "plain", "named"])
def test_completions_are_shortest(kind: OneOf["u", "plain", "named"]) -> None:
    check_completions(kind, 150)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["u", "plain", "named"])
def test_completions_are_shortest_at_length(kind: OneOf["u", "plain", "named"]) -> None:
    for n in range(1000, 1010):
        check_completions(kind, n)


if __name__ == "__main__":
    corpus = samples(2026, 1500)
    lines = [json.dumps([text, bits]) for text, bits in zip(corpus, verdicts(corpus), strict=True)]
    CORPUS.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="ascii")
