"""The JSON engine's calls: a state's mask, and the state after a token, each by one call of a kernel.

`kernels.json` knows what a byte does to a configuration. Here its walks are put together: whole masks, from what is
known beforehand of the tokens to the list of allowed ids, and whole tokens, from the number of a configuration to that
of the next one. numba unpacks each array argument of a call from Python, which takes longer than many a walk, so
arrays come by their addresses (`kernels.borrow`): a table of a core's arrays (H_*), one of the vocabulary's trie
(T_*), and one that holds the arena, which is shared by all cores of a vocabulary.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from outlines_core.kernels.borrow import as_pointer, constants, pointer_to
from outlines_core.kernels.dfa import mask_hash, mask_to_ids
from outlines_core.kernels.json import _child, _text_at, step, walk, walk_exits
from outlines_core.kernels.json_memory import (
    CLASSES,
    COUNTED,
    DEAD,
    END_INSTANCE,
    EXACT,
    FILLED,
    FREE,
    FULL,
    GOTO_MASK,
    HOLE,
    HOLE_TRIE,
    I_CLASS,
    I_FLAGS,
    I_KIND,
    I_LEAST,
    I_MOST,
    I_ROW,
    I_TRIE,
    INST,
    LIVE,
    M_A,
    M_EXACT,
    M_EXIT,
    M_GENERIC,
    M_INNER,
    M_KIND,
    M_N_CONFIGS,
    M_NODE,
    OTHERS,
    OUTCOME,
    PLAIN,
    QUOTE,
    R_CONSTS,
    R_INST,
    R_NODES,
    RECORD,
    STRING,
    STRUCT,
    UNNAMED,
    WS,
    push,
)

__all__ = [
    "ENDS",
    "KNOWN",
    "NO_BOUND",
    "NO_ROOM",
    "advance",
    "enter_all",
    "fill_exits",
    "fill_state",
    "fill_string",
    "fill_tops",
    "fill_whole",
    "intern",
    "step_one",
    "words_are",
    "words_hash",
]

_handles = constants(13)
H_MEM, H_PATH, H_WORDS, H_IDS, H_CONFIGS, H_CELLS, H_RUN, H_EOS, H_TWINS, H_TEXTS, H_RUNS, H_TRAIL, H_SIZE = _handles
A_ROWS, A_INSIDE, A_SIZE = constants(3)
# `first`: by byte; what is below a node, byte by byte: from where, the bytes, the nodes; the last two: behind quotes
T_INFO, T_END, T_TOKEN, T_FIRST, T_BELOW, T_BYTES, T_NODES, T_LIVE, T_SIZE = constants(9)
B_TOPS, B_IDS, B_EXITS, B_SIZE = constants(4)
# the first nine are entered by `inside.put_addresses`
_inside = constants(13)
W_WORDS, W_IDS, W_EXITS, W_TOKENS, W_TEXTS, W_CHARS, W_OTHERS, W_STARTS, W_ROW = (next(_inside) for _ in range(9))
W_ROOMS, W_SEEN, W_MASKS, W_SIZE = _inside
WIDTH: Final = 259  # of a row of the arena
NO_ROOM: Final = -4
"""There is no room for another configuration."""
KNOWN: Final = -16
"""Less this: a mask of those that `fill_string` keeps."""
ENDS: Final = 1 << 40
"""Added to the number of a configuration at which the text may end."""
NO_BOUND: Final = 1 << 30
"""On characters."""
_LETTERS, _POINTS = np.array([*b'u"\\/bfnrt']), np.array([-1, 0x22, 0x5C, 0x2F, 8, 12, 10, 13, 9])  # of escapes


@njit(cache=True, nogil=True)
def _numbers(handles, k):  # type: ignore[no-untyped-def]
    """An int64 array of a table."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n,), np.int64)


@njit(cache=True, nogil=True)
def _small(handles, k):  # type: ignore[no-untyped-def]
    """An int32 array of a table."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n,), np.int32)


@njit(cache=True, nogil=True)
def _bytes(handles, k):  # type: ignore[no-untyped-def]
    """A uint8 array of a table."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n,), np.uint8)


@njit(cache=True, nogil=True)
def _bits(handles, k):  # type: ignore[no-untyped-def]
    """A uint32 array of a table."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n,), np.uint32)


@njit(cache=True, nogil=True)
def _places(handles, k):  # type: ignore[no-untyped-def]
    """(n, 5) int64: configurations."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n, 5), np.int64)


