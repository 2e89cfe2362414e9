"""The production source: query log and candidates from an Elasticsearch cluster, 8.19 or 9, read-only.

What stands where: `es_client` the connection, the credentials and the meaning of errors; `es_retry` when to ask
again, as pure state; `es_pit` and `es_log` the log; `es_candidates` and `es_request` the candidates.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from elasticsearch import Elasticsearch as Client

from pipelines.elasticsearch.candidates import Fetcher, Search, search_of
from pipelines.elasticsearch.client import connect, incomplete, patiently, settings_of
from pipelines.elasticsearch.log import ReadLog, log_query
from pipelines.elasticsearch.pit import LogQuery
from rerank_core.config.night import Config, require
from rerank_core.errors import SourceError
from rerank_core.querylog.events import Window
from rerank_core.text import fingerprint
from schemas.records import Document, Query, Rejected

_LONGEST_NAMES = 2000  # characters of index names in a URL; Elasticsearch takes 4,096 for the whole line
_START_RETRIES = 3  # a wrong address shows within seconds; once a night runs, max_retries counts
_EXACT = {"keyword", "constant_keyword", "wildcard", "boolean", "ip", "date", "version", "integer", "long",
          "short", "byte", "double", "float", "half_float", "unsigned_long", "scaled_float", "date_nanos"}  # fmt: skip
_TIMES = {"date", "date_nanos", "long", "integer", "double", "float", "unsigned_long"}


class Found(NamedTuple):
    """What an index, alias or pattern stands for."""

    uuids: tuple[tuple[str, str], ...]  # (index, UUID), sorted

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.uuids]

    def short(self, pattern: str) -> str:
        """The concrete names, so that an alias that moves does not move the run; of too many, the pattern."""
        names = ",".join(self.names)
        return names if len(names) <= _LONGEST_NAMES else pattern


class ElasticsearchSource:
    """A log and an index in a cluster; implements `pipelines.sources.Source`.

    Events outside `window` are left where they are: they are not read, and so not counted either.

    Args:
        config: the night's configuration.
        window: [start, end) in UTC of the events to read; None reads all that have a time.

    Raises:
        ConfigError: the configuration cannot be used, whatever the cluster holds.
    """

    def __init__(self, config: Config, *, window: Window | None = None) -> None:
        wanted = config.source.elasticsearch
        require(config, "source.elasticsearch.log_index", "source.elasticsearch.index")
        self._wanted, self._log, self._window = wanted, config.log, window
        self._settings = settings_of(wanted)
        self._search = search_of(config)
        self._pinned: tuple[tuple[str, str], ...] = ()  # of the candidates' index, once described
        self._events: LogQuery | None = None

    def describe(self) -> dict[str, Any]:
        """Indices with their UUIDs, numbers of documents and fingerprints of their content.

        Also resolves aliases and patterns: the run stays with the indices that they named at this moment.

        A fingerprint is of the indices' UUIDs and, over the documents that a search sees, their number and the
        sum and the maximum of their sequence numbers. Every write gives a document a new, higher number of its
        shard: a document that was added, changed or deleted changes the fingerprint, but for two changes whose
        sums cancel out. A copy of the same documents in another index is another one.

        Raises:
            SourceError: no connection, no access, an index or a field is missing, or the log is empty.
            ConfigError: credentials or certificate files cannot be used.
        """
        client = connect(self._settings).client
        return patiently(
            lambda: self._describe_log(client) | self._describe_index(client),
            settings=self._settings,
            retries=min(_START_RETRIES, self._wanted.max_retries),
        )

    def _describe_log(self, client: Client) -> dict[str, Any]:
        pattern = self._wanted.log_index
        found = self._resolve(client, pattern, "log_index")
        events = self._log_query(client, found)
        total, content = _content(client, found.short(pattern), events.query)
        if not total and not _content(client, found.short(pattern), {"match_all": {}})[0]:
            raise SourceError(f"the log {pattern} is empty: it holds no event")
        self._events = events
        return {
            "kind": "elasticsearch",
            "cluster": self._settings.name,
            "log": pattern,
            "log_indices": dict(found.uuids),
            "log_fingerprint": fingerprint(*_flat(found.uuids), content),
            "log_events": total,
        }

    def _describe_index(self, client: Client) -> dict[str, Any]:
        pattern = self._wanted.index
        found = self._resolve(client, pattern, "index")
        index = found.short(pattern)
        named = {"title_field": self._wanted.title_field, "text_fields": self._wanted.text_fields,
                 "sentences_field": self._wanted.sentences_field,
                 "tiebreak_field": self._wanted.tiebreak_field}  # fmt: skip
        for setting, value in named.items():
            for name in value if isinstance(value, tuple) else (value,):
                if name:
                    _types(client, index, name, f"source.elasticsearch.{setting}")
        total, content = _content(client, index, {"match_all": {}})
        if not total:
            raise SourceError(f"the index {pattern} is empty: it holds no document")
        self._pinned, self._search = found.uuids, self._search._replace(target=index)
        return {
            "index": pattern,
            "indices": dict(found.uuids),
            "index_fingerprint": fingerprint(*_flat(found.uuids), content),
            "documents": total,
            "query_fingerprint": fingerprint(json.dumps(self._search.body, sort_keys=True)),
        }

    def events(self) -> beam.PTransform:
        """PBegin -> PCollection[LogEvent | Rejected]; what `log.filter` and the window exclude is neither."""
        if self._events is None:
            self.describe()
        assert self._events is not None
        return ReadLog(self._events)

    def candidates(self, queries: Sequence[Query], *, top_k: int) -> list[list[Document] | Rejected]:
        """For each query its best documents, or Rejected (no_candidates, search_failed).

        Raises:
            SourceError: no connection, no access, or the index is gone or not the one that `describe` saw.
        """
        search: Search = self._search
        connection = connect(self._settings)
        found = Fetcher(search, self._settings, connection).fetch(queries, top_k=top_k)
        if self._pinned:  # afterwards: what was replaced before or meanwhile shows now
            patiently(
                lambda: self._check_pinned(connection.client),
                settings=self._settings,
                retries=self._wanted.max_retries,
            )
        return found

    def _check_pinned(self, client: Client) -> None:
        now = dict(self._resolve(client, self._search.target, "index").uuids)
        for name, uuid in self._pinned:
            if now.get(name) != uuid:
                what = f"the index {name} was deleted or replaced during the run"
                raise SourceError(f"{what}; run the night again, and build new indices beside the old ones")

    def _resolve(self, client: Client, pattern: str, setting: str) -> Found:
        answer = client.indices.get_settings(index=pattern, flat_settings=True).body
        if not answer:
            remedy = f"check source.elasticsearch.{setting}"
            raise SourceError(f"{self._settings.name} has no index that matches {pattern!r}; {remedy}")
        return Found(tuple(sorted((name, one["settings"]["index.uuid"]) for name, one in answer.items())))

    def _log_query(self, client: Client, found: Found) -> LogQuery:
        fields, wanted = self._log.fields, self._wanted
        index = found.short(wanted.log_index)
        _types(client, index, fields.query, "log.fields.query")
        times = _types(client, index, fields.timestamp, "log.fields.timestamp") if fields.timestamp else set()
        if times - _TIMES:
            kind = ", ".join(sorted(times))
            remedy = "map it as a date, or set log.fields.timestamp to a field that is one"
            raise SourceError(f"the log's time {fields.timestamp!r} is of type {kind}, not a time; {remedy}")
        terms = {_exact(client, index, name): value for name, value in self._log.filter.items()}
        pinned = found.names if index == wanted.log_index else []
        kinds = tuple(sorted(times))
        names = (fields.timestamp, fields.query, fields.user, fields.clicks, fields.impressions)
        return LogQuery(
            settings=self._settings,
            target=index,
            uuids=found.uuids,
            query=log_query(fields, window=self._window, time_types=kinds, terms=terms, indices=pinned),
            fields=fields,
            source_fields=tuple(name for name in names if name),
            time_types=kinds,
            page_size=wanted.page_size,
            slices=wanted.slices,
            slice_field=wanted.slice_field,
            keep_alive=wanted.keep_alive,
            max_retries=wanted.max_retries,
        )


def _flat(uuids: tuple[tuple[str, str], ...]) -> list[str]:
    return [part for pair in uuids for part in pair]


def _content(client: Client, index: str, query: Mapping[str, Any]) -> tuple[int, str]:
    """How many documents a query sees, and what tells their content from another one."""
    per_index = {
        "terms": {"field": "_index", "size": 10_000},
        "aggs": {"seq": {"stats": {"field": "_seq_no"}}},
    }
    answer = client.search(
        index=index,
        query=query,
        size=0,
        track_total_hits=True,
        allow_partial_search_results=False,
        aggs={"indices": per_index},
    ).body
    if missing := incomplete(answer):
        raise SourceError(f"the index {index} cannot be read: {missing}; try again when the cluster is well")
    found = [
        (one["key"], one["doc_count"], one["seq"]["sum"], one["seq"]["max"])
        for one in answer["aggregations"]["indices"]["buckets"]
    ]
    return answer["hits"]["total"]["value"], repr(sorted(found))


def _types(client: Client, index: str, field: str, setting: str) -> set[str]:
    """The types that the mappings give a field.

    Raises:
        SourceError: no mapping has it.
    """
    fields = client.field_caps(index=index, fields=[field]).body["fields"]
    if field in fields:
        return set(fields[field])
    known = [name for name, kinds in client.field_caps(index=index, fields="*").body["fields"].items()
             if not any(kind["metadata_field"] for kind in kinds.values())]  # fmt: skip
    near = difflib.get_close_matches(field, known, n=5, cutoff=0) or ["nothing"]
    raise SourceError(f"{index} has no field {field!r}, which {setting} names; it has {', '.join(near)}")


def _exact(client: Client, index: str, field: str) -> str:
    """The field to compare whole values with: itself, or the keyword below a text."""
    if _types(client, index, field, "log.filter") <= _EXACT:
        return field
    keyword = f"{field}.keyword"
    if keyword in client.field_caps(index=index, fields=[keyword]).body["fields"]:
        return keyword
    raise SourceError(f"log.filter: {field!r} in {index} is analysed text; name a keyword field instead")
