"""Tiny random models of several architectures over one small vocabulary, for the tests of generation."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

import outlines_core as oc

PAD, EOS, BOS = 0, 1, 2
TOKENS = ["a", "b", "c", "d", "0", "1", "ab", "abc", "ca", "cc", "bab", "d0", "01", "10", "1c", "abab", "é", " ", "x"]
VOCABULARY = oc.Vocabulary(
    EOS,
    {**{token.encode(): [3 + k] for k, token in enumerate(TOKENS)}, "ü".encode()[:1]: [22], "ü".encode()[1:]: [23]},
    special_tokens={"<pad>": PAD, "<s>": BOS},
)
SIZE = 32  # wider than the vocabulary
COMMON: dict[str, Any] = {
    "vocab_size": SIZE,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "initializer_range": 0.3,  # logits far apart: no near ties
}


@cache
def llama(seed: int = 0, layers: int = 2, **options: Any) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        **{**COMMON, **options},
    )
    return LlamaForCausalLM(config).eval()


@cache
def gpt2(seed: int = 0, positions: int = 64) -> Any:
    torch.manual_seed(seed)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=positions, **COMMON)
    return GPT2LMHeadModel(config).eval()


@cache
def mistral(seed: int = 0, window: int = 4) -> Any:
    """Attention within a sliding window."""
    torch.manual_seed(seed)
    config = MistralConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
        max_position_embeddings=256,
        **COMMON,
    )
    return MistralForCausalLM(config).eval()


@cache
def lfm2(seed: int = 0) -> Any:
    """Short convolutions and attention: a cache that cannot take anything back."""
    torch.manual_seed(seed)
    config = Lfm2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
        max_position_embeddings=256,
        **COMMON,
    )
    return Lfm2ForCausalLM(config).eval()


MODELS = {"llama": llama, "gpt2": gpt2, "mistral": mistral}


def reference(model: Any, prompts: list[list[int]], max_new_tokens: int, **options: Any) -> list[list[int]]:
    """What transformers' greedy `generate` gives, up to and with the EOS."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    options = {"do_sample": False, "eos_token_id": EOS, "pad_token_id": PAD, **options}
    out = model.generate(ids, attention_mask=mask, max_new_tokens=max_new_tokens, **options)[:, width:].tolist()
    return [row[: row.index(EOS) + 1] if EOS in row else row for row in out]


def rows_of(output: Any) -> list[list[int]]:
    """The tokens of a `SamplerOutput`, without padding."""
    tokens = output.tokens if output.tokens.ndim == 2 else output.tokens[None]
    return [row[:n].tolist() for row, n in zip(tokens, output.lengths, strict=True)]


@torch.no_grad()
def logprobs_after(model: Any, tokens: list[int]) -> torch.Tensor:
    """Uncached: (n_columns,) float64."""
    return model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1)


def passes(model, call):
    """The result of a call, and the widths of its forward passes."""
    widths = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        return call(), widths
    finally:
        hook.remove()


def chi_square(exact, drawn) -> float:
    """The statistic less its 0.9995 quantile: below zero if the draws are as expected. Rare outcomes are pooled."""
    n = len(drawn)
    counts = dict.fromkeys(exact, 0)
    for one in drawn:
        counts[one] += 1  # an outcome of no probability is a KeyError
    assert all(exact[key] > 0 for key, count in counts.items() if count)
    rare = [key for key in exact if n * exact[key] < 5]
    pairs = [(counts[key], n * exact[key]) for key in exact if key not in rare]
    pooled = sum(n * exact[key] for key in rare)
    if pooled > 0.5:
        pairs.append((sum(counts[key] for key in rare), pooled))
    freedom = len(pairs) - 1
    assert freedom > 0
    statistic = sum((count - mean) ** 2 / mean for count, mean in pairs)
    quantile = freedom * (1 - 2 / (9 * freedom) + 3.29 * (2 / (9 * freedom)) ** 0.5) ** 3  # Wilson and Hilferty
    return statistic - quantile
