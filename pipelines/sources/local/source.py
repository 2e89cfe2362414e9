"""The embedded source: a query log in files, and a BM25 index in a folder."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from pipelines.sources.local.bm25_index import LocalIndex
from pipelines.sources.local.formats import FORMATS
from pipelines.sources.local.log_files import (
    check_format,
    format_of,
    has_events,
    keyed,
    log_endings,
    log_files,
    log_fingerprint,
    merged,
    no_log,
    read_events,
    read_records,
)
from pipelines.sources.local.remote_files import Pin, addresses, copies, index_folder, pin
from pipelines.sources.local.spans import Span, count_lines
from pipelines.storage.filesystem import is_local
from rerank_core.config.night import Config, require
from rerank_core.config.source import Log
from rerank_core.errors import ConfigError, SourceError, SourceUnavailable
from rerank_core.querylog.events import Window
from rerank_core.querylog.privacy import mask, shown
from schemas.records import Document, LogEvent, Query, Rejected


class LocalSource:
    """A log in files and an index in a folder; implements `pipelines.sources.Source`.

    Files are read whole, so `window` changes nothing here. Both may be in an object store: workers then fetch the files
    that they read, and the index once a machine.

    Raises:
        ConfigError: source.log or source.index is not set, log.format is not known, or the title boost is below 1.
    """

    def __init__(self, config: Config, *, window: Window | None = None) -> None:
        require(config, "source.log", "source.index")
        check_format(config.log)
        self._path, self._index = config.source.log, config.source.index
        self._log = config.log
        self._ignore_stop_words = config.source.local.ignore_stop_words
        self._title_boost = boost = config.candidates.title_boost
        if boost < 1:
            raise ConfigError(
                f"candidates.title_boost = {boost:g}: in the embedded index a word of a title counts at least as "
                "much as one of the text; set it to 1 or more"
            )
        self._pinned: str | None = None  # the index's fingerprint, once described
        self._files: list[LogFile] = []  # of the log, once described

    def describe(self) -> dict[str, Any]:
        """Locations, fingerprints of the bytes, and the number of documents.

        Also pins the index and the files of the log: a worker that later finds others there fails, so that no run
        mixes two. A log that only grows meanwhile is no other one.

        Raises:
            SourceError: the log is missing, empty, truncated, or Parquet without the configured columns; or the index
                cannot be opened.
        """
        files = self._find()
        with copies(files) as paths:
            nonempty = [has_events(file, self._log) for file in paths]  # a list: checks every file
            self._files = self._look(files, paths)
            log_hash = log_fingerprint(paths, [file.pinned.digest for file in self._files])
        if not any(nonempty):
            raise SourceError(f"the log {self._path} is empty: it holds no event")
        index = LocalIndex(index_folder(self._index))
        self._pinned = index.fingerprint
        return {
            "kind": "local",
            "log": self._path,
            "log_fingerprint": log_hash,
            "index": self._index,
            "index_fingerprint": index.fingerprint,
            "index_language": index.language,
            "documents": index.documents,
        }

    def events(self) -> beam.PTransform:
        """PBegin -> PCollection[LogEvent | Rejected]; what `log.filter` excludes is neither."""
        if not self._files:
            files = self._find()
            with copies(files) as paths:
                self._files = self._look(files, paths)
        return _ReadFiles(self._files, self._log)

    def _look(self, files: Sequence[str], paths: Sequence[Path]) -> list[LogFile]:
        return [
            LogFile(file, format_of(path, self._log), pin(path))
            for file, path in zip(files, paths, strict=True)
        ]

    def _find(self) -> list[str]:
        """The log's files; of an object store, their addresses."""
        if is_local(self._path):
            return list(map(str, log_files(self._path, self._log)))
        if found := addresses(self._path, log_endings(self._log)):
            return found
        raise SourceError(no_log(self._path, self._log))

    def candidates(self, queries: Sequence[Query], *, top_k: int) -> list[list[Document] | Rejected]:
        """For each query its best documents, or Rejected (no_candidates, search_failed).

        Raises:
            SourceError: the index cannot be opened, or is not the one that `describe` pinned.
        """
        index = _open_index(self._index, self._pinned)
        return [self._fetch(index, query, top_k=top_k) for query in queries]

    def _fetch(self, index: LocalIndex, query: Query, *, top_k: int) -> list[Document] | Rejected:
        reason, quoted = "no_candidates", shown(query.text)
        try:
            (documents,) = index.search(
                [query.text],
                top_k=top_k,
                title_boost=self._title_boost,
                ignore_stop_words=self._ignore_stop_words,
            )
        except Exception as error:  # one query must not stop the night
            reason = "search_failed"
            detail = mask(f"the search for {quoted} failed: {type(error).__name__}: {error}")
        else:
            if documents:
                return documents
            detail = f"none of the index's {index.documents} documents shares a word with {quoted}"
        return Rejected("FetchCandidates", "query", query.query_id, reason, detail)


