"""Nights that ended in every way, for the tests of alerts."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rerank_core.redact as redact
from pipelines.alerts.night import Night as Ended
from pipelines.alerts.night import end_of_night
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord, StepRecord, StepState
from tests.conftest import Night

DRIFT: dict[str, Any] = {
    "verdict": "ok",
    "reasons": [],
    "notes": [],
    "previous": None,
    "week": [],
    "measures": {
        "queries": {"tonight": 5.0, "verdict": "ok"},
        "dead_letters:ReadQueryLog/bad_json": {"tonight": 0.1, "verdict": "ok"},
    },
    "scores": {},
}
HELD = DRIFT | {
    "verdict": "hold",
    "reasons": [
        "published queries: 5 tonight (900 in run R of D), less than drift.hold.queries = 0.1 allows"
    ],
}
WARN = DRIFT | {"verdict": "warn", "reasons": ["KS distance <of> the scores & more"]}
PROBLEM = "the log gave no query: 3 events read, 3 outside the window"
ENDS: dict[str, tuple[dict[str, Any], StepState, str]] = {
    "published": (DRIFT, "done", ""),
    "warn": (WARN, "done", ""),
    "held": (HELD, "held", "run R is whole but was held back"),
    "failed": (DRIFT, "failed", PROBLEM),
}
"""By state: drift, state of the step rerank, and the problem."""

Ends = Callable[[str], Ended]


@pytest.fixture(autouse=True)
def no_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in os.environ if name.startswith("NIGHTRANK_WEBHOOK") or "proxy" in name.lower()
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(redact, "_known", None)  # what one test made known is no secret of the next
    monkeypatch.setattr(redact, "_forms", ())


def record(state: StepState, problem: str = "", *others: StepRecord) -> PlanRecord:
    rerank = StepRecord("rerank", state, problem, "k", "2026-03-09T03:00:00+00:00", 12.5, {})
    return PlanRecord("2026-03-08", (rerank, *others))


@pytest.fixture
def manifest(night: Night, tmp_path: Path) -> Manifest:
    """A published run under tmp_path/output."""
    shutil.copytree(night.output, tmp_path / "output")
    output = {"output": night.manifest.config["output"] | {"path": str(tmp_path / "output")}}
    return dataclasses.replace(night.manifest, config=night.manifest.config | output)


@pytest.fixture
def ends(manifest: Manifest) -> Ends:
    """`ends("held")`: a night that ended so."""

    def end(state: str) -> Ended:
        drift, rerank, problem = ENDS[state]
        run = None if state == "failed" else dataclasses.replace(manifest, drift=drift)
        return end_of_night(record(rerank, problem), run, problem, output=manifest.config["output"]["path"])

    return end
