"""AggregateQueries: from the events of a log to its distinct queries, by way of `rerank_core.querylog`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from rerank_core import querylog
from rerank_core.config import Log
from schemas.records import LogEvent, Query, Rejected

STAGE = "ReadQueryLog"  # of which this is a part
TALLIES = (
    "events_read",
    "events_outside_window",
    "events_rejected",
    "events_below_min_count",
    "events_kept",
    "queries_below_min_count",
)
"""Keys of `tallies`. Nothing was lost if read = outside_window + rejected + below_min_count + kept."""


class Aggregated(NamedTuple):
    """The three outputs of AggregateQueries."""

    queries: beam.PCollection
    rejected: beam.PCollection
    tallies: beam.PCollection


class AggregateQueries(beam.PTransform):
    """PCollection[LogEvent] -> Aggregated(queries, rejected, tallies).

    - `queries`: PCollection[Query], one a distinct normalised query with at least `log.min_count` events.
    - `rejected`: PCollection[Rejected]: bad_timestamp, empty_query, query_too_long.
    - `tallies`: PCollection[tuple[str, int]], each key of TALLIES exactly once, zeros included. They are
      data, not Beam's counters, which count an event again whenever its bundle is retried. `events_read` is
      counted apart from the others, so that their sum proves something.

    Args:
        log: `max_query_chars` and `min_count` are used; the window depends on the run's date, so it is given.
        window: [start, end) in UTC; None keeps every event, for a log without times.
    """

    def __init__(self, log: Log, *, window: querylog.Window | None) -> None:
        super().__init__()
        self._log, self._window = log, window

    def expand(self, events: beam.PCollection) -> Aggregated:
        screened = events | "Screen" >> beam.ParDo(
            _Screen(self._window, max_query_chars=self._log.max_query_chars)
        ).with_outputs("rejected", "tallies", main="accepted")
        whole = screened.accepted | "Merge" >> beam.CombinePerKey(_MergeEvents())
        kept = whole | "MinCount" >> beam.ParDo(_MinCount(self._log.min_count)).with_outputs(
            "tallies", main="queries"
        )
        read = events | "One" >> beam.Map(lambda _: ("events_read", 1))
        zeros = events.pipeline | "Zeros" >> beam.Create([(key, 0) for key in TALLIES])
        counted = (zeros, read, screened.tallies, kept.tallies) | beam.Flatten()
        tallies = counted | "Sum" >> beam.CombinePerKey(sum)
        return Aggregated(kept.queries, screened.rejected, tallies)


class _Screen(beam.DoFn):
    def __init__(self, window: querylog.Window | None, *, max_query_chars: int) -> None:
        super().__init__()
        self._window, self._max_query_chars = window, max_query_chars

    def process(self, event: LogEvent) -> Iterator[Any]:
        try:
            accepted = querylog.screen(event, window=self._window, max_query_chars=self._max_query_chars)
        except querylog.EventError as bad:
            rejected = Rejected(STAGE, "event", event.record, bad.reason, bad.detail)
            yield pvalue.TaggedOutput("rejected", rejected)
            yield pvalue.TaggedOutput("tallies", ("events_rejected", 1))
            return
        if accepted is None:
            yield pvalue.TaggedOutput("tallies", ("events_outside_window", 1))
        else:
            yield accepted.query_id, accepted


class _MergeEvents(beam.CombineFn):
    def create_accumulator(self) -> querylog.Tally:
        return querylog.empty_tally()

    def add_input(self, mutable_accumulator: querylog.Tally, element: querylog.Accepted) -> querylog.Tally:
        return querylog.accumulate(mutable_accumulator, element)

    def merge_accumulators(self, accumulators: Iterable[querylog.Tally]) -> querylog.Tally:
        return querylog.merge(accumulators)

    def extract_output(self, accumulator: querylog.Tally) -> Query:
        return querylog.finish(accumulator)


class _MinCount(beam.DoFn):
    def __init__(self, min_count: int) -> None:
        super().__init__()
        self._min_count = min_count

    def process(self, element: tuple[str, Query]) -> Iterator[Any]:
        query = element[1]
        if query.count >= self._min_count:
            yield query
            yield pvalue.TaggedOutput("tallies", ("events_kept", query.count))
        else:
            yield pvalue.TaggedOutput("tallies", ("queries_below_min_count", 1))
            yield pvalue.TaggedOutput("tallies", ("events_below_min_count", query.count))
