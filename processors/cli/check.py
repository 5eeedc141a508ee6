"""``python -m processors check``: does a text satisfy a constraint, and where does it stop doing so?

The constraint is compiled for a vocabulary of the 256 bytes, so no model is needed, and the text is walked byte by
byte. The place shown is that of the first byte after which nothing could be appended any more to make the text right.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

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
    compiled,
    read_constraint,
)
from processors.cli._failures import fail

__all__ = ["EXAMPLES", "Finding", "check", "find"]

EXAMPLES = """Examples:

\b
  python -m processors check --regex "[0-9]{4}-[0-9]{2}" 2026-1x
  python -m processors check --schema person.json --file answer.json
  some-program | python -m processors check --schema package.models:Person --file -
  python -m processors check --grammar sqlite --json "SELECT name FROM people WHERE"

The exit code is 0 if the text satisfies the constraint, 1 if it does not, 2 if the command is wrong.
"""

_WIDEST = 76
"""Characters of a line that are shown around the place."""


@dataclass(frozen=True)
class Finding:
    """Where a text leaves a constraint.

    Attributes:
        byte: offset of the first byte that cannot stand there, or the length of the text.
        offset: of its character.
        line, column: of its character, from 1.
        found: the character; None if the text ends too early.
        expected: in words.
    """

    byte: int
    offset: int
    line: int
    column: int
    found: str | None
    expected: str


def check(
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="The text; or give --file.")] = None,
    file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Read the text from FILE; - is standard input.")
    ] = None,
    regex: RegexOption = None,
    choice: ChoiceOption = None,
    schema: SchemaOption = None,
    grammar: GrammarOption = None,
    property_order: PropertyOrderOption = PropertyOrder.SCHEMA,
    whitespace: WhitespaceOption = "flexible",
    as_json: Annotated[
        bool, typer.Option("--json", help="The answer as a JSON object: satisfied, and if not, where and why.")
    ] = False,
) -> None:
    """Say whether a text satisfies a constraint, and if not, where it fails and what was expected there."""
    constraint = read_constraint(regex, choice, schema, grammar, property_order, whitespace)
    if constraint is None:
        raise typer.BadParameter("give one constraint: --regex, --schema, --grammar, or --choice once or more")
    if (text is None) == (file is None):
        raise typer.BadParameter("give something to check: either a TEXT or --file")
    data = text.encode("utf-8", "surrogateescape") if text is not None else _read(str(file))
    automaton = compiled(constraint, oc.Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)}))
    try:
        finding = find(automaton, data)
    except oc.OutlinesCoreError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps({"satisfied": finding is None, **(asdict(finding) if finding else {})}))
    elif finding is None:
        typer.echo("satisfied")
    else:
        typer.echo(_shown(finding, data))
    if finding is not None:
        raise typer.Exit(1)


def find(automaton: oc.TokenAutomaton, data: bytes) -> Finding | None:
    """Where a text leaves a constraint; None if it satisfies it.

    Args:
        automaton: of a vocabulary in which token b is the byte b.
        data: the text.
    """
    accepted, state = automaton.accept_tokens(automaton.initial_state, list(data))
    if accepted == len(data) and automaton.is_accepting(state):
        return None
    _, state = automaton.accept_tokens(automaton.initial_state, list(data[:accepted]))
    # A character that is wrong in its second byte is shown from its first one.
    before = data[:accepted].decode("utf-8", "ignore")
    rest = data[len(before.encode()) :].decode("utf-8", "replace")
    line_start = before.rfind("\n") + 1
    return Finding(
        byte=accepted,
        offset=len(before),
        line=before.count("\n") + 1,
        column=len(before) - line_start + 1,
        found=rest[:1] or None,
        expected=automaton.explain(state),
    )


def _read(file: str) -> bytes:
    """The bytes of a file or of standard input, without the line break that ends the last line."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="--file") from None
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _shown(finding: Finding, data: bytes) -> str:
    line = data.decode("utf-8", "replace").split("\n")[finding.line - 1]
    at = finding.column - 1
    start = max(0, at - _WIDEST // 2)
    excerpt = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line[start : start + _WIDEST])
    what = "the text ends too early" if finding.found is None else f"{finding.found!r} cannot stand here"
    return (
        f"not satisfied: {what} (line {finding.line}, column {finding.column}, byte {finding.byte})\n"
        f"  {excerpt}\n  {' ' * (at - start)}^\nexpected by {finding.expected}"
    )
