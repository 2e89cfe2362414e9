"""What a run says of itself, written and read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from schemas.errors import ManifestError
from schemas.manifest import FORMAT, Manifest, from_json, to_json
from tests.conftest import SECRET, Night


def damaged(night: Night, **changes: Any) -> str:
    """The night's manifest with other values; ... takes a field out."""
    raw = json.loads(to_json(night.manifest)) | changes
    return json.dumps({name: value for name, value in raw.items() if value is not ...})


def test_a_manifest_comes_back_as_it_was(night: Night) -> None:
    assert from_json(to_json(night.manifest)) == night.manifest
    assert from_json(damaged(night, window=None)).window is None


def test_another_format_is_refused_by_its_number(night: Night) -> None:
    with pytest.raises(ManifestError, match=f"m.json has format 99; this version reads format {FORMAT}"):
        from_json(damaged(night, format=99), name="m.json")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 2}', "7", '{"format": 2, "balance": 3, "tables": {}}', "[" * 100_000],
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match="m.json is damaged"):
        from_json(text, name="m.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": ...},
        {"format": ...},
        {"tables": ...},
        {"balance": {"events": {}}},
        {"more": 1},
        {"tables": {"reranked": {"path": "p"}}},
        {"tables": []},
    ],
)
def test_a_damaged_manifest_is_refused(night: Night, changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="is damaged"):
        from_json(damaged(night, **changes))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON document."""
    if path:
        yield path
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


@settings(max_examples=1000)
@given(data=st.data())
def test_any_json_in_any_place_is_read_with_its_type_or_refused(night: Night, data: st.DataObject) -> None:
    raw = json.loads(to_json(night.manifest))
    *path, last = data.draw(st.sampled_from(list(places(raw))))
    node = raw
    for key in path:
        node = node[key]
    before, node[last] = node[last], data.draw(JSON)
    try:
        read = from_json(json.dumps(raw))
    except ManifestError:
        assert json.dumps(node[last]) != json.dumps(before)  # False is no 0
        return
    for field in dataclasses.fields(
        Manifest
    ):  # what was read is of the fields' types, so no reader stumbles later
        TypeAdapter(get_type_hints(Manifest)[field.name]).validate_python(
            getattr(read, field.name), strict=True
        )
    assert json.dumps(json.loads(to_json(read)), sort_keys=True) == json.dumps(raw, sort_keys=True)


@pytest.mark.parametrize("damage", ["[" * 100_000, '{"format": ' + "1" * 5000 + "}", '{"a": ' * 50_000])
def test_json_that_is_too_deep_or_too_long_is_refused(damage: str) -> None:
    with pytest.raises(ManifestError, match="is damaged"):
        from_json(damage)


def test_nothing_that_a_run_writes_holds_a_secret(night: Night) -> None:
    # The night's fixture has it in the environment, which is where secrets may stand.
    written = [path for path in night.output.rglob("*") if path.is_file()]
    assert {"manifest.json", "latest.json", "_lock"} <= {path.name for path in written}
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
