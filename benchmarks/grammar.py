"""Lark grammars: compile + first mask, then mask + commit for each token, and memory; engines side by side in one run.

Each engine is a process of its own for each grammar, in its own Python. What is measured, in CPU time of the process
(the machine may be shared):

    cold    compile and make the first mask, with no constraint compiled before; warm: the same again
    TBM     make the mask and commit the token, for every token of every text
    new     ours only: TBM where the state was not visited before
    RSS     what the process grew by: at the first compilation, and at the texts

Every text must be accepted to its end. JIT compilation and the vocabulary are part of no figure. The texts are real
where there are any (grammar_texts.py: the standard library, what installed packages say of themselves), else generated.

Grammars: those that ship; `lark_python` is the one that lark brings. The peers have them in their own words
(grammar_peers.py), without look-around and keywords: their language is a little larger, their lexers do less. What
they cannot express is said so: no peer has indentation, hence no Python. `outlines` (0.1.14, the reference CFG guide)
tries every id of the vocabulary for a mask, 12.7 s for the first one of JSON at 128,256 ids: it is measured for
--outlines-seconds at each grammar.

usage: python benchmarks/grammar.py --tokenizer HF_DIR [--grammar python ...] [-n 30] [--out FILE.json]
       [--peer PYTHON] [--outlines PYTHON]     Pythons that have llguidance and xgrammar, or outlines 0.1.14
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

GRAMMARS = ["json", "arithmetic", "sql", "python", "lark_python"]
_FILES = {"sql": "sqlite"}


def clock() -> int:
    return time.process_time_ns()


def resident() -> float:
    """MiB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def grammar_of(name: str) -> tuple[str, dict[str, Any]]:
    """The text and how lark loads it."""
    if name == "lark_python":
        import lark
        from lark.indenter import PythonIndenter

        path = pathlib.Path(lark.__file__).parent / "grammars" / "python.lark"
        return path.read_text(), {"start": "file_input", "parser": "lalr", "postlex": PythonIndenter()}
    from processors import grammars

    return grammars.load(_FILES.get(name, name)), grammars.options(_FILES.get(name, name))


# -- engines -----------------------------------------------------------------------------------------------------------


class Ours:
    def __init__(self, tokenizer: Any, job: dict[str, Any]) -> None:
        import outlines_core as oc
        from outlines_core.warmup import warmup
        from processors.tokenizers import vocabulary_from

        os.environ["OUTLINES_CACHE_DIR"] = tempfile.mkdtemp()
        warmup()
        self.oc, self.vocabulary = oc, vocabulary_from(tokenizer)
        self.row = oc.allocate_bitmask(1, self.vocabulary)[0]
        self.version = oc.__version__
        self.text, self.options = grammar_of(job["grammar"])
        oc.compile_grammar('start: "a" | "b" start', self.vocabulary).fill_mask(2, self.row)
        oc.compile.clear_cache()
        self.seen: set[int] = set()

    def compile(self) -> None:
        self.automaton = self.oc.compile_grammar(self.text, self.vocabulary, **self.options)
        self.reset()
        self.mask()

    def reset(self) -> None:
        self.state = self.automaton.initial_state

    def mask(self) -> None:
        self.automaton.fill_mask(self.state, self.row)

    def commit(self, token: int) -> bool:
        self.state = self.automaton.next_state(self.state, token)
        return self.state != self.oc.DEAD

    def is_new(self) -> bool:
        known = self.state in self.seen
        self.seen.add(self.state)
        return not known

    def is_done(self) -> bool:
        return self.automaton.is_accepting(self.state)


class Llguidance:
    def __init__(self, tokenizer: Any, job: dict[str, Any]) -> None:
        import importlib.metadata

        import llguidance
        import llguidance.hf
        import llguidance.numpy as bitmask

        self.module, self.tokenizer = llguidance, llguidance.hf.from_tokenizer(tokenizer)
        self.words = bitmask.allocate_token_bitmask(1, self.tokenizer.vocab_size)
        self.fill = bitmask.fill_next_token_bitmask
        self.version = importlib.metadata.version("llguidance")
        self.grammar = llguidance.LLMatcher.grammar_from_lark(job["lark"])

    def compile(self) -> None:
        self.compiled = self.module.LLMatcher(self.tokenizer, self.grammar)
        if self.compiled.is_error():
            raise ValueError(self.compiled.get_error())
        self.reset()
        self.mask()

    def reset(self) -> None:
        self.matcher = self.compiled.deep_copy()

    def mask(self) -> None:
        self.fill(self.matcher, self.words, 0)

    def commit(self, token: int) -> bool:
        allowed = int(self.words[0, token >> 5]) >> (token & 31) & 1
        return bool(allowed) and self.matcher.consume_token(token)

    def is_done(self) -> bool:
        return self.matcher.is_accepting()


