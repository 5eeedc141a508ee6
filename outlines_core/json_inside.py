"""What each token does inside one content state of a lexeme, and behind it.

A token stays inside, or it ends the lexeme at one of its bytes, its *exit*. What it says behind the quote that ends a
string is one of a few hundred texts (`",`, `"}`, `":` ...), whatever it says before, so whether they may follow is
found out once for each place in a JSON text, over the trie of these texts, and not token by token.

Where the length of a string is bounded, the tokens that fit are those that need no more characters than there is room
for: their own, and those that are needed to get from there to an end.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.kernels import inside as kernel
from outlines_core.kernels.borrow import Handles
from outlines_core.kernels.dfa import fill_sparse
from outlines_core.kernels.json_masks import (
    T_BELOW,
    T_BYTES,
    T_END,
    T_FIRST,
    T_INFO,
    T_LIVE,
    T_NODES,
    T_SIZE,
    T_TOKEN,
    W_MASKS,
    W_ROOMS,
    W_SEEN,
    W_SIZE,
)
from outlines_core.kernels.trie import build_trie, children
from outlines_core.trie import TokenTrie
from outlines_core.vocabulary import TokenTable

__all__ = ["OUTSIDE", "Endings", "Inside", "trie_handles"]

_SHORT: Final = 16
OUTSIDE: Final = 1 << 30
_NONE: Final = np.zeros(0, dtype=np.int32)


def trie_handles(info: NDArray[Any], end: NDArray[Any], token: NDArray[Any]) -> Handles:
    """Where `kernels.json_masks` finds a trie."""
    handles = Handles(T_SIZE)
    for k, array in ((T_INFO, info), (T_END, end), (T_TOKEN, token)):
        handles[k] = np.ascontiguousarray(array, dtype=np.int32)
    first = np.full(256, -1, dtype=np.int32)
    node = 0
    while node < len(info):
        first[info[node] & 255] = node
        node = int(end[node])
    handles[T_FIRST] = first
    below, nodes = np.empty(len(info) + 2, dtype=np.int32), np.empty(len(info), dtype=np.int32)
    found = np.empty(len(info), dtype=np.uint8)
    children(handles[T_INFO], handles[T_END], below, found, nodes)
    handles[T_BELOW], handles[T_BYTES], handles[T_NODES] = below, found, nodes
    return handles


class Endings:
    """What the tokens of a vocabulary say behind the quote that ends a string.

    Attributes:
        text: (size,) int32: the number of the text behind a token's first quote; negative: it has none.
        trie: where kernels find the trie of these texts, with their numbers as ids; number 0, the empty text, is not
            in it.
        n_words: of a bit set of texts.
        open_escapes: the tokens that end within an escape.
    """

    def __init__(self, table: TokenTable) -> None:
        self.text = np.empty(table.size, dtype=np.int32)
        kernel.closing_quotes(table.data, table.indptr, self.text)
        self.open_escapes = np.flatnonzero(self.text == kernel.OPEN_ESCAPE)
        ending = np.flatnonzero(self.text >= 0)
        first, stop = table.indptr[ending] + self.text[ending] + 1, table.indptr[ending + 1]
        behind = [table.data[a:b].tobytes() for a, b in zip(first.tolist(), stop.tolist(), strict=True)]
        texts = sorted({b"", *behind})
        number = {text: k for k, text in enumerate(texts)}
        self.text[ending] = [number[text] for text in behind]
        starts = np.zeros(len(texts), dtype=np.int64)
        np.cumsum(np.fromiter(map(len, texts[1:]), dtype=np.int64, count=len(texts) - 1), out=starts[1:])
        flat = np.frombuffer(b"".join(texts), dtype=np.uint8)
        info, end, token, _ = build_trie(flat, starts, np.arange(1, len(texts), dtype=np.int32))
        self.n_words = (len(texts) + 31) >> 5
        live = np.zeros(self.n_words + 1, dtype=np.uint32)  # nodes without a text have the bit behind all
        self.trie = trie_handles(info, end, np.where(token < 0, 32 * self.n_words, token))
        self.trie[T_LIVE] = live


class Inside:
    """What each token does from one content state.

    Attributes:
        exits: (n, 5) int64, of all tokens that leave, as `kernels.json_content.walk_inside` has them.
        exits_at: their address, and how many they are.
        table: where `kernels.json_masks` finds all that; None: it is a string that ends with several outcomes.
        needs: uint8, what each token needs, up to 17, where that has been asked for (`limit`).
        most: the most that a token needs.
        masks: (n, n_words) int32: masks that kernels keep (`keep_masks`), as many as there are so far.
        long, long_needs: the tokens that need more than 16.
        open, open_needs: those that end within an escape; what they need whatever it becomes.
    """

    __slots__ = (
        "exits",
        "exits_at",
        "ids",
        "long",
        "long_needs",
        "masks",
        "most",
        "needs",
        "open",
        "open_needs",
        "rooms",
        "table",
        "words",
    )

    def __init__(
        self, words: NDArray[np.uint32] | None, ids: NDArray[np.int32] | None, exits: NDArray[np.int64]
    ) -> None:
        self.words, self.ids, self.exits = words, ids, exits
        self.exits_at = int(exits.ctypes.data), len(exits)
        self.table: Handles | None = None
        self.needs: NDArray[Any] | None = None
        self.most = 0
        self.masks: NDArray[np.int32] = np.zeros((0, 0), dtype=np.int32)
        self.rooms: list[NDArray[np.uint32] | None] = []

    @classmethod
    def of(
        cls,
        words: NDArray[np.uint32],
        ids: NDArray[np.int32] | None,
        exits: NDArray[np.int64],
        rows: NDArray[np.int32],
        trie: TokenTrie,
        endings: Endings | None,
    ) -> Inside:
        """From what a walk has found.

        Args:
            words, ids: the tokens that stay inside: all bits, and where they are few, a list.
            exits: as `kernels.json_content.walk_inside` leaves them.
            endings: for strings.
        """
        made = cls(words if ids is None else None, ids, exits)
        row, tokens, texts, chars, others, starts = 0, _NONE, _NONE, _NONE, exits[:0], _NONE
        if endings is not None:
            row, tokens, texts, chars, others, starts = kernel.behind_quotes(trie.packed, rows, exits, endings.text)
            if row < 0:
                return made
        made.table = table = Handles(W_SIZE)
        given = words if ids is None else words[:0], ids if ids is not None else _NONE, exits
        arrays = *given, tokens, texts, chars, others, starts, np.array([row, 0])
        kernel.put_addresses(*arrays, table.hold(arrays))
        return made

    def keep_masks(self, n: int, n_words: int, n_live: int) -> None:
        """Let kernels keep `n` masks, each with the texts (`n_live` words) that may stand behind the quote."""
        assert self.table is not None
        masks = np.zeros((n, n_words), dtype=np.uint32)  # the system gives memory as it is used
        self.table[W_MASKS], self.table[W_SEEN] = masks, np.zeros(n * n_live, dtype=np.uint32)
        self.masks = masks.view(np.int32)

    def keep_rooms(self, n: int) -> None:
        """Let kernels know the tokens that need at most so many characters, below `n`, once they are made (`room`)."""
        assert self.table is not None
        self.rooms = [None] * n
        self.table[W_ROOMS] = np.zeros(n, dtype=np.int64)

    def room(self, room: int, n_words: int) -> None:
        """Make them."""
        assert self.table is not None
        words = np.zeros(n_words + 1, dtype=np.uint32)
        self.fill_limited(room, words)
        self.rooms[room] = words
        self.table[W_ROOMS][room] = words.ctypes.data

    def limit(self, needs: NDArray[np.int32], open_escapes: NDArray[np.intp]) -> None:
        """Keep what the tokens need, (size,) int32: characters of their own and to an end; far too many: outside."""
        inside = needs < OUTSIDE
        self.most = int(needs[inside].max(initial=0))
        self.long = np.flatnonzero(inside & (needs > _SHORT)).astype(np.int32)
        self.long_needs = needs[self.long]
        self.open = open_escapes[inside[open_escapes]]
        self.open_needs = needs[self.open]
        if self.ids is not None:
            needs = needs[self.ids]
        self.needs = np.minimum(needs, _SHORT + 1).astype(np.uint8)

    def fill(self, out_words: NDArray[np.uint32]) -> None:
        """Write the tokens that stay inside: (n_words + 1,) words."""
        if self.ids is not None:
            fill_sparse(self.ids, out_words)
        else:
            assert self.words is not None
            out_words[:-1] = self.words

    def fill_limited(self, room: int, out_words: NDArray[np.uint32]) -> None:
        """Write those that need at most `room` characters."""
        assert self.needs is not None
        out_words[:] = 0
        if room >= _SHORT:
            self.fill(out_words)
            if room < self.most:
                kernel.clear_longer(self.long, self.long_needs, room, out_words)
        elif self.ids is not None:
            fill_sparse(self.ids[self.needs <= room], out_words)
        else:
            bits = np.packbits(self.needs <= room, bitorder="little")
            out_words.view(np.uint8)[: len(bits)] = bits

    def open_escapes(self, room: int, farthest: int) -> list[int]:
        """The tokens that end within an escape of which only some characters may leave room for the end."""
        if not farthest or room >= self.most:
            return []
        known: list[int] = self.open[(self.open_needs - farthest <= room) & (room < self.open_needs)].tolist()
        return known

    @property
    def nbytes(self) -> int:
        arrays: list[NDArray[Any] | None] = [self.exits, self.words, self.ids]
        n = 500
        if self.table is not None:
            arrays, n = [], n + self.table.nbytes
        if self.needs is not None:
            arrays += [self.needs, self.long, self.long_needs, self.open, self.open_needs]
        return n + sum(int(array.nbytes) for array in arrays if array is not None)
