"""Lark grammar + vocabulary -> token automaton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Literal as OneOf

import numpy as np
from numpy.typing import NDArray

from outlines_core import control
from outlines_core.compile import compile_json_schema, kept_core
from outlines_core.errors import ConstraintSyntaxError, UnsatisfiableError, UnsupportedFeatureError
from outlines_core.grammar.composed import ComposedRecogniser, UnionRecogniser
from outlines_core.grammar.configurations import ConfigurationDfa
from outlines_core.grammar.dialect import Extended, pointer_offset, read_extended
from outlines_core.grammar.earley import EarleyRecogniser
from outlines_core.grammar.indentation import Indentation
from outlines_core.grammar.lexed import LexedRecogniser
from outlines_core.grammar.loading import Grammar, Terminal
from outlines_core.grammar.ordered import OrderedDfa
from outlines_core.grammar.postlex import ForLark, PostLex, PostLexing
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.stacks import Stacks
from outlines_core.grammar.stored import load_stored, stored_machine
from outlines_core.grammar.viability import all_stacks_live
from outlines_core.grammar.worlds import LexedMachine
from outlines_core.grammar_composed import core_over
from outlines_core.grammar_core import StackedRecogniser
from outlines_core.index import GrammarAutomaton
from outlines_core.json_value import JsonValue
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Node
from outlines_core.regex.nfa import Graph
from outlines_core.regex.parser import parse
from outlines_core.regex_core import RegexCore
from outlines_core.vocabulary import Vocabulary

__all__ = ["compile_grammar"]


def compile_grammar(
    grammar: str,
    vocab: Vocabulary,
    *,
    start: str | Sequence[str] = "start",
    parser: str | None = None,
    lexer: OneOf["contextual", "basic", "dynamic", "dynamic_complete", "scannerless"] = "contextual",
    postlex: Any = None,
    g_regex_flags: int = 0,
    import_paths: Sequence[Any] = (),
    dialect: OneOf["lark", "extended"] = "lark",
    limits: Limits | None = None,
) -> GrammarAutomaton:
    """The token automaton of all texts that Lark parses with a grammar.

    Args:
        grammar: a Lark grammar.
        vocab: the tokens that spell the text.
        start: the rule that a text is, or several of them.
        parser: "lalr" or "earley"; None: what goes with the lexer.
        lexer: Lark's "contextual", "basic", "dynamic" and "dynamic_complete"; "scannerless" is the context-free
            language itself, whichever way a text falls into terminals.
        postlex: a `lark.indenter.Indenter`, for blocks by indentation, or a `grammar.postlex.PostLex`.
        g_regex_flags: flags of `re` for all terminals.
        import_paths: where `%import` looks for other grammars.
        dialect: "extended" has besides what Lark has: ``&`` and ``~`` in terminals, special tokens and ``%json`` in
            rules (docs/grammars.md).
        limits: what it may cost.

    Raises:
        ConstraintSyntaxError: what Lark refuses, in its words.
        UnsupportedFeatureError: what cannot be enforced, with `.feature`.
        UnsatisfiableError: no text at all.  IncompatibleVocabularyError: none can be spelled.
        LimitExceededError: the grammar is too large.
    """
    if not isinstance(grammar, str):
        raise TypeError(f"a grammar must be a str, not {type(grammar).__name__}")
    if not isinstance(vocab, Vocabulary):
        raise TypeError(f"expected an outlines_core.Vocabulary, got {type(vocab).__name__}")
    if dialect not in ("lark", "extended"):
        raise ValueError(f'dialect must be "lark" or "extended", not {dialect!r}')
    starts = (start,) if isinstance(start, str) else tuple(start)
    if not starts or not all(isinstance(one, str) for one in starts):
        raise TypeError(f"start must be the name of a rule or several of them, not {start!r}")
    limits_ = limits or DEFAULT_LIMITS
    options = (starts, parser, lexer, _identity(postlex), int(g_regex_flags), tuple(map(str, import_paths)), dialect)
    key: tuple[Any, ...] = ("grammar", grammar, *options, limits_, vocab.fingerprint)
    if dialect == "extended":
        key = (*key, tuple(sorted(vocab.special_tokens.items())))

    def make() -> RegexCore:
        extended = read_extended(grammar) if dialect == "extended" else None
        loaded = load_stored(
            grammar,
            start=starts,
            parser=parser,
            lexer=lexer,
            postlex=ForLark(postlex) if isinstance(postlex, PostLex) else postlex,
            g_regex_flags=g_regex_flags,
            import_paths=import_paths,
            extended=extended,
            limits=limits_,
        )
        return _Compiler(loaded, extended, lexer, postlex, vocab.snapshot(), _label(grammar), key, limits_).core()

    core = kept_core(key, limits_, make)
    rebuild = {
        "start": start,
        "parser": parser,
        "lexer": lexer,
        "postlex": postlex,
        "g_regex_flags": g_regex_flags,
        "import_paths": tuple(import_paths),
        "dialect": dialect,
        "limits": limits,
    }
    return GrammarAutomaton(core, (_recompile, (grammar, core.vocabulary, rebuild)))


def _recompile(grammar: str, vocab: Vocabulary, options: dict[str, Any]) -> GrammarAutomaton:
    return compile_grammar(grammar, vocab, **options)


def _identity(postlex: Any) -> Any:
    """What of an indenter makes a difference."""
    if isinstance(postlex, PostLex):
        return postlex
    names = ("NL_type", "INDENT_type", "DEDENT_type", "OPEN_PAREN_types", "CLOSE_PAREN_types", "tab_len")
    return None if postlex is None else (type(postlex), repr([getattr(postlex, name, None) for name in names]))


def _label(grammar: str) -> str:
    first = " ".join(grammar.split())
    return f"the grammar {first if len(first) <= 60 else f'{first[:57]}...'!r}"


def terminal_nodes(terminals: Sequence[Terminal], limits: Limits) -> list[Node | Graph | None]:
    """The patterns of terminals.

    Raises:
        ConstraintSyntaxError, UnsupportedFeatureError: of a pattern; the message names the terminal.
    """
    nodes: list[Node | Graph | None] = []
    for terminal in terminals:
        try:
            if terminal.graph is not None or terminal.regexp is None:
                nodes.append(terminal.graph)
            else:
                nodes.append(parse(terminal.regexp, flags=terminal.flags, limits=limits))
        except UnsupportedFeatureError as error:
            raise UnsupportedFeatureError(
                f"terminal {terminal.name}: {error}", feature=error.feature, path=terminal.name
            ) from error
        except ConstraintSyntaxError as error:
            raise ConstraintSyntaxError(f"terminal {terminal.name}: {error}") from error
    return nodes


class _Compiler:
    """From loaded grammars, one for each start, to a core."""

    def __init__(
        self, grammars: tuple[Grammar, ...], extended: Extended | None, lexer: str, postlex: Any,
        vocabulary: Vocabulary, label: str, key: Any, limits: Limits,
    ) -> None:  # fmt: skip
        self._lexer, self._postlex, self._vocabulary = lexer, postlex, vocabulary
        self._label, self._key, self._limits = label, key, limits
        self._codes: dict[bytes, str] = {}
        self._spelled = vocabulary
        self._values: list[JsonValue] = []
        self._value_codes: list[bytes] = []
        self._unusable: UnsatisfiableError | None = None
        graphs: dict[str, Graph | None] = {}
        if extended is not None and (extended.tokens or extended.schemas):
            graphs = {**self._special_tokens(extended), **self._json_values(extended)}
        self._grammars = [
            grammar._replace(
                terminals=tuple(
                    t._replace(graph=graphs[t.name], regexp=None) if t.name in graphs else t for t in grammar.terminals
                )
            )
            for grammar in grammars
        ]

    def _special_tokens(self, extended: Extended) -> dict[str, Graph]:
        """The terminals that stand for special tokens."""
        ids = {
            name: control.resolve(written, self._vocabulary, extended.source, offset)
            for name, (written, offset) in extended.tokens.items()
        }
        owner: dict[int, str] = {}
        for name, (written, offset) in extended.tokens.items():
            for i in ids[name]:
                other = extended.tokens[owner.setdefault(i, name)][0]
                if other != written:
                    raise UnsupportedFeatureError(
                        f"{other} and {written} name the same token",
                        feature="overlapping special tokens",
                        source=extended.source,
                        offset=offset,
                    )
        codes = dict(zip(owner, control.codes_for(len(owner)), strict=True))
        names = {i: name for name, i in self._vocabulary.special_tokens.items()}
        self._codes = {code: names.get(i, f"<[{i}]>") for i, code in codes.items()}
        self._spelled = control.with_codes(self._vocabulary, codes)
        return {name: _graph_of([codes[i] for i in mine]) for name, mine in ids.items()}

    def _json_values(self, extended: Extended) -> dict[str, Graph | None]:
        """The terminals that stand for JSON values; None: no value at all satisfies the schema."""
        graphs: dict[str, Graph | None] = {}
        codes = control.value_codes(len(extended.schemas))
        for code, (name, (schema, at)) in zip(codes, extended.schemas.items(), strict=True):
            try:
                automaton = compile_json_schema(schema, self._vocabulary, limits=self._limits)
            except UnsatisfiableError as error:
                self._unusable = error
                graphs[name] = None
                continue
            except (ConstraintSyntaxError, UnsupportedFeatureError) as error:
                source = extended.source
                offset = pointer_offset(source, at, error.path)
                if isinstance(error, ConstraintSyntaxError):
                    raise ConstraintSyntaxError(
                        f"%json: {error}", source=source, offset=offset, path=error.path
                    ) from error
                raise UnsupportedFeatureError(
                    f"%json: {error}", feature=error.feature, path=error.path, source=source, offset=offset
                ) from error
            self._values.append(JsonValue(automaton._core))
            self._value_codes.append(code)
            graphs[name] = _graph_of([code])
        return graphs

    def core(self) -> RegexCore:
        """Raises UnsatisfiableError: no start has any text."""
        dfas = []
        empty = None
        for grammar in self._grammars:
            try:
                dfas.append(self._dfa_of(grammar))
            except UnsatisfiableError as error:
                empty = error
        if not dfas:
            assert empty is not None
            raise self._unusable or empty
        dfa = dfas[0] if len(dfas) == 1 else self._over(UnionRecogniser(dfas), dfas)
        if self._values:
            dfa = self._over(ComposedRecogniser(dfa, self._values, self._value_codes), [dfa])
        core = core_over(dfa, self._spelled, self._label, self._key)
        core.vocabulary, core.codes = self._vocabulary, self._codes
        return core

    def _over(
        self, recogniser: UnionRecogniser | ComposedRecogniser, parts: list[ConfigurationDfa]
    ) -> ConfigurationDfa:
        used = np.any([part.used for part in parts], axis=0)
        return ConfigurationDfa(recogniser, recogniser.byte_class(), used, self._limits)

    def _dfa_of(self, grammar: Grammar) -> ConfigurationDfa:
        lexer, limits = self._lexer, self._limits
        postlex: Indentation | PostLexing | None = None
        if isinstance(self._postlex, PostLex):
            postlex = PostLexing(self._postlex, grammar.terminals)
        elif self._postlex is not None:
            postlex = Indentation(self._postlex, grammar.terminals)
        recogniser: StackedRecogniser | LexedRecogniser | EarleyRecogniser
        if grammar.tables is not None and not isinstance(postlex, PostLexing):
            indentation = postlex
            proved = stored_machine(grammar, postlex, limits, lambda: self._proved(grammar, indentation))
            if isinstance(proved, Separation):
                recogniser = StackedRecogniser(proved.machine, proved, limits)
                used = self._used(proved.machine.dfa)
                return ConfigurationDfa(recogniser, proved.machine.byte_class(), used, limits)
            ordered = proved
        else:
            ordered = self._ordered(grammar)
        if grammar.lexers:
            recogniser = LexedRecogniser(grammar, ordered, postlex)
        else:
            recogniser = EarleyRecogniser(grammar, ordered, lexer)
        if recogniser.initial is None:
            name = str(grammar.nonterminals[grammar.start])
            raise UnsatisfiableError(f"no text at all is in the language of the grammar (start {name!r})")
        return ConfigurationDfa(recogniser, recogniser.byte_class(), self._used(ordered), limits)

    def _ordered(self, grammar: Grammar) -> OrderedDfa:
        nodes = terminal_nodes(grammar.terminals, self._limits)
        return OrderedDfa(nodes, self._limits, is_ordered=self._lexer != "scannerless")

    def _proved(self, grammar: Grammar, indentation: Indentation | None) -> Separation | OrderedDfa:
        """The proof that the lexer lets the parser through; the lexer alone if there is none."""
        assert grammar.tables is not None
        ordered = self._ordered(grammar)
        machine = LexedMachine(grammar, ordered, Stacks(grammar.tables, grammar.rules), indentation)
        separation = Separation(machine)
        holds = separation.lets_through and all_stacks_live(machine.grammar, separation.unreadable())
        return separation if holds else ordered

    def _used(self, ordered: OrderedDfa) -> NDArray[np.bool_]:
        """(256,) bool: bytes of texts."""
        used = ordered.bytes_read()
        if self._codes or self._value_codes:
            used[[*control.PRIVATE]] = False  # they come together, as a token or value
        return used


def _graph_of(texts: Sequence[bytes]) -> Graph:
    """The automaton of some byte strings of one length."""
    numbers: dict[bytes, int] = {b"": 0}
    rows: list[list[tuple[int, int, int]]] = [[]]
    for text in sorted(texts):
        for k, byte in enumerate(text):
            if text[: k + 1] not in numbers:
                numbers[text[: k + 1]] = len(rows)
                rows[numbers[text[:k]]].append((byte, byte, len(rows)))
                rows.append([])
    return Graph(rows, [state in (numbers[text] for text in texts) for state in range(len(rows))])
