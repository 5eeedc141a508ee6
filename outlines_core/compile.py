"""Constraint + vocabulary -> token automaton, with the compiled cores kept in memory.

Compiling is cheap: parse, lay out the NFA, done; states and masks come on first use. So what the cache saves is not
the compile step but the states and masks that earlier requests have visited: automata of one constraint and vocabulary
share one core. A core that has grown past a quarter of its limits is not handed out again, so that no request
inherits a table that others have filled.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from typing import Literal as OneOf

from outlines_core.cache import LruCache
from outlines_core.errors import LimitExceededError, UnsatisfiableError, UnsupportedFeatureError
from outlines_core.index import RegexAutomaton
from outlines_core.json_core import JsonCore
from outlines_core.json_index import JsonAutomaton
from outlines_core.json_masks import LexemeMasks, Whitespace
from outlines_core.json_schema.depth import deeply
from outlines_core.json_schema.reader import read_schema
from outlines_core.json_schema.refusals import leave_out, unsupported_places
from outlines_core.json_schema.sources import to_schema
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Alternation, Empty, Literal, Node, Ranges
from outlines_core.regex.look_dfa import make_dfa
from outlines_core.regex.nfa import ByteNfa, CharacterGraph, build_nfa, nfa_of_graph
from outlines_core.regex.parser import parse
from outlines_core.regex.simplify import simplify
from outlines_core.regex_core import RegexCore
from outlines_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from interegular import FSM

__all__ = [
    "character_graph",
    "clear_cache",
    "compile_ast",
    "compile_choice",
    "compile_json_schema",
    "compile_regex",
    "graph_core",
    "kept_core",
    "regex_core",
    "validate_schema_support",
]

_ASSERTIONS: Final = ("^", "$", "(?", "+", r"\b", r"\B", r"\A", r"\Z", r"\z", r"\<", r"\>")
_CACHE_BYTES: Final = 512 * 2**20
_GROWN_BYTES: Final = 2**20  # what an automaton that has just been made will grow to
_cores: LruCache[RegexCore] = LruCache(_CACHE_BYTES, lambda core: core.nbytes)
# Many Python objects each: they weigh on the garbage collector, and a schema is compiled again in a millisecond.
_json_cores: LruCache[JsonCore] = LruCache(_CACHE_BYTES // 8, lambda core: max(core.nbytes, _GROWN_BYTES))
_lexeme_masks: LruCache[LexemeMasks] = LruCache(_CACHE_BYTES, lambda shared: shared.nbytes)


def clear_cache() -> None:
    """Forget all compiled constraints of this process."""
    _cores.clear()
    _json_cores.clear()
    _lexeme_masks.clear()


def _core(
    key: tuple[Any, ...], vocabulary: Vocabulary, limits: Limits, label: str, build: Callable[[], ByteNfa]
) -> RegexCore:
    key = (*key, limits, vocabulary.fingerprint)
    return kept_core(key, limits, lambda: RegexCore(make_dfa(build(), limits), vocabulary.snapshot(), label, key))


def kept_core(key: tuple[Any, ...], limits: Limits, make: Callable[[], RegexCore]) -> RegexCore:
    """The core of a key: one that was made before, if it has not grown too much."""
    core = _cores.get(key)
    if core is None or 4 * core.dfa.n_states > limits.max_states or 4 * core.state_bytes > limits.max_state_bytes:
        core = make()
    _cores.put(key, core)  # also when it was there: it has grown
    return core


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def regex_core(
    pattern: str, vocabulary: Vocabulary, *, dialect: OneOf["python", "ecma", "rust"], limits: Limits
) -> RegexCore:
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
    pattern: str,
    vocab: Vocabulary,
    *,
    dialect: OneOf["python", "ecma", "rust"] = "python",
    limits: Limits | None = None,
) -> RegexAutomaton:
    """The token automaton of all texts that a regex matches from start to end.

    Args:
        pattern: the regex; look-around, anchors, Unicode classes and case folding included.
        vocab: the tokens that spell the text.
        dialect: "python" is ``re.fullmatch``, "ecma" ECMAScript's ``u`` flag (anchored here), "rust" the syntax of
            Rust's regex crate.
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
    pattern: str, vocab: Vocabulary, dialect: OneOf["python", "ecma", "rust"], limits: Limits | None
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


def character_graph(fsm: FSM) -> CharacterGraph:
    """An `interegular` FSM over characters as a graph; its states are numbered in their order."""
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
    edges: list[tuple[tuple[Ranges, int], ...]] = [() for _ in numbers]
    for state, row in fsm.map.items():
        edges[numbers[state]] = tuple(
            (characters[column], numbers[to]) for column, to in row.items() if column in characters
        )
    return tuple(edges), tuple(state in fsm.finals for state in numbers), numbers[fsm.initial]


def graph_core(
    graph: CharacterGraph,
    vocabulary: Vocabulary,
    *,
    limits: Limits,
    byte_edges: tuple[tuple[tuple[int, int, int], ...], ...] = (),
) -> RegexCore:
    """The core of an automaton over characters (and single bytes: see `nfa_of_graph`)."""
    key = ("fsm", graph, byte_edges)
    return _core(key, vocabulary, limits, "the FSM", lambda: nfa_of_graph(graph, limits, byte_edges))


# -- JSON Schema ------------------------------------------------------------------------------------------------------


