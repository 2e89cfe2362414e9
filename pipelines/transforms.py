"""The stages of `pipelines/nightly.py` as Beam transforms: thin shells around rerank_core/stages.py.

The element between stages is a Shard: some hundred queries, chosen by the hash of their ids, with all that is
known of their candidates. A shard is what the scorer batches over and what becomes one file of each table, so
neither batches nor files depend on the runner, its bundles or the number of workers. No candidate ever crosses a
shuffle, which is why memory stays flat on the local runner too.

Every stage gives three outputs: its shards, what it rejected, and its tally. Tallies are data, not Beam metrics:
metrics count attempts, and a retried bundle would count twice.
"""

from __future__ import annotations

import abc
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.utils.shared import Shared

from pipelines.previous import read_facts
from pipelines.progress import ProgressFile
from pipelines.sources import Source
from pipelines.store import open_text
from rerank_core import evidence, ranking, stages
from rerank_core.config import Config
from rerank_core.features import default_recogniser
from rerank_core.features.reader import PassageReader
from rerank_core.labels import load_judgements, positives
from rerank_core.mining import mine
from rerank_core.scoring.reuse import unpack
from rerank_core.scoring.scorer import Scorer, ScoringFailed
from rerank_core.second_search import widen
from rerank_core.text import clean, query_id
from schemas.records import Document, HardNegative, PassageFacts, Query, QueryGroup, RankedGroup, Rejected

Tally = tuple[tuple[str, str], float]
"""((stage, what), amount): what is in, out, rejected, seconds, or a count of the stage's own."""


class Shard(NamedTuple):
    """Some queries of the night on their way; `number` of `total`, groups sorted by query_id."""

    number: int
    total: int
    groups: tuple[QueryGroup, ...]
    previous: tuple[bytes, ...]  # packed scores of the last run, one blob a group
    facts: tuple[tuple[str, PassageFacts], ...] = ()  # of its passages, by key: only for WritePassageTags


class RankedShard(NamedTuple):
    """A shard in its final order."""

    number: int
    total: int
    groups: tuple[RankedGroup, ...]


class MinedShard(NamedTuple):
    """What was mined from a shard."""

    number: int
    total: int
    negatives: tuple[HardNegative, ...]


class Handled(NamedTuple):
    """What a stage made of one shard."""

    shard: Any
    rejected: list[Rejected]
    tally: Mapping[str, float]


class StageOutputs(NamedTuple):
    """The three outputs of a stage."""

    main: beam.PCollection
    rejected: beam.PCollection
    tallies: beam.PCollection


class _Handle(beam.DoFn):
    """Runs one stage's `handle` on a shard and sends its three results their ways."""

    def __init__(self, stage: Stage):
        self._stage = stage

    def setup(self) -> None:
        self._stage.open()

    def process(self, shard: Any) -> Iterator[Any]:
        start = time.perf_counter()
        handled = self._stage.handle(shard)
        tally = {**handled.tally, "rejected": len(handled.rejected), "seconds": time.perf_counter() - start}
        yield handled.shard
        for record in handled.rejected:
            yield pvalue.TaggedOutput("rejected", record)
        for what, amount in tally.items():
            yield pvalue.TaggedOutput("tallies", ((self._stage.name, what), amount))


