"""The stages of a night as Beam transforms: thin shells around the pure functions of `rerank_core`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pipelines.nightly.progress import ProgressFile
from pipelines.nightly.shards import Handled, MinedShard, RankedShard, Shard, ShardStage
from pipelines.nightly.workers import SharedReader, SharedScorer
from pipelines.sources import Source
from pipelines.storage.filesystem import open_binary
from rerank_core import stages
from rerank_core.candidates.expansion import widen
from rerank_core.config.night import Config
from rerank_core.mining.hard_negatives import mine
from rerank_core.mining.labels import load_judgements, positives
from rerank_core.ranking import evidence, order
from rerank_core.ranking.calibration import Calibration
from rerank_core.ranking.fusion import Fusion, fuse
from rerank_core.scoring.protocol import Halves, Scorer
from rerank_core.scoring.reuse import unpack
from rerank_core.text import clean, query_id
from schemas.records import Document, HardNegative, Query, QueryGroup, RankedGroup, Rejected


def _pairs(groups: Iterable[QueryGroup | RankedGroup]) -> int:
    return sum(len(group.candidates) for group in groups)


def _drop_empty(shard: Shard, groups: Iterable[QueryGroup]) -> Shard:
    """The shard without the groups that have no candidate left; their queries are among the rejects."""
    left = [(group, scores) for group, scores in zip(groups, shard.previous, strict=True) if group.candidates]
    return shard._replace(groups=tuple(g for g, _ in left), previous=tuple(scores for _, scores in left))


class FetchCandidates(ShardStage):
    """Queries -> queries with their candidate units."""

    def __init__(self, source: Source, config: Config, reader: SharedReader | None):
        self._source, self._config, self._reader = source, config.candidates, reader

    def handle(self, shard: Shard) -> Handled:
        queries = [group.query for group in shard.groups]
        documents = self._source.candidates(queries, top_k=self._config.top_k)
        searches = _SecondSearches(self._source, self._reader, top_k=self._config.top_k)
        widened = widen(
            queries,
            documents,
            mode=self._config.second_search,
            top_k=self._config.top_k,
            search=searches.search,
            names=searches.names,
        )
        results = [
            stages.make_group(query, found, config=self._config)
            for query, found in zip(queries, widened, strict=True)
        ]
        groups = [group for group, _ in results]
        rejected = [record for _, records in results for record in records]
        tally = {"in": len(queries), "out": _pairs(groups)}
        return Handled(_drop_empty(shard, groups), rejected, tally | searches.tally)


class _SecondSearches:
    """The second searches of one shard, counted; a query whose second search fails keeps its first documents."""

    def __init__(self, source: Source, reader: SharedReader | None, *, top_k: int):
        self._source, self._reader, self._top_k = source, reader, top_k
        self.tally: Counter[str] = Counter()

    def search(self, texts: Sequence[str]) -> list[list[Document]]:
        queries = [Query(query_id(text), text, 1, 0, ()) for text in texts]
        results = self._source.candidates(queries, top_k=self._top_k)
        failed = sum(isinstance(result, Rejected) and result.reason != "no_candidates" for result in results)
        self.tally.update({"second_searches": len(texts), "second_searches_failed": failed})
        return [[] if isinstance(result, Rejected) else result for result in results]

    def names(self, documents: Sequence[Document]) -> list[list[str]]:
        assert self._reader is not None, "prepare() refuses a search by names without tags"
        passages = [(clean(document.title), clean(document.text)) for document in documents]
        read = self._reader.get().read(passages)
        return [[mention.text for mention in read.facts[key].mentions] for key in read.keys]


class TagFeatures(ShardStage):
    """Tags every candidate from its query and the query's other candidates.

    The facts of a passage are looked up if the previous run has them, or this process read it for an earlier shard.
    """

    def __init__(self, config: Config, reader: SharedReader | None):
        self._config, self._reader = config.tags, reader

    def handle(self, shard: Shard) -> Handled:
        pairs = _pairs(shard.groups)
        if self._reader is None:  # tags.enabled = false
            return Handled(shard, [], {"in": pairs, "out": pairs})
        passages = stages.passages_to_read(shard.groups)
        read = self._reader.get().read(passages)
        facts = {passage: read.facts[key] for passage, key in zip(passages, read.keys, strict=True)}
        groups = tuple(stages.tag_group(group, facts, config=self._config) for group in shard.groups)
        by_key = tuple(sorted(zip(read.keys, facts.values(), strict=True)))
        tally = {"in": pairs, "out": pairs, "passages": len(passages), "passages_read": read.read}
        return Handled(shard._replace(groups=groups, facts=by_key), [], tally)


class ReuseScores(ShardStage):
    """Takes over the logits of inputs that the previous run scored with the same model."""

    def __init__(self, model_fingerprint: str, *, tagged: bool):
        self._model, self._tagged = model_fingerprint, tagged

    def handle(self, shard: Shard) -> Handled:
        groups = tuple(
            stages.reuse_scores(group, unpack(scores), model_fingerprint=self._model, tagged=self._tagged)
            for group, scores in zip(shard.groups, shard.previous, strict=True)
        )
        reused = sum(candidate.reused for group in groups for candidate in group.candidates)
        tally = {"in": _pairs(groups), "out": _pairs(groups), "reused": reused}
        return Handled(shard._replace(groups=groups, facts=()), [], tally)


class ScoreCandidates(ShardStage):
    """Scores candidates that are neither reused nor pruned, all pairs of a shard together."""

    def __init__(self, model: SharedScorer, *, tagged: bool, progress: str | None):
        self._model, self._tagged, self._progress = model, tagged, progress

    def handle(self, shard: Shard) -> Handled:
        missing = sum(c.logit is None and c.pruned is None for g in shard.groups for c in g.candidates)
        progress = ProgressFile(self._progress, shard.number, shard.total, pairs=missing)
        groups: list[QueryGroup] = list(shard.groups)
        rejected: list[Rejected] = []
        halvings = 0
        if missing:  # else the model is not even loaded
            scorer = self._model.get()
            before = _halvings(scorer)
            groups, rejected = stages.score_groups(
                shard.groups, scorer, tagged=self._tagged, on_scored=progress.add
            )
            halvings = _halvings(scorer) - before
        progress.finish()
        fresh = [c for group in groups for c in group.candidates if not c.reused and c.pruned is None]
        tally = {
            "in": missing,
            "out": len(fresh),
            "overflow_pairs": sum(c.overflow > 0 for group in groups for c in group.candidates),
        } | ({"memory_halvings": halvings} if halvings else {})
        return Handled(_drop_empty(shard, groups), rejected, tally)


def _halvings(scorer: Scorer) -> int:
    return scorer.halvings if isinstance(scorer, Halves) else 0


class RankCandidates(ShardStage):
    """Orders each query's candidates; the cut at top_n comes when they are written, since mining needs all of them."""

    def __init__(self, weights: Fusion | None):
        self._weights = weights

    def handle(self, shard: Shard) -> Handled:
        fused = [fuse(group, self._weights) for group in shard.groups] if self._weights else shard.groups
        groups = tuple(order.rank(group) for group in fused)
        tally = {"in": _pairs(shard.groups), "out": _pairs(groups)}
        if self._weights:
            tally["fused"] = sum(c.fused is not None for group in fused for c in group.candidates)
        return Handled(RankedShard(shard.number, shard.total, groups), [], tally)


