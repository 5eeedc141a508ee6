"""Masks of LALR with a lexer, from what can be known without the parser.

A *place* is a set of nodes of the trie, each with the row behind its byte. What lies below it does not depend on the
parser and is found out once: the tokens that stay within the lexeme, in groups by the terminals that it can become,
of which the parser is asked; and the *exits*, nodes whose byte no longer belongs to the lexeme, in groups by
what the lexeme is then. Behind an exit that the parser lets through, its nodes are a place again, for each lexer one.
Places are made where it is worth it; elsewhere the nodes are walked, byte by byte.

What is allowed at a place depends on the upper part of the stack, as far as the parser looks: mostly on the state on
top of it, for some groups and exits on more. So it is noted by the states from the top downwards: in each note what is
decided by the states so far, and what is left, for which the parser looks deeper. What is left may depend on the number
of open brackets or on the columns of the indentation: these are levels of their own. A new stack mostly is a new way to
combine parts that are noted.

    places   (n, 4) int32: groups from, to; exits from, to
    groups   (n, 4) int32: endings (see `kernels.grammar`) · row of `dense` or -1 · ids from, to
    exits    (n, 7) int32: terminal · boundary behind it · column before it (from RELATIVE on it counts from that
             before the place) · nodes from, to · how many nodes there are below these · how many of them were walked
    links    (a power of two, 2) int64: a hash table of the places behind exits; exit * lexers + lexer + 1, the place
    ids, nodes  int32
    dense    (n, words) uint32
    memos    (a power of two, 4) int64: a hash table of notes; number << 31 | a code: of states a hash, BRACKETS_CODE +
             brackets, or INDENTS_CODE and indents << 9 | column + 1 · where it begins in `notes` and where what is left
             begins (32 bits each): first the states, then what is allowed · how many states the next level has, where
             what is left ends · what the next level is, 0 if nothing is left: 4 * number + BY_STATE, BY_BRACKETS or
             BY_INDENTS.
             Numbers of the first level are 2 * place, or of an exit that is walked 2 * exit + 1; from FIRST_NUMBER on
             they belong to further levels; with WHOLE_NUMBER hashes lead to rows of `whole`
    notes    int32: what is allowed is a group, or from WHOLE on a row of `whole`, or minus one minus the place of ids
             here, how many and then they;
             what is left is 4 * group + ASK_GROUP, 4 * exit + ASK_EXIT, or ASK_WALK
    whole    (n, words) uint32: what is allowed, where that is much; none twice
    roots    (rows, 2) int32: by row before a token a place, 0 if there is none yet: within a lexeme, before one
    counts   (6,) int64: how many memos and notes there are; how many nodes may be walked at once for want of a place,
             and in all; how many numbers there are beyond those of the first level; how many rows of `whole`
    gathered int32: scratch; as what is allowed in `notes`
    results  (n, 5) int64: scratch; of what is asked: what it is, what of it is allowed from, to in `gathered`, how many
             levels of the stack were looked at beside the first, what else was looked at
    wanted   (n, 2) int64: exits and lexers for which a place would have been of use; meta[M_WANTED] of them
    path     (max_depth + 2, 2) int64, tasks (n, 5) int64, found (n, 4) int64: scratch
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from outlines_core.kernels.borrow import pointer_to
from outlines_core.kernels.grammar import (
    BRACKETS,
    DEAD,
    FULL,
    H_COUNTS,
    H_DENSE,
    H_END,
    H_EXITS,
    H_FOUND,
    H_GATHERED,
    H_GROUPS,
    H_IDS,
    H_INDENTS,
    H_INFO,
    H_LINKS,
    H_LR,
    H_MASK,
    H_MEMOS,
    H_NODES,
    H_NOTES,
    H_PATH,
    H_PLACES,
    H_POOL,
    H_RESULTS,
    H_ROOTS,
    H_STACKS,
    H_TASKS,
    H_TOKEN,
    H_WANTED,
    H_WHOLE,
    HOLE_PARTS,
    HOLE_ROW,
    HOLE_START,
    INDENTS,
    L_LEXERS,
    LIVE,
    M_A,
    M_B,
    M_CHILDREN,
    M_EXITS,
    M_FOUND,
    M_GATHERED,
    M_ITEM,
    M_ITEMS,
    M_KEPT,
    M_LOOKED,
    M_LOWEST,
    M_NODE,
    M_NOTING,
    M_PAIRS,
    M_RESULTS,
    M_WANTED,
    M_WORDS,
    NEWLINE,
    PARTS,
    UNKNOWN,
    any_taken,
    begun,
    column_after,
    event,
    followed,
    full,
    has_room,
    is_live,
    lexer_of,
    meta_of,
    numbers,
    quadruples,
    rows_of,
    start_of,
    triples,
)

HOLE_PLACE, HOLE_BEGINS, HOLE_LINK = -10, -11, -12
ASK_GROUP, ASK_EXIT, ASK_WALK = 0, 1, 2
BY_STATE, BY_BRACKETS, BY_INDENTS = 1, 2, 3
BRACKETS_CODE, INDENTS_CODE = 1 << 20, 1 << 30
RELATIVE: Final = 1 << 20
FIRST_NUMBER: Final = 1 << 31
WHOLE_NUMBER: Final = FIRST_NUMBER - 1
WHOLE: Final = 1 << 30
MANY: Final = 1024  # ids: more of them make a row of `whole`
PATIENCE_ONCE, PATIENCE = 2, 3


@njit(cache=True, nogil=True)
def walk_inside(rows, pool, vocabulary, nobody, meta, path, cut, items, out_pairs, out_exits, out_children):  # type: ignore[no-untyped-def]
    """What lies below some nodes.

    nobody        what is no token
    path          (max_depth + 2, 2) int64: row and column by depth
    cut           nodes with more nodes below are left out as children, but for the first one of an item
    items         (n, 4) int64: node (-1: the root), row behind its byte, column, 1 if the item may be a child itself;
                  meta[M_ITEMS] of them, meta[M_ITEM] is the one to go on with, from meta[M_NODE] on (-2: the beginning)
    out_pairs     (n, 2) int32: a token, the row in which it ends; meta[M_PAIRS] of them
    out_exits     (n, 4) int32: node, terminal, boundary, column before the node; meta[M_EXITS] of them
    out_children  (n, 2) int32: node and row; meta[M_CHILDREN] of them
    Returns LIVE when done; HOLE_ROW or FULL: call again.
    """
    info, end, token = vocabulary
    while meta[M_ITEM] < meta[M_ITEMS]:
        item = meta[M_ITEM]
        first, q = items[item, 0], items[item, 1]
        stop = np.int64(end.shape[0]) if first < 0 else np.int64(end[first])
        node = meta[M_NODE]
        if node == -2:
            if out_pairs.shape[0] <= meta[M_PAIRS] or out_children.shape[0] <= meta[M_CHILDREN]:
                return FULL
            if items[item, 3] == 1 and stop - first > cut and rows[q, NEWLINE] == 0:
                k = meta[M_CHILDREN]
                out_children[k, 0] = first
                out_children[k, 1] = q
                meta[M_CHILDREN] = k + 1
                meta[M_ITEM] = item + 1
                continue
            depth = np.int64(0) if first < 0 else np.int64(info[first]) >> 8
            path[depth, 0] = q
            path[depth, 1] = items[item, 2]
            if first >= 0 and token[first] != nobody:
                k = meta[M_PAIRS]
                out_pairs[k, 0] = token[first]
                out_pairs[k, 1] = q
                meta[M_PAIRS] = k + 1
            node = first + 1
        while node < stop:
            packed = np.int64(info[node])
            depth, b = packed >> 8, packed & 255
            q, column = path[depth - 1, 0], path[depth - 1, 1]
            target = np.int64(rows[q, b])
            if target == DEAD:
                node = np.int64(end[node])
                continue
            if target == UNKNOWN:
                meta[M_NODE] = node
                meta[M_A] = q
                meta[M_B] = b
                return HOLE_ROW
            e, at = -target, np.int64(0)
            n_rows, n_commits = np.int64(1), np.int64(0)
            if target < 0:
                n_rows = np.int64(pool[e])
                at = e + 1 + n_rows
                n_commits = np.int64(pool[at])
                if out_exits.shape[0] < meta[M_EXITS] + n_commits or items.shape[0] < meta[M_ITEMS] + n_rows:
                    meta[M_NODE] = node
                    return FULL
                target = np.int64(pool[e + 1]) if n_rows else np.int64(DEAD)
            if n_rows and end[node] - node > cut and rows[target, NEWLINE] == 0:
                if out_children.shape[0] <= meta[M_CHILDREN]:
                    meta[M_NODE] = node
                    return FULL
                k = meta[M_CHILDREN]
                out_children[k, 0] = node
                out_children[k, 1] = target
                meta[M_CHILDREN] = k + 1
                is_child = True
            else:
                is_child = False
                if out_pairs.shape[0] <= meta[M_PAIRS]:
                    meta[M_NODE] = node
                    return FULL
            if e > 0:
                for j in range(n_commits):
                    k = meta[M_EXITS]
                    out_exits[k, 0] = node
                    out_exits[k, 1] = pool[at + 1 + 2 * j]
                    out_exits[k, 2] = pool[at + 2 + 2 * j]
                    out_exits[k, 3] = column
                    meta[M_EXITS] = k + 1
                for j in range(1, n_rows):
                    k = meta[M_ITEMS]
                    items[k, 0] = node
                    items[k, 1] = pool[e + 1 + j]
                    items[k, 2] = column_after(meta, rows, items[k, 1], column, b)
                    items[k, 3] = 1
                    meta[M_ITEMS] = k + 1
            if n_rows == 0 or is_child:
                node = np.int64(end[node])
                continue
            path[depth, 0] = target
            path[depth, 1] = column_after(meta, rows, target, column, b)
            if token[node] != nobody:
                k = meta[M_PAIRS]
                out_pairs[k, 0] = token[node]
                out_pairs[k, 1] = target
                meta[M_PAIRS] = k + 1
            node += 1
        meta[M_NODE] = -2
        meta[M_ITEM] = item + 1
    return LIVE


@njit(cache=True, nogil=True)
def find_key(links, key):  # type: ignore[no-untyped-def]
    """Where in a hash table a key is, or should be."""
    cell = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (links.shape[0] - 1)
    while links[cell, 0] != 0 and links[cell, 0] != key:
        cell = (cell + 1) & (links.shape[0] - 1)
    return cell


@njit(cache=True, nogil=True)
def rehash(table, larger):  # type: ignore[no-untyped-def]
    """Enter a hash table's entries in an empty one."""
    for k in range(table.shape[0]):
        if table[k, 0] != 0:
            larger[find_key(larger, table[k, 0])] = table[k]


