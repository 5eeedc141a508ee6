"""Outlines-core's own benchmark set, on this package and on PyPI's `outlines_core` 0.2.14: the same calls on both.

    index      Index(regex, vocabulary), for the nine regexes and the regexes of two JSON schemas
    + mask     the first Guide's first mask after it: ours is lazy, so that is where its work begins
    all        ours with every state and mask built (`materialize`): what theirs has when Index returns
    10k        10,000 guides on one index: time, and growth of the resident memory

Each side is a process of its own in its own Python, as the packages share an import name. Checked: both allow the same
number of tokens at the start. Ours has its kernels compiled (`python -m outlines_core warmup`), its caches empty.

usage: python benchmarks/dropin.py --tokenizer HF_DIR --peer PYTHON [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import time

SCHEMAS = {
    "schema_simple": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    },
    "schema_complex": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "object",
        "definitions": {
            "artist": {
                "type": "object",
                "properties": {
                    "id": {"type": "number"},
                    "name": {"type": "string"},
                    "functions": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["id", "name", "functions"],
            }
        },
        "properties": {
            "id": {"type": "number"},
            "work": {
                "type": "object",
                "properties": {
                    "id": {"type": "number"},
                    "name": {"type": "string"},
                    "composer": {"$ref": "#/definitions/artist"},
                },
            },
            "recording_artists": {"type": "array", "items": {"$ref": "#/definitions/artist"}},
        },
        "required": ["id", "work", "recording_artists"],
    },
}
N_GUIDES = 10_000


def resident() -> int:
    """Bytes of this process in memory."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def worker(content_path: str) -> None:
    """Answer names on stdin with measurements; `outlines_core` is whatever this Python has."""
    import numpy as np

    import outlines_core
    from outlines_core.json_schema import build_regex_from_schema

    with open(content_path, "rb") as file:
        content = pickle.load(file)
    vocabulary = outlines_core.Vocabulary(content["eos"], content["tokens"])
    ours = hasattr(outlines_core, "compile_regex")
    row = np.zeros(content["size"] // 32 + 1, dtype=np.int32)
    if ours:
        from outlines_core.warmup import warmup

        warmup()
    # imports and the trie are there from now on
    outlines_core.Guide(outlines_core.Index("[a-z]+", vocabulary)).get_tokens()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name = line.strip()
        answer = {}
        if name == "guides":
            index = outlines_core.Index(".*", vocabulary)
            outlines_core.Guide(index).get_tokens()
            start = time.perf_counter()
            guides = [outlines_core.Guide(index) for _ in range(N_GUIDES)]
            answer = {"s": time.perf_counter() - start}
            before = resident()  # ten thousand fit into memory that was freed before: count many more
            guides += [outlines_core.Guide(index) for _ in range(50 * N_GUIDES)]
            answer["bytes"] = (resident() - before) / 50
            print(json.dumps(answer), flush=True)
            continue
        start = time.perf_counter()
        regex = content["patterns"].get(name) or build_regex_from_schema(json.dumps(SCHEMAS[name]))
        answer["build_s"] = time.perf_counter() - start
        start = time.perf_counter()
        index = outlines_core.Index(regex, vocabulary)
        answer["index_s"] = time.perf_counter() - start
        guide = outlines_core.Guide(index)
        guide.write_mask_into(row.ctypes.data, row.size, row.itemsize)
        answer["first_s"] = time.perf_counter() - start
        bits = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
        answer["n_first"] = len([b for b in bits.tolist() if b != content["eos"]])
        if ours:
            start = time.perf_counter()
            index.materialize()
            answer["all_s"] = answer["index_s"] + time.perf_counter() - start
        print(json.dumps(answer), flush=True)


class Side:
    """A worker process."""

    def __init__(self, python: str, content: str, *, isolated: bool) -> None:
        arguments = [python, *(["-I"] if isolated else []), __file__, "--content", content]
        environment = os.environ | {"OUTLINES_CACHE_DIR": tempfile.mkdtemp()}
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def ask(self, name: str) -> dict:
        """One measurement."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer directory")
    parser.add_argument("--peer", help="the Python of an environment with PyPI's outlines_core")
    parser.add_argument("--only", nargs="*", help="names of regexes and schemas")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--content", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.content:
        worker(args.content)
        return
    from regex_index import PATTERNS
    from transformers import AutoTokenizer

    from processors.tokenizers import vocabulary_from

    vocabulary = vocabulary_from(AutoTokenizer.from_pretrained(args.tokenizer))
    names = list(PATTERNS)[:9]
    eos = vocabulary.get_eos_token_id()
    tokens = {token: list(ids) for token, ids in vocabulary.items()}
    content = {"eos": eos, "tokens": tokens, "size": vocabulary.size, "patterns": {n: PATTERNS[n] for n in names}}
    results = {}
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        pickle.dump(content, file)
        file.flush()
        pythons = {"ours": (sys.executable, False), "pypi": (args.peer, True)}
        sides = {name: Side(python, file.name, isolated=alone) for name, (python, alone) in pythons.items()}
        print(f"{'':46s} {'ours, ms':>25s}   {'pypi, ms':>9s}   ratio of")
        print(f"{'':46s} {'index':>7s} {'+ mask':>8s} {'all':>8s}   {'index':>9s}   {'all':>7s} {'first':>7s}")
        for name in [*names, *SCHEMAS] if args.only is None else args.only:
            row = {side: worker.ask(name) for side, worker in sides.items()}
            results[name] = row
            ours, theirs = row["ours"], row["pypi"]
            note = "" if ours["n_first"] == theirs["n_first"] else f"  {ours['n_first']} / {theirs['n_first']} tokens"
            print(
                f"{name:46s} {ours['index_s'] * 1e3:7.1f} {ours['first_s'] * 1e3:8.1f} {ours['all_s'] * 1e3:8.1f}   "
                f"{theirs['index_s'] * 1e3:9.1f}   {ours['all_s'] / theirs['index_s']:7.4f} "
                f"{ours['first_s'] / theirs['first_s']:7.4f}{note}",
                flush=True,
            )
        results["guides"] = {}
        for side in sides.values():
            side.process.kill()
        for name, (python, alone) in pythons.items():  # new processes: no freed memory to be used again
            side = Side(python, file.name, isolated=alone)
            answer = results["guides"][name] = side.ask("guides")
            print(f"10,000 guides, {name}: {answer['s'] * 1e3:.1f} ms, {answer['bytes'] / 2**20:.2f} MiB")
            side.process.kill()
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
