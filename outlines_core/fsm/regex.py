r"""`outlines_core.fsm.regex` of `outlines_core` 0.1: from an `interegular` machine and a tokenizer to an index.

`Index` here keeps that package's state numbers, which are those of the machine it is made of. What is allowed in a
state is answered by this package's automaton of the same machine (masks are one walk of the trie, states without a way
to acceptance are pruned, and only whole UTF-8 is a text); the machine itself is only walked to name the state that a
token leads to.

The functions below `Index` are that package's building blocks, over plain dictionaries. They look at one token at a
time, and serve as the readable twin that `Index` is tested against.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final

from outlines_core.compile import graph_core
from outlines_core.control import codes_for
from outlines_core.fsm.machines import (
    BetterAlphabet,
    BetterFSM,
    FSMInfo,
    byte_symbol,
    make_byte_level_fsm,
    make_deterministic_fsm,
    symbols_to_bytes,
)
from outlines_core.index import RegexAutomaton
from outlines_core.limits import DEFAULT_LIMITS
from outlines_core.regex.ast import Ranges
from outlines_core.regex.charset import complement, normalise
from outlines_core.types import DEAD, FINISHED
from outlines_core.vocabulary import Vocabulary as CoreVocabulary

__all__ = [
    "BetterAlphabet",
    "BetterFSM",
    "FSMInfo",
    "Index",
    "Vocabulary",
    "byte_symbol",
    "create_fsm_index_end_to_end",
    "create_fsm_index_tokenizer",
    "get_token_transition_keys",
    "get_vocabulary_transition_keys",
    "gpt2_bytes_to_unicode",
    "gpt2_unicode_to_bytes",
    "make_byte_level_fsm",
    "make_deterministic_fsm",
    "reduced_vocabulary",
    "state_scan_tokens",
]

_LLAMA_BYTE: Final = re.compile("<0x([0-9A-F]{2})>")
_UTF8: Final = (
    ((0xC2, 0xDF, 1), (0xE0, 0xE0, 2), (0xE1, 0xEC, 3), (0xED, 0xED, 4), (0xEE, 0xEF, 3), (0xF0, 0xF0, 5))
    + ((0xF1, 0xF3, 6), (0xF4, 0xF4, 7)),
    ((0x80, 0xBF, 0),),
    ((0xA0, 0xBF, 1),),
    ((0x80, 0xBF, 1),),
    ((0x80, 0x9F, 1),),
    ((0x90, 0xBF, 3),),
    ((0x80, 0xBF, 3),),
    ((0x80, 0x8F, 3),),
)
"""Well-formed UTF-8 above U+007F as a machine (Unicode, table 3-7): per state (lowest byte, highest byte, state)."""


class Vocabulary:
    """Token text -> ids, bytes of 0x80 and more possibly as symbols."""

    def __init__(self, tokens: Mapping[str, Sequence[int]]) -> None:
        self.tokens = {text: list(ids) for text, ids in tokens.items()}

    @staticmethod
    def from_dict(map: dict[str, list[int]]) -> Vocabulary:
        """The vocabulary of a dictionary."""
        return Vocabulary(map)

    def __repr__(self) -> str:
        return f"Vocabulary({self.tokens!r})"


class Index:
    """Which tokens may come in which state of a machine, and where they lead.

    Args:
        fsm_info: the machine.
        vocabulary: the tokens.
        eos_token_id: what ends a text.
        frozen_tokens: tokens that are symbols of the machine as a whole.

    Raises:
        UnsatisfiableError: "The vocabulary does not allow us to build a sequence that matches the input".
    """

    def __init__(
        self,
        fsm_info: FSMInfo,
        vocabulary: Vocabulary,
        eos_token_id: int,
        frozen_tokens: Iterable[str] = frozenset(),
    ) -> None:
        self._info, self._vocabulary, self._eos = fsm_info, vocabulary, eos_token_id
        self._frozen = tuple(sorted(set(frozen_tokens)))
        codes = dict(zip(self._frozen, codes_for(len(self._frozen)), strict=True))
        tokens: dict[bytes, list[int]] = {}
        self._symbols: dict[int, Sequence[str]] = {}
        for text, ids in vocabulary.tokens.items():
            kept = [i for i in ids if i != eos_token_id]
            spelled = codes.get(text)
            tokens.setdefault(symbols_to_bytes(text) if spelled is None else spelled, []).extend(kept)
            symbols = [text] if spelled is not None else _split_symbols(text)
            self._symbols.update(dict.fromkeys(kept, symbols))
        graph, byte_edges = _graph_of(fsm_info, codes)
        core = graph_core(graph, CoreVocabulary(eos_token_id, tokens), limits=DEFAULT_LIMITS, byte_edges=byte_edges)
        self._automaton = RegexAutomaton(core, (Index, ()))
        self._inside = {fsm_info.initial: self._automaton.initial_state}
        self._explored = False

    def _known(self, state: int) -> int:
        """The automaton's state for one of the machine's, DEAD if no token leads there."""
        if state not in self._inside and not self._explored:
            self._explore()
        return self._inside.get(state, DEAD)

    def _explore(self) -> None:
        open_ = list(self._inside)
        for state in open_:
            known = len(self._inside)
            for token_id in self._automaton.allowed_tokens(self._inside[state]).tolist():
                self.get_next_state(state, token_id)
            open_ += list(self._inside)[known:]
        self._explored = True

    def get_allowed_tokens(self, state: int) -> list[int] | None:
        """The allowed ids, EOS among them in a final state; None for a state that nothing leads out of."""
        ids: list[int] = self._automaton.allowed_tokens(self._known(state)).tolist()
        return None if ids in ([], [self._eos]) else ids

    def get_next_state(self, state: int, token_id: int) -> int | None:
        """The state after a token, None if it is not allowed or EOS."""
        inside = self._automaton.next_state(self._known(state), token_id)
        if inside in (DEAD, FINISHED):
            return None
        symbols = self._info.alphabet_symbol_mapping
        for symbol in self._symbols[token_id]:
            key = symbols.get(symbol, self._info.alphabet_anything_value)
            following = self._info.transitions.get((state, key))
            if following is None:  # named character by character in the alphabet, but read byte by byte
                following = self._walk_bytes(state, symbol)
            state = following
        self._inside.setdefault(state, inside)
        return state

    def _walk_bytes(self, state: int, symbol: str) -> int:
        for byte in symbols_to_bytes(symbol):
            state = self._info.transitions[state, self._info.alphabet_symbol_mapping[byte_symbol(byte)]]
        return state

    def is_final_state(self, state: int) -> bool:
        """Does the machine accept in `state`?"""
        return state in self._info.finals

    def get_transitions(self) -> dict[int, dict[int, int]]:
        """Every edge: state -> {token id: state}; EOS leads from a final state with other edges to itself."""
        self._explore()
        edges: dict[int, dict[int, int]] = {}
        for state in self._inside:
            ids = self.get_allowed_tokens(state)
            if ids is not None:
                rows = ((i, state if i == self._eos else self.get_next_state(state, i)) for i in ids)
                edges[state] = {i: to for i, to in rows if to is not None}
        return edges

    get_index_dict = get_transitions

    def get_initial_state(self) -> int:
        """The machine's initial state."""
        return self._info.initial

    def __iter__(self) -> Iterator[int]:
        return iter(self.get_transitions())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        return bool(self.__reduce__()[1] == other.__reduce__()[1])

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (tuple(self._info), self._vocabulary.tokens, self._eos, self._frozen)


