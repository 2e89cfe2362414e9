"""Two runs side by side, against a comparison that holds everything in memory."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.evaluate import two_runs
from pipelines.evaluate.two_runs import compare_runs
from pipelines.storage import runs
from rerank_core.drift.ranks import overlap_at, rank_correlation
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from tests.conftest import Night
from tests.support.published_run import publish_run, rewrite


def lists(output: Path, manifest: Manifest) -> dict[str, list[str]]:
    """Passages by the text of the query, in order."""
    folder = output / manifest.tables["reranked"].path
    rows = [row for path in folder.iterdir() for row in pq.read_table(path).to_pylist()]
    found: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row["rank"]):
        found.setdefault(row["query"], []).append(row["passage_id"])
    return found


@pytest.fixture
def shuffled(tmp_path: Path) -> tuple[Manifest, Manifest]:
    """Forty queries in one run; in the other fifty, a third of them in another order, a third with other passages."""
    one = publish_run(tmp_path, run_id="20260308-a", queries=40, results=14)
    other = publish_run(tmp_path, run_id="20260308-b", queries=50, shards=7, results=14)
    drawn = random.Random(5)

    def change(rows: pa.Table) -> pa.Table:
        by_query: dict[str, list[dict[str, object]]] = {}
        for row in rows.to_pylist():
            by_query.setdefault(row["query"], []).append(row)
        for number, found in enumerate(by_query.values()):
            ranks = [row["rank"] for row in found]
            if number % 3:
                drawn.shuffle(ranks)
            for row, rank in zip(found, ranks, strict=True):
                row["rank"] = rank
                if number % 3 == 2 and drawn.random() < 0.5:
                    row["passage_id"] = f"new-{rank}"
        return pa.Table.from_pylist([row for found in by_query.values() for row in found], schema=rows.schema)

    rewrite(tmp_path, other, "reranked", change)
    return one, runs.find_run(str(tmp_path), other.run_id)


@pytest.mark.parametrize("at_once", [300_000, 100, 7])
def test_lists_are_compared_whatever_is_held_in_memory(
    tmp_path: Path,
    shuffled: tuple[Manifest, Manifest],
    at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(two_runs, "ROWS_AT_ONCE", at_once)
    one, other = shuffled
    found = compare_runs(str(tmp_path), one, other, top=5)
    before, after = lists(tmp_path, one), lists(tmp_path, other)
    common = before.keys() & after.keys()
    unchanged = sum(before[query][:10] == after[query][:10] for query in common)
    assert 0 < unchanged < 40
    assert found.queries == {"common": 40, "added": 10, "removed": 0, "unchanged": unchanged}
    overlap = {query: overlap_at(before[query], after[query], 10) for query in common}
    tau = {query: rank_correlation(before[query], after[query]) for query in common}
    assert found.overlap_at_10 == pytest.approx(fmean(overlap.values()))
    assert found.rank_correlation == pytest.approx(
        fmean(value for value in tau.values() if value is not None)
    )
    farthest = sorted(common, key=lambda query: (overlap[query], 1 if tau[query] is None else tau[query]))
    told = [(moved.overlap_at_10, moved.rank_correlation) for moved in found.moved]
    assert told == [(overlap[query], tau[query]) for query in farthest[:5]]
    for moved in found.moved:
        assert (moved.before, moved.after) == (before[moved.query][:10], after[moved.query][:10])
    reverse = compare_runs(str(tmp_path), other, one, top=0)
    assert (reverse.queries["removed"], reverse.moved) == (10, [])


def test_a_run_does_not_differ_from_itself(night: Night) -> None:
    found = compare_runs(str(night.output), night.manifest, night.manifest)
    assert found.config == found.models == {}
    assert found.moved == []
    assert (found.overlap_at_10, found.queries["unchanged"]) == (1, 5)
    assert all(before == after for before, after in (found.counts | found.tables).values())


def test_what_the_manifests_say_is_compared_by_key(night: Night) -> None:
    config = night.manifest.config
    changed = dataclasses.replace(
        night.manifest,
        run_id="20260308-other",
        config=config | {"ranking": config["ranking"] | {"top_n": 7}, "new": {"key": [1]}},
        model_fingerprint="another",
        metrics={"document": {"after nDCG@10": 0.5}},
    )
    found = compare_runs(str(night.output), night.manifest, changed)
    assert found.run_ids == (night.manifest.run_id, "20260308-other")
    assert found.config == {"ranking.top_n": (config["ranking"]["top_n"], 7), "new.key": (None, [1])}
    assert set(found.models) == {"model_fingerprint"}
    assert found.measures == {"document after nDCG@10": (None, 0.5)}


def test_a_damaged_run_is_an_error(tmp_path: Path, shuffled: tuple[Manifest, Manifest]) -> None:
    one, other = shuffled

    def no_hash(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index("query_id")
        return rows.set_column(at, rows.schema.field(at), pa.array(["zzz"] * rows.num_rows))

    rewrite(tmp_path, other, "reranked", no_hash)
    with pytest.raises(ManifestError, match="has a query_id that is no hash"):
        compare_runs(str(tmp_path), one, runs.find_run(str(tmp_path), other.run_id))
