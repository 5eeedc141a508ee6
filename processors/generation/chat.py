"""`ChatSampler`: a conversation over a model's chat template, with tools.

    chat = ChatSampler(model, tokenizer=tokenizer, multi_turn=True, tools=[weather])
    chat.chat("Is it cold in Oslo?")

Each answer is what a `Sampler` gives for the whole conversation, rendered anew: templates may treat earlier turns
otherwise than they did when these were new. What the rendering has in common with what the cache holds is not computed
again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from processors.generation._prompts import encoder_of
from processors.generation._random import Seeds
from processors.generation.sampler import Sampler
from processors.generation.sampling import SamplingMethod
from processors.generation.state import SamplingState
from processors.generation.tools import ToolFormat, call_guide, read_calls, read_tool

__all__ = ["ChatSampler"]


class ChatSampler:
    """A sampler that remembers a conversation.

    Attributes:
        sampler: answers.
        turns: the messages so far; they change only when an answer is complete.
        multi_turn: does a conversation go on with the next `chat`?
        tools: what the model may call.
    """

    def __init__(
        self,
        model: Any,
        params: Mapping[str, Any] | None = None,
        *,
        system: str | None = None,
        multi_turn: bool = False,
        turns: Sequence[Mapping[str, Any]] = (),
        tools: Sequence[Any] = (),
        tool_handler: Callable[[str, dict[str, Any]], Any] | None = None,
        tool_format: ToolFormat | None = None,
        max_tool_rounds: int = 8,
        **options: Any,
    ) -> None:
        """A conversation.

        Args:
            model: a model, or a `Sampler`, which then has all `options`.
            params: as for `Sampler`.
            system: the content of a system message that stands before all turns.
            multi_turn: see `chat`.
            turns: messages that were exchanged before.
            tools: functions with annotated parameters, or declarations (``{"name", "description", "parameters"}``).
            tool_handler: runs declared tools: takes a name and arguments.
            tool_format: how the model writes calls.
            max_tool_rounds: how often the model may answer with calls before an answer without.
            options: the other fields of `Sampler`.

        Raises:
            ValueError: tools that cannot be run; options beside a `Sampler`.
            TypeError: a tokenizer without chat template.
            ConstraintError: the schema of a tool cannot be enforced.
        """
        if isinstance(model, Sampler):
            if options or params is not None:
                raise ValueError(f"a Sampler has its own {', '.join(options) or 'params'}")
            self.sampler = model
        else:
            self.sampler = Sampler(model, params, **options)
        if not hasattr(self.sampler.tokenizer, "apply_chat_template"):
            raise TypeError(f"{type(self.sampler.tokenizer).__name__} has no chat template")
        self.multi_turn, self.max_tool_rounds = multi_turn, max_tool_rounds
        self.turns: tuple[dict[str, Any], ...] = tuple(dict(turn) for turn in turns)
        self.tools = tuple(read_tool(tool, tool_handler) for tool in tools)
        self._format = ToolFormat() if tool_format is None else tool_format
        template = str(getattr(self.sampler.tokenizer, "chat_template", None))
        self._shows_tools, self._shows_calls = "tools" in template, "tool_calls" in template
        self._system = self._system_text(system)
        self._state: SamplingState | None = None
        self._images: tuple[Any, ...] = ()
        vocabulary = self.sampler.vocabulary
        self._guides = {
            opened: call_guide(self.tools, self._format, vocabulary, opened=opened)
            for opened in ((True, False) if self.tools else ())
        }

    @property
    def conversation(self) -> list[dict[str, Any]]:
        """All messages, the system's included, as a chat template takes them."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, *(dict(turn) for turn in self.turns)]

    def reset(self) -> None:
        """Forget the turns."""
        self.turns, self._state, self._images = (), None, ()

    def chat(
        self,
        prompt: Any,
        *,
        images: Sequence[Any] | None = None,
        multi_turn: bool | None = None,
        stream: bool = False,
        sampling: SamplingMethod | None = None,
        rng: Seeds = None,
        max_new_tokens: int | None = None,
        guide: Any = None,
        close: bool = False,
        tool_choice: Literal["auto", "required", "none"] = "auto",
    ) -> Any:
        """Say something, and get the answer.

        Args:
            prompt: the content of a user's message, as the chat template takes it.
            images: that it shows.
            multi_turn: go on with the conversation, or begin a new one; default: the attribute.
            stream: return an iterator of pieces; the turns change when it is exhausted. Not with tools.
            sampling, rng, max_new_tokens: as in `Sampler.sample`, for each answer. A seed given once is used for the
                first answer; random numbers go on in later rounds.
            guide: that the answer obeys; not with tools, unless `tool_choice` is "none".
            close: end a guided answer within `max_new_tokens`.
            tool_choice: may the answer call tools, must it (the first one; the calls then end within
                `max_new_tokens`), or not.

        Returns:
            The text of the answer that calls no tool.

        Raises:
            ValueError: options that exclude each other; an answer that was cut inside of a call.
            RuntimeError: calls without end. The conversation is then as it was before, as after any error.
        """
        if not (self.multi_turn if multi_turn is None else multi_turn):
            self.reset()
        calling = bool(self.tools) and tool_choice != "none"
        if tool_choice == "required" and not self.tools:
            raise ValueError('tool_choice="required" without tools')
        for name, given in (("guide", guide is not None), ("stream", stream), ("images", images is not None)):
            if given and calling:
                raise ValueError(f'{name} cannot be used while tools may be called: pass tool_choice="none"')
        options = {"sampling": sampling, "rng": rng, "max_new_tokens": max_new_tokens}
        turns = [*self.turns, {"role": "user", "content": prompt}]
        images = (*self._images, *(images or ()))
        if stream:
            return self._stream(turns, images, {**options, "guide": guide, "close": close})
        if not calling:
            return "".join(self._stream(turns, images, {**options, "guide": guide, "close": close}))
        return self._with_tools(turns, options, tool_choice)

    def _stream(self, turns: list[dict[str, Any]], images: tuple[Any, ...], options: dict[str, Any]) -> Iterator[str]:
        steps = self._sample(turns, images, {**options, "stream": True})

        def pieces() -> Iterator[str]:
            text, state = "", None
            for step in steps:
                text, state = text + step.text, step.state
                if step.text:
                    yield step.text
            turns.append({"role": "assistant", "content": text})
            self.turns, self._state, self._images = tuple(turns), state, images

        return pieces()

    def _with_tools(self, turns: list[dict[str, Any]], options: dict[str, Any], tool_choice: str) -> str:
        state = self._state
        by_name = {tool.name: tool for tool in self.tools}
        for k in range(self.max_tool_rounds + 1):
            must = k == 0 and tool_choice == "required"
            begin = None if must else self._format.opener
            constraint = {"guide": self._guides[not must], "start_after": begin, "close": must}
            output = self._sample(turns, (), {**options, **constraint}, state)
            tokens = output.tokens[: output.lengths[0]].tolist()
            text, calls = read_calls(tokens, self._format, self.sampler.vocabulary, begins=must)
            state, options["rng"] = output.state, None
            if not calls:
                turns.append({"role": "assistant", "content": text})
                self.turns, self._state = tuple(turns), state
                return text
            if self._shows_calls:
                turns.append({"role": "assistant", "content": text, "tool_calls": [call.message() for call in calls]})
            else:
                turns.append({"role": "assistant", "content": output.text})
            for call in calls:
                result = by_name[call.name].run(**call.arguments)
                content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
                turns.append({"role": "tool", "name": call.name, "content": content})
        raise RuntimeError(
            f"the model went on calling tools after {self.max_tool_rounds} rounds of answers to its calls"
        )

    def _sample(
        self,
        turns: Sequence[Mapping[str, Any]],
        images: tuple[Any, ...],
        options: dict[str, Any],
        state: SamplingState | None = None,
    ) -> Any:
        """The sampler's output for a conversation; begins with what the state has in common with it."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        messages = [*system, *turns]
        if images:
            return self.sampler.sample(messages, images=list(images), return_state=True, **options)
        tokenizer = self.sampler.tokenizer
        tools = {"tools": [tool.declaration() for tool in self.tools]} if self.tools and self._shows_tools else {}
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **tools)
        ids = encoder_of(tokenizer)(text)
        state = self._state if state is None else state
        kept = _kept(state, ids)
        return self.sampler.sample(
            ids[0 if kept is None else len(kept.tokens()[0]) :], last_state=kept, return_state=True, **options
        )

    def _system_text(self, system: str | None) -> str | None:
        """The system message; with the tools, if the template does not show them."""
        if not self.tools or self._shows_tools:
            return system
        form = self._format
        call = {form.name_key: "<name>", form.arguments_key: "<arguments>"}
        declared = "\n".join(json.dumps(tool.declaration()["function"], ensure_ascii=False) for tool in self.tools)
        how = f"You can call these tools:\n{declared}\nA call is written {form.opener}{json.dumps(call)}{form.closer}"
        return how if system is None else f"{system}\n\n{how}"


def _kept(state: SamplingState | None, ids: Sequence[int]) -> SamplingState | None:
    """The state after what its context and `ids` have in common, with at least one of `ids` left to be fed."""
    if state is None or state.past is None or not state.past.kind.is_columnar:
        return None
    known = state.tokens()[0]
    most = min(len(known), len(ids) - 1)
    n = next((k for k in range(most) if known[k] != ids[k]), most)
    return state.keep(n) if n else None
