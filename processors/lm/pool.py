"""A pool of keys and values per layer, and the cache that a forward of `transformers` sees.

Within a layer, the new keys and values of a batch are written to the pool, and then whole rows are gathered from it. So
a row may have slots in its past that another row of the same batch fills.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from outlines_core.errors import UnsupportedFeatureError

__all__ = ["Columns", "Pool", "PooledCache", "Probe"]


class Columns(NamedTuple):
    """Where a batch lies in the pool.  All on one device.

    slots: (B * L,) slot of each column, row by row.   rows: (N,) which of the B * Q new tokens are written, or None
    for all; into: (N,) their slots.
    """

    slots: torch.Tensor
    rows: torch.Tensor | None
    into: torch.Tensor


class Pool:
    """Keys and values of one layer, (n_slots, n_heads, dim) each; slot 0 is zero for ever."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = (torch.zeros_like(x[0].transpose(0, 1)[:0]) for x in (keys, values))

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    @property
    def bytes_per_slot(self) -> int:
        return sum(math.prod(x.shape[1:]) * x.element_size() for x in (self.keys, self.values))

    def reach(self, n: int, limit: int) -> None:
        """Make room for slots 0 .. n - 1, doubling."""
        have = len(self.keys)
        if n > have:
            grown = min(max(n, 2 * have, 256), limit)
            self.keys, self.values = (
                torch.cat([x, x.new_zeros((grown - have, *x.shape[1:]))]) for x in (self.keys, self.values)
            )


class PooledLayer(CacheLayerMixin):
    """A layer of the cache that a forward sees: writes into the pool, answers with whole rows."""

    is_sliding = False
    is_croppable = False

    def __init__(self, batch: PooledCache, index: int) -> None:
        super().__init__()
        self._batch, self._index = batch, index

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        del args, kwargs  # rotary tables of older signatures
        return self._batch.exchange(self._index, key_states, value_states)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the pool is there."""

    def get_seq_length(self) -> int:
        return self._batch.n_before

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._batch.n_before + query_length, 0

    def get_max_length(self) -> int:
        return -1


class PooledCache(Cache):
    """What a forward takes for its `past_key_values`.

    Args:
        pools: of every layer.   columns: by device.   n_before: columns before the first of the new ones.
    """

    def __init__(self, pools: list[Pool], columns: Columns, n_before: int) -> None:
        super().__init__(layers=[PooledLayer(self, i) for i in range(max(1, len(pools)))])
        self.pools, self.n_before = pools, n_before
        self._columns = {columns.slots.device: columns}
        self._home = columns

    def _on(self, device: torch.device) -> Columns:
        if device not in self._columns:
            slots, rows, into = self._home
            self._columns[device] = Columns(
                slots.to(device), None if rows is None else rows.to(device), into.to(device)
            )
        return self._columns[device]

    def exchange(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values, (B, heads, Q, dim); return those of all columns, (B, heads, L, dim)."""
        columns, pool = self._on(keys.device), self.pools[layer]
        whole = []
        for pooled, new in ((pool.keys, keys), (pool.values, values)):
            flat = new.transpose(1, 2).reshape(-1, new.shape[1], new.shape[3])
            pooled.index_copy_(0, columns.into, flat if columns.rows is None else flat[columns.rows])
            gathered = pooled.index_select(0, columns.slots)
            whole.append(gathered.view(new.shape[0], -1, *gathered.shape[1:]).transpose(1, 2))
        return whole[0], whole[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        del layer_idx
        return self.n_before

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        del layer_idx
        return self.n_before + query_length, 0

    def update_indexer(self, indexer_key_states: torch.Tensor, layer_idx: int) -> torch.Tensor:
        del indexer_key_states, layer_idx
        raise UnsupportedFeatureError("sparse attention with an index of its own is not kept", feature="indexer cache")


class Probe(PooledCache):
    """The cache of a first forward of one token, which finds out what the layers keep."""

    def __init__(self, device: torch.device) -> None:
        nothing = torch.zeros(0, dtype=torch.int64, device=device)
        super().__init__([], Columns(nothing, nothing, nothing), 0)
        self.found: dict[int, Pool] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        del args, kwargs
        self.found[layer_idx] = Pool(key_states, value_states)
        return key_states, value_states
