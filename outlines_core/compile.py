"""Constraint + vocabulary -> token automaton, with the compiled cores kept in memory.

Compiling is cheap: parse, lay out the NFA, done; states and masks come on first use. So what the cache saves is not
the compile step but the states and masks that earlier requests have visited: automata of one constraint and vocabulary
share one core. A core that has grown past a quarter of its limits is not handed out again, so that no request
inherits a table that others have filled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from typing import Literal as OneOf

from outlines_core.cache import LruCache
from outlines_core.errors import LimitExceededError, UnsatisfiableError
from outlines_core.index import RegexAutomaton
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Alternation, Empty, Literal, Node, Ranges
from outlines_core.regex.look_dfa import make_dfa
from outlines_core.regex.nfa import ByteNfa, build_nfa, nfa_of_graph
from outlines_core.regex.parser import parse
from outlines_core.regex.simplify import simplify
from outlines_core.regex_core import RegexCore
from outlines_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from interegular import FSM

__all__ = ["clear_cache", "compile_ast", "compile_choice", "compile_regex", "fsm_core", "regex_core"]

_ASSERTIONS: Final = ("^", "$", "(?", "+", r"\b", r"\B", r"\A", r"\Z", r"\z")
_CACHE_BYTES: Final = 512 * 2**20
_cores: LruCache[RegexCore] = LruCache(_CACHE_BYTES, lambda core: core.nbytes)


def clear_cache() -> None:
    """Forget all compiled constraints of this process."""
    _cores.clear()


def _core(
    key: tuple[Any, ...], vocabulary: Vocabulary, limits: Limits, label: str, build: Callable[[], ByteNfa]
) -> RegexCore:
    key = (*key, limits, vocabulary.fingerprint)
    core = _cores.get(key)
    if core is None or 4 * core.dfa.n_states > limits.max_states or 4 * core.dfa.nbytes > limits.max_state_bytes:
        core = RegexCore(make_dfa(build(), limits), vocabulary.snapshot(), label, key)
    _cores.put(key, core)  # also when it was there: it has grown
    return core


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def regex_core(pattern: str, vocabulary: Vocabulary, *, dialect: OneOf["python", "ecma"], limits: Limits) -> RegexCore:
    def build() -> ByteNfa:
        constructs = sum(map(pattern.count, "([{\\*+?"))
        if constructs > limits.max_pattern_constructs:
            raise LimitExceededError(
                f"the pattern has about {constructs:,} groups, sets, escapes and quantifiers; "
                f"Limits.max_pattern_constructs is {limits.max_pattern_constructs:,}",
                given=constructs,
                limit=limits.max_pattern_constructs,
            )
        node = parse(pattern, dialect=dialect, limits=limits)
        if any(mark in pattern for mark in _ASSERTIONS):  # else there is nothing that `simplify` could take out
            node = simplify(node)
        return build_nfa(node, limits)

    if not isinstance(pattern, str):
        raise TypeError(f"a pattern must be a str, not {type(pattern).__name__}")
    if not isinstance(vocabulary, Vocabulary):
        raise TypeError(f"expected an outlines_core.Vocabulary, got {type(vocabulary).__name__}")
    return _core(("regex", pattern, dialect), vocabulary, limits, f"the pattern {_shortened(pattern)}", build)


def compile_regex(
    pattern: str, vocab: Vocabulary, *, dialect: OneOf["python", "ecma"] = "python", limits: Limits | None = None
) -> RegexAutomaton:
    """The token automaton of all texts that a regex matches from start to end.

    Args:
        pattern: the regex; look-around, anchors, Unicode classes and case folding included.
        vocab: the tokens that spell the text.
        dialect: "python" is ``re.fullmatch``, "ecma" ECMAScript's ``u`` flag (anchored here).
        limits: what it may cost.

    Raises:
        ConstraintSyntaxError: a malformed pattern, with `.offset`.
        UnsupportedFeatureError: what is not regular (back-references, conditionals).
        UnsatisfiableError: nothing matches.  IncompatibleVocabularyError: nothing that matches can be spelled.
        LimitExceededError: the pattern is too large.

    Cost: well under a millisecond for an ordinary pattern; states and masks are made on first use.
    """
    core = regex_core(pattern, vocab, dialect=dialect, limits=limits or DEFAULT_LIMITS)
    return RegexAutomaton(core, (_recompile_regex, (pattern, core.vocabulary, dialect, limits)))


def _recompile_regex(
    pattern: str, vocab: Vocabulary, dialect: OneOf["python", "ecma"], limits: Limits | None
) -> RegexAutomaton:
    return compile_regex(pattern, vocab, dialect=dialect, limits=limits)


def compile_choice(choices: Iterable[str], vocab: Vocabulary, *, limits: Limits | None = None) -> RegexAutomaton:
    """The token automaton of a finite set of texts.

    Raises:
        UnsatisfiableError: no choice at all.
        TypeError: a choice that is not a str.
    """
    if isinstance(choices, str):
        raise TypeError("choices must be a collection of texts, not one text")
    texts = tuple(dict.fromkeys(choices))
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"a choice must be a str, not {type(text).__name__}")
    if not texts:
        raise UnsatisfiableError("no text satisfies an empty set of choices")
    limits_ = limits or DEFAULT_LIMITS
    node = Alternation(tuple(Literal(text) if text else Empty() for text in texts))
    label = f"the choice of {_shortened(', '.join(map(repr, texts[:8])))}"
    core = _core(("choice", texts), vocab, limits_, label, lambda: build_nfa(node, limits_))
    return RegexAutomaton(core, (_recompile_choice, (texts, core.vocabulary, limits)))


def _recompile_choice(texts: tuple[str, ...], vocab: Vocabulary, limits: Limits | None) -> RegexAutomaton:
    return compile_choice(texts, vocab, limits=limits)


def compile_ast(node: Node, vocab: Vocabulary, *, label: str = "", limits: Limits | None = None) -> RegexAutomaton:
    """The token automaton of an AST, set algebra included (`outlines_core.Language` builds those)."""
    limits_ = limits or DEFAULT_LIMITS
    core = _core(("ast", node), vocab, limits_, label or "the language", lambda: build_nfa(simplify(node), limits_))
    return RegexAutomaton(core, (_recompile_ast, (node, core.vocabulary, label, limits)))


def _recompile_ast(node: Node, vocab: Vocabulary, label: str, limits: Limits | None) -> RegexAutomaton:
    return compile_ast(node, vocab, label=label, limits=limits)


def fsm_core(fsm: FSM, vocabulary: Vocabulary, *, limits: Limits) -> RegexCore:
    """The core of an `interegular` FSM over characters."""
    from interegular.fsm import anything_else

    named = sorted(ord(symbol) for symbol in fsm.alphabet if symbol is not anything_else)
    rest: list[tuple[int, int]] = []
    low = 0
    for point in named:
        if low < point:
            rest.append((low, point - 1))
        low = point + 1
    if low <= 0x10FFFF:
        rest.append((low, 0x10FFFF))
    characters: dict[int, Ranges] = {}
    for symbol, column in fsm.alphabet.items():
        own: Ranges = tuple(rest) if symbol is anything_else else ((ord(symbol), ord(symbol)),)
        characters[column] = tuple(sorted(characters.get(column, ()) + own))
    numbers = {state: k for k, state in enumerate(sorted(fsm.states))}
    edges: list[list[tuple[Ranges, int]]] = [[] for _ in numbers]
    for state, row in fsm.map.items():
        edges[numbers[state]] = [
            (characters[column], numbers[to]) for column, to in row.items() if column in characters
        ]
    accepting = [state in fsm.finals for state in numbers]
    key = ("fsm", tuple(map(tuple, edges)), tuple(accepting), numbers[fsm.initial])
    return _core(
        key, vocabulary, limits, "the FSM", lambda: nfa_of_graph(edges, accepting, numbers[fsm.initial], limits)
    )