def _made_again(info: Any, tokens: dict[str, list[int]], eos: int, frozen: Iterable[str]) -> Index:
    return Index(FSMInfo(*info), Vocabulary(tokens), eos, frozen)


def _split_symbols(text: str) -> list[str]:
    """The symbols of a text: characters, and bytes written as ``"\\x00XX"``."""
    return re.findall("\x00[89A-F][0-9A-F]|.", text, re.DOTALL)


def _graph_of(info: FSMInfo, codes: Mapping[str, bytes]) -> tuple[Any, Any]:
    """A machine as a graph over characters, with edges over the bytes that it names (well-formed UTF-8 only)."""
    characters: dict[int, list[tuple[int, int]]] = {}
    by_byte: dict[int, list[int]] = {}
    by_code: dict[int, list[bytes]] = {}
    for symbol, key in info.alphabet_symbol_mapping.items():
        if symbol in codes:
            by_code.setdefault(key, []).append(codes[symbol])
        elif len(symbol) == 1:
            characters.setdefault(key, []).append((ord(symbol), ord(symbol)))
        else:
            by_byte.setdefault(key, []).extend(symbols_to_bytes(symbol))
    others = complement(normalise(pair for pairs in characters.values() for pair in pairs))
    ranges: dict[int, Ranges] = {key: normalise(pairs) for key, pairs in characters.items()}
    anything = info.alphabet_anything_value
    ranges[anything] = normalise((*ranges.get(anything, ()), *others))
    # the product with UTF-8: state (s, u) is number 8 s + u, in the order of `numbers`
    states = sorted({info.initial, *info.finals, *info.transitions.values(), *(s for s, _ in info.transitions)})
    numbers = {state: 8 * k for k, state in enumerate(states)}
    edges: list[list[tuple[Ranges, int]]] = [[] for _ in range(8 * len(states))]
    byte_edges: list[list[tuple[int, int, int]]] = [[] for _ in range(8 * len(states))]
    for (state, key), to in info.transitions.items():
        source, target = numbers[state], numbers[to]
        if key in ranges:
            edges[source].append((ranges[key], target))
        for byte in by_byte.get(key, ()):
            for u, row in enumerate(_UTF8):
                byte_edges[source + u] += [(byte, byte, target + v) for low, high, v in row if low <= byte <= high]
        for code in by_code.get(key, ()):
            at = source
            for byte in code[:-1]:
                byte_edges[at].append((byte, byte, len(edges)))
                at = len(edges)
                edges.append([])
                byte_edges.append([])
            byte_edges[at].append((code[-1], code[-1], target))
    final = {numbers[state] for state in info.finals}
    accepting = tuple(k in final for k in range(len(edges)))
    return (tuple(map(tuple, edges)), accepting, numbers[info.initial]), tuple(map(tuple, byte_edges))