class Xgrammar:
    def __init__(self, tokenizer: Any, job: dict[str, Any]) -> None:
        import importlib.metadata

        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer))
        self.module, self.eos, self.text = xgrammar, tokenizer.eos_token_id, job["ebnf"]
        self.words = xgrammar.allocate_token_bitmask(1, info.vocab_size)
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.version = importlib.metadata.version("xgrammar")

    def compile(self) -> None:
        is_json = self.text is None
        self.compiled = (
            self.compiler.compile_builtin_json_grammar() if is_json else self.compiler.compile_grammar(self.text)
        )
        self.reset()
        self.mask()

    def reset(self) -> None:
        self.matcher = self.module.GrammarMatcher(self.compiled)

    def mask(self) -> None:
        self.matcher.fill_next_token_bitmask(self.words)

    def commit(self, token: int) -> bool:
        return self.matcher.accept_token(token)

    def is_done(self) -> bool:
        return self.matcher.accept_token(self.eos)


class Outlines:
    """The reference CFG guide of outlines 0.1: a mask is a list of ids."""

    def __init__(self, tokenizer: Any, job: dict[str, Any]) -> None:
        import importlib.metadata

        from outlines.fsm.guide import CFGGuide
        from outlines.models.transformers import TransformerTokenizer

        self.guide, self.text, self.tokenizer = CFGGuide, job["lark"], TransformerTokenizer(tokenizer)
        self.version = importlib.metadata.version("outlines")

    def compile(self) -> None:
        self.compiled = self.guide(self.text, self.tokenizer)
        self.reset()
        self.mask()

    def reset(self) -> None:
        self.state = self.compiled.initial_state

    def mask(self) -> None:
        self.compiled.get_next_instruction(self.state)

    def commit(self, token: int) -> bool:
        self.state = self.compiled.get_next_state(self.state, token)
        return True

    def is_done(self) -> bool:
        return self.compiled.can_terminate_state(self.state)


ENGINES: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "ours": Ours,
    "llguidance": Llguidance,
    "xgrammar": Xgrammar,
    "outlines": Outlines,
}


