from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.night import Tagging
from rerank_core.errors import ScoringFailed
from rerank_core.scoring.fault_tolerant import Outcome, PairError, score_checked
from rerank_core.scoring.protocol import MeasuresOverflow, Scorer, reads_tags

Pair = tuple[str, str]


def logit_of(pair: Pair) -> float:
    return float(np.float32(len(pair[0]) - 2 * len(pair[1]) + sum(map(ord, "".join(pair))) / 7))


class Fake:
    """Scores by `logit_of`; raises for a batch with a pair of `bad`, says NaN for one of `nan`."""

    fingerprint = "fake"

    def __init__(self, *, bad: Sequence[Pair] = (), nan: Sequence[Pair] = (), limit: int = 10**9) -> None:
        self.bad, self.nan, self.limit = frozenset(bad), frozenset(nan), limit
        self.calls: list[list[Pair]] = []

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        self.calls.append(list(pairs))
        if len(pairs) > self.limit:
            raise MemoryError(f"{len(pairs)} pairs")
        for pair in pairs:
            if pair in self.bad:
                raise RuntimeError(f"cannot take {pair[1]}")
        return np.array([np.nan if pair in self.nan else logit_of(pair) for pair in pairs], np.float32)


class Answers:
    """Answers every call by a function of the number of pairs."""

    fingerprint = "answers"

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self.answer = answer

    def score(self, pairs: Sequence[Pair]) -> Any:
        return self.answer(len(pairs))


def distinct(count: int) -> list[Pair]:
    return [(f"q{i % 3}", "p" * (i * 7 % 11) + str(i)) for i in range(count)]


PAIRS = st.lists(st.tuples(st.text("ab", max_size=3), st.text("abc", max_size=4)), max_size=30)


@given(PAIRS, st.integers(1, 12))
def test_logits_come_back_in_the_pairs_order(pairs: list[Pair], chunk: int) -> None:
    assert score_checked(Fake(), pairs, chunk=chunk) == Outcome([logit_of(pair) for pair in pairs], {})


@given(PAIRS, st.integers(1, 12))
def test_equal_pairs_are_scored_once(pairs: list[Pair], chunk: int) -> None:
    scorer = Fake()
    score_checked(scorer, pairs, chunk=chunk)
    asked = [pair for call in scorer.calls for pair in call]
    assert sorted(asked) == sorted(set(pairs))
    assert all(len(call) <= chunk for call in scorer.calls)


@given(st.data(), st.integers(1, 80), st.integers(1, 50))
def test_bisecting_finds_exactly_the_bad_pairs(data: st.DataObject, count: int, chunk: int) -> None:
    pairs = distinct(count)
    bad = data.draw(st.lists(st.sampled_from(range(count)), unique=True, max_size=min(count, 7)))
    # At most 7 bad pairs: a chunk of 8 or more always holds a good one, so the scorer is never called broken.
    outcome = score_checked(Fake(bad=[pairs[i] for i in bad]), pairs, chunk=chunk)
    assert sorted(outcome.errors) == sorted(bad)
    assert list(outcome.errors) == sorted(bad)
    assert outcome.logits == [None if i in bad else logit_of(pair) for i, pair in enumerate(pairs)]
    for i, error in outcome.errors.items():
        assert error == PairError("model_error", f"RuntimeError: cannot take {pairs[i][1]}")


def test_one_bad_pair_costs_few_calls() -> None:
    pairs = distinct(512)
    scorer = Fake(bad=[pairs[300]])
    assert list(score_checked(scorer, pairs).errors) == [300]
    assert len(scorer.calls) <= 2 + 2 * 10  # the chunk, one probe, two halves a level


def test_a_batch_too_large_for_memory_is_halved() -> None:
    pairs = distinct(100)
    assert score_checked(Fake(limit=20), pairs) == Outcome([logit_of(pair) for pair in pairs], {})


def test_both_places_of_a_bad_duplicate_have_the_error() -> None:
    outcome = score_checked(Fake(bad=[("q", "x")]), [("q", "x"), ("q", "y"), ("q", "x")])
    assert set(outcome.errors) == {0, 2}
    assert outcome.logits == [None, logit_of(("q", "y")), None]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_an_error_of_its_pair_alone(value: float) -> None:
    outcome = score_checked(
        Answers(lambda n: np.array([1, value, 2][:n], np.float32)), [("q", "ccc"), ("q", "bb"), ("q", "a")]
    )
    assert outcome.logits == [1, None, 2]
    assert outcome.errors == {1: PairError("nan_logit", f"the model's logit is {value}")}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda n: np.zeros(n + 1, np.float32), r"returned 4 logits of shape \[4\] for 3 pairs"),
        (lambda n: np.zeros(n - 1, np.float32), r"returned 2 logits of shape \[2\] for 3 pairs"),
        (lambda n: np.zeros((n, 1), np.float32), r"of shape \[3, 1\] for 3 pairs; .*shape \[3\]"),
        (lambda n: np.float32(0), r"of shape \[\]"),
        (lambda n: np.zeros(n, np.float16), "returned float16"),
        (lambda n: ["a"] * n, "returned <U1"),
    ],
)
def test_a_scorer_that_breaks_its_contract_stops_the_job(answer: Callable[[int], Any], said: str) -> None:
    with pytest.raises(ScoringFailed, match=said):
        score_checked(Answers(answer), distinct(3))


