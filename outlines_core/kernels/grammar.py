"""LALR with a lexer, over the vocabulary's trie.

A *world* is (row, stack, indents, column). A row of the lexer's table is a lexeme that is being read, together with
what it may be if it ends here; so the parser is asked only where a byte no longer belongs to the lexeme. A byte leads
from a row to another one, to nothing, or to an *event*: rows in which the lexeme goes on, and terminals that it may
have been, each with the boundary behind it, from which the byte begins the next lexeme.

    rows     (n, WIDTH) int32: by byte a row, DEAD, UNKNOWN, or minus the place of an event in `pool`; then ENDINGS and
             PARTS (places in `pool`, see there; 0: unknown), NEWLINE (may it become the newline of an indenter?)
    pool     int32: events are n, rows.., m, then m pairs of terminal and boundary; endings are n, then terminals that
             the lexeme can become (AT_END: the end of the text; AT_END + 1 + t: t at the end of the text; ANY:
             something ignored; ENTANGLED: nobody knows what else); parts are the row of the lexeme as
             if it did not end here (0: it must), m, then m triples of what it may be if it does, the boundary behind
             that (of something ignored -1 - lexer) and may the text end there
             terminals from VARIANT on: the lexer says what they are, see `resolve`
    starts   (lexers, boundaries) int32: the row before a lexeme; UNKNOWN
    lr       int32: the LALR automaton, see the L_ names: how many states, terminals and one for the end of the text,
             nonterminals, lexers and variants there are, and where the tables begin: actions by state and terminal, 0 =
             error, s + 1 = shift, -r - 1 = reduce rule r; gotos by state and nonterminal or -1; rules: nonterminal and
             size; lexers by state; kinds by terminal: OPENS, CLOSES, NEWLINE_TOKEN; what variants are, by lexer
             (one array: numba counts references of all that a function takes out of a tuple)
    units    (8192, 2) int64: see `_behind_units`
    stacks   (n, 3) int32: state on top, stack below, depth; 0 is no stack
    indents  (n, 3) int32: column, indents below (-1: none), brackets; 0 is the beginning
    known    (a power of two, 6) int64: what has been asked of stacks, a hash table: stack << 32 | indents,
             meta[M_STAMP] of the time << 32 | question, answer (two), the lowest depth that it depends on, what else
    meta     int64, see the M_ names
    worlds   (n, 4) int64, out the same: scratch, and what a step begins and ends with
    stack_table, indent_table  (a power of two,) int32: hash tables of the stacks and indents that are kept
    scratch  (n, 3) int64

Kernels take the address of the table that says where these are (`kernels.borrow`), in the order of the H_ names.
What is pushed lies behind meta[M_STACKS] and meta[M_INDENTS] and is the caller's to keep or forget.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from outlines_core.kernels.borrow import as_pointer, constants, pointer_to

DEAD: Final = 0
UNKNOWN: Final = -(1 << 31)
ENDINGS, NEWLINE, PARTS, WIDTH = 256, 257, 258, 260
VARIANT: Final = 1 << 16  # as in grammar.worlds
AT_END: Final = 1 << 20
ANY, ENTANGLED = -1, -2
LIVE, FULL, HOLE_ROW, HOLE_START, HOLE_ENDINGS, HOLE_PARTS, IS_ENTANGLED, TABLE_FULL = 1, -1, -2, -3, -4, -5, -6, -7
OPENS, CLOSES, NEWLINE_TOKEN = 1, 2, 3
(
    M_STACKS, M_INDENTS, M_A, M_B, M_LOWEST, M_LOOKED, M_STAMP, M_END, M_INDENTED, M_OPEN, M_CLOSE, M_TAB, M_N,
    M_NODE, M_ITEM, M_ITEMS, M_PAIRS, M_EXITS, M_CHILDREN, M_WANTED, M_FOUND, M_BOUNDARIES, M_WORDS, M_GATHERED,
    M_RESULTS, M_KEPT, M_NOTING, M_KEEP_ENTANGLED,
) = constants(28)  # fmt: skip
(
    H_ROWS, H_POOL, H_STARTS, H_LR, H_UNITS, H_STACKS, H_INDENTS, H_META, H_KNOWN, H_WORLDS, H_OUT, H_STACK_TABLE,
    H_INDENT_TABLE, H_SCRATCH, H_INFO, H_END, H_TOKEN, H_PLACES, H_GROUPS, H_EXITS, H_LINKS, H_IDS, H_NODES, H_DENSE,
    H_MEMOS, H_NOTES, H_WHOLE, H_ROOTS, H_COUNTS, H_PATH, H_TASKS, H_FOUND, H_GATHERED, H_RESULTS, H_WANTED, H_MASK,
    H_SIZE,
) = constants(37)  # fmt: skip
(
    L_STATES, L_WIDTH, L_NONTERMINALS, L_LEXERS, L_VARIANTS, L_ACTIONS, L_GOTOS, L_RULES, L_LEXER, L_KINDS, L_RESOLVE,
    L_SIZE,
) = range(12)  # fmt: skip
BRACKETS, INDENTS = 1, 2
"""Bits of meta[M_LOOKED]: did anything depend on the number of brackets, on the columns?"""
META_SIZE: Final = 32
SPARE: Final = 2048  # rows of `stacks` and `indents` that must be free when a world is looked at
MOST_PUSHED: Final = 100  # on one terminal; 16 of them are looked at for one byte


@njit(cache=True, nogil=True)
def numbers(handles, k):  # type: ignore[no-untyped-def]
    """One of the flat arrays of int32."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n,), np.int32)


