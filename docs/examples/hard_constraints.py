"""Text without long words: a mask before each token, and weights for what the masks cost.

Masking alone would do the same and forget that it forced anything. Here each particle pays for the probability that its
masks took away, and resampling drops those that were forced to say what the model would not.
"""

from __future__ import annotations

import asyncio

from processors import load_embedded
from processors.inference import Model, smc_standard
from processors.lm import CachedCausalLM, LMContext

LONGEST = 5


def letters_at_end(text: str, before: int = 0) -> int:
    """Letters that a text ends with, those that stood before it included if it is nothing but letters."""
    for character in text:
        before = before + 1 if character.isalpha() else 0
    return before


def stays_short(text: str, before: int) -> bool:
    return all(letters_at_end(text[: k + 1], before) <= LONGEST for k in range(len(text)))


class ShortWords(Model):
    def __init__(self, lm: CachedCausalLM, prompt: str, max_tokens: int) -> None:
        super().__init__()
        self.context = LMContext(lm, prompt)
        self.left = max_tokens
        self.letters = 0
        plain = lm.masks.where(lambda s: s.isascii() and s.isprintable())
        # One mask for each number of letters that the last word has so far. EOS may always come.
        self.masks = [
            (plain & lm.masks.where(lambda s, n=n: stays_short(s, n))) | lm.masks.EOS for n in range(LONGEST + 1)
        ]

    def immutable_properties(self) -> set[str]:
        return {"masks"}

    async def step(self) -> None:
        await self.observe(self.context.mask_dist(self.masks[self.letters]), True)
        token = await self.sample(self.context.next_token())
        self.letters = letters_at_end(str(token), self.letters)
        self.left -= 1
        if token in self.context.lm.masks.EOS or self.left == 0:
            self.finish()

    def __str__(self) -> str:
        return str(self.context)


def main(n_particles: int = 20, max_tokens: int = 30, seed: int = 0):
    lm = CachedCausalLM.from_pretrained(*load_embedded())
    model = ShortWords(lm, "A text without long words: ", max_tokens)
    return asyncio.run(smc_standard(model, n_particles, seed=seed))


if __name__ == "__main__":
    for text, probability in main().posterior().items():
        print(f"{probability:6.3f}  {text!r}")
