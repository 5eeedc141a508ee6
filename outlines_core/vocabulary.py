"""Token id -> bytes: the one thing that a constraint needs to know about a tokenizer.

A `Vocabulary` may be edited (`insert`, `remove`) as the older package allows, but what a constraint is compiled
against is its *snapshot*: an immutable table of arrays with a content fingerprint. Editing afterwards makes a new
table and leaves the compiled ones alone.

Duplicate byte strings keep all their ids. Special tokens and empty tokens are known but are never text.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outlines_core.cache import decode_arrays, encode_arrays
from outlines_core.errors import CacheFormatError, VocabularyError

if TYPE_CHECKING:
    from outlines_core.trie import TokenTrie

__all__ = ["TokenTable", "Vocabulary"]

_MAX_ID = 2**31 - 2
_BINARY_NAMES = frozenset(
    ("eos", "lengths", "counts", "ids", "data", "special_ids", "special_lengths", "special_names", "size")
)


class TokenTable:
    """An immutable snapshot of a vocabulary as arrays.

    Attributes:
        size: 1 + the largest id.     n_words: words of a mask.
        indptr: (size + 1,) int64; the bytes of token t are ``data[indptr[t]:indptr[t + 1]]``, none if t is not text.
        data: (n_bytes,) uint8.
        eos_ids: (n_eos,) int32, sorted.
        fingerprint: hex digest of all this, the same in every process and on every platform.
    """

    __slots__ = ("_trie", "data", "eos_ids", "fingerprint", "indptr", "n_words", "size")

    def __init__(
        self, tokens: Mapping[bytes, Sequence[int]], eos_ids: Sequence[int], special: Iterable[int], size: int
    ) -> None:
        self.size = size
        self.n_words = (size + 31) // 32
        self.eos_ids = np.array(sorted(set(eos_ids)), dtype=np.int32)
        by_id = {i: token for token, ids in tokens.items() for i in ids}
        if len(by_id) != sum(map(len, tokens.values())):
            _refuse_shared_ids(tokens)
        for i in (*special, *eos_ids):
            by_id.pop(i, None)
        ids = np.array(sorted(by_id), dtype=np.int64)
        texts = list(map(by_id.__getitem__, ids.tolist()))
        lengths = np.zeros(size, dtype=np.int64)
        lengths[ids] = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        self.indptr = np.zeros(size + 1, dtype=np.int64)
        np.cumsum(lengths, out=self.indptr[1:])
        self.data = np.frombuffer(b"".join(texts), dtype=np.uint8)
        for array in (self.indptr, self.eos_ids):
            array.setflags(write=False)
        digest = hashlib.sha256(b"vocabulary-1")
        digest.update(struct.pack("<qq", size, len(self.eos_ids)))
        for values, dtype in ((self.indptr, "<i8"), (self.data, "u1"), (self.eos_ids, "<i4")):
            digest.update(np.ascontiguousarray(values, dtype=dtype).tobytes())
        self.fingerprint = digest.hexdigest()
        self._trie: TokenTrie | None = None

    def token(self, token_id: int) -> bytes:
        """The bytes of a text token; b"" for special ids, EOS ids and holes."""
        return self.data[self.indptr[token_id] : self.indptr[token_id + 1]].tobytes()

    def changed(self, texts: Mapping[int, bytes]) -> TokenTable:
        """A table in which these ids are these bytes; ids beyond the size make it larger."""
        size = max(self.size, 1 + max(texts, default=-1))
        lengths = np.zeros(size, dtype=np.int64)
        lengths[: self.size] = np.diff(self.indptr)
        pieces: list[NDArray[np.uint8]] = []
        at = 0
        for i in sorted(texts):
            begin, end = self.indptr[[min(i, self.size), min(i + 1, self.size)]].tolist()
            pieces += [self.data[at:begin], np.frombuffer(texts[i], dtype=np.uint8)]
            at = end
            lengths[i] = len(texts[i])
        table = TokenTable.__new__(TokenTable)
        table.size, table.n_words, table.eos_ids = size, (size + 31) // 32, self.eos_ids
        table.data = np.concatenate([*pieces, self.data[at:]])
        table.indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        for array in (table.data, table.indptr):
            array.setflags(write=False)
        digest = hashlib.sha256(b"changed-vocabulary-1" + self.fingerprint.encode())
        for i, text in sorted(texts.items()):
            digest.update(b"%d:%d:" % (i, len(text)) + text)
        table.fingerprint = digest.hexdigest()
        table._trie = None
        return table

    @property
    def trie(self) -> TokenTrie:
        """The vocabulary's trie, built (or read from disk) on first use."""
        if self._trie is None:
            from outlines_core.trie import TokenTrie

            self._trie = TokenTrie.of(self)
        return self._trie