class Stage(beam.PTransform, abc.ABC):
    """A stage over shards; subclasses give `handle`, and `open` for what a worker loads once."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def open(self) -> None:
        """Called once a worker, before the first shard."""

    @abc.abstractmethod
    def handle(self, shard: Any) -> Handled:
        """What the stage makes of one shard; a retry must give the same."""

    def expand(self, shards: beam.PCollection) -> StageOutputs:
        outputs = shards | beam.ParDo(_Handle(self)).with_outputs("rejected", "tallies", main="main")
        return StageOutputs(outputs.main, outputs.rejected, outputs.tallies)


def shard_of(query_id: str, total: int) -> int:
    """Shard of a query: its id is a hash already."""
    return int(query_id, 16) % total


def shard_count(queries: int, queries_per_shard: int) -> int:
    """Number of shards for so many queries, at least one."""
    return max(1, -(-queries // queries_per_shard))


class MakeShards(beam.PTransform):
    """PCollections of queries and of (query_id, packed earlier scores) -> PCollection[Shard].

    The join is a CoGroupByKey on query_id: only query texts and 24 bytes a known pair are shuffled.
    """

    def __init__(self, queries_per_shard: int):
        self._size = queries_per_shard

    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        queries, previous = inputs
        total = queries | "CountQueries" >> beam.combiners.Count.Globally()
        keyed = queries | "KeyByQueryId" >> beam.Map(lambda query: (query.query_id, query))
        return (
            {"query": keyed, "previous": previous}
            | "JoinPreviousScores" >> beam.CoGroupByKey()
            | "AssignShards" >> beam.FlatMap(_assign, pvalue.AsSingleton(total), self._size)
            | "GroupShards" >> beam.GroupByKey()
            | "SortShards" >> beam.Map(_make_shard)
        )


def _assign(
    joined: tuple[str, dict[str, Iterable[Any]]], queries: int, size: int
) -> Iterator[tuple[Any, Any]]:
    query_id, found = joined
    total = shard_count(queries, size)
    for query in found["query"]:  # none where the earlier run's query was not asked again
        yield (shard_of(query_id, total), total), (query, b"".join(sorted(found["previous"])))


def _make_shard(grouped: tuple[tuple[int, int], Iterable[tuple[Query, bytes]]]) -> Shard:
    (number, total), asked = grouped
    ordered = sorted(asked, key=lambda pair: pair[0].query_id)
    groups = tuple(QueryGroup(query, ()) for query, _ in ordered)
    return Shard(number, total, groups, tuple(blob for _, blob in ordered))


def _pairs(groups: Iterable[QueryGroup | RankedGroup]) -> int:
    return sum(len(group.candidates) for group in groups)


def _drop_empty(shard: Shard, groups: Iterable[QueryGroup]) -> Shard:
    """The shard without the groups that have no candidate left; their queries stand in the rejects."""
    kept = [(g, blob) for g, blob in zip(groups, shard.previous, strict=True) if g.candidates]
    return shard._replace(groups=tuple(g for g, _ in kept), previous=tuple(blob for _, blob in kept))


class WorkersReader:
    """What reads passages, as the stages that need entities share it: one a process."""

    def __init__(
        self, config: Config, *, facts_fingerprint: str, previous: tuple[str, ...], threads: int = 0
    ):
        self._config, self._fingerprint = config.tags, facts_fingerprint
        self._previous, self._threads, self._shared = previous, threads, Shared()

    def get(self) -> PassageReader:
        """The reader.

        Raises:
            ModelError: this process has another recogniser than the job was started with.
        """
        reader: PassageReader = self._shared.acquire(self._open)
        return reader

    def _open(self) -> PassageReader:
        return PassageReader(
            default_recogniser(self._config, threads=self._threads),
            facts_fingerprint=self._fingerprint,
            look_up=functools.partial(read_facts, self._previous),
        )


class FetchCandidates(Stage):
    """Queries -> queries with their candidate units."""

    def __init__(self, source: Source, config: Config, reader: WorkersReader | None):
        self._source, self._config, self._reader = source, config.candidates, reader

    def handle(self, shard: Shard) -> Handled:
        queries = [group.query for group in shard.groups]
        found = self._source.candidates(queries, top_k=self._config.top_k)
        searches = _MoreSearches(self._source, self._reader, top_k=self._config.top_k)
        widened = widen(
            queries,
            found,
            mode=self._config.second_search,
            top_k=self._config.top_k,
            search=searches.search,
            names=searches.names,
        )
        made = [
            stages.make_group(query, documents, config=self._config)
            for query, documents in zip(queries, widened, strict=True)
        ]
        groups = [group for group, _ in made]
        rejected = [record for _, records in made for record in records]
        tally = {"in": len(queries), "out": _pairs(groups)}
        return Handled(_drop_empty(shard, groups), rejected, tally | searches.tally)


class _MoreSearches:
    """Second searches of one shard; one that fails costs its query nothing but what it would have added."""

    def __init__(self, source: Source, reader: WorkersReader | None, *, top_k: int):
        self._source, self._reader, self._top_k = source, reader, top_k
        self.tally: Counter[str] = Counter()

    def search(self, texts: Sequence[str]) -> list[list[Document]]:
        asked = [Query(query_id(text), text, 1, 0, ()) for text in texts]
        found = self._source.candidates(asked, top_k=self._top_k)
        failed = sum(isinstance(one, Rejected) and one.reason != "no_candidates" for one in found)
        self.tally.update({"second_searches": len(texts), "second_searches_failed": failed})
        return [[] if isinstance(one, Rejected) else one for one in found]

    def names(self, documents: Sequence[Document]) -> list[list[str]]:
        assert self._reader is not None, "prepare() refuses a search by names without tags"
        read = self._reader.get().read([(clean(one.title), clean(one.text)) for one in documents])
        return [[mention.text for mention in read.facts[key].mentions] for key in read.keys]


class TagFeatures(Stage):
    """Tags every candidate from its query and the query's other candidates.

    A passage is read once: what the last night read, or this process for an earlier shard, is looked up.
    """

    def __init__(self, config: Config, reader: WorkersReader | None):
        self._config, self._reader = config.tags, reader

    def handle(self, shard: Shard) -> Handled:
        pairs = _pairs(shard.groups)
        if self._reader is None:  # plain: no tags in the tables either
            return Handled(shard, [], {"in": pairs, "out": pairs})
        passages = stages.passages_to_read(shard.groups)
        found = self._reader.get().read(passages)
        facts = {passage: found.facts[key] for passage, key in zip(passages, found.keys, strict=True)}
        groups = tuple(stages.tag_group(group, facts, config=self._config) for group in shard.groups)
        kept = tuple(sorted(zip(found.keys, facts.values(), strict=True)))
        tally = {"in": pairs, "out": pairs, "passages": len(passages), "passages_read": found.read}
        return Handled(shard._replace(groups=groups, facts=kept), [], tally)


class ReuseScores(Stage):
    """Carries over the logits of inputs that the last run scored with the same model."""

    def __init__(self, model_fingerprint: str, *, tagged: bool):
        self._model, self._tagged = model_fingerprint, tagged

    def handle(self, shard: Shard) -> Handled:
        groups = tuple(
            stages.reuse_scores(group, unpack(blob), model_fingerprint=self._model, tagged=self._tagged)
            for group, blob in zip(shard.groups, shard.previous, strict=True)
        )
        reused = sum(candidate.reused for group in groups for candidate in group.candidates)
        pairs = _pairs(groups)
        return Handled(
            shard._replace(groups=groups, facts=()), [], {"in": pairs, "out": pairs, "reused": reused}
        )


class WorkersModel:
    """The model as the stages that score share it: one copy a process, loaded when it is first needed."""

    def __init__(self, load: Callable[[], Scorer], fingerprint: str):
        self._load, self._fingerprint, self._shared = load, fingerprint, Shared()

    def get(self) -> Scorer:
        """The model.

        Raises:
            ScoringFailed: it is not the one that the job was started with.
        """
        scorer: Scorer = self._shared.acquire(self._load)
        if scorer.fingerprint != self._fingerprint:
            raise ScoringFailed(
                f"this worker's model has fingerprint {scorer.fingerprint}, the job was started with "
                f"{self._fingerprint}: give every worker the same model files"
            )
        return scorer


class ScoreCandidates(Stage):
    """Scores what is not reused, a whole shard's pairs together."""

    def __init__(self, model: WorkersModel, *, tagged: bool, progress: str | None):
        self._model, self._tagged, self._progress = model, tagged, progress

    def handle(self, shard: Shard) -> Handled:
        missing = sum(c.logit is None for group in shard.groups for c in group.candidates)
        progress = ProgressFile(self._progress, shard.number, shard.total, pairs=missing)
        groups: list[QueryGroup] = list(shard.groups)
        rejected: list[Rejected] = []
        if missing:  # a night without news needs no model
            groups, rejected = stages.score_groups(
                shard.groups, self._model.get(), tagged=self._tagged, on_scored=progress.add
            )
        progress.finish()
        fresh = [c for group in groups for c in group.candidates if not c.reused]
        tally = {
            "in": missing,
            "out": len(fresh),
            "overflow_pairs": sum(c.overflow > 0 for group in groups for c in group.candidates),
        }
        return Handled(_drop_empty(shard, groups), rejected, tally)


