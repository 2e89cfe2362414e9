"""The check before publication, on a real run's files with one thing wrong at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.nightly import run as nightly_run
from pipelines.nightly import verify as verify_module
from pipelines.nightly.checked import REPORTS, Checked, check, read_reports
from pipelines.nightly.prepare import Run
from pipelines.nightly.run import run
from pipelines.nightly.sinks import TALLIES
from pipelines.nightly.verify import Verified, verify
from rerank_core.config.night import Config, parse_config
from rerank_core.errors import NightError
from schemas.tables import TABLES
from tests.support.fakes import fake
from tests.support.tiny import DAY, Tiny, make_config

RUN_DATE, RUN_ID = DAY.isoformat(), "20260308-test"


class Staged(NamedTuple):
    """A finished run that was not published."""

    folder: Path
    config: Config

    def verify(self) -> Verified:
        return verify(Run(RUN_ID, RUN_DATE, None, str(self.folder), None), self.config)

    def files(self, table: str) -> list[Path]:
        return sorted((self.folder / table).glob("part-*.parquet"))

    def rewrite(self, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Change the first file of a table that holds rows."""
        for path in self.files(table):
            rows = pq.read_table(path)
            if rows.num_rows:
                pq.write_table(change(rows), path)
                return
        raise AssertionError(f"{table} holds no row")

    def retally(self, stage: str, what: str, more: int) -> None:
        """Add to one tally of a stage."""
        path = self.folder / TALLIES
        tallies = json.loads(path.read_text())
        tallies[stage][what] = tallies[stage].get(what, 0) + more
        path.write_text(json.dumps(tallies))


@pytest.fixture(scope="module")
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Staged:
    output = tmp_path_factory.mktemp("verify") / "output"
    config = make_config(
        tiny,
        output,
        source={"log": str(tiny.log)},
        ranking={"top_n": 2},
        output={"max_rejected_share": 0.5},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nightly_run, "publish_or_hold", lambda output, manifest, *, set_latest: None)
        run(config, run_date=DAY, load=fake())
    (folder,) = (output / "_staging").iterdir()
    return Staged(folder, config)


@pytest.fixture
def staged(finished: Staged, tmp_path: Path) -> Staged:
    shutil.copytree(finished.folder, tmp_path / "staging")
    return Staged(tmp_path / "staging", finished.config)


def test_a_whole_run_passes(finished: Staged) -> None:
    verified = finished.verify()
    assert verified.balance.queries == {"read": 6, "published": 5, "stale": 0, "rejected": 1}
    assert verified.balance.pairs["below_top_n"] > 0
    assert verified.tables["reranked"].rows == verified.balance.pairs["published"]
    assert verified.tables["reranked"].path == f"runs/run_date={RUN_DATE}/run_id={RUN_ID}/reranked"


def test_the_workers_reports_are_what_the_driver_would_read(
    finished: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = read_reports(str(finished.folder))
    every = {(table, path.name) for table in TABLES if table != "queries" for path in finished.files(table)}
    assert {(table, name) for table, name, _ in reports} == every
    for (table, name, _), report in reports.items():
        read = check(str(finished.folder), table, name)
        assert report == read
        assert report.info.footer_crc32 == read.info.footer_crc32
    read_by_driver = []

    def counted(folder: str, table: str, name: str) -> Checked:
        read_by_driver.append(table)
        return check(folder, table, name)

    monkeypatch.setattr(verify_module, "check", counted)
    finished.verify()
    assert read_by_driver == ["queries"]  # which the driver itself has written


@pytest.mark.parametrize("lost", ["all", "one"])
def test_a_file_without_a_report_is_read_by_the_driver(staged: Staged, finished: Staged, lost: str) -> None:
    """Runners lose elements, and say nothing."""
    path = staged.folder / REPORTS
    path.write_text(json.dumps([] if lost == "all" else json.loads(path.read_text())[1:]))
    assert staged.verify() == finished.verify()


def test_a_file_that_changed_after_its_report_is_read_again(staged: Staged) -> None:
    path = staged.files("reranked")[0]
    size = path.stat().st_size
    path.write_bytes(b"x" * size)
    with pytest.raises(NightError, match=path.name):
        staged.verify()


@pytest.mark.parametrize("table", ["reranked", "hard_negatives", "training_pairs", "dead_letters"])
@pytest.mark.parametrize("damage", ["lost row", "extra row", "lost file"])
def test_the_rows_of_a_table_are_counted(staged: Staged, table: str, damage: str) -> None:
    written = staged.verify().tables[table].rows
    if damage == "lost file":
        left = written - pq.read_metadata(staged.files(table)[0]).num_rows
        staged.files(table)[0].unlink()
    elif damage == "lost row":
        left = written - 1
        staged.rewrite(table, lambda rows: rows.slice(1))
    else:
        left = written + 1
        staged.rewrite(table, lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))
    with pytest.raises(
        NightError, match=f"^{table}: {written} rows were written, but the files hold {left}$"
    ):
        staged.verify()


