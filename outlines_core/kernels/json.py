"""The JSON engine's inner loop: a nested word automaton whose tables are filled as it runs.

A *configuration* is five numbers: where we are, and the stack of containers around it.

    i    instance: a structural state, a string lexeme or a plain lexeme (number, keyword)
    c    string, plain: row of the arena that reads the content; 0: none
    t    string: node of the trie of known texts; 0: none (left it), -1: not looked up yet
    x    structural: whitespace state · string: characters read << 32 | escape state
    sid  stack node of the innermost open container; 0 at the top level

Tables. Passing many arrays from function to function costs more than all the work, so there are two:

    rows   (n, 259) int32, the arena: one row a content state: what follows each byte (0 dead) · outcome or -1 · filled?
           · characters to an end
    mem    int64, everything else (`json_memory`)

What is not in a table yet is a *hole*: the kernel says which one and is called again once it is filled. `EXACT` means
that what follows depends on a text that only the caller knows (the name of a new key, the value of a unique item).
While meta[M_GENERIC] is set, a unique item whose value does not matter yet is passed over instead (`json_tables`).

A lexeme is left at a closing quote, or before the first byte that cannot continue a number. Inside a lexeme nothing
depends on the stack, so the tokens that stay inside are computed once for a content state (`json_content`), together
with the *exits*, the trie nodes at which the lexeme ends; a mask is the former plus a walk of the latter.

Values: GOTO an instance, perhaps pushing a return, or CLOSE the value with an outcome (packed, see `pack`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from outlines_core.kernels.json_memory import (
    ASK,
    CLASSES,
    CLOSE,
    COUNTED,
    DEAD,
    EDGE_END,
    EDGE_RETURN,
    END_INSTANCE,
    EXACT,
    FILLED,
    FULL,
    GOTO_MASK,
    HEADER,
    HOLE,
    HOLE_END,
    HOLE_MEMBER,
    HOLE_RETURN,
    HOLE_ROW,
    HOLE_STRUCT,
    HOLE_TRIE,
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
    M_EXACT,
    M_EXIT,
    M_GENERIC,
    M_KIND,
    M_N_EDGES,
    M_N_EXITS,
    M_N_INST,
    M_N_POOL,
    M_N_STACK,
    M_NODE,
    NEEDED,
    OTHERS,
    OUTCOME,
    PLAIN,
    R_CELLS,
    R_CONSTS,
    R_HASH,
    R_INST,
    R_INST_SIZE,
    R_NODES,
    R_POOL,
    R_POOL_SIZE,
    R_STACK,
    R_STACK_SIZE,
    RECORD,
    STRING,
    STRUCT,
    UNNAMED,
    WS,
    any_allowed,
    edge,
    pack,
    push,
    put_edge,
)
from outlines_core.kernels.json_objects import MEMBER, next_object

__all__ = [
    "ASK",
    "CLASSES",
    "CLOSE",
    "COUNTED",
    "DEAD",
    "EDGE_END",
    "EDGE_RETURN",
    "END_INSTANCE",
    "ESCAPED",
    "EXACT",
    "FILLED",
    "FULL",
    "GOTO_MASK",
    "HEADER",
    "HEX",
    "HOLE",
    "HOLE_END",
    "HOLE_MEMBER",
    "HOLE_RETURN",
    "HOLE_ROW",
    "HOLE_STRUCT",
    "HOLE_TRIE",
    "INST",
    "I_ALLOWED",
    "I_CLASS",
    "I_FLAGS",
    "I_KIND",
    "I_LEAST",
    "I_MOST",
    "I_OBJECT",
    "I_ROW",
    "I_TRIE",
    "LIVE",
    "M_A",
    "M_B",
    "M_EXACT",
    "M_EXIT",
    "M_GENERIC",
    "M_KIND",
    "M_NODE",
    "M_N_EDGES",
    "M_N_EXITS",
    "M_N_INST",
    "M_N_POOL",
    "M_N_STACK",
    "NEEDED",
    "OTHERS",
    "OUTCOME",
    "PENDING",
    "PENDING_ESCAPED",
    "PENDING_HEX",
    "PLAIN",
    "RAW_ED",
    "RECORD",
    "R_CELLS",
    "R_CONSTS",
    "R_HASH",
    "R_INST",
    "R_INST_SIZE",
    "R_NODES",
    "R_POOL",
    "R_POOL_SIZE",
    "R_STACK",
    "R_STACK_SIZE",
    "STRING",
    "STRUCT",
    "UNNAMED",
    "WS",
    "build_trie",
    "extend_trie",
    "fewest_tokens",
    "pack",
    "push",
    "put_edge",
    "step",
    "walk",
    "walk_exits",
    "walk_groups",
    "walk_whitespace",
]

_ZERO, _TOP = np.int64(0), np.int64(0xFFFF)
# escape states: value of the hex digits so far | their number << 16 | stage << 19 | pending high surrogate << 22
ESCAPED, HEX, PENDING, PENDING_ESCAPED, PENDING_HEX, RAW_ED = 1, 2, 3, 4, 5, 6


@njit(cache=True, nogil=True)
def _row_filled(mem, rows, c):  # type: ignore[no-untyped-def]
    if rows[c, FILLED] != 0:
        return True
    mem[M_KIND] = HOLE_ROW
    mem[M_A] = c
    return False


@njit(cache=True, nogil=True)
def _child(mem, t, b):  # type: ignore[no-untyped-def]
    """The node below trie node `t` by a byte, 0 if there is none."""
    nodes = mem[R_NODES]
    first = mem[nodes + 6 * t]
    for k in range(first, first + mem[nodes + 6 * t + 1]):
        if mem[nodes + 6 * k + 2] == b:
            return np.int64(k)
    return np.int64(0)


@njit(cache=True, nogil=True)
def _content(mem, rows, i, c, t, n, b):  # type: ignore[no-untyped-def]
    """One content byte of a string: (status, c, t, n)."""
    inst = mem[R_INST] + INST * i
    most = np.int64(-1)
    if mem[inst + I_FLAGS] & COUNTED:
        most = mem[inst + I_MOST]
        if (b & 0xC0) != 0x80:
            n += 1
        if most >= 0 and n > most:
            return DEAD, c, t, n
    to = np.int64(0)
    if c > 0:
        if not _row_filled(mem, rows, c):
            return HOLE, c, t, n
        to = np.int64(rows[c, b])
        if most >= 0 and n + rows[to, NEEDED] > most:
            to = np.int64(0)
    node = np.int64(0)
    if t > 0:
        node = _child(mem, t, b)
        if node > 0 and to == 0:
            at = mem[R_NODES] + 6 * node
            if not any_allowed(mem, mem[inst + I_ALLOWED], mem[at + 4], mem[at + 5]):
                node = np.int64(0)
    if node == 0 and to == 0:
        return DEAD, to, node, n
    return LIVE, to, node, n


@njit(cache=True, nogil=True)
def _feed(mem, rows, i, c, t, n, point):  # type: ignore[no-untyped-def]
    """One code point (surrogates too) as its UTF-8 bytes."""
    if point < 0x80:
        return _content(mem, rows, i, c, t, n, point)
    length = 2 if point < 0x800 else 3 if point < 0x10000 else 4
    status = LIVE
    for k in range(length):
        if status == LIVE:
            b = point >> 6 * (length - 1 - k) & 63 | 0x80
            if k == 0:
                b = ((0xF00 >> length) & 0xFF) | (point >> 6 * (length - 1))
            status, c, t, n = _content(mem, rows, i, c, t, n, b)
    return status, c, t, n


@njit(cache=True, nogil=True)
def _some_point(mem, rows, i, c, t, n, low, high):  # type: ignore[no-untyped-def]
    """Can one of the code points low..high follow?  LIVE, DEAD or HOLE; dead lead bytes are skipped."""
    if c == 0 and t > 0:  # known texts only: there are few to look at
        nodes = mem[R_NODES]
        first = mem[nodes + 6 * t]
        for k in range(first, first + mem[nodes + 6 * t + 1]):
            b = mem[nodes + 6 * k + 2]
            if b < 0x80:
                least, most = b, b
            elif b < 0xE0:
                least, most = (b & 31) << 6, (b & 31) << 6 | 63
            elif b < 0xF0:
                least, most = (b & 15) << 12, (b & 15) << 12 | 4095
            else:
                least, most = (b & 7) << 18, (b & 7) << 18 | 262143
            if least <= high and most >= low:
                status = _scan_points(mem, rows, i, c, t, n, max(low, least), min(high, most))
                if status != DEAD:
                    return status
        return DEAD
    return _scan_points(mem, rows, i, c, t, n, low, high)


@njit(cache=True, nogil=True)
def _scan_points(mem, rows, i, c, t, n, low, high):  # type: ignore[no-untyped-def]
    """`_some_point`, all of them one by one."""
    point = low
    while point <= high:
        status, _, _, _ = _feed(mem, rows, i, c, t, n, point)
        if status != DEAD:
            return status
        if point < 0x80:
            point += 1
            continue
        if point < 0x800:
            lead, block = 0xC0 | point >> 6, 64
        elif point < 0x10000:
            lead, block = 0xE0 | point >> 12, 4096
        else:
            lead, block = 0xF0 | point >> 18, 262144
        status, _, _, _ = _content(mem, rows, i, c, t, n, lead)
        if status == HOLE:
            return status
        point = (point // block + 1) * block if status == DEAD else point + 1
    return DEAD


@njit(cache=True, nogil=True)
def _some_unit(mem, rows, i, c, t, n, low, high):  # type: ignore[no-untyped-def]
    """Can an escape of a code unit within low..high follow (a high surrogate: alone or with a low one)?"""
    status = _some_point(mem, rows, i, c, t, n, low, high)
    if status != DEAD:
        return status
    first = max(low, 0xD800)
    last = min(high, 0xDBFF)
    if first <= last:
        begin, stop = 0x10000 + ((first - 0xD800) << 10), 0x103FF + ((last - 0xD800) << 10)
        return _some_point(mem, rows, i, c, t, n, begin, stop)
    return DEAD


@njit(cache=True, nogil=True)
def _hex(b):  # type: ignore[no-untyped-def]
    if 0x30 <= b <= 0x39:
        return b - 0x30
    if 0x41 <= b <= 0x46:
        return b - 0x37
    if 0x61 <= b <= 0x66:
        return b - 0x57
    return -1


@njit(cache=True, nogil=True)
def _short_escape(b):  # type: ignore[no-untyped-def]
    """What the letter behind a backslash stands for, -1 if nothing."""
    if b == 0x22 or b == 0x5C or b == 0x2F:
        return b
    if b == 0x62:
        return 8
    if b == 0x66:
        return 12
    if b == 0x6E:
        return 10
    if b == 0x72:
        return 13
    if b == 0x74:
        return 9
    return -1


@njit(cache=True, nogil=True)
def _in_string(mem, rows, i, c, t, x, b):  # type: ignore[no-untyped-def]
    """One byte inside a string, not the closing quote: (status, c, t, x)."""
    n = x >> 32
    esc = x & 0xFFFFFFFF
    stage = esc >> 19 & 7
    if stage == RAW_ED:
        if b >= 0xA0:  # UTF-8 has no surrogates
            return DEAD, c, t, x
        stage = 0
        esc = np.int64(0)
    high = esc >> 22
    if stage == PENDING and b != 0x5C:  # the high surrogate stays alone
        status, c, t, n = _feed(mem, rows, i, c, t, n, 0xD800 + high)
        if status != LIVE:
            return status, c, t, x
        stage = 0
    if stage == 0:
        usable = mem[mem[R_CONSTS] + 8 * b + 1]
        if b == 0x5C and usable != 0:
            status = _some_unit(mem, rows, i, c, t, n, _ZERO, _TOP)
            return status, c, t, (n << 32) | (ESCAPED << 19)
        if usable == 0:
            return DEAD, c, t, x
        status, c, t, n = _content(mem, rows, i, c, t, n, b)
        if b != 0xED or status != LIVE:
            return status, c, t, n << 32
        for follower in range(0x80, 0xA0):  # what is not a surrogate
            status, _, _, _ = _content(mem, rows, i, c, t, n, follower)
            if status != DEAD:
                break
        return status, c, t, (n << 32) | (RAW_ED << 19)
    if stage == PENDING:
        status = _pending_range(mem, rows, i, c, t, n, high, _ZERO, _TOP)
        return status, c, t, (n << 32) | (PENDING_ESCAPED << 19) | (high << 22)
    if stage == ESCAPED or stage == PENDING_ESCAPED:
        if b == 0x75:
            if stage == PENDING_ESCAPED:
                return LIVE, c, t, (n << 32) | (PENDING_HEX << 19) | (high << 22)
            return LIVE, c, t, (n << 32) | (HEX << 19)
        point = _short_escape(b)
        if point < 0:
            return DEAD, c, t, x
        if stage == PENDING_ESCAPED:
            status, c, t, n = _feed(mem, rows, i, c, t, n, 0xD800 + high)
            if status != LIVE:
                return status, c, t, x
        status, c, t, n = _feed(mem, rows, i, c, t, n, point)
        return status, c, t, n << 32
    digit = _hex(b)
    if digit < 0:
        return DEAD, c, t, x
    value = (esc & 0xFFFF) << 4 | digit
    count = (esc >> 16 & 7) + 1
    if count == 4:
        if stage == PENDING_HEX:
            if 0xDC00 <= value <= 0xDFFF:
                status, c, t, n = _feed(mem, rows, i, c, t, n, 0x10000 + (high << 10) + (value - 0xDC00))
                return status, c, t, n << 32
            status, c, t, n = _feed(mem, rows, i, c, t, n, 0xD800 + high)
            if status != LIVE:
                return status, c, t, x
        if 0xD800 <= value <= 0xDBFF:
            status = _some_unit(mem, rows, i, c, t, n, value, value)
            return status, c, t, (n << 32) | (PENDING << 19) | ((value - 0xD800) << 22)
        status, c, t, n = _feed(mem, rows, i, c, t, n, value)
        return status, c, t, n << 32
    room = 4 * (4 - count)
    low, top = value << room, (value + 1 << room) - 1
    if stage == PENDING_HEX:
        status = _pending_range(mem, rows, i, c, t, n, high, low, top)
    else:
        status = _some_unit(mem, rows, i, c, t, n, low, top)
    return status, c, t, (n << 32) | value | (count << 16) | (stage << 19) | (high << 22)


@njit(cache=True, nogil=True)
def _pending_range(mem, rows, i, c, t, n, high, low, top):  # type: ignore[no-untyped-def]
    """After a high surrogate: can an escape of a code unit within low..top follow?"""
    first = max(low, 0xDC00)
    last = min(top, 0xDFFF)
    if first <= last:
        base = 0x10000 + (high << 10) - 0xDC00
        status = _some_point(mem, rows, i, c, t, n, base + first, base + last)
        if status != DEAD:
            return status
    status, c, t, n = _feed(mem, rows, i, c, t, n, 0xD800 + high)
    if status != LIVE:
        return status
    if low <= min(top, 0xDBFF):
        status = _some_unit(mem, rows, i, c, t, n, low, min(top, 0xDBFF))
        if status != DEAD:
            return status
    if max(low, 0xE000) <= top:
        return _some_unit(mem, rows, i, c, t, n, max(low, 0xE000), top)
    return DEAD


@njit(cache=True, nogil=True)
def _return(mem, bits, out, d):  # type: ignore[no-untyped-def]
    """The value inside the innermost container of out[d] has ended with outcome `bits`: what is behind it."""
    sid = out[d, 4]
    if sid == 0:
        out[d, 0] = END_INSTANCE
    else:
        entry = mem[mem[R_STACK] + 2 * sid]
        value = np.int64(ASK)
        if entry & MEMBER != 0:
            value = mem[mem[R_POOL] + ((entry & (MEMBER - 1)) >> 1)]
        elif entry & 1 == 0:
            value = edge(mem, EDGE_RETURN, entry >> 1, bits, HOLE_RETURN)
        elif mem[M_GENERIC] != 0:
            value = edge(mem, EDGE_RETURN, entry >> 1, bits | 1 << 29, HOLE_RETURN)
        if value == ASK:
            mem[M_A] = entry >> 1
            mem[M_B] = bits
            mem[M_KIND] = HOLE_RETURN
            return np.int64(EXACT)
        if value <= 0:
            return value
        out[d, 0] = value
        out[d, 4] = mem[mem[R_STACK] + 2 * sid + 1]
    out[d, 1] = 0
    out[d, 2] = 0
    out[d, 3] = WS + 1
    return LIVE


@njit(cache=True, nogil=True)
def _go(mem, rows, value, b, out, d):  # type: ignore[no-untyped-def]
    """Carry out a table value that byte `b` has led to."""
    if value & CLOSE:
        return _return(mem, value & GOTO_MASK, out, d)
    made = value >> 30 & GOTO_MASK
    if made:
        record = np.int64(1) if value & RECORD else np.int64(0)
        sid = push(mem, out[d, 4], made << 1 | record)
        if sid < 0:
            return FULL
        if record:
            mem[M_EXACT] = 1
        out[d, 4] = sid
    i = value & GOTO_MASK
    inst = mem[R_INST] + INST * i
    kind = mem[inst + I_KIND]
    out[d, 0] = i
    out[d, 1] = mem[inst + I_ROW]
    out[d, 2] = 0
    out[d, 3] = 0
    if kind == STRUCT:
        out[d, 1] = 0
        out[d, 3] = WS + 1
    elif kind == STRING:
        out[d, 2] = mem[inst + I_TRIE]
    else:
        c = mem[inst + I_ROW]
        if not _row_filled(mem, rows, c):
            return HOLE
        out[d, 1] = rows[c, b]
        if out[d, 1] == 0:
            return DEAD
    return LIVE


@njit(cache=True, nogil=True)
def _end_string(mem, rows, i, c, t, x, out, d):  # type: ignore[no-untyped-def]
    """The closing quote."""
    stage = (x & 0xFFFFFFFF) >> 19 & 7
    n = x >> 32
    if stage == PENDING:
        status, c, t, n = _feed(mem, rows, i, c, t, n, 0xD800 + ((x & 0xFFFFFFFF) >> 22))
        if status != LIVE:
            return status
    elif stage != 0:
        return DEAD
    inst = mem[R_INST] + INST * i
    flags = mem[inst + I_FLAGS]
    leaf = mem[mem[R_NODES] + 6 * t + 3] if t > 0 else np.int64(-1)
    if leaf >= 0:
        if not any_allowed(mem, mem[inst + I_ALLOWED], leaf, leaf + 1):
            return DEAD
        code = leaf << 1 | 1
    else:
        if c == 0 or rows[c, OUTCOME] < 0:
            return DEAD
        if flags & COUNTED and n < mem[inst + I_LEAST]:
            return DEAD
        code = np.int64(rows[c, OUTCOME]) << 1
        if flags & OTHERS:
            if flags & UNNAMED:
                mem[M_KIND] = HOLE_END
                mem[M_A] = i
                mem[M_B] = code
                return EXACT
            mem[M_EXACT] = 1
    if mem[inst + I_OBJECT] > 0:
        return next_object(mem, i, leaf, out, d)
    value = edge(mem, EDGE_END, i, code, HOLE_END)
    if value <= 0:
        return np.int64(value)
    return _go(mem, rows, value, np.int64(0x22), out, d)


@njit(cache=True, nogil=True)
def step(mem, rows, path, e, b, out, d):  # type: ignore[no-untyped-def]
    """The configuration after one byte: LIVE (then out[d] holds it), DEAD, HOLE, FULL or EXACT.

    path, out  (n, 5) int64, may be one array; out[d] is not path[e]
    """
    i, c, t, x, sid = path[e, 0], path[e, 1], path[e, 2], path[e, 3], path[e, 4]
    out[d, 0] = i
    out[d, 4] = sid
    inst = mem[R_INST] + INST * i
    kind = mem[inst + I_KIND]
    if kind == STRING:
        if t == -1:
            t = mem[inst + I_TRIE]
            if t == -1:
                mem[M_KIND] = HOLE_TRIE
                mem[M_A] = i
                return HOLE
        stage = (x & 0xFFFFFFFF) >> 19 & 7
        if b == 0x22 and stage != ESCAPED and stage != PENDING_ESCAPED:
            return _end_string(mem, rows, i, c, t, x, out, d)
        status, c, t, x = _in_string(mem, rows, i, c, t, x, b)
        out[d, 1] = c
        out[d, 2] = t
        out[d, 3] = x
        if t == 0 and mem[inst + I_FLAGS] & OTHERS:
            if mem[inst + I_FLAGS] & UNNAMED and status == LIVE:  # it must not become the other key without a name
                mem[M_KIND] = HOLE_END
                return EXACT
            mem[M_EXACT] = 1
        return status
    if kind == PLAIN:
        if not _row_filled(mem, rows, c):
            return HOLE
        to = rows[c, b]
        if to != 0:
            out[d, 1] = to
            out[d, 2] = 0
            out[d, 3] = 0
            return LIVE
        if rows[c, OUTCOME] < 0 or mem[mem[R_CONSTS] + 8 * b] >= CLASSES - 1:
            return DEAD
        value = edge(mem, EDGE_END, i, np.int64(rows[c, OUTCOME]) << 1, HOLE_END)
        if value <= 0:
            return np.int64(value)
        status = _return(mem, value & GOTO_MASK, out, d)
        if status != LIVE:
            return status
        i = out[d, 0]
        x = out[d, 3]
        inst = mem[R_INST] + INST * i
    klass = mem[mem[R_CONSTS] + 8 * b]
    if klass < 4:
        x = mem[mem[R_CONSTS] + 8 * x + klass]
        out[d, 1] = 0
        out[d, 2] = 0
        out[d, 3] = x
        return LIVE if x != 0 else DEAD
    value = mem[inst + I_CLASS + klass]
    if value == 0 or mem[mem[R_CONSTS] + 8 * x + 4] == 0:
        return DEAD
    if value < 0:
        mem[M_KIND] = HOLE_STRUCT
        mem[M_A] = i
        mem[M_B] = klass
        return HOLE if value == -1 else EXACT
    return _go(mem, rows, value, b, out, d)


@njit(cache=True, nogil=True)
def walk(mem, rows, vocabulary, path, node, stop, given, out_mask):  # type: ignore[no-untyped-def]
    """Set the bit of every token in the trie nodes node..stop-1 whose bytes stay live.

    vocabulary  (info, end, token) as `TokenTrie.packed` has them
    path        (max_depth + 2, 5) int64; path[d] is the configuration after d bytes; that before `node` must be there
    given       0, or after EXACT the caller's answer for `node`: LIVE (path[depth] is filled in), anything else: dead
    out_mask    (n_words + 1,) uint32; bits are added
    Returns LIVE when done, else a status; meta[M_NODE] is where to go on.
    """
    info, end, token = vocabulary
    insts, consts = mem[R_INST], mem[R_CONSTS]
    while node < stop:
        packed = np.int64(info[node])
        depth = packed >> 8
        b = packed & 255
        e = depth - 1
        status = np.int64(-9)
        if given != 0:
            status = np.int64(LIVE if given == LIVE else DEAD)
            given = 0
        else:  # what is most frequent is done here, the rest in `step`
            i = path[e, 0]
            inst = insts + INST * i
            kind = mem[inst + I_KIND]
            if kind == STRUCT:
                klass = mem[consts + 8 * b]
                if klass >= 4:
                    if mem[inst + I_CLASS + klass] == 0:
                        status = np.int64(DEAD)
                else:
                    x = mem[consts + 8 * path[e, 3] + klass]
                    if x == 0:
                        status = np.int64(DEAD)
                    else:
                        path[depth, 0] = i
                        path[depth, 1] = 0
                        path[depth, 2] = 0
                        path[depth, 3] = x
                        path[depth, 4] = path[e, 4]
                        status = np.int64(LIVE)
            elif kind == PLAIN:
                c = path[e, 1]
                if rows[c, FILLED] != 0:
                    to = np.int64(rows[c, b])
                    if to != 0:
                        path[depth, 0] = i
                        path[depth, 1] = to
                        path[depth, 2] = 0
                        path[depth, 3] = 0
                        path[depth, 4] = path[e, 4]
                        status = np.int64(LIVE)
                    elif rows[c, OUTCOME] < 0 or mem[consts + 8 * b] >= CLASSES - 1:
                        status = np.int64(DEAD)
            elif (
                kind == STRING and b >= 0x20 and b != 0x22 and b != 0x5C and b != 0xED and path[e, 3] & 0xFFFFFFFF == 0
            ):
                c, t, n = path[e, 1], path[e, 2], path[e, 3] >> 32
                if t == -1:
                    t = mem[inst + I_TRIE]
                plain = mem[inst + I_FLAGS] & UNNAMED == 0 and mem[consts + 8 * b + 1] != 0
                if plain and t >= 0 and (c == 0 or rows[c, FILLED] != 0):
                    to = np.int64(rows[c, b]) if c > 0 else np.int64(0)
                    below = _child(mem, t, b) if t > 0 else np.int64(0)
                    if mem[inst + I_FLAGS] & COUNTED:
                        n += (b & 0xC0) != 0x80
                        if mem[inst + I_MOST] >= 0 and n + rows[to, NEEDED] > mem[inst + I_MOST]:
                            to = np.int64(0)
                    if to != 0:
                        path[depth, 0] = i
                        path[depth, 1] = to
                        path[depth, 2] = below
                        path[depth, 3] = n << 32
                        path[depth, 4] = path[e, 4]
                        status = np.int64(LIVE)
                    elif below == 0:
                        status = np.int64(DEAD)
            if status == -9:
                status = np.int64(step(mem, rows, path, e, b, path, depth))
        if status == LIVE:
            t = token[node]
            out_mask[t >> 5] |= np.uint32(1) << np.uint32(t & 31)
            node += 1
        elif status == DEAD:
            node = np.int64(end[node])
        else:
            mem[M_NODE] = node
            return status
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def walk_whitespace(mem, vocabulary, size, path, out_ids, out_tops):  # type: ignore[no-untyped-def]
    """Tokens of whitespace alone, and the nodes where something else begins, behind whitespace or at once.

    path      (max_depth + 1,) int64: path[0] is the whitespace state where the tokens begin
    out_ids   (size,) int32     out_tops  (n_nodes, 2) int64: node, the whitespace state before it
    Returns how many ids and how many nodes there are.
    """
    info, end, token = vocabulary
    consts = mem[R_CONSTS]
    n_ids, n_tops, node = 0, 0, np.int64(0)
    while node < info.shape[0]:
        depth, klass = np.int64(info[node]) >> 8, mem[consts + 8 * (np.int64(info[node]) & 255)]
        before = path[depth - 1]
        if klass < 4:
            path[depth] = mem[consts + 8 * before + klass]
            if path[depth] != 0:
                if token[node] < size:
                    out_ids[n_ids] = token[node]
                    n_ids += 1
                node += 1
                continue
        elif klass < CLASSES - 1 and mem[consts + 8 * before + 4] != 0:
            out_tops[n_tops, 0] = node
            out_tops[n_tops, 1] = before
            n_tops += 1
        node = np.int64(end[node])
    return n_ids, n_tops


@njit(cache=True, nogil=True)
def walk_groups(mem, rows, vocabulary, path, node, given, groups, out_group, out_state):  # type: ignore[no-untyped-def]
    """Which tokens lead to the same configuration.

    path, given  as in `walk`
    groups       (n, 6) int64 hash table with n a power of two: a configuration, the first token that leads to it or -1
    out_group    (size,) int32: the row of `groups` that a live token leads to; others stay as they are
    out_state    (1,) int64: groups so far
    Returns LIVE when done, else a status (FULL also if `groups` is half full); meta[M_NODE] is where to go on.
    """
    info, end, token = vocabulary
    n_nodes, size, cells = info.shape[0], out_group.shape[0], groups.shape[0]
    while node < n_nodes:
        packed = np.int64(info[node])
        depth = packed >> 8
        if given != 0:
            status = np.int64(LIVE if given == LIVE else DEAD)
            given = 0
        else:
            status = np.int64(step(mem, rows, path, depth - 1, packed & 255, path, depth))
        if status == DEAD:
            node = np.int64(end[node])
            continue
        if status != LIVE:
            mem[M_NODE] = node
            return status
        t = token[node]
        if t < size:
            h = np.uint64(14695981039346656037)
            for k in range(5):
                h = (h ^ np.uint64(path[depth, k])) * np.uint64(1099511628211)
            cell = np.int64(h >> np.uint64(24)) & (cells - 1)
            while groups[cell, 5] >= 0:
                same = True
                for k in range(5):
                    same = same and groups[cell, k] == path[depth, k]
                if same:
                    break
                cell = (cell + 1) & (cells - 1)
            if groups[cell, 5] < 0:
                if 2 * out_state[0] >= cells:
                    mem[M_NODE] = -1
                    return np.int64(FULL)
                for k in range(5):
                    groups[cell, k] = path[depth, k]
                groups[cell, 5] = t
                out_state[0] += 1
            out_group[t] = cell
        node += 1
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def fewest_tokens(vocabulary, text, size):  # type: ignore[no-untyped-def]
    """The fewest tokens, of ids below `size`, that spell `text` (uint8), -1 if none do."""
    info, end, token = vocabulary
    n = text.shape[0]
    none = np.int64(1) << 60
    best = np.full(n + 1, none, dtype=np.int64)
    best[n] = 0
    for at in range(n - 1, -1, -1):
        node, stop, depth = np.int64(0), np.int64(info.shape[0]), np.int64(1)
        while node < stop and at + depth <= n:
            if np.int64(info[node]) & 255 != text[at + depth - 1]:
                node = np.int64(end[node])
                continue
            if token[node] < size:
                best[at] = min(best[at], best[at + depth] + 1)
            stop = np.int64(end[node])
            node += 1
            depth += 1
    return best[0] if best[0] < none else np.int64(-1)


@njit(cache=True, nogil=True)
def walk_exits(mem, rows, vocabulary, i, t0, sid, exits, before, low, high, path, given, out_mask):  # type: ignore[no-untyped-def]
    """`walk` below every exit of a lexeme.

    i, t0, sid  of the lexeme's configuration where the tokens begin
    exits       as `json_content.walk_inside` leaves them; only those with low <= characters <= high
    before      bytes on the way to an exit that are in front of the lexeme
    meta        meta[M_EXIT], meta[M_NODE]: where to begin (0, -1), and where to go on after a status other than LIVE
    """
    info, end, _ = vocabulary
    inst = mem[R_INST] + INST * i
    if t0 == -1:
        t0 = mem[inst + I_TRIE]
        if t0 == -1:
            mem[M_KIND] = HOLE_TRIE
            mem[M_A] = i
            return np.int64(HOLE)
    k = mem[M_EXIT]
    node = mem[M_NODE]
    # counts are checked below: any count within the lexeme's bounds will do from there on
    least = max(mem[inst + I_LEAST], 0)
    # most exits are alike: what the byte there leads to is remembered
    quoted = mem[inst + I_KIND] == STRING
    known, known_c, known_t, known_x = np.int64(0), np.int64(-1), np.int64(0), np.int64(0)
    k0, k1, k2, k3, k4 = np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    while k < exits.shape[0]:
        top = exits[k, 0]
        if node < 0:
            node = top
            if exits[k, 2] < low or exits[k, 2] > high:
                k += 1
                node = np.int64(-1)
                continue
            depth = np.int64(info[top]) >> 8
            t = _text_at(mem, vocabulary, exits, before, k, t0, path)
            path[depth - 1, 0] = i
            path[depth - 1, 1] = exits[k, 1]
            path[depth - 1, 2] = t
            pending = exits[k, 3] >> 19 & 7 == PENDING  # one more character
            path[depth - 1, 3] = (max(least - 1, 0) if pending else least) << 32 | exits[k, 3]
            path[depth - 1, 4] = sid
            if quoted:
                if known == 0 or exits[k, 1] != known_c or t != known_t or exits[k, 3] != known_x:
                    status = np.int64(step(mem, rows, path, depth - 1, np.int64(0x22), path, depth))
                    known = np.int64(0)
                    if status == LIVE or status == DEAD:
                        known = np.int64(1) if status == LIVE else np.int64(2)
                        known_c, known_t, known_x = exits[k, 1], t, exits[k, 3]
                        k0, k1, k2 = path[depth, 0], path[depth, 1], path[depth, 2]
                        k3, k4 = path[depth, 3], path[depth, 4]
                if known == 2:
                    node = np.int64(-1)
                    k += 1
                    continue
                if known == 1:
                    path[depth, 0] = k0
                    path[depth, 1] = k1
                    path[depth, 2] = k2
                    path[depth, 3] = k3
                    path[depth, 4] = k4
                    given = np.int64(LIVE)
        status = walk(mem, rows, vocabulary, path, node, np.int64(end[top]), given, out_mask)
        given = np.int64(0)
        if status != LIVE:
            mem[M_EXIT] = k
            return status
        node = np.int64(-1)
        k += 1
    return np.int64(LIVE)


@njit(cache=True, nogil=True)
def _text_at(mem, vocabulary, exits, before, k, t0, path):  # type: ignore[no-untyped-def]
    """The trie node of known texts at exit `k`, 0 if what was read is none."""
    length = (np.int64(vocabulary[0][exits[k, 0]]) >> 8) - 1 - before
    if t0 == 0 or length == 0:
        return np.int64(t0)
    if length > 8:
        return np.int64(_along(mem, vocabulary, path, exits[k, 0], before, t0))
    t, x = np.int64(t0), np.int64(0)
    for d in range(length - 1, -1, -1):
        t, x = _texts_only(mem, t, x, exits[k, 4] >> 8 * d & 255)
        if t == 0:
            break
    return t


@njit(cache=True, nogil=True)
def _along(mem, vocabulary, path, top, before, t):  # type: ignore[no-untyped-def]
    """The trie node of known texts that bytes on the way to vocabulary node `top` lead to from `t`, 0 if none.

    before  as in `walk_exits`
    """
    info = vocabulary[0]
    depth = np.int64(info[top]) >> 8
    # the nodes above `top`: going back, the last one of each smaller depth
    node = top - 1
    want = depth - 1
    while want > before:
        packed = np.int64(info[node])
        if packed >> 8 == want:
            path[want, 3] = packed & 255
            want -= 1
        node -= 1
    x = np.int64(0)
    for d in range(before + 1, depth):
        t, x = _texts_only(mem, t, x, path[d, 3])
        if t == 0:
            return t
    return t


@njit(cache=True, nogil=True)
def _texts_only(mem, t, x, b):  # type: ignore[no-untyped-def]
    """One byte of a string for the trie of known texts alone, allowed or not: (t, x), t = 0 if it leads out."""
    esc = x & 0xFFFFFFFF
    stage = esc >> 19 & 7
    high = esc >> 22
    zero = np.int64(0)
    if stage == 0 or (stage == PENDING and b != 0x5C):
        if stage == PENDING:
            t = _text_point(mem, t, 0xD800 + high)
        if b == 0x5C or t == 0:
            return t, np.int64(ESCAPED << 19)
        return _child(mem, t, b), zero
    if stage == PENDING:
        return t, np.int64(PENDING_ESCAPED << 19) | (high << 22)
    if stage == ESCAPED or stage == PENDING_ESCAPED:
        if b == 0x75:
            return t, np.int64((HEX if stage == ESCAPED else PENDING_HEX) << 19) | (high << 22)
        if stage == PENDING_ESCAPED:
            t = _text_point(mem, t, 0xD800 + high)
        point = np.int64(_short_escape(b))
    else:
        value = (esc & 0xFFFF) << 4 | _hex(b)
        count = (esc >> 16 & 7) + 1
        if count < 4:
            return t, value | (count << 16) | (stage << 19) | (high << 22)
        if stage == PENDING_HEX:
            if 0xDC00 <= value <= 0xDFFF:
                value = 0x10000 + (high << 10) + (value - 0xDC00)
            else:
                t = _text_point(mem, t, 0xD800 + high)
        if 0xD800 <= value <= 0xDBFF:
            return t, np.int64(PENDING << 19) | ((value - 0xD800) << 22)
        point = value
    if t == 0 or point < 0:
        return zero, zero
    return _text_point(mem, t, point), zero


@njit(cache=True, nogil=True)
def _text_point(mem, t, point):  # type: ignore[no-untyped-def]
    """The trie node after one code point, 0 if there is none."""
    length = 1 if point < 0x80 else 2 if point < 0x800 else 3 if point < 0x10000 else 4
    for k in range(length):
        if length == 1:
            b = point
        elif k == 0:
            b = ((0xF00 >> length) & 0xFF) | (point >> 6 * (length - 1))
        else:
            b = 0x80 | (point >> 6 * (length - 1 - k) & 63)
        t = _child(mem, t, b)
        if t == 0:
            return t
    return np.int64(t)


@njit(cache=True, nogil=True)
def build_trie(data, indptr, base, out_nodes):  # type: ignore[no-untyped-def]
    """Lay out the trie of sorted, different texts breadth first; returns the number of nodes.

    data, indptr  the texts' bytes, uint8 and int64 offsets       base  number that the first node gets
    out_nodes     (1 + total bytes, 6) int64, see `nodes` above
    """
    n_texts = indptr.shape[0] - 1
    out_nodes[0, 0] = 0
    out_nodes[0, 1] = 0
    out_nodes[0, 2] = 0
    out_nodes[0, 3] = -1
    out_nodes[0, 4] = 0
    out_nodes[0, 5] = n_texts
    depths = np.zeros(out_nodes.shape[0], dtype=np.int64)
    n = 1
    node = 0
    while node < n:
        depth = depths[node]
        low, high = out_nodes[node, 4], out_nodes[node, 5]
        if low < high and indptr[low + 1] - indptr[low] == depth:
            out_nodes[node, 3] = low
            low += 1
        out_nodes[node, 0] = base + n
        first = n
        k = low
        while k < high:
            b = data[indptr[k] + depth]
            last = k + 1
            while last < high and data[indptr[last] + depth] == b:
                last += 1
            out_nodes[n, 2] = b
            out_nodes[n, 3] = -1
            out_nodes[n, 4] = k
            out_nodes[n, 5] = last
            depths[n] = depth + 1
            n += 1
            k = last
        out_nodes[node, 1] = n - first
        node += 1
    return n


@njit(cache=True, nogil=True)
def extend_trie(nodes, n, root, text, leaf, note):  # type: ignore[no-untyped-def]
    """Enter a text into a trie, of which only the nodes on its way are copied: the others are shared.

    nodes  as above, of which `n` are in use: the new root is the first behind these
    leaf   of the text     note  what new nodes have in the place of the leaves below, of which they have none
    Returns how many nodes are in use then, -1 if there is no room.
    """
    room = nodes.shape[0]
    if n >= room:
        return np.int64(-1)
    at = n
    nodes[at] = nodes[root]
    n += 1
    for k in range(text.shape[0]):
        first, children = nodes[at, 0], nodes[at, 1]
        if n + children + 1 > room:
            return np.int64(-1)
        nodes[at, 0] = n
        found = np.int64(-1)
        for j in range(children):
            nodes[n + j] = nodes[first + j]
            if nodes[n + j, 2] == text[k]:
                found = n + j
        n += children
        if found < 0:
            found = n
            nodes[n, 0] = 0
            nodes[n, 1] = 0
            nodes[n, 2] = text[k]
            nodes[n, 3] = -1
            nodes[n, 4] = note
            nodes[n, 5] = note
            nodes[at, 1] = children + 1
            n += 1
        at = found
    nodes[at, 3] = leaf
    return np.int64(n)
