"""One slice of a query log in Elasticsearch, page by page, every event once whatever happens to the cluster.

A point in time (PIT) freezes the log; each slice pages through it by time. A PIT can be lost: it expires, or its
node restarts. Then a new one is opened and the slice goes on from the last time it saw, passing over the events of
that very moment that it has given out already. Three counts prove that nothing was lost: what a slice read under
one PIT is what Elasticsearch counted there; the slices together hold what the whole log holds; and a slice that
changed PITs holds no less than it did at first.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from elastic_transport import TransportError
from elasticsearch import ApiError

from pipelines.elasticsearch.client import Settings, connect, incomplete, trouble
from pipelines.elasticsearch.retry import backoff
from rerank_core.config.night import LogFields
from rerank_core.errors import SourceError

FORMAT = "strict_date_optional_time_nanos"


class LogQuery(NamedTuple):
    """Which events are read and how; picklable, without secrets."""

    settings: Settings
    target: str  # what PITs are opened on
    uuids: tuple[tuple[str, str], ...]  # (index, UUID) of what is read
    query: dict[str, Any]
    fields: LogFields
    source_fields: tuple[str, ...]
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

    @property
    def nested(self) -> bool:
        """Whether a field is the inner one of another."""
        return "." in "".join(self.source_fields)


class Slice(NamedTuple):
    """A share of the log, under the PIT that all slices start with."""

    number: int
    pit: str
    events: int  # of the whole log


class SliceCount(NamedTuple):
    """What one slice came to."""

    number: int
    pit: str
    events: int  # of the whole log, under the first PIT
    first: int  # of the slice, when it started
    read: int
    renewed: int  # PITs opened in place of a lost one


class LostContext(Exception):
    """The point in time is gone, or does not give whole pages any more."""


class PitReader:
    """Requests about the log, each repeated until it is answered in full."""

    def __init__(self, log: LogQuery) -> None:
        self.log, self._random = log, random.Random()
        self._client = connect(log.settings).client

    def open_pit(self) -> str:
        """A new point in time over the indices that the run started with."""
        opened = self._repeat(
            lambda: self._client.open_point_in_time(index=self.log.target, keep_alive=self.log.keep_alive)
        )
        held = self._repeat(
            lambda: self._client.indices.get_settings(index=self.log.target, flat_settings=True)
        )
        found = {name: one["settings"]["index.uuid"] for name, one in held.items()}
        for name, uuid in self.log.uuids:
            if found.get(name) != uuid:
                what = f"the log index {name} was deleted or replaced during the run"
                raise SourceError(f"{what}; run the night again")
        return str(opened["id"])

    def open_and_count(self) -> tuple[str, int]:
        """A new point in time, and the number of events under it."""
        for attempt in range(1, self.log.max_retries + 2):
            pit = self.open_pit()
            try:
                answer = self.search(pit, {"size": 0, "track_total_hits": True, "query": self.log.query})
                return answer.get("pit_id", pit), answer["hits"]["total"]["value"]
            except LostContext as lost:
                self.rest(attempt, lost)
        raise AssertionError("rest() raises after the last attempt")

    def close_pit(self, pit: str) -> None:
        """Free what the cluster holds for it; it would end by itself after keep_alive."""
        with contextlib.suppress(ApiError, TransportError):  # lost already, or soon
            self._client.close_point_in_time(id=pit)

    def search(self, pit: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One page under a PIT, whole.

        Raises:
            LostContext: the PIT is gone, or one of its shards is.
        """
        keep = {"id": pit, "keep_alive": self.log.keep_alive}
        answer = self._repeat(
            lambda: self._client.search(pit=keep, allow_partial_search_results=False, **body), under_pit=True
        )
        if missing := incomplete(answer):
            raise LostContext(missing)
        return answer

    def rest(self, attempt: int, error: object) -> None:
        """Wait before attempt number `attempt` + 1.

        Raises:
            SourceError: that would be one too many.
        """
        if attempt > self.log.max_retries:
            tries = f"{attempt} attempts, source.elasticsearch.max_retries = {self.log.max_retries}"
            raise SourceError(f"the query log {self.log.target} cannot be read: {error} ({tries})")
        time.sleep(backoff(attempt, random_share=self._random.random()))

    def _repeat(self, send: Callable[[], Any], *, under_pit: bool = False) -> dict[str, Any]:
        attempt = 0
        while True:
            try:
                body: dict[str, Any] = send().body
                return body
            except (ApiError, TransportError) as error:
                found = trouble(error, settings=self.log.settings)
            if found.kind == "lost_context" or (under_pit and found.kind == "failed"):
                raise LostContext(found.detail)
            if found.kind == "refused":
                raise SourceError(f"the query log {self.log.target} cannot be read: {found.detail}")
            attempt += 1
            self.rest(attempt, found.detail)


