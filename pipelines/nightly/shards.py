"""Shards, the elements between the stages of a night, and which query goes where.

A shard is some hundred queries that are asked about equally often, with all that is known of their candidates; the most
frequent ones are in the first shards, which the local runner also handles first. The scorer batches within a shard, and
a shard becomes one file of each table, so neither batches nor files depend on the runner, its bundles or the number of
workers. No candidate ever crosses a shuffle, so memory stays flat on the local runner too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import coders, pvalue

from rerank_core.ranking.cascade import CascadeRule, in_sample
from schemas.records import HardNegative, PassageFacts, Query, QueryGroup, RankedGroup


class Earlier(NamedTuple):
    """What the previous run has of a query."""

    scores: bytes = b""  # packed; empty where they are not reused
    file: int = -1  # which of `Previous.lists` has the query's list; -1: none


class Unreached(NamedTuple):
    """A query that the night had no time for."""

    query: Query
    file: int  # as in `Earlier`


class Shard(NamedTuple):
    """Some queries of the night; shard `number` of `total`, groups sorted by query_id."""

    number: int
    total: int
    groups: tuple[QueryGroup, ...]
    previous: tuple[Earlier, ...]  # one per group
    facts: tuple[tuple[str, PassageFacts], ...] = ()  # of its passages, by key; only until WritePassageTags
    rule: CascadeRule | None = None  # of the cascade; None: every candidate is scored
    unreached: tuple[Unreached, ...] = ()
    part: tuple[
        int, ...
    ] = ()  # where it was cut into parts: its number among them, and among the parts of that
    share: float = 1.0  # of the whole shard, by number of parts

    def keep(self, groups: Sequence[QueryGroup | None]) -> Shard:
        """The shard with these groups, in the order of its own; None: the night had no time for the query.

        Groups that have no candidate left are dropped; their queries are among the rejects.
        """
        both = list(zip(groups, self.groups, self.previous, strict=True))
        left = [(group, earlier) for group, _, earlier in both if group and group.candidates]
        unreached = [Unreached(own.query, earlier.file) for group, own, earlier in both if group is None]
        return self._replace(
            groups=tuple(group for group, _ in left),
            previous=tuple(earlier for _, earlier in left),
            unreached=(*self.unreached, *unreached),
        )

    def give_up(self) -> Shard:
        """The shard of which no query was reached."""
        return self.keep([None] * len(self.groups))


class RankedShard(NamedTuple):
    """A shard in its final order."""

    number: int
    total: int
    groups: tuple[RankedGroup, ...]
    unreached: tuple[Unreached, ...] = ()
    part: tuple[int, ...] = ()  # as of Shard


class MinedShard(NamedTuple):
    """The hard negatives of a shard."""

    number: int
    total: int
    negatives: tuple[HardNegative, ...]
    part: tuple[int, ...] = ()  # as of Shard


class ShardCoder(coders.Coder):
    """Pickles shards, of whatever kind, and calls them all equally large.

    Beam measures its elements by encoding one in so many. Of the few shards of a night that is nearly every one, after
    every stage: a sixth of all that a night does beside its model.
    """

    def __init__(self) -> None:
        self._coder = coders.FastPrimitivesCoder()

    def encode(self, value: Any) -> bytes:
        encoded: bytes = self._coder.encode(value)
        return encoded

    def decode(self, encoded: bytes) -> Any:
        return self._coder.decode(encoded)

    def estimate_size(self, value: Any) -> int:
        return 1

    def is_deterministic(self) -> bool:
        return False


for _kind in (Shard, RankedShard, MinedShard):
    coders.registry.register_coder(_kind, ShardCoder)


def shard_count(queries: int, queries_per_shard: int) -> int:
    """Number of shards for that many queries, at least one."""
    return max(1, -(-queries // queries_per_shard))


def sample_shards(sample_queries: int, queries_per_shard: int) -> int:
    """Number of shards that hold the cascade's sample, the first ones; 0 without a cascade."""
    return shard_count(sample_queries, queries_per_shard) if sample_queries else 0


class Frequencies(NamedTuple):
    """How often the queries of a night are asked: all that is needed to put one in its place."""

    queries: int
    bands: dict[int, tuple[int, int]]  # by count: number of queries with a higher count, and with this one

    def position(self, query: Query) -> int:
        """About which query of the night it is, by falling count, from 0; among equal ones by the hash in its id.

        The hash is read backwards: the cascade's sample takes the lowest ones.
        """
        higher, same = self.bands[query.count]
        fraction: int = same * int(query.query_id[::-1], 16) >> 4 * len(query.query_id)
        return higher + fraction


