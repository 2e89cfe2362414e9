"""The JSON summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.alerts.night import STATES
from pipelines.alerts.summary import to_json
from tests.pipelines.alerts.conftest import Ends
from tests.support.tiny import QUERIES


@pytest.mark.parametrize("state", STATES)
def test_a_summary_is_whole_in_every_state(ends: Ends, state: str) -> None:
    night = ends(state)
    text = to_json(night)
    found = json.loads(text)
    assert (found["format"], found["state"], found["run_date"]) == (1, state, "2026-03-08")
    assert found["title"]
    assert found["readers"]
    assert found["remedy"]
    assert [step["name"] for step in found["steps"]] == ["rerank"]
    assert set(found["steps"][0]) == {"name", "state", "reason", "seconds"}
    if night.run:
        assert found["run"]["run_id"] == night.run.run_id
        assert found["counts"]["queries"]["read"] == 6
        assert found["dead_letters"] == night.run.rejected
        assert found["paths"]["manifest"] == str(Path(night.output, night.folder, "manifest.json"))
        assert "report" not in found["paths"]  # no step wrote one
    else:
        assert (found["run"], found["counts"], found["paths"]) == (None, {}, {})
    assert not [query for query in QUERIES if query.lower() in text.lower()]
