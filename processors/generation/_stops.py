"""Stop strings: where the bytes of the tokens generated so far first complete one of them.

All strings are looked for at once, byte by byte, by the automaton of Aho and Corasick (1975, *Efficient string
matching*); the prompt does not count. A state is an int, so rows fork and roll back without ado.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

__all__ = ["StopStrings"]


class StopStrings:
    """The matcher of some stop strings: immutable but for what it remembers.

    >>> stops = StopStrings(["\\n\\n", "END"], lambda token_id: [b"a\\n", b"\\n", b"EN", b"D."][token_id])
    >>> stops.step(stops.step(0, 2)[0], 3)
    (5, 1)
    """

    def __init__(self, stops: Sequence[str | bytes], token_bytes: Callable[[int], bytes]) -> None:
        """Build the automaton.

        Args:
            stops: texts, none empty.
            token_bytes: what a token id adds to the text: `outlines_core.Vocabulary.token_bytes`; empty for special
                tokens, which are looked through.

        Raises:
            ValueError: an empty stop string.
        """
        self.stops = tuple(stop.encode() if isinstance(stop, str) else bytes(stop) for stop in stops)
        if not all(self.stops):
            raise ValueError("a stop string must not be empty: every text would end before its first token")
        self._token_bytes = token_bytes
        self._known: dict[tuple[int, int], tuple[int, int | None]] = {}
        self._children: list[dict[int, int]] = [{}]
        self._is_end = [False]
        for stop in self.stops:
            node = 0
            for byte in stop:
                if byte not in self._children[node]:
                    self._children[node][byte] = len(self._children)
                    self._children.append({})
                    self._is_end.append(False)
                node = self._children[node][byte]
            self._is_end[node] = True
        self._failure = self._failures()

    def _failures(self) -> list[int]:
        """For each node the longest proper suffix of it that is a node; a node whose suffix is an end is one too."""
        failure = [0] * len(self._children)
        queue = deque(self._children[0].values())
        while queue:
            node = queue.popleft()
            for byte, child in self._children[node].items():
                failure[child] = self._next(failure[node], byte, failure)
                self._is_end[child] |= self._is_end[failure[child]]
                queue.append(child)
        return failure

    def _next(self, node: int, byte: int, failure: list[int]) -> int:
        while node and byte not in self._children[node]:
            node = failure[node]
        return self._children[node].get(byte, 0)

    def step(self, state: int, token_id: int) -> tuple[int, int | None]:
        """Follow one token.

        Args:
            state: 0 before the first generated token, then what the last call returned.

        Returns:
            The state after the token (after the stop string, if one is complete), and how many bytes of the token
            belong to the text that ends with the first complete stop string; None if none is complete.
        """
        key = state, token_id
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._run(state, self._token_bytes(token_id))
        return known

    def _run(self, state: int, token: bytes) -> tuple[int, int | None]:
        for n, byte in enumerate(token, 1):
            state = self._next(state, byte, self._failure)
            if self._is_end[state]:
                return state, n
        return state, None