@njit(cache=True, nogil=True)
def _set(words, t):  # type: ignore[no-untyped-def]
    words[t >> 5] |= np.uint32(1) << np.uint32(t & 31)


@njit(cache=True, nogil=True)
def _words_of(handles, meta, k):  # type: ignore[no-untyped-def]
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n, meta[M_WORDS]), np.uint32)


@njit(cache=True, nogil=True)
def _fours(handles, k):  # type: ignore[no-untyped-def]
    """`places` or `groups`."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n, 4), np.int32)


@njit(cache=True, nogil=True)
def _exits_of(handles):  # type: ignore[no-untyped-def]
    pointer, n = pointer_to(handles, H_EXITS)
    return carray(pointer, (n, 7), np.int32)


@njit(cache=True, nogil=True)
def _memos_of(handles):  # type: ignore[no-untyped-def]
    pointer, n = pointer_to(handles, H_MEMOS)
    return carray(pointer, (n, 4), np.int64)


@njit(cache=True, nogil=True)
def _pairs_of(handles, k):  # type: ignore[no-untyped-def]
    """`links` or `wanted`."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n, 2), np.int64)


@njit(cache=True, nogil=True)
def _results_of(handles):  # type: ignore[no-untyped-def]
    pointer, n = pointer_to(handles, H_RESULTS)
    return carray(pointer, (n, 5), np.int64)


