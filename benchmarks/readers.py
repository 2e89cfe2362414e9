"""Readers: what pandas, polars, DuckDB, pyarrow, datasets and Spark make of an output folder, by their obvious calls.

    python -m benchmarks.readers [--quick] [--json FILE]

The folder has two runs of one date, one of another, parts without rows, and what a run leaves that is killed at every
change that publishing makes to it (quick: at some). Each reader reads each table in each state that listing it can
show, and must see the rows of one published run of each date: the newest that is whole, each row once.

- readers: readers tried.
- reader_cells: readers times tables times states.
- reader_failures: cells with other rows, or an error.
"""

from __future__ import annotations

import datetime
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks.common import parser, report
from pipelines.nightly import outcome
from pipelines.nightly.run import run
from pipelines.storage import runs
from pipelines.storage.clean import clean
from pipelines.storage.publish import publish
from schemas.manifest import Manifest
from schemas.tables import TABLES
from tests.support.fakes import fake
from tests.support.killed import count_changes, killed
from tests.support.tiny import DAY, Tiny, make_config, make_tiny

Row = dict[str, Any]


def main() -> None:
    flags = parser(__doc__ or "").parse_args()
    report(measure(flags.quick), flags.json)


def measure(quick: bool = False) -> dict[str, float]:
    """Try every reader; what failed, or cannot be tried here, is printed on stderr."""
    for name in READERS.keys() - available().keys():
        print(f"{name}: not tried, it needs a Java from 8 to 21", file=sys.stderr)
    cells = failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for reader, table, problem in try_readers(Path(folder), quick=quick):
            cells += 1
            if problem:
                failures += 1
                print(f"{reader}, {table}: {problem}", file=sys.stderr)
    return {"readers": len(available()), "reader_cells": cells, "reader_failures": failures}


def try_readers(folder: Path, *, quick: bool) -> Iterator[tuple[str, str, str]]:
    """(reader, table, what was wrong or "") for every cell."""
    seen: set[tuple[object, ...]] = set()
    for state in states(folder, quick=quick):
        for table in TABLES:
            key = _key(state, table)
            if key in seen:  # nothing that a reader of this table could tell apart
                continue
            seen.add(key)
            right = [Rows.published(state.output, newest, table) for newest in state.right]
            for name, read in available().items():
                yield name, table, problem(read, state, table, right)


def _key(state: State, table: str) -> tuple[object, ...]:
    below = sorted(path for path in (state.output / table).rglob("*") if path.is_file())
    files = [(str(path.relative_to(state.output)), path.read_bytes()) for path in below]
    return table, tuple(files), tuple(tuple(sorted(newest.items())) for newest in state.right)


def problem(read: Callable[[Path], list[Row]], state: State, table: str, right: Sequence[Rows]) -> str:
    """What is wrong with what a reader makes of a table, or ""."""
    try:
        found = Rows.read(read(state.output / table), table)
    except Exception as error:  # whatever a reader says of the folder is a failure of it
        return f"{state.name}: {type(error).__name__}: {str(error)[:300]}"
    if any(found.same(rows) for rows in right):
        return ""
    return f"{state.name}: {found.contents.total()} rows, where {right[-1].contents.total()} others are right"


class Rows(NamedTuple):
    """The rows of a table as often as they occur; lists and structs are left out."""

    contents: Counter[tuple[object, ...]]
    keys: (
        Counter[tuple[str, str]] | None
    )  # (run_date, run_id) of the folders; None: the reader does not give them

    @classmethod
    def read(cls, rows: Sequence[Row], table: str) -> Rows:
        """From what a reader gives: numbers may be wider or narrower, and a null may be a NaN."""
        columns = [field.name for field in TABLES[table] if not pa.types.is_nested(field.type)]
        contents = Counter(tuple(_plain(row[name]) for name in columns) for row in rows)
        known = bool(rows) and {"run_date", "run_id"} <= set(rows[0])
        keys = Counter((str(row["run_date"])[:10], str(row["run_id"])) for row in rows) if known else None
        return cls(contents, keys)

    @classmethod
    def published(cls, output: Path, newest: Mapping[str, str], table: str) -> Rows:
        """From the runs themselves, by date and id."""
        rows = []
        for run_date, run_id in newest.items():
            for path in sorted((output / runs.table_path(table, run_date, run_id)).glob("*.parquet")):
                found = pq.ParquetFile(path).read().to_pylist()
                rows += [row | {"run_date": run_date, "run_id": run_id} for row in found]
        return cls.read(rows, table)

    def same(self, other: Rows) -> bool:
        """Whether the rows are the same, and their keys, as far as both have them."""
        return self.contents == other.contents and (self.keys is None or self.keys == other.keys)


def _plain(value: object) -> object:
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(np.float32(value))
    return value.item() if isinstance(value, np.generic) else value


# --- the readers: from a folder `output/TABLE`, all of its rows


def _pandas(folder: Path) -> list[Row]:
    import pandas as pd

    return pd.read_parquet(folder).to_dict("records")


def _polars(folder: Path) -> list[Row]:
    import polars as pl

    return pl.read_parquet(folder).to_dicts()


