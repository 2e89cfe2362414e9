"""A query log in Elasticsearch as a Beam source: its slices are distributed among the workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from pipelines.elasticsearch.pit import FORMAT, LogQuery, PitReader, Slice, SliceCount, SliceReader, untimed
from rerank_core.config.source import LogFields
from rerank_core.errors import SourceUnavailable
from rerank_core.querylog.events import EventError, Window, parse_event
from rerank_core.querylog.privacy import shown
from rerank_core.text import utf8
from rerank_core.values import EPOCH_UNITS
from schemas.records import LogEvent, Rejected


def log_query(
    fields: LogFields,
    *,
    window: Window | None,
    time_types: tuple[str, ...],
    terms: Mapping[str, str],
    indices: list[str],
) -> dict[str, Any]:
    """The filter of a log: the window as a range of time, the configured terms, the indices.

    An event without a time that Elasticsearch understands is in no window, and is read to be rejected.
    """
    filters: list[dict[str, Any]] = [{"term": {name: value}} for name, value in sorted(terms.items())]
    if window is not None and time_types:
        spans = _spans(fields.timestamp, *window, kind=time_types[0])
        without = {"bool": {"must_not": {"exists": {"field": fields.timestamp}}}}
        filters.append({"bool": {"should": [*spans, without], "minimum_should_match": 1}})
    if indices:
        filters.append({"terms": {"_index": indices}})
    return {"bool": {"filter": filters}} if filters else {"match_all": {}}


def _spans(field: str, start: Any, end: Any, *, kind: str) -> list[dict[str, Any]]:
    if kind.startswith("date"):
        return [{"range": {field: {"gte": start.isoformat(), "lt": end.isoformat(), "format": FORMAT}}}]
    # An integer field cannot hold more than milliseconds, and is not asked about what it cannot hold.
    units = list(EPOCH_UNITS.values())[: 2 if kind == "integer" else None]
    first, last = int(start.timestamp()), int(end.timestamp())
    return [{"range": {field: {"gte": first * unit, "lt": last * unit}}} for unit in units]


def open_slices(_: Any, log: LogQuery) -> Iterator[Slice]:
    """Open the PIT that the slices start with, and count the log's events under it."""
    pit, events = PitReader(log).open_and_count()
    yield from (Slice(number, pit, events) for number in range(log.slices))


def read_slice(part: Slice, log: LogQuery) -> Iterator[LogEvent | Rejected | SliceCount]:
    """The events of one slice, then its counts.

    The next page is fetched while this one is processed. Memory: two pages, and the ids of the events of one time (of
    the whole slice if the log has no times).

    Raises:
        SourceError: the cluster does not respond, or a count is wrong.
    """
    reader = SliceReader(part, log)
    with ThreadPoolExecutor(1, thread_name_prefix="pages") as ahead:
        page: Future[list[dict[str, Any]]] = ahead.submit(reader.next_page)
        while hits := page.result():
            page = ahead.submit(reader.next_page)
            for hit in hits:
                yield to_event(hit, log)
    yield reader.count()


def to_event(hit: dict[str, Any], log: LogQuery) -> LogEvent | Rejected:
    """A hit as an event; its record is "index/id"."""
    record = utf8(f"{hit['_index']}/{hit['_id']}")
    try:
        if hit.get("_source") is None and log.places.source:
            raise EventError(
                "no_source", "the index stores no _source for this event; reindex the log with it"
            )
        return parse_event(_raw(hit, log), log.fields, record=record)
    except EventError as bad:
        return Rejected("ReadQueryLog", "event", record, bad.reason, bad.detail)


def _raw(hit: dict[str, Any], log: LogQuery) -> dict[str, Any]:
    """The event as a file log has it: to Elasticsearch a value and a list of it are the same, as are 7 and "7"."""
    fields, values = log.fields, log.places.values
    raw: dict[str, Any] = {name: _one(values(hit, name)) for name in (fields.query, fields.user) if name}
    if fields.clicks:
        raw[fields.clicks] = values(hit, fields.clicks) or None
    if fields.impressions:  # a null has a rank too
        impressions = values(hit, fields.impressions, nulls=True)
        raw[fields.impressions] = None if all(doc_id is None for doc_id in impressions) else impressions
    if isinstance(raw[fields.query], int) and not isinstance(raw[fields.query], bool):
        raw[fields.query] = str(raw[fields.query])
    if log.time_types:
        raw[fields.timestamp] = _time(hit, log)
    return raw


def _one(values: list[Any]) -> Any:
    """The only value; a list of several, which are not one."""
    return values if len(values) > 1 else values[0] if values else None


def _time(hit: dict[str, Any], log: LogQuery) -> Any:
    """The time as Elasticsearch parsed it, whatever the log's format.

    Raises:
        EventError: there is none, or several.
    """
    name, time = log.fields.timestamp, hit["sort"][0]
    given = log.places.values(hit, name)
    if untimed(time):
        what = f"is {shown(_one(given))}" if given else "has no value"
        remedy = "the index has no time for the event: send one that its mapping accepts"
        raise EventError("bad_timestamp", f"'{name}' {what}; {remedy}")
    if len(given) > 1 and any(value != given[0] for value in given):
        raise EventError("bad_timestamp", f"'{name}' holds {len(given)} times; an event has one")
    return time


def check_counts(counts: list[SliceCount]) -> None:
    """Check that the slices together are the log.

    Raises:
        SourceUnavailable: they are not.
    """
    if not counts:
        raise SourceUnavailable(
            "the query log was not read: no slice reported its counts; run the night again"
        )
    read, events = sum(count.read for count in counts), counts[0].events
    renewed = sum(count.renewed for count in counts)
    if read < events or (read > events and not renewed):  # a new PIT has later events too
        what = (
            f"{len(counts)} slices have {read} events, the whole log {events}, {renewed} points in time lost"
        )
        raise SourceUnavailable(f"{what}: events were lost, or deleted during the run; run the night again")


class ReadLog(beam.PTransform):
    """PBegin -> PCollection[LogEvent | Rejected]."""

    def __init__(self, log: LogQuery) -> None:
        super().__init__()
        self._log = log

    def expand(self, begin: beam.Pipeline) -> beam.PCollection:
        slices = (
            begin
            | "Start" >> beam.Create([None])
            | "OpenSlices" >> beam.FlatMap(open_slices, self._log)
            | "SpreadSlices" >> beam.Reshuffle()
        )
        read = slices | "ReadSlice" >> beam.ParDo(_ReadSlice(self._log)).with_outputs("counts", main="events")
        counts = read.counts | "AllCounts" >> beam.combiners.ToList()
        _ = counts | "CheckCounts" >> beam.Map(_check_and_close, self._log)
        return read.events


class _ReadSlice(beam.DoFn):
    def __init__(self, log: LogQuery) -> None:
        super().__init__()
        self._log = log

    # Any, so that rows are pickled: a lone surrogate in a query does not survive the coder of a typed row.
    def process(self, element: Slice) -> Iterator[Any]:
        for record in read_slice(element, self._log):
            yield pvalue.TaggedOutput("counts", record) if isinstance(record, SliceCount) else record


def _check_and_close(counts: list[SliceCount], log: LogQuery) -> None:
    check_counts(counts)
    PitReader(log).close_pit(counts[0].pit)
