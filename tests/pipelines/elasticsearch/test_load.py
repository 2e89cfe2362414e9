"""Loading, the parts that need no server."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.elasticsearch.load import corpus_documents, kind_of, log_documents
from pipelines.elasticsearch.write import IndexDocument
from rerank_core.errors import SourceError


def lines(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_a_corpus_and_a_log_are_told_apart(tmp_path: Path) -> None:
    assert kind_of("sample_data") == "corpus"
    assert kind_of("sample_data/query_log.jsonl") == "log"
    assert kind_of(lines(tmp_path / "c.jsonl", {"_id": "1", "text": "x"})) == "corpus"
    for record in ({"a": 1}, 7, [1], "query"):
        with pytest.raises(SourceError, match="neither"):
            kind_of(lines(tmp_path / "x.jsonl", record))
    with pytest.raises(SourceError, match="no query log"):
        kind_of(str(tmp_path / "missing.jsonl"))


def test_what_is_no_passage_is_counted(tmp_path: Path) -> None:
    path = lines(tmp_path / "c.jsonl", {"_id": "1", "text": "x", "sentences": ["x"]}, {"text": "y"}, 5)
    rejected: Counter[str] = Counter()
    assert list(corpus_documents(path, rejected)) == [
        IndexDocument("1", {"title": "", "text": "x", "sentences": ["x"]})
    ]
    assert rejected == {"no_id": 1, "bad_json": 1}


def test_an_event_is_its_place_in_the_log(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "l.jsonl",
        {"query": "a", "timestamp": "2026-03-02T10:00:00Z", "clicks": ["d"]},
        {"query": 7},
    )
    rejected: Counter[str] = Counter()
    assert list(log_documents(path, rejected)) == [
        IndexDocument(
            "0:1",
            {"timestamp": "2026-03-02T10:00:00+00:00", "query": "a", "clicks": ["d"], "impressions": []},
        )
    ]
    assert rejected == {"query_not_text": 1}


def test_a_search_and_its_clicks_may_be_in_two_files(tmp_path: Path) -> None:
    clicked = {"action_name": "click", "event_attributes": {"object": {"object_id": "d"}}}
    asked = {"user_query": "a", "timestamp": "2026-03-02T10:00:00Z"}
    lines(tmp_path / "ubi_events.jsonl", *(clicked | {"query_id": n} for n in (1, 2, 3)))
    lines(tmp_path / "ubi_queries.jsonl", *(asked | {"query_id": n} for n in (1, 2)))
    lines(tmp_path / "z.jsonl", asked | {"query": "b"})
    rejected: Counter[str] = Counter()
    documents = list(log_documents(str(tmp_path), rejected))
    found = sorted((one.source["query"], one.source["clicks"]) for one in documents)
    assert found == [("a", ["d"]), ("a", ["d"]), ("b", [])]
    assert len({one.id for one in documents}) == 3
    assert rejected == {"unknown_query": 1}
