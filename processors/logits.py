"""Logits processors for ``model.generate(..., logits_processor=[...])``: every token that a guide forbids gets -inf.

    >>> import outlines_core as oc, torch
    >>> vocabulary = oc.Vocabulary(3, {"a": [0], "b": [1], "c": [2]})
    >>> processor = GuideLogitsProcessor(vocabulary, oc.compile_regex("ab+", vocabulary))
    >>> prompt = torch.tensor([[2, 2]])
    >>> processor(prompt, torch.zeros(1, 4))
    tensor([[0., -inf, -inf, -inf]])
    >>> processor(torch.tensor([[2, 2, 0, 1]])[:, :3], torch.zeros(1, 4))
    tensor([[-inf, 0., -inf, -inf]])

**Rows.** A processor sees nothing but the ids of each row. A row continues the row of its block that equals its ids but
for the last one and that the processor has seen since the last start. If some row continues none, a new call of
``generate`` has begun, and the whole of each row is its prompt. So beams may swap places, drafts may be thrown away,
and a processor may be used again without more ado. A new call of transformers' ``generate`` is a start in any case,
even where its prompt is what the call before has seen. In a decoding loop of one's own, a prompt that is something seen
since the last start and one token more would be taken for a continuation: `reset` makes the next call a start.

**Ends.** After EOS, and after a token that the mask had forbidden (another processor forced it, or a beam search had to
fill up a beam), a row is given its EOS ids and nothing else: it never raises and is never without a token.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from outlines_core.errors import GuideError, TokenRejectedError
from outlines_core.types import DEAD, FINISHED
from outlines_core.vocabulary import Vocabulary
from processors._callers import generate_call, refuse_other_tokenizers
from processors._logits_base import OutlinesLogitsProcessor
from processors._rows import RowTracker, Step
from processors._sources import Marker, Source, source_of
from processors.guide import AutomatonGuide, JSONGuide
from processors.masking import MaskBuffer, apply_mask
from processors.tokenizers import vocabulary_from

__all__ = [
    "CFGLogitsProcessor",
    "GuideLogitsProcessor",
    "JSONLogitsProcessor",
    "OutlinesLogitsProcessor",
    "RegexLogitsProcessor",
]

_N_THREADS = os.cpu_count() or 1
"""Asked for once: the answer takes as long as a mask."""

_FLOOR = -1e4
"""The logit of an EOS id where other processors left an ended row nothing: finite in every format, also scaled."""


class GuideLogitsProcessor(OutlinesLogitsProcessor):
    """Make every row obey a guide.

    Args:
        tokenizer: the tokenizer or `Vocabulary` of the model; None if the guides are token automata.
        guide: a `TokenAutomaton`, an object with the protocol of `processors.guide.Guide`, or a sequence of G of them:
            row r of R then obeys guide ``r * G // R`` (with beams or `num_return_sequences`, one guide a prompt).
        tensor_library_name: as in `OutlinesLogitsProcessor`.
        eos_token_ids: the ids that end a text; default: those of the automaton's vocabulary, or of the tokenizer.
        start_after: rows are free until this has been generated: a token id, a special token's name, or a text such as
            ``"</think>"``. A text may be spelled by any tokens, as long as it ends with one: while a row is free,
            tokens that would run over its end are masked. An EOS in a free row ends it, unconstrained.
        max_new_tokens: how many tokens a call may generate; the text is closed in time: a token is allowed only if the
            text can be ended within what is left after it. EOS is not counted, so a text may end with the last token.
        on_violation: what a row does when it was given a token that the mask had forbidden (padding excepted): "eos"
            ends it and counts it in `violations`, "raise" raises. Beam searches do so in correct runs.

    Attributes:
        violations: forbidden tokens seen, since the processor was made or `reset`.

    Raises:
        TypeError: a guide of no known kind.
        ValueError: arguments that do not fit together; see also `VocabularyError`.
    """

    def __init__(
        self,
        tokenizer: Any,
        guide: Any,
        tensor_library_name: str = "torch",
        *,
        eos_token_ids: int | Sequence[int] | None = None,
        start_after: int | str | bytes | None = None,
        max_new_tokens: int | None = None,
        on_violation: Literal["eos", "raise"] = "eos",
    ) -> None:
        super().__init__(tensor_library_name)
        if on_violation not in ("eos", "raise"):
            raise ValueError(f'on_violation must be "eos" or "raise", not {on_violation!r}')
        if max_new_tokens is not None and max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be positive, not {max_new_tokens}")
        self.tokenizer, self.guide = tokenizer, guide
        self.max_new_tokens, self.on_violation, self.start_after = max_new_tokens, on_violation, start_after
        self.guides = tuple(guide) if isinstance(guide, (list, tuple)) else (guide,)
        if not self.guides:
            raise ValueError("at least one guide is needed")
        eos = None if eos_token_ids is None else tuple(np.atleast_1d(np.asarray(eos_token_ids)).tolist())
        if eos is not None and (not eos or not all(isinstance(i, int) and i >= 0 for i in eos)):
            raise ValueError(f"eos_token_ids must be token ids, not {eos_token_ids!r}")
        vocabulary = self._check_vocabularies()
        marker = None
        if start_after is not None:
            if vocabulary is None and tokenizer is not None:
                vocabulary = vocabulary_from(tokenizer)
            marker = Marker(start_after, vocabulary)
        default_eos = _eos_of(tokenizer)
        self._sources: list[Source] = [
            source_of(one, eos, default_eos, marker, max_new_tokens is not None) for one in self.guides
        ]
        self._all_plain = all(source.automaton is not None for source in self._sources)
        self._pads = _pads_of(tokenizer)
        self._least_columns = 0 if vocabulary is None else _text_columns(vocabulary, self._sources)
        self._begin()

    def _begin(self) -> None:
        self.violations = 0
        self._rows = RowTracker()
        self._buffer: MaskBuffer | None = None
        self._buffer_key: tuple[int, int, torch.device] | None = None
        self._automata: list[oc.TokenAutomaton] = []  # one a row

    def _check_vocabularies(self) -> Vocabulary | None:
        """The vocabulary of the automata, which must be one and that of the tokenizer if this is a `Vocabulary`."""
        automata = [g.automaton if isinstance(g, AutomatonGuide) else g for g in self.guides]
        vocabularies = [a.vocabulary for a in automata if isinstance(a, oc.TokenAutomaton)]
        if isinstance(self.tokenizer, Vocabulary):
            vocabularies.append(self.tokenizer)
        for other in vocabularies[1:]:
            if other.fingerprint != vocabularies[0].fingerprint:
                raise ValueError(
                    "the guides must be compiled against the vocabulary of the model: "
                    f"{vocabularies[0]!r} and {other!r}"
                )
        return vocabularies[0] if vocabularies else None

    # -- copies --------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the rows seen and the violations: the next call begins a new text, whatever its ids."""
        self._begin()

    def copy(self) -> Any:
        """A processor of the same kind for the same guides that has seen nothing."""
        twin = copy.copy(self)
        twin._begin()
        return twin

    def __getstate__(self) -> dict[str, Any]:
        own = {"_rows", "_buffer", "_buffer_key", "_automata", "violations"}
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.guide!r})"

    # -- a step --------------------------------------------------------------------------------------------------------

    def process_logits(self, input_ids: torch.LongTensor, logits: torch.Tensor) -> torch.Tensor:
        """See the class; one step of all rows.

        Raises:
            ValueError: rows that the guides cannot share equally; logits of another vocabulary.
            GuideError: a row can go on, but other processors have set each token that its guide allows to -inf; or
                `max_new_tokens` is too small for any text.
            TokenRejectedError: a forbidden token, if `on_violation` is "raise".
        """
        n_rows, n_columns = logits.shape
        n_guides = len(self._sources)
        if n_rows % n_guides:
            raise ValueError(f"{n_rows} rows cannot be shared equally by {n_guides} guides")
        if n_rows == 0:
            return logits.clone()
        if n_columns < self._least_columns:
            raise ValueError(
                f"the vocabulary has ids up to {self._least_columns - 1}, the logits only {n_columns} columns: they "
                "are of another model or tokenizer"
            )
        on_host = logits.device.type == "cpu"
        barred = None if on_host else torch.isneginf(logits).any(dim=1)
        flags = barred if barred is not None and barred.device == input_ids.device else None
        step = self._rows.match(input_ids, n_guides, flags, generate_call(self._rows.call))
        states = self._start_states(n_rows) if step.is_start else self._next_states(step)
        buffer = self._mask_buffer(n_rows, n_columns, logits.device)
        self._fill(states, step, buffer.words)
        is_open = np.ones(n_rows, dtype=np.uint8)
        if barred is None or (any(step.flags) if flags is not None else bool(barred.any())):
            masked = apply_mask(logits, buffer, is_open)
        else:  # nothing was barred before, so something is open: there is no need to wait for the answer
            masked = apply_mask(logits, buffer)
        if 0 in is_open.tobytes():
            self._open(np.flatnonzero(is_open == 0).tolist(), states, buffer, masked)
        self._rows.commit(states)
        return masked

    def _start_states(self, n_rows: int) -> list[Any]:
        refuse_other_tokenizers()
        per_guide = n_rows // len(self._sources)
        return [source.start for source in self._sources for _ in range(per_guide)]

    def _next_states(self, step: Step) -> list[Any]:
        per_guide = len(step.states) // len(self._sources)
        if self._all_plain and len(self._automata) == len(step.states):
            states = oc.next_states(self._automata, step.states, step.tokens)
            for r, (before, after) in enumerate(zip(step.states, states, strict=True)):
                if before in (DEAD, FINISHED):
                    states[r] = before
                elif after == DEAD:
                    states[r] = self._violation(r, step.tokens[r], step.n_generated - 1)
            return states
        states = []
        for r, (state, token) in enumerate(zip(step.states, step.tokens, strict=True)):
            if state not in (DEAD, FINISHED):
                state = self._sources[r // per_guide].step(state, token)
                if state == DEAD:
                    state = self._violation(r, token, step.n_generated - 1)
            states.append(state)
        return states

    def _violation(self, row: int, token: int, position: int) -> int:
        if token in self._pads:  # another stopping criterion has ended the row
            return FINISHED
        self.violations += 1
        if self.on_violation == "raise":
            raise TokenRejectedError(
                token,
                position=position,
                message=f"row {row}: token id {token}, generated at position {position}, was not allowed there",
            )
        return DEAD

    def _mask_buffer(self, n_rows: int, n_columns: int, device: torch.device) -> MaskBuffer:
        key = n_rows, max(n_columns, self._least_mask()), device
        if self._buffer is None or self._buffer_key != key:
            self._buffer, self._buffer_key = MaskBuffer(*key), key
        return self._buffer

    def _least_mask(self) -> int:
        return max(source.size for source in self._sources)

    def _fill(self, states: list[Any], step: Step, words: Any) -> None:
        left = None if self.max_new_tokens is None else self.max_new_tokens - step.n_generated
        per_guide = len(states) // len(self._sources)
        if self._all_plain:
            if len(self._automata) != len(states):
                self._automata = [s.automaton for s in self._sources if s.automaton for _ in range(per_guide)]
            masks_of = [state if state != DEAD else FINISHED for state in states]
            oc.fill_masks(self._automata, masks_of, words, None, _N_THREADS)
            return
        for r, state in enumerate(states):
            source = self._sources[r // per_guide]
            if state in (DEAD, FINISHED):
                source.fill_end(words[r])
            elif not source.fill(state, left, words[r]):
                if step.is_start:
                    raise GuideError(
                        f"max_new_tokens={self.max_new_tokens} is too small: the shortest text of guide "
                        f"{r // per_guide} takes {source.least()} tokens"
                        + (", start_after included" if source.marker else "")
                    )
                states[r] = self._violation(r, step.tokens[r], step.n_generated - 1)  # it used up the budget
                source.fill_end(words[r])

    def _open(self, closed: list[int], states: list[Any], buffer: MaskBuffer, masked: torch.Tensor) -> None:
        """Rows in which nothing is left: an ended row gets its EOS ids, a live one raises."""
        per_guide = len(states) // len(self._sources)
        for r in closed:
            source, state = self._sources[r // per_guide], states[r]
            if state in (DEAD, FINISHED):
                ends = [i for i in source.eos_ids if i < masked.shape[1]]
                masked[r, ends or [0]] = _FLOOR
                continue
            ids = unpack_ids(buffer.words[r])
            raise GuideError(
                f"row {r}: the guide allows {_listed(ids[ids < masked.shape[1]].tolist())} here, and the logits of "
                f"all of them were -inf already: another processor (min_new_tokens, suppress_tokens, bad_words_ids "
                f"...) contradicts the constraint ({_explained(source, state)})"
            )


class RegexLogitsProcessor(GuideLogitsProcessor):
    """Make every row match a regular expression as a whole.  Arguments: see `GuideLogitsProcessor`."""

    def __init__(
        self,
        regex_string: str,
        tokenizer: Any,
        tensor_library_name: str = "torch",
        *,
        eos_token_ids: int | Sequence[int] | None = None,
        start_after: int | str | bytes | None = None,
        max_new_tokens: int | None = None,
        on_violation: Literal["eos", "raise"] = "eos",
    ) -> None:
        vocabulary = vocabulary_from(tokenizer, eos_token_ids=eos_token_ids)
        super().__init__(
            vocabulary,
            oc.compile_regex(regex_string, vocabulary),
            tensor_library_name,
            start_after=start_after,
            max_new_tokens=max_new_tokens,
            on_violation=on_violation,
        )
        self.tokenizer, self._pads = tokenizer, _pads_of(tokenizer)
        self.regex_string = regex_string

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.regex_string!r})"


class JSONLogitsProcessor(GuideLogitsProcessor):
    """Make every row a JSON text whose value satisfies a schema.

    Args:
        schema: whatever `outlines_core.compile_json_schema` takes: a schema as dict, bool or JSON text, a pydantic
            model, a dataclass, a TypedDict, an Enum, a callable; or a list of G of them: row r of R then obeys schema
            ``r * G // R``.
        tokenizer: the tokenizer or `Vocabulary` of the model.
        tensor_library_name: as in `OutlinesLogitsProcessor`. A text that is no name is a `whitespace_pattern`, which
            an older signature has in this place.
        whitespace_pattern: `whitespace` as a regex, under its older name.
        whitespace, max_whitespace, property_order, ensure_ascii, lenient, registry, limits: as in
            `outlines_core.compile_json_schema`.
        eos_token_ids, start_after, max_new_tokens, on_violation: as in `GuideLogitsProcessor`.

    >>> import torch
    >>> vocabulary = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)})
    >>> processor = JSONLogitsProcessor([{"type": "boolean"}, {"type": "null"}], vocabulary, whitespace="compact")
    >>> scores = processor(torch.tensor([[1], [1]]), torch.zeros(2, 257))
    >>> ["".join(map(chr, row.isfinite().nonzero())) for row in scores]
    ['ft', 'n']
    """

    def __init__(
        self,
        schema: Any,
        tokenizer: Any,
        tensor_library_name: str | None = "torch",
        whitespace_pattern: str | None = None,
        *,
        whitespace: str = "flexible",
        max_whitespace: int = 64,
        property_order: Literal["schema", "any"] = "schema",
        ensure_ascii: bool = False,
        lenient: bool = False,
        registry: Any = None,
        limits: oc.Limits | None = None,
        eos_token_ids: int | Sequence[int] | None = None,
        start_after: int | str | bytes | None = None,
        max_new_tokens: int | None = None,
        on_violation: Literal["eos", "raise"] = "eos",
    ) -> None:
        if tensor_library_name is None or not tensor_library_name.isidentifier():
            if whitespace_pattern is None:
                whitespace_pattern = tensor_library_name
            tensor_library_name = "torch"
        vocabulary = vocabulary_from(tokenizer, eos_token_ids=eos_token_ids)
        guides = [
            JSONGuide(
                one,
                vocabulary,
                whitespace_pattern,
                whitespace=whitespace,
                max_whitespace=max_whitespace,
                property_order=property_order,
                ensure_ascii=ensure_ascii,
                lenient=lenient,
                registry=registry,
                limits=limits,
            )
            for one in (schema if isinstance(schema, (list, tuple)) else [schema])
        ]
        super().__init__(
            vocabulary,
            guides,
            tensor_library_name,
            start_after=start_after,
            max_new_tokens=max_new_tokens,
            on_violation=on_violation,
        )
        self.tokenizer, self._pads = tokenizer, _pads_of(tokenizer)
        self.schema = schema

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.schema!r})"


