"""A language model's position in a text of tokens, as a value: shifting makes a new one."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processors.lm.causal import CachedCausalLM

__all__ = ["StatefulTokenizedLM"]


class StatefulTokenizedLM:
    """Token ids and the model that continues them.  Never changes but for `n_calls`.

    Args:
        model: the language model.
        context: ids so far.
        n_calls: how often `logp_next` was asked for, in this state and those that it came from.
        max_context_length: the model is shown so many ids at most; default all. What goes first is the oldest, but for
            a BOS token at the beginning, which stays as long as there is room for another id.
        lora: name of an adapter; default the model's own setting.

    >>> from outlines_core import Vocabulary
    >>> from processors.lm import MockBackend
    >>> model = CachedCausalLM(MockBackend(4), None, Vocabulary(3, {"a": [0], "b": [1]}))
    >>> state = StatefulTokenizedLM.initial(model, [0])
    >>> (state << 1 << 1).context, state.context
    ([0, 1, 1], [0])
    """

    __slots__ = ("_ids", "lora", "max_context_length", "model", "n_calls")

    def __init__(
        self,
        model: CachedCausalLM,
        context: Iterable[int],
        n_calls: int = 0,
        max_context_length: int | None = None,
        *,
        lora: str | None = None,
    ) -> None:
        if max_context_length is not None and max_context_length < 1:
            raise ValueError(f"max_context_length must be at least 1, not {max_context_length}")
        self.model, self.n_calls, self.max_context_length, self.lora = model, n_calls, max_context_length, lora
        self._ids = self._trimmed(tuple(map(operator.index, context)))

    @classmethod
    def initial(
        cls,
        model: CachedCausalLM,
        initial_context: Iterable[int] | None = None,
        max_context_length: int | None = None,
        *,
        lora: str | None = None,
    ) -> StatefulTokenizedLM:
        """The state before any text: after BOS, unless another context is given.

        Raises:
            ValueError: the tokenizer has no BOS token, and no context is given.
        """
        if initial_context is None:
            bos = getattr(model.tokenizer, "bos_token_id", None)
            if bos is None:
                raise ValueError(
                    "the tokenizer has no BOS token to begin with: give initial_context=, the ids that stand before "
                    "the text (many models without BOS are trained to begin after their EOS token)"
                )
            initial_context = [bos]
        return cls(model, initial_context, 0, max_context_length, lora=lora)

    def _trimmed(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        limit = self.max_context_length
        if limit is None or len(ids) <= limit:
            return ids
        bos = getattr(self.model.tokenizer, "bos_token_id", None)
        kept = 1 if limit > 1 and ids[0] == bos else 0
        return ids[:kept] + ids[len(ids) - (limit - kept) :]

    @property
    def context(self) -> list[int]:
        """The ids that the model is shown; a copy."""
        return list(self._ids)

    def __lshift__(self, token: int) -> StatefulTokenizedLM:
        """The state after one more token."""
        child = object.__new__(type(self))
        child.model, child.n_calls, child.lora = self.model, self.n_calls, self.lora
        child.max_context_length = self.max_context_length
        child._ids = child._trimmed((*self._ids, operator.index(token)))
        return child

    async def logp_next(self) -> NDArray[np.float32]:
        """(n_logits,) log-probabilities of the next token, read-only."""
        self.n_calls += 1
        return await self.model.next_token_logprobs(self._ids, lora=self.lora)

    def __repr__(self) -> str:
        return "|".join(map(self._shown, self._ids))

    def _shown(self, token: int) -> str:
        names: list[Any] = self.model.byte_vocab
        text = names[token] if token < len(names) else b""
        return text.decode("utf-8", "backslashreplace").replace(" ", "␣") or f"<{token}>"
