"""Distances of samples against values worked out by hand, and chance against simulated stable samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.drift.distributions import (
    bin_counts,
    chance_of_ks,
    chance_of_mean,
    chance_of_psi,
    chance_of_share,
    fewer_by_chance,
    ks,
    psi,
    quantile_edges,
)

VALUES = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60)
COUNTS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=12)


def test_edges_are_the_references_deciles() -> None:
    assert quantile_edges(range(101)).tolist() == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert quantile_edges([1.0, 2.0, 3.0, 4.0], bins=2).tolist() == [2.0]


def test_a_value_that_fills_several_bins_has_one_of_its_own() -> None:
    edges = quantile_edges([0.5] * 10)
    assert edges.tolist() == [0.5, math.nextafter(0.5, math.inf)]
    assert bin_counts([0.4, 0.5, 0.5, 0.6], edges).tolist() == [1, 2, 1]


def test_no_sample_has_no_quantiles() -> None:
    with pytest.raises(ValueError, match="empty"):
        quantile_edges([])


def test_psi_by_hand() -> None:
    """Shares 0.5 and 0.5 against 0.75 and 0.25, with half a record more in each bin."""
    p, q = (10.5 / 21, 10.5 / 21), (15.5 / 21, 5.5 / 21)
    by_hand = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert psi([10, 10], [15, 5]) == pytest.approx(by_hand)
    assert psi([1000, 1000], [1500, 500]) == pytest.approx(0.25 * math.log(3), rel=0.01)


@given(COUNTS)
def test_psi_is_symmetric_finite_and_zero_only_between_equals(counts: list[tuple[int, int]]) -> None:
    before, after = ([pair[side] for pair in counts] for side in (0, 1))
    assert psi(before, after) == pytest.approx(psi(after, before))
    assert 0 <= psi(before, after) < math.inf
    assert psi(before, before) == 0


@given(VALUES, VALUES)
def test_every_value_is_in_one_bin(reference: list[float], values: list[float]) -> None:
    edges = quantile_edges(reference)
    assert (np.diff(edges) > 0).all()
    counts = bin_counts(values, edges)
    assert (len(counts), counts.sum()) == (len(edges) + 1, len(values))


def test_ks_by_hand() -> None:
    assert ks([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5
    assert ks([1, 2], [3, 4]) == 1


@given(VALUES, VALUES)
def test_ks_is_the_largest_distance_of_the_distribution_functions(
    one: list[float], other: list[float]
) -> None:
    def share(sample: list[float], at: float) -> float:
        return sum(value <= at for value in sample) / len(sample)

    assert ks(one, other) == pytest.approx(max(abs(share(one, at) - share(other, at)) for at in one + other))


@pytest.mark.parametrize(("before", "after"), [(20, 20), (200, 50), (1000, 1000)])
def test_stable_samples_seldom_exceed_chance(before: int, after: int) -> None:
    random, beyond = np.random.default_rng(7), {"psi": 0, "ks": 0}
    trials = 2000
    for _ in range(trials):
        one, other = random.beta(0.4, 2.0, before), random.beta(0.4, 2.0, after)
        edges = quantile_edges(one)
        beyond["psi"] += psi(bin_counts(one, edges), bin_counts(other, edges)) > chance_of_psi(before, after)
        beyond["ks"] += ks(one, other) > chance_of_ks(before, after)
    assert max(beyond.values()) <= 0.005 * trials, beyond


@pytest.mark.parametrize(
    ("tonight", "usual", "by_chance"),
    [
        (20, 20, True),
        (10, 20, True),
        (5, 20, True),
        (4, 20, False),
        (1, 20, False),
        (1, 5, True),
        (450, 500, True),
    ],
)
def test_a_count_that_chance_explains(tonight: int, usual: int, by_chance: bool) -> None:
    assert fewer_by_chance(tonight, usual) == by_chance


def test_chance_of_shares_and_means() -> None:
    pooled = 31 / 202
    expected = 3.0902 * math.sqrt(pooled * (1 - pooled) * 0.02)
    assert chance_of_share(0.1, 0.2, of=100, other_of=100) == pytest.approx(expected, rel=1e-4)
    assert chance_of_mean(0.3, of=50, other_of=50) == pytest.approx(3.0902 * 0.06, rel=1e-4)
