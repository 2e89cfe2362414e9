"""Before a night starts: everything it needs is opened and checked, and the run gets its name."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

import pipelines
from pipelines import autotune
from pipelines.beam_options import is_local_run, threads_per_worker
from pipelines.evaluate.published import read_judgements
from pipelines.nightly.models import (
    Loader,
    first_stage_loader,
    load_checked,
    read_calibration,
    read_fusion,
    scorer_loader,
    tagger_fingerprints,
)
from pipelines.nightly.previous import Previous, find_previous
from pipelines.sources import Source
from pipelines.sources.open import Window, open_source
from pipelines.storage import filesystem, runs
from rerank_core.config.night import Config, change_paths, window
from rerank_core.errors import ConfigError
from rerank_core.evaluation.measures import Level
from rerank_core.evaluation.qrels import Qrels
from rerank_core.mining.labels import load_judgements
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration
from rerank_core.ranking.fusion import Fusion, check_bi_encoder
from rerank_core.scoring.protocol import reads_tags
from rerank_core.text import fingerprint


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
    load_judgements(config.labels, opener=filesystem.open_text)  # a bad label file stops the night here
    span = window(run_date, config.log.window_days) if config.log.fields.timestamp else None
    source = open_source(config, span)
    described = source.describe()
    given = load is not None
    if not given:
        config = autotune.resolve(config, local=is_local_run(options))
    scores, calibrated = (UNCALIBRATED, None) if given else read_calibration(config)
    load = load or scorer_loader(config, options)
    scorer = load_checked(load)  # once here: a bad model stops the night before it starts
    model, tagged = scorer.fingerprint, reads_tags(scorer, config.tags)
    tagger, facts = tagger_fingerprints(config)
    weights, fused = (None, None) if given else read_fusion(config)
    load_cheap = first_stage_loader(config, options, weights)
    bi_encoder = load_checked(load_cheap) if load_cheap else None
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
    staging = runs.staging(config.output.path, run_id)
    local = is_local_run(options) and filesystem.is_local(config.output.path)
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
        progress=filesystem.join(staging, "_progress") if local else None,
        calibration=scores,
        calibrated=calibrated,
        sample_queries=config.cascade.sample_queries if config.cascade.enabled else 0,
        load_cheap=load_cheap,
        cheap_fingerprint=cheap,
        fusion=weights,
        fused=fused,
    )


def _without_paths(config: Config) -> Config:
    """The configuration without locations: the same night in another folder is the same night."""
    config = dataclasses.replace(config, tags=dataclasses.replace(config.tags, recogniser_model=""))
    return change_paths(config, lambda _: "")


def _labels(config: Config) -> list[str]:
    """Contents of the label files, which decide what is mined."""
    paths = [path for path in (config.labels.queries, config.labels.qrels) if path]
    return [fingerprint(Path(path).read_text(encoding="utf-8")) for path in paths if Path(path).is_file()]
