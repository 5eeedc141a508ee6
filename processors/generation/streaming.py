"""Texts from tokens: whole, and piece by piece.

A text is the bytes of its tokens, as `Vocabulary` has them (special tokens are none): exactly what guides and stop
strings see. It is read as UTF-8, with U+FFFD for what is not. Pieces hold back the bytes of an unfinished character, so
joined they are the text.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

__all__ = ["TextStream", "text_of"]


def text_of(tokens: Sequence[int], token_bytes: Callable[[int], bytes], cut: int | None = None) -> str:
    """The text of tokens.

    Args:
        token_bytes: `Vocabulary.token_bytes`.
        cut: how many bytes of the last token belong to the text, None for all.

    >>> text_of([0, 1, 1], [b"caf", b"\\xc3", b"\\xa9"].__getitem__)
    'caf\\ufffd\\ufffd'
    """
    return _bytes_of(tokens, token_bytes, cut).decode("utf-8", "replace")


def _bytes_of(tokens: Sequence[int], token_bytes: Callable[[int], bytes], cut: int | None) -> bytes:
    pieces = [token_bytes(token) for token in tokens]
    if cut is not None and pieces:
        pieces[-1] = pieces[-1][:cut]
    return b"".join(pieces)


class TextStream:
    """The text of one row, piece by piece.

    >>> stream = TextStream([b"caf", b"\\xc3", b"\\xa9"].__getitem__)
    >>> [stream.push([0]), stream.push([1]), stream.push([2], is_last=True)]
    ['caf', '', 'é']
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_over = False

    def push(self, tokens: Sequence[int], *, is_last: bool = False, cut: int | None = None) -> str:
        """The text that these tokens complete.

        Args:
            is_last: no more tokens come: an unfinished character is given up. After that, pieces are empty.
            cut: as in `text_of`.
        """
        if self._is_over:
            return ""
        self._is_over = is_last
        return self._decoder.decode(_bytes_of(tokens, self._token_bytes, cut), final=is_last)
