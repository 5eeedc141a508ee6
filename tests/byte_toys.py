"""Toy byte-level problems whose answer is found by writing out every way to cut a text into tokens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np

from outlines_core import Vocabulary
from processors.bytes import BeamParams, ByteBeamState
from processors.lm.backend import MockBackend
from processors.lm.causal import CachedCausalLM

EXACT = BeamParams(K=None)


class BytesTokenizer:
    """Longest match, byte by byte where nothing else fits; without BOS unless one is given."""

    def __init__(self, tokens: Sequence[bytes], bos: int | None = None) -> None:
        self._tokens, self.bos_token_id = tokens, bos

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        rest, ids = text.encode(), []
        while rest:
            fitting = [i for i, token in enumerate(self._tokens) if token and rest.startswith(token)]
            if not fitting:
                return ids
            ids.append(max(fitting, key=lambda i: len(self._tokens[i])))
            rest = rest[len(self._tokens[ids[-1]]) :]
        return ids


def byte_lm(
    tokens: Sequence[bytes], *, eos: Sequence[int], special=None, n_logits=None, logits=None, seed=0, **options
):
    """A mock model in which id i stands for tokens[i]; the EOS ids and the special ones {name: id} stand for names."""
    special = dict(special or {})
    names = {i: name.encode() for name, i in special.items()}
    text: dict[bytes, list[int]] = {}
    for i, token in enumerate(tokens):
        if i not in eos and i not in names and token:
            text.setdefault(token, []).append(i)
    vocabulary = Vocabulary(list(eos), text, special_tokens=special, size=len(tokens))
    backend = MockBackend(n_logits or len(tokens), logits, seed=seed)
    return CachedCausalLM(backend, BytesTokenizer(tokens), vocabulary, **options)


def spelled(lm, eos_byte_strings=None):
    """(id, bytes, does it end a text) of all that is a token."""
    vocabulary = lm.vocabulary
    ends = set(vocabulary.eos_token_ids)
    if eos_byte_strings is not None:
        ends = {i for i, token in enumerate(lm.byte_vocab) if token in eos_byte_strings}
    return [(i, token, i in ends) for i, token in enumerate(lm.byte_vocab) if token or i in ends]


class BruteForce:
    """Probabilities of a text's beginnings by the sum over all its tokenizations.

    Args:
        prompt: bytes that are followed without EOS being an end.
    """

    def __init__(self, lm, eos_byte_strings=None, context=()):
        self.lm, self.tokens, self.context = lm, spelled(lm, eos_byte_strings), tuple(context)

    def _row(self, ids):
        row = self.lm.next_token_logprobs_unbatched([*self.context, *ids]).astype(np.float64)
        known = np.exp([row[i] for i, _, _ in self.tokens])
        return dict(zip((i for i, _, _ in self.tokens), known / known.sum(), strict=True))

    def prefix(self, text: bytes, ids=(), *, eos_is_text=False) -> float:
        """P(the text begins with these bytes)."""
        if not text:
            return 1.0
        row, total = self._row(ids), 0.0
        for i, token, ends in self.tokens:
            if (ends and not eos_is_text) or not token:
                continue
            if token.startswith(text):
                total += row[i]
            elif text.startswith(token):
                total += row[i] * self.prefix(text[len(token) :], (*ids, i), eos_is_text=eos_is_text)
        return total

    def complete(self, text: bytes, ids=()) -> float:
        """P(the text is these bytes and then ends)."""
        row = self._row(ids)
        if not text:
            return sum(row[i] for i, _, ends in self.tokens if ends)
        return sum(
            row[i] * self.complete(text[len(token) :], (*ids, i))
            for i, token, ends in self.tokens
            if token and not ends and text.startswith(token)
        )


def log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf


async def after(beam, text, *, prune=False):
    for byte in text:
        beam = await ((beam.prune() if prune else beam) << byte)
    return beam


def start(lm, params=EXACT, **options):
    options.setdefault("initial_context", [])
    return asyncio.run(ByteBeamState.initial(lm, params, **options))
