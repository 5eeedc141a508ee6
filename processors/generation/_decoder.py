"""The model's side of one call: forward passes over rows, and rows that are repeated, moved and dropped.

transformers' models prepare their inputs and carry them over to the next step by methods of their own; they are used
here, so that what is special about an architecture stays there. Beside the cache, everything that has a row for each
sequence moves with the rows: masks, positions, the encoder's output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from outlines_core.errors import UnsupportedFeatureError
from processors.generation._inputs import Prompts, forward_parameters, inner
from processors.generation.behaviour import Behaviour

__all__ = ["Decoder", "Step", "with_params"]


class Step(NamedTuple):
    """What a forward pass says.

    Attributes:
        logits: (n_rows, n_columns) float32, of the last column.
        hidden: (n_rows, n, width) float32 of the columns that were computed, if asked for: the last layer's states.
    """

    logits: torch.Tensor
    hidden: torch.Tensor | None


class Decoder:
    """A model with the state of some rows."""

    def __init__(
        self, model: Any, behaviour: Behaviour, prompts: Prompts, *, max_length: int, hidden: bool = False
    ) -> None:
        self._model, self._behaviour, self._hidden = model, behaviour, hidden
        self._n_rows = prompts.ids.shape[0]
        self._kwargs = dict(prompts.kwargs)
        cache = behaviour.init_cache(self._n_rows, max_length, self._kwargs)
        self._kwargs["use_cache"] = self._is_cached = cache is not None
        if cache is not None:
            if "past_key_values" not in forward_parameters(model):
                raise UnsupportedFeatureError(
                    f"{type(inner(model)).__name__} has a cache of its own kind: TransformersSpec(config, cache=None) "
                    "runs it without",
                    feature="cache class",
                )
            self._kwargs["past_key_values"] = cache
        if hidden:
            self._kwargs["output_hidden_states"] = True
        self._is_first = True

    def __call__(self, ids: torch.Tensor) -> Step:
        """Run the model.

        Args:
            ids: (n_rows, n) int64, everything said so far: one column more than in the call before.
        """
        model, is_first = self._model, self._is_first
        new = ids if is_first or not self._is_cached else ids[:, -1:]
        prepared = model.prepare_inputs_for_generation(new, is_first_iteration=is_first, **self._kwargs)
        outputs = model(**prepared, return_dict=True)
        is_encoder_decoder = model.config.is_encoder_decoder
        self._kwargs = model._update_model_kwargs_for_generation(
            outputs, self._kwargs, is_encoder_decoder=is_encoder_decoder
        )
        self._is_first = False
        hidden = None
        if self._hidden:
            layers = outputs.decoder_hidden_states if is_encoder_decoder else outputs.hidden_states
            hidden = layers[-1].float()
        return Step(outputs.logits[:, -1].float(), hidden)

    def select(self, rows: torch.Tensor) -> None:
        """Keep `rows` (n,) int64, in that order; a row may be taken more than once.

        Raises:
            ValueError: an input that has no row a sequence is needed again, because there is no cache.
        """

        def take(value: torch.Tensor) -> torch.Tensor:
            return value.index_select(0, rows.to(value.device))

        cache = self._kwargs.pop("past_key_values", None)
        self._kwargs = {name: self._moved(name, value, take) for name, value in self._kwargs.items()}
        if cache is not None:
            self._kwargs["past_key_values"] = self._behaviour.traverse_cache(cache, take)
        self._n_rows = rows.shape[0]

    def _moved(self, name: str, value: Any, take: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim:
            if value.shape[0] == self._n_rows:
                return take(value)
            if not self._is_cached:
                raise ValueError(f"{name} has {value.shape[0]} rows for {self._n_rows} sequences: they cannot be moved")
            return value  # a cached model has taken in all it wanted of it
        if hasattr(value, "last_hidden_state"):  # of the encoder
            return type(value)(**{key: self._moved(key, part, take) for key, part in value.items()})
        if isinstance(value, tuple):
            return tuple(self._moved(name, part, take) for part in value)
        return value


class _Body(torch.nn.Module):
    """A module whose forward is any code that uses another module."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, body: Callable[[], Any]) -> Any:
        return body()


def with_params(model: torch.nn.Module, params: Any, body: Callable[[], Any]) -> Any:
    """Run `body` with a model that has other weights.

    Args:
        params: names, as in ``model.state_dict()``, and tensors; those that are not named stay. None: its own.

    Raises:
        ValueError: a name that the model does not have.
    """
    if params is None:
        return body()
    model = inner(model)
    names: dict[str, list[str]] = {}  # name -> all names of the same weight
    by_weight: dict[int, list[str]] = {}
    for name, weight in (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)):
        names[name] = by_weight.setdefault(id(weight), [])
        names[name].append(name)
    unknown = sorted(set(params) - set(names))
    if unknown:
        raise ValueError(f"the model has no weights {', '.join(unknown[:5])}" + ", ..." * (len(unknown) > 5))
    given = {f"model.{tied}": value for name, value in params.items() for tied in names[name] if tied not in params}
    given |= {f"model.{name}": value for name, value in params.items()}
    return torch.func.functional_call(_Body(model), given, (body,), tie_weights=False)
