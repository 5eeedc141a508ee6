"""What a regex AST means, written to be read: the reference that parsers, rewrites and engines are tested against.

`ends` lists where a node can stop when it starts at a position, *in priority order* and each position once.  The order
is what a backtracking engine would try, so `Atomic` is simply "the first of them"; everything else only needs the set.
A repetition tries one more round before (greedy) or after (lazy) stopping, and a round that consumed nothing is the
last one, unless the minimum asks for more.
"""

from __future__ import annotations

from outlines_core.regex.ast import (
    Alternation,
    Atomic,
    Begin,
    CharSet,
    Complement,
    Concat,
    Empty,
    End,
    Intersection,
    Literal,
    Look,
    Node,
    Repeat,
)

__all__ = ["ends", "matches"]


def matches(node: Node, text: str) -> bool:
    """Is the whole of `text` in the language of `node`?"""
    return len(text) in ends(node, text, 0)


def ends(node: Node, text: str, start: int) -> list[int]:
    """Where `node` can end in `text` if it starts at `start`, most preferred first."""
    return _Matcher(text).ends(node, start)


class _Matcher:
    def __init__(self, text: str) -> None:
        self.text = text
        self.memo: dict[tuple[int, int], list[int]] = {}
        self.rounds: dict[tuple[int, int, int], list[int]] = {}

    def ends(self, node: Node, start: int) -> list[int]:
        key = (id(node), start)  # the caller keeps the tree alive
        if key not in self.memo:
            self.memo[key] = list(dict.fromkeys(self._ends(node, start)))
        return self.memo[key]

    def _ends(self, node: Node, start: int) -> list[int]:
        text = self.text
        match node:
            case Empty():
                return [start]
            case Literal(text=word):
                return [start + len(word)] if text.startswith(word, start) else []
            case CharSet(ranges=ranges):
                inside = start < len(text) and any(low <= ord(text[start]) <= high for low, high in ranges)
                return [start + 1] if inside else []
            case Concat(items=items):
                reached = [start]
                for item in items:
                    reached = list(dict.fromkeys(end for at in reached for end in self.ends(item, at)))
                return reached
            case Alternation(items=items):
                return [end for item in items for end in self.ends(item, start)]
            case Repeat():
                return self._repeat(node, start, 0)
            case Atomic(item=item):
                return self.ends(item, start)[:1]
            case Look(item=item, ahead=ahead, negative=negative):
                if ahead:
                    found = bool(self.ends(item, start))
                else:
                    found = any(start in self.ends(item, at) for at in range(start + 1))
                return [start] if found != negative else []
            case Begin():
                return [start] if start == 0 else []
            case End():
                return [start] if start == len(text) else []
            case Intersection(items=items):
                common = [set(self.ends(item, start)) for item in items]
                return [end for end in range(start, len(text) + 1) if all(end in found for found in common)]
            case Complement(item=item):
                return [end for end in range(start, len(text) + 1) if end not in self.ends(item, start)]

    def _repeat(self, node: Repeat, at: int, done: int) -> list[int]:
        if node.max is None:
            done = min(done, node.min)  # more rounds make no difference
        key = (id(node), at, done)
        if key not in self.rounds:
            more: list[int] = []
            if node.max is None or done < node.max:
                for end in self.ends(node.item, at):
                    last_round = end == at and done >= node.min
                    more += [at] if last_round else self._repeat(node, end, done + 1)
            stop = [at] if done >= node.min else []
            self.rounds[key] = list(dict.fromkeys(more + stop if node.mode == "greedy" else stop + more))
        return self.rounds[key]
