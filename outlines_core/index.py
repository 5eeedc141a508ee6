"""The token automaton of a regular constraint: a byte DFA on a vocabulary.

A state of the automaton *is* a state of the lazy DFA. The tables and masks behind it (`RegexCore`) are shared by all
automata of one constraint and vocabulary; the automaton itself is a light object, one per request if a server likes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from outlines_core.automaton import CoreAutomaton
from outlines_core.bitmask import checked_words
from outlines_core.cache import decode_arrays, encode_arrays
from outlines_core.control import PRIVATE, shown, text_before_code
from outlines_core.errors import (
    CacheFormatError,
    ConstraintSyntaxError,
    IncompatibleVocabularyError,
    LimitExceededError,
    UnsupportedFeatureError,
)
from outlines_core.kernels.dfa import LANES
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.dfa import LazyDfa
from outlines_core.regex.nfa import CharacterGraph
from outlines_core.regex_core import RegexCore
from outlines_core.types import DEAD, FINISHED, FIRST_STATE, StateId, TokenId
from outlines_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from interegular import FSM

__all__ = ["GrammarAutomaton", "Index", "LazyAutomaton", "RegexAutomaton"]

_INT32 = np.dtype(np.int32)


class LazyAutomaton(CoreAutomaton):
    """A `TokenAutomaton` over a lazy DFA of bytes."""

    _core: RegexCore

    def forced_bytes(self, state: StateId) -> bytes:
        """The longest common prefix of all completions (b"" if the text may end here)."""
        if state < FIRST_STATE:
            return b""
        return _forced_bytes_in_tokens(self._core, state) if self._core.filtered else _forced(self._core.dfa, state)

    def min_tokens_to_accept(self, state: StateId) -> int:
        """Fewest tokens (EOS not counted) after which generation may end.

        Raises:
            ValueError: `state` is DEAD.
            LimitExceededError: the search would take too long.
        """
        if state == DEAD:
            raise ValueError("nothing can be accepted any more after a rejected token")
        return 0 if self.is_accepting(state) else self._core.min_tokens(state)

    def fill_closing_mask(self, state: StateId, budget: int, out: NDArray[Any]) -> None:
        """`fill_mask`, less the tokens after which the text cannot be ended within the budget.

        Args:
            budget: tokens left, the next one included, EOS not counted. A token stays allowed if at most
                ``budget - 1`` more are needed after it. If that takes too long to know exactly, a number of bytes
                stands for the number of tokens: never too many tokens are allowed then, but perhaps fewer.
        """
        core = self._core
        core.closing_mask(state, budget, checked_words(out, core.n_words))

    def explain(self, state: StateId) -> str:
        """In words: what is expected next."""
        if state == DEAD:
            return "nothing: the last token was not allowed"
        if state == FINISHED:
            return "the text has ended"
        core = self._core
        expected = []
        with core.lock:
            row = core.dfa.row(state)[core.dfa.byte_class]
        live = [byte for byte in np.flatnonzero(row).tolist() if not core.codes or byte not in PRIVATE]
        tokens = [name for code, name in core.codes.items() if core.dfa.run(state, code) != DEAD]
        start = 0
        while start < len(live):
            end = start
            while end + 1 < len(live) and live[end + 1] == live[end] + 1:
                end += 1
            low, high = _shown(live[start]), _shown(live[end])
            expected.append(low if start == end else f"{low}-{high}")
            start = end + 1
        special = f"next special token: {', '.join(tokens)}; " if tokens else ""
        may_end = "the text may end here" if self.is_accepting(state) else "the text may not end here"
        try:
            shortest = repr(shown(core.completion(state)[:80], core.codes))
        except LimitExceededError:
            shortest = "too long to be searched for"
        following = f"next byte: {', '.join(expected) or 'none'}; {special}shortest completion: {shortest}"
        return f"{core.label}: {may_end}; {following}"


class GrammarAutomaton(LazyAutomaton):
    """The `TokenAutomaton` of a grammar.  Made by `compile_grammar`."""

    def forced_bytes(self, state: StateId) -> bytes:
        """The longest common prefix of all completions (b"" if the text may end here), up to a special token."""
        return text_before_code(super().forced_bytes(state))


class RegexAutomaton(LazyAutomaton):
    """The `TokenAutomaton` of a regular constraint.  Made by `compile_regex` and `compile_choice`."""

    def materialize(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Build every state and mask that tokens can reach, instead of waiting for the first visits.

        An index of more than a few states is kept on disk, where later processes find it.

        Args:
            progress: called now and then with (states done, states known).
        """
        core = self._core
        if core.load():
            if progress is not None:
                progress(self.n_states, self.n_states)
            return
        states = [s for s in core.all_states() if s not in core.masks]
        alike = {s: (core.dfa.delta[s] != DEAD).tobytes() for s in states}  # lanes that live and die together
        states.sort(key=lambda s: alike[s])
        chunks = [states[k : k + LANES] for k in range(0, len(states), LANES)]
        done = 0
        with ThreadPoolExecutor(os.cpu_count() or 1) if len(chunks) > 8 else contextlib.nullcontext() as pool:
            built = pool.map(core.build_masks, chunks) if pool else map(core.build_masks, chunks)
            for chunk, _ in zip(chunks, built, strict=True):
                done += len(chunk)
                if progress is not None:
                    progress(done, len(states))
        core.save()


