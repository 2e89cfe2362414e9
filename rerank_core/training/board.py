"""The figures of a training as event files for TensorBoard: one run per stage, in one folder.

They are made from the lines of figures.jsonl, which are the record: when these are rewound to a checkpoint, the event
files are rewritten, so that TensorBoard shows no step twice.
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
        """Rewrite the event files so that they hold exactly these lines.

        Raises:
            TrainingError: the folder has the events of another training, or cannot be written.
        """
        old = sorted(self._folder.glob(f"*/{EVENTS}"))
        if old and not lines and not self._writers:
            raise TrainingError(
                f"tensorboard: {self._folder} has the events of another training; name another folder, or remove it"
            )
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        for path in old:
            path.unlink()
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        """Write a line's values: "loss" and "lr", a dev set's measures, or a stage's final figures."""
        prefix = "" if line["kind"] == "loss" else f"{line['kind']}/"
        writer = self._writer(line["stage"])
        for name, value in line.items():
            if isinstance(value, float) and name != "epoch":  # counts make no curves
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
