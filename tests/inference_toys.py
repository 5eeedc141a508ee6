"""Toy problems whose answer is found by writing out every text."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np

import outlines_core as oc
from processors.inference import Model
from processors.lm import LMContext, MockBackend
from tests.lm_toys import toy_lm

TOKENS = {"a": 0, "b": 1, "ab": 2, "c": 3}
EOS = 4
PATTERN = "(ab|c)(a|bc){0,2}b?"


SMALL = "(ab|c)a?b?"  # few texts: their posterior is met closely by a few thousand particles


def problem(seed=0, pattern=PATTERN):
    """A model that is not too sure of anything, and an automaton."""
    mock = MockBackend(5, seed=seed)
    lm = toy_lm(TOKENS, EOS, lambda prefix: 0.5 * mock.logprobs([prefix])[0])
    return lm, oc.compile_regex(pattern, lm.vocabulary)


def exact(lm, accepts=re.compile(PATTERN).fullmatch, prompt=(), max_tokens=9):
    """Probability under the model of each token sequence whose text is accepted, and their sum."""
    found = {}

    def walk(ids, logp):
        row = lm.next_token_logprobs_unbatched([*prompt, *ids]).astype(np.float64)
        text = lm.decode(ids)
        if accepts(text):
            found[ids] = logp + row[EOS]
        if len(ids) < max_tokens:
            for token, i in TOKENS.items():
                if could_go_on(text + token):
                    walk((*ids, i), logp + row[i])

    texts = {t for n in range(8) for t in map("".join, itertools.product("abc", repeat=n)) if accepts(t)}
    beginnings = {text[:k] for text in texts for k in range(len(text) + 1)}
    could_go_on = beginnings.__contains__
    walk((), 0.0)
    probabilities = {ids: math.exp(logp) for ids, logp in found.items()}
    return probabilities, sum(probabilities.values())


def total_variation(estimate, probabilities, z):
    keys = {*estimate, *probabilities}
    return sum(abs(estimate.get(k, 0.0) - probabilities.get(k, 0.0) / z) for k in keys) / 2


class Constrained(Model):
    """The model's text under an automaton, a locally masked proposal with its weight."""

    def __init__(self, lm, automaton):
        super().__init__()
        self.ctx = LMContext(lm, "")
        self.guide = self.ctx.guide(automaton)

    async def step(self):
        await self.observe(self.ctx.mask_dist(self.guide), True)
        token = await self.sample(self.ctx.next_token())
        if token in self.ctx.lm.masks.EOS:
            self.finish()

    def __str__(self):
        return str(self.ctx)


def ids_of(particle):
    return tuple(particle.ctx.tokens[particle.ctx.prompt_token_count : -1])
