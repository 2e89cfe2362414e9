"""Nights of the command line, one after another: their exit codes, and what the morning's files and messages say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.alerts.webhook import VARIABLE
from pipelines.cli.app import app
from pipelines.nightly import models
from tests.support.changing import World
from tests.support.fakes import load_fake
from tests.support.receiver import Receiver, receiver

TOML = """
log.window_days = 1
candidates.top_k = 20
evidence.top_n = 0
tags.recogniser = "rules"
source.log = "log.jsonl"
source.index = "index"
output.path = "output"
alerts.prometheus = "nightrank.prom"
alerts.summary = "night.json"
alerts.webhook_on = ["published", "warn", "held", "failed"]
"""


class Scheduler:
    """Starts nights as cron would, and reads what they left."""

    def __init__(self, world: World, hook: Receiver) -> None:
        self.world, self.hook = world, hook
        (world.folder / "night.toml").write_text(TOML)

    def night(self, number: int, **inputs: Any) -> tuple[int, dict[str, Any], str, str]:
        """(exit code, summary, text of the message, standard error) of a night."""
        self.world.write(number, **inputs)
        day, before = self.world.day(number).isoformat(), len(self.hook.received)
        arguments = [
            "nightly",
            "--config",
            str(self.world.folder / "night.toml"),
            "--run-date",
            day,
            "--quiet",
        ]
        done = CliRunner().invoke(app, arguments)
        assert len(self.hook.received) == before + 1
        summary = json.loads((self.world.folder / "night.json").read_text())
        assert summary["run_date"] == day
        return done.exit_code, summary, self.hook.received[-1]["text"], done.stderr

    def success(self) -> float:
        page = (self.world.folder / "nightrank.prom").read_text()
        lines = [line for line in page.splitlines() if line.startswith("nightrank_last_success_timestamp")]
        return float(lines[0].split()[1])


def test_good_held_and_failed_nights_are_told_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load_scorer", load_fake)
    world = World(tmp_path)
    with receiver() as hook:
        monkeypatch.setenv(VARIABLE, hook.url())
        scheduler = Scheduler(world, hook)
        for number in (0, 1):
            code, good, text, error = scheduler.night(number)
            assert (code, good["state"], error) == (0, "published", "")
            assert "Nothing to do." in text
        success, served = scheduler.success(), good["run"]["run_id"]

        code, held, text, error = scheduler.night(2, corpus=world.corpus(documents=8))
        assert (code, held["state"], held["serving"]["run_id"]) == (6, "held", served)
        run_id = held["run"]["run_id"]
        for told in (text, error):
            for part in (
                "drift.hold.candidate_overlap",
                f"nightrank release {world.output} {run_id}",
                served,
            ):
                assert part in told
        assert error.count("\n") == 1
        assert Path(held["paths"]["manifest"]).is_file()
        assert "_held" in held["paths"]["manifest"]

        code, failed, text, error = scheduler.night(3, log=world.log(number=0))  # of another day
        assert (code, failed["state"], failed["run"]) == (5, "failed", None)
        assert "the log gave no query" in text
        assert f"Readers keep run {served}" in text
        assert scheduler.success() == success

        code, again, text, _ = scheduler.night(4)
        assert (code, again["state"], again["serving"]["run_id"]) == (0, "published", again["run"]["run_id"])
        assert scheduler.success() > success
    everything = "".join(path.read_text() for path in tmp_path.glob("night*")) + json.dumps(hook.received)
    queries = {event["query"] for number in range(5) for event in world.log(number=number)}
    assert not [query for query in queries if query in everything]
    assert "s3cr3t-token" not in everything
