"""The masks of one decoding step, applied to its logits: what both ways to generate do with guides.

Which row has which guide, and in what state it is, the callers know: `GuideRows` for a sampler, whose rows have
numbers, `GuideRule` for the pipeline of `build_generate`, whose rows move.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import outlines_core as oc
from outlines_core.types import DEAD, FINISHED
from processors._sources import Source, clear_bits
from processors.masking import MaskBuffer, apply_mask

__all__ = ["RowMasks"]

_N_THREADS = os.cpu_count() or 1


class RowMasks:
    """Room for masks and masked logits, kept from step to step."""

    def __init__(self, forbidden: Sequence[int] = (), *, reuse: bool = False) -> None:
        """Nothing is made before the first step.

        Args:
            forbidden: token ids that no row may have.
            reuse: masked logits are written where those of the step before stood, which saves their allocation (a
                millisecond for 16 rows of 128k columns); not for logits that strangers get to see, and may keep.
        """
        self._forbidden, self._reuse = tuple(forbidden), reuse
        self._key: tuple[int, int, torch.device] | None = None
        self._buffer: MaskBuffer | None = None
        self._not_forbidden = np.empty(0, dtype=np.int32)
        self._out: torch.Tensor | None = None

    def apply(
        self,
        logits: torch.Tensor,
        sources: Sequence[Source | None],
        states: Sequence[Any],
        left: Sequence[int | None],
    ) -> tuple[torch.Tensor, list[int]]:
        """Mask what may not come next.

        Args:
            logits: (n_rows, n_columns); not written to.
            sources: what each row obeys; None: nothing.
            states: their states; those that are DEAD or FINISHED leave an EOS only.
            left: how many tokens each row may still have, where its text is to be ended in time; else None.

        Returns:
            The masked logits, which the next call may overwrite (`reuse`), and the rows in which nothing is left.
        """
        n_rows, n_columns = logits.shape
        key = n_rows, max([n_columns, *(source.size for source in sources if source is not None)]), logits.device
        if self._buffer is None or self._key != key:
            self._buffer, self._key, self._out = MaskBuffer(*key), key, None
            self._not_forbidden = np.full(self._buffer.words.shape[1], -1, dtype=np.int32)
            clear_bits(self._not_forbidden, self._forbidden)
        words = self._buffer.words
        automata, plain, ready = [], [], []
        for k, (source, state) in enumerate(zip(sources, states, strict=True)):
            if source is None:
                words[k] = -1
            elif state in (DEAD, FINISHED):
                source.fill_end(words[k])
            elif source.automaton is not None:
                automata.append(source.automaton)
                plain.append(state)
                ready.append(k)
            elif not source.fill(state, left[k], words[k]):
                words[k] = 0
        oc.fill_masks(automata, plain, words, ready, _N_THREADS)
        if self._forbidden:
            words &= self._not_forbidden
        out = None
        if self._reuse:
            out = self._out
            if out is None or out.shape != logits.shape or out.dtype != logits.dtype:
                out = self._out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        is_open = np.ones(n_rows, dtype=np.uint8)
        masked = apply_mask(logits, self._buffer, is_open, out=out)
        return masked, [] if is_open.all() else np.flatnonzero(is_open == 0).tolist()
