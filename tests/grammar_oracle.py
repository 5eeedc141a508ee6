"""What a grammar's language is, by other means than the engine's.

`LarkOracle` asks `lark.Lark` with the same options. `CfgOracle` decides the scannerless language: lark loads the
grammar, and spans of the text are joined bottom-up until nothing new is found. There a terminal may be any span that
its regex can be made to match from end to end, with look-arounds that see the whole text, and ignored terminals may
stand before, between and after terminals.

A verdict is None where lark ends in an exception that is no refusal; these are counted by name in `odd`. One of them
says that the text does parse: Earley with a dynamic lexer finds two solutions where ignored text at the end might also
be the last terminal (``start: "a" | "a" "b"``, ``%ignore "b"``), and stops because they are two (`TWO_SOLUTIONS`).
"""

from __future__ import annotations

import functools
import itertools
import random
import re
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import lark
from lark.exceptions import LarkError, UnexpectedInput
from lark.indenter import DedentError, Indenter
from lark.lexer import ContextualLexer

from tests.grammar_strategies import LALR, Case, Indentation

__all__ = [
    "CfgOracle",
    "DynamicModel",
    "LarkOracle",
    "TextMaker",
    "indenter",
    "load",
    "loads",
    "oracle_of",
    "texts_over",
]

try:  # lark falls back on it for patterns that `re` cannot parse
    from regex import error as _RegexError
except ImportError:
    _RegexError = re.error
