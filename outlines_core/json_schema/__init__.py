"""JSON Schema: documents -> normalised nodes -> boolean formulas -> a pushdown of interned frames.

The names exported here are those of the PyPI package `outlines_core`: `build_regex_from_schema` and its constants. What
a regex cannot say, `outlines_core.compile_json_schema` does.
"""

from __future__ import annotations

from outlines_core.json_schema.regex_constants import (
    BOOLEAN,
    DATE,
    DATE_TIME,
    EMAIL,
    INTEGER,
    NULL,
    NUMBER,
    STRING,
    STRING_INNER,
    TIME,
    URI,
    UUID,
    WHITESPACE,
)

__all__ = [
    "BOOLEAN",
    "DATE",
    "DATE_TIME",
    "EMAIL",
    "INTEGER",
    "NULL",
    "NUMBER",
    "STRING",
    "STRING_INNER",
    "TIME",
    "URI",
    "UUID",
    "WHITESPACE",
    "build_regex_from_schema",
]


def build_regex_from_schema(
    json_schema: str, whitespace_pattern: str | None = None, max_recursion_depth: int = 3
) -> str:
    """A regex of JSON texts that satisfy a schema.  See `outlines_core.json_schema.regex_text`."""
    from outlines_core.json_schema import regex_text  # it comes with numba, which the constants do not need

    return regex_text.build_regex_from_schema(json_schema, whitespace_pattern, max_recursion_depth)
