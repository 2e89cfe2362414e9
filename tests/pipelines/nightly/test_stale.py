"""Whole nights that a deadline cuts off: what is reached, what keeps its earlier list, and what is reused of it."""

from __future__ import annotations

import datetime
import functools
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pytest

from pipelines.nightly.deadline import BASE_SECONDS
from pipelines.nightly.run import run
from pipelines.nightly.stale import stale
from pipelines.nightly.workers import OncePerProcess
from pipelines.sources.local.source import LocalSource
from pipelines.storage import runs
from rerank_core.errors import NightError
from rerank_core.features.reader import PassageReader
from schemas.manifest import Manifest
from schemas.tables import RERANKED
from tests.conftest import MakeConfig
from tests.support.clock import CLOCK, FINISH_BY, Clock, stand_still
from tests.support.fakes import FakeScorer, fake, forbidden
from tests.support.tiny import DAY, event, read_table, rows, write_lines

NEXT = DAY + datetime.timedelta(days=1)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stand_still(monkeypatch)


ASKED = {
    "who wrote dune": 9,
    "solaris novel": 7,
    "seattle or tacoma": 5,
    "where was frank herbert born": 3,
    "why does rain fall": 2,
    "an empire falls": 1,
}
"""Queries of a log, by how often they are asked."""


class Slow(FakeScorer):
    """Each query takes `seconds` of the clock."""

    chunk = 1

    def __init__(
        self, name: str = "fake", *, seconds: float = 0.0, seen: str = "", nan_for: str = ""
    ) -> None:
        super().__init__(name, seen=seen, nan_for=nan_for)
        self._takes = seconds
        self._met: set[str] = set()

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        queries = {text_of(query) for query, _ in pairs}
        CLOCK.pass_by(self._takes * len(queries - self._met))
        self._met |= queries
        return super().score(pairs)


def text_of(query_side: str) -> str:
    """The query of an input, without its tags."""
    return query_side.rpartition("]")[2].strip()


class Blocking(Slow):
    """Never returns from the first call about a query, or if `of_evidence`, from the first about its evidence."""

    def __init__(self, *, query: str, of_evidence: bool = False) -> None:
        super().__init__()
        self._query, self._of_evidence, self._scored = query, of_evidence, set[str]()

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        (one,) = pairs
        if text_of(one[0]).lower() == self._query and (len(one[1]) < 40) == self._of_evidence:
            block()
        return super().score(pairs)


def block() -> NoReturn:
    """06:00 comes in a call that never returns."""
    CLOCK.pass_by(2000)
    threading.Event().wait()
    raise AssertionError


def slow(name: str = "fake", **options: Any) -> Callable[[], Slow]:
    return functools.partial(Slow, name, **options)


def blocking(**options: Any) -> Callable[[], Blocking]:
    return functools.partial(Blocking, **options)


MakeNight = Callable[..., Manifest]


@pytest.fixture
def a_night(make_config: MakeConfig, tmp_path: Path) -> MakeNight:
    """`a_night(load, asked, ...)`: a night with that log; evidence is off, so that the model scores pairs alone."""

    def make(
        load: Callable[[], FakeScorer],
        asked: dict[str, int] = ASKED,
        *,
        run_date: datetime.date = DAY,
        finish_by: datetime.datetime | None = FINISH_BY,
        **sections: Any,
    ) -> Manifest:
        events = [event(query, "dune") for query, count in asked.items() for _ in range(count)]
        log = write_lines(tmp_path / "asked.jsonl", events)
        sections = {"evidence": {"top_n": 0}, "source": {"log": str(log)}} | sections
        return run(make_config(**sections), run_date=run_date, load=load, finish_by=finish_by)

    return make