class FindEvidence(ShardStage):
    """Finds the evidence sentences of each query's best units."""

    def __init__(self, model: SharedScorer, config: Config, *, tagged: bool, calibration: Calibration):
        self._model, self._options, self._tagged = model, config.evidence, tagged
        self._calibration = calibration

    def handle(self, shard: RankedShard) -> Handled:
        needed = evidence.needs_model(shard.groups, options=self._options)
        scorer = self._model.get() if needed else None
        result = evidence.find(
            shard.groups, scorer, options=self._options, tagged=self._tagged, calibration=self._calibration
        )
        tally = {"in": result.wanted, "out": result.wanted - result.failed, "reused": result.reused}
        tally |= {"failed": result.failed, "inputs": result.inputs}
        return Handled(shard._replace(groups=result.groups), [], tally)


class MineHardNegatives(ShardStage):
    """Chooses hard negatives from the ranked candidates of queries that have a positive."""

    def __init__(self, config: Config, calibration: Calibration):
        self._config, self._calibration = config, calibration

    def open(self) -> None:
        self._judgements = load_judgements(self._config.labels, opener=open_binary)

    def handle(self, shard: RankedShard) -> Handled:
        if not self._config.mining.enabled:
            return Handled(MinedShard(shard.number, shard.total, ()), [], {"in": 0, "out": 0})
        labels = self._config.labels
        negatives: list[HardNegative] = []
        rules: Counter[str] = Counter()
        for group in shard.groups:
            mined = mine(
                group,
                positives(group, config=labels, judgements=self._judgements),
                config=self._config.mining,
                label_source=labels.source,
                calibration=self._calibration,
            )
            negatives += mined.negatives
            rules.update({f"kept:{rule}": count for rule, count in mined.kept.items()})
            rules.update({f"rejected:{rule}": count for rule, count in mined.rejected.items()})
        tally = {"in": _pairs(shard.groups), "out": len(negatives), **rules}
        return Handled(MinedShard(shard.number, shard.total, tuple(negatives)), [], tally)
