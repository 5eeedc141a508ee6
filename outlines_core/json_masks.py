"""What tokens do inside JSON lexemes and between them, whatever the schema: shared by all schemas of a vocabulary.

A token that stays inside a string or a number leaves the structure around it alone, so which tokens do depends on the
content state and the vocabulary only. These *inside masks* are computed once for a content state, together with the
*exits*, the trie nodes at which the lexeme ends; what is below the exits depends on the schema and is walked each time.
"""

from __future__ import annotations

import threading
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outlines_core.bitmask import unpack_ids
from outlines_core.errors import UnsatisfiableError
from outlines_core.json_inside import OUTSIDE, Endings, Inside, trie_handles
from outlines_core.json_schema.arena import Arena
from outlines_core.json_schema.lexemes import Lexemes, load_kernels
from outlines_core.json_schema.numbers import NumberRecognizer
from outlines_core.json_schema.sat import Usable
from outlines_core.json_schema.strings import StringRecognizer
from outlines_core.json_stored import LEAST_STORED, Arrays, Rows, StoredNumbers, stored
from outlines_core.kernels import json as kernel
from outlines_core.kernels import json_content as content
from outlines_core.kernels.borrow import Handles
from outlines_core.kernels.dfa import mask_to_ids
from outlines_core.kernels.inside import set_tokens
from outlines_core.kernels.json_masks import B_EXITS, B_IDS, B_SIZE, B_TOPS
from outlines_core.kernels.json_memory import FILLED, FREE, OUTCOME
from outlines_core.limits import Limits
from outlines_core.regex.ast import CharSet, Repeat
from outlines_core.regex.language import Language
from outlines_core.types import DEAD
from outlines_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from outlines_core.json_tables import JsonTables

__all__ = ["SPELLED_WITH", "LexemeMasks", "Whitespace"]

SPELLED_WITH: Final = {
    "numbers": b"0123456789-.e",  # "E" and "+" can always be done without
    "strings": b'"',
    "arrays": b"[,]",
    "objects": b'{":,}',
}
"""Bytes without which a kind of value is not used at all."""
_EMPTY: Final = np.zeros(0, dtype=np.int32)
_NO_EXITS: Final = np.zeros((0, 5), dtype=np.int64)
Opened: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int64]]
"""The ids that stay inside a string, and the exits from it."""
_WHITESPACE_KEPT: Final = 1000
_WHITESPACE_WIDTH: Final = 5 * 4
"""Bytes of a state of the whitespace."""
_MOST_STORED: Final = 100
_LEAST_ENDURANCE: Final = 24
_STRING_MASKS_KEPT: Final = 128


class Whitespace(NamedTuple):
    """The whitespace between JSON tokens as a DFA.

    Attributes:
        table: (n, 5) int32: the state after space, tab, newline, return, 0 = none; may it end here?  State 1 begins.
    """

    table: NDArray[np.int32]

    @classmethod
    def of(cls, whitespace: str, most: int, limits: Limits) -> Whitespace:
        """The whitespace of `compile_json_schema`'s argument."""
        if not isinstance(whitespace, str):
            raise TypeError(f"whitespace must be a str, not {type(whitespace).__name__}")
        if whitespace == "flexible":
            return cls.flexible(most)
        if whitespace == "compact":
            return cls.flexible(0)
        return cls._of_pattern(whitespace, limits)

    @classmethod
    def _of_pattern(cls, pattern: str, limits: Limits) -> Whitespace:
        allowed = CharSet(((0x09, 0x0A), (0x0D, 0x0D), (0x20, 0x20)))
        own = Language.parse(pattern, limits=limits)
        if not own.is_subset_of(Language(Repeat(allowed, 0, None))):
            raise ValueError(f"the whitespace pattern {pattern!r} matches more than spaces, tabs and line ends")
        dfa = own.dfa
        if dfa.start == DEAD:
            raise UnsatisfiableError(f"the whitespace pattern {pattern!r} matches nothing")
        number = {dfa.start: 1}
        order = [dfa.start]
        rows = [[0] * 5]
        for state in order:
            row = []
            for byte in b" \t\n\r":
                target = dfa.step(state, byte)
                if target != DEAD and target not in number:
                    number[target] = len(number) + 1
                    order.append(target)
                row.append(number.get(target, 0))
            rows.append([*row, int(dfa.accept[state])])
        return cls(np.array(rows, dtype=np.int32))

    @classmethod
    def flexible(cls, most: int) -> Whitespace:
        table = np.zeros((most + 2, 5), dtype=np.int32)
        table[1:, 4] = 1
        table[1:-1, :4] = np.arange(2, most + 2)[:, None]
        return cls(table)


