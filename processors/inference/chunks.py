"""Pieces of text larger than a token, as submodels: ``word, mark = await self.call(sample_word(context))``."""

from __future__ import annotations

from typing import Any

from processors.inference.model import SubModel, submodel
from processors.lm.context import LMContext
from processors.lm.tokens import Token, TokenSequence

__all__ = ["sample_word", "sample_word_2"]


async def _begin(self: SubModel[Any], context: LMContext) -> bool:
    """Observe that a word begins: with a space (True), unless the text stands at the beginning of one already.

    Raises:
        ValueError: it has to begin with a space, and no token of the vocabulary does.
    """
    text = context.lm.decode(context.tokens)
    masks = context.lm.masks
    begun = bool(text) and (text[-1].isspace() or text[-1] in "-'\"")
    begun = begun and bool(context.model_mask & masks.CONTINUES_CURRENT_WORD)  # else that word was just ended
    if not begun and not masks.STARTS_NEW_WORD:
        raise ValueError("no token begins with a space and a letter: words cannot be told apart by this tokenizer")
    await self.observe(context.mask_dist(masks.CONTINUES_CURRENT_WORD if begun else masks.STARTS_NEW_WORD), True)
    return not begun


@submodel
async def sample_word(
    self: SubModel[Any],
    context: LMContext,
    max_tokens: int = 5,
    allow_punctuation: bool = True,
) -> tuple[TokenSequence, Token | None]:
    """A word of at most `max_tokens` tokens, and the punctuation mark behind it, if any."""
    masks = context.lm.masks
    await _begin(self, context)
    word = TokenSequence(context.lm, [])
    while True:
        word += await self.sample(context.next_token())
        if len(word) == max_tokens:
            await self.observe(context.mask_dist(masks.CONTINUES_CURRENT_WORD), False)
            break
        if not await self.sample(context.mask_dist(masks.CONTINUES_CURRENT_WORD)):
            break
    mark = None
    if allow_punctuation and await self.sample(context.mask_dist(masks.PUNCTUATION)):
        mark = await self.sample(context.next_token())
    return word, mark


@submodel
async def sample_word_2(
    self: SubModel[Any],
    context: LMContext,
    max_chars: int | None = None,
    allow_mid_punctuation: bool = True,
    allow_end_punctuation: bool = True,
) -> tuple[str, str, str]:
    """A word of at most `max_chars` characters, the mark inside a sentence behind it, and the mark that ends one.

    Marks that do not come are "". A space in front of the word does not count.
    """
    if max_chars is not None and max_chars < 1:
        raise ValueError(f"max_chars must be at least 1, not {max_chars}")
    masks = context.lm.masks
    with_space = await _begin(self, context)
    word = ""
    while True:
        if max_chars is not None:
            await self.observe(context.mask_dist(masks.token_length_mask(max=max_chars + with_space - len(word))), True)
        token: Token = await self.sample(context.next_token())
        word += token.token_str
        if max_chars is not None and len(word) - with_space == max_chars:
            await self.observe(context.mask_dist(masks.CONTINUES_CURRENT_WORD), False)
            break
        if not await self.sample(context.mask_dist(masks.CONTINUES_CURRENT_WORD)):
            break
    mid = end = ""
    if allow_mid_punctuation and await self.sample(context.mask_dist(masks.MID_PUNCTUATION)):
        token = await self.sample(context.next_token())
        mid = token.token_str
    if allow_end_punctuation and not mid and await self.sample(context.mask_dist(masks.END_PUNCTUATION)):
        token = await self.sample(context.next_token())
        end = token.token_str
    return word, mid, end
