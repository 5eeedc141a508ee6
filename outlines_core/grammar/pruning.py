"""A LALR table without the actions on terminals that never come.

The parser is not given what is ignored, unless something else is retyped to it; nor what is only declared, unless an
indenter makes it; nor a terminal that no text matches. Where a rule asks for one of these, the table has an action that
no text leads to. A state that is left with no action at all is dead, and so are the actions that shift to it.

(What only some lexers give to the parser stays everywhere: reductions may come before it is shifted.)
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
    come = {END}.union(*(lexer.readable(grammar.ignored) for lexer in grammar.lexers)) - empty
    if indentation is not None and indentation.newline in come:
        come |= {indentation.indent, indentation.dedent}
    actions = [{t: action for t, action in row.items() if t in come} for row in tables.actions]
    if actions == tables.actions:
        return grammar
    dead: set[int] = set()
    while dead != (dead := {state for state, row in enumerate(actions) if not row}):
        actions = [{t: action for t, action in row.items() if action not in dead} for row in actions]
    return grammar._replace(tables=tables._replace(actions=actions, is_pruned=True))
