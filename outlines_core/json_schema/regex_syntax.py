r"""The format ``regex``: which strings are regular expressions of ECMA-262, as a lazy automaton.

A string is one if the strict syntax of the ``u`` flag accepts it or the one without the flag (annex B), as `parse_ecma`
has it, though here back-references, look-arounds and names are fine: it is about syntax only. The language is not
regular, groups nest and names are referred to, but a state can hold a stack and names as well as a number.

Three automata run side by side (`regex_grammar`), since what annex B makes of ``\k`` depends on whether any group of the
pattern has a name, perhaps a later one. A fourth one keeps a raw high surrogate from being followed by a low one,
which would be one character (see `strings`). A state is live while one of the first three is.

V8 as of node 20 is the referee: neither modifiers, ``(?i:a)``, nor two groups of one name are accepted, both being
ECMAScript of 2025. Beyond ECMA-262 is its limit of 32,767 groups, here too for references (not for groups). One thing
is as in the specification and not as in V8: numbers of a quantifier are compared as they are, not cut off at 2**31.

**Cost.** A row takes tens of microseconds, and most texts share their states. Within a set each character is a state of
its own, and in the name of a group each text: there a mask for a large vocabulary takes seconds.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.regex_grammar import Grammar
from outlines_core.limits import DEFAULT_LIMITS, Limits

__all__ = ["RegexSyntax"]

_BITS: Final = 20  # of a number of a state


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
    """The lazy automaton of the format over UTF-8 bytes (surrogates too); its states are never forgotten.

    Attributes:
        start: the initial state.

    States are ints from 2 on; 0 is dead, and all others are live.

    >>> syntax = RegexSyntax()
    >>> syntax.matches(rb"(?<a>\d{2,3})|\k<a>"), syntax.matches(b"a{3,2}")
    (True, False)
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._grammars = (Grammar("u", limits), Grammar("plain", limits), Grammar("named", limits))
        self._parts: list[tuple[int, ...]] = [(), ()]
        self._accepts: list[bool] = [False, False]
        self._numbers: dict[int, int] = {}
        self._rows: dict[int, NDArray[np.int32]] = {}
        self.start = self._number(1 | sum(g.start << _BITS * (k + 1) - 17 for k, g in enumerate(self._grammars)))

    @property
    def n_states(self) -> int:
        return len(self._parts)

    @property
    def nbytes(self) -> int:
        return 250 * len(self._parts) + 1100 * len(self._rows) + sum(g.nbytes for g in self._grammars)

    def _number(self, key: int) -> int:
        """The state of packed numbers; 0 if it is dead."""
        number = self._numbers.get(key)
        if number is None:
            surrogates = key & 7
            parts = tuple(key >> _BITS * (k + 1) - 17 & (1 << _BITS) - 1 for k in range(3))
            if not surrogates or not any(parts):
                number = 0
            elif len(self._parts) >= self.limits.max_states:
                raise LimitExceededError(
                    f"a regex as a value needs more than {self.limits.max_states:,} automaton states "
                    "(Limits.max_states)",
                    given=len(self._parts) + 1,
                    limit=self.limits.max_states,
                )
            else:
                number = len(self._parts)
                self._parts.append((*parts, surrogates))
                self._accepts.append(any(g.accepts(part) for g, part in zip(self._grammars, parts, strict=True)))
            self._numbers[key] = number
        return number

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) the next state by byte; 0 where no regex begins so.

        Raises:
            LimitExceededError: too many states.
        """
        row = self._rows.get(state)
        if row is None:
            *parts, surrogates = self._parts[state]
            keys = _SURROGATES[surrogates].copy()
            for k, (grammar, part) in enumerate(zip(self._grammars, parts, strict=True)):
                if part:
                    keys |= grammar.row(part).astype(np.int64) << _BITS * (k + 1) - 17
            distinct, which = np.unique(keys, return_inverse=True)
            numbers = np.array([self._number(key) for key in distinct.tolist()], dtype=np.int32)
            row = numbers[which.reshape(-1)]
            row.flags.writeable = False
            self._rows[state] = row
        return row

    def accepts(self, state: int) -> bool:
        """May the regex end here?"""
        return self._accepts[state]

    def witness(self, state: int) -> bytes:
        """A completion with as few characters as possible, b"" if the regex may end here.

        One of any greater length exists as well: a "." can always follow the end.
        """
        if self._accepts[state]:
            return b""
        parts = zip(self._grammars, self._parts[state], strict=False)
        return min((g.completion(part) for g, part in parts if part), key=lambda text: (_n_chars(text), text))

    def need(self, state: int) -> int:
        """The number of characters that begin in a shortest completion."""
        return _n_chars(self.witness(state))

    def matches(self, text: bytes) -> bool:
        """Is `text` a regex?"""
        state = self.start
        for byte in text:
            state = int(self.row(state)[byte])
            if state == 0:
                return False
        return self.accepts(state)


def _n_chars(text: bytes) -> int:
    return sum(byte & 0xC0 != 0x80 for byte in text)
