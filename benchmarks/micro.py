"""Where the time of one step goes, next to what the machine allows.

    floor    a call and a look-up in Python, a call of a kernel, memory bandwidth, a copy of a mask
    masks    ready masks (words, ids), steps that were taken before, the walk of a whole trie
    load     vocabulary_from, the trie built and read from disk
    steps    a JSON Schema and a regex followed through a text, everything for the first time: which part of the engine
             takes how much of a step (its own time, less that of the parts that it calls)

A figure is the median of blocks of calls, and the least one; a machine that others use shows in the median. `limit` is
what the same amount of memory, or the same number of calls, takes at least: bandwidth is measured in the same run on
arrays that no cache holds, and a mask's copy is of one that a cache does hold. In `steps`, timers around the parts add
some 0.3 us to each call of a part; the sum of a step is measured without them.

usage: python benchmarks/micro.py [--tokenizer HF_DIR] [--parts floor ...] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from json_schema import BUILT_IN

PARTS = ("floor", "masks", "load", "steps")
PATTERN = r'\{"id": (?:0|[1-9][0-9]{0,5}), "name": "[A-Za-z ,.]{1,24}", "born": "(19|20)\d\d-(0[1-9]|1[0-2])-\d\d"\}'
TEXT = '{"id": 4711, "name": "Ada, Countess of L.", "born": "1915-12-10"}'
SECONDS = 0.3
JSON_PARTS = {
    "table entries made in Python (holes)": ("outlines_core.json_tables", "JsonTables", "fill_hole"),
    "tables made larger": ("outlines_core.json_tables", "JsonTables", "grow"),
    "texts looked at by themselves": ("outlines_core.json_states", "JsonStates", "exactly"),
    "steps": ("outlines_core.json_states", "JsonStates", "_advance"),
    "masks: the walk": ("outlines_core.json_state_masks", "JsonMasks", "_make"),
    "masks: one call for all": ("outlines_core.json_state_masks", "JsonMasks", "_fill_state"),
    "masks: kept, as ids or words": ("outlines_core.json_state_masks", "JsonMasks", "_compressed"),
    "masks: looked for and noted": ("outlines_core.json_state_masks", "JsonMasks", "mask"),
    "what stays inside strings and numbers": ("outlines_core.json_masks", "LexemeMasks", "inside"),
    "the same, with a length": ("outlines_core.json_masks", "LexemeMasks", "limited"),
}
REGEX_PARTS = {
    "masks: the walk, new transitions included": ("outlines_core.regex.dfa", "LazyDfa", "walk"),
    "masks: kept, as ids or words": ("outlines_core.regex_core", "RegexCore", "_finish_mask"),
    "masks: looked for and noted": ("outlines_core.regex_core", "RegexCore", "mask"),
    "steps": ("outlines_core.regex_core", "RegexCore", "next_state"),
}


def measured(function: Callable[[], Any], seconds: float = SECONDS) -> tuple[float, float]:
    """Median and least microseconds of a call."""
    function()
    start = time.perf_counter()
    function()
    n = max(1, int(2e-4 / max(time.perf_counter() - start, 1e-8)))
    blocks, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds or len(blocks) < 3:
        start = time.perf_counter()
        for _ in range(n):
            function()
        blocks.append((time.perf_counter() - start) / n * 1e6)
    return statistics.median(blocks), min(blocks)


class Table:
    """Rows of what was measured, printed as they come."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        what: str,
        function: Callable[[], Any],
        limit: float | None = None,
        why: str = "",
        seconds: float = SECONDS,
    ) -> float:
        """Measure a call; limit: what it takes at least, in microseconds, and `why`.  Returns the least time."""
        median, least = measured(function, seconds)
        self.rows.append({"what": what, "median_us": median, "least_us": least, "limit_us": limit, "limit": why})
        shown = "" if limit is None else f"   {least / limit:6.1f} x {limit:.2f} us ({why})"
        print(f"  {what:58s} {median:12.2f} {least:12.2f}{shown}", flush=True)
        return least


