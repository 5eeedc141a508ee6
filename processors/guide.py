"""Guides: a constraint asked step by step, "what may come next in this state", with the state passed in and out.

A guide knows nothing of sequences. Whoever decodes keeps one state a sequence, so batches, beams and rollbacks need no
support from the guide:

    instruction = guide.get_next_instruction(state)    # Write(tokens) | Generate(tokens or None)
    state = guide.get_next_state(state, token_id)

The states of the guides made here are ints, and -1 is the final state that absorbs every token: it follows an EOS
token, and also a token that the instruction had not allowed.

Torch is imported when the ``tokens`` of an instruction are first asked for, not before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outlines_core.bitmask import allocate_bitmask, unpack_ids
from outlines_core.errors import TokenRejectedError
from outlines_core.fsm import guide as fsm_guide
from outlines_core.fsm.guide import Generate, Guide, Instruction, Write
from outlines_core.types import DEAD, FINISHED, TokenAutomaton
from outlines_core.vocabulary import Vocabulary
from processors.tokenizers import as_vocabulary

if TYPE_CHECKING:
    from interegular import FSM

    from outlines_core.index import Index
    from outlines_core.limits import Limits

__all__ = [
    "AutomatonGuide",
    "CFGGuide",
    "CFGState",
    "Generate",
    "Guide",
    "Instruction",
    "JSONGuide",
    "RegexGuide",
    "StopAtEOSGuide",
    "Write",
    "cached_create_states_mapping",
]

FINAL_STATE: Final = -1
"""The state after the end (or after a token that was not allowed); every token leads from it to itself."""


class StopAtEOSGuide(fsm_guide.StopAtEOSGuide):
    """Any text: state 0 allows every token, state 1 follows an EOS token."""

    def __init__(self, tokenizer: Any) -> None:
        """Take the EOS ids of `tokenizer`: a tokenizer, a `Vocabulary`, or anything with an ``eos_token_id``."""
        super().__init__(
            tokenizer if getattr(tokenizer, "eos_token_id", None) is not None else as_vocabulary(tokenizer)
        )


class AutomatonGuide:
    """Any `TokenAutomaton` as a guide.

    State ``s`` of the guide is state ``s + 2`` of the automaton, so that -1 stands for its FINISHED state.

    >>> import outlines_core as oc
    >>> vocabulary = oc.Vocabulary(3, {"a": [0], "b": [1], "c": [2]})
    >>> guide = AutomatonGuide(oc.compile_regex("ab(a|c)", vocabulary))
    >>> guide.get_next_instruction(guide.initial_state)
    Write(tokens=[0, 1])
    """

    shortest_write = 2
    """Fewest forced tokens that are worth a `Write`; a single one is a `Generate` of one id."""

    def __init__(self, automaton: TokenAutomaton) -> None:
        self.automaton = automaton
        self.initial_state: int = automaton.initial_state - (FINISHED + 1)

    def _inside(self, state: int) -> int:
        return FINISHED if state < 0 else int(state) + (FINISHED + 1)

    def _outside(self, state: int) -> int:
        return FINAL_STATE if state in (DEAD, FINISHED) else state - (FINISHED + 1)

    def get_next_instruction(self, state: int) -> Instruction:
        """What may follow: all forced tokens at once if there are several, else the allowed ids (EOS included)."""
        if state < 0:
            return Write([self.automaton.vocabulary.get_eos_token_id()])
        inside = self._inside(state)
        forced = self.automaton.forced_tokens(inside)
        if len(forced) >= self.shortest_write:
            return Write(forced)
        ids = self._allowed(inside)
        if not len(set(ids.tolist()).difference(self.automaton.vocabulary.eos_token_ids)):
            return Write([self.automaton.vocabulary.get_eos_token_id()])
        return Generate(ids)

    def _allowed(self, inside: int) -> NDArray[np.int64]:
        words = allocate_bitmask(1, self.automaton.vocabulary)
        self.automaton.fill_mask(inside, words[0])
        return unpack_ids(words[0])

    def get_next_state(self, state: int, token_id: int) -> int:
        """The state after a token; -1 after an EOS token, after one that is not allowed, and from -1 on."""
        return self._outside(self.automaton.next_state(self._inside(state), int(token_id)))

    def is_final_state(self, state: int) -> bool:
        """May the text end in `state`?"""
        return self.automaton.is_accepting(self._inside(state))

    def get_index_dict(self) -> dict[int, dict[int, int]]:
        """Every edge: state -> {token id: next state}.  Visits the whole automaton, which must be finite.

        An accepting state with edges has EOS edges to itself as well; a state without edges has no entry.
        """
        edges: dict[int, dict[int, int]] = {}
        eos = set(self.automaton.vocabulary.eos_token_ids)
        order = [self.initial_state]
        known = set(order)
        for state in order:
            inside = self._inside(state)
            ids = self._allowed(inside).tolist()
            row = {t: state if t in eos else self._outside(self.automaton.next_state(inside, t)) for t in ids}
            if not eos.issuperset(row):
                edges[state] = row
            for target in row.values():
                if target not in known:
                    known.add(target)
                    order.append(target)
        return edges

    def copy(self) -> AutomatonGuide:
        """Itself: a guide has no state."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.automaton!r})"


