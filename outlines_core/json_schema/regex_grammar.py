r"""One syntax of ECMAScript's regexes as a deterministic pushdown automaton over UTF-8 bytes, read from left to right.

A state is a tuple (kind, number of an `_Outer`, what the kind has to know). The `_Outer` holds what lasts: the open
groups, and what the rest of the text may ask for or owe: groups and names. It is no more than that, so states are
shared by all texts with the same future, as far as that can be seen without looking ahead.

There are three grammars (ECMA-262, 22.2.1 and B.1.2), and `regex_syntax` runs them side by side:

* "u": the strict syntax of the ``u`` flag,
* "plain": annex B for a pattern without named groups, where ``\k`` is the letter k,
* "named": annex B for a pattern with named groups, where ``\k`` needs a name.

**Life.** Open groups can be closed, missing groups and names appended, so a state dies by what was read alone:
``[b-a]``, ``a{2,1}``, a repeated name. Escapes that are being read must still fit: after ``[\u{1f600}-\`` they need five
hexadecimal digits. Which ones fit is found out by trying the completions with the greatest values.

**Completions.** `completion` returns a shortest one, in characters. All longer lengths are possible too: a "." never
continues an escape and is allowed wherever a pattern may end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias
from typing import Literal as OneOf

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Ranges
from outlines_core.regex.charset import union
from outlines_core.regex.unicode import ecma_properties, ecma_property

__all__ = ["Grammar"]

_State: TypeAlias = tuple[Any, ...]

# between two items: behind what may be repeated, behind what may not, behind a quantifier (then "?" may follow)
_ATOM, _BARE, _QUANTIFIED = "atom", "bare", "quantified"
# within an item; behind "\": _ESCAPE, and _NUL behind \0, _REFERENCE behind \1, _LETTER behind \c, _NAMED behind \k
_ESCAPE, _NUL, _REFERENCE, _LETTER, _NAMED = "\\", "\\0", "\\1", "\\c", "\\k"
_HEX, _UNICODE, _BRACED, _PROPERTY = "\\x", "\\u", "\\u{", "\\p"
_OPEN, _OPEN_KIND, _OPEN_ANGLE, _NAME, _NAME_ESCAPE = "(", "(?", "(?<", "(?<a", "(?<\\"
_LOW, _COMMA, _ZEROS, _HIGH = "{", "{1,", "{1,0", "{1,1"
_SET, _SET_ESCAPE, _SET_PROPERTY = "[", "[\\", "[\\p"
# within a character: bytes to go and the state behind it; or its first bytes and the state before it
_TAIL, _CHARACTER = "tail", "character"

_CLASS: Final = -1
"""The value of ``\\d`` in a set, where other items have their code point."""
_MAX_GROUPS: Final = 32767
_SYNTAX = frozenset("^$\\.*+?()[]{}|/")
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_CONTROL = {"f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "b": 8, "-": 45}
_ASCII_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CONTINUATIONS = {1: (0x80, 0xBF, 0), 2: (0x80, 0xBF, 1), 3: (0x80, 0xBF, 2)} | {
    0xE0: (0xA0, 0xBF, 1), 0xF0: (0x90, 0xBF, 2), 0xF4: (0x80, 0x8F, 2)
}  # fmt: skip
"""Of the bytes to go: the range of the next one, and what is to go then."""

# the characters that have a meaning of their own; all other ASCII ones are alike ("~" is one of them)
_TEXT_CHARS = "\\^$*+?()[]{}|"
_DIGITS = "0123456789"
_CHARS: dict[str, str] = dict.fromkeys((_ATOM, _BARE, _QUANTIFIED, _OPEN), _TEXT_CHARS) | {
    _ESCAPE: _DIGITS + "dDsSwWbBfnrtvcxupPk" + "".join(sorted(_SYNTAX)),
    _NUL: _TEXT_CHARS + _DIGITS,
    _REFERENCE: _TEXT_CHARS + _DIGITS,
    _LETTER: _ASCII_LETTERS + _ASCII_LETTERS.upper(),
    _NAMED: "<",
    _HEX: "".join(sorted(_HEX_DIGITS)),
    _UNICODE: "".join(sorted(_HEX_DIGITS)) + "{",
    _BRACED: "".join(sorted(_HEX_DIGITS)) + "}",
    _OPEN_KIND: ":=!<",
    _LOW: _TEXT_CHARS + _DIGITS + ",",
    _COMMA: _TEXT_CHARS + _DIGITS,
    _ZEROS: _TEXT_CHARS + _DIGITS,
    _HIGH: _TEXT_CHARS + _DIGITS,
}
_ALL_ASCII: Final = "".join(map(chr, range(128)))


class _Outer(NamedTuple):
    """What lasts.

    Attributes:
        stack: a bit for each open group behind a leading 1: may it be repeated?
        count: groups so far (in the grammar "u").
        owed: groups that must still come.
        names: those that are taken.
        wanted: those that a reference has named and no group has yet.
    """

    stack: int = 1
    count: int = 0
    owed: int = 0
    names: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()


class Grammar:
    """The lazy automaton of one syntax.  States are ints from 2 on; 0 is dead.

    Args:
        kind: see the module.
    """

    def __init__(self, kind: OneOf["u", "plain", "named"], limits: Limits = DEFAULT_LIMITS) -> None:
        self._strict, self._has_names, self._needs_name = kind == "u", kind != "plain", kind == "named"
        self.limits = limits
        self._outers: list[_Outer] = []
        self._outer_ids: dict[_Outer, int] = {}
        self._states: list[_State] = [(), ()]
        self._numbers: dict[_State, int] = {}
        self._rows: dict[int, NDArray[np.int32]] = {}
        self._steps: dict[str, Callable[[_State, str], _State | None]] = {
            **dict.fromkeys((_ATOM, _BARE, _QUANTIFIED), self._text),
            _ESCAPE: self._escape if self._strict else self._loose_escape,
            _NUL: self._after_nul,
            _REFERENCE: self._reference,
            _LETTER: self._letter,
            _NAMED: self._named,
            _HEX: self._hex,
            _UNICODE: self._unicode,
            _BRACED: self._braced,
            _PROPERTY: self._property,
            _OPEN: self._open,
            _OPEN_KIND: self._open_kind,
            _OPEN_ANGLE: self._open_angle,
            _NAME: self._name,
            _NAME_ESCAPE: self._name_escape,
            **dict.fromkeys((_LOW, _COMMA, _ZEROS, _HIGH), self._count),
            _SET: self._set,
            _SET_ESCAPE: self._set_escape if self._strict else self._loose_set_escape,
            _SET_PROPERTY: self._property,
        }
        self.start = self._number((_BARE, self._outer(_Outer())))

    # -- the automaton ----------------------------------------------------------------------------------------------

    @property
    def n_states(self) -> int:
        return len(self._states)

    @property
    def nbytes(self) -> int:
        return 300 * len(self._states) + 1100 * len(self._rows)

    def row(self, number: int) -> NDArray[np.int32]:
        """(256,) the next state by byte; 0 where no regex of this syntax begins so."""
        row = self._rows.get(number)
        if row is None:
            row = np.zeros(256, dtype=np.int32)
            if number:
                self._fill(self._states[number], row)
            row.flags.writeable = False
            self._rows[number] = row
        return row

    def accepts(self, number: int) -> bool:
        """May the regex end here?"""
        if number < 2:
            return False
        state = self._states[number]
        kind, outer = state[0], self._outers[state[1]]
        if kind == _REFERENCE:
            outer = _owing(outer, state[2])
        elif kind not in (_ATOM, _BARE, _QUANTIFIED, _NUL) and (self._strict or kind not in _BRACES):
            return False
        if outer.stack > 1 or outer.owed or outer.wanted:
            return False
        return not self._needs_name or bool(outer.names)

    def completion(self, number: int) -> bytes:
        """What completes a regex with as few characters as possible."""
        return self._completion(self._states[number])

    def _number(self, state: _State) -> int:
        number = self._numbers.get(state)
        if number is None:
            number = len(self._states)
            if number >= self.limits.max_states:
                raise LimitExceededError(
                    f"a regex as a value needs more than {number:,} automaton states (Limits.max_states)",
                    given=number + 1,
                    limit=self.limits.max_states,
                )
            self._numbers[state] = number
            self._states.append(state)
        return number

    def _outer(self, outer: _Outer) -> int:
        number = self._outer_ids.get(outer)
        if number is None:
            number = self._outer_ids[outer] = len(self._outers)
            self._outers.append(outer)
        return number

    # -- transitions ------------------------------------------------------------------------------------------------

    def _after(self, state: _State, char: str) -> int:
        """The number of the state after a character, 0 if it is dead."""
        target = self._steps[state[0]](state, char)
        if target is None:
            return 0
        if target[0] in _UNSURE and target not in self._numbers and not self._can_end(target):
            return 0
        return self._number(target)

    def _fill(self, state: _State, row: NDArray[np.int32]) -> None:
        kind = state[0]
        if kind == _TAIL:
            low, high, more = _CONTINUATIONS[state[2]]
            target = state[3]
            row[low : high + 1] = self._number((_TAIL, state[1], more, target) if more else target)
            return
        if kind == _CHARACTER:
            _, _, base, begun = state
            for byte in range(0x80, 0xC0):
                row[byte] = self._within(base, begun + bytes((byte,)))
            return
        if kind == _SET and state[2] in ("first", "item"):
            row[:] = self.row(self._number((_SET, state[1], "between", 0)))
            char = "^" if state[2] == "first" else "-"
            row[ord(char)] = self._after(state, char)
            return
        if kind in (_PROPERTY, _SET_PROPERTY):
            chars, default = _following(state[-1]), 0
        elif kind in _CHARS and (kind != _ESCAPE or self._strict):
            chars, default = _CHARS[kind], self._after(state, "~")
        elif kind == _ESCAPE:
            chars, default = "bBk", self._after(state, "~")
        else:
            chars, default = _ALL_ASCII, 0
        row[:128] = default
        for char in chars:
            row[ord(char)] = self._after(state, char)
        if kind in (_NAME, _OPEN_ANGLE):
            if self._has_names:
                base = state if kind == _NAME else (_NAME, state[1], False, "")
                self._fill_leads(base, row)
        elif kind in (_SET, _SET_ESCAPE):
            base = state if kind == _SET else self._before_character(state)
            if base is not None:
                self._fill_leads(base, row)
        else:
            target = self._steps[kind](state, "\u4e00")
            if target is not None:
                for slot, more in _LEADS:
                    row[slot] = self._number((_TAIL, state[1], more, target))

    def _fill_leads(self, base: _State, row: NDArray[np.int32]) -> None:
        for byte in range(0xC2, 0xF5):
            row[byte] = self._within(base, bytes((byte,)))

    def _before_character(self, state: _State) -> _State | None:
        """The set in which a character beyond ASCII comes behind an unfinished escape."""
        _, outer, mode, low, text = state
        if not text:
            return None if self._strict else (_SET, outer, mode, low)
        return None if self._strict and len(text) > 5 else self._settled(state)

    def _within(self, base: _State, begun: bytes) -> int:
        """The number of the state after some bytes of a character."""
        edges = _edges(begun)
        if edges is None:
            return 0
        first, last = edges
        if first == last:
            return self._after(base, chr(first))
        if base[0] == _NAME:
            if _first_in(_id_chars(continued=bool(base[3])), first, last) is None:
                return 0
            return self._number((_CHARACTER, base[1], base, begun))
        _, outer, mode, low = base
        between = (_SET, outer, "between", 0)
        if mode != "dash":
            base = between
        else:
            split = not self._strict and first > 0xFFFF
            least, most = (_units(first)[0], _units(last)[0]) if split else (first, last)
            if (low == _CLASS and self._strict) or most < low:
                return 0
            if least >= low:
                if not split:
                    return self._number((_TAIL, outer, _to_go(begun), between))
                base = between
        return self._number((_CHARACTER, outer, base, begun))

    # -- items ------------------------------------------------------------------------------------------------------

    def _text(self, state: _State, char: str) -> _State | None:
        kind, outer = state[:2]
        match char:
            case "\\":
                return _ESCAPE, outer
            case "^" | "$" | "|":
                return _BARE, outer
            case "(":
                return _OPEN, outer
            case ")":
                return self._closed(outer)
            case "[":
                return _SET, outer, "first", 0
            case "*" | "+":
                return (_QUANTIFIED, outer) if kind == _ATOM else None
            case "?":
                return (_QUANTIFIED, outer) if kind == _ATOM else (_BARE, outer) if kind == _QUANTIFIED else None
            case "{":
                if self._strict and kind != _ATOM:
                    return None
                return _LOW, outer, kind == _ATOM, ""
            case "]" | "}" if self._strict:
                return None
        return _ATOM, outer

    def _closed(self, outer: int) -> _State | None:
        inner = self._outers[outer]
        if inner.stack == 1:
            return None
        return (_ATOM if inner.stack & 1 else _BARE), self._outer(inner._replace(stack=inner.stack >> 1))

    def _count(self, state: _State, char: str) -> _State | None:
        """Within ``{``: the digits of the first number; then how the second one compares with it.

        `_HIGH` holds how the digits so far compare with as many of the first number, and the others of that.
        """
        kind, outer, fits = state[:3]
        if char in _DIGITS:
            if kind == _LOW:
                return _LOW, outer, fits, ((state[3] + char).lstrip("0") or "0") if fits else "0"
            if kind == _HIGH:
                return _HIGH, outer, fits, *_compared(state[3], state[4], char)
            if state[3] == "0":
                return _HIGH, outer, fits, 1, ""
            return (_ZEROS, outer, fits, state[3]) if char == "0" else (_HIGH, outer, fits, *_compared(0, state[3], char))
        if char == "," and kind == _LOW and state[3]:
            return _COMMA, outer, fits, state[3]
        if char == "}" and not (kind == _LOW and not state[3]):
            in_order = kind in (_LOW, _COMMA) or (kind == _HIGH and not state[4] and state[3] >= 0)
            return (_QUANTIFIED, outer) if fits and in_order else None
        return None if self._strict else self._text((_ATOM, outer), char)

    # -- escapes ----------------------------------------------------------------------------------------------------

    def _escape(self, state: _State, char: str) -> _State | None:
        outer = state[1]
        if char in _SYNTAX or char in "dDsSwWfnrtv":
            return _ATOM, outer
        match char:
            case "b" | "B":
                return _BARE, outer
            case "0":
                return _NUL, outer
            case "c":
                return _LETTER, outer
            case "x":
                return _HEX, outer, 2
            case "u":
                return _UNICODE, outer
            case "p" | "P":
                return _PROPERTY, outer, ""
            case "k":
                return _NAMED, outer
        return (_REFERENCE, outer, int(char)) if char in _DIGITS else None

    def _loose_escape(self, state: _State, char: str) -> _State | None:
        r"""Annex B: ``\1``, ``\x``, ``\c``, ``\u{`` begin longer escapes or not, it is the same to what follows."""
        if char == "k" and self._has_names:
            return _NAMED, state[1]
        return (_BARE if char in "bB" else _ATOM), state[1]

    def _after_nul(self, state: _State, char: str) -> _State | None:
        return None if char in _DIGITS else self._text((_ATOM, state[1]), char)

    def _reference(self, state: _State, char: str) -> _State | None:
        _, outer, number = state
        if char in _DIGITS:
            number = 10 * number + int(char)
            return (_REFERENCE, outer, number) if number <= _MAX_GROUPS else None
        return self._text((_ATOM, self._outer(_owing(self._outers[outer], number))), char)

    def _letter(self, state: _State, char: str) -> _State | None:
        return (_ATOM, state[1]) if char.isascii() and char.isalpha() else None

    def _named(self, state: _State, char: str) -> _State | None:
        return (_NAME, state[1], True, "") if char == "<" else None

    def _hex(self, state: _State, char: str) -> _State | None:
        _, outer, left = state
        if char not in _HEX_DIGITS:
            return None
        return (_HEX, outer, left - 1) if left > 1 else (_ATOM, outer)

    def _unicode(self, state: _State, char: str) -> _State | None:
        return (_BRACED, state[1], -1) if char == "{" else self._hex((_HEX, state[1], 4), char)

    def _braced(self, state: _State, char: str) -> _State | None:
        _, outer, code = state
        if char == "}":
            return (_ATOM, outer) if code >= 0 else None
        if char not in _HEX_DIGITS:
            return None
        code = 16 * max(code, 0) + int(char, 16)
        return (_BRACED, outer, code) if code <= 0x10FFFF else None

    def _property(self, state: _State, char: str) -> _State | None:
        text = state[-1] + char
        if text in _properties():
            return (_ATOM, state[1]) if state[0] == _PROPERTY else (_SET, state[1], "item", _CLASS)
        return (*state[:-1], text) if char in _following(state[-1]) else None

    # -- groups -----------------------------------------------------------------------------------------------------

    def _inside(self, outer: _Outer, *, repeatable: bool = True) -> _State:
        return _BARE, self._outer(outer._replace(stack=outer.stack << 1 | repeatable))

    def _captured(self, outer: _Outer) -> _Outer:
        if not self._strict:
            return outer
        return outer._replace(count=min(outer.count + 1, _MAX_GROUPS), owed=max(outer.owed - 1, 0))

    def _open(self, state: _State, char: str) -> _State | None:
        if char == "?":
            return _OPEN_KIND, state[1]
        return self._text(self._inside(self._captured(self._outers[state[1]])), char)

    def _open_kind(self, state: _State, char: str) -> _State | None:
        match char:
            case ":":
                return self._inside(self._outers[state[1]])
            case "=" | "!":
                return self._inside(self._outers[state[1]], repeatable=not self._strict)
            case "<":
                return _OPEN_ANGLE, state[1]
        return None

    def _open_angle(self, state: _State, char: str) -> _State | None:
        if char in "=!":
            return self._inside(self._outers[state[1]], repeatable=False)
        return self._name((_NAME, state[1], False, ""), char) if self._has_names else None

    def _name(self, state: _State, char: str) -> _State | None:
        _, outer, is_reference, text = state
        if char == ">":
            return self._after_name(self._outers[outer], is_reference, text)
        if char == "\\":
            return _NAME_ESCAPE, outer, is_reference, text, ""
        code = ord(char)
        if _first_in(_id_chars(continued=bool(text)), code, code) is None:
            return None
        return _NAME, outer, is_reference, text + char

    def _after_name(self, outer: _Outer, is_reference: bool, name: str) -> _State | None:
        if not name or (not is_reference and name in outer.names):
            return None
        if is_reference:
            wanted = outer.wanted if name in outer.names else outer.wanted | {name}
            return _ATOM, self._outer(outer._replace(wanted=wanted))
        outer = self._captured(outer)
        return self._inside(outer._replace(names=outer.names | {name}, wanted=outer.wanted - {name}))

    def _name_escape(self, state: _State, char: str) -> _State | None:
        r"""``\u0061``, ``\u{61}``, ``\ud835\udc9c``, in both syntaxes."""
        _, outer, is_reference, name, text = state
        text = _longer(text, char)
        if text is None:
            return None
        code = _code_of(text)
        if code is None or _high_surrogate(text) == code:
            return _NAME_ESCAPE, outer, is_reference, name, text
        if _first_in(_id_chars(continued=bool(name)), code, code) is None:
            return None
        return _NAME, outer, is_reference, name + chr(code)

    # -- sets -------------------------------------------------------------------------------------------------------

    def _set(self, state: _State, char: str) -> _State | None:
        r"""Within ``[``: at its "first" place, "between" items, behind an "item", behind a "dash" behind one."""
        _, outer, mode, low = state
        match char:
            case "]":
                return _ATOM, outer
            case "\\":
                return _SET_ESCAPE, outer, mode, low, ""
            case "^" if mode == "first":
                return _SET, outer, "between", 0
            case "-" if mode == "item":
                return _SET, outer, "dash", low
        return self._listed(state, ord(char))

    def _listed(self, state: _State | None, code: int) -> _State | None:
        """After an item; without the ``u`` flag a character above U+FFFF is two."""
        if code > 0xFFFF and not self._strict:
            high, code = _units(code)
            state = self._listed(state, high)
        if state is None:
            return None
        _, outer, mode, low, *_ = state
        if mode != "dash":
            return _SET, outer, "item", code
        if _CLASS in (low, code):
            return None if self._strict else (_SET, outer, "between", 0)
        return (_SET, outer, "between", 0) if low <= code else None

    def _set_escape(self, state: _State, char: str) -> _State | None:
        _, outer, mode, low, text = state
        if not text:
            if char in _CONTROL or char in _SYNTAX:
                return self._listed(state, _CONTROL.get(char, ord(char)))
            if char in "dDsSwW":
                return self._listed(state, _CLASS)
            if char in "pP":
                return None if mode == "dash" else (_SET_PROPERTY, outer, "")
            return (*state[:4], char) if char in "0cxu" else None
        if text == "0":
            return None if char in _DIGITS else self._set_after(self._settled(state), char)
        if text == "c":
            return self._listed(state, ord(char) % 32) if char.isascii() and char.isalpha() else None
        longer = _longer(text, char)
        code = None if longer is None else _code_of(longer)
        if longer is None or (len(text) == 10 and code is not None and code < 0x10000):
            lead = self._settled(state)  # a high surrogate that stays alone
            if lead is None:
                return None
            if len(text) == 5:
                return self._set_after(lead, char)
            for again in text[5:] + char:
                lead = None if lead is None else self._steps[lead[0]](lead, again)
            return lead
        if code is None or _high_surrogate(longer) == code:
            return *state[:4], longer
        return self._listed(state, code)

    def _loose_set_escape(self, state: _State, char: str) -> _State | None:
        _, _, _, _, text = state
        if not text:
            if char in "dDsSwW":
                return self._listed(state, _CLASS)
            if char == "k" and self._has_names:
                return None
            if char in "cxu01234567":
                return *state[:4], char
            return self._listed(state, _CONTROL.get(char, ord(char)))
        if text == "c":
            if char.isascii() and (char.isalnum() or char == "_"):
                return self._listed(state, ord(char) % 32)
        elif text[0] in "xu":
            if char in _HEX_DIGITS:
                digits = text[1:] + char
                if len(digits) == (2 if text[0] == "x" else 4):
                    return self._listed(state, int(digits, 16))
                return *state[:4], text + char
        elif char in "01234567":
            code = int(text + char, 8)
            return self._listed(state, code) if len(text) == 2 or code > 31 else (*state[:4], text + char)
        return self._set_after(self._settled(state), char)

    def _set_after(self, state: _State | None, char: str) -> _State | None:
        return None if state is None else self._set(state, char)

    def _settled(self, state: _State) -> _State | None:
        """The set if an escape that could go on does not: ``[\\x1``, ``[\\c``, or ``[\\ud835`` with the ``u`` flag."""
        text = state[4]
        if self._strict:
            code = 0 if text == "0" else _high_surrogate(text)
            return None if code is None else self._listed(state, code)
        if text[0] in "01234567":
            return self._listed(state, int(text, 8))
        after = self._listed(state, ord("\\" if text == "c" else text[0]))
        for char in "c" if text == "c" else text[1:]:
            after = self._set_after(after, char)
        return after

    # -- life and completions ---------------------------------------------------------------------------------------

    def _can_end(self, state: _State) -> bool:
        if state[0] == _SET_ESCAPE:
            return self._set_ending(state) is not None
        chars = _id_chars(continued=bool(state[3]))
        return any(_first_in(chars, first, last) is not None for first, last, _ in _spellings(state[4]))

    def _set_ending(self, state: _State) -> str | None:
        """A shortest text that ends an escape and the set around it."""
        for ending in _endings(state[4]) if self._strict else _loose_endings(state[4]):
            at: _State | None = state
            for char in ending + "]":
                if at is None:
                    break
                at = self._steps[at[0]](at, char)
            if at is not None and at[0] == _ATOM:
                return ending + "]"
        return None

    def _rest(self, outer: _Outer) -> bytes:
        """What closes all groups, and what is owed."""
        wanted = sorted(outer.wanted)
        if self._needs_name and not wanted and not outer.names:
            wanted = ["a"]
        text = ")" * (outer.stack.bit_length() - 1) + "".join(f"(?<{name}>)" for name in wanted)
        return (text + "()" * (outer.owed - len(wanted))).encode()

    def _completion(self, state: _State) -> bytes:
        kind, outer = state[0], self._outers[state[1]]
        end = ""
        match kind:
            case "tail":
                _, number, more, target = state
                begun = bytearray()
                while more:
                    low, _, more = _CONTINUATIONS[more]
                    begun.append(low)
                return bytes(begun) + self._completion(target)
            case "character":
                _, _, base, begun = state
                if base[0] == _NAME:
                    return self._name_completion(outer, base[2], base[3], [(*_edges(begun), _bytes_behind(begun))])
                last = chr(_edges(begun)[1])
                return _utf8(last)[len(begun) :] + self._completion(self._steps[_SET](base, last))
            case "\\1":
                outer = _owing(outer, state[2])
            case "\\" | "\\c":
                end = "d"
            case "\\k":
                return b"<" + self._name_completion(outer, True, "", None)
            case "\\x":
                end = "0" * state[2]
            case "\\u":
                end = "{0}"
            case "\\u{":
                end = "}" if state[2] >= 0 else "0}"
            case "\\p" | "[\\p":
                end = _property_ending(state[-1]) + ("]" if kind == _SET_PROPERTY else "")
            case "[":
                end = "]"
            case "[\\":
                end = self._set_ending(state) or ""
            case "{" | "{1," | "{1,0" | "{1,1" if self._strict:
                end = _count_ending(state)
            case "(" | "(?" | "(?<":
                return self._group_completion(kind, outer)
            case "(?<a":
                return self._name_completion(outer, state[2], state[3], None)
            case "(?<\\":
                return self._name_completion(outer, state[2], state[3], _spellings(state[4]))
        return end.encode() + self._rest(outer)

    def _group_completion(self, kind: str, outer: _Outer) -> bytes:
        closed = self._rest(self._captured(outer)) if kind == _OPEN else self._rest(outer)
        found = [{_OPEN: b")", _OPEN_KIND: b":)", _OPEN_ANGLE: b"=)"}[kind] + closed]
        if self._has_names:
            found.append({_OPEN: b"?<", _OPEN_KIND: b"<", _OPEN_ANGLE: b""}[kind])
            found[-1] += self._name_completion(outer, False, "", None)
        return min(found, key=_n_chars)

    def _name_completion(
        self, outer: _Outer, is_reference: bool, text: str, spellings: list[_Spelling] | None
    ) -> bytes:
        """A shortest completion within a name; `spellings`: of the character that is being read."""
        names = sorted(outer.names | outer.wanted if is_reference else outer.wanted)
        found: list[tuple[bytes, str]] = []
        for name in names:
            if not name.startswith(text):
                continue
            if spellings is None:
                found.append((_utf8(name[len(text) :]), name))
            elif name != text:
                code = ord(name[len(text)])
                behind = _utf8(name[len(text) + 1 :])
                found += ((spell(code) + behind, name) for low, high, spell in spellings if low <= code <= high)
        if spellings is None:
            found += ((_utf8(name[len(text) :]), name) for name in self._new_names(outer, is_reference, text))
        else:
            chars = _id_chars(continued=bool(text))
            for low, high, spell in spellings:
                while (code := _first_in(chars, low, high)) is not None:
                    low, name = code + 1, text + chr(code)
                    found += (
                        (spell(code) + _utf8(longer[len(name) :]), longer)
                        for longer in self._new_names(outer, is_reference, name)
                    )
                    if is_reference or name not in outer.names:
                        break
        best: list[bytes] = []
        for spelled, name in found:
            after = self._after_name(outer, is_reference, name)
            if after is not None:
                best.append(spelled + b">" + self._rest(self._outers[after[1]]))
        return min(best, key=_n_chars)

    def _new_names(self, outer: _Outer, is_reference: bool, text: str) -> Iterator[str]:
        """A name that begins so and is of no group, as short as can be."""
        if text and (is_reference or text not in outer.names):
            yield text
        elif is_reference:
            yield "a"
        else:
            chars, code = _id_chars(continued=bool(text)), 96
            while True:
                following = _first_in(chars, code + 1, 0x10FFFF)
                if following is None:
                    return
                code = following
                if text + chr(code) not in outer.names:
                    yield text + chr(code)
                    return


_BRACES = frozenset((_LOW, _COMMA, _ZEROS, _HIGH))
_UNSURE = frozenset((_SET_ESCAPE, _NAME_ESCAPE))
_LEADS: Final = (
    (slice(0xC2, 0xE0), 1), (0xE0, 0xE0), (slice(0xE1, 0xF0), 2), (0xF0, 0xF0), (slice(0xF1, 0xF4), 3), (0xF4, 0xF4)
)  # fmt: skip
"""Of the first bytes of characters: what is to go then."""
_Spelling: TypeAlias = tuple[int, int, Callable[[int], bytes]]
"""A range of characters, and what completes the spelling of one."""


def _owing(outer: _Outer, number: int) -> _Outer:
    """After a reference to a group."""
    return outer._replace(owed=max(outer.owed, number - outer.count))


def _compared(so_far: int, others: str, digit: str) -> tuple[int, str]:
    """A further digit of the second number against the `others` of the first one."""
    if not others:
        return 1, ""
    if so_far == 0:
        so_far = (digit > others[0]) - (digit < others[0])
    others = others[1:]
    if not others and so_far >= 0:
        return 1, ""
    return so_far, others if so_far == 0 else "0" * len(others)


def _count_ending(state: _State) -> str:
    kind = state[0]
    if kind in (_LOW, _COMMA):
        return "}" if state[3] else "0}"
    if kind == _ZEROS:
        return "9" * len(state[3]) + "}"
    return "9" * (len(state[4]) + (state[3] < 0)) + "}"


# -- characters --------------------------------------------------------------------------------------------------------


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _n_chars(text: bytes) -> int:
    return sum(byte & 0xC0 != 0x80 for byte in text)


def _units(code: int) -> tuple[int, int]:
    """The two code units of a character above U+FFFF."""
    return 0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF)


def _to_go(begun: bytes) -> int:
    """What is to go of a character (as in `_CONTINUATIONS`)."""
    lead, n = begun[0], len(begun)
    length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    return lead if n == 1 and lead in (0xE0, 0xF0, 0xF4) else length - n


@cache
def _edges(begun: bytes) -> tuple[int, int] | None:
    """The first and last character whose UTF-8 begins so (surrogates too); None: there is none."""
    lead, n = begun[0], len(begun)
    length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    code = lead & (0xFF >> length + 1)
    for byte in begun[1:]:
        code = code << 6 | byte & 0x3F
    shift = 6 * (length - n)
    first = max(code << shift, {2: 0x80, 3: 0x800, 4: 0x10000}[length])
    last = min((code + 1 << shift) - 1, 0x10FFFF)
    return (first, last) if first <= last else None


def _bytes_behind(begun: bytes) -> Callable[[int], bytes]:
    return lambda code: chr(code).encode()[len(begun) :]


@cache
def _id_chars(*, continued: bool) -> Ranges:
    """The characters that begin or continue the name of a group."""
    listed = ecma_property("ID_Continue" if continued else "ID_Start")
    assert listed is not None
    extra = ((36, 36), (95, 95), (0x200C, 0x200D)) if continued else ((36, 36), (95, 95))
    return union(listed, extra)


def _first_in(ranges: Ranges, first: int, last: int) -> int | None:
    """The first element from `first` to `last`."""
    at = bisect_left(ranges, (first, 0x110000))
    if at and ranges[at - 1][1] >= first:
        return first
    if at < len(ranges) and ranges[at][0] <= last:
        return ranges[at][0]
    return None


# -- escapes of characters ---------------------------------------------------------------------------------------------


def _longer(text: str, char: str) -> str | None:
    r"""An escape (without its backslash) after one more character; None: it is none.

    Its forms: ``x61``, ``u0061``, ``u{61}``, ``ud835\udc9c``; "u{" holds no leading zeros.
    """
    if text == "":
        return "u" if char == "u" else None
    if text == "u" and char == "{":
        return "u{"
    if text.startswith("u{"):
        if char == "}":
            return text + char if len(text) > 2 else None
        if char not in _HEX_DIGITS:
            return None
        digits = (text[2:] + char).lstrip("0") or "0"
        return "u{" + digits if int(digits, 16) <= 0x10FFFF else None
    if len(text) == 5:
        return text + char if char == "\\" else None
    if len(text) == 6:
        return text + char if char == "u" else None
    return text + char if char in _HEX_DIGITS else None


def _code_of(text: str) -> int | None:
    """What a complete escape stands for; a high surrogate may still become half of a character."""
    if text[0] == "x":
        return int(text[1:], 16) if len(text) == 3 else None
    if text.endswith("}"):
        return int(text[2:-1], 16)
    if "{" not in text and len(text) == 5:
        return int(text[1:], 16)
    if len(text) < 11:
        return None
    high, low = int(text[1:5], 16), int(text[7:], 16)
    return 0x10000 + (high - 0xD800 << 10) + low - 0xDC00 if 0xDC00 <= low < 0xE000 else low


def _high_surrogate(text: str) -> int | None:
    """The first half of a character that an escape like ``ud835`` begins."""
    if len(text) < 5 or text[0] != "u" or text[1] == "{":
        return None
    code = int(text[1:5], 16)
    return code if 0xD800 <= code < 0xDC00 else None


@cache
def _endings(text: str) -> tuple[str, ...]:
    """What can complete an escape in a set under the ``u`` flag, shortest first: the greatest values of each length."""
    if text == "":
        return ("d", "}", "xff", "uffff", "u{fffff}", "u{10ffff}")
    if text in ("0", "c"):
        return ("" if text == "0" else "z",)
    if text[0] == "x":
        return ("f" * (3 - len(text)),)
    if text.startswith("u{"):
        digits = text[2:].lower()
        begun = digits.lstrip("0")
        found = ["f" * n + "}" for n in range(0 if digits else 1, 6) if int(begun + "f" * n or "0", 16) <= 0x10FFFF]
        if "10ffff".startswith(begun):
            found.append("10ffff"[len(begun) :] + "}")
        return tuple(sorted(dict.fromkeys(found), key=len))
    if len(text) >= 5:
        behind = text[5:]
        return {"": ("", "\\udfff"), "\\": ("d", "udfff"), "\\u": ("{f}", "dfff")}.get(behind) or ("f" * (11 - len(text)),)
    found = ["f" * (5 - len(text))]
    if text == "u":
        found += ["{f}", "{fffff}", "{10ffff}"]
    digits = text[1:].lower()
    for pair in ("d8ff", "d9ff", "daff", "dbff"):
        if pair.startswith(digits) or (len(digits) == 3 and pair.startswith(digits[:2])):
            found.append((pair + "\\udfff")[len(digits) :])
    return tuple(sorted(found, key=len))


def _loose_endings(text: str) -> tuple[str, ...]:
    """The same for annex B, where most escapes need not be completed."""
    if text == "":
        return ("d",)
    if text == "c":
        return ("",)
    if text[0] in "xu":
        return "", "f" * ((3 if text[0] == "x" else 5) - len(text))
    return ("", "7", "77")[: 4 - len(text)]


@cache
def _spellings(text: str) -> list[_Spelling]:
    r"""The characters that an escape in a name can become, by how it is completed."""
    if text in ("", "u"):
        before = "u"[len(text) :]
        wide = [(0, 0xFFFF, lambda code: f"{before}{code:04x}".encode())]
        return [(0, 0x10FFFF, lambda code: f"{before}{{{code:x}}}".encode()), *wide, *_pairs("", before)]
    if text.startswith("u{"):
        digits = text[2:].lstrip("0")
        if not digits:
            return [(0, 0x10FFFF, lambda code: f"{code:x}}}".encode())]
        return [
            (int(digits, 16) << 4 * n, min((int(digits, 16) + 1 << 4 * n) - 1, 0x10FFFF), _braced_behind(len(digits)))
            for n in range(6)
            if int(digits, 16) << 4 * n <= 0x10FFFF
        ]
    if len(text) < 5:
        left = 5 - len(text)
        low = int(text[1:], 16) << 4 * left
        return [(low, low + (1 << 4 * left) - 1, lambda code: f"{code:04x}"[4 - left :].encode()), *_pairs(text[1:], "")]
    return _pairs(text[1:5], "", text[5:])


def _braced_behind(n: int) -> Callable[[int], bytes]:
    return lambda code: f"{code:x}}}"[n:].encode()


def _pairs(high: str, before: str, behind: str = "") -> list[_Spelling]:
    """The characters that two escaped surrogates spell: of the first one the digits `high`, of the second `behind`."""
    left = 4 - len(high)
    first = int(high or "0", 16) << 4 * left
    low, most = max(first, 0xD800), min(first + (1 << 4 * left) - 1, 0xDBFF)
    if low > most:
        return []
    digits = behind[2:]
    rest = 4 - len(digits)
    least = int(digits or "0", 16) << 4 * rest
    trail, last = max(least, 0xDC00), min(least + (1 << 4 * rest) - 1, 0xDFFF)
    if trail > last:
        return []

    def spell(code: int) -> bytes:
        one, two = _units(code)
        return (before + (f"{one:04x}"[len(high) :] + f"\\u{two:04x}"[len(behind) :])).encode()

    code = 0x10000 + (low - 0xD800 << 10)
    return [(code + trail - 0xDC00, 0x10000 + (most - 0xD800 << 10) + last - 0xDC00, spell)]


# -- properties --------------------------------------------------------------------------------------------------------


@cache
def _properties() -> frozenset[str]:
    r"""What may follow ``\p``."""
    return frozenset(f"{{{name}}}" for name in ecma_properties())


@cache
def _following(text: str) -> str:
    """The characters that continue what follows ``\\p``."""
    return "".join(sorted({name[len(text)] for name in _properties() if name.startswith(text) and name != text}))


@cache
def _property_ending(text: str) -> str:
    return min((name for name in _properties() if name.startswith(text)), key=lambda name: (len(name), name))[len(text) :]
