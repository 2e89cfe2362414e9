"""Systems side by side: what is measured is what a night serves, and nothing that failed is hidden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluate.judged_sets import JudgedSet, Selection, candidates, read_set
from pipelines.evaluate.run import evaluate, evaluate_set
from pipelines.evaluate.systems import LoadedSystem, System
from pipelines.nightly.run import run
from rerank_core.errors import ConfigError, JudgementError
from rerank_core.evaluation.tag_ablation import MODES
from tests.conftest import MakeConfig
from tests.support import tiny
from tests.support.fakes import FakeScorer, fake
from tests.support.tiny_set import QRELS, QUERIES, write_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "tiny")


def read(folder: Path, **fields: Any) -> JudgedSet:
    return read_set(folder, selection=Selection(**fields), work=folder.parent / "work")


BM25 = LoadedSystem(System("bm25", "bm25"))


def model(name: str = "fake", *, modes: tuple[str, ...] = ("none",), **options: Any) -> LoadedSystem:
    return LoadedSystem(
        System(name, "model", "", "onnx"), scorer=FakeScorer(name, **options), tag_modes=modes
    )


@pytest.mark.parametrize("level", ["document", "unit"])
def test_what_is_measured_is_what_a_night_serves(
    folder: Path, make_config: MakeConfig, tmp_path: Path, level: str
) -> None:
    """Tags, inputs, ties and order are the night's own: the same figures, by a scorer that reads every character."""
    qrels = tmp_path / "qrels.tsv"
    name = "qrels" if level == "document" else "sentence_qrels"
    qrels.write_text((folder / name / "dev.tsv").read_text().replace("q5", "q9"))  # of another split
    judgements = {"queries": str(folder / "queries.jsonl"), name: str(qrels)}
    config = make_config(
        evaluation=judgements,
        candidates={"unit": "sentence" if level == "unit" else "passage"},
        tags={"recogniser": "spacy"},
    )
    manifest = run(config, run_date=tiny.DAY, load=fake())
    night = manifest.metrics[level]

    found = evaluate_set(read(folder, level=level), [BM25, model(modes=("true",))])

    assert found.queries == night["queries"]
    for measure in ("nDCG@10", "MAP", "MRR@10", "R@10"):
        assert found.systems["bm25"].means[measure] == pytest.approx(night[f"before {measure}"])
        assert found.systems["fake"].means[measure] == pytest.approx(night[f"after {measure}"])


def test_each_mode_shows_the_model_other_tags(folder: Path, tmp_path: Path) -> None:
    inputs = {}
    for mode in MODES:
        seen = tmp_path / f"{mode}.jsonl"
        evaluate_set(read(folder), [model(modes=(mode,), seen=str(seen))])
        inputs[mode] = {tuple(json.loads(line)) for line in seen.read_text().splitlines()}
    assert not any("[" in query for query, _ in inputs["none"])
    assert all(
        query.startswith("[HOP:") for mode in ("true", "shuffled", "forged") for query, _ in inputs[mode]
    )
    forged = [query for query, _ in inputs["forged"] if "[HOP:0] [ROLE:Supporting_Evidence]" in query]
    assert len(inputs["forged"]) / 2 <= len(forged) < len(inputs["forged"])
    assert len({frozenset(pairs) for pairs in inputs.values()}) == 4


def test_map_by_tags_stands_beside_the_measured_one(folder: Path) -> None:
    both = evaluate_set(read(folder), [BM25, model(modes=("true", "forged"))]).systems
    assert list(both["fake"].by_tags) == ["true", "forged"]
    for mode in ("true", "forged"):
        alone = evaluate_set(read(folder), [model(modes=(mode,))]).systems["fake"]
        assert alone.means["MAP"] == both["fake"].by_tags[mode]
    assert both["fake"].means["MAP"] == both["fake"].by_tags["true"]
    assert both["bm25"].by_tags == {}


