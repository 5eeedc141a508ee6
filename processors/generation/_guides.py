"""A guide as a stateful logits processor: the constraint's place in the pipeline of a generation loop.

The loop says which row is which, so a state is simply one entry a row: nothing has to be recognized, unlike in
`processors.logits`, whose sources of masks are used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import outlines_core as oc
from outlines_core.errors import GuideError, TokenRejectedError
from outlines_core.types import DEAD, FINISHED
from processors._sources import Source, source_of
from processors.generation._masks import RowMasks
from processors.generation.rules import Context
from processors.guide import AutomatonGuide

__all__ = ["GuideRule"]


class GuideRule:
    """Masks what the guides forbid.

    Attributes:
        eos_ids: the tokens that end a guided text.
    """

    def __init__(
        self, guide: Any, eos_ids: Sequence[int], *, close: bool, may_run_dry: bool = False, reuse: bool = False
    ) -> None:
        """Check the guides.

        Args:
            guide: a token automaton or another guide, or as many of them as there are prompts.
            eos_ids: the end tokens of the config; without any, those of the automata.
            close: a token is allowed only if the text can be ended by the last column. Automata alone know how; other
                guides are obeyed, but may be cut off.
            may_run_dry: rows without any token are left so (a beam search drops them) instead of raising.
            reuse: as in `RowMasks`.

        Raises:
            TypeError, ValueError: see `processors.logits.GuideLogitsProcessor`; or an end token that is text.
        """
        guides = tuple(guide) if isinstance(guide, (list, tuple)) else (guide,)
        guides = tuple(one.automaton if isinstance(one, AutomatonGuide) else one for one in guides)
        self._closes = [close and isinstance(one, oc.TokenAutomaton) for one in guides]
        given = tuple(eos_ids) or None
        self._sources: list[Source] = [
            source_of(one, given, None, None, closes) for one, closes in zip(guides, self._closes, strict=True)
        ]
        self._may_run_dry = may_run_dry
        for one in guides:
            if isinstance(one, oc.TokenAutomaton) and given is not None:
                _check_ends(given, one.vocabulary)
        self.eos_ids = tuple(dict.fromkeys(i for source in self._sources for i in source.eos_ids))
        self._masks = RowMasks(reuse=reuse)

    def check_rows(self, n_rows: int) -> None:
        """Raise ValueError if there are neither one guide nor one a prompt."""
        if len(self._sources) not in (1, n_rows):
            raise ValueError(f"{len(self._sources)} guides for {n_rows} prompts: give one, or one a prompt")

    def check_room(self, n_new_tokens: int) -> None:
        """Raise GuideError if a text cannot be ended within so many tokens."""
        for number, (source, closes) in enumerate(zip(self._sources, self._closes, strict=True)):
            if closes and source.least_inside() > n_new_tokens:
                raise GuideError(
                    f"{n_new_tokens} new tokens are too few: the shortest text of guide {number} takes "
                    f"{source.least_inside()} tokens"
                )

    def init(self, ctx: Context) -> list[Any]:
        """One state a row."""
        n_rows = ctx.sequences.shape[0]
        return [self._sources[self._number(row, n_rows)].start for row in range(n_rows)]

    def _number(self, row: int, n_rows: int) -> int:
        """Which guide a row has: rows are prompts, or as many beams of each."""
        return row * len(self._sources) // n_rows

    def _step(self, row: int, number: int, state: Any, token: int, ctx: Context) -> Any:
        state = self._sources[number].step(state, token)
        if state == DEAD and not self._may_run_dry:
            raise TokenRejectedError(
                token,
                position=ctx.length - 1 - ctx.input_length,
                message=f"row {row}: the guide had forbidden token id {token}, and a logits processor has allowed it",
            )
        return state

    def process(self, states: list[Any], logits: torch.Tensor, ctx: Context) -> tuple[list[Any], torch.Tensor]:
        """Follow the last token of each row and mask what may not come next.

        Raises:
            GuideError: nothing is left for a row that can go on.
            TokenRejectedError: a processor behind this one has allowed a token that was forbidden.
        """
        n_rows = logits.shape[0]
        numbers = [self._number(row, n_rows) for row in range(n_rows)]
        finished = ctx.finished.tolist()
        if ctx.length > ctx.input_length:
            tokens = ctx.sequences[:, ctx.length - 1].tolist()
            states = [
                state if done or state in (DEAD, FINISHED) else self._step(row, numbers[row], state, tokens[row], ctx)
                for row, (state, done) in enumerate(zip(states, finished, strict=True))
            ]
        left = ctx.max_length - ctx.length
        masked, closed = self._masks.apply(
            logits,
            [None if done else self._sources[number] for number, done in zip(numbers, finished, strict=True)],
            states,  # of beams that are worth nothing any more, some are DEAD
            [left if self._closes[number] else None for number in numbers],
        )
        if not self._may_run_dry:
            for row in closed:
                if not finished[row]:
                    raise GuideError(
                        f"row {row}: nothing is left to generate: rules of the config contradict the guide, which "
                        f"expects {self._sources[numbers[row]].explain(states[row])}"
                    )
        return states, masked


def _check_ends(eos_ids: Sequence[int], vocabulary: oc.Vocabulary) -> None:
    for token_id in eos_ids:
        if vocabulary.token_bytes(token_id):
            raise ValueError(
                f"eos_token_id {token_id} is text ({vocabulary.token_bytes(token_id)!r}) to the guide: it would end "
                "texts in their middle"
            )
