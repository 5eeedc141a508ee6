"""The one error hierarchy of the project.

    OutlinesCoreError ─┬ ConstraintError(ValueError) ─┬ ConstraintSyntaxError(.source .offset .path)
                       │                              ├ UnsupportedFeatureError(.feature .path)
                       │                              ├ UnsatisfiableError(.path)
                       │                              │     └ IncompatibleVocabularyError(.missing_bytes)
                       │                              └ LimitExceededError(.given .limit)
                       ├ VocabularyError(ValueError) · CacheFormatError(ValueError)
                       └ GuideError(ValueError) ─┬ TokenRejectedError(.token_id .position)
                                                 └ RollbackError(.requested .available)

A message says what happened, where (a caret or a JSON pointer), what was expected and what to do about it; the
fields say the same to programs. Everything a user's input can cause is a ``ValueError`` too, because that is what
the older packages of this field raise.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CacheFormatError",
    "ConstraintError",
    "ConstraintSyntaxError",
    "GuideError",
    "IncompatibleVocabularyError",
    "LimitExceededError",
    "OutlinesCoreError",
    "RollbackError",
    "TokenRejectedError",
    "UnsatisfiableError",
    "UnsupportedFeatureError",
    "VocabularyError",
]


def point_at(source: str, offset: int) -> str:
    """The line of `source` that holds `offset`, with a caret under it (both cut to 100 characters around it).

    >>> print(point_at("a+(b|c", 2))
      a+(b|c
        ^
    """
    start = source.rfind("\n", 0, offset) + 1
    end = source.find("\n", offset)
    line = source[start : end if end >= 0 else len(source)]
    column = offset - start
    if len(line) > 100:
        cut = max(0, min(column - 50, len(line) - 100))
        line, column = line[cut : cut + 100], column - cut
    shown = "".join(c if c.isprintable() else "·" for c in line)
    return f"  {shown}\n  {' ' * column}^"


def line_and_column(source: str, offset: int) -> tuple[int, int]:
    """1-based line and column of a character offset."""
    start = source.rfind("\n", 0, offset) + 1
    return source.count("\n", 0, offset) + 1, offset - start + 1


def _rebuild(kind: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class OutlinesCoreError(Exception):
    """Base of every error this project raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:  # keyword-only fields survive a pickle (worker processes)
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class ConstraintError(OutlinesCoreError, ValueError):
    """A constraint (pattern, grammar, schema) cannot be compiled."""


class ConstraintSyntaxError(ConstraintError):
    """The constraint is malformed.

    Attributes:
        source: the whole text; "" for a schema that came as a Python object.
        offset: 0-based character offset of the fault in `source`.
        path: for schemas the JSON pointer of the fault, else "".
    """

    def __init__(self, message: str, *, source: str = "", offset: int = 0, path: str = "") -> None:
        if source:
            line, column = line_and_column(source, offset)
            message = f"{message} (line {line}, column {column})\n{point_at(source, offset)}"
        super().__init__(message)
        self.source, self.offset, self.path = source, offset, path


class UnsupportedFeatureError(ConstraintError):
    """A well-formed constraint uses something that cannot be enforced exactly.

    Attributes:
        feature: its name, e.g. ``"back-reference"``.
        path: where it stands: a JSON pointer, or the character offset as text for patterns and grammars.
        source, offset: as in `ConstraintSyntaxError` when the constraint is a text, else None.
    """

    def __init__(
        self, message: str, *, feature: str, path: str = "", source: str | None = None, offset: int | None = None
    ) -> None:
        if source is not None and offset is not None:
            line, column = line_and_column(source, offset)
            message = f"{message} (line {line}, column {column})\n{point_at(source, offset)}"
            path = path or str(offset)
        super().__init__(message)
        self.feature, self.path, self.source, self.offset = feature, path, source, offset


class UnsatisfiableError(ConstraintError):
    """No text at all satisfies the constraint.  `path` says which part."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class IncompatibleVocabularyError(UnsatisfiableError):
    """Texts satisfy the constraint, but none of them can be spelled with the vocabulary.

    Attributes:
        missing_bytes: bytes that the constraint needs and that no token of the vocabulary contains (may be empty
            when every byte occurs but never in a combination that works).
    """

    def __init__(self, message: str, *, missing_bytes: bytes = b"", path: str = "") -> None:
        super().__init__(message, path=path)
        self.missing_bytes = missing_bytes


class LimitExceededError(ConstraintError):
    """A `Limits` field was hit.  `given` is what was asked for (or reached), `limit` what is allowed."""

    def __init__(self, message: str, *, given: int, limit: int) -> None:
        super().__init__(message)
        self.given, self.limit = given, limit


class VocabularyError(OutlinesCoreError, ValueError):
    """A tokenizer or a vocabulary cannot be used as given."""


class CacheFormatError(OutlinesCoreError, ValueError):
    """Serialized data is corrupt or was written by another version."""


class GuideError(OutlinesCoreError, ValueError):
    """A guide was asked for something its position does not allow."""


class TokenRejectedError(GuideError):
    """The token is not allowed here; the guide is unchanged.  `position`: tokens consumed before it."""

    def __init__(self, token_id: int, *, position: int, message: str | None = None) -> None:
        super().__init__(message or f"token id {token_id} is not allowed at position {position}")
        self.token_id, self.position = token_id, position


class RollbackError(GuideError):
    """More tokens were to be rolled back than are remembered; the guide is unchanged."""

    def __init__(self, requested: int, available: int, *, message: str | None = None) -> None:
        super().__init__(message or f"cannot roll back {requested} tokens: {available} are remembered")
        self.requested, self.available = requested, available
