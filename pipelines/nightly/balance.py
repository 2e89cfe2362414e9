"""Shards are cut into parts of a bounded number of pairs: many candidates make more parts, and no more memory.

A shard is cut before its candidates are fetched, as if each query had `candidates.top_k` documents, and afterwards by
the units that were made of them. A part is a shard of its own for every later stage, and has its own file of each
table. A query with more candidates than a part holds is a part alone: its candidates stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import apache_beam as beam

from pipelines.nightly.shards import Shard
from schemas.records import QueryGroup

PAIRS_PER_PART = 50_000
"""Some 100 MB of texts of 100 words, with all that is known of them."""


class CutShards(beam.PTransform):
    """PCollection[Shard] -> PCollection[Shard], each with at most PAIRS_PER_PART pairs, or one query.

    Args:
        expected: pairs that each query counts as; None: as many as it has candidates.
    """

    def __init__(self, expected: int | None = None):
        self._expected = expected

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        return shards | beam.FlatMap(_parts, self._expected)


def _parts(shard: Shard, expected: int | None) -> Iterator[Shard]:
    def pairs(group: QueryGroup) -> int:
        return len(group.candidates) if expected is None else expected

    return cut(shard, pairs, most=PAIRS_PER_PART)


def cut(shard: Shard, pairs: Callable[[QueryGroup], int], *, most: int) -> Iterator[Shard]:
    """The shard in parts of consecutive queries; the shard itself if one part is enough."""
    bounds, held = [0], 0
    for number, group in enumerate(shard.groups):
        size = pairs(group)
        if held and held + size > most:
            bounds.append(number)
            held = 0
        held += size
    if len(bounds) == 1:
        yield shard
        return
    for part, (start, end) in enumerate(zip(bounds, [*bounds[1:], len(shard.groups)], strict=True)):
        yield shard._replace(
            groups=shard.groups[start:end],
            previous=shard.previous[start:end],
            unreached=() if part else shard.unreached,
            part=(*shard.part, part),
            share=shard.share / len(bounds),
        )