def _polars_glob(folder: Path) -> list[Row]:
    import polars as pl

    return pl.scan_parquet(folder / "**/*.parquet", hive_partitioning=True).collect().to_dicts()


def _duckdb(folder: Path) -> list[Row]:
    import duckdb

    found = duckdb.connect().execute(f"SELECT * FROM '{folder}/**/*.parquet'")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _dataset(folder: Path) -> list[Row]:
    return ds.dataset(folder, partitioning="hive").to_table().to_pylist()


def _arrow(folder: Path) -> list[Row]:
    return pq.read_table(folder).to_pylist()


def _datasets(folder: Path) -> list[Row]:
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cached:
        found = datasets.load_dataset(
            "parquet", data_files=f"{folder}/**/*.parquet", split="train", cache_dir=cached
        )
        return list(found.to_list())


def _spark(folder: Path) -> list[Row]:
    return [row.asDict() for row in spark().read.parquet(str(folder)).collect()]


@cache
def spark() -> Any:
    """A session of Spark in this process."""
    from pyspark.sql import SparkSession

    logging.getLogger("py4j").setLevel(logging.ERROR)
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "1",
    }
    builder = SparkSession.builder.master("local[1]").config(map=settings)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def java() -> str | None:
    """The Java that Spark 3.5 runs on; None where there is none of a version from 8 to 21."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    said = subprocess.run([found, "-version"], capture_output=True, text=True).stderr if found else ""
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    return found if version and 8 <= int(version[1]) <= 21 else None


READERS: dict[str, Callable[[Path], list[Row]]] = {
    "pandas": _pandas,
    "polars": _polars,
    "polars, by pattern": _polars_glob,
    "duckdb": _duckdb,
    "pyarrow.dataset": _dataset,
    "pyarrow.parquet": _arrow,
    "datasets": _datasets,
    "spark": _spark,
}


def available() -> dict[str, Callable[[Path], list[Row]]]:
    """The readers that can be tried here: all, but Spark only where there is a Java for it."""
    return {name: read for name, read in READERS.items() if name != "spark" or java()}


# --- the states of an output folder


class State(NamedTuple):
    """An output folder that readers may come upon."""

    name: str
    output: Path
    right: list[dict[str, str]]  # run ids by date: any of these may be what they see


class _Staged(NamedTuple):
    """A finished run that was not published, in its output folder's staging."""

    output: Path
    manifest: Manifest


def states(folder: Path, *, quick: bool) -> Iterator[State]:
    """Folders as publishing leaves them, whole or killed, and as the next run then finds them when it starts."""
    tiny, before, base = make_tiny(folder / "tiny"), dict[str, str](), folder / "base"
    for name, day in (("a", DAY - datetime.timedelta(days=1)), ("b", DAY), ("c", DAY)):
        manifest = run(_config(tiny, base, name), run_date=day, load=fake(name))
        before[manifest.run_date] = manifest.run_id
    yield State("three runs", base, [before])
    for name, day in (("d", DAY), ("e", DAY + datetime.timedelta(days=1))):
        staged = _stage(tiny, base, folder / name, name, day)
        path = runs.manifest_path(staged.manifest.run_date, staged.manifest.run_id)
        after = before | {staged.manifest.run_date: staged.manifest.run_id}
        output, steps = folder / "killed", _publish(staged, folder / "killed", sys.maxsize)
        for step in range(0, steps, 30 if quick else 1):
            _publish(staged, output, step)
            is_published = (output / path).exists()
            yield State(
                f"killed at change {step} of {steps}", output, [before, *([after] if is_published else [])]
            )
            clean(str(output))
            yield State(f"the next run after {step} of {steps}", output, [after if is_published else before])


def _publish(staged: _Staged, output: Path, step: int) -> int:
    """Publish in a copy of the folder until the process dies at a change; how many were made."""
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(staged.output, output)
    with killed(output, at=step):
        publish(str(output), staged.manifest)
    return count_changes()


def _config(tiny: Tiny, output: Path, name: str) -> Any:
    # One query a shard: some of them have no negatives. The number of documents tells runs apart.
    sections: dict[str, dict[str, Any]] = {
        "source": {"log": str(tiny.log)},
        "candidates": {"top_k": 3 + "abcde".index(name)},
        "reuse": {"enabled": False},
        "output": {"queries_per_shard": 1, "max_rejected_share": 0.5},
    }
    return make_config(tiny, output, **sections)


def _stage(tiny: Tiny, base: Path, output: Path, name: str, day: datetime.date) -> _Staged:
    """A copy of `base` in which a further run is finished, and not yet published."""
    shutil.copytree(base, output)
    kept: list[Manifest] = []

    def keep(_: str, manifest: Manifest, **__: Any) -> Manifest:
        kept.append(manifest)
        return manifest

    real, outcome.publish = outcome.publish, keep  # type: ignore[assignment]
    try:
        run(_config(tiny, output, name), run_date=day, load=fake(name))
    finally:
        outcome.publish = real
    return _Staged(output, kept[0])


if __name__ == "__main__":
    main()
