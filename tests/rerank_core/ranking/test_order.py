"""Ranking: one order whatever the order of arrival, dense places, MaxP."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.ranking.order import cut, rank, sigmoid
from schemas.records import Candidate, Query, QueryGroup, RankedGroup, ScoredCandidate

QUERY = Query("q", "a query", 1, 0, ())


def scored(
    doc_id: str, logit: float | None, *, unit: int | None = None, bm25: float = 1.0, rank: int = 1
) -> ScoredCandidate:
    passage_id = doc_id if unit is None else f"{doc_id}#{unit}"
    return ScoredCandidate(Candidate(doc_id, passage_id, "", "text", bm25, rank), None, "f", logit, False, 0)


def ids(group: RankedGroup) -> list[str]:
    return [one.scored.candidate.passage_id for one in group.candidates]


@st.composite
def groups(draw: st.DrawFn) -> QueryGroup:
    """Groups with many ties, several units a document, and gaps in BM25's ranks."""
    documents = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6))
    places = draw(st.permutations(range(1, 2 * len(documents) + 1)))
    candidates = []
    for doc_id, place in zip(documents, places, strict=False):
        bm25 = draw(st.sampled_from([1.0, 2.0]))
        units = draw(
            st.one_of(st.just([None]), st.lists(st.integers(0, 12), unique=True, min_size=1, max_size=4))
        )
        for unit in units:
            logit = draw(st.sampled_from([-1.0, 0.0, 2.5]))
            candidates.append(scored(doc_id, logit, unit=unit, bm25=bm25, rank=place))
    return QueryGroup(QUERY, tuple(candidates))


def test_the_order_is_logit_then_bm25_then_id_then_place() -> None:
    group = QueryGroup(
        QUERY,
        (
            scored("b", 1.0, unit=10, bm25=2.0, rank=3),
            scored("b", 1.0, unit=9, bm25=2.0, rank=3),
            scored("a", 1.0, bm25=2.0, rank=4),
            scored("c", 1.0, bm25=9.0, rank=1),
            scored("d", 3.0, bm25=0.5, rank=7),
        ),
    )

    ranked = rank(group)

    assert ids(ranked) == ["d", "c", "a", "b#9", "b#10"]
    assert [one.rank for one in ranked.candidates] == [1, 2, 3, 4, 5]
    assert [one.doc_rank for one in ranked.candidates] == [1, 2, 3, 4, 4]
    assert [one.rank_before for one in ranked.candidates] == [5, 1, 4, 2, 3]


def test_a_document_stands_where_its_best_unit_stands() -> None:
    ranked = rank(
        QueryGroup(
            QUERY, (scored("a", 3.0, unit=0), scored("a", -3.0, unit=1), scored("b", 1.0, unit=0, rank=2))
        )
    )

    assert [(i, one.doc_rank) for i, one in zip(ids(ranked), ranked.candidates, strict=True)] == [
        ("a#0", 1),
        ("b#0", 2),
        ("a#1", 1),
    ]


@given(groups(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_arrival_does_not_matter(group: QueryGroup, rng: random.Random) -> None:
    shuffled = list(group.candidates)
    rng.shuffle(shuffled)

    assert rank(QueryGroup(QUERY, tuple(shuffled))) == rank(group)


@given(groups())
@settings(deadline=None)
def test_places_are_dense_and_consistent(group: QueryGroup) -> None:
    ranked = rank(group).candidates
    places = list(range(1, len(ranked) + 1))

    assert [one.rank for one in ranked] == places
    assert sorted(one.rank_before for one in ranked) == places
    assert sorted((one.scored for one in ranked), key=repr) == sorted(group.candidates, key=repr)

    best: dict[str, int] = {}
    for one in ranked:
        best.setdefault(one.scored.candidate.doc_id, one.rank)
    expected = {doc_id: n for n, doc_id in enumerate(sorted(best, key=best.__getitem__), start=1)}
    assert {one.scored.candidate.doc_id: one.doc_rank for one in ranked} == expected

    before = sorted(ranked, key=lambda one: one.rank_before)
    assert [one.scored.candidate.bm25_rank for one in before] == sorted(
        one.scored.candidate.bm25_rank for one in ranked
    )


@given(groups(), st.integers(0, 8))
@settings(deadline=None)
def test_cut_keeps_whole_documents_and_counts_the_rest(group: QueryGroup, top_n: int) -> None:
    ranked = rank(group)

    kept, lost = cut(ranked, top_n=top_n)

    assert len(kept.candidates) + lost == len(ranked.candidates)
    assert kept.candidates == tuple(c for c in ranked.candidates if top_n == 0 or c.doc_rank <= top_n)
    if top_n == 0:
        assert (kept, lost) == (ranked, 0)


@pytest.mark.parametrize("logit", [None, math.nan])
def test_what_scoring_must_have_removed_is_refused(logit: float | None) -> None:
    with pytest.raises(AssertionError, match="q/a"):
        rank(QueryGroup(QUERY, (scored("a", logit),)))


def test_a_unit_twice_is_refused() -> None:
    with pytest.raises(AssertionError, match="twice"):
        rank(QueryGroup(QUERY, (scored("a", 1.0), scored("a", 1.0))))


@given(st.floats(allow_nan=False))
def test_sigmoid_is_bounded_and_symmetric(logit: float) -> None:
    assert 0 <= sigmoid(logit) <= 1
    assert sigmoid(logit) + sigmoid(-logit) == pytest.approx(1)


def test_sigmoid_by_example() -> None:
    assert sigmoid(0) == 0.5
    assert sigmoid(2) == pytest.approx(0.8807970779778823)
    assert (sigmoid(1e308), sigmoid(-1e308)) == (1.0, 0.0)
