"""What a record of the log may look like, and what becomes of its event."""

from __future__ import annotations

import contextlib
import datetime
import functools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.source import LogFields, Privacy
from rerank_core.querylog.events import EventError, parse_event, passes_filter, screen
from rerank_core.querylog.privacy import hash_user
from rerank_core.text import query_id
from schemas.records import LogEvent

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


def test_columns_that_the_log_does_not_have_are_not_read() -> None:
    raw = {"query": "q", "timestamp": "yesterday", "user": {}, "clicks": 5, "impressions": 5}
    assert parse_event(raw, NO_FIELDS, record="r") == LogEvent("r", "", "q", "", (), ())


def test_an_unnamed_column_is_not_read_even_if_the_record_has_one() -> None:
    raw = {"query": "q", "": "someone"}
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
        ({"query": ["a", "b"]}, "query_not_text"),
        ({"query": [["a"]]}, "query_not_text"),
        ({"query": []}, "missing_query"),
        ({"query": float("nan")}, "missing_query"),
        ({"query": "q"}, "bad_timestamp"),
        ({"query": "q", "timestamp": "soon"}, "bad_timestamp"),
        ({"query": "q", "timestamp": True}, "bad_timestamp"),
        ({"query": "q", "timestamp": 1e300}, "bad_timestamp"),
        ({"query": "q", "timestamp": float("nan")}, "bad_timestamp"),
        ({"query": "q", "timestamp": "0001-01-01T00:00:00+05:00"}, "bad_timestamp"),
        ({"query": "q", "timestamp": [TIME, TIME]}, "bad_timestamp"),
        ({"query": "q", "timestamp": 20260302}, "bad_timestamp"),
        ({"query": "q", "timestamp": TIME, "user": ["u", "v"]}, "bad_user"),
        ({"query": "q", "timestamp": TIME, "user": 1.5}, "bad_user"),
        ({"query": "q", "timestamp": TIME, "user": 1e16}, "bad_user"),
        ({"query": "q", "timestamp": TIME, "user": True}, "bad_user"),
        ({"query": "q", "timestamp": TIME, "clicks": "['d1']"}, "bad_clicks"),
        ({"query": "q", "timestamp": TIME, "clicks": {"doc": "d1"}}, "bad_clicks"),
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
        {"query": "q", "timestamp": TIME, "user": ["alice", "bob"]},
        {"query": "q", "timestamp": TIME, "clicks": {"alice": "d1"}},
        {"query": "q", "timestamp": TIME, "clicks": [{"user": "alice"}]},
    ],
)
def test_details_do_not_name_the_user(raw: Any) -> None:
    with pytest.raises(EventError) as caught:
        parse_event(raw, FIELDS, record="r")
    assert "alice" not in caught.value.detail


@pytest.mark.parametrize("gap", [None, float("nan")])
def test_what_pandas_and_elasticsearch_write_otherwise_is_the_same(gap: float | None) -> None:
    plain = {"query": "q", "timestamp": TIME, "user": "17", "clicks": ["3"], "impressions": ["2", "", "3"]}
    other = {"query": ["q"], "timestamp": [TIME], "user": 17.0, "clicks": 3.0, "impressions": [2.0, gap, 3.0]}
    as_text = plain | {"clicks": "3", "impressions": "[2, null, 3]"}
    expected = LogEvent("r", TIME, "q", "17", ("3",), ("2", "", "3"))
    assert [parse_event(raw, FIELDS, record="r") for raw in (plain, other, as_text)] == [expected] * 3
    nothing = {"query": "q", "timestamp": TIME, "user": gap, "clicks": gap, "impressions": []}
    assert parse_event(nothing, FIELDS, record="r") == LogEvent("r", TIME, "q", "", (), ())


def parsed_or_not(raw: Any) -> LogEvent | EventError:
    try:
        return parse_event(raw, FIELDS, record="r")
    except EventError as error:
        return error


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes() | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["timestamp", "query", "user", "clicks", "impressions"]), anything)
    | anything
)
def test_anything_is_an_event_or_rejected(raw: Any) -> None:
    parsed = parsed_or_not(raw)
    if isinstance(parsed, EventError):
        assert parsed.reason.isidentifier()
        assert parsed.detail
        parsed.detail.encode()
        return
    with contextlib.suppress(EventError):
        screen(parsed, window=(day(2), day(3)), max_query_chars=100, keep_shown=True)
    for name in (parsed.user, *parsed.clicks, *parsed.impressions):
        name.encode()


