"""Tools that a chat model may call: their declarations, the guide that calls obey, and what was called.

A call is written as the model was trained to (`ToolFormat`): an opener, JSON with the tool's name and its arguments, a
closer. Until the opener the answer is free; from there on it is one or more calls of declared tools whose arguments
satisfy the tool's schema, and then the end. So a call always parses, and always names a tool that exists.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import outlines_core as oc
from outlines_core.json_schema.sources import to_schema
from outlines_core.vocabulary import Vocabulary
from processors._sources import DONE, Marker

__all__ = ["Tool", "ToolCall", "ToolFormat", "call_guide", "read_calls", "read_tool"]


@dataclass(frozen=True)
class ToolFormat:
    """How a model writes calls; the default is that of Hermes, Qwen and their kin.

    Attributes:
        opener, closer: texts, or names of special tokens; around each call. The closer may be empty.
        name_key, arguments_key: of the JSON object.
        gap: may stand between these three, and between calls.
    """

    opener: str = "<tool_call>"
    closer: str = "</tool_call>"
    name_key: str = "name"
    arguments_key: str = "arguments"
    gap: str = "\n"


@dataclass(frozen=True)
class Tool:
    """A tool.

    Attributes:
        name: what the model calls it.
        description: what it does.
        parameters: a JSON Schema of type "object".
        run: takes the arguments by name.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: Callable[..., Any]

    def declaration(self) -> dict[str, Any]:
        """As chat templates take it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolCall:
    """A call that a model has made."""

    name: str
    arguments: dict[str, Any]

    def message(self) -> dict[str, Any]:
        """As chat templates take it."""
        return {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def read_tool(tool: Any, handler: Callable[[str, dict[str, Any]], Any] | None) -> Tool:
    """A tool from a function with annotated parameters, or from a declaration and a handler.

    Args:
        tool: a callable; or ``{"name", "description", "parameters"}``, also inside of ``{"function": ...}``.
        handler: called with name and arguments of tools that are declarations.

    Raises:
        ValueError: a declaration without a handler, or without a name; parameters that are no object.
    """
    if isinstance(tool, Tool):
        return tool
    if callable(tool):
        name = getattr(tool, "__name__", type(tool).__name__)
        return Tool(name, inspect.getdoc(tool) or "", _parameters(to_schema(tool), name), tool)
    declared = tool.get("function", tool)
    name = declared.get("name")
    if not name:
        raise ValueError(f"a tool needs a name: {tool!r}")
    if handler is None:
        raise ValueError(f"the tool {name!r} is a declaration: give tool_handler=, which runs it")
    schema = _parameters(declared.get("parameters", {"type": "object", "properties": {}}), name)
    return Tool(name, declared.get("description", ""), schema, lambda **arguments: handler(name, arguments))


def _parameters(schema: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise ValueError(f"the parameters of the tool {name!r} must be an object, not {schema!r}")
    return schema


def call_guide(tools: Sequence[Tool], form: ToolFormat, vocabulary: Vocabulary, *, opened: bool) -> oc.TokenAutomaton:
    """The automaton of one or more calls, and nothing else.

    Args:
        opened: does the text begin behind the first opener?

    Raises:
        ConstraintError: a schema that cannot be enforced.
    """
    schemas = [
        {
            "type": "object",
            "properties": {form.name_key: {"const": tool.name}, form.arguments_key: dict(tool.parameters)},
            "required": [form.name_key, form.arguments_key],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    gap = f"{json.dumps(form.gap)}?" if form.gap else ""
    opener, closer = (_symbol(text, vocabulary) for text in (form.opener, form.closer))
    choices = " | ".join(f"%json {json.dumps(schema)}" for schema in schemas)
    call = f"{gap} value {gap} {closer}"
    first = call if opened else f"{opener} {call}"
    grammar = f"start: {first} ({gap} {opener} {call})*\nvalue: {choices}\n"
    return oc.compile_grammar(grammar, vocabulary, dialect="extended")


def _symbol(text: str, vocabulary: Vocabulary) -> str:
    """A text, or a special token, in a rule of the extended dialect."""
    if text in vocabulary.special_tokens:
        return f"<[{vocabulary.special_tokens[text]}]>"
    return json.dumps(text) if text else ""


def read_calls(
    tokens: Sequence[int], form: ToolFormat, vocabulary: Vocabulary, *, begins: bool = False
) -> tuple[str, list[ToolCall]]:
    """The text before the first call, and the calls.

    Args:
        tokens: an answer that obeyed the guide.
        begins: does it begin with a call, because it had to?

    Raises:
        ValueError: the answer was cut inside of a call.
    """
    marks = {
        vocabulary.special_tokens[m]: m.encode() for m in (form.opener, form.closer) if m in vocabulary.special_tokens
    }

    def text(part: Sequence[int]) -> str:
        return b"".join(marks.get(token) or vocabulary.token_bytes(token) for token in part).decode("utf-8", "replace")

    n_free = 0 if begins else _free_tokens(tokens, form, vocabulary)
    if n_free is None:
        return text(tokens), []
    free, _, rest = text(tokens[:n_free]).rpartition(form.opener)
    rest += text(tokens[n_free:])
    calls: list[ToolCall] = []
    decoder = json.JSONDecoder()
    opened = not begins
    while opened or rest:
        rest = (rest if opened else rest.removeprefix(form.gap).removeprefix(form.opener)).removeprefix(form.gap)
        try:
            value, end = decoder.raw_decode(rest)
        except ValueError as error:
            raise ValueError(f"the answer was cut inside of a tool call, give it more tokens: {rest!r}") from error
        calls.append(ToolCall(value[form.name_key], value[form.arguments_key]))
        rest, opened = rest[end:].removeprefix(form.gap).removeprefix(form.closer), False
    return free, calls


def _free_tokens(tokens: Sequence[int], form: ToolFormat, vocabulary: Vocabulary) -> int | None:
    """How many tokens there are up to the end of the first opener, where the guide began; None if there is none."""
    marker, progress = Marker(form.opener, vocabulary), 0
    for n, token in enumerate(tokens, 1):
        progress = marker.step(progress, token)
        if progress == DONE:
            return n
    return None
