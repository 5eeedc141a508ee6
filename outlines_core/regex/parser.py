"""Pattern text -> AST: the one entrance to all dialects.

The result is *anchored*: it describes the whole text.  `search` makes of it the texts that contain a match,
`simplify` takes out what a whole-text match makes redundant, so that ``^abc$`` becomes a plain literal.
"""

from __future__ import annotations

from typing import Literal as OneOf

from outlines_core.errors import ConstraintSyntaxError
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Node
from outlines_core.regex.parse_ecma import parse_ecma
from outlines_core.regex.parse_python import parse_python
from outlines_core.regex.parse_rust import parse_rust
from outlines_core.regex.simplify import search, simplify

__all__ = ["parse", "search", "simplify"]


def parse(
    pattern: str,
    *,
    dialect: OneOf["python", "ecma", "rust"] = "python",
    flags: int = 0,
    limits: Limits = DEFAULT_LIMITS,
) -> Node:
    """The AST of `pattern`, for matches of the whole text.

    Args:
        pattern: the regex.
        dialect: "python" is ``re.fullmatch`` of the running Python. "ecma" is ECMA-262 with the ``u`` flag; a pattern
            that is malformed there but not without the flag is read as without (annex B), over code points. "rust" is
            the syntax of Rust's regex crate.
        flags: flags of ``re``, given from outside (python dialect only).
        limits: bounds on the pattern.

    Raises:
        ConstraintSyntaxError: malformed, at `.offset`.
        UnsupportedFeatureError: back-references and conditional groups.
        LimitExceededError: too long or too deeply nested.
        ValueError: no such dialect, or `flags` with another than python.
    """
    if dialect == "python":
        return parse_python(pattern, flags=flags, limits=limits)
    if dialect not in ("ecma", "rust"):
        raise ValueError(f"dialect must be 'python', 'ecma' or 'rust', got {dialect!r}")
    if flags:
        raise ValueError("flags are for the python dialect; ECMAScript patterns are read as with the u flag")
    if dialect == "rust":
        return parse_rust(pattern, limits=limits)
    try:
        return parse_ecma(pattern, limits=limits)
    except ConstraintSyntaxError as strict:
        try:
            return parse_ecma(pattern, annex_b=True, limits=limits)
        except ConstraintSyntaxError:
            raise strict from None
