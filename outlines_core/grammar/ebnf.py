r"""EBNF as llama.cpp (GBNF) and xgrammar write it, rewritten as a Lark grammar of the same language.

    root ::= "a" (item ",")* [^\n]{2,}    ->    root: "a" root__1* /[^\n]/ /[^\n]/+
    item ::= [0-9]{1,3}                         root__1: item ","
                                                item: /[0-9]/~1..3

EBNF has no lexer: a text is in the language if some derivation spells it, character by character. So the result is
to be compiled with ``lexer="scannerless"``; literals and classes are its terminals.

One reader serves both formats, because what both accept they read alike, with few exceptions. A rule ends where the
next ``name ::=`` begins a line; other line breaks are blanks. A dot is part of a name if some rule has a dot in its
name, else it is any character. What remains ambiguous is refused (``\x123``: two digits for one, all for the other).
Counts are exact, also where llama.cpp gives up (above 2,000 it drops the upper bound).

The form in between is flat, each group is a rule of its own: nothing nests, here or in Lark, and Lark, which
multiplies the choices within a sequence out, finds one at most.

Sources: llama.cpp src/llama-grammar.cpp and grammars/README.md; xgrammar cpp/grammar_parser.cc and its EBNF guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from outlines_core.errors import ConstraintSyntaxError, UnsupportedFeatureError, line_and_column
from outlines_core.regex import charset
from outlines_core.regex.ast import Ranges

__all__ = ["Call", "Chars", "Ebnf", "Item", "Text", "from_ebnf", "parse_ebnf"]


@dataclass(frozen=True, slots=True)
class Text:
    """A literal; may be empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set, which holds no surrogates."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Call:
    """A rule or a group."""

    rule: str


class Item(NamedTuple):
    """`low` to `high` times the symbol; None: without bound."""

    symbol: Text | Chars | Call
    low: int = 1
    high: int | None = 1


Sequence: TypeAlias = tuple[Item, ...]


class Ebnf(NamedTuple):
    """A grammar as read.

    Attributes:
        root: the rule that texts are made of.
        rules: alternatives by name; groups are the rules ``name#1``, ``name#2``... and follow the rule they stand in.
        origins: the text of each rule that has one.
    """

    root: str
    rules: dict[str, tuple[Sequence, ...]]
    origins: dict[str, str]


def from_ebnf(text: str, *, root: str = "root") -> str:
    r"""The text of a Lark grammar with the language of an EBNF grammar.

    Args:
        text: the grammar, as llama.cpp (GBNF) or xgrammar writes it.
        root: the rule that texts are made of.

    Returns:
        A grammar whose start rule is ``start``, to be compiled with ``lexer="scannerless"``. Rules keep their names
        where Lark can have them; above each stands its origin.

    Raises:
        ConstraintSyntaxError: neither format has this; a rule that is undefined, or defined twice; no such root.
        UnsupportedFeatureError: not a matter of the text alone (tokens, lookahead, rule options, xgrammar's macros
            except ``Substring``), or the two formats read it differently.

    Cost: linear in the length of the text.

    >>> print(from_ebnf('root ::= "a" Digit? | "-" [0-9]{1,3}\nDigit ::= [0-9]'), end="")
    start: root
    // root ::= "a" Digit? | "-" [0-9]{1,3}
    root: "a" digit?
        | "-" root__1
    // Digit ::= [0-9]
    digit: /[0-9]/
    root__1: /[0-9]/~1..3
    """
    return _Writer(parse_ebnf(text, root=root)).write()


def parse_ebnf(text: str, *, root: str = "root") -> Ebnf:
    """Read a grammar.  Raises as `from_ebnf` does."""
    return _Reader(text).read(root)


