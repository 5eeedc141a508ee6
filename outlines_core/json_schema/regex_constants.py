r"""The patterns that `build_regex_from_schema` is made of, as the PyPI package `outlines_core` 0.2.14 has them.

Four differ, for what they matched besides is no JSON or no value of the format: the fraction in TIME began with a
backslash and any character; URI and EMAIL had quotes, backslashes and control characters unescaped; DATE and URI had
all of Unicode's digits.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "BOOLEAN",
    "DATE",
    "DATE_TIME",
    "EMAIL",
    "FORMATS",
    "INTEGER",
    "NULL",
    "NUMBER",
    "STRING",
    "STRING_INNER",
    "TIME",
    "URI",
    "UUID",
    "WHITESPACE",
]

STRING_INNER: Final = r'([^"\\\x00-\x1F\x7F-\x9F]|\\["\\/bfnrt])'
STRING: Final = f'"{STRING_INNER}*"'
INTEGER: Final = r"(-)?(0|[1-9][0-9]*)"
NUMBER: Final = rf"({INTEGER})(\.[0-9]+)?([eE][+-][0-9]+)?"
BOOLEAN: Final = "(true|false)"
NULL: Final = "null"
WHITESPACE: Final = "[ ]?"

_HOURS: Final = "(2[0-3]|[01][0-9]):([0-5][0-9]):([0-5][0-9])"
DATE_TIME: Final = (
    rf'"(-?(?:[1-9][0-9]*)?[0-9]{{4}})-(1[0-2]|0[1-9])-(3[01]|0[1-9]|[12][0-9])T{_HOURS}(\.[0-9]{{3}})?(Z)?"'
)
DATE: Final = '"(?:[0-9]{4})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[1-2][0-9]|3[0-1])"'
TIME: Final = rf'"{_HOURS}(\.[0-9]+)?(Z)?"'
UUID: Final = '"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"'
_NO: Final = r'\s"\\\x00-\x1F\x7F-\x9F'
URI: Final = (
    rf'"(?:(https?|ftp):\/\/([^{_NO}:@/?#]+(:[^{_NO}:@/?#]*)?@)?([a-zA-Z0-9.-]+\.[a-zA-Z]{{2,}}|localhost)(:[0-9]+)?'
    rf"(\/[^{_NO}?#]*)?(\?[^{_NO}#]*)?(#[^{_NO}]*)?"
    rf'|urn:[a-zA-Z0-9][a-zA-Z0-9\-]{{0,31}}:[^{_NO}]+)"'
)
_ATOM: Final = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_OCTET: Final = "(?:2(?:5[0-5]|[0-4][0-9])|1[0-9][0-9]|[1-9]?[0-9])"
EMAIL: Final = rf'"(?:{_ATOM}(?:\.{_ATOM})*)@(?:(?:{_LABEL}\.)+{_LABEL}|\[(?:{_OCTET}\.){{3}}{_OCTET}\])"'

FORMATS: Final = {
    "date": DATE,
    "date-time": DATE_TIME,
    "email": EMAIL,
    "time": TIME,
    "uri": URI,
    "uuid": UUID,
}
"""The formats that have a constant."""
