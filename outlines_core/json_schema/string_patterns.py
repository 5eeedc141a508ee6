"""Patterns as string recognizers need them: over WTF-8, with lone surrogates, side by side in one NFA.

What does not depend on the recognizer is made once for each pattern (`pattern_program`); `Layout` puts together the
bytes classes and NFAs of the patterns of one recognizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.kernels import string_tables
from outlines_core.kernels import strings as kernel
from outlines_core.limits import Limits
from outlines_core.regex.ast import CharSet, Literal, Node, Repeat
from outlines_core.regex.nfa import ANY, ByteNfa, build_nfa
from outlines_core.regex.simplify import simplify

__all__ = ["Layout", "Program", "pattern_program"]

_CACHED: Final = 512
_CACHED_STATES: Final = 4096
_MAX_DAG: Final = 65_000
_MOST_ROOTS: Final = 200
_CLASSES_AT_ONCE: Final = 6  # of one byte each, besides those so far, in an int64
_LOW: Final = (0xDC00, 0xDFFF)


def _positions() -> NDArray[np.int32]:
    """The automaton of WTF-8: `kernels.strings` says what its states are."""
    table = np.zeros((kernel.POSITIONS, 256), dtype=np.int32)
    for begin, surrogate in ((1, 9), (2, 11)):
        leads = ((0x00, 0x7F, 1), (0xC2, 0xDF, 3), (0xE0, 0xE0, 6), (0xE1, 0xEC, 4), (0xED, 0xED, surrogate))
        for low, high, target in (*leads, (0xEE, 0xEF, 4), (0xF0, 0xF0, 7), (0xF1, 0xF3, 5), (0xF4, 0xF4, 8)):
            table[begin, low : high + 1] = target
    within = ((3, 0x80, 0xBF, 1), (4, 0x80, 0xBF, 3), (5, 0x80, 0xBF, 4), (6, 0xA0, 0xBF, 3), (7, 0x90, 0xBF, 4))
    surrogates = ((9, 0x80, 0x9F, 3), (9, 0xA0, 0xAF, 10), (9, 0xB0, 0xBF, 3), (10, 0x80, 0xBF, 2))
    after_high = ((11, 0x80, 0x9F, 3), (11, 0xA0, 0xAF, 10))
    for state, low, high, target in (*within, (8, 0x80, 0x8F, 4), *surrogates, *after_high):
        table[state, low : high + 1] = target
    return table


_POSITIONS = _positions()
_IS_HEAD = (np.arange(256) & 0xC0) != 0x80
_VALID = _POSITIONS.any(axis=0)


def _classes(codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Bytes of equal codes are one class: the class of each byte, and the first byte of each class."""
    _, first, classes = np.unique(codes, return_index=True, return_inverse=True)
    return classes.reshape(-1).astype(np.int64), first


_BYTE_CLASS, _FIRST = _classes(np.unique(_POSITIONS, axis=1, return_inverse=True)[1].reshape(-1))
_NO_NODES = (np.zeros((0, kernel.N_SIZE), dtype=np.int32), np.zeros(0, dtype=np.int32))


class Program:
    """What recognizers need of a pattern.

    Attributes:
        length: (low, high) if the pattern only says how long the text is; nothing else is set then.
        nfa: its NFA; one with look-arounds is run by `LookDfa`, others as `arrays` in the kernels.
        only_low: is there a place for low surrogates only?  Behind a high one no text comes through there.
        byte_class, first: the classes of bytes that neither the pattern nor WTF-8 tells apart.
    """

    def __init__(self, node: Node, limits: Limits) -> None:
        self.source = node  # keeps the identity that `pattern_program` knows it by
        node = simplify(node)
        self.length: tuple[int, int | None] | None = None
        if isinstance(node, Repeat) and isinstance(node.item, CharSet) and node.item.ranges == ANY:
            self.length = node.min, node.max
            return
        self.nfa = nfa = build_nfa(node, limits, surrogates=True)
        self.byte_class, self.first = _classes(_BYTE_CLASS * 256 + nfa.byte_class)
        if nfa.looks:
            self.only_low = any(_only_low(letter) for letter in nfa.letters)
            return
        self.only_low = _needs_low(node)
        self.arrays = prog = np.zeros((nfa.n_states, kernel.N_SIZE), dtype=np.int32)
        prog[:, 0], prog[:, 1], prog[:, 2], prog[:, 3] = nfa.kind, nfa.a, nfa.b, nfa.useful
        heads = np.zeros(nfa.n_classes, dtype=np.bool_)
        heads[nfa.byte_class[_IS_HEAD]] = True
        is_char = nfa.kind == 0
        prog[is_char, 7] = (nfa.dag[:, heads] != 0).any(axis=1)[nfa.a[is_char]]
        if nfa.any_root:
            _mark_everything(nfa, prog)
        string_tables.spans(prog, nfa.targets)
        self.dag = np.ascontiguousarray(nfa.dag[:, nfa.byte_class[self.first]])


