"""Tiny random models of four architectures, prompts of unequal length, and what transformers makes of them.

The pad id is not 0: transformers' beam search takes 0 for "no pad token". Several end tokens make texts end early.
"""

from __future__ import annotations

from functools import cache

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

SIZE = 64
PAD, BOS = 3, 2
ENDS = (1, 10, 20, 30, 40)
PROMPTS = ((5, 6, 7, 8, 9), (11, 12, 13), (21, 22, 23, 24))
SPECIAL = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": list(ENDS)}


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SIZE,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.3,  # logits far apart, so that rounding decides nothing
            **SPECIAL,
        )
    )


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=SIZE, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3, **SPECIAL)
    )


def _t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=SIZE,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            initializer_factor=3.0,
            decoder_start_token_id=BOS,
            **SPECIAL,
        )
    )


def _bart() -> PreTrainedModel:
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=SIZE,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=128,
            init_std=0.3,
            decoder_start_token_id=BOS,
            forced_eos_token_id=None,
            **SPECIAL,
        )
    )


ARCHITECTURES = {"llama": _llama, "gpt2": _gpt2, "t5": _t5, "bart": _bart}


@cache
def model_of(name: str) -> PreTrainedModel:
    torch.manual_seed(list(ARCHITECTURES).index(name))
    return ARCHITECTURES[name]().eval()


def batch(prompts=PROMPTS, side: str = "left") -> dict[str, torch.Tensor]:
    """The prompts as one padded batch."""
    width = max(map(len, prompts))
    pads = [width - len(row) for row in prompts]
    filled = [
        [PAD] * n + [*row] if side == "left" else [*row] + [PAD] * n for n, row in zip(pads, prompts, strict=True)
    ]
    ones = [[0] * n + [1] * (width - n) if side == "left" else [1] * (width - n) + [0] * n for n in pads]
    return {"input_ids": torch.tensor(filled), "attention_mask": torch.tensor(ones)}


def expected(model: PreTrainedModel, n_new: int, inputs=None, **options) -> torch.Tensor:
    """The new tokens of `transformers.generate()`, filled up with padding to `n_new` columns."""
    inputs = batch() if inputs is None else inputs
    ids = model.generate(**inputs, max_new_tokens=n_new, **{"do_sample": False, **options})
    new = ids[:, 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1] :]
    return torch.nn.functional.pad(new, (0, n_new - new.shape[1]), value=PAD)
