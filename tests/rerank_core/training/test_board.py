"""TensorBoard's event files say what figures.jsonl says, after a kill too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rerank_core.errors import TrainingError
from rerank_core.training.metrics_log import Line, MetricsLog

pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'nightrank[tensorboard]'")
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from rerank_core.training.board import Board


def points(folder: Path) -> list[tuple[str, str, int, float]]:
    """(stage, name, step, value) of all event files, in their order."""
    found = []
    for path in sorted(folder.glob("*/events.*")):
        for event in EventFileLoader(str(path)).Load():
            for one in event.summary.value:
                (value,) = one.tensor.float_val
                found.append((path.parent.name, one.tag, event.step, value))
    return found


def wanted(lines: list[Line]) -> list[tuple[str, str, int, float]]:
    """What the figures' losses, learning rates and measures are as points."""
    made = []
    for line in lines:
        prefix = "" if line["kind"] == "loss" else f"{line['kind']}/"
        made += [
            (line["stage"], prefix + name, line["step"], float(np.float32(value)))
            for name, value in line.items()
            if isinstance(value, float) and name != "epoch"
        ]
    return made


def log(figures: MetricsLog, steps: range, **values: Any) -> None:
    for step in steps:
        figures.add("loss", "one", step, epoch=step / 4, loss=1 / step, lr=1e-5 * step, steps=9)
        if step % 2 == 0:
            more = {"nDCG@10": step / 7, "mrr": 0.5, **values}
            figures.add("dev", "one", step, epoch=step / 4, dev="set", best=True, **more)


def test_points_are_the_figures(tmp_path: Path) -> None:
    figures = MetricsLog(tmp_path / "figures.jsonl", board=Board(tmp_path / "board"))
    log(figures, range(1, 5))
    figures.add("loss", "two", 1, epoch=0.5, loss=0.25, lr=1e-4, steps=2)
    found = points(tmp_path / "board")
    assert sorted(found) == sorted(wanted(figures.lines))
    assert ("one", "dev/nDCG@10", 2, float(np.float32(2 / 7))) in found


def test_a_resumed_training_has_no_point_twice(tmp_path: Path) -> None:
    log(MetricsLog(tmp_path / "figures.jsonl", board=Board(tmp_path / "board")), range(1, 6))

    figures = MetricsLog(tmp_path / "figures.jsonl", board=Board(tmp_path / "board"))
    figures.rewind("one", 3)
    log(figures, range(4, 8))

    assert [one[2] for one in points(tmp_path / "board") if one[1] == "loss"] == list(range(1, 8))
    assert sorted(points(tmp_path / "board")) == sorted(wanted(figures.lines))


def test_the_events_of_another_training_are_not_touched(tmp_path: Path) -> None:
    log(MetricsLog(tmp_path / "figures.jsonl", board=Board(tmp_path / "board")), range(1, 3))
    before = points(tmp_path / "board")
    with pytest.raises(TrainingError, match="has the events of another training; name another folder"):
        MetricsLog(tmp_path / "other.jsonl", board=Board(tmp_path / "board"))
    assert points(tmp_path / "board") == before
