"""How far apart two samples are, and how far apart chance alone puts two samples of one population."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special  # not scipy.stats, which takes most of a second to import, every night

BINS = 10
CHANCE = 0.001
"""Probability with which a stable night exceeds what `chance_of_*` returns."""

Z = float(-special.ndtri(CHANCE))
"""Standard errors that chance exceeds, to one side, with probability CHANCE: 3.09."""


def quantile_edges(reference: Sequence[float] | np.ndarray, bins: int = BINS) -> np.ndarray:
    """Edges between the bins that each hold an equal share of the reference; fewer where values repeat.

    Raises:
        ValueError: the reference is empty.
    """
    if not len(reference):
        raise ValueError("an empty sample has no quantiles")
    inner = np.quantile(np.asarray(reference, dtype=np.float64), np.arange(1, bins) / bins, method="lower")
    edges = np.unique(inner)
    # A value that fills bins of its own gets one: from it to the next number.
    return np.unique(np.concatenate([edges, np.nextafter(edges[np.isin(edges, _repeated(inner))], np.inf)]))


def _repeated(values: np.ndarray) -> np.ndarray:
    found, times = np.unique(values, return_counts=True)
    return np.asarray(found[times > 1])


def bin_counts(values: Sequence[float] | np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number of values in each of len(edges) + 1 bins; a value on an edge belongs to the upper bin."""
    bins = np.searchsorted(edges, np.asarray(values, dtype=np.float64), side="right")
    return np.bincount(bins, minlength=len(edges) + 1)


def psi(reference: Sequence[int] | np.ndarray, tonight: Sequence[int] | np.ndarray) -> float:
    """Population stability index of two samples, from their counts in the same bins.

    PSI = sum over bins of (q - p) ln(q / p), where p and q are the bin's shares of the reference and of tonight
    (Siddiqi, Credit Risk Scorecards, 2006; it is the symmetric Kullback-Leibler divergence of Jeffreys, 1946). Half a
    record is added to each bin (Jeffreys' prior), so that an empty bin gives a finite value. Credit scoring reads 0.1
    as a small shift, and 0.25 as a large one.
    """
    before, after = (np.asarray(counts, dtype=np.float64) + 0.5 for counts in (reference, tonight))
    p, q = before / before.sum(), after / after.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def ks(reference: Sequence[float] | np.ndarray, tonight: Sequence[float] | np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov statistic: the largest distance between the distribution functions, 0 to 1."""
    before, after = np.sort(reference), np.sort(tonight)
    values = np.concatenate([before, after])
    shares = (np.searchsorted(own, values, side="right") / len(own) for own in (before, after))
    return float(np.max(np.abs(np.subtract(*shares))))


def chance_of_psi(reference: int, tonight: int) -> float:
    """PSI that two stable samples of that many independent records exceed with probability CHANCE, over BINS bins.

    Under stability, PSI / (1/n + 1/m) is chi-squared with BINS - 1 degrees of freedom (Yurdakul and Naranjo,
    Statistical properties of the population stability index, 2020). With fewer bins it is exceeded less often.
    """
    return float(special.chdtri(BINS - 1, CHANCE)) * (1 / reference + 1 / tonight)


def chance_of_ks(reference: int, tonight: int) -> float:
    """The same for the Kolmogorov-Smirnov statistic (its asymptotic distribution)."""
    return math.sqrt(-math.log(CHANCE / 2) / 2 * (1 / reference + 1 / tonight))


def chance_of_share(share: float, other: float, *, of: int, other_of: int) -> float:
    """Difference of two shares that chance gives, by the pooled share; two records are added, one of them counted."""
    pooled = (share * of + other * other_of + 1) / (of + other_of + 2)
    return Z * math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / other_of))


def chance_of_mean(deviation: float, *, of: int, other_of: int) -> float:
    """Difference of two means that chance gives where single values have that standard deviation."""
    return Z * deviation * math.sqrt(1 / of + 1 / other_of)


def fewer_by_chance(count: float, reference: float) -> bool:
    """Whether chance may leave so few of a Poisson count, if its expectation has not changed."""
    return bool(special.bdtr(round(count), round(count) + round(reference), 0.5) > CHANCE)
