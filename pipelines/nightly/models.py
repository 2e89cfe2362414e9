"""What scores a night: its model, calibration, fusion weights, first-stage model and tagger, checked beforehand."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.beam_options import threads_per_worker
from rerank_core.config.night import Config
from rerank_core.errors import ConfigError, ModelError
from rerank_core.features.tagger import default_recogniser, facts_fingerprint, tagger_fingerprint
from rerank_core.ranking import stored
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration
from rerank_core.ranking.fusion import Fusion
from rerank_core.scoring.load import Options, load_scorer
from rerank_core.scoring.protocol import Scorer

Loader = Callable[[], Scorer]


def scorer_loader(config: Config, options: PipelineOptions) -> Loader:
    scoring = dataclasses.asdict(config.scoring)
    fields = {name: scoring[name] for name in ("backend", *Options._fields)}
    fields["threads"] = threads_per_worker(options, config.scoring.threads)
    return functools.partial(load_scorer, config.scoring.model or None, **fields)


def read_calibration(config: Config) -> tuple[Calibration, dict[str, Any] | None]:
    """The model's own calibration, and what is told of it; a damaged one stops the night here."""
    if not config.scoring.calibrate:
        return UNCALIBRATED, None
    return stored.read_calibration(config.scoring.model)


def read_fusion(config: Config) -> tuple[Fusion | None, dict[str, Any] | None]:
    """The weights of the final order, and what is told of them; damaged ones stop the night here."""
    wanted = config.fusion
    if wanted.use == "off":
        return None, None
    return stored.read_fusion(config.scoring.model, weights=wanted.weights, required=wanted.use == "on")


def first_stage_loader(config: Config, options: PipelineOptions, weights: Fusion | None) -> Loader | None:
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


def load_checked(load: Loader) -> Scorer:
    try:
        return load()
    except (ModelError, ConfigError):
        raise
    except ValueError as error:  # a setting that the backend does not have, or that makes no sense to it
        raise ConfigError(str(error)) from error


def tagger_fingerprints(config: Config) -> tuple[str | None, str | None]:
    """Fingerprints of the tagger and of what reads the passages; a recogniser that cannot be used fails here."""
    if not config.tags.enabled:
        if config.candidates.second_search in ("names", "both"):
            raise ConfigError(
                "candidates.second_search by names needs tags.enabled = true, which finds the names"
            )
        return None, None
    recogniser = default_recogniser(config.tags)
    return tagger_fingerprint(config.tags, recogniser), facts_fingerprint(recogniser)
