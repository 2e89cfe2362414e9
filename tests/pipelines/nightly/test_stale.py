"""Whole nights that a deadline cuts off: what keeps its earlier list, and what is reused of it."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.nightly.stale import stale
from pipelines.storage import runs
from schemas.tables import RERANKED
from tests.support.clock import CLOCK, Clock
from tests.support.cut_off import ASKED, NEXT, MakeNight, fresh, lists, slow
from tests.support.fakes import fake
from tests.support.invariants import assert_balanced
from tests.support.tiny import DAY, rows


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
