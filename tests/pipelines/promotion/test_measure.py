"""A candidate beside the serving model: figures of a set of which one word decides, and the speed by a clock."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest

from pipelines.promotion.measure import SPEED_TURNS, Broken, Model, load, measure, measure_speed
from rerank_core.errors import JudgementError, ModelError
from tests.pipelines.promotion.conftest import Loop


def models(loop: Loop, name: str) -> dict[str, Model]:
    return {
        "candidate": Model(name, str(loop.models[name])),
        "serving": Model(loop.serving, str(loop.models["serving"])),
    }


def test_both_models_are_measured_on_the_same_questions(loop: Loop) -> None:
    found = measure(loop.config, **models(loop, "good"))
    (judged,) = found.sets
    assert judged.candidate.ndcg.keys() == judged.serving.ndcg.keys()
    assert set(judged.candidate.ndcg.values()) == {1.0}
    assert all(value == pytest.approx(1 / math.log2(3)) for value in judged.serving.ndcg.values())
    assert (judged.candidate.pairs, judged.candidate.failed, judged.candidate.auc) == (192, 0, 1.0)
    assert judged.candidate.spread == pytest.approx(8.0)
    assert judged.candidate.shortcut_gap == 0
    assert found.last_night
    assert found.last_night.run_id == loop.manifest.run_id
    assert found.rankings
    assert found.rankings.queries == 16


def test_a_broken_candidate_is_a_result_and_a_broken_serving_model_an_error(loop: Loop) -> None:
    (loop.models["serving"].parent / "empty").mkdir(exist_ok=True)
    nothing = Model("empty", str(loop.models["serving"].parent / "empty"))
    both = models(loop, "good")
    assert measure(loop.config, candidate=nothing, serving=both["serving"]).problem
    with pytest.raises(ModelError):
        measure(loop.config, candidate=both["candidate"], serving=nothing)
    assert not issubclass(Broken, ModelError)


def test_a_missing_set_is_an_error(loop: Loop) -> None:
    config = loop.changed(promotion={"split": "test"})
    with pytest.raises(JudgementError, match="no judgements at"):
        measure(config, **models(loop, "good"))


def test_the_speed_is_of_the_best_turn_and_both_take_turns(loop: Loop) -> None:
    ours, theirs = (load(loop.config, Model(name, str(loop.models[name]))) for name in ("good", "serving"))
    ticks = itertools.count()
    # each turn takes one tick of the clock, whatever the machine does: the time limit ends after three turns
    speed = measure_speed(ours, theirs, [("town1", "in town1")] * 10, clock=lambda: float(next(ticks)))
    assert (speed.candidate, speed.serving) == (10.0, 10.0)
    assert next(ticks) == 2 * 2 * SPEED_TURNS[0]


def test_a_speed_is_measured_on_texts_whose_vectors_are_not_kept(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (load(loop.config, Model(name, str(loop.models[name]))) for name in ("good", "serving"))
    scored: list[tuple[str, str]] = []
    for loaded in (ours, theirs):
        scorer = loaded.system.scorer
        assert scorer
        monkeypatch.setattr(
            scorer, "score", lambda pairs, score=scorer.score: (scored.extend(pairs), score(pairs))[1]
        )
    pairs = [("town1", "in town1"), ("town1", "in town2")]
    measure_speed(ours, theirs, pairs)
    assert not set(pairs) & set(scored)
    assert set(Counter(scored).values()) == {2}, "once for each model"
