"""Lark reads the grammar; what the recognisers need of it, as plain tables.

Everything that Lark's grammar language offers (templates, imports, `%extend`, EBNF, priorities, names of anonymous
terminals) is Lark's own code: it compiles the grammar, builds the LALR table and orders the terminals of each lexer.
Only its search for terminals that may collide is left out, which says nothing about the language and takes seconds.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Sequence
from copy import copy
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

import lark
from lark.exceptions import LarkError, LexError, UnexpectedInput
from lark.lexer import BasicLexer, ContextualLexer, PatternStr
from lark.load_grammar import _parse_grammar
from lark.parsers.lalr_analysis import Shift
from lark.parsers.lalr_parser import LALR_Parser

from outlines_core.errors import ConstraintError, ConstraintSyntaxError, UnsupportedFeatureError
from outlines_core.grammar.booleans import Boolean, boolean, in_order, is_boolean
from outlines_core.grammar.dialect import SHOWN, Extended
from outlines_core.grammar.lalr import Analyzer
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.nfa import Graph

__all__ = ["END", "LEXERS", "Grammar", "LexerTable", "Rule", "Tables", "Terminal", "load_grammar", "load_grammars"]

_PATTERN_ERRORS: Final = (re.error, *([importlib.import_module("regex").error] if find_spec("regex") else []))
"""Of patterns; Lark asks the `regex` module, where it is installed, what `re` does not understand."""
END: Final = -1
"""Stands for the end of the text where terminals are numbered."""
LEXERS: Final = ("contextual", "basic", "dynamic", "dynamic_complete", "scannerless")
_PARSERS: Final = {"contextual": "lalr", "basic": "lalr"}
_CRASHES: Final = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""How Lark ends for grammars that it does not foresee."""
_LINE_TYPES: Final = ("NL_type", "INDENT_type", "DEDENT_type")
"""Fields of an indenter that name terminals, whether some rule uses them or not."""


class Terminal(NamedTuple):
    """One terminal.  `regexp`: its pattern as Lark gives it to `re`; None if it is only declared; or its `graph`."""

    name: str
    regexp: str | None
    flags: int
    is_text: bool
    graph: Graph | None = None


class Rule(NamedTuple):
    """``origin -> symbols``: terminals are numbers from 0 on, nonterminal n is ``-1 - n``."""

    origin: int
    symbols: tuple[int, ...]


class LexerTable(NamedTuple):
    """What one of Lark's lexers looks for.

    Attributes:
        order: terminals in order of preference.
        retyped: for a terminal, those texts that its matches become if they are equal to them.
    """

    order: tuple[int, ...]
    retyped: dict[int, tuple[int, ...]]

    def readable(self, ignored: frozenset[int]) -> set[int]:
        """The terminals that the parser may be given: what is ignored may only be what something else is retyped to."""
        kept = [t for t in self.order if t not in ignored]
        return {*kept, *(k for t in kept for k in self.retyped.get(t, ()))}


class Tables(NamedTuple):
    """A LALR(1) automaton.

    Attributes:
        actions: by state: terminal (or END) -> state shifted to, or ``-1 - rule``.
        gotos: by state: nonterminal -> state.
        start, end: states.
        lexer: by state: number of the lexer that reads the next terminal.
        has_conflicts: was a shift preferred to a reduction, or one reduction to another?
        is_pruned: were actions left out (`grammar.pruning`)?
    """

    actions: list[dict[int, int]]
    gotos: list[dict[int, int]]
    start: int
    end: int
    lexer: list[int]
    has_conflicts: bool
    is_pruned: bool = False


class Grammar(NamedTuple):
    """A loaded grammar.  `lexers` and `tables` are those of LALR; `start` is a nonterminal."""

    terminals: tuple[Terminal, ...]
    ignored: frozenset[int]
    rules: tuple[Rule, ...]
    nonterminals: tuple[str, ...]
    start: int
    lexers: tuple[LexerTable, ...]
    tables: Tables | None


# -- Lark's classes, less what takes long -----------------------------------------------------------------------------