@njit(cache=True, nogil=True)
def _arena(arena):  # type: ignore[no-untyped-def]
    pointer, n = pointer_to(arena, A_ROWS)
    return carray(pointer, (n, WIDTH), np.int32)


@njit(cache=True, nogil=True)
def _trie(table):  # type: ignore[no-untyped-def]
    return _small(table, T_INFO), _small(table, T_END), _small(table, T_TOKEN)


# -- configurations ---------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _number(mem, configs, cells, at, k):  # type: ignore[no-untyped-def]
    """The number of the configuration at[k], which is a new one if it was not seen before; NO_ROOM."""
    h = np.uint64(14695981039346656037)
    for j in range(5):
        h = (h ^ np.uint64(at[k, j])) * np.uint64(1099511628211)
    last = cells.shape[0] - 1
    cell = np.int64(h >> np.uint64(24)) & last
    while cells[cell] >= 0:
        n = cells[cell]
        if (
            configs[n, 0] == at[k, 0]
            and configs[n, 1] == at[k, 1]
            and configs[n, 2] == at[k, 2]
            and configs[n, 3] == at[k, 3]
            and configs[n, 4] == at[k, 4]
        ):
            return np.int64(n)
        cell = (cell + 1) & last
    n = mem[M_N_CONFIGS]
    if n >= configs.shape[0] or 2 * n >= cells.shape[0]:
        return np.int64(NO_ROOM)
    for j in range(5):
        configs[n, j] = at[k, j]
    cells[cell] = n
    mem[M_N_CONFIGS] = n + 1
    return n


@njit(cache=True, nogil=True)
def _ends(mem, rows, at, k):  # type: ignore[no-untyped-def]
    """May the text end at the configuration at[k]?"""
    i = at[k, 0]
    if i == END_INSTANCE:
        return mem[mem[R_CONSTS] + 8 * at[k, 3] + 4] != 0
    return mem[mem[R_INST] + INST * i + I_KIND] == PLAIN and at[k, 4] == 0 and rows[at[k, 1], OUTCOME] >= 0


@njit(cache=True, nogil=True)
def _entered(handles, mem, rows, at, k):  # type: ignore[no-untyped-def]
    """1 + the number of at[k], and ENDS; or NO_ROOM."""
    n = _number(mem, _places(handles, H_CONFIGS), _small(handles, H_CELLS), at, k)
    if n < 0:
        return n
    return n + 1 + (np.int64(ENDS) if _ends(mem, rows, at, k) else np.int64(0))


@njit(cache=True, nogil=True)
def intern(handles, arena, i, c, t, x, sid):  # type: ignore[no-untyped-def]
    """1 + the number of a configuration, and ENDS; or NO_ROOM."""
    run = _places(handles, H_RUN)
    run[0, 0] = i
    run[0, 1] = c
    run[0, 2] = t
    run[0, 3] = x
    run[0, 4] = sid
    return _entered(handles, _numbers(handles, H_MEM), _arena(arena), run, np.int64(0))


@njit(cache=True, nogil=True)
def enter_all(handles):  # type: ignore[no-untyped-def]
    """Enter all configurations in the (empty) cells."""
    configs, cells = _places(handles, H_CONFIGS), _small(handles, H_CELLS)
    last = cells.shape[0] - 1
    for n in range(_numbers(handles, H_MEM)[M_N_CONFIGS]):
        h = np.uint64(14695981039346656037)
        for j in range(5):
            h = (h ^ np.uint64(configs[n, j])) * np.uint64(1099511628211)
        cell = np.int64(h >> np.uint64(24)) & last
        while cells[cell] >= 0:
            cell = (cell + 1) & last
        cells[cell] = n


