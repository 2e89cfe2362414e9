"""Clicks corrected for position bias: the propensity of each rank, estimated from the log.

The position-based model (Richardson et al. 2007): a result is clicked if it is examined, which depends on its rank
alone, and attractive, which depends on query and document alone. The propensity of a rank is the chance that it is
examined. A document that was shown at two ranks gives the ratio of their propensities, whatever its attraction: its
clicks are compared as if it had been shown equally often at both (intervention harvesting, Agarwal et al. 2019,
arXiv:1812.05161). A Bradley-Terry model (Hunter 2004) combines the ratios of all pairs of ranks. A document's
attraction is its clicks by its impressions, weighted by the inverse propensities of the ranks (Joachims et al. 2017,
arXiv:1608.04468). The weights are clipped, since that of a rank that few examine is noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from schemas.records import ShownAtRank

ROUNDS = 1000
TOLERANCE = 1e-7  # the iteration ends when no propensity changes by more
MAX_RANK = 30  # lower ranks count as this one


class Propensities(NamedTuple):
    """The estimate, and what it was made from."""

    values: tuple[float, ...]  # by rank, from 1; relative to the first, which is 1.0
    impressions: tuple[int, ...]  # by rank
    several: int  # (query, document) pairs that were shown at two ranks at least


def estimate(shown: Iterable[Sequence[ShownAtRank]]) -> Propensities:
    """Propensities of the ranks.

    Args:
        shown: for each (query, document) pair, the ranks at which it was shown. The order does not matter.
    """
    documents = sorted(tuple(sorted(ranks)) for ranks in shown if ranks)
    if not documents:
        return Propensities((), (), 0)
    depth = min(MAX_RANK, max(at.rank for ranks in documents for at in ranks))
    views, clicks = np.zeros((2, len(documents), depth))
    for n, ranks in enumerate(documents):
        for at in ranks:
            views[n, min(at.rank, depth) - 1] += at.impressions
            clicks[n, min(at.rank, depth) - 1] += at.clicks
    values = _bradley_terry(_wins(views, clicks))
    several = int(((views > 0).sum(axis=1) > 1).sum())
    return Propensities(tuple(values.tolist()), tuple(int(n) for n in views.sum(axis=0)), several)


def attraction(
    ranks: Sequence[ShownAtRank], propensities: Propensities, *, max_weight: float, mean: float
) -> float:
    """Clicks by examined impressions: about 0 to 1, and by chance above 1.

    Self-normalised inverse-propensity weighting: the impressions are weighted by their propensities instead of the
    clicks by their inverses, which has less variance. One examined impression of `mean` attraction is added as a prior.
    """
    return (sum(at.clicks for at in ranks) + mean) / (_examined(ranks, propensities, max_weight) + 1)


def mean_attraction(
    shown: Iterable[Sequence[ShownAtRank]], propensities: Propensities, *, max_weight: float
) -> float:
    """Clicks by examined impressions, over all documents; 0 without impressions."""
    every = [at for ranks in shown for at in ranks]
    examined = _examined(every, propensities, max_weight)
    return sum(at.clicks for at in every) / examined if examined else 0.0


def _examined(ranks: Iterable[ShownAtRank], propensities: Propensities, max_weight: float) -> float:
    return sum(at.impressions / weight(at.rank, propensities, max_weight=max_weight) for at in ranks)


def weight(rank: int, propensities: Propensities, *, max_weight: float) -> float:
    """The inverse propensity of a rank, at most `max_weight`; ranks beyond the last known one count as that."""
    last = min(rank, len(propensities.values))
    return min(max_weight, 1 / max(propensities.values[last - 1], 1 / max_weight))


def _wins(views: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """Clicks at each rank of documents that were shown at each other rank too, as often: float64 [ranks, ranks]."""
    rates = np.divide(clicks, views, out=np.zeros_like(views), where=views > 0)
    wins = np.stack(
        [(np.minimum(views, views[:, [other]]) * rates).sum(axis=0) for other in range(views.shape[1])],
        axis=1,
    )
    np.fill_diagonal(wins, 0)
    return wins


def _bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths by which each rank wins against each other, relative to the first: float64 [ranks].

    A rank that no document shares with another one gets the strength of the rank before it.
    """
    meetings = wins + wins.T
    strengths = np.ones(len(wins))
    for _ in range(ROUNDS):
        before = strengths
        sums = strengths[:, None] + strengths[None, :]
        faced = np.divide(meetings, sums, out=np.zeros_like(meetings), where=sums > 0).sum(axis=1)
        strengths = np.divide(wins.sum(axis=1), faced, out=strengths.copy(), where=faced > 0)
        strengths = strengths / strengths[0] if strengths[0] > 0 else strengths
        if np.abs(strengths - before).max() < TOLERANCE:
            break
    for rank in range(1, len(strengths)):
        if not meetings[rank].any():
            strengths[rank] = strengths[rank - 1]
    return strengths
