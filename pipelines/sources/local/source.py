"""The embedded source: a query log in files, and a BM25 index in a folder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from pipelines.sources.local.bm25_index import LocalIndex
from pipelines.sources.local.log_files import has_events, log_files, log_fingerprint, read_file
from rerank_core.config.night import Config, require
from rerank_core.errors import SourceError
from rerank_core.querylog.events import Window
from rerank_core.querylog.privacy import mask, shown
from schemas.records import Document, Query, Rejected


class LocalSource:
    """A log in files and an index in a folder; implements `pipelines.sources.Source`.

    Files are read whole, so `window` changes nothing here.

    Raises:
        ConfigError: source.log or source.index is not set.
    """

    def __init__(self, config: Config, *, window: Window | None = None) -> None:
        require(config, "source.log", "source.index")
        self._log, self._index = config.source.log, config.source.index
        self._fields, self._filter = config.log.fields, config.log.filter
        self._title_boost = config.candidates.title_boost
        self._pinned: str | None = None  # the index's fingerprint, once described

    def describe(self) -> dict[str, Any]:
        """Locations, fingerprints of the bytes, and the number of documents.

        Also pins the index: a worker that later opens another one there fails, so that no run mixes two.

        Raises:
            SourceError: the log is missing, empty, truncated, or Parquet without the configured columns; or the index
                cannot be opened.
        """
        files = log_files(self._log)
        # a list: checks every file
        nonempty = [has_events(file, self._fields, self._filter) for file in files]
        if not any(nonempty):
            raise SourceError(f"the log {self._log} is empty: it holds no event")
        index = LocalIndex(self._index)
        self._pinned = index.fingerprint
        return {
            "kind": "local",
            "log": self._log,
            "log_fingerprint": log_fingerprint(files),
            "index": self._index,
            "index_fingerprint": index.fingerprint,
            "documents": index.documents,
        }

    def events(self) -> beam.PTransform:
        """PBegin -> PCollection[LogEvent | Rejected]; what `log.filter` excludes is neither."""
        files = [str(file) for file in log_files(self._log)]
        return (
            "ListFiles" >> beam.Create(files)
            | "SpreadFiles" >> beam.Reshuffle()
            # Any: a lone surrogate in a query survives pickling, but not the coder that typed rows would get.
            | "ReadEvents" >> beam.FlatMap(read_file, self._fields, self._filter).with_output_types(Any)
        )

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
            (documents,) = index.search([query.text], top_k=top_k, title_boost=self._title_boost)
        except Exception as error:  # one query must not stop the night
            reason = "search_failed"
            detail = mask(f"the search for {quoted} failed: {type(error).__name__}: {error}")
        else:
            if documents:
                return documents
            detail = f"none of the index's {index.documents} documents shares a word with {quoted}"
        return Rejected("FetchCandidates", "query", query.query_id, reason, detail)


@functools.lru_cache(maxsize=2)
def _open_index(path: str, pinned: str | None) -> LocalIndex:
    """The index, opened once per process."""
    index = LocalIndex(path)
    if pinned is not None and index.fingerprint != pinned:
        raise SourceError(
            f"the index {path} was replaced during the run (fingerprint {index.fingerprint}, not {pinned}); run the "
            "night again, and build new indices in a folder that no run reads"
        )
    return index