class RegexGuide(AutomatonGuide):
    """The guide of a regular expression, matched as a whole.

    >>> import outlines_core as oc
    >>> guide = RegexGuide.from_regex("a[ab]", oc.Vocabulary(2, {"a": [0], "b": [1]}))
    >>> state = guide.get_next_state(guide.initial_state, 0)
    >>> guide.get_next_instruction(state)
    Generate(tokens=[0, 1])
    """

    @classmethod
    def from_regex(
        cls,
        regex_string: str,
        tokenizer: Any,
        _create_states_mapping: Any = None,
        device: Any = None,  # noqa: ARG003 -- the older signature
        regex_parser: Any = None,  # noqa: ARG003 -- the older signature
        frozen_tokens: Iterable[str] = (),  # noqa: ARG003 -- the older signature
    ) -> RegexGuide:
        """The guide of a pattern.

        Args:
            regex_string: a pattern in Python's syntax.
            tokenizer: a tokenizer or a `Vocabulary`.
            _create_states_mapping, device, regex_parser, frozen_tokens: taken for compatibility, without effect: the
                pattern is compiled here, states are made as they are visited, and ``tokens`` are host tensors.

        Raises:
            ConstraintSyntaxError, UnsupportedFeatureError: the pattern.
            UnsatisfiableError: nothing matches, or nothing that the vocabulary can spell.
        """
        from outlines_core import compile_regex

        return cls(compile_regex(regex_string, as_vocabulary(tokenizer)))

    @classmethod
    def from_interegular_fsm(
        cls,
        interegular_fsm: FSM,
        tokenizer: Any,
        _create_states_mapping_from_fsm: Any = None,
        device: Any = None,  # noqa: ARG003 -- the older signature
        frozen_tokens: Iterable[str] = (),  # noqa: ARG003 -- the older signature
    ) -> RegexGuide:
        """The guide of a finite-state machine of the `interegular` package.  Other arguments: see `from_regex`."""
        from outlines_core import Index

        return cls(Index.from_fsm(interegular_fsm, as_vocabulary(tokenizer)))

    @property
    def states_to_token_maps(self) -> StateMaps:
        """The transitions, under the name and with the methods that older code uses."""
        return StateMaps(self)


