"""The trainer's callback of a stage: logs figures, measures after each epoch, keeps the best model, stops early."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import transformers

from rerank_core.config.training import TrainingStage
from rerank_core.errors import TrainingError
from rerank_core.training.dev_measure import measure_model
from rerank_core.training.dev_set import MEASURE, DevSet
from rerank_core.training.distributed import ALONE, Processes
from rerank_core.training.groups import GroupFile
from rerank_core.training.lora import Weights
from rerank_core.training.metrics_log import Line, MetricsLog
from rerank_core.training.schedule import Schedule

OnLine = Callable[[Line], None]
"""Called with each new line of figures."""


class Plan(NamedTuple):
    """The work of one stage."""

    number: int  # from 0
    stage: TrainingStage
    examples: Schedule
    files: tuple[GroupFile, ...]  # by Schedule.source
    steps: int  # optimizer steps
    epoch_steps: float  # optimizer steps of one epoch
    ends: dict[int, float]  # where the model is measured: step -> epochs finished
    dev: DevSet | None


class StageCallback(transformers.TrainerCallback):
    """Logs figures, measures after each epoch, keeps the best model, and stops a stage that no longer improves.

    With several processes the main one does this, and the others stop when it does.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        *,
        folder: Path,
        figures: MetricsLog,
        on_line: OnLine,
        patience: int,
        processes: Processes = ALONE,
    ) -> None:
        self._plan, self._weights, self._folder, self._patience = plan, weights, folder, patience
        self._figures, self._on_line, self._processes = figures, on_line, processes

    @property
    def best(self) -> Line | None:
        """The line of the stage's best measurement; the earlier of equal ones. The base model's does not count."""
        return max(self._measured(), key=lambda line: (line[MEASURE], -line["step"]), default=None)

    def measure(self, step: int, epoch: float) -> None:
        """Measure the model, log the line, and save the weights if they are the best so far."""
        assert self._plan.dev is not None
        stage, best = self._plan.stage, self.best
        measured = measure_model(self._weights.model, self._plan.dev, tagged=stage.tags.policy == "keep")
        better = step > 0 and (best is None or measured[MEASURE] > best[MEASURE])
        if better:
            self._weights.save_atomically(self._folder / f"best-{step}")
        line = self._figures.add(
            "dev", stage.name, step, epoch=epoch, dev=self._plan.dev.name, best=better, **measured
        )
        self._on_line(line)

    @property
    def finished(self) -> bool:
        """Whether the last `patience` measurements were no better than the best."""
        since = sum(line["step"] > self.best["step"] for line in self._measured()) if self.best else 0
        return 0 < self._patience <= since

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step not in self._plan.ends:
            return
        control.should_save = True
        if self._plan.dev is None:
            return
        if self._processes.main:
            self.measure(state.global_step, self._plan.ends[state.global_step])
        if self._processes.broadcast(self.finished):
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        stage, step = self._plan.stage, state.global_step
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss of stage {stage.name!r} is {logs['loss']} at step {step}; lower its lr, or set "
                "precision = 'fp32'"
            )
        if not self._processes.main:
            return
        done = min(step / self._plan.epoch_steps, stage.epochs)
        line = self._figures.add(
            "loss",
            stage.name,
            step,
            epoch=round(done, 4),
            loss=logs["loss"],
            lr=logs["learning_rate"],
            steps=self._plan.steps,
        )
        self._on_line(line)

    def _measured(self) -> list[Line]:
        return [line for line in self._figures.of("dev", self._plan.stage.name) if line["step"] > 0]
