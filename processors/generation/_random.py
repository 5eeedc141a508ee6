"""Random numbers of rows: each is a function of the row's seed and of a position in its text, and of nothing else.

So what is drawn for a row depends neither on its neighbours, nor on how many forward passes its text took (forced
tokens, drafts), nor on where a call was cut into turns. Philox (Salmon et al. 2011, *Parallel random numbers: as easy
as 1, 2, 3*) is made for this: its numbers are indexed, not produced one after the other.

`pick` turns one number a row into one token id. Probabilities become integers first: sums of integers do not depend on
the order of summation, so on every device the running sum never falls and no token of probability zero is ever picked.
"""

from __future__ import annotations

import operator
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["RowRandom", "Seeds", "pick", "row_seeds"]

Seeds: TypeAlias = "int | Sequence[int] | torch.Generator | None"
"""What a user may give: see `row_seeds`."""

_BLOCK = 64
"""Numbers made at a time; a multiple of the four that Philox makes of one counter."""
_WHOLE = 2.0**62
"""The integer that stands for probability one: sums stay below 2**63 although rounded probabilities exceed one."""


def row_seeds(rng: Seeds, n_rows: int) -> list[int]:
    """One seed a row.

    Args:
        rng: None for fresh ones; an int n, of which row 0 gets n itself and each other row a seed made of n and its
            number; one int a row; or a `torch.Generator`, which they are drawn from.

    Raises:
        ValueError: a sequence of another length.

    >>> row_seeds(7, 1), row_seeds([7, 8], 2)
    ([7], [7, 8])
    >>> row_seeds(7, 5)[:3] == row_seeds(7, 3)
    True
    """
    if rng is None:
        return [secrets.randbits(63) for _ in range(n_rows)]
    if isinstance(rng, (int, np.integer)):
        first = int(rng)
        made = [np.random.SeedSequence([first % 2**64, r]).generate_state(1, np.uint64)[0] for r in range(1, n_rows)]
        return [first, *map(int, made)][:n_rows]
    if hasattr(rng, "initial_seed"):
        import torch

        generator: Any = rng
        drawn = torch.randint(2**63 - 1, (n_rows,), generator=generator, device=generator.device)
        return [int(seed) for seed in drawn.tolist()]
    seeds = [operator.index(seed) for seed in np.asarray(rng).tolist()] if hasattr(rng, "tolist") else list(rng)
    if len(seeds) != n_rows:
        raise ValueError(f"{len(seeds)} seeds for {n_rows} rows: give one int, or one a row")
    return [operator.index(seed) for seed in seeds]


class RowRandom:
    """Uniform numbers in [0, 1) for the rows of a batch.

    Attributes:
        seeds: one a row, any ints; they count modulo 2**64.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(operator.index(seed) for seed in seeds)
        self._blocks: dict[tuple[int, int], tuple[int, list[float]]] = {}  # (row, stream) -> its newest block

    def uniforms(
        self, positions: Sequence[int], rows: Sequence[int] | None = None, *, stream: int = 0
    ) -> NDArray[np.float64]:
        """One number for each of some rows.

        Args:
            positions: which number of its row's stream, from 0 on; by convention the number of tokens generated before.
            rows: which rows; default: as many as there are positions, from row 0 on.
            stream: independent numbers for other purposes at the same positions.

        Returns:
            (len(positions),) float64.

        Cost: 0.3 us a row, and 10 us each 64 positions.
        """
        numbered = zip(range(len(positions)) if rows is None else rows, positions, strict=True)
        return np.array([self._one(row, position, stream) for row, position in numbered], dtype=np.float64)

    def select(self, rows: Sequence[int]) -> RowRandom:
        """The streams of some rows, in a new order; a row may be taken more than once."""
        return RowRandom([self.seeds[row] for row in rows])

    def _one(self, row: int, position: int, stream: int) -> float:
        number, place = divmod(position, _BLOCK)
        known = self._blocks.get((row, stream))
        if known is None or known[0] != number:
            known = self._blocks[row, stream] = number, _block(self.seeds[row], stream, number)
        return known[1][place]


def _block(seed: int, stream: int, number: int) -> list[float]:
    """Numbers ``number * _BLOCK`` onwards of a stream."""
    generator = np.random.Philox(key=seed % 2**64, counter=[number * (_BLOCK // 4), stream, 0, 0])
    numbers: list[float] = ((generator.random_raw(_BLOCK) >> np.uint64(11)) * 2.0**-53).tolist()
    return numbers


def pick(probs: torch.Tensor, uniforms: torch.Tensor | NDArray[np.float64]) -> torch.Tensor:
    """The token of each row that a uniform number falls on, by inversion of the cumulative distribution.

    Args:
        probs: (n_rows, n_columns), on any device, not negative, each row with a sum of 1 up to rounding.
        uniforms: (n_rows,) in [0, 1).

    Returns:
        (n_rows,) int64 on the device of `probs`, always of a positive probability (of at least 2**-62).

    >>> import torch
    >>> pick(torch.tensor([[0.25, 0.0, 0.75], [0.25, 0.0, 0.75]]), np.array([0.2, 0.25]))
    tensor([0, 2])
    """
    import torch

    cumulative = (probs.double() * _WHOLE).to(torch.int64).cumsum(-1)
    total = cumulative[:, -1:]
    places = torch.as_tensor(uniforms, dtype=torch.float64, device=probs.device)[:, None]
    places = torch.minimum((places * total).to(torch.int64), total - 1)  # the product may round up to the total
    return torch.searchsorted(cumulative, places, right=True)[:, 0]
