"""Samplers of the next token with proper weights: on average, a token comes with the weight that it has.

For a target with weights w(t) (``exp(logw_next)``), a draw (t, W) is *properly weighted* if the expectation of W over
the draws that give t is w(t). Then particles that multiply their W's estimate the target without bias, however the
draws are made:

    DirectSampler   all weights are there: t in proportion to w, W = sum of w. With a constraint: a locally masked
                    proposal and the weight that makes up for masking.
    AWRS            w = p * condition, p is there, the condition is a test that costs something: only the tokens that
                    are tried are tested, W is estimated from what the tests said.
    SetSampler      w = tokens * items, items being a potential over bytes: one path down the vocabulary's trie.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.vocabulary import Vocabulary
from processors.inference.potentials import EOS, Context, Potential, as_potential
from processors.lm.distribution import choose, log_sum_exp

__all__ = ["AWRS", "DirectSampler", "SetSampler", "TokenSampler"]


class TokenSampler(ABC):
    """Draws the next token of a target.

    Attributes:
        target: the potential whose weights the draws have.
    """

    target: Potential

    @abstractmethod
    async def sample(self, context: Context, rng: np.random.Generator) -> tuple[int, float]:
        """A token (or `EOS`) and its log-weight; -inf: nothing can follow, and the token means nothing."""


class DirectSampler(TokenSampler):
    """In proportion to all weights, or by a proposal.

    Args:
        proposal: over the same ids; where it says -inf, the target must say so too.
    """

    def __init__(self, target: Potential, proposal: Potential | None = None) -> None:
        if proposal is not None and proposal.size != target.size:
            raise ValueError(f"a proposal over {proposal.size} ids for a target over {target.size}")
        self.target, self.proposal = target, proposal

    async def sample(self, context: Context, rng: np.random.Generator) -> tuple[int, float]:
        weights = await self.target.logw_next(context)
        proposed = weights if self.proposal is None else await self.proposal.logw_next(context)
        possible = np.flatnonzero(proposed > -np.inf)  # often few of them
        if not len(possible):
            return EOS, -math.inf
        logs = proposed[possible]
        k = int(possible[choose(logs, rng)])
        total = log_sum_exp(logs)
        token = EOS if k == self.target.size else k
        return token, total if self.proposal is None else float(weights[k] - proposed[k]) + total


class AWRS(TokenSampler):
    """Adaptive weighted rejection sampling: draw from `base`, test, try again without what was refused.

    With two accepted tokens wanted, tokens are drawn without replacement until one is accepted, and then one more. Let
    R be the mass that was not refused, q the accepted token's share of it: W = R if the further token is accepted too
    (or if there is none), else W = R q. Given that the first of the remaining tokens is t, the second is accepted with
    probability (Z - q) / (1 - q), Z being the acceptable share of R, and

        q ((Z - q) / (1 - q) + (1 - Z) / (1 - q) q) = q Z

    is what t adds to the expectation, in addition to what it adds after a refusal: proper by induction.
    With more, tokens are drawn with replacement until so many are accepted, and W = (accepted - 1) / (draws - 1), the
    unbiased estimator of a negative binomial; draws of what was refused already are made up by geometric numbers. The
    weight varies less, at the cost of more tests.
    Source: Lipkin et al. 2025, *Fast controlled generation from language models with adaptive weighted rejection
    sampling*.

    Args:
        base: what tokens are drawn from.
        condition: 0 or -inf for each text and beginning; asked once for each token tried.
        max_accepts: accepted tokens that are drawn for the weight, at least 2.
    """

    def __init__(self, base: Potential, condition: Potential, max_accepts: int = 2) -> None:
        if max_accepts < 2:
            raise ValueError(f"max_accepts must be at least 2, or nothing is learnt about the weight: {max_accepts}")
        self.base, self.condition, self.max_accepts = base, condition, max_accepts
        self.target = base * condition

    async def sample(self, context: Context, rng: np.random.Generator) -> tuple[int, float]:
        weights = await self.base.logw_next(context)
        pool = _Pool(weights)
        if self.max_accepts == 2:
            return await self._two(context, pool, rng)
        return await self._many(context, pool, rng)

    async def _accepts(self, context: Context, k: int) -> bool:
        weight = await self.condition.score((*context, self._token(k)))
        if weight not in (0.0, -math.inf):
            raise ValueError(f"the condition of AWRS must say 0 or -inf, not {weight}")
        return weight == 0.0

    def _token(self, k: int) -> int:
        return EOS if k == self.base.size else k

    async def _two(self, context: Context, pool: _Pool, rng: np.random.Generator) -> tuple[int, float]:
        while (k := pool.draw(rng)) is not None:
            left = pool.log_mass
            if await self._accepts(context, k):
                share = pool.remove(k) - left
                further = pool.draw(rng)
                proven = further is None or await self._accepts(context, further)
                return self._token(k), left if proven else left + share
            pool.remove(k)
        return EOS, -math.inf

    async def _many(self, context: Context, pool: _Pool, rng: np.random.Generator) -> tuple[int, float]:
        whole = pool.log_mass
        accepted: dict[int, bool] = {}
        first, n_accepted, n_draws = EOS, 0, 0.0
        while n_accepted < self.max_accepts:
            k = pool.draw(rng)
            if k is None:
                return EOS, -math.inf
            n_draws += 1 + _n_failures(pool.log_mass - whole, rng)  # of these, all but one were refused before
            if k not in accepted:
                accepted[k] = await self._accepts(context, k)
            if accepted[k]:
                first = self._token(k) if n_accepted == 0 else first
                n_accepted += 1
            else:
                pool.remove(k)
        return first, whole + math.log((n_accepted - 1) / (n_draws - 1))


def _n_failures(log_p: float, rng: np.random.Generator) -> float:
    """Failures before the first success of probability exp(log_p)."""
    if log_p >= 0:
        return 0.0
    return math.floor(math.log(1 - rng.random()) / math.log1p(-math.exp(log_p)))


class _Pool:
    """Draws without replacement, in proportion to weights.

    Draws of what was removed are thrown away; when half of the mass was removed, the sums are made anew. So a draw
    costs O(log n), and no difference of nearly equal numbers is ever taken.
    """

    def __init__(self, log_weights: NDArray[np.float64]) -> None:
        self._left = log_weights.copy()
        self._sum_up()

    def _sum_up(self) -> None:
        self._top = float(self._left.max(initial=-np.inf))
        self._gone: set[int] = set()
        self._gone_mass = 0.0
        self._sums = np.cumsum(np.exp(self._left - self._top)) if self._top > -math.inf else np.zeros(1)

    @property
    def log_mass(self) -> float:
        """The mass of what is left."""
        left = float(self._sums[-1]) - self._gone_mass
        return self._top + math.log(left) if left > 0 else -math.inf

    def draw(self, rng: np.random.Generator) -> int | None:
        """An index, which stays; None if nothing is left."""
        if self._top == -math.inf:
            return None
        last = int(np.searchsorted(self._sums, self._sums[-1], side="left"))
        while True:
            k = min(int(np.searchsorted(self._sums, rng.random() * self._sums[-1], side="right")), last)
            if k not in self._gone:
                return k

    def remove(self, k: int) -> float:
        """Take an index out; its log-weight."""
        weight = float(self._left[k])
        self._left[k] = -np.inf
        self._gone.add(k)
        self._gone_mass += math.exp(weight - self._top)
        if 2 * self._gone_mass > self._sums[-1]:
            self._sum_up()
        return weight


class SetSampler(TokenSampler):
    """A token from the set of those that lie on one path of bytes.

    A path goes down the vocabulary's trie, byte by byte, in proportion to the mass of the tokens below and to the
    weight of the byte. Each token on the way gets the weight that it has, over the probability of the path that far;
    one of them is drawn, and W is the sum. Only the bytes behind the path are ever weighed, not the vocabulary.

    Args:
        tokens: over token ids, such as a language model.
        items: a potential over bytes (size 256), or an automaton over `byte_vocabulary()`.
        vocabulary: which bytes the ids stand for.
    """

    def __init__(self, tokens: Potential, items: Any, vocabulary: Vocabulary) -> None:
        self.tokens, self.items, self.vocabulary = tokens, as_potential(items, 256), vocabulary
        if self.items.size != 256:
            raise ValueError(f"items must be a potential over the 256 bytes, not over {self.items.size} ids")
        self.target = tokens * _OnBytes(self.items, vocabulary, tokens.size)
        trie = vocabulary.table.trie
        self._byte, self._end = trie.info & 255, trie.end
        nodes = np.flatnonzero(trie.token >= 0)
        node_of = dict(zip(trie.token[nodes].tolist(), nodes.tolist(), strict=True))
        pairs = [(node, i) for i, node in node_of.items()]
        pairs += [(node_of[i], other) for i, other in trie.duplicates.tolist()]
        self._ids: dict[int, list[int]] = {}
        for node, i in pairs:
            if i < tokens.size:
                self._ids.setdefault(node, []).append(i)
        self._at = np.array([node for node, ids in self._ids.items() for _ in ids], dtype=np.int64)
        self._of = np.array([i for ids in self._ids.values() for i in ids], dtype=np.int64)

    async def sample(self, context: Context, rng: np.random.Generator) -> tuple[int, float]:
        weights = await self.tokens.logw_next(context)
        text = _text(self.vocabulary, context)
        top = log_sum_exp(weights)
        if top == -math.inf:
            return EOS, -math.inf
        mass = np.zeros(len(self._end))
        np.add.at(mass, self._at, np.exp(weights[self._of] - top))
        found: list[int] = []
        found_weights: list[float] = []
        path, item_weight, begin, end = 0.0, 0.0, 0, len(self._end)
        end_weight = float(weights[EOS]) - top
        while True:
            children = [begin] if begin < end else []
            while children and self._end[children[-1]] < end:
                children.append(int(self._end[children[-1]]))
            masses = np.add.reduceat(mass[:end], children) if children else np.zeros(0)
            next_items = await self.items.logw_next(text)
            with np.errstate(divide="ignore"):
                ways = np.log(masses) + next_items[self._byte[children]]
            if begin == 0:  # the end of the text is a way out of the root
                ways = np.append(ways, end_weight + next_items[EOS])
            total = log_sum_exp(ways)
            if total == -math.inf:
                break
            k = choose(ways, rng)
            path += float(ways[k]) - total
            if k == len(children):
                return EOS, top + float(ways[k]) - path
            node = children[k]
            item_weight += float(next_items[self._byte[node]])
            text = (*text, int(self._byte[node]))
            for i in self._ids.get(node, ()):
                found.append(i)
                found_weights.append(float(weights[i]) + item_weight - path)
            begin, end = node + 1, int(self._end[node])
        if not found:
            return EOS, -math.inf
        chances = np.array(found_weights)
        total = log_sum_exp(chances)
        return (found[choose(chances, rng)], total) if total > -math.inf else (EOS, total)


def _text(vocabulary: Vocabulary, context: Context) -> Context:
    return tuple(b"".join(vocabulary.token_bytes(i) for i in context))


class _OnBytes(Potential):
    """A potential over bytes, asked about the bytes of token ids."""

    def __init__(self, items: Potential, vocabulary: Vocabulary, size: int) -> None:
        self.items, self.vocabulary, self.size = items, vocabulary, size

    async def prefix(self, context: Context) -> float:
        return await self.items.prefix(_text(self.vocabulary, context)) if self._is_text(context) else -math.inf

    async def complete(self, context: Context) -> float:
        return await self.items.complete(_text(self.vocabulary, context)) if self._is_text(context) else -math.inf

    def _is_text(self, context: Context) -> bool:
        return all(self.vocabulary.token_bytes(i) for i in context)
