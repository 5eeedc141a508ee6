"""Where in a schema the fault is: what cannot be fulfilled, and what cannot be enforced."""

from __future__ import annotations

from collections.abc import Iterator

from outlines_core.errors import LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.depth import deeply
from outlines_core.json_schema.lexemes import Lexemes
from outlines_core.json_schema.lower import Lowering
from outlines_core.json_schema.nodes import ARRAY, OBJECT, SchemaNode
from outlines_core.json_schema.sat import Satisfiability, Usable, placed
from outlines_core.limits import Limits

__all__ = ["leave_out", "refuse_unique_items", "unsatisfiable_place", "unsupported_places"]


def unsupported_places(root: SchemaNode, limits: Limits) -> list[tuple[SchemaNode, UnsupportedFeatureError]]:
    """What the engine refuses in any of the schemas that can be reached from `root`, each taken by itself."""
    lexemes = Lexemes(limits)
    lowering = Lowering(lexemes)
    sat = Satisfiability(lowering, lexemes, in_order=True, usable=Usable())
    found: dict[str, tuple[SchemaNode, UnsupportedFeatureError]] = {}
    for node in _reachable(root):
        sub = lowering.sub(node, ())
        try:
            deeply(lambda: (lowering.split(sub), sat.sub(sub)))  # noqa: B023
        except UnsupportedFeatureError as error:
            named = placed(error, node.pointer)
            if named.path == node.pointer:  # else the schema there is still to come, or was there
                found.setdefault(named.path, (node, named))
        except LimitExceededError:
            continue  # a question of size, not of support
    return list(found.values())


def refuse_unique_items(lowering: Lowering, sat: Satisfiability, root: SchemaNode) -> None:
    """Raise what arrays of unique items are refused for now, and not when one begins in the middle of a text."""
    for node in _reachable(root):
        if node.unique_items and (node.min_items > 1 or node.contains is not None):
            sub = lowering.sub(node, ())
            deeply(lambda: sat.sub(sub))  # noqa: B023


def leave_out(node: SchemaNode, error: UnsupportedFeatureError) -> None:
    """Take away from a node what was refused."""
    if error.feature.startswith("uniqueItems"):
        node.unique_items = False
    elif error.feature == "$ref to itself":
        node.ref = node.dynamic_ref = None


def unsatisfiable_place(lowering: Lowering, sat: Satisfiability, root: SchemaNode) -> str:
    """The innermost schema that has no value although one is required, as a JSON pointer."""
    node, seen = root, {id(root)}
    while True:
        inner = next((n for n in _needed(node) if id(n) not in seen and not sat.sub(lowering.sub(n, ()))), None)
        if inner is None:
            return node.pointer
        seen.add(id(inner))
        node = inner


def _needed(node: SchemaNode) -> Iterator[SchemaNode]:
    """The schemas of which a value of `node` needs one, as far as that is plain to see."""
    yield from node.all_of
    if node.ref is not None:
        yield node.ref
    if node.types == OBJECT:
        yield from (node.properties[key] for key in node.required if key in node.properties)
        if node.additional is not None:
            yield from (node.additional for key in node.required if key not in node.properties)
    if node.types == ARRAY:
        yield from node.prefix_items[: node.min_items]
        if node.items is not None and node.min_items > len(node.prefix_items):
            yield node.items
        if node.contains is not None and node.min_contains:
            yield node.contains


def _reachable(root: SchemaNode) -> Iterator[SchemaNode]:
    """Every schema that `root` consists of or refers to."""
    open_, seen = [root], {id(root)}
    while open_:
        node = open_.pop()
        yield node
        for other in reversed(list(_parts(node))):
            if id(other) not in seen:
                seen.add(id(other))
                open_.append(other)


def _parts(node: SchemaNode) -> Iterator[SchemaNode]:
    for value in vars(node).values():
        if isinstance(value, SchemaNode):
            yield value
        elif isinstance(value, dict):
            yield from (v for v in value.values() if isinstance(v, SchemaNode))
        elif isinstance(value, tuple):
            for entry in value:
                if isinstance(entry, SchemaNode):
                    yield entry
                elif isinstance(entry, tuple):
                    yield from (v for v in entry if isinstance(v, SchemaNode))
    if node.dynamic_ref is not None:
        yield node.dynamic_ref.target
