r"""The format ``regex``: which strings are regular expressions of ECMA-262, as a lazy automaton.

A string is one if the strict syntax of the ``u`` flag accepts it or the one without the flag (annex B), save for
letters that are escaped for no reason (``\a``). It is about syntax only: back-references and look-arounds are fine. The
language is not regular, groups nest and names are referred to, but a state can hold a stack and names as well as a
number.

Three automata run side by side (`regex_grammar`), since what annex B makes of ``\k`` depends on whether any group of
the pattern has a name, perhaps a later one. A fourth one keeps a raw high surrogate from being followed by a low one,
which would be one character (see `strings`). A state is live while one of the first three is.

V8 as of node 20 is the referee: neither modifiers, ``(?i:a)``, nor two groups of one name are accepted, both being
ECMAScript of 2025. Beyond ECMA-262 is its limit of 32,767 groups, here too for references (not for groups). One thing
is as in the specification and not as in V8: numbers of a quantifier are compared as they are, not cut off at 2**31.

**Cost.** A row takes tens of microseconds, and most texts share their states. Within a set each character is a state of
its own, so a mask for a large vocabulary takes a second there. In the name of a group each text is one: names may take
a quarter of all states, enough to follow thousands of texts, not for the mask of a large vocabulary.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.regex_grammar import MAX_STATES, Grammar
from outlines_core.limits import DEFAULT_LIMITS, Limits

__all__ = ["RegexSyntax", "n_chars"]

_SHIFTS: Final = (3, 23, 43)
"""Where a key holds the states of the grammars, above the one of the surrogates."""


def _surrogate_rows() -> NDArray[np.int64]:
    """State 1 at the begin of a character, 2 behind ED; 3 where a high surrogate ends; 4 behind it, 5 behind its ED."""
    rows = np.ones((6, 256), dtype=np.int64)
    rows[0] = 0
    rows[1, 0xED], rows[4, 0xED] = 2, 5
    rows[2, 0xA0:0xB0] = 3
    rows[3] = 4
    rows[5, 0xA0:0xB0], rows[5, 0xB0:0xC0] = 3, 0
    return rows


_SURROGATES: Final = _surrogate_rows()


class RegexSyntax:
    r"""The lazy automaton of the format over UTF-8 bytes (surrogates too); its states are never forgotten.

    Attributes:
        start: the initial state.

    States are ints from 2 on; 0 is dead, and all others are live.

    >>> syntax = RegexSyntax()
    >>> syntax.matches(rb"(?<a>\d{2,3})|\k<a>"), syntax.matches(b"a{3,2}")
    (True, False)
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._max_states = min(limits.max_states, MAX_STATES)
        self._grammars = (Grammar("u", limits), Grammar("plain", limits), Grammar("named", limits))
        self._keys = [0, 0]
        self._numbers = {0: 0}
        self._rows: dict[int, NDArray[np.int32]] = {}
        self.start = self._number(1 | sum(g.start << shift for g, shift in zip(self._grammars, _SHIFTS, strict=True)))

    @property
    def n_states(self) -> int:
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        return 150 * len(self._keys) + 1100 * len(self._rows) + sum(g.nbytes for g in self._grammars)

    def _number(self, key: int) -> int:
        """The state that stands for the packed states of the grammars and of the surrogates."""
        number = self._numbers.get(key)
        if number is None:
            number = len(self._keys)
            if number >= self._max_states:
                raise LimitExceededError(
                    f"a regex as a value needs more than {number:,} automaton states (Limits.max_states)",
                    given=number + 1,
                    limit=number,
                )
            self._keys.append(key)
            self._numbers[key] = number
        return number

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) the next state by byte; 0 where no regex begins so.

        Raises:
            LimitExceededError: too many states.
        """
        row = self._rows.get(state)
        if row is not None:
            return row
        key = self._keys[state]
        row = self._row_behind_item(key)
        if row is None:
            keys = np.zeros(256, dtype=np.int64)
            for grammar, shift in zip(self._grammars, _SHIFTS, strict=True):
                part = key >> shift & MAX_STATES
                if part:
                    keys |= grammar.row(part) << shift
            surrogates = _SURROGATES[key & 7]
            keys = np.where((keys > 0) & (surrogates > 0), keys | surrogates, 0)
            targets = list(map(self._numbers.get, keys.tolist()))
            if None in targets:
                targets = list(map(self._number, keys.tolist()))
            row = np.array(targets, dtype=np.int32)
        row.flags.writeable = False
        self._rows[state] = row
        return row

    def _row_behind_item(self, key: int) -> NDArray[np.int32] | None:
        """The row of a state within a set, made from another one with which it shares nearly all."""
        base = dash = key & 7
        for grammar, shift in zip(self._grammars, _SHIFTS, strict=True):
            part = key >> shift & MAX_STATES
            if part:
                found = grammar.behind_item(part)
                if found is None:
                    return None
                base |= found[0] << shift
                dash |= found[1] << shift
        row = self.row(self._number(base)).copy()
        row[ord("-")] = self._number(dash & ~7 | 1)
        return row

    def accepts(self, state: int) -> bool:
        """May the regex end here?"""
        key = self._keys[state]
        return any(g.accepts(key >> shift & MAX_STATES) for g, shift in zip(self._grammars, _SHIFTS, strict=True))

    def witness(self, state: int) -> bytes:
        """A completion with as few characters as possible, b"" if the regex may end here.

        One of any greater length exists as well: a "." can always follow the end.
        """
        key = self._keys[state]
        parts = ((g, key >> shift & MAX_STATES) for g, shift in zip(self._grammars, _SHIFTS, strict=True))
        return min((g.completion(part) for g, part in parts if part), key=lambda text: (n_chars(text), text))

    def need(self, state: int) -> int:
        """The number of characters that begin in a shortest completion."""
        return n_chars(self.witness(state))

    def matches(self, text: bytes) -> bool:
        """Is `text` a regex?"""
        state = self.start
        for byte in text:
            state = int(self.row(state)[byte])
            if state == 0:
                return False
        return self.accepts(state)


def n_chars(text: bytes) -> int:
    """The number of characters that begin in `text`."""
    return sum(byte & 0xC0 != 0x80 for byte in text)
