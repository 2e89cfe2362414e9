"""A staged run against earlier nights of every kind: whole, damaged, of another version, model or date."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.drift import sample
from pipelines.drift.compare import compare
from pipelines.drift.earlier import NIGHTS, earlier_nights
from pipelines.storage import runs
from schemas.manifest import Manifest, to_json
from schemas.tables import RERANKED
from tests.support.changing import World
from tests.support.object_store import MemoryFileSystem
from tests.support.published_run import rewrite

TONIGHT = "20260309-ffffffffffff"


class Nights(NamedTuple):
    """Two published nights, of which the second one's rows are staged again as tonight's."""

    world: World
    first: Manifest
    second: Manifest

    @property
    def output(self) -> str:
        return str(self.world.output)

    def folder(self, manifest: Manifest) -> Path:
        return self.world.output / runs.run_path(manifest.run_date, manifest.run_id)

    def tonight(self, **changes: Any) -> Manifest:
        return dataclasses.replace(self.second, **{"run_id": TONIGHT, "run_date": "2026-03-09", **changes})

    def compare(self, manifest: Manifest | None = None, **drift: Any) -> dict[str, Any]:
        config = self.world.config(drift=drift)
        found = compare(self.output, str(self.folder(self.second)), manifest or self.tonight(), config)
        assert found is not None
        json.dumps(found)  # it becomes a part of the manifest
        return found


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    world = World(tmp_path_factory.mktemp("nights"))
    return Nights(world, world.night(0), world.night(1))


@pytest.fixture
def nights(published: Nights, tmp_path: Path) -> Nights:
    """A copy, which may be damaged."""
    shutil.copytree(published.world.folder, tmp_path / "world")
    return published._replace(world=World(tmp_path / "world"))


def put(nights: Nights, manifest: Manifest) -> None:
    """Write the manifest of a run that has no tables beside the others."""
    folder = nights.folder(manifest)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(to_json(manifest))


def renamed(manifest: Manifest, run_date: str, run_id: str, **changes: Any) -> Manifest:
    tables = {
        name: dataclasses.replace(info, path=runs.table_path(name, run_date, run_id))
        for name, info in manifest.tables.items()
    }
    return dataclasses.replace(manifest, run_date=run_date, run_id=run_id, tables=tables, **changes)


def test_the_same_night_again_does_not_differ(published: Nights) -> None:
    found = published.compare()
    assert (found["verdict"], found["reasons"], found["notes"]) == ("ok", [], [])
    assert (found["previous"], found["week"]) == (
        published.second.run_id,
        [published.second.run_id, published.first.run_id],
    )
    measures = {name: one["tonight"] for name, one in found["measures"].items()}
    for name in ("candidate_overlap", "overlap_at_10", "rank_correlation"):
        assert measures[name] == 1
    for name in (
        "score_psi",
        "score_ks",
        "top_score_psi",
        "top_score_ks",
        "role_psi",
        "hop_psi",
        "constant_scores",
    ):
        assert measures[name] == 0
    for one in found["measures"].values():
        assert set(one) == {"tonight", "previous", "median", "difference", "warn", "hold", "verdict"}
        assert one["difference"] in (None, 0, 1)
    scores = found["scores"]
    assert scores["tonight"] == scores["previous"]
    assert len(scores["edges"]) == len(scores["tonight"]) + 1
    assert sum(scores["tonight"]) == published.second.tables["reranked"].rows


def test_it_can_be_switched_off(published: Nights) -> None:
    config = published.world.config(drift={"enabled": False})
    assert compare(published.output, "/nowhere", published.tonight(), config) is None


def test_another_model_on_purpose_is_not_held_for_its_scores(published: Nights) -> None:
    found = published.compare(published.tonight(model_fingerprint="another"))
    assert found["verdict"] == "ok"
    assert found["notes"] == [
        f"the model is not that of run {published.second.run_id}: scores are not compared, and measures that depend on "
        "it warn at the limits of [drift.hold], and do not hold"
    ]
    assert not [name for name in found["measures"] if name.startswith(("score_", "top_score_"))]
    overlap = found["measures"]["overlap_at_10"]
    assert (overlap["warn"], overlap["hold"]) == (0.2, None)
    assert found["measures"]["candidate_overlap"]["hold"] == 0.6  # the search is the same
    assert found["measures"]["constant_scores"]["hold"] == 0.5


@pytest.mark.parametrize("field", ["calibration", "fusion"])
def test_another_scale_of_scores_is_not_compared(published: Nights, field: str) -> None:
    found = published.compare(published.tonight(**{field: {"any": 1}}))
    assert "calibration or fusion" in found["notes"][0]
    assert "score_psi" not in found["measures"]


@pytest.mark.parametrize(
    ("section", "key", "capped"),
    [
        ("candidates", "top_k", {"candidates_per_query", "candidate_overlap", "overlap_at_10", "score_psi"}),
        ("log", "window_days", {"queries", "events"}),
        ("privacy", "min_users", {"queries", "events"}),
        ("evaluation", "qrels", {"ndcg_gain"}),
    ],
)
def test_what_was_configured_otherwise_warns_at_most(
    published: Nights, section: str, key: str, capped: set[str]
) -> None:
    config = published.second.config
    changed = config | {section: config[section] | {key: 7}}
    judged = {"document": {"before nDCG@10": 0.5, "after nDCG@10": 0.6, "queries": 300.0}}
    found = published.compare(published.tonight(config=changed, metrics=judged))
    assert len(found["notes"]) == 1
    without = {name for name, one in found["measures"].items() if one["hold"] is None}
    assert capped <= without
    assert "constant_scores" not in without


def test_an_index_at_another_place_is_the_same_search(published: Nights) -> None:
    config = published.second.config
    moved = config | {"source": config["source"] | {"index": "/elsewhere", "log": "/elsewhere.jsonl"}}
    assert published.compare(published.tonight(config=moved))["notes"] == []


def test_another_tagger_is_not_held_for_its_tags(published: Nights) -> None:
    found = published.compare(published.tonight(tagger_fingerprint="another"))
    assert "tagger" in found["notes"][0]
    assert found["measures"]["hop_psi"]["hold"] is None


# --- earlier nights that are missing, damaged or of another kind


def test_a_first_night_is_measured_for_later_ones(nights: Nights) -> None:
    shutil.rmtree(nights.world.output / "runs")
    nights.folder(nights.second).mkdir(parents=True)
    shutil.copytree(
        nights.world.output
        / "reranked"
        / f"run_date={nights.second.run_date}"
        / f"run_id={nights.second.run_id}",
        nights.folder(nights.second) / "reranked",
    )
    found = nights.compare()
    assert (found["verdict"], found["previous"], found["week"]) == ("ok", None, [])
    assert found["notes"] == ["there is no earlier night to compare with"]
    assert found["measures"]["queries"]["tonight"] == nights.second.balance.queries["published"]
    assert "candidate_overlap" not in found["measures"]
    assert found["scores"]["previous"] == []


def test_an_older_date_is_compared_with_what_was_before_it(published: Nights) -> None:
    found = published.compare(published.tonight(run_date=published.first.run_date))
    assert (found["previous"], found["week"]) == (published.first.run_id, [published.first.run_id])
    before_all = published.compare(published.tonight(run_date="2020-01-01"))
    assert (before_all["previous"], before_all["verdict"]) == (None, "ok")


def test_the_same_date_again_is_compared_with_its_first_run(published: Nights) -> None:
    found = published.compare(published.tonight(run_date=published.second.run_date))
    assert found["previous"] == published.second.run_id
    itself = published.compare(published.second)
    assert itself["previous"] == published.first.run_id


def test_damaged_lists_leave_the_counts_to_compare(nights: Nights) -> None:
    last = renamed(nights.second, "2026-03-08", "20260308-aaaaaaaaaaaa")
    shutil.copytree(nights.folder(nights.second), nights.folder(last))
    put(nights, last)
    part = next(nights.folder(last).glob("reranked/*.parquet"))
    data = bytearray(part.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)  # its footer is whole
    for damaged in (bytes(data), bytes(data[:100])):
        part.write_bytes(damaged)
        few = {"read": 2, "published": 2, "rejected": 0}
        balance = dataclasses.replace(nights.second.balance, queries=few)
        found = nights.compare(nights.tonight(balance=balance))
        assert "lists and scores are not compared" in found["notes"][0]
        assert part.name in found["notes"][0]
        assert "candidate_overlap" not in found["measures"]
        assert (found["previous"], found["measures"]["queries"]["verdict"]) == (last.run_id, "hold")


def test_a_run_of_another_version_leaves_the_counts_to_compare(nights: Nights) -> None:
    rewrite(nights.world.output, nights.second, "reranked", lambda table: table.drop_columns(["fused_logit"]))
    staged = nights.world.folder / "staged"
    shutil.copytree(nights.folder(nights.first), staged)
    found = compare(nights.output, str(staged), nights.tonight(), nights.world.config())
    assert found is not None
    assert "no column 'fused_logit'" in found["notes"][0]
    assert found["measures"]["queries"]["previous"] == nights.second.balance.queries["published"]


@pytest.mark.parametrize("text", ["{", '{"format": 1}', "[]"])
def test_a_manifest_that_cannot_be_read_is_left_out(nights: Nights, text: str) -> None:
    folder = nights.world.output / runs.run_path("2026-03-08", "20260308-aaaaaaaaaaaa")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(text)
    found = nights.compare()
    assert found["previous"] == nights.second.run_id
    assert found["notes"][0].startswith("run 20260308-aaaaaaaaaaaa of 2026-03-08 is left out: ")


def test_the_week_is_seven_dates_of_one_run_each(nights: Nights) -> None:
    for day in range(10, 20):
        for number in range(2):
            run_id = f"202604{day}-{number}"
            put(
                nights, renamed(nights.first, f"2026-04-{day}", run_id, created_at=f"2026-04-{day}T0{number}")
            )
    earlier = earlier_nights(nights.output, run_date="2026-04-18", run_id="20260418-1")
    assert [manifest.run_id for manifest in earlier.nights] == [
        "20260418-0",
        *(f"202604{day}-1" for day in range(17, 11, -1)),
    ]
    assert len(earlier.nights) == NIGHTS


def test_runs_that_were_not_measured_have_their_counts_in_the_median(nights: Nights) -> None:
    for day in (10, 11, 12):
        put(nights, renamed(nights.first, f"2026-03-{day}", f"202603{day}-a", drift=None))
    found = nights.compare(nights.tonight(run_date="2026-03-20"))
    measures = found["measures"]
    assert measures["events"]["median"] == nights.first.balance.events["kept"]
    assert found["week"][:3] == ["20260312-a", "20260311-a", "20260310-a"]


@pytest.mark.parametrize(
    "held", [{"measures": 3}, {"measures": {"constant_scores": []}}, {"measures": {}}, {}]
)
def test_what_an_earlier_manifest_says_of_itself_is_not_trusted(nights: Nights, held: dict[str, Any]) -> None:
    put(nights, dataclasses.replace(nights.first, drift=held))
    assert nights.compare()["verdict"] == "ok"


def test_a_night_that_a_deadline_cut_off_is_not_held_for_it(published: Nights) -> None:
    """Of its sixty queries four were reranked; half keep an earlier list, the others have none."""
    balance = published.second.balance
    cut = dataclasses.replace(
        balance,
        queries={"read": 60, "published": 4, "stale": 30, "rejected": 26},
        pairs=balance.pairs | {"read": 80, "published": 10, "reused": 70},
    )
    found = published.compare(published.tonight(balance=cut, rejected={"FindLists/not_reached": 26}))
    assert [name for name, one in found["measures"].items() if one["verdict"] != "ok"] == []
    assert found["measures"]["queries"]["tonight"] == 60
    assert found["measures"]["candidates_per_query"]["tonight"] == 20


def test_of_a_night_that_was_cut_off_its_own_lists_alone_are_judged(
    published: Nights, tmp_path: Path
) -> None:
    """Most queries keep last night's list; of the others the model says the same of every passage."""
    staged, fresh = tmp_path / "staged", set[str]()
    shutil.copytree(published.folder(published.second), staged)
    for path in sorted((staged / "reranked").glob("part-*.parquet")):
        rows = pq.read_table(path).to_pylist()
        fresh |= set(sorted({row["query_id"] for row in rows})[::3])
        for row in rows:
            own = row["query_id"] in fresh
            row |= {"logit": 1.0, "fused_logit": None} if own else {"stale_since": "2026-03-08"}
        pq.write_table(pa.Table.from_pylist(rows, schema=RERANKED), path)
    asked = published.second.balance.queries["published"]
    counts = {"read": asked, "published": len(fresh), "stale": asked - len(fresh)}
    balance = dataclasses.replace(published.second.balance, queries=counts)
    config = published.world.config(drift={"min_queries": 1})
    found = compare(published.output, str(staged), published.tonight(balance=balance), config)
    assert found is not None
    assert found["measures"]["constant_scores"]["tonight"] == 1
    assert found["verdict"] == "hold"
    assert (
        found["measures"]["score_psi"]["tonight"] == 0
    )  # of the same queries: their scores are last night's
    assert sum(found["scores"]["tonight"]) < 0.6 * published.second.tables["reranked"].rows


