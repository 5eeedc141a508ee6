"""Plain objects: what may follow a member is found by the kernel, without a call to whoever fills the tables.

Nearly every object says of its members one by one what they must be. Behind a member, such an object differs from what
it was before in two sets of keys only: those that must not come any more, and those that still must. What its states
have in common is laid out when the object is first met, and what remains for each state is arithmetic of bit sets.
Sets are over *leaves*: the object's known keys in the order of their bytes, as in the trie of them, and one more leaf
for the names of other keys that it has already, which are in the trie, too.

In the pool:

    keys     words a set · leaves · arena row of other keys, 0: there are none · their colon instance, 0: not made yet
             · the keys that have an order (a set) · the keys that have values at all (a set)
             · for each leaf: what must not come after it, itself included (sets) · for each leaf: its colon, as above
    form     offset of the keys · flags of their lexeme · root of the trie · number of the form · offset of the form
             behind a key whose name is not known here (0: the form is such a one itself)
    state    offset of the form · its first instance · blocked, required, allowed keys (sets)
    member   first instance behind it · instance of the key · leaf, or below 0: another key

The three instances of a state: behind a value, behind a comma, within a key; I_OBJECT of each is the state's offset. A
member is pushed behind its key, not behind the colon, and it does not matter how its value ends.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from outlines_core.kernels.borrow import constants
from outlines_core.kernels.json_memory import (
    COMMA,
    EDGE_MEMBER,
    EDGE_OBJECT,
    FULL,
    HOLE,
    HOLE_MEMBER,
    I_ALLOWED,
    I_CLASS,
    I_FLAGS,
    I_KIND,
    I_LEAST,
    I_MOST,
    I_OBJECT,
    I_ROW,
    I_TRIE,
    INST,
    LIVE,
    M_A,
    M_B,
    M_KIND,
    M_N_EDGES,
    M_N_INST,
    M_N_POOL,
    QUOTE,
    R_CELLS,
    R_INST,
    R_INST_SIZE,
    R_POOL,
    R_POOL_SIZE,
    RBRACE,
    STRING,
    STRUCT,
    WS,
    find,
    pack,
    push,
    put_edge,
)

__all__ = ["MEMBER", "enter_object", "next_object"]

MEMBER: Final = 1 << 29
"""Set in an entry of the stack that is a member of a plain object: its offset << 1."""
K_WORDS, K_LEAVES, K_ROW, K_COLON, K_SETS = constants(5)
F_KEYS, F_FLAGS, F_TRIE, F_NUMBER, F_UNNAMED, F_SIZE = constants(6)
O_FORM, O_INSTANCE, O_SETS = constants(3)
BEHIND_VALUE, BEHIND_COMMA, WITHIN_KEY, INSTANCES = 0, 1, 2, 3
_ENDS: Final = pack(1, close=True)
_OTHER_LEAF: Final = (1 << 30) - 1


@njit(cache=True, nogil=True)
def enter_object(mem, form):  # type: ignore[no-untyped-def]
    """The first instance of the state of an object whose blocked and required keys stand behind the pool's end.

    There must be room for it in the pool; FULL if there is none elsewhere.
    """
    pool, at = mem[R_POOL], mem[M_N_POOL]
    n = mem[pool + mem[pool + form + F_KEYS] + K_WORDS]
    sets = pool + at + O_SETS
    h = np.uint64(14695981039346656037) ^ np.uint64(form)
    for k in range(2 * n):
        h = (h ^ np.uint64(mem[sets + k])) * np.uint64(1099511628211)
    low = np.int64((h ^ (h >> np.uint64(29))) & np.uint64((1 << 30) - 1))
    probe = np.int64(0)
    while True:
        first = find(mem, (np.int64(EDGE_OBJECT) << 60) | (low << 30) | probe)
        if first < 0:
            break
        known = pool + mem[mem[R_INST] + INST * first + I_OBJECT]
        if mem[known + O_FORM] == form:
            same = True
            for k in range(2 * n):
                same = same and mem[known + O_SETS + k] == mem[sets + k]
            if same:
                return first
        probe += 1
    first = mem[M_N_INST]
    if first + INSTANCES > mem[R_INST_SIZE] or 2 * (mem[M_N_EDGES] + 1) >= mem[R_CELLS]:
        return np.int64(FULL)
    mem[pool + at + O_FORM] = form
    mem[pool + at + O_INSTANCE] = first
    mem[M_N_POOL] = at + O_SETS + 3 * n
    mem[M_N_INST] = first + INSTANCES
    put_edge(mem, EDGE_OBJECT, low, probe, first)
    _lay_out(mem, form, at, first)
    return first


@njit(cache=True, nogil=True)
def _lay_out(mem, form, at, first):  # type: ignore[no-untyped-def]
    """Find the allowed keys of a new state, and write its instances."""
    pool = mem[R_POOL]
    keys = pool + mem[pool + form + F_KEYS]
    n, leaves = mem[keys + K_WORDS], mem[keys + K_LEAVES]
    blocked = pool + at + O_SETS
    required, allowed = blocked + n, blocked + 2 * n
    ordered = keys + K_SETS
    possible, behind = ordered + n, ordered + 2 * n
    done, others = True, mem[keys + K_ROW] != 0
    for w in range(n):
        mem[allowed + w] = 0
        done = done and mem[required + w] == 0
        others = others and mem[required + w] & mem[ordered + w] == 0
    found = False
    for leaf in range(leaves):
        w, bit = leaf >> 6, np.int64(1) << np.int64(leaf & 63)
        if mem[possible + w] & ~mem[blocked + w] & bit == 0:
            continue
        fits = True
        if not done:  # nothing that is required may be cut off
            for k in range(n):
                cut = mem[required + k] & mem[behind + n * leaf + k]
                if k == w:
                    cut &= ~bit
                fits = fits and cut == 0
        if fits:
            mem[allowed + w] |= bit
            found = True
    inst = mem[R_INST] + INST * first
    for k in range(INSTANCES * INST):
        mem[inst + k] = 0
    for k in range(INSTANCES):
        mem[inst + INST * k + I_KIND] = STRUCT
        mem[inst + INST * k + I_OBJECT] = at
    if found or others:
        mem[inst + I_CLASS + COMMA] = first + BEHIND_COMMA
    if done:
        mem[inst + I_CLASS + RBRACE] = _ENDS
    mem[inst + INST + I_CLASS + QUOTE] = first + WITHIN_KEY
    key = inst + INST * WITHIN_KEY
    mem[key + I_KIND] = STRING
    mem[key + I_ROW] = mem[keys + K_ROW] if others else 0
    mem[key + I_TRIE] = mem[pool + form + F_TRIE]
    mem[key + I_LEAST] = 0
    mem[key + I_MOST] = -1
    mem[key + I_FLAGS] = mem[pool + form + F_FLAGS] if others else 0
    mem[key + I_ALLOWED] = at + O_SETS + 2 * n


@njit(cache=True, nogil=True)
def _member(mem, i, leaf):  # type: ignore[no-untyped-def]
    """The offset of a member; FULL."""
    number = leaf if leaf >= 0 else np.int64(_OTHER_LEAF)
    known = find(mem, (np.int64(EDGE_MEMBER) << 60) | (np.int64(i) << 30) | number)
    if known >= 0:
        return known
    pool = mem[R_POOL]
    state = mem[mem[R_INST] + INST * i + I_OBJECT]
    form = mem[pool + state + O_FORM]
    keys = pool + mem[pool + form + F_KEYS]
    n = mem[keys + K_WORDS]
    if mem[M_N_POOL] + 3 * n + 8 > mem[R_POOL_SIZE] or 2 * (mem[M_N_EDGES] + 2) >= mem[R_CELLS]:
        return np.int64(FULL)
    sets = pool + mem[M_N_POOL] + O_SETS
    behind = keys + K_SETS + (2 + leaf) * n if leaf >= 0 else keys + K_SETS  # others come behind all that have an order
    for k in range(n):
        mem[sets + k] = mem[pool + state + O_SETS + k] | mem[behind + k]
        mem[sets + n + k] = mem[pool + state + O_SETS + n + k]
    if leaf >= 0:
        mem[sets + n + (leaf >> 6)] &= ~(np.int64(1) << np.int64(leaf & 63))
    else:
        form = mem[pool + form + F_UNNAMED]
    first = enter_object(mem, form)
    if first < 0:
        return first
    made = mem[M_N_POOL]
    mem[pool + made] = first
    mem[pool + made + 1] = i
    mem[pool + made + 2] = leaf
    mem[M_N_POOL] = made + 3
    put_edge(mem, EDGE_MEMBER, i, number, made)
    return made


@njit(cache=True, nogil=True)
def next_object(mem, i, leaf, out, d):  # type: ignore[no-untyped-def]
    """The closing quote of a key: go on at its colon, in out[d].  LIVE, HOLE or FULL.

    i, leaf  the instance of the key, and its leaf, -1 if it is another key
    """
    pool = mem[R_POOL]
    form = pool + mem[pool + mem[mem[R_INST] + INST * i + I_OBJECT] + O_FORM]
    keys = pool + mem[form + F_KEYS]
    colon = mem[keys + K_COLON]
    if leaf >= 0:
        colon = mem[keys + K_SETS + (2 + mem[keys + K_LEAVES]) * mem[keys + K_WORDS] + leaf]
    if colon == 0:
        mem[M_KIND] = HOLE_MEMBER
        mem[M_A] = i
        mem[M_B] = leaf
        return np.int64(HOLE)
    member = _member(mem, i, leaf)
    if member < 0:
        return np.int64(FULL)
    sid = push(mem, out[d, 4], MEMBER | member << 1)
    if sid < 0:
        return np.int64(FULL)
    out[d, 0] = colon
    out[d, 1] = 0
    out[d, 2] = 0
    out[d, 3] = WS + 1
    out[d, 4] = sid
    return np.int64(LIVE)
