"""What a byte-level language model is: a state, a distribution over what comes next, and a new state for each byte."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["EOS", "EOT", "LazyByteProbs", "StatefulByteLM", "sample_dict"]

EOT = 256
"""In a distribution of one candidate: its token ends here."""
EOS = 257
"""The text ends here; `state << EOS` ends it."""

Key = int | None
"""0 .. 255: a byte.   None: EOT.   257: EOS."""


class LazyByteProbs:
    """What comes next: 256 bytes, EOT and EOS.

    Args:
        ps: (258,) log-probabilities (natural), or probabilities.
        log_space: which of the two.

    >>> p = LazyByteProbs(np.log(np.full(258, 1 / 258)))
    >>> round(p[97], 3) == round(p[None], 3) == round(p[EOS], 3) == -5.553
    True
    """

    __slots__ = ("log_space", "ps")

    def __init__(self, ps: NDArray[np.float64], log_space: bool = True) -> None:
        if len(ps) != 258:
            raise ValueError(f"a distribution over bytes, EOT and EOS has 258 entries, not {len(ps)}")
        self.ps, self.log_space = ps, log_space

    def __getitem__(self, key: Key) -> float:
        """Raises ValueError for what is no byte, None or 257."""
        k = EOT if key is None else operator.index(key)
        if not 0 <= k < 258 or (k == EOT and key is not None):
            raise ValueError(f"neither a byte, nor None (end of token), nor 257 (end of text): {key}")
        return float(self.ps[k])

    def materialize(self) -> dict[Key, float]:
        """By key: 0 .. 255, None, 257."""
        return dict(zip([*range(256), None, EOS], self.ps.tolist(), strict=True))

    def pretty(self) -> dict[str, float]:
        """By name: ``"b'a'"``, ``"EOT"``, ``"EOS"``."""
        names = [*(repr(bytes([b])) for b in range(256)), "EOT", "EOS"]
        return dict(zip(names, self.ps.tolist(), strict=True))

    def top(self, n: int) -> list[tuple[Key, float]]:
        """The n most probable, best first; what is impossible is left out."""
        best = np.argsort(-self.ps, kind="stable")[:n].tolist()
        nothing = -math.inf if self.log_space else 0.0
        return [(None if k == EOT else k, float(self.ps[k])) for k in best if self.ps[k] > nothing]

    def __repr__(self) -> str:
        shown = ", ".join(f"{_named(key)}: {p:.4f}" for key, p in self.top(5))
        return f"{type(self).__name__}({shown}, ...)"


def _named(key: Key) -> str:
    return "EOT" if key is None else "EOS" if key == EOS else repr(bytes([key]))


def sample_dict(weights: Mapping[Any, float], rng: np.random.Generator | None = None) -> Any:
    """A key, drawn in proportion to its weight.

    Args:
        rng: without one the draw cannot be repeated.

    Raises:
        ValueError: a weight is negative or not finite, or all are zero.
    """
    sums = np.cumsum(np.fromiter(weights.values(), dtype=np.float64, count=len(weights)))
    if not len(sums) or not 0 < sums[-1] < math.inf or min(weights.values()) < 0:
        raise ValueError("nothing to draw from: weights must be finite, not negative, and not all zero")
    at = float((np.random.default_rng() if rng is None else rng).random() * sums[-1])
    k = min(int(sums.searchsorted(at, side="right")), int(sums.searchsorted(sums[-1])))
    return list(weights)[k]


class StatefulByteLM(ABC):
    """A position in a text of bytes.  States are values: none of these methods changes one."""

    @abstractmethod
    async def __lshift__(self, b: int) -> Self:
        """The state after byte `b`, or after the end of the text (257).  Call it as ``await (state << b)``."""

    @abstractmethod
    def prune(self) -> Self:
        """The same position with less to compute."""

    @abstractmethod
    async def logp_next(self) -> LazyByteProbs:
        """Log-probabilities of the next byte and of the end."""

    @abstractmethod
    async def prefill(self, bs: bytes) -> Self:
        """The state after `bs`, in which tokens that would end the text are text."""

    async def cleanup(self) -> None:
        """Release what the state holds.  Nothing, unless a subclass says so."""
        return

    async def greedy(self, context: bytes, steps: int, *, seed: int | None = None) -> bytes:
        """`context` and the likeliest bytes after it, until the end of the text or for `steps` bytes.

        Args:
            context: appended to what this state has seen already.
            seed: draw among equally likely bytes; without it the lowest is taken.
        """
        rng = None if seed is None else np.random.default_rng(seed)

        def best(state: LazyByteProbs) -> int:
            found = np.flatnonzero(state.ps == state.ps.max())
            return int(found[0] if rng is None else rng.choice(found))

        return await self._generate(context, steps, best)

    async def sample(
        self,
        context: bytes,
        steps: int,
        draw: Callable[[dict[Key, float]], Key] = sample_dict,
        *,
        seed: int | None = None,
    ) -> bytes:
        """`context` and bytes drawn one by one after it, until the end of the text or for `steps` bytes.

        Args:
            draw: chooses from {byte, or 257 for the end: probability}.
            seed: equal seeds give equal texts; for the default `draw`, another one has its own randomness.
        """
        if seed is not None and draw is not sample_dict:
            raise ValueError("seed= is for the default draw: give your own function its own random generator")
        rng = np.random.default_rng(seed)

        def drawn(probs: LazyByteProbs) -> int:
            chart: dict[Key, float] = {
                k: math.exp(p) for k, p in probs.materialize().items() if k is not None and p > -math.inf
            }
            key = sample_dict(chart, rng) if draw is sample_dict else draw(chart)
            if key is None or key not in chart:
                raise ValueError(f"draw chose {key!r}, which has no probability here")
            return int(key)

        return await self._generate(context, steps, drawn)

    async def _generate(self, context: bytes, steps: int, choose: Callable[[LazyByteProbs], int]) -> bytes:
        text = bytearray(context)
        state = await self.prefill(context)
        for step in range(steps):
            symbol = choose(await state.logp_next())
            if symbol == EOS:
                break
            text.append(symbol)
            if step + 1 < steps:
                state = await (state.prune() << symbol)
        return bytes(text)
