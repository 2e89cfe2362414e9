"""The benchmark of BM25 on a toy set: both systems find what there is, and the figures have their names."""

from __future__ import annotations

import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from pathlib import Path

from benchmarks.bm25 import figures_of
from pipelines.evaluate.judged_sets import Selection, read_sets
from tests.support.local_data import CORPUS, write_lines


def test_both_systems_are_measured_on_the_same_questions(tmp_path: Path) -> None:
    write_lines(tmp_path / "toy" / "corpus.jsonl", CORPUS)
    write_lines(
        tmp_path / "toy" / "queries.jsonl",
        [{"_id": "q1", "text": "sleeping cats"}, {"_id": "q2", "text": "bands"}],
    )
    write_lines(
        tmp_path / "toy" / "qrels" / "dev.tsv", ["query-id\tcorpus-id\tscore", "q1\tcat\t1", "q2\tband\t1"]
    )
    with read_sets([tmp_path / "toy"], selection=Selection()) as (judged,):
        figures = figures_of(tmp_path / "toy", judged)
    assert figures["toy_questions"] == 2
    assert figures["toy_nightrank_ndcg_at_10"] == figures["toy_bm25s_ndcg_at_10"] == 100
    assert figures["toy_unstemmed_ndcg_at_10"] == 100
    assert figures["toy_bm25s_recall_at_100"] == 100
    assert figures["toy_over_bm25s"] == 1
