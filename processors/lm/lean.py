"""One new token a row through a plain Llama, without its modules: on a CPU, half of a small model's time is Python.

The layers' arithmetic is written out with the fused operators of torch; embedding, rotary table, last norm and head are
the model's own. Before each call every module is looked at: one of another class (quantised, with an adapter), with a
hook, or with a `forward` put upon it, and the model's own `forward` runs instead. Projections that read the same input
are one product, with small weights: copies of them, one below the other, which are made again where a weight is another
one or was changed in place, and forgotten with all else that depends on weights (`forget`). The twin is the model: both
give the same logits up to float32 rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama as llama

from processors.lm.pool import PooledCache

__all__ = ["decode", "forget"]

_SILU = (nn.SiLU, SiLUActivation)
_LAYER = (
    ("input_layernorm", llama.LlamaRMSNorm),
    ("post_attention_layernorm", llama.LlamaRMSNorm),
    ("self_attn", llama.LlamaAttention),
    ("mlp", llama.LlamaMLP),
)
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_SMALL: Final = 1 << 20  # numbers: with more, it is the product that takes the time, and not the call
_together: WeakKeyDictionary[nn.Module, tuple[list[tuple[int, int]], Tensor]] = WeakKeyDictionary()


class _Layer(NamedTuple):
    first_norm: Any
    second_norm: Any
    attention: Any
    mlp: Any
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
        projected = _projected(layer.attention, y, (q, k_, v))
        heads, n_keys = len(q[0]) // dim, len(q[0]) + len(k_[0])
        turned = projected[:, :n_keys].view(n, -1, dim)
        half = torch.cat([-turned[..., dim // 2 :], turned[..., : dim // 2]], dim=-1)
        turned = (turned * cos).addcmul_(half, sin)
        keys, values = cache.exchange(k, turned[:, heads:, None], projected[:, n_keys:].view(n, -1, 1, dim))
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
        projected = _projected(layer.mlp, y, (gate, up))
        width = len(gate[0])
        x = x + F.linear(F.silu(projected[:, :width]).mul_(projected[:, width:]), *down)
    logits: Tensor = model.lm_head(model.model.norm(x))
    return logits[:, None]


def forget() -> None:
    """Forget what was copied of weights."""
    _together.clear()


def _projected(owner: nn.Module, x: Tensor, parts: Sequence[tuple[Any, Any]]) -> Tensor:
    """What several linear layers of a module make of `x`, side by side."""
    weights = [weight for weight, _ in parts]
    if (
        sum(weight.numel() for weight in weights) > _SMALL
        or any(bias is not None for _, bias in parts)
        or any(weight.is_inference() for weight in weights)  # which do not know whether they were changed
    ):
        return torch.cat([F.linear(x, *part) for part in parts], dim=-1)
    made_of = [(weight.data_ptr(), weight._version) for weight in weights]
    known = _together.get(owner)
    if known is None or known[0] != made_of:
        known = _together[owner] = made_of, torch.cat([weight.detach() for weight in weights])
    return F.linear(x, known[1])


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
        found.append(_Layer(parts["input_layernorm"], parts["post_attention_layernorm"], attention, mlp, weights))
    return found


def _plain(module: Any, *kinds: type) -> bool:
    return (
        type(module) in kinds
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and "forward" not in module.__dict__
    )
