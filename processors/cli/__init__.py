"""The command line: ``python -m processors COMMAND``.

Each command is a module here, a function with annotated parameters that `app` registers; what they share is private:
the options that name a constraint (`_constraints`), models and failures (`_models`, `_failures`), the file that a batch
writes (`_journal`).

Exit codes: 0, all is well; 1, something failed while running, an output was cut short, or a checked text does not
satisfy its constraint; 2, the command itself is wrong: an option, an input file, or a constraint that cannot be
compiled (shown with its place). Results go to standard output, everything else to standard error; progress is drawn
only on a terminal.
"""

from __future__ import annotations

from typing import Annotated

import typer

import outlines_core as oc
from processors.cli import chat, check, generate, look_ahead

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts hold patterns such as [a-z], which are not markup
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Generate text that satisfies a constraint, exactly; chat; check texts; look at the next bytes."""
    if version:
        typer.echo(f"outlines-processors {oc.__version__}")
        raise typer.Exit


app.command(epilog=generate.EXAMPLES)(generate.generate)
app.command(epilog=chat.EXAMPLES)(chat.chat)
app.command(epilog=check.EXAMPLES)(check.check)
app.command("bytes", epilog=look_ahead.EXAMPLES)(look_ahead.look_ahead)


def main() -> None:
    """What ``python -m processors`` runs."""
    app(prog_name="python -m processors")