class CFGLogitsProcessor(GuideLogitsProcessor):
    """Make every row a text of a Lark grammar.

    Args:
        cfg_str: a Lark grammar, or a list of G of them: row r of R then obeys grammar ``r * G // R``.
        tokenizer: the tokenizer or `Vocabulary` of the model.
        tensor_library_name: as in `OutlinesLogitsProcessor`.
        start, postlex, parser, lexer, g_regex_flags, import_paths, dialect, limits: as in
            `outlines_core.compile_grammar`.
        eos_token_ids, start_after, max_new_tokens, on_violation: as in `GuideLogitsProcessor`.

    >>> import torch
    >>> vocabulary = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)})
    >>> processor = CFGLogitsProcessor('start: "(" start ")" | "x"', vocabulary)
    >>> "".join(map(chr, processor(torch.tensor([[1]]), torch.zeros(1, 257))[0].isfinite().nonzero()))
    '(x'
    """

    def __init__(
        self,
        cfg_str: str | Sequence[str],
        tokenizer: Any,
        tensor_library_name: str = "torch",
        *,
        start: str | Sequence[str] = "start",
        postlex: Any = None,
        parser: str | None = None,
        lexer: Literal["contextual", "basic", "dynamic", "dynamic_complete", "scannerless"] = "contextual",
        g_regex_flags: int = 0,
        import_paths: Sequence[Any] = (),
        dialect: Literal["lark", "extended"] = "lark",
        limits: oc.Limits | None = None,
        eos_token_ids: int | Sequence[int] | None = None,
        start_after: int | str | bytes | None = None,
        max_new_tokens: int | None = None,
        on_violation: Literal["eos", "raise"] = "eos",
    ) -> None:
        vocabulary = vocabulary_from(tokenizer, eos_token_ids=eos_token_ids)
        automata = [
            oc.compile_grammar(
                one,
                vocabulary,
                start=start,
                postlex=postlex,
                parser=parser,
                lexer=lexer,
                g_regex_flags=g_regex_flags,
                import_paths=import_paths,
                dialect=dialect,
                limits=limits,
            )
            for one in ([cfg_str] if isinstance(cfg_str, str) else cfg_str)
        ]
        super().__init__(
            vocabulary,
            automata,
            tensor_library_name,
            start_after=start_after,
            max_new_tokens=max_new_tokens,
            on_violation=on_violation,
        )
        self.tokenizer, self._pads = tokenizer, _pads_of(tokenizer)
        self.cfg_str = cfg_str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.cfg_str!r})"