@njit(cache=True, nogil=True)
def _counts_of(handles):  # type: ignore[no-untyped-def]
    pointer, n = pointer_to(handles, H_COUNTS)
    return carray(pointer, (n,), np.int64)


@njit(cache=True, nogil=True)
def _mask_of(handles):  # type: ignore[no-untyped-def]
    pointer, n = pointer_to(handles, H_MASK)
    return carray(pointer, (n,), np.uint32)


@njit(cache=True, nogil=True)
def _walk_below(handles, exit_, p, x):  # type: ignore[no-untyped-def]
    """The tokens below the nodes of an exit, to `notes` from meta[M_FOUND] on, and into the mask.  LIVE or a hole."""
    meta, rows = meta_of(handles), rows_of(handles)
    info, end, token = numbers(handles, H_INFO), numbers(handles, H_END), numbers(handles, H_TOKEN)
    nodes, notes, found = numbers(handles, H_NODES), numbers(handles, H_NOTES), quadruples(handles, H_FOUND)
    pointer, n_path = pointer_to(handles, H_PATH)
    path = carray(pointer, (n_path, 2), np.int64)
    pointer, n_tasks = pointer_to(handles, H_TASKS)
    tasks = carray(pointer, (n_tasks, 5), np.int64)
    mask, nobody = _mask_of(handles), np.int64(meta[M_WORDS]) << 5
    exits = _exits_of(handles)
    boundary = np.int64(exits[exit_, 1])
    for i in range(exits[exit_, 3], exits[exit_, 4]):
        root = np.int64(nodes[i])
        n = begun(handles, rows, boundary, p, x, np.int64(info[root]) & 255, found, np.int64(0))
        if n < 0:
            return n
        top = 0
        for j in range(n):
            tasks[top, 0] = root
            for k in range(4):
                tasks[top, 1 + k] = found[j, k]
            top += 1
        while top > 0:
            top -= 1
            begin = tasks[top, 0]
            depth = np.int64(info[begin]) >> 8
            path[depth, 0] = tasks[top, 1]
            path[depth, 1] = tasks[top, 4]
            p2, x2 = tasks[top, 2], tasks[top, 3]
            node, stop = begin, np.int64(end[begin])
            while node < stop:
                packed = np.int64(info[node])
                depth = packed >> 8
                if node != begin:
                    b = packed & 255
                    q, column = path[depth - 1, 0], path[depth - 1, 1]
                    target = np.int64(rows[q, b])
                    if target == DEAD:
                        node = np.int64(end[node])
                        continue
                    if target == UNKNOWN:
                        meta[M_A] = q
                        meta[M_B] = b
                        return np.int64(HOLE_ROW)
                    if target < 0:
                        if not has_room(handles, meta):
                            return full(meta, H_STACKS)
                        if top + 16 > n_tasks:
                            return full(meta, H_TASKS)
                        n = event(handles, rows, -target, p2, x2, column, b, found, np.int64(0))
                        if n < 0:
                            return n
                        for j in range(n):
                            tasks[top, 0] = node
                            for k in range(4):
                                tasks[top, 1 + k] = found[j, k]
                            top += 1
                        node = np.int64(end[node])
                        continue
                    path[depth, 0] = target
                    path[depth, 1] = column_after(meta, rows, target, column, b)
                t = np.int64(token[node])
                if t != nobody:
                    status = is_live(handles, rows, path[depth, 0], p2, x2)
                    if status < 0:
                        return np.int64(status)
                    if status == LIVE:
                        k = meta[M_FOUND]
                        if k >= notes.shape[0]:
                            return full(meta, H_NOTES)
                        notes[k] = t
                        meta[M_FOUND] = k + 1
                        _set(mask, t)
                node += 1
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def _set_row(rows, row, words):  # type: ignore[no-untyped-def]
    for k in range(rows.shape[1]):
        words[k] |= rows[row, k]


