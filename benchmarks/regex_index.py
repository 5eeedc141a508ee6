"""Regex -> index, against PyPI's `outlines_core`, both sides in one run.

The nine regexes of outlines-core's own benchmark, and six more, on one vocabulary. Each engine is a process of its
own in its own Python (the packages share an import name); they take turns pattern by pattern, so that the machine's
noise falls on both. What is measured:

    eager    compile and build everything: ours `compile_regex` + `materialize()`, theirs `Index(regex, vocabulary)`;
             the least of up to five runs, caches emptied before each
    lazy     ours only: compile + first mask, caches empty
    mask     ours only: fill_mask + next_state along random walks, states visited for the first time included
    theirs   Guide.write_mask_into + advance along the same kind of walk

Both are checked on each sample: the number of tokens allowed at the start must be equal, where theirs does not have a
known bug (listed in `KNOWN`).

usage: python benchmarks/regex_index.py --tokenizer HF_DIR [--peer PYTHON] [--timeout 600] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
import random
import select
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

_WORDS = (
    "of|resulting|case|which|cultures|a|core|extreme|selflessness|spiritual|various|However|both|vary|in|other|secular|"
    "the|religious|among|moral|and|It|object|worldviews|altruism|traditional|material|aspect|or|life|beings|virtue|is|"
    "however|opposite|concern|an|practice|it|for|s|quality|religions|In|Altruism|animals|happiness|many|become|"
    "principle|human|selfishness|may|synonym"
)
_SPAN = rf"['\"\ ,]?((?:{_WORDS})['\"\ ,]?)+['\"\ ,]?"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_DAY, _MONTH = r"([1-9]|0[1-9]|1[0-9]|2[0-9]|3[0-1])", r"([1-9]|0[1-9]|1[0-2])"
_YEAR, _DOT = r"([0-9][0-9]|19[0-9][0-9]|20[0-9][0-9])", r"(\.|-|/)"
_LABEL = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"


def _names(n: int) -> str:
    """`n` different words, as one alternation."""
    rng = random.Random(0)
    words: dict[str, None] = {}
    while len(words) < n:
        words["".join(rng.choice("bcdfghklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(2, 6)))] = None
    return "|".join(words)


PATTERNS = {
    "email": rf"{_LABEL}(?:\.{_LABEL})*@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
    "complex_phone": r"\+?\d{1,4}?[-.\s]?\(?\d{1,3}?\)?[-.\s]?\d{1,4}[-.\s]?\d{1,4}[-.\s]?\d{1,9}",
    "simple_phone": r"\+?[1-9][0-9]{7,14}",
    "date": f"{_DAY}{_DOT}{_MONTH}{_DOT}{_YEAR}|{_YEAR}{_DOT}{_MONTH}{_DOT}{_DAY}",
    "time": r"(0?[1-9]|1[0-2]):[0-5]\d\s?(am|pm)?",
    "ip": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "url": r"(https?:\/\/)?([\da-z\.-]+)\.([a-z\.]{2,6})([\/\w \.-]*)*\/?",
    "ssn": r"\d{3}-\d{2}-\d{4}",
    "complex_span_constrained_relation_extraction": (
        rf"({_SPAN}\s\|\s([^|\(\)\n]{{1,}})\s\|\s{_SPAN}"
        r"(\s\|\s\(([^|\(\)\n]{1,})\s\|\s([^|\(\)\n]{1,})\))*\n)*"
    ),
    "json_string_64": r'"[^"\\]{0,64}"',
    "any_100": r".{0,100}",
    "sentence": r"[A-Z][a-z]+( [a-z]+){4,12}\.",
    "sentence_quoted": r"[A-Z][\w',-]*( [\w',-]+){2,20}[.!?]",
    "choice_10000": _names(10_000),
    "sentence_bounded": r"([A-Z][a-z]{0,12})( [a-z]{1,12}){3,9}(, [a-z]{1,12}( [a-z]{1,12}){1,6})?[.?!]",
}
N_WALKS, N_STEPS = 20, 40
KNOWN: dict[str, str] = {}


class Ours:
    def __init__(self, content: dict[str, Any]) -> None:
        import outlines_core as oc

        self.oc = oc
        self.vocabulary = oc.Vocabulary(content["eos"], content["tokens"])
        self.row = oc.allocate_bitmask(1, self.vocabulary)[0]
        from outlines_core.warmup import warmup

        os.environ["OUTLINES_CACHE_DIR"] = tempfile.mkdtemp()
        warmup()

    def empty_disk(self) -> None:
        from outlines_core.cache import default_directory

        for path in default_directory().glob("??/*.bin"):
            path.unlink()

    def run(self, name: str) -> dict[str, Any]:
        from outlines_core.bitmask import unpack_ids
        from outlines_core.compile import clear_cache

        pattern, oc = PATTERNS[name], self.oc
        lazy = []
        for _ in range(5):
            clear_cache()
            start = time.perf_counter()
            automaton = oc.compile_regex(pattern, self.vocabulary)
            automaton.fill_mask(automaton.initial_state, self.row)
            lazy.append(time.perf_counter() - start)
        n_first = len(unpack_ids(self.row)) - automaton.is_accepting(automaton.initial_state) * len(
            self.vocabulary.eos_token_ids
        )
        clear_cache()
        automaton = oc.compile_regex(pattern, self.vocabulary)
        rng, steps = random.Random(name), []
        for _ in range(N_WALKS):
            state = automaton.initial_state
            for _ in range(N_STEPS):
                start = time.perf_counter()
                automaton.fill_mask(state, self.row)
                middle = time.perf_counter()
                ids = unpack_ids(self.row)
                token = int(ids[rng.randrange(len(ids))])
                resumed = time.perf_counter()
                state = automaton.next_state(state, token)
                steps.append(middle - start + time.perf_counter() - resumed)
                if state == oc.FINISHED:
                    break

        def build() -> Any:
            automaton = oc.compile_regex(pattern, self.vocabulary)
            automaton.materialize()
            return automaton

        def forget() -> None:
            clear_cache()
            for thread in threading.enumerate():  # what was built is written to disk behind our back
                if thread.name == "store-index":
                    thread.join()
            self.empty_disk()

        eager, automaton = least(build, forget)
        clear_cache()
        for thread in threading.enumerate():
            if thread.name == "store-index":
                thread.join()
        start = time.perf_counter()
        oc.compile_regex(pattern, self.vocabulary).materialize()  # from disk
        again = time.perf_counter() - start
        return {
            "eager_s": eager, "from_disk_s": again, "lazy_first_s": lazy[0], "lazy_s": statistics.median(lazy),
            "steps": steps, "n_first": n_first, "states": automaton.n_states, "bytes": automaton.nbytes,
        }  # fmt: skip


def least(build: Callable[[], Any], before: Callable[[], None]) -> tuple[float, Any]:
    """The least seconds of a few runs, as many as fit into two seconds, and what the last one made."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < 5 and sum(seconds) < 2):
        before()
        start = time.perf_counter()
        made = build()
        seconds.append(time.perf_counter() - start)
    return min(seconds), made


