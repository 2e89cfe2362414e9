"""The final order of a query's candidates, and how much of it is published."""

from __future__ import annotations

import math

from rerank_core.candidates.units import unit_index
from schemas.records import QueryGroup, RankedCandidate, RankedGroup, ScoredCandidate


def sigmoid(logit: float) -> float:
    """The score of a logit, 0 to 1, without overflow at either end."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    power = math.exp(logit)
    return power / (1 + power)


def rank(group: QueryGroup) -> RankedGroup:
    """Order a scored group; the order in which its candidates come does not matter.

    Units are ordered by logit (the fused one, if there is one), then by the document's BM25 score, both descending,
    then by doc_id and position in the document. Candidates that the cascade pruned follow, by first-stage score.
    Documents are ordered by their best unit (MaxP), BM25's order by `bm25_rank` and position in the document. All
    ranks are dense and start from 1, even if scoring has removed candidates.
    """
    for candidate in group.candidates:
        where = f"{group.query.query_id}/{candidate.candidate.passage_id}"
        logit = final_logit(candidate)
        score = candidate.pruned if logit is None else logit
        assert score is not None, (
            f"{where} has no logit: scoring must score or reject it, or the cascade prune it"
        )
        assert not math.isnan(score), f"{where} has logit nan, which has no rank: scoring must reject it"
    before = {key: n for n, key in enumerate(sorted(map(_bm25_order, group.candidates)), start=1)}
    assert len(before) == len(group.candidates), f"{group.query.query_id} holds a unit twice"
    documents: dict[str, int] = {}
    ranked = [
        RankedCandidate(
            scored=candidate,
            rank=n,
            doc_rank=documents.setdefault(candidate.candidate.doc_id, len(documents) + 1),
            rank_before=before[_bm25_order(candidate)],
        )
        for n, candidate in enumerate(sorted(group.candidates, key=_final_order), start=1)
    ]
    return RankedGroup(group.query, tuple(ranked))


def cut(group: RankedGroup, *, top_n: int) -> tuple[RankedGroup, int]:
    """Keep the units of the best `top_n` documents (0: of all); the second value counts the units cut."""
    kept = tuple(c for c in group.candidates if not top_n or c.doc_rank <= top_n)
    return group._replace(candidates=kept), len(group.candidates) - len(kept)


def final_logit(candidate: ScoredCandidate) -> float | None:
    """The logit that decides a candidate's rank: the fused one, if there is one; None if the cascade pruned it."""
    return candidate.logit if candidate.fused is None else candidate.fused


def _position(candidate: ScoredCandidate) -> tuple[str, int, str]:
    doc_id, passage_id = candidate.candidate.doc_id, candidate.candidate.passage_id
    return doc_id, unit_index(doc_id, passage_id), passage_id  # by number: "d#2" comes before "d#10"


def _bm25_order(candidate: ScoredCandidate) -> tuple[int, str, int, str]:
    return candidate.candidate.bm25_rank, *_position(candidate)


def _final_order(candidate: ScoredCandidate) -> tuple[bool, float, float, str, int, str]:
    logit = final_logit(candidate)
    score = candidate.pruned if logit is None else logit
    assert score is not None
    return logit is None, -score, -candidate.candidate.bm25_score, *_position(candidate)
