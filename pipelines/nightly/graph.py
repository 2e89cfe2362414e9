"""The graph of a night: query log -> candidates -> tags -> scores -> ranking -> reranked results and hard negatives."""

from __future__ import annotations

import apache_beam as beam

from pipelines.nightly.cascade import FitCascade, PruneCandidates, SplitSample, TakeRule
from pipelines.nightly.prepare import Night
from pipelines.nightly.previous import ReadPreviousScores
from pipelines.nightly.shards import MakeShards, StageOutputs, sample_shards
from pipelines.nightly.sinks import (
    WriteDeadLetters,
    WriteHardNegatives,
    WritePassageTags,
    WriteReranked,
    WriteTallies,
)
from pipelines.nightly.stages import (
    FetchCandidates,
    FindEvidence,
    MineHardNegatives,
    RankCandidates,
    ReuseScores,
    ScoreCandidates,
    TagFeatures,
)
from pipelines.nightly.workers import (
    Workers,
    open_workers,
)
from pipelines.querylog.read_log import ReadQueryLog


def build(pipeline: beam.Pipeline, night: Night) -> None:
    """The graph of a night."""
    config, workers = night.config, open_workers(night)
    log = pipeline | ReadQueryLog(night.source, night.window, config)
    previous = pipeline | ReadPreviousScores(night.previous)
    size, sample = config.output.queries_per_shard, night.sample_queries
    shards = (log.queries, previous) | MakeShards(size, sample_queries=sample)
    if sample:
        split = shards | SplitSample(sample_shards(sample, size))
        first = split.sample | "Sample" >> Rerank(night, workers)
        rule = first.main | FitCascade(
            night.staging, max_loss=config.cascade.max_loss, calibration=night.calibration
        )
        rest = split.rest | TakeRule(rule)
        parts = [first, rest | "Rest" >> Rerank(night, workers)]
    else:
        parts = [shards | Rerank(night, workers)]

    rejected = [log.rejected, *(part.rejected for part in parts)]
    letters = rejected | "Rejected" >> beam.Flatten() | WriteDeadLetters(night.staging, run_id=night.run_id)
    tallies = [log.tallies, letters, *(part.tallies for part in parts)]
    _ = tallies | "Tallies" >> beam.Flatten() | WriteTallies(night.staging)


class Rerank(beam.PTransform):
    """PCollection[Shard] -> ranked shards, with all their tables written."""

    def __init__(self, night: Night, workers: Workers):
        self._night, self.open_workers = night, workers

    def expand(self, shards: beam.PCollection) -> StageOutputs:
        night, (scorer, cheap, reader) = self._night, self.open_workers
        config, model = night.config, night.model_fingerprint
        fetched = shards | FetchCandidates(night.source, config, reader)
        tagged = fetched.main | TagFeatures(config, reader)
        kept = tagged.main | WritePassageTags(night.staging, run_id=night.run_id)
        reused = tagged.main | ReuseScores(model, tagged=night.tagged)
        pruned = reused.main | PruneCandidates(cheap) if night.sample_queries or cheap else None
        scored = (pruned or reused).main | ScoreCandidates(
            scorer, tagged=night.tagged, progress=night.progress
        )
        ranked = scored.main | RankCandidates(night.fusion)
        shown = ranked.main | FindEvidence(scorer, config, tagged=night.tagged, calibration=night.calibration)
        published = shown.main | WriteReranked(
            night.staging,
            config,
            run_id=night.run_id,
            model_fingerprint=model,
            calibration=night.calibration,
        )
        mined = ranked.main | MineHardNegatives(config, night.calibration)
        negatives = mined.main | WriteHardNegatives(
            night.staging, run_id=night.run_id, model_fingerprint=model, tagged=night.tagged
        )
        every = [fetched, tagged, kept, reused, pruned, scored, ranked, shown, published, mined, negatives]
        stages = [stage for stage in every if stage]
        rejected = [stage.rejected for stage in stages] | "Rejected" >> beam.Flatten()
        tallies = [stage.tallies for stage in stages] | "Tallies" >> beam.Flatten()
        return StageOutputs(ranked.main, rejected, tallies)
