"""The query log: what an event may look like, and that folding does not depend on order or grouping."""

from __future__ import annotations

import datetime
import functools
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.night import LogFields
from rerank_core.querylog.aggregate import Tally, UserEvents, accumulate, cap_user, empty_tally, finish, merge
from rerank_core.querylog.events import Accepted, EventError, parse_event, screen, utc_timestamp, wanted
from rerank_core.querylog.privacy import hash_user
from rerank_core.text import query_id
from schemas.records import LogEvent, Query, ShownAtRank

FIELDS = LogFields()
NO_FIELDS = LogFields(timestamp="", user="", clicks="", impressions="")
TIME = "2026-03-02T10:00:00+00:00"


def day(number: int) -> datetime.datetime:
    return datetime.datetime(2026, 3, number, tzinfo=datetime.UTC)


def event(query: str, *, timestamp: str = TIME) -> LogEvent:
    return LogEvent("log.jsonl:1", timestamp, query, "u", ("d1",), ())


# --- parse_event


def test_an_event_is_read_by_the_configured_names() -> None:
    raw = {
        "at": "2026-03-02T11:00:00+01:00",
        "q": "why  is the sky blue?",
        "who": "u1",
        "hits": ["d1"],
        "x": 1,
    }
    fields = LogFields(timestamp="at", query="q", user="who", clicks="hits", impressions="shown")
    assert parse_event(raw, fields, record="log.jsonl:3") == LogEvent(
        "log.jsonl:3", TIME, "why  is the sky blue?", "u1", ("d1",), ()
    )


def test_columns_that_the_log_has_not_are_not_read() -> None:
    raw = {"query": "q", "timestamp": "yesterday", "user": {}, "clicks": 5, "impressions": 5}
    assert parse_event(raw, NO_FIELDS, record="r") == LogEvent("r", "", "q", "", (), ())


def test_integers_serve_as_ids() -> None:
    raw = {"query": "q", "timestamp": TIME, "user": 17, "clicks": [1, "d2"], "impressions": None}
    parsed = parse_event(raw, FIELDS, record="r")
    assert (parsed.user, parsed.clicks, parsed.impressions) == ("17", ("1", "d2"), ())


def test_lone_surrogates_stay_in_the_query_alone() -> None:
    raw = {"query": "a\ud800b", "timestamp": TIME, "user": "u\ud800", "clicks": ["d\udfff"]}
    parsed = parse_event(raw, FIELDS, record="r")
    assert (parsed.query, parsed.user, parsed.clicks) == ("a\ud800b", "u", ("d",))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (["query"], "not_an_object"),
        ("query", "not_an_object"),
        (None, "not_an_object"),
        ({}, "missing_query"),
        ({"query": None}, "missing_query"),
        ({"query": 7}, "query_not_text"),
        ({"query": ["a"]}, "query_not_text"),
        ({"query": "q"}, "bad_timestamp"),
        ({"query": "q", "timestamp": "soon"}, "bad_timestamp"),
        ({"query": "q", "timestamp": True}, "bad_timestamp"),
        ({"query": "q", "timestamp": 1e300}, "bad_timestamp"),
        ({"query": "q", "timestamp": float("nan")}, "bad_timestamp"),
        ({"query": "q", "timestamp": "0001-01-01T00:00:00+05:00"}, "bad_timestamp"),
        ({"query": "q", "timestamp": TIME, "user": ["u"]}, "bad_user"),
        ({"query": "q", "timestamp": TIME, "clicks": "d1"}, "bad_clicks"),
        ({"query": "q", "timestamp": TIME, "clicks": [{"doc": "d1"}]}, "bad_clicks"),
        ({"query": "q", "timestamp": TIME, "impressions": [1.5]}, "bad_impressions"),
    ],
)
def test_what_is_wrong_is_named(raw: Any, reason: str) -> None:
    with pytest.raises(EventError) as caught:
        parse_event(raw, FIELDS, record="r")
    assert caught.value.reason == reason
    assert caught.value.detail


