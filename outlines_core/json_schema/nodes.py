"""Schemas as they are understood: one normalised form for all drafts.

The reader turns each schema object of a document into a `SchemaNode`: defaults filled in, numbers exact, patterns
parsed, references resolved to nodes, the differences between the drafts gone. Nothing behind the reader looks at a
schema document again. Nodes may be cyclic (`ref`), are compared by identity, and are not changed once read.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

from outlines_core.regex.ast import Node

__all__ = [
    "ALL_TYPES",
    "ARRAY",
    "BOOLEAN",
    "INTEGER",
    "NULL",
    "NUMBER",
    "OBJECT",
    "STRING",
    "DynamicRef",
    "Json",
    "Pattern",
    "Resource",
    "SchemaNode",
]

Json: TypeAlias = Any
"""A JSON value: None, bool, int, Fraction (numbers that are no integers), str, list, dict."""

NULL, BOOLEAN, INTEGER, NUMBER, STRING, ARRAY, OBJECT = 1, 2, 4, 8, 16, 32, 64
ALL_TYPES: Final = NULL | BOOLEAN | INTEGER | NUMBER | STRING | ARRAY | OBJECT
"""`NUMBER` is "any number"; `INTEGER` without `NUMBER` is "a number with an integral value"."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A `pattern`: the text as written, and the AST of all strings with a match in them (code points)."""

    source: str
    node: Node


@dataclass(eq=False, slots=True)
class Resource:
    """A schema resource: what an `$id` names.  `dynamic`: its dynamic anchors (`""` stands for `$recursiveAnchor`)."""

    uri: str
    dynamic: dict[str, SchemaNode]


@dataclass(frozen=True, slots=True)
class DynamicRef:
    """`$dynamicRef`: the outermost resource of the dynamic scope that has dynamic anchor `name` wins, else `target`.

    The reader makes a plain `ref` of one whose first target is not a dynamic anchor.
    """

    name: str
    target: SchemaNode


class SchemaNode:
    """One schema.

    The defaults are class attributes: most nodes set two or three of the forty, and setting the others to what they
    are anyway would take longer than reading the schema does. The empty dicts are shared: replace, never fill them.

    Attributes:
        pointer: where it stands: a JSON pointer into the document, behind ``uri#`` for documents of a registry. It is
            made when asked for (of all nodes at once it would be quadratic in the depth).
        place: the pointer itself, or a weak reference to the parent; then also the keyword there.
        name: name or index below the keyword, or None.
        read: of the root: all nodes that were read, which keeps parents alive. Nodes know their parents weakly, or no
            schema that was compiled would go before the garbage collector comes round.
        always: True or False for boolean schemas (nothing else is set then), else None.
        resource: the resource it belongs to; only set where the documents have dynamic references.
        types: bit set of the allowed types.
        enum, const: the allowed values; None: any.  `const` is a tuple of one value.
        minimum, maximum: (bound, is the bound itself excluded?) or None.  Both the inclusive and the exclusive keyword
            given: the tighter one.
        multiple_of: None or a positive number.
        pattern, format: `format` only if it is one that is enforced in this dialect; unknown ones are dropped.
        prefix_items: positional schemas, from `prefixItems` or an `items` list; `items` is the schema of all further
            items (`items`, or `additionalItems` behind a list).
        contains_evaluates: do items that match `contains` count as evaluated (from 2020-12)?
        dependent_required, dependent_schemas: also from `dependencies`.
        ref: the target of `$ref` (in drafts up to 7 such a node has nothing else).
    """

    always: bool | None = None
    resource: Resource | None = None
    types: int = ALL_TYPES
    enum: tuple[Json, ...] | None = None
    const: tuple[Json] | None = None
    minimum: tuple[Fraction, bool] | None = None
    maximum: tuple[Fraction, bool] | None = None
    multiple_of: Fraction | None = None
    min_length: int = 0
    max_length: int | None = None
    pattern: Pattern | None = None
    format: str | None = None
    prefix_items: tuple[SchemaNode, ...] = ()
    items: SchemaNode | None = None
    contains: SchemaNode | None = None
    contains_evaluates: bool = True
    min_contains: int = 1
    max_contains: int | None = None
    min_items: int = 0
    max_items: int | None = None
    unique_items: bool = False
    unevaluated_items: SchemaNode | None = None
    properties: dict[str, SchemaNode] = {}
    pattern_properties: tuple[tuple[Pattern, SchemaNode], ...] = ()
    additional: SchemaNode | None = None
    property_names: SchemaNode | None = None
    required: tuple[str, ...] = ()
    min_properties: int = 0
    max_properties: int | None = None
    dependent_required: dict[str, tuple[str, ...]] = {}
    dependent_schemas: dict[str, SchemaNode] = {}
    unevaluated_properties: SchemaNode | None = None
    all_of: tuple[SchemaNode, ...] = ()
    any_of: tuple[SchemaNode, ...] = ()
    one_of: tuple[SchemaNode, ...] = ()
    not_: SchemaNode | None = None
    if_: SchemaNode | None = None
    then: SchemaNode | None = None
    else_: SchemaNode | None = None
    ref: SchemaNode | None = None
    dynamic_ref: DynamicRef | None = None

    read: list[SchemaNode] = []

    def __init__(
        self,
        place: str | weakref.ref[SchemaNode],
        keyword: str = "",
        name: str | int | None = None,
        always: bool | None = None,
    ) -> None:
        self.place, self.keyword, self.name = place, keyword, name
        if always is not None:
            self.always = always

    @property
    def pointer(self) -> str:
        steps: list[str] = []
        node = self
        while not isinstance(node.place, str):
            parent = node.place()
            assert parent is not None
            if node.name is not None:
                steps.append(str(node.name).replace("~", "~0").replace("/", "~1"))
            steps.append(node.keyword)
            node = parent
        steps.append(node.place)
        return "/".join(reversed(steps))

    def __repr__(self) -> str:
        return f"SchemaNode({self.pointer or '#'!r})"


def _share_names() -> None:
    """Let CPython learn the attributes that are set most often: the first thirty need no dict in any node."""
    node = SchemaNode("")
    often = "types properties required items additional enum pattern format min_length max_length ref any_of one_of"
    seldom = "all_of minimum maximum min_items max_items const pattern_properties unique_items always if_ then else_"
    for name in f"{often} {seldom} min_properties read".split():
        setattr(node, name, getattr(node, name))


_share_names()
