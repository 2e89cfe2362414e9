"""Judgements: both layouts, errors that name the line, and the way to Nightrank's query ids."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.errors import JudgementError
from rerank_core.evaluation.qrels import (
    BeirQuery,
    by_query_id,
    read_qrels,
    read_queries,
    read_run,
    read_sentence_qrels,
)
from rerank_core.text import query_id

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "file"
        path.write_bytes(text.encode("utf-8"))
        return path

    return to_file


def test_queries_with_and_without_the_optional_fields(write: Write) -> None:
    rows = [
        {"_id": "1", "text": "who?", "answers": ["Ann", "Ann B."], "split": "dev", "type": "bridge"},
        {"_id": "2", "text": "café"},
        {"_id": "3", "text": "null answers", "answers": None, "split": None, "candidates": ["x", "y"]},
    ]

    queries = read_queries(write("\n\n".join(json.dumps(row) for row in rows)))

    assert queries == {
        "1": BeirQuery("who?", ("Ann", "Ann B."), "dev", "bridge"),
        "2": BeirQuery("café", (), ""),
        "3": BeirQuery("null answers", (), "", "", ("x", "y")),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"file:2: Expecting property name .* at character 2 of 5; each line must hold one JSON"),
        ("[1, 2]", "file:2: expected an object with _id and text, found a list"),
        ('{"_id": true, "text": "t"}', "file:2: _id is True; it must be a string"),
        ('{"_id": " ", "text": "t"}', "file:2: _id is ' '; it must not be empty"),
        ('{"_id": "7", "text": 7}', "file:2: text is 7; it must be a string"),
        ('{"_id": "7"}', "file:2: text is None; it must be a string"),
        ('{"_id": "7", "text": "t", "answers": {}}', "file:2: answers must be a list of strings, not a dict"),
        (
            '{"_id": "7", "text": "t", "candidates": [{}]}',
            "file:2: candidates must be a list of strings, not a list",
        ),
        ("[" * 5000, "file:2: the line's JSON cannot be decoded: RecursionError"),
        ('{"_id": ' + "9" * 5000 + "}", "file:2: the line's JSON cannot be decoded: ValueError"),
        ('{"_id": "1", "text": "t"}', "file:2: _id '1' occurs twice"),
    ],
)
def test_a_bad_query_is_named_by_line_and_value(write: Write, line: str, message: str) -> None:
    with pytest.raises(JudgementError, match=message):
        read_queries(write('{"_id": "1", "text": "fine"}\n' + line))


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td 2\t0\nq2\td1\t1\n",
        "\ufeffquery-id\tcorpus-id\tscore\r\nq1\td1\t2\r\nq1\td 2\t0\r\nq2\td1\t1",
        "q1\t0\td1\t2\nq1\t0\td 2\t0\n\nq2\t0\td1\t1\n",
        "q1 0 d1 2\nq1\t0\td 2\t0\nq2   0 d1 1\n",
    ],
)
def test_qrels_in_either_layout(write: Write, text: str) -> None:
    assert read_qrels(write(text)) == {"q1": {"d1": 2, "d 2": 0}, "q2": {"d1": 1}}


def test_a_pair_judged_twice_keeps_the_higher_relevance(write: Write) -> None:
    assert read_qrels(write("q 0 d 2\nq 0 d 1\nq 0 e -1\nq 0 e -2")) == {"q": {"d": 2, "e": -1}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1\td1\thigh", "file:2: relevance 'high' is not an integer"),
        ("q1\td1\t0.5", "file:2: relevance '0.5' is not an integer"),
        ("q1\td1", "file:2: 2 columns in 'q1\\\\td1'; expected 'query-id corpus-id score' or"),
        ("q1 0 d1 1 extra", "file:2: 5 columns"),
    ],
)
def test_a_bad_judgement_is_named_by_line_and_value(write: Write, line: str, message: str) -> None:
    with pytest.raises(JudgementError, match=message):
        read_qrels(write("query-id\tcorpus-id\tscore\n" + line))


def test_sentence_qrels_are_keyed_by_passage_id(write: Write) -> None:
    path = write("query-id\tcorpus-id\tsentence\tscore\nq1\td1\t0\t1\nq1\td1\t3\t1\nq2\td9\t12\t0\n")

    assert read_sentence_qrels(path) == {"q1": {"d1#0": 1, "d1#3": 1}, "q2": {"d9#12": 0}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1\td1\tfirst\t1", "file:1: sentence 'first' is not an integer"),
        ("q1\td1\t-1\t1", "file:1: sentence -1 is negative"),
        ("q1\td1\t1", "file:1: 3 columns"),
    ],
)
def test_a_bad_sentence_judgement_is_named(write: Write, line: str, message: str) -> None:
    with pytest.raises(JudgementError, match=message):
        read_sentence_qrels(write(line))


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(JudgementError, match=r"cannot read .*absent"):
        read_qrels(tmp_path / "absent")
    with pytest.raises(JudgementError, match="is not a local file"):
        read_queries("gs://bucket/queries.jsonl")
    (tmp_path / "latin").write_bytes(b"q\td\xe9\t1\n")
    with pytest.raises(JudgementError, match=r"latin:1: byte 0xe9 at position 4 is not UTF-8"):
        read_qrels(tmp_path / "latin")


def test_files_as_programs_save_them(tmp_path: Path) -> None:
    (tmp_path / "queries").write_bytes(
        gzip.compress(
            b'\xef\xbb\xbf{"_id": 7, "text": ["who?"], "answers": 1984, "split": null}\r\n'
            b'{"_id": 8.0, "text": "b", "type": NaN}'
        )
    )
    assert read_queries(tmp_path / "queries") == {
        "7": BeirQuery("who?", ("1984",), ""),
        "8": BeirQuery("b", (), ""),
    }
    (tmp_path / "qrels").write_bytes(b"\xef\xbb\xbfquery-id\tcorpus-id\tscore\r\n7\td 1\t1.0\r\n")
    assert read_qrels(tmp_path / "qrels") == {"7": {"d 1": 1}}
    (tmp_path / "wide").write_bytes("7\td1\t1\n".encode("utf-16"))
    with pytest.raises(JudgementError, match="cannot read .*wide: it is UTF-16; save it as UTF-8"):
        read_qrels(tmp_path / "wide")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
fields = st.sampled_from(["_id", "text", "answers", "candidates", "split", "type"])


@given(st.dictionaries(fields, anything) | anything)
def test_any_query_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, row: object) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "queries"
    path.write_text(json.dumps(row), encoding="utf-8")
    try:
        queries = read_queries(path)
    except JudgementError:
        return
    for name, query in queries.items():
        " ".join([name, query.text, *query.answers, *query.candidates, query.split, query.type]).encode()


@given(st.binary(max_size=30) | st.text(alphabet="qd01\t \x00\n.", max_size=30).map(str.encode))
def test_any_judgements_are_read_or_named(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "qrels"
    path.write_bytes(content)
    for read in (read_qrels, read_sentence_qrels, read_run):
        with contextlib.suppress(JudgementError):
            read(path)


def test_an_opener_reads_from_elsewhere() -> None:
    assert read_qrels("gs://bucket/q", opener=lambda path: io.BytesIO(f"q 0 {path} 1".encode())) == {
        "q": {"gs://bucket/q": 1}
    }


def test_judgements_meet_the_log_under_its_ids() -> None:
    queries = {
        "a": BeirQuery("Who wrote Dune?", (), ""),
        "b": BeirQuery("  who WROTE dune ", (), ""),
        "c": BeirQuery("unjudged", (), ""),
    }
    qrels = {"a": {"d1": 1, "d2": 2}, "b": {"d2": 1, "d3": 1}, "elsewhere": {"d1": 1}}

    assert by_query_id(queries, qrels) == {query_id("who wrote Dune"): {"d1": 1, "d2": 2, "d3": 1}}


def test_a_run_is_read_best_first(write: Write) -> None:
    lines = [
        "q1 Q0 d1 2 3.5 tag",
        "q1 Q0 d2 1 7e0 tag",
        "q2\tQ0\td9\t1\t-1\ttag",
        "q1 Q0 d0 4 3.5 tag",
        "q1 Q0 d3 2 3.5 tag",
    ]

    run = read_run(write("\n".join(lines)))

    assert run == {"q1": {"d2": 7.0, "d1": 3.5, "d3": 3.5, "d0": 3.5}, "q2": {"d9": -1.0}}
    assert list(run["q1"]) == ["d2", "d1", "d3", "d0"]  # equal scores by rank, then by doc id


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 d2 1 3.5", "file:2: 5 columns in 'q1 Q0 d2 1 3.5'; expected 'qid Q0 docid rank score tag'"),
        ("q1 Q0 d2 one 3.5 tag", "file:2: rank 'one' is not an integer"),
        ("q1 Q0 d2 1 high tag", "file:2: score 'high' is not a finite number"),
        ("q1 Q0 d2 1 nan tag", "file:2: score 'nan' is not a finite number"),
        ("q1 Q0 d1 2 1.0 tag", "file:2: query 'q1' ranks 'd1' twice"),
    ],
)
def test_a_bad_run_names_the_line(write: Write, line: str, message: str) -> None:
    with pytest.raises(JudgementError, match=message):
        read_run(write(f"q1 Q0 d1 1 9.5 tag\n{line}\n"))
