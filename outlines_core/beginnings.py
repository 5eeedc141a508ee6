"""What the tokens of a vocabulary begin with, as vocabularies: to ask an automaton where tokens pass through.

A beginning that an automaton allows is a node of the vocabulary's trie that it comes to, and there are few of those
that matter: they end, or go on, with some bytes only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outlines_core.cache import LruCache
from outlines_core.vocabulary import TokenTable, Vocabulary

__all__ = ["texts_before", "texts_of", "texts_with"]

_beginnings: LruCache[tuple[Vocabulary, NDArray[np.int64]]] = LruCache(
    128 * 2**20, lambda one: 8 * one[0].table.data.nbytes + 30 * one[1].nbytes
)


def texts_before(
    vocabulary: Vocabulary, first: tuple[bytes, ...], codes: tuple[bytes, ...]
) -> tuple[Vocabulary, NDArray[np.int64]]:
    """A vocabulary with further tokens: what tokens begin with before a byte of ``first[k]``, followed by ``codes[k]``.

    Returns:
        The vocabulary, and by further token the node of what it begins with, and k.
    """
    table = vocabulary.table
    key = ("before", table.fingerprint, first, codes)
    known = _beginnings.get(key)
    if known is None:
        trie = table.trie
        texts: list[bytes] = []
        rows: list[tuple[int, int]] = []
        for k, (some, code) in enumerate(zip(first, codes, strict=True)):
            children = np.flatnonzero(np.isin(trie.info & 255, list(some)) & (trie.info >> 8 >= 2))
            for node in _parents(trie.info, children).tolist():
                texts.append(_text(table, node) + code)
                rows.append((node, k))
        known = vocabulary.snapshot(), np.array(rows, dtype=np.int64).reshape(-1, 2)
        known[0]._table = table.changed(dict(enumerate(texts, start=table.size)))
        _beginnings.put(key, known)
    return known


def texts_with(table: TokenTable, last: bytes) -> tuple[Vocabulary, NDArray[np.int64]]:
    """What tokens begin with, not all of them, and that ends with one of some bytes, as tokens; and their nodes."""
    key = ("with", table.fingerprint, last)
    known = _beginnings.get(key)
    if known is None:
        trie = table.trie
        inner = trie.end > np.arange(1, len(trie.end) + 1)
        nodes = np.flatnonzero(np.isin(trie.info & 255, list(last)) & inner)
        texts = {_text(table, node): (k,) for k, node in enumerate(nodes.tolist())}
        known = Vocabulary(len(texts), texts), nodes.astype(np.int64)
        _beginnings.put(key, known)
    return known


def texts_of(table: TokenTable, alphabet: bytes) -> tuple[Vocabulary, NDArray[np.int64]]:
    """What tokens begin with, not all of them, and that consists of some bytes, as tokens; and their nodes."""
    key = ("of", table.fingerprint, alphabet)
    known = _beginnings.get(key)
    if known is None:
        info, end = table.trie.info, table.trie.end
        nodes: list[int] = []
        node = 0
        while node < len(info):
            if int(info[node]) & 255 not in alphabet:
                node = int(end[node])
                continue
            if end[node] > node + 1:
                nodes.append(node)
            node += 1
        texts = {_text(table, node): (k,) for k, node in enumerate(nodes)}
        known = Vocabulary(len(texts), texts), np.array(nodes, dtype=np.int64)
        _beginnings.put(key, known)
    return known


def _parents(info: NDArray[np.int32], nodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The nodes above some, each once: the last one before it that is one level higher."""
    depth = info >> 8
    found: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    for level in np.unique(depth[nodes]).tolist():
        above = np.flatnonzero(depth == level - 1)
        found.append(above[np.searchsorted(above, nodes[depth[nodes] == level]) - 1])
    return np.unique(np.concatenate(found))


def _text(table: TokenTable, node: int) -> bytes:
    """The bytes on the way to a node."""
    trie = table.trie
    below = node + int(np.argmax(trie.token[node : trie.end[node]] >= 0))
    start = int(table.indptr[trie.token[below]])
    return table.data[start : start + (int(trie.info[node]) >> 8)].tobytes()