class _Lexer(BasicLexer):
    """Lark's, without the search for colliding terminals; what is wrong with the terminals is kept in `error`."""

    error: LexError | None

    def __init__(self, conf: Any, comparator: Any = None) -> None:  # noqa: ARG002  # as Lark calls it
        self.error = None
        if not conf.skip_validation:
            self.error = _fault(conf)
            if self.error is not None:
                raise self.error
        conf = copy(conf)
        conf.skip_validation = True
        super().__init__(conf)


def _fault(conf: Any) -> LexError | None:
    """What Lark refuses in a lexer's terminals, in its words."""
    for t in conf.terminals:
        try:
            conf.re_module.compile(t.pattern.to_regexp(), conf.g_regex_flags)
        except conf.re_module.error:
            return LexError(f"Cannot compile token {t.name}: {t.pattern}")
        if t.pattern.min_width == 0:
            return LexError(f"Lexer does not allow zero-width terminals. ({t.name}: {t.pattern})")
    undefined = set(conf.ignore) - {t.name for t in conf.terminals}
    if undefined:
        return LexError(f"Ignore terminals are not defined: {undefined}")
    return None


class _Contextual(ContextualLexer):
    """Lark's, with one check of all terminals that some lexer uses in place of one a lexer."""

    BasicLexer = _Lexer

    def __init__(self, conf: Any, states: Any, always_accept: Any = ()) -> None:
        used = {name for accepts in states.values() for name in accepts} | set(conf.ignore) | set(always_accept)
        checked = copy(conf)
        checked.terminals = [t for t in conf.terminals if t.name in used]
        error = _fault(checked)
        if error is not None:
            raise error
        unchecked = copy(conf)
        unchecked.skip_validation = True
        super().__init__(unchecked, states, always_accept)


class _Parser(LALR_Parser):
    """Lark's, with `has_conflicts`."""

    def __init__(self, parser_conf: Any, debug: bool = False, strict: bool = False) -> None:
        analysis = Analyzer(parser_conf, debug=debug, strict=strict)
        analysis.compute_lalr()  # type: ignore[no-untyped-call]
        self._parse_table = analysis.parse_table
        self.parser_conf = parser_conf
        self.has_conflicts = analysis.has_conflicts


_PLUGINS: Final = {"BasicLexer": _Lexer, "ContextualLexer": _Contextual, "LALR_Parser": _Parser}


# -- loading ----------------------------------------------------------------------------------------------------------


def load_grammar(text: str, *, start: str = "start", **options: Any) -> Grammar:
    """The tables of a grammar with one start; see `load_grammars`."""
    return load_grammars(text, start=start, **options)[0]


def load_grammars(
    text: str,
    *,
    start: str | Sequence[str] = "start",
    parser: str | None = None,
    lexer: str = "contextual",
    postlex: Any = None,
    g_regex_flags: int = 0,
    import_paths: Sequence[Any] = (),
    extended: Extended | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Grammar, ...]:
    """The tables of a grammar, for each start.

    Args:
        text: the grammar.
        start: the rule that texts are made of, or several. They share one table and one lexer, as Lark has it.
        parser: "lalr", "earley" or "cyk"; None: what goes with the lexer.
        lexer: one of `LEXERS`.
        postlex: the object that Lark is to be given; only its `always_accept` is used here.
        g_regex_flags, import_paths: as Lark has them.
        extended: if the grammar is one of the extended dialect: `text`, read.
        limits: of terminals that are automata.

    Raises:
        ConstraintSyntaxError: what Lark refuses, in its words, with its place.
    """
    scannerless = lexer == "scannerless"
    if lexer not in LEXERS:
        raise ValueError(f"lexer must be one of {', '.join(LEXERS)}, not {lexer!r}")
    if parser is None:
        parser = _PARSERS.get(lexer, "earley")
    elif scannerless and parser != "earley":
        raise ConstraintSyntaxError(f"Parser {parser!r} does not support lexer 'scannerless', expected 'earley'")
    starts = [start] if isinstance(start, str) else list(start)
    try:
        loaded = lark.Lark(
            text if extended is None else extended.text,
            start=starts,
            parser=parser,
            lexer="dynamic" if scannerless else lexer,
            postlex=postlex,
            g_regex_flags=g_regex_flags,
            import_paths=list(import_paths),
            maybe_placeholders=False,
            _plugins=_PLUGINS,
        )
        return _tables(loaded, starts, lexer, g_regex_flags, postlex, limits, extended is not None)
    except ConstraintError:
        raise
    except UnexpectedInput as error:
        if extended is not None:
            _check_plain(extended)
        offset = getattr(error, "pos_in_stream", None)
        message = f"the grammar is not one of Lark's: {str(error).strip()}"
        raise ConstraintSyntaxError(message, source=text, offset=min(offset or 0, len(text))) from error
    except (LarkError, OSError, AssertionError, *_PATTERN_ERRORS) as error:
        if extended is not None:
            _check_plain(extended)
        why = (str(error).strip() or type(error).__name__).translate(SHOWN)
        offset = _place(why, text)
        message = f"Lark refuses the grammar: {why}"
        raise ConstraintSyntaxError(message, source="" if offset is None else text, offset=offset or 0) from error
    except _CRASHES as error:
        if _raised_in(error) == __file__:
            raise
        raise ConstraintSyntaxError(f"Lark fails on the grammar: {type(error).__name__}: {error}") from error


