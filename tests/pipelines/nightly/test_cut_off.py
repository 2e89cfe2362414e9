"""Whole nights that a deadline cuts off: what is reached by then, and what never returns."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.nightly.deadline import BASE_SECONDS
from pipelines.nightly.workers import OncePerProcess
from pipelines.sources.local.source import LocalSource
from pipelines.storage import runs
from rerank_core.errors import NightError
from rerank_core.features.reader import PassageReader
from tests.support.clock import Clock
from tests.support.cut_off import ASKED, NEXT, MakeNight, block, blocking, fresh, slow
from tests.support.fakes import fake, forbidden
from tests.support.invariants import assert_balanced
from tests.support.tiny import DAY, read_table, rows


@pytest.mark.parametrize(("reached", "size"), [(1, 1), (3, 2), (5, 2), (3, 6)])
def test_the_most_frequent_queries_are_reached_first(
    a_night: MakeNight, tmp_path: Path, reached: int, size: int
) -> None:
    """Whatever the shards, if each query takes the model as long; the others have no earlier list."""
    manifest = a_night(
        slow(seconds=980 / (reached + 0.5)), output={"queries_per_shard": size, "max_rejected_share": 0.0}
    )
    output = tmp_path / "output"
    assert fresh(output, manifest) == set(list(ASKED)[:reached])
    assert manifest.balance.queries == {"read": 6, "published": reached, "stale": 0, "rejected": 6 - reached}
    assert manifest.rejected == {"FindLists/not_reached": 6 - reached}
    assert manifest.stale is None
    assert_balanced(manifest)
    letters = rows(output, manifest, "dead_letters")
    assert {row["reason"] for row in letters} == {"not_reached"}
    most = list(ASKED.values())[reached]
    said = str(manifest.degraded["deadline"])
    assert f"2026-03-09T06:00+00:00 came before {6 - reached} of 6 queries" in said
    assert f"all that are asked more than {most} times were reached" in said
    assert f"{sum(list(ASKED.values())[:reached]) / sum(ASKED.values()):.1%} of the searches" in said
    mined = {row["query"].lower() for row in rows(output, manifest, "hard_negatives")}
    assert mined <= fresh(output, manifest)


def test_a_night_in_time_is_the_night_without_a_deadline(a_night: MakeNight, tmp_path: Path) -> None:
    output = tmp_path / "output"
    within = a_night(slow(seconds=1))
    assert "deadline" not in within.degraded
    tables = {name: read_table(output, within, name) for name in within.tables}
    shutil.rmtree(output)
    without = a_night(fake(), finish_by=None)
    assert without.run_id != within.run_id  # as its rows might have differed
    assert {name: read_table(output, without, name) for name in without.tables} == tables
    for name, info in without.tables.items():
        assert set(info.files) == set(within.tables[name].files)


def test_evidence_has_the_same_cut_off(a_night: MakeNight, tmp_path: Path) -> None:
    """All pairs of the first shard are scored, then the model does not return from its evidence.

    The next shard is scored meanwhile, as far as it gets.
    """
    manifest = a_night(blocking(query="solaris novel", of_evidence=True), evidence={"top_n": 3})
    published = rows(tmp_path / "output", manifest)
    assert 2 <= manifest.balance.queries["published"] <= 4
    assert manifest.degraded["units_without_evidence"] > 0
    assert {row["evidence"] for row in published} == {None}
    assert_balanced(manifest)


def test_a_call_that_never_returns_costs_its_query_and_the_later_ones(
    a_night: MakeNight, tmp_path: Path
) -> None:
    a_night(fake("old"), finish_by=None)
    manifest = a_night(blocking(query="where was frank herbert born"), run_date=NEXT)
    assert fresh(tmp_path / "output", manifest) == set(list(ASKED)[:3])
    assert manifest.stale == {DAY.isoformat(): 3}
    assert_balanced(manifest)


@pytest.mark.parametrize("stage", ["search", "tagging", "loading the model"])
def test_whatever_never_returns_is_abandoned(
    a_night: MakeNight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """In the second shard; the model is loaded there, since the first one's scores are reused."""
    tags = {"recogniser": "rules", "enabled": stage == "tagging"}
    a_night(fake(), {query: ASKED[query] for query in list(ASKED)[:2]}, finish_by=None, tags=tags)
    of: dict[str, tuple[Any, str]] = {
        "search": (LocalSource, "candidates"),
        "tagging": (PassageReader, "read"),
        "loading the model": (OncePerProcess, "get"),
    }
    owner, name = of[stage]
    real, calls = getattr(owner, name), list[object]()

    def call(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(self)
        if stage == "loading the model" or len(calls) > 1:
            block()
        return real(self, *args, **options)

    monkeypatch.setattr(owner, name, call)
    manifest = a_night(fake(), run_date=NEXT, tags=tags)
    assert fresh(tmp_path / "output", manifest) == set(list(ASKED)[:2])
    assert manifest.balance.queries == {"read": 6, "published": 2, "stale": 0, "rejected": 4}
    assert_balanced(manifest)


def test_a_night_that_begins_too_late_is_refused(a_night: MakeNight, tmp_path: Path, clock: Clock) -> None:
    clock.pass_by(1000 - BASE_SECONDS)
    with pytest.raises(NightError, match=r"no time until 2026-03-09T06:00\+00:00 .* earlier, or set a later"):
        a_night(forbidden())
    assert not (tmp_path / "output").exists()


def test_a_model_that_cannot_be_opened_in_time_is_given_up(a_night: MakeNight, tmp_path: Path) -> None:
    with pytest.raises(NightError, match="no time until 2026-03-09T06:00"):
        a_night(block)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("earlier", [True, False])
def test_a_night_that_reaches_nothing_leaves_the_last_one_in_service(
    a_night: MakeNight, tmp_path: Path, earlier: bool
) -> None:
    output = str(tmp_path / "output")
    before = a_night(fake("old"), finish_by=None) if earlier else None
    with pytest.raises(NightError, match="the deadline came before any of 6 queries was reranked"):
        a_night(slow(seconds=2000), run_date=NEXT)
    assert runs.latest(output) == before


def test_a_cascade_reaches_its_sample_first(a_night: MakeNight, tmp_path: Path) -> None:
    cascade = {"enabled": True, "sample_queries": 3, "max_loss": 0.5}
    manifest = a_night(slow(seconds=400), cascade=cascade, output={"queries_per_shard": 1})
    assert manifest.balance.queries["published"] == 2
    assert_balanced(manifest)
