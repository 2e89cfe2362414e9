"""Log files, line by line and row by row."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources.local.formats import FORMATS
from pipelines.sources.local.log_files import check_format, format_of, log_files, read_events
from rerank_core.config.source import Log, LogFields
from rerank_core.errors import ConfigError, SourceError
from schemas.records import LogEvent, Rejected
from tests.support.local_data import outcomes, write_lines

FIELDS = LogFields()
LOG = Log()
TIME = "2026-03-02T10:00:00+00:00"


def read(path: Path, fields: LogFields = FIELDS, **log_filter: str) -> list[LogEvent | Rejected]:
    return list(read_events(path, Log(fields=fields, filter=log_filter)))


def test_json_lines_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [
        b'\xef\xbb\xbf{"query": "bom", "timestamp": "2026-03-02T10:00:00Z", "clicks": ["d1"]}\r',
        b"",
        b'{"query": "caf\xe9", "timestamp": 1772445600}',
        b'{"query": "half',
        b'["query"]',
        b'{"query": 3}',
        b'{"timestamp": 1772445600}',
        b'{"query": "q", "timestamp": "then"}',
        b'{"query": "q", "timestamp": 1772445600, "clicks": {}}',
        b'{"query": "lone \\ud800", "timestamp": 1772445600000}',
        b'{"query": "' + b"x" * 1_000_000 + b'", "timestamp": 1772445600}',
        b"[" * 100_000,
        b'{"query": ' + b"9" * 5000 + b"}",
        b'{"query": "last", "timestamp": 1772445600}',
    ]
    path.write_bytes(b"\n".join(lines))
    records = read(path)
    assert records[0] == LogEvent("log.jsonl:1", TIME, "bom", "", ("d1",), ())
    assert outcomes(records) == [
        ("log.jsonl:1", "bom"),
        ("log.jsonl:3", "bad_utf8"),
        ("log.jsonl:4", "bad_json"),
        ("log.jsonl:5", "not_an_object"),
        ("log.jsonl:6", "query_not_text"),
        ("log.jsonl:7", "missing_query"),
        ("log.jsonl:8", "bad_timestamp"),
        ("log.jsonl:9", "bad_clicks"),
        ("log.jsonl:10", "lone \ud800"),
        ("log.jsonl:11", "x" * 1_000_000),
        ("log.jsonl:12", "bad_json"),
        ("log.jsonl:13", "bad_json"),
        ("log.jsonl:14", "last"),
    ]
    for one in records:
        if isinstance(one, Rejected):
            assert (one.stage, one.unit) == ("ReadQueryLog", "event")
            one.detail.encode()


def test_a_broken_line_is_not_quoted(tmp_path: Path) -> None:
    (record,) = read(write_lines(tmp_path / "log.jsonl", ['{"user": "alice", "query": "q"']))
    assert isinstance(record, Rejected)
    assert "alice" not in record.detail


def test_gzip_is_read_and_a_cut_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    lines = "".join(json.dumps({"query": f"q{n * n}", "timestamp": TIME}) + "\n" for n in range(1000))
    path.write_bytes(gzip.compress(lines.encode()))
    assert len(read(path)) == 1000
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SourceError, match="truncated"):
        read(path)


def test_filtered_events_are_not_read(tmp_path: Path) -> None:
    records = [{"query": "a", "split": "dev"}, {"query": 7, "split": "train"}, {"query": "c"}, "{"]
    path = write_lines(tmp_path / "log.jsonl", records)
    expected = [("log.jsonl:1", "a"), ("log.jsonl:4", "bad_json")]
    assert outcomes(read(path, LogFields(timestamp=""), split="dev")) == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+05:30"])
def test_parquet_times_of_every_unit(tmp_path: Path, unit: str, zone: str | None) -> None:
    time = datetime.datetime(2026, 3, 2, 10, tzinfo=datetime.UTC if zone else None)
    times = pa.array([time, None], pa.timestamp(unit, zone))
    pq.write_table(pa.table({"query": ["a", "b"], "timestamp": times}), tmp_path / "log.parquet")
    first, second = read(tmp_path / "log.parquet")
    assert first == LogEvent("log.parquet:1", TIME, "a", "", (), ())
    assert isinstance(second, Rejected)
    assert (second.record, second.reason) == ("log.parquet:2", "bad_timestamp")


def test_parquet_rows_are_read_one_by_one(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(),
        3,
        [None, pa.py_buffer(pa.array([0, 1, 3, 4], pa.int32()).buffers()[1]), pa.py_buffer(b"a\xff\xfeb")],
    )
    times = pa.array([1_772_445_600_000, 2**60, 1_772_445_600_000], pa.timestamp("ms"))
    clicks = pa.array([["d1", "d2"], None, []], pa.list_(pa.string()))
    table = pa.table({"q": bad, "timestamp": times, "clicks": clicks, "user": [1, 2, 3], "other": [0, 0, 0]})
    pq.write_table(table, tmp_path / "log.parquet")
    records = read(tmp_path / "log.parquet", LogFields(query="q"))
    assert records[0] == LogEvent("log.parquet:1", TIME, "a", "1", ("d1", "d2"), ())
    assert outcomes(records)[1:] == [("log.parquet:2", "bad_utf8"), ("log.parquet:3", "b")]
    pq.write_table(table.set_column(0, "q", pa.array(["a", "b", "c"])), tmp_path / "log.parquet")
    # A time beyond the year 9999 costs its own row, not its batch.
    reasons = [reason for _, reason in outcomes(read(tmp_path / "log.parquet", LogFields(query="q")))]
    assert reasons == ["a", "bad_timestamp", "c"]


def test_parquet_of_many_batches_is_numbered_through(tmp_path: Path) -> None:
    table = pa.table({"query": [f"q{n}" for n in range(5000)], "split": ["dev", "test"] * 2500})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=1500)
    records = read(tmp_path / "log.parquet", LogFields(timestamp=""), split="test")
    assert len(records) == 2500
    assert outcomes(records)[-1] == ("log.parquet:5000", "q4999")


def test_a_log_is_a_file_a_folder_or_a_glob(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.parquet", "c.json.gz", "d.tsv", "_SUCCESS", ".a.jsonl", "readme.txt"):
        (tmp_path / name).touch()

    def found(path: Path, log: Log = LOG) -> list[str]:
        return [file.name for file in log_files(str(path), log)]

    assert found(tmp_path) == ["a.parquet", "b.jsonl", "c.json.gz", "d.tsv"]
    assert found(tmp_path, Log(format="jsonl")) == ["b.jsonl", "c.json.gz"]
    assert found(tmp_path, Log(format="aol")) == ["d.tsv", "readme.txt"]
    assert found(tmp_path / "*.jsonl") == ["b.jsonl"]
    assert found(tmp_path / "readme.txt") == ["readme.txt"]
    for missing in ("none.jsonl", "*.csv"):
        with pytest.raises(SourceError, match="no query log at"):
            found(tmp_path / missing)
    with pytest.raises(SourceError, match="copy the log to this machine"):
        log_files("gs://bucket/log.jsonl", LOG)


def test_an_unknown_format_names_the_nearest() -> None:
    for name in ("auto", *FORMATS):
        check_format(Log(format=name))
    with pytest.raises(
        ConfigError, match="log.format = 'json' is no log format; the nearest one is 'jsonl' of auto, "
    ):
        check_format(Log(format="json"))
    with pytest.raises(ConfigError, match="log.format = 'aol' fixes the names of the columns"):
        check_format(Log(format="aol", fields=LogFields(user="")))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"query": "q", "timestamp": 1}', "jsonl"),
        (b'{"query": {"match": {}}, "user_query": "q", "query_id": "1"}', "ubi"),
        (b'\xef\xbb\xbf\r\n{"action_name": "click", "query_id": "1"}', "ubi"),
        (b'{"_index": "ubi_events", "_source": {"action_name": "click"}}', "ubi"),
        (b'{"query": "q", "action_name": "search"}', "jsonl"),
        (b"AnonID\tQuery\tQueryTime\tItemRank\tClickURL", "aol"),
        (b"timestamp\tquery\tuser", "tsv"),
        (b"q\tuser", "tsv"),
        (b'{\t"query": 1', "jsonl"),
        (b"query\n", "jsonl"),
        (b"", "jsonl"),
        (b"\x00\xff", "jsonl"),
    ],
)
def test_a_format_is_recognised_by_the_first_line(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "log").write_bytes(content)
    assert format_of(tmp_path / "log", LOG) == expected
    (tmp_path / "log").write_bytes(gzip.compress(content))
    assert format_of(tmp_path / "log", LOG) == expected


def test_a_format_that_fixes_its_columns_is_not_taken_where_the_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"AnonID\tQuery\tQueryTime\tItemRank\tClickURL")
    assert format_of(tmp_path / "log", Log(fields=LogFields(query="Query"))) == "tsv"
    assert format_of(tmp_path / "log", Log(format="jsonl")) == "jsonl"
