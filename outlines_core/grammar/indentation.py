"""Blocks by indentation, as `lark.indenter.Indenter` reads them.

A newline token carries the newline and what indents the next line. After it come tokens without text: INDENT if the
column is past that of the open block, a DEDENT for each block that ends. Within brackets newlines do not count.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from lark.indenter import Indenter

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.grammar.loading import END, Terminal
from outlines_core.grammar.rows import Rows
from outlines_core.grammar.stacks import Stacks

__all__ = ["FLAT", "Indentation", "Indents"]

_NO_COLUMN: Final = -1


class Indents(NamedTuple):
    """The columns of the open blocks, and how many brackets are open."""

    columns: tuple[int, ...]
    brackets: int


FLAT: Final = Indents((0,), 0)


class Indentation:
    """An `Indenter` by terminal numbers.

    Raises:
        UnsupportedFeatureError: a postlex that is no Indenter.
    """

    def __init__(self, postlex: Any, terminals: tuple[Terminal, ...]) -> None:
        if not isinstance(postlex, Indenter):
            raise UnsupportedFeatureError(
                f"postlex {type(postlex).__name__}: only subclasses of lark.indenter.Indenter and of "
                "outlines_core.grammar.postlex.PostLex are known",
                feature="postlex",
            )
        kind = type(postlex)
        for name in ("handle_NL", "_process", "process"):
            if getattr(kind, name) is not getattr(Indenter, name):
                raise UnsupportedFeatureError(
                    f"postlex {kind.__name__} changes {name} of lark.indenter.Indenter", feature="postlex"
                )
        number = {t.name: k for k, t in enumerate(terminals)}
        self.newline = number[postlex.NL_type]
        self.indent, self.dedent = number[postlex.INDENT_type], number[postlex.DEDENT_type]
        self.opening = frozenset(number[n] for n in postlex.OPEN_PAREN_types if n in number)
        self.closing = frozenset(number[n] for n in postlex.CLOSE_PAREN_types if n in number)
        self.tab = postlex.tab_len

    def column(self, column: int, byte: int) -> int:
        """The column after one more byte of a lexeme; -1 before its first newline."""
        if byte == 0x0A:
            return 0
        if column == _NO_COLUMN:
            return column
        return column + (1 if byte == 0x20 else self.tab if byte == 0x09 else 0)

    def after(
        self, stacks: Stacks | Rows, stack: int, indents: Indents, terminal: int, column: int
    ) -> tuple[int, Indents] | None:
        """Stack and indents after a terminal whose text ends in `column`; None if the parser or indenter refuses."""
        columns, brackets = indents
        if terminal != self.newline or not brackets:
            following = stacks.after(stack, terminal)
            if following is None:
                return None
            stack = following
        if terminal == self.newline and not brackets:
            if column == _NO_COLUMN:  # Lark looks for a newline in it
                return None
            zero_width = []
            if column > columns[-1]:
                columns = (*columns, column)
                zero_width = [self.indent]
            while column < columns[-1]:
                columns = columns[:-1]
                zero_width.append(self.dedent)
            if column != columns[-1]:
                return None
            for one in zero_width:
                following = stacks.after(stack, one)
                if following is None:
                    return None
                stack = following
        if terminal in self.opening:
            brackets += 1
        elif terminal in self.closing:
            brackets -= 1
            if brackets < 0:
                return None
        return stack, Indents(columns, brackets)

    def ends(self, stacks: Stacks | Rows, stack: int, indents: Indents) -> bool:
        """May the text end here?"""
        for _ in indents.columns[1:]:
            following = stacks.after(stack, self.dedent)
            if following is None:
                return False
            stack = following
        return stacks.after(stack, END) is not None
