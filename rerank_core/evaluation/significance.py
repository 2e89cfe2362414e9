"""Whether two systems differ by more than chance: paired randomisation tests, corrected by Holm's method.

A difference of a point or two over forty queries is mostly chance, and the best of many systems is partly the luckiest.
So every figure beside a baseline's has a p-value, and the p-values of a table are corrected for their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 9_999
"""Random sign flips of a test: the smallest p-value is 2 / 10,000."""

LEVEL = 0.05
"""A corrected p-value below this is significant."""

_CELLS = 1_000_000  # differences x flips in memory at once: some 30 MB
_HALVINGS = 40  # of the range that a bound is searched in: to 1e-12

ByQuery = Mapping[str, float]


class Verdict(NamedTuple):
    """One system beside its baseline, by one measure."""

    change: float  # mean over the queries, the system's minus the baseline's
    p: float  # two-sided, uncorrected
    p_holm: float  # corrected for all tests of the table

    @property
    def significant(self) -> bool:
        return self.p_holm < LEVEL


def sign_flip(differences: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 7) -> float:
    """Two-sided p-value of a mean difference under the hypothesis that each query's sign is random.

    Exact if there are at most `resamples` ways of flipping signs, else by that many random ones.

    Args:
        differences: system minus baseline, one a query.
        resamples: number of random flips.
        seed: of the flips.

    Raises:
        ValueError: a difference that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite, so the systems cannot be compared")
    values = values[values != 0]  # a flipped zero stays zero
    if len(values) < 2:
        return 1.0  # none or one: both signs are as far from zero
    from scipy.stats import permutation_test  # takes over a second to import, and only a comparison needs it

    result = permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=seed,
        batch=max(1, _CELLS // len(values)),
    )
    return min(1.0, float(result.pvalue))


def mean_interval(
    differences: Sequence[float], *, level: float = 1 - LEVEL, resamples: int = RESAMPLES, seed: int = 7
) -> tuple[float, float] | None:
    """Confidence interval of a mean difference, by the percentile bootstrap over queries (Efron 1979).

    Args:
        differences: system minus baseline, one a query; their order matters to the last digits only.
        level: of confidence, 0 to 1.
        resamples: number of samples drawn with replacement.
        seed: of the samples: the same differences give the same interval.

    Returns:
        (low, high); None for fewer than two differences, whose spread is unknown.

    Raises:
        ValueError: a difference that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite, so the systems cannot be compared")
    if len(values) < 2:
        return None
    random, means = np.random.default_rng(seed), np.empty(resamples)
    batch = max(1, _CELLS // len(values))
    for start in range(0, resamples, batch):
        count = min(batch, resamples - start)
        means[start : start + count] = values[random.integers(len(values), size=(count, len(values)))].mean(1)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def mean_at_least(
    differences: Sequence[float],
    *,
    lowest: float = -1.0,
    level: float = 1 - LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 7,
) -> float:
    """Lower confidence bound of a mean difference that holds for few queries and for losses that were not seen.

    Gaffke's bound (2005): a Bayesian bootstrap of the differences and of one more query with the lowest possible one.
    Of differences with two values it is that of Clopper and Pearson; of n equal ones, 1 - (1 - level)^(1/n) of the way
    down to `lowest`. The weight of the added query is integrated, not drawn, so that draws hardly matter.

    Args:
        differences: system minus baseline, one a query, none below `lowest`.
        lowest: what a query can lose at most; -1 for measures from 0 to 1.
        level: of confidence, 0 to 1.
        resamples: number of draws of the weights.
        seed: of the draws: the same differences give the same bound.

    Returns:
        The bound; `lowest` for no differences.

    Raises:
        ValueError: a difference that is not finite, or below `lowest`.
    """
    values = np.asarray(differences, np.float64)
    if not (np.isfinite(values) & (values >= lowest)).all():
        raise ValueError(f"a difference is not finite or below {lowest:g}, so the systems cannot be compared")
    if not len(values) or values.max() <= lowest:
        return lowest
    random, totals = np.random.default_rng(seed), np.empty((2, resamples))
    batch = max(1, _CELLS // len(values))
    for start in range(0, resamples, batch):
        weights = random.exponential(size=(min(batch, resamples - start), len(values)))
        totals[:, start : start + len(weights)] = weights @ values, weights.sum(1)
    low, high = lowest, float(values.max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # the mean is below the middle if the added query weighs so much more
        needed = (totals[0] - middle * totals[1]).clip(0) / (middle - lowest)
        low, high = (low, middle) if np.exp(-needed).mean() > 1 - level else (middle, high)
    return low


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, which bounds the probability of any false positive by the level of the tests."""
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    corrected, highest = [0.0] * len(p_values), 0.0
    for smaller, n in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - smaller) * p_values[n]))
        corrected[n] = highest
    return corrected


def against_baselines(
    values: Mapping[str, Mapping[str, ByQuery]], baselines: Mapping[str, str]
) -> dict[tuple[str, str], Verdict]:
    """Each system of each set against the set's baseline; p-values are corrected over all of them together.

    Args:
        values: of one measure, by set, then system, then query_id. Systems of a set have the same queries.
        baselines: the name of each set's baseline.

    Returns:
        By (set, system), for all but the baselines.
    """
    changes: dict[tuple[str, str], list[float]] = {}
    for name, systems in values.items():
        base = systems[baselines[name]]
        for system, by_query in systems.items():
            if system != baselines[name]:
                assert by_query.keys() == base.keys(), f"{system} and {baselines[name]} have other queries"
                changes[name, system] = [by_query[query] - base[query] for query in base]
    uncorrected = [sign_flip(change) for change in changes.values()]
    return {
        key: Verdict(math.fsum(change) / len(change), p, corrected)
        for (key, change), p, corrected in zip(changes.items(), uncorrected, holm(uncorrected), strict=True)
    }
