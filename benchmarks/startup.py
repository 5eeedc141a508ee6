"""What a process takes to come to its first mask, and what the machine pays once.

    imports   `python -X importtime` of the packages
    start     from the start of a process to its first mask: kernels on disk; data of the vocabulary and of earlier
              constraints on disk (warm), or the cache directory emptied before each process (emptied)
    ttfm      compile + first mask in a process that has loaded everything but this constraint; the cache directory
              empty, or left by another process: what the disk cache gives
    jit       with --cold only: `python -m outlines_core warmup` with no kernel compiled, then with all

Figures are medians over processes that run one after the other; in `ttfm` the two sides take turns. Wall time: a busy
machine shows in all of them, so its load is noted beside them.

usage: python benchmarks/startup.py --tokenizer HF_DIR [--parts start ...] [--starts 5] [--cold] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

PARTS = ("imports", "start", "ttfm", "jit")
START_BUDGET_S, JIT_BUDGET_S = 2.0, 60.0
PATTERN = r'\{"id": (?:0|[1-9][0-9]{0,5}), "name": "[A-Za-z ,.]{1,24}", "ok": (?:true|false)\}'
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 40},
        "born": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"enum": ["staff", "guest"]}, "uniqueItems": True},
        "score": {"type": "number", "minimum": 0, "maximum": 10},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def python(*arguments: str, env: dict[str, str] | None = None) -> tuple[float, str, str]:
    """Wall seconds, stdout and stderr of a Python of its own."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)[:200]} failed:\n{done.stderr[-2000:]}")
    return seconds, done.stdout, done.stderr


