"""Expressions of a grammar, given that they are at most so long: an automaton as a guide.

`context.guide(automaton)` follows the text; `mask_dist(guide)` asks whether the next token is one that the grammar
allows.
"""

from __future__ import annotations

import asyncio

import outlines_core as oc
from processors import load_embedded
from processors.inference import Model, smc_standard
from processors.lm import CachedCausalLM, LMContext

GRAMMAR = r"""
    start: sum
    sum: product | sum ("+" | "-") product
    product: atom | product ("*" | "/") atom
    atom: NUMBER | NAME | "(" sum ")"
    NUMBER: /[1-9][0-9]{0,2}/
    NAME: /[a-z]/
"""


class Expression(Model):
    def __init__(self, lm: CachedCausalLM, prompt: str, automaton: oc.TokenAutomaton, max_tokens: int) -> None:
        super().__init__()
        self.context = LMContext(lm, prompt)
        self.guide = self.context.guide(automaton)
        self.max_tokens = max_tokens

    async def step(self) -> None:
        await self.observe(self.context.mask_dist(self.guide), True)
        token = await self.sample(self.context.next_token())
        if token in self.context.lm.masks.EOS:
            self.finish()
        else:
            self.condition(self.context.token_count < self.max_tokens)

    def __str__(self) -> str:
        return str(self.context)


def main(n_particles: int = 50, max_tokens: int = 12, seed: int = 0):
    lm = CachedCausalLM.from_pretrained(*load_embedded())
    automaton = oc.compile_grammar(GRAMMAR, lm.vocabulary)
    model = Expression(lm, "x = ", automaton, max_tokens)
    model.context.show_eos = False
    return asyncio.run(smc_standard(model, n_particles, seed=seed))


if __name__ == "__main__":
    particles = main()
    print(f"log P(an expression of at most 12 tokens) = {particles.log_ml:.2f}")
    for text, probability in particles.posterior().items():
        print(f"{probability:6.3f}  {text}")