def _mark_everything(nfa: ByteNfa, prog: NDArray[np.int32]) -> None:
    """Where any character leads back to a choice between itself and the end, everything that follows matches."""
    for node in np.flatnonzero((nfa.kind == 0) & (nfa.a == nfa.any_root)).tolist():
        after = int(nfa.b[node])
        if nfa.kind[after] == 1:
            choices = nfa.targets[nfa.a[after] : nfa.b[after]]
            prog[node, 4] = node in choices and bool((nfa.kind[choices] == 2).any())


def _only_low(ranges: Sequence[tuple[int, int]]) -> bool:
    return bool(ranges) and ranges[0][0] >= _LOW[0] and ranges[-1][1] <= _LOW[1]


def _needs_low(node: Node) -> bool:
    stack = [node]
    while stack:
        at = stack.pop()
        match at:
            case CharSet(ranges):
                if _only_low(ranges):
                    return True
            case Literal(text):
                if not text.isascii() and any(_LOW[0] <= ord(char) <= _LOW[1] for char in text):
                    return True
            case _:
                stack.extend(getattr(at, "items", ()))
                if (item := getattr(at, "item", None)) is not None:
                    stack.append(item)
    return False


_programs: dict[tuple[int, Limits], Program] = {}


def pattern_program(node: Node, limits: Limits) -> Program:
    """The program of a pattern, remembered by the identity of the AST: readers keep those of equal patterns."""
    key = (id(node), limits)
    known = _programs.get(key)
    if known is None:
        known = Program(node, limits)
        if known.length is not None or known.nfa.n_states <= _CACHED_STATES:
            if len(_programs) >= _CACHED:
                _programs.clear()
            _programs[key] = known
    return known


