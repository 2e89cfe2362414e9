"""What alerts say: the state, what happened, what readers see, what to do."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.alerts.night import STATES, end_of_night, happened, readers, remedy, title
from schemas.manifest import Manifest
from schemas.outcome import StepRecord, StepState
from tests.pipelines.alerts.conftest import DRIFT, HELD, PROBLEM, Ends, record
from tests.support.tiny import CORPUS, QUERIES


@pytest.mark.parametrize("state", STATES)
def test_a_night_is_told_at_a_glance(ends: Ends, state: str) -> None:
    night = ends(state)
    assert night.state == state
    assert "2026-03-08" in title(night)
    assert remedy(night)
    assert happened(night)
    assert night.serving is not None
    assert readers(night).endswith(f"run {night.serving.run_id} of 2026-03-08.")


def step(name: str, state: StepState, reason: str = "") -> StepRecord:
    return StepRecord(name, state, reason, "", "", 1.0, {})


@pytest.mark.parametrize(
    ("steps", "problem", "expected"),
    [
        ((step("train", "done"), step("promote", "done")), "", "published"),
        ((step("train", "not_due", "it is a Friday"),), "", "published"),
        ((step("promote", "held", "the candidate is worse"),), "", "warn"),
        ((step("publish_back", "failed", "no connection"),), "no connection", "failed"),
        ((step("clean_up", "failed", "no space"),), "", "failed"),
    ],
)
def test_the_worst_of_the_steps_counts(
    manifest: Manifest, steps: tuple[StepRecord, ...], problem: str, expected: str
) -> None:
    night = end_of_night(record("done", "", *steps), dataclasses.replace(manifest, drift=DRIFT), problem)
    assert night.state == expected
    for one in steps:
        told = any(one.name in line and one.reason in line for line in happened(night))
        assert told == (one.state in ("held", "failed"))
    assert "tonight's run" in readers(night)


def test_a_held_night_names_reasons_the_run_in_service_and_the_way_out(ends: Ends) -> None:
    night = ends("held")
    assert night.run is not None
    assert HELD["reasons"][0] in happened(night)
    assert f"nightrank release {night.output} {night.run.run_id}" in remedy(night)
    assert night.folder.startswith("_held/")


def test_a_failed_night_says_why_and_shows_no_other_nights_run(manifest: Manifest) -> None:
    """The manifest that is given may be an earlier one of this date."""
    night = end_of_night(record("failed", PROBLEM), manifest, PROBLEM)
    assert (night.state, night.run, night.folder) == ("failed", None, "")
    assert happened(night) == [f"Step rerank failed: {PROBLEM}"]
    assert readers(night).startswith("Readers keep run")


def test_without_any_run_or_output_folder_it_still_says_what_it_knows() -> None:
    night = end_of_night(record("failed", PROBLEM), None, PROBLEM)
    assert (readers(night), night.state) == ("Readers keep the run that latest.json names.", "failed")
    nowhere = end_of_night(record("failed", PROBLEM), None, PROBLEM, output="/does/not/exist")
    assert readers(nowhere) == "Nothing was published yet."
    unrecorded = end_of_night(dataclasses.replace(record("done"), steps=()), None, PROBLEM)
    assert (unrecorded.state, happened(unrecorded)) == ("failed", [PROBLEM])


def test_an_error_is_shown_on_one_line_without_secrets_and_persons(manifest: Manifest) -> None:
    problem = "no index at https://me:hunter22@host/x\nfor jane@example.com " + "x" * 1000
    night = end_of_night(record("failed", problem), None, problem, output=manifest.config["output"]["path"])
    (line,) = happened(night)
    for hidden in ("hunter22", "jane@example.com", "\n"):
        assert hidden not in line
    assert len(line) < 700


def test_many_reasons_are_cut_and_counted(manifest: Manifest) -> None:
    drift = HELD | {"reasons": [f"reason {n}" for n in range(8)]}
    night = end_of_night(record("held", "held"), dataclasses.replace(manifest, drift=drift), "held")
    assert happened(night)[1:] == [*(f"reason {n}" for n in range(5)), "3 more reasons are in the manifest."]


@pytest.mark.parametrize("state", STATES)
def test_no_text_of_a_query_or_a_document_is_told(ends: Ends, state: str) -> None:
    told = "\n".join(
        [title(ends(state)), *happened(ends(state)), readers(ends(state)), remedy(ends(state))]
    ).lower()
    for text in [*QUERIES, *(document["text"] for document in CORPUS)]:
        assert text.lower() not in told
