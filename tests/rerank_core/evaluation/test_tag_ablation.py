"""Other tags for the same candidates: what each mode changes, and that nothing but the ids decides it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.evaluation.tag_ablation import MODES, retag
from schemas.records import Candidate, Query, QueryGroup, ScoredCandidate
from schemas.tags import Tags


def group(*ids: str, query: str = "q") -> QueryGroup:
    """Candidates whose tags name them."""
    return QueryGroup(
        Query(query, "a query", 1, 0, ()),
        tuple(
            ScoredCandidate(
                Candidate(one, one, "", "text", 1.0, 1),
                Tags(2, "Main_Claim", (one,), False, False),
                "",
                None,
                False,
                0,
            )
            for one in ids
        ),
    )


def tags(found: QueryGroup) -> dict[str, Tags | None]:
    return {one.candidate.passage_id: one.tags for one in found.candidates}


IDS = st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, min_size=2, max_size=9)


def test_true_and_none() -> None:
    assert retag(group("a", "b"), mode="true") == group("a", "b")
    assert tags(retag(group("a", "b"), mode="none")) == {"a": None, "b": None}


@given(IDS)
def test_shuffled_tags_are_all_there_and_none_at_home(ids: list[str]) -> None:
    before, after = tags(group(*ids)), tags(retag(group(*ids), mode="shuffled"))
    assert Counter(before.values()) == Counter(after.values())
    assert all(after[one] != before[one] for one in ids)


@given(IDS)
def test_every_second_candidate_is_forged_and_keeps_its_entities(ids: list[str]) -> None:
    after = tags(retag(group(*ids), mode="forged"))
    forged = [one for one in ids if after[one] == Tags(0, "Supporting_Evidence", (one,), True, True)]
    assert len(forged) == -(-len(ids) // 2)
    assert all(after[one] == tags(group(one))[one] for one in ids if one not in forged)


@pytest.mark.parametrize("mode", MODES)
@given(ids=IDS)
def test_the_candidates_order_decides_nothing(mode: str, ids: list[str]) -> None:
    there, back = (retag(group(*order), mode=mode) for order in (ids, ids[::-1]))
    assert tags(there) == tags(back)
    assert [one.candidate.passage_id for one in there.candidates] == ids


def test_queries_are_dealt_differently() -> None:
    ids = [f"d{n}" for n in range(20)]
    one, other = (tags(retag(group(*ids, query=query), mode="shuffled")) for query in ("q1", "q2"))
    assert one != other


def test_a_lone_candidate_and_none_at_all() -> None:
    assert retag(group("a"), mode="shuffled") == group("a")
    for mode in MODES:
        assert retag(group(), mode=mode) == group()


def test_an_unknown_mode_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no tag mode 'fake'; choose one of true, none, shuffled, forged"):
        retag(group("a"), mode="fake")