@pytest.mark.parametrize(
    "raw",
    [
        ["alice"],
        {"query": {"user": "alice"}},
        {"query": "q", "timestamp": {"user": "alice"}},
        {"query": "q", "timestamp": TIME, "user": ["alice"]},
        {"query": "q", "timestamp": TIME, "clicks": {"alice": "d1"}},
        {"query": "q", "timestamp": TIME, "clicks": [{"user": "alice"}]},
    ],
)
def test_details_do_not_tell_who_asked(raw: Any) -> None:
    with pytest.raises(EventError) as caught:
        parse_event(raw, FIELDS, record="r")
    assert "alice" not in caught.value.detail


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-02T10:00:00Z",
        "2026-03-02T10:00:00",
        " 2026-03-02 10:00:00 ",
        "2026-03-02T12:30:00+02:30",
        1772445600,
        1772445600.0,
        1772445600000,
        datetime.datetime(2026, 3, 2, 10),
        datetime.datetime(2026, 3, 2, 11, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    ],
)
def test_times_become_utc(value: Any) -> None:
    assert utc_timestamp(value) == TIME


@given(st.datetimes(timezones=st.timezones(), min_value=datetime.datetime(1, 1, 3)))
def test_a_utc_time_is_the_same_moment_and_its_own_utc_time(moment: datetime.datetime) -> None:
    try:
        once = utc_timestamp(moment)
    except ValueError:  # within hours of the year 10000
        return
    assert datetime.datetime.fromisoformat(once) == moment.astimezone(datetime.UTC)
    assert utc_timestamp(once) == once


def test_filter_compares_as_text() -> None:
    assert wanted({"split": "dev", "n": 3}, {"split": "dev", "n": "3"})
    assert not wanted({"split": "train"}, {"split": "dev"})
    assert not wanted({}, {"split": "dev"})
    assert wanted({}, {})
    assert wanted(["no object: for parse_event to reject"], {"split": "dev"})


# --- screen


def test_the_window_is_half_open() -> None:
    def kept(timestamp: str) -> bool:
        found = screen(event("q", timestamp=timestamp), window=(day(2), day(3)), max_query_chars=9)
        return found is not None

    assert not kept("2026-03-01T23:59:59.999999+00:00")
    assert kept("2026-03-02T00:00:00+00:00")
    assert kept("2026-03-02T23:59:59.999999+00:00")
    assert not kept("2026-03-03T00:00:00+00:00")


def test_without_a_window_times_do_not_matter() -> None:
    assert screen(event("q", timestamp=""), window=None, max_query_chars=9) is not None
    with pytest.raises(EventError) as caught:
        screen(event("q", timestamp=""), window=(day(2), day(3)), max_query_chars=9)
    assert caught.value.reason == "bad_timestamp"


@pytest.mark.parametrize("query", ["", "  \t\n", "?!...", "\x00\x00", "\ud800", "\u200b\u202e"])
def test_nothing_visible_is_an_empty_query(query: str) -> None:
    with pytest.raises(EventError) as caught:
        screen(event(query), window=None, max_query_chars=9)
    assert caught.value.reason == "empty_query"


@pytest.mark.parametrize(
    "query", ["the who", "to be or not to be", "مرحبا بالعالم", "שלום", "😀", "C++", "%_*"]
)
def test_these_are_queries_like_any_other(query: str) -> None:
    accepted = screen(event(query), window=None, max_query_chars=100)
    assert accepted is not None
    assert accepted.text == query


def test_a_query_is_measured_after_normalisation() -> None:
    assert screen(event("  ab   cd?? "), window=None, max_query_chars=5) is not None
    with pytest.raises(EventError) as caught:
        screen(event("abcdef"), window=None, max_query_chars=5)
    assert caught.value.reason == "query_too_long"
    for part in ("6", "5", "log.max_query_chars", "abcdef"):
        assert part in caught.value.detail


# --- privacy


