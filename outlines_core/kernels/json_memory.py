"""The memory of the JSON engine's kernels: one array of numbers for everything that is not a content row.

mem[:16] is `meta` (M_*): what a kernel says to its caller, and how much of the tables is in use. mem[16:32] holds where
the regions begin and how large they are (R_*):

    inst   24 a piece: kind · arena row to begin with · trie root · least, most characters · flags · offset of the
           allowed leaves · offset of a plain object · then, for structural states, what each of 16 classes leads to
    nodes  6 a piece, tries of known texts: first child · children · byte · leaf or -1 · leaves below [from, to)
    pool   numbers of any kind: bit sets over leaves, plain objects (`json_objects`)
    hash   2 a cell, open addressing: key, value
    stack  2 a piece: return << 1 | must its end be exact? · parent
    consts 8 a piece: [byte] = class, may it stand in a string · [288 + w] = what whitespace state w leads to
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from outlines_core.kernels.borrow import constants

__all__ = ["any_allowed", "edge", "find", "pack", "push", "put_edge"]

STRUCT, STRING, PLAIN = 0, 1, 2
COUNTED, OTHERS, UNNAMED = 1, 2, 4  # flags of string lexemes
LIVE, DEAD, HOLE, FULL, EXACT = 1, 0, -1, -2, -3
HOLE_STRUCT, HOLE_END, HOLE_RETURN, HOLE_ROW, HOLE_TRIE, HOLE_MEMBER = constants(6)
EDGE_END, EDGE_RETURN, EDGE_STACK, EDGE_OBJECT, EDGE_MEMBER = constants(5)
M_KIND, M_A, M_B, M_N_STACK, M_N_EDGES, M_EXACT, M_NODE, M_EXIT, M_N_EXITS, M_GENERIC = range(10)
M_N_CONFIGS, M_N_INST, M_N_POOL, M_INNER = range(10, 14)
ASK: Final = -2  # a table value: what follows depends on texts that only the caller knows
CLASSES: Final = 16
QUOTE, LBRACE, RBRACE, LBRACK, RBRACK, COLON, COMMA, LETTER_T, LETTER_F, LETTER_N, DIGIT, OTHER = range(4, 16)
R_INST, R_NODES, R_POOL, R_HASH, R_CELLS, R_STACK, R_STACK_SIZE, R_CONSTS, R_INST_SIZE, R_POOL_SIZE = range(16, 26)
HEADER: Final = 32
FREE: Final = 1  # the arena's row of any string content
INST, OUTCOME, FILLED, NEEDED = 24, 256, 257, 258  # width of an instance; columns of the arena
I_KIND, I_ROW, I_TRIE, I_LEAST, I_MOST, I_FLAGS, I_ALLOWED, I_OBJECT, I_CLASS = range(9)
WS: Final = 288  # the state before the first whitespace character is WS + 1
END_INSTANCE: Final = 1
CLOSE: Final = 1 << 61
RECORD: Final = 1 << 60
GOTO_MASK: Final = (1 << 30) - 1


def pack(target: int, *, push: int = 0, record: bool = False, close: bool = False) -> int:
    """A table value: go to instance `target` having pushed return `push`, or close with outcome `target`."""
    return target | push << 30 | (RECORD if record else 0) | (CLOSE if close else 0)


@njit(cache=True, nogil=True)
def find(mem, key):  # type: ignore[no-untyped-def]
    """The value of a key, -1 if there is none."""
    base, cells = mem[R_HASH], mem[R_CELLS]
    cell = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & (cells - 1)
    while True:
        k = mem[base + 2 * cell]
        if k == key:
            return mem[base + 2 * cell + 1]
        if k == -1:
            return np.int64(-1)
        cell = (cell + 1) & (cells - 1)


@njit(cache=True, nogil=True)
def put_edge(mem, kind, a, b, value):  # type: ignore[no-untyped-def]
    """Enter a value; the caller has seen to it that there is room."""
    key = (np.int64(kind) << 60) | (np.int64(a) << 30) | np.int64(b)
    base, cells = mem[R_HASH], mem[R_CELLS]
    cell = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & (cells - 1)
    while mem[base + 2 * cell] != -1 and mem[base + 2 * cell] != key:
        cell = (cell + 1) & (cells - 1)
    if mem[base + 2 * cell] == -1:
        mem[M_N_EDGES] += 1
    mem[base + 2 * cell] = key
    mem[base + 2 * cell + 1] = value


@njit(cache=True, nogil=True)
def edge(mem, kind, a, b, hole):  # type: ignore[no-untyped-def]
    """The value of an edge; -1 and a hole in meta if nobody has filled it."""
    value = find(mem, (np.int64(kind) << 60) | (np.int64(a) << 30) | np.int64(b))
    if value == -1:
        mem[M_KIND] = hole
        mem[M_A] = a
        mem[M_B] = b
    return value


@njit(cache=True, nogil=True)
def push(mem, sid, entry):  # type: ignore[no-untyped-def]
    """The stack node of `entry` on top of `sid`; -1 if a table is full."""
    found = find(mem, (np.int64(EDGE_STACK) << 60) | (np.int64(sid) << 30) | np.int64(entry))
    if found >= 0:
        return found
    n = mem[M_N_STACK]
    if n >= mem[R_STACK_SIZE] or 2 * mem[M_N_EDGES] >= mem[R_CELLS]:
        return np.int64(-1)
    mem[mem[R_STACK] + 2 * n] = entry
    mem[mem[R_STACK] + 2 * n + 1] = sid
    mem[M_N_STACK] = n + 1
    put_edge(mem, EDGE_STACK, sid, entry, n)
    return n


@njit(cache=True, nogil=True)
def any_allowed(mem, offset, low, high):  # type: ignore[no-untyped-def]
    """Is one of the bits low..high-1 of the set at `offset` set?"""
    base = mem[R_POOL] + offset
    while low < high:
        word = np.uint64(mem[base + (low >> 6)]) >> np.uint64(low & 63)
        n = min(64 - (low & 63), high - low)
        if n < 64:
            word &= (np.uint64(1) << np.uint64(n)) - np.uint64(1)
        if word != 0:
            return True
        low += n
    return False