class Pypi:
    def __init__(self, content: dict[str, Any]) -> None:
        import outlines_core

        self.module = outlines_core
        eos = content["eos"][0]
        self.vocabulary = outlines_core.Vocabulary(eos, content["tokens"])
        self.words = content["size"] // 32 + 1

    def run(self, name: str) -> dict[str, Any]:
        import numpy as np

        eager, index = least(lambda: self.module.Index(PATTERNS[name], self.vocabulary), lambda: None)
        row = np.zeros(self.words, dtype=np.int32)
        rng, steps = random.Random(name), []
        for _ in range(N_WALKS):
            guide = self.module.Guide(index)
            for _ in range(N_STEPS):
                start = time.perf_counter()
                guide.write_mask_into(row.ctypes.data, row.size, row.itemsize)
                middle = time.perf_counter()
                bits = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
                ids = bits[bits != self.vocabulary.get_eos_token_id()]
                if not len(ids):
                    break
                token = int(ids[rng.randrange(len(ids))])
                resumed = time.perf_counter()
                guide.advance(token, return_tokens=False)
                steps.append(middle - start + time.perf_counter() - resumed)
        allowed = set(index.get_allowed_tokens(index.get_initial_state())) - {self.vocabulary.get_eos_token_id()}
        return {"eager_s": eager, "n_first": len(allowed), "steps": steps, "states": len(index.get_transitions())}


