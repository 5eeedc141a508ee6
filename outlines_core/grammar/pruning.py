"""A LALR table without the actions on terminals that never come.

The parser is not given what is ignored, unless something else is retyped to it; nor what is only declared, unless an
indenter makes it; nor a terminal that no text matches. Where a rule asks for one of these, the table has an action that
no text leads to. A state that is left with no action at all is dead, and so are the actions that shift to it.
"""

from __future__ import annotations

from outlines_core.grammar.indentation import Indentation
from outlines_core.grammar.loading import END, Grammar
from outlines_core.grammar.ordered import OrderedDfa

__all__ = ["pruned"]


def pruned(grammar: Grammar, dfa: OrderedDfa, indentation: Indentation | None) -> Grammar:
    """The grammar with such a table.  `dfa`: of its terminals."""
    tables = grammar.tables
    if tables is None:
        return grammar
    empty = {t for t in range(len(grammar.terminals)) if not dfa.may_match(t)}
    readable = [lexer.readable(grammar.ignored) - empty for lexer in grammar.lexers]
    zero_width = {END}
    if indentation is not None and any(indentation.newline in some for some in readable):
        zero_width |= {indentation.indent, indentation.dedent}
    actions = [
        {t: action for t, action in row.items() if t in readable[lexer] or t in zero_width}
        for row, lexer in zip(tables.actions, tables.lexer, strict=True)
    ]
    if actions == tables.actions:
        return grammar
    dead: set[int] = set()
    while dead != (dead := {state for state, row in enumerate(actions) if not row}):
        actions = [{t: action for t, action in row.items() if action not in dead} for row in actions]
    return grammar._replace(tables=tables._replace(actions=actions, is_pruned=True))