def _place(message: str, text: str) -> int | None:
    """The offset of the line and column that a message of Lark names, if it means this text and no imported one."""
    found = re.search(r"\bline (\d+),? column (\d+)(?: in (\S+):)?", message)
    lines = text.splitlines(keepends=True)
    if found is None or found[3] not in (None, "<string>") or int(found[1]) > len(lines):
        return None
    before = sum(map(len, lines[: int(found[1]) - 1]))
    return min(before + int(found[2]) - 1, len(text))


def _raised_in(error: BaseException) -> str:
    """The file of the code that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_code.co_filename


def _check_plain(extended: Extended) -> None:
    """Raise what Lark says of the syntax, with the place in the user's text."""
    try:
        _parse_grammar(extended.plain, "<string>")  # type: ignore[no-untyped-call]
    except (LarkError, AssertionError) as error:
        message = str(error).strip().split("\n")[0]
        place = re.search(r"line (\d+),? column (\d+)", message)
        line, column = (int(place[1]), int(place[2])) if place else (1, 1)
        source = extended.source
        before = sum(len(text) for text in source.splitlines(keepends=True)[: line - 1])
        raise ConstraintSyntaxError(
            f"Lark refuses the grammar: {message}", source=source, offset=min(before + column - 1, len(source))
        ) from error


