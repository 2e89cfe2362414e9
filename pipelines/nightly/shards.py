"""Shards, the elements between the stages of a night, and what a stage is.

A shard is some hundred queries, chosen by the hash of their ids, with all that is known of their candidates. The scorer
batches within a shard, and a shard becomes one file of each table, so neither batches nor files depend on the runner,
its bundles or the number of workers. No candidate ever crosses a shuffle, so memory stays flat on the local runner too.

Every stage has three outputs: its shards, the records it rejected, and its tally. Tallies are data, not Beam metrics:
metrics count attempts, and a retried bundle would be counted twice.
"""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from rerank_core.errors import user_error
from rerank_core.ranking.cascade import CascadeRule, in_sample
from schemas.records import HardNegative, PassageFacts, Query, QueryGroup, RankedGroup, Rejected

Tally = tuple[tuple[str, str], float]
"""((stage, key), amount): the key is in, out, rejected, seconds, or a count of this stage alone."""


class Shard(NamedTuple):
    """Some queries of the night; shard `number` of `total`, groups sorted by query_id."""

    number: int
    total: int
    groups: tuple[QueryGroup, ...]
    previous: tuple[bytes, ...]  # packed scores of the previous run, one per group
    facts: tuple[tuple[str, PassageFacts], ...] = ()  # of its passages, by key; only until WritePassageTags
    rule: CascadeRule | None = None  # of the cascade; None: every candidate is scored


class RankedShard(NamedTuple):
    """A shard in its final order."""

    number: int
    total: int
    groups: tuple[RankedGroup, ...]


class MinedShard(NamedTuple):
    """The hard negatives of a shard."""

    number: int
    total: int
    negatives: tuple[HardNegative, ...]


class Handled(NamedTuple):
    """The result of a stage for one shard."""

    shard: Any
    rejected: list[Rejected]
    tally: Mapping[str, float]


class StageOutputs(NamedTuple):
    """The three outputs of a stage."""

    main: beam.PCollection
    rejected: beam.PCollection
    tallies: beam.PCollection


class _Handle(beam.DoFn):
    """Calls a stage's `handle` and emits its three outputs."""

    def __init__(self, stage: ShardStage):
        self._stage = stage

    def setup(self) -> None:
        with _as_user_errors():
            self._stage.open()

    def process(self, shard: Any) -> Iterator[Any]:
        start = time.perf_counter()
        with _as_user_errors():
            handled = self._stage.handle(shard)
        tally = {**handled.tally, "rejected": len(handled.rejected), "seconds": time.perf_counter() - start}
        yield handled.shard
        for record in handled.rejected:
            yield pvalue.TaggedOutput("rejected", record)
        for what, amount in tally.items():
            yield pvalue.TaggedOutput("tallies", ((self._stage.name, what), amount))


@contextlib.contextmanager
def _as_user_errors() -> Iterator[None]:
    """Raise what the machine did to a stage under our own classes, which every runner passes on.

    A native library's panic is no Exception: it would end a worker's thread in silence, and the night would hang.
    """
    try:
        yield
    except BaseException as error:
        known = user_error(error)
        if known is None or known is error:
            raise
        raise known from error


class ShardStage(beam.PTransform, abc.ABC):
    """A stage over shards; subclasses define `handle`, and `open` for what a worker loads once."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def open(self) -> None:
        """Called once per worker, before the first shard."""

    @abc.abstractmethod
    def handle(self, shard: Any) -> Handled:
        """Process one shard; a retry must give the same result."""

    def expand(self, shards: beam.PCollection) -> StageOutputs:
        outputs = shards | beam.ParDo(_Handle(self)).with_outputs("rejected", "tallies", main="main")
        return StageOutputs(outputs.main, outputs.rejected, outputs.tallies)


def shard_of(query_id: str, total: int) -> int:
    """Shard of a query, whose id is a hash already."""
    return int(query_id, 16) % total


def shard_count(queries: int, queries_per_shard: int) -> int:
    """Number of shards for that many queries, at least one."""
    return max(1, -(-queries // queries_per_shard))


def sample_shards(sample_queries: int, queries_per_shard: int) -> int:
    """Number of shards that hold the cascade's sample, the first ones; 0 without a cascade."""
    return shard_count(sample_queries, queries_per_shard) if sample_queries else 0


class MakeShards(beam.PTransform):
    """PCollections of queries and of (query_id, packed earlier scores) -> PCollection[Shard].

    The join is a CoGroupByKey on query_id: only query texts and 40 bytes per known pair are shuffled. With
    `sample_queries`, the first `sample_shards` shards hold about that many queries, the cascade's sample.
    """

    def __init__(self, queries_per_shard: int, *, sample_queries: int = 0):
        self._size, self._sample = queries_per_shard, sample_queries

    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        queries, previous = inputs
        total = queries | "CountQueries" >> beam.combiners.Count.Globally()
        keyed = queries | "KeyByQueryId" >> beam.Map(lambda query: (query.query_id, query))
        return (
            {"query": keyed, "previous": previous}
            | "JoinPreviousScores" >> beam.CoGroupByKey()
            | "AssignShards" >> beam.FlatMap(_assign, pvalue.AsSingleton(total), self._size, self._sample)
            | "GroupShards" >> beam.GroupByKey()
            | "SortShards" >> beam.Map(_make_shard)
        )


def _assign(
    joined: tuple[str, dict[str, Iterable[Any]]], queries: int, size: int, sample: int
) -> Iterator[tuple[Any, Any]]:
    query_id, inputs = joined
    first = sample_shards(sample, size)
    others = shard_count(queries, size)
    if sample and in_sample(query_id, share=sample / queries):
        number = shard_of(query_id, first)
    else:
        number = first + shard_of(query_id, others)
    for query in inputs["query"]:  # none if a query of the previous run is not in tonight's log
        yield (number, first + others), (query, b"".join(sorted(inputs["previous"])))


def _make_shard(grouped: tuple[tuple[int, int], Iterable[tuple[Query, bytes]]]) -> Shard:
    (number, total), members = grouped
    ordered = sorted(members, key=lambda member: member[0].query_id)
    groups = tuple(QueryGroup(query, ()) for query, _ in ordered)
    return Shard(number, total, groups, tuple(scores for _, scores in ordered))
