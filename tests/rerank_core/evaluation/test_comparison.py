"""Systems side by side: what is measured of each, and how they are tested against a baseline."""

from __future__ import annotations

import pytest

from rerank_core.errors import ConfigError
from rerank_core.evaluation.comparison import SetResult, compare_systems, measure_system


def test_pruned_pairs_are_in_the_order_but_not_in_f1_and_auc() -> None:
    found = measure_system(
        {"q1": [("a", 2.0), ("b", -1.0), ("c", None)], "q2": [("a", 0.5)]},
        qrels={"q1": {"a": 1, "c": 1}, "q2": {"b": 1}},
        logits=True,
    )
    assert (found.f1, found.auc, found.unscored) == (pytest.approx(2 / 3), 1.0, 1)
    assert found.by_query["MAP"] == {"q1": pytest.approx((1 + 2 / 3) / 2), "q2": 0}


def fixed(name: str, **systems: list[float]) -> SetResult:
    """A set with a measure of each query, the same for all measures."""
    results = {}
    for system, values in systems.items():
        by_query = {f"q{n}": value for n, value in enumerate(values)}
        base = measure_system({}, qrels={"q": {"d": 1}}, logits=False)
        results[system] = base._replace(by_query=dict.fromkeys(base.by_query, by_query))
    return SetResult(name, "document", "", "f", 8, {}, 1.0, {}, results)


def test_systems_are_tested_against_the_baseline() -> None:
    sets = [
        fixed("one", bm25=[0.1] * 8, ours=[0.2 + n / 100 for n in range(8)]),
        fixed("two", reranked=[0.3] * 8, ours=[0.3] * 8),
    ]
    found = compare_systems(sets, baseline="", fingerprints={})
    assert found.baselines == {"one": "bm25", "two": "reranked"}
    assert list(found.verdicts) == ["nDCG@10", "MAP"]
    assert all(list(by_set) == [("one", "ours"), ("two", "ours")] for by_set in found.verdicts.values())
    assert found.verdicts["MAP"]["one", "ours"].p_holm == pytest.approx(2 * 2 / 2**8)
    assert compare_systems(sets, baseline="reranked", fingerprints={}).baselines == {
        "one": "bm25",
        "two": "reranked",
    }
    assert compare_systems(sets, baseline="ours", fingerprints={}).verdicts["MAP"]["one", "bm25"].change < 0
    with pytest.raises(
        ConfigError, match="no system is called 'nosuch'; --baseline is one of: bm25, ours, reranked"
    ):
        compare_systems(sets, baseline="nosuch", fingerprints={})
