"""The small model that ships with the package: constrained generation without a download.

It has the Llama architecture, 1.1 million weights and a byte-level BPE tokenizer of 1,024 tokens, and was trained on
made-up texts about people, orders, tickets, events and sums, each with its JSON, SQL and Python. "Extract: Maria Lopez,
34, lives in Oslo" it continues with the JSON that one expects; of anything else it knows nothing, and it does not
calculate. The package `scripts/embedded` of the repository makes it; `scores.json` beside the weights says how well it
does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["EMBEDDED_PATH", "load_embedded"]

EMBEDDED_PATH = Path(__file__).resolve().parent / "data" / "embedded"
"""A directory as `from_pretrained` takes it."""


def load_embedded(
    device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load the embedded model and its tokenizer; the network is never asked.

    Args:
        device: where the model goes.
        dtype: of its weights; float32 by default, which a CPU computes fastest (the file holds float16).

    Returns:
        The model, in eval mode, and the tokenizer, which pads on the left.

    Raises:
        ImportError: torch or transformers is not installed; the message names the extra that brings them.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
        from transformers.utils import logging
    except ImportError as error:
        raise ImportError(
            f"the embedded model needs torch and transformers, but {error.name or error} could not be imported: "
            "pip install 'outlines-processors[hf]'",
            name=error.name,
        ) from error
    tokenizer = PreTrainedTokenizerFast.from_pretrained(EMBEDDED_PATH, local_files_only=True)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # 2 MB need none
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            EMBEDDED_PATH, dtype=torch.float32 if dtype is None else dtype, local_files_only=True
        )
    finally:
        if shown:
            logging.enable_progress_bar()
    return model.to(device).eval(), tokenizer
