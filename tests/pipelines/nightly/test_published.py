"""Verification of published runs: nothing is found in whole ones, and every kind of damage is."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.nightly.published import check_files, check_folder
from pipelines.storage import filesystem, runs
from pipelines.storage.held import held_runs, hold
from pipelines.storage.publish import publish
from schemas.manifest import Manifest, TableInfo
from schemas.tables import TABLES
from tests.conftest import Night
from tests.pipelines.storage.conftest import renamed, stage
from tests.support.published_run import rewrite


@pytest.fixture
def output(night: Night, tmp_path: Path) -> Path:
    shutil.copytree(night.output, tmp_path / "output")
    return tmp_path / "output"


def found(output: Path) -> list[str]:
    return check_files(str(output), runs.open_run(str(output))) + check_folder(str(output))


def test_nothing_is_found_in_whole_runs(night: Night, output: Path) -> None:
    assert found(night.output) == []
    assert found(output) == []
    for run_id, date in (("20260308-second", "2026-03-08"), ("20260309-third", "2026-03-09")):
        manifest = renamed(night, run_id, run_date=date)
        stage(night, output, manifest)
        publish(str(output), manifest)
    held = renamed(night, "20260310-held", run_date="2026-03-10")
    stage(night, output, held)
    hold(str(output), held)
    for manifest in (night.manifest, *held_runs(str(output))):
        assert check_files(str(output), manifest) == []
    assert check_folder(str(output)) == []


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("damage", ["a bit", "cut", "missing", "extra", "no Parquet"])
def test_damaged_files_are_found(night: Night, output: Path, table: str, damage: str) -> None:
    path = min((output / night.manifest.tables[table].path).iterdir())
    data = bytearray(path.read_bytes())
    if damage == "a bit":
        data[len(data) // 2] ^= 1
        expected = "another checksum than its manifest says|is not a readable Parquet file"
    elif damage == "cut":
        data = data[:-9]
        expected = "is not a readable Parquet file"
    elif damage == "no Parquet":
        data, expected = bytearray(b"[]"), "is not a readable Parquet file"
    elif damage == "extra":
        shutil.copy(path, path.with_name("part-9.parquet"))
        expected = f"{table}/part-9.parquet: its manifest does not name this file"
    else:
        expected = f"{table}/{path.name}: there is no such file"
    path.unlink()
    if damage != "missing":
        path.write_bytes(data)
    lines = check_files(str(output), night.manifest)
    assert any(_matches(line, expected) for line in lines), lines
    assert any(line.startswith(f"{table}/run_date=2026-03-08") for line in check_folder(str(output)))


def _matches(line: str, patterns: str) -> bool:
    return any(pattern in line for pattern in patterns.split("|"))


Change = Callable[[pa.Table], pa.Table]


@pytest.mark.parametrize(
    ("table", "change", "expected"),
    [
        ("reranked", lambda rows: rows.slice(1), ["reranked: ", "pairs published: "]),
        ("reranked", lambda rows: pa.concat_tables([rows, rows]), ["reranked: ", "pairs published: "]),
        ("dead_letters", lambda rows: rows.slice(1), ["dead_letters: ", "dead letters by reason: "]),
        ("queries", lambda rows: rows.slice(1), ["queries: "]),
        ("training_pairs", lambda rows: rows.slice(1), ["training_pairs: "]),
        ("reranked", lambda rows: rows.replace_schema_metadata(None), ["the schema has no 'schema_version'"]),
        ("passage_tags", lambda rows: rows.drop_columns(["role"]), ["not the columns of version"]),
        (
            "passage_tags",
            lambda rows: rows.replace_schema_metadata({"schema_version": "99"}),
            ["schema version 99, where its manifest says"],
        ),
    ],
)
def test_rows_that_the_manifest_does_not_know_are_found(
    night: Night, output: Path, table: str, change: Change, expected: list[str]
) -> None:
    # The checksums in the manifest are those of the changed files, so that only the content tells.
    rewrite(output, night.manifest, table, lambda rows: change(rows) if rows.num_rows else rows)
    lines = found(output)
    for start in expected:
        assert any(start in line for line in lines), (start, lines)


@pytest.mark.parametrize(
    ("unit", "outcome", "expected"),
    [
        ("events", "kept", "events do not balance"),
        ("queries", "published", "queries published: 5 in the files, where the manifest's balance says 6"),
        ("pairs", "below_top_n", "pairs do not balance"),
        ("pairs", "reused", "pairs reused: 0 in the files"),
    ],
)
def test_a_balance_that_is_wrong_is_found(
    night: Night, output: Path, unit: str, outcome: str, expected: str
) -> None:
    counts = getattr(night.manifest.balance, unit)
    balance = dataclasses.replace(
        night.manifest.balance, **{unit: counts | {outcome: counts.get(outcome, 0) + 1}}
    )
    lines = check_files(str(output), dataclasses.replace(night.manifest, balance=balance))
    assert any(expected in line for line in lines), lines


def test_a_manifest_without_tables_is_found(night: Night, output: Path) -> None:
    tables = {name: info for name, info in night.manifest.tables.items() if name != "reranked"}
    lines = check_files(str(output), dataclasses.replace(night.manifest, tables=tables))
    assert lines == ["the manifest lacks the table reranked or dead_letters"]


def test_a_run_of_an_earlier_version_is_whole(night: Night, output: Path) -> None:
    """Without the column `stale_since` and the table `queries`, at the version before."""

    def older(rows: pa.Table) -> pa.Table:
        return rows.drop_columns(["stale_since"]).replace_schema_metadata({"schema_version": "3"})

    rewrite(output, night.manifest, "reranked", older)
    manifest = runs.open_run(str(output))
    tables = manifest.tables | {
        "reranked": dataclasses.replace(manifest.tables["reranked"], schema_version=3)
    }
    del tables["queries"]
    assert check_files(str(output), dataclasses.replace(manifest, tables=tables)) == []


Damage = Callable[[Path, Manifest], object]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda output, _: (output / "latest.json").write_text("["), "latest.json is damaged"),
        (
            lambda output, _: shutil.copytree(
                output / "reranked/run_date=2026-03-08", output / "reranked/run_date=2026-03-01"
            ),
            "reranked/run_date=2026-03-01 is of no run",
        ),
        (lambda output, _: shutil.rmtree(output / "queries"), "queries/run_date=2026-03-08 has no run_id="),
        (
            lambda output, _: (output / "reranked/run_date=2026-03-08/run_id=other").mkdir()
            or (output / "reranked/run_date=2026-03-08/run_id=other/part-0.parquet").write_text(""),
            "reranked/run_date=2026-03-08 has a run_id=other/part-0.parquet, and the newest run",
        ),
    ],
)  # fmt: skip
def test_what_the_folder_should_not_show_is_found(
    night: Night, output: Path, damage: Damage, expected: str
) -> None:
    damage(output, night.manifest)
    assert any(expected in line for line in check_folder(str(output))), check_folder(str(output))
    assert check_files(str(output), night.manifest) == []


def test_in_an_object_store_all_copies_are_compared(night: Night, store: str) -> None:
    for path in night.output.rglob("*"):
        if path.is_file():
            name = filesystem.join(store, path.relative_to(night.output).as_posix())
            filesystem.write_bytes(name, path.read_bytes())
    manifest = runs.open_run(store)
    assert check_files(store, manifest) == check_folder(store) == []
    info: TableInfo = manifest.tables["reranked"]
    shown = f"{store}/reranked/run_date=2026-03-08/run_id={manifest.run_id}/{min(info.files)}"
    data = filesystem.read_bytes(shown)
    filesystem.write_bytes(shown, data[:-1] + b"?")
    (line,) = check_folder(store)
    assert "is not the same as the run's own file" in line
    filesystem.remove(filesystem.join(store, info.path, min(info.files)))
    assert any("there is no such file" in line for line in check_files(store, manifest))
