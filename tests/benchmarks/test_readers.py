"""Every reader sees the rows of published runs, whatever became of the run after them; and the check can fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

for module in ("datasets", "duckdb", "pandas", "polars", "pyspark"):
    pytest.importorskip(module)

from benchmarks import readers
from pipelines.storage import runs
from tests.conftest import Night


def test_the_obvious_call_of_each_reader_is_right(tmp_path: Path) -> None:
    cells = list(readers.try_readers(tmp_path, quick=True))
    assert [cell for cell in cells if cell[2]] == []
    assert {reader for reader, _, _ in cells} == set(readers.available())
    assert {table for _, table, _ in cells} == set(readers.TABLES)


def empty_row_group(folder: Path) -> None:
    path = min(folder.rglob("*.parquet"))
    pq.write_table(pq.read_table(path, partitioning=None).slice(0, 0), path)


def column_beside_key(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.append_column("run_id", pa.array(["r"] * table.num_rows)), path)


def second_run(folder: Path) -> None:
    shown = next(folder.glob("*/*"))
    shutil.copytree(shown, shown.with_name("run_id=other"))


def lost_part(folder: Path) -> None:
    max(folder.rglob("*.parquet"), key=lambda path: path.stat().st_size).unlink()


@pytest.mark.parametrize(
    ("reader", "damage"),
    [
        ("datasets", empty_row_group),
        ("pandas", column_beside_key),
        *((reader, damage) for reader in readers.READERS for damage in (second_run, lost_part)),
    ],
)
def test_a_layout_that_a_reader_does_not_read_is_told(
    night: Night, tmp_path: Path, reader: str, damage: Callable[[Path], None]
) -> None:
    if reader not in readers.available():
        pytest.skip(f"{reader} needs a Java from 8 to 21")
    output, newest = tmp_path / "output", {night.manifest.run_date: night.manifest.run_id}
    shutil.copytree(night.output, output)
    state, read = readers.State("", output, [newest]), readers.READERS[reader]
    right = [readers.Rows.published(night.output, newest, "reranked")]
    assert readers.problem(read, state, "reranked", right) == ""
    damage(output / "reranked")
    assert readers.problem(read, state, "reranked", right)


def test_runs_of_one_row_each_are_told_apart(night: Night) -> None:
    newest = {night.manifest.run_date: night.manifest.run_id}
    found = readers.Rows.published(night.output, newest, "reranked")
    files = runs.table_files(str(night.output), night.manifest, "reranked")
    rows = [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    assert readers.Rows.read(rows, "reranked").same(found)  # without the keys of the folders
    assert not readers.Rows.read(rows[1:], "reranked").same(found)
    assert not readers.Rows.read([*rows, rows[0]], "reranked").same(found)
    keyed = [row | {"run_date": night.manifest.run_date, "run_id": "other"} for row in rows]
    assert not readers.Rows.read(keyed, "reranked").same(found)
