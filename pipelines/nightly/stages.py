"""The stages of a night as Beam transforms: thin shells around the pure functions of `rerank_core`."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from pipelines.nightly.deadline import Deadline, Left, TimeUp, once, until
from pipelines.nightly.progress import ProgressFile
from pipelines.nightly.shard_stage import Handled, ShardStage
from pipelines.nightly.shards import MinedShard, RankedShard, Shard
from pipelines.nightly.workers import SharedReader, SharedScorer
from pipelines.sources import Source
from pipelines.storage.filesystem import read_bytes
from rerank_core import stages
from rerank_core.candidates.expansion import widen
from rerank_core.config.night import Config
from rerank_core.errors import NightError
from rerank_core.mining.hard_negatives import mine
from rerank_core.mining.labels import NO_JUDGEMENTS, doubtful, load_judgements, positives
from rerank_core.ranking import evidence, order
from rerank_core.ranking.calibration import Calibration
from rerank_core.ranking.fusion import Fusion, fuse
from rerank_core.scoring.fault_tolerant import chunk_of
from rerank_core.scoring.protocol import Halves, Scorer, flush_vectors
from rerank_core.scoring.reuse import unpack
from rerank_core.text import clean, query_id
from schemas.records import Document, HardNegative, Query, QueryGroup, RankedGroup, Rejected


def _pairs(groups: Iterable[QueryGroup | RankedGroup]) -> int:
    return sum(len(group.candidates) for group in groups)


def _given_up(shard: Shard, tally: dict[str, float]) -> Handled:
    """A shard for which there was no time; its pairs are counted."""
    return Handled(shard.give_up(), [], {**tally, "out": 0, "not_reached": _pairs(shard.groups)})


class FetchCandidates(ShardStage):
    """Queries -> queries with their candidate units."""

    makes = Shard

    def __init__(self, source: Source, config: Config, reader: SharedReader | None, deadline: Deadline):
        self._source, self._config, self._reader = source, config.candidates, reader
        self._deadline = deadline

    def handle(self, shard: Shard) -> Handled:
        fetched = once(self._deadline.of(shard.total), lambda: self._fetch(shard))
        return fetched or _given_up(shard, {"in": len(shard.groups)})

    def _fetch(self, shard: Shard) -> Handled:
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
        return Handled(shard.keep(groups), rejected, tally | searches.tally)


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

    makes = Shard

    def __init__(self, config: Config, reader: SharedReader | None, deadline: Deadline):
        self._config, self._reader, self._deadline = config.tags, reader, deadline

    def handle(self, shard: Shard) -> Handled:
        pairs = _pairs(shard.groups)
        if self._reader is None or not pairs:  # tags.enabled = false
            return Handled(shard, [], {"in": pairs, "out": pairs})
        passages = stages.passages_to_read(shard.groups)
        reader = self._reader
        read = once(self._deadline.of(shard.total), lambda: reader.get().read(passages))
        if read is None:
            return _given_up(shard, {"in": pairs})
        facts = {passage: read.facts[key] for passage, key in zip(passages, read.keys, strict=True)}
        groups = tuple(stages.tag_group(group, facts, config=self._config) for group in shard.groups)
        by_key = tuple(sorted(zip(read.keys, facts.values(), strict=True)))
        tally = {"in": pairs, "out": pairs, "passages": len(passages), "passages_read": read.read}
        return Handled(shard._replace(groups=groups, facts=by_key), [], tally)


class ReuseScores(ShardStage):
    """Takes over the logits of inputs that the previous run scored with the same model."""

    makes = Shard

    def __init__(self, model_fingerprint: str, *, tagged: bool):
        self._model, self._tagged = model_fingerprint, tagged

    def handle(self, shard: Shard) -> Handled:
        groups = tuple(
            stages.reuse_scores(
                group, unpack(known.scores), model_fingerprint=self._model, tagged=self._tagged
            )
            for group, known in zip(shard.groups, shard.previous, strict=True)
        )
        reused = sum(candidate.reused for group in groups for candidate in group.candidates)
        tally = {"in": _pairs(groups), "out": _pairs(groups), "reused": reused}
        return Handled(shard._replace(groups=groups, facts=()), [], tally)


class ScoreCandidates(ShardStage):
    """Scores candidates that are neither reused nor pruned, the most valuable queries of a shard first.

    A query has been reached if all of its candidates were scored before the cut-off.
    """

    makes = Shard
    in_background = True

    def __init__(self, model: SharedScorer, deadline: Deadline, *, tagged: bool, progress: str | None):
        self._model, self._deadline = model, deadline
        self._tagged, self._progress = tagged, progress

    def handle(self, shard: Shard) -> Handled:
        left = self._deadline.of(shard.total)
        open_pairs = [sum(map(stages.is_open, group.candidates)) for group in shard.groups]
        progress = ProgressFile(self._progress, shard, pairs=sum(open_pairs))
        groups = [None if missing else group for group, missing in zip(shard.groups, open_pairs, strict=True)]
        rejected: list[Rejected] = []
        halvings = 0
        if any(open_pairs):  # else the model is not even loaded
            for part, scored, failed, halved in until(left, self._parts(shard.groups, left, progress)):
                for i, group in zip(part, scored, strict=True):
                    groups[i] = group
                rejected += failed
                halvings += halved
        progress.finish()
        given_up = [own for own, group in zip(shard.groups, groups, strict=True) if group is None]
        reached = [group for group in groups if group is not None]
        fresh = [c for group in reached for c in group.candidates if not c.reused and c.pruned is None]
        tally = {
            "in": sum(open_pairs),
            "out": len(fresh),
            "overflow_pairs": sum(c.overflow > 0 for group in reached for c in group.candidates),
        }
        tally |= {"memory_halvings": halvings} if halvings else {}
        tally |= {"not_reached": _pairs(given_up)} if given_up else {}
        return Handled(shard.keep(groups), rejected, tally)

    def _parts(
        self, groups: Sequence[QueryGroup], left: Left, progress: ProgressFile
    ) -> Iterator[tuple[list[int], list[QueryGroup], list[Rejected], int]]:
        """For each part: its indices into `groups`, its scored groups, its rejects, and halved batches."""

        def scored(inputs: int) -> None:
            if left() <= 0:  # an abandoned thread: the folder of the progress files may be going away
                raise TimeUp
            progress.add(inputs)

        scorer = self._model.get()
        for part in stages.parts_by_value(groups, size=chunk_of(scorer)):
            before = _halvings(scorer)
            some = [groups[i] for i in part]
            done, failed = stages.score_groups(some, scorer, tagged=self._tagged, on_scored=scored)
            yield part, done, failed, _halvings(scorer) - before
        flush_vectors(scorer)


def _halvings(scorer: Scorer) -> int:
    return scorer.halvings if isinstance(scorer, Halves) else 0


class RankCandidates(ShardStage):
    """Orders each query's candidates; the cut at top_n comes when they are written, since mining needs all of them."""

    makes = RankedShard

    def __init__(self, weights: Fusion | None):
        self._weights = weights

    def handle(self, shard: Shard) -> Handled:
        fused = [fuse(group, self._weights) for group in shard.groups] if self._weights else shard.groups
        groups = tuple(order.rank(group) for group in fused)
        tally = {"in": _pairs(shard.groups), "out": _pairs(groups)}
        if self._weights:
            tally["fused"] = sum(c.fused is not None for group in fused for c in group.candidates)
        return Handled(RankedShard(shard.number, shard.total, groups, shard.unreached, shard.part), [], tally)


