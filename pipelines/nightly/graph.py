"""The graph of a night: query log -> candidates -> tags -> scores -> ranking -> reranked results and hard negatives."""

from __future__ import annotations

from typing import NamedTuple

import apache_beam as beam

from pipelines.beam_options import is_local_run
from pipelines.nightly import sinks, stages
from pipelines.nightly.balance import CutShards
from pipelines.nightly.cascade import FitCascade, PruneCandidates, TakeRule
from pipelines.nightly.checked import CheckFiles
from pipelines.nightly.deadline import Deadline
from pipelines.nightly.prepare import Night
from pipelines.nightly.previous import ReadPreviousScores
from pipelines.nightly.shard_stage import StageOutputs
from pipelines.nightly.shards import MakeShards
from pipelines.nightly.stale import KeepLists
from pipelines.nightly.workers import WorkerResources, worker_resources
from pipelines.nightly.write_facts import PackFacts, WritePassageTags
from pipelines.querylog.read_log import ReadQueryLog
from rerank_core.config.operation import Workers

Hints = dict[str, str]
"""Beam's resource hints: name -> value."""


def build(pipeline: beam.Pipeline, night: Night) -> None:
    """Add the whole night to a pipeline; with a cascade, its sample is reranked before the other queries."""
    run, config = night.run, night.config
    resources, calibration = worker_resources(night), night.models.calibration
    hints = {} if is_local_run(pipeline.options) else scoring_hints(config.workers)
    log = pipeline | ReadQueryLog(night.source, run.window, config)
    previous = pipeline | ReadPreviousScores(night.previous)
    size = config.output.queries_per_shard
    shards = (log.queries, previous) | MakeShards(size, sample_queries=night.sample_queries)
    if shards.sample:
        first = shards.sample | "Sample" >> Rerank(night, resources, hints)
        max_loss = config.cascade.max_loss
        rule = first.main | FitCascade(run.staging, max_loss=max_loss, calibration=calibration)
        rest = shards.rest | TakeRule(rule) | "Rest" >> Rerank(night, resources, hints)
        outputs: list[StageOutputs | Reranked] = [first, rest]
        facts = [first.facts, rest.facts] | "Facts" >> beam.Flatten()
        unreached = [first.unreached, rest.unreached] | "Unreached" >> beam.Flatten()
    else:
        rest = shards.rest | Rerank(night, resources, hints)
        outputs, unreached, facts = [rest], rest.unreached, rest.facts
    if run.finish_by:
        outputs.append(unreached | KeepLists(run, config, night.previous.lists))
    outputs.append(facts | WritePassageTags(run))
    rejected = [log.rejected, *(output.rejected for output in outputs)]
    letters = rejected | "Rejected" >> beam.Flatten() | sinks.WriteDeadLetters(run)
    tallies = [log.tallies, letters, *(output.tallies for output in outputs)]
    written = tallies | "Tallies" >> beam.Flatten() | sinks.WriteTallies(run)
    _ = written | CheckFiles(run)


def scoring_hints(workers: Workers) -> Hints:
    """The resource hints of the stages that run the models; none if nothing is configured."""
    hints = {"min_ram": workers.scoring_min_ram, "accelerator": workers.scoring_accelerator}
    return {name: value for name, value in hints.items() if value}


class Reranked(NamedTuple):
    """The outputs of `Rerank`."""

    main: beam.PCollection  # ranked shards
    unreached: beam.PCollection
    facts: beam.PCollection  # packed, for WritePassageTags
    rejected: beam.PCollection
    tallies: beam.PCollection


class Rerank(beam.PTransform):
    """PCollection[Shard] -> ranked shards, with all their tables written but `passage_tags`.

    With hints, the stages from the first model to the evidence run on workers of their own. A runner may fuse stages
    whose hints differ, and then gives all of them the costlier workers; a reshuffle before and after keeps the others
    out. It moves the candidates' texts over the network, so there is none without hints.
    """

    def __init__(self, night: Night, resources: WorkerResources, hints: Hints):
        self._night, self._resources, self._hints = night, resources, hints

    def expand(self, shards: beam.PCollection) -> Reranked:
        night, (scorer, first_stage, reader) = self._night, self._resources
        config, run, models = night.config, night.run, night.models
        model, tagged, calibration = models.scorer.fingerprint, models.reads_tags, models.calibration
        rows = config.output.queries_per_shard * config.candidates.top_k
        deadline = Deadline(run.finish_by, rows_per_shard=rows)
        few = shards | "CutQueries" >> CutShards(config.candidates.top_k)
        fetched = few | stages.FetchCandidates(night.source, config, reader, deadline)
        cut = fetched.main | "CutPairs" >> CutShards()
        tags = cut | stages.TagFeatures(config, reader, deadline)
        facts = tags.main | PackFacts(rows)
        reused = tags.main | stages.ReuseScores(model, tagged=tagged)
        rest, pruned = self._apart(reused.main, "ToScoring"), None
        if night.sample_queries or first_stage:
            pruned = rest | self._on_own(PruneCandidates(first_stage, deadline))
            rest = pruned.main
        scored = rest | self._on_own(
            stages.ScoreCandidates(scorer, deadline, tagged=tagged, progress=run.progress)
        )
        ranked = scored.main | self._on_own(stages.RankCandidates(models.fusion))
        shown = ranked.main | self._on_own(
            stages.FindEvidence(scorer, config, deadline, tagged=tagged, calibration=calibration)
        )
        written = self._apart(shown.main, "ToWriting") | sinks.WriteReranked(
            run, config, model=model, calibration=calibration
        )
        lists = self._apart(ranked.main, "ToMining")
        mined = lists | stages.MineHardNegatives(config, calibration, night.labels)
        negatives = mined.main | sinks.WriteHardNegatives(run, model=model, tagged=tagged)
        every = [fetched, tags, facts, reused, pruned, scored, ranked, shown, written, mined, negatives]
        outputs = [stage for stage in every if stage]
        rejected = [stage.rejected for stage in outputs] | "Rejected" >> beam.Flatten()
        tallies = [stage.tallies for stage in outputs] | "Tallies" >> beam.Flatten()
        return Reranked(lists, written.main, facts.main, rejected, tallies)

    def _on_own(self, stage: beam.PTransform) -> beam.PTransform:
        return stage.with_resource_hints(**self._hints) if self._hints else stage

    def _apart(self, shards: beam.PCollection, label: str) -> beam.PCollection:
        return shards | label >> beam.Reshuffle() if self._hints else shards
