"""The guides of a batch's rows: their states, the masks of a step, and the tokens that they force.

Rows are known by their number: a sampler need not recognize them, as the logits processors must.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import outlines_core as oc
from outlines_core.bitmask import n_words
from outlines_core.errors import GuideError
from outlines_core.types import FINISHED
from outlines_core.vocabulary import Vocabulary
from processors._sources import Marker, Source, source_of
from processors.generation._masks import RowMasks
from processors.guide import AutomatonGuide

__all__ = ["GuideRows", "guide_sources"]


def guide_sources(
    guides: Sequence[Any], vocabulary: Vocabulary, *, close: bool, start_after: int | str | None = None
) -> list[Source] | None:
    """One source a row, None if no row has a guide.

    Args:
        guides: one a row, or None a row.
        vocabulary: of the tokenizer; its EOS ids are for guides that name none.
        close: are the texts to be ended in time?
        start_after: rows are free until this.

    Raises:
        ValueError: a guide for another tokenizer, or one that cannot be closed in time; some rows have a guide and
            others none.
        TypeError: no guide.
    """
    if all(guide is None for guide in guides):
        if start_after is not None:
            raise ValueError("start_after= needs a guide")
        return None
    marker = None if start_after is None else Marker(start_after, vocabulary)
    known: dict[int, Source] = {}
    for guide in guides:
        if guide is None:
            raise ValueError("some prompts have a guide, others none: split the batch")
        if id(guide) not in known:
            _check_vocabulary(guide, vocabulary)
            known[id(guide)] = source_of(guide, None, vocabulary.eos_token_ids, marker, close)
    return [known[id(guide)] for guide in guides]


def _check_vocabulary(guide: Any, vocabulary: Vocabulary) -> None:
    """Raise ValueError if a guide was compiled for other tokens; other EOS ids are no harm."""
    automaton = guide.automaton if isinstance(guide, AutomatonGuide) else guide
    if not isinstance(automaton, oc.TokenAutomaton) or automaton.vocabulary.fingerprint == vocabulary.fingerprint:
        return
    theirs = automaton.vocabulary
    ends = {*theirs.eos_token_ids, *vocabulary.eos_token_ids}
    for i in range(max(theirs.size, vocabulary.size)):
        if i not in ends and theirs.token_bytes(i) != vocabulary.token_bytes(i):
            raise ValueError(
                f"the guide was compiled for another tokenizer: token id {i} is {theirs.token_bytes(i)!r} to it, and "
                f"{vocabulary.token_bytes(i)!r} to the sampler"
            )


class GuideRows:
    """The states of rows under their guides, together with the tokens that are forbidden to all of them.

    Attributes:
        states: one a row; a state is never changed, so a list of them can be put back.
    """

    def __init__(
        self,
        sources: Sequence[Source] | None,
        n_rows: int,
        forbidden: Sequence[int],
        *,
        close: bool,
        reuse: bool = False,
    ) -> None:
        """See `guide_sources` for `sources` and `close`, `RowMasks` for `forbidden` and `reuse`."""
        self.sources, self._close = sources, close
        self._forbidden = frozenset(forbidden)
        self.states: list[Any] = [None] * n_rows if sources is None else [source.start for source in sources]
        self._masks = RowMasks(sorted(self._forbidden), reuse=reuse)
        self._forced: dict[tuple[int, Any], list[int]] = {}
        automata = [] if sources is None else [source.automaton for source in sources]
        self._automata = [a for a in automata if a is not None] if all(a is not None for a in automata) else []

    @property
    def is_free(self) -> bool:
        """May every token come always?"""
        return self.sources is None and not self._forbidden

    def mask(self, logits: torch.Tensor, rows: Sequence[int], left: Sequence[int]) -> torch.Tensor:
        """`logits` with -inf for every token that may not come: another tensor, unless all may.

        Args:
            logits: (len(rows), n_columns).
            rows: which row each is of.   left: how many tokens may still be generated in it.

        Raises:
            GuideError: a row in which nothing is left.
        """
        if self.is_free:
            return logits
        masked, closed = self._masks.apply(
            logits,
            [None] * len(rows) if self.sources is None else [self.sources[r] for r in rows],
            [self.states[r] for r in rows],
            left if self._close else [None] * len(rows),
        )
        for k in closed:
            raise GuideError(self._why_closed(rows[k], left[k]))
        return masked

    def _why_closed(self, row: int, left: int) -> str:
        if self.sources is None:
            return f"row {row}: every token is forbidden, or has a logit of -inf"
        source, state = self.sources[row], self.states[row]
        if self._close and state != FINISHED and not source.fill(state, left, np.empty(n_words(source.size), np.int32)):
            return (
                f"row {row}: no text of its guide ends within the {left} tokens that are left: "
                f"max_new_tokens is too small ({source.least()} are needed from the start)"
            )
        return (
            f"row {row}: no token is left: all that its guide allows are forbidden_tokens, or have a logit of -inf "
            f"({source.explain(state)})"
        )

    def advance(self, row: int, token: int) -> None:
        """Follow a token that the mask had allowed."""
        if self.sources is not None and self.states[row] != FINISHED:
            self.states[row] = self.sources[row].step(self.states[row], token)

    def automaton(self, row: int) -> oc.TokenAutomaton | None:
        """The automaton whose masks a row gets as they are."""
        return self._automata[row] if self._automata else None

    def forced(self, row: int) -> list[int]:
        """The tokens that must come next, up to where there is a choice, or the text may end; [] if not known."""
        if not self._automata:
            return []
        automaton, state = self._automata[row], self.states[row]
        key = id(automaton), state
        chain = self._forced.get(key)
        if chain is None:
            chain = automaton.forced_tokens(state)
            chain = next((chain[:k] for k, token in enumerate(chain) if token in self._forbidden), chain)
            self._forced[key] = chain
        return chain