class JSONGuide(AutomatonGuide):
    """The guide of a JSON Schema.

    >>> import outlines_core as oc
    >>> vocabulary = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)})
    >>> guide = JSONGuide({"type": "boolean"}, vocabulary, whitespace="compact")
    >>> guide.get_next_instruction(guide.get_next_state(guide.initial_state, ord("t")))
    Write(tokens=[114, 117, 101])
    """

    def __init__(
        self,
        schema: Any,
        tokenizer: Any = None,
        whitespace_pattern: str | None = None,
        *,
        whitespace: str = "flexible",
        max_whitespace: int = 64,
        property_order: Literal["schema", "any"] = "schema",
        ensure_ascii: bool = False,
        lenient: bool = False,
        registry: Any = None,
        limits: Limits | None = None,
    ) -> None:
        """Compile a schema.

        Args:
            schema: whatever `outlines_core.compile_json_schema` takes: a schema as dict, bool or JSON text, a pydantic
                model, a dataclass, a TypedDict, an Enum, a callable; or the automaton that it has made.
            tokenizer: a tokenizer or a `Vocabulary`; without effect if `schema` is an automaton.
            whitespace_pattern: `whitespace` as a regex, under its older name.
            whitespace, max_whitespace, property_order, ensure_ascii, lenient, registry, limits: see
                `outlines_core.compile_json_schema`.

        Raises:
            ConstraintError: see `outlines_core.compile_json_schema`.
        """
        if isinstance(schema, TokenAutomaton):
            super().__init__(schema)
            return
        if tokenizer is None:
            raise TypeError("a schema needs a tokenizer or a Vocabulary to be compiled for")
        if whitespace_pattern is not None and whitespace != "flexible":
            raise ValueError("whitespace and whitespace_pattern are two names of one thing: give one of them")
        from outlines_core import compile_json_schema

        automaton = compile_json_schema(
            schema,
            as_vocabulary(tokenizer),
            whitespace=whitespace if whitespace_pattern is None else whitespace_pattern,
            max_whitespace=max_whitespace,
            property_order=property_order,
            ensure_ascii=ensure_ascii,
            lenient=lenient,
            registry=registry,
            limits=limits,
        )
        super().__init__(automaton)

    @classmethod
    def from_schema(cls, schema: Any, tokenizer: Any, **options: Any) -> JSONGuide:
        """The guide of a schema, as `RegexGuide.from_regex` makes that of a pattern."""
        return cls(schema, tokenizer, **options)


class CFGState(NamedTuple):
    """A state of a `CFGGuide`.

    Attributes:
        parser_state: a state of the automaton; None: the text is complete.
        prev_token: the token that led here; None at the beginning.
    """

    parser_state: int | None
    prev_token: int | None


