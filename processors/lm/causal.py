"""`CachedCausalLM`: what a language model says next, asked by many coroutines at once.

Between a coroutine and the backend stand three things: a bounded memory of rows that were computed, a queue that
makes one batch of what all coroutines ask (`processors.lm.batching`), and a check of the ids. The backend keeps keys
and values by itself (`processors.lm.hf`), so a prefix that grew by one token costs one token.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.vocabulary import Vocabulary
from processors.lm.backend import Backend, MockBackend, Row
from processors.lm.batching import AutoBatcher
from processors.lm.masks import Masks
from processors.tokenizers import vocabulary_from

__all__ = ["CachedCausalLM"]

Query = tuple[str | None, tuple[int, ...]]
"""An adapter's name or None, and token ids."""


class CachedCausalLM:
    """A causal language model that remembers, and answers coroutines in batches.

    Args:
        backend: what computes (`processors.lm.backend.Backend`).
        tokenizer: with `encode` and `decode`; of a kind that `vocabulary_from` knows, unless `vocabulary` is given.
        vocabulary: which bytes the ids stand for; default `vocabulary_from(tokenizer)`.
        eos_token_ids: the ids that end a text, if the tokenizer does not say.
        batch_size: so many distinct queries are answered at once without waiting for more.
        timeout: seconds after which a batch is computed although further queries keep coming in. Nothing waits for it:
            a batch is computed as soon as no coroutine can ask any more.
        row_bytes: bound of the rows that are remembered, least recently used first to go.

    Attributes:
        lora: name of the adapter that queries use by default; `set_lora` sets it.

    Rows are float32 log-probabilities, read-only, of width `n_logits`. Safe for any number of coroutines, event
    loops and threads. A copy (also a deep one) is the object itself.

    >>> lm = CachedCausalLM(MockBackend(4), None, Vocabulary(3, {"a": [0], "b": [1], "ab": [2]}))
    >>> row = asyncio.run(lm.next_token_logprobs([0, 1]))
    >>> row is lm.next_token_logprobs_unbatched([0, 1])
    True
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Any,
        vocabulary: Vocabulary | None = None,
        *,
        eos_token_ids: int | Sequence[int] | None = None,
        batch_size: int = 64,
        timeout: float = 1.0,
        row_bytes: int = 2**28,
    ) -> None:
        self.backend, self.tokenizer = backend, tokenizer
        self.vocabulary = vocabulary_from(tokenizer if vocabulary is None else vocabulary, eos_token_ids=eos_token_ids)
        self.lora: str | None = None
        self.row_bytes = row_bytes
        self._known: OrderedDict[Query, Row] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._batcher: AutoBatcher[Query, Row] = AutoBatcher(self._answer, batch_size, timeout)

    @classmethod
    def from_pretrained(
        cls,
        model: Any,
        tokenizer: Any = None,
        *,
        backend: str = "transformers",
        kv_bytes: int = 2**30,
        max_length: int | None = None,
        eos_token_ids: int | Sequence[int] | None = None,
        batch_size: int = 64,
        timeout: float = 1.0,
        row_bytes: int = 2**28,
        **model_options: Any,
    ) -> CachedCausalLM:
        """A model of `transformers`, by name, by directory or as an object.

        Args:
            model: a name on the hub, a directory, or a causal language model in eval mode.
            tokenizer: by default that of the same name or directory.
            backend: ``"transformers"`` (or ``"hf"``), or ``"mock"``: the tokenizer's vocabulary and a deterministic
                distribution for each prefix, no model.
            kv_bytes: bound of the keys and values that are kept (`TransformersBackend`).
            max_length: the longest prefix; default what the model's configuration says.
            model_options: for ``AutoModelForCausalLM.from_pretrained``, such as ``dtype`` and ``device_map``.

        Raises:
            ValueError: an unknown backend; options for a model that is there already.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if tokenizer is None:
            name = model if isinstance(model, str) else model.name_or_path
            tokenizer = AutoTokenizer.from_pretrained(name)
        options: dict[str, Any] = {"eos_token_ids": eos_token_ids, "batch_size": batch_size}
        options |= {"timeout": timeout, "row_bytes": row_bytes}
        if backend == "mock":
            vocabulary = vocabulary_from(tokenizer, eos_token_ids=eos_token_ids)
            return cls(MockBackend(vocabulary.size), tokenizer, vocabulary, **options)
        if backend not in ("transformers", "hf"):
            raise ValueError(f"backend must be 'transformers', 'hf' or 'mock', not {backend!r}")
        if isinstance(model, str):
            model = AutoModelForCausalLM.from_pretrained(model, **model_options)
        elif model_options:
            raise ValueError(f"options for loading a model that is loaded: {sorted(model_options)}")
        from processors.lm.hf import TransformersBackend

        return cls(TransformersBackend(model, kv_bytes=kv_bytes, max_length=max_length), tokenizer, **options)

    def __copy__(self) -> CachedCausalLM:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> CachedCausalLM:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.backend).__name__}, n_logits={self.n_logits})"

    # -- the next token ------------------------------------------------------------------------------------------------

    async def next_token_logprobs(self, token_ids: Iterable[int], *, lora: str | None = None) -> Row:
        """(n_logits,) log-probabilities after `token_ids`, computed together with what other coroutines ask for.

        Args:
            lora: an adapter for this query; default `self.lora`.

        Raises:
            ValueError: no ids, or an id that the model does not have.
            LimitExceededError: more ids than the model or its cache can take.
        """
        query = self._query(token_ids, lora)
        row = self._recall(query)
        return await self._batcher.ask(query) if row is None else row

    def next_token_logprobs_unbatched(self, token_ids: Iterable[int], *, lora: str | None = None) -> Row:
        """The same without an event loop, computed at once."""
        query = self._query(token_ids, lora)
        row = self._recall(query)
        return self._answer([query])[0] if row is None else row

    async def batch_next_token_logprobs(
        self, prefixes: Sequence[Iterable[int]], *, lora: str | None = None
    ) -> NDArray[np.float32]:
        """(n, n_logits): a row for each prefix."""
        rows = await asyncio.gather(*(self.next_token_logprobs(prefix, lora=lora) for prefix in prefixes))
        return np.stack(rows) if rows else np.zeros((0, self.n_logits), dtype=np.float32)

    def batch_next_token_logprobs_unbatched(
        self, prefixes: Sequence[Iterable[int]], *, lora: str | None = None
    ) -> NDArray[np.float32]:
        """The same without an event loop; the prefixes still go to the model together."""
        queries = [self._query(prefix, lora) for prefix in prefixes]
        rows = {query: row for query in queries if (row := self._recall(query)) is not None}
        missing = list(dict.fromkeys(query for query in queries if query not in rows))
        rows.update(zip(missing, self._answer(missing), strict=True))
        return np.stack([rows[q] for q in queries]) if queries else np.zeros((0, self.n_logits), dtype=np.float32)

    def _query(self, token_ids: Iterable[int], lora: str | None) -> Query:
        ids = tuple(token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids)
        if not ids:
            if not self.backend.takes_empty:
                raise ValueError(
                    "there are no token ids, and a model has no distribution over the first token of nothing: "
                    "begin with the BOS token or a prompt"
                )
        elif min(ids) < 0 or max(ids) >= self.n_logits:
            raise ValueError(f"token ids must be in 0 .. {self.n_logits - 1}, got {min(ids)} .. {max(ids)}")
        limit = self.backend.max_length
        if limit is not None and len(ids) > limit:
            raise LimitExceededError(
                f"{len(ids)} token ids are more than the model's {limit} positions", given=len(ids), limit=limit
            )
        return (self.lora if lora is None else lora), ids

    # -- what is remembered --------------------------------------------------------------------------------------------

    def _recall(self, query: Query) -> Row | None:
        with self._lock:
            row = self._known.get(query)
            if row is not None:
                self._known.move_to_end(query)
            return row

    def _answer(self, queries: list[Query]) -> list[Row]:
        """Rows of distinct queries, computed and remembered."""
        rows: dict[Query, Row] = {}
        for lora in dict.fromkeys(lora for lora, _ in queries):
            same = [query for query in queries if query[0] == lora]
            rows.update(zip(same, self.backend.logprobs([ids for _, ids in same], lora), strict=True))
        with self._lock:
            for query, row in rows.items():
                row.setflags(write=False)
                if query not in self._known:
                    self._held += row.nbytes
                self._known[query] = row
            while self._held > self.row_bytes:
                self._held -= self._known.popitem(last=False)[1].nbytes
        return [rows[query] for query in queries]

    def cache_kv(self, token_ids: Iterable[int], *, lora: str | None = None) -> None:
        """Compute a prompt's keys and values now.  Never needed: whatever is computed is kept anyway."""
        self._answer([self._query(token_ids, lora)])

    def clear_cache(self) -> None:
        """Forget rows, keys and values; needed after the model's weights were changed."""
        with self._lock:
            self._known.clear()
            self._held = 0
        self.clear_kv_cache()

    def clear_kv_cache(self) -> None:
        """Forget keys and values."""
        self.backend.clear()

    def reset_async_queries(self) -> None:
        """Empty the queue.  Coroutines that wait are cancelled; nothing needs this after an exception."""
        self._batcher.reset()

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, keys and values that are held."""
        return self._held + self.backend.nbytes

    # -- settings ------------------------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        return self._batcher.batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        if value < 1:
            raise ValueError(f"batch_size must be at least 1, not {value}")
        self._batcher.batch_size = value

    @property
    def timeout(self) -> float:
        return self._batcher.timeout

    @timeout.setter
    def timeout(self, value: float) -> None:
        self._batcher.timeout = value

    # -- adapters ------------------------------------------------------------------------------------------------------

    def add_new_lora(self, path: str, name: str) -> None:
        """Load the LoRA adapter at `path` (a directory or a name on the hub) as `name`; needs `peft`."""
        self.backend.add_lora(path, name)
        self._forget_lora(name)

    def remove_lora(self, name: str) -> None:
        """Unload an adapter."""
        self.backend.remove_lora(name)
        self._forget_lora(name)
        if self.lora == name:
            self.lora = None

    def set_lora(self, name: str) -> None:
        """Use an adapter in queries that name none.  Rows and keys are kept apart by adapter."""
        if name not in self.backend.loras:
            raise ValueError(f"no LoRA adapter is named {name!r}; there are {sorted(self.backend.loras)}")
        self.lora = name

    def clear_lora(self) -> None:
        """Use the model as it is in queries that name no adapter."""
        self.lora = None

    def _forget_lora(self, name: str) -> None:
        with self._lock:
            for query in [query for query in self._known if query[0] == name]:
                self._held -= self._known.pop(query).nbytes

    # -- tokens --------------------------------------------------------------------------------------------------------

    @property
    def n_logits(self) -> int:
        """Width of the rows.  It may exceed the number of tokens: embeddings are often padded."""
        return self.backend.n_logits

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        return self.vocabulary.eos_token_ids

    @cached_property
    def byte_vocab(self) -> list[bytes]:
        """The bytes of each id; of a special token, its name; b"" for an id that no token has."""
        names = {i: name.encode() for name, i in self.vocabulary.special_tokens.items()}
        table = self.vocabulary.table
        return [names.get(i) or table.token(i) for i in range(self.vocabulary.size)]

    @cached_property
    def str_vocab(self) -> list[str]:
        """The text of each id; bytes that are no complete character are U+FFFD."""
        return [token.decode("utf-8", "replace") for token in self.byte_vocab]

    @cached_property
    def masks(self) -> Masks:
        """Sets of token ids that programs about text ask for, of width `n_logits`."""
        return Masks(self.vocabulary, self.n_logits)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text, with the special tokens that the tokenizer puts around it."""
        ids: list[int] = list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens))
        return ids

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text that the ids spell after other tokens; special tokens by name, broken UTF-8 as U+FFFD."""
        table = self.byte_vocab
        return b"".join(table[i] for i in token_ids).decode("utf-8", "replace")
