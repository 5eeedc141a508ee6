"""vLLM's outlines backend on this package: regexes, choices and JSON Schemas on one batch of 16.

Run it in an environment with vLLM in which this package stands in for PyPI's outlines_core (docs/compatibility.md):

    pip uninstall -y outlines_core && pip install . ./packaging/outlines_core
    VLLM_CPU_KVCACHE_SPACE=1 HF_HUB_OFFLINE=1 python tests/peers/vllm_outlines_backend.py MODEL_FOLDER

The model may have random weights. Every output is judged by `re`, by membership, or by jsonschema; the last line
counts those that are right. Afterwards the indexes go through vLLM's disk cache and back.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tempfile

import jsonschema
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.utils import OutlinesDiskCache

import outlines_core

REGEXES = [r"[0-9]{3}-[a-z]{1,8}", r"(19|20)\d\d", r"[ab]+(,[ab]+){2}", r"[A-Z][a-z]{2,6}\.", "(?i:yes|no)"]
CHOICES = [["low", "lower", "lowest"], ["1", "12", "123"], ["a.b", "a+b", "(a)"], ["ja", "nein"], ["größer", "groß"]]
SCHEMAS = [
    {"type": "integer", "minimum": -3, "maximum": 120},
    {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2, "maxItems": 4},
    {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["ok", "n"],
    },
    {"type": "object", "properties": {"d": {"type": "string", "format": "date"}}, "required": ["d"]},
    {"oneOf": [{"type": "null"}, {"const": "none"}]},
    {"type": "string", "pattern": "^[a-z]{2,5}$", "maxLength": 4},
]


def requests():
    """(structured output, is this text right?) of sixteen requests."""
    for pattern in REGEXES:
        yield {"regex": pattern}, lambda text, pattern=pattern: re.fullmatch(pattern, text) is not None
    for choices in CHOICES:
        yield {"choice": choices}, lambda text, choices=choices: text in choices
    for schema in SCHEMAS:

        def judge_json(text, schema=schema):
            try:
                jsonschema.validate(json.loads(text), schema)
            except (ValueError, jsonschema.ValidationError):
                return False
            return True

        yield {"json": schema}, judge_json


def main(folder):
    version = importlib.metadata.version("outlines_core")
    print("outlines_core", version, outlines_core.__file__)
    assert version.endswith("+dropin"), "this is not the package under test"
    llm = LLM(
        folder,
        max_model_len=512,
        enforce_eager=True,
        dtype="bfloat16",
        structured_outputs_config={"backend": "outlines"},
    )
    batch = list(requests())
    parameters = [
        SamplingParams(temperature=1.0, seed=k, max_tokens=64, structured_outputs=StructuredOutputsParams(**wanted))
        for k, (wanted, _) in enumerate(batch)
    ]
    right = 0
    outputs = llm.generate(["Say something: "] * len(batch), parameters)
    for (wanted, judge), output in zip(batch, outputs, strict=True):
        text = output.outputs[0].text
        right += judge(text)
        print("right" if judge(text) else "WRONG", wanted, repr(text))

    vocabulary = outlines_core.Vocabulary(3, {"a": [0], "b": [1], "ab": [2]})
    with tempfile.TemporaryDirectory() as place:
        cache = OutlinesDiskCache(place)
        cache["key"] = outlines_core.Index("(ab)+", vocabulary)
        assert cache["key"] == outlines_core.Index("(ab)+", vocabulary)
    print(f"{right} of {len(batch)} right")
    return right == len(batch)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1]) else 1)
