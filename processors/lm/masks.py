"""Sets of token ids as packed bits, and the sets that programs about text ask for.

A `TokenMask` is to a program what a frozenset of ids is, and to a kernel what a guide's mask is: the same words, laid
out as `outlines_core.bitmask` says. It never changes, so contexts share it and cloning one copies a reference.
"""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Set
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.bitmask import n_words, pack_ids
from outlines_core.vocabulary import Vocabulary

__all__ = ["Masks", "TokenMask"]

_REMEMBERED = 256
"""So many frozensets keep their masks."""


class TokenMask(Set[int]):
    """An immutable set of token ids.

    It compares and combines with any set of ints; the result of an operator is a `TokenMask`.

    Args:
        words: (n_words,) uint32, made read-only; bits at `size` and beyond must be 0.   size: number of ids there are.

    >>> mask = TokenMask.of([1, 33], 40)
    >>> mask == {1, 33}, 33 in mask, len(mask - {1}), sorted({2} | mask)
    (True, True, 1, [1, 2, 33])
    """

    __slots__ = ("__dict__", "size", "words")

    def __init__(self, words: NDArray[np.uint32], size: int) -> None:
        if words.dtype != np.uint32 or words.shape != (n_words(size),):
            raise ValueError(
                f"a mask of {size} ids is {n_words(size)} words of uint32, not {words.shape} {words.dtype}"
            )
        words.setflags(write=False)
        self.words, self.size = words, size

    @classmethod
    def of(cls, ids: Iterable[int], size: int) -> TokenMask:
        """The mask of exactly these ids.  Raises ValueError for an id that is not in 0 .. size - 1."""
        chosen = np.fromiter(map(operator.index, ids), dtype=np.int64)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < size:
            raise ValueError(f"token ids must be in 0 .. {size - 1}, got {chosen.min()} .. {chosen.max()}")
        return cls(pack_ids(chosen, size), size)

    @classmethod
    def from_words(cls, words: NDArray[Any], size: int) -> TokenMask:
        """A copy of a mask as a guide writes it (int32 or uint32), cut or filled up to `size` ids."""
        own = np.zeros(n_words(size), dtype=np.uint32)
        given = np.ascontiguousarray(words).view(np.uint32)[: len(own)]
        own[: len(given)] = given
        if size & 31:
            own[-1] &= np.uint32((1 << (size & 31)) - 1)
        return cls(own, size)

    @cached_property
    def bits(self) -> NDArray[np.bool_]:
        """(size,) bool, read-only: what indexes a row of log-probabilities."""
        packed = self.words.astype("<u4").view(np.uint8)
        bits = np.unpackbits(packed, bitorder="little", count=self.size).view(np.bool_)
        bits.setflags(write=False)
        return bits

    @cached_property
    def _raw(self) -> bytes:
        return self.words.tobytes()  # two of them are compared at once

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """The ids, ascending; read-only."""
        ids = np.flatnonzero(self.bits)
        ids.setflags(write=False)
        return ids

    def __contains__(self, item: object) -> bool:
        try:
            i = operator.index(item)  # type: ignore[arg-type]
        except TypeError:
            return False
        return 0 <= i < self.size and bool(self.words[i >> 5] >> np.uint32(i & 31) & np.uint32(1))

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __len__(self) -> int:
        return int(np.bitwise_count(self.words).sum())

    def __bool__(self) -> bool:
        return bool(self.words.any())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TokenMask) and other.size == self.size:
            return self._raw == other._raw
        return super().__eq__(other)

    __hash__ = Set._hash  # that of a frozenset of the same ids

    def __repr__(self) -> str:
        ids = list(self)
        return f"TokenMask({ids if len(ids) <= 8 else f'{len(ids)} of {self.size} ids'})"

    def __copy__(self) -> TokenMask:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TokenMask:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenMask, (np.array(self.words), self.size)

    def _combined(
        self, other: Any, combine: Callable[[NDArray[np.uint32], NDArray[np.uint32]], NDArray[np.uint32]]
    ) -> TokenMask:
        if not isinstance(other, Iterable):
            raise TypeError(f"a mask combines with sets of token ids, not {type(other).__name__}")
        if not isinstance(other, TokenMask):
            other = TokenMask.of(other, self.size)
        elif other.size != self.size:
            raise ValueError(f"masks of {self.size} and {other.size} ids belong to different models")
        words = combine(self.words, other.words)
        raw = words.tobytes()
        for same in (self, other):  # often, and it has its `bits` and `ids` already
            if raw == same._raw:
                return same
        return TokenMask(words, self.size)

    def __and__(self, other: Any) -> TokenMask:
        return self._combined(other, np.bitwise_and)

    def __or__(self, other: Any) -> TokenMask:
        return self._combined(other, np.bitwise_or)

    def __xor__(self, other: Any) -> TokenMask:
        return self._combined(other, np.bitwise_xor)

    def __sub__(self, other: Any) -> TokenMask:
        return self._combined(other, lambda a, b: a & ~b)

    def __rsub__(self, other: Any) -> TokenMask:
        return self._combined(other, lambda a, b: b & ~a)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__
    intersection, union, difference, symmetric_difference = __and__, __or__, __sub__, __xor__
    issubset, issuperset = Set.__le__, Set.__ge__


