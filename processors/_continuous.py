"""transformers' continuous batching and logits processors: a loud refusal.

`generate_batch` takes any keyword and ignores the ones it does not know, ``logits_processor`` among them, and
``generate(cache_implementation="paged")`` forwards to it without its processors. Output would come back
unconstrained, and nobody would say so. Its own list of processors shows them the *last* id of each row alone.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from outlines_core.errors import UnsupportedFeatureError

__all__ = ["install_guard", "refuse_continuous_batching"]


def refuse_continuous_batching() -> NoReturn:
    """Raise the refusal."""
    raise UnsupportedFeatureError(
        "continuous batching (generate_batch, cache_implementation='paged') cannot be constrained by logits "
        "processors: it drops them, or shows them the last id of each row alone. Use generate() with another cache",
        feature="continuous batching",
    )


def install_guard(base: type) -> None:
    """Make `generate_batch` of transformers' models refuse processors of type `base` instead of dropping them."""
    from transformers.generation.continuous_batching import ContinuousMixin

    original = ContinuousMixin.generate_batch
    if getattr(original, "_refuses", None) is not None:
        return

    @functools.wraps(original)
    def generate_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("logits_processor")
        caller = sys._getframe(1)
        if given is None and caller.f_code.co_name == "generate":
            given = caller.f_locals.get("logits_processor")
        if isinstance(given, Iterable) and any(isinstance(one, base) for one in given):
            refuse_continuous_batching()
        return original(self, *args, **kwargs)

    generate_batch._refuses = base  # type: ignore[attr-defined]
    ContinuousMixin.generate_batch = generate_batch  # type: ignore[method-assign]