class Runs:
    """What tokens do from a state of the whitespace.

    Attributes:
        at: the address of the tokens of whitespace alone, how many there are; that of the table of what follows
            (`kernels.json_masks.fill_tops`).
    """

    def __init__(self, ids: NDArray[np.int32], tops: NDArray[np.int64], opened: list[Opened | None]) -> None:
        self._ids = np.ascontiguousarray(ids, dtype=np.int32)
        places = np.zeros((len(tops), 6), dtype=np.int64)
        places[:, :2] = tops
        inside, exits = [_EMPTY], [_NO_EXITS]
        n_ids = n_exits = 0
        for place, found in zip(places, opened, strict=True):
            if found is not None:
                place[2:] = n_ids, n_ids + len(found[0]), n_exits, n_exits + len(found[1])
                n_ids, n_exits = n_ids + len(found[0]), n_exits + len(found[1])
                inside.append(found[0])
                exits.append(found[1])
        self._handles = Handles(B_SIZE)
        self._handles[B_TOPS] = places
        self._handles[B_IDS], self._handles[B_EXITS] = np.concatenate(inside), np.concatenate(exits)
        self.nbytes = self._ids.nbytes + places.nbytes + 4 * n_ids + 40 * n_exits
        self.at = int(self._ids.ctypes.data), len(ids), self._handles.address


