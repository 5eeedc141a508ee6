r"""Python's ``re`` syntax -> AST, meaning exactly what ``re.fullmatch`` means on the running Python.

A recursive descent along the lines of ``re._parser``, whose quirks are the language: which escapes exist, when ``{``
is a literal, what may be repeated, how wide a look-behind is. Flags are resolved here, so the AST knows only sets of
code points. Per concatenation the parser keeps what ``re`` keeps: the last item (a quantifier applies to it), and the
width range (look-behinds must have one width).

Written out: ``$`` is the end, or before a final newline; ``\b`` compares the characters on both sides. A possessive
repeat is ``Atomic(Repeat(Atomic(item)))``: ``sre`` commits to each round too, unlike what the documentation says
(``(?:a|ab){2}+`` does not match "aba").

Known difference: under IGNORECASE ``re`` loses the other case of a capital above U+FFFF in a set (``[𐐀x]``, and
``𐐀|x``, which it turns into a set). Both are repeated here; only where ``re`` makes the set after taking a common
prefix out of the alternatives (``a𐐀|ax``) do we match more than it does.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import Literal as OneOf
from typing import NamedTuple

from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import (
    Alternation,
    Atomic,
    Begin,
    CharSet,
    Concat,
    Empty,
    End,
    Literal,
    Look,
    Node,
    Ranges,
    Span,
)
from outlines_core.regex.build import alternation, concat, line_begin, line_end, repeat
from outlines_core.regex.charset import ALL, complement
from outlines_core.regex.python_chars import Members, PythonCharacters
from outlines_core.regex.scanner import Descent, descend

__all__ = ["parse_python"]

_I, _M, _S, _X = int(re.IGNORECASE), int(re.MULTILINE), int(re.DOTALL), int(re.VERBOSE)
_A, _U, _L = int(re.ASCII), int(re.UNICODE), int(re.LOCALE)
_T = int(getattr(re, "TEMPLATE", 0))  # gone in Python 3.13
_FLAGS = {"i": _I, "L": _L, "m": _M, "s": _S, "x": _X, "a": _A, "u": _U} | ({"t": _T} if _T else {})
_TYPE_FLAGS = _A | _L | _U
_MAX_REPEAT = 2**32 - 1
_MAX_WIDTH = 1 << 64  # of re._parser; more is clamped
_NOT_NEWLINE = complement(((10, 10),))

_PLAIN = re.compile(r"[^\\.\[{()*+?^$|]+")
_PLAIN_VERBOSE = re.compile(r"[^\\.\[{()*+?^$|# \t\n\r\v\f]+")
_PLAIN_CHOICES = re.compile(r"(?:[^\\.\[{()*+?^$|]+\|)+")
_IGNORED = re.compile(r"(?:[ \t\n\r\v\f]+|#(?:[^\\\n]|\\.)*\n?)+", re.DOTALL)
_COMMENT = re.compile(r"(?:[^\\)]|\\.)*\)", re.DOTALL)
_COUNTS = re.compile(r"\{([0-9]*)(,?)([0-9]*)\}")


@dataclass(slots=True)
class _Items:
    """A concatenation being read, with what is known of its last item.

    Attributes:
        nodes: the items.
        kind: of the last item: "at" and "repeat" cannot be repeated, "none" is no item at all.
        low, high: width of all items but the last.
        last_low, last_high: width of the last item.
        last_start: where it starts (its opening parenthesis).
        unit: the set members of the only item, where it is a set or character; else None.
    """

    nodes: list[Node] = field(default_factory=list)
    kind: OneOf["none", "at", "repeat", "other"] = "none"
    low: int = 0
    high: int = 0
    last_low: int = 0
    last_high: int = 0
    last_start: int = 0
    unit: Members | None = None

    def add(
        self,
        node: Node,
        low: int = 1,
        high: int = 1,
        kind: OneOf["at", "repeat", "other"] = "other",
        unit: Members | None = None,
    ) -> None:
        self.unit = unit if self.kind == "none" else None
        self.nodes.append(node)
        self.kind = kind
        self.low += self.last_low
        self.high += self.last_high
        self.last_low, self.last_high = low, high
        self.last_start = node.span[0]

    def width(self) -> tuple[int, int]:
        return min(self.low + self.last_low, _MAX_WIDTH), min(self.high + self.last_high, _MAX_WIDTH)


class _Part(NamedTuple):
    """A parsed (sub)pattern, its width range, and its members if it is one set or character."""

    node: Node
    low: int
    high: int
    unit: Members | None


def parse_python(pattern: str, *, flags: int = 0, limits: Limits = DEFAULT_LIMITS) -> Node:
    """The AST of the texts that ``re.fullmatch(pattern, text, flags)`` accepts.

    Args:
        pattern: the regex.
        flags: flags of ``re``, as given to ``re.compile``.
        limits: bounds on the pattern.

    Raises:
        ConstraintSyntaxError: ``re.compile`` refuses the pattern.
        UnsupportedFeatureError: it has a back-reference or a conditional group.
        LimitExceededError: it is too long or too deeply nested.

    >>> parse_python("ab[0-9]")
    Concat(items=(Literal(text='ab', span=(0, 2)), CharSet(ranges=((48, 57),), span=(2, 7))), span=(0, 7))
    """
    return _PythonParser(pattern, int(flags), limits).parse()


class _PythonParser(PythonCharacters):
    def __init__(self, pattern: str, flags: int, limits: Limits) -> None:
        super().__init__(pattern, limits)
        self.flags = flags
        self.group_widths: list[tuple[int, int] | None] = [None]
        self.group_names: dict[str, int] = {}
        self.look_behind_groups: int | None = None
        self.conditions: list[tuple[int, int]] = []  # group number asked for, offset
        self.late_error: tuple[str, int] | None = None  # what re finds only when it compiles

    def parse(self) -> Node:
        if self.flags & _L:
            raise self.error("cannot use LOCALE flag with a str pattern", 0)
        node = descend(self._choices(self.flags, nested=False)).node
        if self.flags & _A and self.flags & _U:
            raise self.error("ASCII and UNICODE flags are incompatible", 0)
        if self.pos < self.n:
            raise self.error("unbalanced parenthesis", self.pos)
        for number, offset in self.conditions:
            if number >= len(self.group_widths):
                raise self.error(f"invalid group reference {number}", offset)
        if self.late_error is not None:
            raise self.error(*self.late_error)
        self.raise_refused()
        return node

    # Structure

    def _choices(self, flags: int, *, nested: bool = True) -> Descent[_Part, _Part]:
        """``a|b|c`` up to the end or a closing parenthesis."""
        start = self.pos
        parts: list[Node] = []
        lows: list[int] = []
        highs: list[int] = []
        units: list[Members | None] = []
        while True:
            if not flags & (_X | _I) and (run := _PLAIN_CHOICES.match(self.pattern, self.pos)) is not None:
                widths = self._plain_choices(run.group(), parts)
                lows.append(min(widths))
                highs.append(max(widths))
                units.append(None)
            part = yield from self._concat(flags, first=not nested and not parts)
            parts.append(part.node)
            lows.append(part.low)
            highs.append(part.high)
            units.append(part.unit)
            if not self.take("|"):
                break
            if not nested:
                flags = self.flags
        if len(parts) == 1:
            return part
        span = (start, self.pos)
        node, unit = alternation(parts, span), None
        if flags & _I and all(units):
            unit = Members([], [], [])
            for members in units:
                if members is not None:
                    unit.chars.extend(members.chars)
                    unit.ranges.extend(members.ranges)
                    unit.classes.extend(members.classes)
            if max(unit.chars, default=0) > 0xFFFF and len({*unit.chars}) > 1:
                node = self.set_node(unit, False, flags, span)  # re makes it a set, see above
        return _Part(node, min(lows), max(highs), unit)

    def _plain_choices(self, run: str, parts: list[Node]) -> set[int]:
        """``foo|bar|`` without any special character: the long lists of choices that people generate.

        Returns the lengths that occur.
        """
        offset = self.pos
        words = run[:-1].split("|")
        for word in words:
            end = offset + len(word)
            parts.append(Literal(word, (offset, end)))
            offset = end + 1
        self.pos = offset
        return set(map(len, words))

    def _concat(self, flags: int, *, first: bool = False) -> Descent[_Part, _Part]:
        """Items up to ``|``, ``)`` or the end."""
        pattern, n = self.pattern, self.n
        items = _Items()
        start = self.pos
        while self.pos < n:
            at = self.pos
            char = pattern[at]
            if char in "|)":
                break
            if flags & _X and (skipped := _IGNORED.match(pattern, at)) is not None:
                self.pos = skipped.end()
                continue
            run = (_PLAIN_VERBOSE if flags & _X else _PLAIN).match(pattern, at)
            if run is not None:
                self._plain(items, run.end(), flags)
            elif char == "\\":
                self._escape(items, flags)
            elif char == "[":
                node, unit = self.read_set(flags)
                items.add(node, unit=unit)
            elif char in "*+?" or (char == "{" and self._is_count()):
                self._quantifier(items, flags)
            elif char == "(":
                n_items = len(items.nodes)
                flags |= yield from self._group(items, flags, first)
                if len(items.nodes) > n_items:
                    items.last_start = at
            else:
                self.pos += 1
                self._special(items, char, flags, (at, at + 1))
        low, high = items.width()
        return _Part(concat(items.nodes, (start, self.pos)), low, high, items.unit)

    def _plain(self, items: _Items, end: int, flags: int) -> None:
        """Ordinary characters up to `end`; the last one alone if a quantifier may follow it."""
        start, self.pos = self.pos, end
        if end < self.n and self.pattern[end] in "*+?{ \t\n\r\v\f#(" and end - start > 1:
            self._literal(items, self.pattern[start : end - 1], flags, start)
            start = end - 1
        self._literal(items, self.pattern[start:end], flags, start)

    def _literal(self, items: _Items, text: str, flags: int, start: int) -> None:
        """`text` as one item; under IGNORECASE its cased characters are sets."""
        span = (start, self.pos if len(text) == 1 else start + len(text))
        unit = Members([ord(text)], [], []) if len(text) == 1 else None
        if not flags & _I:
            items.add(Literal(text, span), len(text), len(text), unit=unit)
            return
        parts: list[Node] = []
        ascii_only = bool(flags & _A)
        for offset, char in enumerate(text, start):
            where = (offset, offset + 1) if len(text) > 1 else span
            folded = self.folded(char, ascii_only)
            parts.append(Literal(char, where) if folded is None else CharSet(folded, where))
        items.add(concat(parts, span), len(text), len(text), unit=unit)

    def _special(self, items: _Items, char: str, flags: int, span: Span) -> None:
        """``.``, ``^``, ``$``, or a brace that is no quantifier."""
        if char == ".":
            items.add(CharSet(ALL if flags & _S else _NOT_NEWLINE, span))
        elif char == "^":
            items.add(line_begin(span) if flags & _M else Begin(span), 0, 0, "at")
        elif char == "$":
            items.add(line_end(span) if flags & _M else _end_or_last_newline(span), 0, 0, "at")
        else:
            self._literal(items, char, flags, span[0])

    # Quantifiers

    def _is_count(self) -> bool:
        """Is the brace here a quantifier?  ``{}`` is not, ``{,}`` is."""
        counts = _COUNTS.match(self.pattern, self.pos)
        return counts is not None and counts.end() - counts.start() > 2

    def _quantifier(self, items: _Items, flags: int) -> None:
        start = self.pos
        low, high = self._counts()
        if items.kind in ("none", "at"):
            raise self.error("nothing to repeat", start)
        if items.kind == "repeat":
            raise self.error("multiple repeat", start)
        if flags & _T:
            self.late_error = self.late_error or ("internal: unsupported template operator", start)
        item = items.nodes[-1]
        lazy, possessive = self.take("?"), False
        if not lazy:
            possessive = self.take("+")
        span = (items.last_start, self.pos)
        if possessive:
            # one width, one way to end: Atomic would change nothing
            committed = item if items.last_low == items.last_high else Atomic(item, item.span)
            node: Node = Atomic(repeat(committed, low, high, "greedy", span), span)
        else:
            node = repeat(item, low, high, "lazy" if lazy else "greedy", span)
        items.nodes[-1] = node
        items.last_low *= low
        if high is None:
            items.last_high = _MAX_WIDTH if items.last_high else 0
        else:
            items.last_high *= high
        items.kind, items.unit = "repeat", None

    def _counts(self) -> tuple[int, int | None]:
        """Step over ``*``, ``+``, ``?`` or ``{m,n}``."""
        start = self.pos
        char = self.pattern[start]
        counts = _COUNTS.match(self.pattern, start) if char == "{" else None
        if counts is None:
            self.pos += 1
            return (1 if char == "+" else 0), (1 if char == "?" else None)
        self.pos = counts.end()
        least, comma, most = counts.groups()
        low = self._count(least, start) if least else 0
        if not comma:
            return low, low
        high = self._count(most, start) if most else None
        if high is not None and high < low:
            raise self.error("min repeat greater than max repeat", start)
        return low, high

    def _count(self, digits: str, offset: int) -> int:
        significant = digits.lstrip("0") or "0"
        if len(significant) > 10 or len(digits) > 4300 or int(significant) >= _MAX_REPEAT:
            raise self.error("the repetition number is too large", offset)
        return int(significant)

    # Groups

    def _group(self, items: _Items, flags: int, first: bool) -> Descent[_Part, int]:
        """``(...)`` of any kind.  Returns the flags of ``(?i)``, which must be the first item, else 0."""
        start = self.pos
        self.pos += 1
        if not self.take("?"):
            yield from self._capture(items, flags, None, start)
            return 0
        kind = self._next("unexpected end of pattern")
        if kind == "P":
            yield from self._python_extension(items, flags, start)
        elif kind == ":":
            part = yield from self._inside(flags, start)
            items.add(part.node, part.low, part.high, unit=part.unit)
        elif kind == "#":
            comment = _COMMENT.match(self.pattern, self.pos)
            if comment is None:
                raise self.error("missing ), unterminated comment", start)
            self.pos = comment.end()
        elif kind in "=!<":
            yield from self._look(items, flags, kind, start)
        elif kind == "(":
            yield from self._conditional(items, flags, start)
        elif kind == ">":
            part = yield from self._inside(flags, start)
            atomic = part.node if part.low == part.high else Atomic(part.node, (start, self.pos))
            items.add(atomic, part.low, part.high)
        elif kind in _FLAGS or kind == "-":
            added, removed, scoped = self._flags(kind)
            if not scoped:
                if not first or items.kind != "none":
                    raise self.error("global flags not at the start of the expression", start)
                self.flags |= added
                return added
            inner = (flags & ~_TYPE_FLAGS if added & _TYPE_FLAGS else flags) | added
            part = yield from self._inside(inner & ~removed, start)
            items.add(part.node, part.low, part.high, unit=None if added or removed else part.unit)
        else:
            raise self.error(f"unknown extension ?{kind}", start + 1)
        return 0

    def _next(self, message: str) -> str:
        """The next character, which must exist (an escape counts as one, as in re's tokenizer)."""
        char = self.peek()
        if not char:
            raise self.error(message, self.pos)
        self.pos += 1
        if char == "\\":
            char += self._next("bad escape (end of pattern)") if self.peek() != "\\" else "\\"
        return char

    def _inside(self, flags: int, start: int) -> Descent[_Part, _Part]:
        """The rest of a group opened at `start`."""
        self.enter()
        part = yield self._choices(flags)
        if not self.take(")"):
            raise self.error("missing ), unterminated subpattern", start)
        self.leave()
        return part

    def _capture(self, items: _Items, flags: int, name: str | None, start: int) -> Descent[_Part, None]:
        number = len(self.group_widths)
        self.group_widths.append(None)
        if name is not None:
            if name in self.group_names:
                raise self.error(
                    f"redefinition of group name {name!r} as group {number}; was group {self.group_names[name]}", start
                )
            self.group_names[name] = number
        part = yield from self._inside(flags, start)
        self.group_widths[number] = part.low, part.high
        items.add(part.node, part.low, part.high)

    def _python_extension(self, items: _Items, flags: int, start: int) -> Descent[_Part, None]:
        """``(?P<name>...)`` or ``(?P=name)``."""
        if self.take("<"):
            name = self.name(">", "group name")
            self._check_name(name, start)
            yield from self._capture(items, flags, name, start)
        elif self.take("="):
            name = self.name(")", "group name")
            self._check_name(name, start)
            if name not in self.group_names:
                raise self.error(f"unknown group name {name!r}", start)
            self._back_reference(items, self.group_names[name], start)
        else:
            raise self.error(f"unknown extension ?P{self._next('unexpected end of pattern')}", start + 1)

    def _check_name(self, name: str, offset: int) -> None:
        if not name.isidentifier():
            raise self.error(f"bad character in group name {name!r}", offset)

    def _back_reference(self, items: _Items, number: int, start: int) -> None:
        width = self.group_widths[number]
        if width is None:
            raise self.error("cannot refer to an open group", start)
        self._check_look_behind_group(number, start)
        self.refuse("back-reference", start)
        items.add(Empty((start, self.pos)), *width)

    def _check_look_behind_group(self, number: int, offset: int) -> None:
        if self.look_behind_groups is None:
            return
        if number >= len(self.group_widths) or self.group_widths[number] is None:
            raise self.error("cannot refer to an open group", offset)
        if number >= self.look_behind_groups:
            raise self.error("cannot refer to group defined in the same lookbehind subpattern", offset)

    def _look(self, items: _Items, flags: int, kind: str, start: int) -> Descent[_Part, None]:
        behind = kind == "<"
        outer = self.look_behind_groups
        if behind:
            kind = self._next("unexpected end of pattern")
            if kind not in "=!":
                raise self.error(f"unknown extension ?<{kind}", start + 1)
            if outer is None:
                self.look_behind_groups = len(self.group_widths)
        part = yield from self._inside(flags, start)
        self.look_behind_groups = outer
        if behind and self.late_error is None:
            if part.low > _MAX_REPEAT:
                self.late_error = "looks too much behind", start
            elif part.low != part.high:
                self.late_error = "look-behind requires fixed-width pattern", start
        items.add(Look(part.node, not behind, kind == "!", (start, self.pos)), 0, 0)

    def _conditional(self, items: _Items, flags: int, start: int) -> Descent[_Part, None]:
        """``(?(group)yes|no)``: parsed for its errors, then refused."""
        at = self.pos
        name = self.name(")", "group name")
        if name.isidentifier():
            if name not in self.group_names:
                raise self.error(f"unknown group name {name!r}", at)
            number = self.group_names[name]
        else:
            number = self._group_number(name, at)
        self._check_look_behind_group(number, at)
        self.refuse("conditional group", start)
        self.enter()
        yes = yield from self._concat(flags)
        low, high = 0, yes.high
        if self.take("|"):
            no = yield from self._concat(flags)
            low, high = min(yes.low, no.low), max(high, no.high)
            if self.peek() == "|":
                raise self.error("conditional backref with more than two branches", self.pos)
        if not self.take(")"):
            raise self.error("missing ), unterminated subpattern", start)
        self.leave()
        items.add(Empty((start, self.pos)), low, high)

    def _group_number(self, digits: str, offset: int) -> int:
        """A group's number as ``int`` reads it; since Python 3.12 only ASCII digits."""
        bad = self.error(f"bad character in group name {digits!r}", offset)
        if sys.version_info >= (3, 12) and not (digits.isdecimal() and digits.isascii()):
            raise bad
        try:
            number = int(digits)
        except ValueError:
            raise bad from None
        if number < 0:
            raise bad
        if number == 0:
            raise self.error("bad group number", offset)
        self.conditions.append((number, offset))
        return number

    def _flags(self, char: str) -> tuple[int, int, bool]:
        """Flags after ``(?``, the first one read: (to add, to remove, do they end with ``:``?)."""
        added = removed = 0
        while char not in ")-:":
            flag = _FLAGS[char]
            if flag == _L:
                raise self.error("bad inline flags: cannot use 'L' flag with a str pattern", self.pos)
            added |= flag
            if flag & _TYPE_FLAGS and added & _TYPE_FLAGS != flag:
                raise self.error("bad inline flags: flags 'a', 'u' and 'L' are incompatible", self.pos)
            char = self._next("missing -, : or )")
            if char not in ")-:" and char not in _FLAGS:
                raise self.error("unknown flag" if char.isalpha() else "missing -, : or )", self.pos - 1)
        if char == ")":
            return added, 0, False
        if added & _T:
            raise self.error("bad inline flags: cannot turn on global flag", self.pos - 1)
        if char == "-":
            char = self._next("missing flag")
            if char not in _FLAGS:
                raise self.error("unknown flag" if char.isalpha() else "missing flag", self.pos - 1)
            while char != ":":
                flag = _FLAGS[char]
                if flag & _TYPE_FLAGS:
                    raise self.error("bad inline flags: cannot turn off flags 'a', 'u' and 'L'", self.pos)
                removed |= flag
                char = self._next("missing :")
                if char != ":" and char not in _FLAGS:
                    raise self.error("unknown flag" if char.isalpha() else "missing :", self.pos - 1)
        if removed & _T:
            raise self.error("bad inline flags: cannot turn off global flag", self.pos - 1)
        if added & removed:
            raise self.error("bad inline flags: flag turned on and off", self.pos - 1)
        return added, removed, True

    # Escapes

    def _escape(self, items: _Items, flags: int) -> None:
        """A backslash outside a set."""
        start = self.pos
        char = self.pattern[start + 1 : start + 2]
        if char in ("A", "Z", "z", "b", "B") and (char != "z" or sys.version_info >= (3, 14)):
            self.pos += 2
            items.add(self.anchor(char, flags, (start, self.pos)), 0, 0, "at")
        elif char and char in "123456789":
            self._digits(items, flags, start)
        else:
            meant = self.escaped()
            if isinstance(meant, int):
                self._literal(items, chr(meant), flags, start)
            else:
                kind: Ranges = self.class_ranges(meant, flags)
                items.add(CharSet(kind, (start, self.pos)), unit=Members([], [], [kind]))

    def _digits(self, items: _Items, flags: int, start: int) -> None:
        """A backslash and 1..9: three octal digits are a character, all else is a back-reference."""
        digits = self.pattern[start + 1 : start + 4]
        if len(digits) == 3 and all(digit in "01234567" for digit in digits):
            self.pos = start + 4
            code = int(digits, 8)
            if code > 0o377:
                raise self.error(f"octal escape value \\{digits} outside of range 0-0o377", start)
            self._literal(items, chr(code), flags, start)
            return
        length = 2 if digits[1:2] in set("0123456789") else 1
        self.pos = start + 1 + length
        number = int(digits[:length])
        if number >= len(self.group_widths):
            raise self.error(f"invalid group reference {number}", start + 1)
        self._back_reference(items, number, start)


def _end_or_last_newline(span: Span) -> Node:
    """``$``: the end, or before a newline that is the last character."""
    final_newline = Concat((Literal("\n", span), End(span)), span)
    return Alternation((End(span), Look(final_newline, True, False, span)), span)
