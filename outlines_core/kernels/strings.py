"""The product automaton of a string recognizer: rows, and the search that decides which of its states are live.

A *part* state is a set of NFA items, as in `kernels.dfa`, of one of the patterns (all patterns lie in one NFA, so they
share the tables); 0 means that the pattern can no longer match, 1 that it matches whatever follows. Part states that
the caller computes (patterns with look-around) have ``D_FILLED == LATER`` until their row is written: OWED reports one.

A *product* state is a tuple of int32: position within a character (below), number of characters so far (not counted
beyond the greatest bound), trie node of the listed values (0: none of them any more), one part state per pattern.
With FREE for the number of characters a tuple stands for "whatever the length": it has a superset of the futures.

What is decided without search is decided by `_judge`; the rest is best-first search (`_search`), every result
remembered. A search can be left (a table is full, a row is owed) and is taken up where it was.

    fixed    prog (n_nodes, 8) int32, columns N_*: `kernels.dfa`'s NFA plus the lengths from each node (`spans`)
             targets int32 · dag (n_dag, n_classes) uint16
             goal int32: class of each of the 256 bytes (-1: cannot be spelled) · where the cubes end · the cubes: their
             number of literals, then for each (kind, wanted, p, q): MATCHES, slot · LENGTH, low, high · ONE_OF, test ·
             the listing: numbers of the ONE_OF tests that list a value, value by value
             steps (12 + 2, n_classes) int32: position after a byte; HEADS: does a character begin; SIZES: usable bytes
             trie (n + 2, 6) int32, columns T_*
    parts    info (capacity, 8 + n_classes) int64, columns D_*, then the row · pool int64 · table int32
    product  states (capacity, 6 + 3 + n_slots) int64, columns P_*, then the tuple · table int32
             queue (capacity, 4) int64: heap, order of discovery, edges (from, next)
    scratch  marks (2, n_nodes + n_targets + 1) int32 · items int64 · out (4, n_classes + 256) int64: successors of the
             asked state, of a searched one, bytes taken by a trie, a tuple
    meta     int64, M_*

Few arrays, because handing over one costs a call 0.15 µs.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = [
    "D_ACCEPT",
    "D_BEGIN",
    "D_END",
    "D_FAR",
    "D_FILLED",
    "D_HASH",
    "D_SIZE",
    "D_SURE",
    "FREE",
    "FULL",
    "FULL_PARTS",
    "FULL_POOL",
    "FULL_QUEUE",
    "FULL_STATES",
    "GOAL_END",
    "HEADS",
    "INF",
    "LATER",
    "LENGTH",
    "MATCHES",
    "META_SIZE",
    "M_BUDGET",
    "M_EXACT",
    "M_FULL",
    "M_N_PARTS",
    "M_N_STATES",
    "M_OUT",
    "M_OWED",
    "M_TOP",
    "N_FAR",
    "N_KIND",
    "N_NEAR",
    "N_SIZE",
    "ONE_OF",
    "OWED",
    "POSITIONS",
    "P_GOOD",
    "P_HASH",
    "P_NEED",
    "P_SIZE",
    "SIZES",
    "TOO_LONG",
    "T_GOOD",
    "T_LISTED",
    "T_SIZE",
    "T_VALUES",
    "enter",
    "enter_part",
    "fill_row",
    "grade_values",
    "rehash",
]

_CHAR, _SPLIT, _ACCEPT, _BEGIN, _END = 0, 1, 2, 3, 4  # as in kernels.dfa
MATCHES, LENGTH, ONE_OF = 0, 1, 2
FREE = -1
INF = 1 << 30
DONE, FULL, OWED, TOO_LONG = 0, -1, -2, -3
DEAD_, LIVE = 2, 1
# Positions within a character: 1 at its begin, 2 the same but behind a lone high surrogate, which no low one may follow
# (the two would be one character); the others are within one. 11: behind ED, behind a high surrogate.
POSITIONS = 12
HEADS, SIZES = POSITIONS, POSITIONS + 1
_ED_AFTER_HIGH = 11
N_KIND, N_A, N_B, N_USEFUL, N_ANY, N_NEAR, N_FAR, N_HEAD = range(8)
N_SIZE = 8
D_BEGIN, D_END, D_ACCEPT, D_NEAR, D_FAR, D_FILLED, D_SURE, D_HASH = range(8)
D_SIZE = 8
LATER = 2
P_LIVE, P_GOOD, P_NEED, P_MARK, P_HEAD, P_HASH = range(6)
P_SIZE = 6
(
    M_N_PARTS,
    M_N_STATES,
    M_GENERATION,
    M_SEARCH,
    M_HEAP,
    M_SEEN,
    M_EDGES,
    M_OWED,
    M_FULL,
    M_BUDGET,
    M_EXACT,
    M_TOP,
    M_OUT,
    M_MARK,
    M_DEPTH,
) = range(15)
META_SIZE = 15
FULL_PARTS, FULL_POOL, FULL_STATES, FULL_QUEUE = range(4)
# Trie columns: last byte, end of the subtree, values before the node, characters to the nearest good value below it,
# entries of the listing before, good values before.
T_BYTE, T_END, T_VALUES, T_NEAR, T_LISTED, T_GOOD = range(6)
T_SIZE = 6
GOAL_END = 256
_V, _COUNT, _TRIE, _SLOTS = 0, 1, 2, 3
_HASH_SEED = 1469598103934665603
_HASH_PRIME = 1099511628211


# -- part states ------------------------------------------------------------------------------------------------------

_NO, _YES = np.zeros(1, dtype=np.bool_)[0], np.ones(1, dtype=np.bool_)[0]  # as arguments not literals


@njit(cache=True, nogil=True)
def _closure(prog, targets, mark, stack, items, node, at_begin, n_items, generation):  # type: ignore[no-untyped-def]
    """Append the items that `node` stands for without reading a byte; returns the new number of items."""
    stack[0] = node
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        if mark[node] == generation:
            continue
        mark[node] = generation
        what = prog[node, N_KIND]
        if what == _CHAR:
            if prog[prog[node, N_B], N_USEFUL] != 0:
                items[n_items] = (np.int64(node) << 16) | np.int64(prog[node, N_A])
                n_items += 1
        elif what == _SPLIT:
            for k in range(prog[node, N_B] - 1, prog[node, N_A] - 1, -1):
                stack[top] = targets[k]
                top += 1
        elif what == _ACCEPT:
            items[n_items] = np.int64(node) << 16
            n_items += 1
        elif what == _BEGIN:
            if at_begin:
                stack[top] = prog[node, N_B]
                top += 1
        elif what == _END:  # N_USEFUL says whether the text may end right behind it
            if (prog[node, N_USEFUL] & (2 if at_begin else 1)) != 0:
                items[n_items] = (np.int64(node) << 16) | 1
                n_items += 1
    return n_items


@njit(cache=True, nogil=True)
def _hash(h, x):  # type: ignore[no-untyped-def]
    h = (h ^ np.uint64(x)) * np.uint64(_HASH_PRIME)
    return h ^ (h >> np.uint64(29))


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
def _intern_part(prog, info, pool, table, items, meta, n):  # type: ignore[no-untyped-def]
    """The state of the set items[:n]; FULL if a table is."""
    if n == 0:
        return 0
    ordered = True
    for i in range(1, n):
        if items[i] < items[i - 1]:
            ordered = False
            break
    if not ordered:
        if n <= 24:
            for i in range(1, n):
                x = items[i]
                j = i - 1
                while j >= 0 and items[j] > x:
                    items[j + 1] = items[j]
                    j -= 1
                items[j + 1] = x
        else:
            for first in range(n // 2 - 1, -1, -1):
                _sift(items, first, n)
            for last in range(n - 1, 0, -1):
                items[0], items[last] = items[last], items[0]
                _sift(items, np.int64(0), last)
    h = np.uint64(_HASH_SEED)
    accepting = 0
    everything = False
    near = np.int64(INF)
    for i in range(n):
        item = items[i]
        h = _hash(h, item)
        node = item >> 16
        what = prog[node, N_KIND]
        if what == _CHAR:
            at = node if (item & 0xFFFF) == prog[node, N_A] else prog[node, N_B]
            if at == node and prog[node, N_ANY] != 0:
                everything = True
            near = min(near, np.int64(prog[at, N_NEAR]))
        else:
            accepting = 1
            near = np.int64(0)
    if accepting == 1 and everything:
        return 1
    code = np.int64(h >> np.uint64(1))
    cells = table.shape[0]
    cell = code & (cells - 1)
    while table[cell] >= 0:
        s = table[cell]
        if info[s, D_HASH] == code and info[s, D_END] - info[s, D_BEGIN] == n:
            start = info[s, D_BEGIN]
            same = True
            for i in range(n):
                if pool[start + i] != items[i]:
                    same = False
                    break
            if same:
                return s
        cell = (cell + 1) & (cells - 1)
    s = meta[M_N_PARTS]
    start = info[s - 1, D_END]
    if s >= info.shape[0]:
        meta[M_FULL] = FULL_PARTS
        return FULL
    if start + n > pool.shape[0]:
        meta[M_FULL] = FULL_POOL
        return FULL
    far = near
    wider = True
    while wider:  # lengths of all items that join the run which begins at the least one
        wider = False
        for i in range(n):
            item = items[i]
            node = item >> 16
            if prog[node, N_KIND] == _CHAR:
                at = node if (item & 0xFFFF) == prog[node, N_A] else prog[node, N_B]
                if prog[at, N_NEAR] <= far + 1 and prog[at, N_FAR] > far:
                    far = np.int64(prog[at, N_FAR])
                    wider = True
    for i in range(n):
        pool[start + i] = items[i]
    info[s, D_BEGIN] = start
    info[s, D_END] = start + n
    info[s, D_ACCEPT] = accepting
    info[s, D_NEAR] = near
    info[s, D_FAR] = far
    info[s, D_FILLED] = 0
    info[s, D_SURE] = 1
    info[s, D_HASH] = code
    table[cell] = s
    meta[M_N_PARTS] = s + 1
    return s


@njit(cache=True, nogil=True)
def _fill_part(fixed, parts, scratch, meta, state):  # type: ignore[no-untyped-def]
    """Fill the row of a part state.  Returns DONE, FULL or OWED."""
    prog, targets, dag = fixed[0], fixed[1], fixed[2]
    info, pool, table = parts
    if info[state, D_FILLED] == LATER:
        meta[M_OWED] = state
        return OWED
    mark, stack, items = scratch[0][0], scratch[0][1], scratch[1]
    for klass in range(dag.shape[1]):
        meta[M_MARK] += 1
        generation = meta[M_MARK]
        n = np.int64(0)  # of the type that it has later, or the functions called with it are compiled twice
        for i in range(info[state, D_BEGIN], info[state, D_END]):
            item = pool[i]
            d = item & 0xFFFF
            if d < 2:
                continue
            step = dag[d, klass]
            if step == 0:
                continue
            if step == 1:
                n = _closure(prog, targets, mark, stack, items, np.int64(prog[item >> 16, N_B]), _NO, n, generation)
            else:
                items[n] = (item & ~np.int64(0xFFFF)) | np.int64(step)
                n += 1
        target = _intern_part(prog, info, pool, table, items, meta, n)
        if target < 0:
            return FULL
        info[state, D_SIZE + klass] = target
    info[state, D_FILLED] = 1
    return DONE


@njit(cache=True, nogil=True)
def enter_part(fixed, parts, scratch, meta, node):  # type: ignore[no-untyped-def]
    """The part state before the first byte; FULL."""
    meta[M_MARK] += 1
    marks = scratch[0]
    n = _closure(fixed[0], fixed[1], marks[0], marks[1], scratch[1], np.int64(node), _YES, np.int64(0), meta[M_MARK])
    return _intern_part(fixed[0], parts[0], parts[1], parts[2], scratch[1], meta, n)


# -- listed values ----------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def grade_values(fixed, parts, scratch, meta, start, first, path, tuples):  # type: ignore[no-untyped-def]
    """Judge the listed values node by node, from node `first` (1 at the beginning) on.

    Writes T_GOOD of all nodes, and then T_NEAR.

    start   the tuple before the first byte
    path    (longest value + 1,) int32     tuples  (longest value + 1, width) int64: kept between calls
    Returns DONE, or what is missing, FULL or OWED; then call again with ``first = meta[M_OUT]``.
    """
    goal, steps, trie = fixed[3], fixed[4], fixed[5]
    info = parts[0]
    width = tuples.shape[1]
    n = trie.shape[0] - 1
    depth = np.int64(0) if first == 1 else meta[M_DEPTH]
    for node in range(first, n):
        meta[M_OUT] = node
        meta[M_DEPTH] = depth
        while depth > 0 and node >= trie[path[depth - 1], T_END]:
            depth -= 1
        state = tuples[depth]
        path[depth] = node
        if depth == 0:
            for k in range(width):  # a slice assignment would compile seconds of error messages
                state[k] = start[k]
        else:
            before = tuples[depth - 1]
            state[_V] = 0
            klass = goal[trie[node, T_BYTE]]
            if before[_V] != 0 and klass >= 0:
                for k in range(_SLOTS, width):
                    if info[before[k], D_FILLED] != 1:
                        status = _fill_part(fixed, parts, scratch, meta, before[k])
                        if status < 0:
                            return status
                state[_V] = steps[before[_V], klass]
                state[_COUNT] = min(before[_COUNT] + steps[HEADS, klass], meta[M_TOP])
                for k in range(_SLOTS, width):
                    state[k] = info[before[k], D_SIZE + klass]
        depth += 1
        good = 0
        if state[_V] != 0 and trie[node + 1, T_VALUES] > trie[node, T_VALUES]:
            state[_TRIE] = node
            verdict = _judge(goal, trie, info, state, meta[M_EXACT] != 0)
            good = 1 if verdict >= 0 and (verdict & 2) != 0 else 0
        trie[node, T_NEAR] = good
    total = 0
    for node in range(1, n + 1):
        good = trie[node, T_NEAR]
        trie[node, T_GOOD] = total
        if node < n:
            total += good
    for node in range(n - 1, 0, -1):
        best = 0 if trie[node + 1, T_GOOD] > trie[node, T_GOOD] else INF
        child = node + 1
        while child < trie[node, T_END]:
            head = 0 if 0x80 <= trie[child, T_BYTE] < 0xC0 else 1
            best = min(best, trie[child, T_NEAR] + head)
            child = trie[child, T_END]
        trie[node, T_NEAR] = min(best, INF)
    return DONE


# -- product states ---------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _judge(goal, trie, info, state, exact):  # type: ignore[no-untyped-def]
    """What can be said of a tuple without search: -1, no good outcome can come.  Else a sum of

    1  some good outcome surely comes     2  the value may end here, and the outcome is good
    4 * n  at least n more characters are needed
    """
    count = state[_COUNT]
    node = state[_TRIE]
    at_end = state[_V] <= 2
    exact = exact and state[_V] != _ED_AFTER_HIGH
    sure = False
    n_good = 0
    if node != 0:
        n_good = trie[trie[node, T_END], T_GOOD] - trie[node, T_GOOD]
        sure = n_good > 0
    good = False
    possible = False
    least = INF
    listing = goal[GOAL_END]
    i = GOAL_END + 1
    while i < listing:
        stop = i + 1 + 4 * goal[i]
        i += 1
        now = at_end
        plain = exact
        low = 0
        high = INF
        near = 0
        part = 0
        while i < stop:
            what = goal[i]
            wanted = goal[i + 1] != 0
            a = goal[i + 2]
            b = goal[i + 3]
            i += 4
            if what == MATCHES:
                d = state[_SLOTS + a]
                if d <= 1:
                    if (d == 1) != wanted:
                        break
                elif wanted:
                    near = max(near, info[d, D_NEAR])
                    now = now and info[d, D_ACCEPT] != 0
                    if part != 0 and part != d:
                        plain = False
                    part = d
                else:
                    now = now and info[d, D_ACCEPT] == 0
                    plain = False
            elif what == LENGTH:
                if count == FREE:
                    continue
                if wanted:
                    if count > b or a > b:
                        break
                    if a > count:
                        low = max(low, a - count)
                        now = False
                    if b < INF:
                        high = min(high, b - count)
                elif a <= b and count <= b:
                    if count >= a:
                        if b >= INF:
                            break
                        low = max(low, b + 1 - count)
                        now = False
                    else:
                        plain = False  # up to a gap, and behind it
            else:
                has = False
                if node != 0:  # an inner node lists nothing
                    for k in range(listing + trie[node, T_LISTED], listing + trie[node + 1, T_LISTED]):
                        if goal[k] == a:
                            has = True
                            break
                if wanted:
                    if n_good == 0:
                        break
                    near = max(near, trie[node, T_NEAR])
                    now = now and has
                    plain = False
                elif node != 0:
                    now = now and not has
                    plain = False
        else:
            need = max(low, near)
            if need <= high:
                possible = True
                least = min(least, need)
                good = good or now
                if plain:
                    if part == 0 or (low == 0 and high == INF):
                        sure = sure or part == 0 or info[part, D_SURE] != 0
                    elif info[part, D_FAR] >= low:
                        sure = True
        i = stop
    if not possible:
        return -1
    return (4 * least) | (2 if good else 0) | (1 if sure else 0)


@njit(cache=True, nogil=True)
def _intern(goal, trie, info, states, table, state, meta):  # type: ignore[no-untyped-def]
    """The state of a tuple; 0 if it is surely dead, FULL."""
    width = states.shape[1] - P_SIZE
    h = np.uint64(_HASH_SEED)
    for k in range(width):
        h = _hash(h, state[k])
    code = np.int64(h >> np.uint64(1))
    cells = table.shape[0]
    cell = code & (cells - 1)
    while table[cell] >= 0:
        s = table[cell]
        if states[s, P_HASH] == code:
            same = True
            for k in range(width):
                if states[s, P_SIZE + k] != state[k]:
                    same = False
                    break
            if same:
                return s
        cell = (cell + 1) & (cells - 1)
    verdict = _judge(goal, trie, info, state, meta[M_EXACT] != 0)
    if verdict < 0:
        return 0
    s = meta[M_N_STATES]
    if s >= states.shape[0]:
        meta[M_FULL] = FULL_STATES
        return FULL
    for k in range(width):
        states[s, P_SIZE + k] = state[k]
    states[s, P_LIVE] = LIVE if (verdict & 3) != 0 else 0
    states[s, P_GOOD] = 1 if (verdict & 2) != 0 else 0
    states[s, P_NEED] = verdict >> 2
    states[s, P_MARK] = 0
    states[s, P_HASH] = code
    table[cell] = s
    meta[M_N_STATES] = s + 1
    return s


@njit(cache=True, nogil=True)
def rehash(info, column, n_states, out_table):  # type: ignore[no-untyped-def]
    """Put states 2..n_states-1 into `out_table`, which is all -1 and at least twice as large as there are states."""
    cells = out_table.shape[0]
    for s in range(2, n_states):
        if info[s, column] == -1:  # not found by content
            continue
        cell = info[s, column] & (cells - 1)
        while out_table[cell] >= 0:
            cell = (cell + 1) & (cells - 1)
        out_table[cell] = s


@njit(cache=True, nogil=True)
def _expand(fixed, parts, product, scratch, meta, s, out):  # type: ignore[no-untyped-def]
    """Write the successors of `s`: one per byte class, then one per child of its trie node; 0 where surely dead.

    A child's byte leads there and not where the rest of its class does.  ``meta[M_OUT]`` becomes their number.
    """
    goal, steps, trie = fixed[3], fixed[4], fixed[5]
    info, states, table = parts[0], product[0], product[1]
    state, taken = scratch[2][3], scratch[2][2]
    source = states[s, P_SIZE:]
    n_classes = steps.shape[1]
    width = source.shape[0]
    for k in range(_SLOTS, width):
        if info[source[k], D_FILLED] != 1:
            status = _fill_part(fixed, parts, scratch, meta, source[k])
            if status < 0:
                return status
    node = source[_TRIE]
    top = meta[M_TOP]
    n_out = n_classes
    if node != 0:
        for klass in range(n_classes):
            taken[klass] = 0
        child = node + 1
        while child < trie[node, T_END]:
            klass = goal[trie[child, T_BYTE]]
            out[n_out] = 0
            if klass >= 0 and steps[source[_V], klass] != 0:
                taken[klass] += 1
                state[_V] = steps[source[_V], klass]
                state[_COUNT] = source[_COUNT]
                if source[_COUNT] != FREE:
                    state[_COUNT] = min(source[_COUNT] + steps[HEADS, klass], top)
                state[_TRIE] = child
                for k in range(_SLOTS, width):
                    state[k] = info[source[k], D_SIZE + klass]
                target = _intern(goal, trie, info, states, table, state, meta)
                if target < 0:
                    return target
                out[n_out] = target
            n_out += 1
            child = trie[child, T_END]
    for klass in range(n_classes):
        out[klass] = 0
        v = steps[source[_V], klass]
        if v == 0 or (node != 0 and taken[klass] == steps[SIZES, klass]):
            continue
        state[_V] = v
        state[_COUNT] = source[_COUNT]
        if source[_COUNT] != FREE:
            state[_COUNT] = min(source[_COUNT] + steps[HEADS, klass], top)
        state[_TRIE] = 0
        for k in range(_SLOTS, width):
            state[k] = info[source[k], D_SIZE + klass]
        target = _intern(goal, trie, info, states, table, state, meta)
        if target < 0:
            return target
        out[klass] = target
    meta[M_OUT] = n_out
    return DONE


# -- life -------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _push(queue, n, key):  # type: ignore[no-untyped-def]
    while n > 0:
        parent = (n - 1) >> 1
        if queue[parent, 0] <= key:
            break
        queue[n, 0] = queue[parent, 0]
        n = parent
    queue[n, 0] = key


@njit(cache=True, nogil=True)
def _pop(queue, n):  # type: ignore[no-untyped-def]
    """Take the least key off the heap of `n`."""
    key = queue[n - 1, 0]
    n -= 1
    at = 0
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and queue[child + 1, 0] < queue[child, 0]:
            child += 1
        if queue[child, 0] >= key:
            break
        queue[at, 0] = queue[child, 0]
        at = child
    queue[at, 0] = key


@njit(cache=True, nogil=True)
def _search(fixed, parts, product, scratch, meta, s):  # type: ignore[no-untyped-def]
    """Find out whether a good outcome can be reached from `s`, and remember it for all states that this decides.

    Best first by the characters that are needed at least, then in order of discovery: a depth-first order could run
    along a loop up to a large maximal length.
    """
    states, queue = product[0], product[2]
    out = scratch[2][1]
    if meta[M_SEARCH] != s:
        meta[M_SEARCH] = s
        meta[M_GENERATION] += 1
        states[s, P_MARK] = meta[M_GENERATION]
        states[s, P_HEAD] = -1
        queue[0, 0] = 0
        queue[0, 1] = s
        meta[M_HEAP] = 1
        meta[M_SEEN] = 1
        meta[M_EDGES] = 0
    generation = meta[M_GENERATION]
    found = 0
    while meta[M_HEAP] > 0 and found == 0:
        if meta[M_SEEN] > meta[M_BUDGET]:
            return TOO_LONG
        if max(meta[M_SEEN], meta[M_EDGES]) + out.shape[0] >= queue.shape[0]:
            meta[M_FULL] = FULL_QUEUE
            return FULL
        at = queue[queue[0, 0] & 0xFFFFFF, 1]
        status = _expand(fixed, parts, product, scratch, meta, at, out)
        if status < 0:
            return status
        _pop(queue, meta[M_HEAP])
        meta[M_HEAP] -= 1
        for j in range(meta[M_OUT]):
            target = out[j]
            if target == 0 or states[target, P_LIVE] == DEAD_:
                continue
            if states[target, P_LIVE] == LIVE:
                found = at
                break
            if states[target, P_MARK] != generation:
                states[target, P_MARK] = generation
                states[target, P_HEAD] = -1
                _push(queue, meta[M_HEAP], (states[target, P_NEED] << 24) | meta[M_SEEN])
                queue[meta[M_SEEN], 1] = target
                meta[M_HEAP] += 1
                meta[M_SEEN] += 1
            edge = meta[M_EDGES]
            queue[edge, 2] = at
            queue[edge, 3] = states[target, P_HEAD]
            states[target, P_HEAD] = edge
            meta[M_EDGES] += 1
    if found == 0:
        for k in range(meta[M_SEEN]):
            states[queue[k, 1], P_LIVE] = DEAD_
    else:  # the heap is no longer needed: its column is the stack
        states[found, P_LIVE] = LIVE
        queue[0, 0] = found
        top = 1
        while top > 0:
            top -= 1
            edge = states[queue[top, 0], P_HEAD]
            while edge >= 0:
                before = queue[edge, 2]
                if states[before, P_LIVE] == 0:
                    states[before, P_LIVE] = LIVE
                    queue[top, 0] = before
                    top += 1
                edge = queue[edge, 3]
    meta[M_SEARCH] = 0
    return DONE


@njit(cache=True, nogil=True)
def _settle(fixed, parts, product, scratch, meta, s):  # type: ignore[no-untyped-def]
    """Make sure that it is known whether `s` is live.

    Where a bound on the length is still open, first without the bound: that is one search for all lengths, and what is
    dead there is dead.
    """
    states = product[0]
    if states[s, P_LIVE] != 0:
        return DONE
    count = states[s, P_SIZE + _COUNT]
    if 0 <= count < meta[M_TOP]:
        state = scratch[2][3]
        for k in range(states.shape[1] - P_SIZE):
            state[k] = states[s, P_SIZE + k]
        state[_COUNT] = FREE
        freed = _intern(fixed[3], fixed[5], parts[0], states, product[1], state, meta)
        if freed < 0:
            return freed
        if freed != 0 and states[freed, P_LIVE] == 0:
            status = _search(fixed, parts, product, scratch, meta, freed)
            if status < 0:
                return status
        if freed == 0 or states[freed, P_LIVE] == DEAD_:
            states[s, P_LIVE] = DEAD_
            return DONE
    return _search(fixed, parts, product, scratch, meta, s)


@njit(cache=True, nogil=True)
def enter(fixed, parts, product, scratch, meta, state):  # type: ignore[no-untyped-def]
    """The product state of a tuple: 0 if it is dead; FULL, OWED, TOO_LONG."""
    copy = scratch[2][3]
    for k in range(state.shape[0]):
        copy[k] = state[k]
    s = _intern(fixed[3], fixed[5], parts[0], product[0], product[1], copy, meta)
    if s <= 0:
        return s
    status = _settle(fixed, parts, product, scratch, meta, s)
    if status < 0:
        return status
    return s if product[0][s, P_LIVE] == LIVE else 0


@njit(cache=True, nogil=True)
def fill_row(fixed, parts, product, scratch, meta, s, out_row):  # type: ignore[no-untyped-def]
    """Write the next state for each byte, 0 where no good outcome can come.  Returns DONE, FULL, OWED or TOO_LONG.

    out_row  (256,) int32, overwritten if DONE
    """
    goal, trie = fixed[3], fixed[5]
    states = product[0]
    out = scratch[2][0]
    status = _expand(fixed, parts, product, scratch, meta, s, out)
    if status < 0:
        return status
    for j in range(meta[M_OUT]):
        target = out[j]
        if target == 0:
            continue
        if states[target, P_LIVE] == 0:
            status = _settle(fixed, parts, product, scratch, meta, target)
            if status < 0:
                return status
        if states[target, P_LIVE] != LIVE:
            out[j] = 0
    for byte in range(256):
        klass = goal[byte]
        out_row[byte] = out[klass] if klass >= 0 else 0
    node = states[s, P_SIZE + _TRIE]
    if node != 0:
        j = fixed[4].shape[1]
        child = node + 1
        while child < trie[node, T_END]:
            out_row[trie[child, T_BYTE]] = out[j]
            j += 1
            child = trie[child, T_END]
    return DONE
