"""The token automaton of a JSON Schema: states, masks, edges, and the way to an end."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import IncompatibleVocabularyError, UnsatisfiableError
from outlines_core.json_closing import Closing
from outlines_core.json_masks import SPELLED_WITH, LexemeMasks, Whitespace
from outlines_core.json_schema.depth import deeply
from outlines_core.json_schema.machine import Machine
from outlines_core.json_schema.nodes import SchemaNode
from outlines_core.json_schema.refusals import refuse_unique_items, unsatisfiable_place
from outlines_core.json_schema.sat import Usable
from outlines_core.json_state_masks import JsonMasks
from outlines_core.json_states import NO_RECORDS
from outlines_core.kernels import json as kernel
from outlines_core.limits import Limits
from outlines_core.types import DEAD, FINISHED, FIRST_STATE
from outlines_core.vocabulary import TokenTable, Vocabulary

__all__ = ["JsonCore"]

_EDGES_KEPT: Final = 1 << 16


class JsonCore(JsonMasks):
    """Everything that automata of one schema, one set of options and one vocabulary share."""

    def __init__(
        self,
        root: SchemaNode,
        vocabulary: Vocabulary,
        shared: LexemeMasks,
        whitespace: Whitespace,
        limits: Limits,
        *,
        in_order: bool,
        source: str,
    ) -> None:
        label = f"the schema {source if len(source) <= 80 else f'{source[:77]}...'}"
        self.label = label
        machine = Machine(root, shared.lexemes, in_order=in_order, usable=shared.usable)
        super().__init__(vocabulary, machine, shared, whitespace, limits)
        self.edges: dict[tuple[int, int], int] = {}
        self.closing = Closing(self)
        self._distances: dict[int, int] = {}
        with self.lock:
            goal = self.machine.root
            if not deeply(lambda: self.machine.is_alive(goal)):
                self._refuse_vocabulary(root, in_order)
                place = unsatisfiable_place(self.machine.lowering, self.machine.sat, root)
                where = f": nothing satisfies #{place}" if place else ""
                raise UnsatisfiableError(f"no JSON value satisfies {label}{where}", path=place)
            if "uniqueItems" in source:
                refuse_unique_items(self.machine.lowering, self.machine.sat, root)
            start = np.array([self.value_struct(goal), 0, 0, kernel.WS + 1, 0], dtype=np.int64)
            self.start = self._intern(start, NO_RECORDS)

    def _refuse_vocabulary(self, root: SchemaNode, in_order: bool) -> None:
        """Raise IncompatibleVocabularyError if the schema has values, and only bytes are missing."""
        usable, lexemes = self.shared.usable, self.shared.lexemes

        def has_values(usable: Usable) -> bool:
            machine = Machine(root, lexemes, in_order=in_order, usable=usable)
            return deeply(lambda: machine.is_alive(machine.root))

        if usable == Usable() or not has_values(Usable()):
            return
        kinds: dict[str, bytes] = {**SPELLED_WITH, "literals": b"nulltruefalse"}
        helpful = [kind for kind in kinds if has_values(usable._replace(**{kind: getattr(Usable(), kind)}))]
        missing = self.shared.missing(b"".join(kinds[kind] for kind in helpful or kinds))
        raise IncompatibleVocabularyError(
            f"no value of {self.label} can be spelled with the vocabulary: it has no tokens for {missing!r}",
            missing_bytes=missing,
        )

    @property
    def initial_state(self) -> int:
        return self.start

    @property
    def nbytes(self) -> int:
        """Rough memory of this schema's own tables, states and masks."""
        return super().nbytes + self.config.nbytes + self._mask_bytes + 250 * len(self.state_config)

    @property
    def n_states(self) -> int:
        return len(self.state_config)

    def next_state(self, state: int, token_id: int) -> int:
        if state < FIRST_STATE:
            return FINISHED if state == FINISHED and token_id in self.eos else DEAD
        if token_id in self.eos:
            return FINISHED if self.accepting[state] else DEAD
        if not 0 <= token_id < self.size:
            return DEAD
        with self.lock:
            if state >= len(self.state_config):
                raise ValueError(f"{state} is not a state of this automaton")
            target = self._advance(state, token_id)
            if len(self.edges) >= _EDGES_KEPT:
                self.edges.clear()
            self.edges[state, token_id] = target
            return target

    def forced(self, state: int) -> bytes:
        """The bytes that must follow one after the other."""
        text = bytearray()
        with self.lock:
            config = self.config[self.state_config[state]].copy()
            records = self.state_records[state]
            while not self.is_end(config):
                live = self.live_bytes(config, records)
                if len(live) != 1:
                    break
                result = self.exactly(config, records, bytes(live))
                assert result is not None
                config, records = result
                text += bytes(live)
        return bytes(text)

    def completion(self, state: int) -> bytes:
        """A text with which the automaton accepts, from a live state: a shortest one, as far as `Closing` finds it."""
        with self.lock:
            config, records = self.config[self.state_config[state]].copy(), self.state_records[state]
            return deeply(lambda: self.closing.completion(config, records))

    def distance(self, state: int) -> int:
        """The fewest tokens that spell `completion`."""
        known = self._distances.get(state)
        if known is None:
            text = np.frombuffer(self.completion(state), dtype=np.uint8)
            known = int(kernel.fewest_tokens(self.trie.packed, text, self.size)) if len(text) else 0
            if len(self._distances) >= _EDGES_KEPT:
                self._distances.clear()
            self._distances[state] = known
        return known

    def closing_mask(self, state: int, budget: int, words: NDArray[np.uint32]) -> None:
        """The tokens of the mask after which `distance` is at most ``budget - 1``."""
        self.fill(state, words)
        if state < FIRST_STATE:
            return
        with self.lock:
            group, first = self._groups(state)
            # Tokens of a group differ at most in texts that must not be repeated: that costs a few characters more.
            margin = 4 if self.state_records[state] is not NO_RECORDS else 0
            near = np.zeros(len(first) + 1, dtype=np.bool_)
            for g, token_id in enumerate(first):
                near[g] = self.distance(self._advance(state, token_id)) + margin < budget
            if near[:-1].all():
                return
            allowed = near[group]
            if margin and budget > 0 and self.distance(state) <= budget:
                allowed |= self._on_the_way(state)
            bits = np.zeros(32 * self.n_words, dtype=np.uint8)
            bits[: self.size] = allowed
            words[: self.n_words] = np.packbits(bits, bitorder="little").view("<u4")
            self._add_duplicates(words[: self.n_words])
            if self.accepting[state]:
                self._add_eos(words[: self.n_words])

    def _on_the_way(self, state: int) -> NDArray[np.bool_]:
        """The token that the completion begins with, of those after which it gets nearer."""
        text, wanted = self.completion(state), self.distance(state) - 1
        found = np.zeros(self.size, dtype=np.bool_)
        for length in range(min(len(text), self.trie.max_depth), 0, -1):
            for token_id in self.vocabulary.get(text[:length]) or ():
                if self.distance(self._advance(state, token_id)) <= wanted:
                    found[token_id] = True
                    return found
        return found

    def groups_of(self, state: int, texts: TokenTable) -> tuple[NDArray[np.int32], list[int]]:
        """`_groups` of other texts than the vocabulary's."""
        own = self.trie, self.data, self.indptr, self.size, self._path
        self.trie, self.data, self.indptr, self.size = texts.trie, texts.data, texts.indptr, texts.size
        self._path = np.zeros((texts.trie.max_depth + 2, 5), dtype=np.int64)
        try:
            return self._groups(state)
        finally:
            self.trie, self.data, self.indptr, self.size, self._path = own

    def _groups(self, state: int) -> tuple[NDArray[np.int32], list[int]]:
        """Tokens by the configuration that they lead to: (size,) group, the last one for dead tokens; first members."""
        cells = 1 << 12
        while True:
            groups = np.full((cells, 6), -1, dtype=np.int64)
            cell = np.full(self.size, -1, dtype=np.int32)
            counter = np.zeros(1, dtype=np.int64)
            self._path[0] = self.config[self.state_config[state]]
            self.mem[kernel.M_GENERIC] = 1
            node = given = 0
            while True:
                status = int(
                    kernel.walk_groups(
                        self.mem, self.rows, self.trie.packed, self._path, node, given, groups, cell, counter
                    )
                )
                node = int(self.mem[kernel.M_NODE])
                if status == kernel.LIVE or node < 0:
                    break
                given = self._resolve(status, state, node)
            if status == kernel.LIVE:
                break
            cells *= 4
        used = np.flatnonzero(groups[:, 5] >= 0)
        number = np.full(cells + 1, len(used), dtype=np.int32)
        number[used] = np.arange(len(used))
        return number[cell], groups[used, 5].tolist()
