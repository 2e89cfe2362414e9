"""The last night as a candidate is measured against it: its deadline, its load, and its lists scored again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.nightly.run import run
from pipelines.promotion import last_night
from pipelines.promotion.measure import Model, load
from pipelines.storage.runs import find_run
from rerank_core.config.operation import Plan
from schemas.manifest import Manifest
from tests.pipelines.promotion.conftest import Loop
from tests.support.published_run import rewrite
from tests.support.tiny import DAY


@pytest.mark.parametrize(
    ("ended", "seconds", "clock", "zone", "left"),
    [
        ("2026-03-09T03:00:00+00:00", 3600.0, "06:00", "UTC", 4 * 3600.0),
        ("2026-03-09T03:00:00+00:00", 3600.0, "06:00", "Europe/Berlin", 3 * 3600.0),
        ("2026-03-09T07:00:00+00:00", 1800.0, "06:00", "UTC", 23.5 * 3600.0),  # it started after the deadline
        (
            "2026-03-29T00:30:00+00:00",
            0.0,
            "06:00",
            "Europe/Berlin",
            3.5 * 3600.0,
        ),  # the clock jumps at 1:00 UTC
        ("2026-10-25T00:30:00+00:00", 0.0, "06:00", "Europe/Berlin", 4.5 * 3600.0),
        ("2026-03-09T06:00:00+00:00", 0.0, "06:00", "UTC", 24 * 3600.0),
    ],
)
def test_the_time_until_the_deadline(
    made: tuple[object, object, object, Manifest],
    ended: str,
    seconds: float,
    clock: str,
    zone: str,
    left: float,
) -> None:
    manifest = dataclasses.replace(made[3], created_at=ended, seconds=seconds)
    assert last_night.until_deadline(manifest, Plan(finish_by=clock, time_zone=zone)) == left
    assert last_night.until_deadline(manifest, Plan()) is None


def test_the_load_of_a_night(loop: Loop) -> None:
    load_of = last_night.load_of(loop.manifest, loop.config.plan)
    pairs = loop.manifest.balance.pairs
    assert (load_of.fresh_pairs, load_of.pairs) == (pairs["published"], pairs["published"])
    assert load_of.workers >= 1
    again = run(dataclasses.replace(loop.config), run_date=DAY)
    reused = last_night.load_of(again, loop.config.plan)
    assert (reused.fresh_pairs, reused.pairs) == (0, load_of.pairs)


def test_the_model_that_scored_ranks_its_own_lists_as_published(loop: Loop) -> None:
    loaded = load(loop.config, Model(loop.serving, str(loop.models["serving"])))
    found = last_night.compare(loop.config, loop.manifest, loaded.system)
    assert (found.queries, found.overlap, found.correlation, found.skipped) == (16, 1.0, 1.0, "")
    reverse = load(loop.config, Model("r", str(loop.models["reversed"])))
    other = last_night.compare(loop.config, loop.manifest, reverse.system)
    assert other.correlation is not None
    assert other.correlation < 0


def test_lists_of_an_earlier_night_are_not_last_nights(loop: Loop) -> None:
    def mostly_stale(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        fresh = sorted({row["query_id"] for row in rows})[0]
        for row in rows:
            if row["query_id"] != fresh:
                row |= {"stale_since": "2026-03-01", "rank": -row["rank"]}
        return pa.Table.from_pylist(rows, schema=table.schema)

    output = Path(loop.config.output.path)
    rewrite(output, loop.manifest, "reranked", mostly_stale)
    night = find_run(str(output), loop.manifest.run_id)
    loaded = load(loop.config, Model(loop.serving, str(loop.models["serving"])))
    found = last_night.compare(loop.config, night, loaded.system)
    assert 0 < found.queries < 16
    assert (found.overlap, found.correlation) == (1.0, 1.0)


def test_a_night_without_texts_is_not_compared_and_says_why(loop: Loop) -> None:
    config = loop.changed(output={"store_text": False})
    night = run(config, run_date=DAY)
    loaded = load(config, Model(loop.serving, str(loop.models["serving"])))
    found = last_night.compare(config, night, loaded.system)
    assert (found.queries, found.skipped) == (
        0,
        f"run {night.run_id} has no texts (output.store_text = false)",
    )


def test_before_the_first_night_there_is_none(loop: Loop) -> None:
    assert last_night.find(loop.changed(output={"path": f"{loop.config.output.path}-none"})) is None
    found = last_night.find(loop.config)
    assert found
    assert found.run_id == loop.manifest.run_id
