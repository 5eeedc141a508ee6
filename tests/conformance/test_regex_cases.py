"""Complete texts, judged by the automaton token by token and by `re` (or V8): other people's cases."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import outlines_core as oc

CASES = Path(__file__).resolve().parents[3] / "shared" / "data" / "cases" / "regex.jsonl"
BYTES = oc.Vocabulary(
    256, {bytes([b]): [b] for b in range(256)} | {b"the": [257], b"\xc3\xa9": [258], b"ab": [259], b"00": [260]}
)


def accepts(automaton: oc.RegexAutomaton, text: str) -> bool:
    accepted, state = automaton.accept_tokens(automaton.initial_state, text.encode())
    return accepted == len(text.encode()) and automaton.is_accepting(state)


def encodable(text: str) -> bool:
    return not any(0xD800 <= ord(c) <= 0xDFFF for c in text)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_cases_of_other_engines() -> None:
    """Texts that other engines' suites accept or reject, with `re.fullmatch` as the judge."""
    if not CASES.exists():
        pytest.skip("the shared case files are not here")
    n_texts = n_refused = 0
    for line in CASES.read_text().splitlines():
        case = json.loads(line)
        pattern, flags = case["grammar"], "".join(case.get("options") or [])
        if flags:
            pattern = f"(?{flags}){pattern}"
        try:
            regex = re.compile(pattern)
        except re.error:
            with pytest.raises(oc.ConstraintError):
                oc.compile_regex(pattern, BYTES)
            n_refused += 1
            continue
        try:
            automaton = oc.compile_regex(pattern, BYTES)
        except oc.UnsupportedFeatureError:
            assert re.search(r"\\[1-9]|\(\?P=|\(\?\(", pattern), pattern
            n_refused += 1
            continue
        except oc.UnsatisfiableError:
            assert not any(regex.fullmatch(text) for text in case["accept"])
            continue
        for text in [*case["accept"], *case["reject"]]:
            if encodable(text):
                assert accepts(automaton, text) == bool(regex.fullmatch(text)), (pattern, text)
                n_texts += 1
        for prefix in case.get("prefix") or []:
            accepted, _ = automaton.accept_tokens(automaton.initial_state, prefix.encode())
            assert accepted == len(prefix.encode()), (pattern, prefix)
    assert n_texts > 200
    assert n_refused < 10


def test_the_standard_librarys_own_table() -> None:
    re_tests = pytest.importorskip("test.re_tests", reason="this Python comes without its test package")
    n_patterns = 0
    for case in re_tests.tests:
        pattern, text = case[0], case[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                regex = re.compile(pattern)
            except re.error:
                with pytest.raises(oc.ConstraintError):
                    oc.compile_regex(pattern, BYTES)
                continue
        try:
            automaton: oc.RegexAutomaton | None = oc.compile_regex(pattern, BYTES)
        except oc.UnsupportedFeatureError:
            assert re.search(r"\\[1-9]|\(\?P=|\(\?\(", pattern), pattern
            continue
        except oc.UnsatisfiableError:
            automaton = None
        n_patterns += 1
        for start in range(min(len(text), 12) + 1):
            for end in range(start, min(len(text), 12) + 1):
                part = text[start:end]
                expected = bool(regex.fullmatch(part))
                assert (automaton is not None and accepts(automaton, part)) == expected, (pattern, part)
    assert n_patterns > 300


_BLOW_UPS = {
    "nested counts": "(?:a{1000}){1000}",
    "nested stars": "(a*)*b",
    "nested stars of alternatives": "((a|b*)*)*c",
    "delayed choice": "(.*a.{20})",
    "nested options": "((a?){1000}){1000}",
    "nested ranges": "(?:(?:(?:a{1,50}){1,50}){1,50}){1,50}",
    "one megabyte of words": "|".join(f"w{k:09d}" for k in range(95_000)),
    "many sets": "|".join(f"[ab]{k}" for k in range(100_000)),
    "crossing look-aheads": r"(?=.*a.{20})(?=.*b.{20})(?=.*c.{20})\w{30,200}",
    "a look-ahead that never holds": r"(?=.{50}$)(?=.*a.{20}b.{20}c)(?=.*b.{12}x.{9})(?!.*c)\w+",
    "deep nesting": "(" * 5000 + "a" + ")" * 5000,
    "long repeat": r"\w{100000}",
}


@pytest.mark.parametrize("name", _BLOW_UPS)
def test_blow_ups_end_in_a_result_or_an_error(name: str) -> None:
    """In a process of its own: a mask, thirty steps and masks, or LimitExceededError; never more than 400 MB."""
    code = (
        "import sys, resource; pattern = sys.stdin.read()\n"
        "import outlines_core as oc\n"
        "v = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)} | {b'a' * n: [257 + n] for n in range(2, 60)})\n"
        "oc.compile_regex('a(?!b)c*', v).materialize()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "out = oc.allocate_bitmask(1, v)[0]\n"
        "try:\n"
        "    a = oc.compile_regex(pattern, v); s = a.initial_state\n"
        "    for _ in range(30):\n"
        "        a.fill_mask(s, out)\n"
        "        ids = [i for i in a.allowed_tokens(s).tolist() if i != 256]\n"
        "        if not ids: break\n"
        "        s = a.next_state(s, ids[len(ids) // 2])\n"
        "    print('result')\n"
        "except oc.LimitExceededError as error:\n"
        "    print('limit', error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=_BLOW_UPS[name], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome, grown = done.stdout.splitlines()[0], int(done.stdout.splitlines()[-1])
    assert outcome.startswith(("result", "limit"))
    assert grown < 200 * 1024, f"{grown // 1024} MB"
