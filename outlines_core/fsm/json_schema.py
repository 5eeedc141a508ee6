"""`outlines_core.json_schema` under its path in `outlines_core` 0.1."""

from __future__ import annotations

from typing import Any

from outlines_core.json_schema import (
    BOOLEAN,
    DATE,
    DATE_TIME,
    INTEGER,
    NULL,
    NUMBER,
    STRING,
    STRING_INNER,
    TIME,
    UUID,
    WHITESPACE,
    build_regex_from_schema,
)

__all__ = [
    "BOOLEAN",
    "DATE",
    "DATE_TIME",
    "INTEGER",
    "NULL",
    "NUMBER",
    "STRING",
    "STRING_INNER",
    "TIME",
    "UUID",
    "WHITESPACE",
    "build_regex_from_schema",
    "to_regex",
]


def to_regex(json: dict[str, Any], whitespace_pattern: str | None = None) -> str:
    """`build_regex_from_schema` of a schema as a dict."""
    from outlines_core.json_schema import regex_text

    return regex_text.to_regex(json, whitespace_pattern)
