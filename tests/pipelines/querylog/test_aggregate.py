"""AggregateQueries on a real runner: what comes out, and that every event is accounted for."""

from __future__ import annotations

import datetime
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.querylog.aggregate import TALLIES, Aggregated, AggregateQueries
from rerank_core.config.source import Log, Privacy
from rerank_core.querylog.events import Window
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
    shown: tuple[str, ...] = (),
) -> LogEvent:
    return LogEvent(f"log.jsonl:{number}", at, query, user, clicks, shown)


def runner() -> Any:
    # By its full name: "DirectRunner" may stand for another runner on another machine.
    return beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner")


def aggregate(
    pipeline: Any,
    events: list[LogEvent],
    log: Log,
    *,
    window: Window | None = WINDOW,
    privacy: Privacy | None = None,
) -> Aggregated:
    # Typed as Any, as sources do: Create would type it by its first element, and an empty one not at all.
    created = pipeline | beam.Create(events).with_output_types(Any)
    out: Aggregated = created | AggregateQueries(log, window=window, privacy=privacy)
    return out


def test_events_become_queries_rejects_and_tallies() -> None:
    events = [
        event(1, "Who sang it?", user="u1", clicks=("d2",), shown=("d1", "d2")),
        event(2, "who  sang it", user="u2", clicks=("d1", "d2"), shown=("d2",)),
        event(3, "who sang it", user="u1", at="2026-03-02T09:00:00+00:00"),
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
                        Query(
                            query_id("who sang it"),
                            "who sang it",
                            count=3,
                            users=2,
                            clicks=(("d1", 1), ("d2", 2)),
                            click_positions=(0.0, 1.5),
                            first_seen="2026-03-02T09:00:00+00:00",
                            last_seen="2026-03-02T10:00:00+00:00",
                        ),
                    ),
                    (
                        Query,
                        tuple,
                        Query(
                            query_id("مرحبا"),
                            "مرحبا",
                            1,
                            0,
                            (),
                            (),
                            "2026-03-01T00:00:00+00:00",
                            "2026-03-01T00:00:00+00:00",
                        ),
                    ),
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
                    ("events_below_min_users", 0),
                    ("events_capped", 0),
                    ("events_kept", 4),
                    ("events_masked", 0),
                    ("events_clicking_all", 0),
                    ("queries_below_min_count", 0),
                    ("queries_below_min_users", 0),
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


@pytest.mark.parametrize(("min_users", "quoted"), [(1, True), (2, False)])
def test_a_long_query_of_one_user_is_quoted_only_where_such_queries_are_published(
    min_users: int, quoted: bool
) -> None:
    def check(rejected: list[Rejected]) -> None:
        (record,) = rejected
        assert ("secret" in record.detail) is quoted

    with runner() as pipeline:
        privacy = Privacy(min_users=min_users)
        out = aggregate(pipeline, [event(1, "secret " * 9)], Log(max_query_chars=30), privacy=privacy)
        assert_that(out.rejected, check)


def test_privacy_takes_its_share_and_counts_it() -> None:
    events = [
        *(event(n, "bot food", user="bot", clicks=("d",), at=f"2026-03-02T10:00:0{n}Z") for n in range(5)),
        event(10, "bot food", user="u1"),
        event(11, "mail a@b.com", user="u1"),
        event(12, "mail c@d.org", user="u2"),
        event(13, "my secret", user="u1"),
        event(14, "my secret", user="u1"),
        event(15, "nobody known"),
        event(16, "mail c@d.org", user="u2", at=""),
    ]
    with runner() as pipeline:
        # "bot food" keeps 2 events of the bot and 1 of u1
        out = aggregate(pipeline, events, Log(), privacy=Privacy(min_users=2, max_events_per_user=2))
        shown = out.queries | beam.Map(lambda q: (q.text, q.count, q.users, q.clicks, q.last_seen[11:19]))
        assert_that(
            shown,
            equal_to(
                [
                    ("bot food", 3, 2, (("d", 2),), "10:00:01"),
                    ("mail (email)", 2, 2, (), "10:00:00"),
                ]
            ),
            label="queries",
        )
        tallies = out.tallies | beam.Filter(lambda tally: tally[1])
        assert_that(
            tallies,
            equal_to(
                [
                    ("events_read", 12),
                    ("events_rejected", 1),
                    ("events_capped", 3),
                    ("events_below_min_users", 3),
                    ("events_kept", 5),
                    ("events_masked", 2),
                    ("queries_below_min_users", 2),
                ]
            ),
            label="tallies",
        )


def test_users_leave_the_first_step_as_hashes_of_a_key_of_this_run() -> None:
    from pipelines.querylog.aggregate import _Screen

    def names() -> list[str]:
        screen = _Screen(None, max_query_chars=99, privacy=Privacy(), keep_shown=False)
        return [key[1] for key, _ in screen.process(event(1, "q", user="alice"))]

    (first,), (second,) = names(), names()
    assert len(first) == 32
    assert "alice" not in first
    assert first != second
