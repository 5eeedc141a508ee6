"""docs/compatibility.md is true: every row is called, every public name of the drop-in has a row."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import json
import pickle
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import outlines_core as oc
from outlines_core import json_schema
from outlines_core.kernels import numpy as for_numpy

ROOT = Path(__file__).resolve().parents[2]
ROWS = dict(
    re.findall(
        r"^\| `(.+?)` \| (same|better|different) \|",
        (ROOT / "docs/compatibility.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)
CALLS = {}


def row(name, *more):
    """Register the function that calls a row."""

    def register(function):
        for one in (name, *more):
            assert one not in CALLS
            CALLS[one] = function
        return function

    return register


def vocabulary():
    return oc.Vocabulary(3, {"a": [0], "b": [1], "ab": [2]})


def index():
    return oc.Index("(ab)+", vocabulary())


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_true(name):
    CALLS[name]()


def test_every_call_has_a_row_and_every_name_too():
    assert CALLS.keys() == ROWS.keys()
    listed = " ".join(ROWS)
    for kind in (oc.Vocabulary, oc.Index, oc.Guide):
        assert f"{kind.__name__}(" in listed
    theirs = {
        "Vocabulary": "get insert remove get_eos_token_id from_binary from_pretrained",
        "Index": "get_initial_state get_allowed_tokens get_next_state is_final_state get_final_states get_transitions "
        "from_binary",
        "Guide": "get_state get_tokens advance rollback_state get_allowed_rollback accepts_tokens is_finished "
        "write_mask_into reset from_binary",
    }
    for kind, names in theirs.items():
        assert {f"{kind}.{name}" for name in names.split()} <= ROWS.keys()
    said = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in said or f"json_schema.{name}`" in said for name in json_schema.__all__)


def test_the_shim_has_the_version_that_the_submodule_says():
    shim = tomllib.loads((ROOT / "packaging/outlines_core/pyproject.toml").read_text(encoding="utf-8"))
    assert shim["project"]["version"] == importlib.import_module("outlines_core.outlines_core").__version__
    assert "packages" in shim["tool"]["setuptools"]
    assert shim["tool"]["setuptools"]["packages"] == []


@row("Vocabulary(eos_token_id, map)")
def _():
    assert oc.Vocabulary(3, {b"a": [0]}) == oc.Vocabulary(3, {"a": [0]}) != oc.Vocabulary(4, {"a": [0]})
    assert oc.Vocabulary([3, 4], {"a": [0]}).eos_token_ids == (3, 4)
    with pytest.raises(TypeError, match="Expected a dict with keys of type str or bytes and .*, got int"):
        oc.Vocabulary(3, 5)
    with pytest.raises(TypeError, match="Dict keys or/and values of the wrong types"):
        oc.Vocabulary(3, {"a": [0], b"b": [1]})
    with pytest.raises(ValueError, match="EOS token should not be inserted into Vocabulary"):
        oc.Vocabulary(3, {"a": [3]})
    with pytest.raises(ValueError, match="stands for both"):
        oc.Vocabulary(3, {"a": [0], "b": [0]})
    assert copy.deepcopy(vocabulary()) == vocabulary() == pickle.loads(pickle.dumps(vocabulary()))


@row("Vocabulary.get", "Vocabulary.insert", "Vocabulary.remove", "Vocabulary.get_eos_token_id", "len(Vocabulary)")
def _():
    some = vocabulary()
    built = oc.Index("[abc]", some)
    some.insert("c", 5)
    some.insert(b"a", 6)
    assert (some.get("a"), some.get(b"c"), some.get("z"), len(some)) == ([0, 6], [5], None, 6)
    assert built.get_allowed_tokens(built.get_initial_state()) == [0, 1]
    some.remove("a")
    some.remove("zz")
    assert some.get("a") is None
    assert some.get_eos_token_id() == 3
    with pytest.raises(ValueError, match="EOS token should not be inserted"):
        some.insert("d", 3)
    for call in (some.get, some.remove, lambda token: some.insert(token, 9)):
        with pytest.raises(TypeError, match='Expected a token of type str or bytes, got "int"'):
            call(3)


@row("Vocabulary.from_binary", "Index.from_binary", "Guide.from_binary", "Index.__reduce__")
def _():
    guide = oc.Guide(index())
    guide.advance(2)
    for value in (vocabulary(), index(), guide):
        make, (binary,) = value.__reduce__()
        assert make == type(value).from_binary
        assert isinstance(binary, bytes)
        assert type(value).from_binary(binary) == value
        with pytest.raises(ValueError, match=f"Deserialization of {type(value).__name__} failed"):
            type(value).from_binary(b"x")


@row("Vocabulary.from_pretrained")
def _():
    vocabulary = oc.Vocabulary.from_pretrained(str(ROOT / "processors/data/embedded"))
    assert vocabulary.get_eos_token_id() == 1
    assert vocabulary.get("the") is not None


@row("repr(Vocabulary)")
def _():
    assert repr(vocabulary()) == repr(vocabulary()) != repr(oc.Vocabulary(3, {"a": [0], "b": [1], "ac": [2]}))


@row("Index(regex, vocabulary)")
def _():
    assert index() == index() != oc.Index("(ab)*", vocabulary())
    low = oc.Index("^a|ab$", vocabulary())
    assert low.get_allowed_tokens(low.get_initial_state()) == [0, 2]
    with pytest.raises(ValueError, match="Failed to build DFA"):
        oc.Index("a(", vocabulary())
    with pytest.raises(ValueError, match=r"provided is incompatible with the regex '\[z\]'. .* \[\"z\"\]"):
        oc.Index("[z]", vocabulary())
    with pytest.raises(ValueError, match=r"Limits\.max_nfa_states"):
        oc.Index("a{1000}{1000}{10}", vocabulary())
    for arguments in ((3, vocabulary()), ("a", 3)):
        with pytest.raises(TypeError):
            oc.Index(*arguments)
    with pytest.raises(TypeError, match="unhashable"):
        hash(index())


@row(
    "Index.get_initial_state",
    "Index.get_allowed_tokens",
    "Index.get_next_state",
    "Index.is_final_state",
    "Index.get_final_states",
    "Index.get_transitions",
)
def _():
    some = index()
    start = some.get_initial_state()
    assert some.get_allowed_tokens(start) == [0, 2]
    assert some.get_allowed_tokens(9999) is some.get_next_state(9999, 0) is some.get_next_state(start, 1) is None
    end = some.get_next_state(start, 2)
    assert some.get_final_states() == {end}
    assert some.is_final_state(end)
    assert not some.is_final_state(9999)
    assert some.get_next_state(end, 3) is None
    middle = some.get_next_state(start, 0)
    again = some.get_next_state(end, 0)
    edges = {start: {0: middle, 2: end}, middle: {1: end}, end: {0: again, 2: end, 3: end}}
    assert some.get_transitions() == edges | {again: {1: end}}


@row(
    "Guide(index, max_rollback)",
    "Guide.get_state",
    "Guide.get_tokens",
    "Guide.advance",
    "Guide.rollback_state",
    "Guide.get_allowed_rollback",
    "Guide.accepts_tokens",
    "Guide.is_finished",
    "Guide.reset",
)
def _():
    guide = oc.Guide(index=index(), max_rollback=2)
    start = guide.get_state()
    assert guide.get_tokens() == [0, 2]
    with pytest.raises(ValueError, match=f"No next state found for the current state: {start} with token ID: 1"):
        guide.advance(1)
    assert guide.advance(0) == [1]
    assert guide.advance(token_id=1, return_tokens=False) is None
    assert guide.is_finished()
    assert guide.accepts_tokens([2, 0, 1])
    assert not guide.accepts_tokens([1])
    assert not guide.accepts_tokens([3])
    assert guide.get_allowed_rollback() == 2
    message = r"Cannot roll back 3 step\(s\): only 2 states stored \(max_rollback = 2\)"
    with pytest.raises(ValueError, match=message):
        guide.rollback_state(3)
    guide.rollback_state(2)
    assert guide.get_state() == start
    guide.advance(2)
    assert guide.advance(3) == [3]
    guide.reset()
    assert guide == oc.Guide(index())
    assert guide.get_allowed_rollback() == 0


@row("Guide.write_mask_into", "kernels.numpy.allocate_token_bitmask", "kernels.numpy.fill_next_token_bitmask")
def _():
    guide = oc.Guide(index())
    mask = for_numpy.allocate_token_bitmask(40)
    assert (mask.dtype, mask.tolist()) == (np.int32, [[-1, -1]])
    for_numpy.fill_next_token_bitmask(guide, mask)
    assert mask.tolist() == [[0b101, 0]]
    for wrong, message in (
        (mask.astype(np.int64), "Invalid mask dtype"),
        (mask[0], "Expected a 2D array, but got 1D"),
        (np.zeros((2, 1), np.int32), "Batch mask writes are not supported"),
        (np.zeros((1, 8), np.int32)[:, ::2], "must be contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            for_numpy.fill_next_token_bitmask(guide, wrong)
    address = mask.ctypes.data
    for arguments, message in (
        ((address, 2, 8), "Invalid element size: got 8 bytes per element, expected 4"),
        ((0, 2, 4), "Invalid data pointer: received a null pointer"),
        ((address + 1, 1, 4), "Invalid data pointer alignment"),
        ((address, 0, 4), r"Invalid buffer size: got 0 elements \(0 bytes\), expected 1 elements \(4 bytes\)"),
    ):
        with pytest.raises(ValueError, match=message):
            guide.write_mask_into(*arguments)


@row("kernels.numpy.apply_token_bitmask_inplace")
def _():
    mask = np.array([[0b101]], np.int32)
    for dtype in (np.float16, np.float32, np.float64):
        logits = np.ones((1, 40), dtype)
        for_numpy.apply_token_bitmask_inplace(logits, mask)
        assert np.flatnonzero(logits[0] == 1).tolist() == [0, 2]
        assert np.isneginf(logits).sum() == 38
    row_of_two = np.ones(6, np.float32)[::2]
    for_numpy.apply_token_bitmask_inplace(row_of_two, mask[0])
    assert row_of_two.tolist() == [1, -np.inf, 1]
    for logits, wrong, message in (
        (np.ones((1, 3)), mask.astype(np.int64), "Invalid mask dtype"),
        (np.ones((1, 3)), mask[None], "Invalid mask dimensions"),
        (np.ones((1, 1, 3)), mask, "Invalid logits dimensions"),
        (np.ones((2, 3)), mask, "Invalid batch size"),
    ):
        with pytest.raises(ValueError, match=message):
            for_numpy.apply_token_bitmask_inplace(logits, wrong)
    with pytest.raises(TypeError, match="float16"):
        for_numpy.apply_token_bitmask_inplace(np.ones((1, 3), np.int32), mask)


@row(
    "kernels.torch.allocate_token_bitmask",
    "kernels.torch.fill_next_token_bitmask",
    "kernels.torch.apply_token_bitmask_inplace",
)
def _():
    torch = pytest.importorskip("torch")
    from outlines_core.kernels import torch as for_torch

    guide = oc.Guide(index())
    mask = for_torch.allocate_token_bitmask(40)
    assert (mask.dtype, mask.tolist()) == (torch.int32, [[-1, -1]])
    for_torch.fill_next_token_bitmask(guide, mask)
    assert mask.tolist() == [[0b101, 0]]
    for logits in (
        *(torch.ones((1, 70), dtype=d) for d in (torch.float16, torch.bfloat16, torch.float32, torch.float64)),
        torch.ones((70, 1)).T.expand(1, 70).clone(memory_format=torch.contiguous_format)[:, :70],
        torch.ones((1, 140))[:, ::2],
    ):
        for_torch.apply_token_bitmask_inplace(logits, mask)
        assert torch.nonzero(logits[0] == 1).flatten().tolist() == [0, 2]
        assert int(torch.isneginf(logits).sum()) == 68
    for wrong, message in (
        (mask.long(), "Invalid mask dtype"),
        (mask[0], "Invalid mask dimensions"),
        (torch.zeros((2, 2), dtype=torch.int32), "Invalid batch size"),
    ):
        with pytest.raises(ValueError, match=message):
            for_torch.fill_next_token_bitmask(guide, wrong)
        with pytest.raises(ValueError, match=message):
            for_torch.apply_token_bitmask_inplace(torch.ones((1, 70)), wrong)
    with pytest.raises(ValueError, match="must be contiguous"):
        for_torch.fill_next_token_bitmask(guide, torch.zeros((1, 4), dtype=torch.int32)[:, ::2])
    with pytest.raises(ValueError, match="Invalid logits dimensions"):
        for_torch.apply_token_bitmask_inplace(torch.ones(70), mask)


@row("kernels.mlx.apply_token_bitmask")
def _():
    mx = pytest.importorskip("mlx.core")
    from outlines_core.kernels import mlx as for_mlx

    mask = for_mlx.allocate_token_bitmask(40)
    for_mlx.fill_next_token_bitmask(oc.Guide(index()), mask)
    masked = np.array(for_mlx.apply_token_bitmask(mx.ones((1, 70)), mask))
    assert np.flatnonzero(masked[0] == 1).tolist() == [0, 2]
    assert np.isneginf(masked).sum() == 68


@row("json_schema.build_regex_from_schema")
def _():
    build = oc.json_schema.build_regex_from_schema
    assert (
        build(json_schema='{"type": "integer"}', whitespace_pattern=None, max_recursion_depth=3)
        == oc.json_schema.INTEGER
    )
    assert re.fullmatch(build('{"type": "integer", "minimum": 3}'), "3")
    assert not re.fullmatch(build('{"type": "integer", "minimum": 3}'), "2")
    with pytest.raises(TypeError, match=r"Expected a valid JSON string\."):
        build("{")


@row("json_schema.STRING", "json_schema.DATE", "json_schema.TIME", "json_schema.URI", "json_schema.EMAIL")
def _():
    for pattern, text in (
        (json_schema.STRING, r'"a\n"'),
        (json_schema.DATE, '"2024-01-31"'),
        (json_schema.TIME, '"10:11:12.5"'),
        (json_schema.URI, '"https://example.org/a"'),
        (json_schema.EMAIL, '"a@b.org"'),
        (json_schema.UUID, '"01234567-89ab-cdef-0123-456789abcdef"'),
        (json_schema.DATE_TIME, '"2024-01-31T10:11:12Z"'),
    ):
        assert re.fullmatch(pattern, text)
        json.loads(text)


@row("outlines_core.outlines_core")
def _():
    module = importlib.import_module("outlines_core.outlines_core")
    assert (module.Guide, module.Index, module.Vocabulary) == (oc.Guide, oc.Index, oc.Vocabulary)
    assert module.json_schema is oc.json_schema


class Tokenizer:
    vocabulary = {"</s>": 0, "1": 1, "a": 2}
    special_tokens = {"</s>"}
    eos_token_id = 0

    def convert_token_to_string(self, token):
        return token


@row(
    "fsm.guide.Write",
    "fsm.guide.Generate",
    "fsm.guide.StopAtEOSGuide",
    "fsm.guide.RegexGuide",
    "fsm.guide.create_states_mapping",
    "fsm.guide.create_states_mapping_from_fsm",
)
def _():
    from outlines_core.fsm import guide as fsm

    guide = fsm.RegexGuide.from_regex("[1-9]", Tokenizer())
    assert guide.get_next_instruction(0) == fsm.Generate([1])
    assert guide.get_next_instruction(guide.get_next_state(0, 1)) == fsm.Write([0])
    index, empty, finals = fsm.create_states_mapping("[1-9]", Tokenizer())
    assert (index.get_transitions(), empty, finals) == ({0: {1: 1}}, set(), {1})
    machine = importlib.import_module("interegular").parse_pattern("[1-9]").to_fsm()
    assert fsm.create_states_mapping_from_fsm(machine, Tokenizer())[0] == index
    assert fsm.StopAtEOSGuide(Tokenizer()).get_next_state(0, 0) == 1


@row(
    "fsm.regex.Index",
    "fsm.regex.Vocabulary.from_dict",
    "fsm.regex.make_byte_level_fsm",
    "fsm.regex.make_deterministic_fsm",
    "fsm.regex.create_fsm_index_tokenizer",
    "fsm.regex.create_fsm_index_end_to_end",
    "fsm.regex.reduced_vocabulary",
)
def _():
    from outlines_core.fsm import regex as fsm

    machine = importlib.import_module("interegular").parse_pattern("[1-9]").to_fsm()
    better, _ = fsm.make_deterministic_fsm(fsm.make_byte_level_fsm(machine.reduce(), keep_utf8=True))
    tokens, empty = fsm.reduced_vocabulary(Tokenizer())
    assert (tokens, empty) == ({"1": [1], "a": [2]}, set())
    some = fsm.Vocabulary.from_dict(tokens)
    assert fsm.create_fsm_index_end_to_end(better.fsm_info, some, frozenset()) == {0: {1: 1}}
    assert fsm.create_fsm_index_tokenizer(better, Tokenizer())[0] == fsm.Index(better.fsm_info, some, 0)


@row("fsm.json_schema.to_regex")
def _():
    from outlines_core.fsm.json_schema import to_regex

    assert to_regex({"type": "integer"}) == json_schema.INTEGER
