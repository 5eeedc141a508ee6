"""One new token a row through a plain Llama, without its modules: on a CPU, half of a small model's time is Python.

The layers' arithmetic is written out with the fused operators of torch; embedding, rotary table, last norm and head are
the model's own. Before each call every module is looked at: one of another class (quantised, with an adapter), with a
hook, or with a `forward` put upon it, and the model's own `forward` runs instead. Weights are looked up at each call,
so they may be replaced at any time. The twin is the model: both give the same logits up to float32 rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama as llama

from processors.lm.pool import PooledCache

__all__ = ["decode"]

_SILU = (nn.SiLU, SiLUActivation)
_LAYER = (
    ("input_layernorm", llama.LlamaRMSNorm),
    ("post_attention_layernorm", llama.LlamaRMSNorm),
    ("self_attn", llama.LlamaAttention),
    ("mlp", llama.LlamaMLP),
)
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


class _Layer(NamedTuple):
    first_norm: Any
    second_norm: Any
    attention: Any
    linear: list[tuple[Any, Any]]
    """Weight and bias of `_ATTENTION` and `_MLP`."""


def decode(model: Any, ids: Tensor, positions: Tensor, cache: PooledCache, mask: Tensor | None) -> Tensor | None:
    """The logits after one new token a row, which is written to the cache; None if the model is no plain Llama.

    Args:
        ids, positions: (B, 1).   mask: (B, L) int64, 0 for padding; None for none.

    Returns:
        (B, 1, n_logits).
    """
    layers = _layers(model)
    if layers is None:
        return None
    x = model.model.embed_tokens(ids[:, 0])
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return None
    cos, sin = model.model.rotary_emb(x, position_ids=positions)
    allowed = None if mask is None else (mask > 0)[:, None, None, :]
    n = len(x)
    for k, layer in enumerate(layers):
        (q, k_, v, o), (gate, up, down) = layer.linear[:4], layer.linear[4:]
        dim = layer.attention.head_dim
        y = F.rms_norm(x, x.shape[1:], layer.first_norm.weight, layer.first_norm.variance_epsilon)
        queries = F.linear(y, *q)
        turned = torch.cat([queries, F.linear(y, *k_)], dim=-1).view(n, -1, dim)
        half = torch.cat([-turned[..., dim // 2 :], turned[..., : dim // 2]], dim=-1)
        turned = (turned * cos).addcmul_(half, sin)
        heads = queries.shape[1] // dim
        keys, values = cache.exchange(k, turned[:, heads:, None], F.linear(y, *v).view(n, -1, 1, dim))
        attended = F.scaled_dot_product_attention(
            turned[:, :heads, None],
            keys,
            values,
            attn_mask=allowed,
            scale=layer.attention.scaling,
            enable_gqa=heads != keys.shape[1],
        )
        x = x + F.linear(attended.reshape(n, -1), *o)
        y = F.rms_norm(x, x.shape[1:], layer.second_norm.weight, layer.second_norm.variance_epsilon)
        x = x + F.linear(F.silu(F.linear(y, *gate)).mul_(F.linear(y, *up)), *down)
    logits: Tensor = model.lm_head(model.model.norm(x))
    return logits[:, None]


def _layers(model: Any) -> list[_Layer] | None:
    """What the layers hold, if nothing about them is out of the ordinary."""
    if not (_plain(model, llama.LlamaForCausalLM) and _plain(model.model, llama.LlamaModel)):
        return None
    config = model.config
    layers = model.model.layers
    if hooks._global_forward_hooks or hooks._global_forward_pre_hooks or config._attn_implementation != "sdpa":
        return None
    if len(layers) != config.num_hidden_layers or type(layers) is not nn.ModuleList or model.training:
        return None
    found = []
    for layer in layers:
        if not _plain(layer, llama.LlamaDecoderLayer):
            return None
        parts: dict[str, Any] = layer._modules
        if not all(_plain(parts[name], kind) for name, kind in _LAYER):
            return None
        attention, mlp = parts["self_attn"], parts["mlp"]
        linear: list[Any] = [attention._modules[name] for name in _ATTENTION] + [mlp._modules[name] for name in _MLP]
        if not (all(_plain(part, nn.Linear) for part in linear) and _plain(mlp._modules["act_fn"], *_SILU)):
            return None
        weights = [(part._parameters["weight"], part._parameters["bias"]) for part in linear]
        found.append(_Layer(parts["input_layernorm"], parts["post_attention_layernorm"], attention, weights))
    return found


def _plain(module: Any, *kinds: type) -> bool:
    return (
        type(module) in kinds
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and "forward" not in module.__dict__
    )
