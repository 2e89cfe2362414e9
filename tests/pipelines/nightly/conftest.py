"""A folder with a published night, and nights that a deadline cuts off."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.nightly.run import run
from schemas.manifest import Manifest
from tests.conftest import MakeConfig, Night
from tests.support.clock import FINISH_BY, Clock, stand_still
from tests.support.cut_off import ASKED, MakeNight
from tests.support.fakes import FakeScorer
from tests.support.tiny import DAY, event, write_lines


@pytest.fixture
def started(night: Night, tmp_path: Path) -> Path:
    """A copy of the output folder that already holds the whole log's night."""
    shutil.copytree(night.output, tmp_path / "output")
    return tmp_path / "output"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Both clocks of a deadline, which stand still."""
    return stand_still(monkeypatch)


@pytest.fixture
def a_night(make_config: MakeConfig, tmp_path: Path, clock: Clock) -> MakeNight:
    """`a_night(load, asked, ...)`: a night with that log; evidence is off, so that the model scores pairs alone."""

    def make(
        load: Callable[[], FakeScorer],
        asked: dict[str, int] = ASKED,
        *,
        run_date: datetime.date = DAY,
        finish_by: datetime.datetime | None = FINISH_BY,
        **sections: Any,
    ) -> Manifest:
        events = [event(query, "dune") for query, count in asked.items() for _ in range(count)]
        log = write_lines(tmp_path / "asked.jsonl", events)
        sections = {"evidence": {"top_n": 0}, "source": {"log": str(log)}} | sections
        return run(make_config(**sections), run_date=run_date, load=load, finish_by=finish_by)

    return make
