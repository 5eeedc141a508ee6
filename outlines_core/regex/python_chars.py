r"""Characters in Python's ``re`` syntax: escapes, classes and sets, with the flags that change what they match.

The lower half of the python parser (`parse_python` is the upper one): nothing here knows of groups or quantifiers.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache
from typing import NamedTuple

from outlines_core.limits import Limits
from outlines_core.regex.ast import Begin, End, Node, Ranges, Span
from outlines_core.regex.build import boundary, one_of
from outlines_core.regex.charset import complement, normalise, union
from outlines_core.regex.scanner import Scanner
from outlines_core.regex.unicode import fold_char, fold_set, python_class

__all__ = ["Members", "PythonCharacters"]

_A, _I = int(re.ASCII), int(re.IGNORECASE)
_EMPTY_TEXT_HAS_NON_BOUNDARY = sys.version_info >= (3, 14)
_SET_RUN = re.compile(r"[^\\\]\-]+")
_CONTROL = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_HEX = re.compile("[0-9a-fA-F]*")
_OCTAL = re.compile("[0-7]{0,2}")


class Members(NamedTuple):
    """What a set (or an alternation of single characters) consists of."""

    chars: list[int]
    ranges: list[tuple[int, int]]
    classes: list[Ranges]


class PythonCharacters(Scanner):
    """A scanner that reads characters, classes and sets; `flags` are those in force at the position."""

    def __init__(self, pattern: str, limits: Limits) -> None:
        super().__init__(pattern, limits)
        self._folded: tuple[dict[str, Ranges | None], dict[str, Ranges | None]] = {}, {}

    def folded(self, char: str, ascii_only: bool) -> Ranges | None:
        """`fold_char`, remembered: every letter of a pattern asks."""
        known = self._folded[ascii_only]
        if char not in known:
            known[char] = fold_char(ord(char), ascii_only=ascii_only)
        return known[char]

    def anchor(self, char: str, flags: int, span: Span) -> Node:
        if char == "A":
            return Begin(span)
        if char in "Zz":
            return End(span)
        word = python_class("w", ascii_only=bool(flags & _A))
        return boundary(word, span, negated=char == "B", empty_text=_EMPTY_TEXT_HAS_NON_BOUNDARY)

    def class_ranges(self, char: str, flags: int) -> Ranges:
        r"""The characters of ``\d``, ``\S`` ..."""
        ascii_only = bool(flags & _A)
        if char in "DSW":
            return _complement_class(char, ascii_only)
        return python_class(char, ascii_only=ascii_only)

    def escaped(self) -> int | str:
        r"""An escape that means the same in a set and outside: a code point, or the letter of a class."""
        start = self.pos
        char = self.pattern[start + 1 : start + 2]
        if not char:
            raise self.error("bad escape (end of pattern)", start)
        self.pos += 2
        if char in _CONTROL:
            return _CONTROL[char]
        if char in "dDsSwW":
            return char
        if char in _HEX_DIGITS:
            return self._hexadecimal(char, start)
        if char == "N":
            return self._named(start)
        if char == "0":
            octal = _OCTAL.match(self.pattern, self.pos)
            self.pos = octal.end() if octal is not None else self.pos
            return int(self.pattern[start + 1 : self.pos], 8)
        if char.isascii() and char.isalnum():
            raise self.error(f"bad escape \\{char}", start)
        return ord(char)

    def _hexadecimal(self, char: str, start: int) -> int:
        length = _HEX_DIGITS[char]
        digits = _HEX.match(self.pattern, self.pos, self.pos + length)
        text = "" if digits is None else digits.group()
        if len(text) != length:
            raise self.error(f"incomplete escape \\{char}{text}", start)
        self.pos += length
        if int(text, 16) > 0x10FFFF:
            raise self.error(f"bad escape \\{char}{text}", start)
        return int(text, 16)

    def _named(self, start: int) -> int:
        if not self.take("{"):
            raise self.error("missing {", self.pos)
        name = self.name("}", "character name")
        try:
            return ord(unicodedata.lookup(name))
        except (KeyError, TypeError):  # TypeError: the name of a sequence
            raise self.error(f"undefined character name {name!r}", start) from None

    def read_set(self, flags: int) -> tuple[Node, Members | None]:
        """``[...]``, and what it lists unless it is negated."""
        start = self.pos
        self.pos += 1
        negated = self.take("^")
        members = self._set_members(flags, start)
        span = (start, self.pos)
        chars, ranges, classes = members
        if len(set(chars)) == 1 and not ranges and not classes:
            # re compiles this as a single character, which is folded differently
            folded = self.folded(chr(chars[0]), bool(flags & _A)) if flags & _I else None
            matched = ((chars[0], chars[0]),) if folded is None else folded
            node = one_of(complement(matched) if negated else matched, span)
        else:
            node = self.set_node(members, negated, flags, span)
        return node, None if negated else members

    def _set_members(self, flags: int, start: int) -> Members:
        """Up to and including the closing bracket; one that comes first is a member."""
        pattern = self.pattern
        members = Members([], [], [])
        begin = self.pos
        while True:
            if self.pos >= self.n:
                raise self.error("unterminated character set", start)
            if pattern[self.pos] == "]" and self.pos > begin:
                self.pos += 1
                return members
            run = _SET_RUN.match(pattern, self.pos)
            if run is not None and run.end() - self.pos > 1:
                last = run.end() - 1  # may start a range
                members.chars.extend(map(ord, pattern[self.pos : last]))
                self.pos = last
            at = self.pos
            low = self._set_item()
            if not self.take("-"):
                self._add(members, low, flags)
                continue
            if self.pos >= self.n:
                raise self.error("unterminated character set", start)
            if self.take("]"):
                self._add(members, low, flags)
                members.chars.append(ord("-"))
                return members
            high = self._set_item()
            if isinstance(low, str) or isinstance(high, str) or high < low:
                raise self.error(f"bad character range {pattern[at : self.pos]}", at)
            members.ranges.append((low, high))

    def _set_item(self) -> int | str:
        """One character of a set, or the letter of a class."""
        char = self.pattern[self.pos]
        if char != "\\":
            self.pos += 1
            return ord(char)
        start = self.pos
        escaped = self.pattern[start + 1 : start + 2]
        if escaped and escaped in "1234567":
            octal = _OCTAL.match(self.pattern, start + 2)
            self.pos = octal.end() if octal is not None else start + 2
            code = int(self.pattern[start + 1 : self.pos], 8)
            if code > 0o377:
                raise self.error(f"octal escape value {self.pattern[start : self.pos]} outside of range 0-0o377", start)
            return code
        return self.escaped()

    def _add(self, members: Members, item: int | str, flags: int) -> None:
        if isinstance(item, int):
            members.chars.append(item)
        else:
            members.classes.append(self.class_ranges(item, flags))

    def set_node(self, members: Members, negated: bool, flags: int, span: Span) -> Node:
        chars, ranges, classes = members
        if flags & _I:
            matched = fold_set(chars, ranges, classes, negated=negated, ascii_only=bool(flags & _A))
        else:
            listed = normalise([*((code, code) for code in chars), *ranges])
            matched = union(listed, *classes)
            if negated:
                matched = complement(matched)
        return one_of(matched, span)

    def name(self, terminator: str, what: str) -> str:
        end = self.pattern.find(terminator, self.pos)
        if end == self.pos or self.pos == self.n:
            raise self.error(f"missing {what}", self.pos)
        if end < 0:
            raise self.error(f"missing {terminator}, unterminated name", self.pos)
        name = self.pattern[self.pos : end]
        self.pos = end + 1
        return name


@cache
def _complement_class(char: str, ascii_only: bool) -> Ranges:
    return complement(python_class(char.lower(), ascii_only=ascii_only))
