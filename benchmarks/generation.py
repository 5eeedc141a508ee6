r"""Tokens a second of `Sampler`, of `build_generate` and of transformers' `generate()`, in turn, on one machine.

All decode the same prompts greedily (or sample at temperature 1) without an EOS, so every row gets exactly the same
number of tokens; greedy outputs are compared token for token. The prompts of a batch have one length, or different ones
("padded"). Constrained runs use the same automaton: `guide=` here, a `GuideLogitsProcessor` there.

All runs of a model and batch size take turns, on one thread. Machines are shared, and what else runs there slows down
any step by half or more, so a run's time is that of its undisturbed steps: of each step (from one forward pass to the
next) the least seconds over all runs, added up. "to transformers" is how many times as fast as `generate()` on the same
task, "to free" as the same side without a constraint.

usage: python benchmarks/generation.py [--tokenizer HF_DIR] [--new 128] [--runs 7] [--batches 1 16] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from generation_models import embedded, llama

BATCHES = (1, 16)
PATTERNS = {
    "letters": r"[a-z ]{2000,}",
    "records": r'(\{"identifier": [0-9]{1,6}, "description": "[A-Za-z ,.]{1,24}", "available": (true|false)\}\n){200,}',
}
TASKS = ("free", "padded", "sampled", *PATTERNS)
SIDES = ("Sampler", "build_generate", "transformers")
BUDGETS = {"to transformers": 1.0, "to free": 0.97}

Run = Callable[[], Any]


def runs_of(model: Any, vocabulary: Any, prompts: Sequence[list[int]], n_new: int, task: str) -> dict[str, Run]:
    """One way a side to do a task; all give (n_rows, n_new) ids."""
    import torch

    import outlines_core as oc
    from processors.generation import GenerationConfig, Greedy, RandomSampling, Sampler, build_generate
    from processors.logits import GuideLogitsProcessor

    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    ends = list(vocabulary.eos_token_ids)
    automaton = oc.compile_regex(PATTERNS[task], vocabulary) if task in PATTERNS else None
    is_sampled = task == "sampled"
    width = max(map(len, prompts))
    inputs = {
        "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in prompts]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts]),
    }
    sampler = Sampler(
        model,
        tokenizer=vocabulary,
        forbidden_tokens=ends,
        sampling=RandomSampling() if is_sampled else Greedy(),
    )
    config = GenerationConfig(max_new_tokens=n_new, pad_token_id=0, suppressed_token_ids=ends)
    if is_sampled:
        config = config.configure(strategy={"type": "multinomial_sampling"})
    seeded = {**inputs, "seed": list(range(len(prompts)))} if is_sampled else inputs
    built = build_generate(model, model.config, config, close_guides=False)

    def theirs() -> Any:
        processors = [] if automaton is None else [GuideLogitsProcessor(None, automaton)]
        options = {"do_sample": True, "top_k": 0} if is_sampled else {"do_sample": False}
        return model.generate(
            **inputs, **options, max_new_tokens=n_new, suppress_tokens=ends, logits_processor=processors
        )[:, width:]

    return {
        "Sampler": lambda: sampler.sample(list(prompts), max_new_tokens=n_new, guide=automaton, rng=1),
        "build_generate": lambda: built(None, seeded, guide=automaton)["token_ids"],  # type: ignore[call-overload, index]
        "transformers": theirs,
    }


def check(runs: dict[str, Run], vocabulary: Any, n_rows: int, n_new: int, *, is_sampled: bool) -> None:
    """Run each side once, which makes kernels, states and masks, and compare what they say."""
    texts, ids, reference = (runs[side]() for side in SIDES)
    if tuple(ids.shape) != (n_rows, n_new) or tuple(reference.shape) != (n_rows, n_new):
        raise AssertionError(f"{tuple(ids.shape)} and {tuple(reference.shape)} tokens, not {(n_rows, n_new)}")
    if is_sampled:
        return
    expected = [b"".join(map(vocabulary.token_bytes, row)).decode("utf-8", "replace") for row in reference.tolist()]
    if ids.tolist() != reference.tolist() or texts != expected:
        raise AssertionError("the sides generate different tokens")


def measure(model: Any, runs: dict[tuple[str, str], Run], n_runs: int) -> dict[tuple[str, str], float]:
    """The seconds of the undisturbed steps of each run, by task and side."""
    steps: dict[tuple[str, str], list[list[float]]] = {key: [] for key in runs}
    clock: list[float] = []
    hook = model.register_forward_pre_hook(lambda *_: clock.append(time.perf_counter()))
    for k in range(n_runs):
        for key in list(runs)[:: 1 if k % 2 == 0 else -1]:
            clock[:] = [time.perf_counter()]
            runs[key]()
            clock.append(time.perf_counter())
            steps[key].append([end - begin for begin, end in pairwise(clock)])
    hook.remove()
    return {key: sum(map(min, zip(*found, strict=True))) for key, found in steps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a directory; adds a Llama with the vocabulary of its tokenizer")
    parser.add_argument("--only", choices=["embedded", "llama"], help="measure one of the models")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--new", type=int, default=128, help="tokens to generate in each row")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=pathlib.Path, help="write the figures there as JSON")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    models = {} if args.only == "llama" else {"embedded": embedded}
    if args.tokenizer and args.only != "embedded":
        models["llama 4x256"] = lambda: llama(args.tokenizer)
    record, below = [], []
    for name, make in models.items():
        model, vocabulary = make()
        generator = torch.Generator().manual_seed(0)
        for batch in args.batches:
            runs: dict[tuple[str, str], Run] = {}
            for task in args.tasks:
                lengths = [32 - (5 * k % 16 if task == "padded" else 0) for k in range(batch)]
                prompts = [torch.randint(3, 256, (n,), generator=generator).tolist() for n in lengths]
                found = runs_of(model, vocabulary, prompts, args.new, task)
                check(found, vocabulary, batch, args.new, is_sampled=task == "sampled")
                runs |= {(task, side): run for side, run in found.items()}
            seconds = measure(model, runs, args.runs)
            for (task, side), own in seconds.items():
                case: dict[str, Any] = {"model": name, "batch": batch, "task": task, "side": side}
                case["tokens_per_s"] = batch * args.new / own
                text = f"{name:12} batch {batch:2} {task:8} {side:15} {case['tokens_per_s']:8.0f} tokens/s"
                if side != SIDES[-1]:
                    case["to transformers"] = seconds[task, SIDES[-1]] / own
                if task in PATTERNS and ("free", side) in seconds:
                    case["to free"] = seconds["free", side] / own
                for what, least in BUDGETS.items():
                    if what in case:
                        text += f", {what} {case[what]:.3f}"
                        if case[what] < least:
                            below.append(f"{name} batch {batch} {task} {side} {what}")
                print(text, flush=True)
                record.append(case)
    print(f"below {BUDGETS}: {'; '.join(below) or 'none'}")
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
