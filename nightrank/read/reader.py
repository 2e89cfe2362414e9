"""The reader of an output folder: look-ups in the run that it pins, or in the newest one."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as fs

from nightrank.read import run as runs
from nightrank.read.files import Files
from nightrank.read.records import Near, Passage, QueryEntry, QueryList, RunInfo
from nightrank.read.run import OpenRun
from rerank_core.errors import QueryNotFound, RunRemoved
from rerank_core.text import normalise_query, query_id, shorten
from schemas.errors import ManifestError
from schemas.tags import Tags

MIN_SIMILARITY = 0.6
"""Least similarity of a nearest query: below it, texts of other questions are common."""

LISTED = ("rank", "doc_id", "passage_id", "title", "text", "score", *Tags._fields, "evidence", "stale_since")
_RAISE: Any = object()
_log = logging.getLogger(__name__)
T = TypeVar("T")


def open(
    output: str,
    *,
    run_id: str = "",
    follow: bool = False,
    check_seconds: float = 30.0,
    filesystem: fs.FileSystem | None = None,
) -> Reader:
    """Open an output folder of the nightly job.

    Args:
        output: a local path, gs://bucket/path or s3://bucket/path.
        run_id: a published run; "": the one that `latest.json` names.
        follow: go over to the newest run whenever `latest.json` names another one. Else the run never changes.
        check_seconds: how often `latest.json` is read then, at most.
        filesystem: one of pyarrow's with its own credentials or endpoint; `output` is then a path on it.

    Raises:
        ManifestError: nothing was published there, no such run, or a damaged pointer or manifest.
        OutputError: the folder has the layout of an earlier version.
        ValueError: follow with a run_id.
    """
    if follow and run_id:
        raise ValueError(
            f"follow=True goes over to newer runs than run_id = {run_id!r:.80}; leave out one of them"
        )
    files = Files(str(output), filesystem)
    runs.refuse_earlier_layout(files)
    opened = runs.open_named(files, runs.date_of(files, run_id), run_id) if run_id else _latest(files)
    return Reader(files, opened, check_seconds=check_seconds if follow else None)


def _latest(files: Files) -> OpenRun:
    try:
        return runs.open_latest(files)
    except RunRemoved:  # between the reading of the pointer and of the manifest
        return runs.open_latest(files)


class Reader:
    """Look-ups in a published run; made by `open`. Threads may share one, and a process one per folder."""

    def __init__(self, files: Files, opened: OpenRun, *, check_seconds: float | None):
        self._files, self._opened = files, opened
        self._check_seconds, self._checked = check_seconds, time.monotonic()
        self._checking, self._building = threading.Lock(), threading.Lock()
        self._nearest: tuple[OpenRun, Any] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files that are open."""
        self._files.close()

    @property
    def run(self) -> RunInfo:
        """The run that look-ups read now."""
        manifest = self._opened.manifest
        return RunInfo(
            manifest.run_id,
            manifest.run_date,
            manifest.created_at,
            manifest.balance.lists,
            dict(manifest.stale or {}),
        )

    @property
    def tables(self) -> list[str]:
        """Names of the run's tables, sorted."""
        return sorted(self._opened.manifest.tables)

    def lookup(
        self,
        query: str,
        *,
        default: T = _RAISE,
        nearest: bool = False,
        min_similarity: float = MIN_SIMILARITY,
    ) -> QueryList | T:
        """The list of a query, by its text as a user would type it.

        Case, Unicode form, white space and punctuation at its ends do not matter.

        Args:
            default: what to return where the run does not have the query, in place of an exception.
            nearest: take the most similar published query then; the result's `query` and `similarity` say which.
            min_similarity: least similarity of it, 0 to 1.

        Raises:
            QueryNotFound: the run does not have the query, nor a similar one.
            RunRemoved: the run was removed since it was opened.
            ManifestError: its files are damaged.
        """
        found: QueryList | T = self._reading(
            lambda opened: self._lookup(opened, query, default, nearest, min_similarity)
        )
        return found

    async def alookup(self, query: str, **options: Any) -> Any:
        """`lookup` in a thread, for asynchronous code."""
        import asyncio  # a tenth of the time that importing this module may take

        return await asyncio.to_thread(functools.partial(self.lookup, query, **options))

    def table(self, query: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of `reranked` for a query, best first, with all columns or some.

        Raises:
            As `lookup`.
        """

        def read(opened: OpenRun) -> pa.Table:
            entry = opened.find(query_id(query))
            if entry is None:
                raise _not_found(opened, query)
            return opened.rows(entry, columns)

        return self._reading(read)

    def nearest(self, query: str, n: int = 3) -> list[Near]:
        """The published queries that are most similar to a text, best first.

        The first call reads the text of every query into memory: some 220 bytes a query, three seconds a million.
        """
        return self._reading(lambda opened: self._nearest_index(opened).nearest(query, n))

    def queries(self) -> Iterator[QueryEntry]:
        """Every query of the run, sorted by id; a thousand are in memory at once."""
        for entries in self._current().entries():
            yield from entries

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Every row of `reranked`, some hundred at a time, rows of a query together and best first."""
        return self._current().batches(columns)

    def refresh(self) -> bool:
        """Read `latest.json` now, and go over to the run that it names; whether that is another one.

        Raises:
            ManifestError: the pointer or the manifest that it names is damaged; the reader keeps its run.
            RunRemoved: the run that it names is not there; likewise.
        """
        with self._checking:
            return self._refresh()

    def _refresh(self, *, force: bool = False) -> bool:
        self._checked = time.monotonic()
        before = self._opened.manifest
        if not force and runs.latest_run(self._files) == (before.run_date, before.run_id):
            return False
        self._opened = _latest(self._files)
        self._files.close()
        return self._opened.manifest != before

    def _current(self) -> OpenRun:
        """The run to read. In follow mode one thread looks for a newer one, while others go on."""
        due = self._check_seconds is not None and time.monotonic() - self._checked >= self._check_seconds
        if due and self._checking.acquire(blocking=False):
            try:
                self._refresh()
            except (OSError, ManifestError, RunRemoved) as error:  # the run that is open can still be read
                _log.warning("run %s stays in use: %s", self._opened.manifest.run_id, error)
            finally:
                self._checking.release()
        return self._opened

    def _reading(self, read: Callable[[OpenRun], T]) -> T:
        opened = self._current()
        try:
            return read(opened)
        except (RunRemoved, ManifestError):
            if self._check_seconds is None:
                raise
        with self._checking:
            if self._opened is opened:  # else another thread went over to a newer run
                self._refresh(force=True)
        return read(self._opened)

    def _lookup(self, opened: OpenRun, query: str, default: Any, nearest: bool, min_similarity: float) -> Any:
        entry, similarity = opened.find(query_id(query)), 1.0
        if entry is None and nearest:
            near = self._nearest_index(opened).nearest(query, 1)
            if near and near[0].similarity >= min_similarity:
                entry, similarity = opened.find(query_id(near[0].query)), near[0].similarity
        if entry is None:
            if default is _RAISE:
                raise _not_found(opened, query)
            return default
        return _query_list(opened, entry, similarity)

    def _nearest_index(self, opened: OpenRun) -> Any:
        from nightrank.read.nearest import NearestIndex  # pyarrow.compute takes as long as the rest to import

        with self._building:
            if self._nearest is None or self._nearest[0] is not opened:
                self._nearest = (opened, NearestIndex(opened.texts()))
            return self._nearest[1]


def _query_list(opened: OpenRun, entry: QueryEntry, similarity: float) -> QueryList:
    table = opened.rows(entry, LISTED)
    columns = {name: table[name].to_pylist() for name in table.schema.names}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    passages = tuple(
        Passage(
            row["rank"],
            row["doc_id"],
            row["passage_id"],
            row["title"],
            row["text"],
            row["score"],
            Tags.from_row(row),
            row["evidence"],
            row["stale_since"],
        )
        for row in rows
    )
    manifest = opened.manifest
    return QueryList(
        entry.query,
        entry.query_id,
        similarity,
        manifest.run_id,
        manifest.run_date,
        entry.stale_since,
        passages,
    )


def _not_found(opened: OpenRun, query: str) -> QueryNotFound:
    shown = shorten(normalise_query(query), limit=80)
    return QueryNotFound(f"run {opened.manifest.run_id} has no query {shown!r}")
