"""Before a night starts: everything it needs is opened and checked, and the run gets its id."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

import pipelines
from pipelines import autotune
from pipelines.beam_options import is_local_run
from pipelines.evaluate.published import read_judgements
from pipelines.nightly.models import Loader, Models, open_models
from pipelines.nightly.previous import Previous, find_previous
from pipelines.nightly.remote import check_remote
from pipelines.registry.resolve import Resolved, resolve_model
from pipelines.sources import Source, open_source
from pipelines.storage import filesystem, runs
from pipelines.storage.vectors import FOLDER as VECTORS
from rerank_core.config.night import Config, change_paths, require, window
from rerank_core.config.operation import OPERATION
from rerank_core.evaluation.measures import Level
from rerank_core.evaluation.qrels import Qrels
from rerank_core.inference.model_folder import file_digest
from rerank_core.mining.labels import load_judgements
from rerank_core.querylog.events import Window
from rerank_core.text import fingerprint


@dataclasses.dataclass(frozen=True)
class Run:
    """Which run this is, and where it writes until it is published."""

    run_id: str
    run_date: str  # YYYY-MM-DD, the last day of the log's window
    window: Window | None  # None: the log has no times
    staging: str
    progress: str | None  # folder of the progress files; None: workers on other machines cannot write there
    finish_by: datetime.datetime | None = None  # with a time zone; None: no deadline
    vectors: str | None = None  # folder of the vectors that nights keep; None: none are kept


@dataclasses.dataclass(frozen=True)
class Night:
    """All that the graph of a night is built from."""

    config: Config
    run: Run
    source: Source
    source_record: dict[str, Any]  # the source as the manifest shows it
    models: Models
    previous: Previous
    judged: dict[Level, Qrels]
    registered: Resolved  # the model's entry in the registry, if it is from there
    labels: dict[str, str]  # SHA-256 of each label file, by its path

    @property
    def sample_queries(self) -> int:
        """Queries of the cascade's sample; 0 without a cascade."""
        return self.config.cascade.sample_queries if self.config.cascade.enabled else 0


def prepare(
    config: Config,
    *,
    run_date: datetime.date,
    options: PipelineOptions,
    load: Loader | None = None,
    finish_by: datetime.datetime | None = None,
    every_byte: bool = False,
) -> Night:
    """Check all that a night needs before it starts, and name the run.

    Args:
        config: the night's configuration.
        run_date: last day of the log's window.
        options: Beam's.
        load: makes the scorer, in place of the configured model.
        finish_by: by when the run must be published.
        every_byte: read the files of the run that is reused whole in an object store, too.

    Raises:
        ConfigError, SourceError, ModelError, JudgementError: the night cannot start.
    """
    require(config, "output.path")
    check_remote(config, options)
    span = window(run_date, config.log.window_days) if config.log.fields.timestamp else None
    source = open_source(config, window=span)
    judged = read_judgements(config.evaluation)
    load_judgements(config.labels, opener=filesystem.open_binary)  # checked here, read again by the workers
    source_record = source.describe()
    registered = Resolved(config)
    if load is None:
        registered = resolve_model(config)
        config = autotune.resolve(registered.config, local=is_local_run(options))
    models = open_models(config, options, load=load)
    labels = _label_files(config)
    previous = find_previous(
        config,
        models.scorer.fingerprint,
        facts_fingerprint=models.tagger.facts_fingerprint if models.tagger else None,
        first_stage_fingerprint=models.first_stage_fingerprint,
        calibration_record=models.calibration_record,
        lists_until=run_date.isoformat() if finish_by else "",
        every_byte=every_byte,
    )
    day = run_date.isoformat().replace("-", "")  # not strftime, whose year 1 has one digit
    identity = _identity(config, source_record, models, previous, labels=labels, cut=finish_by is not None)
    run_id = f"{day}-{identity[:12]}"
    staging = runs.place(config.output.path, run_date.isoformat(), run_id, cut=finish_by is not None)
    local = is_local_run(options) and filesystem.is_local(config.output.path)
    progress = filesystem.join(staging, "_progress") if local else None
    kept = local and config.reuse.enabled and config.reuse.vectors_mb
    vectors = filesystem.join(config.output.path, VECTORS) if kept else None
    run = Run(run_id, run_date.isoformat(), span, staging, progress, finish_by, vectors)
    return Night(config, run, source, source_record, models, previous, judged, registered, labels)


def inputs_fingerprint(
    config: Config, source: Mapping[str, Any], models: Models, *, labels: Mapping[str, str]
) -> str:
    """Hash of everything that determines the rows of a night but its date and the run that it reuses.

    "" if the source has no fingerprints of its log and its index: nothing says then that they are the same.
    """
    if not (source.get("log_fingerprint") and source.get("index_fingerprint")):
        return ""
    return _identity(config, source, models, Previous(None), labels=labels, cut=False)


def _identity(
    config: Config,
    source: Mapping[str, Any],
    models: Models,
    previous: Previous,
    *,
    labels: Mapping[str, str],
    cut: bool,
) -> str:
    """Hash of everything that determines the rows of a night.

    So a night that was interrupted and is started again writes the same bytes under the same id; with a deadline it
    does if it reaches the same queries.

    Args:
        cut: there is a deadline, and what is not reached keeps its earlier list.
    """
    return fingerprint(
        pipelines.__version__,
        _rows_config(config),
        models.scorer.fingerprint,
        models.first_stage_fingerprint,
        repr(models.calibration),
        repr(models.fusion),
        *([f"top {models.fusion.top}"] if models.fusion and models.fusion.top else []),
        models.tagger.fingerprint if models.tagger else "",
        previous.run_id or "",
        *(f"{key}={value}" for key, value in sorted(source.items()) if key.endswith("_fingerprint")),
        *labels.values(),
        *([f"lists of {previous.lists.run_id}"] if cut else []),
    )


def _rows_config(config: Config) -> str:
    """The sections of the configuration that decide the rows, without locations."""
    without = _without_paths(config)
    sections = (field.name for field in dataclasses.fields(without) if field.name not in OPERATION)
    return "Config(" + ", ".join(f"{name}={getattr(without, name)!r}" for name in sections) + ")"


def _without_paths(config: Config) -> Config:
    """The configuration without locations: the same night in another folder is the same night."""
    config = dataclasses.replace(config, tags=dataclasses.replace(config.tags, recogniser_model=""))
    return change_paths(config, lambda _: "")


def _label_files(config: Config) -> dict[str, str]:
    """Hashes of the label files, which decide what is mined, by their paths."""
    labels = config.labels
    read = {"clicks": 0, "answers": 1}.get(labels.source, 2)  # the others may not exist
    return {
        path: file_digest(Path(path)) if filesystem.is_local(path) else filesystem.sha256(path)
        for number, path in enumerate((labels.queries, labels.qrels))
        if path and (number < read or (filesystem.is_local(path) and Path(path).is_file()))
    }
