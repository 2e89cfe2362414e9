"""Tests of significance: against every way of flipping signs, and Holm against closed testing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from rerank_core.evaluation.significance import (
    Verdict,
    against_baselines,
    holm,
    mean_at_least,
    mean_interval,
    sign_flip,
)

P_VALUES = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.2, 0.5, 1.0]), max_size=6)


def exact(differences: list[int]) -> float:
    """The share of all sign patterns whose sum lies at least as far from zero."""
    sums = [
        sum(sign * one for sign, one in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(abs(one) >= abs(sum(differences)) for one in sums) / len(sums)


@given(st.lists(st.integers(-4, 4), max_size=8))
@settings(deadline=None)
def test_few_queries_are_enumerated(differences: list[int]) -> None:
    assert sign_flip(differences) == pytest.approx(exact(differences))


def test_random_flips_come_near_the_exact_value_and_are_the_same_every_time() -> None:
    differences = [3, -1, 2, 5, -2, 4, 1, -3, 2, 6, -1, 2]
    rough = sign_flip(differences, resamples=2000)
    assert rough == pytest.approx(exact(differences), abs=0.02)
    assert rough == sign_flip(differences, resamples=2000)
    assert rough != sign_flip(differences, resamples=2000, seed=8)


def test_many_queries_that_all_agree_leave_no_doubt() -> None:
    assert sign_flip([0.01] * 300) == pytest.approx(2 / 10_000)
    assert sign_flip([0.01, -0.01] * 150) > 0.9


def test_without_a_difference_there_is_nothing_to_find() -> None:
    assert sign_flip([]) == sign_flip([0.0] * 50) == sign_flip([0.0, 0.7]) == 1.0
    with pytest.raises(ValueError, match="not finite"):
        sign_flip([0.1, math.nan])


LOSS = 0.05
"""What the systems below lose on average."""

Draw = Callable[[np.random.Generator, int], np.ndarray]
WORSE: dict[str, Draw] = {
    "all vary": lambda random, n: random.normal(-LOSS, 0.1, n),
    "a third varies": lambda random, n: np.where(
        random.random(n) < 0.3, random.normal(-LOSS / 0.3, 0.2, n), 0
    ),
    "a fifth loses a quarter": lambda random, n: (random.random(n) < 0.2) * -LOSS / 0.2,
    "a tenth loses half": lambda random, n: (random.random(n) < 2 * LOSS) * -0.5,
    "a twentieth loses all": lambda random, n: (random.random(n) < LOSS) * -1.0,
    "more gain than lose": lambda random, n: random.choice(
        [0.1, -1.0, 0.0], n, p=[0.3, LOSS + 0.03, 0.67 - LOSS]
    ),
}


@pytest.mark.parametrize("queries", [5, 10, 30, 60, 100, 300])
@pytest.mark.parametrize("name", WORSE)
def test_a_bound_is_above_the_true_mean_in_a_twentieth_of_samples_at_most(name: str, queries: int) -> None:
    """Whatever the losses look like, and however few queries there are; by 400 samples."""
    random = np.random.default_rng(queries)
    samples = [WORSE[name](random, queries).clip(-1) for _ in range(400)]
    wrong = sum(mean_at_least(list(sample), resamples=300) > -LOSS for sample in samples)
    assert wrong <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


@given(st.integers(1, 40), st.integers(0, 40))
def test_a_bound_of_two_values_is_that_of_clopper_and_pearson(queries: int, losing: int) -> None:
    losing = min(losing, queries)
    exact = binomtest(losing, queries, alternative="less").proportion_ci(0.95).high
    assert mean_at_least([-1.0] * losing + [0.0] * (queries - losing)) == pytest.approx(-exact, abs=0.01)


@given(st.lists(st.floats(-1, 1), max_size=40), st.floats(-1, 1))
def test_a_bound_is_below_the_mean_and_rises_with_every_difference(
    changes: list[float], other: float
) -> None:
    found = mean_at_least(changes, resamples=300)
    assert -1 <= found <= (np.mean(changes) if changes else -1) + 1e-9
    assert found == mean_at_least(changes, resamples=300)
    higher = [max(change, other) for change in changes]
    assert mean_at_least(higher, resamples=300) >= found - 1e-9


def test_a_bound_of_equal_differences_falls_short_by_what_was_not_seen() -> None:
    for queries in (1, 10, 100, 1000):
        unseen = 1 - 0.05 ** (1 / queries)
        assert mean_at_least([0.2] * queries) == pytest.approx(0.2 - 1.2 * unseen, rel=0.01)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.1])
def test_a_bound_of_impossible_differences_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="not finite or below -1"):
        mean_at_least([0.0, wrong])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40))
def test_an_interval_lies_within_the_differences_and_is_the_same_each_time(changes: list[float]) -> None:
    low, high = found = mean_interval(changes, resamples=500)
    assert min(changes) - 1e-9 <= low <= high <= max(changes) + 1e-9
    assert found == mean_interval(changes, resamples=500)


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of 300 samples of 80 skewed differences, 95 % of the intervals hold the mean they were drawn from."""
    random = np.random.default_rng(3)
    samples = random.exponential(0.2, (300, 80)) - 0.1
    intervals = [mean_interval(list(sample), resamples=800) for sample in samples]
    assert 0.90 <= sum(low <= 0.1 <= high for low, high in intervals) / 300 <= 0.98


def test_an_interval_is_scipys_percentile_bootstrap() -> None:
    changes = np.random.default_rng(5).normal(0.05, 0.3, 150)
    expected = bootstrap((changes,), np.mean, method="percentile", rng=11).confidence_interval
    assert mean_interval(list(changes)) == pytest.approx(tuple(expected), abs=0.003)


def test_a_single_difference_has_no_interval() -> None:
    assert mean_interval([]) is mean_interval([0.7]) is None
    assert mean_interval([0.0] * 50) == (0.0, 0.0)
    with pytest.raises(ValueError, match="not finite"):
        mean_interval([0.1, math.nan])


@given(P_VALUES)
def test_holm_is_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    """A hypothesis falls if every intersection that it is part of falls: that is the definition."""
    places = range(len(p_values))
    families = [f for size in range(1, len(p_values) + 1) for f in itertools.combinations(places, size)]
    expected = [
        max(min(1.0, len(f) * min(p_values[n] for n in f)) for f in families if place in f)
        for place in places
    ]
    assert holm(p_values) == pytest.approx(expected)


def test_every_system_of_every_set_counts_in_the_correction() -> None:
    base = {f"q{n}": 0.5 for n in range(8)}
    better = {query: value + 0.1 + n / 100 for n, (query, value) in enumerate(base.items())}
    values = {
        "one": {"bm25": base, "up": better, "same": dict(base)},
        "two": {"up": {"q": 0.9}, "bm25": {"q": 0.1}},
    }

    found = against_baselines(values, {"one": "bm25", "two": "bm25"})

    assert list(found) == [("one", "up"), ("one", "same"), ("two", "up")]
    assert found["one", "up"].p == pytest.approx(2 / 2**8)
    assert found["one", "up"].p_holm == pytest.approx(3 * 2 / 2**8)
    assert found["one", "up"].change == pytest.approx(0.135)
    assert found["one", "up"].significant
    assert found["one", "same"] == Verdict(0.0, 1.0, 1.0)
    assert found["two", "up"] == Verdict(pytest.approx(0.8), 1.0, 1.0)
    assert not found["two", "up"].significant
