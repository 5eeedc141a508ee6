"""The options that name a constraint, the same in every command, and what they mean."""

from __future__ import annotations

import importlib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import outlines_core as oc
from processors import grammars
from processors.cli._failures import fail

__all__ = [
    "ChoiceOption",
    "Constraint",
    "GrammarOption",
    "PropertyOrder",
    "PropertyOrderOption",
    "RegexOption",
    "SchemaOption",
    "WhitespaceOption",
    "check_room",
    "compiled",
    "read_constraint",
]


class PropertyOrder(StrEnum):
    """The values of ``--property-order``."""

    SCHEMA = "schema"
    ANY = "any"


RegexOption = Annotated[
    str | None, typer.Option(metavar="PATTERN", help="The text matches this Python regex as a whole.")
]
ChoiceOption = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="The text is one of these; give it repeatedly.")
]
SchemaOption = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEMA",
        help="The text is JSON that is valid under this JSON Schema: a file, the schema's text itself, or MODULE:NAME "
        "for a pydantic model, dataclass, TypedDict, Enum or function that Python can import.",
    ),
]
GrammarOption = Annotated[
    str | None,
    typer.Option(
        metavar="GRAMMAR",
        help=f"The text is one of this Lark grammar: one that ships ({', '.join(grammars.list())}), a file, or the "
        "grammar's text itself, with a rule `start`.",
    ),
]
PropertyOrderOption = Annotated[
    PropertyOrder,
    typer.Option(
        metavar="schema|any", help="With --schema: keys in the schema's order, or in any.", case_sensitive=False
    ),
]
WhitespaceOption = Annotated[
    str,
    typer.Option(
        metavar="PATTERN",
        help="With --schema, what may stand between JSON tokens: a regex, compact (nothing) or flexible (all that "
        "JSON allows, line breaks too).",
    ),
]


@dataclass(frozen=True)
class Constraint:
    """A constraint as the command line names it.

    Attributes:
        compile: makes its automaton for a vocabulary.
        identity: what tells it from others: its kind, its text, the options that belong to it.
    """

    compile: Callable[[oc.Vocabulary], oc.TokenAutomaton]
    identity: dict[str, Any] = field(default_factory=dict)


def read_constraint(
    regex: str | None,
    choice: Sequence[str] | None,
    schema: str | None,
    grammar: str | None,
    property_order: PropertyOrder,
    whitespace: str,
) -> Constraint | None:
    """The constraint that a command's options name; None if they name none.

    Raises:
        typer.BadParameter: more than one, or one that cannot be read.
    """
    given = (regex is not None) + bool(choice) + (schema is not None) + (grammar is not None)
    if given > 1:
        raise typer.BadParameter("give one constraint: --regex, --schema, --grammar, or --choice once or more")
    if schema is not None:
        source = read_schema(schema)
        options: dict[str, Any] = {"property_order": property_order.value, "whitespace": whitespace}
        text = source.decode("utf-8", "replace") if isinstance(source, bytes) else source
        identity = {"schema": text if isinstance(text, str) else schema, **options}
        return Constraint(partial(oc.compile_json_schema, source, **options), identity)
    if grammar is not None:
        text, loading = read_grammar(grammar)
        return Constraint(partial(oc.compile_grammar, text, **loading), {"grammar": text})
    if regex is not None:
        return Constraint(partial(oc.compile_regex, regex), {"regex": regex})
    if choice:
        return Constraint(partial(oc.compile_choice, choice), {"choice": list(choice)})
    return None


def compiled(constraint: Constraint, vocabulary: oc.Vocabulary) -> oc.TokenAutomaton:
    """The automaton; ends the command where there is none."""
    try:
        automaton = constraint.compile(vocabulary)
        automaton.min_tokens_to_accept(automaton.initial_state)
    except oc.ConstraintError as error:
        fail(str(error), code=2)
    except oc.OutlinesCoreError as error:
        fail(str(error))
    except ValueError as error:  # whitespace that matches other characters
        fail(str(error), code=2)
    return automaton


def check_room(automaton: oc.TokenAutomaton, max_new_tokens: int) -> None:
    """End the command if no text of the constraint fits."""
    least = automaton.min_tokens_to_accept(automaton.initial_state)
    if least > max_new_tokens:
        fail(
            f"the shortest text that satisfies the constraint takes {least} tokens of this model: "
            f"--max-new-tokens {max_new_tokens} is too few",
            code=2,
        )


def read_schema(source: str) -> Any:
    """What `compile_json_schema` takes, from a file, a JSON text, or a name in a module."""
    hint = "--schema"
    if source.lstrip().startswith("{") or source.strip() in ("true", "false"):
        return source
    path = Path(source).expanduser()
    named = re.fullmatch(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)", source)
    if named is None or path.is_file():
        try:
            return path.read_bytes()
        except OSError as error:
            raise typer.BadParameter(
                f"{source} is neither JSON text nor MODULE:NAME, and as a file it cannot be read: {error.strerror}",
                param_hint=hint,
            ) from None
    module, name = named.groups()
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{source}: there is no module {error.name}", param_hint=hint) from None
    except AttributeError:
        raise typer.BadParameter(f"{source}: the module {module} has no {name}", param_hint=hint) from None


def read_grammar(source: str) -> tuple[str, dict[str, Any]]:
    """A Lark grammar and how it is loaded, from the name of a shipped one, a file, or the grammar's text."""
    if source in grammars.list():
        return grammars.load(source), grammars.options(source)
    if ":" in source and ("\n" in source or not Path(source).expanduser().is_file()):
        return source, {}
    try:
        return Path(source).expanduser().read_text(encoding="utf-8"), {}
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(
            f"{source} is no grammar that ships ({', '.join(grammars.list())}), no grammar's text, and as a file it "
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            param_hint="--grammar",
        ) from None