class Layout:
    """Byte classes and NFA of several patterns.

    Attributes:
        class_of: (256,) the class of each byte, -1 if it cannot be spelled.
        first: a byte of each class.
        steps: as `kernels.strings` has it.
        entries: the first node of each pattern without look-around, in order.
        prog, targets, dag: their NFA.
        is_exact: is each set of NFA positions that is not empty live, and right about its lengths?
    """

    def __init__(self, programs: list[Program], alphabet: NDArray[np.bool_] | None) -> None:
        byte_class, first = (programs[0].byte_class, programs[0].first) if programs else (_BYTE_CLASS, _FIRST)
        for at in range(1, len(programs), _CLASSES_AT_ONCE):
            codes = byte_class
            for program in programs[at : at + _CLASSES_AT_ONCE]:
                codes = codes * 256 + program.byte_class
            byte_class, first = _classes(codes)
        self.first = first
        self.is_exact = not any(program.only_low for program in programs)
        if alphabet is None:
            self.class_of, sizes = byte_class, np.bincount(byte_class)
        else:
            self.is_exact &= bool(alphabet[_VALID].all())
            self.class_of = np.where(alphabet, byte_class, -1)
            sizes = np.bincount(byte_class[alphabet], minlength=len(first))
        self.steps = np.zeros((kernel.SIZES + 1, len(first)), dtype=np.int32)
        self.steps[: kernel.POSITIONS] = _POSITIONS[:, first]
        self.steps[kernel.HEADS] = _IS_HEAD[first]
        self.steps[kernel.SIZES] = sizes
        if alphabet is not None:
            self.steps[: kernel.POSITIONS, sizes == 0] = 0
        self.entries: list[int] = []
        self._join([program for program in programs if not program.nfa.looks])

    def endurance(self, most: int) -> NDArray[np.int32]:
        """For how many characters, whatever they are, each node goes on: (kinds of first character, n_nodes)."""
        prog = self.prog
        is_char = prog[:, kernel.N_KIND] == 0
        is_char[is_char] = prog[prog[is_char, kernel.N_B], kernel.N_USEFUL] != 0
        roots, which = np.unique(prog[is_char, kernel.N_A], return_inverse=True)
        member = np.zeros((0, len(prog)), dtype=np.bool_)
        if 0 < len(roots) <= _MOST_ROOTS:
            kinds = self._kinds_of_characters(roots)
            member = np.zeros((len(kinds), len(prog)), dtype=np.bool_)
            member[:, is_char] = kinds[:, which.reshape(-1)]
        out = np.zeros(member.shape, dtype=np.int32)
        string_tables.endurance(prog, self.targets, member, most, out)
        return out

    def _kinds_of_characters(self, roots: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which sets of characters read a character, for each that fewest sets read: (n, n_roots).

        Characters that more sets read than another one does are left out.
        """
        within = [(1, roots)]
        known: set[tuple[int, bytes]] = set()
        kinds: dict[bytes, NDArray[np.bool_]] = {}
        for position, at in within:
            for klass, after in enumerate(self.steps[position].tolist()):
                if not after or not self.steps[kernel.SIZES, klass]:
                    continue
                reached = np.where(at >= 2, self.dag[at, klass], 0)
                if after <= 2:  # the character is complete
                    kinds.setdefault((reached == 1).tobytes(), reached == 1)
                elif (key := (after, reached.tobytes())) not in known:
                    known.add(key)
                    within.append((after, reached))
        sets = np.array(sorted(kinds.values(), key=np.count_nonzero))
        least: list[NDArray[np.bool_]] = []
        for kind in sets:
            if not any((other <= kind).all() for other in least):
                least.append(kind)
        return np.array(least)

    def _join(self, programs: list[Program]) -> None:
        """Lay the NFAs side by side."""
        if not programs:
            self.prog, self.targets = _NO_NODES
            self.dag = np.zeros((2, len(self.first)), dtype=np.uint16)
            return
        dags = [program.dag for program in programs]
        if self.first is not programs[0].first:
            dags = [program.dag[:, program.byte_class[self.first]] for program in programs]
        if len(programs) == 1:
            self.prog, self.targets, self.dag = (
                programs[0].arrays,
                programs[0].nfa.targets,
                np.ascontiguousarray(dags[0]),
            )
            self.entries = [programs[0].nfa.start]
            return
        n_nodes, node_shift = _shifts([program.arrays for program in programs])
        n_targets, target_shift = _shifts([program.nfa.targets for program in programs])
        n_dag, dag_shift = _shifts(dags)
        if dag_shift[-1] + len(dags[-1]) > _MAX_DAG:
            raise LimitExceededError(
                "the character sets of the patterns are too many and too different",
                given=int(dag_shift[-1]) + len(dags[-1]),
                limit=_MAX_DAG,
            )
        self.entries = [program.nfa.start + shift for program, shift in zip(programs, node_shift.tolist(), strict=True)]
        self.prog = prog = np.concatenate([program.arrays for program in programs])
        is_char, is_split = prog[:, 0] == 0, prog[:, 0] == 1
        to_targets = np.repeat(target_shift, n_nodes) * is_split
        prog[:, 1] += np.repeat(dag_shift, n_nodes) * is_char + to_targets
        prog[:, 2] += np.repeat(node_shift, n_nodes) * ~is_split + to_targets
        self.targets = np.concatenate([program.nfa.targets for program in programs])
        self.targets += np.repeat(node_shift, n_targets)
        dag = np.ascontiguousarray(np.concatenate(dags))
        dag += (dag >= 2) * np.repeat(dag_shift, n_dag).astype(np.uint16)[:, None]
        self.dag = dag


def _shifts(arrays: Sequence[NDArray[Any]]) -> tuple[list[int], NDArray[np.int32]]:
    """How long the arrays are, and where each begins when they are put one behind the other."""
    sizes = [len(array) for array in arrays]
    return sizes, np.cumsum([0, *sizes[:-1]], dtype=np.int32)
