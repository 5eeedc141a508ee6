"""The extended dialect of Lark's grammar language, rewritten into Lark's own.

What it has besides: ``&`` and ``~`` in the definitions of terminals, special tokens (``<|name|>``, ``<[17]>``) and
``%json {schema}`` in rules. Lark still reads everything else. Of the extras only their places and extent are found
here, by a scan of the text's tokens: a special token or a schema becomes the name of a terminal of its own, defined
behind the end of the text; the operators of a terminal become marks, which Lark takes for characters of its pattern
and which `outlines_core.grammar.booleans` finds there again.

Operators bind, from tight to loose: ``? * + ~n``, complement ``~``, sequence, ``&``, ``|``.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from outlines_core.errors import ConstraintSyntaxError, UnsupportedFeatureError

__all__ = ["AND", "CLOSE", "NOT", "OPEN", "SHOWN", "Extended", "pointer_offset", "read_extended"]

OPEN, AND, NOT, CLOSE = "\ufdd0\ufdd1\ufdd2\ufdd3"
SHOWN: Final = {ord(mark): text for mark, text in ((OPEN, "("), (AND, " & "), (NOT, "~"), (CLOSE, ")"))}
"""What marks are for people."""
_EXTRA: Final = "\ufdd4"
_MOST_NESTED: Final = 100
_RESERVED: Final = re.compile(r"[\ufdd0-\ufdef]|\\u[fF][dD][dDeE][0-9a-fA-F]|\\U0000[fF][dD][dDeE][0-9a-fA-F]")
_TOKENS: Final = re.compile(
    r"""(?P<blank>[ \t]+|\\[ ]*\r?\n|//[^\n]*|\#[^\n]*)
    |(?P<newline>\r?\n)
    |(?P<string>"(?:\\"|\\\\|[^"\n])*?"i?)
    |(?P<regexp>/(?!/)(?:\\/|\\\\|[^/])*?/[imslux]*)
    |(?P<special><[^<>\s]+>)
    |(?P<json>%json(?![A-Za-z_0-9]))
    |(?P<directive>%[a-z_]+)
    |(?P<name>_?[A-Za-z]\w*)
    |(?P<number>[+-]?\d+)
    |(?P<dots>\.\.)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


class Extended(NamedTuple):
    """A grammar of the extended dialect, read.

    Attributes:
        source: the text.
        text: what Lark is given.
        plain: `source` with something of Lark's in place of each extra, every line and column as it was: where Lark
            would refuse the grammar if it knew the extras.
        tokens: by name of a terminal: a special token as it is written, and the offset of its first use.
        schemas: by name of a terminal: a JSON value, and its offset.
    """

    source: str
    text: str
    plain: str
    tokens: dict[str, tuple[str, int]]
    schemas: dict[str, tuple[Any, int]]


def read_extended(source: str) -> Extended:
    """Find and replace the extras.

    Raises:
        ConstraintSyntaxError: an extra where it cannot stand, an operator without an operand, malformed JSON.
        UnsupportedFeatureError: noncharacters, which stand for the extras.

    >>> read_extended('start: <|x|> A\\nA: /a+/ & ~"a"').tokens
    {'SPECIAL_1': ('<|x|>', 7)}
    """
    reserved = _RESERVED.search(source)
    if reserved:
        raise UnsupportedFeatureError(
            "noncharacters from U+FDD0 to U+FDEF cannot be named in the extended dialect",
            feature="noncharacter",
            source=source,
            offset=reserved.start(),
        )
    return _Reader(source).read()


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._edits: list[tuple[int, int, str]] = []
        self._plain: list[tuple[int, int, str]] = []
        self._tokens: dict[str, tuple[str, int]] = {}
        self._schemas: dict[str, tuple[Any, int]] = {}
        self._names: dict[Any, str] = {}

    def read(self) -> Extended:
        tokens = self._scan()
        statement: list[_Token] = []
        for k, token in enumerate(tokens):
            if token.kind != "newline":
                if token.kind != "blank":
                    statement.append(token)
                continue
            following = next((t for t in tokens[k + 1 :] if t.kind not in ("newline", "blank")), None)
            if following is None or following.text != "|":  # a line that begins with | goes on
                self._statement(statement)
                statement = []
        self._statement(statement)
        text = _edited(self._source, self._edits)
        definitions = "".join(
            f"\n{name}: /{_EXTRA}{k}/" for k, name in enumerate((*self._tokens, *self._schemas), start=1)
        )
        plain = _edited(self._source, self._plain)
        return Extended(self._source, text + definitions, plain, self._tokens, self._schemas)

    def _scan(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self._source):
            match = _TOKENS.match(self._source, at)
            assert match is not None
            assert match.lastgroup is not None
            end = self._json_end(match.end()) if match.lastgroup == "json" else match.end()
            tokens.append(_Token(match.lastgroup, self._source[at:end], at, end))
            at = end
        return tokens

    def _json_end(self, at: int) -> int:
        at = _skipped(self._source, at)
        try:
            value, end = json.JSONDecoder().raw_decode(self._source, at)
        except json.JSONDecodeError as error:
            raise ConstraintSyntaxError(
                f"%json: {error.msg}", source=self._source, offset=min(error.pos, len(self._source))
            ) from error
        except RecursionError as error:
            raise ConstraintSyntaxError("%json: nested too deeply", source=self._source, offset=at) from error
        self._schemas[self._name("JSON", at)] = value, at
        return end

    def _name(self, kind: str, key: Any) -> str:
        """The terminal of an extra; equal special tokens share one."""
        known = self._names.get(key)
        if known is None:
            known = f"{kind}_{sum(name.startswith(kind) for name in self._names.values()) + 1}"
            while known in self._source:
                known += "_"
            self._names[key] = known
        return known

    # -- statements -------------------------------------------------------------------------------------------------

    def _statement(self, tokens: list[_Token]) -> None:
        at = 0
        if tokens and tokens[0].text in ("%override", "%extend"):
            at = 1
        while at < len(tokens) and tokens[at].text in ("!", "?"):
            at += 1
        if at >= len(tokens):
            return
        head = tokens[at]
        is_terminal = head.text == "%ignore" or (head.kind == "name" and head.text.isupper())
        body = at + 1
        if head.text != "%ignore":
            body = next((k + 1 for k, t in enumerate(tokens) if t.text == ":"), len(tokens))
        for k, token in enumerate(tokens):
            if token.kind in ("special", "json"):
                what = token.text if token.kind == "special" else "%json"
                if is_terminal or head.kind != "name" or k < body:
                    raise ConstraintSyntaxError(
                        f"{what} can only stand in a rule", source=self._source, offset=token.start
                    )
                self._extra(token)
        if is_terminal and any(_is_operator(tokens, k) for k in range(body, len(tokens))):
            for k in range(body, len(tokens)):
                if _is_operator(tokens, k):
                    self._plain.append((tokens[k].start, tokens[k].end, " "))
            written = _Definition(self._source, tokens[body:]).written()
            if written is not None:
                self._edits.append((tokens[body].start, tokens[-1].end, f" {written}"))

    def _extra(self, token: _Token) -> None:
        if token.kind == "special":
            name = self._name("SPECIAL", token.text)
            self._tokens.setdefault(name, (token.text, token.start))
        else:
            name = self._names[_skipped(self._source, token.start + len("%json"))]
        self._edits.append((token.start, token.end, f" {name} "))
        first, *others = token.text.split("\n")
        lines = [f'"{"x" * (len(first) - 2)}"', *(" " * len(line) for line in others)]
        self._plain.append((token.start, token.end, "\\\n".join(lines)))


def _is_operator(tokens: list[_Token], k: int) -> bool:
    """Is this & or the complement?  A ~ before a number repeats."""
    text = tokens[k].text
    return text == "&" or (text == "~" and (k + 1 == len(tokens) or tokens[k + 1].kind != "number"))


def _edited(source: str, edits: list[tuple[int, int, str]]) -> str:
    pieces = []
    at = 0
    for start, end, text in sorted(edits):
        pieces += [source[at:start], text]
        at = end
    return "".join((*pieces, source[at:]))


class _Definition:
    """What a terminal is defined as, with marks in place of the operators."""

    def __init__(self, source: str, tokens: list[_Token]) -> None:
        self._source, self._tokens, self._at = source, tokens, 0

    def written(self) -> str | None:
        """None: its brackets do not match, which Lark is to say."""
        text = self._alternatives(0)
        return text if self._at == len(self._tokens) else None

    @property
    def _next(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1].text

    def _alternatives(self, depth: int) -> str:
        if depth > _MOST_NESTED:
            raise ConstraintSyntaxError(
                "a terminal is nested too deeply", source=self._source, offset=self._tokens[self._at - 1].start
            )
        parts = [self._conjunction(depth)]
        while self._next == "|":
            self._take()
            parts.append(self._conjunction(depth))
        return " | ".join(parts)

    def _conjunction(self, depth: int) -> str:
        parts = [self._sequence(depth)]
        while self._next == "&":
            if not parts[-1]:
                self._refuse("there is nothing before &", self._at)
            self._take()
            parts.append(self._sequence(depth))
            if not parts[-1]:
                self._refuse("there is nothing behind &", self._at - 1)
        if len(parts) == 1:
            return parts[0]
        return f'"{OPEN}" ' + f' "{AND}" '.join(parts) + f' "{CLOSE}"'

    def _sequence(self, depth: int) -> str:
        parts = []
        while self._next not in ("", "|", "&", ")", "]"):
            parts.append(self._expression(depth))
        return " ".join(parts)

    def _expression(self, depth: int) -> str:
        if _is_operator(self._tokens, self._at):  # & does not come here
            self._take()
            if self._next in ("", "|", "&", ")", "]"):
                self._refuse("there is nothing behind ~", self._at - 1)
            return f'"{OPEN}{NOT}" {self._expression(depth + 1)} "{CLOSE}"'
        is_group = self._tokens[self._at].kind in ("name", "regexp")
        text = self._take()
        if text in ("(", "["):
            text += self._alternatives(depth + 1)
            if self._next:
                text += self._take()
        if self._next == "..":
            text += self._take()
            if self._next:
                text += self._take()
            is_group = False
        if self._next in ("?", "*", "+"):
            text += self._take()
        elif self._next == "~" and not _is_operator(self._tokens, self._at):
            text += self._take() + self._take()
            if self._next == "..":
                text += self._take()
                if self._next:
                    text += self._take()
        elif is_group:  # Lark joins patterns as they are: /a|b/ "c" would be a or bc
            text += "~1"
        return text

    def _refuse(self, why: str, at: int) -> None:
        raise ConstraintSyntaxError(why, source=self._source, offset=self._tokens[at].start)


# -- places in a schema -----------------------------------------------------------------------------------------------


def pointer_offset(source: str, at: int, pointer: str) -> int:
    """The offset of what a JSON pointer names in the JSON value that begins at `at` (as far as it can be followed)."""
    decoder = json.JSONDecoder()
    for part in pointer.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        opening, position, found = source[at], _skipped(source, at + 1), -1
        index = 0
        while opening in "{[" and source[position] not in "}]":
            key: Any = str(index)
            if opening == "{":
                key, position = decoder.raw_decode(source, position)
                position = _skipped(source, _skipped(source, position) + 1)  # the colon
            if key == name:
                found = position  # of equal keys the last one counts
            position = _skipped(source, decoder.raw_decode(source, position)[1])
            if source[position] == ",":
                position = _skipped(source, position + 1)
            index += 1
        if found < 0:
            break
        at = found
    return at


def _skipped(source: str, at: int) -> int:
    """The offset behind whitespace."""
    while at < len(source) and source[at] in " \t\r\n":
        at += 1
    return at
