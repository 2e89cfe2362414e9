"""The graph of a night: query log -> candidates -> tags -> scores -> ranking -> reranked results and hard negatives."""

from __future__ import annotations

import apache_beam as beam

from pipelines.nightly import sinks, stages
from pipelines.nightly.cascade import FitCascade, PruneCandidates, SplitSample, TakeRule
from pipelines.nightly.prepare import Night
from pipelines.nightly.previous import ReadPreviousScores
from pipelines.nightly.shards import MakeShards, StageOutputs, sample_shards
from pipelines.nightly.workers import WorkerResources, worker_resources
from pipelines.querylog.read_log import ReadQueryLog


def build(pipeline: beam.Pipeline, night: Night) -> None:
    """Add the whole night to a pipeline; with a cascade, its sample is reranked before the other queries."""
    run, size, sample = night.run, night.config.output.queries_per_shard, night.sample_queries
    resources, calibration = worker_resources(night), night.models.calibration
    log = pipeline | ReadQueryLog(night.source, run.window, night.config)
    previous = pipeline | ReadPreviousScores(night.previous)
    shards = (log.queries, previous) | MakeShards(size, sample_queries=sample)
    if sample:
        split = shards | SplitSample(sample_shards(sample, size))
        first = split.sample | "Sample" >> Rerank(night, resources)
        max_loss = night.config.cascade.max_loss
        rule = first.main | FitCascade(run.staging, max_loss=max_loss, calibration=calibration)
        parts = [first, split.rest | TakeRule(rule) | "Rest" >> Rerank(night, resources)]
    else:
        parts = [shards | Rerank(night, resources)]
    rejected = [log.rejected, *(part.rejected for part in parts)]
    letters = rejected | "Rejected" >> beam.Flatten() | sinks.WriteDeadLetters(run)
    tallies = [log.tallies, letters, *(part.tallies for part in parts)]
    _ = tallies | "Tallies" >> beam.Flatten() | sinks.WriteTallies(run)


class Rerank(beam.PTransform):
    """PCollection[Shard] -> ranked shards, with all their tables written."""

    def __init__(self, night: Night, resources: WorkerResources):
        self._night, self._resources = night, resources

    def expand(self, shards: beam.PCollection) -> StageOutputs:
        night, (scorer, first_stage, reader) = self._night, self._resources
        config, run, models = night.config, night.run, night.models
        model, tagged, calibration = models.scorer.fingerprint, models.reads_tags, models.calibration
        fetched = shards | stages.FetchCandidates(night.source, config, reader)
        tags = fetched.main | stages.TagFeatures(config, reader)
        facts = tags.main | sinks.WritePassageTags(run)
        reused = tags.main | stages.ReuseScores(model, tagged=tagged)
        pruned = reused.main | PruneCandidates(first_stage) if night.sample_queries or first_stage else None
        rest = pruned or reused
        scored = rest.main | stages.ScoreCandidates(scorer, tagged=tagged, progress=run.progress)
        ranked = scored.main | stages.RankCandidates(models.fusion)
        shown = ranked.main | stages.FindEvidence(scorer, config, tagged=tagged, calibration=calibration)
        written = shown.main | sinks.WriteReranked(run, config, model=model, calibration=calibration)
        mined = ranked.main | stages.MineHardNegatives(config, calibration)
        negatives = mined.main | sinks.WriteHardNegatives(run, model=model, tagged=tagged)
        every = [fetched, tags, facts, reused, pruned, scored, ranked, shown, written, mined, negatives]
        outputs = [stage for stage in every if stage]
        rejected = [stage.rejected for stage in outputs] | "Rejected" >> beam.Flatten()
        tallies = [stage.tallies for stage in outputs] | "Tallies" >> beam.Flatten()
        return StageOutputs(ranked.main, rejected, tallies)
