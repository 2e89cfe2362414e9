"""The figures of a training once more, as event files that TensorBoard shows: a run a stage, within one folder.

They are made from the lines of figures.jsonl. Those are the record: when they go back to a checkpoint, the event files
are written anew from them, so that no reader sees a step twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from rerank_core.errors import TrainingError
from rerank_core.training.metrics_log import Line

EVENTS = "events.out.tfevents.*"


class Board:
    """Event files of a training, in FOLDER/STAGE/."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def start(self, lines: Sequence[Line]) -> None:
        """Hold these lines alone.

        Raises:
            TrainingError: the folder holds another training's events; the folder cannot be written.
        """
        found = sorted(self._folder.glob(f"*/{EVENTS}"))
        if found and not lines and not self._writers:
            raise TrainingError(
                f"tensorboard: {self._folder} holds the events of another training; name another folder, or remove it"
            )
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        for path in found:
            path.unlink()
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        """Write what a line measures: "loss" and "lr", a dev set's measures, or a stage's last figures."""
        prefix = "" if line["kind"] == "loss" else f"{line['kind']}/"
        writer = self._writer(line["stage"])
        for name, value in line.items():
            if isinstance(value, float) and name != "epoch":  # counts are no curves
                writer.add_scalar(prefix + name, value, line["step"])
        writer.flush()

    def _writer(self, stage: str) -> Any:
        if stage not in self._writers:
            try:
                self._writers[stage] = SummaryWriter(str(self._folder / stage))
            except OSError as error:
                raise TrainingError(
                    f"tensorboard: cannot write to {self._folder}: {error.strerror}; name another folder"
                ) from None
        return self._writers[stage]
