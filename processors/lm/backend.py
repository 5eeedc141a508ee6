"""What computes log-probabilities: prefixes in, one row per prefix out.

A backend knows nothing of asyncio, of waiting or of duplicates: `CachedCausalLM` gathers the queries of all coroutines,
drops the duplicates, remembers rows, and asks for a list of prefixes. What a backend reuses between calls (KV blocks,
an engine's own prefix cache) is its own matter and never changes a result. Subclass `Backend` for another engine.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Backend", "MockBackend", "Row", "log_softmax"]

Row = NDArray[np.float32]
"""(n_logits,) log-probabilities of the next token, natural logarithms."""


def log_softmax(logits: NDArray[Any]) -> Row:
    """Normalised log-probabilities in float32, computed in float64.

    Raises:
        ValueError: no logit is finite.

    >>> np.exp(log_softmax(np.array([0.0, -np.inf, 0.0]))).tolist()
    [0.5, 0.0, 0.5]
    """
    wide = np.asarray(logits, dtype=np.float64)
    top = float(wide.max(initial=-np.inf))
    if not np.isfinite(top):
        raise ValueError("logits must have a finite maximum: there is no distribution over the next token")
    wide = wide - top
    row: Row = (wide - np.log(np.exp(wide).sum())).astype(np.float32)
    return row


class Backend(ABC):
    """A language model behind `CachedCausalLM`.

    Attributes:
        n_logits: width of the rows, which may exceed the tokenizer's number of ids (padded embeddings).
        max_length: the longest prefix that can be evaluated, or None.
        takes_empty: whether the empty prefix has a distribution.
    """

    n_logits: int
    max_length: int | None = None
    takes_empty: bool = False

    @abstractmethod
    def logprobs(self, prefixes: Sequence[tuple[int, ...]], lora: str | None = None) -> list[Row]:
        """One row per prefix, in order; each an array of its own.

        Args:
            prefixes: token ids, checked: not empty unless `takes_empty`, no id out of range, none too long. Distinct.
            lora: name of an adapter that was added, or None for the model as it is.
        """

    @abstractmethod
    def clear(self) -> None:
        """Forget what is kept between calls."""

    @property
    def nbytes(self) -> int:
        """Bytes kept between calls."""
        return 0

    @property
    def loras(self) -> frozenset[str]:
        """Names of the adapters that were added."""
        return frozenset()

    def add_lora(self, path: str, name: str) -> None:
        """Load the LoRA adapter at `path` under `name`.  Raises NotImplementedError where there is no such thing."""
        raise NotImplementedError(f"{type(self).__name__} has no LoRA adapters")

    def remove_lora(self, name: str) -> None:
        """Unload an adapter."""
        raise NotImplementedError(f"{type(self).__name__} has no LoRA adapters")


class MockBackend(Backend):
    """A language model without a model: every prefix has a distribution of its own, the same in every process.

    Args:
        n_logits: width of the rows.
        logits: (prefix) -> (n_logits,) logits, to say what the distributions are. Default: independent normal
            logits of scale 2, seeded by a digest of the prefix.
        seed: another model for each seed; only the default logits use it.

    Attributes:
        n_rows: rows computed so far, for tests of what is computed at all.

    >>> backend = MockBackend(5)
    >>> bool(np.isclose(np.exp(backend.logprobs([(1, 2)])[0]).sum(), 1))
    True
    """

    takes_empty = True

    def __init__(self, n_logits: int, logits: Callable[[tuple[int, ...]], Any] | None = None, *, seed: int = 0) -> None:
        self.n_logits, self.n_rows = n_logits, 0
        self._logits = logits or self._drawn
        self._seed = seed

    def _drawn(self, prefix: tuple[int, ...]) -> NDArray[np.float64]:
        digest = hashlib.sha256(repr((self._seed, [int(i) for i in prefix])).encode()).digest()
        return np.random.default_rng(np.frombuffer(digest, dtype="<u4")).normal(scale=2.0, size=self.n_logits)

    def logprobs(self, prefixes: Sequence[tuple[int, ...]], lora: str | None = None) -> list[Row]:
        if lora is not None:
            raise NotImplementedError(f"{type(self).__name__} has no LoRA adapters")
        self.n_rows += len(prefixes)
        return [log_softmax(self._logits(prefix)) for prefix in prefixes]

    def clear(self) -> None:
        """Nothing is kept."""
