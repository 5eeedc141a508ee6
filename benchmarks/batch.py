"""One decoding step of a batch on the CPU: the masks of all rows, and applying them to the logits.

Row k of a batch follows an instance of the k-th schema of a file in MaskBench's form (`--data`; without it a few
schemas that are built in); past `--schemas` different ones they come again. Every row has an automaton of its own, with
tables of its own.
At each step an engine fills the masks of all rows and applies them to logits [B, vocabulary] in place; then it takes
the next token of each text, which is not measured, nor are compilation and JIT. Engines:

    ours        oc.fill_masks, processors.masking.apply_mask(out=logits)
    llguidance  fill_next_token_bitmask_par, llguidance.torch.apply_token_bitmask_inplace (compiled by torch)
    xgrammar    BatchGrammarMatcher.batch_fill_next_token_bitmask, xgrammar.apply_token_bitmask_inplace

Each is a process of its own in its own Python, with as many threads as the others; for each size of batch they take
turns, in changing order. Ours runs twice over the texts: at `first` no state was visited before (the peers have no such
difference: llguidance keeps no masks, xgrammar prepares them when it compiles), `again` visits the same states.
Schemas of more than 3,000 characters are left out: xgrammar can take minutes for one.

Checked at each step: the token that the text has next is allowed in its row. Only schemas that all engines compile and
whose text all accept are rows. Applying is put next to memory bandwidth, measured between the steps: `fill` writes the
logits once (the bound in place), `clone` reads them and writes new ones (the bound of `apply_mask` without `out`).

usage: python benchmarks/batch.py [--data FILE] [--tokenizer HF_DIR] [--peer PYTHON] [--batches 1 8 64 256 512]
       [--threads 1 2] [--steps 32] [--rounds 3] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import statistics
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))  # isolated peers need it
from json_schema import BUILT_IN, has_module, records
from workers import Worker, command_of, serve

BATCHES = (1, 8, 64, 256, 512)
DTYPES = ("float32", "bfloat16")
LONGEST = 3000
PASSES = {"ours": ("first", "again"), "llguidance": ("first",), "xgrammar": ("first",)}


# -- engines -----------------------------------------------------------------------------------------------------------


class Ours:
    def __init__(self, tokenizer: Any) -> None:
        import tempfile

        import outlines_core as oc
        from outlines_core.warmup import warmup
        from processors.tokenizers import vocabulary_from

        os.environ["OUTLINES_CACHE_DIR"] = tempfile.mkdtemp()
        warmup()
        self.oc, self.vocabulary, self.version = oc, vocabulary_from(tokenizer), oc.__version__
        self.n_columns = self.vocabulary.size

    def compile(self, schema: Any) -> Any:
        return schema, self.oc.compile_json_schema(schema, self.vocabulary, property_order="any")

    def start(self, compiled: list[Any], threads: int, which: str) -> None:
        if which == "first":
            from outlines_core import compile as module

            self.automata = []
            for schema, _ in compiled:  # rows of one schema share nothing either
                module._json_cores.clear()
                self.automata.append(self.compile(schema)[1])
        self.states = [automaton.initial_state for automaton in self.automata]
        self.threads = threads
        self.words = self.oc.allocate_bitmask(len(self.automata), self.vocabulary)

    def fill(self) -> None:
        self.oc.fill_masks(self.automata, self.states, self.words, threads=self.threads)

    def apply(self, logits: Any) -> None:
        from processors.masking import apply_mask

        apply_mask(logits, self.words, out=logits)

    def apply_to_new(self, logits: Any) -> Any:
        from processors.masking import apply_mask

        return apply_mask(logits, self.words)

    def commit(self, tokens: list[int]) -> None:
        self.states = self.oc.next_states(self.automata, self.states, tokens)


class Llguidance:
    def __init__(self, tokenizer: Any) -> None:
        import llguidance
        import llguidance.hf
        import llguidance.torch as functions

        self.module, self.functions = llguidance, functions
        self.tokenizer = llguidance.hf.from_tokenizer(tokenizer)
        self.version = importlib.metadata.version("llguidance")
        self.n_columns = len(tokenizer)

    def compile(self, schema: Any) -> Any:
        matcher = self.module.LLMatcher(self.tokenizer, json.dumps({"grammars": [{"json_schema": schema}]}))
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def start(self, compiled: list[Any], threads: int, which: str) -> None:  # noqa: ARG002
        self.matchers = [(matcher.deep_copy(), k) for k, matcher in enumerate(compiled)]
        self.executor = self.module.LLExecutor(threads)
        self.tensor = self.functions.allocate_token_bitmask(len(compiled), self.n_columns)
        self.words = self.tensor.numpy()

    def fill(self) -> None:
        self.functions.fill_next_token_bitmask_par(self.executor, self.matchers, self.tensor)

    def apply(self, logits: Any) -> None:
        self.functions.apply_token_bitmask_inplace(logits, self.tensor)

    def commit(self, tokens: list[int]) -> None:
        for (matcher, _), token in zip(self.matchers, tokens, strict=True):
            matcher.consume_token(token)


class Xgrammar:
    def __init__(self, tokenizer: Any) -> None:
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer))
        self.module, self.n_columns = xgrammar, len(tokenizer)
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.version = importlib.metadata.version("xgrammar")

    def compile(self, schema: Any) -> Any:
        return self.compiler.compile_json_schema(json.dumps(schema), any_whitespace=True, strict_mode=False)

    def start(self, compiled: list[Any], threads: int, which: str) -> None:  # noqa: ARG002
        self.matchers = [self.module.GrammarMatcher(grammar) for grammar in compiled]
        self.batch = self.module.BatchGrammarMatcher(max_threads=threads)
        self.tensor = self.module.allocate_token_bitmask(len(compiled), self.n_columns)
        self.words = self.tensor.numpy()

    def fill(self) -> None:
        self.batch.batch_fill_next_token_bitmask(self.matchers, self.tensor)

    def apply(self, logits: Any) -> None:
        self.module.apply_token_bitmask_inplace(logits, self.tensor)

    def commit(self, tokens: list[int]) -> None:
        for matcher, token in zip(self.matchers, tokens, strict=True):
            matcher.accept_token(token)


ENGINES: dict[str, Any] = {"ours": Ours, "llguidance": Llguidance, "xgrammar": Xgrammar}


class Subject:
    """An engine with its rows."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.compiled, self.texts = engine, list[Any](), list[list[int]]()

    def answer(self, question: dict[str, Any]) -> Any:
        if "try" in question:
            return self.can_follow(question["try"], question["tokens"])
        if "rows" in question:
            self.compiled = [self.compiled[k] for k in question["rows"]]
            self.texts = [self.texts[k] for k in question["rows"]]
            return len(self.compiled)
        return self.measure(**question)

    def can_follow(self, schema: Any, tokens: list[int]) -> bool:
        """Compile a row; is its text allowed?"""
        try:
            compiled = self.engine.compile(schema)
            self.engine.start([compiled], 1, "first")
            for token in tokens:
                self.engine.fill()
                if not self.allows(0, token):
                    return False
                self.engine.commit([token])
        except Exception as error:  # noqa: BLE001 -- engines raise what they like
            print(f"left out: {type(error).__name__}: {str(error)[:120]}", file=sys.stderr)
            return False
        self.compiled.append(compiled)
        self.texts.append(tokens)
        return True

    def allows(self, row: int, token: int) -> bool:
        return bool(int(self.engine.words[row, token >> 5]) >> (token & 31) & 1)

    def measure(self, batch: int, dtype: str, threads: int, which: str) -> dict[str, Any]:
        """Nanoseconds of each step."""
        import torch

        torch.set_num_threads(threads)
        engine, n = self.engine, len(self.compiled)
        rows = [k % n for k in range(batch)]
        engine.start([self.compiled[k] for k in rows], threads, which)
        source = torch.randn(batch, engine.n_columns).to(getattr(torch, dtype))
        logits = source.clone()
        taken: dict[str, list[int]] = {name: [] for name in ("fill", "apply", "bound", "new", "bound_new")}

        def clocked(name: str, function: Any) -> None:
            start = time.perf_counter_ns()
            function()
            taken[name].append(time.perf_counter_ns() - start)

        engine.words[:] = -1
        with contextlib.suppress(AttributeError):
            engine.apply_to_new(logits)
        engine.apply(logits)  # what compiles itself does so now
        for step in range(min(len(text) for text in self.texts)):
            logits.copy_(source)
            clocked("fill", engine.fill)
            clocked("apply", lambda: engine.apply(logits))
            tokens = [self.texts[k][step] for k in rows]
            wrong = [k for k, token in enumerate(tokens) if not self.allows(k, token)]
            if wrong:
                return {"failed": f"step {step}: rows {wrong[:5]} do not allow the next token"}
            engine.commit(tokens)
            clocked("bound", lambda: logits.fill_(0.0))
            clocked("bound_new", source.clone)
            if hasattr(engine, "apply_to_new"):
                clocked("new", lambda: engine.apply_to_new(source))
        return taken


