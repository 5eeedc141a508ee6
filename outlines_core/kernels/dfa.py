"""Lazy determinisation of a byte NFA, and the walk of a vocabulary trie over it.

A DFA state is a sorted set of *items* ``node << 16 | d``: the NFA is at character node `node`, of whose UTF-8 DAG
it has come to DAG node `d`. Sets are interned, so equal sets are one state. ``delta[state, byte class]`` holds UNKNOWN
until somebody asks; then `expand` computes the one transition inside the kernel and the walk goes on. Nothing is ever
determinised that no text reaches.

What a kernel cannot do by itself it reports by a status, with enough in `meta` to go on afterwards: FULL (a table
must grow), HOLE (the transition ``meta[M_HOLE_STATE], meta[M_HOLE_CLASS]`` must be filled by the caller, who has the
look-arounds). Kernels that call each other stay in this file (numba's cache does not see edits across files).

    nfa      kind (n,) uint8 · a, b (n,) int32 · targets int32 · useful (n,) uint8 (a text can end from here)
             CHAR: a = DAG root, b = next · SPLIT: targets[a:b] in priority order · ACCEPT · BEGIN, END: b = next
    dag      (n_dag, n_classes) uint16; 0 = no, 1 = the character is complete, else the next DAG node
    delta    (capacity, n_classes) int32     accept (capacity,) uint8
    indptr   (capacity + 1,) int64, pool int64: the items of state s are pool[indptr[s]:indptr[s + 1]]
    table    open addressing, int32 state ids, power of two     hashes (capacity,) int64
    mark     (n_nodes,) int32, generation marks     stack int32     items int64 (scratch)
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from outlines_core.kernels.borrow import as_pointer, trailing_zeros

__all__ = [
    "ACCEPT",
    "BEGIN",
    "CHAR",
    "DONE",
    "END",
    "FULL",
    "HOLE",
    "LANES",
    "LOOK",
    "META_SIZE",
    "M_GENERATION",
    "M_HOLE_CLASS",
    "M_HOLE_STATE",
    "M_LAZY",
    "M_NODE",
    "M_N_STATES",
    "M_WALK",
    "SPLIT",
    "UNKNOWN",
    "advance",
    "advance_rows",
    "expand",
    "fill_sparse",
    "initial",
    "lanes_to_ids",
    "mask_hash",
    "mask_to_ids",
    "rehash",
    "walk",
    "walk_lanes",
]

CHAR, SPLIT, ACCEPT, BEGIN, END, LOOK = 0, 1, 2, 3, 4, 5
UNKNOWN = -1
DONE, FULL, HOLE = 0, 1, 2
M_N_STATES, M_GENERATION, M_NODE, M_HOLE_STATE, M_HOLE_CLASS, M_LAZY, M_WALK = range(7)
META_SIZE = 7
LANES = 8
_BLOCK = 32
_HASH_SEED = 1469598103934665603
_HASH_PRIME = 1099511628211

_NO, _YES = np.zeros(1, dtype=np.bool_)[0], np.ones(1, dtype=np.bool_)[0]  # as arguments not literals


@njit(cache=True, nogil=True)
def _closure(nfa, scratch, node, at_begin, n_items, generation):  # type: ignore[no-untyped-def]
    """Append the items that `node` stands for without reading a byte; returns the new number of items."""
    kind, a, b, targets, useful = nfa
    mark, stack, items = scratch
    top = 0
    stack[0] = node
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        if mark[node] == generation:
            continue
        mark[node] = generation
        what = kind[node]
        if what == CHAR:
            if useful[b[node]] != 0:
                items[n_items] = (np.int64(node) << 16) | np.int64(a[node])
                n_items += 1
        elif what == SPLIT:
            for k in range(b[node] - 1, a[node] - 1, -1):
                stack[top] = targets[k]
                top += 1
        elif what == ACCEPT:
            items[n_items] = np.int64(node) << 16
            n_items += 1
        elif what == BEGIN:
            if at_begin:
                stack[top] = b[node]
                top += 1
        elif what == END:  # useful[] says whether the text may end right behind it
            if (useful[node] & (2 if at_begin else 1)) != 0:
                items[n_items] = (np.int64(node) << 16) | 1
                n_items += 1
    return n_items


@njit(cache=True, nogil=True)
def _sort(items, n):  # type: ignore[no-untyped-def]
    """Sort items[:n] in place: insertion sort for short runs, heap sort for long ones."""
    ordered = True
    for i in range(1, n):
        if items[i] < items[i - 1]:
            ordered = False
            break
    if ordered:
        return
    if n <= 24:
        for i in range(1, n):
            x = items[i]
            j = i - 1
            while j >= 0 and items[j] > x:
                items[j + 1] = items[j]
                j -= 1
            items[j + 1] = x
        return
    for first in range(n // 2 - 1, -1, -1):
        _sift(items, first, n)
    for last in range(n - 1, 0, -1):
        items[0], items[last] = items[last], items[0]
        _sift(items, np.int64(0), last)


@njit(cache=True, nogil=True)
def _sift(items, root, n):  # type: ignore[no-untyped-def]
    while True:
        child = 2 * root + 1
        if child >= n:
            return
        if child + 1 < n and items[child + 1] > items[child]:
            child += 1
        if items[root] >= items[child]:
            return
        items[root], items[child] = items[child], items[root]
        root = child


@njit(cache=True, nogil=True)
def _intern(nfa, dfa, scratch, meta, n):  # type: ignore[no-untyped-def]
    """The state of the set items[:n]: DEAD if empty, a new one if it was never seen, -1 if a table is full."""
    kind = nfa[0]
    delta, accept, indptr, pool, table, hashes = dfa
    items = scratch[2]
    if n == 0:
        return 0
    _sort(items, n)
    h = np.uint64(_HASH_SEED)
    accepting = 0
    for i in range(n):
        item = items[i]
        h = (h ^ np.uint64(item)) * np.uint64(_HASH_PRIME)
        h ^= h >> np.uint64(29)
        what = kind[item >> 16]
        if what == ACCEPT or what == END:
            accepting = 1
    code = np.int64(h >> np.uint64(1))
    cells = table.shape[0]
    cell = code & (cells - 1)
    while table[cell] >= 0:
        s = table[cell]
        if hashes[s] == code and indptr[s + 1] - indptr[s] == n:
            start = indptr[s]
            same = True
            for i in range(n):
                if pool[start + i] != items[i]:
                    same = False
                    break
            if same:
                return s
        cell = (cell + 1) & (cells - 1)
    s = meta[M_N_STATES]
    start = indptr[s]
    if s >= delta.shape[0] or start + n > pool.shape[0] or 2 * s >= cells:
        return -1
    for i in range(n):
        pool[start + i] = items[i]
    indptr[s + 1] = start + n
    delta[s, :] = UNKNOWN
    accept[s] = accepting
    hashes[s] = code
    table[cell] = s
    meta[M_N_STATES] = s + 1
    return s


@njit(cache=True, nogil=True)
def expand(nfa, dag, dfa, scratch, meta, state, klass):  # type: ignore[no-untyped-def]
    """Compute delta[state, klass]; -1 if a table is full."""
    b = nfa[2]
    delta, accept, indptr, pool, table, hashes = dfa
    items = scratch[2]
    meta[M_GENERATION] += 1
    generation = meta[M_GENERATION]
    n = np.int64(0)  # of the type that it has later, or what is called with it is compiled twice
    for i in range(indptr[state], indptr[state + 1]):
        item = pool[i]
        d = item & 0xFFFF
        if d < 2:
            continue
        step = dag[d, klass]
        if step == 0:
            continue
        if step == 1:
            n = _closure(nfa, scratch, np.int64(b[item >> 16]), _NO, n, generation)
        else:
            items[n] = (item & ~np.int64(0xFFFF)) | np.int64(step)
            n += 1
    target = _intern(nfa, dfa, scratch, meta, n)
    if target >= 0:
        delta[state, klass] = target
    return target


@njit(cache=True, nogil=True)
def initial(nfa, dfa, scratch, meta, start):  # type: ignore[no-untyped-def]
    """The state before the first byte: DEAD if there is no way to begin, -1 if a table is full."""
    meta[M_GENERATION] += 1
    n = _closure(nfa, scratch, np.int64(start), _YES, np.int64(0), meta[M_GENERATION])
    return _intern(nfa, dfa, scratch, meta, n)


@njit(cache=True, nogil=True)
def rehash(hashes, n_states, out_table):  # type: ignore[no-untyped-def]
    """Put states 2..n_states-1 into `out_table`, which is all -1 and at least twice as large as there are states."""
    cells = out_table.shape[0]
    for s in range(2, n_states):
        cell = hashes[s] & (cells - 1)
        while out_table[cell] >= 0:
            cell = (cell + 1) & (cells - 1)
        out_table[cell] = s


@njit(cache=True, nogil=True)
def expand_closure(nfa, dag, dfa, scratch, meta, first):  # type: ignore[no-untyped-def]
    """Fill the rows of all states from `first` on, new ones included.  Returns the first unfilled state, if FULL."""
    delta = dfa[0]
    state = first
    while state < meta[M_N_STATES]:
        for klass in range(delta.shape[1]):
            if delta[state, klass] == UNKNOWN and expand(nfa, dag, dfa, scratch, meta, state, klass) < 0:
                return state
        state += 1
    return state


@njit(cache=True, nogil=True)
def walk(trie, nfa, dag, byte_class, dfa, scratch, meta, path, allowed, seen, out_mask):  # type: ignore[no-untyped-def]
    """Set the bit of every token whose bytes lead from ``path[0]`` to a live state.

    trie     (info, end, token) as `TokenTrie.packed` has them: nodes without a token have the id ``32 * n_words``, a
             bit that nobody reads, so that only the live/dead branch remains in the loop
    path     (max_depth + 1,) int32; path[d] is the state after d bytes
    allowed  (capacity,) uint8; only tokens that lead to a state t with ``allowed[t] == 1`` count; empty: all do
    seen     (capacity,) int32; where tokens lead, allowed or not, the number of the walk is written; empty: nowhere
    out_mask (n_words + 1,) uint32; bits are added
    meta     meta[M_NODE] is where to begin: 0, or where an earlier call stopped
    Returns DONE, FULL or HOLE; after FULL and HOLE call again with the same arguments.
    """
    info, end, token = trie
    delta = dfa[0]
    n_nodes = info.shape[0]
    filtered = allowed.shape[0] > 0
    collect = seen.shape[0] > 0
    number = np.int32(meta[M_WALK])
    nobody = (out_mask.shape[0] - 1) << 5
    node = meta[M_NODE]
    while node < n_nodes:
        packed = np.int64(info[node])
        depth = packed >> 8
        klass = byte_class[packed & 255]
        state = path[depth - 1]
        target = delta[state, klass]
        if target <= 0:
            if target == UNKNOWN:
                status = HOLE
                if meta[M_LAZY] != 0:
                    target = expand(nfa, dag, dfa, scratch, meta, state, klass)
                    status = FULL
                if target < 0:
                    meta[M_NODE] = node
                    meta[M_HOLE_STATE] = state
                    meta[M_HOLE_CLASS] = klass
                    return status
            if target == 0:
                node = end[node]
                continue
        path[depth] = target
        t = token[node]
        live = np.uint32(1)
        if collect:
            seen[target if t != nobody else 0] = number
        if filtered:
            live = np.uint32(allowed[target] == 1)
        out_mask[t >> 5] |= live << np.uint32(t & 31)
        node += 1
    meta[M_NODE] = node
    return DONE


@njit(cache=True, nogil=True)
def walk_lanes(trie, byte_class, delta, path, out_masks):  # type: ignore[no-untyped-def]
    """`walk` from LANES states at once, every transition known: one pass over the trie, 2-3 times as fast a state.

    path       (max_depth + 1, LANES) int32; path[0] are the states (DEAD for a lane that is not used)
    out_masks  (n_words + 1, LANES) uint32; bits are added
    """
    info, end, token = trie
    n_nodes = info.shape[0]
    node = 0
    while node < n_nodes:
        packed = np.int64(info[node])
        depth = packed >> 8
        klass = byte_class[packed & 255]
        alive = np.int32(0)
        for k in range(LANES):
            target = delta[path[depth - 1, k], klass]
            path[depth, k] = target
            alive |= target
        if alive == 0:
            node = end[node]
            continue
        t = token[node]
        word = t >> 5
        bit = np.uint32(t & 31)
        for k in range(LANES):
            out_masks[word, k] |= np.uint32(path[depth, k] != 0) << bit
        node += 1


@njit(cache=True, nogil=True)
def advance(delta, byte_class, data, indptr, token, state):  # type: ignore[no-untyped-def]
    """The state after the bytes of `token`: DEAD if they lead nowhere, -1 if a transition is not known yet."""
    begin = indptr[token]
    end = indptr[token + 1]
    if begin == end:
        return np.int64(0)
    target = np.int64(state)
    for i in range(begin, end):
        target = np.int64(delta[target, byte_class[data[i]]])
        if target <= 0:
            return target
    return target


@njit(cache=True, nogil=True)
def advance_rows(delta, byte_class, data, indptr, rows):  # type: ignore[no-untyped-def]
    """`advance` of many rows: rows[0] are states, rows[1] tokens; rows[0] becomes the states after them.

    rows  (2, n) int64; states and tokens of the right range
    """
    for r in range(rows.shape[1]):
        rows[0, r] = advance(delta, byte_class, data, indptr, rows[1, r], rows[0, r])


@njit(cache=True, nogil=True)
def fill_sparse(ids, out_mask):  # type: ignore[no-untyped-def]
    """Zero `out_mask` (int32 or uint32) and set the bits of `ids`."""
    out_mask[:] = 0
    for i in range(ids.shape[0]):
        t = ids[i]
        out_mask[t >> 5] = out_mask[t >> 5] | (np.int64(1) << np.int64(t & 31))


@njit(cache=True, nogil=True)
def _popcount(word):  # type: ignore[no-untyped-def]
    """Set bits of a uint32 (Warren, *Hacker's Delight*, 5-1)."""
    x = np.uint32(word)
    x = x - ((x >> np.uint32(1)) & np.uint32(0x55555555))
    x = (x & np.uint32(0x33333333)) + ((x >> np.uint32(2)) & np.uint32(0x33333333))
    x = (x + (x >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    return np.int64(np.uint32(x * np.uint32(0x01010101)) >> np.uint32(24))


@njit(cache=True, nogil=True)
def mask_to_ids(mask, out_ids):  # type: ignore[no-untyped-def]
    """Write the set ids of `mask` (contiguous) in order and return how many there are.

    If they do not fit, the number returned is only known to be larger than there is room.
    """
    n, room = np.int64(0), out_ids.shape[0]
    n_pairs = mask.shape[0] >> 1
    pairs = carray(as_pointer(mask.ctypes.data), (n_pairs,), np.uint64)  # two words at once
    first = 0
    while first < n_pairs:
        last = min(first + _BLOCK, n_pairs)
        some = np.uint64(0)
        for k in range(first, last):  # most of a mask is empty
            some |= pairs[k]
        if some != 0:
            for k in range(first, last):
                pair = pairs[k]
                while pair != 0:
                    if n >= room:
                        return n + 1
                    out_ids[n] = 64 * k + np.int64(trailing_zeros(pair))
                    n += 1
                    pair &= pair - np.uint64(1)
        first = last
    if mask.shape[0] & 1:
        word = np.uint64(mask[2 * n_pairs]) & np.uint64(0xFFFFFFFF)
        while word != 0:
            if n >= room:
                return n + 1
            out_ids[n] = 64 * n_pairs + np.int64(trailing_zeros(word))
            n += 1
            word &= word - np.uint64(1)
    return n


@njit(cache=True, nogil=True)
def mask_hash(mask):  # type: ignore[no-untyped-def]
    """A 64-bit hash of a mask (contiguous uint32), in four independent lanes."""
    prime = np.uint64(0x9E3779B97F4A7C15)
    a, b, c, d = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    pairs = carray(as_pointer(mask.ctypes.data), (mask.shape[0] >> 1,), np.uint64)
    n = pairs.shape[0] & ~3
    for w in range(0, n, 4):
        a = (a ^ pairs[w]) * prime
        b = (b ^ pairs[w + 1]) * prime
        c = (c ^ pairs[w + 2]) * prime
        d = (d ^ pairs[w + 3]) * prime
        a ^= a >> np.uint64(29)  # what is high comes down, or it would only ever move up
        b ^= b >> np.uint64(31)
        c ^= c >> np.uint64(33)
        d ^= d >> np.uint64(35)
    for w in range(2 * n, mask.shape[0]):
        a = (a ^ np.uint64(mask[w])) * prime
        a ^= a >> np.uint64(29)
    return np.int64((a * prime ^ b) * prime ^ (c * prime ^ d))


@njit(cache=True, nogil=True)
def lanes_to_ids(lanes, n_words, out_counts, out_ids):  # type: ignore[no-untyped-def]
    """`mask_to_ids` of every column of `lanes`, from ``lanes[:n_words]``.

    out_counts  (LANES,) int64     out_ids  (LANES, room) int32; a lane of more than `room` ids is left alone
    """
    for k in range(LANES):
        out_counts[k] = 0
    for w in range(n_words):
        for k in range(LANES):
            out_counts[k] += _popcount(lanes[w, k])
    for k in range(LANES):
        if out_counts[k] > out_ids.shape[1]:
            continue
        at = 0
        for w in range(n_words):
            word = np.uint32(lanes[w, k])
            while word != 0:
                rest = np.uint32(word & np.uint32(word - np.uint32(1)))
                out_ids[k, at] = w * 32 + _popcount(np.uint32((word ^ rest) - np.uint32(1)))
                at += 1
                word = rest
