"""Look-ups in published runs, by any thread, while runs come and go."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from nightrank import read
from nightrank.read import reader as reader_module
from nightrank.read.files import Files
from nightrank.read.run import open_latest
from pipelines.storage import runs
from rerank_core.text import query_id
from schemas.manifest import Manifest, to_json
from tests.conftest import Night
from tests.support.published_run import RUN_DATE, publish_run, rewrite, score, text
from tests.support.tiny import rows

QUERIES = 60


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 queries. Read only."""
    folder = tmp_path_factory.mktemp("read")
    publish_run(folder, run_id="r1", queries=QUERIES)
    return folder


def test_every_row_of_a_night_is_found_by_its_query(night: Night) -> None:
    published = rows(night.output, night.manifest)
    with read.open(str(night.output)) as reader:
        found = {entry.query: reader.lookup(entry.query) for entry in reader.queries()}
        assert {row["query"] for row in published} == found.keys()
        for query, listed in found.items():
            expected = [row for row in published if row["query"] == query]
            assert [row["passage_id"] for row in expected] == [passage.passage_id for passage in listed]
            for row, passage in zip(expected, listed, strict=True):
                assert passage.tags is not None
                assert row == row | {
                    "rank": passage.rank,
                    "doc_id": passage.doc_id,
                    "title": passage.title,
                    "text": passage.text,
                    "score": passage.score,
                    "evidence": passage.evidence,
                    "entities": list(passage.tags.entities),
                    "hop_chain": list(passage.tags.hop_chain),
                    "role": passage.tags.role,
                }
            assert reader.table(query).to_pylist() == expected


def test_a_query_is_found_by_any_spelling(output: Path) -> None:
    with read.open(str(output)) as reader:
        found = reader.lookup("  What is\tQUERY number 4? ")
    assert (found.query, found.similarity, found.run_id) == (text(4), 1.0, "r1")
    assert [passage.rank for passage in found] == [1, 2, 3, 4]
    assert found[0].score == pytest.approx(score("r1", 4, 1))


def test_an_unknown_query_is_an_error_or_the_default(output: Path) -> None:
    with read.open(str(output)) as reader:
        with pytest.raises(read.QueryNotFound, match="run r1 has no query 'never asked'"):
            reader.lookup("never asked?")
        with pytest.raises(read.QueryNotFound, match="run r1 has no query"):
            reader.table("never asked?")
        assert reader.lookup("never asked", default=None) is None
        assert reader.lookup("never asked", default=[], nearest=True) == []


def test_async_look_ups_are_the_same(output: Path) -> None:
    async def ask(reader: read.Reader) -> list[object]:
        return await asyncio.gather(*(reader.alookup(text(number)) for number in range(QUERIES)))

    with read.open(str(output)) as reader:
        assert asyncio.run(ask(reader)) == [reader.lookup(text(number)) for number in range(QUERIES)]


def test_a_run_without_the_table_queries_is_read_as_well(tmp_path: Path) -> None:
    manifest = publish_run(tmp_path, run_id="r1", queries=9)
    with read.open(str(tmp_path)) as reader:
        expected = [reader.lookup(text(number)) for number in range(9)]
    _without_queries(tmp_path, manifest)
    with read.open(str(tmp_path)) as reader:
        assert [reader.lookup(text(number)) for number in range(9)] == expected
        assert sorted(entry.query for entry in reader.queries()) == [text(number) for number in range(9)]
        assert reader.lookup("what is the query number 8", nearest=True).query == text(8)
        assert reader.lookup("never asked", default=None) is None


def _without_queries(output: Path, manifest: Manifest) -> None:
    del manifest.tables["queries"]
    rewrite(output, manifest, "reranked", lambda table: table)  # also one row group a file, as then


def test_threads_read_while_runs_are_published_and_removed(tmp_path: Path) -> None:
    """Every list is whole and of one run, whatever happens meanwhile."""
    names = ["r1", "a-longer-one", "the-longest-one-of-all"]
    publish_run(tmp_path, run_id=names[0])
    expected = {name: [pytest.approx(score(name, n, 1)) for n in range(QUERIES)] for name in names}
    done = False

    def ask(reader: read.Reader, first: int) -> set[str]:
        seen, number = set[str](), first
        while not done or number < first + QUERIES:
            found = reader.lookup(text(number % QUERIES))
            assert (len(found), found[0].score) == (4, expected[found.run_id][number % QUERIES])
            seen.add(found.run_id)
            number += 1
        return seen

    with read.open(str(tmp_path), follow=True, check_seconds=0) as reader, ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(ask, reader, 5 * thread) for thread in range(12)]
        try:
            for before, name in itertools.pairwise(names):
                publish_run(tmp_path, run_id=name)
                shutil.rmtree(tmp_path / runs.run_path(RUN_DATE, before))
        finally:
            done = True
        assert set.union(*(each.result() for each in asked)) <= set(names)
        assert reader.lookup(text(0)).run_id == names[-1]


