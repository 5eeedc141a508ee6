"""Lark grammar + vocabulary -> token automaton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Literal as OneOf

import numpy as np

from outlines_core.compile import kept_core
from outlines_core.errors import ConstraintSyntaxError, UnsatisfiableError, UnsupportedFeatureError
from outlines_core.grammar.configurations import ConfigurationDfa
from outlines_core.grammar.earley import EarleyRecogniser
from outlines_core.grammar.indentation import Indentation
from outlines_core.grammar.lexed import LexedRecogniser
from outlines_core.grammar.loading import Grammar, Terminal, load_grammar
from outlines_core.grammar.ordered import OrderedDfa
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.stacks import Stacks
from outlines_core.grammar.viability import all_stacks_live
from outlines_core.grammar.worlds import LexedMachine
from outlines_core.grammar_core import GrammarCore, StackedRecogniser
from outlines_core.index import GrammarAutomaton
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Node
from outlines_core.regex.parser import parse
from outlines_core.regex_core import RegexCore
from outlines_core.vocabulary import Vocabulary

__all__ = ["compile_grammar"]


def compile_grammar(
    grammar: str,
    vocab: Vocabulary,
    *,
    start: str = "start",
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
        start: the rule that a text is.
        parser: "lalr" or "earley"; None: what goes with the lexer.
        lexer: Lark's "contextual", "basic", "dynamic" and "dynamic_complete"; "scannerless" is the context-free
            language itself, whichever way a text falls into terminals.
        postlex: a `lark.indenter.Indenter`, for blocks by indentation.
        g_regex_flags: flags of `re` for all terminals.
        import_paths: where `%import` looks for other grammars.
        dialect: "lark".
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
    if dialect != "lark":
        raise UnsupportedFeatureError(f"dialect {dialect!r} of Lark grammars", feature=f"dialect {dialect!r}")
    limits_ = limits or DEFAULT_LIMITS
    options = (start, parser, lexer, _identity(postlex), int(g_regex_flags), tuple(map(str, import_paths)))
    key = ("grammar", grammar, *options, limits_, vocab.fingerprint)

    def make() -> RegexCore:
        loaded = load_grammar(
            grammar,
            start=start,
            parser=parser,
            lexer=lexer,
            postlex=postlex,
            g_regex_flags=g_regex_flags,
            import_paths=import_paths,
        )
        return _core(loaded, (start, lexer, postlex), vocab.snapshot(), _label(grammar), key, limits_)

    core = kept_core(key, limits_, make)
    rebuild = (grammar, core.vocabulary, start, parser, lexer, postlex, g_regex_flags, tuple(import_paths), limits)
    return GrammarAutomaton(core, (_recompile, rebuild))


def _recompile(
    grammar: str, vocab: Vocabulary, start: str, parser: str | None, lexer: Any, postlex: Any, flags: int,
    import_paths: tuple[Any, ...], limits: Limits | None,
) -> GrammarAutomaton:  # fmt: skip
    return compile_grammar(
        grammar,
        vocab,
        start=start,
        parser=parser,
        lexer=lexer,
        postlex=postlex,
        g_regex_flags=flags,
        import_paths=import_paths,
        limits=limits,
    )


def _identity(postlex: Any) -> Any:
    """What of an indenter makes a difference."""
    names = ("NL_type", "INDENT_type", "DEDENT_type", "OPEN_PAREN_types", "CLOSE_PAREN_types", "tab_len")
    return None if postlex is None else (type(postlex), repr([getattr(postlex, name, None) for name in names]))


def _label(grammar: str) -> str:
    first = " ".join(grammar.split())
    return f"the grammar {first if len(first) <= 60 else f'{first[:57]}...'!r}"


def terminal_nodes(terminals: Sequence[Terminal], limits: Limits) -> list[Node | None]:
    """The patterns of terminals.

    Raises:
        ConstraintSyntaxError, UnsupportedFeatureError: of a pattern; the message names the terminal.
    """
    nodes: list[Node | None] = []
    for terminal in terminals:
        try:
            nodes.append(
                None if terminal.regexp is None else parse(terminal.regexp, flags=terminal.flags, limits=limits)
            )
        except UnsupportedFeatureError as error:
            raise UnsupportedFeatureError(
                f"terminal {terminal.name}: {error}", feature=error.feature, path=terminal.name
            ) from error
        except ConstraintSyntaxError as error:
            raise ConstraintSyntaxError(f"terminal {terminal.name}: {error}") from error
    return nodes


def _core(
    grammar: Grammar, options: tuple[Any, ...], vocabulary: Vocabulary, label: str, key: Any, limits: Limits
) -> RegexCore:
    start, lexer, postlex = options
    indentation = None if postlex is None else Indentation(postlex, grammar.terminals)
    nodes = terminal_nodes(grammar.terminals, limits)
    ordered = OrderedDfa(nodes, limits, is_ordered=lexer != "scannerless")
    used = np.array([ordered.reads(byte) for byte in range(256)], dtype=np.bool_)
    recogniser: LexedRecogniser | EarleyRecogniser
    if grammar.tables is not None:
        machine = LexedMachine(grammar, ordered, Stacks(grammar.tables, grammar.rules), indentation)
        separation = Separation(machine)
        if separation.lets_through and all_stacks_live(machine.grammar, separation.unreadable()):
            stacked = StackedRecogniser(machine, separation, limits)
            dfa = ConfigurationDfa(stacked, machine.byte_class(), used, limits)
            return GrammarCore(dfa, vocabulary, label, key)
    if grammar.lexers:
        recogniser = LexedRecogniser(grammar, ordered, indentation)
    else:
        recogniser = EarleyRecogniser(grammar, ordered, lexer)
    if recogniser.initial is None:
        raise UnsatisfiableError(f"no text at all is in the language of the grammar (start {start!r})")
    return RegexCore(ConfigurationDfa(recogniser, recogniser.byte_class(), used, limits), vocabulary, label, key)
