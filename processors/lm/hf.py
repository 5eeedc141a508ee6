"""Models of `transformers`, decoded incrementally: a new token costs one token's forward, whatever the rest is.

Keys and values live in one pool per layer, a slot per token; `KVTrie` says which slots a prefix has. A forward takes
rows whose pasts differ in length and content. Its columns are aligned on the right:

    row 0    .  .  a  b  C      a and b lie in the pool, C is new; "." is padding (slot 0)
    row 1    a  b  c  D  E      D and E are new

so the distance of two columns is the distance of their positions (sliding windows, ALiBi), and the last column holds
the token whose successor is asked for. Within a layer the new keys and values are written to the pool before the rows
are gathered from it: rows of one batch share what they have in common even if it is computed only now.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError, UnsupportedFeatureError
from processors.lm.backend import Backend, Row
from processors.lm.kv import NOTHING, KVTrie, Node, Path
from processors.lm.lean import decode, forget
from processors.lm.pool import Columns, Pool, PooledCache, Probe

__all__ = ["TransformersBackend"]


class _Planned(NamedTuple):
    """One row of a forward: `tokens` are fed, `slots` hold the whole prefix, `added` are the nodes to be written."""

    place: int
    tokens: Sequence[int]
    slots: NDArray[np.int64]
    added: list[Node]


def _planned(place: int, prefix: tuple[int, ...], path: Path, added: list[Node]) -> _Planned:
    return _Planned(place, prefix[-max(1, len(added)) :], path.slots, added)


class TransformersBackend(Backend):
    """A causal language model of `transformers` with a pool of keys and values.

    Args:
        model: in eval mode; on any device, or on several.
        kv_bytes: bound of the pool; 0 keeps nothing and computes every prefix from its beginning, which any causal
            model can do.
        max_length: the longest prefix; default what the model's configuration names as its largest position.

    Attributes:
        n_forwards: calls of the model.   n_tokens: tokens fed to it without padding.  For tests and reports.

    Raises:
        ValueError: the model is in training mode.
        UnsupportedFeatureError: the model keeps something else than keys and values of each token (recurrent states).

    Cost: a forward over the tokens that are not in the pool, at least one token a row; memory up to `kv_bytes`.
    """

    def __init__(self, model: Any, *, kv_bytes: int = 2**30, max_length: int | None = None) -> None:
        if model.training:
            raise ValueError("the model is in training mode, where dropout changes what it says: call model.eval()")
        self.model = model
        config = model.config.get_text_config(decoder=True)
        self.max_length = getattr(config, "max_position_embeddings", None) if max_length is None else max_length
        self.n_forwards = self.n_tokens = 0
        self._lock = threading.Lock()
        self._takes = inspect.signature(model.forward).parameters.keys()
        self._loras: set[str] = set()
        self._active: str | None = None
        embeddings = model.get_input_embeddings().weight
        self._device: torch.device = embeddings.device
        self._pools: list[Pool] = []
        self._trie: KVTrie | None = None
        with torch.inference_mode():
            if kv_bytes:
                self._probe(kv_bytes)
            else:
                self.n_logits = self._call(torch.zeros((1, 1), dtype=torch.int64, device=self._device)).shape[-1]

    # -- what is asked -------------------------------------------------------------------------------------------------

    def logprobs(self, prefixes: Sequence[tuple[int, ...]], lora: str | None = None) -> list[Row]:
        rows: dict[int, Row] = {}
        with self._lock, torch.inference_mode():
            self._activate(lora)
            waiting = list(range(len(prefixes)))
            while waiting:
                if self._trie is None:
                    batch, waiting = self._whole(prefixes, waiting)
                else:
                    batch, waiting = self._plan(self._trie, prefixes, waiting, lora)
                rows.update(zip((row.place for row in batch), self._forward(batch), strict=True))
        return [rows[i] for i in range(len(prefixes))]

    def clear(self) -> None:
        with self._lock:
            if self._trie is not None:
                self._trie.clear()
        forget()

    @property
    def nbytes(self) -> int:
        return sum(pool.nbytes for pool in self._pools)

    @property
    def n_cached_tokens(self) -> int:
        """Tokens whose keys and values are held."""
        return 0 if self._trie is None else len(self._trie)

    # -- adapters ------------------------------------------------------------------------------------------------------

    @property
    def loras(self) -> frozenset[str]:
        return frozenset(self._loras)

    def add_lora(self, path: str, name: str) -> None:
        with self._lock:
            self._forget_lora(name)
            self.model.load_adapter(path, adapter_name=name)
            self.model.disable_adapters()
            self.model.eval()
            self._loras.add(name)
            self._active = None

    def remove_lora(self, name: str) -> None:
        with self._lock:
            self._forget_lora(name)

    def _forget_lora(self, name: str) -> None:
        if name in self._loras:
            self._activate(None)
            self.model.delete_adapter(name)
            self._loras.discard(name)
        if self._trie is not None:
            self._trie.forget_lora(name)

    def _activate(self, lora: str | None) -> None:
        if lora == self._active:
            return
        if lora is None:
            self.model.disable_adapters()
        elif lora in self._loras:
            self.model.enable_adapters()
            self.model.set_adapter(lora)
        else:
            raise ValueError(f"no LoRA adapter is named {lora!r}; there are {sorted(self._loras)}")
        self._active = lora

    # -- planning ------------------------------------------------------------------------------------------------------

    def _plan(
        self, trie: KVTrie, prefixes: Sequence[tuple[int, ...]], waiting: list[int], lora: str | None
    ) -> tuple[list[_Planned], list[int]]:
        """The rows of the next forward, of about the same number of new tokens, and the rows that come later."""
        trie.tick()
        paths = {i: trie.walk(prefixes[i], lora) for i in waiting}
        batch: list[_Planned] = []
        later: list[int] = []
        for i in sorted(waiting, key=lambda i: len(paths[i].slots) - len(prefixes[i])):
            prefix = prefixes[i]
            held = trie.walk(prefix, lora, paths[i])  # rows of this batch may have added to it
            if batch and max(2 * (len(prefix) - len(held.slots)), 8) < len(batch[0].tokens):
                later.append(i)  # in this forward it would be mostly padding
                continue
            extended = trie.extend(held, prefix, lora)
            if extended is None and batch:
                later.append(i)
                continue
            if extended is None:
                trie.tick()  # what the other rows have may go
                extended = trie.extend(trie.walk(prefix, lora), prefix, lora)
                if extended is None:
                    raise LimitExceededError(
                        f"a prefix of {len(prefix)} tokens needs more than the {trie.capacity} tokens that kv_bytes "
                        "has room for: raise kv_bytes, or compute without a cache (kv_bytes=0)",
                        given=len(prefix),
                        limit=trie.capacity,
                    )
                return [_planned(i, prefix, *extended)], [k for k in waiting if k != i]
            batch.append(_planned(i, prefix, *extended))
        return batch, sorted(later)

    def _whole(self, prefixes: Sequence[tuple[int, ...]], waiting: list[int]) -> tuple[list[_Planned], list[int]]:
        """Without a pool: rows of about the same length, each computed from its beginning."""
        longest = max(len(prefixes[i]) for i in waiting)
        now = [i for i in waiting if 2 * len(prefixes[i]) >= longest]
        return [_Planned(i, prefixes[i], NOTHING, []) for i in now], [i for i in waiting if i not in set(now)]

    # -- computing -----------------------------------------------------------------------------------------------------

    def _forward(self, batch: list[_Planned]) -> list[Row]:
        n_rows, n_new = len(batch), max(len(row.tokens) for row in batch)
        self.n_forwards += 1
        self.n_tokens += sum(len(row.tokens) for row in batch)
        ids = np.zeros((n_rows, n_new), dtype=np.int64)
        if self._trie is None:
            mask = np.zeros((n_rows, n_new), dtype=np.int64)
            for i, row in enumerate(batch):  # aligned on the left: what comes behind the end changes nothing
                ids[i, : len(row.tokens)] = row.tokens
                mask[i, : len(row.tokens)] = 1
            logits = self._call(self._tensor(ids), attention_mask=self._tensor(mask), use_cache=False)
            last = [len(row.tokens) - 1 for row in batch]
            return self._rows(logits[range(len(batch)), last])
        n_columns = max(len(row.slots) for row in batch)
        positions = np.zeros((n_rows, n_new), dtype=np.int64)
        slots = np.zeros((n_rows, n_columns), dtype=np.int64)
        written: list[int] = []
        into: list[int] = []
        for i, row in enumerate(batch):
            q, length = len(row.tokens), len(row.slots)
            ids[i, n_new - q :] = row.tokens
            positions[i, n_new - q :] = range(length - q, length)
            slots[i, n_columns - length :] = row.slots
            written.extend(range((i + 1) * n_new - len(row.added), (i + 1) * n_new))
            into.extend([node.slot for node in row.added])
        try:
            for pool in self._pools:
                pool.reach(self._trie.top, self._trie.capacity + 1)
            columns = Columns(
                self._tensor(slots.reshape(-1)),
                None if len(written) == n_rows * n_new else self._tensor(np.array(written, dtype=np.int64)),
                self._tensor(np.array(into, dtype=np.int64)),
            )
            seen = None if slots.all() else self._tensor((slots > 0).astype(np.int64))
            cache = PooledCache(self._pools, columns, n_columns - n_new)
            new, places = self._tensor(ids), self._tensor(positions)
            answer = decode(self.model, new, places, cache, seen) if n_new == 1 else None
            if answer is None:
                answer = self._call(
                    new,
                    attention_mask=seen,
                    position_ids=places,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
            return self._rows(answer[:, -1])
        except BaseException:
            self._trie.forget([node for row in batch for node in row.added])  # their slots hold nothing
            raise

    def _call(self, ids: torch.Tensor, **arguments: Any) -> torch.Tensor:
        """The logits of a forward; arguments that the model does not know are left out."""
        known = {name: value for name, value in arguments.items() if name in self._takes}
        logits: torch.Tensor = self.model(input_ids=ids, **known).logits
        return logits

    def _rows(self, logits: torch.Tensor) -> list[Row]:
        """Log-softmax in float32, each row in memory of its own: a row that is kept keeps no batch alive."""
        together = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        return [row.copy() for row in together]

    def _tensor(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def _probe(self, kv_bytes: int) -> None:
        """Learn from one forward what the layers keep of a token."""
        kind = type(self.model).__name__
        remedy = "; TransformersBackend(model, kv_bytes=0) computes every prefix from its beginning"
        if "past_key_values" not in self._takes:
            raise UnsupportedFeatureError(
                f"{kind} keeps no keys and values between forwards{remedy}", feature="KV cache", path=kind
            )
        probe = Probe(self._device)
        token = torch.zeros((1, 1), dtype=torch.int64, device=self._device)
        layers = getattr(self.model.config.get_text_config(decoder=True), "layer_types", None) or []
        odd = sorted({layer for layer in layers if layer not in _ATTENTION})
        if odd:
            raise UnsupportedFeatureError(
                f"{kind} has layers of other kinds than attention ({', '.join(odd)}){remedy}",
                feature=odd[0],
                path=kind,
            )
        self.n_logits = self._call(
            token,
            attention_mask=torch.ones_like(token),
            position_ids=token,
            past_key_values=probe,
            use_cache=True,
        ).shape[-1]
        n = len(probe.found)
        if sorted(probe.found) != list(range(n)) or not n:
            raise UnsupportedFeatureError(
                f"{kind} keeps something else than the keys and values of each token{remedy}",
                feature="KV cache",
                path=kind,
            )
        self._pools = [probe.found[i] for i in range(n)]
        self._trie = KVTrie(max(1, kv_bytes // sum(pool.bytes_per_slot for pool in self._pools) - 1))


_ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
