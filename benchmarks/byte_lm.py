"""A byte of text: beams of 1, 4 and 16 candidates against genlm-bytes, on one model.

The model is Llama, 4 layers x 256, random weights, over the vocabulary of a real tokenizer. Two phases, each from
emptied caches: `prefill` of a prompt; then for each byte of a text that follows, `logp_next` and one byte further
(``beam = await (beam.prune() << byte)``), which is what sampling does. Both engines must give the prompt and the text
the same logZ to 1e-3, and each next byte the same probability.

Each engine is a process of its own, with one thread; a short round of each K is not counted. Wall time counts:
genlm-bytes waits for a timer of 20 ms whenever fewer than 20 questions are there.

usage: python benchmarks/byte_lm.py TOKENIZER_DIR --peer PYTHON [-K 1 4 16] [-n ROUNDS] [--prompt BYTES] [--out FILE]
       PYTHON has genlm-bytes 0.2.0 (pip install genlm-bytes).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

PROMPT = (
    b"The byte is the smallest piece of text that a computer keeps. A language model of tokens sees words cut in one "
    b"way, and finds the same words cut in another way strange. Whoever asks it for the next letter, "
)
PARTS = ("prefill", "text", "all")
TEXT = b"must sum over all the ways to cut."


def load(engine, path, k):
    """(model, function that makes a beam, bytes that each candidate holds, function that empties caches)."""
    import torch

    torch.set_num_threads(1)
    if engine == "genlm-bytes":
        from genlm.backend import load_model_by_name
        from genlm.bytes import BeamParams, ByteBeamState

        lm = load_model_by_name(path, backend="hf", llm_opts={"hf_opts": {"device_map": None, "dtype": torch.float32}})

        async def start():
            return await ByteBeamState.initial(lm, BeamParams(K=k))

        def held(beam):
            return sum({id(s.mass): s.mass.nbytes for s in beam.states}.values()) / len(beam.states)
    else:
        from processors.bytes import BeamParams, ByteBeamState
        from processors.lm import CachedCausalLM

        lm = CachedCausalLM.from_pretrained(path, dtype=torch.float32)

        async def start():
            return await ByteBeamState.initial(lm, BeamParams(K=k))

        def held(beam):
            return sum({id(s.boundary): s.boundary.nbytes for s in beam.states}.values()) / len(beam.states)

    return lm, start, held


async def one_round(lm, start, held, prompt, text=TEXT):
    lm.clear_cache()
    beam = await start()
    begun = time.perf_counter()
    beam = await beam.prefill(prompt)
    filled = time.perf_counter()
    figures = {"prefill": (filled - begun) / len(prompt), "prompt logZ": float(beam.logZ)}
    logps = []
    for byte in text:
        logps.append(float((await beam.logp_next())[byte]))
        beam = await (beam.prune() << byte)
    figures["text"] = (time.perf_counter() - filled) / len(text)
    figures["all"] = (time.perf_counter() - begun) / len(prompt + text)
    return figures | {"logZ": float(beam.logZ), "logps": logps, "bytes": held(beam), "candidates": len(beam.states)}


def measure(engine, path, k, rounds, prompt):
    lm, start, held = load(engine, path, k)

    async def all_rounds():
        await one_round(lm, start, held, prompt[:8], TEXT[:2])
        return [await one_round(lm, start, held, prompt) for _ in range(rounds)]

    return asyncio.run(all_rounds())


def child(python, engine, path, k, options):
    command = [python, __file__, path, "--child", engine, "-n", str(options.rounds), "-K", str(k)]
    command += ["--prompt", str(options.prompt)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if engine == "genlm-bytes":
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def save_model(tokenizer_dir, path):
    from generation_models import llama
    from transformers import AutoTokenizer, LlamaForCausalLM

    model, _ = llama(tokenizer_dir)
    assert isinstance(model, LlamaForCausalLM)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(path)


def report(k, engines):
    medians = {}
    for name, rounds in engines.items():
        medians[name] = {part: 1e3 * statistics.median(r[part] for r in rounds) for part in PARTS}
        shown = "  ".join(f"{part} {value:8.2f}" for part, value in medians[name].items())
        last = rounds[-1]
        print(
            f"  K={k:3} {name:12} {shown}   logZ {last['prompt logZ']:.4f} {last['logZ']:.4f}   "
            f"{last['bytes'] / 1e6:.3f} MB for each of {last['candidates']} candidates",
            flush=True,
        )
    if "genlm-bytes" in engines:
        ratios = {part: medians["processors"][part] / medians["genlm-bytes"][part] for part in PARTS}
        print(
            f"  K={k:3} ratio        " + "  ".join(f"{part} {value:8.3f}" for part, value in ratios.items()), flush=True
        )
        ours, theirs = engines["processors"][-1], engines["genlm-bytes"][-1]
        for part in ("prompt logZ", "logZ"):
            assert abs(ours[part] - theirs[part]) < 1e-3, f"{part}: {ours[part]} and {theirs[part]}"
        assert max(abs(a - b) for a, b in zip(ours["logps"], theirs["logps"], strict=True)) < 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("--peer")
    parser.add_argument("-K", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("-n", "--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=len(PROMPT), metavar="BYTES")
    parser.add_argument("--out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    prompt = PROMPT[: options.prompt]
    if options.child:
        print(json.dumps(measure(options.child, options.tokenizer, options.K[0], options.rounds, prompt)))
        return
    results = {}
    print(f"ms per byte; prompt {len(prompt)} bytes, text {len(TEXT)}; median of {options.rounds} rounds, 1 thread")
    with tempfile.TemporaryDirectory() as path:
        save_model(options.tokenizer, path)
        for k in options.K:
            results[k] = {"processors": child(sys.executable, "processors", path, k, options)}
            if options.peer:
                results[k]["genlm-bytes"] = child(options.peer, "genlm-bytes", path, k, options)
            report(k, results[k])
    if options.out:
        engines = {name: {str(k): results[k][name] for k in results} for name in results[options.K[0]]}
        record = {"date": time.strftime("%Y-%m-%d"), "cpu": platform.processor(), "results": engines}
        pathlib.Path(options.out).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
