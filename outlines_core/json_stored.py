"""Masks that nearly every schema asks for, kept on disk for other processes.

Three things: what tokens do within a string under no constraint, within a number or integer without bounds, and as
whitespace between the parts. Each is one file for a vocabulary: reading many small ones takes longer than making them.
What is saved in a new process is less the walks than the loading of the kernels that walk.
Rows of the arena are numbered as they are visited, so what is stored knows the state of a number by its content, and
the rows behind its exits are found again by reading the bytes that lead there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.cache import content_key, default_store
from outlines_core.json_schema.arena import FILLED, Arena
from outlines_core.json_schema.numbers import NumberRecognizer
from outlines_core.trie import TokenTrie
from outlines_core.vocabulary import TokenTable

__all__ = ["LEAST_STORED", "Arrays", "Rows", "StoredNumbers", "stored"]

_VERSION: Final = 2
LEAST_STORED: Final = 4096
"""Smaller vocabularies are faster made than read."""
_BEFORE: Final = 8  # bytes of a token before its exit, as far as the walk keeps them
_INTEGERS: Final = ("0", "7", "12", "123", "1234", "12345", "123456")
_ENDINGS: Final = ("", ".", ".0", ".5", ".12", ".123")
NUMBER_TEXTS: Final = ("-", *(sign + i + ending for sign in ("", "-") for i in _INTEGERS for ending in _ENDINGS))
"""Numbers, begun and whole: most states in which models are found."""

Arrays = dict[str, NDArray[Any]]


def stored(table: TokenTable, name: str, parts: tuple[str | bytes | int, ...], make: Callable[[], Arrays]) -> Arrays:
    """The arrays of that name from disk, or what `make` returns, which is put there.

    Args:
        parts: what the arrays depend on besides the vocabulary.
    """
    if table.size < LEAST_STORED:
        return make()
    store = default_store()
    key = content_key(name, _VERSION, table.fingerprint, *parts)
    arrays = store.get(key)
    if arrays is None:
        arrays = make()
        store.put(key, arrays)
    return arrays


class Rows(NamedTuple):
    """Arrays of different lengths, one behind the other.

    Attributes:
        flat: (total, ...) of them all.
        start: (n + 1,) int64: where each begins.
    """

    flat: NDArray[Any]
    start: NDArray[np.int64]

    @classmethod
    def of(cls, arrays: list[NDArray[Any]]) -> Rows:
        start = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=start[1:])
        return cls(np.concatenate(arrays), start)

    def row(self, k: int) -> NDArray[Any]:
        """A copy of array `k`: those from disk are read-only, which to the kernels is another type."""
        return self.flat[self.start[k] : self.start[k + 1]].copy()


class StoredNumbers:
    """What tokens do within a number that only has to be one (or an integer).

    Args:
        arrays: as `arrays_of` makes them.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._at = {key.tobytes(): k for k, key in enumerate(arrays["states"])}
        self._mask_of = arrays["mask_of"].tolist()
        self._ids = Rows(arrays["ids"], arrays["ids_start"])
        self._exits = Rows(arrays["exits"], arrays["exits_start"])
        self.nbytes = sum(int(array.nbytes) for array in arrays.values())

    @staticmethod
    def arrays_of(
        recognizer: NumberRecognizer,
        arena: Arena,
        trie: TokenTrie,
        walk: Callable[[int], tuple[NDArray[Any], NDArray[np.int64]]],
    ) -> Arrays:
        """From what `walk` finds from a row of the arena: ids that stay inside, and exits.

        Returns:
            states: (n, m) int64, contents · mask_of: (n,) int32, which of the masks is theirs
            ids, ids_start, exits, exits_start: `Rows` of ids by mask, and of exits by state; instead of the row before
            an exit, how many bytes a token has there
        """
        states: dict[bytes, NDArray[np.int64]] = {}
        masks: dict[bytes, tuple[int, NDArray[Any]]] = {}
        mask_of, every_exit = [], []
        start = arena.number_of(recognizer, recognizer.start)
        for text in NUMBER_TEXTS:
            c = _row_after(arena, start, text.encode())
            owner = arena.owner(c)
            if owner is None:
                continue
            content = recognizer.content(owner[1])
            if content.tobytes() in states:
                continue
            ids, exits = walk(c)
            n_before = (trie.info[exits[:, 0]].astype(np.int64) >> 8) - 1
            if (n_before > _BEFORE).any():
                continue
            states[content.tobytes()] = content
            mask_of.append(masks.setdefault(ids.tobytes(), (len(masks), ids))[0])
            exits[:, 1] = n_before
            every_exit.append(exits)
        found, leaving = Rows.of([ids for _, ids in masks.values()]), Rows.of(every_exit)
        return {
            "states": np.array(list(states.values())),
            "mask_of": np.array(mask_of, dtype=np.int32),
            "ids": found.flat,
            "ids_start": found.start,
            "exits": leaving.flat,
            "exits_start": leaving.start,
        }

    def get(self, content: bytes, arena: Arena, c: int) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
        """The ids and exits of the state of that content, whose row is `c`; None if they are not stored."""
        k = self._at.get(content)
        if k is None:
            return None
        exits = self._exits.row(k)
        rows: dict[tuple[int, int], int] = {}
        for e, (_, n, _, _, before) in enumerate(exits.tolist()):
            row = rows.get((n, before))
            if row is None:
                row = rows[n, before] = _row_after(arena, c, (before & (1 << 8 * n) - 1).to_bytes(n, "big"))
            exits[e, 1] = row
        return self._ids.row(self._mask_of[k]), exits


def _row_after(arena: Arena, c: int, text: bytes) -> int:
    """The row after some bytes, 0 for none."""
    for byte in text:
        if c == 0:
            break
        if not arena.rows[c, FILLED]:
            arena.fill(c)
        c = int(arena.rows[c, byte])
    return c
