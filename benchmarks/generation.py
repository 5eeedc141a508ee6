r"""Tokens a second of `processors.generation.Sampler` and of transformers' `generate()`, in turn, on one machine.

Both sides decode the same prompts greedily (or sample at temperature 1) without an EOS, so every row gets exactly the
same number of tokens; greedy outputs are compared token for token. The prompts of a batch have different lengths
("padded") or one length. Constrained runs use the same automaton: a `guide=` here, a `GuideLogitsProcessor` there.
Seconds are CPU time of the process, on one thread, as the machine may be shared. A figure is the median of the runs; a
ratio is the median of the ratios of runs that followed each other, with quartiles.

usage: python benchmarks/generation.py [--tokenizer HF_DIR] [--new 128] [--runs 7] [--batches 1 16] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from generation_models import embedded, llama

BATCHES = (1, 16)
PATTERNS = {
    "letters": r"[a-z ]{2000,}",
    "records": r'(\{"identifier": [0-9]{1,6}, "description": "[A-Za-z ,.]{1,24}", "available": (true|false)\}\n){200,}',
}


class Side:
    """One way to generate; the seconds of each run."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run, self.seconds = run, list[float]()

    def once(self) -> None:
        begin = time.process_time()
        self.run()
        self.seconds.append(time.process_time() - begin)


def sides(
    model: Any, vocabulary: Any, prompts: Sequence[list[int]], n_new: int, pattern: str, method: str
) -> list[Side]:
    import torch

    import outlines_core as oc
    from processors.generation import Greedy, RandomSampling, Sampler
    from processors.logits import GuideLogitsProcessor

    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    automaton = oc.compile_regex(pattern, vocabulary) if pattern else None
    sampler = Sampler(model, tokenizer=vocabulary, forbidden_tokens=list(vocabulary.eos_token_ids))
    sampling = Greedy() if method == "greedy" else RandomSampling()
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])

    def ours(return_state: bool = False) -> Any:
        return sampler.sample(
            list(prompts), max_new_tokens=n_new, guide=automaton, sampling=sampling, rng=1, return_state=return_state
        )

    def theirs() -> Any:
        processors = [] if automaton is None else [GuideLogitsProcessor(None, automaton)]
        return model.generate(
            ids,
            attention_mask=mask,
            do_sample=method != "greedy",
            **({} if method == "greedy" else {"top_k": 0}),
            max_new_tokens=n_new,
            suppress_tokens=list(vocabulary.eos_token_ids),
            logits_processor=processors,
        )[:, width:]

    tokens = ours(return_state=True).tokens  # kernels, states and masks are there afterwards
    if tokens.shape != (len(prompts), n_new) or (method == "greedy" and tokens.tolist() != theirs().tolist()):
        raise AssertionError("the two sides generate different tokens")
    return [Side(ours), Side(theirs)]


def measure(pair: list[Side], n_runs: int, n_tokens: int) -> dict[str, Any]:
    for side in pair:
        side.once()
        side.seconds.clear()
    for k in range(n_runs):
        for side in pair if k % 2 == 0 else pair[::-1]:
            side.once()
    ratios = [theirs / ours for ours, theirs in zip(pair[0].seconds, pair[1].seconds, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "tokens_per_s": n_tokens / statistics.median(pair[0].seconds),
        "transformers_tokens_per_s": n_tokens / statistics.median(pair[1].seconds),
        "ratio": statistics.median(ratios),
        "quartiles": [quartiles[0], quartiles[2]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a directory; adds a Llama with the vocabulary of its tokenizer")
    parser.add_argument("--only", choices=["embedded", "llama"], help="measure one of the models")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
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
    record = []
    for name, make in models.items():
        model, vocabulary = make()
        generator = torch.Generator().manual_seed(0)
        for batch in args.batches:
            for pattern, method, ragged in (
                ("", "greedy", False),
                ("", "greedy", True),
                ("", "sampled", False),
                ("letters", "greedy", False),
                ("records", "greedy", False),
            ):
                lengths = [32 - (5 * k % 16 if ragged else 0) for k in range(batch)]
                prompts = [torch.randint(3, 256, (n,), generator=generator).tolist() for n in lengths]
                pair = sides(model, vocabulary, prompts, args.new, PATTERNS.get(pattern, ""), method)
                found = measure(pair, args.runs, batch * args.new)
                label = f"{name:12} batch {batch:2} {method:8}{'padded ' if ragged else '':7}{pattern or 'free':8}"
                print(
                    f"{label} {found['tokens_per_s']:8.0f} tokens/s, "
                    f"transformers {found['transformers_tokens_per_s']:8.0f}, "
                    f"ratio {found['ratio']:.2f} ({found['quartiles'][0]:.2f} to {found['quartiles'][1]:.2f})",
                    flush=True,
                )
                case = {"model": name, "batch": batch, "method": method, "ragged": ragged, "guide": pattern}
                record.append({**case, **found})
    if args.out:
        args.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
