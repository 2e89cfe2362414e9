"""Shards: which query goes where, and stages as seen from outside."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from pipelines.transforms import (
    FetchCandidates,
    MakeShards,
    RankCandidates,
    ReuseScores,
    ScoreCandidates,
    Shard,
    Stage,
    TagFeatures,
    WorkersModel,
    _assign,
    _make_shard,
    shard_count,
    shard_of,
)
from rerank_core.config import Config
from rerank_core.text import query_id
from schemas.records import Document, Query, Rejected
from tests.fakes import FakeScorer, fake, forbidden

TEXTS = st.lists(st.text("abcdefgh", min_size=1), unique_by=query_id, min_size=1, max_size=40)


def query(text: str) -> Query:
    return Query(query_id(text), text, 1, 1, ())


@given(queries=st.integers(0, 10**7), size=st.integers(1, 10**4))
def test_there_are_just_enough_shards(queries: int, size: int) -> None:
    total = shard_count(queries, size)
    assert total >= 1
    assert total * size >= queries
    assert total == 1 or (total - 1) * size < queries


@given(texts=TEXTS, size=st.integers(1, 10), seed=st.randoms(use_true_random=False))
def test_every_query_is_in_one_shard_whatever_the_order(
    texts: list[str], size: int, seed: random.Random
) -> None:
    def shards(ordered: list[str]) -> list[Shard]:
        grouped: dict[tuple[int, int], list[tuple[Query, bytes]]] = {}
        for text in ordered:
            blobs = [b"b" * 24, b"a" * 24]
            seed.shuffle(blobs)
            joined = (query_id(text), {"query": [query(text)], "previous": blobs})
            for key, value in _assign(joined, len(ordered), size):
                grouped.setdefault(key, []).append(value)
        return sorted(map(_make_shard, grouped.items()))

    made = shards(texts)
    shuffled = list(texts)
    seed.shuffle(shuffled)
    assert shards(shuffled) == made
    asked = [group.query.text for shard in made for group in shard.groups]
    assert sorted(asked) == sorted(texts)
    for shard in made:
        assert shard.total == shard_count(len(texts), size)
        assert 0 <= shard.number < shard.total
        ids = [group.query.query_id for group in shard.groups]
        assert ids == sorted(ids)
        assert {shard_of(one, shard.total) for one in ids} == {shard.number}
        assert shard.previous == (b"a" * 24 + b"b" * 24,) * len(ids)


def test_a_query_that_is_not_asked_again_is_no_query_of_the_night() -> None:
    assert not list(_assign(("ff", {"query": [], "previous": [b"x" * 24]}), 3, 1))
    ((_, value),) = _assign(("ff", {"query": [query("a")], "previous": []}), 3, 1)
    assert value == (query("a"), b"")


def test_a_stage_is_named_after_its_class() -> None:
    config = Config()
    stages: list[Stage] = [
        TagFeatures(config, None),
        ReuseScores("m", tagged=True),
        RankCandidates(),
    ]
    assert [stage.name for stage in stages] == ["TagFeatures", "ReuseScores", "RankCandidates"]
    assert MakeShards(2).label == "MakeShards"


def model(load: Callable[[], FakeScorer]) -> WorkersModel:
    return WorkersModel(load, FakeScorer().fingerprint)


class FixedSource:
    """Finds what it was given, in order."""

    def __init__(self, *found: list[Document] | Rejected) -> None:
        self._found = list(found)

    def candidates(self, queries: list[Query], *, top_k: int) -> list[list[Document] | Rejected]:
        return self._found


def document(doc_id: str, text: str = "some text") -> Document:
    return Document(doc_id, "", text, (), 1.0, 1)


def test_fetching_accounts_for_every_query_and_document() -> None:
    queries = sorted((query(text) for text in ("a", "b", "c", "d")), key=lambda q: q.query_id)
    missed = Rejected("FetchCandidates", "query", queries[3].query_id, "no_candidates", "nothing")
    source = FixedSource(
        [document("1"), document("2", " "), document("1")],  # one good, one without text, one twice
        [document("3", "\u200b")],  # none left
        [document("4"), document("5")],
        missed,
    )
    shard = _make_shard(((0, 1), [(one, one.text.encode()) for one in queries]))
    handled = FetchCandidates(source, Config(), None).handle(shard)  # type: ignore[arg-type]
    kept: Shard = handled.shard
    assert [[c.candidate.doc_id for c in group.candidates] for group in kept.groups] == [["1"], ["4", "5"]]
    assert kept.previous == tuple(group.query.text.encode() for group in kept.groups)  # still side by side
    assert handled.tally == {"in": 4, "out": 3}
    assert sorted((r.unit, r.reason) for r in handled.rejected) == [
        ("pair", "duplicate_doc_id"),
        ("pair", "no_text"),
        ("pair", "no_text"),
        ("query", "all_candidates_rejected"),
        ("query", "no_candidates"),
    ]


def test_scoring_drops_a_query_that_has_no_candidate_left() -> None:
    queries = sorted((query(text) for text in ("a", "b")), key=lambda q: q.query_id)
    source = FixedSource([document("1", "bad")], [document("2", "bad"), document("3", "good")])
    shard = _make_shard(((0, 1), [(one, b"") for one in queries]))
    fetched = FetchCandidates(source, Config(), None).handle(shard).shard  # type: ignore[arg-type]
    reused = ReuseScores(FakeScorer().fingerprint, tagged=True).handle(fetched)
    assert reused.tally == {"in": 3, "out": 3, "reused": 0}
    stage = ScoreCandidates(model(fake(nan_for="bad")), tagged=True, progress=None)
    handled = stage.handle(reused.shard)
    assert handled.tally == {"in": 3, "out": 1, "overflow_pairs": 0}
    (group,) = handled.shard.groups
    assert [c.candidate.doc_id for c in group.candidates] == ["3"]
    assert sorted((r.unit, r.reason) for r in handled.rejected) == [
        ("pair", "nan_logit"),
        ("pair", "nan_logit"),
        ("query", "all_candidates_rejected"),
    ]
    again = ScoreCandidates(model(forbidden()), tagged=True, progress=None).handle(handled.shard)
    assert again.shard.groups == handled.shard.groups


def test_a_worker_with_another_model_stops_the_night() -> None:
    import pytest

    from rerank_core.scoring.scorer import ScoringFailed

    shard = _make_shard(((0, 1), [(query("a"), b"")]))
    source = FixedSource([document("1")])
    fetched = FetchCandidates(source, Config(), None).handle(shard).shard  # type: ignore[arg-type]
    other = WorkersModel(fake("another"), "fingerprint-of-the-job")
    with pytest.raises(ScoringFailed, match="give every worker the same model files"):
        ScoreCandidates(other, tagged=True, progress=None).handle(fetched)