def frequencies(counted: Iterable[tuple[int, int]]) -> Frequencies:
    """From (count, number of queries with that count)."""
    bands, queries = {}, 0
    for count, same in sorted(counted, reverse=True):
        bands[count] = (queries, same)
        queries += same
    return Frequencies(queries, bands)


class MadeShards(NamedTuple):
    """The shards of a night: the cascade's sample, which is scored in full, and the rest."""

    sample: beam.PCollection | None  # None without a cascade
    rest: beam.PCollection


class MakeShards(beam.PTransform):
    """PCollections of queries and of (query_id, Earlier) -> MadeShards.

    The join is a CoGroupByKey on query_id: only query texts and 40 bytes per known pair are shuffled. With
    `sample_queries`, the first `sample_shards` shards hold about that many queries, the cascade's sample.
    """

    def __init__(self, queries_per_shard: int, *, sample_queries: int = 0):
        self._size, self._sample = queries_per_shard, sample_queries

    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> MadeShards:
        queries, previous = inputs
        counted = (
            queries
            | "Counts" >> beam.Map(lambda query: query.count)
            | "CountQueries" >> beam.combiners.Count.PerElement()
            | "GatherCounts" >> beam.combiners.ToList().without_defaults()
            | "Frequencies" >> beam.Map(frequencies)
        )
        of_night = pvalue.AsSingleton(counted, default_value=frequencies(()))
        keyed = queries | "KeyByQueryId" >> beam.Map(lambda query: (query.query_id, query))
        assigned = (
            {"query": keyed, "previous": previous}
            | "JoinPreviousScores" >> beam.CoGroupByKey()
            | "AssignShards" >> beam.ParDo(_Assign(self._size, self._sample), of_night)
        )
        first = sample_shards(self._sample, self._size)
        if not first:
            return MadeShards(None, assigned | "Rest" >> _Group())
        # Two groupings, or Beam would fuse the rest with the sample that it waits for.
        return MadeShards(
            assigned | "OfSample" >> beam.Filter(lambda pair: pair[0][0] < first) | "Sample" >> _Group(),
            assigned | "OfRest" >> beam.Filter(lambda pair: pair[0][0] >= first) | "Rest" >> _Group(),
        )


class _Assign(beam.DoFn):
    """A query with what the previous run has of it -> (its shard, query and Earlier).

    Each worker begins with an empty member of every shard: the local runner hands on groups in the order in which it
    first met their keys, so shards come in the order of their numbers.
    """

    def __init__(self, size: int, sample: int):
        self._size, self._sample = size, sample

    def setup(self) -> None:
        self._begun = False

    def process(
        self, joined: tuple[str, dict[str, Iterable[Any]]], counted: Frequencies
    ) -> Iterator[tuple[tuple[int, int], tuple[Query, Earlier] | None]]:
        if not self._begun:
            self._begun = True
            total = sample_shards(self._sample, self._size) + shard_count(counted.queries, self._size)
            for number in range(total):
                yield (number, total), None
        yield from _assign(joined, counted, self._size, self._sample)


def _assign(
    joined: tuple[str, dict[str, Iterable[Any]]], counted: Frequencies, size: int, sample: int
) -> Iterator[tuple[tuple[int, int], tuple[Query, Earlier]]]:
    query_id, inputs = joined
    first, others = sample_shards(sample, size), shard_count(counted.queries, size)
    earlier = list(inputs["previous"])
    known = Earlier(b"".join(sorted(e.scores for e in earlier)), max((e.file for e in earlier), default=-1))
    for query in inputs["query"]:  # none if a query of the previous run is not in tonight's log
        if sample and in_sample(query_id, share=sample / counted.queries):
            number = int(query_id, 16) % first
        else:
            number = first + counted.position(query) * others // counted.queries
        yield (number, first + others), (query, known)


class _Group(beam.PTransform):
    """(shard, member) -> PCollection[Shard]; a shard that has no query is none."""

    def expand(self, assigned: beam.PCollection) -> beam.PCollection:
        grouped = assigned | "GroupShards" >> beam.GroupByKey()
        return grouped | "SortShards" >> beam.FlatMap(_make_shards)


def _make_shards(
    grouped: tuple[tuple[int, int], Iterable[tuple[Query, Earlier] | None]],
) -> Iterator[Shard]:
    (number, total), members = grouped
    ordered = sorted((member for member in members if member), key=lambda member: member[0].query_id)
    if ordered:
        groups = tuple(QueryGroup(query, ()) for query, _ in ordered)
        yield Shard(number, total, groups, tuple(earlier for _, earlier in ordered))