def _shown(byte: int) -> str:
    return repr(chr(byte)) if 0x20 <= byte < 0x7F else f"0x{byte:02X}"


def _forced(dfa: LazyDfa, state: int) -> bytes:
    text = bytearray()
    counts = np.bincount(dfa.byte_class, minlength=dfa.n_classes)
    letters = dfa.class_bytes()
    while not dfa.accept[state]:
        row = dfa.row(state)
        live = np.flatnonzero(row)
        if len(live) != 1 or counts[live[0]] != 1:
            break
        text.append(letters[int(live[0])])
        state = int(row[live[0]])
    return bytes(text)


def _forced_bytes_in_tokens(core: RegexCore, state: int) -> bytes:
    """The same where not every byte is a token: follow all spellings at once, as (state before a token, trie node)."""
    info, end, token = core.trie
    n = info.shape[0]
    text = bytearray()
    configurations: set[tuple[int, int]] = {(state, -1)}
    while True:
        following: dict[int, set[tuple[int, int]]] = {}
        for at, node in configurations:
            if node == -1 and core.dfa.accept[at]:
                return bytes(text)
            child, stop = (0, n) if node == -1 else (node + 1, int(end[node]))
            depth_state = core.dfa.run(at, _spelling(core, node)) if node >= 0 else at
            while child < stop:
                byte = int(info[child]) & 255
                target = core.dfa.step(depth_state, byte)
                if target != DEAD and _completes(core, at, child):
                    entries = following.setdefault(byte, set())
                    if token[child] >= 0 and core.next_state(at, int(token[child])) != DEAD:
                        entries.add((target, -1))
                    entries.add((at, child))
                child = int(end[child])
        if len(following) != 1:
            return bytes(text)
        byte, configurations = next(iter(following.items()))
        text.append(byte)


def _spelling(core: RegexCore, node: int) -> bytes:
    """The bytes from the root to a node: those of the first token at or below it, cut."""
    info, end, token = core.trie
    depth = int(info[node]) >> 8
    below = node + int(np.argmax(token[node : end[node]] >= 0))
    start = int(core.indptr[token[below]])
    return core.data[start : start + depth].tobytes()


def _completes(core: RegexCore, state: int, node: int) -> bool:
    """Is some token at or below `node` allowed in `state`?"""
    _, end, token = core.trie
    ids = token[node : end[node]]
    return any(core.next_state(state, t) != DEAD for t in ids[ids >= 0].tolist())


