"""Clicks without the bias of position: how likely each place of a result list is looked at, estimated from the log.

The position-based model (Richardson et al. 2007): a result is clicked if it is examined, which depends on its place
alone, and attractive, which depends on query and document alone. A document that was shown at two places tells the
ratio of their propensities, whatever its attraction: its clicks there are compared as if it had been shown as often at
both (intervention harvesting, Agarwal et al. 2019, arXiv:1812.05161). The ratios of all pairs of places are made one by
a Bradley-Terry model (Hunter 2004). A document's attraction is then its clicks by its impressions, weighed by the
inverse propensities of places (Joachims et al. 2017, arXiv:1608.04468), which are clipped: the weight of a place that
few look at is noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from schemas.records import ShownAtRank

ROUNDS = 1000
CLOSE = 1e-7  # largest change of a propensity at which the search ends
MOST_PLACES = 30  # what lies deeper is as this place


class Propensities(NamedTuple):
    """What was estimated, and from how much."""

    examined: tuple[float, ...]  # by place, from 1; the first is 1.0
    impressions: tuple[int, ...]  # by place
    several: int  # documents of a query that were shown at two places at least: they tell place and attraction apart


def estimate(shown: Iterable[Sequence[ShownAtRank]]) -> Propensities:
    """Propensities of places.

    Args:
        shown: for each (query, document) the places where it was shown. The order does not matter.
    """
    documents = sorted(tuple(sorted(places)) for places in shown if places)
    if not documents:
        return Propensities((), (), 0)
    depth = min(MOST_PLACES, max(one.rank for places in documents for one in places))
    views, clicked = np.zeros((2, len(documents), depth))
    for n, places in enumerate(documents):
        for one in places:
            views[n, min(one.rank, depth) - 1] += one.impressions
            clicked[n, min(one.rank, depth) - 1] += one.clicks
    examined = _bradley_terry(_won(views, clicked))
    several = int(((views > 0).sum(axis=1) > 1).sum())
    return Propensities(tuple(examined.tolist()), tuple(int(n) for n in views.sum(axis=0)), several)


def attraction(
    places: Sequence[ShownAtRank], propensities: Propensities, *, max_weight: float, mean: float
) -> float:
    """Clicks by impressions that were looked at: 0 to 1, roughly, and more where luck was at work.

    Self-normalised inverse-propensity weighting: rather than each click by its weight, the impressions are weighed by
    their propensity, which has less variance. One looked-at impression of `mean` attraction is added to each document.
    """
    looked_at = sum(one.impressions / weight(one.rank, propensities, max_weight=max_weight) for one in places)
    return (sum(one.clicks for one in places) + mean) / (looked_at + 1)


def mean_attraction(
    shown: Iterable[Sequence[ShownAtRank]], propensities: Propensities, *, max_weight: float
) -> float:
    """Clicks by impressions that were looked at, over all documents."""
    documents = list(shown)
    looked_at = sum(
        one.impressions / weight(one.rank, propensities, max_weight=max_weight)
        for d in documents
        for one in d
    )
    return sum(one.clicks for d in documents for one in d) / looked_at if looked_at else 0.0


def weight(place: int, propensities: Propensities, *, max_weight: float) -> float:
    """The inverse of a place's propensity, at most `max_weight`; a place beyond those known is as the last one."""
    last = min(place, len(propensities.examined))
    return min(max_weight, 1 / max(propensities.examined[last - 1], 1 / max_weight))


def _won(views: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """Clicks at each place by documents that were shown at each other one too, as often: float64 [places, places]."""
    rates = np.divide(clicks, views, out=np.zeros_like(views), where=views > 0)
    won = np.stack(
        [(np.minimum(views, views[:, [other]]) * rates).sum(axis=0) for other in range(views.shape[1])],
        axis=1,
    )
    np.fill_diagonal(won, 0)
    return won


def _bradley_terry(won: np.ndarray) -> np.ndarray:
    """Strengths by which each place wins against each other, the first being 1: float64 [places].

    A place that never met another is as likely as the one before it.
    """
    met = won + won.T
    examined = np.ones(len(won))
    for _ in range(ROUNDS):
        before = examined
        sums = examined[:, None] + examined[None, :]
        faced = np.divide(met, sums, out=np.zeros_like(met), where=sums > 0).sum(axis=1)
        examined = np.divide(won.sum(axis=1), faced, out=examined.copy(), where=faced > 0)
        examined = examined / examined[0] if examined[0] > 0 else examined
        if np.abs(examined - before).max() < CLOSE:
            break
    for place in range(1, len(examined)):
        if not met[place].any():
            examined[place] = examined[place - 1]
    return examined
