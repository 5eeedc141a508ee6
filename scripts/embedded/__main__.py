"""Make the model that ships with the package, `processors/data/embedded/`.

    python -m scripts.embedded                 tokenizer, training, weights, held-out scores
    python -m scripts.embedded --scores-only   score the weights that are there again
    python -m scripts.embedded --steps 60 --target DIRECTORY

Everything follows from the seed in `TrainingSettings`: the same versions of torch, transformers and tokenizers on the
same kind of processor give the same files. Training takes two processes of one thread each.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from scripts.embedded.score import score
from scripts.embedded.tokenizer import build_tokenizer, tokenizer_config
from scripts.embedded.train import Progress, TrainingSettings, model_config, train

TARGET = Path(__file__).resolve().parents[2] / "processors" / "data" / "embedded"


def safetensors_bytes(weights: dict[str, np.ndarray[Any, np.dtype[np.float16]]]) -> bytes:
    """The safetensors format: length of the header, JSON header padded to 8 bytes, the tensors one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in weights.items():
        header[name] = {"dtype": "F16", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(a.astype("<f2").tobytes() for a in weights.values())


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def build(target: Path, settings: TrainingSettings) -> dict[str, Any]:
    """Write tokenizer, settings and weights; what is to be known about the training."""
    target.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(settings.seed)
    (target / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    write_json(target / "tokenizer_config.json", tokenizer_config())
    write_json(target / "config.json", model_config(settings))
    write_json(
        target / "generation_config.json",
        {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
    )
    started, last = time.perf_counter(), []

    def report(progress: Progress, _model: Any) -> None:
        last[:] = [progress]
        print(
            f"step {progress.step:>5}  loss {progress.loss:.4f}  {progress.n_tokens:>10,} tokens  "
            f"{progress.cpu_seconds:,.0f} s of processor time, {time.perf_counter() - started:,.0f} s",
            flush=True,
        )

    model = train(tokenizer, settings, report)
    weights = {
        name: tensor.detach().to(torch.float16).numpy()
        for name, tensor in sorted(model.state_dict().items())
        if name != "lm_head.weight"  # the embeddings
    }
    data = safetensors_bytes(weights)
    (target / "model.safetensors").write_bytes(data)
    return {
        "settings": dataclasses.asdict(settings),
        "parameters": sum(array.size for array in weights.values()),
        "tokens": last[0].n_tokens,
        "final_loss": round(last[0].loss, 4),
        "processor_seconds": round(last[0].cpu_seconds),
        "wall_seconds": round(time.perf_counter() - started),
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, tokenizers)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--steps", type=int, default=TrainingSettings.steps)
    parser.add_argument("--scores-only", action="store_true", help="leave the weights as they are")
    args = parser.parse_args()
    path = args.target / "scores.json"
    if args.scores_only:
        training = json.loads(path.read_text(encoding="utf-8"))["training"]
    else:
        settings = dataclasses.replace(TrainingSettings(), steps=args.steps)
        training = build(args.target, settings)
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(args.target, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.target, local_files_only=True)
    scores = score(model, tokenizer, report=lambda name, found: print(name, json.dumps(found)))
    write_json(path, {"training": training, **scores})
    print(json.dumps(scores["demo"], ensure_ascii=False))


if __name__ == "__main__":
    main()
