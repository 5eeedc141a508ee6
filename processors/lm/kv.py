"""Which slot of a KV pool holds the keys and values of which token of which prefix.

A pool is a row of slots, one per token. A trie over token ids says which slot belongs to a prefix's last token, so
prefixes that begin alike share their slots, and a prefix longer by one token needs one slot more. When the pool is
full, the slots that were used longest ago go.

                 "the" 1 ── "cat" 2 ── "sat" 4         the prefix the-cat-ran lies in slots 1, 2, 5
                                   └── "ran" 5

A walk stamps its whole path with the time. A node is therefore never younger than its parent, and slots sorted by
(stamp, deepest first) can be dropped from the front: no node goes before its children.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["KVTrie", "Node", "Path"]


NOTHING = np.zeros(0, dtype=np.int64)
"""The slots of no token."""


class Node:
    """One token of a prefix; the root has slot 0, which no token ever gets."""

    __slots__ = ("children", "parent", "slot", "token")

    def __init__(self, parent: Node | None, token: int, slot: int) -> None:
        self.parent, self.token, self.slot = parent, token, slot
        self.children: dict[int, Node] = {}


class Path(NamedTuple):
    """A prefix that is held: its last node, and the slots of all its tokens."""

    node: Node
    slots: NDArray[np.int64]


class KVTrie:
    """Slots 1 .. capacity of a pool, by prefix; slot 0 is for padding.

    Args:
        capacity: number of tokens that may be held.

    Attributes:
        top: one more than the largest slot ever given out: how far the pool must reach.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.clear()

    def clear(self) -> None:
        """Forget every prefix."""
        self._roots: dict[str | None, Node] = {}
        self._ends: dict[tuple[str | None, tuple[int, ...]], Path] = {}
        self._ends_before = self._ends
        self._nodes: list[Node | None] = [None]
        self._free: list[int] = []
        self._stamp = np.zeros(64, dtype=np.int64)
        self._depth = np.zeros(64, dtype=np.int64)
        self._now = 0

    @property
    def top(self) -> int:
        return len(self._nodes)

    def __len__(self) -> int:
        """Number of tokens held."""
        return len(self._nodes) - 1 - len(self._free)

    def tick(self) -> None:
        """Begin a batch: what is walked from now on is not evicted until the next tick."""
        self._now += 1
        self._ends, self._ends_before = {}, self._ends

    def walk(self, prefix: tuple[int, ...], lora: str | None = None, path: Path | None = None) -> Path:
        """The longest beginning of `prefix` that is held, stamped as used now.

        Args:
            path: what an earlier walk since the last tick found; only what lies behind it is looked for.

        Cost: O(1) steps in Python behind a path of this batch or the one before, else O(length).
        """
        node, slots = path or self._known(prefix, lora)
        further = []
        for token in prefix[len(slots) :]:
            child = node.children.get(token)
            if child is None:
                break
            node = child
            further.append(node.slot)
        if further:
            slots = np.concatenate([slots, further])
        if further or path is None:
            self._stamp[slots] = self._now
        return Path(node, slots)

    def _known(self, prefix: tuple[int, ...], lora: str | None) -> Path:
        """Where a walk may begin: behind all tokens but one, if a batch has just ended there; else at the root."""
        for ends in (self._ends, self._ends_before):
            path = ends.get((lora, prefix[:-1]))
            if path is not None and self._nodes[path.node.slot] is path.node:
                return path
        return Path(self._roots.setdefault(lora, Node(None, -1, 0)), NOTHING)

    def extend(self, path: Path, prefix: tuple[int, ...], lora: str | None = None) -> tuple[Path, list[Node]] | None:
        """New nodes for what `prefix` has behind a path that was walked since the last tick.

        Returns:
            The whole path and the nodes; None, and nothing is changed but evictions, if there is no room without those
            of this tick.
        """
        tokens = prefix[len(path.slots) :]
        if not self._make_room(len(tokens)):
            return None
        node, depth = path.node, len(path.slots)
        added: list[Node] = []
        for token in tokens:
            child = Node(node, token, self._take())
            node.children[token] = child
            depth += 1
            self._nodes[child.slot] = child
            self._stamp[child.slot], self._depth[child.slot] = self._now, depth
            added.append(child)
            node = child
        if added:
            path = Path(node, np.concatenate([path.slots, [child.slot for child in added]]))
        self._ends[lora, prefix] = path
        return path, added

    def forget(self, nodes: Sequence[Node]) -> None:
        """Drop nodes, each of which comes behind its parent in `nodes` or stays a child of a node that is kept."""
        for node in reversed(nodes):
            self._drop(node)

    def forget_lora(self, lora: str | None) -> None:
        """Drop every prefix of an adapter."""
        root = self._roots.pop(lora, None)
        todo = list(root.children.values()) if root else []
        while todo:
            node = todo.pop()
            todo.extend(node.children.values())
            self._drop(node)

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        self._nodes.append(None)
        if len(self._nodes) > len(self._stamp):
            self._stamp = np.concatenate([self._stamp, np.zeros_like(self._stamp)])
            self._depth = np.concatenate([self._depth, np.zeros_like(self._depth)])
        return len(self._nodes) - 1

    def _drop(self, node: Node) -> None:
        parent = node.parent
        if parent is not None and parent.children.get(node.token) is node:
            del parent.children[node.token]
        self._nodes[node.slot] = None
        self._free.append(node.slot)

    def _make_room(self, n: int) -> bool:
        missing = len(self) + n - self.capacity
        if missing <= 0:
            return True
        held = np.array([node.slot for node in self._nodes if node is not None], dtype=np.int64)
        old = held[self._stamp[held] < self._now]
        if len(old) < missing:
            return False
        n_dropped = min(len(old), max(missing, self.capacity // 8))  # an eighth at once: sorting pays for itself
        order = np.lexsort((-self._depth[old], self._stamp[old]))
        for slot in old[order[:n_dropped]].tolist():
            node = self._nodes[slot]
            if node is not None:
                self._drop(node)
        return True
