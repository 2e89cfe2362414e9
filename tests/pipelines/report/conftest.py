"""Nights of every kind that a report is of."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.nightly.run import run
from pipelines.storage.held import hold
from pipelines.storage.plan_records import write_plan
from pipelines.storage.runs import moved, run_path, staging
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord, StepRecord
from tests.conftest import Night
from tests.support.fakes import fake
from tests.support.hostile import hostile_night
from tests.support.tiny import DAY, GOOD_LOG, Tiny, make_config, write_lines
from tests.support.tiny_set import write_set

MEASURE = {"tonight": 0.31, "previous": 0.02, "median": 0.02, "difference": 0.29, "warn": 0.1, "hold": 0.25}
DRIFT = {
    "verdict": "hold",
    "reasons": ["PSI of the scores is 0.31, more than 0.25.", "Candidates per query fell to half."],
    "previous": None,
    "week": [],
    "measures": {
        "queries": MEASURE | {"verdict": "ok", "hold": None},
        "score_psi": MEASURE | {"verdict": "hold"},
        "dead_letters:ReadQueryLog/bad_json": MEASURE | {"verdict": "warn"},
    },
}
DECISIONS: list[dict[str, Any]] = [
    {
        "number": 1,
        "at": "2026-03-08T04:00:00+00:00",
        "action": "rejected",
        "model": "20260308-0123456789ab",
        "reason": "nDCG@10 fell by 0.031 on the set nq, more than 0.005",
        "checks": (
            {"name": "nq", "value": -0.031, "limit": -0.005, "passed": False, "sentence": "worse on nq"},
        ),
        "run_date": "2026-03-08",
    }
]
MODEL: dict[str, Any] = {
    "id": "20260301-aaaaaaaaaaaa",
    "state": "serving",
    "history": [{"state": "serving", "at": "2026-03-01T05:00:00+00:00", "reason": ""}],
    "lineage": {
        "parent": {"name": "default", "model": "", "fingerprint": "f"},
        "runs": [{"output": "out", "run_id": "20260228-bbbbbbbbbbbb", "run_date": "2026-02-28"}],
        "figures": [
            {"kind": "stage", "stage": "one", "step": 40, "loss": 0.21, "nDCG@10": 0.81, "forgotten": 0.012}
        ],
    },
}


@pytest.fixture
def published(night: Night, tmp_path: Path) -> Night:
    """A copy of the whole log's night."""
    shutil.copytree(night.output, tmp_path / "output")
    return Night(night.config, tmp_path / "output", night.manifest)


def judged_night(tiny: Tiny, folder: Path, /, **sections: dict[str, Any]) -> tuple[Path, Manifest]:
    """A night with judgements, a night after it with more candidates, and the record of its steps."""
    judged = write_set(folder / "tiny")
    evaluation = {"queries": str(judged / "queries.jsonl"), "qrels": str(judged / "qrels" / "dev.tsv")}
    output = folder / "output"
    for top_k, log in ((3, GOOD_LOG[:4]), (8, GOOD_LOG)):
        path = write_lines(folder / f"log{top_k}.jsonl", log)
        base: dict[str, dict[str, Any]] = {
            "source": {"log": str(path)},
            "candidates": {"top_k": top_k},
            "evaluation": evaluation,
        }
        merged = {name: base.get(name, {}) | sections.get(name, {}) for name in base.keys() | sections.keys()}
        manifest = run(make_config(tiny, output, **merged), run_date=DAY, load=fake())
    step = StepRecord("rerank", "done", "", "k", "2026-03-09T03:00:00Z", 1.5, {"run_id": manifest.run_id})
    failed = dataclasses.replace(step, name="train", state="failed", reason="no <b>disk</b> left", result={})
    write_plan(str(output), PlanRecord(manifest.run_date, (step, failed)))
    return output, manifest


def held_night(night: Night, folder: Path) -> tuple[Path, Manifest]:
    """A night that was held back, after one that was published."""
    output = folder / "output"
    shutil.copytree(night.output, output)
    date, run_id = "2026-03-09", "20260309-held"
    manifest = dataclasses.replace(
        moved(night.manifest, run_path(date, run_id)),
        run_id=run_id,
        run_date=date,
        drift=DRIFT,
        stale={"2026-03-08": 2},
    )
    for name, info in night.manifest.tables.items():
        shutil.copytree(night.output / info.path, Path(staging(str(output), manifest.run_id)) / name)
    hold(str(output), manifest)
    return output, manifest


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Output folder and manifest of a night of hostile texts. Read only."""
    return hostile_night(tmp_path_factory.mktemp("hostile"))


Kinds = Callable[[str], tuple[Path, Manifest, bool]]


@pytest.fixture(scope="session")
def kinds(
    tiny: Tiny, night: Night, hostile: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Kinds:
    """`kinds(name)`: (output, manifest, held) of a kind of night, made when it is first asked for. Read only."""

    def made(name: str, **sections: dict[str, Any]) -> tuple[Path, Manifest, bool]:
        output = tmp_path_factory.mktemp(name) / "output"
        return output, run(make_config(tiny, output, **sections), run_date=DAY, load=fake()), False

    def first() -> tuple[Path, Manifest, bool]:  # a copy, in which the report may be written
        return (
            shutil.copytree(night.output, tmp_path_factory.mktemp("first") / "output"),
            night.manifest,
            False,
        )

    nothing = {"labels": {"min_clicks": 9}, "evidence": {"top_n": 0}, "tags": {"enabled": False}}
    recipes: dict[str, Callable[[], tuple[Path, Manifest, bool]]] = {
        "judged": lambda: (*judged_night(tiny, tmp_path_factory.mktemp("judged")), False),
        "first": first,
        "held": lambda: (*held_night(night, tmp_path_factory.mktemp("held")), True),
        "empty": lambda: made("empty", **nothing, mining={"enabled": False}),
        "ids": lambda: made("ids", output={"store_text": False}),
        "cut": lambda: (*judged_night(tiny, tmp_path_factory.mktemp("cut"), ranking={"top_n": 2}), False),
        "sentences": lambda: made("sentences", candidates={"unit": "sentence"}, labels={"debias": True}),
        "hostile": lambda: (*hostile, False),
    }
    return functools.cache(lambda name: recipes[name]())