@pytest.mark.parametrize("how", ["nan_for", "fails_for"])
def test_a_pair_that_fails_leaves_the_list_and_is_counted(folder: Path, how: str) -> None:
    judged = read(folder)
    whole = evaluate_set(judged, [BM25, model()]).systems
    broken = evaluate_set(judged, [BM25, model(**{how: "Solaris is a novel"})]).systems
    assert broken["bm25"] == whole["bm25"]
    groups, _ = candidates(judged, judged.queries)
    bad = sum(one.candidate.doc_id == "solaris" for group in groups for one in group.candidates)
    assert (whole["fake"].failed, broken["fake"].failed) == (0, bad)
    assert sum(broken["fake"].pairs.values()) == sum(whole["fake"].pairs.values()) - bad
    assert broken["fake"].by_query["MAP"]["q3"] == 0  # its only relevant document


def test_a_question_without_candidates_counts_as_zero(tmp_path: Path) -> None:
    queries = [*QUERIES, {"_id": "q9", "text": "qqqq zzzz"}]
    found = evaluate_set(
        read(write_set(tmp_path / "tiny", queries=queries, qrels=[*QRELS, "q9 dune 1"])), [BM25]
    )
    assert (found.queries, found.systems["bm25"].missing) == (5, 1)
    assert found.systems["bm25"].by_query["nDCG@10"]["q9"] == 0
    assert found.candidate_recall == 5 / 7  # tacoma shares no word with its question


def test_truncated_pairs_are_counted(tmp_path: Path) -> None:
    corpus = [*tiny.CORPUS, {"_id": "long", "title": "Dune", "text": "rain " * 70}]
    found = evaluate_set(read(write_set(tmp_path / "tiny", corpus=corpus)), [model()])
    assert found.systems["fake"].truncated == 2  # of the questions of Dune and of rain


def test_candidates_are_described(folder: Path) -> None:
    systems = [BM25]
    assert evaluate_set(read(folder, top_k=3), systems).candidates == "BM25's best 3"
    mixed = evaluate_set(read(folder, own=True), systems)
    assert mixed.candidates == "1 with their own, else BM25's best 100"
    assert mixed.systems["bm25"].pairs["q2"] == 3
    assert mixed.counts["with_own_candidates"] == 1


def test_a_run_is_measured_in_its_own_order(folder: Path) -> None:
    judged = read(folder)
    orders = {"q1": {"x": 3.0, "messiah": 2.0, "dune": 2.0}, "other": {"dune": 1.0}}
    found = evaluate_set(judged, [LoadedSystem(System("old", "run", "old.trec"), run=orders)]).systems["old"]
    assert found.by_query["MAP"] == {"q1": pytest.approx((1 / 2 + 2 / 3) / 2), "q2": 0, "q3": 0, "q4": 0}
    assert (found.missing, found.pairs, found.f1) == (3, {"q1": 3}, None)
    strange = LoadedSystem(System("old", "run", "old.trec"), run={"other": {"dune": 1.0}})
    with pytest.raises(JudgementError, match="old.trec and tiny: the run ranks none of the 4 judged queries"):
        evaluate_set(judged, [strange])


def test_progress_is_reported(folder: Path) -> None:
    counts: list[int] = []
    found = evaluate_set(read(folder), [BM25, model()], on_scored=counts.append)
    assert sum(counts) == sum(found.systems["fake"].pairs.values())


def test_python_measures_what_the_command_measures(folder: Path, tmp_path: Path) -> None:
    indexed: list[int] = []
    (tmp_path / "old.trec").write_text("q1 Q0 dune 1 2.0 tag\nq1 Q0 messiah 2 1.0 tag\n")
    systems = ["bm25", f"old=run:{tmp_path / 'old.trec'}"]
    result = evaluate(
        [folder], systems=systems, top_k=3, min_relevance={"tiny": 2}, on_indexed=indexed.append
    )
    assert sum(indexed) == len(tiny.CORPUS)
    (one_set,) = result.sets
    assert (one_set.name, one_set.queries, list(one_set.systems)) == ("tiny", 1, ["bm25", "old"])
    assert one_set.systems["old"].means["MRR@10"] == 0.5
    assert (result.baselines, result.settings["top_k"]) == ({"tiny": "bm25"}, 3)
    assert result.settings["min_relevance"] == {"tiny": 2, "night": 1}
    with pytest.raises(ConfigError, match="nothing to measure on"):
        evaluate()
