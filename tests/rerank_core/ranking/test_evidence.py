"""Evidence: the sentences that a model scores best, found in rounds over all units at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.config.night import EvidenceOptions
from rerank_core.ranking import evidence
from rerank_core.ranking.order import sigmoid
from schemas.records import Candidate, Evidence, Query, RankedCandidate, RankedGroup, ScoredCandidate

WORTH = {"one": 0.25, "two": 1.0, "three": -0.5, "four": 0.5}


class Additive:
    """Scores a passage by the worth of its words; `seen` are the inputs of every call."""

    fingerprint = "additive"

    def __init__(self, *, nan_for: str = "") -> None:
        self.seen: list[tuple[str, str]] = []
        self._nan_for = nan_for

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        self.seen += pairs
        return np.array([self.of(passage) for _, passage in pairs], dtype=np.float32)

    def of(self, passage: str) -> float:
        if self._nan_for and self._nan_for in passage:
            return float("nan")
        return sum(WORTH.get(word.strip(".").lower(), 0.0) for word in passage.split())


def group(*texts: str, known: Evidence | None = None, title: str = "") -> RankedGroup:
    ranked = []
    for rank, text in enumerate(texts, start=1):
        candidate = Candidate(f"d{rank}", f"d{rank}", title, text, 1.0, rank)
        scored = ScoredCandidate(candidate, None, "f" * 32, Additive().of(text), False, 0, known)
        ranked.append(RankedCandidate(scored, rank, rank, rank))
    return RankedGroup(Query("0" * 16, "asked", 1, 1, ()), tuple(ranked))


def found(
    *groups: RankedGroup, top_n: int = 3, keep_share: float = 0.0, scorer: Additive | None = None
) -> list[list[Evidence | None]]:
    options = EvidenceOptions(top_n=top_n, keep_share=keep_share)
    made = evidence.find(groups, scorer or Additive(), options=options, tagged=False)
    return [[one.scored.evidence for one in group.candidates] for group in made.groups]


def test_the_best_sentence_speaks_for_a_passage() -> None:
    text = "One here. Two here. Four here."
    assert found(group(text)) == [[Evidence((1,), 1.0)]]
    assert evidence.quote(text, Evidence((1,), 1.0)) == "Two here."
    assert evidence.quote(text, Evidence((0, 2), 1.0)) == "One here. Four here."


def test_of_equal_sentences_the_first_is_taken() -> None:
    assert found(group("Two here. Two there.")) == [[Evidence((0,), 1.0)]]


def test_a_single_sentence_has_the_units_score_and_costs_nothing() -> None:
    scorer = Additive()
    assert found(group("Two here."), scorer=scorer) == [[Evidence((0,), 1.0)]]
    assert scorer.seen == []


def test_only_the_best_units_get_evidence() -> None:
    two = group("Two here. One.", "One here. Three.")
    assert [[one and one.sentences for one in row] for row in found(two, two, top_n=1)] == [[(0,), None]] * 2
    assert found(two, top_n=0) == [[None, None]]


def test_what_the_cascade_left_out_gets_no_evidence_and_needs_no_model() -> None:
    scored, other = group("one. two.", "one. two.").candidates
    left_out = other._replace(scored=other.scored._replace(logit=None, pruned=-1.0))
    made = group("one. two.")._replace(candidates=(scored, left_out))
    ((first, second),) = found(made)
    assert first is not None
    assert second is None
    assert not evidence.needs_model([made._replace(candidates=(left_out,))], options=EvidenceOptions())


def test_the_fewest_sentences_that_keep_the_score() -> None:
    text = "One here. Two here. Four here."  # logits .25, 1, .5; the whole: 1.75, sigmoid .852
    assert found(group(text), keep_share=0.8) == [[Evidence((1,), 1.0)]]
    assert found(group(text), keep_share=0.95) == [[Evidence((1, 2), 1.5)]]
    assert found(group(text), keep_share=1.0) == [[Evidence((0, 1, 2), 1.75)]]


def test_titles_and_query_stand_beside_each_sentence() -> None:
    scorer = Additive()
    found(group("One here. Two here.", title="Heads"), scorer=scorer)
    assert sorted(scorer.seen) == [("asked", "Heads One here."), ("asked", "Heads Two here.")]


def test_what_an_earlier_run_found_is_kept_and_needs_no_model() -> None:
    known = Evidence((0,), 0.125)
    groups = [group("Two here. One here.", known=known)]
    options = EvidenceOptions()
    assert not evidence.needs_model(groups, options=options)
    made = evidence.find(groups, None, options=options, tagged=False)
    assert (made.wanted, made.reused, made.inputs, made.failed) == (1, 1, 0, 0)
    assert made.groups[0].candidates[0].scored.evidence == known
    below = evidence.find(groups, None, options=EvidenceOptions(top_n=0), tagged=False)
    assert below.groups[0].candidates[0].scored.evidence is None


def test_a_sentence_that_cannot_be_scored_is_no_evidence() -> None:
    scorer = Additive(nan_for="Two")
    assert found(group("One here. Two here."), scorer=scorer) == [[Evidence((0,), 0.25)]]
    made = evidence.find(
        [group("Two here. Two there.")], Additive(nan_for="Two"), options=EvidenceOptions(), tagged=False
    )
    assert (made.wanted, made.failed) == (1, 1)
    assert made.groups[0].candidates[0].scored.evidence is None


SENTENCES = st.lists(st.sampled_from([f"{word.title()} here." for word in WORTH]), min_size=1, max_size=5)


@given(st.lists(SENTENCES.map(" ".join), min_size=1, max_size=4), st.sampled_from([0.0, 0.9, 0.95, 1.0]))
@settings(deadline=None)
def test_against_the_oracle(texts: list[str], keep_share: float) -> None:
    (row,) = found(group(*texts), top_n=len(texts), keep_share=keep_share)
    for text, one in zip(texts, row, strict=True):
        sentences = evidence.split(text)
        own = [Additive().of(sentence) for sentence in sentences]
        order = sorted(range(len(own)), key=lambda n: (-own[n], n))
        whole = sigmoid(Additive().of(text))
        sums = list(itertools.accumulate(own[n] for n in order))
        taken = next(
            (n for n, logit in enumerate(sums, 1) if not keep_share or sigmoid(logit) >= keep_share * whole),
            len(own),
        )
        assert one is not None
        assert one.sentences == tuple(sorted(order[:taken]))
        assert one.logit == pytest.approx(sums[taken - 1])
