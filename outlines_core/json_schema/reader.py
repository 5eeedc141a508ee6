"""Schema documents -> nodes: one pass over everything that can be reached from the root.

Each schema object is read once, whether it is reached from its parent or through any number of references, and becomes
one `SchemaNode`; so references may be cyclic and the work is linear in what is reachable. Definitions that nothing
refers to are not read. The pass is a work list: neither nesting nor chains of references touch Python's stack.

The value of each keyword is checked where it is read. The first fault ends the reading; if the `jsonschema` library is
installed it then adds what else the meta-schema objects to (checking everything against the meta-schema beforehand
would take a hundred times longer than reading).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any
from weakref import ref

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.dialects import UNDECLARED, Dialect
from outlines_core.json_schema.documents import Base, Documents
from outlines_core.json_schema.keywords import handlers_of
from outlines_core.json_schema.nodes import DynamicRef, Resource, SchemaNode
from outlines_core.json_schema.places import escaped, pointer_of, shown
from outlines_core.json_schema.values import describe
from outlines_core.limits import DEFAULT_LIMITS, Limits

__all__ = ["Reader", "explain_malformed", "read_schema"]

_REPORTED = 5  # lines of the library's report that are added to a message


def read_schema(
    schema: dict[str, Any] | bool,
    *,
    registry: Any = None,
    limits: Limits = DEFAULT_LIMITS,
    on_unsupported: Callable[[UnsupportedFeatureError], None] | None = None,
) -> SchemaNode:
    """The node of a schema; the nodes below and behind references hang on it.

    Args:
        schema: a JSON Schema as Python data (`sources.to_schema` makes it from text, models, signatures).
        registry: schemas that `$ref` may name: a mapping from URIs, or a `referencing.Registry`.
        limits: bounds on numbers and patterns.
        on_unsupported: called with each pattern that cannot be enforced, which is then left out; by default such an
            error is raised.

    Raises:
        ConstraintSyntaxError: malformed, or a reference that leads nowhere; `.path` says where.
        UnsupportedFeatureError: a pattern with back-references, a dialect that requires an unknown vocabulary.
        LimitExceededError: a number beyond the limits, a constant that is nested too deep.

    >>> read_schema({"type": "object", "properties": {"a": {"minLength": 2}}}).properties["a"].min_length
    2
    """
    if not isinstance(schema, (dict, bool)):
        raise ConstraintSyntaxError(f"a schema must be an object, true or false, not {describe(schema)}")
    reader = Reader(schema, registry, limits, on_unsupported)
    try:
        return reader.read()
    except ConstraintSyntaxError as error:
        if error is reader.first_fault and error.path.startswith("/"):
            more = [line for line in explain_malformed(schema, registry) if f"(at #{error.path})" not in line]
            if more:
                shortened = more[:_REPORTED] + (
                    [f"... and {len(more) - _REPORTED} more"] if len(more) > _REPORTED else []
                )
                error.args = ("\n  ".join([f"{error.args[0]}\nalso, by the meta-schema:", *shortened]),)
        raise


class Reader:
    """The state of one pass.  Handlers of keywords see the `schema` they read, its `base`, `limits`, the methods."""

    def __init__(
        self,
        schema: dict[str, Any] | bool,
        registry: Any,
        limits: Limits,
        on_unsupported: Callable[[UnsupportedFeatureError], None] | None,
    ) -> None:
        self.limits = limits
        self.first_fault: ConstraintSyntaxError | None = None
        self._on_unsupported = on_unsupported
        self._documents = Documents(schema, registry)
        self.base: Base = self._documents.main
        self.schema: dict[str, Any] = {}
        self._todo: list[tuple[SchemaNode, dict[str, Any], Base]] = []
        self._dynamic: dict[str, None] = {}  # names that dynamic references look for, in the order met

    def read(self) -> SchemaNode:
        """Read everything that can be reached from the root."""
        root = self._node_at(self.base.root, self.base, "")
        done = self._drain(0)
        while self._dynamic and (self._bind() or done < len(self._todo)):
            done = self._drain(done)
        root.read = [node for node, _, _ in self._todo if node is not root]
        for _, _, base in self._todo:  # bases refer to themselves: nothing may hang on them
            base.nodes.clear()
            base.refs.clear()
        return root

    def _drain(self, done: int) -> int:
        """Read what is on the list, beginning with entry `done`; the list grows meanwhile."""
        todo = self._todo
        while done < len(todo):
            node, schema, base = todo[done]
            done += 1
            self.schema, self.base = schema, base
            dialect = base.dialect
            handlers = dialect.handlers or handlers_of(dialect)
            if dialect.ref_hides and "$ref" in schema:
                handlers["$ref"](self, node, schema["$ref"])
                continue
            for key, value in schema.items():
                if key in handlers:
                    handlers[key](self, node, value)
                elif key.__class__ is not str and not isinstance(key, str):
                    raise self.fault(node, "", f"a keyword must be a string, not {describe(key)}")
        return done

    def child(self, value: Any, parent: SchemaNode, keyword: str, name: str | int | None = None) -> SchemaNode:
        """The node of the subschema `value` of `parent`, to be read later."""
        if value.__class__ is dict or isinstance(value, dict):
            base = self.base
            node = base.nodes.get(id(value))
            if node is None:
                node = SchemaNode(ref(parent), keyword, name)
                if "$id" in value or "id" in value:
                    base = self._documents.enter(value, base, node)
                    known = base.nodes.get(id(value))
                    if known is not None:
                        return known
                base.nodes[id(value)] = node
                self._todo.append((node, value, base))
            return node
        if value is True or value is False:
            return SchemaNode(ref(parent), keyword, name, value)
        steps = keyword if name is None else f"{keyword}/{escaped(str(name))}"
        raise self.fault(parent, steps, f"a schema must be an object, true or false, not {describe(value)}")

    def made(self, parent: SchemaNode) -> SchemaNode:
        """A node that stands for no schema object, at the place of `parent`."""
        node = SchemaNode(parent.place, parent.keyword, parent.name)
        self.base.nodes[id(node)] = node
        return node

    def refer(self, node: SchemaNode, keyword: str, reference: str) -> None:
        """Carry out `$ref` and its dynamic relatives."""
        base = self.base
        target = base.refs.get(reference)
        if target is None or keyword != "$ref":
            place = self._documents.resolve(reference, base, f"{node.pointer}/{keyword}")
            if not isinstance(place.value, (dict, bool)):
                raise self.fault(node, keyword, f'"{reference}" must lead to a schema, not to {describe(place.value)}')
            target = base.refs.get(reference)
            if target is None:
                target = base.refs[reference] = self._node_at(place.value, place.base, place.pointer)
            dynamic: str | None = None
            if keyword == "$dynamicRef":
                dynamic = place.anchor
            elif keyword == "$recursiveRef" and _is_recursive(place.base) and place.value is place.base.root:
                dynamic = ""
            if dynamic is not None:
                self._dynamic[dynamic] = None
                holder = node
                if node.dynamic_ref is not None:
                    holder = self.made(node)
                    node.all_of += (holder,)
                holder.dynamic_ref = DynamicRef(dynamic, target)
                return
        if node.ref is None:
            node.ref = target
        else:
            node.all_of += (target,)

    def _node_at(self, value: Any, base: Base, pointer: str) -> SchemaNode:
        if isinstance(value, bool):
            return SchemaNode(pointer, always=value)
        node = base.nodes.get(id(value))
        if node is None:
            node = base.nodes[id(value)] = SchemaNode(pointer)
            self._todo.append((node, value, base))
        return node

    def _bind(self) -> bool:
        """Give nodes their resources, and resources their dynamic anchors; True if that brought up new nodes."""
        self._documents.index()
        before = len(self._todo)
        for base in {id(base): base for _, _, base in self._todo}.values():
            if base.resource is None:
                base.resource = Resource(base.uri, {})
            for name in self._dynamic:
                if name in base.resource.dynamic:
                    continue
                if name:
                    if name in base.dynamic:
                        place = self._documents.anchor(name, base)
                        base.resource.dynamic[name] = self._node_at(place.value, place.base, place.pointer)
                elif _is_recursive(base):
                    base.resource.dynamic[""] = self._node_at(base.root, base, pointer_of(base.where))
            for node in base.nodes.values():
                node.resource = base.resource
        return len(self._todo) > before

    def fault(self, node: SchemaNode, steps: str, message: str) -> ConstraintSyntaxError:
        """The error of a malformed keyword.  `steps`: the keyword, and what else leads from `node` to the fault."""
        place = f"{node.pointer}/{steps}" if steps else node.pointer
        self.first_fault = ConstraintSyntaxError(f"{message} (at {shown(place)})", path=place)
        return self.first_fault

    def exceeded(self, node: SchemaNode, steps: str, error: LimitExceededError) -> LimitExceededError:
        """`error` with the place added."""
        place = f"{node.pointer}/{steps}"
        return LimitExceededError(f"{error} (at {shown(place)})", given=error.given, limit=error.limit)

    def refuse(self, error: UnsupportedFeatureError) -> None:
        """Raise, or leave it to the caller's `on_unsupported`."""
        if self._on_unsupported is None:
            raise error
        self._on_unsupported(error)


