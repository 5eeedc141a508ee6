"""Tokens as values: an id that knows its model and its text."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.lm.causal import CachedCausalLM

__all__ = ["Token", "TokenSequence"]


class Token:
    """One token of a model.

    ``int(token)`` is its id, ``str(token)`` its text (``lm.str_vocab``). It equals a token of the same model and id, an
    int that is its id, and a string that is its text; it hashes as its id.

    Attributes:
        lm, token_id, token_str: model, id, text.
    """

    __slots__ = ("lm", "token_id")

    def __init__(self, lm: CachedCausalLM, token_id: int) -> None:
        self.lm, self.token_id = lm, operator.index(token_id)

    @property
    def token_str(self) -> str:
        vocab = self.lm.str_vocab
        return vocab[self.token_id] if self.token_id < len(vocab) else ""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Token):
            return self.lm is other.lm and self.token_id == other.token_id
        if isinstance(other, str):
            return self.token_str == other
        try:
            return self.token_id == operator.index(other)  # type: ignore[arg-type]
        except TypeError:
            return NotImplemented

    def __hash__(self) -> int:
        return hash(self.token_id)

    def __int__(self) -> int:
        return self.token_id

    def __index__(self) -> int:
        return self.token_id

    def __str__(self) -> str:
        return self.token_str

    def __repr__(self) -> str:
        return f"<{self.token_str}|{self.token_id}>"

    def __copy__(self) -> Token:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Token:
        return self

    def __add__(self, other: Any) -> TokenSequence:
        return TokenSequence(self.lm, [self.token_id, *_ids(self.lm, other)])

    def __radd__(self, other: Any) -> TokenSequence:
        return TokenSequence(self.lm, [*_ids(self.lm, other), self.token_id])


class TokenSequence:
    """Token ids of one model; ``+`` makes a new sequence and leaves both sides alone.

    Args:
        seq: ids, or a text to encode with the special tokens that the tokenizer adds, or None for nothing but these.
    """

    __slots__ = ("lm", "seq")

    def __init__(self, lm: CachedCausalLM, seq: str | Iterable[int] | None = None) -> None:
        self.lm = lm
        self.seq: list[int] = lm.encode(seq or "") if seq is None or isinstance(seq, str) else [int(i) for i in seq]

    def __len__(self) -> int:
        return len(self.seq)

    def __iter__(self) -> Iterator[int]:
        return iter(self.seq)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenSequence):
            return NotImplemented
        return self.lm is other.lm and self.seq == other.seq

    __hash__ = None  # type: ignore[assignment]  # `+=` rebinds, but `seq` is a list

    def __str__(self) -> str:
        return self.lm.decode(self.seq)

    def __repr__(self) -> str:
        return f"TokenSequence({self.seq})"

    def __add__(self, other: Any) -> TokenSequence:
        return TokenSequence(self.lm, self.seq + _ids(self.lm, other))

    def __radd__(self, other: Any) -> TokenSequence:
        return TokenSequence(self.lm, _ids(self.lm, other) + self.seq)


def _ids(lm: CachedCausalLM, value: Any) -> list[int]:
    """The ids of what is added: a token or sequence of the same model, a text without special tokens, or ids."""
    if isinstance(value, (Token, TokenSequence)) and value.lm is not lm:
        raise ValueError("tokens of different models cannot stand in one sequence")
    if isinstance(value, TokenSequence):
        return list(value.seq)
    if isinstance(value, str):
        return lm.encode(value, add_special_tokens=False)
    try:
        return [operator.index(value)]
    except TypeError:
        raise TypeError(f"a token sequence takes tokens, sequences and texts, not {type(value).__name__}") from None