@njit(cache=True, nogil=True)
def _set_allowed(handles, meta, one, words):  # type: ignore[no-untyped-def]
    """The tokens of something that is allowed, as in `notes`."""
    if one >= WHOLE:
        _set_row(_words_of(handles, meta, H_WHOLE), np.int64(one - WHOLE), words)
    elif one >= 0:
        groups = _fours(handles, H_GROUPS)
        if groups[one, 1] >= 0:
            _set_row(_words_of(handles, meta, H_DENSE), np.int64(groups[one, 1]), words)
        else:
            ids = numbers(handles, H_IDS)
            for k in range(groups[one, 2], groups[one, 3]):
                _set(words, np.int64(ids[k]))
    else:
        notes = numbers(handles, H_NOTES)
        for k in range(-one, -one + notes[-1 - one]):
            _set(words, np.int64(notes[k]))


@njit(cache=True, nogil=True)
def _n_allowed(handles, one):  # type: ignore[no-untyped-def]
    """How many tokens these are, or MANY."""
    if one >= WHOLE:
        return np.int64(MANY)
    if one >= 0:
        groups = _fours(handles, H_GROUPS)
        return np.int64(MANY) if groups[one, 1] >= 0 else np.int64(groups[one, 3] - groups[one, 2])
    return np.int64(numbers(handles, H_NOTES)[-1 - one])