class FindEvidence(ShardStage):
    """Finds the evidence sentences of each query's best units."""

    makes = RankedShard
    in_background = True

    def __init__(
        self,
        model: SharedScorer,
        config: Config,
        deadline: Deadline,
        *,
        tagged: bool,
        calibration: Calibration,
    ):
        self._model, self._options, self._tagged = model, config.evidence, tagged
        self._calibration, self._deadline = calibration, deadline

    def handle(self, shard: RankedShard) -> Handled:
        result = None
        if evidence.needs_model(shard.groups, options=self._options):
            result = once(self._deadline.of(shard.total), lambda: self._find(shard, self._model.get()))
        if result is None:
            result = self._find(shard, None)
        tally = {"in": result.wanted, "out": result.wanted - result.failed, "reused": result.reused}
        tally |= {"failed": result.failed, "inputs": result.inputs}
        return Handled(shard._replace(groups=result.groups), [], tally)

    def _find(self, shard: RankedShard, scorer: Scorer | None) -> evidence.EvidenceResult:
        found = evidence.find(
            shard.groups, scorer, options=self._options, tagged=self._tagged, calibration=self._calibration
        )
        if scorer:
            flush_vectors(scorer)
        return found


class MineHardNegatives(ShardStage):
    """Chooses hard negatives from the ranked candidates of queries that have a positive."""

    makes = MinedShard

    def __init__(self, config: Config, calibration: Calibration, labels: Mapping[str, str]):
        """`labels` are the SHA-256 that label files had when the night began, by their paths."""
        self._config, self._calibration, self._labels = config, calibration, labels

    def open(self) -> None:
        mined = self._config.mining.enabled
        self._judgements = load_judgements(self._config.labels, opener=self._read) if mined else NO_JUDGEMENTS

    def _read(self, path: str) -> BinaryIO:
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != self._labels[path]:
            raise NightError(
                f"the labels {path} were replaced during the run; run the night again, and write new ones under "
                "another name"
            )
        return io.BytesIO(data)

    def handle(self, shard: RankedShard) -> Handled:
        if not self._config.mining.enabled:
            return Handled(MinedShard(shard.number, shard.total, (), shard.part), [], {"in": 0, "out": 0})
        labels = self._config.labels
        negatives: list[HardNegative] = []
        rules: Counter[str] = Counter()
        for group in shard.groups:
            mined = mine(
                group,
                positives(group, config=labels, judgements=self._judgements),
                config=self._config.mining,
                label_source=labels.source,
                doubtful=doubtful(group, config=labels),
                calibration=self._calibration,
            )
            negatives += mined.negatives
            rules.update({f"kept:{rule}": count for rule, count in mined.kept.items()})
            rules.update({f"rejected:{rule}": count for rule, count in mined.rejected.items()})
        tally = {"in": _pairs(shard.groups), "out": len(negatives), **rules}
        return Handled(MinedShard(shard.number, shard.total, tuple(negatives), shard.part), [], tally)
