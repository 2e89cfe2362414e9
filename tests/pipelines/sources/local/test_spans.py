"""A log in spans is the same log."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from pipelines.beam_options import beam_options
from pipelines.sources.local import spans
from pipelines.sources.local.bm25_index import LocalIndex
from pipelines.sources.local.formats.tsv import records_of
from pipelines.sources.local.log_files import read_events
from pipelines.sources.local.source import LocalSource
from pipelines.sources.local.spans import Span, byte_spans, count_lines, numbered_lines
from rerank_core.config.night import parse_config
from rerank_core.config.source import Log
from rerank_core.files import read_lines

LINES = st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b"\r")), max_size=30)


@given(lines=LINES, ending=st.sampled_from([b"\n", b"\r\n"]), last=st.booleans(), size=st.integers(1, 40))
def test_spans_hold_the_lines_of_the_file_by_number(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ending: bytes, last: bool, size: int
) -> None:
    path = tmp_path_factory.mktemp("spans") / "log"
    path.write_bytes(b"x" + ending.join(lines) + (ending if last else b""))  # "x": neither a mark nor gzip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "SPAN_BYTES", size)
        every = byte_spans(path) or [Span(0, path.stat().st_size)]
    assert [every[0].start, every[-1].end] == [0, path.stat().st_size]
    assert all(one.end == other.start for one, other in itertools.pairwise(every))
    found, before = [], 0
    for span in every:
        of_span = list(numbered_lines(path, span._replace(first=before)))
        assert count_lines(path, span) == len(of_span)
        before += len(of_span)
        found += of_span
    assert found == list(enumerate(read_lines(path), start=1))


def test_a_table_of_blank_lines_has_no_records_in_spans_either(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_bytes(b"\n" * 9)
    assert list(records_of(tmp_path / "log.tsv", Log(), Span(3, 6, first=3))) == []


def events(number: int) -> list[dict[str, object]]:
    made = [{"query": f"cat {n}", "timestamp": "2026-03-02T10:00:00+00:00"} for n in range(number)]
    return [{**event, "timestamp": "never"} if n % 7 == 3 else event for n, event in enumerate(made)]


def jsonl(path: Path) -> Path:
    lines = [json.dumps(event) for event in events(40)]
    lines[9:9] = ["", "{broken", "\ufeff"]
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    return path


def tsv(path: Path) -> Path:
    rows = [f"{event['query']}\t{event['timestamp']}" for event in events(40)]
    path.write_text("\n\nquery\ttimestamp\n" + "\r\n".join(rows) + "\ta cell more\n", encoding="utf-8")
    return path


def parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(events(40)), path, row_group_size=6)
    return path


def gzipped(path: Path) -> Path:
    data = jsonl(path).read_bytes()
    path.write_bytes(gzip.compress(data))
    return path


def aol(path: Path) -> Path:
    rows = [f"7\tcat {n // 3}\t2026-03-02 10:00:0{n // 3 % 6}\t1\thttp://{n}" for n in range(40)]
    path.write_text("AnonID\tQuery\tQueryTime\tItemRank\tClickURL\n" + "\n".join(rows) + "\n")
    return path


def ubi(path: Path) -> Path:
    asked = [
        {"query_id": str(n), "user_query": f"cat {n}", "timestamp": "2026-03-02T10:00:00Z", "client_id": "c"}
        for n in range(20)
    ]
    clicked = [
        {"action_name": "click", "query_id": str(n), "event_attributes": {"object": {"object_id": f"d{n}"}}}
        for n in range(20)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in [*asked, *clicked]))
    return path


@pytest.mark.parametrize(
    ("make", "name", "cut"),
    [
        (jsonl, "log.jsonl", True),
        (tsv, "log.tsv", True),
        (parquet, "log.parquet", True),
        (ubi, "log.jsonl", True),
        (gzipped, "log.jsonl", False),
        (aol, "log.tsv", False),
    ],
)
def test_a_source_reads_the_same_events_from_spans(
    tmp_path: Path,
    index: LocalIndex,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Path],
    name: str,
    cut: bool,
) -> None:
    path = make(tmp_path / name)
    whole = list(read_events(path, Log()))
    assert len(whole) >= 14
    counted = []

    def counting(path: Path, span: Span) -> int:
        counted.append(span)
        return count_lines(path, span)

    monkeypatch.setattr(spans, "SPAN_BYTES", 300)
    monkeypatch.setattr("pipelines.sources.local.source.count_lines", counting)
    source = LocalSource(parse_config({"source": {"log": str(path), "index": str(index.path)}}))
    with beam.Pipeline(options=beam_options(())) as pipeline:
        assert_that(pipeline | source.events(), equal_to(whole))
    assert (len(counted) > 2) == (cut and make is not parquet)  # a footer has said it
    if make is parquet:
        assert len(spans.row_group_spans(path)) > 2
