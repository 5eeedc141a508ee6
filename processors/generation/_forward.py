"""Forward passes of a model over a `KeyValues`: the one place that knows how models of `transformers` are called.

A compiled model (`torch.compile(model)`, `model.compile()`, or ``model.forward = torch.compile(model.forward)``) gets a
cache of fixed width, masks made outside of the compiled region, and prompts in buckets, so that all its decoding steps
have one shape. Where its cache allows no fixed width, it is called with growing shapes instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers.masking_utils import create_masks_for_generate

from outlines_core.errors import UnsupportedFeatureError
from processors.generation.kv_cache import CacheKind, KeyValues

__all__ = ["Forward"]


class Forward:
    """A model with its weights, ready to be fed.

    Attributes:
        kind: what its cache can do.
        is_compiled: does it want shapes that never change?
        device: where its inputs go.
    """

    def __init__(self, model: Any, params: Mapping[str, torch.Tensor] | None = None) -> None:
        """See `Sampler` for the arguments."""
        plain = getattr(model, "_orig_mod", model)  # what torch.compile wraps
        self.model, self.params = model, params
        self.plain = plain
        if getattr(plain, "get_rope_index", None) is not None:
            raise UnsupportedFeatureError(
                f"{type(plain).__name__} numbers positions in several dimensions and keeps part of them in itself, "
                "not in the cache",
                feature="multi-dimensional positions",
            )
        self.kind = CacheKind(plain)
        compiled = model is not plain or getattr(plain, "_compiled_call_impl", None) is not None
        compiled = compiled or hasattr(plain.forward, "_torchdynamo_orig_callable")
        self.is_compiled = compiled and self.kind.is_columnar
        self.device: torch.device = plain.device

    def new(self, n_rows: int, room: int) -> KeyValues:
        """An empty cache for this model."""
        return KeyValues(self.kind, n_rows, room, self.device, fixed=self.is_compiled)

    @torch.no_grad()
    def feed(
        self,
        past: KeyValues,
        ids: torch.Tensor,
        valid: torch.Tensor | None = None,
        *,
        columns: torch.Tensor | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> torch.Tensor:
        """Append tokens, and compute the logits that follow them.

        Args:
            past: grows by the columns of `ids`.
            ids: (n_rows, n) int64.   valid: (n_rows, n) bool, None if all are tokens.
            columns: ascending indices of the columns whose logits are asked for; default: the last.
            extra: further inputs, such as pixel values.

        Returns:
            (n_rows, number of columns asked for, n_columns) in the model's dtype.
        """
        n = ids.shape[1]
        positions = past.append(ids, valid)
        inputs: dict[str, Any] = {"input_ids": ids, "past_key_values": past.cache, "use_cache": True}
        if self.kind.takes_positions:
            inputs["position_ids"] = positions
        if past.fixed:
            inputs["attention_mask"] = create_masks_for_generate(
                config=self.kind.config,
                inputs_embeds=torch.empty((*ids.shape, 0), dtype=self.plain.dtype, device=ids.device),
                attention_mask=past.valid,
                past_key_values=past.cache,
                position_ids=positions,
            )
        elif not past.is_plain:
            inputs["attention_mask"] = past.valid
        if self.kind.takes_logits_to_keep:
            inputs["logits_to_keep"] = 1 if columns is None else columns
        if extra:
            inputs.update(extra)
        if self.params is not None:
            logits = torch.func.functional_call(self.model, dict(self.params), (), inputs).logits
        else:
            if self.is_compiled and self.device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()
            logits = self.model(**inputs).logits
        if not self.kind.takes_logits_to_keep:
            logits = logits[:, [n - 1]] if columns is None else logits[:, columns]
        result: torch.Tensor = logits
        return result
