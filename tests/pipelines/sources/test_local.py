"""The embedded source: a real index in a folder, real log files, one real pipeline."""

from __future__ import annotations

import datetime
import gzip
import json
import math
import pickle
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.sources import Source, SourceError
from pipelines.sources.bm25_index import METADATA, LocalIndex, build_index
from pipelines.sources.local import LocalSource
from pipelines.sources.log_files import log_files, read_events
from rerank_core.config import Config, Log, LogFields, parse_config
from rerank_core.text import query_id
from schemas.records import LogEvent, Query, Rejected

FIELDS = LogFields()
TIME = "2026-03-02T10:00:00+00:00"
CORPUS: list[dict[str, Any]] = [
    {
        "_id": "who",
        "title": "The Who",
        "text": "An English rock band.",
        "sentences": ["An English rock band."],
    },
    {"_id": "band", "title": "Bands", "text": "A band plays songs; bands sing."},
    {"_id": "run", "title": "", "text": "She runs and was running."},
    {"_id": "cat", "title": "Cat", "text": "Cats sleep."},
]


def write_lines(path: Path, records: list[Any]) -> Path:
    """Strings are written as they are, anything else as JSON."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def build(folder: Path, records: list[Any]) -> LocalIndex:
    build_index(write_lines(folder / "corpus.jsonl", records), folder / "index")
    return LocalIndex(folder / "index")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> LocalIndex:
    return build(tmp_path_factory.mktemp("corpus"), CORPUS)


def found(index: LocalIndex, text: str, *, top_k: int = 10) -> list[str]:
    (documents,) = index.search([text], top_k=top_k)
    return [document.doc_id for document in documents]


# --- build_index


def test_a_beir_folder_and_its_corpus_file_give_one_index(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpus.jsonl", CORPUS)
    report = build_index(tmp_path, tmp_path / "a" / "index")
    other = build_index(tmp_path / "corpus.jsonl", tmp_path / "b")
    assert (report.documents, report.rejected, report.path) == (4, {}, tmp_path / "a" / "index")
    assert report.fingerprint == other.fingerprint
    opened = LocalIndex(report.path)
    assert (opened.documents, opened.fingerprint) == (4, report.fingerprint)


def test_progress_adds_up_to_the_lines(tmp_path: Path) -> None:
    progress: list[int] = []
    corpus = write_lines(tmp_path / "corpus.jsonl", [{"_id": n, "text": "a"} for n in range(2500)])
    build_index(corpus, tmp_path / "index", on_progress=progress.append)
    assert progress == [1000, 1000, 500]


def test_bad_lines_are_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
    lines = [
        {"_id": "a", "text": "kept"},
        '{"_id": "b", "text": ',
        "[1]",
        {"text": "no id"},
        {"_id": " ", "text": "blank id"},
        {"_id": "c", "title": None, "text": " "},
        {"_id": "d", "text": ["a"]},
        {"_id": "e", "text": "a", "sentences": "a"},
        {"_id": "a", "text": "again"},
        {"_id": 7, "title": "only a title"},
        '{"_id": "f", "text": "lone \\ud800 surrogate"}',
        "",
    ]
    report = build_index(write_lines(tmp_path / "corpus.jsonl", lines), tmp_path / "index")
    assert report.documents == 3
    assert report.rejected == {"bad_field": 2, "bad_json": 3, "duplicate_id": 1, "empty": 1, "no_id": 2}
    rejected = [json.loads(line) for line in (tmp_path / "index" / "rejected.jsonl").read_text().splitlines()]
    assert len(rejected) == sum(report.rejected.values())
    assert rejected[0]["record"] == "corpus.jsonl:2"
    assert all(entry["reason"] in report.rejected and entry["detail"] for entry in rejected)
    opened = LocalIndex(tmp_path / "index")
    assert found(opened, "kept again") == ["a"]
    assert opened.search(["surrogate"], top_k=1)[0][0].text == "lone  surrogate"
    assert found(opened, "only a title") == ["7"]


@pytest.mark.parametrize("changed", [{"_id": "x"}, {"title": "x"}, {"text": "x"}, {"sentences": ["x"]}])
def test_the_fingerprint_is_of_the_content(tmp_path: Path, changed: dict[str, Any]) -> None:
    corpus = write_lines(tmp_path / "corpus.jsonl", CORPUS)
    before = build_index(corpus, tmp_path / "index").fingerprint
    write_lines(corpus, [CORPUS[0] | changed, *CORPUS[1:]])
    assert build_index(corpus, tmp_path / "index").fingerprint != before
    assert LocalIndex(tmp_path / "index").fingerprint != before


def test_a_corpus_without_documents_leaves_the_old_index(tmp_path: Path) -> None:
    before = build(tmp_path, CORPUS)
    for lines in (["not json"], []):
        with pytest.raises(SourceError, match=r"none of its \d lines holds a document"):
            build_index(write_lines(tmp_path / "bad.jsonl", lines), tmp_path / "index")
    assert LocalIndex(tmp_path / "index").fingerprint == before.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "corpus.jsonl", "index"]


def test_an_interrupted_build_leaves_no_index(tmp_path: Path) -> None:
    def interrupt(lines: int) -> None:
        raise KeyboardInterrupt

    corpus = write_lines(tmp_path / "corpus.jsonl", CORPUS)
    with pytest.raises(KeyboardInterrupt):
        build_index(corpus, tmp_path / "index", on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_what_is_no_index_is_not_overwritten(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.jsonl", CORPUS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(SourceError, match="stays untouched"):
        build_index(corpus, tmp_path / "mine")
    with pytest.raises(SourceError, match="is a file"):
        build_index(corpus, corpus)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    assert build_index(corpus, tmp_path / "empty").documents == 4


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no corpus at .*corpus\.jsonl"):
        build_index(tmp_path, tmp_path / "index")


# --- LocalIndex


def test_missing_and_damaged_indexes_say_what_to_do(tmp_path: Path) -> None:
    build(tmp_path, CORPUS)
    folder, metadata = tmp_path / "index", tmp_path / "index" / METADATA
    whole = json.loads(metadata.read_text())
    for content, message in [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        (json.dumps(whole | {"format": 99}), "has format 99, this version reads 1"),
        (json.dumps(whole | {"documents": None}), "is damaged"),
        (json.dumps(whole | {"documents": 5}), "holds 4 documents.*says 5"),
    ]:
        metadata.write_text(content)
        with pytest.raises(SourceError, match=f"{message}.*nightrank index CORPUS --to {folder}"):
            LocalIndex(folder)
    metadata.write_text(json.dumps(whole))
    next((folder / "tantivy").glob("*.store")).unlink()
    with pytest.raises(SourceError, match="is damaged"):
        LocalIndex(folder)
    metadata.unlink()
    with pytest.raises(SourceError, match=f"is no Nightrank index.*{METADATA}"):
        LocalIndex(folder)
    with pytest.raises(SourceError, match=r"no index at .*nightrank index"):
        LocalIndex(tmp_path / "nowhere")


def test_documents_come_back_whole(index: LocalIndex) -> None:
    (documents,) = index.search(["rock"], top_k=5)
    (document,) = documents
    assert document[:4] == ("who", "The Who", "An English rock band.", ("An English rock band.",))
    assert document.bm25_score > 0
    assert document.bm25_rank == 1


def test_the_score_is_bm25_of_text_and_boosted_title(tmp_path: Path) -> None:
    def bm25(times: int, length: int, mean: float) -> float:
        idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))  # one of three documents holds the word
        return idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / mean))

    records = [
        {"_id": "a", "title": "mango", "text": "x y z"},
        {"_id": "b", "title": "x y", "text": "mango and mango"},
        {"_id": "c", "title": "x y z", "text": "x y z x y z"},
    ]
    (documents,) = build(tmp_path, records).search(["mango"], top_k=3, title_boost=2.0)
    scores = {document.doc_id: document.bm25_score for document in documents}
    assert scores == pytest.approx({"a": 2 * bm25(1, 1, 2.0), "b": bm25(2, 3, 4.0)}, abs=1e-4)


def test_words_match_by_their_stems(index: LocalIndex) -> None:
    assert found(index, "run") == ["run"]
    assert found(index, "BANDS") == ["band", "who"]


def test_stop_words_count_only_where_there_is_nothing_else(index: LocalIndex) -> None:
    assert found(index, "the cat was") == ["cat"]
    assert set(found(index, "was the")) == {"run", "who"}
    assert found(index, "the who") == ["who"]


def test_a_title_boost_of_nearly_nothing_changes_the_order(tmp_path: Path) -> None:
    records = [
        {"_id": "text", "title": "x", "text": "mango mango mango"},
        {"_id": "title", "title": "mango", "text": "x x x"},
        {"_id": "none", "title": "y", "text": "y"},
    ]
    index = build(tmp_path, records)
    for boost, first in [(9.0, "title"), (0.001, "text")]:
        (documents,) = index.search(["mango"], top_k=3, title_boost=boost)
        assert documents[0].doc_id == first


@pytest.mark.parametrize(
    "text",
    [
        'AND OR NOT "quotes" (parens) title:* ~ ^ \\',
        "cat AND",
        'cat "',
        "cat (((",
        "title:cat",
        "+cat -cat",
        "cat~2 cat^9",
        "/cat.*/",
        "[cat TO dog}",
        "cat 😀",
        "cat \ud800\x00",
        "cat " * 500,
        "c" * 5000 + " cat",
    ],
)
def test_text_is_never_query_syntax(index: LocalIndex, text: str) -> None:
    assert set(found(index, text)) <= {"cat"}
    assert ("cat" in text) == ("cat" in found(index, text))


@pytest.mark.parametrize("text", ["", "?!", "😀", "\ud800", '"*"', "zebra"])
def test_no_word_of_the_index_gives_no_document(index: LocalIndex, text: str) -> None:
    assert found(index, text) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.integers(1, 4))
def test_any_text_can_be_searched(index: LocalIndex, text: str, top_k: int) -> None:
    (documents,) = index.search([text], top_k=top_k)
    assert [document.bm25_rank for document in documents] == list(range(1, len(documents) + 1))
    assert len(documents) <= top_k
    order = [(-document.bm25_score, document.doc_id) for document in documents]
    assert order == sorted(order)


def test_a_tie_at_the_cut_is_decided_by_doc_id(tmp_path: Path) -> None:
    records = [{"_id": f"d{n:03}", "text": "same words"} for n in range(300)]
    records += [
        {"_id": "top", "text": "same words words"},
        {"_id": "low", "text": "same other thing entirely"},
    ]
    index = build(tmp_path, records[::-1])
    for top_k in (1, 2, 7, 100, 301, 302, 400):
        expected = ["top", *(f"d{n:03}" for n in range(300)), "low"][:top_k]
        assert found(index, "same words", top_k=top_k) == expected


# --- the log


def read(path: Path, fields: LogFields = FIELDS, **log_filter: str) -> list[LogEvent | Rejected]:
    return list(read_events(path, fields, log_filter=log_filter))


def outcomes(records: list[LogEvent | Rejected]) -> list[tuple[str, str]]:
    return [(one.record, one.reason if isinstance(one, Rejected) else one.query) for one in records]


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
        b'{"query": "q", "timestamp": 1772445600, "clicks": "d1"}',
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
    lines = "".join(json.dumps({"query": f"q{n * n}", "timestamp": n}) + "\n" for n in range(1000))
    path.write_bytes(gzip.compress(lines.encode()))
    assert len(read(path)) == 1000
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SourceError, match="cut short"):
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
    for name in ("b.jsonl", "a.parquet", "c.json.gz", "_SUCCESS", ".a.jsonl", "readme.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in log_files(str(tmp_path))] == ["a.parquet", "b.jsonl", "c.json.gz"]
    assert [path.name for path in log_files(str(tmp_path / "*.jsonl"))] == ["b.jsonl"]
    assert [path.name for path in log_files(str(tmp_path / "readme.txt"))] == ["readme.txt"]
    for missing in ("none.jsonl", "*.csv"):
        with pytest.raises(SourceError, match="no query log at"):
            log_files(str(tmp_path / missing))
    with pytest.raises(SourceError, match="copy it here"):
        log_files("gs://bucket/log.jsonl")


# --- LocalSource


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
    (tmp_path / "plain.jsonl.gz").write_bytes(b"{}\n")
    for name, message in [
        ("none.jsonl", "no query log at"),
        ("empty.jsonl", "is empty"),
        ("empty.jsonl.gz", "is empty"),
        ("rows.parquet", "is empty"),
        ("cut.parquet", "cut short"),
        ("plain.jsonl.gz", "damaged"),
        ("columns.parquet", "no column 'query', which log.fields.query names; it has text"),
    ]:
        with pytest.raises(SourceError, match=message):
            source(tmp_path / name, index.path).describe()


def test_describe_refuses_a_missing_index(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [{"query": "cat"}])
    with pytest.raises(SourceError, match="no index at"):
        source(log, tmp_path / "nowhere").describe()


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
