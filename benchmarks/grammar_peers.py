"""A Lark grammar in the words of other engines, which have no look-around, no priorities and no keywords.

Rules are written as Lark has expanded them. Of the terminals look-around is dropped: a keyword may then be read where a
name can stand, and two words without a space between them. So the peers' language is a little larger than ours, and
their lexers have less to decide. `\\w` is ASCII there.
"""

from __future__ import annotations

import re
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

import lark

_WORD = {*map(ord, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")}
_DIGIT = {*map(ord, "0123456789")}
_SPACE = {*map(ord, " \t\n\r\f\v")}
_BEYOND = 128  # stands for all characters beyond ASCII
_ALL = {*range(_BEYOND + 1)}
_CATEGORIES = {
    sre.CATEGORY_WORD: _WORD,
    sre.CATEGORY_NOT_WORD: _ALL - _WORD,
    sre.CATEGORY_DIGIT: _DIGIT,
    sre.CATEGORY_NOT_DIGIT: _ALL - _DIGIT,
    sre.CATEGORY_SPACE: _SPACE,
    sre.CATEGORY_NOT_SPACE: _ALL - _SPACE,
}


def _characters(items: Any, ignore_case: bool) -> set[int]:
    found: set[int] = set()
    negated = False
    for kind, value in items:
        if kind is sre.NEGATE:
            negated = True
        elif kind is sre.LITERAL:
            found.add(min(value, _BEYOND))
        elif kind is sre.RANGE:
            found.update(range(value[0], min(value[1], _BEYOND) + 1))
        else:
            found |= _CATEGORIES[value]
    if ignore_case:
        found |= {ord(c) for x in found if x < _BEYOND for c in (chr(x).lower(), chr(x).upper())}
    return _ALL - found if negated else found


class _Writer:
    """Patterns as regexes without look-around (`gbnf`: as the right-hand sides of EBNF)."""

    def __init__(self, gbnf: bool) -> None:
        self.gbnf = gbnf
        self.space = " " if gbnf else ""
        self.beyond = "\\u0080-\\U0010FFFF"

    def pattern(self, text: str, flags: int = 0) -> str:
        return self._sequence(sre_parser.parse(text, flags), bool(flags & re.IGNORECASE))

    def _set(self, characters: set[int]) -> str:
        out, ordered = "", sorted(characters - {_BEYOND})
        while ordered:
            low = high = ordered.pop(0)
            while ordered and ordered[0] == high + 1:
                high = ordered.pop(0)
            out += f"\\x{low:02x}" + (f"-\\x{high:02x}" if high > low else "")
        return f"[{out}{self.beyond if _BEYOND in characters else ''}]"

    def _sequence(self, nodes: Any, ignore_case: bool) -> str:
        parts = [self._node(kind, value, ignore_case) for kind, value in nodes]
        return self.space.join(part for part in parts if part) or ('""' if self.gbnf else "")

    def _node(self, kind: Any, value: Any, ignore_case: bool) -> str:
        if kind is sre.LITERAL:
            return self._set(_characters([(kind, value)], ignore_case))
        if kind is sre.NOT_LITERAL:
            return self._set(_ALL - _characters([(sre.LITERAL, value)], ignore_case))
        if kind is sre.IN:
            return self._set(_characters(value, ignore_case))
        if kind is sre.ANY:
            return self._set(_ALL - {10})
        if kind is sre.SUBPATTERN:
            return self._group(self._sequence(value[3], ignore_case or bool(value[1] & re.IGNORECASE)))
        if kind is sre.BRANCH:
            return self._group("|".join(self._sequence(branch, ignore_case) for branch in value[1]))
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, inner = value
            times = {(0, sre.MAXREPEAT): "*", (1, sre.MAXREPEAT): "+", (0, 1): "?"}.get((low, high))
            times = times or f"{{{low},{'' if high is sre.MAXREPEAT else high}}}"
            return self._group(self._sequence(inner, ignore_case)) + times
        if kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            return ""
        raise ValueError(f"no translation of {kind}")

    def _group(self, text: str) -> str:
        return f"({text})" if self.gbnf else f"(?:{text})"


def _loaded(text: str, options: dict[str, Any]) -> Any:
    return lark.Lark(text, maybe_placeholders=False, **options)


def to_plain_lark(text: str, options: dict[str, Any]) -> str:
    """For llguidance and outlines, which read a part of Lark."""
    loaded, writer = _loaded(text, options), _Writer(gbnf=False)
    rules: dict[str, list[str]] = {}
    for rule in loaded.rules:
        symbols = [("T_" if s.is_term else "r_") + _plain(s.name) for s in rule.expansion]
        rules.setdefault("r_" + _plain(rule.origin.name), []).append(" ".join(symbols))
    lines = [f"start: r_{_plain(options['start'])}"]
    lines += [f"{name}: " + " | ".join(expansions) for name, expansions in rules.items()]
    for terminal in loaded.terminals:
        regex = writer.pattern(terminal.pattern.to_regexp()).replace("/", "\\/")
        ignored = terminal.name in loaded.ignore_tokens
        lines.append(f"%ignore /{regex}/" if ignored else f"T_{_plain(terminal.name).upper()}: /{regex}/")
    return "\n".join(lines) + "\n"


def to_ebnf(text: str, options: dict[str, Any]) -> str:
    """For xgrammar: what is ignored may stand behind each terminal."""
    loaded, writer = _loaded(text, options), _Writer(gbnf=True)
    rules: dict[str, list[str]] = {}
    for rule in loaded.rules:
        symbols = [("t_" if s.is_term else "r_") + _plain(s.name) for s in rule.expansion]
        rules.setdefault("r_" + _plain(rule.origin.name), []).append(" ".join(symbols) or '""')
    ignored, lines = [], [f"root ::= ws r_{_plain(options['start'])}"]
    lines += [f"{name} ::= " + " | ".join(expansions) for name, expansions in rules.items()]
    for terminal in loaded.terminals:
        pattern = writer.pattern(terminal.pattern.to_regexp())
        if terminal.name in loaded.ignore_tokens:
            ignored.append(pattern.removesuffix("+"))  # what follows repeats it, and twice would be ambiguous
        else:
            lines.append(f"t_{_plain(terminal.name)} ::= ({pattern}) ws")
    lines.append(f"ws ::= ({' | '.join(ignored)})*" if ignored else 'ws ::= ""')
    return "\n".join(lines) + "\n"


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)
