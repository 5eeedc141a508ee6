"""Characters and words of a byte-level model.

A character is one to four bytes of UTF-8, so its probability is a product of conditionals, and the likeliest characters
are found best first: no character is likelier than its first byte. A word ends where the next byte cannot belong to it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import AsyncIterator, Callable

import numpy as np

from processors.bytes.byte_lm import EOS, StatefulByteLM
from processors.lm.distribution import log_sum_exp

__all__ = ["is_word_byte", "likeliest_characters", "top_characters", "word_end_logp", "word_logp"]


async def likeliest_characters(state: StatefulByteLM) -> AsyncIterator[tuple[str | None, float]]:
    """(character, log-probability), the likeliest first; None stands for the end of the text.

    Exact: all bytes that begin a character are followed as far as needed to know the order. Bytes that are no UTF-8
    are left out, so the probabilities add up to what the model gives to well-formed text.

    Cost: one `logp_next`, and one step and one `logp_next` more for each beginning of a longer character that is
    likelier than the last character asked for.
    """
    order = itertools.count()  # equal costs: first come, first served
    heap: list[tuple[float, int, bytes, StatefulByteLM]] = []

    async def open_up(state: StatefulByteLM, begun: bytes, cost: float) -> None:
        ps = (await state.logp_next()).ps
        for byte in np.flatnonzero(ps[:256] > -math.inf).tolist():
            text = begun + bytes([byte])
            if _length(text):
                heapq.heappush(heap, (cost - float(ps[byte]), next(order), text, state))
        if not begun and ps[EOS] > -math.inf:
            heapq.heappush(heap, (-float(ps[EOS]), next(order), b"", state))

    await open_up(state, b"", 0.0)
    while heap:
        cost, _, text, before = heapq.heappop(heap)
        if not text:
            yield None, -cost
        elif _length(text) == len(text):
            yield text.decode(), -cost
        else:
            await open_up(await (before.prune() << text[-1]), text, cost)


def _length(begun: bytes) -> int:
    """How many bytes the character has that begins so; 0 if none does."""
    first = begun[0]
    length = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if 0x80 <= first < 0xC2 or first > 0xF4:
        return 0
    if len(begun) > 1:
        # Overlong forms, surrogates and code points beyond Unicode show in the second byte.
        low = {0xE0: 0xA0, 0xF0: 0x90}.get(first, 0x80)
        high = {0xED: 0x9F, 0xF4: 0x8F}.get(first, 0xBF)
        if not low <= begun[1] <= high or any(not 0x80 <= byte <= 0xBF for byte in begun[2:]):
            return 0
    return length


async def top_characters(state: StatefulByteLM, n: int) -> list[tuple[str | None, float]]:
    """The n likeliest of `likeliest_characters`."""
    found: list[tuple[str | None, float]] = []
    if n > 0:
        async for character in likeliest_characters(state):
            found.append(character)
            if len(found) == n:
                break
    return found


def is_word_byte(byte: int) -> bool:
    """ASCII letters, digits, ``_`` and ``'``, and every byte of a character beyond ASCII."""
    return byte >= 0x80 or bytes([byte]).isalnum() or byte in b"_'"


async def word_end_logp(state: StatefulByteLM, is_word: Callable[[int], bool] = is_word_byte) -> float:
    """Log-probability that the word at the end of the text so far is complete: that another byte comes, or the end.

    Args:
        is_word: whether a byte can go on with a word. It is asked for single bytes, so what the default says of all
            characters beyond ASCII (they go on) is a convention.
    """
    ps = (await state.logp_next()).ps
    others = [symbol for symbol in range(256) if not is_word(symbol)] + [EOS]
    return log_sum_exp(ps[others])


async def word_logp(state: StatefulByteLM, word: str | bytes, is_word: Callable[[int], bool] = is_word_byte) -> float:
    """Log-probability that what comes next is `word` and that it ends there.

    A prefix of many words is no word: " the" is far likelier than " the" and then no letter.
    """
    total = 0.0
    for byte in word.encode() if isinstance(word, str) else word:
        logp = (await state.logp_next())[byte]
        if logp == -math.inf:
            return logp
        total += logp
        state = await (state.prune() << byte)
    return total + await word_end_logp(state, is_word)
