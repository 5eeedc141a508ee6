"""Lark grammars: loading, lexers, parsers and what can be proved of them.  `compile_grammar` is the way in.

`from_ebnf` rewrites grammars in EBNF (llama.cpp's GBNF, xgrammar's) as Lark grammars.
"""

from __future__ import annotations

from outlines_core.grammar.ebnf import from_ebnf

__all__ = ["from_ebnf"]