def lists(output: Path, manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    """The rows of each query, by its text in lower case."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows(output, manifest):
        found.setdefault(row["query"].lower(), []).append(row)
    return found


def fresh(output: Path, manifest: Manifest) -> set[str]:
    return {query for query, own in lists(output, manifest).items() if own[0]["stale_since"] is None}


def assert_balanced(manifest: Manifest) -> None:
    for counts in (manifest.balance.events, manifest.balance.queries, manifest.balance.pairs):
        assert counts["read"] == sum(count for what, count in counts.items() if what != "read"), counts


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


def test_what_is_not_reached_keeps_the_list_that_is_in_service(a_night: MakeNight, tmp_path: Path) -> None:
    """Twice in a row: the date stays that of the night that made the list."""
    output = tmp_path / "output"
    first = a_night(fake("old model"), {**ASKED, "gone": 1}, finish_by=None)
    second = a_night(slow(seconds=400), {**ASKED, "snow melts": 1}, run_date=NEXT)
    new, old = lists(output, second), lists(output, first)
    assert fresh(output, second) == set(list(ASKED)[:2])
    assert second.balance.queries == {"read": 7, "published": 2, "stale": 4, "rejected": 1}
    assert second.stale == {DAY.isoformat(): 4}
    assert_balanced(second)
    assert set(new) == set(ASKED)
    for query in list(ASKED)[2:]:
        assert new[query] == [row | {"stale_since": DAY.isoformat()} for row in old[query]]
    assert not {row["query"].lower() for row in rows(output, second, "hard_negatives")} & set(list(ASKED)[2:])
    assert "4 keep an earlier list, 1 have none" in str(second.degraded["deadline"])

    CLOCK.__init__()  # type: ignore[misc]
    turned = {query: 10 - count for query, count in ASKED.items()}  # the last are the first
    third = a_night(slow(seconds=400), turned, run_date=NEXT + datetime.timedelta(days=1))
    assert fresh(output, third) == set(list(ASKED)[-2:])
    assert third.stale == {DAY.isoformat(): 2, NEXT.isoformat(): 2}
    newest = lists(output, third)
    for query in list(ASKED)[2:4]:
        assert newest[query] == new[query]
    for query in list(ASKED)[:2]:
        assert newest[query] == [row | {"stale_since": NEXT.isoformat()} for row in new[query]]
    assert_balanced(third)


def test_lists_are_kept_where_scores_are_not_reused(a_night: MakeNight, tmp_path: Path) -> None:
    output = tmp_path / "output"
    off: dict[str, Any] = {"reuse": {"enabled": False}, "output": {"store_text": False}}
    a_night(fake(), finish_by=None)
    second = a_night(slow(seconds=400), run_date=NEXT, **off)
    assert (second.previous_run_id, second.stale) == (None, {DAY.isoformat(): 4})
    assert {row["text"] for row in rows(output, second)} == {None}  # of the kept lists, too
    CLOCK.__init__()  # type: ignore[misc]
    again = a_night(fake(), run_date=NEXT, **off)
    assert again.run_id != second.run_id
    assert again.stale is None


def test_of_a_stale_list_the_next_night_reuses_the_logits_alone(a_night: MakeNight, tmp_path: Path) -> None:
    """Its evidence was chosen with other options than its run's, so it is chosen anew; nothing else is scored."""
    output = tmp_path / "output"
    plain, wide = {"top_n": 3}, {"top_n": 3, "keep_share": 0.9}
    expected = rows(output, a_night(fake(), finish_by=None, evidence=plain))
    shutil.rmtree(output)
    first = rows(output, a_night(fake(), finish_by=None, evidence=wide))
    off = {"enabled": False}
    second = a_night(slow(seconds=400), run_date=NEXT, evidence=plain, reuse=off)
    assert second.stale == {DAY.isoformat(): 4}
    third = a_night(fake(), run_date=NEXT, finish_by=None, evidence=plain)
    assert third.balance.pairs["published"] == 0
    assert third.balance.pairs["reused"] == len(expected)

    def evidence(found: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
        return {(row["query"], row["passage_id"], row["evidence"], row["stale_since"]) for row in found}

    assert evidence(rows(output, third)) == evidence(expected) != evidence(first)


def test_evidence_has_the_same_cut_off(a_night: MakeNight, tmp_path: Path) -> None:
    """All pairs of the first shard are scored, then the model does not return from its evidence."""
    manifest = a_night(blocking(query="solaris novel", of_evidence=True), evidence={"top_n": 3})
    published = rows(tmp_path / "output", manifest)
    assert manifest.balance.queries["published"] == 2
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


def test_nights_with_a_deadline_do_not_add_up_files(a_night: MakeNight, tmp_path: Path, clock: Clock) -> None:
    """Whichever queries are reached: one night after the other keeps lists of every file of the one before."""
    output, shards = tmp_path / "output", {"queries_per_shard": 2}
    a_night(fake(), finish_by=None, output=shards)
    for night in range(1, 6):
        CLOCK.__init__()  # type: ignore[misc]
        first = list(ASKED)[night % len(ASKED)]
        asked = dict.fromkeys(ASKED, 1) | {first: 9}
        manifest = a_night(slow(f"model {night}", seconds=700), asked, run_date=NEXT, output=shards)
        assert fresh(output, manifest) == {first}
        assert manifest.balance.queries == {"read": 6, "published": 1, "stale": 5, "rejected": 0}
        assert len(manifest.tables["reranked"].files) <= 2 * 3


@pytest.mark.parametrize("earlier", [True, False])
def test_a_night_that_reaches_nothing_leaves_the_last_one_in_service(
    a_night: MakeNight, tmp_path: Path, earlier: bool
) -> None:
    output = str(tmp_path / "output")
    before = a_night(fake("old"), finish_by=None) if earlier else None
    with pytest.raises(NightError, match="the deadline came before any of 6 queries was reranked"):
        a_night(slow(seconds=2000), run_date=NEXT)
    assert runs.latest(output) == before


@pytest.mark.parametrize("same_model", [True, False])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_night_for_an_earlier_date_keeps_no_list_of_a_later_one(
    a_night: MakeNight, tmp_path: Path, earlier: bool, same_model: bool
) -> None:
    """But it reuses the later one's scores, which are the same by their inputs."""
    output, later = tmp_path / "output", NEXT + datetime.timedelta(days=1)
    if earlier:
        first = a_night(fake("old"), dict(list(ASKED.items())[:4]), finish_by=None)
    a_night(fake("new" if same_model else "newest"), finish_by=None, run_date=later)
    night = a_night(slow("new", seconds=400), run_date=NEXT)
    # the queries whose scores are reused take no time
    assert night.balance.queries["published"] == (6 if same_model else 2)
    if same_model:
        assert (night.stale, night.balance.pairs["published"]) == (None, 0)
        return
    assert night.stale == ({DAY.isoformat(): 2} if earlier else None)
    assert night.balance.queries["rejected"] == (2 if earlier else 4)
    if earlier:
        before, kept = lists(output, first), lists(output, night)
        for query in list(ASKED)[2:4]:
            assert kept[query] == [row | {"stale_since": DAY.isoformat()} for row in before[query]]
    assert_balanced(night)


def test_of_two_earlier_runs_a_night_may_keep_lists_of_one_and_reuse_scores_of_the_other(
    a_night: MakeNight, tmp_path: Path
) -> None:
    output, later = tmp_path / "output", NEXT + datetime.timedelta(days=1)
    first = a_night(fake("old"), dict(list(ASKED.items())[:4]), finish_by=None)
    a_night(fake("new"), dict(list(ASKED.items())[:2]), finish_by=None, run_date=later)
    night = a_night(slow("new", seconds=1500), run_date=NEXT)
    assert fresh(output, night) == set(list(ASKED)[:2])
    assert (night.stale, night.balance.pairs["published"]) == ({DAY.isoformat(): 2}, 0)
    before, kept = lists(output, first), lists(output, night)
    for query in list(ASKED)[2:4]:
        assert kept[query] == [row | {"stale_since": DAY.isoformat()} for row in before[query]]
    assert_balanced(night)


def test_lists_of_another_layout_are_not_kept_and_the_manifest_says_so(
    a_night: MakeNight, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    first = a_night(fake(), finish_by=None)
    path = output / runs.manifest_path(first.run_date, first.run_id)
    path.write_text(path.read_text().replace('"schema_version": 6', '"schema_version": 4'))
    second = a_night(slow("new", seconds=400), run_date=NEXT)
    assert second.balance.queries == {"read": 6, "published": 2, "stale": 0, "rejected": 4}
    assert "version 4 of `reranked`, and none can be kept" in str(second.degraded["reuse"])


def test_a_damaged_run_has_no_lists(a_night: MakeNight, tmp_path: Path) -> None:
    first = a_night(fake(), finish_by=None)
    file = min((tmp_path / "output" / first.tables["reranked"].path).iterdir())
    file.write_bytes(file.read_bytes()[:-9])
    second = a_night(slow(seconds=400), run_date=NEXT)
    assert second.balance.queries == {"read": 6, "published": 2, "stale": 0, "rejected": 4}
    assert "reuse" in second.degraded


def test_rows_of_the_version_before_have_a_date_when_they_are_kept() -> None:
    blank = {field.name: None for field in RERANKED}
    now = pa.Table.from_pylist(
        [blank | {"query_id": "a"}, blank | {"query_id": "b", "stale_since": "2026-03-01"}], RERANKED
    )
    assert stale(now, since="2026-03-08")["stale_since"].to_pylist() == ["2026-03-08", "2026-03-01"]
    kept = stale(now.drop_columns(["stale_since"]), since="2026-03-08")
    assert kept["stale_since"].to_pylist() == ["2026-03-08"] * 2
    assert kept.schema.equals(RERANKED)


def test_a_cascade_reaches_its_sample_first(a_night: MakeNight, tmp_path: Path) -> None:
    cascade = {"enabled": True, "sample_queries": 3, "max_loss": 0.5}
    manifest = a_night(slow(seconds=400), cascade=cascade, output={"queries_per_shard": 1})
    assert manifest.balance.queries["published"] == 2
    assert_balanced(manifest)
