r"""ECMAScript regex syntax -> AST, with the meaning of the ``u`` flag: patterns and texts are code points.

JSON Schema's ``pattern`` is such a regex. `parse_ecma` reads the strict syntax of the ``u`` flag; with ``annex_b`` it
reads what browsers accept without it (ECMA-262 annex B.1.2: ``\_``, ``{`` as itself, octal escapes, ``[\d-x]``), where
``\p{L}`` is ``p{L}`` and ``\u{61}`` is 61 times ``u``. Its meaning here is still over code points, where a browser
would take a character above U+FFFF for two.

``^`` and ``$`` are the ends of the text, ``\d``, ``\w`` and ``\b`` are ASCII, ``.`` is anything but a line terminator.
Look-behinds have any width. Of the newer syntax, modifiers (``(?i:...)``, ``(?s:...)``, ``(?m:...)``) are understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal as OneOf

from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Alternation, Begin, CharSet, Empty, End, Literal, Look, Node, Ranges, Span
from outlines_core.regex.build import alternation, boundary, concat, one_of, repeat
from outlines_core.regex.charset import ALL, complement, contains, normalise, union
from outlines_core.regex.scanner import Descent, Scanner, descend
from outlines_core.regex.unicode import ecma_fold, ecma_property

__all__ = ["parse_ecma"]

_LINE_TERMINATORS: Ranges = ((10, 10), (13, 13), (0x2028, 0x2029))
_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = (
    (9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
_CLASSES: dict[str, Ranges] = {"d": _DIGIT, "s": _SPACE, "w": _WORD}
_CONTROL = {"f": 12, "n": 10, "r": 13, "t": 9, "v": 11}

_PLAIN = re.compile(r"[^\\^$.*+?()\[\]{}|]+")
_SET_RUN = re.compile(r"[^\\\]\-]+")
_COUNTS = re.compile(r"\{([0-9]+)(,?)([0-9]*)\}")
_SYNTAX_CHARACTERS = frozenset("^$\\.*+?()[]{}|/")
_HEX2, _HEX4 = re.compile("[0-9a-fA-F]{2}"), re.compile("[0-9a-fA-F]{4}")
_HEX_BRACED = re.compile(r"\{([0-9a-fA-F]+)\}")
_TRAILING_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_LEGACY_OCTAL = re.compile("[0-3][0-7]{0,2}|[4-7][0-7]?")
_DECIMAL = re.compile("[1-9][0-9]*")
_PROPERTY = re.compile(r"\{([A-Za-z_]+)(?:=([A-Za-z0-9_]+))?\}|\{([A-Za-z0-9_]+)\}")
_SKIPPED_OR_CAPTURE = re.compile(r"\\.|\[(?:[^\]\\]|\\.)*\]|(\((?!\?)|\(\?<(?![=!]))", re.DOTALL)
_MODIFIERS = re.compile(r"([a-zA-Z]*)(?:(-)([a-zA-Z]*))?:")
_MANY = 2**53


@dataclass(frozen=True, slots=True)
class _Flags:
    """What modifiers can change."""

    i: bool = False
    m: bool = False
    s: bool = False


@dataclass(slots=True)
class _Items:
    """A concatenation being read; of its last item: may it be repeated, and where does it start?"""

    nodes: list[Node] = field(default_factory=list)
    repeatable: bool = False
    last_start: int = 0

    def add(self, node: Node, *, repeatable: bool = True) -> None:
        self.nodes.append(node)
        self.repeatable = repeatable
        self.last_start = node.span[0]


def parse_ecma(pattern: str, *, annex_b: bool = False, limits: Limits = DEFAULT_LIMITS) -> Node:
    """The AST of the texts that `pattern` matches from end to end.

    Args:
        pattern: what stands between the slashes.
        annex_b: read the syntax without the ``u`` flag, see the module.
        limits: bounds on the pattern.

    Raises:
        ConstraintSyntaxError: malformed.
        UnsupportedFeatureError: it has a back-reference.
        LimitExceededError: it is too long or too deeply nested.

    >>> parse_ecma("[^]")
    CharSet(ranges=((0, 1114111),), span=(0, 3))
    """
    return _EcmaParser(pattern, annex_b, limits).parse()


class _EcmaParser(Scanner):
    def __init__(self, pattern: str, annex_b: bool, limits: Limits) -> None:
        super().__init__(pattern, limits)
        self.annex_b = annex_b
        self.n_groups = 0
        self.names: set[str] = set()
        self.number_references: list[tuple[int, int]] = []
        self.name_references: list[tuple[str, int]] = []
        self._captures: tuple[int, bool] | None = None

    def parse(self) -> Node:
        node = descend(self._choices(_Flags()))
        if self.pos < self.n:
            raise self.error("unmatched ')'", self.pos)
        for number, offset in self.number_references:
            if number > self.n_groups:
                raise self.error(f"invalid back-reference to group {number}", offset)
        for name, offset in self.name_references:
            if name not in self.names:
                raise self.error(f"back-reference to unknown group {name!r}", offset)
        self.raise_refused()
        return node

    # Structure

    def _choices(self, flags: _Flags) -> Descent[Node, Node]:
        start = self.pos
        choices = [(yield from self._concat(flags))]
        while self.take("|"):
            choice = yield from self._concat(flags)
            choices.append(choice)
        return alternation(choices, (start, self.pos))

    def _concat(self, flags: _Flags) -> Descent[Node, Node]:
        pattern, start = self.pattern, self.pos
        items = _Items()
        while self.pos < self.n and pattern[self.pos] not in "|)":
            at = self.pos
            char = pattern[at]
            if (run := _PLAIN.match(pattern, at)) is not None:
                self.pos = run.end()
                if self.pos - at > 1 and self.peek() in ("*", "+", "?", "{"):
                    items.add(self._text(pattern[at : self.pos - 1], flags, at))
                    at = self.pos - 1  # the last one alone may be repeated
                items.add(self._text(pattern[at : self.pos], flags, at))
            elif char == "\\":
                self._escape(items, flags)
            elif char == "[":
                items.add(self._set(flags))
            elif char == "(":
                yield from self._group(items, flags)
                items.last_start = at
            elif char in "*+?" or (char == "{" and _COUNTS.match(pattern, at) is not None):
                self._quantifier(items)
            else:
                self._special(items, flags)
        return concat(items.nodes, (start, self.pos))

    def _text(self, text: str, flags: _Flags, start: int) -> Node:
        if not flags.i:
            return Literal(text, (start, start + len(text)))
        parts = [self._char(ord(char), flags, (at, at + 1)) for at, char in enumerate(text, start)]
        return concat(parts, (start, start + len(text)))

    def _char(self, code: int, flags: _Flags, span: Span) -> Node:
        return one_of(ecma_fold(((code, code),)), span) if flags.i else Literal(chr(code), span)

    def _special(self, items: _Items, flags: _Flags) -> None:
        """``.``, an anchor, or a bracket that is none."""
        start = self.pos
        self.pos += 1
        span = (start, self.pos)
        match self.pattern[start]:
            case ".":
                items.add(CharSet(ALL if flags.s else complement(_LINE_TERMINATORS), span))
            case "^":
                items.add(_line_edge(Begin(span)) if flags.m else Begin(span), repeatable=False)
            case "$":
                items.add(_line_edge(End(span)) if flags.m else End(span), repeatable=False)
            case char if self.annex_b:
                items.add(self._text(char, flags, start))
            case char:
                raise self.error(f"lone {char!r}; write \\{char}", start)

    def _quantifier(self, items: _Items) -> None:
        start = self.pos
        char = self.pattern[start]
        if not items.repeatable:
            raise self.error("nothing to repeat", start)
        low, high = (1 if char == "+" else 0), (1 if char == "?" else None)
        counts = _COUNTS.match(self.pattern, start) if char == "{" else None
        if counts is None:
            self.pos += 1
        else:
            self.pos = counts.end()
            least, comma, most = counts.groups()
            low = _count(least)
            high = _count(most) if most else (None if comma else low)
            if high is not None and high < low:
                raise self.error("numbers out of order in quantifier", start)
        mode: OneOf["greedy", "lazy"] = "lazy" if self.take("?") else "greedy"
        items.add(repeat(items.nodes.pop(), low, high, mode, (items.last_start, self.pos)), repeatable=False)

    # Groups

    def _group(self, items: _Items, flags: _Flags) -> Descent[Node, None]:
        start = self.pos
        self.pos += 1
        if not self.take("?"):
            self.n_groups += 1
            items.add((yield from self._inside(flags, start)))
        elif self.take(":"):
            items.add((yield from self._inside(flags, start)))
        elif self.take("="):
            yield from self._look(items, flags, start, ahead=True, negative=False)
        elif self.take("!"):
            yield from self._look(items, flags, start, ahead=True, negative=True)
        elif self.take("<="):
            yield from self._look(items, flags, start, ahead=False, negative=False)
        elif self.take("<!"):
            yield from self._look(items, flags, start, ahead=False, negative=True)
        elif self.take("<"):
            self.n_groups += 1
            name = self._group_name(start)
            if name in self.names:
                raise self.error(f"duplicate group name {name!r}", start)
            self.names.add(name)
            items.add((yield from self._inside(flags, start)))
        else:
            items.add((yield from self._inside(self._modified(flags, start), start)))

    def _inside(self, flags: _Flags, start: int) -> Descent[Node, Node]:
        self.enter()
        node = yield self._choices(flags)
        if not self.take(")"):
            raise self.error("unterminated group", start)
        self.leave()
        return node

    def _look(self, items: _Items, flags: _Flags, start: int, *, ahead: bool, negative: bool) -> Descent[Node, None]:
        node = yield from self._inside(flags, start)
        items.add(Look(node, ahead, negative, (start, self.pos)), repeatable=ahead and self.annex_b)

    def _modified(self, flags: _Flags, start: int) -> _Flags:
        """Flags after ``(?i-s:``."""
        modifiers = _MODIFIERS.match(self.pattern, self.pos)
        if modifiers is None:
            raise self.error("invalid group", start)
        added, dash, removed = modifiers.group(1), modifiers.group(2), modifiers.group(3) or ""
        letters = added + removed
        if not letters or len(set(letters)) < len(letters) or not set(letters) <= set("ims"):
            raise self.error(f"invalid flags in group: {added}{dash or ''}{removed}", start)
        self.pos = modifiers.end()
        return replace(flags, **dict.fromkeys(added, True), **dict.fromkeys(removed, False))

    def _group_name(self, start: int) -> str:
        """A name after ``<``, and the ``>``."""
        name = ""
        while not self.take(">"):
            char = self.peek()
            if char == "\\":
                self.pos += 1
                code = self._unicode_escape(named=True) if self.take("u") else None
                char = "" if code is None else chr(code)
            else:
                self.pos += 1
            kind = "ID_Continue" if name else "ID_Start"
            allowed = ecma_property(kind) or ()
            extra = "$_\u200c\u200d" if name else "$_"
            if not char or not (char in extra or contains(allowed, ord(char))):
                raise self.error("invalid capture group name", start)
            name += char
        if not name:
            raise self.error("invalid capture group name", start)
        return name

    def _all_captures(self) -> tuple[int, bool]:
        """How many groups the whole pattern captures, and whether any has a name (annex B's escapes ask)."""
        if self._captures is None:
            found = [m.group(1) for m in _SKIPPED_OR_CAPTURE.finditer(self.pattern) if m.group(1)]
            self._captures = len(found), "(?<" in found
        return self._captures

    # Escapes

    def _escape(self, items: _Items, flags: _Flags) -> None:
        start = self.pos
        char = self.pattern[start + 1 : start + 2]
        if char in ("b", "B"):
            self.pos += 2
            word = ecma_fold(_WORD) if flags.i else _WORD
            node = boundary(word, (start, self.pos), negated=char == "B", empty_text=True)
            items.add(node, repeatable=False)
        elif char == "k" and (not self.annex_b or self._all_captures()[1]):
            self.pos += 2
            if not self.take("<"):
                raise self.error("invalid named reference", start)
            self.name_references.append((self._group_name(start), start))
            self.refuse("back-reference", start)
            items.add(Empty((start, self.pos)))
        elif (digits := _DECIMAL.match(self.pattern, start + 1)) is not None and self._is_reference(digits.group()):
            self.pos = digits.end()
            self.number_references.append((_count(digits.group()), start))
            self.refuse("back-reference", start)
            items.add(Empty((start, self.pos)))
        else:
            meant = self._escaped(in_set=False)
            span = (start, self.pos)
            if isinstance(meant, int):
                items.add(self._char(meant, flags, span))
            else:
                items.add(one_of(self._class(meant, flags), span))

    def _is_reference(self, digits: str) -> bool:
        return not self.annex_b or _count(digits) <= self._all_captures()[0]

    def _escaped(self, *, in_set: bool) -> int | str | Ranges:
        """An escape: a code point, the letter of a class, or the characters of a property."""
        start = self.pos
        char = self.pattern[start + 1 : start + 2]
        if not char:
            raise self.error("\\ at end of pattern", start)
        self.pos += 2
        if char in "dDsSwW":
            return char
        if char in "pP" and not self.annex_b:
            return self._property(char, start)
        if char in _CONTROL:
            return _CONTROL[char]
        if char == "b" and in_set:
            return 8
        if char == "-" and in_set:
            return ord("-")
        if char == "c":
            return self._control_letter(start, in_set=in_set)
        if char == "x" and (digits := _HEX2.match(self.pattern, self.pos)) is not None:
            self.pos += 2
            return int(digits.group(), 16)
        if char == "u" and (code := self._unicode_escape(named=False)) is not None:
            return code
        if char == "0" and not self.annex_b and (not self.peek() or self.peek() not in "0123456789"):
            return 0
        if self.annex_b:
            return self._legacy(char, start)
        if char not in _SYNTAX_CHARACTERS:
            raise self.error(f"invalid escape \\{char}", start)
        return ord(char)

    def _legacy(self, char: str, start: int) -> int:
        """Annex B: octal digits, and any other character for itself."""
        octal = _LEGACY_OCTAL.match(self.pattern, start + 1)
        if octal is not None:
            self.pos = octal.end()
            return int(octal.group(), 8)
        if char == "k" and self._all_captures()[1]:
            raise self.error("invalid escape \\k in a pattern with named groups", start)
        return ord(char)

    def _control_letter(self, start: int, *, in_set: bool) -> int:
        letter = self.peek()
        if letter.isascii() and letter.isalpha():
            self.pos += 1
            return ord(letter) % 32
        if self.annex_b:
            if in_set and letter.isascii() and (letter.isdecimal() or letter == "_"):
                self.pos += 1
                return ord(letter) % 32
            self.pos = start + 1
            return ord("\\")
        raise self.error("invalid unicode escape \\c", start)

    def _unicode_escape(self, *, named: bool) -> int | None:
        r"""What follows ``\u``; None (nothing taken): not a valid escape.  Names may use braces in annex B too."""
        braced = _HEX_BRACED.match(self.pattern, self.pos) if named or not self.annex_b else None
        if braced is not None:
            code = int(braced.group(1), 16)
            if code > 0x10FFFF:
                return None
            self.pos = braced.end()
            return code
        digits = _HEX4.match(self.pattern, self.pos)
        if digits is None:
            return None
        self.pos = digits.end()
        code = int(digits.group(), 16)
        trailing = _TRAILING_SURROGATE.match(self.pattern, self.pos) if 0xD800 <= code <= 0xDBFF else None
        if trailing is None:
            return code
        self.pos = trailing.end()
        return 0x10000 + ((code - 0xD800) << 10) + int(trailing.group(1), 16) - 0xDC00

    def _property(self, char: str, start: int) -> Ranges:
        written = _PROPERTY.match(self.pattern, self.pos)
        found = None
        if written is not None:
            self.pos = written.end()
            found = ecma_property(written.group(1) or written.group(3), written.group(2))
        if found is None:
            raise self.error("invalid property name", start)
        return complement(found) if char == "P" else found

    def _class(self, meant: str | Ranges, flags: _Flags) -> Ranges:
        r"""The characters of ``\d``, ``\W``, ``\p{...}``."""
        if not isinstance(meant, str):
            return ecma_fold(meant) if flags.i else meant
        listed = _CLASSES[meant.lower()]
        if flags.i and meant in "wW":
            listed = ecma_fold(listed)
        return listed if meant.islower() else complement(listed)

    # Sets

    def _set(self, flags: _Flags) -> Node:
        start = self.pos
        self.pos += 1
        negated = self.take("^")
        pairs: list[tuple[int, int]] = []
        classes: list[Ranges] = []
        while not self.take("]"):
            if (run := _SET_RUN.match(self.pattern, self.pos)) is not None and run.end() - self.pos > 1:
                last = run.end() - 1  # may start a range
                pairs += ((code, code) for code in map(ord, self.pattern[self.pos : last]))
                self.pos = last
            at = self.pos
            low = self._set_item(start)
            if self.peek() == "-" and self.pattern[self.pos + 1 : self.pos + 2] not in ("]", ""):
                self.pos += 1
                high = self._set_item(start)
                if isinstance(low, int) and isinstance(high, int):
                    if high < low:
                        raise self.error("range out of order in character class", at)
                    pairs.append((low, high))
                    continue
                if not self.annex_b:
                    raise self.error("invalid character class in a range", at)
                pairs.append((ord("-"), ord("-")))
                items = [low, high]
            else:
                items = [low]
            for item in items:
                if isinstance(item, int):
                    pairs.append((item, item))
                else:
                    classes.append(self._class(item, flags))
        listed = normalise(pairs)
        matched = union(ecma_fold(listed) if flags.i else listed, *classes)
        return one_of(complement(matched) if negated else matched, (start, self.pos))

    def _set_item(self, start: int) -> int | str | Ranges:
        char = self.peek()
        if not char:
            raise self.error("unterminated character class", start)
        if char == "\\":
            return self._escaped(in_set=True)
        self.pos += 1
        return ord(char)


def _count(digits: str) -> int:
    """A quantifier's number, not larger than matters."""
    return _MANY if len(digits.lstrip("0")) > 15 else int(digits.lstrip("0") or "0")


def _line_edge(edge: Begin | End) -> Node:
    """``^`` or ``$`` under the m modifier."""
    terminator = CharSet(_LINE_TERMINATORS, edge.span)
    return Alternation((edge, Look(terminator, isinstance(edge, End), False, edge.span)), edge.span)
