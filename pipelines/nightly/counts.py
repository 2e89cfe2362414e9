"""What a file of a run holds: rows, checksums, and the counts of which the balance is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.storage.filesystem import files, join, open_parquet, read_bytes
from pipelines.storage.parquet import damage
from schemas.manifest import FileInfo, file_info


class Counts(NamedTuple):
    """What the files of a run hold, in numbers."""

    queries: int = 0  # with a list of tonight
    fresh: int = 0
    reused: int = 0
    pruned: int = 0
    stale: Counter[str] = Counter()  # queries with an earlier list, by its date  # noqa: RUF012
    rejected_units: Counter[str] = Counter()  # noqa: RUF012
    rejected_reasons: Counter[str] = Counter()  # noqa: RUF012


def total(every: Iterable[Counts]) -> Counts:
    """The counts of several files together."""
    columns = list(zip(*every, strict=True)) or [()] * 7
    numbers = (sum(column) for column in columns[:4])
    return Counts(*numbers, *(_sum(column) for column in columns[4:]))


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    result = Counter[str]()
    for counter in counters:
        result.update(counter)
    return result


def count_rows(folder: str) -> Counts:
    """Count what the tables in the folder of a run hold, staged or published.

    Raises:
        ManifestError: a file cannot be read.
    """
    return total(
        count_file(table, path, open_parquet(path))
        for table in ("reranked", "dead_letters")
        for path in files(join(folder, table), "part-*.parquet")
    )


def count_file(table: str, path: str, file: pq.ParquetFile) -> Counts:
    """Count what an open file of a table holds; of `reranked` and `dead_letters` only, others add nothing.

    Raises:
        ManifestError: a page is damaged.
    """
    if table == "reranked":
        names = ["query_id", "reused", "logit", "stale_since"]  # files of earlier versions lack the last
        with damage(path):
            return _lists(file.read([n for n in names if n in file.schema_arrow.names], use_threads=False))
    if table == "dead_letters":
        with damage(path):
            return _letters(file.read(["unit", "stage", "reason"], use_threads=False))
    return Counts()


def _lists(every: pa.Table) -> Counts:
    table, stale = every, Counter[str]()
    if "stale_since" in every.schema.names:
        table = every.filter(every["stale_since"].is_null())
    if table.num_rows < every.num_rows:
        of_query = every.filter(every["stale_since"].is_valid()).group_by(["query_id", "stale_since"])
        stale.update(of_query.aggregate([])["stale_since"].to_pylist())
    queries = pc.count_distinct(table["query_id"]).as_py()  # a query is in one file only
    reused, pruned = pc.sum(table["reused"]).as_py() or 0, table["logit"].null_count
    return Counts(queries, table.num_rows - reused - pruned, reused, pruned, stale)


def _letters(table: pa.Table) -> Counts:
    units, reasons = Counter[str](), Counter[str]()
    for row in table.group_by(["unit", "stage", "reason"]).aggregate([([], "count_all")]).to_pylist():
        units[row["unit"]] += row["count_all"]
        reasons[f"{row['stage']}/{row['reason']}"] += row["count_all"]
    return Counts(rejected_units=units, rejected_reasons=reasons)


def read_part(path: str) -> tuple[int, pa.Schema, FileInfo]:
    """Number of rows, schema, size and checksum of a file.

    Raises:
        ManifestError: not a whole Parquet file.
    """
    data = read_bytes(path)
    parquet = open_parquet(path, data)
    return parquet.metadata.num_rows, parquet.schema_arrow, file_info(data)