# -- tokenizers -------------------------------------------------------------------------------------------------------


@cache
def gpt2_bytes_to_unicode() -> dict[int, str]:
    """The character that stands for each byte in the vocabulary of a byte-level tokenizer."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + k) for k, byte in enumerate(others)}


@cache
def gpt2_unicode_to_bytes() -> dict[str, int]:
    """The inverse of `gpt2_bytes_to_unicode`."""
    return {char: byte for byte, char in gpt2_bytes_to_unicode().items()}


@lru_cache
def reduced_vocabulary(tokenizer: Any) -> tuple[dict[str, list[int]], set[int]]:
    """The texts of a tokenizer's tokens, special ones left out.

    Args:
        tokenizer: a hashable object with `vocabulary`, `special_tokens` and `convert_token_to_string`.

    Returns:
        Text -> ids, and the ids of tokens without text. Bytes that are no whole characters are symbols.

    Raises:
        RuntimeError: the text of a token is no whole number of characters and its bytes cannot be told.
    """
    empty: set[int] = set()
    tokens: dict[str, list[int]] = {}
    alphabet = gpt2_unicode_to_bytes()
    for token, token_id in tokenizer.vocabulary.items():
        if token in tokenizer.special_tokens:
            continue
        text = tokenizer.convert_token_to_string(token)
        if not text:
            empty.add(token_id)
            continue
        if isinstance(token, bytes):
            text = "".join(map(byte_symbol, token))
        elif "\ufffd" in text and "\ufffd" not in token:  # else it is the character U+FFFD itself
            byte = _LLAMA_BYTE.fullmatch(token)
            if byte is not None:
                text = byte_symbol(int(byte[1], 16))
            elif all(char in alphabet for char in token):
                text = "".join(byte_symbol(alphabet[char]) for char in token)
            else:
                raise RuntimeError(f"Cannot convert token `{token}` ({token_id}) to bytes: {text}")
        tokens.setdefault(text, []).append(token_id)
    return tokens, empty


def create_fsm_index_tokenizer(
    fsm: BetterFSM, tokenizer: Any, frozen_tokens: Iterable[str] | None = None
) -> tuple[Index, set[int]]:
    """The index of a machine for a tokenizer, and the ids of tokens without text (never allowed)."""
    tokens, empty = reduced_vocabulary(tokenizer)
    return Index(fsm.fsm_info, Vocabulary(tokens), tokenizer.eos_token_id, frozen_tokens or ()), empty


# -- one token at a time ----------------------------------------------------------------------------------------------


def get_token_transition_keys(
    alphabet_symbol_mapping: Mapping[str, int], alphabet_anything_value: int, token_str: str
) -> list[int]:
    """The keys of a token's symbols, one after the other."""
    return [alphabet_symbol_mapping.get(symbol, alphabet_anything_value) for symbol in _split_symbols(token_str)]