class Bench:
    def __init__(self, tokenizer_name: str) -> None:
        from transformers import AutoTokenizer

        import outlines_core as oc
        from outlines_core.warmup import warmup
        from processors.tokenizers import vocabulary_from

        warmup()
        self.oc, self.name = oc, tokenizer_name
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
        self.vocabulary = vocabulary_from(self.tokenizer)
        self.row = oc.allocate_bitmask(1, self.vocabulary)[0]
        self.call = self.copy = 0.0
        self.bytes_per_us = 0.0

    # -- floor ---------------------------------------------------------------------------------------------------------

    def floor(self) -> dict[str, Any]:
        from outlines_core.kernels.masking import match_rows

        table, keys = Table(), {(k, k + 1): k for k in range(1000)}

        class Empty:
            def method(self, state: int) -> None: ...

        self.call = table.add("a method call in Python", lambda: Empty.method(keys, 3))  # type: ignore[arg-type]
        table.add("a look-up in a dictionary of pairs, called", lambda: keys[7, 8])
        rows, none = np.zeros((0, 1), dtype=np.int64), np.zeros(0, dtype=np.int64)
        table.add("a kernel with 3 arrays and 2 numbers that does nothing", lambda: match_rows(rows, 1, rows, 1, none))
        large, other = np.zeros(2**25), np.ones(2**25)
        copied = table.add("copy 256 MiB", lambda: np.copyto(large, other), seconds=2.0)
        filled = table.add("fill 256 MiB", lambda: large.fill(1.0), seconds=2.0)
        self.bytes_per_us = 2 * large.nbytes / copied
        print(f"  memory: {self.bytes_per_us / 1e3:.1f} GB/s read and written, {large.nbytes / filled / 1e3:.1f} GB/s "
              f"written")  # fmt: skip
        mask, out = self.row.copy(), self.row
        self.copy = table.add(f"copy of a mask ({mask.nbytes:,} bytes)", lambda: np.copyto(out, mask))
        return {"rows": table.rows, "copy_gb_s": self.bytes_per_us / 1e3, "fill_gb_s": 2**28 / filled / 1e3}

    # -- masks ---------------------------------------------------------------------------------------------------------

    def masks(self) -> dict[str, Any]:
        from outlines_core.bitmask import pack_ids
        from outlines_core.kernels.dfa import fill_sparse, mask_to_ids

        oc, table, row = self.oc, Table(), self.row
        few = np.arange(40, 1040, 25, dtype=np.int32)
        table.add("fill_sparse: 40 ids", lambda: fill_sparse(few, row), self.copy / 2, "a mask written")
        words, ids = pack_ids(few, self.vocabulary.size), np.empty(self.vocabulary.size, dtype=np.int32)
        table.add("ids of a mask of 40", lambda: mask_to_ids(words, ids), self.copy / 2, "a mask read")
        dense = oc.compile_regex(r'"[^"\\]*"', self.vocabulary)
        quote = self.tokenizer.encode('"', add_special_tokens=False)[0]
        inside = dense.next_state(dense.initial_state, quote)
        table.add("fill_mask: ready, words", lambda: dense.fill_mask(inside, row), self.copy, "copy of a mask")
        sparse = oc.compile_choice(["yes", "no"], self.vocabulary)
        start = sparse.initial_state
        table.add("fill_mask: ready, ids", lambda: sparse.fill_mask(start, row), self.copy / 2, "a mask written")
        table.add("next_state: taken before", lambda: dense.next_state(inside, quote), self.call, "a call")
        core = oc.compile_regex(r"(?s:.)*", self.vocabulary)._core
        trie, scratch = self.vocabulary.table.trie, np.zeros(core.n_words + 1, dtype=np.uint32)

        def walk() -> None:
            core._path[0] = core.dfa.start
            core.dfa.walk(core.packed, core._path, scratch)

        read = sum(a.nbytes for a in trie.packed) / (self.bytes_per_us or 1e4)
        took = table.add(f"walk of the whole trie, {trie.info.shape[0]:,} nodes", walk, read, "its arrays read", 1.0)
        print(f"  {took * 1e3 / trie.info.shape[0]:.2f} ns a node")
        return {"rows": table.rows, "nodes": int(trie.info.shape[0]), "ns_per_node": took * 1e3 / trie.info.shape[0]}

    # -- load ---------------------------------------------------------------------------------------------------------

    def load(self) -> dict[str, Any]:
        from transformers import AutoTokenizer

        from outlines_core.trie import TokenTrie
        from outlines_core.vocabulary import Vocabulary
        from processors.tokenizers import vocabulary_from

        out = Table()
        tokenizers = [AutoTokenizer.from_pretrained(self.name) for _ in range(4)]  # what one knows is kept with it
        taken = []
        for tokenizer in tokenizers:
            start = time.perf_counter()
            vocabulary_from(tokenizer)
            taken.append((time.perf_counter() - start) * 1e6)
        out.rows.append({"what": "vocabulary_from(tokenizer)", "median_us": statistics.median(taken),
                         "least_us": min(taken), "limit_us": None, "limit": ""})  # fmt: skip
        print(f"  {'vocabulary_from(tokenizer)':58s} {statistics.median(taken):12.2f} {min(taken):12.2f}", flush=True)
        binary = self.vocabulary.to_binary()
        out.add(f"Vocabulary.from_binary, {len(binary):,} bytes", lambda: Vocabulary.from_binary(binary))
        table = self.vocabulary.table
        out.add("trie built", lambda: TokenTrie.build(table), seconds=2.0)
        with tempfile.TemporaryDirectory() as directory:
            before = os.environ.get("OUTLINES_CACHE_DIR")
            os.environ["OUTLINES_CACHE_DIR"] = directory
            TokenTrie.of(table)
            size = sum(path.stat().st_size for path in pathlib.Path(directory).rglob("*.bin"))
            limit = 2 * size / (self.bytes_per_us or 1e4)
            out.add(f"trie read from disk, {size:,} bytes", lambda: TokenTrie.of(table), limit, "the file copied", 2.0)
            if before is None:
                del os.environ["OUTLINES_CACHE_DIR"]
            else:
                os.environ["OUTLINES_CACHE_DIR"] = before
        return {"rows": out.rows}

    # -- steps ---------------------------------------------------------------------------------------------------------

    def steps(self) -> dict[str, Any]:
        person = BUILT_IN[0]
        text = json.dumps(person["tests"][0]["data"], ensure_ascii=False)
        found = {}
        for name, parts, compiled, written in (
            ("JSON Schema", JSON_PARTS, lambda: self.oc.compile_json_schema(person["schema"], self.vocabulary), text),
            ("regex", REGEX_PARTS, lambda: self.oc.compile_regex(PATTERN, self.vocabulary), TEXT),
        ):
            found[name] = self.split(name, parts, compiled, self.tokenizer.encode(written, add_special_tokens=False))
        return found

    def follow(self, automaton: Any, tokens: list[int]) -> tuple[float, float]:
        """Microseconds of all masks and of all steps of a text."""
        masks = steps = 0
        state = automaton.initial_state
        for token in tokens:
            start = time.perf_counter_ns()
            automaton.fill_mask(state, self.row)
            middle = time.perf_counter_ns()
            state = automaton.next_state(state, token)
            steps += time.perf_counter_ns() - middle
            masks += middle - start
        if not automaton.is_accepting(state):
            raise AssertionError("the text is not accepted")
        return masks / 1e3, steps / 1e3

    def split(self, name: str, parts: dict[str, Any], compiled: Callable[[], Any], tokens: list[int]) -> dict[str, Any]:
        def fresh() -> Any:
            clear_core_cache()
            return compiled()

        self.follow(compiled(), tokens)  # what all constraints share is there

        n = len(tokens)
        first, again = [], []
        for _ in range(9):
            automaton = fresh()
            first.append([x / n for x in self.follow(automaton, tokens)])
            again.append([x / n for x in self.follow(automaton, tokens)])
        mask, step = (statistics.median(column) for column in zip(*first, strict=True))
        ready_mask, ready_step = (statistics.median(column) for column in zip(*again, strict=True))
        print(f"\n  {name}, {n} tokens: first visit {mask:.1f} + {step:.1f} us (mask + step), "
              f"again {ready_mask:.2f} + {ready_step:.2f} us")  # fmt: skip
        watch = Watch()
        missing = watch.wrap(parts)
        try:
            totals = []
            for _ in range(9):
                automaton = fresh()
                watch.clear()
                totals.append(sum(self.follow(automaton, tokens)) / n)
        finally:
            watch.unwrap()
        own = {
            what: (watch.own.get(what, 0.0) / n, watch.calls.get(what, 0) / n) for what in parts if what not in missing
        }
        whole = totals[-1]
        rest = whole - sum(us for us, _ in own.values())
        rows = [{"what": what, "us": us, "calls": calls, "share": us / whole} for what, (us, calls) in own.items()]
        rows.append(
            {"what": "copy of the mask, Python around all this", "us": rest, "calls": 1.0, "share": rest / whole}
        )
        for row in rows:
            print(f"    {row['what']:56s} {row['us']:8.2f} us  {100 * row['share']:5.1f} %  {row['calls']:6.2f} calls")
        for what in missing:
            print(f"    {what:56s} NOT MEASURED: the engine has no such part any more")
        return {"tokens": n, "mask_us": mask, "step_us": step, "ready_mask_us": ready_mask, "ready_step_us": ready_step,
                "parts": rows, "missing": missing}  # fmt: skip