# -- reading ----------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\r\n]*)
      | (?P<name>[A-Za-z0-9_.-]+)
      | (?P<assign>::=)
      | (?P<string>"[^"\\]*(?:\\.[^"\\]*)*")
      | (?P<class>\[[^\]\\]*(?:\\.[^\]\\]*)*\])
      | (?P<ahead>\(=)
      | (?P<token>!?<)
      | (?P<mark>[()|*+?{},=])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(
    r"\\(?:x(?P<x>[0-9A-Fa-f]*)|u(?P<u>[0-9A-Fa-f]{4})|U(?P<U>[0-9A-Fa-f]{8})|(?P<other>.))", re.DOTALL
)
_CONTROLS: Final = dict(zip("nrtbfav0e", "\n\r\t\b\f\a\v\0\x1b", strict=True))
_PLAIN: Final = {"string": frozenset("\"'\\?/[]-"), "class": frozenset("\"'\\?/[]-^$.*+(){}|")}
_OPERATORS: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_MACROS: Final = frozenset({"ExcludeToken", "Regex", "Substring", "TagDispatch", "Token", "TokenTagDispatch"})
_SURROGATES: Final[Ranges] = ((0xD800, 0xDFFF),)
_ANY: Final = Chars(charset.complement(_SURROGATES))
_MAX_DIGITS: Final = 9


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int

    @property
    def end(self) -> int:
        return self.offset + len(self.text)


_NO_TOKEN: Final = _Token("none", "", 0)


class _Frame:
    """A rule or a group while it is read."""

    def __init__(self, name: str, offset: int) -> None:
        self.name, self.offset = name, offset
        self.alternatives: list[Sequence] = []
        self.sequence: list[Item] = []

    def end_alternative(self) -> None:
        self.alternatives.append(tuple(self.sequence))
        self.sequence = []


class _Reader:
    """The tokens of a grammar and a position in them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokenize())
        self.at = 0
        self.n_groups = 0
        self.groups: dict[tuple[Sequence, ...], str] = {}
        self.defined: dict[str, int] = {}
        self.has_dotted_names = False
        self.rules: dict[str, tuple[Sequence, ...]] = {}
        self.frames: list[_Frame] = []

    def error(self, message: str, offset: int) -> ConstraintSyntaxError:
        return ConstraintSyntaxError(message, source=self.text, offset=offset)

    def refusal(self, message: str, feature: str, offset: int) -> UnsupportedFeatureError:
        return UnsupportedFeatureError(message, feature=feature, source=self.text, offset=offset)

    def _tokenize(self) -> Iterator[_Token]:
        offset = 0
        while offset < len(self.text):
            match = _TOKEN.match(self.text, offset)
            if match is None:
                unclosed = {
                    '"': 'this literal is not closed: end it with "',
                    "[": "this class is not closed: end it with ]",
                }
                first = self.text[offset]
                raise self.error(unclosed.get(first, f"{first!r} means nothing here; text stands in quotes"), offset)
            kind = match.lastgroup or ""
            if kind == "token":
                message = "a token stands for itself, not for a text; write the text that it spells"
                raise self.refusal(message, "token reference", offset)
            if kind == "ahead":
                message = "what this refuses depends on the tokens; if it only says what follows anyway, leave it out"
                raise self.refusal(message, "lookahead assertion", offset)
            if kind != "space":
                yield _Token(kind, match.group(), offset)
            offset = match.end()

    def peek(self, ahead: int = 0) -> _Token:
        """A token from here on; past the last one an empty token."""
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else _Token("end", "", len(self.text))

    def take(self) -> _Token:
        token = self.peek()
        self.at += 1
        return token

    def read(self, root: str) -> Ebnf:
        self._find_rules()
        if root not in self.defined:
            known = ", ".join(list(self.defined)[:5]) or "none"
            raise self.error(f"there is no rule {root!r} to start from (rules: {known}); name another with root=", 0)
        origins: dict[str, str] = {}
        while (token := self.take()).kind != "end":
            self.take()  # `_find_rules` has seen to it that this is `::=`
            self.rules[token.text] = ()
            self.frames = [_Frame(token.text, token.offset)]
            while self.peek(1).kind != "assign" and self.peek().kind != "end":
                self._read_item()
            if len(self.frames) > 1:
                raise self.error("this group is not closed: end it with )", self.frames[-1].offset)
            self._close()
            last = self.tokens[self.at - 1]
            origins[token.text] = self.text[token.offset : last.end]
        items = (item for alternatives in self.rules.values() for sequence in alternatives for item in sequence)
        called = {item.symbol.rule for item in items if isinstance(item.symbol, Call)}
        rules = {name: self.rules[name] for name in self.rules if name in self.defined or name in called}
        return Ebnf(root, rules, origins)

    def _find_rules(self) -> None:
        for k, (kind, _, offset) in enumerate(self.tokens):
            if kind != "assign":
                continue
            before, name = [_NO_TOKEN, _NO_TOKEN, *self.tokens[max(k - 2, 0) : k]][-2:]
            if name.kind == "class" and before.kind == "name":
                raise self.refusal("options of a rule are not part of its language", "rule option", name.offset)
            if name.kind != "name":
                raise self.error("::= follows the name of a rule", offset)
            if before != _NO_TOKEN and not re.search(r"[\r\n]", self.text[before.end : name.offset]):
                raise self.error("a rule begins on a line of its own", name.offset)
            if name.text in self.defined:
                line, _ = line_and_column(self.text, self.defined[name.text])
                raise self.error(f"the rule {name.text!r} is defined twice, first in line {line}", name.offset)
            self.defined[name.text] = name.offset
        if self.tokens and self.peek(1).kind != "assign":
            fault = self.peek(int(self.peek().kind == "name"))
            raise self.error("a grammar begins with the name of a rule and ::=", fault.offset)
        self.has_dotted_names = any("." in name for name in self.defined)

    # A group, when it is closed, becomes an item of the frame below it.

    def _read_item(self) -> None:
        kind, text, offset = self.take()
        frame = self.frames[-1]
        if kind == "string":
            frame.sequence.append(Item(self._literal(text, offset)))
        elif kind == "class":
            frame.sequence.append(Item(self._class(text, offset)))
        elif kind == "name":
            frame.sequence += map(Item, self._calls(text, offset))
        elif text == "(":
            self.frames.append(self._group(offset))
        elif text == ")":
            if len(self.frames) == 1:
                raise self.error("there is no group to close here", offset)
            self._close_group()
        elif text == "|":
            frame.end_alternative()
        elif text in _OPERATORS or text == "{":
            low, high = self._counts() if text == "{" else _OPERATORS[text]
            if not frame.sequence:
                raise self.error(f"{text} repeats what stands before it, and there is nothing", offset)
            symbol, *once = frame.sequence[-1]
            if once != [1, 1]:  # a repetition of a repetition
                inner = self._group(offset)
                inner.sequence = [frame.sequence[-1]]
                symbol = self._close(inner)
            frame.sequence[-1] = Item(symbol, low, high)
        else:
            raise self.error(f"{text!r} means nothing here; text stands in quotes", offset)

    def _group(self, offset: int) -> _Frame:
        self.n_groups += 1
        name = f"{self.frames[0].name}#{self.n_groups}"
        self.rules[name] = ()  # takes its place in the order
        return _Frame(name, offset)

    def _close(self, frame: _Frame | None = None) -> Call:
        frame = frame or self.frames.pop()
        frame.end_alternative()
        alternatives = self.rules[frame.name] = tuple(dict.fromkeys(frame.alternatives))
        if "#" not in frame.name:
            return Call(frame.name)
        name = self.groups.setdefault(alternatives, frame.name)
        if name != frame.name:  # there is one like it already
            del self.rules[frame.name]
        return Call(name)

    def _close_group(self) -> None:
        call = self._close()
        below = self.frames[-1].sequence
        alternatives = self.rules[call.rule]
        only = alternatives[0] if len(alternatives) == 1 else None
        repeated = self.peek().text in _OPERATORS or self.peek().text == "{"
        if only is not None and (not repeated or (len(only) == 1 and only[0][1:] == (1, 1))):
            below += only  # parentheses around a sequence; `read` drops the group
        else:
            below.append(Item(call))

    def _counts(self) -> tuple[int, int | None]:
        """What stands in braces, the opening one taken."""
        low = self._count("the least number of repetitions")
        high: int | None = low
        if self.peek().text == ",":
            self.take()
            if self.peek().text == "}":
                high = None
            elif self.peek().text == "-1":  # xgrammar prints "without bound" so
                self.take()
                high = None
            else:
                offset = self.peek().offset
                high = self._count("the greatest number of repetitions or }")
                if high < low:
                    raise self.error(f"at most {high}, but at least {low}", offset)
        _, text, offset = self.take()
        if text != "}":
            raise self.error("expected }", offset)
        return low, high

    def _count(self, expected: str) -> int:
        kind, text, offset = self.take()
        if kind != "name" or not text.isdecimal():
            raise self.error(f"expected {expected}", offset)
        if len(text) > _MAX_DIGITS:
            raise self.error(f"a count has at most {_MAX_DIGITS} digits", offset)
        return int(text)

    def _calls(self, name: str, offset: int) -> Iterator[Chars | Call]:
        """The rule that `name` calls, or rules and any characters, if it has dots."""
        if name in _MACROS and self.peek().text == "(":
            yield self._macro(name, offset)
        elif name in self.defined:
            yield Call(name)
        elif name == "." or ("." in name and not self.has_dotted_names):
            for part in re.finditer(r"\.|[^.]+", name):
                yield _ANY if part.group() == "." else self._call(part.group(), offset + part.start())
        else:
            yield self._call(name, offset)

    def _call(self, name: str, offset: int) -> Call:
        if name not in self.defined:
            raise self.error(f"the rule {name!r} is not defined; text stands in quotes", offset)
        return Call(name)

    def _macro(self, name: str, offset: int) -> Call:
        """``Substring("a", "b", ...)``: what some neighbours of these texts spell, or nothing."""
        if name in self.defined:
            raise self.refusal("a macro of xgrammar has the name of this rule; rename it", f"{name}()", offset)
        if name == "Regex":
            message = "xgrammar's regexes are no part of EBNF; write this one with its operators and classes"
            raise self.refusal(message, "Regex()", offset)
        if name != "Substring":
            message = "this macro of xgrammar's is about tokens, or about texts that do not hold others"
            raise self.refusal(message, f"{name}()", offset)
        chunks: list[Item] = []
        mark = self.take()
        while mark.text != ")":
            if mark.text not in ("(", ","):
                raise self.error("expected , or )", mark.offset)
            kind, text, at = self.take()
            if kind == "name":
                raise self.refusal("only texts are supported as arguments here", "Substring() with options", at)
            if kind != "string":
                raise self.error("expected a text", at)
            chunk = self._literal(text, at)
            chunks += [Item(chunk)] if chunk.text else []
            mark = self.take()
        whole = self._group(offset)
        after: Sequence = ()
        for item in reversed(chunks):
            rest = self._group(offset)  # begins with this chunk, or is nothing
            rest.alternatives = [(item, *after)]
            whole.alternatives.append((item, *after))
            after = (Item(self._close(rest)),)
        return self._close(whole)

    def _character(self, text: str, at: int, kind: str, offset: int) -> tuple[int, int]:
        """The code of the character at `at`, and where the next one is.  `offset`: where `text` stands."""
        if text[at] != "\\":
            return ord(text[at]), at + 1
        match = _ESCAPE.match(text, at)
        assert match is not None  # a backslash is never the last character of a token
        short, other, here = match["x"], match["other"], offset + at
        if other is not None and other in _CONTROLS:
            return ord(_CONTROLS[other]), match.end()
        if other is not None and other in _PLAIN[kind]:
            return ord(other), match.end()
        if other is not None or short == "":
            known = '\\n \\r \\t \\b \\f \\a \\v \\0 \\e \\\\ \\" \\xHH \\uHHHH \\UHHHHHHHH'
            raise self.error(f"\\{other or 'x'} is not complete, or no escape here; there are {known}", here)
        if short is not None and len(short) > 2:
            message = "llama.cpp reads two digits after \\x, xgrammar all of them; write \\uHHHH"
            raise self.refusal(message, "\\x with more than two digits", here)
        code = int(short or match["u"] or match["U"], 16)
        if code > charset.MAX_CODE_POINT:
            raise self.error("there is no such character; the last one is \\U0010FFFF", here)
        return code, match.end()

    def _literal(self, text: str, offset: int) -> Text:
        chars: list[str] = []
        at = 1
        while at < len(text) - 1:
            start = at
            code, at = self._character(text, at, "string", offset)
            if 0xD800 <= code <= 0xDFFF:
                raise self.error("a surrogate is no character; write \\UHHHHHHHH", offset + start)
            chars.append(chr(code))
        return Text("".join(chars))

    def _class(self, text: str, offset: int) -> Chars:
        end = len(text) - 1
        is_negated = text[1] == "^"
        at = 2 if is_negated else 1
        pairs: list[tuple[int, int]] = []
        while at < end:
            start = at
            low, at = self._character(text, at, "class", offset)
            high = low
            if text[at] == "-" and at + 1 < end:
                high, at = self._character(text, at + 1, "class", offset)
                if high < low:
                    raise self.error("the range runs backwards; a dash that means itself is \\-", offset + start)
            pairs.append((low, high))
        ranges = charset.normalise(pairs)
        ranges = charset.difference(charset.complement(ranges) if is_negated else ranges, _SURROGATES)
        if not ranges:
            raise self.error('no character is in this class; nothing at all is ""', offset)
        return Chars(ranges)


# -- writing ----------------------------------------------------------------------------------------------------------

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_ESCAPED: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\f": "\\f", "\\": "\\\\"}
_IN_CLASS: Final = {c: "\\" + c for c in "[]^-/&|~"}
_COMMENT_LENGTH: Final = 100
_EMPTY: Final = Text("")


class _Writer:
    """The Lark grammar of an `Ebnf`."""

    def __init__(self, grammar: Ebnf) -> None:
        self.grammar = grammar
        self.names: dict[str, str] = {}
        self.taken = {"start"}
        self.numbers: dict[str, int] = {}
        self.helpers: dict[str, str] = {}
        self.lines: list[str] = []
        self._choose_names()

    def write(self) -> str:
        root = self.names[self.grammar.root]
        if root != "start":
            self.lines.append(f"start: {root}")
        for name, alternatives in self.grammar.rules.items():
            if name in self.grammar.origins:
                self.lines.append(f"// {_comment(self.grammar.origins[name])}")
            base = self.names[name.partition("#")[0]]
            bodies = dict.fromkeys(self._sequence(sequence, base) for sequence in alternatives)
            self.lines.append(f"{self.names[name]}: " + "\n    | ".join(bodies))
        self.lines += [f"{name}: {body}" for body, name in self.helpers.items()]
        return "\n".join(self.lines).replace(" \n", "\n").rstrip() + "\n"

    def _choose_names(self) -> None:
        """Lark's rules are of lower case: names that are already keep them, the others give way."""
        rules = [name for name in self.grammar.rules if "#" not in name]
        for name in rules:
            if _NAME.fullmatch(name) and (name != "start" or name == self.grammar.root):
                self.names[name] = name
        self.taken.update(self.names)
        for name in rules:
            if name not in self.names:
                plain = re.sub(r"[^a-z0-9_]", "_", name.lower()).strip("_")
                plain = plain if _NAME.fullmatch(plain) else f"r_{plain}".rstrip("_")
                self.names[name] = self._numbered(plain, "_") if plain in self.taken else plain
                self.taken.add(self.names[name])
        for name in self.grammar.rules:
            if name not in self.names:
                self.names[name] = self._numbered(self.names[name.partition("#")[0]], "__")

    def _numbered(self, name: str, mark: str) -> str:
        """`name` with the next number that makes it a new one."""
        while True:
            number = self.numbers[name] = self.numbers.get(name, 0) + 1
            candidate = f"{name}{mark}{number}"
            if candidate not in self.taken:
                self.taken.add(candidate)
                return candidate

    def _sequence(self, sequence: Sequence, rule: str) -> str:
        items = [item for item in sequence if item.high != 0 and item.symbol != _EMPTY]
        n_choices = sum(_is_choice(item) for item in items)
        parts = []
        for item in items:
            part = self._repeat(item)
            # Lark multiplies choices out, so a sequence has one at most: `a? b? c?` would be eight sequences.
            is_small = item.low == 0 and item.high in (1, None)
            if _is_choice(item) and len(items) > 1 and not (is_small and n_choices == 1):
                if part not in self.helpers:
                    self.helpers[part] = self._numbered(rule, "__")
                part = self.helpers[part]
            parts.append(part)
        return " ".join(parts)

    def _repeat(self, item: Item) -> str:
        symbol = self._symbol(item.symbol)
        match item.low, item.high:
            case 1, 1:
                return symbol
            case 0, 1:
                return f"{symbol}?"
            case 0, None:
                return f"{symbol}*"
            case 1, None:
                return f"{symbol}+"
            case 2, None:
                return f"{symbol} {symbol}+"
            case low, None:
                return f"{symbol}~{low - 1} {symbol}+"
            case low, high if low == high:
                return f"{symbol}~{low}"
            case low, high:
                return f"{symbol}~{low}..{high}"

    def _symbol(self, symbol: Text | Chars | Call) -> str:
        if isinstance(symbol, Call):
            return self.names[symbol.rule]
        if isinstance(symbol, Text):
            return _quoted(symbol.text)
        return _class_text(symbol.ranges)


def _is_choice(item: Item) -> bool:
    return item.high != item.low and (item.high is not None or item.low == 0)


def _comment(origin: str) -> str:
    line = "".join(c if c.isprintable() else "·" for c in " ".join(origin.split()))
    return line if len(line) <= _COMMENT_LENGTH else line[: _COMMENT_LENGTH - 1] + "…"


def _readable(char: str) -> str:
    """A character in a literal or a class of Lark, which evaluates Python's escapes in both."""
    if char in _ESCAPED:
        return _ESCAPED[char]
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _quoted(text: str) -> str:
    return '"' + "".join('\\"' if c == '"' else _readable(c) for c in text) + '"'


def _class_text(ranges: Ranges) -> str:
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return _quoted(chr(ranges[0][0]))
    excluded = charset.difference(charset.complement(ranges), _SURROGATES)
    if not excluded:
        return r"/[\s\S]/"
    sign, listed = ("^", excluded) if len(excluded) < len(ranges) else ("", ranges)
    parts: list[str] = []
    for low, high in listed:
        parts.append(_in_class(low))
        if high > low:
            parts.append(("-" if high > low + 1 else "") + _in_class(high))
    return f"/[{sign}{''.join(parts)}]/"


def _in_class(code: int) -> str:
    char = chr(code)
    return _IN_CLASS.get(char) or _readable(char)
