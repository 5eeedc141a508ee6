"""What every potential must obey, as assertions that any implementation can be run through.

await assert_laws(my_potential, [(), (3,), (3, 5)])
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from processors.inference.potentials import EOS, Context, Potential

__all__ = ["assert_autoregressive", "assert_laws", "assert_logw_next", "assert_prefix"]


async def assert_laws(
    potential: Potential, contexts: Iterable[Context], *, atol: float = 1e-5, tokens: Iterable[int] | None = None
) -> None:
    """All laws for each context.

    Args:
        tokens: the ids to try behind a context; default all of them.

    Raises:
        AssertionError: a law is broken; the message says which, where and by how much.
    """
    chosen = list(range(potential.size)) if tokens is None else list(tokens)
    for context in contexts:
        await assert_logw_next(potential, context, atol=atol, tokens=chosen)
        await assert_autoregressive(potential, context, atol=atol)
        await assert_prefix(potential, context, tokens=chosen)


async def assert_logw_next(
    potential: Potential, context: Context, *, atol: float = 1e-5, tokens: Iterable[int] | None = None
) -> None:
    """``logw_next(c)[t] = score(c t) - prefix(c)`` for tokens and EOS; a ValueError if ``prefix(c)`` is -inf."""
    whole = await potential.prefix(context)
    if whole == -math.inf:
        for ask in (potential.logw_next, potential.logw_eos):
            try:
                await ask(context)
            except ValueError:
                continue
            raise AssertionError(f"{ask.__name__}{context} must raise ValueError: prefix is -inf")
        return
    weights = await potential.logw_next(context)
    if weights.shape != (potential.size + 1,):
        raise AssertionError(f"logw_next{context} has the shape {weights.shape}, not {(potential.size + 1,)}")
    for t in [*(range(potential.size) if tokens is None else tokens), EOS]:
        expected = await potential.score((*context, t)) - whole
        _equal(f"logw_next{context}[{t}]", float(weights[t]), expected, atol)
    _equal(f"logw_eos{context}", await potential.logw_eos(context), float(weights[EOS]), atol)
    _equal(f"score{context}", await potential.score(context), whole, atol)


async def assert_autoregressive(potential: Potential, context: Context, *, atol: float = 1e-5) -> None:
    """``complete(c) = prefix(()) + the sum of logw_next along c and EOS``."""
    if await potential.prefix(context) == -math.inf:
        return
    total = await potential.prefix(())
    for k, t in enumerate([*context, EOS]):
        total += float((await potential.logw_next(context[:k]))[t])
    _equal(f"complete{context}", await potential.complete(context), total, atol)
    _equal(f"score{(*context, EOS)}", await potential.score((*context, EOS)), total, atol)


async def assert_prefix(potential: Potential, context: Context, *, tokens: Iterable[int] | None = None) -> None:
    """Nothing comes of what is impossible: if ``prefix(c)`` is -inf, so are ``complete(c)`` and all ``score(c t)``."""
    if await potential.prefix(context) > -math.inf:
        return
    for t in [*(range(potential.size) if tokens is None else tokens), EOS]:
        weight = await potential.score((*context, t))
        if weight > -math.inf:
            raise AssertionError(f"prefix{context} is -inf, but score{(*context, t)} is {weight}")


def _equal(what: str, found: float, expected: float, atol: float) -> None:
    if math.isnan(found) or not (found == expected or np.isclose(found, expected, rtol=1e-4, atol=atol)):
        raise AssertionError(f"{what} is {found}, not {expected}")
