"""How a command ends when it cannot go on: one line on standard error, and an exit code."""

from __future__ import annotations

from typing import NoReturn

import typer

__all__ = ["fail", "first_line"]


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command: 1 for what went wrong on the way, 2 for what is wrong with the command."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def first_line(error: BaseException) -> str:
    """What an error of another library says, without its essay."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
