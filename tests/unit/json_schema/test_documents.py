"""References lead where the drafts say; those that lead nowhere say so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from outlines_core.errors import ConstraintSyntaxError, LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.nodes import INTEGER, STRING
from outlines_core.json_schema.places import join
from outlines_core.json_schema.reader import read_schema

D4 = "http://json-schema.org/draft-04/schema#"
D6 = "http://json-schema.org/draft-06/schema#"
D7 = "http://json-schema.org/draft-07/schema#"
D2019 = "https://json-schema.org/draft/2019-09/schema"
D2020 = "https://json-schema.org/draft/2020-12/schema"
STR = {"type": "string"}


def target(schema, registry=None):
    node = read_schema(schema, registry=registry)
    while node.ref is not None:
        node = node.ref
    return node


class TestPointers:
    @pytest.mark.parametrize(
        ("reference", "names"),
        [
            ("#/$defs/a", ["a"]),
            ("#/$defs/a~1b~0c", ["a/b~c"]),
            ("#/$defs/a%25b%22%20c", ['a%b" c']),
            ("#/$defs/ü", ["ü"]),
            ("#/$defs/%C3%BC", ["ü"]),
            ("#/$defs/", [""]),
            ("#/$defs/~01", ["~1"]),
        ],
    )
    def test_escapes(self, reference, names):
        node = target({"$ref": reference, "$defs": {names[0]: STR}})
        assert node.types == STRING

    def test_into_arrays(self):
        schema = {"allOf": [{"$ref": "#/anyOf/10"}], "anyOf": [{}] * 10 + [STR]}
        node = read_schema(schema)
        assert node.all_of[0].ref.pointer == "/anyOf/10"

    @pytest.mark.parametrize(
        "reference",
        ["#/anyOf/2", "#/anyOf/01", "#/anyOf/-", "#/anyOf/-1", "#/anyOf/x", "#/a", "#/anyOf/0/type/a", "#/"],
    )
    def test_dangling(self, reference):
        with pytest.raises(ConstraintSyntaxError, match="leads nowhere") as caught:
            read_schema({"allOf": [{"$ref": reference}], "anyOf": [STR, {}]})
        assert caught.value.path == "/allOf/0/$ref"

    def test_to_what_is_no_schema(self):
        with pytest.raises(ConstraintSyntaxError, match="must lead to a schema"):
            read_schema({"$ref": "#/type", "type": "string"})

    def test_to_booleans_and_unknown_places(self):
        assert target({"$ref": "#/x-parts/0", "x-parts": [False]}).always is False
        assert target({"$ref": "#/examples/0", "examples": [STR]}).types == STRING

    def test_a_place_is_read_once(self):
        node = read_schema({"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#/properties/c"}, "c": STR}})
        assert node.properties["a"].ref is node
        assert node.properties["b"].ref is node.properties["c"]


class TestIdentifiers:
    @pytest.mark.parametrize("key", ["$id", "id"])
    def test_base_uris_nest(self, key):
        schema = {
            "$schema": D7 if key == "$id" else D4,
            key: "http://x/a/",
            "allOf": [{"$ref": "#/definitions/q/items"}],
            "definitions": {"q": {key: "b/", "items": {"$ref": "c"}}, "r": {key: "b/c", "type": "string"}},
        }
        assert read_schema(schema).all_of[0].ref.ref.types == STRING

    def test_urns(self):
        schema = {"$id": "urn:a:b", "$ref": "urn:a:c#/$defs/x", "$defs": {"y": {"$id": "urn:a:c", "$defs": {"x": STR}}}}
        assert target(schema).pointer == "/$defs/y/$defs/x"

    def test_identifiers_in_constants_are_none(self):
        schema = {
            "anyOf": [{"$ref": "http://x/a"}, {"$ref": "#/anyOf/2"}, {"enum": [{"$id": "http://x/a", "type": "null"}]}],
            "$defs": {"z": {"$id": "http://x/a", "type": "string"}},
        }
        assert read_schema(schema).any_of[0].ref.types == STRING

    def test_a_ref_hides_the_identifier_beside_it_up_to_draft_7(self):
        schema = {
            "$id": "http://x/base/",
            "properties": {"a": {"$id": "http://x/", "$ref": "foo"}},
            "$defs": {"f": {"$id": "foo", "type": "string"}, "g": {"$id": "http://x/foo", "type": "integer"}},
            "definitions": {"f": {"$id": "foo", "type": "string"}, "g": {"$id": "http://x/foo", "type": "integer"}},
        }
        assert read_schema({"$schema": D7, **schema}).properties["a"].ref.types == STRING
        assert read_schema({"$schema": D2020, **schema}).properties["a"].ref.types == INTEGER

    @pytest.mark.parametrize(
        ("dialect", "schema"),
        [
            (D4, {"id": "#foo"}),
            (D6, {"$id": "#foo"}),
            (D7, {"$id": "#foo"}),
            (D2019, {"$anchor": "foo"}),
            (D2020, {"$anchor": "foo"}),
            (D2020, {"$dynamicAnchor": "foo"}),
        ],
    )
    def test_anchors(self, dialect, schema):
        for declared in ({"$schema": dialect}, {}):
            root = {**declared, "allOf": [{"$ref": "#foo"}], "definitions": {"A": {"type": "string", **schema}}}
            assert read_schema(root).all_of[0].ref.types == STRING

    def test_anchors_belong_to_their_resource(self):
        schema = {
            "$id": "http://x/root",
            "$ref": "child1#a",
            "$defs": {
                "A": {
                    "$id": "child1",
                    "allOf": [{"$id": "child2", "$anchor": "a", "type": "integer"}, {"$anchor": "a", **STR}],
                }
            },
        }
        assert target(schema).types == STRING
        with pytest.raises(ConstraintSyntaxError, match='no anchor "a"'):
            read_schema({**schema, "$ref": "#a"})

    def test_a_pointer_starts_at_its_resource(self):
        schema = {
            "$schema": D4,
            "properties": {"a": {"id": "a", "items": {"$ref": "#/definitions/x"}}},
            "definitions": {"x": STR},
        }
        with pytest.raises(ConstraintSyntaxError, match="leads nowhere"):
            read_schema(schema)

    def test_an_undeclared_id_may_be_an_annotation(self):
        schema = {"properties": {"a": {"id": "a", "items": {"$ref": "#/definitions/x"}}}, "definitions": {"x": STR}}
        assert read_schema(schema).properties["a"].items.ref.types == STRING

    def test_long_uris_are_bounded(self):
        root = schema = {"$id": "http://x/"}
        for i in range(2000):
            schema["properties"] = {"a": {"$id": f"n{i}/"}}
            schema = schema["properties"]["a"]
        schema["$ref"] = "y"
        with pytest.raises(LimitExceededError, match="URI"):
            read_schema(root)

    @pytest.mark.parametrize(
        ("base", "reference", "joined"),
        [
            ("http://a/b/c/d;p?q", "../g", "http://a/b/g"),
            ("http://a/b/c/d;p?q", "?y", "http://a/b/c/d;p?y"),
            ("http://a/b/c/d;p?q", "//g", "http://g"),
            ("http://a/b", "urn:x", "urn:x"),
            ("urn:a:b", "#c", "urn:a:b#c"),
            ("file:///c:/f/a.json", "b.json", "file:///c:/f/b.json"),
            ("custom://h/a/b", "/c", "custom://h/c"),
            ("", "b", "b"),
            ("a", "", "a"),
            ("http://[x", "b", "b"),
        ],
    )
    def test_join(self, base, reference, joined):
        assert join(base, reference) == joined


class TestRegistry:
    REMOTE = {
        "$id": "http://x/real",
        "$defs": {"i": STR, "e": {"$id": "http://x/embedded", "type": "integer"}},
        "$ref": "#/$defs/i",
    }

    def test_mapping(self):
        node = read_schema({"$ref": "http://x/remote"}, registry={"http://x/remote": self.REMOTE})
        assert node.ref.pointer == "http://x/remote#"
        assert node.ref.ref.pointer == "http://x/remote#/$defs/i"
        assert node.ref.ref.types == STRING

    @pytest.mark.parametrize("uri", ["http://x/real", "http://x/embedded"])
    def test_identifiers_inside_of_its_documents(self, uri):
        assert read_schema({"$ref": uri}, registry={"http://x/remote": self.REMOTE}).ref is not None

    def test_the_document_itself_wins(self):
        schema = {"$ref": "http://x/remote", "$defs": {"a": {"$id": "http://x/remote", "type": "integer"}}}
        assert target(schema, {"http://x/remote": STR}).types == INTEGER

    def test_anything_like_a_referencing_registry(self):
        class Registry:
            def get_or_retrieve(self, uri):
                if uri != "http://x/s":
                    raise KeyError(uri)
                return SimpleNamespace(value=SimpleNamespace(contents=STR))

        assert target({"$ref": "http://x/s"}, Registry()).types == STRING
        with pytest.raises(ConstraintSyntaxError, match="no document http://x/t"):
            read_schema({"$ref": "http://x/t"}, registry=Registry())
        with pytest.raises(TypeError):
            read_schema({}, registry=3)

    def test_referencing(self):
        referencing = pytest.importorskip("referencing")
        resource = referencing.Resource.from_contents(STR, referencing.jsonschema.DRAFT202012)
        assert target({"$ref": "s.json"}, referencing.Registry().with_resource("s.json", resource)).types == STRING
        assert target({"$ref": "s.json"}, {"s.json": resource}).types == STRING

    def test_faults_in_it_are_placed(self):
        with pytest.raises(ConstraintSyntaxError, match=r"\(at s.json#/minLength\)") as caught:
            read_schema({"$ref": "s.json"}, registry={"s.json": {"minLength": -1}})
        assert caught.value.path == "s.json#/minLength"
        with pytest.raises(ConstraintSyntaxError, match="must be a schema"):
            read_schema({"$ref": "s.json"}, registry={"s.json": [1]})

    def test_meta_schemas(self):
        pytest.importorskip("jsonschema_specifications")
        for uri in (D4, D7, D2019, D2020):
            assert read_schema({"$ref": uri}).ref is not None

    def test_nothing_is_fetched(self):
        with pytest.raises(ConstraintSyntaxError, match="nothing is fetched"):
            read_schema({"$ref": "https://example.com/schema.json"})


class TestDialects:
    def test_each_resource_has_its_own(self):
        schema = {
            "$schema": D2020,
            "allOf": [{"$id": "old", "$schema": D7, "items": [STR], "prefixItems": 3}],
            "properties": {"a": {"$ref": "http://x/2019"}},
        }
        node = read_schema(schema, registry={"http://x/2019": {"$schema": D2019, "prefixItems": [STR]}})
        assert len(node.all_of[0].prefix_items) == 1
        assert node.properties["a"].ref.prefix_items == ()

    def test_documents_without_one_have_that_of_the_main_document(self):
        registry = {"s": {"$ref": "#/definitions/x", "type": "integer", "definitions": {"x": STR}}}
        assert read_schema({"$schema": D7, "$ref": "s"}, registry=registry).ref.types != INTEGER
        assert read_schema({"$schema": D2020, "$ref": "s"}, registry=registry).ref.types == INTEGER

    def test_vocabularies(self):
        vocabulary = "https://json-schema.org/draft/2020-12/vocab/"
        meta = {"$schema": D2020, "$vocabulary": {vocabulary + "core": True, vocabulary + "applicator": True}}
        schema = {"$schema": "http://x/meta", "minLength": "?", "properties": {"a": False}}
        node = read_schema(schema, registry={"http://x/meta": meta})
        assert node.min_length == 0
        assert node.properties["a"].always is False
        meta["$vocabulary"]["http://x/mine"] = False
        read_schema(schema, registry={"http://x/meta": meta})
        meta["$vocabulary"]["http://x/mine"] = True
        with pytest.raises(UnsupportedFeatureError) as caught:
            read_schema(schema, registry={"http://x/meta": meta})
        assert (caught.value.feature, caught.value.path) == ("$vocabulary", "/$schema")

    def test_a_meta_schema_of_an_old_draft(self):
        schema = {"$schema": "http://x/meta", "items": [STR]}
        assert read_schema(schema, registry={"http://x/meta": {"$schema": D7}}).prefix_items

    def test_unknown_and_ancient_ones(self):
        assert read_schema({"$schema": "http://x/unknown", "items": [STR]}).prefix_items
        with pytest.raises(UnsupportedFeatureError, match="older than draft 4"):
            read_schema({"$schema": "http://json-schema.org/draft-03/schema#"})
        with pytest.raises(ConstraintSyntaxError, match="must be a URI"):
            read_schema({"$schema": 3})


class TestDynamicReferences:
    def test_resources_know_their_dynamic_anchors(self):
        tree = {"$id": "tree", "$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}}
        strict = {"$id": "http://x/strict", "$dynamicAnchor": "node", "$ref": "tree", "unevaluatedProperties": False}
        root = read_schema({**strict, "$defs": {"tree": tree}})
        reference = root.ref.items.dynamic_ref
        assert reference.name == "node"
        assert reference.target is root.ref
        assert root.resource.dynamic == {"node": root}
        assert root.ref.resource.dynamic == {"node": root.ref}
        assert root.ref.items.resource is root.ref.resource

    def test_anchors_that_nothing_else_leads_to_are_read(self):
        list_ = {"$id": "list", "items": {"$dynamicRef": "#t"}, "$defs": {"t": {"$dynamicAnchor": "t"}}}
        root = read_schema(
            {"$id": "http://x/", "$ref": "list", "$defs": {"s": {"$dynamicAnchor": "t", **STR}, "l": list_}}
        )
        assert root.resource.dynamic["t"].types == STRING

    @pytest.mark.parametrize("reference", ["#t", "#/$defs/t"])
    def test_one_whose_first_target_is_not_dynamic_is_plain(self, reference):
        anchor = "$anchor" if reference == "#t" else "$dynamicAnchor"
        node = read_schema({"items": {"$dynamicRef": reference}, "$defs": {"t": {anchor: "t", **STR}}}).items
        assert node.dynamic_ref is None
        assert node.ref.types == STRING
        assert node.resource is None

    def test_recursive_references(self):
        inner = {"$id": "inner", "$recursiveAnchor": True, "items": {"$recursiveRef": "#"}}
        schema = {
            "$schema": D2019,
            "$id": "http://x/",
            "$recursiveAnchor": True,
            "$ref": "inner",
            "$defs": {"i": inner},
        }
        root = read_schema(schema)
        assert root.ref.items.dynamic_ref.name == ""
        assert root.resource.dynamic == {"": root}
        inner["$recursiveAnchor"] = False
        assert read_schema(schema).ref.items.dynamic_ref is None

    def test_beside_an_ordinary_reference(self):
        node = read_schema(
            {"$ref": "#/$defs/a", "$dynamicRef": "#b", "allOf": [{}], "$defs": {"a": {}, "b": {"$anchor": "b"}}}
        )
        assert node.ref.pointer == "/$defs/a"
        assert sorted(sub.pointer for sub in node.all_of) == ["/$defs/b", "/allOf/0"]
