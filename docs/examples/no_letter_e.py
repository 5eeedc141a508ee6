"""Text without the letter e: the smallest program that says something to a language model."""

from __future__ import annotations

import asyncio

from processors import load_embedded
from processors.inference import Model, smc_steer
from processors.lm import CachedCausalLM, LMContext


class NoLetterE(Model):
    def __init__(self, lm: CachedCausalLM, prompt: str, max_tokens: int) -> None:
        super().__init__()
        self.context = LMContext(lm, prompt)
        self.left = max_tokens
        self.allowed = lm.masks.where(lambda s: "e" not in s.lower() and "\ufffd" not in s) | lm.masks.EOS

    async def step(self) -> None:
        await self.observe(self.context.mask_dist(self.allowed), True)
        token = await self.sample(self.context.next_token())
        self.left -= 1
        if token in self.context.lm.masks.EOS or self.left == 0:
            self.finish()

    def __str__(self) -> str:
        return str(self.context)


def main(n_particles: int = 5, n_beam: int = 3, max_tokens: int = 20, seed: int = 0):
    lm = CachedCausalLM.from_pretrained(*load_embedded())
    model = NoLetterE(lm, "Nothing is missing here: ", max_tokens)
    return asyncio.run(smc_steer(model, n_particles, n_beam, seed=seed))


if __name__ == "__main__":
    for text, probability in main().posterior().items():
        print(f"{probability:6.3f}  {text!r}")
