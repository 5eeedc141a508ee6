r"""What one more character does to a regex that is being read: the grammars of `regex_grammar`, step by step.

A state is a tuple: its `Kind`, the number of an `Outer`, and what the kind has to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias
from typing import Literal as OneOf

from outlines_core.json_schema.regex_escapes import (
    HEX_DIGITS,
    code_of,
    first_in,
    following,
    high_surrogate,
    id_chars,
    longer,
    properties,
    units,
)

__all__ = ["CLASS", "DIGITS", "SYNTAX", "Kind", "Outer", "State", "Steps", "owing"]

State: TypeAlias = tuple[Any, ...]

CLASS: Final = -1
"""The value of ``\\d`` in a set, where other items have their code point."""
DIGITS: Final = "0123456789"
SYNTAX: Final = frozenset("^$\\.*+?()[]{}|/")
_MAX_GROUPS: Final = 32767
_CONTROL: Final = {"f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "b": 8, "-": 45}
_FOREIGN: Final = frozenset("aeghijlmoqyzACEFGHIJKLMNOQRTUVXYZ")
"""Letters that no escape of ECMA-262 begins with."""


class Kind:
    """What is being read."""

    # between two items: behind what may be repeated, behind what may not, behind a quantifier (then "?" may follow)
    ATOM, BARE, QUANTIFIED = "atom", "bare", "quantified"
    # behind a backslash; behind \\0, \\1, \\c, \\k; within longer ones
    ESCAPE, NUL, REFERENCE, LETTER, NAMED = "\\", "\\0", "\\1", "\\c", "\\k"
    HEX, UNICODE, BRACED, PROPERTY = "\\x", "\\u", "\\u{", "\\p"
    OPEN, OPEN_KIND, OPEN_ANGLE, NAME, NAME_ESCAPE = "(", "(?", "(?<", "(?<a", "(?<\\"
    LOW, COMMA, ZEROS, HIGH = "{", "{1,", "{1,0", "{1,1"
    SET, SET_ESCAPE, SET_PROPERTY = "[", "[\\", "[\\p"
    # within a character: bytes to go and the state behind it; or its first bytes and the state before it
    TAIL, CHARACTER = "tail", "character"


class Outer(NamedTuple):
    """What lasts.

    Attributes:
        stack: a bit for each open group behind a leading 1: may it be repeated?
        n_groups: groups so far (in the grammar "u").
        owed: groups that must still come.
        names: those that are taken.
        wanted: those that a reference has named and no group has yet.
    """

    stack: int = 1
    n_groups: int = 0
    owed: int = 0
    names: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()


class Steps:
    """The steps of one grammar.

    Args:
        kind: see `regex_grammar`.
    """

    def __init__(self, kind: OneOf["u", "plain", "named"]) -> None:
        self._strict, self._has_names, self._needs_name = kind == "u", kind != "plain", kind == "named"
        self._outers: list[Outer] = []
        self._outer_ids: dict[Outer, int] = {}
        self._steps: dict[str, Callable[[State, str], State | None]] = {
            **dict.fromkeys((Kind.ATOM, Kind.BARE, Kind.QUANTIFIED), self._text),
            Kind.ESCAPE: self._escape if self._strict else self._loose_escape,
            Kind.NUL: self._after_nul,
            Kind.REFERENCE: self._reference,
            Kind.LETTER: self._letter,
            Kind.NAMED: self._named,
            Kind.HEX: self._hex,
            Kind.UNICODE: self._unicode,
            Kind.BRACED: self._braced,
            Kind.PROPERTY: self._property,
            Kind.OPEN: self._open,
            Kind.OPEN_KIND: self._open_kind,
            Kind.OPEN_ANGLE: self._open_angle,
            Kind.NAME: self._name,
            Kind.NAME_ESCAPE: self._name_escape,
            **dict.fromkeys((Kind.LOW, Kind.COMMA, Kind.ZEROS, Kind.HIGH), self._count),
            Kind.SET: self._set,
            Kind.SET_ESCAPE: self._set_escape if self._strict else self._loose_set_escape,
            Kind.SET_PROPERTY: self._property,
        }

    def _outer(self, outer: Outer) -> int:
        number = self._outer_ids.get(outer)
        if number is None:
            number = self._outer_ids[outer] = len(self._outers)
            self._outers.append(outer)
            self._added(number)
        return number

    def _added(self, number: int) -> None:
        """An `Outer` is new."""

    # -- items ------------------------------------------------------------------------------------------------------

    def _text(self, state: State, char: str) -> State | None:
        kind, outer = state[:2]
        match char:
            case "\\":
                return Kind.ESCAPE, outer
            case "^" | "$" | "|":
                return Kind.BARE, outer
            case "(":
                return Kind.OPEN, outer
            case ")":
                return self._closed(outer)
            case "[":
                return Kind.SET, outer, "first", 0
            case "*" | "+":
                return (Kind.QUANTIFIED, outer) if kind == Kind.ATOM else None
            case "?":
                return (
                    (Kind.QUANTIFIED, outer)
                    if kind == Kind.ATOM
                    else (Kind.BARE, outer)
                    if kind == Kind.QUANTIFIED
                    else None
                )
            case "{":
                if self._strict and kind != Kind.ATOM:
                    return None
                return Kind.LOW, outer, kind == Kind.ATOM, ""
            case "]" | "}" if self._strict:
                return None
        return Kind.ATOM, outer

    def _closed(self, outer: int) -> State | None:
        inner = self._outers[outer]
        if inner.stack == 1:
            return None
        return (Kind.ATOM if inner.stack & 1 else Kind.BARE), self._outer(inner._replace(stack=inner.stack >> 1))

    def _count(self, state: State, char: str) -> State | None:
        """Within ``{``: the digits of the first number; then how the second one compares with it.

        `Kind.HIGH` holds how the digits so far compare with as many of the first number, and the others of that.
        """
        kind, outer, fits = state[:3]
        if char in DIGITS:
            if kind == Kind.LOW:
                return Kind.LOW, outer, fits, ((state[3] + char).lstrip("0") or "0") if fits else "0"
            if kind == Kind.HIGH:
                return Kind.HIGH, outer, fits, *_compared(state[3], state[4], char)
            if state[3] == "0":
                return Kind.HIGH, outer, fits, 1, ""
            return (
                (Kind.ZEROS, outer, fits, state[3])
                if char == "0"
                else (Kind.HIGH, outer, fits, *_compared(0, state[3], char))
            )
        if char == "," and kind == Kind.LOW and state[3]:
            return Kind.COMMA, outer, fits, state[3]
        if char == "}" and not (kind == Kind.LOW and not state[3]):
            in_order = kind in (Kind.LOW, Kind.COMMA) or (kind == Kind.HIGH and not state[4] and state[3] >= 0)
            return (Kind.QUANTIFIED, outer) if fits and in_order else None
        return None if self._strict else self._text((Kind.ATOM, outer), char)

    # -- escapes ----------------------------------------------------------------------------------------------------

    def _escape(self, state: State, char: str) -> State | None:
        outer = state[1]
        if char in SYNTAX or char in "dDsSwWfnrtv":
            return Kind.ATOM, outer
        match char:
            case "b" | "B":
                return Kind.BARE, outer
            case "0":
                return Kind.NUL, outer
            case "c":
                return Kind.LETTER, outer
            case "x":
                return Kind.HEX, outer, 2
            case "u":
                return Kind.UNICODE, outer
            case "p" | "P":
                return Kind.PROPERTY, outer, ""
            case "k":
                return Kind.NAMED, outer
        return (Kind.REFERENCE, outer, int(char)) if char in DIGITS else None

    def _loose_escape(self, state: State, char: str) -> State | None:
        r"""Annex B: ``\1``, ``\x``, ``\c``, ``\u{`` begin longer escapes or not, it is the same to what follows."""
        if char in _FOREIGN:
            return None
        if char == "k" and self._has_names:
            return Kind.NAMED, state[1]
        return (Kind.BARE if char in "bB" else Kind.ATOM), state[1]

    def _after_nul(self, state: State, char: str) -> State | None:
        return None if char in DIGITS else self._text((Kind.ATOM, state[1]), char)

    def _reference(self, state: State, char: str) -> State | None:
        _, outer, number = state
        if char in DIGITS:
            number = 10 * number + int(char)
            return (Kind.REFERENCE, outer, number) if number <= _MAX_GROUPS else None
        return self._text((Kind.ATOM, self._outer(owing(self._outers[outer], number))), char)

    def _letter(self, state: State, char: str) -> State | None:
        return (Kind.ATOM, state[1]) if char.isascii() and char.isalpha() else None

    def _named(self, state: State, char: str) -> State | None:
        return (Kind.NAME, state[1], True, "") if char == "<" else None

    def _hex(self, state: State, char: str) -> State | None:
        _, outer, left = state
        if char not in HEX_DIGITS:
            return None
        return (Kind.HEX, outer, left - 1) if left > 1 else (Kind.ATOM, outer)

    def _unicode(self, state: State, char: str) -> State | None:
        return (Kind.BRACED, state[1], -1) if char == "{" else self._hex((Kind.HEX, state[1], 4), char)

    def _braced(self, state: State, char: str) -> State | None:
        _, outer, code = state
        if char == "}":
            return (Kind.ATOM, outer) if code >= 0 else None
        if char not in HEX_DIGITS:
            return None
        code = 16 * max(code, 0) + int(char, 16)
        return (Kind.BRACED, outer, code) if code <= 0x10FFFF else None

    def _property(self, state: State, char: str) -> State | None:
        text = state[-1] + char
        if text in properties():
            return (Kind.ATOM, state[1]) if state[0] == Kind.PROPERTY else (Kind.SET, state[1], "item", CLASS)
        return (*state[:-1], text) if char in following(state[-1]) else None

    # -- groups -----------------------------------------------------------------------------------------------------

    def _inside(self, outer: Outer, *, repeatable: bool = True) -> State:
        return Kind.BARE, self._outer(outer._replace(stack=outer.stack << 1 | repeatable))

    def _captured(self, outer: Outer) -> Outer:
        if not self._strict:
            return outer
        return outer._replace(n_groups=min(outer.n_groups + 1, _MAX_GROUPS), owed=max(outer.owed - 1, 0))

    def _open(self, state: State, char: str) -> State | None:
        if char == "?":
            return Kind.OPEN_KIND, state[1]
        return self._text(self._inside(self._captured(self._outers[state[1]])), char)

    def _open_kind(self, state: State, char: str) -> State | None:
        match char:
            case ":":
                return self._inside(self._outers[state[1]])
            case "=" | "!":
                return self._inside(self._outers[state[1]], repeatable=not self._strict)
            case "<":
                return Kind.OPEN_ANGLE, state[1]
        return None

    def _open_angle(self, state: State, char: str) -> State | None:
        if char in "=!":
            return self._inside(self._outers[state[1]], repeatable=False)
        return self._name((Kind.NAME, state[1], False, ""), char) if self._has_names else None

    def _name(self, state: State, char: str) -> State | None:
        _, outer, is_reference, text = state
        if char == ">":
            after = self._after_name(self._outers[outer], is_reference, text)
            return None if after is None else (Kind.ATOM if is_reference else Kind.BARE, self._outer(after))
        if char == "\\":
            return Kind.NAME_ESCAPE, outer, is_reference, text, ""
        code = ord(char)
        if first_in(id_chars(continued=bool(text)), code, code) is None:
            return None
        return Kind.NAME, outer, is_reference, text + char

    def _after_name(self, outer: Outer, is_reference: bool, name: str) -> Outer | None:
        if not name or (not is_reference and name in outer.names):
            return None
        if is_reference:
            return outer if name in outer.names else outer._replace(wanted=outer.wanted | {name})
        outer = self._captured(outer)
        return outer._replace(stack=outer.stack << 1 | 1, names=outer.names | {name}, wanted=outer.wanted - {name})

    def _name_escape(self, state: State, char: str) -> State | None:
        r"""``\u0061``, ``\u{61}``, ``\ud835\udc9c``, in both syntaxes."""
        _, outer, is_reference, name, text = state
        text = longer(text, char)
        if text is None:
            return None
        code = code_of(text)
        if code is None or high_surrogate(text) == code:
            return Kind.NAME_ESCAPE, outer, is_reference, name, text
        if first_in(id_chars(continued=bool(name)), code, code) is None:
            return None
        return Kind.NAME, outer, is_reference, name + chr(code)

    # -- sets -------------------------------------------------------------------------------------------------------

    def _set(self, state: State, char: str) -> State | None:
        r"""Within ``[``: at its "first" place, "between" items, behind an "item", behind a "dash" behind one."""
        _, outer, mode, low = state
        match char:
            case "]":
                return Kind.ATOM, outer
            case "\\":
                return Kind.SET_ESCAPE, outer, mode, low, ""
            case "^" if mode == "first":
                return Kind.SET, outer, "between", 0
            case "-" if mode == "item":
                return Kind.SET, outer, "dash", low
        return self._listed(state, ord(char))

    def _listed(self, state: State | None, code: int) -> State | None:
        """After an item; without the ``u`` flag a character above U+FFFF is two."""
        if code > 0xFFFF and not self._strict:
            high, code = units(code)
            state = self._listed(state, high)
        if state is None:
            return None
        _, outer, mode, low, *_ = state
        if mode != "dash":
            return Kind.SET, outer, "item", code
        if CLASS in (low, code):
            return None if self._strict else (Kind.SET, outer, "between", 0)
        return (Kind.SET, outer, "between", 0) if low <= code else None

    def _set_escape(self, state: State, char: str) -> State | None:
        _, outer, mode, _, text = state
        if not text:
            if char in _CONTROL or char in SYNTAX:
                return self._listed(state, _CONTROL.get(char, ord(char)))
            if char in "dDsSwW":
                return self._listed(state, CLASS)
            if char in "pP":
                return None if mode == "dash" else (Kind.SET_PROPERTY, outer, "")
            return (*state[:4], char) if char in "0cxu" else None
        if text == "0":
            return None if char in DIGITS else self._set_after(self._settled(state), char)
        if text == "c":
            return self._listed(state, ord(char) % 32) if char.isascii() and char.isalpha() else None
        more = longer(text, char)
        code = None if more is None else code_of(more)
        if more is None or (len(text) == 10 and code is not None and code < 0x10000):
            lead = self._settled(state)  # a high surrogate that stays alone
            if lead is None:
                return None
            if len(text) == 5:
                return self._set_after(lead, char)
            for again in text[5:] + char:
                lead = None if lead is None else self._steps[lead[0]](lead, again)
            return lead
        if code is None or high_surrogate(more) == code:
            return *state[:4], more
        return self._listed(state, code)

    def _loose_set_escape(self, state: State, char: str) -> State | None:
        _, _, _, _, text = state
        if not text:
            if char in "dDsSwW":
                return self._listed(state, CLASS)
            if char in _FOREIGN or (char == "k" and self._has_names):
                return None
            if char in "cxu01234567":
                return *state[:4], char
            return self._listed(state, _CONTROL.get(char, ord(char)))
        if text == "c":
            if char.isascii() and (char.isalnum() or char == "_"):
                return self._listed(state, ord(char) % 32)
        elif text[0] in "xu":
            if char in HEX_DIGITS:
                digits = text[1:] + char
                if len(digits) == (2 if text[0] == "x" else 4):
                    return self._listed(state, int(digits, 16))
                return *state[:4], text + char
        elif char in "01234567":
            code = int(text + char, 8)
            return self._listed(state, code) if len(text) == 2 or code > 31 else (*state[:4], text + char)
        return self._set_after(self._settled(state), char)

    def _set_after(self, state: State | None, char: str) -> State | None:
        return None if state is None else self._set(state, char)

    def _settled(self, state: State) -> State | None:
        """The set if an escape that could go on does not: ``[\\x1``, ``[\\c``, or ``[\\ud835`` with the ``u`` flag."""
        text = state[4]
        if self._strict:
            code = 0 if text == "0" else high_surrogate(text)
            return None if code is None else self._listed(state, code)
        if text[0] in "01234567":
            return self._listed(state, int(text, 8))
        after = self._listed(state, ord("\\" if text == "c" else text[0]))
        for char in "c" if text == "c" else text[1:]:
            after = self._set_after(after, char)
        return after


def owing(outer: Outer, number: int) -> Outer:
    """After a reference to a group."""
    return outer._replace(owed=max(outer.owed, number - outer.n_groups))


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
