"""Measures against their textbook definitions, with ties and missing queries decided by us."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.evaluation.measures import (
    auc,
    by_score,
    f1_at_half,
    measure,
    measure_by_query,
)


def oracle(order: list[str], judged: dict[str, int], min_relevance: int) -> dict[str, float]:
    """The textbook definitions, for one query."""
    relevant = {doc_id for doc_id, relevance in judged.items() if relevance >= min_relevance}
    hits = [doc_id in relevant for doc_id in order]
    gain = sum(judged.get(d, 0) / math.log2(n + 1) for n, d in enumerate(order[:10], start=1))
    ideal = sum(
        g / math.log2(n + 1) for n, g in enumerate(sorted(judged.values(), reverse=True)[:10], start=1)
    )
    precisions = [sum(hits[:n]) / n for n, hit in enumerate(hits, start=1) if hit]
    return {
        "nDCG@10": gain / ideal if ideal else 0.0,
        "MAP": sum(precisions) / len(relevant) if relevant else 0.0,
        "MRR@10": next((1 / n for n, hit in enumerate(hits[:10], start=1) if hit), 0.0),
        "R@10": sum(hits[:10]) / len(relevant) if relevant else 0.0,
    }


DOCS = [f"d{n}" for n in range(14)]
ORDERS = st.dictionaries(st.sampled_from(["q1", "q2", "q3"]), st.lists(st.sampled_from(DOCS), unique=True))
QRELS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q4"]),
    st.dictionaries(st.sampled_from(DOCS), st.integers(0, 3), min_size=1),
    min_size=1,
)


@given(ORDERS, QRELS, st.integers(1, 2))
@settings(deadline=None)
def test_against_the_textbook(
    orders: dict[str, list[str]], qrels: dict[str, dict[str, int]], min_relevance: int
) -> None:
    measured = measure(orders, qrels, min_relevance=min_relevance)

    expected = [oracle(orders.get(query, []), judged, min_relevance) for query, judged in qrels.items()]
    for name, value in measured.items():
        assert value == pytest.approx(sum(one[name] for one in expected) / len(expected)), name


def test_by_example() -> None:
    measured = measure({"q": ["n", "p", "m", "r"]}, {"q": {"p": 1, "r": 1}})

    assert measured == {
        "nDCG@10": pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))),
        "MAP": pytest.approx((1 / 2 + 2 / 4) / 2),
        "MRR@10": 0.5,
        "R@10": 1.0,
    }


def test_a_judged_query_that_the_run_lacks_counts_as_zero() -> None:
    qrels = {"q1": {"p": 1}, "q2": {"p": 1}}

    assert set(measure({"q1": ["p"], "unjudged": ["p"]}, qrels).values()) == {0.5}
    assert set(measure({"q1": ["p"], "q2": []}, qrels).values()) == {0.5}
    assert set(measure({}, qrels).values()) == {0.0}
    assert measure_by_query({"q1": ["p"]}, qrels)["MAP"] == {"q1": 1.0, "q2": 0.0}


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_given_order_is_measured_whatever_the_ids(order: tuple[str, str]) -> None:
    """No tie is left for a measure to break: by doc_id, "b" would come first for one provider."""
    measured = measure({"q": order}, {"q": {order[0]: 1}})

    assert measured["MAP"] == measured["MRR@10"] == measured["nDCG@10"] == 1.0


def test_low_ranks_stay_apart() -> None:
    order = [f"d{n:04}" for n in range(3000)]

    assert measure({"q": order}, {"q": {order[2999]: 1}})["MAP"] == pytest.approx(1 / 3000)


def test_without_judgements_there_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="qrels is empty"):
        measure({"q": ["p"]}, {})


def test_of_an_item_that_is_ranked_twice_the_first_rank_counts() -> None:
    assert measure({"q": ["a", "b", "a", "b"]}, {"q": {"b": 1}}) == measure(
        {"q": ["a", "b"]}, {"q": {"b": 1}}
    )


def test_scores_rank_by_value_and_then_by_id() -> None:
    assert by_score({"c": 1.0, "a": -1.0, "b": 1.0}) == ["b", "c", "a"]
    with pytest.raises(ValueError, match="score nan of p is not finite"):
        by_score({"p": math.nan})


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=12))
def test_auc_is_the_chance_that_a_relevant_pair_wins(pairs: list[tuple[int, bool]]) -> None:
    wins = [
        (high > low) + (high == low) / 2
        for high, right in pairs
        if right
        for low, wrong in pairs
        if not wrong
    ]

    found = auc([score for score, _ in pairs], [label for _, label in pairs])

    assert found == (pytest.approx(sum(wins) / len(wins)) if wins else None)


@given(st.lists(st.tuples(st.sampled_from([-2.0, -1e-9, 0.0, 3.0]), st.booleans()), max_size=12))
def test_f1_is_of_the_textbook(pairs: list[tuple[float, bool]]) -> None:
    hits = sum(logit >= 0 and label for logit, label in pairs)
    called, relevant = sum(logit >= 0 for logit, _ in pairs), sum(label for _, label in pairs)
    precision, recall = hits / max(1, called), hits / max(1, relevant)
    expected = 2 * precision * recall / (precision + recall) if hits else 0.0

    found = f1_at_half([logit for logit, _ in pairs], [label for _, label in pairs])

    assert found == (pytest.approx(expected) if relevant else None)
