"""The nightly job: query log -> candidates -> tags -> scores -> ranking -> reranked results and hard negatives.

`build` is the whole graph. `run` prepares a night, runs the graph on any Beam runner, counts what was written and
only then publishes it. From the shell: `nightrank nightly --config FILE`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

import pipelines
from pipelines import progress, store, tuning
from pipelines.metrics import before_and_after, read_judgements
from pipelines.options import beam_options, is_local_run, threads_per_worker
from pipelines.previous import Previous, ReadPreviousScores, find_previous
from pipelines.read_log import ReadQueryLog
from pipelines.shards import MakeShards
from pipelines.sinks import (
    WriteDeadLetters,
    WriteHardNegatives,
    WritePassageTags,
    WriteReranked,
    WriteTallies,
)
from pipelines.sources import Source
from pipelines.sources.local import LocalSource
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
from pipelines.workers import WorkersReader, workers_model, workers_reader
from rerank_core.config import Config, ConfigError, change_paths, to_dict, window
from rerank_core.evaluation import Level
from rerank_core.features import default_recogniser, facts_fingerprint, tagger_fingerprint
from rerank_core.judgements import Qrels
from rerank_core.labels import load_judgements
from rerank_core.scoring import Options, load_scorer
from rerank_core.scoring.scorer import ModelError, Scorer, reads_tags
from rerank_core.text import fingerprint
from schemas.manifest import Manifest

Window = tuple[datetime.datetime, datetime.datetime]
Loader = Callable[[], Scorer]


@dataclasses.dataclass(frozen=True)
class Night:
    """All that the graph of one night is built from."""

    config: Config
    run_id: str
    run_date: str
    window: Window | None
    source: Source
    described: dict[str, Any]  # the source, as the manifest tells it
    load: Loader
    model_fingerprint: str
    tagged: bool  # the model reads the tags
    tagger_fingerprint: str | None  # None: tags are not enabled
    facts_fingerprint: str | None
    previous: Previous
    judged: dict[Level, Qrels]
    staging: str
    threads: int  # of a recogniser that runs a model, in each process
    progress: str | None = None  # folder of progress files; None where workers cannot reach it


def build(pipeline: beam.Pipeline, night: Night) -> None:
    """The graph of a night."""
    config, model = night.config, night.model_fingerprint
    scorer, reader = workers_model(night.load, model), _reader(night)
    log = pipeline | ReadQueryLog(night.source, night.window, config)
    previous = pipeline | ReadPreviousScores(night.previous.files, evidence=night.previous.evidence)
    shards = (log.queries, previous) | MakeShards(config.output.queries_per_shard)
    fetched = shards | FetchCandidates(night.source, config, reader)
    tagged = fetched.main | TagFeatures(config, reader)
    kept = tagged.main | WritePassageTags(night.staging, run_id=night.run_id)
    reused = tagged.main | ReuseScores(model, tagged=night.tagged)
    scored = reused.main | ScoreCandidates(scorer, tagged=night.tagged, progress=night.progress)
    ranked = scored.main | RankCandidates()
    shown = ranked.main | FindEvidence(scorer, config, tagged=night.tagged)
    published = shown.main | WriteReranked(
        night.staging, config, run_id=night.run_id, model_fingerprint=model
    )
    mined = ranked.main | MineHardNegatives(config)
    negatives = mined.main | WriteHardNegatives(
        night.staging, run_id=night.run_id, model_fingerprint=model, tagged=night.tagged
    )

    stages = [fetched, tagged, kept, reused, scored, ranked, shown, published, mined, negatives]
    rejected = [log.rejected, *(stage.rejected for stage in stages)]
    letters = rejected | "Rejected" >> beam.Flatten() | WriteDeadLetters(night.staging, run_id=night.run_id)
    tallies = [log.tallies, letters, *(stage.tallies for stage in stages)]
    _ = tallies | "Tallies" >> beam.Flatten() | WriteTallies(night.staging)


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


def prepare(
    config: Config, *, run_date: datetime.date, options: PipelineOptions, load: Loader | None = None
) -> Night:
    """Check all that a night needs before it starts, and name the run.

    The run's id is a function of what determines its rows: configuration, log, index, model and the run whose
    scores it reuses. So a night that was killed and is started again writes the same bytes under the same id.
    """
    required = {"output.path": config.output.path}
    if config.source.kind == "local":
        required |= {"source.log": config.source.log, "source.index": config.source.index}
    for key, value in required.items():
        if not value:
            raise ConfigError(f"'{key}' is not set; see examples/nightly.toml")
    judged = read_judgements(config.evaluation)
    load_judgements(config.labels, opener=store.open_text)  # a bad label file stops the night here
    span = window(run_date, config.log.window_days) if config.log.fields.timestamp else None
    source = open_source(config, span)
    described = source.describe()
    if not load:
        config = tuning.resolve(config, source, run_date=run_date, local=is_local_run(options))
    load = load or _loader(config, options)
    scorer = _checked(load)  # once here: a bad model stops the night before it starts
    model, tagged = scorer.fingerprint, reads_tags(scorer, config.tags)
    tagger, facts = _tagger(config)
    previous = find_previous(config, model, facts_fingerprint=facts)
    identity = [f"{key}={value}" for key, value in sorted(described.items()) if key.endswith("_fingerprint")]
    determining = [pipelines.__version__, repr(_without_paths(config)), model, tagger or "",
                   previous.run_id or "", *identity, *_labels(config)]  # fmt: skip
    run_id = f"{run_date:%Y%m%d}-{fingerprint(*determining)[:12]}"
    staging = store.staging(config.output.path, run_id)
    local = is_local_run(options) and store.is_local(config.output.path)
    return Night(
        config=config,
        run_id=run_id,
        run_date=run_date.isoformat(),
        window=span,
        source=source,
        described=described,
        load=load,
        model_fingerprint=model,
        tagged=tagged,
        tagger_fingerprint=tagger,
        facts_fingerprint=facts,
        previous=previous,
        judged=judged,
        staging=staging,
        threads=threads_per_worker(options, config.scoring.threads),
        progress=store.join(staging, "_progress") if local else None,
    )


def open_source(config: Config, window: Window | None = None) -> Source:
    """The source that the configuration names; one that can reads no events outside the window."""
    if config.source.kind == "elasticsearch":
        from pipelines.sources.elasticsearch import ElasticsearchSource

        return ElasticsearchSource(config, window=window)
    return LocalSource(config)


def _loader(config: Config, options: PipelineOptions) -> Loader:
    scoring = dataclasses.asdict(config.scoring)
    fields = {name: scoring[name] for name in ("backend", *Options._fields)}
    fields["threads"] = threads_per_worker(options, config.scoring.threads)
    return functools.partial(load_scorer, config.scoring.model or None, **fields)


def _checked(load: Loader) -> Scorer:
    try:
        return load()
    except (ModelError, ConfigError):
        raise
    except ValueError as error:  # a setting that the backend does not have, or that makes no sense to it
        raise ConfigError(str(error)) from error


def _tagger(config: Config) -> tuple[str | None, str | None]:
    """Fingerprints of the tagger and of what reads the passages; a recogniser that cannot be used fails here."""
    if not config.tags.enabled:
        if config.candidates.second_search in ("names", "both"):
            raise ConfigError(
                "candidates.second_search by names needs tags.enabled = true, which finds the names"
            )
        return None, None
    recogniser = default_recogniser(config.tags)
    return tagger_fingerprint(config.tags, recogniser), facts_fingerprint(recogniser)


def _without_paths(config: Config) -> Config:
    """The configuration without locations: the same night in another folder is the same night."""
    config = dataclasses.replace(config, tags=dataclasses.replace(config.tags, recogniser_model=""))
    return change_paths(config, lambda _: "")


def _labels(config: Config) -> list[str]:
    """Contents of the label files, which decide what is mined."""
    paths = [path for path in (config.labels.queries, config.labels.qrels) if path]
    return [fingerprint(Path(path).read_text(encoding="utf-8")) for path in paths if Path(path).is_file()]


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
    if night.previous.problem:
        degraded["reuse"] = night.previous.problem
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
    )


__all__ = ["Manifest", "Night", "NightError", "build", "prepare", "run"]
