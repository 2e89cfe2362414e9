"""One slice of a query log in Elasticsearch, page by page: every event exactly once, also when the cluster fails.

A point in time (PIT) freezes the log; each slice pages through it by time. A PIT can be lost: it expires, or its
node restarts. Then a new one is opened and the slice continues from the time of its last event, skipping the events of
that time that it has returned already. Three counts prove that nothing was lost: what a slice read under one PIT is
what Elasticsearch counted there; the slices together have as many events as the whole log; and a slice that changed
PITs has no fewer events than it had at first.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from elastic_transport import TransportError
from elasticsearch import ApiError

from pipelines.elasticsearch.client import Settings, classify_error, connect, incomplete
from pipelines.elasticsearch.fields import Fields
from pipelines.elasticsearch.retry import backoff
from rerank_core.config.source import LogFields
from rerank_core.errors import SourceError, SourceUnavailable

FORMAT = "strict_date_optional_time_nanos"
_MISSING = 1
# How `_MISSING` is returned: as a number, in milliseconds, in nanoseconds. No window holds it.
_UNTIMED = {_MISSING, "1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.000000001Z"}


class LogQuery(NamedTuple):
    """Which events are read, and how; picklable, without secrets."""

    settings: Settings
    target: str  # what PITs are opened on
    uuids: tuple[tuple[str, str], ...]  # (index, UUID) of what is read
    query: dict[str, Any]
    fields: LogFields
    places: Fields  # of the log's fields
    time_types: tuple[str, ...]  # the timestamp's types in the mappings; () for a log without times
    page_size: int
    slices: int
    slice_field: str
    keep_alive: str
    max_retries: int

    @property
    def dated(self) -> bool:
        """Whether times are dates, rather than numbers."""
        return "date" in self.time_types or "date_nanos" in self.time_types


class Slice(NamedTuple):
    """A share of the log, under the PIT that all slices start with."""

    number: int
    pit: str
    events: int  # of the whole log


class SliceCount(NamedTuple):
    """The counts of one slice."""

    number: int
    pit: str
    events: int  # of the whole log, under the first PIT
    first: int  # of the slice, under the first PIT
    read: int
    renewed: int  # PITs that replaced a lost one


class LostContext(Exception):
    """The point in time is gone, or no longer returns complete pages."""


class PitReader:
    """Requests about the log, each retried until its response is complete."""

    def __init__(self, log: LogQuery) -> None:
        self.log, self._random = log, random.Random()
        self._client = connect(log.settings).client

    def open_pit(self) -> str:
        """A new point in time over the indices that the run started with."""
        opened = self._repeat(
            lambda: self._client.open_point_in_time(index=self.log.target, keep_alive=self.log.keep_alive)
        )
        settings = self._repeat(
            lambda: self._client.indices.get_settings(index=self.log.target, flat_settings=True)
        )
        uuids = {name: index["settings"]["index.uuid"] for name, index in settings.items()}
        for name, uuid in self.log.uuids:
            if uuids.get(name) != uuid:
                what = f"the log index {name} was deleted or replaced during the run"
                raise SourceUnavailable(f"{what}; run the night again")
        return str(opened["id"])

    def open_and_count(self) -> tuple[str, int]:
        """A new point in time, and the number of events under it."""
        for attempt in range(1, self.log.max_retries + 2):
            pit = self.open_pit()
            try:
                response = self.search(pit, {"size": 0, "track_total_hits": True, "query": self.log.query})
                return response.get("pit_id", pit), response["hits"]["total"]["value"]
            except LostContext as lost:
                self.wait(attempt, lost)
        raise AssertionError("wait() raises after the last attempt")

    def close_pit(self, pit: str) -> None:
        """Free the cluster's resources; otherwise the PIT expires after keep_alive."""
        with contextlib.suppress(ApiError, TransportError):
            self._client.close_point_in_time(id=pit)

    def search(self, pit: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One complete page under a PIT.

        Raises:
            LostContext: the PIT is gone, or one of its shards is.
        """
        point = {"id": pit, "keep_alive": self.log.keep_alive}
        response = self._repeat(
            lambda: self._client.search(pit=point, allow_partial_search_results=False, **body), under_pit=True
        )
        if missing := incomplete(response):
            raise LostContext(missing)
        return response

    def wait(self, attempt: int, error: object) -> None:
        """Wait before attempt number `attempt` + 1.

        Raises:
            SourceUnavailable: there were max_retries retries already.
        """
        if attempt > self.log.max_retries:
            tries = f"{attempt} attempts, source.elasticsearch.max_retries = {self.log.max_retries}"
            raise SourceUnavailable(f"the query log {self.log.target} cannot be read: {error} ({tries})")
        time.sleep(backoff(attempt, random_share=self._random.random()))

    def _repeat(self, send: Callable[[], Any], *, under_pit: bool = False) -> dict[str, Any]:
        attempt = 0
        while True:
            try:
                body: dict[str, Any] = send().body
                return body
            except (ApiError, TransportError) as error:
                failure = classify_error(error, settings=self.log.settings)
            if failure.kind == "lost_context" or (under_pit and failure.kind == "failed"):
                raise LostContext(failure.detail)
            if failure.kind == "refused":
                raise SourceError(f"the query log {self.log.target} cannot be read: {failure.detail}")
            attempt += 1
            self.wait(attempt, failure.detail)


class SliceReader(PitReader):
    """Pages of one slice, under as many points in time as it takes."""

    def __init__(self, part: Slice, log: LogQuery) -> None:
        super().__init__(log)
        self._part, self._pit, self._query = part, part.pit, log.query
        self._last: Any = None  # time of the last event returned; None for a log without times
        self._seen: set[tuple[str, str]] = set()  # events of that time that were returned
        self._after: list[Any] | None = None  # search_after of the next page under this PIT
        self._expected, self._received = 0, 0  # events under this PIT
        self._first: int | None = None
        self._read = self._renewed = self._losses = 0

    def next_page(self) -> list[dict[str, Any]]:
        """The next events, none twice; [] after the last one."""
        while self._after is None or self._received < self._expected:
            try:
                hits = self._page()
            except LostContext as lost:
                self._renew(lost)
                continue
            # One PIT returns nothing twice; the next one starts at the time at which the one before it was lost.
            new = [hit for hit in hits if _key(hit) not in self._seen] if self._renewed else hits
            self._remember(new)
            if new:
                return new
            if not hits:
                break
        if self._received != self._expected:
            what = f"slice {self._part.number} of the log {self.log.target} returned {self._received} events"
            raise SourceUnavailable(f"{what}, but Elasticsearch counts {self._expected}; run the night again")
        return []

    def count(self) -> SliceCount:
        """The counts of this slice."""
        part = self._part
        return SliceCount(part.number, part.pit, part.events, self._first or 0, self._read, self._renewed)

    def _page(self) -> list[dict[str, Any]]:
        log, first_page = self.log, self._after is None
        body: dict[str, Any] = {
            "query": self._query,
            "size": log.page_size,
            "source": log.places.source,
            "sort": [*_by_time(log), {"_shard_doc": "asc"}],
            "track_total_hits": first_page,
        }
        wanted = {"stored_fields": log.places.stored, "fields": log.places.computed}
        body |= {key: names for key, names in wanted.items() if names}
        if log.slices > 1:
            body["slice"] = {"field": log.slice_field, "id": self._part.number, "max": log.slices}
        if self._after:
            body["search_after"] = self._after
        response = self.search(self._pit, body)
        self._pit, self._losses = response.get("pit_id", self._pit), 0
        hits: list[dict[str, Any]] = response["hits"]["hits"]
        if first_page:
            self._expected, self._received = response["hits"]["total"]["value"], 0
            self._first = self._expected if self._first is None else self._first
        self._after = hits[-1]["sort"] if hits else []
        self._received += len(hits)
        return hits

    def _remember(self, new: list[dict[str, Any]]) -> None:
        self._read += len(new)
        if not new:
            return
        if self.log.time_types and new[-1]["sort"][0] != self._last:
            self._last, self._seen = new[-1]["sort"][0], set()
        self._seen.update(_key(hit) for hit in new if not self.log.time_types or hit["sort"][0] == self._last)

    def _renew(self, lost: LostContext) -> None:
        """Continue under a new PIT, from the time of the last event: others of that time may not have been read yet."""
        self._losses += 1
        self.wait(self._losses, lost)
        self._pit, self._after = self.open_pit(), None
        self._renewed += 1
        if self._last is not None and not untimed(self._last):  # those without a time come first
            since = {"gte": self._last} | ({"format": FORMAT} if self.log.dated else {})
            self._query = {
                "bool": {"filter": [self.log.query, {"range": {self.log.fields.timestamp: since}}]}
            }


def _key(hit: Mapping[str, Any]) -> tuple[str, str]:
    return hit["_index"], hit["_id"]


def untimed(time: Any) -> bool:
    """Whether a time in a hit's `sort` stands for none: the event has no time, or one that was not understood."""
    return time is None or time in _UNTIMED


def _by_time(log: LogQuery) -> list[dict[str, Any]]:
    if not log.time_types:
        return []
    # By default the missing come last, with a value that is refused as a `search_after`.
    order: dict[str, Any] = {"order": "asc", "unmapped_type": log.time_types[0], "missing": _MISSING}
    if log.dated:
        order["format"] = FORMAT
    if len(log.time_types) > 1:
        order["numeric_type"] = "date_nanos" if log.dated else "double"
    return [{log.fields.timestamp: order}]
