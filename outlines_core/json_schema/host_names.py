r"""The formats ``hostname`` and ``idn-hostname`` as lazy automata.

Both are finite languages and yet no regular expressions of a sensible size. Whether "xn--..." is the name of a label
shows only when all of it has been decoded (RFC 3492 spreads a character and its place over several digits), and whether
a label of Unicode characters fits into 63 octets only when all of it has been encoded. So a state here holds the text
of the label that is being read, as far as that matters, and what to know of the labels before: their octets, and which
of the two sides of the Bidi rule they have been on.

For ordinary labels of a ``hostname`` only the length and the last character matter: they are replaced by "aaa" or
"aa-" and there are few states. Labels in "xn--", and all labels of an ``idn-hostname``, are a tree of states.

**Life.** A state exists only if some text ends it well:

* An ordinary label ends here, or after one more letter.
* A label in "xn--" can go on in two ways. Whatever was read can be the ASCII part: "-" ends it, and k letters
  inserted in it make it well-formed, k = 1, 2 or 3 (in front of it, behind it, between two hyphens at the third and
  fourth place). The first delta takes three digits at least, and ``\u00df`` at any place takes no more; the others take
  one if the last place gets ``\u00df`` and those before it ``\u00e0``. So 3 + k octets are needed and enough. Or the
  digits behind the last "-" go on: then the codes that fit are tried, shortest first, as long as the characters that
  they stand for are allowed.
* A U-label lacks at most an `ending`; all else that is wrong stays wrong.

A search that takes too long is a `LimitExceededError`; nothing is decided by a guess.

**A departure.** Punycode is not monotonic: one more character can shorten the encoded label by an octet, as a delta is
spelled in a base that depends on the one before. So whether a U-label of 64 octets can still become one of 63 is a
search without a bound. A label of an ``idn-hostname`` that exceeds the limit in the middle is therefore refused even if
its end brings it back (in 120,000 random labels there were two that one more character shortens), and so is one that
needs an end if neither its `ending` nor "a" nor a neighbour of its characters fits.

**Cost.** A row of an ordinary host name takes tens of microseconds, within "xn--" hundreds, milliseconds where that
label is nearly full. With characters beyond ASCII it takes milliseconds and every text is a state of its own: good for
judging names and for following one, too slow for the masks of a large vocabulary.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.idna_rules import (
    BREAKS_BIDI,
    RTL,
    Traits,
    a_label,
    ascii_label,
    compatible,
    ending,
    is_allowed,
    may_follow,
    u_label,
)
from outlines_core.json_schema.punycode import DIGITS, deltas_of, fillings, letters_needed
from outlines_core.limits import DEFAULT_LIMITS, Limits

__all__ = ["HostNames"]

_LABEL: Final = 63
_NAME: Final = 253
_PREFIX: Final = "xn--"
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_DIGITS: Final = "0123456789"
_DOTS: Final = ".\u3002\uff0e\uff61"
_ROOM: Final = 6  # octets that complete any label in "xn--"
_BEYOND: Final = 8  # octets that the first character beyond ASCII adds to a label: "xn--", "-" and three digits


class _Place(NamedTuple):
    """A state: `used` octets of labels and dots, their traits, the label so far, bytes of an unfinished character."""

    used: int
    seen: Traits
    label: str
    tail: bytes = b""


@cache
def _characters(prefix: bytes) -> tuple[str, ...]:
    """The allowed characters whose UTF-8 begins so, and the dots."""
    more = {0xC: 2, 0xD: 2, 0xE: 3, 0xF: 4}[prefix[0] >> 4] - len(prefix)
    low, high = (prefix + bytes((edge,)) * more for edge in (0x80, 0xBF))
    if prefix[0] < 0xC2 or prefix[0] > 0xF4:
        return ()
    lowest, highest = (_scalar(raw) for raw in (low, high))
    floor = 0x800 if prefix[0] < 0xF0 else 0x10000
    codes = range(max(lowest, floor) if prefix[0] >= 0xE0 else lowest, min(highest, 0x10FFFF) + 1)
    return tuple(char for char in map(chr, codes) if is_allowed(char) or char in _DOTS)


def _scalar(raw: bytes) -> int:
    code = raw[0] & (0x3F >> (len(raw) - 1))
    for byte in raw[1:]:
        code = code << 6 | byte & 0x3F
    return code


def _octets_at_most(label: str) -> int:
    """A quick bound on `_octets`: a delta of Punycode is below 2**27, eight digits at the worst bias."""
    return len(_PREFIX) + 1 + len(label) + 7 * sum(char > "\x7f" for char in label)


def _octets(label: str) -> int:
    """The length of the label as it is in the DNS."""
    return len(label) if label.isascii() else len(_PREFIX) + len(label.encode("punycode"))


class HostNames:
    """The lazy automaton of one of the two formats over UTF-8 bytes; its states are never forgotten.

    Attributes:
        start: the initial state.

    >>> names = HostNames("hostname")
    >>> names.matches(b"xn--bcher-kva.example"), names.matches(b"xn--x.example")
    (True, False)
    """

    def __init__(self, name: Literal["hostname", "idn-hostname"], limits: Limits = DEFAULT_LIMITS) -> None:
        if name not in ("hostname", "idn-hostname"):
            raise ValueError(f"no format of host names: {name!r}")
        self.limits, self._idn = limits, name == "idn-hostname"
        self._places: list[_Place] = []
        self._rows: dict[int, NDArray[np.int32]] = {}
        self._ids: dict[_Place, int] = {}
        self._steps = 0
        self.start = self._state(_Place(0, 0, ""))

    # -- the automaton ----------------------------------------------------------------------------------------------

    @property
    def n_states(self) -> int:
        return len(self._places) + 2

    @property
    def nbytes(self) -> int:
        return 300 * len(self._places) + 1100 * len(self._rows)

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) the next state by byte; 0 where no host name begins so.

        Raises:
            LimitExceededError: too many states, or the search took too long; nothing has changed then.
        """
        row = self._rows.get(state)
        if row is None:
            self._steps = 0
            row = np.zeros(256, dtype=np.int32)
            place = self._places[state - 2]
            if place.tail:
                self._fill_continuation(place, row)
            elif self._idn:
                self._fill_unicode(place, row)
            else:
                self._fill_ascii(place, row)
            row.flags.writeable = False
            self._rows[state] = row
        return row

    def accepts(self, state: int) -> bool:
        """May the name end here?"""
        if state < 2:
            return False
        place = self._places[state - 2]
        return not place.tail and self._fits(place, place.label)

    def witness(self, state: int) -> bytes:
        """A text that ends the name well, b"" if it may end here."""
        self._steps = 0
        rest = self._rest(self._places[state - 2], quick=False)
        if rest is None:
            raise AssertionError(f"the state {state} is live")
        return rest

    def matches(self, text: bytes) -> bool:
        """Is `text` a host name?"""
        state = self.start
        for byte in text:
            state = int(self.row(state)[byte])
            if state == 0:
                return False
        return self.accepts(state)

    # -- transitions ------------------------------------------------------------------------------------------------

    def _state(self, place: _Place) -> int:
        """The state of `place`, 0 if it is dead."""
        known = self._ids.get(place)
        if known is None:
            if self._rest(place, quick=True) is None:
                return 0
            if self.n_states >= self.limits.max_states:
                raise LimitExceededError(
                    f"host names need more than {self.limits.max_states:,} automaton states (Limits.max_states)",
                    given=self.n_states + 1,
                    limit=self.limits.max_states,
                )
            self._places.append(place)
            known = self._ids[place] = self.n_states - 1
        return known

    def _fill_ascii(self, place: _Place, row: NDArray[np.int32]) -> None:
        """Transitions of a ``hostname``: letters that lead to the same place are computed once."""
        label = place.label
        alike = _DIGITS + _LETTERS if label else _LETTERS
        if not _may_be_a_label(label):
            row[_codes(alike)] = self._after(place, "a")
        elif label:
            for char in alike:
                row[ord(char)] = self._after(place, char)
        else:
            row[_codes(_LETTERS)] = self._after(place, "a")
            row[_codes(_DIGITS)] = self._after(place, "0")
            row[ord("x")] = self._after(place, "x")
        row[ord("A") : ord("Z") + 1] = row[ord("a") : ord("z") + 1]
        for char in "-.":
            row[ord(char)] = self._after(place, char)

    def _fill_unicode(self, place: _Place, row: NDArray[np.int32]) -> None:
        for char in _LETTERS + _LETTERS.upper() + _DIGITS + "-.":
            row[ord(char)] = self._after(place, char)
        for byte in range(0xC2, 0xF5):
            row[byte] = self._within(place, bytes((byte,)))

    def _fill_continuation(self, place: _Place, row: NDArray[np.int32]) -> None:
        for byte in range(0x80, 0xC0):
            row[byte] = self._within(place, place.tail + bytes((byte,)))

    def _within(self, place: _Place, tail: bytes) -> int:
        """The state after the bytes `tail` of a character."""
        length = {0xC: 2, 0xD: 2, 0xE: 3, 0xF: 4}[tail[0] >> 4]
        if len(tail) < length:
            return self._state(place._replace(tail=tail))
        char = tail.decode(errors="replace")
        return self._after(place, char) if len(char) == 1 and char != "\ufffd" else 0

    def _after(self, place: _Place, char: str) -> int:
        """The state after a character."""
        following = self._next(place, char)
        return 0 if following is None else self._state(following)

    def _next(self, place: _Place, char: str) -> _Place | None:
        used, seen, label, _ = place
        if char in _DOTS:
            traits = self._judge(label)
            if traits is None or not compatible(seen, traits):
                return None
            return _Place(used + _octets(label) + 1, seen | traits, "")
        label += char
        if self._idn:
            return _Place(used, seen, label)
        label = label.lower()
        if label[0].isdigit():
            if seen & RTL:
                return None
            seen |= BREAKS_BIDI
        if not _may_be_a_label(label):
            label = "a" * (len(label) - 1) + ("-" if char == "-" and len(label) > 1 else "a" if char != "-" else "-")
        return _Place(used, seen, label)

    def _judge(self, label: str) -> Traits | None:
        """The traits of a complete label; None: there is none such."""
        if not label.isascii():
            return u_label(label)
        return a_label(label) if label[:4].lower() == _PREFIX else ascii_label(label)

    # -- life -------------------------------------------------------------------------------------------------------

    def _rest(self, place: _Place, *, quick: bool) -> bytes | None:
        """A text that ends the name well, b"" if it may end here; None: there is none.

        `quick`: what is not None need not be right.
        """
        if not place.tail:
            rest = self._completion(place, quick=quick)
            return None if rest is None else rest.encode()
        label, limit = place.label, min(_LABEL, _NAME - place.used)
        last = max(label, default="")
        grows = not label or self._may_grow(place, limit)
        for char in _characters(place.tail):
            if char not in _DOTS:
                if not grows or not may_follow(label, char):
                    continue
                longer = label + char
                if char > last and _octets_at_most(longer) > limit and _octets(longer) > limit:
                    grows = False  # the characters behind it take no less
                    continue
            following = self._next(place, char)
            rest = None if following is None else self._completion(following, quick=quick)
            if rest is not None:
                return char.encode()[len(place.tail) :] + rest.encode()
        return None

    def _may_grow(self, place: _Place, limit: int) -> bool:
        """False only if no character beyond ASCII can follow."""
        label = place.label
        if label[2:4] == "--" or label[-1] == "\u00b7" or not all(map(is_allowed, label)):
            return False
        return (len(label) + _BEYOND if label.isascii() else _octets(label) + 1) <= limit

    def _completion(self, place: _Place, *, quick: bool) -> str | None:
        used, seen, label, _ = place
        self._count()
        if used + len(label) > _NAME or len(label) > _LABEL:
            return None
        room = min(_LABEL, _NAME - used) - len(label)
        if not label:
            return "a" if room else None
        if not label.isascii():
            return self._unicode_completion(place)
        if label[0] == "-" or (seen & RTL and label[0].isdigit()):
            return None
        if label[:4].lower() == _PREFIX:
            return "" if quick and room >= _ROOM else self._a_label_completion(place, room, quick=quick)
        return "" if label[-1] != "-" else "a" if room else None

    def _count(self) -> None:
        self._steps += 1
        limit = self.limits.max_steps_per_call
        if self._steps > limit:
            raise LimitExceededError(
                f"whether a host name can go on here takes more than {limit:,} steps (Limits.max_steps_per_call)",
                given=self._steps,
                limit=limit,
            )

    def _fits(self, place: _Place, label: str) -> bool:
        traits = self._judge(label)
        if traits is None or not compatible(place.seen, traits):
            return False
        return _octets(label) <= min(_LABEL, _NAME - place.used)

    def _a_label_completion(self, place: _Place, room: int, *, quick: bool) -> str | None:
        label = place.label
        if self._fits(place, label):
            return ""
        basic = label[4:].lower()
        n_letters = letters_needed(basic, place.seen)
        if n_letters is not None and 3 + n_letters <= room:
            if quick:
                return ""
            return next(rest for rest in fillings(basic, n_letters) if self._fits(place, label + rest))
        deltas = deltas_of(basic)
        codes = [] if deltas is None else [("", deltas)]
        for left in range(room - 1, -1, -1):
            longer = []
            for rest, before in codes:
                self._count()
                for digit, char in enumerate(DIGITS):
                    after = before.read(digit)
                    if after is None or after.least_digits > left:
                        continue
                    if after.is_complete:
                        self._count()
                        traits = u_label(after.text)
                        if traits is not None and compatible(place.seen, traits):
                            return rest + char
                    if left:
                        longer.append((rest + char, after))
            codes = longer
        return None

    def _unicode_completion(self, place: _Place) -> str | None:
        label, limit = place.label, min(_LABEL, _NAME - place.used)
        rest = ending(label, place.seen)
        if rest is None:
            return None
        if _octets_at_most(label + rest) <= limit:
            return rest
        if _octets(label) > limit:
            return None
        if all(_octets(label + rest[:end]) <= limit for end in range(1, len(rest) + 1)):
            return rest
        near = sorted({chr(ord(char) + k) for char in label for k in (-1, 0, 1)})
        return next((other for other in ("a", *near) if self._fits(place, label + other)), None)


@cache
def _codes(chars: str) -> list[int]:
    return list(chars.encode())


def _may_be_a_label(label: str) -> bool:
    return _PREFIX.startswith(label[:4].lower())
