"""Before a night starts: everything it needs is opened and checked, and the run gets its name."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

import pipelines
from pipelines import store, tuning
from pipelines.metrics import read_judgements
from pipelines.options import is_local_run, threads_per_worker
from pipelines.previous import Previous, find_previous
from pipelines.sources import Source
from pipelines.sources.local import LocalSource
from pipelines.systems import check_bi_encoder
from rerank_core import calibration, fusion
from rerank_core.calibration import UNCALIBRATED, Calibration, CalibrationError
from rerank_core.config import Config, ConfigError, change_paths, window
from rerank_core.evaluation import Level
from rerank_core.features import default_recogniser, facts_fingerprint, tagger_fingerprint
from rerank_core.fusion import Fusion, FusionError
from rerank_core.judgements import Qrels
from rerank_core.labels import load_judgements
from rerank_core.scoring import DEFAULT_MODEL, Options, load_scorer
from rerank_core.scoring.model_folder import local_folder
from rerank_core.scoring.scorer import ModelError, Scorer, reads_tags
from rerank_core.text import fingerprint

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
    calibration: Calibration = UNCALIBRATED
    calibrated: dict[str, Any] | None = (
        None  # what is told of the calibration; None: scores are plain sigmoids
    )
    sample_queries: int = 0  # of the cascade; 0: no cascade
    load_cheap: Loader | None = None  # its cheap model, or fusion's bi-encoder; None: neither
    cheap_fingerprint: str = ""
    fusion: Fusion | None = None  # weights of the final order; None: it goes by the logit alone
    fused: dict[str, Any] | None = None  # what is told of them


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
    given = load is not None
    if not given:
        config = tuning.resolve(config, source, run_date=run_date, local=is_local_run(options))
    scores, calibrated = (UNCALIBRATED, None) if given else _calibration(config)
    load = load or _loader(config, options)
    scorer = _checked(load)  # once here: a bad model stops the night before it starts
    model, tagged = scorer.fingerprint, reads_tags(scorer, config.tags)
    tagger, facts = _tagger(config)
    weights, fused = (None, None) if given else _fusion(config)
    load_cheap = _cheap_loader(config, options, weights)
    bi_encoder = _checked(load_cheap) if load_cheap else None
    cheap = bi_encoder.fingerprint if bi_encoder else ""
    if weights:
        check_bi_encoder(weights, bi_encoder, told=config.scoring.model or "the model that ships")
    previous = find_previous(
        config, model, facts_fingerprint=facts, cheap_fingerprint=cheap, calibrated=calibrated
    )
    identity = [f"{key}={value}" for key, value in sorted(described.items()) if key.endswith("_fingerprint")]
    determining = [pipelines.__version__, repr(_without_paths(config)), model, cheap, repr(scores), repr(weights),
                   tagger or "", previous.run_id or "", *identity, *_labels(config)]  # fmt: skip
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
        calibration=scores,
        calibrated=calibrated,
        sample_queries=config.cascade.sample_queries if config.cascade.enabled else 0,
        load_cheap=load_cheap,
        cheap_fingerprint=cheap,
        fusion=weights,
        fused=fused,
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


def _calibration(config: Config) -> tuple[Calibration, dict[str, Any] | None]:
    """The model's own calibration, and what is told of it; a damaged one stops the night here."""
    if not config.scoring.calibrate:
        return UNCALIBRATED, None
    folder = local_folder(config.scoring.model or DEFAULT_MODEL, [calibration.FILE])
    try:
        return calibration.read(folder), calibration.told(folder)
    except CalibrationError as error:
        raise ModelError(str(error)) from None


def _fusion(config: Config) -> tuple[Fusion | None, dict[str, Any] | None]:
    """The weights of the final order, and what is told of them; damaged ones stop the night here."""
    wanted = config.fusion
    path = Path(
        wanted.weights or local_folder(config.scoring.model or DEFAULT_MODEL, [fusion.FILE]) / fusion.FILE
    )
    if wanted.use == "off" or (wanted.use == "auto" and not wanted.weights and not path.is_file()):
        return None, None
    try:
        return fusion.read(path), fusion.told(path)
    except FusionError as error:
        raise ModelError(str(error)) from None


def _cheap_loader(config: Config, options: PipelineOptions, weights: Fusion | None) -> Loader | None:
    """Of the cascade's cheap model, or of the bi-encoder that fusion takes part of the order from."""
    cascade = config.cascade
    threads = threads_per_worker(options, config.scoring.threads)
    idle = not (weights and weights.bi_encoder) and config.fusion.use != "off"
    if config.fusion.bi_encoder and idle:
        raise ConfigError(
            f"fusion.bi_encoder = {config.fusion.bi_encoder!r} would take no part: there are no fusion weights that "
            "were fitted with one; fit them by nightrank fuse --bi-encoder, or remove it"
        )
    if weights and weights.bi_encoder and config.fusion.bi_encoder:
        if cascade.enabled and cascade.model != config.fusion.bi_encoder:
            raise ConfigError(
                f"cascade.model = {cascade.model!r} is not fusion.bi_encoder = {config.fusion.bi_encoder!r}: a "
                "candidate has one cheap score; name the same model for both, or switch one of them off"
            )
        return functools.partial(
            load_scorer, config.fusion.bi_encoder, backend="bi_encoder", max_length=config.fusion.max_length,
            threads=threads,
        )  # fmt: skip
    if not (cascade.enabled and cascade.model):
        return None
    return functools.partial(
        load_scorer, cascade.model, backend=cascade.backend, device=cascade.device,
        max_length=cascade.max_length, threads=threads,
    )  # fmt: skip


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
