"""SMC with hard constraints: 20 particles x 50 tokens, against llamppl, with one program on one model.

The program is llamppl's benchmark, words of at most five letters: a mask is observed before each token, chosen by the
letters that the word at the end has already. It is the same text for both; only the masks are made as each likes them
(sets of ids there, `lm.masks.of(ids)` here). The end of the text is ruled out, so that both generate all tokens, and
the size of a batch is the number of particles: so llamppl's engine always has a full batch and never waits for its
timer of 20 ms (with the 40 of its own examples it waits 50 times; `--batch-size 40` shows that).

Each engine is a process of its own, with one thread; they take turns, round by round. Caches are emptied before each
round, the prompt's keys and values are then computed (`cache_kv`, without which llamppl computes the prompt anew for
each token: `--no-cache-kv`); the first round is not counted. Before that, both must give a fixed text the same
log-probability to 1e-3.

usage: python benchmarks/inference.py --peer PYTHON [--model HF_DIR] [-n ROUNDS] [--particles 20] [--tokens 50]
       [--batch-size 20] [--no-cache-kv] [--out FILE]     PYTHON has llamppl 0.2.3 (pip install llamppl).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
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


def load(engine, path, batch_size):
    """The model, and the names that the program uses."""
    import torch

    torch.set_num_threads(1)
    if engine == "llamppl":
        import llamppl as names

        lm = names.CachedCausalLM.from_pretrained(
            path, backend="hf", hf_opts={"device_map": None, "dtype": torch.float32}
        )
        lm.batch_size = lm.model.batch_size = batch_size
    else:
        import types

        from processors import inference
        from processors import lm as language

        names = types.SimpleNamespace(
            Model=inference.Model, LMContext=language.LMContext, smc_standard=inference.smc_standard
        )
        lm = language.CachedCausalLM.from_pretrained(path, dtype=torch.float32)
        lm.batch_size = batch_size
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


def measure(engine, path, n_particles, n_tokens, batch_size, cache_kv):
    """In a process of its own: what shows that both do the same, then a round and its seconds for each line read."""
    names, lm = load(engine, path, batch_size)
    masks = masks_by_letters(lm)
    text = lm.tokenizer.encode("The cat sat on the mat and the dog ran")
    check = sum(float(lm.next_token_logprobs_unbatched(text[:k])[text[k]]) for k in range(1, len(text)))
    prompt = lm.tokenizer.encode(PROMPT)
    print(json.dumps({"check": check, "mask": len(masks[0])}), flush=True)
    for _ in sys.stdin:
        lm.clear_cache()
        gc.collect()
        begun, begun_cpu = time.perf_counter(), time.process_time()
        if cache_kv:
            lm.cache_kv(prompt)
        particles = asyncio.run(names.smc_standard(program(names, lm, masks, n_tokens), n_particles, 0.5))
        wall, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
        words = 0
        for particle in particles:
            assert particle.context.token_count == n_tokens
            written = "".join(lm.str_vocab[i] for i in particle.context.tokens[len(prompt) :])
            found = "".join(c if c.isalpha() else " " for c in written).split()
            assert max(map(len, found)) <= LONGEST_WORD, found
            words += len(found)
        print(json.dumps({"wall": wall, "cpu": cpu, "words": words}), flush=True)


class Child:
    """An engine in its process."""

    def __init__(self, python, engine, options):
        command = [python, __file__, "--child", engine, "--model", options.model]
        command += ["--particles", str(options.particles), "--tokens", str(options.tokens)]
        command += ["--batch-size", str(options.batch_size), *["--no-cache-kv"] * options.no_cache_kv]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if engine == "llamppl":
            environment.pop("PYTHONPATH", None)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        self.facts = self._read()
        self.rounds = []

    def _read(self):
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"the process ended with {self._process.wait()}")

    def round(self):
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()

    def end(self):
        self._process.stdin.close()
        self._process.wait()


def spread(values):
    return f"{statistics.median(values):6.3f} ({min(values):.3f} .. {max(values):.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    embedded = pathlib.Path(__file__).resolve().parents[1] / "processors" / "data" / "embedded"
    parser.add_argument("--model", default=str(embedded))
    parser.add_argument("--peer")
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("--particles", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--batch-size", type=int, help="default: the number of particles")
    parser.add_argument("--no-cache-kv", action="store_true", help="cache no prompt by hand")
    parser.add_argument("--out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batch_size = options.batch_size or options.particles
    if options.child:
        o = options
        measure(o.child, o.model, o.particles, o.tokens, o.batch_size, not o.no_cache_kv)
        return
    children = {"processors": Child(sys.executable, "processors", options)}
    if options.peer:
        children["llamppl"] = Child(options.peer, "llamppl", options)
        checks = [children[name].facts["check"] for name in ("processors", "llamppl")]
        assert abs(checks[0] - checks[1]) < 1e-3, "the models differ"
    for i in range(options.rounds + 1):
        for child in children.values():
            result = child.round()
            if i:
                child.rounds.append(result)
    for child in children.values():
        child.end()
    print(f"{options.particles} particles x {options.tokens} tokens, {options.rounds} rounds, seconds: median (range)")
    for name, child in children.items():
        wall, cpu = ([r[kind] for r in child.rounds] for kind in ("wall", "cpu"))
        words = sum(r["words"] for r in child.rounds)
        print(
            f"  {name:12} wall {spread(wall)}   cpu {spread(cpu)}   {words} words, {child.facts['mask']} ids in the"
            " first mask"
        )
    if options.peer:
        for kind in ("wall", "cpu"):
            pairs = zip(children["processors"].rounds, children["llamppl"].rounds, strict=True)
            print(f"  {kind} ratio {spread([ours[kind] / theirs[kind] for ours, theirs in pairs])}")
    if options.out:
        results = {name: {**child.facts, "rounds": child.rounds} for name, child in children.items()}
        record = {"date": time.strftime("%Y-%m-%d"), "cpu": platform.processor(), "results": results}
        pathlib.Path(options.out).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