# -- the report --------------------------------------------------------------------------------------------------------


def summed(samples: dict[str, list[list[int]]]) -> dict[str, float]:
    """Medians in microseconds of what the rounds took at each step."""
    flat = {name: [x for one in rounds for x in one] for name, rounds in samples.items()}
    found = {name: statistics.median(values) / 1e3 for name, values in flat.items() if values}
    steps = sorted(a + b for a, b in zip(flat["fill"], flat["apply"], strict=True))
    return found | {"step": statistics.median(steps) / 1e3, "step_p90": steps[int(0.9 * len(steps))] / 1e3}


def report(case: dict[str, Any]) -> None:
    sides = case["engines"]
    head = f"B={case['batch']:4d} {case['dtype']:8s} {case['threads']} threads"
    for name, found in sides.items():
        if "failed" in found:
            print(f"{head}  {name:16s} FAILED: {found['failed']}")
            continue
        line = f"{head}  {name:16s} fill {found['fill']:9.1f}  apply {found['apply']:9.1f}  step {found['step']:9.1f}"
        line += f"  p90 {found['step_p90']:9.1f}  apply / bound {found['apply'] / found['bound']:5.2f}"
        if "new" in found:
            line += f"  to new {found['new']:9.1f} ({found['new'] / found['bound_new']:.2f} of a clone)"
        print(line, flush=True)
    for ratio, value in case["ratios"].items():
        print(f"{head}  {ratio:40s} {value:6.3f}")


