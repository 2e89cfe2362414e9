"""Each log format: what it reads, and that any value in any field is an event or is counted."""

from __future__ import annotations

import datetime
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.local.log_files import read_events
from rerank_core.config.source import Log, LogFields
from schemas.records import LogEvent, Rejected
from tests.support.local_data import outcomes, write_lines

FIELDS = LogFields()
LOG = Log()
TIME = "2026-03-02T10:00:00+00:00"


def read(path: Path, fields: LogFields = FIELDS, **log_filter: str) -> list[LogEvent | Rejected]:
    return list(read_events(path, Log(fields=fields, filter=log_filter)))


# --- every value in every field

OF_UBI = ["action_name", "query_id", "user_query", "client_id", "event_attributes", "query_response_hit_ids"]
names = st.sampled_from(["timestamp", "query", "user", "clicks", "impressions", "split", *OF_UBI])
special = st.sampled_from(["\ud800", "\x00", "\ufeff", "1793110411145", TIME, "click", "1", "[", "[]"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | special
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["object", "object_id", "a"]), inner, max_size=3)
    ),
    max_leaves=4,
)
events = st.dictionaries(names, values, max_size=7)
raw_lines = st.sampled_from(
    [
        b"{",
        b"[" * 5000,
        b'{"a":' * 5000,
        b'{"user": ' + b"9" * 5000 + b"}",
        b'"\xff"',
        b"\x00",
        b'{"query": Infinity}',
    ]
)
lines = st.lists(
    raw_lines | st.builds(lambda value: json.dumps(value).encode(), events | values), min_size=1, max_size=6
)


@given(lines, st.sampled_from(["jsonl", "ubi"]))
def test_every_json_line_is_an_event_or_is_counted(
    tmp_path_factory: Any, lines: list[bytes], name: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "log"
    path.write_bytes(b"\n".join(lines))
    records = list(read_events(path, Log(format=name)))
    if name == "jsonl":  # in UBI several lines are one event, and some are none
        assert [record(one) for one in records] == [f"log:{n}" for n in range(1, len(lines) + 1)]
    assert len({record(one) for one in records}) == len(records)
    check_details(records)


cells = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=5
) | special.filter(lambda s: s != "\ud800")