class Masks:
    """The masks of a model's tokens, made when they are first asked for.

    Lengths are counted in characters; special tokens are no text and have length 0. Ids that no token has (padded
    embeddings, holes) are in no mask.

    Args:
        vocabulary: which bytes the ids stand for.   size: width of the model's rows.
    """

    def __init__(self, vocabulary: Vocabulary, size: int) -> None:
        self.vocabulary, self.size = vocabulary, size
        self._of_length: dict[tuple[int, float], TokenMask] = {}
        self._of_set: dict[frozenset[int], TokenMask] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Masks:
        return self

    def of(self, ids: Iterable[int]) -> TokenMask:
        """The mask of some ids.  Of a frozenset it is remembered; of other sets it is made each time."""
        if isinstance(ids, TokenMask):
            return ids
        if not isinstance(ids, frozenset):
            return TokenMask.of(ids, self.size)
        if ids not in self._of_set:
            if len(self._of_set) >= _REMEMBERED:
                self._of_set.clear()
            self._of_set[ids] = TokenMask.of(ids, self.size)
        return self._of_set[ids]

    def where(self, accepts: Callable[[str], bool]) -> TokenMask:
        """The text tokens whose text is accepted; broken UTF-8 is shown to it as U+FFFD."""
        return self.of(i for i, text in self._texts.items() if accepts(text))

    @cached_property
    def _texts(self) -> dict[int, str]:
        table = self.vocabulary.table
        tokens = ((i, table.token(i)) for i in range(min(self.size, self.vocabulary.size)))
        return {i: token.decode("utf-8", "replace") for i, token in tokens if token}

    @cached_property
    def _special(self) -> TokenMask:
        ids = {*self.vocabulary.special_tokens.values(), *self.vocabulary.eos_token_ids}
        return self.of(i for i in ids if i < self.size)

    @cached_property
    def ALL_TOKENS(self) -> TokenMask:  # noqa: N802  # the names of programs written for llamppl
        """Every id that is a token, special ones included."""
        return self.of(self._texts) | self._special

    @cached_property
    def EOS(self) -> TokenMask:  # noqa: N802
        """The tokens that end a text."""
        return self.of(i for i in self.vocabulary.eos_token_ids if i < self.size)

    @cached_property
    def STARTS_NEW_WORD(self) -> TokenMask:  # noqa: N802
        """A space and then neither white space nor punctuation."""
        return self.where(lambda s: len(s) > 1 and s[0] == " " and not s[1].isspace() and not _is_punctuation(s[1]))

    @cached_property
    def CONTINUES_CURRENT_WORD(self) -> TokenMask:  # noqa: N802
        """Letters and apostrophes alone."""
        return self.where(lambda s: all(c.isalpha() or c == "'" for c in s))

    @cached_property
    def MID_PUNCTUATION(self) -> TokenMask:  # noqa: N802
        """One of ``, : ; - "``."""
        return self.where(lambda s: s in {",", ":", ";", "-", '"'})

    @cached_property
    def END_PUNCTUATION(self) -> TokenMask:  # noqa: N802
        """One of ``. ! ?``."""
        return self.where(lambda s: s in {".", "!", "?"})

    @cached_property
    def PUNCTUATION(self) -> TokenMask:  # noqa: N802
        return self.MID_PUNCTUATION | self.END_PUNCTUATION

    @cached_property
    def CONTAINS_WHITESPACE(self) -> TokenMask:  # noqa: N802
        return self.where(lambda s: any(c.isspace() for c in s))

    @cached_property
    def MAX_TOKEN_LENGTH(self) -> _ByLength:  # noqa: N802
        """``[n]``: text of at most n characters; ``[0]``: EOS; ``[-1]``, or n past the longest token: ALL_TOKENS."""
        return _ByLength(self)

    def token_length_mask(self, min: int | None = None, max: int | None = None) -> TokenMask:
        """Tokens of `min` to `max` characters, both included; special tokens have none.  Made once for each pair."""
        low, high = 0 if min is None else min, float("inf") if max is None else max
        if (low, high) not in self._of_length:
            text = self.where(lambda s: low <= len(s) <= high)
            self._of_length[low, high] = text | self._special if low <= 0 <= high else text
        return self._of_length[low, high]


class _ByLength:
    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._longest = max(map(len, masks._texts.values()), default=0)
        self._made: dict[int, TokenMask] = {}

    def __getitem__(self, n: int) -> TokenMask:
        if n < 0 or n > self._longest:
            return self._masks.ALL_TOKENS
        if n not in self._made:
            self._made[n] = self._masks.where(lambda s: len(s) <= n) if n else self._masks.EOS
        return self._made[n]


def _is_punctuation(character: str) -> bool:
    """As ``string.punctuation`` for ASCII, and what Unicode calls punctuation beyond."""
    return (
        unicodedata.category(character)[0] in "PS" if character.isascii() else unicodedata.category(character)[0] == "P"
    )
