"""`Model`: a probabilistic program as one particle of an inference algorithm.

A program says what is random (`sample`), what was seen (`observe`, `condition`, `score`) and what is forced
(`intervene`); the algorithm runs many copies of it, each with a weight in nats and a random generator of its own.

A *twist* is a guess of what is to come: it counts until the next step, so it steers resampling and leaves the target
distribution as it is.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Generic, TypeVar

import numpy as np

from processors.lm.distribution import Distribution

__all__ = ["Model", "SubModel", "submodel"]

T = TypeVar("T")
V = TypeVar("V")


class Model:
    """One particle.  Subclass it with `step` (and `start`), and call `finish` when the particle is done.

    A copy (`copy.deepcopy`) draws from a generator of its own, spawned from the original's.

    Attributes:
        weight: log-weight in nats, twists included.
        finished: whether the particle is done.
        twist_amount: the twist that is in the weight.
        rng: where its randomness comes from; None outside inference, where draws cannot be repeated.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self.twist_amount = 0.0
        self.finished = False
        self.rng: np.random.Generator | None = None

    def reset(self) -> None:
        """As new: no weight, not finished."""
        self._weight = self.twist_amount = 0.0
        self.finished = False

    # -- what subclasses say -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run once before the first step."""

    async def step(self) -> None:
        """Go on by one step."""
        raise NotImplementedError(f"{type(self).__name__} must define step()")

    def immutable_properties(self) -> Collection[str]:
        """Names of attributes that copies share.  Models, contexts' masks and automata share themselves anyway."""
        return ()

    def string_for_serialization(self) -> str:
        """What a history shows of the particle."""
        return str(self)

    def __str__(self) -> str:
        return type(self).__name__

    # -- weights -------------------------------------------------------------------------------------------------------

    @property
    def weight(self) -> float:
        return self._weight + self.twist_amount

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight = value if math.isinf(self.twist_amount) else value - self.twist_amount

    @property
    def is_dead(self) -> bool:
        """Whether the weight is -inf for good: nothing that comes can raise it."""
        return self._weight == -math.inf

    def score(self, amount: float) -> None:
        """Add to the log-weight.

        Raises:
            ValueError: NaN or +inf, which are no weights.
        """
        if not amount < math.inf:
            raise ValueError(f"a log-weight must be below +inf and not NaN, got {amount}")
        self._weight += float(amount)

    def condition(self, holds: bool) -> None:
        """Require something: if it does not hold, the particle's weight is -inf and it is finished.

        The rest of the step still runs; `return` from it if that makes no sense.
        """
        if not holds:
            self._impossible()

    def _impossible(self) -> None:
        self.score(-math.inf)
        self.finish()

    def twist(self, amount: float) -> None:
        """Add to the log-weight until the next step or the end."""
        if not amount < math.inf:
            raise ValueError(f"a twist must be below +inf and not NaN, got {amount}")
        self.twist_amount += float(amount)

    def untwist(self) -> None:
        """Take the twist back."""
        self.twist_amount = 0.0

    def finish(self) -> None:
        """End the particle; its weight, without twist, is final."""
        self.untwist()
        self.finished = True

    def done_stepping(self) -> bool:
        return self.finished

    # -- randomness ----------------------------------------------------------------------------------------------------

    async def sample(self, dist: Distribution[T], proposal: Distribution[T] | None = None) -> T:
        """Draw from `dist`, or from `proposal` with the weight that makes up for it."""
        if proposal is None:
            value, _ = await dist.sample(self.rng)
            return value
        value, logprob = await proposal.sample(self.rng)
        self._scored(await dist.observe(value) - logprob)
        return value

    async def observe(self, dist: Distribution[T], value: T) -> T:
        """Weigh by the probability of `value`; an impossible one finishes the particle."""
        self._scored(await dist.observe(value))
        return value

    async def intervene(self, dist: Distribution[T], value: T) -> T:
        """Force `value` without a weight; where nothing can follow it, the particle is finished with weight -inf."""
        if not await dist.intervene(value):
            self._impossible()
        return value

    def _scored(self, amount: float) -> None:
        if amount == -math.inf:
            self._impossible()
        else:
            self.score(amount)

    async def call(self, sub: SubModel[T]) -> T:
        """Run a submodel as a part of this step."""
        return await sub.run(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        shared = {"rng", *self.immutable_properties()}
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value if name in shared else copy.deepcopy(value, memo)
        if self.rng is not None:
            twin.rng = self.rng.spawn(1)[0]
        return twin


class SubModel(Generic[T]):
    """A part of a program that several programs can call; it acts on the model that called it.

    Attributes:
        top: the model that runs it, at whatever depth; None before.
    """

    def __init__(self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._function, self._args, self._kwargs = function, args, kwargs
        self.top: Model | None = None

    async def run(self, top: Model) -> T:
        self.top = top
        return await self._function(self, *self._args, **self._kwargs)

    def _model(self) -> Model:
        if self.top is None:
            raise RuntimeError(f"{self._function.__name__} is a submodel: run it with `await model.call(...)`")
        return self.top

    @property
    def rng(self) -> np.random.Generator | None:
        return self._model().rng

    async def sample(self, dist: Distribution[V], proposal: Distribution[V] | None = None) -> V:
        return await self._model().sample(dist, proposal)

    async def observe(self, dist: Distribution[V], value: V) -> V:
        return await self._model().observe(dist, value)

    async def intervene(self, dist: Distribution[V], value: V) -> V:
        return await self._model().intervene(dist, value)

    async def call(self, sub: SubModel[V]) -> V:
        return await sub.run(self._model())

    def condition(self, holds: bool) -> None:
        self._model().condition(holds)

    def score(self, amount: float) -> None:
        self._model().score(amount)

    def twist(self, amount: float) -> None:
        self._model().twist(amount)


def submodel(function: Callable[..., Awaitable[T]]) -> Callable[..., SubModel[T]]:
    """Make ``async def f(self, ...)`` a submodel: ``await self.call(f(...))``."""

    @functools.wraps(function)
    def make(*args: Any, **kwargs: Any) -> SubModel[T]:
        return SubModel(function, args, kwargs)

    return make