def test_personal_data_is_masked_before_the_id_is_made() -> None:
    one = screen(event("is a@b.com   down?"), window=None, max_query_chars=99)
    other = screen(event("is c.d@e.org down"), window=None, max_query_chars=99)
    assert one is not None
    assert other is not None
    assert one.text == other.text == "is (email) down"
    assert one.query_id == other.query_id == query_id("is (email) down")
    assert one.masked
    plain = screen(event("is a@b.com down"), window=None, max_query_chars=99, masking=False)
    assert plain is not None
    assert (plain.text, plain.masked) == ("is a@b.com down", False)


def test_messages_quote_no_personal_data() -> None:
    with pytest.raises(EventError) as caught:
        screen(event("a@b.com" + " why" * 9), window=None, max_query_chars=9)
    assert "a@b.com" not in caught.value.detail
    with pytest.raises(EventError) as caught:
        parse_event({"query": 4111111111111111, "timestamp": TIME}, FIELDS, record="r")
    assert "4111111111111111" not in caught.value.detail


def test_a_user_leaves_a_hash_alone() -> None:
    found = screen(event("q"), window=None, max_query_chars=9, salt=b"salt")
    assert found is not None
    assert found.user == hash_user("u", b"salt") != "u"


def test_what_was_shown_is_kept_on_demand_and_not_of_programs() -> None:
    shown = tuple(f"d{n}" for n in range(10))
    usual = event("q")._replace(impressions=shown, clicks=shown[:3])
    program = usual._replace(clicks=shown[:8])
    short = usual._replace(impressions=shown[:4], clicks=shown[:4])
    read = functools.partial(screen, window=None, max_query_chars=99, keep_shown=True)
    assert [(a.shown, a.clicks_all) for a in map(read, (usual, program, short)) if a] == [
        (shown, False),
        ((), True),
        (shown[:4], False),
    ]
    plain = screen(program, window=None, max_query_chars=99)
    assert plain is not None
    assert (plain.shown, plain.clicks_all) == ((), False)


def test_an_event_keeps_its_time_and_the_places_of_its_clicks() -> None:
    raw = LogEvent("r", TIME, "q", "u", ("d2", "d9", "d2"), ("d1", "d2", "d1"))
    found = screen(raw, window=(day(2), day(3)), max_query_chars=9)
    assert found is not None
    assert (found.positions, found.time) == ((2, 0, 2), TIME)


def moment(number: int, *, text: str = "q") -> Accepted:
    return Accepted(query_id("q"), text, "u", (), (), f"2026-03-02T10:00:0{number}+00:00")


moments = st.lists(st.builds(moment, st.integers(0, 9), text=st.sampled_from(["q", "Q"])), max_size=8)


@given(moments, moments, moments, st.integers(1, 5))
def test_capping_is_associative_and_commutative(
    a: list[Accepted], b: list[Accepted], c: list[Accepted], limit: int
) -> None:
    def capped(*parts: UserEvents) -> UserEvents:
        return cap_user(parts, limit=limit)

    x, y, z = (UserEvents(tuple(part), 0) for part in (a, b, c))
    whole = cap_user([UserEvents((*a, *b, *c), 0)], limit=limit)
    assert capped(capped(x, y), z) == capped(x, capped(z, y)) == capped(z, y, x) == whole
    assert len(whole.kept) + whole.capped == len(a) + len(b) + len(c)
    assert [one.time for one in whole.kept] == sorted(one.time for one in (*a, *b, *c))[:limit]


# --- accumulate, merge, finish

SPELLINGS = ["Who is it", "who is it", "WHO IS IT"]
clicked = st.lists(st.tuples(st.sampled_from(["d1", "d2", "d3"]), st.integers(0, 5)), max_size=3)


@st.composite
def accepted_events(draw: st.DrawFn) -> Accepted:
    clicks = draw(clicked)
    return Accepted(
        query_id(SPELLINGS[0]),
        draw(st.sampled_from(SPELLINGS)),
        draw(st.sampled_from(["", "u1", "u2", "u3"])),
        tuple(doc for doc, _ in clicks),
        tuple(position for _, position in clicks),
        draw(st.sampled_from(["", "2026-03-02T10:00:00+00:00", "2026-03-02T10:00:00.5+00:00", TIME])),
        shown=tuple(draw(st.lists(st.sampled_from(["d1", "d2", "d3"]), max_size=3))),
    )


