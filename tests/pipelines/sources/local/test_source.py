"""The embedded source: a real index in a folder, real log files, one real pipeline."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.sources import Source
from pipelines.sources.local.bm25_index import LocalIndex
from pipelines.sources.local.source import LocalSource
from rerank_core.config.night import Config, parse_config
from rerank_core.config.source import Log, LogFields
from rerank_core.errors import ConfigError, SourceError
from rerank_core.text import query_id
from schemas.records import LogEvent, Query, Rejected
from tests.support.local_data import CORPUS, build, outcomes, write_lines

TIME = "2026-03-02T10:00:00+00:00"


def source(log: Path | str, index: Path, *, log_section: Log = Log()) -> LocalSource:  # noqa: B008  frozen
    raw = {"source": {"log": str(log), "index": str(index)}}
    config = parse_config(raw)
    return LocalSource(Config(source=config.source, log=log_section))


def ask(text: str) -> Query:
    return Query(query_id(text), text, 1, 0, ())


def test_describe_fingerprints_log_and_index(tmp_path: Path, index: LocalIndex) -> None:
    log = write_lines(tmp_path / "log.jsonl", [{"query": "cat", "timestamp": TIME}])
    described = source(log, index.path).describe()
    assert described == {
        "kind": "local",
        "log": str(log),
        "log_fingerprint": described["log_fingerprint"],
        "index": str(index.path),
        "index_fingerprint": index.fingerprint,
        "index_language": "en",
        "documents": 4,
    }
    whole = source(tmp_path, index.path).describe()["log_fingerprint"]
    assert whole == described["log_fingerprint"]
    write_lines(tmp_path / "more.jsonl", [{"query": "dog"}])
    assert source(tmp_path, index.path).describe()["log_fingerprint"] != whole


def test_describe_refuses_logs_that_cannot_be_read(tmp_path: Path, index: LocalIndex) -> None:
    pq.write_table(pa.table({"text": ["q"]}), tmp_path / "columns.parquet")
    pq.write_table(pa.table({"query": ["q"] * 999, "timestamp": [TIME] * 999}), tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-9])
    no_rows = pa.schema([("query", pa.string()), ("timestamp", pa.string())]).empty_table()
    pq.write_table(no_rows, tmp_path / "rows.parquet")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}\n")[:12])
    (tmp_path / "wide.jsonl").write_bytes('{"query": "q"}'.encode("utf-16"))
    (tmp_path / "columns.tsv").write_bytes(b"query\tuser\nq\tu\n")
    for name, message in [
        ("none.jsonl", "no query log at"),
        ("empty.jsonl", "is empty"),
        ("empty.jsonl.gz", "is empty"),
        ("rows.parquet", "is empty"),
        ("cut.parquet", "truncated"),
        ("cut.jsonl.gz", "damaged or truncated"),
        ("wide.jsonl", "it is UTF-16; save it as UTF-8"),
        ("columns.tsv", "no column 'timestamp', which log.fields.timestamp names; it has query, user"),
        ("columns.parquet", "no column 'query', which log.fields.query names; it has text"),
    ]:
        with pytest.raises(SourceError, match=message):
            source(tmp_path / name, index.path).describe()


def test_describe_refuses_a_missing_index(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [{"query": "cat"}])
    with pytest.raises(SourceError, match="no index at"):
        source(log, tmp_path / "nowhere").describe()


@pytest.mark.parametrize("boost", [0.99, 0.001])
def test_a_title_boost_below_1_is_refused(index: LocalIndex, boost: float) -> None:
    raw = {"source": {"log": "log.jsonl", "index": str(index.path)}, "candidates": {"title_boost": boost}}
    with pytest.raises(ConfigError, match=f"title_boost = {boost:g}.*set it to 1 or more"):
        LocalSource(parse_config(raw))


@pytest.mark.parametrize(("ignored", "expected"), [(True, {"cat"}), (False, {"cat", "run", "who"})])
def test_stop_words_count_on_demand(index: LocalIndex, ignored: bool, expected: set[str]) -> None:
    section = {"log": "log.jsonl", "index": str(index.path), "local": {"ignore_stop_words": ignored}}
    (documents,) = LocalSource(parse_config({"source": section})).candidates([ask("the cat was")], top_k=9)
    assert not isinstance(documents, Rejected)
    assert {document.doc_id for document in documents} == expected


def test_a_parquet_log_must_hold_the_column_of_the_filter(tmp_path: Path, index: LocalIndex) -> None:
    pq.write_table(pa.table({"query": ["q"], "timestamp": [TIME]}), tmp_path / "log.parquet")
    with pytest.raises(SourceError, match=r"no column 'split', which log\.filter names"):
        source(tmp_path / "log.parquet", index.path, log_section=Log(filter={"split": "dev"})).describe()


def test_candidates_come_in_the_order_of_the_queries(tmp_path: Path, index: LocalIndex) -> None:
    opened: Source = pickle.loads(pickle.dumps(source("log", index.path)))  # noqa: S301  our own bytes
    first, second, third = opened.candidates([ask("cat"), ask("zebra"), ask("band")], top_k=1)
    assert isinstance(first, list)
    assert [document.doc_id for document in first] == ["cat"]
    assert isinstance(second, Rejected)
    assert second[:4] == ("FetchCandidates", "query", query_id("zebra"), "no_candidates")
    assert "zebra" in second.detail
    assert isinstance(third, list)
    assert [document.doc_id for document in third] == ["band"]


def test_one_failed_search_costs_one_query(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    search = LocalIndex.search

    def failing(self: LocalIndex, texts: list[str], **options: Any) -> Any:
        if texts == ["cat"]:
            raise OSError("disk gone")
        return search(self, texts, **options)

    monkeypatch.setattr(LocalIndex, "search", failing)
    first, second = source("log", index.path).candidates([ask("cat"), ask("band")], top_k=1)
    assert isinstance(first, Rejected)
    assert first.reason == "search_failed"
    assert "disk gone" in first.detail
    assert isinstance(second, list)


def test_an_index_that_is_replaced_in_mid_run_is_refused(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [{"query": "cat"}])
    build(tmp_path, CORPUS)
    night = source(log, tmp_path / "index")
    night.describe()
    build(tmp_path, CORPUS[:2])
    with pytest.raises(SourceError, match="was replaced during the run"):
        night.candidates([ask("cat")], top_k=1)


def test_events_of_all_files_flow_through_a_pipeline(tmp_path: Path, index: LocalIndex) -> None:
    write_lines(
        tmp_path / "a.jsonl",
        [{"query": "one"}, '{"query": "lone \\ud800"}', {"query": "no", "split": "test"}, "{"],
    )
    pq.write_table(pa.table({"query": ["two"], "split": ["dev"]}), tmp_path / "b.parquet")
    fields = LogFields(timestamp="", user="", clicks="clicks", impressions="")
    events = source(tmp_path, index.path, log_section=Log(fields=fields)).events()
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        # Behind a shuffle: what is read must survive every coder on its way.
        read = (
            pipeline
            | events
            | beam.Reshuffle()
            | beam.Map(lambda one: (type(one), ascii(outcomes([one])[0])))
        )
        assert_that(
            read,
            equal_to(
                [
                    (LogEvent, ascii(("a.jsonl:1", "one"))),
                    (LogEvent, ascii(("a.jsonl:2", "lone \ud800"))),
                    (LogEvent, ascii(("a.jsonl:3", "no"))),
                    (Rejected, ascii(("a.jsonl:4", "bad_json"))),
                    (LogEvent, ascii(("b.parquet:1", "two"))),
                ]
            ),
        )


def test_a_search_of_ubi_is_joined_over_files_beside_files_of_other_formats(
    tmp_path: Path, index: LocalIndex
) -> None:
    clicked = {"action_name": "click", "event_attributes": {"object": {"object_id": "d1"}}}
    write_lines(
        tmp_path / "events.jsonl", [clicked | {"query_id": "q1"}, clicked | {"query_id": "lost"}, "{"]
    )
    asked = {"query_id": "q1", "user_query": "one \ud800", "timestamp": TIME, "client_id": "c"}
    write_lines(tmp_path / "queries.jsonl", [asked, asked | {"query_id": ["q2"]}])
    (tmp_path / "more.tsv").write_text(f"query\ttimestamp\ntwo\t{TIME}\n", encoding="utf-8")
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        read = pipeline | source(tmp_path, index.path).events() | beam.Reshuffle()
        assert_that(
            read | beam.Map(lambda one: ascii((*outcomes([one])[0], getattr(one, "clicks", ())))),
            equal_to(
                [
                    ascii(("queries.jsonl:1", "one \ud800", ("d1",))),
                    ascii(("queries.jsonl:2", "one \ud800", ())),
                    ascii(("events.jsonl:2", "unknown_query", ())),
                    ascii(("events.jsonl:3", "bad_json", ())),
                    ascii(("more.tsv:2", "two", ())),
                ]
            ),
        )
