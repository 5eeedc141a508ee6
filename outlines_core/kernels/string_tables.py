"""Tables that string recognizers are built from: lengths of texts by NFA node, and the trie of listed values.

`kernels.strings` says what the columns are, and reads them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["build_trie", "endurance", "spans"]

_CHAR, _SPLIT, _ACCEPT, _END = 0, 1, 2, 4  # as in kernels.dfa
INF = 1 << 30  # these three lines as in kernels.strings
N_KIND, N_A, N_B, N_USEFUL, N_ANY, N_NEAR, N_FAR, N_HEAD = range(8)
T_BYTE, T_END, T_VALUES = range(3)


@njit(cache=True, nogil=True)
def spans(prog, targets):  # type: ignore[no-untyped-def]
    """Fill N_NEAR and N_FAR: texts of NEAR, NEAR + 1, ..., FAR characters lead from a node to acceptance.

    NEAR is the least length there is (INF: none); there may be lengths beyond a gap after FAR. N_HEAD says whether the
    bytes of a CHAR begin a character. Continuations have smaller indices, so few sweeps are needed; FAR grows from
    below and is right at any time, so it is given up after some.
    """
    n = prog.shape[0]
    for s in range(n):
        prog[s, N_NEAR] = INF
        prog[s, N_FAR] = -1
    changed = True
    while changed:
        changed = False
        for s in range(n):
            what = prog[s, N_KIND]
            near = INF
            if what == _CHAR:
                if prog[prog[s, N_B], N_NEAR] < INF:
                    near = prog[prog[s, N_B], N_NEAR] + prog[s, N_HEAD]
            elif what == _SPLIT:
                for k in range(prog[s, N_A], prog[s, N_B]):
                    near = min(near, prog[targets[k], N_NEAR])
            elif what == _ACCEPT or (what == _END and (prog[s, N_USEFUL] & 1) != 0):
                near = 0
            if near != prog[s, N_NEAR]:
                prog[s, N_NEAR] = near
                prog[s, N_FAR] = near
                changed = True
    for _ in range(6):
        changed = False
        for s in range(n):
            what = prog[s, N_KIND]
            near = prog[s, N_NEAR]
            far = prog[s, N_FAR]
            if near == INF or far == INF:
                continue
            if what == _CHAR:
                far = prog[prog[s, N_B], N_FAR]
                if far < INF:
                    far += prog[s, N_HEAD]
            elif what == _SPLIT:
                wider = True
                while wider:
                    wider = False
                    for k in range(prog[s, N_A], prog[s, N_B]):
                        t = targets[k]
                        if prog[t, N_NEAR] <= far + 1 and prog[t, N_FAR] > far:
                            far = prog[t, N_FAR]
                            wider = far < INF
                        if prog[t, N_KIND] == _CHAR and prog[t, N_B] == s and prog[t, N_HEAD] == 1:
                            far = INF  # one character and back here
                            wider = False
                            break
            if far > prog[s, N_FAR]:
                prog[s, N_FAR] = far
                changed = True
        if not changed:
            break


@njit(cache=True, nogil=True)
def endurance(prog, targets, member, most, out):  # type: ignore[no-untyped-def]
    """For how many characters, whatever they are, some run from a node goes on: a lower bound, at most `most`.

    It is what a player can be sure of who chooses where to go seeing one character at a time, by value iteration from
    below, which is right at any time.

    member  (n, n_nodes) bool: kinds of characters, and which CHAR nodes read them
    out     (n, n_nodes) int32, zeroed: by the kind of the first character
    """
    n_kinds, n = member.shape
    sure = np.zeros(n, dtype=np.int32)
    changed = True
    while changed:
        changed = False
        for s in range(n):
            what = prog[s, N_KIND]
            least = np.int64(most)
            for g in range(n_kinds):
                value = np.int64(0)
                if what == _CHAR:
                    if member[g, s]:
                        value = min(np.int64(most), np.int64(sure[prog[s, N_B]]) + 1)
                elif what == _SPLIT:
                    for k in range(prog[s, N_A], prog[s, N_B]):
                        value = max(value, np.int64(out[g, targets[k]]))
                if value > out[g, s]:
                    out[g, s] = value
                    changed = True
                least = min(least, np.int64(out[g, s]))
            sure[s] = least


@njit(cache=True, nogil=True)
def build_trie(data, ends, out_trie):  # type: ignore[no-untyped-def]
    """Write the trie of the strings that end in `data` at `ends`, sorted and distinct; returns its end.

    out_trie  (total bytes + 3, T_SIZE) int32, zeroed; node 1 is the root, nodes in preorder; the returned number is
              that of a sentinel behind them. Only T_BYTE, T_END and T_VALUES are written.
    """
    longest = np.int64(0)
    begin = np.int64(0)
    for i in range(ends.shape[0]):
        longest = max(longest, ends[i] - begin)
        begin = ends[i]
    path = np.zeros(longest + 1, dtype=np.int32)
    path[0] = 1
    n = 2
    depth = 0
    begin = np.int64(0)
    previous = np.int64(0)
    for i in range(ends.shape[0]):
        size = ends[i] - begin
        common = 0
        if i > 0:
            while common < size and common < depth and data[begin + common] == data[previous + common]:
                common += 1
        while depth > common:
            out_trie[path[depth], T_END] = n
            depth -= 1
        while depth < size:
            out_trie[n, T_BYTE] = data[begin + depth]
            out_trie[n, T_VALUES] = i
            depth += 1
            path[depth] = n
            n += 1
        previous = begin
        begin = ends[i]
    while depth >= 0:
        out_trie[path[depth], T_END] = n
        depth -= 1
    out_trie[n, T_VALUES] = ends.shape[0]
    return n