def _pads_of(tokenizer: Any) -> frozenset[int]:
    pad = getattr(tokenizer, "pad_token_id", None)
    return frozenset({int(pad)} if isinstance(pad, (int, np.integer)) else ())


def _eos_of(tokenizer: Any) -> Sequence[int] | None:
    if tokenizer is None:
        return None
    if isinstance(tokenizer, Vocabulary):
        return tokenizer.eos_token_ids
    given = getattr(tokenizer, "eos_token_id", None)
    if isinstance(given, (int, np.integer)):
        return (int(given),)
    return tuple(given) if given else vocabulary_from(tokenizer).eos_token_ids


def _text_columns(vocabulary: Vocabulary, sources: Sequence[Source]) -> int:
    """1 + the largest id that is text or ends it: what the logits must have columns for."""
    table = vocabulary.table
    text = np.flatnonzero(np.diff(table.indptr))
    largest = int(text[-1]) if len(text) else -1
    return 1 + max(largest, *(i for source in sources for i in source.eos_ids))


def _explained(source: Source, state: Any) -> str:
    return "a free row" if type(state) is int and state < 0 else source.explain(state)


def _listed(ids: list[int]) -> str:
    shown = ", ".join(map(str, ids[:5]))
    return f"only token id {shown}" if len(ids) == 1 else f"{len(ids)} token ids ({shown}{', ...' * (len(ids) > 5)})"
