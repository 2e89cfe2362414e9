"""Where the values of fields are: by mappings, and in hits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.elasticsearch.fields import Fields, Mapped, Place, Unreadable, leaves

TEXT = {"type": "text"}
PROPERTIES: dict[str, Any] = {
    "title": TEXT,
    "text": TEXT | {"fields": {"std": TEXT, "kept": TEXT | {"store": True}}},
    "body": TEXT | {"copy_to": "all"},
    "lead": TEXT | {"copy_to": ["all", "kept_all"]},
    "all": TEXT | {"fields": {"std": TEXT}},
    "kept_all": TEXT | {"store": True},
    "name": {"type": "alias", "path": "all.std"},
    "kind": {"type": "constant_keyword"},
    "parts": {"type": "nested", "properties": {"text": TEXT | {"store": True}, "x.y": TEXT}},
    "person": {"properties": {"name": {"type": "keyword", "fields": {"text": TEXT}}}},
    "tags": {"type": "flattened"},
}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("title", Place(("title",))),
        ("text.std", Place(("text",))),
        ("all", Place(("all", "body", "lead"))),
        ("name", Place(("all", "body", "lead"))),
        ("kept_all", Place(("kept_all", "lead"))),
        ("kind", Place(computed="kind")),
        ("parts.text", Place(("parts.text",))),
        ("parts.x.y", Place(("parts.x.y",))),
        ("person.name.text", Place(("person.name",))),
        ("nothing", Place(("nothing",))),
        ("scripted", Place(computed="scripted")),
        ("several.one", Place(computed="several.one")),
        ("plain", Place(("plain",))),
    ],
)
def test_a_field_is_found_where_its_index_keeps_it(name: str, place: Place) -> None:
    runtime = {
        "scripted": {"type": "keyword", "script": {"source": "..."}},
        "several": {"type": "composite", "script": {"source": "..."}, "fields": {}},
        "plain": {"type": "keyword"},
    }
    assert Mapped({"properties": PROPERTIES, "runtime": runtime}).place(name) == place


@pytest.mark.parametrize(
    ("source", "places"),
    [
        (
            {"excludes": ["text"]},
            {"title": ("title",), "text": None, "text.std": None, "text.kept": "text.kept"},
        ),
        ({"excludes": ["*"]}, {"title": None, "kept_all": "kept_all", "parts.text": None, "nothing": ()}),
        ({"excludes": ["lead"]}, {"all": None, "name": None, "kept_all": "kept_all", "body": ("body",)}),
        ({"excludes": ["part*"]}, {"parts.x.y": None, "person.name": ("person.name",)}),
        (
            {"includes": ["title", "person"]},
            {"title": ("title",), "person.name": ("person.name",), "body": None},
        ),
        ({"includes": ["p*.name"]}, {"person.name.text": ("person.name",), "title": None}),
        (
            {"enabled": False},
            {"title": None, "kept_all": "kept_all", "text.kept": "text.kept", "nothing": ()},
        ),
        ({"mode": "disabled"}, {"title": None}),
        ({"mode": "synthetic"}, {"title": ("title",), "all": ("all", "body", "lead")}),
    ],
)
def test_what_source_leaves_out_is_read_if_it_is_stored_else_refused(source: Any, places: Any) -> None:
    mapping = Mapped({"properties": PROPERTIES, "_source": source})
    for name, wanted in places.items():
        if wanted is None:
            with pytest.raises(Unreadable, match="does not store it"):
                mapping.place(name)
        else:
            assert mapping.place(name) == (Place(stored=wanted) if isinstance(wanted, str) else Place(wanted))


@pytest.mark.parametrize(
    ("more", "keep", "kept"),
    [
        ({}, "", False),
        ({}, "arrays", True),
        ({"synthetic_source_keep": "arrays"}, "", True),
        ({"doc_values": False}, "", True),
        ({"type": "text"}, "", True),
    ],
)
def test_a_synthetic_source_may_lose_the_order_of_values(more: dict[str, Any], keep: str, kept: bool) -> None:
    properties = {"shown": {"type": "keyword"} | more, "alias": {"type": "alias", "path": "shown"}}
    mapping = Mapped({"properties": properties}, mode="synthetic", keep=keep)
    assert mapping.place("shown") == Place(("shown",))  # where the order does not count
    for name in properties:
        if kept:
            assert mapping.place(name, ordered=True) == Place(("shown",))
        else:
            with pytest.raises(Unreadable, match="synthetic"):
                mapping.place(name, ordered=True)


@pytest.mark.parametrize("name", ["parts", "person", "tags"])
def test_an_object_is_no_text(name: str) -> None:
    with pytest.raises(Unreadable, match="as an object"):
        Mapped({"properties": PROPERTIES}).place(name)


def test_one_request_asks_for_what_every_index_needs() -> None:
    places = {
        "a": {"text": Place(("body", "lead"))},
        "b": {"text": Place(stored="text"), "title": Place(computed="t")},
    }
    fields = Fields(("title", "text"), places)
    assert (fields.source, fields.stored, fields.computed) == (["title", "body", "lead"], ["text"], ["t"])
    assert fields._replace(sourceless=True).source is True  # a filter would be refused
    assert Fields(("text",), {"b": {"text": Place(stored="text")}}).source is False
    assert (fields.usual, Fields(("title", "text")).usual) == (False, True)
    hits: list[dict[str, Any]] = [
        {"_index": "a", "_source": {"lead": "One.", "body": ["Two."], "text": "no"}},
        {"_index": "b", "fields": {"text": ["Three."], "t": ["T"]}},
        {"_index": "c", "_source": {"text": "Four."}},
        {"_index": "c"},
    ]
    assert [fields.values(hit, "text") for hit in hits] == [["One.", "Two."], ["Three."], ["Four."], []]
    assert [fields.values(hit, "title") for hit in hits] == [[], ["T"], [], []]


def test_names_with_dots_and_objects_are_the_same_field() -> None:
    source = {"a": {"b": {"c": 1}, "x.y": 2}, "d.e": {"f": 3}, "g.h": 4}
    assert [leaves(source, (name,)) for name in ("a.b.c", "a.x.y", "d.e.f", "g.h")] == [[1], [2], [3], [4]]
    assert [leaves(source, (name,)) for name in ("a.c", "z", "a.b.c.d", "b.c")] == [[]] * 4
    assert leaves({"a.b": 1, "a": [{"b": [2, None]}, {"c": 0}, {"b": [[3]]}]}, ("a.b",)) == [1, 2, 3]


LEAF = st.booleans() | st.integers() | st.text()
KEYS = st.sampled_from(["a", "b", "c"])
TREE = st.dictionaries(KEYS, st.recursive(LEAF, lambda inner: st.dictionaries(KEYS, inner)))


@given(TREE, st.data())
def test_no_way_to_write_a_document_changes_its_values(tree: dict[str, Any], data: st.DataObject) -> None:
    def rewritten(value: Any) -> Any:
        if isinstance(value, dict):
            value = {key: rewritten(inner) for key, inner in value.items()}
            if data.draw(st.booleans()):
                value = _dotted(value)
        return data.draw(st.sampled_from([value, [value], [[value], None], [[], value]]))

    paths = [f"{a}{b}" for a in "abc" for b in ("", ".a", ".b", ".a.c")]
    (root,) = leaves(rewritten(tree), ("",))
    for path in paths:
        plain = [value for value in leaves(tree, (path,)) if not isinstance(value, dict)]
        assert [value for value in leaves(root, (path,)) if not isinstance(value, dict)] == plain


def _dotted(tree: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat


def test_lists_may_be_nested_deeper_than_python_recurses() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert leaves({"a": deep}, ("a",)) == ["x"]
