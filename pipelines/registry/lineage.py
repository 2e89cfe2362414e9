"""training.json in a trained model's folder: what it was trained on and from, for the registry that it is added to.

Like the model card, it names folders without the place where they lie on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from pipelines.registry.entry import Lineage, Parent, TrainedOn, from_json
from pipelines.registry.model_files import files_fingerprint, model_files
from rerank_core.config.toml import STRICT
from rerank_core.config.training import TrainingConfig, split_run, to_dict
from rerank_core.errors import RegistryError

FILE = "training.json"
KINDS = ("stage", "round")
"""Lines of figures.jsonl that are kept."""


@dataclass(frozen=True, config=STRICT)
class Training:
    """The file's contents."""

    config: dict[str, Any]
    runs: tuple[TrainedOn, ...]
    parent: Parent
    figures: tuple[dict[str, Any], ...]
    version: Literal[1] = 1


def write_training(
    folder: Path,
    config: TrainingConfig,
    *,
    data: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
) -> None:
    """Write the file.

    Args:
        folder: of the model.
        config: of the training.
        data: a record of each stage of each round, as `pipelines.train.data.prepare_stage` makes them.
        lines: of figures.jsonl.
    """
    runs = {
        (run["output"], run["run_id"]): {
            "output": Path(run["output"]).name,
            "run_id": run["run_id"],
            "run_date": run["run_date"],
        }
        for record in data
        for run in record["runs"]
    }
    contents = {
        "version": 1,
        "config": portable(config),
        "runs": [runs[key] for key in sorted(runs)],
        "parent": {"name": portable(config)["model"], "fingerprint": _fingerprint(Path(config.model))},
        "figures": [dict(line) for line in lines if line["kind"] in KINDS],
    }
    (folder / FILE).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def portable(config: TrainingConfig) -> dict[str, Any]:
    """The configuration without the places of folders: the same training on another machine is the same."""
    raw = to_dict(config)
    raw |= {key: _name(raw[key]) for key in ("model", "output", "dev", "tensorboard")}
    for stage in raw["stages"]:
        stage |= {"runs": list(map(_name, stage["runs"])), "dev": _name(stage["dev"])}
    raw["remining"] = json.loads(json.dumps(raw["remining"]), object_hook=_without_places)
    return raw


def read_lineage(folder: Path, known: Mapping[str, str]) -> Lineage:
    """The lineage of a trained model; an empty one for a model from elsewhere.

    Args:
        folder: of the model.
        known: ids of the registry's models, by fingerprint.

    Raises:
        RegistryError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return Lineage()
    training = from_json(
        Training, path.read_bytes(), path=str(path), remedy="remove it: the model then has no lineage"
    )
    found = training.parent
    parent = Parent(found.name, known.get(found.fingerprint, ""), found.fingerprint)
    return Lineage(training.runs, training.config, parent, training.figures)


def _fingerprint(base: Path) -> str:
    try:
        return files_fingerprint(model_files(base))
    except RegistryError:  # a name on a hub
        return ""


def _name(value: Any) -> Any:
    """The last part of an absolute path, with a run's id; any other value as it is."""
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    folder, run_id = split_run(value)
    return f"{Path(folder).name}@{run_id}" if run_id else Path(folder).name


def _without_places(table: dict[str, Any]) -> dict[str, Any]:
    return {key: _name(value) for key, value in table.items()}
