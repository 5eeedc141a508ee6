"""What tokens do inside a lexeme: walks from a content state, whatever the schema around it.

A walk goes down the vocabulary's trie and the content rows side by side. It looks at the bytes of a node's children,
which lie side by side, so that what is dead costs no memory access, and at most of what lives it does not look at all:
many rows lead back to themselves by all letters, say, or by all characters. For each node it is known which
*categories* of characters come below it; where a row leads back to itself by all of these, everything below stays
inside.

Categories are of ASCII characters, and of others by the first byte of their UTF-8, provided that what comes below a
node are whole characters (or a token ends within one). What cannot be summed up so is OPAQUE.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]
from numpy.typing import NDArray

from outlines_core.kernels.borrow import pointer_to
from outlines_core.kernels.json import ESCAPED, PENDING, PENDING_ESCAPED, RAW_ED, _in_string, _row_filled
from outlines_core.kernels.json_masks import T_BELOW, T_BYTES, T_END, T_INFO, T_NODES, T_TOKEN
from outlines_core.kernels.json_memory import (
    CLASSES,
    DEAD,
    FILLED,
    FULL,
    HOLE,
    HOLE_ROW,
    LIVE,
    M_A,
    M_KIND,
    M_N_EXITS,
    M_NODE,
    NEEDED,
    OUTCOME,
    PLAIN,
    R_CONSTS,
    STRING,
)

__all__ = ["categories_below", "follow", "is_like_any_string", "loops_of", "usable_categories", "walk_inside"]

_MOST_OTHER: Final = 24
_NO_CATEGORY: Final = 58
# first bytes of characters, and their size; spaces and line ends beyond ASCII begin with C2, E1, E2, E3 or EF
_LEADS: Final = (
    (0xC2, 0xC2, 2),
    (0xC3, 0xDF, 2),
    (0xE0, 0xE0, 3),
    (0xE1, 0xE1, 3),
    (0xE2, 0xE2, 3),
    (0xE3, 0xE3, 3),
    (0xE4, 0xEC, 3),
    (0xEE, 0xEE, 3),
    (0xEF, 0xEF, 3),
    (0xF0, 0xF0, 4),
    (0xF1, 0xF3, 4),
    (0xF4, 0xF4, 4),
)
_FIRST_LEAD: Final = 40


def _categories() -> NDArray[np.uint8]:
    """(256,) uint8: hexadecimal and other letters, digits, each other printable character; groups of first bytes."""
    found = np.full(256, _NO_CATEGORY, dtype=np.uint8)
    number = 5
    for byte in range(0x20, 0x7F):
        char = chr(byte)
        if char in '"\\':
            continue
        groups = (char.isdigit(), char in "abcdef", char.islower(), char in "ABCDEF", char.isupper())
        found[byte] = groups.index(True) if True in groups else number
        number += True not in groups
    for k, (first, last, _) in enumerate(_LEADS):
        found[first : last + 1] = _FIRST_LEAD + k
    return found


CATEGORY: Final = _categories()
_OPAQUE: Final = np.int64(1) << np.int64(61)
_BEYOND: Final = np.int64((1 << len(_LEADS)) - 1 << _FIRST_LEAD)
_MOST_BEYOND: Final = np.int64(1 << int(CATEGORY[0xC3]) | 1 << int(CATEGORY[0xE4]))
_ASKED: Final = np.int64(1) << np.int64(59)
# where a walk of bytes from the root is: at the begin of a character, or what must come to end one, or it is not known
_BEGIN, _ONE, _TWO, _THREE, _E0, _F0, _F4, _LOST = range(8)


@njit(cache=True, nogil=True)
def _after(at, b):  # type: ignore[no-untyped-def]
    """Where a byte leads to; _LOST also if it cannot come."""
    if at == _BEGIN:
        if b < 0x80:
            return _BEGIN
        if 0xC2 <= b < 0xE0:
            return _ONE
        if b == 0xE0:
            return _E0
        if 0xE1 <= b < 0xF0 and b != 0xED:
            return _TWO
        if b == 0xF0:
            return _F0
        if 0xF1 <= b < 0xF4:
            return _THREE
        return _F4 if b == 0xF4 else _LOST
    if b < 0x80 or b >= 0xC0:
        return _LOST
    if at == _ONE:
        return _BEGIN
    if at == _TWO:
        return _ONE
    if at == _THREE:
        return _TWO
    if at == _E0:
        return _ONE if b >= 0xA0 else _LOST
    if at == _F0:
        return _TWO if b >= 0x90 else _LOST
    return _TWO if at == _F4 and b < 0x90 else _LOST


@njit(cache=True, nogil=True)
def categories_below(info, end, out_bits):  # type: ignore[no-untyped-def]
    """The categories of the characters below each node of a trie, a bit for each: (n_nodes,) int64 `out_bits`."""
    n = info.shape[0]
    place = np.empty(n, dtype=np.uint8)  # before the node
    after = np.zeros(int(info.max() >> 8) + 2 if n else 1, dtype=np.uint8)
    after[0] = _BEGIN
    for node in range(n):
        depth, b = np.int64(info[node]) >> 8, np.int64(info[node]) & 255
        place[node] = after[depth - 1]
        to = _after(after[depth - 1], b)
        after[depth] = _BEGIN if to == _LOST and b < 0x80 else to
    for node in range(n - 1, -1, -1):
        bits = np.int64(0)
        child = np.int64(node) + 1
        while child < end[node]:
            b = np.int64(info[child]) & 255
            lost = _after(place[child], b) == _LOST
            if b >= 0x80 and place[child] != _BEGIN and not lost:
                pass  # it is of the category of the character's first byte
            elif CATEGORY[b] == _NO_CATEGORY or (lost and (b >= 0x80 or place[child] != _LOST)):
                bits |= _OPAQUE
            else:
                bits |= np.int64(1) << np.int64(CATEGORY[b])
            bits |= out_bits[child]
            child = np.int64(end[child])
        out_bits[node] = bits
    for node in range(n):  # within a character; only now, since those above sum up what is below
        if node + 1 < end[node] and place[node + 1] != _BEGIN and place[node + 1] != _LOST:
            out_bits[node] |= _OPAQUE
        elif out_bits[node] & _BEYOND != 0 and place[node + 1] == _LOST:
            out_bits[node] |= _OPAQUE


@njit(cache=True, nogil=True)
def usable_categories(usable):  # type: ignore[no-untyped-def]
    """The categories all of whose bytes are usable: (256,) bool."""
    bits = ~np.int64(0)
    for b in range(0x20, 256):
        if not usable[b] and CATEGORY[b] != _NO_CATEGORY:
            bits &= ~(np.int64(1) << np.int64(CATEGORY[b]))
        elif not usable[b] and 0x80 <= b < 0xC0:
            bits &= ~_BEYOND
    return bits


@njit(cache=True, nogil=True)
def loops_of(row, c):  # type: ignore[no-untyped-def]
    """The categories by all of whose characters row `c` leads back to itself."""
    bits = (np.int64(1) << np.int64(_FIRST_LEAD)) - 1
    for b in range(0x20, 0x7F):
        if row[b] != c and CATEGORY[b] != _NO_CATEGORY:
            bits &= ~(np.int64(1) << np.int64(CATEGORY[b]))
    return bits


@njit(cache=True, nogil=True)
def _all_lead(rows, c, low, high):  # type: ignore[no-untyped-def]
    """The row that bytes low..high lead to from row `c`; 0 if there are several, -1 if `c` is not filled."""
    if c == 0:
        return np.int64(0)
    if rows[c, FILLED] == 0:
        return np.int64(-1)
    to = rows[c, low]
    for b in range(low + 1, high + 1):
        if rows[c, b] != to:
            return np.int64(0)
    return np.int64(to)


@njit(cache=True, nogil=True)
def _ask_beyond(mem, rows, loops, c):  # type: ignore[no-untyped-def]
    """Add to loops[c] by what characters beyond ASCII row `c` (filled) leads back to itself.  LIVE or HOLE."""
    bits = np.int64(0)
    for k in range(len(_LEADS)):
        first, last, size = _LEADS[k]
        low, high = np.int64(0x80), np.int64(0xBF)
        if first == 0xE0:
            low = np.int64(0xA0)
        elif first == 0xF0:
            low = np.int64(0x90)
        elif first == 0xF4:
            high = np.int64(0x8F)
        at = _all_lead(rows, np.int64(c), first, last)
        for _ in range(1, size):
            if at == 0:
                break
            to = _all_lead(rows, at, low, high)
            if to < 0:
                mem[M_KIND] = HOLE_ROW
                mem[M_A] = at
                return np.int64(HOLE)
            at, low, high = to, np.int64(0x80), np.int64(0xBF)
        if at == c:
            bits |= np.int64(1) << np.int64(_FIRST_LEAD + k)
    loops[c] |= _ASKED | bits
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def is_like_any_string(mem, rows, loops, usable, c):  # type: ignore[no-untyped-def]
    """Does row `c` (filled) lead back to itself, or to one other row that does so, by nearly all characters?

    1, 0 or HOLE.
    """
    if ~usable != 0:
        return np.int64(0)
    main, n = np.int64(0), 0  # the row that most characters lead to, if one has the majority
    for b in range(0x20, 0x7F):
        if n == 0:
            main = np.int64(rows[c, b])
        n += 1 if rows[c, b] == main else -1
    if main == 0:
        return np.int64(0)
    if rows[main, FILLED] == 0:
        mem[M_KIND] = HOLE_ROW
        mem[M_A] = main
        return np.int64(HOLE)
    n = 0
    for b in range(0x20, 0x7F):
        n += (rows[c, b] != main) + (rows[main, b] != main)
    if n > _MOST_OTHER:
        return np.int64(0)
    if loops[main] & _ASKED == 0 and _ask_beyond(mem, rows, loops, main) == HOLE:
        return np.int64(HOLE)
    return np.int64(loops[main] & _MOST_BEYOND == _MOST_BEYOND)


@njit(cache=True, nogil=True)
def walk_inside(mem, rows, loops, usable, trie, bits, kind, path, trail, fresh, depth, out_mask, lengths, exits, less):  # type: ignore[no-untyped-def]
    """Tokens that stay inside a lexeme of which nothing but its content state counts, and the nodes where it ends.

    loops     (n_rows,) int64: what `loops_of` says of filled rows; what lies beyond ASCII is added
    usable    from `usable_categories`
    trie      address of a table (`kernels.json_masks` T_*)     bits  (n_nodes,) int64, from `categories_below`
    kind      STRING or PLAIN
    path      (max_depth + 2, 5) int64: instance 0, c, escape state (without a count), characters read, last 8 bytes
    trail     (max_depth + 2, 3) int64: by depth the node that was come to, and which of its children come next
    fresh     begin below node trail[depth, 0] (-1: the root)?  Else go on where HOLE or FULL has stopped.
    depth     of the node that was begun with; path[depth] is the configuration there
    out_mask  (n_words + 1,) uint32; bits are added
    lengths   (size,) int32 or empty: characters that tokens need which stay inside: their own, and then to an end;
              of those that end within an escape, one for it and nothing for what follows
    exits     (n, 5) int64: node; before it: c, characters, escape state, the last 8 bytes
    less      are all tokens set that could stay inside? Then bits of those that do not are cleared.
    Returns LIVE when done; HOLE or FULL (exits): call again.  meta[M_N_EXITS] counts the exits.
    """
    pointer, n = pointer_to(trie, T_END)
    end = carray(pointer, (n,), np.int32)
    pointer, n = pointer_to(trie, T_TOKEN)
    token = carray(pointer, (n,), np.int32)
    pointer, n = pointer_to(trie, T_BELOW)
    below = carray(pointer, (n,), np.int32)
    pointer, n = pointer_to(trie, T_BYTES)
    labels = carray(pointer, (n,), np.uint8)
    pointer, n = pointer_to(trie, T_NODES)
    nodes = carray(pointer, (n,), np.int32)
    consts = mem[R_CONSTS]
    counting = lengths.shape[0] > 0
    zero, top = np.int64(0), depth
    if fresh:
        mem[M_N_EXITS] = 0
        trail[depth, 1] = below[trail[depth, 0] + 1]
        trail[depth, 2] = below[trail[depth, 0] + 2]
    else:
        depth = mem[M_NODE]
    while depth >= top:
        c, x, n = path[depth, 1], path[depth, 2], path[depth, 3]
        if not _row_filled(mem, rows, c):
            mem[M_NODE] = depth
            return np.int64(HOLE)
        may_leave = rows[c, OUTCOME] >= 0
        k, stop = trail[depth, 1], trail[depth, 2]
        pushed = False
        while k < stop:
            b = np.int64(labels[k])
            leaving = False
            inner, chars = x, n
            if kind == PLAIN:
                to = np.int64(rows[c, b])
                status = np.int64(LIVE) if to != 0 else np.int64(DEAD)
                leaving = to == 0 and may_leave and mem[consts + 8 * b] < CLASSES - 1
            elif x == 0 and b >= 0x20 and b != 0x22 and b != 0x5C and b != 0xED:
                to = np.int64(rows[c, b])
                status = np.int64(LIVE) if to != 0 and mem[consts + 8 * b + 1] != 0 else np.int64(DEAD)
                chars += (b & 0xC0) != 0x80
            else:
                stage = x >> 19 & 7
                to = zero
                if b == 0x22 and stage != ESCAPED and stage != PENDING_ESCAPED:
                    status = np.int64(DEAD)
                    leaving = stage == PENDING or (stage == 0 and may_leave)
                    chars += stage == PENDING
                else:  # instance 0 counts
                    found, to, _, inner = _in_string(mem, rows, zero, c, zero, (n << 32) | x, b)
                    status = np.int64(found)
                    if status == HOLE:
                        trail[depth, 1] = k
                        mem[M_NODE] = depth
                        return status
                    chars = inner >> 32
                    inner &= 0xFFFFFFFF
            if status != LIVE:
                if leaving:
                    e = mem[M_N_EXITS]
                    if e >= exits.shape[0]:
                        trail[depth, 1] = k
                        mem[M_NODE] = depth
                        return np.int64(FULL)
                    exits[e, 0] = nodes[k]
                    exits[e, 1] = c
                    exits[e, 2] = chars
                    exits[e, 3] = x if kind != PLAIN else zero
                    exits[e, 4] = path[depth, 4]
                    mem[M_N_EXITS] = e + 1
                if less:
                    for m in range(nodes[k], end[nodes[k]]):
                        out_mask[token[m] >> 5] &= ~(np.uint32(1) << np.uint32(token[m] & 31))
                k += 1
                continue
            node = np.int64(nodes[k])
            first, last = np.int64(below[node + 1]), np.int64(below[node + 2])
            if first < last:
                if not _row_filled(mem, rows, to):
                    trail[depth, 1] = k
                    mem[M_NODE] = depth
                    return np.int64(HOLE)
                if kind == STRING and inner == 0:
                    missing = bits[node] & ~(loops[to] & usable)
                    if missing & _BEYOND & usable != 0 and loops[to] & _ASKED == 0 and missing & ~_BEYOND == 0:
                        if not counting and _ask_beyond(mem, rows, loops, to) == HOLE:
                            trail[depth, 1] = k
                            mem[M_NODE] = depth
                            return np.int64(HOLE)
                        missing = bits[node] & ~(loops[to] & usable)
                    if missing == 0 and less:
                        k += 1
                        continue
                    if missing == 0 and not (counting and bits[node] & _BEYOND != 0):
                        for m in range(node, end[node]):
                            t = token[m]
                            out_mask[t >> 5] |= np.uint32(1) << np.uint32(t & 31)
                            if counting and t < lengths.shape[0]:
                                lengths[t] = chars + _depth_below(trie, node, m) + rows[to, NEEDED]
                        k += 1
                        continue
            t = token[node]
            out_mask[t >> 5] |= np.uint32(1) << np.uint32(t & 31)
            if counting and t < lengths.shape[0]:
                stage = inner >> 19 & 7
                within = stage != 0 and stage != RAW_ED
                lengths[t] = chars + (np.int64(1) if within else np.int64(rows[to, NEEDED]))
            k += 1
            if first < last:
                trail[depth, 1] = k
                path[depth + 1, 0] = 0
                path[depth + 1, 1] = to
                path[depth + 1, 2] = inner
                path[depth + 1, 3] = chars
                path[depth + 1, 4] = path[depth, 4] << 8 | b
                depth += 1
                trail[depth, 0] = node
                trail[depth, 1] = first
                trail[depth, 2] = last
                pushed = True
                break
        if not pushed:
            depth -= 1
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def _depth_below(trie, node, m):  # type: ignore[no-untyped-def]
    """How much deeper trie node `m` is than `node`."""
    pointer, n = pointer_to(trie, T_INFO)
    info = carray(pointer, (n,), np.int32)
    return (np.int64(info[m]) >> 8) - (np.int64(info[node]) >> 8)


@njit(cache=True, nogil=True)
def follow(mem, rows, c, data, indptr, begin, out_rows):  # type: ignore[no-untyped-def]
    """Which content row texts that stay inside a string lead to from row `c`, 0 if they die.

    data, indptr  the texts' bytes, uint8 and int64 offsets; what a text has in common with the one before is not read
                  again, so they are best sorted
    begin         the text to begin with: 0, or meta[M_NODE] after HOLE
    out_rows      (n,) int64
    """
    zero = np.int64(0)
    longest = 0
    for k in range(begin, out_rows.shape[0]):
        longest = max(longest, indptr[k + 1] - indptr[k])
    path = np.empty((longest + 1, 2), dtype=np.int64)  # row and escape state after so many bytes
    path[0, 0] = c
    path[0, 1] = 0
    known = np.int64(0)  # so many bytes of the text before are in the path
    for k in range(begin, out_rows.shape[0]):
        first, size = indptr[k], indptr[k + 1] - indptr[k]
        n = np.int64(0)
        if k > begin:
            before = indptr[k - 1]
            while n < known and n < size and data[before + n] == data[first + n]:
                n += 1
        while n < size:
            # instance 0 counts
            status, at, _, x = _in_string(mem, rows, zero, path[n, 0], zero, path[n, 1], np.int64(data[first + n]))
            if status == HOLE:
                mem[M_NODE] = k
                return np.int64(status)
            if status != LIVE:
                break
            n += 1
            path[n, 0] = at
            path[n, 1] = x
        known = n
        out_rows[k] = path[n, 0] if n == size else zero
    return np.int64(LIVE)