class CFGGuide:
    """The guide of a Lark grammar.

    >>> import outlines_core as oc
    >>> vocabulary = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)})
    >>> guide = CFGGuide('start: "(" start ")" | "x"', vocabulary)
    >>> state = guide.get_next_state(guide.initial_state, ord("("))
    >>> guide.get_next_instruction(state)
    Generate(tokens=[40, 120])
    >>> guide.can_terminate_state(state)
    False
    """

    def __init__(
        self,
        cfg_string: Any,
        tokenizer: Any = None,
        *,
        start: str | Sequence[str] = "start",
        postlex: Any = None,
        parser: str | None = None,
        lexer: Literal["contextual", "basic", "dynamic", "dynamic_complete", "scannerless"] = "contextual",
        g_regex_flags: int = 0,
        import_paths: Sequence[Any] = (),
        dialect: Literal["lark", "extended"] = "lark",
        limits: Limits | None = None,
    ) -> None:
        """Compile a grammar.

        Args:
            cfg_string: a Lark grammar, or the automaton that `outlines_core.compile_grammar` has made of one.
            tokenizer: a tokenizer or a `Vocabulary`; without effect if `cfg_string` is an automaton.
            start, postlex, parser, lexer, g_regex_flags, import_paths, dialect, limits: see
                `outlines_core.compile_grammar`.

        Raises:
            ConstraintError: see `outlines_core.compile_grammar`.
        """
        if not isinstance(cfg_string, TokenAutomaton):
            if tokenizer is None:
                raise TypeError("a grammar needs a tokenizer or a Vocabulary to be compiled for")
            from outlines_core import compile_grammar

            cfg_string = compile_grammar(
                cfg_string,
                as_vocabulary(tokenizer),
                start=start,
                postlex=postlex,
                parser=parser,
                lexer=lexer,
                g_regex_flags=g_regex_flags,
                import_paths=import_paths,
                dialect=dialect,
                limits=limits,
            )
        self.automaton: TokenAutomaton = cfg_string
        self.initial_state = CFGState(self.automaton.initial_state, None)

    def _allowed(self, state: CFGState) -> NDArray[np.int64]:
        vocabulary = self.automaton.vocabulary
        if state.parser_state is None:
            return np.array(vocabulary.eos_token_ids, dtype=np.int64)
        words = allocate_bitmask(1, vocabulary)
        self.automaton.fill_mask(state.parser_state, words[0])
        return unpack_ids(words[0])

    def get_next_instruction(self, state: CFGState) -> Instruction:
        """What may follow: a `Write` if only one token can, else the allowed ids (EOS included)."""
        if state.parser_state is None:
            return Write([self.automaton.vocabulary.get_eos_token_id()])
        ids = self._allowed(state)
        return Write(ids) if len(ids) == 1 else Generate(ids)

    def get_next_state(self, state: CFGState, token_id: int) -> CFGState:
        """The state after a token; `state` stays as it is.

        Raises:
            TokenRejectedError: the token is not allowed.
        """
        token_id = int(token_id)
        if state.parser_state is None:
            return CFGState(None, token_id)
        following = self.automaton.next_state(state.parser_state, token_id)
        if following == DEAD:
            raise TokenRejectedError(token_id, position=0, message=f"token id {token_id} is not allowed here")
        return CFGState(None if following == FINISHED else following, token_id)

    def iter_valid_token_ids(self, state: CFGState, candidate_token_ids: Iterable[int]) -> Iterator[int]:
        """Those of some ids that are allowed, in their order."""
        allowed = set(self._allowed(state).tolist())
        return (int(i) for i in candidate_token_ids if int(i) in allowed)

    def can_terminate_state(self, state: CFGState) -> bool:
        """May the text end here?"""
        return state.parser_state is None or self.automaton.is_accepting(state.parser_state)

    def must_terminate_state(self, state: CFGState) -> bool:
        """Must the text end here?"""
        return set(self._allowed(state).tolist()) <= set(self.automaton.vocabulary.eos_token_ids)

    def is_final_state(self, state: CFGState) -> bool:
        """May the text end here?"""
        return self.can_terminate_state(state)

    def copy(self) -> CFGGuide:
        """Itself: a guide has no state."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.automaton!r})"


class StateMaps:
    """The transitions of an `AutomatonGuide`, in its state numbers."""

    def __init__(self, guide: AutomatonGuide) -> None:
        self._guide = guide

    def get_transitions(self) -> dict[int, dict[int, int]]:
        """See `AutomatonGuide.get_index_dict`."""
        return self._guide.get_index_dict()

    def get_allowed_tokens(self, state: int) -> list[int] | None:
        """The allowed ids of a state."""
        ids = self._guide.get_next_instruction(state).ids if state < 0 else self._guide._allowed(state + 2)
        return None if ids is None else ids.tolist()

    def get_next_state(self, state: int, token_id: int) -> int | None:
        """The state after a token, None if there is none."""
        target = self._guide.get_next_state(state, token_id)
        return None if target == FINAL_STATE else target

    def is_final_state(self, state: int) -> bool:
        """May the text end in `state`?"""
        return self._guide.is_final_state(state)

    def get_initial_state(self) -> int:
        """The state before the first token."""
        return self._guide.initial_state

    def __iter__(self) -> Iterator[int]:
        return iter(self.get_transitions())


def cached_create_states_mapping(
    regex_string: str, tokenizer: Any, *_args: Any, **_kwargs: Any
) -> tuple[Index, set[int], set[int]]:
    """The index of a pattern, the ids of empty tokens (none is ever allowed), and the accepting states.

    The last 64 results are kept, by the pattern and the content of the vocabulary.
    """
    vocabulary = as_vocabulary(tokenizer)
    return _states_mapping(regex_string, _ByContent(vocabulary))


class _ByContent:
    """A vocabulary as a dictionary key."""

    __slots__ = ("vocabulary",)

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary.snapshot()

    def __hash__(self) -> int:
        return hash(self.vocabulary.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByContent) and self.vocabulary.fingerprint == other.vocabulary.fingerprint


@functools.lru_cache(maxsize=64)
def _states_mapping(regex_string: str, key: _ByContent) -> tuple[Index, set[int], set[int]]:
    from outlines_core import Index

    index = Index(regex_string, key.vocabulary, dialect="python")
    return index, set(), index.get_final_states()