@pytest.mark.parametrize("count", [8, 32, 33, 500])
def test_a_scorer_that_fails_every_pair_stops_the_job_early(count: int) -> None:
    pairs = distinct(count)
    scorer = Fake(bad=pairs)
    with pytest.raises(
        ScoringFailed, match=r"all \d+ pairs that were tried of a chunk of \d+; .*cannot take"
    ):
        score_checked(scorer, pairs)
    assert len(scorer.calls) <= 33


def test_nan_for_every_pair_stops_the_job() -> None:
    pairs = distinct(8)
    with pytest.raises(ScoringFailed, match="nan_logit"):
        score_checked(Fake(nan=pairs), pairs)


def test_fewer_than_eight_failures_do_not_accuse_the_scorer() -> None:
    pairs = distinct(7)
    assert len(score_checked(Fake(bad=pairs), pairs).errors) == 7


@given(st.integers(8, 32), st.data())
def test_one_good_pair_acquits_the_scorer_of_a_chunk_of_32(count: int, data: st.DataObject) -> None:
    pairs = distinct(count)
    good = data.draw(st.sampled_from(range(count)))
    outcome = score_checked(Fake(bad=[pair for pair in pairs if pair != pairs[good]]), pairs)
    assert set(outcome.errors) == set(range(count)) - {good}


def test_an_interrupt_passes() -> None:
    def stop(n: int) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_checked(Answers(stop), distinct(3))


def test_a_scorers_own_verdict_passes() -> None:
    def stop(n: int) -> Any:
        raise ScoringFailed("the device is gone")

    with pytest.raises(ScoringFailed, match="the device is gone"):
        score_checked(Answers(stop), distinct(3))


@given(PAIRS, st.integers(1, 12))
def test_progress_adds_up_to_all_pairs(pairs: list[Pair], chunk: int) -> None:
    done: list[int] = []
    score_checked(Fake(), pairs, chunk=chunk, on_scored=done.append)
    assert sum(done) == len(pairs)


def test_a_long_detail_is_shortened() -> None:
    class Talker(Fake):
        def score(self, pairs: Sequence[Pair]) -> np.ndarray:
            raise ValueError("x" * 5000)

    (error,) = score_checked(Talker(), [("q", "p")]).errors.values()
    assert error.detail.startswith("ValueError: xxx")
    assert len(error.detail) < 300


def test_no_pairs_call_no_scorer() -> None:
    scorer = Fake()
    assert score_checked(scorer, []) == Outcome([], {})
    assert scorer.calls == []


def test_a_chunk_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk is -1"):
        score_checked(Fake(), [], chunk=-1)


def test_overflow_is_optional() -> None:
    scorer: Scorer = Fake()
    assert not isinstance(scorer, MeasuresOverflow)


class _Silent:
    """Says nothing of tags."""

    fingerprint = "silent"

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.zeros(len(pairs), np.float32)


class _Trained(_Silent):
    reads_tags = True


@pytest.mark.parametrize(
    ("scorer", "tags", "expected"),
    [
        (_Silent(), Tagging(), False),
        (_Trained(), Tagging(), True),
        (_Silent(), Tagging(model_input="tagged"), True),
        (_Trained(), Tagging(model_input="plain"), False),
        (_Trained(), Tagging(enabled=False, model_input="tagged"), False),
    ],
)
def test_a_model_reads_tags_if_it_says_so_or_is_told_to(
    scorer: Scorer, tags: Tagging, expected: bool
) -> None:
    assert reads_tags(scorer, tags) is expected


def test_a_scorer_says_how_many_pairs_it_wants_at_once() -> None:
    pairs = [("q", str(i)) for i in range(1200)]
    scorer = Fake()
    score_checked(scorer, pairs)
    assert [len(call) for call in scorer.calls] == [512, 512, 176]

    class Hungry(Fake):
        chunk = 1000

    hungry = Hungry()
    score_checked(hungry, pairs)
    assert [len(call) for call in hungry.calls] == [1000, 200]
    hungry.calls.clear()
    score_checked(hungry, pairs, chunk=600)
    assert [len(call) for call in hungry.calls] == [600, 600]
