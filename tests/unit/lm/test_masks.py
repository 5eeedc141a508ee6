"""`TokenMask` against Python's own sets, and the masks by name."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlines_core import Vocabulary
from processors.lm import Masks, TokenMask

SIZE = 70
sets = st.sets(st.integers(0, SIZE - 1))


@given(sets, sets)
def test_like_a_set(a, b):
    mask, other = TokenMask.of(a, SIZE), TokenMask.of(b, SIZE)
    assert (sorted(mask), len(mask), bool(mask), hash(mask)) == (sorted(a), len(a), bool(a), hash(frozenset(a)))
    assert [i in mask for i in range(-1, SIZE + 2)] == [i in a for i in range(-1, SIZE + 2)]
    assert np.array_equal(np.flatnonzero(mask.bits), sorted(a))
    for op in (operator.and_, operator.or_, operator.sub, operator.xor):
        for left, right in ((mask, other), (mask, b), (a, other), (frozenset(a), other)):
            combined = op(left, right)
            assert isinstance(combined, TokenMask)
            assert combined == op(a, b)
    for op in (operator.le, operator.lt, operator.ge, operator.gt, operator.eq, operator.ne):
        assert op(mask, other) == op(mask, b) == op(a, other) == op(a, b)
    assert (mask.union(b), mask.intersection(b), mask.difference(b)) == (a | b, a & b, a - b)
    assert (mask.issubset(b), mask.issuperset(b)) == (a <= b, a >= b)
    assert mask.isdisjoint(other) == a.isdisjoint(b)


def test_never_changes_and_copies_itself():
    mask = TokenMask.of([1, 2], SIZE)
    with pytest.raises(ValueError, match="read-only"):
        mask.words[0] = 0
    assert copy.copy(mask) is mask
    assert copy.deepcopy(mask) is mask
    assert pickle.loads(pickle.dumps(mask)) == mask


def test_from_words_of_a_guide():
    words = np.array([-1, -1, -1], dtype=np.int32)
    assert sorted(TokenMask.from_words(words, 40)) == list(range(40))
    assert sorted(TokenMask.from_words(words[:1], 40)) == list(range(32))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"0 \.\. 69"):
        TokenMask.of([SIZE], SIZE)
    with pytest.raises(ValueError, match="different models"):
        TokenMask.of([1], 40) & TokenMask.of([1], 41)
    with pytest.raises(TypeError, match="int"):
        TokenMask.of([1], 40) & 1
    with pytest.raises(ValueError, match="words"):
        TokenMask(np.zeros(2, dtype=np.uint32), 20)
    assert "x" not in TokenMask.of([1], 40)


def test_masks_by_name():
    tokens = [" the", " ", " .", "'s", "ing", "a1", ",", ".", "\n", "a b", " \u201cx", b"\xc3", '"', " $5"]
    vocabulary = Vocabulary(
        14,
        {(t if isinstance(t, bytes) else t.encode()): [i] for i, t in enumerate(tokens)},
        special_tokens={"</s>": 14, "<s>": 15},
    )
    masks = Masks(vocabulary, 20)  # 4 ids of padding

    def named(mask):
        return {tokens[i] if i < 14 else i for i in mask}

    assert set(range(16)) == masks.ALL_TOKENS
    assert named(masks.EOS) == {14}
    assert named(masks.STARTS_NEW_WORD) == {" the"}
    assert named(masks.CONTINUES_CURRENT_WORD) == {"'s", "ing"}
    assert named(masks.MID_PUNCTUATION) == {",", '"'}
    assert named(masks.END_PUNCTUATION) == {"."}
    assert named(masks.PUNCTUATION) == {",", '"', "."}
    assert named(masks.CONTAINS_WHITESPACE) == {" the", " ", " .", "\n", "a b", " \u201cx", " $5"}
    assert named(masks.MAX_TOKEN_LENGTH[1]) == {" ", ",", ".", "\n", b"\xc3", '"'}
    assert masks.MAX_TOKEN_LENGTH[0] == masks.EOS
    assert masks.MAX_TOKEN_LENGTH[4] == set(range(14))
    assert masks.MAX_TOKEN_LENGTH[5] is masks.MAX_TOKEN_LENGTH[-1] is masks.ALL_TOKENS
    assert named(masks.token_length_mask(min=3)) == {" the", "ing", "a b", " \u201cx", " $5"}
    assert named(masks.token_length_mask(max=0)) == {14, 15}
    assert masks.token_length_mask() == masks.ALL_TOKENS
    assert copy.deepcopy(masks) is masks
    assert masks.of(frozenset({1, 2})) is masks.of(frozenset({2, 1})) == {1, 2}
    for i in range(600):
        assert masks.of(frozenset({i % 16, i // 16 % 16, i // 256})) == {i % 16, i // 16 % 16, i // 256}
