"""`LMContext`: a text that grows by tokens of a language model, and the two random choices that make it grow.

`next_token()` is the distribution of the next token; `mask_dist(mask)` that of whether it lies in a mask. Answering
the second narrows the first, so a token can be chosen in stages: first whether it is a digit, then which. The product
of the stages' probabilities is the token's own.

| | weight | what happens to the context |
|---|---|---|
| sample `next_token()` | 0 | a token is drawn among those not ruled out, and appended |
| observe it, x | log P(x) | x is appended, possible or not |
| intervene on it, x | none | the same |
| sample `mask_dist(m)` | 0 | True or False is drawn; tokens of the other kind are ruled out |
| observe it, b | log P(next in m is b) | the same; nothing if that is impossible |
| intervene on it, b | none | the same; nothing if that is impossible |

Whenever a token is appended, all tokens are possible again. The model is asked only when a probability is needed: a
context that is dropped after its last token costs no forward. Masks are shared words and rows are shared arrays, so a
copy costs the length of the text, not the size of the vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from outlines_core.bitmask import n_words
from processors.lm.backend import Row
from processors.lm.distribution import Distribution, choose, draw_at, log_sum_exp
from processors.lm.masks import TokenMask
from processors.lm.tokens import Token

if TYPE_CHECKING:
    from processors.lm.causal import CachedCausalLM

__all__ = ["GuidedContext", "LMContext", "LMNextToken", "LMTokenMask"]


class LMContext:
    """A language model with a text.

    Args:
        lm: the model; shared by copies.
        prompt: the text before; encoded with the special tokens that the tokenizer adds. Or token ids.
        temp: temperature, applied once to each row of log-probabilities.
        show_prompt: whether ``str(context)`` shows the prompt.
        show_eos: whether it shows an EOS token at the end.

    Attributes:
        tokens: ids of the prompt and of what came after.
        prompt_token_count, prompt_string_length: of the prompt, in tokens and in characters.
        model_mask: the tokens not yet ruled out, a set of ids.

    Raises:
        ValueError: a temperature that is not positive and finite; an empty prompt where the model needs one.
    """

    def __init__(
        self,
        lm: CachedCausalLM,
        prompt: str | Iterable[int],
        temp: float = 1.0,
        show_prompt: bool = False,
        show_eos: bool = True,
    ) -> None:
        self.lm, self.show_prompt, self.show_eos = lm, show_prompt, show_eos
        self.tokens = lm.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]
        if not self.tokens and not lm.backend.takes_empty:
            raise ValueError(f"the prompt {prompt!r} has no tokens, and this model cannot begin with nothing")
        self.prompt_token_count = len(self.tokens)
        self._prompt = lm.decode(self.tokens) if lm.tokenizer is None else lm.tokenizer.decode(self.tokens)
        self.prompt_string_length = len(self._prompt)
        self.model_mask: TokenMask = lm.masks.ALL_TOKENS
        self._row: Row | None = None
        self.temp = temp

    @classmethod
    async def create(cls, lm: CachedCausalLM, *args: Any, **kwargs: Any) -> LMContext:
        """The same, with the model already asked about the prompt, in a batch with other coroutines' questions."""
        context = cls(lm, *args, **kwargs)
        await context._evaluate()
        return context

    # -- distributions -------------------------------------------------------------------------------------------------

    def next_token(self) -> LMNextToken:
        """The next token."""
        return LMNextToken(self)

    def mask_dist(self, mask: Iterable[int] | GuidedContext) -> LMTokenMask:
        """Whether the next token is in `mask`: a set of ids, a `TokenMask`, or a guide, which gives its mask."""
        return LMTokenMask(self, mask.mask if isinstance(mask, GuidedContext) else self.lm.masks.of(mask))

    def guide(self, automaton: Any) -> GuidedContext:
        """A token automaton that follows this context from here on and says which tokens may come next."""
        return GuidedContext(self, automaton)

    @property
    def temp(self) -> float:
        """The temperature; another one counts from now on, the tokens ruled out stay so."""
        return self._temp

    @temp.setter
    def temp(self, value: float) -> None:
        if not 0 < value < math.inf:
            raise ValueError(f"temp must be positive and finite, not {value}")
        self._temp = value
        self._remaining: _Left | None = None
        self._shown: Row | None = None

    # -- what is known -------------------------------------------------------------------------------------------------

    @property
    def next_token_logprobs(self) -> Row:
        """(n_logits,) float32, read-only: log-probabilities at this temperature among the tokens not ruled out."""
        if self._row is None:
            self._take(self.lm.next_token_logprobs_unbatched(self.tokens))
        if self._shown is None:
            shown = np.full(self.lm.n_logits, -np.inf, dtype=np.float32)
            shown[self.model_mask.ids] = self._left().logs - self._log_mass()
            shown.setflags(write=False)
            self._shown = shown
        return self._shown

    @property
    def token_count(self) -> int:
        """Tokens after the prompt."""
        return len(self.tokens) - self.prompt_token_count

    def __str__(self) -> str:
        ids = self.tokens[self.prompt_token_count :]
        if not self.show_eos and ids and ids[-1] in self.lm.masks.EOS:
            ids = ids[:-1]
        text = self.lm.decode(ids)
        return self._prompt + text if self.show_prompt else text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._prompt!r} + {self.lm.decode(self.tokens[self.prompt_token_count :])!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> LMContext:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value if name in _SHARED else copy.deepcopy(value, memo)
        twin.tokens = list(self.tokens)
        return twin

    # -- how it moves --------------------------------------------------------------------------------------------------

    async def _evaluate(self) -> None:
        """Ask the model, if it was not asked since the last token."""
        if self._row is None:
            self._take(await self.lm.next_token_logprobs(self.tokens))

    def _take(self, row: Row) -> None:
        self._row = row

    def _among(self, mask: TokenMask) -> _Left:
        if self._row is None:
            raise RuntimeError("the model was not asked yet")
        return _Left(self._row, mask, self.temp)

    def _left(self) -> _Left:
        """The tokens not ruled out."""
        if self._remaining is None:
            self._remaining = self._among(self.model_mask)
        return self._remaining

    def _log_mass(self) -> float:
        """Of the tokens not ruled out, in the units of `_Left`."""
        if self._remaining is None and self.temp == 1 and len(self.model_mask) == self.lm.n_logits:
            return 0.0  # a row is normalised
        return self._left().log_mass

    def _append(self, token_id: int) -> None:
        if not 0 <= token_id < self.lm.n_logits:
            raise ValueError(f"the model has no token {token_id}: ids are in 0 .. {self.lm.n_logits - 1}")
        self.tokens.append(token_id)
        self.model_mask = self.lm.masks.ALL_TOKENS
        self._row = self._remaining = self._shown = None

    def _restrict(self, left: _Left) -> None:
        self.model_mask, self._remaining, self._shown = left.mask, left, None


class _Left:
    """Some tokens, with what sampling and weighing them needs; never changed, so copies share it.

    Attributes:
        sums: of the probabilities up to each id, over their largest.   log_mass: the log of their sum.

    Exponentials are of float32, as the row is; sums are of float64.
    """

    __slots__ = ("_row", "_temp", "log_mass", "mask", "sums")

    def __init__(self, row: Row, mask: TokenMask, temp: float) -> None:
        self.mask, self._row, self._temp = mask, row, temp
        self.log_mass = -math.inf
        logs = self.logs
        top = float(logs[logs.argmax()]) if len(logs) else -math.inf
        if top > -math.inf:
            logs -= top
            self.sums = np.exp(logs, out=logs).astype(np.float64)
            self.sums.cumsum(out=self.sums)
            self.log_mass = top + math.log(self.sums[-1])

    @property
    def logs(self) -> Row:
        """Unnormalised log-probabilities, in the order of the ids; a new array."""
        logs: Row = self._row.take(self.mask.ids)
        if self._temp != 1:
            logs /= self._temp
        return logs

    def draw(self, rng: np.random.Generator) -> tuple[int, float]:
        """A token id and its unnormalised log-probability.  Raises ValueError if nothing is possible."""
        if self.log_mass == -math.inf:
            raise ValueError("no token is possible: the model gives all that are left the probability 0")
        token_id = int(self.mask.ids[draw_at(self.sums, rng)])
        return token_id, float(self._row[token_id]) / self._temp


_SHARED = frozenset({"lm", "model_mask", "_temp", "tokens", "_prompt", "_row", "_remaining", "_shown"})
"""What copies of a context share: it never changes, or (`tokens`) is copied by itself."""


class LMNextToken(Distribution[Token]):
    """The next token of a context; sampling, observing and intervening append it."""

    def __init__(self, context: LMContext) -> None:
        self.context = context

    async def sample(self, rng: np.random.Generator | None = None) -> tuple[Token, float]:
        context = self.context
        await context._evaluate()
        left = context._left()
        token_id, log = left.draw(np.random.default_rng() if rng is None else rng)
        context._append(token_id)
        return Token(context.lm, token_id), log - left.log_mass

    async def log_prob(self, value: Token | int) -> float:
        context, token_id = self.context, int(value)
        await context._evaluate()
        if token_id not in context.model_mask:
            return -math.inf
        row = context._row
        return -math.inf if row is None else float(row[token_id]) / context.temp - context._log_mass()

    async def observe(self, value: Token | int) -> float:
        logprob = await self.log_prob(value)
        self.context._append(int(value))
        return logprob

    async def intervene(self, value: Token | int) -> bool:
        self.context._append(int(value))
        return True


class LMTokenMask(Distribution[bool]):
    """Whether the next token of a context is in a mask; sampling, observing and intervening rule tokens out."""

    def __init__(self, context: LMContext, mask: TokenMask) -> None:
        self.context, self.mask = context, mask

    async def _narrowed(self, value: bool) -> _Left:
        """The tokens that `value` leaves."""
        context = self.context
        await context._evaluate()
        return context._among(context.model_mask & self.mask if value else context.model_mask - self.mask)

    async def sample(self, rng: np.random.Generator | None = None) -> tuple[bool, float]:
        both = await self._narrowed(False), await self._narrowed(True)
        masses = np.array([left.log_mass for left in both])
        k = choose(masses, np.random.default_rng() if rng is None else rng)
        self.context._restrict(both[k])
        return bool(k), float(masses[k]) - log_sum_exp(masses)

    async def log_prob(self, value: bool) -> float:
        return (await self._narrowed(value)).log_mass - self.context._log_mass()

    async def observe(self, value: bool) -> float:
        left = await self._narrowed(value)
        logprob = left.log_mass - self.context._log_mass()
        if left.log_mass > -math.inf:
            self.context._restrict(left)
        return logprob

    async def intervene(self, value: bool) -> bool:
        return await self.observe(value) > -math.inf


class GuidedContext:
    """A token automaton that follows a context.

    Copied together with its context (as attributes of one particle are), the copy follows the copy.

    Attributes:
        state: the automaton's state after the tokens that came since the guide was made; DEAD once one was refused.
    """

    def __init__(self, context: LMContext, automaton: Any) -> None:
        self.context, self.automaton = context, automaton
        self._state = automaton.initial_state
        self._n_seen = len(context.tokens)

    def __deepcopy__(self, memo: dict[int, Any]) -> GuidedContext:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__, context=copy.deepcopy(self.context, memo))
        return twin

    @property
    def state(self) -> int:
        for token_id in self.context.tokens[self._n_seen :]:
            self._state = self.automaton.next_state(self._state, token_id)
        self._n_seen = len(self.context.tokens)
        return int(self._state)

    @property
    def mask(self) -> TokenMask:
        """The tokens that may come next: EOS among them iff the text may end."""
        words = np.zeros(n_words(self.automaton.vocabulary.size), dtype=np.uint32)
        self.automaton.fill_mask(self.state, words)
        return TokenMask.from_words(words, self.context.lm.n_logits)

    @property
    def is_accepting(self) -> bool:
        """Whether the text is complete."""
        return bool(self.automaton.is_accepting(self.state))
