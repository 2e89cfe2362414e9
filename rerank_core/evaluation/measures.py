"""Ranking measures against judgements, by ir_measures: the one way in which Nightrank measures an order.

Two habits of the libraries would shift a figure silently, so nothing here is left to them:

- Ties. pytrec_eval (nDCG, AP, recall) breaks equal scores by descending doc_id, and ir_measures' MS MARCO provider
  (RR with a cutoff) by ascending doc_id; trec_eval also compares scores as 32-bit floats, so near scores tie.
  Therefore `measure` takes rankings, not scores, and whoever ranks decides about ties.
- Missing queries. A judged query without a ranking counts as zero in every measure. ir_measures' mean does the same,
  trec_eval's own drops such queries, and the MS MARCO provider fails if all are missing. Therefore the mean is taken
  here, over all judged queries. To measure the answered queries alone, pass their judgements alone.

F1 and AUC are of pairs, not of orders: they say whether scores of different queries are comparable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import ir_measures
import numpy as np
from ir_measures import AP, RR, R, nDCG

Rankings = Mapping[str, Iterable[str]]
"""Items (doc_ids or passage_ids) by query_id, best first. Of an item that occurs twice the first occurrence counts."""

Judged = Mapping[str, Mapping[str, int]]
Level = Literal["document", "unit"]
MEASURES = ("nDCG@10", "MAP", "MRR@10", "R@10")


def measure(rankings: Rankings, qrels: Judged, *, min_relevance: int = 1) -> dict[str, float]:
    """nDCG@10, MAP, MRR@10 and R@10 (recall), each 0 to 1, averaged over every query of `qrels`.

    nDCG's gain is the grade itself; for the other measures, grades of at least `min_relevance` are relevant (2 is the
    custom for TREC's Deep Learning tracks). Rankings of queries that are not judged are ignored.

    Raises:
        ValueError: `qrels` is empty.
    """
    return means(measure_by_query(rankings, qrels, min_relevance=min_relevance))


def means(by_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over its queries, of which there is at least one."""
    return {name: math.fsum(values.values()) / len(values) for name, values in by_query.items()}


def measure_by_query(
    rankings: Rankings, qrels: Judged, *, min_relevance: int = 1
) -> dict[str, dict[str, float]]:
    """The same for each query: value by measure, then by query_id, for every query of `qrels` in its order."""
    if not qrels:
        raise ValueError(
            "no judgements to measure against: qrels is empty; check the qrels file and its query ids"
        )
    values = {name: dict.fromkeys(qrels, 0.0) for name in MEASURES}
    run = {query: _minus_ranks(rankings[query]) for query in rankings if query in qrels}
    run = {query: scores for query, scores in run.items() if scores}
    if run:  # the MS MARCO provider fails on a run without any judged query
        relevant = (nDCG @ 10, AP(rel=min_relevance), RR(rel=min_relevance) @ 10, R(rel=min_relevance) @ 10)
        names = dict(zip(relevant, MEASURES, strict=True))
        judged = {query: dict(qrels[query]) for query in run}
        for metric in ir_measures.iter_calc(list(names), judged, run):
            values[names[metric.measure]][metric.query_id] = float(metric.value)
    return values


def by_score(scores: Mapping[str, float]) -> list[str]:
    """The items of one query by falling score, equal ones by id.

    Raises:
        ValueError: a score is not finite.
    """
    for item, score in scores.items():
        if not math.isfinite(score):
            raise ValueError(f"score {score} of {item} is not finite, so it cannot be ranked")
    return sorted(scores, key=lambda item: (-scores[item], item))


def _minus_ranks(items: Iterable[str]) -> dict[str, float]:
    """Scores without ties, which every provider of ir_measures sorts into this very order."""
    return {item: -float(rank) for rank, item in enumerate(dict.fromkeys(items), start=1)}


def f1_at_half(logits: Sequence[float], relevant: Sequence[bool]) -> float | None:
    """F1 at a sigmoid of 0.5, over the pairs of all queries together; None if no pair is relevant.

    The threshold is not fitted and no calibration applied: a model that ranks well can have an F1 of 0.
    """
    predicted = [logit >= 0 for logit in logits]
    hits = sum(p and r for p, r in zip(predicted, relevant, strict=True))
    return 2 * hits / (sum(predicted) + sum(relevant)) if any(relevant) else None


def auc(scores: Sequence[float], relevant: Sequence[bool]) -> float | None:
    """Area under the ROC curve, over the pairs of all queries together; None if all are relevant, or none is.

    The probability that a relevant pair scores above an irrelevant one; a tie counts half.
    """
    labels = np.asarray(relevant, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, group, sizes = np.unique(np.asarray(scores, np.float64), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]  # from 1; ties share their mean rank
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))
