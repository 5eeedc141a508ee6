"""JSON values within grammars, and several starts: against lark, `json`, `jsonschema`; masks against the walk."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import re
from functools import cache
from typing import Any

import jsonschema
import lark
import numpy as np
import pytest
from lark.exceptions import LarkError

import outlines_core as oc
from outlines_core.grammar_composed import ComposedCore, UnionCore
from outlines_core.regex_core import RegexCore

PIECES = [
    '{"',
    '": ',
    '"}',
    '"}\n',
    "}\n",
    "} ",
    "1,",
    "12",
    ' {"a',
    'call {"a":',
    "{}",
    "{}\ncall",
    '":1}\ncall',
    '"a"',
    "tru",
    "e ",
    "5\n",
    "\n\n",
    "1 ",
    "1}",
    "]x",
    '"x',
    'x"',
    "xx",
    "x[1",
]
VOCABULARY = oc.Vocabulary(
    256,
    {bytes([b]): [b] for b in range(256)} | {piece.encode(): [300 + k] for k, piece in enumerate(PIECES)},
    special_tokens={"<|x|>": 258, "<|y|>": 259, "<|eos|>": 256},
)


def extended(grammar: str, vocabulary: oc.Vocabulary = VOCABULARY, **options: Any) -> Any:
    return oc.compile_grammar(grammar, vocabulary, dialect="extended", **options)


def accepts(automaton: Any, text: str) -> bool:
    ids = list(text.encode())
    n, state = automaton.accept_tokens(automaton.initial_state, ids)
    return n == len(ids) and bool(automaton.is_accepting(state))


def parses(parser: lark.Lark, text: str, start: str | None = None) -> bool:
    try:
        parser.parse(text, start=start)
    except LarkError:
        return False
    return True


class Oracle:
    """Texts of a grammar with ``%json`` in it: values of the text, replaced one by one by characters of their own."""

    SIGNS = "\u2603\u2604"

    def __init__(self, grammar: str, schemas: list[Any]) -> None:
        plain = grammar
        for sign, schema in zip(self.SIGNS, schemas, strict=False):
            plain = plain.replace(f"%json {json.dumps(schema)}", f'"{sign}"')
        self._parser = lark.Lark(plain, parser="earley", lexer="dynamic_complete", ambiguity="forest")
        self._schemas = schemas
        self.parses = cache(self._parses)
        self._known = cache(lambda text: parses(self._parser, text))
        self._valid = cache(self._is_valid)

    def _is_valid(self, text: str, k: int) -> bool:
        try:
            value = json.loads(text, object_pairs_hook=self._unique)
        except ValueError:
            return False
        return text == text.strip() and jsonschema.Draft202012Validator(self._schemas[k]).is_valid(value)

    @staticmethod
    def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key comes twice")
        return dict(pairs)

    def _parses(self, text: str, begin: int = 0) -> bool:
        if self._known(text):
            return True
        for i in range(begin, len(text)):
            for j in range(i + 1, len(text) + 1):
                for k, sign in enumerate(self.SIGNS[: len(self._schemas)]):
                    if self._valid(text[i:j], k) and self.parses(text[:i] + sign + text[j:], i + 1):
                        return True
        return False


@pytest.mark.parametrize("lexer", ["contextual", "dynamic_complete", "scannerless"])
@pytest.mark.parametrize(
    ("grammar", "schemas", "pieces"),
    [
        (
            'start: ("x" %json {0})+ | "x"',
            [{"type": "object", "properties": {"a": {"type": "integer"}}}],
            '{ } "a" : 1 x',
        ),
        ('start: "[" %json {0} "]" | %json {0} "1"', [{"type": "array"}], '[ ] , 1 " '),
        ('start: %json {0} | %json {0} "x" %json {1}', [{"type": "integer"}, {"type": "string"}], '1 0 - x "" " '),
        ('start: %json {0} " "? %json {1} "1"?', [True, {"enum": [1, "a", None]}], '1 "a" null  [] -'),
        ('start: A %json {0} | A\nA: "x"+\n%ignore " "', [{"enum": [[], {}, "x", 1]}], '[ ] { } 1 "x" x'),
    ],
)
def test_values_stand_where_the_grammar_has_them(lexer: str, grammar: str, schemas: list[Any], pieces: str) -> None:
    for k, schema in enumerate(schemas):
        grammar = grammar.replace(f"{{{k}}}", json.dumps(schema))
    automaton = extended(grammar, lexer=lexer)
    oracle = Oracle(grammar, schemas)
    positive = 0
    alphabet = [*pieces.split(" "), " "] if "" not in pieces.split(" ") else [p or " " for p in pieces.split(" ")]
    for n in range(5):
        for chosen in itertools.product(dict.fromkeys(alphabet), repeat=n):
            text = "".join(chosen)
            expected = oracle.parses(text)
            positive += expected
            assert accepts(automaton, text) == expected, text
    assert positive > 2


GRAMMARS: list[tuple[str, dict[str, Any]]] = [
    (
        """start: ("call " %json {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
                          "additionalProperties": false} "\\n")+""",
        {},
    ),
    ('start: %json {} "\\n" | "x" %json {"type": "integer"} " " start', {}),
    (
        """start: <|x|> %json {"type": "array", "items": {"enum": [1, 2, "}"]}, "uniqueItems": true} <|y|> text
         | text " " %json {"type": "object"}
        text: WORD | %json {"type": "string", "maxLength": 3}
        WORD: /[a-z]+/
        %ignore /\\n/""",
        {},
    ),
    ('start: "a" (%json {"type": "object", "maxProperties": 1} | %json {"type": "number"})*', {"lexer": "scannerless"}),
    ('start: "x" %json {"type": "array"}*\nother: %json {"const": 5} "x" | "xx"', {"start": ("start", "other")}),
]


@pytest.mark.parametrize(("grammar", "options"), GRAMMARS)
def test_masks_and_steps_are_those_of_the_walk(grammar: str, options: dict[str, Any]) -> None:
    automaton = extended(grammar, **options)
    core = automaton._core
    assert isinstance(core, ComposedCore)
    rng = random.Random(7)
    states = [automaton.initial_state]
    for state in states:
        allowed = automaton.allowed_tokens(state).tolist()
        known = core.masks.pop(state)
        core.filtered = True  # what is inherited then
        core.dfa.allowed[: core.dfa.n_states] = 1
        words = np.zeros(core.n_words + 1, dtype=np.uint32)
        core._path[0] = state
        core.dfa.walk(core.packed, core._path, words)
        core.filtered = False
        core.masks[state] = known
        assert allowed == core._finish_mask(state, words[:-1]).tolist() or allowed == core.ids(state).tolist()
        for token_id in rng.sample(allowed, min(8, len(allowed))):
            if token_id == 256:
                continue
            target = automaton.next_state(state, token_id)
            assert target != oc.DEAD
            walked = core.dfa.run_token(core.data, core.indptr, token_id, state)
            assert core.ids(walked).tolist() == core.ids(target).tolist()
            assert core.accepts(walked) == core.accepts(target)
            if target not in states and len(states) < 120:
                states.append(target)
        refused = rng.sample(sorted(set(range(core.size)) - set(allowed)), 20)
        assert all(automaton.next_state(state, token_id) == oc.DEAD for token_id in refused)
    assert len(states) > 50


def test_whole_calls() -> None:
    grammar = """
        start: (TEXT | call)+
        call: <|x|> NAME " " %json {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"], "additionalProperties": false
        } <|y|>
        NAME: /[a-z_]+/
        TEXT: /[^{}]+/
    """
    automaton = extended(grammar)

    def run(*parts: str | int) -> int:
        state = automaton.initial_state
        for part in parts:
            for token_id in part.encode() if isinstance(part, str) else [part]:
                state = automaton.next_state(state, token_id)
        return int(state)

    assert automaton.is_accepting(run("Hello", 258, 'weather {"city": "Oslo"}', 259))
    assert not automaton.is_accepting(run("Hello", 258, 'weather {"city": "Oslo"}'))
    assert run("Hello", 258, 'weather {"city": "Bonn"') == oc.DEAD
    assert run(258, "weather  {") == oc.DEAD
    assert run(258, 'weather {"city": "Oslo"} ') == oc.DEAD
    state = run(258, 'w {"city":"O')
    assert b'slo"}' in automaton._core.completion(state)
    assert automaton.forced_tokens(run(258, 'w {"city":"Rome"}')) == [259]
    assert automaton.min_tokens_to_accept(run(258, 'w {"city":"Rome"')) == 2
    assert "<|y|>" in automaton.explain(run(258, 'w {"city":"Rome"}'))
    twin = pickle.loads(pickle.dumps(automaton))
    allowed = automaton.allowed_tokens(automaton.initial_state).tolist()
    assert twin.allowed_tokens(twin.initial_state).tolist() == allowed
    assert automaton.nbytes > 0


@pytest.mark.parametrize(("grammar", "options"), [*GRAMMARS, ('start: %json {} "." start | <|x|> "done"', {})])
def test_texts_can_be_closed_in_time(grammar: str, options: dict[str, Any]) -> None:
    automaton = extended(grammar, **options)
    words = np.zeros(automaton._core.n_words, dtype=np.int32)
    plain = np.zeros_like(words)
    rng = random.Random(3)
    for budget in (0, 0, 1, 2, 3, 5, 8, 13, 21):
        state = automaton.initial_state
        left = budget + automaton.min_tokens_to_accept(state)
        while True:
            assert automaton.min_tokens_to_accept(state) <= left
            automaton.fill_closing_mask(state, left, words)
            automaton.fill_mask(state, plain)
            assert not (words & ~plain).any()
            bits = np.unpackbits(words.view(np.uint8), bitorder="little")
            ids = [i for i in np.flatnonzero(bits).tolist() if i != 256]
            assert bool(bits[256]) == automaton.is_accepting(state)
            if not ids:
                break
            state, left = automaton.next_state(state, rng.choice(ids)), left - 1
        assert automaton.is_accepting(state)
        assert left >= 0


def test_a_schema_without_values_is_an_alternative_that_is_never_taken() -> None:
    automaton = extended('start: "a" | "b" %json false')
    assert accepts(automaton, "a")
    assert automaton.allowed_tokens(automaton.initial_state).tolist() == [ord("a")]
    with pytest.raises(oc.UnsatisfiableError, match="false"):
        extended('start: "b" %json false')


def test_vocabularies_without_some_bytes() -> None:
    tokens = {b"call ": [0], b"{": [1], b"}": [2], b'"': [3], b":": [4], b"}\n": [5], b"\n": [6], b"x": [7], b",": [8]}
    vocabulary = oc.Vocabulary(9, tokens)
    automaton = extended('start: "call " %json {"type": "object", "maxProperties": 0} "\\n" | "xy"', vocabulary)
    assert isinstance(automaton._core, RegexCore)
    assert automaton.forced_tokens(automaton.initial_state) == [0, 1]
    state = automaton.accept_tokens(automaton.initial_state, [0, 1])[1]
    assert automaton.allowed_tokens(state).tolist() == [2, 5, 6]
    with pytest.raises(oc.IncompatibleVocabularyError):
        extended('start: "call " %json {"type": "number"}', vocabulary)


@pytest.mark.parametrize(
    ("grammar", "kind", "message", "needle"),
    [
        ('start: %json {"a: 1}', oc.ConstraintSyntaxError, "Unterminated string", '"a'),
        ('start: "x"\n  | %json {"type":\n "nothing"} "y"', oc.ConstraintSyntaxError, "type", '"nothing"'),
        ('start: %json {"properties": {"b": {"pattern": "(a)\\\\1"}}}', oc.UnsupportedFeatureError, "back-ref", '"(a)'),
        ("start: A\nA: %json {}", oc.ConstraintSyntaxError, "can only stand in a rule", "%json"),
        ("start: %json ", oc.ConstraintSyntaxError, "Expecting value", ""),
    ],
)
def test_errors_in_schemas_point_into_the_grammar(grammar: str, kind: Any, message: str, needle: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        extended(grammar)
    assert caught.value.source == grammar
    assert caught.value.offset == (grammar.index(needle) if needle else len(grammar))


def test_syntax_errors_behind_a_schema_of_several_lines_have_their_place() -> None:
    grammar = 'start: %json {\n  "type": "integer"\n} "x" ;\n'
    with pytest.raises(oc.ConstraintSyntaxError) as caught:
        extended(grammar)
    assert caught.value.offset == grammar.index(";")


# -- several starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lexer", ["contextual", "basic", "dynamic", "dynamic_complete"])
@pytest.mark.parametrize(
    ("grammar", "starts"),
    [
        ('one: A "b"\ntwo: "b" A\nA: /a+/\n%ignore " "', ("one", "two")),
        ('one: A\ntwo: B B?\nA: /[ab]+/\nB: "b"', ("one", "two")),
        ('one: "a" one "b" | A\ntwo: one "c" | "a" two\nA: /a+?b/', ("two", "one")),
        ('one: x "a"\ntwo: x "b"\nthree: "c" | "c" three\nx: "a" | "a" x', ("one", "two", "three")),
        ("one: A*\ntwo: B\nA: /a/\nB: /ab/", ("two", "one")),
    ],
)
def test_several_starts_are_their_union(lexer: str, grammar: str, starts: tuple[str, ...]) -> None:
    lalr = lexer in ("contextual", "basic")
    try:
        parser = lark.Lark(grammar, start=list(starts), parser="lalr" if lalr else "earley", lexer=lexer)
    except LarkError as refusal:
        with pytest.raises(oc.ConstraintSyntaxError, match=re.escape(str(refusal)[:20])):
            oc.compile_grammar(grammar, VOCABULARY, lexer=lexer, start=starts)
        return
    automaton = oc.compile_grammar(grammar, VOCABULARY, lexer=lexer, start=starts)
    texts = ["".join(t) for n in range(6) for t in itertools.product("abc ", repeat=n)]
    language = {text for text in texts if any(parses(parser, text, start) for start in starts)}
    assert {text for text in texts if accepts(automaton, text)} == language
    core = automaton._core
    assert isinstance(core, UnionCore)
    for text in sorted({t[:k] for t in language for k in range(4)}):
        n, state = automaton.accept_tokens(automaton.initial_state, text.encode())
        assert n == len(text)
        words = np.zeros(core.n_words + 1, dtype=np.uint32)
        core._path[0] = state
        core.dfa.walk(core.packed, core._path, words)
        found = np.flatnonzero(np.unpackbits(words[:-1].view(np.uint8), bitorder="little")).tolist()
        assert [i for i in automaton.allowed_tokens(state).tolist() if i != 256] == found


def test_a_start_without_texts_adds_none() -> None:
    automaton = oc.compile_grammar('one: "a"\ntwo: "b" two', VOCABULARY, start=["one", "two"])
    assert automaton.allowed_tokens(automaton.initial_state).tolist() == [ord("a")]
    with pytest.raises(oc.UnsatisfiableError):
        oc.compile_grammar('one: "a" one\ntwo: "b" two', VOCABULARY, start=["one", "two"])
    with pytest.raises(TypeError, match="start"):
        oc.compile_grammar('one: "a"', VOCABULARY, start=[])


def test_several_starts_with_an_incomplete_vocabulary() -> None:
    vocabulary = oc.Vocabulary(3, {b"ab": [0], b"c": [1]})
    automaton = oc.compile_grammar('one: "ab" "c"\ntwo: "a" "c"', vocabulary, start=["one", "two"])
    assert automaton.forced_tokens(automaton.initial_state) == [0, 1]