class RankCandidates(Stage):
    """Orders each query's candidates; top_n is cut when they are written, since mining needs the rest too."""

    def handle(self, shard: Shard) -> Handled:
        groups = tuple(ranking.rank(group) for group in shard.groups)
        return Handled(
            RankedShard(shard.number, shard.total, groups),
            [],
            {"in": _pairs(shard.groups), "out": _pairs(groups)},
        )


class FindEvidence(Stage):
    """Finds the sentences that speak for each query's best units."""

    def __init__(self, model: WorkersModel, config: Config, *, tagged: bool):
        self._model, self._options, self._tagged = model, config.evidence, tagged

    def handle(self, shard: RankedShard) -> Handled:
        needed = evidence.needs_model(shard.groups, options=self._options)
        scorer = self._model.get() if needed else None
        found = evidence.find(shard.groups, scorer, options=self._options, tagged=self._tagged)
        tally = {
            "in": found.wanted,
            "out": found.wanted - found.failed,
            "reused": found.reused,
            "failed": found.failed,
            "inputs": found.inputs,
        }
        return Handled(shard._replace(groups=found.groups), [], tally)


class MineHardNegatives(Stage):
    """Chooses hard negatives from the ranked candidates of queries that have a positive."""

    def __init__(self, config: Config):
        self._config = config

    def open(self) -> None:
        self._judgements = load_judgements(self._config.labels, opener=open_text)

    def handle(self, shard: RankedShard) -> Handled:
        if not self._config.mining.enabled:
            return Handled(MinedShard(shard.number, shard.total, ()), [], {"in": 0, "out": 0})
        labels = self._config.labels
        negatives: list[HardNegative] = []
        rules: Counter[str] = Counter()
        for group in shard.groups:
            positive_ids = positives(group, config=labels, judgements=self._judgements)
            mined = mine(group, positive_ids, config=self._config.mining, label_source=labels.source)
            negatives += mined.negatives
            rules.update({f"kept:{rule}": count for rule, count in mined.kept.items()})
            rules.update({f"rejected:{rule}": count for rule, count in mined.rejected.items()})
        tally = {"in": _pairs(shard.groups), "out": len(negatives), **rules}
        return Handled(MinedShard(shard.number, shard.total, tuple(negatives)), [], tally)
