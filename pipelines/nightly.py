"""The nightly job: query log -> candidates -> tags -> scores -> ranking -> reranked results and hard negatives.

`build` is the whole graph. `run` prepares a night, runs the graph on any Beam runner, counts what was written and
only then publishes it. From the shell: `nightrank nightly --config FILE`.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

import pipelines
from pipelines import progress, store
from pipelines.cascade import FitCascade, PruneCandidates, SplitSample, TakeRule, read_fitted
from pipelines.metrics import before_and_after
from pipelines.options import beam_options
from pipelines.preparation import Loader, Night, prepare
from pipelines.previous import ReadPreviousScores
from pipelines.read_log import ReadQueryLog
from pipelines.shards import MakeShards, StageOutputs, sample_shards
from pipelines.sinks import (
    WriteDeadLetters,
    WriteHardNegatives,
    WritePassageTags,
    WriteReranked,
    WriteTallies,
)
from pipelines.transforms import (
    FetchCandidates,
    FindEvidence,
    MineHardNegatives,
    RankCandidates,
    ReuseScores,
    ScoreCandidates,
    TagFeatures,
)
from pipelines.verify import NightError, Verified, verify
from pipelines.worker_errors import worker_errors
from pipelines.workers import WorkersModel, WorkersReader, workers_model, workers_reader
from rerank_core.config import Config, to_dict
from schemas.manifest import Manifest


def build(pipeline: beam.Pipeline, night: Night) -> None:
    """The graph of a night."""
    config, workers = night.config, _workers(night)
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
        self._night, self._workers = night, workers

    def expand(self, shards: beam.PCollection) -> StageOutputs:
        night, (scorer, cheap, reader) = self._night, self._workers
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


class Workers(NamedTuple):
    """What every worker process opens once."""

    scorer: WorkersModel
    cheap: WorkersModel | None
    reader: WorkersReader | None


def _workers(night: Night) -> Workers:
    cheap = workers_model(night.load_cheap, night.cheap_fingerprint) if night.load_cheap else None
    return Workers(workers_model(night.load, night.model_fingerprint), cheap, _reader(night))


def _reader(night: Night) -> WorkersReader | None:
    if night.facts_fingerprint is None:
        return None
    return workers_reader(
        night.config,
        facts_fingerprint=night.facts_fingerprint,
        previous=night.previous.facts_files,
        threads=night.threads,
    )


def run(
    config: Config,
    *,
    run_date: datetime.date,
    beam_flags: Sequence[str] = (),
    load: Loader | None = None,
    show: Callable[[progress.Progress], None] | None = None,
) -> Manifest:
    """Run one night and publish it.

    Args:
        config: the night's configuration.
        run_date: last day of the log's window.
        beam_flags: flags for Beam; without --runner the job runs in this process.
        load: makes the scorer, in place of the configured model; must be picklable.
        show: called with the progress twice a second, where the workers are on this machine.

    Returns:
        The manifest of the published run.

    Raises:
        ConfigError, SourceError, ModelError, OutputError: the night could not start.
        NightError, ScoringFailed: it could not be published; the previous run stays in service.
    """
    started = time.monotonic()
    options = beam_options(beam_flags)
    night = prepare(config, run_date=run_date, options=options, load=load)
    with store.lock(config.output.path, night.run_id):
        _run_graph(night, options, show)
        verified = verify(night.staging, config, run_date=night.run_date, run_id=night.run_id)
        manifest = _manifest(night, verified, seconds=time.monotonic() - started)
        store.publish(config.output.path, manifest)
    return manifest


def _run_graph(
    night: Night, options: PipelineOptions, show: Callable[[progress.Progress], None] | None
) -> None:
    pipeline = beam.Pipeline(options=options)
    build(pipeline, night)
    watching = (
        progress.watch(Path(night.progress), show or (lambda _: None))
        if night.progress
        else contextlib.nullcontext()
    )
    with watching, worker_errors():
        pipeline.run().wait_until_finish()


def _manifest(night: Night, verified: Verified, *, seconds: float) -> Manifest:
    mined = verified.stages.get("MineHardNegatives", {})
    rules: dict[str, dict[str, int]] = {"kept": {}, "rejected": {}}
    for what, count in mined.items():
        side, _, rule = what.partition(":")
        if rule:
            rules[side][rule] = int(count)
    truncated = int(verified.stages.get("ScoreCandidates", {}).get("overflow_pairs", 0))
    degraded: dict[str, int | str] = {"truncated_pairs": truncated}
    if halved := int(verified.stages.get("ScoreCandidates", {}).get("memory_halvings", 0)):
        degraded["memory_halvings"] = halved
    if failed := int(verified.stages.get("FindEvidence", {}).get("failed", 0)):
        degraded["units_without_evidence"] = failed
    if failed := int(verified.stages.get("FetchCandidates", {}).get("second_searches_failed", 0)):
        degraded["second_searches_failed"] = failed
    if failed := int(verified.stages.get("PruneCandidates", {}).get("cheap_failed", 0)):
        degraded["cheap_scores_failed"] = failed
    if night.previous.problem:
        degraded["reuse"] = night.previous.problem
    labels = night.config.labels
    places = _places(verified.stages) if labels.debias and labels.source == "clicks" else None
    if places == []:
        degraded["labels"] = (
            f"no event tells in '{night.config.log.fields.impressions}' what was shown, so that no click could be "
            "corrected and nothing counts as a positive; name the column, or set labels.debias = false"
        )
    if night.fusion and night.fusion.reads_tags and not night.config.tags.enabled:
        degraded["fusion"] = (
            "its weights were fitted with tags, but tags.enabled = false; switch them on, or fit weights by "
            "nightrank fuse --no-tags"
        )
    cascade = None
    if night.sample_queries:
        cascade = read_fitted(night.staging) | {"cheap_fingerprint": night.cheap_fingerprint}
    if cascade and cascade["margin"] is None and cascade["queries"] < verified.balance.queries["published"]:
        degraded["cascade"] = (
            f"no rule keeps within cascade.max_loss = {cascade['max_loss']:g} on a sample of {cascade['queries']} "
            "queries: everything was scored in full; raise cascade.sample_queries"
        )
    return Manifest(
        run_id=night.run_id,
        run_date=night.run_date,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        nightrank_version=pipelines.__version__,
        config=to_dict(night.config),
        source=night.described,
        window=(night.window[0].isoformat(), night.window[1].isoformat()) if night.window else None,
        previous_run_id=night.previous.run_id,
        model_fingerprint=night.model_fingerprint,
        tagger_fingerprint=night.tagger_fingerprint,
        facts_fingerprint=night.facts_fingerprint,
        stages={
            stage: {what: amount for what, amount in tally.items() if ":" not in what}
            for stage, tally in verified.stages.items()
        },
        balance=verified.balance,
        mining=rules,
        degraded=degraded,
        rejected=verified.rejected,
        metrics=before_and_after(night.staging, night.judged),
        tables=verified.tables,
        seconds=round(seconds, 3),
        cascade=cascade,
        places=places,
        calibration=night.calibrated,
        fusion=night.fused | {"cheap_fingerprint": night.cheap_fingerprint} if night.fused else None,
    )


def _places(stages: Mapping[str, Mapping[str, float]]) -> list[dict[str, float]]:
    """What labels.debias found of each place of a result list, from the first."""
    log = stages["ReadQueryLog"]
    count = sum(what.startswith("examined:") for what in log)
    names = ("examined", "impressions")
    return [{name: log[f"{name}:{place}"] for name in names} for place in range(1, count + 1)]


__all__ = ["Manifest", "Night", "NightError", "build", "prepare", "run"]