def _is_recursive(base: Base) -> bool:
    return (
        isinstance(base.root, dict)
        and base.root.get("$recursiveAnchor") is True
        and "$recursiveAnchor" in base.dialect.keywords
    )


def explain_malformed(schema: Any, registry: Any = None) -> list[str]:
    """What the meta-schema objects to, a line each; empty if nothing, or if `jsonschema` is not installed.

    Best effort, for messages: a schema without `$schema` is held against the draft that likes it best.
    """
    try:
        library = importlib.import_module("jsonschema")
    except ImportError:
        return []
    try:
        plain = json.loads(json.dumps(schema, default=float))
        dialect = Documents(plain, registry).main.dialect
        reports = [
            sorted(
                f"{error.message[:300]} (at #{''.join('/' + escaped(str(step)) for step in error.absolute_path)})"
                for error in validator(validator.META_SCHEMA).iter_errors(plain)
            )
            for validator in _validators(library, dialect)
        ]
    except (TypeError, ValueError, RecursionError):  # no JSON at all, or nested too deep for the library
        return []
    return min(reports, key=len)


def _validators(library: Any, dialect: Dialect) -> list[Any]:
    by_name = {
        "draft 4": library.Draft4Validator,
        "draft 6": library.Draft6Validator,
        "draft 7": library.Draft7Validator,
        "draft 2019-09": library.Draft201909Validator,
        "draft 2020-12": library.Draft202012Validator,
    }
    if dialect is UNDECLARED:
        return [by_name["draft 2020-12"], by_name["draft 7"], by_name["draft 4"]]
    return [validator for name, validator in by_name.items() if dialect.name.startswith(name)]
