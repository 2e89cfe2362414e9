"""Publishing back, the parts that need no server."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.elasticsearch import publish
from pipelines.elasticsearch.publish import (
    OWNER,
    Publication,
    index_name,
    outdated,
    parse_publication,
    query_documents,
    swap_actions,
)
from pipelines.storage import runs
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


def test_a_list_that_was_kept_has_its_date(tmp_path: Path) -> None:
    manifest = publish_run(tmp_path, run_id="r1", queries=2, shards=1)
    (file,) = runs.table_files(str(tmp_path), manifest, "reranked")
    rows = pq.ParquetFile(file).read()
    kept = pc.if_else(pc.equal(rows["query_id"], query_id(text(1))), "2026-03-01", None)
    at = rows.schema.get_field_index("stale_since")
    pq.write_table(rows.set_column(at, rows.schema.field(at), kept), file)
    found = {document.id: document.source for document in query_documents([file], manifest)}
    assert found[query_id(text(1))]["stale_since"] == "2026-03-01"
    assert "stale_since" not in found[query_id(text(0))]
    pq.write_table(rows.drop_columns(["stale_since"]), file)  # as of a run before there was such a thing
    assert not any("stale_since" in document.source for document in query_documents([file], manifest))


# --- names, swaps and what is kept


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