def worker(engine: str, tokenizer_name: str) -> None:
    """Measure one engine at one grammar; the job comes on standard input, figures go out in nanoseconds."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print goes to stderr
    from transformers import AutoTokenizer

    job = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    subject = ENGINES[engine](tokenizer, job)
    answer: dict[str, Any] = {"version": subject.version, "tbm": [], "new": [], "wrong": [], "unread": 0}
    before = resident()
    try:
        for name in ("cold", "warm"):
            start = clock()
            subject.compile()
            answer[name] = clock() - start
            answer.setdefault("rss_compiled", resident() - before)
            if answer[name] > job["seconds"] * 1e9:
                break
    except Exception as error:  # noqa: BLE001 -- engines raise what they like
        answer["refused"] = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps(answer), file=channel, flush=True)
        return
    is_new = getattr(subject, "is_new", lambda: False)
    began = time.process_time()
    for k, text in enumerate(job["texts"]):
        accepted = True
        try:
            subject.reset()
            for token in tokenizer.encode(text, add_special_tokens=False):
                if time.process_time() - began > job["seconds"]:
                    break
                new = is_new()
                start = clock()
                subject.mask()
                accepted = subject.commit(token)
                taken = clock() - start
                answer["tbm"].append(taken)
                if new:
                    answer["new"].append(taken)
                if not accepted:
                    break
            else:
                accepted = bool(subject.is_done())
        except Exception as error:  # noqa: BLE001 -- engines raise what they like
            answer["wrong"].append([k, f"{type(error).__name__}: {error}"[:200]])
            continue
        if not accepted:
            answer["wrong"].append([k, "refused"])
        if time.process_time() - began > job["seconds"]:
            answer["unread"] = len(job["texts"]) - k
            break
    answer["rss_used"] = resident() - before
    print(json.dumps(answer), file=channel, flush=True)


# -- the report --------------------------------------------------------------------------------------------------------

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def figures(values: list[int]) -> dict[str, float]:
    """Mean and quantiles in microseconds."""
    ordered = sorted(values)
    found = {"mean": sum(ordered) / len(ordered) / 1e3}
    for name, q in QUANTILES.items():
        found[name] = ordered[min(len(ordered) - 1, int(q * len(ordered)))] / 1e3
    return found | {"max": ordered[-1] / 1e3}


def report(name: str, results: dict[str, dict[str, Any]]) -> None:
    columns = ["mean", *QUANTILES, "max"]
    print(f"\n== {name}")
    print(
        f"{'':22s}{'cold ms':>10s}{'warm ms':>10s}{'tokens':>9s}" + "".join(f"{c + ' us':>11s}" for c in columns),
        end="",
    )
    print(f"{'RSS MiB':>16s}")
    tables = {}
    for engine, row in results.items():
        title = f"{engine} {row.get('version', '')}"
        if "tbm" not in row or not row["tbm"]:
            print(f"{title:22s}  {row.get('refused', 'no token in time')}")
            continue
        tables[engine] = figures(row["tbm"])
        line = f"{title:22s}{row['cold'] / 1e6:10.1f}{row.get('warm', 0) / 1e6:10.1f}{len(row['tbm']):9d}"
        line += "".join(f"{tables[engine][c]:11.1f}" for c in columns)
        print(line + f"{row['rss_compiled']:8.0f}{row['rss_used']:8.0f}")
        if row["new"]:
            new = figures(row["new"])
            print(f"{'  new states':22s}{'':20s}{len(row['new']):9d}" + "".join(f"{new[c]:11.1f}" for c in columns))
        for k, why in row["wrong"][:3]:
            print(f"  WRONG text {k}: {why}")
        if row["unread"]:
            print(f"  out of time: {row['unread']} texts not read to the end")
    for engine in tables:
        if engine != "ours" and "ours" in tables:
            ratios = "".join(f"{tables['ours'][c] / tables[engine][c]:11.3f}" for c in columns)
            cold = results["ours"]["cold"] / results[engine]["cold"]
            print(f"{'ours / ' + engine:22s}{cold:10.3f}{'':19s}{ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer directory; default: the embedded one")
    parser.add_argument("--grammar", nargs="*", choices=GRAMMARS, default=GRAMMARS)
    parser.add_argument("-n", type=int, default=30, help="texts per grammar")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", help="the Python of an environment with llguidance and xgrammar")
    parser.add_argument("--outlines", help="the Python of an environment with outlines 0.1.14")
    parser.add_argument("--seconds", type=float, default=120, help="CPU time that an engine has for a grammar's texts")
    parser.add_argument("--outlines-seconds", type=float, default=30)
    parser.add_argument("--out", type=pathlib.Path, help="write all samples to a JSON file")
    parser.add_argument("--worker", choices=list(ENGINES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tokenizer is None:
        from processors.embedded import EMBEDDED_PATH

        args.tokenizer = str(EMBEDDED_PATH)
    if args.worker:
        worker(args.worker, args.tokenizer)
        return
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    import grammar_peers
    import grammar_texts

    pythons = {"ours": sys.executable, "llguidance": args.peer, "xgrammar": args.peer, "outlines": args.outlines}
    everything: dict[str, Any] = {}
    for name in args.grammar:
        job: dict[str, Any] = {"grammar": name, "texts": grammar_texts.texts(name, args.n, args.seed)}
        indented = "python" in name
        if not indented:
            job |= {
                "lark": grammar_peers.to_plain_lark(*grammar_of(name)),
                "ebnf": None if name == "json" else grammar_peers.to_ebnf(*grammar_of(name)),
            }
        results: dict[str, dict[str, Any]] = {}
        for engine, python in pythons.items():
            if python is None:
                continue
            if indented and engine != "ours":
                results[engine] = {"refused": "cannot express indentation"}
                continue
            job["seconds"] = args.outlines_seconds if engine == "outlines" else args.seconds
            isolated = [] if engine == "ours" else ["-I"]  # their Python may have another outlines_core
            command = [python, *isolated, __file__, "--worker", engine, "--tokenizer", args.tokenizer]
            done = subprocess.run(command, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=False)
            results[engine] = json.loads(done.stdout) if done.stdout else {"refused": f"exit status {done.returncode}"}
        report(name, results)
        everything[name] = results
    if args.out:
        about = {"python": platform.python_version(), "cpu": platform.processor(), "n": args.n, "seed": args.seed}
        about |= {"tokenizer": args.tokenizer, "time": time.strftime("%F")}
        args.out.write_text(json.dumps({"about": about, "results": everything}) + "\n")


if __name__ == "__main__":
    main()