@pytest.mark.parametrize(
    ("stage", "what", "message"),
    [
        ("ReadQueryLog", "events_read", "events do not balance: 15 read, but kept 7 .* = 14"),
        ("ReadQueryLog", "events_kept", "events do not balance: 14 read, but kept 8 .* = 15"),
        ("ReadQueryLog", "events_outside_window", "events do not balance: 14 read"),
        (
            "FetchCandidates",
            "in",
            r"queries do not balance: 7 read, but published 5 \+ stale 0 \+ rejected 1 = 6",
        ),
        ("FetchCandidates", "out", r"pairs do not balance: \d+ read, but published 10 "),
        ("WriteReranked", "below_top_n", r"pairs do not balance: \d+ read, but published 10 "),
        ("WriteReranked", "out", "reranked: 11 rows were written, but the files hold 10"),
    ],
)
def test_the_tallies_must_balance(staged: Staged, stage: str, what: str, message: str) -> None:
    staged.retally(stage, what, 1)
    with pytest.raises(NightError, match=message):
        staged.verify()


def test_a_query_that_two_others_hide_is_missed(staged: Staged) -> None:
    def swap(rows: pa.Table) -> pa.Table:  # as many rows, one query less
        first = rows["query_id"][0].as_py()
        place = rows.schema.get_field_index("query_id")
        return rows.set_column(place, rows.schema.field(place), pa.array([first] * rows.num_rows))

    path = next(
        path for path in staged.files("reranked") if len(set(pq.read_table(path)["query_id"].to_pylist())) > 1
    )
    pq.write_table(swap(pq.read_table(path)), path)
    with pytest.raises(
        NightError, match=r"queries do not balance: 6 read, but published 4 \+ stale 0 \+ rejected 1 = 5"
    ):
        staged.verify()


def test_a_pipeline_that_did_not_end_is_not_published(staged: Staged) -> None:
    (staged.folder / TALLIES).unlink()
    with pytest.raises(NightError, match="stopped before its last stage: .*tallies.json was not written"):
        staged.verify()


def test_a_file_of_other_columns_is_not_published(staged: Staged) -> None:
    staged.rewrite("reranked", lambda rows: rows.drop_columns(["title"]))
    with pytest.raises(
        NightError, match=r"part-0000\d-of-00003.parquet does not have the schema of reranked"
    ):
        staged.verify()


def test_a_cut_file_is_not_published(staged: Staged) -> None:
    path = staged.files("reranked")[0]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(NightError, match=f"{path} is not a readable Parquet file"):
        staged.verify()


@pytest.mark.parametrize("share", [0.1, 0.17])
def test_the_share_of_queries_without_a_hit_is_a_limit(staged: Staged, share: float) -> None:
    raw: dict[str, Any] = {
        "output": {"max_rejected_share": 0.5, "max_no_candidates_share": share, "path": "x"}
    }
    limited = staged._replace(config=parse_config(raw))
    if share == 0.17:  # 1 of 6
        limited.verify()
    else:
        with pytest.raises(NightError, match=r"1 of 6 queries found no document.* = 0\.1 allows.*language"):
            limited.verify()


@pytest.mark.parametrize("share", [0.3, 0.4])
def test_the_share_of_rejects_is_a_limit(staged: Staged, share: float) -> None:
    raw: dict[str, Any] = {"output": {"max_rejected_share": share, "path": "x"}}
    strict = staged._replace(config=parse_config(raw))
    if share == 0.4:  # 5 of 14 events; the query without a hit is no failure
        strict.verify()
    else:
        with pytest.raises(NightError, match=r"5 of 14 events were rejected .* 0\.3 allows"):
            strict.verify()
