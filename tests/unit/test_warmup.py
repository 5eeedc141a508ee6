"""After `outlines_core.warmup.warmup` no constraint makes numba compile anything.

What a constraint uses of a kernel is a signature: the types of the arrays that it is called with. The quick test
compares signatures, which works whatever is on disk; the slow one begins with an empty cache and listens to numba.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")

WORKLOAD = r"""
import json
import numpy as np
import outlines_core as oc

WORDS = {b'{"': [257], b'": ': [258], b"true": [259], b"a" * 20: [260]}
BYTES = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)} | WORDS)

SCHEMAS = [
    ({"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]}, {"a": 1, "b": "é\n"}),
    ({"type": "string", "pattern": "^[A-Z](x|yz)*$", "maxLength": 300}, "Q" + "yz" * 100),
    ({"type": "string", "pattern": "(^a|b)*$", "minLength": 3}, "abb"),
    ({"type": "string", "pattern": "^[a-z]+$", "maxLength": 18}, "a" * 17),
    ({"type": "string", "minLength": 3, "maxLength": 5000}, "\u20ac" * 200),
    *(({"type": "string", "format": f}, text) for f, text in {
        "date-time": "1999-12-31T23:59:59.5+01:00", "date": "2000-02-29", "time": "01:02:03Z", "duration": "P3DT4H",
        "email": "a.b@example.org", "idn-email": "é@example.org", "hostname": "a-b.example", "ipv4": "127.0.0.1",
        "idn-hostname": "bücher.example", "ipv6": "::1", "uri": "http://a.b/c?d=e#f", "uri-reference": "../a",
        "iri": "http://é.b/ç", "iri-reference": "/é", "uuid": "01234567-89ab-cdef-0123-456789abcdef",
        "uri-template": "/a{b}", "json-pointer": "/a/0/~1", "relative-json-pointer": "1/a",
    }.items()),
    ({"type": "integer", "minimum": -7, "exclusiveMaximum": 10**20, "multipleOf": 7}, 7 * 10**18),
    ({"type": "number", "maximum": 2.5, "multipleOf": 0.01, "not": {"const": 1.5}}, -123456.78),
    ({"type": "array", "items": {"enum": ["x", "y", 1, 2.5]}, "uniqueItems": True}, ["x", 2.5, "y"]),
    ({"type": "array", "uniqueItems": True, "contains": {"type": "object"}, "maxItems": 4}, [1, [1], {"a": [{}]}, "1"]),
    ({"$defs": {"t": {"items": {"$ref": "#/$defs/t"}, "type": "array"}}, "$ref": "#/$defs/t"}, [[[[]], []], []]),
    ({"oneOf": [{"properties": {"k": {"const": i}, "v": {"maxLength": i}}, "required": ["k"]} for i in range(4)]},
     {"k": 3, "v": "abc"}),
    ({"patternProperties": {"^a": {"type": "null"}, "z$": {"type": "null"}}, "propertyNames": {"maxLength": 5},
      "minProperties": 2, "unevaluatedProperties": {"type": "number"}}, {"az": None, "\"b": 3}),
    ({"enum": [f"value {i}" for i in range(3000)]}, "value 2999"),
    (True, json.loads("[" * 40 + "]" * 40)),
]

OPTIONS = [{}, {"property_order": "any", "whitespace": "compact"}, {"whitespace": "[ ]?", "ensure_ascii": True}]

def workload():
    mask = oc.allocate_bitmask(2, BYTES)
    for schema, value in SCHEMAS:
        for options in OPTIONS:
            automaton = oc.compile_json_schema(schema, BYTES, **options)
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=bool(options.get("ensure_ascii")))
            states = [automaton.initial_state] * 2
            automaton.fill_closing_mask(states[0], 100, mask[0])
            automaton.explain(states[0])
            for byte in text.encode():
                oc.fill_masks([automaton] * 2, states, mask)
                automaton.fill_mask(states[0], mask[1].view(np.uint32))
                automaton.forced_bytes(states[0])
                automaton.forced_tokens(states[0])
                states = oc.next_states([automaton] * 2, states, [byte] * 2)
            assert automaton.is_accepting(states[0]), (schema, options)
    for pattern in ("[a-z]+@[a-z]+", r"(?i)stra(ß|ss)e\b.*", "(?=.*[0-9])[a-z0-9]{8,}", "(x$|^y)*z?"):
        automaton = oc.compile_regex(pattern, BYTES)
        for state in [automaton.initial_state]:
            automaton.fill_mask(state, mask[0])
            automaton.next_state(state, 97)
            automaton.fill_closing_mask(state, 30, mask[0])
    oc.compile_choice(["a", "ab", "é"], BYTES).fill_mask(2, mask[0])
"""

SIGNATURES = r"""
import importlib, pkgutil
import outlines_core.kernels as kernels
from outlines_core.warmup import warmup

def signatures():
    for module in pkgutil.iter_modules(kernels.__path__):
        if module.name in ("mlx", "numpy", "torch"):  # bitmask helpers: compiled by themselves, or not numba
            continue
        for name, kernel in vars(importlib.import_module(f"outlines_core.kernels.{module.name}")).items():
            for signature in getattr(kernel, "signatures", ()):
                yield f"{module.name}.{name}{signature}"

warmup()
before = set(signatures())
workload()
print(*sorted(set(signatures()) - before), sep="\n")
"""

COMPILATIONS = r"""
from numba.core import event

class Listener(event.Listener):
    def on_start(self, event):
        print(event.data["dispatcher"].py_func, event.data["args"])
    def on_end(self, event):
        pass

with event.install_listener("numba:compile", Listener()):
    workload()
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_warmup_visits_what_constraints_use():
    done = run("-c", WORKLOAD + SIGNATURES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", f"not compiled by the warmup: {done.stdout}"


@pytest.mark.slow
def test_nothing_is_compiled_after_a_warmup(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "numba"), "OUTLINES_CACHE_DIR": str(tmp_path / "cache")}
    done = run("-m", "outlines_core", "warmup", **environment)
    assert done.returncode == 0, done.stderr
    seconds = re.match(r"kernels ready in (\d+\.\d) s\n", done.stdout)
    assert seconds, done.stdout
    assert str(tmp_path / "numba") in done.stdout
    again = run("-c", WORKLOAD + COMPILATIONS, **environment)
    assert again.returncode == 0, again.stderr
    assert again.stdout == "", f"compiled after the warmup: {again.stdout}"
    third = run("-m", "outlines_core", "warmup", **environment)
    assert float(third.stdout.split()[3]) < max(10.0, float(seconds[1]) / 2)
