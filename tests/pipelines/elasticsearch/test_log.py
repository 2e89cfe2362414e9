"""The log: its filter, its events, and the counts of its slices."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from pipelines.elasticsearch.log import check_counts, log_query, to_event
from pipelines.elasticsearch.pit import SliceCount
from rerank_core.config.night import LogFields
from rerank_core.errors import SourceError
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

    term, span = made("date")
    assert term == {"term": {"split": "dev"}}
    assert {key: span["range"]["timestamp"][key] for key in ("gte", "lt")} == {
        "gte": "2026-03-02T00:00:00+00:00",
        "lt": "2026-03-03T00:00:00+00:00",
    }
    either = [one["range"]["timestamp"] for one in made("long")[1]["bool"]["should"]]
    assert either == [
        {"gte": 1772409600.0, "lt": 1772496000.0},
        {"gte": 1772409600000.0, "lt": 1772496000000.0},
    ]
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
    bad = to_event(hit | {"_source": {"query": 5}}, log())
    assert isinstance(bad, Rejected)
    assert (bad.record, bad.reason) == ("log-1/e1", "query_not_text")
    nowhere = to_event({key: hit[key] for key in ("_index", "_id", "sort")}, log())
    assert isinstance(nowhere, Rejected)
    assert nowhere.reason == "no_source"
    nested = log(fields=LogFields(query="event.query"), source_fields=("timestamp", "event.query"))
    found = to_event(hit | {"_source": {"event": {"query": "deep"}}}, nested)
    assert isinstance(found, LogEvent)
    assert found.query == "deep"


def test_slices_must_add_up_to_the_log() -> None:
    def count(read: int, *, renewed: int = 0) -> SliceCount:
        return SliceCount(0, "pit", 10, read, read, renewed)

    check_counts([count(4), count(6)])
    check_counts([count(4), count(7, renewed=1)])  # one that came after the loss
    for bad in ([], [count(4), count(5)], [count(4), count(7)], [count(4), count(5, renewed=1)]):
        with pytest.raises(SourceError, match="run the night again"):
            check_counts(bad)
