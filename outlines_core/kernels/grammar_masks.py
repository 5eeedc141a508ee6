"""Masks of LALR with a lexer, from what can be known without the parser.

A *place* is a set of nodes of the trie, each with the row behind its byte. What lies below it does not depend on the
parser and is found out once: the tokens that stay within the lexeme, in groups by the terminals that it can become,
of which the parser is asked; and the *exits*, nodes whose byte no longer belongs to the lexeme, in groups by
what the lexeme is then. Behind an exit that the parser lets through, its nodes are a place again, for each lexer one.
Places are made where it is worth it; elsewhere the nodes are walked, byte by byte.

What is allowed at a place depends on the upper part of the stack, as far as the parser looks: mostly on the state on
top of it, for some groups and exits on more. So it is noted by the states from the top downwards: in each note what is
decided by the states so far, and what is left, for which the parser looks deeper. Where newlines are looked at, what is
left may depend on the number of open brackets, which then is a level of its own; what depends on the columns of the
indentation is asked each time. A new stack mostly is a new way to combine parts that are noted.

    places   (n, 4) int32: groups from, to; exits from, to
    groups   (n, 4) int32: endings (see `kernels.grammar`) · row of `dense` or -1 · ids from, to
    exits    (n, 7) int32: terminal · boundary behind it · column before it (from RELATIVE on it counts from that
             before the place) · nodes from, to · how many nodes there are below these · how many of them were walked
    links    (a power of two, 2) int64: a hash table of the places behind exits; exit * lexers + lexer + 1, the place
    ids, nodes  int32
    dense    (n, words) uint32
    memos    (a power of two, 6) int64: a hash table of notes; number << 31 | state + 1, or BRACKETS_CODE + brackets ·
             what is allowed from, to in `notes` · what is left from, to in `notes` · number of the notes of the next
             level (0: it is the last; minus it: brackets come next).
             Numbers of the first level are 2 * place, or of an exit that is walked 2 * exit + 1
    notes    int32: what is allowed is a group, or minus one minus the place of ids here, how many and then they;
             what is left is 4 * group + ASK_GROUP, 4 * exit + ASK_EXIT, or ASK_WALK
    roots    (rows, 2) int32: by row before a token a place, 0 if there is none yet: within a lexeme, before one
    counts   (5,) int64: how many memos and notes there are; how many nodes may be walked at once for want of a place,
             and in all; how many numbers of notes there are beyond those of the first level
    gathered int32: scratch; as what is allowed in `notes`
    results  (n, 5) int64: scratch; of what is asked: what it is, what of it is allowed from, to in `gathered`, how many
             levels of the stack were looked at beside the first, what else was looked at
    wanted   (n, 2) int64: exits and lexers for which a place would have been of use; meta[M_WANTED] of them
    path     (max_depth + 2, 2) int64, tasks (n, 5) int64, found (n, 4) int64: scratch
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import carray, njit

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
    M_LOOKED,
    M_LOWEST,
    M_NODE,
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
BRACKETS_CODE: Final = 1 << 20
RELATIVE: Final = 1 << 20
FIRST_NUMBER: Final = 1 << 31
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
    return carray(pointer, (n, 6), np.int64)


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
        n = begun(handles, rows, boundary, p, x, np.int64(info[root]) & 255, found, 0)
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
                        n = event(handles, rows, -target, p2, x2, column, b, found, 0)
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
def _set_group(handles, meta, mask, g):  # type: ignore[no-untyped-def]
    """The tokens of a group."""
    groups = _fours(handles, H_GROUPS)
    if groups[g, 1] >= 0:
        dense = _words_of(handles, meta, H_DENSE)
        for k in range(meta[M_WORDS]):
            mask[k] |= dense[groups[g, 1], k]
    else:
        ids = numbers(handles, H_IDS)
        for k in range(groups[g, 2], groups[g, 3]):
            _set(mask, np.int64(ids[k]))


@njit(cache=True, nogil=True)
def _set_noted(handles, meta, begin, stop):  # type: ignore[no-untyped-def]
    """What is allowed according to a note, into the mask and to `gathered`.  Is there room?"""
    notes, gathered, mask = numbers(handles, H_NOTES), numbers(handles, H_GATHERED), _mask_of(handles)
    top = meta[M_GATHERED]
    if top + stop - begin > gathered.shape[0]:
        return False
    for k in range(begin, stop):
        one = np.int64(notes[k])
        gathered[top] = one
        top += 1
        if one >= 0:
            _set_group(handles, meta, mask, one)
        else:
            for j in range(-one, -one + notes[-1 - one]):
                _set(mask, np.int64(notes[j]))
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
    """Walk the nodes of an exit; their tokens are noted unless they depend on columns.  LIVE or a hole."""
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
    if meta[M_LOOKED] & INDENTS == 0 and n > 0:
        if not _gather(handles, meta, -1 - counts[1]):
            return full(meta, H_GATHERED)
        notes[counts[1]] = n
        counts[1] = meta[M_FOUND]
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def _note(handles, number, code, level, passed, at, x, first, n):  # type: ignore[no-untyped-def]
    """Note what has been found out of a place and of all that was asked there, from the first level on that is new.

    number, code, level, passed, at  of that level, as `ask` has them
    first, n                         in `results`
    Returns LIVE or FULL.
    """
    meta, counts, stacks = meta_of(handles), _counts_of(handles), triples(handles, H_STACKS)
    memos, notes = _memos_of(handles), numbers(handles, H_NOTES)
    gathered, results = numbers(handles, H_GATHERED), _results_of(handles)
    brackets = BRACKETS_CODE + np.int64(triples(handles, H_INDENTS)[x, 2])
    left = n
    while True:
        room = left + counts[1]
        for k in range(first, first + left):
            room += results[k, 2] - results[k, 1]
        if room > notes.shape[0]:
            return full(meta, H_NOTES)
        if 2 * counts[0] + 2 > memos.shape[0]:
            return full(meta, H_MEMOS)
        begin = top = counts[1]
        kept = 0
        deeper = 0
        for k in range(first, first + left):
            looked = results[k, 4]
            if looked & INDENTS == 0 and results[k, 3] <= level and (passed or looked & BRACKETS == 0):
                for j in range(results[k, 1], results[k, 2]):
                    notes[top] = gathered[j]
                    top += 1
            else:
                if looked & INDENTS == 0 and (passed or looked & BRACKETS == 0):
                    deeper += 1
                for j in range(5):
                    results[first + kept, j] = results[k, j]
                kept += 1
        stop = top
        left = kept
        waiting = 0
        for k in range(first, first + left):
            notes[top] = results[k, 0]
            top += 1
            waiting += results[k, 4] & INDENTS == 0
        counts[1] = top
        cell = find_key(memos, number << 31 | code)
        counts[0] += memos[cell, 0] == 0
        memos[cell, 0] = number << 31 | code
        memos[cell, 1], memos[cell, 2], memos[cell, 3], memos[cell, 4] = begin, stop, stop, top
        memos[cell, 5] = 0
        if waiting == 0:
            return np.int64(LIVE)
        number = FIRST_NUMBER + counts[4]
        counts[4] += 1
        if deeper > 0:
            memos[cell, 5] = number
            at = np.int64(stacks[at, 1])
            level += 1
            code = np.int64(stacks[at, 0]) + 1
        else:
            memos[cell, 5] = -number
            passed = True
            code = brackets


@njit(cache=True, nogil=True)
def _ask(handles, where, p, x, base):  # type: ignore[no-untyped-def]
    """Set the bits of what is allowed at a place above a stack.

    where  2 * place, or 2 * exit + 1: its nodes are walked
    base   the column before the place
    Returns LIVE, a hole or FULL. What is allowed goes to `gathered` too.
    """
    meta, counts, stacks = meta_of(handles), _counts_of(handles), triples(handles, H_STACKS)
    memos, notes, results = _memos_of(handles), numbers(handles, H_NOTES), _results_of(handles)
    number, code, level, passed, at = np.int64(where), np.int64(stacks[p, 0]) + 1, 0, False, np.int64(p)
    begin = stop = np.int64(-1)
    is_new = True
    while True:
        cell = find_key(memos, number << 31 | code)
        if memos[cell, 0] == 0:
            break
        if not _set_noted(handles, meta, memos[cell, 1], memos[cell, 2]):
            return full(meta, H_GATHERED)
        begin, stop = memos[cell, 3], memos[cell, 4]
        number = abs(memos[cell, 5])
        if number == 0:
            is_new = False
            break
        if memos[cell, 5] > 0:
            at = np.int64(stacks[at, 1])
            level += 1
            code = np.int64(stacks[at, 0]) + 1
        else:
            passed = True
            code = BRACKETS_CODE + np.int64(triples(handles, H_INDENTS)[x, 2])
    lowest, looked = min(meta[M_LOWEST], np.int64(stacks[at, 2])), meta[M_LOOKED]
    if passed:
        looked |= BRACKETS
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
                _set_group(handles, meta, _mask_of(handles), g)
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
        return _note(handles, number, code, level, passed, at, x, first, n)
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
        status = _ask(handles, 2 * np.int64(roots[start, 1]), p2, x2, np.int64(-1))
        if status != LIVE:
            return status
    return np.int64(LIVE)
