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
    """Order a scored group; the candidates' order in it does not matter.

    Units go by logit (the fused one where there is one), then the document's BM25 score, both highest first,
    then doc_id, then their place in the document. What the cascade left out comes after them, by its cheap score.
    Documents go by their best unit (MaxP), BM25's order by `bm25_rank` and then the place in the document. All
    three places are dense and start from 1, also where scoring has removed candidates.
    """
    for one in group.candidates:
        where = f"{group.query.query_id}/{one.candidate.passage_id}"
        logit = final_logit(one)
        score = one.pruned if logit is None else logit
        assert score is not None, (
            f"{where} has no logit: scoring must score or reject it, or the cascade prune it"
        )
        assert not math.isnan(score), f"{where} has logit nan, which has no place: scoring must reject it"
    places = {key: n for n, key in enumerate(sorted(map(_bm25_order, group.candidates)), start=1)}
    assert len(places) == len(group.candidates), f"{group.query.query_id} holds a unit twice"
    documents: dict[str, int] = {}
    ranked = [
        RankedCandidate(
            scored=one,
            rank=n,
            doc_rank=documents.setdefault(one.candidate.doc_id, len(documents) + 1),
            rank_before=places[_bm25_order(one)],
        )
        for n, one in enumerate(sorted(group.candidates, key=_final_order), start=1)
    ]
    return RankedGroup(group.query, tuple(ranked))


def cut(group: RankedGroup, *, top_n: int) -> tuple[RankedGroup, int]:
    """Keep the units of the best `top_n` documents (0: of all); the second value counts the units cut."""
    kept = tuple(one for one in group.candidates if not top_n or one.doc_rank <= top_n)
    return group._replace(candidates=kept), len(group.candidates) - len(kept)


def _place_in_document(one: ScoredCandidate) -> tuple[str, int, str]:
    doc_id, passage_id = one.candidate.doc_id, one.candidate.passage_id
    return doc_id, unit_index(doc_id, passage_id), passage_id  # by number: "d#2" comes before "d#10"


def _bm25_order(one: ScoredCandidate) -> tuple[int, str, int, str]:
    return one.candidate.bm25_rank, *_place_in_document(one)


def final_logit(one: ScoredCandidate) -> float | None:
    """The logit that decides a candidate's place; None for one that the cascade left out."""
    return one.logit if one.fused is None else one.fused


def _final_order(one: ScoredCandidate) -> tuple[bool, float, float, str, int, str]:
    logit = final_logit(one)
    score = one.pruned if logit is None else logit
    assert score is not None
    return logit is None, -score, -one.candidate.bm25_score, *_place_in_document(one)
