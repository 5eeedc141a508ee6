"""Plain objects: the kernel's arithmetic of keys against the machine's frames, which know nothing of it."""

from __future__ import annotations

import random
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from outlines_core.compile import clear_cache
from outlines_core.json_objects import ObjectForms

KEYS = ["a", "b", "ab", "abc", "ba", "", "é", 'q"', "\\", "zz", *(f"k{n}" for n in range(130))]
TOKENS = [
    '":',
    '": ',
    '","',
    '", "',
    '{"',
    '"}',
    "a",
    "ab",
    '"a',
    '"ab":',
    '":1,"',
    '":"",',
    '":{},',
    "}}",
    '{"a":',
    "k1",
]


@pytest.fixture(scope="module")
def vocabulary() -> oc.Vocabulary:
    tokens = {bytes([b]): [b] for b in range(256)}
    for k, word in enumerate(TOKENS):
        tokens.setdefault(word.encode(), [300 + k])
    return oc.Vocabulary(299, tokens)


def objects(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    values: st.SearchStrategy[Any] = st.sampled_from(
        [
            {"type": "string"},
            {"type": "integer"},
            {"enum": ["a", 1]},
            True,
            False,
            {"type": "array", "items": {"const": 1}},
        ]
    )
    if depth:
        values = values | objects(depth - 1)
    few = st.lists(st.sampled_from(KEYS[:12]), unique=True, max_size=6)
    many = st.integers(min_value=60, max_value=len(KEYS)).map(lambda n: KEYS[:n])
    keys = st.one_of(few, few, many)

    @st.composite
    def schema(draw: st.DrawFn) -> dict[str, Any]:
        own = draw(keys)
        made: dict[str, Any] = {"type": "object"}
        if len(own) > 12:
            made["properties"] = dict.fromkeys(own, draw(values))
        else:
            made["properties"] = {key: draw(values) for key in own}
        made["required"] = draw(st.lists(st.sampled_from([*own[:8], "more"]), unique=True, max_size=3))
        others = draw(st.sampled_from([None, False, {"type": "integer"}, {"type": "object"}]))
        if others is not None:
            made["additionalProperties"] = others
        return made

    return schema()


def compiled(schema: dict[str, Any], vocabulary: oc.Vocabulary, order: str) -> Any:
    try:
        return oc.compile_json_schema(schema, vocabulary, property_order=order)  # type: ignore[arg-type]
    except oc.UnsatisfiableError as error:
        return str(error)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(schema=objects(2), order=st.sampled_from(["schema", "any"]), seed=st.integers(0, 1 << 20))
def test_the_kernel_finds_the_same_states(
    vocabulary: oc.Vocabulary, schema: dict[str, Any], order: str, seed: int
) -> None:
    fast = compiled(schema, vocabulary, order)
    enter = ObjectForms.enter

    def only_fast(self: ObjectForms, frame: Any) -> int:
        return enter(self, frame) if self._tables is fast._core else 0

    with mock.patch.object(ObjectForms, "enter", only_fast):
        clear_cache()
        slow = compiled(schema, vocabulary, order)
        if isinstance(fast, str):
            assert slow == fast
            return
        assert slow._core is not fast._core
        rng = random.Random(seed)
        for _ in range(4):
            alike(fast, slow, vocabulary, rng)


def alike(fast: Any, slow: Any, vocabulary: oc.Vocabulary, rng: random.Random) -> None:
    """A random walk, which prefers what closes keys and values; masks, completions and explanations are the same."""
    states = fast.initial_state, slow.initial_state
    rows = oc.allocate_bitmask(2, vocabulary)
    liked = {34, 44, 58, 123, 125, *range(300, 300 + len(TOKENS))}
    for n in range(60):
        for automaton, state, row in zip((fast, slow), states, rows, strict=True):
            automaton.fill_mask(state, row)
        assert np.array_equal(*rows)
        assert fast.is_accepting(states[0]) == slow.is_accepting(states[1])
        if n % 10 == 0:
            assert fast.completion(states[0]) == slow.completion(states[1])
            explained = fast.explain(states[0]), slow.explain(states[1])
            if '":" is expected' not in explained[0]:  # before a colon, frames do not know the key yet
                assert explained[0] == explained[1]
        ids = [i for i in unpack_ids(rows[0]).tolist() if i != 299]
        if not ids:
            return
        token = rng.choice([i for i in ids if i in liked] or ids if rng.random() < 0.6 else ids)
        states = fast.next_state(states[0], token), slow.next_state(states[1], token)
