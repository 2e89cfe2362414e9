"""Judged sets: which questions are asked over which candidates, and what cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluate.judged_sets import (
    JudgedSet,
    Selection,
    candidates,
    lowest_grade,
    open_index,
    read_set,
    read_sets,
    set_names,
)
from rerank_core.errors import ConfigError, JudgementError
from tests.support.tiny import CORPUS
from tests.support.tiny_set import QRELS, QUERIES, write_set


def read(folder: Path, **fields: Any) -> JudgedSet:
    return read_set(folder, selection=Selection(**fields), work=folder.parent / "work")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "tiny")


def ids(judged: JudgedSet) -> set[str]:
    return {query.query_id for query in judged.queries}


def test_the_split_and_questions_without_one_are_asked(folder: Path) -> None:
    judged = read(folder)
    assert (judged.name, ids(judged)) == ("tiny", {"q1", "q2", "q3", "q4"})
    assert {query.text for query in judged.queries} >= {"Who wrote Dune"}  # as a night would ask it
    assert judged.types == {"q1": "single", "q2": "bridge", "q3": "single", "q4": "bridge"}
    assert judged.qrels["q1"] == {"dune": 1, "messiah": 2}
    assert judged.counts["judged_but_unknown"] == 1  # q5 is of another split


def test_a_question_with_nothing_relevant_is_counted_and_not_asked(tmp_path: Path) -> None:
    folder = write_set(
        tmp_path / "tiny", qrels=["q1 dune 0", "q1 messiah 2", "q2 herbert 1", "q3 solaris -2"]
    )
    assert ids(read(folder)) == {"q1", "q2"}
    graded = read(folder, min_relevance=2)
    assert ids(graded) == {"q1"}
    assert (graded.counts["without_relevant"], graded.qrels) == (2, {"q1": {"dune": 0, "messiah": 2}})


def test_max_queries_draws_by_hash_and_counts_the_rest(folder: Path) -> None:
    orders = [[query.query_id for query in read(folder, max_queries=n).queries] for n in (2, 3, 0)]
    assert orders[0] == orders[2][:2]
    assert orders[1] == orders[2][:3]
    assert read(folder, max_queries=3).counts["not_asked"] == 1


def test_questions_without_candidates_of_their_own_can_be_left_out(folder: Path) -> None:
    judged = read(folder, own_only=True)
    assert ids(judged) == set(judged.own) == {"q2"}
    assert (judged.counts["without_own_candidates"], judged.counts["not_asked"]) == (3, 0)
    with pytest.raises(JudgementError, match="no judged query of split 'dev' has candidates of its own"):
        read(write_set(folder.parent / "other", qrels=["q1 dune 1"]), own_only=True)


def test_candidates_are_bm25s_best(folder: Path) -> None:
    judged = read(folder, top_k=2)
    groups, rejected = candidates(judged, judged.queries)
    assert [group.query for group in groups] == list(judged.queries)
    assert not rejected
    assert {len(group.candidates) for group in groups} <= {1, 2}
    for group in groups:
        (found,) = judged.bm25.search([group.query.text], top_k=2)
        assert [one.candidate.doc_id for one in group.candidates] == [one.doc_id for one in found]


def test_own_candidates_stand_in_bm25s_order_and_the_unfound_come_last(folder: Path) -> None:
    judged = read(folder, own=True)
    assert list(judged.own) == ["q2"]
    own = [(one.doc_id, one.bm25_rank) for one in judged.own["q2"]]
    assert own == [("herbert", 1), ("rain", 2), ("tacoma", 3)]
    assert [one.bm25_score > 0 for one in judged.own["q2"]] == [True, False, False]
    assert judged.own["q2"][1].text.startswith("Rain falls")
    groups, _ = candidates(judged, judged.queries)
    sizes = {group.query.query_id: len(group.candidates) for group in groups}
    assert sizes["q2"] == 3
    assert sizes["q1"] > 3  # has no list of its own


def test_an_own_candidate_must_be_in_the_corpus(tmp_path: Path) -> None:
    queries = [QUERIES[1] | {"candidates": ["herbert", "nosuch"]}]
    folder = write_set(tmp_path / "tiny", queries=queries)
    assert read(folder).own == {}
    with pytest.raises(
        JudgementError, match="query 'q2' has the candidate 'nosuch', which is not in corpus.jsonl"
    ):
        read(folder, own=True)


def test_units_are_the_corpus_own_sentences(folder: Path) -> None:
    judged = read(folder, level="unit")
    assert ids(judged) == {"q1", "q2", "q3"}
    assert judged.qrels["q3"] == {"solaris#0": 1, "solaris#1": 1}
    groups, _ = candidates(judged, judged.queries)
    found = {one.candidate.passage_id for group in groups for one in group.candidates}
    assert {"dune#0", "dune#1", "solaris#1"} <= found


def test_a_question_without_hits_has_no_group_and_a_record(tmp_path: Path) -> None:
    queries = [*QUERIES, {"_id": "q9", "text": "qqqq zzzz"}, {"_id": "q8", "text": " ?! "}]
    judged = read(write_set(tmp_path / "tiny", queries=queries, qrels=[*QRELS, "q9 dune 1", "q8 dune 1"]))
    groups, rejected = candidates(judged, judged.queries)
    assert (len(judged.queries), len(groups)) == (6, 4)
    assert {record.record for record in rejected if record.reason == "no_candidates"} == {"q8", "q9"}


def test_the_index_is_kept_for_this_very_corpus(folder: Path, tmp_path: Path) -> None:
    first = open_index(folder, tmp_path / "work")
    built = (first.path / "nightrank_index.json").stat().st_mtime_ns
    assert open_index(folder, tmp_path / "work").path == first.path
    assert (first.path / "nightrank_index.json").stat().st_mtime_ns == built
    write_set(folder, corpus=[*CORPUS[:5], "no json"])
    assert open_index(folder, tmp_path / "work").documents == 5
    assert read(folder).counts["corpus_lines_rejected"] == 1


def test_what_cannot_be_measured_is_named(folder: Path) -> None:
    with pytest.raises(
        JudgementError, match=r"no judgements at .*test.tsv \(splits there: dev\); choose one of"
    ):
        read(folder, split="test")
    with pytest.raises(JudgementError, match="no query of split 'dev' has a judgement of 3 or more"):
        read(folder, min_relevance=3)
    (folder / "sentence_qrels" / "dev.tsv").unlink()
    with pytest.raises(JudgementError, match=r"\(splits there: none\); use --level document"):
        read(folder, level="unit")
    with pytest.raises(JudgementError, match="cannot read"):
        read(folder.parent)


def test_sets_are_read_together_with_grades_of_their_own(folder: Path, tmp_path: Path) -> None:
    other = write_set(tmp_path / "other")
    with read_sets([folder, other], selection=Selection(), min_relevance={"tiny": 2, "": 1}) as (tiny, whole):
        assert (ids(tiny), len(whole.queries)) == ({"q1"}, 4)
        index = tiny.bm25.path
        assert index.is_dir()
    assert not index.exists()
    with read_sets([folder], selection=Selection(), work=tmp_path / "work") as (tiny,):
        pass
    assert tiny.bm25.path.is_dir()


def test_grades_and_names_of_sets(folder: Path, tmp_path: Path) -> None:
    assert lowest_grade(2, "tiny") == 2
    assert [lowest_grade({"tiny": 3, "": 2}, name) for name in ("tiny", "other")] == [3, 2]
    assert lowest_grade({"tiny": 3}, "other") == 1
    assert set_names([folder, tmp_path / "other"]) == ["tiny", "other"]
    with pytest.raises(ConfigError, match="two sets are called 'tiny'; give each once"):
        set_names([folder, tmp_path / "elsewhere" / "tiny"])


def test_a_compressed_set_is_the_same_set(folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed" / "tiny"
    for path in (path for path in folder.rglob("*") if path.is_file()):
        target = packed / path.relative_to(folder).with_name(f"{path.name}.gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
    plain, other = read(folder, own=True), read(packed, own=True)
    assert other[:5] == plain[:5]
    assert other.counts == plain.counts
    with pytest.raises(JudgementError, match=r"splits there: dev"):
        read(packed, split="none")
