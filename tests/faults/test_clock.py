"""The clock is set forward or back around and within a night of all its steps: nothing is lost, readers see no jump."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.nightly.run import run as rerank
from pipelines.plan import run as plan
from pipelines.plan.run import Outcome, run_plan
from pipelines.plan.steps import STEPS
from pipelines.report.write import page_of_night
from pipelines.storage import retention, runs
from rerank_core.config.night import Config
from rerank_core.errors import NightHeld
from schemas.manifest import Manifest
from tests.support.clock import WallClock, settable
from tests.support.fakes import FakeScorer, fake
from tests.support.killed import Killed
from tests.support.tiny import DAY, GOOD_LOG, Tiny, make_config, make_tiny, published_bytes, rows

YEAR, DAYS = datetime.timedelta(days=366), datetime.timedelta(days=1)
IMPORTED = retention  # by a step as it runs: here before the clock is replaced
EARLIER = (DAY - 2 * DAYS, DAY - DAYS)
OPTIONS: dict[str, Any] = {"retention": {"keep_runs": 1}}  # which leaves all to the readers' grace of a day


class Jumping(FakeScorer):
    """Sets the clock as it scores."""

    def __init__(self, by: datetime.timedelta) -> None:
        super().__init__()
        self._by = by

    def score(self, pairs: Any) -> np.ndarray:
        WallClock.ahead = self._by
        return super().score(pairs)


class Night:
    """One night over a copy of the beginning, on which the clock jumps once, at a moment."""

    def __init__(self, config: Config, moment: str, by: datetime.timedelta) -> None:
        self.config, self.moment, self.by = config, moment, by
        self.disturbed = False

    def run(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Outcome:
        def jump() -> None:
            WallClock.ahead = self.by

        def work(_: Any) -> dict[str, Any]:
            if self.moment == "between two steps" and not self.disturbed:
                self.disturbed = True
                jump()
            if self.moment == "between two tries" and not self.disturbed:
                self.disturbed = True
                raise Killed
            return {}

        monkeypatch.setattr(plan, "STEPS", tuple(_with(work, step) for step in STEPS))
        if self.moment == "before":
            jump()
        load = (lambda *_: Jumping(self.by)) if self.moment == "while it scores" else fake()
        try:
            return run_plan(self.config, run_date=DAY, load=load, **options)
        except Killed:
            jump()
            return run_plan(self.config, run_date=DAY, load=fake(), **options)


def _with(work: Callable[[Any], dict[str, Any]], step: Any) -> Any:
    """The steps of a night, with a training of one line."""
    if step.name != "train":
        return step
    return step._replace(why_not=lambda _: "", inputs=lambda _: (), run=work)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def beginning(tiny: Tiny) -> Path:
    """The two nights before, each at its time."""
    output = tiny.folder / "beginning"
    with pytest.MonkeyPatch.context() as patch:
        clock = settable(patch)
        for number, day in enumerate(EARLIER):
            clock.ahead = (number - 2) * DAYS - datetime.timedelta(hours=1)
            rerank(make_config(tiny, output), run_date=day, load=fake())
    return output


@pytest.fixture
def config(tiny: Tiny, beginning: Path, tmp_path: Path) -> Config:
    return make_config(tiny, shutil.copytree(beginning, tmp_path / "output"), **OPTIONS)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[WallClock]:
    return settable(monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, beginning: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = shutil.copytree(beginning, tmp_path_factory.mktemp("undisturbed") / "output")
    manifest = rerank(make_config(tiny, output, **OPTIONS), run_date=DAY, load=fake())
    return published_bytes(output, manifest)


def dates(config: Config) -> set[str]:
    """The run dates of which a whole run is there."""
    found = set()
    for date, run_id in runs.run_ids(config.output.path):
        runs.check_run(config.output.path, runs.read_manifest(config.output.path, date, run_id))
        found.add(date)
    return found


def shown(config: Config, day: datetime.date) -> set[str]:
    """The runs that the table `reranked` shows of a date."""
    folder = Path(config.output.path, "reranked", f"run_date={day}")
    return set(pq.read_table(folder)["run_id"].to_pylist())


MOMENTS = ["before", "while it scores", "between two steps", "between two tries"]


@pytest.mark.parametrize("by", [YEAR, -YEAR], ids=["forward", "back"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_clock_that_jumps_loses_nothing(
    config: Config,
    clock: type[WallClock],
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    by: datetime.timedelta,
) -> None:
    output = Path(config.output.path)
    outcome = Night(config, moment, by).run(monkeypatch)
    assert clock.ahead == by
    assert (outcome.failures, outcome.unsent) == ((), ())
    night = outcome.manifest
    assert night
    assert published_bytes(output, night) == undisturbed
    assert runs.latest(str(output)) == night
    assert shown(config, DAY) == {night.run_id}
    # Last night's readers have their day; of the night before it theirs was over. A process that begins with a clock
    # that is ahead cannot know that the day is not over yet: its readers lose their run, and find the new one.
    over = (moment, by) == ("between two tries", YEAR)
    assert dates(config) >= ({str(DAY)} if over else {str(EARLIER[1]), str(DAY)})
    states = {step.name: step.state for step in outcome.record.steps if step.state != "not_due"}
    assert states == dict.fromkeys(("rerank", "train", "clean_up", "report"), "done")
    assert all(0 <= step.seconds < 3600 for step in outcome.record.steps)
    assert page_of_night(str(output))[0].endswith(f"run_id={night.run_id}/report.html")
    # Started again, nothing is done twice; and once somebody has set the clock right, the next night follows.
    again = run_plan(config, run_date=DAY, load=fake())
    assert (again.ran, again.manifest) == (("report",), night)
    clock.ahead = DAYS
    following = run_plan(config, run_date=DAY + DAYS, load=fake())
    assert not following.failures
    assert following.manifest
    assert following.manifest.previous_run_id == night.run_id
    assert runs.latest(str(output)) == following.manifest
    assert dates(config) >= {str(DAY), str(DAY + DAYS)}


@pytest.mark.parametrize("by", [YEAR, datetime.timedelta(hours=1)], ids=["a year", "an hour"])
def test_a_night_again_after_the_clock_was_set_back_is_the_newest(
    config: Config, clock: type[WallClock], tiny: Tiny, by: datetime.timedelta
) -> None:
    """Of one date the run that was published last counts for every reader, though its time would be earlier."""
    output = config.output.path
    clock.ahead = by
    first = run_plan(config, run_date=DAY, load=fake()).manifest
    clock.ahead = datetime.timedelta()
    changed = dataclasses.replace(config, candidates=dataclasses.replace(config.candidates, top_k=5))
    second = run_plan(changed, run_date=DAY, load=fake()).manifest
    assert first
    assert second
    assert runs.utc(second.created_at) > runs.utc(first.created_at)
    for options in ({}, {"only": "report"}, {"from_step": "clean_up"}):
        again = run_plan(changed, run_date=DAY, load=fake(), **options)
        assert (again.manifest, "rerank" in again.ran) == (second, False)
        assert runs.latest(output) == second
        assert shown(config, DAY) == {second.run_id}
        assert second.run_id in page_of_night(output, run_date=str(DAY))[0]


def test_a_night_held_after_the_clock_was_set_back_is_the_newest(
    config: Config, clock: type[WallClock], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.ahead = YEAR
    run_plan(config, run_date=DAY, load=fake())
    clock.ahead = datetime.timedelta()
    from pipelines.nightly import run as nightly
    from pipelines.storage.held import hold

    def hold_back(output: str, manifest: Manifest, **_: Any) -> Manifest:
        hold(output, manifest)
        raise NightHeld(f"run {manifest.run_id} is held", manifest)

    name = "publish_or_hold" if hasattr(nightly, "publish_or_hold") else "publish"
    monkeypatch.setattr(nightly, name, hold_back)
    changed = dataclasses.replace(config, candidates=dataclasses.replace(config.candidates, top_k=5))
    held = run_plan(changed, run_date=DAY, load=fake()).manifest
    assert held
    assert held.run_id in page_of_night(config.output.path)[0]


@pytest.mark.parametrize(("hours", "stale"), [(2, True), (-2, False)])
def test_a_deadline_that_the_clock_jumps_over_keeps_last_nights_lists(
    config: Config, monkeypatch: pytest.MonkeyPatch, hours: int, stale: bool
) -> None:
    """Set forward past the deadline while it scores, the night publishes what it has; set back, all."""
    settable(monkeypatch, everywhere=False)
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    night = Night(config, "while it scores", datetime.timedelta(hours=hours))
    outcome = night.run(monkeypatch, finish_by=until)
    manifest = outcome.manifest
    assert not outcome.failures
    assert manifest
    listed = {row["query_id"] for row in rows(Path(config.output.path), manifest)}
    asked = {one["query"].lower().strip("?") for one in GOOD_LOG}
    new = manifest.rejected.get("FindLists/not_reached", 0)  # which last night's log did not have
    assert len(listed) == manifest.balance.lists == len(asked) - new
    assert new == stale
    assert bool(manifest.stale) is stale
    page = page_of_night(config.output.path)[1]
    assert ("Lists of an earlier night" in page) is stale
