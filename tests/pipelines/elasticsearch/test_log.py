"""The log: its filter, its events, and the counts of its slices."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.elasticsearch.fields import leaves
from pipelines.elasticsearch.log import check_counts, log_query, to_event
from pipelines.elasticsearch.pit import SliceCount
from rerank_core.config.source import LogFields
from rerank_core.errors import SourceError
from rerank_core.text import utf8
from schemas.records import LogEvent, Rejected
from tests.support.es_config import log

WINDOW = (
    datetime.datetime(2026, 3, 2, tzinfo=datetime.UTC),
    datetime.datetime(2026, 3, 3, tzinfo=datetime.UTC),
)


def test_the_window_is_half_open_in_every_kind_of_time() -> None:
    def made(*kinds: str) -> Any:
        query = log_query(LogFields(), window=WINDOW, time_types=kinds, terms={"split": "dev"}, indices=[])
        return query["bool"]["filter"]

    term, spans = made("date")
    assert term == {"term": {"split": "dev"}}
    span, without = spans["bool"]["should"]
    assert without == {"bool": {"must_not": {"exists": {"field": "timestamp"}}}}
    assert {key: span["range"]["timestamp"][key] for key in ("gte", "lt")} == {
        "gte": "2026-03-02T00:00:00+00:00",
        "lt": "2026-03-03T00:00:00+00:00",
    }
    either = [one["range"]["timestamp"] for one in made("long")[1]["bool"]["should"][:-1]]
    assert either == [{"gte": 1772409600 * unit, "lt": 1772496000 * unit} for unit in (1, 1000, 10**6, 10**9)]
    assert len(made("integer")[1]["bool"]["should"]) == 3
    assert log_query(LogFields(timestamp=""), window=None, time_types=(), terms={}, indices=[]) == {
        "match_all": {}
    }


def test_a_hit_becomes_an_event_or_says_why_not() -> None:
    hit = {
        "_index": "log-1",
        "_id": "e1",
        "_source": {"query": "q", "timestamp": "02/03/26"},
        "sort": ["2026-03-02T10:00:00.000123456Z", 1],
    }
    time = "2026-03-02T10:00:00.000123+00:00"
    assert to_event(hit, log()) == LogEvent("log-1/e1", time, "q", "", (), ())
    bad = to_event(hit | {"_source": {"query": 5.5}}, log())
    assert isinstance(bad, Rejected)
    assert (bad.record, bad.reason) == ("log-1/e1", "query_not_text")
    nowhere = to_event({key: hit[key] for key in ("_index", "_id", "sort")}, log())
    assert isinstance(nowhere, Rejected)
    assert nowhere.reason == "no_source"
    nested = log(fields=LogFields(query="event.query"))
    found = to_event(hit | {"_source": {"event": {"query": "deep"}}}, nested)
    assert isinstance(found, LogEvent)
    assert found.query == "deep"


REASONS = {"missing_query", "query_not_text", "bad_user", "bad_clicks", "bad_impressions", "bad_timestamp"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
SOURCE = st.fixed_dictionaries({}, optional=dict.fromkeys(LogFields.__dataclass_fields__, JSON))


def hit_of(source: Any, time: Any = "2026-03-02T10:00:00.000Z") -> dict[str, Any]:
    return {"_index": "log-1", "_id": "e", "_source": source, "sort": [time, 1]}


@given(SOURCE)
def test_any_value_in_any_field_is_an_event_or_a_counted_rejection(source: dict[str, Any]) -> None:
    found = to_event(hit_of(source), log())
    if isinstance(found, Rejected):
        assert found.reason in REASONS
        found.detail.encode()
        return
    assert [found.query] == [str(one) for one in leaves(source["query"], ("",))]
    clicks = [one for one in leaves(source.get("clicks"), ("",)) if one != ""]
    assert list(filter(None, found.clicks)) == [_as_id(one) for one in clicks if _as_id(one)]
    shown = leaves(source.get("impressions"), ("",), nulls=True)
    assert len(found.impressions) in (0, len(shown))  # every one has its rank
    for doc_id, one in zip(found.impressions, shown, strict=False):
        assert doc_id == (_as_id(one) if one is not None else "")


def _as_id(value: Any) -> str:
    """A string, or a whole number, as a keyword."""
    return utf8(value) if isinstance(value, str) else str(int(value))


@given(SOURCE, st.data())
def test_a_value_and_a_list_of_it_are_the_same_event(source: dict[str, Any], data: st.DataObject) -> None:
    wraps = [lambda v: v, lambda v: [v], lambda v: [[v]], lambda v: [[], v]]
    nulls = [*wraps, lambda v: [None, [v]], lambda v: [[v], None]]  # but that impressions have ranks
    wrapped = {
        name: data.draw(st.sampled_from(wraps if name == "impressions" else nulls))(value)
        for name, value in source.items()
    }
    assert repr(to_event(hit_of(wrapped), log())) == repr(to_event(hit_of(source), log()))


@pytest.mark.parametrize(
    ("sort", "given", "words"),
    [
        ("1970-01-01T00:00:00.001Z", "08/Mar/2026:10:00:00", "'timestamp' is '08/Mar/2026:10:00:00'"),
        ("1970-01-01T00:00:00.000000001Z", None, "'timestamp' has no value"),
        (1, ["soon", "later"], "'timestamp' is"),
        (None, {}, "'timestamp' is"),
        ("2026-03-02T10:00:00.000Z", ["2026-03-02T10:00:00Z", "2026-03-05T10:00:00Z"], "holds 2 times"),
    ],
)
def test_an_event_without_one_time_is_rejected(sort: Any, given: Any, words: str) -> None:
    found = to_event(hit_of({"query": "q", "timestamp": given}, sort), log())
    assert isinstance(found, Rejected)
    assert (found.reason, words in found.detail) == ("bad_timestamp", True), found.detail


def test_numbers_are_what_they_are_as_keywords() -> None:
    found = to_event(hit_of({"query": 1984, "user": [7], "clicks": [[3], "d"], "impressions": 3}), log())
    assert isinstance(found, LogEvent)
    assert found[2:] == ("1984", "7", ("3", "d"), ("3",))


def test_slices_must_add_up_to_the_log() -> None:
    def count(read: int, *, renewed: int = 0) -> SliceCount:
        return SliceCount(0, "pit", 10, read, read, renewed)

    check_counts([count(4), count(6)])
    check_counts([count(4), count(7, renewed=1)])  # one that came after the loss
    for bad in ([], [count(4), count(5)], [count(4), count(7)], [count(4), count(5, renewed=1)]):
        with pytest.raises(SourceError, match="run the night again"):
            check_counts(bad)
