"""`outlines_core.fsm.guide` of `outlines_core` 0.1: instructions, the guide protocol, guides of regexes.

A guide knows nothing of sequences: the state is passed in and out. `processors.guide` builds on the instructions
here; its guides take any tokenizer, and its `RegexGuide` is Python's ``re``, where this one reads patterns with
`interegular`, as that package does.

Torch is imported when the ``tokens`` of an instruction are first asked for, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from outlines_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

    from outlines_core.fsm.regex import Index

__all__ = [
    "Generate",
    "Guide",
    "Instruction",
    "RegexGuide",
    "StopAtEOSGuide",
    "Write",
    "create_states_mapping",
    "create_states_mapping_from_fsm",
]


class _TokenInstruction:
    """Token ids as host memory, and as a tensor once somebody asks."""

    __slots__ = ("_ids", "_tensor")
    __match_args__ = ("tokens",)
    _ids: NDArray[np.int64] | None
    _tensor: torch.Tensor | None

    def __init__(self, tokens: Any) -> None:
        object.__setattr__(self, "_ids", _host_ids(tokens))
        object.__setattr__(self, "_tensor", None)

    @property
    def ids(self) -> NDArray[np.int64] | None:
        """The token ids as a read-only array, None if every token is meant."""
        return self._ids

    def _as_tensor(self) -> torch.Tensor:
        tensor = self._tensor
        if tensor is None:
            import torch

            tensor = torch.tensor(self._ids, dtype=torch.int64)
            object.__setattr__(self, "_tensor", tensor)
        return tensor

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = self._ids, other._ids
        return mine is theirs or (mine is not None and theirs is not None and np.array_equal(mine, theirs))

    def __hash__(self) -> int:
        return hash((type(self), None if self._ids is None else self._ids.tobytes()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(tokens={None if self._ids is None else self._ids.tolist()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._ids,)


class Write(_TokenInstruction):
    """Append this sequence of tokens without sampling: nothing else is possible.

    >>> Write([3, 5]).tokens
    tensor([3, 5])
    """

    __slots__ = ()
    _ids: NDArray[np.int64]

    def __init__(self, tokens: Sequence[int] | NDArray[Any] | torch.Tensor) -> None:
        if tokens is None:
            raise TypeError("Write needs the tokens to write")
        super().__init__(tokens)

    @property
    def tokens(self) -> torch.Tensor:
        """The sequence, 1-D int64."""
        return self._as_tensor()


class Generate(_TokenInstruction):
    """Sample one of these tokens; ``None`` allows every token.

    >>> Generate([7, 8]).tokens, Generate(None).tokens
    (tensor([7, 8]), None)
    """

    __slots__ = ()

    def __init__(self, tokens: Sequence[int] | NDArray[Any] | torch.Tensor | None) -> None:
        super().__init__(tokens)

    @property
    def tokens(self) -> torch.Tensor | None:
        """The allowed ids, 1-D int64, or None."""
        return None if self._ids is None else self._as_tensor()


Instruction: TypeAlias = Write | Generate


def _host_ids(tokens: Any) -> NDArray[np.int64] | None:
    if tokens is None:
        return None
    if hasattr(tokens, "detach"):
        tokens = tokens.detach().cpu().numpy()
    elif not isinstance(tokens, np.ndarray):
        tokens = list(tokens) if isinstance(tokens, Iterable) else tokens
    ids = np.array(tokens, dtype=np.int64)
    if ids.ndim != 1:
        raise ValueError(f"the tokens of an instruction are a flat sequence of ids, got {ids.ndim} dimensions")
    ids.setflags(write=False)
    return ids


@runtime_checkable
class Guide(Protocol):
    """What a processor asks of a guide.  The state is passed in and out; a guide is never changed by a call."""

    initial_state: Any

    def get_next_instruction(self, state: Any) -> Instruction:
        """What may follow in `state`."""
        ...

    def get_next_state(self, state: Any, token_id: int) -> Any:
        """The state after a token."""
        ...

    def is_final_state(self, state: Any) -> bool:
        """May the text end in `state`?"""
        ...

    def copy(self) -> Guide:
        """A guide that may be used independently of this one."""
        ...


class StopAtEOSGuide:
    """Any text: state 0 allows every token, state 1 follows an EOS token."""

    final_state: Final = 1
    start_state: Final = 0

    def __init__(self, tokenizer: Any) -> None:
        """Take the EOS ids of `tokenizer`: anything with an ``eos_token_id`` (or several), or a `Vocabulary`."""
        given = tokenizer.eos_token_ids if isinstance(tokenizer, Vocabulary) else tokenizer.eos_token_id
        ids = [given] if isinstance(given, (int, np.integer)) else list(given or ())
        if not ids:
            raise ValueError(f"{type(tokenizer).__name__} names no token that ends a text")
        self.eos_token_ids: tuple[int, ...] = tuple(int(i) for i in ids)
        self.eos_token_id: int = self.eos_token_ids[0]
        self.initial_state: int = self.start_state

    def get_next_instruction(self, state: int) -> Instruction:
        """`Generate` of everything, and an EOS token to write in the final state."""
        return Write([self.eos_token_id]) if self.is_final_state(state) else Generate(None)

    def get_next_state(self, state: int, token_id: int) -> int:
        """The final state from the first EOS token on."""
        ended = state == self.final_state or token_id in self.eos_token_ids
        return self.final_state if ended else self.start_state

    def is_final_state(self, state: int) -> bool:
        """Was there an EOS token?"""
        return state == self.final_state

    def copy(self) -> StopAtEOSGuide:
        """Itself: a guide has no state."""
        return self


def create_states_mapping(
    regex_string: str,
    tokenizer: Any,
    regex_parser: Callable[[str], Any] | None = None,
    frozen_tokens: Sequence[str] = (),
) -> tuple[Index, set[int], set[int]]:
    """The index of a pattern for a tokenizer, the ids of tokens without text, and the final states.

    Args:
        regex_string: the pattern.
        tokenizer: a hashable object with `vocabulary`, `special_tokens`, `eos_token_id`, `convert_token_to_string`.
        regex_parser: turns the pattern into something with a ``to_fsm()``; default `interegular.parse_pattern`.
        frozen_tokens: symbols of the machine that are whole tokens.

    Raises:
        UnsatisfiableError: nothing that the vocabulary can spell matches.  Whatever `regex_parser` raises.
    """
    if regex_parser is None:
        import interegular

        regex_parser = interegular.parse_pattern
    return create_states_mapping_from_fsm(regex_parser(regex_string).to_fsm(), tokenizer, frozen_tokens)


def create_states_mapping_from_fsm(
    fsm: Any, tokenizer: Any, frozen_tokens: Sequence[str] = ()
) -> tuple[Index, set[int], set[int]]:
    """`create_states_mapping` of an `interegular` machine."""
    from outlines_core.fsm.regex import create_fsm_index_tokenizer, make_byte_level_fsm, make_deterministic_fsm

    machine, _ = make_deterministic_fsm(make_byte_level_fsm(fsm.reduce(), True, frozen_tokens))
    index, empty = create_fsm_index_tokenizer(machine, tokenizer, frozen_tokens)
    return index, empty, set(machine.finals)


class RegexGuide:
    """The guide of a regular expression, in the state numbers of its index; -1 follows the end.

    Args:
        states_to_token_maps: the index.
        empty_token_ids: ids of tokens without text.
        eos_tensor: the id that ends a text, alone in a sequence or tensor.
        initial_state: where it begins.
    """

    def __init__(
        self, states_to_token_maps: Any, empty_token_ids: set[int], eos_tensor: Any, initial_state: int
    ) -> None:
        self.states_to_token_maps = states_to_token_maps
        self.empty_token_ids = empty_token_ids
        self.eos_tensor = eos_tensor
        self.initial_state = initial_state

    @classmethod
    def from_regex(
        cls,
        regex_string: str,
        tokenizer: Any,
        _create_states_mapping: Callable[..., tuple[Any, set[int], Any]] = create_states_mapping,
        device: Any = None,  # noqa: ARG003 -- the older signature: `tokens` are host tensors
        regex_parser: Callable[[str], Any] | None = None,
        frozen_tokens: Sequence[str] = (),
    ) -> RegexGuide:
        """The guide of a pattern.  See `create_states_mapping`."""
        index, empty, _ = _create_states_mapping(
            regex_string, tokenizer, regex_parser=regex_parser, frozen_tokens=frozen_tokens
        )
        return cls(index, empty, [tokenizer.eos_token_id], index.get_initial_state())

    @classmethod
    def from_interegular_fsm(
        cls,
        interegular_fsm: Any,
        tokenizer: Any,
        _create_states_mapping_from_fsm: Callable[..., tuple[Any, set[int], Any]] = create_states_mapping_from_fsm,
        device: Any = None,  # noqa: ARG003 -- the older signature
        frozen_tokens: Sequence[str] = (),
    ) -> RegexGuide:
        """The guide of an `interegular` machine."""
        index, empty, _ = _create_states_mapping_from_fsm(interegular_fsm, tokenizer, frozen_tokens=frozen_tokens)
        return cls(index, empty, [tokenizer.eos_token_id], index.get_initial_state())

    def get_next_instruction(self, state: int) -> Instruction:
        """The allowed ids; the end where nothing else is possible."""
        ids = None if state == -1 else self.states_to_token_maps.get_allowed_tokens(state)
        return Write(self.eos_tensor) if ids is None else Generate(ids)

    def get_next_state(self, state: int, token_id: int) -> int:
        """The state after a token; -1 after the end, and after a token that is not allowed."""
        following = None if state == -1 else self.states_to_token_maps.get_next_state(state, int(token_id))
        return -1 if following is None else following

    def is_final_state(self, state: int) -> bool:
        """May the text end in `state`?"""
        return bool(state == -1 or self.states_to_token_maps.is_final_state(state))

    def get_index_dict(self) -> dict[int, dict[int, int]]:
        """Every edge: state -> {token id: state}."""
        edges: dict[int, dict[int, int]] = self.states_to_token_maps.get_transitions()
        return edges

    def copy(self) -> RegexGuide:
        """Itself: a guide has no state."""
        return self
