"""Who is calling a logits processor.

transformers tells a processor nothing about the call of `generate` it serves, neither where one begins nor whose ids
it is shown. Both matter: a prompt may be, word for word, what the previous call has seen, and an assistant with its own
tokenizer is handed the processors of the main model. The stack knows. It is only read, and where it shows no
`generate` (other decoding loops, tests), nothing is concluded.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import Any

from transformers import GenerationMixin, LogitsProcessorList
from transformers.generation import candidate_generator

from outlines_core.errors import UnsupportedFeatureError

__all__ = ["generate_call", "refuse_other_tokenizers"]

_LIST = LogitsProcessorList.__call__.__code__
_GENERATE = inspect.unwrap(GenerationMixin.generate).__code__
_ASSISTED = inspect.unwrap(GenerationMixin._assisted_decoding).__code__
_OTHER_TOKENIZERS = tuple(
    getattr(candidate_generator, name).get_candidates.__code__
    for name in ("AssistedCandidateGeneratorDifferentTokenizers", "UniversalSpeculativeDecodingGenerator")
    if hasattr(candidate_generator, name)
)


def generate_call(known: object | None) -> Any:
    """An object that stands for the call of `generate` on the stack: the list of processors it made for itself.

    The drafts of an assistant belong to the call that they assist.

    Args:
        known: the answer of last time, if it is still alive; looked for first.

    Returns:
        None if there is no `generate` on the stack.
    """
    frame: FrameType | None = sys._getframe(1)
    nearest: Any = None
    assisted: FrameType | None = None
    inside = False
    while frame is not None:
        code = frame.f_code
        if nearest is None and code is _LIST:
            nearest = frame.f_locals["self"]
            if nearest is known:
                return nearest
        elif code is _ASSISTED:
            assisted = frame
        elif code is _GENERATE:
            inside = True
        frame = frame.f_back
    if nearest is None or not inside:
        return None
    return nearest if assisted is None else assisted.f_locals["logits_processor"]


def refuse_other_tokenizers() -> None:
    """Raise if an assistant with its own tokenizer is calling: its ids mean nothing here."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _OTHER_TOKENIZERS:
            raise UnsupportedFeatureError(
                "an assistant model with another tokenizer passes its own token ids to the logits processors of the "
                "main model, which cannot work: use an assistant with the same tokenizer, or prompt lookup",
                feature="assistant with another tokenizer",
            )
        frame = frame.f_back
