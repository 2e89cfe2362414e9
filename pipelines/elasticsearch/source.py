"""The production source: query log and candidates from an Elasticsearch cluster, 8.19 or 9, read-only.

`client` has the connection, the credentials and the meaning of errors; `retry` when to send a request again; `pit` and
`log` the query log; `candidates` and `request` the candidates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import apache_beam as beam
from elasticsearch import Elasticsearch as Client

from pipelines.elasticsearch.candidates import Fetcher, field_settings, search_of
from pipelines.elasticsearch.client import connect, incomplete, settings_of, with_retries
from pipelines.elasticsearch.fields import Fields, field_types, find_fields
from pipelines.elasticsearch.log import ReadLog, log_query
from pipelines.elasticsearch.pit import LogQuery
from rerank_core.config.night import Config, require
from rerank_core.errors import SourceError, SourceUnavailable
from rerank_core.querylog.events import Window
from rerank_core.text import fingerprint
from schemas.records import Document, Query, Rejected

_MAX_NAMES = 2000  # characters of index names in a URL; Elasticsearch accepts 4,096 for the whole line
_START_RETRIES = 3  # so that a wrong address shows within seconds; during a night, max_retries counts
_TIMES = {"date", "date_nanos", "long", "integer", "double", "float", "unsigned_long"}
_EXACT = _TIMES | set(
    "keyword constant_keyword wildcard boolean ip version short byte half_float scaled_float".split()
)


class Indices(NamedTuple):
    """The indices that a name, alias or pattern stands for."""

    uuids: tuple[tuple[str, str], ...]  # (index, UUID), sorted

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.uuids]

    def target(self, pattern: str) -> str:
        """The names, so that a run stays with them when an alias moves; the pattern if they are too long for a URL."""
        names = ",".join(self.names)
        return names if len(names) <= _MAX_NAMES else pattern


class ElasticsearchSource:
    """A log and an index in a cluster; implements `pipelines.sources.Source`.

    Events outside `window` are neither read nor counted.

    Args:
        config: the night's configuration.
        window: [start, end) in UTC of the events to read; None: all.

    Raises:
        ConfigError: the configuration cannot be used with any cluster.
    """

    def __init__(self, config: Config, *, window: Window | None = None) -> None:
        options = config.source.elasticsearch
        require(config, "source.elasticsearch.log_index", "source.elasticsearch.index")
        self._options, self._log, self._window = options, config.log, window
        self._settings = settings_of(options)
        self._search = search_of(config)
        self._pinned: tuple[tuple[str, str], ...] = ()  # the candidates' indices, from `describe` on
        self._events: LogQuery | None = None

    def describe(self) -> dict[str, Any]:
        """Indices with their UUIDs, numbers of documents and fingerprints of their content.

        Also resolves aliases and patterns: the run stays with the indices that they name now.

        A fingerprint covers the indices' UUIDs and, over the documents that a search sees, their number and the sum
        and the maximum of their sequence numbers. Every write gives a document a new, higher number of its shard: a
        document that was added, changed or deleted changes the fingerprint, but for two changes whose sums cancel
        out. A copy of the same documents in another index has another fingerprint.

        Raises:
            SourceError: no connection, no access, an index or a field is missing, or the log is empty.
            ConfigError: credentials or certificate files cannot be used.
        """
        client = connect(self._settings).client
        return with_retries(
            lambda: self._describe_log(client) | self._describe_index(client),
            settings=self._settings,
            retries=min(_START_RETRIES, self._options.max_retries),
        )

    def _describe_log(self, client: Client) -> dict[str, Any]:
        pattern = self._options.log_index
        indices = self._resolve(client, pattern, "log_index")
        events = self._log_query(client, indices)
        total, content = _content(client, events.target, events.query)
        if not total and not _content(client, events.target, {"match_all": {}})[0]:
            raise SourceError(f"the log {pattern} has no event")
        self._events = events
        return {
            "kind": "elasticsearch",
            "cluster": self._settings.name,
            "log": pattern,
            "log_indices": dict(indices.uuids),
            "log_fingerprint": fingerprint(*_flat(indices.uuids), content, *_unusual(events.places)),
            "log_events": total,
        }

    def _describe_index(self, client: Client) -> dict[str, Any]:
        pattern = self._options.index
        indices = self._resolve(client, pattern, "index")
        index = indices.target(pattern)
        settings = field_settings(self._options)
        tiebreak = {self._options.tiebreak_field: "source.elasticsearch.tiebreak_field"}
        for name, setting in (settings | tiebreak).items():
            if name:
                field_types(client, index, name, setting=setting)
        fields = find_fields(client, index, settings)
        if self._options.scores_only and fields.computed:
            what = f"the index {pattern} computes {', '.join(fields.computed)}, which only a search returns"
            raise SourceError(f"{what}; set source.elasticsearch.scores_only = false")
        total, content = _content(client, index, {"match_all": {}})
        if not total:
            raise SourceError(f"the index {pattern} has no document")
        self._pinned, self._search = indices.uuids, self._search._replace(target=index, fields=fields)
        return {
            "index": pattern,
            "indices": dict(indices.uuids),
            "index_fingerprint": fingerprint(*_flat(indices.uuids), content),
            "documents": total,
            "query_fingerprint": fingerprint(
                json.dumps(self._search.body, sort_keys=True), *_unusual(fields)
            ),
        }

    def events(self) -> beam.PTransform:
        """PBegin -> PCollection[LogEvent | Rejected]; without what `log.filter` and the window exclude."""
        if self._events is None:
            self.describe()
        assert self._events is not None
        return ReadLog(self._events)

    def candidates(self, queries: Sequence[Query], *, top_k: int) -> list[list[Document] | Rejected]:
        """For each query its best documents, or Rejected (no_candidates, search_failed).

        Raises:
            SourceError: no connection, no access, or the index is gone or another one than at `describe`.
        """
        connection = connect(self._settings)
        documents = Fetcher(self._search, self._settings, connection).fetch(queries, top_k=top_k)
        if self._pinned:  # checked afterwards, to notice an index that was replaced meanwhile
            with_retries(
                lambda: self._check_pinned(connection.client),
                settings=self._settings,
                retries=self._options.max_retries,
            )
        return documents

    def _check_pinned(self, client: Client) -> None:
        uuids = dict(self._resolve(client, self._search.target, "index").uuids)
        for name, uuid in self._pinned:
            if uuids.get(name) != uuid:
                what = f"the index {name} was deleted or replaced during the run"
                raise SourceUnavailable(
                    f"{what}; run the night again, and build new indices beside the old ones"
                )

    def _resolve(self, client: Client, pattern: str, setting: str) -> Indices:
        response = client.indices.get_settings(index=pattern, flat_settings=True).body
        if not response:
            remedy = f"check source.elasticsearch.{setting}"
            raise SourceError(f"{self._settings.name} has no index that matches {pattern!r}; {remedy}")
        return Indices(
            tuple(sorted((name, index["settings"]["index.uuid"]) for name, index in response.items()))
        )

    def _log_query(self, client: Client, indices: Indices) -> LogQuery:
        fields, options = self._log.fields, self._options
        index = indices.target(options.log_index)
        field_types(client, index, fields.query, setting="log.fields.query")
        times = set()
        if fields.timestamp:
            times = field_types(client, index, fields.timestamp, setting="log.fields.timestamp")
        if times - _TIMES:
            kind = ", ".join(sorted(times))
            remedy = "map it as a date, or set log.fields.timestamp to a field that is one"
            raise SourceError(
                f"log.fields.timestamp = {fields.timestamp!r} is of type {kind}, not a time; {remedy}"
            )
        terms = {_exact(client, index, name): value for name, value in self._log.filter.items()}
        pinned = indices.names if index == options.log_index else []
        kinds = tuple(sorted(times))
        settings = {name: f"log.fields.{key}" for key, name in asdict(fields).items() if name}
        return LogQuery(
            settings=self._settings,
            target=index,
            uuids=indices.uuids,
            query=log_query(fields, window=self._window, time_types=kinds, terms=terms, indices=pinned),
            fields=fields,
            places=find_fields(
                client, index, settings, sorted_by=fields.timestamp, ordered=fields.impressions
            ),
            time_types=kinds,
            page_size=options.page_size,
            slices=options.slices,
            slice_field=options.slice_field,
            keep_alive=options.keep_alive,
            max_retries=options.max_retries,
        )


def _unusual(fields: Fields) -> list[str]:
    """Text that differs if values are read at other places than they are usually."""
    return [] if fields.usual else [repr(fields)]


def _flat(uuids: tuple[tuple[str, str], ...]) -> list[str]:
    return [part for pair in uuids for part in pair]


def _content(client: Client, index: str, query: Mapping[str, Any]) -> tuple[int, str]:
    """How many documents a query matches, and text that differs if their content differs."""
    per_index = {
        "terms": {"field": "_index", "size": 10_000},
        "aggs": {"seq": {"stats": {"field": "_seq_no"}}},
    }
    response = client.search(
        index=index,
        query=query,
        size=0,
        track_total_hits=True,
        allow_partial_search_results=False,
        aggs={"indices": per_index},
    ).body
    if missing := incomplete(response):
        raise SourceUnavailable(
            f"the index {index} cannot be read: {missing}; try again when the cluster is healthy"
        )
    content = [
        (bucket["key"], bucket["doc_count"], bucket["seq"]["sum"], bucket["seq"]["max"])
        for bucket in response["aggregations"]["indices"]["buckets"]
    ]
    return response["hits"]["total"]["value"], repr(sorted(content))


def _exact(client: Client, index: str, field: str) -> str:
    """The field with which to compare whole values: the field itself, or its keyword sub-field."""
    if field_types(client, index, field, setting="log.filter") <= _EXACT:
        return field
    keyword = f"{field}.keyword"
    if keyword in client.field_caps(index=index, fields=[keyword]).body["fields"]:
        return keyword
    raise SourceError(f"log.filter: {field!r} in {index} is analysed text; name a keyword field instead")
