"""Held-out scores: what the model makes of texts whose names, values or templates it was never trained on.

Every set has the same number of records of each kind. A record's fields count as right if the JSON has the same value
under the same name; text that is not a JSON object has no right field. `free` is greedy decoding by itself,
`constrained` under the JSON Schema of the record's fields.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import outlines_core as oc
from scripts.embedded.corpus import plain_prompt
from scripts.embedded.draw import Draw, Names
from scripts.embedded.records import KINDS, Record, draw_record, render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DEMO", "SETS", "answers", "held_out_set", "score", "score_set"]

DEMO = "Extract: Maria Lopez, 34, lives in Oslo"
SETS: dict[str, dict[str, bool]] = {
    "trained kinds of text": {},
    "unseen names": {"names": True},
    "unseen values": {"values": True},
    "unseen template family": {"family": True},
    "all unseen": {"names": True, "values": True, "family": True},
}
MAX_NEW_TOKENS = 110
BATCH = 40


def held_out_set(
    seed: int, n_per_kind: int, *, names: bool = False, values: bool = False, family: bool = False
) -> list[Record]:
    """Records and their texts, kind by kind."""
    draw = Draw(seed)
    source = Names(draw, held_out=names)
    return [
        draw_record(draw, source, kind, unseen_family=family, values=values)
        for kind in KINDS
        for _ in range(n_per_kind)
    ]


def answers(model: Any, tokenizer: Any, prompts: Sequence[str], guides: Sequence[Any] | None = None) -> list[str]:
    """Greedy continuations."""
    from processors.generation import Sampler

    sampler = Sampler(model, tokenizer=tokenizer, max_out_length=MAX_NEW_TOKENS, cache_length=512)
    texts: list[str] = []
    for at in range(0, len(prompts), BATCH):
        part = list(prompts[at : at + BATCH])
        texts += sampler.sample(
            part,
            max_new_tokens=MAX_NEW_TOKENS,
            guide=None if guides is None else list(guides[at : at + BATCH]),
            close=guides is not None,
        )
    return texts


def _fields(text: str) -> tuple[bool, dict[str, Any]]:
    """Is the text JSON, and the object that it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return False, {}
    return True, value if isinstance(value, dict) else {}


def score_set(model: Any, tokenizer: Any, records: Sequence[Record]) -> dict[str, Any]:
    """Shares of valid JSON, right fields and right records, free and constrained; of exactly right SQL and Python."""
    from processors.tokenizers import vocabulary_from

    vocabulary = vocabulary_from(tokenizer)
    compiled: dict[str, Any] = {}
    for record in records:
        key = json.dumps(record.schema)
        if key not in compiled:
            compiled[key] = oc.compile_json_schema(record.schema, vocabulary, whitespace="[ ]?")
    guides = [compiled[json.dumps(record.schema)] for record in records]
    prompts = [plain_prompt(record, "json") for record in records]
    result: dict[str, Any] = {"records": len(records)}
    for mode, texts in (
        ("free", answers(model, tokenizer, prompts)),
        ("constrained", answers(model, tokenizer, prompts, guides)),
    ):
        valid = fields = right = whole = 0
        by_kind = dict.fromkeys(KINDS, 0)
        for record, text in zip(records, texts, strict=True):
            is_json, found = _fields(text)
            expected = json.loads(render(record, "json"))
            hits = sum(name in found and found[name] == value for name, value in expected.items())
            valid, fields, right = valid + is_json, fields + len(expected), right + hits
            whole += found == expected
            by_kind[record.kind] += found == expected
        result[mode] = {
            "valid_json": round(valid / len(records), 4),
            "right_fields": round(right / fields, 4),
            "right_records": round(whole / len(records), 4),
            "right_records_by_kind": {
                kind: round(n / sum(r.kind == kind for r in records), 4) for kind, n in by_kind.items()
            },
        }
    for form in ("sql", "python"):
        texts = answers(model, tokenizer, [plain_prompt(record, form) for record in records])
        hits = sum(text == render(record, form) for record, text in zip(records, texts, strict=True))
        result[form] = {"exactly_right": round(hits / len(records), 4)}
    return result


def score(
    model: Any, tokenizer: Any, n_per_kind: int = 40, report: Callable[[str, Any], None] | None = None
) -> dict[str, Any]:
    """All sets, and the demo."""
    sets = {}
    for number, (name, options) in enumerate(SETS.items(), 1):
        sets[name] = score_set(model, tokenizer, held_out_set(number, n_per_kind, **options))
        if report is not None:
            report(name, sets[name])
    return {"demo": {"prompt": DEMO, "answer": answers(model, tokenizer, [DEMO])[0]}, "sets": sets}