@njit(cache=True, nogil=True)
def _whole(handles, meta, begin, stop):  # type: ignore[no-untyped-def]
    """The row of `whole` for all that is allowed from, to in `notes`, WHOLE added; or FULL."""
    counts, memos, notes = _counts_of(handles), _memos_of(handles), numbers(handles, H_NOTES)
    whole = _words_of(handles, meta, H_WHOLE)
    row = counts[5]
    if row >= whole.shape[0]:
        return full(meta, H_WHOLE)
    whole[row] = 0
    for k in range(begin, stop):
        _set_allowed(handles, meta, np.int64(notes[k]), whole[row])
    found = np.uint64(0)
    for k in range(whole.shape[1]):
        found = (found ^ np.uint64(whole[row, k])) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    code = np.int64(found >> np.uint64(33))
    while True:
        cell = find_key(memos, np.int64(WHOLE_NUMBER) << 31 | code)
        if memos[cell, 0] == 0:
            memos[cell, 0] = np.int64(WHOLE_NUMBER) << 31 | code
            memos[cell, 1] = row
            counts[0] += 1
            counts[5] = row + 1
            return np.int64(WHOLE + row)
        known = memos[cell, 1]
        if (whole[known] == whole[row]).all():
            return np.int64(WHOLE + known)
        code = (code + 1) & 0x7FFFFFFF


@njit(cache=True, nogil=True)
def _set_noted(handles, meta, begin, stop):  # type: ignore[no-untyped-def]
    """What is allowed according to a note, into the mask and to `gathered`.  Is there room?"""
    notes, gathered, mask = numbers(handles, H_NOTES), numbers(handles, H_GATHERED), _mask_of(handles)
    top = meta[M_GATHERED]
    if top + stop - begin > gathered.shape[0]:
        return False
    for k in range(begin, stop):
        gathered[top] = notes[k]
        top += 1
        _set_allowed(handles, meta, np.int64(notes[k]), mask)
    meta[M_GATHERED] = top
    return True


@njit(cache=True, nogil=True)
def _gather(handles, meta, one):  # type: ignore[no-untyped-def]
    gathered = numbers(handles, H_GATHERED)
    if meta[M_GATHERED] >= gathered.shape[0]:
        return False
    gathered[meta[M_GATHERED]] = one
    meta[M_GATHERED] += 1
    return True


@njit(cache=True, nogil=True)
def _walk(handles, exit_, p, x):  # type: ignore[no-untyped-def]
    """Walk the nodes of an exit and note their tokens, if anybody will want to know of them.  LIVE or a hole."""
    meta, counts, notes = meta_of(handles), _counts_of(handles), numbers(handles, H_NOTES)
    meta[M_FOUND] = counts[1] + 1
    status = _walk_below(handles, exit_, p, x)
    if status != LIVE:
        return status
    exits = _exits_of(handles)
    exits[exit_, 6] += exits[exit_, 5]
    wanted = _pairs_of(handles, H_WANTED)
    if exits[exit_, 6] >= counts[PATIENCE] and meta[M_WANTED] < wanted.shape[0]:
        exits[exit_, 6] = 0
        wanted[meta[M_WANTED], 0] = exit_
        wanted[meta[M_WANTED], 1] = lexer_of(handles, p)
        meta[M_WANTED] += 1
    n = meta[M_FOUND] - counts[1] - 1
    if n > 0 and (meta[M_NOTING] != 0 or meta[M_LOOKED] & INDENTS == 0):
        if not _gather(handles, meta, -1 - counts[1]):
            return full(meta, H_GATHERED)
        notes[counts[1]] = n
        counts[1] = meta[M_FOUND]
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def _code_of(meta, x, base):  # type: ignore[no-untyped-def]
    """The code of indents and a column; 0: these indents will not stay."""
    if x >= meta[M_KEPT] or x >= 1 << 21 or base > 500:
        return np.int64(0)
    return np.int64(INDENTS_CODE) | np.int64(x) << 9 | np.int64(base + 1)


