"""Names of places: JSON pointers and URIs.

A document may be nested thousands deep, where pointers of all places and URIs that grow with each level would be
quadratic. So pointers are made when asked for, from a `Where`, and URIs are bounded.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import urljoin, urlsplit, uses_relative

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.nodes import SchemaNode

__all__ = ["Trail", "Where", "escaped", "join", "pointer_of", "shown"]

Trail: TypeAlias = Any
"""Steps down, as a linked list: (steps before, step), or None."""

Where: TypeAlias = str | SchemaNode | tuple["Where", Trail]
"""A place: its pointer, its node, or a place and the steps from there."""

_MAX_URI: Final = 4_096
_SHOWN: Final = 400  # characters of a pointer in a message


def pointer_of(where: Where) -> str:
    """The JSON pointer of a place (behind ``uri#`` for documents of the registry)."""
    steps: list[str] = []
    while isinstance(where, tuple):
        where, trail = where
        while trail is not None:
            trail, step = trail
            steps.append(escaped(step))
    steps.append(where if isinstance(where, str) else where.pointer)
    return "/".join(reversed(steps))


def escaped(name: str) -> str:
    """`name` as a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


def shown(pointer: str) -> str:
    """A node's pointer as messages show it: ``#/properties/a``, or ``uri#/...`` in documents of the registry."""
    whole = pointer if "#" in pointer and not pointer.startswith("/") else "#" + pointer
    return whole if len(whole) <= _SHOWN else f"{whole[: _SHOWN // 2]} ... {whole[-_SHOWN // 2 :]}"


def join(base: str, reference: str) -> str:
    """Resolve `reference` against `base` (RFC 3986), also for schemes that `urljoin` does not know.

    >>> join("http://a/b/c", "../d"), join("urn:x:y", "#z"), join("", "d#e"), join("my://h/a/b", "c")
    ('http://a/d', 'urn:x:y#z', 'd#e', 'my://h/a/c')
    """
    if not base or not reference:
        return reference or base
    if reference.startswith("#"):
        return base.partition("#")[0] + reference
    if len(base) + len(reference) > _MAX_URI:
        raise LimitExceededError(
            f"a URI of more than {_MAX_URI} characters: {reference[:40]} relative to {base[:80]}...",
            given=len(base) + len(reference),
            limit=_MAX_URI,
        )
    scheme, _, rest = base.partition(":")
    try:
        if rest.startswith("//") and scheme not in uses_relative and not urlsplit(reference).scheme:
            return scheme + urljoin("http:" + rest, reference).removeprefix("http")
        return urljoin(base, reference)
    except ValueError:  # a bad host, e.g. an unclosed "["
        return reference
