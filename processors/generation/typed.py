"""`generate`: a prompt and a type -> a value of that type.

The text is generated under a constraint made from the type, is always whole (near the limit only tokens are allowed
after which it can still be ended), and is then read::

    class Person(BaseModel):
        name: str
        age: int

    generate(model, tokenizer, "Maria Lopez, 34, as JSON: ", Person)  # -> Person(name=..., age=...)
    generate(model, tokenizer, ["2 + 2 = ", "7 * 6 = "], int)         # -> [..., ...]
    generate(model, tokenizer, "Call me: ", re.compile("[0-9]{3}-[0-9]{4}"))  # -> text
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import lark

import outlines_core as oc
from processors.generation._random import Seeds, row_seeds
from processors.generation.builder import build_generate
from processors.generation.config import GenerationConfig, MultinomialSampling
from processors.tokenizers import vocabulary_from

__all__ = ["Grammar", "Regex", "generate"]

_DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True)
class Regex:
    """As an output type: a text that the pattern matches from start to end."""

    pattern: str


@dataclass(frozen=True)
class Grammar:
    """As an output type: a text of a Lark grammar.

    Attributes:
        text: the grammar.
        options: what `outlines_core.compile_grammar` takes beside it, such as ``{"start": "expression"}``.
    """

    text: str
    options: Mapping[str, Any] = field(default_factory=dict)


class _Reader(Protocol):
    def __call__(self, text: str, /) -> Any: ...


class _Output(NamedTuple):
    """What a type asks for: a constraint, and how its texts are read."""

    automaton: Any
    read: _Reader


def generate(
    model: Any,
    tokenizer: Any,
    prompt: str | Sequence[str],
    output_type: Any,
    *,
    max_new_tokens: int | None = None,
    config: GenerationConfig | None = None,
    seed: Seeds = None,
    params: Any = None,
    logits_processors: Sequence[Any] = (),
    whitespace: str = "flexible",
    max_whitespace: int = 64,
    property_order: Literal["schema", "any"] = "schema",
    limits: oc.Limits | None = None,
) -> Any:
    """Generate a value.

    Args:
        model: a transformers model that can generate.
        tokenizer: its tokenizer.
        prompt: one, or a list of them.
        output_type: what to generate. A pydantic model, dataclass, TypedDict, Literal, Enum, int, float, bool, str,
            date, list[...], Union and other types that pydantic knows: a value of it. A function: a dict of arguments
            to call it with. A JSON Schema as a dict: what `json.loads` makes of the text. `Regex` or a compiled
            pattern, `Grammar` or a `lark.Lark`: the text.
        max_new_tokens: the limit, by default that of `config`, or 256. Texts are ended in time.
        config: how to generate; default: what `model.generation_config` says.
        seed: in sampling: None for a fresh one, an int, or one a prompt.
        params: weights in place of the model's own.
        logits_processors: further processors, see `build_generate`.
        whitespace, max_whitespace, property_order: of JSON, as in `outlines_core.compile_json_schema`.
        limits: what compiling may cost.

    Returns:
        The value, or a list of them if `prompt` is a list.

    Raises:
        ImportError: a type that needs pydantic, which is not installed.
        TypeError: an output type of no known kind.
        ValueError: stop strings in the config, which would cut a text off; or a validator of the type's own has refused
            a value (`pydantic.ValidationError`).
        UnsupportedFeatureError: a type that has no JSON Schema.
        GuideError: the limit is too small for any text, or rules of the config contradict the type.
    """
    if config is None:
        own = model.generation_config
        has_limit = own.max_new_tokens is not None or own.max_length is not None
        config = GenerationConfig.from_model(model, **({} if has_limit else {"max_new_tokens": _DEFAULT_NEW_TOKENS}))
    if max_new_tokens is not None:
        config = config.configure(max_new_tokens=max_new_tokens)
    if config.stop_strings:
        raise ValueError("stop_strings would cut texts off: a typed result is always whole")
    vocabulary = vocabulary_from(tokenizer, eos_token_ids=config.eos_token_ids or None)
    if not config.eos_token_ids:
        config = config.configure(eos_token_id=vocabulary.eos_token_ids)
    json_options = {"whitespace": whitespace, "max_whitespace": max_whitespace, "property_order": property_order}
    output = _output(output_type, vocabulary, json_options, limits)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        return []
    inputs = _inputs(tokenizer, prompts, config)
    if isinstance(config.strategy, MultinomialSampling):
        inputs["seed"] = row_seeds(seed, len(prompts))
    function = build_generate(model, model.config, config, logits_processors=logits_processors, guide=output.automaton)
    made = function(params, inputs)
    assert isinstance(made, dict)
    values = []
    for row, length in zip(made["token_ids"].tolist(), made["length"].tolist(), strict=True):
        text = b"".join(vocabulary.token_bytes(token) for token in row[:length])
        values.append(output.read(text.decode()))
    return values[0] if isinstance(prompt, str) else values


def _inputs(tokenizer: Any, prompts: Sequence[str], config: GenerationConfig) -> dict[str, Any]:
    """Ids and mask, padded on the right: the positions of some encoders count what stands on the left."""
    start = [] if config.bos_token_id is None else [config.bos_token_id]
    rows = [list(tokenizer(one)["input_ids"]) or start for one in prompts]
    if not all(rows):
        raise ValueError("a prompt without tokens, and no bos_token_id to begin with")
    width = max(map(len, rows))
    pads = [[0] * (width - len(row)) for row in rows]
    return {
        "input_ids": [row + pad for row, pad in zip(rows, pads, strict=True)],
        "attention_mask": [[1] * len(row) + pad for row, pad in zip(rows, pads, strict=True)],
    }


def _output(output_type: Any, vocabulary: Any, json_options: Any, limits: oc.Limits | None) -> _Output:
    if isinstance(output_type, re.Pattern):
        output_type = Regex(_inline(output_type))
    if isinstance(output_type, lark.Lark):
        output_type = _of_lark(output_type)
    if isinstance(output_type, Regex):
        return _Output(oc.compile_regex(output_type.pattern, vocabulary, limits=limits), str)
    if isinstance(output_type, Grammar):
        options = dict(output_type.options)
        return _Output(oc.compile_grammar(output_type.text, vocabulary, limits=limits, **options), str)
    if isinstance(output_type, dict):
        return _Output(oc.compile_json_schema(output_type, vocabulary, limits=limits, **json_options), json.loads)
    if isinstance(output_type, (str, bytes)):
        raise TypeError("a text as output type could be a pattern or a grammar: say Regex(...) or Grammar(...)")
    try:
        from processors.generation._values import Values
    except ImportError as error:
        raise ImportError(
            f"values of {output_type!r} are read by pydantic, but {error.name or error} could not be imported: "
            "pip install 'outlines-processors[typed]'",
            name=error.name,
        ) from error
    values = Values(output_type)
    return _Output(oc.compile_json_schema(values.schema, vocabulary, limits=limits, **json_options), values.parse)


def _inline(pattern: re.Pattern[Any]) -> str:
    """The pattern with its flags written at its beginning, in the place of those that may be there."""
    text = pattern.pattern
    if isinstance(text, bytes):
        raise TypeError("a pattern of bytes: texts are generated")
    letters = {re.ASCII: "a", re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x"}
    flags = "".join(letter for flag, letter in letters.items() if pattern.flags & flag)
    return f"(?{flags})" * bool(flags) + re.sub(r"\A\(\?[aimsux]+\)", "", text)


def _of_lark(parser: lark.Lark) -> Grammar:
    options = parser.options
    return Grammar(
        parser.source_grammar,
        {
            "start": list(options.start),
            "parser": options.parser,
            "lexer": options.lexer,
            "postlex": options.postlex,
            "g_regex_flags": options.g_regex_flags,
            "import_paths": list(options.import_paths),
        },
    )
