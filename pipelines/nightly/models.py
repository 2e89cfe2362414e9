"""The models of a night: scorer, first-stage model, calibration, fusion weights and tagger, opened before it starts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.beam_options import runs_in_this_process, threads_per_worker
from pipelines.registry.resolve import fetched_id, load_registered
from rerank_core.config.night import Config
from rerank_core.errors import ConfigError, ModelError
from rerank_core.features.tagger import default_recogniser, facts_fingerprint, tagger_fingerprint
from rerank_core.ranking import stored
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration
from rerank_core.ranking.fusion import Fusion, check_bi_encoder
from rerank_core.scoring.load import Options, load_scorer
from rerank_core.scoring.protocol import Scorer, reads_tags, why_row_by_row

Loader = Callable[[], Scorer]


class Model(NamedTuple):
    """A model that each worker loads for itself, and the fingerprint that it must have there."""

    load: Loader
    fingerprint: str
    row_by_row: str = ""  # why it runs every row alone, which is slower
    opened: Scorer | None = None  # where the workers are threads of this process, which has opened it


class Tagger(NamedTuple):
    """What tags a night."""

    fingerprint: str  # of the recogniser, the rules and the configuration
    facts_fingerprint: str  # of what reads the passages: facts with this fingerprint are reused
    threads: int  # of a recogniser that runs a model, in each process


@dataclasses.dataclass(frozen=True)
class Models:
    """Everything that decides the scores and the order of a night, and what the manifest shows of it."""

    scorer: Model
    reads_tags: bool  # the scorer's input holds the tags
    # the cascade's model, or the bi-encoder that the fusion weights were fitted with
    first_stage: Model | None
    tagger: Tagger | None  # None: tags.enabled = false
    calibration: Calibration
    calibration_record: dict[str, Any] | None  # None: scores are sigmoids of the logits
    fusion: Fusion | None  # None: candidates are ordered by the logit alone
    fusion_record: dict[str, Any] | None

    @property
    def first_stage_fingerprint(self) -> str:
        """ "" without a first-stage model."""
        return self.first_stage.fingerprint if self.first_stage else ""


def open_models(config: Config, options: PipelineOptions, *, load: Loader | None = None) -> Models:
    """Open every model once, so that one that cannot be used stops the night before it starts.

    Args:
        config: the night's configuration.
        options: Beam's; the local workers share this machine's processors.
        load: makes the scorer in place of the configured model; such a scorer has no calibration and no fusion weights.

    Raises:
        ModelError: a model, its calibration or its fusion weights cannot be used.
        ConfigError: options that contradict each other, or that the chosen backend does not have.
    """
    calibration, calibration_record = (UNCALIBRATED, None) if load else read_calibration(config)
    weights, fusion_record = (None, None) if load else read_fusion(config)
    load = load or scorer_loader(config, options)
    scorer = load_checked(load)
    tagger = open_tagger(config, threads=threads_per_worker(options, config.scoring.threads))
    load_first_stage = first_stage_loader(config, options, weights)
    first_stage = load_checked(load_first_stage) if load_first_stage else None
    if weights:
        check_bi_encoder(weights, first_stage, model=config.scoring.model or "the model that ships")
    model = functools.partial(_model, kept=runs_in_this_process(options))
    return Models(
        scorer=model(load, scorer),
        reads_tags=reads_tags(scorer, config.tags),
        first_stage=model(load_first_stage, first_stage) if load_first_stage and first_stage else None,
        tagger=tagger,
        calibration=calibration,
        calibration_record=calibration_record,
        fusion=weights,
        fusion_record=fusion_record,
    )


def _model(load: Loader, opened: Scorer, *, kept: bool) -> Model:
    return Model(load, opened.fingerprint, why_row_by_row(opened), opened if kept else None)


def scorer_loader(config: Config, options: PipelineOptions) -> Loader:
    scoring = dataclasses.asdict(config.scoring)
    fields = {name: scoring[name] for name in ("backend", *Options._fields)}
    fields["threads"] = threads_per_worker(options, config.scoring.threads, device=config.scoring.device)
    if model := fetched_id(config):  # a worker elsewhere does not have this machine's cache folder
        return functools.partial(load_registered, config.registry.path, model, **fields)
    return functools.partial(load_scorer, config.scoring.model or None, **fields)


def read_calibration(config: Config) -> tuple[Calibration, dict[str, Any] | None]:
    """The model's calibration and its record; (UNCALIBRATED, None) if it has none, or scoring.calibrate = false."""
    if not config.scoring.calibrate:
        return UNCALIBRATED, None
    return stored.read_calibration(config.scoring.model)


def read_fusion(config: Config) -> tuple[Fusion | None, dict[str, Any] | None]:
    """The fusion weights and their record; (None, None) if the order is by the logit alone."""
    wanted = config.fusion
    if wanted.use == "off":
        return None, None
    return stored.read_fusion(config.scoring.model, weights=wanted.weights, required=wanted.use == "on")


def first_stage_loader(config: Config, options: PipelineOptions, weights: Fusion | None) -> Loader | None:
    """Loads fusion's bi-encoder where the weights need it, else the cascade's model, where it has one."""
    cascade, bi_encoder = config.cascade, config.fusion.bi_encoder
    needed = weights is not None and bool(weights.bi_encoder)
    if bi_encoder and not needed and config.fusion.use != "off":
        raise ConfigError(
            f"fusion.bi_encoder = {bi_encoder!r} would have no effect: there are no fusion weights that were fitted "
            "with a bi-encoder; fit them by nightrank fuse --bi-encoder, or remove it"
        )
    if bi_encoder and needed:
        if cascade.enabled and cascade.model != bi_encoder:
            raise ConfigError(
                f"cascade.model = {cascade.model!r} differs from fusion.bi_encoder = {bi_encoder!r}, but a candidate "
                "has one first-stage score; name the same model for both, or switch one of them off"
            )
        length, threads = config.fusion.max_length, threads_per_worker(options, config.scoring.threads)
        return functools.partial(
            load_scorer, bi_encoder, backend="bi_encoder", max_length=length, threads=threads
        )
    if not (cascade.enabled and cascade.model):
        return None
    return functools.partial(
        load_scorer,
        cascade.model,
        backend=cascade.backend,
        device=cascade.device,
        max_length=cascade.max_length,
        threads=threads_per_worker(options, config.scoring.threads, device=cascade.device),
    )


def load_checked(load: Loader) -> Scorer:
    """Load a model; a ValueError of its backend, about an option, becomes a ConfigError."""
    try:
        return load()
    except (ModelError, ConfigError):
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def open_tagger(config: Config, *, threads: int) -> Tagger | None:
    """Fingerprints of what tags the night; None if tags.enabled = false.

    Raises:
        ModelError: the named-entity recogniser cannot be used.
        ConfigError: a second search by names, without tags.
    """
    if not config.tags.enabled:
        if config.candidates.second_search in ("names", "both"):
            raise ConfigError(
                f"candidates.second_search = {config.candidates.second_search!r} needs tags.enabled = true, since "
                "tagging finds the names"
            )
        return None
    recogniser = default_recogniser(config.tags)
    return Tagger(tagger_fingerprint(config.tags, recogniser), facts_fingerprint(recogniser), threads)
