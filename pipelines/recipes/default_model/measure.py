"""nDCG@10 of scorers over fixed candidates: a bi-encoder, and a cross-encoder with and without tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.recipes.default_model.groups import SetPassage, rendered, shown_tags
from rerank_core.evaluation import measures
from rerank_core.features.render import Rendered, passage_text

Scores = Callable[[str, Sequence[SetPassage]], np.ndarray]
"""(query, passages) -> one score per passage, higher is better."""
PairScores = Callable[[Sequence[Rendered]], np.ndarray]


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


def cosine_scores(vectors: Mapping[str, np.ndarray]) -> Scores:
    """Cosine of unit `vectors`, text -> float32 [hidden], of the query and of title and text together."""

    def scores(query: str, passages: Sequence[SetPassage]) -> np.ndarray:
        texts = (passage_text(p.title, p.text) for p in passages)
        cosines: np.ndarray = np.stack([vectors[text] for text in texts]) @ vectors[query]
        return cosines

    return scores


def model_scores(score: PairScores, *, mode: str) -> Scores:
    """Logits of a cross-encoder that is shown tags in `mode` ("plain", "true" or "shuffled")."""

    def scores(query: str, passages: Sequence[SetPassage]) -> np.ndarray:
        return score(rendered(query, passages, shown_tags(query, passages, mode=mode, key=query)))

    return scores