def _tables(
    loaded: Any, starts: list[str], lexer: str, flags: int, postlex: Any, limits: Limits, has_operators: bool
) -> tuple[Grammar, ...]:
    number: dict[str, int] = {t.name: k for k, t in enumerate(loaded.terminals)}
    booleans = _booleans(loaded.terminals, flags, limits) if has_operators else {}
    terminals = [
        Terminal(
            str(t.name),  # Lark has Tokens here and there
            str(t.pattern.to_regexp()),
            flags,
            isinstance(t.pattern, PatternStr),
            booleans[t.name].graph if t.name in booleans else None,
        )
        for t in loaded.terminals
    ]
    declared = [symbol.name for rule in loaded.rules for symbol in rule.expansion if symbol.is_term]
    for name in [*declared, *(getattr(postlex, field, None) for field in _LINE_TYPES)]:
        if name is not None and name not in number:
            number[name] = len(terminals)
            terminals.append(Terminal(str(name), None, 0, is_text=False))
    nonterminals: dict[str, int] = {}
    for rule in loaded.rules:
        nonterminals.setdefault(rule.origin.name, len(nonterminals))

    def nonterminal(name: str) -> int:
        return nonterminals.setdefault(name, len(nonterminals))

    rules: list[Rule] = []
    rule_number: dict[Any, int] = {}

    def rule_of(rule: Any) -> int:
        known = rule_number.get(rule)
        if known is None:
            known = rule_number[rule] = len(rules)
            symbols = (number[s.name] if s.is_term else -1 - nonterminal(s.name) for s in rule.expansion)
            rules.append(Rule(nonterminal(rule.origin.name), tuple(symbols)))
        return known

    for rule in loaded.rules:
        rule_of(rule)
    ignored = frozenset(number[name] for name in loaded.ignore_tokens if name in number)
    lexers: list[LexerTable] = []

    def table_of(basic: Any) -> LexerTable:
        scanned = [t.name for t in basic.scanner.terminals]
        retyped = {name: [t.name for t in callback.scanner.terminals] for name, callback in basic.callback.items()}
        if booleans:
            scanned, retyped = in_order(basic.terminals, scanned, retyped, booleans)
        becomes = {number[name]: tuple(number[text] for text in texts) for name, texts in retyped.items()}
        return LexerTable(tuple(number[name] for name in scanned), becomes)

    source: Any = loaded.parser.lexer if lexer in ("contextual", "basic") else None
    if source is not None and postlex is not None:
        source = source.lexer
    if isinstance(loaded.parser.parser, _Parser):
        table: Any = loaded.parser.parser._parse_table
        actions: list[dict[int, int]] = []
        gotos: list[dict[int, int]] = []
        for state in range(len(table.states)):
            action: dict[int, int] = {}
            goto: dict[int, int] = {}
            for name, (kind, argument) in table.states[state].items():
                if name == "$END":
                    action[END] = argument if kind is Shift else -1 - rule_of(argument)
                elif name in number:
                    action[number[name]] = argument if kind is Shift else -1 - rule_of(argument)
                else:
                    goto[nonterminal(name)] = argument
            actions.append(action)
            gotos.append(goto)
        lexer_of = [0] * len(actions)
        if lexer == "contextual":
            known: dict[int, int] = {}
            for state in range(len(actions)):
                basic = source.lexers[state]
                if id(basic) not in known:
                    known[id(basic)] = len(lexers)
                    lexers.append(table_of(basic))
                lexer_of[state] = known[id(basic)]
        else:
            lexers.append(table_of(source))
        made: list[Tables | None] = [
            _restricted(actions, gotos, table.start_states[start], table.end_states[start])._replace(
                lexer=lexer_of, has_conflicts=loaded.parser.parser.has_conflicts
            )
            for start in starts
        ]
    else:
        made = [None for _ in starts]
        if source is not None:
            lexers.append(table_of(source))
    logging.getLogger(__name__).debug("loaded %d terminals, %d rules", len(terminals), len(rules))
    of_starts = [nonterminal(start) for start in starts]
    return tuple(
        Grammar(tuple(terminals), ignored, tuple(rules), tuple(map(str, nonterminals)), start, tuple(lexers), tables)
        for start, tables in zip(of_starts, made, strict=True)
    )


def _booleans(definitions: Sequence[Any], flags: int, limits: Limits) -> dict[str, Boolean]:
    """The terminals made with & and ~."""
    found = {}
    for t in definitions:
        regexp = t.pattern.to_regexp()
        if is_boolean(regexp):
            try:
                found[t.name] = boolean(regexp, flags, limits)
            except UnsupportedFeatureError as error:
                message = f"terminal {t.name}: {error}"
                raise UnsupportedFeatureError(message, feature=error.feature, path=t.name) from error
            if found[t.name].matches(""):
                raise LexError(f"Lexer does not allow zero-width terminals. ({t.name})")
    return found


def _restricted(actions: list[dict[int, int]], gotos: list[dict[int, int]], start: int, end: int) -> Tables:
    """The part of a table that can be reached from one of its starts; the other states are empty."""
    reached = {start}
    todo = [start]
    while todo:
        state = todo.pop()
        for target in (*actions[state].values(), *gotos[state].values()):
            if target >= 0 and target not in reached:
                reached.add(target)
                todo.append(target)
    return Tables(
        [row if state in reached else {} for state, row in enumerate(actions)],
        [row if state in reached else {} for state, row in enumerate(gotos)],
        start,
        end,
        [],
        has_conflicts=False,
    )