TWO_SOLUTIONS = "Earley should not generate multiple start symbol items"
REFUSALS = (LarkError, re.error, _RegexError, FileNotFoundError)
"""How lark refuses a grammar."""
CRASHES = (AssertionError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""How it ends for grammars that nobody foresaw."""


def indenter(of: Indentation) -> Indenter:
    """A lark indenter with these fields."""
    fields = {
        "NL_type": of.newline,
        "INDENT_type": of.indent,
        "DEDENT_type": of.dedent,
        "OPEN_PAREN_types": list(of.opening),
        "CLOSE_PAREN_types": list(of.closing),
        "tab_len": of.tab,
    }
    made: Indenter = type("OfFields", (Indenter,), fields)()
    return made


def load(case: Case, **options: Any) -> lark.Lark:
    """Lark's parser of a case (scannerless ones as `dynamic`), without its search for terminals that collide.

    That search only logs, takes long, and fails for some patterns that `re` takes.
    """
    options = {**case.options, **options}
    if case.lexer == "scannerless":
        options |= {"lexer": "dynamic", "parser": "earley"}
    if options["parser"] == "earley":
        options.setdefault("ambiguity", "forest")  # trees cost time, and whether there is one is all that is asked
    if case.indentation is not None:
        options["postlex"] = indenter(case.indentation)
    with warnings.catch_warnings(), mock.patch("lark.lexer.has_interegular", False):
        warnings.simplefilter("ignore")
        return lark.Lark(case.grammar, maybe_placeholders=False, **options)


def loads(case: Case) -> bool:
    """Does lark take the grammar?"""
    try:
        load(case)
    except (*REFUSALS, *CRASHES):
        return False
    return True


class LarkHangsError(Exception):
    """Lark does not come to an end."""


class LarkOracle:
    """Lark's verdicts.

    Attributes:
        refused: lark's error for the grammar, "" if it takes it.
        unusable: lark takes the grammar, but fails in an odd way while loading, or cannot build all of its scanners.
        odd: exceptions of `parse` that are no refusals, by name, each with the first text.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.refused = self.unusable = ""
        self.odd: Counter[str] = Counter()
        self.odd_texts: dict[str, str] = {}
        self.lark: Any = None
        self._known: dict[str, bool | None] = {}
        self._may_hang = False
        try:
            self.lark = load(case)
        except REFUSALS as error:
            self.refused = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        except CRASHES as error:
            self.unusable = f"{type(error).__name__} of lark: {error}"[:100]
        else:
            if self.lark.parser.lexer_conf.lexer_type in LALR:
                self._build_scanners()
            self._may_hang = case.lexer in LALR and any(r.options.priority is not None for r in self.lark.rules)

    def _build_scanners(self) -> None:
        """Lark compiles the union of a lexer's terminals when it is first used; it may fail then."""
        lexer = self.lark.parser.lexer
        lexer = getattr(lexer, "lexer", lexer)  # behind an indenter
        lexers: list[Any] = list(lexer.lexers.values()) if isinstance(lexer, ContextualLexer) else [lexer]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for one in lexers:
                    one.scanner  # noqa: B018  # built on first use
        except re.error as error:
            self.unusable = f"scanner: {error}"

    def parses(self, text: str) -> bool | None:
        if text not in self._known:
            self._known[text] = self._parses(text)
        return self._known[text]

    def _parses(self, text: str) -> bool | None:
        try:
            if self._may_hang:
                self._parse_in_time(text)
            else:
                self.lark.parse(text)
        except (UnexpectedInput, DedentError):
            return False
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001  # lark's own faults are counted, whatever they are
            name = f"{type(error).__name__}: {re.sub(r'[0-9]+', 'N', str(error))[:60]}"
            self.odd[name] += 1
            self.odd_texts.setdefault(name, text)
            return True if TWO_SOLUTIONS in str(error) else None
        return True

    def _parse_in_time(self, text: str) -> None:
        """Parse, but not for ever: with priorities, LALR tables may reduce in circles (``a: b``, ``b.2: a``)."""
        if self.odd["LarkHangsError: "] > 2:
            raise LarkHangsError

        def stop(*_: Any) -> None:
            raise LarkHangsError

        handler = signal.signal(signal.SIGVTALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.4)
        try:
            self.lark.parse(text)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, handler)

    @functools.cached_property
    def patterns(self) -> dict[str, re.Pattern[str]]:
        """The terminals' regexes, by name."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {t.name: re.compile(t.pattern.to_regexp(), self.case.flags) for t in self.lark.terminals}


class CfgOracle(LarkOracle):
    """The context-free language: terminals wherever they can be, not where a lexer would find them."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        if self.lark is None:
            return
        self.rules = [(r.origin.name, [(s.is_term, s.name) for s in r.expansion]) for r in self.lark.rules]
        self.ignored = sorted(set(self.lark.ignore_tokens))
        used = {name for _, body in self.rules for is_terminal, name in body if is_terminal}
        self.used = sorted(used)
        self._known_matches: dict[tuple[str, str, int, int], bool] = {}
        self._endings: dict[tuple[str, int], re.Pattern[str]] = {}
        self._ignoring = False

    def _rows(self, terminal: str, text: str) -> list[int]:
        """For each start the ends of a match, as bits."""
        n = len(text)
        if terminal not in self.patterns:  # it is only declared
            return [0] * (n + 1)
        return [sum(1 << j for j in range(i + 1, n + 1) if self._matches(terminal, text, i, j)) for i in range(n + 1)]

    def _matches(self, terminal: str, text: str, i: int, j: int) -> bool:
        """May the terminal be ``text[i:j]``?"""
        if not self._looks[terminal]:
            text, i, j = text[i:j], 0, j - i
        key = (terminal, text, i, j)
        if key not in self._known_matches:
            matched = self._ending(terminal, len(text) - j).match(text, i)
            self._known_matches[key] = matched is not None
        return self._known_matches[key]

    @functools.cached_property
    def _looks(self) -> dict[str, bool]:
        """Might the terminal look at what is around it?  Possessive quantifiers and atomic groups do."""
        looks = re.compile(r"\(\?<?[=!]|\\[bBAZ]|[$^]|\(\?>|[*+?}]\+")
        return {name: looks.search(p.pattern) is not None for name, p in self.patterns.items()}

    def _ending(self, terminal: str, rest: int) -> re.Pattern[str]:
        """The terminal's regex, made to end where so many characters are left."""
        key = (terminal, rest)
        if key not in self._endings:
            pattern = self.patterns[terminal]
            inside = re.sub(r"^\(\?[aimsux]+\)", "", pattern.pattern)  # flags are global: they are in pattern.flags
            line_end = "\n" if pattern.flags & re.X else ""  # a comment ends there
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._endings[key] = re.compile(rf"(?:{inside}{line_end})(?=(?s:.{{{rest}}})\Z)", pattern.flags)
        return self._endings[key]

    def _parses(self, text: str) -> bool:
        n = len(text)
        skip = [1 << i for i in range(n + 1)]  # spans of ignored text, closed below
        self._ignoring = True
        single = [self._rows(name, text) for name in self.ignored]
        self._ignoring = False
        for i in range(n, -1, -1):
            for rows in single:
                skip[i] |= _through(rows[i], skip)
        terminals = {name: [_through(row, skip) for row in self._rows(name, text)] for name in self.used}
        spans = {origin: [0] * (n + 1) for origin, _ in self.rules}
        changed = True
        while changed:
            changed = False
            for origin, body in self.rules:
                mine = spans[origin]
                parts = [terminals[name] if is_terminal else spans[name] for is_terminal, name in body]
                for i in range(n + 1):
                    row = 1 << i
                    for part in parts:
                        row = _through(row, part)
                        if not row:
                            break
                    if row & ~mine[i]:
                        mine[i] |= row
                        changed = True
        return bool(_through(skip[0], spans[self.case.start]) >> n & 1)


