"""The two packages named `outlines_core` side by side: PyPI's 0.2.14 and 0.1.26, each in an environment of its own.

    python tests/peers/pypi_outlines_core.py --new PYTHON_WITH_0.2.14 --old PYTHON_WITH_0.1.26

Compared are the whole indexes of random regexes (states matched by walking both), the texts of
`build_regex_from_schema`, the machines of `make_byte_level_fsm` and `make_deterministic_fsm` and the indexes of
`create_states_mapping`. Regexes that the other package is known to get wrong (docs/compatibility.md) are built so that
they cannot come up: no alternative is a prefix of another, nothing may end early, no token spans an end.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys

TOKENS = ["a", "b", "c", "1", "2", ".", "é", "ab", "ba", "a1", "11", "b.", "é1", "\n", "-"]
SCHEMAS = [
    {"type": "integer"},
    {"type": ["string", "null"]},
    {"type": "array", "items": {"type": "number"}, "minItems": 2},
    {"type": "array", "items": {"type": "number"}, "maxItems": 2},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}, "c": {"enum": [1, "x"]}}},
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}}, "required": ["b"]},
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}}, "required": ["a"]},
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"anyOf": [{"type": "string"}, {"const": 2}]},
    {"oneOf": [{"type": "string"}, {"const": 2}]},
    {"prefixItems": [{"type": "string"}, {"type": "null"}]},
    {"type": "object"},
    {"type": "array"},
    {},
    {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#"}}, "required": ["v"]},
]
MACHINES = ["ab|c", "[a-c]+", "[^a-c]+", "[é-í]{2}", "[^é]b?", ".", "[12]{3}-[a-cé]", "(ab|ba|é1)+"]

ASK_NEW = """
import json, sys
from outlines_core import Index, Vocabulary
from outlines_core.json_schema import build_regex_from_schema
asked = json.load(sys.stdin)
vocabulary = Vocabulary(99, {token: [i] for i, token in enumerate(asked["tokens"])})
indexes = []
for regex in asked["regexes"]:
    try:
        index = Index(regex, vocabulary)
    except ValueError:
        indexes.append(None)
        continue
    edges = {str(s): row for s, row in index.get_transitions().items()}
    indexes.append([index.get_initial_state(), sorted(index.get_final_states()), edges])
texts = [build_regex_from_schema(json.dumps(schema)) for schema in asked["schemas"]]
json.dump([indexes, texts], sys.stdout)
"""
ASK_OLD = """
import json, sys
import interegular
from outlines_core.fsm.guide import create_states_mapping
from outlines_core.fsm.regex import make_byte_level_fsm, make_deterministic_fsm
asked = json.load(sys.stdin)
class Tokenizer:
    vocabulary = {token: i for i, token in enumerate(asked["tokens"])} | {"</s>": 99}
    special_tokens = {"</s>"}
    eos_token_id = 99
    def convert_token_to_string(self, token):
        return token
found = []
for pattern in asked["machines"]:
    fsm = interegular.parse_pattern(pattern).to_fsm().reduce()
    row = []
    for keep in (False, True):
        machine, _ = make_deterministic_fsm(make_byte_level_fsm(fsm, keep_utf8=keep))
        edges = sorted((s, sorted(keys.items())) for s, keys in machine.map.items())
        symbols = sorted((str(symbol), key) for symbol, key in machine.alphabet._symbol_mapping.items())
        row.append([sorted(machine.finals), edges, symbols])
    index, empty, finals = create_states_mapping(pattern, Tokenizer())
    edges = {str(s): {str(t): to for t, to in sorted(e.items())} for s, e in sorted(index.get_transitions().items())}
    row.append([edges, sorted(empty), sorted(finals)])
    found.append(row)
json.dump(found, sys.stdout)
"""


def regex_of(rng: random.Random, depth: int) -> str:
    """A random regex all of whose texts end in "." and have no other, so that it ends where nothing can follow."""
    kind = rng.random()
    if depth == 0 or kind < 0.4:
        return rng.choice(["a", "b", "[ab]", "[12]", "é", "[^.a]", r"\d", "c?", "1*", "(?:ab)+", "[a-c&&[^b]]", "-"])
    if kind < 0.8:
        return regex_of(rng, depth - 1) + regex_of(rng, depth - 1)
    if kind < 0.9:
        return f"(?:a{regex_of(rng, depth - 1)}|b{regex_of(rng, depth - 1)})"
    return f"(?:{regex_of(rng, depth - 1)}){rng.choice(['*', '+', '?', '{2}'])}"


def alike(ours, theirs) -> bool:
    """Are two indexes the same automaton under other state numbers?"""
    if ours is None or theirs is None:
        return ours is theirs
    pairs, open_ = {ours[0]: theirs[0]}, [ours[0]]
    for state in open_:
        mine, other = ours[2].get(str(state), {}), theirs[2].get(str(pairs[state]), {})
        if mine.keys() != other.keys() or (state in ours[1]) != (pairs[state] in theirs[1]):
            return False
        for token, to in mine.items():
            if to not in pairs:
                pairs[to] = other[token]
                open_.append(to)
    return True


def ask(python: str, program: str, question: dict, *, isolated: bool):
    arguments = [python, *(["-I"] if isolated else []), "-c", program]
    done = subprocess.run(arguments, input=json.dumps(question), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--new", help="the Python of an environment with outlines_core 0.2.14")
    parser.add_argument("--old", help="the Python of an environment with outlines_core 0.1.26")
    parser.add_argument("--regexes", type=int, default=400)
    args = parser.parse_args()
    wrong = 0
    if args.new:
        rng = random.Random(5)
        regexes = [regex_of(rng, 4) + r"\." for _ in range(args.regexes)]
        asked = {"tokens": TOKENS, "regexes": regexes, "schemas": SCHEMAS}
        ours, theirs = (ask(p, ASK_NEW, asked, isolated=p == args.new) for p in (sys.executable, args.new))
        different = [r for r, a, b in zip(regexes, ours[0], theirs[0], strict=True) if not alike(a, b)]
        texts = [s for s, a, b in zip(SCHEMAS, ours[1], theirs[1], strict=True) if a != b]
        print(f"0.2.14: {len(regexes) - len(different)} of {len(regexes)} indexes alike; different: {different[:5]}")
        print(f"0.2.14: {len(SCHEMAS) - len(texts)} of {len(SCHEMAS)} schemas have the same text; different: {texts}")
        wrong += len(different) + len(texts)
    if args.old:
        asked = {"tokens": TOKENS, "machines": MACHINES}
        ours, theirs = (ask(p, ASK_OLD, asked, isolated=p == args.old) for p in (sys.executable, args.old))
        different = [m for m, a, b in zip(MACHINES, ours, theirs, strict=True) if a != b]
        print(f"0.1.26: {len(MACHINES) - len(different)} of {len(MACHINES)} machines and indexes equal: {different}")
        wrong += len(different)
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
