"""All node weights of a trie at once: for numpy arrays by one pass over the nodes, for torch tensors by segments.

A token weighs at every node that it passes. Those of the mask trie are passed by a kernel, from the last node to the
first; where other nodes are concerned (names of special tokens, the end of the text), (node, token) pairs say so.
In torch, the tokens below each node are laid out one node after another, and each of these segments is summed: no
atomic additions, so that equal rows give equal sums on every run.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outlines_core.trie import TokenTrie

__all__ = ["NodeWeights"]


class NodeWeights:
    """Sums and maxima in one mode of a `TokenByteTrie`.

    Args:
        text: the mask trie, nodes 0 .. n - 1.   order, first: its tokens, as `kernels.masses` has them.
        beside: (node, token) pairs, (k, 2), for all weight that the tokens in `order` do not bring.
        size: width of a row.   n_nodes: number of all nodes; the last is the root.
    """

    def __init__(
        self,
        text: TokenTrie,
        order: NDArray[np.int32],
        first: NDArray[np.int32],
        beside: NDArray[np.int64],
        size: int,
        n_nodes: int,
    ) -> None:
        self._text, self._order, self._first = text, order, first
        self._nodes, self._ids = np.ascontiguousarray(beside.T)
        self._size, self._n_nodes = size, n_nodes

    def reduced(self, ws: Any, how: Literal["sum", "max"]) -> Any:
        """(n_rows, n_nodes) from (n_rows, any width) weights, or a list of rows; nodes without tokens are 0 or -inf.

        Raises:
            ValueError: a single row.
        """
        if isinstance(ws, (list, tuple)) and ws and hasattr(ws[0], "new_zeros"):
            import torch

            ws = torch.stack(list(ws))
        if hasattr(ws, "new_zeros"):
            return self._by_torch(ws, how)
        from outlines_core.kernels.masses import node_maxima, node_sums

        rows = np.asarray(ws)
        if rows.ndim != 2:
            raise ValueError(f"weights are a row for each distribution, not an array of shape {rows.shape}")
        dtype = np.float32 if rows.dtype == np.float32 else np.float64
        nothing, kernel = (0.0, node_sums) if how == "sum" else (-np.inf, node_maxima)
        gather: Any = np.add.at if how == "sum" else np.maximum.at
        padded = np.full((len(rows), self._size + 1), nothing, dtype=dtype)
        padded[:, : min(rows.shape[1], self._size)] = rows[:, : self._size]
        out = np.full((len(rows), self._n_nodes), nothing, dtype=dtype)
        own, same = self._own
        beside = padded[:, self._ids]
        gather(padded, (slice(None), same[:, 0]), padded[:, same[:, 1]])
        kernel(padded, self._text.info, own, np.empty(self._text.max_depth + 2), out)
        gather(out, (slice(None), self._nodes), beside)
        return out

    @cached_property
    def _own(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """For each node of the mask trie the first token that ends there, or `size`; (that token, another) pairs."""
        counts = np.diff(self._first)
        own = np.full(len(counts), self._size, dtype=np.int32)
        some = np.flatnonzero(counts)
        own[some] = self._order[self._first[some]]
        own.setflags(write=False)
        firsts = np.repeat(own[some], counts[some])
        pairs = np.stack([firsts, self._order], axis=1).astype(np.int64)
        return own, pairs[firsts != self._order]

    @cached_property
    def _segments(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(ids, lengths): the ids of all tokens below each node, node after node."""
        starts = self._first[:-1].astype(np.int64)
        spans = self._first[self._text.end] - starts
        within = np.arange(spans.sum()) + np.repeat(starts - (np.cumsum(spans) - spans), spans)
        at_root = np.full(len(self._order), self._n_nodes - 1)
        nodes = np.concatenate([np.repeat(np.arange(len(spans)), spans), self._nodes, at_root])
        ids = np.concatenate([self._order[within], self._ids, self._order]).astype(np.int64)
        return ids[np.argsort(nodes, kind="stable")], np.bincount(nodes, minlength=self._n_nodes)

    def _by_torch(self, ws: Any, how: str) -> Any:
        """On the device of the weights."""
        import torch

        if ws.ndim != 2:
            raise ValueError(f"weights are a row for each distribution, not a tensor of shape {tuple(ws.shape)}")
        ids, lengths = (torch.from_numpy(x).to(ws.device) for x in self._segments)
        rows = ws if ws.dtype in (torch.float32, torch.float64) else ws.float()
        nothing = 0.0 if how == "sum" else -torch.inf
        if rows.shape[1] < self._size:
            rows = torch.nn.functional.pad(rows, (0, self._size - rows.shape[1]), value=nothing)
        gathered = rows.T[ids].contiguous()  # (pairs, n_rows)
        return torch.segment_reduce(gathered, how, lengths=lengths, axis=0, initial=nothing, unsafe=True).T