def part_imports(args: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    nothing = statistics.median(python("-c", "pass")[0] for _ in range(args.starts))
    for module in ("outlines_core", "processors", "processors.logits", "torch", "transformers"):
        totals, walls = [], []
        for _ in range(args.starts):
            wall, _, err = python("-X", "importtime", "-c", f"import {module}")
            own = {" " + module, " " + module.partition(".")[0]}  # one space: not imported by another module
            lines = [x.split("|") for x in err.splitlines() if x.startswith("import time:")]
            totals.append(sum(int(cumulative) for _, cumulative, name in lines if name in own) / 1e6)
            walls.append(wall - nothing)
        results[module] = {"importtime_s": statistics.median(totals), "wall_s": statistics.median(walls)}
        inside, outside = results[module]["importtime_s"] * 1e3, results[module]["wall_s"] * 1e3
        print(f"import {module:20s} {inside:8.1f} ms by importtime, {outside:8.1f} ms more than an empty process "
              f"({nothing * 1e3:.0f} ms)", flush=True)  # fmt: skip
    return results


_STAGES = r"""
import json, sys, time
stages = [("python", time.time())]
def stage(name): stages.append((name, time.time()))
"""
_FINISH = r"""
print(json.dumps(stages))
"""
_PICKLED = r"""
import pickle, outlines_core as oc
stage("import outlines_core")
with open(sys.argv[1], "rb") as file:
    vocabulary = pickle.load(file)
stage("unpickle the vocabulary")
"""
_FROM_TOKENIZER = r"""
import outlines_core as oc
stage("import outlines_core")
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
stage("transformers loads the tokenizer")
from processors.tokenizers import vocabulary_from
vocabulary = vocabulary_from(tokenizer)
stage("vocabulary_from")
"""
_MASK = r"""
constraint = json.loads(sys.argv[2])
automaton = getattr(oc, constraint["with"])(constraint["text"], vocabulary)
stage("compile")
row = oc.allocate_bitmask(1, vocabulary)
automaton.fill_mask(automaton.initial_state, row[0])
stage("first mask")
"""
_LOGITS = r"""
import torch
from processors.logits import GuideLogitsProcessor
stage("import processors.logits")
processor = GuideLogitsProcessor(vocabulary, automaton)
processor(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, vocabulary.size))
stage("first masked logits")
"""
_REGEX = json.dumps({"with": "compile_regex", "text": PATTERN})
_JSON = json.dumps({"with": "compile_json_schema", "text": SCHEMA})


def part_start(args: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        pickled = pickled_vocabulary(args.tokenizer, directory)
        print(f"a pickled vocabulary has {os.path.getsize(pickled) / 1e6:.1f} MB")
        for name, program, arguments in (
            ("pickled vocabulary -> regex mask", _PICKLED + _MASK, (pickled, _REGEX)),
            ("pickled vocabulary -> JSON mask", _PICKLED + _MASK, (pickled, _JSON)),
            ("tokenizer -> JSON mask", _FROM_TOKENIZER + _MASK, (args.tokenizer, _JSON)),
            ("tokenizer -> masked logits", _FROM_TOKENIZER + _MASK + _LOGITS, (args.tokenizer, _JSON)),
        ):
            for disk in ("warm", "emptied"):
                totals, parts = list[float](), defaultdict[str, list[float]](list)
                with tempfile.TemporaryDirectory() as kept:
                    for _ in range(args.starts + 1):
                        with tempfile.TemporaryDirectory() as fresh:
                            env = {"OUTLINES_CACHE_DIR": kept if disk == "warm" else fresh}
                            last = began = time.time()
                            out = python("-c", _STAGES + program + _FINISH, *arguments, env=env)[1]
                            for what, at in json.loads(out.splitlines()[-1]):
                                parts[what].append(at - last)
                                last = at
                            totals.append(last - began)
                # The first run fills the disk caches, of the operating system as well.
                medians = {what: statistics.median(t[1:]) for what, t in parts.items()}
                results[f"{name}, {disk}"] = {"total_s": statistics.median(totals[1:]), "stages_s": medians}
                print(f"{name}, {disk}: {statistics.median(totals[1:]):.2f} s")
                for what, t in medians.items():
                    print(f"    {what:36s} {t * 1e3:8.1f} ms", flush=True)
    return results


def pickled_vocabulary(tokenizer: str, directory: str) -> str:
    from transformers import AutoTokenizer

    from processors.tokenizers import vocabulary_from

    path = os.path.join(directory, "vocabulary.pickle")
    with open(path, "wb") as file:
        pickle.dump(vocabulary_from(AutoTokenizer.from_pretrained(tokenizer)), file)
    return path


_TTFM = r"""
import json, pickle, sys, threading, time
import outlines_core as oc
from outlines_core.warmup import warmup
warmup()
with open(sys.argv[1], "rb") as file:
    vocabulary = pickle.load(file)
constraint = json.loads(sys.argv[2])
oc.compile_regex("a", vocabulary).fill_mask(2, row := oc.allocate_bitmask(1, vocabulary)[0])
if constraint["with"] == "compile_grammar":
    from processors import grammars
    name = constraint["text"]
    arguments, options = grammars.load(name), grammars.options(name)
    oc.compile_grammar('start: "a" start | "b"', vocabulary).fill_mask(2, row)
    function = oc.compile_grammar
else:
    arguments, options, function = constraint["text"], {}, getattr(oc, constraint["with"])
start = time.perf_counter()
automaton = function(arguments, vocabulary, **options)
automaton.fill_mask(automaton.initial_state, row)
print(time.perf_counter() - start)
if constraint.get("eager"):
    automaton.materialize()
for thread in threading.enumerate():  # what is stored is stored in the background
    if thread is not threading.current_thread() and not thread.daemon:
        thread.join()
"""


def part_ttfm(args: argparse.Namespace) -> dict[str, Any]:
    constraints = {
        "regex": {"with": "compile_regex", "text": PATTERN},
        "JSON Schema": {"with": "compile_json_schema", "text": SCHEMA},
        "grammar: json": {"with": "compile_grammar", "text": "json"},
        "grammar: python": {"with": "compile_grammar", "text": "python"},
    }
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        pickled = pickled_vocabulary(args.tokenizer, directory)
        for name, constraint in constraints.items():
            seconds: dict[str, list[float]] = {"empty": [], "left by another process": []}
            with tempfile.TemporaryDirectory() as kept:
                for k in range(args.starts + 1):
                    with tempfile.TemporaryDirectory() as fresh:
                        for side, cache in (("empty", fresh), ("left by another process", kept)):
                            env = {"OUTLINES_CACHE_DIR": cache}
                            out = python("-c", _TTFM, pickled, json.dumps(constraint), env=env)[1]
                            if k:
                                seconds[side].append(float(out.splitlines()[-1]))
            first, second = (statistics.median(t) for t in seconds.values())
            results[name] = {"empty_s": first, "kept_s": second, "ratio": second / first}
            print(f"TTFM {name:16s} {first * 1e3:9.1f} ms with an empty cache directory, {second * 1e3:9.1f} ms with "
                  f"that of another process: {second / first:.2f}", flush=True)  # fmt: skip
    return results


_REQUEST = r"""
import numpy as np, torch, outlines_core as oc
from processors.embedded import load_embedded
from processors.logits import GuideLogitsProcessor, RegexLogitsProcessor
from processors.tokenizers import vocabulary_from
model, tokenizer = load_embedded()
vocabulary = vocabulary_from(tokenizer)
inputs = tokenizer(["Answer: ", "x"], return_tensors="pt", padding=True)
common = dict(pad_token_id=tokenizer.pad_token_id or 0, max_new_tokens=12)
for limit in (None, 12):
    processor = RegexLogitsProcessor(r"(?!ab)[a-z]{2,5}\d?", tokenizer, max_new_tokens=limit)
    model.generate(**inputs, **common, do_sample=True, logits_processor=[processor])
    model.generate(**inputs, **common, do_sample=False, num_beams=3, logits_processor=[processor])
automaton = oc.compile_choice(["yes", "no"], vocabulary)
state = automaton.initial_state
automaton.min_tokens_to_accept(state), automaton.forced_tokens(state), automaton.explain(state)
automaton.fill_draft_masks(state, [1, 2], oc.allocate_bitmask(3, vocabulary))
oc.fill_masks([automaton] * 2, [state] * 2, oc.allocate_bitmask(2, vocabulary))
automaton.materialize()
"""


def part_jit(_: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        kernels_at, data_at = pathlib.Path(directory, "numba"), pathlib.Path(directory, "data")
        env = {"NUMBA_CACHE_DIR": str(kernels_at), "OUTLINES_CACHE_DIR": str(data_at)}

        def compiled() -> set[str]:
            return {p.name for p in kernels_at.rglob("*.nbc")}

        first = python("-m", "outlines_core", "warmup", env=env)[0]
        kernels = compiled()
        second = python("-m", "outlines_core", "warmup", env=env)[0]
        request = python("-c", _REQUEST, env=env)[0]
        later = sorted(compiled() - kernels)
        again = python("-c", _REQUEST, env=env)[0]
    print(f"warmup: {first:.1f} s with nothing compiled ({len(kernels)} kernels), {second:.1f} s after that")
    print(f"requests after a warmup compile {len(later)} more: {', '.join(later) or 'none'} "
          f"({request:.1f} s, then {again:.1f} s)")  # fmt: skip
    return {"cold_s": first, "warm_s": second, "kernels": len(kernels), "compiled_later": later}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer directory; default: the embedded one")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["imports", "start", "ttfm"])
    parser.add_argument("--cold", action="store_true", help="also compile all kernels from nothing (a minute or two)")
    parser.add_argument("--starts", type=int, default=5, help="of each process")
    parser.add_argument("--out", type=pathlib.Path, help="write the figures there as JSON")
    args = parser.parse_args()
    if args.tokenizer is None:
        from processors.embedded import EMBEDDED_PATH

        args.tokenizer = str(EMBEDDED_PATH)
    python("-m", "outlines_core", "warmup")
    record: dict[str, Any] = {}
    functions = {"imports": part_imports, "start": part_start, "ttfm": part_ttfm, "jit": part_jit}
    for part in [*args.parts, *(["jit"] if args.cold and "jit" not in args.parts else [])]:
        before = os.getloadavg()[0]
        record[part] = functions[part](args)
        record[part]["load"] = [before, os.getloadavg()[0]]
        print(f"({part}: load {before:.1f} before, {os.getloadavg()[0]:.1f} after)\n", flush=True)
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
