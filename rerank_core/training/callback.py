"""What is done while a stage trains: figures, the measurement at the end of an epoch, the best model, an early end."""

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
from rerank_core.training.metrics_log import Figures, Line
from rerank_core.training.schedule import Schedule

Tell = Callable[[Line], None]


class Plan(NamedTuple):
    """One stage's work, laid out."""

    number: int  # from 0
    stage: TrainingStage
    examples: Schedule
    files: tuple[GroupFile, ...]  # by Schedule.source
    steps: int  # optimizer steps
    epoch_steps: float  # of an epoch
    ends: dict[int, float]  # step -> epochs done by then, where the model is measured
    dev: DevSet | None


class Watch(transformers.TrainerCallback):
    """Writes figures, measures after an epoch, keeps the best model, and ends a stage that gains no more.

    Of several processes the main one does so, and the others end the stage when it does.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        *,
        place: Path,
        figures: Figures,
        tell: Tell,
        patience: int,
        processes: Processes = ALONE,
    ) -> None:
        self._plan, self._weights, self._place, self._patience = plan, weights, place, patience
        self._figures, self._tell, self._processes = figures, tell, processes

    @property
    def best(self) -> Line | None:
        """The line of the best measurement of the stage itself."""
        return max(self._measured(), key=lambda one: (one[MEASURE], -one["step"]), default=None)

    def measure(self, step: int, epoch: float) -> None:
        """Measure the model, write the line, and keep the weights if none were better."""
        assert self._plan.dev is not None
        stage, best = self._plan.stage, self.best
        found = measure_model(self._weights.model, self._plan.dev, tagged=stage.tags.policy == "keep")
        better = step > 0 and (best is None or found[MEASURE] > best[MEASURE])
        if better:
            self._weights.save_complete(self._place / f"best-{step}")
        line = self._figures.add(
            "dev", stage.name, step, epoch=epoch, dev=self._plan.dev.name, best=better, **found
        )
        self._tell(line)

    @property
    def finished(self) -> bool:
        """Whether `patience` measurements in a row brought nothing better."""
        since = sum(one["step"] > self.best["step"] for one in self._measured()) if self.best else 0
        return 0 < self._patience <= since

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step not in self._plan.ends:
            return
        control.should_save = True
        if self._plan.dev is None:
            return
        if self._processes.main:
            self.measure(state.global_step, self._plan.ends[state.global_step])
        if self._processes.agree(self.finished):
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
            "loss", stage.name, step, epoch=round(done, 4), loss=logs["loss"], lr=logs["learning_rate"],
            steps=self._plan.steps,
        )  # fmt: skip
        self._tell(line)

    def _measured(self) -> list[Line]:
        return [one for one in self._figures.of("dev", self._plan.stage.name) if one["step"] > 0]