@njit(cache=True, nogil=True)
def advance(handles, arena, number, text, size):  # type: ignore[no-untyped-def]
    """1 + the number of the configuration after some bytes, and ENDS; else DEAD, HOLE, FULL, EXACT or NO_ROOM.

    Begin again after a hole.

    number      of the configuration before them
    text, size  their address, and how many there are
    """
    mem, rows, run = _numbers(handles, H_MEM), _arena(arena), _places(handles, H_RUN)
    configs = _places(handles, H_CONFIGS)
    data = carray(as_pointer(text), (size,), np.uint8)
    mem[M_EXACT] = 0
    mem[M_GENERIC] = 0
    if size == 0:
        return np.int64(DEAD)
    for j in range(5):
        run[0, j] = configs[number, j]
    at = np.int64(0)  # of the type that it has later, or what is called with it is compiled twice
    for k in range(size):
        to = np.int64(1 if at != 1 else 2)
        status = np.int64(step(mem, rows, run, at, np.int64(data[k]), run, to))
        if status != LIVE:
            return status
        at = to
    if mem[M_EXACT] != 0:
        return np.int64(EXACT)
    return np.int64(_entered(handles, mem, rows, run, at))


@njit(cache=True, nogil=True)
def step_one(handles, arena, b):  # type: ignore[no-untyped-def]
    """`kernels.json.step` from run[0] to run[1]."""
    run = _places(handles, H_RUN)
    return np.int64(step(_numbers(handles, H_MEM), _arena(arena), run, np.int64(0), np.int64(b), run, np.int64(1)))


# -- masks ------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _allow(words, tokens):  # type: ignore[no-untyped-def]
    for k in range(tokens.shape[0]):
        t = tokens[k]
        words[t >> 5] |= np.uint32(1) << np.uint32(t & 31)


@njit(cache=True, nogil=True)
def _finished(handles, words, may_end):  # type: ignore[no-untyped-def]
    """Treat ids with the same bytes alike, and add those that end the text; then the allowed ids, and their number.

    They are in the array of ids if they fit; if not, the number is larger than that.
    """
    pointer, n = pointer_to(handles, H_TWINS)
    twins = carray(pointer, (n, 2), np.int32)
    for k in range(n):
        t, other = twins[k, 0], twins[k, 1]
        bit = np.uint32(1) << np.uint32(other & 31)
        if words[t >> 5] >> np.uint32(t & 31) & np.uint32(1) != 0:
            words[other >> 5] |= bit
        else:
            words[other >> 5] &= ~bit
    if may_end:
        _allow(words, _small(handles, H_EOS))
    last = words.shape[0] - 1
    words[last] = 0  # where nodes without a token have set a bit
    return np.int64(mask_to_ids(words, _small(handles, H_IDS)))


@njit(cache=True, nogil=True)
def words_hash(handles):  # type: ignore[no-untyped-def]
    """A hash of the mask that was made last."""
    words = _bits(handles, H_WORDS)
    return mask_hash(words[: words.shape[0] - 1])


@njit(cache=True, nogil=True)
def words_are(handles, words):  # type: ignore[no-untyped-def]
    """Is the mask that was made last the one at an address?"""
    mine = _bits(handles, H_WORDS)
    n = mine.shape[0] - 1
    other = carray(as_pointer(words), (n,), np.uint32)
    differ = np.uint32(0)
    for k in range(n):
        differ |= mine[k] ^ other[k]
    return differ == 0


@njit(cache=True, nogil=True)
def _walk_all(mem, rows, vocabulary, first, path, node, given, words):  # type: ignore[no-untyped-def]
    """`walk` of the whole trie. Where a byte alone says that nothing comes of it, its node is not looked at.

    first  (256,) int32: the node of each byte, -1 if no token begins with it
    node   0 to begin, else what meta[M_NODE] was
    """
    i, c = path[0, 0], path[0, 1]
    inst, consts = mem[R_INST] + INST * i, mem[R_CONSTS]
    kind = mem[inst + I_KIND]
    b = np.int64(0)
    going_on = node > 0 or given != 0
    if going_on:
        while b < 255 and not (first[b] >= 0 and node < vocabulary[1][first[b]]):
            b += 1
    while b < 256:
        top = np.int64(first[b])
        if top >= 0 and not going_on:
            klass = mem[consts + 8 * b]
            if kind == STRUCT:
                if klass >= 4 and mem[inst + I_CLASS + klass] == 0:
                    top = np.int64(-1)
            elif kind != STRING:
                if rows[c, FILLED] != 0 and rows[c, b] == 0 and (rows[c, OUTCOME] < 0 or klass >= CLASSES - 1):
                    top = np.int64(-1)
            node = top
        if top >= 0:
            going_on = False
            status = walk(mem, rows, vocabulary, path, node, np.int64(vocabulary[1][top]), given, words)
            given = np.int64(0)
            if status != LIVE:
                return status
        b += 1
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def _below(trie, node, b):  # type: ignore[no-untyped-def]
    """The node below a trie node (-1: the root) by a byte, -1 if there is none."""
    below, found = _small(trie, T_BELOW), _bytes(trie, T_BYTES)
    low, stop = np.int64(below[node + 1]), np.int64(below[node + 2])
    high = stop
    while low < high:
        middle = (low + high) >> 1
        if found[middle] < b:
            low = middle + 1
        else:
            high = middle
    if low < stop and found[low] == b:
        return np.int64(_small(trie, T_NODES)[low])
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _reads_texts(mem, i, c, t, x):  # type: ignore[no-untyped-def]
    """The trie node of known texts if a configuration reads nothing else, at the begin of a character; else 0."""
    inst = mem[R_INST] + INST * i
    if mem[inst + I_KIND] != STRING or c != 0 or x & 0xFFFFFFFF != 0 or mem[inst + I_FLAGS] & UNNAMED != 0:
        return np.int64(0)
    return max(mem[inst + I_TRIE], np.int64(0)) if t == -1 else t


