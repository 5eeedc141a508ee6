"""SMC with hard constraints: 20 particles x 50 tokens, against llamppl, with one program on one model.

The program is llamppl's benchmark, words of at most five letters: a mask is observed before each token, chosen by the
letters that the word at the end has already. It is the same text for both; only the masks are made as each likes them
(sets of ids there, `lm.masks.of(ids)` here). The end of the text is ruled out, so that both generate all tokens;
llamppl's engine then always has a full batch and never waits for its 20 ms timer.

Each engine is a process of its own, with one thread. Caches are emptied before each round, the prompt's keys and values
are then computed (`cache_kv`, without which llamppl computes the prompt anew for each token); the first round is not
counted. Before that, both must give a fixed text the same log-probability to 1e-3.

usage: python benchmarks/inference.py --peer PYTHON [--model HF_DIR] [-n ROUNDS] [--particles 20] [--tokens 50]
       [--out FILE]     PYTHON has llamppl 0.2.3 (pip install llamppl).
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
import time

LONGEST_WORD = 5
PROMPT = "The following sentence has no long words: The quick brown fox "


def load(engine, path):
    """The model, and the names that the program uses."""
    import torch

    torch.set_num_threads(1)
    if engine == "llamppl":
        import llamppl as names

        lm = names.CachedCausalLM.from_pretrained(
            path, backend="hf", hf_opts={"device_map": None, "dtype": torch.float32}
        )
        lm.batch_size = lm.model.batch_size = 40
    else:
        import types

        from processors import inference
        from processors import lm as language

        names = types.SimpleNamespace(
            Model=inference.Model, LMContext=language.LMContext, smc_standard=inference.smc_standard
        )
        lm = language.CachedCausalLM.from_pretrained(path, dtype=torch.float32)
        lm.batch_size = 40
    return names, lm


def masks_by_letters(lm):
    """For each number of letters that the last word has, the ids that may follow."""
    vocab = lm.str_vocab
    end = lm.tokenizer.eos_token_id

    def fits(text, letters):
        for c in text:
            letters = letters + 1 if c.isalpha() else 0
            if letters > LONGEST_WORD:
                return False
        return True

    make = getattr(lm.masks, "of", set)
    usual = [i for i, text in enumerate(vocab) if text and text.isascii() and text.isprintable() and i != end]
    return [make(i for i in usual if fits(vocab[i], letters)) for letters in range(LONGEST_WORD + 1)]


def program(names, lm, masks, n_tokens):
    vocab = lm.str_vocab

    class ShortWords(names.Model):
        def __init__(self):
            super().__init__()
            self.context = names.LMContext(lm, PROMPT)
            self.letters, self.left = 0, n_tokens

        async def start(self):
            await self.observe(self.context.mask_dist(masks[0]), True)

        async def step(self):
            token = await self.sample(self.context.next_token())
            for c in vocab[token.token_id]:
                self.letters = self.letters + 1 if c.isalpha() else 0
            self.left -= 1
            if not self.left:
                self.finish()
                return
            await self.observe(self.context.mask_dist(masks[self.letters]), True)

        def immutable_properties(self):
            return ["lm"]

    return ShortWords()


def measure(engine, path, rounds, n_particles, n_tokens):
    """In a process of its own: seconds of each round, and what shows that both do the same."""
    names, lm = load(engine, path)
    masks = masks_by_letters(lm)
    text = lm.tokenizer.encode("The cat sat on the mat and the dog ran")
    check = sum(float(lm.next_token_logprobs_unbatched(text[:k])[text[k]]) for k in range(1, len(text)))
    prompt = lm.tokenizer.encode(PROMPT)
    wall, cpu = [], []
    words = 0
    for _ in range(rounds + 1):
        lm.clear_cache()
        begun, begun_cpu = time.perf_counter(), time.process_time()
        lm.cache_kv(prompt)
        particles = asyncio.run(names.smc_standard(program(names, lm, masks, n_tokens), n_particles, 0.5))
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - begun_cpu)
        for particle in particles:
            assert particle.context.token_count == n_tokens
            written = "".join(lm.str_vocab[i] for i in particle.context.tokens[len(prompt) :])
            found = "".join(c if c.isalpha() else " " for c in written).split()
            assert max(map(len, found)) <= LONGEST_WORD, found
            words += len(found)
    return {"engine": engine, "check": check, "wall": wall[1:], "cpu": cpu[1:], "words": words, "mask": len(masks[0])}


def child(python, engine, options):
    command = [python, __file__, "--child", engine, "--model", options.model, "-n", str(options.rounds)]
    command += ["--particles", str(options.particles), "--tokens", str(options.tokens)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if engine == "llamppl":
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    embedded = pathlib.Path(__file__).resolve().parents[1] / "processors" / "data" / "embedded"
    parser.add_argument("--model", default=str(embedded))
    parser.add_argument("--peer")
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("--particles", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        figures = measure(options.child, options.model, options.rounds, options.particles, options.tokens)
        print(json.dumps(figures))
        return
    results = {"processors": child(sys.executable, "processors", options)}
    if options.peer:
        results["llamppl"] = child(options.peer, "llamppl", options)
    print(f"{options.particles} particles x {options.tokens} tokens, median of {options.rounds} rounds, seconds")
    for name, result in results.items():
        print(
            f"  {name:12} wall {statistics.median(result['wall']):7.3f}   cpu {statistics.median(result['cpu']):7.3f}"
            f"   {result['words']} words, {result['mask']} ids in the first mask"
        )
    if options.peer:
        ours, theirs = results["processors"], results["llamppl"]
        assert abs(ours["check"] - theirs["check"]) < 1e-3, "the models differ"
        for kind in ("wall", "cpu"):
            ratio = statistics.median(ours[kind]) / statistics.median(theirs[kind])
            print(f"  {kind} ratio {ratio:.3f}")
    if options.out:
        record = {"date": time.strftime("%Y-%m-%d"), "cpu": platform.processor(), "results": results}
        pathlib.Path(options.out).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