class LexemeMasks:
    """What tokens of a vocabulary do inside lexemes, whatever the schema."""

    def __init__(self, vocabulary: Vocabulary, limits: Limits, *, ensure_ascii: bool) -> None:
        load_kernels()
        table = vocabulary.table
        self.table, self.trie = table, table.trie
        self.limits = limits
        self.n_words = table.n_words
        self.single = np.zeros(256, dtype=np.bool_)
        self.single[table.data[table.indptr[:-1][np.diff(table.indptr) == 1]]] = True
        self.in_string = self.single.copy()
        self.in_string[:0x20] = False
        self.in_string[0x22] = False
        self.in_string[0x5C] = bool(self.single[[*b"\\u0123456789"]].all() and self.single[[*b"abcdef"]].all())
        if ensure_ascii:
            self.in_string[0x80:] = False
        alphabet = None if self.in_string[0x5C] else self.in_string
        literals = sum(bit for word, bit in ((b"null", 1), (b"false", 2), (b"true", 4)) if not self.missing(word))
        kinds = {kind: not self.missing(needed) for kind, needed in SPELLED_WITH.items()}
        self.usable = Usable(literals, **kinds)
        self.lexemes = Lexemes(limits, alphabet)
        self.arena = Arena()
        self._categories = np.zeros(self.trie.info.shape[0], dtype=np.int64)
        content.categories_below(*self.trie.packed[:2], self._categories)
        self._usable = content.usable_categories(self.in_string)
        self._trail = np.zeros((self.trie.max_depth + 2, 3), dtype=np.int64)
        self.lock = threading.RLock()
        self.bounds: list[int] = table.indptr.tolist()
        self.data_at = int(table.data.ctypes.data)
        self.trie_handles = trie_handles(*self.trie.packed)
        self._ids = np.empty((self.n_words - 1) // 4, dtype=np.int32)
        self._inside: dict[int, Inside] = {}
        self._whitespace: dict[tuple[bytes, int], Runs] = {}
        self._runs_at: dict[bytes, NDArray[np.int64]] = {}
        self._opened: dict[int, Opened] = {}
        self._runs: dict[bytes, tuple[Rows, Rows] | None] = {}
        self._numbers: dict[NumberRecognizer, StoredNumbers] = {}
        self._nbytes = 0
        self.endings_at = 0

    def missing(self, needed: bytes) -> bytes:
        """Those of the bytes that no token spells by itself."""
        return bytes(byte for byte in sorted(set(needed)) if not self.single[byte])

    @property
    def nbytes(self) -> int:
        return self._nbytes + self.arena.nbytes

    @property
    def is_full(self) -> bool:
        """Should new automata begin with an empty one?"""
        return self.arena.nbytes > self.limits.max_state_bytes

    @cached_property
    def endings(self) -> Endings:
        """What tokens say behind the quote that ends a string."""
        made = Endings(self.table)
        self.endings_at = made.trie.address
        return made

    def inside(self, core: JsonTables, c: int, kind: int) -> Inside:
        """What tokens do from content row `c`."""
        known = self._inside.get(c)
        if known is None:
            other = self._alike(c)
            if other != c:
                known = self.inside(core, other, kind)
                self._note(c, known, 200)
                return known
            if c == FREE:
                return self._any_string(core)
            known = self._any_number(core, c) or self._enduring(core, c) or self._like_any_string(core, c)
            if known is None:
                known = self._keep(c, kind, *self._walk(core, c, kind, _EMPTY))
        return known

    def _any_string(self, core: JsonTables) -> Inside:
        """`inside` of a string without constraints, with what tokens need.  On disk for other processes."""

        def made() -> Arrays:
            needs = np.full(self.table.size, OUTSIDE, dtype=np.int32)
            words, exits = self._walk(core, FREE, kernel.STRING, needs)
            needs = np.minimum(needs, self.trie.max_depth + 1)
            return {"words": words, "exits": exits, "needs": needs.astype(np.uint8) if needs.max() < 256 else needs}

        arrays = stored(self.table, "string", (self.in_string.tobytes(),), made)
        words, exits = arrays["words"].copy(), arrays["exits"].copy()  # from disk they are read-only: other signatures
        needs = arrays["needs"].astype(np.int32)
        needs[needs > self.trie.max_depth] = OUTSIDE
        known = self._keep(FREE, kernel.STRING, words, exits, needs)
        n = min(_STRING_MASKS_KEPT, self.limits.max_mask_bytes // (16 * self.n_words))
        known.keep_masks(n, self.n_words, self.endings.n_words)
        known.keep_rooms(self.trie.max_depth + 1)
        self._nbytes += known.masks.nbytes
        return known

    def string_mask(self, k: int) -> NDArray[np.int32]:
        """Mask `k` of those that kernels keep of any string."""
        mask: NDArray[np.int32] = self._inside[FREE].masks[k]
        return mask

    def make_room(self, core: JsonTables, room: int) -> None:
        """Let kernels know the tokens that stay inside any string and need at most so many characters."""
        known = self.limited(core, FREE)
        known.room(room, self.n_words)
        self._nbytes += 4 * self.n_words

    def _like_any_string(self, core: JsonTables, c: int) -> Inside | None:
        """`inside` of a string that goes on like any string, but for a few characters; None of others."""
        owner = self.arena.owner(c)
        if owner is None or isinstance(owner[0], NumberRecognizer):
            return None
        arena = self.arena
        if not arena.rows[c, FILLED]:
            arena.fill(c)
        while (answer := content.is_like_any_string(core.mem, arena.rows, arena.loops, self._usable, c)) == kernel.HOLE:
            core.fill_hole()
        any_string = (self._inside.get(FREE) or self._any_string(core)) if answer else None
        if any_string is None or any_string.words is None:  # of few tokens: a walk takes no time
            return None
        return self._keep(c, kernel.STRING, *self._walk(core, c, kernel.STRING, _EMPTY, less_than=any_string.words))

    def _enduring(self, core: JsonTables, c: int) -> Inside | None:
        """`inside` of a string in which anything may follow for long, from that of any string; None of others.

        So are patterns that may begin anywhere, and those that only count words.
        """
        owner = self.arena.owner(c)
        if owner is None or not isinstance(owner[0], StringRecognizer):
            return None
        if not self.arena.rows[c, FILLED]:
            self.arena.fill(c)
        if ((self.arena.rows[c, :256] == 0) != (self.arena.rows[FREE, :256] == 0)).any():
            return None
        lasting = owner[0].endurance(owner[1], self.trie.max_depth + 2)
        if lasting < _LEAST_ENDURANCE:
            return None
        any_string = self._inside.get(FREE) or self._any_string(core)
        if any_string.words is None:  # of few tokens: a walk takes no time
            return None
        words, long = any_string.words, self._long_tokens[self._long_sizes >= lasting]
        died = long[self._follow(core, c, long, self.table.data, self.table.indptr) == 0]
        if len(died):
            words = words.copy()
            np.bitwise_and.at(words, died >> 5, ~(np.uint32(1) << (died & 31).astype(np.uint32)))
        exits = any_string.exits.copy()
        exits[:, 1] = self._follow(core, c, np.arange(len(exits)), *self._exit_texts)
        stage = exits[:, 3] >> 19 & 7
        may_end = (stage == kernel.PENDING) | ((stage == 0) & (self.arena.rows[exits[:, 1], OUTCOME] >= 0))
        exits = np.ascontiguousarray(exits[may_end & (exits[:, 1] != 0)])
        known = Inside.of(words, None, exits, self.arena.rows, self.trie, self.endings)
        self._note(c, known, known.nbytes - (words.nbytes if words is any_string.words else 0))
        return known

    def _follow(
        self, core: JsonTables, c: int, which: NDArray[Any], data: NDArray[np.uint8], indptr: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The row after each of some texts, 0 if it dies."""
        sizes = indptr[which + 1] - indptr[which]
        starts = np.zeros(len(which) + 1, dtype=np.int64)
        np.cumsum(sizes, out=starts[1:])
        flat = data[np.repeat(indptr[which] - starts[:-1], sizes) + np.arange(starts[-1])]
        rows = np.zeros(len(which), dtype=np.int64)
        begin = 0
        while content.follow(core.mem, core.rows, c, flat, starts, begin, rows) != kernel.LIVE:
            begin = int(core.mem[kernel.M_NODE])
            core.fill_hole()
        return rows

    @cached_property
    def _long_sizes(self) -> NDArray[np.int64]:
        return np.diff(self.table.indptr)[self._long_tokens]

    @cached_property
    def _long_tokens(self) -> NDArray[np.int64]:
        """The tokens that stay inside any string and are long, in the order of their bytes."""
        words = self._inside[FREE].words
        assert words is not None
        inside = np.zeros(32 * (self.n_words + 1), dtype=np.bool_)
        inside[unpack_ids(words)] = True
        in_order = self.trie.token[inside[self.trie.token]].astype(np.int64)
        return in_order[np.diff(self.table.indptr)[in_order] >= _LEAST_ENDURANCE]

    @cached_property
    def _exit_texts(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """What tokens say before the exits from any string."""
        trie, table = self.trie, self.table
        texts = []
        for node in self._inside[FREE].exits[:, 0].tolist():
            below = node + int(np.argmax(trie.token[node : trie.end[node]] >= 0))
            start = int(table.indptr[trie.token[below]])
            texts.append(table.data[start : start + (int(trie.info[node]) >> 8) - 1])
        indptr = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in texts], out=indptr[1:])
        return np.concatenate(texts), indptr

    def _any_number(self, core: JsonTables, c: int) -> Inside | None:
        """`inside` of a number that is under no bounds, from disk; None for others, and where few numbers come to."""
        owner = self.arena.owner(c)
        if owner is None or self.table.size < LEAST_STORED:
            return None
        recognizer, state = owner
        if not isinstance(recognizer, NumberRecognizer) or not recognizer.is_plain:
            return None
        known = self._numbers.get(recognizer)
        if known is None:

            def walk(row: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
                words, exits = self._walk(core, row, kernel.PLAIN, _EMPTY)
                return unpack_ids(words).astype(np.int32), exits

            parts = (recognizer.name, self.limits.number_digits)
            make = partial(StoredNumbers.arrays_of, recognizer, self.arena, self.trie, walk)
            known = self._numbers[recognizer] = StoredNumbers(stored(self.table, "numbers", parts, make))
            self._nbytes += known.nbytes
        found = known.get(recognizer.content(state).tobytes(), self.arena, c)
        if found is None:
            return None
        words = np.zeros(self.n_words + 1, dtype=np.uint32)
        set_tokens(found[0], words)
        return self._keep(c, kernel.PLAIN, words[: self.n_words], found[1])

    def limited(self, core: JsonTables, c: int) -> Inside:
        """`inside`, and how many characters tokens need."""
        known = self._inside.get(c)
        if c == FREE:
            return known if known is not None else self._any_string(core)
        if known is None or known.needs is None:
            needs = np.full(self.table.size, OUTSIDE, dtype=np.int32)
            found = self._walk(core, c, kernel.STRING, needs)
            open_ = self.endings.open_escapes
            needs[open_[needs[open_] < OUTSIDE]] += self.farthest(c)
            known = self._keep(c, kernel.STRING, *found, needs)
        return known

    def whitespace(self, core: JsonTables, x: int) -> Runs:
        """What tokens do from whitespace state `x`."""
        key = (core.whitespace, x)
        known = self._whitespace.get(key)
        if known is None:
            if core.whitespace not in self._runs:
                self._runs[core.whitespace] = self._stored_runs(core)
            runs, k = self._runs[core.whitespace], x - kernel.WS
            if len(self._whitespace) >= _WHITESPACE_KEPT:
                self._whitespace.clear()
                for found in self._runs_at.values():
                    found[:] = 0
            ids, tops = (runs[0].row(k), runs[1].row(k)) if runs is not None else self._walk_whitespace(core, x)
            known = self._whitespace[key] = Runs(ids, tops, [self._open(core, node) for node in tops[:, 0].tolist()])
            self.runs_at(core.whitespace)[k] = known.at
            self._nbytes += known.nbytes
        return known

    def runs_at(self, whitespace: bytes) -> NDArray[np.int64]:
        """(n, 3) int64: by state of the whitespace, where kernels find its `Runs`, 0 if they are not made."""
        found = self._runs_at.get(whitespace)
        if found is None:
            n = len(whitespace) // _WHITESPACE_WIDTH
            found = self._runs_at[whitespace] = np.zeros((n, 3), dtype=np.int64)
        return found

    def _open(self, core: JsonTables, node: int) -> Opened | None:
        """What tokens below a trie node do that is a quote, inside the string that it opens; None: it is no quote."""
        if int(self.trie.info[node]) & 255 != 0x22:
            return None
        known = self._opened.get(node)
        if known is None:
            path = np.zeros((self.trie.max_depth + 2, 5), dtype=np.int64)
            path[int(self.trie.info[node]) >> 8, 1] = FREE
            words, exits = self._walk(core, FREE, kernel.STRING, _EMPTY, path, node)
            ids = [*unpack_ids(words).tolist(), *([int(self.trie.token[node])] if self.trie.token[node] >= 0 else [])]
            known = self._opened[node] = np.array(ids, dtype=np.int32), exits
        return known

    def _walk_whitespace(self, core: JsonTables, x: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        ids = np.empty(self.table.size, dtype=np.int32)
        tops = np.empty((self.trie.info.shape[0], 2), dtype=np.int64)
        path = np.zeros(self.trie.max_depth + 2, dtype=np.int64)
        path[0] = x
        n_ids, n_tops = kernel.walk_whitespace(core.mem, self.trie.packed, self.table.size, path, ids, tops)
        return ids[:n_ids].copy(), tops[:n_tops].copy()

    def _stored_runs(self, core: JsonTables) -> tuple[Rows, Rows] | None:
        """`_walk_whitespace` from each state, from disk; None if they are too few or too many for that."""
        n = core.consts.shape[0] - kernel.WS
        if n > _MOST_STORED or self.table.size < LEAST_STORED:
            return None

        def made() -> Arrays:
            none = np.zeros(0, dtype=np.int32), np.zeros((0, 2), dtype=np.int64)
            found = [none, *(self._walk_whitespace(core, x) for x in range(kernel.WS + 1, kernel.WS + n))]
            ids, tops = Rows.of([one for one, _ in found]), Rows.of([one for _, one in found])
            nodes = [node for node in np.unique(tops.flat[:, 0]).tolist() if self._open(core, node) is not None]
            inside = Rows.of([_EMPTY, *(self._opened[node][0] for node in nodes)])
            exits = Rows.of([_NO_EXITS, *(self._opened[node][1] for node in nodes)])
            return {
                "ids": ids.flat,
                "ids_start": ids.start,
                "tops": tops.flat,
                "tops_start": tops.start,
                "quotes": np.array(nodes, dtype=np.int64),
                "inside": inside.flat,
                "inside_start": inside.start,
                "exits": exits.flat,
                "exits_start": exits.start,
            }

        arrays = stored(self.table, "runs", (core.whitespace,), made)
        inside, exits = (Rows(arrays[name], arrays[f"{name}_start"]) for name in ("inside", "exits"))
        for k, node in enumerate(arrays["quotes"].tolist()):
            self._opened[node] = inside.row(k + 1), exits.row(k + 1)
        return Rows(arrays["ids"], arrays["ids_start"]), Rows(arrays["tops"], arrays["tops_start"])

    def farthest(self, c: int) -> int:
        """The most characters that any state of the lexeme of row `c` needs to come to an end."""
        owner = self.arena.owner(c)
        return owner[0].farthest if owner is not None and isinstance(owner[0], StringRecognizer) else 0

    def _alike(self, c: int) -> int:
        """A row from which all tokens do the same as from row `c`: far from bounds, lengths do not matter."""
        owner = self.arena.owner(c)
        if owner is None or not isinstance(owner[0], StringRecognizer):
            return c
        recognizer, state = owner
        return self.arena.number_of(recognizer, recognizer.alike(state, self.trie.max_depth))

    def _keep(
        self,
        c: int,
        kind: int,
        words: NDArray[np.uint32],
        exits: NDArray[np.int64],
        needs: NDArray[np.int32] | None = None,
    ) -> Inside:
        n = mask_to_ids(words, self._ids)
        ids = self._ids[:n].copy() if n <= len(self._ids) else None
        endings = self.endings if kind == kernel.STRING else None
        known = Inside.of(words, ids, exits, self.arena.rows, self.trie, endings)
        if needs is not None:
            known.limit(needs, self.endings.open_escapes)
        self._note(c, known, known.nbytes)
        return known

    def _note(self, c: int, known: Inside, nbytes: int) -> None:
        """Keep what is known of a row; nothing else, if that has become too much."""
        if self._nbytes > self.limits.max_mask_bytes:
            self._inside.clear()
            self.arena.inside[:] = 0
            self._nbytes = 0
        self._nbytes += nbytes
        self._inside[c] = known
        self.arena.inside[c] = known.table.address if known.table is not None else 0

    def _walk(
        self,
        core: JsonTables,
        c: int,
        kind: int,
        lengths: NDArray[np.int32],
        path: NDArray[np.int64] | None = None,
        node: int = -1,
        less_than: NDArray[np.uint32] | None = None,
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The tokens below a trie node (-1: all) that stay inside a lexeme, and their exits.

        less_than: more tokens do not.
        """
        words = np.zeros(self.n_words + 1, dtype=np.uint32)
        if less_than is not None:
            words[: self.n_words] = less_than
        exits = np.zeros((256, 5), dtype=np.int64)
        arena, trail, trie = self.arena, self._trail, self.trie_handles.address
        depth = int(self.trie.info[node]) >> 8 if node >= 0 else 0
        trail[depth, 0] = node
        if path is None:
            path = np.zeros((self.trie.max_depth + 2, 5), dtype=np.int64)
            path[0, 1] = c
        fresh = True
        while True:
            lexeme = kind, path, trail, fresh, depth, words, lengths, exits, less_than is not None
            rows = core.mem, arena.rows, arena.loops
            status = content.walk_inside(*rows, self._usable, trie, self._categories, *lexeme)
            fresh = False
            if status == kernel.LIVE:
                return words[: self.n_words], exits[: core.mem[kernel.M_N_EXITS]].copy()
            if status == kernel.FULL:
                exits = np.concatenate([exits, np.zeros_like(exits)])
            else:
                core.fill_hole()