class SliceReader(PitReader):
    """Pages of one slice, over as many points in time as it takes."""

    def __init__(self, part: Slice, log: LogQuery) -> None:
        super().__init__(log)
        self._part, self._pit, self._query = part, part.pit, log.query
        self._last: Any = None  # time of the last event given out; stays None for a log without times
        self._seen: set[tuple[str, str]] = set()  # the events of that very time that were given out
        self._after: list[Any] | None = None  # where to go on under this PIT
        self._expected, self._found = 0, 0  # under this PIT
        self._first: int | None = None
        self._read = self._renewed = self._losses = 0

    def next_page(self) -> list[dict[str, Any]]:
        """The next events, none of them twice; [] at the end."""
        while self._after is None or self._found < self._expected:
            try:
                hits = self._page()
            except LostContext as lost:
                self._renew(lost)
                continue
            # One PIT gives nothing twice; a later one starts at the moment where the one before it was lost.
            fresh = [hit for hit in hits if _place(hit) not in self._seen] if self._renewed else hits
            self._remember(fresh)
            if fresh:
                return fresh
            if not hits:
                break
        if self._found != self._expected:
            what = f"slice {self._part.number} of the log {self.log.target} gave {self._found} events"
            raise SourceError(f"{what}, and Elasticsearch counts {self._expected}; run the night again")
        return []

    def count(self) -> SliceCount:
        """What this slice came to."""
        part = self._part
        return SliceCount(part.number, part.pit, part.events, self._first or 0, self._read, self._renewed)

    def _page(self) -> list[dict[str, Any]]:
        log, starts = self.log, self._after is None
        body: dict[str, Any] = {
            "query": self._query,
            "size": log.page_size,
            "source": list(log.source_fields),
            "sort": [*_by_time(log), {"_shard_doc": "asc"}],
            "track_total_hits": starts,
        }
        if log.slices > 1:
            body["slice"] = {"field": log.slice_field, "id": self._part.number, "max": log.slices}
        if self._after:
            body["search_after"] = self._after
        answer = self.search(self._pit, body)
        self._pit, self._losses = answer.get("pit_id", self._pit), 0
        hits: list[dict[str, Any]] = answer["hits"]["hits"]
        if starts:
            self._expected, self._found = answer["hits"]["total"]["value"], 0
            self._first = self._expected if self._first is None else self._first
        self._after = hits[-1]["sort"] if hits else []
        self._found += len(hits)
        return hits

    def _remember(self, fresh: list[dict[str, Any]]) -> None:
        self._read += len(fresh)
        if not fresh:
            return
        if self.log.time_types and fresh[-1]["sort"][0] != self._last:
            self._last, self._seen = fresh[-1]["sort"][0], set()
        self._seen.update(
            _place(hit) for hit in fresh if not self.log.time_types or hit["sort"][0] == self._last
        )

    def _renew(self, lost: LostContext) -> None:
        """Go on under a new PIT, from the moment of the last event: its others may not have been given out yet."""
        self._losses += 1
        self.rest(self._losses, lost)
        self._pit, self._after = self.open_pit(), None
        self._renewed += 1
        if self._last is not None:
            since = {"gte": self._last} | ({"format": FORMAT} if self.log.dated else {})
            self._query = {
                "bool": {"filter": [self.log.query, {"range": {self.log.fields.timestamp: since}}]}
            }


def _place(hit: Mapping[str, Any]) -> tuple[str, str]:
    return hit["_index"], hit["_id"]


def _by_time(log: LogQuery) -> list[dict[str, Any]]:
    if not log.time_types:
        return []
    order: dict[str, Any] = {"order": "asc", "unmapped_type": log.time_types[0]}
    if log.dated:
        order["format"] = FORMAT
    if len(log.time_types) > 1:
        order["numeric_type"] = "date_nanos" if log.dated else "double"
    return [{log.fields.timestamp: order}]
