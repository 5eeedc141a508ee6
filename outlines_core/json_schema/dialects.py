"""The drafts of JSON Schema: which keywords each defines, and where they differ.

A dialect is chosen by `$schema`, per schema resource. Where the documents say nothing, or name a meta-schema that
nobody knows, a dialect of its own applies: 2020-12 plus the forms of the older drafts that 2020-12 would call malformed
or ignore (`items` as a list, `additionalItems`, boolean `exclusiveMinimum`, `id`, ...). Many schemas in the wild are
written for draft 4 or 7 and do not say so, and no such form has a second meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

__all__ = ["DIALECTS", "FORMATS", "MAP", "OTHER", "SUBSCHEMAS", "UNDECLARED", "VOCABULARIES", "Dialect", "restrict"]

SUBSCHEMAS, MAP, OTHER = 0, 1, 2
"""What a keyword holds: a schema or a list of schemas; named schemas; anything else."""


@dataclass(eq=False, slots=True)
class Dialect:
    """What the reader has to know of a draft.

    Args:
        name: for messages.
        keywords: all that it defines; others are annotations.
        id_keys: the keywords that name a resource.
        ref_hides: `$ref` hides its siblings (up to draft 7).
        fragment_ids: an identifier ``#name`` is an anchor (up to draft 7).
        boolean_exclusive: `exclusiveMinimum` may be a boolean that modifies `minimum` (draft 4).
        numeric_exclusive: it may be a bound of its own (from draft 6).
        item_lists: `items` may be a list (up to 2019-09).
        contains_evaluates: items that match `contains` are evaluated (from 2020-12).
        handlers: for the reader: a function per keyword, filled in on first use.
    """

    name: str
    keywords: frozenset[str]
    id_keys: tuple[str, ...] = ("$id",)
    ref_hides: bool = False
    fragment_ids: bool = False
    boolean_exclusive: bool = False
    numeric_exclusive: bool = True
    item_lists: bool = True
    contains_evaluates: bool = False
    places: Mapping[str, int] = field(init=False)
    handlers: dict[str, Callable[[Any, Any, Any], None]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.places = {key: _PLACES.get(key, OTHER) for key in self.keywords}

    def identifier(self, schema: Mapping[str, Any]) -> str | None:
        """The identifier that `schema` carries, as written."""
        if self.ref_hides and "$ref" in schema:
            return None
        for key in self.id_keys:
            value = schema.get(key)
            if isinstance(value, str):
                return value
        return None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PLACES: Final = {
    **dict.fromkeys(
        (
            "additionalItems",
            "additionalProperties",
            "allOf",
            "anyOf",
            "contains",
            "contentSchema",
            "else",
            "if",
            "items",
            "not",
            "oneOf",
            "prefixItems",
            "propertyNames",
            "then",
            "unevaluatedItems",
            "unevaluatedProperties",
        ),
        SUBSCHEMAS,
    ),
    **dict.fromkeys(
        ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"), MAP
    ),
}

_DRAFT4 = _words(
    """$ref $schema additionalItems additionalProperties allOf anyOf definitions dependencies enum exclusiveMaximum
    exclusiveMinimum format items maxItems maxLength maxProperties maximum minItems minLength minProperties minimum
    multipleOf not oneOf pattern patternProperties properties required type uniqueItems"""
)
_DRAFT6 = _DRAFT4 | {"$id", "const", "contains", "propertyNames"}
_DRAFT7 = _DRAFT6 | {"if", "then", "else"}
# `dependencies` and `definitions` are still in the meta-schemas of 2019-09 and 2020-12, and in the official suite.
_DRAFT2019 = _DRAFT7 | _words(
    """$anchor $defs $recursiveAnchor $recursiveRef $vocabulary contentSchema dependentRequired dependentSchemas
    maxContains minContains unevaluatedItems unevaluatedProperties"""
)
_DRAFT2020 = (_DRAFT2019 - {"additionalItems", "$recursiveAnchor", "$recursiveRef"}) | {
    "$dynamicAnchor",
    "$dynamicRef",
    "prefixItems",
}

_D4 = Dialect(
    "draft 4",
    _DRAFT4 | {"id"},
    id_keys=("id",),
    ref_hides=True,
    fragment_ids=True,
    boolean_exclusive=True,
    numeric_exclusive=False,
)
_D6 = Dialect("draft 6", _DRAFT6, ref_hides=True, fragment_ids=True)
_D7 = Dialect("draft 7", _DRAFT7, ref_hides=True, fragment_ids=True)
_D2019 = Dialect("draft 2019-09", _DRAFT2019)
_D2020 = Dialect("draft 2020-12", _DRAFT2020, item_lists=False, contains_evaluates=True)

UNDECLARED: Final = Dialect(
    "draft 2020-12 (or an older one: there is no known $schema)",
    _DRAFT2020 | _DRAFT2019 | {"id"},
    id_keys=("$id", "id"),
    fragment_ids=True,
    boolean_exclusive=True,
    contains_evaluates=True,
)

_OLD = "json-schema.org/draft-0{}/{}"
DIALECTS: Final[dict[str, Dialect | None]] = {
    **{_OLD.format(n, kind): None for n in (0, 1, 2, 3) for kind in ("schema", "hyper-schema")},
    **{
        _OLD.format(n, kind): dialect
        for n, dialect in ((4, _D4), (5, _D4), (6, _D6), (7, _D7))
        for kind in ("schema", "hyper-schema")
    },
    "json-schema.org/draft/2019-09/schema": _D2019,
    "json-schema.org/draft/2019-09/hyper-schema": _D2019,
    "json-schema.org/draft/2020-12/schema": _D2020,
    "json-schema.org/draft/2020-12/hyper-schema": _D2020,
}
"""By the URI of the meta-schema, without scheme and empty fragment. None: known, but older than what is supported."""

_VALIDATION = _words(
    """const dependentRequired enum exclusiveMaximum exclusiveMinimum maxContains maxItems maxLength maxProperties
    maximum minContains minItems minLength minProperties minimum multipleOf pattern required type uniqueItems"""
)
_UNEVALUATED = frozenset({"unevaluatedItems", "unevaluatedProperties"})
_APPLICATOR = _words(
    """additionalItems additionalProperties allOf anyOf contains dependencies dependentSchemas else if items not oneOf
    patternProperties prefixItems properties propertyNames then"""
)

FORMATS: Final = _words(
    """date date-time duration email hostname idn-email idn-hostname ipv4 ipv6 iri iri-reference json-pointer regex
    relative-json-pointer time uri uri-reference uri-template uuid"""
)
"""The formats that the drafts define, enforced in all of them. Others are annotations."""

_V2019, _V2020 = "https://json-schema.org/draft/2019-09/vocab/", "https://json-schema.org/draft/2020-12/vocab/"
VOCABULARIES: Final[dict[str, frozenset[str]]] = {
    _V2019 + "core": frozenset(),
    _V2019 + "applicator": _APPLICATOR | _UNEVALUATED,
    _V2019 + "validation": _VALIDATION,
    _V2019 + "meta-data": frozenset(),
    _V2019 + "format": frozenset({"format"}),
    _V2019 + "content": frozenset({"contentSchema"}),
    _V2020 + "core": frozenset(),
    _V2020 + "applicator": _APPLICATOR,
    _V2020 + "unevaluated": _UNEVALUATED,
    _V2020 + "validation": _VALIDATION,
    _V2020 + "meta-data": frozenset(),
    _V2020 + "format-annotation": frozenset({"format"}),  # formats are asserted wherever they are defined
    _V2020 + "format-assertion": frozenset({"format"}),
    _V2020 + "content": frozenset({"contentSchema"}),
}
"""The keywords of each vocabulary that can be switched off; core keywords always count."""

_SWITCHED = frozenset[str]().union(*VOCABULARIES.values())


@lru_cache(maxsize=64)
def restrict(base: Dialect, vocabularies: frozenset[str]) -> Dialect:
    """`base` with only the keywords of these (known) vocabularies and of the core."""
    allowed = frozenset[str]().union(*(VOCABULARIES[uri] for uri in vocabularies))
    return Dialect(
        f"{base.name} with the vocabularies of its meta-schema",
        frozenset(key for key in base.keywords if key in allowed or key not in _SWITCHED),
        base.id_keys,
        base.ref_hides,
        base.fragment_ids,
        base.boolean_exclusive,
        base.numeric_exclusive,
        base.item_lists,
        base.contains_evaluates,
    )
