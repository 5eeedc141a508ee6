"""Training: plain next-token prediction, with Muon for the matrices and Adam for the rest.

Documents are sorted by length in pools and cut into batches of about as many tokens each, so there is hardly any
padding and no document sees another. Muon (Jordan et al. 2024) moves a matrix by its momentum with all singular values
made about 1 by a Newton-Schulz iteration; it needs about half the tokens that Adam alone does.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from scripts.embedded.corpus import Piece, documents
from scripts.embedded.tokenizer import VOCABULARY_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

__all__ = ["TrainingSettings", "batches", "build_model", "encode", "model_config", "train"]

BOS, EOS = 0, 1
Encoded = tuple[list[int], list[float]]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the shipped model was trained."""

    seed: int = 20_261_122
    steps: int = 1_650
    tokens_per_batch: int = 1_408
    processes: int = 2
    """Each with one thread of torch's and one batch a step: they meet once a step, not at every product."""
    documents_per_pool: int = 4_096
    matrix_rate: float = 0.02
    other_rate: float = 5e-3
    momentum: float = 0.95
    warmup: int = 60
    cooldown: int = 900
    """The steps, at the end, in which the rates fall to nothing."""
    hidden: int = 128
    intermediate: int = 352
    layers: int = 5
    heads: int = 4


@dataclass
class Progress:
    """What training reports."""

    step: int
    loss: float
    cpu_seconds: float
    n_tokens: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def model_config(settings: TrainingSettings) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": BOS,
        "dtype": "float32",  # what it is loaded as; the file holds float16 to stay small
        "eos_token_id": EOS,
        "head_dim": settings.hidden // settings.heads,
        "hidden_act": "silu",
        "hidden_size": settings.hidden,
        "initializer_range": 0.02,
        "intermediate_size": settings.intermediate,
        "max_position_embeddings": 2_048,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": settings.heads,
        "num_hidden_layers": settings.layers,
        "num_key_value_heads": settings.heads,
        "pad_token_id": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": VOCABULARY_SIZE,
    }


def build_model(settings: TrainingSettings) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(settings.seed)
    return LlamaForCausalLM(LlamaConfig(**model_config(settings)))


def encode(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> Encoded:
    """Ids, and the weight of each: pieces by themselves, as a prompt and its continuation meet in `generate`."""
    ids, weights = [BOS], [0.0]
    for piece in pieces:
        new = tokenizer.encode(piece.text, add_special_tokens=False).ids
        ids += new
        weights += [piece.weight] * len(new)
    return [*ids, EOS], [*weights, pieces[-1].weight]


def batches(
    tokenizer: Tokenizer, pieces: Iterable[Sequence[Piece]], settings: TrainingSettings
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and weights, both [rows, width], padded on the right with weight 0."""
    order = torch.Generator().manual_seed(settings.seed)
    stream = iter(pieces)
    while pool := [encode(tokenizer, p) for p in itertools.islice(stream, settings.documents_per_pool)]:
        pool.sort(key=lambda document: len(document[0]))
        cut: list[list[Encoded]] = [[]]
        for document in pool:
            if (len(cut[-1]) + 1) * len(document[0]) > settings.tokens_per_batch:
                cut.append([])
            cut[-1].append(document)
        for at in torch.randperm(len(cut), generator=order).tolist():
            width = len(cut[at][-1][0])
            rows = [ids + [EOS] * (width - len(ids)) for ids, _ in cut[at]]
            weights = [w + [0.0] * (width - len(w)) for _, w in cut[at]]
            yield torch.tensor(rows), torch.tensor(weights)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """[n, rows, columns] with all singular values brought near 1: five quintic Newton-Schulz steps."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """Momentum, orthogonalised; matrices of one shape move together."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], momentum: float) -> None:
        self.momentum = momentum
        self.groups: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            self.groups.setdefault(parameter.shape, []).append(parameter)
        self.velocity = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for shape, group in self.groups.items():
            gradient = torch.stack([p.grad for p in group if p.grad is not None])
            velocity = self.velocity[shape]
            velocity.lerp_(gradient, 1 - self.momentum)
            update = orthogonalised(gradient.lerp(velocity, self.momentum))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.add_(change, alpha=-rate * scale)


def rate_at(step: int, settings: TrainingSettings) -> float:
    """The share of the full rates: up in `warmup` steps, level, down to 0 in the last `cooldown`."""
    return min(1.0, (step + 1) / settings.warmup, (settings.steps - step) / settings.cooldown)


def train(
    tokenizer: Tokenizer,
    settings: TrainingSettings,
    report: Callable[[Progress, LlamaForCausalLM], None] | None = None,
    every: int = 50,
) -> LlamaForCausalLM:
    """Train from scratch; the same settings, library versions and kind of processor give the same weights.

    Args:
        tokenizer: what the texts are cut by.
        settings: sizes, rates, seed.
        report: called every `every` steps, and after the last.
        every: steps between reports.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = build_model(settings).train().share_memory()
    parameters = dict(model.named_parameters())
    shared = [[torch.zeros_like(p).share_memory_() for p in parameters.values()] for _ in range(settings.processes)]
    notes = torch.zeros(settings.processes, 3, dtype=torch.float64).share_memory_()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(settings.processes)

    def compute(rank: int) -> Iterator[int]:
        """Put one process's gradients of each step where the first one finds them, and wait for the weights."""
        started = time.process_time()
        stream = batches(tokenizer, documents(settings.seed), settings)
        for step in range(settings.steps):
            parts = list(itertools.islice(stream, settings.processes))
            grads, loss = gradients(model, *parts[rank], total=sum(weights.sum().item() for _, weights in parts))
            for out, gradient in zip(shared[rank], grads, strict=True):
                out.copy_(gradient)
            notes[rank] = torch.tensor([loss, parts[rank][0].numel(), time.process_time() - started])
            barrier.wait()
            yield step
            barrier.wait()

    others = [
        context.Process(target=lambda r: list(compute(r)), args=(r,), daemon=True) for r in range(1, settings.processes)
    ]
    for process in others:
        process.start()
    matrices = {name for name, p in parameters.items() if p.ndim == 2 and "embed" not in name}
    muon = Muon([parameters[name] for name in sorted(matrices)], settings.momentum)
    rest = [p for name, p in parameters.items() if name not in matrices]
    adam = torch.optim.AdamW(rest, lr=settings.other_rate, betas=(0.9, 0.95), weight_decay=0.0)
    n_tokens, recent = 0, []
    for step in compute(0):
        for parameter, *parts in zip(parameters.values(), *shared, strict=True):
            parameter.grad = torch.stack(parts).sum(0)
        rate = rate_at(step, settings)
        muon.step(settings.matrix_rate * rate)
        adam.param_groups[0]["lr"] = settings.other_rate * rate
        adam.step()
        losses, sizes, seconds = notes.unbind(1)
        n_tokens += int(sizes.sum().item())
        recent = [*recent[-99:], losses.mean().item()]
        if report is not None and ((step + 1) % every == 0 or step + 1 == settings.steps):
            last = recent[-every:]
            report(Progress(step + 1, sum(last) / len(last), seconds.sum().item(), n_tokens), model)
    for process in others:
        process.join()
    return model.eval()


def gradients(
    model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor, total: float
) -> tuple[tuple[torch.Tensor, ...], float]:
    """The gradients of a batch's part of the loss, by parameter, and the mean loss of the tokens that count fully."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    grads = torch.autograd.grad((losses * weight).sum() / total, list(model.parameters()))
    return grads, losses.detach()[weight == 1.0].mean().item()
