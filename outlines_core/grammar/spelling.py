"""What a vocabulary can spell: its tokens, one after the other, as an automaton over classes of bytes.

Where a vocabulary lacks bytes, a text that would complete another one may have no tokens. Whether some text has is
asked in the same way as whether there is one at all, by a fixpoint over the grammar's symbols, but for texts that this
automaton reads as well: its nodes are part of the lexemes and of the boundaries between them (`grammar.worlds`,
`grammar.earley`). It has one node, 0, between two tokens, and others within one, as far as the rest of the tokens makes
a difference in terms of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BETWEEN", "Spelling"]

BETWEEN: Final = 0
"""The node between two tokens."""


class Spelling:
    """The automaton of a vocabulary.

    Args:
        trie: (info, end, token) of the tokens, see `trie.TokenTrie`.
        class_of: by byte its class.

    Cost: O(nodes of the trie).
    """

    def __init__(self, trie: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], class_of: Sequence[int]) -> None:
        info, _, token = trie
        depths = (info >> 8).tolist()
        classes = np.array(class_of)[info & 255].tolist()
        ends = (token >= 0).tolist()
        parents = []
        path = [-1]
        for node, depth in enumerate(depths):
            del path[depth:]
            parents.append(path[-1])
            path.append(node)
        # what may come behind each node: (class, node behind it or -1, does a token end there?)
        behind: list[set[tuple[int, int, bool]]] = [set() for _ in range(len(depths) + 1)]
        numbers: dict[frozenset[tuple[int, int, bool]], int] = {}
        for node in range(len(depths) - 1, -1, -1):
            content = frozenset(behind[node])
            number = numbers.setdefault(content, len(numbers) + 1) if content else -1
            behind[parents[node]].add((classes[node], number, ends[node]))
            behind[node] = set()
        self._after: list[dict[int, tuple[int, ...]]] = []
        for content in (frozenset(behind[-1]), *numbers):
            steps: dict[int, set[int]] = {}
            for klass, number, ends_here in content:
                found = steps.setdefault(klass, set())
                if number >= 0:
                    found.add(number)
                if ends_here:
                    found.add(BETWEEN)
            self._after.append({klass: tuple(sorted(found)) for klass, found in steps.items()})

    def after(self, node: int, klass: int) -> tuple[int, ...]:
        """The nodes behind a byte of a class."""
        return self._after[node].get(klass, ())
