r"""What a constraint costs in `model.generate()`.

    tokens    tokens a second with a constraint and without, on the CPU: the embedded model and a random Llama of 4
              layers x 256 over the whole vocabulary of a real tokenizer; batches of 1 and 16; 128 new tokens
    steps     where a constrained step spends the processor's own time

`tokens` runs four sides in turn, so that the machine's noise falls on all of them: *free* (no constraint), *idle* (a
logits processor that gives back what it was given: what transformers itself takes for any processor, hence the most
that can be reached), *cold* (the compile cache emptied before the run: every state and mask of the text is made during
it) and *warm* (states and masks there from the run before). Greedy decoding, the same prompts, no EOS and the patterns
too long to end: every side generates exactly 128 tokens a row, and every constrained row is checked for being a prefix
of its language. A ratio is that of the medians; beside it the quartiles of the ratios of runs that followed each other.

usage: python benchmarks/generate_speed.py --tokenizer HF_DIR [--parts tokens steps ...] [--runs 9] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import pathlib
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from generation_models import embedded, llama

PATTERNS = {
    "letters": r"[a-z ]{2000,}",
    "any": r".{600,}",
    "json": (
        r'\{"items": \[(?:\{"id": (?:0|[1-9][0-9]{0,5}), "name": "[A-Za-z ,.]{1,24}", "ok": (?:true|false)\}, ){200,}'
        r"null\]\}"
    ),
}
BATCHES = (1, 16)
N_NEW = 128
PARTS = ("tokens", "steps")
SIDES = ("free", "idle", "cold", "warm")
BUDGET = 0.97


# -- the machine -------------------------------------------------------------------------------------------------------


class Load:
    """How busy the machine was with other things: load average, and CPUs that other processes used."""

    def __init__(self) -> None:
        self.wall, self.all, self.own = time.perf_counter(), self._all(), self._own()

    def _all(self) -> float:
        import psutil

        t = psutil.cpu_times()
        return float(t.user + t.nice + t.system)

    def _own(self) -> float:
        t = os.times()
        return t.user + t.system + t.children_user + t.children_system

    def so_far(self) -> dict[str, float]:
        wall = time.perf_counter() - self.wall
        others = (self._all() - self.all) - (self._own() - self.own)
        return {"load_1min": os.getloadavg()[0], "cpus_of_others": max(0.0, others / wall), "cpus": os.cpu_count() or 1}

    def __str__(self) -> str:
        now = self.so_far()
        return f"load {now['load_1min']:.1f}, others used {now['cpus_of_others']:.2f} of {now['cpus']:.0f} CPUs"


def idle_processor() -> Any:
    from transformers import LogitsProcessor

    class Idle(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:  # noqa: ARG002
            return scores

    return Idle()


class Bench:
    """One model, one batch size."""

    def __init__(self, model: Any, vocabulary: Any, batch: int) -> None:
        import torch

        self.model, self.vocabulary, self.batch = model, vocabulary, batch
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        generator = torch.Generator().manual_seed(batch)
        self.ids = torch.randint(0, 256, (batch, 16), generator=generator)

    def generate(self, processors: list[Any]) -> tuple[float, Any]:
        import torch

        start = time.perf_counter()
        with torch.no_grad():
            out = self.model.generate(
                input_ids=self.ids,
                attention_mask=torch.ones_like(self.ids),
                do_sample=False,
                max_new_tokens=N_NEW,
                logits_processor=processors,
            )
        seconds = time.perf_counter() - start
        assert out.shape == (self.batch, 16 + N_NEW), out.shape
        return seconds, out[:, 16:]

    def check(self, pattern: str, rows: Any) -> None:
        import outlines_core as oc

        automaton = oc.compile_regex(pattern, self.vocabulary)
        for row in rows.tolist():
            state, n = automaton.initial_state, 0
            n, state = automaton.accept_tokens(state, row)
            assert n == N_NEW, f"token {n} of {row} breaks the pattern {pattern!r}"

    def side(self, name: str, pattern: str) -> tuple[float, Any]:
        from outlines_core.compile import clear_cache
        from processors.logits import RegexLogitsProcessor

        if name == "free":
            return self.generate([])
        if name == "idle":
            return self.generate([idle_processor()])
        if name == "cold":
            clear_cache()
        return self.generate([RegexLogitsProcessor(pattern, self.vocabulary)])

    def compare(self, pattern: str, runs: int) -> dict[str, Any]:
        load = Load()
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for side in SIDES:  # once each without counting; the outputs are checked
            rows = self.side(side, pattern)[1]
            if side in ("cold", "warm"):
                self.check(pattern, rows)
        for k in range(runs):
            for side in (SIDES, ("cold", "warm", "idle", "free"))[k % 2]:  # warm follows cold
                seconds[side].append(self.side(side, pattern)[0])
        n_tokens = self.batch * N_NEW
        result: dict[str, Any] = {
            side: {"tokens_per_s": n_tokens / statistics.median(s), "seconds": s} for side, s in seconds.items()
        }
        for side in SIDES[1:]:
            pairs = sorted(a / b for a, b in zip(seconds["free"], seconds[side], strict=True))
            quartiles = statistics.quantiles(pairs, n=4)
            ratio = statistics.median(seconds["free"]) / statistics.median(seconds[side])
            step = (statistics.median(seconds[side]) - statistics.median(seconds["free"])) / N_NEW
            result[side] |= {"ratio": ratio, "quartiles": [quartiles[0], quartiles[2]], "extra_us_per_step": step * 1e6}
        return {**result, "machine": load.so_far()}


def part_tokens(args: argparse.Namespace, models: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    heads = [f"{side:>8s} {'ratio':>6s} {'quartiles':>12s} {'us/step':>8s}" for side in SIDES[1:]]
    print(f"{'tokens/s':40s} {'free':>8s} {' '.join(heads)}")
    results = {}
    for name, (model, vocabulary) in models.items():
        for batch in args.batches:
            bench = Bench(model, vocabulary, batch)
            for label in args.patterns:
                load = Load()
                result = bench.compare(PATTERNS[label], args.runs)
                results[f"{name} {batch} {label}"] = result
                cells = [
                    f"{r['tokens_per_s']:8.0f} {r['ratio']:6.3f} {r['quartiles'][0]:5.3f}..{r['quartiles'][1]:5.3f}"
                    f" {r['extra_us_per_step']:8.0f}"
                    for r in map(result.__getitem__, SIDES[1:])
                ]
                print(f"{name + ', batch ' + str(batch) + ', ' + label:40s} {result['free']['tokens_per_s']:8.0f}"
                      f" {' '.join(cells)}   ({load})", flush=True)  # fmt: skip
    return results


# -- steps -------------------------------------------------------------------------------------------------------------

_WATCHED = (
    ("__call__", "processors.logits", "OutlinesLogitsProcessor.__call__"),
    ("  process_logits", "processors.logits", "GuideLogitsProcessor.process_logits"),
    ("    whose call is it", "processors.logits", "generate_call"),
    ("    match rows", "processors._rows", "RowTracker.match"),
    ("    next states", "processors.logits", "GuideLogitsProcessor._next_states"),
    ("    fill masks", "processors.logits", "GuideLogitsProcessor._fill"),
    ("    apply masks", "processors.logits", "apply_mask"),
    ("    commit rows", "processors._rows", "RowTracker.commit"),
)


def timed(function: Callable[..., Any], out_times: list[float]) -> Callable[..., Any]:
    @functools.wraps(function)  # `generate` looks at the signature of processors
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            out_times.append(time.perf_counter() - start)

    return wrapper


@contextlib.contextmanager
def watched(times: dict[str, list[float]]) -> Iterator[None]:
    """Time every call of the functions above."""
    put_back: list[tuple[Any, str, Any]] = []
    for label, module, path in _WATCHED:
        *outer, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for part in outer:
            owner = getattr(owner, part)
        original = getattr(owner, name)

        put_back.append((owner, name, original))
        setattr(owner, name, timed(original, times[label]))
    try:
        yield
    finally:
        for owner, name, original in put_back:
            setattr(owner, name, original)


def part_steps(args: argparse.Namespace, models: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    import torch

    results = {}
    for name, (model, vocabulary) in models.items():
        for batch in args.batches:
            bench = Bench(model, vocabulary, batch)
            for label in args.patterns:
                load, rows = Load(), {}
                for side in ("cold", "warm"):
                    times: dict[str, list[float]] = defaultdict(list)
                    bench.side(side, PATTERNS[label])
                    with watched(times):
                        bench.side(side, PATTERNS[label])
                    rows[side] = {what: (statistics.median(t) * 1e6, max(t) * 1e6, sum(t) * 1e6 / N_NEW)
                                  for what, t in times.items() if t}  # fmt: skip
                results[f"{name} {batch} {label}"] = rows
                scores = torch.zeros(batch, model.config.vocab_size)
                copies = []
                for _ in range(50):
                    start = time.perf_counter()
                    scores.clone()
                    copies.append(time.perf_counter() - start)
                print(f"\n{name}, batch {batch}, {label} ({load}); torch's own copy of the logits takes "
                      f"{statistics.median(copies) * 1e6:.0f} us")  # fmt: skip
                heads = f"{'p50':>9s} {'max':>9s} {'mean':>9s}"
                print(f"{'us a step':24s} {heads}   {heads}    (cold, warm)")
                for what, _, _ in _WATCHED:
                    if rows["cold"].get(what) and rows["warm"].get(what):
                        print(f"{what:24s} {' '.join(f'{x:9.1f}' for x in rows['cold'][what])}   "
                              f"{' '.join(f'{x:9.1f}' for x in rows['warm'][what])}")  # fmt: skip
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="a Hugging Face tokenizer directory")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=("embedded", "llama"), default=["embedded", "llama"])
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--patterns", nargs="+", choices=PATTERNS, default=list(PATTERNS))
    parser.add_argument("--runs", type=int, default=9, help="of each side")
    parser.add_argument("--threads", type=int, default=1, help="of torch; more than are idle make every figure noise")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    import torch

    from outlines_core.warmup import warmup

    torch.set_num_threads(args.threads)
    warmup()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {Load()}")
    models = {name: embedded() if name == "embedded" else llama(args.tokenizer) for name in args.models}
    report: dict[str, Any] = {}
    for part, run in (("tokens", part_tokens), ("steps", part_steps)):
        if part in args.parts:
            report[part] = run(args, models)
            print()
    if "tokens" in report:
        low = [(k, s) for k, r in report["tokens"].items() for s in ("cold", "warm") if r[s]["ratio"] < BUDGET]
        print(f"below {BUDGET}: {', '.join(f'{k} ({s})' for k, s in low) or 'none'}\n")
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
