"""LALR with a lexer, over the vocabulary's trie.

A *world* is (row, stack, indents, column). A row of the lexer's table is a lexeme that is being read, together with
what it may be if it ends here; so the parser is asked only where a byte no longer belongs to the lexeme. A byte leads
from a row to another one, to nothing, or to an *event*: rows in which the lexeme goes on, and terminals that it may
have been, each with the boundary behind it, from which the byte begins the next lexeme.

    rows     (n, WIDTH) int32: by byte a row, DEAD, UNKNOWN, or minus the place of an event in `pool`; then WITNESS (a
             terminal t that the lexeme can become; n = number of terminals: the end of the text; n + 1 + t: t at the
             end of the text; ANY: something ignored; NONE, UNKNOWN_WITNESS), ENDINGS (all of them: a place
             in `pool`, their number first; 0 = unknown), NEWLINE (may it become the newline of an indenter?)
    pool     int32: events are n, rows.., m, then m pairs of terminal and boundary
    starts   (lexers, boundaries) int32: the row before a lexeme; UNKNOWN
    lr       (actions, gotos, rules, lexer, kinds, units): actions (states, terminals + 1), 0 = error, s + 1 = shift,
             -r - 1 = reduce rule r, the last column is the end of the text; gotos (states, nonterminals) or -1;
             rules (n, 2): nonterminal and size; lexer (states,); kinds (terminals,): OPENS, CLOSES, NEWLINE_TOKEN;
             units (65536, 2) int64: see `_behind_units`
    stacks   (n, 3) int32: state on top, stack below, depth; 0 is no stack
    indents  (n, 3) int32: column, indents below (-1: none), brackets; 0 is the beginning
    known    (a power of two, 4) int64: what has been asked of stacks, a hash table: question, meta[M_STAMP] of its
             time, answer
    meta     int64, see the M_ names

What is pushed lies behind meta[M_STACKS] and meta[M_INDENTS] and is the caller's to keep or forget.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

DEAD: Final = 0
UNKNOWN: Final = -(1 << 31)
WITNESS, ENDINGS, NEWLINE, WIDTH = 256, 257, 258, 260
ANY, NONE, UNKNOWN_WITNESS = -1, -2, -3
LIVE, FULL, HOLE_ROW, HOLE_START, HOLE_WITNESS, HOLE_ENDINGS = 1, -1, -2, -3, -4, -5
OPENS, CLOSES, NEWLINE_TOKEN = 1, 2, 3
(
    M_STACKS, M_INDENTS, M_A, M_B, M_NODE, M_FIRST, M_STOP, M_STACK, M_INDENT, M_TASKS, M_EXIT, M_BIG, M_LOWEST,
    M_STAMP, M_END, M_INDENTED, M_OPEN, M_CLOSE, M_TAB, M_SKIP,
) = range(20)  # fmt: skip
META_SIZE: Final = 24
SPARE: Final = 2048  # rows of `stacks` and `indents` that must be free when a world is looked at
MOST_PUSHED: Final = 100  # on one terminal; 16 of them are looked at for one byte
RELATIVE: Final = 1 << 20
BIG: Final = 2000  # nodes: what lies below so many is worth remembering


@njit(cache=True, nogil=True)
def _push(nodes, meta, top, a, b, c):  # type: ignore[no-untyped-def]
    k = meta[top]
    nodes[k, 0] = a
    nodes[k, 1] = b
    nodes[k, 2] = c
    meta[top] = k + 1
    return k


@njit(cache=True, nogil=True)
def _behind_units(lr, state, under, t):  # type: ignore[no-untyped-def]
    """The state to which reductions of rules of one symbol lead from `state` above `under`; remembered for good.

    Expressions have a dozen such rules one above the other.
    """
    actions, gotos, rules, units = lr[0], lr[1], lr[2], lr[5]
    key = (np.int64(under) * actions.shape[0] + state) * actions.shape[1] + t + 1
    cell = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48))
    if units[cell, 0] == key:
        return units[cell, 1]
    for _ in range(1000):  # where a rule derives itself there may be no end of them
        action = np.int64(actions[state, t])
        if action >= 0 or rules[-1 - action, 1] != 1:
            break
        state = np.int64(gotos[under, rules[-1 - action, 0]])
    units[cell, 0] = key
    units[cell, 1] = state
    return state


@njit(cache=True, nogil=True)
def _shift(lr, stacks, meta, p, t):  # type: ignore[no-untyped-def]
    """The stack after a terminal, 0 if it is refused; after the end of the text 1 or 0."""
    actions, gotos, rules = lr[0], lr[1], lr[2]
    state, below, real = np.int64(stacks[p, 0]), np.int64(stacks[p, 1]), True
    ends = t == actions.shape[1] - 1
    top = meta[M_STACKS]
    for _ in range(1 << 20):
        action = np.int64(actions[state, t])
        if action == 0 or meta[M_STACKS] - top > MOST_PUSHED:
            return np.int64(0)
        if action > 0:
            if not real:
                p = _push(stacks, meta, M_STACKS, state, below, stacks[below, 2] + 1)
            return np.int64(_push(stacks, meta, M_STACKS, action - 1, p, stacks[p, 2] + 1))
        rule = -1 - action
        size = rules[rule, 1]
        if size == 0:
            if not real:
                p = _push(stacks, meta, M_STACKS, state, below, stacks[below, 2] + 1)
            below = np.int64(p)
        else:
            for _ in range(size - 1):
                below = np.int64(stacks[below, 1])
        real = False
        if stacks[below, 2] < meta[M_LOWEST]:
            meta[M_LOWEST] = stacks[below, 2]
        under = np.int64(stacks[below, 0])
        state = np.int64(gotos[under, rules[rule, 0]])
        if ends:
            if state == meta[M_END]:
                return np.int64(1)
        else:
            state = _behind_units(lr, state, under, t)
    return np.int64(0)


@njit(cache=True, nogil=True)
def ends(lr, stacks, indents, meta, p, x):  # type: ignore[no-untyped-def]
    """May the text end behind this stack?"""
    top = meta[M_STACKS]
    if meta[M_INDENTED] != 0:
        while indents[x, 1] >= 0 and p != 0:
            x = np.int64(indents[x, 1])
            p = _shift(lr, stacks, meta, p, meta[M_CLOSE])
    if p != 0:
        p = _shift(lr, stacks, meta, p, np.int64(lr[0].shape[1] - 1))
    meta[M_STACKS] = top
    return p != 0


@njit(cache=True, nogil=True)
def _goes_on(lr, stacks, indents, meta, p, x):  # type: ignore[no-untyped-def]
    """Behind a newline and the INDENT or DEDENTs of its column: may something else come, or the end of the text?"""
    actions = lr[0]
    top = meta[M_STACKS]
    for t in range(actions.shape[1] - 1):
        if actions[stacks[p, 0], t] != 0 and t != meta[M_OPEN] and t != meta[M_CLOSE]:
            taken = _shift(lr, stacks, meta, p, t) != 0
            meta[M_STACKS] = top
            if taken:
                return True
    return ends(lr, stacks, indents, meta, p, x)


@njit(cache=True, nogil=True)
def after(lr, stacks, indents, meta, p, x, t, column):  # type: ignore[no-untyped-def]
    """Stack and indents after a terminal whose text ends in a column; stack 0 if it is refused."""
    if meta[M_INDENTED] == 0:
        return _shift(lr, stacks, meta, p, t), x
    kind = lr[4][t]
    brackets = np.int64(indents[x, 2])
    if kind == NEWLINE_TOKEN:
        if brackets > 0:
            return p, x
        p = _shift(lr, stacks, meta, p, t)
        if p == 0 or column < 0:
            return np.int64(0), x
        if column > indents[x, 0]:
            p = _shift(lr, stacks, meta, p, meta[M_OPEN])
            x = np.int64(_push(indents, meta, M_INDENTS, column, x, 0))
        else:
            while column < indents[x, 0] and p != 0:
                x = np.int64(indents[x, 1])
                p = _shift(lr, stacks, meta, p, meta[M_CLOSE])
            if column != indents[x, 0]:
                return np.int64(0), x
        if p != 0 and not _goes_on(lr, stacks, indents, meta, p, x):
            return np.int64(0), x
        return p, x
    p = _shift(lr, stacks, meta, p, t)
    if p != 0 and kind == OPENS:
        x = np.int64(_push(indents, meta, M_INDENTS, indents[x, 0], indents[x, 1], brackets + 1))
    elif p != 0 and kind == CLOSES:
        if brackets == 0:
            return np.int64(0), x
        x = np.int64(_push(indents, meta, M_INDENTS, indents[x, 0], indents[x, 1], brackets - 1))
    return p, x


@njit(cache=True, nogil=True)
def _takes(lr, stacks, indents, meta, p, x, t):  # type: ignore[no-untyped-def]
    """May a terminal come next?  Of a newline the column is free.  n, the number of terminals: may the text end?
    From n + 1 on: may it end behind a terminal?
    """
    top, other = meta[M_STACKS], meta[M_INDENTS]
    n = lr[4].shape[0]
    if t >= n:
        if t > n:
            p, x = after(lr, stacks, indents, meta, p, x, t - n - 1, np.int64(-1))
        taken = p != 0 and ends(lr, stacks, indents, meta, p, x)
        meta[M_STACKS], meta[M_INDENTS] = top, other
        return taken
    if meta[M_INDENTED] != 0:
        kind = lr[4][t]
        if kind == NEWLINE_TOKEN and indents[x, 2] > 0:
            return True
        if kind == CLOSES and indents[x, 2] == 0:
            return False
    taken = _shift(lr, stacks, meta, p, t) != 0
    meta[M_STACKS] = top
    return taken


@njit(cache=True, nogil=True)
def _cell(meta, known, p, x, what):  # type: ignore[no-untyped-def]
    """The cell of `known` for a question about a stack, its own or one to be used for it; -1: no answer is there."""
    key = (np.int64(p) << 38) ^ (np.int64(x) << 22) ^ what
    cells = known.shape[0]
    cell = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) & (cells - 1)
    for _ in range(8):
        if known[cell, 1] != meta[M_STAMP]:
            known[cell, 0] = key
            known[cell, 1] = meta[M_STAMP]
            known[cell, 2] = -1
            return cell
        if known[cell, 0] == key:
            return cell
        cell = (cell + 1) & (cells - 1)
    known[cell, 0] = key
    known[cell, 1] = meta[M_STAMP]
    known[cell, 2] = -1
    return cell


@njit(cache=True, nogil=True)
def _taken(lr, stacks, indents, meta, known, p, x, t):  # type: ignore[no-untyped-def]
    """`_takes`, remembered."""
    cell = _cell(meta, known, p, x, t << 1)
    if known[cell, 2] < 0:
        known[cell, 2] = np.int64(_takes(lr, stacks, indents, meta, p, x, t))
    return known[cell, 2] == 1


@njit(cache=True, nogil=True)
def _followed(lr, stacks, indents, meta, known, p, x, t, column):  # type: ignore[no-untyped-def]
    """`after`, remembered."""
    if meta[M_INDENTED] != 0 and lr[4][t] == NEWLINE_TOKEN:
        if column > 500:
            return after(lr, stacks, indents, meta, p, x, t, column)
        what = ((column + 2) << 12 | t) << 1 | 1
    else:
        what = t << 1 | 1
    cell = _cell(meta, known, p, x, what)
    if known[cell, 2] < 0:
        p2, x2 = after(lr, stacks, indents, meta, p, x, t, column)
        known[cell, 2] = p2
        known[cell, 3] = x2
    return known[cell, 2], known[cell, 3]


@njit(cache=True, nogil=True)
def _live(rows, pool, lr, stacks, indents, meta, known, q, p, x):  # type: ignore[no-untyped-def]
    """LIVE, DEAD or a hole: can a lexeme become something that the parser takes?"""
    t = np.int64(rows[q, WITNESS])
    if t == ANY:
        return LIVE
    if t == NONE:
        return DEAD
    if t == UNKNOWN_WITNESS:
        meta[M_A] = q
        return HOLE_WITNESS
    if _taken(lr, stacks, indents, meta, known, p, x, t):
        return LIVE
    at = np.int64(rows[q, ENDINGS])
    if at == 0:
        meta[M_A] = q
        return HOLE_ENDINGS
    for k in range(at + 1, at + 1 + pool[at]):
        t = np.int64(pool[k])
        if t == ANY:
            return LIVE
        if _taken(lr, stacks, indents, meta, known, p, x, t):
            return LIVE
    return DEAD


@njit(cache=True, nogil=True)
def _column(meta, rows, q, column, b):  # type: ignore[no-untyped-def]
    """The column after a byte of the lexeme that has led to row `q`."""
    if meta[M_INDENTED] == 0 or rows[q, NEWLINE] == 0:
        return np.int64(-1)
    if b == 0x0A:
        return np.int64(0)
    if column < 0:
        return column
    return column + (1 if b == 0x20 else meta[M_TAB] if b == 0x09 else 0)


@njit(cache=True, nogil=True)
def _event(rows, pool, starts, lr, stacks, indents, meta, known, e, skip, p, x, column, b, out):  # type: ignore[no-untyped-def]
    """The worlds behind an event and its byte, less the first `skip` rows, into `out`; how many, or a hole."""
    n = 0
    at = e + 1 + pool[e]
    for k in range(e + 1 + skip, at):
        q = np.int64(pool[k])
        out[n, 0] = q
        out[n, 1] = p
        out[n, 2] = x
        out[n, 3] = _column(meta, rows, q, column, b)
        n += 1
    for k in range(pool[at]):
        t, boundary = np.int64(pool[at + 1 + 2 * k]), np.int64(pool[at + 2 + 2 * k])
        p2, x2 = _followed(lr, stacks, indents, meta, known, p, x, t, column)
        if p2 == 0:
            continue
        lexer = np.int64(lr[3][stacks[p2, 0]])
        start = np.int64(starts[lexer, boundary])
        if start == UNKNOWN:
            meta[M_A] = lexer
            meta[M_B] = boundary
            return HOLE_START
        q = np.int64(rows[start, b])
        if q == UNKNOWN:
            meta[M_A] = start
            meta[M_B] = b
            return HOLE_ROW
        if q > 0:
            out[n, 0] = q
            out[n, 1] = p2
            out[n, 2] = x2
            out[n, 3] = _column(meta, rows, q, np.int64(-1), b)
            n += 1
        elif q < 0:  # no terminal ends before its first byte: rows alone
            for j in range(1 - q, 1 - q + pool[-q]):
                out[n, 0] = pool[j]
                out[n, 1] = p2
                out[n, 2] = x2
                out[n, 3] = _column(meta, rows, np.int64(pool[j]), np.int64(-1), b)
                n += 1
    return n


@njit(cache=True, nogil=True)
def _room(stacks, indents, meta):  # type: ignore[no-untyped-def]
    return meta[M_STACKS] + SPARE <= stacks.shape[0] and meta[M_INDENTS] + SPARE <= indents.shape[0]


@njit(cache=True, nogil=True)
def step(rows, pool, starts, lr, stacks, indents, meta, known, data, worlds, out, n):  # type: ignore[no-untyped-def]
    """The worlds after some bytes, dead ones left out; how many, or a hole or FULL.

    worlds, out  (m, 4) int64; the first `n` of `worlds` are where it begins; the result is in `worlds`
    """
    limit = worlds.shape[0] - 16
    for i in range(data.shape[0]):
        b = np.int64(data[i])
        m = 0
        for w in range(n):
            q, p, x, column = worlds[w, 0], worlds[w, 1], worlds[w, 2], worlds[w, 3]
            target = np.int64(rows[q, b])
            if target == UNKNOWN:
                meta[M_A] = q
                meta[M_B] = b
                return HOLE_ROW
            if target > 0:
                out[m, 0] = target
                out[m, 1] = p
                out[m, 2] = x
                out[m, 3] = _column(meta, rows, target, column, b)
                m += 1
            elif target < 0:
                if not _room(stacks, indents, meta) or m > limit:
                    return FULL
                found = _event(
                    rows, pool, starts, lr, stacks, indents, meta, known, -target, np.int64(0), p, x, column, b, out[m:]
                )
                if found < 0:
                    return found
                m += found
        for w in range(m):
            for k in range(4):
                worlds[w, k] = out[w, k]
        n = m
        if n == 0:
            return 0
    kept = 0
    for w in range(n):
        status = _live(rows, pool, lr, stacks, indents, meta, known, worlds[w, 0], worlds[w, 1], worlds[w, 2])
        if status < 0:
            return status
        if status == LIVE:
            for k in range(4):
                worlds[kept, k] = worlds[w, k]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def walk_inside(rows, pool, vocabulary, meta, path, stop, out_rows, out_exits):  # type: ignore[no-untyped-def]
    """Where tokens end that stay within a lexeme, and the nodes at which an event comes.

    path       (max_depth + 2, 3) int64: row, column and node by depth, set up to where it begins, meta[M_NODE]; columns
               from RELATIVE on count from that before
    stop       the node behind the last one
    out_rows   (size + 1,) int32: the row where a token ends; others stay as they are
    out_exits  (n, 5) int32: node, the row, column and node before it, 1 if the first row of the event is followed
               here; meta[M_EXIT] of them
    Returns LIVE when done; HOLE_ROW or FULL: call again.
    """
    info, end, token = vocabulary
    size = out_rows.shape[0] - 1
    node = meta[M_NODE]
    while node < stop:
        packed = np.int64(info[node])
        depth = packed >> 8
        q = path[depth - 1, 0]
        target = np.int64(rows[q, packed & 255])
        if target <= 0:
            if target == UNKNOWN:
                meta[M_NODE] = node
                meta[M_A] = q
                meta[M_B] = packed & 255
                return HOLE_ROW
            if target < 0:
                k = meta[M_EXIT]
                if k >= out_exits.shape[0]:
                    meta[M_NODE] = node
                    return FULL
                out_exits[k, 0] = node
                out_exits[k, 1] = q
                out_exits[k, 2] = path[depth - 1, 1]
                out_exits[k, 3] = path[depth - 1, 2]
                out_exits[k, 4] = pool[-target] > 0
                meta[M_EXIT] = k + 1
            if target == 0 or pool[-target] == 0:
                node = np.int64(end[node])
                continue
            target = np.int64(pool[1 - target])
        path[depth, 0] = target
        path[depth, 1] = _column(meta, rows, target, path[depth - 1, 1], packed & 255)
        path[depth, 2] = node
        out_rows[min(np.int64(token[node]), size)] = target
        node += 1
    return LIVE


@njit(cache=True, nogil=True)
def fill_groups(rows, pool, lr, stacks, indents, meta, known, groups, members, ids, dense, p, x, out_mask, out_some):  # type: ignore[no-untyped-def]
    """The tokens that stay within a lexeme, as far as the parser takes what the lexeme can become.

    groups    (n, 7) int64: terminal of the witness or ANY · row of `dense` or -1 · ids from, to · rows from, to
    members   int32: the rows of the groups' tokens
    out_some  (n + 1,) int64: how many groups have rows of which some are live and some are not, and those groups
    Returns LIVE or a hole.
    """
    out_some[0] = 0
    for g in range(groups.shape[0]):
        t = groups[g, 0]
        taken = t == ANY
        if not taken:
            taken = _taken(lr, stacks, indents, meta, known, p, x, t)
        if not taken:
            n_live = 0
            for k in range(groups[g, 4], groups[g, 5]):
                status = _live(rows, pool, lr, stacks, indents, meta, known, np.int64(members[k]), p, x)
                if status < 0:
                    return status
                n_live += status == LIVE
            if n_live == 0:
                continue
            if n_live < groups[g, 5] - groups[g, 4]:
                out_some[0] += 1
                out_some[out_some[0]] = g
                continue
        if groups[g, 1] >= 0:
            words = dense[groups[g, 1]]
            for k in range(words.shape[0]):
                out_mask[k] |= words[k]
        else:
            for k in range(groups[g, 2], groups[g, 3]):
                i = ids[k]
                out_mask[i >> 5] |= np.uint32(1) << np.uint32(i & 31)
    return LIVE


@njit(cache=True, nogil=True)
def fill_some(rows, pool, lr, stacks, indents, meta, known, token_rows, members, p, x, out_mask):  # type: ignore[no-untyped-def]
    """Set the bits of the tokens that end in those of some rows that are live.

    token_rows  (size + 1,) int32: the row where a token ends, 0 if it does not stay within
    members     int32, ascending: the rows
    Returns LIVE or a hole.
    """
    for t in range(token_rows.shape[0] - 1):
        q = np.int64(token_rows[t])
        if q == 0:
            continue
        k = np.searchsorted(members, q)
        if k < members.shape[0] and members[k] == q:
            status = _live(rows, pool, lr, stacks, indents, meta, known, q, p, x)
            if status < 0:
                return status
            if status == LIVE:
                out_mask[t >> 5] |= np.uint32(1) << np.uint32(t & 31)
    return LIVE


@njit(cache=True, nogil=True)
def walk(  # type: ignore[no-untyped-def]
    rows, pool, starts, lr, stacks, indents, vocabulary, meta, known, path, exits, world, tasks, out_big, out_mask
):
    """Set the bits of the tokens that leave a lexeme, and of those below some nodes.

    path     (max_depth + 2, 2) int64: row and column by depth
    exits    (n, 5) int32 as `walk_inside` has them; meta[M_EXIT] is the next one
    world    (3,) int64: stack, indents and column before the exits
    tasks    (n, 5) int64: node, row behind its byte, stack, indents, column; a stack of meta[M_TASKS]
    out_big  (n, 5) int64: tasks with a large subtree, left to the caller; meta[M_BIG] of them
    meta     meta[M_NODE] < 0: begin with the next task or exit; else go on with the one that was left
    Returns LIVE when done; a hole or FULL: call again.
    """
    info, end, token = vocabulary
    nobody = (out_mask.shape[0] - 1) << 5
    found = np.empty((16, 4), dtype=np.int64)
    while True:
        if meta[M_NODE] < 0:
            if meta[M_TASKS] > 0:
                meta[M_TASKS] -= 1
                k = meta[M_TASKS]
                node = tasks[k, 0]
                depth = np.int64(info[node]) >> 8
                path[depth, 0] = tasks[k, 1]
                path[depth, 1] = tasks[k, 4]
                meta[M_STACK] = tasks[k, 2]
                meta[M_INDENT] = tasks[k, 3]
                meta[M_FIRST] = node
                meta[M_STOP] = end[node]
                meta[M_NODE] = node
            elif meta[M_EXIT] < exits.shape[0]:  # as a node whose byte has not been read
                k = meta[M_EXIT]
                node = np.int64(exits[k, 0])
                depth = np.int64(info[node]) >> 8
                path[depth - 1, 0] = exits[k, 1]
                column = np.int64(exits[k, 2])
                path[depth - 1, 1] = column if column < RELATIVE else column - RELATIVE + world[2]
                meta[M_STACK] = world[0]
                meta[M_INDENT] = world[1]
                meta[M_EXIT] = k + 1
                meta[M_SKIP] = exits[k, 4]
                meta[M_FIRST] = -1
                meta[M_STOP] = end[node]
                meta[M_NODE] = node
            else:
                return LIVE
        node, first, stop = meta[M_NODE], meta[M_FIRST], meta[M_STOP]
        p, x = meta[M_STACK], meta[M_INDENT]
        while node < stop:
            packed = np.int64(info[node])
            depth = packed >> 8
            if node != first:
                b = packed & 255
                q, column = path[depth - 1, 0], path[depth - 1, 1]
                target = np.int64(rows[q, b])
                if target == 0:
                    node = np.int64(end[node])
                    continue
                if target == UNKNOWN:
                    meta[M_NODE] = node
                    meta[M_A] = q
                    meta[M_B] = b
                    return HOLE_ROW
                if target < 0:
                    if not _room(stacks, indents, meta) or meta[M_TASKS] + 16 > tasks.shape[0]:
                        meta[M_NODE] = node
                        return FULL
                    n = _event(
                        rows,
                        pool,
                        starts,
                        lr,
                        stacks,
                        indents,
                        meta,
                        known,
                        -target,
                        meta[M_SKIP],
                        p,
                        x,
                        column,
                        b,
                        found,
                    )
                    if n < 0:
                        meta[M_NODE] = node
                        return n
                    meta[M_SKIP] = 0
                    is_big = end[node] - node > BIG
                    for i in range(n):
                        if is_big and rows[found[i, 0], NEWLINE] == 0 and meta[M_BIG] < out_big.shape[0]:
                            k = meta[M_BIG]
                            meta[M_BIG] = k + 1
                            out_big[k, 0] = node
                            for j in range(4):
                                out_big[k, 1 + j] = found[i, j]
                        else:
                            k = meta[M_TASKS]
                            meta[M_TASKS] = k + 1
                            tasks[k, 0] = node
                            for j in range(4):
                                tasks[k, 1 + j] = found[i, j]
                    node = np.int64(end[node])
                    continue
                path[depth, 0] = target
                path[depth, 1] = _column(meta, rows, target, column, b)
            t = token[node]
            if t != nobody:
                status = _live(rows, pool, lr, stacks, indents, meta, known, path[depth, 0], p, x)
                if status < 0:
                    meta[M_NODE] = node
                    return status
                if status == LIVE:
                    out_mask[t >> 5] |= np.uint32(1) << np.uint32(t & 31)
            node += 1
        meta[M_NODE] = -1