@njit(cache=True, nogil=True)
def triples(handles, k):  # type: ignore[no-untyped-def]
    """`stacks` or `indents`."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n, 3), np.int32)


@njit(cache=True, nogil=True)
def quadruples(handles, k):  # type: ignore[no-untyped-def]
    """`worlds` or `out`."""
    pointer, n = pointer_to(handles, k)
    return carray(pointer, (n, 4), np.int64)


@njit(cache=True, nogil=True)
def rows_of(handles):  # type: ignore[no-untyped-def]
    pointer, n = pointer_to(handles, H_ROWS)
    return carray(pointer, (n, WIDTH), np.int32)


@njit(cache=True, nogil=True)
def meta_of(handles):  # type: ignore[no-untyped-def]
    pointer, _ = pointer_to(handles, H_META)
    return carray(pointer, (META_SIZE,), np.int64)


@njit(cache=True, nogil=True)
def _known_of(handles):  # type: ignore[no-untyped-def]
    pointer, n = pointer_to(handles, H_KNOWN)
    return carray(pointer, (n, 6), np.int64)


@njit(cache=True, nogil=True)
def _push(nodes, meta, top, a, b, c):  # type: ignore[no-untyped-def]
    k = meta[top]
    nodes[k, 0] = a
    nodes[k, 1] = b
    nodes[k, 2] = c
    meta[top] = k + 1
    return k


@njit(cache=True, nogil=True)
def _behind_units(handles, lr, state, under, t):  # type: ignore[no-untyped-def]
    """The state to which reductions of rules of one symbol lead from `state` above `under`; remembered for good.

    Expressions have a dozen such rules one above the other.
    """
    pointer, n = pointer_to(handles, H_UNITS)
    units = carray(pointer, (n, 2), np.int64)
    width = np.int64(lr[L_WIDTH])
    key = (np.int64(under) * lr[L_STATES] + state) * width + t + 1
    cell = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (n - 1)
    if units[cell, 0] == key:
        return units[cell, 1]
    actions, gotos, rules = np.int64(lr[L_ACTIONS]), np.int64(lr[L_GOTOS]), np.int64(lr[L_RULES])
    for _ in range(1000):  # where a rule derives itself there may be no end of them
        action = np.int64(lr[actions + state * width + t])
        if action >= 0 or lr[rules - 2 * action - 1] != 1:
            break
        state = np.int64(lr[gotos + np.int64(under) * lr[L_NONTERMINALS] + lr[rules - 2 * action - 2]])
    units[cell, 0] = key
    units[cell, 1] = state
    return state


@njit(cache=True, nogil=True)
def _shift(handles, p, t):  # type: ignore[no-untyped-def]
    """The stack after a terminal, 0 if it is refused; after the end of the text 1 or 0."""
    lr, stacks, meta = numbers(handles, H_LR), triples(handles, H_STACKS), meta_of(handles)
    actions, width = np.int64(lr[L_ACTIONS]), np.int64(lr[L_WIDTH])
    gotos, rules = np.int64(lr[L_GOTOS]), np.int64(lr[L_RULES])
    state, below, real = np.int64(stacks[p, 0]), np.int64(stacks[p, 1]), True
    ends = t == width - 1
    top = meta[M_STACKS]
    for _ in range(1 << 20):
        action = np.int64(lr[actions + state * width + t])
        if action == 0 or meta[M_STACKS] - top > MOST_PUSHED:
            return np.int64(0)
        if action > 0:
            if not real:
                p = _push(stacks, meta, M_STACKS, state, below, stacks[below, 2] + 1)
            return np.int64(_push(stacks, meta, M_STACKS, action - 1, p, stacks[p, 2] + 1))
        size = np.int64(lr[rules - 2 * action - 1])
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
        state = np.int64(lr[gotos + under * lr[L_NONTERMINALS] + lr[rules - 2 * action - 2]])
        if ends:
            if state == meta[M_END]:
                return np.int64(1)
        else:
            state = _behind_units(handles, lr, state, under, t)
    return np.int64(0)


@njit(cache=True, nogil=True)
def ends(handles, p, x):  # type: ignore[no-untyped-def]
    """May the text end behind this stack?"""
    meta, indents = meta_of(handles), triples(handles, H_INDENTS)
    top = meta[M_STACKS]
    if meta[M_INDENTED] != 0:
        meta[M_LOOKED] |= INDENTS
        while indents[x, 1] >= 0 and p != 0:
            x = np.int64(indents[x, 1])
            p = _shift(handles, p, meta[M_CLOSE])
    if p != 0:
        p = _shift(handles, p, np.int64(numbers(handles, H_LR)[L_WIDTH] - 1))
    meta[M_STACKS] = top
    return p != 0


@njit(cache=True, nogil=True)
def _goes_on(handles, p, x):  # type: ignore[no-untyped-def]
    """Behind a newline and the INDENT or DEDENTs of its column: may something else come, or the end of the text?"""
    lr, meta = numbers(handles, H_LR), meta_of(handles)
    top, width = meta[M_STACKS], np.int64(lr[L_WIDTH])
    actions = lr[L_ACTIONS] + np.int64(triples(handles, H_STACKS)[p, 0]) * width
    for t in range(width - 1):
        if lr[actions + t] != 0 and t != meta[M_OPEN] and t != meta[M_CLOSE]:
            taken = _shift(handles, p, t) != 0
            meta[M_STACKS] = top
            if taken:
                return True
    return ends(handles, p, x)


@njit(cache=True, nogil=True)
def after(handles, p, x, t, column):  # type: ignore[no-untyped-def]
    """Stack and indents after a terminal whose text ends in a column; stack 0 if it is refused."""
    meta = meta_of(handles)
    if meta[M_INDENTED] == 0:
        return _shift(handles, p, t), x
    lr, indents = numbers(handles, H_LR), triples(handles, H_INDENTS)
    kind = lr[lr[L_KINDS] + t]
    brackets = np.int64(indents[x, 2])
    if kind == NEWLINE_TOKEN:
        meta[M_LOOKED] |= BRACKETS
        if brackets > 0:
            return p, x
        meta[M_LOOKED] |= INDENTS
        p = _shift(handles, p, t)
        if p == 0 or column < 0:
            return np.int64(0), x
        if column > indents[x, 0]:
            p = _shift(handles, p, meta[M_OPEN])
            x = np.int64(_push(indents, meta, M_INDENTS, column, x, np.int64(0)))
        else:
            while column < indents[x, 0] and p != 0:
                x = np.int64(indents[x, 1])
                p = _shift(handles, p, meta[M_CLOSE])
            if column != indents[x, 0]:
                return np.int64(0), x
        if p != 0 and not _goes_on(handles, p, x):
            return np.int64(0), x
        return p, x
    p = _shift(handles, p, t)
    if p != 0 and kind == OPENS:
        x = np.int64(_push(indents, meta, M_INDENTS, np.int64(indents[x, 0]), np.int64(indents[x, 1]), brackets + 1))
    elif p != 0 and kind == CLOSES:  # never the first bracket: they nest in the rules (`separation.is_regular`)
        x = np.int64(_push(indents, meta, M_INDENTS, np.int64(indents[x, 0]), np.int64(indents[x, 1]), brackets - 1))
    return p, x


@njit(cache=True, nogil=True)
def lexer_of(handles, p):  # type: ignore[no-untyped-def]
    """The lexer that reads what comes behind a stack."""
    lr = numbers(handles, H_LR)
    return np.int64(lr[lr[L_LEXER] + triples(handles, H_STACKS)[p, 0]])


@njit(cache=True, nogil=True)
def resolved(handles, p, t):  # type: ignore[no-untyped-def]
    """What a terminal is for the lexer that reads what comes behind a stack."""
    if t < VARIANT or t >= AT_END:
        return t
    lr = numbers(handles, H_LR)
    return np.int64(lr[lr[L_RESOLVE] + lexer_of(handles, p) * lr[L_VARIANTS] + t - VARIANT])


@njit(cache=True, nogil=True)
def _takes(handles, p, x, t):  # type: ignore[no-untyped-def]
    """May a terminal come next?  Of a newline the column is free.  AT_END: may the text end?

    From AT_END + 1 on: may it end behind a terminal?
    """
    meta = meta_of(handles)
    top, other = meta[M_STACKS], meta[M_INDENTS]
    if t >= AT_END:
        if t > AT_END:
            t = resolved(handles, p, t - AT_END - 1)
            p, x = after(handles, p, x, t, np.int64(-1))
        taken = p != 0 and ends(handles, p, x)
        meta[M_STACKS], meta[M_INDENTS] = top, other
        return taken
    if meta[M_INDENTED] != 0:
        lr = numbers(handles, H_LR)
        if lr[lr[L_KINDS] + t] == NEWLINE_TOKEN:
            meta[M_LOOKED] |= BRACKETS
            if triples(handles, H_INDENTS)[x, 2] > 0:
                return True
    taken = _shift(handles, p, t) != 0
    meta[M_STACKS] = top
    return taken


@njit(cache=True, nogil=True)
def _cell(meta, known, p, x, what):  # type: ignore[no-untyped-def]
    """The cell of `known` for a question about a stack, its own or one to be used for it; -1: no answer is there."""
    key, question = np.int64(p) << 32 | np.int64(x), meta[M_STAMP] << 32 | what
    cells = known.shape[0]
    mixed = (np.uint64(key) ^ np.uint64(what) * np.uint64(0xC2B2AE3D27D4EB4F)) * np.uint64(0x9E3779B97F4A7C15)
    cell = np.int64(mixed >> np.uint64(40)) & (cells - 1)
    for _ in range(8):
        if known[cell, 1] >> 32 != meta[M_STAMP]:
            break
        if known[cell, 0] == key and known[cell, 1] == question:
            return cell
        cell = (cell + 1) & (cells - 1)
    known[cell, 0] = key
    known[cell, 1] = question
    known[cell, 2] = -1
    return cell


@njit(cache=True, nogil=True)
def _ask(meta):  # type: ignore[no-untyped-def]
    """Before a question: what was looked at so far."""
    lowest, looked = meta[M_LOWEST], meta[M_LOOKED]
    meta[M_LOWEST], meta[M_LOOKED] = np.int64(1) << 40, 0
    return lowest, looked


@njit(cache=True, nogil=True)
def _answered(meta, known, cell, lowest, looked):  # type: ignore[no-untyped-def]
    """Remember what the answer in a cell depends on, beside what was looked at before."""
    known[cell, 4] = meta[M_LOWEST]
    known[cell, 5] = meta[M_LOOKED]
    meta[M_LOWEST], meta[M_LOOKED] = min(meta[M_LOWEST], lowest), meta[M_LOOKED] | looked


@njit(cache=True, nogil=True)
def _taken(handles, p, x, t):  # type: ignore[no-untyped-def]
    """`_takes`, remembered."""
    meta, known = meta_of(handles), _known_of(handles)
    t = resolved(handles, p, t)
    cell = _cell(meta, known, p, x, t << 1)
    if known[cell, 2] < 0:
        lowest, looked = _ask(meta)
        known[cell, 2] = np.int64(_takes(handles, p, x, t))
        _answered(meta, known, cell, lowest, looked)
    else:
        meta[M_LOWEST], meta[M_LOOKED] = min(meta[M_LOWEST], known[cell, 4]), meta[M_LOOKED] | known[cell, 5]
    return known[cell, 2] == 1


@njit(cache=True, nogil=True)
def followed(handles, p, x, t, column):  # type: ignore[no-untyped-def]
    """`after`, remembered."""
    meta, known, lr = meta_of(handles), _known_of(handles), numbers(handles, H_LR)
    t = resolved(handles, p, t)
    if meta[M_INDENTED] != 0 and lr[lr[L_KINDS] + t] == NEWLINE_TOKEN:
        if column > 500:
            return after(handles, p, x, t, column)
        what = ((column + 2) << 21 | t) << 1 | 1
    else:
        what = t << 1 | 1
    cell = _cell(meta, known, p, x, what)
    if known[cell, 2] < 0:
        lowest, looked = _ask(meta)
        p2, x2 = after(handles, p, x, t, column)
        known[cell, 2] = p2
        known[cell, 3] = x2
        _answered(meta, known, cell, lowest, looked)
    else:
        meta[M_LOWEST], meta[M_LOOKED] = min(meta[M_LOWEST], known[cell, 4]), meta[M_LOOKED] | known[cell, 5]
    return known[cell, 2], known[cell, 3]


@njit(cache=True, nogil=True)
def any_taken(handles, at, p, x):  # type: ignore[no-untyped-def]
    """LIVE, DEAD or IS_ENTANGLED: does the parser take one of some endings?"""
    pool = numbers(handles, H_POOL)
    for k in range(at + 1, at + 1 + pool[at]):
        t = np.int64(pool[k])
        if t == ANY or (t >= 0 and _taken(handles, p, x, t)):
            return LIVE
        if t == ENTANGLED:
            return IS_ENTANGLED
    return DEAD


@njit(cache=True, nogil=True)
def is_live(handles, rows, q, p, x):  # type: ignore[no-untyped-def]
    """LIVE, DEAD or a hole: can a lexeme become something that the parser takes?"""
    at = np.int64(rows[q, ENDINGS])
    if at == 0:
        meta_of(handles)[M_A] = q
        return HOLE_ENDINGS
    return any_taken(handles, at, p, x)


@njit(cache=True, nogil=True)
def column_after(meta, rows, q, column, b):  # type: ignore[no-untyped-def]
    """The column after a byte of the lexeme that has led to row `q`."""
    if meta[M_INDENTED] == 0 or rows[q, NEWLINE] == 0:
        return np.int64(-1)
    if b == 0x0A:
        return np.int64(0)
    if column < 0:
        return column
    return column + (1 if b == 0x20 else meta[M_TAB] if b == 0x09 else 0)


@njit(cache=True, nogil=True)
def start_of(handles, meta, lexer, boundary):  # type: ignore[no-untyped-def]
    """The row before a lexeme, or UNKNOWN."""
    return np.int64(numbers(handles, H_STARTS)[lexer * meta[M_BOUNDARIES] + boundary])


@njit(cache=True, nogil=True)
def begun(handles, rows, boundary, p, x, b, out, n):  # type: ignore[no-untyped-def]
    """The worlds in which a byte begins a lexeme behind a boundary, into `out` from `n` on; how many, or a hole."""
    meta = meta_of(handles)
    lexer = lexer_of(handles, p)
    start = start_of(handles, meta, lexer, boundary)
    if start == UNKNOWN:
        meta[M_A] = lexer
        meta[M_B] = boundary
        return np.int64(HOLE_START)
    q = np.int64(rows[start, b])
    if q == UNKNOWN:
        meta[M_A] = start
        meta[M_B] = b
        return np.int64(HOLE_ROW)
    first = n
    if q > 0:
        out[n, 0] = q
        n += 1
    elif q < 0:  # no terminal ends before its first byte: rows alone
        pool = numbers(handles, H_POOL)
        for j in range(1 - q, 1 - q + pool[-q]):
            out[n, 0] = pool[j]
            n += 1
    for j in range(first, n):
        out[j, 1] = p
        out[j, 2] = x
        out[j, 3] = column_after(meta, rows, np.int64(out[j, 0]), np.int64(-1), b)
    return np.int64(n - first)


@njit(cache=True, nogil=True)
def event(handles, rows, e, p, x, column, b, out, n):  # type: ignore[no-untyped-def]
    """The worlds behind an event and its byte, into `out` from `n` on; how many, or a hole."""
    pool, meta = numbers(handles, H_POOL), meta_of(handles)
    first = n
    at = e + 1 + pool[e]
    for k in range(e + 1, at):
        q = np.int64(pool[k])
        out[n, 0] = q
        out[n, 1] = p
        out[n, 2] = x
        out[n, 3] = column_after(meta, rows, q, column, b)
        n += 1
    for k in range(pool[at]):
        t, boundary = np.int64(pool[at + 1 + 2 * k]), np.int64(pool[at + 2 + 2 * k])
        p2, x2 = followed(handles, p, x, t, column)
        if p2 == 0:
            continue
        found = begun(handles, rows, boundary, p2, x2, b, out, n)
        if found < 0:
            return found
        n += found
    return np.int64(n - first)


@njit(cache=True, nogil=True)
def full(meta, k):  # type: ignore[no-untyped-def]
    """Say which array is full."""
    meta[M_A] = k
    return np.int64(FULL)


@njit(cache=True, nogil=True)
def has_room(handles, meta):  # type: ignore[no-untyped-def]
    _, n_stacks = pointer_to(handles, H_STACKS)
    _, n_indents = pointer_to(handles, H_INDENTS)
    return meta[M_STACKS] + SPARE <= n_stacks and meta[M_INDENTS] + SPARE <= n_indents


# -- what is kept ------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _slot(table, nodes, n_columns, value, below, other):  # type: ignore[no-untyped-def]
    """Where in a hash table of nodes one with this content is, or should be."""
    key = (np.int64(value) << 40) ^ (np.int64(below) << 16) ^ np.int64(other)
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (table.shape[0] - 1)
    while table[slot] != 0:
        k = table[slot]
        if nodes[k, 0] == value and nodes[k, 1] == below and (n_columns == 2 or nodes[k, 2] == other):
            return slot
        slot = (slot + 1) & (table.shape[0] - 1)
    return slot


@njit(cache=True, nogil=True)
def enter_all(table, nodes, n_columns, n):  # type: ignore[no-untyped-def]
    """Enter the first `n` nodes in an empty hash table; 0 is no node."""
    for k in range(1, n):
        other = nodes[k, 2] if n_columns == 3 else 0
        table[_slot(table, nodes, n_columns, np.int64(nodes[k, 0]), np.int64(nodes[k, 1]), other)] = k


@njit(cache=True, nogil=True)
def keep(handles, n, mark, other_mark):  # type: ignore[no-untyped-def]
    """Let the stacks and indents of worlds stay, equal ones once, and forget what else was pushed since the marks.

    Returns how many worlds there are, none twice; TABLE_FULL: nothing was done.
    """
    meta, worlds = meta_of(handles), quadruples(handles, H_WORLDS)
    stacks, indents = triples(handles, H_STACKS), triples(handles, H_INDENTS)
    stack_table, indent_table = numbers(handles, H_STACK_TABLE), numbers(handles, H_INDENT_TABLE)
    pointer, size = pointer_to(handles, H_SCRATCH)
    scratch = carray(pointer, (size, 3), np.int64)
    top = 0
    for w in range(n):  # what was pushed is written over: copy it first
        for which in range(2):
            nodes = stacks if which == 0 else indents
            first = mark if which == 0 else other_mark
            k = worlds[w, 1 + which]
            begin = top
            top += 1
            while k >= first:
                if top + 2 >= size:
                    return TABLE_FULL
                scratch[top, 0] = nodes[k, 0]
                scratch[top, 1] = nodes[k, 2]
                top += 1
                k = np.int64(nodes[k, 1])
            scratch[begin, 0] = top - begin - 1
            scratch[begin, 1] = k
    if 2 * (mark + top) > stack_table.shape[0] or 2 * (other_mark + top) > indent_table.shape[0]:
        return TABLE_FULL
    meta[M_STACKS], meta[M_INDENTS] = mark, other_mark
    at = 0
    kept = np.int64(0)
    for w in range(n):
        for which in range(2):
            nodes = stacks if which == 0 else indents
            table = stack_table if which == 0 else indent_table
            depth, k = scratch[at, 0], scratch[at, 1]
            for j in range(at + depth, at, -1):
                value, other = scratch[j, 0], scratch[j, 1] if which == 1 else 0
                slot = _slot(table, nodes, 2 + which, value, k, other)
                if table[slot] == 0:
                    if which == 0:
                        new = _push(stacks, meta, M_STACKS, value, k, stacks[k, 2] + 1)
                    else:
                        new = _push(indents, meta, M_INDENTS, value, k, other)
                    table[slot] = new
                k = np.int64(table[slot])
            at += depth + 1
            worlds[w, 1 + which] = k
        is_new = True
        for v in range(kept):
            if worlds[v, 0] == worlds[w, 0] and worlds[v, 1] == worlds[w, 1]:
                if worlds[v, 2] == worlds[w, 2] and worlds[v, 3] == worlds[w, 3]:
                    is_new = False
        if is_new:
            for j in range(4):
                worlds[kept, j] = worlds[w, j]
            kept += 1
    return kept


# -- steps ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def step(handles, address, size, n):  # type: ignore[no-untyped-def]
    """The live worlds after some bytes, in `worlds`, each once and with stacks that stay; how many.

    address, size  of the bytes
    n              how many of `worlds` it begins with
    Or a hole, FULL (of what, says meta[M_A]) or TABLE_FULL: `worlds` is no longer what it was.
    With meta[M_KEEP_ENTANGLED] worlds are kept, too, that may be dead.
    """
    data = carray(as_pointer(address), (size,), np.uint8)
    meta, rows = meta_of(handles), rows_of(handles)
    mark, other_mark = meta[M_STACKS], meta[M_INDENTS]
    worlds, out = quadruples(handles, H_WORLDS), quadruples(handles, H_OUT)
    limit = worlds.shape[0] - 16
    meta[M_STAMP] += 1
    for i in range(size):
        b = np.int64(data[i])
        m = np.int64(0)
        for w in range(n):
            q, p, x, column = worlds[w, 0], worlds[w, 1], worlds[w, 2], worlds[w, 3]
            target = np.int64(rows[q, b])
            if target == UNKNOWN:
                meta[M_A] = q
                meta[M_B] = b
                return np.int64(HOLE_ROW)
            if target > 0:
                out[m, 0] = target
                out[m, 1] = p
                out[m, 2] = x
                out[m, 3] = column_after(meta, rows, target, column, b)
                m += 1
            elif target < 0:
                if not has_room(handles, meta):
                    return full(meta, H_STACKS)
                if m > limit:
                    return full(meta, H_WORLDS)
                found = event(handles, rows, -target, p, x, column, b, out, m)
                if found < 0:
                    return found
                m += found
        for w in range(m):
            for k in range(4):
                worlds[w, k] = out[w, k]
        n = m
        if n == 0:
            return np.int64(0)
    kept = np.int64(0)
    for w in range(n):
        status = is_live(handles, rows, worlds[w, 0], worlds[w, 1], worlds[w, 2])
        if status == IS_ENTANGLED and meta[M_KEEP_ENTANGLED] != 0:
            status = LIVE
        if status < 0:
            return np.int64(status)
        if status == LIVE:
            for k in range(4):
                worlds[kept, k] = worlds[w, k]
            kept += 1
    return np.int64(keep(handles, kept, mark, other_mark))


@njit(cache=True, nogil=True)
def is_entangled(handles, q, p, x):  # type: ignore[no-untyped-def]
    """Was a world kept for meta[M_KEEP_ENTANGLED] alone?"""
    return is_live(handles, rows_of(handles), q, p, x) == IS_ENTANGLED


@njit(cache=True, nogil=True)
def accepts(handles, n):  # type: ignore[no-untyped-def]
    """May the text end in one of the first `n` of `worlds`?  1, 0, or a hole."""
    meta, rows, pool = meta_of(handles), rows_of(handles), numbers(handles, H_POOL)
    worlds = quadruples(handles, H_WORLDS)
    for w in range(n):
        q, p, x, column = worlds[w, 0], worlds[w, 1], worlds[w, 2], worlds[w, 3]
        at = np.int64(rows[q, PARTS])
        if at == 0:
            meta[M_A] = q
            return HOLE_PARTS
        for k in range(at + 2, at + 2 + 3 * pool[at + 1], 3):
            if pool[k + 2] == 0:
                continue
            top, other = meta[M_STACKS], meta[M_INDENTS]
            p2, x2 = p, x
            if pool[k] >= 0:
                t = resolved(handles, p, np.int64(pool[k]))
                p2, x2 = after(handles, p, x, t, column)
            found = p2 != 0 and ends(handles, p2, x2)
            meta[M_STACKS], meta[M_INDENTS] = top, other
            if found:
                return 1
    return 0


@njit(cache=True, nogil=True)
def step_one(handles, address, size, q, p, x, column):  # type: ignore[no-untyped-def]
    """`step` from one world; where it does not get through nothing is pushed."""
    meta, worlds = meta_of(handles), quadruples(handles, H_WORLDS)
    mark, other_mark = meta[M_STACKS], meta[M_INDENTS]
    worlds[0, 0], worlds[0, 1], worlds[0, 2], worlds[0, 3] = q, p, x, column
    status = step(handles, address, size, np.int64(1))
    if status < 0:
        meta[M_STACKS], meta[M_INDENTS] = mark, other_mark
    return status


@njit(cache=True, nogil=True)
def accepts_one(handles, q, p, x, column):  # type: ignore[no-untyped-def]
    """`accepts` of one world."""
    worlds = quadruples(handles, H_WORLDS)
    worlds[0, 0], worlds[0, 1], worlds[0, 2], worlds[0, 3] = q, p, x, column
    return accepts(handles, np.int64(1))
