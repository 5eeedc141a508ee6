"""What a user gives a generation loop -> rows of one length, padded on the left, and what the model needs beside them.

Padding may stand on either side. A row that ends with padding is rolled to the right, so that in every row the last
column is the last token and the next token has the next column. A row of nothing but padding fills up a batch: it is
finished before it begins, whatever its ids are.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from processors.generation.config import GenerationConfig

__all__ = ["Prompts", "forward_parameters", "inner", "prepare"]


class Prompts(NamedTuple):
    """The rows before the first token.

    Attributes:
        ids: (n_rows, n) int64: prompts, or what the decoder begins with.
        mask: (n_rows, n) bool: which of them are no padding.
        kwargs: what the model's forward is given beside the ids.
        filler: (n_rows,) bool: rows that fill up the batch.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    kwargs: dict[str, Any]
    filler: torch.Tensor


def inner(model: Any) -> Any:
    """The model that `torch.compile` has wrapped, or the model itself."""
    return getattr(model, "_orig_mod", model)


def forward_parameters(model: Any) -> set[str]:
    """The names that the model's forward takes."""
    return set(inspect.signature(inner(model).forward).parameters)


def prepare(model: Any, config: GenerationConfig, inputs: Mapping[str, Any]) -> Prompts:
    """Bring the inputs into form; an encoder is run here, once.

    Args:
        inputs: "input_ids" or what else the model's main input is called, "attention_mask" and others by the names that
            the model's forward takes, without "seed".

    Raises:
        ValueError: inputs that are missing or do not fit together.
    """
    given = {name: _tensor(value, model.device) for name, value in inputs.items() if value is not None}
    parameters = forward_parameters(model)
    prompts = _encoder_decoder(model, config, given) if model.config.is_encoder_decoder else _causal(given, parameters)
    if "logits_to_keep" in parameters:
        prompts.kwargs.setdefault("logits_to_keep", 1)
    return prompts


def _tensor(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)) or type(value).__module__ == "numpy":
        return torch.as_tensor(value, device=device)
    return value


def _causal(given: dict[str, Any], parameters: set[str]) -> Prompts:
    ids = given.pop("input_ids", None)
    if ids is None:
        raise ValueError("input_ids are missing")
    mask = given.pop("attention_mask", None)
    ids, mask, kwargs, filler = _rows("input_ids", ids, mask, given)
    if "position_ids" in parameters and "position_ids" not in kwargs:
        kwargs["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0).masked_fill(~mask, 0)
    if "attention_mask" in parameters:  # none where there is no padding: attention is faster without
        kwargs["attention_mask"] = None if bool(mask.all()) else mask.long()
    elif not bool(mask.all()):
        raise ValueError("the model takes no attention mask: prompts cannot be padded")
    return Prompts(ids, mask, kwargs, filler)


def _rows(
    name: str, ids: torch.Tensor, mask: torch.Tensor | None, beside: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any], torch.Tensor]:
    """Check ids and mask and roll what stands on the left to the right, other inputs of the same shape with them."""
    if ids.ndim != 2 or not ids.shape[1] or ids.dtype.is_floating_point:
        raise ValueError(f"{name} must be two-dimensional integers with at least one column, not {tuple(ids.shape)}")
    if mask is None:
        mask = torch.ones_like(ids)
    if mask.shape != ids.shape:
        raise ValueError(f"the attention mask of {name} has the shape {tuple(mask.shape)}, not {tuple(ids.shape)}")
    ids, mask = ids.long(), mask != 0
    filler = ~mask.any(1)
    mask = mask.clone()
    mask[filler, -1] = True  # attention to nothing has no value
    n = ids.shape[1]
    behind = n - 1 - (mask * torch.arange(n, device=ids.device)).amax(1)  # columns of padding on the right
    if behind.any():
        order = (torch.arange(n, device=ids.device)[None] - behind[:, None]) % n
        ids, mask = ids.gather(1, order), mask.gather(1, order)
        rows = torch.arange(ids.shape[0], device=ids.device)[:, None]
        beside = {
            key: value[rows, order] if isinstance(value, torch.Tensor) and value.shape[:2] == ids.shape else value
            for key, value in beside.items()
        }
    return ids, mask, dict(beside), filler


def _encoder_decoder(model: Any, config: GenerationConfig, given: dict[str, Any]) -> Prompts:
    encoder = model.get_encoder()
    name = getattr(encoder, "main_input_name", None) or model.main_input_name
    decoder_ids, decoder_mask = given.pop("decoder_input_ids", None), given.pop("decoder_attention_mask", None)
    encoded = given.get("encoder_outputs")
    if encoded is None and name not in given:
        raise ValueError(f"{name} (or encoder_outputs) is missing")
    n_rows = (given[name] if encoded is None else encoded[0]).shape[0]
    attention = given.get("attention_mask")
    filler = torch.zeros(n_rows, dtype=torch.bool, device=model.device)
    if attention is not None:
        if attention.shape[0] != n_rows:
            raise ValueError(f"the attention mask has {attention.shape[0]} rows, {name} has {n_rows}")
        filler = ~(attention != 0).any(1)
        given["attention_mask"] = attention.masked_fill(filler[:, None], 1)
    if encoded is None:
        accepted = set(inspect.signature(encoder.forward).parameters)
        own = {key: value for key, value in given.items() if not key.startswith(("decoder_", "cross_attn"))}
        if "kwargs" not in accepted:
            own = {key: value for key, value in own.items() if key in accepted}
        encoded = encoder(**{**own, "return_dict": True})
    kwargs = {key: value for key, value in given.items() if key != name}
    kwargs["encoder_outputs"] = encoded
    if decoder_ids is None:
        start = config.decoder_start_token_id
        start = config.bos_token_id if start is None else start
        if start is None:
            raise ValueError("an encoder-decoder model needs decoder_start_token_id (or bos_token_id) in the config")
        decoder_ids = torch.full((n_rows, 1), start, device=model.device)
    if decoder_ids.shape[0] != n_rows:
        raise ValueError(f"decoder_input_ids has {decoder_ids.shape[0]} rows, {name} has {n_rows}")
    ids, mask, _, _ = _rows("decoder_input_ids", decoder_ids, decoder_mask, {})
    if not bool(mask.all()):
        kwargs["decoder_attention_mask"] = mask.long()
    return Prompts(ids, mask, kwargs, filler)
