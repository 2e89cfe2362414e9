"""AggregateQueries on a real runner: what comes out, and that every event is accounted for."""

from __future__ import annotations

import datetime
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.aggregate import TALLIES, Aggregated, AggregateQueries
from rerank_core.config import Log
from rerank_core.querylog import Window
from rerank_core.text import query_id
from schemas.records import LogEvent, Query, Rejected

WINDOW = (
    datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC),
    datetime.datetime(2026, 3, 3, tzinfo=datetime.UTC),
)


def event(
    number: int,
    query: str,
    *,
    at: str = "2026-03-02T10:00:00+00:00",
    user: str = "",
    clicks: tuple[str, ...] = (),
) -> LogEvent:
    return LogEvent(f"log.jsonl:{number}", at, query, user, clicks, ())


def runner() -> Any:
    # By its full name: "DirectRunner" may stand for another runner on another machine.
    return beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner")


def aggregate(
    pipeline: Any, events: list[LogEvent], log: Log, *, window: Window | None = WINDOW
) -> Aggregated:
    # Typed as Any, as sources do: Create would type it by its first element, and an empty one not at all.
    created = pipeline | beam.Create(events).with_output_types(Any)
    out: Aggregated = created | AggregateQueries(log, window=window)
    return out


def test_events_become_queries_rejects_and_tallies() -> None:
    events = [
        event(1, "Who sang it?", user="u1", clicks=("d2",)),
        event(2, "who  sang it", user="u2", clicks=("d1", "d2")),
        event(3, "who sang it", user="u1"),
        event(4, "مرحبا", at="2026-03-01T00:00:00+00:00"),
        event(5, "too early", at="2026-02-28T23:59:59+00:00"),
        event(6, "too late", at="2026-03-03T00:00:00+00:00"),
        event(7, "\x00\ud800 ?"),
        event(8, "x" * 31),
        event(9, "no time", at=""),
    ]
    with runner() as pipeline:
        out = aggregate(pipeline, events, Log(max_query_chars=30))
        # Behind a shuffle, where a coder could have turned records into other types.
        queries = (
            out.queries | beam.Reshuffle() | "Types" >> beam.Map(lambda q: (type(q), type(q.clicks[:1]), q))
        )
        reasons = out.rejected | beam.Map(lambda r: (r.stage, r.unit, r.record, r.reason))
        assert_that(
            queries,
            equal_to(
                [
                    (
                        Query,
                        tuple,
                        Query(query_id("who sang it"), "who sang it", 3, 2, (("d1", 1), ("d2", 2))),
                    ),
                    (Query, tuple, Query(query_id("مرحبا"), "مرحبا", 1, 0, ())),
                ]
            ),
            label="queries",
        )
        assert_that(
            reasons,
            equal_to(
                [
                    ("ReadQueryLog", "event", "log.jsonl:7", "empty_query"),
                    ("ReadQueryLog", "event", "log.jsonl:8", "query_too_long"),
                    ("ReadQueryLog", "event", "log.jsonl:9", "bad_timestamp"),
                ]
            ),
            label="rejected",
        )
        assert_that(
            out.tallies,
            equal_to(
                [
                    ("events_read", 9),
                    ("events_outside_window", 2),
                    ("events_rejected", 3),
                    ("events_below_min_count", 0),
                    ("events_kept", 4),
                    ("queries_below_min_count", 0),
                ]
            ),
            label="tallies",
        )


def test_rare_queries_are_dropped_and_counted() -> None:
    events = [event(n, query) for n, query in enumerate(["a", "A", "b", "c", "c", "c"], start=1)]
    with runner() as pipeline:
        out = aggregate(pipeline, events, Log(min_count=2))
        assert_that(out.queries | beam.Map(lambda q: (q.text, q.count)), equal_to([("A", 2), ("c", 3)]))
        tallies = out.tallies | beam.Filter(lambda tally: tally[1])
        assert_that(
            tallies,
            equal_to(
                [
                    ("events_read", 6),
                    ("events_below_min_count", 1),
                    ("queries_below_min_count", 1),
                    ("events_kept", 5),
                ]
            ),
            label="tallies",
        )


@pytest.mark.parametrize("window", [WINDOW, None])
def test_an_empty_log_has_zero_tallies(window: Window | None) -> None:
    with runner() as pipeline:
        out = aggregate(pipeline, [], Log(), window=window)
        assert_that(out.queries, equal_to([]), label="queries")
        assert_that(out.rejected, equal_to([]), label="rejected")
        assert_that(out.tallies, equal_to([(key, 0) for key in TALLIES]), label="tallies")


def test_without_a_window_every_event_counts() -> None:
    with runner() as pipeline:
        out = aggregate(pipeline, [event(1, "q", at=""), event(2, "q", at="1999-01-01")], Log(), window=None)
        assert_that(out.queries | beam.Map(lambda q: q.count), equal_to([2]))


def test_details_are_for_a_person() -> None:
    def check(rejected: list[Rejected]) -> None:
        (record,) = rejected
        assert "31 characters" in record.detail
        assert "log.max_query_chars" in record.detail

    with runner() as pipeline:
        out = aggregate(pipeline, [event(1, "x" * 31)], Log(max_query_chars=30))
        assert_that(out.rejected, check)
