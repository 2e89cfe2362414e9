"""What a ranking is worth against judgements, by ir_measures; before (BM25) and after reranking.

Two of ir_measures' habits would shift a figure silently, so nothing here is left to them:

- Ties. pytrec_eval (nDCG, AP, recall) breaks equal scores by descending doc_id, and its MS MARCO provider
  (RR with a cutoff) by ascending doc_id; trec_eval also compares scores as 32-bit floats, so near scores tie.
  The runs made here hold minus the rank as the score: exactly our order is measured. Give `measure` a run
  of raw scores only if it has no ties.
- Missing queries. A judged query that the run lacks counts as zero, in every measure. ir_measures' mean
  does the same, trec_eval's own drops such queries, and the MS MARCO provider fails if all are missing. So
  the mean is taken here, over all judged queries. To measure the answered ones only, hand in their
  judgements only.

F1 and AUC look at pairs and not at orders: whether scores of different queries mean the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import ir_measures
import numpy as np
from ir_measures import AP, RR, R, nDCG

from schemas.records import RankedGroup

Run = dict[str, dict[str, float]]
"""Score by query_id, then by doc_id (or passage_id); higher is better."""

Scores = Mapping[str, Mapping[str, float]]
Judged = Mapping[str, Mapping[str, int]]
Level = Literal["document", "unit"]
MEASURES = ("nDCG@10", "MAP", "MRR@10", "R@10")


class Runs(NamedTuple):
    """One set of queries in BM25's order and in the reranked one."""

    before: Run
    after: Run


class Comparison(NamedTuple):
    """Measures of two runs over the same judgements, 0 to 1."""

    before: dict[str, float]
    after: dict[str, float]
    change: dict[str, float]  # after minus before
    queries: int  # judged queries, the denominator of every mean
    missing: int  # of these, queries that `after` lacks and that count as zero


def measure(run: Scores, qrels: Judged, *, min_relevance: int = 1) -> dict[str, float]:
    """nDCG@10, MAP, MRR@10 and R@10 (recall), each 0 to 1, averaged over every query of `qrels`.

    nDCG's gain is the relevance itself, the other measures call relevant what has at least `min_relevance`
    (2 is the custom for TREC's Deep Learning tracks). Queries of the run that are not judged are ignored.

    Raises:
        ValueError: `qrels` is empty, or a score of the run is not finite.
    """
    return means(measure_by_query(run, qrels, min_relevance=min_relevance))


def means(by_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over its queries, of which there is at least one."""
    return {name: math.fsum(values.values()) / len(values) for name, values in by_query.items()}


def measure_by_query(run: Scores, qrels: Judged, *, min_relevance: int = 1) -> dict[str, dict[str, float]]:
    """The same per query: value by measure, then by query_id, for every query of `qrels` in its order."""
    if not qrels:
        raise ValueError(
            "no judgements to measure against: qrels is empty; check the qrels file and its query ids"
        )
    values = {name: dict.fromkeys(qrels, 0.0) for name in MEASURES}
    judged = {name: dict(scores) for name, scores in run.items() if name in qrels and scores}
    for name, scores in judged.items():
        for item, score in scores.items():
            if not math.isfinite(score):
                raise ValueError(f"score {score} of {item} for query {name} has no place in an order")
    if judged:  # the MS MARCO provider fails on a run without any judged query
        relevant = (nDCG @ 10, AP(rel=min_relevance), RR(rel=min_relevance) @ 10, R(rel=min_relevance) @ 10)
        names = dict(zip(relevant, MEASURES, strict=True))
        wanted = {name: dict(qrels[name]) for name in judged}
        for metric in ir_measures.iter_calc(list(names), wanted, judged):
            values[names[metric.measure]][metric.query_id] = float(metric.value)
    return values


def f1_at_half(logits: Sequence[float], relevant: Sequence[bool]) -> float | None:
    """F1 of calling relevant what has a sigmoid of at least 0.5, over pairs of all queries together.

    The threshold is not fitted and a calibration not applied: a model that ranks well can have an F1 of 0. None where
    no pair is relevant.
    """
    called = [logit >= 0 for logit in logits]
    hits = sum(c and r for c, r in zip(called, relevant, strict=True))
    return 2 * hits / (sum(called) + sum(relevant)) if any(relevant) else None


def auc(scores: Sequence[float], relevant: Sequence[bool]) -> float | None:
    """The chance that a relevant pair's score is above another's, of whichever queries; an equal one counts half.

    That is the area under the ROC curve. None where all pairs are relevant, or none is.
    """
    labels = np.asarray(relevant, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, group, sizes = np.unique(np.asarray(scores, np.float64), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]  # from 1; the mean of those that are equal
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def compare(before: Scores, after: Scores, *, qrels: Judged, min_relevance: int = 1) -> Comparison:
    """Measure two runs against the same judgements; see `measure`."""
    first = measure(before, qrels, min_relevance=min_relevance)
    second = measure(after, qrels, min_relevance=min_relevance)
    return Comparison(
        before=first,
        after=second,
        change={name: second[name] - first[name] for name in first},
        queries=len(qrels),
        missing=sum(1 for name in qrels if not after.get(name)),
    )


def runs_from_rows(rows: Iterable[Mapping[str, Any]], *, level: Level = "document") -> Runs:
    """Both runs from rows of the `reranked` table.

    Args:
        rows: with query_id, and doc_id, doc_rank, doc_rank_before for "document", else passage_id, rank,
            rank_before. `pyarrow.Table.to_pylist()` gives them.
        level: what is ranked: documents by their best unit, or units (for sentence judgements).
    """
    item, after, before = (
        ("doc_id", "doc_rank", "doc_rank_before")
        if level == "document"
        else ("passage_id", "rank", "rank_before")
    )
    return _runs((row["query_id"], row[item], row[before], row[after]) for row in rows)


def runs_from_groups(groups: Iterable[RankedGroup], *, level: Level = "document") -> Runs:
    """Both runs from ranked groups; see `runs_from_rows`."""
    by_document = level == "document"
    return _runs(
        (
            group.query.query_id,
            one.scored.candidate.doc_id if by_document else one.scored.candidate.passage_id,
            one.rank_before,
            one.doc_rank if by_document else one.rank,
        )
        for group in groups
        for one in group.candidates
    )


def _runs(places: Iterable[tuple[str, str, int, int]]) -> Runs:
    runs = Runs({}, {})
    for query, item, *by_run in places:
        for run, place in zip(runs, by_run, strict=True):
            scores = run.setdefault(query, {})
            scores[item] = max(-float(place), scores.get(item, -math.inf))  # a document's best unit counts
    return runs
