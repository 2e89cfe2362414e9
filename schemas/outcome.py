"""What became of a night: the records of its steps, which resume it, and which reports and alerts read."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

StepState = Literal["done", "not_due", "held", "failed"]
"""not_due: nothing to do tonight, such as a training on other days than its own."""


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """One step of a night, as it ended last."""

    name: str
    state: StepState
    reason: str  # why it was not due, was held or failed; "" for done
    key: str  # fingerprint of its inputs: done with the same key, it is not run again
    finished_at: str  # UTC
    seconds: float
    result: dict[str, Any]  # what later steps, the report and alerts need, such as {"run_id": ...}


@dataclasses.dataclass(frozen=True)
class PlanRecord:
    """The steps of one run date, in their order."""

    run_date: str
    steps: tuple[StepRecord, ...] = ()

    def step(self, name: str) -> StepRecord | None:
        """The record of a step, if it ran."""
        return next((step for step in self.steps if step.name == name), None)