@given(
    st.lists(st.lists(cells, min_size=1, max_size=6), min_size=1, max_size=5), st.sampled_from(["tsv", "aol"])
)
def test_every_line_of_cells_is_an_event_or_is_counted(
    tmp_path_factory: Any, rows: list[list[str]], name: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "log"
    header = {
        "tsv": "timestamp\tquery\tuser\tclicks\timpressions",
        "aol": "AnonID\tQuery\tQueryTime\tItemRank\tClickURL",
    }
    content = "\n".join([header[name], *("\t".join(row) for row in rows)])
    path.write_text(content, encoding="utf-8", newline="")
    records = list(read_events(path, Log(format=name)))
    if name == "tsv":  # of AOL's, several lines are one event
        visible = [n for n, line in enumerate(content.encode().split(b"\n"), start=1) if line.strip()]
        assert [record(one) for one in records] == [f"log:{n}" for n in visible[1:]]
    check_details(records)


columns = st.sampled_from(["query", "timestamp", "user", "clicks", "impressions"])
arrays = st.sampled_from(
    [
        pa.array([17.0, None]),
        pa.array([17, None]),
        pa.array(["a", None]).dictionary_encode(),
        pa.array(["a", None], pa.large_string()),
        pa.array([b"a", b"\xff"], pa.binary()),
        pa.array([b"a", None], pa.large_binary()),
        pa.array([1, 2**62], pa.timestamp("us")),
        pa.array([1_772_445_600_000_000_001, None], pa.timestamp("ns", "Europe/Paris")),
        pa.array([1_772_445_600_000_000_001, None], pa.timestamp("ns")).dictionary_encode(),
        pa.array([20_000, None], pa.date32()),
        pa.array([2**40, None], pa.date64()),
        pa.array([1, None], pa.time64("ns")),
        pa.array([1, 2**62], pa.duration("s")),
        pa.array([[1_772_445_600_000_000_001], None], pa.list_(pa.timestamp("ns"))),
        pa.array([True, None]),
        pa.array([None, None], pa.null()),
        pa.array([Decimal("17.00"), Decimal("0.5")]),
        pa.array([["d1", None], []], pa.list_(pa.string())),
        pa.array([["d1", "d2"], ["d3", "d4"]], pa.list_(pa.string(), 2)),
        pa.array([["d1"], None], pa.large_list(pa.string())),
        pa.array([[1.0, float("nan")], None]),
        pa.array([{"a": 1}, None]),
        pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        pa.array(["['d1']", '["d1"]']),
        pa.array([float("inf"), 1e300]),
    ]
)


@given(
    st.dictionaries(columns, arrays).map(
        lambda found: {"query": pa.array(["a", "b"]), "timestamp": pa.array([TIME, TIME])} | found
    )
)
def test_every_row_of_any_types_is_an_event_or_is_counted(
    tmp_path_factory: Any, table: dict[str, pa.Array]
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "log"
    pq.write_table(pa.table(table), path)
    records = list(read_events(path, LOG))
    assert [record(one) for one in records] == ["log:1", "log:2"]
    check_details(records)


def record(one: LogEvent | Rejected) -> str:
    return one.record


def check_details(records: list[LogEvent | Rejected]) -> None:
    for one in records:
        if isinstance(one, Rejected):
            assert one.reason.isidentifier()
            assert "; " in one.detail or "log.fields" in one.detail, "no remedy"
            one.detail.encode()


# --- what programs write


def test_parquet_as_pandas_and_other_writers_store_it(tmp_path: Path) -> None:
    time = datetime.datetime(2026, 3, 2, 10, tzinfo=datetime.UTC)
    columns = {
        "query": pa.array([b"a", b"b", b"c"], pa.binary()),
        "timestamp": pa.array([time] * 3, pa.timestamp("ns", "UTC")).dictionary_encode(),
        "user": pa.array([17.0, None, float("nan")]),
        "clicks": pa.array([[1.0, None], [2.0], None]),
        "impressions": pa.array(["[1, 2]", "d2", ""]),
    }
    pq.write_table(pa.table(columns), tmp_path / "log")
    assert read(tmp_path / "log") == [
        LogEvent("log:1", TIME, "a", "17", ("1", ""), ("1", "2")),
        LogEvent("log:2", TIME, "b", "", ("2",), ("d2",)),
        LogEvent("log:3", TIME, "c", "", (), ()),
    ]


def test_tab_separated_lines_with_a_header(tmp_path: Path) -> None:
    lines = [
        "\ufefftimestamp\tquery\tuser\tclicks\timpressions",
        '1772445600\t"say ""hi"""\t17\td1\t["d1", "d2"]',
        '2026-03-02 10:00:00\t"half a quote\tu\t\t',
        "1772445600\tshort",
        "1772445600\ta\tu\td\t[]\tmore",
        "",
        "1772445600\tb\tu\t['d1']\t",
        "1772445600\t\tu",
    ]
    (tmp_path / "log.tsv").write_bytes("\r\n".join(lines).encode())
    records = read(tmp_path / "log.tsv")
    assert records[:3] == [
        LogEvent("log.tsv:2", TIME, 'say "hi"', "17", ("d1",), ("d1", "d2")),
        LogEvent("log.tsv:3", TIME, '"half a quote', "u", (), ()),
        LogEvent("log.tsv:4", TIME, "short", "", (), ()),
    ]
    assert outcomes(records[3:]) == [
        ("log.tsv:5", "bad_row"),
        ("log.tsv:7", "bad_clicks"),
        ("log.tsv:8", "missing_query"),
    ]


def test_a_search_of_aol_with_several_clicks_is_one_event(tmp_path: Path) -> None:
    lines = [
        "AnonID\tQuery\tQueryTime\tItemRank\tClickURL",
        "142\trentdirect.com\t2006-03-01 07:17:12\t\t",
        "142\tcheap flats\t2006-03-01 09:00:00\t1\thttp://a.example",
        "142\tcheap flats\t2006-03-01 09:00:00\t3\thttp://b.example",
        "142\tcheap flats\t2006-03-01 09:05:00\t1\thttp://a.example",
        "217\tcheap flats\t2006-03-01 09:05:00",
    ]
    (tmp_path / "user-ct.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    flats = [one for one in read(tmp_path / "user-ct.txt.gz") if isinstance(one, LogEvent)][1:]
    assert [(one.record, one.user, one.clicks) for one in flats] == [
        ("user-ct.txt.gz:3", "142", ("http://a.example", "http://b.example")),
        ("user-ct.txt.gz:5", "142", ("http://a.example",)),
        ("user-ct.txt.gz:6", "217", ()),
    ]
    assert flats[0].timestamp == "2006-03-01T09:00:00+00:00"


def ubi_event(query_id: str, action: str, object_id: Any = "d2", **more: Any) -> dict[str, Any]:
    attributes = {"position": {"ordinal": 2}, "object": {"object_id": object_id, "object_id_field": "sku"}}
    return {
        "action_name": action,
        "query_id": query_id,
        "timestamp": TIME,
        "event_attributes": attributes,
    } | more


def ubi_query(query_id: str, **more: Any) -> dict[str, Any]:
    fields = {"application": "shop", "client_id": "c1", "user_query": "laptop", "query": '{"match_all": {}}'}
    return fields | {"query_id": query_id, "timestamp": TIME, "query_response_hit_ids": ["d1", "d2"]} | more


def test_queries_and_events_of_ubi_become_events_of_the_log(tmp_path: Path) -> None:
    records = [
        ubi_event("q1", "click", client_id="c1"),
        ubi_query("q1"),
        ubi_query("q1", timestamp="2026-03-02T10:01:00Z", query_response_hit_ids=["d3"]),
        ubi_event("q1", "click"),
        ubi_event("q1", "product_hover", "d1"),
        ubi_event("q1", "purchase", 3),
        {"action_name": "login", "timestamp": TIME, "client_id": "c1"},
        {
            "_index": "ubi_queries",
            "_source": ubi_query("q2", user_query="mouse", client_id=None, timestamp=1772445600000),
        },
        ubi_event("q2", "watch", "d9", user_id="u2"),
        ubi_event("q3", "click"),
        ubi_query("q4", application="admin"),
        ubi_event("q4", "click"),
        ubi_query(""),
        ubi_query("q1", user_query="another", timestamp="2026-03-02T11:00:00Z"),
        ubi_event("q2", "click", None),
    ]
    path = write_lines(tmp_path / "ubi.jsonl", records)
    found = list(read_events(path, Log(filter={"application": "shop"})))
    assert sorted(one for one in found if isinstance(one, LogEvent)) == [
        LogEvent("ubi.jsonl:2", TIME, "laptop", "c1", ("d2", "d2", "3"), ("d1", "d2", "d3")),
        LogEvent("ubi.jsonl:8", TIME, "mouse", "u2", ("d9",), ("d1", "d2")),
    ]
    assert sorted(outcomes([one for one in found if isinstance(one, Rejected)])) == [
        ("ubi.jsonl:10", "unknown_query"),
        ("ubi.jsonl:13", "no_query_id"),
        ("ubi.jsonl:14", "duplicate_id"),
        ("ubi.jsonl:15", "bad_clicks"),
    ]


def test_queries_and_events_of_ubi_may_be_rows_of_one_table(tmp_path: Path) -> None:
    records = [ubi_query("q1"), ubi_event("q1", "click", "d1"), ubi_event("q1", "hover", "d2")]
    records.append(ubi_event("q1", "click", "d2") | {"action_name": ["click"]})
    names = dict.fromkeys(name for record in records for name in record)
    path = write_lines(tmp_path / "ubi.jsonl", [names | record for record in records])
    events = [LogEvent("ubi.jsonl:1", TIME, "laptop", "c1", ("d1", "d2"), ("d1", "d2"))]
    assert list(read_events(path, Log())) == events


def test_what_is_a_click_of_ubi_can_be_configured(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "ubi.jsonl", [ubi_query("q1"), ubi_event("q1", "click"), ubi_event("q1", "open", "d1")]
    )
    (event,) = read_events(path, Log(click_actions=("open",)))
    assert isinstance(event, LogEvent)
    assert event.clicks == ("d1",)