# --- where runs are, and how much of them is read


def test_an_object_store_gives_the_same(published: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    files = (path for path in published.world.output.rglob("*") if path.is_file())
    objects = {
        f"mem://bucket/output/{path.relative_to(published.world.output)}": path.read_bytes() for path in files
    }
    monkeypatch.setattr(MemoryFileSystem, "objects", objects)
    output = "mem://bucket/output"
    staging = f"{output}/{runs.run_path(published.second.run_date, published.second.run_id)}"
    found = compare(output, staging, published.tonight(), published.world.config())
    assert found == published.compare()


def test_a_sample_has_the_same_queries_in_both_nights(
    published: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = published.compare(published.tonight(), min_queries=1)
    monkeypatch.setattr(sample, "MOST_QUERIES", 15)
    monkeypatch.setattr(sample, "MOST_ROWS", 10**9)
    part = published.compare(published.tonight(), min_queries=1)
    assert part["verdict"] == "ok"
    assert part["measures"]["candidate_overlap"]["tonight"] == 1
    assert 0 < sum(part["scores"]["tonight"]) < 0.6 * sum(whole["scores"]["tonight"])
    assert part["measures"].keys() == whole["measures"].keys()


def test_the_order_of_the_rows_in_their_files_changes_nothing(nights: Nights) -> None:
    before = nights.compare()

    def shuffled(table: pa.Table) -> pa.Table:
        order = list(range(table.num_rows))
        random.Random(3).shuffle(order)
        return table.take(order)

    rewrite(nights.world.output, nights.second, "reranked", shuffled)
    assert nights.compare() == before
