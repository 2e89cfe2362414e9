"""Stages as seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipelines.nightly.deadline import Deadline
from pipelines.nightly.models import Model
from pipelines.nightly.shard_stage import ShardStage
from pipelines.nightly.shards import Earlier, MakeShards, Shard, _make_shards
from pipelines.nightly.stages import (
    FetchCandidates,
    RankCandidates,
    ReuseScores,
    ScoreCandidates,
    TagFeatures,
)
from pipelines.nightly.workers import SharedScorer, shared_scorer
from rerank_core.config.night import Config
from rerank_core.text import query_id
from schemas.records import Document, Query, Rejected
from tests.support.fakes import FakeScorer, fake, forbidden

NEVER = Deadline(None, rows_per_shard=1)


def query(text: str) -> Query:
    return Query(query_id(text), text, 1, 1, ())


def made(grouped: tuple[tuple[int, int], list[tuple[Query, bytes]]]) -> Shard:
    key, members = grouped
    (shard,) = _make_shards((key, [(one, Earlier(scores)) for one, scores in members]))
    return shard


def test_a_stage_is_named_after_its_class() -> None:
    config = Config()
    stages: list[ShardStage] = [
        TagFeatures(config, None, NEVER),
        ReuseScores("m", tagged=True),
        RankCandidates(None),
    ]
    assert [stage.name for stage in stages] == ["TagFeatures", "ReuseScores", "RankCandidates"]
    assert MakeShards(2).label == "MakeShards"


def model(load: Callable[[], FakeScorer]) -> SharedScorer:
    return shared_scorer(Model(load, FakeScorer().fingerprint))


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
    shard = made(((0, 1), [(one, one.text.encode()) for one in queries]))
    handled = FetchCandidates(source, Config(), None, NEVER).handle(shard)  # type: ignore[arg-type]
    kept: Shard = handled.shard
    assert [[c.candidate.doc_id for c in group.candidates] for group in kept.groups] == [["1"], ["4", "5"]]
    assert kept.previous == tuple(
        Earlier(group.query.text.encode()) for group in kept.groups
    )  # still side by side
    assert handled.tally == {"in": 4, "out": 3}
    assert sorted((r.unit, r.reason) for r in handled.rejected) == [
        ("pair", "duplicate_doc_id"),
        ("pair", "no_text"),
        ("pair", "no_text"),
        ("query", "all_candidates_rejected"),
        ("query", "no_candidates"),
    ]


class Cramped(FakeScorer):
    """Halves its batches once a call, as a model on a small GPU may."""

    halvings = 3  # before this shard

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.halvings += 1
        return super().score(pairs)


def test_halved_batches_are_counted() -> None:
    shard = made(((0, 1), [(query("a"), b"")]))
    fetched = FetchCandidates(FixedSource([document("1")]), Config(), None, NEVER).handle(shard).shard  # type: ignore[arg-type]
    reused = ReuseScores(FakeScorer().fingerprint, tagged=False).handle(fetched)
    handled = ScoreCandidates(model(Cramped), NEVER, tagged=False, progress=None).handle(reused.shard)
    assert handled.tally == {"in": 1, "out": 1, "overflow_pairs": 0, "memory_halvings": 1}


def test_scoring_drops_a_query_that_has_no_candidate_left() -> None:
    queries = sorted((query(text) for text in ("a", "b")), key=lambda q: q.query_id)
    source = FixedSource([document("1", "bad")], [document("2", "bad"), document("3", "good")])
    shard = made(((0, 1), [(one, b"") for one in queries]))
    fetched = FetchCandidates(source, Config(), None, NEVER).handle(shard).shard  # type: ignore[arg-type]
    reused = ReuseScores(FakeScorer().fingerprint, tagged=True).handle(fetched)
    assert reused.tally == {"in": 3, "out": 3, "reused": 0}
    stage = ScoreCandidates(model(fake(nan_for="bad")), NEVER, tagged=True, progress=None)
    handled = stage.handle(reused.shard)
    assert handled.tally == {"in": 3, "out": 1, "overflow_pairs": 0}
    (group,) = handled.shard.groups
    assert [c.candidate.doc_id for c in group.candidates] == ["3"]
    assert sorted((r.unit, r.reason) for r in handled.rejected) == [
        ("pair", "nan_logit"),
        ("pair", "nan_logit"),
        ("query", "all_candidates_rejected"),
    ]
    again = ScoreCandidates(model(forbidden()), NEVER, tagged=True, progress=None).handle(handled.shard)
    assert again.shard.groups == handled.shard.groups


def test_a_worker_with_another_model_stops_the_night() -> None:
    import pytest

    from rerank_core.errors import ScoringFailed

    shard = made(((0, 1), [(query("a"), b"")]))
    source = FixedSource([document("1")])
    fetched = FetchCandidates(source, Config(), None, NEVER).handle(shard).shard  # type: ignore[arg-type]
    other = shared_scorer(Model(fake("another"), "fingerprint-of-the-job"))
    with pytest.raises(ScoringFailed, match="give every worker the same model files"):
        ScoreCandidates(other, NEVER, tagged=True, progress=None).handle(fetched)
