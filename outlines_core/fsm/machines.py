r"""`interegular` machines over bytes: `make_byte_level_fsm` and `make_deterministic_fsm` of `outlines_core` 0.1.

A byte of 0x80 and more is the symbol ``"\x00XX"``, its value in hexadecimal: symbols are texts there. A transition on
a character above U+007F becomes a path over the bytes of its UTF-8, shared with others where they go on alike; what
`anything_else` stands for becomes all other sequences of the form of UTF-8.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias

from interegular.fsm import FSM, Alphabet, anything_else

__all__ = [
    "BetterAlphabet",
    "BetterFSM",
    "FSMInfo",
    "byte_symbol",
    "make_byte_level_fsm",
    "make_deterministic_fsm",
    "symbols_to_bytes",
]

_FORMS: Final = ((0x80, 0xC0), (0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8))
"""Continuation bytes, then lead bytes of 2, 3 and 4."""
_BYTE: Final = re.compile("\x00([89A-F][0-9A-F])")
_Trie: TypeAlias = dict[int, Any]
"""Transition key -> trie, state, or None where another trie must not fill in."""


def byte_symbol(byte: int) -> str:
    """The symbol of a byte."""
    return f"\x00{byte:02X}" if byte >= 0x80 else chr(byte)


def symbols_to_bytes(text: str) -> bytes:
    """The bytes of a text in which bytes of 0x80 and more may be symbols.

    >>> symbols_to_bytes("a" + byte_symbol(0xC3) + byte_symbol(0xA9)).decode()
    'aé'
    """
    pieces = _BYTE.split(text)
    return b"".join(
        bytes.fromhex(piece) if k % 2 else piece.encode("utf-8", "surrogatepass") for k, piece in enumerate(pieces)
    )


class FSMInfo(NamedTuple):
    """A machine as flat tables: (state, key) -> state, symbol -> key; `alphabet_anything_value` is any other's key."""

    initial: int
    finals: set[int]
    transitions: dict[tuple[int, int], int]
    alphabet_anything_value: int
    alphabet_symbol_mapping: dict[str, int]


class BetterAlphabet(Alphabet):
    """An alphabet that gives symbols it does not name the key of `anything_else`."""

    def __init__(self, symbol_mapping: Any) -> None:
        super().__init__(symbol_mapping)
        self.anything_value: int = symbol_mapping[anything_else]

    def __getitem__(self, item: Any) -> Any:
        return self._symbol_mapping.get(item, self.anything_value)

    def copy(self) -> BetterAlphabet:
        """An alphabet of its own."""
        return BetterAlphabet(self._symbol_mapping.copy())