def oracle(events: list[Accepted]) -> Query:
    """The aggregate by the definition, with nothing folded."""
    texts = [one.text for one in events]
    best = max(texts.count(text) for text in texts)
    places: dict[str, list[int]] = {}
    for one in events:
        for doc, place in zip(one.clicks, one.positions, strict=True):
            places.setdefault(doc, []).append(place)
    known = {doc: [place for place in found if place] for doc, found in places.items()}
    times = sorted(one.time for one in events if one.time) or [""]
    seen = [(doc, n, doc in one.clicks) for one in events for n, doc in enumerate(one.shown, start=1)]
    return Query(
        query_id(texts[0]),
        min(text for text in texts if texts.count(text) == best),
        len(events),
        len({one.user for one in events if one.user}),
        tuple((doc, len(places[doc])) for doc in sorted(places)),
        tuple(sum(known[doc]) / len(known[doc]) if known[doc] else 0.0 for doc in sorted(places)),
        times[0],
        times[-1],
        tuple(
            (
                doc,
                tuple(
                    ShownAtRank(place, len(clicks), sum(clicks))
                    for place in (1, 2, 3)
                    if (clicks := [clicked for *where, clicked in seen if where == [doc, place]])
                ),
            )
            for doc in sorted({doc for doc, _, _ in seen})
        ),
    )


def by_user(events: list[Accepted]) -> list[list[Accepted]]:
    """The events of each user together, as `accumulate` wants them; those of nobody known one by one."""
    users = {one.user for one in events if one.user}
    return [
        *([one for one in events if one.user == user] for user in sorted(users)),
        *([one] for one in events if not one.user),
    ]


def fold(groups: list[list[Accepted]]) -> Tally:
    tally = empty_tally()
    for group in groups:
        tally = accumulate(tally, group)
    return tally


@given(st.data(), st.lists(accepted_events(), min_size=1, max_size=12))
def test_any_order_and_any_grouping_give_the_oracle(data: st.DataObject, events: list[Accepted]) -> None:
    shuffled = data.draw(st.permutations(by_user(events)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    ends = [0, *cuts, len(shuffled)]
    parts = [fold(shuffled[start:end]) for start, end in itertools.pairwise(ends)]
    assert finish(merge(parts)) == oracle(events)


@given(*[st.lists(accepted_events(), max_size=5)] * 3)
def test_merge_is_associative_and_commutative(
    a: list[Accepted], b: list[Accepted], c: list[Accepted]
) -> None:
    x, y, z = by_user(a), by_user(b), by_user(c)
    left = merge([merge([fold(x), fold(y)]), fold(z)])
    assert left == merge([fold(x), merge([fold(y), fold(z)])])
    assert left == merge([fold(z), fold(y), fold(x)])
    assert merge([left, empty_tally()]) == left


def test_merge_leaves_its_inputs_alone() -> None:
    one = fold([[Accepted("x", "q", "u1", ("d1",))]])
    other = fold([[Accepted("x", "q", "u2", ("d1",))]])
    merged = merge([one, other])
    accumulate(merged, [Accepted("x", "q", "u3", ("d1",))])
    assert finish(one) == Query(query_id("q"), "q", 1, 1, (("d1", 1),), (0.0,))
    assert finish(other) == finish(one)


def test_the_text_is_the_commonest_spelling_then_the_smallest() -> None:
    def text(*spellings: str) -> str:
        return finish(fold([[Accepted("x", spelling, "", ())] for spelling in spellings])).text

    assert text("b", "B", "b") == "b"
    assert text("b", "B") == "B"


def test_unknown_users_do_not_count() -> None:
    query = finish(fold([[Accepted("x", "q", user, ())] for user in ("", "", "u1")]))
    assert (query.count, query.users) == (3, 1)