@njit(cache=True, nogil=True)
def _walk_texts(handles, arena, trie, top, depth):  # type: ignore[no-untyped-def]
    """`walk` below a node from path[depth], which reads known texts only: both tries at once.

    top    the node, of that depth; -1: the root
    It cannot go on from where it stopped: begin again after HOLE and FULL, and with `walk` after EXACT.
    """
    mem, rows, words = _numbers(handles, H_MEM), _arena(arena), _bits(handles, H_WORDS)
    path, trail = _places(handles, H_PATH), _numbers(handles, H_TRAIL)
    vocabulary = _trie(trie)
    nodes, consts = mem[R_NODES], mem[R_CONSTS]
    least = depth
    trail[2 * depth] = top
    trail[2 * depth + 1] = 0
    while depth >= least:
        node = trail[2 * depth]
        t = path[depth, 2]
        if t == -1:
            t = mem[mem[R_INST] + INST * path[depth, 0] + I_TRIE]
        k = trail[2 * depth + 1]
        trail[2 * depth + 1] = k + 1
        n = mem[nodes + 6 * t + 1]
        if k > n + 1:
            depth -= 1
            continue
        b = mem[nodes + 6 * (mem[nodes + 6 * t] + k) + 2] if k < n else np.int64(0x22) if k == n else np.int64(0x5C)
        if k < n and (b < 0x20 or b == 0x22 or b == 0x5C or mem[consts + 8 * b + 1] == 0):
            continue  # only escapes spell it
        child = _below(trie, node, b)
        if child < 0:
            continue
        if k < n and b != 0xED:
            status = np.int64(step(mem, rows, path, depth, b, path, depth + 1))
            if status == LIVE:
                token = vocabulary[2][child]
                words[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
                if vocabulary[1][child] > child + 1:
                    depth += 1
                    trail[2 * depth] = child
                    trail[2 * depth + 1] = 0
                continue
            if status == DEAD:
                continue
            return status
        if k > n:
            status = _walk_escapes(mem, rows, trie, vocabulary, path, child, depth, t, words)
        else:
            stop = np.int64(vocabulary[1][child])
            status = walk(mem, rows, vocabulary, path, child, stop, np.int64(0), words)
        if status != LIVE:
            return status
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def _walk_escapes(mem, rows, trie, vocabulary, path, node, depth, t, words):  # type: ignore[no-untyped-def]
    """`walk` of the subtree of a backslash behind path[depth], where node `t` of known texts says what may follow."""
    status = np.int64(step(mem, rows, path, depth, np.int64(0x5C), path, depth + 1))
    if status != LIVE:
        return np.int64(LIVE) if status == DEAD else status
    token = vocabulary[2][node]
    words[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
    for k in range(_LETTERS.shape[0]):
        point = np.int64(_POINTS[k])
        if point < 0 or _child(mem, t, point) != 0:
            child = _below(trie, node, np.int64(_LETTERS[k]))
            if child >= 0:
                stop = np.int64(vocabulary[1][child])
                status = walk(mem, rows, vocabulary, path, child, stop, np.int64(0), words)
                if status != LIVE:
                    return status
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def fill_whole(handles, arena, trie, i, c, t, x, sid, node, given, may_end):  # type: ignore[no-untyped-def]
    """The mask of a configuration by a walk of all tokens: how many ids are allowed, or HOLE, FULL, EXACT.

    node     -1 to begin; else what meta[M_NODE] was
    given    as in `kernels.json.walk`
    may_end  may the text end here?
    """
    mem, words, path = _numbers(handles, H_MEM), _bits(handles, H_WORDS), _places(handles, H_PATH)
    vocabulary = _trie(trie)
    mem[M_GENERIC] = 1
    fresh = node < 0
    if fresh:
        words[:] = 0
        node = np.int64(0)
    if node == 0:  # later it stands, or was put back
        path[0, 0] = i
        path[0, 1] = c
        path[0, 2] = t
        path[0, 3] = x
        path[0, 4] = sid
    status = np.int64(EXACT)
    if fresh and _reads_texts(mem, i, c, t, x) > 0:
        status = _walk_texts(handles, arena, trie, np.int64(-1), np.int64(0))
        mem[M_NODE] = 0 if status != LIVE else mem[M_NODE]
    if status == EXACT:
        status = np.int64(EXACT)
    if fresh and _reads_texts(mem, i, c, t, x) > 0:
        status = _walk_texts(handles, arena, trie, np.int64(-1), np.int64(0))
        mem[M_NODE] = 0 if status != LIVE else mem[M_NODE]
    if status == EXACT:
        status = _walk_all(mem, _arena(arena), vocabulary, _small(trie, T_FIRST), path, node, given, words)
    if status != LIVE:
        return status
    return _finished(handles, words, may_end)


@njit(cache=True, nogil=True)
def _opens(mem, i):  # type: ignore[no-untyped-def]
    """What a quote leads to in a structural state, if it opens a string that may hold anything at first; else 0."""
    inst = mem[R_INST] + INST * i
    value = mem[inst + I_CLASS + QUOTE]
    if value <= 0:
        return np.int64(0)
    target = mem[R_INST] + INST * (value & GOTO_MASK)
    if mem[target + I_ROW] != FREE or mem[target + I_FLAGS] & ~OTHERS != 0:
        return np.int64(0)
    return np.int64(value)


@njit(cache=True, nogil=True)
def fill_tops(  # type: ignore[no-untyped-def]
    handles, arena, trie, i, sid, first, n_first, runs, exit_, node, given, may_end
):
    """The mask of a structural state, as `fill_whole`.

    first  address of (n_first,) int32: the tokens of whitespace alone
    runs   table of what follows whitespace (B_*): nodes, each with the state of the whitespace there; where it is a
           quote, which ids stay inside a string without constraints, and which exits from it there are
    exit_  0 to begin; else what meta[M_EXIT] was
    """
    mem, rows, words = _numbers(handles, H_MEM), _arena(arena), _bits(handles, H_WORDS)
    path = _places(handles, H_PATH)
    vocabulary = _trie(trie)
    info, end, _ = vocabulary
    pointer, n_tops = pointer_to(runs, B_TOPS)
    places = carray(pointer, (n_tops, 6), np.int64)
    mem[M_GENERIC] = 1
    if exit_ == 0 and node < 0:
        words[:] = 0
        _allow(words, carray(as_pointer(first), (n_first,), np.int32))
    classes = mem[R_INST] + INST * i + I_CLASS
    consts = mem[R_CONSTS]
    opens = _opens(mem, i)
    for k in range(exit_, n_tops):
        top = places[k, 0]
        packed = np.int64(info[top])
        begin = node < 0 or (node == top and given == 0)
        if begin and mem[classes + mem[consts + 8 * (packed & 255)]] == 0:
            node = np.int64(-1)
            continue
        if opens != 0 and places[k, 3] != 0 and (begin or mem[M_INNER] >= 0):
            inner = sid
            made = opens >> 30 & GOTO_MASK
            if made:
                inner = push(mem, sid, made << 1 | (np.int64(1) if opens & RECORD else np.int64(0)))
                if inner < 0:
                    mem[M_EXIT] = k
                    mem[M_NODE] = -1
                    return np.int64(FULL)
            if begin:
                _allow(words, _small(runs, B_IDS)[places[k, 2] : places[k, 3]])
                mem[M_INNER] = 0
            target = opens & GOTO_MASK
            exits = _places(runs, B_EXITS)[places[k, 4] : places[k, 5]]
            mem[M_EXIT] = mem[M_INNER]
            mem[M_NODE] = np.int64(-1) if begin else node
            status = np.int64(LIVE)
            if exits.shape[0] > 0:
                t = mem[mem[R_INST] + INST * target + I_TRIE]
                depth, most = packed >> 8, np.int64(1) << np.int64(30)
                zero = np.int64(0)
                status = walk_exits(
                    mem, rows, vocabulary, target, t, inner, exits, depth, zero, most, path, given, words
                )
        else:
            status = np.int64(EXACT)
            if begin:
                node = top
                depth = packed >> 8
                e = depth - 1
                path[e, 0] = i
                path[e, 1] = 0
                path[e, 2] = 0
                path[e, 3] = places[k, 1]
                path[e, 4] = sid
                if packed & 255 == 0x22 and step(mem, rows, path, e, np.int64(0x22), path, depth) == LIVE:
                    if _reads_texts(mem, path[depth, 0], path[depth, 1], path[depth, 2], np.int64(0)) > 0:
                        _allow(words, vocabulary[2][top : top + 1])
                        status = _walk_texts(handles, arena, trie, top, depth)
                        mem[M_NODE] = top if status != LIVE else mem[M_NODE]
            if status == EXACT:
                status = walk(mem, rows, vocabulary, path, node, np.int64(end[top]), given, words)
            mem[M_EXIT] = -1
        given = np.int64(0)
        if status != LIVE:
            mem[M_INNER] = mem[M_EXIT]
            mem[M_EXIT] = k
            return status
        node = np.int64(-1)
    return _finished(handles, words, may_end)


@njit(cache=True, nogil=True)
def fill_exits(  # type: ignore[no-untyped-def]
    handles, arena, trie, i, t, sid, exits, n_exits, low, high, exit_, node, given, may_end
):
    """Add the tokens below the exits of a lexeme to the words as they are; then as `fill_whole`.

    exits      address of (n_exits, 5) int64, as `kernels.json_content.walk_inside` leaves them
    low, high  only exits with so many characters before them
    exit_      as in `fill_tops`
    """
    places = carray(as_pointer(exits), (n_exits, 5), np.int64)
    return _fill_exits(handles, arena, trie, i, t, sid, places, low, high, exit_, node, given, may_end)


@njit(cache=True, nogil=True)
def _fill_exits(handles, arena, trie, i, t, sid, places, low, high, exit_, node, given, may_end):  # type: ignore[no-untyped-def]
    mem, words, path = _numbers(handles, H_MEM), _bits(handles, H_WORDS), _places(handles, H_PATH)
    mem[M_GENERIC] = 1
    mem[M_EXIT] = exit_
    mem[M_NODE] = node
    if places.shape[0] > 0:
        status = walk_exits(
            mem, _arena(arena), _trie(trie), i, t, sid, places, np.int64(0), low, high, path, given, words
        )
        if status != LIVE:
            return status
    return _finished(handles, words, may_end)


@njit(cache=True, nogil=True)
def _write_inside(inside, words):  # type: ignore[no-untyped-def]
    """The tokens that stay inside a lexeme."""
    known = _bits(inside, W_WORDS)
    if known.shape[0] > 0:
        words[: words.shape[0] - 1] = known
    else:
        words[:] = 0
        _allow(words, _small(inside, W_IDS))


@njit(cache=True, nogil=True)
def _clear_texts(mem, vocabulary, words, path, t, exits, starts, out):  # type: ignore[no-untyped-def]
    """Forbid the tokens below the exits at which a known text is complete; out: these exits, and how many.

    starts  (257,) int32: where the exits behind each first byte begin
    """
    n = np.int64(0)
    at = mem[R_NODES] + 6 * t
    for j in range(-2, mem[at + 1]):  # a quote at once, an escape, what known texts begin with
        b = np.int64(0x22) if j == -2 else np.int64(0x5C)
        if j >= 0:
            b = mem[mem[R_NODES] + 6 * (mem[at] + j) + 2]
            if b == 0x22 or b == 0x5C:
                continue
        for k in range(starts[b], starts[b + 1]):
            node = _text_at(mem, vocabulary, exits, np.int64(0), k, t, path)
            if node > 0 and mem[mem[R_NODES] + 6 * node + 3] >= 0:
                for m in range(5):
                    out[n, m] = exits[k, m]
                n += 1
                top = exits[k, 0]
                for m in range(top, vocabulary[1][top]):
                    token = vocabulary[2][m]
                    words[token >> 5] &= ~(np.uint32(1) << np.uint32(token & 31))
    return n


@njit(cache=True, nogil=True)
def _live_texts(handles, arena, texts, i, c, sid):  # type: ignore[no-untyped-def]
    """Find which texts may stand behind the quote that ends a string at content row `c`: LIVE, or as `fill_whole`.

    Left in the words of T_LIVE.
    """
    mem, rows, path = _numbers(handles, H_MEM), _arena(arena), _places(handles, H_PATH)
    live = _bits(texts, T_LIVE)
    live[:] = 0
    run = _places(handles, H_RUN)
    run[0, 0] = i
    run[0, 1] = c
    run[0, 2] = 0
    run[0, 3] = max(mem[mem[R_INST] + INST * i + I_LEAST], 0) << 32
    run[0, 4] = sid
    status = np.int64(step(mem, rows, run, np.int64(0), np.int64(0x22), path, np.int64(0)))
    if status == DEAD:
        return np.int64(LIVE)
    if status != LIVE:
        return status
    live[0] = 1
    trie = _trie(texts)
    return walk(mem, rows, trie, path, np.int64(0), np.int64(trie[0].shape[0]), np.int64(0), live)


@njit(cache=True, nogil=True)
def _seen(inside, live):  # type: ignore[no-untyped-def]
    """Which of the kept masks is that of these texts behind the quote: -1 if none is."""
    n, seen = _numbers(inside, W_ROW)[1], _bits(inside, W_SEEN)
    width = live.shape[0] - 1
    for k in range(n):
        at = np.int64(0)
        while at < width and seen[k * width + at] == live[at]:
            at += 1
        if at == width:
            return np.int64(k)
    return np.int64(-1)


@njit(cache=True, nogil=True)
def fill_string(handles, arena, trie, texts, inside, i, t, sid, low, high, ready, may_end):  # type: ignore[no-untyped-def]
    """The mask within a string: as `fill_whole`, but begin again after a hole; or KNOWN - k: mask k of W_MASKS.

    texts      table of the texts behind a closing quote (T_*)
    inside     table of what tokens do (W_*): words, or ids, of those that stay inside; those that end the string at a
               content row, with the texts behind the quote and the characters before it; exits, as
               `kernels.json_content.walk_inside` leaves them, of all tokens that leave, and of those that do it
               otherwise; masks, each with the texts that may stand behind the quote, which decide about all of it
    low, high  only tokens with so many characters before the end
    ready      are the tokens that stay inside written already?
    """
    mem, words, path = _numbers(handles, H_MEM), _bits(handles, H_WORDS), _places(handles, H_PATH)
    vocabulary = _trie(trie)
    mem[M_GENERIC] = 1
    if t == -1:
        t = mem[mem[R_INST] + INST * i + I_TRIE]
        if t == -1:
            mem[M_KIND] = HOLE_TRIE
            mem[M_A] = i
            return np.int64(HOLE)
    zero = np.int64(0)
    live = _bits(texts, T_LIVE)
    tokens, text, chars = _small(inside, W_TOKENS), _small(inside, W_TEXTS), _small(inside, W_CHARS)
    if tokens.shape[0] > 0:
        status = _live_texts(handles, arena, texts, i, _numbers(inside, W_ROW)[0], sid)
        if status != LIVE:
            return status
    others = _places(inside, W_OTHERS)
    pointer, room = pointer_to(inside, W_MASKS)
    n_words = words.shape[0] - 1
    known = carray(pointer, (room, n_words), np.uint32)
    keeps = room > 0 and tokens.shape[0] > 0 and others.shape[0] == 0 and low <= 0 and high >= NO_BOUND
    k = _seen(inside, live) if keeps else np.int64(-1)
    if k >= 0:
        if t == 0:
            return np.int64(KNOWN - k)
        words[:n_words] = known[k]
    else:
        if not ready:
            _write_inside(inside, words)
        for k in range(tokens.shape[0]):
            g = text[k]
            if live[g >> 5] >> np.uint32(g & 31) & np.uint32(1) != 0 and low <= chars[k] <= high:
                token = tokens[k]
                words[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
        rows = _arena(arena)
        mem[M_EXIT] = 0
        mem[M_NODE] = -1
        if others.shape[0] > 0:
            status = walk_exits(mem, rows, vocabulary, i, t, sid, others, zero, low, high, path, zero, words)
            if status != LIVE:
                return status
    if t != 0:  # a token that completes a known text does what that one asks for
        found = _places(handles, H_TEXTS)
        n = _clear_texts(mem, vocabulary, words, path, t, _places(inside, W_EXITS), _small(inside, W_STARTS), found)
        if n > 0:
            mem[M_EXIT] = 0
            mem[M_NODE] = -1
            status = walk_exits(
                mem, _arena(arena), vocabulary, i, t, sid, found[:n], np.int64(0), low, high, path, np.int64(0), words
            )
            if status != LIVE:
                return status
        return _finished(handles, words, may_end)
    n = _finished(handles, words, may_end)
    head = _numbers(inside, W_ROW)
    if not keeps or head[1] >= room or n <= pointer_to(handles, H_IDS)[1]:
        return n
    k = head[1]
    seen, width = _bits(inside, W_SEEN), live.shape[0] - 1
    for j in range(width):
        seen[k * width + j] = live[j]
    known[k] = words[:n_words]
    head[1] = k + 1
    return np.int64(KNOWN - k)


@njit(cache=True, nogil=True)
def fill_state(handles, arena, trie, texts, number, may_end):  # type: ignore[no-untyped-def]
    """The mask of the configuration of a number, where all that it needs is at hand.

    Returns how many ids are allowed; HOLE, FULL: call again, from the beginning; EXACT: the other calls can tell.

    texts  as in `fill_string`, 0: not known yet
    """
    mem, configs = _numbers(handles, H_MEM), _places(handles, H_CONFIGS)
    i, c, t, x, sid = configs[number, 0], configs[number, 1], configs[number, 2], configs[number, 3], configs[number, 4]
    inst = mem[R_INST] + INST * i
    kind, flags = mem[inst + I_KIND], mem[inst + I_FLAGS]
    zero = np.int64(0)
    if kind == STRUCT:
        runs, k = _numbers(handles, H_RUNS), 3 * (x - WS)
        if runs[k + 2] == 0:
            return np.int64(EXACT)
        return fill_tops(
            handles, arena, trie, i, sid, runs[k], runs[k + 1], runs[k + 2], zero, np.int64(-1), zero, may_end
        )
    if c == 0 or x & 0xFFFFFFFF != 0:
        return fill_whole(handles, arena, trie, i, c, t, x, sid, np.int64(-1), zero, may_end)
    inside = _numbers(arena, A_INSIDE)[c]
    if inside == 0 or texts == 0:
        return np.int64(EXACT)
    most = np.int64(NO_BOUND)
    if kind == STRING:
        low, ready = zero, False
        if flags & COUNTED:
            if c != FREE or t != 0:
                return np.int64(EXACT)
            low = mem[inst + I_LEAST] - (x >> 32)
            room = mem[inst + I_MOST] - (x >> 32)
            if mem[inst + I_MOST] >= 0 and room < _places(handles, H_PATH).shape[0] - 1:
                rooms = _numbers(inside, W_ROOMS)
                if room >= rooms.shape[0] or rooms[room] == 0:
                    return np.int64(EXACT)
                words, ready, most = _bits(handles, H_WORDS), True, room
                words[: words.shape[0] - 1] = carray(as_pointer(rooms[room]), (words.shape[0] - 1,), np.uint32)
        if t == 0 or (c == FREE and flags == OTHERS):
            if t != 0 and pointer_to(inside, W_EXITS)[1] > pointer_to(handles, H_TEXTS)[1]:
                return np.int64(EXACT)
            return fill_string(handles, arena, trie, texts, inside, i, t, sid, low, most, ready, may_end)
        return np.int64(EXACT)
    words = _bits(handles, H_WORDS)
    _write_inside(inside, words)
    exits = _places(inside, W_EXITS)
    return _fill_exits(handles, arena, trie, i, t, sid, exits, zero, most, zero, np.int64(-1), zero, may_end)