class BetterFSM(FSM):
    """A machine whose tables can be had flat."""

    def __init__(self, alphabet: Alphabet, states: Any, initial: int, finals: Any, map: Any, **options: Any) -> None:
        if not isinstance(alphabet, BetterAlphabet):
            alphabet = BetterAlphabet(alphabet._symbol_mapping)
        super().__init__(alphabet, states, initial, finals, map, **options)

    @cached_property
    def flat_transition_map(self) -> dict[tuple[int, int], int]:
        """(state, key) -> state."""
        return {(state, key): to for state, row in self.map.items() for key, to in row.items()}

    @cached_property
    def fsm_info(self) -> FSMInfo:
        """The machine as flat tables."""
        named: Any = {
            symbol: key for symbol, key in self.alphabet._symbol_mapping.items() if symbol is not anything_else
        }
        anything = self.alphabet[anything_else]
        return FSMInfo(self.initial, set(self.finals), self.flat_transition_map, anything, named)

    def copy(self) -> BetterFSM:
        """A machine of its own."""
        return BetterFSM(
            BetterAlphabet(self.alphabet._symbol_mapping.copy()), self.states, self.initial, self.finals, self.map
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a machine cannot be changed")


class _ByteKeys:
    """The alphabet of a byte-level machine: keys of named symbols, and of bytes."""

    def __init__(self, fsm: FSM, frozen: Sequence[str], *, keep_utf8: bool) -> None:
        self.symbols: dict[Any, Any] = {}
        self.sequences: dict[int, set[tuple[int, ...]]] = {}  # key of characters -> the keys of their bytes
        fresh = itertools.count(max(fsm.alphabet._symbol_mapping.values()) + 1)
        for symbol, key in fsm.alphabet.items():
            if symbol is anything_else or symbol in frozen or ord(symbol) < 0x80:
                self.symbols[symbol] = key
                continue
            if keep_utf8:
                self.symbols[symbol] = key
            path = []
            for byte in symbol.encode():
                name = byte_symbol(byte)
                if name not in self.symbols:
                    self.symbols[name] = next(fresh)
                path.append(self.symbols[name])
            self.sequences.setdefault(key, set()).add(tuple(path))
        self.forms: list[list[int]] = []
        for first, end in _FORMS:
            rest = next(fresh)
            named = (self.symbols.setdefault(byte_symbol(byte), rest) for byte in range(first, end))
            self.forms.append(sorted(set(named)))

    def all_sequences(self) -> Iterator[tuple[int, ...]]:
        for paths in self.sequences.values():
            yield from paths

    def anything(self, target: int) -> _Trie:
        """All characters of two to four bytes."""
        trie: _Trie = {}
        below: Any = target
        for lead in self.forms[1:]:
            below = dict.fromkeys(self.forms[0], below)
            trie |= dict.fromkeys(lead, below)
        return trie


def _put(trie: _Trie, path: Sequence[int], value: int | None) -> None:
    for key in path[:-1]:
        trie = trie.setdefault(key, {})
    trie[path[-1]] = value


def _fill_in(trie: _Trie, other: _Trie) -> None:
    """What `other` has and `trie` does not."""
    for key, value in other.items():
        known = trie.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            _fill_in(known, value)
        elif key not in trie:
            trie[key] = value.copy() if isinstance(value, dict) else value


def make_byte_level_fsm(fsm: FSM, keep_utf8: bool = False, frozen_tokens: Sequence[str] = ()) -> FSM:
    """A machine that reads UTF-8.

    Args:
        fsm: a machine over characters.
        keep_utf8: read whole characters as well.
        frozen_tokens: symbols that are whole tokens and stay as they are.
    """
    keys = _ByteKeys(fsm, frozen_tokens, keep_utf8=keep_utf8)
    states: list[Any] = list(fsm.states)
    fresh = itertools.count(max(fsm.states) + 1)
    rows: dict[int, dict[int, int]] = {}
    interned: dict[frozenset[tuple[int, int]], int] = {}

    def laid_out(trie: _Trie) -> dict[int, int]:
        row: dict[int, int] = {}
        for key, below in trie.items():
            if not isinstance(below, dict):
                if below is not None:
                    row[key] = below
                continue
            inner = laid_out(below)
            if not inner:
                continue
            content = frozenset(inner.items())
            if content not in interned:
                state = interned[content] = next(fresh)
                states.append(state)
                rows[state] = inner
            row[key] = interned[content]
        return row

    any_key = fsm.alphabet[anything_else]
    for state, transitions in fsm.map.items():
        trie: _Trie = {}
        row: dict[int, int] = {}
        for key, to in transitions.items():
            for path in keys.sequences.get(key, ()):
                _put(trie, path, to)
            if key not in keys.sequences or keep_utf8:
                row[key] = to
        if any_key in transitions:
            for path in keys.all_sequences():
                if _reached(trie, path) is None:
                    _put(trie, path, None)
            _fill_in(trie, keys.anything(transitions[any_key]))
        rows[state] = row | laid_out(trie)
    return FSM(alphabet=Alphabet(keys.symbols), states=states, initial=fsm.initial, finals=fsm.finals, map=rows)


def _reached(trie: Any, path: Sequence[int]) -> Any:
    for key in path:
        if not isinstance(trie, dict) or key not in trie:
            return None
        trie = trie[key]
    return trie


def make_deterministic_fsm(fsm: FSM) -> tuple[BetterFSM, dict[int, int]]:
    """The machine with states and keys numbered by what it does alone, and old state -> new state.

    Keys are numbered in the order of their sorted symbols. State 0 is the initial one; from then on the state seen
    last goes first, and numbers those it leads to in the order of the keys.
    """
    by_key = sorted(fsm.alphabet.by_transition.items(), key=lambda item: sorted(item[1]))
    new_key = {key: k for k, (key, _) in enumerate(by_key)}
    alphabet = BetterAlphabet({symbol: new_key[key] for symbol, key in fsm.alphabet._symbol_mapping.items()})
    rows = {state: dict(sorted((new_key[key], to) for key, to in row.items())) for state, row in fsm.map.items()}
    number: dict[int, int] = {fsm.initial: 0}
    open_ = [fsm.initial]
    while open_:
        for to in rows.get(open_.pop(), {}).values():
            if to not in number:
                number[to] = len(number)
                open_.append(to)
    numbered = {number[state]: row for state, row in rows.items() if state in number}
    map_ = {state: {key: number[to] for key, to in numbered[state].items()} for state in sorted(numbered)}
    states = frozenset(number.values())
    finals = frozenset(number[state] for state in fsm.finals if state in number)
    return BetterFSM(alphabet, states, 0, finals, map_), number