def get_vocabulary_transition_keys(
    alphabet_symbol_mapping: Mapping[str, int],
    alphabet_anything_value: int,
    vocabulary: Vocabulary,
    frozen_tokens: Iterable[str],
) -> dict[str, list[int]]:
    """The keys of every token; a frozen one is one symbol."""
    frozen = set(frozen_tokens)
    return {
        text: [alphabet_symbol_mapping.get(text, alphabet_anything_value)]
        if text in frozen
        else get_token_transition_keys(alphabet_symbol_mapping, alphabet_anything_value, text)
        for text in vocabulary.tokens
    }


def _walk_fsm(
    fsm_transitions: Mapping[tuple[int, int], int],
    fsm_initial: int,  # noqa: ARG001 -- the older signature
    fsm_finals: Iterable[int],
    token_transition_keys: Sequence[int],
    start_state: int,
    full_match: bool,
) -> list[int]:
    """The states after each key; where a key leads nowhere, those up to the last final one, or with `full_match` none.

    With `full_match` the last state must be final as well.
    """
    finals = set(fsm_finals)
    path: list[int] = []
    state = start_state
    n_final = 0
    for key in token_transition_keys:
        following = fsm_transitions.get((state, key))
        if following is None:
            return [] if full_match else path[:n_final]
        state = following
        path.append(state)
        if state in finals:
            n_final = len(path)
    return [] if full_match and n_final != len(path) else path


def state_scan_tokens(
    fsm_transitions: Mapping[tuple[int, int], int],
    fsm_initial: int,
    fsm_finals: Iterable[int],
    vocabulary: Vocabulary,
    vocabulary_transition_keys: Mapping[str, Sequence[int]],
    start_state: int,
) -> set[tuple[int, int]]:
    """(Token id, state after it) of all tokens that the machine can read in a state."""
    found: set[tuple[int, int]] = set()
    for text, ids in vocabulary.tokens.items():
        keys = vocabulary_transition_keys[text]
        path = _walk_fsm(fsm_transitions, fsm_initial, fsm_finals, keys, start_state, False)
        if path and len(path) == len(keys):
            found.update((token_id, path[-1]) for token_id in ids)
    return found


def create_fsm_index_end_to_end(
    fsm_info: FSMInfo, vocabulary: Vocabulary, frozen_tokens: Iterable[str] = frozenset()
) -> dict[int, dict[int, int]]:
    """State -> {token id: state} of all states that tokens reach, dead ends included."""
    keys = get_vocabulary_transition_keys(
        fsm_info.alphabet_symbol_mapping, fsm_info.alphabet_anything_value, vocabulary, frozen_tokens
    )
    edges: dict[int, dict[int, int]] = {}
    open_, seen = [fsm_info.initial], {fsm_info.initial}
    for state in open_:
        found = state_scan_tokens(fsm_info.transitions, fsm_info.initial, fsm_info.finals, vocabulary, keys, state)
        if found:
            edges[state] = dict(sorted(found))
        for to in sorted({to for _, to in found} - seen):
            seen.add(to)
            open_.append(to)
    return edges
