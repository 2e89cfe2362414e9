"""What a report reads of a run's lists: all of a small run, evenly spaced files of a large one.

A file holds the queries of one band of frequency, in which they are by the hash of their ids, so evenly spaced files
have queries of every band. Of two large nights, what is read of both has fewer queries in common than the nights have.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.storage import filesystem
from pipelines.storage.runs import table_files
from schemas.manifest import Manifest

Row = dict[str, Any]
MAX_ROWS = 2_000_000
"""Rows of a table that a report reads: some ten seconds, one file in memory at a time."""


class Run(NamedTuple):
    """A run whose manifest names the folders in which its files lie now."""

    output: str
    manifest: Manifest


class Sample(NamedTuple):
    """The files of a table that a report reads."""

    files: list[str]
    of: int  # the number of all its files

    @property
    def whole(self) -> bool:
        return len(self.files) == self.of


class QueryRows(NamedTuple):
    """The rows of one query, in the order of the file: best first."""

    query_id: str
    path: str
    rows: list[Row]


def sample(run: Run, table: str, *, max_rows: int = 0) -> Sample:
    """Files of a table with about `max_rows` rows (0: MAX_ROWS), evenly spaced; all, if there are no more.

    Raises:
        ManifestError: the table is not what its manifest says.
    """
    if table not in run.manifest.tables:
        return Sample([], 0)
    files = table_files(run.output, run.manifest, table)
    rows, max_rows = run.manifest.tables[table].rows, max_rows or MAX_ROWS
    wanted = len(files) if rows <= max_rows else max(1, len(files) * max_rows // rows)
    return Sample([files[n * len(files) // wanted] for n in range(wanted)], len(files))


def read_queries(files: Iterable[str], columns: list[str]) -> Iterator[QueryRows]:
    """The rows of `reranked`, query by query; a file is sorted by query, then by rank.

    Args:
        files: of the table.
        columns: with query_id; those that a file of an earlier version lacks are left out.

    Raises:
        ManifestError: a file is damaged.
    """
    for path in files:
        for query_id, rows in itertools.groupby(read_rows([path], columns), key=lambda row: row["query_id"]):
            yield QueryRows(query_id, path, list(rows))


def read_rows(files: Iterable[str], columns: list[str]) -> Iterator[Row]:
    """The rows of a table's files; columns that a file lacks are left out.

    Raises:
        ManifestError: a file is damaged.
    """
    for path in files:
        file = filesystem.open_parquet(path)
        known = [name for name in columns if name in file.schema_arrow.names]
        for batch in filesystem.read_batches(file, path, columns=known, batch_size=10_000):
            yield from batch.to_pylist()


def read_lists(places: dict[str, str], columns: list[str]) -> dict[str, list[Row]]:
    """The rows of some queries.

    Args:
        places: the file of each, by query_id.
        columns: with query_id.
    """
    found: dict[str, list[Row]] = {query_id: [] for query_id in places}
    for path in sorted(set(places.values())):
        file = filesystem.open_parquet(path)
        known = [name for name in columns if name in file.schema_arrow.names]
        wanted = pa.array([query_id for query_id, place in places.items() if place == path], pa.string())
        for batch in filesystem.read_batches(file, path, columns=known, batch_size=10_000):
            for row in batch.filter(pc.is_in(batch.column("query_id"), wanted)).to_pylist():
                found[row["query_id"]].append(row)
    return found
