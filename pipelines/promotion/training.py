"""The training of a night: a candidate model from published runs, in the registry.

It trains in OUTPUT.candidate beside the `output` of the training's TOML, which is left alone: killed, it is resumed
from there by the next start, whichever night that is. A finished model gets the calibration and the fusion weights that
are fitted on the training's dev set, is added to the registry, and removed from there.
"""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from pathlib import Path
from typing import Any

from pipelines.evaluate.calibrate import calibrate
from pipelines.evaluate.fuse import fuse
from pipelines.evaluate.scores import Count
from pipelines.registry.entry import Entry
from pipelines.registry.lineage import portable, read_lineage
from pipelines.registry.resolve import PREFIX, resolve, with_model
from pipelines.registry.store import Registry
from pipelines.train.dev_sets import SPLITS
from pipelines.train.run import LAST, WORK, train
from rerank_core.config.night import Config
from rerank_core.config.training import TrainingConfig, load_training_config, to_dict
from rerank_core.errors import CalibrationError, ConfigError, FusionError
from rerank_core.files import read_text
from rerank_core.scoring.load import DEFAULT_MODEL, gives_logits
from schemas.parsing import parse_json

Result = dict[str, Any]
PLACES = ("model", "output")
"""Fields in which two starts of one training may differ."""


def train_candidate(
    config: Config, registry: Registry, *, run_date: datetime.date, on_progress: Count = lambda groups: None
) -> Result:
    """Train, or resume, and add the model to the registry; done for this run date, only its entry is returned.

    Raises:
        ConfigError: the training's TOML cannot be used.
        ...: as `pipelines.train.run.train`.
    """
    day, notes = run_date.isoformat(), list[str]()
    training = _configured(config)
    folder = Path(training.output)
    entry = _added(registry, training, day)
    if entry is None:
        _add_another(registry, training, folder)
        if not (folder / LAST).exists():
            train(
                _resumed(config, training, folder, notes),
                command=f"nightrank nightly, plan.train = {Path(config.plan.train).name}",
                toml=read_text(Path(config.plan.train)),
                resume=True,
                on_progress=on_progress,
            )
        notes += _fit(config, training, folder)
        entry = registry.add(
            folder, dataclasses.replace(read_lineage(folder, registry.known()), run_date=day)
        )
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "model": entry.id,
        "state": entry.state,
        "runs": [dataclasses.asdict(run) for run in entry.lineage.runs],
        "parent": dataclasses.asdict(entry.lineage.parent) if entry.lineage.parent else None,
        "figures": list(entry.lineage.figures),
        "notes": notes,
    }


def _configured(config: Config) -> TrainingConfig:
    """The training's TOML, with a folder for "registry:..." and one beside its output to train in.

    Raises:
        ConfigError: it cannot be used.
    """
    training = load_training_config(config.plan.train)
    model = training.model
    if model.startswith(PREFIX):
        model = resolve(with_model(config, model)).scoring.model or str(DEFAULT_MODEL)
        if not (any(Path(model).glob("*.safetensors")) or gives_logits(model)):
            raise ConfigError(
                f"{config.plan.train}: model = {training.model!r} is {model}, which has no safetensors to train from; "
                "name a base model, until a trained one serves"
            )
    return dataclasses.replace(training, model=model, output=f"{training.output}.candidate")


def _added(registry: Registry, training: TrainingConfig, day: str) -> Entry | None:
    """The model that was trained for this run date already."""
    wanted = _same(portable(training))
    for entry in registry.entries():
        if entry.lineage.run_date == day and _same(entry.lineage.training or {}) == wanted:
            return entry
    return None


def _same(portable_config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in portable_config.items() if name not in PLACES}


def _add_another(registry: Registry, training: TrainingConfig, folder: Path) -> None:
    """Add the finished model of an earlier start whose TOML was another one: it was trained, and is not lost."""
    if (folder / LAST).exists() and not (folder / WORK).exists():
        lineage = read_lineage(folder, registry.known())
        if _same(lineage.training or {}) != _same(portable(training)):
            registry.add(folder, lineage)
            shutil.rmtree(folder)


def _resumed(config: Config, training: TrainingConfig, folder: Path, notes: list[str]) -> TrainingConfig:
    """The training as its unfinished one was begun; an unfinished one of another configuration is removed."""
    settings = folder / WORK / "settings.json"
    if not settings.exists():
        shutil.rmtree(folder, ignore_errors=True)  # it was killed before it began
        return training
    try:
        saved = parse_json(settings.read_text(encoding="utf-8"))["curriculum"]
        if load_training_config(config.plan.train).model.startswith(PREFIX):  # which may have moved since
            training = dataclasses.replace(training, model=str(saved["model"]))
        if saved == to_dict(training):
            return training
    except (ValueError, KeyError, TypeError):
        pass
    notes.append("an unfinished training of another configuration was removed")
    shutil.rmtree(folder)
    return _configured(config)


def _fit(config: Config, training: TrainingConfig, folder: Path) -> list[str]:
    """Calibration and fusion weights from the training's dev set, which is not what the gate measures on."""
    split = next((name for name in SPLITS if Path(training.dev, "qrels", f"{name}.tsv").is_file()), None)
    if not training.dev or split is None:
        return [
            "no calibration or fusion weights were fitted: the training's dev names no judged set in BEIR's layout"
        ]
    notes, dev = [], [Path(training.dev)]
    length, most = config.scoring.max_length, training.dev_queries
    try:
        if config.scoring.calibrate:
            calibrate(str(folder), dev, split=split, max_length=length, max_queries=most)
        if config.fusion.use != "off":
            encoder = config.fusion.bi_encoder
            fuse(str(folder), dev, bi_encoder=encoder, split=split, max_length=length, max_queries=most)
    except (CalibrationError, FusionError) as error:
        notes.append(str(error))
    return notes
