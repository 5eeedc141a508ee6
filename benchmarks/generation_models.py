"""The models that the benchmarks of generation run, each with its vocabulary."""

from __future__ import annotations

from typing import Any

__all__ = ["embedded", "llama"]


def embedded() -> tuple[Any, Any]:
    from processors import load_embedded, vocabulary_from

    model, tokenizer = load_embedded()
    return model, vocabulary_from(tokenizer)


def llama(directory: str) -> tuple[Any, Any]:
    """Four layers x 256 of random weights over the vocabulary of a real tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from processors import vocabulary_from

    vocabulary = vocabulary_from(AutoTokenizer.from_pretrained(directory))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval(), vocabulary
