"""The stages as functions: every candidate is read, tagged and scored once, and rejects say why one is missing."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.night import Tagging
from rerank_core.config.source import Candidates
from rerank_core.features.ner.rules import RulesRecogniser
from rerank_core.features.render import render
from rerank_core.features.tagger import read, tag
from rerank_core.stages import (
    first_stage_scores,
    make_group,
    parts_by_value,
    passages_to_read,
    rendered,
    reuse_scores,
    score_groups,
    tag_group,
)
from schemas.records import Document, Query, QueryGroup, Rejected
from tests.support.fakes import FakeScorer, forbidden

QUERY = Query("q", "Who was Ann Lee", 1, 1, ())
DOCUMENTS = [
    Document("lee", "Ann Lee", "Ann Lee lived in Tulsa.", (), 2.0, 1),
    Document("tulsa", "Tulsa", "Tulsa lies on a river.", (), 1.0, 2),
]


def group_of(*documents: Document) -> QueryGroup:
    group, rejected = make_group(QUERY, list(documents), config=Candidates())
    assert not rejected
    return group


def test_a_query_without_documents_has_its_reason() -> None:
    missed = Rejected("FetchCandidates", "query", "q", "no_candidates", "nothing")
    assert make_group(QUERY, missed, config=Candidates()) == (QueryGroup(QUERY, ()), [missed])


def test_a_passage_of_two_groups_is_read_once() -> None:
    group = group_of(*DOCUMENTS)
    passages = passages_to_read([group, group])
    assert passages == [("", QUERY.text), *((d.title, d.text) for d in DOCUMENTS)]


def test_a_group_is_tagged_as_its_passages_are() -> None:
    group = group_of(*DOCUMENTS)
    passages = passages_to_read([group])
    facts = dict(zip(passages, read(passages, RulesRecogniser()), strict=True))
    tagged = tag_group(group, facts, config=Tagging())
    names = [candidate.candidate.passage_id for candidate in tagged.candidates]
    expected = tag(QUERY.text, passages[1:], recogniser=RulesRecogniser(), names=names)
    assert [candidate.tags for candidate in tagged.candidates] == expected
    first = tagged.candidates[0]
    assert rendered(tagged, first, tagged=True) == (
        render(QUERY.text, "Ann Lee lived in Tulsa.", expected[0]),
    )
    assert rendered(tagged, first, tagged=False) == (render(QUERY.text, "Ann Lee lived in Tulsa."),)


def test_a_known_first_stage_score_stays_and_failures_are_counted() -> None:
    group = group_of(*DOCUMENTS)
    known = group._replace(candidates=(group.candidates[0]._replace(first_stage=9.0), group.candidates[1]))
    (scored,), failed = first_stage_scores([known], FakeScorer(nan_for="river"))
    assert [candidate.first_stage for candidate in scored.candidates] == [9.0, None]
    assert failed == 1


def test_what_is_scored_or_pruned_is_not_scored_again() -> None:
    group = group_of(*DOCUMENTS)
    fresh = reuse_scores(group, {}, model_fingerprint="m", tagged=False)
    (scored,), rejected = score_groups([fresh], FakeScorer(), tagged=False)
    assert not rejected
    assert all(candidate.logit is not None for candidate in scored.candidates)
    pruned = fresh._replace(candidates=tuple(c._replace(pruned=-1.0) for c in fresh.candidates))
    groups, rejected = score_groups([scored, pruned], forbidden()(), tagged=False)
    assert (groups, rejected) == ([scored, pruned], [])


# --- which queries are scored first

GROUPS = st.lists(
    st.tuples(st.integers(1, 3), st.lists(st.booleans(), max_size=4), st.integers(0, 2)), max_size=12
)
"""For each query: its count, whether each of its candidates must be scored, and its number of parts."""


@given(described=GROUPS, size=st.integers(1, 12))
def test_the_most_valuable_queries_come_first_and_whole(
    described: list[tuple[int, list[bool], int]], size: int
) -> None:
    (candidate,) = group_of(DOCUMENTS[0]).candidates
    groups, inputs = [], []
    for number, (count, missing, parts) in enumerate(described):
        candidates = tuple(candidate._replace(logit=None if is_open else 1.0) for is_open in missing)
        groups.append(QueryGroup(Query(f"{number:02}", "q", count, 1, ()), candidates, ("part",) * parts))
        inputs.append(sum(missing) * (1 + parts))
    made = list(parts_by_value(groups, size=size))
    order = [i for part in made for i in part]
    assert sorted(order) == [i for i, missing in enumerate(inputs) if missing]
    assert order == sorted(order, key=lambda i: (-groups[i].query.count, -inputs[i], i))
    for part in made:
        assert len(part) == 1 or sum(inputs[i] for i in part) <= size
    for part, after in itertools.pairwise(made):  # as much in each as fits
        assert sum(inputs[i] for i in part) + inputs[after[0]] > size
