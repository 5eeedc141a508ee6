"""JSON Schema: compile + first mask, then mask + commit for each token, engines side by side in one run.

The schemas come from a file in MaskBench's form (one JSON object a line, `.gz` or not: `id`, `schema`, `tests`, a list
of `{"valid": ..., "data": ...}`), or from the small set below, which is for trying this out and stands for nothing.
Each engine is a process of its own in its own Python; for each schema they take turns, in changing order, so that the
machine's noise falls on all. What is measured:

    TTFM    compile the schema and make the first mask, seconds of the wall
    TBM     make the mask and commit the token, for every token of every instance, up to the first refusal
    new     ours only: TBM where the state was not visited before by this schema

Each sample is checked: an instance must be accepted to its end if and only if it is valid. Caches of compiled
constraints are empty for every schema (what engines share between schemas stays: ours the masks inside strings and
numbers); with `--fresh` they are emptied, and the schema is compiled again, before every instance. JIT compilation and
the vocabulary are not part of any figure. Ratios are ours / theirs, over the schemas that both sides compile.

Bias: the instances are tokenized as the tokenizer does it, so forced tokens and unlikely spellings are not measured;
one thread; xgrammar's compiler runs without its cache and with `strict_mode=False`, llguidance with its defaults.

usage: python benchmarks/json_schema.py [--data FILE] [--tokenizer HF_DIR] [--peer PYTHON] [-n 300] [--out FILE.json]
       --peer: a Python that has llguidance and xgrammar, or one of them (default: this one)
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import pathlib
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 40},
        "born": {"type": "string", "format": "date"},
        "email": {"type": "string", "pattern": "^[^@ ]+@[^@ ]+\\.[a-z]{2,}$"},
        "tags": {"type": "array", "items": {"enum": ["staff", "guest", "admin"]}, "uniqueItems": True},
        "address": {"$ref": "#/$defs/address"},
    },
    "required": ["name", "born"],
    "additionalProperties": False,
    "$defs": {
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "number": {"type": "integer", "minimum": 1, "maximum": 9999}},
            "required": ["street"],
        }
    },
}
_TREE = {
    "type": "object",
    "properties": {"value": {"type": "number"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["value"],
}
_SHAPE = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}},
            "required": ["kind", "r"],
        },
        {
            "type": "object",
            "properties": {"kind": {"const": "box"}, "w": {"type": "integer"}},
            "required": ["kind", "w"],
        },
    ]
}


def _record(name: str, schema: Any, valid: list[Any], invalid: list[Any]) -> dict[str, Any]:
    tests = [{"valid": True, "data": v} for v in valid] + [{"valid": False, "data": v} for v in invalid]
    return {"id": name, "schema": schema, "tests": tests}


BUILT_IN = [
    _record(
        "person",
        _PERSON,
        [
            {"name": "Ada", "born": "1815-12-10", "email": "ada@example.org", "tags": ["staff", "admin"]},
            {"name": "Émile Zola", "born": "1840-04-02", "address": {"street": "rue de Bruxelles", "number": 21}},
        ],
        [{"name": "", "born": "1815-12-10"}, {"name": "Ada", "born": "1815-13-10"}, {"name": "Ada", "age": 3}],
    ),
    _record(
        "tree",
        _TREE,
        [{"value": 1, "children": [{"value": -2.5}, {"value": 3e8, "children": [{"value": 0, "children": []}]}]}],
        [{"value": 1, "children": [{"value": "1"}]}],
    ),
    _record("shape", _SHAPE, [{"kind": "circle", "r": 0.5}, {"kind": "box", "w": 7}], [{"kind": "box", "w": 7.5}]),
    _record("open", {"type": "object"}, [{"a": [1, 2, {"b": None}], "text": 'quote " and \\ and é\n'}], [[]]),
    _record(
        "enum",
        {"type": "array", "items": {"enum": [f"value-{k}" for k in range(500)]}, "maxItems": 3},
        [["value-7", "value-499"]],
        [["value-500"], ["value-1"] * 4],
    ),
    _record(
        "numbers",
        {"type": "array", "items": {"type": "number", "minimum": -10.5, "exclusiveMaximum": 1000}},
        [[1, -10.5, 999.999, 0.001]],
        [[-10.51], [1000]],
    ),
]


# -- engines -----------------------------------------------------------------------------------------------------------


class Ours:
    def __init__(self, tokenizer: Any, order: str) -> None:
        import outlines_core as oc
        from outlines_core.warmup import warmup
        from processors.tokenizers import vocabulary_from

        os.environ["OUTLINES_CACHE_DIR"] = tempfile.mkdtemp()
        warmup()
        self.oc, self.order, self.vocabulary = oc, order, vocabulary_from(tokenizer)
        self.row = oc.allocate_bitmask(1, self.vocabulary)[0]
        self.version = oc.__version__
        self.compile(True)
        self.forget()

    def forget(self) -> None:
        """Forget compiled schemas; what does not depend on a schema stays."""
        from outlines_core import compile as module

        module._json_cores.clear()

    def compile(self, schema: Any) -> None:
        self.automaton = self.oc.compile_json_schema(schema, self.vocabulary, property_order=self.order)
        self.seen: set[int] = set()
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
    def __init__(self, tokenizer: Any) -> None:
        import importlib.metadata

        import llguidance
        import llguidance.hf
        import llguidance.numpy as bitmask

        self.module, self.tokenizer = llguidance, llguidance.hf.from_tokenizer(tokenizer)
        self.words = bitmask.allocate_token_bitmask(1, self.tokenizer.vocab_size)
        self.fill = bitmask.fill_next_token_bitmask
        self.version = importlib.metadata.version("llguidance")

    def forget(self) -> None:
        pass

    def compile(self, schema: Any) -> None:
        grammar = json.dumps({"grammars": [{"json_schema": schema}]})
        self.compiled = self.module.LLMatcher(self.tokenizer, grammar)
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
        if allowed:
            self.matcher.consume_token(token)
        return bool(allowed)

    def is_done(self) -> bool:
        return self.matcher.is_accepting()


class Xgrammar:
    def __init__(self, tokenizer: Any) -> None:
        import importlib.metadata

        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer))
        self.module, self.eos = xgrammar, tokenizer.eos_token_id
        self.words = xgrammar.allocate_token_bitmask(1, info.vocab_size)
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.version = importlib.metadata.version("xgrammar")

    def forget(self) -> None:
        pass

    def compile(self, schema: Any) -> None:
        self.compiled = self.compiler.compile_json_schema(json.dumps(schema), any_whitespace=True, strict_mode=False)
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


def engine_of(name: str, tokenizer: Any) -> Any:
    match name:
        case "ours":
            return Ours(tokenizer, "schema")
        case "ours_any_order":
            return Ours(tokenizer, "any")
        case "llguidance":
            return Llguidance(tokenizer)
        case "xgrammar":
            return Xgrammar(tokenizer)
    raise SystemExit(f"no engine {name}")


def measure(engine: Any, tokenizer: Any, record: dict[str, Any], fresh: bool) -> dict[str, Any]:
    """TTFM and TBM of one schema in ns, and the instances on which the engine is wrong."""
    is_new = getattr(engine, "is_new", lambda: False)
    engine.forget()
    start = time.perf_counter_ns()
    try:
        engine.compile(record["schema"])
    except Exception as error:  # noqa: BLE001 -- engines raise what they like
        return {"refused": f"{type(error).__name__}: {error}"[:300]}
    answer: dict[str, Any] = {"ttfm": time.perf_counter_ns() - start, "tbm": [], "new": [], "wrong": []}
    for k, test in enumerate(record["tests"]):
        tokens = tokenizer.encode(json.dumps(test["data"], ensure_ascii=False), add_special_tokens=False)
        if fresh and k:
            engine.forget()
            engine.compile(record["schema"])
        engine.reset()
        accepted = True
        try:
            for token in tokens:
                new = is_new()
                start = time.perf_counter_ns()
                engine.mask()
                accepted = engine.commit(token)
                taken = time.perf_counter_ns() - start
                answer["tbm"].append(taken)
                if new:
                    answer["new"].append(taken)
                if not accepted:
                    break
            accepted = accepted and bool(engine.is_done())
        except Exception as error:  # noqa: BLE001 -- engines raise what they like
            answer["wrong"].append([k, f"{type(error).__name__}: {error}"[:200]])
            continue
        if accepted != test["valid"]:
            answer["wrong"].append([k, "accepted" if accepted else "refused"])
    return answer


# -- processes ---------------------------------------------------------------------------------------------------------


class Worker:
    """An engine in a process of its own; started again after a crash or a time-out."""

    def __init__(self, engine: str, python: str, tokenizer: str, fresh: bool) -> None:
        isolated = [] if engine.startswith("ours") else ["-I"]  # their Python may have another outlines_core
        self.arguments = [python, *isolated, __file__, "--worker", engine, "--tokenizer", tokenizer]
        self.arguments += ["--fresh"] * fresh
        self.version = ""
        self.process: Any = None

    def start(self) -> bool:
        self.process = subprocess.Popen(self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.version = json.loads(line) if line else ""
        return bool(line)

    def ask(self, record: dict[str, Any], timeout: float) -> dict[str, Any]:
        if self.process is None:
            self.start()
        self.process.stdin.write(json.dumps(record) + "\n")
        self.process.stdin.flush()
        ready = select.select([self.process.stdout], [], [], timeout)[0]
        line = self.process.stdout.readline() if ready else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.process.kill()
        self.process.wait()
        self.process = None
        return {"refused": "crash" if ready else f"no answer in {timeout} s"}


def worker(engine: str, tokenizer_name: str, fresh: bool) -> None:
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print goes to stderr
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    subject = engine_of(engine, tokenizer)
    print(json.dumps(subject.version), file=channel, flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(subject, tokenizer, json.loads(line), fresh)), file=channel, flush=True)


def has_module(python: str, module: str) -> bool:
    command = [
        python,
        "-I",
        "-c",
        f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)",
    ]
    return subprocess.run(command, check=False).returncode == 0


# -- the report --------------------------------------------------------------------------------------------------------

QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)


def figures(values: list[int]) -> dict[str, float]:
    """Mean and quantiles in microseconds."""
    if not values:
        return {}
    ordered = sorted(values)
    found = {"mean": sum(ordered) / len(ordered) / 1e3}
    for q in QUANTILES:
        name = "max" if q == 1 else f"p{100 * q:g}"
        found[name] = ordered[min(len(ordered) - 1, int(q * len(ordered)))] / 1e3
    return found


def collected(rows: list[dict[str, Any]], which: str) -> list[int]:
    return [x for row in rows for x in (row[which] if isinstance(row[which], list) else [row[which]])]


def report(results: dict[str, list[dict[str, Any]]], versions: dict[str, str]) -> None:
    names = ("mean", "p50", "p90", "p99", "p99.9", "max")
    ours, *peers = results
    print(f"{'':24s}{'compiled':>9s}{'refused':>9s}{'wrong':>7s}   (wrong: about one instance or more)")
    for engine, rows in results.items():
        refused = sum("refused" in row for row in rows)
        wrong = sum(bool(row.get("wrong")) for row in rows)
        print(f"{engine + ' ' + versions[engine]:24s}{len(rows) - refused:9d}{refused:9d}{wrong:7d}")
    print(f"\n{'microseconds':24s}" + "".join(f"{name:>10s}" for name in names))
    for which in ("ttfm", "tbm", "new"):
        for engine, rows in results.items():
            found = figures(collected([row for row in rows if "ttfm" in row], which))
            if found:
                print(f"{which.upper() + ' ' + engine:24s}" + "".join(f"{found[name]:10.1f}" for name in names))
    for peer in peers:
        both = [k for k in range(len(results[ours])) if "ttfm" in results[ours][k] and "ttfm" in results[peer][k]]
        print(f"\n{f'{ours} / {peer}, {len(both)} schemas':24s}")
        for which in ("ttfm", "tbm"):
            mine, theirs = (figures(collected([results[e][k] for k in both], which)) for e in (ours, peer))
            if mine and theirs:
                print(f"{which.upper():24s}" + "".join(f"{mine[name] / theirs[name]:10.2f}" for name in names))


def records(path: pathlib.Path | None) -> Iterator[dict[str, Any]]:
    if path is None:
        yield from BUILT_IN
        return
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="schemas in MaskBench's form; default: a few built in")
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer directory; default: the embedded one")
    parser.add_argument("--peer", default=sys.executable, help="the Python of an environment with other engines")
    parser.add_argument("--engines", nargs="*", default=["llguidance", "xgrammar"], help="those to compare with")
    parser.add_argument("--order", choices=["schema", "any"], default="any", help="our property_order")
    parser.add_argument("--fresh", action="store_true", help="a new automaton for every instance")
    parser.add_argument("-n", type=int, help="only so many schemas")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first schemas")
    parser.add_argument("--every", type=int, default=1, help="of those, take only every K-th schema", metavar="K")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds that a schema may take")
    parser.add_argument("--out", type=pathlib.Path, help="write all samples to a JSON file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.tokenizer, args.fresh)
        return
    if args.tokenizer is None:
        from processors.embedded import EMBEDDED_PATH

        args.tokenizer = str(EMBEDDED_PATH)
    chosen = list(records(args.data))[args.skip :: args.every][: args.n]
    workers = {
        "ours": Worker(
            "ours" if args.order == "schema" else "ours_any_order", sys.executable, args.tokenizer, args.fresh
        )
    }
    for name in args.engines:
        if has_module(args.peer, name):
            workers[name] = Worker(name, args.peer, args.tokenizer, args.fresh)
        else:
            print(f"{args.peer} has no {name}: left out", file=sys.stderr)
    for name, process in workers.items():
        if not process.start():
            raise SystemExit(f"{name} did not start")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    with contextlib.suppress(KeyboardInterrupt):  # what there is so far is reported
        for k, record in enumerate(chosen):
            order = list(workers)
            turn = k % len(order)
            answers = {name: workers[name].ask(record, args.timeout) for name in order[turn:] + order[:turn]}
            for name, answer in answers.items():
                results[name].append({"id": record["id"], **answer})
            if sys.stderr.isatty():
                print(f"\r{k + 1}/{len(chosen)}", end="", file=sys.stderr, flush=True)
    for process in workers.values():
        if process.process is not None:
            process.process.kill()
    versions = {name: process.version for name, process in workers.items()}
    report(results, versions)
    if args.out:
        about = {"versions": versions, "python": platform.python_version(), "cpu": platform.processor()}
        about |= {"order": args.order, "fresh": args.fresh, "tokenizer": args.tokenizer, "time": time.strftime("%F")}
        args.out.write_text(json.dumps({"about": about, "results": results}) + "\n")


if __name__ == "__main__":
    main()
