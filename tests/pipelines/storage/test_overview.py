"""The states of runs, and what a row says of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipelines.storage import runs
from pipelines.storage.held import hold
from pipelines.storage.overview import list_runs
from pipelines.storage.publish import publish
from pipelines.storage.rollback import rollback
from schemas.manifest import to_json
from tests.conftest import Night
from tests.pipelines.storage.conftest import renamed, stage


def test_every_state(night: Night, output: Path) -> None:
    for run_id, date in (
        ("20260308-second", "2026-03-08"),
        ("20260309-third", "2026-03-09"),
        ("20260310-bad", "2026-03-10"),
    ):
        manifest = renamed(night, run_id, run_date=date)
        stage(night, output, manifest)
        publish(str(output), manifest)
    held = renamed(night, "20260311-held", run_date="2026-03-11")
    stage(night, output, held)
    hold(str(output), held)
    assert [row.state for row in list_runs(str(output))] == [
        "held",
        "latest",
        "published",
        "published",
        "superseded",
    ]
    rollback(str(output))
    rollback(str(output))
    (output / runs.manifest_path("2026-03-09", "20260309-third")).write_text("[]")
    rows = list_runs(str(output))
    assert [(row.run_id, row.state) for row in rows] == [
        ("20260311-held", "held"),
        ("20260310-bad", "rolled back"),
        ("20260309-third", "damaged"),
        ("20260308-second", "latest"),
        (night.manifest.run_id, "superseded"),
    ]
    assert "manifest.json" in rows[2].problem
    assert rows[2].queries is None
    (output / "latest.json").unlink()
    assert "latest" not in {row.state for row in list_runs(str(output))}
    (output / "latest.json").write_text("[")
    assert len(list_runs(str(output))) == 5


def test_a_row_holds_the_manifests_figures(night: Night, output: Path) -> None:
    measured = dataclasses.replace(
        night.manifest,
        metrics={"document": {"queries": 3.0, "before nDCG@10": 0.4, "after nDCG@10": 0.5}},
        drift={"verdict": "warn"},
        balance=dataclasses.replace(
            night.manifest.balance,
            queries={"read": 7, "published": 4, "stale": 2, "rejected": 1},
            pairs={"read": 60, "published": 10, "reused": 20, "pruned": 30},
        ),
    )
    path = output / runs.manifest_path(night.manifest.run_date, night.manifest.run_id)
    path.write_text(to_json(measured))
    (row,) = list_runs(str(output))
    assert (row.queries, row.stale, row.pairs, row.fresh, row.reused, row.pruned) == (6, 2, 60, 10, 20, 30)
    assert (row.ndcg_at_10, row.bm25_ndcg_at_10, row.drift) == (0.5, 0.4, "warn")
    size = sum(file.stat().st_size for file in path.parent.rglob("*.parquet"))
    assert (row.bytes, row.seconds) == (size, night.manifest.seconds)
    assert list_runs(str(output / "empty")) == []
