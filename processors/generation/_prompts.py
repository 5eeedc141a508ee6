"""What a user may give as a prompt, as token ids of rows: texts, conversations, ids; with images where a processor
takes them.

A text that begins a context gets the special tokens that its tokenizer puts at the start (BOS), a text that continues
one gets none; a conversation gets those of its chat template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from outlines_core.vocabulary import Vocabulary

__all__ = ["Prompts", "as_rows", "encoder_of", "read_prompts", "text_tokenizer"]


class Prompts(NamedTuple):
    """Prompts that were read.

    Attributes:
        rows: the token ids of each.
        extra: further inputs of the model, such as pixel values.
        per_token: further inputs with one entry a token: for each name a tensor a row.
    """

    rows: list[list[int]]
    extra: dict[str, Any]
    per_token: dict[str, list[torch.Tensor]]


def as_rows(prompt: Any) -> tuple[list[Any], bool]:
    """The prompts one by one, and whether it was a single one that was given.

    Raises:
        TypeError: neither text, nor messages, nor token ids, nor a sequence of one of these.
        ValueError: no prompt at all.
    """
    if isinstance(prompt, str):
        return [prompt], True
    if hasattr(prompt, "tolist"):  # arrays of ids, or of texts
        prompt = prompt.tolist()
        return as_rows(prompt)
    if not isinstance(prompt, Sequence) or isinstance(prompt, (bytes, bytearray)):
        raise TypeError(f"a prompt is a text, messages, or token ids, or a list of them, not {type(prompt).__name__}")
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in prompt]
    if not rows:
        raise ValueError("no prompt was given")
    if all(isinstance(row, (int, Mapping)) for row in rows):
        return [rows], True
    if any(isinstance(row, (int, Mapping)) for row in rows):
        raise TypeError("token ids, messages and prompts are mixed in one list")
    return rows, False


def text_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer inside a multimodal processor; any other is itself."""
    return tokenizer.tokenizer if hasattr(tokenizer, "image_processor") else tokenizer


def encoder_of(tokenizer: Any) -> Callable[[str], list[int]]:
    """Text -> ids without special tokens.

    Raises:
        TypeError: a `Vocabulary`, which encodes nothing.
    """
    inner = text_tokenizer(tokenizer)
    if isinstance(inner, Vocabulary) or not callable(getattr(inner, "encode", None)):
        raise TypeError(f"{type(inner).__name__} cannot encode texts: give token ids, or a Hugging Face tokenizer")

    def encode(text: str) -> list[int]:
        return [int(i) for i in inner.encode(text, add_special_tokens=False)]

    return encode


def read_prompts(
    prompts: Sequence[Any], tokenizer: Any, images: Any, *, continues: bool, eos_ids: Sequence[int]
) -> Prompts:
    """The token ids of prompts.

    Args:
        prompts: of `as_rows`.
        images: None, or what the processor takes for these prompts.
        continues: do they continue a context?
        eos_ids: some tokenizers close a text with one; it is taken off again.

    Raises:
        TypeError: a prompt of no known kind; a tokenizer that cannot encode.
        ValueError: a prompt without tokens that begins a context; images without a processor that takes them.
    """
    texts = [_text_of(prompt, tokenizer, continues=continues) for prompt in prompts]
    if images is not None:
        begins = not continues and all(isinstance(prompt, str) for prompt in prompts)  # templates have their own BOS
        return _with_images(texts, tokenizer, images, begins=begins)
    rows = []
    for prompt, text in zip(prompts, texts, strict=True):
        if text is None:
            row = [int(token) for token in prompt]
        elif continues or not isinstance(prompt, str):
            row = encoder_of(tokenizer)(text)
        else:
            row = _begun(text, tokenizer, eos_ids)
        rows.append(row)
    if not continues and not all(rows):
        raise ValueError(f"prompt {next(k for k, row in enumerate(rows) if not row)} has no tokens")
    return Prompts(rows, {}, {})


def _text_of(prompt: Any, tokenizer: Any, *, continues: bool) -> str | None:
    """The text of a prompt, None for token ids."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Sequence) and all(isinstance(message, Mapping) for message in prompt) and prompt:
        if not hasattr(tokenizer, "apply_chat_template"):
            raise TypeError(f"{type(tokenizer).__name__} has no chat template: give texts, or token ids")
        text: str = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
        bos = getattr(text_tokenizer(tokenizer), "bos_token", None)
        return text.removeprefix(bos) if continues and bos else text
    if isinstance(prompt, Sequence) and all(isinstance(token, int) for token in prompt):
        return None
    raise TypeError(f"a prompt is a text, messages, or token ids, not {type(prompt).__name__}")


def _begun(text: str, tokenizer: Any, eos_ids: Sequence[int]) -> list[int]:
    plain = encoder_of(tokenizer)(text)
    row = [int(i) for i in text_tokenizer(tokenizer).encode(text)]
    return row[:-1] if row and row[-1] in eos_ids and plain[-1:] != row[-1:] else row


def _with_images(texts: Sequence[str | None], tokenizer: Any, images: Any, *, begins: bool) -> Prompts:
    if not hasattr(tokenizer, "image_processor"):
        raise ValueError(
            f"images need the processor of a model that takes them as tokenizer=, not {type(tokenizer).__name__}"
        )
    if any(text is None for text in texts):
        raise TypeError("prompts with images are texts or messages, not token ids")
    inputs = tokenizer(
        text=list(texts),
        images=images,
        padding=True,
        padding_side="left",
        add_special_tokens=begins,
        return_tensors="pt",
    )
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    extra: dict[str, Any] = {}
    per_token: dict[str, list[torch.Tensor]] = {}
    for name, value in inputs.items():
        if name in ("input_ids", "attention_mask"):
            continue
        if isinstance(value, torch.Tensor) and value.shape[:2] == ids.shape:
            per_token[name] = [row[valid] for row, valid in zip(value, mask, strict=True)]
        else:
            extra[name] = value
    return Prompts([row[valid].tolist() for row, valid in zip(ids, mask, strict=True)], extra, per_token)
