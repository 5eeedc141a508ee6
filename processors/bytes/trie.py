"""`TokenByteTrie`: how much of a model's weight lies below each beginning of a token.

The text tokens are the nodes of the trie that masks are made with (`outlines_core.trie`), untouched and shared. Beside
it stand the few things that a byte model knows and a mask does not:

- *names*: a special token is text too, spelled by its name (a prompt may hold ``<|user|>``). Where the names leave the
  mask trie they get nodes of their own.
- *the end*: in the mode WITH_EOS, the tokens that end a text lie below `eos_node` and nowhere else; in WITHOUT_EOS
  (for prompts) they are text like any other.

Node ids: 0 .. n - 1 are those of the mask trie, then the nodes of names, atomic tokens, `eos_node`, and `root` last.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.cache import LruCache
from outlines_core.trie import TokenTrie
from outlines_core.vocabulary import Vocabulary
from processors.bytes.node_weights import NodeWeights
from processors.lm.causal import CachedCausalLM
from processors.lm.distribution import log_sum_exp

__all__ = ["Children", "TokenByteTrie", "TrieMode"]

_WIDE = 24_000
"""For spans of more tokens the whole row is exponentiated: numpy does that eight at a time."""
_NO_WEIGHTS = np.zeros(0, dtype=np.float32)


class TrieMode(StrEnum):
    """Where tokens that end a text stand."""

    WITH_EOS = "with_eos"
    WITHOUT_EOS = "without_eos"


class Children(NamedTuple):
    """Of one node, by byte: nodes, (256,) int32, -1 for none; log-masses, (256,) float64."""

    nodes: NDArray[np.int32]
    masses: NDArray[np.float64]


class _Tokens(NamedTuple):
    """The tokens that are text in one mode.

    order, first: of the mask trie, as `kernels.masses` has them.
    names: node -> (ids, next bytes) of the special tokens whose names go on below it.
    ending: node of a name -> the special tokens that end there.
    """

    order: NDArray[np.int32]
    first: NDArray[np.int32]
    names: dict[int, tuple[NDArray[np.int32], NDArray[np.uint8]]]
    ending: dict[int, tuple[int, ...]]


class TokenByteTrie:
    """Masses of a vocabulary's beginnings.  Immutable; `of` builds it once for a vocabulary.

    Args:
        vocabulary: which bytes the ids stand for; or the byte strings themselves, the position being the id.
        eos_token_ids: what ends a text; default the vocabulary's.
        eos_byte_strings: the same by bytes: every id that stands for one of these.
        atomic_byte_strings: tokens that are no text but symbols of their own: each a child of the root.
        special_tokens: whether special tokens are text, spelled by their names. Without, they weigh nothing.
        size: width of the rows of weights; ids beyond it weigh nothing.

    Attributes:
        n_nodes: number of nodes.   root, eos_node: two of them.   eos_token_ids: sorted.

    Raises:
        ValueError: an EOS or atomic byte string that no token has; an empty byte string among those given.
    """

    def __init__(
        self,
        vocabulary: Vocabulary | Sequence[bytes],
        *,
        eos_token_ids: Iterable[int] | None = None,
        eos_byte_strings: Iterable[bytes] | None = None,
        atomic_byte_strings: Iterable[bytes] = (),
        special_tokens: bool = True,
        size: int | None = None,
    ) -> None:
        if eos_token_ids is not None and eos_byte_strings is not None:
            raise TypeError("eos_token_ids and eos_byte_strings are two ways to say the same: give one")
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = _numbered(vocabulary)
            eos_token_ids = () if eos_token_ids is None else eos_token_ids
        table = vocabulary.table
        self.vocabulary, self.size = vocabulary, table.size if size is None else size
        self.text: TokenTrie = table.trie
        names = {name.encode(): i for name, i in vocabulary.special_tokens.items() if name}
        if eos_byte_strings is not None:
            eos_token_ids = self._found(eos_byte_strings, names, "EOS")
        elif eos_token_ids is None:
            eos_token_ids = vocabulary.eos_token_ids
        self.eos_token_ids = tuple(sorted(i for i in set(eos_token_ids) if i < self.size))
        self.atomic_token_ids = tuple(sorted(self._found(atomic_byte_strings, names, "atomic")))
        eos, apart = set(self.eos_token_ids), set(self.atomic_token_ids)
        named = {n: i for n, i in names.items() if i < self.size and i not in apart and (special_tokens or i in eos)}

        n = len(self.text.info)
        self._name_nodes: dict[tuple[int, int], int] = {}
        paths = {name: self._path(name, n) for name in named}
        first_atomic = n + len(self._name_nodes)
        self.atomic_nodes = {i: first_atomic + k for k, i in enumerate(self.atomic_token_ids)}
        self.eos_node = first_atomic + len(self.atomic_nodes)
        self.root = self.eos_node + 1
        self.n_nodes = self.root + 1
        self._paths = {named[name]: [self.root, *path] for name, path in paths.items()}
        self._modes = {
            TrieMode.WITHOUT_EOS: self._tokens(named, apart),
            TrieMode.WITH_EOS: self._tokens(named, apart | eos),
        }
        self._eos = self._ids(eos)
        spelling = {i: name for name, i in named.items()}
        texts = [(i, spelling.get(i) or vocabulary.token_bytes(i)) for i in self.eos_token_ids if i not in apart]
        starts = [(i, text[0]) for i, text in texts if text]
        self._eos_text = np.array([i for i, _ in starts], dtype=np.int32), np.array([b for _, b in starts], np.uint8)
        self._atomic = self._ids(apart)
        self._weights = {
            mode: NodeWeights(self.text, tokens.order, tokens.first, self._beside(mode), self.size, self.n_nodes)
            for mode, tokens in self._modes.items()
        }

    @classmethod
    def of(
        cls, lm: CachedCausalLM, eos_byte_strings: Iterable[bytes] | None = None, *, special_tokens: bool = True
    ) -> TokenByteTrie:
        """The trie of a model, for rows of its width.  Built at the first call for its vocabulary, then shared."""
        vocabulary = lm.vocabulary.snapshot()
        chosen = None if eos_byte_strings is None else tuple(sorted(set(eos_byte_strings)))
        special = tuple(sorted(vocabulary.special_tokens.items()))
        key = vocabulary.fingerprint, vocabulary.eos_token_ids, special, chosen, special_tokens, lm.n_logits
        with _building:
            found = _built.get(key)
            if found is None:
                found = cls(vocabulary, eos_byte_strings=chosen, special_tokens=special_tokens, size=lm.n_logits)
                _built.put(key, found)
            return found

    # -- building ------------------------------------------------------------------------------------------------------

    def _found(self, strings: Iterable[bytes], names: Mapping[bytes, int], what: str) -> list[int]:
        ids: list[int] = []
        for string in strings:
            here = [*(self.vocabulary.get(string) or ()), *([names[string]] if string in names else ())]
            if not here:
                raise ValueError(f"{what} byte string {bytes(string)!r} is no token of the vocabulary")
            ids += here
        return ids

    def _path(self, name: bytes, n: int) -> list[int]:
        """The nodes of a name; those that the mask trie lacks are made."""
        path: list[int] = []
        for byte in name:
            above = path[-1] if path else -1  # the root has no number yet
            node = self._text_child(above, byte) if above < n else -1
            if node < 0:
                node = self._name_nodes.setdefault((above, byte), n + len(self._name_nodes))
            path.append(node)
        return path

    def _text_child(self, node: int, byte: int) -> int:
        from outlines_core.kernels.masses import find_child

        begin, stop = self._below(node)
        child: int = find_child(self.text.info, self.text.end, begin, stop, byte)
        return child

    def _below(self, node: int) -> tuple[int, int]:
        """The mask trie's nodes below one of its nodes, or below the root (-1)."""
        return (node + 1, int(self.text.end[node])) if node >= 0 else (0, len(self.text.info))

    def _tokens(self, named: Mapping[bytes, int], left_out: set[int]) -> _Tokens:
        starts = self.text.token >= 0
        at = np.flatnonzero(starts)
        ids = self.text.token[at]
        if len(self.text.duplicates):
            node_of = dict(zip(ids.tolist(), at.tolist(), strict=True))
            more = self.text.duplicates[:, 1]
            ids = np.concatenate([ids, more])
            at = np.concatenate([at, [node_of[i] for i in self.text.duplicates[:, 0].tolist()]])
            order = np.argsort(at, kind="stable")
            ids, at = ids[order], at[order]
        kept = ids < self.size
        if left_out:
            kept &= ~np.isin(ids, list(left_out))
        ids, at = ids[kept].astype(np.int32), at[kept]
        first = np.zeros(len(starts) + 1, dtype=np.int32)
        np.cumsum(np.bincount(at, minlength=len(starts)), out=first[1:])
        for array in (ids, first):
            array.setflags(write=False)
        below: dict[int, list[tuple[int, int]]] = {}
        ending: dict[int, tuple[int, ...]] = {}
        for name, i in named.items():
            if i not in left_out:
                path = self._paths[i]
                for node, byte in zip(path, name, strict=False):  # the last node has nothing below it
                    below.setdefault(node, []).append((i, byte))
                ending[path[-1]] = (*ending.get(path[-1], ()), i)
        names = {
            node: (np.array([i for i, _ in pairs], dtype=np.int32), np.array([b for _, b in pairs], dtype=np.uint8))
            for node, pairs in below.items()
        }
        return _Tokens(ids, first, names, ending)

    def _beside(self, mode: TrieMode) -> NDArray[np.int64]:
        """(node, id) pairs for all weight that no token of the mask trie brings."""
        tokens = self._modes[mode]
        pairs = [(node, i) for node, (ids, _) in tokens.names.items() if node != self.root for i in ids.tolist()]
        pairs += [(node, i) for node, ids in tokens.ending.items() for i in ids]
        pairs += [(node, i) for i, node in self.atomic_nodes.items()]
        if mode is TrieMode.WITH_EOS:
            pairs += [(self.eos_node, i) for i in self.eos_token_ids]
        named = {i for ids in tokens.ending.values() for i in ids}
        at_root = {*named, *self.atomic_token_ids, *self.eos_token_ids} - set(tokens.order.tolist())
        pairs += [(self.root, i) for i in sorted(at_root)]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    @staticmethod
    def _ids(ids: Iterable[int]) -> NDArray[np.int32]:
        array = np.array(sorted(ids), dtype=np.int32)
        array.setflags(write=False)
        return array

    # -- one node, one row ---------------------------------------------------------------------------------------------

    def child(self, node: int, byte: int) -> int:
        """The node one byte below, or -1."""
        inside = -1 if node == self.root else node
        found = self._text_child(inside, byte) if inside < len(self.text.info) else -1
        return self._name_nodes.get((inside, byte), -1) if found < 0 else found

    def ending(self, node: int, mode: TrieMode) -> list[int]:
        """The tokens that end at a node: several, if they have the same bytes."""
        tokens = self._modes[mode]
        if node < len(self.text.info):
            here: list[int] = tokens.order[tokens.first[node] : tokens.first[node + 1]].tolist()
            here.extend(tokens.ending.get(node, ()))
            return here
        return list(tokens.ending.get(node, ()))

    def is_live(self, node: int, mode: TrieMode) -> bool:
        """Does a token begin like this?"""
        tokens = self._modes[mode]
        if node in tokens.names or node in tokens.ending:
            return True
        return node < len(self.text.info) and bool(tokens.first[self.text.end[node]] > tokens.first[node])

    def is_token(self, string: bytes) -> bool:
        """Is this the text of a token?"""
        return any(i < self.size for i in self.vocabulary.get(string) or ())

    def children(self, node: int, row: NDArray[np.float32], mode: TrieMode) -> Children:
        """The children of a node and their log-masses.

        Args:
            row: (size,) log-weights of the tokens.

        Cost: an exponential for each token below the node.
        """
        from outlines_core.kernels.masses import child_masses

        tokens, text = self._modes[mode], self.text
        inside = -1 if node == self.root else node
        found = Children(np.full(256, -1, dtype=np.int32), np.full(256, -np.inf))
        if inside < len(text.info):
            begin, stop = self._below(inside)
            wide = tokens.first[stop] - tokens.first[begin] > _WIDE
            linear = _exponentials(row) if wide else _NO_WEIGHTS
            child_masses(row, linear, text.info, text.end, tokens.first, tokens.order, begin, stop, *found)
        ids, following = tokens.names.get(node, (None, None))
        if ids is not None and following is not None:
            np.logaddexp.at(found.masses, following, row[ids])
            for byte in set(following.tolist()):
                if found.nodes[byte] < 0:
                    found.nodes[byte] = self._name_nodes[inside, byte]
        return found

    def step(self, node: int, byte: int, row: NDArray[np.float32], mode: TrieMode) -> tuple[int, float]:
        """One child, or -1, and its log-mass.  Cost: an exponential for each token below the child."""
        from outlines_core.kernels.masses import step_down

        tokens, text = self._modes[mode], self.text
        if node in tokens.names or node >= len(text.info):  # the root is the last node
            nodes, masses = self.children(node, row, mode)
            return int(nodes[byte]), float(masses[byte])
        begin, stop = self._below(node)
        found: tuple[int, float] = step_down(row, text.info, text.end, tokens.first, tokens.order, begin, stop, byte)
        return found

    def log_mass(self, node: int, row: NDArray[np.float32], mode: TrieMode) -> float:
        """The log-mass of one node.  Cost: an exponential for each token below it."""
        tokens, beside = self._modes[mode], self.ending(node, mode)
        spans = [row[tokens.names[node][0]]] if node in tokens.names else []
        if node < len(self.text.info):
            spans.append(row[tokens.order[tokens.first[node] : tokens.first[self.text.end[node]]]])
            beside = list(tokens.ending.get(node, ()))
        return log_sum_exp(np.concatenate([*spans, row[beside]]).astype(np.float64))

    def log_eos(self, row: NDArray[np.float32]) -> float:
        """The log-mass of the end of the text."""
        return log_sum_exp(row[self._eos].astype(np.float64))

    def with_eos_as_text(self, at_root: Children, row: NDArray[np.float32]) -> Children:
        """The root's children in the mode WITHOUT_EOS, given those in WITH_EOS."""
        ids, first = self._eos_text
        nodes, masses = at_root.nodes.copy(), at_root.masses.copy()
        np.logaddexp.at(masses, first, row[ids])
        for byte in set(first.tolist()):
            nodes[byte] = self.child(self.root, byte)
        return Children(nodes, masses)

    def log_total(self, at_root: Children, row: NDArray[np.float32]) -> float:
        """The log-mass of the root, given its children in the mode WITH_EOS."""
        return log_sum_exp(np.concatenate([at_root.masses, row[self._eos], row[self._atomic]]))

    # -- all nodes, many rows ------------------------------------------------------------------------------------------

    def weight_sum(self, ws: Any, mode: TrieMode | None = None) -> Any:
        """(n_nodes,) for each node the sum of the weights of the tokens below it.

        Args:
            ws: (n,) a weight for each id, not logarithms. More than `size` are ignored, missing ones are 0. A numpy
                array or a list gives a numpy array (float32 stays float32, all else is float64); a torch tensor gives
                a tensor on its device.
            mode: default WITHOUT_EOS. In WITH_EOS, `eos_node` and the root alone have the weights of the EOS tokens.

        Cost: one pass over the nodes; on a GPU a sum over segments, one for each node.
        """
        return self.batch_weight_sum([ws] if isinstance(ws, (list, tuple)) else ws[None], mode)[0]

    def batch_weight_sum(self, ws: Any, mode: TrieMode | None = None) -> Any:
        """(n_rows, n_nodes) `weight_sum` of each row of a matrix, or of a list of rows."""
        return self._weights[TrieMode(mode or TrieMode.WITHOUT_EOS)].reduced(ws, "sum")

    def weight_max(self, ws: Any, mode: TrieMode | None = None) -> Any:
        """(n_nodes,) the largest weight below each node, -inf where there is none.  Weights may be logarithms."""
        return self.batch_weight_max([ws] if isinstance(ws, (list, tuple)) else ws[None], mode)[0]

    def batch_weight_max(self, ws: Any, mode: TrieMode | None = None) -> Any:
        """(n_rows, n_nodes) `weight_max` of each row."""
        return self._weights[TrieMode(mode or TrieMode.WITHOUT_EOS)].reduced(ws, "max")

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, without those of the mask trie."""
        return sum(array.nbytes for mode in self._modes.values() for array in (mode.order, mode.first))


_built: LruCache[TokenByteTrie] = LruCache(2**26, lambda trie: trie.nbytes)
_building = threading.Lock()


_scratch = threading.local()


def _exponentials(row: NDArray[np.float32]) -> NDArray[np.float32]:
    """``exp(row)``, in an array that the next call on this thread overwrites: fresh pages cost as much as the work."""
    buffer: NDArray[np.float32] | None = getattr(_scratch, "buffer", None)
    if buffer is None or len(buffer) < len(row):
        buffer = _scratch.buffer = np.empty(len(row), dtype=np.float32)
    return np.exp(row, out=buffer[: len(row)])


def _numbered(tokens: Sequence[bytes]) -> Vocabulary:
    """A vocabulary in which the position of a byte string is its id; its EOS id lies beyond them."""
    ids: dict[bytes, list[int]] = {}
    for i, token in enumerate(tokens):
        if not token:
            raise ValueError(f"byte string {i} is empty")
        ids.setdefault(bytes(token), []).append(i)
    return Vocabulary(len(tokens), ids)
