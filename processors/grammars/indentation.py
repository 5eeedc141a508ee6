"""The indenter of the Python grammar: lark's own, for which f-strings in three quotes and fields are bracketed, too."""

from __future__ import annotations

from lark.indenter import PythonIndenter

__all__ = ["FieldIndenter"]


class FieldIndenter(PythonIndenter):
    """Newlines do not count in a field of an f-string, nor in its text between three quotes."""

    OPEN_PAREN_types = [
        *PythonIndenter.OPEN_PAREN_types,
        *("F3_START", "F4_START", "R3_START", "R4_START", "F_OPEN", "F_NEXT", "S_NEXT"),
    ]
    CLOSE_PAREN_types = [*PythonIndenter.CLOSE_PAREN_types, "F3_END", "F4_END", "S_CLOSE"]
