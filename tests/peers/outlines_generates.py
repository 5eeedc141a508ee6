"""Outlines on this package: Literal, regex and JSON (pydantic) outputs of the tiny model that ships with it.

Run it in an environment with outlines and torch in which this package stands in for PyPI's outlines_core
(docs/compatibility.md):

    HF_HUB_OFFLINE=1 python tests/peers/outlines_generates.py
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Literal

import outlines
import torch
from pydantic import BaseModel, Field
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = Path(__file__).resolve().parents[2] / "processors" / "data" / "embedded"


class Order(BaseModel):
    item: Literal["tea", "coffee", "coffee beans"]
    cups: int = Field(ge=1, le=12)
    note: str = Field(max_length=12)
    tags: list[Literal["hot", "cold"]] = Field(max_length=2)
    decaf: bool | None = None


def parsed(text):
    Order.model_validate_json(text)
    return True


WORDS = ["a", "ab", "abc", "größer"]
WEIGHT = r"[0-9]{1,4}(\.[0-9]{1,2})?( (kg|g))?\."
CASES = [
    ("Literal", Literal["low", "lower", "1", "12"], lambda text: text in ("low", "lower", "1", "12")),
    ("regex", outlines.regex(WEIGHT), re.compile(WEIGHT).fullmatch),
    ("JSON", Order, parsed),
    ("choice", outlines.types.Choice(WORDS), lambda text: text in WORDS),
]


def main():
    version = importlib.metadata.version("outlines_core")
    print("outlines", importlib.metadata.version("outlines"), "on outlines_core", version)
    assert version.endswith("+dropin"), "this is not the package under test"
    model = outlines.from_transformers(
        AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)
    )
    right = n = 0
    seen = {}
    for name, wanted, judge in CASES:
        for seed in range(8):
            torch.manual_seed(seed)
            text = model("Say: ", wanted, backend="outlines_core", max_new_tokens=200, do_sample=True)
            n += 1
            try:
                good = bool(judge(text))
            except ValueError:
                good = False
            right += good
            seen.setdefault(name, set()).add(text)
            if not good:
                print("WRONG", name, repr(text))
    for name, texts in seen.items():
        print(name, sorted(texts)[:4])
    print(f"{right} of {n} right")
    return right == n


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
