"""Small language models for tests: toy vocabularies with a tokenizer, and tiny random models of `transformers`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from outlines_core import Vocabulary
from processors.lm.backend import MockBackend
from processors.lm.causal import CachedCausalLM


class ToyTokenizer:
    """Greedy longest match over a vocabulary's tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = {token.decode(): ids[0] for token, ids in vocabulary.items()}
        self._tokens = {i: token.decode() for token, ids in vocabulary.items() for i in ids}
        self._tokens |= {i: name for name, i in vocabulary.special_tokens.items()}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = []
        while text:
            token = max((t for t in self._ids if text.startswith(t)), key=len)
            ids.append(self._ids[token])
            text = text[len(token) :]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self._tokens[i] for i in ids)


def toy_lm(tokens: Mapping[str, int], eos: int, logits=None, *, seed: int = 0, n_logits: int | None = None, **options):
    """A mock model over `tokens` and an EOS token named "</s>"."""
    vocabulary = Vocabulary(eos, {token: [i] for token, i in tokens.items()}, special_tokens={"</s>": eos})
    backend = MockBackend(n_logits or vocabulary.size, logits, seed=seed)
    return CachedCausalLM(backend, ToyTokenizer(vocabulary), vocabulary, **options)


def tiny_model(kind: str, seed: int = 0):
    """A random model of 3 layers and 61 ids, in eval mode."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    common = {"vocab_size": 61, "bos_token_id": 0, "eos_token_id": 1}
    llama = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
    }
    configs = {
        "llama": ("llama", llama),
        "sliding": ("mistral", {**llama, "sliding_window": 5}),
        "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
        "bloom": ("bloom", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
        "opt": (
            "opt",
            {
                "hidden_size": 32,
                "ffn_dim": 48,
                "word_embed_proj_dim": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "max_position_embeddings": 64,
            },
        ),
        "gemma3": (
            "gemma3_text",
            {**llama, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        ),
        "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    }
    name, options = configs[kind]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**common, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)  # far from uniform, so that a wrong past shows
    return model.eval()
