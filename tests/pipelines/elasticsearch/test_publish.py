"""Publishing back and loading, the parts that need no server."""

from __future__ import annotations

import datetime
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.app import app
from pipelines.elasticsearch import publish
from pipelines.elasticsearch.load import corpus_documents, kind_of, log_documents
from pipelines.elasticsearch.publish import (
    OWNER,
    Publication,
    index_name,
    outdated,
    parse_publication,
    query_documents,
    swap_actions,
)
from pipelines.elasticsearch.write import SAMPLED, Document, Sample, check_name, open_cluster
from pipelines.storage import runs
from rerank_core.errors import ConfigError, SourceError
from rerank_core.text import query_id
from tests.support.published_run import RUN_DATE, publish_run, score, text

NOW = datetime.datetime(2026, 3, 9, 3, tzinfo=datetime.UTC)


def publication(index: str, *, previous: str = "", whole: bool = True, days: int = 0) -> Publication:
    return Publication(index, index[-1], NOW - datetime.timedelta(days=days), whole, previous)


def known(*publications: Publication) -> dict[str, Publication]:
    return {one.index: one for one in publications}


# --- documents


def test_evidence_goes_along_where_there_is_some() -> None:
    row = {"doc_id": "d", "passage_id": "d", "score": 0.5, "rank": 1}
    assert publish._result(row | {"evidence": "Two here."}) == row | {"evidence": "Two here."}
    assert publish._result(row | {"evidence": None}) == row
    assert publish._result(row) == row  # of a run before there was any


def test_a_query_becomes_one_document_best_first(tmp_path: Path) -> None:
    manifest = publish_run(tmp_path, run_id="r1", queries=7, shards=2, results=3)
    files = runs.table_files(str(tmp_path), manifest, "reranked")
    found = {document.id: document.source for document in query_documents(files, manifest)}
    assert len(found) == 7
    source = found[query_id(text(4))]
    assert source["query"] == text(4)
    assert (source["run_id"], source["run_date"]) == ("r1", RUN_DATE)
    assert [(one["rank"], one["doc_id"], one["passage_id"]) for one in source["results"]] == [
        (1, "d1", "d1#0"),
        (2, "d2", "d2#0"),
        (3, "d3", "d3#0"),
    ]
    assert source["results"][0]["score"] == pytest.approx(score("r1", 4, 1))


@given(st.integers(0, 2000), st.integers(1, 30))
def test_a_sample_is_small_and_spread_over_all(count: int, size: int) -> None:
    sample = Sample(size)
    given_documents = [Document(str(number), {}) for number in range(count)]
    assert list(sample.through(given_documents)) == given_documents
    assert sample.count == count
    assert min(count, size) <= len(sample.documents) <= 2 * size + 1
    places = [int(one.id) for one in sample.documents]
    assert all(b - a == places[1] - places[0] for a, b in itertools.pairwise(places))
    assert SAMPLED <= 100


# --- names, swaps and what is kept


@pytest.mark.parametrize("name", ["", "Caps", "_x", "-x", "a*", "a,b", "a b", "a/b", "..", "a" * 201, "ä"])
def test_what_is_no_name_of_an_index_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--alias"):
        check_name(name, option="--alias")


def test_an_index_is_named_after_alias_and_run() -> None:
    assert index_name("search-en", "20260308-ab") == "search-en-20260308-ab"


def test_a_swap_is_both_halves_at_once() -> None:
    assert swap_actions("a", "a-1", "a-2") == [
        {"remove": {"index": "a-1", "alias": "a", "must_exist": True}},
        {"add": {"index": "a-2", "alias": "a"}},
    ]
    assert swap_actions("a", "", "a-2") == [{"add": {"index": "a-2", "alias": "a"}}]


def test_an_index_of_another_alias_is_not_ours() -> None:
    facts = {"alias": "a", "run_id": "1", "created_at": NOW.isoformat(), "whole": True, "previous": ""}
    assert parse_publication("a-1", {"_meta": {OWNER: facts}}, alias="a") == Publication(
        "a-1", "1", NOW, True, ""
    )
    assert parse_publication("a-b-1", {"_meta": {OWNER: {**facts, "alias": "a-b"}}}, alias="a") is None
    for foreign in ({}, {"_meta": {}}, {"_meta": {OWNER: "x"}}):
        assert parse_publication("a-1", foreign, alias="a") is None


def test_old_indices_go_by_the_order_in_which_they_were_served() -> None:
    chain = known(
        publication("a-1"),
        publication("a-2", previous="a-1"),
        publication("a-3", previous="a-2"),  # rolled back from: a-4 follows a-2
        publication("a-4", previous="a-2"),
    )
    assert outdated(chain, "a-4", keep=2, now=NOW) == ("a-3",)
    assert outdated(chain, "a-4", keep=1, now=NOW) == ("a-1", "a-3")
    assert outdated(chain, "a-4", keep=0, now=NOW) == ("a-1", "a-2", "a-3")


def test_half_made_indices_go_when_nobody_can_be_at_work_on_them() -> None:
    fresh, old = publication("a-2", whole=False), publication("a-3", whole=False, days=2)
    assert outdated(known(publication("a-1"), fresh, old), "a-1", keep=2, now=NOW) == ("a-3",)


@given(
    st.dictionaries(st.sampled_from("abcde"), st.sampled_from(["", *"abcdef"]), min_size=1),
    st.integers(0, 6),
    st.data(),
)
def test_what_is_served_never_goes_whatever_the_chain(previous: dict[str, str], keep: int, data: Any) -> None:
    current = data.draw(st.sampled_from(sorted(previous)))
    everything = known(*(publication(name, previous=before) for name, before in previous.items()))
    gone = outdated(everything, current, keep=keep, now=NOW)
    assert current not in gone
    assert len(everything) - len(gone) <= keep + 1
    if keep and previous[current] in everything:
        assert previous[current] not in gone


# --- load


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
        Document("1", {"title": "", "text": "x", "sentences": ["x"]})
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
        Document(
            "0:1",
            {"timestamp": "2026-03-02T10:00:00+00:00", "query": "a", "clicks": ["d"], "impressions": []},
        )
    ]
    assert rejected == {"query_not_text": 1}


# --- the command line


def call(*arguments: str) -> Any:
    from typer.testing import CliRunner

    return CliRunner().invoke(app, [*arguments])


@pytest.mark.parametrize("arguments", [[], ["out", "--rollback"]])
def test_a_run_or_a_rollback_not_both(arguments: list[str]) -> None:
    assert call("publish", *arguments, "--to", "http://localhost:1").exit_code == 2


@pytest.mark.parametrize("url", ["localhost:9200", "ftp://x", "https://me:secret@x:1", "http://"])
def test_a_url_that_cannot_be_used_is_named_without_its_secret(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="--to") as caught:
        open_cluster(url)
    assert "secret" not in str(caught.value)


def test_nobody_at_home(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1", queries=2)
    assert call("publish", str(tmp_path), "--to", "http://127.0.0.1:9").exit_code == 3
    assert call("publish", str(tmp_path / "none"), "--to", "http://127.0.0.1:9").exit_code == 3
    assert call("load", "sample_data", "--index", "x", "--to", "http://127.0.0.1:9").exit_code == 3
