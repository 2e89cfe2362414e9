"""The stages of `pipelines/nightly/run.py` as Beam transforms: thin shells around rerank_core/stages.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pipelines.nightly.progress import ProgressFile
from pipelines.nightly.shards import Handled, MinedShard, RankedShard, Shard, Stage
from pipelines.nightly.workers import WorkersModel, WorkersReader
from pipelines.sources import Source
from pipelines.storage.filesystem import open_text
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
    """The shard without the groups that have no candidate left; their queries stand in the rejects."""
    kept = [(g, blob) for g, blob in zip(groups, shard.previous, strict=True) if g.candidates]
    return shard._replace(groups=tuple(g for g, _ in kept), previous=tuple(blob for _, blob in kept))


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


class ScoreCandidates(Stage):
    """Scores what is neither reused nor pruned, a whole shard's pairs together."""

    def __init__(self, model: WorkersModel, *, tagged: bool, progress: str | None):
        self._model, self._tagged, self._progress = model, tagged, progress

    def handle(self, shard: Shard) -> Handled:
        missing = sum(c.logit is None and c.pruned is None for g in shard.groups for c in g.candidates)
        progress = ProgressFile(self._progress, shard.number, shard.total, pairs=missing)
        groups: list[QueryGroup] = list(shard.groups)
        rejected: list[Rejected] = []
        halvings = 0
        if missing:  # a night without news needs no model
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


class RankCandidates(Stage):
    """Orders each query's candidates; top_n is cut when they are written, since mining needs the rest too."""

    def __init__(self, weights: Fusion | None):
        self._weights = weights

    def handle(self, shard: Shard) -> Handled:
        fused = [fuse(group, self._weights) for group in shard.groups] if self._weights else shard.groups
        groups = tuple(order.rank(group) for group in fused)
        tally = {"in": _pairs(shard.groups), "out": _pairs(groups)}
        if self._weights:
            tally["fused"] = sum(one.fused is not None for group in fused for one in group.candidates)
        return Handled(RankedShard(shard.number, shard.total, groups), [], tally)


class FindEvidence(Stage):
    """Finds the sentences that speak for each query's best units."""

    def __init__(self, model: WorkersModel, config: Config, *, tagged: bool, calibration: Calibration):
        self._model, self._options, self._tagged = model, config.evidence, tagged
        self._calibration = calibration

    def handle(self, shard: RankedShard) -> Handled:
        needed = evidence.needs_model(shard.groups, options=self._options)
        scorer = self._model.get() if needed else None
        found = evidence.find(
            shard.groups, scorer, options=self._options, tagged=self._tagged, calibration=self._calibration
        )
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

    def __init__(self, config: Config, calibration: Calibration):
        self._config, self._calibration = config, calibration

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
            mined = mine(
                group,
                positive_ids,
                config=self._config.mining,
                label_source=labels.source,
                calibration=self._calibration,
            )
            negatives += mined.negatives
            rules.update({f"kept:{rule}": count for rule, count in mined.kept.items()})
            rules.update({f"rejected:{rule}": count for rule, count in mined.rejected.items()})
        tally = {"in": _pairs(shard.groups), "out": len(negatives), **rules}
        return Handled(MinedShard(shard.number, shard.total, tuple(negatives)), [], tally)
