"""Special tokens as bytes, so that automata over bytes can read them.

A special token that a grammar names is spelled by a *code*: bytes that no UTF-8 text contains. A vocabulary is derived
in which it is so spelled; tokens that contain such bytes of themselves, which can be part of no text, spell nothing in
it. All codes of a vocabulary have one length, so that none begins another.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from outlines_core.cache import LruCache
from outlines_core.errors import ConstraintSyntaxError, UnsupportedFeatureError
from outlines_core.grammar.composed import VALUE_BYTE
from outlines_core.vocabulary import TokenTable, Vocabulary

__all__ = ["PRIVATE", "codes_for", "resolve", "shown", "text_before_code", "value_codes", "with_codes"]

PRIVATE: Final = bytes((*range(0xF5, 0x100), 0xC0, VALUE_BYTE))
"""The bytes that occur in no UTF-8 text."""
_RANGES: Final = re.compile(r"<\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\]>")
_MOST_IDS: Final = 2000
_tables: LruCache[TokenTable] = LruCache(64 * 2**20, lambda table: table.data.nbytes + table.indptr.nbytes)


def codes_for(n: int) -> list[bytes]:
    """So many codes of special tokens."""
    return _words(PRIVATE[:-1], n)


def value_codes(n: int) -> list[bytes]:
    """So many codes of values within a grammar."""
    return [PRIVATE[-1:] + word for word in _words(PRIVATE, n)]


def _words(alphabet: bytes, n: int) -> list[bytes]:
    length = 1
    while len(alphabet) ** length < n:
        length += 1
    return [bytes(word) for word in itertools.islice(itertools.product(alphabet, repeat=length), n)]


def resolve(written: str, vocabulary: Vocabulary, source: str, offset: int) -> tuple[int, ...]:
    """The ids of a special token as a grammar names it: ``<|name|>``, ``<name>``, ``<[17]>`` or ``<[17,20-25]>``.

    Raises:
        ConstraintSyntaxError: the vocabulary has no such special token.
        UnsupportedFeatureError: it ends the text.
    """
    ranges = _RANGES.fullmatch(written)
    special = vocabulary.special_tokens
    if ranges is None:
        if written not in special:
            hint = "; it is a token of text: write it as a string" if vocabulary.get(written) else ""
            raise ConstraintSyntaxError(
                f"the vocabulary has no special token {written}{hint}", source=source, offset=offset
            )
        ids: Sequence[int] = (special[written],)
    else:
        pairs = [tuple(map(int, part.split("-"))) for part in ranges[1].split(",")]
        n = sum(max(0, pair[-1] - pair[0] + 1) for pair in pairs)
        if not 0 < n <= _MOST_IDS:
            raise ConstraintSyntaxError(f"{written} names {n:,} ids", source=source, offset=offset)
        ids = [i for pair in pairs for i in range(pair[0], pair[-1] + 1)]
    known = {*special.values(), *vocabulary.eos_token_ids}
    for i in ids:
        if i in vocabulary.eos_token_ids:
            raise UnsupportedFeatureError(
                f"{written} ends the text (it is an EOS id of the vocabulary), which is not for a grammar to say",
                feature="EOS token in a grammar",
                source=source,
                offset=offset,
            )
        if i not in known:
            what = "a token of text: write it as a string" if vocabulary.token_bytes(i) else "no token at all"
            raise ConstraintSyntaxError(f"{written}: id {i} is {what}", source=source, offset=offset)
    return tuple(dict.fromkeys(ids))


def with_codes(vocabulary: Vocabulary, codes: Mapping[int, bytes]) -> Vocabulary:
    """A vocabulary that spells some special ids with codes; it has the ids, names and EOS of the one given."""
    derived = vocabulary.snapshot()
    table = derived.table
    key = (table.fingerprint, tuple(codes.items()))
    known = _tables.get(key)
    if known is None:
        known = _derived(table, codes)
        _tables.put(key, known)
    derived._table = known
    return derived


def _derived(table: TokenTable, codes: Mapping[int, bytes]) -> TokenTable:
    private = np.flatnonzero(np.isin(table.data, np.frombuffer(PRIVATE, dtype=np.uint8)))
    spoiled = (np.searchsorted(table.indptr, private, side="right") - 1).tolist()
    return table.changed({**dict.fromkeys(spoiled, b""), **codes})


def shown(text: bytes, names: Mapping[bytes, str]) -> str:
    """Bytes for people, names in place of codes (all of one length)."""
    pieces = []
    at = 0
    width = len(next(iter(names), b"?"))
    while at < len(text):
        code = text[at : at + width]
        if code in names:
            pieces.append(names[code])
            at += width
            continue
        end = next((k for k in range(at, len(text)) if text[k] in PRIVATE), len(text))
        end = max(end, at + 1)
        pieces.append(text[at:end].decode("utf-8", "backslashreplace"))
        at = end
    return "".join(pieces)


def text_before_code(text: bytes) -> bytes:
    """What comes before the first code."""
    return bytes(itertools.takewhile(lambda byte: byte not in PRIVATE, text))
