"""Scores of judged questions: chunks of candidates, one scoring for all modes of tags, and fused logits."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.evaluate import scores
from pipelines.evaluate.judged_sets import JudgedSet, Selection, read_set
from pipelines.evaluate.scores import candidate_groups, fuse_groups, score_by_mode
from pipelines.evaluate.systems import LoadedSystem, System
from rerank_core.ranking.fusion import FEATURES, Fusion
from tests.support.fakes import FakeScorer
from tests.support.tiny_set import write_set


@pytest.fixture
def judged(tmp_path: Path) -> JudgedSet:
    return read_set(write_set(tmp_path / "tiny"), selection=Selection(top_k=4), work=tmp_path / "work")


def model(scorer: FakeScorer, *modes: str, fusion: Fusion | None = None) -> LoadedSystem:
    return LoadedSystem(System("fake", "model", "", "onnx"), scorer=scorer, fusion=fusion, tag_modes=modes)


def test_questions_come_in_chunks_and_tagged_where_asked(
    judged: JudgedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "QUERIES_AT_ONCE", 3)
    chunks = [groups for groups, _ in candidate_groups(judged, tagged=True)]
    assert [len(groups) for groups in chunks] == [3, 1]
    assert [group.query for groups in chunks for group in groups] == list(judged.queries)
    assert all(c.tags for groups in chunks for group in groups for c in group.candidates)
    ((groups, _), _) = candidate_groups(judged, tagged=False)
    assert not any(c.tags for group in groups for c in group.candidates)


def test_a_model_that_reads_no_tags_scores_once_for_all_modes(judged: JudgedSet) -> None:
    counts: list[int] = []
    ((groups, _),) = candidate_groups(judged, tagged=True)
    scorer = FakeScorer("fake")
    scorer.reads_tags = False
    true, none = score_by_mode(groups, model(scorer, "true", "none"), on_scored=counts.append)
    assert (true.mode, none.mode, true.failed) == ("true", "none", 0)
    assert sum(counts) == sum(len(group.candidates) for group in groups)
    logits = [[c.logit for group in s.groups for c in group.candidates] for s in (true, none)]
    assert logits[0] == logits[1]
    assert all(c.tags for group in true.groups for c in group.candidates)
    assert not any(c.tags for group in none.groups for c in group.candidates)


def test_fusion_weights_give_fused_logits(judged: JudgedSet) -> None:
    ((groups, _),) = candidate_groups(judged, tagged=False)
    weights = Fusion(tuple(2.0 * (name == "cross_encoder") for name in FEATURES), 1.0)
    for fusion in (None, weights):
        system = model(FakeScorer("fake"), "none", fusion=fusion)
        (scored,) = score_by_mode(groups, system, on_scored=lambda pairs: None)
        for group in fuse_groups(scored.groups, system):
            for c in group.candidates:
                assert c.logit is not None
                assert c.fused == (pytest.approx(2 * c.logit + 1) if fusion else None)
