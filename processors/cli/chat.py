"""``python -m processors chat``: a conversation with a model, its answers under a constraint if one is given."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

import outlines_core as oc
from processors.cli._constraints import (
    ChoiceOption,
    GrammarOption,
    PropertyOrder,
    PropertyOrderOption,
    RegexOption,
    SchemaOption,
    WhitespaceOption,
    check_room,
    compiled,
    read_constraint,
)
from processors.cli._failures import fail
from processors.cli._models import EMBEDDED, DeviceOption, ModelOption, SeedOption, load

__all__ = ["EXAMPLES", "chat"]

EXAMPLES = """Examples:

\b
  python -m processors chat
  python -m processors chat --schema person.json --system "Be brief."
  printf 'Extract: Maria Lopez, 34, lives in Oslo\\nAs SQL\\n' | python -m processors chat --greedy

Each line is a message. /new begins a new conversation, /quit or the end of the input ends the command, Ctrl-C stops an
answer, which is then forgotten with its question.
"""


def chat(
    model: ModelOption = EMBEDDED,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system message before the conversation.")
    ] = None,
    regex: RegexOption = None,
    choice: ChoiceOption = None,
    schema: SchemaOption = None,
    grammar: GrammarOption = None,
    property_order: PropertyOrderOption = PropertyOrder.SCHEMA,
    whitespace: WhitespaceOption = "[ ]?",
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="At most this many tokens an answer.")] = 256,
    seed: SeedOption = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="Sample at this temperature, above 0.  [default: 0.7]")
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token instead of sampling.")] = False,
    device: DeviceOption = None,
) -> None:
    """Talk with a model, line by line; it remembers the conversation, and its answers obey the constraint."""
    constraint = read_constraint(regex, choice, schema, grammar, property_order, whitespace)
    if temperature is not None and (greedy or not 0 < temperature < float("inf")):
        raise typer.BadParameter("--temperature is a number above 0 and excludes --greedy")
    loaded, tokenizer = load(model, device)
    from processors.generation import ChatSampler, Greedy, RandomSampling, Sampler
    from processors.tokenizers import vocabulary_from

    if getattr(tokenizer, "chat_template", None) is None:
        fail(f"--model {model}: its tokenizer has no chat template, so it is not a model to talk with", code=2)
    try:
        sampler = Sampler(
            loaded,
            tokenizer=tokenizer,
            sampling=Greedy() if greedy else RandomSampling(temperature=0.7 if temperature is None else temperature),
            max_out_length=max_new_tokens,
        )
        automaton = None
        if constraint is not None:
            eos = loaded.generation_config.eos_token_id
            automaton = compiled(constraint, vocabulary_from(tokenizer, eos_token_ids=eos))
            check_room(automaton, max_new_tokens)
    except oc.OutlinesCoreError as error:
        fail(str(error))
    talk = ChatSampler(sampler, system=system, multi_turn=True)
    number = secrets.randbelow(2**31) if seed is None else seed
    for message in _messages():
        if message == "/new":
            talk.reset()
            continue
        try:
            _answer(
                talk, message, guide=automaton, close=automaton is not None, rng=number, max_new_tokens=max_new_tokens
            )
        except KeyboardInterrupt:
            typer.echo(" (stopped)", err=True)
        except (oc.OutlinesCoreError, ValueError) as error:  # ValueError: a conversation that is too long
            fail(str(error))
        number = (number + 1) % 2**32


def _answer(talk: Any, message: str, **options: Any) -> None:
    """Write an answer as it comes."""
    for piece in talk.chat(message, stream=True, **options):
        typer.echo(piece.encode("utf-8", "surrogatepass"), nl=False)
        sys.stdout.flush()
    typer.echo()


def _messages() -> Iterator[str]:
    """The lines of the input; asked for, if it is a terminal."""
    asks = sys.stdin.isatty()
    if asks:
        typer.echo("/new begins anew, /quit ends.", err=True)
    while True:
        if asks:
            typer.echo("> ", nl=False, err=True)
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            line = ""
        message = line.strip()
        if not line or message == "/quit":
            return
        if message:
            yield message
