r"""One syntax of ECMAScript's regexes as a deterministic pushdown automaton over UTF-8 bytes, read from left to right.

What one more character does is in `regex_steps`; here are the bytes, the numbers of the states and their rows. A state
is a tuple: the kind of item that is being read, what that has to know, and the number of an `Outer`. The latter holds
what lasts: the open groups, and the groups and names that the rest of the text may refer to or still has to bring. It
is no more than that, so texts share their states.

There are three grammars (ECMA-262, 22.2.1 and B.1.2), and `regex_syntax` runs them side by side:

* "u": the strict syntax of the ``u`` flag,
* "plain": annex B for a pattern without named groups, where ``\k`` is the letter k,
* "named": annex B for a pattern with named groups, where ``\k`` needs a name.

In none of them has a letter a backslash that no escape of ECMA-262 begins with: ``\a``, ``\Z``. Annex B lets these
stand for themselves, anchors of other dialects among them; the official suite of JSON Schema wants them refused.

**Life.** Open groups can be closed, missing groups and names appended, so a state dies by what was read alone:
``[b-a]``, ``a{2,1}``, a repeated name. Escapes that are being read must still fit: after ``[\u{1f600}-\`` they need
five hexadecimal digits. Which ones fit is found out by trying the completions with the greatest values.

**Completions.** `completion` returns a shortest one, in characters. All longer lengths are possible too: a "." never
continues an escape and is allowed wherever a pattern may end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from string import ascii_letters
from typing import Final
from typing import Literal as OneOf

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.regex_escapes import (
    HEX_DIGITS,
    Spelling,
    bytes_behind,
    edges,
    endings,
    first_in,
    following,
    id_chars,
    loose_endings,
    n_chars,
    name_bytes,
    property_ending,
    spellings,
    to_go,
    units,
    utf8,
)
from outlines_core.json_schema.regex_steps import CLASS, DIGITS, SYNTAX, Kind, Outer, State, Steps, owing
from outlines_core.limits import DEFAULT_LIMITS, Limits

__all__ = ["MAX_STATES", "Grammar"]

MAX_STATES: Final = 2**20 - 1
"""So many one automaton has at most, whatever the limits."""
_CONTINUATIONS = {1: (0x80, 0xBF, 0), 2: (0x80, 0xBF, 1), 3: (0x80, 0xBF, 2)} | {
    0xE0: (0xA0, 0xBF, 1), 0xF0: (0x90, 0xBF, 2), 0xF4: (0x80, 0x8F, 2)
}  # fmt: skip
"""Of the bytes to go: the range of the next one, and what is to go then."""

_LEADS: Final = (
    (slice(0xC2, 0xE0), 1), (0xE0, 0xE0), (slice(0xE1, 0xF0), 2), (0xF0, 0xF0), (slice(0xF1, 0xF4), 3), (0xF4, 0xF4)
)  # fmt: skip
"""Of the first bytes of characters: what is to go then."""

# the characters that have a meaning of their own; all other ASCII ones are alike ("~" is one of them)
_TEXT_CHARS = "\\^$*+?()[]{}|"
_CHARS: dict[str, str] = dict.fromkeys((Kind.ATOM, Kind.BARE, Kind.QUANTIFIED, Kind.OPEN), _TEXT_CHARS) | {
    Kind.ESCAPE: DIGITS + "dDsSwWbBfnrtvcxupPk" + "".join(sorted(SYNTAX)),
    Kind.NUL: _TEXT_CHARS + DIGITS,
    Kind.REFERENCE: _TEXT_CHARS + DIGITS,
    Kind.LETTER: ascii_letters,
    Kind.NAMED: "<",
    Kind.HEX: "".join(sorted(HEX_DIGITS)),
    Kind.UNICODE: "".join(sorted(HEX_DIGITS)) + "{",
    Kind.BRACED: "".join(sorted(HEX_DIGITS)) + "}",
    Kind.OPEN_KIND: ":=!<",
    Kind.LOW: _TEXT_CHARS + DIGITS + ",",
    Kind.COMMA: _TEXT_CHARS + DIGITS,
    Kind.ZEROS: _TEXT_CHARS + DIGITS,
    Kind.HIGH: _TEXT_CHARS + DIGITS,
}
_LOOSE_ESCAPES: Final = ascii_letters
_FAR: Final = "\u4e00"
"""Stands for all characters beyond ASCII, where these are alike."""
_ALL_ASCII: Final = "".join(map(chr, range(128)))


class Grammar(Steps):
    """The lazy automaton of one syntax.  States are ints from 2 on; 0 is dead.

    Args:
        kind: see the module.
    """

    def __init__(self, kind: OneOf["u", "plain", "named"], limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(kind)
        self._max_states = min(limits.max_states, MAX_STATES)
        self._ends = {Kind.ATOM, Kind.BARE, Kind.QUANTIFIED, Kind.NUL}
        if not self._strict:
            self._ends |= {Kind.LOW, Kind.COMMA, Kind.ZEROS, Kind.HIGH}
        self._n_names = 0
        self._is_whole: list[bool] = []
        self._begins: list[int] = []
        self._templates: dict[str, NDArray[np.int64]] = {}
        self._states: list[State] = [(), ()]
        self._numbers: dict[State, int] = {}
        self._rows: dict[int, NDArray[np.int64]] = {}
        self.start = self._number((Kind.BARE, self._outer(Outer())))

    # -- the automaton ----------------------------------------------------------------------------------------------

    @property
    def n_states(self) -> int:
        return len(self._states)

    @property
    def nbytes(self) -> int:
        return 300 * len(self._states) + 2200 * len(self._rows)

    def row(self, number: int) -> NDArray[np.int64]:
        """(256,) the next state by byte; 0 where no regex of this syntax begins so."""
        row = self._rows.get(number)
        if row is None:
            row = np.zeros(256, dtype=np.int64)
            if number:
                self._fill(self._states[number], row)
            row.flags.writeable = False
            self._rows[number] = row
        return row

    def behind_item(self, number: int) -> tuple[int, int] | None:
        """Behind an item of a set: the state that differs by "-" only, and the state behind "-"."""
        state = self._states[number]
        if not number or state[0] != Kind.SET or state[2] != "item":
            return None
        return self._number((Kind.SET, state[1], "between", 0)), self._after(state, "-")

    def accepts(self, number: int) -> bool:
        """May the regex end here?"""
        if number < 2:
            return False
        state = self._states[number]
        if state[0] in self._ends:
            return self._is_whole[state[1]]
        return state[0] == Kind.REFERENCE and self._may_end(owing(self._outers[state[1]], state[2]))

    def _may_end(self, outer: Outer) -> bool:
        return outer.stack == 1 and not outer.owed and not outer.wanted and (not self._needs_name or bool(outer.names))

    def completion(self, number: int) -> bytes:
        """What completes a regex with as few characters as possible."""
        return self._completion(self._states[number])

    def _number(self, state: State) -> int:
        number = self._numbers.get(state)
        return self._add((state,)) if number is None else number

    def _add(self, states: Sequence[State]) -> int:
        """The number of the first of some new states; the others follow."""
        number = len(self._states)
        if number + len(states) > self._max_states:
            raise LimitExceededError(
                f"a regex as a value needs more than {self._max_states:,} automaton states (Limits.max_states)",
                given=number + len(states),
                limit=self._max_states,
            )
        self._states += states
        self._numbers.update(zip(states, count(number)))
        return number

    def _added(self, number: int) -> None:
        self._is_whole.append(self._may_end(self._outers[number]))
        begin = (
            (Kind.ATOM, number),
            (Kind.BARE, number),
            (Kind.QUANTIFIED, number),
            (Kind.ESCAPE, number),
            (Kind.OPEN, number),
        )
        behind = (Kind.SET, number, "first", 0), (Kind.LOW, number, True, ""), (Kind.LOW, number, False, "")
        self._begins.append(self._add((*begin, *behind, *((Kind.TAIL, number, more, begin[0]) for _, more in _LEADS))))

    # -- transitions ------------------------------------------------------------------------------------------------

    def _after(self, state: State, char: str) -> int:
        """The number of the state after a character, 0 if it is dead."""
        target = self._steps[state[0]](state, char)
        if target is None:
            return 0
        if (
            target[0] in (Kind.SET_ESCAPE, Kind.NAME_ESCAPE)
            and target not in self._numbers
            and not self._can_end(target)
        ):
            return 0
        return self._number(target)

    def _fill(self, state: State, row: NDArray[np.int64]) -> None:
        kind, outer = state[:2]
        match kind:
            case Kind.ATOM | Kind.BARE | Kind.QUANTIFIED:
                self._fill_text(state, row)
            case Kind.TAIL:
                low, high, more = _CONTINUATIONS[state[2]]
                row[low : high + 1] = self._number((Kind.TAIL, outer, more, state[3]) if more else state[3])
            case Kind.CHARACTER:
                self._fill_character(state, row)
            case Kind.SET:
                self._fill_set(state, row)
            case Kind.SET_ESCAPE:
                self._fill_chars(state, row, _ALL_ASCII, 0)
                base = self._before_character(state)
                if base is not None:
                    self._fill_leads(base, row)
            case Kind.NAME:
                self._fill_name(state, row)
            case Kind.OPEN_ANGLE:
                if self._has_names:
                    row[:] = self.row(self._number((Kind.NAME, outer, False, "")))
                for char in "=!":
                    row[ord(char)] = self._after(state, char)
            case Kind.NAME_ESCAPE:
                self._fill_chars(state, row, _ALL_ASCII, 0)
            case Kind.PROPERTY | Kind.SET_PROPERTY:
                self._fill_chars(state, row, following(state[-1]), 0)
            case _:
                chars = _CHARS[kind] if kind != Kind.ESCAPE or self._strict else _LOOSE_ESCAPES
                self._fill_chars(state, row, chars, self._after(state, "~"))
                target = self._steps[kind](state, _FAR)
                if target is not None:
                    for slot, more in _LEADS:
                        row[slot] = self._number((Kind.TAIL, target[1], more, target))

    def _fill_chars(self, state: State, row: NDArray[np.int64], chars: str, default: int) -> None:
        row[:128] = default
        for char in chars:
            row[ord(char)] = self._after(state, char)

    def _fill_text(self, state: State, row: NDArray[np.int64]) -> None:
        """The states that follow have their numbers right behind `_begins`, whatever the outer state."""
        kind, outer = state
        begin = self._begins[outer]
        template = self._templates.get(kind)
        if template is None:
            self._fill_chars(state, row, _TEXT_CHARS, begin)
            for slot, more in _LEADS:
                row[slot] = self._number((Kind.TAIL, outer, more, (Kind.ATOM, outer)))
            template = self._templates[kind] = np.where(row, row - begin + 1, 0)
        np.add(template, begin - 1, out=row, where=template > 0)
        row[ord(")")] = self._after(state, ")")

    def _fill_set(self, state: State, row: NDArray[np.int64]) -> None:
        _, outer, mode, low = state
        between = (Kind.SET, outer, "between", 0)
        if mode == "between":
            first = self._add([(Kind.SET, outer, "item", code) for code in range(128)])
            row[:128] = np.arange(first, first + 128)
            leads = self._add([(Kind.CHARACTER, outer, state, bytes((byte,))) for byte in range(0xC2, 0xF5)])
            row[0xC2:0xF5] = np.arange(leads, leads + 51)
        elif mode == "dash":
            if low != CLASS or not self._strict:
                row[max(low, 0) : 128] = self._number(between)
                self._fill_leads(state, row)
        else:
            row[:] = self.row(self._number(between))
        for char in "]\\^" if mode == "first" else "]\\-" if mode == "item" else "]\\":
            row[ord(char)] = self._after(state, char)

    def _fill_name(self, state: State, row: NDArray[np.int64]) -> None:
        _, outer, is_reference, name = state
        bytes_, leads = name_bytes(continued=bool(name))
        self._spend_names(len(bytes_) + len(leads))
        first = self._add([(Kind.NAME, outer, is_reference, name + chr(byte)) for byte in bytes_])
        row[bytes_] = np.arange(first, first + len(bytes_))
        first = self._add([(Kind.CHARACTER, outer, state, bytes((byte,))) for byte in leads])
        row[leads] = np.arange(first, first + len(leads))
        for char in ">\\":
            row[ord(char)] = self._after(state, char)

    def _fill_character(self, state: State, row: NDArray[np.int64]) -> None:
        _, outer, base, begun = state
        if base[0] == Kind.NAME:
            self._spend_names(64)
        if base[0] == Kind.NAME or base[2] == "dash":
            for byte in range(0x80, 0xC0):
                row[byte] = self._within(base, begun + bytes((byte,)))
            return
        low, high, more = _CONTINUATIONS[to_go(begun)]
        first = (edges(begun) or (0, 0))[0]
        if more:
            following = [(Kind.CHARACTER, outer, base, begun + bytes((byte,))) for byte in range(low, high + 1)]
        elif self._strict or first <= 0xFFFF:
            following = [(Kind.SET, outer, "item", first + k) for k in range(64)]
        else:
            row[0x80:0xC0] = [self._number((Kind.SET, outer, "item", units(first + k)[1])) for k in range(64)]
            return
        number = self._add(following)
        row[low : high + 1] = np.arange(number, number + len(following))

    def _spend_names(self, n: int) -> None:
        """Names get a share of all states: a mask at a name passes through ever so many, and others need some too."""
        if self._n_names + n > self._max_states // 4:
            raise LimitExceededError(
                f"names of groups in regexes as values need more than {self._max_states // 4:,} automaton states "
                "(a quarter of Limits.max_states)",
                given=self._n_names + n,
                limit=self._max_states // 4,
            )
        self._n_names += n

    def _fill_leads(self, base: State, row: NDArray[np.int64]) -> None:
        for byte in range(0xC2, 0xF5):
            row[byte] = self._within(base, bytes((byte,)))

    def _before_character(self, state: State) -> State | None:
        """The set in which a character beyond ASCII comes behind an unfinished escape."""
        _, outer, mode, low, text = state
        if not text:
            return None if self._strict else (Kind.SET, outer, mode, low)
        return None if self._strict and len(text) > 5 else self._settled(state)

    def _within(self, base: State, begun: bytes) -> int:
        """The number of the state after some bytes of a character."""
        found = edges(begun)
        if found is None:
            return 0
        first, last = found
        if first == last:
            return self._after(base, chr(first))
        if base[0] == Kind.NAME:
            if first_in(id_chars(continued=bool(base[3])), first, last) is None:
                return 0
            return self._number((Kind.CHARACTER, base[1], base, begun))
        _, outer, mode, low = base
        between = (Kind.SET, outer, "between", 0)
        if mode != "dash":
            base = between
        else:
            split = not self._strict and first > 0xFFFF
            least, most = (units(first)[0], units(last)[0]) if split else (first, last)
            if (low == CLASS and self._strict) or most < low:
                return 0
            if least >= low:
                if not split:
                    return self._number((Kind.TAIL, outer, to_go(begun), between))
                base = between
        return self._number((Kind.CHARACTER, outer, base, begun))

    # -- life and completions ---------------------------------------------------------------------------------------

    def _can_end(self, state: State) -> bool:
        if state[0] == Kind.SET_ESCAPE:
            return self._set_ending(state) is not None
        chars = id_chars(continued=bool(state[3]))
        return any(first_in(chars, first, last) is not None for first, last, _ in spellings(state[4]))

    def _set_ending(self, state: State) -> str | None:
        """A shortest text that ends an escape and the set around it."""
        for ending in endings(state[4]) if self._strict else loose_endings(state[4]):
            at: State | None = state
            for char in ending + "]":
                if at is None:
                    break
                at = self._steps[at[0]](at, char)
            if at is not None and at[0] == Kind.ATOM:
                return ending + "]"
        return None

    def _rest(self, outer: Outer) -> bytes:
        """What closes all groups, and what is owed."""
        wanted = sorted(outer.wanted)
        if self._needs_name and not wanted and not outer.names:
            wanted = ["a"]
        text = ")" * (outer.stack.bit_length() - 1) + "".join(f"(?<{name}>)" for name in wanted)
        return (text + "()" * (outer.owed - len(wanted))).encode()

    def _completion(self, state: State) -> bytes:
        kind, outer = state[0], self._outers[state[1]]
        end = ""
        match kind:
            case Kind.TAIL:
                _, _, more, target = state
                begun = bytearray()
                while more:
                    low, _, more = _CONTINUATIONS[more]
                    begun.append(low)
                return bytes(begun) + self._completion(target)
            case Kind.CHARACTER:
                _, _, base, begun = state
                first, last = edges(begun) or (0, 0)
                if base[0] == Kind.NAME:
                    return self._name_completion(outer, base[2], base[3], [(first, last, bytes_behind(begun))])
                after = self._steps[Kind.SET](base, chr(last)) or base
                return utf8(chr(last))[len(begun) :] + self._completion(after)
            case Kind.REFERENCE:
                outer = owing(outer, state[2])
            case Kind.ESCAPE | Kind.LETTER:
                end = "d"
            case Kind.NAMED:
                return b"<" + self._name_completion(outer, True, "", None)
            case Kind.HEX:
                end = "0" * state[2]
            case Kind.UNICODE:
                end = "{0}"
            case Kind.BRACED:
                end = "}" if state[2] >= 0 else "0}"
            case Kind.PROPERTY | Kind.SET_PROPERTY:
                end = property_ending(state[-1]) + ("]" if kind == Kind.SET_PROPERTY else "")
            case Kind.SET:
                end = "]"
            case Kind.SET_ESCAPE:
                end = self._set_ending(state) or ""
            case Kind.LOW | Kind.COMMA | Kind.ZEROS | Kind.HIGH if self._strict:
                end = _count_ending(state)
            case Kind.OPEN | Kind.OPEN_KIND | Kind.OPEN_ANGLE:
                return self._group_completion(kind, outer)
            case Kind.NAME:
                return self._name_completion(outer, state[2], state[3], None)
            case Kind.NAME_ESCAPE:
                return self._name_completion(outer, state[2], state[3], spellings(state[4]))
        return end.encode() + self._rest(outer)

    def _group_completion(self, kind: str, outer: Outer) -> bytes:
        closed = self._rest(self._captured(outer)) if kind == Kind.OPEN else self._rest(outer)
        found = [{Kind.OPEN: b")", Kind.OPEN_KIND: b":)", Kind.OPEN_ANGLE: b"=)"}[kind] + closed]
        if self._has_names:
            found.append({Kind.OPEN: b"?<", Kind.OPEN_KIND: b"<", Kind.OPEN_ANGLE: b""}[kind])
            found[-1] += self._name_completion(outer, False, "", None)
        return min(found, key=n_chars)

    def _name_completion(self, outer: Outer, is_reference: bool, text: str, forms: list[Spelling] | None) -> bytes:
        """A shortest completion within a name; `forms`: the spellings of the character that is being read."""
        names = sorted(outer.names | outer.wanted if is_reference else outer.wanted)
        found: list[tuple[bytes, str]] = []
        for name in names:
            if not name.startswith(text):
                continue
            if forms is None:
                found.append((utf8(name[len(text) :]), name))
            elif name != text:
                char, behind = ord(name[len(text)]), utf8(name[len(text) + 1 :])
                found += ((spell(char) + behind, name) for low, high, spell in forms if low <= char <= high)
        if forms is None:
            found += ((utf8(name[len(text) :]), name) for name in self._new_names(outer, is_reference, text))
        else:
            chars = id_chars(continued=bool(text))
            for low, high, spell in forms:
                while (code := first_in(chars, low, high)) is not None:
                    low, name = code + 1, text + chr(code)
                    found += (
                        (spell(code) + utf8(longer[len(name) :]), longer)
                        for longer in self._new_names(outer, is_reference, name)
                    )
                    if is_reference or name not in outer.names:
                        break
        best: list[bytes] = []
        for spelled, name in found:
            after = self._after_name(outer, is_reference, name)
            if after is not None:
                best.append(spelled + b">" + self._rest(after))
        return min(best, key=n_chars)

    def _new_names(self, outer: Outer, is_reference: bool, text: str) -> Iterator[str]:
        """A name that begins so and is of no group, as short as can be."""
        if text and (is_reference or text not in outer.names):
            yield text
        elif is_reference:
            yield "a"
        else:
            chars = id_chars(continued=bool(text))
            code = first_in(chars, 97, 0x10FFFF)
            while code is not None:
                if text + chr(code) not in outer.names:
                    yield text + chr(code)
                    return
                code = first_in(chars, code + 1, 0x10FFFF)


def _count_ending(state: State) -> str:
    """What completes the digits of a quantifier."""
    match state:
        case (Kind.ZEROS, _, _, str(digits)):
            return "9" * len(digits) + "}"
        case (Kind.HIGH, _, _, int(so_far), str(others)):
            return "9" * (len(others) + (so_far < 0)) + "}"
    return "}" if state[3] else "0}"
