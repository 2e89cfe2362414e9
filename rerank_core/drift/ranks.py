"""How much two rankings of one query differ."""

from __future__ import annotations

import bisect
from collections.abc import Sequence


def overlap_at(one: Sequence[str], other: Sequence[str], k: int) -> float:
    """Share of the first k ids that two rankings have in common, from 0 to 1.

    Lists with fewer than k ids are compared by the longer one's length; two empty ones are equal.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    first, second = set(one[:k]), set(other[:k])
    longest = max(len(first), len(second))
    return len(first & second) / longest if longest else 1.0


def rank_correlation(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Kendall's tau over the ids that both rankings hold: 1 in the same order, -1 in the reverse one.

    Ids that only one of them holds are left out (`overlap_at` tells of those). None with fewer than two common ids.
    Each id occurs once in a ranking.
    """
    place = {name: rank for rank, name in enumerate(other)}
    ranks = [place[name] for name in one if name in place]
    if len(ranks) < 2:
        return None
    seen: list[int] = []
    swapped = 0  # pairs that the rankings order differently
    for rank in ranks:
        at = bisect.bisect(seen, rank)
        swapped += len(seen) - at
        seen.insert(at, rank)
    return 1 - 4 * swapped / (len(ranks) * (len(ranks) - 1))