class Index(RegexAutomaton):
    """The automaton of a regex under the name and with the methods of the PyPI package `outlines_core`.

    Args:
        regex: a pattern in the syntax of Rust's regex crate (look-around besides), matched as a whole.
        vocabulary: what it is compiled against (a snapshot: later edits do not reach it).
        dialect: another syntax, see `compile_regex`.
        limits: what it may cost.

    Raises:
        TypeError: arguments of other types.
        ConstraintError: see `compile_regex`; all of these are ValueErrors.

    >>> vocabulary = Vocabulary(3, {"a": [0], "b": [1], "ab": [2]})
    >>> index = Index("(ab)+", vocabulary)
    >>> index.get_allowed_tokens(index.get_initial_state())
    [0, 2]
    """

    def __init__(
        self,
        regex: str,
        vocabulary: Vocabulary,
        *,
        dialect: Literal["rust", "python", "ecma"] = "rust",
        limits: Limits | None = None,
    ) -> None:
        from outlines_core.compile import regex_core

        try:
            core = regex_core(regex, vocabulary, dialect=dialect, limits=limits or DEFAULT_LIMITS)
        except (ConstraintSyntaxError, UnsupportedFeatureError) as error:
            error.args = (f"Failed to build DFA: {error}",)
            raise
        except IncompatibleVocabularyError as error:
            error.args = (_incompatible(regex, error),)
            raise
        self._describe(core, {"regex": regex, "dialect": dialect}, limits)

    @classmethod
    def from_fsm(cls, fsm: FSM, vocabulary: Vocabulary, *, limits: Limits | None = None) -> Index:
        """The automaton of an `interegular` FSM over characters."""
        from outlines_core.compile import character_graph

        return cls._from_graph(character_graph(fsm), vocabulary, limits)

    @classmethod
    def _from_graph(cls, graph: CharacterGraph, vocabulary: Vocabulary, limits: Limits | None) -> Index:
        from outlines_core.compile import graph_core

        index = cls.__new__(cls)
        core = graph_core(graph, vocabulary, limits=limits or DEFAULT_LIMITS)
        index._describe(core, {"graph": graph}, limits)
        return index

    def _describe(self, core: RegexCore, constraint: dict[str, Any], limits: Limits | None) -> None:
        self._constraint = constraint | {"limits": None if limits is None else asdict(limits)}
        RegexAutomaton.__init__(self, core, (Index.from_binary, ()))

    def get_initial_state(self) -> StateId:
        """The state before the first token."""
        return self.initial_state

    def get_allowed_tokens(self, state: StateId) -> list[TokenId] | None:
        """The allowed ids, or None if `state` is not a state of this index."""
        if not FIRST_STATE <= state < self.n_states:
            return None
        ids: list[int] = self._core.ids(state).tolist()
        return ids

    def get_next_state(self, state: StateId, token_id: TokenId) -> StateId | None:
        """The state after a token, None if it is not allowed; EOS leads nowhere, as in the older package."""
        if not FIRST_STATE <= state < self.n_states or token_id in self._core.eos:
            return None
        return self.next_state(state, token_id) or None

    def is_final_state(self, state: StateId) -> bool:
        """May the text end in `state`?"""
        return FIRST_STATE <= state < self.n_states and self.is_accepting(state)

    def get_final_states(self) -> set[StateId]:
        """All accepting states that tokens can reach.  Visits the whole index."""
        return {state for state in self._core.all_states() if self.is_accepting(state)}

    def get_transitions(self) -> dict[StateId, dict[TokenId, StateId]]:
        """Every edge of the index; an accepting state has EOS edges to itself, as in the older package."""
        edges: dict[int, dict[int, int]] = {}
        for state in self._core.all_states():
            eos = self._core.eos
            edges[state] = {t: state if t in eos else self.next_state(state, t) for t in self._core.ids(state).tolist()}
        return edges

    # -- copies -----------------------------------------------------------------------------------------------------

    def to_binary(self) -> bytes:
        """The constraint and the vocabulary (no pickle inside); states and masks are made again where it is read."""
        constraint = np.frombuffer(json.dumps(self._constraint).encode(), dtype=np.uint8)
        vocabulary = np.frombuffer(self.vocabulary.to_binary(), dtype=np.uint8)
        return encode_arrays({"constraint": constraint, "vocabulary": vocabulary})

    @staticmethod
    def from_binary(binary_data: bytes) -> Index:
        """The inverse of `to_binary`.  Raises CacheFormatError, a ValueError, for anything else."""
        arrays = decode_arrays(bytes(binary_data))
        if arrays is None or arrays.keys() != {"constraint", "vocabulary"}:
            raise CacheFormatError("Deserialization of Index failed: damaged, or written by another version")
        constraint = json.loads(arrays["constraint"].tobytes())
        vocabulary = _vocabulary(arrays["vocabulary"].tobytes())
        limits = None if constraint["limits"] is None else Limits(**constraint["limits"])
        if "graph" in constraint:
            return Index._from_graph(_tuples(constraint["graph"]), vocabulary, limits)
        return Index(constraint["regex"], vocabulary, dialect=constraint["dialect"], limits=limits)

    def __reduce__(self) -> tuple[Any, ...]:
        return Index.from_binary, (self.to_binary(),)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        return self._constraint == other._constraint and self.vocabulary == other.vocabulary

    __hash__ = None  # type: ignore[assignment]


@lru_cache(maxsize=4)
def _vocabulary(binary: bytes) -> Vocabulary:
    """The same vocabulary comes with index after index."""
    return Vocabulary.from_binary(binary)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _incompatible(regex: str, error: IncompatibleVocabularyError) -> str:
    missing = ", ".join(f'"{chr(byte)}"' if 0x20 < byte < 0x7F else f'"0x{byte:02X}"' for byte in error.missing_bytes)
    characters = f", missing tokens corresponding to at least one of the following characters: [{missing}]"
    return (
        f"The vocabulary provided is incompatible with the regex {regex!r}. Found no transitions from state "
        f"{FIRST_STATE}{characters if missing else ''}. {error}"
    )