def clear_core_cache() -> None:
    """Forget compiled constraints, but not what is shared by all schemas."""
    from outlines_core import compile as module

    module._cores.clear()
    module._json_cores.clear()


class Watch:
    """The own time of methods: that of calls of one another is taken off."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, str, Any]] = []
        self._inner = [0]
        self.clear()

    def clear(self) -> None:
        self.own: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def wrap(self, parts: dict[str, tuple[str, str, str]]) -> list[str]:
        """Watch methods; returns what there is no method of."""
        import importlib

        missing = []
        for what, (module, owner_name, name) in parts.items():
            owner = getattr(importlib.import_module(module), owner_name, None)
            original = vars(owner).get(name) if owner is not None else None
            if original is None:
                missing.append(what)
                continue
            self._kept.append((owner, name, original))
            setattr(owner, name, self._watched(what, original))
        return missing

    def unwrap(self) -> None:
        for owner, name, original in self._kept:
            setattr(owner, name, original)
        self._kept.clear()

    def _watched(self, what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0)
            start = time.perf_counter_ns()
            try:
                return original(*args, **kwargs)
            finally:
                taken = time.perf_counter_ns() - start
                inner = self._inner.pop()
                self._inner[-1] += taken
                self.own[what] = self.own.get(what, 0.0) + (taken - inner) / 1e3
                self.calls[what] = self.calls.get(what, 0) + 1

        return method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer directory; default: the embedded one")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=pathlib.Path, help="write the figures there as JSON")
    args = parser.parse_args()
    if args.tokenizer is None:
        from processors.embedded import EMBEDDED_PATH

        args.tokenizer = str(EMBEDDED_PATH)
    bench, record = Bench(args.tokenizer), {}
    for part in PARTS:
        if part in args.parts:
            print(f"{part:60s} {'median us':>12s} {'least us':>12s}")
            record[part] = getattr(bench, part)()
            print(flush=True)
    if args.out:
        args.out.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