def compile_json_schema(
    schema: Any,
    vocab: Vocabulary,
    *,
    whitespace: str = "flexible",
    max_whitespace: int = 64,
    property_order: OneOf["schema", "any"] = "schema",
    ensure_ascii: bool = False,
    lenient: bool = False,
    registry: Any = None,
    limits: Limits | None = None,
) -> JsonAutomaton:
    """The token automaton of all JSON texts whose value satisfies a schema.

    Args:
        schema: a JSON Schema (draft 4 to 2020-12, by its ``$schema``) as a dict, bool or JSON text; or a pydantic
            model, dataclass, TypedDict, Enum or callable, whose parameters become properties.
        vocab: the tokens that spell the text.
        whitespace: "flexible" is any JSON whitespace, "compact" is none; anything else is a regex for the whitespace
            between two JSON tokens.
        max_whitespace: with "flexible", so many characters in a row at most.
        property_order: "schema": the keys that a `properties` lists come in its order, others behind them; "any": any
            order, which is exactly JSON Schema. No key comes twice in either.
        ensure_ascii: non-ASCII characters only as escapes.
        lenient: what cannot be enforced is left out with a warning instead of refused.
        registry: schemas that `$ref` may name: a mapping from URIs, or a `referencing.Registry`. No network.
        limits: what it may cost.

    Raises:
        ConstraintSyntaxError: a malformed schema, with `.path`, a JSON pointer.
        UnsupportedFeatureError: what cannot be enforced, with `.feature` and `.path`.
        UnsatisfiableError: no value satisfies the schema.  IncompatibleVocabularyError: none can be spelled.
        LimitExceededError: the schema is too large.

    Cost: one pass over what can be reached in the schema; everything else happens on first use.
    """
    if not isinstance(vocab, Vocabulary):
        raise TypeError(f"expected an outlines_core.Vocabulary, got {type(vocab).__name__}")
    if property_order not in ("schema", "any"):
        raise ValueError(f'property_order is "schema" or "any", not {property_order!r}')
    if type(max_whitespace) is not int or max_whitespace < 0:
        raise ValueError(f"max_whitespace must be a non-negative integer, not {max_whitespace!r}")
    limits_ = DEFAULT_LIMITS if limits is None else limits
    document = to_schema(schema)
    options = (whitespace, max_whitespace, property_order, bool(ensure_ascii), bool(lenient))
    key = None
    text = deeply(lambda: json.dumps(document, default=repr))
    if registry is None:
        key = (text, *options, limits_, vocab.fingerprint)
    core = _json_cores.get(key) if key is not None else None
    if core is None or 4 * core.n_states > limits_.max_states or 4 * core.nbytes > limits_.max_state_bytes:
        core = _json_core(document, text, vocab, options, registry, limits_)
    if key is not None:
        _json_cores.put(key, core)  # also when it was there: it has grown
    return JsonAutomaton(core, (_recompile_json_schema, (document, core.vocabulary, options, registry, limits)))


def _json_core(
    document: Any, text: str, vocab: Vocabulary, options: tuple[Any, ...], registry: Any, limits: Limits
) -> JsonCore:
    whitespace, max_whitespace, property_order, ensure_ascii, lenient = options
    root = read_schema(
        document, registry=registry, limits=limits, on_unsupported=_warn_unsupported if lenient else None
    )
    if lenient:
        for node, error in unsupported_places(root, limits):
            _warn_unsupported(error)
            leave_out(node, error)
    snapshot = vocab.snapshot()
    key = (snapshot.fingerprint, limits, ensure_ascii)
    shared = _lexeme_masks.get(key)
    if shared is None or shared.is_full:
        shared = LexemeMasks(snapshot, limits, ensure_ascii=ensure_ascii)
    _lexeme_masks.put(key, shared)
    return JsonCore(
        root,
        snapshot,
        shared,
        Whitespace.of(whitespace, max_whitespace, limits),
        limits,
        in_order=property_order == "schema",
        source=text,
    )


def _warn_unsupported(error: UnsupportedFeatureError) -> None:
    warnings.warn(f"not enforced: {error}", stacklevel=4)


def _recompile_json_schema(
    document: Any, vocab: Vocabulary, options: tuple[Any, ...], registry: Any, limits: Limits | None
) -> JsonAutomaton:
    whitespace, max_whitespace, property_order, ensure_ascii, lenient = options
    return compile_json_schema(
        document,
        vocab,
        whitespace=whitespace,
        max_whitespace=max_whitespace,
        property_order=property_order,
        ensure_ascii=ensure_ascii,
        lenient=lenient,
        registry=registry,
        limits=limits,
    )


def validate_schema_support(
    schema: Any, *, registry: Any = None, limits: Limits | None = None
) -> list[UnsupportedFeatureError]:
    """The places of a schema that cannot be enforced, without a vocabulary.

    Raises:
        ConstraintSyntaxError: the schema is malformed.

    >>> [error.feature for error in validate_schema_support({"pattern": r"(a)\\1"})]
    ['back-reference']
    """
    found: list[UnsupportedFeatureError] = []
    limits_ = DEFAULT_LIMITS if limits is None else limits
    root = read_schema(to_schema(schema), registry=registry, limits=limits_, on_unsupported=found.append)
    return found + [error for _, error in unsupported_places(root, limits_)]
