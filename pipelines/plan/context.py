"""What the steps of a night share: its configuration, what was done already, and the run that it is about."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Sequence

from pipelines.nightly.models import Loader
from pipelines.nightly.progress import Progress
from rerank_core.config.night import Config
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord, StepRecord


@dataclasses.dataclass
class Context:
    """One night. `record` and `manifest` change as its steps are done."""

    config: Config
    run_date: datetime.date
    record: PlanRecord
    manifest: Manifest | None = None  # of the run of this date, published or held; None: there is none
    forced: frozenset[str] = frozenset()  # steps that are run though they were done
    only: str = ""  # the only step that is run, on whatever day
    beam_flags: Sequence[str] = ()
    load: Loader | None = None
    show: Callable[[Progress], None] | None = None
    set_latest: bool = False
    finish_by: datetime.datetime | None = None
    began: tuple[datetime.datetime, float] = dataclasses.field(
        default_factory=lambda: (datetime.datetime.now(datetime.UTC), time.monotonic())
    )

    def now(self) -> datetime.datetime:
        """This moment (UTC), but not later than the time that has passed since the night began.

        So a clock that is set forward in the meantime ends no reader's grace.
        """
        wall, ticks = self.began
        passed = datetime.timedelta(seconds=time.monotonic() - ticks)
        return min(datetime.datetime.now(datetime.UTC), wall + passed)

    @property
    def output(self) -> str:
        """The output folder."""
        return self.config.output.path

    @property
    def run(self) -> Manifest:
        """The manifest of the run that a step is about; steps without one are not run."""
        assert self.manifest is not None
        return self.manifest

    def put(self, step: StepRecord, order: Sequence[str]) -> None:
        """Replace a step's record."""
        steps = {known.name: known for known in self.record.steps} | {step.name: step}
        ordered = tuple(steps[name] for name in order if name in steps)
        self.record = dataclasses.replace(self.record, steps=ordered)
