"""Build the flat trie of sorted tokens: each token adds the nodes beyond its common prefix with the one before."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["build_trie", "children"]


@njit(cache=True, nogil=True)
def build_trie(data, starts, ids):  # type: ignore[no-untyped-def]
    """Depth-first arrays of the trie of `data[starts[k]:starts[k + 1]]`, k ascending in byte order.

    data    (n_bytes,) uint8     starts  (n_tokens + 1,) int64     ids  (n_tokens,) int32
    Returns info, end, token, duplicates as `TokenTrie` describes them.
    """
    n_tokens = starts.shape[0] - 1
    n_nodes = 0
    n_duplicates = 0
    max_length = 0
    for k in range(n_tokens):  # count, then fill
        length = starts[k + 1] - starts[k]
        max_length = max(max_length, length)
        common = 0
        if k > 0:
            most = min(length, starts[k] - starts[k - 1])
            while common < most and data[starts[k] + common] == data[starts[k - 1] + common]:
                common += 1
            if common == length:
                n_duplicates += 1
        n_nodes += length - common
    info = np.empty(n_nodes, dtype=np.int32)
    end = np.empty(n_nodes, dtype=np.int32)
    token = np.full(n_nodes, -1, dtype=np.int32)
    duplicates = np.empty((n_duplicates, 2), dtype=np.int32)
    open_nodes = np.empty(max_length + 1, dtype=np.int64)
    n_open = 0
    at = 0
    duplicate = 0
    for k in range(n_tokens):
        length = starts[k + 1] - starts[k]
        common = 0
        if k > 0:
            most = min(length, starts[k] - starts[k - 1])
            while common < most and data[starts[k] + common] == data[starts[k - 1] + common]:
                common += 1
            if common == length:
                duplicates[duplicate, 0] = token[open_nodes[length - 1]]
                duplicates[duplicate, 1] = ids[k]
                duplicate += 1
                continue
        while n_open > common:
            n_open -= 1
            end[open_nodes[n_open]] = at
        for depth in range(common, length):
            info[at] = np.int32(data[starts[k] + depth]) | np.int32((depth + 1) << 8)
            open_nodes[n_open] = at
            n_open += 1
            at += 1
        token[at - 1] = ids[k]
    while n_open > 0:
        n_open -= 1
        end[open_nodes[n_open]] = at
    return info, end, token, duplicates


@njit(cache=True, nogil=True)
def children(info, end, out_below, out_bytes, out_nodes):  # type: ignore[no-untyped-def]
    """What is below each node: entries out_below[n + 1]..out_below[n + 2] of the others, ascending; the root's first.

    out_below  (n_nodes + 2,) int32     out_bytes  (n_nodes,) uint8     out_nodes  (n_nodes,) int32
    """
    at = np.int64(0)
    for parent in range(-1, info.shape[0]):
        out_below[parent + 1] = at
        node = np.int64(parent) + 1
        stop = np.int64(end[parent]) if parent >= 0 else np.int64(info.shape[0])
        while node < stop:
            out_bytes[at] = info[node] & 255
            out_nodes[at] = node
            at += 1
            node = np.int64(end[node])
    out_below[info.shape[0] + 1] = at
