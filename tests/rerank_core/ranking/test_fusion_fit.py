"""Fitting fusion weights: the loss against a plain oracle, planted weights, never worse than the best single score."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from rerank_core.errors import FusionError
from rerank_core.ranking import fusion_fit
from rerank_core.ranking.fusion import FEATURES
from rerank_core.ranking.fusion_fit import FUSED, Example, FitSet, FusionFit, fit_fusion

ALL = [name for name in FEATURES if name != "bi_encoder"]


def example(name: str, matrix: np.ndarray, relevant: np.ndarray) -> Example:
    none = matrix.copy()
    none[:, FEATURES.index("one_hop") :] = 0
    shuffled = matrix.copy()
    shuffled[:, FEATURES.index("one_hop") :] = np.roll(matrix[:, FEATURES.index("one_hop") :], 1, axis=0)
    return Example(name, tuple(f"{name}-{n}" for n in range(len(matrix))), (matrix, none, shuffled), relevant)


def judged(questions: int, *, seed: int, weights: dict[str, float], noise: float = 1.0) -> FitSet:
    """Ten candidates a question, two of which are relevant: the best two by planted weights and noise."""
    draw = np.random.default_rng(seed)
    planted = np.array([weights.get(name, 0.0) for name in FEATURES])
    examples, qrels = [], {}
    for n in range(questions):
        matrix = draw.normal(size=(10, len(FEATURES)))
        matrix[:, 3:] = draw.random((10, len(FEATURES) - 3)) < 0.3
        order = np.argsort(-(matrix @ planted + noise * draw.gumbel(size=10)))
        relevant = np.isin(np.arange(10), order[:2])
        examples.append(example(f"s{seed}q{n}", matrix, relevant))
        qrels[f"s{seed}q{n}"] = {
            item: int(good) for item, good in zip(examples[-1].items, relevant, strict=True)
        }
    return FitSet(tuple(examples), qrels)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 50))
def test_the_loss_and_its_slope_are_those_of_the_plain_formula(seed: int, size: float) -> None:
    draw = np.random.default_rng(seed)
    sets = {
        "a": judged(3, seed=seed, weights={"bm25": 1.0}),
        "b": judged(2, seed=seed + 1, weights={"bm25": 1.0}),
    }
    examples = {name: list(one.examples) for name, one in sets.items()}
    columns = [0, 1, 3, 5]
    weights = size * draw.normal(size=len(columns))
    wanted = 0.0
    for own in examples.values():
        for one in own:
            for matrix in one.variants:
                sums = matrix[:, columns] @ weights
                for row in np.flatnonzero(one.relevant):
                    crossed = log_softmax(np.append(sums[~one.relevant], sums[row]))[-1]
                    wanted -= crossed / (3 * len(own) * one.relevant.sum() * len(examples))
    lists = fusion_fit._stacked(examples, columns)
    value, slope = fusion_fit._listwise(lists, weights)
    assert value == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    step = 1e-6 * max(1.0, size)
    for n in range(len(columns)):
        nudge = step * (np.arange(len(columns)) == n)
        above, below = (fusion_fit._listwise(lists, weights + s * nudge)[0] for s in (1, -1))
        assert slope[n] == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-4)


def test_planted_weights_are_found_and_beat_each_score_alone() -> None:
    planted = {"cross_encoder": 1.0, "bm25": 0.5, "named_above": 2.0}
    sets = {"one": judged(150, seed=1, weights=planted), "two": judged(60, seed=2, weights=planted)}
    found = fit_fusion(sets, features=ALL)
    ratio = {name: found.fusion.weight(name) / found.fusion.weight("cross_encoder") for name in planted}
    assert ratio == pytest.approx(planted, rel=0.35)
    assert found.best_single == "cross_encoder"
    for rows in found.figures.values():
        assert rows[FUSED]["nDCG@10"] > max(rows["cross_encoder"]["nDCG@10"], rows["bm25"]["nDCG@10"]) + 0.05
    assert found.used == 210
    assert found.fusion.weight("bi_encoder") == 0


def test_tags_count_no_more_than_what_may_be_lost_without_them() -> None:
    planted = {"cross_encoder": 1.0, "one_hop": 2.0}
    sets = {"one": judged(300, seed=3, weights=planted)}

    def lost(found: FusionFit) -> float:
        """MAP that the weights lose without tags, or with shuffled ones."""
        weights = [np.array(found.fusion.weights)] * fusion_fit.FOLDS
        true, none, shuffled = (fusion_fit._means(sets["one"], weights, n)["MAP"] for n in range(3))
        return true - min(none, shuffled)

    found = fit_fusion(sets, features=ALL)
    assert 0 < found.tag_share < 0.5
    # the limit is one of questions that the fit did not see
    assert 0 < lost(found) < 2.5 * fusion_fit.MAX_GAP

    same = tuple(e._replace(variants=(e.variants[0],) * 3) for e in sets["one"].examples)
    trusting = fit_fusion({"one": FitSet(same, sets["one"].qrels)}, features=ALL)
    assert trusting.tag_share == 1.0  # nothing is lost where missing and shuffled ones are as good
    ratio = trusting.fusion.weight("one_hop") / trusting.fusion.weight("cross_encoder")
    assert ratio == pytest.approx(2.0, rel=0.35)
    assert lost(trusting) > 5 * lost(found)


def test_fusion_is_never_worse_than_the_best_single_score() -> None:
    """With few questions and nothing but noise beside the model, a mixture can only lose."""
    sets = {"one": judged(12, seed=5, weights={"cross_encoder": 9.0}, noise=0.0)}
    found = fit_fusion(sets, features=ALL)
    figures = found.figures["one"]
    assert figures[FUSED]["nDCG@10"] >= figures["cross_encoder"]["nDCG@10"] == pytest.approx(1.0)
    if math.isinf(found.ridge):
        assert [name for name in FEATURES if found.fusion.weight(name)] == ["cross_encoder"]


def test_the_fused_logit_is_a_probability() -> None:
    sets = {"one": judged(300, seed=6, weights={"cross_encoder": 1.0, "bm25": 1.0})}
    found = fit_fusion(sets, features=ALL)
    lists = [e.variants[0] @ np.array(found.fusion.weights) for e in sets["one"].examples]
    sums = np.concatenate([own + found.fusion.top * own.max() for own in lists])
    said = 1 / (1 + np.exp(-(sums + found.fusion.bias)))
    relevant = np.concatenate([e.relevant for e in sets["one"].examples])
    assert said.mean() == pytest.approx(0.2, abs=0.005)  # two of ten
    assert said[relevant].mean() > 2 * said[~relevant].mean()
    assert found.error["one"] < 0.03
    top = said > np.quantile(said, 0.9)
    assert said[top].mean() == pytest.approx(relevant[top].mean(), abs=0.1)


def test_the_bi_encoders_fingerprint_is_kept_only_with_its_weight() -> None:
    sets = {"one": judged(80, seed=7, weights={"cross_encoder": 1.0, "bi_encoder": 1.0})}
    assert fit_fusion(sets, features=FEATURES, bi_encoder="abc").fusion.bi_encoder == "abc"
    assert fit_fusion(sets, features=ALL).fusion.bi_encoder == ""


def test_sets_that_teach_nothing_are_refused() -> None:
    lone = Example("q", ("a", "b"), (np.zeros((2, len(FEATURES))),) * 3, np.array([False, False]))
    with pytest.raises(FusionError, match="nothing to fit on"):
        fit_fusion({"one": FitSet((lone,), {"q": {"elsewhere": 1}})}, features=ALL)


def shifted(one: FitSet, by: float, *, seed: int) -> FitSet:
    """A set whose first feature is higher, by a different amount in each list, which says nothing."""
    draw, column = np.random.default_rng(seed), FEATURES.index("cross_encoder")
    examples = []
    for kept in one.examples:
        moved = draw.normal(by, 1.0)
        variants = tuple(matrix + moved * (np.arange(matrix.shape[1]) == column) for matrix in kept.variants)
        examples.append(kept._replace(variants=variants))
    return one._replace(examples=tuple(examples))


def test_scores_are_probabilities_though_a_sets_logits_are_all_higher() -> None:
    planted = {"cross_encoder": 2.0}
    sets = {
        str(seed): shifted(judged(120, seed=seed, weights=planted, noise=0.7), 2.0 * seed, seed=seed)
        for seed in range(1, 5)
    }
    found = fit_fusion(sets, features=["cross_encoder", "bm25"])
    assert -1 <= found.fusion.top < -0.8
    assert max(found.error.values()) < 0.05
    assert set(found.left_out) == set(sets)
    assert max(means["ece"] for means in found.left_out.values()) < 0.06
    assert min(means["MAP"] for means in found.left_out.values()) > 0.5


def test_a_single_set_has_no_others_to_be_fitted_on() -> None:
    found = fit_fusion({"one": judged(40, seed=1, weights={"bm25": 1.0})}, features=ALL)
    assert found.left_out == {}
    assert found.fusion.top >= -1
