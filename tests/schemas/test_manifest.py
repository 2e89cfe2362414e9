"""What a run says of itself, written and read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.errors import ManifestError
from schemas.manifest import FORMAT, from_json, to_json
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


def test_nothing_that_a_run_writes_holds_a_secret(night: Night) -> None:
    # The night's fixture has it in the environment, which is where secrets may stand.
    written = [path for path in night.output.rglob("*") if path.is_file()]
    assert {"manifest.json", "latest.json", "_lock"} <= {path.name for path in written}
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
