"""Reference resolution: from the text of a `$ref` to a place in a document.

A document falls into *resources*: its root, and each subschema that carries an identifier. A `Base` is what one
resource has in common: base URI, dialect, anchors. The reader enters a new base when it meets an identifier on its way
down; the other way, from a URI or an anchor to a place, needs an index of the whole document, which is made when the
first such reference asks for it. Most references are pointers into their own resource and never need it.

A pointer is followed knowing which keywords hold schemas, so that an `$id` inside an `enum` names nothing. Documents
come from the caller (`registry`) or from the drafts' own meta-schemas if the package `jsonschema_specifications` is
installed. Nothing is ever fetched.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import unquote

from outlines_core.errors import ConstraintSyntaxError, UnsupportedFeatureError
from outlines_core.json_schema.dialects import (
    DIALECTS,
    MAP,
    OTHER,
    SUBSCHEMAS,
    UNDECLARED,
    VOCABULARIES,
    Dialect,
    restrict,
)
from outlines_core.json_schema.nodes import Resource, SchemaNode
from outlines_core.json_schema.places import Trail, Where, escaped, join, pointer_of, shown
from outlines_core.json_schema.values import describe

__all__ = ["Base", "Documents", "Place"]


class Place(NamedTuple):
    """A place in a document.  `anchor`: the name of the dynamic anchor by which it was reached, if it was."""

    base: Base
    value: Any
    pointer: str
    anchor: str | None = None


class Base:
    """One resource of a document.

    Attributes:
        root, where: the schema that carries the identifier, and where it stands.
        dialect: which keywords count in it.
        parent, top: the base around it, and that of the whole document.
        nodes: what has been read of it, by `id` of the schema object (the documents keep the objects alive).
        inner: bases entered from it, by `id` of the schema object; itself where an object begins no resource.
        refs: references already resolved, by their text.
        anchors, dynamic: schemas and places by anchor, and which anchors are dynamic; filled by `Documents.index`.
        resource: what nodes refer to, made if dynamic references need it.
    """

    __slots__ = (
        "_identifier", "_uri", "anchors", "dialect", "dynamic", "inner", "nodes", "parent", "refs", "resource", "root",
        "top", "where",
    )  # fmt: skip

    def __init__(self, root: Any, where: Where, dialect: Dialect, parent: Base | None, identifier: str) -> None:
        self.root, self.where, self.dialect = root, where, dialect
        self.top: Base = parent.top if parent is not None else self
        self.parent, self._identifier, self._uri = parent, identifier, None if parent is not None else identifier
        self.nodes: dict[int, SchemaNode] = {}
        self.inner: dict[int, Base] = {}
        self.refs: dict[str, SchemaNode] = {}
        self.anchors: dict[str, tuple[Any, Where]] = {}
        self.dynamic: set[str] = set()
        self.resource: Resource | None = None

    @property
    def uri(self) -> str:
        """The base URI, absolute if any identifier around it is; joined when asked for."""
        chain: list[Base] = []
        base = self
        while base._uri is None and base.parent is not None:
            chain.append(base)
            base = base.parent
        uri = base._uri or ""
        for base in reversed(chain):
            uri = base._uri = join(uri, base._identifier)
        return uri


class Documents:
    """The schema at hand and the documents it may refer to.

    Raises:
        ConstraintSyntaxError, UnsupportedFeatureError: `$schema` of the main document.
    """

    def __init__(self, schema: Any, registry: Any = None) -> None:
        if not (registry is None or isinstance(registry, Mapping) or hasattr(registry, "get_or_retrieve")):
            raise TypeError(f"registry must map URIs to schemas, got {type(registry).__name__}")
        self._registry = registry
        self._by_uri: dict[str, Base] = {}  # with identifiers of the indexed documents
        self._not_indexed: list[Base] = []
        self._default = UNDECLARED
        self.main = self._add(schema, "", "")
        self._default = self.main.dialect  # of documents that do not declare one

    def enter(self, value: dict[str, Any], base: Base, where: Where) -> Base:
        """The base inside of `value`, a schema object that stands in `base`: a new one if it begins a resource."""
        inner = base.inner.get(id(value))
        if inner is None:
            inner = self._begin(value, base, where)
            base.inner[id(value)] = inner
        return inner

    def _begin(self, value: dict[str, Any], base: Base, where: Where) -> Base:
        if "$id" not in value and "id" not in value:
            return base
        dialect = base.dialect
        if "$schema" in value and value is not base.root:
            dialect = self._dialect(value["$schema"], pointer_of(where))
        identifier = dialect.identifier(value)
        if identifier is None:
            return base
        identifier = identifier.partition("#")[0]
        if not identifier:
            return base  # "#name" is an anchor in the older drafts
        return Base(value, where, dialect, base, identifier)

    def resolve(self, reference: str, base: Base, pointer: str) -> Place:
        """The place that `reference`, standing at `pointer` in `base`, leads to.

        Where no dialect is declared an `id` may be an annotation (2020-12) or begin a resource (draft 4): what is not
        found inside of it is looked for around it.

        Raises:
            ConstraintSyntaxError: there is no such place.
        """
        try:
            return self._resolve(reference, base, pointer)
        except ConstraintSyntaxError:
            outer = base.parent
            while outer is not None and base.top.dialect is UNDECLARED and reference.startswith("#"):
                with suppress(ConstraintSyntaxError):
                    return self._resolve(reference, outer, pointer)
                outer = outer.parent
            raise

    def _resolve(self, reference: str, base: Base, pointer: str) -> Place:
        if reference.startswith("#"):
            target, fragment = base, reference[1:]
        else:
            uri, _, fragment = join(base.uri, reference).partition("#")
            found = base if uri == base.uri else self._find(uri)
            if found is None:
                raise ConstraintSyntaxError(
                    f'"{reference}" leads nowhere: there is no document {uri} here or in the registry, and nothing is '
                    f"fetched from the network; references into the document itself begin with # (at {shown(pointer)})",
                    path=pointer,
                )
            target = found
        if "%" in fragment:
            fragment = unquote(fragment)
        if not fragment:
            return Place(target, target.root, pointer_of(target.where))
        if fragment.startswith("/"):
            return self._follow(target, fragment, reference, pointer)
        self.index()
        if fragment not in target.anchors:
            raise ConstraintSyntaxError(
                f'"{reference}" leads nowhere: there is no anchor "{fragment}" in {target.uri or "the document"}; '
                f"JSON pointers begin with #/ (at {shown(pointer)})",
                path=pointer,
            )
        return self.anchor(fragment, target)

    def anchor(self, name: str, base: Base) -> Place:
        """The place of an anchor that `base`, indexed, is known to have."""
        value, where = base.anchors[name]
        return Place(base, value, pointer_of(where), name if name in base.dynamic else None)

    def _follow(self, base: Base, fragment: str, reference: str, pointer: str) -> Place:
        """Walk down a JSON pointer; `kind` tells whether the value at hand is in a place where schemas are."""
        value, kind, here = base.root, SUBSCHEMAS, pointer_of(base.where)
        for token in fragment[1:].split("/"):
            if "~" in token:
                token = token.replace("~1", "/").replace("~0", "~")
            found = _ABSENT
            if isinstance(value, dict):
                found = value.get(token, _ABSENT)
                if kind == SUBSCHEMAS:
                    kind = base.dialect.places.get(token, OTHER)
                    below = found.__class__ is dict and kind == SUBSCHEMAS
                else:
                    kind = SUBSCHEMAS if kind == MAP else OTHER
                    below = kind == SUBSCHEMAS
            else:
                if isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
                    found = value[int(token)]
                below = kind == SUBSCHEMAS
            if found is _ABSENT:
                raise ConstraintSyntaxError(
                    f'"{reference}" leads nowhere: there is no "{token}" in {shown(here)} (at {shown(pointer)})',
                    path=pointer,
                )
            value = found
            here += "/" + escaped(token)
            if below and isinstance(value, dict):
                base = self.enter(value, base, here)
        if kind == OTHER and isinstance(value, dict):
            base = self.enter(value, base, here)  # an unknown place, but the reference says that it is a schema
        return Place(base, value, here)

    def index(self) -> None:
        """Enter every schema of the documents at hand, and note identifiers and anchors."""
        while self._not_indexed:
            top = self._not_indexed.pop()
            seen: set[tuple[int, int]] = set()
            todo: list[tuple[Any, Base, Any]] = [(top.root, top, None)]
            while todo:
                value, base, trail = todo.pop()
                if isinstance(value, list):
                    todo.extend((item, base, (trail, str(i))) for i, item in enumerate(value) if isinstance(item, dict))
                    continue
                if not isinstance(value, dict) or (id(value), id(base)) in seen:
                    continue
                seen.add((id(value), id(base)))
                if "$id" in value or "id" in value:
                    outside, base = base, self.enter(value, base, (top.where, trail))
                    if base is not outside:
                        self._by_uri.setdefault(base.uri, base)
                        seen.add((id(value), id(base)))
                self._note_anchors(value, base, top, trail)
                places = base.dialect.places
                for key, item in value.items():
                    kind = places.get(key, OTHER)
                    if kind == SUBSCHEMAS:
                        todo.append((item, base, (trail, key)))
                    elif kind == MAP and isinstance(item, dict):
                        below = (trail, key)
                        todo.extend(
                            (schema, base, (below, name)) for name, schema in item.items() if isinstance(schema, dict)
                        )

    def _note_anchors(self, value: dict[str, Any], base: Base, top: Base, trail: Trail) -> None:
        dialect = base.dialect
        names: list[Any] = []
        if "$anchor" in value and "$anchor" in dialect.keywords:
            names.append(value["$anchor"])
        if "$dynamicAnchor" in value and "$dynamicAnchor" in dialect.keywords:
            names.append(value["$dynamicAnchor"])
            if isinstance(names[-1], str):
                base.dynamic.add(names[-1])
        if dialect.fragment_ids:
            identifier = dialect.identifier(value)
            if identifier is not None and "#" in identifier:
                names.append(unquote(identifier.partition("#")[2]))
        for name in names:
            if isinstance(name, str) and name:
                base.anchors.setdefault(name, (value, (top.where, trail)))

    def _find(self, uri: str) -> Base | None:
        """The resource that a URI (without fragment) names."""
        found = self._by_uri.get(uri)
        if found is None and self._not_indexed:
            self.index()
            found = self._by_uri.get(uri)
        if found is None:
            found = self._load(uri)
        if found is None and isinstance(self._registry, Mapping):
            for other in self._registry:  # it may be embedded in any of them
                if isinstance(other, str) and other.partition("#")[0] not in self._by_uri:
                    self._load(other.partition("#")[0])
            self.index()
            found = self._by_uri.get(uri)
        return found

    def _load(self, uri: str) -> Base | None:
        schema = self._retrieve(uri)
        if schema is None:
            return None
        if not isinstance(schema, (dict, bool)):
            raise ConstraintSyntaxError(
                f"the registry's document {uri} must be a schema, an object or a boolean, not {describe(schema)}",
                path=uri + "#",
            )
        return self._add(schema, uri, uri + "#")

    def _add(self, schema: Any, uri: str, pointer: str) -> Base:
        dialect = self._default
        if isinstance(schema, dict) and "$schema" in schema:
            dialect = self._dialect(schema["$schema"], pointer)
        top = Base(schema, pointer, dialect, None, uri)
        base = self.enter(schema, top, pointer) if isinstance(schema, dict) else top
        self._by_uri.setdefault(uri, base)
        self._by_uri.setdefault(base.uri, base)
        self._not_indexed.append(top)
        return base

    def _retrieve(self, uri: str) -> Any:
        """The document at `uri`, from the registry or from the drafts; None: there is none."""
        for registry in (self._registry, _specifications()):
            if registry is None:
                continue
            for key in (uri, uri + "#"):
                found = _ask(registry, key)
                if found is not None:
                    return found
        return None

    def _dialect(self, declared: Any, pointer: str, depth: int = 0) -> Dialect:
        """The dialect that `$schema` declares."""
        place = pointer + "/$schema"
        if not isinstance(declared, str):
            raise ConstraintSyntaxError(
                f'"$schema" must be a URI, not {describe(declared)} (at {shown(place)})', path=place
            )
        uri = declared.removesuffix("#")
        name = uri.partition("://")[2]
        if name in DIALECTS:
            known = DIALECTS[name]
            if known is None:
                raise UnsupportedFeatureError(
                    f"{declared} is older than draft 4, the first that is supported (at {shown(place)})",
                    feature="$schema",
                    path=place,
                )
            return known
        meta = _ask(self._registry, uri) if self._registry is not None else None
        if meta is None and self._registry is not None:
            meta = _ask(self._registry, uri + "#")
        if not isinstance(meta, dict):
            return UNDECLARED
        above = meta.get("$schema")
        if above is None or above == declared or depth == 8:
            base = UNDECLARED
        else:
            base = self._dialect(above, uri + "#", depth + 1)
        vocabularies = meta.get("$vocabulary")
        if not isinstance(vocabularies, dict):
            return base
        for vocabulary, required in vocabularies.items():
            if vocabulary not in VOCABULARIES and required is not False:
                raise UnsupportedFeatureError(
                    f"the meta-schema {uri} requires the vocabulary {vocabulary}, which is not known "
                    f"(at {shown(place)})",
                    feature="$vocabulary",
                    path=place,
                )
        return restrict(base, frozenset(vocabularies).intersection(VOCABULARIES))


_ABSENT: Any = object()
_INDEX = re.compile("0|[1-9][0-9]{0,9}")


def _specifications() -> Any:
    try:
        return importlib.import_module("jsonschema_specifications").REGISTRY
    except ImportError:
        return None


def _ask(registry: Any, uri: str) -> Any:
    """The schema that `registry` has for `uri`: a mapping, or anything like `referencing.Registry`."""
    retrieve = getattr(registry, "get_or_retrieve", None)
    try:
        found = retrieve(uri).value if retrieve is not None else registry[uri]
    except LookupError:  # KeyError, and what `referencing` raises
        return None
    return getattr(found, "contents", found)