def test_filter_compares_as_text() -> None:
    assert passes_filter({"split": "dev", "n": 3}, {"split": "dev", "n": "3"})
    assert not passes_filter({"split": "train"}, {"split": "dev"})
    assert not passes_filter({}, {"split": "dev"})
    assert passes_filter({}, {})
    assert passes_filter({"bot": False, "n": 3.0, "of": ["a", "b"]}, {"bot": "false", "n": "3", "of": "b"})
    assert not passes_filter({"bot": None}, {"bot": "None"})
    assert passes_filter(["no object: for parse_event to reject"], {"split": "dev"})


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
    plain = screen(event("is a@b.com down"), window=None, max_query_chars=99, privacy=Privacy(mask=False))
    assert plain is not None
    assert (plain.text, plain.masked) == ("is a@b.com down", False)


@pytest.mark.parametrize(
    ("query", "typed"),
    [
        ("  co\u00adop ?\ud800", "  co\u00adop ?"),
        ("mail jo@example.org ?", "mail (email)"),
        ("jo@exam\u200bple.org", "(email)"),
        ("x" + " " * 2000, "x"),
    ],
)
def test_what_was_typed_is_kept_unless_it_is_personal_or_too_long(query: str, typed: str) -> None:
    event = LogEvent("r", "2026-03-02T10:00:00Z", query, "", (), ())
    accepted = screen(event, window=None, max_query_chars=1000)
    assert accepted is not None
    assert accepted.typed == typed


def test_messages_quote_no_personal_data() -> None:
    with pytest.raises(EventError) as caught:
        screen(event("a@b.com" + " why" * 9), window=None, max_query_chars=9)
    assert "a@b.com" not in caught.value.detail
    with pytest.raises(EventError) as caught:
        parse_event({"query": 4111111111111111, "timestamp": TIME}, FIELDS, record="r")
    assert "4111111111111111" not in caught.value.detail


def test_a_query_that_a_single_person_may_have_typed_is_not_quoted() -> None:
    with pytest.raises(EventError) as caught:
        screen(event("abcdef"), window=None, max_query_chars=5, privacy=Privacy(min_users=2))
    assert "abc" not in caught.value.detail
    assert "6" in caught.value.detail


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


def test_an_event_keeps_its_time_and_the_ranks_of_its_clicks() -> None:
    raw = LogEvent("r", TIME, "q", "u", ("d2", "d9"), ("d1", "d2"))
    found = screen(raw, window=(day(2), day(3)), max_query_chars=9)
    assert found is not None
    assert (found.positions, found.time) == ((2, 0), TIME)


@given(*[st.lists(st.sampled_from(["", "d1", "d2", "d3", "d4", "d5", "d6"]), max_size=9).map(tuple)] * 2)
def test_an_event_counts_a_document_once(clicks: tuple[str, ...], impressions: tuple[str, ...]) -> None:
    event = LogEvent("r", TIME, "q", "u", clicks, impressions)
    found = screen(event, window=None, max_query_chars=9, keep_shown=True)
    assert found is not None
    assert sorted(found.clicks) == sorted(set(clicks) - {""})
    first = {doc_id: impressions.index(doc_id) + 1 for doc_id in impressions if doc_id}
    assert found.positions == tuple(first.get(doc_id, 0) for doc_id in found.clicks)
    if not found.clicks_all:
        places = {doc_id: rank for rank, doc_id in enumerate(found.shown, start=1) if doc_id}
        assert places == first
        assert sum(map(bool, found.shown)) == len(first)


@pytest.mark.parametrize(
    "user",
    [
        "",
        " ",
        "\t\n",
        "\u200b",
        "\ufeff",
        "\xad",
        "\u00a0\u3000",
        "\u3164",
        "\u2800",
        "\ufe0f",
        "\u0301",
        "\x00",
    ],
)
def test_a_user_whom_nobody_sees_is_unknown(user: str) -> None:
    found = screen(event("q")._replace(user=user), window=None, max_query_chars=9, salt=b"salt")
    assert found is not None
    assert found.user == ""


@given(
    st.text(alphabet="\u200b\ufeff\xad \u2060", max_size=3),
    st.text(alphabet="\u200b\ufeff\xad\x00", max_size=3),
)
def test_one_user_is_not_several_by_invisible_characters(edge: str, inside: str) -> None:
    found = screen(
        event("q")._replace(user=f"{edge}us{inside}er{edge}"), window=None, max_query_chars=9, salt=b"salt"
    )
    assert found is not None
    assert found.user == hash_user("user", b"salt")
