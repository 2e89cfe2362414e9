"""A published night is measured as it was published: both orders, from its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.evaluate.published import JudgedRun, evaluate_run, orders_of
from pipelines.evaluate.systems import LoadedSystem, System
from pipelines.nightly.run import run
from rerank_core.errors import JudgementError
from rerank_core.evaluation.significance import mean_interval
from rerank_core.text import query_id
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from tests.conftest import Night as Published
from tests.support.fakes import fake
from tests.support.tiny import DAY, Tiny, make_config
from tests.support.tiny_set import write_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "tiny")


def judged(output: Path, folder: Path, *, level: str = "document", **options: object) -> JudgedRun:
    name = "qrels" if level == "document" else "sentence_qrels"
    qrels = str(folder / name / "dev.tsv")
    return JudgedRun(str(output), str(folder / "queries.jsonl"), qrels, level=level, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def by_sentence(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Manifest]:
    """(output, judgements, manifest) of a night that scored sentences, but one of them. Read only."""
    folder = write_set(tmp_path_factory.mktemp("judged") / "tiny")
    output = tmp_path_factory.mktemp("by_sentence") / "output"
    evaluation = {
        "queries": str(folder / "queries.jsonl"),
        "qrels": str(folder / "qrels" / "dev.tsv"),
        "sentence_qrels": str(folder / "sentence_qrels" / "dev.tsv"),
    }
    config = make_config(
        tiny,
        output,
        evaluation=evaluation,
        candidates={"unit": "sentence"},
        output={"max_rejected_share": 0.5},
    )
    return output, folder, run(config, run_date=DAY, load=fake(nan_for="Solaris is a novel"))


def test_orders_of_units_and_of_documents_by_their_best_unit() -> None:
    rows = [
        {
            "query_id": "q",
            "doc_id": passage[0],
            "passage_id": passage,
            "rank": rank,
            "rank_before": rank_before,
            "bm25_score": bm25,
            "logit": logit,
        }
        for passage, rank, rank_before, bm25, logit in [
            ("a#0", 4, 2, 2.0, None),  # pruned by the cascade
            ("a#1", 1, 3, 2.0, 5.0),
            ("b#0", 2, 1, 3.0, 1.0),
            ("c#0", 3, 4, 1.0, 0.5),
        ]
    ]
    before, after = orders_of(rows, level="unit")
    assert before == {"q": [("b#0", 3.0), ("a#0", 2.0), ("a#1", 2.0), ("c#0", 1.0)]}
    assert after == {"q": [("a#1", 5.0), ("b#0", 1.0), ("c#0", 0.5), ("a#0", None)]}
    before, after = orders_of(rows, level="document")
    assert before == {"q": [("b", 3.0), ("a", 2.0), ("c", 1.0)]}
    assert after == {"q": [("a", 5.0), ("b", 1.0), ("c", 0.5)]}
    assert orders_of([], level="unit") == ({}, {})


@pytest.mark.parametrize("level", ["document", "unit"])
def test_its_figures_are_those_of_its_manifest(by_sentence: tuple[Path, Path, Manifest], level: str) -> None:
    output, folder, manifest = by_sentence
    found = evaluate_run(judged(output, folder, level=level))
    assert (found.fingerprint, found.queries) == (manifest.run_id, manifest.metrics[level]["queries"])
    for side, system in (("before", "bm25"), ("after", "reranked")):
        for measure, value in found.systems[system].means.items():
            assert value == pytest.approx(manifest.metrics[level][f"{side} {measure}"])
    before, after = (found.systems[system].by_query["nDCG@10"] for system in ("bm25", "reranked"))
    changes = [after[query] - before[query] for query in sorted(before)]
    gain, low, high = (manifest.metrics[level][f"gain nDCG@10{end}"] for end in ("", " low", " high"))
    assert gain == pytest.approx(sum(changes) / len(changes))
    assert (low, high) == pytest.approx(mean_interval(changes))
    assert found.systems["reranked"].f1 is not None
    assert found.systems["bm25"].f1 is None
    assert found.systems["bm25"].pairs == found.systems["reranked"].pairs


def test_pairs_that_the_night_could_not_score_are_counted(by_sentence: tuple[Path, Path, Manifest]) -> None:
    output, folder, manifest = by_sentence
    found = evaluate_run(judged(output, folder))
    assert found.systems["reranked"].failed == manifest.balance.pairs["rejected"] > 0
    assert found.systems["reranked"].missing == 0


def test_bm25_is_left_out_where_the_lists_were_cut(tiny: Tiny, folder: Path, tmp_path: Path) -> None:
    evaluation = {
        "queries": str(folder / "queries.jsonl"),
        "qrels": str(folder / "qrels" / "dev.tsv"),
    }
    config = make_config(tiny, tmp_path / "output", ranking={"top_n": 2}, evaluation=evaluation)
    metrics = run(config, run_date=DAY, load=fake()).metrics["document"]
    assert "after nDCG@10" in metrics
    assert not [name for name in metrics if name.startswith(("before", "gain"))]
    found = evaluate_run(judged(tmp_path / "output", folder))
    assert list(found.systems) == ["reranked"]
    assert "BM25's order is left out: the run published only the best documents" in found.notes[0]


def test_a_run_file_stands_beside_it_under_either_ids(night: Published, folder: Path) -> None:
    best = {"dune": 2.0, "messiah": 1.0}
    runs = [
        LoadedSystem(System(name, "run", f"{name}.trec"), run={query: best})
        for name, query in (("own", "q1"), ("ours", query_id("who wrote dune")))
    ]
    found = evaluate_run(judged(night.output, folder), runs).systems
    assert found["own"] == found["ours"]
    assert found["own"].by_query["MAP"][query_id("who wrote dune")] == 1.0
    assert found["own"].missing == 4
    graded = judged(night.output, folder, min_relevance=2)
    own = evaluate_run(graded, runs).systems["own"]
    assert own.means["MAP"] == 0.5  # messiah alone, at rank 2


def test_what_cannot_be_measured_is_refused(night: Published, folder: Path, tmp_path: Path) -> None:
    asked = judged(night.output, folder)
    with pytest.raises(ManifestError, match="no published run in"):
        evaluate_run(asked._replace(output=str(tmp_path)))
    with pytest.raises(ManifestError, match="no run 'nosuch'"):
        evaluate_run(asked._replace(run_id="nosuch"))
    with pytest.raises(JudgementError, match="ranked whole passages, to which judged sentences do not apply"):
        evaluate_run(judged(night.output, folder, level="unit"))
    with pytest.raises(JudgementError, match=r"dev.tsv has nothing relevant for any query of run"):
        evaluate_run(asked._replace(min_relevance=3))
    strange = LoadedSystem(System("old", "run", "old.trec"), run={"nosuch": {"dune": 1.0}})
    with pytest.raises(JudgementError, match="old.trec and run .*: the run ranks none of the"):
        evaluate_run(asked, [strange])
