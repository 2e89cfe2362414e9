"""What is done while a stage trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rerank_core.errors import TrainingError
from rerank_core.training.metrics_log import MetricsLog
from tests.support.tiny_training import train, training_config


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    return MetricsLog(folder / "figures.jsonl").of(kind)


def test_a_stage_without_gain_ends_and_its_best_model_stays(tmp_path: Path) -> None:
    settings = training_config(
        tmp_path, {"name": "one", "epochs": 6, "lr": 1e-9, "loss": "lambda"}, patience=2, checkpoint_steps=1
    )
    seen = []
    model = train(tmp_path, settings, on_line=seen.append)

    (done,) = lines(tmp_path, "stage")
    assert (done["step"], done["best_step"]) == (9, 3)  # of 18; measured after 3, 6 and 9
    weights, start = (
        load_file(place / "model.safetensors") for place in (model, tmp_path / "work" / "start")
    )
    assert all(torch.allclose(weights[name], start[name], atol=1e-6) for name in start)
    assert seen == MetricsLog(tmp_path / "figures.jsonl").lines


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    settings = training_config(tmp_path, {"name": "one", "loss": "margin_mse", "lr": 0.9, "epochs": 1})
    base = tmp_path / "base" / "model.safetensors"
    weights = {name: value * float("nan") for name, value in load_file(base).items()}
    from safetensors.torch import save_file

    save_file(weights, base, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="loss of stage 'one' is nan at step 1; lower its lr"):
        train(tmp_path, settings, dev=False)