def ratios(sides: dict[str, Any]) -> dict[str, float]:
    """Ours / theirs: a step, and its two halves."""
    found = {}
    for mine in ("ours first", "ours again"):
        for peer in ("llguidance first", "xgrammar first"):
            if all("step" in sides.get(name, {}) for name in (mine, peer)):
                for part in ("step", "fill", "apply"):
                    found[f"{part}: {mine} / {peer.split()[0]}"] = sides[mine][part] / sides[peer][part]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="schemas in MaskBench's form; default: a few built in")
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer directory; default: the embedded one")
    parser.add_argument("--peer", default=sys.executable, help="the Python of an environment with other engines")
    parser.add_argument("--engines", nargs="*", default=["llguidance", "xgrammar"], help="those to compare with")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument(
        "--schemas", type=int, default=64, help="different ones at most (xgrammar takes seconds for one)"
    )
    parser.add_argument("--steps", type=int, default=32, help="tokens of each text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, help="write the figures there as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tokenizer is None:
        from processors.embedded import EMBEDDED_PATH

        args.tokenizer = str(EMBEDDED_PATH)
    if args.worker:

        def start() -> Any:
            from transformers import AutoTokenizer

            subject = Subject(ENGINES[args.worker](AutoTokenizer.from_pretrained(args.tokenizer)))
            return subject.engine.version, subject.answer

        serve(start)
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    workers = {"ours": Worker(command_of(sys.executable, __file__, "ours", "--tokenizer", args.tokenizer))}
    left_out = {}
    for name in args.engines:
        if has_module(args.peer, name):
            workers[name] = Worker(command_of(args.peer, __file__, name, "--tokenizer", args.tokenizer))
        else:
            left_out[name] = f"{args.peer} has no {name}"
            print(f"{left_out[name]}: left out", file=sys.stderr)
    for name, process in workers.items():
        if isinstance(process.greeting, dict):
            raise SystemExit(f"{name} did not start: {process.greeting['failed']}")
    n_rows = fill_rows(args, tokenizer, workers)
    print(f"{n_rows} different schemas, {args.steps} steps, {args.rounds} rounds")
    cases = []
    for threads in args.threads:
        for dtype in args.dtypes:
            for batch in args.batches:
                question = {"batch": batch, "dtype": dtype, "threads": threads}
                cases.append(question | measured(question, workers, args.rounds))
                report(cases[-1])
    about = {name: process.greeting for name, process in workers.items()}
    for process in workers.values():
        process.close()
    if args.out:
        record = {"versions": about, "left_out": left_out, "schemas": n_rows, "steps": args.steps, "cases": cases}
        args.out.write_text(json.dumps(record) + "\n")


def fill_rows(args: argparse.Namespace, tokenizer: Any, workers: dict[str, Worker]) -> int:
    """Give all workers the same rows; how many there are."""
    chosen: list[dict[str, int]] = []
    n_tried = dict.fromkeys(workers, 0)
    steps = args.steps if args.data else 4
    for record in records(args.data) if args.data else BUILT_IN:
        if len(json.dumps(record["schema"])) > LONGEST:
            continue
        for test in record["tests"]:
            tokens = tokenizer.encode(json.dumps(test["data"], ensure_ascii=False), add_special_tokens=False)
            if not test["valid"] or len(tokens) < steps:
                continue
            places = {}
            for name, process in workers.items():
                answer = process.ask({"try": record["schema"], "tokens": tokens[:steps]}, 120.0)
                if answer is True:
                    places[name], n_tried[name] = n_tried[name], n_tried[name] + 1
                elif isinstance(answer, dict):
                    raise SystemExit(f"{name} at {record['id']}: {answer['failed']}")
            if len(places) == len(workers):
                chosen.append(places)
            break
        if len(chosen) >= min(args.schemas, max(args.batches)):
            break
    if not chosen:
        raise SystemExit("no schema that all engines compile has a valid instance that is long enough")
    for name, process in workers.items():
        process.ask({"rows": [places[name] for places in chosen]})
    return len(chosen)


def measured(question: dict[str, Any], workers: dict[str, Worker], n_rounds: int) -> dict[str, Any]:
    samples: dict[str, dict[str, list[list[int]]]] = {}
    sides: dict[str, Any] = {}
    order = list(workers)
    for k in range(n_rounds):
        turn = k % len(order)
        for name in order[turn:] + order[:turn]:
            for which in PASSES[name]:
                label = f"{name} {which}"
                answer = workers[name].ask({**question, "which": which})
                if "failed" in answer:
                    sides[label] = answer
                    continue
                for part, values in answer.items():
                    samples.setdefault(label, {}).setdefault(part, []).append(values)
    sides |= {label: summed(found) for label, found in samples.items() if label not in sides}
    return {"engines": sides, "ratios": ratios(sides)}


if __name__ == "__main__":
    main()
