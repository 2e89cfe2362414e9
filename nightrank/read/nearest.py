"""The published queries most like one that was not published.

Candidates share a word with it, those with the rarest common words first; they are compared by the Dice coefficient of
their sets of character trigrams, case and Unicode forms folded: 1 for the same text, 0 for nothing in common.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from nightrank.read.records import Near
from rerank_core.text import fold, normalise_query

_POSTINGS, _COMPARED = 2_000, 200
"""Queries that are looked at for one word, and those that are compared in full."""


class NearestIndex:
    """The words of a run's queries, in memory: some 220 bytes a query.

    Args:
        texts: the queries, normalised.
    """

    def __init__(self, texts: Iterable[pa.ChunkedArray]):
        self._texts = pa.chunked_array([c for t in texts for c in t.chunks], pa.string()).combine_chunks()
        words = pc.utf8_split_whitespace(pc.utf8_lower(self._texts))
        numbers = pc.list_parent_indices(words).cast(pa.int32())
        flat = pc.list_flatten(words)
        order = pc.sort_indices(flat)
        self._numbers = numbers.take(order)
        runs = pc.run_end_encode(flat.take(order))
        self._words, self._ends = runs.values, runs.run_ends

    def nearest(self, query: str, n: int) -> list[Near]:
        """The n most similar queries, best first; fewer if fewer share a word with it."""
        query = normalise_query(query)
        own = trigrams(query)
        found = [self._texts[number].as_py() for number in self._candidates(query)]
        near = (Near(text, round(dice(own, trigrams(text)), 6)) for text in found)
        return sorted(near, key=lambda other: (-other.similarity, other.query))[:n]

    def _candidates(self, query: str) -> list[int]:
        """Numbers of the queries that share its rarest words."""
        weights: defaultdict[int, float] = defaultdict(float)
        found = [span for word in set(query.lower().split()) if (span := self._span(word))]
        for start, end in sorted(found, key=lambda span: span[1] - span[0]):
            weight = math.log(1 + len(self._texts) / (end - start))
            for number in self._numbers.slice(start, min(end - start, _POSTINGS)).to_pylist():
                weights[number] += weight
        best = sorted(weights.items(), key=lambda item: (-item[1], item[0]))
        return [number for number, _ in best[:_COMPARED]]

    def _span(self, word: str) -> tuple[int, int] | None:
        """Where the postings of a word start and end."""
        raw = word.encode()
        at = bisect.bisect_left(range(len(self._words)), raw, key=lambda n: self._words[n].as_py().encode())
        if at == len(self._words) or self._words[at].as_py() != word:
            return None
        return (self._ends[at - 1].as_py() if at else 0), self._ends[at].as_py()


def trigrams(text: str) -> frozenset[str]:
    """Character trigrams of a text and its edges, in the form in which texts are compared."""
    padded = f"  {fold(text)} "
    return frozenset(padded[at : at + 3] for at in range(len(padded) - 2))


def dice(one: frozenset[str], other: frozenset[str]) -> float:
    """Dice coefficient of two sets: twice the size of what they share over the sum of their sizes."""
    return 2 * len(one & other) / (len(one) + len(other))
