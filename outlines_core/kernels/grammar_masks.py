"""Masks of LALR with a lexer, from what can be known without the parser.

A *place* is a set of nodes of the trie, each with the row behind its byte. What lies below it does not depend on the
parser and is found out once: the tokens that stay within the lexeme, in groups by the terminals that it can become,
of which the parser is asked; and the *exits*, nodes whose byte no longer belongs to the lexeme, in groups by
what the lexeme is then. Behind an exit that the parser lets through, its nodes are a place again, for each lexer one.
Places are made where it is worth it; elsewhere the nodes are walked, byte by byte.

Mostly the parser need not look further down than at the state on top of its stack, which is that behind the exit's
terminal. What is allowed behind an exit then is noted by that state, and with it what is left to be asked: groups and
exits for which the parser has to look deeper.

    places   (n, 4) int32: groups from, to; exits from, to
    groups   (n, 4) int32: endings (see `kernels.grammar`) · row of `dense` or -1 · ids from, to
    exits    (n, 7) int32: terminal · boundary behind it · column before it (from RELATIVE on it counts from that
             before the place) · nodes from, to · how many nodes there are below these · how many of them were walked
    links    (a power of two, 2) int64: a hash table of the places behind exits; exit * lexers + lexer + 1, the place
    ids, nodes  int32
    dense    (n, words) uint32
    memos    (a power of two, 5) int64: a hash table; exit * states + state + 1 · ids from, to in `notes`; or IS_DENSE
             and a row of `dense` · what is left from, to in `notes`: 2 * group or 2 * exit + 1; or the ids are from
             LOOKS_DEEPER on: nothing is noted
    notes    int32
    roots    (rows, 2) int32: by row before a token a place, 0 if there is none yet: within a lexeme, before one
    counts   (2,) int64: how many memos and notes there are
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from outlines_core.kernels.borrow import borrowed
from outlines_core.kernels.grammar import (
    DEAD,
    FULL,
    HOLE_PARTS,
    HOLE_ROW,
    HOLE_START,
    L_LEXERS,
    L_STATES,
    LIVE,
    M_A,
    M_B,
    M_CHILDREN,
    M_EXITS,
    M_FOUND,
    M_ITEM,
    M_ITEMS,
    M_LOOKED,
    M_LOWEST,
    M_NODE,
    M_PAIRS,
    M_PLACES,
    M_WANTED,
    NEWLINE,
    PARTS,
    UNKNOWN,
    any_taken,
    begun,
    column_after,
    event,
    followed,
    has_room,
    is_live,
    lexer_of,
)

HOLE_PLACE, HOLE_BEGINS, HOLE_LINK = -10, -11, -12
IS_DENSE, LOOKS_DEEPER = -1, -2
RELATIVE: Final = 1 << 20


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
def _walk_below(  # type: ignore[no-untyped-def]
    rows, pool, starts, lr, units, stacks, indents, info, end, token, nobody, meta, known, path, tasks, found, nodes,
    first, last, boundary, p, x, notes,
):  # fmt: skip
    """The tokens below some nodes whose byte begins a lexeme, to `notes` from meta[M_FOUND] on.  LIVE or a hole."""
    for i in range(first, last):
        root = np.int64(nodes[i])
        n = begun(rows, pool, starts, lr, stacks, meta, boundary, p, x, np.int64(info[root]) & 255, found)
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
                        return HOLE_ROW
                    if target < 0:
                        if not has_room(stacks, indents, meta) or top + 16 > tasks.shape[0]:
                            return FULL
                        n = event(
                            rows,
                            pool,
                            starts,
                            lr,
                            units,
                            stacks,
                            indents,
                            meta,
                            known,
                            -target,
                            p2,
                            x2,
                            column,
                            b,
                            found,
                        )
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
                t = token[node]
                if t != nobody:
                    status = is_live(rows, pool, lr, units, stacks, indents, meta, known, path[depth, 0], p2, x2)
                    if status < 0:
                        return status
                    if status == LIVE:
                        k = meta[M_FOUND]
                        if k >= notes.shape[0]:
                            return FULL
                        notes[k] = t
                        meta[M_FOUND] = k + 1
                node += 1
    return LIVE


@njit(cache=True, nogil=True)
def _or_row(dense, row, mask):  # type: ignore[no-untyped-def]
    words = dense[row]
    for k in range(words.shape[0]):
        mask[k] |= words[k]


@njit(cache=True, nogil=True)
def _fill_group(pool, lr, units, stacks, indents, meta, known, groups, ids, dense, g, p, x, mask):  # type: ignore[no-untyped-def]
    """The tokens of a group, if the parser takes what the lexeme can become.  LIVE, DEAD or IS_ENTANGLED."""
    status = any_taken(pool, lr, units, stacks, indents, meta, known, np.int64(groups[g, 0]), p, x)
    if status == LIVE:
        if groups[g, 1] >= 0:
            _or_row(dense, groups[g, 1], mask)
        else:
            for k in range(groups[g, 2], groups[g, 3]):
                _set(mask, np.int64(ids[k]))
    return status


@njit(cache=True, nogil=True)
def _put(work, meta, place, p, x, column, first, last):  # type: ignore[no-untyped-def]
    k = meta[M_PLACES]
    work[k, 0] = place
    work[k, 1] = p
    work[k, 2] = x
    work[k, 3] = column
    work[k, 4] = first
    work[k, 5] = last
    meta[M_PLACES] = k + 1


@njit(cache=True, nogil=True)
def _begin(rows, pool, starts, lr, units, stacks, indents, meta, known, roots, world, work):  # type: ignore[no-untyped-def]
    """Put the places where a token may go on in a world into `work`.  LIVE or a hole."""
    q, p, x, column = world[0], world[1], world[2], world[3]
    at = np.int64(rows[q, PARTS])
    if at == 0:
        meta[M_A] = q
        return HOLE_PARTS
    meta[M_PLACES] = 0
    longer = np.int64(pool[at])
    if longer > 0:
        if longer >= roots.shape[0] or roots[longer, 0] == 0:
            meta[M_A] = longer
            return HOLE_PLACE
        _put(work, meta, roots[longer, 0], p, x, column, -1, -1)
    for k in range(at + 2, at + 2 + 3 * pool[at + 1], 3):
        t, boundary = np.int64(pool[k]), np.int64(pool[k + 1])
        if boundary < 0:  # nothing was read yet
            continue
        p2, x2, lexer = p, x, -1 - t
        if t >= 0:
            if not has_room(stacks, indents, meta):
                return FULL
            p2, x2 = followed(lr, units, stacks, indents, meta, known, p, x, t, column)
            if p2 == 0:
                continue
            lexer = lexer_of(lr, stacks, p2)
        start = np.int64(starts[lexer, boundary])
        if start == UNKNOWN:
            meta[M_A] = lexer
            meta[M_B] = boundary
            return HOLE_START
        if start >= roots.shape[0] or roots[start, 1] == 0:
            meta[M_A] = start
            return HOLE_BEGINS
        _put(work, meta, roots[start, 1], p2, x2, np.int64(-1), -1, -1)
    return LIVE


@njit(cache=True, nogil=True)
def fill(  # type: ignore[no-untyped-def]
    lexical, lr, units, stacks, indents, vocabulary, meta, known, path, tasks, found, forest, patience, world, work,
    out_wanted, out_mask,
):  # fmt: skip
    """Set the bits of the tokens that a world allows.

    lexical     (rows, pool, starts), lr, units, stacks, indents, known, meta: see `kernels.grammar`
    path        (max_depth + 2, 2) int64, tasks (n, 5) int64, found (n, 4) int64: scratch
    work        (n, 6) int64: the places to go: place, stack, indents, column, its next exit (-1: its groups), -1; or
                (of a place, what is left) anything, stack, indents, column, from, to in `notes`; meta[M_PLACES] of
                them; < 0: begin with the world
    forest      (places, groups, exits, links, ids, nodes, dense, memos, notes, roots, counts)
    patience    (2,) int64: how many nodes may be walked at once for want of a place, and how many in all
    world       (4,) int64: row, stack, indents, column
    out_wanted  (n, 4) int64: exit, lexer, stack and indents: a place would have been of use, or if there is one, what
                is allowed behind it in that state; meta[M_WANTED] of them
    Returns LIVE when done; a hole or FULL: call again.
    """
    lr, units, stacks, indents = borrowed(lr), borrowed(units), borrowed(stacks), borrowed(indents)
    meta, known, path, tasks, found = borrowed(meta), borrowed(known), borrowed(path), borrowed(tasks), borrowed(found)
    places, groups, exits = borrowed(forest[0]), borrowed(forest[1]), borrowed(forest[2])
    links, ids, nodes = borrowed(forest[3]), borrowed(forest[4]), borrowed(forest[5])
    dense, memos, notes = borrowed(forest[6]), borrowed(forest[7]), borrowed(forest[8])
    roots, counts = borrowed(forest[9]), borrowed(forest[10])
    rows, pool, starts = borrowed(lexical[0]), borrowed(lexical[1]), borrowed(lexical[2])
    info, end, token = borrowed(vocabulary[0]), borrowed(vocabulary[1]), borrowed(vocabulary[2])
    work, out_wanted, out_mask = borrowed(work), borrowed(out_wanted), borrowed(out_mask)
    nobody = (out_mask.shape[0] - 1) << 5
    n_states, n_lexers = np.int64(lr[L_STATES]), np.int64(lr[L_LEXERS])
    if meta[M_PLACES] < 0:
        status = _begin(rows, pool, starts, lr, units, stacks, indents, meta, known, roots, world, work)
        if status != LIVE:
            meta[M_PLACES] = -1
            return status
    while meta[M_PLACES] > 0:
        here = meta[M_PLACES] - 1
        place, p, x, base = work[here, 0], work[here, 1], work[here, 2], work[here, 3]
        at, last = work[here, 4], work[here, 5]
        if not has_room(stacks, indents, meta) or here + 2 > work.shape[0] or 2 * counts[0] + 2 > memos.shape[0]:
            return FULL
        if last < 0:
            if at < 0:
                for k in range(places[place, 0], places[place, 1]):
                    status = _fill_group(
                        pool, lr, units, stacks, indents, meta, known, groups, ids, dense, k, p, x, out_mask
                    )
                    if status < 0:
                        return status
                at = np.int64(places[place, 2])
                work[here, 4] = at
            if at >= places[place, 3]:
                meta[M_PLACES] = here
                continue
            g = at
        else:
            if at >= last:
                meta[M_PLACES] = here
                continue
            g = np.int64(notes[at]) >> 1
            if notes[at] & 1 == 0:
                status = _fill_group(
                    pool, lr, units, stacks, indents, meta, known, groups, ids, dense, g, p, x, out_mask
                )
                if status < 0:
                    return status
                work[here, 4] = at + 1
                continue
        column = np.int64(exits[g, 2])
        if column >= RELATIVE:
            column = column - RELATIVE + base if base >= 0 else np.int64(-1)
        p2, x2 = followed(lr, units, stacks, indents, meta, known, p, x, np.int64(exits[g, 0]), column)
        if p2 == 0:
            work[here, 4] = at + 1
            continue
        state = np.int64(stacks[p2, 0])
        memo = find_key(memos, g * n_states + state + 1)
        if memos[memo, 0] != 0 and memos[memo, 1] != LOOKS_DEEPER:
            if memos[memo, 1] == IS_DENSE:
                _or_row(dense, memos[memo, 2], out_mask)
            else:
                for k in range(memos[memo, 1], memos[memo, 2]):
                    _set(out_mask, np.int64(notes[k]))
            work[here, 4] = at + 1
            if memos[memo, 4] > memos[memo, 3]:
                _put(work, meta, 0, p2, x2, np.int64(-1), memos[memo, 3], memos[memo, 4])
            continue
        lexer = lexer_of(lr, stacks, p2)
        cell = find_key(links, g * n_lexers + lexer + 1)
        if links[cell, 0] == 0:
            if exits[g, 5] > patience[0]:
                meta[M_A] = g
                meta[M_B] = lexer
                return HOLE_LINK
            lowest, looked = meta[M_LOWEST], meta[M_LOOKED]
            meta[M_LOWEST], meta[M_LOOKED], meta[M_FOUND] = stacks[p2, 2], 0, counts[1]
            status = _walk_below(
                rows, pool, starts, lr, units, stacks, indents, info, end, token, nobody, meta, known, path, tasks,
                found, nodes, exits[g, 3], exits[g, 4], np.int64(exits[g, 1]), p2, x2, notes,
            )  # fmt: skip
            is_shallow = meta[M_LOWEST] == stacks[p2, 2] and meta[M_LOOKED] == 0
            meta[M_LOWEST] = min(meta[M_LOWEST], lowest)
            meta[M_LOOKED] |= looked
            if status != LIVE:
                return status
            for k in range(counts[1], meta[M_FOUND]):
                _set(out_mask, np.int64(notes[k]))
            if is_shallow:
                memos[memo, 0] = g * n_states + state + 1
                memos[memo, 1] = counts[1]
                memos[memo, 2] = meta[M_FOUND]
                counts[1] = meta[M_FOUND]
                counts[0] += 1
            else:
                exits[g, 6] += exits[g, 5]
                if exits[g, 6] >= patience[1] and meta[M_WANTED] < out_wanted.shape[0]:
                    exits[g, 6] = 0
                    _want(out_wanted, meta, g, lexer, np.int64(0), np.int64(0))
        else:
            if meta[M_WANTED] < out_wanted.shape[0]:
                _want(out_wanted, meta, g, lexer, p2, x2)
            _put(work, meta, links[cell, 1], p2, x2, np.int64(-1), -1, -1)
        work[here, 4] = at + 1
    return LIVE


@njit(cache=True, nogil=True)
def _want(out_wanted, meta, g, lexer, p, x):  # type: ignore[no-untyped-def]
    k = meta[M_WANTED]
    out_wanted[k, 0] = g
    out_wanted[k, 1] = lexer
    out_wanted[k, 2] = p
    out_wanted[k, 3] = x
    meta[M_WANTED] = k + 1


@njit(cache=True, nogil=True)
def note(pool, lr, units, stacks, indents, meta, known, forest, place, p, x, out_left, out_mask):  # type: ignore[no-untyped-def]
    """What of a place is allowed or refused by the state on top of the stack alone, and what is left.

    out_left  int32: as in `notes`; meta[M_FOUND] of them
    Returns LIVE, FULL or IS_ENTANGLED.
    """
    places, groups, exits, _, ids, _, dense, memos, notes, _, _ = forest
    n_states, depth = np.int64(lr[L_STATES]), np.int64(stacks[p, 2])
    lowest, looked = meta[M_LOWEST], meta[M_LOOKED]
    meta[M_FOUND] = 0
    status = np.int64(LIVE)
    for k in range(places[place, 0], places[place, 1]):
        meta[M_LOWEST], meta[M_LOOKED] = depth, 0
        status = any_taken(pool, lr, units, stacks, indents, meta, known, np.int64(groups[k, 0]), p, x)
        if status < 0 or meta[M_FOUND] >= out_left.shape[0]:
            break
        if meta[M_LOWEST] < depth or meta[M_LOOKED] != 0:
            out_left[meta[M_FOUND]] = 2 * k
            meta[M_FOUND] += 1
        elif status == LIVE:
            _fill_group(pool, lr, units, stacks, indents, meta, known, groups, ids, dense, k, p, x, out_mask)
    if status >= 0:
        status = np.int64(LIVE)
        for g in range(places[place, 2], places[place, 3]):
            if not has_room(stacks, indents, meta) or meta[M_FOUND] >= out_left.shape[0]:
                status = np.int64(FULL)
                break
            meta[M_LOWEST], meta[M_LOOKED] = depth, 0
            column = np.int64(exits[g, 2])
            p2, _ = followed(lr, units, stacks, indents, meta, known, p, x, np.int64(exits[g, 0]), column)
            is_left = column >= RELATIVE or meta[M_LOWEST] < depth or meta[M_LOOKED] != 0
            if not is_left and p2 != 0:
                memo = find_key(memos, g * n_states + stacks[p2, 0] + 1)
                is_left = memos[memo, 0] == 0 or memos[memo, 1] == LOOKS_DEEPER or memos[memo, 4] > memos[memo, 3]
                if not is_left and memos[memo, 1] == IS_DENSE:
                    _or_row(dense, memos[memo, 2], out_mask)
                elif not is_left:
                    for k in range(memos[memo, 1], memos[memo, 2]):
                        _set(out_mask, np.int64(notes[k]))
            if is_left:
                out_left[meta[M_FOUND]] = 2 * g + 1
                meta[M_FOUND] += 1
    meta[M_LOWEST], meta[M_LOOKED] = lowest, looked
    return status