@njit(cache=True, nogil=True)
def _find_states(memos, notes, stacks, number, at, n):  # type: ignore[no-untyped-def]
    """Where in `memos` the level of a number and of `n` states from `at` downwards is, or should be; its code."""
    found, p = np.uint64(0), at
    for _ in range(n):
        found = (found ^ np.uint64(stacks[p, 0] + 1)) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
        p = np.int64(stacks[p, 1])
    code = np.int64(found >> np.uint64(34))
    while True:
        cell = find_key(memos, number << 31 | code)
        if memos[cell, 0] == 0:
            return cell, code
        k = memos[cell, 1] >> 32
        p, is_same = at, True
        for j in range(k, k + n):
            if notes[j] != stacks[p, 0]:
                is_same = False
                break
            p = np.int64(stacks[p, 1])
        if is_same:
            return cell, code
        code = (code + 1) & 0x3FFFFFFF


@njit(cache=True, nogil=True)
def _below(stacks, p, n):  # type: ignore[no-untyped-def]
    for _ in range(n):
        p = np.int64(stacks[p, 1])
    return p


@njit(cache=True, nogil=True)
def _note(handles, number, code, n_states, at, level, passed, x, base, first, n):  # type: ignore[no-untyped-def]
    """Note what has been found out of a place and of all that was asked there, from the first level on that is new.

    number, code, n_states, at, level, passed  of that level, as `_ask` has them
    first, n                                   in `results`
    Returns LIVE or FULL.
    """
    meta, counts, stacks = meta_of(handles), _counts_of(handles), triples(handles, H_STACKS)
    memos, notes = _memos_of(handles), numbers(handles, H_NOTES)
    gathered, results = numbers(handles, H_GATHERED), _results_of(handles)
    left = n
    while True:
        room = left + counts[1] + 1 + n_states
        for k in range(first, first + left):
            room += results[k, 2] - results[k, 1]
        if room > notes.shape[0]:
            return full(meta, H_NOTES)
        if 2 * counts[0] + 4 > memos.shape[0]:
            return full(meta, H_MEMOS)
        start = top = counts[1]
        p = at
        for _ in range(n_states):
            notes[top] = stacks[p, 0]
            top += 1
            p = np.int64(stacks[p, 1])
        begin = top
        kept = by_brackets = n_ids = 0
        nearest = np.int64(1) << 40
        for k in range(first, first + left):
            unknown = results[k, 4] & ~passed
            if unknown == 0 and results[k, 3] <= level:
                for j in range(results[k, 1], results[k, 2]):
                    notes[top] = gathered[j]
                    n_ids += _n_allowed(handles, np.int64(gathered[j]))
                    top += 1
            else:
                if unknown == 0:
                    nearest = min(nearest, results[k, 3])
                by_brackets += unknown == BRACKETS
                for j in range(5):
                    results[first + kept, j] = results[k, j]
                kept += 1
        if n_ids > MANY and top > begin + 1:
            row = _whole(handles, meta, begin, top)
            if row < 0:
                return row
            notes[begin] = row
            top = begin + 1
        stop = top
        left = kept
        for k in range(first, first + left):
            notes[top] = results[k, 0]
            top += 1
        counts[1] = top
        cell = find_key(memos, number << 31 | code)
        counts[0] += memos[cell, 0] == 0
        memos[cell, 0] = number << 31 | code
        memos[cell, 1], memos[cell, 2], memos[cell, 3] = start << 32 | stop, top, 0
        if left == 0:
            return np.int64(LIVE)
        number = FIRST_NUMBER + counts[4]
        counts[4] += 1
        if nearest < np.int64(1) << 40:
            at = _below(stacks, at, max(1, n_states))
            n_states = nearest - level
            memos[cell, 2] |= n_states << 32
            memos[cell, 3] = number << 2 | BY_STATE
            _, code = _find_states(memos, notes, stacks, number, at, n_states)
            level = nearest
        else:
            at, n_states = _below(stacks, at, max(0, n_states - 1)), np.int64(0)
            if by_brackets > 0:
                memos[cell, 3] = number << 2 | BY_BRACKETS
                passed = np.int64(BRACKETS)
                code = np.int64(BRACKETS_CODE) + np.int64(triples(handles, H_INDENTS)[x, 2])
            else:
                memos[cell, 3] = number << 2 | BY_INDENTS
                passed = np.int64(BRACKETS | INDENTS)
                code = _code_of(meta, x, base)
                if code == 0:
                    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def _ask(handles, where, p, x, base):  # type: ignore[no-untyped-def]
    """Set the bits of what is allowed at a place above a stack.

    where  2 * place, or 2 * exit + 1: its nodes are walked
    base   the column before the place
    Returns LIVE, a hole or FULL. What is allowed goes to `gathered` too.
    """
    meta, counts, stacks = meta_of(handles), _counts_of(handles), triples(handles, H_STACKS)
    memos, notes, results = _memos_of(handles), numbers(handles, H_NOTES), _results_of(handles)
    number, at, n_states, level, passed = np.int64(where), np.int64(p), np.int64(1), np.int64(0), np.int64(0)
    cell, code = _find_states(memos, notes, stacks, number, at, n_states)
    begin = stop = np.int64(-1)
    is_new = True
    while memos[cell, 0] != 0:
        begin, stop = memos[cell, 1] & 0xFFFFFFFF, memos[cell, 2] & 0xFFFFFFFF
        if not _set_noted(handles, meta, (memos[cell, 1] >> 32) + n_states, begin):
            return full(meta, H_GATHERED)
        following = memos[cell, 3]
        number = following >> 2
        if following & 3 == BY_STATE:
            at = _below(stacks, at, max(1, n_states))
            n_states = memos[cell, 2] >> 32
            level += n_states
            cell, code = _find_states(memos, notes, stacks, number, at, n_states)
            continue
        code = np.int64(0)
        if following & 3 == BY_BRACKETS:
            passed = np.int64(BRACKETS)
            code = np.int64(BRACKETS_CODE) + np.int64(triples(handles, H_INDENTS)[x, 2])
        elif following != 0:
            code = _code_of(meta, x, base)
        if code == 0:
            is_new = False
            break
        if following & 3 == BY_INDENTS:
            passed = np.int64(BRACKETS | INDENTS)
        at, n_states = _below(stacks, at, max(0, n_states - 1)), np.int64(0)
        cell = find_key(memos, number << 31 | code)
    lowest = min(meta[M_LOWEST], np.int64(stacks[_below(stacks, at, max(0, n_states - 1)), 2]))
    looked = meta[M_LOOKED] | passed
    places, groups, exits = _fours(handles, H_PLACES), _fours(handles, H_GROUPS), _exits_of(handles)
    first = meta[M_RESULTS]
    place = where >> 1
    n = stop - begin
    n_groups = np.int64(0)
    if begin < 0:
        n = np.int64(1)
        if where & 1 == 0:
            n_groups = np.int64(places[place, 1] - places[place, 0])
            n = n_groups + places[place, 3] - places[place, 2]
    if first + n > results.shape[0]:
        return full(meta, H_RESULTS)
    meta[M_RESULTS] = first + n
    for i in range(n):
        if begin >= 0:
            item = np.int64(notes[begin + i])
        elif where & 1 == 1:
            item = np.int64(ASK_WALK)
        elif i < n_groups:
            item = np.int64(places[place, 0] + i) << 2 | ASK_GROUP
        else:
            item = np.int64(places[place, 2] + i - n_groups) << 2 | ASK_EXIT
        g = item >> 2
        kept = meta[M_GATHERED]
        meta[M_LOWEST], meta[M_LOOKED] = stacks[p, 2], 0
        status = np.int64(LIVE)
        if item & 3 == ASK_GROUP:
            status = np.int64(any_taken(handles, np.int64(groups[g, 0]), p, x))
            if status == LIVE:
                _set_allowed(handles, meta, g, _mask_of(handles))
                if not _gather(handles, meta, g):
                    return full(meta, H_GATHERED)
        elif item & 3 == ASK_WALK:
            status = _walk(handles, place, p, x)
        elif not has_room(handles, meta):
            return full(meta, H_STACKS)
        else:
            column = np.int64(exits[g, 2])
            if column >= RELATIVE:
                column = column - RELATIVE + base if base >= 0 else np.int64(-1)
            p2, x2 = followed(handles, p, x, np.int64(exits[g, 0]), column)
            if p2 != 0:
                lexer = lexer_of(handles, p2)
                links = _pairs_of(handles, H_LINKS)
                cell = find_key(links, g * np.int64(numbers(handles, H_LR)[L_LEXERS]) + lexer + 1)
                if links[cell, 0] != 0:
                    status = _ask(handles, 2 * links[cell, 1], p2, x2, np.int64(-1))
                elif exits[g, 5] > counts[PATIENCE_ONCE]:
                    meta[M_A] = g
                    meta[M_B] = lexer
                    return np.int64(HOLE_LINK)
                else:
                    status = _ask(handles, 2 * g + 1, p2, x2, np.int64(-1))
        if status < 0:
            return status
        results[first + i, 0] = item
        results[first + i, 1] = kept
        results[first + i, 2] = meta[M_GATHERED]
        results[first + i, 3] = max(0, stacks[p, 2] - meta[M_LOWEST])
        results[first + i, 4] = meta[M_LOOKED]
        lowest, looked = min(lowest, meta[M_LOWEST]), looked | meta[M_LOOKED]
    meta[M_LOWEST], meta[M_LOOKED] = lowest, looked
    meta[M_RESULTS] = first
    if is_new:
        return _note(handles, number, code, n_states, at, level, passed, x, base, first, n)
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def fill(handles, q, p, x, column):  # type: ignore[no-untyped-def]
    """Set the bits of the tokens that a world allows.  LIVE when done; a hole or FULL: call again."""
    meta, rows, pool = meta_of(handles), rows_of(handles), numbers(handles, H_POOL)
    pointer, n_roots = pointer_to(handles, H_ROOTS)
    roots = carray(pointer, (n_roots, 2), np.int32)
    at = np.int64(rows[q, PARTS])
    if at == 0:
        meta[M_A] = q
        return np.int64(HOLE_PARTS)
    meta[M_GATHERED] = meta[M_RESULTS] = 0
    meta[M_NOTING] = _code_of(meta, x, column)
    longer = np.int64(pool[at])
    if longer > 0:
        if longer >= n_roots or roots[longer, 0] == 0:
            meta[M_A] = longer
            return np.int64(HOLE_PLACE)
        status = _ask(handles, 2 * np.int64(roots[longer, 0]), p, x, column)
        if status != LIVE:
            return status
    for k in range(at + 2, at + 2 + 3 * pool[at + 1], 3):
        t, boundary = np.int64(pool[k]), np.int64(pool[k + 1])
        if boundary < 0:  # nothing was read yet
            continue
        p2, x2, lexer = p, x, -1 - t
        if t >= 0:
            if not has_room(handles, meta):
                return full(meta, H_STACKS)
            p2, x2 = followed(handles, p, x, t, column)
            if p2 == 0:
                continue
            lexer = lexer_of(handles, p2)
        start = start_of(handles, meta, lexer, boundary)
        if start == UNKNOWN:
            meta[M_A] = lexer
            meta[M_B] = boundary
            return np.int64(HOLE_START)
        if start >= n_roots or roots[start, 1] == 0:
            meta[M_A] = start
            return np.int64(HOLE_BEGINS)
        meta[M_NOTING] = _code_of(meta, x2, np.int64(-1))
        status = _ask(handles, 2 * np.int64(roots[start, 1]), p2, x2, np.int64(-1))
        if status != LIVE:
            return status
    return np.int64(LIVE)
