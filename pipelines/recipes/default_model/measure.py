"""nDCG@10 of scorers over fixed candidates, and what logit a score is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipelines.recipes.default_model.questions import SetPassage
from rerank_core.evaluation import measures
from rerank_core.scoring.backends.bi_encoder_folder import Logit

Scores = Callable[[str, Sequence[SetPassage]], np.ndarray]
"""(query, passages) -> one score per passage, higher is better."""


class Judged(NamedTuple):
    """One query with the passages to rank, in BM25's order, and its judgements."""

    query_id: str
    text: str
    candidates: tuple[SetPassage, ...]
    qrels: dict[str, int]  # doc id -> grade, of all judged documents, so that those that BM25 missed count


class EvaluationSet(NamedTuple):
    """Judged queries under one name."""

    name: str
    queries: tuple[Judged, ...]


def ndcg_10(scores: Scores, judged: EvaluationSet) -> float:
    """Mean nDCG@10 of the candidates ranked by `scores` (equal ones by doc id), 0 to 1; grades are the gains.

    Judged documents that are not among the candidates count as missed.
    """
    rankings = {
        query.query_id: measures.by_score(
            {
                passage.doc_id: float(score)
                for passage, score in zip(query.candidates, scores(query.text, query.candidates), strict=True)
            }
        )
        for query in judged.queries
    }
    qrels = {query.query_id: query.qrels for query in judged.queries}
    return round(measures.measure(rankings, qrels)["nDCG@10"], 6)


def fit_logit(scores: Scores, held_out: Sequence[EvaluationSet]) -> Logit:
    """The line of the scores whose sigmoid is most likely for judged candidates; every set counts equally."""
    values, relevant, share = [], [], []
    for judged in held_out:
        found = [(scores(query.text, query.candidates), query) for query in judged.queries]
        values += [np.asarray(of_query, np.float64) for of_query, _ in found]
        relevant += [np.array([p.doc_id in query.qrels for p in query.candidates]) for _, query in found]
        pairs = sum(len(of_query) for of_query, _ in found)
        share += [np.full(len(of_query), 1 / pairs) for of_query, _ in found]
    cosines, labels, weight = (np.concatenate(column) for column in (values, relevant, share))

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        logits = line[0] * (cosines - middle) + line[1]
        wrong = (expit(logits) - labels) * weight
        value = float(weight @ np.logaddexp(0, np.where(labels, -logits, logits)))
        return value, np.array([wrong @ (cosines - middle), wrong.sum()])

    middle = float(cosines.mean())
    scale, offset = minimize(loss, np.array([10.0, 0.0]), jac=True, method="L-BFGS-B").x
    return Logit(float(scale), float(offset - scale * middle))
