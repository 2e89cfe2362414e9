"""What needs a person: everything that is out of order, once, with its remedy; and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.nightly.manifest import COUNTED, EXPLAINED
from pipelines.report.remedies import DEGRADED
from pipelines.report.verdict import STEP_NAMES, Gain, gain_over_bm25, tasks
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord, StepRecord
from tests.conftest import Night
from tests.pipelines.report.conftest import DECISIONS, DRIFT

HITLESS = {"FetchCandidates/no_candidates": 1}  # a fact about the index, not a failure
STEP = StepRecord(
    "promote", "done", "", "k", "2026-03-09T03:00:00Z", 1.0, {"promoted": False, "model": "m", "reason": "r"}
)


def quiet(night: Night, **changes: object) -> Manifest:
    """The tiny night without anything out of order."""
    balance = dataclasses.replace(night.manifest.balance, events={"read": 7, "kept": 7})
    calm: dict[str, Any] = {
        "balance": balance,
        "rejected": HITLESS,
        "degraded": {"truncated_pairs": 0},
        "drift": None,
    }
    return dataclasses.replace(night.manifest, **calm | changes)


def with_others(step: StepRecord) -> PlanRecord:
    """The record of a night in which all other steps were not due."""
    names = [name for name in STEP_NAMES if name not in (step.name, "report")]
    others = [dataclasses.replace(STEP, name=name, state="not_due", result={}) for name in names]
    return PlanRecord("2026-03-08", (*others, step))


Decisions = Sequence[Mapping[str, Any]]


def told(
    manifest: Manifest,
    *,
    held: bool = False,
    plan: PlanRecord | None = None,
    decisions: Decisions = (),
) -> list[str]:
    return [task.what for task in tasks(manifest, held=held, plan=plan, decisions=list(decisions))]


def test_every_entry_of_degraded_has_its_meaning() -> None:
    known = {*COUNTED, *EXPLAINED, "no_text", "queries_without_candidates", "replaced"}
    assert known == set(DEGRADED)


def test_a_night_in_order_needs_nobody(night: Night) -> None:
    assert told(quiet(night)) == []


def test_each_thing_that_is_out_of_order_is_told_once(night: Night) -> None:
    assert told(quiet(night, drift=DRIFT), held=True) == ["Held back", "Beyond the limit that holds", "Drift"]
    assert told(quiet(night, degraded={"row_by_row": "slow", "truncated_pairs": 9})) == [
        "Row by row",
        "Truncated pairs",
    ]
    assert told(quiet(night, degraded={"deadline": "came"}, stale={"2026-03-07": 2})) == [
        "Lists of an earlier night"
    ]
    assert told(quiet(night), decisions=DECISIONS) == [
        "Candidate model 20260308-0123456789ab was not promoted"
    ]
    refused = with_others(STEP)
    assert told(quiet(night), plan=refused) == ["Candidate model m was not promoted"]
    same = [DECISIONS[0] | {"model": "m"}]
    assert told(quiet(night), plan=refused, decisions=same) == ["Candidate model m was not promoted"]
    assert told(quiet(night), decisions=[DECISIONS[0] | {"run_date": "2026-03-01"}]) == []
    failed = dataclasses.replace(STEP, name="publish_back", state="failed", reason="no cluster", result={})
    assert told(quiet(night), plan=with_others(failed)) == ["Publishing back to the search cluster failed"]
    metrics = {
        "document": {
            "queries": 9.0,
            "gain nDCG@10": -0.1,
            "gain nDCG@10 low": -0.2,
            "gain nDCG@10 high": -0.01,
        }
    }
    assert told(quiet(night, metrics=metrics)) == ["Worse than BM25"]
    assert told(dataclasses.replace(quiet(night), balance=night.manifest.balance)) == ["Dead letters"]


def test_a_gain_is_better_or_worse_only_beyond_its_interval(night: Night) -> None:
    assert Gain(0.1, 0.02, 0.2, 9).verdict == "better"
    assert Gain(-0.1, -0.2, -0.02, 9).verdict == "worse"
    assert Gain(0.1, -0.02, 0.2, 9).verdict == Gain(0.1, None, None, 1).verdict == "open"
    assert gain_over_bm25(night.manifest) is None
