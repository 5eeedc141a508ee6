r"""The syntax of Rust's regex crate -> AST, with its meaning for a match of the whole text.

This is the language of the PyPI package `outlines_core` 0.2. Patterns of other dialects mostly read the same; where
they do not, Rust's meaning counts: ``$`` is the end and never before a last newline, ``[[:alpha:]]``, ``[a&&b]``,
``[a--b]`` and ``[a~~b]`` are set algebra and ``[`` inside a set opens another, ``\w`` is Unicode's definition of a
word character, ``a**`` and ``^*`` are fine, a letter that means nothing may not be escaped.

Look-around, which that engine refuses, is understood. Refused with their position are back-references, what without
the ``u`` flag would match bytes that are no UTF-8, and the properties that our tables lack (``\p{age=...}``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal as OneOf

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Alternation, Begin, CharSet, Concat, End, Literal, Look, Node, Ranges, Span
from outlines_core.regex.build import alternation, boundary, concat, line_begin, line_end, one_of, repeat
from outlines_core.regex.charset import MAX_CODE_POINT, NONE, complement, difference, intersection, union
from outlines_core.regex.rust_classes import ASCII_PERL, POSIX, perl_class, unicode_property
from outlines_core.regex.scanner import Descent, Scanner, descend
from outlines_core.regex.unicode import ecma_fold

__all__ = ["parse_rust"]

_PLAIN = re.compile(r"[^\\.+*?()|\[\]{}^$#\s]+")
_CONTROL = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_HEX = re.compile("[0-9A-Fa-f]+")
_POSIX_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")
_PROPERTY = re.compile(r"([^=:!}]*)(?:(=|:|!=)([^}]*))?\}")
_BOUNDARY = re.compile(r"\{(start|end|start-half|end-half)\}")
_SPACES = re.compile(r"(?:\s+|#[^\n]*(?:\n|$))+")
_COUNT = re.compile(r"\s*([0-9]*)\s*")
_NAME = re.compile(r"([^\W\d][\w.\[\]]*)>")
_MAX_COUNT = 2**32 - 1
_ASCII: Ranges = ((0, 127),)
_CASED_ASCII: Ranges = ((65, 90), (97, 122))


@dataclass(frozen=True, slots=True)
class _Flags:
    """What ``(?...)`` can change.  `u` is on at first; `U` only swaps greedy and lazy, which no whole match shows."""

    i: bool = False
    m: bool = False
    s: bool = False
    R: bool = False
    U: bool = False
    u: bool = True
    x: bool = False


@dataclass(slots=True)
class _Items:
    """A concatenation being read; flags given by ``(?i)`` are no item, so nothing may repeat them."""

    nodes: list[Node] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    after_flags: bool = False

    def add(self, node: Node, start: int) -> None:
        self.nodes.append(node)
        self.starts.append(start)
        self.after_flags = False


def parse_rust(pattern: str, *, limits: Limits = DEFAULT_LIMITS) -> Node:
    """The AST of the texts that `pattern` matches from end to end.

    Raises:
        ConstraintSyntaxError: malformed.
        UnsupportedFeatureError: see the module.
        LimitExceededError: it is too long or too deeply nested.

    >>> parse_rust("[a-f&&[^bd]]")
    CharSet(ranges=((97, 97), (99, 99), (101, 102)), span=(0, 12))
    """
    return _RustParser(pattern, limits).parse()


class _RustParser(Scanner):
    def __init__(self, pattern: str, limits: Limits) -> None:
        super().__init__(pattern, limits)
        self.flags = _Flags()
        self.names: set[str] = set()

    def parse(self) -> Node:
        node = descend(self._choices())
        if self.pos < self.n:
            raise self.error("unopened group", self.pos)
        self.raise_refused()
        return node

    def unsupported(self, message: str, feature: str, offset: int) -> UnsupportedFeatureError:
        return UnsupportedFeatureError(message, feature=feature, source=self.pattern, offset=offset)

    # Structure

    def _choices(self) -> Descent[Node, Node]:
        start = self.pos
        choices = [(yield from self._concat())]
        while self.take("|"):
            choices.append((yield from self._concat()))
        return alternation(choices, (start, self.pos))

    def _skip_spaces(self) -> None:
        if self.flags.x and (skipped := _SPACES.match(self.pattern, self.pos)) is not None:
            self.pos = skipped.end()

    def _concat(self) -> Descent[Node, Node]:
        pattern, start = self.pattern, self.pos
        items = _Items()
        while True:
            self._skip_spaces()
            if self.pos >= self.n or pattern[self.pos] in "|)":
                return concat(items.nodes, (start, self.pos))
            at = self.pos
            char = pattern[at]
            if (run := _PLAIN.match(pattern, at)) is not None:
                self._plain(items, run.end())
            elif char == "\\":
                items.add(self._escape(), at)
            elif char == "[":
                ranges = descend(self._set())
                items.add(one_of(self._checked_set(ranges, at), (at, self.pos)), at)
            elif char == "(":
                yield from self._group(items)
            elif char in "*+?{":
                self._quantifier(items)
            else:
                self.pos += 1
                items.add(self._special(char, (at, self.pos)), at)

    def _plain(self, items: _Items, end: int) -> None:
        """Ordinary characters up to `end`; the last one alone, as a quantifier may follow."""
        start, self.pos = self.pos, end
        if end - start > 1:
            items.add(self._text(self.pattern[start : end - 1], start), start)
        items.add(self._text(self.pattern[end - 1], end - 1), end - 1)

    def _text(self, text: str, start: int) -> Node:
        if not self.flags.i:
            return Literal(text, (start, start + len(text)))
        parts = [self._char(ord(char), (at, at + 1)) for at, char in enumerate(text, start)]
        return concat(parts, (start, start + len(text)))

    def _char(self, code: int, span: Span) -> Node:
        return one_of(self._folded(((code, code),)), span)

    def _folded(self, ranges: Ranges) -> Ranges:
        """With the other case of each character, under the i flag."""
        if not self.flags.i:
            return ranges
        if self.flags.u:
            return ecma_fold(ranges)
        cased = intersection(ranges, _CASED_ASCII)
        return union(ranges, tuple((low ^ 32, high ^ 32) for low, high in sorted(cased, key=lambda r: r[0] ^ 32)))

    def _special(self, char: str, span: Span) -> Node:
        flags = self.flags
        match char:
            case ".":
                excluded: Ranges = NONE if flags.s else ((10, 10), (13, 13)) if flags.R else ((10, 10),)
                if not flags.u:
                    raise self._no_utf8(span[0])
                return CharSet(complement(excluded), span)
            case "^":
                return Begin(span) if not flags.m else _crlf_begin(span) if flags.R else line_begin(span)
            case "$":
                return End(span) if not flags.m else _crlf_end(span) if flags.R else line_end(span)
        return self._char(ord(char), span)

    def _no_utf8(self, offset: int) -> UnsupportedFeatureError:
        return self.unsupported(
            "without the u flag this matches bytes that are no UTF-8, which no text has",
            "bytes that are no UTF-8",
            offset,
        )

    # Quantifiers

    def _quantifier(self, items: _Items) -> None:
        start = self.pos
        if not items.nodes or items.after_flags:
            raise self.error("repetition operator missing expression", start)
        char = self.pattern[start]
        self.pos += 1
        low, high = (1 if char == "+" else 0), (1 if char == "?" else None)
        if char == "{":
            low, high = self._counts(start)
        self._skip_spaces()
        lazy = self.take("?") != self.flags.U
        mode: OneOf["greedy", "lazy"] = "lazy" if lazy else "greedy"
        items.nodes[-1] = repeat(items.nodes[-1], low, high, mode, (items.starts[-1], self.pos))

    def _counts(self, start: int) -> tuple[int, int | None]:
        """What follows the brace of ``{m}``, ``{m,}``, ``{m,n}`` or ``{,n}``."""
        low = self._count()
        high = low
        if self.take(","):
            high = self._count()
            if low is None and high is None:
                raise self.error("repetition quantifier expects a valid decimal", start)
            low = low or 0
        elif low is None:
            raise self.error("repetition quantifier expects a valid decimal", start)
        if not self.take("}"):
            raise self.error("unclosed counted repetition", start)
        assert low is not None
        if high is not None and high < low:
            raise self.error("invalid repetition count range, the start must be <= the end", start)
        return low, high

    def _count(self) -> int | None:
        """A number, if there is one, and the spaces around it."""
        start = self.pos
        read = _COUNT.match(self.pattern, start)
        assert read is not None
        self.pos = read.end()
        digits = read[1].lstrip("0")
        if len(digits) > 10 or int(digits or "0") > _MAX_COUNT:
            raise self.error("decimal literal invalid", start)
        return int(digits or "0") if read[1] else None

    # Groups

    def _group(self, items: _Items) -> Descent[Node, None]:
        start = self.pos
        self.pos += 1
        outer = self.flags
        look = None
        if self.take("?"):
            if self.take("P<") or (self.peek() == "<" and self.pattern[self.pos + 1 : self.pos + 2] not in ("=", "!")):
                self.take("<")
                self._name(start)
            elif (look := next((mark for mark in ("<=", "<!", "=", "!") if self.take(mark)), None)) is None:
                ended = self._read_flags(start)
                if ended:
                    items.after_flags = True
                    return
        self.enter()
        node = yield self._choices()
        if not self.take(")"):
            raise self.error("unclosed group", start)
        self.leave()
        self.flags = outer
        if look is not None:
            node = Look(node, "<" not in look, "!" in look, (start, self.pos))
        items.add(node, start)

    def _name(self, start: int) -> None:
        name = _NAME.match(self.pattern, self.pos)
        if name is None:
            raise self.error("invalid capture group name", self.pos)
        if name[1] in self.names:
            raise self.error("duplicate capture group name", start)
        self.names.add(name[1])
        self.pos = name.end()

    def _read_flags(self, start: int) -> bool:
        """Flags after ``(?``, set; True if the group ends with them."""
        given: dict[str, bool] = {}
        on = True
        while True:
            at = self.pos
            char = self.peek()
            self.pos += 1
            if char in (":", ")"):
                if (not on and (not given or all(given.values()))) or (char == ")" and not given):
                    raise self.error("repetition operator missing expression" if on else "dangling flag negation", at)
                break
            if char == "-" and on:
                on = False
            elif char == "-":
                raise self.error("flag negation operator repeated", at)
            elif char and char in "imsRUux":
                if char in given:
                    raise self.error("duplicate flag", at)
                given[char] = on
            elif char == "P":
                self.refuse("back-reference", start)
                raise self.unsupported(
                    "back-references are not regular and cannot be enforced exactly; write the alternatives out",
                    "back-reference",
                    start,
                )
            else:
                raise self.error("unrecognized flag" if char else "unexpected end of pattern", at if char else start)
        self.flags = replace(self.flags, **given)
        return char == ")"

    # Escapes

    def _escape(self) -> Node:
        """A backslash outside a set."""
        start = self.pos
        char = self.pattern[start + 1 : start + 2]
        if char and char in "AzbB<>":
            self.pos += 2
            return self._assertion(char, start)
        meant = self._escaped(in_set=False)
        span = (start, self.pos)
        if isinstance(meant, int):
            return self._char(meant, span)
        return one_of(self._checked_set(meant, start), span)

    def _assertion(self, char: str, start: int) -> Node:
        if char == "A":
            return Begin((start, self.pos))
        if char == "z":
            return End((start, self.pos))
        word = perl_class("w") if self.flags.u else ASCII_PERL["w"]
        kind = {"<": "start", ">": "end"}.get(char)
        if char == "b" and (special := _BOUNDARY.match(self.pattern, self.pos)) is not None:
            kind = special[1]
            self.pos = special.end()
        span = (start, self.pos)
        if kind is None:
            return boundary(word, span, negated=char == "B", empty_text=True)
        inside = CharSet(word, span)
        not_before, not_after = Look(inside, False, True, span), Look(inside, True, True, span)
        match kind:
            case "start":
                return Concat((not_before, Look(inside, True, False, span)), span)
            case "end":
                return Concat((Look(inside, False, False, span), not_after), span)
            case "start-half":
                return not_before
        return not_after

    def _escaped(self, *, in_set: bool) -> int | Ranges:
        """Step over a backslash and what it escapes: one character, or a class."""
        start = self.pos
        char = self.pattern[start + 1 : start + 2]
        self.pos += 2
        if char == "":
            raise self.error("incomplete escape sequence", start)
        if char in _HEX_DIGITS:
            return self._hex(char, start)
        if char in "dDsSwW":
            listed = perl_class(char.lower()) if self.flags.u else ASCII_PERL[char.lower()]
            return complement(listed) if char.isupper() else listed
        if char in "pP":
            return self._property(char, start)
        if char in _CONTROL:
            return _CONTROL[char]
        if char in "0123456789":
            self.refuse("back-reference", start)
            return 0
        if char.isascii() and not char.isalnum() and char not in "<>":
            return ord(char)
        hint = {"Z": r"; write \z", "h": "; write [ \\t]", "e": r"; write \x1B"}.get(char, "")
        raise self.error(f"unrecognized escape sequence{' in a set' if in_set else ''}{hint}", start)

    def _hex(self, kind: str, start: int) -> int:
        if self.take("{"):
            end = self.pattern.find("}", self.pos)
            digits = self.pattern[self.pos : end] if end >= 0 else ""
            if self.flags.x:
                digits = "".join(digits.split())
            self.pos = end + 1
        else:
            digits = self.pattern[self.pos : self.pos + _HEX_DIGITS[kind]]
            self.pos += _HEX_DIGITS[kind]
            if len(digits) != _HEX_DIGITS[kind]:
                digits = ""
        if _HEX.fullmatch(digits) is None:
            raise self.error("invalid hexadecimal digit", start)
        code = int(digits, 16) if len(digits.lstrip("0")) <= 8 else MAX_CODE_POINT + 1
        if code > MAX_CODE_POINT or 0xD800 <= code <= 0xDFFF:
            raise self.error("hexadecimal literal is not a Unicode scalar value", start)
        if not self.flags.u and 0x7F < code <= 0xFF and kind == "x":
            raise self._no_utf8(start)
        return code

    def _property(self, char: str, start: int) -> Ranges:
        if not self.flags.u:
            raise self.error("Unicode not allowed here", start)
        negated = char == "P"
        if self.take("{"):
            written = _PROPERTY.match(self.pattern, self.pos)
            if written is None:
                raise self.error("invalid Unicode property", start)
            name, operator, value = written.groups()
            self.pos = written.end()
            negated ^= operator == "!="
        else:
            name, value = self.peek(), None
            self.pos += 1
        found = unicode_property(name, value)
        if found is None:
            kind = "".join(name.lower().split("_"))
            if value is not None and kind in (
                "age",
                "gcb",
                "graphemeclusterbreak",
                "wb",
                "wordbreak",
                "sb",
                "sentencebreak",
            ):
                raise self.unsupported(f"the property {name} is not in our tables", rf"\p{{{name}=...}}", start)
            raise self.error("Unicode property not found", start)
        found = self._folded(found)
        return complement(found) if negated else found

    # Sets

    def _checked_set(self, ranges: Ranges, start: int) -> Ranges:
        if not self.flags.u and difference(ranges, _ASCII):
            raise self._no_utf8(start)
        return ranges

    def _set(self) -> Descent[Ranges, Ranges]:
        """A set in brackets, nested ones and operators included."""
        start = self.pos
        self.pos += 1
        self.enter()
        self._skip_spaces()
        negated = self.take("^")
        self._skip_spaces()
        parts: list[Ranges] = []
        while self.take("-"):
            parts.append(((45, 45),))
            self._skip_spaces()
        if not parts and self.take("]"):
            parts.append(((93, 93),))
        left: Ranges | None = None
        operator = ""
        while True:
            self._skip_spaces()
            if self.pos >= self.n:
                raise self.error("unclosed character class", start)
            following = next((mark for mark in ("&&", "--", "~~") if self.take(mark)), None)
            if following is not None or self.take("]"):
                right = self._folded(union(*parts))
                left = right if left is None else _combined(left, operator, right)
                parts = []
                if following is None:
                    break
                operator = following
            elif (posix := _POSIX_CLASS.match(self.pattern, self.pos)) is not None and posix[2] in POSIX:
                self.pos = posix.end()
                listed = self._folded(POSIX[posix[2]])
                parts.append(complement(listed) if posix[1] else listed)
            elif self.peek() == "[":
                parts.append((yield self._set()))
            else:
                parts.append(self._range())
        self.leave()
        assert left is not None
        return complement(left) if negated else left

    def _range(self) -> Ranges:
        start = self.pos
        low = self._set_item()
        self._skip_spaces()
        after = self.pattern[self.pos + 1 : self.pos + 2]
        if self.peek() != "-" or after in ("]", "-", ""):
            return ((low, low),) if isinstance(low, int) else low
        self.pos += 1
        self._skip_spaces()
        high = self._set_item()
        if not isinstance(low, int) or not isinstance(high, int):
            raise self.error("invalid range boundary, must be a literal", start)
        if high < low:
            raise self.error("invalid character class range, the start must be <= the end", start)
        return ((low, high),)

    def _set_item(self) -> int | Ranges:
        if self.peek() == "\\":
            return self._escaped(in_set=True)
        if self.pos >= self.n:
            raise self.error("unclosed character class", self.pos - 1)
        char = self.pattern[self.pos]
        self.pos += 1
        return ord(char)


def _combined(left: Ranges, operator: str, right: Ranges) -> Ranges:
    if operator == "&&":
        return intersection(left, right)
    if operator == "--":
        return difference(left, right)
    return union(difference(left, right), difference(right, left))


def _crlf_begin(span: Span) -> Node:
    r"""``^`` under the flags m and R: never between ``\r`` and ``\n``."""
    newline, back = Literal("\n", span), Literal("\r", span)
    alone = Concat((Look(back, False, False, span), Look(newline, True, True, span)), span)
    return Alternation((Begin(span), Look(newline, False, False, span), alone), span)


def _crlf_end(span: Span) -> Node:
    r"""``$`` under the flags m and R."""
    newline, back = Literal("\n", span), Literal("\r", span)
    alone = Concat((Look(newline, True, False, span), Look(back, False, True, span)), span)
    return Alternation((End(span), Look(back, True, False, span), alone), span)
