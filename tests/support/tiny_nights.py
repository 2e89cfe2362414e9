"""Trainings of a tiny BERT over the tests' published night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerank_core.config.training import TrainingConfig, parse_training_config

KEEP = {"policy": "keep", "tag_dropout": 0.2, "tag_shuffle": 0.2}


def make_training(night: Path, base: Path, folder: Path, **fields: Any) -> TrainingConfig:
    """One stage over a night's output, from `base` into `folder`/model; fields of the stage are in `stage`."""
    stage = {"name": "one", "runs": [str(night)], "tags": KEEP, "epochs": 2, **fields.pop("stage", {})}
    raw = {"model": str(base), "output": str(folder / "model"), "max_length": 48, "log_steps": 1, **fields}
    return parse_training_config({"stages": [stage]} | raw)


def as_toml(config: TrainingConfig) -> str:
    """A configuration of `make_training` without further fields, as a file."""
    (stage,) = config.stages
    return (
        f'model = "{config.model}"\noutput = "{config.output}"\nmax_length = 48\nlog_steps = 1\n'
        f'checkpoint_steps = {config.checkpoint_steps}\nseed = 7\n[[stages]]\nname = "one"\n'
        f'runs = ["{stage.runs[0]}"]\nepochs = 2\n'
        '[stages.tags]\npolicy = "keep"\ntag_dropout = 0.2\ntag_shuffle = 0.2\n'
    )
