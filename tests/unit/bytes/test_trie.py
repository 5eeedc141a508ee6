"""`TokenByteTrie`: masses by kernels, by segments in torch, and by looking at every token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlines_core import Vocabulary
from processors.bytes import TokenByteTrie, TrieMode
from tests.byte_toys import byte_lm

WITH, WITHOUT = TrieMode.WITH_EOS, TrieMode.WITHOUT_EOS
TOKENS = [b"a", b"b", b"ab", b"<eos>", b"ab"]

tokens = st.lists(
    st.binary(min_size=1, max_size=4).map(lambda s: bytes(b"ab<"[b % 3] for b in s)), min_size=1, max_size=10
)
weights = st.floats(0, 1, width=32)


def prefixes(trie, strings):
    """{beginning: node}, by walking."""
    found = {b"": trie.root}
    for string in strings:
        node = trie.root
        for k, byte in enumerate(string):
            node = trie.child(node, byte)
            assert node >= 0
            found[string[: k + 1]] = node
    return found


@settings(deadline=None)
@given(strings=tokens, data=st.data(), dtype=st.sampled_from([np.float32, np.float64]))
def test_masses_are_those_of_the_tokens_below(strings, data, dtype):
    eos = data.draw(st.sets(st.sampled_from(strings), max_size=2))
    trie = TokenByteTrie(strings, eos_byte_strings=eos)
    rows = np.array(data.draw(st.lists(st.tuples(*[weights] * len(strings)), min_size=1, max_size=3)), dtype=dtype)
    nodes = prefixes(trie, strings)
    for mode in (WITH, WITHOUT):
        sums, maxima = trie.batch_weight_sum(rows, mode), trie.batch_weight_max(rows, mode)
        assert sums.dtype == dtype
        assert sums.shape == (len(rows), trie.n_nodes)
        for row, total, largest in zip(rows, sums, maxima, strict=True):
            for beginning, node in nodes.items():
                below = [
                    float(w)
                    for string, w in zip(strings, row, strict=True)
                    if string.startswith(beginning) and (not beginning or mode is WITHOUT or string not in eos)
                ]
                assert total[node] == pytest.approx(sum(below), rel=1e-5, abs=1e-7)
                assert largest[node] == pytest.approx(max(below, default=-np.inf))
            ends = [float(w) for s, w in zip(strings, row, strict=True) if s in eos and mode is WITH]
            assert total[trie.eos_node] == pytest.approx(sum(ends), rel=1e-5, abs=1e-7)
            assert np.array_equal(trie.weight_sum(row, mode), total)  # one row is a batch of one
            assert np.array_equal(trie.weight_max(row, mode), largest)


@settings(deadline=None, max_examples=40)
@given(strings=tokens, data=st.data())
def test_torch_sums_over_segments(strings, data):
    torch = pytest.importorskip("torch")
    eos = data.draw(st.sets(st.sampled_from(strings), max_size=2))
    trie = TokenByteTrie(strings, eos_byte_strings=eos)
    rows = np.array(data.draw(st.lists(st.tuples(*[weights] * len(strings)), min_size=1, max_size=3)))
    for mode in (WITH, WITHOUT):
        for how in ("batch_weight_sum", "batch_weight_max"):
            found = getattr(trie, how)(torch.from_numpy(rows), mode)
            np.testing.assert_allclose(found.numpy(), getattr(trie, how)(rows, mode), rtol=1e-6, atol=1e-9)
            single = getattr(trie, how.removeprefix("batch_"))(torch.from_numpy(rows[0]), mode)
            assert torch.equal(single, found[0])


def test_the_example_with_an_end():
    trie = TokenByteTrie([b"a", b"b", b"ab", b"<eos>"], eos_byte_strings=[b"<eos>"])
    masses = trie.weight_sum([0.1, 0.2, 0.2, 0.5], WITH)
    assert masses[trie.root] == pytest.approx(1.0)
    assert masses[trie.child(trie.root, ord("a"))] == pytest.approx(0.3)
    assert masses[trie.child(trie.root, ord("<"))] == 0.0
    assert masses[trie.eos_node] == pytest.approx(0.5)
    assert trie.weight_sum([0.1, 0.2, 0.2, 0.5])[trie.eos_node] == 0.0  # WITHOUT_EOS is the default


def test_special_tokens_are_spelled_by_their_names():
    lm = byte_lm([b"<", b"<a", b"", b"x", b""], eos=[4], special={"<|u|>": 2, "<|e|>": 4})
    row = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    trie = TokenByteTrie.of(lm)
    node = trie.child(trie.child(trie.root, ord("<")), ord("|"))
    with_end, without = trie.weight_sum(row, WITH), trie.weight_sum(row, WITHOUT)
    assert with_end[trie.child(trie.root, ord("<"))] == pytest.approx(0.6)
    assert with_end[node] == pytest.approx(0.3)
    assert without[node] == pytest.approx(0.55)
    assert with_end[trie.root] == without[trie.root] == pytest.approx(1.0)
    for byte in b"u|>":
        node = trie.child(node, byte)
    assert trie.ending(node, WITH) == [2]
    bare = TokenByteTrie.of(lm, special_tokens=False)
    assert bare.weight_sum(row, WITH)[bare.root] == pytest.approx(0.7)  # the special token weighs nothing
    assert bare.weight_sum(row, WITHOUT)[bare.root] == pytest.approx(0.7)


def test_atomic_tokens_are_symbols_of_their_own():
    trie = TokenByteTrie([b"a", b"ab", b"b"], atomic_byte_strings=[b"ab"])
    masses = trie.weight_sum([0.2, 0.3, 0.5])
    assert masses[trie.child(trie.root, ord("a"))] == pytest.approx(0.2)
    assert masses[trie.atomic_nodes[1]] == pytest.approx(0.3)
    assert masses[trie.root] == pytest.approx(1.0)


@pytest.mark.parametrize("width", [3, 8])
def test_rows_of_any_width(width):
    trie = TokenByteTrie(TOKENS, eos_byte_strings=[b"<eos>"])
    row = np.full(8, 0.125)[:width]
    seen = min(width, 5)
    assert trie.weight_sum(row)[trie.root] == pytest.approx(0.125 * seen)
    assert trie.weight_max(-row)[trie.root] == pytest.approx(-0.125)  # logarithms are fine


def test_children_are_steps_are_masses():
    lm = byte_lm([b"<", b"<a", b"", b"aab", b"", b"ab", b"ab"], eos=[4], special={"<|u|>": 2, "<|e|>": 4}, n_logits=9)
    trie = TokenByteTrie.of(lm)
    row = lm.next_token_logprobs_unbatched([1])
    for mode in (WITH, WITHOUT):
        with np.errstate(divide="ignore"):
            masses = np.log(trie.weight_sum(np.exp(row.astype(np.float64)), mode))
        nodes = [trie.root]
        for node in nodes:
            found = trie.children(node, row, mode)
            for byte in range(256):
                below = trie.child(node, byte)
                step = trie.step(node, byte, row, mode)
                if below < 0:
                    assert found.nodes[byte] == step[0] == -1
                    continue
                nodes.append(below)
                if trie.is_live(below, mode):
                    assert found.nodes[byte] == below
                    assert step == (below, pytest.approx(masses[below]))
                    assert trie.log_mass(below, row, mode) == pytest.approx(masses[below])
                assert found.masses[byte] == step[1] == pytest.approx(masses[below], abs=1e-6)
        assert len(nodes) == trie.n_nodes - 1  # all but eos_node


def test_tiny_weights_are_not_lost():
    lm = byte_lm([bytes([97 + k // 26, 97 + k % 26]) for k in range(26 * 26)] * 40, eos=[0])
    trie = TokenByteTrie.of(lm)
    row = np.full(lm.n_logits, -300.0, dtype=np.float32)  # exp() of it is 0 in float32
    row[1] = 0.0
    found = trie.children(trie.root, row, WITH)
    assert found.masses[ord("z")] == pytest.approx(-300 + np.log(26 * 40))
    deep = np.full(lm.n_logits, -2000.0, dtype=np.float32)
    assert trie.children(trie.root, deep, WITH).masses[ord("z")] == pytest.approx(-2000 + np.log(26 * 40))


def test_the_trie_is_built_once_and_shares_the_masks_own():
    lm = byte_lm(TOKENS, eos=[3])
    assert TokenByteTrie.of(lm) is TokenByteTrie.of(byte_lm(TOKENS, eos=[3], seed=1))
    assert TokenByteTrie.of(lm).text is lm.vocabulary.table.trie
    assert TokenByteTrie.of(lm, [b"b"]) is not TokenByteTrie.of(lm)
    assert TokenByteTrie.of(lm, [b"b"]).eos_token_ids == (1,)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"eos_byte_strings": [b"no"]}, ValueError),
        ({"atomic_byte_strings": [b"no"]}, ValueError),
        ({"eos_byte_strings": [b"a"], "eos_token_ids": [0]}, TypeError),
    ],
)
def test_what_is_refused(arguments, error):
    with pytest.raises(error):
        TokenByteTrie(TOKENS, **arguments)
    with pytest.raises(ValueError, match="empty"):
        TokenByteTrie([b"a", b""])
    with pytest.raises(ValueError, match="row"):
        TokenByteTrie(TOKENS).batch_weight_sum(np.zeros(5))


def test_kernels_are_their_python():
    from outlines_core.kernels import masses

    if not hasattr(masses.node_sums, "py_func"):
        pytest.skip("nothing is compiled")
    trie = TokenByteTrie(TOKENS)
    rng = np.random.default_rng(0)
    padded = np.append(rng.random((2, trie.size)), np.zeros((2, 1)), axis=1)
    own, _ = trie._weights[WITHOUT]._own
    for kernel in (masses.node_sums, masses.node_maxima):
        results = []
        for function in (kernel, kernel.py_func):
            out = np.zeros((2, trie.n_nodes))
            function(padded, trie.text.info, own, np.empty(trie.text.max_depth + 2), out)
            results.append(out)
        assert np.array_equal(*results)


def test_the_warmup_compiles_for_what_beams_bring():
    from outlines_core.kernels import masses
    from outlines_core.warmup import _PARTS

    if not hasattr(masses.node_sums, "signatures"):
        pytest.skip("nothing is compiled")
    _PARTS["masses of bytes"]()
    before = {name: list(getattr(masses, name).signatures) for name in masses.__all__}
    lm = byte_lm(TOKENS, eos=[3])
    trie = TokenByteTrie.of(lm)
    row = lm.next_token_logprobs_unbatched([0])
    trie.children(trie.root, row, WITH)
    trie.step(trie.child(trie.root, ord("a")), ord("b"), row, WITH)
    for dtype in (np.float32, np.float64):
        trie.weight_sum(np.ones(5, dtype))
        trie.weight_max(np.ones(5, dtype))
    assert {name: list(getattr(masses, name).signatures) for name in masses.__all__} == before


def test_a_vocabulary_gives_its_ends():
    assert TokenByteTrie(Vocabulary([3, 5], {"a": [0], "b": [1]})).eos_token_ids == (3, 5)
