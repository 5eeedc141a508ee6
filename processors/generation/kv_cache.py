"""The keys and values of a batch, column by column, and which columns each row really has.

A forward pass appends as many columns as its widest row has tokens. Rows with fewer get *holes*: columns that are
computed and never attended to. Holes arise from left padding, from rows that have ended, from forced tokens and
rejected drafts; `compact` removes them, so that each row's columns are its tokens again, aligned at the right.

`RoomLayer` holds full attention and sliding windows alike: all columns are kept and the model's mask sees to the
window. A window is counted in columns, so models that have one must not get holes inside a row (`allows_holes`). Models
whose cache is of another kind (recurrent states, compressed attention) keep transformers' own, which can only be
appended to (`is_columnar`).
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from outlines_core.errors import UnsupportedFeatureError

__all__ = ["CacheKind", "KeyValues", "RoomLayer"]


class RoomLayer(DynamicLayer):
    """A layer that is written in place and gives views of what is written: no column is copied twice.

    Attributes:
        keys, values: views, (n_rows, n_heads, length, size). Where others are put in their place (rows that were
            selected), `detach_buffers` lets the next update begin with these.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room, self._length = room, 0
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns, (n_rows, n_heads, n_new, size) each, and give back all; the room grows if need be."""
        begin, n = self._length, key_states.shape[2]
        if begin + n > self._room:
            self._buffers, self._room = None, 2 * (begin + n)
        if self._buffers is None:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            old: Any = (self.keys, self.values) if begin else ()
            self._buffers = tuple(  # type: ignore[assignment]
                x.new_empty((*x.shape[:2], self._room, x.shape[3])) for x in (key_states, value_states)
            )
            for buffer, columns in zip(self._buffers or (), old, strict=False):
                buffer[:, :, :begin] = columns
        self._length = begin + n
        keys, values = self._buffers  # type: ignore[misc]
        keys.narrow(2, begin, n).copy_(key_states)  # a third of the time that slices take
        values.narrow(2, begin, n).copy_(value_states)
        self.keys, self.values = keys.narrow(2, 0, self._length), values.narrow(2, 0, self._length)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Columns written."""
        return self._length

    def fill(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Begin with these columns."""
        self._buffers, self._length = None, 0
        self.update(keys, values)

    def detach_buffers(self) -> None:
        """Forget where columns are written; `keys` and `values` stay, or may be set to those of other rows."""
        self._buffers = None

    def truncate(self, length: int) -> None:
        """Forget the columns from `length` on."""
        if self._buffers is not None:
            self._length = length
            self.keys, self.values = (x[:, :, :length] for x in self._buffers)


class FixedLayer(StaticLayer):
    """A layer of fixed width for compiled models."""

    def fill(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Begin with these columns; the tensors stay where they are."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        mine: Any = self.keys, self.values
        for buffer, given in zip(mine, (keys, values), strict=True):
            buffer[:, :, : keys.shape[2]] = given
        self.cumulative_length.fill_(keys.shape[2])

    def truncate(self, length: int) -> None:
        """Forget the columns from `length` on."""
        if self.is_initialized:
            self.cumulative_length.fill_(length)


class CacheKind:
    """What the cache of a model can do; made once a model.

    Attributes:
        is_columnar: columns can be moved and taken back.
        allows_holes: rows may have columns that count for nothing, between others.
        max_positions: tokens that the model has positions for, None if it is not limited.
    """

    def __init__(self, model: Any) -> None:
        """Look at a model.

        Raises:
            UnsupportedFeatureError: a model that keeps no key-value cache, or an encoder-decoder.
        """
        self.config = model.config
        parameters = inspect.signature(model.forward).parameters
        self.takes_positions = "position_ids" in parameters
        self.takes_logits_to_keep = "logits_to_keep" in parameters
        if self.config.is_encoder_decoder or "past_key_values" not in parameters:
            raise UnsupportedFeatureError(
                f"{type(model).__name__} cannot be sampled from: a Sampler needs a decoder with past_key_values "
                "(for encoder-decoder models there is build_generate)",
                feature=type(model).__name__,
            )
        layers = DynamicCache(config=self.config).layers
        self._n_layers = len(layers)
        self.is_columnar = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
        windows = any(type(layer) is DynamicSlidingWindowLayer for layer in layers)
        self.allows_holes = self.is_columnar and not windows and self.takes_positions
        text = self.config.get_text_config(decoder=True)
        most = getattr(text, "max_position_embeddings", None)
        relative = any(getattr(text, name, None) for name in ("rope_parameters", "rope_theta", "rope_scaling", "alibi"))
        self.max_positions: int | None = None if relative or not isinstance(most, int) else most

    def new(self, room: int, *, fixed: bool) -> Cache:
        """An empty cache with room for so many columns; of fixed width if asked."""
        if not self.is_columnar:
            return DynamicCache(config=self.config)
        layer = FixedLayer if fixed else RoomLayer
        return Cache(layers=[layer(room) for _ in range(self._n_layers)])


class KeyValues:
    """A cache with the ids of its columns.

    Attributes:
        ids: (n_rows, room) int64.
        length: columns used.
        is_plain: are all of them tokens of their rows? Then nothing else is kept about them.
    """

    def __init__(self, kind: CacheKind, n_rows: int, room: int, device: torch.device, *, fixed: bool = False) -> None:
        """Room for `room` columns of `n_rows` rows."""
        self.kind, self.room, self.fixed = kind, room, fixed
        self.cache = kind.new(room, fixed=fixed)
        self.ids = torch.zeros((n_rows, room), dtype=torch.int64, device=device)
        self._valid = torch.zeros((0, 0), dtype=torch.bool)
        self._lengths = torch.zeros(0, dtype=torch.int64)
        self.length, self.is_plain = 0, True

    @property
    def valid(self) -> torch.Tensor:
        """(n_rows, length) bool: which columns are tokens of the row."""
        if self.is_plain:
            return torch.ones((self.ids.shape[0], self.length), dtype=torch.bool, device=self.ids.device)
        return self._valid[:, : self.length]

    @property
    def lengths(self) -> torch.Tensor:
        """(n_rows,) int64: tokens of each row."""
        return self._lengths if not self.is_plain else torch.full_like(self.ids[:, 0], self.length)

    def _allow_holes(self) -> None:
        if self.is_plain:
            self._lengths = self.lengths
            self._valid = torch.zeros_like(self.ids, dtype=torch.bool)
            self._valid[:, : self.length] = True
            self.is_plain = False

    def append(self, ids: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """Take note of columns that the model is about to be fed, and return their positions.

        Args:
            ids: (n_rows, n) int64.   valid: (n_rows, n) bool, None if all are.

        Returns:
            (n_rows, n) int64; those of holes mean nothing.
        """
        begin, end = self.length, self.length + ids.shape[1]
        self.ids[:, begin:end] = ids
        if valid is not None:
            self._allow_holes()
        self.length = end
        if self.is_plain:
            return torch.arange(begin, end, device=ids.device).expand(ids.shape[0], -1)
        if valid is None:
            positions = self._lengths[:, None] + torch.arange(end - begin, device=ids.device)
            self._valid[:, begin:end] = True
            self._lengths += end - begin
        else:
            positions = (self._lengths[:, None] + valid.cumsum(1) - 1).clamp_(min=0)
            self._valid[:, begin:end] = valid
            self._lengths += valid.sum(1)
        return positions

    def strike(self, columns: torch.Tensor) -> None:
        """Make used columns holes: (n_rows, n) bool for the last n columns."""
        self._allow_holes()
        tail = self._valid[:, self.length - columns.shape[1] : self.length]
        self._lengths -= (tail & columns).sum(1)
        tail &= ~columns

    def truncate(self, length: int) -> None:
        """Forget the columns from `length` on, for all rows."""
        if length < self.length:
            if not self.is_plain:
                self._lengths -= self._valid[:, length : self.length].sum(1)
                self._valid[:, length : self.length] = False
            self.length = length
            layers: list[Any] = self.cache.layers
            for layer in layers:
                layer.truncate(length)

    def tokens(self) -> list[list[int]]:
        """The tokens of each row."""
        ids, valid = self.ids[:, : self.length].cpu(), self.valid.cpu()
        return [row[mask].tolist() for row, mask in zip(ids, valid, strict=True)]

    def copy(self, room: int, rows: list[int] | None = None, *, fixed: bool | None = None) -> KeyValues:
        """The same without holes, with room for so many columns: each row's tokens aligned at the right.

        Args:
            rows: which rows, in a new order; default: all.

        Raises:
            ValueError: there is too little room.
            UnsupportedFeatureError: there are holes, and the cache is not columnar.
        """
        kept = slice(None) if rows is None else torch.tensor(rows, device=self.ids.device)
        valid = self.valid[kept]
        lengths = self.lengths[kept]
        new = KeyValues(self.kind, valid.shape[0], room, self.ids.device, fixed=self.fixed if fixed is None else fixed)
        length = self.length if self.is_plain else int(lengths.max()) if len(lengths) else 0
        if length > room:
            raise ValueError(f"{length} tokens do not fit into {room} columns")
        order = None
        if not self.is_plain:  # a stable sort puts holes first and leaves tokens in order
            order = valid.to(torch.uint8).sort(dim=1, stable=True).indices[:, valid.shape[1] - length :]
        ids = self.ids[kept, : self.length]
        new.ids[:, :length] = ids if order is None else ids.gather(1, order)
        new.length = length
        if order is not None and int(lengths.min()) < length:
            new._allow_holes()
            new._valid[:, :length] = valid.gather(1, order)
            new._lengths = lengths.clone()
        if not self.kind.is_columnar:
            if rows is not None or order is not None:
                raise UnsupportedFeatureError(
                    f"the cache of {type(self.kind.config).__name__} cannot leave out columns: rows that were padded, "
                    "or that ended at different times, cannot be continued; sample them one by one",
                    feature="cache",
                )
            new.cache = copy.deepcopy(self.cache)
            return new
        pairs: Any = zip(self.cache.layers, new.cache.layers, strict=True)
        for old, layer in pairs:
            if old.is_initialized and length:
                layer.fill(*(_gathered(x[kept, :, : self.length], order) for x in (old.keys, old.values)))
        return new


def _gathered(x: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    """(n_rows, n_heads, n, size) with the columns of each row in a new order."""
    if order is None:
        return x
    return x.gather(2, order[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
