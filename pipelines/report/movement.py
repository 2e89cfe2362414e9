"""How much a list changed: the share of the first ten places' weight that went to other documents."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from typing import NamedTuple

DEPTH = 10
WEIGHTS = [1 / math.log2(1 + rank) for rank in range(1, DEPTH + 1)]
"""The discount of nDCG: a change at the top weighs more."""

Ranks = Mapping[str, int]
"""Ranks of a query's documents, from 1."""


def movement(before: Ranks, after: Ranks) -> float:
    """0: the same documents at the same ranks; 1: ten other documents.

    A rank of the first ten that no document of `before` has, where the list was cut, counts as a document that left.
    """
    places = _by_rank(before)
    complete = dict(before) | {
        f"\x00{rank}": rank for rank in range(1, _length(places) + 1) if rank not in places
    }
    weights = [
        (_weight(complete.get(doc)), _weight(after.get(doc))) for doc in complete.keys() | after.keys()
    ]
    whole = math.fsum(old + new for old, new in weights)  # exact, whatever the order of the documents
    return math.fsum(abs(old - new) for old, new in weights) / whole if whole else 0.0


def _by_rank(ranks: Ranks) -> set[int]:
    return {rank for rank in ranks.values() if rank <= DEPTH}


def _length(places: set[int]) -> int:
    return max(places, default=0)


def _weight(rank: int | None) -> float:
    return 0.0 if rank is None or rank > DEPTH else WEIGHTS[rank - 1]


class Found(NamedTuple):
    """A query, and how far it is from its fellows by some measure."""

    value: float
    query_id: str
    places: tuple[str, ...]  # the files that hold it


class Highest:
    """The queries of the highest values so far, ties by id: in memory is no more than is shown."""

    def __init__(self, keep: int) -> None:
        self._keep, self._heap = keep, list[Found]()

    def add(self, value: float, query_id: str, *places: str) -> None:
        """Take a query in, if it is among the highest."""
        entry = Found(value, query_id, places)
        if len(self._heap) < self._keep:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def best(self) -> list[Found]:
        """Highest first."""
        return sorted(self._heap, reverse=True)
