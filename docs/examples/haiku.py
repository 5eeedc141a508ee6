"""Five, seven and five syllables: words as submodels, a condition on each line.

Each step writes a word. A line that grew too long ends the particle; one that is complete must be followed by the end
of the line. The tokens between words must be tokens of their own: a tokenizer without them is refused, as every
particle would die.
"""

from __future__ import annotations

import asyncio
import re

from processors import load_embedded
from processors.inference import Model, SubModel, smc_standard, submodel
from processors.lm import CachedCausalLM, LMContext

LINES = (5, 7, 5)


def syllables(word: str) -> int:
    """Groups of vowels, roughly as English counts them: a silent e at the end does not count."""
    word = re.sub(r"(?<=[^aeiouy])e$", "", word.strip().lower())
    return max(1, len(re.findall(r"[aeiouy]+", word)))


@submodel
async def word(self: SubModel[str], context: LMContext, max_tokens: int = 4) -> str:
    """Pieces of letters, then anything else; what is to follow is not drawn yet."""
    letters = context.lm.masks.where(lambda s: s.isalpha() and s.islower())
    await self.observe(context.mask_dist(context.lm.masks.where(str.isalpha)), True)
    text = str(await self.sample(context.next_token()))
    for _ in range(max_tokens - 1):
        if not await self.sample(context.mask_dist(letters)):
            return text
        text += str(await self.sample(context.next_token()))
    await self.observe(context.mask_dist(letters), False)
    return text


class Haiku(Model):
    def __init__(self, lm: CachedCausalLM, prompt: str) -> None:
        super().__init__()
        self.context = LMContext(lm, prompt)
        self.line = self.count = 0
        self.between = lm.masks.where(lambda s: s in (" ", ", "))
        self.end_of_line = lm.masks.where(lambda s: s in ("\n", ".\n"))
        for what, mask in (("a space", self.between), ("a line break", self.end_of_line)):
            if not mask:
                raise ValueError(f"no token of this tokenizer is just {what}: this haiku cannot be written with it")

    async def step(self) -> None:
        if self.count:
            await self.observe(self.context.mask_dist(self.between), True)
            await self.sample(self.context.next_token())
        self.count += syllables(await self.call(word(self.context)))
        self.condition(self.count <= LINES[self.line])
        if self.finished or self.count < LINES[self.line]:
            return
        self.line, self.count = self.line + 1, 0
        last = self.line == len(LINES)
        await self.observe(self.context.mask_dist(self.context.lm.masks.EOS if last else self.end_of_line), True)
        await self.sample(self.context.next_token())
        if last:
            self.finish()

    def __str__(self) -> str:
        return str(self.context)


def main(n_particles: int = 20, seed: int = 0):
    lm = CachedCausalLM.from_pretrained(*load_embedded())
    return asyncio.run(smc_standard(Haiku(lm, "A story: "), n_particles, seed=seed))


if __name__ == "__main__":
    for text, probability in main().posterior().items():
        print(f"{probability:6.3f}\n{text}\n")
