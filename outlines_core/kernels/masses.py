"""Masses of trie nodes: the weight of all tokens that begin with a node's bytes.

In depth-first order the tokens below a node stand in a row: ``order[first[i] : first[end[i]]]``, those that end at the
node itself come first, up to ``first[i + 1]``. So the mass of one node is the sum over a span, and all of them are one
pass from the last node to the first: what is below a node has been summed when the node is reached.

Shapes, all read-only but for the outputs:
    info   (n,) int32 byte | depth << 8      end  (n,) int32 as in `TokenTrie`
    order  (n_tokens,) int32 token ids       first  (n + 1,) int32
    row    (n_ids,) float32 log-weights; -inf: impossible
A node's children lie in [begin, stop): (i + 1, end[i]), or (0, n) for the root.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["child_masses", "find_child", "node_maxima", "node_sums", "step_down"]

_TINY = 1e-30
"""Sums of float32 exponentials below this may have lost something to underflow."""


@njit(cache=True, nogil=True)
def node_sums(weights, info, own, open_sums, out):  # type: ignore[no-untyped-def]
    """Sum the weights below every node, for each row.

    weights    (n_rows, n_ids + 1) float32 or float64; the last column is 0
    own        (n,) int32 the token that ends at a node, or n_ids (a branch would be mispredicted half of the time)
    open_sums  (max_depth + 2,) float64 scratch
    out        (n_rows, n + more) of the weights' dtype; the first n columns and the last, for the root, are written
    """
    for row in range(weights.shape[0]):
        open_sums[:] = 0.0
        for node in range(info.shape[0] - 1, -1, -1):
            depth = info[node] >> 8
            total = open_sums[depth + 1] + weights[row, own[node]]  # the children, which come later, are done
            open_sums[depth + 1] = 0.0
            out[row, node] = total
            open_sums[depth] += total
        out[row, -1] = open_sums[1]


@njit(cache=True, nogil=True)
def node_maxima(weights, info, own, open_maxima, out):  # type: ignore[no-untyped-def]
    """The largest weight below every node, -inf where there is none.  Arguments as for `node_sums`, but for -inf."""
    for row in range(weights.shape[0]):
        open_maxima[:] = -np.inf
        for node in range(info.shape[0] - 1, -1, -1):
            depth = info[node] >> 8
            largest = max(open_maxima[depth + 1], weights[row, own[node]])
            open_maxima[depth + 1] = -np.inf
            out[row, node] = largest
            open_maxima[depth] = max(open_maxima[depth], largest)
        out[row, -1] = open_maxima[1]


@njit(cache=True, nogil=True)
def _log_sum(row, order, a, b):  # type: ignore[no-untyped-def]
    """log(sum(exp(row[order[a:b]]))) in float64; -inf for nothing."""
    top = -np.inf
    for k in range(a, b):
        top = max(top, row[order[k]])
    if top == -np.inf:
        return top
    total = 0.0
    for k in range(a, b):
        total += math.exp(row[order[k]] - top)
    return top + math.log(total)


@njit(cache=True, nogil=True)
def find_child(info, end, begin, stop, byte):  # type: ignore[no-untyped-def]
    """The child for `byte`, or -1."""
    node = begin
    while node < stop:
        here = info[node] & 255
        if here >= byte:
            return node if here == byte else -1
        node = end[node]
    return -1


@njit(cache=True, nogil=True)
def step_down(row, info, end, first, order, begin, stop, byte):  # type: ignore[no-untyped-def]
    """(child for `byte` or -1, its log-mass)."""
    node = find_child(info, end, begin, stop, byte)
    if node < 0:
        return node, -np.inf
    return node, _log_sum(row, order, first[node], first[end[node]])


@njit(cache=True, nogil=True)
def child_masses(row, linear, info, end, first, order, begin, stop, out_nodes, out_masses):  # type: ignore[no-untyped-def]
    """Every child of a node and its log-mass, by byte.

    linear      (n_ids,) float32 ``exp(row)``, or (0,): then each exponential is computed here, in float64
    out_nodes   (256,) int32, overwritten; -1 where there is no child
    out_masses  (256,) float64, overwritten; -inf where there is none
    """
    out_nodes[:] = -1
    out_masses[:] = -np.inf
    node = begin
    while node < stop:
        byte = info[node] & 255
        a, b = first[node], first[end[node]]
        out_nodes[byte] = node
        total = 0.0
        if linear.shape[0] > 0:
            for k in range(a, b):
                total += linear[order[k]]
        out_masses[byte] = math.log(total) if total > _TINY else _log_sum(row, order, a, b)
        node = end[node]
