"""Memory: many schemas in one process, and a long soak.

The schemas come from a file in MaskBench's form (`--data`; without it a few that are built in). *Used* means: compiled,
and each valid instance followed to its end, the mask of every state made. Resident memory is that of the process (RSS),
above what it has once packages, kernels and vocabulary are loaded; each part is a process of its own.

    schemas      n different schemas, compiled and used one after the other; once all automata are kept, once dropped
    per_request  n requests: one compiles a schema of the file (in random order), follows an instance, drops the object
    long_lived   n requests on automata that are made once and kept, one for each schema
    nbytes       what automata say of themselves after their instances: median, p90, max
    limit        an automaton at its `Limits.max_states`: refuses by name, the states so far stay usable

A soak notes RSS, and the compile cache's size and evictions, as it goes. It counts as flat if the mean RSS of its last
quarter exceeds that of the quarter before the middle by less than 5 % of what the process grew by, or 8 MiB. Beside it
stand the blocks in use of Python's own allocator (`sys.getallocatedblocks`): CPython gives an arena of 1 MiB back only
when all of it is free, so RSS can grow while what is in use does not.

usage: python benchmarks/memory.py [--data FILE] [--tokenizer HF_DIR] [-n 1000] [--requests 20000] [--soaked 200]
       [--parts schemas ...] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time
from typing import Any

from json_schema import BUILT_IN, records

PARTS = ("schemas", "per_request", "long_lived", "nbytes", "limit")
BUDGET_MIB = 1024
NBYTES_BUDGET = 1_000_000


def resident() -> float:
    """MiB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Bench:
    """A process: the vocabulary, the schemas with the tokens of their valid instances, and RSS before any of them."""

    def __init__(self, args: argparse.Namespace) -> None:
        from transformers import AutoTokenizer

        import outlines_core as oc
        from outlines_core import compile as module
        from outlines_core.warmup import warmup
        from processors.tokenizers import vocabulary_from

        warmup()
        self.oc, self.module, self.args = oc, module, args
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
        self.vocabulary = vocabulary_from(tokenizer)
        self.row = oc.allocate_bitmask(1, self.vocabulary)[0]
        self.vocabulary.table.trie  # noqa: B018 -- of the vocabulary, not of a schema
        self.schemas: list[tuple[Any, list[list[int]]]] = []
        for record in records(args.data) if args.data else BUILT_IN:
            texts = [json.dumps(test["data"], ensure_ascii=False) for test in record["tests"] if test["valid"]]
            if texts:
                ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
                self.schemas.append((record["schema"], ids))
            if len(self.schemas) >= args.n:
                break
        self.refused = 0
        self.made = 0
        put, cache = module._json_cores.put, module._json_cores

        def counted(key: Any, value: Any) -> None:
            self.made += cache.get(key) is None
            put(key, value)

        cache.put = counted  # type: ignore[method-assign]
        self.use(self.compile(BUILT_IN[0]["schema"]), [[]])
        module.clear_cache()
        self.made = 0
        gc.collect()
        self.baseline = resident()

    def compile(self, schema: Any) -> Any:
        """The automaton, or None if the schema is refused."""
        try:
            return self.oc.compile_json_schema(schema, self.vocabulary)
        except self.oc.ConstraintError:
            self.refused += 1
            return None

    def use(self, automaton: Any, instances: list[list[int]]) -> None:
        try:
            for tokens in instances:
                state = automaton.initial_state
                for token in tokens:
                    automaton.fill_mask(state, self.row)
                    state = automaton.next_state(state, token)
                    if state == self.oc.DEAD:  # an instance in another order than the schema's
                        break
        except self.oc.ConstraintError:
            self.refused += 1

    def cache(self) -> dict[str, Any]:
        cores = self.module._json_cores
        return {
            "json_cores": len(cores),
            "json_mib": cores.nbytes / 2**20,
            "evicted": self.made - len(cores),
            "lexeme_mib": self.module._lexeme_masks.nbytes / 2**20,
        }

    def above(self) -> float:
        return resident() - self.baseline

    # -- parts ---------------------------------------------------------------------------------------------------------

    def schemas_part(self) -> dict[str, Any]:
        found: dict[str, Any] = {"schemas": len(self.schemas)}
        for kept in (False, True):
            self.refused = 0
            automata = []
            for schema, instances in self.schemas:
                automaton = self.compile(schema)
                if automaton is not None:
                    self.use(automaton, instances)
                    if kept:
                        automata.append(automaton)
            label = "kept" if kept else "dropped"
            found[label] = {"mib": self.above(), "refused": self.refused, **self.cache()}
            print(f"{len(self.schemas)} schemas compiled and used, automata {label}: {self.above():.0f} MiB above the "
                  f"baseline of {self.baseline:.0f}; {self.refused} refused; {shown(self.cache())}")  # fmt: skip
            del automata
        self.module.clear_cache()
        gc.collect()
        found["forgotten_mib"] = self.above()
        print(f"after clear_cache(): {found['forgotten_mib']:.0f} MiB")
        return found

    def soak(self, *, long_lived: bool) -> dict[str, Any]:
        rng = random.Random(0)
        chosen = self.schemas[: self.args.soaked] if long_lived else self.schemas
        automata = [self.compile(schema) for schema, _ in chosen] if long_lived else []
        n, marks = self.args.requests, []
        every = max(1, n // 100)
        began = time.perf_counter()
        for k in range(n):
            i = rng.randrange(len(chosen))
            schema, instances = chosen[i]
            automaton = automata[i] if long_lived else self.compile(schema)
            if automaton is not None:
                self.use(automaton, [instances[rng.randrange(len(instances))]])
            if (k + 1) % every == 0:
                mark = {"requests": k + 1, "mib": round(self.above(), 1), "blocks": sys.getallocatedblocks()}
                marks.append({**mark, **self.cache()})
        states = [automaton.n_states for automaton in automata if automaton is not None]
        quarter = max(1, len(marks) // 4)
        early, late = marks[quarter : 2 * quarter] or marks, marks[-quarter:]
        before, after = (statistics.mean(m["mib"] for m in part) for part in (early, late))
        blocks = [statistics.mean(m["blocks"] for m in part) for part in (early, late)]
        flat = after - before <= max(8.0, 0.05 * before)
        seconds = time.perf_counter() - began
        name = "long-lived automata" if long_lived else "an automaton per request"
        print(f"soak, {name}: {n} requests over {len(chosen)} schemas in {seconds:.0f} s; RSS {before:.0f} MiB before "
              f"the middle, {after:.0f} MiB at the end: {'flat' if flat else 'NOT FLAT'}; blocks in use of Python's "
              f"allocator {blocks[0]:,.0f}, {blocks[1]:,.0f}; {shown(self.cache())}"
              f"{f'; states of an automaton at most {max(states)}' if states else ''}")  # fmt: skip
        return {"requests": n, "schemas": len(chosen), "seconds": seconds, "marks": marks, "flat": flat,
                "before_mib": before, "after_mib": after, "blocks": blocks,
                "most_states": max(states, default=None)}  # fmt: skip

    def per_request_part(self) -> dict[str, Any]:
        return self.soak(long_lived=False)

    def long_lived_part(self) -> dict[str, Any]:
        return self.soak(long_lived=True)

    def nbytes_part(self) -> dict[str, Any]:
        sizes = []
        for schema, instances in self.schemas:
            automaton = self.compile(schema)
            if automaton is not None:
                self.use(automaton, instances)
                sizes.append(int(automaton.nbytes))
        sizes.sort()
        found = {name: sizes[min(len(sizes) - 1, int(q * len(sizes)))] for name, q in QUANTILES.items()}
        print("nbytes of a used automaton: " + ", ".join(f"{name} {size:,}" for name, size in found.items()))
        return {"schemas": len(sizes), **found}

    def limit_part(self) -> dict[str, Any]:
        oc, most = self.oc, 60
        automaton = oc.compile_json_schema({"type": "array"}, self.vocabulary, limits=oc.Limits(max_states=most))
        rng, state, states = random.Random(0), automaton.initial_state, []
        try:
            for _ in range(100 * most):
                allowed = automaton.allowed_tokens(state)
                states.append(state)
                following = automaton.next_state(state, int(allowed[rng.randrange(len(allowed))]))
                state = automaton.initial_state if following in (oc.DEAD, oc.FINISHED) else following
        except oc.LimitExceededError as error:
            reached = str(error)
        else:
            raise AssertionError(f"{automaton.n_states} states, Limits.max_states is {most}, and no error")
        for old in states:
            automaton.fill_mask(old, self.row)
        print(f"at Limits.max_states={most}: {reached!r}; the masks of {len(set(states))} old states are there")
        return {"max_states": most, "n_states": automaton.n_states, "error": reached}


QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def shown(cache: dict[str, Any]) -> str:
    return (f"the cache holds {cache['json_cores']} schemas, {cache['json_mib']:.0f} MiB, and has evicted "
            f"{cache['evicted']}; lexemes {cache['lexeme_mib']:.0f} MiB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="schemas in MaskBench's form; default: a few built in")
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer directory; default: the embedded one")
    parser.add_argument("-n", type=int, default=1000, help="different schemas")
    parser.add_argument("--requests", type=int, default=20_000, help="of a soak")
    parser.add_argument("--soaked", type=int, default=200, help="automata that are kept in the soak of long-lived ones")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=pathlib.Path, help="write the figures there as JSON")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tokenizer is None:
        from processors.embedded import EMBEDDED_PATH

        args.tokenizer = str(EMBEDDED_PATH)
    if args.part:
        found = getattr(Bench(args), f"{args.part}_part")()
        if args.out:
            args.out.write_text(json.dumps(found))
        return
    record: dict[str, Any] = {}
    for part in args.parts:
        command = [sys.executable, __file__, "--part", part, "--tokenizer", args.tokenizer, "-n", str(args.n)]
        command += ["--requests", str(args.requests), "--soaked", str(args.soaked)]
        command += ["--data", str(args.data)] if args.data else []
        written = args.out.with_suffix(f".{part}.json") if args.out else None
        done = subprocess.run([*command, *(["--out", str(written)] if written else [])], check=False)
        if done.returncode:
            record[part] = {"failed": f"ended with status {done.returncode}"}
            print(f"{part}: FAILED, status {done.returncode}", flush=True)
        elif written:
            record[part] = json.loads(written.read_text())
        if written:
            written.unlink(missing_ok=True)
    if args.out:
        args.out.write_text(json.dumps(record) + "\n")
    if any("failed" in part for part in record.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
