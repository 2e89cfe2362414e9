"""AggregateQueries: `rerank_core.querylog.aggregate` on Beam, from the events of a log to its distinct queries."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from rerank_core.config.source import Log, Privacy
from rerank_core.querylog import aggregate
from rerank_core.querylog.aggregate import UserEvents
from rerank_core.querylog.events import Accepted, EventError, Window, screen
from schemas.records import LogEvent, Query, Rejected

STAGE = "ReadQueryLog"  # to which these records and tallies belong
TALLIES = (
    "events_read",
    "events_outside_window",
    "events_rejected",
    "events_below_min_count",
    "events_below_min_users",
    "events_capped",
    "events_kept",
    "events_masked",
    "events_clicking_all",
    "queries_below_min_count",
    "queries_below_min_users",
)
"""Keys of `tallies`. No event was lost if
read = outside_window + rejected + capped + below_min_count + below_min_users + kept.
"""


class Aggregated(NamedTuple):
    """The three outputs of AggregateQueries."""

    queries: beam.PCollection
    rejected: beam.PCollection
    tallies: beam.PCollection


class AggregateQueries(beam.PTransform):
    """PCollection[LogEvent] -> Aggregated(queries, rejected, tallies).

    - `queries`: PCollection[Query], the distinct normalised queries with at least `log.min_count` events of at
      least `privacy.min_users` users; no user counts more than `privacy.max_events_per_user` times.
    - `rejected`: PCollection[Rejected]: bad_timestamp, empty_query, query_too_long.
    - `tallies`: PCollection[tuple[str, int]], each key of TALLIES exactly once, zeros included. They are
      data, not Beam's counters, which count an event again whenever its bundle is retried. `events_read` is
      counted apart from the others, so that their sum proves something.

    Users are replaced by a keyed hash before any shuffle. The key is drawn anew for every run and written nowhere, so
    the users of two nights cannot be joined, not even by who runs them.

    Args:
        log: `max_query_chars` and `min_count` are used.
        window: [start, end) in UTC; None keeps every event, for a log without times.
        privacy: thresholds on users, and whether queries are masked.
        keep_shown: whether queries hold which documents were shown at which rank, for DebiasClicks.
    """

    def __init__(
        self,
        log: Log,
        *,
        window: Window | None,
        privacy: Privacy | None = None,
        keep_shown: bool = False,
    ) -> None:
        super().__init__()
        self._log, self._window, self._privacy = log, window, privacy or Privacy()
        self._keep_shown = keep_shown

    def expand(self, events: beam.PCollection) -> Aggregated:
        screened = events | "Screen" >> beam.ParDo(
            _Screen(
                self._window,
                max_query_chars=self._log.max_query_chars,
                privacy=self._privacy,
                keep_shown=self._keep_shown,
            )
        ).with_outputs("rejected", "tallies", "anonymous", main="known")
        # By user first: a popular query is spread over as many keys as it has users, and distinct users are counted
        # exactly without a set that grows with them.
        capped = (
            screened.known
            | "CapUser" >> beam.CombinePerKey(_CapUser(self._privacy.max_events_per_user))
            | "Capped" >> beam.ParDo(_Capped()).with_outputs("tallies", main="events")
        )
        whole = (
            (capped.events, screened.anonymous)
            | "OfAllUsers" >> beam.Flatten()
            | "Merge" >> beam.CombinePerKey(_MergeEvents())
        )
        kept = whole | "Thresholds" >> beam.ParDo(
            _Thresholds(self._log.min_count, min_users=self._privacy.min_users)
        ).with_outputs("tallies", main="queries")
        read = events | "One" >> beam.Map(lambda _: ("events_read", 1))
        zeros = events.pipeline | "Zeros" >> beam.Create([(key, 0) for key in TALLIES], reshuffle=False)
        counted = (zeros, read, screened.tallies, capped.tallies, kept.tallies) | beam.Flatten()
        tallies = counted | "Sum" >> beam.CombinePerKey(sum)
        return Aggregated(kept.queries, screened.rejected, tallies)


class _Screen(beam.DoFn):
    """LogEvent -> ((query_id, user), UserEvents) if the user is known, else (query_id, events) as "anonymous"."""

    def __init__(
        self,
        window: Window | None,
        *,
        max_query_chars: int,
        privacy: Privacy,
        keep_shown: bool,
    ) -> None:
        super().__init__()
        self._screen = functools.partial(
            screen,
            window=window,
            max_query_chars=max_query_chars,
            privacy=privacy,
            keep_shown=keep_shown,
            salt=secrets.token_bytes(16),  # drawn once, on the driver: all workers get the same
        )

    def process(self, event: LogEvent) -> Iterator[Any]:
        try:
            accepted = self._screen(event)
        except EventError as error:
            rejected = Rejected(STAGE, "event", event.record, error.reason, error.detail)
            yield pvalue.TaggedOutput("rejected", rejected)
            yield pvalue.TaggedOutput("tallies", ("events_rejected", 1))
            return
        if accepted is None:
            yield pvalue.TaggedOutput("tallies", ("events_outside_window", 1))
            return
        if accepted.masked:
            yield pvalue.TaggedOutput("tallies", ("events_masked", 1))
        if accepted.clicks_all:
            yield pvalue.TaggedOutput("tallies", ("events_clicking_all", 1))
        if accepted.user:
            yield (accepted.query_id, accepted.user), UserEvents((accepted,), 0)
        else:
            yield pvalue.TaggedOutput("anonymous", (accepted.query_id, (accepted,)))


class _CapUser(beam.CombineFn):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def create_accumulator(self) -> UserEvents:
        return UserEvents((), 0)

    def add_input(self, mutable_accumulator: UserEvents, element: UserEvents) -> UserEvents:
        return aggregate.cap_user([mutable_accumulator, element], limit=self._limit)

    def merge_accumulators(self, accumulators: Iterable[UserEvents]) -> UserEvents:
        return aggregate.cap_user(accumulators, limit=self._limit)

    def extract_output(self, accumulator: UserEvents) -> UserEvents:
        return accumulator


class _Capped(beam.DoFn):
    def process(self, element: tuple[tuple[str, str], UserEvents]) -> Iterator[Any]:
        (query_id, _), (kept, capped) = element
        yield query_id, kept
        if capped:
            yield pvalue.TaggedOutput("tallies", ("events_capped", capped))


class _MergeEvents(beam.CombineFn):
    def create_accumulator(self) -> aggregate.Tally:
        return aggregate.empty_tally()

    def add_input(
        self, mutable_accumulator: aggregate.Tally, element: tuple[Accepted, ...]
    ) -> aggregate.Tally:
        return aggregate.accumulate(mutable_accumulator, element)

    def merge_accumulators(self, accumulators: Iterable[aggregate.Tally]) -> aggregate.Tally:
        return aggregate.merge(accumulators)

    def extract_output(self, accumulator: aggregate.Tally) -> Query:
        return aggregate.finish(accumulator)


class _Thresholds(beam.DoFn):
    def __init__(self, min_count: int, *, min_users: int) -> None:
        super().__init__()
        self._min_count, self._min_users = min_count, min_users

    def process(self, element: tuple[str, Query]) -> Iterator[Any]:
        query = element[1]
        if query.count < self._min_count:
            yield from _dropped(query, "below_min_count")
        elif self._min_users > 1 and query.users < self._min_users:
            yield from _dropped(query, "below_min_users")
        else:
            yield query
            yield pvalue.TaggedOutput("tallies", ("events_kept", query.count))


def _dropped(query: Query, why: str) -> Iterator[Any]:
    yield pvalue.TaggedOutput("tallies", (f"queries_{why}", 1))
    yield pvalue.TaggedOutput("tallies", (f"events_{why}", query.count))