class LogFile(NamedTuple):
    """A file of a log, as it was when the night began."""

    path: str
    format: str
    pinned: Pin


File = tuple[str, Span | None]
"""The path of a log file, and which part of it is read; None: all."""


class _ReadFiles(beam.PTransform):
    """PBegin -> PCollection[LogEvent | Rejected]: each file by itself, and together those of a format that joins."""

    def __init__(self, files: Sequence[LogFile], log: Log) -> None:
        super().__init__()
        self._formats, self._log = {file.path: file.format for file in files}, log
        self._pinned = {file.path: file.pinned for file in files}

    def expand(self, begin: beam.Pipeline) -> beam.PCollection:
        formats = self._formats
        alone = [file for file, name in formats.items() if not FORMATS[name].join]
        parts = []
        if alone:
            # Any: a lone surrogate in a query survives pickling, but not the coder that typed rows would get.
            read = beam.FlatMap(_read_alone, self._log, self._pinned).with_output_types(Any)
            parts.append(self._spread(begin, "Files", alone, formats) | "ReadEvents" >> read)
        for name in sorted(set(formats.values())):
            if FORMATS[name].join:
                of_format = [file for file, other in formats.items() if other == name]
                parts += self._joined(self._spread(begin, f"{name}Files", of_format, formats), name)
        return parts[0] if len(parts) == 1 else tuple(parts) | "AllEvents" >> beam.Flatten()

    def _spread(
        self, begin: beam.Pipeline, label: str, paths: Sequence[str], formats: Mapping[str, str]
    ) -> beam.PCollection:
        """The files, a large local one in spans, each of which knows how many lines are before it."""
        files: list[File] = []
        for path in paths:
            spans = FORMATS[formats[path]].spans if is_local(path) else None
            cut = spans(Path(path)) if spans else []
            files += [(path, span) for span in cut] or [(path, None)]
        # Plain tuples: Beam would make rows of a field's type, which may be missing.
        spread = begin | f"List{label}" >> beam.Create(files) | f"Spread{label}" >> beam.Reshuffle()
        if len(files) == len(paths):
            return spread
        counted = spread | f"Count{label}" >> beam.Map(_count) | f"Counted{label}" >> beam.combiners.ToList()
        return spread | f"Number{label}" >> beam.Map(_with_first, pvalue.AsSingleton(counted))

    def _joined(self, files: beam.PCollection, name: str) -> list[beam.PCollection]:
        read = beam.FlatMap(_read_keyed, name, self._log, self._pinned).with_output_types(Any)
        rejected, records = (
            files
            | f"Read_{name}" >> read
            | f"Keyed_{name}" >> beam.Partition(lambda one, _: int(not isinstance(one, Rejected)), 2)
        )
        events = (
            records
            | f"Join_{name}" >> beam.GroupByKey()
            | f"Records_{name}" >> beam.Values()
            | f"Merge_{name}" >> beam.FlatMap(merged, name, self._log).with_output_types(Any)
        )
        return [rejected, events]


def _count(file: File) -> tuple[File, int]:
    path, span = file
    return file, count_lines(Path(path), span) if span and span.first < 0 else 0


def _with_first(file: File, counted: list[tuple[File, int]]) -> File:
    """The span with the number of lines before it; a Parquet file's footer has said it already."""
    path, span = file
    if not span or span.first >= 0:
        return file
    before = sum(lines for (other, at), lines in counted if at and other == path and at.start < span.start)
    return path, span._replace(first=before)


def _read_alone(file: File, log: Log, pinned: Mapping[str, Pin]) -> Iterator[LogEvent | Rejected]:
    path, span = file
    with copies([path], pinned=pinned) as (copy,):
        yield from read_events(copy, log, span=span)


def _read_keyed(file: File, name: str, log: Log, pinned: Mapping[str, Pin]) -> Iterator[Any]:
    join = FORMATS[name].join
    assert join is not None
    path, span = file
    with copies([path], pinned=pinned) as (copy,):
        for record, raw in read_records(copy, name, log, span=span):
            yield from keyed(record, raw, join, log)


@functools.lru_cache(maxsize=2)
def _open_index(path: str, pinned: str | None) -> LocalIndex:
    """The index, opened once per process."""
    index = LocalIndex(index_folder(path))
    if pinned is not None and index.fingerprint != pinned:
        raise SourceUnavailable(
            f"the index {path} was replaced during the run (fingerprint {index.fingerprint}, not {pinned}); run the "
            "night again, and build new indices in a folder that no run reads"
        )
    return index