def test_a_reader_pins_its_run(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1")
    with read.open(str(tmp_path)) as reader, read.open(str(tmp_path), follow=True, check_seconds=0) as newest:
        publish_run(tmp_path, run_id="r2")
        assert (reader.lookup(text(1)).run_id, newest.lookup(text(1)).run_id) == ("r1", "r2")
        assert reader.refresh()
        assert not reader.refresh()
        assert reader.lookup(text(1)).run_id == reader.run.run_id == "r2"
    with read.open(str(tmp_path), run_id="r1") as reader:
        assert (reader.run.run_id, reader.run.run_date, reader.run.queries) == ("r1", RUN_DATE, QUERIES)


def test_kept_lists_are_among_the_queries_of_a_run(tmp_path: Path) -> None:
    manifest = publish_run(tmp_path, run_id="r1", queries=QUERIES)
    balance = dataclasses.replace(manifest.balance, queries={"read": 60, "published": 40, "stale": 20})
    kept = dataclasses.replace(manifest, balance=balance, stale={"2026-03-01": 20})
    (tmp_path / runs.manifest_path(RUN_DATE, "r1")).write_text(to_json(kept))
    with read.open(str(tmp_path)) as reader:
        assert reader.run.queries == len(list(reader.queries())) == QUERIES
        assert reader.run.stale == {"2026-03-01": 20}


def test_the_pointer_is_not_read_more_often_than_said(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1")
    with read.open(str(tmp_path), follow=True, check_seconds=3600) as reader:
        publish_run(tmp_path, run_id="r2")
        assert reader.lookup(text(1)).run_id == "r1"


def test_a_run_that_was_removed_is_one_clear_error(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1")
    with (
        read.open(str(tmp_path)) as reader,
        read.open(str(tmp_path), follow=True, check_seconds=3600) as newest,
    ):
        publish_run(tmp_path, run_id="r2")
        shutil.rmtree(tmp_path / runs.run_path(RUN_DATE, "r1"))
        for look_up in (reader.lookup, reader.table, reader.nearest):
            with pytest.raises(read.RunRemoved, match="run r1 was removed .* open the folder again"):
                look_up(text(1))
        with pytest.raises(read.RunRemoved, match="run r1 was removed"):
            list(reader.queries())
        assert newest.lookup(text(1)).run_id == "r2"


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged, whatever level libraries have set in this process."""
    said: list[str] = []
    monkeypatch.setattr(reader_module._log, "warning", lambda text, *values: said.append(text % values))
    return said


def test_following_survives_a_damaged_pointer(tmp_path: Path, warnings: list[str]) -> None:
    publish_run(tmp_path, run_id="r1")
    with read.open(str(tmp_path), follow=True, check_seconds=0) as reader:
        (tmp_path / "latest.json").write_text("{")
        assert reader.lookup(text(1)).run_id == "r1"
        assert "run r1 stays in use" in " ".join(warnings)
        assert "latest.json is damaged" in " ".join(warnings)
        with pytest.raises(read.ManifestError, match=r"latest\.json is damaged"):
            reader.refresh()


def test_following_survives_a_pointer_to_a_run_that_is_gone(tmp_path: Path, warnings: list[str]) -> None:
    publish_run(tmp_path, run_id="r1")
    with read.open(str(tmp_path), follow=True, check_seconds=0) as reader:
        publish_run(tmp_path, run_id="r2")
        shutil.rmtree(tmp_path / runs.run_path(RUN_DATE, "r2"))
        assert reader.lookup(text(1)).run_id == "r1"
        assert "run r1 stays in use" in " ".join(warnings)
        with pytest.raises(read.RunRemoved, match="run_id=r2"):
            reader.refresh()


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(read.ManifestError, match="no published run in"):
        read.open(str(tmp_path))
    manifest = publish_run(tmp_path, run_id="r1")
    with pytest.raises(read.ManifestError, match="no run 'r9' in"):
        read.open(str(tmp_path), run_id="r9")
    with pytest.raises(ValueError, match="leave out one of them"):
        read.open(str(tmp_path), run_id="r1", follow=True)
    for run_id in ("../r1", "*", "", "r1/.."):
        if run_id:
            with pytest.raises(read.ManifestError, match="no run"):
                read.open(str(tmp_path), run_id=run_id)
    (tmp_path / runs.manifest_path(RUN_DATE, "r1")).write_text("{}")
    with pytest.raises(read.ManifestError, match="is damaged"):
        read.open(str(tmp_path))
    (tmp_path / "latest.json").write_text('{"manifest": "runs/../../elsewhere/manifest.json"}')
    with pytest.raises(read.ManifestError, match="point it at one"):
        read.open(str(tmp_path))
    (tmp_path / "manifests").mkdir()
    with pytest.raises(read.OutputError, match="earlier version"):
        read.open(str(tmp_path))
    assert manifest.run_id == "r1"


@pytest.mark.parametrize("place", [{"part": "../../../secret.parquet"}, {"part": "part-9.parquet"}])
def test_a_part_outside_the_run_is_not_read(tmp_path: Path, place: dict[str, str]) -> None:
    manifest = publish_run(tmp_path, run_id="r1", queries=3)
    rewrite(tmp_path, manifest, "queries", lambda table: _with(table, **place))
    with read.open(str(tmp_path)) as reader, pytest.raises(read.ManifestError, match="has no file"):
        reader.lookup(text(1))


@pytest.mark.parametrize("place", [{"row_group": 7}, {"row": 1}, {"rows": 5}, {"row": -1}, {"row_group": -1}])
def test_a_place_that_is_wrong_is_damage(tmp_path: Path, place: dict[str, int]) -> None:
    manifest = publish_run(tmp_path, run_id="r1", queries=3, shards=1)
    rewrite(tmp_path, manifest, "queries", lambda table: _with(table, **place))
    with read.open(str(tmp_path)) as reader, pytest.raises(read.ManifestError, match="is damaged"):
        reader.lookup(text(1))


def _with(table: pa.Table, **values: object) -> pa.Table:
    for name, value in values.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.array([value] * table.num_rows, field.type))
    return table


@pytest.mark.parametrize("table", ["queries", "reranked"])
def test_no_damage_of_a_file_goes_unnoticed(tmp_path: Path, table: str) -> None:
    """A changed byte is an error, or it changes nothing that is returned."""
    manifest = publish_run(tmp_path, run_id="r1", queries=8, shards=1)
    with read.open(str(tmp_path)) as reader:
        expected = reader.lookup(text(1))
    (path,) = (tmp_path / manifest.tables[table].path).glob("*.parquet")
    data = path.read_bytes()
    for at in range(0, len(data), 61):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        with contextlib.suppress(read.ManifestError), read.open(str(tmp_path)) as reader:
            assert reader.lookup(text(1), default=None) == expected
    for wrong in (b"", data[:-1], data + b"x"):
        path.write_bytes(wrong)
        with read.open(str(tmp_path)) as reader, pytest.raises(read.ManifestError, match=r"bytes instead of"):
            reader.lookup(text(1))
    path.unlink()
    with read.open(str(tmp_path)) as reader, pytest.raises(read.ManifestError, match="is missing"):
        reader.lookup(text(1))


def test_no_link_leads_out(tmp_path: Path) -> None:
    manifest = publish_run(tmp_path / "output", run_id="r1", queries=3, shards=1)
    folder = tmp_path / "output" / manifest.tables["reranked"].path
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with read.open(str(tmp_path / "output")) as reader, pytest.raises(read.ManifestError, match="by a link"):
        reader.lookup(text(1))


def test_batches_are_every_row(night: Night) -> None:
    published = rows(night.output, night.manifest)
    with read.open(str(night.output)) as reader:
        found = [row for table in reader.batches(["query_id", "passage_id"]) for row in table.to_pylist()]
    assert found == [{name: row[name] for name in ("query_id", "passage_id")} for row in published]


def test_open_files_are_bounded(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1", queries=40, shards=20)
    files = Files(str(tmp_path), max_open=3)
    opened = open_latest(files)
    for number in range(40):
        entry = opened.find(query_id(text(number)))
        assert entry is not None
        assert opened.rows(entry, ["rank"]).num_rows == 4
        assert sum(map(len, files._idle.values())) <= 3