class Worker:
    def __init__(self, engine: str, python: str, content: str) -> None:
        isolated = ["-I"] if engine == "pypi" else []  # the packages share an import name
        self.arguments = [python, *isolated, __file__, "--worker", engine, "--content", content]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read(600)

    def _read(self, timeout: float) -> Any:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.process.kill()
            self.process.wait()
            return {"timeout": timeout}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"crash": self.process.wait()}

    def run(self, name: str, timeout: float) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        answer = self._read(timeout)
        if "timeout" in answer or "crash" in answer:
            self.start()
        return answer


def worker(engine: str, content: str) -> None:
    with open(content, "rb") as file:
        subject: Any = {"ours": Ours, "pypi": Pypi}[engine](pickle.load(file))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        try:
            answer = subject.run(line.strip())
        except ValueError as error:
            answer = {"error": str(error)[:200]}
        print(json.dumps(answer), flush=True)


def percentile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer directory")
    parser.add_argument("--peer", help="the Python of an environment with PyPI's outlines_core")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds a pattern may take")
    parser.add_argument("--only", nargs="*", default=list(PATTERNS), help="names of patterns")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--content", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.content)
        return
    from transformers import AutoTokenizer

    from processors.tokenizers import vocabulary_from

    vocabulary = vocabulary_from(AutoTokenizer.from_pretrained(args.tokenizer))
    tokens = {token: list(ids) for token, ids in vocabulary.items()}
    results: dict[str, dict[str, Any]] = {}
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        content = {"eos": list(vocabulary.eos_token_ids), "tokens": tokens, "size": vocabulary.size}
        pickle.dump(content, file)
        file.flush()
        engines = {"ours": Worker("ours", sys.executable, file.name)}
        if args.peer:
            engines["pypi"] = Worker("pypi", args.peer, file.name)
        print(f"{'pattern':24s} {'lazy ms':>8s} {'first':>7s} {'eager s':>8s} {'theirs':>9s} {'ratio':>7s}   "
              f"{'p50 us':>7s} {'p99':>8s} | {'theirs':>7s} {'p99':>8s}  states")  # fmt: skip
        for name in args.only:
            row = {engine: w.run(name, args.timeout) for engine, w in engines.items()}
            results[name] = row
            ours, theirs = row["ours"], row.get("pypi", {})
            ratio = ours["eager_s"] / theirs["eager_s"] if "eager_s" in theirs else float("nan")
            note = "" if theirs.get("n_first", ours["n_first"]) == ours["n_first"] else (
                f"first mask: {ours['n_first']} against {theirs['n_first']} tokens")  # fmt: skip
            for side in (ours, theirs):
                values = side.pop("steps", None) or [float("nan")]
                side["p50_us"], side["p99_us"] = percentile(values, 0.5) * 1e6, percentile(values, 0.99) * 1e6
            shown = f"{theirs['eager_s']:9.3f}" if "eager_s" in theirs else f"{next(iter(theirs), '-'):>9s}"
            steps = " | ".join(f"{side['p50_us']:7.1f} {side['p99_us']:8.1f}" for side in (ours, theirs))
            print(f"{name[:24]:24s} {ours['lazy_s'] * 1e3:8.2f} {ours['lazy_first_s'] * 1e3:7.1f} "
                  f"{ours['eager_s']:8.3f} {shown} {ratio:7.4f}   {steps}  {ours['states']}  "
                  f"{note or theirs.get('error', '')}", flush=True)  # fmt: skip
        for w in engines.values():
            w.process.kill()
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