class Vocabulary:
    """Which bytes each token id stands for, and which ids end a text.

    Args:
        eos_token_id: the id (or ids) that end generation.
        map: token -> ids; keys all ``bytes`` or all ``str`` (meant as UTF-8).
        special_tokens: name -> id of tokens that are not text (control tokens); a grammar may name them.
        size: number of ids a mask covers; default 1 + the largest id known.

    Raises:
        TypeError: keys or values of the wrong types.
        ValueError: an EOS id among the values of `map`.
        VocabularyError: an id that is negative, huge or used for two different tokens; a `size` that is too small.

    >>> vocabulary = Vocabulary(3, {"a": [0], "b": [1], "ab": [2]})
    >>> len(vocabulary), vocabulary.size, vocabulary.get("ab")
    (4, 4, [2])
    """

    def __init__(
        self,
        eos_token_id: int | Sequence[int],
        map: Mapping[str, Sequence[int]] | Mapping[bytes, Sequence[int]],
        *,
        special_tokens: Mapping[str, int] | None = None,
        size: int | None = None,
    ) -> None:
        if not isinstance(map, Mapping):
            raise TypeError(
                f"Expected a dict with keys of type str or bytes and values of type list[int], got {type(map).__name__}"
            )
        self._eos = _ids_of(eos_token_id)
        self._special = {str(name): int(i) for name, i in (special_tokens or {}).items()}
        self._tokens = _checked_map(map)
        self._explicit_size = size
        self._table: TokenTable | None = None
        self._shared = False
        self._check(self._tokens)

    def _check(self, tokens: Mapping[bytes, Sequence[int]]) -> None:
        eos = set(self._eos)
        for token, ids in tokens.items():
            for i in ids:
                if i in eos:
                    raise ValueError("EOS token should not be inserted into Vocabulary")
                if not 0 <= i <= _MAX_ID:
                    raise VocabularyError(f"token id {i} of {token!r} is out of range")
        _refuse_shared_ids(tokens)
        for i in (*self._eos, *self._special.values()):
            if not 0 <= i <= _MAX_ID:
                raise VocabularyError(f"token id {i} is out of range")
        self._check_size()

    def _check_size(self) -> None:
        if self._explicit_size is not None and self._explicit_size < self._least_size():
            largest = self._least_size() - 1
            raise VocabularyError(f"size={self._explicit_size} is too small: the largest id is {largest}")

    def _least_size(self) -> int:
        largest = max((max(ids) for ids in self._tokens.values() if ids), default=-1)
        return 1 + max(largest, *self._eos, *self._special.values())

    # -- what it says -----------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """1 + the largest id over text, special and EOS ids (ids may have holes), or the `size` given."""
        return self.table.size

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        return self._eos

    @property
    def special_tokens(self) -> dict[str, int]:
        return dict(self._special)

    @property
    def fingerprint(self) -> str:
        """A digest of the content: equal for equal vocabularies, in every process."""
        return self.table.fingerprint

    def get_eos_token_id(self) -> int:
        """The first EOS id."""
        return self._eos[0]

    def get(self, token: str | bytes) -> list[int] | None:
        """The ids of a token, or None."""
        found = self._tokens.get(_as_bytes(token))
        return list(found) if found is not None else None

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of a text token; b"" for special ids, EOS ids, holes and ids beyond the size."""
        return self.table.token(token_id) if 0 <= token_id < self.size else b""

    def items(self) -> Iterable[tuple[bytes, tuple[int, ...]]]:
        """Every (token, ids), in order of insertion."""
        return self._tokens.items()

    def __len__(self) -> int:
        """Number of text ids + 1 (for EOS), as the older package counts.  A mask covers `size` ids."""
        return sum(map(len, self._tokens.values())) + 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]  # editable

    def _key(self) -> tuple[Any, ...]:
        tokens = {token: sorted(ids) for token, ids in self._tokens.items()}
        return tokens, self._eos, self._special, self._explicit_size

    def __repr__(self) -> str:
        """What tells it from others: programs use it as a key, so the whole fingerprint is in it."""
        special = ""
        if self._special:
            names = repr(sorted(self._special.items())).encode("utf-8", "surrogatepass")
            special = f"special_tokens={len(self._special)} ({hashlib.sha256(names).hexdigest()[:16]}), "
        return (
            f"Vocabulary(size={self.size}, tokens={len(self) - 1}, eos_token_ids={list(self._eos)}, "
            f"{special}fingerprint={self.fingerprint})"
        )

    # -- snapshots and edits ----------------------------------------------------------------------------------------

    @property
    def table(self) -> TokenTable:
        """The immutable arrays of the present content."""
        if self._table is None:
            self._check_size()
            size = self._least_size() if self._explicit_size is None else self._explicit_size
            self._table = TokenTable(self._tokens, self._eos, self._special.values(), size)
        return self._table

    def snapshot(self) -> Vocabulary:
        """A vocabulary with this content that later edits of this one do not reach.  O(1): copied on the next edit."""
        twin = Vocabulary.__new__(Vocabulary)
        twin.__dict__.update(self.__dict__, _table=self.table, _shared=True)
        self._shared = True
        return twin

    def _edit(self) -> dict[bytes, tuple[int, ...]]:
        if self._shared:
            self._tokens = dict(self._tokens)
            self._shared = False
        self._table = None
        return self._tokens

    def insert(self, token: str | bytes, token_id: int) -> None:
        """Add an id for a token."""
        raw = _as_bytes(token)
        if token_id in self._eos:
            raise ValueError("EOS token should not be inserted into Vocabulary")
        if not 0 <= token_id <= _MAX_ID:
            raise VocabularyError(f"token id {token_id} of {raw!r} is out of range")
        tokens = self._edit()
        ids = tokens.get(raw, ())
        if token_id not in ids:
            tokens[raw] = (*ids, int(token_id))

    def remove(self, token: str | bytes) -> None:
        """Forget a token and all its ids; nothing happens if it is not there."""
        self._edit().pop(_as_bytes(token), None)

    # -- copies -----------------------------------------------------------------------------------------------------

    def __copy__(self) -> Vocabulary:
        return self.snapshot()

    def __deepcopy__(self, memo: dict[int, Any]) -> Vocabulary:
        return self.snapshot()

    def to_binary(self) -> bytes:
        """Serialized content (no pickle inside)."""
        tokens = list(self._tokens.items())
        arrays = {
            "eos": np.array(self._eos, dtype="<i8"),
            "lengths": np.array([len(token) for token, _ in tokens], dtype="<i8"),
            "counts": np.array([len(ids) for _, ids in tokens], dtype="<i8"),
            "ids": np.array([i for _, ids in tokens for i in ids], dtype="<i8"),
            "data": np.frombuffer(b"".join(token for token, _ in tokens), dtype=np.uint8),
            "special_ids": np.array(list(self._special.values()), dtype="<i8"),
            "special_lengths": np.array([len(n.encode()) for n in self._special], dtype="<i8"),
            "special_names": np.frombuffer("".join(self._special).encode(), dtype=np.uint8),
            "size": np.array([-1 if self._explicit_size is None else self._explicit_size], dtype="<i8"),
        }
        return encode_arrays(arrays)

    @classmethod
    def from_binary(cls, binary_data: bytes) -> Vocabulary:
        """The inverse of `to_binary`.  Raises CacheFormatError, a ValueError, for anything else."""
        arrays = decode_arrays(bytes(binary_data))
        if arrays is None or arrays.keys() != _BINARY_NAMES:
            raise CacheFormatError("Deserialization of Vocabulary failed: damaged, or written by another version")
        names = _split(arrays["special_names"].tobytes(), arrays["special_lengths"])
        special = dict(zip((n.decode() for n in names), arrays["special_ids"].tolist(), strict=True))
        tokens: dict[bytes, Sequence[int]] = {}
        ids = arrays["ids"].tolist()
        at = 0
        for token, count in zip(
            _split(arrays["data"].tobytes(), arrays["lengths"]), arrays["counts"].tolist(), strict=True
        ):
            tokens[token] = ids[at : at + count]
            at += count
        size = int(arrays["size"][0])
        eos = arrays["eos"].tolist()
        return cls(eos, tokens, special_tokens=special, size=None if size < 0 else size)

    @classmethod
    def from_pretrained(cls, model: str, revision: str | None = None, token: str | None = None) -> Vocabulary:
        """The vocabulary of a model's ``tokenizer.json``.

        Args:
            model: a folder, or a name on the Hugging Face hub (which needs `huggingface_hub`, and a network unless
                the files are cached).
            revision: of the repository on the hub.
            token: to log in to the hub with.

        Raises:
            VocabularyError: no such files; a tokenizer that is neither byte-level nor has a byte fallback (use
                `processors.tokenizers.vocabulary_from`, which knows more kinds); no EOS token.
            ImportError: a name on the hub without `huggingface_hub`.
        """
        from outlines_core.pretrained import read_pretrained

        content = read_pretrained(model, revision, token)
        return cls(content.eos, content.tokens, special_tokens=content.special)

    def __reduce__(self) -> tuple[Any, ...]:
        return Vocabulary.from_binary, (self.to_binary(),)

    def __getstate__(self) -> None:
        return None


def _refuse_shared_ids(tokens: Mapping[bytes, Sequence[int]]) -> None:
    """Raise if an id stands for two tokens; the same id twice for one token is harmless."""
    seen: dict[int, bytes] = {}
    for token, ids in tokens.items():
        for i in ids:
            if seen.setdefault(i, token) != token:
                raise VocabularyError(f"token id {i} stands for both {seen[i]!r} and {token!r}")


def _split(data: bytes, lengths: NDArray[np.int64]) -> list[bytes]:
    ends = np.cumsum(lengths).tolist()
    return [data[end - n : end] for end, n in zip(ends, lengths.tolist(), strict=True)]


def _ids_of(eos: int | Sequence[int]) -> tuple[int, ...]:
    ids: tuple[Any, ...] = (eos,) if isinstance(eos, (int, np.integer)) else tuple(eos)
    if not ids or not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in ids):
        raise TypeError(f"eos_token_id must be an int or a non-empty sequence of ints, got {eos!r}")
    return tuple(dict.fromkeys(int(i) for i in ids))


def _as_bytes(token: str | bytes) -> bytes:
    if isinstance(token, str):
        return token.encode("utf-8", "surrogatepass")
    if isinstance(token, (bytes, bytearray)):
        return bytes(token)
    raise TypeError(f'Expected a token of type str or bytes, got "{type(token).__name__}"')


def _checked_map(map_: Mapping[Any, Any]) -> dict[bytes, tuple[int, ...]]:
    """A copy of `map_`.  Tuples of ints, unlike lists, cost the garbage collector nothing."""
    message = (
        "Dict keys or/and values of the wrong types. Expected a dict with keys of type str or bytes and values of "
        "type list[int]"
    )
    kinds = {bytes if isinstance(key, bytes) else str if isinstance(key, str) else None for key in map_}
    if len(kinds) > 1 or None in kinds:
        raise TypeError(message)
    tokens: dict[bytes, tuple[int, ...]] = {}
    try:
        for key, ids in map_.items():
            if type(ids) not in (list, tuple) and isinstance(ids, (str, bytes, Mapping)):
                raise TypeError
            copied = tuple(ids)
            for i in copied:
                if type(i) is not int:
                    copied = tuple(map(_exact_int, copied))
                    break
            tokens[key if type(key) is bytes else _as_bytes(key)] = copied
    except TypeError:
        raise TypeError(message) from None
    return tokens


def _exact_int(value: Any) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise TypeError(value)
