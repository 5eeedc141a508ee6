"""What the two pattern parsers share: the text, the position in it, and how they complain.

A parser walks the pattern by index and takes runs of ordinary characters with one compiled regex, so its cost is per
construct, not per character. A construct that is well-formed but not regular (a back-reference) is remembered and
refused at the end: a syntax error further right comes first, as the original engines would report it.

The descent is recursive in form only: where a group opens, a step yields the step for what is inside (`descend`).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError, UnsupportedFeatureError
from outlines_core.limits import Limits

__all__ = ["Descent", "Scanner", "descend"]

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")
Descent: TypeAlias = Generator[Generator[Any, Any, Any], _Part, _Result]
"""A step of a recursive descent: yields a deeper step, is sent the part which that returns, returns its own."""


def descend(step: Descent[Any, _Result]) -> _Result:
    """Run a recursive descent on a stack of its own: nested groups must not use up Python's."""
    stack: list[Generator[Any, Any, Any]] = [step]
    part: Any = None
    while True:
        try:
            deeper = stack[-1].send(part)
        except StopIteration as done:
            stack.pop()
            part = done.value
            if not stack:
                result: _Result = part
                return result
        else:
            stack.append(deeper)
            part = None


class Scanner:
    """A pattern and a position in it."""

    def __init__(self, pattern: str, limits: Limits) -> None:
        if len(pattern) > limits.max_pattern_length:
            raise LimitExceededError(
                f"pattern of {len(pattern)} characters, the limit is {limits.max_pattern_length} "
                "(raise Limits.max_pattern_length)",
                given=len(pattern),
                limit=limits.max_pattern_length,
            )
        self.pattern, self.limits = pattern, limits
        self.n = len(pattern)
        self.pos = 0
        self.depth = 0
        self._refused: tuple[str, int] | None = None

    def error(self, message: str, offset: int) -> ConstraintSyntaxError:
        """A syntax error to raise."""
        return ConstraintSyntaxError(message, source=self.pattern, offset=offset)

    def enter(self) -> None:
        """One group deeper.  Raises LimitExceededError past `Limits.max_nesting`."""
        self.depth += 1
        if self.depth > self.limits.max_nesting:
            raise LimitExceededError(
                f"groups nested deeper than {self.limits.max_nesting} (raise Limits.max_nesting)",
                given=self.depth,
                limit=self.limits.max_nesting,
            )

    def leave(self) -> None:
        """Back from `enter`."""
        self.depth -= 1

    def refuse(self, feature: str, offset: int) -> None:
        """Remember the first construct that cannot be supported."""
        if self._refused is None:
            self._refused = feature, offset

    def raise_refused(self) -> None:
        """Raise UnsupportedFeatureError if something was refused."""
        if self._refused is not None:
            feature, offset = self._refused
            raise UnsupportedFeatureError(
                f"{feature}s are not regular and cannot be enforced exactly; write the alternatives out",
                feature=feature,
                source=self.pattern,
                offset=offset,
            )

    def peek(self) -> str:
        """The next character, "" at the end."""
        return self.pattern[self.pos : self.pos + 1]

    def take(self, expected: str) -> bool:
        """Step over `expected` if it is next."""
        if self.pattern.startswith(expected, self.pos):
            self.pos += len(expected)
            return True
        return False