class DynamicModel(CfgOracle):
    """Lark's dynamic lexers in a few lines: the same spans, but terminals only where `re` finds them.

    A terminal at a place ends where ``pattern.match(text, place)`` ends. With "dynamic_complete" it may also end where
    the pattern ends when it is matched against the text of that match alone, cut short by one character or more: there
    look-behinds, ``\\b`` and ``^`` see the beginning of a text, look-aheads and ``$`` its end. Ignored terminals have
    but the one end with either lexer.
    """

    def _rows(self, terminal: str, text: str) -> list[int]:
        pattern = self.patterns.get(terminal)
        if pattern is None:  # it is only declared (lark fails where it looks for it)
            return [0] * (len(text) + 1)
        rows = []
        for place in range(len(text) + 1):
            ends = set()
            match = pattern.match(text, place)
            if match is not None:
                ends.add(match.end())
                if self.case.lexer == "dynamic_complete" and not self._ignoring:
                    whole = match.group()
                    cut = [pattern.match(whole[:k]) for k in range(1, len(whole))]
                    ends |= {place + shorter.end() for shorter in cut if shorter is not None}
            rows.append(sum(1 << end for end in ends if end > place))
        return rows


def _through(row: int, rows: list[int]) -> int:
    """The union of `rows` at the bits of `row`."""
    out = 0
    while row:
        low = row & -row
        out |= rows[low.bit_length() - 1]
        row ^= low
    return out


def oracle_of(case: Case) -> LarkOracle:
    return CfgOracle(case) if case.lexer == "scannerless" else LarkOracle(case)


# -- texts -------------------------------------------------------------------------------------------------------------


def texts_over(letters: str, longest: int) -> Iterator[str]:
    """All texts of at most `longest` letters, short ones first."""
    for length in range(longest + 1):
        for text in itertools.product(letters, repeat=length):
            yield "".join(text)


class TextMaker:
    """Texts by random derivations: most of them parse, and no engine had a hand in them."""

    def __init__(self, oracle: LarkOracle, rng: random.Random, *, longest: int = 24) -> None:
        self.oracle, self.rng, self.longest = oracle, rng, longest
        letters = oracle.case.letters
        samples = list(texts_over(letters, {1: 6, 2: 5, 3: 4}.get(len(letters), 3)))
        self.words: dict[str, list[str]] = {}
        for name, pattern in oracle.patterns.items():
            found = {text for text in samples if pattern.fullmatch(text)}
            for text in samples:  # what look-arounds want around a match
                for at in (0, 1):
                    match = pattern.match(text, at) if at <= len(text) else None
                    if match is not None and match.end() > at:
                        found.add(match.group())
            self.words[name] = sorted(found - {""}, key=lambda text: (len(text), text))
        self.rules: dict[str, list[list[tuple[bool, str]]]] = {}
        for rule in oracle.lark.rules:
            self.rules.setdefault(rule.origin.name, []).append([(s.is_term, s.name) for s in rule.expansion])
        self.ignored = [word for name in oracle.lark.ignore_tokens for word in self.words.get(name, ())][:40]
        self.height = self._heights()

    def _heights(self) -> dict[str, int]:
        """The least height of a derivation of each rule that has one."""
        heights: dict[str, int] = {}
        for height in range(len(self.rules) + 1):
            for name, bodies in self.rules.items():
                if name not in heights and any(self._lowest(body, heights) <= height for body in bodies):
                    heights[name] = height + 1
        return heights

    def _lowest(self, body: list[tuple[bool, str]], heights: dict[str, int]) -> int:
        declared = {"_INDENT", "_DEDENT"} if self.oracle.case.indentation else set()
        highs = [
            (0 if self.words.get(name) or name in declared else 10**6) if is_terminal else heights.get(name, 10**6)
            for is_terminal, name in body
        ]
        return max(highs, default=0)

    def text(self) -> str | None:
        """A text, or None if this try led nowhere."""
        start = self.oracle.case.start
        if start not in self.height:
            return None
        out: list[str] = []
        length = 0
        todo = [(False, start)]
        for _ in range(300):
            if not todo:
                text = "".join(out)
                return text if len(text) <= self.longest else None
            is_terminal, name = todo.pop()
            if is_terminal:
                words = self.words.get(name) or [""]
                word = words[min(int(self.rng.expovariate(0.4)), len(words) - 1)]
                out += [self._gap(), word]
                length += len(word)
            else:
                bodies = [body for body in self.rules[name] if self._lowest(body, self.height) < 10**6]
                if length + len(todo) > self.longest // 2:  # head for the end
                    least = min(self._lowest(body, self.height) for body in bodies)
                    bodies = [body for body in bodies if self._lowest(body, self.height) == least]
                todo += reversed(self.rng.choice(bodies))
        return None

    def _gap(self) -> str:
        return self.rng.choice(self.ignored) if self.ignored and self.rng.random() < 0.15 else ""
