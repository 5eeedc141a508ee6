"""A byte-level language model as a `Potential`, and the probability of a string of bytes.

A beam of K candidates is a language model of its own: what it says of the next byte adds up to one. `ByteLM` weighs a
text by these conditionals, so every law of potentials holds for every K; without a bound on K it is the token model's
exact distribution over bytes. Potentials multiply: ``ByteLM(...) * automaton`` over `byte_vocabulary()` is what SMC
needs to sample texts given a constraint, from models with any tokenizer.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from processors.bytes.beam import BeamParams, ByteBeamState
from processors.bytes.byte_lm import EOS as END
from processors.inference.potentials import Context, Potential
from processors.lm.causal import CachedCausalLM

__all__ = ["ByteLM", "ByteScores", "byte_conditional"]


class ByteLM(Potential):
    """Log-probabilities of texts of bytes after a prompt.

    Args:
        lm: the model of tokens.   params: of the beams.
        prompt: bytes before the text; they are not weighed.
        initial_context: ids before the prompt; default BOS.
        n_beams: so many beams are remembered, the least recently used go first. Each holds up to 2 K rows.

    A byte that no candidate of the beam can take has probability 0; beams are healed in the prompt only.
    """

    def __init__(
        self,
        lm: CachedCausalLM,
        params: BeamParams,
        prompt: bytes = b"",
        *,
        initial_context: Iterable[int] | None = None,
        n_beams: int = 64,
    ) -> None:
        if n_beams < 1:
            raise ValueError(f"n_beams must be at least 1, not {n_beams}")
        self.lm, self.params, self.prompt, self.size = lm, params, bytes(prompt), 256
        self.n_beams = n_beams
        self._context = None if initial_context is None else list(initial_context)
        self._known: OrderedDict[bytes, tuple[ByteBeamState, float, NDArray[np.float64]]] = OrderedDict()

    async def _at(self, text: bytes) -> tuple[float, NDArray[np.float64]]:
        """The log-weight of `text` as a beginning, and the log-probabilities of what follows, EOS last."""
        k = len(text)
        while k and text[:k] not in self._known:
            k -= 1
        known = self._known.get(text[:k])
        if known is None:
            beam = await ByteBeamState.initial(self.lm, self.params, initial_context=self._context)
            known = await self._remember(b"", await beam.prefill(self.prompt), 0.0)
        else:
            self._known.move_to_end(text[:k])
        for at in range(k, len(text)):
            beam, weight, row = known
            weight += float(row[text[at]])
            if weight == -math.inf:
                return weight, row
            known = await self._remember(text[: at + 1], await (beam.prune() << text[at]), weight)
        return known[1], known[2]

    async def _remember(
        self, text: bytes, beam: ByteBeamState, weight: float
    ) -> tuple[ByteBeamState, float, NDArray[np.float64]]:
        ps = (await beam.logp_next()).ps
        known = self._known[text] = beam, weight, np.append(ps[:256], ps[END])
        while len(self._known) > self.n_beams:
            self._known.popitem(last=False)
        return known

    async def logw_next(self, context: Context) -> NDArray[np.float64]:
        weight, row = await self._at(bytes(context))
        self._possible(weight, context)
        return row.copy()

    async def logw_eos(self, context: Context) -> float:
        return float((await self.logw_next(context))[-1])

    async def prefix(self, context: Context) -> float:
        if not context:
            return 0.0
        *before, last = context  # the beam after the last byte is not needed
        weight, row = await self._at(bytes(before))
        return weight + float(row[last]) if weight > -math.inf else weight

    async def complete(self, context: Context) -> float:
        weight, row = await self._at(bytes(context))
        return weight + float(row[-1]) if weight > -math.inf else weight


class ByteScores(NamedTuple):
    """Of a string.

    logprob: log-probability of the string after what stands before it.
    per_byte: (n,) log-probability of each byte given those before; their sum is `logprob`.
    log_end: log-probability that the text ends behind it.
    """

    logprob: float
    per_byte: NDArray[np.float64]
    log_end: float

    @property
    def bits_per_byte(self) -> float:
        """-log2 of the probability, per byte; 0 for no bytes."""
        return -self.logprob / math.log(2) / len(self.per_byte) if len(self.per_byte) else 0.0


async def byte_conditional(
    lm: CachedCausalLM,
    text: bytes | str,
    given: bytes | str = b"",
    params: BeamParams | None = None,
    *,
    initial_context: Iterable[int] | None = None,
) -> ByteScores:
    """The probability of any string after any other, however tokens cut the two: no token boundary is assumed.

    Args:
        text, given: bytes, or text meant as UTF-8.
        params: of the beam; default 8 candidates. ``BeamParams(K=None)`` sums over all tokenizations (short strings).
    """
    text, given = (s.encode() if isinstance(s, str) else bytes(s) for s in (text, given))
    model = ByteLM(lm, params or BeamParams(K=8), given, initial_context=initial_context, n_beams=2)
    per_byte = np.full(len(text), -np.inf)
    row = await model.logw_next(())
    for k, byte in enumerate(text):
        per_byte[k] = row[byte]
        if per_byte[k] == -math.inf:
            return ByteScores(-math.inf, per_byte, -math.inf)
        row = await model.logw_next(tuple(text[: k + 1]))
    return ByteScores(float(per_byte.sum()), per_byte, float(row[-1]))
