"""One published run: its manifest, where each query's rows are, and the rows themselves."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from nightrank.read.files import Files
from nightrank.read.records import QueryEntry
from rerank_core.errors import OutputError, RunRemoved
from schemas.errors import ManifestError
from schemas.layout import (
    MANIFEST,
    POINTER,
    RUNS,
    damaged_pointer,
    file_of_id,
    manifest_path,
    parse_manifest,
    pointer_run,
)
from schemas.manifest import Manifest
from schemas.tables import RERANKED, TABLES, schema_version

T = TypeVar("T")


class OpenRun:
    """A run that look-ups read. It never changes; what was removed meanwhile is a RunRemoved."""

    def __init__(self, files: Files, manifest: Manifest):
        self.files, self.manifest = files, manifest
        self._index = sorted(manifest.tables["queries"].files) if "queries" in manifest.tables else []

    def find(self, query_id: str) -> QueryEntry | None:
        """The entry of a query, by its id; None if the run does not have it."""
        if not self._index:
            return self._find_by_scan(query_id)
        return self._read("queries", self._index[file_of_id(query_id, len(self._index))], _entry, query_id)

    def rows(self, entry: QueryEntry, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of `reranked` of a query, best first.

        Args:
            columns: those to read, None: all; one that the run's version did not have yet is null.
        """
        if unknown := sorted(set(columns or ()) - set(RERANKED.names)):
            raise ValueError(
                f"`reranked` has no column {unknown[0]!r:.80}; it has {', '.join(RERANKED.names)}"
            )
        names = None if columns is None else ["query_id", *(n for n in columns if n != "query_id")]
        found = self._read("reranked", entry.part, _rows, entry, names)
        for name in set(names or ()) - set(found.schema.names):
            found = found.append_column(name, pa.nulls(found.num_rows, RERANKED.field(name).type))
        return found if columns is None else found.select(list(columns))

    def entries(self) -> Iterator[list[QueryEntry]]:
        """Every query of the run in batches, sorted by id; in a run without `queries` unsorted."""
        for name in self._index:
            for group in range(self._groups("queries", name)):
                yield self._read("queries", name, _entries, group)
        if not self._index:
            for name in self._parts():
                yield self._read("reranked", name, _scan, name)

    def texts(self) -> Iterator[pa.ChunkedArray]:
        """The text of every query, in batches."""
        for name in self._index:
            yield self._read("queries", name, _column, "query")
        if not self._index:
            yield from (
                pa.chunked_array([[entry.query for entry in some]], pa.string()) for some in self.entries()
            )

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Every row of `reranked`, a row group at a time."""
        for name in self._parts():
            for group in range(self._groups("reranked", name)):
                yield self._read("reranked", name, _group, group, columns)

    def _parts(self) -> list[str]:
        return sorted(self.manifest.tables["reranked"].files)

    def _groups(self, table: str, name: str) -> int:
        return self._read(table, name, lambda file: int(file.num_row_groups))

    def _find_by_scan(self, query_id: str) -> QueryEntry | None:
        """The entry of a query in a run that was published before there was the table `queries`."""
        names = self._parts()
        first = int(query_id, 16) % max(1, len(names))  # the shard of most queries
        for name in [*names[first:], *names[:first]]:
            if found := self._read("reranked", name, _scan, name, query_id):
                return found[0]
        return None

    def _read(self, table: str, name: str, use: Callable[..., T], *args: Any) -> T:
        """What `use(file, *args)` returns for a file of a table."""
        info = self.manifest.tables[table]
        if name not in info.files:
            raise ManifestError(
                f"run {self.manifest.run_id} has no file {name!r:.80} of {table}, which its table `queries` names; "
                "do not use it, and publish it again"
            )
        path = f"{info.path}/{name}"
        known = schema_version(TABLES[table]) == info.schema_version
        try:
            return self.files.with_parquet(
                path, info.files[name], TABLES[table] if known else None, use, *args
            )
        except FileNotFoundError:
            raise self._missing(path) from None

    def _missing(self, path: str) -> Exception:
        run = self.manifest
        if self.files.exists(manifest_path(run.run_date, run.run_id)):
            return ManifestError(
                f"{self.files.name(path)} is missing; do not use its run, and publish it again"
            )
        return RunRemoved(
            f"run {run.run_id} was removed from {self.files.output} since it was opened; open the folder again, or "
            "open it with follow=True, which does so by itself"
        )


_PLACE = [field.name for field in dataclasses.fields(QueryEntry)]


def _entry(file: pq.ParquetFile, query_id: str) -> QueryEntry | None:
    """The entry of a query in a file of `queries`, whose row groups are sorted by id."""
    metadata = file.metadata

    def last(group: int) -> str:
        return str(metadata.row_group(group).column(0).statistics.max)

    group = bisect.bisect_left(range(metadata.num_row_groups), query_id, key=last)
    if group == metadata.num_row_groups:
        return None
    table = _group(file, group, _PLACE)
    ids = table["query_id"].chunk(0)
    at = bisect.bisect_left(range(len(ids)), query_id, key=lambda n: ids[n].as_py())
    if at == len(ids) or ids[at].as_py() != query_id:
        return None
    return QueryEntry(*(table[name][at].as_py() for name in _PLACE))


def _entries(file: pq.ParquetFile, group: int) -> list[QueryEntry]:
    table = _group(file, group, _PLACE)
    return [QueryEntry(*row) for row in zip(*(table[name].to_pylist() for name in _PLACE), strict=True)]


def _rows(file: pq.ParquetFile, entry: QueryEntry, columns: list[str] | None) -> pa.Table:
    found = _group(file, entry.row_group, columns).slice(entry.row, entry.rows)
    if found["query_id"].to_pylist() != [entry.query_id] * entry.rows:
        raise ValueError(f"its row group {entry.row_group} does not hold the rows of {entry.query!r:.80}")
    return found


def _group(file: pq.ParquetFile, group: int, columns: Sequence[str] | None) -> pa.Table:
    # Threads of Arrow's would cost more than they save on a row group this small.
    return file.read_row_group(group, columns=None if columns is None else list(columns), use_threads=False)


def _column(file: pq.ParquetFile, name: str) -> pa.ChunkedArray:
    return file.read(columns=[name], use_threads=False)[name]


def _scan(file: pq.ParquetFile, part: str, wanted: str = "") -> list[QueryEntry]:
    """The queries of a file of `reranked`, or the wanted one; rows of a query stand together."""
    found = []
    for group in range(file.num_row_groups):
        stats = file.metadata.row_group(group).column(0).statistics
        if wanted and stats is not None and stats.has_min_max and not stats.min <= wanted <= stats.max:
            continue
        table = _group(file, group, ["query_id", "query"])
        ids, queries = table["query_id"].to_pylist(), table["query"].to_pylist()
        starts = [at for at in range(len(ids)) if at == 0 or ids[at] != ids[at - 1]]
        for start, end in itertools.pairwise([*starts, len(ids)]):
            if not wanted or ids[start] == wanted:
                found.append(QueryEntry(ids[start], queries[start], 0, end - start, part, group, start))
    return found


def open_latest(files: Files) -> OpenRun:
    """The run that the pointer names.

    Raises:
        ManifestError: nothing was published, or the pointer or the manifest is damaged.
    """
    return open_named(files, *latest_run(files))


def latest_run(files: Files) -> tuple[str, str]:
    """The (date, id) of the run that the pointer names."""
    name = files.name(POINTER)
    try:
        return pointer_run(files.read_bytes(POINTER), name=name)
    except FileNotFoundError:
        raise ManifestError(
            f"no published run in {files.output}: {name} does not exist; name the output folder of a nightly job"
        ) from None
    except OSError as error:
        raise damaged_pointer(name, error) from None


def open_named(files: Files, run_date: str, run_id: str) -> OpenRun:
    """A run by its date and id."""
    path = manifest_path(run_date, run_id)
    try:
        data = files.read_bytes(path)
    except FileNotFoundError:
        raise RunRemoved(
            f"{files.name(path)} does not exist: the run was removed; open the folder again"
        ) from None
    except OSError as error:
        raise ManifestError(f"cannot read {files.name(path)}: {error}") from None
    return OpenRun(files, parse_manifest(data, run_date, run_id, name=files.name(path)))


def date_of(files: Files, run_id: str) -> str:
    """Date of a published run.

    Raises:
        ManifestError: there is no such run.
    """
    for folder in files.folders(RUNS):
        if folder.startswith("run_date=") and files.exists(f"{RUNS}/{folder}/run_id={run_id}/{MANIFEST}"):
            return folder.removeprefix("run_date=")
    raise ManifestError(f"no run {run_id!r:.80} in {files.output}; look under {files.name(RUNS)}")


def refuse_earlier_layout(files: Files) -> None:
    """Raise for a folder in which an earlier version published.

    Raises:
        OutputError: it is one.
    """
    if files.exists("manifests"):
        raise OutputError(
            f"{files.name('manifests')} is the layout of an earlier version; publish into a new folder"
        )
